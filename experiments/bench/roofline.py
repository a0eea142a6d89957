"""How near torchqp is to what the machine allows: counted operations and bytes beside the time.

    python experiments/bench/roofline.py --out experiments/bench/results/roofline.json
    python experiments/bench/roofline.py --linalg linalg.json    # with native/'s shares of the peak

The count is of the dual form on the problems' own active sets and rounds (see the page); what a
pack of lanes does for members that are done already, padding and all else is not in it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

import torchqp
from experiments.bench import suite
from experiments.bench.markdown import table
from experiments.bench.problems import DEFAULT_CASES, operator_outputs, optnet
from experiments.bench.suite import Case
from experiments.bench.timing import Timed, interleave, statistics

LANES = {"AVX512": 8, "AVX2": 4}  # float64; two else
PEAK_SIZE = 1024  # of the matrix product that stands for the peak
REFINEMENTS = 2  # of the point, and of the adjoint


def count(n: int, m: int, p: int, held: float, rounds: float, factor: int) -> dict[str, Any]:
    """Floating-point operations and bytes of one problem; a multiply-add is two operations.

    held: rows that hold, equalities among them; rounds: factorisations of their system.
    """
    k = m + p
    system = held**3 / 3 + 2 * held**2 + 2 * held * k
    refine = REFINEMENTS * (4 * n * n + 4 * n * k + 4 * n * held + 2 * held**2)
    data, answer = n * n + n * k + n + k, n + 2 * k + 4
    return {
        "forward": {
            "flop": n**3 / 3 + n * n * k + n * k * k + rounds * system + refine,
            "bytes": 8 * (data + answer),
        },
        "backward": {
            "flop": REFINEMENTS * (4 * n * n + 8 * n * held + 2 * held**2) + 3 * n * (n + k),
            "bytes": 8 * (data + factor + 2 * n + 2 * k) + 8 * data,
        },
    }


def _slowest(iterations: torch.Tensor, lanes: int) -> float:
    """Mean over packs of a pack's most iterations, by the mean of all."""
    whole = iterations[: len(iterations) // lanes * lanes].double()
    if not len(whole):
        return 1.0
    return float(whole.view(-1, lanes).amax(1).mean() / whole.mean())


def measure(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Times, the machine's speeds in the same rounds, and the count of one case."""
    n, m, p, batch = size
    problem = optnet(*size, seed=options.seed)
    out = operator_outputs(problem)
    active, iterations, factor = out[9], out[7], out[10].shape[-1]
    held = p + float((active != 0).double().sum(-1).mean())
    rounds = float(iterations.double().mean())
    counted = count(n, m, p, held, rounds, factor)

    leaves = [v.clone().requires_grad_() for v in problem.arguments() if v is not None]
    z = torchqp.solve_qp(*leaves).z
    square = torch.rand(PEAK_SIZE, PEAK_SIZE, dtype=torch.float64)
    source = torch.rand(int(counted["forward"]["bytes"] * batch / 8), dtype=torch.float64)
    target = torch.empty_like(source)

    def forward() -> None:
        with torch.no_grad():
            torchqp.solve_qp(*problem.arguments())

    items = [
        Timed("forward", forward),
        Timed(
            "backward", lambda: torch.autograd.grad(z, leaves, problem.weight, retain_graph=True)
        ),
        Timed("product", lambda: torch.mm(square, square)),
        Timed("copy", lambda: target.copy_(source)),
    ]
    interleave(items, options.seconds, options.rounds)
    failed = {item.name: item.error for item in items if item.error}
    if failed:
        raise RuntimeError(f"failed: {failed}")
    took = {item.name: statistics(item.seconds, 1.0)["median"] for item in items}
    peak = 2 * PEAK_SIZE**3 / took["product"]
    bandwidth = 16 * len(source) / took["copy"]
    level = torch.backends.cpu.get_cpu_capability()
    result: dict[str, Any] = {
        "instructions": level,
        **dict(zip(("n", "m", "p", "batch"), size, strict=True)),
        "held": held,
        "rounds": rounds,
        "slowest_of_a_pack": _slowest(iterations, LANES.get(level, 2)),
        "peak_gflops": peak / 1e9,
        "bandwidth_gbs": bandwidth / 1e9,
    }
    for pass_, cost in counted.items():
        seconds = took[pass_] / batch
        compute, memory = cost["flop"] / peak, cost["bytes"] / bandwidth
        result[pass_] = {
            **cost,
            "us": seconds * 1e6,
            "compute_us": compute * 1e6,
            "memory_us": memory * 1e6,
            "gflops": cost["flop"] / seconds / 1e9,
            "share": max(compute, memory) / seconds,
        }
    return result


def shares_of_peak(path: Path) -> dict[str, dict[str, float]]:
    """Of native/'s file: share of the thread's peak in the factorisation, float64, by size."""
    shares: dict[str, dict[str, float]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
        found = re.match(r"factor_cholesky/(pack|one|dpotrf)/double/(\d+)", row["name"])
        if found:
            who, n = found.groups()
            shares.setdefault(n, {})[who] = row["of_peak"]
    return shares


def section(record: dict[str, Any]) -> list[str]:
    """The tables of the page."""
    rows = []
    for case in record["cases"]:
        for pass_ in ("forward", "backward"):
            c = case[pass_]
            told = (c["us"], c["compute_us"], c["memory_us"], c["gflops"])
            sizes, waits = f"{case['n']}, {case['m']}, {case['p']}", case["slowest_of_a_pack"]
            share = f"{100 * c['share']:.0f} %"
            rows.append([sizes, pass_, *(f"{v:.3g}" for v in told), share, f"{waits:.2f}"])
    heads = [
        "case",
        "pass",
        "us",
        "us of its operations at the peak",
        "us of its bytes at the copy",
    ]
    heads += ["GFLOP/s", "share of the bound", "slowest of a pack / mean"]
    speeds = [
        f"{case['peak_gflops']:.1f} GFLOP/s, {case['bandwidth_gbs']:.1f} GB/s"
        for case in record["cases"]
    ]
    lines = [table(heads, rows), "", f"Peak and copy, case by case: {'; '.join(speeds)}."]
    if shares := record.get("factorisation"):
        names = [
            name for name in ("pack", "one", "dpotrf") if any(name in s for s in shares.values())
        ]
        cells = [
            [n, *(f"{100 * s[name]:.0f} %" if name in s else "" for name in names)]
            for n, s in shares.items()
        ]
        lines += ["", "Share of the thread's peak in the Cholesky factorisation, float64:", ""]
        lines += [table(["n", *names], cells)]
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=1.0)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B")
    parser.add_argument("--linalg", type=Path, help="what native/linalg wrote with --benchmark_out")
    options = parser.parse_args(arguments)
    record = suite.Record("roofline", options)
    for size in options.cases or DEFAULT_CASES:
        case = record.case(suite.name(size), partial(measure, size, options))
        print(f"\n(n, m, p) x batch = {case['case']}")
        for pass_ in ("forward", "backward"):
            c = case[pass_]
            bounds = f"operations {c['compute_us']:.2f}, bytes {c['memory_us']:.2f}"
            reached = f"{c['gflops']:.1f} GFLOP/s, {100 * c['share']:.0f} % of the bound"
            print(f"  {pass_:<10}{c['us']:>9.2f} us; {bounds}; {reached}")
    if options.linalg:
        record.note(factorisation=shares_of_peak(options.linalg))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
