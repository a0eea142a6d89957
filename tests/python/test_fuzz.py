"""A minute of the fuzzer, as far as this machine has one."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command():
    """tests/fuzz as a module."""
    loader = importlib.machinery.SourceFileLoader("fuzz", str(ROOT / "tests" / "fuzz"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz", loader))
    loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_minute_of_fuzzing_finds_nothing():
    if command().compiler() is None:
        pytest.skip("needs clang++ with libFuzzer")
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz", "--seconds", "60"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (runs,) = (line for line in run.stderr.splitlines() if "number_of_executed_units" in line)
    assert int(runs.split()[-1]) > 1000
