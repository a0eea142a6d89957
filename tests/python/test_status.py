"""Every status has a problem that yields it; a failed member disturbs nobody."""

import pytest
import torch

import torchqp
from torchqp import Diag, Settings, Status, testing

D = torch.float64
NAN, INF = float("nan"), float("inf")


def one(value: float) -> torch.Tensor:
    return torch.full((1,), value, dtype=D)


def all_nine(batch: int = 4, dtype: torch.dtype = D) -> dict:
    """A solvable batch that uses every argument, all of them batched."""
    n = 6
    problem = testing.make("two_sided", n, batch, seed=3)
    z = torchqp.solve_qp(**problem).z
    A = torch.randn(batch, 2, n, dtype=D)
    problem |= {"A": A, "b": testing.times(A, z)}
    spread = {
        k: v.expand(batch, *v.shape[-2:] if k in "QGA" else v.shape[-1:])
        for k, v in problem.items()
    }
    return testing.cast({k: v.clone() for k, v in spread.items()}, dtype)


def assert_contract(solution: object, grads: dict, failed: torch.Tensor) -> None:
    """NaN outputs and exactly zero gradients where failed; finite ones elsewhere."""
    for name, value in testing.outputs(solution):
        assert bool(value[failed].isnan().all()), name
        assert bool(value[~failed].isfinite().all()), name
    for name, grad in grads.items():
        assert bool(grad.isfinite().all()), name
        assert not bool(grad[failed].any()), name


def test_solved(dtype: torch.dtype) -> None:
    solution, grads = testing.pullback(torchqp.solve_qp, all_nine(dtype=dtype))
    assert solution.status.dtype == torch.int32
    assert solution.status.tolist() == [Status.SOLVED] * 4
    assert_contract(solution, grads, solution.status > 1)
    assert solution.raise_for_status() is solution


def test_solved_inaccurate() -> None:
    """Stopped early, within a thousand times the tolerances: usable, with a gradient."""
    problem = testing.make("many_rows", 20, 20, seed=1)
    settings = Settings(max_iter=9, polish=False)
    solution, grads = testing.pullback(torchqp.solve_qp, problem, settings=settings)
    inaccurate = solution.status == Status.SOLVED_INACCURATE
    assert int(inaccurate.sum()) >= 3
    residuals = testing.kkt_residuals(problem, solution)[inaccurate].amax(-1)
    assert bool(((residuals > 1e-8) & (residuals <= 1e-5)).all())
    assert bool(grads["q"][inaccurate].any(-1).all())
    assert_contract(solution, grads, solution.status > 1)
    solution = torchqp.solve_qp(**testing.take(problem, inaccurate), settings=settings)
    solution.raise_for_status()
    with pytest.raises(torchqp.SolveError, match="solved_inaccurate"):
        solution.raise_for_status(allow_inaccurate=False)


@pytest.mark.parametrize("kind", ["rows", "equalities", "bounds"])
@pytest.mark.parametrize("n", [2, 10, 40])
def test_primal_infeasible(kind: str, n: int, dtype: torch.dtype) -> None:
    problem = testing.cast(testing.infeasible(n, 8, kind), dtype)
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert solution.status.tolist() == [Status.PRIMAL_INFEASIBLE] * 8
    for name, value in testing.outputs(solution):
        assert bool(value.isnan().all()), name
    for name, grad in grads.items():
        assert not bool(grad.any()), name


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
@pytest.mark.parametrize("n", [2, 10, 40])
def test_dual_infeasible(kind: str, n: int, dtype: torch.dtype) -> None:
    problem = testing.cast(testing.unbounded(n, 8, kind), dtype)
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert solution.status.tolist() == [Status.DUAL_INFEASIBLE] * 8
    assert_contract(solution, {"Q": grads["Q"]}, torch.ones(8, dtype=torch.bool))


def test_unbounded_without_constraints() -> None:
    solution = torchqp.solve_qp(torch.zeros(2, 2, dtype=D), torch.ones(2, dtype=D))
    assert int(solution.status) == Status.DUAL_INFEASIBLE
    half = Diag(torch.tensor([1.0, 0.0], dtype=D))
    assert int(torchqp.solve_qp(half, torch.ones(2, dtype=D)).status) == Status.DUAL_INFEASIBLE
    assert int(torchqp.solve_qp(half, torch.tensor([1.0, 0.0], dtype=D)).status) == Status.SOLVED


def test_infeasible_and_unbounded_at_once_is_one_of_the_two() -> None:
    problem = {"Q": torch.zeros(2, 2, dtype=D), "q": torch.tensor([0.0, -1.0], dtype=D)}
    G = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=D)
    solution = torchqp.solve_qp(**problem, G=G, h=torch.tensor([-1.0, -1.0], dtype=D))
    assert int(solution.status) in (Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE)


@pytest.mark.parametrize("max_iter", [0, 1, 2])
def test_max_iterations(max_iter: int) -> None:
    problem = testing.make("many_rows", 12, 5, seed=1)
    settings = Settings(max_iter=max_iter, polish=False)
    solution, grads = testing.pullback(torchqp.solve_qp, problem, settings=settings)
    assert solution.status.tolist() == [Status.MAX_ITERATIONS] * 5
    assert_contract(solution, grads, torch.ones(5, dtype=torch.bool))
    assert int(solution.iterations.max()) <= 2 * max_iter


def test_numerical_error_where_arithmetic_overflows() -> None:
    problem = testing.make("many_rows", 5, 3, seed=1)
    problem["Q"][1] *= 1e200
    problem["G"][1] *= 1e200
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    status = solution.status.tolist()
    assert status == [Status.SOLVED, Status.NUMERICAL_ERROR, Status.SOLVED]
    assert_contract(solution, grads, solution.status > 1)


@pytest.mark.parametrize("name", testing.PARAMETERS)
@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_nan_in_any_argument_is_invalid_for_that_member_alone(
    name: str, mode: str, dtype: torch.dtype
) -> None:
    problem = all_nine(dtype=dtype)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    clean = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    bad = testing.with_value(problem, name, NAN, at=2)
    solution, grads = testing.pullback(torchqp.solve_qp, bad, weights, backward=mode)
    assert solution.status.tolist() == [0, 0, Status.INVALID_INPUT, 0]
    assert_contract(solution, grads, solution.status > 1)
    others = torch.tensor([0, 1, 3])
    for key, value in testing.outputs(solution):
        assert testing.same_bits(value[others], getattr(clean[0], key)[others]), key
    for key, grad in grads.items():
        assert testing.same_bits(grad[others], clean[1][key][others]), key


@pytest.mark.parametrize("name", ["Q", "q", "G", "A", "b"])
@pytest.mark.parametrize("value", [INF, -INF])
def test_infinite_data_are_invalid(name: str, value: float) -> None:
    solution = torchqp.solve_qp(**testing.with_value(all_nine(), name, value, at=1))
    assert solution.status.tolist() == [0, Status.INVALID_INPUT, 0, 0]


def test_crossed_limits_are_invalid() -> None:
    Q, q = torch.eye(1, dtype=D), one(0.0)
    assert int(torchqp.solve_qp(Q, q, lb=one(1.0), ub=one(0.0)).status) == Status.INVALID_INPUT
    row = {"G": torch.eye(1, dtype=D), "h": one(0.0), "h_lower": one(1.0)}
    assert int(torchqp.solve_qp(Q, q, **row).status) == Status.INVALID_INPUT
    assert int(torchqp.solve_qp(Q, q, lb=one(0.5), ub=one(0.5)).status) == Status.SOLVED


def test_limits_at_the_wrong_infinity_are_infeasible() -> None:
    Q, q = torch.eye(1, dtype=D), one(0.0)
    G = torch.eye(1, dtype=D)
    for value in (INF, 1e20, 1e30):
        for limits in (
            {"G": G, "h": one(-value)},
            {"G": G, "h_lower": one(value)},
            {"lb": one(value)},
            {"ub": one(-value)},
        ):
            solution = torchqp.solve_qp(Q, q, **limits)
            assert int(solution.status) == Status.PRIMAL_INFEASIBLE, limits


def test_limits_at_the_right_infinity_are_absent() -> None:
    Q, q = torch.eye(2, dtype=D), torch.ones(2, dtype=D)
    far = torch.full((2,), INF, dtype=D)
    problem = {"Q": Q, "q": q, "G": Q.clone(), "h": far, "h_lower": -far, "lb": -far, "ub": far}
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert int(solution.status) == Status.SOLVED
    assert testing.relative_error(solution.z, -q) <= 1e-12
    for name in ("lam", "lam_lb", "lam_ub"):
        assert not bool(getattr(solution, name).any()), name
    for name in ("G", "h", "h_lower", "lb", "ub"):
        assert not bool(grads[name].any()), name


@pytest.mark.parametrize("n", [1, 2, 8, 30])
def test_not_convex(n: int, dtype: torch.dtype) -> None:
    problem = testing.cast(testing.nonconvex(n, 4), dtype)
    solution, grads = testing.pullback(torchqp.solve_qp, problem)
    assert solution.status.tolist() == [Status.NOT_CONVEX] * 4
    assert not bool(grads["Q"].any())
    diagonal = Diag(-torch.ones(n, dtype=dtype))
    solution = torchqp.solve_qp(diagonal, problem["q"][0], lb=problem["lb"], ub=problem["ub"])
    assert int(solution.status) == Status.NOT_CONVEX


def test_rounding_below_zero_is_still_convex() -> None:
    """Gram matrices are PSD up to rounding; that must not fail."""
    for seed in range(10):
        problem = testing.make("semidefinite", 20, 4, seed=seed)
        problem["Q"] = problem["Q"] - 1e-15 * torch.eye(20, dtype=D)
        assert bool((torchqp.solve_qp(**problem).status == 0).all())


def mixed_batch(dtype: torch.dtype) -> tuple[dict, list[int], torch.Tensor]:
    """Solvable members, failures of every kind between them, and the statuses expected."""
    batch, n = 12, 6
    problem = testing.make("strictly_convex", n, batch, seed=9)
    for name in ("A", "b"):
        del problem[name]
    problem |= {
        "lb": torch.full((batch, n), -INF, dtype=D),
        "ub": torch.full((batch, n), INF, dtype=D),
    }
    expected = [0] * batch
    problem["G"][1, 1], expected[1] = -problem["G"][1, 0], 2
    problem["h"][1, 0], problem["h"][1, 1] = -1.0, -1.0
    problem["Q"][3], expected[3] = 0.0, 3
    problem["q"][3] = problem["G"][3].sum(0)  # -q is no combination of the rows with lam >= 0
    problem["h"][5, 0], expected[5] = NAN, 6
    problem["q"][6, 2], expected[6] = NAN, 6
    problem["Q"][8] = -problem["Q"][8]
    expected[8] = 7
    problem["lb"][8], problem["ub"][8] = -1.0, 1.0
    problem["lb"][10, 3], problem["ub"][10, 3], expected[10] = 1.0, 0.0, 6
    return testing.cast(problem, dtype), expected, torch.tensor([s > 1 for s in expected])


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_failures_of_every_kind_leave_the_others_bitwise_alone(
    mode: str, dtype: torch.dtype
) -> None:
    problem, expected, failed = mixed_batch(dtype)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 1)
    solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    assert solution.status.tolist() == expected
    assert_contract(solution, grads, failed)
    good = testing.take(problem, ~failed)
    weights = {k: w[~failed] for k, w in weights.items()}
    alone, alone_grads = testing.pullback(torchqp.solve_qp, good, weights, backward=mode)
    for name, value in zip(solution._fields, solution, strict=True):
        assert testing.same_bits(value[~failed], getattr(alone, name)), name
    for name, grad in grads.items():
        assert testing.same_bits(grad[~failed], alone_grads[name]), name


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_shared_arguments_sum_over_the_solved_members_only(mode: str) -> None:
    one = testing.make("strictly_convex", 6, seed=5)
    q = one["q"] + torch.randn(9, 6, dtype=D)
    q[4, 0], q[7, 1] = NAN, INF
    bad = one | {"q": q}
    good = one | {"q": q[q.isfinite().all(-1)]}
    weights = testing.cotangents(torchqp.solve_qp(**bad), 1)
    kept = {k: w[q.isfinite().all(-1)] for k, w in weights.items()}
    _, grads = testing.pullback(torchqp.solve_qp, bad, weights, backward=mode)
    _, clean = testing.pullback(torchqp.solve_qp, good, kept, backward=mode)
    for name in one:
        if name != "q":
            assert testing.relative_error(grads[name], clean[name]) <= 1e-13, name


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_shared_arguments_sum_without_the_infeasible_members(mode: str) -> None:
    one = testing.make("optnet", 6, seed=5)
    one["G"][1] = -one["G"][0]
    h = one["h"].repeat(5, 1)
    h[:, :2] = 5.0
    h[3, :2] = -1.0
    bad = one | {"q": one["q"] + torch.randn(5, 6, dtype=D), "h": h}
    kept = torch.tensor([0, 1, 2, 4])
    good = bad | {"q": bad["q"][kept], "h": h[kept]}
    solution = torchqp.solve_qp(**bad)
    assert solution.status.tolist() == [0, 0, 0, 2, 0]
    weights = testing.cotangents(solution, 1)
    _, grads = testing.pullback(torchqp.solve_qp, bad, weights, backward=mode)
    weights = {k: w[kept] for k, w in weights.items()}
    _, clean = testing.pullback(torchqp.solve_qp, good, weights, backward=mode)
    for name in ("Q", "G"):
        assert testing.relative_error(grads[name], clean[name]) <= 1e-13, name


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_masked_losses_are_clean_under_anomaly_detection() -> None:
    problem, expected, failed = mixed_batch(D)
    copy, wanted = testing.leaves(problem)
    with torch.autograd.detect_anomaly(check_nan=True):
        solution = torchqp.solve_qp(**copy)
        loss = torch.where(solution.solved.unsqueeze(-1), solution.z, 0.0).square().sum()
        grads = torch.autograd.grad(loss, [wanted[k] for k in ("Q", "q", "G", "h")])
    assert solution.status.tolist() == expected
    for grad in grads:
        assert bool(grad.isfinite().all())
        assert not bool(grad[failed].any())
        assert bool(grad[~failed].any())


def test_nan_cotangents_of_failed_members_go_nowhere() -> None:
    """An unmasked loss has NaN cotangents at failed members, which others must not see."""
    problem, _, failed = mixed_batch(D)
    for mode in ("kkt", "smoothed", "lpgd"):
        weights = testing.cotangents(torchqp.solve_qp(**problem), 1)
        weights = {k: torch.where(failed.unsqueeze(-1), NAN, w) for k, w in weights.items()}
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        for name, grad in grads.items():
            assert bool(grad.isfinite().all()), (mode, name)
            assert not bool(grad[failed].any()), (mode, name)


def test_best_returns_the_last_finite_iterate_with_zero_gradient() -> None:
    problem = testing.make("many_rows", 12, 5, seed=1)
    settings = Settings(max_iter=4, polish=False)
    options = {"settings": settings, "on_failure": "best"}
    solution, grads = testing.pullback(torchqp.solve_qp, problem, **options)
    assert solution.status.tolist() == [Status.MAX_ITERATIONS] * 5
    for name, value in testing.outputs(solution):
        assert bool(value.isfinite().all()), name
    for name, grad in grads.items():
        assert not bool(grad.any()), name
    answer = torchqp.solve_qp(**problem).z
    first = Settings(max_iter=1, polish=False)
    far = torchqp.solve_qp(**problem, settings=first, on_failure="best").z
    assert float((solution.z.detach() - answer).norm()) < float((far - answer).norm())


def test_best_is_finite_wherever_there_was_an_iterate() -> None:
    """Invalid and non-convex members are turned away before the first one."""
    problem, expected, _ = mixed_batch(D)
    solution = torchqp.solve_qp(**problem, on_failure="best")
    assert solution.status.tolist() == expected
    started = torch.tensor([s < Status.INVALID_INPUT for s in expected])
    assert bool(solution.z[started].isfinite().all())


def test_raise_for_status_names_members_and_reason() -> None:
    problem, _, _ = mixed_batch(D)
    with pytest.raises(torchqp.SolveError) as caught:
        torchqp.solve_qp(**problem).raise_for_status()
    text = str(caught.value)
    assert "6 of 12 problems failed" in text
    for word in ("primal_infeasible (2) at batch index 1:", "not_convex (7)", "index 5, 6, 10"):
        assert word in text


@pytest.mark.parametrize("gap", [1e-3, 1e-6])
def test_narrow_feasible_sets_are_not_called_infeasible(gap: float) -> None:
    for seed in range(5):
        problem = testing.make("strictly_convex", 8, 4, seed=seed)
        middle = testing.times(problem["G"], torchqp.solve_qp(**problem).z)
        problem |= {"h": middle + gap, "h_lower": middle - gap}
        solution = torchqp.solve_qp(**problem)
        assert bool((solution.status <= 1).all())
