"""The linearised KKT system as a differentiable function of its matrices and right-hand side.

d = -K^-1 g with the symmetric K = [Q A' G_I' E_J'; A; G_I; E_J] on the active rows I and bounds J.
It is linear and self-adjoint in g, so its derivatives are the same solve again:  with u =
kkt_solve(w) for cotangents w of d,

    grad_g = u    grad_Q = sym(u_z d_z')    grad_A = u_nu d_z' + d_nu u_z'    grad_G = u_lam d_z' +
    d_lam u_z'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import apply, apply_Q, full_precision, outer_sum, sum_to, symmetric_outer_sum
from torchqp._register import differentiable


class KktInputs(NamedTuple):
    """The operator's arguments."""

    Q: Tensor
    G: Tensor | None
    A: Tensor | None
    active: Tensor
    status: Tensor
    factor: Tensor | None
    g_z: Tensor
    g_nu: Tensor | None
    g_lam: Tensor | None
    g_bound: Tensor | None
    diagonal: bool


def add(*terms: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    result = None
    for term in terms:
        if term is not None:
            result = term if result is None else result + term
    return result


def tangent_of_constraints(
    dM: Tensor | None, multipliers: Tensor, z: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """(dM' multipliers, dM z): how a tangent of G or A enters stationarity and feasibility."""
    return (None, None) if dM is None else (apply(dM.mT, multipliers), apply(dM, z))


class KktRule:
    """Derivatives of d = -K^-1 g; `active`, `status` and `factor` are constants."""

    op = torch.ops.torchqp.kkt_solve.default

    @staticmethod
    def core_dims(args: Sequence[Any]) -> Sequence[int]:
        """Trailing dimensions of the tensor arguments."""
        return (1 if args[-1] else 2, 2, 2, 1, 0, 1, 1, 1, 1, 1)

    @staticmethod
    def save(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        """Keeps the system and its solution."""
        system = KktInputs(*inputs)
        ctx.set_materialize_grads(False)
        ctx.diagonal = system.diagonal
        ctx.shapes = tuple(None if t is None else t.shape for t in inputs[6:10])
        ctx.mark_non_differentiable(output[4])
        ctx.save_for_backward(*inputs[:6], *output[:3])

    @staticmethod
    def vjp(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """One more solve with the same K."""
        Q, G, A, active, status, factor, d_z, d_nu, d_lam = ctx.saved_tensors
        if all(w is None for w in cotangents[:4]):
            return (None,) * len(KktInputs._fields)
        with full_precision(d_z.device):
            w_z = torch.zeros_like(d_z) if cotangents[0] is None else cotangents[0]
            u = kkt_solve(Q, G, A, active, status, factor, w_z, *cotangents[1:4], ctx.diagonal)
            need = ctx.needs_input_grad
            grad_Q = (
                symmetric_outer_sum(u[0], d_z, Q.shape[: -1 if ctx.diagonal else -2], ctx.diagonal)
                if need[0]
                else None
            )
            grad_G = outer_sum((u[2], d_z), (d_lam, u[0]), G.shape[:-2]) if need[1] else None
            grad_A = outer_sum((u[1], d_z), (d_nu, u[0]), A.shape[:-2]) if need[2] else None
            grad_g = [
                sum_to(u[i], ctx.shapes[i][:-1], 1) if need[6 + i] else None for i in range(4)
            ]
        return (grad_Q, grad_G, grad_A, None, None, None, *grad_g, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """D' = -K^-1 (g' + K' d)."""
        Q, G, A, active, status, factor, d_z, d_nu, d_lam = ctx.saved_tensors
        t: Any = KktInputs._make(tangents)
        with full_precision(d_z.device):
            into_z_G, into_G = tangent_of_constraints(t.G, d_lam, d_z)
            into_z_A, into_A = tangent_of_constraints(t.A, d_nu, d_z)
            into_z = add(
                None if t.Q is None else apply_Q(t.Q, d_z, ctx.diagonal), into_z_G, into_z_A, t.g_z
            )
            g_z = torch.zeros_like(d_z) if into_z is None else into_z
            tangent: tuple[Tensor, ...] = kkt_solve(
                Q,
                G,
                A,
                active,
                status,
                factor,
                g_z,
                add(into_A, t.g_nu),
                add(into_G, t.g_lam),
                t.g_bound,
                ctx.diagonal,
            )
        return (*tangent[:4], None)


kkt_solve = differentiable(KktRule)
