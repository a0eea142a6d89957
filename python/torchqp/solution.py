"""What a solve returns, and what its status values mean."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor


class Status(IntEnum):
    """Outcome of one problem. The numbers are part of the API and never change.

    `meaning` says what the outputs are, `advice` what to do about it. z and all multipliers of a
    member with status >= 2 are NaN and its gradient contribution is exactly zero. With
    on_failure="best" they are the last finite iterate, in which the multipliers of a member with
    status 2, and z of one with status 3, are the proof: see `torchqp.certificate`.
    """

    SOLVED = 0
    SOLVED_INACCURATE = 1
    PRIMAL_INFEASIBLE = 2
    DUAL_INFEASIBLE = 3
    MAX_ITERATIONS = 4
    NUMERICAL_ERROR = 5
    INVALID_INPUT = 6
    NOT_CONVEX = 7

    @property
    def meaning(self) -> str:
        """What z and the gradient are."""
        return _TEXTS[self][0]

    @property
    def advice(self) -> str:
        """What the user should do."""
        return _TEXTS[self][1]


_FAILED = "; z and the multipliers are NaN, the gradient is zero"
_TEXTS = {
    Status.SOLVED: (
        "the residuals, recomputed on the caller's data, are within the tolerances; z and its "
        "gradient are usable",
        "nothing",
    ),
    Status.SOLVED_INACCURATE: (
        "the best iterate is within 1000 times the tolerances, or within the dtype's default ones, "
        "or it is an elastic answer; z and its gradient are usable with care",
        "look at residuals; rescale the problem, use float64, or loosen eps_abs and eps_rel",
    ),
    Status.PRIMAL_INFEASIBLE: (
        "no point satisfies the constraints, which a certificate checked on the data proves"
        + _FAILED,
        "torchqp.certificate weighs the constraints that contradict each other; elastic=w in "
        "solve_qp softens rows",
    ),
    Status.DUAL_INFEASIBLE: (
        "the objective is unbounded below on the constraints, which a certificate proves" + _FAILED,
        "bound the variables with lb and ub or add a quadratic term to Q; torchqp.certificate "
        "returns the direction",
    ),
    Status.MAX_ITERATIONS: (
        "the iteration limit came before the tolerances" + _FAILED,
        "raise Settings.max_iter, loosen the tolerances, or rescale the problem",
    ),
    Status.NUMERICAL_ERROR: (
        "arithmetic broke down before any usable iterate, or float32 cannot hold the solution"
        + _FAILED,
        "use float64, rescale the problem, remove nearly dependent rows",
    ),
    Status.INVALID_INPUT: (
        "the data hold NaN or misplaced infinities, or a lower side above its upper side" + _FAILED,
        "check the network that made the data, and lb <= ub, h_lower <= h",
    ),
    Status.NOT_CONVEX: (
        "(Q + Q')/2 has a negative eigenvalue" + _FAILED,
        "make Q positive semidefinite, for instance as LL' + eps I",
    ),
}


class SolveError(RuntimeError):
    """Raised by Solution.raise_for_status."""


class Solution(NamedTuple):
    """A batch of solutions; [*] is the batch shape, dtypes are the arguments' unless noted.

    The Lagrangian that fixes the multipliers' signs, and the meaning of each, is in
    `torchqp.solve_qp`. All floating tensors but residuals are differentiable.

    Attributes:
        z: [*, n] minimiser.
        nu: [*, p] multipliers of Az = b.
        lam: [*, m] multipliers of the rows of G, upper side minus lower side; >= 0 without h_lower.
        lam_lb: [*, n] multipliers >= 0 of lb <= z, [*, 0] without lb.
        lam_ub: [*, n] multipliers >= 0 of z <= ub, [*, 0] without ub.
        s: [*, m] slacks h - Gz; +inf where h is absent or +inf.
        status: int32 [*], see Status. NaN outputs and zero gradients where status >= 2.
        iterations: int32 [*] rounds of pivoting or iterations of the interior point.
        residuals: [*, 4] stationarity, primal, sign of multipliers, duality gap; each in infinity
            norm divided by 1 + the largest term it is made of, on the caller's data; in float32
            those of the answer before it is rounded to float32.
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    s: Tensor
    status: Tensor
    iterations: Tensor
    residuals: Tensor

    @property
    def solved(self) -> Tensor:
        """Bool [*]: the outputs are usable (status 0 or 1)."""
        return self.status <= Status.SOLVED_INACCURATE

    def raise_for_status(self, *, allow_inaccurate: bool = True) -> Solution:
        """Raises if any member failed. The only place that waits for the device.

        Args:
            allow_inaccurate: accept status 1.

        Returns:
            self.

        Raises:
            SolveError: names the number of failed members, and for each status its first members,
                meaning and advice.

        Example:
            >>> import torch, torchqp
            >>> Q, q = torch.eye(1), torch.zeros(2, 1)
            >>> sol = torchqp.solve_qp(Q, q, lb=torch.tensor([[0.0], [2.0]]), ub=1.0)
            >>> sol.status.tolist()
            [0, 6]
            >>> try:
            ...     sol.raise_for_status()
            ... except torchqp.SolveError as error:
            ...     print(str(error).splitlines()[0])
            1 of 2 problems failed
        """
        worst = Status.SOLVED_INACCURATE if allow_inaccurate else Status.SOLVED
        status = self.status.detach().cpu()
        failed = status > worst
        if not bool(failed.any()):
            return self
        lines = [f"{int(failed.sum())} of {status.numel()} problems failed"]
        for value in status[failed].unique().tolist():
            kind = Status(value)
            where = torch.nonzero(status == value).tolist()
            names = ", ".join(
                str(index[0] if len(index) == 1 else tuple(index)) for index in where[:5]
            )
            more = f" and {len(where) - 5} more" if len(where) > 5 else ""
            place = f" at batch index {names}{more}" if status.dim() else ""
            lines.append(
                f"  {kind.name.lower()} ({value}){place}: {kind.meaning}. Advice: {kind.advice}."
            )
        raise SolveError("\n".join(lines))
