"""What is built: versions agree, the stub is in step, the libraries need no more than they say."""

import ast
import enum
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchqp
from torchqp import _C

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(torchqp.__file__).parent
OPERATORS = PACKAGE / "libtorchqp_ops.so"

# Written out: the numbers are part of the API and never follow the code.
FROZEN_STATUS = {
    "SOLVED": 0,
    "SOLVED_INACCURATE": 1,
    "PRIMAL_INFEASIBLE": 2,
    "DUAL_INFEASIBLE": 3,
    "MAX_ITERATIONS": 4,
    "NUMERICAL_ERROR": 5,
    "INVALID_INPUT": 6,
    "NOT_CONVEX": 7,
}


def members(status: type[enum.IntEnum]) -> dict[str, int]:
    return {member.name: int(member) for member in status}


def test_the_version_of_pyproject_is_the_version_everywhere():
    declared = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert declared is not None
    assert torchqp.build_info()["version"] == declared.group(1)
    assert importlib.metadata.version("torchqp") == declared.group(1)


def test_build_info_reports_torch_compiler_and_instruction_sets():
    info = torchqp.build_info()
    assert info["torch"] == torch.__version__
    assert info["torch_cuda"] == torch.version.cuda
    assert re.fullmatch(r"(GNU|Clang|AppleClang) \d+(\.\d+)+", info["compiler"])
    assert info["build_type"] in {"Release", "RelWithDebInfo", "Debug", "MinSizeRel"}
    assert info["simd_levels"] in (["baseline"], ["baseline", "avx2", "avx512"])
    assert info["cuda_compiler"] is None or re.fullmatch(r"\d+(\.\d+)+", info["cuda_compiler"])
    if info["cuda_kernels"]:
        assert info["torch_cuda"] is not None
        assert info["cuda_compiler"] is not None
        assert info["torch_cuda"].split(".")[0] == info["cuda_compiler"].split(".")[0]
        assert len(info["cuda_architectures"]) >= 1
        for architecture in info["cuda_architectures"]:
            assert re.fullmatch(r"(sm|compute)_\d+[af]?", architecture)
    else:
        assert info["cuda_kernels"] is False
        assert info["cuda_architectures"] == []


def test_python_and_cpp_status_are_the_frozen_numbers():
    assert members(_C.Status) == FROZEN_STATUS
    assert members(torchqp.Status) == FROZEN_STATUS


@pytest.mark.parametrize(("single", "tolerance"), [(False, 1e-8), (True, 1e-4)])
def test_cpp_default_settings(single, tolerance):
    settings = _C.default_settings(single=single)
    assert (settings.eps_abs, settings.eps_rel) == (tolerance, tolerance)
    assert (settings.max_iter, settings.polish, settings.best_iterate) == (100, True, False)
    assert settings.validate() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("eps_abs", -1.0), ("eps_rel", float("nan")), ("eps_abs", float("inf")), ("max_iter", -1)],
)
def test_cpp_settings_name_the_unusable_field(field, value):
    message = _C.Settings(**{field: value}).validate()
    assert message is not None
    assert message.startswith(f"{field}: expected ")


def test_the_stub_declares_exactly_what_the_module_has():
    declared = {}
    for node in ast.parse((PACKAGE / "_C.pyi").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            names = {n.name for n in inner if isinstance(n, ast.FunctionDef)}
            names |= {n.targets[0].id for n in inner if isinstance(n, ast.Assign)}
            fields = {n.target.id for n in inner if isinstance(n, ast.AnnAssign)}
            declared[node.name] = (names - {"__init__"}, fields)

    assert declared.pop("BuildInfo")[1] == set(_C.build_info())
    assert set(declared) == {name for name in dir(_C) if not name.startswith("_")}
    assert declared["Status"][0] == set(_C.Status.__members__)
    public = {name for name in vars(_C.Settings) if not name.startswith("_")}
    assert declared["Settings"][0] == public
    assert (PACKAGE / "py.typed").exists()


def test_the_operators_load_without_python():
    dynamic = subprocess.run(["readelf", "-d", OPERATORS], capture_output=True, text=True)
    needed = set(re.findall(r"Shared library: \[([^\]]+)\]", dynamic.stdout))
    assert {"libtorch_cpu.so", "libc10.so"} <= needed
    # One CUDA runtime in the process, torch's: the shared one, and only where there are kernels.
    kernels = torchqp.build_info()["cuda_kernels"]
    assert ({"libtorch_cuda.so", "libc10_cuda.so"} <= needed) == kernels
    assert bool([name for name in needed if name.startswith("libcudart.so")]) == kernels
    assert not [name for name in needed if "python" in name]
    undefined = subprocess.run(["nm", "-D", "-u", OPERATORS], capture_output=True, text=True)
    symbols = re.findall(r"U (\w+)", undefined.stdout)
    assert len(symbols) > 10
    assert not [name for name in symbols if re.match(r"_?Py[A-Z_]", name)]


def test_torchqp_brings_no_second_openmp_runtime():
    # A second one would have threads of its own and ignore torch.set_num_threads.
    code = (
        "import torchqp, pathlib; "
        "lines = pathlib.Path('/proc/self/maps').read_text().splitlines(); "
        "print({l.split()[-1] for l in lines if 'libgomp' in l or 'libomp' in l})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(ast.literal_eval(result.stdout)) == 1


def test_import_and_solve_without_a_visible_gpu():
    code = (
        "import torch, torchqp; "
        "print(torchqp.solve_qp(torch.eye(2), torch.tensor([-1.0, 2.0])).z.tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert ast.literal_eval(result.stdout) == pytest.approx([1.0, -2.0], abs=1e-4)


def test_a_build_that_sees_no_torch_names_the_flag(tmp_path):
    # An isolated build in small: this interpreter, made blind to torch before setup.py runs.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find_spec = util.find_spec\n"
        "util.find_spec = lambda name, *rest: name != 'torch' and find_spec(name, *rest) or None\n"
    )
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "pip install --no-build-isolation ." in result.stderr
