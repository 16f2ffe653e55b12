"""Results of the chapter *bioword* that its notebook does not compute: WikiText-2, word2vec, and sweeps of settings.

``EXPLAINERS_DATA=folder python -m explainers.bioword_recorded`` writes ``chapters/bioword_recorded.json`` with its
provenance, in about twelve minutes of one core. The folder holds ``wikitext-2`` and ``word_similarity``; what it
lacks is fetched into it (:func:`explainers.corpus.load_wikitext2`, :func:`~explainers.corpus.load_word_pairs`).
word2vec needs ``gensim``, of ``lib/benchmarks/requirements.txt``. Parts named behind the command (``wikitext``,
``word2vec``, ``settings``, ``rate``, ``documents``) are the only ones renewed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from . import bioword, corpus
from . import bioword_tasks as tasks
from ._corpus_data import data_folder

COMMAND = "EXPLAINERS_DATA=<folder> python -m explainers.bioword_recorded"
SEEDS = range(5)
K, ONES = 400, 51
BINS = (5, 20, 60, 150, 400)  # of the count of the rarer word of a pair
PAIR_FILES = {"MEN": "men.csv", "WordSim-353": "wordsim353.csv"}
WORD2VEC = {"vector_size": 100, "window": 5, "sg": 1, "negative": 5, "min_count": 1, "sample": 0, "workers": 1}


# ---------------------------------------------------------------- WikiText-2


def wikitext_stream() -> tasks.Stream:
    """Return the training part of WikiText-2: lower-case alphabetic words that occur 5 times or more."""
    alphabetic = re.compile(r"[a-z]+")
    docs = [
        [word for word in map(str.lower, article) if alphabetic.fullmatch(word)]
        for article in corpus.load_wikitext2(split="train")
    ]
    return tasks.text_stream(docs, np.zeros(len(docs), dtype=int), min_count=5)


def similarity_scores(vectors: NDArray, vocab: corpus.Vocabulary) -> dict[str, float]:
    """Return Spearman's correlation of cosines with each set of human judgements."""
    return {name: spearman(vectors, corpus.load_word_pairs(file), vocab).rho for name, file in PAIR_FILES.items()}


def spearman(vectors: NDArray, pairs: Sequence, vocab: corpus.Vocabulary) -> bioword.Similarity:
    """Return the rank correlation of cosines with the scores of word pairs."""
    units = tasks.unit_vectors(vectors)
    return bioword.word_similarity(lambda one, two: (units[one] * units[two]).sum(1), pairs, vocab)


def by_frequency(vectors: NDArray, vocab: corpus.Vocabulary) -> list[float]:
    """Return the correlation on MEN for pairs by the count of their rarer word."""
    pairs = corpus.load_word_pairs(PAIR_FILES["MEN"])
    return [spearman(vectors, part, vocab).rho for part in frequency_bins(pairs, vocab)]


def frequency_bins(pairs: Sequence, vocab: corpus.Vocabulary) -> list[list]:
    """Return the pairs by the count of their rarer word; pairs with an unknown word are left out."""
    known = [pair for pair in pairs if pair[0].lower() in vocab and pair[1].lower() in vocab]
    rarer = [min(vocab.counts[vocab.index[word.lower()]] for word in pair[:2]) for pair in known]
    places = np.digitize(rarer, BINS) - 1
    return [[pair for pair, place in zip(known, places) if place == wanted] for wanted in range(len(BINS))]


def fly_vectors(model: bioword.BioWord) -> Iterator[tuple[str, NDArray]]:
    """Yield the vectors that one trained model gives."""
    static, occurrence = model.static_scores(), model.static_scores(kind="occurrence")
    yield "static code", bioword.top_k_code(static, ONES)
    yield "static code, ties arbitrary", tasks.arbitrary_ties(static, ONES)
    yield "static, dense", static
    yield "occurrence code", bioword.top_k_code(occurrence, ONES)


def dense_vectors(matrix: Any, seed: int) -> Iterator[tuple[str, NDArray]]:
    """Yield what factorising and hashing one PPMI matrix gives."""
    vectors = tasks.svd_vectors(matrix, 300, seed)
    yield "PPMI-SVD 300, float32", vectors
    yield "PPMI-SVD 50, int8", tasks.int8(vectors[:, :50])
    yield "PPMI-SVD 25, float16", vectors[:, :25].astype(np.float16).astype(np.float32)
    yield "sign hash of SVD 300", bioword.sign_hash(vectors, K, seed)


def wikitext() -> dict[str, Any]:
    """Compare all vectors on the word-similarity sets."""
    full = wikitext_stream()
    pairs = {name: corpus.load_word_pairs(file) for name, file in PAIR_FILES.items()}
    found: dict[str, dict[str, list]] = {}
    for seed in SEEDS:
        stream = full.thinned(seed=seed)
        model = bioword.BioWord(K, seed=seed).fit(stream.token_ids, stream.offsets, len(stream.vocab))
        for name, vectors in [*fly_vectors(model), *dense_vectors(tasks.ppmi(stream), seed)]:
            row = found.setdefault(name, {key: [] for key in (*PAIR_FILES, "MEN by frequency")})
            for key, value in similarity_scores(vectors, stream.vocab).items():
                row[key].append(value)
            row["MEN by frequency"].append(by_frequency(vectors, stream.vocab))
    used = {name: spearman(vectors, part, full.vocab) for name, part in pairs.items()}
    return {
        "settings": "count >= 5, subsampling 1e-4, K = 400, k = 51, 5 words each side, 10 iterations",
        "words": len(full.vocab),
        "tokens": len(full.token_ids),
        "pairs": {name: {"used": one.used, "skipped": one.skipped} for name, one in used.items()},
        "bins": {"from": BINS, "pairs": [len(part) for part in frequency_bins(pairs["MEN"], full.vocab)]},
        "vectors": found,
    }


# ---------------------------------------------------------------- word2vec


def word2vec_vectors(stream: tasks.Stream, epochs: int, seed: int) -> NDArray[np.float32]:
    """Train gensim's skip-gram model on the same thinned text; return its vectors in the vocabulary's order."""
    from gensim.models import Word2Vec

    bounds = zip(stream.offsets[:-1], stream.offsets[1:])
    sentences = [list(map(str, stream.token_ids[a:b].tolist())) for a, b in bounds if b > a]
    model = Word2Vec(sentences, epochs=epochs, seed=seed, **WORD2VEC)
    vectors = np.zeros((len(stream.vocab), WORD2VEC["vector_size"]), dtype=np.float32)
    for word in model.wv.index_to_key:
        vectors[int(word)] = model.wv[word]
    return vectors


def word2vec() -> dict[str, Any]:
    """Compare skip-gram at 100 dimensions, as floats and at 400 bits, on both texts; two seeds, as it is slow."""
    docs = tasks.docstring_stream(corpus.load_docstrings())
    wiki = wikitext_stream()
    found: dict[str, Any] = {"settings": {**WORD2VEC, "epochs": 15}, "docstrings": {}, "wikitext": {}}
    for seed in (0, 1):
        stream = docs.thinned(seed=seed)
        for name, vectors in at_sizes(word2vec_vectors(stream, 15, seed), seed):
            found["docstrings"].setdefault(name, []).append(docstring_scores(vectors, docs))
        stream = wiki.thinned(seed=seed)
        for name, vectors in at_sizes(word2vec_vectors(stream, 15, seed), seed):
            found["wikitext"].setdefault(name, []).append(similarity_scores(vectors, stream.vocab))
    return found


def at_sizes(vectors: NDArray, seed: int) -> Iterator[tuple[str, NDArray]]:
    """Yield 100-dimensional vectors as they are and squeezed into 400 bits."""
    yield "word2vec 100, float32", vectors
    axes = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2]
    yield "word2vec, 50 principal axes, int8", tasks.int8((vectors - vectors.mean(0)) @ axes[:50].T)
    yield "sign hash of word2vec", bioword.sign_hash(vectors, K, seed)


def docstring_scores(vectors: NDArray, full: tasks.Stream) -> dict[str, float]:
    """Return the chapter's two measures on the docstrings."""
    words, labels = tasks.package_words(full)
    return {
        "plural": tasks.reciprocal_rank(vectors, tasks.plural_pairs(full.vocab)),
        "package": tasks.neighbour_accuracy(vectors[words], labels),
    }


# ---------------------------------------------------------------- settings, on the docstrings

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "winner weighted": {"winner": "weighted"},
    "power 0": {"power": 0.0},
    "power 0.5": {"power": 0.5},
    "power 0.75": {"power": 0.75},
    "100 units": {"n_units": 100},
    "200 units": {"n_units": 200},
    "800 units": {"n_units": 800},
    "2 words each side": {"half_window": 2},
    "10 words each side": {"half_window": 10},
    "3 iterations": {"n_iter": 3},
    "20 iterations": {"n_iter": 20},
}
FIVE_SEEDS = {"as published", "winner weighted"}  # these have five seeds, the others two


def settings() -> dict[str, Any]:
    """Turn one knob at a time; static codes."""
    full = tasks.docstring_stream(corpus.load_docstrings())
    found = {}
    for name, options in SETTINGS.items():
        rows = []
        for seed in SEEDS if name in FIVE_SEEDS else range(2):
            stream = full.thinned()
            model = bioword.BioWord(**{"n_units": K, **options}, seed=seed)
            model.fit(stream.token_ids, stream.offsets, len(stream.vocab))
            ones = round(model.n_units * ONES / K)
            code = bioword.top_k_code(model.static_scores(), ones)
            share = np.bincount(model.winners_, minlength=model.n_units) / len(model.winners_)
            entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
            usage = {"largest": share.max(), "effective": np.exp(entropy), "energy": model.energy_[-1, 1]}
            rows.append({**docstring_scores(code, full), **usage})
        found[name] = rows
    return found


# ---------------------------------------------------------------- the published learning rate


def minibatch_weights(
    ngrams: Any, columns: NDArray, rate: float, *, batch: int = 10_000, epochs: int = 15, seed: int = 0
) -> NDArray[np.float32]:
    """Train by the rule of the reference code: raw winners, largest change of a weight = rate, falling to 0."""
    rng = np.random.default_rng(seed)
    weights = np.abs(rng.normal(0, 0.02, (K, ngrams.shape[1]))).astype(np.float32)
    starts = range(0, ngrams.shape[0] - batch + 1, batch)
    steps = [(epoch, start) for epoch in range(epochs) for start in starts]
    for done, (_, start) in enumerate(steps):
        part = ngrams[start : start + batch]
        winners = (part @ weights.T).argmax(1)
        member = np.zeros((K, batch), dtype=np.float32)
        member[winners, np.arange(batch)] = 1
        pull = np.asarray((part.T @ member.T).T) * columns  # S, one row a unit
        change = pull - np.sum(weights * pull, axis=1, keepdims=True) * weights
        weights += (rate * (1 - done / len(steps)) / np.abs(change).max()) * change
    return weights


def rate() -> dict[str, Any]:
    """Measure static codes after training by minibatches at three learning rates; one seed."""
    full = tasks.docstring_stream(corpus.load_docstrings())
    stream = full.thinned()
    size = len(stream.vocab)
    windows = bioword.window_matrix(stream.token_ids, stream.offsets, 5)
    ngrams = bioword.ngram_matrix(np.random.default_rng(0).permutation(windows), size).astype(np.float32)
    counts = np.bincount(stream.token_ids, minlength=size)
    columns = np.tile(bioword.word_weights(counts), 2).astype(np.float32)
    found = {}
    for step in (2e-4, 2e-3, 2e-2):
        weights = minibatch_weights(ngrams, columns, step)
        lengths = np.linalg.norm(weights, axis=1)
        scores = (weights / lengths[:, None])[:, size:].T
        quality = docstring_scores(bioword.top_k_code(scores, ONES), full)
        found[f"{step:g}"] = {**quality, "length": [float(lengths.min()), float(lengths.max())]}
    return found


# ---------------------------------------------------------------- documents


def document_accuracy(vectors: NDArray, stream: tasks.Stream, seed: int) -> float:
    """Return how often logistic regression names a document's package from the mean of its words' vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    lengths = np.diff(stream.offsets)
    long = np.flatnonzero(lengths >= 10)
    chosen = np.random.default_rng(seed).permutation(long)[:9_000]
    shape = (len(lengths), len(stream.vocab))
    counts = sparse.coo_matrix((np.ones(len(stream.token_ids)), (stream.documents, stream.token_ids)), shape).tocsr()
    means = (counts[chosen] @ vectors) / lengths[chosen, None]
    train, test = slice(0, 6_000), slice(6_000, None)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100, tol=1e-2))
    model.fit(means[train], stream.labels[chosen[train]])
    return float(model.score(means[test], stream.labels[chosen[test]]))


def documents() -> dict[str, list[float]]:
    """Compare word vectors by the classification of 3,000 docstrings into packages, 6,000 to learn from."""
    full = tasks.docstring_stream(corpus.load_docstrings())
    stream = full.thinned()
    svd = tasks.svd_vectors(tasks.ppmi(stream), 300)
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        model = bioword.BioWord(K, seed=seed).fit(stream.token_ids, stream.offsets, len(stream.vocab))
        random = bioword.top_k_code(np.random.default_rng(seed).random((len(stream.vocab), K)), ONES)
        vectors = {
            "PPMI-SVD 300, float32": svd,
            "occurrence code": bioword.top_k_code(model.static_scores(kind="occurrence"), ONES),
            "sign hash of SVD 300": bioword.sign_hash(svd, K, seed),
            "static code": bioword.top_k_code(model.static_scores(), ONES),
            "random codes": random,
        }
        for name, one in vectors.items():
            found.setdefault(name, []).append(document_accuracy(one.astype(float), stream, seed))
    return found


# ---------------------------------------------------------------- the record

PARTS: dict[str, Callable[[], Any]] = {
    "wikitext": wikitext,
    "word2vec": word2vec,
    "settings": settings,
    "rate": rate,
    "documents": documents,
}


def fetch_missing() -> None:
    """Load the three public files once, so that a missing one is fetched and a damaged one is noticed first."""
    corpus.load_wikitext2(split="train", download=True)
    for file in PAIR_FILES.values():
        corpus.load_word_pairs(file, download=True)


def provenance(seconds: float) -> dict[str, Any]:
    """Return where a part comes from: command, date, versions, checksums of the data."""
    names = ("numpy", "scipy", "scikit-learn", "gensim")
    folder = data_folder(None, "EXPLAINERS_DATA")
    files = [folder / "wikitext-2" / "train.txt", *(folder / "word_similarity" / file for file in PAIR_FILES.values())]
    return {
        "command": COMMAND,
        "date": datetime.now(UTC).date().isoformat(),
        "cpu_seconds": round(seconds),
        "seeds": list(SEEDS),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in names},
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "docstrings": corpus.load_docstrings().content_hash(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def rounded(value: Any) -> Any:
    """Return a result with floats cut to 5 significant digits, ready for JSON."""
    if isinstance(value, dict):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.5g}")
    return value.item() if isinstance(value, np.generic) else value


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the named parts, or all, and write them into the record."""
    parser = argparse.ArgumentParser(prog="python -m explainers.bioword_recorded", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", default="chapters/bioword_recorded.json", help="the record")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    fetch_missing()
    path = Path(options.out)
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.parts or PARTS:
        start = time.process_time()
        result = PARTS[name]()
        record[name] = {"provenance": provenance(time.process_time() - start), "results": rounded(result)}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
