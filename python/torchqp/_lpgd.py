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
from torchqp._kkt import add
from torchqp._rules import Saved

_INFINITY = 1e20


def _steps(
    saved: Saved, cotangents: Sequence[Tensor | None], tau: float, relative: bool
) -> tuple[Tensor, Tensor]:
    """(the step t > 0 of each member, whether it has any cotangent), both [*]."""
    size = torch.zeros_like(saved.z[..., 0])
    for g in cotangents:
        if g is not None and g.shape[-1]:
            size = torch.maximum(size, g.abs().amax(-1))
    moves = size > 0
    size = torch.where(moves, size, 1.0)
    if not relative:
        return torch.full_like(size, tau), moves
    return tau * (1 + saved.masked(saved.q).abs().amax(-1)) / size, moves


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
    g = [None if c is None else saved.masked(c) for c in cotangents]
    g = [None if c is None or not c.shape[-1] else c for c in g]
    if all(c is None for c in g):
        return {}
    g_z, g_nu, g_lam, g_lb, g_ub = g
    size, moves = _steps(saved, g, tau, bool(relative))
    t = torch.stack([sign * size for sign in signs]).unsqueeze(-1)  # [sides, *, 1]

    q = add(saved.q, None if g_z is None else t * g_z, -rho * saved.z if rho else None)
    Q = saved.Q
    if rho:
        Q = (
            Q + rho
            if saved.diagonal
            else Q + rho * torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
        )
    row_step = None if g_lam is None else -t * g_lam
    lower_step, upper_step = (None if g is None else t * g for g in _bound_steps(saved, g_lb, g_ub))
    start = (
        saved.z,
        saved.nu if saved.A is not None else None,
        saved.lam if saved.G is not None else None,
        saved.lam_lb if saved.lb is not None else None,
        saved.lam_ub if saved.ub is not None else None,
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
    return _differences(saved, ends, signs, size, moves)


def _differences(
    saved: Saved, ends: Sequence[Tensor], signs: Sequence[float], size: Tensor, moves: Tensor
) -> dict[str, Tensor]:
    """(dL/dtheta at one end - at the other) / distance; the forward solution is a failed end."""
    centre = (saved.z, saved.nu, saved.lam, saved.lam_lb, saved.lam_ub)
    good = (ends[5] <= 1) & moves & saved.solved.squeeze(-1)  # [sides, *]
    usable = [good[i].unsqueeze(-1) for i in range(len(signs))]
    reached = [
        [torch.where(usable[i], end[i], mid) for end, mid in zip(ends[:5], centre, strict=True)]
        for i in range(len(signs))
    ]
    if len(signs) == 2:
        first, last = reached
        distance = size * good.sum(0)
    else:
        first, last = (reached[0], list(centre)) if signs[0] > 0 else (list(centre), reached[0])
        distance = size * good[0]
    any_good = good.any(0).unsqueeze(-1)
    inverse = torch.where(any_good, 1 / torch.where(any_good, distance.unsqueeze(-1), 1.0), 0.0)
    delta = [(a - b) * inverse for a, b in zip(first, last, strict=True)]
    mean = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
    z, nu, lam, lam_lb, lam_ub = range(5)

    def negative_part(x: Tensor) -> Tensor:
        return (-x).clamp(min=0.0)

    needed, own = saved.needed, saved.own
    grads: dict[str, Tensor] = {}
    if needed["Q"]:
        grads["Q"] = symmetric_outer_sum(delta[z], mean[z], own("Q"), saved.diagonal)
    if needed["A"]:
        grads["A"] = outer_sum((delta[nu], mean[z]), (mean[nu], delta[z]), own("A"))
    if needed["G"]:
        grads["G"] = outer_sum((delta[lam], mean[z]), (mean[lam], delta[z]), own("G"))
    upper = (first[lam].clamp(min=0.0) - last[lam].clamp(min=0.0)) * inverse
    lower = (negative_part(first[lam]) - negative_part(last[lam])) * inverse
    for name, value in (
        ("q", delta[z]),
        ("b", -delta[nu]),
        ("h", -upper),
        ("h_lower", lower),
        ("lb", delta[lam_lb]),
        ("ub", -delta[lam_ub]),
    ):
        if needed[name]:
            grads[name] = sum_to(value, own(name), 1)
    return grads
