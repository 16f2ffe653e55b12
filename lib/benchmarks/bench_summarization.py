"""The routines of chapter summarization beside their peers: one process, one thread, process time, interleaved.

A ratio is the median, over many rounds, of the ratio of the two times in one round; its spread is shown beside it. The
ratio of the least times of each is shown too: it leaves out what the system's memory management costs (a fresh page is
filled with zeros), which weighs more on the peers that write more.

Run it with ``python benchmarks/bench_summarization.py`` from the folder of the package, or call `run`. Peers that are
not installed (``benchmarks/requirements.txt``) are skipped with a line that names them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rouge_score import rouge_scorer
from threadpoolctl import threadpool_limits

from explainers import summarization
from explainers.transformer import prefix_mask

Routines = dict[str, Callable[[], object]]
CLASSES, WIDTH, ROWS, K = 21_128, 128, 256, 10


@dataclass(frozen=True)
class Target:
    """A line of the table: `routine` may take `limit` times as long as `peer`, or is to be so much faster."""

    routine: str
    peer: str
    limit: float | None = None  # None: shown for comparison only
    faster: bool = False


TARGETS = [
    Target("sparse_cross_entropy", "F.cross_entropy", 0.6),
    Target("plain formula", "F.cross_entropy"),
    Target("sparse_cross_entropy", "entmax15_loss", 12, faster=True),
    Target("sparse_cross_entropy", "entmax15_loss, k=512", None, faster=True),
    Target("sparse_cross_entropy", "sparsemax_loss, k=512", None, faster=True),
    Target("linear_sparse_cross_entropy", "F.linear, F.cross_entropy", 0.7),
    Target("rouge, 300 tokens", "rouge-score, 300 tokens", 25, faster=True),
    Target("rouge, 300 tokens", "rouge, the package, 300 tokens", None, faster=True),
    Target("rouge, 20 tokens", "rouge-score, 20 tokens", None, faster=True),
    Target("lcs_alignment, 1000 x 300", "textbook table, 1000 x 300", 40, faster=True),
    Target("CopyIndex, 96 steps", "n-gram table each step", 15, faster=True),
    Target("decoding with cache", "recomputing the prefix", 3, faster=True),
]


def interleaved(routines: Routines, rounds: int) -> dict[str, np.ndarray]:
    """Return process times of each routine in seconds, shape (rounds,); one round runs all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in routines}
    for _ in range(rounds):
        for name, call in routines.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in times.items()}


# --- Losses ---------------------------------------------------------------------------------------------------


def _plain(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (logits.topk(K, -1).values.logsumexp(-1) - logits.gather(-1, target[:, None])[:, 0]).mean()


def loss_routines(entmax: object | None) -> Routines:
    """Return losses with their backward pass, and the output layer with its own."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator).requires_grad_()
    hidden = torch.randn(ROWS, WIDTH, generator=generator).requires_grad_()
    weight = (torch.randn(CLASSES, WIDTH, generator=generator) * WIDTH**-0.5).requires_grad_()
    target = torch.randint(0, CLASSES, (ROWS,), generator=generator)

    def backward(loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def call() -> None:
            for leaf in (logits, hidden, weight):
                leaf.grad = None
            loss().backward()

        return call

    losses = {
        "F.cross_entropy": lambda: F.cross_entropy(logits, target),
        "sparse_cross_entropy": lambda: summarization.sparse_cross_entropy(logits, target, K),
        "plain formula": lambda: _plain(logits, target),
        "F.linear, F.cross_entropy": lambda: F.cross_entropy(F.linear(hidden, weight), target),
        "linear_sparse_cross_entropy": lambda: summarization.linear_sparse_cross_entropy(
            hidden, weight, None, target, K
        ),
    }
    if entmax is not None:
        losses |= {
            "entmax15_loss": lambda: entmax.entmax15_loss(logits, target).mean(),
            "entmax15_loss, k=512": lambda: entmax.entmax15_loss(logits, target, k=512).mean(),
            "sparsemax_loss, k=512": lambda: entmax.sparsemax_loss(logits, target, k=512).mean(),
        }
    return {name: backward(loss) for name, loss in losses.items()}


# --- Text -----------------------------------------------------------------------------------------------------


def _table(x: list[Hashable], y: list[Hashable]) -> list[tuple[int, int]]:
    """Align by the textbook: fill the table, walk back."""
    lengths = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if a == b else max(lengths[i][j + 1], lengths[i + 1][j])
    pairs, i, j = [], len(x), len(y)
    while i and j:
        if lengths[i][j] == lengths[i - 1][j]:
            i -= 1
        elif lengths[i][j] == lengths[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _words(length: int, seed: int) -> list[str]:
    return [f"w{n}" for n in np.random.default_rng(seed).zipf(1.3, length) % 500]


def text_routines(rouge: object | None) -> Routines:
    """Return the metric on texts of 300 and 20 tokens, and alignments."""
    peer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    routines: Routines = {}
    for length in (300, 20):
        a, b = _words(length, 0), _words(length, 1)
        texts = " ".join(a), " ".join(b)
        repeat = range(6000 // length // 20)
        routines[f"rouge, {length} tokens"] = lambda a=a, b=b, r=repeat: [summarization.rouge(a, b) for _ in r]
        routines[f"rouge-score, {length} tokens"] = lambda t=texts, r=repeat: [peer.score(*t) for _ in r]
        if rouge is not None:
            scorer = rouge.Rouge()
            routines[f"rouge, the package, {length} tokens"] = lambda t=texts, r=repeat, s=scorer: [
                s.get_scores(*t) for _ in r
            ]
    x, y = _words(1000, 2), _words(300, 3)
    routines["lcs_alignment, 1000 x 300"] = lambda: summarization.lcs_alignment(x, y)
    routines["textbook table, 1000 x 300"] = lambda: _table(x, y)
    return routines


# --- Decoding -------------------------------------------------------------------------------------------------


def _path(source: list[int], steps: int) -> list[int]:
    """Return an output that copies spans of the source."""
    rng, output = np.random.default_rng(4), []
    while len(output) < steps:
        at = int(rng.integers(0, len(source) - 8))
        output += source[at : at + 6]
    return output[:steps]


def copy_routines() -> Routines:
    """Return 96 look-ups of what may follow a run in a source of 1,000 tokens."""
    source = np.random.default_rng(5).integers(0, 300, 1000).tolist()
    output = _path(source, 96)

    def automaton() -> list[set]:
        index = summarization.CopyIndex(source)
        state, found = index.start, []
        for token in output:
            found.append(index.continuations(state) if state else None)
            after = index.extend(state, token)
            state = after if after is not None else index.extend(index.start, token)
        return found

    def rebuilt() -> list[set]:
        found, run = [], []
        for token in output:
            table: dict[tuple, set] = {}
            for at in range(len(source) - len(run)):
                gram = tuple(source[at : at + len(run) + 1])
                table.setdefault(gram[:-1], set()).add(gram[-1])
            allowed = table.get(tuple(run), set())
            found.append(allowed if run else None)
            run = [*run, token] if token in allowed else [token]
        return found

    if automaton() != rebuilt():
        raise AssertionError("the two ways of looking up continuations disagree")
    return {"CopyIndex, 96 steps": automaton, "n-gram table each step": rebuilt}


def decoding_routines() -> Routines:
    """Return beam searches of 48 tokens after a source of 96, with and without a cache."""
    model = summarization.Summarizer(2000, 2, 48, 4, generator=torch.Generator().manual_seed(0)).eval()
    source = torch.randint(3, 2000, (96,), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def recompute(prefixes: torch.Tensor, parents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.cat([source.expand(len(prefixes), -1), prefixes], 1)
        segments = (torch.arange(rows.shape[1]) >= len(source)).long().expand(rows.shape)
        mask = prefix_mask(torch.full((len(rows),), len(source)), rows.shape[1])
        hidden = model.transformer(rows, segments=segments, mask=mask)[:, -1]
        return model.transformer.logits(hidden), model.tags(hidden)

    def search(step: Callable) -> list:
        return summarization.beam_search(step, source.tolist(), end=2, beam=4, max_length=48)

    return {
        "decoding with cache": lambda: search(model.stepper(source)),
        "recomputing the prefix": lambda: search(recompute),
    }


# --- The table ------------------------------------------------------------------------------------------------


def _optional(name: str) -> object | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"skipped: the peer {name} is not installed (benchmarks/requirements.txt)")
        return None


def measure(rounds: int) -> dict[str, np.ndarray]:
    """Return the times of all routines; the losses, which take milliseconds, get three times the rounds."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        times = interleaved(loss_routines(_optional("entmax")), 3 * rounds)
        for routines in (text_routines(_optional("rouge")), copy_routines(), decoding_routines()):
            times |= interleaved(routines, rounds)
    return times


def compare(target: Target, routine: np.ndarray, peer: np.ndarray) -> dict:
    """Return the ratio of two arrays of times of the same rounds: median, two percentiles, best times."""
    over, under = (peer, routine) if target.faster else (routine, peer)
    low, ratio, high = np.quantile(over / under, (0.1, 0.5, 0.9))
    met = None
    if target.limit is not None:
        met = bool(ratio >= target.limit if target.faster else ratio <= target.limit)
    spread, best = (float(low), float(high)), float(over.min() / under.min())
    milliseconds = 1e3 * float(np.median(routine))
    return {
        **vars(target),
        "ratio": float(ratio),
        "spread": spread,
        "best": best,
        "met": met,
        "milliseconds": milliseconds,
    }


def run(rounds: int = 11) -> list[dict]:
    """Return one row per target whose peer is there: the ratio of times and whether it is within the limit."""
    times = measure(rounds)
    return [compare(t, times[t.routine], times[t.peer]) for t in TARGETS if t.peer in times]


HEAD = f"{'routine':28} {'peer':32} {'median':>15} {'10 % to 90 %':>17} {'best/best':>9} {'target':>9} {'met':>4}"


def describe(row: dict) -> str:
    """Return one line of the printed table."""
    measured = f"{row['ratio']:.2f}x {'faster' if row['faster'] else 'time'}"
    spread = "{:.2f} to {:.2f}".format(*row["spread"])
    target = "-" if row["limit"] is None else f"{'>=' if row['faster'] else '<='} {row['limit']:g}x"
    met = {True: "yes", False: "NO", None: "-"}[row["met"]]
    start = f"{row['routine']:28} {row['peer']:32} {measured:>15}"
    return f"{start} {spread:>17} {row['best']:9.2f} {target:>9} {met:>4}"


def main() -> None:
    """Print the table."""
    rows = run()
    print(HEAD)
    for row in rows:
        print(describe(row))


if __name__ == "__main__":
    main()
