"""A minute of the fuzzer, as far as this machine has one."""

import subprocess
import sys
from pathlib import Path

import pytest

import bootstrap

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_minute_of_fuzzing_finds_nothing():
    if bootstrap.clang() is None:
        pytest.skip("needs clang++ with libFuzzer")
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz", "--seconds", "60"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (runs,) = (line for line in run.stderr.splitlines() if "number_of_executed_units" in line)
    assert int(runs.split()[-1]) > 1000
