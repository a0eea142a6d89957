"""Failures that other layers and solvers have published, each named by where it was reported."""

import math

import pytest
import torch
from contract import INF, D, assert_honest, tensor

import torchqp
from torchqp import LPGD, Diag, Settings, Smoothed, testing

EYE, ONES = torch.eye(3, dtype=D), torch.ones(3, dtype=D)


def test_qpth_mean_shared_gradients_are_summed() -> None:
    """Qpth qp.py, backward: `.mean(0)`; suspected in osqp-python #38 too."""
    h = torch.zeros(3, dtype=D, requires_grad=True)
    z = torchqp.solve_qp(EYE, -ONES.expand(8, 3), EYE, h).z
    (grad,) = torch.autograd.grad(z.sum(), h)
    assert grad.tolist() == pytest.approx([8.0] * 3, abs=1e-12)


def test_qpth_batch_control_one_infeasible_member_costs_the_others_no_digit() -> None:
    """Qpth stops on best.max(): the others' z was off by 1e-5, their gradients by 2e-3."""
    problem = testing.make("strictly_convex", 6, 8, seed=1)
    del problem["A"], problem["b"]
    clean = torchqp.solve_qp(**problem)
    problem["G"][3, 1], problem["h"][3, :2] = -problem["G"][3, 0], -1.0
    solution = torchqp.solve_qp(**problem)
    others = torch.arange(8) != 3
    assert solution.status.tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
    assert testing.same_bits(solution.z[others], clean.z[others])


def test_osqp_70_a_nan_objective_is_not_solved() -> None:
    status = torchqp.solve_qp(EYE, tensor(math.nan, 0.0, 0.0), EYE, ONES).status
    assert int(status) == torchqp.Status.INVALID_INPUT


def test_hpipm_114_a_nan_anywhere_is_named() -> None:
    for name in ("Q", "q", "G", "h"):
        problem = {"Q": EYE.clone(), "q": ONES.clone(), "G": EYE.clone(), "h": ONES.clone()}
        problem[name].view(-1)[-1] = math.nan
        assert int(torchqp.solve_qp(**problem).status) == torchqp.Status.INVALID_INPUT, name


def test_qpax_5_an_infinite_h_gives_no_nan() -> None:
    problem, wanted = testing.leaves({"Q": EYE, "q": -ONES, "G": EYE, "h": tensor(INF, 0.0, 0.5)})
    z = torchqp.solve_qp(**problem).z
    assert z.tolist() == pytest.approx([1.0, 0.0, 0.5], abs=1e-12)
    grads = torch.autograd.grad(z.sum(), list(wanted.values()))
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert grads[3].tolist() == pytest.approx([0.0, 1.0, 1.0], abs=1e-12)


def test_clarabel_218_a_limit_that_becomes_infinite_is_fine() -> None:
    problem = {"Q": EYE, "q": -ONES, "G": EYE, "h": ONES / 2}
    first = torchqp.solve_qp(**problem)
    then = torchqp.solve_qp(**(problem | {"h": tensor(INF, 0.5, 0.5)}), warm_start=first)
    assert int(then.status) == 0
    assert then.z.tolist() == pytest.approx([1.0, 0.5, 0.5], abs=1e-12)


def test_qpsolvers_321_only_infinite_limits_do_not_panic() -> None:
    far = torch.full((3,), INF, dtype=D)
    solution = torchqp.solve_qp(EYE, -ONES, EYE, far, lb=-far, ub=far)
    assert int(solution.status) == 0
    assert testing.relative_error(solution.z, ONES) <= 1e-14


def test_pounce_275_a_lower_bound_of_plus_infinity_is_not_absent() -> None:
    assert int(torchqp.solve_qp(EYE, ONES, lb=tensor(INF, 0.0, 0.0)).status) == 2
    assert int(torchqp.solve_qp(EYE, ONES, ub=tensor(-INF, 0.0, 0.0)).status) == 2


def test_qpth_47_zero_rows_give_no_nan() -> None:
    rows = torch.zeros(2, 3, dtype=D)
    problem = {"Q": EYE, "q": -ONES, "G": rows, "h": ONES[:2], "A": rows, "b": 0 * ONES[:2]}
    solution, grads = testing.pullback(torchqp.solve_qp, problem, 0)
    assert testing.relative_error(solution.z, ONES) <= 1e-10
    assert all(bool(grad.isfinite().all()) for grad in grads.values())


def test_jaxopt_95_a_zero_cost_gives_no_nan() -> None:
    problem, wanted = testing.leaves({"Q": EYE, "q": 0 * ONES, "G": EYE, "h": ONES})
    z = torchqp.solve_qp(**problem).z
    assert not bool(z.any())
    (grad,) = torch.autograd.grad(z.sum(), wanted["q"])
    assert testing.relative_error(grad, -ONES) <= 1e-14


def test_jaxopt_570_a_matrix_without_rows_does_not_crash() -> None:
    none = torch.zeros(0, 3, dtype=D)
    solution = torchqp.solve_qp(EYE, -ONES, none, none[:, 0], none, none[:, 0])
    assert testing.relative_error(solution.z, ONES) <= 1e-14
    assert solution.lam.shape == solution.nu.shape == (0,)


def test_diffcp_70_an_infeasible_member_raises_for_nobody() -> None:
    lb = torch.zeros(5, 3, dtype=D)
    lb[2] = 2.0
    solution = torchqp.solve_qp(EYE, -ONES, EYE, ONES, lb=lb)
    assert solution.status.tolist() == [0, 0, 2, 0, 0]


def test_qpth_31_infeasibility_is_reported() -> None:
    G = torch.cat([EYE, -EYE])
    h = tensor(-1.0, 1.0, 1.0, -1.0, 1.0, 1.0)
    assert int(torchqp.solve_qp(EYE, ONES, G, h).status) == torchqp.Status.PRIMAL_INFEASIBLE


def test_qpth_4_single_precision_is_good() -> None:
    problem = testing.make("optnet", 20, 30, seed=1, dtype=torch.float32)
    exact = torchqp.solve_qp(**testing.cast(problem, D))
    solution = torchqp.solve_qp(**problem)
    assert not bool(solution.status.any())
    assert testing.relative_error(solution.z, exact.z) <= 1e-4


def test_proxsuite_296_gradients_have_the_dtype_and_device_of_the_arguments() -> None:
    for dtype in (torch.float64, torch.float32):
        problem = testing.make("strictly_convex", 6, 3, seed=1, dtype=dtype)
        _, grads = testing.pullback(torchqp.solve_qp, problem, 0)
        for name, grad in grads.items():
            assert (grad.dtype, grad.device) == (dtype, problem[name].device)


def test_cvxpylayers_67_pullbacks_add_up() -> None:
    """Also #69, #70: LSQR hit its limit silently."""
    problem, wanted = testing.leaves(testing.make("optnet", 30, 4, seed=1))
    z = torchqp.solve_qp(**problem).z
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2, 4, 30, generator=generator, dtype=D)
    leaves = list(wanted.values())
    parts = [torch.autograd.grad(z, leaves, w, retain_graph=True) for w in (*v, v.sum(0))]
    for a, b, both in zip(*parts, strict=True):
        assert float((a + b - both).abs().max() / both.abs().max()) <= 1e-11


def test_cvxpylayers_127_a_program_learns_through_the_other_modes() -> None:
    for mode in (LPGD(tau=0.3), Smoothed()):
        cost = tensor(0.1, 0.5, 0.9).requires_grad_()
        z = torchqp.solve_qp(0 * EYE, cost, A=ONES[None], b=1.0, lb=0.0, backward=mode).z
        (grad,) = torch.autograd.grad((z * tensor(1.0, 0.0, 1.0)).sum(), cost)
        assert float(grad[0] - grad[1]) < -1e-3, mode  # the first ought to cost more


def test_highs_768_a_status_of_optimal_has_no_dual_infeasibility() -> None:
    for family in ("linear", "semidefinite", "two_sided"):
        problem = testing.make(family, 20, 20, seed=7)
        solution = torchqp.solve_qp(**problem)
        assert_honest(problem, solution)
        assert float(solution.residuals[:, 2].max()) <= 1e-8


def test_pounce_324_nothing_is_optimal_before_it_is() -> None:
    box = {"lb": tensor(-10.0, -10.0), "ub": tensor(10.0, 10.0)}
    solution = torchqp.solve_qp(torch.diag(tensor(1e-10, 1e10)), tensor(-1.0, -1.0), **box)
    assert int(solution.iterations) >= 1
    assert solution.z.tolist() == pytest.approx([10.0, 1e-10], abs=1e-8)


def test_pounce_282_a_set_of_one_point_is_solved() -> None:
    G = torch.randn(20, 40, 5, generator=torch.Generator().manual_seed(0), dtype=D)
    G = torch.cat([G, -G.sum(1, keepdim=True)], 1)
    solution = torchqp.solve_qp(torch.eye(5, dtype=D), torch.ones(5, dtype=D), G, 0.0)
    assert not bool((solution.status > 1).any())
    assert float(solution.z.abs().max()) <= 1e-6


def test_pounce_948_one_of_many_optima_is_returned() -> None:
    solution = torchqp.solve_qp(0 * EYE, tensor(1.0, 1.0, 0.0), A=ONES[None], b=1.0, lb=0.0, ub=0.6)
    assert int(solution.status) == 0
    assert float(solution.z[:2].sum()) == pytest.approx(0.4, abs=1e-8)


def test_proxqp_445_a_hard_feasible_problem_is_not_infeasible() -> None:
    """Also pounce #303: infeasible because a first phase stalled."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(20, 6, 10, generator=generator, dtype=D)
    A = A * torch.logspace(-4, 4, 6, dtype=D)[:, None]
    z = torch.randn(20, 10, generator=generator, dtype=D)
    problem = {"Q": torch.zeros(10, 10, dtype=D), "q": z, "A": A, "b": testing.times(A, z)}
    solution = torchqp.solve_qp(**problem, lb=z - 1e-3, ub=z + 1e-3)
    assert not bool((solution.status > 1).any())


def test_moreau_objective_scale_keeps_the_gradient() -> None:
    """Objective times 1e8: gradients off by 1e12 in an exact mode; times 1e8 of a row: z lost."""
    problem = testing.make("strictly_convex", 5, 6, seed=2)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0, names=("z",))
    base, grads = testing.pullback(torchqp.solve_qp, problem, weights)
    large = problem | {"Q": 1e8 * problem["Q"], "q": 1e8 * problem["q"]}
    solution, found = testing.pullback(torchqp.solve_qp, large, weights)
    assert testing.relative_error(solution.z, base.z) <= 1e-10
    assert testing.relative_error(1e8 * found["q"], grads["q"]) <= 1e-8
    assert testing.relative_error(found["G"], grads["G"]) <= 1e-8
    row = problem | {"G": problem["G"].clone(), "h": problem["h"].clone()}
    row["G"][:, 0] *= 1e8
    row["h"][:, 0] *= 1e8
    solution, found = testing.pullback(torchqp.solve_qp, row, weights)
    assert testing.relative_error(solution.z, base.z) <= 1e-10
    assert testing.relative_error(found["q"], grads["q"]) <= 1e-8
    assert testing.relative_error(1e8 * found["G"][:, 0], grads["G"][:, 0]) <= 1e-8


def test_qpax_gradient_of_G_is_the_exact_one() -> None:
    """Its dG is the formula with lambda squared, 30 to 200 % off."""
    problem = testing.make("optnet", 4, seed=3)
    sharp = {"settings": Settings(eps_abs=1e-11, eps_rel=1e-11)}
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0, names=("z",))
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights, **sharp)
    expected = testing.finite_differences(
        lambda **k: torchqp.solve_qp(**k, **sharp), problem, weights, step=1e-6
    )
    assert testing.relative_error(grads["G"], expected["G"]) <= 1e-5


def test_osqp_a_loss_on_one_variable_has_a_gradient() -> None:
    """Its backward raises whenever an entry of dP is exactly zero."""
    q = torch.zeros(3, dtype=D, requires_grad=True)
    z = torchqp.solve_qp(Diag(ONES), q, lb=-1.0).z
    (grad,) = torch.autograd.grad(z[0], q)
    assert grad.tolist() == [-1.0, 0.0, 0.0]


def test_qpth_double_backward_is_right() -> None:
    """Its second derivative is a wrong number, relative error 10."""
    problem = testing.make("optnet", 4, seed=3)
    sharp = Settings(eps_abs=1e-12, eps_rel=1e-12)

    def loss(q: torch.Tensor) -> torch.Tensor:
        return torchqp.solve_qp(**(problem | {"q": q}), settings=sharp).z.square().sum()

    assert torch.autograd.gradgradcheck(loss, problem["q"].requires_grad_(), eps=1e-6, atol=1e-5)


def test_cvxpylayers_150_a_layer_can_be_copied() -> None:
    import copy

    layer = torchqp.QPLayer(backward="lpgd")
    assert testing.same_bits(copy.deepcopy(layer)(EYE, ONES), layer(EYE, ONES))
