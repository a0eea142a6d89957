"""The LPGD adjoint: the problem is solved again on both sides along the cotangents; see `LPGD`.

With dL/dtheta = (z for q, zz'/2 for Q, nu z' for A, -nu for b, lam z' for G, -max(lam, 0) for h,
max(-lam, 0) for h_lower, lam_lb for lb, -lam_ub for ub), the gradient is its difference between two
solutions divided by their distance in t. Differences of products are formed as D(lam z') = D(lam)
zbar' + lambar Dz' with the means of both ends: no cancellation of outer products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchqp._batch import outer_sum, sum_to, symmetric_outer_sum
from torchqp._rules import Adjoint, Saved, written_gradients
from torchqp._watch import record

_INFINITY = 1e20


def _steps(saved: Saved, cotangents: Sequence[Tensor | None], tau: float, relative: bool) -> Tensor:
    """The step t > 0 of each member [*]; NaN for one that has no cotangent or failed.

    With NaN the moved problem is invalid, which costs nothing to find out.
    """
    norms = [g.abs().amax(-1) for g in cotangents if g is not None]
    size = norms[0]
    for norm in norms[1:]:
        size = torch.maximum(size, norm)
    step = torch.full_like(size, tau)
    if relative:
        step = tau * (1 + saved.q.abs().amax(-1)) / size
    return torch.where((size > 0) & (saved.status <= 1), step, torch.nan)


def _moved(side: Tensor | None, step: Tensor | None) -> Tensor | None:
    """A side of a constraint moved by a step; one that is infinite stays so."""
    if side is None or step is None:
        return side
    return torch.where(side.abs() >= _INFINITY, side, side + step)


def _bound_steps(
    saved: Saved, g_lb: Tensor | None, g_ub: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """How lb and ub move per unit of t; a fixed variable's as one, led by the side that holds."""
    lower = g_lb if saved.lb is not None else None
    upper = None if g_ub is None or saved.ub is None else -g_ub
    if (lower is None and upper is None) or saved.lb is None or saved.ub is None:
        return lower, upper
    lower = torch.zeros_like(saved.z) if lower is None else lower
    upper = torch.zeros_like(saved.z) if upper is None else upper
    fixed = torch.eq(saved.lb, saved.ub)
    held = torch.where(saved.lam_ub > saved.lam_lb, upper, lower)
    return torch.where(fixed, held, lower), torch.where(fixed, held, upper)


def lpgd_gradients(
    saved: Saved, cotangents: Sequence[Tensor | None], solve: Callable[..., Sequence[Tensor]]
) -> dict[str, Tensor]:
    """All gradients of the LPGD mode. `solve` is the differentiable operator."""
    tau, relative, side, rho = saved.options
    signs = ((1.0,), (-1.0,), (1.0, -1.0))[int(side)]
    g = [None if c is None or not c.shape[-1] else c for c in cotangents[:5]]
    if all(c is None for c in g):
        return {}
    g_z, g_nu, g_lam, g_lb, g_ub = g
    step = _steps(saved, g, tau, bool(relative))
    t = torch.stack([step if sign > 0 else -step for sign in signs]).unsqueeze(-1)  # [sides, *, 1]

    q = saved.q if g_z is None else saved.q + t * g_z
    Q = saved.Q
    if rho:
        q = q - rho * saved.z
        Q = (
            Q + rho
            if saved.diagonal
            else Q + rho * torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
        )
    row_step = None if g_lam is None else -t * g_lam
    lower_step, upper_step = (None if g is None else t * g for g in _bound_steps(saved, g_lb, g_ub))
    z, nu, lam, lam_lb, lam_ub = saved.raw
    start = (
        z,
        nu if saved.A is not None else None,
        lam if saved.G is not None else None,
        lam_lb if saved.lb is not None else None,
        lam_ub if saved.ub is not None else None,
    )
    ends = solve(
        Q,
        q,
        saved.G,
        _moved(saved.h_lower, row_step),
        _moved(saved.h, row_step),
        saved.A,
        saved.b if g_nu is None or saved.b is None else saved.b - t * g_nu,
        _moved(saved.lb, lower_step),
        _moved(saved.ub, upper_step),
        *start,
        saved.diagonal,
        "kkt",
        [],
        *saved.settings,
        False,
        False,
    )
    grads = _differences(saved, ends, signs, step)
    g_slack = cotangents[5]
    if g_slack is not None and "G" in grads:
        nothing = torch.zeros_like(g_slack), torch.zeros_like(saved.z)
        grads["G"] = grads["G"] + outer_sum((-g_slack, saved.z), nothing, saved.own("G"))
    if g_slack is not None and "h" in grads:
        grads["h"] = grads["h"] + sum_to(g_slack, saved.own("h"), 1)
    return grads


def _differences(
    saved: Saved, ends: Sequence[Tensor], signs: Sequence[float], step: Tensor
) -> dict[str, Tensor]:
    """(dL/dtheta at one end - at the other) / distance; the forward solution is a failed end."""
    good = ends[6] <= 1  # [sides, *]
    # A step of NaN, of a member without a cotangent or a solution, is no failure of its ends.
    record((~good.all(0) & torch.isfinite(step)).int())
    usable = good.unsqueeze(-1)
    distance = (step * good.sum(0)).unsqueeze(-1)
    inverse = torch.where(distance > 0, 1 / distance, 0.0)
    needed = saved.needed

    def both(i: int, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Output i at the end with the larger t and at the other."""
        reached = torch.where(usable, ends[i], centre)
        if len(signs) == 2:
            return reached[0], reached[1]
        return (reached[0], centre) if signs[0] > 0 else (centre, reached[0])

    def change(first: Tensor, last: Tensor) -> Tensor:
        return (first - last) * inverse

    grads: dict[str, Tensor] = {}

    def put(name: str, value: Tensor) -> None:
        grads[name] = sum_to(value, saved.own(name), 1)

    first_z, last_z = both(0, saved.z)
    d_z, z = change(first_z, last_z), (first_z + last_z) / 2
    if "q" in needed:
        put("q", d_z)
    if "lb" in needed:
        put("lb", change(*both(3, saved.lam_lb)))
    if "ub" in needed:
        put("ub", -change(*both(4, saved.lam_ub)))
    d_nu, nu, d_lam, lam = (saved.raw[1], saved.raw[1], saved.raw[2], saved.raw[2])
    if "A" in needed or "b" in needed:
        first, last = both(1, saved.nu)
        d_nu, nu = change(first, last), (first + last) / 2
    if "b" in needed:
        put("b", -d_nu)
    if "G" in needed or "h" in needed or "h_lower" in needed:
        first, last = both(2, saved.lam)
        d_lam, lam = change(first, last), (first + last) / 2
        if "h" in needed:
            put("h", change(last.clamp(min=0.0), first.clamp(min=0.0)))
        if "h_lower" in needed:
            put("h_lower", change((-first).clamp(min=0.0), (-last).clamp(min=0.0)))

    matrices = [name for name in ("Q", "A", "G") if name in needed]
    adjoint = Adjoint(d_z, d_nu, d_lam, None)
    grads |= written_gradients(saved, (z, nu, lam), adjoint, None, matrices)
    for name, (d, multipliers) in (("A", (d_nu, nu)), ("G", (d_lam, lam))):
        if name in matrices and name not in grads:
            grads[name] = outer_sum((d, z), (multipliers, d_z), saved.own(name))
    if "Q" in matrices and "Q" not in grads:
        grads["Q"] = symmetric_outer_sum(d_z, z, saved.own("Q"), saved.diagonal)
    return grads
