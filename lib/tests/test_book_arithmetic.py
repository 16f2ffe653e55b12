r"""Worked arithmetic: what a formula says about numbers alone is read as a mathematician reads it, and judged."""

from __future__ import annotations

import math

import pytest

from book.arithmetic import statements, value


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (r"2^{-6} \times 1.125", 1.125 / 64),
        (r"-0.3 \log 0.3 - 0.25 \log 0.25", -0.3 * math.log(0.3) - 0.25 * math.log(0.25)),
        (r"\log_2 9.75", math.log2(9.75)),
        (r"\log_2 \binom{6}{2}", math.log2(15)),
        (r"\ln \ln 3", math.log(math.log(3))),
        (r"\log\frac{7}{3}", math.log(7 / 3)),
        (r"\tfrac12 + \frac{1}{1 + \frac13}", 1.25),
        (r"\sqrt{2/(32\pi)}\sqrt{1/4}", math.sqrt(2 / (32 * math.pi)) / 2),
        (r"(3 - \sqrt5)/2", (3 - 5**0.5) / 2),
        (r"5!/2", 60),
        (r"e^{0.1} - 1", math.expm1(0.1)),
        (r"3\ln 2", 3 * math.log(2)),
        (r"12.5\%", 0.125),
        (r"1001.11_2", 9.75),
        ("42.", 42),
    ],
)
def test_sides_of_numbers_are_evaluated(side, expected):
    assert value(side) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "side", ["x + 1", "x_2", r"\theta", "h(0.1)", "", r"\max(1, 2)", "1 +", r"\log(-1)", "1/0", r"\dots", "3'", "x"]
)
def test_all_else_has_no_value(side):
    assert value(side) is None


@pytest.mark.parametrize(
    ("formula", "verdicts"),
    [
        (r"12.3 = 2^3 \times 1.5375", [True]),
        (r"12.3 = 2^3 \times 1.5376", [False]),  # a decomposition is exact
        (r"\log 2 = 0.69", [True]),
        (r"\log 2 = 0.70", [False]),
        (r"\log_2 9 \approx 3", [True]),
        (r"\log_2 9 = 3", [False]),  # a whole number after an equals sign is not rounded
        (r"\log 3 \approx 0.5 + 0.6", [True]),
        (r"\log 3 = 0.5 + 0.6", [False]),
        (r"a = 1 + 1 = 2 < 3 \le 3 \leq 2", [True, True, True, False]),
        (r"4 > 5, \quad 5 \ge 5", [False, True]),
        (r"3{,}000 + 1 = 3001", [True]),
        (r"1/8 = 12.5\,\%", [True]),
        (r"1/8 = 12.6\,\%", [False]),
        ("x = 1, 1 = 2", [False]),
        (r"\begin{aligned} x &= 2 + 2 \\ &= 5 \end{aligned}", [False]),
        ("x < y", []),
    ],
)
def test_statements_are_judged(formula, verdicts):
    assert [statement.holds for statement in statements(formula)] == verdicts
