"""Numerics of the reference: one problem min 1/2 z'Qz + q'z, Ez = e, Cz <= d, in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchqp.solution import Status

INFINITY = 1e20  # magnitudes from here on are no limit

Point = tuple[Tensor, Tensor, Tensor]  # z, multipliers of E, multipliers of C


@dataclass
class Standard:
    """A problem in standard form; `sources` says where each line comes from.

    One (argument, index, sign) a line: those of E after A's own, then those of C.
    """

    Q: Tensor
    q: Tensor
    E: Tensor
    e: Tensor
    C: Tensor
    d: Tensor
    sources: list[tuple[str, int, int]]


def interior_point(problem: Standard, max_iter: int) -> tuple[Point, int]:
    """Mehrotra's predictor-corrector, Ruiz-scaled. Returns the best point and the iterations."""
    scaled, D, E_scale, C_scale = _equilibrate(problem)
    Q, q, E, e, C, d = scaled.Q, scaled.q, scaled.E, scaled.e, scaled.C, scaled.d
    m = d.shape[0]
    z, nu, lam = _newton(scaled, torch.ones(m, dtype=q.dtype))(-q, e, d)
    s = -lam
    s = s + max(0.0, -1.5 * float(s.min())) + 1e-2 if m else s
    lam = lam + max(0.0, -1.5 * float(lam.min())) + 1e-2 if m else lam
    best, best_size, since, count = (z, nu, lam), torch.inf, 0, 0
    for count in range(max_iter + 1):
        r_z = Q @ z + q + E.mT @ nu + C.mT @ lam
        r_e, r_c = E @ z - e, C @ z + s - d
        mu = float(s @ lam) / m if m else 0.0
        size = max(
            _norm(r_z) / (1 + _norm(q, Q @ z, E.mT @ nu, C.mT @ lam)),
            _norm(r_e, r_c) / (1 + _norm(e, d, E @ z, C @ z, s)),
            mu / (1 + abs(float(q @ z)) + float(z @ Q @ z)),
        )
        if not size < torch.inf or _norm(z, nu, lam) > 1e14:
            break
        if size < 0.9 * best_size:
            best, best_size, since = (z, nu, lam), size, 0
        elif (since := since + 1) > 15 or (best_size < 1e-9 and since > 4):
            break
        if best_size <= 1e-13 or count == max_iter or (m == 0 and count > 3):
            break
        solve = _newton(scaled, s / lam)
        # Predictor: aim at mu = 0. Its step length decides how much centring the corrector asks
        # for.
        dz, dnu, dlam = solve(-r_z, -r_e, -r_c + s)
        ds = -r_c - C @ dz
        step = min(_step(s, ds), _step(lam, dlam))
        if m:
            mu_affine = float((s + step * ds) @ (lam + step * dlam)) / m
            target = (mu_affine / mu) ** 3 * mu if mu > 0 else 0.0
            dz, dnu, dlam = solve(-r_z, -r_e, -r_c + s + (ds * dlam - target) / lam)
            ds = -r_c - C @ dz
            step = min(1.0, 0.995 * min(_step(s, ds), _step(lam, dlam)))
        z, nu, s, lam = z + step * dz, nu + step * dnu, s + step * ds, lam + step * dlam
        s, lam = s.clamp(min=1e-300), lam.clamp(min=1e-300)
    z, nu, lam = best
    return (D * z, E_scale * nu, C_scale * lam), count


def polish(problem: Standard, z: Tensor, nu: Tensor, lam: Tensor) -> tuple[Point, Tensor]:
    """Newton steps on the active set {lam > slack}, kept only if the residual falls.

    The least-norm correction from the interior point keeps positive multipliers positive where
    active rows depend on each other.
    """
    scaled, D, E_scale, C_scale = _equilibrate(problem)
    start = (z / D, nu / E_scale, lam / C_scale)
    slack = scaled.d - scaled.C @ start[0]
    active = start[2] > slack
    best, best_size, best_active = start, _violation(scaled, *start), active
    seen = set()
    for _ in range(30):
        if tuple(active.tolist()) in seen:
            break
        seen.add(tuple(active.tolist()))
        w = (start[0], start[1], torch.where(active, start[2], 0.0))
        for _ in range(3):
            w = _correct(scaled, active, *w)
        size = _violation(scaled, *w)
        if size < best_size:
            best, best_size, best_active = w, size, active
        slack = scaled.d - scaled.C @ w[0]
        wrong = w[2] < -1e-11 * (1 + _norm(w[2]))
        broken = slack < -1e-11 * (1 + _norm(scaled.d))
        if not bool(wrong.any() or broken.any()):
            break
        active = (active & ~wrong) | broken
    z, nu, lam = best
    lam = torch.where(best_active, lam, 0.0).clamp(min=0)
    if _violation(scaled, z, nu, lam) > 10 * best_size + 1e-15:
        lam = best[2].clamp(min=0)
    return (D * z, E_scale * nu, C_scale * lam), best_active


def implicit_step(problem: Standard, w: Point, active: Tensor) -> Point:
    """The solution map on a fixed active set: w + K^-1 (r - K w), w held constant."""
    z, nu, lam = w
    K, r = _active_system(problem, active)
    fixed = torch.cat([z, nu, lam[active]])
    with torch.no_grad():
        scale = _ruiz(K)
        S = scale[:, None] * K * scale
        values = torch.linalg.eigvalsh(S).abs()
        regular = bool(values.min() > 1e-11 * values.max()) if values.numel() else True
    if regular:
        moved = fixed + scale * torch.linalg.solve(
            scale[:, None] * K * scale, scale * (r - K @ fixed)
        )
    else:
        inverse = torch.linalg.pinv(S, rtol=1e-10, hermitian=True)
        moved = fixed + scale * (inverse @ (scale * (r - K @ fixed)))
    # The value stays the polished one: the step's own rounding must not reach the caller.
    moved = fixed + (moved - moved.detach())
    n, p = z.shape[0], nu.shape[0]
    index = active.nonzero().squeeze(-1)
    return moved[:n], moved[n : n + p], torch.zeros_like(lam).index_put((index,), moved[n + p :])


def is_infeasible(problem: Standard) -> bool:
    """Whether the least t with |Ez - e| <= t, Cz - d <= t (rows scaled) is above rounding."""
    n = problem.q.shape[0]
    E, e, C, d = problem.E, problem.e, problem.C, problem.d
    rows, limits = torch.cat([E, -E, C]), torch.cat([e, -e, d])
    norms = rows.abs().sum(-1).clamp(min=1e-300)
    empty = rows.abs().sum(-1) == 0
    if bool((limits[empty] < -1e-9).any()):
        return True
    rows, limits = (rows / norms[:, None])[~empty], (limits / norms)[~empty]
    if not rows.shape[0]:
        return False
    lines = torch.cat([torch.cat([rows, -torch.ones_like(rows[:, :1])], 1), _unit(n + 1, n, -1.0)])
    linear = Standard(
        torch.zeros(n + 1, n + 1, dtype=E.dtype),
        _unit(n + 1, n, 1.0)[0],
        E.new_zeros(0, n + 1),
        e.new_zeros(0),
        lines,
        torch.cat([limits, limits.new_zeros(1)]),
        [],
    )
    (point, _, _), _ = interior_point(linear, 200)
    return float(point[n]) > 1e-8 * (1 + _norm(limits))


def is_unbounded(problem: Standard) -> bool:
    """Whether some |v| <= 1 has Qv = 0, Ev = 0, Cv <= 0 and q'v < 0."""
    n = problem.q.shape[0]
    identity = torch.eye(n, dtype=problem.q.dtype)
    E, C = torch.cat([problem.Q, problem.E]), problem.C
    E, C = (M / M.abs().sum(-1, keepdim=True).clamp(min=1e-300) for M in (E, C))
    size = _norm(problem.q)
    linear = Standard(
        torch.zeros_like(problem.Q),
        problem.q / max(size, 1e-300),
        E,
        E.new_zeros(E.shape[0]),
        torch.cat([C, identity, -identity]),
        torch.cat([C.new_zeros(C.shape[0]), C.new_ones(2 * n)]),
        [],
    )
    (point, _, _), _ = interior_point(linear, 200)
    return size > 0 and float(problem.q @ point) < -1e-7 * size


def check(data: dict[str, Any]) -> Status:
    """Faults that are visible before any iteration."""
    present = {k: t for k, t in data.items() if t is not None}
    if any(bool(t.isnan().any()) for t in present.values()):
        return Status.INVALID_INPUT
    if any(bool(t.isinf().any()) for k, t in present.items() if k in ("Q", "q", "G", "A", "b")):
        return Status.INVALID_INPUT
    for low, high in (("h_lower", "h"), ("lb", "ub")):
        if low in present and high in present and bool((present[low] > present[high]).any()):
            return Status.INVALID_INPUT
        if low in present and bool((present[low] >= INFINITY).any()):
            return Status.PRIMAL_INFEASIBLE
        if high in present and bool((present[high] <= -INFINITY).any()):
            return Status.PRIMAL_INFEASIBLE
    eigenvalues = torch.linalg.eigvalsh((data["Q"] + data["Q"].mT) / 2)
    if bool(eigenvalues[0] < -1e-5 * eigenvalues.abs().max()):
        return Status.NOT_CONVEX
    return Status.SOLVED


def standard(data: dict[str, Any], nu: Tensor | None = None) -> Standard:
    """Standard form; two equal limits differentiate through the side that `nu` says holds."""
    q = data["q"]
    n = q.shape[0]
    E, e, C, d = [], [], [], []
    if data["A"] is not None:
        E, e = [data["A"]], [data["b"]]
    equal, unequal = [], []
    identity = torch.eye(n, dtype=q.dtype)
    for name, matrix, low, high in (("G", data["G"], "h_lower", "h"), ("z", identity, "lb", "ub")):
        low, high = data[low], data[high]
        for i in range(0 if matrix is None or (low is None and high is None) else matrix.shape[0]):
            has_low = low is not None and bool(low[i] > -INFINITY)
            has_high = high is not None and bool(high[i] < INFINITY)
            if has_low and has_high and bool(low[i] == high[i]):
                equal.append((name, i, 0))
                line = sum(x.shape[0] for x in E)
                E.append(matrix[i : i + 1])
                e.append((low if nu is None or nu[line] <= 0 else high)[i : i + 1])
                continue
            for there, sign, limit in ((has_high, 1, high), (has_low, -1, low)):
                if there:
                    unequal.append((name, i, sign))
                    C.append(sign * matrix[i : i + 1])
                    d.append(sign * limit[i : i + 1])
    empty, none = q.new_zeros((0, n)), q.new_zeros(0)
    return Standard(
        (data["Q"] + data["Q"].mT) / 2,
        q,
        torch.cat([*E, empty]),
        torch.cat([*e, none]),
        torch.cat([*C, empty]),
        torch.cat([*d, none]),
        equal + unequal,
    )


def unpack(
    data: dict[str, Any], problem: Standard, z: Tensor, nu: Tensor, lam: Tensor
) -> dict[str, Tensor]:
    """Multipliers of the caller's arguments from those of the standard form; G's slack."""
    n, p, m = z.shape[0], *(0 if data[k] is None else data[k].shape[0] for k in ("A", "G"))
    rows, lower, upper = list(z.new_zeros(m)), list(z.new_zeros(n)), list(z.new_zeros(n))
    for (name, i, sign), mu in zip(problem.sources, torch.cat([nu[p:], lam]), strict=True):
        if name == "G":
            rows[i] = rows[i] + (mu if sign >= 0 else -mu)
        elif sign:
            (upper if sign > 0 else lower)[i] = mu
        else:
            upper[i], lower[i] = mu.clamp(min=0), (-mu).clamp(min=0)
    slack = z.new_full((m,), torch.inf)
    if m and data["h"] is not None:
        slack = torch.where(data["h"] < INFINITY, data["h"] - data["G"] @ z, slack)
    return {
        "z": z,
        "nu": nu[:p],
        "lam": torch.stack(rows) if rows else z.new_zeros(0),
        "s": slack,
        "lam_lb": torch.stack(lower) if data["lb"] is not None else z.new_zeros(0),
        "lam_ub": torch.stack(upper) if data["ub"] is not None else z.new_zeros(0),
    }


def _newton(problem: Standard, weight: Tensor) -> Callable[[Tensor, Tensor, Tensor], Point]:
    """Solver of [Q E' C'; E 0 0; C 0 -diag(weight)]: regularised LU, undone by refinement."""
    Q, E, C = problem.Q, problem.E, problem.C
    n, p, m = Q.shape[0], E.shape[0], C.shape[0]
    K = torch.zeros(n + p + m, n + p + m, dtype=Q.dtype)
    K[:n, :n], K[n : n + p, :n], K[n + p :, :n] = Q, E, C
    K[:n, n : n + p], K[:n, n + p :] = E.mT, C.mT
    K[n + p :, n + p :] -= torch.diag(weight)
    shift = torch.full((n + p + m,), 1e-11, dtype=Q.dtype)
    shift[n:] *= -1
    factor, pivots, _ = torch.linalg.lu_factor_ex(K + torch.diag(shift))

    def solve(r_z: Tensor, r_e: Tensor, r_c: Tensor) -> Point:
        rhs = torch.cat([r_z, r_e, r_c]).unsqueeze(-1)
        x = torch.linalg.lu_solve(factor, pivots, rhs)
        for _ in range(3):
            x = x + torch.linalg.lu_solve(factor, pivots, rhs - K @ x)
        x = x.squeeze(-1)
        return x[:n], x[n : n + p], x[n + p :]

    return solve


def _active_system(problem: Standard, active: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.cat([problem.E, problem.C[active]])
    corner = problem.Q.new_zeros((rows.shape[0], rows.shape[0]))
    K = torch.cat([torch.cat([problem.Q, rows.mT], 1), torch.cat([rows, corner], 1)])
    return K, torch.cat([-problem.q, problem.e, problem.d[active]])


def _correct(problem: Standard, active: Tensor, z: Tensor, nu: Tensor, lam: Tensor) -> Point:
    K, r = _active_system(problem, active)
    w = torch.cat([z, nu, lam[active]])
    rest = (r - K @ w).unsqueeze(-1)
    factor, pivots, info = torch.linalg.lu_factor_ex(K)
    diagonal = factor.diagonal().abs()
    if int(info) or (diagonal.numel() and float(diagonal.min()) < 1e-9 * float(diagonal.max())):
        step = torch.linalg.lstsq(K, rest, rcond=1e-11, driver="gelsd").solution
    else:
        step = torch.linalg.lu_solve(factor, pivots, rest)
    w = w + step.squeeze(-1)
    n, p = z.shape[0], nu.shape[0]
    lam = torch.zeros_like(lam)
    lam[active] = w[n + p :]
    return w[:n], w[n : n + p], lam


def _violation(problem: Standard, z: Tensor, nu: Tensor, lam: Tensor) -> float:
    Qz, Ez, Cz = problem.Q @ z, problem.E @ z, problem.C @ z
    slack = problem.d - Cz
    stationarity = _norm(Qz + problem.q + problem.E.mT @ nu + problem.C.mT @ lam) / (
        1 + _norm(Qz, problem.q)
    )
    primal = _norm(Ez - problem.e, slack.clamp(max=0)) / (1 + _norm(problem.e, problem.d, z))
    sign = _norm(lam.clamp(max=0)) / (1 + _norm(lam))
    gap = _norm(lam * slack) / (1 + abs(float(z @ Qz)) + abs(float(problem.q @ z)))
    return max(stationarity, primal, sign, gap)


def _ruiz(K: Tensor, passes: int = 15) -> Tensor:
    scale = torch.ones(K.shape[0], dtype=K.dtype)
    for _ in range(passes if K.shape[0] else 0):
        size = (scale[:, None] * K * scale).abs().amax(-1)
        scale = scale / torch.where(size > 0, size, 1.0).sqrt()
    return scale.clamp(1e-6, 1e6)


def _equilibrate(problem: Standard) -> tuple[Standard, Tensor, Tensor, Tensor]:
    n, p = problem.q.shape[0], problem.e.shape[0]
    K, _ = _active_system(problem, torch.ones(problem.d.shape[0], dtype=torch.bool))
    scale = _ruiz(K)
    D, R, S = scale[:n], scale[n : n + p], scale[n + p :]
    return (
        Standard(
            D[:, None] * problem.Q * D,
            D * problem.q,
            R[:, None] * problem.E * D,
            R * problem.e,
            S[:, None] * problem.C * D,
            S * problem.d,
            problem.sources,
        ),
        D,
        R,
        S,
    )


def _step(value: Tensor, change: Tensor) -> float:
    ratio = torch.where(change < 0, -value / change, torch.inf)
    return min(1.0, float(ratio.min())) if value.numel() else 1.0


def _norm(*parts: Tensor) -> float:
    largest = 0.0
    for part in parts:
        if part.numel():
            value = float(part.abs().max())
            largest = value if not value <= largest else largest
    return largest


def _unit(n: int, i: int, value: float) -> Tensor:
    row = torch.zeros(1, n, dtype=torch.float64)
    row[0, i] = value
    return row
