"""The drawings of chapter summarization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from . import plots
from ._summarization_copy import BEGINS, CONTINUES, NOT_COPIED, Hypothesis, copy_tags
from ._summarization_metric import lcs_alignment

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
                    ax.plot([t - 1, t], [old, row], color=plots.COLORS["grey"], lw=1.2, zorder=1)
            color = TAG_COLORS[path.tags[-1]]
            broken = not _holds(source, _last_run(path))
            ring = plots.COLORS["red"] if broken else color
            ax.plot(t, row, "o", ms=17, mfc=color, mec=ring, mew=3 if broken else 0, zorder=2)
            ax.text(t, row, names[path.tokens[-1]], color="#f4f4f4", ha="center", va="center", fontsize=10, zorder=3)
    ax.set_ylim(max(map(len, levels)) - 0.5, -0.5)
    ax.set(
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


def draw_water(axes: Sequence[Axes], q: np.ndarray, k: int, head: int, level: float, logits: np.ndarray) -> None:
    """Draw token probabilities with the water level of ``k``, and logits that gradient descent found."""
    left, right = axes
    rank = np.arange(1, len(q) + 1)
    left.clear()
    left.loglog(rank, q, color=plots.COLORS["grey"], lw=3, alpha=0.6, label="true probability q")
    seen = np.where(rank <= head, q, level)
    left.loglog(rank, seen, color=plots.COLORS["blue"], lw=2, label="what the loss sees")
    left.axhline(level, color=plots.COLORS["orange"], lw=1.2, ls="--", label="water level θ")
    left.set(xlabel="rank of the token", ylabel="probability", ylim=(3e-6, 1.5), xlim=(0.8, 2500))
    left.set_title(f"k = {k}: {head} token{'s' if head != 1 else ''} above the level", fontsize=10)
    left.legend(loc="lower left", fontsize=8)
    right.clear()
    aim = np.log(q) - np.log(q[max(head - 1, 0)] if head else q[0])
    shift = logits[head:].mean() if head < len(q) else 0.0
    right.semilogx(rank, aim, color=plots.COLORS["grey"], lw=3, alpha=0.6, label="log q, shifted")
    right.semilogx(rank, logits - shift, ".", ms=3, color=plots.COLORS["blue"], label="logits found by descent")
    right.set(xlabel="rank of the token", ylabel="logit (nats)", ylim=(-9, 6), xlim=(0.8, 2500))
    right.legend(loc="upper right", fontsize=8)


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
