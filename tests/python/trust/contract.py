"""What the tests of this folder share: a problem with every argument, and the contract."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import torchqp
from torchqp import testing

D = torch.float64
INF, NAN = float("inf"), float("nan")
MODES = ("kkt", "smoothed", "lpgd")


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def all_nine(batch: int = 4, n: int = 6, seed: int = 3) -> dict:
    """A solvable batch of nine batched arguments, sides of every kind among them."""
    problem = testing.make("two_sided", n, batch, seed=seed)
    z = torchqp.solve_qp(**problem).z
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, 2, n, generator=generator, dtype=D)
    return problem | {"A": A, "b": testing.times(A, z)}


def assert_honest(problem: dict, solution: Any, limit: float = 1e-8) -> None:
    """Status 0 only where the residuals of the data pass; outputs are finite iff status <= 1."""
    solved, usable = solution.status == 0, solution.status <= 1
    assert bool(solution.z[usable].isfinite().all())
    assert bool(solution.z[~usable].isnan().all())
    residuals = testing.kkt_residuals(problem, solution)
    assert not bool((~(residuals[solved] <= limit)).any()), residuals[solved].amax(0)


def assert_same(actual: Any, expected: Any, index: Any = slice(None), where: str = "") -> None:
    """Every output of two solutions, or every gradient of two dictionaries, bit for bit."""
    if isinstance(actual, dict):
        pairs = [(name, value, expected[name]) for name, value in actual.items()]
    else:
        pairs = list(zip(actual._fields, actual, expected, strict=True))
    for name, value, other in pairs:
        assert testing.same_bits(value, other[index]), f"{where} {name}"


def assert_clean(problem: dict, mode: str = "kkt", **options: Any) -> tuple[Any, dict]:
    """Solves and differentiates all outputs: no exception, no NaN or Inf in any gradient."""
    solution, grads = testing.pullback(torchqp.solve_qp, problem, 0, backward=mode, **options)
    for name, grad in grads.items():
        assert bool(grad.isfinite().all()), (mode, name)
    return type(solution)(*(value.detach() for value in solution)), grads


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The body returns in time: nothing hangs."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start <= seconds


def statuses(problem: dict, **options: Any) -> list[int]:
    return torchqp.solve_qp(**problem, **options).status.flatten().tolist()


def stack(make: Callable[[Any], dict], values: Any) -> dict:
    """One batch of the problems that `make` gives for each value."""
    problems = [make(value) for value in values]
    return {name: torch.stack([p[name] for p in problems]) for name in problems[0]}
