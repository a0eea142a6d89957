"""The first import of every script: pins the process before torch and numpy size their pools.

    if __name__ == "__main__":
        from pinned import pin

        pin()

This file lies in the script's folder, so a script finds it before anything else is set up; ``pin``
then puts the repository in the place of that folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CORES = "TORCHQP_BENCH_CORES"  # what scripts that start scripts hand down
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def allowed() -> list[int]:
    """The cores that this process had before it was pinned, or the one that started it."""
    told = os.environ.get(_CORES)
    return [int(core) for core in told.split(",")] if told else sorted(os.sched_getaffinity(0))


def pin(arguments: list[str] | None = None, default: int = 1) -> list[int]:
    """Keeps the process on its last ``--threads`` cores; the first one serves most interrupts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=default)
    threads = parser.parse_known_args(arguments)[0].threads
    cores = allowed()
    if not 1 <= threads <= len(cores):
        raise SystemExit(f"--threads {threads}: this process may use 1 to {len(cores)} cores")
    sys.path[0] = str(ROOT)
    os.environ[_CORES] = ",".join(map(str, cores))
    os.sched_setaffinity(0, cores[-threads:])
    os.environ.update(dict.fromkeys(_POOLS, str(threads)))
    return cores[-threads:]
