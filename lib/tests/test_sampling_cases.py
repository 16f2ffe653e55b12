"""Tests of explainers.sampling on cases worked by hand: borders, defaults, dead ends, rounding."""

from __future__ import annotations

import itertools
from math import inf, log

import numpy as np
import pytest
from test_sampling import ALPHA, UNIFORM, corpus_of, counts_p_value, enumerate_strings, random_transfer

from explainers._sampling_exact import _systematic
from explainers._sampling_ngram import _discount
from explainers.sampling import (
    Automaton,
    ExactSampler,
    NgramLM,
    SentenceSampler,
    metropolis,
    transfer_matrix,
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


def test_first_words_invert_the_distribution_function_particle_by_particle():
    """A seed gives the same text everywhere: the n-th number that is drawn decides on the n-th sentence."""
    T = random_transfer(np.random.default_rng(42), 3)
    every, w = enumerate_strings(T, (1, 3))
    first = np.bincount([s[0] for s in every], w) / w.sum()
    tokens, _ = ExactSampler(T, (1, 3)).sample(500, np.random.default_rng(43))
    numbers = np.random.default_rng(43).random(500)
    assert (tokens[:, 0] == np.searchsorted(np.cumsum(first), numbers)).all()


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


def into_the_trap(seed, **settings):
    """Return the number of particles out of eight that survive the second word, and the final tokens and weights."""
    guide = ExactSampler(UNIFORM, 4, allowed=MASK)
    log_z, tokens, logs = twisted_smc(TRAP, guide, 8, np.random.default_rng(seed), twist=False, **settings)
    return round(8 * np.exp(log_z) / 0.5**3), tokens, logs  # the words 1 2 2 2 have probability 1/2 1 1/2 1/2 1/2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_particles_are_resampled_when_too_few_carry_the_weight(share):
    """Of equal weights and zeros the effective sample size is the number of those that are not zero."""
    cases = set()
    for seed in range(20):
        survivors, tokens, logs = into_the_trap(seed, resample=share)
        resampled = 0 < survivors < share * 8
        assert np.isneginf(logs).sum() == (0 if resampled else 8 - survivors)
        assert (tokens[np.isfinite(logs)] == [1, 2, 2, 2]).all()
        assert np.allclose(logs[np.isfinite(logs)], np.log((survivors / 8 if resampled else 1) * 0.125))
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
