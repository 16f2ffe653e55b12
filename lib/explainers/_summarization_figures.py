"""The drawings of chapter summarization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from . import plots
from ._summarization_copy import BEGINS, CONTINUES, NOT_COPIED, Hypothesis, copy_tags
from ._summarization_metric import lcs_alignment
from ._summarization_models import HeldOut

TAG_COLORS = {NOT_COPIED: plots.COLORS["grey"], BEGINS: plots.COLORS["blue"], CONTINUES: plots.COLORS["green"]}
TAG_NAMES = {NOT_COPIED: "O", BEGINS: "B", CONTINUES: "I"}
_SPANS = ("blue", "orange", "green", "purple", "red")
_ADVANCE = 0.602  # em, of the monospace font that comes with matplotlib
_LINE = 1.9  # height of a line of text, in widths of a character

Box = tuple[float, float, float]  # left end, right end, height


def _wrap(words: Sequence[str], columns: int, top: float, spacing: float = _LINE) -> list[Box]:
    """Place words in lines of at most ``columns`` characters, the first line at height ``top``."""
    boxes, at, line = [], 0, 0
    for word in words:
        if at + len(word) > columns:
            at, line = 0, line + 1
        boxes.append((at, at + len(word), top - spacing * line))
        at += len(word) + 1
    return boxes


def draw_copy(ax: Axes, source: Sequence[str], summary: Sequence[str], columns: int = 62) -> None:
    """Draw a source, its summary below, and a ribbon from each copied span to its place in the source."""
    source_boxes = _wrap(source, columns, 0.0)
    bottom = source_boxes[-1][2]
    summary_boxes = _wrap(summary, columns, bottom - 7.5, 2.0 * _LINE)
    low = summary_boxes[-1][2]
    figure = ax.figure
    figure.set_layout_engine("none")
    ax.set_position((0.01, 0.01, 0.98, 0.98))
    size = 0.98 * figure.get_figwidth() * 72 / (columns + 1) / _ADVANCE
    height = (3.4 - low + 2.0) * size * _ADVANCE / 72
    figure.set_figheight(height)
    ax.set(xlim=(-0.5, columns + 0.5), ylim=(low - 2.0, 3.4))
    ax.axis("off")
    style = {"family": "DejaVu Sans Mono", "va": "center", "ha": "left", "fontsize": size * 0.97}
    ax.text(0, 2.4, "source", fontsize=size * 0.8, va="center")
    ax.text(0, summary_boxes[0][2] + 1.9, "summary, with copy tags", fontsize=size * 0.8, va="center")
    colors = _spans(ax, source, summary, source_boxes, summary_boxes)
    for side, boxes, words in (("source", source_boxes, source), ("summary", summary_boxes, summary)):
        for n, ((left, _, y), word) in enumerate(zip(boxes, words)):
            ax.text(left, y, word, color=colors.get((side, n), plots.INK), **style)
    for (left, right, y), tag in zip(summary_boxes, copy_tags(source, summary)[1]):
        ax.text((left + right) / 2, y - 1.5, TAG_NAMES[tag], ha="center", va="center", fontsize=size * 0.7)


def _spans(
    ax: Axes, source: Sequence[str], summary: Sequence[str], source_boxes: list[Box], summary_boxes: list[Box]
) -> dict[tuple[str, int], str]:
    """Draw the ribbons and return the colour of each copied word."""
    runs: list[list[tuple[int, int]]] = []
    for pair in lcs_alignment(source, summary):
        if runs and runs[-1][-1] == (pair[0] - 1, pair[1] - 1):
            runs[-1].append(pair)
        else:
            runs.append([pair])
    colors = {}
    for n, run in enumerate(runs):
        color = plots.COLORS[_SPANS[n % len(_SPANS)]]
        for i, j in run:
            colors["source", i] = colors["summary", j] = color
        pieces = _pieces([source_boxes[i] for i, _ in run])
        target = _pieces([summary_boxes[j] for _, j in run])[0]
        for left, right, y in [*pieces, *_pieces([summary_boxes[j] for _, j in run])]:
            box = FancyBboxPatch(
                (left - 0.2, y - 0.75), right - left + 0.4, 1.5, boxstyle="round,pad=0,rounding_size=0.3"
            )
            box.set(facecolor=color, alpha=0.16, lw=0)
            ax.add_patch(box)
        _ribbon(ax, pieces[-1], target, color)
    return colors


def _pieces(boxes: list[Box]) -> list[Box]:
    """Join boxes that stand in one line."""
    joined: list[Box] = []
    for left, right, y in boxes:
        if joined and joined[-1][2] == y:
            joined[-1] = (joined[-1][0], right, y)
        else:
            joined.append((left, right, y))
    return joined


def _ribbon(ax: Axes, above: Box, below: Box, color: str) -> None:
    (a, b, top), (c, d, bottom) = above, below
    top, bottom = top - 0.8, bottom + 0.8
    middle = (top + bottom) / 2
    corners = [
        (a, top),
        (a, middle),
        (c, middle),
        (c, bottom),
        (d, bottom),
        (d, middle),
        (b, middle),
        (b, top),
        (a, top),
    ]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path(corners, codes), facecolor=color, alpha=0.22, lw=0))


def draw_lattice(ax: Axes, levels: Sequence[Sequence[Hypothesis]], source: Sequence[Any], names: Sequence[str]) -> None:
    """Draw a beam: column t holds the hypotheses of t tokens, best on top, each tied to the one it continues.

    Colours show the tag; a ring in red marks a copied run that the source does not hold.
    """
    for t, level in enumerate(levels, 1):
        before = levels[t - 2] if t > 1 else []
        for row, path in enumerate(level):
            for old, parent in enumerate(before):
                if parent.tokens == path.tokens[:-1]:
                    line = {"arrowstyle": "-", "color": plots.COLORS["grey"], "lw": 1.2, "shrinkA": 10, "shrinkB": 10}
                    ax.annotate("", (t, row), (t - 1, old), arrowprops=line, zorder=1)
            color = TAG_COLORS[path.tags[-1]]
            broken = not _holds(source, _last_run(path))
            ring = plots.COLORS["red"] if broken else color
            ax.plot(t, row, "o", ms=19, mfc=(*to_rgb(color), 0.15), mec=ring, mew=4 if broken else 1.5, zorder=2)
            name = names[path.tokens[-1]]
            ax.text(t, row, name, color=color, weight="bold", ha="center", va="center_baseline", fontsize=12, zorder=3)
    ax.set_ylim(max(map(len, levels)) - 0.5, -0.5)
    ax.set(
        xlim=(0.6, len(levels) + 0.4),
        xticks=range(1, len(levels) + 1),
        yticks=range(max(map(len, levels))),
        xlabel="token",
        ylabel="place in the beam",
    )
    ax.set_yticklabels(range(1, max(map(len, levels)) + 1))


def _last_run(path: Hypothesis) -> list[int]:
    """Return the tokens of the copied run that the last token belongs to."""
    run: list[int] = []
    for token, tag in zip(reversed(path.tokens), reversed(path.tags)):
        if tag == NOT_COPIED:
            break
        run.append(token)
        if tag == BEGINS:
            break
    return run[::-1]


def copied_runs(path: Hypothesis) -> list[list[int]]:
    """Return every run B I* of a hypothesis.

    >>> copied_runs(Hypothesis((7, 8, 9, 7), (1, 2, 0, 1), 0.0))
    [[7, 8], [7]]
    """
    runs: list[list[int]] = []
    for at, tag in enumerate(path.tags):
        if tag == NOT_COPIED:
            continue
        if tag == BEGINS or not runs or path.tags[at - 1] == NOT_COPIED:
            runs.append([])
        runs[-1].append(path.tokens[at])
    return runs


def _holds(source: Sequence[Any], run: Sequence[Any]) -> bool:
    return any(list(source[at : at + len(run)]) == list(run) for at in range(len(source) - len(run) + 1))


def draw_pairs(
    ax: Axes, runs: Sequence[HeldOut], groups: Mapping[str, Callable[[HeldOut], np.ndarray]], fields: Mapping[str, str],
    sign: int = 1,
) -> None:  # fmt: skip
    """Draw two rows of dots for each group of tokens, a dot a run: the mean of one field in grey, of another in blue.

    ``groups`` maps names to functions that select tokens of a run, ``fields`` maps labels to names of arrays.
    """
    for (label, name), color, shift in zip(fields.items(), ("grey", "blue"), (-0.15, 0.15)):
        for row, kept in enumerate(groups.values()):
            values = [sign * getattr(run, name)[kept(run)].mean() for run in runs]
            dots = {"ms": 5, "alpha": 0.75, "mec": "none", "color": plots.COLORS[color]}
            ax.plot(values, [row + shift] * len(values), "o", label=None if row else label, **dots)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 0.98), ncols=2, borderaxespad=0)


def draw_water(axes: Sequence[Axes], q: np.ndarray, k: int, head: int, level: float, logits: np.ndarray) -> None:
    """Draw token probabilities with the water level of ``k``, and logits that gradient descent found."""
    upper, lower = axes
    rank = np.arange(1, len(q) + 1)
    upper.clear()
    upper.loglog(rank, q, color=plots.COLORS["grey"], lw=3, alpha=0.6, label="true probability q")
    seen = np.where(rank <= head, q, level)
    upper.loglog(rank, seen, color=plots.COLORS["blue"], lw=2, label="what the loss sees")
    upper.axhline(level, color=plots.COLORS["orange"], lw=1.2, ls="--", label="water level θ")
    upper.set(xlabel="rank of the token", ylabel="probability", ylim=(3e-6, 1.5), xlim=(0.8, 2500))
    upper.set_title(f"k = {k}: {head} token{'s' if head != 1 else ''} above the level", fontsize=10)
    upper.legend(loc="lower left", fontsize=9)
    lower.clear()
    aim = np.log(q) - np.log(q[max(head - 1, 0)] if head else q[0])
    shift = logits[head:].mean() if head < len(q) else 0.0
    lower.semilogx(rank, aim, color=plots.COLORS["grey"], lw=3, alpha=0.6, label="log q, shifted")
    lower.semilogx(rank, logits - shift, ".", ms=3, color=plots.COLORS["blue"], label="logits found by descent")
    lower.set(xlabel="rank of the token", ylabel="logit (nats)", ylim=(-9, 6), xlim=(0.8, 2500))
    lower.legend(loc="upper right", fontsize=9)


def bias_descent(q: np.ndarray, k: int, steps: int = 3000) -> np.ndarray:
    """Return logits that gradient descent on the expected sparse loss of one distribution finds (float64)."""
    logits = np.zeros(len(q))
    for step in range(steps):
        top = np.argpartition(logits, -k)[-k:]
        power = np.exp(logits[top] - logits[top].max())
        slope = -q.copy()
        slope[top] += power / power.sum()
        logits = logits - (20 * (1 - step / steps) + 1e-3) * slope
    return logits
