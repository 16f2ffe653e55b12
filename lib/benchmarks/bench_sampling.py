"""The samplers beside their peers: in one process, interleaved, on one thread, best of several rounds.

Run it with ``python benchmarks/bench_sampling.py`` from the folder of the package, or call `run`. The peers of
``requirements.txt`` that are missing (emcee, kenlm, blackjax) are skipped, with a line that names them.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from timing import Routines, best_times

from explainers import corpus, sampling


@dataclass(frozen=True)
class Target:
    """A line of the table: `routine` is to do at least `limit` times as much per second as `peer`."""

    routine: str
    peer: str
    limit: float


TARGETS = [
    Target("NgramLM.score", "nltk Kneser-Ney", 300),
    Target("NgramLM.score", "kenlm", 0.1),
    Target("ExactSampler", "bare matvecs", 0.5),
    Target("SentenceSampler, 256 chains", "one-chain loop", 4),
    Target("metropolis, 1024 chains", "emcee", 5),
    Target("metropolis, 1024 chains", "blackjax", 0.7),
    Target("crack_substitution, 24 chains", "pure-Python Metropolis", 4),
]


def here(module: str) -> bool:
    """Return whether a peer is installed, and say so if it is not."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"skipped: {module} is not installed (see benchmarks/requirements.txt)")
    return found


# ---------------------------------------------------------------------- language model


def to_arpa(lm: sampling.NgramLM, path: Path) -> None:
    """Write a trigram model as an ARPA file, which kenlm reads; token t is the word ``w<t>``.

    kenlm knows one start symbol, this model two: what follows both becomes the bigrams of the start.
    """
    end, size = lm.n_symbols, lm.size
    word = lambda t, last: f"w{t}" if t != end else ("</s>" if last else "<s>")  # noqa: E731
    blocks = []
    for m in (1, 2, 3):
        keys = np.arange(size) if m == 1 else lm.levels[m - 2].keys
        grams = np.stack([keys // size**k % size for k in range(m - 1, -1, -1)], axis=1)
        p = _probabilities(lm, grams)
        if m == 2:
            first = grams[:, 0] == end
            p[first] = lm.prob(np.full((first.sum(), 2), end), grams[first, 1])
        keep = np.ones(len(keys), dtype=bool) if m < 3 else (grams[:, :2] != end).any(1)
        weights = _back_off(lm, m)
        if m == 1:
            weights[end] *= _back_off(lm, 2)[end * size + end]
        lines = ["-99\t<unk>", f"-99\t<s>\t{math.log10(weights[end]):.8f}"] if m == 1 else []
        for gram, key, value in zip(grams[keep].tolist(), keys[keep].tolist(), p[keep].tolist()):
            words = " ".join(word(t, k == m - 1) for k, t in enumerate(gram))
            back = f"\t{math.log10(weights[key]):.8f}" if key in weights and gram[-1] != end else ""
            lines.append(f"{math.log10(max(value, 1e-99)):.8f}\t{words}{back}")
        blocks.append(lines)
    head = "\\data\\\n" + "".join(f"ngram {m}={len(lines)}\n" for m, lines in enumerate(blocks, 1))
    body = "".join(f"\n\\{m}-grams:\n" + "\n".join(lines) + "\n" for m, lines in enumerate(blocks, 1))
    path.write_text(f"{head}{body}\n\\end\\\n")


def _probabilities(lm: sampling.NgramLM, grams: np.ndarray) -> np.ndarray:
    """Return the interpolated probability of each m-gram, m at most the order."""
    p = lm.base[grams[:, -1]]
    for m in range(2, grams.shape[1] + 1):
        context = np.zeros(len(grams), dtype=np.int64)
        for column in grams[:, -m:-1].T:
            context = context * lm.size + column
        p = lm._interpolate(lm.levels[m - 2], context, grams[:, -1], p)
    return p


def _back_off(lm: sampling.NgramLM, m: int) -> dict[int, float]:
    if m > len(lm.levels):
        return {}
    level = lm.levels[m - 1]
    return dict(zip(level.contexts.tolist(), level.back_off.tolist()))


def language_model(rounds: int) -> dict[str, float]:
    """Return seconds per token of scoring with a trigram model."""
    lab = sampling.word_lab(sampling.sentences(corpus.load_docstrings()), 1500)
    lm = sampling.NgramLM(3).fit(lab.train, len(lab.words))
    lines = (lab.held_out * 10)[:10_000]
    tokens = sum(len(line) + 1 for line in lines)
    routines: Routines = {"NgramLM.score": lambda: lm.score(lines)}
    if here("kenlm"):
        import kenlm

        with tempfile.TemporaryDirectory() as folder:
            to_arpa(lm, path := Path(folder) / "model.arpa")
            peer = kenlm.Model(str(path))
        words = [" ".join(f"w{t}" for t in line) for line in lines]
        got = np.array([peer.score(line) for line in words[:500]]) * math.log(10)
        assert np.allclose(got, lm.score(lines[:500]), atol=1e-3), "kenlm disagrees"
        routines["kenlm"] = lambda: [peer.score(line) for line in words]
    seconds = {name: t / tokens for name, t in best_times(routines, rounds).items()}
    return seconds | {"nltk Kneser-Ney": nltk_seconds(lab)}


def nltk_seconds(lab: sampling.WordLab) -> float:
    """Return the seconds per token of NLTK's model of 300 sentences; more would only be slower."""
    from nltk.lm import KneserNeyInterpolated
    from nltk.util import everygrams

    text = [["<s>", "<s>", *map(str, line), "</s>"] for line in lab.train[:300]]
    peer = KneserNeyInterpolated(3, discount=0.7)
    peer.fit([list(everygrams(line, max_len=3)) for line in text], {t for line in text for t in line})
    asked = [(line[k], line[k - 2 : k]) for line in text[:3] for k in range(2, len(line))]
    start = time.perf_counter()
    for word, context in asked:
        peer.score(word, context)
    return (time.perf_counter() - start) / len(asked)


# ---------------------------------------------------------------------- sentences


def sentences(rounds: int) -> dict[str, float]:
    """Return seconds of the dynamic program, and seconds per chain and step of the edit samplers."""
    rng = np.random.default_rng(0)
    T = rng.dirichlet(np.full(1501, 0.05), 1501) + 1e-6
    T /= T.sum(1, keepdims=True)
    auto, W = sampling.Automaton.keywords([3, 7], 1500), np.ascontiguousarray(T[:1500, :1500])
    editor = sampling.SentenceSampler(T, (3, 14), [3])

    def matvecs() -> None:
        beta = T[:1500, 1500:].repeat(4, axis=1)
        for _ in range(40):
            beta = W @ beta
            beta /= beta.max()

    routines = {
        "ExactSampler": lambda: sampling.ExactSampler(T, (5, 40), auto),
        "bare matvecs": matvecs,
        "SentenceSampler, 256 chains": lambda: editor.run(256, 100, np.random.default_rng(1)),
        "one-chain loop": lambda: one_chain(T, 3, 3, 14, 1000, np.random.default_rng(1)),
    }
    times = best_times(routines, rounds)
    times["SentenceSampler, 256 chains"] /= 256 * 100
    times["one-chain loop"] /= 1000
    return times


def one_chain(T: np.ndarray, keyword: int, low: int, high: int, steps: int, rng: np.random.Generator) -> list[int]:
    """Edit one sentence as one would write it first: NumPy for the words, Python for the rest."""
    V = len(T) - 1
    x = [keyword] * low
    two = one_chain.__dict__.setdefault("two", T[:, :V] @ T[:V])
    for _ in range(steps):
        move, around = rng.integers(3), [V, *x, V]
        if move == 0:
            i = int(rng.integers(len(x)))
            q = np.cumsum(T[around[i], :V] * T[:V, around[i + 2]])
            y = [*x[:i], int(np.searchsorted(q, rng.random() * q[-1], side="right")), *x[i + 1 :]]
            if keyword in y:
                x = y
        elif move == 1:
            i = int(rng.integers(len(x) + 1))
            left, right = around[i], around[i + 1]
            if len(x) < high and rng.random() <= two[left, right] / T[left, right]:
                q = np.cumsum(T[left, :V] * T[:V, right])
                x.insert(i, int(np.searchsorted(q, rng.random() * q[-1], side="right")))
        elif len(x) > low:
            i = int(rng.integers(len(x)))
            left, right = around[i], around[i + 2]
            y = x[:i] + x[i + 1 :]
            if keyword in y and rng.random() <= T[left, right] / two[left, right]:
                x = y
    return x


# ---------------------------------------------------------------------- other samplers


def gaussian(rounds: int, steps: int = 200) -> dict[str, float]:
    """Return seconds for 1,024 random walks in five dimensions."""
    start = np.random.default_rng(0).normal(size=(1024, 5))
    log_density = lambda x: -0.5 * (x**2).sum(-1)  # noqa: E731
    walk = lambda x, rng: (x + 0.8 * rng.standard_normal(x.shape), np.zeros(len(x)))  # noqa: E731
    routines: Routines = {
        "metropolis, 1024 chains": lambda: sampling.metropolis(
            log_density, walk, start, steps, np.random.default_rng(1)
        )
    }
    if here("emcee"):
        import emcee

        ensemble = emcee.EnsembleSampler(1024, 5, log_density, vectorize=True)
        routines["emcee"] = lambda: ensemble.run_mcmc(start, steps, store=False)
    if here("blackjax"):
        routines["blackjax"] = blackjax_walk(start, steps)
    return best_times(routines, rounds)


def blackjax_walk(start: np.ndarray, steps: int) -> Callable[[], object]:
    """Return a compiled run of blackjax's random walk over all chains."""
    import blackjax
    import jax
    import jax.numpy as jnp

    walk = blackjax.normal_random_walk(lambda x: -0.5 * jnp.sum(x**2), 0.8 * jnp.ones(5))

    @jax.jit
    def go(x, key):
        state = jax.vmap(walk.init)(x)
        body = lambda s, k: (jax.vmap(walk.step)(jax.random.split(k, len(x)), s)[0], None)  # noqa: E731
        return jax.lax.scan(body, state, jax.random.split(key, steps))[0].position

    call = lambda: go(jnp.asarray(start), jax.random.PRNGKey(0)).block_until_ready()  # noqa: E731
    call()
    return call


def cipher(rounds: int) -> dict[str, float]:
    """Return seconds per chain and step on 400 letters."""
    rng = np.random.default_rng(0)
    table = np.log(rng.dirichlet(np.full(27, 0.3), 27) + 1e-4)
    text = rng.integers(27, size=400)
    routines = {
        "crack_substitution, 24 chains": lambda: sampling.crack_substitution(text, table, rng, 24, 400),
        "pure-Python Metropolis": lambda: pure_python(text.tolist(), table.tolist(), 400, rng),
    }
    times = best_times(routines, rounds)
    times["crack_substitution, 24 chains"] /= 24 * 400
    times["pure-Python Metropolis"] /= 400
    return times


def pure_python(text: list[int], table: list[list[float]], steps: int, rng: np.random.Generator) -> float:
    """Run one chain on the counts of bigrams, without NumPy in the loop."""
    counts: dict[tuple[int, int], int] = {}
    for pair in itertools.pairwise(text):
        counts[pair] = counts.get(pair, 0) + 1
    grams = [(a, b, n) for (a, b), n in counts.items()]
    key = list(range(27))
    score = sum(n * table[key[a]][key[b]] for a, b, n in grams)
    draws = rng.random(steps).tolist()
    for i, j, u in zip(rng.integers(27, size=steps).tolist(), rng.integers(27, size=steps).tolist(), draws):
        key[i], key[j] = key[j], key[i]
        new = sum(n * table[key[a]][key[b]] for a, b, n in grams)
        if math.log(u) <= new - score:
            score = new
        else:
            key[i], key[j] = key[j], key[i]
    return score


def run(rounds: int = 3) -> list[dict]:
    """Return one row per target: the keys of `Target`, ``ratio`` and ``met`` (None without the peer)."""
    with threadpool_limits(1):
        times = language_model(rounds) | sentences(rounds) | gaussian(rounds) | cipher(rounds)
    rows = []
    for target in TARGETS:
        ratio = times[target.peer] / times[target.routine] if target.peer in times else None
        rows.append({**asdict(target), "ratio": ratio, "met": None if ratio is None else ratio >= target.limit})
    return rows


def main() -> None:
    """Print the table."""
    rows = run()
    print(f"{'routine':30} {'peer':24} {'speed ratio':>12} {'bar':>7} {'met':>4}")
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}x"
        met = {True: "yes", False: "NO", None: "-"}[row["met"]]
        print(f"{row['routine']:30} {row['peer']:24} {ratio:>12} {row['limit']:>6}x {met:>4}")


if __name__ == "__main__":
    main()
