"""The experiments of chapter summarization on docstrings; used through :mod:`explainers.summarization`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from tokenizers import Tokenizer
from torch import Tensor

from ._summarization_copy import Step, beam_search
from ._summarization_data import Pair, split_by_module, words
from ._summarization_metric import rouge, textrank
from ._summarization_models import (
    END,
    SEPARATOR,
    ExtractiveTagger,
    HeldOut,
    Rows,
    Summarizer,
    copy_masks,
    fit_summarizer,
    held_out,
    make_rows,
)
from ._summarization_softmax import sparse_cross_entropy

Array = NDArray[np.float64]

# --- Extraction: choose the one sentence that is most like the summary ----------------------------------------


@dataclass(frozen=True)
class ExtractionData:
    """Documents of at least four sentences, and what each sentence would score.

    Attributes
    ----------
    documents : list of Pair
    sentences : list of list of list of str
        Words of each sentence of each document.
    scores, coverage : list of float arrays, one entry per sentence
        Combined ROUGE against the summary; share of the summary's words that the sentence holds.
    features : csr matrix, shape (all sentences, features)
        TF-IDF of words and word pairs, then place, length and overlap with the object's name.
    offsets : int array, shape (documents + 1,)
        Rows of each document.
    """

    documents: list[Pair]
    sentences: list[list[list[str]]]
    scores: list[Array]
    coverage: list[Array]
    features: csr_matrix
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.documents)

    def rows(self, documents: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of some documents, in their order."""
        return np.concatenate([np.arange(self.offsets[d], self.offsets[d + 1]) for d in documents])

    def labels(self, documents: Sequence[int]) -> NDArray[np.bool_]:
        """Return True for the best sentence of each document (the first of several)."""
        return np.concatenate([np.arange(len(self.scores[d])) == self.scores[d].argmax() for d in documents])

    def pick(self, documents: Sequence[int], values: Array, what: list[Array]) -> float:
        """Return the mean of ``what`` at the sentence of the largest value in each document."""
        bounds = np.cumsum([0, *(len(what[d]) for d in documents)])
        return float(np.mean([what[d][values[a:b].argmax()] for d, a, b in zip(documents, bounds, bounds[1:])]))


def extraction_data(pairs: Sequence[Pair], max_sentences: int = 20) -> ExtractionData:
    """Return the documents with at least four sentences; of longer ones the first `max_sentences`."""
    documents = [pair for pair in pairs if len(pair.sentences) >= 4]
    texts = [pair.sentences[:max_sentences] for pair in documents]
    sentences = [[words(sentence) for sentence in text] for text in texts]
    references = [words(pair.summary) for pair in documents]
    scores = [np.array([rouge(s, ref).combined for s in text]) for text, ref in zip(sentences, references)]
    coverage = [
        np.array([np.mean([word in bag for word in ref]) for bag in map(set, text)])
        for text, ref in zip(sentences, references)
    ]
    flat = [sentence for text in sentences for sentence in text]
    tfidf = TfidfVectorizer(analyzer=_grams, min_df=2, sublinear_tf=True).fit_transform(flat)  # sees no summary
    features = hstack([tfidf, csr_matrix(_surface(documents, sentences))]).tocsr()
    return ExtractionData(
        documents, sentences, scores, coverage, features, np.cumsum([0, *map(len, sentences)])
    )  # fmt: skip


def _grams(sentence: list[str]) -> list[str]:
    return sentence + [f"{a} {b}" for a, b in pairwise(sentence)]


def _surface(documents: list[Pair], sentences: list[list[list[str]]]) -> Array:
    """Return first?, 1 / (1 + place), length and overlap with the name, one row a sentence."""
    rows = []
    for pair, text in zip(documents, sentences):
        title = set(pair.title.split())
        for place, sentence in enumerate(text):
            overlap = len(title & set(sentence)) / max(1, len(title))
            rows.append([place == 0, 1 / (1 + place), len(sentence) / 20, overlap])
    return np.array(rows, dtype=float)


def _split(data: ExtractionData, seed: int) -> tuple[list[int], list[int]]:
    at = {id(pair): n for n, pair in enumerate(data.documents)}
    return tuple([at[id(pair)] for pair in part] for part in split_by_module(data.documents, seed))


def ladder(data: ExtractionData, seed: int) -> dict[str, float]:
    """Return the mean score of one extracted sentence on test documents, by way of choosing it."""
    train, test = _split(data, seed)
    model = LogisticRegression(C=1, solver="liblinear").fit(data.features[data.rows(train)], data.labels(train))
    chosen = data.features[data.rows(test)]

    def mean(values: Array) -> float:
        return data.pick(test, values, data.scores)

    return {
        "any sentence": float(np.mean([data.scores[d].mean() for d in test])),
        "TextRank": mean(np.concatenate([textrank(data.sentences[d]) for d in test])),
        "overlap with name": mean(chosen[:, -1].toarray()[:, 0]),
        "first sentence": mean(chosen[:, -3].toarray()[:, 0]),
        "linear model": mean(model.decision_function(chosen)),
        "best sentence": float(np.mean([data.scores[d].max() for d in test])),
    }


@dataclass(frozen=True)
class FoldResult:
    """Score, and share of the summary's words inside, of extractions made in four ways from one training set."""

    score: dict[str, float]
    coverage: dict[str, float]


def folds(data: ExtractionData, seed: int, documents: int = 1500, n_splits: int = 5) -> FoldResult:
    """Return what a flexible extractor achieves where it was trained, out of fold, and on test documents."""
    train, test = _split(data, seed)
    train = train[:documents]
    x, y = data.features[data.rows(train)], data.labels(train)
    model = LogisticRegression(C=30, solver="liblinear")
    sizes = [len(data.scores[d]) for d in train]
    modules = {pair.module: n for n, pair in enumerate(data.documents)}
    groups = {
        "out of fold, by document": np.repeat(train, sizes),
        "out of fold, by module": np.repeat([modules[data.documents[d].module] for d in train], sizes),
    }
    values = {"in sample": model.fit(x, y).decision_function(x)}
    on_test = model.decision_function(data.features[data.rows(test)])
    for name, group in groups.items():
        values[name] = cross_val_predict(
            model, x, y, groups=group, cv=GroupKFold(n_splits), method="decision_function"
        )  # fmt: skip
    result = FoldResult({}, {})
    for name, value in [*values.items(), ("test", on_test)]:
        where = test if name == "test" else train
        result.score[name] = data.pick(where, value, data.scores)
        result.coverage[name] = data.pick(where, value, data.coverage)
    return result


# --- Generation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GenerationData:
    """A split of the pairs as token rows.

    Attributes
    ----------
    bpe : Tokenizer
    train, test : Rows
    train_pairs, test_pairs : list of Pair
    """

    bpe: Tokenizer
    train: Rows
    test: Rows
    train_pairs: list[Pair] = field(repr=False)
    test_pairs: list[Pair] = field(repr=False)


def generation_data(
    pairs: Sequence[Pair], bpe: Tokenizer, seed: int, *, train: int, test: int, source: int = 48, summary: int = 23,
    method: str = "lcs",
) -> GenerationData:  # fmt: skip
    """Return training and test rows; sources are cut to `source` tokens, pairs with longer summaries left out.

    Raises
    ------
    ValueError
        If the pairs do not suffice.
    """
    parts, kept = [], []
    for side, count in zip(split_by_module(pairs, seed), (train, test)):
        some = side[: count * 2]  # about a sixth has a longer summary
        summaries = [encoding.ids for encoding in bpe.encode_batch([pair.summary for pair in some])]
        fits = [n for n, ids in enumerate(summaries) if len(ids) <= summary][:count]
        if len(fits) < count:
            raise ValueError(f"wanted {count} pairs with a summary of at most {summary} tokens, found {len(fits)}")
        chosen = [some[n] for n in fits]
        sources = [encoding.ids[:source] for encoding in bpe.encode_batch([pair.source for pair in chosen])]
        parts.append(make_rows(sources, [summaries[n] for n in fits], method=method))
        kept.append(chosen)
    return GenerationData(bpe, *parts, *kept)


def generation_run(
    pairs: Sequence[Pair], bpe: Tokenizer, seed: int, *, steps: int, test: int = 200, ks: Sequence[int | None] = (None,)
) -> list[HeldOut]:
    """Train one generator per entry of `ks` (None: cross entropy) from the same start; return what each achieves."""
    data = generation_data(pairs, bpe, seed, train=16 * steps, test=test)
    size = bpe.get_vocab_size()
    masks = copy_masks(data.test, size)
    seen = np.bincount([token for ids in data.train.summaries for token in [*ids, END]], minlength=size)
    results = []
    for k in ks:
        model = Summarizer(size, 2, 48, 4, generator=torch.Generator().manual_seed(seed))
        loss = F.cross_entropy if k is None else functools.partial(sparse_cross_entropy, k=k)
        fit_summarizer(model, data.train, steps=steps, seed=seed, loss=loss)
        judged = held_out(model, data.test, masks)
        results.append(replace(judged, seen=seen[judged.token]))
    return results


def toy_decoder(seed: int, vocabulary: int = 7, length: int = 12, never_end: bool = True) -> tuple[list[int], Step]:
    """Return a random source and a `step` whose logits depend on the whole prefix: hypotheses change places a lot."""
    source = torch.randint(1, vocabulary, (length,), generator=torch.Generator().manual_seed(seed)).tolist()

    def step(prefixes: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        seeds = [int("".join(map(str, [seed + 1, *prefix]))) % 2**31 for prefix in prefixes.tolist()]
        rows = [torch.randn(vocabulary + 3, generator=torch.Generator().manual_seed(n)) for n in seeds]
        logits = 1.5 * torch.stack(rows)
        logits[:, 0] -= 9 * never_end
        return logits[:, :vocabulary], logits[:, vocabulary:]

    return source, step


def decode(model: Summarizer, data: GenerationData, copy: str, *, count: int, beam: int = 1) -> list[str]:
    """Return the model's summaries of the first `count` test rows."""
    texts = []
    for source in data.test.sources[:count]:
        step = model.stepper(torch.tensor([*source, SEPARATOR]))
        best = beam_search(step, source, end=END, beam=beam, max_length=24, copy=copy)[0]
        texts.append(data.bpe.decode(list(best.tokens)))
    return texts


def judge(texts: Sequence[str], data: GenerationData, *, rare_below: int = 20) -> dict[str, float]:
    """Return the mean score of the texts, and their recall of rare words.

    A word is rare if the reference and the (cut) source hold it and the training summaries hold it fewer than
    `rare_below` times.
    """
    known = Counter(word for pair in data.train_pairs for word in words(pair.summary))
    scores, hits, wanted = [], 0, 0
    for text, pair, source in zip(texts, data.test_pairs, data.test.sources):
        output, reference = words(text), words(pair.summary)
        rare = {w for w in set(reference) & set(words(data.bpe.decode(source))) if known[w] < rare_below}
        scores.append(rouge(output, reference).combined)
        wanted += len(rare)
        hits += len(rare & set(output))
    return {"score": float(np.mean(scores)), "rare recall": hits / max(1, wanted), "rare words": wanted}


def kl_bernoulli(true: float, assumed: float) -> float:
    """Return the cost, in nats a word, of a copy prior that is off (eq-summarization-mismatch, chapter summarization).

    >>> round(kl_bernoulli(0.34, 0.45), 4)
    0.025
    """
    pairs = ((true, assumed), (1 - true, 1 - assumed))
    if not all(0 < value < 1 for value in (true, assumed)):
        raise ValueError(f"both rates must lie in (0, 1), got {true} and {assumed}")
    return float(sum(p * np.log(p / q) for p, q in pairs))


# --- The extractor of the article, on frozen sentence vectors ---------------------------------------------------


def tagger_score(data: ExtractionData, seed: int, *, convolutions: bool = True, epochs: int = 6) -> float:
    """Return the test score of a dilated gated CNN, or of the same network without its convolutions.

    The sentence vectors are frozen: 64 latent semantic dimensions fitted on training documents, and four features of
    the surface (see `ExtractionData`).
    """
    train, test = _split(data, seed)
    tfidf, surface = data.features[:, :-4], data.features[:, -4:].toarray()
    lsa = TruncatedSVD(64, random_state=seed).fit(tfidf[data.rows(train)])
    vectors = torch.tensor(np.hstack([lsa.transform(tfidf) * 4, surface]), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):  # layers and dropout draw from the global generator
        torch.manual_seed(seed)
        model = ExtractiveTagger(vectors.shape[1], 32, (1, 2, 4, 8, 1, 1) if convolutions else ())
        _fit_tagger(model, data, vectors, train, epochs)
    with torch.no_grad():
        inputs, mask, _ = _padded(data, vectors, test)
        values = model.eval()(inputs, mask)[mask].numpy()
    return data.pick(test, values, data.scores)


def _fit_tagger(model: ExtractiveTagger, data: ExtractionData, vectors: Tensor, train: list[int], epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, foreach=False)
    for _ in range(epochs):
        for chosen in torch.randperm(len(train)).split(64):
            inputs, mask, labels = _padded(data, vectors, [train[at] for at in chosen])
            loss = F.binary_cross_entropy_with_logits(model(inputs, mask)[mask], labels[mask])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _padded(data: ExtractionData, vectors: Tensor, documents: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors (documents, sentences, features), mask and labels (documents, sentences)."""
    sizes = torch.tensor([len(data.scores[d]) for d in documents])
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    inputs, labels = torch.zeros(*mask.shape, vectors.shape[1]), torch.zeros(mask.shape)
    inputs[mask] = vectors[torch.from_numpy(data.rows(documents))]
    labels[mask] = torch.from_numpy(data.labels(documents)).float()
    return inputs, mask, labels
