"""The Transformer against PyTorch's own layers, complex numbers, brute force and itself."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explainers.transformer import (
    Cache,
    ConditionalLayerNorm,
    TokenTransformer,
    Transformer,
    causal_mask,
    padding_mask,
    prefix_mask,
    rotary,
)

KINDS = list(itertools.product(("post", "pre", "deep"), (None, "sum", "mean"), (True, False)))


def generic(module, seed=0, std=0.3):
    """Give every parameter a value that no special case explains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * std)
    return module


def random(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def encoder(norm_first=False, activation="gelu", batch_first=True, layers=3, dropout=0.0):
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, dropout, activation, norm_first=norm_first, batch_first=batch_first, layer_norm_eps=1e-3
    )
    final = nn.LayerNorm(32, eps=1e-3) if norm_first else None
    return generic(nn.TransformerEncoder(layer, layers, norm=final, enable_nested_tensor=False)).double()


# ---------------------------------------------------------------- masks


def test_padding_mask_marks_the_real_keys():
    mask = padding_mask(torch.tensor([0, 2, 5]), 5)
    assert mask.shape == (3, 1, 1, 5)
    assert mask.dtype == torch.bool
    assert mask.sum(-1).flatten().tolist() == [0, 2, 5]
    assert mask[1, 0, 0].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("past", [0, 1, 4])
def test_causal_mask_sees_the_past_and_itself(past):
    mask = causal_mask(3, past)
    assert mask.tolist() == [[j <= past + i for j in range(past + 3)] for i in range(3)]


def test_prefix_mask_is_the_formula_and_the_sum_of_segments():
    """eq-transformer-prefix-mask, every prefix of every size to 8, in two readings."""
    for size in range(1, 9):
        for length in range(size + 1):
            i, j = torch.arange(size)[:, None], torch.arange(size)
            sums = (torch.arange(size) >= length).long().cumsum(0)
            mask = prefix_mask([length], size)[0, 0]
            assert torch.equal(mask, (j < length) | (j <= i))
            assert torch.equal(mask, sums <= sums[:, None])


@pytest.mark.parametrize("make", [padding_mask, prefix_mask])
@pytest.mark.parametrize("lengths", [[6], [-1], [1.5], [[1, 2]], 3])
def test_masks_refuse_lengths_that_are_none(make, lengths):
    with pytest.raises(ValueError, match="integers in 0..5"):
        make(lengths, 5)


def test_causal_mask_refuses_a_negative_size():
    with pytest.raises(ValueError, match="negative"):
        causal_mask(3, -1)


# ---------------------------------------------------------------- rotary


@pytest.mark.parametrize("start", [0, 10**3, 10**6])
def test_rotary_is_complex_multiplication(start):
    x = random(2, 3, 5, 8, dtype=torch.float64)
    positions = torch.arange(start, start + 5)
    rates = torch.tensor([10_000.0 ** (-2 * i / 8) for i in range(4)], dtype=torch.float64)
    turn = torch.polar(torch.ones(5, 4, dtype=torch.float64), positions[:, None] * rates)
    expected = torch.view_as_real(torch.view_as_complex(x.reshape(2, 3, 5, 4, 2)) * turn).flatten(-2)
    assert torch.allclose(rotary(x, positions), expected, atol=1e-6, rtol=0)


def test_rotary_in_float32_has_the_angles_of_float64():
    x = random(1, 64, dtype=torch.float64)
    far = rotary(x, [99_999])
    assert torch.allclose(rotary(x.float(), [99_999]).double(), far, atol=1e-6, rtol=0)
    angles, in_float32 = (
        99_999 * 10_000.0 ** (-torch.arange(0, 64, 2, dtype=t) / 64) for t in (far.dtype, x.float().dtype)
    )
    assert (angles - in_float32).abs().max() > 1e-3  # what the test guards against is there


@pytest.mark.parametrize("shift", [1, 50, 5000])
def test_rotary_scores_know_only_differences(shift):
    q, k = random(6, 16, dtype=torch.float64), random(6, 16, seed=2, dtype=torch.float64)
    at = torch.arange(6)
    scores = rotary(q) @ rotary(k).T
    assert torch.allclose(rotary(q, at + shift) @ rotary(k, at + shift).T, scores, atol=1e-9, rtol=0)
    assert not torch.allclose(rotary(q, at + shift) @ rotary(k).T, scores, atol=1e-3)


def test_rotary_keeps_dtype_length_and_position_zero():
    x = random(3, 4, dtype=torch.float16)
    assert rotary(x).dtype == torch.float16
    x = random(3, 4)
    assert torch.equal(rotary(x)[0], x[0])
    assert torch.allclose(rotary(x).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("shape", [(3, 5), (4,)])
def test_rotary_refuses_a_shape_without_pairs(shape):
    with pytest.raises(ValueError, match="even size"):
        rotary(torch.zeros(shape))


@pytest.mark.parametrize("positions", [[0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]]])
def test_rotary_refuses_positions_that_do_not_fit(positions):
    with pytest.raises(ValueError, match="3 integers"):
        rotary(torch.zeros(3, 4), positions)


# ---------------------------------------------------------------- against torch


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_stack_is_torchs_own(norm_first, activation, batch_first):
    """eq-transformer-post and eq-transformer-pre, values and input gradients."""
    theirs = encoder(norm_first, activation, batch_first)
    ours = Transformer.from_torch(theirs)
    x = random(2, 7, 32, dtype=torch.float64).requires_grad_()
    swap = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    expected, output = swap(theirs(swap(x))), ours(x)
    assert torch.allclose(output, expected, atol=1e-10, rtol=0)
    weight = random(2, 7, 32, seed=3, dtype=torch.float64)
    gradients = [torch.autograd.grad((weight * y).sum(), x)[0] for y in (expected, output)]
    assert torch.allclose(*gradients, atol=1e-10, rtol=0)
    assert ours.options.eps == 1e-3


@pytest.mark.parametrize("norm_first", [False, True])
def test_masks_mean_what_torchs_inverted_masks_mean(norm_first):
    theirs = encoder(norm_first)
    ours = Transformer.from_torch(theirs)
    x, mask = random(2, 7, 32, dtype=torch.float64), causal_mask(7) & padding_mask([7, 4], 7)
    expected = theirs(x, mask=~causal_mask(7), src_key_padding_mask=~padding_mask([7, 4], 7)[:, 0, 0])
    assert torch.allclose(ours(x, mask=mask), expected, atol=1e-10, rtol=0)
    assert torch.allclose(ours.trace(x, mask=mask).hidden[-1], expected, atol=1e-10, rtol=0)


def test_from_torch_copies_mode_dropout_and_missing_biases():
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.25, batch_first=True, bias=False)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    ours = Transformer.from_torch(theirs)
    x = random(2, 7, 32)
    assert not ours.training
    assert ours.options.dropout == 0.25
    assert torch.allclose(ours(x), theirs(x), atol=1e-5, rtol=0)
    with torch.no_grad():
        theirs.layers[0].linear1.weight.zero_()
    assert not torch.allclose(ours(x), theirs(x), atol=1e-2)


def test_from_torch_refuses_what_it_has_no_stack_for():
    layer = nn.TransformerEncoderLayer(32, 4, 64, norm_first=True, batch_first=True)
    with pytest.raises(ValueError, match="needs a final norm"):
        Transformer.from_torch(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    with pytest.raises(ValueError, match="must not have a final norm"):
        Transformer.from_torch(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32), enable_nested_tensor=False))
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation=F.silu)
    with pytest.raises(ValueError, match="relu or gelu"):
        Transformer.from_torch(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    with pytest.raises(TypeError, match="TransformerEncoder, got Linear"):
        Transformer.from_torch(nn.Linear(2, 2))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_residual_scores_are_a_plain_loop(kind, norm_first):
    """eq-transformer-residual, with torch's own norms, projections and feed-forward."""
    theirs = encoder(norm_first)
    x, mask = random(2, 7, 32, dtype=torch.float64), causal_mask(7)
    output = Transformer.from_torch(theirs, residual_attention=kind)(x, mask=mask)
    total = 0
    for n, layer in enumerate(theirs.layers, start=1):
        y = layer.norm1(x) if norm_first else x
        qkv = F.linear(y, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)
        q, k, v = (part.reshape(2, 7, 4, 8).transpose(1, 2) for part in qkv.chunk(3, -1))
        total = total + q @ k.transpose(-1, -2) / 8**0.5
        scores = total / n if kind == "mean" else total
        attention = torch.where(mask, scores, -torch.inf).softmax(-1)
        branch = layer.self_attn.out_proj((attention @ v).transpose(1, 2).reshape(2, 7, 32))
        x = x + branch if norm_first else layer.norm1(x + branch)
        y = layer.norm2(x) if norm_first else x
        branch = layer.linear2(F.gelu(layer.linear1(y)))
        x = x + branch if norm_first else layer.norm2(x + branch)
    assert torch.allclose(output, theirs.norm(x) if norm_first else x, atol=1e-9, rtol=0)


def test_deep_scales_shortcut_and_initial_branches():
    """eq-transformer-deep: ratios of initial weights, and how far equal small branches move the output."""
    post, deep = (
        Transformer(6, 16, 2, norm=norm, generator=torch.Generator().manual_seed(5)) for norm in ("post", "deep")
    )
    assert deep.options.alpha == pytest.approx(12**0.25)
    for a, b in zip(post.layers, deep.layers):
        for name in ("out", "up", "down"):
            assert torch.allclose(b.get_submodule(name).weight, a.get_submodule(name).weight * 48**-0.25)
        assert torch.equal(b.qkv.weight[:32], a.qkv.weight[:32])
        assert torch.allclose(b.qkv.weight[32:], a.qkv.weight[32:] * 48**-0.25)
    with torch.no_grad():
        for layer in post.layers:
            layer.out.weight.zero_()
            layer.down.weight.mul_(1e-3)
        deep.load_state_dict(post.state_dict())
        x = F.layer_norm(random(2, 5, 16), (16,))
        moves = [float((stack(x) - x).norm()) for stack in (post, deep)]
    assert moves[0] / moves[1] == pytest.approx(12**0.25, rel=0.02)


# ---------------------------------------------------------------- conditions


def test_conditional_norm_starts_plain_and_becomes_affine():
    norm, plain = ConditionalLayerNorm(8, 3), nn.LayerNorm(8)
    x, c = random(2, 5, 8), random(2, 3, seed=2)
    assert torch.allclose(norm(x, c), plain(x), atol=1e-6)
    generic(norm)
    out = [norm(x, t * c) for t in (0.0, 1.0, 2.0)]
    assert torch.allclose(out[1] - out[0], out[2] - out[1], atol=1e-5)
    assert (out[1] - out[0]).abs().max() > 0.1
    hat = F.layer_norm(x, (8,))
    expected = (norm.weight + c @ norm.weight_projection.T)[:, None] * hat
    expected = expected + (norm.bias + c @ norm.bias_projection.T)[:, None]
    assert torch.allclose(norm(x, c), expected, atol=1e-5)


@pytest.mark.parametrize(("norm", "residual", "rotary"), KINDS)
def test_specialise_folds_a_condition_into_a_plain_stack(norm, residual, rotary):
    """eq-transformer-specialise."""
    model = generic(
        Transformer(2, 16, 2, norm=norm, residual_attention=residual, rotary=rotary, condition_size=3), std=0.1
    ).eval()
    x, c = random(4, 5, 16), random(3, seed=2)
    expected = model(x, condition=c.expand(4, 3))
    plain = model.specialise(c)
    assert torch.allclose(plain(x), expected, atol=1e-5)
    assert not torch.allclose(plain(x), model(x, condition=-c.expand(4, 3)), atol=1e-2)
    assert not any("projection" in name for name in plain.state_dict())
    assert not plain.training
    assert plain.options.condition_size is None
    generic(model)
    assert torch.allclose(plain(x), expected, atol=1e-5)  # an independent copy


def test_specialise_covers_the_embedding():
    model = generic(TokenTransformer(11, 2, 16, 2, condition_size=3), std=0.1)
    tokens, c = torch.tensor([[1, 2, 10]]), random(3)
    assert torch.allclose(model.specialise(c)(tokens), model(tokens, condition=c[None]), atol=1e-5)


def test_specialise_refuses_plain_stacks_and_batches():
    with pytest.raises(ValueError, match="no condition"):
        Transformer(1, 8, 2).specialise(torch.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(2, 3\)"):
        Transformer(1, 8, 2, condition_size=3).specialise(torch.zeros(2, 3))


def test_parameter_sets_move_between_variants():
    plain = Transformer(2, 16, 2)
    names = {k: v.shape for k, v in plain.state_dict().items()}
    for residual in ("sum", "mean"):
        assert {k: v.shape for k, v in Transformer(2, 16, 2, residual_attention=residual).state_dict().items()} == names
    conditional = Transformer(2, 16, 2, condition_size=3)
    missing, unexpected = conditional.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert len(missing) == 8
    assert all(name.endswith("_projection") for name in missing)
    x = random(2, 5, 16)
    assert torch.allclose(conditional(x, condition=random(2, 3)), plain(x), atol=1e-5)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain, conditional)]
    assert sizes[1] - sizes[0] == 4 * 2 * 16 * 3


def test_parameters_of_a_bert_base_stack():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Transformer(12, 768, 12, norm=norm).parameters()) for norm in ("post", "pre")]
    assert counts == [85_054_464, 85_056_000]


# ---------------------------------------------------------------- masks in the stack


@pytest.mark.parametrize(("norm", "residual", "rotary"), KINDS)
def test_nothing_leaks_through_a_mask(norm, residual, rotary):
    """By gradient and by perturbation: position i of the output depends on position j of the input iff M allows it."""
    model = generic(Transformer(2, 16, 2, norm=norm, residual_attention=residual, rotary=rotary), std=0.1).double()
    mask = prefix_mask([3], 6)
    x = random(1, 6, 16, dtype=torch.float64).requires_grad_()
    output = model(x, mask=mask)
    allowed = mask[0, 0]
    for i in range(6):
        (gradient,) = torch.autograd.grad(output[0, i, 0], x, retain_graph=True)
        reached = gradient[0].abs().amax(-1)
        assert (reached[~allowed[i]] == 0).all()
        assert (reached[allowed[i]] > 0).all()
    changed = x.detach().clone()
    changed[0, 4] += 100
    assert torch.equal(model(changed, mask=mask)[0, :4], output[0, :4])


@pytest.mark.parametrize(("norm", "residual", "rotary"), KINDS)
def test_ragged_batches_equal_single_examples(norm, residual, rotary):
    model = generic(Transformer(2, 16, 2, norm=norm, residual_attention=residual, rotary=rotary)).double()
    x, lengths = random(3, 7, 16, dtype=torch.float64), [7, 1, 4]
    for mask in (padding_mask(lengths, 7), padding_mask(lengths, 7) & causal_mask(7)):
        together = model(x, mask=mask)
        for row, length in enumerate(lengths):
            alone = model(x[row : row + 1, :length], mask=mask[row : row + 1, :, :length, :length])
            assert torch.allclose(together[row, :length], alone[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("residual", [None, "sum"])
def test_left_padding_is_free_with_rotary_positions(residual):
    model = generic(Transformer(2, 16, 2, residual_attention=residual)).double()
    x = random(1, 6, 16, dtype=torch.float64)
    padded = torch.cat((random(1, 5, 16, seed=9, dtype=torch.float64), x), 1)
    mask = causal_mask(11) & (torch.arange(11) >= 5)
    assert torch.allclose(model(padded, mask=mask)[:, 5:], model(x, mask=causal_mask(6)), atol=1e-9, rtol=0)


def test_permutation_equivariance_without_positions():
    model = generic(Transformer(2, 16, 2, rotary=False)).double()
    x, order = random(1, 6, 16, dtype=torch.float64), torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(model(x[:, order]), model(x)[:, order], atol=1e-9, rtol=0)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("residual", [None, "sum", "mean"])
def test_rows_that_see_nothing_are_zero_and_have_gradients(residual, explicit):
    model = generic(Transformer(2, 16, 2, residual_attention=residual))
    x = random(2, 5, 16).requires_grad_()
    mask = padding_mask([0, 5], 5)
    output = model.trace(x, mask=mask).hidden[-1] if explicit else model(x, mask=mask)
    output.square().sum().backward()
    for parameter in (x, *model.parameters()):
        assert torch.isfinite(parameter.grad).all()
    trace = model.trace(x, mask=mask)
    assert torch.allclose(output, trace.hidden[-1], atol=1e-5)
    assert all((attention[0] == 0).all() for attention in trace.attention)
    assert torch.allclose(output[1], model(x[1:])[0], atol=1e-4)


def test_a_mask_may_differ_by_head():
    model = generic(Transformer(1, 16, 2)).double()
    x = random(2, 5, 16, dtype=torch.float64)
    mask = torch.stack((causal_mask(5), torch.ones(5, 5, dtype=torch.bool)))
    attention = model.trace(x, mask=mask).attention[0]
    assert (attention[:, 0][:, ~causal_mask(5)] == 0).all()
    assert (attention[:, 1] > 0).all()


# ---------------------------------------------------------------- traces


@pytest.mark.parametrize(("norm", "residual", "rotary"), KINDS)
def test_a_trace_is_the_pass_itself(norm, residual, rotary):
    model = generic(Transformer(3, 16, 2, norm=norm, residual_attention=residual, rotary=rotary)).double()
    x, mask = random(2, 5, 16, dtype=torch.float64), causal_mask(5)
    trace = model.trace(x, mask=mask)
    assert [len(field) for field in trace] == [4, 3, 3]
    assert torch.equal(trace.hidden[0], x)
    assert torch.allclose(trace.hidden[-1], model(x, mask=mask), atol=1e-10, rtol=0)
    for n, (scores, attention) in enumerate(zip(trace.scores, trace.attention), start=1):
        assert scores.shape == attention.shape == (2, 2, 5, 5)
        assert torch.isfinite(scores).all()
        divided = scores / n if residual == "mean" else scores
        assert torch.allclose(attention, divided.masked_fill(~mask, -torch.inf).softmax(-1))
        assert (attention[..., ~mask] == 0).all()


@pytest.mark.parametrize("residual", [None, "sum", "mean"])
def test_a_trace_keeps_its_graph(residual):
    model = generic(Transformer(3, 16, 2, norm="pre", residual_attention=residual)).double()
    trace = model.trace(random(2, 5, 16, dtype=torch.float64).requires_grad_(), mask=causal_mask(5))
    for field in trace:
        for gradient in torch.autograd.grad(trace.hidden[-1].square().sum(), field, retain_graph=True):
            assert gradient.abs().max() > 0


# ---------------------------------------------------------------- cache


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize(("norm", "residual", "rotary"), KINDS)
def test_step_by_step_is_the_masked_single_pass(norm, residual, rotary, chunk):
    """eq-transformer-cache, with generic weights."""
    model = generic(Transformer(3, 16, 2, norm=norm, residual_attention=residual, rotary=rotary))
    x, cache = random(2, 9, 16), Cache()
    steps = []
    for piece in x.split(chunk, dim=1):
        steps.append(model(piece, mask=causal_mask(piece.shape[1], cache.length), cache=cache))
    assert cache.length == 9
    assert torch.allclose(torch.cat(steps, 1), model(x, mask=causal_mask(9)), atol=2e-4, rtol=0)


def test_a_cache_without_mask_and_with_a_prefix():
    model = generic(TokenTransformer(13, 2, 16, 2, segments=2, condition_size=3, residual_attention="sum"), std=0.2)
    tokens = torch.randint(13, (2, 8), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(8) >= 5).long().expand(2, 8)
    condition = random(2, 3)
    whole = model(tokens, segments=segments, mask=prefix_mask([5, 5], 8), condition=condition)
    cache = Cache()
    steps = [model(tokens[:, :5], segments=segments[:, :5], condition=condition, cache=cache)]
    for t in range(5, 8):
        now = slice(t, t + 1)
        steps.append(model(tokens[:, now], segments=segments[:, now], condition=condition, cache=cache))
    assert torch.allclose(torch.cat(steps, 1), whole, atol=2e-4, rtol=0)


def test_reorder_moves_keys_and_values_of_every_layer():
    model = generic(Transformer(2, 16, 2, residual_attention="sum"))
    x, cache = random(2, 5, 16), Cache()
    model(x, mask=causal_mask(5), cache=cache)
    cache.reorder(torch.tensor([1, 1, 0]))
    new = random(3, 1, 16, seed=4)
    whole = torch.cat((x[[1, 1, 0]], new), 1)
    assert torch.allclose(model(new, cache=cache), model(whole, mask=causal_mask(6))[:, -1:], atol=2e-4, rtol=0)
    assert repr(cache) == "Cache(length=6, layers=2)"


def test_a_cache_refuses_other_batches_models_and_orders():
    model, cache = Transformer(2, 16, 2), Cache()
    model(random(2, 3, 16), cache=cache)
    with pytest.raises(ValueError, match="2 rows in 2 layers"):
        model(random(3, 1, 16), cache=cache)
    with pytest.raises(ValueError, match="2 rows in 2 layers"):
        Transformer(3, 16, 2)(random(2, 1, 16), cache=cache)
    with pytest.raises(ValueError, match="row of integers"):
        cache.reorder(torch.tensor([0.0, 1.0]))


# ---------------------------------------------------------------- start, dropout, seeds


def test_gain_sets_the_spread_of_every_matrix():
    model = Transformer(1, 256, 4, gain=0.5, generator=torch.Generator().manual_seed(0))
    layer = model.layers[0]
    for linear in (layer.qkv, layer.out, layer.up, layer.down):
        assert float(linear.weight.detach().std()) * linear.in_features**0.5 == pytest.approx(0.5, rel=0.02)
        assert (linear.bias == 0).all()


@pytest.mark.parametrize("norm", ["post", "pre", "deep"])
def test_a_generator_draws_everything_and_leaves_the_global_one_alone(norm):
    before = torch.get_rng_state()
    first, second, other = (
        TokenTransformer(9, 2, 16, 2, segments=2, norm=norm, generator=torch.Generator().manual_seed(s))
        for s in (3, 3, 4)
    )
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), name
    assert not torch.equal(first.tokens, other.tokens)
    assert torch.equal(before, torch.get_rng_state())
    Transformer(1, 16, 2)
    assert not torch.equal(before, torch.get_rng_state())  # without one, the global generator draws


def test_the_draws_of_a_generator_are_these_in_this_order():
    """Recorded runs of three chapters start from such weights: another order would change them all."""
    draw = torch.Generator().manual_seed(7)
    stack = Transformer(2, 16, 2, gain=0.5, generator=torch.Generator().manual_seed(7))
    for layer in stack.layers:
        for linear in (layer.qkv, layer.out, layer.up, layer.down):
            expected = torch.empty_like(linear.weight).normal_(0, 0.5 * linear.in_features**-0.5, generator=draw)
            assert torch.equal(linear.weight, expected)


def test_from_torch_leaves_the_global_generator_alone():
    theirs = encoder()
    before = torch.get_rng_state()
    Transformer.from_torch(theirs)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("residual", [None, "sum"])
def test_dropout_acts_in_training_only(residual):
    model = Transformer(2, 16, 2, dropout=0.5, residual_attention=residual)
    x = random(2, 5, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


# ---------------------------------------------------------------- tokens


def test_logits_are_tied_to_the_table():
    model = generic(TokenTransformer(7, 1, 16, 2))
    hidden = random(2, 3, 16)
    assert torch.allclose(model.logits(hidden), hidden @ model.tokens.T + model.bias, atol=1e-5)
    assert sum(p.numel() for p in model.parameters()) == 7 * 16 + 7 + 2 * 16 + sum(
        p.numel() for p in model.stack.parameters()
    )


def test_embedding_is_table_plus_segment_then_norm():
    model = generic(TokenTransformer(7, 1, 16, 2, segments=2))
    tokens, segments = torch.tensor([[1, 6]]), torch.tensor([[0, 1]])
    expected = F.layer_norm(model.tokens[tokens] + model.segments[segments], (16,), model.norm.weight, model.norm.bias)
    assert torch.allclose(model.embed(tokens, segments=segments), expected, atol=1e-6)
    trace = model.trace(tokens, segments=segments)
    assert torch.allclose(trace.hidden[-1], model(tokens, segments=segments), atol=1e-5)


# ---------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2, 30, 4), {}, "width 30 is not a multiple of heads 4"),
        ((2, 36, 4), {}, "rotary needs an even head size"),
        ((2, 32, 4), {"norm": "middle"}, "'post', 'pre', 'deep', got 'middle'"),
        ((2, 32, 4), {"residual_attention": "max"}, "None, 'sum', 'mean', got 'max'"),
        ((2, 32, 4), {"activation": "sofplus"}, "'gelu', 'relu', got 'sofplus'"),
        ((0, 32, 4), {}, "layers must be a positive integer, got 0"),
        ((2, 32, 4), {"dropout": 1.5}, "dropout must be in"),
        ((2, 32, 4), {"hidden": 0}, "hidden must be"),
        ((2, 32, 4), {"condition_size": 0}, "condition_size must be"),
        ((2, 32, 4), {"gain": 0.0}, "gain and eps must be positive"),
        ((2.0, 32, 4), {}, "layers must be a positive integer"),
    ],
)
def test_options_that_do_not_fit(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(*arguments, **options)


def test_an_odd_head_size_is_fine_without_rotary():
    assert Transformer(1, 36, 4, rotary=False)(torch.zeros(1, 2, 36)).shape == (1, 2, 36)


@pytest.mark.parametrize("mask", [torch.zeros(5, 5), torch.ones(5, 5, dtype=torch.long), [[True]]])
def test_masks_must_be_boolean(mask):
    with pytest.raises(TypeError, match="mask must be boolean, True where attention is allowed"):
        Transformer(1, 16, 2)(torch.zeros(2, 5, 16), mask=mask)


@pytest.mark.parametrize("shape", [(4, 5), (3, 1, 1, 5), (2, 3, 5, 5), (1, 2, 2, 5, 5), (5, 1, 6)])
def test_masks_must_broadcast(shape):
    with pytest.raises(ValueError, match=r"\(2, 2, 5, 5\), got"):
        Transformer(1, 16, 2)(torch.zeros(2, 5, 16), mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(2, 5, 8), (5, 16), (1, 2, 5, 16)])
def test_inputs_must_be_batches_of_the_width(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(batch, time, 16\), got"):
        Transformer(1, 16, 2)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "condition"), [(None, torch.zeros(2, 3)), (3, None), (3, torch.zeros(3)), (3, torch.zeros(1, 3))]
)
def test_conditions_are_given_when_wanted_and_in_shape(size, condition):
    with pytest.raises(ValueError, match="condition"):
        Transformer(1, 16, 2, condition_size=size)(torch.zeros(2, 5, 16), condition=condition)
    with pytest.raises(ValueError, match="condition"):
        ConditionalLayerNorm(16, size)(torch.zeros(2, 5, 16), condition)


def test_tokens_and_segments_must_fit():
    plain, split = TokenTransformer(7, 1, 16, 2), TokenTransformer(7, 1, 16, 2, segments=2)
    tokens = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match="tokens must be integers"):
        plain(torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="tokens must be integers"):
        plain(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="superfluous"):
        plain(tokens, segments=tokens)
    with pytest.raises(ValueError, match="missing"):
        split(tokens)
    with pytest.raises(ValueError, match=r"segments must be integers of shape \(1, 2\)"):
        split(tokens, segments=torch.tensor([[0]]))
    with pytest.raises(ValueError, match="segments must be an integer"):
        TokenTransformer(7, 1, 16, 2, segments=-1)


# ---------------------------------------------------------------- found by `make mutate`


@pytest.mark.parametrize("make", [padding_mask, prefix_mask])
def test_one_bad_length_among_good_ones_is_refused(make):
    for lengths in ([3, 6], [-1, 2]):
        with pytest.raises(ValueError, match="integers in 0..5"):
            make(lengths, 5)
    assert make([0, 5], 5).shape[0] == 2


def test_causal_mask_of_few_positions():
    assert causal_mask(2).tolist() == [[True, False], [True, True]]
    assert causal_mask(0, 3).shape == (0, 3)
    assert causal_mask(0).shape == (0, 0)
    with pytest.raises(ValueError, match="negative"):
        causal_mask(-1)


def test_defaults_of_a_stack():
    options = Transformer(1, 16, 2).options
    assert (options.hidden, options.norm, options.residual_attention, options.rotary) == (64, "post", None, True)
    assert (options.dropout, options.activation, options.gain, options.eps) == (0.0, "gelu", 1.0, 1e-5)
    assert (options.alpha, options.beta) == (1.0, 1.0)
    assert ConditionalLayerNorm(16).eps == 1e-5
    assert TokenTransformer(3, 1, 16, 2).segments is None


def test_the_stack_turns_queries_and_keys_as_rotary_does():
    model = generic(Transformer(1, 16, 2, norm="pre")).double()
    x = random(2, 9, 16, dtype=torch.float64)
    layer = model.layers[0]
    q, k, _ = layer.qkv(layer.attention_norm(x, None)).chunk(3, -1)
    q, k = (rotary(part.unflatten(-1, (2, 8)).transpose(1, 2)) for part in (q, k))
    assert torch.allclose(model.trace(x).scores[0], q @ k.mT / 8**0.5, atol=1e-12)


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"dropout": -0.1}, {"eps": 0.0}, {"gain": -1.0}])
def test_options_at_the_border_are_refused(options):
    with pytest.raises(ValueError, match="dropout must be in|gain and eps must be positive"):
        Transformer(1, 16, 2, **options)


def test_options_inside_the_border_are_taken():
    options = Transformer(1, 2, 1, hidden=1, gain=0.25, eps=2.0, dropout=0.75, condition_size=1).options
    assert (options.gain, options.eps, options.dropout) == (0.25, 2.0, 0.75)
    assert TokenTransformer(1, 1, 2, 1, segments=1).segments.shape == (1, 2)
    assert ConditionalLayerNorm(1, 1)(torch.ones(1, 1, 1), torch.ones(1, 1)).shape == (1, 1, 1)


@pytest.mark.parametrize("sizes", [(0,), (8, 0), (8, -1), (8, 2.0)])
def test_a_norm_checks_its_sizes(sizes):
    with pytest.raises(ValueError, match="must be a positive integer"):
        ConditionalLayerNorm(*sizes)


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_a_vocabulary_has_a_size(size):
    with pytest.raises(ValueError, match="vocabulary_size must be a positive integer"):
        TokenTransformer(size, 1, 16, 2)


def test_a_trace_of_tokens_takes_mask_segments_and_condition():
    model = generic(TokenTransformer(11, 2, 16, 2, segments=2, condition_size=3), std=0.1)
    tokens, segments, condition = torch.tensor([[1, 2, 10]]), torch.tensor([[0, 1, 1]]), random(1, 3)
    given = {"segments": segments, "mask": causal_mask(3), "condition": condition}
    output = model(tokens, **given)
    assert torch.allclose(model.trace(tokens, **given).hidden[-1], output, atol=1e-5)
    for name, other in (("segments", 1 - segments), ("mask", None), ("condition", -condition)):
        assert not torch.allclose(model(tokens, **{**given, name: other}), output, atol=1e-3)


def test_the_embedding_drops_out_in_training_only():
    model = TokenTransformer(7, 1, 64, 2, dropout=0.5)
    tokens = torch.tensor([[1, 6, 2]])
    assert 0.3 < (model.embed(tokens) == 0).double().mean() < 0.7
    assert (model.eval().embed(tokens) == 0).sum() == 0


def test_a_cache_counts_its_positions_and_reorders_whole_rows():
    model, cache = generic(Transformer(2, 16, 2)), Cache()
    assert cache.length == 0
    model(random(2, 3, 16), cache=cache)
    model(random(2, 1, 16), cache=cache)
    assert cache.length == 4
    with pytest.raises(ValueError, match="row of integers"):
        cache.reorder(torch.tensor([[0, 1]]))
    cache.reorder([1])
    assert model(random(1, 1, 16), cache=cache).shape == (1, 1, 16)
    assert cache.length == 5


def test_norm_eps_is_added_to_the_variance():
    x = 0.01 * random(2, 8, dtype=torch.float64)
    norm = ConditionalLayerNorm(8, eps=0.5).double()
    assert torch.allclose(
        norm(x), (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 0.5).sqrt()
    )
    stack = Transformer(1, 8, 2, eps=0.5, norm="pre", condition_size=2)
    norms = [part.eps for part in stack.modules() if isinstance(part, ConditionalLayerNorm)]
    assert norms == [0.5] * 3
    plain = [part.eps for part in stack.specialise(torch.ones(2)).modules() if isinstance(part, ConditionalLayerNorm)]
    assert plain == [0.5] * 3


def test_segments_of_floats_are_refused():
    with pytest.raises(ValueError, match="segments must be integers"):
        TokenTransformer(7, 1, 16, 2, segments=2)(torch.tensor([[1, 2]]), segments=torch.tensor([[0.0, 1.0]]))


def test_a_cache_of_a_single_layer_counts_too():
    model, cache = Transformer(1, 16, 2), Cache()
    model(random(2, 3, 16), cache=cache)
    assert cache.length == 3


def test_the_spread_of_the_tables():
    model = TokenTransformer(500, 1, 64, 2, segments=400, gain=0.5, generator=torch.Generator().manual_seed(1))
    for table in (model.tokens, model.segments):
        assert float(table.detach().std()) == pytest.approx(0.5 / 8, rel=0.02)
    assert (model.bias == 0).all()


# ---------------------------------------------------------------- found by the complete run of `make mutate`


def test_a_conditional_norm_adds_its_eps_to_the_variance_too():
    x, c = 0.01 * random(2, 5, 8, dtype=torch.float64), random(2, 3, seed=2, dtype=torch.float64)
    norm = generic(ConditionalLayerNorm(8, 3, eps=0.5)).double()
    hat = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 0.5).sqrt()
    gamma, beta = norm.weight + c @ norm.weight_projection.T, norm.bias + c @ norm.bias_projection.T
    assert torch.allclose(norm(x, c), gamma[:, None] * hat + beta[:, None], atol=1e-12)
    for row in range(2):
        assert torch.allclose(norm.specialise(c[row])(x[row : row + 1]), norm(x, c)[row : row + 1], atol=1e-12)


@pytest.mark.parametrize("norm", ["post", "deep"])
def test_both_shortcuts_of_a_layer_are_weighted_alike(norm):
    """eq-transformer-post and eq-transformer-deep, layer by layer from the traced attention."""
    model = generic(Transformer(3, 16, 2, norm=norm), std=0.1).double()
    x = random(2, 5, 16, dtype=torch.float64)
    trace, alpha = model.trace(x, mask=causal_mask(5)), 6**0.25 if norm == "deep" else 1
    for layer, attention, output in zip(model.layers, trace.attention, trace.hidden[1:]):
        value = layer.qkv(x)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
        branch = layer.out((attention @ value).transpose(1, 2).flatten(2))
        x = layer.attention_norm(alpha * x + branch)
        x = layer.feedforward_norm(alpha * x + layer.down(F.gelu(layer.up(x))))
        assert torch.allclose(x, output, atol=1e-10, rtol=0)


@pytest.mark.parametrize("residual", [None, "sum"])
def test_dropout_acts_on_attention_weights_and_on_the_branch(residual):
    """Of one position with weight 1: half of the heads are dropped whole, and half of the coordinates of the others."""
    model = Transformer(1, 32, 2, norm="pre", dropout=0.5, residual_attention=residual, generator=torch.Generator())
    layer = model.layers[0]
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(32))
        layer.down.weight.zero_()
    model.final_norm = None
    torch.manual_seed(0)
    x = random(1000, 1, 32)
    zero = (model(x) == x).reshape(1000, 2, 16)
    assert zero.all(-1).double().mean() == pytest.approx(0.5, abs=0.05)
    assert zero.double().mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_acts_inside_the_feedforward_and_on_its_branch(monkeypatch, norm):
    """One hidden unit that is always on: dropped in half the cases, and then every coordinate of the branch is 0."""
    model = Transformer(1, 32, 2, hidden=1, norm=norm, dropout=0.5, activation="relu", generator=torch.Generator())
    layer = model.layers[0]
    with torch.no_grad():
        layer.out.weight.zero_()
        layer.up.weight.zero_()
        layer.up.bias.fill_(1)
        layer.down.weight.fill_(1)
    model.final_norm = None
    monkeypatch.setattr(layer.feedforward_norm, "forward", lambda x, condition: x)
    torch.manual_seed(0)
    x = random(1000, 1, 32)
    moved = model(x) - (x if norm == "pre" else layer.attention_norm(x, None))
    zero = moved.abs() < 1e-5
    assert zero.all(-1).double().mean() == pytest.approx(0.5, abs=0.05)
    assert zero.double().mean() == pytest.approx(0.75, abs=0.03)
    assert moved[~zero].mean().item() == pytest.approx(4, abs=1e-4)  # 1 / (1 - p), twice


def test_a_cache_of_a_single_layer_goes_on_and_refuses_other_batches():
    model, cache = generic(Transformer(1, 16, 2)), Cache()
    x = random(2, 4, 16)
    steps = [model(piece, cache=cache) for piece in x.split(1, dim=1)]
    assert torch.allclose(torch.cat(steps, 1), model(x, mask=causal_mask(4)), atol=1e-4)
    with pytest.raises(ValueError, match="holds 2 rows in 1 layers, the model and its input have 3 rows in 1 layers"):
        model(random(3, 1, 16), cache=cache)


@pytest.mark.parametrize("norm_first", [False, True])
def test_from_torch_takes_a_single_layer(norm_first):
    theirs = encoder(norm_first, layers=1)
    x = random(2, 7, 32, dtype=torch.float64)
    assert torch.allclose(Transformer.from_torch(theirs)(x), theirs(x), atol=1e-10, rtol=0)


def test_from_torch_takes_a_final_norm_without_bias():
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, norm_first=True, batch_first=True, bias=False)
    theirs = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32, bias=False), enable_nested_tensor=False)
    generic(theirs).double()
    x = random(2, 7, 32, dtype=torch.float64)
    assert torch.allclose(Transformer.from_torch(theirs)(x), theirs(x), atol=1e-10, rtol=0)


def test_a_refusal_of_segments_counts_the_kinds_of_the_model():
    tokens = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match="superfluous: the model has 0 kinds"):
        TokenTransformer(7, 1, 16, 2)(tokens, segments=tokens)
    with pytest.raises(ValueError, match="missing: the model has 3 kinds"):
        TokenTransformer(7, 1, 16, 2, segments=3)(tokens)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_refused_condition_leaves_the_cache_as_it_was(norm):
    model, cache = Transformer(1, 16, 2, norm=norm, condition_size=3), Cache()
    for condition in (None, torch.zeros(2, 4)):
        with pytest.raises(ValueError, match="condition must have shape"):
            model(torch.zeros(2, 5, 16), condition=condition, cache=cache)
    assert cache.length == 0
