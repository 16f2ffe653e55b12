"""Binary word vectors beside their peers: assignment, a training iteration, and search by counting bits.

Run it with ``python benchmarks/bench_bioword.py`` from the folder of the package, or call `run`. One thread; every
ratio is the time of the peer over ours. The text is random with Zipf's law, of the size of the chapter's; no corpus is
needed. gensim and faiss are of ``benchmarks/requirements.txt``; without them their lines are left out, by name.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from explainers import bioword

UNITS, HALF, WORDS = 400, 5, 9_500
Row = dict[str, Any]


def best_time(call: Callable[[], object], rounds: int) -> float:
    """Return the least time of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def row(routine: str, peer: str, ratio: float, limit: float | None = None, note: str = "") -> Row:
    """Return one line of the table; ``limit`` is the ratio to reach."""
    met = None if limit is None else bool(ratio >= limit)
    return {"routine": routine, "peer": peer, "ratio": ratio, "limit": limit, "met": met, "note": note}


def zipf_text(tokens: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw words with probability falling as the inverse root of the rank, as after subsampling."""
    share = 1 / np.sqrt(np.arange(1, WORDS + 1))
    return np.random.default_rng(seed).choice(WORDS, tokens, p=share / share.sum())


# ---------------------------------------------------------------- assignment


def assignment(tokens: int = 100_000) -> Iterator[Row]:
    """Time the best unit of every window: ours, torch's embedding_bag, sparse times dense, and a plain loop."""
    ids, rng = zipf_text(tokens), np.random.default_rng(1)
    context, target = rng.random((2, WORDS, UNITS), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(ids, 2 * HALF + 1)
    ours = best_time(lambda: winners_by_doubling(ids, context, target), 3)
    yield row(
        "assignment", "torch embedding_bag", best_time(lambda: by_bag(windows, context, target), 3) / ours, 1.0,
        f"{len(windows) / ours / 1e3:.0f} k n-grams/s",
    )  # fmt: skip
    ngrams = bioword.ngram_matrix(windows[:20_000], WORDS).astype(np.float32)
    both = np.vstack([context, target])
    sparse = best_time(lambda: np.asarray(ngrams @ both).argmax(1), 2) * len(windows) / 20_000
    yield row("assignment", "scipy CSR @ dense", sparse / ours)
    loop = best_time(lambda: by_rows(windows[:5_000], context, target), 2) * len(windows) / 5_000
    yield row("assignment", "loop of row sums", loop / ours, 8.0)
    same = np.mean(winners_by_doubling(ids, context, target) == by_bag(windows, context, target))
    yield row("assignment", "same winners (share)", float(same), 0.9999)


def winners_by_doubling(ids: NDArray, context: NDArray, target: NDArray) -> NDArray:
    """Return the winners of all windows, in blocks, as `BioWord.fit` finds them."""
    scores = bioword.WindowScores(context, target, HALF)
    starts = range(0, len(ids) - 2 * HALF, bioword.BLOCK)
    return np.concatenate([scores(ids[s : s + bioword.BLOCK + 2 * HALF]).argmax(1) for s in starts])


def by_bag(windows: NDArray, context: NDArray, target: NDArray) -> NDArray:
    """Return the winners by torch's sum of embeddings."""
    table = torch.from_numpy(np.vstack([context, target]))
    shifted = torch.from_numpy(windows + WORDS * (np.arange(2 * HALF + 1) == HALF))
    return torch.cat(
        [torch.nn.functional.embedding_bag(part, table, mode="sum").argmax(1) for part in shifted.split(2048)]
    ).numpy()


def by_rows(windows: NDArray, context: NDArray, target: NDArray) -> NDArray:
    """Return the winners by one sum of rows for each window."""
    found = []
    for window in windows:
        centre = window[HALF]
        found.append((context[window].sum(0) - context[centre] + target[centre]).argmax())
    return np.array(found)


# ---------------------------------------------------------------- training


def training(tokens: int = 100_000) -> Iterator[Row]:
    """Time one iteration against scikit-learn's MiniBatchKMeans on the same n-grams, and gensim's word2vec."""
    ids = zipf_text(tokens)
    bounds = np.array([0, tokens])
    once, more = (best_time(lambda n=n: bioword.BioWord(UNITS, HALF, n).fit(ids, bounds, WORDS), 2) for n in (1, 6))
    ours = (more - once) / 5
    part = bioword.ngram_matrix(bioword.window_matrix(ids[:12_000], [0, 12_000], HALF), WORDS)
    kmeans = MiniBatchKMeans(UNITS, batch_size=4_096, max_iter=1, n_init=1, init="random", random_state=0)
    peer = best_time(lambda: kmeans.partial_fit(part[:8_192]), 2) * tokens / 8_192
    yield row("one iteration", "MiniBatchKMeans", peer / ours, note=f"{tokens / ours / 1e3:.0f} k positions/s")
    if importlib.util.find_spec("gensim"):
        from gensim.models import Word2Vec

        sentences = [list(map(str, part)) for part in ids[:50_000].reshape(-1, 50)]
        options = {"vector_size": 100, "window": 5, "sg": 1, "min_count": 1, "sample": 0, "workers": 1, "epochs": 1}
        peer = best_time(lambda: Word2Vec(sentences, **options), 1) * tokens / 50_000
        yield row("one iteration", "gensim skip-gram, one epoch", peer / ours)
    else:
        yield row("one iteration", "gensim: not installed, skipped", float("nan"))


# ---------------------------------------------------------------- search


def search(sizes: tuple[int, ...] = (10_000, 200_000)) -> Iterator[Row]:
    """Time one query against a float matrix of 300 columns, packed rows, and faiss."""
    rng = np.random.default_rng(2)
    for size in sizes:
        codes = rng.random((size, UNITS)) < 51 / UNITS
        index, query = bioword.BinaryIndex(codes), codes[:1]
        vectors, vector = rng.random((size, 300), dtype=np.float32), rng.random(300, dtype=np.float32)
        ours = best_time(lambda index=index, query=query: index.overlaps(query), 15)
        dense = best_time(lambda vectors=vectors, vector=vector: vectors @ vector, 15)
        note = f"{1e3 * ours:.2f} ms, {index.nbytes // size} bytes a word"
        yield row(
            f"query of {size:,}", "float32 matrix, 300 columns", dense / ours, 4.0 if size >= 200_000 else None, note
        )
        packed, word = bioword.pack_codes(codes), bioword.pack_codes(query)
        by_row = best_time(lambda packed=packed, word=word: np.bitwise_count(packed & word).sum(1), 5)
        yield row(f"query of {size:,}", "packed row by row", by_row / ours)
        if importlib.util.find_spec("faiss"):
            yield faiss_row(codes, index, size)
        else:
            yield row(f"search of {size:,}", "faiss: not installed, skipped", float("nan"))


def faiss_row(codes: NDArray, index: bioword.BinaryIndex, size: int) -> Row:
    """Compare the ten best by overlap with faiss's exact binary index, by Hamming distance, 64 queries."""
    import faiss

    faiss.omp_set_num_threads(1)
    octets = np.packbits(codes, axis=1)
    flat = faiss.IndexBinaryFlat(8 * octets.shape[1])
    flat.add(octets)
    ours = best_time(lambda: index.search(codes[:64], 10), 2)
    return row(
        f"search of {size:,}", "faiss IndexBinaryFlat", best_time(lambda: flat.search(octets[:64], 10), 2) / ours
    )


# ---------------------------------------------------------------- the table


def run() -> list[Row]:
    """Return all rows."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [*assignment(), *training(), *search()]


def main() -> None:
    """Print the table."""
    print(f"{'routine':18} {'peer':32} {'ratio':>8} {'at least':>9} {'met':>4}  note")
    for line in run():
        limit = "-" if line["limit"] is None else f"{line['limit']:g}"
        met = {True: "yes", False: "NO", None: "-"}[line["met"]]
        print(f"{line['routine']:18} {line['peer']:32} {line['ratio']:8.2f} {limit:>9} {met:>4}  {line['note']}")


if __name__ == "__main__":
    main()
