"""Proofs of infeasibility and of unboundedness, scaled, and checked on the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import apply_to_each, symmetric
from torchqp.functional import Diag, prepare, solve_qp
from torchqp.settings import Settings
from torchqp.solution import Solution, Status

_INFINITY = 1e20


class Certificate(NamedTuple):
    """Why members of a batch have no solution; [*] is the batch shape. See `certificate`.

    Attributes:
        status: int32 [*], that of `solve_qp`.
        z: [*, n] direction in which the objective falls for ever; zero unless status is 3.
        nu: [*, p] weights of Az = b; these four are zero unless status is 2.
        lam: [*, m] weights of the rows of G, upper side minus lower side.
        lam_lb: [*, n] weights >= 0 of lb <= z, [*, 0] without lb.
        lam_ub: [*, n] weights >= 0 of z <= ub, [*, 0] without ub.
        error: [*] by how much the proof misses, recomputed from the data; inf where there is none,
            zero for members that need none.
    """

    status: Tensor
    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    error: Tensor


class _Side(NamedTuple):
    """One side of a group of constraints, sign (Mz - limit) <= 0; M None is the identity."""

    name: str
    matrix: Tensor | None
    limit: Tensor
    sign: float
    multiplier: Tensor

    def finite(self) -> Tensor:
        return self.limit.abs() < _INFINITY

    def unreachable(self) -> Tensor:
        return self.sign * self.limit <= -_INFINITY

    def move(self, z: Tensor) -> Tensor:
        """How far z goes towards this side where it is finite, and beyond."""
        image = z if self.matrix is None else apply_to_each(self.matrix, z)
        return torch.where(self.finite(), (self.sign * image).clamp(min=0.0), 0.0)


def _sides(problem: Sequence[Any], solution: Solution) -> list[_Side]:
    """The sides that are there; the multipliers >= 0."""
    _, _, G, h_lower, h, _, _, lb, ub = problem
    candidates = (
        ("h", G, h, 1.0, solution.lam),
        ("h_lower", G, h_lower, -1.0, -solution.lam),
        ("ub", None, ub, 1.0, solution.lam_ub),
        ("lb", None, lb, -1.0, solution.lam_lb),
    )
    return [
        _Side(name, matrix, limit, sign, multiplier.clamp(min=0.0))
        for name, matrix, limit, sign, multiplier in candidates
        if limit is not None
    ]


def certificate(
    Q: Tensor | Diag,
    q: Tensor,
    G: Tensor | None = None,
    h: Tensor | float | None = None,
    A: Tensor | None = None,
    b: Tensor | float | None = None,
    lb: Tensor | float | None = None,
    ub: Tensor | float | None = None,
    *,
    h_lower: Tensor | float | None = None,
    settings: Settings | None = None,
) -> Certificate:
    r"""Solves a batch of QPs and returns the proofs for members of status 2 and 3.

    Status 2, no point satisfies the constraints (Farkas): weights nu, lam = lam+ - lam-, lam_lb,
    lam_ub of them, none on an absent side, with

        A'nu + G'lam + lam_ub - lam_lb = 0
        b'nu + h'lam+ - h_lower'lam- + ub'lam_ub - lb'lam_lb = -1

    that is, the constraints add up to 0 <= -1. `error` is the infinity norm of the first line: what
    is proved is that no feasible z has ||z||_1 < 1 / error. A side at the wrong infinity (h = -inf,
    lb = +inf) is its own proof: its weight is 1, all others are 0, and so is the error.

    Status 3, the objective falls for ever along z from any feasible point: q'z = -1, Qz = 0,
    Az = 0, Gz <= 0 where h is finite, Gz >= 0 where h_lower is, and as much for the bounds. `error`
    is the largest by which these miss.

    Args:
        Q: [*, n, n], or `Diag` with d [*, n].
        q: [*, n].
        G: [*, m, n].
        h: [*, m] or a number.
        A: [*, p, n].
        b: [*, p] or a number.
        lb: [*, n] or a number.
        ub: [*, n] or a number.
        h_lower: [*, m] or a number.
        settings: as of `torchqp.solve_qp`; tighter tolerances find narrower misses.

    Returns:
        `Certificate`. Not differentiable; nothing waits for the device.

    Source: Boyd and Vandenberghe, Convex Optimization (2004), section 5.8, for the alternatives.

    Example:
        z <= 0 and z >= 1 have the weights (1, 1): added up they are 0 <= -1.

        >>> import torch, torchqp
        >>> G = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        >>> h = torch.tensor([0.0, -1.0], dtype=torch.float64)
        >>> proof = torchqp.certificate(torch.eye(1).double(), torch.ones(1).double(), G, h)
        >>> int(proof.status), [round(x, 6) for x in proof.lam.tolist()], float(proof.error) < 1e-9
        (2, [1.0, 1.0], True)
    """
    with torch.no_grad():
        diagonal, problem = prepare(Q, q, G, h, A, b, lb, ub, h_lower)
        solution = solve_qp(
            Q, q, G, h, A, b, lb, ub, h_lower=h_lower, settings=settings, on_failure="best"
        )
        return _checked(diagonal, problem, solution)


def _checked(diagonal: bool, problem: Sequence[Any], solution: Solution) -> Certificate:
    """Scales what the solver found and measures it on the data."""
    sides = _sides(problem, solution)
    nu, weights, lie = _combination(problem, solution, sides)
    ray, ray_error = _ray(diagonal, problem, solution, sides)
    unbounded = solution.status == Status.DUAL_INFEASIBLE
    zero = torch.zeros_like(solution.lam)
    return Certificate(
        solution.status,
        ray,
        nu,
        weights.get("h", zero) - weights.get("h_lower", zero),
        weights.get("lb", solution.lam_lb),
        weights.get("ub", solution.lam_ub),
        torch.where(unbounded, ray_error, lie),
    )


def _combination(
    problem: Sequence[Any], solution: Solution, sides: list[_Side]
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The weights of Az = b and of each side that add up to 0 <= -1, and by how much they miss."""
    A, b = problem[5], problem[6]
    infeasible = (solution.status == Status.PRIMAL_INFEASIBLE).unsqueeze(-1)

    def wanted(multiplier: Tensor, where: Tensor) -> Tensor:
        return torch.where(infeasible & where & multiplier.isfinite(), multiplier, 0.0)

    nu = wanted(solution.nu, torch.ones_like(infeasible))
    value, total = torch.zeros_like(solution.z[..., 0]), torch.zeros_like(solution.z)
    if A is not None:
        value, total = (b * nu).sum(-1), apply_to_each(A.mT, nu)
    weights, alone, stuck = {}, {}, torch.zeros_like(infeasible)
    for side in sides:
        weight = wanted(side.multiplier, side.finite())
        value = value + side.sign * (torch.where(side.finite(), side.limit, 0.0) * weight).sum(-1)
        pulled = weight if side.matrix is None else apply_to_each(side.matrix.mT, weight)
        total = total + side.sign * pulled
        weights[side.name] = weight
        bad = side.unreachable() & infeasible & ~stuck
        alone[side.name] = bad & (bad.cumsum(-1) == 1)
        stuck = stuck | bad.any(-1, keepdim=True)
    proves = value < 0
    scale = torch.where(proves, -1 / value, 0.0)
    error = torch.where(proves, scale * total.abs().amax(-1), torch.inf)
    error = torch.where(infeasible.squeeze(-1) & ~stuck.squeeze(-1), error, 0.0)
    scale = torch.where(stuck, 0.0, scale.unsqueeze(-1))
    return nu * scale, {k: w * scale + alone[k].to(w.dtype) for k, w in weights.items()}, error


def _ray(
    diagonal: bool, problem: Sequence[Any], solution: Solution, sides: list[_Side]
) -> tuple[Tensor, Tensor]:
    """The direction in which the objective falls by 1, and by how much it misses."""
    Q, q, A = problem[0], problem[1], problem[5]
    unbounded = (solution.status == Status.DUAL_INFEASIBLE).unsqueeze(-1)
    z = torch.where(unbounded & solution.z.isfinite(), solution.z, 0.0)
    slope = (torch.where(unbounded, q, 0.0) * z).sum(-1)
    falls = slope < 0
    z = z * torch.where(falls, -1 / slope, 0.0).unsqueeze(-1)
    misses = [(Q * z if diagonal else apply_to_each(symmetric(Q), z)).abs()]
    misses += [side.move(z) for side in sides]
    if A is not None:
        misses.append(apply_to_each(A, z).abs())
    error = torch.cat([miss.expand(*z.shape[:-1], miss.shape[-1]) for miss in misses], -1)
    return z, torch.where(falls, error.amax(-1), torch.inf)
