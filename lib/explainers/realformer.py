"""A residual on the attention scores, and the instruments that show what a residual does in a deep stack.

Chapter realformer derives everything below; each docstring names the equation it implements. The model is
:mod:`explainers.transformer`, the loop :func:`explainers.training.fit`. Every mask is boolean, True where attention is
allowed.

References
----------
He, Ravula, Kanagal, Ainslie, "RealFormer: Transformer Likes Residual Attention", 2021, arXiv:2012.11747.
Su Jianlin, "RealFormer: moving the residual onto the attention matrix" (in Chinese), 2020,
https://kexue.fm/archives/8027.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from explainers import training
from explainers.transformer import TokenTransformer, Transformer, causal_mask

__all__ = [
    "Probe",
    "accumulate",
    "amplification",
    "attend",
    "divergence",
    "entropy",
    "expected_entropy",
    "identity_share",
    "paired",
    "probe",
    "random_branches",
    "swapped",
]


# --- Accumulated scores ---------------------------------------------------------------------------------------


def accumulate(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the accumulated scores of every layer (eq-realformer-residual).

    Parameters
    ----------
    queries : Tensor, shape (n, ..., T, d)
        Of layers 1 to n.
    keys : Tensor, shape (n, ..., S, d)

    Returns
    -------
    Tensor, shape (n, ..., T, S)
        ``A_1, ..., A_n``, each the sum of ``Q_m K_m^T / sqrt(d)`` up to its layer.

    Raises
    ------
    ValueError
        If layers, batch or head size differ.

    Examples
    --------
    >>> accumulate(torch.ones(3, 2, 4), torch.ones(3, 2, 4))[:, 0, 0]
    tensor([2., 4., 6.])
    """
    _check_stacks(queries, keys)
    return (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).cumsum(0)


def attend(queries: Tensor, keys: Tensor, value: Tensor, *, mean: bool = False, mask: Tensor | None = None) -> Tensor:
    """Return layer n's attention output by fused calls on concatenated features (eq-realformer-concat).

    The accumulated scores are one product of all queries side by side with all keys side by side, so that no T x S
    matrix is ever stored. The queries come in blocks of rows, which do not know of each other: what is held beside the
    result is one copy of keys and values, n d numbers per key, and one block.

    Parameters
    ----------
    queries : Tensor, shape (n, ..., T, d)
    keys : Tensor, shape (n, ..., S, d)
    value : Tensor, shape (..., S, dv)
        Of layer n.
    mean : bool
        Divide the sum by n.
    mask : BoolTensor that broadcasts to (..., T, S), optional

    Returns
    -------
    Tensor, shape (..., T, dv)

    Raises
    ------
    ValueError
        If layers, batch or head size differ.
    """
    _check_stacks(queries, keys)
    if value.shape[:-1] != keys.shape[1:-1]:
        raise ValueError(f"value must have shape {(*keys.shape[1:-1], 'dv')}, got {tuple(value.shape)}")
    n, d, size = len(queries), queries.shape[-1], value.shape[-1]
    # Zeros make all widths equal: PyTorch's kernel that stores no scores wants it, and would give way to one that does.
    width, scale = max(n * d, size), 1 / (d**0.5 * (n if mean else 1))
    k, v = _widen(_side_by_side(keys), width), _widen(value, width)
    blocks = queries.split(ROWS, dim=-2)
    mask = mask if mask is None else torch.atleast_2d(mask)
    masks = itertools.repeat(mask) if mask is None or mask.shape[-2] == 1 else mask.split(ROWS, dim=-2)
    outputs = []
    for block, seen in zip(blocks, masks):
        q = _widen(_side_by_side(block), width)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
        outputs.append(found[..., :size].clone())  # a slice would keep the whole width alive
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-2)


ROWS = 128  # queries in one call of `attend`


def _side_by_side(stack: Tensor) -> Tensor:
    """Return (n, ..., T, d) as (..., T, n d); a view where the memory lies that way."""
    return stack.movedim(0, -2).flatten(-2)


def _widen(x: Tensor, width: int) -> Tensor:
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def _check_stacks(queries: Tensor, keys: Tensor) -> None:
    same = queries.ndim == keys.ndim >= 3
    if not same or queries.shape[:-2] != keys.shape[:-2] or queries.shape[-1] != keys.shape[-1]:
        raise ValueError(
            "queries (n, ..., T, d) and keys (n, ..., S, d) must agree in layers, batch and head size, "
            f"got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )


# --- Entropy and divergence -----------------------------------------------------------------------------------


def entropy(attention: Tensor, visible: Tensor | None = None) -> Tensor:
    """Return the entropy of each row, as a share of the largest that its visible keys allow.

    Parameters
    ----------
    attention : Tensor, shape (..., S)
        Rows sum to 1.
    visible : BoolTensor that broadcasts to ``attention``, optional
        All keys by default.

    Returns
    -------
    Tensor, shape (...)
        Between 0 and 1; NaN where fewer than two keys are visible.

    Examples
    --------
    >>> entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    if visible is None:
        visible = torch.ones_like(attention, dtype=torch.bool)
    keys = visible.expand(attention.shape).sum(-1)
    share = torch.special.entr(attention).sum(-1) / keys.to(attention.dtype).clamp(min=2).log()
    return share.masked_fill(keys < 2, torch.nan)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of rows (..., S) in bits, between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    if p.shape != q.shape:
        raise ValueError(f"divergence: shapes differ, {tuple(p.shape)} and {tuple(q.shape)}")
    p, q = p.double(), q.double()  # a difference of nearly equal entropies
    entropies = [torch.special.entr(row).sum(-1) for row in ((p + q) / 2, p, q)]
    return ((entropies[0] - (entropies[1] + entropies[2]) / 2) / math.log(2)).clamp(0, 1)


# --- Closed forms ---------------------------------------------------------------------------------------------


def identity_share(sublayers: ArrayLike, variance: float = 1.0, norm: str = "post") -> NDArray[np.float64]:
    """Return the cosine of x_l with x_0 for uncorrelated branches (eq-realformer-postnorm, eq-realformer-prenorm).

    Parameters
    ----------
    sublayers : array_like of numbers, 0 or more
        Attention and feed-forward count separately.
    variance : float
        Of a branch whose input has variance 1.
    norm : {"post", "pre"}

    Raises
    ------
    ValueError
        If a number is negative or the norm unknown.

    Examples
    --------
    >>> identity_share([0, 2, 24]).round(5).tolist(), identity_share(24, norm="pre").round(5).tolist()
    ([1.0, 0.5, 0.00024], 0.2)
    """
    count = np.asarray(sublayers, dtype=np.float64)
    if (count < 0).any() or variance < 0:
        raise ValueError(f"sublayers and variance must not be negative, got {sublayers} and {variance}")
    if norm == "post":
        return (1 + variance) ** (-count / 2)
    if norm == "pre":
        return 1 / np.sqrt(1 + count * variance)
    raise ValueError(f"norm must be 'post' or 'pre', got {norm!r}")


def expected_entropy(keys: ArrayLike, layer: ArrayLike, std: float, kind: str | None = "sum") -> NDArray[np.float64]:
    """Return the expected entropy in nats of attention with random scores (eq-realformer-entropy).

    Parameters
    ----------
    keys, layer : array_like
        Visible keys, and the number of the layer, from 1.
    std : float
        Of one layer's scores.
    kind : {None, "sum", "mean"}
        Which scores: one layer's, their sum, or the mean.

    Raises
    ------
    ValueError
        If the kind is unknown, or a layer below 1.
    """
    variance = {None: lambda n: 0 * n + 1, "sum": lambda n: n, "mean": lambda n: 1 / n}
    if kind not in variance:
        raise ValueError(f"kind must be None, 'sum' or 'mean', got {kind!r}")
    n = np.asarray(layer, dtype=np.float64)
    if (n < 1).any():
        raise ValueError(f"layer counts from 1, got {layer}")
    return np.log(np.asarray(keys, dtype=np.float64)) - std**2 * variance[kind](n) / 2


def random_branches(
    sublayers: int, variance: float = 1.0, norm: str = "post", *, width: int = 512, rows: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Run a stack of random linear branches forward and backward: the model behind the closed forms.

    Parameters
    ----------
    sublayers, variance, norm
        As in :func:`identity_share`.
    width, rows, seed
        Size of a state, number of states, and what draws weights, inputs and the gradient at the top.

    Returns
    -------
    states, gradients : Tensors of float64, shape (sublayers + 1, rows, width)
        ``x_l`` and ``dL/dx_l`` for l = 0 to the top.
    """
    if norm not in ("post", "pre"):
        raise ValueError(f"norm must be 'post' or 'pre', got {norm!r}")
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    x = F.layer_norm(normal(rows, width), (width,)).requires_grad_()
    states = [x]
    for _ in range(sublayers):
        weight = normal(width, width) * (variance / width) ** 0.5
        x = F.layer_norm(x + x @ weight, (width,)) if norm == "post" else x + F.layer_norm(x, (width,)) @ weight
        states.append(x)
    gradients = torch.autograd.grad(x, states, grad_outputs=normal(rows, width))
    return torch.stack(states).detach(), torch.stack(gradients)


# --- Instruments ----------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """One forward and backward pass, layer by layer; NumPy arrays over N layers.

    Attributes
    ----------
    loss
        Mean cross entropy, nats.
    rms, identity, similarity, gradient, gradient_identity
        Of the N + 1 hidden states (the last one before a final norm): root mean square; mean cosine with ``x_0``;
        squared norm of the mean token over the mean squared norm; norm of dL/dx; its mean cosine with dL/dx_N.
    query_key, value, feedforward
        Norm of the gradient of these weights in each layer.
    entropy
        Mean normalised entropy of the attention in each layer.
    divergence
        Mean Jensen-Shannon divergence, bits, of each layer from the one below (N - 1), rows with two visible keys.
    """

    loss: float
    rms: NDArray[np.float64]
    identity: NDArray[np.float64]
    similarity: NDArray[np.float64]
    gradient: NDArray[np.float64]
    gradient_identity: NDArray[np.float64]
    query_key: NDArray[np.float64]
    value: NDArray[np.float64]
    feedforward: NDArray[np.float64]
    entropy: NDArray[np.float64]
    divergence: NDArray[np.float64]


def probe(model: TokenTransformer, tokens: Tensor, targets: Tensor, *, mask: Tensor | None = None) -> Probe:
    """Measure one pass in eval mode; weights, gradients and mode are left as they were.

    Parameters
    ----------
    model : TokenTransformer
    tokens, targets : integers, shape (B, T)
        Targets of -100 are ignored.
    mask : BoolTensor that broadcasts to (B, H, T, T), optional
    """
    mode = model.training
    model.eval()
    try:
        trace, hidden = _trace(model, tokens, mask)
        loss = F.cross_entropy(model.logits(trace.hidden[-1]).transpose(1, 2), targets)
        width, layers = model.stack.options.width, model.stack.layers
        weights = [w for layer in layers for w in (layer.qkv.weight, layer.up.weight, layer.down.weight)]
        found = torch.autograd.grad(loss, [*hidden, *weights])
    finally:
        model.train(mode)
    gradients, (qkv, up, down) = found[: len(hidden)], (found[len(hidden) + i :: 3] for i in range(3))
    with torch.no_grad():
        patterns = _patterns(trace.attention, mask)
        tokenwise = lambda tensors, other: _array(F.cosine_similarity(t, other, dim=-1).mean() for t in tensors)  # noqa: E731
        return Probe(
            float(loss.detach()),
            _array(x.square().mean().sqrt() for x in hidden),
            tokenwise(hidden, hidden[0]),
            _array(x.mean((0, 1)).square().sum() / x.square().sum(-1).mean() for x in hidden),
            _array(g.norm() for g in gradients),
            tokenwise(gradients, gradients[-1]),
            _array(g[: 2 * width].norm() for g in qkv),
            _array(g[2 * width :].norm() for g in qkv),
            _array(torch.hypot(a.norm(), b.norm()) for a, b in zip(up, down)),
            *patterns,
        )


def _trace(model: TokenTransformer, tokens: Tensor, mask: Tensor | None) -> tuple[Any, list[Tensor]]:
    """Return the trace and the hidden states, the last of them as it was before a final norm."""
    last: list[Tensor] = []
    final = model.stack.final_norm
    if final is None:
        trace = model.trace(tokens, mask=mask)
        return trace, trace.hidden
    hook = final.register_forward_pre_hook(lambda module, arguments: last.append(arguments[0]))
    try:
        trace = model.trace(tokens, mask=mask)
    finally:
        hook.remove()
    return trace, [*trace.hidden[:-1], last[0]]


def _patterns(attention: list[Tensor], mask: Tensor | None) -> tuple[NDArray, NDArray]:
    shares = [entropy(p, mask) for p in attention]
    rows = ~shares[0].isnan()
    neighbours = [divergence(a, b)[rows].mean() for a, b in itertools.pairwise(attention)]
    return _array(share.nanmean() for share in shares), _array(neighbours)


def _array(values: Any) -> NDArray[np.float64]:
    return np.array([float(value) for value in values])


@torch.no_grad()
def amplification(
    model: Transformer, x: Tensor, *, mask: Tensor | None = None, epsilon: float = 1e-3, seed: int = 0
) -> float:
    """Return how much the output moves when every matrix moves a little.

    Parameters
    ----------
    model : Transformer
        Left as it was, bit for bit.
    x : Tensor, shape (B, T, D)
    mask : BoolTensor, optional
    epsilon : float
        Each matrix is moved by Gaussian noise of this times its root mean square.
    seed : int
        Of the noise.

    Returns
    -------
    float
        Mean squared change of the output over its mean square, over ``epsilon`` squared.

    Raises
    ------
    ValueError
        If ``epsilon`` is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    draw, mode, matrices = torch.Generator().manual_seed(seed), model.training, []
    model.eval()
    try:
        before = model(x, mask=mask)
        for matrix in (p for p in model.parameters() if p.ndim == 2):
            matrices.append((matrix, matrix.clone()))
            noise = torch.randn(matrix.shape, generator=draw, dtype=matrix.dtype)
            matrix.add_(noise * matrix.square().mean().sqrt(), alpha=epsilon)
        after = model(x, mask=mask)
    finally:
        for matrix, old in matrices:
            matrix.copy_(old)
        model.train(mode)
    return float((after - before).square().mean() / before.square().mean()) / epsilon**2


# --- The study: characters of docstrings ----------------------------------------------------------------------

SYMBOLS = "\n" + "".join(map(chr, range(32, 127)))  # anything else becomes one more symbol
VARIANTS: dict[str, dict[str, Any]] = {
    "post": {"norm": "post"},
    "pre": {"norm": "pre"},
    "sum": {"norm": "post", "residual_attention": "sum"},
    "mean": {"norm": "post", "residual_attention": "mean"},
    "deep": {"norm": "deep"},
}
SIZE = {"layers": 12, "width": 32, "heads": 4}
WINDOW = 32


def encode(text: str) -> Tensor:
    """Return the symbols of a text as integers 0 to 96.

    >>> encode("a\\nbé").tolist()
    [66, 0, 67, 96]
    """
    table = np.full(128, len(SYMBOLS), dtype=np.uint8)
    table[[ord(symbol) for symbol in SYMBOLS]] = range(len(SYMBOLS))
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return torch.from_numpy(np.where(codes < 128, table[np.minimum(codes, 127)], np.uint8(len(SYMBOLS))))


def halves(symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first nine tenths, to train on, and the last tenth."""
    at = len(symbols) * 9 // 10
    return symbols[:at], symbols[at:]


def build(variant: str, seed: int, gain: float = 0.5, *, heat: float = 1.0, **size: int) -> TokenTransformer:
    """Return an untrained model of a variant (post, pre, sum, mean, deep); equal seeds give equal weights.

    ``heat`` multiplies the scores of every layer at the start, by way of the query and key weights.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if not heat > 0:
        raise ValueError(f"heat must be positive, got {heat}")
    generator = torch.Generator().manual_seed(seed)
    options = SIZE | size | VARIANTS[variant]
    model = TokenTransformer(len(SYMBOLS) + 1, gain=gain, generator=generator, **options)
    with torch.no_grad():
        for layer in model.stack.layers:
            layer.qkv.weight[: 2 * model.stack.options.width] *= heat**0.5
    return model


def swapped(model: TokenTransformer) -> TokenTransformer:
    """Return a copy in which each pair of neighbouring layers, 1 and 2, 3 and 4, ..., has changed places."""
    copied = copy.deepcopy(model)
    copied.stack.layers = nn.ModuleList(layer for pair in _pairs(copied) for layer in reversed(pair))
    return copied


def paired(model: TokenTransformer) -> TokenTransformer:
    """Return a copy of half the depth: neighbouring layers read the same input, and what they change adds up.

    In post-norm each pair is followed by one more plain norm, because layers there expect a state of size 1.
    """
    copied = copy.deepcopy(model)
    copied.stack.layers = nn.ModuleList(
        _SideBySide(*pair, norm=model.stack.options.norm != "pre") for pair in _pairs(copied)
    )
    return copied


def _pairs(model: TokenTransformer) -> list[tuple[nn.Module, ...]]:
    options = model.stack.options
    if options.layers % 2 or options.residual_attention == "mean":
        kind = options.residual_attention or "none"
        raise ValueError(f"need an even number of layers, and no mean of scores; got {options.layers}, {kind}")
    layers = iter(model.stack.layers)
    return list(zip(layers, layers))


class _SideBySide(nn.Module):
    def __init__(self, *layers: nn.Module, norm: bool):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x: Tensor, before: Tensor | None, run: Any) -> tuple[Tensor, None, None]:
        if run.explicit:
            raise ValueError("layers side by side hand on no scores, and have no trace")
        x = x + sum(layer(x, before, run)[0] - x for layer in self.layers)
        return (F.layer_norm(x, x.shape[-1:]) if self.norm else x), None, None


def windows(symbols: Tensor, batch: int = 16, size: int = WINDOW) -> Callable[[torch.Generator], Iterator[Tensor]]:
    """Return what ``training.fit`` calls batches: random stretches of the text, shape (batch, size + 1)."""

    def batches(generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            starts = torch.randint(len(symbols) - size, (batch,), generator=generator)
            yield symbols[starts[:, None] + torch.arange(size + 1)].long()

    return batches


def next_symbol_loss(model: TokenTransformer, batch: Tensor) -> Tensor:
    """Return the mean cross entropy, in nats, of each symbol of (B, T + 1) given those before it."""
    tokens, targets = batch[:, :-1], batch[:, 1:]
    hidden = model(tokens, mask=causal_mask(tokens.shape[1]).to(tokens.device))
    return F.cross_entropy(model.logits(hidden).transpose(1, 2), targets)


def validation(symbols: Tensor, batches: int = 8) -> list[Tensor]:
    """Return the fixed held-out batches of 64 windows."""
    draw = windows(symbols, batch=64)(torch.Generator().manual_seed(12345))
    return [next(draw) for _ in range(batches)]


def train(
    variant: str, seed: int, symbols: Tensor, *, steps: int = 150, lr: float = 3e-3, warmup: int = 0, gain: float = 0.5,
    heat: float = 1.0,
) -> tuple[nn.Module, training.History]:  # fmt: skip
    """Train one variant on the characters and return it with its history; the last evaluation is held-out loss."""
    known, held_out = halves(symbols)
    model = build(variant, seed, gain, heat=heat)
    evaluate = training.mean_loss(next_symbol_loss, validation(held_out))
    history = training.fit(
        model, next_symbol_loss, windows(known), steps=steps, lr=lr, warmup=warmup, evaluate=evaluate, seed=seed
    )
    return model, history


def draw_wiring(ax: Any, kind: str) -> None:
    """Draw two attention sub-layers: ``"post-norm"``, ``"pre-norm"``, ``"deep norm"`` or ``"RealFormer"``."""
    from explainers import plots

    ink, red = plots.INK, plots.COLORS["red"]
    order = ("norm", "attention", "+") if kind == "pre-norm" else ("attention", "+", "norm")
    colors = {"norm": plots.COLORS["orange"], "attention": plots.COLORS["blue"], "+": ink}
    edge = -0.6  # the upper edge of what was drawn last: the line goes from box to box, not through their words
    for low in (0.0, 4.2):
        skip_to = low + order.index("+") + 0.6
        ax.plot([0, -1.2, -1.2, -0.22], [low - 0.1, low - 0.1, skip_to, skip_to], color=ink, lw=1.2)
        if kind == "deep norm":
            ax.text(-1.35, low + 0.75, "× α", color=ink, fontsize=9, ha="right", va="center")
        for place, name in enumerate(order):
            at = low + place + 0.6
            box = {"boxstyle": "round,pad=0.35", "fc": "none", "ec": colors[name], "lw": 1.5}
            ax.text(0, at, name, ha="center", va="center", color=colors[name], fontsize=9, bbox=box)
            ax.plot([0, 0], [edge, at - 0.32], color=ink, lw=1.2)
            edge = at + 0.32
    ax.annotate("", (0, 8.2), (0, edge - 0.1), arrowprops={"arrowstyle": "->", "color": ink, "lw": 1.2})
    if kind == "RealFormer":
        bend = {"arrowstyle": "->", "color": red, "lw": 2, "connectionstyle": "arc3,rad=0.45"}
        ax.annotate("", (0.85, 4.8), (0.85, 0.6), arrowprops=bend)
        ax.text(1.9, 2.7, "raw scores", color=red, rotation=90, va="center", ha="left", fontsize=9)
    ax.set(xlim=(-2.2, 2.6), ylim=(-0.8, 8.4), title=kind)
    ax.axis("off")


def draw_heads(axes: Any, patterns: dict[str, list[Tensor]], *, rows_each: int = 2) -> None:
    """Draw one head's attention (T, T) in every layer, ``rows_each`` rows of axes for each name."""
    import matplotlib as mpl

    from explainers import plots

    shades = mpl.colormaps[plots.SEQUENTIAL].with_extremes(bad=(0, 0, 0, 0))
    for at, (name, layers) in enumerate(patterns.items()):
        for n, (ax, pattern) in enumerate(zip(axes[rows_each * at : rows_each * (at + 1)].flat, layers), start=1):
            hidden = np.triu(np.ones(pattern.shape, dtype=bool), 1)
            # the square root lets weights of a few hundredths be seen
            image = np.ma.masked_array(pattern.sqrt().numpy(), hidden)
            ax.imshow(image, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=(), yticks=())
            ax.set_title(f"{name}, {n}" if n == 1 else str(n), fontsize=9)
            for spine in ax.spines.values():
                spine.set_visible(False)
