"""The command line and the results file that all experiments have in common."""

import argparse
import os
from pathlib import Path

from experiments.common.record import environment, write_json
from experiments.common.sweep import finish


def parser(question: str | None, here: Path) -> argparse.ArgumentParser:
    """Options ``--full``, ``--out`` and ``--workers``; read them with :func:`parse`."""
    options = argparse.ArgumentParser(description=(question or "").partition("\n")[0])
    options.add_argument("--full", action="store_true", help="the paper's protocol")
    options.add_argument("--out", type=Path, help="folder of the results (default: beside run.py)")
    options.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)"
    )
    options.set_defaults(here=here)
    return options


def parse(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line; ``out`` is ``here``, or its folder ``full``, unless given."""
    arguments = options.parse_args()
    here = arguments.here
    arguments.out = arguments.out or (here / "full" if arguments.full else here)
    return arguments


def publish(out: Path, record: dict) -> dict:
    """Adds where the numbers come from, writes ``results.json`` and ends the journal."""
    record = record | environment()
    write_json(out / "results.json", record)
    finish(out)
    return record
