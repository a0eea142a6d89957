"""What the derivatives of `solve` share, and the exact adjoint and tangent.

Exact mode differentiates the optimality conditions on the active set. With d =
kkt_solve(cotangents):

    grad_q = d_z      grad_Q = sym(d_z z')      grad_A = d_nu z' + nu d_z'     grad_b = -d_nu
    grad_G = d_lam z' + lam d_z'                grad_h = -d_lam on upper sides, grad_h_lower =
    -d_lam on lower sides grad_ub = -d_bound on upper sides, grad_lb = -d_bound on lower sides

(Amos and Kolter, OptNet (2017), eq. 6 to 8). Members that failed have d = 0 and are read as z = 0:
no NaN reaches a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import apply_Q, outer_sum, sum_to, symmetric_outer_sum
from torchqp._kkt import add, kkt_solve, tangent_of_constraints


class SolveInputs(NamedTuple):
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
    z0: Tensor | None
    nu0: Tensor | None
    lam0: Tensor | None
    lam_lb0: Tensor | None
    lam_ub0: Tensor | None
    diagonal: bool
    backward: str
    backward_options: list[float]
    eps_abs: float
    eps_rel: float
    max_iter: int
    polish: bool
    best_iterate: bool
    save_factor: bool


class SolveOutputs(NamedTuple):
    """The operator's results."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    status: Tensor
    iterations: Tensor
    residuals: Tensor
    active: Tensor
    factor: Tensor


PARAMETERS = SolveInputs._fields[:9]
MULTIPLIERS = SolveOutputs._fields[1:5]


class Adjoint(NamedTuple):
    """d of the exact system, or of another mode's; d_bound is None without bounds."""

    d_z: Tensor
    d_nu: Tensor
    d_lam: Tensor
    d_bound: Tensor | None


class Saved:
    """One solve as its derivative reads it: failed members are zero everywhere."""

    Q: Tensor
    q: Tensor  # the vectors are there only for the modes that read them
    G: Tensor | None
    h_lower: Tensor | None
    h: Tensor | None
    A: Tensor | None
    b: Tensor | None
    lb: Tensor | None
    ub: Tensor | None

    def __init__(self, ctx: Any) -> None:
        """Unpacks what the rule's `save` kept."""
        *parameters, z, nu, lam, lam_lb, lam_ub, status, active, factor = ctx.saved_tensors
        for name, tensor in zip(PARAMETERS, parameters, strict=True):
            setattr(self, name, tensor)
        self.needed: dict[str, bool] = dict(zip(PARAMETERS, ctx.needs_input_grad, strict=False))
        self.present: Sequence[str] = ctx.present
        self.diagonal: bool = ctx.diagonal
        self.options: Sequence[float] = ctx.options
        self.settings: tuple[float, float, int, bool] = ctx.settings
        self._shapes: Sequence[Sequence[int]] = ctx.shapes
        self.status, self.active, self.factor = status, active, factor
        self.solved = (status <= 1).unsqueeze(-1)
        self.z, self.nu, self.lam = self.masked(z), self.masked(nu), self.masked(lam)
        self.lam_lb, self.lam_ub = self.masked(lam_lb), self.masked(lam_ub)
        rows = lam.shape[-1]
        bounds = "lb" in self.present or "ub" in self.present
        self.active_rows = active[..., :rows]
        self.active_bounds = active[..., rows:] if bounds else None

    def masked(self, tensor: Tensor) -> Tensor:
        """Zero for members that failed, whatever they hold."""
        return torch.where(self.solved, tensor, 0.0)

    def own(self, name: str) -> Sequence[int]:
        """Leading dimensions of a parameter."""
        shape = self._shapes[PARAMETERS.index(name)]
        return shape[: len(shape) - core_of(name, self.diagonal)]


def core_of(name: str, diagonal: bool) -> int:
    """Trailing dimensions of a parameter."""
    return 2 if name in ("G", "A") or (name == "Q" and not diagonal) else 1


def parameter_gradients(saved: Saved, adjoint: Adjoint) -> dict[str, Tensor]:
    """The gradients asked for; see the head of this file. Shared parameters get the sum."""
    d_z, d_nu, d_lam, d_bound = adjoint
    z, needed, own = saved.z, saved.needed, saved.own
    grads: dict[str, Tensor] = {}
    if needed["Q"]:
        grads["Q"] = symmetric_outer_sum(d_z, z, own("Q"), saved.diagonal)
    if needed["q"]:
        grads["q"] = sum_to(d_z, own("q"), 1)
    if needed["A"]:
        grads["A"] = outer_sum((d_nu, z), (saved.nu, d_z), own("A"))
    if needed["b"]:
        grads["b"] = sum_to(-d_nu, own("b"), 1)
    if needed["G"]:
        grads["G"] = outer_sum((d_lam, z), (saved.lam, d_z), own("G"))
    for name, sign, d, active in (
        ("h", 1, d_lam, saved.active_rows),
        ("h_lower", -1, d_lam, saved.active_rows),
        ("ub", 1, d_bound, saved.active_bounds),
        ("lb", -1, d_bound, saved.active_bounds),
    ):
        if needed[name] and d is not None and active is not None:
            grads[name] = sum_to(torch.where(active == sign, -d, 0.0), own(name), 1)
    return grads


def _exact_adjoint(saved: Saved, g: Sequence[Tensor | None]) -> Adjoint:
    """One solve with the KKT matrix of the active set."""
    g_z, g_nu, g_lam, g_lb, g_ub = g
    g_bound = None
    if saved.active_bounds is not None:
        upper = (
            None
            if g_ub is None or "ub" not in saved.present
            else torch.where(saved.active_bounds == 1, g_ub, 0.0)
        )
        lower = (
            None
            if g_lb is None or "lb" not in saved.present
            else torch.where(saved.active_bounds == -1, -g_lb, 0.0)
        )
        g_bound = add(upper, lower)
    g_z = torch.zeros_like(saved.z) if g_z is None else g_z
    d = kkt_solve(
        saved.Q,
        saved.G,
        saved.A,
        saved.active,
        saved.status,
        saved.factor,
        g_z,
        g_nu,
        g_lam,
        g_bound,
        saved.diagonal,
    )
    return Adjoint(d[0], d[1], d[2], None if saved.active_bounds is None else d[3])


def exact_gradients(saved: Saved, g: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Exact mode; differentiable again."""
    return parameter_gradients(saved, _exact_adjoint(saved, g))


def _side(active: Tensor, upper: Tensor | None, lower: Tensor | None) -> Tensor | None:
    """Minus the tangent of the side that holds."""
    return add(
        None if upper is None else torch.where(active == 1, -upper, 0.0),
        None if lower is None else torch.where(active == -1, -lower, 0.0),
    )


def exact_tangent(saved: Saved, t: Any) -> tuple[Tensor | None, ...]:
    """Exact mode, forward: tangents of z and the multipliers; `t` names those of the inputs."""
    into_z_G, into_G = tangent_of_constraints(t.G, saved.lam, saved.z)
    into_z_A, into_A = tangent_of_constraints(t.A, saved.nu, saved.z)
    dQ_z = None if t.Q is None else apply_Q(t.Q, saved.z, saved.diagonal)
    into_z = add(dQ_z, t.q, into_z_G, into_z_A)
    bounds = saved.active_bounds
    d_z, d_nu, d_lam, d_bound = kkt_solve(
        saved.Q,
        saved.G,
        saved.A,
        saved.active,
        saved.status,
        saved.factor,
        torch.zeros_like(saved.z) if into_z is None else into_z,
        add(into_A, None if t.b is None else -t.b),
        add(into_G, _side(saved.active_rows, t.h, t.h_lower)),
        None if bounds is None else _side(bounds, t.ub, t.lb),
        saved.diagonal,
    )
    d_lb, d_ub = torch.zeros_like(saved.lam_lb), torch.zeros_like(saved.lam_ub)
    if bounds is not None and "lb" in saved.present:
        d_lb = torch.where(bounds == -1, -d_bound, 0.0)
    if bounds is not None and "ub" in saved.present:
        d_ub = torch.where(bounds == 1, d_bound, 0.0)
    return (d_z, d_nu, d_lam, d_lb, d_ub, None, None, None, None, None)
