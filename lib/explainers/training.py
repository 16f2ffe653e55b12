"""The plain training loop that the chapters share."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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

_ACTIVATIONS = {"relu": (nn.ReLU, torch.relu_), "tanh": (nn.Tanh, torch.tanh_), "gelu": (nn.GELU, nn.functional.gelu)}

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
        self._layer, self._nonlinearity = _ACTIVATIONS[activation]
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
            layers += [linear, self._layer()]
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


# --- The loop of the Transformer chapters ----------------------------------------------------------------------
#
# It is launched through Lightning Fabric. Both Fabric and Hugging Face Accelerate were tried: in one process they cost
# the same (0.5 ms a step, one second to import) and give the same weights to the last bit. Fabric won on two counts:
# `fabric run --accelerator cpu --devices 2` starts two processes, where `accelerate launch --cpu --num_processes 2`
# silently started one; and it wants no configuration file.


@dataclass
class History:
    """What a run of :func:`fit` saw.

    Attributes
    ----------
    losses
        Of every step, on its own batch, before the step.
    evaluations
        Pairs of steps done and the value of ``evaluate``.
    best
        Steps done at the smallest evaluation, None without any.
    stopped
        Whether patience ran out before ``steps``.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    best: int | None = None
    stopped: bool = False

    @property
    def final(self) -> float:
        """The last evaluation."""
        return self.evaluations[-1][1]


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Callable[[torch.Generator], Iterable[Any]],
    *,
    steps: int,
    lr: float = 1e-3,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.0,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    fabric: Any = None,
    progress: bool | None = None,
) -> History:
    """Train ``model`` in place with AdamW; the one loop of all Transformer chapters.

    Parameters
    ----------
    model
        Trained on Fabric's device, returned to its own, in ``eval()`` mode.
    loss
        ``loss(model, batch)``, a scalar with a graph.
    batches
        Called with a generator that depends on ``seed``, gives the batches: tensors, or tuples and dicts of them, which
        are moved to the device. Training ends with them if they run out before ``steps``. See :func:`shuffled`.
    steps, lr, schedule, warmup
        Steps, largest step size, and how it moves: up a line over the first ``warmup`` steps, then
        ``"constant"``, ``"linear"`` (down to zero) or ``"cosine"`` (to zero); see :func:`learning_rate`.
    clip
        Largest norm of the whole gradient.
    betas, weight_decay
        Of AdamW; without decay it is Adam.
    evaluate
        ``evaluate(model)``, smaller is better, in ``eval()`` mode without graph, after the last step and after
        each ``every`` steps. The model may be on another device than your data: see :func:`mean_loss`.
    patience
        Stop after so many evaluations without a new best, and bring the best weights back.
    seed
        Of the batches and of dropout. Weights are drawn by the caller. No global generator is touched.
    fabric
        A ``lightning_fabric.Fabric``. By default one device, the fastest there is; under ``fabric run`` what its
        command line asks for. Every process draws batches of its own, gradients and evaluations are averaged.
    progress
        True shows a progress bar, False does not; by default only a terminal sees one, so that no notebook stores it.
        The environment variable ``EXPLAINERS_PROGRESS=1`` turns it on everywhere.

    Raises
    ------
    ValueError
        If a number is out of range, the schedule unknown, or ``every`` or ``patience`` given without what it needs.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 50)[:, None]
    >>> model = mlp([1, 8, 1], seed=0)
    >>> squares = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
    >>> history = fit(model, squares, shuffled(x, x**2, batch_size=10), steps=200, lr=0.01)
    >>> history.losses[0] > 10 * history.losses[-1]
    True
    """
    _check_fit(steps, lr, warmup, clip, evaluate, every, patience)
    learning_rate(0, steps, schedule, warmup)  # an unknown schedule fails before anything is trained
    fabric = _fabric() if fabric is None else fabric
    home = next(model.parameters()).device
    objective = _Objective(model, loss)  # one module for a step, so that several processes see one forward pass
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, steps, schedule, warmup))
    trained, optimizer = fabric.setup(objective, optimizer)
    own_seed = seed + 1_000_003 * fabric.global_rank
    generator = torch.Generator().manual_seed(own_seed)
    run = _Run(model, evaluate, patience, fabric)
    losses: list[Tensor] = []
    with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(own_seed)  # for dropout
        for batch in _bar(itertools.islice(batches(generator), steps), steps, progress, fabric):
            model.train()
            value = trained(fabric.to_device(batch))
            optimizer.zero_grad()
            fabric.backward(value)
            if clip is not None:
                fabric.clip_gradients(trained, optimizer, max_norm=clip)
            optimizer.step()
            scheduler.step()
            losses.append(value.detach())
            if every is not None and len(losses) % every == 0 and run.evaluate(len(losses)):
                break
        if evaluate is not None and run.last != len(losses):
            run.evaluate(len(losses))
    run.finish()
    model.to(home).eval()
    run.history.losses = torch.stack(losses).tolist() if losses else []
    return run.history


class _Objective(nn.Module):
    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


class _Run:
    """Evaluations, early stop and best weights of one call of :func:`fit`."""

    def __init__(self, model: nn.Module, evaluate: Callable | None, patience: int | None, fabric: Any):
        self.model, self.value_of, self.patience, self.fabric = model, evaluate, patience, fabric
        self.history, self.best_value, self.best_state, self.last = History(), float("inf"), None, 0

    @torch.no_grad()
    def evaluate(self, step: int) -> bool:
        """Evaluate, and say whether to stop; processes decide together, by their mean."""
        self.model.eval()
        value = self.fabric.all_reduce(torch.tensor(float(self.value_of(self.model)), dtype=torch.float64))
        self.history.evaluations.append((step, float(value)))
        self.last = step
        if value < self.best_value:
            self.best_value, self.history.best = float(value), step
            if self.patience is not None:
                self.best_state = copy.deepcopy(self.model.state_dict())
        since = sum(at > (self.history.best or 0) for at, _ in self.history.evaluations)
        self.history.stopped = self.patience is not None and since >= self.patience
        return self.history.stopped

    def finish(self) -> None:
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)


def _check_fit(steps, lr, warmup, clip, evaluate, every, patience) -> None:
    if steps < 1 or lr <= 0:
        raise ValueError(f"fit: steps and lr must be positive, got {steps} and {lr}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"fit: warmup must be in 0..steps = {steps}, got {warmup}")
    if clip is not None and clip <= 0:
        raise ValueError(f"fit: clip must be positive, got {clip}")
    if every is not None and (every < 1 or evaluate is None):
        raise ValueError(f"fit: every needs evaluate, and must be at least 1, got {every}")
    if patience is not None and (patience < 1 or every is None):
        raise ValueError(f"fit: patience needs every and evaluate, and must be at least 1, got {patience}")


def learning_rate(step: int, steps: int, schedule: str = "constant", warmup: int = 0) -> float:
    """Return the factor on the step size at a step that counts from 0.

    It climbs ``1/warmup, 2/warmup, ..., 1`` over the warm-up; then ``"constant"`` stays, ``"linear"`` and ``"cosine"``
    fall, to reach zero one step after the last.

    >>> [learning_rate(t, 6, "linear", warmup=2) for t in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if schedule not in ("constant", "linear", "cosine"):
        raise ValueError(f"schedule must be 'constant', 'linear' or 'cosine', got {schedule!r}")
    if step < warmup:
        return (step + 1) / warmup
    left = max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[schedule]


def shuffled(*tensors: Tensor, batch_size: int) -> Callable[[torch.Generator], Iterator[tuple[Tensor, ...]]]:
    """Return what :func:`fit` calls ``batches``: mini-batches of rows in random order, pass after pass without end.

    >>> batch, = next(shuffled(torch.arange(10), batch_size=4)(torch.Generator().manual_seed(0)))
    >>> len(batch)
    4
    """
    sizes = {len(tensor) for tensor in tensors}
    if len(sizes) != 1 or 0 in sizes or batch_size < 1:
        raise ValueError(
            f"shuffled: need tensors of one positive length and batch_size >= 1, got {sizes}, {batch_size}"
        )
    (size,) = sizes

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        while True:
            for rows in torch.randperm(size, generator=generator).split(batch_size):
                yield tuple(tensor[rows] for tensor in tensors)

    return batches


def mean_loss(loss: Callable[[nn.Module, Any], Tensor], batches: Sequence[Any]) -> Callable[[nn.Module], float]:
    """Return what :func:`fit` calls ``evaluate``: the mean of ``loss`` over batches, moved to where the model is."""

    def evaluate(model: nn.Module) -> float:
        from lightning_fabric.utilities import move_data_to_device

        device = next(model.parameters()).device
        with torch.no_grad():
            return float(torch.stack([loss(model, move_data_to_device(b, device)) for b in batches]).double().mean())

    return evaluate


def _fabric() -> Any:
    """Return a launched Fabric. Imported here: the chapters that do not train with it must not pay for its import."""
    from lightning_fabric import Fabric

    if os.environ.get("LT_CLI_USED") == "1":
        return Fabric()
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.launch()
    return fabric


def _bar(batches: Iterable[Any], steps: int, progress: bool | None, fabric: Any) -> Iterable[Any]:
    from tqdm import tqdm

    show = os.environ.get("EXPLAINERS_PROGRESS") == "1" if progress is None else progress
    # disable=None lets tqdm ask whether stderr is a terminal, which a notebook's is not
    disable = fabric.global_rank > 0 or (False if show else None if progress is None else True)
    return tqdm(batches, total=steps, unit="step", leave=False, disable=disable)
