"""The check for local memory in compiled kernels, on text like nvdisasm's."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "cpp" / "cuda"


@pytest.fixture
def checker(monkeypatch):
    """tests/cpp/cuda/local_memory.py, which imports its neighbour."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("local_memory", FOLDER / "local_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("resources", None)


KERNEL = "_ZN7torchqp4cuda12solve_kernelEv"
# Two nested loops; what is before, between and in them can be filled in.
ROUTINE = """
${kernel}$_ZN7torchqp6linalg8baseline11solve_lowerIdEEvv:
        /*0010*/                   {before} ;
.L_x_1:
        /*0020*/                   {between} ;
.L_x_2:
        /*0030*/                   {inside} ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   BRA `(.L_x_3) ;
.L_x_3:
        /*0070*/                   RET.REL.NODEC R20 0x0 ;
"""
NOTHING = {"before": "NOP", "between": "NOP", "inside": "NOP"}


def examine(checker, monkeypatch, text):
    """What the check says of a cubin that nvdisasm prints so."""

    class Answer:
        stdout = text

    monkeypatch.setattr(checker.subprocess, "run", lambda *a, **k: Answer)
    return checker.examine(Path("kernels.cubin"), Path("nvdisasm"))


@pytest.mark.parametrize(
    ("place", "instruction", "uses"),
    [
        ("before", "LDL R4, [R1]", 0),
        ("between", "LDL.64 R4, [R1]", 0),
        ("inside", "LDL R4, [R1+0x8]", 1),
        ("before", "STL.64 [R1], R4", 1),
        ("between", "STL [R1], R4", 1),
        ("inside", "LDS R4, [R1]", 0),
    ],
)
def test_stores_count_everywhere_and_loads_in_innermost_loops(
    checker, monkeypatch, place, instruction, uses
):
    text = ROUTINE.format(kernel=KERNEL, **NOTHING | {place: instruction})
    count, loops, wrong = examine(checker, monkeypatch, text)
    assert (count, loops, len(wrong)) == (1, 1, uses)
    assert all(instruction in line for line in wrong)


def test_only_dense_routines_are_looked_at(checker, monkeypatch):
    text = ROUTINE.format(kernel=KERNEL, **NOTHING | {"inside": "STL [R1], R4"})
    assert examine(checker, monkeypatch, text.replace("linalg", "qpalgo"))[0] == 0
    assert examine(checker, monkeypatch, text.replace("$_ZN7torchqp6linalg", "_ZN7outside"))[0] == 0
