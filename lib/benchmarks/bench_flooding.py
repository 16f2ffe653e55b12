"""Flooding beside its peers, all of them torch: interleaved, on one thread, best of several rounds.

Run it with ``python benchmarks/bench_flooding.py`` from the folder of the package, or call `run`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from timing import Routines, best_times
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from explainers import flooding, training

SIZES = [30, 64, 64, 2]
EXAMPLES, MEMBERS, STEPS = 150, 40, 100


@dataclass(frozen=True)
class Target:
    """A line of the table: `routine` may take `limit` times as long as `peer`, or is to be so much faster."""

    routine: str
    peer: str
    limit: float | None = None  # None: shown for comparison only
    faster: bool = False


SWEEP = [
    Target("fit_ensemble", "loop of networks", 3, faster=True),
    Target("fit_ensemble", "torch.func.vmap", faster=True),
]
CURVATURE = [
    Target("gradient_and_curvature", "autograd.functional.hvp", 0.9),
    Target("gradient_and_curvature", "autograd.functional.vhp"),
    Target("gradient_and_curvature", "one gradient"),
]
ENSEMBLE_STEP = [Target("ensemble step, flood", "ensemble step, mean", 1.05)]
STEP = [
    Target("step, flood", "step, raw loss", 1.05),
    Target("step, flood, below b", "step, raw loss"),  # one operation more, to turn the sign
    Target("step, |L - b| + b", "step, raw loss"),
]
DIFFERENCE_LIMIT = 1e-5  # between the losses of the ensemble and those of the loop


def classification() -> tuple[Tensor, Tensor]:
    """Return inputs of the size of the chapter's first experiment, and labels of which a fifth are wrong."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, SIZES[0], generator=generator)
    wrong = torch.rand(EXAMPLES, generator=generator) < 0.2
    return inputs, ((inputs[:, :3].sum(1) > 0) ^ wrong).long()


def network(seed: int) -> nn.Sequential:
    """Return the network that PyTorch makes after a seed."""
    torch.manual_seed(seed)
    layers = [module for pair in itertools.pairwise(SIZES) for module in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def sgd(parameters: object) -> torch.optim.Optimizer:
    """Return the optimizer of the chapter."""
    return torch.optim.SGD(parameters, lr=0.3, foreach=False)


def ensemble_losses() -> Tensor:
    """Train all members at once; return their mean losses before the last step."""
    ensemble = training.EnsembleMLP(SIZES, range(MEMBERS))
    return training.fit_ensemble(ensemble, *classification(), epochs=STEPS, optimizer=sgd)[-1]


def loop_losses() -> Tensor:
    """Train one network after the other."""
    inputs, targets = classification()
    last = []
    for seed in range(MEMBERS):
        model = network(seed)
        optimizer = sgd(model.parameters())
        for _ in range(STEPS):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        last.append(loss.detach())
    return torch.stack(last)


def vmap_losses() -> Tensor:
    """Train all networks at once by the transformation of PyTorch."""
    inputs, targets = classification()
    models = [network(seed) for seed in range(MEMBERS)]
    parameters, _ = stack_module_state(models)
    losses = vmap(lambda p: F.cross_entropy(functional_call(models[0], p, (inputs,)), targets))
    optimizer = sgd(parameters.values())
    for _ in range(STEPS):
        values = losses(parameters)
        optimizer.zero_grad()
        values.sum().backward()
        optimizer.step()
    return values.detach()


def curvature_routines() -> Routines:
    """Return the products of the Hessian with a vector, for a tanh network on 300 digits' worth of numbers.

    The peers are handed the gradient that `gradient_and_curvature` has to find first.
    """
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(300, 64, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 10, (300,), generator=generator)
    loss_fn, theta = flooding.network_loss(inputs, targets, [64, 24, 10])
    leaf = theta.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss_fn(leaf), leaf)
    return {
        "one gradient": lambda: torch.autograd.grad(loss_fn(leaf), leaf),
        "gradient_and_curvature": lambda: flooding.gradient_and_curvature(loss_fn, theta),
        "autograd.functional.hvp": lambda: torch.autograd.functional.hvp(loss_fn, theta, g),
        "autograd.functional.vhp": lambda: torch.autograd.functional.vhp(loss_fn, theta, g),
    }


def one_step(model: nn.Module, objective: Callable[[Tensor], Tensor]) -> Callable[[], object]:
    """Return one step of training, all of it: forward, objective, backward, update by nothing.

    The step size is zero, so that every call does the same work on the same numbers.
    """
    inputs, targets = classification()
    if isinstance(model, training.EnsembleMLP):
        targets = targets.expand(MEMBERS, -1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, foreach=False)

    def step() -> None:
        values = objective(model(inputs), targets)
        optimizer.zero_grad()
        values.sum().backward()
        optimizer.step()

    return step


def step_routines(level: float = 0.5) -> Routines:
    """Return a step of one small network with flooding and without."""

    def flooded(logits: Tensor, targets: Tensor) -> Tensor:
        return flooding.flood(F.cross_entropy(logits, targets), level)

    def flooded_below(logits: Tensor, targets: Tensor) -> Tensor:
        return flooding.flood(F.cross_entropy(logits, targets), 3 * level)

    def in_one_line(logits: Tensor, targets: Tensor) -> Tensor:
        return (F.cross_entropy(logits, targets) - level).abs() + level

    return {
        "step, raw loss": one_step(network(0), F.cross_entropy),
        "step, |L - b| + b": one_step(network(0), in_one_line),
        "step, flood": one_step(network(0), flooded),
        "step, flood, below b": one_step(network(0), flooded_below),
    }


def ensemble_step_routines(level: float = 0.5) -> Routines:
    """Return a step of forty small networks side by side with flooding and without."""
    flooded = flooding.member_objective(["flood"] * MEMBERS, [level] * MEMBERS)
    return {
        "ensemble step, mean": one_step(training.EnsembleMLP(SIZES, range(MEMBERS)), training.mean_losses),
        "ensemble step, flood": one_step(training.EnsembleMLP(SIZES, range(MEMBERS)), flooded),
    }


def compare(targets: list[Target], times: dict[str, float]) -> list[dict]:
    """Return one row per target: the ratio of times and whether it is within the limit."""
    rows = []
    for target in targets:
        slower = times[target.routine] / times[target.peer]
        ratio = 1 / slower if target.faster else slower
        met = None if target.limit is None else bool(ratio >= target.limit if target.faster else ratio <= target.limit)
        rows.append({**asdict(target), "ratio": ratio, "met": met, "milliseconds": 1e3 * times[target.routine]})
    return rows


def agreement() -> dict:
    """Return the row of the largest difference between the losses of the ensemble and those of its peers."""
    ours = ensemble_losses()
    difference = max(float((ours - peer()).abs().max()) for peer in (loop_losses, vmap_losses))
    target = Target("fit_ensemble, last losses", "loop, vmap", DIFFERENCE_LIMIT)
    return {**asdict(target), "ratio": difference, "met": difference <= DIFFERENCE_LIMIT, "milliseconds": None}


def run(rounds: int = 200) -> list[dict]:
    """Return the rows of the table.

    Parameters
    ----------
    rounds
        How often each short routine is run; the sweeps, which take seconds, get a twentieth, but two at least. The
        least time counts.

    Returns
    -------
    list of dict
        With the keys of `Target`, and ``ratio``, ``met`` (None without a target), ``milliseconds``; the last row holds
        the largest difference of the last losses as its ratio.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sweeps = {"fit_ensemble": ensemble_losses, "loop of networks": loop_losses, "torch.func.vmap": vmap_losses}
    try:
        with torch.random.fork_rng(devices=[]):
            rows = compare(SWEEP, best_times(sweeps, max(2, rounds // 20)))
            rows += compare(CURVATURE, best_times(curvature_routines(), rounds))
            rows += compare(ENSEMBLE_STEP, best_times(ensemble_step_routines(), rounds))
            rows += compare(STEP, best_times(step_routines(), rounds))
            return [*rows, agreement()]
    finally:
        torch.set_num_threads(threads)


def describe(row: dict) -> str:
    """Return one line of the printed table."""
    if row["milliseconds"] is None:
        measured, target = f"{row['ratio']:.1e}", f"<= {row['limit']:.0e}"
    else:
        measured = f"{row['ratio']:.2f}x {'faster' if row['faster'] else 'the time'}"
        target = "-" if row["limit"] is None else f"{'>=' if row['faster'] else '<='} {row['limit']:g}x"
    met = {True: "yes", False: "NO", None: "-"}[row["met"]]
    return f"{row['routine']:26} {row['peer']:24} {measured:>15} {target:>9} {met:>4}"


def main() -> None:
    """Print the table."""
    print(f"{'routine':26} {'peer':24} {'measured':>15} {'target':>9} {'met':>4}")
    for row in run():
        print(describe(row))


if __name__ == "__main__":
    main()
