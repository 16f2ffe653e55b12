"""The plain training loop that the chapters share."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def fit_classifier(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
) -> nn.Module:
    """Minimise the cross entropy with Adam over shuffled mini-batches; change ``model`` in place and return it.

    Parameters
    ----------
    model
        Maps inputs ``(batch, ...)`` to logits ``(batch, classes)``.
    inputs, targets
        Shapes ``(examples, ...)`` and ``(examples,)``, the latter integer classes.
    epochs, batch_size, lr
        Passes over the data, examples per step, Adam's step size.
    seed
        Orders the mini-batches; nothing else here is random, and no global generator is touched.

    Raises
    ------
    ValueError
        If inputs and targets differ in length or are empty, or ``epochs`` or ``batch_size`` is not positive.
    """
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(f"inputs and targets need one equal, positive length, got {len(inputs)} and {len(targets)}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be positive, got {epochs} and {batch_size}")
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=order).split(batch_size):
            loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def mlp(sizes: list[int], *, seed: int, bias: bool = True) -> nn.Sequential:
    """Return a ReLU network with He-initialised weights and zero biases.

    Parameters
    ----------
    sizes
        Widths from the input to the logits, at least two.
    seed
        Of the weights; the same seed gives the same network on every machine.
    bias
        Whether the layers have biases.

    >>> mlp([64, 32, 10], seed=0)(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes needs an input and an output width, got {sizes}")
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias)
        with torch.no_grad():
            linear.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if bias:
                linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of ``inputs`` whose largest logit is at their target, between 0 and 1."""
    with torch.no_grad():
        return float((model(inputs).argmax(-1) == targets).double().mean())
