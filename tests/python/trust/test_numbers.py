"""N1 to N8: what numbers may do. NaN, infinities, subnormal and huge values, limits that meet."""

import math

import pytest
import torch
from contract import INF, MODES, NAN, D, all_nine, assert_honest, assert_same, tensor, within

import torchqp
from torchqp import Settings, Status, testing


@pytest.mark.parametrize("name", testing.PARAMETERS)
def test_N1_nan_in_one_argument_of_one_member_is_its_own_affair(name: str) -> None:
    problem = testing.with_value(all_nine(), name, NAN, at=2)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    for mode in MODES:
        solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        assert solution.status.tolist() == [0, 0, Status.INVALID_INPUT, 0]
        for i in (0, 1, 3):
            alone, alone_grads = testing.pullback(
                torchqp.solve_qp,
                testing.take(problem, i),
                {k: w[i] for k, w in weights.items()},
                backward=mode,
            )
            assert_same(alone, solution, i, mode)
            assert_same(alone_grads, grads, i, mode)
        for key, grad in grads.items():
            assert not bool(grad[2].any()), (mode, key)


@pytest.mark.parametrize("name", ["Q", "q", "G", "A", "b"])
@pytest.mark.parametrize("value", [INF, -INF])
def test_N2_infinite_data_is_invalid(name: str, value: float) -> None:
    solution = torchqp.solve_qp(**testing.with_value(all_nine(), name, value, at=1))
    assert solution.status.tolist() == [0, Status.INVALID_INPUT, 0, 0]
    assert bool(solution.z[1].isnan().all())


EXTREMES = (-0.0, 5e-324, 1e-310, 1e-300, 1e-160, 1e160, 1e300, 1.7976931348623157e308)


@pytest.mark.parametrize("name", testing.PARAMETERS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_N3_extreme_numbers_have_a_status_that_is_honest(name: str, sign: float) -> None:
    problem = all_nine(len(EXTREMES))
    for member, value in enumerate(EXTREMES):
        problem = testing.with_value(problem, name, sign * value, at=member)
    with within(1.0):
        solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert_honest(problem, solution)
    for grad in grads.values():
        assert not bool(grad[solution.status > 1].any())
        assert bool(grad.isfinite().all())


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-30, 1e30, 1e160, 1e300])
@pytest.mark.parametrize("names", [("Q", "q"), ("G", "h"), ("A", "b")])
def test_N3_extreme_scales_have_a_status_that_is_honest(scale: float, names: tuple) -> None:
    problem = testing.make("strictly_convex", 6, 4, seed=1)
    for name in names:
        problem[name] = problem[name] * scale
    with within(1.0):
        assert_honest(problem, torchqp.solve_qp(**problem))


def test_N3_huge_numbers_prove_nothing() -> None:
    """A feasible problem with a definite Q is neither infeasible nor unbounded, whatever q is."""
    base = testing.make("strictly_convex", 6, 4, seed=1)
    for value in (1e160, 1e300, 1.7e308):
        for sign in (1.0, -1.0):
            problem = testing.with_value(base, "q", sign * value, at=1)
            status = torchqp.solve_qp(**problem).status
            assert status[[0, 2, 3]].tolist() == [0, 0, 0]
            assert int(status[1]) not in (2, 3), sign * value


def test_N4_nan_that_arises_inside_is_never_taken_for_converged() -> None:
    """OSQP #70 printed "solved" for an objective of nan; HPIPM #114 looked in one scalar only."""
    for family in ("strictly_convex", "many_rows", "box", "two_sided", "semidefinite", "linear"):
        problem = testing.make(family, 6, 4, seed=2)
        for member, power in enumerate((100, 155, 200, 290)):
            for name in ("Q", "q", "G"):
                if name in problem:
                    problem[name][member] *= 10.0**power
        with within(1.0):
            solution = torchqp.solve_qp(**problem)
        assert_honest(problem, solution)
        assert not bool((solution.status == Status.INVALID_INPUT).any()), family
        reported = solution.residuals[solution.status == 0]
        assert bool((reported <= 1e-8).all()), family


def test_N5_a_side_at_its_own_infinity_is_absent() -> None:
    """Qpax #5, HPIPM: h = +inf gave NaN; qpsolvers #321, Clarabel #218: a panic, an error."""
    problem = testing.make("strictly_convex", 8, 5, seed=1)
    kept = problem | {"G": problem["G"][:, 2:], "h": problem["h"][:, 2:]}
    for far in (INF, 1e20, 1e30):
        wide = problem | {"h": problem["h"].clone(), "lb": tensor(*[-far] * 8), "ub": tensor(far)}
        wide["h"][:, :2], wide["ub"] = far, wide["ub"].expand(8)
        weights = testing.cotangents(torchqp.solve_qp(**kept), 0, names=("z",))
        solution, grads = testing.pullback(torchqp.solve_qp, wide, weights)
        expected, expected_grads = testing.pullback(torchqp.solve_qp, kept, weights)
        assert solution.status.tolist() == [0] * 5
        assert testing.relative_error(solution.z, expected.z) <= 1e-12
        assert bool(solution.s[:, :2].isposinf().all()) or far < INF
        for absent in (solution.lam[:, :2], solution.lam_lb, solution.lam_ub):
            assert not bool(absent.any())
        for absent in (grads["G"][:, :2], grads["h"][:, :2], grads["lb"], grads["ub"]):
            assert not bool(absent.any())
        assert testing.relative_error(grads["q"], expected_grads["q"]) <= 1e-10
        assert testing.relative_error(grads["G"][:, 2:], expected_grads["G"]) <= 1e-10


@pytest.mark.parametrize("far", [INF, 1e20, 1e30])
def test_N6_a_side_at_the_wrong_infinity_is_infeasible_at_once(far: float) -> None:
    """Pounce #275 took lb = +inf for an absent bound and reported an optimum."""
    box = {"Q": torch.eye(2, dtype=D), "q": tensor(1.0, -1.0)}
    rows = torch.eye(2, dtype=D)
    for limits in (
        {"G": rows, "h": tensor(-far, 1.0)},
        {"G": rows, "h_lower": tensor(0.0, far)},
        {"lb": tensor(far, 0.0)},
        {"ub": tensor(0.0, -far)},
    ):
        for Q in (box["Q"], 0 * box["Q"]):
            solution = torchqp.solve_qp(**(box | {"Q": Q}), **limits)
            assert int(solution.status) == Status.PRIMAL_INFEASIBLE, limits
            assert int(solution.iterations) == 0


def test_N7_limits_that_cross_are_invalid_and_limits_that_meet_an_equality() -> None:
    above = math.nextafter(1.0, 2.0)
    one = torch.ones(1, 1, dtype=D)
    for low, high, expected in (
        (1.0, 0.0, Status.INVALID_INPUT),
        (above, 1.0, Status.INVALID_INPUT),
        (1.0, 1.0, Status.SOLVED),
        (1.0, above, Status.SOLVED),
    ):
        for Q, q in ((one, tensor(0.0)), (0 * one, tensor(1.0)), (one, tensor(-9.0))):
            for limits in (
                {"lb": tensor(low), "ub": tensor(high)},
                {"G": one, "h_lower": tensor(low), "h": tensor(high)},
            ):
                solution, grads = testing.pullback(torchqp.solve_qp, {"Q": Q, "q": q} | limits)
                assert int(solution.status) == expected, (low, high)
                assert all(bool(g.isfinite().all()) for g in grads.values())
                if expected == Status.SOLVED:
                    assert float(solution.z.detach()) == pytest.approx(1.0, abs=1e-14)


def test_N8_the_threshold_of_infinity_is_1e20() -> None:
    line = {"Q": torch.zeros(1, 1, dtype=D), "q": tensor(-1.0)}
    for near in (0.99e20, math.nextafter(1e20, 0.0)):
        solution = torchqp.solve_qp(**line, ub=tensor(near))
        assert int(solution.status) <= Status.SOLVED_INACCURATE
        assert float(solution.z) == pytest.approx(near, rel=1e-8)
    for far in (1e20, 1.01e20, 1e30, INF):
        assert int(torchqp.solve_qp(**line, ub=tensor(far)).status) == Status.DUAL_INFEASIBLE
    curved = line | {"Q": torch.ones(1, 1, dtype=D)}
    for value in (0.99e20, 1.01e20):
        solution = torchqp.solve_qp(**curved, lb=tensor(-value), ub=tensor(value))
        assert int(solution.status) == 0
        assert float(solution.z) == pytest.approx(1.0, abs=1e-12)


def test_N8_big_limits_below_the_threshold_do_not_spoil_the_others() -> None:
    problem = testing.make("strictly_convex", 8, 5, seed=1)
    base = torchqp.solve_qp(**problem)
    for power in (4, 8, 12, 16, 19):
        wide = torch.full((8,), 10.0**power, dtype=D)
        solution = torchqp.solve_qp(**problem, lb=-wide, ub=wide, settings=Settings(eps_abs=1e-9))
        assert bool((solution.status <= 1).all()), power
        assert testing.relative_error(solution.z, base.z) <= 1e-6, power
