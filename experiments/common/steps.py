"""Gradient steps one by one, with the time of their two halves."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """One step: the loss before it, and the seconds of forward and of backward with update."""

    loss: float
    forward: float
    backward: float


def take_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Step:
    """Evaluates ``loss``, differentiates it and updates the parameters."""
    start = time.perf_counter()
    value = loss()
    middle = time.perf_counter()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return Step(float(value.detach()), middle - start, time.perf_counter() - middle)


def minibatches(indices: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """One pass over ``indices`` in random order."""
    yield from indices[torch.randperm(len(indices), generator=generator)].split(size)
