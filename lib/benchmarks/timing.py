"""What the benchmarks share: timing routines that do the same work, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable

Routines = dict[str, Callable[[], object]]


def best_times(routines: Routines, rounds: int) -> dict[str, float]:
    """Return the least time of each routine in seconds; one round runs all of them in turn."""
    best = dict.fromkeys(routines, float("inf"))
    for _ in range(rounds):
        for name, call in routines.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best
