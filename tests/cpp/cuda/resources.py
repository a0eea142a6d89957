"""Compares the registers, stack and shared memory of every kernel with budget.json.

    python3 tests/cpp/cuda/resources.py LIBRARY            # LIBRARY: libtorchqp_cuda.a
    python3 tests/cpp/cuda/resources.py --update LIBRARY   # writes budget.json

What is spilled lies on the stack. The numbers depend on nvcc: with another one than the budget's,
without cuobjdump, or for other architectures the check is skipped (exit status 77).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

BUDGET = Path(__file__).with_name("budget.json")
TOLERANCE = 0.10
SKIPPED = 77
# What cuobjdump calls them. Registers are of one thread, stack too; shared memory is that which a
# kernel has in every launch.
NAMES = {"registers": "REG", "stack": "STACK", "shared": "SHARED"}
SCALARS = {"f": "float", "d": "double"}

Usage = dict[str, dict[str, dict[str, int]]]  # architecture, kernel, one of NAMES


def skip(reason: str) -> NoReturn:
    """Ends the program as ctest's SKIP_RETURN_CODE wants it."""
    print("skipped:", reason)
    sys.exit(SKIPPED)


def cuobjdump(nvcc: str | None) -> str | None:
    """Beside nvcc, on the path, or where triton brings it along."""
    places = [Path(nvcc).parent / "cuobjdump"] if nvcc else []
    for root in filter(None, (os.environ.get("CUDA_HOME"), "/usr/local/cuda")):
        places.append(Path(root) / "bin" / "cuobjdump")
    if on_path := shutil.which("cuobjdump"):
        places.append(Path(on_path))
    if triton := importlib.util.find_spec("triton"):
        for folder in triton.submodule_search_locations or []:
            places.append(Path(folder) / "backends" / "nvidia" / "bin" / "cuobjdump")
    return next((str(place) for place in places if os.access(place, os.X_OK)), None)


def name_of(symbol: str) -> str | None:
    """``solve_kernel<NarrowTeam, float, double>`` from the symbol of a kernel, else None.

    The symbol itself holds a hash of the file's path.
    """
    found = re.search(r"\d([a-z_]+_kernel)I(?:N\w*?\d+((?:Narrow|Wide)Team)E)?([fd]+)E", symbol)
    if found is None:
        return None
    scalars = [SCALARS[letter] for letter in found[3]]
    return f"{found[1]}<{', '.join([found[2], *scalars] if found[2] else scalars)}>"


def parse(text: str) -> tuple[Usage, list[str]]:
    """What ``cuobjdump --dump-resource-usage`` says, and the symbols that are no kernel of ours."""
    usage: Usage = {}
    others: list[str] = []
    arch = symbol = ""
    for line in text.splitlines():
        if found := re.match(r"arch = (\w+)", line):
            arch = found[1]
        elif found := re.match(r"\s*Function (\S+?):?$", line):
            symbol = found[1]
        elif symbol and "REG:" in line:
            numbers = dict(re.findall(r"(\w+):(\d+)", line))
            kernel = name_of(symbol)
            if kernel is None:
                others.append(symbol)
            else:
                kernels = usage.setdefault(arch, {})
                if kernel in kernels:
                    sys.exit(f"{arch} has two kernels {kernel}")
                kernels[kernel] = {key: int(numbers[name]) for key, name in NAMES.items()}
            symbol = ""
    return usage, others


def read(library: Path, nvcc: str | None = None) -> tuple[Usage, list[str]]:
    """The usage of a library or an object file, by architecture and kernel."""
    tool = cuobjdump(nvcc)
    if tool is None:
        skip("there is no cuobjdump: it comes with the CUDA toolkit and with triton")
    command = [tool, "--dump-resource-usage", str(library)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: exit status {result.returncode}\n{result.stderr}")
    return parse(result.stdout)


def complaints(usage: Usage, allowed: Usage) -> list[str]:
    """What lies above the budget, in the architectures of both, and kernels of one alone."""
    found = []
    for arch in sorted(usage.keys() & allowed.keys()):
        for kernel in sorted(usage[arch].keys() | allowed[arch].keys()):
            where = f"{arch} {kernel}: "
            if kernel not in allowed[arch]:
                found.append(where + "has no budget")
            elif kernel not in usage[arch]:
                found.append(where + "is in the budget, but was not built")
            else:
                for key, most in allowed[arch][kernel].items():
                    taken = usage[arch][kernel][key]
                    if taken > most * (1 + TOLERANCE):
                        found.append(where + f"{key} {taken}, budget {most}")
    return found


def main() -> int:
    """Exit status: 0 within the budget, 1 above it, 77 where nothing can be said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write budget.json")
    parser.add_argument("--nvcc", help="its path, beside which cuobjdump lies")
    parser.add_argument("--compiler", help="its version")
    parser.add_argument("library", type=Path)
    options = parser.parse_args()
    usage, others = read(options.library, options.nvcc)
    if not usage:
        sys.exit(f"{options.library}: no kernel in it")
    print(f"{'':<6} {'kernel':<45}" + "".join(f"{key:>10}" for key in NAMES))
    for arch, kernels in usage.items():
        for kernel, numbers in sorted(kernels.items()):
            print(f"{arch:<6} {kernel:<45}" + "".join(f"{numbers[key]:>10}" for key in NAMES))
    if others:
        print("unknown functions:", *others, sep="\n  ")
        return 1
    if options.update:
        content = {"compiler": options.compiler, "kernels": usage}
        BUDGET.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        print(f"wrote {BUDGET}")
        return 0

    budget = json.loads(BUDGET.read_text())
    if options.compiler and options.compiler != budget["compiler"]:
        skip(f"compiled by nvcc {options.compiler}, the budget is for {budget['compiler']}")
    if not usage.keys() & budget["kernels"].keys():
        skip(f"built for {', '.join(usage)}, the budget is for {', '.join(budget['kernels'])}")
    found = complaints(usage, budget["kernels"])
    print(*found, sep="\n")
    if found:
        print(f"More than {TOLERANCE:.0%} above the budget, or not as it says. If that is wanted,")
        print(f"renew it: the same command with --update, {Path(__file__).resolve()}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
