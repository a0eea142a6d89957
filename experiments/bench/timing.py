"""How everything here is timed: interleaved rounds, each with a warm call and a block of calls."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BLOCK_SECONDS = 0.02  # back-to-back calls of one sample take at least this, or are one call
MIN_ROUNDS, MAX_ROUNDS = 5, 40
LONG_TRIAL = 0.3  # what takes longer is called once to estimate its cost
SLOW_ROUND, SLOW_ROUNDS = 1.0, 3  # what takes longer than this a round is timed only so often


@dataclass
class Timed:
    """One thing to time.

    Attributes:
        name: unique among the things that are timed together.
        call: what is timed.
        setup: runs before each sample, untimed; what it makes, ``call`` may use.
        cost: seconds of one call as estimated; ``calibrate`` sets it.
        seconds: the samples, each the mean of a block of calls.
        error: why the samples end, if the call raised.
    """

    name: str
    call: Callable[[], Any]
    setup: Callable[[], None] | None = None
    cost: float = 0.0
    seconds: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def block(self) -> int:
        """Calls of one sample."""
        return max(1, math.ceil(BLOCK_SECONDS / max(self.cost, 1e-7)))

    def calibrate(self) -> None:
        """Warms up and estimates the cost of a call: the best of four, of fewer that are long.

        The first backward pass of a process starts torch's engine, which can take 0.1 s.
        """
        if self.setup:
            self.setup()
        self.cost = seconds(self.call)
        for _ in range(3):
            if self.cost < LONG_TRIAL:
                self.cost = min(self.cost, seconds(self.call))

    def sample(self) -> None:
        """One untimed call, which fills the caches, then a block of timed ones."""
        if self.setup:
            self.setup()
        self.call()
        calls = range(self.block)
        start = time.perf_counter()
        for _ in calls:
            self.call()
        self.seconds.append((time.perf_counter() - start) / len(calls))

    def rounds(self, budget: float) -> int:
        """Samples that fit into ``budget`` seconds, within the limits above."""
        cost = self.cost * (self.block + 1)
        least = SLOW_ROUNDS if cost > SLOW_ROUND else MIN_ROUNDS
        return max(least, min(MAX_ROUNDS, round(budget / max(cost, 1e-9))))


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def reason(error: BaseException) -> str:
    """Type and first line of an error."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:160]


def is_fatal(error: BaseException) -> bool:
    """Rust extensions panic with a BaseException that is no Exception: that is the layer's."""
    return isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError))


def guarded(call: Callable[[], Any]) -> str | None:
    """Calls it; the reason if it raised."""
    try:
        call()
    except BaseException as error:
        if is_fatal(error):
            raise
        return reason(error)
    return None


def interleave(items: list[Timed], budget: float, rounds: int | None = None) -> None:
    """Samples all items, in rounds, each starting with another item.

    An item takes part in as many rounds as fit into ``budget`` seconds of its own (or in
    ``rounds``), spread evenly over all of them, so that a slow phase of the machine meets all
    items alike. An item that raises keeps its error and drops out.
    """
    for item in items:
        item.error = item.error or guarded(item.calibrate)
    wanted = {item.name: rounds or item.rounds(budget) for item in items}
    total = max(wanted.values(), default=0)
    for done in range(total):
        gc.collect()
        shift = done % len(items)
        for item in items[shift:] + items[:shift]:
            due = (done + 1) * wanted[item.name] // total > done * wanted[item.name] // total
            if due and item.error is None:
                item.error = guarded(item.sample)


def statistics(samples: list[float], unit: float = 1.0) -> dict[str, Any]:
    """Median, spread and every sample, each divided by ``unit``."""
    values = [sample / unit for sample in samples]
    return {
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
        "all": values,
    }
