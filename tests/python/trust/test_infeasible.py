"""I1 to I6: problems without a feasible point or without a minimum, and those that only look so."""

import pytest
import torch
from contract import INF, MODES, NAN, D, assert_honest, statuses, tensor, within

import torchqp
from torchqp import Diag, Settings, Status, testing

SIZES = (2, 5, 10, 20, 40, 80)


def assert_flagged(problem: dict, status: Status) -> None:
    """All members have the status, NaN outputs and exactly zero gradients."""
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert bool((solution.status == status).all()), solution.status
    for name, value in testing.outputs(solution):
        assert bool(value.isnan().all()), name
    for name, grad in grads.items():
        assert not bool(grad.any()), name


@pytest.mark.parametrize("kind", ["rows", "equalities", "bounds"])
def test_I1_contradictory_constraints_are_infeasible(kind: str) -> None:
    """Qpth #31 never reports it; diffcp #70 raises for the whole batch."""
    for n in SIZES:
        assert_flagged(testing.infeasible(n, 12, kind, seed=n), Status.PRIMAL_INFEASIBLE)


@pytest.mark.parametrize("hessian", ["definite", "zero", "diagonal"])
def test_I1_empty_boxes_and_simplices_are_infeasible(hessian: str) -> None:
    for n in SIZES:
        z = torch.randn(12, n, dtype=D)
        Q = {
            "definite": torch.eye(n, dtype=D),
            "zero": torch.zeros(n, n, dtype=D),
            "diagonal": Diag(torch.ones(n, dtype=D)),
        }[hessian]
        box = {"Q": Q, "q": torch.randn(12, n, dtype=D), "lb": z - 1, "ub": z + 1}
        a = torch.randn(12, 1, n, dtype=D)
        least = (torch.minimum(a[:, 0] * (z - 1), a[:, 0] * (z + 1))).sum(-1, keepdim=True)
        assert_flagged(box | {"G": a, "h": least - 1}, Status.PRIMAL_INFEASIBLE)
        assert_flagged(box | {"A": a, "b": least - 1}, Status.PRIMAL_INFEASIBLE)
        ones = torch.ones(1, n, dtype=D)
        simplex = {"Q": Q, "q": box["q"], "A": ones, "b": tensor(-1.0), "lb": torch.zeros_like(z)}
        assert_flagged(simplex, Status.PRIMAL_INFEASIBLE)


@pytest.mark.parametrize("kind", ["rows", "box", "simplex", "program"])
def test_I1_near_misses_are_infeasible(kind: str) -> None:
    for gap in (1e-3, 1e-6):
        assert_flagged(near(kind, 20, gap), Status.PRIMAL_INFEASIBLE)


def near(kind: str, batch: int, gap: float, n: int = 8, seed: int = 5) -> dict:
    """Problems that miss feasibility by `gap`, or have -gap of room."""
    draw = testing.make("many_rows", n, batch, seed=seed)
    G, z = draw["G"][:, :n], torch.randn(batch, n, dtype=D)
    a = torch.randn(batch, 1, n, dtype=D)
    middle, room = testing.times(a, z), testing.times(G, z) + 0.5
    cost = {"Q": draw["Q"], "q": draw["q"]}
    rows = {"G": torch.cat([G, a, -a], -2), "h": torch.cat([room, middle - gap, -middle], -1)}
    box = {"lb": z - 1, "ub": z + 1}
    least = torch.minimum(a[:, 0] * box["lb"], a[:, 0] * box["ub"]).sum(-1, keepdim=True)
    return {
        "rows": lambda: cost | rows,
        "box": lambda: cost | box | {"G": a, "h": least - gap},
        "simplex": lambda: (
            cost
            | {
                "A": torch.ones(batch, 1, n, dtype=D),
                "b": torch.full((batch, 1), -gap, dtype=D),
                "lb": torch.zeros(batch, n, dtype=D),
            }
        ),
        "program": lambda: cost | rows | box | {"Q": 0 * cost["Q"]},
        "equalities": lambda: (
            cost | {"A": torch.cat([a, a], -2), "b": torch.cat([middle, middle + gap], -1)}
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_I2_unbounded_problems_are_dual_infeasible(kind: str) -> None:
    for n in SIZES:
        assert_flagged(testing.unbounded(n, 9, kind, seed=n), Status.DUAL_INFEASIBLE)


def test_I2_rays_in_the_null_space_are_found_and_tiny_curvature_is_no_ray() -> None:
    zeros = torch.zeros(3, dtype=D)
    flat = torch.diag(tensor(1.0, 1.0, 0.0))
    assert statuses({"Q": flat, "q": tensor(0.0, 0.0, -1.0), "lb": zeros}) == [3]
    assert statuses({"Q": flat, "q": tensor(0.0, 0.0, 1.0), "lb": zeros}) == [0]
    assert statuses({"Q": 0 * flat, "q": -torch.ones(3, dtype=D), "lb": zeros}) == [3]
    assert statuses({"Q": 0 * flat, "q": -torch.ones(3, dtype=D)}) == [3]
    bent = torch.diag(tensor(1.0, 2.0**-52))
    solution = torchqp.solve_qp(bent, tensor(0.0, -1.0))
    if int(solution.status) == 0:
        assert float(solution.z[1]) == pytest.approx(2.0**52, rel=1e-6)
    else:
        assert int(solution.status) == Status.DUAL_INFEASIBLE


def test_I3_infeasible_and_unbounded_at_once_is_one_of_the_two() -> None:
    for n in (2, 6, 20):
        a = torch.randn(10, 1, n, dtype=D)
        a[..., 0] = 0.0
        rows = {"G": torch.cat([a, -a], -2), "h": -torch.ones(2, dtype=D)}
        q = torch.zeros(n, dtype=D)
        q[0] = -1.0
        found = statuses({"Q": torch.zeros(n, n, dtype=D), "q": q} | rows)
        assert set(found) <= {Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE}, n


def test_I4_a_thousand_barely_feasible_problems_are_never_called_infeasible() -> None:
    """HiGHS #768, pounce #303, ProxQP #445: false statuses where phase 1 stalls."""
    tried = 0
    for kind in ("rows", "box", "simplex", "program", "equalities"):
        for power in (3, 6, 7, 8, 9):
            problem = near(kind, 40, 0.0 if kind == "equalities" else -(10.0**-power))
            solution = torchqp.solve_qp(**problem)
            assert not bool((solution.status > 1).any()), (kind, power)
            assert_honest(problem, solution)
            tried += 40
    assert tried == 1000


@pytest.mark.parametrize("max_iter", [0, 1, 2])
@pytest.mark.parametrize("on_failure", ["nan", "best"])
def test_I5_the_iteration_limit_is_a_status_with_zero_gradients(
    max_iter: int, on_failure: str
) -> None:
    problem = testing.make("many_rows", 12, 5, seed=1)
    settings = Settings(max_iter=max_iter, polish=False)
    for mode in MODES:
        solution, grads = testing.pullback(
            torchqp.solve_qp, problem, settings=settings, on_failure=on_failure, backward=mode
        )
        assert solution.status.tolist() == [Status.MAX_ITERATIONS] * 5
        finite = solution.z.isfinite().all(-1)
        assert bool(finite.all()) if on_failure == "best" else not bool(finite.any())
        for name, grad in grads.items():
            assert not bool(grad.any()), name


def test_I5_the_best_iterate_comes_nearer_with_more_iterations() -> None:
    problem = testing.make("many_rows", 12, 5, seed=1)
    answer, distance = torchqp.solve_qp(**problem).z, INF
    for max_iter in (1, 3, 5):
        settings = Settings(max_iter=max_iter, polish=False)
        z = torchqp.solve_qp(**problem, settings=settings, on_failure="best").z
        assert float((z - answer).norm()) < distance
        distance = float((z - answer).norm())


def test_I6_cones_other_than_the_orthant_are_no_argument() -> None:
    """Second-order, exponential and semidefinite cones are outside of what a QP states."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'cones'"):
        torchqp.solve_qp(torch.eye(2), torch.ones(2), cones={"q": [2]})


def test_I_bad_members_of_every_kind_return_in_time() -> None:
    for n in (1, 3, 40):
        Q = torch.eye(n, dtype=D).expand(7, n, n).clone()
        q, lb = torch.randn(7, n, dtype=D), torch.full((7, n), -1.0, dtype=D)
        for member, value in enumerate((NAN, INF, -INF, 1e308, -1e308, 5e-324)):
            q[member, 0] = value
        lb[6, 0] = 2.0
        with within(1.0):
            assert statuses({"Q": Q, "q": q, "lb": lb, "ub": -lb.clamp(max=-1.0)})[6] == 6
