"""Tests of explainers.summarization on cases worked by hand: borders, defaults, odd shapes, rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from explainers import summarization
from explainers._summarization_copy import mix
from explainers._summarization_models import _disturb
from explainers.corpus import Doc
from explainers.summarization import CopyIndex, SparseRisk, beam_search, copy_mixture, copy_tags, rouge, sparse_risk
from explainers.transformer import TokenTransformer

# --- Sparse softmax -----------------------------------------------------------------------------------------------


def test_one_row_of_logits_has_one_target():
    loss = summarization.sparse_cross_entropy(torch.tensor([2.0, 1.0, 2.0, 0.0]), torch.tensor(0), 2)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(2))
    hidden, weight = torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 5.0], [1.0, 5.0], [2.0, 5.0], [0.0, 5.0]])
    loss = summarization.linear_sparse_cross_entropy(hidden, weight, None, torch.tensor(0), 2)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(2))


def test_what_has_no_axis_of_classes_or_no_width_is_refused():
    with pytest.raises(ValueError, match=r"logits \(\) need a target \(\), got \(\)"):
        summarization.sparse_cross_entropy(torch.tensor(1.0), torch.tensor(0), 1)
    for hidden, weight in (((), (5, 3)), ((4, 3), (3,)), ((4, 3), (5, 3, 2)), ((4, 3), (3, 5))):
        with pytest.raises(ValueError, match="must share the width"):
            summarization.linear_sparse_cross_entropy(
                torch.zeros(hidden), torch.zeros(weight), None, torch.zeros(hidden[:-1], dtype=torch.long), 1
            )
    with pytest.raises(ValueError, match=r"hidden \(4, 3\) needs a target \(4,\), got \(2, 2\)"):
        summarization.linear_sparse_cross_entropy(
            torch.zeros(4, 3), torch.zeros(5, 3), None, torch.zeros(2, 2, dtype=torch.long), 1
        )


def test_what_is_no_floating_point_tensor_is_refused_by_its_kind():
    whole, part, target = torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long)
    for bad, kind in ((whole, "torch.int64"), ([[0.0, 0.0]] * 2, "list")):
        for name, call in (
            ("logits", lambda bad=bad: summarization.sparse_softmax(bad, 1)),
            ("logits", lambda bad=bad: summarization.sparse_cross_entropy(bad, target, 1)),
            ("hidden", lambda bad=bad: summarization.linear_sparse_cross_entropy(bad, part, None, target, 1)),
            ("weight", lambda bad=bad: summarization.linear_sparse_cross_entropy(part, bad, None, target, 1)),
        ):
            with pytest.raises(TypeError, match=f"{name} must be a floating-point tensor, got {kind}"):
                call()
    with pytest.raises(TypeError, match="target must hold integer classes, got torch.complex64"):
        summarization.sparse_cross_entropy(part, torch.zeros(2, dtype=torch.complex64), 1)


def test_many_rows_of_few_classes_and_integers_of_numpy():
    logits = torch.linspace(0, 1, 300)[:, None] * torch.arange(12.0)
    target = torch.arange(300) % 12
    loss = summarization.sparse_cross_entropy(logits, target, np.int64(1), reduction="none")
    torch.testing.assert_close(loss, logits[:, 11] - logits[torch.arange(300), target])
    assert summarization.sparse_softmax(torch.tensor([1.0, 2.0]), np.int32(1)).tolist() == [0, 1]


@pytest.mark.parametrize("learned", [(0,), (1,), (2,), (1, 2), (0, 2)])
def test_linear_version_gives_gradients_to_those_that_learn(learned):
    generator = torch.Generator().manual_seed(3)
    ours = [torch.randn(size, generator=generator) for size in ((4, 3), (6, 3), (6,))]
    plain = [part.clone() for part in ours]
    for at in learned:
        ours[at].requires_grad_()
        plain[at].requires_grad_()
    target = torch.tensor([0, 5, 2, 2])
    summarization.linear_sparse_cross_entropy(*ours, target, 6).backward()
    F.cross_entropy(F.linear(*plain), target).backward()
    for at in range(3):
        assert (ours[at].grad is None) == (at not in learned)
        if at in learned:
            torch.testing.assert_close(ours[at].grad, plain[at].grad)


def test_the_losses_are_differentiable_once():
    logits = torch.randn(3, 5, requires_grad=True)
    weight = torch.eye(5, requires_grad=True)
    for loss in (
        summarization.sparse_cross_entropy(logits, torch.tensor([0, 1, 2]), 2),
        summarization.linear_sparse_cross_entropy(logits, weight, None, torch.tensor([0, 1, 2]), 2),
    ):
        (gradient,) = torch.autograd.grad(loss * loss, logits, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def test_gap_of_one_loss_and_of_several():
    assert summarization.logit_gap(np.int64(2), math.log(2)) == pytest.approx(0, abs=1e-12)
    assert type(summarization.logit_gap(3, 0.5)) is float
    found = summarization.logit_gap(3, [[0.5, 1.0]])
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found, [[math.log(2 / math.expm1(0.5)), math.log(2 / math.expm1(1.0))]])


def test_the_level_is_the_kth_probability_if_there_are_k():
    entropy = -sum(x * math.log(x) for x in (0.5, 0.3, 0.2))
    assert sparse_risk([0.3, 0.5, 0.2], 3) == SparseRisk(pytest.approx(entropy), 2, pytest.approx(0.2))
    assert sparse_risk([0.3, 0.5, 0.2, 0.0], 4) == SparseRisk(pytest.approx(entropy), 3, 0.0)
    for n in range(2, 60):
        assert sparse_risk(np.full(n, 1 / n), n) == SparseRisk(pytest.approx(math.log(n)), 0, pytest.approx(1 / n))


@pytest.mark.parametrize("tiny", [1e-17, 1e-20, 1e-300, 5e-324])
def test_probabilities_below_the_rounding_of_one_count(tiny):
    assert sparse_risk([1.0, tiny], 2) == SparseRisk(pytest.approx(0, abs=1e-15), 1, tiny)
    two = sparse_risk([0.5, 0.5, tiny, tiny], 3)
    assert two == SparseRisk(pytest.approx(math.log(2)), 2, 2 * tiny)
    assert sparse_risk([tiny, 1.0], 1) == SparseRisk(pytest.approx(0, abs=1e-15), 0, pytest.approx(1))


def test_a_sum_may_miss_one_by_a_millionth():
    for miss in (-9e-7, 9e-7):
        assert sparse_risk([0.5, 0.5 + miss], 2).risk == pytest.approx(math.log(2), abs=1e-5)
    for miss in (-2e-6, 2e-6):
        with pytest.raises(ValueError, match=r"q must be a distribution.*got shape \(2,\)"):
            sparse_risk([0.5, 0.5 + miss], 2)


# --- Metric -------------------------------------------------------------------------------------------------------


def test_nothing_scores_a_plain_zero():
    for candidate, reference in (([], ["a"]), (["a"], []), ([], ["a", "b", "c"]), (["a"], ["b"])):
        assert repr(rouge(candidate, reference)) == "Rouge(rouge1=0.0, rouge2=0.0, rougeL=0.0)"


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (r"sentences\[0\]", lambda: summarization.match_labels(["a b"], [["a"]])),
        (r"summary_sentences\[0\]", lambda: summarization.match_labels([["a"]], ["a b"])),
        ("summary_sentences", lambda: summarization.match_labels([["a"]], "a b")),
        ("reference", lambda: summarization.greedy_labels([], "a b")),
        ("sentences", lambda: summarization.greedy_labels("a b", ["a"])),
        ("sentences", lambda: summarization.textrank("a b")),
        (r"sentences\[1\]", lambda: summarization.textrank([["a"], "a b"])),
        ("source", lambda: copy_tags("a b", ["a"], method="fragments")),
        ("target", lambda: copy_tags(["a"], "a b", method="fragments")),
        ("source", lambda: CopyIndex("a b")),
    ],
)
def test_a_string_is_refused_by_its_name(name, call):
    with pytest.raises(TypeError, match=f"^{name} must be a sequence of tokens, got the str 'a b'"):
        call()


def stationary(weights, damping):
    """Solve for the ranks of a damped walk over similarities, all of them at once."""
    n = len(weights)
    walk = np.array(weights, dtype=float)
    walk /= walk.sum(1, keepdims=True)
    return np.linalg.solve(np.eye(n) - damping * walk.T, np.full(n, (1 - damping) / n))


def test_ranks_of_short_and_empty_sentences():
    sentences = [["a"], ["a"], ["a", "b"], ["b", "c", "c", "d"], []]
    two, three, four, six = math.log(2), math.log(8), math.log(4), math.log(16)
    weights = [
        [1, 1, 1 / two, 0, 0],  # two sentences of one word: their count itself
        [1, 1, 1 / two, 0, 0],
        [1 / two, 1 / two, 2 / four, 1 / three, 0],
        [0, 0, 1 / three, 6 / six, 0],
        [1, 1, 1, 1, 1],  # leads anywhere
    ]
    np.testing.assert_allclose(summarization.textrank(sentences, tol=1e-13), stationary(weights, 0.85), atol=1e-10)
    found = summarization.textrank(sentences, damping=0.5, tol=1e-13)
    np.testing.assert_allclose(found, stationary(weights, 0.5), atol=1e-10)
    assert np.array_equal(summarization.textrank(sentences), summarization.textrank(sentences, 0.85, 1e-6))


def test_the_walk_stops_when_the_ranks_move_by_no_more_than_the_tolerance():
    sentences, first = [["a"], ["b"], ["c"], []], [0.28125, 0.28125, 0.28125, 0.15625]
    moved = float(np.linalg.norm(np.array(first) - 0.25))
    assert summarization.textrank(sentences, 0.5, moved).tolist() == first
    assert summarization.textrank(sentences, 0.5, np.nextafter(moved, 0)).tolist() != first


# --- Copying ------------------------------------------------------------------------------------------------------


def test_a_fragment_is_the_longest_match_at_its_first_place():
    fragments = lambda source, target: copy_tags(list(source), list(target), method="fragments")  # noqa: E731
    assert fragments("abxab", "ab") == ([1, 2, 0, 0, 0], [1, 2])
    assert fragments("abcab", "abc") == ([1, 2, 2, 0, 0], [1, 2, 2])
    assert fragments("ababc", "abc") == ([0, 0, 1, 2, 2], [1, 2, 2])
    assert fragments("xabcde", "cde") == ([0, 0, 0, 1, 2, 2], [1, 2, 2])


def steady(logits, tags):
    """Return a step that gives the same logits everywhere."""
    rows = torch.tensor(logits), torch.tensor(tags)
    return lambda prefixes, parents: tuple(row.expand(len(prefixes), -1) for row in rows)


def test_the_most_probable_of_the_available_tags_restricts():
    for tags, tokens, found in (
        ([9.0, 5.0, 0.0], (3, 3), (0, 0)),  # O: any token
        ([5.0, 9.0, 0.0], (2, 2), (1, 1)),  # B: a token of the source
        ([0.0, 5.0, 9.0], (2, 1), (1, 2)),  # I, where there is a span to continue
        ([5.0, 0.0, 9.0], (3, 3), (0, 0)),  # I without a span, then O before B
    ):
        step = steady([0.0, 1.0, 2.0, 3.0], tags)
        (best,) = beam_search(step, [2, 1], end=0, beam=1, max_length=2, copy="argmax")
        assert (best.tokens, best.tags) == (tokens, found)
        (stale,) = summarization.stale_beam_search(step, [2, 1], end=0, beam=1, max_length=2)
        assert (stale.tokens, stale.tags) == (tokens, found)


def test_without_copies_both_searches_are_one():
    ends = 0
    for seed in range(8):
        source, inner = summarization.toy_decoder(seed, never_end=False)

        def step(prefixes, parents, inner=inner):
            logits, _ = inner(prefixes, parents)
            return logits, torch.tensor([9.0, 0.0, 0.0]).expand(len(prefixes), 3)

        plain = beam_search(step, source, end=0, beam=3, max_length=5)
        stale = summarization.stale_beam_search(step, source, end=0, beam=3, max_length=5)
        assert stale == plain == beam_search(step, source, end=0, beam=3, max_length=5, copy="argmax")
        assert [path.score for path in plain] == sorted((path.score for path in plain), reverse=True)
        ends += sum(len(path.tokens) < 5 for path in plain)
    assert ends


@pytest.mark.parametrize("search", [beam_search, summarization.stale_beam_search])
def test_four_hypotheses_of_32_tokens_by_default(search):
    step = steady([-9.0, 0.1, 0.2, 0.3, 0.4, 0.5], [9.0, 0.0, 0.0])
    found = search(step, [1], end=0)
    assert [len(path.tokens) for path in found] == [32] * 4
    assert found == search(step, [1], end=0, beam=4, max_length=32)


def test_a_batch_of_mixtures_is_its_rows_with_finite_gradients():
    generator = torch.Generator().manual_seed(0)
    logits, tags = torch.randn(3, 5, generator=generator), torch.randn(3, 3, generator=generator)
    index = CopyIndex([1, 2])
    states = [index.start, index.extend(index.start, 1), index.extend(index.start, 2)]  # nothing follows the last
    in_source = torch.tensor([[False, True, True, False, False]] * 3)
    continues = torch.tensor([[n in index.continuations(state) for n in range(5)] for state in states])
    logits.requires_grad_()
    tags.requires_grad_()
    found = mix(logits, tags, in_source, continues)
    for row, state in enumerate(states):
        torch.testing.assert_close(found[row], copy_mixture(logits[row], tags[row], index, state))
    found[:, 1].sum().backward()
    assert logits.grad.isfinite().all()
    assert tags.grad.isfinite().all()
    empty = torch.zeros(3, 5, dtype=torch.bool)
    torch.testing.assert_close(mix(logits, tags, empty, empty), logits.log_softmax(-1))


def test_k_keeps_the_most_probable_tokens_after_the_restriction():
    step = steady([0.0, 1.0, 2.0, 3.0], [0.0, 9.0, 0.0])
    found = beam_search(step, [1, 2], end=0, beam=4, max_length=1, copy="argmax", k=1)
    assert [(path.tokens, path.score) for path in found] == [((2,), 0.0)]
    for k in (2, 3, 4, 5):
        found = beam_search(steady([0.0, 1.0, 2.0, 3.0], [0.0] * 3), [1], end=9, beam=4, max_length=1, k=k)
        kept = [3, 2, 1, 0][:k]
        assert [path.tokens for path in found] == [(token,) for token in kept]
        expected = torch.tensor(kept).double().log_softmax(-1)
        assert [path.score for path in found] == pytest.approx(expected.tolist(), abs=1e-6)


# --- Networks -----------------------------------------------------------------------------------------------------


def test_the_default_tagger_is_the_articles():
    tagger = summarization.ExtractiveTagger(16)
    given = {"width": 64, "dilations": (1, 2, 4, 8, 1, 1), "kernel": 3, "dropout": 0.1}
    spelled = summarization.ExtractiveTagger(16, **given)
    assert repr(tagger) == repr(spelled)
    gates = 6 * (64 * 3 * 128 + 128 + 2 * 64 + 1)  # convolution and its bias, norm, alpha
    assert sum(part.numel() for part in tagger.parameters()) == 16 * 64 + 64 + gates + 64 + 1
    assert {part.p for part in tagger.modules() if isinstance(part, torch.nn.Dropout)} == {0.1}


def test_a_tagger_of_width_one_and_kernel_one_sees_one_sentence():
    tagger = summarization.ExtractiveTagger(1, 1, dilations=(1,), kernel=1).eval()
    assert tagger.receptive_field == 1
    mask = torch.tensor([[True, True, False]])
    assert tagger(torch.ones(1, 3, 1), mask)[0, 2] == 0  # behind the mask
    for given in ({"features": 0}, {"features": 1, "width": 0}, {"features": 1, "dilations": (2, 0)}):
        with pytest.raises(ValueError, match="features, width and dilations must be positive"):
            summarization.ExtractiveTagger(**given)


def test_mean_pool_over_one_position_and_over_none():
    hidden = torch.tensor([[[2.0], [4.0]]] * 2)
    mask = torch.tensor([[False, True], [False, False]])
    assert summarization.mean_pool(hidden, mask).tolist() == [[4.0], [0.0]]


def test_the_default_summarizer_and_its_start():
    seed = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    default, spelled = (summarization.Summarizer(9, *sizes, generator=seed()).eval() for sizes in ((), (2, 64, 4)))
    tokens, prefix = torch.tensor([[3, 4, 5, 6]]), torch.tensor([2])
    for a, b in zip(default(tokens, prefix), spelled(tokens, prefix)):
        assert torch.equal(a, b)
    generator = seed()
    table = TokenTransformer(9, 2, 64, 4, segments=2, generator=generator)
    for name, value in table.state_dict().items():
        assert torch.equal(default.transformer.state_dict()[name], value)
    expected = torch.randn(3, 64, generator=generator) / 8
    torch.testing.assert_close(default.tags.weight.detach(), expected)
    assert not default.tags.bias.any()


@pytest.fixture
def model():
    return summarization.Summarizer(20, layers=1, width=16, heads=2, generator=torch.Generator().manual_seed(0)).eval()


def test_a_prefix_may_be_empty_or_whole_but_not_negative(model):
    tokens = torch.tensor([[3, 4, 5]])
    (causal, _), (whole, _) = (model(tokens, torch.tensor([size])) for size in (0, 3))
    torch.testing.assert_close(causal[:, :2], model(tokens[:, :2], torch.tensor([0]))[0])
    assert not torch.allclose(causal[:, :2], whole[:, :2])
    for size in (-1, 4):
        with pytest.raises(ValueError, match=rf"prefix must lie in 0\.\.3, the length of a row, got \[{size}\]"):
            model(tokens, torch.tensor([size]))


def test_steps_record_no_gradient(model):
    recorded = []
    model.transformer.register_forward_hook(lambda *given: recorded.append(given[2].requires_grad))
    step = model.stepper(torch.tensor([3, 4, 1]))
    first = step(torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    second = step(torch.tensor([[5]]), torch.tensor([0]))
    assert not any(part.requires_grad for part in (*first, *second))
    assert recorded == [False, False]


def test_the_objective_is_token_loss_plus_tag_loss(model, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "explainers.training.fit", lambda model, objective, batches, **rest: given.update(f=objective, b=batches)
    )
    rows = summarization.make_rows([[7, 8, 9]] * 20, [[8, 9, 4]] * 20)
    summarization.fit_summarizer(model, rows, steps=1, seed=0)
    batch = next(iter(given["b"](torch.Generator().manual_seed(0))))
    assert [len(part) for part in batch] == [16] * 5
    assert torch.equal(batch[0], rows.tokens[:16])  # no noise
    logits, tags = model(rows.tokens[:1], rows.prefix[:1], rows.lengths[:1])
    expected = F.cross_entropy(logits[0, 3:7], torch.tensor([8, 9, 4, 2]))
    expected = expected + F.cross_entropy(tags[0, :7], rows.tags[0, :7])
    torch.testing.assert_close(given["f"](model, batch), expected)
    summarization.fit_summarizer(model, rows, steps=1, seed=0, loss=lambda logits, target: logits.sum() * 0)
    torch.testing.assert_close(given["f"](model, batch), F.cross_entropy(tags[0, :7], rows.tags[0, :7]))


def test_noise_by_hand(monkeypatch):
    tokens, draws = torch.tensor([[5, 6, 7, 1, 8, 2, 0]]), []
    places = torch.tensor([[4.5, 0.5, 3.5, 0.5, 5.5, 1.5, 0.5]]) / 6  # 8, 5, separator, 5, end, 6, 5
    chances = torch.tensor([[0.05, 0.1, 0.05, 0.05, 0.05, 0.05, 0.0]])
    monkeypatch.setattr(
        torch, "rand", lambda shape, generator: draws.append(generator) or (places, chances)[len(draws) - 1]
    )
    generator = torch.Generator()
    found = _disturb(tokens, torch.tensor([6]), 0.1, generator)
    assert found.tolist() == [[8, 6, 7, 1, 8, 2, 0]]  # a draw of 0.1 misses; separator and end are no words
    assert draws == [generator, generator]


def test_without_noise_nothing_is_drawn():
    tokens, generator = torch.tensor([[5, 6, 1, 7, 2]]), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(_disturb(tokens, torch.tensor([5]), 0.0, generator), tokens)
    assert torch.equal(generator.get_state(), before)


def allowed(masks):
    """Return the tokens that a boolean mask holds, row by row."""
    return [[row.nonzero().ravel().tolist() for row in part] for part in masks]


def test_masks_by_hand():
    # 7 8 stands twice in the first source: the tags follow 7 8 9, the longest suffix 8 goes on with 9 and 5
    rows = summarization.make_rows([[7, 8, 9, 8, 5], [4]], [[7, 8, 9], [6]])
    assert rows.tags[0, 5:9].tolist() == [1, 2, 2, 0]
    masks = summarization.copy_masks(rows, 10)
    assert allowed([masks.in_source]) == [[[5, 7, 8, 9], [4]]]
    assert masks.continues.shape == masks.span.shape == (2, 4, 10)
    every = [5, 7, 8, 9]
    assert allowed(masks.continues) == [[every, [8], [9], [8]], [[4], [4], [], []]]
    assert allowed(masks.span) == [[every, [8], [9], [8]], [[4], [4], [], []]]
    # B where the tags begin a new run, though the suffix goes on
    rows = summarization.make_rows([[7, 8, 5, 8, 9]], [[8, 9, 7]], method="fragments", min_length=1)
    assert rows.tags[0, 5:].tolist() == [1, 2, 1, 0, -100]
    masks = summarization.copy_masks(rows, 10)
    assert allowed(masks.span) == [[[5, 7, 8, 9], [5, 9], [], [8]]]
    rows.tags[0, 5:9] = torch.tensor([1, 1, 0, 0])
    masks = summarization.copy_masks(rows, 10)
    assert allowed(masks.span) == [[[5, 7, 8, 9], [5, 9], [], [5, 7, 8, 9]]]
    assert allowed(masks.continues) == [[[5, 7, 8, 9], [5, 9], [], [8]]]


def test_each_column_of_what_is_held_out(model):
    rows = summarization.make_rows([[7, 8, 9], [5, 6], [4]], [[8, 9, 4], [6, 5], [4]])
    masks = summarization.copy_masks(rows, 20)
    judged = summarization.held_out(model, rows, masks, batch=2)
    logits, _ = model(rows.tokens, rows.prefix, rows.lengths)
    at = 0
    for row, summary in enumerate(rows.summaries):
        for t, token in enumerate([*summary, 2]):
            place = len(rows.sources[row]) + t
            p = logits[row, place].double().softmax(-1).detach().numpy()
            tag = int(rows.tags[row, place])
            span = masks.span[row, t].numpy()
            inside = {0: np.ones(20, dtype=bool), 1: masks.in_source[row].numpy(), 2: span}[tag]
            assert (judged.row[at], judged.token[at], judged.tag[at]) == (row, token, tag)
            assert judged.first[at] == (p.argmax() == token)
            assert judged.first_given_tag[at] == ((p * inside).argmax() == token)
            assert judged.gain[at] == pytest.approx(-np.log(p[inside].sum()), abs=1e-5)
            assert judged.restricted[at] == pytest.approx(np.log(p[token] / p[inside].sum()), abs=1e-5)
            expected = np.log(p[token] / p[span].sum()) if span[token] else -np.inf
            assert judged.restricted_to_span[at] == pytest.approx(expected, abs=1e-5)
            assert judged.top_mass[at] == pytest.approx(np.sort(p)[-10:].sum(), abs=1e-5)
            assert judged.largest[at] == pytest.approx(p.max(), abs=1e-5)
            at += 1
    assert at == len(judged.plain) == 9
    assert judged.seen is None
    assert np.isneginf(judged.restricted_to_span).any()
    assert judged.first_given_tag.any()
    assert not judged.first_given_tag.all()


# --- Data ---------------------------------------------------------------------------------------------------------


def test_the_summary_is_no_sentence_and_borders_of_lengths():
    doc = lambda summary, body: Doc("a.b.c.d", "a", "a.b", "function", True, summary, body, {}, (), "a.b.c.d")  # noqa: E731
    docs = [
        doc("Sum all four words.", "Sum all four words. Three words stay. Two leave. Not this: one."),
        doc("Only three words.", "They do not suffice."),
    ]
    (pair,) = summarization.docstring_pairs(docs)
    assert pair.sentences == ["Three words stay.", "Not this: one."]
    assert len(summarization.docstring_pairs(docs, min_words=3)) == 2


def test_white_space_around_a_sentence_is_cut():
    body = "  Leading blanks are cut. \nas are trailing ones \n\n  The rest stays. "
    doc = Doc("a.b.c.d", "a", "a.b", "function", True, "Sum all four words.", body, {}, (), "a.b.c.d")
    (pair,) = summarization.docstring_pairs([doc])
    assert pair.sentences == ["Leading blanks are cut.", "as are trailing ones", "The rest stays."]


def test_words_keep_their_numbers():
    assert summarization.words("The 12 values, 3.5.") == ["the", "12", "values", "3.5"]


def test_digits_are_tokens_of_their_own_and_the_alphabet_has_120_signs():
    bpe = summarization.train_bpe(["12 12 12 12 values values"] * 9, 60)
    assert [bpe.id_to_token(n) for n in bpe.encode("12").ids if bpe.id_to_token(n) != "▁"] in (
        ["▁", "1", "2"],
        ["1", "2"],
    )
    signs = [chr(0x4E00 + n) for n in range(150)]
    bpe = summarization.train_bpe([" ".join(signs)], 1000)
    assert sum(len(token) == 1 for token in bpe.get_vocab()) == 120
