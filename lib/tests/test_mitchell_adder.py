"""The bit adder of chapter mitchell, driven in a browser: its words are those of `explainers.mitchell`."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from explainers import mitchell, plots

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

PAIRS = [(12.3, 4.56), (3, 3), (1.25, 1.5), (-1.5, 1.5), (0, 0.5), (1e30, 1e30), (1e-40, 1e10)]
ROUTINES = {"raw": mitchell.raw_multiply, "correct": mitchell.multiply}


def words(values: object) -> np.ndarray:
    return np.float32(values).view(np.uint32)


def product(mode: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the words of the library's product of words."""
    return ROUTINES[mode](a.view(np.float32), b.view(np.float32)).view(np.uint32)


def preset(a: float, b: float) -> dict[str, str]:
    """Return an entry of the widget's list of examples."""
    pair = words([a]), words([b])
    found = {"a_word": pair[0], "b_word": pair[1], "raw_word": product("raw", *pair)}
    found["mitchell_word"] = product("correct", *pair)
    return {"name": f"{a:g} × {b:g}", "a": f"{a:g}", "b": f"{b:g}"} | {
        key: f"{word[0]:08x}" for key, word in found.items()
    }


PRESETS = [preset(*pair) for pair in PAIRS]


def write_page(path: Path, presets: list[dict[str, str]]) -> str:
    """Write the filled widget as a page of its own; return its address."""
    widget = plots.widget("mitchell_bit_adder.html", presets=presets).data
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    path.write_text(f'<!doctype html><html lang="en">{view}<title>t</title>{widget}</html>', encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("adder") / "adder.html", PRESETS)


@pytest.fixture
def page(browser: sync_api.Browser, address: str) -> Iterator[sync_api.Page]:
    """The widget without animation; fails on an error, a console message or a request to elsewhere."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 800, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(5_000)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: complaints.append(request.url) if request.url != address else None)
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def shown(page: sync_api.Page) -> str:
    """Return the word that the row of the result shows, read off its 32 cells."""
    bits = "".join(page.locator('[data-row="sum"] i').all_text_contents())
    return f"{int(bits, 2):08x}"


def says(page: sync_api.Page, name: str) -> str:
    return page.locator(f'[data-says="{name}"]').text_content()


def add(page: sync_api.Page, a: object, b: object, mode: str = "raw") -> str:
    """Type two numbers, press Add and return the word on show."""
    page.check(f'input[value="{mode}"]')
    page.fill("#bit-adder-p", str(a))
    page.fill("#bit-adder-q", str(b))
    page.click(".bit-adder-add")
    return shown(page)


@pytest.mark.parametrize("mode", ROUTINES)
@pytest.mark.parametrize("entry", PRESETS, ids=lambda entry: entry["name"])
def test_every_example_shows_the_words_of_the_library(page, entry, mode):
    page.check(f'input[value="{mode}"]')
    page.click(f'button:text-is("{entry["name"]}")')
    rows = {name: "".join(page.locator(f'[data-row="{name}"] i').all_text_contents()) for name in "pq"}
    assert {name: f"{int(bits, 2):08x}" for name, bits in rows.items()} == {
        "p": entry["a_word"],
        "q": entry["b_word"],
    }
    assert shown(page) == entry["raw_word" if mode == "raw" else "mitchell_word"]


def test_the_page_checks_the_examples_itself(browser, page, tmp_path):
    assert "7 of 7 agree" in says(page, "check")
    wrong = [*PRESETS[:-1], PRESETS[-1] | {"mitchell_word": "0d000000"}]
    other = browser.new_page()
    other.goto(write_page(tmp_path / "wrong.html", wrong))
    assert "6 of 7 agree" in says(other, "check")
    other.close()


@pytest.mark.parametrize("mode", ROUTINES)
def test_words_of_every_kind_agree_with_the_library(page, mode):
    rng = np.random.default_rng(0)
    special = [0, 1, 2, 0x00400000, 0x007FFFFF, 0x00800000, 0x3F7FFFFF, 0x3F800000, 0x3FC00000, 0x40000000]
    special += [0x1F800000, 0x20000001, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000]
    special = np.array([s | sign for s in special for sign in (0, 1 << 31)], dtype=np.uint32)
    a, b = (np.array(side, dtype=np.uint32) for side in zip(*itertools.product(special, repeat=2)))
    # Products near the smallest number are the ones that are rounded
    small = rng.integers(0x1E000000, 0x21000000, (2, 2000), dtype=np.uint32)
    a, b = np.concatenate([np.stack([a, b]), rng.integers(0, 2**32, (2, 4000), dtype=np.uint32), small], axis=1)
    script = "([a, b, mode]) => a.map((w, i) => document.getElementById('bit-adder').product(w, b[i], mode))"
    got = np.array(page.evaluate(script, [a.tolist(), b.tolist(), mode]), dtype=np.uint32)
    np.testing.assert_array_equal(got, product(mode, a, b))


def test_typed_numbers_agree_with_the_library(page):
    rng = np.random.default_rng(1)
    a, b = (np.ldexp(rng.uniform(-1, 1, (2, 12)), rng.integers(-80, 60, (2, 12)))).astype(np.float32)
    for mode in ROUTINES:
        for p, q in zip(a, b):
            assert add(page, p, q, mode) == f"{product(mode, words([p]), words([q]))[0]:08x}"


def test_what_is_said_about_a_product(page):
    add(page, 12.3, 4.56)
    assert [says(page, name) for name in ("product", "truth", "error")] == ["53.68", "56.088", "−4.29 %"]
    assert "x + y < 1" in says(page, "note")
    assert "relative error −4.29 %" in says(page, "live")
    add(page, 3, -3)
    assert [says(page, name) for name in ("product", "truth", "error")] == ["−8", "−9", "−11.11 %"]
    assert "x + y ≥ 1" in says(page, "note")


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (0, 0.5, "zero has no logarithm"),
        ("inf", 2, "infinite or not a number"),
        ("nan", 2, "infinite or not a number"),
        ("1e-40", 2, "subnormal"),
        ("1e30", "1e30", "too large for float32"),
        ("1e-30", "1e-10", "below the normal numbers"),
    ],
)
def test_the_note_says_why_the_sum_is_wrong(page, a, b, why):
    add(page, a, b, "raw")
    assert why in says(page, "note")
    assert "The bare sum is wrong here; switch to “Mitchell, done right”." in says(page, "note")
    page.get_by_label("Mitchell, done right").check()
    assert "The sum is not used" in says(page, "note")


@pytest.mark.parametrize("mode", ROUTINES)
@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("inf", 1, "infinite or not a number"),
        ("nan", 1, "infinite or not a number"),
        (0, 1, "zero has no logarithm"),
        ("1e-40", 1, "subnormal"),
        ("1.7014118e38", 2, "too large for float32"),
    ],
)
def test_the_note_does_not_explain_by_logarithms_what_has_none(page, a, b, why, mode):
    add(page, a, b, mode)
    assert why in says(page, "note")
    assert "The bare sum happens to be right." in says(page, "note")
    assert "carry" not in says(page, "note")


@pytest.mark.parametrize(
    ("a", "b", "mode", "product", "truth", "error"),
    [
        ("-0", 3, "correct", "−0", "−0", "–"),
        (0, -2.5, "correct", "−0", "−0", "–"),
        ("-0", -3, "correct", "0", "0", "–"),
        ("inf", -1, "correct", "−inf", "−inf", "–"),
        ("nan", 1, "correct", "NaN", "NaN", "–"),
        (3, 4, "correct", "12", "12", "0.00 %"),
        (-3, 4, "correct", "−12", "−12", "0.00 %"),
        ("1e30", "1e30", "raw", "−8.017501e−18", "1e+60", "−100.00 %"),
        ("1e-30", "1e-30", "raw", "−110630110000000000", "1e−60", "−1.1 × 10⁷⁹ %"),
        ("1e-40", "1e-5", "raw", "−6.849818e+33", "9.999946e−46", "−6.8 × 10⁸⁰ %"),
    ],
)
def test_truth_and_error_of_unusual_products(page, a, b, mode, product, truth, error):
    add(page, a, b, mode)
    for name, want in (("product", product), ("truth", truth), ("error", error)):
        assert want is None or says(page, name) == want
    assert says(page, "error").endswith((" %", "–"))  # one unit for all sizes


def test_the_columns_add_up(page):
    add(page, 12.3, 4.56)
    rows = {
        name: [int(bit.strip() or 0) for bit in page.locator(f'[data-row="{name}"] i').all_text_contents()]
        for name in ("carry", "p", "q", "constant", "sum")
    }
    columns = np.array([rows[name] for name in ("carry", "p", "q", "constant")]).sum(0)
    np.testing.assert_array_equal(columns % 2, rows["sum"])
    np.testing.assert_array_equal(columns[1:] // 2, rows["carry"][:-1])


def test_text_that_is_no_number(page):
    page.fill("#bit-adder-p", "three")
    page.click(".bit-adder-add")
    assert page.get_attribute("#bit-adder-p", "aria-invalid") == "true"
    assert page.get_attribute("#bit-adder-q", "aria-invalid") == "false"
    assert "Type two numbers" in says(page, "note")
    assert page.locator('[data-row="sum"]').get_attribute("aria-label") == "not added yet"
    assert add(page, "−3", "+3") == f"{words([-8])[0]:08x}"


@pytest.mark.parametrize(("a", "b", "wrong"), [("three", 5, "p"), (5, "", "q"), ("1e", "0x3", "pq")])
def test_no_old_bits_stay_for_text_that_is_no_number(page, a, b, wrong):
    add(page, 12.3, 4.56)
    page.fill("#bit-adder-p", str(a))
    page.fill("#bit-adder-q", str(b))
    for name in "pq":
        bits = "".join(page.locator(f'[data-row="{name}"] i').all_text_contents())
        if name in wrong:
            assert (bits.strip(), says(page, name)) == ("", "not a number")
            assert "not a number" in page.locator(f'[data-row="{name}"]').get_attribute("aria-label")
        else:
            assert int(bits, 2) == words([5])[0]
    assert "".join(page.locator('[data-row="sum"] i').all_text_contents()).strip() == ""
    assert [says(page, name).strip() for name in ("product", "truth", "error")] == ["", "", ""]
    assert not page.locator(".bit-adder-dot").is_visible()
    assert page.locator('button[aria-pressed="true"]').count() == 0


def test_the_map_can_be_used_when_the_text_is_no_number(page):
    page.fill("#bit-adder-p", "three")
    frame = page.locator(".bit-adder-map svg").bounding_box()
    page.mouse.click(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    assert [page.input_value("#bit-adder-p"), page.input_value("#bit-adder-q")] == ["1.5", "6"]


def test_the_dot_is_dragged_and_steered_by_keys(page):
    add(page, 12.3, 4.56)
    frame, dot = page.locator(".bit-adder-map svg").bounding_box(), page.locator(".bit-adder-dot").bounding_box()
    page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2, steps=5)
    page.mouse.up()
    assert [page.input_value("#bit-adder-p"), page.input_value("#bit-adder-q")] == ["12", "6"]  # exponents stay
    assert says(page, "error") == "−11.11 %"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert [page.input_value("#bit-adder-p"), page.input_value("#bit-adder-q")] == ["11.875", "5.9375"]
    add(page, 0, 3)
    assert not page.locator(".bit-adder-dot").is_visible()


def test_everything_is_reached_by_the_keyboard(page):
    page.focus("#bit-adder-p")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    assert shown(page) == f"{words([8])[0]:08x}"
    focused = "document.activeElement.getAttribute('class') || document.activeElement.type"
    reached = []
    for _ in range(3 + len(PRESETS)):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
    assert reached == ["bit-adder-add", "radio", *["button"] * len(PRESETS), "bit-adder-dot"]


def test_the_sum_appears_bit_by_bit_unless_motion_is_unwelcome(browser, address):
    context = browser.new_context(reduced_motion="no-preference")
    page = context.new_page()
    page.goto(address)
    page.click(f'button:text-is("{PRESETS[1]["name"]}")')
    assert page.locator(".bit-adder").get_attribute("data-word") is None
    assert says(page, "kind") == "adding, from the right"
    page.wait_for_selector("#bit-adder[data-word]", timeout=10_000)
    assert shown(page) == PRESETS[1]["raw_word"]
    context.close()


@pytest.mark.parametrize("entry", PRESETS, ids=lambda entry: entry["name"])
def test_done_right_shows_no_sum_that_it_does_not_use(browser, address, entry):
    """What is seen from the click on is the sum only where the sum is the result."""
    context = browser.new_context(reduced_motion="no-preference")
    page = context.new_page()
    page.goto(address)
    page.check('input[value="correct"]')
    page.click(f'button:text-is("{entry["name"]}")')
    if entry["raw_word"] == entry["mitchell_word"]:
        assert says(page, "kind") == "adding, from the right"
    else:
        assert says(page, "kind") == "word of the result (not the sum)"
        assert shown(page) == entry["mitchell_word"]
    page.wait_for_selector("#bit-adder[data-word]", timeout=10_000)
    assert shown(page) == entry["mitchell_word"]
    context.close()


@pytest.mark.parametrize("width", [390, 800])
def test_the_page_does_not_jump_while_adding(browser, address, width):
    context = browser.new_context(reduced_motion="no-preference", viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(address)
    height = "document.getElementById('bit-adder').getBoundingClientRect().height"
    for entry in PRESETS[::3]:
        before = page.evaluate(height)
        page.click(f'button:text-is("{entry["name"]}")')
        during = page.evaluate(height)
        assert page.locator(".bit-adder").get_attribute("data-word") is None
        page.wait_for_selector("#bit-adder[data-word]", timeout=10_000)
        page.get_by_label("Mitchell, done right").check()
        assert [during, page.evaluate(height)] == [before, before]
        page.get_by_label("raw one-liner").check()
        assert page.evaluate(height) == before
    page.fill("#bit-adder-p", "three")
    assert page.evaluate(height) == before
    context.close()


def test_nothing_sticks_out_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    for entry in PRESETS:
        page.click(f'button:text-is("{entry["name"]}")')
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_scripts_a_sentence_stands_in_its_place(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator(".bit-adder-plain").is_visible()
    assert not page.locator(".bit-adder-body").is_visible()
    context.close()
