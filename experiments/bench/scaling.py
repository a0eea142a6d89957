"""Latency of one problem, cost a problem against the batch, and what a second core brings.

    python experiments/bench/scaling.py --out experiments/bench/results/scaling.json

Latency is of single calls, each timed; the bare operator is torch.ops.torchqp.solve without what
solve_qp does around it. The threads are compared in processes of their own, pinned to 1 and 2
cores, which take turns.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchqp
from experiments.bench import suite
from experiments.bench.pinned import ROOT, allowed
from experiments.bench.problems import DEFAULT_CASES, optnet
from experiments.bench.ratios import Calls
from experiments.bench.suite import Case
from experiments.bench.timing import Timed, interleave, seconds, statistics

BATCHES = (64, 256, 1024, 4096, 16384, 65536, 100_000)
# Smaller batches are parts of one of this size: 64 problems of their own would say more of how hard
# those are than of their number.
POPULATION = 1024
TURNS = 3  # processes of each thread count


def latency(size: Case, calls: int, seed: int) -> dict[str, Any]:
    """Microseconds of single calls, in turns of 50."""
    problem = optnet(*size, seed=seed)
    data = list(problem.arguments())
    whole = Calls(data, problem.weight)
    layer = torchqp.QPLayer()
    Q, q, G, h, A, b = data
    settings = torchqp.Settings().resolve(torch.float64)
    start = (None,) * 5
    operator = partial(
        torch.ops.torchqp.solve.default,
        *(Q, q, G, None, h, A, b, None, None, *start, False, "kkt", [], *settings, False, False),
    )
    plans: dict[str, Callable[[], Any]] = {
        "solve_qp forward": whole.forward,
        "solve_qp forward_backward": whole.total,
        "QPLayer forward": torch.no_grad()(lambda: layer(*data)),
        "operator": torch.no_grad()(operator),
    }
    for call in plans.values():
        Timed("warm-up", call).calibrate()
    samples: dict[str, list[float]] = {name: [] for name in plans}
    while len(samples["operator"]) < calls:
        gc.collect()
        for name, call in plans.items():
            call()
            samples[name] += [seconds(call) for _ in range(min(50, calls))]
    told = {name: statistics(values, 1e-6) for name, values in samples.items()}
    for values in told.values():
        del values["all"]
    return {"us": told, "size": list(size)}


def _columns(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Forward and total of one size: us per problem."""
    problem = optnet(*size, seed=options.seed)
    return _timed([Calls(list(problem.arguments()), problem.weight)], size, options)


def _parts(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """As _columns; a batch below POPULATION is timed over all parts of one of that size."""
    n, m, p, batch = size
    problem = optnet(n, m, p, max(batch, POPULATION), seed=options.seed)
    parts = []
    for at in range(0, len(problem.weight) - batch + 1, batch):
        here = slice(at, at + batch)
        data = [None if v is None else v[here] for v in problem.arguments()]
        parts.append(Calls(data, problem.weight[here]))
    return _timed(parts, size, options)


def _timed(calls: list[Calls], size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Forward and total of all batches, one after the other: us per problem."""

    def forward() -> None:
        for part in calls:
            part.forward()

    def forward_backward() -> None:
        for part in calls:
            part.total()

    items = [Timed("forward", forward), Timed("forward_backward", forward_backward)]
    interleave(items, options.seconds, options.rounds)
    for item in items:
        if item.error:
            raise RuntimeError(f"{size}: {item.error}")
    unit = 1e-6 * size[3] * len(calls)
    return {item.name: statistics(item.seconds, unit) for item in items}


def against_batch(options: argparse.Namespace) -> dict[str, Any]:
    """Us per problem for every batch size, and the largest over the smallest of the medians."""
    n, m, p, _ = options.size
    us = {str(batch): _parts((n, m, p, batch), options) for batch in options.batches}
    spread = {}
    for column in ("forward", "forward_backward"):
        medians = [columns[column]["median"] for columns in us.values()]
        spread[column] = max(medians) / min(medians)
    return {"us": us, "max_over_min": spread}


def _process(threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Times the cases in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--threads", str(threads)]
    command += ["--seconds", str(options.seconds / 2), "--seed", str(options.seed)]
    command += ["--rounds", str(options.rounds)] if options.rounds else []
    command += ["--cases", *(suite.name(size) for size in options.cases)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{threads} threads: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout)


def against_threads(options: argparse.Namespace) -> dict[str, Any]:
    """Medians with 1 and 2 threads over the turns, and their ratio."""
    if len(allowed()) < 2:
        return {"left_out": "this process may use one core only"}
    turns: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(options.turns):
        for threads, results in turns.items():
            results.append(_process(threads, options))
    cases: dict[str, Any] = {}
    for key in turns[1][0]:
        cases[key] = {}
        for column in ("forward", "forward_backward"):
            one, two = (
                float(np.median([turn[key][column] for turn in turns[threads]]))
                for threads in (1, 2)
            )
            cases[key][column] = {"us_1": one, "us_2": two, "speedup": one / two}
    return {"turns": options.turns, "cases": cases}


def show(record: dict[str, Any]) -> None:
    """Prints a part."""
    print(f"\n{record['case']}")
    if record["case"] == "latency":
        for name, time in record["us"].items():
            print(f"  {name:<26} median {time['median']:8.1f} us   p95 {time['p95']:8.1f} us")
    elif record["case"] == "batch":
        for batch, columns in record["us"].items():
            pair = [columns[c]["median"] for c in ("forward", "forward_backward")]
            print(f"  {batch:>8} {pair[0]:10.3f} {pair[1]:10.3f} us a problem")
        print(f"  largest / smallest: {record['max_over_min']}")
    elif "left_out" in record:
        print(f"  left out: {record['left_out']}")
    else:
        for key, columns in record["cases"].items():
            told = [
                f"{t['us_1']:.4g} / {t['us_2']:.4g} us = {t['speedup']:.2f}x"
                for t in columns.values()
            ]
            print(f"  {key:<20} {'   '.join(told)}")


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.8)
    cases = [*DEFAULT_CASES, (10, 10, 0, 4096)]
    parser.add_argument("--cases", nargs="+", type=suite.case, default=cases, metavar="n,m,p,B")
    parser.add_argument("--size", type=suite.case, default=(10, 10, 0, 1), help="latency, batches")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--calls", type=int, default=2000, help="single calls for the latency")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        torch.set_num_threads(options.threads)
        timed = {suite.name(size): _columns(size, options) for size in options.cases}
        print(json.dumps({k: {c: t["median"] for c, t in v.items()} for k, v in timed.items()}))
        return
    record = suite.Record("scaling", options)
    show(record.case("latency", partial(latency, options.size, options.calls, options.seed)))
    show(record.case("batch", partial(against_batch, options)))
    show(record.case("threads", partial(against_threads, options)))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
