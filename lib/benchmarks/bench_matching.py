"""Matching's routines beside their peers: in one process, interleaved, on one thread, best of several rounds.

Run it with ``python benchmarks/bench_matching.py`` from the folder of the package, or call `run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits
from timing import best_times

from explainers.matching import (
    Matcher,
    Record,
    Tokens,
    best_threshold,
    bucket_batches,
    build_pairs,
    competition_score,
)
from explainers.transformer import Transformer, padding_mask


def row(routine: str, peer: str, ratio: float, target: float, *, faster: bool = False) -> dict[str, Any]:
    """Return one line of the table; ``faster`` means that a larger ratio is better."""
    met = ratio >= target if faster else ratio <= target
    return {"routine": routine, "peer": peer, "ratio": round(ratio, 3), "target": target, "met": met, "faster": faster}


def scores(rounds: int) -> Iterator[dict[str, Any]]:
    """Compare the two scores with NumPy's sort and scikit-learn's F1, on a million rows."""
    rng = np.random.default_rng(0)
    n = 1_000_000
    tasks, labels, p = rng.integers(0, 6, n), rng.integers(0, 2, n), rng.random(n)
    says = (p > 0.5).astype(int)
    halves = [tasks % 2 == s for s in (0, 1)]
    times = best_times(
        {
            "best_threshold": lambda: best_threshold(labels, p),
            "np.argsort": lambda: np.argsort(p),
            "competition_score": lambda: competition_score(tasks, labels, says),
            "f1_score twice": lambda: [f1_score(labels[half], says[half]) for half in halves],
        },
        rounds,
    )
    yield row("best_threshold, 10^6", "np.argsort", times["best_threshold"] / times["np.argsort"], 3)
    yield row("competition_score, 10^6", "f1_score twice", times["competition_score"] / times["f1_score twice"], 1)


def steps(rounds: int) -> Iterator[dict[str, Any]]:
    """Compare training steps of a conditional, a plain and PyTorch's own stack, and a specialised forward pass."""
    batch, size, width, layers = 32, 64, 96, 2
    x = torch.randn(batch, size, width, generator=torch.Generator().manual_seed(0))
    mask = padding_mask(torch.full((batch,), size), size)
    condition = torch.randn(batch, 16, generator=torch.Generator().manual_seed(1))
    options = {"hidden": 4 * width, "rotary": False}
    conditional = Transformer(layers, width, 4, condition_size=16, **options)
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True), layers
    )
    plain = Transformer.from_torch(encoder)
    folded = conditional.specialise(condition[0])

    def train(model: torch.nn.Module, **arguments: Any) -> None:
        model(x, **arguments).square().mean().backward()

    @torch.no_grad()
    def ask(model: torch.nn.Module) -> None:
        model(x, mask=mask)

    times = best_times(
        {
            "conditional": lambda: train(conditional, mask=mask, condition=condition),
            "plain": lambda: train(plain, mask=mask),
            "torch": lambda: train(encoder),
            "specialised": lambda: ask(folded),
            "plain forward": lambda: ask(plain),
        },
        rounds,
    )
    yield row("conditional step", "plain step, same code", times["conditional"] / times["plain"], 1.25)
    yield row("conditional step", "nn.TransformerEncoder", times["conditional"] / times["torch"], 1.4)
    yield row("specialised forward", "plain forward", times["specialised"] / times["plain forward"], 1.1)


def epochs(rounds: int) -> dict[str, Any]:
    """Compare an epoch of the joint form over bucketed and over random batches, with the corpus's lengths."""
    rng = np.random.default_rng(0)
    n = 960  # text lengths like those of the chapter: short ones of 10 to 45 tokens, long ones of 30 to 70
    short, long = rng.integers(10, 45, (2, n)), rng.integers(30, 70, (2, n))
    kind = rng.integers(0, 3, n)
    sizes = np.where(kind == 2, long[0], short[0]), np.where(kind == 0, short[1], long[1])
    lengths = sizes[0] + sizes[1] + 1
    ids = torch.from_numpy(rng.integers(0, 500, (n, 70)))
    model = Matcher(500, layers=2, interaction="joint", generator=torch.Generator().manual_seed(0))

    def epoch(spread: int) -> None:
        for at in bucket_batches(lengths, 16, spread=spread):
            texts = [Tokens(ids[at], torch.from_numpy(size[at])) for size in sizes]
            model(*texts, torch.from_numpy(kind[at])).square().mean().backward()

    times = best_times({"random": lambda: epoch(1), "bucketed": lambda: epoch(50)}, rounds)
    return row("bucketed epoch, joint", "random epoch", times["random"] / times["bucketed"], 1.4, faster=True)


def pairs(rounds: int) -> dict[str, Any]:
    """Time the drawing of 12,000 pairs from 14,000 records, in seconds."""
    sentences = tuple(f"word {i} of a text with some eight words" for i in range(12))
    records = [Record(f"p{t % 6}.t{t}", f"p{t % 6}.t{t}.o{o}", sentences) for t in range(200) for o in range(70)]
    seconds = best_times({"pairs": lambda: build_pairs(records, 2000)}, rounds)["pairs"]
    return row("build_pairs, 12,000", "seconds", seconds, 3)


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """Return the rows of the table: routine, peer, ratio, target, whether it is met, and which way is better."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [*scores(max(3, rounds // 3)), *steps(rounds), epochs(max(2, rounds // 5)), pairs(2)]


def main() -> None:
    """Print the table."""
    print(f"{'routine':26} {'peer':24} {'ratio':>7} {'target':>8} {'met':>4}")
    for line in run():
        target = f"{'>=' if line['faster'] else '<='} {line['target']}"
        met = "yes" if line["met"] else "NO"
        print(f"{line['routine']:26} {line['peer']:24} {line['ratio']:7.2f} {target:>8} {met:>4}")


if __name__ == "__main__":
    main()
