"""Finite Markov chains, exactly: kernels, stationary laws, mixing times. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

RULES = ("metropolis", "barker", "product")
BALANCES = ("uniform", "sqrt", "barker", "min")
ROUNDS = 100_000  # of an iteration that may not settle


# ---------------------------------------------------------------------- checks


def _array(values: Any) -> NDArray[Any]:
    """Return floats as float64, and whatever holds a Fraction as an object array of Fractions."""
    array = np.asarray(values)
    if array.dtype != object:
        return array.astype(np.float64)
    exact = np.empty(array.shape, dtype=object)
    exact.flat = [value if isinstance(value, Fraction) else Fraction(value) for value in array.flat]
    return exact


def _is_one(sums: NDArray[Any]) -> NDArray[np.bool_]:
    return sums == 1 if sums.dtype == object else np.abs(sums - 1) <= 1e-9


def _check_weights(weights: Any, name: str = "weights") -> NDArray[Any]:
    array = _array(weights)
    if array.dtype != object and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    if array.size == 0 or (array < 0).any() or not (array > 0).any():
        raise ValueError(f"{name} must not be negative and at least one must be positive")
    return array


def _check_kernel(kernel: Any, name: str) -> NDArray[Any]:
    matrix = _array(kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    if matrix.dtype != object and not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite")
    if (matrix < 0).any():
        raise ValueError(f"{name} has negative entries")
    wrong = np.flatnonzero(~_is_one(matrix.sum(1)))
    if len(wrong):
        raise ValueError(f"{name} must have rows that sum to 1, row {wrong[0]} sums to {matrix[wrong[0]].sum()}")
    return matrix


def _check_same(vector: NDArray[Any], matrix: NDArray[Any], name: str) -> None:
    if vector.shape != (len(matrix),):
        raise ValueError(f"{name} must have shape {(len(matrix),)} to go with the matrix, got {vector.shape}")


# ---------------------------------------------------------------------- kernels


def mh_kernel(weights: ArrayLike, proposal: ArrayLike, accept: str = "metropolis") -> NDArray[Any]:
    """Return the Metropolis-Hastings kernel, ``eq-sampling-mh`` (and ``eq-sampling-product``).

    Parameters
    ----------
    weights
        Unnormalised target, shape ``(n,)``; for ``"product"`` normalised by the caller. A state of weight zero is
        never entered, and left whenever the proposal says so.
    proposal
        Row-stochastic, shape ``(n, n)``. Object arrays of ``Fraction`` give exact results.
    accept
        ``"metropolis"``: min(1, r), ``"barker"``: r/(1+r), ``"product"``: Q(y,x) pi(y).

    Raises
    ------
    ValueError
        For an unknown rule, malformed weights or proposal, or a product above one.

    Examples
    --------
    >>> mh_kernel([1, 3], [[0.5, 0.5], [0.5, 0.5]])
    array([[0.5       , 0.5       ],
           [0.16666667, 0.83333333]])
    """
    if accept not in RULES:
        raise ValueError(f"accept must be one of {RULES}, got {accept!r}")
    q, w = _check_kernel(proposal, "proposal"), _check_weights(weights)
    _check_same(w, q, "weights")
    if w.dtype == object and q.dtype != object:
        w = w.astype(np.float64)
    rows, columns = np.nonzero(q)
    rows, columns = rows[rows != columns], columns[rows != columns]
    kernel = np.zeros_like(q) if q.dtype != object else np.full(q.shape, Fraction(0), dtype=object)
    kernel[rows, columns] = q[rows, columns] * _accept(w, q, rows, columns, accept)
    kernel[np.diag_indices(len(q))] = 1 - kernel.sum(1)
    return kernel if kernel.dtype == object else np.maximum(kernel, 0)  # the diagonal may round to -1e-17


def _accept(w: NDArray[Any], q: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], rule: str) -> NDArray[Any]:
    """Return the acceptance probability of each proposed pair of states."""
    back = w[columns] * q[columns, rows]
    if rule == "product":
        if (back > 1).any():
            raise ValueError("the product rule needs normalised weights: an acceptance exceeds 1")
        return back
    there = w[rows] * q[rows, columns]
    floor = np.minimum(there, back) if rule == "metropolis" else back
    total = there if rule == "metropolis" else there + back
    free = there == 0  # out of a state of weight zero every step is taken
    return np.where(free, 1, floor / np.where(free, 1, total))


def gibbs_kernel(weights: ArrayLike, scan: str | Sequence[int] = "random") -> NDArray[Any]:
    """Return the kernel that redraws one coordinate at a time, ``eq-sampling-gibbs``.

    Parameters
    ----------
    weights
        Unnormalised target, shape ``(V1, ..., Vd)``; states are numbered in C order.
    scan
        ``"random"``: one coordinate, uniformly chosen. A tuple of axes: all of them in this order, which may repeat.

    Raises
    ------
    ValueError
        For malformed weights or an axis that does not exist.
    """
    w = _check_weights(weights)
    axes = range(w.ndim) if scan == "random" else [int(axis) for axis in _check_scan(scan, w.ndim)]
    single = [_one_axis(w, axis) for axis in axes]
    if scan == "random":
        return sum(single[1:], single[0]) / (Fraction(w.ndim) if w.dtype == object else w.ndim)
    kernel = single[0]
    for step in single[1:]:
        kernel = kernel @ step
    return kernel


def _check_scan(scan: str | Sequence[int], ndim: int) -> Sequence[int]:
    if isinstance(scan, str) or not len(scan) or not all(0 <= axis < ndim for axis in scan):
        raise ValueError(f"scan must be 'random' or axes in 0..{ndim - 1}, got {scan!r}")
    return scan


def _one_axis(w: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the kernel that redraws coordinate ``axis`` given the others; where all is zero it stays."""
    n, size = w.size, w.shape[axis]
    lines = np.moveaxis(np.arange(n).reshape(w.shape), axis, -1).reshape(-1, size)
    values = w.reshape(-1)[lines]
    totals = values.sum(1, keepdims=True)
    kernel = np.full((n, n), Fraction(0), dtype=object) if w.dtype == object else np.zeros((n, n))
    alive = (totals > 0)[:, 0]
    kernel[lines[alive][:, :, None], lines[alive][:, None, :]] = (values[alive] / totals[alive])[:, None, :]
    dead = lines[~alive].ravel()
    kernel[dead, dead] = 1
    return kernel


def locally_balanced_proposal(weights: ArrayLike, neighbours: ArrayLike, g: str = "sqrt") -> NDArray[np.float64]:
    """Return the proposal Q(x,y) proportional to g(w_y / w_x) over the neighbours of x (Zanella 2020).

    Parameters
    ----------
    weights
        Shape ``(n,)``, unnormalised.
    neighbours
        Symmetric booleans with a false diagonal, shape ``(n, n)``.
    g
        ``"uniform"``: 1, ``"sqrt"``, ``"barker"``: t/(1+t), ``"min"``: min(1, t); all but the first are balanced,
        g(t) = t g(1/t). A state without neighbours of positive weight proposes uniformly, one without any stays.

    Raises
    ------
    ValueError
        For an unknown g, or neighbours that are not symmetric or hold the state itself.
    """
    if g not in BALANCES:
        raise ValueError(f"g must be one of {BALANCES}, got {g!r}")
    near = _check_neighbours(neighbours)
    w = _check_weights(weights).astype(np.float64)
    _check_same(w, near, "weights")
    here, there = np.broadcast_arrays(w[:, None], w[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = {
            "uniform": lambda: np.ones_like(here),
            "sqrt": lambda: np.sqrt(there),  # the factor 1/sqrt(w_x) cancels in the row
            "barker": lambda: np.nan_to_num(there / (here + there)),
            "min": lambda: np.where(there >= here, np.sign(there), there / here),
        }[g]()
    q = np.where(near, strength, 0.0)
    q = np.where(q.sum(1, keepdims=True) > 0, q, near)
    q[np.diag_indices(len(q))] += q.sum(1) == 0
    return q / q.sum(1, keepdims=True)


def _check_neighbours(neighbours: ArrayLike) -> NDArray[np.bool_]:
    near = np.asarray(neighbours)
    if near.ndim != 2 or near.shape[0] != near.shape[1]:
        raise ValueError(f"neighbours must be a square matrix, got shape {near.shape}")
    if near.dtype != bool:
        raise ValueError(f"neighbours must be booleans, got {near.dtype}")
    if near.diagonal().any():
        raise ValueError("no state is its own neighbour: the diagonal must be false")
    if (near != near.T).any():
        raise ValueError("neighbours must be symmetric")
    return near


# ---------------------------------------------------------------------- laws


def stationary(P: ArrayLike) -> NDArray[Any]:
    """Return the stationary law (``eq-sampling-detailed-balance``); exact for Fractions (Grassmann, Taksar and Heyman).

    Raises
    ------
    ValueError
        Unless there is exactly one closed class; transient states get 0.

    Examples
    --------
    >>> stationary([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    array([0.33333333, 0.66666667, 0.        ])
    """
    kernel = _check_kernel(P, "P")
    inside = _closed_class(kernel)
    law = np.full(len(kernel), Fraction(0), dtype=object) if kernel.dtype == object else np.zeros(len(kernel))
    law[inside] = _eliminate(kernel[np.ix_(inside, inside)].copy())
    return law


def _closed_class(kernel: NDArray[Any]) -> NDArray[np.intp]:
    rows, columns = np.nonzero(kernel)
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=kernel.shape)
    count, label = connected_components(graph, directed=True, connection="strong")
    leaves = np.unique(label[rows][label[rows] != label[columns]])
    closed = np.setdiff1d(np.arange(count), leaves)
    if len(closed) != 1:
        raise ValueError(f"{len(closed)} closed classes: the stationary law is not unique")
    return np.flatnonzero(label == closed[0])


def _eliminate(a: NDArray[Any]) -> NDArray[Any]:
    """Remove the states one by one from the last; no subtraction, hence no cancellation."""
    n = len(a)
    for k in range(n - 1, 0, -1):
        a[:k, k] = a[:k, k] / a[k, :k].sum()
        into, out = np.flatnonzero(a[:k, k]), np.flatnonzero(a[k, :k])
        a[np.ix_(into, out)] += a[into, k][:, None] * a[k, out][None, :]
    law = [Fraction(1) if a.dtype == object else 1.0]
    for k in range(1, n):
        law.append((np.array(law, dtype=a.dtype) * a[:k, k]).sum())
    weights = np.array(law, dtype=a.dtype)
    return weights / weights.sum()


def detailed_balance_gap(P: ArrayLike, pi: ArrayLike) -> Any:
    """Return the largest ``|pi_i P_ij - pi_j P_ji|``, zero exactly if ``eq-sampling-detailed-balance`` holds."""
    kernel, law = _check_kernel(P, "P"), _array(pi)
    _check_same(law, kernel, "pi")
    rows, columns = np.nonzero(kernel)
    return np.abs(law[rows] * kernel[rows, columns] - law[columns] * kernel[columns, rows]).max()


def tv_distance(p: ArrayLike, q: ArrayLike) -> Any:
    """Return the total-variation distance of two laws, half the sum of absolute differences.

    >>> tv_distance([0.5, 0.5], [0.75, 0.25])
    0.25
    """
    a, b = _array(p), _array(q)
    if a.shape != b.shape:
        raise ValueError(f"the laws must have one shape, got {a.shape} and {b.shape}")
    distance = np.abs(a - b).sum() / 2
    return distance if isinstance(distance, Fraction) else float(distance)


def spectral_gap(P: ArrayLike, absolute: bool = True) -> float:
    """Return one minus the second largest eigenvalue (in absolute value, unless ``absolute=False``).

    Raises
    ------
    ValueError
        If the chain is not reversible, or has several closed classes.
    """
    kernel, law = _reversible(P)
    root = np.sqrt(law)
    values = np.linalg.eigvalsh(kernel * root[:, None] / root[None, :])  # ascending, the last is 1
    if len(values) == 1:
        return 1.0
    return float(1 - (max(values[-2], -values[0]) if absolute else values[-2]))


def _reversible(P: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return kernel and law of a reversible chain on its closed class."""
    kernel = _check_kernel(P, "P").astype(np.float64)
    law = stationary(kernel)
    kernel, law = kernel[np.ix_(law > 0, law > 0)], law[law > 0]
    gap = detailed_balance_gap(kernel, law)
    if gap > 1e-9 * (law[:, None] * kernel).max():
        raise ValueError(f"the chain is not reversible: detailed balance is off by {gap:.3g}")
    return kernel, law


def mixing_time(P: ArrayLike, eps: float = 0.25) -> int:
    """Return the least t for which every start is within total variation ``eps`` of the stationary law.

    Raises
    ------
    ValueError
        If it never is: a periodic chain, or several closed classes; or if eps is not in (0, 1).
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps must be in (0, 1), got {eps}")
    kernel = _check_kernel(P, "P").astype(np.float64)
    law = stationary(kernel)
    if (period := _period(kernel[np.ix_(law > 0, law > 0)])) > 1:
        raise ValueError(f"the chain never mixes: its period is {period}")
    worst = lambda power: 0.5 * np.abs(power - law).sum(1).max()  # noqa: E731
    if worst(np.eye(len(law))) <= eps:
        return 0
    powers = [kernel]
    while worst(powers[-1]) > eps:
        if len(powers) > 60:
            raise ValueError("the chain does not mix within 2^60 steps")
        square = powers[-1] @ powers[-1]
        powers.append(square / square.sum(1, keepdims=True))
    if len(powers) == 1:
        return 1
    at, t = powers[-2], 2 ** (len(powers) - 2)
    for j in range(len(powers) - 3, -1, -1):  # the largest t that is still too early, bit by bit
        if worst(later := at @ powers[j]) > eps:
            at, t = later, t + 2**j
    return t + 1


def _period(kernel: NDArray[np.float64]) -> int:
    rows, columns = np.nonzero(kernel)
    order, parent = breadth_first_order(csr_array(kernel > 0), 0)
    depth = np.zeros(len(kernel), dtype=np.int64)
    for state in order[1:]:
        depth[state] = depth[parent[state]] + 1
    return gcd(*(depth[rows] + 1 - depth[columns]).tolist())


def asymptotic_variance(P: ArrayLike, f: ArrayLike) -> float:
    """Return the limit of n Var(mean of f along n steps), ``eq-sampling-asymptotic-variance``.

    Parameters
    ----------
    P
        Kernel with one closed class, shape ``(n, n)``; it need not be reversible.
    f
        Values of the function, shape ``(n,)``.
    """
    kernel = _check_kernel(P, "P").astype(np.float64)
    law, values = stationary(kernel), np.asarray(f, dtype=np.float64)
    _check_same(values, kernel, "f")
    centred = values - law @ values
    eye = np.eye(len(law))
    solved = np.linalg.solve(eye - kernel + law[None, :], centred)
    return float(law @ (centred * (2 * solved - centred)))


def critical_depth(f: ArrayLike, neighbours: ArrayLike) -> float:
    """Return Hajek's d*, the depth of the deepest local maximum that is not global, ``eq-sampling-hajek``.

    The depth of a maximum is how far one must descend from it on the way to anything higher.

    Parameters
    ----------
    f
        The function to be maximised, shape ``(n,)``.
    neighbours
        Symmetric booleans, shape ``(n, n)``, of a connected graph.

    Raises
    ------
    ValueError
        If the graph is not connected, or not symmetric.

    Examples
    --------
    >>> path = np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    >>> critical_depth([2.0, 0.5, 1.0, 3.0], path)
    1.5
    """
    near, values = _check_neighbours(neighbours), np.asarray(f, dtype=np.float64)
    _check_same(values, near, "f")
    if connected_components(csr_array(near), directed=False)[0] > 1:
        raise ValueError("the neighbourhood graph is not connected: some maxima cannot be left at all")
    parent, deepest = np.arange(len(values)), 0.0
    done = np.zeros(len(values), dtype=bool)

    def root(state: int) -> int:
        while parent[state] != state:
            parent[state] = parent[parent[state]]
            state = parent[state]
        return state

    for state in np.argsort(-values, kind="stable"):  # the water level falls; islands merge
        done[state] = True
        for other in np.flatnonzero(near[state] & done):
            low, high = sorted((root(state), root(other)), key=lambda r: values[r])
            if low != high:
                if values[low] < values[high]:  # a root is the peak of its island
                    deepest = max(deepest, values[low] - values[state])
                parent[low] = high
    return float(deepest)


def pseudo_gibbs_law(
    conditionals: Sequence[ArrayLike], scan: str | Sequence[int] = "random", tol: float = 1e-12
) -> NDArray[np.float64]:
    """Return the law to which redrawing with arbitrary conditionals converges, compatible or not.

    Parameters
    ----------
    conditionals
        For each axis an array of the joint shape, normalised along its own axis.
    scan
        ``"random"``, or a tuple of axes: the law after a full scan in this order, which depends on the order
        unless the conditionals belong to one joint law.
    tol
        The iteration ends when the law changes by less in total variation.

    Raises
    ------
    ValueError
        If a conditional is not normalised along its own axis, or the iteration does not settle.
    """
    tables = [_check_weights(table, f"conditional {axis}") for axis, table in enumerate(conditionals)]
    if not tables or any(t.shape != tables[0].shape for t in tables) or tables[0].ndim != len(tables):
        raise ValueError(f"need one conditional per axis, all of the joint shape, got {[t.shape for t in tables]}")
    for axis, table in enumerate(tables):
        if not _is_one(table.sum(axis, keepdims=True)).all():
            raise ValueError(f"conditional {axis} is not normalised along its own axis")
    order = range(len(tables)) if scan == "random" else _check_scan(scan, len(tables))
    law = np.full(tables[0].shape, 1 / tables[0].size)
    for _ in range(ROUNDS):
        new = law
        if scan == "random":
            new = sum(law.sum(axis, keepdims=True) * tables[axis] for axis in order) / len(tables)
        else:
            for axis in order:
                new = new.sum(axis, keepdims=True) * tables[axis]
        moved, law = np.abs(new - law).sum() / 2, new
        if moved < tol:
            return law
    raise ValueError("the iteration does not settle: the chain is periodic, or mixes too slowly")


def importance_ess(log_weights: ArrayLike) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2 of importance weights, ``eq-sampling-ess``.

    >>> importance_ess([1000.0, 1000.0, -np.inf])
    2.0
    """
    lw = np.asarray(log_weights, dtype=np.float64)
    if lw.size == 0 or np.isnan(lw).any() or lw.max() in (inf, -inf):
        raise ValueError("log_weights need at least one finite entry, and no nan or inf")
    w = np.exp(lw - lw.max())
    return float(w.sum() ** 2 / (w**2).sum())
