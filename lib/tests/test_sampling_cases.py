"""Tests of explainers.sampling on cases worked by hand: borders, defaults, dead ends, rounding."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import factorial, inf, log

import numpy as np
import pytest
from test_sampling import ALPHA, UNIFORM, corpus_of, counts_p_value, enumerate_strings, random_transfer

from explainers import sampling
from explainers._sampling_exact import _systematic, draw_rows
from explainers._sampling_ngram import _discount
from explainers.sampling import (
    Automaton,
    ExactSampler,
    NgramLM,
    SentenceSampler,
    asymptotic_variance,
    crack_substitution,
    critical_depth,
    detailed_balance_gap,
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


class Highest(np.random.Generator):
    """A generator whose floats are all the largest number below one."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def random(self, size=None):
        number = np.nextafter(1, 0)
        return number if size is None else np.full(size, number)


# ---------------------------------------------------------------------- exact constrained text


@pytest.mark.parametrize("table", [[[0, 1]], [[-2, 0]]])
def test_one_state_that_does_not_exist_is_enough_to_refuse_an_automaton(table):
    with pytest.raises(ValueError, match=r"in -1\.\.0"):
        Automaton(table, [True])


@pytest.mark.filterwarnings("error")
def test_a_law_without_any_end_has_no_weight():
    with pytest.raises(ValueError, match="total weight is zero"):
        ExactSampler([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], (1, 4))


@pytest.mark.filterwarnings("error")
def test_what_reaches_a_dead_end_counts_for_no_length():
    """With two words and each of them exactly once, two is the only length; a third word leads nowhere."""
    law = ExactSampler(np.full((3, 3), 0.5), (1, 4), Automaton.keywords([0, 1], 2, exactly_once=True))
    assert law.length_law().tolist() == pytest.approx([0, 1, 0, 0])
    assert sorted(law.best()[0]) == [0, 1]
    assert law.best()[1] == pytest.approx(3 * log(0.5))


def test_lengths_by_enumeration_where_words_may_not_repeat():
    T, auto = random_transfer(np.random.default_rng(40), 3), Automaton.keywords([0, 2], 3, exactly_once=True)
    every, w = enumerate_strings(T, (2, 5), auto)
    by_length = np.bincount([len(s) for s in every], w, minlength=6)[2:] / w.sum()
    assert np.allclose(ExactSampler(T, (2, 5), auto).length_law(), by_length, rtol=1e-12)


def test_of_equally_heavy_sentences_the_shorter_is_the_best():
    best, score = ExactSampler([[1, 1], [1, 0]], (2, 4)).best()  # every sentence weighs one
    assert (best.tolist(), score) == ([0, 0], 0.0)


def test_the_best_pair_among_many_words():
    T = random_transfer(np.random.default_rng(41), 150)
    pairs = T[150, :150, None] * T[:150, :150] * T[:150, 150]
    best, score = ExactSampler(T, 2).best()
    assert tuple(best) == np.unravel_index(pairs.argmax(), pairs.shape)
    assert score == pytest.approx(np.log(pairs.max()))


def test_words_invert_their_distribution_function_in_the_order_of_the_sentences():
    """A seed gives the same text everywhere: sentences with one word before are served in their order."""
    T = random_transfer(np.random.default_rng(42), 3)
    pairs = T[3, :3, None] * T[:3, :3] * T[:3, 3]
    tokens, _ = ExactSampler(T, 2).sample(500, np.random.default_rng(43))
    rng = np.random.default_rng(43)
    first = np.searchsorted(np.cumsum(pairs.sum(1) / pairs.sum()), rng.random(500))
    assert tokens[:, 0].tolist() == first.tolist()
    order = sorted(range(500), key=lambda n: first[n])
    second = [np.searchsorted(np.cumsum(pairs[first[n]] / pairs[first[n]].sum()), rng.random()) for n in order]
    assert tokens[order, 1].tolist() == second


def test_samples_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    law = ExactSampler(random_transfer(np.random.default_rng(44), 5), (2, 5), Automaton.keywords([1, 3], 5))
    at_once = law.sample(300, np.random.default_rng(45))
    monkeypatch.setattr("explainers._sampling_exact.CHUNK", 3)
    in_chunks = law.sample(300, np.random.default_rng(45))
    assert all((a == b).all() for a, b in zip(at_once, in_chunks))


# ---------------------------------------------------------------------- particles


class Table:
    """A bigram model with the given probabilities, row V the start, column V the end."""

    order, boundary = 2, True

    def __init__(self, T):
        self.T, self.n_symbols = np.asarray(T, dtype=float), len(T) - 1

    def rows(self, contexts):
        return self.T[contexts[:, -1]]


# The mask asks for 0 or 1 and then only for 2: a particle that begins with 0 is dead at the second word.
TRAP = Table([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0]])
MASK = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=bool)


def into_the_trap(seed, words=3, **settings):
    """Return the number of particles out of eight that survive the second word, and the final tokens and weights."""
    guide = ExactSampler(UNIFORM, words, allowed=MASK[:words])
    log_z, tokens, logs = twisted_smc(TRAP, guide, 8, np.random.default_rng(seed), twist=False, **settings)
    return round(8 * np.exp(log_z) / 0.5 ** (words - 1)), tokens, logs  # after 1 2 each 2 and the end have 1/2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("share", "words"), [(0.3, 4), (0.55, 3), (0.55, 4), (0.8, 3)])
def test_particles_are_resampled_when_too_few_carry_the_weight(share, words):
    """Of equal weights and zeros the effective sample size is the number of those that are not zero."""
    cases = set()
    for seed in range(20):
        survivors, tokens, logs = into_the_trap(seed, words, resample=share)
        resampled = 0 < survivors < share * 8
        assert np.isneginf(logs).sum() == (0 if resampled else 8 - survivors)
        assert (tokens[np.isfinite(logs)] == [1, 2, 2, 2][:words]).all()
        assert np.allclose(logs[np.isfinite(logs)], log((survivors / 8 if resampled else 1) * 0.5 ** (words - 1)))
        cases.add(resampled)
    assert cases == {True, False}


def test_below_half_of_the_particles_is_when_they_are_resampled_by_default():
    for seed in range(20):
        assert (into_the_trap(seed)[2] == into_the_trap(seed, resample=0.5)[2]).all()


@pytest.mark.filterwarnings("error")
def test_when_every_particle_dies_on_the_way_the_estimate_is_zero():
    guide = ExactSampler(UNIFORM, 3, allowed=[[1, 0, 0], [0, 0, 1], [1, 1, 1]])  # 0 and then 2
    log_z, tokens, logs = twisted_smc(TRAP, guide, 6, np.random.default_rng(0), twist=False)
    assert log_z == -inf
    assert (logs == -inf).all()
    assert tokens.shape == (6, 3)


def test_particles_of_long_sentences_do_not_underflow():
    """Going on has probability 1/10 at each word, so that 400 words have 9 times 10 to the power -400."""
    T = np.array([[0.05, 0.05, 0.9], [0.05, 0.05, 0.9], [0.5, 0.5, 0]])
    log_z, _, _ = twisted_smc(Table(T), ExactSampler(T, 400), 2, np.random.default_rng(0))
    assert log_z == pytest.approx(log(9) + 400 * log(0.1))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_words_of_a_particle_weigh_what_the_model_says_of_any_order(order):
    """With one particle and every word given by the mask, the estimate is the probability of the sentence."""
    lm = NgramLM(order).fit(corpus_of(np.random.default_rng(46), 60, 3), 3)
    sentence = [2, 0, 1, 1, 2]
    guide = ExactSampler(UNIFORM, 5, allowed=np.eye(3, dtype=bool)[sentence])
    for twist in (True, False):
        log_z, tokens, _ = twisted_smc(lm, guide, 1, np.random.default_rng(0), twist=twist)
        assert tokens.tolist() == [sentence]
        assert log_z == pytest.approx(lm.score([sentence])[0])


def test_a_model_of_streams_or_of_other_words_cannot_be_guided():
    guide, rng = ExactSampler(UNIFORM, 2), np.random.default_rng(0)
    with pytest.raises(ValueError, match="both need boundaries"):
        twisted_smc(NgramLM(2).fit([[0, 1, 2]], 3, boundary=False), guide, 5, rng)
    with pytest.raises(ValueError, match="the model has 2 tokens, the guide 3"):
        twisted_smc(NgramLM(2).fit([[0, 1]], 2), guide, 5, rng)


def test_systematic_resampling_survives_a_sum_below_one():
    tenths = np.full(10, 0.1)
    assert np.cumsum(tenths)[-1] < 1
    assert _systematic(tenths, Highest()).max() == 9


# ---------------------------------------------------------------------- chains in any space


def walk(ratio):
    """Return a proposal that adds one everywhere, with the given logarithms of q(x <- y) / q(y <- x)."""
    return lambda x, rng: (x + 1, np.asarray(ratio, dtype=float))


def flat(x):
    return np.zeros(len(x))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 4), (3, 2, 5)])
def test_a_state_is_taken_or_refused_as_a_whole(shape):
    start = np.arange(np.prod(shape)).reshape(shape)
    run = metropolis(flat, walk([0, -inf, 0]), start, 4, np.random.default_rng(0))
    moved = np.array([4, 0, 4]).reshape(-1, *[1] * (len(shape) - 1))
    assert run.x.tolist() == (start + moved).tolist()
    assert run.acceptance == pytest.approx(2 / 3)


def test_one_forbidden_start_or_one_undefined_weight_is_enough_to_refuse():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="chain 1 starts in a state of weight zero"):
        metropolis(lambda x: np.array([0.0, -inf, 0.0]), walk([0, 0, 0]), np.zeros(3), 1, rng)
    with pytest.raises(ValueError, match="nan for chain 2"):
        metropolis(lambda x: np.array([0.0, 0.0, np.nan]), walk([0, 0, 0]), np.zeros(3), 1, rng)
    with pytest.raises(ValueError, match=r"must return shape \(3,\), got \(\)"):
        metropolis(lambda x: 0.0, walk([0, 0, 0]), np.zeros(3), 1, rng)


@pytest.mark.filterwarnings("error")
def test_a_forbidden_state_is_refused_whatever_the_proposal_says():
    run = metropolis(lambda x: np.where(x == 0, 0.0, -inf), walk([inf]), np.zeros(1), 3, np.random.default_rng(0))
    assert (run.x.tolist(), run.acceptance) == ([0], 0.0)


def test_what_the_caller_s_weights_are_stored_in_is_not_written_to():
    weights = np.array([0.0, 1.0, 2.0])
    calls = iter([weights[:1], weights[1:2], weights[2:]])
    run = metropolis(lambda x: next(calls), walk([0]), np.zeros(1), 2, np.random.default_rng(0))
    assert weights.tolist() == [0, 1, 2]
    assert (run.best.tolist(), run.best_log_weight.tolist()) == ([2], [2])


def test_of_equally_good_states_the_first_is_kept_as_the_best():
    run = metropolis(flat, walk([0, 0]), np.array([5, 7]), 3, np.random.default_rng(0))
    assert run.best.tolist() == [5, 7]
    assert run.x.tolist() == [8, 10]


def test_states_are_kept_after_every_third_step():
    run = metropolis(flat, walk([0]), np.zeros(1, int), 7, np.random.default_rng(0), keep_every=3)
    assert run.states.tolist() == [[3], [6]]


def test_acceptance_of_no_step_and_of_a_single_one():
    assert metropolis(flat, walk([0]), np.zeros(1), 0, np.random.default_rng(0)).acceptance == 0
    assert metropolis(flat, walk([0]), np.zeros(1), 1, np.random.default_rng(0)).acceptance == 1


# ---------------------------------------------------------------------- sentences

THIRDS = np.full((4, 4), 1 / 3)  # a detour over a third word weighs as much as the direct way
ONE_WAY = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # the only sentence is 0 1


@pytest.mark.filterwarnings("error")
def test_edits_that_nothing_forbids_are_all_accepted():
    editor = SentenceSampler(THIRDS, (1, 30))
    _, lengths = editor.run(20, 10, np.random.default_rng(47), init=[0, 1] * 8)
    assert editor.acceptance == {"replace": 1, "insert": 1, "delete": 1}
    assert len(set(lengths)) > 2


@pytest.mark.filterwarnings("error")
def test_edits_that_the_bounds_forbid_count_as_proposed():
    editor = SentenceSampler(THIRDS, 2)
    editor.run(20, 10, np.random.default_rng(48))
    assert editor.acceptance == {"replace": 1, "insert": 0, "delete": 0}


@pytest.mark.filterwarnings("error")
def test_the_rate_of_a_move_that_is_never_made_is_undefined():
    replacing = SentenceSampler(THIRDS, (1, 30), moves=(1, 0, 0))
    replacing.run(20, 3, np.random.default_rng(49), init=[0, 1])
    assert replacing.acceptance == pytest.approx({"replace": 1, "insert": np.nan, "delete": np.nan}, nan_ok=True)
    others = SentenceSampler(THIRDS, (1, 30), moves=(0, 0.5, 0.5))
    others.run(20, 3, np.random.default_rng(50), init=[0, 1] * 5)
    assert others.acceptance == pytest.approx({"replace": np.nan, "insert": 1, "delete": 1}, nan_ok=True)


def test_the_largest_random_number_chooses_the_last_move():
    moves = 0.7, 0.2, 0.1
    assert np.cumsum(moves)[-1] < 1
    editor = SentenceSampler(UNIFORM, (1, 5), moves=moves)
    assert editor.run(3, 1, Highest(), init=[0, 1])[1].tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("error")
def test_the_only_sentence_stays():
    editor = SentenceSampler(ONE_WAY, (1, 4))
    tokens, lengths = editor.run(30, 20, np.random.default_rng(51), init=[0, 1])
    assert tokens.tolist() == [[0, 1, -1, -1]] * 30
    assert lengths.tolist() == [2] * 30
    assert editor.log_weight([[0, 1], [1, 0], [0, 0]], [2, 2, 1]).tolist() == [0, -inf, -inf]


def test_a_single_word_is_redrawn_from_its_law_in_one_step():
    """130 words are more than two blocks."""
    rng = np.random.default_rng(52)
    T = random_transfer(rng, 130)
    tokens, _ = SentenceSampler(T, 1, moves=(1, 0, 0)).run(20_000, 1, rng, init=[0])
    law = T[130, :130] * T[:130, 130]
    assert counts_p_value(np.bincount(tokens[:, 0], minlength=130), law / law.sum()) > ALPHA


def test_tiny_weights_are_as_good_as_large_ones():
    """At a fixed length only ratios count, even those of numbers whose products single precision cannot hold."""
    T = random_transfer(np.random.default_rng(61), 5)
    T[np.diag_indices(5)] = T[5, 0] = T[0, 5] = 0  # one impossible step from and to everything
    large, tiny = (
        SentenceSampler(T * scale, 4, moves=(1, 0, 0)).run(50, 20, np.random.default_rng(62))[0]
        for scale in (1, 2.0**-100)
    )
    assert (large == tiny).all()


def test_a_sentence_lacks_weight_if_one_keyword_is_missing():
    logs = SentenceSampler(UNIFORM, (1, 3), [0, 2]).log_weight([[0, 1], [2, 0], [2, 2]], [2, 2, 2])
    assert np.allclose(logs, [-inf, 3 * log(0.25), -inf])


@pytest.mark.parametrize("word", [-1, 3])
def test_a_sentence_consists_of_words(word):
    with pytest.raises(ValueError, match=rf"in 0\.\.2, got {word}"):
        SentenceSampler(UNIFORM, (1, 3)).log_weight([[0, word]], [2])


def test_as_many_keywords_as_places():
    tokens, lengths = SentenceSampler(UNIFORM, 2, [0, 1]).run(5, 10, np.random.default_rng(53))
    assert lengths.tolist() == [2] * 5
    assert np.sort(tokens, axis=1).tolist() == [[0, 1]] * 5


def test_moves_that_sum_to_less_than_one_are_refused():
    with pytest.raises(ValueError, match="sum to one"):
        SentenceSampler(UNIFORM, (1, 3), moves=(0.3, 0.3, 0.3))


def test_one_bad_start_is_enough_to_refuse():
    editor, rng = SentenceSampler(UNIFORM, (1, 3), [2]), np.random.default_rng(0)
    with pytest.raises(ValueError, match="has 4 tokens, at most 3"):
        editor.run(2, 1, rng, init=[[2], [2] * 4])
    with pytest.raises(ValueError, match="violates the constraints"):
        editor.run(2, 1, rng, init=[[2], [0]])


def test_a_start_is_filled_up_with_what_best_follows_the_word_before():
    T = np.array([[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
    assert SentenceSampler(T, 5, [0])._default() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("record", [1, 3, 4])
def test_the_trace_holds_the_lengths_after_every_so_many_steps(record):
    editor = SentenceSampler(UNIFORM, (1, 6))
    after = [editor.run(40, steps, np.random.default_rng(54))[1].tolist() for steps in range(record, 12, record)]
    editor.run(40, 11, np.random.default_rng(54), record=record)
    assert editor.length_trace.tolist() == after
    assert after[0] != after[-1]


# ---------------------------------------------------------------------- language model


def test_a_model_counts_trigrams_unless_told_otherwise():
    assert NgramLM().order == 3


@pytest.mark.parametrize("counts", [[1, 1, 2, 2, 7], [3, 1, 2, 1, 2]])
def test_a_discount_of_two_singletons_and_two_pairs(counts):
    assert _discount(np.array(counts)) == pytest.approx(2 / (2 + 2 * 2))


@pytest.mark.parametrize("counts", [[1, 1, 3], [2, 2, 3], [5]])
def test_a_discount_of_one_half_where_singletons_or_pairs_are_missing(counts):
    assert _discount(np.array(counts)) == 0.5


def test_a_vocabulary_has_a_word_and_its_n_grams_fit_into_63_bits():
    assert NgramLM(62).fit([[0]], 1).score([[0]])[0] == pytest.approx(0)  # each of 61 orders gives 1/2 to what it saw
    with pytest.raises(ValueError, match=r"2\*\*63 n-grams"):
        NgramLM(63).fit([[0]], 1)
    with pytest.raises(ValueError, match="n-grams do not fit"):
        NgramLM(1).fit([[]], 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NgramLM(2, discount=0.0), "discount must be in"),
        (lambda: NgramLM(2).fit([], 3), "no sequence given"),
        (lambda: NgramLM(2).fit([[1], [2]], 3, boundary=False), "no n-gram of this order"),
        (lambda: NgramLM(2).fit([[1, -1]], 3), "got -1"),
        (lambda: NgramLM(2).score([[0]]), "not fitted"),
        (lambda: NgramLM(2).perplexity([[0]]), "not fitted"),
        (lambda: NgramLM(2).fit([[0]], 2).prob([[0], [1]], [0]), r"tokens must have shape \(2,\)"),
        (lambda: NgramLM(2).fit([[0]], 2).prob([[0]], [-1]), r"in 0\.\.2, got -1"),
        (lambda: NgramLM(2).fit([[0]], 2).prob([[-1]], [0]), r"in 0\.\.2, got -1"),
        (lambda: NgramLM(2).fit([[0]], 2).rows([[0], [3]]), r"in 0\.\.2, got 3"),
        (lambda: NgramLM(2).sample(1, np.random.default_rng(0), 3), "needs a fitted model"),
        (lambda: NgramLM(2).fit([[0, 1]], 2, False).sample(1, np.random.default_rng(0), 3), "with boundaries"),
        (lambda: transfer_matrix(NgramLM(2)), "needs a fitted model"),
    ],
)
def test_bad_input_of_a_model(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_perplexity_by_hand():
    """Of the words 0, 0, 1 and three ends each symbol has a share, and the discount plays no part."""
    lm = NgramLM(1).fit([[0, 0, 1], [], []], 2)
    assert np.allclose(lm.base, [1 / 3, 1 / 6, 1 / 2])
    assert lm.perplexity([[0, 1]]) == pytest.approx((3 * 6 * 2) ** (1 / 3))
    assert lm.perplexity([[0], []]) == pytest.approx((3 * 2 * 2) ** (1 / 3))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_stream_whose_last_words_do_not_occur(order):
    """The words 3 and 4 are never seen, as words or as contexts; the last piece is shorter than a context."""
    lm = NgramLM(order).fit([[0, 2, 1, 0, 0, 2], [1, 1], [2, 0, 1, 2, 2], [1]], 5, boundary=False)
    contexts = np.array(list(itertools.product(range(5), repeat=order - 1)), dtype=int).reshape(5 ** (order - 1), -1)
    rows = lm.rows(contexts)
    assert rows.shape[1] == 5
    assert np.allclose(rows.sum(1), 1)
    assert (rows[:, 3:] == 0).all()
    assert np.allclose(rows.reshape((5,) * order), lm.table())
    for token in range(5):
        assert np.allclose(lm.prob(contexts, np.full(len(contexts), token)), rows[:, token])


def test_a_word_behind_all_that_is_known_after_the_last_context():
    """Seen are 0 2 and 1 0. After 1 the word 2 has what the discount leaves, 1/2, times its share below, 1/2."""
    lm = NgramLM(2, discount=0.5).fit([[0, 2], [1, 0]], 3, boundary=False)
    assert lm.prob([[1], [1], [2]], [2, 0, 2]).tolist() == [0.25, 0.75, 0.5]


def test_a_table_may_hold_60_million_entries(monkeypatch):
    lm = NgramLM(1).fit([[0]], 2)
    lm.size = 60_000_001
    with pytest.raises(ValueError, match="too large"):
        lm.table()
    for limit in (27, 26):
        monkeypatch.setattr("explainers._sampling_ngram.MAX_TABLE", limit)
        lm = NgramLM(3).fit([[0, 1]], 2)
        if limit == 27:
            assert lm.table().size == 27
        else:
            with pytest.raises(ValueError, match="too large"):
                lm.table()


def test_samples_are_padded_and_say_which_are_cut_off():
    lm = NgramLM(2).fit(corpus_of(np.random.default_rng(55), 40, 3), 3)
    tokens, lengths = lm.sample(300, np.random.default_rng(56), 4)
    assert tokens.shape == (300, 4)
    assert set(lengths) == {-1, 1, 2, 3, 4}
    assert ((tokens == -1) == (np.arange(4) >= np.where(lengths < 0, 4, lengths)[:, None])).all()
    assert tokens.min() == -1


def test_the_largest_random_numbers_stay_within_the_context():
    """Each word has one continuation; the last number below one, rounded up, must not reach that of the next word."""
    tokens, lengths = NgramLM(2).fit([[3, 0, 2, 1]], 4).sample(2, Highest(), 6)
    assert tokens.tolist() == [[3, 0, 2, 1, -1, -1]] * 2
    assert lengths.tolist() == [4, 4]


def test_the_largest_random_number_chooses_the_last_symbol():
    lm = NgramLM(1).fit([range(9)], 9)
    assert np.cumsum(lm.base)[-1] < 1  # ten times 0.1
    assert lm.sample(2, Highest(), 3)[1].tolist() == [0, 0]  # the end


# ---------------------------------------------------------------------- finite chains


def test_one_fraction_makes_the_whole_matrix_exact():
    law = stationary([[Fraction(1, 2), 0.5], [1, 0]])
    assert law.tolist() == [Fraction(2, 3), Fraction(1, 3)]
    assert all(isinstance(p, Fraction) for p in law)


def test_a_rounded_sum_leaves_no_negative_probability_of_staying():
    """0.2 + 0.4 + 0.3 + 0.1 is 1 and a bit; a state of weight zero takes every step."""
    moves = [[0, 0.2, 0.4, 0.3, 0.1], *np.eye(5)[1:]]
    assert mh_kernel([0, 1, 1, 1, 1], moves)[0].tolist() == [0, 0.2, 0.4, 0.3, 0.1]


def test_a_state_of_weight_zero_is_left_in_exact_arithmetic_too():
    half = np.full((2, 2), Fraction(1, 2))
    for rule in ("metropolis", "barker"):
        assert mh_kernel([Fraction(0), Fraction(1)], half, rule)[0].tolist() == [Fraction(1, 2), Fraction(1, 2)]


def test_one_acceptance_above_one_is_enough_to_refuse_a_product():
    with pytest.raises(ValueError, match="normalised"):
        mh_kernel([3, 0.1], np.full((2, 2), 0.5), "product")  # from 1 to 0 with 3 / 2


G = {"uniform": lambda t: 1.0, "sqrt": np.sqrt, "barker": lambda t: t / (1 + t), "min": lambda t: min(1, t)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("g", G)
def test_every_row_of_a_proposal_by_its_definition(g):
    """Out of a weight of zero the ratios are infinite, and what counts is how they compare: the limit of small ones."""
    w = np.array([1.0, 4.0, 2.0, 0.0, 0.0])
    q = locally_balanced_proposal(w, ~np.eye(5, dtype=bool), g)
    for x in range(5):
        ratios = w / (w[x] or 1e-30)
        row = np.array([0 if y == x else G[g](ratios[y]) for y in range(5)])
        assert np.allclose(q[x], row / row.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: locally_balanced_proposal([1, 1], ~np.eye(3, dtype=bool)), "weights must have shape"),
        (lambda: locally_balanced_proposal([1, 1], np.array([[True, True], [True, False]])), "its own neighbour"),
        (lambda: detailed_balance_gap(np.full((2, 2), 0.5), [0.5, 0.25, 0.25]), "pi must have shape"),
        (lambda: asymptotic_variance(np.full((2, 2), 0.5), [1, 2, 3]), "f must have shape"),
        (lambda: critical_depth([1, 2, 3], ~np.eye(2, dtype=bool)), "f must have shape"),
        (lambda: pseudo_gibbs_law([np.array([0.5, 0.5 + 1e-6])]), "conditional 0 is not normalised"),
        (lambda: pseudo_gibbs_law([np.full((2, 2), 0.5), [[0.5, 0.5], [0.5, 0.6]]]), "conditional 1 is not normalised"),
        (lambda: pseudo_gibbs_law([np.array([Fraction(1, 2), Fraction(1, 3)])]), "conditional 0 is not normalised"),
    ],
)
def test_bad_input_of_finite_chains(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("seed", range(5))
def test_spectral_gaps_are_those_of_the_closed_class(seed):
    """The first state is left for ever; the others form a ring."""
    ring = (np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)) / 2
    K = mh_kernel(np.random.default_rng(seed).random(6) + 0.1, ring)
    P = np.zeros((7, 7))
    P[0], P[1:, 1:] = 1 / 7, K
    values = np.sort(np.linalg.eigvals(K).real)
    assert spectral_gap(P, absolute=False) == pytest.approx(1 - values[-2])
    assert spectral_gap(P) == pytest.approx(1 - max(values[-2], -values[0]))


def test_a_chain_is_irreversible_by_the_measure_of_its_flows():
    """Among 100 states a probability flow is 1e-4; one part in 5000 of it goes round in circles."""
    P = np.full((100, 100), 0.01) + 1e-6 * (np.roll(np.eye(100), 1, axis=1) - np.roll(np.eye(100), -1, axis=1))
    with pytest.raises(ValueError, match="not reversible"):
        spectral_gap(P)


@pytest.mark.parametrize("t", range(1, 8))
def test_mixing_time_is_that_of_the_worst_start(t):
    """From the first state the distance is 2^-t, from the second, which is never left, 0."""
    assert mixing_time([[0.5, 0.5], [0, 1]], 2.0**-t) == t


def test_a_chain_has_mixed_at_a_quarter_by_default():
    assert mixing_time([[0.5, 0.5], [0, 1]]) == 2


def test_mixing_times_of_slow_chains_by_their_formula():
    """A step that is taken with probability a leads to the law: at time t the distance is (1 - a)^t max(1 - law)."""
    law, a = np.array([0.1, 0.2, 0.3, 0.4]), 1e-13
    slow = (1 - a) * np.eye(4) + a * law
    assert mixing_time(slow, 0.01) == pytest.approx(log(0.9 / 0.01) / a, rel=1e-2)


def test_mixing_is_given_up_beyond_2_to_the_60():
    """Two states that change with probability a: at time t the distance is (1 - 2a)^t / 2."""
    for t in (0.6 * 2**60, 0.9 * 2**60):
        a = log(2) / (2 * t)
        assert mixing_time([[1, a], [a, 1]]) == pytest.approx(t, rel=1e-6)
    for t in (1.1 * 2**60, 1.9 * 2**60):
        a = log(2) / (2 * t)
        with pytest.raises(ValueError, match=r"within 2\^60 steps"):
            mixing_time([[1, a], [a, 1]])


def test_a_single_conditional_is_the_law():
    assert pseudo_gibbs_law([np.array([0.25, 0.75])]).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("scan", ["random", (0, 1), (1, 0)])
@pytest.mark.parametrize("tol", [2.0**-3, 2.0**-6, 1e-3])
def test_the_law_returned_is_the_first_that_a_step_changed_by_less(scan, tol):
    """All numbers are small powers of two: sums are exact, and a change may equal the tolerance."""
    px, py = np.array([[1, 0.5], [0, 0.5]]), np.array([[0.5, 0.5], [0.25, 0.75]])
    law, moved = np.full((2, 2), 0.25), inf
    while not moved < tol:
        if scan == "random":
            new = (law.sum(0) * px + law.sum(1)[:, None] * py) / 2
        else:
            new = law
            for axis in scan:
                new = new.sum(axis, keepdims=True) * (px, py)[axis]
        law, moved = new, np.abs(new - law).sum() / 2
    assert pseudo_gibbs_law([px, py], scan, tol).tolist() == law.tolist()


def test_a_change_that_equals_the_tolerance_is_not_less():
    """An axis that is redrawn goes to 0, so that steps move 1/4, 1/4, 1/8 and so on."""
    home = np.array([[1, 1], [0, 0]])
    first = pseudo_gibbs_law([home, home.T], tol=1.0)
    change = tv_distance(first, np.full((2, 2), 0.25))
    third = pseudo_gibbs_law([home, home.T], tol=change)
    assert first.tolist() == [[0.5, 0.25], [0.25, 0]]
    assert change == 0.25
    assert third.tolist() == [[0.875, 0.0625], [0.0625, 0]]


def test_a_scan_that_goes_round_in_a_circle_does_not_settle(monkeypatch):
    """The second axis copies the first but for 0, 1, 2 -> 1, 0, 0, and is copied: two thirds go to and fro."""
    monkeypatch.setattr("explainers._sampling_chains.ROUNDS", 100)
    copy, swap = np.eye(3), np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="does not settle"):
        pseudo_gibbs_law([copy, swap], (0, 1))


# ---------------------------------------------------------------------- keys


def hills(rng, size, length):
    """Return a cipher and a table in which a plain symbol has a weight of its own, whatever stands before it."""
    return rng.integers(size, size=length), np.tile(rng.normal(size=size), (size, 1))


def test_a_cold_search_climbs_to_the_top():
    """A sum of products is largest where both sequences ascend together, and swaps lead there without a descent."""
    rng = np.random.default_rng(57)
    cipher, table = hills(rng, 8, 200)
    counts = np.bincount(cipher[1:], minlength=8)
    keys, scores = crack_substitution(cipher, table, rng, chains=2, steps=1500, temperature=(1e-6, 1e-6))
    assert scores == pytest.approx(np.sort(counts) @ np.sort(table[0]))
    assert (counts @ table[0][keys.T]).tolist() == pytest.approx(scores.tolist())


def test_a_hot_search_returns_what_it_has_seen_best_and_not_last():
    rng = np.random.default_rng(58)
    cipher, table = hills(rng, 4, 60)
    counts = np.bincount(cipher[1:], minlength=4)
    keys, scores = crack_substitution(cipher, table, rng, chains=8, steps=600, temperature=(1e6, 1e6))
    assert scores == pytest.approx([np.sort(counts) @ np.sort(table[0])] * 8)
    assert (counts @ table[0][keys.T]).tolist() == pytest.approx(scores.tolist())


def test_the_best_chain_comes_first():
    rng = np.random.default_rng(59)
    _, scores = crack_substitution(*hills(rng, 8, 50), rng, chains=30, steps=2)
    assert (np.diff(scores) <= 0).all()
    assert scores[0] > scores[-1]


def test_a_search_starts_where_it_is_told_to():
    cipher, table, rng = [0, 1, 2, 0, 1], np.arange(9.0).reshape(3, 3), np.random.default_rng(60)
    one, _ = crack_substitution(cipher, table, rng, chains=2, steps=0, start=[2, 0, 1])
    assert one.tolist() == [[2, 0, 1]] * 2
    two, scores = crack_substitution(cipher, table, rng, chains=2, steps=0, start=[[0, 1, 2], [1, 2, 0]])
    plain = [1, 2, 0, 1, 2], [0, 1, 2, 0, 1]
    assert scores.tolist() == [sum(3 * a + b for a, b in itertools.pairwise(text)) for text in plain]
    assert two.tolist() == [[1, 2, 0], [0, 1, 2]]
    with pytest.raises(ValueError, match="must be a permutation"):
        crack_substitution(cipher, table, rng, chains=2, start=[[0, 1, 2], [0, 1, 1]])


def test_a_search_has_24_chains_and_3000_steps_at_temperature_one_unless_told_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "explainers._sampling_mcmc._swaps", lambda heat, chains, size, rng: asked.append((heat, chains, size)) or []
    )
    keys, _ = crack_substitution([0, 1, 2], np.zeros((3, 3)), np.random.default_rng(0))
    ((heat, chains, size),) = asked
    assert (len(keys), chains, size) == (24, 24, 3)
    assert heat.tolist() == [1.0] * 3000


# ---------------------------------------------------------------------- small worlds

HALVES = np.full((3, 3), Fraction(1, 2))
UNEVEN = np.array([[Fraction(n, 8) for n in row] for row in ([1, 3, 3, 1], [1, 2, 4, 1], [1, 1, 2, 4], [4, 2, 1, 1])])
MOVES = Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)


def weights_of(chain):
    return np.array([sampling.path_weight(UNEVEN, s) for s, _ in chain.states])


def test_an_edit_chain_by_hand():
    """All words weigh one half, so that nothing is refused but what is too short or too long."""
    chain = sampling.edit_chain(HALVES, (1, 2))
    assert [s for s, _ in chain.states] == [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    twelfths = [
        [6, 2, 2, 1, 1, 0],  # half of the replacements and every deletion leave 0 as it is
        [2, 6, 0, 1, 1, 2],
        [4, 0, 6, 1, 1, 0],
        [2, 2, 1, 6, 0, 1],
        [2, 2, 1, 0, 6, 1],
        [0, 4, 0, 1, 1, 6],
    ]
    assert (chain.kernel * 12).tolist() == twelfths


def test_edit_chains_in_floats_and_with_the_moves_spelled_out():
    exact = sampling.edit_chain(UNEVEN, (1, 3), [2])
    thirds = sampling.edit_chain(UNEVEN, (1, 3), [2], (Fraction(1, 3),) * 3)
    assert (exact.kernel == thirds.kernel).all()
    floats = sampling.edit_chain(UNEVEN.astype(float), (1, 3), [2])
    assert floats.kernel.dtype == np.float64
    assert np.allclose(floats.kernel, exact.kernel.astype(float), rtol=1e-12)


@pytest.mark.parametrize("keywords", [(), (2,), (2, 0), (0, 1, 2)])
def test_the_states_of_an_edit_chain_hold_all_keywords(keywords):
    states = [s for s, _ in sampling.edit_chain(UNEVEN, (1, 3), keywords).states]
    assert states == [s for s in sampling.strings(3, (1, 3)) if all(word in s for word in keywords)]


def test_only_the_empty_sentence_may_weigh_nothing():
    T = np.ones((3, 3))
    T[2, 2] = 0
    assert sampling.edit_chain(T, (1, 2)).kernel.shape == (6, 6)
    for place in itertools.product(range(3), repeat=2):
        if place != (2, 2):
            T = np.ones((3, 3))
            T[place] = 0
            with pytest.raises(ValueError, match="must be positive"):
                sampling.edit_chain(T, (1, 2))


def test_counting_one_slot_too_few_divides_the_law_by_the_length():
    chain = sampling.edit_chain(UNEVEN, (1, 3), moves=MOVES, mistake="off by one")
    v = weights_of(chain) / np.array([len(s) for s, _ in chain.states])
    assert detailed_balance_gap(chain.kernel, v / v.sum()) == 0


def test_forgetting_the_moves_multiplies_the_law_by_their_ratio_for_each_word():
    chain = sampling.edit_chain(UNEVEN, (1, 3), moves=MOVES, mistake="no moves")
    v = weights_of(chain) * np.array([(MOVES[1] / MOVES[2]) ** len(s) for s, _ in chain.states])
    assert detailed_balance_gap(chain.kernel, v / v.sum()) == 0


def test_forgetting_the_proposal_is_right_only_where_it_is_certain():
    """With a single word the proposal has probability one; with two a longer sentence weighs half as much."""
    single = np.array([[Fraction(1, 3), Fraction(2, 3)], [Fraction(1), Fraction(0)]])
    right, wrong = (sampling.edit_chain(single, (1, 3), mistake=mistake) for mistake in (None, "no q"))
    assert (right.kernel == wrong.kernel).all()
    halves = sampling.edit_chain(HALVES, (1, 3), mistake="no q")
    v = np.array([Fraction(1, 4 ** len(s)) for s, _ in halves.states])
    assert detailed_balance_gap(halves.kernel, v / v.sum()) == 0


def test_skipping_rejected_steps_multiplies_the_law_by_the_chance_of_being_accepted():
    right, wrong = (sampling.edit_chain(UNEVEN, (1, 3), [2], MOVES, mistake) for mistake in (None, "skip rejected"))
    n = len(right.states)
    moved = [next(y for y in range(n) if y != x and right.kernel[x, y]) for x in range(n)]
    accepted = np.array([right.kernel[x, y] / wrong.kernel[x, y] for x, y in enumerate(moved)])
    assert ((accepted > 0) & (accepted < 1)).all()
    others = ~np.eye(n, dtype=bool)
    assert (right.kernel[others] == (accepted[:, None] * wrong.kernel)[others]).all()
    v = weights_of(right) * accepted
    assert detailed_balance_gap(wrong.kernel, v / v.sum()) == 0


@pytest.mark.parametrize("keywords", [(), (1,), (0, 0), (1, 0, 1), (0, 1, 0, 1)])
def test_embeddings_are_counted(keywords):
    string = [0, 1, 1, 0, 1, 0, 1]
    places = itertools.combinations(range(7), len(keywords))
    assert sampling.embeddings(keywords, string) == sum(tuple(string[k] for k in at) == keywords for at in places)


def test_orders_of_twelve_words_and_of_words_that_may_not_meet():
    total, best = sampling.order_weights(np.ones((13, 13, 13)))
    assert (total, best) == (factorial(12), 1)
    p = np.ones((4, 4, 4))
    p[:, 0, 1] = p[:, 1, 0] = 0  # 0 and 1 are not neighbours: 2 stands between them
    assert sampling.order_weights(p)[0] == 2


@pytest.mark.parametrize("batch", [1, 20])
def test_orders_of_batches_of_any_size(batch):
    total, best = sampling.order_weights(np.ones((batch, 3, 3, 3)))
    assert (total.tolist(), best.tolist()) == ([2] * batch, [1] * batch)


def test_annealing_where_nobody_proposes_the_last_state():
    assert sampling.anneal_exactly(np.array([1.0, 0.0]), np.array([[0], [0]]), [0.5]).tolist() == [1, 0]


class Fixed:
    """A generator that draws the numbers that it was given."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers

    def random(self, size: int) -> np.ndarray:
        assert size == len(self.numbers)
        return np.array(self.numbers)


def test_a_row_is_drawn_from_by_its_running_sum():
    weights = np.array([[1.0, 3.0], [5.0, 0.0], [2.0, 2.0]])
    rows = np.array([0, 0, 1, 2, 2])
    drawn = draw_rows(weights, rows, Fixed(0.24, 0.26, 0.9, 0.49, 0.51))
    assert drawn.tolist() == [0, 1, 0, 0, 1]


def test_a_number_at_the_border_of_two_rows_draws_no_empty_cell():
    """Row 1 and a number just below 1 round to 2, the border of the next row; 0 is the border of the row before."""
    weights = np.array([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 4.0, 0.0]])
    drawn = draw_rows(weights, np.array([1, 1]), Fixed(np.nextafter(1.0, 0.0), 0.0))
    assert drawn.tolist() == [3, 1]
