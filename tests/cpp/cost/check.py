"""Counts the instructions of fixed solves and compares them with budget.json.

    python3 tests/cpp/cost/check.py PROGRAM            # PROGRAM: the target `cost`
    python3 tests/cpp/cost/check.py --renew PROGRAM    # writes budget.json

Counted by callgrind, which knows no AVX-512: the kernels for AVX2 run. A count does not depend on
the machine or its load, but it does on the compiler; with another one than the budget's, without
valgrind, or without AVX2 the check is skipped (exit status 77).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

BUDGET = Path(__file__).with_name("budget.json")
TOLERANCE = 0.10
LEVEL = "avx2"
SKIPPED = 77


def skip(reason: str) -> NoReturn:
    """Ends the program as ctest's SKIP_RETURN_CODE wants it."""
    print("skipped:", reason)
    sys.exit(SKIPPED)


def count(program: Path, case: str) -> int:
    """Instructions inside cost_measured."""
    callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = ["valgrind", *callgrind, "--toggle-collect=cost_measured", str(program), case]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{case}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    level = result.stdout.strip()
    if level != LEVEL:
        skip(f"the kernels for {level} ran, the budget is for {LEVEL}")
    collected = re.search(r"Collected : (\d+)", result.stderr)
    if collected is None or int(collected[1]) == 0:
        sys.exit(f"{case}: callgrind counted nothing\n{result.stderr}")
    return int(collected[1])


def main() -> int:
    """Exit status: 0 within the budget, 1 above it, 77 where nothing can be said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="write budget.json")
    parser.add_argument("program", type=Path)
    options = parser.parse_args()
    program = options.program.resolve()
    if shutil.which("valgrind") is None:
        skip("valgrind is not installed")
    about = json.loads(subprocess.check_output([program], text=True))
    compiler, cases = about["compiler"], about["cases"]
    budget = {} if options.renew else json.loads(BUDGET.read_text())
    if not options.renew and compiler != budget["compiler"]:
        skip(f"compiled by {compiler}, the budget is for {budget['compiler']}")

    counts = {case: count(program, case) for case in cases}
    if options.renew:
        content = {"compiler": compiler, "level": LEVEL, "instructions": counts}
        BUDGET.write_text(json.dumps(content, indent=2) + "\n")
        print(f"wrote {BUDGET}")
        return 0

    allowed = budget["instructions"]
    above = below = 0
    print(f"{'case':<22}{'instructions':>14}{'budget':>14}{'change':>9}")
    for case, instructions in counts.items():
        if case not in allowed:
            print(f"{case:<22}{instructions:>14,}  has no budget")
            above += 1
            continue
        change = instructions / allowed[case] - 1
        above += change > TOLERANCE
        below += change < -TOLERANCE
        verdict = "  too dear" if change > TOLERANCE else ""
        print(f"{case:<22}{instructions:>14,}{allowed[case]:>14,}{change:>+9.1%}{verdict}")
    renew = f"python3 {Path(__file__).resolve()} --renew {program}"
    if above:
        print(f"{above} of {len(counts)} cases more than {TOLERANCE:.0%} above the budget.")
        print(f"If that is wanted, renew it: {renew}")
    elif below:
        print(f"{below} cases are much cheaper now; renew the budget to keep it so: {renew}")
    return int(above > 0)


if __name__ == "__main__":
    sys.exit(main())
