"""Tests of the experiments of explainers.summarization: settings, defaults, and each column against another road."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from test_summarization import small_pairs

from explainers import _summarization_experiments as experiments
from explainers import summarization
from explainers.summarization import Pair, beam_search, copy_tags


@pytest.fixture(scope="module")
def small():
    return summarization.extraction_data(small_pairs())


@pytest.fixture
def raw_values(monkeypatch):
    """Let `pick` return the values by which it would have chosen."""
    monkeypatch.setattr(experiments.ExtractionData, "pick", lambda self, where, values, what: values)


def sides(monkeypatch, train, test):
    """Fix what `split_by_module` returns."""
    monkeypatch.setattr(experiments, "split_by_module", lambda pairs, seed: (train, test))


def encoder_of_words(*words):
    """Return an encoder to which each of the words, and the full stop, is one token."""
    bpe = summarization.train_bpe([" ".join(words)] * 9, 200)
    assert [len(bpe.encode(word).ids) for word in words] == [1] * len(words)
    return bpe


# --- Extraction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (summarization.extraction_data, "max_sentences", 20),
        (summarization.folds, "documents", 1500),
        (summarization.generation_run, "test", 200),
    ],
)
def test_settings_of_the_chapter(function, name, value):
    assert inspect.signature(function).parameters[name].default == value


def test_of_a_long_document_the_first_twenty_sentences():
    long = Pair("a.b.c.one", "one", [f"{word} one." for word in "abcdefghijklmnopqrstuv"], [])
    data = summarization.extraction_data([long])
    assert [sentence[0] for sentence in data.sentences[0]] == list("abcdefghijklmnopqrst")
    assert data.features[:, -1].toarray().ravel().tolist() == [1] * 20  # all of a name of one word


def regression(c, x, y, z):
    """Return the decisions of a logistic regression whose intercept is a feature, hence penalised, by Newton's way."""
    x, z = (np.hstack([part.toarray(), np.ones((part.shape[0], 1))]) for part in (x, z))
    model = LogisticRegression(C=c, fit_intercept=False, solver="newton-cholesky", tol=1e-10)
    return model.fit(x, y).decision_function(z)


def test_linear_models_against_newtons_way(small, raw_values):
    train, test = experiments._split(small, 0)
    x, y, z = small.features[small.rows(train)], small.labels(train), small.features[small.rows(test)]
    np.testing.assert_allclose(summarization.ladder(small, 0)["linear model"], regression(1, x, y, z), atol=0.01)
    found = summarization.folds(small, 0, n_splits=3).score
    np.testing.assert_allclose(found["test"], regression(30, x, y, z), atol=0.01)
    np.testing.assert_allclose(found["in sample"], regression(30, x, y, x), atol=0.01)
    document = np.repeat(train, [len(small.scores[d]) for d in train])
    module = np.array([small.documents[d].module for d in document])
    for name, group in (("by document", document), ("by module", np.unique(module, return_inverse=True)[1])):
        expected = np.zeros(len(y))
        for inside, outside in GroupKFold(3).split(x, y, group):
            assert not set(group[inside]) & set(group[outside])
            expected[outside] = regression(30, x[inside], y[inside], x[outside])
        ours = found[f"out of fold, {name}"]
        if name == "by document":
            np.testing.assert_allclose(ours, expected, atol=0.01)
        else:  # modules of equal size may be dealt out in another order
            assert np.corrcoef(ours, expected)[0, 1] > 0.9
    default, five, six = (
        summarization.folds(small, 0, **given).score for given in ({}, {"n_splits": 5}, {"n_splits": 6})
    )
    for name, same in (("out of fold, by document", False), ("out of fold, by module", False), ("test", True)):
        assert np.array_equal(default[name], five[name])
        assert np.array_equal(default[name], six[name]) == same


# --- Generation ---------------------------------------------------------------------------------------------------


def test_generation_data_by_default_and_at_its_borders(monkeypatch):
    bpe = encoder_of_words("alpha", "beta")
    pair = lambda n: Pair(f"a.b.c{n}.alpha", " ".join(["alpha"] * n), [" ".join(["beta"] * 60)], [])  # noqa: E731
    sides(monkeypatch, [pair(24), pair(23), pair(22), pair(1)], [pair(25), pair(23)])
    data = summarization.generation_data([], bpe, 0, train=2, test=1)
    assert [len(ids) for ids in data.train.summaries] == [23, 22]
    assert {len(ids) for ids in data.train.sources + data.test.sources} == {48}
    with pytest.raises(ValueError, match="wanted 2 pairs with a summary of at most 21 tokens, found 1"):
        summarization.generation_data([], bpe, 0, train=2, test=1, summary=21)
    assert "Pair(" not in repr(data)  # they are many and long


def test_generation_data_looks_among_twice_as_many_pairs(monkeypatch):
    bpe = encoder_of_words("alpha", "beta")
    long, short = (Pair(f"a.b.c.d{n}", " ".join(["alpha"] * n), ["beta"], []) for n in (9, 2))
    sides(monkeypatch, [long, short, long], [long, short])
    assert len(summarization.generation_data([], bpe, 0, train=1, test=1, summary=3).train) == 1
    sides(monkeypatch, [long, long, short], [short])
    with pytest.raises(ValueError, match="wanted 1 pairs with a summary of at most 3 tokens, found 0"):
        summarization.generation_data([], bpe, 0, train=1, test=1, summary=3)


def test_generation_data_passes_the_method_on(monkeypatch):
    bpe = encoder_of_words("alpha", "beta", "gamma", "delta")
    pair = Pair("a.b.c.alpha", "alpha gamma beta alpha", ["beta alpha delta gamma"], [])
    sides(monkeypatch, [pair], [pair])
    found = []
    for given in ({}, {"method": "lcs"}, {"method": "fragments"}):
        data = summarization.generation_data([], bpe, 0, train=1, test=1, **given)
        (source,), (summary,) = data.test.sources, data.test.summaries
        on_source, on_summary = copy_tags(source, summary, **({"method": "lcs"} | given))
        assert data.test.tags.tolist() == data.train.tags.tolist() == [[*on_source, 0, *on_summary, 0][1:] + [-100]]
        found.append(data.test.tags.tolist())
    assert found[0] == found[1] != found[2]


def test_a_run_is_two_layers_of_48_from_its_seed():
    pairs = small_pairs()
    bpe = summarization.train_bpe([pair.source for pair in pairs], 120)
    (found,) = summarization.generation_run(pairs, bpe, 5, steps=2, test=5)
    data = summarization.generation_data(pairs, bpe, 5, train=32, test=5)
    size = bpe.get_vocab_size()
    model = summarization.Summarizer(size, layers=2, width=48, heads=4, generator=torch.Generator().manual_seed(5))
    summarization.fit_summarizer(model, data.train, steps=2, seed=5)
    expected = summarization.held_out(model, data.test, summarization.copy_masks(data.test, size))
    np.testing.assert_array_equal(found.plain, expected.plain)


def test_a_token_that_no_training_summary_holds_was_seen_zero_times(monkeypatch):
    bpe = encoder_of_words("alpha", "beta", "gamma", "zeta")
    last = max(range(bpe.get_vocab_size()), key=lambda n: (bpe.id_to_token(n).strip("▁") in ("alpha", "zeta"), n))
    rare, common = ("zeta", "alpha") if "zeta" in bpe.id_to_token(last) else ("alpha", "zeta")
    sides(
        monkeypatch,
        [Pair("a.b.c.beta", f"{common} {common}", ["beta"], [])] * 32,
        [Pair("a.b.d.beta", f"{common} {rare}", ["gamma"], [])],
    )
    (found,) = summarization.generation_run([], bpe, 0, steps=1, test=1)
    assert found.seen.tolist() == [32, 0, 16]  # of 16 summaries with two words and an end


def test_the_toy_is_reproducible_noise_over_prefixes():
    state = torch.get_rng_state()
    source, step = summarization.toy_decoder(4)
    assert source == summarization.toy_decoder(4)[0] != summarization.toy_decoder(5)[0]
    assert len(source) == 12
    long = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    for prefix, number in (([], 5), ([3, 5], 535), (long, 5123456123456 % 2**31)):
        logits, tags = step(torch.tensor([prefix, prefix], dtype=torch.long), None)
        noise = 1.5 * torch.randn(10, generator=torch.Generator().manual_seed(number))
        expected = noise[:7] - torch.tensor([9.0, 0, 0, 0, 0, 0, 0])
        for row in (0, 1):
            torch.testing.assert_close(logits[row], expected)
            torch.testing.assert_close(tags[row], noise[7:])
    assert torch.equal(torch.get_rng_state(), state)


def test_texts_are_those_of_the_beam():
    bpe = encoder_of_words("alpha", "beta", "gamma", "delta", "zeta")
    rows = summarization.make_rows([[4 + (n + at) % 5 for at in range(5)] for n in range(4)], [[5]] * 4)
    data = experiments.GenerationData(bpe, rows, rows, [], [])

    class Noise:
        def stepper(self, prompt):
            assert int(prompt[-1]) == summarization.SEPARATOR
            _, step = summarization.toy_decoder(int(prompt[0]), vocabulary=bpe.get_vocab_size(), never_end=False)
            self.prompts.append(prompt[:-1].tolist())
            return step

    model, found = Noise(), {}
    for beam, mode in itertools.product((1, 3), ("none", "argmax", "mixture")):
        model.prompts = []
        found[beam, mode] = summarization.decode(model, data, mode, count=2, beam=beam)
        assert model.prompts == [list(source) for source in rows.sources[:2]]
        for text, source in zip(found[beam, mode], rows.sources):
            step = model.stepper(torch.tensor([*source, summarization.SEPARATOR]))
            best = beam_search(step, source, end=summarization.END, beam=beam, max_length=24, copy=mode)[0]
            assert text == bpe.decode(list(best.tokens))
        if beam == 1:
            assert found[beam, mode] == summarization.decode(model, data, mode, count=2)
    assert len({tuple(texts) for texts in found.values()}) == 6


@pytest.mark.parametrize(("times", "wanted"), [(19, 1), (20, 0)])
def test_a_word_that_twenty_training_summaries_hold_is_not_rare(times, wanted):
    bpe = encoder_of_words("alpha", "beta")
    ids = bpe.encode("alpha").ids
    rows = summarization.make_rows([ids], [ids])
    known = [Pair("a.b.c.d", "alpha", ["x"], [])] * times
    data = experiments.GenerationData(bpe, rows, rows, known, [Pair("a.b.c.d", "alpha", ["alpha"], [])])
    assert summarization.judge(["alpha"], data)["rare words"] == wanted


# --- The tagger ---------------------------------------------------------------------------------------------------


def test_the_tagger_has_convolutions_and_six_epochs(raw_values):
    small = summarization.extraction_data(small_pairs(modules=8, each=4))
    default = summarization.tagger_score(small, 0)
    np.testing.assert_array_equal(default, summarization.tagger_score(small, 0, convolutions=True, epochs=6))
    for other in ({"convolutions": False}, {"epochs": 5}):
        assert not np.array_equal(default, summarization.tagger_score(small, 0, **other))


def test_sixty_four_dimensions_hold_24_sentences_whole(monkeypatch):
    rng, caught = np.random.default_rng(0), []
    known = [" ".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) + " it." for _ in range(24)]
    pairs = [Pair(f"a.b.m{n}.f", "a b c d", [known[(n + 5 * k) % 24] for k in range(4)], []) for n in range(24)]
    data = summarization.extraction_data(pairs)
    monkeypatch.setattr(experiments, "_fit_tagger", lambda model, data, vectors, *rest: caught.append(vectors))
    summarization.tagger_score(data, 0)
    (vectors,) = caught
    assert vectors.shape == (data.features.shape[0], 68)
    assert vectors.dtype == torch.float32
    latent, tfidf = vectors[:, :64].numpy(), data.features[:, :-4].toarray()
    np.testing.assert_allclose(latent @ latent.T, 16 * tfidf @ tfidf.T, atol=1e-4)  # four times as long
    np.testing.assert_allclose(vectors[:, 64:], data.features[:, -4:].toarray(), rtol=1e-6)


class Linear(torch.nn.Module):
    """A linear tagger that keeps its weights before each step and how many documents the step saw."""

    def __init__(self, features):
        super().__init__()
        self.weight, self.before, self.sizes = torch.nn.Parameter(torch.zeros(features)), [], []

    def forward(self, x, mask):
        self.before.append(self.weight.detach().clone())
        self.sizes.append(len(x))
        return x @ self.weight


def test_the_tagger_is_fitted_by_adam_on_batches_of_64(small):
    vectors = torch.tensor(small.features[:, -4:].toarray(), dtype=torch.float32)
    model = Linear(4)
    experiments._fit_tagger(model, small, vectors, list(range(60)), 3)
    assert model.sizes == [60, 60, 60]
    x, y = vectors, torch.from_numpy(small.labels(range(60))).float()

    def gradient(weight):
        return x.T @ (torch.sigmoid(x @ weight) - y) / len(y)

    first = -0.003 * torch.sign(gradient(torch.zeros(4)))  # Adam's first step has one length for all
    torch.testing.assert_close(model.before[1], first, rtol=1e-3, atol=0)
    torch.testing.assert_close(model.weight.grad, gradient(model.before[2]), rtol=1e-4, atol=1e-6)
    for count, sizes in ((64, [64]), (65, [64, 1])):
        model = Linear(4)
        experiments._fit_tagger(model, small, vectors, [0] * count, 1)
        assert model.sizes == sizes
