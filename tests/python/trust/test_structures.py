"""Structures that hypothesis draws, and relations between problems that hold whatever the numbers.

Hypothesis chooses sizes, ranks, copies, infinities and scales; a seed gives the numbers.
"""

from dataclasses import dataclass

import pytest
import torch
from contract import D, assert_honest
from hypothesis import given, settings
from hypothesis import strategies as st

import torchqp
from torchqp import Diag, Settings, testing

SHARP = Settings(eps_abs=1e-10, eps_rel=1e-10)
EXAMPLES = settings(max_examples=80, deadline=None, derandomize=True, database=None)


@dataclass(frozen=True)
class Structure:
    """What a problem is made of."""

    n: int
    rows: int
    equalities: int
    rank: int  # of Q; n and a ridge make it definite
    twins: int  # rows given twice
    weak: int  # rows that hold with multiplier zero
    tight: int  # rows that hold with a multiplier
    zero_rows: int
    redundant: int  # equalities that are sums of others
    two_sided: bool
    bounds: str
    far: float  # what stands for no limit
    scale: int  # powers of ten between the rows
    seed: int


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    n = draw(st.integers(1, 9))
    rows = draw(st.integers(0, 2 * n))
    equalities = draw(st.integers(0, n // 2))
    tight = draw(st.integers(0, min(rows, n - equalities)))
    return Structure(
        n,
        rows,
        equalities,
        draw(st.integers(0, n)),
        draw(st.integers(0, min(rows, 3))),
        draw(st.integers(0, min(rows - tight, 2))),
        tight,
        draw(st.integers(0, 2)),
        draw(st.integers(0, 2)) if equalities else 0,
        draw(st.booleans()),
        draw(st.sampled_from(["none", "lower", "both", "fixed"])),
        draw(st.sampled_from([float("inf"), 1e20, 1e25])),
        draw(st.integers(0, 4)),
        draw(st.integers(0, 2**31)),
    )


def build(s: Structure, batch: int = 3) -> dict:
    """Problems with a known solution: q makes a drawn z optimal."""
    generator = torch.Generator().manual_seed(s.seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=D)

    times, root, z = testing.times, normal(s.n, max(s.rank, 1)), normal(s.n)
    Q = root @ root.mT if s.rank else torch.zeros(batch, s.n, s.n, dtype=D)
    if s.rank == s.n:
        Q = Q + 0.1 * torch.eye(s.n, dtype=D)
    slope = times(Q, z)
    problem = {"Q": Q}
    if s.rows or s.zero_rows:
        G = normal(s.rows, s.n)
        order = torch.arange(s.rows)
        lam = torch.where(order < s.tight, 0.5 + normal(s.rows).abs(), 0.0)
        slack = torch.where(order < s.tight + s.weak, 0.0, 0.1 + normal(s.rows).abs())
        slope = slope + times(G.mT, lam)
        h = times(G, z) + slack
        low = h - 1 - normal(s.rows).abs() - slack
        G = torch.cat([G, G[:, : s.twins], torch.zeros(batch, s.zero_rows, s.n, dtype=D)], 1)
        zeros = torch.zeros(batch, s.zero_rows, dtype=D)
        h = torch.cat([h, h[:, : s.twins], zeros], 1)
        low = torch.cat([low, torch.full_like(low[:, : s.twins], -s.far), zeros - 1], 1)
        power = torch.linspace(0, s.scale, G.shape[1], dtype=D) - s.scale / 2
        size = 10**power
        problem |= {"G": size[:, None] * G, "h": size * h}
        if s.two_sided:
            problem["h_lower"] = torch.where(low <= -1e20, low, size * low)
    if s.equalities:
        A, nu = normal(s.equalities, s.n), normal(s.equalities)
        slope = slope + times(A.mT, nu)
        A = torch.cat([A, A.sum(1, keepdim=True).expand(batch, s.redundant, s.n)], 1)
        problem |= {"A": A, "b": times(A, z)}
    # Without a bounded set a singular Q needs q in the span of what holds: it is, by `slope`.
    if s.bounds != "none":
        held = torch.arange(s.n) % 3 == 0
        low = torch.where(held, z, z - 0.1 - normal(s.n).abs())
        slope = slope - torch.where(held, 0.3, 0.0)
        problem["lb"] = low
        if s.bounds == "both":
            problem["ub"] = torch.where(torch.arange(s.n) % 2 == 0, z + 1, s.far)
        if s.bounds == "fixed":
            problem["ub"] = torch.where(held, z, s.far)
    return problem | {"q": -slope}


def value(problem: dict, z: torch.Tensor) -> torch.Tensor:
    return (z * (testing.times(problem["Q"], z) / 2 + problem["q"])).sum(-1)


@EXAMPLES
@given(structures())
def test_any_structure_is_solved_honestly_with_finite_gradients(s: Structure) -> None:
    problem = build(s)
    for mode in ("kkt", "smoothed", "lpgd"):
        solution, grads = testing.pullback(torchqp.solve_qp, problem, 0, backward=mode)
        assert solution.status.tolist() == [0] * 3
        assert_honest(problem, type(solution)(*(t.detach() for t in solution)))
        for name, grad in grads.items():
            assert bool(grad.isfinite().all()), (mode, name)


@EXAMPLES
@given(structures())
def test_any_structure_in_single_precision(s: Structure) -> None:
    problem = testing.cast(build(s), torch.float32)
    solution, grads = testing.pullback(torchqp.solve_qp, problem, 0)
    claimed = testing.kkt_residuals(problem, solution)[solution.status == 0]
    assert bool((claimed <= 1e-4).all())
    # Rounding the data may make dependent equalities inconsistent, by no more than it is.
    assert bool((solution.status <= 1).all()) or s.redundant or s.bounds == "fixed"
    assert all(bool(grad.isfinite().all()) for grad in grads.values())


def related(change: str, problem: dict, solution: torchqp.Solution) -> tuple[dict, torch.Tensor]:
    """Another problem, and the objective value that its solution must have in its own terms."""
    generator = torch.Generator().manual_seed(1)
    n, best = problem["q"].shape[-1], value(problem, solution.z)
    m = problem["G"].shape[-2] if "G" in problem else 0
    if change == "scale the objective":
        return problem | {"Q": 7e3 * problem["Q"], "q": 7e3 * problem["q"]}, 7e3 * best
    if change == "scale the rows":
        size = 10 ** torch.linspace(-2, 2, m, dtype=D)
        sides = {k: size * problem[k] for k in ("h", "h_lower") if k in problem}
        return problem | ({"G": size[:, None] * problem["G"]} if m else {}) | sides, best
    if change == "permute variables":
        order = torch.randperm(n, generator=generator)
        moved = {k: problem[k][..., order] for k in problem if k not in ("h", "h_lower", "b")}
        moved["Q"] = moved["Q"][..., order, :]
        return problem | moved, best
    if change == "permute rows":
        order = torch.randperm(m, generator=generator)
        moved = {k: problem[k][:, order] for k in ("G", "h", "h_lower") if k in problem}
        return problem | moved, best
    if change == "shift":
        by = torch.randn(n, generator=generator, dtype=D)
        Qd = testing.times(problem["Q"], by.expand_as(problem["q"]))
        moved = {"q": problem["q"] - Qd}
        for matrix, sides in (("G", ("h", "h_lower")), ("A", ("b",))):
            if matrix in problem:
                step = testing.times(problem[matrix], by)
                moved |= {k: problem[k] + step for k in sides if k in problem}
        moved |= {k: problem[k] + by for k in ("lb", "ub") if k in problem}
        constant = (by * (Qd / 2 - problem["q"])).sum(-1)
        return problem | moved, best - constant
    if change == "add an inactive row":
        row = torch.ones(3, 1, n, dtype=D)
        far = (solution.z.abs().sum(-1, keepdim=True) + 1) * 10
        G = torch.cat([problem["G"], row], 1) if m else row
        moved = {"G": G, "h": torch.cat([problem["h"], far], 1) if m else far}
        if "h_lower" in problem:
            moved["h_lower"] = torch.cat([problem["h_lower"], -far], 1)
        return problem | moved, best
    if change == "bounds as rows":
        kept = {k: v for k, v in problem.items() if k not in ("lb", "ub")}
        if len(kept) == len(problem):
            return problem, best
        none = torch.full((3, n), torch.inf, dtype=D)
        eye = torch.eye(n, dtype=D).expand(3, n, n)
        low, high = problem.get("lb", -none), problem.get("ub", none)
        if m:
            missing = torch.full((3, m), -torch.inf, dtype=D)
            eye = torch.cat([problem["G"], eye], 1)
            low = torch.cat([problem.get("h_lower", missing), low], 1)
            high = torch.cat([problem["h"], high], 1)
        return kept | {"G": eye, "h_lower": low, "h": high}, best
    if change == "equalities as two rows":
        if "A" not in problem:
            return problem, best
        kept = {k: v for k, v in problem.items() if k not in ("A", "b")}
        A, b = problem["A"], problem["b"]
        G = torch.cat([*([problem["G"]] if m else []), A, -A], 1)
        h = torch.cat([*([problem["h"]] if m else []), b, -b], 1)
        kept |= {"G": G, "h": h}
        if "h_lower" in problem:
            wide = torch.full((3, 2 * b.shape[1]), -torch.inf, dtype=D)
            kept["h_lower"] = torch.cat([problem["h_lower"], wide], 1)
        return kept, best
    raise ValueError(change)


CHANGES = (
    "scale the objective",
    "scale the rows",
    "permute variables",
    "permute rows",
    "shift",
    "add an inactive row",
    "bounds as rows",
    "equalities as two rows",
)


@pytest.mark.parametrize("change", CHANGES)
def test_relations_between_problems_hold_for_any_structure(change: str) -> None:
    """The value always, the point where it is unique (a definite Q)."""

    @settings(EXAMPLES, max_examples=40)
    @given(structures())
    def check(s: Structure) -> None:
        problem = build(s)
        if change in ("permute rows", "scale the rows") and "G" not in problem:
            return
        base = torchqp.solve_qp(**problem, settings=SHARP)
        other, best = related(change, problem, base)
        solution = torchqp.solve_qp(**other, settings=SHARP)
        assert bool((solution.status <= 1).all()), solution.status
        assert testing.relative_error(value(other, solution.z), best) <= 1e-6

    check()


def test_a_diagonal_Q_of_any_structure_is_the_dense_one() -> None:
    @settings(EXAMPLES, max_examples=40)
    @given(structures())
    def check(s: Structure) -> None:
        problem = build(s)
        d = torch.rand(3, s.n, generator=torch.Generator().manual_seed(s.seed), dtype=D) + 0.5
        a = torchqp.solve_qp(**(problem | {"Q": Diag(d)}))
        b = torchqp.solve_qp(**(problem | {"Q": torch.diag_embed(d)}))
        assert a.status.tolist() == b.status.tolist() == [0] * 3
        assert testing.relative_error(a.z, b.z) <= 1e-7

    check()
