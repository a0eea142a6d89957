"""What the sources may mention where: the rules of csrc/README.md that a search can decide."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = sorted(p for p in CSRC.rglob("*") if re.fullmatch(r"\.([hc]pp|h|cuh?)", p.suffix))

# The folders that each folder may include from, beside itself.
LEFT = {
    "core": set(),
    "linalg": {"core"},
    "qp": {"core", "linalg"},
    "cpu": {"core", "linalg", "qp"},
    "cuda": {"core", "linalg", "qp"},
    "torch": {"core", "linalg", "qp", "cpu", "cuda", "torchqp"},
    "python": {"core"},
}
THREADS = re.compile(r"\b(threadIdx|blockIdx|blockDim|gridDim|__sync\w*|__shfl\w*)")
TORCH_HEADER = re.compile(r"<(torch|ATen|c10|caffe2)/")


def code(text: str) -> str:
    """Without comments; lines stay lines."""
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def complaints(folder: str, name: str, text: str) -> Iterator[str]:
    """Every line of a file csrc/folder/name that breaks a rule."""
    for number, line in enumerate(code(text).splitlines(), 1):
        where = f"{folder}/{name}:{number}: "
        if (folder, name) != ("cuda", "team.hpp") and (found := THREADS.search(line)):
            yield where + f"{found[1]} belongs to cuda/team.hpp"
        include = re.match(r'\s*#\s*include\s*(<[^>]+>|"[^"]+")', line)
        if include is None:
            continue
        header = include[1]
        if folder != "torch" and TORCH_HEADER.match(header):
            yield where + f"{header} is a header of torch"
        if header.startswith('"') or header[1:].split("/")[0] in LEFT.keys() - {"torch"}:
            other = header[1:-1].split("/")[0]
            if other != folder and other not in LEFT[folder]:
                yield where + f"{header} lies to the right of {folder}"


def test_sources_mention_only_what_their_folder_may():
    assert {path.relative_to(CSRC).parts[0] for path in SOURCES} == set(LEFT)
    assert len(SOURCES) > 50
    found = []
    for path in SOURCES:
        folder, *rest = path.relative_to(CSRC).parts
        found += complaints(folder, "/".join(rest), path.read_text())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("cuda", "int i = threadIdx.x;"),
        ("qp", "  __syncthreads();"),
        ("linalg", "__shfl_xor_sync(mask, x, 1);"),
        ("cuda", "#include <torch/library.h>"),
        ("cuda", "#include <c10/cuda/CUDAStream.h>"),
        ("core", '#include "linalg/tile.hpp"'),
        ("qp", '#include "cuda/team.hpp"'),
        ("cpu", '#include "cuda/team.hpp"'),
        ("cuda", '#include "cpu/pack_io.hpp"'),
        ("cuda", '#include "torch/args.hpp"'),
        ("qp", "#include <cpu/pack_io.hpp>"),
    ],
)
def test_what_breaks_a_rule_is_found(folder, line):
    assert len(list(complaints(folder, "file.hpp", f"// a comment\n{line}\n"))) == 1


def test_comments_and_the_teams_themselves_may_say_it():
    assert not list(complaints("qp", "file.hpp", "// __syncthreads\n/* threadIdx\n */ int x;\n"))
    assert not list(complaints("cuda", "team.hpp", "int i = threadIdx.x;"))
    assert not list(complaints("torch", "file.cpp", '#include <ATen/x.h>\n#include "cuda/a.hpp"\n'))
