"""The ledger must reject: each kind of claim is tried with falsehoods, malformed checks and blind counterfeits."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from explainers import verify
from explainers.verify import LEDGER_MIME, Claim, ClaimFailed, Ledger

x, y = sp.symbols("x y", positive=True)


@pytest.fixture
def claims():
    return Ledger("demo", labels=["eq-demo-a", "eq-demo-b", "obs-demo-c"])


GOOD = {
    "proved": lambda c, **kw: c.proved("eq-demo-a", (x + 1) ** 2, x**2 + 2 * x + 1, counterfeit=x**2 + 1, **kw),
    "exhaustive": lambda c, **kw: c.exhaustive(
        "eq-demo-a", Fraction(1, 9), cases=10, at_most=Fraction(1, 9), counterfeit=Fraction(1, 10), **kw),
    "numeric": lambda c, **kw: c.numeric("eq-demo-a", math.pi, 3.14159265, rtol=1e-8, counterfeit=22 / 7, **kw),
    "statistical": lambda c, **kw: c.statistical("eq-demo-a", 0.4, alpha=1e-6, counterfeit=1e-30, **kw),
    "experiment": lambda c, **kw: c.experiment("obs-demo-c", [0.1, 0.2, 0.3, 0.2, 0.1], at_least=0, **kw),
}  # fmt: skip


@pytest.mark.parametrize("kind", verify.KINDS)
def test_a_claim_that_holds_is_filed_and_renders_as_one_line(claims, kind):
    claim = GOOD[kind](claims)
    assert isinstance(claim, Claim)
    assert claim.kind == kind
    assert list(claims) == [claim]
    assert claims.counts()[kind] == 1
    assert "\n" not in repr(claim)
    assert repr(claim).startswith(f"✓ {claim.label} · {kind} · ")
    assert f'href="#{verify.anchor(claim.label)}"' in claim._repr_html_()
    assert f"claim-kind-{kind}" in claim._repr_html_()
    assert (claim.rejects is None) == (kind == "experiment")


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("kind", verify.KINDS)
def test_unknown_label(kind):
    with pytest.raises(ValueError, match="unknown label"):
        GOOD[kind](Ledger("demo", labels=["eq-demo-other"]))


@pytest.mark.parametrize("kind", verify.KINDS)
def test_duplicate_label(claims, kind):
    GOOD[kind](claims)
    with pytest.raises(ValueError, match="duplicate label"):
        GOOD[kind](claims)
    assert GOOD[kind](claims, part="again").part == "again"
    with pytest.raises(ValueError, match="duplicate label"):
        GOOD[kind](claims, part="again")


@pytest.mark.parametrize("label", ["eq-other-a", "demo-a", "eq-demo-", "eq-demo-A", "eq-demo a", ""])
def test_malformed_label(label):
    with pytest.raises(ValueError, match="a label reads eq-demo-name"):
        Ledger("demo").numeric(label, 1.0, 1.0, rtol=0.1, counterfeit=2.0)


def test_labels_are_read_from_the_text_beside_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.md").write_text(
        "$$ a = b $$ (eq-demo-dollar)\n\n```{math}\n:label: eq-demo-block\na\n```\n(obs-demo-seen)=\ntext\n"
        "$$\nc\n$$ (eq-demo-lines)\n{eq}`eq-demo-quoted`\n"
    )
    assert Ledger("demo").labels == {"eq-demo-dollar", "eq-demo-block", "obs-demo-seen", "eq-demo-lines"}
    assert Ledger("another").labels is None


def test_bad_chapter_name():
    with pytest.raises(ValueError, match="lower-case"):
        Ledger("Demo chapter")


# ---------------------------------------------------------------- proved


def test_proved_accepts_exact_things(claims):
    claims.proved("eq-demo-a", [Fraction(1, 3), 2], [sp.Rational(1, 3), 1 + 1], counterfeit=[Fraction(1, 3), 3])
    matrix = sp.Matrix([[x, 1], [0, x]])
    claims.proved("eq-demo-b", matrix**2, sp.Matrix([[x**2, 2 * x], [0, x**2]]), counterfeit=matrix)


def test_proved_rejects_a_false_identity(claims):
    with pytest.raises(ClaimFailed, match=r"eq-demo-a: expected .* measured a difference \(differs at x = "):
        claims.proved("eq-demo-a", (x + 1) ** 2, x**2 + 1, counterfeit=x)
    assert len(claims) == 0


def test_proved_rejects_a_counterfeit_that_is_true(claims):
    with pytest.raises(ClaimFailed, match="a counterfeit that a rational point refutes"):
        claims.proved("eq-demo-a", x**2 - 1, (x - 1) * (x + 1), counterfeit=(x + 1) * (x - 1))
    assert len(claims) == 0


def test_proved_names_the_point_that_refutes_the_counterfeit(claims):
    assert "differs at x = 1/3" in claims.proved("eq-demo-a", x + x, 2 * x, counterfeit=x**2).rejects


def test_proved_fails_when_sympy_cannot_decide(claims, monkeypatch):
    monkeypatch.setattr(verify, "_witness", lambda difference: None)
    monkeypatch.setattr(sp.Expr, "equals", lambda self, other: None)
    f = sp.Function("f")
    with pytest.raises(ClaimFailed, match="SymPy cannot decide"):
        claims.proved("eq-demo-a", f(x), f(y), counterfeit=0)


def test_proved_never_passes_an_undecided_function(claims):
    f = sp.Function("f")
    with pytest.raises(ClaimFailed):
        claims.proved("eq-demo-a", f(x), f(y), counterfeit=x)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), True, np.True_, "x", None])
def test_proved_refuses_inexact_sides(claims, value):
    with pytest.raises(TypeError, match="must be exact"):
        claims.proved("eq-demo-a", value, 1, counterfeit=2)


@pytest.mark.parametrize("value", [sp.nan, sp.oo, sp.zoo, x + sp.nan, sp.Float(0.5) * x])
def test_proved_refuses_nan_infinity_and_floats_inside(claims, value):
    with pytest.raises(ValueError, match="exact and finite"):
        claims.proved("eq-demo-a", value, value, counterfeit=2)


def test_proved_refuses_nothing(claims):
    with pytest.raises(ValueError, match="lhs is empty"):
        claims.proved("eq-demo-a", [], [], counterfeit=[])


def test_proved_refuses_different_lengths(claims):
    with pytest.raises(ValueError, match="got 2, 1 and 2"):
        claims.proved("eq-demo-a", [x, y], [x], counterfeit=[x, x])


# ---------------------------------------------------------------- exhaustive


def test_exhaustive_verdicts(claims):
    n = np.arange(8)
    claim = claims.exhaustive("eq-demo-a", n**2 % 2 == n % 2, counterfeit=n**2 % 4 == n % 4, rejects="modulo 4")
    assert "all 8 cases" in claim.says
    assert claim.rejects == "modulo 4, which fails in 4 of 8"


def test_exhaustive_rejects_one_false_verdict(claims):
    with pytest.raises(ClaimFailed, match="1 that do not"):
        claims.exhaustive("eq-demo-a", np.array([True, False]), counterfeit=np.array([False]))


def test_exhaustive_rejects_a_blind_counterfeit(claims):
    with pytest.raises(ClaimFailed, match="it holds in all 1 cases"):
        claims.exhaustive("eq-demo-a", np.array([True]), counterfeit=np.array([True]))
    with pytest.raises(ClaimFailed, match="a counterfeit that fails"):
        claims.exhaustive("eq-demo-a", Fraction(1, 9), cases=3, at_most=Fraction(1, 8), counterfeit=Fraction(1, 7))


@pytest.mark.parametrize("empty", [np.array([], dtype=bool), []])
def test_exhaustive_rejects_no_case(claims, empty):
    with pytest.raises(ValueError, match="no case was tried|needs cases|empty"):
        claims.exhaustive("eq-demo-a", empty, counterfeit=np.array([False]))
    with pytest.raises(ValueError, match="no case was tried"):
        claims.exhaustive("eq-demo-a", np.array([True]), counterfeit=np.array([], dtype=bool))


@pytest.mark.parametrize("cases", [0, -1, None, True, 2.0])
def test_exhaustive_needs_a_positive_number_of_cases(claims, cases):
    with pytest.raises(ValueError, match="needs cases"):
        claims.exhaustive("eq-demo-a", 1, cases=cases, at_most=2, counterfeit=0)


@pytest.mark.parametrize(("kwargs", "worst"), [({"at_most": 2}, 3), ({"at_least": 2}, 1), ({"equals": 2}, 3)])
def test_exhaustive_bounds_bite(claims, kwargs, worst):
    with pytest.raises(ClaimFailed, match="over all 5 cases"):
        claims.exhaustive("eq-demo-a", worst, cases=5, counterfeit=9, **kwargs)


def test_exhaustive_needs_one_bound(claims):
    for kwargs in ({}, {"at_most": 2, "at_least": 0}):
        with pytest.raises(ValueError, match="exactly one bound"):
            claims.exhaustive("eq-demo-a", 1, cases=5, counterfeit=9, **kwargs)


def test_exhaustive_rejects_nan(claims):
    for kwargs in ({"at_most": 2}, {"at_least": 2}, {"equals": math.nan}):
        with pytest.raises(ClaimFailed, match="finite"):
            claims.exhaustive("eq-demo-a", math.nan, cases=5, counterfeit=0, **kwargs)
    with pytest.raises(ClaimFailed, match="finite bound"):
        claims.exhaustive("eq-demo-a", 1, cases=5, at_most=math.inf, counterfeit=0)


def test_exhaustive_verdicts_take_no_bound(claims):
    with pytest.raises(ValueError, match="takes no cases"):
        claims.exhaustive("eq-demo-a", np.array([True]), cases=1, counterfeit=np.array([False]))
    with pytest.raises(TypeError, match="array of booleans"):
        claims.exhaustive("eq-demo-a", np.array([True]), counterfeit=[0.5])


# ---------------------------------------------------------------- numeric


def test_numeric_rejects_a_value_off_in_one_entry(claims):
    with pytest.raises(ClaimFailed, match=r"eq-demo-a: expected .* within rtol 0.001; measured .* off by 0.5"):
        claims.numeric("eq-demo-a", np.array([1.0, 2.5]), np.array([1.0, 2.0]), rtol=1e-3, counterfeit=9.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.array([1.0, math.nan])])
def test_numeric_rejects_nan_and_infinity_on_every_side(claims, bad):
    with pytest.raises(ClaimFailed, match="finite"):
        claims.numeric("eq-demo-a", bad, 1.0, rtol=0.1, counterfeit=2.0)
    with pytest.raises(ClaimFailed, match="finite"):
        claims.numeric("eq-demo-a", 1.0, bad, rtol=0.1, counterfeit=2.0)
    with pytest.raises(ClaimFailed, match="finite"):
        claims.numeric("eq-demo-a", 1.0, 1.0, rtol=0.1, counterfeit=bad)


@pytest.mark.parametrize(
    "kwargs",
    [{"rtol": math.inf}, {"atol": math.inf}, {"rtol": -1e-3}, {"atol": -1.0}, {"rtol": math.nan}, {}, {"rtol": 1.0}],
)  # fmt: skip
def test_numeric_rejects_infinite_negative_or_no_tolerance(claims, kwargs):
    with pytest.raises(ValueError, match="rtol|atol"):
        claims.numeric("eq-demo-a", 1.0, 1.0, counterfeit=2.0, **kwargs)


def test_numeric_rejects_a_counterfeit_within_the_tolerance(claims):
    with pytest.raises(ClaimFailed, match="a counterfeit off by more than rtol 0.01"):
        claims.numeric("eq-demo-a", math.pi, 3.1416, rtol=1e-2, counterfeit=22 / 7)


def test_numeric_rejects_an_empty_sample(claims):
    with pytest.raises(ValueError, match="measured is empty"):
        claims.numeric("eq-demo-a", [], 1.0, rtol=0.1, counterfeit=2.0)


def test_numeric_rejects_itself_and_other_shapes(claims):
    values = np.arange(3.0)
    with pytest.raises(ValueError, match="same object"):
        claims.numeric("eq-demo-a", values, values, rtol=0.1, counterfeit=9.0)
    with pytest.raises(ValueError, match=r"shape \(3,\), the other side \(2,\)"):
        claims.numeric("eq-demo-a", values, values[:2], rtol=0.1, counterfeit=9.0)


def test_numeric_tolerance_of_zero_at_zero_bites(claims):
    with pytest.raises(ClaimFailed):
        claims.numeric("eq-demo-a", [1e-300, 1.0], [0.0, 1.0], rtol=0.1, counterfeit=9.0)


def test_numeric_bounds(claims):
    claim = claims.numeric("eq-demo-a", [0.1, 0.3], at_most=1 / 3, counterfeit=0.25, says="ratio")
    assert claim.says == "ratio at most 0.333333"
    claims.numeric("eq-demo-b", np.float64(0.3), at_least=Fraction(1, 4), counterfeit=Fraction(1, 3))
    with pytest.raises(ClaimFailed, match="expected at most 0.2"):
        claims.numeric("obs-demo-c", [0.1, 0.3], at_most=0.2, counterfeit=0.1)
    with pytest.raises(ClaimFailed, match="expected at least 0.2"):
        claims.numeric("obs-demo-c", [0.1, 0.3], at_least=0.2, counterfeit=0.5)
    with pytest.raises(ClaimFailed, match="a counterfeit that fails"):
        claims.numeric("obs-demo-c", [0.1, 0.3], at_most=0.5, counterfeit=0.4)
    with pytest.raises(ValueError, match="takes no tolerance"):
        claims.numeric("obs-demo-c", 0.1, at_most=0.5, rtol=0.1, counterfeit=0.05)
    with pytest.raises(ValueError, match="either expected"):
        claims.numeric("obs-demo-c", 0.1, 0.1, rtol=0.1, at_most=0.5, counterfeit=0.05)
    with pytest.raises(ValueError, match="exactly one bound"):
        claims.numeric("obs-demo-c", 0.1, counterfeit=0.05)


def test_numeric_takes_tensors_and_complex_numbers(claims):
    torch = pytest.importorskip("torch")
    claims.numeric("eq-demo-a", torch.ones(2, requires_grad=True), [1, 1], rtol=1e-6, counterfeit=[1, 2])
    claims.numeric("eq-demo-b", np.exp(1j * np.pi), -1, atol=1e-12, counterfeit=1)


# ---------------------------------------------------------------- statistical


def test_statistical_rejects(claims):
    with pytest.raises(ClaimFailed, match="p >= 0.001"):
        claims.statistical("eq-demo-a", 1e-4, alpha=1e-3, counterfeit=1e-9)
    with pytest.raises(ClaimFailed, match="a counterfeit rejected with p < 0.001"):
        claims.statistical("eq-demo-a", 0.5, alpha=1e-3, counterfeit=0.01)


def test_statistical_corrects_for_many_tests(claims):
    claims.statistical("eq-demo-a", [5e-4, 0.3, 0.6], alpha=1e-3, counterfeit=[1e-9, 0.5])
    with pytest.raises(ClaimFailed, match="counterfeit"):
        claims.statistical("eq-demo-b", 0.5, alpha=1e-3, counterfeit=[5e-4, 0.5])


@pytest.mark.parametrize("p", [math.nan, -0.1, 1.1, []])
def test_statistical_refuses_what_is_no_p_value(claims, p):
    with pytest.raises(ValueError, match="p-values lie in"):
        claims.statistical("eq-demo-a", p, alpha=1e-3, counterfeit=1e-9)
    with pytest.raises(ValueError, match="p-values lie in"):
        claims.statistical("eq-demo-a", 0.5, alpha=1e-3, counterfeit=p)


@pytest.mark.parametrize("alpha", [0, -1e-3, 0.05, 1, math.inf, math.nan])
def test_statistical_refuses_a_careless_alpha(claims, alpha):
    with pytest.raises(ValueError, match="alpha must be in"):
        claims.statistical("eq-demo-a", 0.5, alpha=alpha, counterfeit=1e-9)


# ---------------------------------------------------------------- experiment


def test_experiment_rejects_one_bad_seed_unless_the_mean_is_claimed(claims):
    effects = [0.3, 0.2, -0.1, 0.4, 0.3]
    with pytest.raises(ClaimFailed, match="every effect at least 0 over 5 seeds"):
        claims.experiment("obs-demo-c", effects, at_least=0)
    claim = claims.experiment("obs-demo-c", effects, at_least=0, statistic="mean")
    assert "the mean over seeds (5 seeds)" in claim.says
    with pytest.raises(ClaimFailed, match="mean effect at most 0.1"):
        claims.experiment("eq-demo-a", effects, at_most=0.1, statistic="mean")
    with pytest.raises(ClaimFailed, match="median effect at least 0.31"):
        claims.experiment("eq-demo-a", effects, at_least=0.31, statistic="median")


def test_experiment_rejects_nan_few_seeds_and_empty_bounds(claims):
    with pytest.raises(ClaimFailed, match="1 of 5 not finite"):
        claims.experiment("obs-demo-c", [1, 1, 1, 1, math.nan], at_least=0)
    with pytest.raises(ValueError, match="at least 5 seeds, got 4"):
        claims.experiment("obs-demo-c", [1, 1, 1, 1], at_least=0)
    with pytest.raises(ValueError, match="empty"):
        claims.experiment("obs-demo-c", [], at_least=0)
    with pytest.raises(ValueError, match="needs at_least, at_most or both"):
        claims.experiment("obs-demo-c", [1] * 5)
    for low, high in ((math.nan, None), (-math.inf, math.inf), (-math.inf, None), (2, 1)):
        with pytest.raises(ValueError, match="no effect could fail or none could pass"):
            claims.experiment("obs-demo-c", [1] * 5, at_least=low, at_most=high)
    with pytest.raises(ValueError, match="statistic must be one of"):
        claims.experiment("obs-demo-c", [1] * 5, at_least=0, statistic="best")


# ---------------------------------------------------------------- rendering


def test_the_ledger_shows_itself_in_three_ways(claims):
    GOOD["proved"](claims)
    claims.numeric("eq-demo-b", 0.5, 0.5001, rtol=1e-2, counterfeit=1, says="half <b>", rejects="one")
    bundle = claims._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", LEDGER_MIME}
    assert bundle["text/plain"].splitlines()[-1] == claims.summary()
    assert claims.summary() == "2 claims hold (1 proved, 1 numeric); 2 counterfeits were caught."
    assert "half &lt;b&gt;" in bundle["text/html"]
    record = bundle[LEDGER_MIME]
    assert record["chapter"] == "demo"
    assert record["counterfeits"] == 2
    assert record["claims"][1] == {
        "label": "eq-demo-b", "part": None, "kind": "numeric", "says": "half <b> (rtol 0.01)", "rejects": "one"
    }  # fmt: skip


def test_machine_dependent_words_stand_behind_measured(claims):
    claim = claims.numeric("eq-demo-a", 0.123456, 0.1234, rtol=1e-2, counterfeit=1)
    before, _, after = repr(claim).partition(" measured ")
    assert "0.12345" in after
    assert "0.12345" not in before
    assert "0.12345" not in str(claims._repr_mimebundle_()[LEDGER_MIME])


def test_words_may_not_hide_behind_the_mask(claims):
    for words in ("error measured 3", "two\nlines"):
        with pytest.raises(ValueError, match="leave 'measured' to its end"):
            GOOD["proved"](claims, says=words)
    assert len(claims) == 0


def test_claim_failed_carries_its_parts():
    error = ClaimFailed("eq-demo-a", "1", "2")
    assert (error.label, error.expected, error.measured) == ("eq-demo-a", "1", "2")
    assert str(error) == "eq-demo-a: expected 1; measured 2"
    assert isinstance(error, AssertionError)


def test_examples_in_the_docstrings():
    results = doctest.testmod(verify)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("text", ["62,893", "0.50", "1e3", "it's", 'a "quoted" word', "(3, 4)", "007"])
@pytest.mark.parametrize("measured", [False, True])
def test_glued_words_reach_the_page_letter_by_letter(monkeypatch, text, measured):
    import IPython.display
    from myst_nb.core.variables import format_plain_text

    published = []
    monkeypatch.setattr(IPython.display, "publish_display_data", lambda data, metadata: published.append(data))
    verify.glue("chapter-name", text, measured=measured)
    (stored,) = published[0].values()
    assert format_plain_text(stored, "") == ("measured " if measured else "") + text


# ---------------------------------------------------------------- exactly at the border (found by `make mutate`)


def test_an_error_as_large_as_the_tolerance_passes_and_a_larger_one_does_not(claims):
    claims.numeric("eq-demo-a", 1.5, 1.0, atol=0.5, counterfeit=0.75)
    claims.numeric("eq-demo-b", 1.5, 1.0, rtol=0.5, counterfeit=0.75)
    with pytest.raises(ClaimFailed, match="within atol 0.5; measured 1.75, off by 0.75"):
        claims.numeric("obs-demo-c", 1.75, 1.0, atol=0.5, counterfeit=9.0)
    with pytest.raises(ClaimFailed, match="a counterfeit off by more than atol 0.5; measured 2, off by only 0.5"):
        claims.numeric("obs-demo-c", 1.5, 1.0, atol=0.5, counterfeit=2.0)


def test_the_two_tolerances_add_up(claims):
    claims.numeric("eq-demo-a", 3.5, 2.0, rtol=0.25, atol=1.0, counterfeit=0.5)
    with pytest.raises(ClaimFailed, match=r"within rtol 0.25 \+ atol 1"):
        claims.numeric("eq-demo-b", 3.75, 2.0, rtol=0.25, atol=1.0, counterfeit=0.5)


@pytest.mark.parametrize("kind", ["numeric", "exhaustive"])
@pytest.mark.parametrize("bound", ["at_most", "at_least"])
def test_a_bound_may_be_attained_and_then_a_counterfeit_may_not(claims, kind, bound):
    cases = {"cases": 3} if kind == "exhaustive" else {}
    file = getattr(claims, kind)
    tighter = {"at_most": 0.25, "at_least": 0.75}[bound]
    assert file("eq-demo-a", 0.5, **{bound: 0.5}, **cases, counterfeit=tighter).says.startswith(
        f"{'value' if kind == 'numeric' else 'extreme value'} {bound.replace('_', ' ')} 0.5"
    )
    with pytest.raises(ClaimFailed, match="a counterfeit that fails"):
        file("eq-demo-b", 0.5, **{bound: 0.5}, **cases, counterfeit=0.5)


def test_exhaustive_equality(claims):
    claim = claims.exhaustive("eq-demo-a", 12345, cases=1000, equals=12345, counterfeit=12346)
    assert (claim.says, claim.rejects) == ("extreme value equal to 12,345 (all 1,000 cases)", "equal to 12,346")
    assert claim.measured is None
    assert claims.exhaustive("eq-demo-b", 0.5, cases=np.int64(1), equals=0.5, counterfeit=0.75).measured == "0.5"


def test_statistical_at_the_false_alarm_rate(claims):
    claims.statistical("eq-demo-a", 2.0**-10, alpha=2.0**-10, counterfeit=2.0**-11)
    with pytest.raises(ClaimFailed, match="a counterfeit rejected"):
        claims.statistical("eq-demo-b", 0.5, alpha=2.0**-10, counterfeit=2.0**-10)


def test_statistical_shows_the_corrected_p_and_refuses_one_bad_entry(claims):
    claim = claims.statistical("eq-demo-a", [0.25, 0.75, 1.0], alpha=1e-3, counterfeit=[0.0, 1.0])
    assert claim.measured == "p = 0.75, counterfeit p = 0"
    assert claims.statistical("eq-demo-b", [0.5, 0.75, 1.0], alpha=1e-3, counterfeit=0.0).measured.startswith("p = 1,")
    for bad in ([0.5, 1.5], [-0.5, 0.5], [0.5, math.nan]):
        with pytest.raises(ValueError, match="p-values lie in"):
            claims.statistical("obs-demo-c", bad, alpha=1e-3, counterfeit=0.0)


def test_experiment_bounds_may_be_attained_and_coincide(claims):
    assert claims.experiment("obs-demo-c", [2, 2, 2, 2, 2], at_least=2, at_most=2).says == (
        "effect: at least 2 and at most 2 for every seed (5 seeds)"
    )
    for effects in ([2, 2, 2, 2, 3], [1, 2, 2, 2, 2]):
        with pytest.raises(ClaimFailed, match="every effect at least 2 and at most 2"):
            claims.experiment("eq-demo-a", effects, at_least=2, at_most=2)
    assert claims.experiment("eq-demo-a", [1, 2, 3, 4, 10], at_most=4, statistic="mean").measured == (
        "mean 4, from 1 to 10"
    )
    assert claims.experiment("eq-demo-b", [1, 2, 3, 4, 10], at_most=3, statistic="median").part is None


# ---------------------------------------------------------------- exact arithmetic


def test_logarithms_split_only_where_their_arguments_are_positive(claims):
    claims.proved("eq-demo-a", sp.log(x * y) - sp.log(x), sp.log(y), counterfeit=sp.log(x))
    a, b = sp.symbols("a b", real=True)
    with pytest.raises(ClaimFailed):  # false for a = b = -1, though true at every point that is tried
        claims.proved("eq-demo-b", sp.log(a * b), sp.log(a) + sp.log(b), counterfeit=sp.log(a))


@pytest.mark.parametrize("value", [sp.oo, -sp.oo, sp.zoo, sp.nan])
def test_proved_refuses_infinity_of_either_sign(claims, value):
    with pytest.raises(ValueError, match="exact and finite"):
        claims.proved("eq-demo-a", x, x, counterfeit=value)


def test_the_points_that_refute_fit_the_symbols(claims):
    n, m = sp.symbols("n m", integer=True)
    u, v = sp.symbols("u v", negative=True)
    assert claims.proved("eq-demo-a", x - y, x - y, counterfeit=y - x).rejects.endswith("(differs at x = 1/3, y = 2/5)")
    assert claims.proved("eq-demo-a", n - m, n - m, counterfeit=0, part="b").rejects == "0 (differs at m = 2, n = 3)"
    assert claims.proved("eq-demo-a", u, u, counterfeit=v, part="c").rejects == "v (differs at u = -1/3, v = -2/5)"
    assert claims.proved("eq-demo-b", 1, 1, counterfeit=2, rejects="two").rejects == "two (differs)"


def test_a_point_that_does_not_refute_is_followed_by_others(claims):
    rejected = claims.proved("eq-demo-a", x, x, counterfeit=x + (x - sp.Rational(1, 3)) * (x - sp.Rational(2, 5)))
    assert rejected.rejects.endswith("(differs at x = 3/7)")
    with pytest.raises(ClaimFailed, match=r"a difference \(differs at x = 2/5\)"):
        claims.proved("eq-demo-b", x, sp.Rational(1, 3), counterfeit=0)


def test_a_counterfeit_may_agree_in_all_expressions_but_one(claims):
    assert claims.proved("eq-demo-a", [x, y], [x, y], counterfeit=[x, x]).rejects.endswith("x = 1/3, y = 2/5)")
    with pytest.raises(ClaimFailed, match="a difference"):
        claims.proved("eq-demo-b", [x, y], [x, x], counterfeit=[1, 1])
    with pytest.raises(ValueError, match="got 1, 1 and 2"):
        claims.proved("eq-demo-b", [x], [x], counterfeit=[1, 1])


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234567, "1,234,567"), (np.int64(1234), "1,234"), (True, "True"), (0.123456789, "0.123457"),
        (np.float32(0.5), "0.5"), (Fraction(1, 3), "1/3"), ([1, 2.5], "1, 2.5"), ("two \n lines", "two lines"),
    ],
)  # fmt: skip
def test_values_in_words(value, words):
    assert verify._show(value) == words


def test_long_words_are_cut_at_a_hundred_characters():
    assert verify._brief("a" * 100) == "a" * 100
    assert verify._brief("a" * 101) == "a" * 99 + "…"


def test_default_words_show_both_sides(claims):
    claim = claims.proved("eq-demo-a", x + x, 2 * x, counterfeit=x**2)
    assert (claim.says, claim.rejects) == ("2*x = 2*x", "x**2 (differs at x = 1/3)")
    assert claims.proved("eq-demo-b", x, x, counterfeit=y, says="one", rejects="another").says == "one"


def test_a_repeated_label_says_which_part(claims):
    claims.proved("eq-demo-a", x, x, counterfeit=y)
    claims.proved("eq-demo-a", x, x, counterfeit=y, part="two")
    with pytest.raises(ValueError, match="duplicate label 'eq-demo-a' with no part"):
        claims.proved("eq-demo-a", x, x, counterfeit=y)
    with pytest.raises(ValueError, match="duplicate label 'eq-demo-a' with part 'two'"):
        claims.proved("eq-demo-a", x, x, counterfeit=y, part="two")


def test_glued_words_are_compared_unless_they_are_measured(monkeypatch):
    import IPython.display

    published = []
    monkeypatch.setattr(IPython.display, "publish_display_data", lambda *bundle: published.append(bundle))
    verify.glue("demo-name", "12")
    ((data, metadata),) = published
    assert data == {"application/papermill.record/text/plain": "'12'"}
    assert metadata == {"scrapbook": {"name": "demo-name", "mime_prefix": "application/papermill.record/"}}


def test_words_for_the_counterfeit_of_a_bound(claims):
    assert claims.numeric("eq-demo-a", [0.1, 0.3], at_most=0.5, counterfeit=0.25).rejects == "at most 0.25"
    given = claims.numeric("eq-demo-b", [0.1, 0.3], at_least=0.1, counterfeit=0.2, rejects="a fifth")
    assert (given.rejects, given.measured) == ("a fifth", "0.1")
    assert claims.exhaustive("obs-demo-c", 3, cases=9, at_most=3, counterfeit=2, rejects="two").rejects == "two"


# ---------------------------------------------------------------- found by the complete run of `make mutate`


def test_statistical_takes_one_in_a_hundred_and_no_more(claims):
    claims.statistical("eq-demo-a", 0.5, alpha=0.01, counterfeit=1e-9)
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 0.01\], got 0.0101"):
        claims.statistical("eq-demo-b", 0.5, alpha=0.0101, counterfeit=1e-9)


def test_html_shows_the_counterfeit_and_what_was_measured_where_there_are_any():
    full = Claim("eq-demo-a", "numeric", "says", rejects="a < b", measured="error < 1", part="x < y")._repr_html_()
    assert '<span class="claim-says">x &lt; y: says</span>' in full
    assert '<span class="claim-rejects">rejects a &lt; b</span>' in full
    assert '<span class="claim-measured">measured error &lt; 1</span>' in full
    bare = Claim("eq-demo-a", "numeric", "says")._repr_html_()
    assert "claim-rejects" not in bare
    assert "claim-measured" not in bare


@pytest.mark.parametrize("bound", ["at_most", "at_least", "equals"])
@pytest.mark.parametrize("counterfeit", [math.nan, math.inf, -math.inf])
def test_exhaustive_refuses_a_counterfeit_that_no_value_could_meet(claims, bound, counterfeit):
    with pytest.raises(ClaimFailed, match="finite counterfeit"):
        claims.exhaustive("eq-demo-a", 1, cases=5, **{bound: 1}, counterfeit=counterfeit)
    assert len(claims) == 0


def test_numeric_takes_arrays_of_fractions(claims):
    thirds = [Fraction(1, 3), Fraction(2, 3)]
    claims.numeric("eq-demo-a", [1 / 3, 2 / 3], thirds, rtol=1e-12, counterfeit=[Fraction(1, 3), Fraction(3, 5)])
    with pytest.raises(ClaimFailed, match="off by 0.0667"):
        claims.numeric("eq-demo-b", [1 / 3, 0.6], thirds, rtol=1e-12, counterfeit=9)


def test_numeric_sees_imaginary_parts(claims):
    claim = claims.numeric("eq-demo-a", 1 + 2j, 1 + 2j, atol=0.5, counterfeit=1 - 2j)
    assert claim.measured.endswith("error 0, counterfeit off by 4")
    with pytest.raises(ClaimFailed, match="off by 3"):
        claims.numeric("eq-demo-b", 1 + 2j, 1 - 1j, atol=0.5, counterfeit=9)


def test_numeric_compares_small_integers_without_a_wrap(claims):
    small = np.array([1, 255], dtype=np.uint8)
    claims.numeric("eq-demo-a", small, np.array([2, 255], dtype=np.uint8), atol=1, counterfeit=0)
    with pytest.raises(ClaimFailed, match="off by 254"):  # in bytes, -255 + 1 wraps to 2
        claims.numeric("eq-demo-b", small, np.array([255, 255], dtype=np.uint8), atol=10, counterfeit=0)


def test_a_relative_tolerance_holds_on_both_sides_of_zero(claims):
    claims.numeric("eq-demo-a", [-1.5, 1.5], [-1.0, 1.0], rtol=0.5, counterfeit=[-1.0, 0.5])
    claims.numeric("eq-demo-b", [-3.0], [-2.0], rtol=0.25, atol=0.5, counterfeit=[-1.5])
    with pytest.raises(ClaimFailed, match="off by 0.75"):
        claims.numeric("obs-demo-c", [-1.75], [-1.0], rtol=0.5, counterfeit=9)


def test_an_exact_zero_hides_no_error_beside_it_and_makes_none(claims):
    claims.numeric("eq-demo-a", [0.0, 1.05], [0.0, 1.0], rtol=0.1, counterfeit=[0.0, 2.0])
    claims.numeric("eq-demo-b", [0.0, 0.0], [0.0, 0.0], rtol=0.1, counterfeit=[0.0, 1e-300])
    with pytest.raises(ClaimFailed, match="off by 1"):
        claims.numeric("obs-demo-c", [0.0, 1.0], [0.0, 2.0], rtol=0.1, counterfeit=9)
    with pytest.raises(ClaimFailed, match="a counterfeit off by more than rtol 0.1"):
        claims.numeric("obs-demo-c", [0.0, 1.0], [0.0, 1.0], rtol=0.1, counterfeit=[0.0, 1.05])


def test_proved_knows_identities_that_only_a_rewriting_or_only_algebraic_numbers_decide(claims, monkeypatch):
    heptagon = sum(sign * sp.cos(n * sp.pi / 7) for n, sign in ((1, 1), (2, -1), (3, 1)))
    claims.proved("eq-demo-a", heptagon, sp.Rational(1, 2), counterfeit=sp.Rational(1, 3))
    monkeypatch.setattr(sp.Expr, "equals", lambda self, other: None)
    for n, (lhs, rhs) in enumerate(
        [
            ((x + y) ** 2, x**2 + 2 * x * y + y**2),
            ((x**2 - y**2) / (x - y), x + y),
            (sp.sin(x) ** 2, 1 - sp.cos(x) ** 2),
            (sp.log(x / y), sp.log(x) - sp.log(y)),
        ]
    ):
        claims.proved("eq-demo-b", lhs, rhs, counterfeit=rhs + 1, part=f"{n}")
    with pytest.raises(ClaimFailed, match="SymPy cannot decide"):
        claims.proved("obs-demo-c", heptagon, sp.Rational(1, 2), counterfeit=1)


def test_a_counterfeit_must_be_off_by_more_than_what_rounding_could_explain(claims):
    tiny = sp.Rational(1, 10**30)
    claims.proved("eq-demo-a", x, x, counterfeit=x + 2 * tiny)
    with pytest.raises(ClaimFailed, match="a counterfeit that a rational point refutes"):
        claims.proved("eq-demo-b", 0, 0, counterfeit=tiny)
    with pytest.raises(ClaimFailed, match="measured a difference"):
        claims.proved("eq-demo-b", 0, tiny, counterfeit=1)
