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
