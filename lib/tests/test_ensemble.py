"""A member of an ensemble is the network it would be alone: start, loss curve, batches; and bad inputs are named."""

import itertools

import pytest
import torch
from torch import nn

from explainers import training
from explainers.training import EnsembleMLP, ensemble_accuracy, example_losses, fit_ensemble, mean_losses

SIZES = [6, 9, 5, 3]


def alone(seed, activation=nn.ReLU, sizes=SIZES):
    """The network that PyTorch itself makes after a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        a, b, c = (nn.Linear(*pair) for pair in itertools.pairwise(sizes))
    return nn.Sequential(a, activation(), b, activation(), c)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.3, foreach=False)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, foreach=False)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 40, 6, generator=generator)
    return inputs, (inputs[..., :3] + 0.3 * torch.randn(4, 40, 3, generator=generator)).argmax(-1)


@pytest.mark.parametrize(("name", "activation"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU)])
def test_members_start_as_the_networks_that_pytorch_makes(name, activation, data):
    seeds = [3, 0, 3, 11]
    logits = EnsembleMLP(SIZES, seeds, activation=name)(data[0])
    for k, seed in enumerate(seeds):
        assert torch.allclose(logits[k], alone(seed, activation)(data[0][k]), atol=1e-6)


def test_the_first_weights_are_equal_to_the_last_bit():
    ensemble, network = EnsembleMLP(SIZES, [5, 7]), alone(7)
    for i, layer in enumerate(network[::2]):
        assert torch.equal(ensemble.weights[i][1].T, layer.weight)
        assert torch.equal(ensemble.biases[i][1, 0], layer.bias)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_loss_curve_is_that_of_the_network_alone(optimizer, data):
    inputs, targets = data
    curves = fit_ensemble(EnsembleMLP(SIZES, [0, 1, 2, 3]), inputs, targets, epochs=60, optimizer=optimizer)
    assert curves.shape == (60, 4)
    for k in range(4):
        network = alone(k)
        step, curve = optimizer(network.parameters()), []
        for _ in range(60):
            loss = nn.functional.cross_entropy(network(inputs[k]), targets[k])
            step.zero_grad()
            loss.backward()
            step.step()
            curve.append(loss.item())
        assert curve[-1] < 0.8 * curve[0]
        assert torch.allclose(curves[:, k], torch.tensor(curve), atol=1e-5)


def test_mini_batches_are_those_of_the_members_own_seed(data):
    inputs, targets = data[0][0], data[1][0]
    curves = fit_ensemble(EnsembleMLP(SIZES, [4, 9]), inputs, targets, epochs=3, optimizer=sgd, batch_size=16)
    network, order, curve = alone(9), torch.Generator().manual_seed(9), []
    step = sgd(network.parameters())
    for _ in range(3):
        for batch in torch.randperm(40, generator=order).split(16):
            loss = nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            step.zero_grad()
            loss.backward()
            step.step()
            curve.append(loss.item())
    assert curves.shape == (9, 2)  # batches of 16, 16 and 8, three times
    assert torch.allclose(curves[:, 1], torch.tensor(curve), atol=1e-5)


def test_members_do_not_see_each_other(data):
    def last(inputs):
        ensemble = EnsembleMLP(SIZES, [0, 1, 2, 3])
        fit_ensemble(ensemble, inputs, data[1], epochs=20, optimizer=adam)
        return ensemble(data[0])

    changed = data[0].clone()
    changed[1] += 1
    before, after = last(data[0]), last(changed)
    assert not torch.allclose(before[1], after[1], atol=1e-3)
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])


def test_equal_seeds_and_data_give_equal_members_and_a_loss_of_their_own_parts_them(data):
    inputs, targets = data[0][0], data[1][0]
    scale = torch.tensor([1.0, 1.0, 0.2])
    ensemble = EnsembleMLP(SIZES, [5, 5, 5])
    values = fit_ensemble(
        ensemble, inputs, targets, epochs=10, optimizer=sgd, batch_size=8, loss=lambda z, y: scale * mean_losses(z, y)
    )
    assert torch.allclose(values[:, 0], values[:, 1], atol=1e-6)
    assert values[-1, 2] / 0.2 > values[-1, 0] + 0.1


def test_a_loss_may_take_targets_of_any_kind(data):
    inputs = data[0]
    targets = torch.stack([inputs[..., 0], inputs[..., 1]], -1)  # (member, example, 2): real targets
    ensemble = EnsembleMLP([6, 8, 2], range(4))
    values = fit_ensemble(
        ensemble, inputs, targets, epochs=50, optimizer=adam, loss=lambda z, y: ((z - y) ** 2).mean((1, 2))
    )
    assert (values[-1] < 0.6 * values[0]).all()


def test_on_epoch_sees_every_state_from_the_first_to_the_last(data):
    inputs, targets = data
    ensemble, seen = EnsembleMLP(SIZES, range(4)), []
    fit_ensemble(
        ensemble, inputs, targets, epochs=3, optimizer=sgd, batch_size=20,
        on_epoch=lambda done: seen.append((done, mean_losses(ensemble(inputs), targets).detach())),
    )  # fmt: skip
    assert [done for done, _ in seen] == [0, 1, 2, 3]
    assert torch.allclose(seen[0][1], mean_losses(EnsembleMLP(SIZES, range(4))(inputs), targets))
    assert (seen[3][1] < seen[0][1]).all()


def test_a_member_can_be_taken_out(data):
    ensemble = EnsembleMLP(SIZES, [1, 2, 3, 4], activation="tanh").double()
    network = ensemble.member(2)
    assert torch.allclose(network(data[0][2].double()), ensemble(data[0].double())[2])
    with torch.no_grad():
        network[0].weight.zero_()
    assert ensemble.weights[0][2].any(), "a copy, not a view"


def test_the_global_generator_is_left_alone(data):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fit_ensemble(EnsembleMLP(SIZES, range(4)), *data, epochs=1, optimizer=sgd, batch_size=8)
    assert torch.equal(torch.rand(3), expected)


def test_example_losses_are_those_of_each_example(data):
    inputs, targets = data
    logits = EnsembleMLP(SIZES, range(4))(inputs)
    losses = example_losses(logits, targets)
    assert losses.shape == (4, 40)
    assert losses[2, 7].item() == pytest.approx(-logits[2, 7].log_softmax(-1)[targets[2, 7]].item(), rel=1e-5)
    assert torch.allclose(mean_losses(logits, targets), losses.mean(1))


def test_ensemble_accuracy_is_that_of_each_member(data):
    inputs, targets = data
    ensemble = EnsembleMLP(SIZES, range(4))
    got = ensemble_accuracy(ensemble, inputs, targets)
    assert got.tolist() == [training.accuracy(ensemble.member(k), inputs[k], targets[k]) for k in range(4)]
    shared = ensemble_accuracy(ensemble, inputs[0], targets[0])
    assert shared[3].item() == training.accuracy(ensemble.member(3), inputs[0], targets[0])


def test_bad_inputs(data):
    inputs, targets = data
    ensemble = EnsembleMLP(SIZES, range(4))
    with pytest.raises(ValueError, match="input and an output width"):
        EnsembleMLP([6], [0])
    with pytest.raises(ValueError, match="one seed per member"):
        EnsembleMLP(SIZES, [])
    with pytest.raises(ValueError, match="activation must be one of .* got 'sine'"):
        EnsembleMLP(SIZES, [0], activation="sine")
    with pytest.raises(ValueError, match=r"shape \(4, n, 6\) or \(n, 6\), got \(3, 40, 6\)"):
        ensemble(inputs[:3])
    with pytest.raises(ValueError, match=r"got \(40, 5\)"):
        ensemble(inputs[0, :, :5])
    with pytest.raises(ValueError, match=r"got \(4, 40, 6\) and \(4, 39\)"):
        fit_ensemble(ensemble, inputs, targets[:, 1:], epochs=1, optimizer=sgd)
    with pytest.raises(ValueError, match=r"got \(4, 0, 6\) and \(4, 0\)"):
        fit_ensemble(ensemble, inputs[:, :0], targets[:, :0], epochs=1, optimizer=sgd)
    with pytest.raises(ValueError, match=r"got \(4, 40, 6\) and \(40,\)"):
        fit_ensemble(ensemble, inputs, targets[0], epochs=1, optimizer=sgd)
    with pytest.raises(ValueError, match="must be positive, got 0 and None"):
        fit_ensemble(ensemble, inputs, targets, epochs=0, optimizer=sgd)
    with pytest.raises(ValueError, match="must be positive, got 1 and 0"):
        fit_ensemble(ensemble, inputs, targets, epochs=1, optimizer=sgd, batch_size=0)
    with pytest.raises(ValueError, match=r"loss must return shape \(4,\), got \(4, 40\)"):
        fit_ensemble(ensemble, inputs, targets, epochs=1, optimizer=sgd, loss=example_losses)


# ---------------------------------------------------------------- found by `make mutate`


def test_a_network_of_one_layer_is_a_linear_layer(data):
    torch.manual_seed(2)
    layer = nn.Linear(6, 3)
    ensemble = EnsembleMLP([6, 3], [1, 2])
    torch.testing.assert_close(ensemble(data[0][0])[1], layer(data[0][0]))


def test_batches_of_one_example_are_allowed_and_the_losses_carry_no_graph(data):
    inputs, targets = data[0][:, :3], data[1][:, :3]
    values = fit_ensemble(EnsembleMLP(SIZES, range(4)), inputs, targets, epochs=2, optimizer=sgd, batch_size=1)
    assert values.shape == (6, 4)
    assert not values.requires_grad


def test_the_accuracy_makes_no_graph(data):
    ensemble, seen = EnsembleMLP(SIZES, range(4)), []
    ensemble.register_forward_hook(lambda *given: seen.append(torch.is_grad_enabled()))
    ensemble_accuracy(ensemble, *data)
    assert seen == [False]


def test_an_ensemble_wakes_no_accelerator(monkeypatch):
    """Its start is drawn on the processor: nothing asks a graphics card for the state of its generator."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *given: pytest.fail("asked"))
    EnsembleMLP(SIZES, [0])
