"""What the derivatives of `solve` share, and the exact adjoint and tangent.

Exact mode differentiates the optimality conditions on the active set. With d =
kkt_solve(cotangents):

    grad_q = d_z      grad_Q = sym(d_z z')      grad_A = d_nu z' + nu d_z'     grad_b = -d_nu
    grad_G = d_lam z' + lam d_z'                grad_h = -d_lam on upper sides, grad_h_lower =
    -d_lam on lower sides grad_ub = -d_bound on upper sides, grad_lb = -d_bound on lower sides

(Amos and Kolter, OptNet (2017), eq. 6 to 8). The cotangent g_s of the slack s = h - Gz enters as
-G' g_s in that of z, as -g_s z' in grad_G and as itself in grad_h. Members that failed have d = 0
and are read as z = 0: no NaN reaches a product.

Where no further derivative can be asked for, one pass of the operator `parameter_gradients` writes
what is needed; else, and for matrices that some members share, products do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import apply, apply_Q, outer_sum, sum_to, symmetric_outer_sum
from torchqp._kkt import add, kkt_solve, tangent_of_constraints
from torchqp._register import is_differentiated
from torchqp._watch import record


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
    near_start: bool = True


class SolveOutputs(NamedTuple):
    """The operator's results."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    slack: Tensor
    status: Tensor
    iterations: Tensor
    residuals: Tensor
    active: Tensor
    factor: Tensor


PARAMETERS = SolveInputs._fields[:9]
_INDEX = {name: i for i, name in enumerate(PARAMETERS)}
_WRITTEN = tuple(name for name in PARAMETERS if name != "q")
_MATRICES = ("Q", "G", "A")
_write = torch.ops.torchqp.parameter_gradients.default


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
        tensors = ctx.saved_tensors
        self.Q, self.q, self.G, self.h_lower, self.h, self.A, self.b, self.lb, self.ub = tensors[:9]
        self.raw: Sequence[Tensor] = tensors[9:14]  # z and the multipliers, whatever they hold
        self.status: Tensor = tensors[14]
        self.active: Tensor = tensors[15]
        self.factor: Tensor = tensors[16]
        self.diagonal: bool = ctx.diagonal
        self.options: Sequence[float] = ctx.options
        self.settings: tuple[float, float, int, bool] = ctx.settings
        self._shapes: Sequence[Sequence[int] | None] = ctx.shapes
        needs = ctx.needs_input_grad
        self.needed = [name for i, name in enumerate(PARAMETERS) if needs[i]]
        self.rows: int = tensors[11].shape[-1]
        self.bounds: bool = self.present("lb") or self.present("ub")

    @cached_property
    def solved(self) -> Tensor:
        """Bool [*, 1]."""
        return (self.status <= 1).unsqueeze(-1)

    @cached_property
    def z(self) -> Tensor:
        """The minimiser."""
        return self.masked(self.raw[0])

    @cached_property
    def nu(self) -> Tensor:
        """The multipliers of A."""
        return self.masked(self.raw[1])

    @cached_property
    def lam(self) -> Tensor:
        """The multipliers of G."""
        return self.masked(self.raw[2])

    @cached_property
    def lam_lb(self) -> Tensor:
        """The multipliers of lb."""
        return self.masked(self.raw[3])

    @cached_property
    def lam_ub(self) -> Tensor:
        """The multipliers of ub."""
        return self.masked(self.raw[4])

    @property
    def active_rows(self) -> Tensor:
        """Which sides of the rows of G hold."""
        return self.active[..., : self.rows]

    @property
    def active_bounds(self) -> Tensor | None:
        """Which bounds hold, None without any."""
        return self.active[..., self.rows :] if self.bounds else None

    def masked(self, tensor: Tensor) -> Tensor:
        """Zero for members that failed, whatever they hold."""
        return torch.where(self.solved, tensor, 0.0)

    def present(self, name: str) -> bool:
        """Whether the problem has this parameter."""
        return self._shapes[_INDEX[name]] is not None

    def is_summed(self, name: str) -> bool:
        """Whether all members have one matrix."""
        if not self.present(name) or core_of(name, self.diagonal) == 1:
            return False
        own = self.own(name)
        return own != self.status.shape and all(size == 1 for size in own)

    def is_written(self, name: str) -> bool:
        """Whether `parameter_gradients` forms it: no matrix that only some members share."""
        if name not in _MATRICES:
            return True
        return self.is_summed(name) or self.own(name) == self.status.shape

    def reduced(self, name: str, written: Tensor) -> Tensor:
        """The gradient of a parameter from what `parameter_gradients` wrote."""
        own = self.own(name)
        if self.is_summed(name):
            return written.reshape(*own, *written.shape[-2:])
        return sum_to(written, own, core_of(name, self.diagonal))

    def own(self, name: str) -> Sequence[int]:
        """Leading dimensions of a parameter."""
        shape = self._shapes[_INDEX[name]]
        assert shape is not None
        return shape[: len(shape) - core_of(name, self.diagonal)]


def refusal(mode: str) -> str:
    """What asking for a derivative of a mode's gradients raises."""
    return (
        f"torchqp: backward={mode!r} is not the derivative of a function, so it has no second "
        "derivative and no forward mode. Use backward='kkt' for double backward, "
        "torch.func.hessian, jvp or jacfwd."
    )


def core_of(name: str, diagonal: bool) -> int:
    """Trailing dimensions of a parameter."""
    return 2 if name in ("G", "A") or (name == "Q" and not diagonal) else 1


def parameter_gradients(
    saved: Saved, adjoint: Adjoint, g_slack: Tensor | None = None
) -> dict[str, Tensor]:
    """The gradients asked for; see the head of this file. Shared parameters get the sum."""
    d_z, d_nu, d_lam, d_bound = adjoint
    grads = written_gradients(saved, saved.raw, adjoint, g_slack, saved.needed)
    for name in saved.needed:
        if name in grads:
            continue
        own = saved.own(name)
        if name == "Q":
            grads[name] = symmetric_outer_sum(d_z, saved.z, own, saved.diagonal)
        elif name == "q":
            grads[name] = sum_to(d_z, own, 1)
        elif name == "G":
            d_rows = d_lam if g_slack is None else d_lam - g_slack
            grads[name] = outer_sum((d_rows, saved.z), (saved.lam, d_z), own)
        elif name == "A":
            grads[name] = outer_sum((d_nu, saved.z), (saved.nu, d_z), own)
        elif name == "b":
            grads[name] = sum_to(-d_nu, own, 1)
        else:
            rows = name in ("h", "h_lower")
            d, active = (d_lam, saved.active_rows) if rows else (d_bound, saved.active_bounds)
            if d is None or active is None:
                continue
            value = torch.where(active == (1 if name in ("h", "ub") else -1), -d, 0.0)
            if name == "h" and g_slack is not None:
                value = value + g_slack
            grads[name] = sum_to(value, own, 1)
    return grads


def written_gradients(
    saved: Saved,
    solution: Sequence[Tensor],
    adjoint: Adjoint,
    g_slack: Tensor | None,
    names: Sequence[str],
) -> dict[str, Tensor]:
    """What one pass over the members writes of these gradients, for z, nu, lam in `solution`.

    Nothing where a derivative of the result can be asked for, not q, and no matrix that some
    members share, for which it would be one matrix per member.
    """
    if is_differentiated(*solution, *adjoint, g_slack):
        return {}
    summed = [saved.is_summed(name) for name in _MATRICES]
    formed = [name in names and saved.is_written(name) for name in _WRITTEN]
    if not any(formed):
        return {}
    options = (formed, summed, saved.diagonal)
    grads = _write(*solution[:3], *adjoint, g_slack, saved.active, saved.status, *options)
    return {
        name: saved.reduced(name, grad)
        for name, wanted, grad in zip(_WRITTEN, formed, grads, strict=True)
        if wanted
    }


def _exact_adjoint(saved: Saved, g: Sequence[Tensor | None]) -> Adjoint:
    """One solve with the KKT matrix of the active set."""
    g_z, g_nu, g_lam, g_lb, g_ub = g[:5]
    g_bound = None
    if saved.active_bounds is not None:
        upper = (
            None
            if g_ub is None or not saved.present("ub")
            else torch.where(saved.active_bounds == 1, g_ub, 0.0)
        )
        lower = (
            None
            if g_lb is None or not saved.present("lb")
            else torch.where(saved.active_bounds == -1, -g_lb, 0.0)
        )
        g_bound = add(upper, lower)
    g_z = torch.zeros_like(saved.raw[0]) if g_z is None else g_z
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
    record(d[4])
    return Adjoint(d[0], d[1], d[2], d[3] if saved.bounds else None)


def through_slack(saved: Saved, g: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The cotangents with that of s = h - Gz carried on to z; what is left of it goes to G and h.

    The last is None where s is a constant, and zero for members that failed.
    """
    g_z, g_slack = g[0], g[5]
    if g_slack is None:
        return g
    if saved.G is None or not saved.present("h"):
        return (*g[:5], None)
    g_slack = saved.masked(g_slack)
    return (add(g_z, -apply(saved.G.mT, g_slack)), *g[1:5], g_slack)


def exact_gradients(saved: Saved, g: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Exact mode; differentiable again."""
    return parameter_gradients(saved, _exact_adjoint(saved, g), g[5])


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
    d_z, d_nu, d_lam, d_bound, _ = kkt_solve(
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
    if bounds is not None and saved.present("lb"):
        d_lb = torch.where(bounds == -1, -d_bound, 0.0)
    if bounds is not None and saved.present("ub"):
        d_ub = torch.where(bounds == 1, d_bound, 0.0)
    d_slack = torch.zeros_like(saved.lam)
    if saved.G is not None and saved.present("h"):
        d_Gz = apply(saved.G, d_z) if into_G is None else apply(saved.G, d_z) + into_G
        d_slack = saved.masked(-d_Gz if t.h is None else t.h - d_Gz)
    return (d_z, d_nu, d_lam, d_lb, d_ub, d_slack, None, None, None, None, None)
