"""What torchqp's options cost beside each other: backward modes, shared data, float32, warm start.

    python experiments/bench/ratios.py --out experiments/bench/results/ratios.json

Everything is timed in the same rounds, so that a ratio compares neighbours.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import torchqp
from experiments.bench import suite
from experiments.bench.problems import (
    DEFAULT_CASES,
    Problem,
    kkt_residual,
    optnet,
    perturbed,
    shared_matrices,
)
from experiments.bench.suite import Case
from experiments.bench.timing import Timed, interleave, statistics

AVERAGE = torchqp.LPGD(side="average")
# Name: numerator, denominator.
RATIOS = {
    "forward + backward / forward": ("total", "forward"),
    "backward / forward": ("backward", "forward"),
    "smoothed backward / forward": ("smoothed backward", "forward"),
    "LPGD average backward / forward": ("lpgd backward", "forward"),
    "LPGD forward + backward / forward": ("lpgd total", "forward"),
    "shared / batched, forward": ("shared forward", "copied forward"),
    "shared / batched, forward + backward": ("shared total", "copied total"),
    "float32 / float64, forward": ("float32 forward", "forward"),
    "float32 / float64, forward + backward": ("float32 total", "total"),
    "warm / cold start, forward": ("warm", "cold"),
}

Arguments = list[torch.Tensor | None]


class Calls:
    """Forward, forward and backward, and backward alone, of one set of arguments and options."""

    def __init__(self, data: Arguments, weight: torch.Tensor, **options: Any) -> None:
        """Keeps the arguments as leaves that need gradients."""
        self.data, self.weight, self.options = data, weight, options
        self.leaves = [None if v is None else v.clone().requires_grad_() for v in data]
        self.inputs = [v for v in self.leaves if v is not None]
        self.z: torch.Tensor | None = None

    def forward(self) -> torchqp.Solution:
        with torch.no_grad():
            return torchqp.solve_qp(*self.data, **self.options)  # type: ignore[arg-type]

    def graph(self) -> None:
        self.z = torchqp.solve_qp(*self.leaves, **self.options).z  # type: ignore[arg-type]

    def backward(self) -> tuple[torch.Tensor, ...]:
        assert self.z is not None
        return torch.autograd.grad(self.z, self.inputs, self.weight, retain_graph=True)

    def total(self) -> tuple[torch.Tensor, ...]:
        self.graph()
        assert self.z is not None
        return torch.autograd.grad(self.z, self.inputs, self.weight)


def _solved(problem: Problem, solution: torchqp.Solution) -> dict[str, float]:
    """Iterations and the residual recomputed in float64."""
    z, nu, lam = (v.double().numpy() for v in solution[:3])
    iterations = solution.iterations.double()
    return {
        "iterations_mean": float(iterations.mean()),
        "iterations_max": float(iterations.max()),
        "residual_worst": float(kkt_residual(problem, z, nu, lam).max()),
        "failed": int((solution.status > 0).sum()),
    }


def measure(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Times of every variant, ratios, iterations and residuals of one case."""
    problem = optnet(*size, seed=options.seed)
    shared = shared_matrices(problem, options.seed)
    moved = perturbed(problem, 0.01, options.seed)
    data, weight = list(problem.arguments()), problem.weight
    floats = [None if v is None else v.float() for v in data]
    same = [v[0] if v is not None and v.dim() == 3 else v for v in shared.arguments()]

    base = Calls(data, weight)
    smoothed, lpgd = (Calls(data, weight, backward=b) for b in ("smoothed", AVERAGE))
    single = Calls(floats, weight.float())
    two_d, copied = Calls(same, weight), Calls(list(shared.arguments()), weight)
    cold = Calls(list(moved.arguments()), weight)
    warm = Calls(list(moved.arguments()), weight, warm_start=base.forward())

    def backward_of(calls: Calls) -> tuple[Callable[[], Any], Callable[[], None]]:
        return calls.backward, calls.graph

    plans: dict[str, tuple[Callable[[], Any], Callable[[], None] | None]] = {
        "forward": (base.forward, None),
        "total": (base.total, None),
        "backward": backward_of(base),
        "smoothed backward": backward_of(smoothed),
        "lpgd total": (lpgd.total, None),
        "lpgd backward": backward_of(lpgd),
        "shared forward": (two_d.forward, None),
        "copied forward": (copied.forward, None),
        "shared total": (two_d.total, None),
        "copied total": (copied.total, None),
        "float32 forward": (single.forward, None),
        "float32 total": (single.total, None),
        "warm": (warm.forward, None),
        "cold": (cold.forward, None),
    }
    items = [Timed(name, call, setup) for name, (call, setup) in plans.items()]
    interleave(items, options.seconds, options.rounds)
    failed = {item.name: item.error for item in items if item.error}
    if failed:
        raise RuntimeError(f"torchqp failed: {failed}")
    unit = 1e-6 * problem.batch
    times = {item.name: statistics(item.seconds, unit) for item in items}
    median = {name: time["median"] for name, time in times.items()}
    return {
        **dict(zip(("n", "m", "p", "batch"), size, strict=True)),
        "us": times,
        "ratios": {name: median[a] / median[b] for name, (a, b) in RATIOS.items()},
        "lpgd_backward_as_difference": (median["lpgd total"] - median["forward"])
        / median["forward"],
        "solved": {
            "float64": _solved(problem, base.forward()),
            "float32": _solved(problem, single.forward()),
            "shared": _solved(shared, two_d.forward()),
            "cold": _solved(moved, cold.forward()),
            "warm": _solved(moved, warm.forward()),
        },
    }


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    print(f"\n(n, m, p) x batch = {record['case']}")
    for name, value in record["ratios"].items():
        print(f"  {name:<40}{value:>8.3f}")
    for name, solved in record["solved"].items():
        print(
            f"  {name:<10} iterations {solved['iterations_mean']:.1f} (mean) "
            f"{solved['iterations_max']:.0f} (max), residual {solved['residual_worst']:.0e}, "
            f"{solved['failed']} failed"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.8)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B")
    options = parser.parse_args(arguments)
    record = suite.Record("ratios", options)
    for size in options.cases or DEFAULT_CASES:
        show(record.case(suite.name(size), partial(measure, size, options)))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
