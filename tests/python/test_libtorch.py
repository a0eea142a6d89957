"""The C++ example prints what Python computes: one solver and one set of rules behind both."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import torchqp

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / ".build" / str(sys.implementation.cache_tag)
EXAMPLE = TREE / "tests" / "cpp" / "libtorch_example" / "libtorch_example"
SHAPES = {"Q": (3, 3), "q": (4, 3), "G": (2, 3), "h": (4, 2), "A": (1, 3), "b": (1,)}
BOUNDS = {"lb": (3,), "ub": (3,)}
CORE = {"Q": 2, "G": 2, "A": 2}  # trailing dimensions, 1 for the rest


@pytest.fixture(scope="module")
def printed() -> dict[str, Tensor]:
    """What the program prints: data, solution, first and second derivatives."""
    if not EXAMPLE.exists():
        pytest.skip("the C++ example is not built; tests/run builds it")
    lines = subprocess.run([EXAMPLE], capture_output=True, text=True, check=True).stdout
    pairs = (line.split(":") for line in lines.splitlines())
    return {
        name: torch.tensor([float(x) for x in values.split()], dtype=torch.float64)
        for name, values in pairs
    }


def test_the_cpp_example_prints_the_numbers_of_python(printed: dict[str, Tensor]) -> None:
    shapes = SHAPES | BOUNDS
    theta = {k: printed[k].reshape(shape).requires_grad_() for k, shape in shapes.items()}
    solution = torchqp.solve_qp(**theta)
    assert printed["status"].tolist() == solution.status.tolist() == [0] * 4

    weights = torch.cos(torch.arange(12, dtype=torch.float64)).reshape(4, 3)
    others = (solution.nu, solution.lam, solution.lam_lb, solution.lam_ub, solution.s)
    loss = (weights * solution.z).sum() + sum(0.5 * x.square().sum() for x in others)
    first = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    second = torch.autograd.grad(0.5 * first[1].square().sum(), list(theta.values()))

    own = {
        k: v.detach().expand(4, *v.shape[v.dim() - CORE.get(k, 1) :]).clone().requires_grad_()
        for k, v in theta.items()
    }
    batched = torchqp.solve_qp(**own)
    written = torch.autograd.grad(
        (weights * batched.z).sum()
        + batched.lam.sum()
        + batched.lam_lb.sum()
        + 0.5 * batched.s.square().sum(),
        list(own.values()),
        create_graph=True,  # from products, where the program has them from the kernel
    )

    names = ("z", "nu", "lam", "lam_lb", "lam_ub", "s")
    expected = {name: getattr(solution, name) for name in names}
    expected |= {f"batched_{name}": grad for name, grad in zip(own, written, strict=True)}
    for name, grad, curvature in zip(theta, first, second, strict=True):
        expected[f"grad_{name}"], expected[f"second_{name}"] = grad, curvature
    active = 0
    for name, value in expected.items():
        flat = value.detach().flatten()
        scale = 1 + float(flat.abs().max())
        assert float((flat - printed[name]).abs().max()) <= 1e-12 * scale, name
        active += int(bool(flat.any()))
    assert active == len(expected)  # every multiplier and derivative has something to compare
