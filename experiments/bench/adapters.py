"""One adapter a layer: how to build it for a size, how to call it, where its multipliers are.

A builder gets a Size and returns a Layer. ``solve(Q, q, G, h, A, b) -> z`` is what is timed, with
the conversions the layer needs; A and b are None without equalities. ``detail`` gives (z, nu, lam)
in our signs as numpy arrays, for the residual; it is not timed. Packages are imported by the
builders, so an absent one costs only its own line in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.bench.problems import daqp_member

Solve = Callable[..., torch.Tensor]
Detail = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Size:
    n: int
    m: int
    p: int
    batch: int
    threads: int


@dataclass(frozen=True)
class Layer:
    solve: Solve
    detail: Detail
    settings: str


@dataclass(frozen=True)
class Adapter:
    """A layer of the table; ``linear``: its cost is linear in the batch, which may then be cut."""

    build: Callable[[Size], Layer]
    packages: tuple[str, ...]
    linear: bool = True
    backward: bool = True
    refuses: Callable[[Size], str | None] = lambda size: None


def _array(value: torch.Tensor | None, *shape: int) -> np.ndarray:
    return np.zeros(shape) if value is None else value.detach().numpy().reshape(shape)


def _torchqp(backward: str) -> Callable[[Size], Layer]:
    def build(size: Size) -> Layer:
        import torchqp

        def solve(*data: torch.Tensor | None) -> torch.Tensor:
            return torchqp.solve_qp(*data, backward=backward).z

        def detail(*data: torch.Tensor | None) -> tuple[np.ndarray, ...]:
            s = torchqp.solve_qp(*data, backward=backward)
            batch = s.z.shape[0]
            return s.z.numpy(), _array(s.nu, batch, size.p), _array(s.lam, batch, size.m)

        return Layer(solve, detail, f"defaults, backward={backward!r}")

    return build


def _qpth(size: Size) -> Layer:
    from qpth.qp import QPFunction

    none = torch.empty(0, dtype=torch.float64)

    def solve(Q, q, G, h, A, b):
        A, b = (none, none) if A is None else (A, b)
        return QPFunction(verbose=-1)(Q, q, G, h, A, b)

    def detail(Q, *rest):
        # The multipliers are kept on the autograd context, which z exposes as its grad_fn.
        z = solve(Q.detach().clone().requires_grad_(), *rest)
        context, batch = z.grad_fn, z.shape[0]
        nu = context.nus if size.p else None
        return z.detach().numpy(), _array(nu, batch, size.p), _array(context.lams, batch, size.m)

    return Layer(solve, detail, "defaults: eps=1e-12, maxIter=20, check_Q_spd=True; verbose=-1")


def _qpth_refuses(size: Size) -> str | None:
    if size.threads > 1 and max(size.n, size.m + size.p) > 150:
        return "its batched LU hangs in torch 2.11's CPU wheel at this size with several threads"
    return None


def _moreau(size: Size) -> Layer:
    import moreau
    import moreau.torch

    rows = size.p + size.m
    settings = moreau.Settings(device="cpu", batch_size=size.batch, enable_grad=True)
    solver = moreau.torch.Solver(
        n=size.n,
        m=rows,
        P_row_offsets=torch.arange(0, size.n * size.n + 1, size.n),
        P_col_indices=torch.arange(size.n).repeat(size.n),
        A_row_offsets=torch.arange(0, rows * size.n + 1, size.n),
        A_col_indices=torch.arange(size.n).repeat(rows),
        cones=moreau.Cones(num_zero_cones=size.p, num_nonneg_cones=size.m),
        settings=settings,
    )

    def run(Q, q, G, h, A, b):
        rows = G if A is None else torch.cat([A, G], dim=1)
        right = h if b is None else torch.cat([b, h], dim=1)
        return solver.solve(Q.flatten(1), rows.flatten(1), q, right)

    def detail(*data):
        solution = run(*data)
        y = solution.z.detach().numpy()
        return solution.x.detach().numpy(), y[:, : size.p], y[:, size.p :]

    return Layer(lambda *data: run(*data).x, detail, "defaults: solver='auto', that is active set")


def _proxqp(size: Size) -> Layer:
    from proxsuite.torch.qplayer import QPFunction

    none = torch.empty(0, dtype=torch.float64)

    def run(Q, q, G, h, A, b):
        lower = torch.full_like(h, -1e20)
        layer = QPFunction(omp_parallel=size.threads > 1)
        return layer(Q, q, none if A is None else A, none if b is None else b, G, lower, h)

    def detail(*data):
        z, nu, lam = (value.detach() for value in run(*data))
        return z.numpy(), _array(nu, z.shape[0], size.p), _array(lam, z.shape[0], size.m)

    return Layer(lambda *data: run(*data)[0], detail, "defaults: eps=1e-9, eps_backward=1e-4")


def _cvxpylayers(mode: str) -> Callable[[Size], Layer]:
    def build(size: Size) -> Layer:
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        n, m, p = size.n, size.m, size.p
        z, root = cp.Variable(n), cp.Parameter((n, n))
        q, G, h = cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
        parameters, constraints = [root, q, G, h], [G @ z <= h]
        if p:
            A, b = cp.Parameter((p, n)), cp.Parameter(p)
            parameters, constraints = [*parameters, A, b], [*constraints, A @ z == b]
        objective = cp.Minimize(0.5 * cp.sum_squares(root @ z) + q @ z)
        problem = cp.Problem(objective, constraints)
        layer = CvxpyLayer(problem, parameters, [z], solver="DIFFCP")
        duals = [constraint.dual_variables[0] for constraint in constraints]
        jobs = {"n_jobs_forward": size.threads}
        forward_options: dict[str, Any] = {"solve_method": "Clarabel", **jobs}
        options = {**forward_options, "n_jobs_backward": size.threads, "mode": mode}

        def arguments(Q, q, G, h, A, b):
            # A quadratic form with a parameter is not DPP: cvxpylayers wants a square root of Q.
            head = (torch.linalg.cholesky(Q).mT, q, G, h)
            return head if A is None else (*head, A, b)

        def solve(*data):
            # diffcp refuses the derivative's options in a call that asks for no derivative.
            chosen = options if torch.is_grad_enabled() else forward_options
            return layer(*arguments(*data), solver_args=chosen)[0]

        def detail(*data):
            whole = CvxpyLayer(problem, parameters, [z, *duals], solver="DIFFCP")
            with torch.no_grad():
                z_, lam, *nu = whole(*arguments(*data), solver_args=forward_options)
            return z_.numpy(), _array(nu[0] if nu else None, len(z_), p), lam.numpy()

        return Layer(solve, detail, f"DIFFCP, Clarabel, mode={mode!r}, Q as its Cholesky factor")

    return build


def _daqp(size: Size) -> Layer:
    import daqp  # noqa: F401  (an absent package shall be reported when the layer is built)

    names = ("Q", "q", "G", "h", "A", "b")

    def run(*data):
        batch = data[0].shape[0]
        arrays = [value.detach().numpy() for value in data if value is not None]
        if len(arrays) == 4:
            arrays += [np.zeros((batch, 0, size.n)), np.zeros((batch, 0))]
        member = dict(zip(names, arrays, strict=True))
        return [daqp_member(member, i) for i in range(batch)]

    def solve(*data):
        return torch.from_numpy(np.stack([answer[0] for answer in run(*data)]))

    def detail(*data):
        answers = run(*data)
        z, y = (np.stack([answer[k] for answer in answers]) for k in (0, 1))
        return z, y[:, : size.p], y[:, size.p :]

    return Layer(solve, detail, "a Python loop over the raw solver, defaults; no gradients")


ADAPTERS: dict[str, Adapter] = {
    "torchqp": Adapter(_torchqp("kkt"), ("torchqp",), linear=False),
    "moreau": Adapter(_moreau, ("moreau", "moreau-cpu")),
    "proxqp": Adapter(_proxqp, ("proxsuite",)),
    "qpth": Adapter(_qpth, ("qpth",), linear=False, refuses=_qpth_refuses),
    "cvxpylayers": Adapter(_cvxpylayers("lsqr"), ("cvxpylayers", "diffcp", "cvxpy", "clarabel")),
    "cvxpylayers-dense": Adapter(_cvxpylayers("dense"), ("cvxpylayers", "diffcp")),
    "loop-daqp": Adapter(_daqp, ("daqp",), backward=False),
    "torchqp-smoothed": Adapter(_torchqp("smoothed"), ("torchqp",), linear=False),
    "torchqp-lpgd": Adapter(_torchqp("lpgd"), ("torchqp",), linear=False),
}
DEFAULT_LAYERS = (
    "torchqp",
    "moreau",
    "proxqp",
    "qpth",
    "cvxpylayers",
    "cvxpylayers-dense",
    "loop-daqp",
)
