"""How far one device's answers are from another's, in units of the last place, and who may differ.

The kernels do the same IEEE operations in the same order on every machine, so that what they return
is compared bit by bit. What torch sums or multiplies around them (shared parameters, the smoothed
mode's products) has an order of its own on each device, and so has the set-up of large problems by
cuBLAS and cuSOLVER.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import torchqp
from torchqp import testing
from torchqp._rules import PARAMETERS, SolveOutputs

MODES = ("kkt", "smoothed", "lpgd")
SOLUTION = torchqp.Solution._fields
# What rounding in another order may change, relative to the largest entry.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-3}
# What a solution says of how it was found, which may differ where the set-up was rounded otherwise.
OF_THE_WAY = ("iterations", "residuals")


def has_library_setup(problem: dict[str, Any]) -> bool:
    """As ``prefers_libraries`` in csrc/cuda/launch_plan.hpp, of problems with a dense Q."""
    n = problem["q"].shape[-1]
    m, p = (problem[k].shape[-2] if problem.get(k) is not None else 0 for k in ("G", "A"))
    bounds = any(problem.get(k) is not None for k in ("lb", "ub"))
    return not bounds and m <= 2 * n and max(n, m + p) > 160


def ulps(a: Tensor, b: Tensor) -> float:
    """The largest distance in units of the last place; equal NaNs count as equal, others as inf."""
    if not a.dtype.is_floating_point:
        return float((a.long() - b.long()).abs().max()) if a.numel() else 0.0
    if not a.numel():
        return 0.0
    if not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    kind = {torch.float64: torch.int64, torch.float32: torch.int32}[a.dtype]
    lowest = torch.iinfo(kind).min

    def ordered(x: Tensor) -> Tensor:
        """Neighbouring numbers to neighbouring integers, both zeros to 0."""
        bits = torch.where(x.isnan(), 0.0, x).contiguous().view(kind)
        return torch.where(bits < 0, lowest - bits, bits).long()

    i, j = ordered(a), ordered(b)
    near = (i < 0) == (j < 0)  # else the difference may not fit
    distance = torch.where(near, (i - j).abs().double(), i.double().abs() + j.double().abs())
    return float(distance.max())


def difference(name: str, expected: Tensor, actual: Tensor, tolerance: float | None) -> list[str]:
    """What to say about one pair: nothing when it agrees. tolerance None means bit by bit."""
    expected, actual = expected.detach().cpu(), actual.detach().cpu()
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        got = f"{list(actual.shape)} {actual.dtype}"
        return [f"{name}: expected {list(expected.shape)} {expected.dtype}, got {got}"]
    if torch.equal(expected.isnan(), actual.isnan()):
        if torch.equal(expected.nan_to_num(), actual.nan_to_num()):
            return []
        first, last = (
            torch.where(t.isfinite(), t, 0.0).double() if t.is_floating_point() else t.double()
            for t in (expected, actual)
        )
        error = float((first - last).abs().max() / (1 + first.abs().max()))
        same_infinities = torch.equal(expected.isinf(), actual.isinf())
        if tolerance is not None and same_infinities and error <= tolerance:
            return []
    else:
        error = float("nan")
    unequal = int(((expected != actual) & ~(expected.isnan() & actual.isnan())).sum())
    return [
        f"{name}: {unequal} of {expected.numel()} entries differ, at most by "
        f"{ulps(expected, actual):g} ulps, relative to the largest entry {error:.1e}"
    ]


def assert_equal(
    expected: Any, actual: Any, names: Any = SOLUTION, tolerance: float | None = None
) -> None:
    """Every named tensor of two solutions, or of two dicts; reports all that differ."""
    report: list[str] = []
    for name in names:
        pair = (
            (expected[name], actual[name])
            if isinstance(expected, dict)
            else (getattr(expected, name), getattr(actual, name))
        )
        report += difference(name, *pair, tolerance)
    assert not report, "\n".join(report)


def operator_outputs(
    problem: dict[str, Any], backward: str = "kkt", save_factor: bool = True
) -> SolveOutputs:
    """All eleven outputs of the operator, those that users do not see included."""
    Q = problem["Q"]
    diagonal = isinstance(Q, torchqp.Diag)
    data = problem | {"Q": Q.d if diagonal else Q}
    settings = torchqp.Settings().resolve(data["Q"].dtype)
    arguments = [data.get(name) for name in PARAMETERS]
    out = torch.ops.torchqp.solve(
        *arguments, *[None] * 5, diagonal, backward, [], *settings, False, save_factor
    )
    return SolveOutputs(*out)


def batched(problem: dict[str, Any], batch: int) -> dict[str, Any]:
    """The same problems with no parameter shared."""
    core = {"Q": 1 if isinstance(problem["Q"], torchqp.Diag) else 2, "G": 2, "A": 2}

    def spread(name: str, tensor: Tensor) -> Tensor:
        own = tensor.shape[tensor.dim() - core.get(name, 1) :]
        return tensor.expand(batch, *own).contiguous()

    return {k: testing.map_tensor(lambda t, k=k: spread(k, t), v) for k, v in problem.items()}


def pullbacks(
    problem: dict[str, Any], device: torch.device, seed: int = 0, **options: Any
) -> tuple[tuple[Any, dict[str, Tensor]], tuple[Any, dict[str, Tensor]]]:
    """Solution and gradients on the CPU and on the device, for the same cotangents."""
    here = testing.pullback(torchqp.solve_qp, problem, seed, **options)
    there = testing.pullback(torchqp.solve_qp, testing.cast(problem, device), seed, **options)
    return here, there


def capture(
    problem: dict[str, Tensor],
) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor], torchqp.Solution]:
    """A graph that solves copies of the data, the copies, and the solution that it writes."""
    static = {k: v.clone() for k, v in problem.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torchqp.solve_qp(**static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        solution = torchqp.solve_qp(**static)
    return graph, static, solution
