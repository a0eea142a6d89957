"""Solutions: residuals recomputed outside the solver, closed forms, relations between problems."""

import pytest
import torch
from torch import Tensor

import torchqp
from torchqp import Diag, Settings, reference, testing

D = torch.float64
LIMIT = {torch.float64: 1e-8, torch.float32: 1e-4}
PER_SIZE = 20


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_200_problems_of_every_family_meet_the_tolerance(family: str, dtype: torch.dtype) -> None:
    iterations = []
    for n in testing.SIZES:
        problem = testing.make(family, n, PER_SIZE, seed=n, dtype=dtype)
        solution = torchqp.solve_qp(**problem)
        assert solution.z.dtype == dtype
        assert solution.status.tolist() == [0] * PER_SIZE, (n, solution.status)
        residuals = testing.kkt_residuals(problem, solution)
        assert not bool(residuals.isnan().any())
        assert float(residuals.max()) <= LIMIT[dtype], (n, residuals.amax(0))
        iterations += solution.iterations.tolist()
    assert len(iterations) == 200
    assert sorted(iterations)[197] <= 30


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_values_and_multipliers_are_the_references(family: str) -> None:
    for n in (3, 8, 20):
        problem = testing.make(family, n, 3, seed=100 + n)
        ours, theirs = torchqp.solve_qp(**problem), reference.solve_qp(**problem)
        assert testing.relative_error(ours.z, theirs.z) <= 1e-6, n
        finite = theirs.s.isfinite()
        assert torch.equal(finite, ours.s.isfinite())
        assert testing.relative_error(ours.s[finite], theirs.s[finite]) <= 1e-6, n
        if family == "degenerate":  # only what the multipliers do is unique
            for name, matrix in (("lam", "G"), ("nu", "A")):
                pull = [testing.times(problem[matrix].mT, getattr(s, name)) for s in (ours, theirs)]
                assert testing.relative_error(*pull) <= 1e-6, n
            continue
        for name in testing.MULTIPLIERS:
            assert testing.relative_error(getattr(ours, name), getattr(theirs, name)) <= 1e-6, name


@pytest.mark.parametrize("family", ["strictly_convex", "two_sided", "linear", "simplex", "optnet"])
def test_reported_residuals_are_those_of_the_data(family: str, dtype: torch.dtype) -> None:
    """Residuals are honest: within rounding of what the data say, or above it."""
    problem = testing.make(family, 13, 10, seed=5, dtype=dtype)
    solution = torchqp.solve_qp(**problem)
    recomputed = testing.kkt_residuals(problem, solution)
    rounding = 100 * torch.finfo(dtype).eps
    assert float((recomputed - solution.residuals.double()).abs().max()) <= rounding


def test_relu_and_box_in_closed_form(dtype: torch.dtype) -> None:
    w = torch.linspace(-3, 3, 41, dtype=dtype).expand(4, 41)
    limit = 1e-12 if dtype == D else 1e-5
    solution = torchqp.solve_qp(Diag(torch.ones(41, dtype=dtype)), -w, lb=torch.zeros(41).to(dtype))
    assert float((solution.z - w.clamp(min=0)).abs().max()) <= limit
    assert float((solution.lam_lb - (-w).clamp(min=0)).abs().max()) <= limit
    ones = torch.ones(41, dtype=dtype)
    solution = torchqp.solve_qp(torch.eye(41, dtype=dtype), -w, lb=-ones, ub=2 * ones)
    assert float((solution.z - w.clamp(-1, 2)).abs().max()) <= limit
    assert float((solution.lam_ub - (w - 2).clamp(min=0)).abs().max()) <= limit


def project_simplex(w: Tensor) -> Tensor:
    """Sort-based projection onto {z >= 0, sum z = 1} (Held, Wolfe and Crowder 1974)."""
    ordered = w.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, w.shape[-1] + 1, dtype=w.dtype)
    support = (ordered - excess / count > 0).sum(-1, keepdim=True)
    return (w - excess.gather(-1, support - 1) / support).clamp(min=0)


@pytest.mark.parametrize("n", [2, 5, 33, 100, 200])
def test_simplex_projection_in_closed_form(n: int, dtype: torch.dtype) -> None:
    w = torch.randn(16, n, dtype=D).to(dtype)
    ones = torch.ones(1, n, dtype=dtype)
    options = {"A": ones, "b": ones[0, :1], "lb": torch.zeros(n, dtype=dtype)}
    expected = project_simplex(w.double())
    for Q in (Diag(torch.ones(n, dtype=dtype)), torch.eye(n, dtype=dtype)):
        z = torchqp.solve_qp(Q, -w, **options).z.double()
        assert float((z - expected).abs().max()) <= (1e-10 if dtype == D else 2e-5)


@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "two_sided", "semidefinite"])
def test_relations_between_problems(family: str) -> None:
    """Scaled objective and rows, permuted variables, an inactive row more: the same solution."""
    problem = testing.make(family, 10, 4, seed=11)
    base = torchqp.solve_qp(**problem)
    m, n = problem["G"].shape[-2:]

    def check(changed: dict, z: Tensor, lam: Tensor) -> None:
        solution = torchqp.solve_qp(**changed)
        assert bool((solution.status == 0).all())
        assert testing.relative_error(solution.z, z) <= 1e-8
        assert testing.relative_error(solution.lam, lam) <= 1e-7

    check(problem | {"Q": 7 * problem["Q"], "q": 7 * problem["q"]}, base.z, 7 * base.lam)
    scale = 10 ** torch.linspace(-2, 2, m, dtype=D)
    rows = {k: scale * problem[k] for k in ("h", "h_lower") if k in problem}
    check(problem | {"G": scale[:, None] * problem["G"]} | rows, base.z, base.lam / scale)
    order = torch.randperm(n)
    moved = {k: problem[k][..., order] for k in problem if k not in ("h", "h_lower", "b")}
    moved["Q"] = moved["Q"][..., order, :]
    check(problem | moved, base.z[..., order], base.lam)
    one = {"G": torch.cat([problem["G"], torch.ones(4, 1, n, dtype=D)], -2)}
    for k, far in (("h", 1e4), ("h_lower", -1e4)):
        if k in problem:
            one[k] = torch.cat([problem[k], torch.full((4, 1), far, dtype=D)], -1)
    check(problem | one, base.z, torch.cat([base.lam, torch.zeros(4, 1, dtype=D)], -1))


def test_bounds_written_as_rows_and_equalities_as_two_rows() -> None:
    box = testing.make("box", 9, 5, seed=2)
    base = torchqp.solve_qp(**box)
    rows = {"G": torch.eye(9, dtype=D), "h": box["ub"], "h_lower": box["lb"]}
    as_rows = torchqp.solve_qp(box["Q"], box["q"], **rows)
    assert testing.relative_error(as_rows.z, base.z) <= 1e-9
    assert testing.relative_error(as_rows.lam, base.lam_ub - base.lam_lb) <= 1e-8

    problem = testing.make("equality_only", 8, 5, seed=2)
    base = torchqp.solve_qp(**problem)
    A, b = problem["A"], problem["b"]
    pair = torchqp.solve_qp(
        problem["Q"], problem["q"], torch.cat([A, -A], -2), torch.cat([b, -b], -1)
    )
    assert testing.relative_error(pair.z, base.z) <= 1e-7
    two_sided = torchqp.solve_qp(problem["Q"], problem["q"], A, b, h_lower=b)
    assert testing.relative_error(two_sided.z, base.z) <= 1e-9
    assert testing.relative_error(two_sided.lam, base.nu) <= 1e-8


def test_twin_rows_share_the_multiplier() -> None:
    problem = testing.make("degenerate", 10, 6, seed=4)
    half = problem["G"].shape[-2] // 2
    single = problem | {"G": problem["G"][..., :half, :], "h": problem["h"][..., :half]}
    twins, alone = torchqp.solve_qp(**problem), torchqp.solve_qp(**single)
    assert testing.relative_error(twins.z, alone.z) <= 1e-8
    total = twins.lam[..., :half] + twins.lam[..., half:]
    assert testing.relative_error(total, alone.lam) <= 1e-7


def test_only_the_symmetric_part_of_Q_counts() -> None:
    problem = testing.make("strictly_convex", 7, 3, seed=8)
    skew = torch.randn(7, 7, dtype=D)
    base = torchqp.solve_qp(**problem)
    turned = torchqp.solve_qp(**(problem | {"Q": problem["Q"] + skew - skew.mT}))
    assert testing.relative_error(turned.z, base.z) <= 1e-10


@pytest.mark.parametrize("family", ["simplex", "box", "strictly_convex", "many_rows"])
def test_diagonal_Q_equals_the_dense_one(family: str) -> None:
    problem = testing.make(family, 12, 6, seed=9)
    d = torch.rand(6, 12, dtype=D) + 0.5
    diagonal = torchqp.solve_qp(**(problem | {"Q": Diag(d)}))
    dense = torchqp.solve_qp(**(problem | {"Q": torch.diag_embed(d)}))
    assert bool((diagonal.status == 0).all())
    for name, value in testing.outputs(diagonal):
        assert testing.relative_error(value, getattr(dense, name)) <= 1e-8, name


@pytest.mark.parametrize("side", ["lb", "ub"])
def test_a_variable_near_a_bound_is_not_put_on_it_for_a_large_one_beside(
    side: str, dtype: torch.dtype
) -> None:
    """Eight roundings of the large one are about twice the distance.

    1e-4: the tolerances are relative to the large one. On the bound it would be wrong by 1.
    """
    large, near = (1e8, 1e-7) if dtype == D else (1e6, 0.4)
    sign = 1.0 if side == "lb" else -1.0
    q = torch.tensor([-large, -near, 1.0], dtype=dtype) * sign
    solution = torchqp.solve_qp(torch.eye(3, dtype=dtype), q, **{side: 0.0})
    assert int(solution.status) == 0
    expected = torch.tensor([large, near, 0.0], dtype=dtype) * sign
    torch.testing.assert_close(solution.z, expected, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("infinity", [float("inf"), 1.01e20, 1e30])
def test_infinite_sides_are_absent_and_large_finite_ones_are_not(infinity: float) -> None:
    problem = testing.make("two_sided", 8, 5, seed=6)
    kept = {k: problem[k] for k in ("Q", "q", "G", "h")}
    base = torchqp.solve_qp(**kept)
    wide = torch.full((8,), infinity, dtype=D)
    solution = torchqp.solve_qp(**kept, h_lower=-wide, lb=-wide, ub=wide)
    assert testing.relative_error(solution.z, base.z) <= 1e-9
    for name in ("lam_lb", "lam_ub"):
        assert float(getattr(solution, name).abs().max()) == 0.0
    # Below the threshold the side is a limit like any other: this row is the optimum.
    far = torchqp.solve_qp(
        torch.zeros(1, 1, dtype=D), torch.ones(1, dtype=D), lb=torch.full((1,), -0.99e20, dtype=D)
    )
    assert int(far.status) in (0, 1, 4, 5)
    free = torchqp.solve_qp(
        torch.zeros(1, 1, dtype=D), torch.ones(1, dtype=D), lb=torch.full((1,), -1.01e20, dtype=D)
    )
    assert int(free.status) == torchqp.Status.DUAL_INFEASIBLE


@pytest.mark.parametrize("family", ["strictly_convex", "linear", "two_sided", "simplex", "optnet"])
def test_a_warm_start_gives_the_same_solution(family: str) -> None:
    problem = testing.make(family, 12, 5, seed=3)
    cold = torchqp.solve_qp(**problem)
    near = problem | {"q": problem["q"] + 1e-3}
    warm, again = torchqp.solve_qp(**near, warm_start=cold), torchqp.solve_qp(**near)
    assert bool((warm.status == 0).all())
    assert testing.relative_error(warm.z, again.z) <= 1e-7


def test_tight_settings_reach_rounding_and_loose_ones_save_iterations() -> None:
    problem = testing.make("many_rows", 20, 5, seed=3)
    tight = torchqp.solve_qp(**problem, settings=Settings(eps_abs=1e-12, eps_rel=1e-12))
    assert bool((tight.status == 0).all())
    assert float(testing.kkt_residuals(problem, tight).max()) <= 1e-12
    loose = Settings(eps_abs=1e-3, eps_rel=1e-3, polish=False)
    quick = torchqp.solve_qp(**problem, settings=loose)
    assert float(testing.kkt_residuals(problem, quick).max()) <= 1e-3
    assert int(quick.iterations.sum()) < int(tight.iterations.sum())


@pytest.mark.parametrize(("n", "m", "p"), [(20, 40, 0), (20, 20, 10), (4, 8, 0)])
def test_crowded_float32_is_worked_on_in_float64(n: int, m: int, p: int) -> None:
    """In single precision it took up to five times the iterations; see skips_single in core.

    Residuals are those before the solution is rounded: single precision ends near 1e-6.
    """
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=D)

    factor, G, A, z0 = normal(64, n, n), normal(64, m, n), normal(64, p, n), normal(64, n)
    problem = dict(Q=factor @ factor.mT, q=normal(64, n), G=G, h=testing.times(G, z0) + 0.5)
    if p:
        problem |= dict(A=A, b=testing.times(A, z0))
    double = torchqp.solve_qp(**problem)
    single = torchqp.solve_qp(**{name: value.float() for name, value in problem.items()})
    assert single.status.eq(0).all() and double.status.eq(0).all()
    assert float(single.residuals.max()) <= 1e-10
    assert float(single.iterations.sum()) <= 1.2 * float(double.iterations.sum())
    assert testing.relative_error(single.z.double(), double.z) <= 1e-3


def test_the_zero_problem_and_zero_rows() -> None:
    zeros = torch.zeros(3, dtype=D)
    ones = torch.ones(3, dtype=D)
    none = torchqp.solve_qp(torch.zeros(3, 3, dtype=D), zeros, lb=-ones, ub=ones)
    assert int(none.status) == 0
    empty_row = {"G": torch.zeros(1, 3, dtype=D), "h": ones[:1]}
    solution = torchqp.solve_qp(torch.eye(3, dtype=D), -ones, **empty_row)
    assert int(solution.status) == 0
    assert testing.relative_error(solution.z, ones) <= 1e-12
    assert float(solution.lam) == 0.0
    equality = {"A": torch.zeros(1, 3, dtype=D), "b": zeros[:1]}
    solution = torchqp.solve_qp(torch.eye(3, dtype=D), -ones, **equality)
    assert int(solution.status) == 0
    assert testing.relative_error(solution.z, ones) <= 1e-10
