"""The instruments of chapter realformer against SciPy, plain loops and their own laws."""

import copy
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch

from explainers import realformer
from explainers.transformer import Transformer, causal_mask

SEED = 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def model():
    return realformer.build("sum", SEED, 1.0, layers=3)


@pytest.fixture
def batch():
    tokens = torch.randint(97, (4, 13), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


# ---------------------------------------------------------------- accumulated scores


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("mask", [None, causal_mask(6)])
def test_one_fused_call_is_the_loop_with_its_gradients(mean, mask):
    q, k, v = random(4, 2, 3, 6, 8).requires_grad_(), random(4, 2, 3, 6, 8, seed=1).requires_grad_(), random(2, 3, 6, 5)
    total = sum(q[n] @ k[n].mT for n in range(4)) / 8**0.5 / (4 if mean else 1)
    expected = (total if mask is None else total.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    output = realformer.attend(q, k, v, mean=mean, mask=mask)
    assert torch.allclose(output, expected, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (q, k)) for out in (output, expected))):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("kind", ["none", "rows", "keys", "heads", "one row"])
def test_blocks_of_queries_do_not_show(kind):
    """More queries than one call takes, fewer keys, masks of every shape that broadcasts; values wider than n d."""
    size, keys = 2 * realformer.ROWS + 5, 40
    q, k, v = random(3, 2, 2, size, 4), random(3, 2, 2, keys, 4, seed=1), random(2, 2, keys, 20, seed=2)
    at, key = torch.arange(size), torch.arange(keys)
    mask = {
        "none": None,
        "rows": key <= at[:, None] // 4,
        "keys": key < 9,
        "heads": (key <= at[:, None]).expand(2, 2, size, keys) & (key != torch.arange(2)[:, None, None]),
        "one row": (key % 3 == 0)[None],
    }[kind]
    scores = sum(a @ b.mT for a, b in zip(q, k)) / 2
    expected = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    expected = expected.nan_to_num() @ v  # a row that may see nothing is zero, as in the fused call
    assert torch.allclose(realformer.attend(q, k, v, mask=mask), expected, atol=1e-12)


@pytest.mark.parametrize("size", [4, 40])
def test_attend_stores_no_scores(size):
    """PyTorch's kernel that stores none takes the call, with values narrower and wider than n d."""
    q, k, v = random(3, 2, 2, 40, 4), random(3, 2, 2, 40, 4, seed=1), random(2, 2, 40, size, seed=2)
    only = torch.nn.attention.SDPBackend.FLASH_ATTENTION
    with torch.nn.attention.sdpa_kernel(only):
        assert realformer.attend(q, k, v, mask=causal_mask(40)).shape == v.shape
    with torch.nn.attention.sdpa_kernel(only), pytest.warns(match="same last dimension"), pytest.raises(RuntimeError):
        torch.nn.functional.scaled_dot_product_attention(q[0], k[0], random(2, 2, 40, 9))


def test_accumulate_is_the_running_sum():
    q, k = random(3, 2, 5, 4), random(3, 2, 7, 4, seed=1)
    scores = realformer.accumulate(q, k)
    assert scores.shape == (3, 2, 5, 7)
    assert torch.allclose(scores[2] - scores[1], q[2] @ k[2].mT / 2)


@pytest.mark.parametrize("shape", [(2, 2, 5, 4), (3, 1, 5, 4), (3, 2, 5, 6), (2, 5, 4)])
def test_unequal_stacks_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(3, 2, 5, 4\)"):
        realformer.accumulate(random(3, 2, 5, 4), random(*shape))
    with pytest.raises(ValueError, match=r"\(3, 2, 5, 4\)"):
        realformer.attend(random(3, 2, 5, 4), random(*shape), random(2, 5, 4))


def test_a_value_of_another_length_is_refused():
    with pytest.raises(ValueError, match="value must have shape"):
        realformer.attend(random(3, 2, 5, 4), random(3, 2, 5, 4), random(2, 6, 4))


# ---------------------------------------------------------------- entropy and divergence


def test_entropy_is_scipys():
    p = random(5, 7).softmax(-1)
    assert np.allclose(realformer.entropy(p), scipy.stats.entropy(p, axis=-1) / np.log(7))
    visible = causal_mask(7)
    masked = random(7, 7).masked_fill(~visible, -torch.inf).softmax(-1)
    shares = realformer.entropy(masked, visible)
    assert shares[0].isnan()
    expected = scipy.stats.entropy(masked[1:], axis=-1) / np.log(np.arange(2, 8))
    assert np.allclose(shares[1:], expected)


def test_divergence_is_scipys_squared_distance():
    p, q = random(5, 7).softmax(-1), random(5, 7, seed=1).softmax(-1)
    expected = scipy.spatial.distance.jensenshannon(p, q, base=2, axis=-1) ** 2
    assert np.allclose(realformer.divergence(p, q), expected)
    assert (realformer.divergence(p, p) == 0).all()
    assert torch.equal(realformer.divergence(p, q), realformer.divergence(q, p))
    with pytest.raises(ValueError, match="shapes differ"):
        realformer.divergence(p, q[:3])


# ---------------------------------------------------------------- closed forms


def test_identity_share_composes():
    assert realformer.identity_share(5, 0.3) == pytest.approx(
        realformer.identity_share(2, 0.3) * realformer.identity_share(3, 0.3)
    )
    assert realformer.identity_share(99, norm="pre") == pytest.approx(0.1)
    assert realformer.identity_share([0, 3], 0.0).tolist() == [1, 1]


@pytest.mark.parametrize("arguments", [(-1,), ([0, -2],), (3, -0.1), (3, 1.0, "deep")])
def test_identity_share_refuses(arguments):
    with pytest.raises(ValueError, match="must"):
        realformer.identity_share(*arguments)


@pytest.mark.parametrize("kind", [None, "sum", "mean"])
def test_expected_entropy_is_that_of_random_scores(kind):
    scores = random(6, 400, 256, seed=2) * 0.3
    used = {None: scores[-1], "sum": scores.sum(0), "mean": scores.mean(0)}[kind]
    found = scipy.stats.entropy(used.softmax(-1), axis=-1).mean()
    assert found == pytest.approx(realformer.expected_entropy(256, 6, 0.3, kind), abs=0.012)


def test_expected_entropy_refuses():
    with pytest.raises(ValueError, match="kind must be"):
        realformer.expected_entropy(9, 1, 0.1, "max")
    with pytest.raises(ValueError, match="counts from 1"):
        realformer.expected_entropy(9, 0, 0.1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_random_branches_start_at_the_identity_and_repeat(norm):
    states, gradients = realformer.random_branches(3, 0.5, norm, width=64, rows=4, seed=1)
    again, _ = realformer.random_branches(3, 0.5, norm, width=64, rows=4, seed=1)
    assert states.shape == gradients.shape == (4, 4, 64)
    assert torch.equal(states, again)
    assert states[0].square().mean() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="norm must be"):
        realformer.random_branches(3, norm="deep")


# ---------------------------------------------------------------- instruments


@pytest.mark.parametrize("variant", ["post", "pre", "sum", "mean", "deep"])
def test_a_probe_leaves_no_trace_and_has_the_shapes(variant, batch):
    model = realformer.build(variant, SEED, layers=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = realformer.probe(model, *batch, mask=causal_mask(12))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    for name in ("rms", "identity", "similarity", "gradient", "gradient_identity"):
        assert getattr(found, name).shape == (4,)
    for name in ("query_key", "value", "feedforward", "entropy"):
        assert getattr(found, name).shape == (3,)
    assert found.divergence.shape == (2,)
    assert found.identity[0] == found.gradient_identity[-1] == pytest.approx(1)
    assert np.isfinite(np.concatenate(found[1:])).all()


def test_a_probe_measures_what_backward_would(model, batch):
    found = realformer.probe(model, *batch, mask=causal_mask(12))
    model.eval()
    hidden = model(batch[0], mask=causal_mask(12))
    loss = torch.nn.functional.cross_entropy(model.logits(hidden).reshape(-1, 97), batch[1].reshape(-1))
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    for at, layer in enumerate(model.stack.layers):
        assert found.query_key[at] == pytest.approx(layer.qkv.weight.grad[:64].norm().item(), rel=1e-4)
        assert found.value[at] == pytest.approx(layer.qkv.weight.grad[64:].norm().item(), rel=1e-4)
        both = torch.cat([layer.up.weight.grad.ravel(), layer.down.weight.grad.ravel()])
        assert found.feedforward[at] == pytest.approx(both.norm().item(), rel=1e-4)


def test_a_probe_of_a_pre_norm_stack_stops_before_the_final_norm(batch):
    model = realformer.build("pre", SEED, 1.0, layers=6)
    assert realformer.probe(model, *batch).rms[-1] > 1.5


def test_a_probe_ignores_targets_of_minus_100_and_refuses_other_shapes(model, batch):
    tokens, targets = batch
    masked = targets.clone()
    masked[:, 6:] = -100
    expected = realformer.probe(model, tokens[:, :6], targets[:, :6], mask=causal_mask(6)).loss
    assert realformer.probe(model, tokens, masked, mask=causal_mask(12)).loss == pytest.approx(expected, rel=1e-4)
    with pytest.raises((ValueError, RuntimeError)):
        realformer.probe(model, tokens, targets[:, :1])


def test_amplification_restores_the_weights_and_does_not_depend_on_a_small_epsilon():
    stack = Transformer(3, 16, 2, generator=torch.Generator().manual_seed(0)).double()
    x, before = random(2, 5, 16), [p.clone() for p in stack.parameters()]
    values = [realformer.amplification(stack, x, epsilon=e, seed=1) for e in (1e-3, 1e-4)]
    assert all(torch.equal(p, old) for p, old in zip(stack.parameters(), before))
    assert stack.training
    assert values[0] == pytest.approx(values[1], rel=0.02)
    assert values[0] != realformer.amplification(stack, x, seed=2)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        realformer.amplification(stack, x, epsilon=0)


# ---------------------------------------------------------------- the study


def test_symbols_cover_printable_text():
    assert len(realformer.SYMBOLS) == 96
    assert realformer.encode("~ é\t").tolist() == [95, 1, 96, 96]


def test_windows_are_stretches_of_the_text():
    text = torch.arange(50, dtype=torch.uint8)
    window = next(realformer.windows(text, batch=7)(torch.Generator().manual_seed(0)))
    assert window.shape == (7, 33)
    assert (window.diff(dim=1) == 1).all()


def test_training_learns_and_repeats():
    text = realformer.encode("a small text, again and again. " * 200)
    first, second = (realformer.train("pre", 0, text, steps=15, lr=0.01)[1] for _ in range(2))
    assert first.losses == second.losses
    assert first.losses[-1] < first.losses[0] - 0.5
    assert first.final < first.losses[0] - 0.5


def test_variants_share_their_first_weights_and_unknown_ones_are_refused():
    a, b = (realformer.build(variant, 5).state_dict() for variant in ("post", "sum"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(ValueError, match="post, pre, sum, mean, deep"):
        realformer.build("max", 0)


def test_heat_multiplies_the_first_scores_and_nothing_else(batch):
    plain, hot = (realformer.build("post", SEED, heat=heat).double() for heat in (1.0, 3.0))
    scores = [model.trace(batch[0]).scores[0] for model in (plain, hot)]
    assert torch.allclose(3 * scores[0], scores[1], atol=1e-6)
    same = ("tokens", "stack.layers.0.out.weight", "stack.layers.5.up.weight")
    assert all(torch.equal(plain.get_parameter(name), hot.get_parameter(name)) for name in same)
    assert torch.equal(plain.stack.layers[3].qkv.weight[64:], hot.stack.layers[3].qkv.weight[64:])
    with pytest.raises(ValueError, match="heat must be positive"):
        realformer.build("post", 0, heat=0)


def test_swapped_neighbours_come_back_and_leave_the_model_alone(batch):
    model = realformer.build("sum", SEED, 1.0, layers=4).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = realformer.swapped(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    order = (1, 0, 3, 2)
    for at, came_from in enumerate(order):
        assert torch.equal(other.stack.layers[at].up.weight, model.stack.layers[came_from].up.weight)
    assert not torch.allclose(other(batch[0]), model(batch[0]), atol=1e-3)
    assert torch.equal(realformer.swapped(other)(batch[0]), model(batch[0]))


@pytest.mark.parametrize("change", [realformer.swapped, realformer.paired])
def test_pre_norm_layers_without_branches_may_stand_anywhere(change, batch):
    model = realformer.build("pre", SEED, 1.0, layers=4).double()
    assert not torch.allclose(change(model)(batch[0]), model(batch[0]), atol=1e-3)
    with torch.no_grad():
        for layer in model.stack.layers[1::2]:
            layer.out.weight.zero_()
            layer.down.weight.zero_()
    assert torch.allclose(change(model)(batch[0]), model(batch[0]), atol=1e-12)


@pytest.mark.parametrize("variant", ["pre", "post"])
def test_paired_layers_add_what_they_change(variant):
    model = realformer.build(variant, SEED, 1.0, layers=2).double()
    x = random(2, 5, 32)
    alone = []
    for layer in model.stack.layers:
        single = Transformer(1, 32, 4, norm=variant).double()
        single.layers[0].load_state_dict(layer.state_dict())
        single.final_norm = None
        alone.append(single(x) - x)
    expected = x + alone[0] + alone[1]
    if variant == "post":
        expected = torch.nn.functional.layer_norm(expected, (32,))
    half = realformer.paired(model).stack
    half.final_norm = None
    assert len(half.layers) == 1
    assert torch.allclose(half(x), expected, atol=1e-12)


def test_neighbours_need_a_partner_and_no_mean_of_scores(batch):
    for model in (realformer.build("post", 0, layers=3), realformer.build("mean", 0)):
        for change in (realformer.swapped, realformer.paired):
            with pytest.raises(ValueError, match="even number of layers, and no mean"):
                change(model)
    for variant in ("post", "sum"):
        with pytest.raises(ValueError, match="side by side"):
            realformer.paired(realformer.build(variant, 0)).trace(batch[0])


# ---------------------------------------------------------------- drawings


@pytest.mark.parametrize("kind", ["post-norm", "pre-norm", "deep norm", "RealFormer"])
def test_the_line_of_a_wiring_never_runs_through_a_box(kind):
    fig, ax = plt.subplots()
    realformer.draw_wiring(ax, kind)
    boxes = [text.get_position()[1] for text in ax.texts if text.get_text() in ("norm", "attention", "+")]
    assert len(boxes) == 6
    spine = [line.get_ydata() for line in ax.lines if (np.asarray(line.get_xdata()) == 0).all()]
    assert len(spine) == 6
    assert not any(low < at < high for low, high in spine for at in boxes)
    words = {text.get_text() for text in ax.texts}
    assert ("raw scores" in words) == (kind == "RealFormer")
    assert ("× α" in words) == (kind == "deep norm")
    plt.close(fig)


def test_heads_are_drawn_layer_by_layer_without_the_future():
    fig, axes = plt.subplots(2, 3)
    layers = [torch.full((4, 4), 0.25 * n).tril() for n in (1, 2, 3)]
    realformer.draw_heads(axes, {"a": layers, "b": layers[::-1]}, rows_each=1)
    image = axes[1, 0].images[0].get_array()
    assert np.allclose(image.compressed(), 0.75**0.5)
    assert image.mask.sum() == 6
    assert [ax.get_title() for ax in axes.flat] == ["a, 1", "2", "3", "b, 1", "2", "3"]
    plt.close(fig)


# ---------------------------------------------------------------- found by `make mutate`


def test_identity_share_of_branches_of_another_variance():
    assert realformer.identity_share(3, 0.5, "pre") == pytest.approx(2.5**-0.5)
    assert realformer.identity_share(4, 0.5, "post") == pytest.approx(1.5**-2)


def test_similarity_is_the_share_of_the_common_mean(model, batch):
    found = realformer.probe(model, *batch, mask=causal_mask(12))
    for share, rms, x in zip(found.similarity, found.rms, model.trace(batch[0], mask=causal_mask(12)).hidden):
        vectors = x.detach().reshape(-1, 32).numpy()
        assert share == pytest.approx((vectors.mean(0) ** 2).sum() / (vectors**2).sum(1).mean(), rel=1e-4)
        assert rms == pytest.approx(np.sqrt((vectors**2).mean()), rel=1e-5)


def test_amplification_is_relative_and_respects_the_mask():
    stack = Transformer(2, 16, 2, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in stack.parameters():
            if parameter.ndim == 1:
                parameter.add_(2)  # the output's mean square is far from 1
    x, mask, draw = random(2, 5, 16), causal_mask(5), torch.Generator().manual_seed(4)
    moved = copy.deepcopy(stack)
    with torch.no_grad():
        for p in (p for p in moved.parameters() if p.ndim == 2):
            p += 0.01 * p.square().mean().sqrt() * torch.randn(p.shape, generator=draw, dtype=p.dtype)
        old, new = stack(x, mask=mask), moved(x, mask=mask)
    expected = float((new - old).square().sum() / old.square().sum()) / 1e-4
    assert realformer.amplification(stack, x, mask=mask, epsilon=0.01, seed=4) == pytest.approx(expected, rel=1e-9)
    assert abs(expected - realformer.amplification(stack, x, epsilon=0.01, seed=4)) > 1e-3 * expected


def test_gain_reaches_the_matrices_and_defaults_to_a_half():
    full, half = (realformer.build("post", 3, **gain).stack.layers[0] for gain in ({"gain": 1.0}, {}))
    assert torch.allclose(full.qkv.weight, 2 * half.qkv.weight)


def test_training_passes_its_options_on(monkeypatch):
    given = {}
    monkeypatch.setattr(realformer.training, "fit", lambda *positional, **named: given.update(named))
    text = realformer.encode("a small text, again and again. " * 200)
    model, _ = realformer.train("pre", 7, text, steps=2, lr=0.25, warmup=1, gain=1.0, heat=4.0)
    assert {name: given[name] for name in ("steps", "lr", "warmup", "seed")} == {
        "steps": 2, "lr": 0.25, "warmup": 1, "seed": 7
    }  # fmt: skip
    assert torch.equal(
        model.stack.layers[0].qkv.weight, realformer.build("pre", 7, 1.0, heat=4.0).stack.layers[0].qkv.weight
    )


def test_defaults_of_amplification_and_training(monkeypatch):
    stack = Transformer(1, 8, 2, generator=torch.Generator().manual_seed(0)).double()
    x = random(1, 3, 8)
    assert realformer.amplification(stack, x) == realformer.amplification(stack, x, epsilon=1e-3, seed=0)
    given = {}
    monkeypatch.setattr(realformer.training, "fit", lambda *positional, **named: given.update(named))
    model, _ = realformer.train("post", 5, realformer.encode("a small text, again. " * 400))
    assert torch.equal(model.stack.layers[0].qkv.weight, realformer.build("post", 5, 0.5).stack.layers[0].qkv.weight)
    assert (given["steps"], given["lr"], given["warmup"]) == (150, 3e-3, 0)


# ---------------------------------------------------------------- found by the complete run of `make mutate`


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("extra", [0, 5])
def test_attend_takes_any_leading_axes_and_any_number_of_blocks(lead, extra):
    size = realformer.ROWS + extra
    q, k, v = random(2, *lead, size, 4), random(2, *lead, 6, 4, seed=1), random(*lead, 6, 3, seed=2)
    expected = ((q[0] @ k[0].mT + q[1] @ k[1].mT) / 2).softmax(-1) @ v
    assert torch.allclose(realformer.attend(q, k, v), expected, atol=1e-12)


def test_attend_returns_memory_of_its_own():
    """Values narrower than the features: the width to which they were filled up is not kept alive behind the result."""
    output = realformer.attend(random(8, 2, 5, 4), random(8, 2, 5, 4, seed=1), random(2, 5, 3, seed=2))
    assert output.untyped_storage().nbytes() == output.numel() * 8


@pytest.mark.parametrize("lead", [(12, 2), (2, 12)])
def test_attend_stores_no_scores_where_batch_or_heads_are_as_many_as_features(lead):
    q, k, v = random(3, *lead, 9, 4), random(3, *lead, 9, 4, seed=1), random(*lead, 9, 4, seed=2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        assert realformer.attend(q, k, v).shape == v.shape


def test_expected_entropy_is_the_logarithm_less_half_the_variance():
    assert realformer.expected_entropy(4, 3, 2.0) == pytest.approx(np.log(4) - 6)
    assert realformer.expected_entropy(4, 3, 2.0, "mean") == pytest.approx(np.log(4) - 2 / 3)
    assert realformer.expected_entropy(4, 3, 2.0, None) == pytest.approx(np.log(4) - 2)
    for kind in (None, "sum", "mean"):  # the three are one in the first layer
        assert realformer.expected_entropy([4, 9], 1, 0.5, kind) == pytest.approx(np.log([4, 9]) - 1 / 8)
    assert realformer.expected_entropy(4, [1, 2], 2.0) == pytest.approx(np.log(4) - np.array([2, 4]))
    for layers in ([0, 2], [2, 0], 0.5):
        with pytest.raises(ValueError, match="layer counts from 1"):
            realformer.expected_entropy(4, layers, 2.0)


def normalised(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_random_branches_are_a_plain_loop(norm):
    """Inputs, weights and the gradient at the top are drawn in this order; the chapter's numbers rest on it."""
    draw = torch.Generator().manual_seed(4)
    x = normalised(torch.randn(5, 16, generator=draw, dtype=torch.float64)).requires_grad_()
    expected = [x]
    for _ in range(3):
        weight = torch.randn(16, 16, generator=draw, dtype=torch.float64) * (0.3 / 16) ** 0.5
        x = normalised(x + x @ weight) if norm == "post" else x + normalised(x) @ weight
        expected.append(x)
    top = torch.randn(5, 16, generator=draw, dtype=torch.float64)
    states, gradients = realformer.random_branches(3, 0.3, norm, width=16, rows=5, seed=4)
    for state, gradient, x in zip(states, gradients, expected):
        assert torch.allclose(state, x, atol=1e-10)
        assert torch.allclose(gradient, torch.autograd.grad((expected[-1] * top).sum(), x, retain_graph=True)[0])


@pytest.mark.parametrize("variance", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_random_branches_obey_the_closed_form(norm, variance):
    states, gradients = realformer.random_branches(3, variance, norm, width=256, rows=16)
    share = realformer.identity_share(range(4), variance, norm)
    assert torch.nn.functional.cosine_similarity(states, states[:1], dim=-1).mean(-1).numpy() == pytest.approx(
        share, abs=0.03
    )
    if norm == "post":  # each sub-layer divides the part of the gradient that came by the shortcut
        at_top = torch.nn.functional.cosine_similarity(gradients, gradients[-1:], dim=-1).mean(-1).numpy()
        assert at_top == pytest.approx(share[::-1], abs=0.03)
    else:
        assert states.square().mean((1, 2)).numpy() == pytest.approx(1 + variance * np.arange(4), rel=0.1)


def test_defaults_of_random_branches():
    found = realformer.random_branches(1)
    spelled = realformer.random_branches(1, 1.0, "post", width=512, rows=64, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(found, spelled))


@pytest.mark.parametrize("variant", ["post", "pre", "sum"])
def test_a_probe_measures_states_and_patterns_as_a_plain_loop_does(variant):
    model = realformer.build(variant, SEED, 1.0, layers=3)
    tokens = torch.randint(97, (4, 13), generator=torch.Generator().manual_seed(1))
    tokens, targets, mask = tokens[:, :-1], tokens[:, 1:], causal_mask(12)
    found = realformer.probe(model, tokens, targets, mask=mask)
    trace = model.trace(tokens, mask=mask)
    loss = torch.nn.functional.cross_entropy(model.logits(trace.hidden[-1]).reshape(-1, 97), targets.reshape(-1))
    states = trace.hidden if variant != "pre" else trace.hidden[:-1]  # the last one there is behind the final norm
    gradients = torch.autograd.grad(loss, trace.hidden)
    cosine = lambda a, b: 1 - scipy.spatial.distance.cosine(a, b)  # noqa: E731
    flat = [x.detach().double().reshape(-1, 32).numpy() for x in states]
    for at, x in enumerate(flat):
        assert found.identity[at] == pytest.approx(np.mean([*map(cosine, x, flat[0])]), abs=1e-5)
    if variant != "pre":
        flat = [g.double().reshape(-1, 32).numpy() for g in gradients]
        for at, g in enumerate(flat):
            assert found.gradient[at] == pytest.approx(np.linalg.norm(g), rel=1e-4)
            assert found.gradient_identity[at] == pytest.approx(np.mean([*map(cosine, g, flat[-1])]), abs=1e-5)
    patterns = [p.detach().double().numpy() for p in trace.attention]
    keys = np.arange(2, 13)
    for at, p in enumerate(patterns):
        assert found.entropy[at] == pytest.approx(
            (scipy.stats.entropy(p[:, :, 1:], axis=-1) / np.log(keys)).mean(), rel=1e-4
        )
    for at, (p, q) in enumerate(itertools.pairwise(patterns)):
        distance = scipy.spatial.distance.jensenshannon(p[:, :, 1:], q[:, :, 1:], base=2, axis=-1)
        assert found.divergence[at] == pytest.approx((distance**2).mean(), rel=1e-3)


@pytest.mark.parametrize("variant", ["post", "pre"])
def test_instruments_measure_without_dropout_and_leave_training_mode_on(variant, batch):
    model = realformer.build(variant, SEED, layers=2, dropout=0.5).train()
    plain = realformer.build(variant, SEED, layers=2)
    for found, expected in zip(*(realformer.probe(m, *batch, mask=causal_mask(12)) for m in (model, plain))):
        assert np.array_equal(found, expected)
    x = random(2, 5, 32).float()
    assert realformer.amplification(model.stack, x) == realformer.amplification(plain.stack, x)
    assert all(part.training for part in model.modules())


def test_a_probe_leaves_no_hook_behind(batch):
    model = realformer.build("pre", SEED, layers=2)
    realformer.probe(model, *batch)
    with pytest.raises((ValueError, RuntimeError)):
        realformer.probe(model, batch[0], batch[1][:, :1])
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())


def test_nine_tenths_are_for_training():
    for size, known in ((100, 90), (109, 98), (1100, 990)):
        first, last = realformer.halves(torch.arange(size))
        assert len(first) == known
        assert torch.equal(torch.cat((first, last)), torch.arange(size))


def test_a_refusal_names_depth_and_residual():
    for variant, layers, words in (("post", 3, "got 3, none"), ("sum", 5, "got 5, sum"), ("mean", 4, "got 4, mean")):
        with pytest.raises(ValueError, match=words):
            realformer.swapped(realformer.build(variant, 0, layers=layers))


def test_windows_reach_both_ends_and_come_from_their_generator():
    text = torch.arange(5, dtype=torch.uint8)
    seen = {row[0].item() for row in next(realformer.windows(text, batch=64, size=2)(torch.Generator().manual_seed(0)))}
    assert seen == {0, 1, 2}
    text, before = torch.arange(200, dtype=torch.uint8), torch.get_rng_state()
    first, again, other = (
        next(realformer.windows(text)(torch.Generator().manual_seed(seed))) for seed in (3, 3, 4)
    )  # fmt: skip
    assert first.shape == (16, realformer.WINDOW + 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("variant", ["post", "pre", "mean"])
def test_the_loss_of_a_symbol_knows_only_the_symbols_before_it(variant):
    model = realformer.build(variant, SEED, 1.0, layers=2).double()
    batch = torch.randint(97, (2, 7), generator=torch.Generator().manual_seed(1))
    alone = [
        torch.nn.functional.cross_entropy(model.logits(model(batch[:, :t], mask=causal_mask(t))[:, -1]), batch[:, t])
        for t in range(1, 7)
    ]
    assert realformer.next_symbol_loss(model, batch).item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-9)


def test_the_held_out_batches_are_eight_fixed_ones_of_64_windows():
    text = torch.arange(200, dtype=torch.uint8)
    batches = realformer.validation(text)
    assert [batch.shape for batch in batches] == [(64, 33)] * 8
    draw = realformer.windows(text, 64)(torch.Generator().manual_seed(12345))
    assert all(torch.equal(batch, next(draw)) for batch in batches)
    assert len(realformer.validation(text, 3)) == 3


def test_divergence_stays_between_its_bounds_where_rounding_would_leave_them():
    weights = random(2, 2000, 4).abs() + 0.01
    p, q = (torch.nn.functional.pad(w / w.sum(-1, keepdim=True), pad) for w, pad in zip(weights, ((0, 4), (4, 0))))
    apart = realformer.divergence(p, q)
    assert apart.max() == 1
    assert apart.min() > 1 - 1e-14
    near = realformer.divergence(p, p * (1 + 1e-9 * random(2000, 8, seed=1)))
    assert near.min() >= 0
    assert near.max() < 1e-9


def test_a_probe_of_a_single_layer_has_no_neighbours(batch):
    found = realformer.probe(realformer.build("sum", SEED, layers=1), *batch, mask=causal_mask(12))
    assert found.divergence.shape == (0,)
    assert found.entropy.shape == (1,)
