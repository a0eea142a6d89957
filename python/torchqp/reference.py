"""The oracle: a slow, clear QP solver in plain torch, and the papers' backward formulas.

Nothing here is shared with the C++ kernels, so that agreement means something. `solve_qp` has the
signature of
`torchqp.solve_qp`; it loops over the batch in Python, works in float64 on the CPU whatever the
inputs' dtype and device, and needs no built
extension beyond torch. Use it to test, never to train.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torchqp import _oracle
from torchqp.solution import Solution, Status

_TENSORS = ("Q", "q", "G", "h", "A", "b", "lb", "ub", "h_lower")


def solve_qp(
    Q: Any,
    q: Tensor,
    G: Tensor | None = None,
    h: Tensor | float | None = None,
    A: Tensor | None = None,
    b: Tensor | float | None = None,
    lb: Tensor | float | None = None,
    ub: Tensor | float | None = None,
    *,
    h_lower: Tensor | float | None = None,
    backward: Any = "kkt",
    settings: Any = None,
    warm_start: Any = None,
    on_failure: str = "nan",
) -> Solution:
    r"""Solves QPs one by one: min 1/2 z'Qz + q'z, Az = b, h_lower <= Gz <= h, lb <= z <= ub.

    Mehrotra's predictor-corrector on the full KKT system, then Newton steps on the active set, to
    about 1e-13. The result is
    differentiable by plain autograd, to any order, in every input and through z and all
    multipliers: one exact Newton
    step w + K(theta)^-1 (r(theta) - K(theta) w) on the active set, in torch operations. Where K is
    singular (degenerate
    active sets) its pseudo-inverse is held constant and only first derivatives are right.

    Args:
        Q: [*, n, n], or torchqp.Diag with d [*, n]; only (Q + Q')/2 counts.
        q: [*, n].
        G: [*, m, n]; needs h, h_lower or both.
        h: [*, m] or a number, entries >= 1e20 are no constraint.
        A: [*, p, n]; needs b.
        b: [*, p] or a number.
        lb: [*, n] or a number, entries <= -1e20 are no constraint.
        ub: [*, n] or a number, entries >= 1e20 are no constraint.
        h_lower: [*, m] or a number, entries <= -1e20 are no constraint.
        backward: "kkt" or a KKT object; the other modes are in `smoothed_gradients` and
            `lpgd_gradients`.
        settings: eps_abs, eps_rel (infinity norm, `kkt_residuals`) and max_iter are read; they
            decide the status.
        warm_start: ignored.
        on_failure: "nan" or "best", what a member with status >= 2 returns.

    Returns:
        Solution, as `torchqp.solve_qp`. A member with status >= 2 is NaN (or its last iterate)
        with zero gradient.

    Raises:
        ValueError: a backward mode other than KKT, or an empty q.

    Source: Mehrotra, SIAM J. Optim. 2 (1992); implicit step: Amos and Kolter, OptNet (2017), eq. 6.

    Example:
        >>> import torch
        >>> from torchqp import reference
        >>> q = torch.tensor([-1.0, 2.0], dtype=torch.float64)
        >>> sol = reference.solve_qp(torch.eye(2, dtype=torch.float64), q, lb=0.0)
        >>> sol.z.tolist()
        [1.0, 0.0]
    """
    if backward != "kkt" and type(backward).__name__ != "KKT":
        raise ValueError(f"backward: the reference knows 'kkt' only, got {backward!r}")
    diagonal = hasattr(Q, "d")
    n, m, p = q.shape[-1], 0 if G is None else G.shape[-2], 0 if A is None else A.shape[-2]
    h, h_lower, b = _spread(h, m, q), _spread(h_lower, m, q), _spread(b, p, q)
    lb, ub = _spread(lb, n, q), _spread(ub, n, q)
    data = dict(
        zip(_TENSORS, (Q.d if diagonal else Q, q, G, h, A, b, lb, ub, h_lower), strict=True)
    )
    core = {"Q": 1 if diagonal else 2, "G": 2, "A": 2}
    batch = torch.broadcast_shapes(
        *(t.shape[: t.dim() - core.get(k, 1)] for k, t in data.items() if t is not None)
    )

    def flatten(name: str, tensor: Tensor) -> Tensor:
        shape = tensor.shape[tensor.dim() - core.get(name, 1) :]
        return tensor.cpu().double().expand(batch + shape).reshape(math.prod(batch), *shape)

    flat = {k: None if t is None else flatten(k, t) for k, t in data.items()}
    members = []
    for i in range(math.prod(batch)):
        member: dict[str, Any] = {k: None if t is None else t[i] for k, t in flat.items()}
        if diagonal:
            member["Q"] = torch.diag(member["Q"])
        members.append(_solve_member(member, settings, on_failure, q.dtype))
    sizes = {
        "z": n,
        "nu": p,
        "lam": m,
        "lam_lb": n * (lb is not None),
        "lam_ub": n * (ub is not None),
        "s": m,
    }
    out = {}
    for key, size in sizes.items():
        rows = [member[key] for member in members]
        stacked = (
            torch.stack(rows)
            if rows
            else sum(
                (t.sum() for t in flat.values() if t is not None),
                torch.zeros((0, size), dtype=torch.float64),
            )
        )
        out[key] = stacked.reshape((*batch, size)).to(q)
    for key in ("status", "iterations"):
        counts = torch.tensor([x[key] for x in members], dtype=torch.int32, device=q.device)
        out[key] = counts.reshape(batch)
    residuals = [x["residuals"] for x in members]
    out["residuals"] = (
        (torch.stack(residuals) if residuals else torch.zeros(0, 4)).reshape((*batch, 4)).to(q)
    )
    return Solution(**out)


def kkt_residuals(problem: dict[str, Any], solution: Any) -> tuple[Tensor, Tensor]:
    """Residuals of the optimality conditions in float64, from the data alone.

    Args:
        problem: Q, q and any of G, h, A, b, lb, ub, h_lower; leading dimensions broadcast.
        solution: has z, nu, lam, lam_lb, lam_ub.

    Returns:
        (residuals, sizes), each [*, 4]: infinity norms of stationarity, primal violation, wrong
        multiplier signs and the duality gap; and of each the largest term it is made of, infinity
        norm. Relative residuals are residuals / (1 + sizes).
    """
    data: dict[str, Any] = {k: problem.get(k) for k in _TENSORS}
    Q = data["Q"]
    Q = torch.diag_embed(Q.d.double()) if hasattr(Q, "d") else (Q.double() + Q.mT.double()) / 2
    G, h, A, b, lb, ub, h_lower = (
        None if data[k] is None else data[k].double() for k in _TENSORS[2:]
    )
    z, nu, lam, lam_lb, lam_ub = (
        getattr(solution, k).double() for k in ("z", "nu", "lam", "lam_lb", "lam_ub")
    )
    Qz = _times(Q, z)
    stationarity: list[Tensor] = [Qz, data["q"].double()]
    gap: list[Tensor] = [(z * part).sum(-1) for part in stationarity]
    primal: list[Tensor] = []
    sign: list[Tensor] = []
    violation: list[Tensor] = []
    wrong: list[Tensor] = []
    zero = torch.zeros_like(z[..., :1])
    if A is not None and b is not None and A.shape[-2]:
        stationarity.append(_times(A.mT, nu))
        primal += [_times(A, z), b]
        violation.append((primal[-2] - b).abs())
        gap.append((b * nu).sum(-1))
    sides = []  # value, its upper and lower limit, upper and lower multiplier (both >= 0)
    if G is not None and G.shape[-2]:
        stationarity.append(_times(G.mT, lam))
        sides.append((_times(G, z), h, h_lower, lam.clamp(min=0), (-lam).clamp(min=0)))
        sign.append(lam)
    if lb is not None or ub is not None:
        upper = lam_ub if ub is not None else torch.zeros_like(z)
        lower = lam_lb if lb is not None else torch.zeros_like(z)
        stationarity += [upper, -lower]
        sides.append((z, ub, lb, upper, lower))
        sign += [upper, lower]
        wrong += [(-upper).clamp(min=0), (-lower).clamp(min=0)]
    for value, high, low, mu_high, mu_low in sides:
        primal.append(value)
        for limit, mu, direction in ((high, mu_high, 1.0), (low, mu_low, -1.0)):
            if limit is None:
                wrong.append(mu.abs())
                continue
            there = limit.abs() < _oracle.INFINITY
            limit = torch.where(there, limit, 0.0)
            primal.append(limit + 0 * value)
            violation.append(
                torch.where(there, direction * (value - limit), 0.0 * value).clamp(min=0)
            )
            wrong.append(torch.where(there, 0.0 * mu, mu.abs()))
            gap.append(direction * (limit * mu).sum(-1))
    residuals = [
        torch.as_tensor(sum(stationarity)).abs().amax(-1),
        _largest(violation or [zero]),
        _largest(wrong or [zero]),
        torch.as_tensor(sum(gap)).abs(),
    ]
    sizes = [
        _largest(stationarity),
        _largest(primal or [zero]),
        _largest(sign or [zero]),
        _largest([g.unsqueeze(-1) for g in gap]),
    ]
    shape = z.shape[:-1]
    return (
        torch.stack([r.expand(shape) for r in residuals], -1),
        torch.stack([g.expand(shape) for g in sizes], -1),
    )


def smoothed_gradients(
    problem: dict[str, Tensor],
    z: Tensor,
    nu: Tensor,
    lam: Tensor,
    g: Tensor,
    *,
    radius: float = math.inf,
) -> dict[str, Tensor]:
    """Smoothed-set backward of one QP, Q > 0, no bounds: adjoint of its aggregated constraint.

    a = G'lam + A'nu, mu_d = -(a'Q^-1 g)/(a'Q^-1 a), d_z = -Q^-1 (g + a mu_d); with a finite
    radius r, Q^-1 is (Q + (||a||/r) I)^-1. Source: Veviurko et al. (2307.16304), Algorithm 1,
    carried over to any Q and all parameters.

    Args:
        problem: Q [n, n], q [n] and any of G [m, n], h, A [p, n], b.
        z: [n], the solution.
        nu: [p], multipliers of Az = b.
        lam: [m], multipliers of Gz <= h.
        g: [n] cotangent of z.
        radius: of the ball that replaces the feasible set at z.

    Returns:
        Gradients named as the parameters; also "d_z" and "a".
    """
    n = z.shape[-1]
    Q = (problem["Q"] + problem["Q"].mT) / 2
    a = torch.zeros_like(z)
    if problem.get("G") is not None:
        a = a + problem["G"].mT @ lam
    if problem.get("A") is not None:
        a = a + problem["A"].mT @ nu
    M = torch.linalg.inv(Q + (a.norm() / radius) * torch.eye(n, dtype=z.dtype, device=z.device))
    interior = a.abs().max() <= 1e-10 * (1 + problem["q"].abs().max())
    mu_d = z.new_zeros(()) if interior else -(a @ M @ g) / (a @ M @ a)
    d_z = -M @ (g + a * mu_d)
    grads = {"q": d_z, "Q": (torch.outer(d_z, z) + torch.outer(z, d_z)) / 2, "d_z": d_z, "a": a}
    grads["G"], grads["h"] = torch.outer(lam, d_z + mu_d * z), -mu_d * lam
    grads["A"], grads["b"] = torch.outer(nu, d_z + mu_d * z), -mu_d * nu
    return grads


def lpgd_gradients(
    problem: dict[str, Any],
    cotangents: dict[str, Tensor],
    *,
    tau: float,
    side: str = "average",
    rho: float = 0.0,
) -> dict[str, Tensor]:
    """LPGD backward of a batch: differences of the Lagrangian's gradients, by fresh solves.

    q -> q + t g_z - rho z*, Q -> Q + rho I, b -> b - t g_nu, h -> h - t g_lam for t = +tau (lower)
    and -tau (upper).
    Source: Paulus et al., LPGD (2407.05920); diffcp's convention for rho.

    Args:
        problem: Q [*, n, n], q [*, n] and any of G, h, A, b (one-sided rows, no bounds), all of
            one batch shape.
        cotangents: "z" [*, n] and optionally "nu" [*, p], "lam" [*, m].
        tau: absolute step.
        side: "lower" (+tau against 0), "upper" (0 against -tau) or "average" (+tau against -tau).
        rho: proximal term around the solution.

    Returns:
        Gradients named as the parameters, one per member (no reduction over shared ones).
    """
    base = solve_qp(**problem)
    n = base.z.shape[-1]

    def at(t: float) -> Solution:
        if t == 0:
            return base
        moved = dict(problem)
        moved["Q"] = problem["Q"] + rho * torch.eye(n, dtype=base.z.dtype, device=base.z.device)
        moved["q"] = problem["q"] + t * cotangents["z"] - rho * base.z
        for limit, name in (("b", "nu"), ("h", "lam")):
            if cotangents.get(name) is not None:
                moved[limit] = problem[limit] - t * cotangents[name]
        return solve_qp(**moved)

    def phi(sol: Solution) -> dict[str, Tensor]:
        def outer(u: Tensor, v: Tensor) -> Tensor:
            return u.unsqueeze(-1) * v.unsqueeze(-2)

        return {
            "q": sol.z,
            "Q": outer(sol.z, sol.z) / 2,
            "A": outer(sol.nu, sol.z),
            "b": -sol.nu,
            "G": outer(sol.lam, sol.z),
            "h": -sol.lam,
        }

    first, second = {"lower": (tau, 0.0), "upper": (0.0, -tau), "average": (tau, -tau)}[side]
    high, low = phi(at(first)), phi(at(second))
    return {k: (high[k] - low[k]) / (first - second) for k in high}


def _solve_member(
    data: dict[str, Any], settings: Any, on_failure: str, dtype: torch.dtype
) -> dict[str, Any]:
    eps = 1e-4 if dtype == torch.float32 else 1e-8
    eps_abs = _given(settings, "eps_abs", eps)
    eps_rel = _given(settings, "eps_rel", eps)
    max_iter = _given(settings, "max_iter", 100)
    plain: dict[str, Any] = {k: None if t is None else t.detach() for k, t in data.items()}
    anchor = sum((t * 0).sum() for t in data.values() if t is not None)
    n = plain["q"].shape[0]
    status, iterations = _oracle.check(plain), 0
    residuals = torch.full((4,), math.nan, dtype=torch.float64)
    values: dict[str, Tensor] = {}
    if status == Status.SOLVED:
        problem = _oracle.standard(plain)
        with torch.no_grad():
            w, iterations = _oracle.interior_point(problem, max_iter)
            w, active = _oracle.polish(problem, *w)
        values = _oracle.unpack(plain, problem, *w)
        found, sizes = kkt_residuals(plain, _Namespace(values))
        residuals = found / (1 + sizes)
        if bool((found <= eps_abs + eps_rel * sizes).all()):
            status = Status.SOLVED
        elif _oracle.is_infeasible(problem):
            status = Status.PRIMAL_INFEASIBLE
        elif _oracle.is_unbounded(problem):
            status = Status.DUAL_INFEASIBLE
        elif bool((found <= 1e3 * (eps_abs + eps_rel * sizes)).all()):
            status = Status.SOLVED_INACCURATE
        else:
            status = Status.MAX_ITERATIONS
    if status <= Status.SOLVED_INACCURATE:
        if torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in data.values()
        ):
            w = _oracle.implicit_step(_oracle.standard(data, w[1]), w, active)
            values = _oracle.unpack(data, problem, *w)
        values = {
            k: v + torch.where(torch.zeros((), dtype=torch.bool), anchor, 0.0)
            for k, v in values.items()
        }
    else:
        m, p = (0 if data[k] is None else data[k].shape[0] for k in ("G", "A"))
        sizes_of = {
            "z": n,
            "nu": p,
            "lam": m,
            "lam_lb": n * (data["lb"] is not None),
            "s": m,
            "lam_ub": n * (data["ub"] is not None),
        }
        fill = {
            k: torch.full((size,), math.nan, dtype=torch.float64) for k, size in sizes_of.items()
        }
        if on_failure == "best" and values:
            fill = {k: values[k].detach() for k in fill}
        never = torch.zeros((), dtype=torch.bool)
        values = {k: torch.where(never, anchor, v) for k, v in fill.items()}
    return {**values, "status": int(status), "iterations": iterations, "residuals": residuals}


class _Namespace:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


def _given(settings: Any, name: str, default: Any) -> Any:
    value = getattr(settings, name, None)
    return default if value is None else value


def _spread(value: Any, size: int, like: Tensor) -> Any:
    """A number or 0-d tensor as a vector."""
    if value is None or (isinstance(value, Tensor) and value.dim()):
        return value
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(size)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _largest(parts: list[Tensor]) -> Tensor:
    """Infinity norm over all parts, NaN if any entry is."""
    parts = [part.abs().amax(-1) for part in parts if part.shape[-1]]
    largest = parts[0]
    for part in parts[1:]:
        largest = torch.maximum(largest, part)
    return largest
