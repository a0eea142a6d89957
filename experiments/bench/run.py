"""Runs the whole benchmark: every script, then figures and tables. About three quarters of an hour.

    python experiments/bench/run.py                      # a quiet machine, please
    python experiments/bench/run.py --only layers ratios
    python experiments/bench/run.py --resume             # after an interruption: case by case
    python experiments/bench/run.py --linalg linalg.json # with native/'s shares of the peak

Writes results/*.json, results/*.png and the tables of README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TWO_THREADS = ["torchqp", "moreau", "proxqp", "loop-daqp"]  # the fastest; others gain little
# Name of the results file: script and options. None writes no file of its own.
STEPS: dict[str, list[str]] = {
    "layers": ["layers.py"],
    "layers-2threads": ["layers.py", "--threads", "2", "--layers", *TWO_THREADS],
    "ratios": ["ratios.py"],
    "ablation": ["ablation.py"],
    "roofline": ["roofline.py"],
    "projection": ["projection.py"],
    "scaling": ["scaling.py"],
    "large": ["large.py"],
    "hard": ["hard.py", "--padded"],
    "faults": ["faults.py"],
    "memory": ["memory.py"],
    "accuracy": ["accuracy.py"],
    "figures": ["figures.py"],
    "tables": ["tables.py"],
}
DRAWING = ("figures", "tables")


def main(arguments: list[str] | None = None) -> int:
    """The number of scripts that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--resume", action="store_true", help="keep cases of the same commit")
    parser.add_argument("--linalg", type=Path, help="native/'s results, for the roofline's table")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    started, failed = time.perf_counter(), []
    for name in options.only:
        script, *choices = STEPS[name]
        command = [sys.executable, str(HERE / script), *choices]
        if name in DRAWING:
            command += ["--results", str(options.results)]
        else:
            command += ["--out", str(options.results / f"{name}.json")]
            command += ["--resume"] if options.resume else []
        if name == "roofline" and options.linalg:
            command += ["--linalg", str(options.linalg)]
        begun = time.perf_counter()
        if subprocess.run(command).returncode:
            failed.append(name)
        print(f"--- {name}: {time.perf_counter() - begun:.0f} s\n", flush=True)
    print(f"{time.perf_counter() - started:.0f} s; failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
