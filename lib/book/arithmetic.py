r"""Worked arithmetic in the text: what a formula says about numbers alone is worked out again and compared.

A formula is cut at its relations. Wherever both sides of one are made of numbers (and logarithms, roots, fractions,
binomial coefficients, ``\pi``), SymPy reads and evaluates them. A rounded side may be off by half a unit of its last
digit, nothing else may.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import sympy
from sympy.parsing.sympy_parser import implicit_multiplication, parse_expr, standard_transformations

FORMULA = re.compile(r"\$\$(.*?)\$\$|\$([^$]*)\$", re.DOTALL)
_RELATION = re.compile(r"(=|\\approx|\\leq?(?![a-z])|\\geq?(?![a-z])|<|>)")
_LAYOUT = re.compile(r"\\(?:begin|end)\{\w+\}|\\\\|&|\\(?:[bB]ig+[lr]?|left|right|quad|qquad)(?![a-z])|\\[,;! ]|\{\}")
_SENTENCE = re.compile(r",\s|;|\\longrightarrow|\\qquad|\\quad|\\text\{[^}]*\}")
_LITERAL = re.compile(r"\d+(?:\.\d+)?")
_PLAIN = re.compile(r"\s*-?\d+(?:\.\d+)?\s*(?:\\%)?\s*")
_GROUP = r"\s*(?:\{([^{}]*)\}|(\d))"
_BINARY = re.compile(r"([01]+(?:\.[01]+)?)_2")
_FUNCTION = re.compile(r"\\(log_2|log|ln|exp)\s*(\d+(?:\.\d+)?|[a-z]+\([^()]*\)|(?=\())")
_REWRITTEN = [
    (re.compile(r"\\[td]?frac" + _GROUP + _GROUP), lambda m: f"(({m[1] or m[2]})/({m[3] or m[4]}))"),
    (re.compile(r"\\d?binom" + _GROUP + _GROUP), lambda m: f"binomial({m[1] or m[2]},{m[3] or m[4]})"),
    (re.compile(r"\\sqrt" + _GROUP), lambda m: f" sqrt({m[1] or m[2]})"),
    (re.compile(r"\^" + _GROUP), lambda m: f"**({m[1] or m[2]})"),
    (_FUNCTION, lambda m: f" {m[1].replace('log_2', 'lb')}" + (f"({m[2]})" if m[2] else "")),
]  # innermost first, again and again
_WORDS = {r"\cdot": "*", r"\times": "*", r"\pi": " pi ", r"\%": "/100"}
_KNOWN = {"sqrt": sympy.sqrt, "binomial": sympy.binomial, "pi": sympy.pi, "e": sympy.E, "exp": sympy.exp,
          "ln": sympy.log, "log": sympy.log, "lb": lambda x: sympy.log(x, 2)}  # fmt: skip
_OTHER_NAME = re.compile(r"\b(?!(?:" + "|".join(_KNOWN) + r")\b)[a-zA-Z]\w*|[\\{}_'|]")
_IMPLICIT = (*standard_transformations, implicit_multiplication)


@dataclass(frozen=True)
class Statement:
    """Two numbers and what a formula says of them; ``text`` is the place in the formula, ``holds`` the verdict."""

    text: str
    holds: bool


def statements(formula: str) -> Iterator[Statement]:
    r"""Yield what a formula says about numbers alone.

    >>> for found in statements(r"x = \frac12 \log 3 = 0.55 < 1"):
    ...     print(found)
    Statement(text='\\frac12 \\log 3 = 0.55', holds=True)
    Statement(text='0.55 < 1', holds=True)
    >>> [found.holds for found in statements(r"\log\frac{21{,}127}{9} = 7.77")]
    [False]
    """
    formula = formula.replace("{,}", "")
    for sentence in _SENTENCE.split(formula):
        sides = _RELATION.split(_LAYOUT.sub(" ", sentence))
        for left, relation, right in zip(sides[::2], sides[1::2], sides[2::2]):
            a, b = value(left), value(right)
            if a is not None and b is not None:
                text = " ".join(f"{left} {relation} {right}".split())
                yield Statement(text, _holds(a, relation, b, _allowed(left, relation, right)))


@lru_cache(maxsize=10_000)
def value(side: str) -> float | None:
    r"""Return the value of one side of a relation, or None if it is not made of numbers alone.

    >>> value(r"2^{-6} \cdot 1.125"), value("x + 1"), value(r"12.5\%"), value("10.1_2")
    (0.017578125, None, 0.125, 2.5)
    """
    text = side.strip().rstrip(".")
    text = _BINARY.sub(lambda m: str(int(m[1].replace(".", ""), 2) / 2 ** len(m[1].partition(".")[2])), text)
    before = None
    while before != text:
        before = text
        for pattern, rewritten in _REWRITTEN:
            text = pattern.sub(rewritten, text)
    for word, meaning in _WORDS.items():
        text = text.replace(word, meaning)
    if not re.search(r"\d", text) or _OTHER_NAME.search(text):
        return None
    try:
        return float(parse_expr(text, local_dict=_KNOWN, transformations=_IMPLICIT))
    except (SyntaxError, TypeError, tokenize.TokenError, ValueError):  # no whole expression, or no real number
        return None


def _allowed(left: str, relation: str, right: str) -> float:
    r"""Return how far two sides may lie apart.

    A number on the right is rounded, a decimal one after ``=``, any after ``\approx``. On the left, or in a sum, ``=``
    means exactly and ``\approx`` means by the rounding of all that stands there.
    """
    if _PLAIN.fullmatch(right) and ("." in right or relation == r"\approx"):
        return _rounding(right)
    if relation == "=":
        return 0.0
    return sum(_rounding(literal) for literal in _LITERAL.findall(left + " " + right) if "." in literal)


def _rounding(literal: str) -> float:
    digits = len(literal.partition(".")[2].replace("\\%", "").strip()) + 2 * (r"\%" in literal)
    return 0.5 * 10.0**-digits


def _holds(a: float, relation: str, b: float, allowed: float) -> bool:
    if relation in ("=", r"\approx"):
        return abs(a - b) <= allowed * (1 + 1e-9) + 1e-12 * max(abs(a), abs(b))
    return {"<": a < b, ">": a > b}.get(relation, a <= b if relation.startswith(r"\le") else a >= b)
