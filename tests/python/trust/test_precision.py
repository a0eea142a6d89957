"""P1 to P3: float32, reduced-precision switches, autocast."""

import pytest
import torch
from contract import MODES, D, all_nine, assert_same
from degenerate_families import families

import torchqp
from torchqp import Status, testing

F = torch.float32


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_P1_single_precision_solves_every_family_to_1e_4(family: str) -> None:
    """Qpth #4: "really bad solution"; status 0 of float32 means 1e-4 relative."""
    iterations = []
    for n in testing.SIZES:
        problem = testing.make(family, n, 100, seed=1000 + n, dtype=F)
        solution = torchqp.solve_qp(**problem)
        assert solution.z.dtype == F
        assert not bool(solution.status.any()), n
        assert float(testing.kkt_residuals(problem, solution).max()) <= 1e-4, n
        iterations += solution.iterations.tolist()
    assert len(iterations) == 1000
    assert sorted(iterations)[989] <= 30


@pytest.mark.parametrize("mode", MODES)
def test_P1_gradients_of_single_precision_are_single_and_finite(mode: str) -> None:
    """Proxsuite #296: float32 gradients for float64 inputs, and the reverse."""
    for family, problem in families(12, 5, 5).items():
        single = testing.cast(problem, F)
        solution, grads = testing.pullback(torchqp.solve_qp, single, 0, backward=mode)
        for name, grad in grads.items():
            assert grad.dtype == F, name
            assert bool(grad.isfinite().all()), (family, name)
        residuals = testing.kkt_residuals(single, solution)[solution.status == 0]
        assert bool((residuals <= 1e-4).all()), family
    _, grads = testing.pullback(torchqp.solve_qp, all_nine(), 0, backward=mode)
    assert all(grad.dtype == D for grad in grads.values())


def test_P1_failures_have_their_status_in_single_precision_too() -> None:
    for n in (2, 10, 40):
        for kind in ("rows", "equalities", "bounds"):
            problem = testing.infeasible(n, 6, kind)
            status = torchqp.solve_qp(**testing.cast(problem, F)).status
            assert status.tolist() == [Status.PRIMAL_INFEASIBLE] * 6
        for kind in ("linear", "quadratic"):
            problem = testing.unbounded(n, 6, kind)
            status = torchqp.solve_qp(**testing.cast(problem, F)).status
            assert status.tolist() == [Status.DUAL_INFEASIBLE] * 6
        status = torchqp.solve_qp(**testing.cast(testing.nonconvex(n, 6), F)).status
        assert status.tolist() == [Status.NOT_CONVEX] * 6


def test_P1_what_single_precision_claims_holds_on_the_data() -> None:
    eps = 1e-5
    sharp = torchqp.Settings(eps_abs=eps, eps_rel=eps)
    for family in testing.FAMILIES:
        problem = testing.make(family, 13, 20, seed=1, dtype=F)
        solution = torchqp.solve_qp(**problem, settings=sharp)
        claimed = testing.kkt_residuals(problem, solution)[solution.status == 0]
        assert len(claimed) >= 18, family
        assert float(claimed.max()) <= eps, family


@pytest.fixture
def _switches() -> None:
    kept = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(kept)
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.usefixtures("_switches")
@pytest.mark.parametrize("mode", MODES)
def test_P2_reduced_precision_switches_change_nothing(mode: str) -> None:
    """Shared matrices, whose gradients are matrix products, included."""
    one = testing.take(testing.cast(all_nine(), F), 0)
    problem = one | {"q": one["q"] + 0.1 * torch.randn(300, 6)}
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    plain = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    for precision in ("high", "medium"):
        torch.set_float32_matmul_precision(precision)
        torch.backends.cuda.matmul.allow_tf32 = True
        found = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        assert_same(found[0], plain[0], where=precision)
        assert_same(found[1], plain[1], where=precision)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_P3_autocast_solves_in_single_precision(half: torch.dtype, mode: str) -> None:
    problem = testing.cast(all_nine(), F)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0, names=("z",))
    plain = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    with torch.autocast("cpu", dtype=half):
        found = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        assert_same(found[0], plain[0])
        assert_same(found[1], plain[1])
        q = torch.randn(4, 6).to(half)
        assert torchqp.solve_qp(**(problem | {"q": q})).z.dtype == F
    with pytest.raises(TypeError, match="q: expected dtype"):
        torchqp.solve_qp(**(problem | {"q": problem["q"].to(half)}))
