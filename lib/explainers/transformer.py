"""One small Transformer whose switches are the subjects of three chapters.

Where the norm stands (post, pre, deep), whether attention scores are handed on from layer to layer, whether the norms
obey a condition, whether positions are rotations: each switch is one equation, named in the docstring that implements
it and checked on the page ``transformer``. There is no cross-attention (a prefix mask replaces the encoder-decoder), no
learned position and no pretrained weight.

Shapes: ``B`` batch, ``T`` new positions, ``S`` visible positions (those in the cache, then the new ones), ``D`` width,
``H`` heads, ``d = D / H`` head size, ``C`` condition size, ``N`` layers. **Every mask is boolean, True where attention
is allowed**, as in ``F.scaled_dot_product_attention`` and unlike ``nn.MultiheadAttention``.

References
----------
Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762 (the layer). Xiong et al., 2020, arXiv:2002.04745
(post and pre). Wang et al., "DeepNet", 2022, arXiv:2203.00555 (deep). He et al., "RealFormer", 2021, arXiv:2012.11747
(residual scores). Su et al., "RoFormer", 2021, arXiv:2104.09864 (rotary). Dong et al., "UniLM", 2019, arXiv:1905.03197
(prefix mask). Su Jianlin, https://kexue.fm/archives/7124 (conditional norm).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import BoolTensor, Generator, Tensor, nn

__all__ = [
    "Cache",
    "ConditionalLayerNorm",
    "TokenTransformer",
    "Trace",
    "Transformer",
    "causal_mask",
    "padding_mask",
    "prefix_mask",
    "rotary",
]

_Module = TypeVar("_Module", bound=nn.Module)

NORMS = ("post", "pre", "deep")
RESIDUALS = (None, "sum", "mean")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


# --- Masks: boolean, True where attention is allowed ----------------------------------------------------------


def padding_mask(lengths: Sequence[int] | Tensor, size: int) -> BoolTensor:
    """Return the mask that hides what stands behind the end of each example.

    Parameters
    ----------
    lengths : integers, shape (B,)
        Real positions of each example, each in ``0..size``.
    size : int
        Padded length.

    Returns
    -------
    BoolTensor, shape (B, 1, 1, size)
        True where the key is real. Combine masks with ``&`` and ``|``.

    Raises
    ------
    ValueError
        If a length is no integer in ``0..size``.

    Examples
    --------
    >>> padding_mask([1, 3], 3).int().tolist()
    [[[[1, 0, 0]]], [[[1, 1, 1]]]]
    """
    ends = _lengths(lengths, size)
    return torch.arange(size, device=ends.device) < ends.view(-1, 1, 1, 1)


def causal_mask(size: int, past: int = 0) -> BoolTensor:
    """Return the mask under which a position sees itself and what came before it.

    Parameters
    ----------
    size : int
        New positions.
    past : int
        Earlier positions that all of them see, for example those in a cache.

    Returns
    -------
    BoolTensor, shape (size, past + size)

    Raises
    ------
    ValueError
        If a size is negative.

    Examples
    --------
    >>> causal_mask(2, past=1).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    if size < 0 or past < 0:
        raise ValueError(f"causal_mask: size and past must not be negative, got {size} and {past}")
    return torch.ones(size, past + size, dtype=torch.bool).tril(past)


def prefix_mask(lengths: Sequence[int] | Tensor, size: int) -> BoolTensor:
    """Return the mask of a question that sees itself and an answer that also sees its own past.

    Implements eq-transformer-prefix-mask, ``M[i, j] = (j < length) or (j <= i)``.

    Parameters
    ----------
    lengths : integers, shape (B,)
        Length of each prefix, in ``0..size``.
    size : int
        Length of prefix and answer together.

    Returns
    -------
    BoolTensor, shape (B, 1, size, size)

    Raises
    ------
    ValueError
        If a length is no integer in ``0..size``.

    Examples
    --------
    >>> prefix_mask([2], 4).int()[0, 0].tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    """
    ends = _lengths(lengths, size)
    return padding_mask(ends, size) | causal_mask(size).to(ends.device)


def _lengths(lengths: Sequence[int] | Tensor, size: int) -> Tensor:
    ends = torch.as_tensor(lengths)
    if ends.ndim != 1 or not _is_integer(ends) or ((ends < 0) | (ends > size)).any():
        raise ValueError(f"lengths must be a row of integers in 0..{size}, got {lengths}")
    return ends


def _is_integer(x: Tensor) -> bool:
    return x.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


# --- Rotary positions -----------------------------------------------------------------------------------------


def rotary(x: Tensor, positions: Tensor | Sequence[int] | None = None, base: float = 10_000.0) -> Tensor:
    """Turn each pair of coordinates by an angle proportional to the position (eq-transformer-rotary).

    The pair ``(x[2i], x[2i+1])`` at position ``p`` is turned by ``p * base**(-2i/d)``. Scores of turned queries and
    keys depend on the difference of positions only (eq-transformer-rotary-relative). Angles are computed in float64:
    at position 10^5 a float32 angle would be off by some 0.004.

    Parameters
    ----------
    x : Tensor, shape (..., T, d)
        ``d`` even.
    positions : integers, shape (T,), optional
        ``0..T-1`` by default.
    base : float
        Sets the slowest angle.

    Returns
    -------
    Tensor, shape and dtype of ``x``

    Raises
    ------
    ValueError
        If ``d`` is odd, or ``positions`` is no row of ``T`` integers.

    Examples
    --------
    >>> rotary(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))[1]  # cos 1, sin 1
    tensor([0.5403, 0.8415])
    """
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(f"rotary: x must have shape (..., time, even size), got {tuple(x.shape)}")
    if positions is None:
        positions = torch.arange(x.shape[-2], device=x.device)
    positions = torch.as_tensor(positions, device=x.device)
    if positions.shape != x.shape[-2:-1] or not _is_integer(positions):
        raise ValueError(
            f"rotary: positions must be {x.shape[-2]} integers, got {positions.dtype} {positions.tolist()}"
        )
    return _turn(x, *_rotation(positions, x.shape[-1], base, x.dtype))


def _rotation(positions: Tensor, size: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles, each of shape (T, size / 2)."""
    rates = base ** (-torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)
    angles = positions.double()[:, None] * rates
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of ``x`` (..., T, d) by tables of shape (T, d / 2)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


# --- Conditional layer norm -----------------------------------------------------------------------------------


class ConditionalLayerNorm(nn.Module):
    """Layer norm whose scale and shift are affine in a condition (eq-transformer-conditional-norm).

    ``(gamma + W_gamma c) * x_hat + (beta + W_beta c)``, where both ``W`` start at zero: before training it is the plain
    norm for every condition.

    Parameters
    ----------
    width : int
        Size ``D`` of what is normalised.
    condition_size : int, optional
        Size ``C`` of the condition; None makes a plain layer norm.
    eps : float
        Added to the variance.
    """

    def __init__(self, width: int, condition_size: int | None = None, eps: float = 1e-5):
        super().__init__()
        _check_positive("width", width)
        self.width, self.condition_size, self.eps = width, condition_size, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        if condition_size is not None:
            _check_positive("condition_size", condition_size)
            self.weight_projection = nn.Parameter(torch.zeros(width, condition_size))
            self.bias_projection = nn.Parameter(torch.zeros(width, condition_size))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the normalised ``x`` (B, T, D); ``condition`` (B, C) is given exactly when the norm is conditional."""
        _check_condition(condition, len(x), self.condition_size)
        if condition is None:
            return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)
        gamma, beta = self.scale_and_shift(condition)
        return torch.addcmul(beta[:, None], F.layer_norm(x, (self.width,), eps=self.eps), gamma[:, None])

    def scale_and_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma and beta (..., D) under a condition (..., C)."""
        return (
            F.linear(condition, self.weight_projection) + self.weight,
            F.linear(condition, self.bias_projection) + self.bias,
        )

    @torch.no_grad()
    def specialise(self, condition: Tensor) -> ConditionalLayerNorm:
        """Return the plain norm that this one is under one condition (C,) (eq-transformer-specialise)."""
        plain = ConditionalLayerNorm(self.width, eps=self.eps).to(self.weight).train(self.training)
        for parameter, value in zip((plain.weight, plain.bias), self.scale_and_shift(condition)):
            parameter.copy_(value)
        return plain

    def extra_repr(self) -> str:
        return f"{self.width}, condition_size={self.condition_size}"


def _check_condition(condition: Tensor | None, batch: int, size: int | None) -> None:
    if size is None and condition is not None:
        raise ValueError("a condition was given, but condition_size is None")
    if size is not None and (condition is None or condition.shape != (batch, size)):
        got = None if condition is None else tuple(condition.shape)
        raise ValueError(f"condition must have shape (batch, condition_size) = {(batch, size)}, got {got}")


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


# --- What a pass keeps ----------------------------------------------------------------------------------------


class Trace(NamedTuple):
    """What one pass went through, with its graph: ``torch.autograd.grad`` works on every field.

    Attributes
    ----------
    hidden : list of N + 1 tensors (B, T, D)
        The input of each layer, then the output of the stack (after a final norm).
    scores : list of N tensors (B, H, T, T)
        As accumulated (``A_n`` of eq-transformer-residual), before the mask and before a division by n.
    attention : list of N tensors (B, H, T, T)
        Rows sum to 1; exactly 0 where masked. A row that may see nothing is all 0.
    """

    hidden: list[Tensor]
    scores: list[Tensor]
    attention: list[Tensor]


class Cache:
    """Keys and values of the positions seen so far; empty at first, ``forward(..., cache=cache)`` appends.

    Residual scores need no cache of their own: the row of a new query is rebuilt from the cached keys on its way
    through the layers. Keys are stored after their rotation, so that nothing is turned twice.
    """

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def __repr__(self) -> str:
        return f"Cache(length={self.length}, layers={len(self._layers)})"

    @property
    def length(self) -> int:
        """Positions held."""
        return self._layers[0][0].shape[-2] if self._layers else 0

    def reorder(self, index: Tensor | Sequence[int]) -> None:
        """Let batch row ``i`` continue what was row ``index[i]``; ``index`` (beams,) may repeat, drop and add rows."""
        index = torch.as_tensor(index)
        if index.ndim != 1 or not _is_integer(index):
            raise ValueError(f"index must be a row of integers, got {index.dtype} of shape {tuple(index.shape)}")
        self._layers = [(k[index.to(k.device)], v[index.to(v.device)]) for k, v in self._layers]

    def _append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``(B, H, T, d)`` of one layer and return everything it has, ``(B, H, S, d)``."""
        if layer == len(self._layers):
            self._layers.append((keys, values))
        else:
            old_keys, old_values = self._layers[layer]
            self._layers[layer] = torch.cat((old_keys, keys), -2), torch.cat((old_values, values), -2)
        return self._layers[layer]

    def _check(self, batch: int, layers: int) -> None:
        if self._layers and (len(self._layers[0][0]), len(self._layers)) != (batch, layers):
            held = f"{len(self._layers[0][0])} rows in {len(self._layers)} layers"
            raise ValueError(f"the cache holds {held}, the model and its input have {batch} rows in {layers} layers")


@dataclass
class _Pass:
    """What all layers of one forward pass share."""

    blocked: Tensor | None  # ~mask, with the blind rows freed so that their softmax exists
    blind: Tensor | None  # (..., T, 1): queries that may see nothing, where there are any
    mask: Tensor | None
    condition: Tensor | None
    rotation: tuple[Tensor, Tensor] | None
    cache: Cache | None
    explicit: bool  # whether scores are wanted, for a residual or for a trace


# --- One layer ------------------------------------------------------------------------------------------------


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer whose weights are not drawn yet: `_Layer.reset` does, so that no other generator moves."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs, device=torch.get_default_device())


class _Layer(nn.Module):
    """Self-attention and feed-forward, each with a shortcut and a norm; ``number`` counts from 1."""

    def __init__(self, number: int, o: _Options):
        super().__init__()
        self.number, self.options = number, o
        self.qkv = _linear(o.width, 3 * o.width)
        self.out = _linear(o.width, o.width)
        self.up = _linear(o.width, o.hidden)
        self.down = _linear(o.hidden, o.width)
        self.attention_norm = ConditionalLayerNorm(o.width, o.condition_size, o.eps)
        self.feedforward_norm = ConditionalLayerNorm(o.width, o.condition_size, o.eps)

    @torch.no_grad()
    def reset(self, generator: Generator | None) -> None:
        """Draw every matrix from N(0, gain^2 / fan-in), scaled by beta where eq-transformer-deep says so."""
        for linear in (self.qkv, self.out, self.up, self.down):
            linear.weight.normal_(0, self.options.gain * linear.in_features**-0.5, generator=generator)
            linear.bias.zero_()
        if self.options.norm == "deep":
            value = self.qkv.weight[2 * self.options.width :]
            for weight in (value, self.out.weight, self.up.weight, self.down.weight):
                weight *= self.options.beta

    def forward(self, x: Tensor, before: Tensor | None, run: _Pass) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Map ``x`` (B, T, D) and the scores of the layer before to the output, its scores and its attention."""
        o, condition = self.options, run.condition
        if o.norm == "pre":  # eq-transformer-pre
            branch, scores, attention = self.attend(self.attention_norm(x, condition), before, run)
            x = x + self.drop(branch)
            x = x + self.drop(self.feed(self.feedforward_norm(x, condition)))
        else:  # eq-transformer-post, and eq-transformer-deep where alpha is not 1
            branch, scores, attention = self.attend(x, before, run)
            x = self.attention_norm(torch.add(self.drop(branch), x, alpha=o.alpha), condition)
            x = self.feedforward_norm(torch.add(self.drop(self.feed(x)), x, alpha=o.alpha), condition)
        return x, scores, attention

    def feed(self, x: Tensor) -> Tensor:
        return self.down(self.drop(ACTIVATIONS[self.options.activation](self.up(x))))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.options.dropout, self.training)

    def attend(self, x: Tensor, before: Tensor | None, run: _Pass) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the attention branch (B, T, D) and, where wanted, scores and attention (B, H, T, S)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.options.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        if run.rotation is not None:
            q, k = _turn(q, *run.rotation), _turn(k, *run.rotation)
        if run.cache is not None:
            k, v = run.cache._append(self.number - 1, k, v)
        if not run.explicit:  # eq-transformer-attention
            p = self.options.dropout if self.training else 0.0
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=run.mask, dropout_p=p)
            return self.out(heads.transpose(1, 2).flatten(2)), None, None
        scores = _scores(q, k, before)
        attention = self.normalise(scores, run)
        heads = self.drop(attention) @ v
        return self.out(heads.transpose(1, 2).flatten(2)), scores, attention

    def normalise(self, scores: Tensor, run: _Pass) -> Tensor:
        """Return the softmax of the scores under the mask, all 0 in a row that may see nothing."""
        if self.options.residual_attention == "mean":
            scores = scores / self.number
        if run.blocked is None:
            return scores.softmax(-1)
        attention = scores.masked_fill(run.blocked, -torch.inf).softmax(-1)
        return attention if run.blind is None else attention.masked_fill(run.blind, 0.0)


def _scores(q: Tensor, k: Tensor, before: Tensor | None) -> Tensor:
    """Return ``q k^T / sqrt(d)``, plus the scores of the layer before in the same call (eq-transformer-residual).

    They stay raw: the mask is applied to a copy, because a sum must not hold minus infinities.
    """
    q = q * q.shape[-1] ** -0.5  # T x d products, where scaling the scores would take T x S
    if before is None:
        return q @ k.transpose(-1, -2)
    product = torch.baddbmm(before.flatten(0, 1), q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2))
    return product.view_as(before)


# --- The stack ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    layers: int
    width: int
    heads: int
    hidden: int
    norm: str
    residual_attention: str | None
    condition_size: int | None
    rotary: bool
    dropout: float
    activation: str
    gain: float
    eps: float

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "hidden"):
            _check_positive(name, getattr(self, name))
        for name, allowed in (("norm", NORMS), ("residual_attention", RESIDUALS), ("activation", tuple(ACTIVATIONS))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.rotary and self.width // self.heads % 2:
            raise ValueError(f"rotary needs an even head size, got {self.width} / {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not (self.gain > 0 and self.eps > 0):
            raise ValueError(f"gain and eps must be positive, got {self.gain} and {self.eps}")

    @property
    def alpha(self) -> float:
        """Weight of the shortcut (eq-transformer-deep)."""
        return (2 * self.layers) ** 0.25 if self.norm == "deep" else 1.0

    @property
    def beta(self) -> float:
        """Scale of the branches' initial weights (eq-transformer-deep)."""
        return (8 * self.layers) ** -0.25 if self.norm == "deep" else 1.0


class Transformer(nn.Module):
    """A stack of self-attention layers.

    Parameters
    ----------
    layers, width, heads : int
        ``N``, ``D`` and ``H``; the width is a multiple of the heads.
    hidden : int, optional
        Feed-forward width, ``4 * width`` by default.
    norm : {"post", "pre", "deep"}
        Where the norms stand (eq-transformer-post, eq-transformer-pre, eq-transformer-deep); ``"pre"`` has a final one.
    residual_attention : {None, "sum", "mean"}
        Whether a layer adds the raw scores of the layers before to its own, and divides by their number
        (eq-transformer-residual). The parameters are the same for all three.
    condition_size : int, optional
        Makes every norm conditional (:class:`ConditionalLayerNorm`).
    rotary : bool
        Whether queries and keys are turned by their position, which is the cache's length plus the index.
    dropout : float
        On attention weights, feed-forward activations and both branches; off in ``eval()``.
    activation : {"gelu", "relu"}
        Of the feed-forward.
    gain : float
        Matrices start as N(0, gain^2 / fan-in); BERT-base's 0.02 is a gain of 0.55.
    eps : float
        Of the norms.
    generator : torch.Generator, optional
        Draws the weights; torch's global one by default.

    Raises
    ------
    ValueError
        If a size does not fit, or a word is not one of the allowed.

    Examples
    --------
    >>> stack = Transformer(2, 32, 4)
    >>> stack(torch.randn(5, 7, 32), mask=causal_mask(7)).shape
    torch.Size([5, 7, 32])
    """

    def __init__(
        self, layers: int, width: int, heads: int, *, hidden: int | None = None, norm: str = "post",
        residual_attention: str | None = None, condition_size: int | None = None, rotary: bool = True,
        dropout: float = 0.0, activation: str = "gelu", gain: float = 1.0, eps: float = 1e-5,
        generator: Generator | None = None,
    ):  # fmt: skip
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.options = o = _Options(
            layers,
            width,
            heads,
            hidden,
            norm,
            residual_attention,
            condition_size,
            rotary,
            dropout,
            activation,
            gain,
            eps,
        )
        self.layers = nn.ModuleList(_Layer(number, o) for number in range(1, layers + 1))
        self.final_norm = ConditionalLayerNorm(width, condition_size, eps) if norm == "pre" else None
        for layer in self.layers:
            layer.reset(generator)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, condition: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Return the output of the stack.

        Parameters
        ----------
        x : Tensor, shape (B, T, D)
        mask : BoolTensor that broadcasts to (B, H, T, S), optional
            True where attention is allowed; None allows all. With a cache, None is right for one new position, and
            ``causal_mask(T, cache.length)`` for several.
        condition : Tensor, shape (B, C)
            Given exactly when ``condition_size`` is set.
        cache : Cache, optional
            Read, and extended by the ``T`` new positions.

        Returns
        -------
        Tensor, shape (B, T, D)

        Raises
        ------
        TypeError
            If the mask is not boolean.
        ValueError
            If a shape does not fit.
        """
        run = self._prepare(x, mask, condition, cache, explicit=self.options.residual_attention is not None)
        before = None
        for layer in self.layers:
            x, scores, _ = layer(x, before, run)
            if self.options.residual_attention is not None:
                before = scores
        return x if self.final_norm is None else self.final_norm(x, condition)

    def trace(self, x: Tensor, *, mask: Tensor | None = None, condition: Tensor | None = None) -> Trace:
        """Return what the same pass goes through, layer by layer; arguments as in :meth:`forward`."""
        run = self._prepare(x, mask, condition, None, explicit=True)
        trace, before = Trace([x], [], []), None
        for layer in self.layers:
            x, scores, attention = layer(x, before, run)
            before = None if self.options.residual_attention is None else scores
            for kept, new in zip(trace, (x, scores, attention)):
                kept.append(new)
        if self.final_norm is not None:
            trace.hidden[-1] = self.final_norm(x, condition)
        return trace

    def _prepare(
        self, x: Tensor, mask: Tensor | None, condition: Tensor | None, cache: Cache | None, *, explicit: bool
    ) -> _Pass:
        o = self.options
        if x.ndim != 3 or x.shape[-1] != o.width:
            raise ValueError(f"x must have shape (batch, time, {o.width}), got {tuple(x.shape)}")
        batch, size, past = len(x), x.shape[1], 0 if cache is None else cache.length
        if cache is not None:
            cache._check(batch, o.layers)
        _check_mask(mask, (batch, o.heads, size, past + size))
        _check_condition(condition, batch, o.condition_size)
        positions = torch.arange(past, past + size, device=x.device)
        rotation = _rotation(positions, o.width // o.heads, 10_000.0, x.dtype) if o.rotary else None
        blocked = blind = None
        if mask is not None and explicit:
            blind = ~mask.any(-1, keepdim=True)
            blind = blind if blind.any() else None
            blocked = ~mask if blind is None else ~(mask | blind)
        return _Pass(blocked, blind, mask, condition, rotation, cache, explicit)

    def specialise(self, condition: Tensor) -> Transformer:
        """Return a plain copy that does what this conditional stack does under one condition.

        Implements eq-transformer-specialise: gamma and beta absorb the projections, nothing else changes.

        Parameters
        ----------
        condition : Tensor, shape (C,)

        Returns
        -------
        Transformer
            Independent of this one, without conditions; same mode, dtype and device.

        Raises
        ------
        ValueError
            If this stack has no conditions, or ``condition`` is not one of them.
        """
        return _specialise(self, condition, self.options)

    @classmethod
    @torch.no_grad()
    def from_torch(cls, encoder: nn.TransformerEncoder, *, residual_attention: str | None = None) -> Transformer:
        """Return a stack without rotary positions that computes what PyTorch's own encoder computes.

        Parameters
        ----------
        encoder : nn.TransformerEncoder
            Post-norm without, or pre-norm with, a final norm; gelu or relu; ``batch_first`` or not (this stack always
            is). Its weights are copied; eps, dropout, mode, dtype and device are taken over.
        residual_attention : {None, "sum", "mean"}
            As in :class:`Transformer`.

        Raises
        ------
        TypeError
            If it is no ``nn.TransformerEncoder``.
        ValueError
            If this class has no such stack.
        """
        options = _torch_options(encoder) | {"residual_attention": residual_attention, "rotary": False}
        with torch.device("cpu"):
            stack = cls(**options, generator=Generator())  # draws what is overwritten below
        first = encoder.layers[0]
        stack.to(first.linear1.weight).train(encoder.training)
        for ours, theirs in zip(stack.layers, encoder.layers):
            for target, name in _TORCH_NAMES.items():
                source = _attribute(theirs, name)
                target = ours.get_parameter(target)
                target.zero_() if source is None else target.copy_(source)
        if stack.final_norm is not None:
            stack.final_norm.load_state_dict(encoder.norm.state_dict(), strict=False)
        return stack


_TORCH_NAMES = {
    "qkv.weight": "self_attn.in_proj_weight",
    "qkv.bias": "self_attn.in_proj_bias",
    "out.weight": "self_attn.out_proj.weight",
    "out.bias": "self_attn.out_proj.bias",
    "up.weight": "linear1.weight",
    "up.bias": "linear1.bias",
    "down.weight": "linear2.weight",
    "down.bias": "linear2.bias",
    "attention_norm.weight": "norm1.weight",
    "attention_norm.bias": "norm1.bias",
    "feedforward_norm.weight": "norm2.weight",
    "feedforward_norm.bias": "norm2.bias",
}


def _attribute(module: nn.Module, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module


def _torch_options(encoder: nn.TransformerEncoder) -> dict[str, Any]:
    """Read the options of a stack off PyTorch's encoder, or say why there is none."""
    if not isinstance(encoder, nn.TransformerEncoder):
        raise TypeError(f"from_torch: expected an nn.TransformerEncoder, got {type(encoder).__name__}")
    first = encoder.layers[0]
    if first.norm_first and encoder.norm is None:
        raise ValueError(
            "from_torch: a pre-norm encoder needs a final norm (norm=nn.LayerNorm(width)), this one has none"
        )
    if not first.norm_first and encoder.norm is not None:
        raise ValueError("from_torch: a post-norm encoder must not have a final norm, this one has (norm=...)")
    kinds = {1: "relu", 2: "gelu"}
    if first.activation_relu_or_gelu not in kinds:
        raise ValueError(f"from_torch: activation must be relu or gelu, got {first.activation}")
    return {
        "layers": len(encoder.layers),
        "width": first.linear1.in_features,
        "heads": first.self_attn.num_heads,
        "hidden": first.linear1.out_features,
        "norm": "pre" if first.norm_first else "post",
        "dropout": first.dropout.p,
        "activation": kinds[first.activation_relu_or_gelu],
        "eps": first.norm1.eps,
    }


def _check_mask(mask: Tensor | None, shape: tuple[int, int, int, int]) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be boolean, True where attention is allowed, got {got}")
    fits = len(mask.shape) <= 4 and all(m in (1, s) for m, s in zip(mask.shape[::-1], shape[::-1]))
    if not fits:
        raise ValueError(f"mask must broadcast to (batch, heads, new, visible) = {shape}, got {tuple(mask.shape)}")


def _specialise(module: _Module, condition: Tensor, options: _Options) -> _Module:
    """Return a copy of a module in which every conditional norm is the plain one for a condition."""
    size = options.condition_size
    if size is None:
        raise ValueError("specialise: this model has no condition (condition_size is None)")
    if condition.shape != (size,):
        raise ValueError(f"specialise: condition must have shape ({size},), got {tuple(condition.shape)}")
    plain = copy.deepcopy(module)
    for part in list(plain.modules()):
        if isinstance(part, Transformer | _Layer):
            part.options = dataclasses.replace(options, condition_size=None)
        for name, child in part.named_children():
            if isinstance(child, ConditionalLayerNorm):
                setattr(part, name, child.specialise(condition))
    return plain


# --- Tokens ---------------------------------------------------------------------------------------------------


class TokenTransformer(nn.Module):
    """A stack between a table of token vectors and the same table used as classifier.

    Parameters
    ----------
    vocabulary_size : int
        Tokens are integers in ``0..vocabulary_size - 1``.
    layers, width, heads, **options
        Of :class:`Transformer`; ``generator`` draws the tables too. Vectors start as N(0, gain^2 / D).
    segments : int
        Number of segment kinds, whose vectors are added to the tokens'; 0 for none.

    Examples
    --------
    >>> model = TokenTransformer(100, 2, 32, 4)
    >>> model.logits(model(torch.tensor([[1, 2, 3]]), mask=causal_mask(3))).shape
    torch.Size([1, 3, 100])
    """

    def __init__(
        self, vocabulary_size: int, layers: int, width: int, heads: int, *, segments: int = 0, **options: Any
    ):  # fmt: skip
        super().__init__()
        _check_positive("vocabulary_size", vocabulary_size)
        if not isinstance(segments, int) or segments < 0:
            raise ValueError(f"segments must be an integer, 0 or more, got {segments!r}")
        self.stack = Transformer(layers, width, heads, **options)
        o = self.stack.options
        self.norm = ConditionalLayerNorm(width, o.condition_size, o.eps)
        self.tokens = nn.Parameter(torch.empty(vocabulary_size, width))
        self.segments = nn.Parameter(torch.empty(segments, width)) if segments else None
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        for table in (self.tokens, self.segments):
            if table is not None:
                nn.init.normal_(table, std=o.gain * width**-0.5, generator=options.get("generator"))

    def embed(self, tokens: Tensor, *, segments: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Return token vector (+ segment vector), through the norm and the dropout: integers (B, T) to (B, T, D).

        Raises
        ------
        ValueError
            If tokens are not integers of shape (B, T), or segments are missing, superfluous or of another shape.
        """
        self._check(tokens, segments)
        x = F.embedding(tokens, self.tokens)
        if segments is not None:
            x = x + F.embedding(segments, self.segments)
        return F.dropout(self.norm(x, condition), self.stack.options.dropout, self.training)

    def forward(
        self, tokens: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None,
        condition: Tensor | None = None, cache: Cache | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the hidden states (B, T, D) of integer tokens (B, T); arguments as in :meth:`Transformer.forward`."""
        x = self.embed(tokens, segments=segments, condition=condition)
        return self.stack(x, mask=mask, condition=condition, cache=cache)

    def trace(
        self, tokens: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Trace:  # fmt: skip
        """Return the trace of the stack on the embedded tokens."""
        x = self.embed(tokens, segments=segments, condition=condition)
        return self.stack.trace(x, mask=mask, condition=condition)

    def specialise(self, condition: Tensor) -> TokenTransformer:
        """Return a plain copy for one condition (C,), the norm of the embedding included; see the stack's."""
        return _specialise(self, condition, self.stack.options)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores (..., V) of each token after hidden states (..., D): the token table again, and a bias."""
        return F.linear(hidden, self.tokens, self.bias)

    def _check(self, tokens: Tensor, segments: Tensor | None) -> None:
        if tokens.ndim != 2 or not _is_integer(tokens):
            raise ValueError(
                f"tokens must be integers of shape (batch, time), got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if (segments is None) != (self.segments is None):
            kinds = 0 if self.segments is None else len(self.segments)
            raise ValueError(
                f"segments are {'missing' if segments is None else 'superfluous'}: the model has {kinds} kinds"
            )
        if segments is not None and (segments.shape != tokens.shape or not _is_integer(segments)):
            raise ValueError(f"segments must be integers of shape {tuple(tokens.shape)}, got {tuple(segments.shape)}")
