"""Losses for imbalanced classes, the metrics they serve, and the example weights that hide in them.

Everything here belongs to the chapter *imbalance*; ``eq-...`` names the equation that a function implements. Logits
have the shape ``(examples, classes)`` and targets are integer classes of shape ``(examples,)``; binary functions say so
and take one logit, or one probability of the class 1, per example. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``
throughout, and "mean" divides by the number of examples even where classes are weighted
(``torch.nn.functional.cross_entropy`` divides by the sum of the weights).
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .corpus import Doc
from .training import example_losses

Counts = Sequence[int] | NDArray | Tensor
Metric = str | Callable[[Tensor, Tensor], Tensor]
REMEDIES = (
    "cross entropy",
    "focal",
    "LDAM",
    "weights π^-1/2",
    "effective number",
    "weights 1/π",
    "logit adjustment",
    "multiplicative",
)
METRICS = ("accuracy", "balanced_accuracy", "f", "jaccard")


# ---------------------------------------------------------------------- how imbalanced


def class_prior(labels: Tensor, n_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return the share of each class, shape ``(n_classes,)``.

    Parameters
    ----------
    labels
        Integer classes, shape ``(examples,)``.
    n_classes
        How many classes there are.
    smoothing
        Added to every count.

    Raises
    ------
    ValueError
        If a class has no example and ``smoothing`` is 0: its logarithm would forbid the class for ever.

    >>> class_prior(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.7500, 0.2500])
    """
    labels = torch.as_tensor(labels)
    _check_targets(labels, n_classes)
    if not smoothing >= 0:
        raise ValueError(f"smoothing must not be negative, got {smoothing}")
    counts = torch.bincount(labels, minlength=n_classes).double() + smoothing
    if (counts == 0).any():
        missing = torch.nonzero(counts == 0).ravel().tolist()
        raise ValueError(f"no example of class {', '.join(map(str, missing))}; give smoothing > 0 to allow that")
    return (counts / counts.sum()).to(torch.get_default_dtype())


def long_tail_counts(n_max: int, ratio: float, n_classes: int) -> NDArray[np.int64]:
    """Return class sizes that fall geometrically from ``n_max`` to ``n_max / ratio``; `eq-imbalance-long-tail`.

    >>> long_tail_counts(110, 50, 10)
    array([110,  71,  46,  29,  19,  12,   8,   5,   3,   2])
    """
    if n_max < 1 or not ratio >= 1 or n_classes < 2:
        got = f"{n_max}, {ratio} and {n_classes}"
        raise ValueError(f"needs n_max >= 1, ratio >= 1 and at least 2 classes, got {got}")
    sizes = n_max * float(ratio) ** (-np.arange(n_classes) / (n_classes - 1))
    return np.floor(sizes * (1 + 1e-12)).astype(np.int64)  # 5000 / 100 is 50, not 49


def effective_number(counts: Counts, beta: float) -> Tensor:
    """Return the expected number of distinct prototypes among ``counts`` draws; `eq-imbalance-effective-number`.

    Parameters
    ----------
    counts
        Class sizes, at least 1 each, shape ``(classes,)``.
    beta
        ``(N - 1) / N`` for ``N`` prototypes, in [0, 1).

    >>> effective_number([1, 2, 100], 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    sizes = _check_counts(counts)
    if beta == 0:
        return torch.ones_like(sizes).to(torch.get_default_dtype())
    return (-torch.expm1(sizes * math.log(beta)) / (1 - beta)).to(torch.get_default_dtype())


def effective_number_weights(counts: Counts, beta: float) -> Tensor:
    """Return class weights proportional to one over the effective number; they sum to the number of classes."""
    weights = 1 / effective_number(counts, beta)
    return weights * len(weights) / weights.sum()


# ---------------------------------------------------------------------- losses that weigh examples


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the focal loss of a softmax classifier, ``(1 - p)^gamma (-log p)`` with p of the true class.

    Parameters
    ----------
    logits, targets
        Shapes ``(examples, classes)`` and ``(examples,)``.
    gamma
        At least 0; 0 is the cross entropy.
    weight
        Class weights ``(classes,)``; they multiply the loss, and stay out of the probability in the factor.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # half of log 2
    tensor(0.3466)
    """
    _check_gamma(gamma)
    _check_batch(logits, targets, weight)
    loss = _cross_entropies(logits, targets)
    if gamma:
        tiny = torch.finfo(logits.dtype).smallest_normal
        # 1 - p; the clamp keeps the power's slope finite where gamma < 1 and p rounds to 1
        loss = (-torch.expm1(-loss)).clamp(min=tiny) ** gamma * loss
    return _reduce(loss if weight is None else weight.to(loss)[targets] * loss, reduction)


def binary_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the binary focal loss, `eq-imbalance-focal`, exact to rounding in both tails.

    Parameters
    ----------
    logits, targets
        One shape; targets are 0 or 1, of a floating type.
    gamma
        At least 0; 0 is the cross entropy.
    alpha
        In [0, 1]: the weight of class 1, with ``1 - alpha`` for class 0. None: no weights.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.
    """
    _check_gamma(gamma)
    margin = _signed_margin(logits, targets)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be None or in [0, 1], got {alpha}")
    loss = torch.exp(gamma * F.logsigmoid(-margin)) * -F.logsigmoid(margin)
    if alpha is not None:
        loss = torch.where(targets > 0, alpha, 1 - alpha) * loss
    return _reduce(loss, reduction)


def truncated_loss(logits: Tensor, targets: Tensor, sharpness: float | None = None, reduction: str = "mean") -> Tensor:
    """Return the binary cross entropy of the examples on the wrong side only; `eq-imbalance-truncation`.

    Parameters
    ----------
    logits, targets
        One shape; targets are 0 or 1, of a floating type.
    sharpness
        The factor K of the softened step; None is the hard step, which is 1/2 at logit 0 as in the limit of large K.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.
    """
    margin = _signed_margin(logits, targets)
    if sharpness is None:
        keep = torch.heaviside(-margin.detach(), torch.full((), 0.5, dtype=margin.dtype))
    elif sharpness > 0:
        keep = torch.sigmoid(-sharpness * margin)
    else:
        raise ValueError(f"sharpness must be None or positive, got {sharpness}")
    return _reduce(keep * -F.logsigmoid(margin), reduction)


def ghm_weights(grad_norm: Tensor, bins: int = 10) -> Tensor:
    """Return weights that give every filled bin of gradient sizes an equal say; `eq-imbalance-ghm`.

    Parameters
    ----------
    grad_norm
        ``|p - y|`` of each example, in [0, 1], shape ``(examples,)``.
    bins
        Equal bins on [0, 1].

    >>> ghm_weights(torch.tensor([0.01, 0.02, 0.03, 0.9]))
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    _check_probabilities(grad_norm, "grad_norm")
    at = (grad_norm * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(at, minlength=bins)
    return len(at) / ((counts > 0).sum() * counts[at]).to(grad_norm.dtype)


# ---------------------------------------------------------------------- losses that move the contest


def logit_adjusted_loss(
    logits: Tensor,
    targets: Tensor,
    log_prior: Tensor,
    tau: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the cross entropy of ``logits + tau log_prior``; `eq-imbalance-logit-adjustment`.

    Decide by the largest *raw* logit for balanced accuracy, and by the largest of ``logits + log_prior`` for accuracy.

    Parameters
    ----------
    logits, targets
        Shapes ``(examples, classes)`` and ``(examples,)``.
    log_prior
        Logarithm of the class shares, shape ``(classes,)``.
    tau
        Strength; only 1 is consistent for balanced accuracy (or a matching ``weight``, `eq-imbalance-consistency`).
    weight
        Class weights ``(classes,)``.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.
    """
    _check_batch(logits, targets, weight)
    shift = tau * _check_log_prior(log_prior, logits)
    return _weighted_cross_entropy(logits + shift, targets, weight, reduction)


def adjust_logits(logits: Tensor, log_prior: Tensor, tau: float = 1.0) -> Tensor:
    """Return ``logits - tau log_prior``: the correction after ordinary training, shape ``(..., classes)``."""
    return logits - tau * _check_log_prior(log_prior, logits)


def margin_loss(
    logits: Tensor, targets: Tensor, margins: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return ``log(1 + sum of exp(margin + rival - true logit))`` over the rivals; `eq-imbalance-pairwise`.

    Parameters
    ----------
    logits, targets
        Shapes ``(examples, classes)`` and ``(examples,)``.
    margins
        Shape ``(classes, classes)``: the row is the true class, the column the rival; the diagonal is ignored.
    weight
        Class weights ``(classes,)``.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.
    """
    _check_batch(logits, targets, weight)
    classes = logits.shape[1]
    if margins.shape != (classes, classes):
        raise ValueError(f"margins must have shape ({classes}, {classes}), got {tuple(margins.shape)}")
    shifted = margins.to(logits).index_select(0, targets).scatter_(1, targets[:, None], 0.0).add_(logits)
    return _weighted_cross_entropy(shifted, targets, weight, reduction)


def ldam_margins(counts: Counts, max_margin: float = 0.5) -> Tensor:
    """Return margins that fall with the fourth root of the class size; `eq-imbalance-ldam`.

    >>> ldam_margins([10_000, 16])
    tensor([0.1000, 0.5000])
    """
    if not max_margin >= 0:
        raise ValueError(f"max_margin must not be negative, got {max_margin}")
    shape = _check_counts(counts) ** -0.25
    return (max_margin * shape / shape.max()).to(torch.get_default_dtype())


def ldam_loss(
    logits: Tensor,
    targets: Tensor,
    counts: Counts,
    max_margin: float = 0.5,
    scale: float = 30.0,
    reduction: str = "mean",
) -> Tensor:
    """Return the cross entropy of ``scale * logits`` after `ldam_margins` were taken from the true class."""
    _check_batch(logits, targets, None)
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    margins = ldam_margins(counts, max_margin).to(logits)
    if len(margins) != logits.shape[1]:
        raise ValueError(f"counts must have {logits.shape[1]} entries, one per class, got {len(margins)}")
    taken = logits.scatter_add(1, targets[:, None], -margins[targets][:, None])
    return F.cross_entropy(scale * taken, targets, reduction=_check_reduction(reduction))


def pair_weights(logits: Tensor, log_prior: Tensor, tau: float = 1.0) -> Tensor:
    """Return what logit adjustment multiplies each rival's push by; `eq-imbalance-pair-weight`.

    Returns
    -------
    Tensor
        Shape ``(examples, classes)``; its mean under the softmax of ``logits`` is 1.
    """
    shift = tau * _check_log_prior(log_prior, logits)
    return torch.exp(shift - torch.logsumexp(F.log_softmax(logits, -1) + shift, -1, keepdim=True))


def pointwise_mutual_information(logits: Tensor, log_prior: Tensor) -> Tensor:
    """Return ``log p(y|x) / p(y)`` of a model trained with logit adjustment; `eq-imbalance-pmi`.

    A softmax cannot tell ``logits`` from ``logits + c(x)``; the constant is removed here.
    """
    prior = _check_log_prior(log_prior, logits)
    return logits - torch.logsumexp(logits + prior, -1, keepdim=True)


# ---------------------------------------------------------------------- from a metric to a loss


def smooth_metric(name: str, probs: Tensor, targets: Tensor, beta: float = 1.0) -> Tensor:
    """Return a metric of a binary classifier with probabilities in place of decisions.

    Parameters
    ----------
    name
        ``"accuracy"``, ``"balanced_accuracy"``, ``"f"`` or ``"jaccard"``.
    probs, targets
        Probabilities of class 1, and 0 or 1; shape ``(examples,)``.
    beta
        Of the F-measure: recall counts ``beta`` times as much as precision.

    >>> smooth_metric("f", torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1, 0, 1]))  # 2 x 1 / (1.5 + 2)
    tensor(0.5714)
    """
    if name not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {name!r}")
    y = _check_binary(probs, targets, positives=name != "accuracy", negatives=name == "balanced_accuracy")
    hits = (probs * y).sum()
    if name == "accuracy":
        return (probs * y + (1 - probs) * (1 - y)).mean()
    if name == "balanced_accuracy":
        return (hits / y.sum() + ((1 - probs) * (1 - y)).sum() / (1 - y).sum()) / 2
    if name == "jaccard":
        return hits / (probs.sum() + y.sum() - hits)
    return (1 + beta**2) * hits / (probs.sum() + beta**2 * y.sum())


def metric_weights(metric: Metric, probs: Tensor, targets: Tensor) -> Tensor:
    """Return how much a metric gains per unit of each example's true-class probability; `eq-imbalance-substitution`.

    Parameters
    ----------
    metric
        A name for `smooth_metric`, or a function of ``(probs, targets)`` that returns a scalar.
    probs, targets
        Probabilities of class 1, and 0 or 1; shape ``(examples,)``.

    Returns
    -------
    Tensor
        Not negative, without a gradient, shape ``(examples,)``.

    Raises
    ------
    ValueError
        If the metric falls somewhere when a true-class probability rises: no weight makes a loss of that.

    >>> metric_weights("f", torch.tensor([0.5, 0.5]), torch.tensor([1, 0]))  # F = 1/2; (1 - F/2, F/2) x 2/S
    tensor([0.7500, 0.2500])
    """
    y = _check_binary(probs, targets)
    leaf = probs.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = smooth_metric(metric, leaf, targets) if isinstance(metric, str) else metric(leaf, targets)
    (slope,) = torch.autograd.grad(value, leaf)
    weights = (2 * y - 1) * slope
    if (weights < 0).any():
        at = int(weights.argmin())
        raise ValueError(
            f"the metric falls by {-float(weights[at]):.3g} per unit of the true-class probability of example {at}"
        )
    return weights


def metric_surrogate(metric: Metric, logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``-sum a_i log p_i`` with frozen `metric_weights` a_i: a loss made from a metric.

    Parameters
    ----------
    metric
        As for `metric_weights`.
    logits, targets
        One logit per example, and 0 or 1; shape ``(examples,)``.
    """
    margin = _signed_margin(logits, targets.to(logits.dtype))
    weights = metric_weights(metric, torch.sigmoid(logits.detach()), targets)
    return -(weights * F.logsigmoid(margin)).sum()


def gradient_weight(loss: Callable[[Tensor], Tensor], margin: Tensor | Sequence[float]) -> Tensor:
    """Return the weight that a loss of the margin gives an example, in units of cross entropy; `eq-imbalance-weight`.

    Parameters
    ----------
    loss
        Maps margins to losses, entry by entry.
    margin
        Signed margins, shape ``(points,)``.

    >>> gradient_weight(lambda s: -torch.sigmoid(s), [0.0])  # smooth accuracy: the probability itself
    tensor([0.5000], dtype=torch.float64)
    """
    s = torch.as_tensor(margin, dtype=torch.float64).detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(s).sum(), s)
    return slope / -torch.sigmoid(-s.detach())


# ---------------------------------------------------------------------- decisions and calibration


def optimal_f_threshold(probs: Tensor, targets: Tensor | None = None, beta: float = 1.0) -> tuple[float, float]:
    """Return the threshold on a probability that is best for the F-measure, and the score it gets.

    Predict class 1 where ``probs > threshold``.

    Parameters
    ----------
    probs
        Probabilities of class 1, shape ``(examples,)``.
    targets
        0 or 1, shape ``(examples,)``: the best cut of these scores, ties kept together. None: the probabilities are
        taken as calibrated, and `eq-imbalance-dinkelbach` is run until it stands still.
    beta
        Of the F-measure.

    >>> optimal_f_threshold(torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([1, 0, 1, 0]))
    (0.25, 0.8)
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if targets is None:
        _check_probabilities(probs, "probs")
        return _dinkelbach(probs.detach().double(), beta)
    _check_binary(probs, targets, positives=True)
    return _best_cut(probs.detach(), targets, beta)


def dinkelbach_step(probs: Tensor, score: float, beta: float = 1.0) -> float:
    """Return the expected F-measure of deciding by ``probs > score / (1 + beta^2)``; `eq-imbalance-dinkelbach`."""
    chosen = probs[probs > score / (1 + beta**2)]
    return float((1 + beta**2) * chosen.sum() / (beta**2 * probs.sum() + len(chosen)))


def _dinkelbach(probs: Tensor, beta: float) -> tuple[float, float]:
    if not probs.sum() > 0:
        raise ValueError("all probabilities are 0: no decision has a positive F-measure")
    score, better = 0.0, dinkelbach_step(probs, 0.0, beta)
    while better > score:  # rises strictly, over finitely many decision sets
        score, better = better, dinkelbach_step(probs, better, beta)
    return score / (1 + beta**2), score


def _best_cut(probs: Tensor, targets: Tensor, beta: float) -> tuple[float, float]:
    scores = probs.numpy()
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    hits = np.cumsum(targets.numpy()[order] > 0)
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last of each group of equal scores
    values = (1 + beta**2) * hits[last] / (last + 1 + beta**2 * hits[-1])
    best = int(values.argmax())
    upper = scores[last[best]]
    lower = scores[last[best] + 1] if last[best] + 1 < len(scores) else np.nextafter(upper, upper.dtype.type(-1))
    middle = (upper + lower) / 2
    return float(middle if middle < upper else lower), float(values[best])


def expected_calibration_error(probs: Tensor, targets: Tensor, n_bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal bins of confidence; `eq-imbalance-ece`.

    Parameters
    ----------
    probs, targets
        Shapes ``(examples, classes)``, rows that sum to one, and ``(examples,)``.
    n_bins
        Equal bins on (0, 1], closed on the right.

    >>> expected_calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 1, 1]))
    0.25
    """
    _check_batch(probs, targets, None)
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    if not (torch.allclose(probs.sum(1), probs.new_ones(()), atol=1e-3) and probs.min() >= 0):
        raise ValueError("each row of probs must be a distribution: entries in [0, 1] that sum to 1")
    confidence, predicted = probs.detach().max(1)
    at = (torch.ceil(confidence * n_bins) - 1).clamp(0, n_bins - 1).long()
    gap = (predicted == targets).double() - confidence.double()
    return float(torch.bincount(at, weights=gap, minlength=n_bins).abs().sum() / len(gap))


# ---------------------------------------------------------------------- experiments: all remedies through one loss


@dataclass(frozen=True)
class Knobs:
    """What a remedy sets, for the member networks of an ensemble; a table has the shape ``(members, classes)``.

    The loss is ``weight_y (1 - p_y)^gamma (-log p_y)`` with the probabilities of ``multiplier * logits + shift``, from
    whose true class ``margin`` was taken. None leaves a knob alone: without any, this is the cross entropy.
    """

    weight: Tensor | None = None
    shift: Tensor | None = None
    multiplier: Tensor | None = None
    margin: Tensor | None = None
    gamma: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a loss per member, shape ``(members,)``, from ``(members, n, classes)`` and ``(members, n)``."""
        if self.multiplier is not None:
            logits = logits * self.multiplier[:, None]
        if self.shift is not None:
            logits = logits + self.shift[:, None]
        if self.margin is not None:
            logits = logits.scatter_add(2, targets[..., None], -self.margin.gather(1, targets)[..., None])
        losses = example_losses(logits, targets)
        if self.gamma:
            losses = (-torch.expm1(-losses)).clamp(min=1e-30) ** self.gamma * losses
        if self.weight is not None:
            losses = self.weight.gather(1, targets) * losses
        return losses.mean(-1)


def remedy(name: str, counts: Tensor, *, tau: float = 1.0) -> Knobs:
    """Return the knobs of a remedy for class imbalance.

    Parameters
    ----------
    name
        One of ``REMEDIES``.
    counts
        Class sizes of each member's training data, shape ``(members, classes)``.
    tau
        Strength of the logit adjustment.
    """
    prior = counts / counts.sum(1, keepdim=True)
    even = counts.shape[1] * prior  # 1 where the classes are equally large
    settings: dict[str, Callable[[], Knobs]] = {
        "cross entropy": Knobs,
        "focal": lambda: Knobs(gamma=2.0),
        "LDAM": lambda: Knobs(
            multiplier=torch.full_like(prior, 10.0), margin=10 * torch.stack([ldam_margins(row) for row in counts])
        ),
        "weights π^-1/2": lambda: Knobs(weight=even**-0.5),
        "effective number": lambda: Knobs(weight=torch.stack([effective_number_weights(c, 0.999) for c in counts])),
        "weights 1/π": lambda: Knobs(weight=1 / even),
        "logit adjustment": lambda: Knobs(shift=tau * prior.log()),
        "multiplicative": lambda: Knobs(multiplier=(counts / counts.amax(1, keepdim=True)) ** 0.3),
    }
    if name not in settings:
        raise ValueError(f"remedy must be one of {', '.join(settings)}, got {name!r}")
    return settings[name]()


def stack_remedies(names: Sequence[str], sizes: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return one loss for an ensemble whose members are the seeds of the first remedy, then of the second, and so on.

    Parameters
    ----------
    names
        Of ``REMEDIES``.
    sizes
        Class sizes by seed, shape ``(seeds, classes)``.
    """
    losses = [remedy(name, sizes) for name in names]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        parts = zip(losses, logits.split(len(sizes)), targets.split(len(sizes)))
        return torch.cat([one(z, y) for one, z, y in parts])

    return loss


class CosineAdam:
    """Adam whose step size falls from ``rate`` to 0 along a cosine, for `training.fit_ensemble`.

    Pass the object as ``optimizer`` and its method ``anneal`` as ``on_epoch``.
    """

    def __init__(self, rate: float, epochs: int):
        self.rate, self.epochs, self.adam = rate, epochs, None

    def __call__(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of these parameters."""
        self.adam = torch.optim.Adam(parameters, lr=self.rate, foreach=False)
        return self.adam

    def anneal(self, epoch: int) -> None:
        """Set the step size for the epoch that begins."""
        for group in self.adam.param_groups:
            group["lr"] = self.rate / 2 * (1 + math.cos(math.pi * epoch / self.epochs))


@dataclass(frozen=True)
class Scores:
    """How well the members of an ensemble classify: one entry each, ``recall`` is ``(members, classes)``."""

    accuracy: Tensor
    recall: Tensor
    f1: Tensor
    ece: Tensor

    @property
    def balanced(self) -> Tensor:
        """Balanced accuracy, the mean recall over the classes."""
        return self.recall.mean(1)


def evaluate(logits: Tensor, targets: Tensor) -> Scores:
    """Return the scores of logits ``(members, n, classes)`` against targets ``(members, n)``; ``f1`` is macro-F1."""
    said, classes = logits.argmax(-1), logits.shape[2]
    ece = [expected_calibration_error(z.softmax(-1), y) for z, y in zip(logits, targets)]
    return Scores(
        accuracy=(said == targets).float().mean(1),
        recall=recall_by_class(said, targets, classes),
        f1=f1_by_class(F.one_hot(said, classes), targets).mean(1),
        ece=torch.tensor(ece),
    )


def topic_documents(docs: Iterable[Doc], min_docs: int = 20, min_words: int = 5) -> tuple[list[str], Tensor, list[str]]:
    """Return texts, topic numbers and topic names of the docstring corpus, for a classifier that must not peek.

    A text keeps its words of two letters or more in lower case, without every word that stands in a topic's name.

    Parameters
    ----------
    docs
        Documents with the fields ``text`` and ``topic``; topics without a dot are left out.
    min_docs, min_words
        Smaller topics, and shorter texts, are left out.
    """
    kept = [doc for doc in docs if "." in doc.topic]
    banned = {word for doc in kept for word in _WORD.findall(doc.topic.lower())}
    words = [[w for w in _WORD.findall(doc.text.lower()) if w not in banned] for doc in kept]
    long = [(doc.topic, " ".join(w)) for doc, w in zip(kept, words) if len(w) >= min_words]
    sizes = Counter(topic for topic, _ in long)
    names = sorted((t for t in sizes if sizes[t] >= min_docs), key=lambda t: (-sizes[t], t))
    number = {topic: at for at, topic in enumerate(names)}
    pairs = [(text, number[topic]) for topic, text in long if topic in number]
    return [text for text, _ in pairs], torch.tensor([n for _, n in pairs]), names


_WORD = re.compile(r"[a-z]{2,}")


def split_by_class(labels: Tensor, seed: int, share: float = 0.3, least: int = 6) -> tuple[Tensor, Tensor]:
    """Return the places of training and test examples: of each class ``share``, at least ``least``, for the test."""
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for label in range(int(labels.max()) + 1):
        places = torch.nonzero(labels == label).ravel()
        places = places[torch.randperm(len(places), generator=generator)]
        cut = max(least, round(share * len(places)))
        test.append(places[:cut])
        train.append(places[cut:])
    return torch.cat(train), torch.cat(test)


def draw_classes(labels: Tensor, counts: NDArray[np.int64], test: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a long-tailed training set and a balanced test set.

    Parameters
    ----------
    labels
        Integer classes, shape ``(examples,)``.
    counts
        Training sizes; which class gets which is drawn.
    test
        Test examples per class.
    seed
        Of both draws.

    Returns
    -------
    tuple of Tensor
        Training places, test places, and the training size of each class.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.as_tensor(counts)[torch.randperm(len(counts), generator=generator)]
    train, held = [], []
    for label, size in enumerate(sizes.tolist()):
        places = torch.nonzero(labels == label).ravel()
        places = places[torch.randperm(len(places), generator=generator)]
        if len(places) < test + size:
            raise ValueError(f"class {label} has {len(places)} examples, {test + size} are needed")
        held.append(places[:test])
        train.append(places[test : test + size])
    return torch.cat(train), torch.cat(held), sizes


@dataclass(frozen=True)
class Tail:
    """Long-tailed training sets and balanced test sets, one per seed; the first axis is the seed.

    The inputs have the shape ``(seeds, n, d)``, the targets ``(seeds, n)``, and ``sizes``, the numbers of training
    examples, ``(seeds, classes)``.
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    sizes: Tensor

    def repeat(self, times: int) -> Tail:
        """Return the same sets ``times`` over, for an ensemble that compares as many remedies."""
        return Tail(*(v.repeat(times, *[1] * (v.dim() - 1)) for v in vars(self).values()))


def long_tail(inputs: Tensor, labels: Tensor, counts: NDArray[np.int64], test: int, seeds: Iterable[int]) -> Tail:
    """Return `draw_classes` for each seed, stacked."""
    draws = [draw_classes(labels, counts, test, seed) for seed in seeds]
    train, held, sizes = (torch.stack(part) for part in zip(*draws))
    return Tail(inputs[train], labels[train], inputs[held], labels[held], sizes.float())


def recall_by_class(predicted: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """Return the share of each class that was found, shape ``(members, classes)``, from ``(members, n)`` twice."""
    found = torch.zeros(len(targets), n_classes).scatter_add_(1, targets, (predicted == targets).float())
    return found / torch.zeros(len(targets), n_classes).scatter_add_(1, targets, torch.ones(targets.shape))


def f1_by_class(chosen: Tensor, targets: Tensor) -> Tensor:
    """Return the F1 of each class of each member, shape ``(members, classes)``.

    Parameters
    ----------
    chosen
        Decisions, or probabilities for the smooth F1, shape ``(members, n, classes)``.
    targets
        Shape ``(members, n)``.
    """
    chosen, shape = chosen.float(), (len(targets), chosen.shape[2])
    own = chosen.gather(2, targets[..., None])[..., 0]
    hits = torch.zeros(shape).scatter_add_(1, targets, own)
    sizes = torch.zeros(shape).scatter_add_(1, targets, torch.ones_like(own))
    return 2 * hits / (chosen.sum(1) + sizes)


def one_vs_rest_weights(rule: str, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of the examples in and out of each class, twice the shape ``(members, classes)``.

    Parameters
    ----------
    rule
        ``"none"``; ``"balanced"``, one over twice the share of either side; or ``"f1"``, `eq-imbalance-w-f1` at the
        smooth F1 of these logits.
    logits, targets
        Shapes ``(members, n, classes)`` and ``(members, n)``.
    """
    if rule == "none":
        return torch.ones(len(logits), logits.shape[2]), torch.ones(len(logits), logits.shape[2])
    if rule == "f1":
        half = f1_by_class(torch.sigmoid(logits), targets) / 2
        return 1 - half, half
    if rule == "balanced":
        share = torch.zeros(len(logits), logits.shape[2]).scatter_add_(1, targets, torch.ones(targets.shape))
        share /= targets.shape[1]
        return 1 / (2 * share), 1 / (2 * (1 - share))
    raise ValueError(f"rule must be 'none', 'balanced' or 'f1', got {rule!r}")


def one_vs_rest_losses(logits: Tensor, targets: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return each member's weighted binary cross entropy, summed over one question "is it k?" per class.

    Parameters
    ----------
    logits, targets
        Shapes ``(members, n, classes)`` and ``(members, n)``.
    positive, negative
        Weights of the examples in and out of each class, shape ``(members, classes)``.
    """
    rest = (F.softplus(logits) * negative[:, None]).sum(-1)
    own = logits.gather(2, targets[..., None])[..., 0]
    swap = positive.gather(1, targets) * F.softplus(-own) - negative.gather(1, targets) * F.softplus(own)
    return (rest + swap).mean(-1)


def one_vs_rest_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each member's dice loss, one minus the smooth F1 of the batch, summed over the classes."""
    return (1 - f1_by_class(torch.sigmoid(logits), targets)).sum(-1)


def plane_boundaries(means: NDArray, log_prior: NDArray, tau: float, box: tuple[float, float]) -> list[list[float]]:
    """Return the lines between the territories of three unit Gaussians in the plane under ``logits - tau log_prior``.

    Parameters
    ----------
    means
        Centres, shape ``(3, 2)``.
    log_prior
        Logarithm of the class shares, shape ``(3,)``.
    tau
        Strength of the adjustment; 0 is the rule with the best accuracy.
    box
        Half the width and half the height of the picture, around the origin.

    Returns
    -------
    list
        ``[x1, y1, x2, y2]`` of each visible segment.
    """
    segments = []
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        normal = means[i] - means[j]  # score_i = score_j where normal . x = level
        level = (means[i] @ means[i] - means[j] @ means[j]) / 2 - (1 - tau) * (log_prior[i] - log_prior[j])
        along = np.array([-normal[1], normal[0]]) / np.linalg.norm(normal)
        points = normal * level / (normal @ normal) + np.linspace(-12, 12, 4801)[:, None] * along
        scores = points @ means.T - (means**2).sum(1) / 2 + (1 - tau) * log_prior
        visible = points[(scores[:, k] <= scores[:, i]) & (np.abs(points) <= box).all(1)]
        if len(visible):
            segments.append([round(float(v), 2) for v in (*visible[0], *visible[-1])])
    return segments


# ---------------------------------------------------------------------- shared by the losses


def _signed_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``(2y - 1) z``, the logit of the true class."""
    if not (torch.is_floating_point(logits) and torch.is_floating_point(targets)):
        raise TypeError(f"logits and targets must be floating, got {logits.dtype} and {targets.dtype}")
    if logits.shape != targets.shape:
        raise ValueError(f"logits and targets need one shape, got {tuple(logits.shape)} and {tuple(targets.shape)}")
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError("targets must be 0 or 1")
    return (2 * targets - 1) * logits


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of every example; with few classes, three times as fast as PyTorch's on a CPU."""
    if logits.shape[1] > 64:
        return F.cross_entropy(logits, targets, reduction="none")
    shifted = logits - logits.detach().amax(1, keepdim=True)  # else large logits would cancel each other's digits
    return torch.logsumexp(shifted, 1) - shifted.gather(1, targets[:, None])[:, 0]


def _weighted_cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return F.cross_entropy(logits, targets, reduction=_check_reduction(reduction))
    return _reduce(weight.to(logits)[targets] * F.cross_entropy(logits, targets, reduction="none"), reduction)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    return loss if reduction == "none" else getattr(loss, reduction)()


# ---------------------------------------------------------------------- checks of the arguments


def _check_reduction(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return reduction


def _check_gamma(gamma: float) -> None:
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be finite and not negative, got {gamma}")


def _check_counts(counts: Counts) -> Tensor:
    sizes = torch.as_tensor(counts, dtype=torch.float64)
    if sizes.ndim != 1 or len(sizes) == 0 or not (sizes >= 1).all():
        raise ValueError(f"counts must be one-dimensional and at least 1 each, got {counts}")
    return sizes


def _check_targets(targets: Tensor, n_classes: int) -> None:
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.ndim != 1 or len(targets) == 0:
        raise ValueError(
            f"targets must be integer classes of shape (examples,), got {targets.dtype} of {tuple(targets.shape)}"
        )
    low, high = (int(v) for v in torch.aminmax(targets))
    if low < 0 or high >= n_classes:
        raise ValueError(f"targets must lie in 0 ... {n_classes - 1}, got {low} ... {high}")


def _check_batch(logits: Tensor, targets: Tensor, weight: Tensor | None) -> None:
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating, got {logits.dtype}")
    if logits.ndim != 2 or len(logits) != len(targets):
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"needs logits (examples, classes) and as many targets, got {shapes}")
    _check_targets(targets, logits.shape[1])
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(f"weight must have {logits.shape[1]} entries, one per class, got {tuple(weight.shape)}")


def _check_log_prior(log_prior: Tensor, logits: Tensor) -> Tensor:
    """Return the log prior in the type of the logits."""
    if log_prior.shape != logits.shape[-1:]:
        raise ValueError(f"log_prior must have {logits.shape[-1]} entries, one per class, got {tuple(log_prior.shape)}")
    if not torch.isfinite(log_prior).all():
        raise ValueError(f"log_prior must be finite, got {log_prior.tolist()}; see the smoothing of class_prior")
    if (log_prior >= 0).all() and (log_prior > 0).any():
        warnings.warn("log_prior has no negative entry; was the prior passed instead of its logarithm?", stacklevel=3)
    return log_prior.to(logits)


def _check_probabilities(probs: Tensor, name: str) -> None:
    if not torch.is_floating_point(probs) or probs.ndim != 1 or len(probs) == 0:
        raise ValueError(f"{name} must be floating, of shape (examples,), got {probs.dtype} of {tuple(probs.shape)}")
    if not ((probs >= 0) & (probs <= 1)).all():
        low, high = (float(v) for v in torch.aminmax(probs.detach()))
        raise ValueError(f"{name} must lie in [0, 1], got {low:.3g} ... {high:.3g}; are these logits?")


def _check_binary(probs: Tensor, targets: Tensor, positives: bool = False, negatives: bool = False) -> Tensor:
    """Return the targets in the type of the probabilities."""
    _check_probabilities(probs, "probs")
    if targets.shape != probs.shape:
        raise ValueError(f"probs and targets need one shape, got {tuple(probs.shape)} and {tuple(targets.shape)}")
    y = targets.to(probs.dtype)
    if not ((y == 0) | (y == 1)).all():
        raise ValueError("targets must be 0 or 1")
    for wanted, label, count in ((positives, 1, y.sum()), (negatives, 0, (1 - y).sum())):
        if wanted and count == 0:
            raise ValueError(f"this metric needs an example of class {label}, got none")
    return y
