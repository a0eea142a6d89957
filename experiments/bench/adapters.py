"""Every row of the tables: torchqp's variants, the other layers, loops over raw solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench import peer_layers as layers
from experiments.bench import peer_solvers as solvers
from experiments.bench.layer import Adapter, Layer, Size, array


def _torchqp(backward: str) -> Callable[[Size], Layer]:
    def build(size: Size) -> Layer:
        import torchqp

        settings = torchqp.Settings(eps_abs=size.eps, eps_rel=size.eps)

        def solve(*data: Any) -> torch.Tensor:
            return torchqp.solve_qp(*data, backward=backward, settings=settings).z

        def detail(*data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            s = torchqp.solve_qp(*data, backward=backward, settings=settings)
            batch = s.z.shape[0]
            shapes = ((s.z, size.n), (s.nu, size.p), (s.lam, size.m))
            z, nu, lam = (array(value, batch, rows) for value, rows in shapes)
            return z, nu, lam

        return Layer(solve, detail, f"defaults, backward={backward!r}")

    return build


ADAPTERS: dict[str, Adapter] = {
    "torchqp": Adapter(_torchqp("kkt"), ("torchqp",), "torchqp", linear=False, knob=True),
    "moreau": Adapter(layers.moreau("auto"), ("moreau", "moreau-cpu")),
    "moreau-ipm": Adapter(layers.moreau("ipm"), ("moreau", "moreau-cpu"), knob=True),
    "cvxpylayers-moreau": Adapter(layers.cvxpylayers_moreau, ("cvxpylayers", "cvxpy", "moreau")),
    "proxqp": Adapter(layers.proxqp, ("proxsuite",), knob=True),
    "qpth": Adapter(layers.qpth, ("qpth",), linear=False, knob=True, refuses=layers.qpth_refuses),
    "qpax": Adapter(layers.qpax, ("qpax", "jax", "jaxlib"), knob=True),
    "osqp": Adapter(layers.osqp, ("osqp",), knob=True),
    "cvxpylayers": Adapter(
        layers.diffcp("lsqr"), ("cvxpylayers", "diffcp", "cvxpy", "clarabel"), knob=True
    ),
    "cvxpylayers-dense": Adapter(layers.diffcp("dense"), ("cvxpylayers", "diffcp"), knob=True),
    "cvxpylayers-lpgd": Adapter(layers.diffcp("lpgd"), ("cvxpylayers", "diffcp", "scs"), knob=True),
    "loop-daqp": Adapter(solvers.daqp, ("daqp",), "loop"),
    "loop-piqp": Adapter(solvers.piqp, ("piqp",), "loop", knob=True),
    "loop-proxqp": Adapter(solvers.proxqp, ("proxsuite",), "loop", knob=True),
    "loop-clarabel": Adapter(solvers.clarabel, ("clarabel",), "loop", knob=True),
    "torchqp-float32": Adapter(
        _torchqp("kkt"), ("torchqp",), "torchqp", linear=False, knob=True, dtype=torch.float32
    ),
    "torchqp-smoothed": Adapter(_torchqp("smoothed"), ("torchqp",), "torchqp", linear=False),
    "torchqp-lpgd": Adapter(_torchqp("lpgd"), ("torchqp",), "torchqp", linear=False),
}
DEFAULT_LAYERS = tuple(name for name in ADAPTERS if not name.startswith("torchqp-"))


def packages(names: list[str]) -> list[str]:
    """All packages of these rows."""
    return sorted({package for name in names for package in ADAPTERS[name].packages})
