"""The smoothed-set adjoint: that of a problem with one aggregated constraint; see `Smoothed`.

min 1/2 z'Qz + q'z  s.t.  a'z <= a'z*,  a = G'lam + A'nu + lam_ub - lam_lb = -(Qz* + q), has the
solution z* with multiplier 1 when lam, nu are frozen. Its KKT system is one of kkt_solve's, with a'
in the place of G.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchqp._batch import apply_to_each, sum_to, symmetric, symmetric_outer_sum
from torchqp._kkt import add, kkt_solve
from torchqp._rules import Adjoint, Saved, parameter_gradients
from torchqp._watch import record

_SINGULAR_SHIFT = 1e-6
_INTERIOR = 10.0


def _diagonal_added(Q: Tensor, amount: Tensor, diagonal: bool) -> Tensor:
    """Q + amount I for amount [*]."""
    if diagonal:
        return Q + amount.unsqueeze(-1)
    return Q + amount[..., None, None] * torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)


def _regular(Q: Tensor, diagonal: bool) -> Tensor:
    """Q if safely positive definite, else Q + 1e-6 max(1, ||Q||_max) I. Shared Q stays shared."""
    sized = Q.detach()
    sizes = sized.abs().flatten(-1 if diagonal else -2).amax(-1)
    if diagonal:
        pivots = sized.amin(-1)
        broken = pivots <= 0
    else:
        factor, info = torch.linalg.cholesky_ex(symmetric(sized))
        pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
        broken = info != 0
    smallest = 10 * Q.shape[-1] * torch.finfo(Q.dtype).eps * sizes
    shift = torch.where(broken | (pivots <= smallest), _SINGULAR_SHIFT * sizes.clamp(min=1.0), 0.0)
    return _diagonal_added(Q, shift, diagonal)


def _weighted(cotangent: Tensor | None, multipliers: Tensor) -> Tensor | None:
    """The cotangent of the aggregated multiplier, as far as these multipliers carry it: [*]."""
    return None if cotangent is None else (cotangent * multipliers).sum(-1)


def smoothed_gradients(saved: Saved, cotangents: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """All gradients of the smoothed mode."""
    alpha, curvature, smooth_equalities, q_metric = saved.options
    g_z, g_nu, g_lam, g_lb, g_ub = (None if g is None else saved.masked(g) for g in cotangents[:5])
    g_z = torch.zeros_like(saved.z) if g_z is None else g_z
    diagonal, A = saved.diagonal, (None if smooth_equalities else saved.A)
    Q = _regular(saved.Q, diagonal)

    Qz = saved.Q * saved.z if diagonal else apply_to_each(symmetric(saved.Q), saved.z)
    stationarity = saved.masked(Qz + saved.q)
    normal = (
        -stationarity
        if A is None
        else -(stationarity + saved.masked(apply_to_each(A.mT, saved.nu)))
    )
    size = torch.linalg.vector_norm(normal, dim=-1)
    tolerance = _INTERIOR * max(saved.settings[0], saved.settings[1])
    scale = 1 + saved.masked(saved.q).abs().amax(-1)
    interior = normal.abs().amax(-1) <= tolerance * scale
    size = torch.where(interior, 1.0, size)
    unit = normal / size.unsqueeze(-1)

    shaped = Q
    if curvature and not q_metric:
        shaped = _diagonal_added(Q, torch.where(interior, 0.0, size * curvature), diagonal)
    weights = add(
        _weighted(g_lam, saved.lam),
        _weighted(g_lb, saved.lam_lb) if saved.present("lb") else None,
        _weighted(g_ub, saved.lam_ub) if saved.present("ub") else None,
        _weighted(g_nu, saved.nu) if A is None else None,
    )
    # The row is scaled to unit length, so that its multiplier and the cotangent of that are too.
    d_z, d_nu, d_unit, _, info = kkt_solve(
        shaped,
        unit.unsqueeze(-2),
        A,
        (~interior).to(torch.int8).unsqueeze(-1),
        saved.status,
        None,
        g_z,
        None if A is None else g_nu,
        None if weights is None else (weights / size).unsqueeze(-1),
        None,
        diagonal,
    )
    record(info)
    mu = d_unit / size.unsqueeze(-1)
    if curvature and q_metric:
        ellipsoid = (
            (size.square() * (unit * -_minus_inverse(saved, Q, unit)).sum(-1)).clamp(min=0.0).sqrt()
        )
        damping = torch.where(interior, 1.0, 1 / (1 + ellipsoid * curvature)).unsqueeze(-1)
        d_z, d_nu, mu = d_z * damping, d_nu * damping, mu * damping

    bounds = add(
        mu * saved.lam_ub if saved.present("ub") else None,
        -mu * saved.lam_lb if saved.present("lb") else None,
    )
    grads = parameter_gradients(
        saved,
        Adjoint(d_z, mu * saved.nu if A is None else d_nu, mu * saved.lam, bounds),
        cotangents[5],
    )
    if alpha and ("Q" in saved.needed or "q" in saved.needed):
        step = -_minus_inverse(saved, Q, stationarity)  # z - w
        if "q" in saved.needed:
            grads["q"] = grads["q"] + sum_to(2 * alpha * step, saved.own("q"), 1)
        if "Q" in saved.needed:
            both = 2 * saved.z - step  # z + w
            grads["Q"] = grads["Q"] + symmetric_outer_sum(
                alpha * step, both, saved.own("Q"), diagonal
            )
    return grads


def _minus_inverse(saved: Saved, Q: Tensor, vectors: Tensor) -> Tensor:
    """-Q^-1 v, zero for failed members."""
    none = saved.active[..., :0]
    d: tuple[Tensor, ...] = kkt_solve(
        Q, None, None, none, saved.status, None, vectors, None, None, None, saved.diagonal
    )
    return d[0]
