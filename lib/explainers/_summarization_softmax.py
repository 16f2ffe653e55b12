"""Sparse softmax, its loss with a backward pass of k + 1 entries, and what it can learn.

Used through :mod:`explainers.summarization`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 64  # neighbouring logits whose maximum is taken together
_GROUP = 8  # the same in shorter rows, where the logits of a group stand far apart
_REDUCTIONS = ("mean", "sum", "none")


def _check_k(k: object, classes: int) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"k must be an integer, got {type(k).__name__} {k!r}")
    if not 1 <= k <= classes:
        raise ValueError(f"k must lie between 1 and the number of classes {classes}, got {k}")


def sparse_softmax(logits: Tensor, k: int, dim: int = -1) -> Tensor:
    """Return the softmax over the k largest logits, zero elsewhere (eq-summarization-sparse, chapter summarization).

    Parameters
    ----------
    logits : float Tensor, any shape
    k : int
        From 1 to the size of `dim`. Among equal logits exactly k are kept.
    dim : int

    Returns
    -------
    Tensor, the shape of `logits`

    Raises
    ------
    TypeError, ValueError
        If `logits` are not floating point, or k is no integer or out of range.

    Examples
    --------
    >>> sparse_softmax(torch.tensor([0.0, 1.0, 1.0, -3.0]), 2)
    tensor([0.0000, 0.5000, 0.5000, 0.0000])
    """
    _check_float("logits", logits)
    _check_k(k, logits.shape[dim])
    top, place = logits.topk(k, dim)
    return torch.zeros_like(logits).scatter(dim, place, top.softmax(dim))


def sparse_cross_entropy(
    logits: Tensor, target: Tensor, k: int, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Return LSE of the k largest logits minus the target's (eq-summarization-sparse-loss, chapter summarization).

    The gradient is the sparse softmax minus the one-hot target (eq-summarization-gradient), also where the
    target is not among the k largest. A target that leads by far keeps its relative accuracy. Not twice
    differentiable.

    Parameters
    ----------
    logits : float Tensor, shape (..., classes)
    target : integer Tensor, shape (...)
        Classes, or `ignore_index` where there is none.
    k : int
        From 1 (multiclass perceptron) to the number of classes (cross entropy).
    ignore_index : int
    reduction : "mean", "sum" or "none"
        The mean is over the targets that count; without any it is NaN, as in PyTorch.

    Returns
    -------
    Tensor
        A scalar, or the shape of `target`.

    Raises
    ------
    TypeError, ValueError
        If a type, shape, k, target or `reduction` is not as above.

    Examples
    --------
    >>> sparse_cross_entropy(torch.tensor([[2.0, 2.0, -50.0, 0.0]]), torch.tensor([0]), 2)
    tensor(0.6931)
    """
    _check_float("logits", logits)
    if logits.dim() < 1 or logits.shape[:-1] != target.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need a target {tuple(logits.shape[:-1])}, got {tuple(target.shape)}"
        )
    # A view of rows that are rows already would cost a copy of the gradient.
    rows = logits if logits.dim() == 2 else logits.reshape(-1, logits.shape[-1])
    return _checked(_SparseLoss, (rows,), logits.shape[-1], target, k, ignore_index, reduction)


def linear_sparse_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, k: int, *,
    ignore_index: int = -100, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the sparse loss of ``hidden @ weight.T + bias`` (eq-summarization-gradient, chapter summarization).

    The backward pass touches only the k + 1 rows of `weight` whose logits have a gradient.

    Parameters
    ----------
    hidden : float Tensor, shape (..., width)
    weight : float Tensor, shape (classes, width)
    bias : float Tensor, shape (classes,), or None
    target : integer Tensor, shape (...)
    k, ignore_index, reduction
        As for `sparse_cross_entropy`.

    Returns
    -------
    Tensor
        A scalar, or the shape of `target`.

    Raises
    ------
    TypeError, ValueError
        If a type, shape, k, target or `reduction` is not as above.

    Examples
    --------
    >>> hidden, weight = torch.ones(1, 2), torch.tensor([[1.0, 1.0], [1.0, 1.0], [-9.0, 0.0]])
    >>> linear_sparse_cross_entropy(hidden, weight, None, torch.tensor([0]), 2)
    tensor(0.6931)
    """
    _check_float("hidden", hidden)
    _check_float("weight", weight)
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        got = f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"hidden (..., width) and weight (classes, width) must share the width, got {got}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    if hidden.shape[:-1] != target.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} needs a target {tuple(hidden.shape[:-1])}, got {tuple(target.shape)}"
        )
    rows = hidden.reshape(-1, hidden.shape[-1])
    return _checked(_LinearSparseLoss, (rows, weight, bias), len(weight), target, k, ignore_index, reduction)


def _checked(
    function: type[torch.autograd.Function], inputs: tuple[Tensor | None, ...], classes: int, target: Tensor, k: int,
    ignore_index: int, reduction: str,
) -> Tensor:  # fmt: skip
    """Return the reduced losses of ``function`` on its inputs, once k, targets and reduction have been looked at."""
    _check_k(k, classes)
    valid = _check_target(target, classes, ignore_index, reduction)
    losses = function.apply(*inputs, target.reshape(-1).clamp_min(0), int(k))
    return _reduce(losses.view(target.shape), valid, reduction)


def _check_float(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")


def _check_target(target: Tensor, classes: int, ignore_index: int, reduction: str) -> Tensor:
    """Return the mask of the targets that count, shape of ``target``."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold integer classes, got {target.dtype}")
    valid = target != ignore_index
    outside = valid & ((target < 0) | (target >= classes))
    if outside.any():
        raise ValueError(
            f"target {int(target[outside][0])} lies outside 0..{classes - 1} and is not ignore_index={ignore_index}"
        )
    return valid


def _reduce(losses: Tensor, valid: Tensor, reduction: str) -> Tensor:
    losses = torch.where(valid, losses, 0.0)
    if reduction == "none":
        return losses
    return losses.sum() / valid.sum() if reduction == "mean" else losses.sum()


def _largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return values and places (n, k) of the largest logits of each row, in any order.

    In long rows they are looked for in the k blocks with the largest maxima only, where they must stand; that takes a
    third of the time of one `topk` over the row.
    """
    classes, searched = logits.shape[-1], k * _BLOCK
    if classes < 4 * searched:
        return _largest_of_few(logits, k)
    whole = classes // _BLOCK * _BLOCK
    blocks = logits[:, :whole].unflatten(-1, (-1, _BLOCK))
    chosen = _largest_of_few(blocks.amax(-1), k)[1]
    kept = blocks[torch.arange(len(logits), device=logits.device)[:, None], chosen].flatten(1)
    top, at = _largest_of_few(torch.cat([kept, logits[:, whole:]], -1), k)
    inside = chosen.gather(-1, (at // _BLOCK).clamp_max(k - 1)) * _BLOCK + at % _BLOCK
    return top, torch.where(at < searched, inside, at + (whole - searched))


def _largest_of_few(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Do the same for shorter rows: a `topk` of the maxima of every 8 entries, then one of the 8 k behind them."""
    size = values.shape[-1] // _GROUP
    if size < 4 * k:
        return values.topk(k, -1, sorted=False)
    whole = size * _GROUP
    column = values[:, :whole].unflatten(-1, (_GROUP, size)).amax(-2).topk(k, -1, sorted=False).indices
    places = column.repeat(1, _GROUP) + (torch.arange(_GROUP, device=values.device) * size).repeat_interleave(k)
    rest = torch.arange(whole, values.shape[-1], device=values.device).expand(len(values), -1)
    places = torch.cat([places, rest], -1)
    top, at = values.gather(-1, places).topk(k, -1, sorted=False)
    return top, places.gather(-1, at)


def _forward(logits: Tensor, target: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses (n,), and the places (n, k) and probabilities (n, k) of the largest logits."""
    top, place = _largest(logits, k)
    own = logits.gather(-1, target[:, None])
    inside = place == target[:, None]
    # The target's own term is taken out of the sum, so that log(1 + x) sees a small x as it is.
    others = top.masked_fill(inside, -math.inf).logsumexp(-1)
    lead = others - own[:, 0]
    loss = torch.where(inside.any(-1), torch.logaddexp(lead, torch.zeros_like(lead)), lead)
    return loss, place, top.softmax(-1)


class _SparseLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, k: int) -> Tensor:
        loss, place, probability = _forward(logits, target, k)
        ctx.save_for_backward(place, probability, target)
        ctx.classes = logits.shape[-1]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        place, probability, target = ctx.saved_tensors
        gradient = probability.new_zeros(len(target), ctx.classes)
        gradient.scatter_(-1, place, probability * upstream[:, None])
        gradient.scatter_add_(-1, target[:, None], -upstream[:, None])
        return gradient, None, None


class _LinearSparseLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, k: int) -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight, bias)
        loss, place, probability = _forward(logits, target, k)
        ctx.save_for_backward(hidden, weight, place, probability, target)
        ctx.has_bias = bias is not None
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, place, probability, target = ctx.saved_tensors
        rows = torch.cat([place, target[:, None]], -1)  # (n, k + 1)
        values = torch.cat([probability, -torch.ones_like(probability[:, :1])], -1) * upstream[:, None]
        for_hidden = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_hidden = torch.bmm(values[:, None], weight[rows])[:, 0]
        if ctx.needs_input_grad[1]:
            terms = (values[..., None] * hidden[:, None]).flatten(0, 1)
            for_weight = torch.zeros_like(weight).index_add_(0, rows.flatten(), terms)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            for_bias = weight.new_zeros(len(weight)).index_add_(0, rows.flatten(), values.flatten())
        return for_hidden, for_weight, for_bias, None, None


# --- Theory -------------------------------------------------------------------------------------------------


def logit_gap(classes: int, loss: ArrayLike) -> Any:
    """Return the gap between the target's and the smallest logit that a cross entropy forces.

    eq-summarization-gap of chapter summarization; with ``classes=k`` the gap of eq-summarization-gap-sparse.

    Parameters
    ----------
    classes : int
        At least 2.
    loss : array_like of float
        Positive.

    Returns
    -------
    float or array
        ``log(classes - 1) - log(exp(loss) - 1)``.

    Raises
    ------
    TypeError, ValueError
        If `classes` is no integer or below 2, or a loss is not positive.

    Examples
    --------
    >>> round(logit_gap(50_257, 0.1), 3), round(logit_gap(10, 0.1), 3)
    (13.077, 4.449)
    """
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)):
        raise TypeError(f"classes must be an integer, got {type(classes).__name__} {classes!r}")
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    loss = np.asarray(loss, dtype=np.float64)
    if not np.all(loss > 0):
        raise ValueError("logit_gap: every loss must be positive")
    gap = math.log(classes - 1) - loss - np.log(-np.expm1(-loss))
    return float(gap) if gap.ndim == 0 else gap


@dataclass(frozen=True)
class SparseRisk:
    """The best that a sparse softmax can do on one distribution.

    Attributes
    ----------
    risk : float
        The least expected loss.
    head : int
        How many classes, the most probable ones, are learned exactly.
    level : float
        The water level; every class below it gets one and the same logit. 0 if none is below.
    """

    risk: float
    head: int
    level: float


def sparse_risk(q: ArrayLike, k: int) -> SparseRisk:
    """Return the least sparse cross entropy on a distribution (eq-summarization-risk, chapter summarization).

    Parameters
    ----------
    q : array_like of float, shape (classes,)
        A distribution, in any order.
    k : int
        From 1 to the number of classes.

    Returns
    -------
    SparseRisk
        With ``sum_i min(1, q_i / level) = k``.

    Raises
    ------
    TypeError, ValueError
        If `q` is no distribution, or k is no integer or out of range.

    Examples
    --------
    >>> sparse_risk([0.3, 0.25, 0.2, 0.15, 0.1], 3).head, sparse_risk([0.3, 0.25, 0.2, 0.15, 0.1], 4).head
    (0, 2)
    """
    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 1 or not np.all(q >= 0) or not math.isclose(q.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(f"q must be a distribution: shape (classes,), no negative entry, sum 1; got shape {q.shape}")
    _check_k(k, len(q))
    q = np.sort(q[q > 0])[::-1]
    if len(q) < k:
        return SparseRisk(float(-(q * np.log(q)).sum()), len(q), 0.0)
    below = np.cumsum(q[::-1])[::-1]  # mass outside the a largest; as 1 - cumsum(q) a small one would be lost
    levels = below[:k] / (k - np.arange(k))
    head = int(np.argmax(q[:k] <= levels * (1 + 1e-12)))  # the first class not above the level; the k-th never is
    level = float(levels[head])
    risk = -(q[:head] * np.log(q[:head])).sum() - below[head] * math.log(level)
    return SparseRisk(float(risk), head, level)
