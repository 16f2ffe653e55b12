"""Flooding: hold the training loss at a level, and what that does (chapter flooding).

The trick is one line, :func:`flood`. The rest of the module measures it: the pair of steps that it makes
(:func:`two_step`), the path that many such pairs follow (:func:`flood_trajectory`, :func:`sliding_flow`), and its
relatives that hold single examples or groups of them at the level (:func:`flooded_objective`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from . import training

METHODS = ("erm", "flood", "iflood", "softad")


# ---------------------------------------------------------------- the objective


def flood(loss: Tensor, level: float | Tensor) -> Tensor:
    """Return ``|loss - level| + level`` entry by entry: descent above the level, ascent below it.

    Equation ``eq-flooding-objective``. Back-propagate what is returned, not ``loss``: the value is what the flooded
    loss is for, its gradient is that of ``loss`` with the sign of ``loss - level``, and zero where they are equal.
    A single number above a plain level is returned as it is.

    Parameters
    ----------
    loss
        Any shape, floating; a mean over examples, not a sum.
    level
        Not negative; a number or a tensor that broadcasts to ``loss``.

    Raises
    ------
    TypeError
        If ``loss`` is not a floating tensor.
    ValueError
        If ``level`` is negative or not finite, or ``loss`` is not a number somewhere.

    >>> flood(torch.tensor([0.5, 0.1]), 0.2)
    tensor([0.5000, 0.3000])
    """
    _check_losses(loss, "loss")
    level = _check_level(level, loss)
    if loss.dim() == 0 and not isinstance(level, Tensor):
        # The usual case costs one comparison: the formula's three operations are a tenth of a small network's step.
        gap = loss.item() - level
        if abs(gap) > torch.finfo(loss.dtype).eps * level:  # on one side for certain, however the level is rounded
            return loss if gap > 0 else 2 * level - loss
    return (loss - level).abs() + level


def flooded_objective(
    losses: Tensor, level: float | Tensor, method: str = "flood", group_size: int | None = None
) -> Tensor:
    """Return the objective that a method makes of the examples' losses.

    Parameters
    ----------
    losses
        Shape ``(..., n)``, the last axis runs over examples.
    level
        A number, or shape ``(...)``.
    method
        ``"erm"``: the mean, the level is not used. ``"flood"``: the flooded mean, ``eq-flooding-objective``.
        ``"iflood"``: the mean of the flooded losses, ``eq-flooding-iflood``. ``"softad"``: the same with
        ``sqrt(x^2 + 1) - 1`` for the absolute value, ``eq-flooding-softad``.
    group_size
        With ``"flood"`` only: flood the mean of each run of so many examples, and average, ``eq-flooding-group``.
        The caller shuffles.

    Returns
    -------
    Tensor, shape ``(...)``

    Raises
    ------
    TypeError, ValueError
        As :func:`flood`; also for an unknown method, or a group size that another method cannot use or that does not
        divide ``n``.

    >>> losses = torch.tensor([0.0, 0.6, 0.2, 0.8])
    >>> [round(float(flooded_objective(losses, 0.4, "flood", m)), 3) for m in (1, 2, 4)]
    [0.7, 0.5, 0.4]
    """
    _check_losses(losses, "losses")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if losses.dim() == 0 or losses.shape[-1] == 0:
        raise ValueError(f"losses need a last axis of examples, got shape {tuple(losses.shape)}")
    if group_size is not None and method != "flood":
        raise ValueError(f"group_size goes with the method 'flood', got {group_size} with {method!r}")
    if method == "erm":
        return losses.mean(-1)
    level = _check_level(level, losses)
    if isinstance(level, Tensor) and level.dim() and level.shape != losses.shape[:-1]:
        raise ValueError(f"level must be a number or have shape {tuple(losses.shape[:-1])}, got {tuple(level.shape)}")
    if method == "flood" and group_size is None:
        return (losses.mean(-1) - level).abs() + level
    of_example = level[..., None] if isinstance(level, Tensor) else level
    if method == "flood":
        return flood(_group_means(losses, group_size), of_example).mean(-1)
    excess = losses - of_example
    # the second form of sqrt(x^2 + 1) - 1 keeps its digits for small x
    rho = excess.abs() if method == "iflood" else excess**2 / (torch.sqrt(excess**2 + 1) + 1)
    return level + rho.mean(-1)


def member_objective(
    methods: Sequence[str],
    levels: Sequence[float],
    group_sizes: Sequence[int | None] | None = None,
    generator: torch.Generator | None = None,
) -> training.EnsembleLoss:
    """Return a loss for ``training.fit_ensemble`` in which member k follows ``methods[k]`` at ``levels[k]``.

    With ``group_sizes`` member k floods random groups of ``group_sizes[k]`` examples, drawn anew at each call from
    ``generator``; members of one call share the order.

    >>> objective = member_objective(["erm", "flood"], [0.0, 0.7])
    >>> objective(torch.zeros(2, 5, 2), torch.zeros(2, 5, dtype=torch.long))
    tensor([0.6931, 0.7069])
    """
    sizes = [None] * len(methods) if group_sizes is None else list(group_sizes)
    if not len(methods) == len(levels) == len(sizes):
        lengths = f"{len(methods)}, {len(levels)} and {len(sizes)}"
        raise ValueError(f"methods, levels and group_sizes need one entry per member, got {lengths}")
    kinds = list(zip(methods, sizes))
    members = {kind: [k for k, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)}
    level = torch.tensor([float(value) for value in levels], dtype=torch.float64)

    def objective(logits: Tensor, targets: Tensor) -> Tensor:
        losses = training.example_losses(logits, targets)
        if generator is not None:
            losses = losses[:, torch.randperm(losses.shape[1], generator=generator)]
        if len(members) == 1:  # nothing to pick out and put back
            return flooded_objective(losses, level.to(losses), *kinds[0])
        values = torch.empty(len(levels), dtype=losses.dtype)
        for (method, size), rows in members.items():
            values[rows] = flooded_objective(losses[rows], level[rows].to(losses), method, size)
        return values

    return objective


def bayes_flood_level(noise_rate: float, n_classes: int) -> float:
    """Return the smallest mean cross entropy that is honestly attainable under symmetric label noise.

    Equation ``eq-flooding-bayes-level``: with the share ``noise_rate`` of the labels moved evenly to the other classes,
    a lower training loss is paid for by learning the moved labels.

    >>> round(bayes_flood_level(0.1, 2), 4), round(bayes_flood_level(0.2, 10), 4)
    (0.3251, 0.9398)
    """
    if not 0 <= noise_rate <= 1:
        raise ValueError(f"noise_rate must be in [0, 1], got {noise_rate}")
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")
    return float(entr(1 - noise_rate) + entr(noise_rate) + noise_rate * math.log(n_classes - 1))


def dispersion_penalty(std: float, group_size: int, population: int) -> float:
    """Return how far the flooded mean of a random group stands above the level if the whole mean is at the level.

    Equation ``eq-flooding-folded``: the mean of a folded normal; ``std`` is that of the examples' losses, with
    ``population`` in its denominator, and groups are drawn without replacement.
    """
    if std < 0 or not math.isfinite(std):
        raise ValueError(f"std must be finite and not negative, got {std}")
    if not 1 <= group_size <= population or population < 2:
        raise ValueError(f"need 1 <= group_size <= population and population >= 2, got {group_size} and {population}")
    without_replacement = (population - group_size) / (population - 1)
    return std * math.sqrt(2 / (math.pi * group_size) * without_replacement)


def _check_losses(losses: Any, name: str) -> None:
    if not isinstance(losses, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(losses).__name__}")
    if not losses.is_floating_point():
        raise TypeError(f"{name} must be floating, got {losses.dtype}")
    if math.isnan(losses.item()) if losses.dim() == 0 else losses.isnan().any():
        raise ValueError(f"{name} is not a number in {int(losses.isnan().sum())} of {losses.numel()} entries")


def _check_level(level: float | Tensor, like: Tensor) -> float | Tensor:
    if isinstance(level, (int, float)):
        if not 0 <= level < math.inf:
            raise ValueError(f"level must be finite and not negative, got {level}")
        return level
    level = torch.as_tensor(level, dtype=like.dtype)
    if not (torch.isfinite(level).all() and (level >= 0).all()):
        raise ValueError(f"level must be finite and not negative, got {level.tolist()}")
    return level


def _group_means(losses: Tensor, size: int) -> Tensor:
    """Return the mean of each run of ``size`` examples: (..., n) -> (..., n / size)."""
    n = losses.shape[-1]
    if size < 1 or n % size:
        raise ValueError(f"group_size must divide the number of examples {n}, got {size}")
    return losses.unflatten(-1, (n // size, size)).mean(-1)


# ---------------------------------------------------------------- two steps, and many


def two_step(
    grad: Callable[[Any], Any], theta: Any, eps: float, eps_ascent: float | None = None, first: str = "descent"
) -> Any:
    """Return where one step down and one step up lead, exactly (``eq-flooding-pair``, ``eq-flooding-swap``).

    Parameters
    ----------
    grad
        Maps a point to the gradient there.
    theta
        A number, an array or a tensor.
    eps, eps_ascent
        Step sizes down and up, positive; by default equal. Different ones give ``eq-flooding-two-rates``.
    first
        ``"descent"`` or ``"ascent"``.

    >>> round(two_step(lambda x: 3 * x, 1.0, 0.1), 12)  # (1 - 0.09) x, either way round
    0.91
    """
    up = eps if eps_ascent is None else eps_ascent
    if not eps > 0 or not up > 0:
        raise ValueError(f"step sizes must be positive, got {eps} and {up}")
    if first not in ("descent", "ascent"):
        raise ValueError(f"first must be 'descent' or 'ascent', got {first!r}")
    for step in (-eps, up) if first == "descent" else (up, -eps):
        theta = theta + step * grad(theta)
    return theta


def gradient_and_curvature(loss_fn: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its gradient g and the product Hg of the Hessian with it, all detached.

    One forward and two backward passes; ``theta`` has shape ``(d,)``, and so have g and Hg.
    """
    theta = _check_theta(theta).clone().requires_grad_()
    loss = loss_fn(theta)
    (g,) = torch.autograd.grad(loss, theta, create_graph=True)
    if not g.requires_grad:  # a linear loss
        return loss.detach(), g, torch.zeros_like(g)
    (curved,) = torch.autograd.grad(g, theta, grad_outputs=g.detach(), allow_unused=True)
    return loss.detach(), g.detach(), torch.zeros_like(g) if curved is None else curved


@dataclass(frozen=True)
class FloodTrajectory:
    """Gradient steps on a flooded loss.

    Attributes
    ----------
    loss, sq_grad_norm
        The raw loss and the squared norm of its gradient before each step and at the end, shape ``(steps + 1,)``.
    ascent
        Whether the step went up, shape ``(steps,)``, bool.
    theta
        The last point, shape ``(d,)``.
    """

    loss: NDArray[np.float64]
    sq_grad_norm: NDArray[np.float64]
    ascent: NDArray[np.bool_]
    theta: Tensor


def flood_trajectory(
    loss_fn: Callable[[Tensor], Tensor], theta0: Tensor, level: float, eps: float, steps: int
) -> FloodTrajectory:
    """Follow gradient descent with step ``eps`` on the flooded loss.

    Raises
    ------
    ValueError
        If the level is negative or not finite, ``eps`` or ``steps`` is not positive, or the loss leaves the numbers.

    Warns
    -----
    UserWarning
        If the loss starts below the level: then even the first step goes up.
    """
    _check_run(level, eps, "eps", steps)
    theta = _check_theta(theta0).clone()
    losses, norms, ascents = [], [], []
    for step in range(steps + 1):
        point = theta.requires_grad_()
        loss = loss_fn(point)
        (g,) = torch.autograd.grad(loss, point)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} after {step} steps; eps = {eps:g} is too large")
        norms.append(float(g @ g))
        if step == 0 and losses[0] < level:
            warnings.warn(f"the loss starts at {losses[0]:.3g}, below the level {level:g}", stacklevel=2)
        if step < steps:
            sign = math.copysign(1.0, losses[-1] - level) if losses[-1] != level else 0.0
            ascents.append(sign < 0)
            theta = theta.detach() - eps * sign * g
    return FloodTrajectory(np.array(losses), np.array(norms), np.array(ascents, dtype=bool), theta.detach())


class SlidingFlow(NamedTuple):
    """Points of the flow along a level set, shapes ``(steps + 1, d)``, ``(steps + 1,)``, ``(steps + 1,)``."""

    theta: Tensor
    sq_grad_norm: NDArray[np.float64]
    rayleigh: NDArray[np.float64]


def sliding_flow(
    loss_fn: Callable[[Tensor], Tensor], theta0: Tensor, level: float, duration: float, steps: int
) -> SlidingFlow:
    """Integrate what flooding does in the limit of small steps, ``eq-flooding-sliding``.

    On the set where the loss is ``level`` the point moves by ``-(Hg - Rg)``, R = g.Hg / g.g, in the time
    ``n eps^2 / 2`` of n steps. Runge-Kutta of fourth order; after each step a Newton step or two along g brings the
    point back to the level. ``theta0`` is first brought there, too.
    """
    _check_run(level, duration, "duration", steps)
    h = duration / steps

    def velocity(theta: Tensor) -> Tensor:
        _, g, curved = gradient_and_curvature(loss_fn, theta)
        return (g @ curved) / (g @ g) * g - curved

    theta = _to_level(loss_fn, _check_theta(theta0), level)
    points = [theta]
    for _ in range(steps):
        k1 = velocity(theta)
        k2 = velocity(theta + h / 2 * k1)
        k3 = velocity(theta + h / 2 * k2)
        k4 = velocity(theta + h * k3)
        theta = _to_level(loss_fn, theta + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), level)
        points.append(theta)
    measured = [gradient_and_curvature(loss_fn, point)[1:] for point in points]
    norms = np.array([float(g @ g) for g, _ in measured])
    return SlidingFlow(torch.stack(points), norms, np.array([float(g @ c) for g, c in measured]) / norms)


def rayleigh_from_ascents(ascent: Any, eps: float) -> float:
    """Return the curvature along the gradient that a share of ascent steps betrays, ``eq-flooding-meter``.

    >>> round(rayleigh_from_ascents([True, False] * 100, 0.1), 6)
    0.0
    """
    ascent = np.asarray(ascent)
    if ascent.dtype != bool or ascent.size == 0:
        raise TypeError(f"ascent must be a non-empty array of booleans, got {ascent.dtype} of size {ascent.size}")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    return float(4 * (ascent.mean() - 0.5) / eps)


def network_loss(
    inputs: Tensor, targets: Tensor, sizes: Sequence[int], seed: int = 0
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the mean cross entropy of a tanh network as a function of one flat vector, and a start for it.

    ``inputs`` has shape ``(n, sizes[0])`` and gives the precision; the start is that of
    ``training.EnsembleMLP(sizes, [seed])``.
    """
    member = training.EnsembleMLP(sizes, [seed], activation="tanh").member(0)
    parameters = list(member.parameters())  # weight (out, in), bias (out,), ... in turn
    shapes = [tuple(parameter.shape) for parameter in parameters]
    start = torch.cat([parameter.detach().flatten() for parameter in parameters]).to(inputs)

    def loss_fn(theta: Tensor) -> Tensor:
        parts = theta.split([math.prod(shape) for shape in shapes])
        hidden = inputs
        for layer in range(0, len(parts), 2):
            hidden = torch.tanh(hidden) if layer else hidden
            hidden = hidden @ parts[layer].view(shapes[layer]).T + parts[layer + 1]
        return training.example_losses(hidden, targets).mean()

    return loss_fn, start


def _to_level(loss_fn: Callable[[Tensor], Tensor], theta: Tensor, level: float, rounds: int = 50) -> Tensor:
    """Move along the gradient, by Newton steps, to where the loss is ``level``."""
    close = 100 * torch.finfo(theta.dtype).eps * max(1.0, level)
    for _ in range(rounds):
        point = theta.detach().requires_grad_()
        loss = loss_fn(point)
        if abs(float(loss.detach()) - level) <= close:
            return point.detach()
        (g,) = torch.autograd.grad(loss, point)
        theta = theta - (loss.detach() - level) / (g @ g) * g
    raise ValueError(f"the level {level:g} was not reached from here, the loss is {float(loss.detach()):.3g}")


def _check_theta(theta: Tensor) -> Tensor:
    if not isinstance(theta, Tensor) or not theta.is_floating_point():
        raise TypeError(f"theta must be a floating tensor, got {getattr(theta, 'dtype', type(theta).__name__)}")
    if theta.dim() != 1:
        raise ValueError(f"theta must have shape (d,), got {tuple(theta.shape)}")
    return theta.detach()


def _check_run(level: float, size: float, name: str, steps: int) -> None:
    _check_level(level, torch.zeros(()))
    if not (size > 0 and math.isfinite(size)) or steps < 1:
        raise ValueError(f"{name} must be positive and finite and steps at least 1, got {size} and {steps}")


# ---------------------------------------------------------------- data


Sample = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def flip_labels(
    labels: NDArray[np.integer], noise_rate: float, rng: np.random.Generator, n_classes: int = 2
) -> NDArray[np.int64]:
    """Return a copy in which exactly ``int(n * noise_rate)`` labels are another class, each other class alike.

    >>> flip_labels(np.zeros(6, dtype=int), 0.5, np.random.default_rng(0)).sum()
    np.int64(3)
    """
    if not 0 <= noise_rate <= 1:
        raise ValueError(f"noise_rate must be in [0, 1], got {noise_rate}")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or (labels.size and not (labels.min() >= 0 and labels.max() < n_classes)):
        raise ValueError(f"labels must be integers in 0..{n_classes - 1}, got {labels.dtype} {np.unique(labels)[:5]}")
    flipped = labels.astype(np.int64)
    chosen = rng.permutation(len(flipped))[: int(len(flipped) * noise_rate)]
    flipped[chosen] = (flipped[chosen] + rng.integers(1, n_classes, len(chosen))) % n_classes
    return flipped


def two_gaussians(n: int, noise: float, rng: np.random.Generator, dim: int = 10, shift: float = 1.0) -> Sample:
    """Return points of two unit Gaussians, the second moved by ``shift`` in every coordinate; half of each.

    Like its companions it returns x ``(n, d)`` in float32, the labels with exactly ``int(n * noise)`` flips, and the
    clean labels.
    """
    clean = _balanced(n)
    x = rng.normal(size=(n, dim)) + shift * clean[:, None]
    return x.astype(np.float32), flip_labels(clean, noise, rng), clean


def sinusoid(n: int, noise: float, rng: np.random.Generator) -> Sample:
    """Return points of the disc of radius 2, on either side of a sine curve: is ``1.5 x1 + sin(1.5 x2)`` positive?"""
    radius, angle = 2 * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, size=n)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    clean = (1.5 * x[:, 0] + np.sin(1.5 * x[:, 1]) > 0).astype(np.int64)
    return x.astype(np.float32), flip_labels(clean, noise, rng), clean


def spiral(n: int, noise: float, rng: np.random.Generator, jitter: float = 1.0) -> Sample:
    """Return points of two spiral arms of two turns, one half a turn ahead, blurred by Gaussian ``jitter``."""
    clean = _balanced(n)
    angle = np.tile(np.linspace(0, 4 * np.pi, n // 2), 2)
    radius = angle + np.pi * clean
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + jitter * rng.normal(size=(n, 2))
    return x.astype(np.float32), flip_labels(clean, noise, rng), clean


def _balanced(n: int) -> NDArray[np.int64]:
    if n < 2 or n % 2:
        raise ValueError(f"n must be even and positive, half for each class, got {n}")
    return np.repeat([0, 1], n // 2)
