"""The operators in Python: fake kernels, autocast, vmap and derivative rules of torch.ops.torchqp.

`solve`, `kkt_solve` and, for plain eager calls, `solve_exact` and `solve_lpgd` are what the package
calls; schemas, kernels and the derivatives of the latter two are in csrc/torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchqp import _library

_library.load()

from torchqp._batch import full_precision  # noqa: E402  the operators must exist before their rules
from torchqp._checks import check_problem  # noqa: E402
from torchqp._kkt import kkt_solve  # noqa: E402
from torchqp._lpgd import fake_lpgd, lpgd_gradients  # noqa: E402
from torchqp._register import differentiable, once_differentiable  # noqa: E402
from torchqp._rules import (  # noqa: E402
    PARAMETERS,
    Saved,
    SolveInputs,
    core_of,
    exact_gradients,
    exact_tangent,
    refusal,
    through_slack,
)
from torchqp._smoothed import smoothed_gradients  # noqa: E402

__all__ = ["kkt_solve", "solve", "solve_exact", "solve_lpgd"]


# Which parameters a mode's derivatives read.
_KEPT = {
    "kkt": [name in ("Q", "G", "A") for name in PARAMETERS],
    "smoothed": [name in ("Q", "q", "G", "A") for name in PARAMETERS],
    "lpgd": [True] * len(PARAMETERS),
}


class SolveRule:
    """Derivatives of the solution in the parameters; warm starts and settings are constants."""

    op = torch.ops.torchqp.solve.default

    @staticmethod
    def core_dims(args: Sequence[Any]) -> Sequence[int]:
        """Trailing dimensions of the tensor arguments."""
        diagonal = SolveInputs(*args).diagonal
        return [core_of(name, diagonal) for name in SolveInputs._fields[:14]]

    @staticmethod
    def save(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        """Keeps what the mode reads of the problem, the solution and the factor."""
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[6:])
        ctx.diagonal, ctx.mode, ctx.options = inputs[14:17]
        ctx.settings = inputs[17:21]
        ctx.shapes = [None if t is None else t.shape for t in inputs[:9]]
        parameters = [t if kept else None for t, kept in zip(inputs, _KEPT[ctx.mode], strict=False)]
        ctx.save_for_backward(*parameters, *output[:5], output[6], *output[9:])

    @staticmethod
    def vjp(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """The adjoint of the mode that the caller chose."""
        nothing = (None,) * len(SolveInputs._fields)
        if all(g is None for g in cotangents[:6]):
            return nothing
        saved = Saved(ctx)
        with full_precision(saved.status.device):
            g = through_slack(saved, cotangents)
            if ctx.mode == "kkt":
                grads = exact_gradients(saved, g)
            elif ctx.mode == "smoothed":
                grads = smoothed_gradients(saved, g)
            else:
                grads = lpgd_gradients(saved, g)
        result = tuple(grads.get(name) for name in PARAMETERS)
        if ctx.mode != "kkt":
            result = once_differentiable(refusal(ctx.mode), result)
        return result + nothing[len(result) :]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        """The tangent of the exact mode; the others have none."""
        if ctx.mode != "kkt":
            raise RuntimeError(refusal(ctx.mode))
        saved = Saved(ctx)
        with full_precision(saved.status.device):
            return exact_tangent(saved, SolveInputs(*tangents))


def _fake_solve(*inputs: Any) -> tuple[Tensor, ...]:
    args = SolveInputs(*inputs)
    n, m, p, batch = check_problem(*args[:14], diagonal=args.diagonal)
    bounds = args.lb is not None or args.ub is not None
    # As keeps_diagonal and factor_size in csrc/core/problem.hpp.
    rows = p + (m if not bounds and m <= 2 * n else 0)
    kept_diagonal = args.diagonal and 2 * (m + p) <= n
    triangles = n * (n + 1) // 2 + rows * (rows + 1) // 2
    factor_size = 1 if kept_diagonal else 1 + triangles
    new = args.q.new_empty
    return (
        new(*batch, n),
        new(*batch, p),
        new(*batch, m),
        new(*batch, n if args.lb is not None else 0),
        new(*batch, n if args.ub is not None else 0),
        new(*batch, m),
        new(batch, dtype=torch.int32),
        new(batch, dtype=torch.int32),
        new(*batch, 4),
        new(*batch, m + n if bounds else m, dtype=torch.int8),
        new(*batch, factor_size if args.save_factor else 0),
    )


def _fake_kkt_solve(
    Q: Tensor,
    G: Tensor | None,
    A: Tensor | None,
    active: Tensor,
    status: Tensor,
    factor: Tensor | None,
    g_z: Tensor,
    g_nu: Tensor | None,
    g_lam: Tensor | None,
    g_bound: Tensor | None,
    diagonal: bool,
) -> tuple[Tensor, ...]:
    n, m, p = g_z.shape[-1], 0 if G is None else G.shape[-2], 0 if A is None else A.shape[-2]
    leading = [Q.shape[: -1 if diagonal else -2], active.shape[:-1], status.shape]
    leading += [t.shape[:-2] for t in (G, A) if t is not None]
    leading += [t.shape[:-1] for t in (factor, g_z, g_nu, g_lam, g_bound) if t is not None]
    batch = torch.broadcast_shapes(*leading)
    d_bound = 0 if active.shape[-1] == m else n
    d = (g_z.new_empty(*batch, size) for size in (n, p, m, d_bound))
    return (*d, g_z.new_empty(batch, dtype=torch.int32))


def _fake_parameter_gradients(
    z: Tensor,
    nu: Tensor,
    lam: Tensor,
    d_z: Tensor,
    d_nu: Tensor,
    d_lam: Tensor,
    d_bound: Tensor | None,
    g_slack: Tensor | None,
    active: Tensor,
    status: Tensor,
    wanted: list[bool],
    summed: list[bool],
    diagonal: bool,
) -> tuple[Tensor, ...]:
    n, m, p = z.shape[-1], lam.shape[-1], nu.shape[-1]
    leading = [t.shape[:-1] for t in (z, nu, lam, d_z, d_nu, d_lam, active)] + [status.shape]
    leading += [t.shape[:-1] for t in (d_bound, g_slack) if t is not None]
    batch = torch.broadcast_shapes(*leading)
    cores = ((n,) if diagonal else (n, n), (m, n), (m,), (m,), (p, n), (p,), (n,), (n,))
    sums = (summed[0], summed[1], False, False, summed[2], False, False, False)
    shapes = [
        ((*core,) if whole else (*batch, *core)) if formed else (0,)
        for core, formed, whole in zip(cores, wanted, sums, strict=True)
    ]
    return tuple(z.new_empty(shape) for shape in shapes)


def _fake_kkt_gradients(*inputs: Any) -> tuple[Tensor, ...]:
    *matrices, active, status, factor, z, nu, lam, g_z = inputs[:10]
    *g, g_slack, wanted, summed, diagonal = inputs[10:]
    # Leading dimensions that only the solution or the slack's cotangent has are those of all.
    vectors = [t for t in (z, nu, lam, g_z, g_slack) if t is not None]
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in vectors))
    g_z = g_z.expand(*batch, g_z.shape[-1])
    system = (*matrices, active, status, factor, g_z, *g, diagonal)
    d_z, d_nu, d_lam, d_bound, info = _fake_kkt_solve(*system)
    grads = _fake_parameter_gradients(
        z, nu, lam, d_z, d_nu, d_lam, d_bound, g_slack, active, status, wanted, summed, diagonal
    )
    return (d_z, d_nu, d_lam, d_bound, info, *grads)


for _op, _fake in (
    ("torchqp::solve", _fake_solve),
    ("torchqp::kkt_solve", _fake_kkt_solve),
    ("torchqp::parameter_gradients", _fake_parameter_gradients),
    ("torchqp::kkt_gradients", _fake_kkt_gradients),
    ("torchqp::lpgd", fake_lpgd),
):
    torch.library.register_fake(_op, _fake)
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(_op, _device, torch.float32)


solve_exact = torch.ops.torchqp.solve_exact.default
solve_lpgd = torch.ops.torchqp.solve_lpgd.default
solve = differentiable(SolveRule)
