"""Figures repeat byte by byte, and tables and widgets carry their data as written."""

import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from explainers import plots


@pytest.fixture(autouse=True)
def agg(monkeypatch):
    with mpl.rc_context(), plt.ioff():
        mpl.use("agg")
        plots.setup()
        yield
        plt.close("all")


def svg(name, values):
    fig, ax = plots.figure(name)
    ax.plot(values)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def test_the_same_figure_gives_the_same_bytes_and_another_value_others():
    assert svg("a", [1, 2, 3]) == svg("a", [1, 2, 3])
    assert svg("a", [1, 2, 3]) != svg("a", [1, 2, 3.001])


def test_two_figures_do_not_share_ids():
    assert svg("a", [1, 2, 3]) != svg("b", [1, 2, 3])


def luminance(color):
    rgb = np.array(mpl.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("color", [*plots.COLORS.values(), plots.INK])
@pytest.mark.parametrize("background", ["#ffffff", "#121212"])
def test_every_colour_reads_on_white_and_on_black(color, background):
    high, low = sorted((luminance(color), luminance(background)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 3


def test_strip_draws_every_seed():
    _, ax = plots.figure("strip")
    plots.strip(ax, {"one": np.array([1.0, 2.0, 3.0]), "two": np.array([4.0])})
    assert [len(line.get_xdata()) for line in ax.lines[::2]] == [3, 1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]


def test_in_words_says_the_mean_of_each_row():
    rows = {"one, two": [1.0, 2.5], "tensor": torch.tensor([[0.5], [0.25]]), "number": -3}
    assert plots.in_words(rows) == "one, two 1.75; tensor 0.38; number -3.00"
    assert plots.in_words(rows, digits=0) == "one, two 2; tensor 0; number -3"


def test_table_escapes_and_counts():
    page = plots.table(["a", "b"], [("x<y", "1"), ("z", "2")], note="in %").data
    assert "x&lt;y" in page
    assert page.count("<tr>") == page.count("</tr>") == 3
    assert "<caption>in %</caption>" in page
    with pytest.raises(ValueError, match="the row 'z' has 3 cells, the header 2"):
        plots.table(["a", "b"], [("z", 1, 2)])


def test_table_sets_words_from_the_left():
    page = plots.table(["a", "b", "c"], [("x", 1, "long text")], words=["c"]).data
    assert "<td>1</td><td class='words'>long text</td>" in page
    assert "<th scope='col'>b</th><th scope='col' class='words'>c</th>" in page
    with pytest.raises(ValueError, match=r"words names \['d'\], the columns are \['a', 'b'\]"):
        plots.table(["a", "b"], [("z", 1)], words=["d"])


def test_widget_fills_its_placeholders(tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "w.html").write_text("<script>const p = /*PRESETS*/[];</script>")
    monkeypatch.setattr(plots.resources, "files", lambda package: tmp_path)
    page = plots.widget("w.html", presets=[{"name": "</script>"}]).data
    start, end = page.index("= ") + 2, page.index(";</script>")
    assert json.loads(page[start:end]) == [{"name": "</script>"}]
    assert page.count("</script>") == 1
    with pytest.raises(ValueError, match="no placeholder"):
        plots.widget("w.html", other=[])
    with pytest.raises(FileNotFoundError, match=r"holds no 'v\.html'"):
        plots.widget("v.html")


def moving(name="demo-line", **options):
    fig, ax = plots.figure(name, figsize=(2, 1))

    def draw(height):
        ax.clear()
        ax.plot([0, height])

    return plots.player(name, fig, draw, range(3), alt='a "line" that rises', **options).data


def test_player_repeats_byte_by_byte_and_holds_every_frame():
    page = moving(labels=["low", "</script>", "high"], start=1)
    assert page == moving(labels=["low", "</script>", "high"], start=1)
    frames = json.loads(page.partition("frames = ")[2].partition(", labels")[0])
    assert len(set(frames)) == 3
    assert f'src="data:image/png;base64,{frames[1]}" alt="a &quot;line&quot; that rises"' in page
    assert page.count("</script>") == 1
    assert plt.get_fignums() == []


@pytest.mark.parametrize("options", [{"labels": ["one"]}, {"start": 3}, {"start": -1}])
def test_player_refuses_what_does_not_fit(options):
    with pytest.raises(ValueError, match="got 3 frames"):
        moving(**options)


def test_player_refuses_a_name_that_is_no_id():
    with pytest.raises(ValueError, match="name must be"):
        moving("Demo line")
