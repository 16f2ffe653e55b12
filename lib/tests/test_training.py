"""The shared loop learns, repeats itself bit by bit, and leaves the global generator alone."""

import pytest
import torch
from explainers import training


@pytest.fixture
def blobs():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(120) % 3
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    return centres[targets] + torch.randn(120, 2, generator=generator), targets


def test_it_learns(blobs):
    inputs, targets = blobs
    model = training.mlp([2, 16, 3], seed=0)
    before = training.accuracy(model, inputs, targets)
    training.fit_classifier(model, inputs, targets, epochs=20, lr=0.03, seed=0)
    assert training.accuracy(model, inputs, targets) > max(0.95, before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(blobs):
    def weights(seed):
        model = training.fit_classifier(training.mlp([2, 8, 3], seed=seed), *blobs, epochs=2, seed=seed)
        return torch.cat([p.detach().ravel() for p in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_order_of_batches_depends_on_the_seed(blobs):
    a, b = (training.fit_classifier(training.mlp([2, 8, 3], seed=0), *blobs, epochs=1, seed=s) for s in (0, 1))
    assert not torch.equal(a[0].weight, b[0].weight)


def test_the_global_generator_is_left_alone(blobs):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    training.fit_classifier(training.mlp([2, 8, 3], seed=5), *blobs, epochs=1, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_he_initialisation():
    layer = training.mlp([400, 300], seed=0)[0]
    assert layer.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not layer.bias.any()
    assert training.mlp([4, 3], seed=0, bias=False)[0].bias is None


def test_the_model_comes_back_in_evaluation_mode(blobs):
    assert not training.fit_classifier(training.mlp([2, 3], seed=0), *blobs, epochs=1).training


def test_accuracy_counts():
    model = torch.nn.Identity()
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert training.accuracy(model, logits, torch.tensor([1, 0, 0, 1])) == 0.75


def test_bad_inputs(blobs):
    inputs, targets = blobs
    model = training.mlp([2, 3], seed=0)
    with pytest.raises(ValueError, match="got 120 and 119"):
        training.fit_classifier(model, inputs, targets[1:], epochs=1)
    with pytest.raises(ValueError, match="got 0 and 0"):
        training.fit_classifier(model, inputs[:0], targets[:0], epochs=1)
    with pytest.raises(ValueError, match="must be positive, got 0 and 64"):
        training.fit_classifier(model, inputs, targets, epochs=0)
    with pytest.raises(ValueError, match="must be positive, got 1 and 0"):
        training.fit_classifier(model, inputs, targets, epochs=1, batch_size=0)
    with pytest.raises(ValueError, match="input and an output width"):
        training.mlp([2], seed=0)
