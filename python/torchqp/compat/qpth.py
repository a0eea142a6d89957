"""qpth's call: change the import and keep the code.

from qpth.qp import QPFunction   ->   from torchqp.compat.qpth import QPFunction
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from torchqp.functional import solve_qp
from torchqp.settings import Settings
from torchqp.solution import Status


class QPSolvers(Enum):
    """qpth's names of its solvers; torchqp has one solver and reads neither."""

    PDIPM_BATCHED = 1
    CVXPY = 2


class _ScaledGradient(torch.autograd.Function):
    """The identity whose gradient is multiplied by a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, factor: float) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return cotangent * ctx.factor, None


def QPFunction(
    eps: float = 1e-12,
    verbose: int = 0,
    notImprovedLim: int = 3,
    maxIter: int | None = None,
    solver: QPSolvers = QPSolvers.PDIPM_BATCHED,
    check_Q_spd: bool = True,
    *,
    reduce: str = "sum",
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A function (Q, p, G, h, A, b) -> z with exact gradients.

        z = argmin 1/2 z'Qz + p'z   s.t.  Gz <= h,  Az = b

    As in qpth, each argument has at most one batch dimension, absent constraints are empty tensors,
    z is [batch, n] (batch 1 if nothing is batched), and a member that cannot be solved returns its
    last iterate; here its gradient is zero.

    Args:
        eps: tolerance on the KKT residuals; what lies below the dtype's default (1e-8, 1e-4) is
            raised to it.
        verbose: accepted, nothing is printed.
        notImprovedLim: accepted, the solver detects stalls itself.
        maxIter: limit of iterations; None is `Settings`' default (qpth: 20).
        solver: accepted.
        check_Q_spd: raise where Q has a negative eigenvalue. Reads the statuses, hence waits for
            the device; skipped under torch.compile, and to be switched off under torch.func.vmap
            and for CUDA graphs.
        reduce: "sum" gives a shared parameter the sum of the members' gradients, which autograd
            means; "mean" gives their average, as qpth does.

    Returns:
        The function; its arguments are Q [*, n, n], p [*, n], G [*, m, n], h [*, m], A [*, r, n], b
        [*, r].

    Raises:
        ValueError: an unknown `reduce`.
        RuntimeError: when called, if check_Q_spd and Q is not positive semidefinite.

    Source: Amos and Kolter, OptNet (2017); qpth's `qpth/qp.py` for the conventions.

    Example:
        >>> import torch
        >>> from torchqp.compat.qpth import QPFunction
        >>> e = torch.Tensor()
        >>> Q, p, G, h = torch.eye(2), torch.tensor([1.0, -1.0]), -torch.eye(2), torch.ones(2) / 2
        >>> QPFunction(verbose=False)(Q, p, G, h, e, e).round(decimals=3).tolist()
        [[-0.5, 1.0]]
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce: expected 'sum' or 'mean', got {reduce!r}")

    def solve(Q: Tensor, p: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
        default = 1e-8 if p.dtype == torch.float64 else 1e-4
        tolerance = max(eps, default)
        settings = Settings(eps_abs=tolerance, eps_rel=tolerance, max_iter=maxIter)
        data = {"Q": (Q, 3), "p": (p, 2), "G": (G, 3), "h": (h, 2), "A": (A, 3), "b": (b, 2)}
        given: dict[str, Any] = {
            name: None if t.numel() == 0 else t for name, (t, _) in data.items()
        }
        batch = max((t.shape[0] for t, dims in data.values() if t.dim() == dims), default=1)
        scaled: Any = _ScaledGradient
        if reduce == "mean" and batch > 1:
            for name, (_, dims) in data.items():
                tensor = given[name]
                if tensor is not None and tensor.dim() < dims:
                    given[name] = scaled.apply(tensor, 1.0 / batch)
        sol = solve_qp(
            given["Q"],
            given["p"],
            given["G"],
            given["h"],
            given["A"],
            given["b"],
            settings=settings,
            on_failure="best",
        )
        if (
            check_Q_spd
            and not torch.compiler.is_compiling()
            and bool((sol.status == Status.NOT_CONVEX).any())
        ):
            raise RuntimeError(
                "Q: expected a positive semidefinite matrix, got a negative eigenvalue"
            )
        return sol.z if sol.z.dim() > 1 else sol.z.unsqueeze(0)

    return solve
