"""The two networks, extractor and generator, and how the generator is trained and measured.

Used through :mod:`explainers.summarization`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from . import training
from ._summarization_copy import CONTINUES, CopyIndex, Step, copy_tags, mix, token_mask
from .transformer import Cache, TokenTransformer, padding_mask, prefix_mask

PAD, SEPARATOR, END = 0, 1, 2
IGNORE = -100

# --- The extractor ------------------------------------------------------------------------------------------


class _GatedConvolution(nn.Module):
    """``x + alpha LN(a * sigmoid(g))`` with ``(a, g)`` a dilated convolution; the scalar alpha starts at zero."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.convolution = nn.Conv1d(width, 2 * width, kernel, dilation=dilation, padding=dilation * (kernel // 2))
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        value, gate = self.convolution((x * mask).transpose(1, 2)).transpose(1, 2).chunk(2, -1)
        return x + self.alpha * self.drop(self.norm(value * torch.sigmoid(gate)))


class ExtractiveTagger(nn.Module):
    """A dilated gated CNN over sentence vectors (eq-summarization-gated-conv, chapter summarization).

    At the start it is a linear map of each sentence alone, for every gate `alpha` is zero.

    Parameters
    ----------
    features : int
        Size of a sentence vector.
    width : int
    dilations : sequence of int
        One for each convolution.
    kernel : int
        Odd.
    dropout : float

    Raises
    ------
    ValueError
        If the kernel is even, or a size or dilation is below 1.

    Examples
    --------
    >>> tagger = ExtractiveTagger(16)
    >>> tagger(torch.zeros(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)).shape, tagger.receptive_field
    (torch.Size([2, 9]), 35)
    """

    def __init__(
        self, features: int, width: int = 64, dilations: Sequence[int] = (1, 2, 4, 8, 1, 1), kernel: int = 3,
        dropout: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and positive, got {kernel}")
        if min((features, width, *dilations)) < 1:
            raise ValueError(
                f"features, width and dilations must be positive, got {features}, {width}, {tuple(dilations)}"
            )
        self.features, self.kernel, self.dilations = features, kernel, tuple(dilations)
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, 1)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_GatedConvolution(width, kernel, dilation, dropout) for dilation in dilations)

    @property
    def receptive_field(self) -> int:
        """Number of sentences that a logit depends on (eq-summarization-receptive-field, chapter summarization)."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def forward(self, sentences: Tensor, mask: Tensor) -> Tensor:
        """Map vectors (batch, sentences, features) and a boolean mask to logits (batch, sentences)."""
        if sentences.dim() != 3 or sentences.shape[-1] != self.features:
            raise ValueError(
                f"sentences must have shape (batch, sentences, {self.features}), got {tuple(sentences.shape)}"
            )
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean, True where a sentence is, got {mask.dtype}")
        if mask.shape != sentences.shape[:-1]:
            raise ValueError(f"mask must have shape {tuple(sentences.shape[:-1])}, got {tuple(mask.shape)}")
        real = mask[..., None]
        x = self.drop(self.enter(sentences))
        for layer in self.layers:
            x = layer(x, real)
        return self.leave(x)[..., 0].masked_fill(~mask, 0.0)


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real positions (eq-summarization-pool, chapter summarization).

    Parameters
    ----------
    hidden : float Tensor, shape (..., positions, width)
    mask : bool Tensor, shape (..., positions)
        True where a position is real; a row without any gives zeros.

    Examples
    --------
    >>> mean_pool(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([True, True, False]))
    tensor([2.])
    """
    if mask.dtype != torch.bool or mask.shape != hidden.shape[:-1]:
        raise ValueError(
            f"mask must be boolean of shape {tuple(hidden.shape[:-1])}, got {mask.dtype} {tuple(mask.shape)}"
        )
    kept = hidden.masked_fill(~mask[..., None], 0.0)
    return kept.sum(-2) / mask.sum(-1, keepdim=True).clamp_min(1)


# --- The generator ------------------------------------------------------------------------------------------


class Summarizer(nn.Module):
    """One Transformer as encoder and decoder, with a copy tag beside each token (eq-summarization-unilm-mask).

    A row is [source, separator | summary, end]; the part before the bar is the prefix, which every position sees.
    See chapter summarization.

    Parameters
    ----------
    vocabulary, layers, width, heads, **transformer
        Sizes, and options of `transformer.TokenTransformer`.

    Examples
    --------
    >>> model = Summarizer(50, layers=1, width=16, heads=2)
    >>> logits, tags = model(torch.zeros(2, 7, dtype=torch.long), torch.tensor([3, 4]))
    >>> logits.shape, tags.shape
    (torch.Size([2, 7, 50]), torch.Size([2, 7, 3]))
    """

    def __init__(self, vocabulary: int, layers: int = 2, width: int = 64, heads: int = 4, **transformer: Any):
        super().__init__()
        self.transformer = TokenTransformer(vocabulary, layers, width, heads, segments=2, **transformer)
        self.tags = nn.utils.skip_init(nn.Linear, width, 3)
        with torch.no_grad():
            self.tags.weight.normal_(0, width**-0.5, generator=transformer.get("generator"))
            self.tags.bias.zero_()

    def hidden(self, tokens: Tensor, prefix: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the hidden states, shape (batch, positions, width); arguments as in `forward`."""
        if tokens.dim() != 2 or prefix.shape != tokens.shape[:1]:
            got = f"{tuple(tokens.shape)} and {tuple(prefix.shape)}"
            raise ValueError(f"want tokens (batch, positions) and prefix (batch,), got {got}")
        size = tokens.shape[1]
        if bool(((prefix < 0) | (prefix > size)).any()):
            raise ValueError(f"prefix must lie in 0..{size}, the length of a row, got {prefix.tolist()}")
        mask = prefix_mask(prefix, size)
        if lengths is not None:
            mask = mask & padding_mask(lengths, size)
        segments = (torch.arange(size, device=tokens.device) >= prefix[:, None]).long()
        return self.transformer(tokens, segments=segments, mask=mask)

    def forward(self, tokens: Tensor, prefix: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits and tag logits of the token after each position.

        Parameters
        ----------
        tokens : integer Tensor, shape (batch, positions)
        prefix : integer Tensor, shape (batch,)
            Positions that all see, from 0 to the length of a row.
        lengths : integer Tensor, shape (batch,), optional
            Real positions of each row; what stands behind them is hidden.

        Returns
        -------
        (Tensor, Tensor)
            Shapes (batch, positions, vocabulary) and (batch, positions, 3).

        Raises
        ------
        ValueError
            If a shape does not fit, or a prefix is longer than its row.
        """
        hidden = self.hidden(tokens, prefix, lengths)
        return self.transformer.logits(hidden), self.tags(hidden)

    @torch.no_grad()
    def stepper(self, source: Tensor) -> Step:
        """Return `step` for `beam_search`, which remembers keys and values (no prefix is computed twice).

        Parameters
        ----------
        source : integer Tensor, shape (positions,)
            The whole prefix, the separator included.

        Raises
        ------
        ValueError
            If the source is empty or no vector.
        """
        if source.dim() != 1 or len(source) == 0:
            raise ValueError(f"source must have shape (positions,) with at least one, got {tuple(source.shape)}")
        cache = Cache()
        first = self.transformer(source[None], segments=torch.zeros_like(source)[None], cache=cache)[:, -1]

        @torch.no_grad()
        def step(prefixes: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
            hidden = first
            if prefixes.shape[1]:
                cache.reorder(parents)
                last = prefixes[:, -1:]
                hidden = self.transformer(last, segments=torch.ones_like(last), cache=cache)[:, -1]
            return self.transformer.logits(hidden), self.tags(hidden)

        return step


# --- Rows of tokens -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Examples as tensors, ready for `Summarizer`.

    Attributes
    ----------
    tokens : Tensor, shape (rows, positions)
        Source, separator, summary, end, padding.
    prefix, lengths : Tensor, shape (rows,)
    targets : Tensor, shape (rows, positions)
        The next token where it belongs to the summary or is its end; elsewhere -100.
    tags : Tensor, shape (rows, positions)
        The tag of the next token, on both sides; -100 where there is none.
    sources, summaries : list of list of int
    """

    tokens: Tensor
    prefix: Tensor
    lengths: Tensor
    targets: Tensor
    tags: Tensor
    sources: list[list[int]]
    summaries: list[list[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tokens, prefix, lengths, targets and tags."""
        return self.tokens, self.prefix, self.lengths, self.targets, self.tags

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of some rows."""
        return tuple(part[rows] for part in self.tensors)


def make_rows(
    sources: Sequence[list[int]], summaries: Sequence[list[int]], *, method: str = "lcs", min_length: int = 2
) -> Rows:
    """Return tensors for token ids; ids below 3 are reserved for padding, separator and end.

    Parameters
    ----------
    sources, summaries : sequences of lists of int
    method, min_length
        Of `copy_tags`.

    Examples
    --------
    >>> rows = make_rows([[7, 8]], [[8]])
    >>> rows.tokens.tolist(), rows.targets.tolist(), rows.tags.tolist()
    ([[7, 8, 1, 8, 2]], [[-100, -100, 8, 2, -100]], [[1, 0, 1, 0, -100]])
    """
    size = max(len(x) + len(y) + 2 for x, y in zip(sources, summaries, strict=True))
    tokens = torch.full((len(sources), size), PAD)
    targets, tags = torch.full_like(tokens, IGNORE), torch.full_like(tokens, IGNORE)
    for row, (x, y) in enumerate(zip(sources, summaries)):
        whole = [*x, SEPARATOR, *y, END]
        on_source, on_summary = copy_tags(x, y, method=method, min_length=min_length)
        tokens[row, : len(whole)] = torch.tensor(whole)
        targets[row, len(x) : len(whole) - 1] = tokens[row, len(x) + 1 : len(whole)]
        tags[row, : len(whole) - 1] = torch.tensor([*on_source, 0, *on_summary, 0][1:])
    prefix = torch.tensor([len(x) + 1 for x in sources])
    lengths = torch.tensor([len(x) + len(y) + 2 for x, y in zip(sources, summaries)])
    return Rows(tokens, prefix, lengths, targets, tags, list(sources), list(summaries))


# --- Training and measuring ---------------------------------------------------------------------------------

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (n, vocabulary) and targets (n,) to a scalar."""


def fit_summarizer(
    model: Summarizer, rows: Rows, *, steps: int, seed: int, batch: int = 16, lr: float = 5e-3, warmup: int = 50,
    loss: TokenLoss = F.cross_entropy, noise: float = 0.0, schedule: str = "linear",
    average: AveragedModel | None = None,
) -> Summarizer:  # fmt: skip
    """Train in place: token loss on the summary, tag loss on both sides; return the model in eval mode.

    The loop is `training.fit`: AdamW, a linear warm-up to `lr`, a linear descent to zero.

    Parameters
    ----------
    model : Summarizer
    rows : Rows
    steps, batch, warmup : int
    seed : int
        Of the order and of the noise; no global state is touched.
    lr : float
    loss : callable
        On logits (n, vocabulary) and targets (n,), such as a partial `sparse_cross_entropy`.
    noise : float
        Share of the input tokens that are replaced by another token of their row, as the article's code does.
    schedule : str
        Of `training.fit`, in place of the linear descent.
    average : torch.optim.swa_utils.AveragedModel, optional
        Of the same model; takes in the weights before each step and after the last.

    Raises
    ------
    ValueError
        If `steps` or `batch` is below 1, or the noise no share.
    """
    if not 0 <= noise < 1:
        raise ValueError(f"noise must lie in [0, 1), got {noise}")
    clean = training.shuffled(*rows.tensors, batch_size=batch)

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        for tokens, prefix, lengths, targets, tags in clean(generator):
            yield _disturb(tokens, lengths, noise, generator), prefix, lengths, targets, tags

    def objective(model: Summarizer, chosen: tuple[Tensor, ...]) -> Tensor:
        if average is not None:
            average.update_parameters(model)
        tokens, prefix, lengths, targets, tags = chosen
        hidden = model.hidden(tokens, prefix, lengths)
        at, tagged = targets != IGNORE, tags != IGNORE
        token_loss = loss(model.transformer.logits(hidden[at]), targets[at])
        return token_loss + F.cross_entropy(model.tags(hidden[tagged]), tags[tagged])

    training.fit(
        model,
        objective,
        batches,
        steps=steps,
        lr=lr,
        schedule=schedule,
        warmup=min(warmup, steps - 1),
        weight_decay=0.01,
        seed=seed,
    )
    if average is not None:
        average.update_parameters(model)
    return model


def _disturb(tokens: Tensor, lengths: Tensor, share: float, generator: torch.Generator) -> Tensor:
    if share == 0:
        return tokens
    other = (torch.rand(tokens.shape, generator=generator) * lengths[:, None]).long()
    hit = (torch.rand(tokens.shape, generator=generator) < share) & (tokens > END)
    swapped = tokens.gather(1, other)
    return torch.where(hit & (swapped > END), swapped, tokens)


@dataclass(frozen=True)
class Masks:
    """What may be copied: booleans (rows, vocabulary) and twice (rows, t, vocabulary), t a place of the summary.

    ``continues`` continues the longest suffix of the summary that the source holds, as the mixture does; ``span``
    continues the run B I* that the true tags are in, as the article does. The two may differ: the longest suffix may
    stand elsewhere than the span that the tags follow.
    """

    in_source: Tensor
    continues: Tensor
    span: Tensor


def copy_masks(rows: Rows, vocabulary: int) -> Masks:
    """Return the allowed sets along the reference summaries, the end token's position included."""
    longest = max(map(len, rows.summaries)) + 1
    in_source = torch.zeros(len(rows), vocabulary, dtype=torch.bool)
    continues = torch.zeros(len(rows), longest, vocabulary, dtype=torch.bool)
    span = torch.zeros_like(continues)
    for row, (source, summary) in enumerate(zip(rows.sources, rows.summaries)):
        index = CopyIndex(source)
        suffix = run = index.start
        in_source[row] = token_mask(index.continuations(index.start), vocabulary)
        first = len(source)  # where the tag of the first summary token stands
        for t, (token, tag) in enumerate(zip([*summary, END], rows.tags[row, first:].tolist())):
            continues[row, t] = token_mask(index.continuations(suffix), vocabulary)
            span[row, t] = token_mask(index.continuations(run), vocabulary)
            suffix = index.longest(suffix, token)
            run = index.extend(run if tag == CONTINUES else index.start, token) if tag else index.start
    return Masks(in_source, continues, span)


@dataclass(frozen=True)
class HeldOut:
    """Per token of the reference summaries: log probabilities, whether it ranked first, and its true tag.

    All are arrays of shape (tokens,). With C the set that the true tag allows, ``restricted`` is the log probability
    within C, ``gain`` is ``-log P(C)``, and ``first_given_tag`` says whether the token ranks first within C;
    ``restricted_to_span`` pretends that every tag is I. ``top_mass`` is the probability of the ten likeliest
    tokens, ``largest`` that of the first. ``seen`` counts the token in the training summaries, if they are known.
    """

    plain: np.ndarray
    mixture: np.ndarray
    first: np.ndarray
    tag: np.ndarray
    restricted: np.ndarray
    restricted_to_span: np.ndarray
    gain: np.ndarray
    first_given_tag: np.ndarray
    row: np.ndarray
    token: np.ndarray
    top_mass: np.ndarray
    largest: np.ndarray
    seen: np.ndarray | None = None


@torch.no_grad()
def held_out(model: Summarizer, rows: Rows, masks: Masks, *, batch: int = 50) -> HeldOut:
    """Return how well the model predicts the reference summaries, plain and with the copy mixture."""
    parts: list[list[Tensor]] = []
    for chosen in torch.arange(len(rows)).split(batch):
        tokens, prefix, lengths, targets, tags = rows.batch(chosen)
        hidden = model.hidden(tokens, prefix, lengths)
        at = targets != IGNORE
        row, position = at.nonzero(as_tuple=True)
        offset = position - (prefix[row] - 1)
        parts.append(_judge(model, hidden[at], targets[at], tags[at], masks, chosen[row], offset))
    columns = [torch.cat(column).numpy() for column in zip(*parts)]
    return HeldOut(*columns)


def _judge(
    model: Summarizer, hidden: Tensor, target: Tensor, tag: Tensor, masks: Masks, row: Tensor, offset: Tensor
) -> list[Tensor]:
    logits, tag_logits = model.transformer.logits(hidden), model.tags(hidden)
    in_source, continues, span = masks.in_source[row], masks.continues[row, offset], masks.span[row, offset]
    log_p = logits.log_softmax(-1)
    own = log_p.gather(-1, target[:, None])[:, 0]
    mixed = mix(logits, tag_logits, in_source, continues).gather(-1, target[:, None])[:, 0]
    everything = torch.ones_like(in_source)
    allowed = torch.stack([everything, in_source, span])[tag, torch.arange(len(tag))]
    inside = log_p.masked_fill(~allowed, -torch.inf)
    top = log_p.topk(10).values
    return [
        own, mixed, logits.argmax(-1) == target, tag, _within(logits, allowed, target),
        _within(logits, span, target), -inside.logsumexp(-1), inside.argmax(-1) == target, row,
        target, top.exp().sum(-1), top[:, 0].exp(),
    ]  # fmt: skip


def _within(logits: Tensor, allowed: Tensor, target: Tensor) -> Tensor:
    """Return the target's log probability among the allowed tokens; -inf where it is not one of them."""
    return (
        logits.masked_fill(~allowed, -1e30)
        .log_softmax(-1)
        .gather(-1, target[:, None])[:, 0]
        .masked_fill(~allowed.gather(-1, target[:, None])[:, 0], -torch.inf)
    )


def compound_embeddings(table: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """Return the start of new words' vectors: the mean of their pieces' (eq-summarization-compound).

    See chapter summarization.

    Parameters
    ----------
    table : float Tensor, shape (vocabulary, width)
    pieces : sequence of sequences of int
        Of each new word, at least one.

    Returns
    -------
    Tensor, shape (words, width)

    Raises
    ------
    ValueError
        If a word has no piece.

    Examples
    --------
    >>> compound_embeddings(torch.tensor([[0.0], [1.0], [5.0]]), [[1, 2], [0]]).tolist()
    [[3.0], [0.0]]
    """
    if not all(len(word) for word in pieces):
        raise ValueError("every new word needs at least one piece")
    offsets = np.cumsum([0, *map(len, pieces)])[:-1]
    flat = torch.tensor([piece for word in pieces for piece in word])
    return F.embedding_bag(flat, table, torch.from_numpy(offsets), mode="mean")


def add_words(
    model: Summarizer, pieces: Sequence[Sequence[int]], *, generator: torch.Generator | None = None
) -> Summarizer:
    """Return a copy of a model with more tokens, each starting as the mean of its pieces (eq-summarization-compound).

    See chapter summarization.

    Parameters
    ----------
    model : Summarizer
    pieces : sequence of sequences of int
        Of each new word; their ids follow the old ones.
    generator : torch.Generator, optional
        Draws the new vectors at the scale of the old ones instead; the biases remain means.

    Examples
    --------
    >>> model = add_words(Summarizer(50, layers=1, width=16, heads=2), [[7, 8], [9]])
    >>> model(torch.tensor([[51, 50, 7]]), torch.tensor([1]))[0].shape
    torch.Size([1, 3, 52])
    """
    larger = copy.deepcopy(model)
    table, bias = larger.transformer.tokens.detach(), larger.transformer.bias.detach()
    new = compound_embeddings(table, pieces)
    if generator is not None:
        new = table.std() * torch.randn(new.shape, generator=generator)
    larger.transformer.tokens = nn.Parameter(torch.cat([table, new]))
    larger.transformer.bias = nn.Parameter(torch.cat([bias, compound_embeddings(bias[:, None], pieces)[:, 0]]))
    return larger
