"""The LPGD adjoint: the problem is solved again on both sides along the cotangents; see `LPGD`.

With dL/dtheta = (z for q, zz'/2 for Q, nu z' for A, -nu for b, lam z' for G, -max(lam, 0) for h,
max(-lam, 0) for h_lower, lam_lb for lb, -lam_ub for ub), the gradient is its difference between two
solutions divided by their distance in t. Differences of products are formed as D(lam z') = D(lam)
zbar' + lambar Dz' with the means of both ends: no cancellation of outer products.

The operator `lpgd` moves, solves and takes the differences; its formulas are in csrc/core/lpgd.hpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import outer_sum, sum_to, symmetric_outer_sum
from torchqp._checks import check_problem
from torchqp._register import differentiable
from torchqp._rules import Adjoint, Saved, core_of, refusal, written_gradients
from torchqp._watch import record


class LpgdInputs(NamedTuple):
    """The operator's arguments."""

    Q: Tensor
    q: Tensor
    G: Tensor | None
    h_lower: Tensor | None
    h: Tensor | None
    A: Tensor | None
    b: Tensor | None
    lb: Tensor | None
    ub: Tensor | None
    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    status: Tensor
    g_z: Tensor | None
    g_nu: Tensor | None
    g_lam: Tensor | None
    g_lb: Tensor | None
    g_ub: Tensor | None
    diagonal: bool
    tau: float
    relative: bool
    side: int
    rho: float
    eps_abs: float
    eps_rel: float
    max_iter: int
    polish: bool


class LpgdRule:
    """It is not the derivative of a function, and has none itself."""

    op = torch.ops.torchqp.lpgd.default

    @staticmethod
    def core_dims(args: Sequence[Any]) -> Sequence[int]:
        """Trailing dimensions of the tensor arguments."""
        problem = [core_of(name, args[20]) for name in LpgdInputs._fields[:9]]
        return (*problem, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1)

    @staticmethod
    def save(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        """Nothing: there is no derivative to form."""
        ctx.mark_non_differentiable(output[10])

    @staticmethod
    def vjp(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Raises."""
        raise RuntimeError(refusal("lpgd"))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Raises."""
        raise RuntimeError(refusal("lpgd"))


def fake_lpgd(*inputs: Any) -> tuple[Tensor, ...]:
    """Shapes and dtypes of the operator's results."""
    args = LpgdInputs(*inputs)
    n, m, p, batch = check_problem(*args[:14], diagonal=args.diagonal)
    leading = [g.shape[:-1] for g in args[15:20] if g is not None]
    batch = torch.broadcast_shapes(batch, args.status.shape, *leading)
    bounds = (n if args.lb is not None else 0, n if args.ub is not None else 0)
    sizes = (n, n, p, p, m, m, m, m, *bounds)
    new = args.q.new_empty
    return (*(new(*batch, size) for size in sizes), new(batch, dtype=torch.int32))


_lpgd = differentiable(LpgdRule)


def lpgd_gradients(saved: Saved, cotangents: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """All gradients of the LPGD mode."""
    tau, relative, side, rho = saved.options
    # What a problem does not have, has no entries.
    g = [None if c is None or not c.shape[-1] else c for c in cotangents[:5]]
    if all(c is None for c in g):
        return {}
    problem = (saved.Q, saved.q, saved.G, saved.h_lower, saved.h, saved.A, saved.b)
    bounds = (saved.lb, saved.ub)
    options = (saved.diagonal, tau, bool(relative), int(side), rho, *saved.settings)
    out = _lpgd(*problem, *bounds, *saved.raw, saved.status, *g, *options)
    d_z, z, d_nu, nu, d_lam, lam, grad_h_lower, grad_h, grad_lb, grad_ub, info = out
    record(info)

    vectors = {"q": d_z, "b": -d_nu, "h": grad_h, "h_lower": grad_h_lower}
    vectors |= {"lb": grad_lb, "ub": grad_ub}
    grads = {
        name: sum_to(value, saved.own(name), 1)
        for name, value in vectors.items()
        if name in saved.needed
    }
    matrices = [name for name in ("Q", "A", "G") if name in saved.needed]
    adjoint = Adjoint(d_z, d_nu, d_lam, None)
    grads |= written_gradients(saved, (z, nu, lam), adjoint, None, matrices)
    for name, (d, multipliers) in (("A", (d_nu, nu)), ("G", (d_lam, lam))):
        if name in matrices and name not in grads:
            grads[name] = outer_sum((d, z), (multipliers, d_z), saved.own(name))
    if "Q" in matrices and "Q" not in grads:
        grads["Q"] = symmetric_outer_sum(d_z, z, saved.own("Q"), saved.diagonal)

    g_slack = cotangents[5]
    if g_slack is not None and "G" in grads:
        nothing = torch.zeros_like(g_slack), torch.zeros_like(saved.z)
        grads["G"] = grads["G"] + outer_sum((-g_slack, saved.z), nothing, saved.own("G"))
    if g_slack is not None and "h" in grads:
        grads["h"] = grads["h"] + sum_to(g_slack, saved.own("h"), 1)
    return grads
