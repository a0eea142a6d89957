"""torchqp and the raw solvers on one published problem with bounds and two-sided rows."""

# The peers have no types, and their packages may be absent.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.bench.hard_problems import INFINITY, Arguments


class Answer(NamedTuple):
    """What a solver returned, in torchqp's signs; ``solved`` is what it says of itself."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor
    solved: bool
    status: str
    iterations: int


class _Data(NamedTuple):
    """The problem as numpy arrays; absent rows are empty and absent limits infinite."""

    Q: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    G: np.ndarray
    h_lower: np.ndarray
    h: np.ndarray
    lb: np.ndarray
    ub: np.ndarray


def _arrays(arguments: Arguments) -> _Data:
    n = len(arguments["q"])
    given = {name: value.numpy() for name, value in arguments.items()}
    m, none = len(given.get("G", ())), np.zeros((0, n))
    return _Data(
        given["Q"],
        given["q"],
        given.get("A", none),
        given.get("b", none[:, 0]),
        given.get("G", none),
        given.get("h_lower", np.full(m, -np.inf)),
        given.get("h", np.full(m, np.inf)),
        given.get("lb", np.full(n, -np.inf)),
        given.get("ub", np.full(n, np.inf)),
    )


def _answer(
    arguments: Arguments,
    parts: tuple[Any, Any, Any, Any],
    solved: bool,
    status: Any,
    iterations: int,
) -> Answer:
    """From z, nu, the net multipliers of the rows, and those of the bounds."""
    z, nu, lam, bound = (torch.from_numpy(np.array(part, dtype=np.float64)) for part in parts)
    empty = z[:0]
    low = (-bound).clamp(min=0) if "lb" in arguments else empty
    high = bound.clamp(min=0) if "ub" in arguments else empty
    return Answer(z, nu, lam, low, high, solved, str(status), int(iterations))


def torchqp(arguments: Arguments) -> Callable[[], Answer]:
    import torchqp

    def run() -> Answer:
        s = torchqp.solve_qp(**arguments, on_failure="best")
        status = torchqp.Status(int(s.status))
        return Answer(*s[:5], status == 0, status.name.lower(), int(s.iterations))

    return run


def torchqp_float32(arguments: Arguments) -> Callable[[], Answer]:
    single = torchqp({name: value.float() for name, value in arguments.items()})

    def run() -> Answer:
        answer = single()
        return Answer(*(value.double() for value in answer[:5]), *answer[5:])

    return run


def piqp(arguments: Arguments) -> Callable[[], Answer]:
    import piqp

    d = _arrays(arguments)
    Q, A, G = (np.asfortranarray(M) for M in (d.Q, d.A, d.G))
    rows = (G, d.h_lower, d.h) if len(G) else (None, None, None)
    equal = (A, d.b) if len(A) else (None, None)

    def run() -> Answer:
        solver = piqp.DenseSolver()
        solver.setup(Q, d.q, *equal, *rows, d.lb, d.ub)
        status = solver.solve()
        r = solver.result
        lam = np.array(r.z_u) - np.array(r.z_l) if len(G) else np.zeros(0)
        nu = np.array(r.y) if len(A) else np.zeros(0)
        bound = np.array(r.z_bu) - np.array(r.z_bl)
        solved = status == piqp.Status.PIQP_SOLVED
        return _answer(arguments, (r.x, nu, lam, bound), solved, status.name, r.info.iter)

    return run


def clarabel(arguments: Arguments) -> Callable[[], Answer]:
    import clarabel
    from scipy.sparse import csc_matrix, triu, vstack

    d = _arrays(arguments)
    n, m, p = len(d.q), len(d.G), len(d.A)
    stacked = np.concatenate([d.G, np.eye(n)])
    low, high = np.concatenate([d.h_lower, d.lb]), np.concatenate([d.h, d.ub])
    upper, lower = high < INFINITY, low > -INFINITY
    C = csc_matrix(stacked)
    rows = vstack([csc_matrix(d.A), C[upper], -C[lower]], format="csc")
    right = np.concatenate([d.b, high[upper], -low[lower]])
    cones = [clarabel.ZeroConeT(p)] * (p > 0)
    cones += [clarabel.NonnegativeConeT(len(right) - p)] * (len(right) > p)
    P = triu(csc_matrix(d.Q), format="csc")
    settings: Any = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False

    def run() -> Answer:
        found = clarabel.DefaultSolver(P, d.q, rows, right, cones, settings).solve()
        y, net = np.array(found.z), np.zeros(m + n)
        net[upper] += y[p : p + upper.sum()]
        net[lower] -= y[p + upper.sum() :]
        solved = str(found.status) == "Solved"
        parts = (found.x, y[:p], net[:m], net[m:])
        return _answer(arguments, parts, solved, found.status, found.iterations)

    return run


def proxqp(arguments: Arguments) -> Callable[[], Answer]:
    from proxsuite import proxqp

    d = _arrays(arguments)
    n, m, p = len(d.q), len(d.G), len(d.A)
    box = np.abs(np.stack([d.lb, d.ub])).min(0) < INFINITY
    C = np.concatenate([d.G, np.eye(n)[box]])
    low = np.clip(np.concatenate([d.h_lower, d.lb[box]]), -INFINITY, INFINITY)
    high = np.clip(np.concatenate([d.h, d.ub[box]]), -INFINITY, INFINITY)

    def run() -> Answer:
        solver = proxqp.dense.QP(n, p, len(C))
        solver.settings.eps_abs, solver.settings.eps_rel = 1e-8, 1e-8
        solver.init(d.Q, d.q, d.A, d.b, C, low, high)
        solver.solve()
        r, bound = solver.results, np.zeros(n)
        bound[box] = np.array(r.z)[m:]
        status = r.info.status.name
        parts = (r.x, r.y, np.array(r.z)[:m], bound)
        return _answer(arguments, parts, status == "PROXQP_SOLVED", status, r.info.iter)

    return run


def daqp(arguments: Arguments) -> Callable[[], Answer]:
    import daqp

    d = _arrays(arguments)
    n, m = len(d.q), len(d.G)
    far = 1e30
    low = np.clip(np.concatenate([d.lb, d.h_lower, d.b]), -far, far)
    high = np.clip(np.concatenate([d.ub, d.h, d.b]), -far, far)
    rows = np.ascontiguousarray(np.concatenate([d.G, d.A]))
    sense = np.zeros(len(low), dtype=np.int32)
    sense[n + m :] = 5

    def run() -> Answer:
        x, _, flag, info = daqp.solve(d.Q, d.q, rows, high, low, sense)
        lam = info["lam"]
        parts = (x, lam[n + m :], lam[n : n + m], lam[:n])
        return _answer(arguments, parts, flag == 1, f"exitflag {flag}", info["iterations"])

    return run


@dataclass(frozen=True)
class Solver:
    """A column of the table."""

    prepare: Callable[[Arguments], Callable[[], Answer]]
    packages: tuple[str, ...]
    settings: str


SOLVERS = {
    "torchqp": Solver(torchqp, ("torchqp",), "defaults: 1e-8"),
    "torchqp-float32": Solver(torchqp_float32, ("torchqp",), "defaults: 1e-4"),
    "piqp": Solver(piqp, ("piqp",), "dense, defaults: 1e-8 absolute, 1e-9 relative"),
    "clarabel": Solver(clarabel, ("clarabel",), "sparse, defaults: 1e-8; presolve off"),
    "proxqp": Solver(proxqp, ("proxsuite",), "dense, eps_abs = eps_rel = 1e-8"),
    "daqp": Solver(daqp, ("daqp",), "defaults: primal_tol = 1e-6"),
}
