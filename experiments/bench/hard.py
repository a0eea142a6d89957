"""Published hard problems, one by one: iterations, milliseconds and residuals of every solver.

    python experiments/bench/hard.py --out experiments/bench/results/hard.json
    python experiments/bench/hard.py --collections qp_misc --solvers torchqp piqp
    python experiments/bench/hard.py --padded     # and each collection as one batch: minutes more

Maros-Meszaros, NETLIB and free-for-all of tests/data. Residuals are recomputed from the data:
absolute as qpbenchmark does (primal, dual, gap), and relative to 1 + the largest term. A solver
runs in a process of its own and is left out of a problem after --limit seconds.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import importlib
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import torchqp
from experiments.bench import suite
from experiments.bench.hard_problems import (
    COLLECTIONS,
    Published,
    absolute_residuals,
    load,
    names,
    pad,
)
from experiments.bench.hard_solvers import SOLVERS, Answer
from torchqp import testing

LEVELS = {"absolute 1e-3": 1e-3, "absolute 1e-6": 1e-6, "absolute 1e-9": 1e-9}


def judge(problem: Published, solver: str, seconds: float) -> dict[str, Any]:
    """Runs a solver, for at most ``seconds`` after its first call, and measures its answer."""
    run = SOLVERS[solver].prepare(problem.arguments)
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 7):
        start = time.perf_counter()
        answer = run()
        times.append(time.perf_counter() - start)
    return described(problem, answer) | {"milliseconds": 1e3 * statistics.median(times)}


def described(problem: Published, answer: Answer) -> dict[str, Any]:
    """What an answer says of itself, its residuals and the error of its value."""
    absolute = absolute_residuals(problem.arguments, answer)
    relative = testing.kkt_residuals(problem.arguments, answer)
    return {
        "solved": answer.solved,
        "status": answer.status,
        "iterations": answer.iterations,
        "primal": absolute[0],
        "dual": absolute[1],
        "gap": absolute[2],
        "relative": float(relative.max()),
        "value_error": problem.value_error(answer.z),
    }


def _child(
    problem: Published, solver: str, seconds: float, end: Connection
) -> None:  # pragma: no cover  runs in another process
    try:
        end.send(judge(problem, solver, seconds))
    except Exception as error:  # the solver's own, whatever it is
        end.send({"solved": False, "status": f"{type(error).__name__}: {error}"[:120]})


def limited(problem: Published, solver: str, seconds: float, limit: float) -> dict[str, Any]:
    """As `judge` in a process that is ended after ``limit`` seconds."""
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(problem, solver, seconds, far))
    child.start()
    far.close()
    answered = near.poll(limit)
    try:
        row: dict[str, Any] = near.recv() if answered else {"status": f"over {limit:g} s"}
    except EOFError:
        row = {"status": "died"}
    child.kill()
    child.join()
    return {"solved": False} | row


def measure(problem: Published, solvers: list[str], seconds: float, limit: float) -> dict[str, Any]:
    """One record: sizes, and a row a solver."""
    sizes = {
        name: len(problem.arguments.get(key, ()))
        for name, key in (("n", "q"), ("m", "h"), ("p", "b"))
    }
    rows = {name: limited(problem, name, seconds, limit) for name in solvers}
    return {**sizes, "optimum": problem.optimum, "solvers": rows}


def padded(problems: list[Published]) -> dict[str, int]:
    """Solves all in one batch, filled up to the largest, and counts as `summary` does.

    Every member is judged on the problem as it was before it was filled up.
    """
    batch = torchqp.solve_qp(**pad(problems), on_failure="best")
    rows = []
    for i, problem in enumerate(problems):
        data = problem.arguments
        z, nu, lam, lam_lb, lam_ub = (
            part[i, : len(data.get(name, ()))]
            for part, name in zip(batch[:5], ("q", "b", "h", "lb", "ub"), strict=True)
        )
        status = torchqp.Status(int(batch.status[i]))
        iterations = int(batch.iterations[i])
        answer = Answer(z, nu, lam, lam_lb, lam_ub, status == 0, status.name.lower(), iterations)
        rows.append({"solvers": {"padded": described(problem, answer)}})
    return summary(rows, "padded")


def passes(row: dict[str, Any], level: str) -> bool:
    """Whether a row counts at a level: absolute ones, "relative 1e-8", or "value 1e-7"."""
    limit = LEVELS.get(level, 1e-8 if level.startswith("relative") else 1e-7)
    kinds = ("primal", "dual", "gap") if level in LEVELS else (level.split()[0],)
    measured = [row.get({"value": "value_error"}.get(kind, kind)) for kind in kinds]
    return all(value is not None and value <= limit for value in measured)


def summary(cases: list[dict[str, Any]], solver: str) -> dict[str, int]:
    """How many problems of these a solver says to have solved, and has."""
    rows = [case["solvers"][solver] for case in cases]
    counted = {"says solved": sum(row["solved"] for row in rows)}
    for level in (*LEVELS, "relative 1e-8", "value 1e-7"):
        counted[level] = sum(row["solved"] and passes(row, level) for row in rows)
    return counted | {"of": len(rows)}


def show(case: dict[str, Any]) -> None:
    """A line a solver."""
    print(f"{case['case']}: n = {case['n']}, m = {case['m']}, p = {case['p']}")
    for name, row in case["solvers"].items():
        if row.get("milliseconds") is None:
            print(f"  {name:16} {row['status']}")
            continue
        parts = (
            f"{kind} {'NaN' if row[kind] is None else format(row[kind], '.0e')}"
            for kind in ("primal", "dual", "gap", "relative", "value_error")
        )
        told = f"{row['iterations']:6} it {row['milliseconds']:10.2f} ms"
        print(f"  {name:16} {row['status']:22} {told}  {'  '.join(parts)}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.5)
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=list(COLLECTIONS))
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these problems alone")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one solver")
    parser.add_argument("--padded", action="store_true", help="each collection in one batch too")
    options = parser.parse_args(arguments)
    wanted = sorted({package for name in options.solvers for package in SOLVERS[name].packages})
    record = suite.Record("hard", options, wanted)
    present, absent = [], {}
    for name in options.solvers:
        try:
            for package in SOLVERS[name].packages:
                importlib.import_module(package)
            present.append(name)
        except ImportError as error:
            absent[name] = str(error)
    record.note(absent=absent, settings={name: SOLVERS[name].settings for name in present})
    for collection in options.collections:
        cases, problems = [], []
        for name in names(collection):
            if options.only and name not in options.only:
                continue
            problem = load(collection, name)
            problems.append(problem)
            cases.append(
                record.case(
                    f"{collection}/{name}",
                    lambda problem=problem: measure(
                        problem, present, options.seconds, options.limit
                    ),
                )
            )
            show(cases[-1])
        if cases:
            totals = {name: summary(cases, name) for name in present}
            record.note(totals=record.data.get("totals", {}) | {collection: totals})
            print(f"\n{collection}")
            for name, counted in totals.items():
                print(f"  {name:16} " + ", ".join(f"{k} {v}" for k, v in counted.items()))
            print()
        if problems and options.padded:
            counted = padded(problems)
            record.note(padded=record.data.get("padded", {}) | {collection: counted})
            print("  one padded batch  " + ", ".join(f"{k} {v}" for k, v in counted.items()))


if __name__ == "__main__":
    main()
