"""Mitchell's routines beside their peers: in one process, interleaved, on one thread, best of several rounds.

Run it with ``python benchmarks/bench_mitchell.py`` from the folder of the package, or call `run`.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from timing import Routines, best_times

from explainers import mitchell


@dataclass(frozen=True)
class Target:
    """A line of the table: `routine` may take `limit` times as long as `peer`, or is to be so much faster."""

    routine: str
    peer: str
    limit: float | None = None  # None: shown for comparison only
    faster: bool = False


ELEMENTWISE = [
    Target("raw_multiply", "np.multiply", 2),
    Target("multiply", "np.multiply", 8),
    Target("divide", "np.multiply", 8),
    Target("multiply, half zeros", "np.multiply", 25),
    Target("frexp, ldexp, where", "np.multiply"),
    Target("true log2 and exp2", "np.multiply"),
]
HALF = [Target("multiply, float16", "np.multiply, float16", 1, faster=True)]
MATRICES = [
    Target("matmul", "masked (M, K, N)", 5, faster=True),
    Target("matmul", "frexp (M, K, N)", 30, faster=True),
    Target("matmul", "np.matmul", 80),
    Target("matmul, zeros in a", "np.matmul", 80),
    Target("matmul, zeros in a and b", "np.matmul", 80),
]
MEMORY_LIMIT = 48e6  # bytes, for 384**3 products; the (M, K, N) temporary has 226 MB


def frexp_product(a: NDArray, b: NDArray) -> NDArray:
    """Multiply as one would write it first, by the two branches of the definition."""
    (x, k), (y, n) = np.frexp(np.abs(a)), np.frexp(np.abs(b))
    total = 2 * x + 2 * y - 2
    product = np.where(total < 1, np.ldexp(1 + total, k + n - 2), np.ldexp(total, k + n - 1))
    return np.where((a == 0) | (b == 0), 0, np.sign(a) * np.sign(b) * product)


def true_logarithms(a: NDArray, b: NDArray) -> NDArray:
    """Multiply through exact logarithms."""
    with np.errstate(divide="ignore"):
        return np.sign(a) * np.sign(b) * np.exp2(np.log2(np.abs(a)) + np.log2(np.abs(b)))


def masked_matmul(a: NDArray, b: NDArray) -> NDArray:
    """Multiply matrices by one sum of words over (M, K, N), zeros masked."""
    words = a.view(np.int32)[:, :, None] + b.view(np.int32) - np.int32(0x3F800000)
    zero = (a == 0)[:, :, None] | (b == 0)
    return np.where(zero, np.float32(0), words.view(np.float32)).sum(1)


def elementwise_routines(size: int) -> Routines:
    """Return the routines for float32 vectors, normal numbers unless the name says otherwise."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size)).astype(np.float32)
    sparse = np.where(rng.random(size) < 0.5, np.float32(0), a)
    return {
        "np.multiply": lambda: np.multiply(a, b),
        "raw_multiply": lambda: mitchell.raw_multiply(a, b),
        "multiply": lambda: mitchell.multiply(a, b),
        "divide": lambda: mitchell.divide(a, b),
        "multiply, half zeros": lambda: mitchell.multiply(sparse, b),
        "frexp, ldexp, where": lambda: frexp_product(a, b),
        "true log2 and exp2": lambda: true_logarithms(a, b),
    }


def half_routines(size: int) -> Routines:
    """Return the routines for float16, which NumPy emulates."""
    a, b = np.random.default_rng(1).uniform(0.5, 2, (2, size)).astype(np.float16)
    return {
        "np.multiply, float16": lambda: np.multiply(a, b),
        "multiply, float16": lambda: mitchell.multiply(a, b),
    }


def matrix_routines(size: int) -> Routines:
    """Return the matrix products of square float32 matrices."""
    a, b = np.random.default_rng(2).standard_normal((2, size, size)).astype(np.float32)
    sparse_a, sparse_b = np.maximum(a, 0), np.maximum(b, 0)
    return {
        "np.matmul": lambda: a @ b,
        "matmul": lambda: mitchell.matmul(a, b),
        "matmul, zeros in a": lambda: mitchell.matmul(sparse_a, b),
        "matmul, zeros in a and b": lambda: mitchell.matmul(sparse_a, sparse_b),
        "masked (M, K, N)": lambda: masked_matmul(a, b),
        "frexp (M, K, N)": lambda: frexp_product(a[:, :, None], b).sum(1),
    }


def compare(targets: list[Target], times: dict[str, float]) -> list[dict]:
    """Return one row per target: the ratio of times and whether it is within the limit."""
    rows = []
    for target in targets:
        slower = times[target.routine] / times[target.peer]
        ratio = 1 / slower if target.faster else slower
        met = None if target.limit is None else bool(ratio >= target.limit if target.faster else ratio <= target.limit)
        rows.append({**asdict(target), "ratio": ratio, "met": met, "milliseconds": 1e3 * times[target.routine]})
    return rows


def peak_memory(size: int) -> int:
    """Return the peak of the memory that one `matmul` of square matrices allocates, in bytes."""
    a, b = np.random.default_rng(3).standard_normal((2, size, size)).astype(np.float32)
    tracemalloc.start()
    try:
        mitchell.matmul(a, b)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def run(rounds: int = 20) -> list[dict]:
    """Return the rows of the table.

    Parameters
    ----------
    rounds : int
        Rounds of the elementwise routines; the slow matrix products get a quarter.

    Returns
    -------
    list of dict
        With the keys of `Target`, and ``ratio``, ``met`` (None without a target), ``milliseconds``; the last
        row holds the peak memory of a 384 x 384 x 384 product in bytes as its ratio.
    """
    with threadpool_limits(1):
        rows = compare(ELEMENTWISE, best_times(elementwise_routines(1_000_000), rounds))
        rows += compare(HALF, best_times(half_routines(1_000_000), rounds))
        rows += compare(MATRICES, best_times(matrix_routines(256), max(3, rounds // 4)))
    peak = peak_memory(384)
    memory = Target("matmul 384^3, peak bytes", "48 MB", MEMORY_LIMIT)
    return [*rows, {**asdict(memory), "ratio": peak, "met": peak < MEMORY_LIMIT, "milliseconds": None}]


def describe(row: dict) -> str:
    """Return one line of the printed table."""
    if row["milliseconds"] is None:
        measured, target = f"{row['ratio'] / 1e6:.1f} MB", f"< {row['limit'] / 1e6:.0f} MB"
    else:
        measured = f"{row['ratio']:.1f}x {'faster' if row['faster'] else 'slower'}"
        target = "-" if row["limit"] is None else f"{'>=' if row['faster'] else '<='} {row['limit']:.0f}x"
    met = {True: "yes", False: "NO", None: "-"}[row["met"]]
    return f"{row['routine']:26} {row['peer']:22} {measured:>15} {target:>10} {met:>4}"


def main() -> None:
    """Print the table."""
    print(f"{'routine':26} {'peer':22} {'measured':>15} {'target':>10} {'met':>4}")
    for row in run():
        print(describe(row))


if __name__ == "__main__":
    main()
