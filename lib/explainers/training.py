"""The plain training loop that the chapters share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

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


# --- Many small networks at once --------------------------------------------------------------------------------

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}

EnsembleLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits ``(members, n, classes)`` and targets ``(members, n, ...)`` to one number per member, ``(members,)``."""


class EnsembleMLP(nn.Module):
    """Many networks of one shape, trained side by side: one matrix product per layer serves all of them.

    Member ``k`` starts exactly as ``nn.Linear`` layers made after ``torch.manual_seed(seeds[k])``, and no gradient
    flows between members, so each trains as it would alone (chapters flooding and imbalance).

    Parameters
    ----------
    sizes
        Widths from the input to the logits, at least two.
    seeds
        One per member; equal seeds give equal networks, which is how two methods are compared from one start.
    activation
        ``"relu"``, ``"tanh"`` or ``"gelu"``, after each layer but the last.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, no seed, or the activation is unknown.

    >>> ensemble = EnsembleMLP([30, 16, 2], seeds=[0, 1, 0])
    >>> ensemble(torch.zeros(5, 30)).shape
    torch.Size([3, 5, 2])
    >>> [tuple(p.shape) for p in ensemble.parameters()]
    [(3, 30, 16), (3, 16, 2), (3, 1, 16), (3, 1, 2)]
    """

    def __init__(self, sizes: Sequence[int], seeds: Sequence[int], activation: str = "relu"):
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes needs an input and an output width, got {list(sizes)}")
        if len(seeds) == 0:
            raise ValueError("seeds needs one seed per member, got none")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}")
        self.sizes, self.seeds, self.activation = list(sizes), [int(seed) for seed in seeds], activation
        self._nonlinearity = _ACTIVATIONS[activation]()
        networks = [self._linears(seed) for seed in self.seeds]
        with torch.no_grad():
            layers = list(zip(*networks))
            self.weights = nn.ParameterList(torch.stack([m.weight.T for m in layer]) for layer in layers)
            self.biases = nn.ParameterList(torch.stack([m.bias[None] for m in layer]) for layer in layers)

    def _linears(self, seed: int) -> list[nn.Linear]:
        with torch.random.fork_rng(devices=[]):  # the global generator is left as it was
            torch.manual_seed(seed)
            return [nn.Linear(*pair) for pair in itertools.pairwise(self.sizes)]

    def __len__(self) -> int:
        return len(self.seeds)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(members, n, d)``, or ``(n, d)`` for all members, to logits ``(members, n, classes)``."""
        hidden = inputs.expand(len(self), *inputs.shape) if inputs.dim() == 2 else inputs
        if hidden.dim() != 3 or hidden.shape[0] != len(self) or hidden.shape[2] != self.sizes[0]:
            wanted = f"({len(self)}, n, {self.sizes[0]}) or (n, {self.sizes[0]})"
            raise ValueError(f"inputs must have shape {wanted}, got {tuple(inputs.shape)}")
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            hidden = torch.baddbmm(bias, hidden if i == 0 else self._nonlinearity(hidden), weight)
        return hidden

    def member(self, k: int) -> nn.Sequential:
        """Return a copy of member ``k`` as an ordinary network."""
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases):
            linear = nn.utils.skip_init(nn.Linear, *weight.shape[1:], dtype=weight.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight[k].T)
                linear.bias.copy_(bias[k, 0])
            layers += [linear, _ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers[:-1])


def example_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of every example: ``(..., n, classes)`` and ``(..., n)`` -> ``(..., n)``."""
    flat = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return flat.reshape(targets.shape)


def mean_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each member's mean cross entropy: ``(members, n, classes)`` and ``(members, n)`` -> ``(members,)``."""
    return example_losses(logits, targets).mean(-1)


def fit_ensemble(
    ensemble: EnsembleMLP,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    batch_size: int | None = None,
    loss: EnsembleLoss = mean_losses,
    on_epoch: Callable[[int], object] | None = None,
) -> Tensor:
    """Train every member on its own data and loss; change ``ensemble`` in place, return the losses of all steps.

    Parameters
    ----------
    ensemble
        What to train.
    inputs
        Shape ``(members, n, d)``, or ``(n, d)`` where all members see the same.
    targets
        Shape ``(members, n, ...)``, or ``(n, ...)`` with inputs ``(n, d)``; what ``loss`` makes of them is its affair.
    epochs
        Passes over the data.
    optimizer
        Called with the list of parameters, such as ``lambda p: torch.optim.SGD(p, lr=0.3, foreach=False)``. It must
        treat entries one by one, as SGD and Adam do: clipping by the norm would tie the members together.
    batch_size
        Examples per step; by default all of them, in order. Batches are shuffled by each member's own seed, so that
        members with equal seeds see equal batches.
    loss
        One number per member from logits and targets, by default the mean cross entropy; per-member levels and
        methods live in it.
    on_epoch
        Called with the number of epochs done, from 0 on: ``epochs + 1`` times.

    Returns
    -------
    Tensor of shape (steps, members)
        The value of ``loss`` before each step.

    Raises
    ------
    ValueError
        If shapes do not fit, there are no data, ``epochs`` or ``batch_size`` is not positive, or ``loss`` does not
        return one number per member.
    """
    inputs, targets = _per_member(ensemble, inputs, targets)
    if epochs < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"epochs and batch_size must be positive, got {epochs} and {batch_size}")
    steps = optimizer(list(ensemble.parameters()))
    orders = [torch.Generator().manual_seed(seed) for seed in ensemble.seeds]
    history = []
    for epoch in range(epochs):
        if on_epoch:
            on_epoch(epoch)
        for x, y in _member_batches(inputs, targets, batch_size, orders):
            values = loss(ensemble(x), y)
            if values.shape != (len(ensemble),):
                raise ValueError(f"loss must return shape ({len(ensemble)},), got {tuple(values.shape)}")
            steps.zero_grad()
            values.sum().backward()
            steps.step()
            history.append(values.detach())
    if on_epoch:
        on_epoch(epochs)
    return torch.stack(history)


def _per_member(ensemble: EnsembleMLP, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Give inputs and targets a leading axis of members, without copying them."""
    if inputs.dim() == 2:
        inputs, targets = (values.expand(len(ensemble), *values.shape) for values in (inputs, targets))
    if targets.dim() < 2 or inputs.shape[:2] != targets.shape[:2] or inputs.shape[1] == 0:
        raise ValueError(
            "inputs and targets need equal members and one equal, positive length, "
            f"got {tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    return inputs, targets


def _member_batches(
    inputs: Tensor, targets: Tensor, batch_size: int | None, orders: list[torch.Generator]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches ``(members, batch, ...)`` of one epoch, each member's in an order of its own."""
    if batch_size is None:
        yield inputs, targets
        return
    n = inputs.shape[1]
    order = torch.stack([torch.randperm(n, generator=generator) for generator in orders])  # (member, example)
    rows = torch.arange(len(orders))[:, None]
    for columns in order.split(batch_size, dim=1):
        yield inputs[rows, columns], targets[rows, columns]


def ensemble_accuracy(ensemble: EnsembleMLP, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return each member's share of examples whose largest logit is at their target, shape ``(members,)``.

    Inputs ``(members, n, d)`` and targets ``(members, n)``, or ``(n, d)`` and ``(n,)`` for all members.
    """
    with torch.no_grad():
        return (ensemble(inputs).argmax(-1) == targets).double().mean(-1)
