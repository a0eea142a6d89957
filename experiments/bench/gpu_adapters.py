"""The rows of the tables of a GPU: torchqp, its method in torch operations, and the peers."""

# The peers have no types, and their packages may be absent.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.bench import peer_layers as layers
from experiments.bench import torch_ipm
from experiments.bench.adapters import ADAPTERS
from experiments.bench.layer import Adapter, Layer, Size, array, tolerance


@dataclass(frozen=True)
class Row:
    """An adapter, and how it runs on a GPU.

    Attributes:
        group: the rows of a group run in one process of their own.
        clock: "events" if its work is on torch's stream; "host" if it is elsewhere.
        shares: it takes one 2-D Q, G and A for the whole batch, and sums their gradients.
        tuned: layers to try in this order, of which the first that reaches 1e-8 is measured.
    """

    adapter: Adapter
    group: str
    clock: str = "events"
    shares: bool = False
    tuned: tuple[Callable[[Size], Layer], ...] = ()


def _torch_ipm(size: Size) -> Layer:
    """The row that says what fusion is worth; Q must be positive definite."""

    def detail(Q: Any, q: Any, G: Any, h: Any, A: Any, b: Any) -> tuple[np.ndarray, ...]:
        answer = torch_ipm.solve(torch_ipm.reduce(Q, G, A), q, G, h, b)
        sizes = (size.n, size.p, size.m)
        return tuple(array(v, size.batch, k) for v, k in zip(answer[:3], sizes, strict=True))

    counts = {str(k).removeprefix("torch."): v for k, v in torch_ipm.ITERATIONS.items()}
    words = f"the dual form in torch operations; iterations: {counts}"
    return Layer(torch_ipm.solve_qp, detail, words)  # type: ignore[arg-type]


def _cupiqp(dtype: torch.dtype) -> Callable[[Size], Layer]:
    """The dense layer of cuPIQP; its kernels are compiled in the first call, which is not timed."""

    def build(size: Size) -> Layer:
        import cupiqp.torch

        if size.device == "cpu":
            raise RuntimeError("it runs on NVIDIA GPUs only")
        made: dict[bool, Any] = {}

        def layer(fields: dict[str, torch.Tensor], gradients: bool) -> Any:
            # One that keeps what a backward needs, and one that does not have to.
            if gradients not in made:
                new = cupiqp.torch.DenseSolverLayer(dtype=dtype, device=size.device)
                new.settings.enable_grad = gradients
                if size.eps is not None:
                    new.settings.eps_abs = new.settings.eps_duality_gap_abs = size.eps
                new.setup(**{name: value.detach() for name, value in fields.items()})
                made[gradients] = new
            return made[gradients]

        def run(*data: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
            names = ("P", "c", "G", "h_u", "A", "b")
            fields = {k: v for k, v in zip(names, data, strict=True) if v is not None}
            solver = layer(fields, torch.is_grad_enabled())
            return solver(**fields), solver

        def detail(*data: torch.Tensor | None) -> tuple[np.ndarray, ...]:
            with torch.no_grad():
                z, solver = run(*data)
            result, batch = solver.result, size.batch
            return (
                array(z, batch, size.n),
                array(result.y, batch, size.p),
                array(result.z_u, batch, size.m),
            )

        default = 1e-8 if dtype == torch.float64 else 1e-4
        words = f"DenseSolverLayer, eps_abs={tolerance(size, default):g}, CUDA graph"
        return Layer(lambda *data: run(*data)[0], detail, words)  # type: ignore[arg-type]

    return build


ROWS: dict[str, Row] = {
    "torchqp": Row(ADAPTERS["torchqp"], "torchqp", shares=True),
    "torchqp-float32": Row(ADAPTERS["torchqp-float32"], "torchqp", shares=True),
    "torch-ipm": Row(Adapter(_torch_ipm, ("torch",)), "torch", shares=True),
    "torch-ipm-float32": Row(
        Adapter(_torch_ipm, ("torch",), dtype=torch.float32), "torch", shares=True
    ),
    "qpth": Row(ADAPTERS["qpth"], "torch"),
    "qpth-tuned": Row(
        ADAPTERS["qpth"],
        "torch",
        tuned=tuple(partial(layers.qpth, max_iter=k, check=False) for k in range(6, 21)),
    ),
    "cupiqp": Row(Adapter(_cupiqp(torch.float64), ("cupiqp", "warp-lang")), "cupiqp", shares=True),
    "cupiqp-float32": Row(
        Adapter(_cupiqp(torch.float32), ("cupiqp", "warp-lang"), dtype=torch.float32),
        "cupiqp",
        shares=True,
    ),
    "moreau": Row(
        Adapter(layers.moreau("auto", "auto"), ("moreau", "moreau-cpu")), "moreau", clock="host"
    ),
    "moreau-cuda": Row(
        Adapter(layers.moreau("ipm", "cuda"), ("moreau", "moreau-cuda13")), "moreau", clock="host"
    ),
    "qpax": Row(ADAPTERS["qpax"], "qpax", clock="host"),
}
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS.values()))


def of_group(group: str, names: list[str]) -> list[str]:
    """Those of the rows that run in a group."""
    return [name for name in names if ROWS[name].group == group]


def packages(names: list[str]) -> list[str]:
    """All packages of these rows."""
    return sorted({package for name in names for package in ROWS[name].adapter.packages})
