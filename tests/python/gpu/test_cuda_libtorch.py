"""The C++ example on the GPU prints what it prints on the CPU."""

import subprocess

import pytest
import torch
from parity import difference
from test_libtorch import EXAMPLE

pytestmark = pytest.mark.gpu


def printed(device: torch.device) -> dict[str, torch.Tensor]:
    lines = subprocess.run(
        [EXAMPLE, str(device)], capture_output=True, text=True, check=True
    ).stdout
    pairs = (line.split(":") for line in lines.splitlines())
    return {k: torch.tensor([float(x) for x in v.split()]).double() for k, v in pairs}


def test_the_cpp_example_prints_the_same_numbers_on_the_gpu(device):
    if not EXAMPLE.exists():
        pytest.skip("the C++ example is not built; tests/run builds it")
    here, there = printed(torch.device("cpu")), printed(device)
    assert len(here) == 39  # data, solution, first and second derivatives, those of batched data
    assert here.keys() == there.keys()
    report = []
    for name, value in here.items():
        # The solution to the last digit; derivatives through products in each device's order.
        derived = name.startswith(("grad_", "second_", "batched_"))
        report += difference(name, value, there[name], 1e-10 if derived else None)
    assert not report, "\n".join(report)
