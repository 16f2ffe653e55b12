"""The imbalance losses beside their peers: forward and backward, interleaved, on one thread, best of several rounds.

Run it with ``python benchmarks/bench_imbalance.py`` from the folder of the package, or call `run`. A peer that is not
installed is named and left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve
from timing import Routines, best_times
from torch import Tensor
from torch.nn import functional as F

from explainers import imbalance

SHAPES = ((65_536, 10), (4_096, 1_000))


@dataclass(frozen=True)
class Target:
    """A line of the table: `routine` may take `limit` times as long as `peer`; a limit of None is for comparison."""

    routine: str
    peer: str
    limit: float | None = None


LOSSES = [
    Target("logit_adjusted_loss", "F.cross_entropy", 1.6),
    Target("margin_loss", "F.cross_entropy", 1.7),
    Target("focal_loss", "F.cross_entropy", 1.7),
    Target("focal_loss", "kornia focal_loss", 1.0),
    Target("focal_loss", "monai FocalLoss"),
]
DECISIONS = [
    Target("expected_calibration_error", "torchmetrics", 1.0),
    Target("optimal_f_threshold", "precision_recall_curve", 1.2),
]


def peer(name: str) -> ModuleType | None:
    """Return a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def loss_routines(examples: int, classes: int) -> Routines:
    """Return each loss as a forward and backward pass over the same logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(examples, classes, generator=generator).requires_grad_()
    targets = torch.randint(0, classes, (examples,), generator=generator)
    log_prior = torch.linspace(0, -5, classes).log_softmax(0)
    margins = log_prior - log_prior[:, None]

    def both(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), logits)

    routines = {
        "F.cross_entropy": both(lambda: F.cross_entropy(logits, targets)),
        "logit_adjusted_loss": both(lambda: imbalance.logit_adjusted_loss(logits, targets, log_prior)),
        "margin_loss": both(lambda: imbalance.margin_loss(logits, targets, margins)),
        "focal_loss": both(lambda: imbalance.focal_loss(logits, targets)),
    }
    if kornia := peer("kornia.losses"):
        routines["kornia focal_loss"] = both(
            lambda: kornia.focal_loss(logits, targets, alpha=None, gamma=2.0, reduction="sum")
        )
    if monai := peer("monai.losses"):
        focal = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
        routines["monai FocalLoss"] = both(lambda: focal(logits, targets[:, None]))
    return routines


def decision_routines(examples: int) -> Routines:
    """Return calibration and threshold search with their peers."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(examples, 10, generator=generator).softmax(1)
    targets = torch.randint(0, 10, (examples,), generator=generator)
    scores, positives = table[:, 0].contiguous(), (targets == 0).long()
    y, s = positives.numpy(), scores.numpy()
    routines = {
        "expected_calibration_error": lambda: imbalance.expected_calibration_error(table, targets),
        "optimal_f_threshold": lambda: imbalance.optimal_f_threshold(scores, positives),
        "precision_recall_curve": lambda: precision_recall_curve(y, s),
    }
    if torchmetrics := peer("torchmetrics.functional.classification"):
        routines["torchmetrics"] = lambda: torchmetrics.multiclass_calibration_error(table, targets, 10, n_bins=15)
    return routines


def compare(targets: list[Target], times: dict[str, float], where: str) -> list[dict]:
    """Return one row per target: the ratio of times and whether it is within the limit; None for a missing peer."""
    rows = []
    for target in targets:
        missing = target.peer not in times
        ratio = None if missing else times[target.routine] / times[target.peer]
        met = None if missing or target.limit is None else bool(ratio <= target.limit)
        rows.append({**asdict(target), "where": where, "ratio": ratio, "met": met})
    return rows


def agreement() -> dict[str, float]:
    """Return the largest difference from each peer that is installed, on small inputs."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(500, 7, generator=generator)
    targets = torch.randint(0, 7, (500,), generator=generator)
    found, probs = {}, logits.softmax(1)
    if kornia := peer("kornia.losses"):
        theirs = kornia.focal_loss(logits, targets, alpha=None, gamma=2.0, reduction="sum") / len(targets)
        found["kornia focal_loss"] = float((imbalance.focal_loss(logits, targets) - theirs).abs())
    if monai := peer("monai.losses"):
        p, y = torch.sigmoid(logits[:, 0]), (targets == 0).float()
        dice = monai.DiceLoss(smooth_nr=0, smooth_dr=1e-12)(p[None, None], y[None, None])
        found["monai DiceLoss"] = abs(float(1 - imbalance.smooth_metric("f", p, y) - dice))
    if torchmetrics := peer("torchmetrics.functional.classification"):
        theirs = float(torchmetrics.multiclass_calibration_error(probs, targets, 7, n_bins=15))
        found["torchmetrics"] = abs(imbalance.expected_calibration_error(probs, targets) - theirs)
    precision, recall, _ = precision_recall_curve((targets == 0).numpy(), probs[:, 0].numpy())
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    found["precision_recall_curve"] = abs(imbalance.optimal_f_threshold(probs[:, 0], targets == 0)[1] - best)
    return found


def run(rounds: int = 20) -> list[dict]:
    """Return the rows of the table: the fields of `Target`, ``where``, ``ratio`` and ``met``.

    Parameters
    ----------
    rounds
        How often each routine is run; the least time counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for examples, classes in SHAPES:
            times = best_times(loss_routines(examples, classes), rounds)
            rows += compare(LOSSES, times, f"{examples:,} x {classes:,}")
        return rows + compare(DECISIONS, best_times(decision_routines(100_000), rounds), "100,000 examples")
    finally:
        torch.set_num_threads(threads)


def describe(row: dict) -> str:
    """Return one line of the printed table."""
    target = "-" if row["limit"] is None else f"<= {row['limit']:.1f}x"
    measured = "not installed" if row["ratio"] is None else f"{row['ratio']:.2f}x"
    met = {True: "yes", False: "NO", None: "-"}[row["met"]]
    return f"{row['routine']:27} {row['peer']:23} {row['where']:17} {measured:>13} {target:>8} {met:>4}"


def main() -> None:
    """Print the table, and how closely the results agree."""
    print(f"{'routine':27} {'peer':23} {'on':17} {'measured':>13} {'target':>8} {'met':>4}")
    for row in run():
        print(describe(row))
    for name, difference in agreement().items():
        print(f"agrees with {name} to {difference:.1e}")


if __name__ == "__main__":
    main()
