"""Inputs that are verified on load, and results that say where they come from."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np

import torchqp

LIBRARIES = ("torch", "numpy", "pyepo")


def load_npz(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Reads a pickle-free ``.npz`` whose bytes must have the given checksum.

    Raises:
        ValueError: the file's SHA-256 is not ``sha256``.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise ValueError(f"{path.name}: expected SHA-256 {sha256}, got {digest}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def environment() -> dict:
    """Returns machine, library versions and commit, as they go into every results file."""
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in LIBRARIES},
        "torchqp": torchqp.build_info(),
        "commit": _commit(),
    }


def write_json(path: Path, record: dict) -> None:
    """Writes ``record`` with one line per innermost list or record, so that diffs stay readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_dump(record) + "\n", encoding="utf-8")


def _dump(value: object, indent: int = 0) -> str:
    pad, inner = "  " * indent, "  " * (indent + 1)
    if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
        rows = [f"{inner}{json.dumps(k)}: {_dump(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        rows = [inner + _dump(v, indent + 1) for v in value]
        return "[\n" + ",\n".join(rows) + f"\n{pad}]"
    return json.dumps(value, allow_nan=False)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checked-out commit, with a ``+`` where the working tree differs.

    Outside a clone what TORCHQP_COMMIT says, or None.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("TORCHQP_COMMIT")


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent
    run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return run.stdout.strip()
