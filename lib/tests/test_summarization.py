"""Laws, peers and bad inputs of explainers.summarization."""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction
from itertools import combinations, pairwise, product

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rouge_score import rouge_scorer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from explainers import _summarization_experiments, summarization
from explainers._summarization_figures import copied_runs
from explainers.corpus import Doc
from explainers.summarization import CopyIndex, Summarizer, beam_search, copy_mixture, copy_tags, rouge, sparse_risk

RNG = np.random.default_rng(0)


def texts(count, letters=5, longest=25):
    return [["abcdefgh"[i] for i in RNG.integers(0, letters, RNG.integers(1, longest))] for _ in range(count)]


PAIRS = list(zip(texts(300), texts(300)))


def lcs_table(x, y):
    row = [0] * (len(y) + 1)
    for token in x:
        new = [0]
        for j, other in enumerate(y):
            new.append(row[j] + 1 if token == other else max(row[j + 1], new[-1]))
        row = new
    return row[-1]


def holds(source, run):
    return any(list(source[i : i + len(run)]) == list(run) for i in range(len(source) - len(run) + 1))


# --- Metric ---------------------------------------------------------------------------------------------------


def test_rouge_agrees_with_rouge_score():
    peer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for candidate, reference in PAIRS:
        theirs = peer.score(" ".join(reference), " ".join(candidate))
        ours = rouge(candidate, reference)
        for name, value in (("rouge1", ours.rouge1), ("rouge2", ours.rouge2), ("rougeL", ours.rougeL)):
            assert value == pytest.approx(theirs[name].fmeasure, abs=1e-12)


def test_rouge_of_nothing_is_zero_and_of_itself_one():
    assert rouge([], ["a"]).combined == rouge(["a"], []).combined == rouge([], []).combined == 0
    assert rouge(["a", "b", "c"], ["a", "b", "c"]).combined == pytest.approx(1)
    assert rouge(["a"], ["a"]) == summarization.Rouge(1.0, 0.0, 1.0)  # one word has no pairs


def test_rouge_is_symmetric_and_clips():
    for a, b in PAIRS:
        assert rouge(a, b) == rouge(b, a)
    assert rouge(["a"] * 9, ["a"]).rouge1 == pytest.approx(float(Fraction(2, 10)))


def test_rouge_by_hand():
    score = rouge(["a", "b", "c", "d"], ["c", "d", "a", "b"])
    assert (score.rouge1, score.rougeL) == (1, 0.5)
    assert score.rouge2 == pytest.approx(2 / 3)
    assert score.combined == pytest.approx(2 / 3)


def test_alignment_is_a_longest_common_subsequence():
    for x, y in [*PAIRS, ([], ["a"]), (["a"], []), (list(range(200)), list(range(100, 300)))]:
        found = summarization.lcs_alignment(x, y)
        assert len(found) == lcs_table(x, y)
        assert all(x[i] == y[j] for i, j in found)
        assert all(a < c and b < d for (a, b), (c, d) in pairwise(found))


@pytest.mark.parametrize("call", [rouge, summarization.lcs_alignment, copy_tags])
def test_strings_are_refused(call):
    with pytest.raises(TypeError, match="must be a sequence of tokens, got the str 'a b'"):
        call("a b", ["a"])
    with pytest.raises(TypeError, match="must be a sequence of tokens"):
        call(["a"], "a b")
    with pytest.raises(TypeError, match=r"pass tensor.tolist\(\)"):
        call(["a"], torch.tensor([1]))


# --- Extraction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "。", "一，二。。三", "。一；\n二", "no stop at all", "a\n\n\nb。"])
def test_split_sentences_loses_nothing(text):
    pieces = summarization.split_sentences(text)
    assert "".join(pieces) == text
    assert all(pieces)
    for piece in pieces[:-1]:
        assert piece[-1] in "\n。；：，"


def test_split_sentences_by_hand_and_bad_input():
    assert summarization.split_sentences("，，一。。二；三") == ["，，一。。", "二；", "三"]
    with pytest.raises(TypeError, match="text must be a str"):
        summarization.split_sentences(["a"])
    with pytest.raises(ValueError, match="at least one character"):
        summarization.split_sentences("a", stops="")


def test_match_labels_is_monotone_and_complete():
    for n in range(40):
        text, summary = texts(8), texts(1 + n % 5)
        pairs = summarization.match_labels(text, summary)
        assert [i for i, _ in pairs] == list(range(len(summary)))
        assert all(a[1] <= b[1] for a, b in pairwise(pairs))
        longest = max(range(len(summary)), key=lambda i: len(summary[i]))
        scores = [rouge(t, summary[longest]).combined for t in text]
        assert dict(pairs)[longest] == int(np.argmax(scores))


def test_match_labels_shares_sentences_and_takes_the_first_of_equals():
    same = ["a", "b", "c"]
    assert summarization.match_labels([same, same], [same]) == [(0, 0)]
    assert summarization.match_labels([same], [["a"], ["b"], ["c"]]) == [(0, 0), (1, 0), (2, 0)]
    assert summarization.match_labels([], [same]) == summarization.match_labels([same], []) == []


def test_greedy_labels_never_beats_the_best_subset():
    below = 0
    for _ in range(30):
        text, reference = texts(5, longest=6), texts(1)[0]

        def value(chosen, text=text, reference=reference):
            return rouge([w for n in chosen for w in text[n]], reference).combined

        best = max(value(c) for size in range(6) for c in combinations(range(5), size))
        chosen = summarization.greedy_labels(text, reference)
        assert chosen == sorted(set(chosen))
        assert value(chosen) <= best + 1e-12
        below += value(chosen) < best - 1e-12
        assert all(value(chosen) >= value(sorted([*chosen, n])) for n in range(5) if n not in chosen)
    assert below  # it is a heuristic


def test_greedy_labels_limit_ties_and_bad_input():
    text = [["a"], ["a"], ["b"]]
    assert summarization.greedy_labels(text, ["a", "b"]) == [0, 2]
    assert summarization.greedy_labels(text, ["a", "b"], limit=1) == [0]
    assert summarization.greedy_labels(text, ["z"]) == []
    for bad in (0, -1):
        with pytest.raises(ValueError, match="limit must be at least 1"):
            summarization.greedy_labels(text, ["a"], limit=bad)
    with pytest.raises(TypeError, match="limit must be an integer"):
        summarization.greedy_labels(text, ["a"], limit=1.5)
    with pytest.raises(TypeError, match=r"sentences\[1\]"):
        summarization.greedy_labels([["a"], "b"], ["a"])


def test_textrank_is_pagerank_of_the_similarities():
    sentences = [s for s in texts(12, letters=8) if len(s) > 1]
    graph = nx.Graph()
    for i, a in enumerate(sentences):
        for j, b in enumerate(sentences[i:], i):
            weight = sum(a.count(w) * b.count(w) for w in set(a)) / (math.log(len(a)) + math.log(len(b)))
            graph.add_edge(i, j, weight=weight)
    theirs = nx.pagerank(graph, alpha=0.85, tol=1e-12)
    ours = summarization.textrank(sentences, tol=1e-12)
    np.testing.assert_allclose(ours, [theirs[i] for i in range(len(sentences))], atol=1e-8)


def test_textrank_degenerate_and_bad_input():
    assert len(summarization.textrank([])) == 0
    np.testing.assert_allclose(summarization.textrank([["a"], [], ["b"]]).sum(), 1)
    for damping in (0, 1, -0.1, math.nan):
        with pytest.raises(ValueError, match="damping"):
            summarization.textrank([["a"]], damping=damping)
    with pytest.raises(ValueError, match="tol"):
        summarization.textrank([["a"]], tol=0)


def test_tagger_receptive_field_and_padding():
    tagger = summarization.ExtractiveTagger(8, 16, dilations=(1, 2), kernel=5).eval()
    for layer in tagger.layers:
        layer.alpha.data.fill_(1.0)
    assert tagger.receptive_field == 13
    x = torch.randn(1, 31, 8, requires_grad=True)
    tagger(x, torch.ones(1, 31, dtype=torch.bool))[0, 15].backward()
    seen = np.flatnonzero(x.grad[0].abs().sum(-1))
    assert (seen[0], seen[-1], len(seen)) == (9, 21, 13)
    mask = torch.arange(31) < torch.tensor([[12]])
    changed = torch.where(mask[..., None], x, 100 * torch.ones_like(x))
    assert torch.equal(tagger(x, mask), tagger(changed, mask))


def test_tagger_bad_input():
    for kernel in (0, 2, -3):
        with pytest.raises(ValueError, match="kernel must be odd"):
            summarization.ExtractiveTagger(8, kernel=kernel)
    with pytest.raises(ValueError, match="must be positive"):
        summarization.ExtractiveTagger(8, dilations=(1, 0))
    tagger, x = summarization.ExtractiveTagger(8), torch.zeros(2, 5, 8)
    with pytest.raises(TypeError, match="mask must be boolean"):
        tagger(x, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 5\)"):
        tagger(x, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="sentences must have shape"):
        tagger(torch.zeros(2, 5, 7), torch.ones(2, 5, dtype=torch.bool))


def test_mean_pool_ignores_padding():
    hidden, mask = torch.randn(3, 4, 2), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    hidden[0, 2:] = math.nan
    pooled = summarization.mean_pool(hidden, mask)
    torch.testing.assert_close(pooled[0], hidden[0, :2].mean(0))
    assert torch.equal(pooled[1], torch.zeros(2))
    with pytest.raises(ValueError, match="mask must be boolean"):
        summarization.mean_pool(hidden, mask.float())


# --- Sparse softmax -------------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50, 12, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 12, (50,), generator=generator)


def plain_loss(logits, target, k):
    return logits.topk(k, -1).values.logsumexp(-1) - logits.gather(-1, target[..., None])[..., 0]


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_sparse_loss_and_gradient_against_autograd(rows, k, reduction):
    logits, target = rows
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = summarization.sparse_cross_entropy(ours, target, k, reduction=reduction)
    expected = plain_loss(plain, target, k)
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
    weight = torch.linspace(0.5, 2, expected.numel(), dtype=torch.float64).view(expected.shape)
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-12, rtol=0)
    assert int((ours.grad != 0).sum(-1).max()) <= k + 1
    torch.testing.assert_close(ours.grad.sum(-1), torch.zeros(50, dtype=torch.float64), atol=1e-12, rtol=0)


def test_all_classes_give_cross_entropy_and_ignore_index_works(rows):
    logits, target = rows
    target = target.clone()
    target[::3] = -100
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(
            summarization.sparse_cross_entropy(logits, target, 12, reduction=reduction),
            F.cross_entropy(logits, target, reduction=reduction),
        )
    free = logits.clone().requires_grad_()
    summarization.sparse_cross_entropy(free, target, 3).backward()
    assert not free.grad[::3].any()
    nothing = torch.full((2,), 7)
    assert summarization.sparse_cross_entropy(logits[:2], nothing, 3, ignore_index=7, reduction="sum") == 0
    assert summarization.sparse_cross_entropy(logits[:2], nothing, 3, ignore_index=7).isnan()


def test_more_dimensions_and_ties(rows):
    logits, target = rows
    folded = summarization.sparse_cross_entropy(logits.view(5, 10, 12), target.view(5, 10), 4)
    torch.testing.assert_close(folded, summarization.sparse_cross_entropy(logits, target, 4))
    tied = torch.zeros(1, 6, dtype=torch.float64)
    for at in range(6):
        loss = summarization.sparse_cross_entropy(tied, torch.tensor([at]), 3)
        torch.testing.assert_close(loss, torch.tensor(math.log(3), dtype=torch.float64))


@pytest.mark.parametrize(("classes", "k"), [(5000, 3), (5011, 19), (2561, 10), (6400, 1)])
def test_long_rows_are_searched_by_blocks(classes, k):
    generator = torch.Generator().manual_seed(2)
    for logits in (
        torch.randn(20, classes, generator=generator, dtype=torch.float64),
        torch.randint(0, 5, (20, classes), generator=generator).double(),  # many ties
        torch.linspace(0, 9, classes, dtype=torch.float64).expand(20, -1).clone(),  # the largest stand side by side
    ):
        target = torch.randint(0, classes, (20,), generator=generator)
        ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = summarization.sparse_cross_entropy(ours, target, k, reduction="none")
        expected = plain_loss(plain, target, k)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        loss.sum().backward()
        assert ((ours.grad != 0).sum(-1) <= k + 1).all()
        if logits.unique().numel() > 5:  # among ties any k may be taken
            expected.sum().backward()
            torch.testing.assert_close(ours.grad, plain.grad, atol=1e-12, rtol=0)


def test_a_lead_of_sixty_keeps_its_relative_accuracy():
    logits = torch.tensor([[60.0, 0.0, -1.0, 0.0]], dtype=torch.float64)
    loss = summarization.sparse_cross_entropy(logits, torch.tensor([0]), 3)
    assert loss.item() == pytest.approx(2 * math.exp(-60), rel=1e-12)
    free = logits.float().requires_grad_()
    summarization.sparse_cross_entropy(free, torch.tensor([2]), 2).backward()
    assert torch.isfinite(free.grad).all()


@pytest.mark.parametrize("bias", [True, False])
def test_linear_version_agrees_with_the_plain_one(bias):
    generator = torch.Generator().manual_seed(1)
    sizes = [(6, 5, 8), (30, 8), (30,)]
    ours = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in sizes]
    plain = [t.detach().clone().requires_grad_() for t in ours]
    target = torch.randint(0, 30, (6, 5), generator=generator)
    target[0, 0] = -100
    loss = summarization.linear_sparse_cross_entropy(*ours[:2], ours[2] if bias else None, target, 4)
    logits = F.linear(*plain[:2], plain[2] if bias else None)
    expected = plain_loss(logits, target.clamp_min(0), 4)[target >= 0].mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(ours[: 2 + bias], plain):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-12, rtol=1e-9)


def test_linear_version_with_frozen_weights():
    hidden = torch.randn(4, 3, requires_grad=True)
    weight, target = torch.randn(9, 3), torch.zeros(4, dtype=torch.long)
    summarization.linear_sparse_cross_entropy(hidden, weight, None, target, 2).backward()
    assert hidden.grad.shape == (4, 3)
    assert weight.grad is None


def test_sparse_softmax_is_a_softmax_on_k_places(rows):
    logits, _ = rows
    for k, dim in product((1, 3, 12), (0, 1, -1)):
        p = summarization.sparse_softmax(logits, k, dim)
        torch.testing.assert_close(p.sum(dim), torch.ones(p.sum(dim).shape, dtype=torch.float64))
        assert ((p > 0).sum(dim) == k).all()
    torch.testing.assert_close(summarization.sparse_softmax(logits, 12), logits.softmax(-1))
    assert (summarization.sparse_softmax(torch.zeros(5), 2) > 0).sum() == 2


@pytest.mark.parametrize(
    ("k", "error", "words"),
    [
        (0, ValueError, "between 1 and the number of classes 12, got 0"),
        (13, ValueError, "got 13"),
        (2.0, TypeError, "k must be an integer, got float"),
        (True, TypeError, "k must be an integer, got bool"),
    ],
)
def test_bad_k(rows, k, error, words):
    logits, target = rows
    for call in (
        lambda: summarization.sparse_softmax(logits, k),
        lambda: summarization.sparse_cross_entropy(logits, target, k),
        lambda: summarization.linear_sparse_cross_entropy(logits, torch.eye(12).double(), None, target, k),
        lambda: sparse_risk(np.full(12, 1 / 12), k),
    ):
        with pytest.raises(error, match=words):
            call()


def test_bad_targets_and_shapes(rows):
    logits, target = rows
    for bad in (-1, 12):
        wrong = target.clone()
        wrong[3] = bad
        with pytest.raises(ValueError, match=f"target {bad} lies outside 0..11"):
            summarization.sparse_cross_entropy(logits, wrong, 3)
        with pytest.raises(ValueError, match=f"target {bad} lies outside"):
            summarization.linear_sparse_cross_entropy(logits, torch.eye(12).double(), None, wrong, 3)
    for wrong in (target.double(), target > 3):
        with pytest.raises(TypeError, match="target must hold integer classes"):
            summarization.sparse_cross_entropy(logits, wrong, 3)
    with pytest.raises(ValueError, match="need a target"):
        summarization.sparse_cross_entropy(logits, target[:-1], 3)
    with pytest.raises(TypeError, match="floating-point"):
        summarization.sparse_cross_entropy(logits.long(), target, 3)
    with pytest.raises(ValueError, match="reduction must be one of"):
        summarization.sparse_cross_entropy(logits, target, 3, reduction="median")
    with pytest.raises(ValueError, match="share the width"):
        summarization.linear_sparse_cross_entropy(logits, torch.eye(3).double(), None, target, 3)
    with pytest.raises(ValueError, match="bias must have shape"):
        summarization.linear_sparse_cross_entropy(logits, torch.eye(12).double(), torch.zeros(3).double(), target, 3)


def test_logit_gap_inverts_cross_entropy_with_equal_others():
    for n in (2, 10, 50_257):
        for gap in (-3.0, 0.1, 5.0, 40.0):
            loss = math.log1p((n - 1) * math.exp(-gap))
            assert summarization.logit_gap(n, loss) == pytest.approx(gap, rel=1e-9)
    assert summarization.logit_gap(3, 800.0) == pytest.approx(math.log(2) - 800)
    for bad, error in ((1, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="classes must be"):
            summarization.logit_gap(bad, 0.1)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="every loss must be positive"):
            summarization.logit_gap(5, [0.1, bad])


def expected_loss(logits, q, k):
    return (
        plain_loss(torch.tensor(logits)[None], torch.zeros(1, dtype=torch.long), k)[0].item() + logits[0] - q @ logits
    )


def test_risk_is_attained_and_not_beaten():
    for _ in range(60):
        q, k = RNG.dirichlet(np.full(8, 0.5)), int(RNG.integers(1, 8))
        found = sparse_risk(q, k)
        assert found == sparse_risk(q[::-1], k)
        assert found.head == (q > found.level * (1 + 1e-12)).sum() < k or found.level == 0
        assert np.minimum(1, q / found.level).sum() == pytest.approx(k)
        logits = np.log(np.maximum(q, found.level))
        assert expected_loss(logits, q, k) == pytest.approx(found.risk, abs=1e-10)
        for scale in (0.01, 0.3, 3):
            assert expected_loss(logits + RNG.normal(0, scale, 8), q, k) >= found.risk - 1e-10


def test_risk_special_cases():
    assert sparse_risk([0.5, 0.5, 0, 0], 3).risk == pytest.approx(math.log(2))  # proper: at most k classes
    assert sparse_risk([0.5, 0.5, 0, 0], 3).level == 0
    assert sparse_risk([0.2] * 5, 3) == summarization.SparseRisk(pytest.approx(math.log(3)), 0, pytest.approx(1 / 3))
    q = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    assert sparse_risk(q, 5).risk == pytest.approx(-(q * np.log(q)).sum())
    assert sparse_risk(q, 1).risk == pytest.approx(0)
    four = sparse_risk(q, 4)
    assert (four.head, four.level, four.risk) == (2, pytest.approx(0.225), pytest.approx(1.3790, abs=5e-5))
    for bad in ([0.5, 0.6], [1.5, -0.5], [[0.5, 0.5]], [], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="q must be a distribution"):
            sparse_risk(bad, 1)


# --- Copying --------------------------------------------------------------------------------------------------


def test_tags_of_the_articles_example():
    source, target = ["我", "真的", "非常", "热爱", "我", "的", "祖国"], ["我", "爱", "我", "的", "祖国"]
    assert copy_tags(source, target) == ([1, 0, 0, 0, 1, 2, 2], [1, 0, 1, 2, 2])


@pytest.mark.parametrize("method", ["lcs", "fragments"])
def test_tagged_runs_stand_in_the_source(method):
    for x, y in PAIRS:
        on_source, on_target = copy_tags(x, y, method=method)
        assert (len(on_source), len(on_target)) == (len(x), len(y))
        runs = copied_runs(summarization.Hypothesis(tuple(y), tuple(on_target), 0.0))
        assert all(holds(x, run) for run in runs)
        if method == "lcs":
            assert sum(t > 0 for t in on_target) == sum(t > 0 for t in on_source) == lcs_table(x, y)
        else:
            assert all(len(run) >= 2 for run in runs)


def test_fragments_by_hand():
    source, target = ["a", "b", "c", "d", "e"], ["c", "d", "x", "b", "a", "b", "c", "d"]
    assert copy_tags(source, target, method="fragments")[1] == [1, 2, 0, 0, 1, 2, 2, 2]
    assert copy_tags(source, target, method="fragments", min_length=1)[1] == [1, 2, 0, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="method must be one of 'lcs', 'fragments', got 'LCS'"):
        copy_tags(source, target, method="LCS")
    with pytest.raises(ValueError, match="min_length must be at least 1"):
        copy_tags(source, target, method="fragments", min_length=0)


def followers(x, span):
    return {x[i + len(span)] for i in range(len(x) - len(span)) if x[i : i + len(span)] == span}


def test_index_against_all_substrings():
    for _ in range(200):
        x = RNG.integers(0, 3, RNG.integers(0, 14)).tolist()
        index = CopyIndex(x)
        assert len(index) <= max(1, 2 * len(x))
        for i, j in combinations(range(len(x) + 1), 2):
            state = index.start
            for token in x[i:j]:
                state = index.extend(state, token)
            assert index.continuations(state) == followers(x, x[i:j])
            for token in range(4):
                assert (index.extend(state, token) is None) == (token not in followers(x, x[i:j]))


def test_longest_suffix_against_search():
    for _ in range(100):
        x, output = RNG.integers(0, 3, 10).tolist(), RNG.integers(0, 4, 15).tolist()
        index = CopyIndex(x)
        state = index.start
        for at, token in enumerate(output, 1):
            state = index.longest(state, token)
            suffix = next(output[a:at] for a in range(at + 1) if holds(x, output[a:at]))
            expected = index.start
            for other in suffix:
                expected = index.extend(expected, other)
            assert state == expected


def test_mixture_is_a_distribution_that_forbids_nothing():
    for _ in range(50):
        x = RNG.integers(0, 6, RNG.integers(0, 9)).tolist()
        index = CopyIndex(x)
        logits, tags = torch.randn(7, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        state = index.start
        for token in [*RNG.integers(0, 6, 4).tolist(), 3]:
            p = copy_mixture(logits, tags, index, state).exp()
            assert p.sum().item() == pytest.approx(1)
            assert (p >= tags.softmax(-1)[0] * logits.softmax(-1) - 1e-12).all()
            state = index.longest(state, token)


def test_mixture_redistributes_what_has_no_set():
    logits, tags = torch.randn(4, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    empty = CopyIndex([])
    torch.testing.assert_close(copy_mixture(logits, tags, empty, empty.start), logits.log_softmax(-1))
    index = CopyIndex([2])
    end = index.extend(index.start, 2)  # nothing continues
    o, b = tags[:2].softmax(-1)
    expected = o * logits.softmax(-1) + b * torch.tensor([0.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(copy_mixture(logits, tags, index, end).exp(), expected)


def test_mixture_has_finite_gradients_and_checks_its_input():
    index = CopyIndex([2])
    free = torch.randn(4, requires_grad=True), torch.zeros(3, requires_grad=True)
    copy_mixture(*free, index, index.extend(index.start, 2))[1].backward()
    assert all(torch.isfinite(t.grad).all() for t in free)
    with pytest.raises(ValueError, match=r"a source token must be an integer in 0\.\.1, got 2"):
        copy_mixture(torch.zeros(2), torch.zeros(3), index, 0)
    with pytest.raises(ValueError, match="want logits"):
        copy_mixture(torch.zeros(1, 4), torch.zeros(3), index, 0)


# --- Beam search ----------------------------------------------------------------------------------------------


def enumerate_all(step, end, vocabulary, length):
    """Score every sequence of up to ``length`` tokens by its own chain of probabilities."""
    scores, frontier = {}, [((), 0.0)]
    for _ in range(length):
        grown = []
        for prefix, score in frontier:
            logits, _ = step(torch.tensor([prefix], dtype=torch.long).view(1, -1), torch.zeros(1, dtype=torch.long))
            log_p = logits[0].log_softmax(-1).tolist()
            scores[prefix] = score + log_p[end]
            grown += [((*prefix, t), score + log_p[t]) for t in range(vocabulary) if t != end]
        frontier = grown
    return scores | dict(frontier)


def test_a_wide_beam_is_exhaustive():
    source, step = summarization.toy_decoder(3, vocabulary=4, never_end=False)
    expected = enumerate_all(step, 0, 4, 3)
    found = beam_search(step, source, end=0, beam=len(expected), max_length=3)
    assert {h.tokens: pytest.approx(h.score, abs=1e-5) for h in found} == expected
    assert all(a.score >= b.score for a, b in pairwise(found))


@pytest.mark.parametrize("copy_mode", ["none", "argmax", "mixture"])
def test_parents_lead_back_to_the_prefix(copy_mode):
    source, step = summarization.toy_decoder(5, never_end=False)
    before = [()]

    def watched(prefixes, parents):
        nonlocal before
        for prefix, parent in zip(prefixes.tolist(), parents.tolist()):
            assert tuple(prefix[:-1]) == before[parent]
        before = [tuple(prefix) for prefix in prefixes.tolist()]
        return step(prefixes, parents)

    found = beam_search(watched, source, end=0, beam=4, max_length=8, copy=copy_mode)
    assert len(found) == 4
    assert all(len(h.tokens) == len(h.tags) <= 8 and 0 not in h.tokens for h in found)


def test_every_copied_run_stands_in_the_source_and_stale_lengths_break_that():
    runs = {True: [], False: []}
    for seed in range(100):
        source, step = summarization.toy_decoder(seed, never_end=False)
        for right, search in ((True, beam_search), (False, summarization.stale_beam_search)):
            extra = {"copy": "argmax"} if right else {}
            for path in search(step, source, end=0, beam=3, max_length=8, **extra):
                runs[right] += [holds(source, run) for run in copied_runs(path)]
    assert all(runs[True])
    assert not all(runs[False])


def test_argmax_mode_scores_tokens_after_the_restriction():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    step = lambda prefixes, parents: (  # noqa: E731
        logits.expand(len(prefixes), 4),
        torch.tensor([[0.0, 5.0, 9.0]]).expand(len(prefixes), 3),
    )
    (best,) = beam_search(step, [1, 2], end=0, beam=1, max_length=2, copy="argmax")
    assert best.tokens == (2, 2)  # B first, as there is no span; after 2 nothing continues, so B again
    assert best.tags == (1, 1)
    assert best.score == pytest.approx(2 * math.log(math.e / (1 + math.e)), abs=1e-6)
    (ends,) = beam_search(step, [0], end=0, beam=1, max_length=2, copy="argmax")
    assert (ends.tokens, ends.score) == ((), pytest.approx(0.0))  # a source that holds the end token may copy it


def test_empty_source_leaves_o_alone():
    _, step = summarization.toy_decoder(1)
    plain = beam_search(step, [], end=0, beam=3, max_length=4)
    for mode in ("argmax", "mixture"):
        other = beam_search(step, [], end=0, beam=3, max_length=4, copy=mode)
        assert [h.tokens for h in other] == [h.tokens for h in plain]
        np.testing.assert_allclose([h.score for h in other], [h.score for h in plain], atol=1e-5)
        assert all(set(h.tags) == {0} for h in other)


def test_mixture_beam_sums_the_mixture():
    source, step = summarization.toy_decoder(8)
    for path in beam_search(step, source, end=0, beam=3, max_length=5, copy="mixture"):
        index, total = CopyIndex(source), 0.0
        state = index.start
        for t, token in enumerate(path.tokens):
            logits, tags = step(torch.tensor([path.tokens[:t]], dtype=torch.long).view(1, -1), None)
            total += copy_mixture(logits[0], tags[0], index, state)[token].item()
            state = index.longest(state, token)
        assert path.score == pytest.approx(total, abs=1e-4)


def test_top_k_of_one_is_greedy_and_free():
    source, step = summarization.toy_decoder(2)
    for mode in ("none", "argmax", "mixture"):
        found = beam_search(step, source, end=0, beam=3, max_length=4, copy=mode, k=1)
        assert len(found) == 1
        assert found[0].score == pytest.approx(0.0, abs=1e-6)


def test_beam_search_bad_input():
    _, step = summarization.toy_decoder(1)
    for name in ("beam", "max_length", "k"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            beam_search(step, [1], end=0, **{name: 0})
    with pytest.raises(ValueError, match="copy must be one of 'none', 'argmax', 'mixture', got 'hard'"):
        beam_search(step, [1], end=0, copy="hard")
    with pytest.raises(TypeError, match="source must be a sequence of tokens"):
        beam_search(step, "abc", end=0)
    with pytest.raises(ValueError, match="a source token must be an integer"):
        beam_search(step, [99], end=0, copy="mixture")
    with pytest.raises(ValueError, match=r"step must return \(1, vocabulary\) and \(1, 3\)"):
        beam_search(lambda p, q: (torch.zeros(1, 4), torch.zeros(1, 2)), [1], end=0)


# --- The generator --------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    return Summarizer(20, layers=2, width=16, heads=2, generator=torch.Generator().manual_seed(0)).eval()


def test_summary_does_not_leak_backwards_but_the_source_is_seen_whole(model):
    tokens = torch.tensor([[3, 4, 5, 1, 6, 7, 8]])
    embedded = []
    hook = model.transformer.norm.register_forward_hook(lambda m, i, out: embedded.append(out) or out.retain_grad())
    logits, _ = model(tokens, torch.tensor([4]))
    logits[0, 5].sum().backward()
    hook.remove()
    seen = embedded[0].grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 6 + [False]


def test_padding_changes_nothing(model):
    tokens = torch.tensor([[3, 4, 1, 6, 7]])
    padded = torch.cat([tokens, torch.tensor([[9, 9, 9]])], 1)
    for a, b in zip(model(tokens, torch.tensor([3])), model(padded, torch.tensor([3]), torch.tensor([5]))):
        torch.testing.assert_close(a, b[:, :5], atol=1e-5, rtol=1e-5)


def test_stepper_agrees_with_one_pass_while_beams_cross(model):
    source = torch.tensor([3, 4, 5, 6, 1])
    step = model.stepper(source)
    previous = None
    for prefixes, parents in (
        ([[]], [0]),
        ([[7], [8], [9]], [0, 0, 0]),
        ([[9, 3], [7, 4], [9, 5]], [2, 0, 2]),
        ([[7, 4, 4]], [1]),
    ):
        prefixes = torch.tensor(prefixes, dtype=torch.long)
        logits, tags = step(prefixes, torch.tensor(parents))
        whole = torch.cat([source.expand(len(prefixes), -1), prefixes], 1)
        expected = [part[:, -1] for part in model(whole, torch.full((len(prefixes),), 5))]
        torch.testing.assert_close(logits, expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(tags, expected[1], atol=1e-4, rtol=1e-4)
        previous = logits
    assert previous.shape == (1, 20)


def test_summarizer_bad_input(model):
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"prefix must lie in 0\.\.5"):
        model(tokens, torch.tensor([2, 6]))
    with pytest.raises(ValueError, match=r"want tokens \(batch, positions\) and prefix"):
        model(tokens, torch.tensor([2]))
    with pytest.raises(ValueError, match="source must have shape"):
        model.stepper(torch.zeros(0, dtype=torch.long))


def test_rows_place_targets_and_tags():
    rows = summarization.make_rows([[7, 8, 9], [5]], [[8, 9], [6]])
    assert rows.tokens.tolist() == [[7, 8, 9, 1, 8, 9, 2], [5, 1, 6, 2, 0, 0, 0]]
    assert rows.prefix.tolist() == [4, 2]
    assert rows.lengths.tolist() == [7, 4]
    assert rows.targets.tolist() == [[-100, -100, -100, 8, 9, 2, -100], [-100, 6, 2, -100, -100, -100, -100]]
    assert rows.tags.tolist() == [[1, 2, 0, 1, 2, 0, -100], [0, 0, 0, -100, -100, -100, -100]]
    with pytest.raises(ValueError, match="shorter"):
        summarization.make_rows([[7], [8]], [[8]])


def test_training_learns_to_copy_and_repeats_exactly():
    rng = np.random.default_rng(0)
    sources = [rng.permutation(np.arange(3, 15))[:4].tolist() for _ in range(64)]
    rows = summarization.make_rows(sources, [source[:2] for source in sources])
    models = []
    for _ in range(2):
        model = Summarizer(15, 1, 16, 2, generator=torch.Generator().manual_seed(0))
        models.append(summarization.fit_summarizer(model, rows, steps=60, seed=0, warmup=5, noise=0.1))
    for a, b in zip(models[0].parameters(), models[1].parameters()):
        assert torch.equal(a, b)
    judged = summarization.held_out(models[0], rows, summarization.copy_masks(rows, 15))
    assert (judged.gain >= -1e-6).all()
    np.testing.assert_allclose(judged.restricted, judged.plain + judged.gain, atol=1e-4)
    assert judged.mixture.mean() > judged.plain.mean() > -math.log(15)
    with pytest.raises(ValueError, match="noise must lie in"):
        summarization.fit_summarizer(copy.deepcopy(model), rows, steps=1, seed=0, noise=1.0)


def test_averages_follow_the_weights():
    rows = summarization.make_rows([[3, 4], [5, 6]] * 8, [[3], [5]] * 8)
    kept = {}
    for decay in (0.0, 0.5, 1.0):
        model = Summarizer(8, 1, 16, 2, generator=torch.Generator().manual_seed(0))
        start = model.transformer.tokens.detach().clone()
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        summarization.fit_summarizer(model, rows, steps=4, seed=0, warmup=1, schedule="constant", average=average)
        kept[decay] = average.module.transformer.tokens
        last = model.transformer.tokens
    assert torch.equal(kept[0.0], last)  # an average without memory
    assert torch.equal(kept[1.0], start)  # one that never learns
    assert (kept[0.5] - last).norm() < (kept[1.0] - last).norm()
    assert not torch.equal(kept[0.5], last)


def test_held_out_log_probabilities_are_the_models(model):
    rows = summarization.make_rows([[7, 8, 9], [5, 6]], [[8, 9, 4], [6]])
    judged = summarization.held_out(model, rows, summarization.copy_masks(rows, 20))
    logits, tags = model(rows.tokens, rows.prefix, rows.lengths)
    index = CopyIndex([7, 8, 9])
    state = index.start
    for t, token in enumerate([8, 9, 4, 2]):
        log_p = logits[0, 3 + t].log_softmax(-1)
        assert judged.plain[t] == pytest.approx(log_p[token].item(), abs=1e-5)
        mixed = copy_mixture(logits[0, 3 + t], tags[0, 3 + t], index, state)
        assert judged.mixture[t] == pytest.approx(mixed[token].item(), abs=1e-5)
        state = index.longest(state, token)


def test_compound_embeddings():
    table = torch.randn(10, 4)
    found = summarization.compound_embeddings(table, [[1, 2, 2], [5]])
    torch.testing.assert_close(found, torch.stack([table[[1, 2, 2]].mean(0), table[5]]))
    with pytest.raises(ValueError, match="at least one piece"):
        summarization.compound_embeddings(table, [[1], []])


def test_new_words_start_from_their_pieces_and_change_nothing_else(model):
    larger = summarization.add_words(model, [[7, 8], [9]])
    drawn = summarization.add_words(model, [[7, 8], [9]], generator=torch.Generator().manual_seed(0))
    tokens, prefix = torch.tensor([[5, 6, 7, 8]]), torch.tensor([2])
    with torch.no_grad():
        before, after, random = (each(tokens, prefix)[0] for each in (model, larger, drawn))
    assert before.shape[-1] == 20  # the model itself is left alone
    for logits in (after, random):
        torch.testing.assert_close(logits[..., :20], before)
    torch.testing.assert_close(after[..., 20], before[..., [7, 8]].mean(-1))
    torch.testing.assert_close(after[..., 21], before[..., 9])
    assert not torch.allclose(random[..., 20:], after[..., 20:])
    with pytest.raises(ValueError, match="at least one piece"):
        summarization.add_words(model, [[]])


# --- Data -----------------------------------------------------------------------------------------------------


def write(path, *records):
    path.write_text(
        "\n".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8"
    )
    return path


def test_read_cail_fixture(tmp_path):
    full = {
        "id": "0" * 32,
        "summary": "原告甲与被告乙系买卖合同关系。",
        "text": [{"sentence": "原告甲诉被告乙。", "label": 1}, {"sentence": "本案已审理终结。", "label": 0}],
    }
    test = {"id": "1" * 32, "text": [{"sentence": "原告丙。"}]}
    first, second = summarization.read_cail(write(tmp_path / "lines.json", full, "", test))
    assert first.sentences == ["原告甲诉被告乙。", "本案已审理终结。"]
    assert (first.labels, first.summary, first.text) == ([1, 0], full["summary"], "原告甲诉被告乙。\n本案已审理终结。")
    assert (second.id, second.labels, second.summary) == ("1" * 32, None, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "line 2: "),
        ("[1]", "line 2: want a JSON object, got list"),
        ('{"id": "1"}', "line 2: 'text' is missing"),
        ('{"text": [{"label": 1}]}', "line 2: an entry of 'text' has no string 'sentence'"),
        ('{"text": [{"sentence": "a", "label": 2}]}', "line 2: 'label' must be 0 or 1"),
        ('{"text": [{"sentence": "a", "label": 1}, {"sentence": "b"}]}', "line 2: 'label' must be 0 or 1"),
        ('{"text": [], "summary": 3}', "line 2: 'summary' must be a string"),
    ],
)
def test_read_cail_names_file_and_line(tmp_path, line, words):
    path = write(tmp_path / "broken.json", {"text": []}, line)
    with pytest.raises(ValueError, match=f"broken.json, {words}"):
        summarization.read_cail(path)
    with pytest.raises(FileNotFoundError):
        summarization.read_cail(tmp_path / "absent.json")


def document(name, summary, body, parameters=""):
    sections = {"Parameters": parameters} if parameters else {}
    return Doc(name, "numpy", "numpy.fft", "function", True, summary, body, sections, (), name)


def test_docstring_pairs_and_splits():
    docs = [
        document("numpy.fft.a.sumAll_ofIt", "Sum all the values here.", "It sums every one. The sum is exact."),
        document("numpy.fft.b.two", "Sum all the values here.", "It sums every one. The sum is exact."),
        document("numpy.fft.c.short", "Too short.", "It sums every one."),
        document("numpy.fft.d.bare", "This one has no source.", ""),
        document("numpy.fft.e.only", "This has parameters alone, indeed.", "", "x : array. The values."),
    ]
    pairs = summarization.docstring_pairs(docs)
    assert [pair.name for pair in pairs] == ["numpy.fft.a.sumAll_ofIt", "numpy.fft.e.only"]
    assert pairs[0].sentences == ["It sums every one.", "The sum is exact."]
    assert pairs[0].title == "sum all of it"
    many = [summarization.Pair(f"numpy.fft.m{n % 20}.f{n}", "a b c d", ["e"], []) for n in range(200)]
    train, test = summarization.split_by_module(many, 0)
    assert not {p.module for p in train} & {p.module for p in test}
    assert len(train) + len(test) == 200
    assert 50 <= len(test) < 60
    assert summarization.split_by_module(many, 0)[1] == test != summarization.split_by_module(many, 1)[1]
    with pytest.raises(ValueError, match="test_share"):
        summarization.split_by_module(many, 0, test_share=1.0)


def test_bpe_round_trip_and_reserved_ids():
    bpe = summarization.train_bpe(["Return the 12 values, sorted.", "the values"] * 3, 60)
    assert [bpe.token_to_id(t) for t in ("<pad>", "<sep>", "<end>")] == [
        summarization.PAD,
        summarization.SEPARATOR,
        summarization.END,
    ]
    ids = bpe.encode("Return the values, 12.").ids
    assert min(ids) > summarization.END
    assert bpe.decode(ids) == "return the values, 12."


def test_special_words_are_one_token_and_decode_to_the_same_text():
    bpe = summarization.train_bpe(["the values are sorted", "sorted values"] * 3, 40)
    words = summarization.split_words(bpe, ["unsorted and unseen", "unseen values, unseen 12"], 2)
    assert words == ["unseen", "and"]
    larger = summarization.SpecialWords(bpe, words)
    assert larger.get_vocab_size() == bpe.get_vocab_size() + 2
    for text in ("the unseen values, unseen", "unseenable and unsorted", "and", ""):
        plain, [found] = bpe.encode(text).ids, larger.encode_batch([text])
        assert larger.decode(found.ids) == bpe.decode(plain)
        count = [*text.replace(",", "").split()]
        assert [n - bpe.get_vocab_size() for n in found.ids if n >= bpe.get_vocab_size()] == [
            words.index(word) for word in count if word in words
        ]


def test_kl_is_the_extra_cost_and_checks_its_input():
    assert summarization.kl_bernoulli(0.3, 0.3) == 0
    assert summarization.kl_bernoulli(0.3, 0.5) > 0
    for bad in ((0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="both rates"):
            summarization.kl_bernoulli(*bad)


def test_every_public_name_has_its_docstring():
    for name in summarization.__all__:
        value = getattr(summarization, name)
        if callable(value):
            assert value.__doc__, name


# --- Found by `make mutate` -----------------------------------------------------------------------------------


def stale_greedy(step, source, end, longest):
    """The rule of the article's code for a beam of one, written as the article tells it."""
    output, tags, score, run = [], [], 0.0, 0
    while len(output) < longest:
        logits, tag_logits = (part[0].double() for part in step(torch.tensor([output], dtype=torch.long), None))
        tag = int(tag_logits.argmax()) if run else int(tag_logits[:2].argmax())
        run = {0: 0, 1: 1, 2: run + 1}[tag]
        if tag == 2:
            n = run - 1
            allowed = {source[i + n] for i in range(len(source) - n) if source[i : i + n] == output[-n:]}
            if not allowed:
                tag, run = 1, 1
        if tag:
            allowed = allowed if tag == 2 else set(source)
            logits = torch.tensor([float(x) if i in allowed else -math.inf for i, x in enumerate(logits)])
        token = int(logits.argmax())
        score += float(logits.log_softmax(-1)[token])
        if token == end:
            break
        output.append(token)
        tags.append(tag)
    return tuple(output), tuple(tags), score


def test_the_rule_of_the_articles_code_step_by_step():
    kept = set()
    for seed in range(60):
        source, step = summarization.toy_decoder(seed, never_end=seed % 2 == 0)
        (found,) = summarization.stale_beam_search(step, source, end=0, beam=1, max_length=9)
        tokens, tags, score = stale_greedy(step, source, 0, 9)
        assert (found.tokens, found.tags) == (tokens, tags)
        assert found.score == pytest.approx(score, abs=1e-4)
        kept |= set(tags)
    assert kept == {0, 1, 2}


def test_an_index_tells_its_size():
    assert repr(CopyIndex([1, 2])) == "<CopyIndex of 2 tokens: 3 states>"


@pytest.mark.parametrize(
    ("logits", "tags"), [((1, 1, 4), (1, 3)), ((2, 4), (1, 3)), ((1, 4), (1, 2)), ((4,), (1, 3)), ((1, 4), (2, 3))]
)
def test_what_a_step_returns_is_checked(logits, tags):
    for search in (beam_search, summarization.stale_beam_search):
        with pytest.raises(ValueError, match=r"step must return \(1, vocabulary\) and \(1, 3\)"):
            search(lambda prefixes, parents: (torch.zeros(logits), torch.zeros(tags)), [1], end=0)


def test_a_module_is_three_parts_and_white_space_does_not_count():
    assert summarization.Pair("a.b.c.d.e", "", [], []).module == "a.b.c"
    (pair,) = summarization.docstring_pairs(
        [document("a.b.c.d", "  Sum all the values here. ", "It sums every one.  The sum is exact. Of it.")]
    )
    assert pair.summary == "Sum all the values here."
    assert pair.sentences == ["It sums every one.", "The sum is exact."]


def test_the_share_of_modules_that_is_held_out():
    many = [summarization.Pair(f"a.b.m{n % 8}.f{n}", "a b c d", ["e"], []) for n in range(64)]
    for share, size in ((0.125, 8), (0.13, 16), (0.5, 32), (0.99, 64)):
        assert len(summarization.split_by_module(many, 3, share)[1]) == size
    for share in (0.0, -0.5, 1.0):
        with pytest.raises(ValueError, match=r"test_share must lie in \(0, 1\)"):
            summarization.split_by_module(many, 0, test_share=share)


def test_an_encoder_has_the_size_asked_for_and_a_token_for_unknown_signs():
    bpe = summarization.train_bpe(["return the sorted values", "the value"] * 9, 24)
    assert bpe.get_vocab_size() == 24
    assert bpe.encode("the ж").ids[-1] == bpe.token_to_id("<unk>") == 3


def test_split_words_have_two_pieces_at_least():
    bpe = summarization.train_bpe(["the values"] * 9 + ["sorted"], 60)
    pieces = {
        word: len(bpe.encode(word).ids) for word in ("the", "values", "sorted", "thee", "ths", "valuest", "thevalues")
    }
    assert {1, 2, 3} <= set(pieces.values())
    two = [word for word, count in pieces.items() if count >= 2]
    assert summarization.split_words(bpe, [" ".join(pieces)], 9) == sorted(two)  # all once, hence by the alphabet


# --- Experiments on a small corpus ----------------------------------------------------------------------------


def small_pairs(modules=12, each=5):
    """Documents whose best sentence is the third, by an equal summary; places and words differ."""
    rng, found = np.random.default_rng(5), []
    stock = ["alpha", "beta", "gamma", "delta", "kappa", "lambda", "sigma", "omega", "value", "array", "index", "shape"]
    for n in range(modules * each):
        summary = [*rng.choice(stock, 5, replace=False)]
        others = [" ".join(rng.choice(stock, 6)) + "." for _ in range(3 + n % 3)]
        sentences = [others[0], others[1], " ".join([*summary, "indeed"]) + ".", *others[2:]]
        found.append(summarization.Pair(f"a.b.m{n % modules}.{summary[0]}_{n}", " ".join(summary), sentences, []))
    return found


@pytest.fixture(scope="module")
def small():
    return summarization.extraction_data(small_pairs())


def test_extraction_data_by_hand():
    long, short = ["one", "two", "three", "four"], ["one.", "two.", "three."]
    pairs = [
        summarization.Pair(
            "a.b.c.one_two", "one two five", ["One two.", "Six one.", "Seven.", "One two.", "Eight."], []
        ),
        summarization.Pair("a.b.c.short", "one two three four", short, []),
        summarization.Pair("a.b.c.four", "four", [f"{word}." for word in long], []),
    ]
    data = summarization.extraction_data(pairs, max_sentences=4)
    assert [pair.name for pair in data.documents] == ["a.b.c.one_two", "a.b.c.four"]
    assert len(data) == 2
    assert data.offsets.tolist() == [0, 4, 8]
    assert data.sentences[0] == [["one", "two"], ["six", "one"], ["seven"], ["one", "two"]]
    np.testing.assert_allclose(data.coverage[0], [2 / 3, 1 / 3, 0, 2 / 3])
    np.testing.assert_allclose(data.coverage[1], [0, 0, 0, 1])
    np.testing.assert_allclose(data.scores[0], [rouge(s, ["one", "two", "five"]).combined for s in data.sentences[0]])
    surface = data.features[:, -4:].toarray()
    np.testing.assert_allclose(surface[:4, 0], [1, 0, 0, 0])
    np.testing.assert_allclose(surface[:4, 1], [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(surface[:4, 2], [0.1, 0.1, 0.05, 0.1])
    np.testing.assert_allclose(surface[:4, 3], [1, 0.5, 0, 1])
    # what stands in two sentences at least: one (4), two (3), "one two" (2); logarithmic counts, rows of length 1
    assert data.features.shape == (8, 3 + 4)
    np.testing.assert_allclose(np.square(data.features[0, :3].toarray()).sum(), 1)
    assert data.rows([1, 0]).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert data.labels([0, 1]).tolist() == [True, False, False, False, False, False, False, True]
    assert data.pick([1, 0], np.array([0, 3, 1, 1, 0, 0, 5, 0]), data.coverage) == pytest.approx((0 + 0) / 2)
    assert data.pick([0], np.array([0, 3, 1, 1]), data.coverage) == pytest.approx(1 / 3)


def test_the_ladder_climbs_by_its_definition(small):
    steps = summarization.ladder(small, 0)
    _, test = summarization.split_by_module(small.documents, 0)
    at = [next(n for n, pair in enumerate(small.documents) if pair is other) for other in test]
    assert steps["any sentence"] == pytest.approx(np.mean([small.scores[d].mean() for d in at]))
    assert steps["first sentence"] == pytest.approx(np.mean([small.scores[d][0] for d in at]))
    assert steps["best sentence"] == pytest.approx(np.mean([small.scores[d].max() for d in at]))
    titles = [set(small.documents[d].title.split()) for d in at]
    by_name = [np.argmax([len(t & set(s)) for s in small.sentences[d]]) for d, t in zip(at, titles)]
    assert steps["overlap with name"] == pytest.approx(np.mean([small.scores[d][k] for d, k in zip(at, by_name)]))
    ranks = [int(np.argmax(summarization.textrank(small.sentences[d]))) for d in at]
    assert steps["TextRank"] == pytest.approx(np.mean([small.scores[d][k] for d, k in zip(at, ranks)]))
    assert steps["linear model"] > steps["any sentence"] + 0.2  # only one sentence says "indeed"


def test_folds_know_their_training_set_too_well(small):
    result = summarization.folds(small, 0, documents=30)
    names = ["in sample", "out of fold, by document", "out of fold, by module", "test"]
    assert list(result.score) == list(result.coverage) == names
    assert all(0 < value <= 1 for part in (result.score, result.coverage) for value in part.values())
    train, _ = summarization.split_by_module(small.documents, 0)
    everything = summarization.folds(small, 0, documents=len(train))
    fewer = summarization.folds(small, 0, documents=8, n_splits=2)
    best = np.mean([small.scores[n].max() for n, p in enumerate(small.documents) if any(p is other for other in train)])
    assert everything.score["in sample"] == pytest.approx(best, abs=0.05)  # "indeed" gives the best sentence away
    assert everything.score["out of fold, by module"] > 0.9 * best
    assert fewer.score["test"] <= everything.score["test"]
    found = {name: value for name, value in everything.coverage.items() if name != "test"}
    assert min(found.values()) > 0.9  # and it holds every word of the summary


def test_generation_data_cuts_and_counts():
    pairs = small_pairs()
    bpe = summarization.train_bpe([pair.source for pair in pairs], 120)
    data = summarization.generation_data(pairs, bpe, 0, train=12, test=6, source=20, summary=23)
    assert (
        [len(part.sources) for part in (data.train, data.test)]
        == [len(data.train_pairs), len(data.test_pairs)]
        == [12, 6]
    )
    assert not {p.module for p in data.train_pairs} & {p.module for p in data.test_pairs}
    for part, kept in ((data.train, data.train_pairs), (data.test, data.test_pairs)):
        for ids, summary, pair in zip(part.sources, part.summaries, kept):
            assert list(ids) == bpe.encode(pair.source).ids[:20]
            assert list(summary) == bpe.encode(pair.summary).ids
    with pytest.raises(ValueError, match="wanted 6 pairs with a summary of at most 2 tokens, found 0"):
        summarization.generation_data(pairs, bpe, 0, train=6, test=6, summary=2)


def test_texts_are_judged_by_score_and_rare_words():
    pair = lambda summary, source: summarization.Pair("a.b.c.d", summary, [source], [])  # noqa: E731
    bpe = summarization.train_bpe(["common rare other words here"] * 9, 200)
    encode = lambda text: bpe.encode(text).ids  # noqa: E731
    train = [pair("common words", "x")] * 3 + [pair("rare", "x")]
    test = [pair("common rare words", "x"), pair("rare other", "x")]
    sources = ["common rare here", "here"]
    rows = summarization.make_rows([encode(s) for s in sources], [encode(p.summary) for p in test])
    data = _summarization_experiments.GenerationData(bpe, rows, rows, train, test)
    judged = summarization.judge(["common rare", "rare other"], data, rare_below=2)
    assert judged["rare words"] == 1  # "rare" of the first: "common" is not rare, and the second source holds neither
    assert judged["rare recall"] == 1
    assert judged["score"] == pytest.approx((rouge(["common", "rare"], ["common", "rare", "words"]).combined + 1) / 2)
    assert summarization.judge(["common", "here"], data, rare_below=2)["rare recall"] == 0
    assert summarization.judge(["common", "here"], data, rare_below=4)["rare words"] == 2
    assert summarization.judge(["", ""], data, rare_below=1) == {"score": 0.0, "rare recall": 0.0, "rare words": 0}


def test_a_tagger_learns_the_sentence_that_says_indeed_and_leaves_the_generator_alone(small):
    state = torch.get_rng_state()
    scores = [
        summarization.tagger_score(small, 0, convolutions=c, epochs=e) for c, e in ((True, 60), (False, 60), (True, 1))
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert summarization.tagger_score(small, 0, epochs=1) == scores[2]
    any_sentence = summarization.ladder(small, 0)["any sentence"]
    assert min(scores[:2]) > any_sentence + 0.1
    assert scores[0] != scores[2]


def test_counts_of_words_are_logarithmic_and_names_without_words_share_nothing():
    sentences = ["one one one two.", "one two.", "three.", "four."]
    (data, nameless) = (
        summarization.extraction_data([summarization.Pair(name, "one", sentences, [])])
        for name in ("a.b.c.one", "a.b.c._")
    )
    row = data.features[0, :-4].toarray()[0]
    plain = data.features[1, :-4].toarray()[0]
    places = [n for n in range(len(row)) if plain[n]]  # one, one two, two
    assert len(places) == 3
    assert max(row[places] / plain[places]) / min(row[places] / plain[places]) == pytest.approx(1 + math.log(3))
    assert (nameless.features[:, -1].toarray() == 0).all()


def test_one_run_for_each_loss_from_the_same_start():
    pairs = small_pairs()
    bpe = summarization.train_bpe([pair.source for pair in pairs], 120)
    plain, sparse, again = summarization.generation_run(pairs, bpe, 0, steps=2, test=5, ks=(None, 2, None))
    np.testing.assert_array_equal(plain.plain, again.plain)
    assert np.abs(plain.plain - sparse.plain).max() > 1e-5
    data = summarization.generation_data(pairs, bpe, 0, train=32, test=5)
    known = [token for ids in data.train.summaries for token in [*ids, summarization.END]]
    assert plain.seen.tolist() == [known.count(token) for token in plain.token.tolist()]


def test_sources_of_the_toy_hold_every_token_but_the_end():
    seen = {token for seed in range(20) for token in summarization.toy_decoder(seed)[0]}
    assert seen == {1, 2, 3, 4, 5, 6}


def test_a_text_has_24_tokens_at_most():
    pairs = small_pairs()
    bpe = summarization.train_bpe([pair.source for pair in pairs], 120)
    data = summarization.generation_data(pairs, bpe, 0, train=4, test=3)
    word = bpe.encode("alpha").ids[0]

    class Chatterbox:
        def stepper(self, prompt):
            logits = torch.zeros(1, 120).index_fill_(1, torch.tensor([word]), 9.0)
            return lambda prefixes, parents: (logits.expand(len(prefixes), -1), torch.zeros(len(prefixes), 3))

    texts = summarization.decode(Chatterbox(), data, "none", count=2)
    assert texts == [bpe.decode([word] * 24)] * 2


def test_half_of_the_rare_words():
    pair = lambda summary, source: summarization.Pair("a.b.c.d", summary, [source], [])  # noqa: E731
    bpe = summarization.train_bpe(["rare seldom other"] * 9, 100)
    ids = bpe.encode("rare seldom other").ids
    rows = summarization.make_rows([ids], [ids])
    data = _summarization_experiments.GenerationData(bpe, rows, rows, [], [pair("rare seldom", "x")])
    assert summarization.judge(["rare"], data)["rare recall"] == 0.5


def test_the_tagger_is_that_of_the_article_and_depends_on_its_seed_alone(small, monkeypatch):
    made, plain = [], _summarization_experiments.ExtractiveTagger
    monkeypatch.setattr(
        _summarization_experiments, "ExtractiveTagger", lambda *given: made.append(given) or plain(*given)
    )
    monkeypatch.setattr(_summarization_experiments.ExtractionData, "pick", lambda self, where, values, what: values)
    values = []
    for state, seed, convolutions in ((1, 0, True), (2, 0, True), (1, 1, True), (1, 0, False)):
        torch.manual_seed(state)
        values.append(summarization.tagger_score(small, seed, convolutions=convolutions, epochs=1))
    assert np.array_equal(values[0], values[1])
    assert values[0].shape != values[2].shape or not np.array_equal(values[0], values[2])
    assert made[0] == (68, 32, (1, 2, 4, 8, 1, 1))  # the dilations of the article
    assert made[3] == (68, 32, ())


@pytest.mark.parametrize("tokens", [{1, 2}, iter([1, 2]), "one two"])
def test_what_is_no_sequence_of_tokens_is_refused(tokens):
    with pytest.raises(TypeError, match="tokens"):
        rouge(tokens, ["one"])
    with pytest.raises(TypeError, match="tokens"):
        summarization.textrank([["one"], tokens])


def test_a_gated_convolution_starts_as_the_identity_and_gates_by_a_sigmoid():
    from explainers._summarization_models import _GatedConvolution

    layer = _GatedConvolution(4, 3, 2, 0.0)
    x, mask = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 9, 1)
    torch.testing.assert_close(layer(x, mask), x, rtol=0, atol=0)
    with torch.no_grad():
        layer.alpha.fill_(0.5)
        value, gate = layer.convolution(x.mT).mT.split(4, -1)
        expected = x + F.layer_norm(value / (1 + torch.exp(-gate)), (4,)) / 2
    torch.testing.assert_close(layer(x, mask), expected)


def test_rows_pass_the_method_and_the_least_length_on():
    source, summary = [7, 8, 9, 10], [9, 10, 7]
    for options in ({}, {"method": "fragments"}, {"method": "fragments", "min_length": 1}):
        (tags,) = summarization.make_rows([source], [summary], **options).tags.tolist()
        x, y = copy_tags(source, summary, **({"method": "lcs", "min_length": 2} | options))
        assert tags == [*x, 0, *y, 0][1:] + [-100]


def test_training_passes_its_settings_on(model, monkeypatch):
    given = {}
    monkeypatch.setattr("explainers.training.fit", lambda *positional, **named: given.update(named))
    rows = summarization.make_rows([[7, 8], [9]], [[8], [9]])
    summarization.fit_summarizer(model, rows, steps=100, seed=3)
    assert given == {
        "steps": 100, "lr": 5e-3, "schedule": "linear", "warmup": 50, "weight_decay": 0.01, "seed": 3
    }  # fmt: skip
    summarization.fit_summarizer(model, rows, steps=10, seed=3, lr=0.25, warmup=4, schedule="cosine")
    assert (given["lr"], given["warmup"], given["schedule"]) == (0.25, 4, "cosine")
    summarization.fit_summarizer(model, rows, steps=10, seed=3)
    assert given["warmup"] == 9  # shorter than the run
    for noise in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"noise must lie in \[0, 1\)"):
            summarization.fit_summarizer(model, rows, steps=10, seed=3, noise=noise)


def test_noise_replaces_words_by_words_of_their_row():
    from explainers._summarization_models import _disturb

    tokens = torch.tensor([[5, 6, 1, 7, 8, 2, 0, 0], [11, 12, 13, 14, 1, 15, 16, 2]]).repeat(500, 1)
    lengths = torch.tensor([6, 8]).repeat(500)
    found = _disturb(tokens, lengths, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(found <= 2, tokens <= 2)  # padding, separator and end stay where they are
    for row, own in ((0, {5, 6, 7, 8}), (1, {11, 12, 13, 14, 15, 16})):
        assert set(found[row::2].flatten().tolist()) - {0, 1, 2} == own
    changed = (found != tokens)[tokens > 2].double().mean()
    assert 0.5 * 4 / 6 * 3 / 4 - 0.06 < changed < 0.5 * 6 / 8 * 5 / 6 + 0.06
    assert torch.equal(_disturb(tokens, lengths, 0.0, torch.Generator()), tokens)


def test_new_words_are_drawn_by_their_generator(model):
    draw = lambda: summarization.add_words(model, [[7, 8], [9]], generator=torch.Generator().manual_seed(4))  # noqa: E731
    assert torch.equal(draw().transformer.tokens, draw().transformer.tokens)
    many = summarization.add_words(model, [[7]] * 4000, generator=torch.Generator().manual_seed(4))
    scale = float(many.transformer.tokens[20:].detach().std() / model.transformer.tokens.detach().std())
    assert scale == pytest.approx(1, abs=0.02)
