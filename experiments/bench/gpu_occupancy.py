"""What bounds a solve on an H200, without one: plans, registers, floors of arithmetic and memory.

    cmake -S . -B build -DTORCHQP_BUILD_PYTHON=OFF -DTORCHQP_BUILD_TESTS=ON -DTORCHQP_CUDA=ON
    cmake --build build --target torchqp_cuda plans
    python experiments/bench/gpu_occupancy.py build

prints a table with one line for each case of gpu.py that has a target and its own matrices.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.bench.gpu import GRID
from experiments.bench.suite import ROOT
from experiments.bench.tables import table

ARCH = "sm_90"
WARP, PARTITIONS, MOST_BLOCKS = 32, 4, 32  # of a multiprocessor: schedulers, blocks at once
FLOPS, BYTES = 33.5e12, 4.3e12  # a second: float64 outside the tensor cores; memory

# Megaflop of one solve in the dual form with nine iterations: what is made once of Q, G and A, and
# in each iteration a factor, two pairs of solves and the residuals. Counted by hand.
MEGAFLOP = {
    "4,8,0": 0.0067,
    "10,10,0": 0.013,
    "20,20,0": 0.075,
    "50,50,10": 0.98,
    "100,100,50": 8.7,
    "200,200,50": 55.0,
    "500,500,100": 797.0,
    "1000,1000,100": 5830.0,
}

HEAD = ["n, m, p, batch", "set-up", "lanes", "teams / block", "blocks", "shared / block"]
HEAD += ["registers", "teams / MP", "warps / MP", "occupancy", "MF", "bytes", "bound, ms", "by"]
HEAD += ["target, ms"]


def resources() -> ModuleType:
    """tests/cpp/cuda/resources.py, which reads what a kernel takes."""
    path = ROOT / "tests" / "cpp" / "cuda" / "resources.py"
    spec = importlib.util.spec_from_file_location("kernel_resources", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem_bytes(n: int, m: int, p: int) -> int:
    """Q, q, G, h, A, b read once; z, lam, nu and slack written once."""
    return 8 * (n * n + n + m * n + m + p * n + p) + 8 * (n + 2 * m + p)


def shared_bytes(plan: dict[str, Any], kernel: dict[str, int]) -> int:
    """Of a block. What cuobjdump says of sm_90 holds the part that the system reserves."""
    return int(plan["shared_bytes"] + kernel["shared"])


def resident_blocks(plan: dict[str, Any], kernel: dict[str, int], device: dict[str, int]) -> int:
    """Blocks that a multiprocessor holds at once."""
    threads = plan["lanes"] * plan["teams"]
    warps = -(-threads // WARP)
    registers = -(-kernel["registers"] // 8) * 8 * WARP  # of a warp
    by_registers = device["registers"] // PARTITIONS // registers * PARTITIONS // warps
    by_shared = device["shared"] // (-(-shared_bytes(plan, kernel) // 128) * 128)
    return min(by_registers, by_shared, device["threads"] // threads, MOST_BLOCKS)


def row(
    plan: dict[str, Any], kernel: dict[str, int], device: dict[str, int], target: float
) -> list[str]:
    """One line of the table."""
    n, m, p, batch = map(int, plan["case"].split(","))
    blocks = resident_blocks(plan, kernel, device)
    launched = -(-plan["blocks"] // device["multiprocessors"])  # of the fullest multiprocessor
    here = min(blocks, launched)
    warps = here * plan["lanes"] * plan["teams"] / WARP
    megaflop, moved = MEGAFLOP[f"{n},{m},{p}"], problem_bytes(n, m, p)
    by_flops, by_bytes = 1e9 * batch * megaflop / FLOPS, 1e3 * batch * moved / BYTES
    return [
        f"{n}, {m}, {p}, {batch:,}",
        "libraries" if plan["libraries"] else "team",
        str(plan["lanes"]),
        str(plan["teams"]),
        f"{plan['blocks']:,}",
        f"{shared_bytes(plan, kernel):,}",
        str(kernel["registers"]),
        str(here * plan["teams"]),
        f"{warps:g}",
        f"{warps * WARP / device['threads']:.0%}",
        f"{megaflop:g}",
        f"{moved:,}",
        f"{max(by_flops, by_bytes):.3f}",
        "arithmetic" if by_flops > by_bytes else "memory",
        f"{target:g}",
    ]


def lines(usage: dict[str, dict[str, int]], told: dict[str, Any]) -> list[list[str]]:
    """All lines, from the usage of an architecture's kernels and what ``plans`` printed."""
    rows = []
    for plan in told["plans"]:
        team = "WideTeam" if plan["wide"] else "NarrowTeam"
        name = "finish_kernel" if plan["libraries"] else "solve_kernel"
        kernel = usage[f"{name}<{team}, double, double>"]
        rows.append(row(plan, kernel, told["device"], GRID[plan["case"]] or 0.0))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build tree with torchqp_cuda and plans")
    options = parser.parse_args()
    cases = [case for case in GRID if case.rpartition(",")[0] in MEGAFLOP and GRID[case]]
    cases.sort(key=lambda case: int(case.split(",")[0]))
    program = options.build / "tests" / "cpp" / "plans"
    told = json.loads(subprocess.check_output([program, *cases], text=True))
    usage, _ = resources().read(options.build / "libtorchqp_cuda.a")
    if ARCH not in usage:
        raise SystemExit(f"{options.build}: no kernels for {ARCH}")
    print(table(HEAD, lines(usage[ARCH], told)))


if __name__ == "__main__":
    main()
