"""How long does a batch take beside a linear layer, qpth and raw solvers (OptNet, Fig. 1 and 2)?

    python experiments/timing/run.py            # minutes
    python experiments/timing/run.py --full     # Fig. 1 up to n = 500 with every layer

Times one case after the other on one thread; wants a quiet machine. Prints tables and writes
results.json and timing.png (report.md discusses them). The problems, the adapters and the clock
are those of experiments/bench.
"""

import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # before torch, numpy and the solvers size their pools
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    os.environ.update(dict.fromkeys(pools, "1"))

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.bench.adapters import ADAPTERS, packages  # noqa: E402
from experiments.bench.layer import Layer, Size  # noqa: E402
from experiments.bench.measure import available, measure  # noqa: E402
from experiments.bench.problems import optnet  # noqa: E402
from experiments.bench.suite import significant, versions  # noqa: E402
from experiments.bench.timing import Timed, interleave, statistics  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.timing import figures, tables  # noqa: E402

SOLVERS = ("loop-daqp", "loop-piqp", "loop-proxqp", "loop-clarabel")
LINEAR = "linear"


class Run(NamedTuple):
    """One case of a figure: n variables and n inequalities, no equalities."""

    figure: int
    n: int
    batch: int
    layers: tuple[str, ...]
    seconds: float = 3.0


def grid(layers: tuple[str, ...], solvers: tuple[str, ...], full: bool) -> list[Run]:
    """Fig. 1: sizes at batch 128. Fig. 2: batches at n = 100, where raw solvers join."""
    runs = [Run(1, n, 128, layers) for n in (10, 50, 100)]
    runs.append(Run(1, 500, 128, layers if full else ("torchqp",)))
    return runs + [Run(2, 100, batch, (*layers, *solvers)) for batch in (1, 64, 128)]


def execute(run: Run) -> dict:
    """The record of a case."""
    return run._asdict() | (beside_linear(run) if run.figure == 1 else beside_solvers(run))


def beside_linear(run: Run) -> dict:
    """Forward, and forward with backward, of layers whose Q, G and h are shared, as OptNet's are.

    The linear layer is n to n. Q, G, h and the input have gradients, as have its weight and bias.
    """
    problem = optnet(run.n, run.n, 0, run.batch)
    data = [problem.Q[0], problem.q, problem.G[0], problem.h[0]]
    leaves = [tensor.clone().requires_grad_() for tensor in data]
    linear = torch.nn.Linear(run.n, run.n, dtype=torch.float64)
    calls = {LINEAR: (linear, [leaves[1]], [leaves[1], *linear.parameters()])}
    for name in run.layers:
        layer = ADAPTERS[name].build(Size(run.n, run.n, 0, run.batch, threads=1))
        calls[name] = (_without_equalities(layer), leaves, leaves)

    items = []
    for name, (call, arguments, inputs) in calls.items():

        def forward(call=call, arguments=arguments):
            with torch.no_grad():
                return call(*arguments)

        def total(call=call, arguments=arguments, inputs=inputs):
            return torch.autograd.grad(call(*arguments), inputs, problem.weight)

        items += [Timed(f"{name} forward", forward), Timed(f"{name} total", total)]
    interleave(items, run.seconds)
    failed = {item.name: item.error for item in items if item.error}
    return {
        "failed": failed,
        "times": {
            name: {
                column: _summary(item.seconds)
                for column, item in zip(("forward", "total"), items[2 * i : 2 * i + 2], strict=True)
            }
            for i, name in enumerate(calls)
            if not {f"{name} forward", f"{name} total"} & failed.keys()
        },
    }


def _without_equalities(layer: Layer):
    return lambda Q, q, G, h: layer.solve(Q, q, G, h, None, None)


def beside_solvers(run: Run) -> dict:
    """Seconds a batch with matrices of its own for every member, and everybody's residual.

    A layer or loop whose cost is linear in the batch may be timed on a part of it.
    """
    options = Namespace(threads=1, seed=0, seconds=run.seconds, rounds=None)
    measured = significant(measure((run.n, run.n, 0, run.batch), list(run.layers), options))
    times = {}
    for name, row in measured["layers"].items():
        times[name] = {
            column: {part: row[key][part] * run.batch * 1e-6 for part in ("median", "p95", "min")}
            for column, key in (("forward", "forward_us"), ("total", "forward_backward_us"))
            if key in row
        }
        times[name]["residual"] = row["residual_worst"]
        times[name]["timed_batch"] = row["batch"]
    return {"failed": measured["left_out"], "times": times}


def _summary(seconds: list[float]) -> dict[str, float]:
    found = statistics(seconds)
    return {part: found[part] for part in ("median", "p95", "min")}


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    layers, absent = available(["torchqp", "qpth"])
    solvers, absent_solvers = available(list(SOLVERS))
    start = time.perf_counter()
    runs = sweep(
        execute, grid(tuple(layers), tuple(solvers), arguments.full), arguments.out, workers=1
    )
    record = {
        "experiment": "timing",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "packages": versions(packages([*layers, *solvers])),
        "absent": absent | absent_solvers,
        "runs": runs,
    }
    figures.draw(runs, arguments.out / "timing.png")
    publish(arguments.out, record)
    print(tables.sizes(runs))
    print(tables.batches(runs))
    for name, reason in record["absent"].items():
        print(f"{name} was not run: {reason}")
    print(f"{record['seconds']:.0f} s; results and figure in {arguments.out}")


if __name__ == "__main__":
    main()
