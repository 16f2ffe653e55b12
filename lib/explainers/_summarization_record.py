"""Runs that are too long, or whose data may not be passed on, for the notebook of chapter summarization.

``python -m explainers._summarization_record PART... --out chapters/summarization_recorded.json`` repeats them, writes
each part with its command, versions, seeds, data and date. The parts: ``tagger`` ``tags`` ``decode`` ``long``
``finetune`` ``averaging`` ``words`` (docstrings), and ``cail``, which reads the reader's own copy of the CAIL 2020
sample in the folder that ``EXPLAINERS_DATA`` names.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import corpus
from ._corpus_data import data_folder
from ._summarization_data import Judgment, Pair, SpecialWords, docstring_pairs, read_cail, split_words, train_bpe, words
from ._summarization_experiments import GenerationData, decode, extraction_data, generation_data, judge, tagger_score
from ._summarization_metric import greedy_labels, lcs_alignment, match_labels, rouge, split_sentences
from ._summarization_models import Masks, Rows, Summarizer, add_words, copy_masks, fit_summarizer, held_out, make_rows
from ._summarization_softmax import sparse_cross_entropy

SEEDS = range(5)
CAIL_FILE = Path("cail2020_sfzy_sample") / "train.json"
CAIL_SHA256 = "18f4e87c73a60b0e15fff08e0aca842e79b78f23c6d177bfe3b353320f14fb5d"


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_round(item) for item in value]
    return float(f"{float(value):.4g}") if isinstance(value, (float, np.floating)) else value


# --- Docstrings ---------------------------------------------------------------------------------------------


def tagger() -> dict[str, Any]:
    """Test score of one sentence chosen by the dilated gated CNN, with and without its convolutions."""
    data = extraction_data(docstring_pairs(corpus.load_docstrings()))
    return {
        name: [tagger_score(data, seed, convolutions=convolutions) for seed in SEEDS]
        for name, convolutions in (("with convolutions", True), ("without", False))
    }


def _bpe(pairs: Sequence[Any], vocabulary: int) -> Any:
    return train_bpe([text for pair in pairs[::4] for text in (pair.source, pair.summary)], vocabulary)


def _model(vocabulary: int, width: int, seed: int) -> Summarizer:
    return Summarizer(vocabulary, 2, width, 4, generator=torch.Generator().manual_seed(seed))


def tags() -> dict[str, Any]:
    """Held-out nats per token of the mixture when trained on LCS tags and on fragments of at least two tokens."""
    pairs = docstring_pairs(corpus.load_docstrings())
    bpe = _bpe(pairs, 2000)
    results: dict[str, list[float]] = {"lcs": [], "fragments": []}
    for method, seed in ((method, seed) for seed in SEEDS for method in results):
        data = generation_data(pairs, bpe, seed, train=2400, test=300, method=method)
        model = fit_summarizer(_model(2000, 48, seed), data.train, steps=150, seed=seed)
        judged = held_out(model, data.test, copy_masks(data.test, 2000))
        results[method].append(-judged.mixture.mean())
    return results


def decoding() -> dict[str, Any]:
    """Greedy summaries after 300 steps, in the three modes: score and recall of rare words of the source."""
    pairs = docstring_pairs(corpus.load_docstrings())
    bpe = _bpe(pairs, 2000)
    results: dict[str, dict[str, list[float]]] = {copy: {} for copy in ("none", "argmax", "mixture")}
    for seed in SEEDS:
        data = generation_data(pairs, bpe, seed, train=4800, test=250)
        model = fit_summarizer(_model(2000, 48, seed), data.train, steps=300, seed=seed)
        for copy, kept in results.items():
            for name, value in judge(decode(model, data, copy, count=250), data).items():
                kept.setdefault(name, []).append(value)
    return results


def long_run(steps: int = 2400) -> dict[str, Any]:
    """One longer training: nats and accuracy by tag, greedy and beam summaries in the three modes, and samples."""
    pairs = docstring_pairs(corpus.load_docstrings())
    bpe = _bpe(pairs, 3000)
    data = generation_data(pairs, bpe, 0, train=8000, test=500)
    model = fit_summarizer(_model(3000, 64, 0), data.train, steps=steps, seed=0, batch=16)
    judged = held_out(model, data.test, copy_masks(data.test, 3000))
    gain = judged.mixture - judged.plain
    results: dict[str, Any] = {
        "steps": steps,
        "plain nats": -judged.plain.mean(),
        "mixture nats": -judged.mixture.mean(),
        "gain": gain.mean(),
        "gain standard error": np.std([gain[judged.row == row].mean() for row in range(500)]) / 500**0.5,
        "by tag": {
            name: {
                "share": (judged.tag == tag).mean(),
                "plain nats": -judged.plain[judged.tag == tag].mean(),
                "mixture nats": -judged.mixture[judged.tag == tag].mean(),
                "first": judged.first[judged.tag == tag].mean(),
                "first given tag": judged.first_given_tag[judged.tag == tag].mean(),
            }
            for tag, name in enumerate("OBI")
        },
        "modes": {},
    }
    outputs = {copy: decode(model, data, copy, count=500) for copy in ("none", "argmax", "mixture")}
    scores = {}
    for copy, texts in outputs.items():
        results["modes"][copy] = judge(texts, data)
        scores[copy] = np.array([rouge(words(t), words(p.summary)).combined for t, p in zip(texts, data.test_pairs)])
    for copy in ("argmax", "mixture"):
        difference = scores[copy] - scores["none"]
        results["modes"][copy]["score difference"] = difference.mean()
        results["modes"][copy]["its standard error"] = difference.std() / 500**0.5
    results["samples"] = [
        {
            "package": pair.name.partition(".")[0],
            "source": bpe.decode(source),
            "reference": pair.summary.lower(),
            **{copy: texts[n] for copy, texts in outputs.items()},
        }
        for n, (pair, source) in enumerate(zip(data.test_pairs[:8], data.test.sources))
    ]
    return results


def _pretrained() -> tuple[Summarizer, GenerationData]:
    """Return a model pretrained with cross entropy on five packages, and the pairs of scipy to tune and test it on."""
    pairs = docstring_pairs(corpus.load_docstrings())
    others = [pair for pair in pairs if not pair.name.startswith("scipy.")]
    scipy_pairs = [pair for pair in pairs if pair.name.startswith("scipy.")]
    bpe = _bpe(others, 2000)
    base = generation_data(others, bpe, 0, train=7200, test=16)
    model = fit_summarizer(_model(2000, 48, 0), base.train, steps=1800, seed=0)
    return model, generation_data(scipy_pairs, bpe, 0, train=1100, test=400)


def finetune() -> dict[str, Any]:
    """Pretrain with cross entropy on five packages, fine-tune on 400 pairs of scipy with k = 3, 10, 30 and all."""
    model, target = _pretrained()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    masks = copy_masks(target.test, 2000)
    zero_shot = held_out(model, target.test, masks)
    losses: dict[str, Callable] = {"all": F.cross_entropy}
    losses |= {f"k = {k}": functools.partial(sparse_cross_entropy, k=k) for k in (30, 10, 3)}
    losses["all, half the steps"] = F.cross_entropy
    results: dict[str, Any] = {
        "zero-shot accuracy": zero_shot.first.mean(),
        "share of positions with a probability above 1/10": (zero_shot.largest > 0.1).mean(),
        "arms": {name: {"accuracy": [], "nats": [], "top-10 mass": []} for name in losses},
    }
    for seed, name in ((seed, name) for seed in SEEDS for name in losses):
        model.load_state_dict(start)
        rows = _subset(target.train, 400, seed)
        steps = 125 if name.endswith("half the steps") else 250
        fit_summarizer(model, rows, steps=steps, seed=seed, lr=2e-3, warmup=25, loss=losses[name])
        judged, arm = held_out(model, target.test, masks), results["arms"][name]
        for key, value in (("accuracy", judged.first), ("nats", -judged.plain), ("top-10 mass", judged.top_mass)):
            arm[key].append(value.mean())
    return results


def _subset(rows: Any, size: int, seed: int) -> Any:
    chosen = np.random.default_rng(seed).permutation(len(rows))[:size]
    tensors = rows.batch(torch.from_numpy(chosen))
    return type(rows)(*tensors, [rows.sources[n] for n in chosen], [rows.summaries[n] for n in chosen])


TUNING = {"steps": 250, "lr": 2e-3, "warmup": 25}
EMA_DECAY = 0.98  # a memory of 50 of the 250 steps; the article's code: 0.9999 in some 55,000 steps, the same share


def averaging() -> dict[str, Any]:
    """Fine-tune on 400 pairs of scipy at falling and constant rates, and with noise; last and averaged weights."""
    start, target = _pretrained()
    masks = copy_masks(target.test, 2000)
    kinds: dict[str, dict[str, Any]] = {"falling": {}, "constant": {"schedule": "constant"}, "noise": {"noise": 0.15}}
    results: dict[str, Any] = {"decay": EMA_DECAY, "before": _quality(start, target, masks), "arms": {}}
    for seed, (kind, options) in ((seed, item) for seed in SEEDS for item in kinds.items()):
        model = deepcopy(start)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        fit_summarizer(model, _subset(target.train, 400, seed), seed=seed, average=average, **TUNING, **options)
        for weights, tuned in (("last", model), ("averaged", average.module.eval())):
            _append(results["arms"].setdefault(f"{kind}, {weights}", {}), _quality(tuned, target, masks))
    return results


def special_words() -> dict[str, Any]:
    """Fine-tune on 400 pairs of scipy with 300 of its words as tokens, started from their pieces or at random."""
    start, target = _pretrained()
    texts = [text for pair in target.train_pairs for text in (pair.source, pair.summary)]
    words = split_words(target.bpe, texts, 300)
    encoder = SpecialWords(target.bpe, words)
    larger = GenerationData(
        encoder, *(_rows(pairs, encoder) for pairs in (target.train_pairs, target.test_pairs)),
        target.train_pairs, target.test_pairs,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    starts = {
        "pieces": (start, target),
        "words, from pieces": (add_words(start, encoder.pieces), larger),
        "words, at random": (add_words(start, encoder.pieces, generator=draw), larger),
    }
    masks = {2000: copy_masks(target.test, 2000), 2300: copy_masks(larger.test, 2300)}
    results: dict[str, Any] = {"words": words, "before": {}, "arms": {}}
    for name, (model, data) in starts.items():
        allowed = masks[data.bpe.get_vocab_size()]
        results["before"][name] = _quality(model, data, allowed, target)
        for seed in SEEDS:
            tuned = fit_summarizer(deepcopy(model), _subset(data.train, 400, seed), seed=seed, **TUNING)
            _append(results["arms"].setdefault(name, {}), _quality(tuned, data, allowed, target))
    for name, data in (("pieces", target), ("words", larger)):
        results[f"tokens a summary, {name}"] = float(np.mean([len(ids) for ids in data.test.summaries]))
    return results


def _rows(pairs: Sequence[Pair], encoder: Any) -> Rows:
    sources, summaries = (
        [encoding.ids for encoding in encoder.encode_batch(texts)]
        for texts in ([pair.source for pair in pairs], [pair.summary for pair in pairs])
    )
    return make_rows([ids[:48] for ids in sources], summaries)


def _quality(
    model: Summarizer, data: GenerationData, masks: Masks, judges: GenerationData | None = None
) -> dict[str, float]:
    """Return nats a summary, plain and mixture, share of tokens ranked first, and the score of greedy summaries."""
    judged = held_out(model, data.test, masks)
    written = judge(decode(model, data, "mixture", count=200), judges or data)
    nats = {"plain": -judged.plain.sum(), "mixture": -judged.mixture.sum()}
    return {
        **{f"nats a summary, {name}": float(total) / len(data.test) for name, total in nats.items()},
        "accuracy": float(judged.first.mean()),
        "score": written["score"],
        "rare recall": written["rare recall"],
    }


def _append(arm: dict[str, list[float]], values: dict[str, float]) -> None:
    """Append one seed's values to the lists of an arm."""
    for key, value in values.items():
        arm.setdefault(key, []).append(value)


# --- The Chinese sample -------------------------------------------------------------------------------------


def cail() -> dict[str, Any]:
    """The extraction stage on 20 judgments: statistics, labels against the best, an extractor in and out of fold."""
    import jieba  # its start costs seconds

    path = data_folder(None, "EXPLAINERS_DATA") / CAIL_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the sample stands in github.com/bojone/SPACES, datasets/train.json"
        )
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != CAIL_SHA256:
        raise ValueError(f"{path} has sha256 {found}, not that of the 20 public lines, {CAIL_SHA256}")
    jieba.setLogLevel("WARNING")
    cut = functools.cache(lambda text: tuple(jieba.cut(text, HMM=False)))
    judgments = read_cail(path)
    clauses = [split_sentences(judgment.text) for judgment in judgments]
    labels = _cail_labels(judgments, clauses, cut)
    score = lambda text, judgment: rouge(cut(text), cut(judgment.summary)).combined  # noqa: E731
    texts = {
        "first 300 characters": [judgment.text[:300] for judgment in judgments],
        "last 300 characters": [judgment.text[-300:] for judgment in judgments],
        "the organisers' sentences": [
            "".join(s for s, label in zip(judgment.sentences, judgment.labels) if label) for judgment in judgments
        ],
        **{
            name: ["".join(c[at] for at in chosen) for c, chosen in zip(clauses, places)]
            for name, places in labels.items()
        },
    }
    results: dict[str, Any] = {
        "documents": len(judgments),
        "clauses a document": float(np.mean([len(c) for c in clauses])),
        "scores": {
            name: float(np.mean([score(t, j) for t, j in zip(kind, judgments)])) for name, kind in texts.items()
        },
        "clauses taken": {name: float(np.mean([len(chosen) for chosen in places])) for name, places in labels.items()},
        **_cail_statistics(judgments, clauses, labels["matching on characters"], cut),
    }
    results["extractor"] = _cail_extractor(judgments, clauses, labels["matching on characters"], cut)
    return results


def _cail_labels(judgments: list[Judgment], clauses: list[list[str]], cut: Callable) -> dict[str, list[list[int]]]:
    labels: dict[str, list[list[int]]] = {"matching on characters": [], "matching on words": [], "greedy on words": []}
    for judgment, text in zip(judgments, clauses):
        summary = split_sentences(judgment.summary)
        for name, tokens in (("matching on characters", tuple), ("matching on words", cut)):
            pairs = match_labels([tokens(c) for c in text], [tokens(c) for c in summary])
            labels[name].append(sorted({at for _, at in pairs}))
        labels["greedy on words"].append(greedy_labels([cut(c) for c in text], cut(judgment.summary)))
    return labels


def _cail_statistics(
    judgments: list[Judgment], clauses: list[list[str]], labels: list[list[int]], cut: Callable
) -> dict[str, Any]:
    characters = [(list(j.text), list(j.summary)) for j in judgments]
    common = sum(len(lcs_alignment(text, summary)) for text, summary in characters)
    numbers = [(n, j.text) for j in judgments for n in re.findall(r"\d+(?:\.\d+)?", j.summary)]
    extracted = ["".join(text[at] for at in places) for text, places in zip(clauses, labels)]
    own = lambda texts, shift: float(  # noqa: E731
        sum(len(lcs_alignment(cut(texts[(n + shift) % len(texts)]), cut(j.summary))) for n, j in enumerate(judgments))
        / sum(len(cut(j.summary)) for j in judgments)
    )
    whole = [j.text for j in judgments]
    return {
        "share of summary characters on a common subsequence": common / sum(len(s) for _, s in characters),
        "numbers in summaries": len(numbers),
        "numbers that stand verbatim in the text": sum(number in text for number, text in numbers),
        "characters a word": sum(len(j.text) for j in judgments) / sum(len(cut(j.text)) for j in judgments),
        "words tagged as copied": {
            "from the whole text": own(whole, 0),
            "from the text of another judgment": own(whole, 1),
            "from the extraction": own(extracted, 0),
            "from the extraction of another judgment": own(extracted, 1),
        },
    }


def _cail_extractor(
    judgments: list[Judgment], clauses: list[list[str]], labels: list[list[int]], cut: Callable
) -> dict[str, Any]:
    """A linear model on character n-grams and place: word score at the article's two thresholds."""
    flat = [clause for text in clauses for clause in text]
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True).fit_transform(flat)
    place = [[at / len(text), 1 - at / len(text), len(c) / 30] for text in clauses for at, c in enumerate(text)]
    x = hstack([grams, csr_matrix(np.array(place))]).tocsr()
    y = np.concatenate([np.isin(np.arange(len(text)), places) for text, places in zip(clauses, labels)])
    groups = np.repeat(np.arange(len(clauses)), [len(text) for text in clauses])
    model = LogisticRegression(C=10, solver="liblinear")
    by_fold = cross_val_predict(model, x, y, groups=groups, cv=GroupKFold(10), method="predict_proba")[:, 1]
    values = {"in sample": model.fit(x, y).predict_proba(x)[:, 1], "out of fold": by_fold}
    results: dict[str, Any] = {}
    for name, probability in values.items():
        for threshold in (0.2, 0.3):
            taken = [np.flatnonzero(probability[groups == n] > threshold) for n in range(len(clauses))]
            texts = ["".join(text[at] for at in places) for text, places in zip(clauses, taken)]
            score = np.mean([rouge(cut(t), cut(j.summary)).combined for t, j in zip(texts, judgments)])
            recall = np.mean([np.isin(right, mine).mean() for right, mine in zip(labels, taken)])
            results[f"{name}, threshold {threshold}"] = {
                "score": float(score), "clauses": float(np.mean([len(t) for t in taken])), "labels found": float(recall)
            }  # fmt: skip
    return results


# --- The command --------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "tagger": tagger, "tags": tags, "decode": decoding, "long": long_run, "finetune": finetune,
    "averaging": averaging, "words": special_words, "cail": cail,
}  # fmt: skip


def provenance(part: str, out: Path, seconds: float) -> dict[str, Any]:
    """Return how a part was made: command, versions, seeds, data, date and time taken."""
    names = ("numpy", "scipy", "scikit-learn", "torch", "tokenizers", "jieba")
    prefix = "EXPLAINERS_DATA=<folder> " if part == "cail" else ""
    data = {
        "file": CAIL_FILE.as_posix(),
        "sha256": CAIL_SHA256,
        "from": "github.com/bojone/SPACES, datasets/train.json",
    }
    if part != "cail":
        data = {"docstring corpus, content sha256": corpus.load_docstrings().content_hash()}
    return {
        "command": f"{prefix}python -m explainers._summarization_record {part} --out {out.as_posix()}",
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names},
        "seeds": [0] if part in ("long", "cail") else list(SEEDS),
        "data": data,
        "date": datetime.date.today().isoformat(),
        "seconds of CPU": round(seconds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that the command line names and merge them into the file."""
    parser = argparse.ArgumentParser(prog="python -m explainers._summarization_record", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=sorted(PARTS))
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; parts not named keep their entries")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for part in options.parts:
        start = time.process_time()
        results = PARTS[part]()
        taken = time.process_time() - start
        record = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        record[part] = {"provenance": provenance(part, options.out, taken), "results": _round(results)}
        options.out.write_text(
            json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
        )
        print(f"{part}: {taken:.0f} s of CPU")


if __name__ == "__main__":
    main()
