"""The README: its example runs and gives right numbers, its commands and links exist."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchqp import reference

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the README's program leaves behind."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 22
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    return names


def test_the_examples_solution_and_gradient_are_the_references(example: dict[str, Any]) -> None:
    q = example["q"].detach().requires_grad_()
    h = example["h"].detach().requires_grad_()
    z = reference.solve_qp(example["Q"], q, example["G"], h).z
    assert float((z - example["z"]).detach().abs().max()) <= 1e-9
    expected: tuple[Tensor, ...] = torch.autograd.grad(z.pow(2).sum(), (q, h))
    assert float((example["q"].grad - expected[0]).abs().max()) <= 1e-8
    assert float((example["h"].grad - expected[1]).abs().max()) <= 1e-8


def test_the_examples_projection_is_on_the_simplex(example: dict[str, Any]) -> None:
    x = example["x"].detach()
    assert float(x.min()) >= 0
    assert float((x.sum(-1) - 1).abs().max()) <= 1e-12
    # The smoothed gradient has no component along x - w, apart from the regulariser's.
    w = example["w"].detach()
    penalty = 2 * 0.1 * (w - x)
    inner = ((example["w"].grad - penalty) * (x - w)).sum(-1)
    assert float(inner.abs().max()) <= 1e-9


@pytest.mark.parametrize("command", ["tests/run", "experiments/reproduce"])
def test_the_commands_are_there_to_run(command: str) -> None:
    assert f"    {command} " in README
    assert os.access(ROOT / command, os.X_OK)


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) >= 8
    missing = [target for target in targets if not leads_somewhere(target)]
    assert missing == []


def leads_somewhere(target: str) -> bool:
    """Whether the file is there and, after a #, a heading of this name in it."""
    path, _, anchor = target.partition("#")
    if not anchor or not (ROOT / path).exists():
        return (ROOT / path).exists()
    headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
    return anchor in [heading.lower().replace(" ", "-") for heading in headings]
