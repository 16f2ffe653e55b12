"""Tests of explainers.flooding: laws, peers, and bad input."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import solve_ivp
from torch import nn
from torch.nn import functional as F

from explainers import flooding, training

DOUBLE = torch.float64


def vector(*values):
    return torch.tensor(values, dtype=DOUBLE)


def some_losses(*shape, seed=0):
    """Positive double losses with a long tail."""
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)).log().neg()


def slope(objective, losses):
    losses = losses.clone().requires_grad_()
    return torch.autograd.grad(objective(losses), losses)[0]


def valley(theta):
    """A long ellipse."""
    return 0.5 * (10 * theta[0] ** 2 + theta[1] ** 2)


def bent(theta):
    """A valley with third and fourth derivatives, and x and y coupled."""
    x, y = theta
    return 1.5 * x**2 + 0.5 * y**2 + 0.2 * x**4 + 0.3 * x * y**2


@pytest.fixture(scope="module")
def classification():
    """Double inputs (40, 6) and three classes."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 6, dtype=DOUBLE, generator=generator)
    noise = torch.randn(40, 3, dtype=DOUBLE, generator=generator)
    return inputs, (inputs[:, :3] + noise).argmax(1)


@pytest.fixture(scope="module")
def small_network(classification):
    """The flat loss of a tanh network, and its start (83,)."""
    return flooding.network_loss(*classification, [6, 8, 3], seed=4)


# --- flood --------------------------------------------------------------------------------------------------------


def test_flood_is_the_absolute_difference_above_the_level():
    losses, levels = some_losses(5, 7), some_losses(5, 1, seed=1)
    assert torch.equal(
        flooding.flood(losses, 0.3), F.l1_loss(losses, torch.full_like(losses, 0.3), reduction="none") + 0.3
    )
    assert torch.allclose(flooding.flood(losses, levels), torch.maximum(losses, 2 * levels - losses))


def test_flood_never_falls_below_the_level_and_a_second_time_changes_nothing():
    once = flooding.flood(some_losses(200), 0.5)
    assert (once >= 0.5).all()
    assert torch.allclose(flooding.flood(once, 0.5), once, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("level", "sign"), [(0.1, 1), (0.5, -1), (0.25, 0)])
def test_the_gradient_goes_through_flood_with_the_sign_of_loss_minus_level(level, sign):
    theta = vector(0.3, -0.4).requires_grad_()
    loss = theta @ theta  # 0.25 but for rounding: made exact by the detour
    loss = loss + (0.25 - loss.detach())
    (g,) = torch.autograd.grad(flooding.flood(loss, level), theta)
    assert torch.equal(g, sign * 2 * theta.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_flood_keeps_shape_and_dtype(dtype):
    flooded = flooding.flood(torch.ones(2, 3, dtype=dtype), 0.25)
    assert (flooded.shape, flooded.dtype) == ((2, 3), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("level", [0, 0.2, 0.7, 3])
def test_a_single_number_is_flooded_as_the_same_number_in_a_row(dtype, level):
    """The short way for one number and a plain level, against the formula that a row goes through."""
    for loss in torch.tensor([0.0, 0.2, 0.201, 0.7, 1.0, 3.0], dtype=dtype):
        row = loss[None]
        close = 2 * torch.finfo(dtype).eps
        assert torch.allclose(flooding.flood(loss, level), flooding.flood(row, level)[0], rtol=close, atol=close)
        assert slope(lambda x: flooding.flood(x, level), loss) == slope(lambda x: flooding.flood(x, level).sum(), row)


def goes_up_below_the_level(backpropagated):
    """The two lines that catch it: below the level, what is back-propagated must have the gradient turned round."""
    raw = vector(0.1).sum().requires_grad_()
    return float(torch.autograd.grad(backpropagated(raw), raw)[0]) == -1


def test_the_raw_loss_back_propagated_by_mistake_is_caught():
    def forgetful(raw):
        flooding.flood(raw, 0.5)  # computed, logged, and not used
        return raw

    assert goes_up_below_the_level(lambda raw: flooding.flood(raw, 0.5))
    assert not goes_up_below_the_level(forgetful)


def test_only_the_flooded_loss_holds_training_at_the_level():
    ends = {}
    for name, objective in {"flood": lambda loss: flooding.flood(loss, 0.5), "raw": lambda loss: loss}.items():
        theta = vector(1.0, 1.0).requires_grad_()
        optimizer = torch.optim.SGD([theta], lr=0.02)
        for _ in range(400):
            optimizer.zero_grad()
            objective(valley(theta)).backward()
            optimizer.step()
        ends[name] = float(valley(theta.detach()))
    assert abs(ends["flood"] - 0.5) < 0.1
    assert ends["raw"] < 1e-5


@pytest.mark.parametrize("level", [-0.1, math.nan, math.inf, vector(0.1, -0.1), vector(0.1, math.nan)])
def test_a_bad_level_is_refused(level):
    for method in ("flood", "iflood", "softad"):
        with pytest.raises(ValueError, match="level must be finite and not negative"):
            flooding.flooded_objective(some_losses(2, 3), level, method)
    with pytest.raises(ValueError, match="level must be finite and not negative"):
        flooding.flood(some_losses(2), level)


@pytest.mark.parametrize(("loss", "what"), [(0.3, "float"), (np.float64(0.3), "float64"), (torch.tensor(1), "int64")])
def test_a_loss_that_is_no_floating_tensor_is_refused(loss, what):
    with pytest.raises(TypeError, match=what):
        flooding.flood(loss, 0.1)
    with pytest.raises(TypeError, match=what):
        flooding.flooded_objective(loss, 0.1)


def test_a_loss_that_is_not_a_number_is_refused():
    losses = vector(0.1, math.nan, 0.3, math.nan)
    with pytest.raises(ValueError, match="not a number in 2 of 4"):
        flooding.flood(losses, 0.1)
    for method in flooding.METHODS:
        with pytest.raises(ValueError, match="not a number in 2 of 4"):
            flooding.flooded_objective(losses, 0.1, method)
    with pytest.raises(ValueError, match="not a number in 1 of 1"):
        flooding.flood(torch.tensor(math.nan), 0.1)


# --- objectives of many losses ------------------------------------------------------------------------------------


def test_groups_lead_from_iflood_to_flood_and_merging_them_never_raises_the_objective():
    losses = some_losses(30, 24)
    values = {m: flooding.flooded_objective(losses, 0.9, "flood", m) for m in (1, 2, 4, 12, 24)}
    assert torch.allclose(values[1], flooding.flooded_objective(losses, 0.9, "iflood"))
    assert torch.allclose(values[24], flooding.flood(losses.mean(-1), 0.9))
    for finer, coarser in itertools.pairwise(values.values()):
        assert (coarser <= finer + 1e-12).all()
        assert (coarser < finer - 1e-3).any()


def test_the_objectives_by_hand():
    losses = vector(0.0, 0.6, 0.2, 1.2)
    assert float(flooding.flooded_objective(losses, 0.7, "erm")) == pytest.approx(0.5)
    assert float(flooding.flooded_objective(losses, 0.7)) == pytest.approx(0.9)
    assert float(flooding.flooded_objective(losses, 0.7, "iflood")) == pytest.approx(0.7 + (0.7 + 0.1 + 0.5 + 0.5) / 4)
    softened = [math.hypot(x, 1) - 1 for x in (0.7, 0.1, 0.5, 0.5)]
    assert float(flooding.flooded_objective(losses, 0.7, "softad")) == pytest.approx(0.7 + sum(softened) / 4)


def test_the_weight_of_each_example():
    losses, level = some_losses(50), 0.8
    excess = losses - level
    weights = {
        "erm": torch.ones(50, dtype=DOUBLE),
        "flood": torch.sign(excess.mean()).expand(50),
        "iflood": torch.sign(excess),
        "softad": excess / torch.sqrt(excess**2 + 1),
    }
    for method, weight in weights.items():
        found = slope(lambda x, method=method: flooding.flooded_objective(x, level, method), losses)
        assert torch.allclose(found, weight / 50), method
    grouped = slope(lambda x: flooding.flooded_objective(x, level, "flood", 5), losses)
    assert torch.allclose(grouped, torch.sign(excess.view(10, 5).mean(1)).repeat_interleave(5) / 50)


@pytest.mark.parametrize("method", flooding.METHODS)
def test_leading_axes_are_independent(method):
    losses, levels = some_losses(2, 3, 8), some_losses(2, 3, seed=1)
    together = flooding.flooded_objective(losses, levels, method)
    assert together.shape == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        assert torch.allclose(together[i, j], flooding.flooded_objective(losses[i, j], float(levels[i, j]), method))


@pytest.mark.parametrize("size", [0, -1, 5, 24])
def test_a_group_size_that_does_not_divide_is_refused(size):
    with pytest.raises(ValueError, match="must divide the number of examples 12"):
        flooding.flooded_objective(some_losses(12), 0.1, "flood", size)


@pytest.mark.parametrize("method", ["erm", "iflood", "softad"])
def test_a_group_size_belongs_to_flood_alone(method):
    with pytest.raises(ValueError, match=f"goes with the method 'flood', got 4 with '{method}'"):
        flooding.flooded_objective(some_losses(12), 0.1, method, 4)


def test_an_unknown_method_and_losses_without_examples_are_refused():
    with pytest.raises(ValueError, match="one of erm, flood, iflood, softad, got 'adaflood'"):
        flooding.flooded_objective(some_losses(3), 0.1, "adaflood")
    for losses in (torch.tensor(0.3), torch.empty(4, 0)):
        with pytest.raises(ValueError, match="need a last axis"):
            flooding.flooded_objective(losses, 0.1)


# --- one objective per member of an ensemble ----------------------------------------------------------------------


def logits_and_targets(members, n=12, classes=3):
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(members, n, classes, generator=generator)
    return logits, torch.randint(0, classes, (members, n), generator=generator)


def test_each_member_follows_its_own_method_level_and_group_size():
    methods, levels = ["iflood", "flood", "erm", "flood", "softad", "flood"], [0.5, 0.5, 9.0, 2.5, 0.7, 1.5]
    sizes = [None, 3, None, None, None, 3]
    logits, targets = logits_and_targets(6)
    values = flooding.member_objective(methods, levels, sizes)(logits, targets)
    for k, (method, level, size) in enumerate(zip(methods, levels, sizes)):
        losses = F.cross_entropy(logits[k], targets[k], reduction="none")
        assert torch.allclose(values[k], flooding.flooded_objective(losses, level, method, size)), k
    assert len(set(values.tolist())) == 6


@pytest.mark.parametrize(("method", "size"), [("flood", None), ("flood", 4), ("iflood", None)])
def test_members_of_one_kind_have_the_values_they_have_beside_another_kind(method, size):
    logits, targets = logits_and_targets(3)
    alone = flooding.member_objective([method] * 2, [0.5, 1.5], [size] * 2)(logits[:2], targets[:2])
    mixed = flooding.member_objective([method] * 2 + ["erm"], [0.5, 1.5, 0.0], [size] * 2 + [None])(logits, targets)
    assert torch.allclose(alone, mixed[:2], rtol=1e-6)


def test_no_gradient_flows_between_members():
    logits, targets = logits_and_targets(3)
    logits.requires_grad_()
    values = flooding.member_objective(["flood", "softad", "flood"], [0.2, 0.2, 0.4])(logits, targets)
    (g,) = torch.autograd.grad(values[1], logits)
    assert g[1].abs().max() > 0
    assert g[[0, 2]].abs().max() == 0


def test_random_groups_are_those_of_the_generator_and_are_shared_by_the_members():
    logits, targets = logits_and_targets(1)
    logits, targets = logits.repeat(2, 1, 1), targets.repeat(2, 1)
    objective = flooding.member_objective(["flood"] * 2, [1.6] * 2, [4, 4], torch.Generator().manual_seed(8))
    calls = torch.stack([objective(logits, targets) for _ in range(20)])
    assert torch.equal(calls[:, 0], calls[:, 1])
    assert len(set(calls[:, 0].tolist())) > 5, "the groups are drawn anew"
    mirror = torch.Generator().manual_seed(8)
    losses = F.cross_entropy(logits[0], targets[0], reduction="none")
    for value in calls[:, 0]:
        groups = losses[torch.randperm(12, generator=mirror)].view(3, 4).mean(1)
        assert torch.allclose(value, ((groups - 1.6).abs() + 1.6).mean())


def test_the_order_matters_only_to_groups_of_some():
    logits, targets = logits_and_targets(3)
    settings = ["flood"] * 3, [1.6] * 3, [1, 12, None]
    shuffled = flooding.member_objective(*settings, torch.Generator().manual_seed(0))(logits, targets)
    assert torch.allclose(shuffled, flooding.member_objective(*settings)(logits, targets))


def test_an_ensemble_floods_as_each_network_would_alone(classification):
    inputs, targets = classification[0].float(), classification[1]
    levels, methods = [0.0, 0.9, 0.9, 0.8], ["erm", "flood", "iflood", "softad"]
    ensemble = training.EnsembleMLP([6, 8, 3], [0, 1, 2, 3])
    networks = [ensemble.member(k) for k in range(4)]
    objective = flooding.member_objective(methods, levels)
    curves = training.fit_ensemble(
        ensemble,
        inputs,
        targets,
        epochs=15,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.3, foreach=False),
        loss=objective,
    )
    for k, network in enumerate(networks):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
        for step in range(15):
            losses = F.cross_entropy(network(inputs), targets, reduction="none")
            value = flooding.flooded_objective(losses, levels[k], methods[k])
            assert value.item() == pytest.approx(float(curves[step, k]), abs=1e-5)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


@pytest.mark.parametrize("settings", [(["flood"], [0.1, 0.2]), (["flood"] * 2, [0.1] * 2, [3])])
def test_unequal_numbers_of_methods_levels_and_sizes_are_refused(settings):
    with pytest.raises(ValueError, match="one entry per member"):
        flooding.member_objective(*settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ((["flod"], [0.1]), "method must be one of"),
        ((["flood"], [-0.1]), "level must be finite"),
        ((["iflood"], [0.1], [3]), "goes with the method"),
        ((["flood"], [0.1], [5]), "must divide"),
    ],
)
def test_a_bad_setting_of_a_member_fails_before_anything_is_trained(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        flooding.member_objective(*settings)(*logits_and_targets(1))


# --- the level from the noise, the penalty from the batch ---------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "classes", "level"),
    [(0.1, 2, 0.3251), (0.2, 2, 0.5004), (0.3, 2, 0.6109), (0.2, 10, 0.9398), (0.4, 100, 2.511)],
)
def test_the_levels_of_the_brief(noise, classes, level):
    assert flooding.bayes_flood_level(noise, classes) == pytest.approx(level, abs=5e-5 if level < 2 else 5e-4)


@pytest.mark.parametrize("classes", [2, 3, 17])
def test_the_level_is_the_entropy_of_the_label(classes):
    for noise in (0, 0.05, 0.5, (classes - 1) / classes, 1):
        label = [1 - noise] + [noise / (classes - 1)] * (classes - 1)
        assert flooding.bayes_flood_level(noise, classes) == pytest.approx(stats.entropy(label), abs=1e-14)
    assert flooding.bayes_flood_level((classes - 1) / classes, classes) == pytest.approx(math.log(classes))


def test_the_level_is_what_the_honest_classifier_pays():
    noise, classes, n = 0.3, 5, 40_000
    labels = flooding.flip_labels(np.zeros(n, dtype=int), noise, np.random.default_rng(0), classes)
    honest = np.array([1 - noise] + [noise / (classes - 1)] * (classes - 1))
    # exactly n * noise flips, each of which costs the same: no chance is left
    assert -np.log(honest[labels]).mean() == pytest.approx(flooding.bayes_flood_level(noise, classes))


@pytest.mark.parametrize(("noise", "classes"), [(-0.01, 2), (1.01, 2), (math.nan, 2), (0.1, 1), (0.1, 0)])
def test_noise_and_classes_out_of_range_are_refused(noise, classes):
    with pytest.raises(ValueError, match="noise_rate must be" if classes == 2 else "n_classes must be"):
        flooding.bayes_flood_level(noise, classes)


def test_dispersion_penalty_at_its_ends_and_in_the_exercise():
    assert flooding.dispersion_penalty(0.7, 90, 90) == 0
    assert flooding.dispersion_penalty(0.7, 1, 90) == pytest.approx(0.7 * math.sqrt(2 / math.pi))
    assert flooding.dispersion_penalty(0.0, 3, 90) == 0
    assert 0.05 / flooding.dispersion_penalty(1.0, 32, 50_000) == pytest.approx(0.3546, abs=5e-5)


@pytest.mark.parametrize("size", [20, 50, 100])
def test_dispersion_penalty_is_what_random_groups_pay(size):
    losses = some_losses(200)
    level, std = float(losses.mean()), float(losses.std(correction=0))
    generator = torch.Generator().manual_seed(1)
    shuffles = torch.stack([losses[torch.randperm(200, generator=generator)] for _ in range(8000)])
    paid = float(flooding.flooded_objective(shuffles, level, "flood", size).mean()) - level
    assert paid == pytest.approx(flooding.dispersion_penalty(std, size, 200), rel=0.05)


@pytest.mark.parametrize("std", [-0.1, math.nan, math.inf])
def test_a_bad_spread_is_refused(std):
    with pytest.raises(ValueError, match="std must be"):
        flooding.dispersion_penalty(std, 2, 10)


@pytest.mark.parametrize(("size", "population"), [(0, 10), (11, 10), (1, 1)])
def test_a_group_larger_than_the_population_is_refused(size, population):
    with pytest.raises(ValueError, match="1 <= group_size <= population"):
        flooding.dispersion_penalty(0.5, size, population)


# --- two steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.7, np.array([0.7, -1.2]), vector(0.7, -1.2)], ids=["float", "array", "tensor"])
def test_two_steps_of_every_kind_of_point(theta):
    def grad(x):
        return x**3 + x

    halfway = {"descent": theta - 0.1 * grad(theta), "ascent": theta + 0.1 * grad(theta)}
    by_hand = {
        "descent": halfway["descent"] + 0.1 * grad(halfway["descent"]),
        "ascent": halfway["ascent"] - 0.1 * grad(halfway["ascent"]),
    }
    before = 1 * theta
    for first, expected in by_hand.items():
        found = flooding.two_step(grad, theta, 0.1, first=first)
        assert type(found) is type(theta)
        assert np.allclose(found, expected, rtol=0, atol=1e-15)
    assert np.allclose(before, theta, rtol=0, atol=0), "the point itself must not move"


def test_two_rates_go_down_by_the_first_and_up_by_the_second():
    for first, order in {"descent": (-0.3, 0.1), "ascent": (0.1, -0.3)}.items():
        x = 0.9
        for step in order:
            x += step * math.sin(x)
        assert flooding.two_step(math.sin, 0.9, 0.3, 0.1, first) == pytest.approx(x, abs=1e-15)


@pytest.mark.parametrize("curvature", [3, -3])
def test_on_a_quadratic_the_pair_shrinks_every_point_whatever_the_sign_and_the_order(curvature):
    for first in ("descent", "ascent"):
        found = flooding.two_step(lambda x: curvature * x, Fraction(2), Fraction(1, 10), first=first)
        assert found == 2 * (1 - Fraction(9, 100))


def test_the_remainders_of_the_pair_are_of_third_order_and_opposite():
    # L = sin x, so that g = cos x, H g = -sin x cos x, T[g, g] = -cos^3 x
    x, rates = 0.8, np.array([0.08, 0.04, 0.02, 0.01])
    down, up = (
        np.array([flooding.two_step(math.cos, x, e, first=first) - x for e in rates])
        + rates**2 * -math.sin(x) * math.cos(x)
        for first in ("descent", "ascent")
    )
    order = {name: np.polyfit(np.log(rates), np.log(np.abs(r)), 1)[0] for name, r in
             {"down": down, "up": up, "mean": (down + up) / 2}.items()}  # fmt: skip
    assert order["down"] == pytest.approx(3, abs=0.15)
    assert order["up"] == pytest.approx(3, abs=0.15)
    assert order["mean"] == pytest.approx(4, abs=0.2)
    assert down[-1] / rates[-1] ** 3 == pytest.approx(-(math.cos(x) ** 3) / 2, rel=0.02)
    assert up[-1] / rates[-1] ** 3 == pytest.approx(math.cos(x) ** 3 / 2, rel=0.02)


def test_two_rates_descend_on_the_loss_with_a_penalty():
    x, g, curved = 0.8, math.cos(0.8), -math.sin(0.8) * math.cos(0.8)

    def remainder(e1, e2):
        return flooding.two_step(math.cos, x, e1, e2) - (x - (e1 - e2) * g - e1 * e2 * curved)

    assert 6.5 < remainder(0.04, 0.02) / remainder(0.02, 0.01) < 9.5


def test_the_golden_ratio_stops_the_pair_on_a_quartic():
    golden = (1 + math.sqrt(5)) / 2
    assert flooding.two_step(lambda x: x**3, 1.0, golden) == pytest.approx(-1)
    for factor in (0.5, 0.9, 0.99):
        assert abs(flooding.two_step(lambda x: x**3, 1.0, factor * golden)) < 1
    assert abs(flooding.two_step(lambda x: x**3, 1.0, 1.01 * golden)) > 1


@pytest.mark.parametrize(
    "rates", [(0,), (-0.1,), (math.nan,), (0.1, 0), (0.1, -0.1), (0.1, math.nan), (0, 0.1), (-0.1, 0.1)]
)
def test_step_sizes_that_are_not_positive_are_refused(rates):
    with pytest.raises(ValueError, match="step sizes must be positive"):
        flooding.two_step(math.cos, 0.0, *rates)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="first must be 'descent' or 'ascent', got 'up'"):
        flooding.two_step(math.cos, 0.0, 0.1, first="up")


# --- gradient and curvature ---------------------------------------------------------------------------------------


def test_gradient_and_curvature_are_those_of_torch(small_network):
    loss_fn, theta = small_network
    loss, g, curved = flooding.gradient_and_curvature(loss_fn, theta)
    (expected,) = torch.autograd.grad(loss_fn(leaf := theta.clone().requires_grad_()), leaf)
    value, product = torch.autograd.functional.hvp(loss_fn, theta, expected)
    assert torch.allclose(loss, value, rtol=1e-14)
    assert torch.allclose(g, expected, rtol=1e-12, atol=1e-15)
    assert torch.allclose(curved, product, rtol=1e-10, atol=1e-14)
    assert curved.norm() > 0.01


def test_curvature_is_half_the_slope_of_the_squared_gradient(small_network):
    loss_fn, theta = small_network
    _, _, curved = flooding.gradient_and_curvature(loss_fn, theta)
    direction = torch.linspace(-1, 1, len(theta), dtype=DOUBLE)

    def squared(t):
        return float(flooding.gradient_and_curvature(loss_fn, theta + t * direction)[1].square().sum())

    assert float(2 * curved @ direction) == pytest.approx((squared(1e-4) - squared(-1e-4)) / 2e-4, rel=1e-5)


def test_one_forward_pass_and_nothing_left_behind():
    calls = []

    def counted(theta):
        calls.append(1)
        return bent(theta)

    theta = vector(0.6, 0.7).requires_grad_()
    results = flooding.gradient_and_curvature(counted, theta)
    assert len(calls) == 1
    assert not any(result.requires_grad for result in results)
    assert theta.grad is None


@pytest.mark.parametrize(
    ("loss_fn", "curved"),
    [(lambda t: t @ vector(3, 4), (0, 0)), (lambda t: 3 * t[0] + t[1] ** 2, (0, 8)), (valley, (100, 2))],
)
def test_linear_parts_have_no_curvature(loss_fn, curved):
    _, g, found = flooding.gradient_and_curvature(loss_fn, vector(1, 2))
    assert torch.equal(found, vector(*curved))
    assert g.shape == found.shape == (2,)


@pytest.mark.parametrize("theta", [[0.1, 0.2], np.zeros(2), torch.zeros(2, dtype=torch.long)])
def test_a_point_that_is_no_floating_tensor_is_refused(theta):
    for call in (
        lambda: flooding.gradient_and_curvature(valley, theta),
        lambda: flooding.flood_trajectory(valley, theta, 0.1, 0.1, 1),
        lambda: flooding.sliding_flow(valley, theta, 0.1, 0.1, 1),
    ):
        with pytest.raises(TypeError, match="theta must be a floating tensor"):
            call()


@pytest.mark.parametrize("shape", [(), (2, 1)])
def test_a_point_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="theta must have shape"):
        flooding.gradient_and_curvature(valley, torch.ones(shape))


# --- many steps ---------------------------------------------------------------------------------------------------


def test_the_trajectory_is_that_of_the_optimizer_of_torch(small_network):
    loss_fn, start = small_network
    run = flooding.flood_trajectory(loss_fn, start, 0.8, 0.5, 60)
    theta, losses, norms = start.clone().requires_grad_(), [], []
    optimizer = torch.optim.SGD([theta], lr=0.5)
    for _ in range(61):
        loss = loss_fn(theta)
        losses.append(float(loss.detach()))
        end = theta.detach().clone()
        optimizer.zero_grad()
        flooding.flood(loss, 0.8).backward()
        norms.append(float(theta.grad.square().sum()))
        optimizer.step()
    assert np.allclose(run.loss, losses, rtol=1e-9)
    assert np.allclose(run.sq_grad_norm, norms, rtol=1e-8)
    assert torch.allclose(run.theta, end, rtol=1e-8)
    assert (run.ascent == (np.array(losses[:-1]) < 0.8)).all()
    assert 10 < run.ascent.sum() < 50, "both directions are tested"


def test_the_shapes_of_a_trajectory_and_an_untouched_start():
    start = vector(1, 1)
    run = flooding.flood_trajectory(valley, start, 0.5, 0.05, 7)
    assert (run.loss.shape, run.sq_grad_norm.shape, run.ascent.shape) == ((8,), (8,), (7,))
    assert (run.loss.dtype, run.ascent.dtype, run.theta.dtype) == (np.float64, bool, DOUBLE)
    assert run.theta.shape == (2,)
    assert not run.theta.requires_grad
    assert torch.equal(start, vector(1, 1))
    assert not start.requires_grad


def test_at_level_zero_flooding_is_gradient_descent():
    run = flooding.flood_trajectory(valley, vector(1, 1), 0.0, 0.05, 20)
    assert torch.allclose(run.theta, vector(0.5**20, 0.95**20))
    assert not run.ascent.any()


def test_the_share_of_ascents_in_one_dimension():
    # a bounded product of factors (1 + a) and (1 - a) fixes their shares
    eps, curvature, steps = 0.1, 3.0, 4000
    a = eps * curvature
    run = flooding.flood_trajectory(lambda x: curvature * x.square().sum() / 2, vector(1), 0.5, eps, steps)
    expected = -math.log(1 - a) / (math.log(1 + a) - math.log(1 - a))
    assert run.ascent.mean() == pytest.approx(expected, abs=4 / steps)


def test_the_meter_reads_the_curvature_along_the_gradient():
    eps, curvature = 0.02, 2.0
    run = flooding.flood_trajectory(lambda x: curvature * x.square().sum() / 2, vector(1), 0.5, eps, 10_000)
    assert flooding.rayleigh_from_ascents(run.ascent, eps) == pytest.approx(curvature, rel=0.05)
    assert flooding.rayleigh_from_ascents(np.arange(10_000) % 400 < 201, 0.01) == pytest.approx(1.0)


def test_alternation_and_its_absence():
    assert flooding.rayleigh_from_ascents([False, True], 0.5) == 0
    assert flooding.rayleigh_from_ascents([False, False], 0.5) == -4


@pytest.mark.parametrize("ascent", [[], [0, 1, 1], [0.5, 0.5], np.zeros(0, dtype=bool)])
def test_the_meter_wants_booleans(ascent):
    with pytest.raises(TypeError, match="array of booleans"):
        flooding.rayleigh_from_ascents(ascent, 0.1)


@pytest.mark.parametrize("eps", [0, -0.1, math.nan])
def test_the_meter_wants_a_step_size(eps):
    with pytest.raises(ValueError, match="eps must be positive"):
        flooding.rayleigh_from_ascents([True, False], eps)


def test_a_start_below_the_level_warns_and_goes_up():
    with pytest.warns(UserWarning, match=r"starts at 0\.055, below the level 2"):
        run = flooding.flood_trajectory(valley, vector(0.1, 0.1), 2.0, 0.05, 5)
    assert run.ascent.all()
    assert (np.diff(run.loss) > 0).all()


def test_a_start_at_or_above_the_level_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flooding.flood_trajectory(valley, vector(1, 1), 5.5, 0.05, 5)
        flooding.flood_trajectory(valley, vector(1, 1), 0.5, 0.05, 20)


def test_an_exact_hit_stops_there_as_the_gradient_of_the_flooded_loss_is_zero():
    run = flooding.flood_trajectory(valley, vector(1, 1), 5.5, 0.05, 5)
    assert (run.loss == 5.5).all()
    assert not run.ascent.any()
    assert torch.equal(run.theta, vector(1, 1))
    assert slope(lambda loss: flooding.flood(loss, 5.5), vector(5.5).sum()) == 0


@pytest.mark.parametrize(
    ("level", "size", "steps", "complaint"),
    [
        (-0.1, 0.1, 5, "level must be finite"),
        (math.nan, 0.1, 5, "level must be finite"),
        (math.inf, 0.1, 5, "level must be finite"),
        (0.1, 0, 5, "must be positive"),
        (0.1, -0.1, 5, "must be positive"),
        (0.1, math.nan, 5, "must be positive"),
        (0.1, 0.1, 0, "steps at least 1"),
        (0.1, 0.1, -3, "steps at least 1"),
    ],
)
def test_bad_settings_of_a_run_are_refused(level, size, steps, complaint):
    for follow in (flooding.flood_trajectory, flooding.sliding_flow):
        with pytest.raises(ValueError, match=complaint):
            follow(valley, vector(1, 1), level, size, steps)


# --- the flow along the level -------------------------------------------------------------------------------------


def flow_of_scipy(loss_fn, start, times):
    """Solve eq-flooding-sliding by another integrator and another way to the curvature."""

    def velocity(_, theta):
        theta = torch.tensor(theta)
        g = torch.autograd.functional.jacobian(loss_fn, theta)
        curved = torch.autograd.functional.hessian(loss_fn, theta) @ g
        return (curved @ g / (g @ g) * g - curved).numpy()

    solution = solve_ivp(velocity, (0, times[-1]), start.numpy(), t_eval=times, method="DOP853", rtol=1e-8, atol=1e-10)
    return torch.tensor(solution.y.T)


@pytest.mark.parametrize(("loss_fn", "duration"), [(valley, 0.3), (bent, 0.6)])
def test_the_flow_is_that_of_scipy(loss_fn, duration):
    start = vector(0.25, 0.6)
    level = float(loss_fn(start))
    flow = flooding.sliding_flow(loss_fn, start, level, duration, 60)
    peer = flow_of_scipy(loss_fn, start, np.linspace(0, duration, 61))
    assert (peer[-1] - peer[0]).norm() > 0.1, "something moves"
    assert torch.allclose(flow.theta, peer, rtol=0, atol=1e-5)


def test_the_flow_converges_with_the_fourth_power_of_the_step():
    start, duration = vector(0.25, 0.6), 0.6
    end = flow_of_scipy(bent, start, [0, duration])[-1]
    errors = [
        float((flooding.sliding_flow(bent, start, float(bent(start)), duration, n).theta[-1] - end).norm())
        for n in (3, 6)
    ]
    assert 10 < errors[0] / errors[1] < 30


def test_the_flow_keeps_the_level_and_never_raises_the_gradient():
    flow = flooding.sliding_flow(bent, vector(0.4, 0.3), 0.35, 1.0, 50)
    assert flow.theta.shape == (51, 2)
    assert flow.sq_grad_norm.shape == flow.rayleigh.shape == (51,)
    assert max(abs(float(bent(point)) - 0.35) for point in flow.theta) < 1e-9
    assert (np.diff(flow.sq_grad_norm) < 0).all()


def test_the_flow_reports_norms_and_curvatures_of_its_points():
    flow = flooding.sliding_flow(valley, vector(0.25, 0.6), 0.5, 0.2, 10)
    g = flow.theta * vector(10, 1)
    assert np.allclose(flow.sq_grad_norm, g.square().sum(1))
    assert np.allclose(flow.rayleigh, (g.square() * vector(10, 1)).sum(1) / g.square().sum(1))
    assert ((flow.rayleigh > 1) & (flow.rayleigh < 10)).all()


def test_on_a_quadratic_the_flow_ends_at_the_tip_of_the_longest_axis():
    flow = flooding.sliding_flow(valley, vector(0.3, 0.1), 0.5, 3.0, 300)
    assert flow.sq_grad_norm[-1] == pytest.approx(2 * 0.5 * 1, rel=1e-6)
    assert torch.allclose(flow.theta[-1], vector(0, 1), atol=1e-6)
    assert flow.rayleigh[-1] == pytest.approx(1)


def test_the_flow_rests_where_the_gradient_is_an_eigenvector():
    flow = flooding.sliding_flow(valley, vector(math.sqrt(0.1), 0), 0.5, 1.0, 20)
    assert torch.allclose(flow.theta, flow.theta[:1].expand(21, 2), atol=1e-12)
    assert np.allclose(flow.rayleigh, 10)


def test_flooding_approaches_the_flow_as_its_steps_shrink():
    start, duration = vector(0.25, 0.6), 0.15
    level, gaps = float(valley(start)), []
    fine = flooding.sliding_flow(valley, start, level, duration, 100).sq_grad_norm
    for eps in (0.02, 0.01):
        steps = round(2 * duration / eps**2)
        run = flooding.flood_trajectory(valley, start * 1.0001, level, eps, steps)
        expected = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, 101), fine)
        smooth = np.convolve(run.sq_grad_norm - expected, np.ones(50) / 50, "valid")
        gaps.append(np.abs(smooth).max() / fine[0])
    assert gaps[0] < 0.3
    assert gaps[1] < 0.65 * gaps[0]


# --- a network as a function of one vector ------------------------------------------------------------------------


def test_network_loss_is_that_of_the_ensemble(classification, small_network):
    inputs, targets = classification
    loss_fn, start = small_network
    ensemble = training.EnsembleMLP([6, 8, 3], [4], activation="tanh").to(DOUBLE)
    expected = training.mean_losses(ensemble(inputs), targets[None])
    assert start.shape == (6 * 8 + 8 + 8 * 3 + 3,)
    assert start.dtype == DOUBLE
    assert torch.allclose(loss_fn(start), expected[0], rtol=1e-12)
    expected.sum().backward()
    _, g, _ = flooding.gradient_and_curvature(loss_fn, start)
    parts = [(w.grad[0].T.flatten(), b.grad.flatten()) for w, b in zip(ensemble.weights, ensemble.biases)]
    assert torch.allclose(g, torch.cat([part for pair in parts for part in pair]), rtol=1e-10, atol=1e-15)


def test_network_loss_trains_as_the_ensemble_does(classification):
    inputs, targets = classification[0].float(), classification[1]
    loss_fn, start = flooding.network_loss(inputs, targets, [6, 7, 5, 3], seed=2)
    assert start.dtype == torch.float32
    run = flooding.flood_trajectory(loss_fn, start, 0.0, 0.4, 30)
    curve = training.fit_ensemble(
        training.EnsembleMLP([6, 7, 5, 3], [2], activation="tanh"),
        inputs, targets, epochs=30, optimizer=lambda p: torch.optim.SGD(p, lr=0.4, foreach=False),
    )  # fmt: skip
    assert np.allclose(run.loss[:-1], curve[:, 0], atol=1e-5)
    assert run.loss[-1] < 0.9 * run.loss[0]


def test_another_seed_is_another_start(classification):
    starts = [flooding.network_loss(*classification, [6, 3], seed=seed)[1] for seed in (0, 1, 0)]
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
    linear = nn.Linear(6, 3)
    assert len(starts[0]) == sum(p.numel() for p in linear.parameters())


# --- data ---------------------------------------------------------------------------------------------------------

GENERATORS = [flooding.two_gaussians, flooding.sinusoid, flooding.spiral]


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize(("n", "noise"), [(100, 0.0), (100, 0.2), (50, 0.33), (10, 0.05), (20, 1.0)])
def test_exactly_the_floor_of_the_share_of_labels_is_flipped(generate, n, noise):
    x, noisy, clean = generate(n, noise, np.random.default_rng(0))
    assert (noisy != clean).sum() == int(n * noise)
    assert (x.dtype, noisy.dtype, clean.dtype) == (np.float32, np.int64, np.int64)
    assert x.shape == (n, 10 if generate is flooding.two_gaussians else 2)
    assert noisy.shape == clean.shape == (n,)
    assert set(noisy) | set(clean) <= {0, 1}


@pytest.mark.parametrize("generate", GENERATORS)
def test_equal_generators_give_equal_data_and_noise_moves_no_point(generate):
    first, again, noisier, other = (
        generate(40, p, np.random.default_rng(s)) for p, s in [(0.1, 3), (0.1, 3), (0.4, 3), (0.1, 4)]
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert np.array_equal(first[0], noisier[0])
    assert np.array_equal(first[2], noisier[2])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("generate", [flooding.two_gaussians, flooding.spiral])
def test_the_classes_are_balanced_so_an_odd_number_is_refused(generate):
    assert generate(30, 0.1, np.random.default_rng(0))[2].sum() == 15
    for n in (31, 1, 0, -2):
        with pytest.raises(ValueError, match=f"even and positive, half for each class, got {n}"):
            generate(n, 0.1, np.random.default_rng(0))


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize("noise", [-0.1, 1.1, math.nan])
def test_a_noise_rate_out_of_range_is_refused(generate, noise):
    with pytest.raises(ValueError, match="noise_rate must be in"):
        generate(10, noise, np.random.default_rng(0))


def test_the_gaussians_have_the_means_they_were_given():
    x, _, clean = flooding.two_gaussians(8000, 0.0, np.random.default_rng(0), dim=3, shift=0.5)
    bound = 6 / math.sqrt(4000)  # six standard errors
    assert np.allclose(x[clean == 0].mean(0), 0, atol=bound)
    assert np.allclose(x[clean == 1].mean(0), 0.5, atol=bound)
    assert np.allclose(x[clean == 1].std(0), 1, atol=bound)


def test_the_sinusoid_fills_its_disc_evenly_and_its_labels_are_the_curve():
    x, _, clean = flooding.sinusoid(9001, 0.0, np.random.default_rng(0))
    squares = (x.astype(float) ** 2).sum(1)
    assert squares.max() <= 4 * (1 + 1e-6)
    assert stats.kstest(squares / 4, "uniform").pvalue > 1e-6  # the squared radius of an even disc is even
    assert stats.kstest(np.arctan2(*x.T) / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-6
    height = 1.5 * x[:, 0] + np.sin(1.5 * x[:, 1])
    sure = np.abs(height) > 1e-5
    assert np.array_equal(clean[sure] == 1, height[sure] > 0)


def test_the_arms_of_the_spiral_without_jitter():
    x, _, clean = flooding.spiral(200, 0.0, np.random.default_rng(0), jitter=0.0)
    angle = np.linspace(0, 4 * np.pi, 100)
    for label in (0, 1):
        arm = x[clean == label].astype(float)
        assert np.allclose(np.hypot(*arm.T), angle + np.pi * label, atol=1e-5)
        turned = np.stack([np.cos(angle), np.sin(angle)], 1) * (angle + np.pi * label)[:, None]
        assert np.allclose(arm, turned, atol=1e-5)


def test_jitter_blurs_the_arms_by_what_was_asked():
    still, blurred = (flooding.spiral(6000, 0.0, np.random.default_rng(0), jitter=j)[0] for j in (0.0, 0.3))
    assert (blurred - still).std() == pytest.approx(0.3, rel=0.05)


def test_flips_go_to_every_other_class_alike_and_leave_the_argument_alone():
    labels = np.arange(12_000) % 4
    flipped = flooding.flip_labels(labels, 0.5, np.random.default_rng(0), n_classes=4)
    assert np.array_equal(labels, np.arange(12_000) % 4)
    assert (flipped != labels).sum() == 6000
    moves = np.bincount((flipped - labels)[flipped != labels] % 4, minlength=4)
    assert moves[0] == 0
    assert stats.chisquare(moves[1:]).pvalue > 1e-6
    assert stats.chisquare(np.bincount(labels[flipped != labels])).pvalue > 1e-6, "flips fall on all examples alike"


def test_sliding_flow_starts_on_the_level_or_says_that_it_cannot():
    valley = lambda v: v @ v / 2  # noqa: E731
    start = torch.tensor([10.0, 1.0], dtype=torch.float64)
    flow = flooding.sliding_flow(valley, start, 0.5, 0.1, 5)
    assert max(abs(float(valley(theta)) - 0.5) for theta in flow.theta) < 1e-9
    with pytest.raises(ValueError, match="the level 0.5 was not reached"):
        flooding.sliding_flow(lambda v: valley(v) + 1, start, 0.5, 0.1, 5)


def test_trajectory_stops_where_the_loss_is_no_number():
    start = torch.tensor([3.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="eps = 0.5 is too large"):
        flooding.flood_trajectory(lambda v: (v**4).sum(), start, 0.5, 0.5, 50)


def test_level_per_example_is_refused():
    with pytest.raises(ValueError, match=r"level must be a number or have shape \(\)"):
        flooding.flooded_objective(torch.rand(4), torch.rand(4))


def test_member_objective_keeps_double_precision():
    logits, targets = torch.zeros(1, 5, 2, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.long)
    value = flooding.member_objective(["flood"], [0.7])(logits, targets)
    assert float(value) == pytest.approx(1.4 - np.log(2), abs=1e-15)


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [0.5, 1.0]])
def test_flip_labels_refuses_other_labels(labels):
    with pytest.raises(ValueError, match=r"labels must be integers in 0\.\.1"):
        flooding.flip_labels(np.array(labels), 0.5, np.random.default_rng(0))


# ---------------------------------------------------------------- found by `make mutate`


def test_two_points_are_enough_for_two_classes():
    for generate in (flooding.two_gaussians, flooding.spiral):
        x, given, clean = generate(2, 0.0, np.random.default_rng(0))
        assert len(x) == 2
        assert sorted(clean.tolist()) == sorted(given.tolist()) == [0, 1]


@pytest.mark.parametrize("loss_fn", [lambda t: (t**4).sum(), lambda t: t.sum()])
def test_what_the_meter_returns_has_no_graph(loss_fn):
    for result in flooding.gradient_and_curvature(loss_fn, torch.tensor([1.0, 2.0])):
        assert not result.requires_grad


@pytest.mark.parametrize("bad", [math.inf, math.nan, -0.1])
def test_one_bad_level_among_good_ones_is_refused(bad):
    with pytest.raises(ValueError, match="level"):
        flooding.flood(torch.ones(2), torch.tensor([0.1, bad]))


def test_a_slope_that_depends_on_other_things_only_has_no_curvature():
    weights = torch.tensor([3.0, -1.0], requires_grad=True)
    _, g, curved = flooding.gradient_and_curvature(lambda theta: (weights * theta).sum(), torch.tensor([1.0, 2.0]))
    assert g.tolist() == [3, -1]
    assert curved.tolist() == [0, 0]


# ---------------------------------------------------------------- borders, defaults and exact small cases


def test_a_single_number_is_flooded_at_every_level_of_a_row():
    assert flooding.flood(vector(0.5).sum(), vector(0.0, 0.25, 0.75)).tolist() == [0.5, 0.5, 1.0]


def test_a_single_number_above_a_plain_level_is_returned_as_it_is():
    loss = vector(0.5).sum()
    assert flooding.flood(loss, 0.25) is loss


@pytest.mark.parametrize("method", flooding.METHODS)
def test_a_level_may_be_a_tensor_without_axes_and_zero(method):
    losses = some_losses(2, 3, 8)
    for level in (0.0, 0.3):
        found = flooding.flooded_objective(losses, torch.tensor(level, dtype=DOUBLE), method)
        assert torch.equal(found, flooding.flooded_objective(losses, level, method))


@pytest.mark.parametrize("method", flooding.METHODS)
def test_one_example_is_enough_and_leading_axes_may_be_empty(method):
    losses = some_losses(4, 1)
    expected = {"erm": losses, "softad": torch.sqrt((losses - 0.6) ** 2 + 1) - 0.4}.get(
        method, (losses - 0.6).abs() + 0.6
    )
    assert torch.allclose(flooding.flooded_objective(losses, 0.6, method), expected[:, 0])
    assert flooding.flooded_objective(torch.empty(0, 4), 0.6, method).shape == (0,)


def test_levels_of_the_wrong_axes_are_refused():
    for shape in ((3,), (2, 3, 8), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"level must be a number or have shape \(2, 3\)"):
            flooding.flooded_objective(some_losses(2, 3, 8), some_losses(*shape))


def test_two_examples_are_population_enough():
    # groups of one: half the losses stand a standard deviation above the level, half below
    assert flooding.dispersion_penalty(1.0, 1, 2) == pytest.approx(math.sqrt(2 / math.pi))
    assert flooding.dispersion_penalty(1.0, 2, 2) == 0
    assert flooding.dispersion_penalty(0.5, 3, 5) == pytest.approx(0.5 * math.sqrt(2 / (3 * math.pi) * 2 / 4))


def test_one_step_up_betrays_the_largest_curvature():
    assert flooding.rayleigh_from_ascents([True], 0.5) == 4
    assert flooding.rayleigh_from_ascents([True, True, False, True], 2.0) == 0.5


def test_a_loss_that_meets_the_level_on_its_way_rests_there():
    run = flooding.flood_trajectory(lambda x: x @ x / 2, vector(2), 0.5, 0.5, 4)
    assert run.loss.tolist() == [2, 0.5, 0.5, 0.5, 0.5]
    assert run.sq_grad_norm.tolist() == [4, 1, 1, 1, 1]
    assert run.ascent.tolist() == [False] * 4


def test_one_step_is_a_trajectory():
    run = flooding.flood_trajectory(lambda x: x @ x / 2, vector(2), 0.5, 0.25, 1)
    assert (run.loss.tolist(), run.theta.tolist()) == ([2, 1.125], [1.5])
    assert flooding.sliding_flow(valley, vector(0.25, 0.6), 0.5, 0.1, 1).theta.shape == (2, 2)


def test_the_warning_comes_once_and_before_the_first_step():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flooding.flood_trajectory(valley, vector(0.1, 0.1), 2.0, 0.01, 5)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="below the level"), pytest.raises(ValueError, match="inf after 1 steps"):
        flooding.flood_trajectory(lambda t: t.exp().sum(), vector(0), 2.0, 1000.0, 5)


def test_a_start_whose_loss_is_no_number_is_refused():
    with pytest.raises(ValueError, match="nan after 0 steps"):
        flooding.flood_trajectory(lambda t: t.log().sum(), vector(-1), 0.5, 0.1, 5)


@pytest.mark.parametrize("size", [math.inf, -math.inf])
def test_an_infinite_step_or_duration_is_refused(size):
    for follow in (flooding.flood_trajectory, flooding.sliding_flow):
        with pytest.raises(ValueError, match="must be positive and finite"):
            follow(valley, vector(1, 1), 0.5, size, 5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_start_below_the_level_is_brought_up_to_it_whatever_the_units_of_the_loss(scale):
    flow = flooding.sliding_flow(lambda t: scale * bent(t), vector(0.1, 0.2), 0.5 * scale, 0.1 / scale**2, 4)
    levels = [float(bent(theta)) for theta in flow.theta]
    assert levels == pytest.approx([0.5] * 5, rel=1e-9)


def test_the_flow_does_not_depend_on_the_graph_of_its_start():
    start = vector(0.25, 0.6).requires_grad_()
    flow = flooding.sliding_flow(bent, 1 * start, 0.5, 0.1, 4)
    run = flooding.flood_trajectory(bent, 1 * start, 0.05, 0.1, 4)
    _, g, curved = flooding.gradient_and_curvature(bent, 1 * start)
    assert not any(result.requires_grad for result in (flow.theta, run.theta, g, curved))
    assert torch.equal(flow.theta, flooding.sliding_flow(bent, start.detach(), 0.5, 0.1, 4).theta)
    assert start.grad is None


def test_every_point_that_the_loss_sees_is_without_history():
    leaves = []

    def watched(theta):
        leaves.append(theta.is_leaf)
        return bent(theta)

    start = vector(0.25, 0.6).requires_grad_()
    flooding.gradient_and_curvature(watched, start)
    flooding.flood_trajectory(watched, start, 0.2, 0.1, 4)
    flooding.sliding_flow(watched, start, 0.5, 0.1, 4)
    assert len(leaves) > 30
    assert all(leaves)


def test_no_members_have_no_losses():
    assert flooding.member_objective([], [])(torch.zeros(0, 5, 2), torch.zeros(0, 5, dtype=torch.long)).shape == (0,)


def test_the_start_of_a_network_has_no_graph(small_network):
    assert not small_network[1].requires_grad


def test_no_labels_are_flipped_into_no_labels():
    found = flooding.flip_labels(np.zeros(0, dtype=int), 0.5, np.random.default_rng(0))
    assert (found.shape, found.dtype) == ((0,), np.int64)


def test_labels_have_two_classes_by_default():
    assert flooding.flip_labels(np.arange(100) % 2, 1.0, np.random.default_rng(0)).tolist() == [1, 0] * 50


def test_the_data_by_default_have_ten_coordinates_a_shift_of_one_and_a_jitter_of_one():
    for generate, given in ((flooding.two_gaussians, {"dim": 10, "shift": 1.0}), (flooding.spiral, {"jitter": 1.0})):
        plain, spelled = (generate(40, 0.1, np.random.default_rng(2), **more) for more in ({}, given))
        assert all(np.array_equal(one, other) for one, other in zip(plain, spelled))


def test_the_second_gaussian_is_moved_in_the_direction_of_the_shift():
    near, far = (flooding.two_gaussians(40, 0.0, np.random.default_rng(2), shift=shift) for shift in (0.0, 3.0))
    assert far[0] - near[0] == pytest.approx(np.broadcast_to(3.0 * near[2][:, None], (40, 10)), abs=1e-5)


def test_a_point_on_the_sine_curve_is_not_positive():
    class AllZero:  # every point drawn at the origin
        def uniform(self, *bounds, size):
            return np.zeros(size)

        def permutation(self, n):
            return np.arange(n)

        def integers(self, low, high, size):
            return np.ones(size, dtype=int)

    x, _, clean = flooding.sinusoid(3, 0.0, AllZero())
    assert x.tolist() == [[0, 0]] * 3
    assert clean.tolist() == [0, 0, 0]


@pytest.mark.parametrize("level", [1e6 + shift / 7 for shift in range(1, 7)])
def test_a_high_level_is_reached_as_closely_as_its_rounding_allows(level):
    """The points around 2000 lie so far apart that none has just this loss."""
    flow = flooding.sliding_flow(lambda t: ((t - 1000) ** 2).sum(), vector(1990), level, 0.1, 1)
    assert flow.theta.numpy() == pytest.approx(1000 + math.sqrt(level), rel=1e-12)
