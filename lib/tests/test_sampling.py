"""Tests of explainers.sampling: brute force, laws, peers and bad input."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb, inf, log, prod

import numpy as np
import pytest
from scipy import stats

from explainers import sampling
from explainers._sampling_exact import _systematic
from explainers._sampling_mcmc import _swaps
from explainers.sampling import (
    Automaton,
    ExactSampler,
    NgramLM,
    SentenceSampler,
    asymptotic_variance,
    crack_substitution,
    critical_depth,
    detailed_balance_gap,
    gibbs_kernel,
    importance_ess,
    locally_balanced_proposal,
    metropolis,
    mh_kernel,
    mixing_time,
    pseudo_gibbs_law,
    spectral_gap,
    stationary,
    transfer_matrix,
    tv_distance,
    twisted_smc,
)

ALPHA = 1e-6  # false-alarm rate of every statistical test below


def fractions(values):
    array = np.asarray(values)
    exact = np.empty(array.shape, dtype=object)
    exact.flat = [Fraction(int(v)) for v in array.flat]
    return exact


def exact_kernel(rng, n):
    q = fractions(rng.integers(0, 6, (n, n)) + np.eye(n, dtype=int))
    return q / q.sum(1)[:, None]


def random_transfer(rng, size):
    T = rng.random((size + 1, size + 1)) + 0.05
    return T / T.sum(1, keepdims=True)


def enumerate_strings(T, lengths, automaton=None):
    every = sampling.strings(len(T) - 1, lengths)
    kept = [s for s in every if automaton is None or automaton.run(s)]
    return kept, np.array([sampling.path_weight(T, s) for s in kept])


def counts_p_value(counts, law):
    expected = law * counts.sum()
    rare = expected < 5
    pool = lambda v: np.append(v[~rare], v[rare].sum()) if rare.any() else v  # noqa: E731
    return stats.chisquare(pool(counts), pool(expected)).pvalue


# ---------------------------------------------------------------------- finite chains


@pytest.mark.parametrize("rule", ["metropolis", "barker", "product"])
def test_every_rule_has_the_target_as_its_law_exactly(rule):
    rng = np.random.default_rng(0)
    w = fractions(rng.integers(1, 9, 7))
    pi = w / w.sum()
    P = mh_kernel(pi, exact_kernel(rng, 7), rule)
    assert all(isinstance(p, Fraction) for p in P.flat)
    assert (P.sum(1) == 1).all()
    assert detailed_balance_gap(P, pi) == 0
    assert (stationary(P) == pi).all()


def test_one_way_proposals_are_never_accepted():
    P = mh_kernel([1.0, 1.0, 1.0], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert (np.eye(3) == P).all()


def test_a_state_of_weight_zero_is_left_and_never_entered():
    P = mh_kernel([0.0, 1.0, 3.0], np.full((3, 3), 1 / 3))
    assert (P[1:, 0] == 0).all()
    assert np.allclose(stationary(P), [0, 0.25, 0.75])


def test_gibbs_is_metropolis_hastings_without_rejection():
    w = fractions(np.random.default_rng(1).integers(1, 9, (2, 3, 2)))
    G = gibbs_kernel(w)
    assert (mh_kernel(w.ravel(), G) == G).all()


def test_scans_are_stationary_and_only_palindromes_reversible():
    w = fractions(np.random.default_rng(2).integers(1, 9, (2, 2, 3)))
    pi = w.ravel() / w.sum()
    sweep, there_and_back = gibbs_kernel(w, (0, 1, 2)), gibbs_kernel(w, (0, 1, 2, 1, 0))
    assert (pi @ sweep == pi).all()
    assert detailed_balance_gap(sweep, pi) > 0
    assert detailed_balance_gap(there_and_back, pi) == 0


def test_stationary_agrees_with_eigenvectors_and_zeroes_transient_states():
    rng = np.random.default_rng(3)
    P = rng.random((6, 6))
    P[2:, :2] = 0  # states 0 and 1 are left for ever
    P /= P.sum(1, keepdims=True)
    values, vectors = np.linalg.eig(P.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    assert np.allclose(stationary(P), vector / vector.sum())
    assert (stationary(P)[:2] == 0).all()


@pytest.mark.parametrize("eps", [0.3, 0.1, 0.01])
def test_mixing_time_is_the_first_time(eps):
    rng = np.random.default_rng(4)
    P = mh_kernel(rng.random(8), np.full((8, 8), 1 / 8))
    worst = lambda t: 0.5 * np.abs(np.linalg.matrix_power(P, t) - stationary(P)).sum(1).max()  # noqa: E731
    t = mixing_time(P, eps)
    assert worst(t) <= eps < worst(t - 1)


def test_spectral_gap_of_a_two_state_chain():
    P = np.array([[0.1, 0.9], [0.8, 0.2]])  # eigenvalues 1 and -0.7
    assert np.isclose(spectral_gap(P), 0.3)
    assert np.isclose(spectral_gap(P, absolute=False), 1.7)


def test_asymptotic_variance_of_independent_draws_is_the_variance():
    pi, f = np.array([0.2, 0.3, 0.5]), np.array([1.0, -1.0, 4.0])
    assert np.isclose(asymptotic_variance(np.tile(pi, (3, 1)), f), pi @ f**2 - (pi @ f) ** 2)


def test_asymptotic_variance_sums_autocovariances_of_an_irreversible_chain():
    rng = np.random.default_rng(5)
    P = rng.random((5, 5)) ** 3
    P /= P.sum(1, keepdims=True)
    pi, f = stationary(P), rng.random(5)
    g = f - pi @ f
    lags = [pi @ (g * (np.linalg.matrix_power(P, k) @ g)) for k in range(300)]
    assert np.isclose(asymptotic_variance(P, f), 2 * sum(lags) - lags[0], rtol=1e-10)


@pytest.mark.parametrize("g", ["uniform", "sqrt", "barker", "min"])
def test_proposals_by_their_definition(g):
    w = np.array([1.0, 4.0, 2.0, 0.0])
    near = ~np.eye(4, dtype=bool)
    ratio = {"uniform": lambda t: 1.0, "sqrt": np.sqrt, "barker": lambda t: t / (1 + t), "min": lambda t: min(1, t)}[g]
    q = locally_balanced_proposal(w, near, g)
    row = np.array([0, ratio(4.0), ratio(2.0), ratio(0.0)])
    assert np.allclose(q[0], row / row.sum())
    assert np.allclose(q.sum(1), 1)
    assert np.isfinite(q).all()


def test_critical_depth_against_widest_paths():
    rng = np.random.default_rng(6)
    for _ in range(10):
        f = rng.random(12)
        near = np.triu(rng.random((12, 12)) < 0.2, 1)
        near |= np.eye(12, k=1, dtype=bool)
        near |= near.T
        width = np.where(near | np.eye(12, dtype=bool), np.minimum(f[:, None], f), -inf)
        for k in range(12):
            width = np.maximum(width, np.minimum(width[:, k : k + 1], width[k]))
        depth = np.where(f[None] > f[:, None], f[:, None] - width, inf).min(1)
        assert np.isclose(critical_depth(f, near), max([0, *depth[np.isfinite(depth)]]))


def test_two_global_maxima_have_no_depth():
    path = np.eye(3, k=1, dtype=bool) | np.eye(3, k=-1, dtype=bool)
    assert critical_depth([1.0, 0.0, 1.0], path) == 0


def test_true_conditionals_give_back_their_joint_in_any_order():
    joint = np.random.default_rng(7).random((3, 4, 2))
    joint /= joint.sum()
    conditionals = [joint / joint.sum(i, keepdims=True) for i in range(3)]
    for scan in ("random", (0, 1, 2), (2, 0, 1)):
        assert tv_distance(pseudo_gibbs_law(conditionals, scan), joint) < 1e-9


def test_inconsistent_conditionals_depend_on_the_order_by_the_formula():
    a, b, c, d = 0.2, 0.7, 0.35, 0.9
    px = np.array([[1 - a, 1 - b], [a, b]])
    py = np.array([[1 - c, c], [1 - d, d]])
    delta = b * (1 - a) * c * (1 - d) - a * (1 - b) * d * (1 - c)
    difference = pseudo_gibbs_law([px, py], (0, 1)) - pseudo_gibbs_law([px, py], (1, 0))
    assert np.allclose(difference, delta / (1 - (b - a) * (d - c)) * np.array([[-1, 1], [1, -1]]))


def test_importance_ess_does_not_change_with_the_scale():
    lw = np.random.default_rng(8).normal(size=50)
    w = np.exp(lw)
    assert np.isclose(importance_ess(lw + 5000), w.sum() ** 2 / (w**2).sum())


# ---------------------------------------------------------------------- language model


def corpus_of(rng, n, size):
    return [rng.integers(0, size, rng.integers(1, 9)) for _ in range(n)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_and_match_the_table(order):
    rng = np.random.default_rng(9)
    lm = NgramLM(order).fit(corpus_of(rng, 40, 4), 4)
    contexts = np.array(list(itertools.product(range(5), repeat=order - 1)), dtype=int)
    rows = lm.rows(contexts)
    assert np.allclose(rows.sum(1), 1)
    assert np.allclose(rows.reshape((5,) * order), lm.table())
    tokens = rng.integers(0, 5, len(contexts))
    assert np.allclose(lm.prob(contexts, tokens), rows[np.arange(len(contexts)), tokens])


@pytest.mark.parametrize("order", [2, 3])
def test_equals_nltk(order):
    from nltk.lm import KneserNeyInterpolated
    from nltk.util import everygrams

    rng = np.random.default_rng(10)
    lines = corpus_of(rng, 25, 5)
    text = [["s"] * (order - 1) + [str(t) for t in line] + ["e"] for line in lines]
    peer = KneserNeyInterpolated(order, discount=0.6)
    grams = [[g for g in everygrams(line, max_len=order) if g[-1] != "s"] for line in text]
    peer.fit(grams, {t for line in text for t in line})
    ours = NgramLM(order, discount=0.6).fit(lines, 5)
    expected = [
        sum(log(peer.score(line[k], line[k - order + 1 : k])) for k in range(order - 1, len(line))) for line in text
    ]
    assert np.allclose(ours.score(lines), expected, rtol=1e-10)


def test_discount_is_estimated_from_singletons():
    lm = NgramLM(1).fit([[0, 0, 1]], 2)
    assert np.allclose(lm.base, [0.5, 0.25, 0.25])
    counts = np.array([1, 1, 1, 2, 5])
    from explainers._sampling_ngram import _discount

    assert _discount(counts) == 3 / 5


def test_samples_follow_the_model():
    rng = np.random.default_rng(11)
    lm = NgramLM(3).fit(corpus_of(rng, 30, 2), 2)
    every = [(), *sampling.strings(2, (1, 3))]
    law = np.exp(lm.score(every))
    tokens, lengths = lm.sample(40_000, rng, 3)
    index = {s: k for k, s in enumerate(every)}
    found = [index[tuple(row[:n])] if n >= 0 else len(every) for row, n in zip(tokens.tolist(), lengths)]
    counts = np.bincount(found, minlength=len(every) + 1)
    assert counts_p_value(counts, np.append(law, 1 - law.sum())) > ALPHA


@pytest.mark.parametrize("boundary", [True, False])
def test_a_score_is_the_sum_of_log_probabilities(boundary):
    rng = np.random.default_rng(28)
    lm = NgramLM(3).fit(corpus_of(rng, 30, 4), 4, boundary)
    lines = [[], [1], [3, 3, 0, 2], [], [2, 1], [0, 1, 2]]
    padded = [[4, 4, *line, 4] if boundary else line for line in lines]
    expected = [sum(np.log(lm.table()[tuple(s[k - 2 : k + 1])]) for k in range(2, len(s))) for s in padded]
    assert np.allclose(lm.score(lines), expected)


def test_streams_have_no_boundary():
    lm = NgramLM(2).fit([np.array([0, 1, 2, 0, 1])], 3, boundary=False)
    assert lm.table().shape == (3, 3)
    assert np.allclose(lm.table().sum(1), 1)
    assert np.isclose(lm.score([[0, 1]])[0], np.log(lm.table()[0, 1]))


def test_an_unseen_word_has_probability_zero():
    lm = NgramLM(2).fit([[0, 1]], 3)
    assert lm.score([[2]])[0] == -inf
    assert lm.perplexity([[0], [2]]) == inf


def test_transfer_matrix_is_an_elementwise_power():
    lm = NgramLM(2).fit([[0, 1], [1, 1, 0]], 2)
    assert np.allclose(transfer_matrix(lm, 2.0), transfer_matrix(lm) ** 2)


# ---------------------------------------------------------------------- exact constrained text


@pytest.mark.parametrize("exactly_once", [False, True])
def test_keyword_automaton_by_definition(exactly_once):
    auto = Automaton.keywords([2, 0], 3, exactly_once)
    for s in sampling.strings(3, (1, 5)):
        times = [s.count(2), s.count(0)]
        assert auto.run(s) == (times == [1, 1] if exactly_once else min(times) > 0)


@pytest.mark.parametrize("lengths", [(1, 5), (4, 4), (2, 4)])
@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_exact_sampler_against_enumeration(lengths, power):
    T = random_transfer(np.random.default_rng(12), 3) ** power
    auto = Automaton.keywords([1, 2], 3)
    law = ExactSampler(T, lengths, auto)
    every, w = enumerate_strings(T, lengths, auto)
    assert abs(law.log_z - np.log(w.sum())) < 1e-12
    by_length = np.bincount([len(s) for s in every], w, minlength=lengths[1] + 1)[lengths[0] :] / w.sum()
    assert np.allclose(law.length_law(), by_length, rtol=1e-12, atol=1e-300)
    best, score = law.best()
    assert tuple(best) == every[w.argmax()]
    assert np.isclose(score, np.log(w.max()))


def test_exact_samples_follow_the_law():
    rng = np.random.default_rng(13)
    T, auto = random_transfer(rng, 3), Automaton.keywords([1], 3)
    law = ExactSampler(T, (1, 4), auto)
    every, w = enumerate_strings(T, (1, 4), auto)
    tokens, lengths = law.sample(60_000, rng)
    index = {s: k for k, s in enumerate(every)}
    counts = np.bincount([index[tuple(r[:n])] for r, n in zip(tokens.tolist(), lengths)], minlength=len(every))
    assert counts_p_value(counts, w / w.sum()) > ALPHA
    assert ((tokens == -1) == (np.arange(4) >= lengths[:, None])).all()


def test_mask_of_allowed_tokens():
    rng = np.random.default_rng(14)
    T, allowed = random_transfer(rng, 4), rng.random((3, 4)) < 0.6
    allowed[:, 0] = True
    every, w = enumerate_strings(T, (3, 3))
    keep = np.array([all(allowed[i, t] for i, t in enumerate(s)) for s in every])
    law = ExactSampler(T, 3, allowed=allowed)
    assert np.isclose(law.log_z, np.log(w[keep].sum()))
    assert np.isclose(law.best()[1], np.log(w[keep].max()))
    assert np.isclose(law.length_law()[0], 1)


def test_long_sentences_do_not_underflow():
    T = np.array([[0.3, 0.3, 0.4], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]])
    law = ExactSampler(T, 3000)
    vector, total = T[2, :2], 0.0
    for _ in range(2999):
        vector = vector @ T[:2, :2]
        total += np.log(vector.sum())
        vector = vector / vector.sum()
    assert np.isclose(law.log_z, total + np.log(vector @ T[:2, 2]), rtol=1e-12)
    assert np.isfinite(law.best()[1])
    assert np.isclose(ExactSampler(T, (1, 3000)).length_law().sum(), 1)


# ---------------------------------------------------------------------- edits


@pytest.mark.parametrize("moves", [(1 / 3, 1 / 3, 1 / 3), (0.2, 0.5, 0.3), (0.1, 0.2, 0.7)])
def test_edits_keep_the_target(moves):
    """Chains that start from the exact law stay there; a single wrong factor would move them."""
    rng = np.random.default_rng(15)
    T, auto = random_transfer(rng, 3), Automaton.keywords([1, 2], 3)
    every, w = enumerate_strings(T, (2, 5), auto)
    law = ExactSampler(T, (2, 5), auto)
    tokens, lengths = law.sample(8000, rng)
    editor = SentenceSampler(T, (2, 5), [1, 2], moves)
    tokens, lengths = editor.run(8000, 25, rng, init=[r[:n] for r, n in zip(tokens.tolist(), lengths)])
    index = {s: k for k, s in enumerate(every)}
    counts = np.bincount([index[tuple(r[:n])] for r, n in zip(tokens.tolist(), lengths)], minlength=len(every))
    assert counts_p_value(counts, w / w.sum()) > ALPHA
    assert all(0 < rate <= 1 for rate in editor.acceptance.values())


def test_edits_reach_the_target_from_one_sentence():
    rng = np.random.default_rng(16)
    T = random_transfer(rng, 3)
    every, w = enumerate_strings(T, (1, 4))
    tokens, lengths = SentenceSampler(T, (1, 4)).run(8000, 120, rng, init=[0])
    index = {s: k for k, s in enumerate(every)}
    counts = np.bincount([index[tuple(r[:n])] for r, n in zip(tokens.tolist(), lengths)], minlength=len(every))
    assert counts_p_value(counts, w / w.sum()) > ALPHA


def test_log_weight_of_sentences():
    T = random_transfer(np.random.default_rng(17), 3)
    editor = SentenceSampler(T, (1, 3), [2])
    got = editor.log_weight([[0, 2, -1], [0, 1, -1], [2, 2, 2]], [2, 2, 3])
    assert np.allclose(got, [np.log(sampling.path_weight(T, (0, 2))), -inf, np.log(sampling.path_weight(T, (2,) * 3))])


def test_trace_has_one_row_per_record():
    editor = SentenceSampler(random_transfer(np.random.default_rng(18), 3), (1, 4))
    editor.run(5, 20, np.random.default_rng(0), record=4)
    assert editor.length_trace.shape == (5, 5)


@pytest.mark.parametrize("mistake", ["no q", "off by one", "no moves", "skip rejected", "locked"])
def test_edit_chain_rows(mistake):
    T = fractions([[1, 3, 3, 1], [1, 2, 4, 1], [1, 1, 2, 4], [4, 2, 1, 1]]) / 8
    chain = sampling.edit_chain(T, (1, 3), [2], mistake=mistake)
    assert (chain.kernel.sum(1) == 1).all()
    assert (chain.kernel >= 0).all()


def test_right_edit_chain_balances_and_the_locked_one_follows_its_formula():
    T = fractions([[1, 3, 3, 1], [1, 2, 4, 1], [1, 1, 2, 4], [4, 2, 1, 1]]) / 8
    moves = Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)
    right = sampling.edit_chain(T, (1, 4), [2], moves)
    w = np.array([sampling.path_weight(T, s) for s, _ in right.states])
    assert detailed_balance_gap(right.kernel, w / w.sum()) == 0
    locked = sampling.edit_chain(T, (2, 4), [2, 0], mistake="locked")
    v = np.array([sampling.path_weight(T, s) / comb(len(s), 2) for s, _ in locked.states])
    assert detailed_balance_gap(locked.kernel, v / v.sum()) == 0
    for s, p in locked.sentence_law(v).items():
        assert p == sampling.path_weight(T, s) * sampling.embeddings([2, 0], s) / comb(len(s), 2)


# ---------------------------------------------------------------------- general samplers


def test_metropolis_follows_a_law_with_an_asymmetric_proposal():
    rng = np.random.default_rng(19)
    w, q = rng.random(6), rng.random((6, 6)) + 0.1
    q /= q.sum(1, keepdims=True)

    def propose(x, rng):
        y = (np.cumsum(q, 1)[x] < rng.random((len(x), 1))).sum(1)
        return y, np.log(q[y, x]) - np.log(q[x, y])

    run = metropolis(lambda x: np.log(w)[x], propose, np.zeros(20_000, int), 60, rng, keep_every=20)
    assert run.states.shape == (3, 20_000)
    assert counts_p_value(np.bincount(run.x, minlength=6), w / w.sum()) > ALPHA
    assert (run.best_log_weight >= run.log_weight).all()


def test_temperature_divides_log_weights_only():
    rng = np.random.default_rng(20)
    w = np.array([1.0, 2.0, 5.0])
    q = np.array([[0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.5, 0.2, 0.3]])

    def propose(x, rng):
        y = (np.cumsum(q, 1)[x] < rng.random((len(x), 1))).sum(1)
        return y, np.log(q[y, x]) - np.log(q[x, y])

    run = metropolis(lambda x: np.log(w)[x], propose, np.zeros(20_000, int), 60, rng, temperature=0.5)
    assert counts_p_value(np.bincount(run.x, minlength=3), w**2 / (w**2).sum()) > ALPHA


def test_smc_is_unbiased_and_exact_with_the_exact_twist():
    rng = np.random.default_rng(21)
    lines = corpus_of(rng, 60, 3)
    two, three = (NgramLM(k).fit(lines, 3) for k in (2, 3))
    auto = Automaton.keywords([1, 2], 3)
    guide = ExactSampler(transfer_matrix(two), 5, auto)
    z = np.exp(three.score([s for s in sampling.strings(3, (5, 5)) if auto.run(s)])).sum()
    for twist in (True, False):
        found = [np.exp(twisted_smc(three, guide, 40, rng, twist=twist)[0]) for _ in range(200)]
        assert stats.ttest_1samp(found, z).pvalue > ALPHA
    log_z, tokens, log_w = twisted_smc(two, guide, 20, rng)
    assert abs(log_z - guide.log_z) < 1e-10
    assert np.ptp(log_w) < 1e-10
    assert all(auto.run(row) for row in tokens)


def test_smc_says_so_when_everything_dies():
    lm = NgramLM(2).fit([[0, 0], [0], [1]], 2)
    T = transfer_matrix(lm)
    guide = ExactSampler(T, 3, Automaton.keywords([1], 2))
    dead = [twisted_smc(lm, guide, 1, np.random.default_rng(s), twist=False)[0] for s in range(20)]
    assert -inf in dead


def test_crack_finds_the_best_of_all_keys():
    rng = np.random.default_rng(22)
    table = np.log(rng.dirichlet(np.full(4, 2.0), 4))
    cipher = rng.integers(4, size=40)
    score = lambda key: table[np.array(key)[cipher[:-1]], np.array(key)[cipher[1:]]].sum()  # noqa: E731
    keys, scores = crack_substitution(cipher, table, rng, chains=8, steps=600, temperature=(5, 1))
    assert np.isclose(scores[0], max(score(k) for k in itertools.permutations(range(4))))
    assert np.allclose(scores, [score(k) for k in keys])
    assert (np.diff(scores) <= 0).all()


def test_swaps_of_a_cipher_follow_the_temperature_over_all_blocks(monkeypatch):
    monkeypatch.setattr("explainers._sampling_mcmc.AHEAD", 300)
    heat = np.geomspace(5, 0.1, 1000)
    i, j, threshold = (np.array(part) for part in zip(*_swaps(heat, 6, 4, np.random.default_rng(29))))
    assert i.shape == j.shape == threshold.shape == (1000, 6)
    pairs = np.bincount((4 * i + j).ravel(), minlength=16).reshape(4, 4)
    assert not np.diag(pairs).any()
    assert stats.chisquare(pairs[~np.eye(4, dtype=bool)]).pvalue > ALPHA
    for steps in np.split(-threshold / heat[:, None], 5):  # exponential with mean 1 at every temperature
        assert stats.kstest(steps.ravel(), "expon").pvalue > ALPHA


def test_crack_scores_trigrams():
    rng = np.random.default_rng(23)
    table, cipher = np.log(rng.dirichlet(np.ones(4), (4, 4))), rng.integers(4, size=30)
    keys, scores = crack_substitution(cipher, table, rng, chains=3, steps=5)
    plain = keys[0][cipher]
    assert np.isclose(scores[0], table[plain[:-2], plain[1:-1], plain[2:]].sum())


# ---------------------------------------------------------------------- small worlds and text


def test_exact_annealing_equals_matrix_products():
    f = np.random.default_rng(24).random(8)
    near = sampling.string_neighbours(2, 3)
    mask = np.zeros((8, 8), dtype=bool)
    mask[np.arange(8)[:, None], near] = True
    law = np.full(8, 1 / 8)
    for tau in (1.0, 0.3, 0.1):
        law = law @ mh_kernel(np.exp(f / tau), mask / 3)
    assert np.allclose(sampling.anneal_exactly(f, near, [1.0, 0.3, 0.1]), law)


def test_order_weights_against_all_orders():
    p = np.random.default_rng(30).random((2, 5, 5, 5))
    paths = [(4, 4, *order, 4) for order in itertools.permutations(range(4))]
    weights = np.array([[prod(q[path[k : k + 3]] for k in range(5)) for path in paths] for q in p])
    total, best = sampling.order_weights(p)
    assert np.allclose(total, weights.sum(1))
    assert np.allclose(best, weights.max(1))


def test_order_weights_of_bigrams_equal_the_automaton():
    T = random_transfer(np.random.default_rng(31), 5)
    law = ExactSampler(T, 5, Automaton.keywords(range(5), 5, exactly_once=True))
    total, best = sampling.order_weights(np.broadcast_to(T, (6, 6, 6)))
    assert np.isclose(np.log(total), law.log_z)
    assert np.isclose(np.log(best), law.best()[1])


def test_neighbours_differ_in_one_place():
    every = sampling.strings(3, (2, 2))
    for s, row in zip(every, sampling.string_neighbours(3, 2)):
        assert sorted(row) == [k for k, t in enumerate(every) if sum(a != b for a, b in zip(s, t)) == 1]


def test_sentences_are_plain():
    class Texts:
        def prose(self):
            return ["The sum of x. Return the mean (of 2 values).\nuse `code` here. The sum of x.", "Too short."]

    assert sampling.sentences(Texts()) == [
        ["the", "sum", "of", "x", "."],
        ["return", "the", "mean", "(", "of", "2", "values", ")", "."],
    ]


def test_word_lab_keeps_out_what_training_has_not_seen():
    lines = [["a", "b", "c"], ["a", "c", "b"], ["b", "a"], ["a", "a", "c"]]
    lab = sampling.word_lab(lines, 3, held_out=1)
    assert len(lab.train) == 3
    assert lab.text(lab.ids("a b") + [-1]) == "a b"
    with pytest.raises(ValueError, match="hold out"):
        sampling.word_lab(lines, 3, held_out=4)


def test_letters_and_back():
    assert sampling.spell(sampling.letters([["a", ",", "b2c"]])) == "a b c"


# ---------------------------------------------------------------------- bad input

HALF = np.full((2, 2), 0.5)
UNIFORM = np.full((4, 4), 0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mh_kernel([1, 1], np.ones((2, 3))), "square"),
        (lambda: mh_kernel([1, 1], [[0.5, 0.4], [0.5, 0.5]]), "row 0"),
        (lambda: mh_kernel([1, -1], HALF), "weights"),
        (lambda: mh_kernel([1, 1, 1], HALF), "weights"),
        (lambda: mh_kernel([1, 1], [[1.5, -0.5], [0.5, 0.5]]), "negative"),
        (lambda: mh_kernel([1, 1], HALF, "glauber"), "glauber"),
        (lambda: mh_kernel([5, 5], HALF, "product"), "normalised"),
        (lambda: stationary(np.eye(3)), "3 closed classes"),
        (lambda: spectral_gap(np.eye(2)), "2 closed classes"),
        (lambda: spectral_gap(np.roll(np.eye(3), 1, 1) / 2 + np.eye(3) / 2), "not reversible"),
        (lambda: mixing_time([[0, 1], [1, 0]]), "period is 2"),
        (lambda: mixing_time(np.eye(2)), "closed classes"),
        (lambda: mixing_time(HALF, 1.5), "eps"),
        (lambda: gibbs_kernel(np.ones((2, 2)), (0, 5)), "axes"),
        (lambda: tv_distance([1], [0.5, 0.5]), "shape"),
        (lambda: locally_balanced_proposal([1, 1], np.ones((2, 2), bool)), "diagonal"),
        (lambda: locally_balanced_proposal([1, 1], np.array([[0, 1], [0, 0]], bool)), "symmetric"),
        (lambda: locally_balanced_proposal([1, 1], ~np.eye(2, dtype=bool), "cubic"), "cubic"),
        (lambda: critical_depth([1, 2], np.zeros((2, 2), bool)), "not connected"),
        (lambda: pseudo_gibbs_law([HALF, np.ones((2, 2))]), "conditional 1"),
        (lambda: importance_ess([np.nan, 0]), "nan"),
        (lambda: NgramLM(0), "order"),
        (lambda: NgramLM(2, discount=1.0), "discount"),
        (lambda: NgramLM(2).fit([[0, 3]], 3), "0..2, got 3"),
        (lambda: NgramLM(5).fit([[0]], 100_000), "64-bit"),
        (lambda: NgramLM(3).fit([[0]], 1000).table(), "too large"),
        (lambda: NgramLM(2).prob([[0]], [0]), "not fitted"),
        (lambda: NgramLM(2).fit([[0]], 2).prob([[0, 0]], [0]), "contexts"),
        (lambda: transfer_matrix(NgramLM(3).fit([[0]], 2)), "order 2"),
        (lambda: Automaton.keywords([7], 3), "keyword 7"),
        (lambda: Automaton.keywords([1, 1], 3), "twice"),
        (lambda: Automaton([[0, 2]], [True]), "next_state"),
        (lambda: Automaton.keywords([1], 3).run([5]), "got 5"),
        (lambda: ExactSampler(UNIFORM, 2, Automaton.keywords([0, 1, 2], 3)), "total weight is zero"),
        (lambda: ExactSampler(UNIFORM, (0, 2)), "lo"),
        (lambda: ExactSampler(UNIFORM, 2, allowed=np.ones((3, 3))), "allowed"),
        (lambda: ExactSampler(UNIFORM, 2, Automaton.keywords([0], 2)), "automaton"),
        (lambda: ExactSampler(-UNIFORM, 2), "negative"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), moves=(0.5, 0.5, 0.5)), "moves"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), moves=(0.5, 0.5, 0.0)), "reverse"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), [9]), "keyword 9"),
        (lambda: SentenceSampler(UNIFORM, (1, 2), [0, 1, 2]), "do not fit"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), [2]).run(2, 1, np.random.default_rng(0), init=[0, 1]), "constraints"),
        (lambda: SentenceSampler(UNIFORM, (1, 3)).run(2, 1, np.random.default_rng(0), init=[0] * 4), "at most 3"),
        (
            lambda: metropolis(lambda x: np.full(2, -inf), None, np.zeros(2), 1, np.random.default_rng(0)),
            "weight zero",
        ),
        (lambda: metropolis(lambda x: np.full(2, np.nan), None, np.zeros(2), 1, np.random.default_rng(0)), "nan"),
        (
            lambda: metropolis(lambda x: np.zeros(2), None, np.zeros(2), 1, np.random.default_rng(0), temperature=0),
            "temperature",
        ),
        (lambda: crack_substitution([0, 1], np.full((2, 2), -inf), np.random.default_rng(0)), "smooth"),
        (lambda: crack_substitution([0, 5], np.zeros((2, 2)), np.random.default_rng(0)), "got 5"),
        (
            lambda: crack_substitution([0, 1], np.zeros((2, 2)), np.random.default_rng(0), temperature=(1, 0)),
            "positive",
        ),
        (
            lambda: crack_substitution([0, 1], np.zeros((2, 2)), np.random.default_rng(0), start=[0, 0]),
            "permutation",
        ),
        (
            lambda: twisted_smc(
                NgramLM(2).fit([[0, 1]], 3), ExactSampler(UNIFORM, (1, 2)), 5, np.random.default_rng(0)
            ),
            "one fixed length",
        ),
        (lambda: sampling.edit_chain(UNIFORM, (1, 2), mistake="typo"), "typo"),
        (lambda: sampling.order_weights(np.ones((3, 4, 4))), "shape"),
        (lambda: sampling.order_weights(np.ones((14, 14, 14))), "1 to 12"),
        (lambda: sampling.order_weights(-np.ones((3, 3, 3))), "negative"),
        (lambda: sampling.encode([["x"]], ["a"]), "vocabulary"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_path_weight_is_a_product():
    T = random_transfer(np.random.default_rng(25), 2)
    assert np.isclose(sampling.path_weight(T, (0, 1)), prod([T[2, 0], T[0, 1], T[1, 2]]))


# ---------------------------------------------------------------------- found by `make mutate`


@pytest.mark.parametrize("t", range(41))
def test_mixing_time_of_a_chain_whose_distance_halves_at_each_step(t):
    assert mixing_time([[0.75, 0.25], [0.25, 0.75]], 2.0 ** -(t + 1)) == t


def test_chains_of_one_state_and_of_independent_draws():
    assert (mixing_time([[1.0]]), spectral_gap([[1.0]])) == (0, 1.0)
    assert mixing_time(np.full((8, 8), 1 / 8), 0.01) == 1
    assert detailed_balance_gap([[1, 0], [0, 1]], [0.5, 0.5]) == 0
    assert detailed_balance_gap([[0.5, 0.5], [0.25, 0.75]], [0.5, 0.5]) == 0.125


@pytest.mark.parametrize("eps", [0.0, 1.0, -0.1])
def test_mixing_time_refuses_an_eps_at_the_border(eps):
    with pytest.raises(ValueError, match="eps must be in"):
        mixing_time([[0.5, 0.5], [0.5, 0.5]], eps)


def test_a_period_is_named():
    with pytest.raises(ValueError, match="its period is 3"):
        mixing_time(np.roll(np.eye(3), 1, 1))
    two_cycles = np.zeros((5, 5))  # cycles of lengths 2 and 3 through state 0: the period is 1
    two_cycles[[0, 0, 1, 2, 3, 4], [1, 2, 0, 3, 0, 0]] = [0.5, 0.5, 1, 1, 1, 1]
    assert mixing_time(two_cycles) > 1


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_are_finite_and_not_all_zero(weights):
    with pytest.raises(ValueError, match="weights"):
        mh_kernel(weights, np.full((2, 2), 0.5))


@pytest.mark.parametrize("scan", ["rows", (), (-1,), (2,)])
def test_a_scan_names_axes(scan):
    with pytest.raises(ValueError, match=r"axes in 0\.\.1"):
        gibbs_kernel(np.ones((2, 2)), scan)


def test_gibbs_by_hand_where_a_line_is_empty():
    w = fractions([[1, 3], [0, 0]])
    columns, rows = gibbs_kernel(w, (0,)), gibbs_kernel(w, (1,))
    assert rows.tolist() == (fractions([[1, 3, 0, 0], [1, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]]) / 4).tolist()
    assert columns.tolist() == fractions([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]).tolist()
    assert (gibbs_kernel(w) == (rows + columns) / 2).all()
    assert (gibbs_kernel(w, (1, 0)) == rows @ columns).all()
    assert np.allclose(gibbs_kernel(w.astype(float)), gibbs_kernel(w).astype(float))


def test_exact_weights_with_a_proposal_in_floats_give_floats():
    kernel = mh_kernel([Fraction(1), Fraction(3)], np.full((2, 2), 0.5))
    assert kernel.dtype == np.float64
    assert np.allclose(kernel, [[0.5, 0.5], [1 / 6, 5 / 6]])
    assert isinstance(tv_distance([Fraction(1, 3), Fraction(2, 3)], [Fraction(1), Fraction(0)]), Fraction)
    assert tv_distance([Fraction(1, 3), Fraction(2, 3)], [Fraction(1), Fraction(0)]) == Fraction(2, 3)


def test_barker_and_product_by_hand():
    half = fractions([[1, 1], [1, 1]]) / 2
    pi = fractions([1, 3]) / 4
    assert mh_kernel(pi, half, "barker").tolist() == (fractions([[5, 3], [1, 7]]) / 8).tolist()
    assert mh_kernel(pi, half, "product")[0, 1] == Fraction(1, 2) * Fraction(3, 4) * Fraction(1, 2)
    assert mh_kernel([1, 1], fractions([[0, 1], [1, 0]]), "product").tolist() == [[0, 1], [1, 0]]  # acceptance 1


def test_proposals_where_no_neighbour_has_weight_or_none_exists():
    near = np.zeros((4, 4), dtype=bool)
    near[0, 1:3] = near[1:3, 0] = True
    q = locally_balanced_proposal([1.0, 0.0, 0.0, 2.0], near)
    assert q.tolist() == [[0, 0.5, 0.5, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("near", [np.zeros((2, 3), bool), np.zeros(2, bool), np.zeros((2, 2))])
def test_neighbours_are_a_square_of_booleans(near):
    with pytest.raises(ValueError, match="neighbours must be"):
        locally_balanced_proposal([1, 1], near)


@pytest.mark.parametrize(
    "conditionals",
    [[], [np.full((2, 2), 0.5)], [np.full((2, 2), 0.5), np.full((2, 3), 0.5)], [np.full((2, 2), 0.5)] * 3],
)
def test_conditionals_have_one_shape_and_one_each_axis(conditionals):
    with pytest.raises(ValueError, match="one conditional per axis"):
        pseudo_gibbs_law(conditionals)


def test_a_scan_of_one_axis_redraws_that_axis():
    joint = np.array([[0.1, 0.2], [0.3, 0.4]])
    conditionals = [joint / joint.sum(i, keepdims=True) for i in range(2)]
    law = pseudo_gibbs_law(conditionals, (0,))
    assert np.allclose(law.sum(0), 0.5)  # the other axis stays uniform, as it started
    assert np.allclose(law, conditionals[0] / 2)


@pytest.mark.parametrize("values", [[], [-inf, -inf], [0.0, inf]])
def test_importance_weights_need_something_finite(values):
    with pytest.raises(ValueError, match="at least one finite"):
        importance_ess(values)


@pytest.mark.parametrize("kernel", [np.zeros((0, 0)), np.ones(3), [[np.nan, 1], [0, 1]]])
def test_a_kernel_is_a_finite_square(kernel):
    with pytest.raises(ValueError, match="square matrix|finite"):
        stationary(kernel)


def test_depths_of_equal_maxima_and_of_a_ridge():
    path = np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)
    assert critical_depth([1.0, 0.25, 0.75, 0.5, 0.5], path) == 0.5
    assert critical_depth([3.0, 1.0, 2.0, 0.0, 2.5], path) == 2.5
    assert critical_depth([1.0, 2.0, 3.0, 2.0, 1.0], path) == 0


def test_a_single_state_stays_where_it_is():
    assert mh_kernel([2.0], [[1.0]]).tolist() == [[1.0]]
    assert stationary([[1.0]]).tolist() == [1.0]
    assert gibbs_kernel([2.0]).tolist() == [[1.0]]


def test_transient_states_have_no_share_in_exact_arithmetic_either():
    P = fractions([[1, 1, 0], [0, 1, 3], [0, 2, 2]]) / fractions([[2], [4], [4]])
    assert stationary(P).tolist() == [0, Fraction(2, 5), Fraction(3, 5)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("g", ["uniform", "sqrt", "barker", "min"])
def test_weights_of_zero_divide_in_silence(g):
    q = locally_balanced_proposal([0.0, 1.0, 0.0], ~np.eye(3, dtype=bool), g)
    assert np.allclose(q.sum(1), 1)


# ---------------------------------------------------------------------- exact sampler and particles


@pytest.mark.parametrize("seed", range(5))
def test_systematic_resampling_keeps_the_shares_to_one_copy(seed):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(9, 0.5))
    kept = _systematic(weights, rng)
    copies = np.bincount(kept, minlength=9)
    assert (np.floor(9 * weights) <= copies).all()
    assert (copies <= np.ceil(9 * weights)).all()
    assert (np.diff(kept) >= 0).all()
    assert _systematic(np.array([0, 0, 1.0, 0]), rng).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("twist", [True, False])
def test_particles_that_are_resampled_at_every_step_stay_unbiased(twist):
    rng = np.random.default_rng(32)
    lines = corpus_of(rng, 60, 3)
    two, three = (NgramLM(k).fit(lines, 3) for k in (2, 3))
    auto = Automaton.keywords([1, 2], 3)
    guide = ExactSampler(transfer_matrix(two), 5, auto)
    z = np.exp(three.score([s for s in sampling.strings(3, (5, 5)) if auto.run(s)])).sum()
    found = [np.exp(twisted_smc(three, guide, 12, rng, resample=1.0, twist=twist)[0]) for _ in range(400)]
    assert stats.ttest_1samp(found, z).pvalue > ALPHA
    assert np.mean(found) == pytest.approx(z, rel=0.2)


def test_without_resampling_a_weight_is_what_the_path_was_not_asked():
    """Proposed from the model without its end sign, a path weighs the chances not to have ended, and then to end."""
    rng = np.random.default_rng(33)
    lm = NgramLM(3).fit(corpus_of(rng, 60, 3), 3)
    guide = ExactSampler(UNIFORM, 4)
    log_z, tokens, logs = twisted_smc(lm, guide, 50, rng, resample=0.0, twist=False)
    padded = np.column_stack([np.full((50, 2), 3), tokens])
    end = np.stack([lm.rows(padded[:, t : t + 2])[:, 3] for t in range(5)])
    assert np.allclose(logs, np.log(1 - end[:4]).sum(0) + np.log(end[4]))
    assert log_z == pytest.approx(np.log(np.mean(np.exp(logs))))
    assert np.ptp(logs) > 0.1


def test_lengths_that_a_mask_forbids_have_no_probability():
    allowed = np.ones((4, 3), bool)
    allowed[2:] = False
    law = ExactSampler(UNIFORM, (1, 4), allowed=allowed).length_law()
    assert np.allclose(law, [4 / 7, 3 / 7, 0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExactSampler(np.ones(3), 2), "square"),
        (lambda: ExactSampler(np.ones((2, 3)), 2), "square"),
        (lambda: ExactSampler(np.ones((1, 1)), 2), "at least one token"),
        (lambda: ExactSampler([[1, -1], [1, 1]], 2), "not negative"),
        (lambda: ExactSampler([[1, np.inf], [1, 1]], 2), "finite"),
        (lambda: ExactSampler(UNIFORM, (3, 2)), "lo <= hi"),
        (lambda: ExactSampler(UNIFORM, (1, 2, 3)), "unpack"),
        (lambda: Automaton([[0]], [True], start=1), "start state"),
        (lambda: Automaton([[0]], [True], start=-1), "start state"),
        (lambda: Automaton([[0]], [True, False]), "accept of shape"),
        (lambda: Automaton([[-2]], [True]), r"in -1\.\.0"),
        (lambda: Automaton([[0.0]], [True]), "integers"),
        (lambda: Automaton([0], [True]), "integers of shape"),
        (lambda: Automaton.keywords([3], 3), "keyword 3 is outside"),
        (lambda: Automaton.keywords([-1], 3), "keyword -1 is outside"),
        (lambda: Automaton.keywords([1], 3).run([3]), "got 3"),
        (lambda: Automaton.keywords([1], 3).run([1, -1]), "got -1"),
    ],
)
def test_bad_input_at_the_border(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("settings", [(0, 0.5), (5, -0.1), (5, 1.1)])
def test_particles_and_their_threshold_are_checked(settings):
    n, resample = settings
    lm = NgramLM(2).fit([[0, 1, 2]], 3)
    with pytest.raises(ValueError, match="need n >= 1 and resample in"):
        twisted_smc(lm, ExactSampler(UNIFORM, 2), n, np.random.default_rng(0), resample)


def test_no_keyword_and_the_whole_vocabulary_as_keywords():
    assert Automaton.keywords([], 2).run([])
    auto = Automaton.keywords([0, 1, 2], 3)
    assert [auto.run(s) for s in ([0, 1], [2, 1, 0], [0, 0, 1, 2])] == [False, True, True]
    assert Automaton.keywords([2], 3).run([2])


# ---------------------------------------------------------------------- chains of sentences and keys


def test_order_weights_of_batches_with_several_axes():
    p = np.random.default_rng(34).random((2, 1, 3, 3, 3))
    total, best = sampling.order_weights(p)
    assert total.shape == best.shape == (2, 1)
    two = p[..., 2, 2, 0] * p[..., 2, 0, 1] * p[..., 0, 1, 2], p[..., 2, 2, 1] * p[..., 2, 1, 0] * p[..., 1, 0, 2]
    assert np.allclose(total, two[0] + two[1])
    assert np.allclose(best, np.maximum(*two))
    assert np.allclose(sampling.order_weights(np.full((2, 2, 2), 0.5)), 0.25)  # one word: end, word, end
    for shape in ((3, 3), (1, 1, 1), (14, 14, 14), (3, 3, 2)):
        with pytest.raises(ValueError, match="n from 1 to 12"):
            sampling.order_weights(np.ones(shape))
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match="finite and not negative"):
            sampling.order_weights(np.where(np.arange(8).reshape(2, 2, 2) == 3, bad, 1.0))


def test_at_temperature_zero_annealing_climbs():
    f = np.array([0.0, 1.0, 3.0, 2.0])
    near = np.array([[1, 3], [0, 2], [1, 3], [2, 0]])
    law = sampling.anneal_exactly(f, near, [0.0], np.array([1.0, 0, 0, 0]))
    assert law.tolist() == [0, 0.5, 0, 0.5]
    assert np.allclose(sampling.anneal_exactly(f, near, [0.0] * 60), [0, 0, 1, 0])


def test_the_acceptance_rate_counts_accepted_steps():
    step = lambda x, rng: (1 - x, np.zeros(len(x)))  # noqa: E731
    always = metropolis(lambda x: np.zeros(len(x)), step, np.zeros(4, int), 5, np.random.default_rng(0))
    never = metropolis(lambda x: np.where(x == 0, 0.0, -inf), step, np.zeros(4, int), 5, np.random.default_rng(0))
    assert (always.acceptance, never.acceptance) == (1.0, 0.0)
    assert always.x.tolist() == [1] * 4
    assert never.x.tolist() == [0] * 4
    assert always.states is None


def test_kept_states_are_those_after_every_second_step():
    step = lambda x, rng: (x + 1, np.zeros(len(x)))  # noqa: E731
    run = metropolis(lambda x: 0.0 * x, step, np.zeros(2, int), 5, np.random.default_rng(0), keep_every=2)
    assert run.states.tolist() == [[2, 2], [4, 4]]


def test_the_default_start_is_the_keywords_filled_up_greedily():
    T = np.array([[0.1, 0.7, 0.2, 0.0], [0.6, 0.1, 0.1, 0.2], [0.1, 0.2, 0.1, 0.6], [0.2, 0.2, 0.5, 0.1]])
    editor = SentenceSampler(T, (3, 5), [1])
    start = editor._default()
    assert (len(start), start[0]) == (3, 1)
    assert start[1] == int(np.argmax(T[1, :-1] * (T[:-1, -1] > 0)))
    assert start[2] == int(np.argmax(T[start[1], :-1] * (T[:-1, -1] > 0)))
    assert SentenceSampler(T, (1, 5), [1, 2])._default() == [1, 2]
    assert SentenceSampler(T, (1, 5))._default() == [int(np.argmax(T[3, :-1] * (T[:-1, -1] > 0)))]


def test_sentences_are_padded_with_minus_one():
    tokens, lengths = SentenceSampler(UNIFORM, (1, 6)).run(50, 10, np.random.default_rng(35))
    assert ((tokens == -1) == (np.arange(6) >= lengths[:, None])).all()
    assert len(np.unique(lengths)) > 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crack_substitution([0, 1], np.zeros((2, 3)), np.random.default_rng(0)), "must have shape"),
        (lambda: crack_substitution([0, 1], np.zeros(2), np.random.default_rng(0)), "must have shape"),
        (lambda: crack_substitution([0, 1], [[0, 0], [0, -inf]], np.random.default_rng(0)), "smooth"),
        (lambda: crack_substitution([0], np.zeros((2, 2)), np.random.default_rng(0)), "at least 2 symbols"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), moves=(0.5, 0.5)), "moves"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), moves=(1.5, -0.25, -0.25)), "moves"),
        (lambda: SentenceSampler(UNIFORM, (1, 3), moves=(0.5, 0.0, 0.5)), "reverse"),
        (lambda: SentenceSampler(UNIFORM, (1, 3)).run(2, 1, np.random.default_rng(0), init=[[0]] * 3), "3 starting"),
    ],
)
def test_bad_input_of_the_samplers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_only_replacing_needs_no_other_move():
    tokens, lengths = SentenceSampler(UNIFORM, 2, moves=(1, 0, 0)).run(20, 5, np.random.default_rng(36))
    assert (lengths == 2).all()
    assert tokens.min() >= 0


# ---------------------------------------------------------------------- text


def test_a_sentence_has_three_words_at_least():
    class Texts:
        def prose(self):
            return ["Return it. Return it now.\nSee 2 3 4 here."]

    assert sampling.sentences(Texts()) == [["return", "it", "now", "."]]


def test_word_lab_keeps_sentences_of_the_most_frequent_words():
    lines = [["b", "z"], ["z", "c"], ["b", "c"], ["z"], ["b"], ["z", "a"], ["c", "d"]]  # z 4, b 3, c 3, a 1, d 1
    lab = sampling.word_lab(lines, 3, held_out=0)
    assert lab.words == ["b", "c", "z"]
    assert sorted(lab.text(s) for s in lab.train) == sorted(["b z", "z c", "b c", "z", "b"])
    assert sampling.word_lab(lines, 2, held_out=0).words == ["b", "z"]  # of b and c, as frequent, the first
    assert len(lab.held_out) == 0
    for seed in range(9):
        split = sampling.word_lab([["a"], ["b"], ["a", "b"], ["c"]], 3, held_out=1, seed=seed)
        assert len(split.train) == 3
        if split.words == ["a", "b"]:  # the only sentence with a c was held out, and training has not seen it
            assert split.held_out == []
        else:
            assert len(split.held_out) == 1


def test_letters_have_no_space_at_the_ends():
    assert sampling.letters([["(", "ab"], ["c", "."]]).tolist() == [0, 1, 26, 2]


@pytest.mark.filterwarnings("error")
def test_an_impossible_sentence_is_scored_in_silence():
    assert NgramLM(2).fit([[0, 1]], 3).score([[2], [0, 1]])[0] == -inf


def test_the_iteration_ends_when_a_step_moves_less_than_the_tolerance():
    joint = np.array([[0.48, 0.01, 0.01], [0.01, 0.23, 0.01], [0.01, 0.01, 0.23]])
    conditionals = [joint / joint.sum(i, keepdims=True) for i in range(2)]
    for tol in (1e-2, 1e-3, 1e-4):
        law = pseudo_gibbs_law(conditionals, tol=tol)
        step = sum(law.sum(i, keepdims=True) * conditionals[i] for i in range(2)) / 2
        assert tv_distance(step, law) < tol


def test_after_the_last_token_no_particle_is_resampled():
    rng = np.random.default_rng(37)
    lm = NgramLM(2).fit(corpus_of(rng, 60, 3), 3)
    _, tokens, logs = twisted_smc(lm, ExactSampler(UNIFORM, 2), 50, rng, resample=1.0, twist=False)
    padded = np.column_stack([np.full(50, 3), tokens])
    end = np.stack([lm.rows(padded[:, t : t + 1])[:, 3] for t in range(3)])
    assert np.allclose(logs, np.log(1 - end[:2]).sum(0) + np.log(end[2]))


def test_a_word_lab_has_1500_words_and_holds_1000_sentences_out():
    lab = sampling.word_lab([[f"w{n}"] for n in range(1501)])
    assert (len(lab.train), lab.held_out) == (500, [])
    assert "w999" not in lab.words  # of words that are equally frequent the last by the alphabet is left out


def test_of_equally_frequent_words_the_first_of_the_alphabet_are_kept():
    assert sampling.word_lab([["c"], ["b"], ["a"]], 2, held_out=0).words == ["a", "b"]
