"""Twenty faults that a differentiable QP layer meets, and when its answer to each is right.

Problems are small (batch 8, n = 6, m = 8, p = 2) and well conditioned; references are exact
(`problems.reference`). Right means: z to 1e-4 and gradients to 1e-2, relative, which leaves room
for every layer's own default tolerance; the words say how far off it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench.layer import Size
from experiments.bench.problems import (
    PARAMETERS,
    Problem,
    Reference,
    active_rows,
    gradient_errors,
    reference,
)

BATCH, N, M, P = 8, 6, 8, 2
BAD = 3  # the member that is spoilt
Z_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-2
Solve = Callable[..., Tensor]
Build = Callable[[Size], Solve]


@dataclass(frozen=True)
class Verdict:
    """Whether the answer is right, and what it was."""

    right: bool
    words: str


@dataclass(frozen=True)
class Case:
    """A fault; ``run`` gets what builds a layer for a size, and raises what the layer raises."""

    name: str
    run: Callable[[Build], Verdict]


@cache
def base(n: int = N, m: int = M, p: int = P, batch: int = BATCH) -> tuple[Problem, Reference]:
    """Well-conditioned problems with regular solutions, and those."""
    rng = np.random.default_rng([7, n, m, p])
    kept: list[tuple[Problem, Reference]] = []
    while len(kept) < batch:
        root = rng.standard_normal((1, n, n))
        z = rng.standard_normal((1, n, 1))
        G, A = rng.standard_normal((1, m, n)), rng.standard_normal((1, p, n))
        h, b = (G @ z)[..., 0] + rng.uniform(0.1, 1.0, (1, m)), (A @ z)[..., 0]
        Q = root @ root.transpose(0, 2, 1) / n + 0.5 * np.eye(n)
        parts = (Q, 3 * rng.standard_normal((1, n)), G, h, A, b, rng.standard_normal((1, n)))
        one = Problem(*map(torch.from_numpy, parts))
        exact = reference(one, active_rows(one))
        if exact.verified[0] and exact.margin[0] > 1e-2:
            kept.append((one, exact))
    names = (*PARAMETERS, "weight")
    problem = Problem(*(torch.cat([getattr(x, k) for x, _ in kept]) for k in names))
    return problem, reference(problem, active_rows(problem))


def size_of(problem: Problem) -> Size:
    batch, n = problem.q.shape
    return Size(n, problem.h.shape[1], problem.b.shape[1], batch, 1)


def call(
    build: Build, problem: Problem, keep: Tensor | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """z, and the gradients of w'z over the members in ``keep``."""
    leaves = [
        None if v is None else v.detach().clone().requires_grad_() for v in problem.arguments()
    ]
    z = build(size_of(problem))(*leaves)
    loss = problem.weight.to(z) * z
    loss = loss if keep is None else torch.where(keep.unsqueeze(-1), loss, 0.0)
    asked = [leaf for leaf in leaves if leaf is not None]
    grads = torch.autograd.grad(loss.sum(), asked, allow_unused=True)
    found = {}
    for name, leaf, grad in zip(PARAMETERS, asked, grads, strict=False):
        dense = torch.zeros_like(leaf) if grad is None else grad
        found[name] = dense.detach().to_dense().double().numpy()
    return z.detach().double().numpy(), found


def size_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference by 1 + the largest expected entry; infinite where there is a NaN."""
    if not np.isfinite(actual).all():
        return float("inf")
    return float(np.abs(actual - expected).max(initial=0) / (1 + np.abs(expected).max(initial=0)))


def compared(
    z: np.ndarray,
    grads: dict[str, np.ndarray],
    exact: Reference,
    members: np.ndarray | None = None,
    names: tuple[str, ...] = ("q", "G"),
) -> Verdict:
    """The verdict on z and some gradients, of all members or some."""
    members = np.arange(len(z)) if members is None else members
    off = size_error(z[members], exact.z[members])
    wanted = {name: exact.gradients[name][members] for name in names}
    kept = {name: grads[name][members] for name in names}
    errors = gradient_errors(kept, wanted, len(members))
    worst = {name: float(np.nan_to_num(errors[name], nan=np.inf).max()) for name in names}
    words = ", ".join([f"z {off:.0e}", *(f"d{name} {error:.0e}" for name, error in worst.items())])
    return Verdict(off <= Z_LIMIT and max(worst.values()) <= GRADIENT_LIMIT, words)


def _kind(values: np.ndarray) -> str:
    if not np.isfinite(values).all():
        return "NaN"
    return "finite" if values.any() else "zero"


def _spoilt(build: Build, problem: Problem, masked: bool) -> Verdict:
    """The others right, the bad member's gradient zero; its z no number, as it has no solution."""
    keep = torch.arange(BATCH) != BAD
    z, grads = call(build, problem, keep if masked else None)
    others = compared(z, grads, base()[1], keep.numpy().nonzero()[0])
    bad = np.concatenate([grads[name][BAD].ravel() for name in ("q", "G")])
    words = f"others: {others.words}; bad: z {_kind(z[BAD])}, gradient {_kind(bad)}"
    good = others.right and not bad.any()
    return Verdict(good and not np.isfinite(z[BAD]).any(), words)


def infeasible(build: Build) -> Verdict:
    problem = replace(base()[0], G=base()[0].G.clone(), h=base()[0].h.clone())
    problem.G[BAD, 1], problem.h[BAD, :2] = -problem.G[BAD, 0], -1.0
    return _spoilt(build, problem, masked=False)


def nan(build: Build) -> Verdict:
    problem = replace(base()[0], q=base()[0].q.clone())
    problem.q[BAD, 0] = torch.nan
    return _spoilt(build, problem, masked=False)


def nan_masked(build: Build) -> Verdict:
    problem = replace(base()[0], q=base()[0].q.clone())
    problem.q[BAD, 0] = torch.nan
    return _spoilt(build, problem, masked=True)


def _problem(*parts: Any, batch: int = 1) -> Problem:
    tensors = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
    return Problem(*(t.expand(batch, *t.shape).contiguous() for t in tensors))


def program(build: Build) -> Verdict:
    """Min q'z over the box [-1, 1]: a vertex, gradient in q zero."""
    eye = np.eye(4)
    q = np.array([1.0, -2.0, 0.5, -0.7])
    G, none = np.concatenate([eye, -eye]), np.zeros((0, 4))
    z, grads = call(build, _problem(0 * eye, q, G, np.ones(8), none, none[:, 0], np.ones(4)))
    off, size = size_error(z[0], -np.sign(q)), float(np.abs(grads["q"]).max())
    return Verdict(off <= Z_LIMIT and size <= 1e-4, f"z {off:.0e}, size of dq {size:.0e} (exact 0)")


def twin_equality(build: Build) -> Verdict:
    problem = base()[0]
    twice = replace(
        problem, A=torch.cat([problem.A] * 2, dim=1), b=torch.cat([problem.b] * 2, dim=1)
    )
    z, grads = call(build, twice)
    return compared(z, grads, base()[1])


def twin_row(build: Build) -> Verdict:
    problem, exact = base()
    twice = replace(
        problem, G=torch.cat([problem.G] * 2, dim=1), h=torch.cat([problem.h] * 2, dim=1)
    )
    z, grads = call(build, twice)
    grads["G"] = grads["G"][:, :M] + grads["G"][:, M:]
    return compared(z, grads, exact)


def weak(build: Build) -> Verdict:
    """z0 <= 0 holds with multiplier 0: dz0/dq0 lies between -1 (free) and 0 (fixed)."""
    eye, none = np.eye(2), np.zeros((0, 2))
    parts = (eye, np.zeros(2), eye[:1], np.zeros(1), none, none[:, 0], np.array([1.0, 0.0]))
    z, grads = call(build, _problem(*parts))
    slope = float(grads["q"][0, 0])
    off = float(np.abs(z).max())
    right = off <= Z_LIMIT and -1 - 1e-6 <= slope <= 1e-6
    return Verdict(right, f"z {off:.0e}, dz0/dq0 {slope:.2g}")


def vertex(build: Build) -> Verdict:
    """Five rows hold at one point in 3-D: the gradient in q is zero."""
    rng = np.random.default_rng(3)
    G, lam, none = rng.standard_normal((5, 3)), rng.uniform(0.5, 1.5, 5), np.zeros((0, 3))
    point = rng.standard_normal(3)
    q = -point - G.T @ lam
    z, grads = call(build, _problem(np.eye(3), q, G, G @ point, none, none[:, 0], np.ones(3)))
    off, size = size_error(z[0], point), float(np.abs(grads["q"]).max())
    finite = np.isfinite(grads["G"]).all()
    words = f"z {off:.0e}, size of dq {size:.0e} (exact 0), dG {'finite' if finite else 'NaN'}"
    return Verdict(bool(off <= Z_LIMIT and size <= 1e-4 and finite), words)


def unconstrained(build: Build) -> Verdict:
    problem = base()[0]
    bare = replace(
        problem, G=problem.G[:, :0], h=problem.h[:, :0], A=problem.A[:, :0], b=problem.b[:, :0]
    )
    z, grads = call(build, bare)
    exact = reference(bare, np.zeros((BATCH, 0), dtype=bool))
    return compared(z, grads, exact, names=("q",))


def large_objective(build: Build) -> Verdict:
    problem, exact = base()
    z, grads = call(build, replace(problem, Q=1e8 * problem.Q, q=1e8 * problem.q))
    grads["q"] = 1e8 * grads["q"]
    return compared(z, grads, exact)


def large_row(build: Build) -> Verdict:
    problem, exact = base()
    scaled = replace(problem, G=problem.G.clone(), h=problem.h.clone())
    scaled.G[:, 0] *= 1e8
    scaled.h[:, 0] *= 1e8
    z, grads = call(build, scaled)
    grads["G"][:, 0] *= 1e8
    return compared(z, grads, exact)


def infinite_limit(build: Build) -> Verdict:
    problem = replace(base()[0], h=base()[0].h.clone())
    problem.h[:, 0] = torch.inf
    without = replace(problem, G=problem.G[:, 1:], h=problem.h[:, 1:])
    exact = reference(without, active_rows(without))
    z, grads = call(build, problem)
    verdict = compared(z, {"q": grads["q"], "G": grads["G"][:, 1:]}, exact)
    row = _kind(grads["G"][:, 0])
    return Verdict(verdict.right and row == "zero", f"{verdict.words}, dG of that row {row}")


def single(build: Build) -> Verdict:
    problem, exact = base(40, 40, 0, 4)
    halved = Problem(*(getattr(problem, name).float() for name in (*PARAMETERS, "weight")))
    leaves = [v.clone().requires_grad_() for v in halved.arguments()[:4] if v is not None]
    z = build(size_of(problem))(*leaves, None, None)
    grads = torch.autograd.grad((halved.weight.to(z) * z).sum(), leaves)
    found = {k: g.double().numpy() for k, g in zip(PARAMETERS, grads, strict=False)}
    verdict = compared(z.detach().double().numpy(), found, exact)
    kinds = {str(t.dtype).removeprefix("torch.") for t in (z, *grads)}
    words = f"{verdict.words} ({', '.join(sorted(kinds))} out)"
    return Verdict(verdict.right and kinds == {"float32"}, words)


def empty(build: Build) -> Verdict:
    problem = base()[0].head(0)
    z, grads = call(build, problem)
    right = z.shape == (0, N) and grads["G"].shape == (0, M, N)
    return Verdict(right, f"z of shape {z.shape}, backward works")


def _shared(build: Build, names: tuple[str, ...]) -> Verdict:
    """2-D matrices shared by the batch: their gradient is the sum over it."""
    problem, solved = base()
    one = {name: getattr(problem, name)[0] for name in names}
    # Room for the known solutions, so that every member has a feasible point.
    Gz = torch.from_numpy(solved.z) @ problem.G[0].mT
    problem = replace(problem, h=Gz + 0.5) if "G" in names else problem
    copies = replace(problem, **{k: v.expand(BATCH, *v.shape).clone() for k, v in one.items()})
    exact = reference(copies, active_rows(copies))
    leaves = {k: one.get(k, getattr(problem, k)).clone().requires_grad_() for k in PARAMETERS}
    z = build(size_of(problem))(*leaves.values())
    loss = (problem.weight * z).sum()
    grads = torch.autograd.grad(loss, [leaves[name] for name in names])
    off, right, words = size_error(z.detach().numpy(), exact.z), True, []
    for name, grad in zip(names, grads, strict=True):
        total = exact.gradients[name].sum(0)
        found = grad.numpy() if name != "Q" else (grad + grad.mT).numpy() / 2
        part = float((found * total).sum() / (total * total).sum())
        right &= size_error(found, total) <= GRADIENT_LIMIT
        words.append(f"d{name} = {part:.3g} x the sum")
    return Verdict(bool(right and off <= Z_LIMIT), f"z {off:.0e}, {', '.join(words)}")


def compiled(build: Build) -> Verdict:
    problem, exact = base()
    solve = build(size_of(problem))
    z = torch.compile(solve, fullgraph=True, backend="aot_eager")(*problem.arguments())
    off = size_error(z.numpy(), exact.z)
    return Verdict(off <= Z_LIMIT, f"z {off:.0e}")


def vmapped(build: Build) -> Verdict:
    problem, exact = base()
    solve = build(replace(size_of(problem), batch=1))

    def one(*data: Tensor) -> Tensor:
        return solve(*(value.unsqueeze(0) for value in data)).squeeze(0)

    z = torch.func.vmap(one)(*problem.arguments())
    off = size_error(z.detach().numpy(), exact.z)
    return Verdict(off <= Z_LIMIT, f"z {off:.0e}")


def jacobian(build: Build) -> Verdict:
    """dz/dq of one member by jacrev, beside the exact gradient of w'z."""
    problem, exact = base()
    Q, _, *rest = problem.head(1).arguments()
    solve = build(replace(size_of(problem), batch=1))
    rows = torch.func.jacrev(lambda q: solve(Q, q.unsqueeze(0), *rest).squeeze(0))(problem.q[0])
    off = size_error((problem.weight[0] @ rows).detach().numpy(), exact.gradients["q"][0])
    return Verdict(off <= GRADIENT_LIMIT, f"dq {off:.0e}")


def second(build: Build) -> Verdict:
    """A Hessian-vector product in G, beside differences of exact gradients."""
    problem = base()[0]
    step = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(problem.G.shape)))
    ends = []
    for sign in (1e-5, -1e-5):
        moved = replace(problem, G=problem.G + sign * step)
        ends.append(reference(moved, active_rows(moved)).gradients["G"])
    expected = (ends[0] - ends[1]) / 2e-5
    leaves = [v.clone().requires_grad_() for v in problem.arguments() if v is not None]
    z = build(size_of(problem))(*leaves)
    (grad,) = torch.autograd.grad((problem.weight * z).sum(), leaves[2], create_graph=True)
    (found,) = torch.autograd.grad((grad * step).sum(), leaves[2])
    off = size_error(found.numpy(), expected)
    return Verdict(off <= GRADIENT_LIMIT, f"relative error {off:.0e}")


CASES = (
    Case("one infeasible member of 8", infeasible),
    Case("NaN in one member's q", nan),
    Case("the same, and that member's loss masked", nan_masked),
    Case("LP (Q = 0) over a box", program),
    Case("equality rows given twice", twin_equality),
    Case("inequality rows given twice", twin_row),
    Case("row that holds with multiplier zero", weak),
    Case("five active rows at a vertex in 3-D", vertex),
    Case("no constraints at all", unconstrained),
    Case("objective times 1e8", large_objective),
    Case("one row times 1e8", large_row),
    Case("h = +inf in one row", infinite_limit),
    Case("float32 arguments, n = m = 40", single),
    Case("empty batch", empty),
    Case("Q shared: its gradient", lambda build: _shared(build, ("Q",))),
    Case("Q and G shared: their gradients", lambda build: _shared(build, ("Q", "G"))),
    Case("torch.compile(fullgraph=True)", compiled),
    Case("torch.func.vmap", vmapped),
    Case("torch.func.jacrev", jacobian),
    Case("double backward", second),
)


def run(case: Case, build: Build) -> Verdict:
    """The verdict; whatever is raised is wrong, and said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return case.run(build)
    except BaseException as error:  # a Rust panic is no Exception
        lines = str(error).strip().splitlines() or [""]
        return Verdict(False, f"raises {type(error).__name__}: {lines[0]}"[:110])
