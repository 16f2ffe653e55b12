"""Tests of explainers.imbalance: laws, peers, extreme logits and bad input."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn import metrics
from torch.nn import functional as F

from explainers import imbalance, training
from explainers.corpus import Corpus
from explainers.imbalance import Knobs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Double logits (30, 5), targets (30,) that hold every class, and a prior (5,)."""
    logits = 3 * torch.randn(30, 5, dtype=torch.float64, generator=generator())
    prior = torch.tensor([0.6, 0.25, 0.1, 0.04, 0.01], dtype=torch.float64)
    return logits, torch.arange(30) % 5, prior


# --- priors and counts ----------------------------------------------------------------------------------------


def test_class_prior_is_the_share_and_smoothing_pulls_it_to_uniform():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    assert torch.allclose(imbalance.class_prior(labels, 3), torch.tensor([0.6, 0.3, 0.1]))
    assert torch.allclose(imbalance.class_prior(labels, 3, smoothing=1e6), torch.full((3,), 1 / 3), atol=1e-5)
    assert imbalance.class_prior(labels, 4, smoothing=1.0)[3] == pytest.approx(1 / 14)


def test_a_class_without_examples_is_named():
    with pytest.raises(ValueError, match="class 1, 3"):
        imbalance.class_prior(torch.tensor([0, 2]), 4)


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 1.0]), torch.tensor([0, 2]), torch.tensor([-1, 1])])
def test_class_prior_refuses_labels_that_are_no_classes(labels):
    with pytest.raises(ValueError, match="targets must"):
        imbalance.class_prior(labels, 2)


def test_class_prior_refuses_negative_smoothing():
    with pytest.raises(ValueError, match="smoothing"):
        imbalance.class_prior(torch.tensor([0, 1]), 2, smoothing=-0.5)


@pytest.mark.parametrize(("args", "total"), [((5000, 100, 10), 12_406), ((500, 100, 100), 10_847), ((7, 1, 3), 21)])
def test_long_tail_totals(args, total):
    counts = imbalance.long_tail_counts(*args)
    assert counts.sum() == total
    assert counts[-1] == args[0] // args[1]
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("args", [(0, 10, 5), (100, 0.5, 5), (100, 10, 1), (100, float("nan"), 3)])
def test_long_tail_bad_input(args):
    with pytest.raises(ValueError, match="needs"):
        imbalance.long_tail_counts(*args)


def test_effective_number_satisfies_its_recursion_and_limits():
    numbers = imbalance.effective_number(range(1, 50), 0.9).double()
    assert torch.allclose(numbers[1:], 1 + 0.9 * numbers[:-1])
    assert torch.equal(imbalance.effective_number([1, 7], 0), torch.ones(2))
    assert torch.allclose(imbalance.effective_number([10, 1000], 1 - 1e-9), torch.tensor([10.0, 1000.0]), rtol=1e-4)


def test_effective_number_weights_sum_to_the_classes_and_fall_with_size():
    weights = imbalance.effective_number_weights([1000, 100, 10], 0.99)
    assert weights.sum() == pytest.approx(3, rel=1e-6)
    assert weights[0] < weights[1] < weights[2]


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_effective_number_refuses_beta(beta):
    with pytest.raises(ValueError, match="beta must be in"):
        imbalance.effective_number([3], beta)


@pytest.mark.parametrize("counts", [[], [3, 0], [[1, 2]]])
def test_counts_are_checked(counts):
    with pytest.raises(ValueError, match="counts must"):
        imbalance.ldam_margins(counts)


# --- focal loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_its_definition(batch, gamma):
    logits, targets, _ = batch
    p = logits.softmax(1)[torch.arange(30), targets]
    found = imbalance.focal_loss(logits, targets, gamma, reduction="none")
    assert torch.allclose(found, (1 - p) ** gamma * -p.log(), rtol=1e-10)


@pytest.mark.parametrize("classes", [7, 200])  # either side of the change of method
def test_focal_loss_at_gamma_0_is_the_cross_entropy_of_pytorch(classes):
    logits = 1e3 * torch.randn(50, classes, generator=generator(21))
    targets = torch.cat([logits[:40].argmax(1), torch.arange(10) % classes])
    found, expected = (v.requires_grad_() for v in (logits.clone(), logits.clone()))
    losses = imbalance.focal_loss(found, targets, 0.0, reduction="none")
    theirs = F.cross_entropy(expected, targets, reduction="none")
    assert torch.allclose(losses, theirs, rtol=1e-5, atol=1e-7)
    (one,), (other,) = torch.autograd.grad(losses.sum(), found), torch.autograd.grad(theirs.sum(), expected)
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_binary_focal_loss_is_the_softmax_version_with_logits_0_and_z(gamma):
    z, y = torch.linspace(-6, 6, 25, dtype=torch.float64), torch.arange(25) % 2
    pair = torch.stack([torch.zeros_like(z), z], 1)
    expected = imbalance.focal_loss(pair, y, gamma, reduction="none")
    assert torch.allclose(imbalance.binary_focal_loss(z, y.double(), gamma, reduction="none"), expected, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.9), (1.5, None)])
def test_binary_focal_loss_agrees_with_the_formula_of_torchvision(gamma, alpha):
    z = torch.randn(4, 7, dtype=torch.float64, generator=generator(1))
    y = (torch.rand(4, 7, generator=generator(2)) < 0.3).double()
    p = torch.sigmoid(z)
    p_t = p * y + (1 - p) * (1 - y)
    expected = F.binary_cross_entropy_with_logits(z, y, reduction="none") * (1 - p_t) ** gamma
    if alpha is not None:
        expected = (alpha * y + (1 - alpha) * (1 - y)) * expected
    for reduction in ("none", "sum", "mean"):
        wanted = expected if reduction == "none" else getattr(expected, reduction)()
        assert torch.allclose(imbalance.binary_focal_loss(z, y, gamma, alpha, reduction), wanted)


def test_binary_focal_loss_keeps_its_relative_accuracy_in_the_tails():
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        for margin in (-300.0, -40.0, -1.0, 0.0, 1.0, 40.0, 150.0):
            miss = 1 / (1 + mpmath.exp(mpmath.mpf(margin)))
            exact = miss**2 * mpmath.log1p(mpmath.exp(-mpmath.mpf(margin)))
            found = imbalance.binary_focal_loss(torch.tensor([margin], dtype=torch.float64), torch.ones(1).double())
            assert abs(float(found) / float(exact) - 1) < 1e-10


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_saturated_logits(gamma, dtype):
    edge = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], dtype=dtype)
    logits = torch.cartesian_prod(edge, edge).requires_grad_()
    for target in (0, 1):
        loss = imbalance.focal_loss(logits, torch.full((49,), target), gamma)
        (grad,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()
    z = edge.clone().requires_grad_()
    for y in (torch.zeros(7, dtype=dtype), torch.ones(7, dtype=dtype)):
        (grad,) = torch.autograd.grad(imbalance.binary_focal_loss(z, y, gamma), z)
        assert torch.isfinite(grad).all()
        assert grad.abs().max() > 0


def test_class_weights_stay_out_of_the_modulating_factor(batch):
    logits, targets, _ = batch
    weight = torch.tensor([0.1, 1.0, 2.0, 5.0, 30.0], dtype=torch.float64)
    found = imbalance.focal_loss(logits, targets, 2.0, weight, reduction="none")
    assert torch.allclose(found, weight[targets] * imbalance.focal_loss(logits, targets, 2.0, reduction="none"))
    weighted = F.cross_entropy(logits, targets, weight=weight, reduction="none")
    assert not torch.allclose(found, (1 - torch.exp(-weighted)) ** 2 * weighted)  # the bug in public code


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_gamma_is_checked(batch, gamma):
    with pytest.raises(ValueError, match="gamma"):
        imbalance.focal_loss(*batch[:2], gamma)
    with pytest.raises(ValueError, match="gamma"):
        imbalance.binary_focal_loss(torch.zeros(2), torch.ones(2), gamma)


@pytest.mark.parametrize("loss", [imbalance.binary_focal_loss, imbalance.truncated_loss])
def test_binary_losses_check_their_targets(loss):
    with pytest.raises(ValueError, match="0 or 1"):
        loss(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(3), torch.ones(3, 1))
    with pytest.raises(TypeError, match="floating"):
        loss(torch.zeros(3), torch.ones(3, dtype=torch.long))
    with pytest.raises(ValueError, match="reduction"):
        loss(torch.zeros(3), torch.ones(3), reduction="average")


def test_alpha_is_checked():
    with pytest.raises(ValueError, match="alpha"):
        imbalance.binary_focal_loss(torch.zeros(1), torch.ones(1), alpha=1.5)


# --- truncation, GHM, hidden weights ---------------------------------------------------------------------------


def test_hard_truncation_is_the_limit_and_ignores_the_right_side():
    s = torch.tensor([-3.0, -0.2, 0.0, 0.2, 3.0], dtype=torch.float64)
    one = torch.ones_like(s)
    hard = imbalance.truncated_loss(s, one, reduction="none")
    assert torch.allclose(hard, imbalance.truncated_loss(s, one, 1e5, reduction="none"))
    assert torch.equal(hard[3:], torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(hard[:2], -F.logsigmoid(s[:2]))


def test_truncation_mirrors_the_classes():
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)
    negatives = imbalance.truncated_loss(z, torch.zeros_like(z), 2.0, reduction="none")
    assert torch.allclose(negatives, imbalance.truncated_loss(-z, torch.ones_like(z), 2.0, reduction="none"))


@pytest.mark.parametrize("sharpness", [0.0, -1.0])
def test_sharpness_is_checked(sharpness):
    with pytest.raises(ValueError, match="sharpness"):
        imbalance.truncated_loss(torch.zeros(1), torch.ones(1), sharpness)


def test_ghm_gives_filled_bins_the_same_total():
    norm = torch.rand(500, generator=generator(), dtype=torch.float64) ** 3
    weights = imbalance.ghm_weights(norm, bins=7)
    totals = torch.zeros(7, dtype=torch.float64).scatter_add_(0, (norm * 7).long(), weights)
    filled = totals[totals > 0]
    assert torch.allclose(filled, torch.full_like(filled, 500 / len(filled)))
    assert weights.mean() == pytest.approx(1)
    assert imbalance.ghm_weights(torch.tensor([1.0]))[0] == 1  # the right edge belongs to the last bin


def test_ghm_bad_input():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        imbalance.ghm_weights(torch.tensor([-0.1]))
    with pytest.raises(ValueError, match="bins"):
        imbalance.ghm_weights(torch.tensor([0.1]), bins=0)


def test_gradient_weights_of_known_losses():
    s = torch.linspace(-5, 5, 41, dtype=torch.float64)
    one, p = torch.ones_like(s), torch.sigmoid(s)
    assert torch.allclose(imbalance.gradient_weight(lambda v: -F.logsigmoid(v), s), one)
    assert torch.allclose(imbalance.gradient_weight(lambda v: -torch.sigmoid(v), s), p)
    focal = imbalance.gradient_weight(lambda v: imbalance.binary_focal_loss(v, one, 2.0, reduction="sum"), s)
    assert torch.allclose(focal, (1 - p) ** 2 - 2 * p * (1 - p) * p.log())


# --- logit adjustment and margins ------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjusted_loss_is_the_sum_over_rivals(batch, tau):
    logits, targets, prior = batch
    found = imbalance.logit_adjusted_loss(logits, targets, prior.log(), tau, reduction="none")
    for i, y in enumerate(targets.tolist()):
        rivals = sum((prior[j] / prior[y]) ** tau * torch.exp(logits[i, j] - logits[i, y]) for j in range(5) if j != y)
        assert found[i] == pytest.approx(float(torch.log1p(rivals)), rel=1e-9)


def test_adjust_logits_undoes_the_training_shift(batch):
    logits, _, prior = batch
    shifted = logits + 0.7 * prior.log()
    assert torch.allclose(imbalance.adjust_logits(shifted, prior.log(), 0.7), logits)


@pytest.mark.parametrize("loss", ["logit", "margin", "focal"])
def test_mean_divides_by_the_number_of_examples(batch, loss):
    logits, targets, prior = batch
    weight = 1 / prior
    call = {
        "logit": lambda **kw: imbalance.logit_adjusted_loss(logits, targets, prior.log(), weight=weight, **kw),
        "margin": lambda **kw: imbalance.margin_loss(logits, targets, torch.ones(5, 5), weight=weight, **kw),
        "focal": lambda **kw: imbalance.focal_loss(logits, targets, weight=weight, **kw),
    }[loss]
    each = call(reduction="none")
    assert call() == pytest.approx(float(each.sum() / 30))
    assert call(reduction="sum") == pytest.approx(float(each.sum()))


def test_margin_loss_ignores_the_diagonal_and_contains_its_relatives(batch):
    logits, targets, prior = batch
    margins = prior.log() - prior.log()[:, None]
    filled = margins + torch.diag(torch.full((5,), 9.0, dtype=torch.float64))
    adjusted = imbalance.logit_adjusted_loss(logits, targets, prior.log())
    assert torch.allclose(imbalance.margin_loss(logits, targets, margins), adjusted)
    assert torch.allclose(imbalance.margin_loss(logits, targets, filled), adjusted)
    plain = imbalance.margin_loss(logits, targets, torch.zeros(5, 5))
    assert torch.allclose(plain, F.cross_entropy(logits, targets))


def test_margins_may_be_learnt_and_stay_as_they_are(batch):
    logits, targets, _ = batch
    margins, z = torch.zeros(5, 5, dtype=torch.float64).requires_grad_(), logits.clone().requires_grad_()
    to_logits, to_margins = torch.autograd.grad(imbalance.margin_loss(z, targets, margins), (z, margins))
    p = logits.softmax(1)
    for y in range(5):
        expected = p[targets == y].sum(0) / 30
        expected[y] = 0
        assert torch.allclose(to_margins[y], expected)
    assert torch.allclose(to_logits, (p - F.one_hot(targets, 5)) / 30)
    assert torch.equal(margins.detach(), torch.zeros(5, 5, dtype=torch.float64))
    assert torch.equal(z.detach(), logits)


def test_ldam_is_the_reference_code(batch):
    logits, targets, _ = batch
    counts = [500, 200, 80, 20, 5]
    m = 1 / np.sqrt(np.sqrt(counts))
    m = torch.tensor(m * (0.5 / m.max()))
    taken = logits - F.one_hot(targets, 5) * m[targets][:, None]
    assert torch.allclose(imbalance.ldam_loss(logits, targets, counts), F.cross_entropy(30 * taken, targets), rtol=1e-5)
    family = imbalance.margin_loss(7 * logits, targets, 7 * m[:, None].expand(5, 5))
    assert torch.allclose(imbalance.ldam_loss(logits, targets, counts, scale=7.0), family, rtol=1e-5)


def test_pair_weights_reproduce_the_gradient(batch):
    logits, targets, prior = batch
    leaf = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(imbalance.logit_adjusted_loss(leaf, targets, prior.log(), 0.6, reduction="sum"), leaf)
    p, own = logits.softmax(1), F.one_hot(targets, 5).bool()
    push = (imbalance.pair_weights(logits, prior.log(), 0.6) * p).masked_fill(own, 0)
    expected = torch.where(own, -push.sum(1, keepdim=True), push)
    assert torch.allclose(grad, expected)
    assert torch.allclose((imbalance.pair_weights(logits, prior.log()) * p).sum(1), torch.ones(30).double())


def test_pointwise_mutual_information_ignores_a_shift(batch):
    logits, _, prior = batch
    found = imbalance.pointwise_mutual_information(logits, prior.log())
    assert torch.allclose(found, imbalance.pointwise_mutual_information(logits + 5, prior.log()))
    assert torch.allclose((found.exp() * prior).sum(1), torch.ones(30).double())


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_losses_and_gradients_survive_large_logits(scale):
    logits = (scale * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])).requires_grad_()
    targets, prior = torch.tensor([1, 1]), torch.tensor([0.9, 0.09, 0.01])
    for loss in (
        imbalance.logit_adjusted_loss(logits, targets, prior.log()),
        imbalance.margin_loss(logits, targets, torch.ones(3, 3)),
        imbalance.ldam_loss(logits, targets, [90, 9, 1]),
    ):
        (grad,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()


def test_log_prior_is_checked(batch):
    logits, targets, prior = batch
    with pytest.raises(ValueError, match="finite"):
        imbalance.logit_adjusted_loss(logits, targets, torch.tensor([0.0, -math.inf, -1, -1, -1]))
    with pytest.raises(ValueError, match="5 entries"):
        imbalance.adjust_logits(logits, prior[:3].log())
    with pytest.warns(UserWarning, match="instead of its logarithm"):
        imbalance.logit_adjusted_loss(logits, targets, prior)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imbalance.logit_adjusted_loss(logits, targets, prior.log())


@pytest.mark.parametrize("targets", [torch.full((30,), 5), torch.full((30,), -1), torch.zeros(30)])
def test_targets_out_of_range_or_floating(batch, targets):
    logits, _, prior = batch
    for loss in (
        lambda: imbalance.logit_adjusted_loss(logits, targets, prior.log()),
        lambda: imbalance.margin_loss(logits, targets, torch.zeros(5, 5)),
        lambda: imbalance.focal_loss(logits, targets),
        lambda: imbalance.ldam_loss(logits, targets, [5, 4, 3, 2, 1]),
        lambda: imbalance.expected_calibration_error(logits.softmax(1), targets),
    ):
        with pytest.raises(ValueError, match="targets must"):
            loss()


def test_shapes_are_checked(batch):
    logits, targets, _ = batch
    with pytest.raises(ValueError, match="margins must"):
        imbalance.margin_loss(logits, targets, torch.zeros(5))
    with pytest.raises(ValueError, match="counts must have 5"):
        imbalance.ldam_loss(logits, targets, [5, 4])
    with pytest.raises(ValueError, match="weight must have 5"):
        imbalance.focal_loss(logits, targets, weight=torch.ones(4))
    with pytest.raises(ValueError, match="as many targets"):
        imbalance.focal_loss(logits, targets[:7])
    with pytest.raises(TypeError, match="floating"):
        imbalance.focal_loss(logits.long(), targets)


# --- metrics to losses -----------------------------------------------------------------------------------------


def test_smooth_metrics_of_hard_probabilities_are_the_metrics_of_sklearn():
    y = (torch.rand(80, generator=generator(3)) < 0.3).long()
    said = (torch.rand(80, generator=generator(4)) < 0.4).double()
    expected = {
        "accuracy": metrics.accuracy_score(y, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, said),
        "f": metrics.f1_score(y, said),
        "jaccard": metrics.jaccard_score(y, said),
    }
    for name, value in expected.items():
        assert float(imbalance.smooth_metric(name, said, y)) == pytest.approx(value)
    f2 = metrics.fbeta_score(y, said, beta=2)
    assert float(imbalance.smooth_metric("f", said, y, beta=2.0)) == pytest.approx(f2)


@pytest.mark.parametrize("name", imbalance.METRICS)
def test_metric_weights_are_finite_differences(name):
    p = torch.rand(12, dtype=torch.float64, generator=generator(5)) * 0.8 + 0.1
    y = (torch.arange(12) % 3 == 0).long()
    found, step = imbalance.metric_weights(name, p, y), 1e-6
    for i in range(12):
        nudge = torch.zeros(12, dtype=torch.float64)
        nudge[i] = step if y[i] else -step
        up, down = (float(imbalance.smooth_metric(name, p + sign * nudge, y)) for sign in (1, -1))
        assert float(found[i]) == pytest.approx((up - down) / (2 * step), rel=1e-6)
    assert not found.requires_grad


def test_metric_surrogate_trains_towards_the_metric():
    """On overlapping classes the surrogate of F1 reaches a higher F1 at threshold 1/2 than cross entropy."""
    y = (torch.arange(4000) % 20 == 0).double()
    x = torch.randn(4000, dtype=torch.float64, generator=generator(6)) + 1.5 * y
    features = torch.stack([x, torch.ones_like(x)], 1)

    def fitted_f1(loss):
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([w], lr=0.05)
        for _ in range(600):
            optimizer.zero_grad()
            loss(features @ w).backward()
            optimizer.step()
        return metrics.f1_score(y, (features @ w).detach() > 0)

    plain = fitted_f1(lambda z: F.binary_cross_entropy_with_logits(z, y))
    assert fitted_f1(lambda z: imbalance.metric_surrogate("f", z, y)) > plain + 0.1


def test_a_metric_that_falls_is_refused():
    p, y = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="falls"):
        imbalance.metric_weights(lambda p, y: -imbalance.smooth_metric("f", p, y), p, y)


@pytest.mark.parametrize("name", ["f", "jaccard", "balanced_accuracy"])
def test_a_metric_without_positives_is_refused(name):
    with pytest.raises(ValueError, match="class 1"):
        imbalance.smooth_metric(name, torch.tensor([0.2, 0.7]), torch.tensor([0, 0]))


def test_metric_bad_input():
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="are these logits"):
        imbalance.smooth_metric("f", torch.tensor([-1.0, 2.0]), y)
    with pytest.raises(ValueError, match="metric must be"):
        imbalance.smooth_metric("recall", torch.tensor([0.5, 0.5]), y)
    with pytest.raises(ValueError, match="class 0"):
        imbalance.smooth_metric("balanced_accuracy", torch.tensor([0.5, 0.5]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="0 or 1"):
        imbalance.metric_weights("f", torch.tensor([0.5, 0.5]), torch.tensor([0, 2]))


# --- thresholds and calibration --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_best_cut_is_the_best_of_all_cuts(beta, dtype):
    for seed in range(20):
        g = generator(seed)
        y = (torch.rand(40, generator=g) < 0.3).long()
        y[0] = 1
        scores = (torch.rand(40, generator=g, dtype=dtype) * 8).round() / 8  # many ties
        threshold, score = imbalance.optimal_f_threshold(scores, y, beta)
        cuts = [-1.0, *scores.unique().tolist()]
        every = [metrics.fbeta_score(y, scores > c, beta=beta, zero_division=0) for c in cuts]
        assert score == pytest.approx(max(every))
        assert metrics.fbeta_score(y, scores > threshold, beta=beta) == pytest.approx(score)


def test_best_cut_between_neighbouring_floats():
    low = torch.tensor(0.3)
    high = torch.nextafter(low, torch.tensor(1.0))
    threshold, score = imbalance.optimal_f_threshold(torch.stack([low, high]), torch.tensor([0, 1]))
    assert score == 1
    assert (torch.stack([low, high]) > threshold).tolist() == [False, True]


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_dinkelbach_finds_the_best_threshold_of_calibrated_probabilities(beta):
    p = torch.rand(500, dtype=torch.float64, generator=generator(8)) ** 4
    threshold, score = imbalance.optimal_f_threshold(p, beta=beta)
    every = [imbalance.dinkelbach_step(p, (1 + beta**2) * float(t), beta) for t in p.unique()[:-1]]
    assert score == pytest.approx(max(every))
    assert threshold == pytest.approx(score / (1 + beta**2))


def test_threshold_bad_input():
    with pytest.raises(ValueError, match="class 1"):
        imbalance.optimal_f_threshold(torch.tensor([0.1]), torch.tensor([0]))
    with pytest.raises(ValueError, match="all probabilities are 0"):
        imbalance.optimal_f_threshold(torch.zeros(3))
    with pytest.raises(ValueError, match="beta"):
        imbalance.optimal_f_threshold(torch.ones(3), beta=0.0)
    with pytest.raises(ValueError, match="lie in"):
        imbalance.optimal_f_threshold(torch.tensor([3.0]))


def test_calibration_error_of_calibrated_and_of_proud_predictions():
    g = generator(9)
    p = torch.rand(200_000, generator=g, dtype=torch.float64)
    y = (torch.rand(200_000, generator=g, dtype=torch.float64) < p).long()
    table = torch.stack([1 - p, p], 1)
    assert imbalance.expected_calibration_error(table, y) < 0.01
    sure = torch.zeros(10, 2).index_fill_(1, torch.tensor([0]), 1.0)
    assert imbalance.expected_calibration_error(sure, torch.arange(10) % 2) == pytest.approx(0.5)


@pytest.mark.parametrize("table", [torch.tensor([[0.5, 0.6]]), torch.tensor([[1.5, -0.5]])])
def test_calibration_needs_distributions(table):
    with pytest.raises(ValueError, match="distribution"):
        imbalance.expected_calibration_error(table, torch.tensor([0]))


# --- experiments -----------------------------------------------------------------------------------------------


def test_knobs_are_the_losses_of_the_library(batch):
    logits, targets, prior = batch
    counts = torch.tensor([[600.0, 250, 100, 40, 10]] * 2)
    z, y = torch.stack([logits, -logits]).float(), torch.stack([targets, targets.flip(0)])
    single = {
        "cross entropy": F.cross_entropy,
        "focal": imbalance.focal_loss,
        "LDAM": lambda a, b: imbalance.ldam_loss(a, b, counts[0], scale=10.0),
        "weights 1/π": lambda a, b: (F.cross_entropy(a, b, reduction="none") / (5 * prior[b])).mean(),
        "logit adjustment": lambda a, b: imbalance.logit_adjusted_loss(a, b, prior.log()),
        "multiplicative": lambda a, b: F.cross_entropy(a * (prior / 0.6).float() ** 0.3, b),
    }
    for name, loss in single.items():
        found = imbalance.remedy(name, counts)(z, y)
        expected = torch.stack([loss(a, b).float() for a, b in zip(z, y)])
        assert torch.allclose(found, expected, rtol=1e-4), name
    one_sided = Knobs(margin=torch.full((2, 5), 1.5))(z, y)
    assert torch.allclose(one_sided[0], imbalance.margin_loss(z[0], y[0], torch.full((5, 5), 1.5)), rtol=1e-4)


def test_every_remedy_has_knobs_and_unknown_ones_are_refused():
    for name in imbalance.REMEDIES:
        assert isinstance(imbalance.remedy(name, torch.tensor([[30.0, 5.0]])), Knobs)
    with pytest.raises(ValueError, match="remedy must be one of"):
        imbalance.remedy("oversampling", torch.ones(1, 2))


def test_one_vs_rest_losses_are_binary_cross_entropies():
    z = torch.randn(2, 9, 4, generator=generator(10))
    y = torch.arange(18).reshape(2, 9) % 4
    positive, negative = torch.rand(2, 2, 4, generator=generator(11)) + 0.5
    onehot = F.one_hot(y, 4).float()
    weight = onehot * positive[:, None] + (1 - onehot) * negative[:, None]
    expected = F.binary_cross_entropy_with_logits(z, onehot, weight, reduction="none").sum(-1).mean(-1)
    assert torch.allclose(imbalance.one_vs_rest_losses(z, y, positive, negative), expected, rtol=1e-5)


def test_one_vs_rest_weights_are_those_of_each_binary_problem():
    z = torch.randn(1, 40, 3, generator=generator(12))
    y = torch.arange(40)[None] % 3
    positive, negative = imbalance.one_vs_rest_weights("f1", z, y)
    for k in range(3):
        weights = imbalance.metric_weights("f", torch.sigmoid(z[0, :, k]), y[0] == k)
        ratio = weights[y[0] == k][0] / weights[y[0] != k][0]
        assert torch.allclose(positive[0, k] / negative[0, k], ratio, rtol=1e-4)
    positive, negative = imbalance.one_vs_rest_weights("balanced", z, y)
    assert positive[0, 0] == pytest.approx(40 / 2 / 14)
    assert negative[0, 0] == pytest.approx(40 / 2 / 26)
    with pytest.raises(ValueError, match="rule"):
        imbalance.one_vs_rest_weights("dice", z, y)


def test_f1_and_recall_by_class_agree_with_sklearn():
    y = torch.randint(0, 4, (2, 60), generator=generator(13))
    said = torch.randint(0, 4, (2, 60), generator=generator(14))
    f1 = imbalance.f1_by_class(F.one_hot(said, 4).bool(), y)
    recall = imbalance.recall_by_class(said, y, 4)
    for k in range(2):
        assert np.allclose(f1[k], metrics.f1_score(y[k], said[k], average=None), atol=1e-6)
        assert np.allclose(recall[k], metrics.recall_score(y[k], said[k], average=None), atol=1e-6)


def test_dice_is_one_minus_the_smooth_f1():
    z, y = torch.randn(1, 30, 3, generator=generator(15)), torch.arange(30)[None] % 3
    expected = sum(1 - imbalance.smooth_metric("f", torch.sigmoid(z[0, :, k]), y[0] == k) for k in range(3))
    assert torch.allclose(imbalance.one_vs_rest_dice(z, y)[0], expected)


def test_topics_do_not_stand_in_their_texts():
    class Document:
        def __init__(self, topic, text):
            self.topic, self.text = topic, text

    docs = [Document("scipy.stats", f"Stats of a scipy sample number {'x' * n} here too") for n in range(2, 6)]
    docs += [Document("torch.nn", "A linear layer of torch that maps features")] * 3
    docs += [Document("torch", "no component here, so it is left out entirely")] * 9
    texts, labels, names = imbalance.topic_documents(docs, min_docs=3, min_words=4)
    assert names == ["scipy.stats", "torch.nn"]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert not {"scipy", "stats", "torch", "nn"} & set(" ".join(texts).split())
    assert len(Corpus([])) == 0


def test_split_by_class_keeps_shares_and_parts_apart():
    labels = torch.tensor([0] * 100 + [1] * 12)
    train, test = imbalance.split_by_class(labels, seed=3)
    assert not set(train.tolist()) & set(test.tolist())
    assert torch.bincount(labels[test]).tolist() == [30, 6]
    assert torch.bincount(labels[train]).tolist() == [70, 6]
    assert not torch.equal(train, imbalance.split_by_class(labels, seed=4)[0])


def test_draw_classes_makes_a_tail_and_a_balanced_test():
    labels = torch.arange(600) % 3
    counts = imbalance.long_tail_counts(80, 10, 3)
    train, test, sizes = imbalance.draw_classes(labels, counts, 50, seed=1)
    assert torch.bincount(labels[train]).tolist() == sizes.tolist()
    assert sorted(sizes.tolist()) == sorted(counts.tolist())
    assert torch.bincount(labels[test]).tolist() == [50] * 3
    assert not set(train.tolist()) & set(test.tolist())
    with pytest.raises(ValueError, match="are needed"):
        imbalance.draw_classes(labels, counts, 150, seed=1)


def test_plane_boundaries_lie_where_two_scores_tie():
    means, log_prior = np.array([[-1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]), np.log([0.7, 0.2, 0.1])
    for tau in (0.0, 1.0):
        for x1, y1, x2, y2 in imbalance.plane_boundaries(means, log_prior, tau, (4.0, 3.0)):
            for point in ((x1, y1), (x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2)):
                score = means @ point - (means**2).sum(1) / 2 + (1 - tau) * log_prior
                first, second = np.sort(score)[::-1][:2]
                assert first - second < 0.03


def test_adjusted_training_is_a_shifted_bias():
    """The claim eq-imbalance-bias-start, by the ensemble that the chapter trains."""
    counts = torch.tensor([[60.0, 30, 10]])
    log_prior = (counts / counts.sum()).log()
    x = torch.randn(100, 4, generator=generator(16))
    y = torch.arange(100) % 3
    adjusted, shifted = training.EnsembleMLP([4, 3], [0]), training.EnsembleMLP([4, 3], [0])
    with torch.no_grad():
        shifted.biases[0].add_(log_prior[:, None])
    settings = {"epochs": 30, "optimizer": lambda p: torch.optim.SGD(p, lr=0.5)}
    training.fit_ensemble(adjusted, x, y, loss=imbalance.remedy("logit adjustment", counts), **settings)
    training.fit_ensemble(shifted, x, y, **settings)
    with torch.no_grad():
        assert torch.allclose(adjusted(x), shifted(x) - log_prior[:, None], atol=1e-5)


def test_a_margin_of_the_true_class_stops_at_one_third():
    def threshold(plus, minus):
        margins = torch.tensor([[0.0, minus], [plus, 0.0]], dtype=torch.float64)

        def slope(eta):
            f = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
            losses = imbalance.margin_loss(f, torch.tensor([0, 1]), margins, reduction="none")
            return float(torch.autograd.grad((1 - eta) * losses[0] + eta * losses[1], f)[0][:, 1].sum())

        return optimize.brentq(slope, 1e-9, 1 - 1e-9)

    assert threshold(math.log(100), -math.log(0.99)) == pytest.approx(1.01 / 3)
    assert threshold(math.log(99), -math.log(99)) == pytest.approx(0.01)  # on both classes: all the way
    assert threshold(30.0, 0.0) > 1 / 3


def test_stacked_remedies_are_the_remedies_one_by_one():
    sizes = torch.tensor([[50.0, 10, 4], [9.0, 30, 5]])
    z, y = torch.randn(6, 12, 3, generator=generator(30)), torch.arange(72).reshape(6, 12) % 3
    names = ("focal", "weights 1/π", "logit adjustment")
    apart = [imbalance.remedy(name, sizes)(z[2 * k : 2 * k + 2], y[2 * k : 2 * k + 2]) for k, name in enumerate(names)]
    assert torch.equal(imbalance.stack_remedies(names, sizes)(z, y), torch.cat(apart))


def test_cosine_adam_ends_at_zero():
    adam = imbalance.CosineAdam(0.02, 4)
    optimizer = adam([torch.zeros(1, requires_grad=True)])
    rates = []
    for epoch in range(5):
        adam.anneal(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert np.allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(5) / 4)))


def test_scores_are_those_of_sklearn():
    z, y = torch.randn(2, 50, 4, generator=generator(31)), torch.arange(100).reshape(2, 50) % 4
    scores = imbalance.evaluate(z, y)
    for k, said in enumerate(z.argmax(-1)):
        assert float(scores.accuracy[k]) == pytest.approx(metrics.accuracy_score(y[k], said))
        assert float(scores.balanced[k]) == pytest.approx(metrics.balanced_accuracy_score(y[k], said))
        assert float(scores.f1[k]) == pytest.approx(metrics.f1_score(y[k], said, average="macro"))
        assert float(scores.ece[k]) == pytest.approx(imbalance.expected_calibration_error(z[k].softmax(-1), y[k]))


def test_long_tail_stacks_the_seeds_and_repeats():
    inputs, labels = torch.arange(600.0)[:, None], torch.arange(600) % 3
    tail = imbalance.long_tail(inputs, labels, imbalance.long_tail_counts(40, 4, 3), 20, [0, 1])
    assert tail.inputs.shape == (2, 70, 1)  # 40 + 20 + 10
    assert tail.test_targets.shape == (2, 60)
    assert torch.equal(labels[tail.inputs[1, :, 0].long()], tail.targets[1])
    assert torch.equal(torch.bincount(tail.targets[0]).float(), tail.sizes[0])
    assert torch.equal(tail.repeat(2).sizes, torch.cat([tail.sizes] * 2))


# --- found by `make mutate` -----------------------------------------------------------------------------------


def test_two_classes_and_a_scale_below_one_are_fine(batch):
    assert imbalance.long_tail_counts(8, 4, 2).tolist() == [8, 2]
    assert imbalance.long_tail_counts(1, 1, 2).tolist() == [1, 1]
    logits, targets, _ = batch
    half = imbalance.ldam_loss(logits, targets, [9, 7, 5, 3, 1], max_margin=0.0, scale=0.5)
    assert torch.allclose(half, F.cross_entropy(logits / 2, targets))


def test_a_metric_that_ignores_an_example_gives_it_no_weight():
    p, y = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    assert imbalance.metric_weights(lambda p, y: p[1] + 0 * p[0], p, y).tolist() == [0, 1]


def test_dinkelbach_step_by_hand():
    p = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)
    assert imbalance.dinkelbach_step(p, 0.8) == pytest.approx(2 * 1.5 / (1.8 + 2))
    assert imbalance.dinkelbach_step(p, 0.8, 2.0) == pytest.approx(5 * 1.8 / (4 * 1.8 + 3))
    assert imbalance.dinkelbach_step(p, 0.6) == pytest.approx(2 * 1.5 / (1.8 + 2))  # 0.3 is not above 0.6 / 2


def test_class_weights_of_the_remedies_by_hand(batch):
    logits, targets, prior = batch
    counts = torch.tensor([[600.0, 250, 100, 40, 10]])
    losses = F.cross_entropy(logits, targets, reduction="none")
    for name, weight in (
        ("weights π^-1/2", (5 * prior) ** -0.5),
        ("effective number", imbalance.effective_number_weights(counts[0], 0.999).double()),
    ):
        found = imbalance.remedy(name, counts)(logits[None].float(), targets[None])
        assert float(found) == pytest.approx(float((weight[targets] * losses).mean()), rel=1e-4), name


def test_the_shortest_text_and_the_smallest_topic_stay():
    class Document:
        def __init__(self, topic, text):
            self.topic, self.text = topic, text

    docs = [Document("a.b", "one two three")] * 2 + [Document("c.d", "one two three four")] * 3
    texts, labels, names = imbalance.topic_documents(docs, min_docs=2, min_words=3)
    assert (len(texts), labels.tolist(), names) == (5, [1, 1, 0, 0, 0], ["c.d", "a.b"])
    assert imbalance.topic_documents(docs, min_docs=2, min_words=4)[2] == ["c.d"]
    assert imbalance.topic_documents(docs, min_docs=3, min_words=3)[2] == ["c.d"]


def test_three_equal_centres_are_parted_by_their_bisectors():
    angles = np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    means = np.stack([np.cos(angles), np.sin(angles)], 1)
    segments = imbalance.plane_boundaries(means, np.log([1 / 3] * 3), 0.0, (3.0, 3.0))
    assert len(segments) == 3
    for (x1, y1, x2, y2), opposite in zip(segments, (2, 1, 0)):  # each runs from the middle away from the third centre
        near, far = sorted(((x1, y1), (x2, y2)), key=lambda p: np.hypot(*p))
        assert np.hypot(*near) < 0.02
        assert np.dot(far, means[opposite]) == pytest.approx(-np.hypot(*far), rel=1e-3)


@pytest.mark.parametrize("targets", [torch.zeros(2, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long)])
def test_targets_of_another_shape_or_none_are_refused(targets):
    with pytest.raises(ValueError, match="integer classes of shape"):
        imbalance.class_prior(targets, 2)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (imbalance.focal_loss, {"gamma": 2.0}),  # as its authors recommend
        (imbalance.binary_focal_loss, {"gamma": 2.0, "alpha": None}),
        (imbalance.ghm_weights, {"bins": 10}),
        (imbalance.logit_adjusted_loss, {"tau": 1.0}),
        (imbalance.adjust_logits, {"tau": 1.0}),
        (imbalance.pair_weights, {"tau": 1.0}),
        (imbalance.ldam_margins, {"max_margin": 0.5}),
        (imbalance.ldam_loss, {"max_margin": 0.5, "scale": 30.0}),  # the reference code's
        (imbalance.smooth_metric, {"beta": 1.0}),
        (imbalance.optimal_f_threshold, {"beta": 1.0}),
        (imbalance.expected_calibration_error, {"n_bins": 15}),  # as Guo et al. do
        (imbalance.remedy, {"tau": 1.0}),
        (imbalance.topic_documents, {"min_docs": 20, "min_words": 5}),
        (imbalance.split_by_class, {"share": 0.3, "least": 6}),
        (imbalance.class_prior, {"smoothing": 0.0}),
    ],
)
def test_settings_unless_others_are_asked_for(function, settings):
    found = inspect.signature(function).parameters
    assert {name: found[name].default for name in settings} == settings


@pytest.mark.parametrize("beta", [0.0, 0.999])
def test_effective_numbers_of_few_and_of_many_prototypes(beta):
    for size in (1, 2, 1000):
        expected = sum(beta**power for power in range(size))
        assert float(imbalance.effective_number([size], beta)) == pytest.approx(expected, rel=1e-6)


def test_equal_bins_are_closed_on_the_right():
    """Confidences of 0.6 and 0.8 with five bins: each lies alone in its bin, at the right end of it."""
    table = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], dtype=torch.float64)
    found = imbalance.expected_calibration_error(table, torch.tensor([0, 0, 1]), n_bins=5)
    assert found == pytest.approx((1 * abs(0.6 - 1) + 2 * abs(0.75 - 0.5)) / 3)


def test_a_single_bin_compares_the_means():
    table = torch.tensor([[0.6, 0.4], [0.2, 0.8]], dtype=torch.float64)
    assert imbalance.expected_calibration_error(table, torch.tensor([0, 0]), 1) == pytest.approx(abs(0.7 - 0.5))
    with pytest.raises(ValueError, match="n_bins"):
        imbalance.expected_calibration_error(table, torch.tensor([0, 0]), 0)


def test_a_prior_with_one_zero_and_no_negative_entry_is_no_logarithm():
    with pytest.warns(UserWarning, match="no negative entry"):
        imbalance.adjust_logits(torch.zeros(1, 2), torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize(("alpha", "silent"), [(0.0, 1.0), (1.0, 0.0)])
def test_alpha_at_its_bounds_silences_one_class(alpha, silent):
    y = torch.tensor([0.0, 1.0])
    losses = imbalance.binary_focal_loss(torch.tensor([0.5, -0.5]), y, alpha=alpha, reduction="none")
    assert ((losses == 0) == (y == silent)).all()


def test_the_hard_step_has_no_slope_and_a_soft_one_may_be_gentle():
    z = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(imbalance.truncated_loss(z, torch.ones_like(z), reduction="sum"), z)
    assert torch.allclose(slope, torch.where(z < 0, -torch.sigmoid(-z), 0.0))
    z = z.detach()
    gentle = imbalance.truncated_loss(z, torch.ones_like(z), 0.5, reduction="none")
    assert torch.allclose(gentle, torch.log1p(torch.exp(-z)) / (1 + torch.exp(z / 2)))


def test_ghm_by_hand():
    norm = torch.tensor([0.05, 0.95, 1.0])
    assert imbalance.ghm_weights(norm).tolist() == [1.5, 0.75, 0.75]  # the last two share a bin
    assert imbalance.ghm_weights(norm, bins=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("settings", [{"max_margin": -0.1}, {"scale": 0.0}, {"scale": -1.0}])
def test_ldam_refuses_a_negative_margin_and_a_scale_without_slope(batch, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        imbalance.ldam_loss(*batch[:2], [5, 4, 3, 2, 1], **settings)


def test_ldam_reductions(batch):
    logits, targets, _ = batch
    each = imbalance.ldam_loss(logits, targets, [5, 4, 3, 2, 1], reduction="none")
    assert each.shape == (30,)
    assert torch.allclose(imbalance.ldam_loss(logits, targets, [5, 4, 3, 2, 1], reduction="sum"), each.sum())
    assert torch.allclose(imbalance.ldam_loss(logits, targets, [5, 4, 3, 2, 1]), each.mean())


def test_class_weights_multiply_the_loss_of_each_example(batch):
    logits, targets, prior = batch
    weight = torch.tensor([0.1, 1.0, 2.0, 5.0, 30.0], dtype=torch.float64)
    margins = torch.rand(5, 5, dtype=torch.float64, generator=generator(32))
    for loss, setting in ((imbalance.logit_adjusted_loss, prior.log()), (imbalance.margin_loss, margins)):
        found = loss(logits, targets, setting, weight=weight, reduction="none")
        assert torch.allclose(found, weight[targets] * loss(logits, targets, setting, reduction="none"))


@pytest.mark.parametrize(
    "function", [imbalance.adjust_logits, imbalance.pair_weights, imbalance.pointwise_mutual_information]
)
def test_corrections_of_logits_allow_any_number_of_leading_axes(batch, function):
    logits, _, prior = batch
    expected = function(logits, prior.log())
    assert torch.allclose(function(logits.view(2, 3, 5, 5), prior.log()).view(30, 5), expected)
    assert torch.allclose(function(logits[0], prior.log()), expected[0])


@pytest.mark.parametrize("log_prior", [[0.0, 0.0], [-1.0, 0.5], [-1.0, 0.0]])
def test_no_alarm_at_logarithms_of_unnormalized_shares(log_prior):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imbalance.adjust_logits(torch.zeros(1, 2), torch.tensor(log_prior))


def test_whole_numbers_are_no_logits(batch):
    logits, targets, prior = batch
    for loss in (
        lambda z: imbalance.focal_loss(z, targets),
        lambda z: imbalance.logit_adjusted_loss(z, targets, prior.log()),
        lambda z: imbalance.margin_loss(z, targets, torch.zeros(5, 5)),
        lambda z: imbalance.ldam_loss(z, targets, [5, 4, 3, 2, 1]),
    ):
        with pytest.raises(TypeError, match="logits must be floating"):
            loss(logits.long())


@pytest.mark.parametrize(
    "function",
    [
        imbalance.ghm_weights,
        imbalance.optimal_f_threshold,
        lambda p: imbalance.smooth_metric("accuracy", p, torch.zeros(p.shape)),
    ],
)
@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (torch.tensor([0, 1]), "must be floating"),
        (torch.tensor([[0.5, 0.5]]), "shape"),
        (torch.zeros(0), "shape"),
        (torch.tensor([0.5, 1.01]), r"0\.5 \.\.\. 1\.01; are these logits"),
        (torch.tensor([-0.01, 0.5]), r"-0\.01 \.\.\. 0\.5; are these logits"),
        (torch.tensor([0.5, math.nan]), r"lie in \[0, 1\]"),
    ],
)
def test_one_bad_probability_is_enough(function, probs, message):
    with pytest.raises(ValueError, match=message):
        function(probs)


def test_probabilities_and_targets_need_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        imbalance.smooth_metric("accuracy", torch.tensor([0.5, 0.5]), torch.tensor([1]))


@pytest.mark.parametrize("label", [0, 1])
def test_accuracy_has_weights_even_with_one_class(label):
    weights = imbalance.metric_weights("accuracy", torch.tensor([0.2, 0.7]), torch.tensor([label, label]))
    assert weights.tolist() == [0.5, 0.5]


def test_a_metric_that_falls_somewhere_names_the_worst_place():
    p, y = torch.tensor([0.2, 0.7, 0.4]), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=r"falls by 3 per unit .* of example 1$"):
        imbalance.metric_weights(lambda p, y: p[2] - 3 * p[1] + p[0], p, y)


def test_the_surrogate_of_accuracy_is_the_cross_entropy():
    z, y = torch.linspace(-3, 3, 8), torch.arange(8) % 2
    found = imbalance.metric_surrogate("accuracy", z, y)
    assert torch.allclose(found, F.binary_cross_entropy_with_logits(z, y.float()))


def test_the_weights_of_a_surrogate_are_frozen():
    z, y = torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([1, 0])
    loss = imbalance.metric_surrogate("f", z, y)  # weights 3/4 and 1/4, as in the example of metric_weights
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert torch.allclose(torch.autograd.grad(loss, z)[0], torch.tensor([-0.75, 0.25]) / 2)


def test_rare_classes_have_a_threshold_too():
    """Probabilities that sum to less than 1, none above 1/2: the first alone gets 2 x 0.2 / (0.3 + 1)."""
    threshold, score = imbalance.optimal_f_threshold(torch.tensor([0.2, 0.1], dtype=torch.float64))
    assert score == pytest.approx(0.4 / 1.3)
    assert threshold == pytest.approx(0.2 / 1.3)


def test_decisions_and_calibration_take_probabilities_of_a_network():
    z = torch.tensor([2.0, 0.5, -1.0], requires_grad=True)
    p, y = torch.sigmoid(z), torch.tensor([1, 1, 0])
    table = torch.stack([1 - p, p], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert imbalance.optimal_f_threshold(p) == imbalance.optimal_f_threshold(p.detach())
        assert imbalance.optimal_f_threshold(p, y) == imbalance.optimal_f_threshold(p.detach(), y)
        found = imbalance.expected_calibration_error(table, y)
        assert found == imbalance.expected_calibration_error(table.detach(), y)
        with pytest.raises(ValueError, match="are these logits"):
            imbalance.optimal_f_threshold(z)


@pytest.mark.parametrize(("table", "said"), [([0.4, 0.3, 0.3], 0.4), ([1.0005, 0.0, 0.0], 1.0005)])
def test_the_first_and_the_last_bin_of_two(table, said):
    """A wrong answer of confidence ``said`` and a right one of 0.6, which is in the second bin of two."""
    found = imbalance.expected_calibration_error(torch.tensor([table, [0.6, 0.2, 0.2]]), torch.tensor([1, 0]), n_bins=2)
    gaps = (0 - said, 1 - 0.6)
    assert found == pytest.approx(abs(sum(gaps)) / 2 if said > 0.5 else sum(map(abs, gaps)) / 2)


def test_rows_that_sum_to_one_but_for_a_thousandth_are_distributions():
    for off in (-0.0009, 0.0009):
        imbalance.expected_calibration_error(torch.tensor([[0.5, 0.5 + off]]), torch.tensor([0]))
    for off in (-0.0015, 0.0015):
        with pytest.raises(ValueError, match="distribution"):
            imbalance.expected_calibration_error(torch.tensor([[0.5, 0.5 + off]]), torch.tensor([0]))


def test_cosine_adam_begins_with_its_rate():
    assert imbalance.CosineAdam(0.02, 4)([torch.zeros(1, requires_grad=True)]).param_groups[0]["lr"] == 0.02


def test_texts_and_topics_are_compared_in_lower_case():
    class Document:
        topic, text = "Torch.NN", "A Linear LAYER of torch: maps 2 NN features, Torch says"

    texts, _, names = imbalance.topic_documents([Document], min_docs=1, min_words=1)
    assert texts == ["linear layer of maps features says"]
    assert names == ["Torch.NN"]


def test_split_by_class_counts_three_classes_and_repeats():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 30)[torch.randperm(60, generator=generator(33))]
    train, test = imbalance.split_by_class(labels, seed=5)
    assert torch.bincount(labels[test]).tolist() == [6, 6, 9]  # at least 6; 30 % of 30
    assert torch.bincount(labels[train]).tolist() == [4, 14, 21]
    assert [v.tolist() for v in imbalance.split_by_class(labels, seed=5)] == [train.tolist(), test.tolist()]


def test_one_vs_rest_without_weights_is_the_plain_cross_entropy():
    z, y = torch.randn(2, 9, 4, generator=generator(34)), torch.arange(18).reshape(2, 9) % 4
    weights = imbalance.one_vs_rest_weights("none", z, y)
    assert [w.tolist() for w in weights] == [[[1.0] * 4] * 2] * 2
    expected = F.binary_cross_entropy_with_logits(z, F.one_hot(y, 4).float(), reduction="none").sum(-1).mean(-1)
    assert torch.allclose(imbalance.one_vs_rest_losses(z, y, *weights), expected, rtol=1e-5)


def ends(segment):
    return sorted([tuple(segment[:2]), tuple(segment[2:])])


def test_boundaries_of_three_far_centres_by_hand():
    """Left, right and below at distance 10: the lines x = 0, y = x and y = -x meet in the origin, 3 is the frame."""
    means = np.array([[-10.0, 0.0], [10.0, 0.0], [0.0, -10.0]])
    segments = imbalance.plane_boundaries(means, np.zeros(3), 0.0, (4.0, 3.0))
    for found, expected in zip(segments, ([(0, 0), (0, 3)], [(-3, -3), (0, 0)], [(0, 0), (3, -3)]), strict=True):
        assert np.allclose(ends(found), sorted(expected), atol=0.011)


def test_a_boundary_moves_by_half_the_log_of_the_shares():
    means, log_prior = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -99.0]]), np.log([0.7, 0.1, 0.2])
    for tau, x in ((0.0, math.log(7) / 2), (0.5, math.log(7) / 4), (1.0, 0.0)):
        ((x1, y1, x2, y2),) = imbalance.plane_boundaries(means, log_prior, tau, (4.0, 3.0))
        assert x1 == x2 == round(x, 2)  # to two digits: the numbers are written into a page
        assert sorted((y1, y2)) == pytest.approx([-3, 3], abs=0.011)


def test_boundaries_at_the_edges_of_picture_and_territory():
    means = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, -99.0]])
    assert len(imbalance.plane_boundaries(means, np.zeros(3), 0.0, (1.0, 3.0))) == 1  # on the frame, x = 1
    assert imbalance.plane_boundaries(means, np.zeros(3), 0.0, (0.99, 3.0)) == []  # outside
    assert imbalance.plane_boundaries(means, np.zeros(3), 0.0, (4.0, 0.002)) == [[1, 0, 1, 0]]  # a point of it
    squeezed = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])  # the third ties with both on x = 0 and wins nowhere
    assert len(imbalance.plane_boundaries(squeezed, np.array([0.0, 0.0, -0.5]), 0.0, (4.0, 3.0))) == 3


def test_draw_classes_takes_the_last_example_and_not_one_more():
    labels = torch.tensor([0, 1] * 6)
    train, test, sizes = imbalance.draw_classes(labels, np.array([4, 4]), 2, seed=0)
    assert sizes.tolist() == [4, 4]
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(12))
    assert [labels[train].tolist(), labels[test].tolist()] == [[0] * 4 + [1] * 4, [0, 0, 1, 1]]
    with pytest.raises(ValueError, match="class 1 has 5 examples, 6 are needed"):
        imbalance.draw_classes(labels[:11], np.array([4, 4]), 2, seed=0)


def test_draw_classes_is_decided_by_its_seed():
    labels, counts = torch.arange(60) % 3, np.array([12, 6, 3])
    draws = [[v.tolist() for v in imbalance.draw_classes(labels, counts, 4, seed)] for seed in (*range(12), 0)]
    assert draws[0] == draws[-1]
    for part in range(2):  # of twelve draws of places no two are equal
        assert len({tuple(draw[part]) for draw in draws}) == 12
    assert {draw[2].index(12) for draw in draws} == {0, 1, 2}  # each class is the largest at times


def test_long_tail_is_draw_classes_seed_by_seed():
    inputs, labels = torch.arange(60.0)[:, None] / 2, torch.arange(60) % 3
    counts = np.array([12, 6, 3])
    tail = imbalance.long_tail(inputs, labels, counts, 4, [7, 3])
    for at, seed in enumerate((7, 3)):
        train, held, sizes = imbalance.draw_classes(labels, counts, 4, seed)
        expected = (inputs[train], labels[train], inputs[held], labels[held], sizes.float())
        assert all(torch.equal(value[at], wanted) for value, wanted in zip(vars(tail).values(), expected, strict=True))
    for value, twice in zip(vars(tail).values(), vars(tail.repeat(2)).values(), strict=True):
        assert torch.equal(twice, torch.cat([value, value]))


def test_all_knobs_at_once_are_the_formula(batch):
    logits, targets, _ = batch
    weight, shift, multiplier, margin = torch.rand(4, 1, 5, dtype=torch.float64, generator=generator(35)) + 0.2
    found = Knobs(weight, shift, multiplier, margin, gamma=1.5)(logits[None], targets[None])
    scores = multiplier * logits + shift - margin * F.one_hot(targets, 5)
    p = scores.softmax(1)[torch.arange(30), targets]
    assert float(found) == pytest.approx(float((weight[0, targets] * (1 - p) ** 1.5 * -p.log()).mean()))


def test_the_adjustment_of_a_remedy_has_a_strength(batch):
    logits, targets, prior = batch
    found = imbalance.remedy("logit adjustment", 1000 * prior[None], tau=0.3)(logits[None], targets[None])
    assert float(found) == pytest.approx(float(imbalance.logit_adjusted_loss(logits, targets, prior.log(), 0.3)))


def test_effective_number_weights_are_one_over_the_effective_number():
    weights = imbalance.effective_number_weights([1, 2, 3], 0.5)  # numbers 1, 3/2 and 7/4
    assert torch.allclose(weights, torch.tensor([1.0, 2 / 3, 4 / 7]) * 3 / (1 + 2 / 3 + 4 / 7))
