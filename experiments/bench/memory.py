"""Peak memory of one forward and backward, beside the least that it must hold.

    python experiments/bench/memory.py --out experiments/bench/results/memory.json

Each shape runs in a fresh process. There the peak is set back (Linux, /proc/self/clear_refs) when
the inputs exist; what the process had before them, with torch and torchqp loaded and a small
problem solved and differentiated, is subtracted. The budget is inputs, outputs, gradients, one
factor a problem of 1 + n (n + 1) / 2 + k (k + 1) / 2 numbers with k = p + m, and 64 MiB.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

import torchqp
from experiments.bench import suite
from experiments.bench.pinned import ROOT
from experiments.bench.problems import PARAMETERS, optnet
from experiments.bench.suite import Case

CASES = (
    (10, 10, 0, 65536),
    (50, 50, 10, 4096),
    (100, 100, 50, 1024),
    (200, 200, 50, 128),
    (1000, 1000, 100, 2),
)
SLACK = 64 * 2**20


def budget(size: Case) -> dict[str, int]:
    """Bytes that a forward and backward in float64 must or may hold, by what they are."""
    n, m, p, batch = size
    parameters = n * n + n + m * n + m + p * n + p
    # z, nu, lam, s, residuals; status, iterations; active.
    outputs = 8 * (n + p + m + m + 4) + 4 * 2 + m
    rows = p + m
    factor = 8 * (1 + n * (n + 1) // 2 + rows * (rows + 1) // 2)
    return {
        "inputs": batch * 8 * (parameters + n),  # with the cotangent of z
        "outputs": batch * outputs,
        "gradients": batch * 8 * parameters,
        "factors": batch * factor,
        "slack": SLACK,
    }


def fill(size: Case, seed: int) -> tuple[list[torch.Tensor | None], torch.Tensor]:
    """The recipe's arguments and cotangent, made in small pieces, so that little else is left."""
    n, m, p, batch = size
    shapes = {"Q": (n, n), "q": (n,), "G": (m, n), "h": (m,), "A": (p, n), "b": (p,)}
    shapes["weight"] = (n,)
    whole = {k: torch.empty(batch, *v, dtype=torch.float64) for k, v in shapes.items()}
    piece = max(1, 2**20 // (8 * n * (n + m + p)))
    for start in range(0, batch, piece):
        part = optnet(n, m, p, min(piece, batch - start), seed + start)
        for name, values in whole.items():
            values[start : start + piece] = getattr(part, name)
    data = [whole[name].requires_grad_() for name in PARAMETERS]
    return [*data[:4], *(data[4:] if p else (None, None))], whole["weight"]


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])


def solve(data: list[torch.Tensor | None], weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One forward and the gradients of all parameters; returns them."""
    z = torchqp.solve_qp(*data).z  # type: ignore[arg-type]
    return torch.autograd.grad(z, [v for v in data if v is not None], weight)


def child(size: Case, seed: int) -> dict[str, int]:
    """The measurement, in the process that is measured."""
    solve(*fill((4, 4, 1, 2), seed))  # loads what a first call loads
    before = resident("VmRSS")
    data, weight = fill(size, seed)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    inputs = resident("VmRSS")
    gradients = solve(data, weight)
    peak = resident("VmHWM")
    assert all(bool(g.isfinite().all()) for g in gradients)
    return {"before": before, "with_inputs": inputs, "peak": peak}


def measure(size: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Peak growth, the budget's parts, and their ratio."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", suite.name(size)]
    command += ["--threads", str(options.threads), "--seed", str(options.seed)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{size}: {(run.stderr.strip().splitlines() or ['killed'])[-1]}")
    resident_bytes = json.loads(run.stdout)
    parts = budget(size)
    total = sum(parts.values())
    growth = resident_bytes["peak"] - resident_bytes["before"]
    return {
        **dict(zip(("n", "m", "p", "batch"), size, strict=True)),
        "resident": resident_bytes,
        "growth": growth,
        "budget": parts,
        "budget_total": total,
        "ratio": growth / total,
    }


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    parts = {name: f"{size / 2**20:.0f}" for name, size in record["budget"].items()}
    print(
        f"{record['case']:<18} peak {record['growth'] / 2**20:8.1f} MiB, budget "
        f"{record['budget_total'] / 2**20:8.1f} MiB, ratio {record['ratio']:.3f}   "
        + ", ".join(f"{name} {size}" for name, size in parts.items())
    )


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.0)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B", default=CASES)
    parser.add_argument("--child", type=suite.case, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        torch.set_num_threads(options.threads)
        print(json.dumps(child(options.child, options.seed)))
        return
    record = suite.Record("memory", options)
    for size in options.cases:
        show(record.case(suite.name(size), partial(measure, size, options)))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
