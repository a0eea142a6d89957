"""What each part of the method buys: torchqp without it, beside torchqp with it.

    python experiments/bench/ablation.py --out experiments/bench/results/ablation.json

Each part is left out by a public option or by the way the same problems are put, and the answers
stay the same, to the residual that stands beside the time. Everything is timed in the same rounds.
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
    operator_outputs,
    optnet,
    shared_matrices,
)
from experiments.bench.suite import Case
from experiments.bench.timing import Timed, interleave, statistics

# Name: without the part, with it.
PARTS = {
    "packs: one by one / the batch": ("one by one", "forward"),
    "dual form: condensed / dual": ("condensed", "forward"),
    "pivoting and polish: interior point alone / with them": ("interior point", "forward"),
    "reuse: a copy of Q, G, A for each member / shared ones": ("copied", "shared"),
    "saved factor: backward that factors again / that has it": ("factored again", "kkt"),
    "one pass: gradients by products / written": ("products", "written"),
    "bounds: a box as rows / as bounds": ("rows", "bounds"),
    "diagonal Q: dense / diagonal, box": ("dense box", "diagonal box"),
}

_kkt_solve = torch.ops.torchqp.kkt_solve.default


def _forward(*arguments: torch.Tensor | None, **options: Any) -> torchqp.Solution:
    with torch.no_grad():
        return torchqp.solve_qp(*arguments, **options)  # type: ignore[arg-type]


def _boxes(problem: Problem) -> dict[str, Callable[[], torchqp.Solution]]:
    """The problem's objective over a box, in three ways; and with Q = I in two."""
    n, q = problem.q.shape[-1], problem.q
    eye = torch.eye(n, dtype=q.dtype)
    rows, ones = torch.cat([eye, -eye]), torch.ones(2 * n, dtype=q.dtype)
    return {
        "rows": lambda: _forward(problem.Q, q, rows, ones),
        "bounds": lambda: _forward(problem.Q, q, lb=-1.0, ub=1.0),
        "dense box": lambda: _forward(eye, q, lb=-1.0, ub=1.0),
        "diagonal box": lambda: _forward(torchqp.Diag(torch.ones_like(q[0])), q, lb=-1.0, ub=1.0),
    }


def _backwards(problem: Problem) -> dict[str, Callable[[], Any]]:
    """The linearised system with and without the saved factor; gradients in two ways."""
    Q, _, G, _, A, _ = problem.arguments()
    leaves = [v.clone().requires_grad_() for v in problem.arguments() if v is not None]
    z = torchqp.solve_qp(*leaves).z
    solved = operator_outputs(problem)
    system = (Q, G, A, solved[9], solved[6])

    def kkt(factor: torch.Tensor | None) -> Callable[[], Any]:
        return lambda: _kkt_solve(*system, factor, problem.weight, None, None, None, False)

    def gradients(create_graph: bool) -> Callable[[], Any]:
        options = dict(retain_graph=True, create_graph=create_graph)
        return lambda: torch.autograd.grad(z, leaves, problem.weight, **options)

    return {
        "kkt": kkt(solved[10]),
        "factored again": kkt(None),
        "written": gradients(False),
        "products": gradients(True),
    }


def measure(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Times, what each part buys, and the residuals of one case."""
    problem = optnet(*size, seed=options.seed)
    shared = shared_matrices(problem, options.seed)
    data = problem.arguments()
    members = [[None if v is None else v[i] for v in data] for i in range(problem.batch)]
    same = [v[0] if v is not None and v.dim() == 3 else v for v in shared.arguments()]
    unbounded = torch.full_like(problem.q[0], -torch.inf)
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: _forward(*data),
        "one by one": lambda: [_forward(*member) for member in members],
        "condensed": lambda: _forward(*data, lb=unbounded),
        "interior point": lambda: _forward(*data, settings=torchqp.Settings(polish=False)),
        "shared": lambda: _forward(*same),
        "copied": lambda: _forward(*shared.arguments()),
        **_boxes(problem),
        **_backwards(problem),
    }
    items = [Timed(name, call) for name, call in calls.items()]
    interleave(items, options.seconds, options.rounds)
    failed = {item.name: item.error for item in items if item.error}
    if failed:
        raise RuntimeError(f"torchqp failed: {failed}")
    times = {item.name: statistics(item.seconds, 1e-6 * problem.batch) for item in items}
    residuals = {}
    for name in ("forward", "condensed", "interior point"):
        z, nu, lam = (v.numpy() for v in calls[name]()[:3])
        residuals[name] = float(kkt_residual(problem, z, nu, lam).max())
    return {
        **dict(zip(("n", "m", "p", "batch"), size, strict=True)),
        "us": times,
        "buys": {
            name: times[without]["median"] / times[having]["median"]
            for name, (without, having) in PARTS.items()
        },
        "residual_worst": residuals,
    }


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    print(f"\n(n, m, p) x batch = {record['case']}")
    for name, value in record["buys"].items():
        print(f"  {name:<60}{value:>8.2f}")
    told = ", ".join(f"{name} {value:.0e}" for name, value in record["residual_worst"].items())
    print(f"  worst residual: {told}")


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.6)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B")
    options = parser.parse_args(arguments)
    record = suite.Record("ablation", options)
    for size in options.cases or DEFAULT_CASES:
        show(record.case(suite.name(size), partial(measure, size, options)))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
