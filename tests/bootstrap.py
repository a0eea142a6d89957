"""The environment in which tests and experiments run, and the build of torchqp inside it.

Needs Python >= 3.10 with its headers, a C++20 compiler and the package index; everything else goes
into .venv at the top of the repository, which later calls reuse. TORCHQP_PYTHON names an
interpreter that has the requirements already: then no .venv is made, and torchqp is installed
there in editable mode. TORCH_CUDA_ARCH_LIST names the GPUs to compile for.

    python3 tests/bootstrap.py test lint      # prints the interpreter that has these extras
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"

# The oldest torch that we support is the one we test.
TORCH = "torch==2.11.*"

# What the CUDA code is compiled for, where there is nvcc: each takes minutes, and without a GPU too
# that it compiles without a warning is a test.
GPUS = "8.0;9.0"

# What fixes the arithmetic in every program that compiles the solver: as in csrc/cmake/core.cmake.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

# Runs inside the environment: Python 3.10 has no tomllib, but its pip carries the same parser.
READ_REQUIREMENTS = """
import json, sys
try:
    import tomllib
except ModuleNotFoundError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    data = tomllib.load(file)
extras = data["project"]["optional-dependencies"]
print(json.dumps(data["build-system"]["requires"] + [r for e in sys.argv[1:] for r in extras[e]]))
"""


def environment(*extras: str) -> Path:
    """An interpreter with torch, the build requirements and these extras of pyproject.toml."""
    if "TORCHQP_PYTHON" in os.environ:
        return Path(os.environ["TORCHQP_PYTHON"])
    python = VENV / "bin" / "python"
    if not _works(python):
        _make_venv()
    answer = _run(python, "-c", READ_REQUIREMENTS, *extras, stdout=subprocess.PIPE)
    requirements = [TORCH, *json.loads(answer.stdout)]
    stamp = VENV / f"requirements-{'-'.join(extras)}.json"
    content = json.dumps(requirements, indent=2)
    if not stamp.exists() or stamp.read_text() != content:
        _run(python, "-m", "pip", "install", "--progress-bar=off", *requirements, stdout=sys.stderr)
        stamp.write_text(content)
    return python


def build(python: Path, *, tests: bool = False) -> Path:
    """Installs torchqp in editable mode, with the C++ tests if asked; returns CMake's tree."""
    options = f"-DTORCHQP_BUILD_TESTS={'ON' if tests else 'OFF'} {os.environ.get('CMAKE_ARGS', '')}"
    install = ["-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", "."]
    environment = {"TORCH_CUDA_ARCH_LIST": GPUS, **os.environ, "CMAKE_ARGS": options}
    _run(python, *install, env=environment, stdout=sys.stderr)
    return tree(python)


def build_in_place(python: Path, options: str, log: IO[str], **variables: str) -> None:
    """Builds both libraries into python/torchqp, without pip.

    With python/ in PYTHONPATH the interpreter has torchqp then, and nothing is installed in it.
    ``options`` are CMake's, ``variables`` the compiler's environment; all output goes to ``log``.
    """
    given = f"{options} {os.environ.get('CMAKE_ARGS', '')}"
    command = [python, "setup.py", "-q", "build_ext", "--inplace"]
    env = {**os.environ, "CMAKE_ARGS": given, **variables}
    _run(*command, env=env, stdout=log, stderr=subprocess.STDOUT)


def clang() -> Path | None:
    """A clang++: CXX where that is one, else the first of PATH."""
    names = (os.environ.get("CXX", ""), "clang++", *(f"clang++-{v}" for v in range(20, 13, -1)))
    return next((Path(p) for n in names if "clang" in n and (p := shutil.which(n))), None)


def build_core_tests(tree: Path, compiler: Path, options: list[str], *targets: str) -> None:
    """Builds the C++ tests without torch and CUDA in ``tree``; ``options`` are CMake's."""
    cmake = environment("test").parent / "cmake"
    kept = ("BUILD_PYTHON=OFF", "BUILD_TESTS=ON", "CUDA=OFF")
    chosen = [f"-DTORCHQP_{option}" for option in kept] + options
    _run(cmake, "-S", ROOT, "-B", tree, *chosen, env={**os.environ, "CXX": str(compiler)})
    only = ["--target", *targets] if targets else []
    _run(cmake, "--build", tree, "-j", str(os.cpu_count() or 1), *only)


def count(results: Path) -> dict[str, int]:
    """How the cases of a JUnit file ended; none at all when the runner wrote no file."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    cases = ElementTree.parse(results).iter("testcase") if results.exists() else []
    for case in cases:
        ends = {child.tag for child in case}
        if ends & {"failure", "error"}:
            counts["failed"] += 1
        elif "skipped" in ends:
            counts["skipped"] += 1
            # pytest has printed its reasons already; ctest keeps them in this file.
            if output := case.findtext("system-out", "").strip():
                print(f"{case.get('name')}: {output.splitlines()[-1]}")
        else:
            counts["passed"] += 1
    return counts


def tree(python: Path) -> Path:
    """Where setup.py has CMake build."""
    tag = _run(python, "-c", "import sys; print(sys.implementation.cache_tag)", stdout=-1)
    return ROOT / ".build" / tag.stdout.strip()


def _works(python: Path) -> bool:
    """Whether this is an interpreter with pip; a .venv of a removed Python is not."""
    try:
        probe = subprocess.run([python, "-m", "pip", "--version"], capture_output=True)
    except OSError:
        return False
    return probe.returncode == 0


def _make_venv() -> None:
    """Fails before the long download where a part of Python is packaged separately."""
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        sys.exit(
            f"{sys.executable} cannot make virtual environments: install its venv package "
            "(Debian, Ubuntu: apt install python3-venv), or set TORCHQP_PYTHON"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        sys.exit(
            f"{sys.executable} has no headers: install its development package "
            "(Debian, Ubuntu: apt install python3-dev), or set TORCHQP_PYTHON"
        )
    _run(sys.executable, "-m", "venv", "--clear", VENV)


def _run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a step that must succeed; its own messages say why it did not."""
    result = subprocess.run(command, cwd=ROOT, text=True, **options)
    if result.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command[:4]))} ...")
    return result


if __name__ == "__main__":
    print(environment(*sys.argv[1:]))
