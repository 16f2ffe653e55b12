"""Binary word vectors: the fast road against the definitions, laws of codes, peers, mistakes that must be refused."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import pairwise_distances

from explainers import _corpus_data, bioword, bioword_recorded, bioword_tasks, corpus
from explainers.bioword import BinaryIndex, BioWord, top_k_code

V = 30


def text(seed=0, words=3000, documents=40):
    """Draw a Zipf-like text of V words, cut at random places."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, V + 1)
    ids = rng.choice(V, words, p=share / share.sum())
    cuts = np.sort(rng.choice(np.arange(1, words), documents - 1, replace=False))
    return ids.astype(np.int32), np.concatenate([[0], cuts, [words]])


@pytest.fixture(scope="module")
def stream():
    return text()


def reference(stream, h):
    """Return the n-gram matrix and 1/p for every column."""
    ids, offsets = stream
    ngrams = bioword.ngram_matrix(bioword.window_matrix(ids, offsets, h), V)
    return ngrams, np.tile(bioword.word_weights(np.bincount(ids, minlength=V)), 2)


# ---------------------------------------------------------------- n-grams


@pytest.mark.parametrize("h", [1, 2, 5])
def test_windows_are_those_of_a_double_loop(stream, h):
    ids, offsets = stream
    expected = [
        ids[place - h : place + h + 1].tolist()
        for start, end in itertools.pairwise(offsets)
        for place in range(start + h, end - h)
    ]
    found = bioword.window_matrix(ids, offsets, h)
    assert found.tolist() == expected
    assert len(found) == sum(max(0, length - 2 * h) for length in np.diff(offsets))


def test_no_window_fits():
    assert bioword.window_matrix([1, 2, 3], [0, 1, 3], 2).shape == (0, 5)
    assert bioword.window_matrix([], [0, 0], 1).shape == (0, 3)


def test_ngrams_count_repeats_and_mark_one_centre(stream):
    windows = bioword.window_matrix(*stream, 3)
    ngrams = bioword.ngram_matrix(windows, V)
    assert (ngrams.sum(1) == 7).all()
    assert (ngrams[:, V:].sum(1) == 1).all()
    row = bioword.ngram_matrix([[4, 4, 1, -1, 4]], V).toarray()[0]
    assert {at: row[at] for at in np.flatnonzero(row)} == {4: 3, V + 1: 1}


def test_cooccurrences_are_the_context_half_summed_by_centre(stream):
    windows = bioword.window_matrix(*stream, 3)
    centres = np.eye(V)[windows[:, 3]]
    expected = centres.T @ bioword.ngram_matrix(windows, V)[:, :V].toarray()
    assert np.array_equal(bioword.cooccurrences(*stream, V, 3).toarray(), expected)


def test_word_weights():
    counts = np.array([5, 0, 15])
    assert bioword.word_weights(counts).tolist() == [4, 0, 20 / 15]
    assert bioword.word_weights(counts, 0.5) == pytest.approx([2, 0, math.sqrt(20 / 15)])
    assert bioword.word_weights(counts, 0).tolist() == [1, 0, 1]
    with np.errstate(all="raise"):
        assert bioword.word_weights(counts, -1).tolist() == [0.25, 0, 0.75]
    with pytest.raises(ValueError, match="counts must be a vector"):
        bioword.word_weights([-1, 2])


# ---------------------------------------------------------------- energy and training


def test_energy_is_the_sum_by_units(stream):
    ngrams, weights = reference(stream, 2)
    rng = np.random.default_rng(1)
    W, winners = rng.normal(size=(7, 2 * V)), rng.integers(0, 7, ngrams.shape[0])
    sums = np.stack([(ngrams[winners == unit].sum(0).A1 * weights) for unit in range(7)])
    expected = -np.sum(sums * W / np.linalg.norm(W, axis=1, keepdims=True))
    assert bioword.energy(W, ngrams, winners, weights) == pytest.approx(expected, rel=1e-12)
    assert bioword.energy(3 * W, ngrams, winners, weights) == pytest.approx(expected, rel=1e-12)


def test_no_change_of_the_update_lowers_the_energy(stream):
    ngrams, weights = reference(stream, 2)
    winners = np.random.default_rng(2).integers(0, 5, ngrams.shape[0])
    best = bioword.update(ngrams, winners, 5, weights)
    least = bioword.energy(best, ngrams, winners, weights)
    rng = np.random.default_rng(3)
    for size in (1e-3, 1e-2, 0.3):
        assert bioword.energy(best + size * rng.normal(size=best.shape), ngrams, winners, weights) > least


def test_an_empty_unit_has_zero_weights_and_cannot_win(stream):
    ngrams, weights = reference(stream, 2)
    winners = np.zeros(ngrams.shape[0], dtype=int)
    W = bioword.update(ngrams, winners, 3, weights)
    assert np.linalg.norm(W, axis=1) == pytest.approx([1, 0, 0])
    with pytest.raises(ValueError, match="unit 2 wins"):
        bioword.energy(W, ngrams, winners + 2, weights)


@pytest.mark.parametrize("winner", bioword.WINNERS)
@pytest.mark.parametrize("h", [1, 2, 3, 5, 6])
def test_fit_agrees_with_the_reference(stream, winner, h):
    ngrams, weights = reference(stream, h)
    before, after = (BioWord(8, h, n, winner=winner, seed=4).fit(*stream, V) for n in (3, 4))
    exact = bioword.update(ngrams, after.winners_, 8, weights)
    assert after.weights_ == pytest.approx(exact, abs=1e-6)
    assert after.energy_[-1, 1] == pytest.approx(bioword.energy(exact, ngrams, after.winners_, weights), rel=1e-10)
    assert after.energy_[-1, 0] == pytest.approx(
        bioword.energy(before.weights_, ngrams, after.winners_, weights), rel=1e-5
    )
    scores = ngrams @ (before.weights_ * (weights if winner == "weighted" else 1)).T.astype(float)
    chosen = scores[np.arange(len(scores)), after.winners_]
    assert (chosen >= scores.max(1) * (1 - 1e-5)).all()
    assert np.array_equal(before.energy_, after.energy_[:3])


def test_blocks_of_any_length_give_the_same(stream, monkeypatch):
    one = BioWord(8, 5, 3).fit(*stream, V)
    monkeypatch.setattr(bioword, "BLOCK", 17)
    other = BioWord(8, 5, 3).fit(*stream, V)
    assert np.array_equal(one.winners_, other.winners_)
    assert np.array_equal(one.weights_, other.weights_)


def test_the_consistent_rule_descends_and_the_seed_decides(stream):
    runs = [BioWord(6, 2, 12, winner="weighted", seed=s).fit(*stream, V) for s in range(5)]
    for run in runs:
        path = run.energy_.ravel()
        assert (np.diff(path) <= 1e-9 * abs(path[0])).all()
    assert not np.array_equal(runs[0].winners_, runs[1].winners_)
    assert np.array_equal(runs[2].weights_, BioWord(6, 2, 12, winner="weighted", seed=2).fit(*stream, V).weights_)


def test_the_published_rule_climbs_on_four_ngrams():
    ngrams = sparse.csr_matrix(np.array([[0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=float))
    weights, winners = np.array([2.0, 3, 6]), np.array([0, 1, 1, 0])
    W = bioword.update(ngrams, winners, 2, weights)
    before = bioword.energy(W, ngrams, winners, weights)
    assert before == pytest.approx(-(math.sqrt(13) + math.sqrt(157)))
    moved = bioword.assign(W, ngrams)
    assert moved.tolist() == [0, 1, 0, 0]
    after = bioword.energy(bioword.update(ngrams, moved, 2, weights), ngrams, moved, weights)
    assert after == pytest.approx(-(math.sqrt(88) + 6))
    assert after > before
    assert bioword.assign(W, ngrams, column_weights=weights).tolist() == winners.tolist()


def test_a_weight_is_the_probability_of_the_unit_given_the_word(stream):
    ids, offsets = stream
    model = BioWord(8, 2, 4).fit(ids, offsets, V)
    windows, counts = bioword.window_matrix(ids, offsets, 2), np.bincount(ids, minlength=V)
    for unit in range(8):
        won = windows[model.winners_ == unit]
        target = np.bincount(won[:, 2], minlength=V) / counts
        context = np.bincount(np.delete(won, 2, 1).ravel(), minlength=V) / counts
        length = np.linalg.norm(np.concatenate([context, target]))
        assert model.weights_[unit] == pytest.approx(np.concatenate([context, target]) / length, abs=1e-6)
        assert ((target > 0) <= (counts > 0)).all()


# ---------------------------------------------------------------- scores


def test_dynamic_scores_are_a_matrix_product(stream):
    model = BioWord(8, 3, 2).fit(*stream, V)
    windows = bioword.window_matrix(*stream, 3)[:200].copy()
    windows[::3, [0, 3]] = -1
    expected = bioword.ngram_matrix(windows, V) @ model.weights_.T.astype(float)
    assert model.dynamic_scores(windows) == pytest.approx(expected, abs=1e-6)
    wide = np.hstack([windows, windows[:, :2]])
    assert model.dynamic_scores(wide).shape == (200, 8)


def test_static_scores_are_a_window_with_only_its_centre(stream):
    model = BioWord(8, 3, 2).fit(*stream, V)
    alone = np.full((V, 7), -1)
    alone[:, 3] = np.arange(V)
    assert np.array_equal(model.static_scores(), model.dynamic_scores(alone))
    assert np.array_equal(model.static_scores([3, 1]), model.static_scores()[[3, 1]])
    assert model.static_scores(5).shape == (1, 8)


def test_occurrence_scores_are_standardised_means_of_dynamic_scores():
    ids, offsets = text(seed=5)
    ids = np.where(ids == V - 1, 0, ids)  # the last word never occurs
    model = BioWord(8, 2, 3).fit(ids, offsets, V)
    windows = bioword.window_matrix(ids, offsets, 2)
    scores = model.dynamic_scores(windows).astype(float)
    seen = np.unique(windows[:, 2])
    means = np.stack([scores[windows[:, 2] == word].mean(0) for word in seen])
    found = model.static_scores(kind="occurrence")
    assert found[seen] == pytest.approx((means - means.mean(0)) / means.std(0), abs=1e-3)
    assert not found[V - 1].any()


def test_a_refit_forgets(stream):
    model = BioWord(8, 2, 2).fit(*stream, V)
    model.static_scores(kind="occurrence")
    model.fit(*text(seed=9), V)
    fresh = BioWord(8, 2, 2).fit(*text(seed=9), V)
    assert np.array_equal(model.static_scores(kind="occurrence"), fresh.static_scores(kind="occurrence"))


# ---------------------------------------------------------------- codes


def test_codes_of_all_small_scores_against_sorting():
    every = np.array(list(itertools.product([-1, 0, 1, 2], repeat=4)))
    for k in (1, 2, 3, 4):
        for row, code in zip(every, top_k_code(every, k)):
            best = sorted(range(4), key=lambda unit: (-row[unit], unit))[:k]
            assert np.flatnonzero(code).tolist() == sorted(unit for unit in best if row[unit] > 0)


def test_codes_ignore_positive_scale():
    scores = np.random.default_rng(0).normal(size=(50, 40))
    assert np.array_equal(top_k_code(scores, 7), top_k_code(4 * scores, 7))
    assert (top_k_code(scores, 7).sum(1) <= 7).all()
    assert (top_k_code(np.abs(scores), 7).sum(1) == 7).all()


@pytest.mark.parametrize("units", [1, 63, 64, 65, 400])
def test_packed_overlaps_are_the_plain_ones(units):
    codes = np.random.default_rng(units).random((40, units)) < 0.3
    assert bioword.pack_codes(codes).shape == (40, -(-units // 64))
    index = BinaryIndex(codes)
    expected = codes.astype(int) @ codes.T.astype(int)
    assert np.array_equal(index.overlaps(codes), expected)
    assert index.nbytes == 40 * 8 * -(-units // 64)
    overlap, ids = index.search(codes, 5)
    order = np.lexsort((np.broadcast_to(np.arange(40), expected.shape), -expected))[:, :5]
    assert np.array_equal(ids, order)
    assert np.array_equal(overlap, np.take_along_axis(expected, order, 1))


def test_overlap_measures_agree_with_scikit_learn():
    codes = np.array([[unit in chosen for unit in range(7)] for chosen in itertools.combinations(range(7), 3)])
    o = BinaryIndex(codes).overlaps(codes)
    assert 1 - pairwise_distances(codes, metric="jaccard") == pytest.approx(o / (6 - o))
    assert 7 * (1 - pairwise_distances(codes, metric="hamming")) == pytest.approx(7 - 2 * (3 - o))
    assert 1 - pairwise_distances(codes.astype(float), metric="cosine") == pytest.approx(o / 3)


def test_sign_hash_agrees_with_the_angle():
    theta = 0.9
    bits = bioword.sign_hash(np.array([[1, 0], [np.cos(theta), np.sin(theta)]]), 40_000, seed=3)
    agree = int((bits[0] == bits[1]).sum())
    assert stats.binomtest(agree, 40_000, 1 - theta / np.pi).pvalue > 1e-6
    assert stats.binomtest(agree, 40_000, np.cos(theta)).pvalue < 1e-6
    assert np.array_equal(bioword.sign_hash(np.eye(4), 9), bioword.sign_hash(5 * np.eye(4), 9))


def test_fly_hash_invariances():
    x = np.random.default_rng(0).integers(0, 50, (30, 64)).astype(float)
    code = bioword.fly_hash(x, 300, 20)
    assert (code.sum(1) == 20).all()
    assert np.array_equal(code, bioword.fly_hash(8 * x, 300, 20))
    assert np.array_equal(code, bioword.fly_hash(x + 64, 300, 20, centre=False))
    random = {"fan_in": "random"}
    assert not np.array_equal(
        bioword.fly_hash(x, 300, 20, **random), bioword.fly_hash(x + 64, 300, 20, centre=False, **random)
    )
    assert not np.array_equal(code, bioword.fly_hash(x, 300, 20, seed=1))


def test_code_entropy():
    assert bioword.code_entropy(10, 3) == pytest.approx(math.log2(120))
    assert bioword.code_entropy(10, 0) == 0
    with pytest.raises(ValueError, match=r"0\.\.10"):
        bioword.code_entropy(10, 11)


def test_word_similarity_is_spearman_on_known_pairs():
    vocab = corpus.Vocabulary.build([["a", "b", "c", "d"]], specials=())
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    pairs = [("A", "b", 3.0), ("a", "c", 2.0), ("b", "d", 1.0), ("c", "d", 1.5), ("a", "unknown", 9.0)]

    def similarity(one, two):
        return (vectors[one] * vectors[two]).sum(1)

    found = bioword.word_similarity(similarity, pairs, vocab)
    expected = stats.spearmanr([vectors[i] @ vectors[j] for i, j in ((0, 1), (0, 2), (1, 3), (2, 3))], [3, 2, 1, 1.5])
    assert (found.rho, found.used, found.skipped) == (pytest.approx(expected.statistic), 4, 1)
    with pytest.raises(ValueError, match="at least 3 pairs, got 2; 3 have"):
        bioword.word_similarity(similarity, pairs, {"a": 0, "b": 1, "c": 2})


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("ids", "offsets", "error", "message"),
    [
        ([0, 1, 2], [0, 2], ValueError, "offsets must rise from 0"),
        ([0, 1, 2], [1, 3], ValueError, "offsets must rise from 0"),
        ([0, 1, 2], [0, 2, 1, 3], ValueError, "offsets must rise from 0"),
        ([0, -1, 2], [0, 3], ValueError, "must not be negative, got -1"),
        ([0, 1, V], [0, 3], ValueError, f"below vocab_size={V}, got {V}"),
        ([0.0, 1.0], [0, 2], TypeError, "token_ids must be integers, got float64"),
        ([0, 1], [0.0, 2.0], TypeError, "offsets must be integers"),
        ([[0, 1]], [0, 2], ValueError, "must be vectors"),
    ],
)
def test_malformed_streams(ids, offsets, error, message):
    with pytest.raises(error, match=message):
        BioWord(2, 1, 1).fit(ids, offsets, V)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_units": 1}, "n_units must be at least 2, got 1"),
        ({"half_window": 0}, "half_window must be at least 1, got 0"),
        ({"n_iter": 0}, "n_iter must be at least 1, got 0"),
        ({"winner": "best"}, r"winner must be one of \('raw', 'weighted'\), got 'best'"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        BioWord(**options)


def test_more_units_than_windows():
    with pytest.raises(ValueError, match="5 units need as many full windows, got 2"):
        BioWord(5, 1, 1).fit([0, 1, 2, 3], [0, 4], V)


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [
        ([[1.0, 2.0]], 0, r"k must lie in 1\.\.2, got 0"),
        ([[1.0, 2.0]], 3, r"k must lie in 1\.\.2, got 3"),
        ([[1.0, np.nan]], 1, "scores hold nan, in row 0 first"),
        ([1.0, 2.0], 1, r"shape \(n, K\), got \(2,\)"),
    ],
)
def test_bad_scores(scores, k, message):
    with pytest.raises(ValueError, match=message):
        top_k_code(scores, k)


def test_a_rare_word_gets_fewer_bits_never_arbitrary_ones():
    scores = np.zeros((1, 400))
    scores[0, [7, 300]] = 0.5
    assert np.flatnonzero(top_k_code(scores, 51)).tolist() == [7, 300]
    assert bioword_tasks.arbitrary_ties(scores, 51).sum() == 51


def test_codes_of_other_kinds():
    codes = np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match="codes of 3 units, got codes of 4"):
        BinaryIndex(codes).overlaps(np.ones((1, 4), dtype=bool))
    with pytest.raises(TypeError, match="booleans, got float64"):
        bioword.pack_codes(np.eye(3))
    with pytest.raises(ValueError, match=r"shape \(n, K\)"):
        BinaryIndex(codes[0])
    with pytest.raises(ValueError, match=r"n_neighbors must lie in 1\.\.3, got 4"):
        BinaryIndex(codes).search(codes, 4)


def test_unknown_words_and_unfitted_models(stream):
    model = BioWord(4, 1, 1)
    for call in (model.static_scores, lambda: model.dynamic_scores([[0, 1, 2]])):
        with pytest.raises(AttributeError, match=r"not fitted: call fit"):
            call()
    model.fit(*stream, V)
    for wrong in (V, -1):
        with pytest.raises(IndexError, match=rf"word_ids must lie in 0\.\.{V - 1}"):
            model.static_scores([wrong])
    with pytest.raises(TypeError, match="word_ids must be integers"):
        model.static_scores([0.5])
    with pytest.raises(ValueError, match="kind must be one of"):
        model.static_scores(kind="context")
    with pytest.raises(ValueError, match="windows must lie in"):
        model.dynamic_scores([[0, V, 1]])
    with pytest.raises(ValueError, match="odd width"):
        model.dynamic_scores([[0, 1]])


def test_shapes_that_do_not_fit(stream):
    ngrams, weights = reference(stream, 1)
    with pytest.raises(ValueError, match=r"weights must have shape \(K, 60\)"):
        bioword.assign(np.ones((3, V)), ngrams)
    with pytest.raises(ValueError, match=r"winners must have shape"):
        bioword.update(ngrams, [0], 2, weights)
    with pytest.raises(ValueError, match=r"column_weights must have shape \(60,\)"):
        bioword.update(ngrams, np.zeros(ngrams.shape[0], dtype=int), 2, weights[:V])
    with pytest.raises(ValueError, match=r"connections must lie"):
        bioword.fly_hash(np.eye(3), 5, 2, connections=0)
    with pytest.raises(ValueError, match="fan_in must be"):
        bioword.fly_hash(np.eye(3), 5, 2, fan_in="any")
    with pytest.raises(ValueError, match="x must be finite"):
        bioword.sign_hash([[np.nan]], 4)


# ---------------------------------------------------------------- tasks and record


def test_reciprocal_rank_shares_ties():
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert bioword_tasks.reciprocal_rank(vectors, np.array([[0, 1]])) == pytest.approx(1 / 1.5)
    assert bioword_tasks.reciprocal_rank(vectors, np.array([[0, 3]])) == pytest.approx(1 / 3)


def test_neighbours_of_the_own_group_do_not_vote():
    vectors, labels = np.repeat(np.eye(2), 3, axis=0), np.array([0, 0, 1, 1, 1, 1])
    assert bioword_tasks.neighbour_accuracy(vectors, labels, n_neighbors=1) == pytest.approx(5 / 6)
    grouped = bioword_tasks.neighbour_accuracy(vectors, labels, n_neighbors=1, groups=[0, 0, 1, 2, 3, 4])
    assert grouped == pytest.approx(3 / 6)


def test_ppmi_is_positive_and_exact():
    words = [["a", "b", "a", "c", "a", "b"]]
    stream = bioword_tasks.text_stream(words, [0], min_count=1)
    counts = bioword.cooccurrences(stream.token_ids, stream.offsets, 3, 1).toarray()
    with np.errstate(divide="ignore"):
        expected = np.log(counts * counts.sum() / np.outer(counts.sum(1), counts.sum(0)))
    assert bioword_tasks.ppmi(stream, 1).toarray() == pytest.approx(
        np.where(np.isfinite(expected), expected, 0).clip(0)
    )


def test_occurrences_stand_inside_their_documents():
    docs = [["b", "a", "b"], ["a", "b"], ["c", "a", "c", "a", "c"]]
    stream = bioword_tasks.text_stream(docs, [0, 1, 2], min_count=1)
    windows, documents, labels = bioword_tasks.occurrences(stream, "a", half_window=1)
    assert [stream.vocab.decode(window) for window in windows] == [["b", "a", "b"], ["c", "a", "c"], ["c", "a", "c"]]
    assert documents.tolist() == labels.tolist() == [0, 2, 2]


def test_the_record_has_its_provenance():
    path = Path(__file__).parents[2] / "chapters/bioword_recorded.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert set(record) == set(bioword_recorded.PARTS)
    for part in record.values():
        origin = part["provenance"]
        assert origin["command"] == bioword_recorded.COMMAND
        assert {"date", "versions", "seeds", "sha256", "docstrings"} <= set(origin)
        assert len(origin["sha256"]["train.txt"]) == 64
        for name, table in _corpus_data._PAIR_TABLES.items():  # what a reader would fetch is what was used
            assert origin["sha256"][name] == table.sha256


def test_the_command_fetches_what_is_missing(tmp_path, monkeypatch):
    import pooch

    asked = []

    def retrieve(address, known_hash, *, fname, path, progressbar):
        asked.append(fname)
        if fname == "train.txt":
            monkeypatch.setattr(corpus, "load_wikitext2", lambda **kwargs: [])  # as if it had come
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setenv("EXPLAINERS_DATA", str(tmp_path))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            bioword_recorded.main(["rate", "--out", str(tmp_path / "record.json")])
    assert asked == ["train.txt", "MEN_dataset_natural_form_full"]
    assert not (tmp_path / "record.json").exists()


def test_pairs_are_binned_by_their_rarer_word():
    vocab = corpus.Vocabulary(("a", "b", "c"), np.array([500, 70, 5]))
    pairs = [("A", "a", 1.0), ("a", "b", 2.0), ("b", "c", 3.0), ("a", "zebra", 4.0)]
    found = bioword_recorded.frequency_bins(pairs, vocab)
    assert [len(part) for part in found] == [1, 0, 1, 0, 1]


def test_rounding_keeps_structure():
    assert bioword_recorded.rounded({"a": [np.float64(1 / 3), 2]}) == {"a": [0.33333, 2]}


# ---------------------------------------------------------------- found by `make mutate`


def test_plurals_are_pairs_of_words_that_are_both_frequent_enough():
    counts = {"cat": 30, "cats": 20, "dog": 40, "dogs": 19, "as": 50, "a": 5, "bus": 33}
    vocab = corpus.Vocabulary(tuple(counts), np.array(list(counts.values())))
    assert bioword_tasks.plural_pairs(vocab).tolist() == [[0, 1]]
    assert bioword_tasks.plural_pairs(vocab, 5).tolist() == [[0, 1], [2, 3], [5, 4]]


def test_words_at_home_in_one_package():
    """Documents count, not occurrences; at least the share, and at least the count."""
    docs = [["x", "y", "y"], ["x", "z"], ["x", "z", "y"], ["y", "w"], ["y", "x"]]
    stream = bioword_tasks.text_stream(docs, [3, 3, 3, 0, 0], min_count=1)
    at = stream.vocab.index  # documents by package: x 3:1, y 2:2, z 2:0, w 0:1
    words, packages = bioword_tasks.package_words(stream, min_count=2, share=0.75)
    assert dict(zip(words.tolist(), packages.tolist())) == {at["x"]: 3, at["z"]: 3}
    words, packages = bioword_tasks.package_words(stream, min_count=1, share=0.8)
    assert dict(zip(words.tolist(), packages.tolist())) == {at["z"]: 3, at["w"]: 0}
    assert at["y"] in bioword_tasks.package_words(stream, min_count=5, share=0.5)[0]
    assert len(bioword_tasks.package_words(stream)[0]) == 0  # nothing occurs fifty times


def test_package_words_by_default():
    docs = [["x"]] * 50 + [["y"]] * 49 + [["x"]] * 33 + [["z"]] * 60 + [["z"]] * 41
    stream = bioword_tasks.text_stream(docs, [0] * 99 + [1] * 33 + [1] * 60 + [2] * 41, min_count=1)
    words, packages = bioword_tasks.package_words(stream)  # x 50:33 is more than 0.6, z 60:41 less, y too rare
    assert ([stream.vocab.words[w] for w in words], packages.tolist()) == (["x"], [0])


def test_occurrences_need_room_on_both_sides_and_are_drawn_without_repeats():
    docs = [["a", "b", "a", "c", "a"], ["a", "a", "a"]] + [["b", "a", "c"]] * 30
    stream = bioword_tasks.text_stream(docs, [*range(32)], min_count=1)
    windows, documents, labels = bioword_tasks.occurrences(stream, "a", 1, most=99)
    assert len(windows) == 32
    assert documents.tolist() == labels.tolist() == [*range(32)]
    a, b, c = (stream.vocab.index[word] for word in "abc")
    assert windows[:3].tolist() == [[b, a, c], [a, a, a], [b, a, c]]
    _, some, _ = bioword_tasks.occurrences(stream, "a", 1, most=20)
    assert len(set(some.tolist())) == 20
    assert (np.diff(some) > 0).all()
    assert len(bioword_tasks.occurrences(stream, "a", 2)[0]) == 1
    assert len(bioword_tasks.occurrences(stream, "a")[0]) == 0


def test_mutual_information_has_a_row_for_words_without_neighbours():
    stream = bioword_tasks.text_stream([["a", "b", "a"], ["c"]], [0, 0], min_count=1)
    assert bioword_tasks.ppmi(stream, 1).shape == (3, 3)
    twelve = bioword_tasks.text_stream(["abcdefghijkl"], [0], min_count=1)  # two windows of five words on both sides
    assert bioword_tasks.ppmi(twelve).nnz == bioword_tasks.ppmi(twelve, 5).nnz > 0
    assert bioword_tasks.ppmi(twelve, 6).nnz == 0


def test_vectors_of_a_symmetric_matrix_multiply_to_it():
    factors = np.random.default_rng(1).normal(size=(12, 3))
    vectors = bioword_tasks.svd_vectors(sparse.csr_matrix(factors @ factors.T), 3)
    assert vectors.shape == (12, 3)
    assert vectors @ vectors.T == pytest.approx(factors @ factors.T, abs=1e-6)


def test_unit_vectors_have_length_one_and_zeros_stay():
    units = bioword_tasks.unit_vectors([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])
    assert units == pytest.approx(np.array([[0.6, 0.8], [0, 0], [0, -1]]))
    assert bioword_tasks.unit_vectors(np.array([[True, True, False, True, True]])) == pytest.approx(
        np.array([[0.5, 0.5, 0, 0.5, 0.5]])
    )


def test_five_neighbours_vote_by_default():
    rng = np.random.default_rng(2)
    vectors, labels = rng.normal(size=(300, 4)), rng.integers(3, size=300)
    found = {n: bioword_tasks.neighbour_accuracy(vectors, labels, n) for n in (4, 5, 6)}
    assert bioword_tasks.neighbour_accuracy(vectors, labels) == found[5]
    assert len(set(found.values())) == 3


def test_a_search_for_no_neighbour_is_refused():
    index = BinaryIndex(np.eye(4, dtype=bool))
    for number in (0, 5):
        with pytest.raises(ValueError, match=r"n_neighbors must lie in 1\.\.4"):
            index.search(np.eye(4, dtype=bool), number)
    assert index.search(np.eye(4, dtype=bool), 4)[1][2].tolist() == [2, 0, 1, 3]


def test_a_unit_of_the_fly_reads_the_share_of_inputs_rounded(monkeypatch):
    lit = np.eye(16)
    with monkeypatch.context() as patched:
        patched.setattr(bioword, "_largest", lambda excited, k: excited)
        for connections, reads in ((0.1, 2), (0.01, 1), (0.22, 4), (1.0, 16)):
            excited = bioword.fly_hash(
                lit, 40, 5, connections=connections, centre=False
            )  # which unit reads which input
            assert excited.sum(0).tolist() == [reads] * 40
    default, tenth, fifth = (
        bioword.fly_hash(lit, 50, 5, seed=1, **given) for given in ({}, {"connections": 0.1}, {"connections": 0.2})
    )
    assert (default == tenth).all()
    assert (default != fifth).any()


def test_defaults_of_the_tasks():
    rare = bioword_tasks.text_stream([["w"]] * 50 + [["y"]] * 49, [2] * 99, min_count=1)
    assert [rare.vocab.words[at] for at in bioword_tasks.package_words(rare)[0]] == ["w"]
    eleven = bioword_tasks.text_stream(["abcdefghijk"], [0], min_count=1)
    assert bioword_tasks.occurrences(eleven, "f")[0].shape == (1, 11)
    rng = np.random.default_rng(0)
    long = bioword_tasks.text_stream([rng.choice(list("abc"), 5000)], [0], min_count=1)
    assert len(long.thinned().token_ids) == len(long.thinned(1e-4).token_ids) < len(long.thinned(2e-4).token_ids)


@pytest.mark.parametrize(("connections", "reads"), [(0.09, 1), (0.1, 2), (0.16, 3)])
def test_the_share_of_inputs_is_rounded_to_the_nearest(monkeypatch, connections, reads):
    monkeypatch.setattr(bioword, "_largest", lambda excited, k: excited)
    assert bioword.fly_hash(np.eye(16), 9, 2, connections=connections, centre=False).sum(0).tolist() == [reads] * 9


# ---------------------------------------------------------------- borders, defaults and exact small cases


def test_one_window_is_a_matrix_of_one_row():
    assert bioword.window_matrix([7, 8, 9], [0, 3], 1).tolist() == [[7, 8, 9]]
    assert bioword.window_matrix([7, 8, 9, 5, 6], [0, 5], 2).tolist() == [[7, 8, 9, 5, 6]]


@pytest.mark.parametrize("half_window", [0, -1])
def test_a_window_without_neighbours_is_refused(half_window):
    with pytest.raises(ValueError, match=f"half_window must be at least 1, got {half_window}"):
        bioword.window_matrix([1, 2, 3], [0, 3], half_window)
    with pytest.raises(ValueError, match=f"half_window must be at least 1, got {half_window}"):
        bioword.cooccurrences([1, 2, 3], [0, 3], 4, half_window)


def test_cooccurrences_have_a_row_and_a_column_for_every_word():
    assert bioword.cooccurrences([0, 1, 0], [0, 3], 5, 1).toarray().tolist() == [
        [0] * 5,
        [2, 0, 0, 0, 0],
        *[[0] * 5] * 3,
    ]
    assert bioword.cooccurrences([], [0, 0], 2, 1).toarray().tolist() == [[0, 0], [0, 0]]


def test_a_word_that_occurs_once_has_a_weight_and_nothing_is_divided_by_zero():
    with np.errstate(all="raise"):
        assert bioword.word_weights([1, 0, 3]).tolist() == [4, 0, 4 / 3]


@pytest.mark.parametrize("counts", [[[1, 2], [3, 4]], 5, [1, math.nan], [1, math.inf], [3, -1]])
def test_counts_that_count_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be a vector without negative entries or nan"):
        bioword.word_weights(counts)


def test_scores_for_a_row_of_weights_only_are_refused(stream):
    ngrams, _ = reference(stream, 1)
    with pytest.raises(ValueError, match=r"weights must have shape \(K, 60\), got \(60,\)"):
        bioword.assign(np.ones(2 * V), ngrams)


def test_one_ngram_won_by_an_empty_unit_has_no_energy():
    ngrams, weights = bioword.ngram_matrix([[0, 1, 0], [1, 0, 1]], 2), np.ones(4)
    W = np.array([[2.0, 0, 0, 1], [0, 0, 0, 0]])
    assert bioword.energy(W, ngrams, [0, 0], weights) == pytest.approx(-math.sqrt(5))
    with pytest.raises(ValueError, match="unit 1 wins"):
        bioword.energy(W, ngrams, [0, 1], weights)


def test_a_unit_of_length_one_may_win_and_an_ngram_without_words_has_no_energy():
    ngrams = bioword.ngram_matrix([[0, 1, 0], [-1, -1, -1]], 2)
    assert bioword.energy(np.array([[1.0, 0, 0, 0]]), ngrams, [0, 0], np.ones(4)) == -2


def test_units_have_length_one_however_small_the_weights():
    ngrams = bioword.ngram_matrix([[0, 1, 0], [1, 0, 1]], 2)
    for size in (1e-3, 1.0, 1e3):
        found = bioword.update(ngrams, [0, 1], 2, size * np.ones(4))
        assert found == pytest.approx(np.array([[2, 0, 0, 1], [0, 2, 1, 0]]) / math.sqrt(5))


def test_the_settings_of_the_paper_by_default():
    model = BioWord()
    assert (model.n_units, model.half_window, model.n_iter) == (400, 5, 10)
    assert (model.winner, model.power, model.seed) == ("raw", 1.0, 0)
    counts = [4, 0, 12]
    assert bioword.word_weights(counts).tolist() == bioword.word_weights(counts, 1.0).tolist()


def test_the_least_settings_are_settings():
    model = BioWord(2, 1, 1).fit([0, 1, 2, 3], [0, 4], 4)
    assert model.weights_.shape == (2, 8)
    assert model.energy_.shape == (1, 2)


@pytest.mark.parametrize("half_window", [1, 2])
def test_as_many_units_as_windows_are_the_windows_from_the_first_round(half_window):
    """Each unit starts as another n-gram, and by Cauchy and Schwarz none fits an n-gram better than itself."""
    ids = np.random.default_rng(7).permutation(40)
    ids[::7] = 40  # a frequent word, so that the weights differ
    model = BioWord(40 - 2 * half_window, half_window, 1, winner="weighted", seed=3).fit(ids, [0, 40], 41)
    assert sorted(model.winners_) == list(range(40 - 2 * half_window))
    ngrams = bioword.ngram_matrix(bioword.window_matrix(ids, [0, 40], half_window), 41).toarray()
    lengths = np.linalg.norm(ngrams * np.tile(bioword.word_weights(np.bincount(ids, minlength=41)), 2), axis=1)
    assert model.energy_ == pytest.approx(np.full((1, 2), -lengths.sum()), rel=1e-6)


def test_the_power_of_the_weights_is_that_of_the_model(stream):
    counts = np.bincount(stream[0], minlength=V)
    model = BioWord(4, 1, 1, power=0.5).fit(*stream, V)
    assert np.array_equal(model.word_weights_, bioword.word_weights(counts, 0.5))
    ngrams, _ = reference(stream, 1)
    exact = bioword.update(ngrams, model.winners_, 4, np.tile(model.word_weights_, 2))
    assert model.weights_ == pytest.approx(exact, abs=1e-6)


def test_units_that_win_nothing_have_no_weights_and_start_again_from_different_ngrams(monkeypatch):
    text, offsets = [0, 1, 2] * 9 + [3, 4, 5], [*range(0, 31, 3)]  # nine equal windows, and another
    started = []

    def spy(self, centres, columns):
        started.append(centres.tolist())
        return plain(self, centres, columns)

    plain = BioWord._ngrams_as_units
    monkeypatch.setattr(BioWord, "_ngrams_as_units", spy)
    model = BioWord(10, 1, 4, winner="weighted").fit(text, offsets, 6)
    places = range(1, 30, 3)
    assert [len(centres) for centres in started] == [10] + [8] * 4  # two units are enough
    for centres in started:
        assert len(set(centres)) == len(centres)
        assert set(centres) <= set(places)
    filled = np.unique(model.winners_)
    assert len(filled) == 2
    assert np.linalg.norm(model.weights_, axis=1) == pytest.approx(np.isin(range(10), filled).astype(float))
    occurrence = model.static_scores(kind="occurrence")
    assert np.isfinite(occurrence).all()
    assert not np.delete(occurrence, filled, axis=1).any()


def test_a_unit_that_started_in_vain_finds_the_rare_ngram_later():
    text, offsets = [0, 1, 2] * 9 + [3, 4, 5], [*range(0, 31, 3)]
    for seed in range(5):
        model = BioWord(2, 1, 60, winner="weighted", seed=seed).fit(text, offsets, 6)
        assert len(set(model.winners_[:9])) == 1
        assert model.winners_[9] != model.winners_[0]
        assert np.linalg.norm(model.weights_, axis=1) == pytest.approx([1, 1])


def test_occurrence_scores_of_words_seen_once():
    ids = np.array([0, 1, 2, 1, 0, 3, 0, 4, 1, 1, 0])  # 2, 3 and 4 are the centre of one window
    model = BioWord(3, 1, 2).fit(ids, [0, 11], 6)
    windows = bioword.window_matrix(ids, [0, 11], 1)
    scores = model.dynamic_scores(windows).astype(float)
    means = np.stack([scores[windows[:, 1] == word].mean(0) for word in range(5)])
    found = model.static_scores(kind="occurrence")
    assert found[:5] == pytest.approx((means - means.mean(0)) / means.std(0), abs=1e-4)
    assert not found[5].any()


def test_the_first_and_the_last_word_have_scores_and_their_neighbours_have_none(stream):
    model = BioWord(4, 1, 1).fit(*stream, V)
    every = model.static_scores()
    assert np.array_equal(model.static_scores([0, V - 1]), every[[0, V - 1]])
    assert np.array_equal(model.static_scores(0), every[:1])
    assert model.static_scores([]).shape == (0, 4)
    for wrong in ([-1, 3], [3, V], [-1, V], V):
        with pytest.raises(IndexError, match=rf"word_ids must lie in 0\.\.{V - 1}"):
            model.static_scores(wrong)


def test_windows_of_one_word_and_windows_out_of_range(stream):
    model = BioWord(4, 1, 1).fit(*stream, V)
    W = model.weights_
    assert model.dynamic_scores([[3, 3, 3]]) == pytest.approx((2 * W[:, 3] + W[:, V + 3])[None], abs=1e-6)
    assert model.dynamic_scores(np.empty((0, 3), dtype=int)).shape == (0, 4)
    assert not model.dynamic_scores([[-1]]).any()
    for wrong in ([-2, 1, 1], [0, 1, V], [-2, 1, V]):
        with pytest.raises(ValueError, match=rf"windows must lie in -1\.\.{V - 1}"):
            model.dynamic_scores([wrong])
    for shape in ((3,), (1, 1, 3), (2, 4)):
        with pytest.raises(ValueError, match=r"windows must have shape \(n, odd width\)"):
            model.dynamic_scores(np.zeros(shape, dtype=int))


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [([], [0], "offsets must rise"), ([], [], "offsets must rise"), ([0, 1], [[0, 2]], "must be vectors")],
)
def test_documents_need_a_beginning_and_an_end(ids, offsets, message):
    with pytest.raises(ValueError, match=message):
        bioword.window_matrix(ids, offsets, 1)


def test_one_neighbour_is_the_nearest():
    codes = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], dtype=bool)
    overlap, ids = BinaryIndex(codes).search(codes, 1)
    assert (overlap.tolist(), ids.tolist()) == ([[2], [3], [2]], [[0], [1], [2]])


@pytest.mark.parametrize("neighbours", [1, 2, 9, 10])
def test_a_search_among_many_ties_is_a_sort(neighbours):
    codes = np.random.default_rng(5).random((10, 6)) < 0.5
    overlap, ids = BinaryIndex(codes).search(codes, neighbours)
    for query, code in enumerate(codes):
        ordered = sorted(range(10), key=lambda at: (-int((codes[at] & code).sum()), at))[:neighbours]
        assert ids[query].tolist() == ordered
        assert overlap[query].tolist() == [int((codes[at] & code).sum()) for at in ordered]


def test_signs_of_nothing_are_false_and_no_bits_are_refused():
    assert not bioword.sign_hash(np.zeros((2, 3)), 8).any()
    assert bioword.sign_hash(np.eye(3), 1).shape == (3, 1)
    with pytest.raises(ValueError, match="n_bits must be at least 1, got 0"):
        bioword.sign_hash(np.eye(3), 0)


@pytest.mark.parametrize("x", [[1.0, 2.0], [[1.0, math.nan]], [[math.inf, 1.0]], [[[1.0]]]])
def test_points_that_are_no_finite_matrix_are_refused(x):
    for call in (lambda: bioword.sign_hash(x, 4), lambda: bioword.fly_hash(x, 4, 2)):
        with pytest.raises(ValueError, match=r"x must be finite with shape \(n, D\)"):
            call()


def test_the_fly_subtracts_the_mean_of_each_point():
    x = np.random.default_rng(0).integers(0, 50, (30, 64)).astype(float)
    code = bioword.fly_hash(x, 300, 20, fan_in="random")
    assert np.array_equal(code, bioword.fly_hash(x, 300, 20, fan_in="random", centre=True))
    assert np.array_equal(code, bioword.fly_hash(x + 64, 300, 20, fan_in="random"))
    assert not np.array_equal(code, bioword.fly_hash(x, 300, 20, fan_in="random", centre=False))


def test_connections_drawn_one_by_one_are_as_many_as_their_share(monkeypatch):
    monkeypatch.setattr(bioword, "_largest", lambda excited, k: excited)
    for share in (0.1, 0.8):
        reads = bioword.fly_hash(np.eye(100), 100, 5, connections=share, centre=False, fan_in="random")
        assert stats.binomtest(int(reads.sum()), 10_000, share).pvalue > 1e-6
        assert len(set(reads.sum(0).tolist())) > 3  # not the same number for every unit
    assert bioword.fly_hash(np.eye(9), 4, 2, connections=1.0, centre=False, fan_in="random").all()


def test_a_unit_of_the_fly_reads_any_inputs(monkeypatch):
    """A unit alone, too: which inputs it reads is drawn, each as often as the others."""
    monkeypatch.setattr(bioword, "_largest", lambda excited, k: excited)
    reads = [bioword.fly_hash(np.eye(10), 1, 1, connections=0.3, centre=False, seed=seed)[:, 0] for seed in range(200)]
    assert stats.chisquare(np.sum(reads, axis=0)).pvalue > 1e-6


@pytest.mark.parametrize("connections", [-0.1, 0.0, 1.01, math.nan])
def test_a_share_of_inputs_out_of_range_is_refused(connections):
    with pytest.raises(ValueError, match=r"connections must lie in \(0, 1\]"):
        bioword.fly_hash(np.eye(3), 5, 2, connections=connections)


def test_a_code_of_all_units_has_no_information():
    assert bioword.code_entropy(10, 10) == 0
    for k in (-1, 11):
        with pytest.raises(ValueError, match=r"k must lie in 0\.\.10"):
            bioword.code_entropy(10, k)


def test_three_pairs_are_enough_and_both_words_are_lower_cased():
    pairs = [("a", "B", 3.0), ("A", "c", 2.0), ("b", "C", 1.0)]
    found = bioword.word_similarity(lambda one, two: -(one + two), pairs, {"a": 0, "b": 1, "c": 2})
    assert (found.rho, found.used, found.skipped) == (pytest.approx(1), 3, 0)
    with pytest.raises(ValueError, match="at least 3 pairs, got 2; 1 have"):
        bioword.word_similarity(lambda one, two: one + two, [*pairs[:2], ("a", "z", 1.0)], {"a": 0, "b": 1, "c": 2})


# ---------------------------------------------------------------- tasks: borders, defaults, another road


def test_a_text_keeps_the_words_that_are_frequent_enough_and_nothing_else():
    stream = bioword_tasks.text_stream([["b", "a", "b"], ["c", "a", "b"]], [4, 2], min_count=2)
    assert stream.vocab.words == ("b", "a")
    assert stream.token_ids.tolist() == [0, 1, 0, 1, 0]
    assert stream.offsets.tolist() == [0, 3, 5]
    assert (stream.labels.tolist(), stream.documents.tolist()) == ([4, 2], [0, 0, 0, 1, 1])


def test_docstrings_are_labelled_by_their_package_and_rare_words_are_left_out():
    from explainers._corpus_fields import make_doc

    where = {name: f"{name}.core" for name in corpus.PACKAGES[:2]}
    names = [corpus.PACKAGES[1]] * 4 + [corpus.PACKAGES[0]] * 6
    docs = corpus.Corpus(
        make_doc(name, f"{where[name]}.f{at}", where[name], "function", f"Sum {'rare' if at < 9 else 'seldom'} {at}.")
        for at, name in enumerate(names)
    )
    stream = bioword_tasks.docstring_stream(docs)
    assert stream.labels.tolist() == [1] * 4 + [0] * 6
    assert "sum" in stream.vocab.words  # ten times
    assert "rare" not in stream.vocab.words  # nine times
    assert {"sum", "rare"} <= set(bioword_tasks.docstring_stream(docs, 9).vocab.words)


def test_neighbours_as_frequent_as_by_chance_have_no_entry():
    stream = bioword_tasks.text_stream([["a"] * 6], [0], min_count=1)
    assert bioword_tasks.ppmi(stream, 1).nnz == 0


def test_without_ties_the_arbitrary_code_is_the_code():
    scores = np.random.default_rng(3).random((25, 12)) + 0.1
    for k in range(1, 13):
        assert np.array_equal(bioword_tasks.arbitrary_ties(scores, k), top_k_code(scores, k))


def test_reciprocal_ranks_by_sorting():
    vectors = np.random.default_rng(4).normal(size=(20, 5))
    pairs = np.array([[0, 3], [7, 2], [19, 0], [4, 5]])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks = []
    for one, two in pairs:
        others = sorted((at for at in range(20) if at != one), key=lambda at: -(units[at] @ units[one]))
        ranks.append(1 + others.index(two))
    assert len(set(ranks)) > 2
    assert bioword_tasks.reciprocal_rank(vectors, pairs) == pytest.approx(np.mean(1 / np.array(ranks)))


def test_equally_near_neighbours_vote_from_the_first_on():
    labels = np.repeat([1, 0], [18, 282])  # three kinds of rows in turn: the first six of each kind have label 1
    assert bioword_tasks.neighbour_accuracy(np.tile(np.eye(3), (100, 1)), labels) == pytest.approx(18 / 300)


def test_four_hundred_occurrences_by_default():
    stream = bioword_tasks.text_stream(["abcdefghijk"] * 402, [0] * 402, min_count=1)
    assert len(bioword_tasks.occurrences(stream, "f")[0]) == 400
    assert len(bioword_tasks.occurrences(stream, "f", most=402)[0]) == 402


def test_each_dimension_has_its_own_scale():
    x = np.array([[1.0, -50.0, 0.01], [-0.5, 100.0, 0.02], [0.25, 0.0, -0.04], [0.75, 20.0, 0.0]])
    assert bioword_tasks.int8(x).tolist() == [[127, -64, 32], [-64, 127, 64], [32, 0, -127], [95, 25, 0]]


@pytest.mark.parametrize("k", [1, 5, 100, 1500])
def test_the_largest_of_many_are_the_largest(k):
    scores = np.random.default_rng(8).permuted(np.tile(np.arange(1.0, 2001), (3, 1)), axis=1)
    assert np.array_equal(bioword_tasks.arbitrary_ties(scores, k), scores > 2000 - k)
    codes = np.random.default_rng(9).random((2000, 64)) < 0.5
    overlap, ids = BinaryIndex(codes).search(codes[:3], k)
    plain = codes[:3].astype(int) @ codes.T.astype(int)
    assert np.array_equal(ids, np.argsort(-plain, axis=1, kind="stable")[:, :k])
    assert np.array_equal(overlap, np.take_along_axis(plain, ids, 1))


def test_words_that_never_occur_divide_nothing_by_zero():
    model = BioWord(2, 1, 1).fit([0, 1, 2, 1, 0], [0, 5], 6)
    with np.errstate(all="raise"):
        assert not model.static_scores(kind="occurrence")[3:].any()
