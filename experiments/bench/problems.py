"""Problems of the layer benchmark, their exact solution and gradient, and the error measures.

Everything here is float64. The exact solution works on one member at a time with numpy and scipy:
batched ``torch.linalg.solve`` and ``lu_factor`` hang for n = 200 on two threads in torch 2.11's CPU
wheel.

Problem: min 1/2 z'Qz + q'z  s.t.  Gz <= h, Az = b, with multipliers lam >= 0 and nu.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch

import torchqp

PARAMETERS = ("Q", "q", "G", "h", "A", "b")
REGULAR_MARGIN = 1e-6  # strict-complementarity margin below which a gradient is not compared
DEFAULT_CASES = (
    (10, 10, 0, 512),
    (20, 20, 0, 512),
    (50, 50, 10, 128),
    (100, 100, 0, 128),
    (100, 100, 50, 128),
    (200, 200, 50, 32),
)


@dataclass(frozen=True)
class Problem:
    """A batch of QPs: Q [B,n,n], q [B,n], G [B,m,n], h [B,m], A [B,p,n], b [B,p], weight [B,n].

    ``weight`` is w of the loss w'z whose gradient is asked for.
    """

    Q: torch.Tensor
    q: torch.Tensor
    G: torch.Tensor
    h: torch.Tensor
    A: torch.Tensor
    b: torch.Tensor
    weight: torch.Tensor

    @property
    def batch(self) -> int:
        return self.q.shape[0]

    def head(self, batch: int) -> Problem:
        """The first ``batch`` members."""
        return Problem(*(getattr(self, name)[:batch] for name in (*PARAMETERS, "weight")))

    def to(self, device: str) -> Problem:
        """The same problem on a device."""
        return Problem(*(getattr(self, name).to(device) for name in (*PARAMETERS, "weight")))

    def arguments(self) -> tuple[torch.Tensor | None, ...]:
        """(Q, q, G, h, A, b), the last two None when there are no equalities."""
        values = [getattr(self, name) for name in PARAMETERS]
        return tuple(values if self.A.shape[1] else [*values[:4], None, None])

    def numpy(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name).numpy() for name in (*PARAMETERS, "weight")}


def operator_outputs(problem: Problem) -> list[torch.Tensor]:
    """All outputs of the operator `solve`, the factor for `kkt_solve` among them."""
    Q, q, G, h, A, b = problem.arguments()
    settings = torchqp.Settings().resolve(q.dtype)
    data = (Q, q, G, None, h, A, b, None, None, *[None] * 5)
    outputs: list[torch.Tensor] = torch.ops.torchqp.solve(
        *data, False, "kkt", [], *settings, False, True
    )
    return outputs


def optnet(n: int, m: int, p: int, batch: int, seed: int = 0) -> Problem:
    """The recipe of OptNet's profile script (Amos and Kolter 2017), equalities added.

    Q = UU' + 1e-3 I with U ~ U(0,1); G, A, q, z0 ~ N(0,1); h = G z0 + U(0,1); b = A z0. Every
    member has its own data. The condition number of Q is about 1e4 (n = 10) to 1e7 (n = 200).
    """
    rng = np.random.default_rng([seed, n, m, p])
    U = rng.uniform(size=(batch, n, n))
    Q = U @ U.transpose(0, 2, 1) + 1e-3 * np.eye(n)
    q = rng.standard_normal((batch, n))
    G = rng.standard_normal((batch, m, n))
    A = rng.standard_normal((batch, p, n))
    z0 = rng.standard_normal((batch, n, 1))
    h = (G @ z0)[..., 0] + rng.uniform(size=(batch, m))
    b = (A @ z0)[..., 0]
    weight = rng.standard_normal((batch, n))
    return Problem(*(torch.from_numpy(np.ascontiguousarray(v)) for v in (Q, q, G, h, A, b, weight)))


def shared_matrices(problem: Problem, seed: int = 0) -> Problem:
    """The same sizes with the first member's Q, G and A for all; h and b by the recipe.

    The matrices are copied for every member: the data of a layer that cannot share them. One that
    can takes ``Q[0]``, ``G[0]`` and ``A[0]``.
    """
    batch, n = problem.q.shape
    m, p = problem.h.shape[1], problem.b.shape[1]
    rng = np.random.default_rng([seed, n, m, p, 1])
    Q, G, A = (M[:1].expand(batch, -1, -1).contiguous() for M in (problem.Q, problem.G, problem.A))
    z0 = torch.from_numpy(rng.standard_normal((batch, n, 1)))
    h = (G @ z0)[..., 0] + torch.from_numpy(rng.uniform(size=(batch, m)))
    return Problem(Q, problem.q, G, h, A, (A @ z0)[..., 0], problem.weight)


def perturbed(problem: Problem, share: float, seed: int = 0) -> Problem:
    """Moves q by ``share`` of its norm, each member in a random direction of its own."""
    rng = np.random.default_rng([seed, *problem.q.shape, 2])
    step = torch.from_numpy(rng.standard_normal(tuple(problem.q.shape)))
    length = share * problem.q.norm(dim=1, keepdim=True) / step.norm(dim=1, keepdim=True)
    return replace(problem, q=problem.q + length * step)


@dataclass(frozen=True)
class Reference:
    """Exact solutions and gradients of w'z, and how far each member is from a kink.

    margin [B]: min over rows of max(lam_i, slack_i). verified [B]: the active set gives a KKT
    point, hence the solution. regular [B]: verified and margin >= REGULAR_MARGIN.
    """

    z: np.ndarray
    gradients: dict[str, np.ndarray]
    margin: np.ndarray
    verified: np.ndarray

    @property
    def regular(self) -> np.ndarray:
        return self.verified & (self.margin >= REGULAR_MARGIN)


def daqp_member(data: dict[str, np.ndarray], i: int) -> tuple[np.ndarray, np.ndarray, int]:
    """DAQP's z, multipliers (equalities first) and exit flag (1: optimal) of member i."""
    import daqp

    p, m = data["b"].shape[1], data["h"].shape[1]
    rows = np.concatenate([data["A"][i], data["G"][i]])
    upper = np.concatenate([data["b"][i], data["h"][i]])
    lower = np.concatenate([data["b"][i], np.full(m, -1e30)])
    sense = np.concatenate([np.full(p, 5, np.int32), np.zeros(m, np.int32)])
    z, _, flag, info = daqp.solve(data["Q"][i], data["q"][i], rows, upper, lower, sense)
    return z, info["lam"], flag


def daqp_active(problem: Problem) -> np.ndarray:
    """DAQP's active inequality rows, bool [B, m]: those with a multiplier."""
    data, p = problem.numpy(), problem.b.shape[1]
    return np.stack([daqp_member(data, i)[1][p:] > 0 for i in range(problem.batch)])


def active_rows(problem: Problem) -> np.ndarray:
    """DAQP's, or without it torchqp's; `reference` verifies them, whoever found them."""
    if importlib.util.find_spec("daqp"):
        return daqp_active(problem)
    solution = torchqp.solve_qp(*problem.arguments())
    return (solution.lam > solution.s).numpy()


def reference(problem: Problem, active: np.ndarray) -> Reference:
    """Solves the KKT system of the given active rows [B, m], and its adjoint, member by member.

    With K = [Q C'; C 0], C = A and the active rows of G: K (z, y) = (-q, d) and K u = -(w, 0). Then
    grad_q = u_z, grad_Q = sym(u_z z'), grad_C = u_y z' + y u_z', grad_d = -u_y. Each solve is
    refined twice. A member is ``verified`` if lam >= -1e-9 (1 + |lam|) and the slacks likewise.
    """
    data = problem.numpy()
    n, m, p = problem.q.shape[1], problem.h.shape[1], problem.b.shape[1]
    z = np.full((problem.batch, n), np.nan)
    margin = np.zeros(problem.batch)
    verified = np.zeros(problem.batch, dtype=bool)
    gradients = {name: np.zeros_like(data[name]) for name in PARAMETERS}
    for i in range(problem.batch):
        rows = np.flatnonzero(active[i])
        C = np.concatenate([data["A"][i], data["G"][i][rows]])
        d = np.concatenate([data["b"][i], data["h"][i][rows]])
        K = np.block([[data["Q"][i], C.T], [C, np.zeros((len(d), len(d)))]])
        right = np.zeros((len(K), 2))
        right[:n, 0], right[n:, 0], right[:n, 1] = -data["q"][i], d, -data["weight"][i]
        try:
            factor = scipy.linalg.lu_factor(K)
        except (ValueError, scipy.linalg.LinAlgError):
            continue
        x = scipy.linalg.lu_solve(factor, right)
        for _ in range(2):
            x += scipy.linalg.lu_solve(factor, right - K @ x)
        z[i], y = x[:n, 0], x[n:, 0]
        u, u_y = x[:n, 1], x[n:, 1]
        lam = np.zeros(m)
        lam[rows] = y[p:]
        slack = data["h"][i] - data["G"][i] @ z[i]
        slack[rows] = 0.0
        margin[i] = np.maximum(lam, slack).min(initial=np.inf)
        signed = np.concatenate([lam, slack])
        lowest = -1e-9 * (1 + np.abs(signed).max(initial=0))
        verified[i] = np.isfinite(x).all() and signed.min(initial=0) >= lowest
        gradients["q"][i] = u
        gradients["Q"][i] = 0.5 * (np.outer(u, z[i]) + np.outer(z[i], u))
        grad_C = np.outer(u_y, z[i]) + np.outer(y, u)
        gradients["A"][i], gradients["b"][i] = grad_C[:p], -u_y[:p]
        gradients["G"][i][rows], gradients["h"][i][rows] = grad_C[p:], -u_y[p:]
    return Reference(z, gradients, margin, verified)


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Infinity norm over the last axis, 0 for an empty one."""
    return torch.nn.functional.pad(values.abs(), (0, 1)).amax(dim=-1)


def _relative(residual: torch.Tensor, *terms: torch.Tensor) -> torch.Tensor:
    """Largest |residual| / (1 + the largest term it is made of), by member."""
    return _largest(residual) / (1 + torch.stack([_largest(t) for t in terms]).amax(dim=0))


def kkt_parts(
    problem: Problem, z: np.ndarray, nu: np.ndarray, lam: np.ndarray
) -> dict[str, torch.Tensor]:
    """Relative KKT residuals by kind, each [B], computed on the device of the problem.

    Stationarity, primal violation, sign of lam and duality gap, each ||r||_inf / (1 + its largest
    term in the infinity norm), on the data as given.
    """
    Q, q, G, h, A, b = (getattr(problem, name) for name in PARAMETERS)
    x, y, u = (torch.from_numpy(v).to(q) for v in (z, nu, lam))
    Qz, Gz, Az, Gl, An = (
        (M @ v.unsqueeze(-1)).squeeze(-1) for M, v in ((Q, x), (G, x), (A, x), (G.mT, u), (A.mT, y))
    )
    violation = torch.cat([Az - b, (Gz - h).clamp(min=0)], dim=1)
    pairs = ((x, Qz), (q, x), (b, y), (h, u))
    gap = [(left * right).sum(dim=1, keepdim=True) for left, right in pairs]
    return {
        "stationarity": _relative(Qz + q + An + Gl, Qz, q, An, Gl),
        "primal": _relative(violation, Az, b, Gz, h),
        "sign": _relative(u.clamp(max=0), u),
        "gap": _relative(torch.cat(gap, dim=1).sum(dim=1, keepdim=True), *gap),
    }


def kkt_residual(problem: Problem, z: np.ndarray, nu: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """The largest part of ``kkt_parts`` by member, [B]."""
    parts = kkt_parts(problem, z, nu, lam)
    return torch.stack(list(parts.values())).amax(dim=0).cpu().numpy()


def gradient_errors(
    gradients: dict[str, np.ndarray], exact: dict[str, np.ndarray], batch: int
) -> dict[str, np.ndarray]:
    """Relative error by member and parameter; 'all' is the worst parameter of each member.

    ||g - g*|| / max(||g*||, 1e-3 ||all six of g*||): at a vertex some exact parts are zero, and
    their own norm would then be no measure. Only the symmetric part of grad_Q is compared.
    """
    flat = {name: exact[name][:batch].reshape(batch, -1) for name in gradients}
    total = np.sqrt(sum(np.sum(g**2, axis=1) for g in flat.values()))
    errors = {}
    for name, value in gradients.items():
        if name == "Q":
            value = 0.5 * (value + value.transpose(0, 2, 1))
        difference = np.linalg.norm(value.reshape(batch, -1) - flat[name], axis=1)
        errors[name] = difference / np.maximum(np.linalg.norm(flat[name], axis=1), 1e-3 * total)
    errors["all"] = np.max(list(errors.values()), axis=0)
    return errors
