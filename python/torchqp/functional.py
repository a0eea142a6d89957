"""The functional interface: what a user may pass, and what a solve means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchqp._batch import autocasts
from torchqp._checks import check_problem
from torchqp._elastic import check_elastic, soften
from torchqp._ops import solve, solve_exact, solve_lpgd
from torchqp._register import is_plain
from torchqp.backward import Backward, resolve_backward
from torchqp.settings import Settings, check_settings
from torchqp.solution import Solution

_FAILURES = ("nan", "best")
_COLD = (None,) * 5


class Diag(NamedTuple):
    """A diagonal Q, given as its diagonal: O(n) storage and, with few rows, O(n) work an iteration.

    Attributes:
        d: [*, n], entries >= 0.

    Example:
        >>> import torch, torchqp
        >>> q = torch.tensor([-2.0, 4.0], dtype=torch.float64)
        >>> sol = torchqp.solve_qp(torchqp.Diag(torch.ones_like(q)), q, lb=0.0)
        >>> [round(x, 6) for x in sol.z.tolist()]
        [2.0, 0.0]
    """

    d: Tensor


def solve_qp(
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
    backward: str | Backward = "kkt",
    settings: Settings | None = None,
    warm_start: Solution | None = None,
    on_failure: str = "nan",
    elastic: float | None = None,
) -> Solution:
    r"""Solves a batch of convex QPs and differentiates their solutions.

        z* = argmin 1/2 z'Qz + q'z   s.t.   Az = b,   h_lower <= Gz <= h,   lb <= z <= ub

        L = 1/2 z'Qz + q'z + nu'(Az - b) + lam'(Gz - h) + lam_ub'(z - ub) + lam_lb'(lb - z)

    lam_lb, lam_ub >= 0; lam is upper side minus lower side of a row: >= 0 unless the row's lower
    side holds. Q enters as (Q + Q')/2 and may be positive semidefinite or zero (a linear program).

    Leading dimensions [*] of all arguments broadcast to the batch. An argument with fewer of them
    is shared: it is not copied, and its gradient is the sum over the batch. All tensors have one
    dtype, float64 or float32, and one device. h, h_lower, b, lb and ub may be numbers or 0-d
    tensors. Entries of h, h_lower, lb, ub with magnitude >= 1e20 on the harmless side are no
    constraint; lb == ub or h_lower == h is an equality.

    Args:
        Q: [*, n, n], or `Diag` with d [*, n].
        q: [*, n], n >= 1.
        G: [*, m, n]; comes with h, h_lower or both.
        h: [*, m] or a number.
        A: [*, p, n]; comes with b.
        b: [*, p] or a number.
        lb: [*, n] or a number.
        ub: [*, n] or a number.
        h_lower: [*, m] or a number.
        backward: "kkt", "smoothed", "lpgd" or a `KKT`, `Smoothed`, `LPGD` object.
        settings: tolerances (relative KKT residuals, infinity norm) and limits; None is 1e-8 in
            float64, 1e-4 in float32.
        warm_start: a `Solution` of a problem with the same sizes, from which the solver starts. Not
            differentiated; members that are not finite start cold.
        on_failure: what a member with status >= 2 returns: "nan", or "best", its last finite
            iterate (with status 2 or 3 the proof instead, which `torchqp.certificate` scales and
            checks).
        elastic: weight w > 0 with which a member of status 2 is solved again, its rows softened:
            min 1/2 z'Qz + q'z + w (||missed sides of Gz||_1 + ||Az - b||_1) on its bounds. That
            answer has status 1, multipliers of the rows in [-w, w], s < 0 where h is missed, and
            gradients of the softened problem. Members that are not of status 2 keep their bits.

    Returns:
        `Solution` (z, nu, lam, lam_lb, lam_ub, s, status, iterations, residuals). Outcomes of the
        mathematics are data: status, an int32 tensor, never an exception
        (`Solution.raise_for_status` turns it into one). Where status >= 2 the member's gradient
        contribution is exactly zero, whatever it returns. Members never influence each other.

    Raises:
        TypeError: an argument that is not a tensor, is sparse, or has the wrong dtype; wrong types
            of options.
        ValueError: wrong shapes, devices, missing companions (h without G), unknown options.
        NotImplementedError: tensors on a device for which this build has no kernels.

    Differentiability: z, s and all multipliers, in all of Q, q, G, h, A, b, lb, ub, h_lower. Works
    under torch.compile, torch.func (vmap, grad, jacrev, jacfwd, hessian), torch.export and autocast
    (half precision inputs are then cast to float32). Double backward and forward mode need the
    exact mode. Inside torch.compile, of torch.func only vmap; the others raise there.

    Source: Amos and Kolter, OptNet (2017), for the exact mode; `Smoothed` and `LPGD` name theirs.

    Example:
        The projection of (1.5, -0.5) onto the simplex, and its gradient.

        >>> import torch, torchqp
        >>> w = torch.tensor([1.5, -0.5, 0.3], dtype=torch.float64, requires_grad=True)
        >>> ones = torch.ones(1, 3, dtype=torch.float64)
        >>> sol = torchqp.solve_qp(torchqp.Diag(ones[0]), -w, A=ones, b=1.0, lb=0.0)
        >>> [round(x, 6) for x in sol.raise_for_status().z.tolist()]
        [1.0, 0.0, 0.0]
    """
    mode, options = resolve_backward(backward), check_settings(settings)
    check_on_failure(on_failure)
    check_elastic(elastic)
    diagonal, problem = prepare(Q, q, G, h, A, b, lb, ub, h_lower)
    solution = Solution._make(_solve(diagonal, problem, mode, options, warm_start, on_failure)[:9])
    if elastic is None:
        return solution

    def solve_again(softened: Sequence[Tensor | None]) -> Solution:
        return Solution._make(_solve(diagonal, softened, mode, options, None, on_failure)[:9])

    return soften(solution, problem, diagonal, float(elastic), solve_again)


def check_on_failure(on_failure: str) -> None:
    """Raises ValueError unless it is "nan" or "best"."""
    if on_failure not in _FAILURES:
        raise ValueError(f"on_failure: expected one of {_FAILURES}, got {on_failure!r}")


def solve_for_z(
    Q: Tensor | Diag,
    q: Tensor,
    G: Tensor | None,
    h: Any,
    A: Tensor | None,
    b: Any,
    lb: Any,
    ub: Any,
    h_lower: Any,
    backward: Backward,
    settings: Settings,
    on_failure: str,
) -> Tensor:
    """The minimiser alone; for layers, which have checked their options when they were made."""
    diagonal, problem = prepare(Q, q, G, h, A, b, lb, ub, h_lower)
    return _solve(diagonal, problem, backward, settings, None, on_failure)[0]


def prepare(
    Q: Any, q: Any, G: Any, h: Any, A: Any, b: Any, lb: Any, ub: Any, h_lower: Any
) -> tuple[bool, list[Any]]:
    """Whether Q is a diagonal, and the problem in the operator's order, numbers made vectors."""
    diagonal = isinstance(Q, Diag)
    matrix = Q.d if diagonal else Q
    for name, value in (("Q", matrix), ("q", q)):
        if not isinstance(value, Tensor):
            expected = "a torch.Tensor or torchqp.Diag" if name == "Q" else "a torch.Tensor"
            raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    problem = [matrix, q, G, h_lower, h, A, b, lb, ub]
    if autocasts(matrix.device):
        problem = [_out_of_half(value) for value in problem]
    matrix, q, G, h_lower, h, A, b, lb, ub = problem
    return diagonal, [
        matrix,
        q,
        G,
        _vector("h_lower", h_lower, "G", G, matrix),
        _vector("h", h, "G", G, matrix),
        A,
        _vector("b", b, "A", A, matrix),
        _vector("lb", lb, "q", q, matrix),
        _vector("ub", ub, "q", q, matrix),
    ]


def _solve(
    diagonal: bool,
    problem: Sequence[Any],
    backward: Backward,
    settings: Settings,
    warm_start: Solution | None,
    on_failure: str,
) -> tuple[Tensor, ...]:
    """Checks everything and calls the operator."""
    tensors = (*problem, *_start(warm_start, problem))
    options = (*settings.resolve(problem[0].dtype), on_failure == "best")
    if is_plain():
        if backward.name == "kkt" or not torch.is_grad_enabled():
            return _solve_plain(solve_exact, tensors, diagonal, options)
        if backward.name == "lpgd":
            return _solve_plain(solve_lpgd, tensors, diagonal, (backward.options(), *options))
    check_problem(*tensors, diagonal=diagonal)
    save_factor = (
        backward.name == "kkt"
        and torch.is_grad_enabled()
        and any(t is not None and t.requires_grad for t in tensors[:9])
    )
    mode = (backward.name, backward.options())
    out: tuple[Tensor, ...] = solve(*tensors, diagonal, *mode, *options, save_factor)
    return out


def _solve_plain(
    operator: Any, tensors: Sequence[Any], diagonal: bool, options: Sequence[Any]
) -> tuple[Tensor, ...]:
    """By an operator whose derivative is in C++.

    For few small problems Python is most of the time, and the operator makes the same checks: here
    they are only for the message of a call that did not pass them.
    """
    try:
        out: tuple[Tensor, ...] = operator(*tensors, diagonal, *options)
    except (TypeError, ValueError, RuntimeError):
        complaint = _complaint(tensors, diagonal)
        if complaint is None:
            raise
        raise complaint from None
    return out


def _complaint(tensors: Sequence[Any], diagonal: bool) -> Exception | None:
    """What is wrong with the arguments, in the words of `check_problem`."""
    try:
        check_problem(*tensors, diagonal=diagonal)
    except (TypeError, ValueError) as error:
        return error
    return None


def _out_of_half(value: Any) -> Any:
    """Half precision to float32, which is what autocast promises for a QP."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def _vector(name: str, value: Any, owner: str, sized: Any, like: Tensor) -> Any:
    """A number or 0-d tensor as a vector [size], as many entries as `owner` asks for."""
    if value is None or (isinstance(value, Tensor) and value.dim()):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number and not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor or a number, got {type(value).__name__}")
    if number and sized is None:
        raise ValueError(f"{name}: expected {owner} along with it, got None")
    dim = -1 if owner == "q" else -2
    if not isinstance(sized, Tensor) or sized.dim() < -dim:
        return value  # the check refuses the owner, by its name
    size = sized.shape[dim]
    return like.new_full((size,), float(value)) if number else value.expand(size)


def _start(warm_start: Solution | None, problem: Sequence[Any]) -> Sequence[Tensor | None]:
    """z0 and the multipliers of the arguments that are there."""
    if warm_start is None:
        return _COLD
    if not isinstance(warm_start, Solution):
        raise TypeError(
            f"warm_start: expected a torchqp.Solution or None, got {type(warm_start).__name__}"
        )
    _, _, G, _, _, A, _, lb, ub = problem
    z, nu, lam, lam_lb, lam_ub = (t.detach() for t in warm_start[:5])
    return (
        z,
        None if A is None else nu,
        None if G is None else lam,
        None if lb is None else lam_lb,
        None if ub is None else lam_ub,
    )
