"""Python loops over raw solvers: no gradients. What can be prepared for the batch at once, is."""

# The peers have no types, and their packages may be absent.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench.layer import Layer, Size, tolerance

Answers = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _layer(size: Size, run: Callable[..., Answers], settings: str) -> Layer:
    """A layer of a function from numpy arrays (Q, q, G, h, A, b) to (z, nu, lam) by member."""

    def call(*data: torch.Tensor | None) -> Answers:
        arrays = [value.detach().numpy() for value in data if value is not None]
        if len(arrays) == 4:
            batch = len(arrays[0])
            arrays += [np.zeros((batch, 0, size.n)), np.zeros((batch, 0))]
        return run(*arrays)

    def solve(*data: torch.Tensor | None) -> torch.Tensor:
        return torch.from_numpy(np.stack([answer[0] for answer in call(*data)]))

    def detail(*data: torch.Tensor | None) -> tuple[np.ndarray, ...]:
        z, nu, lam = zip(*call(*data), strict=True)
        return np.stack(z), np.stack(nu), np.stack(lam)

    return Layer(solve, detail, f"{settings}; no gradients")  # type: ignore[arg-type]


def daqp(size: Size) -> Layer:
    import daqp

    sense = np.concatenate([np.full(size.p, 5, np.int32), np.zeros(size.m, np.int32)])

    def run(Q, q, G, h, A, b):
        rows = np.concatenate([A, G], axis=1)
        upper = np.concatenate([b, h], axis=1)
        lower = np.concatenate([b, np.full_like(h, -1e30)], axis=1)
        answers = []
        for i in range(len(q)):
            z, _, _, info = daqp.solve(Q[i], q[i], rows[i], upper[i], lower[i], sense)
            answers.append((z, info["lam"][: size.p], info["lam"][size.p :]))
        return answers

    return _layer(size, run, "defaults: primal_tol=1e-6")


def piqp(size: Size) -> Layer:
    import piqp

    def run(Q, q, G, h, A, b):
        solver = piqp.DenseSolver()
        if size.eps is not None:
            for name in ("eps_abs", "eps_rel", "eps_duality_gap_abs", "eps_duality_gap_rel"):
                setattr(solver.settings, name, size.eps)
        Q, G, A = (np.ascontiguousarray(M.swapaxes(1, 2)).swapaxes(1, 2) for M in (Q, G, A))
        answers = []
        for i in range(len(q)):
            if size.p:
                solver.setup(Q[i], q[i], A[i], b[i], G[i], None, h[i])
            else:
                solver.setup(Q[i], q[i], G=G[i], h_u=h[i])
            solver.solve()
            result = solver.result
            lam = result.z_u if size.m else np.zeros(0)
            answers.append((np.array(result.x), np.array(result.y), np.array(lam)))
        return answers

    default = "defaults: 1e-8" if size.eps is None else f"eps {size.eps:g}"
    return _layer(size, run, f"dense, {default}")


def proxqp(size: Size) -> Layer:
    from proxsuite import proxqp

    eps = tolerance(size, 1e-9)

    def run(Q, q, G, h, A, b):
        answers = []
        lower = np.full(size.m, -1e20)
        for i in range(len(q)):
            solver = proxqp.dense.QP(size.n, size.p, size.m)
            solver.settings.eps_abs = eps
            solver.init(Q[i], q[i], A[i], b[i], G[i], lower, h[i])
            solver.solve()
            result = solver.results
            answers.append((np.array(result.x), np.array(result.y), np.array(result.z)))
        return answers

    return _layer(size, run, f"dense, eps_abs={eps:g}")


def clarabel(size: Size) -> Layer:
    import clarabel
    from scipy.sparse import csc_matrix

    n, p, m = size.n, size.p, size.m
    eps = tolerance(size, 1e-8)
    settings: Any = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = eps
    cones = [clarabel.ZeroConeT(p)] * (p > 0) + [clarabel.NonnegativeConeT(m)] * (m > 0)
    # Upper triangle of Q, all of A, by columns.
    triangle = np.concatenate([np.arange(j + 1) for j in range(n)])
    starts = np.concatenate([[0], np.cumsum(np.arange(1, n + 1))])
    across = np.repeat(np.arange(n), np.arange(1, n + 1))
    every, full = np.tile(np.arange(p + m), n), np.arange(0, n * (p + m) + 1, p + m)

    def run(Q, q, G, h, A, b):
        upper = Q[:, triangle, across]
        rows = np.concatenate([A, G], axis=1).swapaxes(1, 2).reshape(len(q), -1)
        right = np.concatenate([b, h], axis=1)
        answers = []
        for i in range(len(q)):
            P = csc_matrix((upper[i], triangle, starts), shape=(n, n))
            C = csc_matrix((rows[i], every, full), shape=(p + m, n))
            answer = clarabel.DefaultSolver(P, q[i], C, right[i], cones, settings).solve()
            y = np.array(answer.z)
            answers.append((np.array(answer.x), y[:p], y[p:]))
        return answers

    return _layer(size, run, f"tol_gap=tol_feas={eps:g}")
