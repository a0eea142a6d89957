"""The benchmark grid on one GPU: torchqp beside its method in torch operations and its peers.

    python experiments/bench/gpu.py --out experiments/bench/results/gpu.json     # about 5 minutes
    python experiments/bench/gpu.py --cases 100,100,50,128 --layers torchqp qpth
    python experiments/bench/gpu.py --device cpu --smoke                        # no GPU: seconds

Each group of rows runs in a process of its own, with a limit: a peer that hangs or breaks its CUDA
context costs only what it had not measured yet. What is measured is in README.md beside this file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import allowed, pin

    pin(default=len(allowed()))

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from experiments.bench import gpu_measure, suite
from experiments.bench.gpu_adapters import GROUPS, ROWS, of_group, packages
from experiments.bench.gpu_measure import COLUMNS, GpuCase, gpu_case
from experiments.bench.measure import NO_SOLUTION, number, power
from experiments.bench.timing import guarded

# Case: milliseconds of a forward that we want to stay under on one H200, or None. The case that
# counts most is first, since a peer's limit may end its list.
GRID: dict[str, float | None] = {
    "100,100,50,128": 0.8,
    "10,10,0,100000": 1.0,
    "20,20,0,16384": 1.0,
    "50,50,10,4096": 2.5,
    "200,200,50,256": 4.0,
    "10,10,0,100000,shared": 0.8,
    "4,8,0,100000": 0.5,
    "500,500,100,64": 15.0,
    "1000,1000,100,16": 50.0,
    "10,10,0,1": None,
}
LATENCY = {"10,10,0,1": 0.1}  # the same for a call of one problem from Python
SMOKE = ("6,6,2,8", "5,4,0,16,shared")
OPTNET, QPTH_RATIO = "100,100,50,128", 40.0
BACKWARD_RATIO = 1.35  # forward and backward over forward
SMALL = 200  # up to this n we want to be ahead of cuPIQP
# Seconds of a group.
LIMITS = {"torchqp": 80.0, "torch": 140.0, "cupiqp": 90.0, "moreau": 40.0, "qpax": 60.0}


def gpu(device: str) -> dict[str, Any]:
    """What the numbers are from."""
    if device == "cpu":
        return {"name": None}
    found = torch.cuda.get_device_properties(0)
    told: dict[str, Any] = {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": found.total_memory / 2**30,
        "cuda": torch.version.cuda,
    }

    def driver() -> None:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told["driver"] = lines.split()[0]

    guarded(driver)
    return told


def limit_of(text: str) -> tuple[str, float]:
    """Reads ``GROUP=SECONDS``."""
    group, _, seconds = text.partition("=")
    if group not in LIMITS:
        raise argparse.ArgumentTypeError(f"{group!r}: choose from {', '.join(LIMITS)}")
    return group, float(seconds)


def here(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A group's rows in this process."""
    chosen = argparse.Namespace(**{**vars(options), "layers": names, "out": None, "data": None})
    return gpu_measure.cases(chosen)


def elsewhere(
    names: list[str], options: argparse.Namespace, folder: Path, limit: float
) -> dict[str, Any]:
    """A group's rows in a process of its own; what it had finished when its time was up."""
    out = folder / f"{names[0]}.json"
    command = [sys.executable, str(suite.HERE / "gpu_measure.py"), "--layers", *names]
    command += ["--cases", *map(str, options.cases), "--device", options.device]
    command += ["--threads", str(options.threads), "--seed", str(options.seed)]
    command += ["--seconds", str(options.seconds), "--data", str(folder), "--out", str(out)]
    command += ["--rounds", str(options.rounds)] if options.rounds else []
    try:
        code = subprocess.run(command, timeout=limit).returncode
        why = f"its process ended with status {code}"
    except subprocess.TimeoutExpired:
        why = f"not reached in the {limit:.0f} s of its group"
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for case in map(str, options.cases):
        told = found.setdefault(case, {"layers": {}, "left_out": {}})
        for name in names:
            if name not in told["layers"]:
                told["left_out"].setdefault(name, why)
    return found


def ratios(layers: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each peer's median over that of torchqp in the same dtype and by the peer's clock.

    One whose answers are no solutions (median residual above NO_SOLUTION) is not compared.
    """
    result: dict[str, dict[str, float]] = {}
    for name, row in layers.items():
        ours = layers.get("torchqp" if row["dtype"] == "float64" else "torchqp-float32")
        middle = row["residual_median"]
        if name.startswith("torchqp") or ours is None or middle is None or middle > NO_SOLUTION:
            continue
        end = "host_ms" if row["clock"] == "host" else "ms"
        result[name] = {
            c: row[f"{c}_{end}"]["median"] / ours[f"{c}_{end}"]["median"] for c in COLUMNS
        }
    return result


def targets(case: dict[str, Any]) -> list[dict[str, Any]]:
    """What we want in a case, what was measured, and whether it holds."""
    ours, name, found = case["layers"].get("torchqp"), case["case"], []

    def add(what: str, target: float, value: float | None, *, least: bool = False) -> None:
        met = None if value is None else value >= target if least else value <= target
        found.append({"what": what, "target": target, "value": value, "met": met})

    if ours is None:
        return []
    forward, total = (ours[f"{c}_ms"]["median"] for c in COLUMNS)
    wanted = GRID.get(name)
    if wanted is not None:
        add("forward, ms, at most", wanted, forward)
        add("forward + backward / forward, at most", BACKWARD_RATIO, total / forward)
    if name in LATENCY:
        add("forward from Python, ms, at most", LATENCY[name], ours["forward_host_ms"]["median"])
    for column in COLUMNS:
        words = column.replace("_", " + ")
        if name == OPTNET:
            value = case["ratios"].get("qpth", {}).get(column)
            add(f"qpth / torchqp, {words}, at least", QPTH_RATIO, value, least=True)
        if case["n"] <= SMALL:
            value = case["ratios"].get("cupiqp", {}).get(column)
            add(f"cupiqp / torchqp, {words}, at least", 1.0, value, least=True)
    return found


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    print(f"\n(n, m, p) x batch = {record['case']}")
    print(
        f"  {'ms a batch':<20}{'forward':>10}{'p95':>9}{'with bwd':>10}{'p95':>9}{'x, fwd':>8}"
        f"{'x, bwd':>8}{'host':>9}{'MiB':>8}{'residual':>10}{'gradient':>10}{'failed':>8}"
    )
    for name, row in record["layers"].items():
        line = f"  {name:<20}"
        for column in COLUMNS:
            time = row[f"{column}_ms"]
            line += f"{number(time['median']):>10}{number(time['p95']):>9}"
        found = record["ratios"].get(name)
        line += "".join(f"{found[c]:>8.2f}" if found else f"{'-':>8}" for c in COLUMNS)
        used = row["memory_mib"]["forward_backward"]
        line += f"{number(row['forward_host_ms']['median']):>9}"
        line += f"{'-' if used is None else f'{used:.0f}':>8}{power(row['residual_worst']):>10}"
        print(f"{line}{power(row['gradient_error']['median']):>10}{row['failures']:>8}")
    for name, why in record["left_out"].items():
        print(f"  {name}: left out ({why})")
    for target in record["targets"]:
        value = "not measured" if target["value"] is None else f"{target['value']:.3g}"
        word = {True: "met", False: "MISSED", None: "open"}[target["met"]]
        print(f"  {word}: {target['what']} {target['target']:g}: {value}")


def main(arguments: list[str] | None = None) -> int:
    """1 if torchqp is missing or has a failed member in some case, else 0."""
    parser = suite.parser(__doc__, budget=1.0, threads=torch.get_num_threads())
    parser.add_argument("--cases", nargs="+", type=gpu_case, metavar="n,m,p,B[,shared]")
    parser.add_argument("--layers", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the scripts")
    parser.add_argument("--smoke", action="store_true", help="two tiny cases, in this process")
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds for all groups")
    limits = {"metavar": "GROUP=SECONDS", "help": f"for each group; defaults: {LIMITS}"}
    parser.add_argument("--limits", nargs="+", type=limit_of, default=[], **limits)  # type: ignore[arg-type]
    options = parser.parse_args(arguments)
    if options.smoke:
        options.cases, options.rounds = [gpu_case(c) for c in SMOKE], options.rounds or 3
    options.cases = options.cases or [gpu_case(c) for c in GRID]
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU; --device cpu --smoke tries the scripts without one")
    record = suite.Record("gpu", options, packages(options.layers))
    record.note(gpu=gpu(options.device), targets_for="one H200")
    kept = {case["case"] for case in record.data["cases"]}
    options.cases = [case for case in options.cases if str(case) not in kept]

    started = time.perf_counter()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in GROUPS:
            names = of_group(group, options.layers)
            left = options.deadline - (time.perf_counter() - started)
            if names and options.smoke:
                found[group] = here(names, options)
            elif names:
                limit = max(1.0, min((LIMITS | dict(options.limits))[group], left))
                found[group] = elsewhere(names, options, Path(folder), limit)
    for case in options.cases:
        show(record.case(str(case), lambda case=case: merged(case, found)))  # type: ignore[misc]
    print(f"\n{record.data['seconds']:.0f} s")
    ours = [case["layers"].get("torchqp") for case in record.data["cases"]]
    return int("torchqp" in options.layers and any(not row or row["failures"] for row in ours))


def merged(case: GpuCase, groups: dict[str, Any]) -> dict[str, Any]:
    """A case's record from those of all groups."""
    told = [group[str(case)] for group in groups.values()]
    layers = {k: v for part in told for k, v in part["layers"].items()}
    record = {
        **case._asdict(),
        "case": str(case),
        "layers": layers,
        "left_out": {k: v for part in told for k, v in part["left_out"].items()},
        "ratios": ratios(layers),
    }
    return {**record, "targets": targets(record)}


if __name__ == "__main__":
    sys.exit(main())
