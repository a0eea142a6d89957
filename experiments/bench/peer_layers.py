"""The other differentiable layers. Signs and argument orders are theirs; see layer.py for ours."""

# The peers have no types, and their packages may be absent.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from experiments.bench.layer import Layer, Size, array, tolerance

_NONE = torch.empty(0, dtype=torch.float64)


def qpth(size: Size, max_iter: int = 20, check: bool = True) -> Layer:
    with _placeholder("cvxpy"):
        from qpth.qp import QPFunction

    options = {"verbose": -1, "eps": tolerance(size, 1e-12), "maxIter": max_iter}
    options["check_Q_spd"] = check

    def solve(Q, q, G, h, A, b):
        A, b = (q.new_empty(0),) * 2 if A is None else (A, b)
        return QPFunction(**options)(Q, q, G, h, A, b)

    def detail(Q, *rest):
        # The multipliers are kept on the autograd context, which z exposes as its grad_fn.
        z = solve(Q.detach().clone().requires_grad_(), *rest)
        context, batch = z.grad_fn, z.shape[0]
        nu = context.nus if size.p else None
        found = array(z, batch, size.n), array(nu, batch, size.p)
        return *found, array(context.lams, batch, size.m)

    words = f"eps={options['eps']:g}, maxIter={max_iter}, check_Q_spd={check}; verbose=-1"
    return Layer(solve, detail, words)


@contextlib.contextmanager
def _placeholder(name: str) -> Iterator[None]:
    """An empty module where a package is absent: for a peer that imports it and does not use it."""
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]


def qpth_refuses(size: Size) -> str | None:
    if size.device == "cpu" and size.threads > 1 and max(size.n, size.m + size.p) > 150:
        return "its batched LU hangs in torch 2.11's CPU wheel at this size with several threads"
    return None


def moreau(solver_name: str, device: str = "cpu") -> Callable[[Size], Layer]:
    """Moreau's layer; ``device`` is where it computes, and "auto" leaves that to its heuristic."""

    def build(size: Size) -> Layer:
        import moreau
        import moreau.torch

        rows = size.p + size.m
        eps = tolerance(size, 1e-8)
        ipm = moreau.IPMSettings(tol_gap_abs=eps, tol_gap_rel=eps, tol_feas=eps)
        settings = moreau.Settings(
            device=device,
            batch_size=size.batch,
            enable_grad=True,
            solver=solver_name,
            max_iter=10_000,  # the default, 200, ends its active set at n = 400 without an answer
            ipm_settings=None if size.eps is None else ipm,
        )
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
            y = array(solution.z, size.batch, rows)
            return array(solution.x, size.batch, size.n), y[:, : size.p], y[:, size.p :]

        words = f"interior point, tol={eps:g}"
        if solver_name == "auto":
            words = "active set" if size.n <= 500 else "interior point"
        words = f"solver={solver_name!r}, device={device!r}: {words}, max_iter=10000"
        return Layer(lambda *data: run(*data).x, detail, words)

    return build


def proxqp(size: Size) -> Layer:
    from proxsuite.torch.qplayer import QPFunction

    eps = tolerance(size, 1e-9)

    def run(Q, q, G, h, A, b):
        lower = torch.full_like(h, -1e20)
        layer = QPFunction(eps=eps, omp_parallel=size.threads > 1)
        return layer(Q, q, _NONE if A is None else A, _NONE if b is None else b, G, lower, h)

    def detail(*data):
        z, nu, lam = (value.detach() for value in run(*data))
        return z.numpy(), array(nu, z.shape[0], size.p), array(lam, z.shape[0], size.m)

    return Layer(lambda *data: run(*data)[0], detail, f"eps={eps:g}, eps_backward=1e-4")


def qpax(size: Size) -> Layer:
    """QPAX in JAX, jit and vmap; compiled when the layer is built."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants memory too
    import jax

    jax.config.update("jax_enable_x64", True)
    if size.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    import qpax

    options = {"solver_tol": tolerance(size, 1e-8)}
    shapes = ((size.n, size.n), (size.n,), (size.p, size.n), (size.p,), (size.m, size.n), (size.m,))
    one = jax.vmap(lambda *data: qpax.solve_qp_primal(*data, **options))
    jit_solve: Any = jax.jit(one)
    jit_forward: Any = jax.jit(lambda *data: jax.vjp(one, *data))
    jit_backward: Any = jax.jit(lambda pull, cotangent: pull(cotangent))
    jit_detail = jax.jit(jax.vmap(lambda *data: qpax.solve_qp(*data, **options)))

    def to_jax(tensor):
        return jax.dlpack.from_dlpack(tensor.detach().contiguous())

    def to_torch(value):
        return torch.from_dlpack(value)

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *data):
            if not any(ctx.needs_input_grad):
                return to_torch(jit_solve(*map(to_jax, data)))
            z, ctx.pull = jit_forward(*map(to_jax, data))
            return to_torch(z)

        @staticmethod
        def backward(ctx, cotangent):
            return tuple(map(to_torch, jit_backward(ctx.pull, to_jax(cotangent))))

    def ordered(Q, q, G, h, A, b):
        empty = q.new_empty
        A = empty(size.batch, 0, size.n) if A is None else A
        return Q, q, A, empty(size.batch, 0) if b is None else b, G, h

    def solve(*data):
        return Solve.apply(*ordered(*data))

    def detail(*data):
        z, _, lam, nu, *_ = jit_detail(*map(to_jax, ordered(*data)))
        return np.asarray(z), np.asarray(nu), np.asarray(lam)

    start = time.perf_counter()
    like = [jax.ShapeDtypeStruct((size.batch, *shape), "float64") for shape in shapes]
    jit_solve = jit_solve.lower(*like).compile()
    lowered = jit_forward.lower(*like)
    jit_forward = lowered.compile()
    z, pull = lowered.out_info
    jit_backward = jit_backward.lower(pull, jax.ShapeDtypeStruct(z.shape, z.dtype)).compile()
    compile_seconds = time.perf_counter() - start
    settings = (
        f"jit(vmap), x64, {size.device}; solver_tol={options['solver_tol']:g}, target_kappa=1e-3"
    )
    return Layer(solve, detail, settings, lambda: {"compile_seconds": compile_seconds})


def osqp(size: Size) -> Layer:
    import osqp
    import scipy.sparse
    from osqp.nn.torch import OSQP

    n, rows, eps = size.n, size.p + size.m, tolerance(size, 1e-5)
    columns = [(np.tile(np.arange(k), n), np.repeat(np.arange(n), k)) for k in (n, rows)]
    layer = OSQP(columns[0], (n, n), columns[1], (rows, n), eps_rel=eps, eps_abs=eps)

    def arguments(Q, q, G, h, A, b):
        # Its index lists are sorted by column, as the gradients that come back are.
        rows = G if A is None else torch.cat([A, G], dim=1)
        low = torch.full_like(h, -1e30)
        low, high = (low, h) if b is None else (torch.cat([b, low], 1), torch.cat([b, h], 1))
        return Q.mT.flatten(1), q, rows.mT.flatten(1), low, high

    def detail(*data):
        # The layer keeps its multipliers to itself: its solver once more, as the layer calls it.
        z, y = [], []
        for P, q, A, low, high in zip(*(v.numpy() for v in arguments(*data)), strict=True):
            solver = osqp.OSQP(algebra="builtin")
            csc = [
                scipy.sparse.csc_matrix((values, where), shape=(k, n))
                for values, where, k in ((P, columns[0], n), (A, columns[1], rows))
            ]
            solver.setup(
                csc[0], q, csc[1], low, high, solver_type="direct", eps_abs=eps, eps_rel=eps,
                verbose=False,
            )  # fmt: skip
            answer = solver.solve()
            z.append(answer.x)
            y.append(answer.y)
        y = np.stack(y)
        return np.stack(z), y[:, : size.p], y[:, size.p :]

    return Layer(
        lambda *data: layer(*arguments(*data)), detail, f"osqp.nn.torch, eps_abs=eps_rel={eps:g}"
    )


@lru_cache(maxsize=8)
def _cvxpylayer(n: int, m: int, p: int, solver: str, duals: bool) -> Any:
    """The layer for a size; building one takes seconds at n = 200."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    z, q, G, h = cp.Variable(n), cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    if solver == "DIFFCP":
        # A quadratic form with a parameter is not DPP there: it wants a square root of Q.
        Q = cp.Parameter((n, n))
        objective = 0.5 * cp.sum_squares(Q @ z)
    else:
        Q = cp.Parameter((n, n), PSD=True)
        objective = 0.5 * cp.quad_form(z, Q)
    parameters, constraints = [Q, q, G, h], [G @ z <= h]
    if p:
        A, b = cp.Parameter((p, n)), cp.Parameter(p)
        parameters, constraints = [*parameters, A, b], [*constraints, A @ z == b]
    problem = cp.Problem(cp.Minimize(objective + q @ z), constraints)
    dual = [constraint.dual_variables[0] for constraint in constraints] if duals else []
    return CvxpyLayer(problem, parameters, [z, *dual], solver=solver)


def _split(size: Size, z, lam, nu=None):
    return z.numpy(), array(nu, len(z), size.p), lam.numpy()


def diffcp(mode: str) -> Callable[[Size], Layer]:
    """Cvxpylayers on diffcp; Clarabel, but SCS for LPGD, which needs warm starts."""

    def build(size: Size) -> Layer:
        eps = tolerance(size, 1e-8)
        forward: dict[str, Any] = {"n_jobs_forward": size.threads}
        if mode == "lpgd":
            forward |= {"solve_method": "SCS", "eps_abs": eps, "eps_rel": eps}
        else:
            forward["solve_method"] = "Clarabel"
            forward |= dict.fromkeys(("tol_feas", "tol_gap_abs", "tol_gap_rel"), eps)
        options = {**forward, "n_jobs_backward": size.threads, "mode": mode}
        if mode == "lpgd":
            options["derivative_kwargs"] = {"tau": 1e-3, "rho": 0.0}
        layer = _cvxpylayer(size.n, size.m, size.p, "DIFFCP", duals=False)

        def arguments(Q, q, G, h, A, b):
            head = (torch.linalg.cholesky(Q).mT, q, G, h)
            return head if A is None else (*head, A, b)

        def solve(*data):
            # diffcp refuses the derivative's options in a call that asks for no derivative.
            chosen = options if torch.is_grad_enabled() else forward
            return layer(*arguments(*data), solver_args=chosen)[0]

        def detail(*data):
            whole = _cvxpylayer(size.n, size.m, size.p, "DIFFCP", duals=True)
            with torch.no_grad():
                return _split(size, *whole(*arguments(*data), solver_args=forward))

        words = f"DIFFCP, {forward['solve_method']} {eps:g}, mode={mode!r}"
        words += ", tau=1e-3" if mode == "lpgd" else ""
        return Layer(solve, detail, words + ", Q as its Cholesky factor")

    return build


def cvxpylayers_moreau(size: Size) -> Layer:
    # Without it cvxpy would speak of a wrong solver, not of a missing package.
    importlib.import_module("moreau")
    with contextlib.redirect_stdout(io.StringIO()):
        layer = _cvxpylayer(size.n, size.m, size.p, "MOREAU", duals=False)

    def arguments(Q, q, G, h, A, b):
        return (Q, q, G, h) if A is None else (Q, q, G, h, A, b)

    def detail(*data):
        whole = _cvxpylayer(size.n, size.m, size.p, "MOREAU", duals=True)
        with torch.no_grad():
            return _split(size, *whole(*arguments(*data)))

    return Layer(lambda *data: layer(*arguments(*data))[0], detail, "MOREAU, Q as a parameter")
