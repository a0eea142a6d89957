"""Microseconds per QP, achieved residual and gradient error of torchqp and its peers, on one CPU.

    python experiments/bench/layers.py                                 # six cases, one thread
    python experiments/bench/layers.py --threads 2 --cases 100,100,0,128 --layers torchqp moreau
    python experiments/bench/layers.py --out experiments/bench/results.json

What is measured, and how to install the peers, is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def _case(text: str) -> tuple[int, int, int, int]:
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) != 4 or min(numbers[0], numbers[1], numbers[3]) < 1 or numbers[2] < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected n,m,p,B with n, m, B >= 1 and p >= 0")
    return (numbers[0], numbers[1], numbers[2], numbers[3])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="torchqp and its peers: time per QP, residual, gradient error"
    )
    parser.add_argument("--cases", nargs="+", type=_case, metavar="n,m,p,B", help="default: six")
    parser.add_argument("--threads", type=int, default=1, help="cores to pin to (default 1)")
    parser.add_argument("--repeats", type=int, help="rounds a case (default: by time, at least 5)")
    parser.add_argument("--seconds", type=float, default=40, help="per case, without --repeats")
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="default: all the exact ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write, after every case")
    return parser.parse_args()


def _pin(threads: int) -> list[int]:
    """Restricts the process to its last ``threads`` cores; the first one serves most interrupts."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise SystemExit(f"--threads {threads}: this process may use 1 to {len(cores)} cores")
    os.sched_setaffinity(0, cores[-threads:])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    return cores[-threads:]


def main() -> None:
    options = _arguments()
    cores = _pin(options.threads)
    # Imported only now: torch, numpy and the peers size their thread pools when they are loaded.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs as a script
    from experiments.bench.measure import run

    run(options, cores)


if __name__ == "__main__":
    main()
