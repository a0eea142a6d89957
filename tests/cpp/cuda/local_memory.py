"""Looks for local memory in the dense routines of the kernels, which is where spilled registers go.

    python3 tests/cpp/cuda/local_memory.py LIBRARY       # LIBRARY: libtorchqp_cuda.a

None may store to it, and none may use it in an innermost loop: before its loops a routine reads
the fields of its team there. Without cuobjdump and nvdisasm, which triton brings along, the check
is skipped (exit status 77).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import resources

STORE, LOCAL = re.compile(r"\bSTL\b"), re.compile(r"\b(?:LDL|STL)\b")
ROUTINE = re.compile(r"\$_ZN7torchqp6linalg\w*?\d+([a-z][a-z_]+)I")


def functions(text: str) -> dict[str, list[str]]:
    """Label of each function and its lines: instructions and labels, in order."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.match(r"(\$?_Z[\w$]+):", line):
            lines = found.setdefault(line.rstrip(":"), [])
        elif re.match(r"\.L_x_\d+:", line) or re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+\S", line):
            lines.append(line.strip())
    return found


def innermost_loops(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of each loop that holds no other one."""
    places = {line.rstrip(":"): i for i, line in enumerate(lines) if line.startswith(".L_x_")}
    loops = set()
    for i, line in enumerate(lines):
        if (to := re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)) and places.get(to[1], i) < i:
            loops.add((places[to[1]], i))
    return sorted(
        loop
        for loop in loops
        if not any(loop != o and loop[0] <= o[0] and o[1] <= loop[1] for o in loops)
    )


def examine(cubin: Path, nvdisasm: Path) -> tuple[int, int, list[str]]:
    """How many routines and innermost loops there are, and the uses of local memory in them."""
    text = subprocess.run([nvdisasm, cubin], capture_output=True, text=True).stdout
    count, loops, wrong = 0, 0, []
    for label, lines in functions(text).items():
        routine = ROUTINE.search(label)
        if routine is None:
            continue
        count += 1
        wrong += [f"{routine[1]}: {line}" for line in lines if STORE.search(line)]
        for first, last in innermost_loops(lines):
            loops += 1
            inside = lines[first:last]
            wrong += [f"{routine[1]}, in a loop: {line}" for line in inside if LOCAL.search(line)]
    return count, loops, wrong


def main() -> int:
    """Exit status: 0 without local memory, 1 with some, 77 where nothing can be said."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nvcc", help="its path, beside which cuobjdump lies")
    parser.add_argument("library", type=Path)
    options = parser.parse_args()
    cuobjdump = resources.cuobjdump(options.nvcc)
    if cuobjdump is None or not (nvdisasm := Path(cuobjdump).with_name("nvdisasm")).exists():
        resources.skip("there are no cuobjdump and nvdisasm: triton brings them along")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        command = [cuobjdump, "--extract-elf", "all", options.library.resolve()]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        seen = 0
        for cubin in sorted(Path(folder).glob("*.cubin")):
            count, loops, wrong = examine(cubin, nvdisasm)
            if count:
                print(f"{cubin.name}: {count} routines, {loops} innermost loops, {len(wrong)} uses")
                print(*wrong, sep="\n")
            seen, failed = seen + loops, failed or bool(wrong)
    if not seen:
        sys.exit(f"{options.library}: no loop of a dense routine in it")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
