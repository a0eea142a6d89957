"""Builds torchqp by driving its one CMake project. All metadata stands in pyproject.toml.

Environment: CMAKE_ARGS adds options to the configure step (for example -DTORCHQP_CUDA=OFF),
TORCH_CUDA_ARCH_LIST names the GPUs to compile for ("9.0", "8.0;9.0+PTX", "native"),
CMAKE_BUILD_PARALLEL_LEVEL limits the number of compile jobs.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


def _require(package: str) -> None:
    """Ends with the one sentence that helps when the build cannot see a package."""
    if importlib.util.find_spec(package) is None:
        raise SystemExit(
            f"torchqp is built against the torch you have, and this build sees no {package}: "
            "run 'pip install torch pybind11 cmake ninja \"setuptools>=70.1\"', then "
            "'pip install --no-build-isolation .'"
        )


def _tool(name: str) -> str:
    """Path of cmake or ninja: the copy beside this interpreter first, then the one on PATH."""
    search = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which(name, path=search)
    if path is None:
        raise SystemExit(f"torchqp is built with {name}: run 'pip install cmake ninja'")
    return path


def _run(command: list[str | Path]) -> None:
    """Runs cmake, whose own messages stand above ours when it fails."""
    if subprocess.run(command).returncode:
        raise SystemExit(f"torchqp was not built: '{' '.join(map(str, command[:3]))} ...' failed")


class CMakeBuild(build_ext):
    """Compiles in .build/, which later builds reuse, and installs beside the Python files."""

    def build_extension(self, ext: Extension) -> None:
        """Configures and builds the project, then installs into the directory of the wheel."""
        for package in ("torch", "pybind11"):
            _require(package)
        self.tree = ROOT / ".build" / sys.implementation.cache_tag
        configure = [
            *[_tool("cmake"), "-S", ROOT, "-B", self.tree, "-G", "Ninja"],
            f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            "-DTORCHQP_BUILD_TESTS=OFF",
            # Every time: an earlier value would be remembered in the tree.
            f"-DTORCH_CUDA_ARCH_LIST={os.environ.get('TORCH_CUDA_ARCH_LIST', '')}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        _run(configure)
        _run([_tool("cmake"), "--build", self.tree])
        self._install(Path(self.build_lib) / "torchqp")

    def copy_extensions_to_source(self) -> None:
        """In-place and editable builds: both libraries go into python/torchqp."""
        self._install(ROOT / "python" / "torchqp")

    def _install(self, prefix: Path) -> None:
        command = [_tool("cmake"), "--install", self.tree, "--component", "python"]
        _run([*command, "--prefix", prefix])


class SourceDistribution(sdist):
    """Adds what the CMake project needs, without a MANIFEST.in at the top level."""

    def make_distribution(self) -> None:
        """Everything setuptools finds by itself, and the C++ sources and the tests."""
        self.filelist.extend(["CMakeLists.txt", "CHANGELOG.md"])
        for folder in ("csrc", "tests"):
            self.filelist.graft(folder)
        self.filelist.global_exclude("*.py[co]")
        super().make_distribution()


setup(
    ext_modules=[Extension("torchqp._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "sdist": SourceDistribution},
    options={"build": {"build_base": ".build/setuptools"}},
)
