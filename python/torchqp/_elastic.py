"""The elastic answer of infeasible members: the same QP with its rows softened by slack variables.

    min 1/2 z'Qz + q'z + w 1'(r + r_lower + t + t_lower)
    s.t.  Az - t + t_lower = b,   h_lower <= Gz - r + r_lower <= h,   lb <= z <= ub,   r, t >= 0

It is a QP in (z, r, r_lower, t, t_lower), feasible whenever lb <= ub, and solved and differentiated
as any other. Its multipliers of rows and bounds are those of the softened problem; the slack
variables keep |lam| and |nu| within w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchqp.backward import check_number
from torchqp.solution import Solution, Status


def check_elastic(elastic: Any) -> None:
    """Raises unless it is None or a positive finite number."""
    if elastic is not None:
        check_number("solve_qp", "elastic", elastic, positive=True)


def _slacks(
    G: Tensor | None, h_lower: Tensor | None, h: Tensor | None, A: Tensor | None
) -> list[tuple[str, int, float]]:
    """Blocks of slack variables: the matrix they stand in, their number and their sign there."""
    blocks = []
    if G is not None:
        m = G.shape[-2]
        blocks += [("G", m, -1.0)] * (h is not None) + [("G", m, 1.0)] * (h_lower is not None)
    if A is not None:
        blocks += [("A", A.shape[-2], -1.0), ("A", A.shape[-2], 1.0)]
    return blocks


def _widened(name: str, matrix: Tensor | None, blocks: list[tuple[str, int, float]]) -> Any:
    """[M, -+I where a block is its own, 0 elsewhere]; a shared matrix stays shared."""
    if matrix is None:
        return None
    rows, leading = matrix.shape[-2], matrix.shape[:-2]
    eye = torch.eye(rows, dtype=matrix.dtype, device=matrix.device)
    parts = [matrix]
    for owner, size, sign in blocks:
        part = sign * eye if owner == name else matrix.new_zeros(rows, size)
        parts.append(part.expand(*leading, *part.shape))
    return torch.cat(parts, -1)


def soften(
    plain: Solution,
    problem: Sequence[Any],
    diagonal: bool,
    weight: float,
    solve: Callable[[Sequence[Tensor | None]], Solution],
) -> Solution:
    """The solution with its members of status 2 replaced by their elastic answers.

    Args:
        plain: the solution of the problem as it is.
        problem: Q, q, G, h_lower, h, A, b, lb, ub; leading dimensions broadcast.
        diagonal: Q is given as its diagonal.
        weight: w.
        solve: of a problem in the same order.

    Returns:
        A solution of the same shapes. No value is looked at, so nothing waits for the device.
    """
    Q, q, G, h_lower, h, A, b, lb, ub = problem
    blocks = _slacks(G, h_lower, h, A)
    extra, n = sum(size for _, size, _ in blocks), q.shape[-1]
    if not extra:
        return plain
    infeasible = (plain.status == Status.PRIMAL_INFEASIBLE).unsqueeze(-1)
    # A member with a NaN is turned away before its first iteration: only the others cost time.
    costs = torch.where(infeasible, q, torch.nan)
    low = q.new_full((n,), -torch.inf) if lb is None else lb
    again = solve(
        [
            pad(Q, (0, extra) if diagonal else (0, extra, 0, extra)),
            pad(costs, (0, extra), value=weight),
            _widened("G", G, blocks),
            h_lower,
            h,
            _widened("A", A, blocks),
            b,
            pad(low, (0, extra)),
            None if ub is None else pad(ub, (0, extra), value=torch.inf),
        ]
    )
    z, slacks = again.z[..., :n], again.z[..., n:].split([size for _, size, _ in blocks], -1)
    missed = again.s
    for (owner, _, sign), slack in zip(blocks, slacks, strict=True):
        if owner == "G":
            missed = missed + sign * slack
    answers = again._replace(
        z=z,
        s=missed,
        lam_lb=again.lam_lb[..., : plain.lam_lb.shape[-1]],
        lam_ub=again.lam_ub[..., : plain.lam_ub.shape[-1]],
    )
    used = infeasible.squeeze(-1) & (again.status <= Status.SOLVED_INACCURATE)
    chosen = [
        torch.where(used.unsqueeze(-1) if old.dim() > used.dim() else used, new, old)
        for new, old in zip(answers, plain, strict=True)
    ]
    found = Solution(*chosen)
    return found._replace(
        status=torch.where(used, Status.SOLVED_INACCURATE, plain.status),
        iterations=plain.iterations + torch.where(infeasible.squeeze(-1), again.iterations, 0),
    )
