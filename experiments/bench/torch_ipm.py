"""torchqp's dual form in plain batched torch operations: what one kernel a solve is worth.

min 1/2 z'Qz + q'z  s.t.  Gz <= h, Az = b, Q positive definite. With Q = LL', w = L'z and the
equalities projected out by P = I - UU', where L^-1 A' = UR, what is left is

    s = d0 + T lam,   s >= 0, lam >= 0, s'lam = 0,   T = V'V,   V = P L^-1 G' [n, m],

which Mehrotra's predictor-corrector solves: one m x m Cholesky factor and two solves an iteration.
The number of iterations is fixed and a member that is done is frozen, so nothing here waits for
the device. The gradient is one more solve with the factor at the solution. Q, G and A may be 2-D:
shared, with T formed once and gradients summed over the batch.

The same method as in csrc/qp (dual_form, interior_point), less scaling, pivoting and polishing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

ITERATIONS = {torch.float64: 16, torch.float32: 10}
STEP = 0.995  # share of the way to the boundary
DONE = {torch.float64: 1e-13, torch.float32: 1e-6}  # of s'lam / m and |s - d0 - T lam|, relative


class Reduced(NamedTuple):
    """The dual form: L [n, n], U [n, p], R [p, p], V [n, m], T [m, m], rows' scale d [m]."""

    L: Tensor
    U: Tensor | None
    R: Tensor | None
    V: Tensor
    T: Tensor
    d: Tensor


class Answer(NamedTuple):
    """z, nu, lam [B, .]; slack and multiplier of the scaled rows, for the backward solve."""

    z: Tensor
    nu: Tensor | None
    lam: Tensor
    s_scaled: Tensor
    lam_scaled: Tensor


def _times(M: Tensor, v: Tensor) -> Tensor:
    """M v for M [(B,) i, j], v [B, j]."""
    return v @ M.mT if M.dim() == 2 else (M @ v.unsqueeze(-1)).squeeze(-1)


def _solve(M: Tensor, v: Tensor, *, upper: bool) -> Tensor:
    """M^-1 v for a triangular M [(B,) n, n], v [B, n]."""
    if M.dim() == 2:
        return torch.linalg.solve_triangular(M, v.mT, upper=upper).mT
    return torch.linalg.solve_triangular(M, v.unsqueeze(-1), upper=upper).squeeze(-1)


def _project(U: Tensor | None, v: Tensor) -> Tensor:
    """(I - UU') v for vectors [B, n]."""
    return v if U is None else v - _times(U, _times(U.mT, v))


def reduce(Q: Tensor, G: Tensor, A: Tensor | None) -> Reduced:
    """Everything that depends on the matrices alone; rows scaled so that T has a unit diagonal."""
    L, _ = torch.linalg.cholesky_ex(Q)
    V = torch.linalg.solve_triangular(L, G.mT, upper=False)
    U = R = None
    if A is not None:
        U, R = torch.linalg.qr(torch.linalg.solve_triangular(L, A.mT, upper=False))
        V = V - U @ (U.mT @ V)
    d = V.square().sum(-2).rsqrt()
    V = V * d.unsqueeze(-2)
    return Reduced(L, U, R, V, V.mT @ V, d)


def _factor(T: Tensor, diagonal: Tensor) -> Tensor:
    """Cholesky factor of T + diag, without a look at its success."""
    return torch.linalg.cholesky_ex(T + torch.diag_embed(diagonal))[0]


def _length(v: Tensor, dv: Tensor) -> Tensor:
    """Largest step in [0, 1] that keeps v + step dv >= 0, [B, 1]."""
    ratio = torch.where(dv < 0, -v / dv, torch.inf)
    return (STEP * ratio.amin(-1, keepdim=True)).clamp(max=1.0)


def interior_point(T: Tensor, d0: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """s, lam >= 0 [B, m] with s = d0 + T lam and s'lam = 0."""
    m, done_at = d0.shape[-1], DONE[d0.dtype]
    identity = torch.ones_like(d0)

    # Mehrotra's start: the least-squares point, moved into the interior.
    factor = _factor(T, identity)
    lam = -torch.cholesky_solve(d0.unsqueeze(-1), factor).squeeze(-1)
    s = -lam
    s = s + (-1.5 * s.amin(-1, keepdim=True)).clamp(min=0)
    lam = lam + (-1.5 * lam.amin(-1, keepdim=True)).clamp(min=0)
    gap = (s * lam).sum(-1, keepdim=True) + 1e-3 * m
    s = s + 0.5 * gap / lam.sum(-1, keepdim=True).clamp(min=1e-3)
    lam = lam + 0.5 * gap / s.sum(-1, keepdim=True).clamp(min=1e-3)

    for _ in range(iterations):
        Tl = _times(T, lam)
        mu = (s * lam).mean(-1, keepdim=True)
        size = 1 + torch.maximum(d0.abs(), Tl.abs()).amax(-1, keepdim=True)
        off = (s - d0 - Tl).abs().amax(-1, keepdim=True)
        done = torch.maximum(mu, off) < done_at * size

        factor = _factor(T, s / lam)

        def direction(target: Tensor) -> tuple[Tensor, Tensor]:
            """The step to lam_i s_i = target_i, to first order, and s = d0 + T lam."""
            right = (target / lam - d0 - Tl).unsqueeze(-1)  # noqa: B023  (called in this round)
            dlam = torch.cholesky_solve(right, factor).squeeze(-1)  # noqa: B023
            return target / lam - s - s / lam * dlam, dlam  # noqa: B023

        ds, dlam = direction(torch.zeros_like(s))
        ahead = (s + _length(s, ds) * ds) * (lam + _length(lam, dlam) * dlam)
        centring = (ahead.mean(-1, keepdim=True) / mu) ** 3
        ds, dlam = direction(centring * mu - ds * dlam)
        step = torch.minimum(_length(s, ds), _length(lam, dlam))
        step = torch.where(done | ~step.isfinite(), 0.0, step)
        s, lam = s + step * ds.nan_to_num(), lam + step * dlam.nan_to_num()
    return s, lam


def _lift(form: Reduced, w: Tensor) -> Tensor:
    """L^-T w."""
    return _solve(form.L.mT, w, upper=True)


def _equalities(form: Reduced, residual: Tensor, right: Tensor | None) -> Tensor | None:
    """The multipliers of A: -R^-1 (right + U' L^-1 residual), residual without A' nu."""
    if form.U is None or form.R is None:
        return None
    along = _times(form.U.mT, _solve(form.L, residual, upper=False))
    return -_solve(form.R, along if right is None else along + right, upper=True)


def solve(form: Reduced, q: Tensor, G: Tensor, h: Tensor, b: Tensor | None) -> Answer:
    """Solution of the whole batch from its dual form."""
    right = None
    w = -_project(form.U, _solve(form.L, q, upper=False))
    if form.U is not None and form.R is not None and b is not None:
        right = _solve(form.R.mT, b, upper=False)
        w = w + _times(form.U, right)
    d0 = form.d * (h - _times(G, _lift(form, w)))
    s, y = interior_point(form.T, d0, ITERATIONS[q.dtype])
    z = _lift(form, w - _times(form.V, y))
    lam = form.d * y
    return Answer(z, _equalities(form, q + _times(G.mT, lam), right), lam, s, y)


def _outer(M: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Product a b' of every member, or its sum over the batch where M is shared."""
    return a.mT @ b if M.dim() == 2 else a.unsqueeze(-1) * b.unsqueeze(-2)


class _Solve(torch.autograd.Function):
    """z, with the gradients of all six arguments."""

    @staticmethod
    def forward(ctx: Any, *data: Tensor | None) -> Tensor:
        Q, q, G, h, A, b = data
        assert Q is not None and q is not None and G is not None and h is not None
        form = reduce(Q, G, A)
        answer = solve(form, q, G, h, b)
        ctx.save_for_backward(Q, G, A, *form, *answer)
        return answer.z

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor) -> tuple[Tensor | None, ...]:
        Q, G, A, *rest = ctx.saved_tensors
        form, (z, nu, lam, s, y) = Reduced(*rest[:6]), rest[6:]
        # Q u + G'v + A't = -grad_z,  G u = (s / lam) v,  A u = 0.
        c = _solve(form.L, grad_z, upper=False)
        factor = _factor(form.T, s / y)
        right = -_times(form.V.mT, c).unsqueeze(-1)
        v = torch.cholesky_solve(right, factor).squeeze(-1)
        u = _lift(form, -_project(form.U, c) - _times(form.V, v))
        v = form.d * v
        t = _equalities(form, grad_z + _times(G.mT, v), None)
        grad_Q = 0.5 * (_outer(Q, u, z) + _outer(Q, z, u))
        grad_G = _outer(G, v, z) + _outer(G, lam, u)
        if t is None:
            return grad_Q, u, grad_G, -v, None, None
        return grad_Q, u, grad_G, -v, _outer(A, t, z) + _outer(A, nu, u), -t


def solve_qp(
    Q: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor | None = None, b: Tensor | None = None
) -> Tensor:
    """Solutions z [B, n], with the gradients of all arguments."""
    return _Solve.apply(Q, q, G, h, A, b)  # type: ignore[no-any-return]
