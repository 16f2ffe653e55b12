"""The Transformer and the fused score residual beside PyTorch's own layers: one process, interleaved, one thread.

Run it with ``python benchmarks/bench_transformer.py`` from the folder of the package, or call `run`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from explainers import realformer
from explainers.transformer import Cache, Transformer, causal_mask

SIZES = [(16, 96, 64, 4, 4), (8, 128, 128, 4, 6), (2, 512, 128, 4, 2)]  # batch, time, width, heads, layers
TRAINING = {  # options, largest ratio to nn.TransformerEncoder
    "plain": ({"rotary": False}, 1.2),
    "rotary": ({}, None),
    "pre, rotary": ({"norm": "pre"}, None),
    "score residual": ({"rotary": False, "residual_attention": "sum"}, 1.6),
    "condition 16": ({"rotary": False, "condition_size": 16}, 1.4),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``limit`` None is shown for comparison only."""

    name: str
    value: float
    limit: float | None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.limit is None or (self.value >= self.limit if self.at_least else self.value <= self.limit)

    def __str__(self) -> str:
        bar = "" if self.limit is None else f"{'>=' if self.at_least else '<='} {self.limit:g}"
        verdict = "" if self.limit is None else "ok" if self.holds else "MISSED"
        return f"{self.name:62} {self.value:8.2f}  {bar:8} {verdict}"


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; a round runs all of them in turn, and the first is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def training_steps(rounds: int) -> list[Row]:
    """Forward and backward of a stack, over ``nn.TransformerEncoder`` of the same size."""
    rows = []
    for batch, size, width, heads, layers in SIZES:
        x, condition = torch.randn(batch, size, width), torch.randn(batch, 16)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True)
        models = {"torch": nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)}
        models |= {name: Transformer(layers, width, heads, **options) for name, (options, _) in TRAINING.items()}

        def step(name: str, models=models, x=x, condition=condition) -> None:
            models[name](x, **({"condition": condition} if "condition" in name else {})).sum().backward()

        found = medians({name: lambda name=name, step=step: step(name) for name in models}, rounds)
        for name, (_, limit) in TRAINING.items():
            rows.append(
                Row(f"step, {name}, {batch}x{size}x{width}, {layers} layers", found[name] / found["torch"], limit)
            )
    return rows


@torch.no_grad()
def generation(rounds: int) -> list[Row]:
    """128 tokens after a prompt of 32, recomputed over cached."""
    model, x = Transformer(4, 64, 4).eval(), torch.randn(4, 160, 64)

    def cached() -> None:
        cache = Cache()
        model(x[:, :32], mask=causal_mask(32), cache=cache)
        for at in range(32, 160):
            model(x[:, at : at + 1], cache=cache)

    def recomputed() -> None:
        for end in range(32, 161):
            model(x[:, :end], mask=causal_mask(end))

    found = medians({"cached": cached, "recomputed": recomputed}, rounds)
    return [Row("generation, recomputed / cached", found["recomputed"] / found["cached"], 3.5, at_least=True)]


def explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the output of the last layer with every score matrix written out."""
    total = q[0] @ k[0].mT
    for a, b in zip(q[1:], k[1:]):
        total = total + a @ b.mT
    return (total / q.shape[-1] ** 0.5).softmax(-1) @ v


@torch.no_grad()
def fused(rounds: int) -> list[Row]:
    """The score residual as one fused call over explicit scores: time."""
    rows = []
    for batch, size, layers in ((8, 256, 4), (8, 256, 12), (1, 1024, 4), (1, 1024, 12)):
        q, k = torch.randn(2, layers, batch, 4, size, 16)
        v = torch.randn(batch, 4, size, 16)
        calls = {
            "fused": lambda q=q, k=k, v=v: realformer.attend(q, k, v),
            "explicit": lambda q=q, k=k, v=v: explicit(q, k, v),
        }
        found = medians(calls, rounds)
        limit = 2.0 if (size, layers) == (1024, 12) else None
        rows.append(
            Row(f"attend / explicit scores, T = {size}, {layers} layers", found["fused"] / found["explicit"], limit)
        )
    return rows


_MEMORY = """
import ctypes, sys, torch
sys.path.insert(0, {folder!r})
from explainers import realformer
from bench_transformer import explicit
torch.set_num_threads(1)

def kilobytes(name):  # of this process alone; getrusage would go on from its parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

q, k = torch.randn(2, 12, 1, 4, {size}, 16)
v = torch.randn(1, 4, {size}, 16)
growth = []
for _ in range(4):
    ctypes.CDLL(None).malloc_trim(0)  # give back what is free, and start the peak anew
    open("/proc/self/clear_refs", "w").write("5")
    before = kilobytes("VmRSS")
    with torch.no_grad():
        {call}(q, k, v)
    growth.append(kilobytes("VmHWM") - before)
print(sorted(growth[1:])[1])  # the first call also loads code
"""


def memory() -> list[Row]:
    """Peak of the resident memory during a call, fused over explicit, each in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        print("peak memory is skipped: it is read from Linux' /proc, which this system has not")
        return []
    folder, rows = str(Path(__file__).parent), []
    for size in (1024, 4096):
        peaks = {}
        for name, call in (("fused", "realformer.attend"), ("explicit", "explicit")):
            code = _MEMORY.format(folder=folder, size=size, call=call)
            found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            peaks[name] = int(found.stdout)
        name = f"attend / explicit scores, peak memory, T = {size}, 12 layers"
        rows.append(Row(name, peaks["fused"] / peaks["explicit"], 0.25))
    return rows


def probing(rounds: int) -> list[Row]:
    """Seconds of a probe of 12 layers, batch 16."""
    model = realformer.build("sum", 0)
    tokens = torch.randint(97, (16, 33))
    call = lambda: realformer.probe(model, tokens[:, :-1], tokens[:, 1:], mask=causal_mask(32))  # noqa: E731
    return [Row("probe of 12 layers, batch 16 (seconds)", medians({"probe": call}, rounds)["probe"], 0.5)]


def run(rounds: int = 9) -> list[Row]:
    """Return all rows."""
    torch.set_num_threads(1)
    return [*training_steps(rounds), *generation(3), *fused(rounds), *memory(), *probing(rounds)]


if __name__ == "__main__":
    for row in run():
        print(row)
