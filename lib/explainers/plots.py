"""One look for all figures: SVG that nbval can compare, colours that survive colour-blindness and a dark page."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's hues, moved to the middle of the lightness scale so that they read on white and on black.
COLORS = {
    "blue": "#2f7fbf",
    "orange": "#d9790b",
    "green": "#1b9272",
    "red": "#d1495b",
    "purple": "#9a6bb8",
    "grey": "#7d8590",
}
INK = "#5f6670"
SEQUENTIAL = "cividis"

_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": mpl.cycler(color=list(COLORS.values())),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 96,
    "figure.facecolor": "none",
    "figure.figsize": (7.2, 3.6),
    "axes.facecolor": "none",
    "font.size": 10,
    "grid.color": COLORS["grey"],
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def setup() -> None:
    """Make every figure of a notebook an SVG without date or random ids, in the book's style.

    Call it once, in the first cell of a chapter.  Two runs of the same plot then give the same bytes.
    """
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    mpl.rcParams.update(_STYLE)
    set_matplotlib_formats("svg", metadata={"Date": None, "Creator": None})


def figure(name: str, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[plt.Figure, Any]:
    """Return ``plt.subplots(rows, columns, **kwargs)``; ``name`` makes the ids inside the SVG the figure's own.

    One figure a cell: the salt for the ids is read when the cell ends.
    """
    mpl.rcParams["svg.hashsalt"] = name
    return plt.subplots(rows, columns, **kwargs)


def strip(ax: plt.Axes, values: Mapping[str, np.ndarray], *, color: str = COLORS["blue"]) -> None:
    """Draw one row of dots per entry, a dot for each seed, with a tick at the mean.

    Parameters
    ----------
    ax
        The axes to draw on; the names become the labels of its y axis, first on top.
    values
        Maps the name of a row to its values, shape ``(seeds,)``.
    color
        The colour of the dots.
    """
    for row, (_, seeds) in enumerate(values.items()):
        spread = np.linspace(-0.16, 0.16, len(seeds)) if len(seeds) > 1 else [0.0]
        ax.plot(seeds, row + np.asarray(spread), "o", ms=5, alpha=0.75, color=color, mec="none")
        ax.plot([np.mean(seeds)] * 2, [row - 0.3, row + 0.3], color=INK, lw=1.5)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="x")


def in_words(values: Mapping[str, Any], *, digits: int = 2) -> str:
    """Return the mean of each row, in words for an alternative text to quote.

    Parameters
    ----------
    values
        Maps the name of a row to its values, of any shape.
    digits
        How many decimals a mean is given.

    Examples
    --------
    >>> in_words({"plain": [0.25, 0.5], "weighted": 0.75})
    'plain 0.38; weighted 0.75'
    """
    return "; ".join(f"{name} {np.asarray(row).mean():.{digits}f}" for name, row in values.items())


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "", *, words: Collection[str] = ()):
    """Return a table of numbers as an ``IPython.display.HTML`` object.

    Parameters
    ----------
    header
        One title per column.
    rows
        The cells, already formatted; the first of each row is its name.
    note
        A sentence below the table, such as the unit.
    words
        Titles of the columns that hold words: they are set from the left, numbers from the right.

    Raises
    ------
    ValueError
        If a row is not as long as the header, or ``words`` names no column.
    """
    from IPython.display import HTML

    unknown = set(words) - set(header)
    if unknown:
        raise ValueError(f"words names {sorted(unknown)}, the columns are {list(header)}")
    style = [" class='words'" if title in words else "" for title in header]
    body = ""
    for name, *cells in rows:
        if len(cells) + 1 != len(header):
            raise ValueError(f"the row {name!r} has {len(cells) + 1} cells, the header {len(header)}")
        values = "".join(f"<td{kind}>{escape(str(cell))}</td>" for kind, cell in zip(style[1:], cells, strict=True))
        body += f"<tr><th scope='row'>{escape(str(name))}</th>{values}</tr>"
    head = "".join(f"<th scope='col'{kind}>{escape(title)}</th>" for kind, title in zip(style, header, strict=True))
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return HTML(f"<table class='numbers'>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def widget(asset: str, **data: Any):
    """Return an interactive figure from ``explainers/assets`` as an ``IPython.display.HTML`` object.

    Parameters
    ----------
    asset
        The file's name; it holds plain HTML, CSS and JavaScript, and asks no other host for anything.
    data
        For each keyword ``name`` the placeholder ``/*NAME*/[]`` is replaced by the value as JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such asset.
    ValueError
        If the asset has no placeholder of that name.
    """
    from IPython.display import HTML

    source = resources.files("explainers").joinpath("assets", asset)
    if not source.is_file():
        raise FileNotFoundError(f"explainers/assets holds no {asset!r}")
    page = source.read_text(encoding="utf-8")
    for name, value in data.items():
        slot = f"/*{name.upper()}*/[]"
        if slot not in page:
            raise ValueError(f"{asset} has no placeholder {slot}")
        # "</" would end the script that the data stands in.
        page = page.replace(slot, json.dumps(value, sort_keys=True).replace("</", "<\\/"))
    return HTML(page)


_PLAYER = """<div class="player" id="player-{name}">
<img src="{first}" alt="{alt}" width="{width}">
<div class="player-controls"><button type="button">Play</button>
<input type="range" min="0" max="{last}" value="{start}" step="1" aria-label="frame of the figure">
<output>{label}</output></div>
<script>(() => {{
  const box = document.getElementById("player-{name}"), frames = {frames}, labels = {labels};
  const [image, button, slider, output] = ["img", "button", "input", "output"].map((tag) => box.querySelector(tag));
  let timer = null;
  const show = (at) => {{
    slider.value = at; slider.setAttribute("aria-valuetext", labels[at]); output.textContent = labels[at];
    image.src = "data:image/png;base64," + frames[at];
  }};
  const stop = () => {{ clearInterval(timer); timer = null; button.textContent = "Play"; }};
  button.addEventListener("click", () => {{
    if (timer) return stop();
    if (+slider.value === frames.length - 1) show(0);
    button.textContent = "Pause";
    timer = setInterval(() => {{ +slider.value < frames.length - 1 ? show(+slider.value + 1) : stop(); }}, {interval});
  }});
  slider.addEventListener("input", () => {{ stop(); show(+slider.value); }});
}})();</script></div>"""


def player(
    name: str, fig: plt.Figure, draw: Callable[[Any], Any], frames: Iterable[Any], *, alt: str,
    labels: Sequence[str] | None = None, start: int = 0, interval: int = 250, dpi: int = 96,
):  # fmt: skip
    """Return a figure that the reader plays or drags, as an ``IPython.display.HTML`` object; closes ``fig``.

    The page needs no server: it holds one PNG per frame, and shows frame ``start`` where scripts do not run.

    Parameters
    ----------
    name
        Unique in the book, such as ``"flooding-basin"``; lower-case letters, digits and hyphens.
    fig
        The figure that ``draw`` changes, from :func:`figure`.
    draw
        Called with each entry of ``frames``; clears and redraws what moves.
    frames
        What to draw; 20 to 40 frames of 7 by 4 inches are half a megabyte.
    alt
        What the moving figure shows, in words.
    labels
        The words beside the slider, one per frame; by default ``str(frame)``.
    start
        The number of the frame that is shown first.
    interval
        Milliseconds between frames.

    Raises
    ------
    ValueError
        If the name is malformed, there is no frame, or there are not as many labels as frames.
    """
    from IPython.display import HTML

    frames = list(frames)
    words = [str(frame) for frame in frames] if labels is None else list(labels)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name must be lower-case letters, digits and hyphens, got {name!r}")
    if not frames or len(words) != len(frames) or not 0 <= start < len(frames):
        raise ValueError(f"got {len(frames)} frames, {len(words)} labels and start={start}")
    images = []
    for frame in frames:
        draw(frame)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        images.append(base64.b64encode(buffer.getvalue()).decode())
    width = round(fig.get_figwidth() * 96)
    plt.close(fig)
    return HTML(
        _PLAYER.format(
            name=name,
            first=f"data:image/png;base64,{images[start]}",
            alt=escape(alt, quote=True),
            width=width,
            last=len(frames) - 1,
            start=start,
            label=escape(words[start]),
            frames=json.dumps(images),
            labels=json.dumps(words).replace("</", "<\\/"),
            interval=interval,
        )
    )
