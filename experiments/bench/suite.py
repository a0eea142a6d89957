"""What the scripts share: options, and a JSON file that says where it comes from and can resume."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.common.record import environment, write_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
_GENERATED = (":!experiments/bench/results", ":!experiments/bench/README.md")
_NO_CHOICE = ("out", "resume", "cases", "linalg")  # options that do not change what a case measures

Case = tuple[int, int, int, int]


def case(text: str) -> Case:
    """Reads ``n,m,p,B``."""
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) != 4 or min(numbers[0], numbers[1], numbers[3]) < 1 or numbers[2] < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected n,m,p,B with n, m, B >= 1 and p >= 0")
    return (numbers[0], numbers[1], numbers[2], numbers[3])


def name(size: Case) -> str:
    """A case as it is written on the command line; the key of its record."""
    return ",".join(map(str, size))


def parser(doc: str | None, budget: float, threads: int = 1) -> argparse.ArgumentParser:
    """The options that all scripts have, with the defaults of ``--seconds`` and ``--threads``."""
    result = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    result.add_argument(
        "--threads", type=int, default=threads, help=f"cores to pin to (default {threads})"
    )
    result.add_argument("--seed", type=int, default=0)
    result.add_argument(
        "--seconds",
        type=float,
        default=budget,
        help=f"about how long each thing is timed in each case (default {budget:g})",
    )
    result.add_argument("--rounds", type=int, help="samples of each thing, instead of --seconds")
    result.add_argument("--out", type=Path, help="JSON file to write, after every case")
    result.add_argument(
        "--resume", action="store_true", help="keep the cases that --out has from this commit"
    )
    return result


def significant(value: Any, digits: int = 5) -> Any:
    """Rounds every float; JSON has no NaN and no infinity, so those become null."""
    if isinstance(value, dict):
        return {key: significant(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [significant(item, digits) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def commit(recorded: str | None) -> str | None:
    """The commit, with a ``+`` only where something else than this benchmark's output differs.

    TORCHQP_COMMIT says it where the sources are no clone.
    """
    if given := os.environ.get("TORCHQP_COMMIT"):
        return given
    if recorded is None or not recorded.endswith("+"):
        return recorded
    command = ["git", "status", "--porcelain", "--", ".", *_GENERATED]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return recorded if changed else recorded.rstrip("+")


def versions(packages: list[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


class Record:
    """A results file: one record a case, written after each.

    ``case`` measures, or with ``--resume`` returns what the file has, if script, commit, machine,
    versions and options are the same.
    """

    def __init__(
        self, script: str, options: argparse.Namespace, packages: list[str] | None = None
    ) -> None:
        """Describes the run, and reads the file if it shall resume."""
        torch.set_num_threads(options.threads)
        warnings.filterwarnings("ignore")  # the peers' deprecations would bury the tables
        self.out: Path | None = options.out
        here = environment()
        here["commit"] = commit(here["commit"])
        here["versions"] |= versions(packages or [])
        chosen = {k: v for k, v in vars(options).items() if k not in _NO_CHOICE}
        self.data: dict[str, Any] = {"script": script, **here, "options": chosen}
        self.identity = json.dumps(significant(self.data), sort_keys=True, default=str)
        kept = self._earlier() if options.resume else []
        self.data |= {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cores": sorted(os.sched_getaffinity(0)),
            "load_average": list(os.getloadavg()),
            "seconds": 0.0,
            "cases": kept,
        }
        self.started = time.perf_counter()
        machine = f"{here['machine']['cpu']}, {options.threads} of {here['machine']['cores']} cores"
        print(f"{script}: {machine}; {self.data['date']}; commit {here['commit']}")

    def _earlier(self) -> list[dict[str, Any]]:
        """The cases of the file that is to be resumed."""
        if self.out is None or not self.out.exists():
            return []
        earlier = json.loads(self.out.read_text(encoding="utf-8"))
        told = ("script", "machine", "versions", "torchqp", "commit", "options")
        there = json.dumps({key: earlier.get(key) for key in told}, sort_keys=True, default=str)
        if there != self.identity:
            print(f"{self.out.name} is of another commit, machine or set of options: starting anew")
            return []
        return earlier["cases"]

    def case(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a case, measured unless the file has it."""
        for kept in self.data["cases"]:
            if kept["case"] == key:
                return kept
        measured = significant({"case": key, **measure()})
        self.data["cases"].append(measured)
        self.data["seconds"] = round(time.perf_counter() - self.started, 1)
        self.write()
        return measured

    def note(self, **values: Any) -> None:
        """Adds something that holds for all cases."""
        self.data |= significant(values)
        self.write()

    def write(self) -> None:
        """Writes the file, if there shall be one."""
        if self.out is not None:
            write_json(self.out, significant(self.data))
