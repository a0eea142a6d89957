"""The oracle itself: against hand-made answers, an LP solver, and gradcheck."""

import pytest
import torch
from scipy.optimize import linprog

from torchqp import Status, reference, testing

D = torch.float64


def test_every_family_is_solved_to_rounding() -> None:
    for family in testing.FAMILIES:
        for n in (2, 7, 24):
            problem = testing.make(family, n, batch=3, seed=n)
            solution = reference.solve_qp(**problem)
            assert solution.status.tolist() == [0, 0, 0], (family, n)
            assert float(testing.kkt_residuals(problem, solution).max()) <= 1e-11, (family, n)


def test_two_variable_problem_by_hand() -> None:
    # min x^2 + y^2 - 2x - 5y with x + y <= 2: the row holds, z = (1/4, 7/4), lam = 2 - 2/4.
    solution = reference.solve_qp(
        2 * torch.eye(2, dtype=D),
        torch.tensor([-2.0, -5.0], dtype=D),
        torch.ones(1, 2, dtype=D),
        torch.tensor([2.0], dtype=D),
    )
    assert testing.relative_error(solution.z, torch.tensor([0.25, 1.75], dtype=D)) <= 1e-14
    assert abs(float(solution.lam) - 1.5) <= 1e-14
    assert abs(float(solution.s)) <= 1e-14


def test_two_sided_row_and_bounds_have_the_documented_signs() -> None:
    one = torch.ones(1, dtype=D)
    row = {"Q": torch.eye(1, dtype=D), "G": torch.eye(1, dtype=D), "h": one, "h_lower": -one}
    assert float(reference.solve_qp(q=-3 * one, **row).lam) == pytest.approx(2.0, abs=1e-13)
    assert float(reference.solve_qp(q=3 * one, **row).lam) == pytest.approx(-2.0, abs=1e-13)
    low = reference.solve_qp(torch.eye(1, dtype=D), 3 * one, lb=-one, ub=one)
    assert float(low.lam_lb) == pytest.approx(2.0, abs=1e-13)
    assert float(low.lam_ub) == 0.0


def test_linear_programs_have_the_values_of_highs() -> None:
    for seed in range(5):
        problem = testing.make("linear", 12, seed=seed)
        solution = reference.solve_qp(**problem)
        found = linprog(
            problem["q"].numpy(),
            problem["G"].numpy(),
            problem["h"].numpy(),
            problem["A"].numpy(),
            problem["b"].numpy(),
            bounds=(None, None),
            method="highs",
        )
        value = float(problem["q"] @ solution.z)
        assert abs(value - found.fun) <= 1e-9 * (1 + abs(found.fun))


@pytest.mark.parametrize("family", ["strictly_convex", "two_sided", "semidefinite", "simplex"])
def test_first_and_second_derivatives_are_exact(family: str) -> None:
    problem = testing.make(family, 4, seed=3)
    solution = reference.solve_qp(**problem)
    assert float(testing.strictness(problem, solution)) > 1e-3
    # A step in a singular Q leaves the convex problems, and Diag is no tensor.
    names = [k for k in problem if family in ("strictly_convex", "two_sided") or k != "Q"]

    def solve(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        moved = reference.solve_qp(**(problem | dict(zip(names, values, strict=True))))
        return tuple(value for _, value in testing.outputs(moved) if value.numel())

    values = [problem[k].clone().requires_grad_() for k in names]
    assert torch.autograd.gradcheck(solve, values, eps=1e-5, atol=1e-7)
    assert torch.autograd.gradgradcheck(solve, values, eps=1e-5, atol=1e-6)


def test_statuses() -> None:
    for kind in ("rows", "equalities", "bounds"):
        status = reference.solve_qp(**testing.infeasible(6, 3, kind)).status
        assert status.tolist() == [Status.PRIMAL_INFEASIBLE] * 3, kind
    for kind in ("linear", "quadratic"):
        status = reference.solve_qp(**testing.unbounded(6, 3, kind)).status
        assert status.tolist() == [Status.DUAL_INFEASIBLE] * 3, kind
    assert reference.solve_qp(**testing.nonconvex(6)).status == Status.NOT_CONVEX
    problem = testing.with_value(testing.make("box", 6, 3), "q", float("nan"), at=1)
    solution, grads = testing.pullback(reference.solve_qp, problem)
    assert solution.status.tolist() == [0, Status.INVALID_INPUT, 0]
    assert bool(solution.z[1].isnan().all())
    assert float(grads["q"][1].abs().max()) == 0.0
    assert float(grads["q"][0].abs().max()) > 0.0


def test_lpgd_formula_tends_to_the_exact_gradient() -> None:
    problem = testing.make("optnet", 6, 2, seed=1)
    weights = testing.cotangents(reference.solve_qp(**problem), 0, names=("z", "lam"))
    solution, exact = testing.pullback(reference.solve_qp, problem, weights)
    assert float(testing.strictness(problem, solution).min()) > 1e-3
    formula = reference.lpgd_gradients(problem, weights, tau=1e-5)
    for name in ("q", "h", "G", "Q"):
        assert testing.relative_error(formula[name], exact[name]) <= 1e-6, name


def test_smoothed_formula_is_orthogonal_and_exact_for_one_row() -> None:
    problem = testing.make("strictly_convex", 6, seed=2)
    solution = reference.solve_qp(**problem)
    g = torch.randn(6, dtype=D)
    grads = reference.smoothed_gradients(problem, solution.z, solution.nu, solution.lam, g)
    assert abs(float(grads["a"] @ grads["d_z"])) <= 1e-12
    single = {"Q": problem["Q"], "q": problem["q"], "G": problem["G"][:1]}
    single["h"] = testing.times(single["G"], torch.linalg.solve(problem["Q"], -problem["q"])) - 1
    solution, exact = testing.pullback(reference.solve_qp, single, {"z": g})
    grads = reference.smoothed_gradients(single, solution.z, solution.nu, solution.lam, g)
    for name, value in exact.items():
        assert testing.relative_error(grads[name], value) <= 1e-10, name
