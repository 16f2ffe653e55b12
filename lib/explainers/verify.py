"""Claims: the machine checks behind every labelled equation, each shown to be able to fail.

A chapter opens a :class:`Ledger` and files one claim or more for each label of its text::

    claims = verify.Ledger("mitchell")
    claims.proved("eq-mitchell-product", lhs, rhs, counterfeit=wrong_rhs)

There are five kinds of evidence, from the strongest to the weakest: ``proved`` (symbols or exact rationals),
``exhaustive`` (every input of a finite domain), ``numeric`` (floating point and a tolerance), ``statistical`` (a test
with a stated false-alarm rate) and ``experiment`` (one effect per seed).  The first four need a *counterfeit*, a
plausible falsehood that the same check is run on and must reject; a check that lets its counterfeit pass fails.

Text that may differ from one processor to the next stands behind the word ``measured``, at the end of a line; all other
text of a claim is exact, and nbval compares it to the letter.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import sympy

KINDS = ("proved", "exhaustive", "numeric", "statistical", "experiment")
LEDGER_MIME = "application/vnd.explainers.ledger+json"
MIN_SEEDS = 5
MAX_FALSE_ALARM = 1e-2

_LABEL = re.compile(r"(eq|obs)-([a-z0-9]+)-[a-z0-9]+(?:-[a-z0-9]+)*")
_LABEL_DEFINITIONS = re.compile(
    r"\$\$\s*\((?P<dollar>eq-[\w-]+)\)"  # $$ ... $$ (eq-chapter-name)
    r"|^:label:\s*(?P<directive>eq-[\w-]+)\s*$"  # ```{math} with :label:
    r"|^\((?P<target>obs-[\w-]+)\)=\s*$",  # (obs-chapter-name)=
    re.MULTILINE,
)


class ClaimFailed(AssertionError):
    """A claim does not hold, or its check cannot tell the claim from its counterfeit."""

    def __init__(self, label: str, expected: str, measured: str):
        self.label, self.expected, self.measured = label, expected, measured
        super().__init__(f"{label}: expected {expected}; measured {measured}")


@dataclass(frozen=True)
class Claim:
    """A claim that holds; shows itself as one line.

    ``says``, ``rejects`` and ``part`` are the same on every machine, ``measured`` need not be.
    """

    label: str
    kind: str
    says: str
    rejects: str | None = None
    measured: str | None = None
    part: str | None = None

    def __repr__(self) -> str:
        name = f"{self.label} ({self.part})" if self.part else self.label
        words = [f"✓ {name}", self.kind, self.says]
        if self.rejects:
            words.append(f"rejects {self.rejects}")
        if self.measured:
            words.append(f"measured {self.measured}")
        return " · ".join(words)

    def _repr_html_(self) -> str:
        return f'<div class="claim">{self._spans()}</div>'

    def _spans(self) -> str:
        spans = [
            '<span class="claim-mark">✓</span>',
            f'<a class="claim-label" href="#{anchor(self.label)}">{self.label}</a>',
            f'<span class="claim-kind claim-kind-{self.kind}">{self.kind}</span>',
            f'<span class="claim-says">{self._prefix()}{html.escape(self.says)}</span>',
        ]
        if self.rejects:
            spans.append(f'<span class="claim-rejects">rejects {html.escape(self.rejects)}</span>')
        if self.measured:
            spans.append(f'<span class="claim-measured">measured {html.escape(self.measured)}</span>')
        return " ".join(spans)

    def _prefix(self) -> str:
        return f"{html.escape(self.part)}: " if self.part else ""

    def record(self) -> dict[str, str | None]:
        """Return the part of the claim that no machine changes, ready for JSON."""
        return {name: getattr(self, name) for name in ("label", "part", "kind", "says", "rejects")}


def anchor(label: str) -> str:
    """Return the HTML id that the built site gives to a label.

    >>> anchor("eq-mitchell-log"), anchor("obs-mitchell-digits")
    ('equation-eq-mitchell-log', 'obs-mitchell-digits')
    """
    return f"equation-{label}" if label.startswith("eq-") else label


def page_labels(text: str) -> list[str]:
    """Return the labels of equations and observations that a MyST page defines, in order, repeats included.

    >>> page_labels("$$ 1 + 1 = 2 $$ (eq-demo-sum)")
    ['eq-demo-sum']
    """
    return [match.group(match.lastgroup) for match in _LABEL_DEFINITIONS.finditer(text)]


def glue(name: str, text: str, *, measured: bool = False) -> None:
    """Store words of the run under ``name``, for the text to quote with the role ``{glue:text}``.

    Parameters
    ----------
    name
        The key; it starts with the chapter's name, because keys are shared by the pages of a book.
    text
        What the page shows, already formatted.
    measured
        True for what another machine may compute differently; the word ``measured`` is then put in front, and nbval
        masks what follows it.
    """
    from IPython.display import publish_display_data

    prefix = "application/papermill.record/"
    words = f"measured {text}" if measured else text
    # The page evaluates what it finds here as a Python literal: bare, "62,893" would be shown as the tuple (62, 893).
    publish_display_data({f"{prefix}text/plain": repr(words)}, {"scrapbook": {"name": name, "mime_prefix": prefix}})


class Ledger:
    """The claims of one chapter.

    Every method that files a claim takes ``says`` (what is established), ``rejects`` (the counterfeit in words) and
    ``part`` (tells several claims of one label apart), returns the :class:`Claim`, and raises :class:`ClaimFailed`
    if the claim does not hold or its counterfeit passes, ``ValueError`` or ``TypeError`` if the check is malformed.

    Parameters
    ----------
    chapter
        Its name, the middle part of every label (``eq-<chapter>-...``, ``obs-<chapter>-...``).
    labels
        The labels that exist.  By default they are read from ``<chapter>.md`` in the working directory, where a
        chapter's notebook runs; without that file (a notebook opened alone) only the form of a label is checked.
    """

    def __init__(self, chapter: str, labels: Iterable[str] | None = None):
        if not re.fullmatch(r"[a-z0-9]+", chapter):
            raise ValueError(f"a chapter's name is lower-case letters and digits, got {chapter!r}")
        source = Path(f"{chapter}.md")
        if labels is None and source.is_file():
            labels = page_labels(source.read_text(encoding="utf-8"))
        self.chapter = chapter
        self.labels = None if labels is None else frozenset(labels)
        self.claims: list[Claim] = []

    def __len__(self) -> int:
        return len(self.claims)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims)

    # ------------------------------------------------------------------ the five kinds

    def proved(
        self, label: str, lhs: Any, rhs: Any, *, counterfeit: Any, says: str | None = None, rejects: str | None = None,
        part: str | None = None,
    ) -> Claim:  # fmt: skip
        """File an exact identity ``lhs = rhs``.

        Both sides are SymPy expressions, integers, ``Fraction``s, or equally long sequences of them; floats are
        refused.  The difference must simplify to zero.  ``counterfeit`` stands in for ``rhs`` and must be refuted by a
        rational point at which it differs.  What SymPy cannot decide fails, and says so.
        """
        self._check_label(label, part)
        left, right, wrong = (
            _exact(side, name) for side, name in ((lhs, "lhs"), (rhs, "rhs"), (counterfeit, "counterfeit"))
        )
        if not len(left) == len(right) == len(wrong):
            sizes = f"{len(left)}, {len(right)} and {len(wrong)}"
            raise ValueError(f"{label}: lhs, rhs and counterfeit need the same number of expressions, got {sizes}")
        for a, b in zip(left, right):
            self._require_identity(label, a, b)
        witness = next((w for a, b in zip(left, wrong) if (w := _witness(a - b)) is not None), None)
        if witness is None:
            raise ClaimFailed(
                label,
                "a counterfeit that a rational point refutes",
                f"no point at which {_brief(counterfeit)} differs from {_brief(lhs)}",
            )
        says = says or f"{_brief(lhs)} = {_brief(rhs)}"
        rejects = rejects or _brief(counterfeit)
        return self._file(label, "proved", says, f"{rejects}{witness}", None, part)

    def exhaustive(
        self, label: str, outcome: Any, *, counterfeit: Any, cases: int | None = None, at_most: Any = None,
        at_least: Any = None, equals: Any = None, says: str | None = None, rejects: str | None = None,
        part: str | None = None,
    ) -> Claim:  # fmt: skip
        """File what was found by trying every input of a finite domain.

        ``outcome`` is either an array of booleans, one per case, all of which must be true; ``counterfeit`` is then
        the array that a wrong rule gives, and must hold a false.  Or it is the extreme value over all ``cases``, held
        against ``at_most``, ``at_least`` or ``equals``; ``counterfeit`` is then another bound or value that must fail.
        """
        self._check_label(label, part)
        if np.asarray(outcome).dtype == bool:
            if not (cases is at_most is at_least is equals is None):
                raise ValueError(f"{label}: an array of verdicts takes no cases, at_most, at_least or equals")
            return self._file_verdicts(label, np.asarray(outcome), counterfeit, says, rejects, part)
        if not isinstance(cases, (int, np.integer)) or isinstance(cases, bool) or cases <= 0:
            raise ValueError(
                f"{label}: an extreme value needs cases, the positive number of inputs tried, got {cases!r}"
            )
        holds, relation = self._bound(label, outcome, at_most, at_least, equals)
        bound = next(b for b in (at_most, at_least, equals) if b is not None)
        if not holds(outcome, bound):
            raise ClaimFailed(label, f"{relation} {_show(bound)} over all {cases:,} cases", _show(outcome))
        self._finite(label, counterfeit, "counterfeit")
        if holds(outcome, counterfeit):
            raise ClaimFailed(label, f"a counterfeit that fails, not {relation} {_show(counterfeit)}", _show(outcome))
        says = f"{says or 'extreme value'} {relation} {_show(bound)} (all {cases:,} cases)"
        measured = _show(outcome) if isinstance(outcome, (float, np.floating)) else None
        return self._file(label, "exhaustive", says, rejects or f"{relation} {_show(counterfeit)}", measured, part)

    def numeric(
        self, label: str, measured: Any, expected: Any = None, *, rtol: float = 0.0, atol: float = 0.0,
        at_most: Any = None, at_least: Any = None, counterfeit: Any, says: str | None = None,
        rejects: str | None = None, part: str | None = None,
    ) -> Claim:  # fmt: skip
        """File an agreement of floats, ``|measured - expected| <= atol + rtol |expected|`` in every entry, or a bound.

        With ``expected`` the counterfeit replaces it and must be off by more than the tolerance somewhere.  With
        ``at_most`` or ``at_least`` every entry is held against that bound and the counterfeit is a tighter one.
        """
        self._check_label(label, part)
        values = self._finite(label, measured, "measured")
        wrong = self._finite(label, counterfeit, "counterfeit")
        if expected is None:
            if rtol or atol:
                raise ValueError(f"{label}: a bound takes no tolerance, got rtol={rtol}, atol={atol}")
            return self._file_bound(label, values, wrong, at_most, at_least, says, rejects, part)
        if not (at_most is at_least is None):
            raise ValueError(f"{label}: give either expected with a tolerance, or at_most or at_least")
        if expected is measured and np.ndim(expected):
            raise ValueError(f"{label}: measured and expected are the same object; compute them by different roads")
        self._check_tolerance(label, rtol, atol)
        target = self._finite(label, expected, "expected")
        error, excess = _excess(label, values, target, rtol, atol)
        tolerance = " + ".join(f"{name} {t:g}" for name, t in (("rtol", rtol), ("atol", atol)) if t)
        if excess > 1:
            raise ClaimFailed(label, f"{_show(expected)} within {tolerance}", f"{_show(measured)}, off by {error:.3g}")
        wrong_error, wrong_excess = _excess(label, values, wrong, rtol, atol)
        if wrong_excess <= 1:
            raise ClaimFailed(
                label,
                f"a counterfeit off by more than {tolerance}",
                f"{_show(counterfeit)}, off by only {wrong_error:.3g}",
            )
        says = f"{says or 'agrees with the formula'} ({tolerance})"
        words = f"error {error:.2g}, counterfeit off by {wrong_error:.2g}"
        if values.size == 1:
            words = f"{_show(values.item())}, {words}"
        return self._file(label, "numeric", says, rejects or "the counterfeit", words, part)

    def statistical(
        self, label: str, p_value: Any, *, alpha: float, counterfeit: Any, says: str | None = None,
        rejects: str | None = None, part: str | None = None,
    ) -> Claim:  # fmt: skip
        """File that a test does not reject at false-alarm rate ``alpha``, while it does reject the counterfeit.

        ``p_value`` and ``counterfeit`` are p-values in [0, 1], or arrays of them; ``alpha`` then holds for the whole
        array (Bonferroni).  The counterfeit's p-value comes from the same test on a wrong sampler.
        """
        self._check_label(label, part)
        if not 0 < alpha <= MAX_FALSE_ALARM:
            raise ValueError(f"{label}: alpha must be in (0, {MAX_FALSE_ALARM}], got {alpha}")
        smallest, wrong = (self._bonferroni(label, p) for p in (p_value, counterfeit))
        if smallest < alpha:
            raise ClaimFailed(label, f"p >= {alpha:g}", f"p = {smallest:.3g}")
        if wrong >= alpha:
            raise ClaimFailed(label, f"a counterfeit rejected with p < {alpha:g}", f"p = {wrong:.3g}")
        says = f"{says or 'the test does not reject'} (false-alarm rate {alpha:g})"
        words = f"p = {smallest:.2g}, counterfeit p = {wrong:.2g}"
        return self._file(label, "statistical", says, rejects or "the counterfeit", words, part)

    def experiment(
        self, label: str, effects: Sequence[float], *, at_least: float | None = None, at_most: float | None = None,
        statistic: str = "every", says: str | None = None, part: str | None = None,
    ) -> Claim:  # fmt: skip
        """File an effect that was seen with every seed (or in the ``mean`` or ``median`` over the seeds).

        ``effects`` holds one number per seed, at least five.  Give ``at_least``, ``at_most`` or both.
        """
        self._check_label(label, part)
        values = self._finite(label, effects, "effects").ravel()
        if values.size < MIN_SEEDS:
            raise ValueError(f"{label}: an experiment needs at least {MIN_SEEDS} seeds, got {values.size}")
        if at_least is None and at_most is None:
            raise ValueError(f"{label}: an experiment needs at_least, at_most or both")
        low, high = (-math.inf if at_least is None else at_least), (math.inf if at_most is None else at_most)
        if math.isnan(low) or math.isnan(high) or (math.isinf(low) and math.isinf(high)) or low > high:
            raise ValueError(f"{label}: no effect could fail or none could pass between {low} and {high}")
        reduce = {"every": lambda v: v, "mean": np.mean, "median": np.median}
        if statistic not in reduce:
            raise ValueError(f"{label}: statistic must be one of {sorted(reduce)}, got {statistic!r}")
        shown = np.atleast_1d(reduce[statistic](values))
        bounds = " and ".join(
            f"{word} {_show(b)}" for word, b in (("at least", at_least), ("at most", at_most)) if b is not None
        )
        spread = f"mean {values.mean():.4g}, from {values.min():.4g} to {values.max():.4g}"
        if not ((shown >= low) & (shown <= high)).all():
            raise ClaimFailed(label, f"{statistic} effect {bounds} over {values.size} seeds", spread)
        who = "every seed" if statistic == "every" else f"the {statistic} over seeds"
        says = f"{says or 'effect'}: {bounds} for {who} ({values.size} seeds)"
        return self._file(label, "experiment", says, None, spread, part)

    # ------------------------------------------------------------------ what a ledger shows

    def counts(self) -> dict[str, int]:
        """Return the number of claims of each kind."""
        found = Counter(claim.kind for claim in self.claims)
        return {kind: found[kind] for kind in KINDS}

    @property
    def counterfeits(self) -> int:
        """The number of counterfeits that were caught."""
        return sum(claim.rejects is not None for claim in self.claims)

    def summary(self) -> str:
        """Return one sentence: how many claims of which kind, how many counterfeits."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.counts().items() if n)
        return f"{len(self)} claims hold ({kinds or 'none'}); {self.counterfeits} counterfeits were caught."

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.claims), self.summary()])

    def _repr_html_(self) -> str:
        rows = "".join(f'<li class="claim">{claim._spans()}</li>' for claim in self.claims)
        return f'<div class="claims"><ul class="claims-list">{rows}</ul><p>{self.summary()}</p></div>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        record = {
            "chapter": self.chapter,
            "claims": [claim.record() for claim in self.claims],
            "counts": self.counts(),
            "counterfeits": self.counterfeits,
        }
        return {"text/plain": repr(self), "text/html": self._repr_html_(), LEDGER_MIME: record}

    # ------------------------------------------------------------------ inner workings

    def _check_label(self, label: str, part: str | None) -> None:
        match = _LABEL.fullmatch(label)
        if not match or match.group(2) != self.chapter:
            raise ValueError(f"a label reads eq-{self.chapter}-name or obs-{self.chapter}-name, got {label!r}")
        if self.labels is not None and label not in self.labels:
            raise ValueError(f"unknown label {label!r}: the chapter's text defines no such equation or observation")
        if any(claim.label == label and claim.part == part for claim in self.claims):
            which = f"part {part!r}" if part else "no part"
            raise ValueError(f"duplicate label {label!r} with {which}: give each of its claims a part of its own")

    def _file(
        self, label: str, kind: str, says: str, rejects: str | None, measured: str | None, part: str | None
    ) -> Claim:
        for text in (says, rejects or "", part or ""):
            if "\n" in text or re.search(r"\bmeasured\b", text):
                raise ValueError(f"{label}: a claim's words stay on one line and leave 'measured' to its end: {text!r}")
        claim = Claim(label, kind, says, rejects, measured, part)
        self.claims.append(claim)
        return claim

    @staticmethod
    def _require_identity(label: str, lhs: sympy.Expr, rhs: sympy.Expr) -> None:
        verdict = _is_zero(lhs - rhs)
        if verdict is None:
            raise ClaimFailed(label, f"{_brief(lhs)} = {_brief(rhs)}", "SymPy cannot decide it; restate the identity")
        if not verdict:
            point = _witness(lhs - rhs) or ""
            raise ClaimFailed(label, f"{_brief(lhs)} = {_brief(rhs)}", f"a difference{point}")

    def _file_verdicts(self, label, verdicts, counterfeit, says, rejects, part) -> Claim:
        wrong = np.asarray(counterfeit)
        if verdicts.size == 0 or wrong.size == 0:
            raise ValueError(f"{label}: no case was tried ({verdicts.size} verdicts, {wrong.size} for the counterfeit)")
        if wrong.dtype != bool:
            raise TypeError(f"{label}: the counterfeit of boolean verdicts is an array of booleans, got {wrong.dtype}")
        if not verdicts.all():
            raise ClaimFailed(label, f"all {verdicts.size:,} cases to hold", f"{np.sum(~verdicts):,} that do not")
        if wrong.all():
            raise ClaimFailed(label, "a counterfeit that fails somewhere", f"it holds in all {wrong.size:,} cases")
        says = f"{says or 'holds'} (all {verdicts.size:,} cases)"
        rejects = f"{rejects or 'the counterfeit'}, which fails in {np.sum(~wrong):,} of {wrong.size:,}"
        return self._file(label, "exhaustive", says, rejects, None, part)

    def _file_bound(self, label, values, wrong, at_most, at_least, says, rejects, part) -> Claim:
        holds, relation = self._bound(label, values, at_most, at_least, None)
        bound = at_least if at_most is None else at_most
        extreme = values.min() if at_most is None else values.max()
        if not holds(extreme, bound):
            raise ClaimFailed(label, f"{relation} {_show(bound)}", _show(extreme))
        if holds(extreme, wrong.item()):
            raise ClaimFailed(label, f"a counterfeit that fails, not {relation} {_show(wrong.item())}", _show(extreme))
        says = f"{says or 'value'} {relation} {_show(bound)}"
        return self._file(label, "numeric", says, rejects or f"{relation} {_show(wrong.item())}", _show(extreme), part)

    def _bound(self, label: str, outcome: Any, at_most: Any, at_least: Any, equals: Any):
        given = [
            (b, rel) for b, rel in ((at_most, "at most"), (at_least, "at least"), (equals, "equal to")) if b is not None
        ]
        if len(given) != 1:
            raise ValueError(f"{label}: give exactly one bound, got {len(given)}")
        self._finite(label, outcome, "outcome")
        self._finite(label, given[0][0], "bound")
        compare = {
            "at most": lambda a, b: a <= b,
            "at least": lambda a, b: a >= b,
            "equal to": lambda a, b: a == b,
        }
        return compare[given[0][1]], given[0][1]

    @staticmethod
    def _finite(label: str, value: Any, name: str) -> np.ndarray:
        if isinstance(value, Fraction):
            return np.asarray(float(value))
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
        if array.dtype == object:
            array = array.astype(float)
        if array.size == 0:
            raise ValueError(f"{label}: {name} is empty")
        if not np.isfinite(array).all():
            raise ClaimFailed(label, f"finite {name}", f"{np.sum(~np.isfinite(array)):,} of {array.size:,} not finite")
        return array if array.dtype.kind == "c" else array.astype(np.float64)

    @staticmethod
    def _check_tolerance(label: str, rtol: float, atol: float) -> None:
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{label}: {name} must be finite and not negative, got {value}")
        if rtol == atol == 0 or rtol >= 1:
            raise ValueError(f"{label}: give rtol below 1 or atol above 0, got rtol={rtol}, atol={atol}")

    @staticmethod
    def _bonferroni(label: str, p_value: Any) -> float:
        p = np.atleast_1d(np.asarray(p_value, dtype=float))
        if p.size == 0 or not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"{label}: p-values lie in [0, 1] and there is at least one, got {p_value!r}")
        return min(1.0, float(p.min()) * p.size)


# ---------------------------------------------------------------------- exact arithmetic


def _exact(side: Any, name: str) -> list[sympy.Expr]:
    items = list(side) if isinstance(side, (list, tuple, sympy.MatrixBase)) else [side]
    if not items:
        raise ValueError(f"{name} is empty")
    return [_exact_item(item, name) for item in items]


def _exact_item(item: Any, name: str) -> sympy.Expr:
    if isinstance(item, Fraction):
        return sympy.Rational(item.numerator, item.denominator)
    if isinstance(item, (bool, float, np.floating, np.bool_)):
        raise TypeError(f"{name} must be exact (SymPy, int or Fraction), got {type(item).__name__} {item!r}")
    if isinstance(item, (int, np.integer)):
        return sympy.Integer(int(item))
    if not isinstance(item, sympy.Expr):
        raise TypeError(f"{name} must be exact (SymPy, int or Fraction), got {type(item).__name__}")
    if item.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or item.has(sympy.Float):
        raise ValueError(f"{name} must be exact and finite, got {item}")
    return item


def _is_zero(difference: sympy.Expr) -> bool | None:
    """Return whether an expression vanishes identically, or None where SymPy cannot tell."""
    if _witness(difference) is not None:
        return False
    for rewrite in (
        sympy.expand,
        sympy.cancel,
        sympy.simplify,
        lambda e: sympy.simplify(sympy.expand_log(e, force=False)),
    ):
        if rewrite(difference) == 0:
            return True
    return difference.equals(0)


_POINTS = [Fraction(p, q) for p, q in ((1, 3), (2, 5), (3, 7), (5, 11), (8, 13), (11, 17), (14, 19), (20, 23))]


def _witness(difference: sympy.Expr) -> str | None:
    """Return words for a rational point at which an expression is not zero, or None if none was found."""
    symbols = sorted(difference.free_symbols, key=lambda s: s.name)
    for shift in range(len(_POINTS) if symbols else 1):
        point = {s: _coordinate(s, i + shift) for i, s in enumerate(symbols)}
        value = difference.subs(point)
        if value.is_number and value.is_finite is not False and abs(sympy.N(value, 50)) > sympy.Float("1e-30", 50):
            where = ", ".join(f"{s} = {v}" for s, v in point.items())
            return f" (differs at {where})" if where else " (differs)"
    return None


def _coordinate(symbol: sympy.Symbol, index: int) -> sympy.Rational:
    value = _POINTS[index % len(_POINTS)]
    if symbol.is_integer:
        return sympy.Integer(2 + index)
    return -sympy.Rational(value) if symbol.is_negative else sympy.Rational(value)


# ---------------------------------------------------------------------- words


def _excess(label: str, values: np.ndarray, target: np.ndarray, rtol: float, atol: float) -> tuple[float, float]:
    """Return the largest absolute error, and the largest error in units of its tolerance."""
    if target.shape not in ((), values.shape):
        raise ValueError(f"{label}: measured has shape {values.shape}, the other side {target.shape}")
    error = np.abs(values - target)
    allowed = atol + rtol * np.abs(target)
    excess = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
    return float(error.max()), float(excess.max())


def _show(value: Any) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return _brief(value)


def _brief(value: Any, limit: int = 100) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
