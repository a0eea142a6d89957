"""Failed members on the GPU: the CPU's statuses and NaNs, zero gradients, nobody else notices."""

import pytest
import torch
from parity import MODES, SOLUTION, assert_equal, pullbacks
from small_problems import mixed_outcomes

import torchqp
from torchqp import Settings, Status, testing

pytestmark = pytest.mark.gpu

FAILING = {
    "rows": (Status.PRIMAL_INFEASIBLE, lambda n: testing.infeasible(n, 8, "rows")),
    "equalities": (Status.PRIMAL_INFEASIBLE, lambda n: testing.infeasible(n, 8, "equalities")),
    "bounds": (Status.PRIMAL_INFEASIBLE, lambda n: testing.infeasible(n, 8, "bounds")),
    "linear": (Status.DUAL_INFEASIBLE, lambda n: testing.unbounded(n, 8, "linear")),
    "quadratic": (Status.DUAL_INFEASIBLE, lambda n: testing.unbounded(n, 8, "quadratic")),
    "nonconvex": (Status.NOT_CONVEX, lambda n: testing.nonconvex(n, 8)),
}


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("n", [2, 10, 40])
@pytest.mark.parametrize("on_failure", ["nan", "best"])
def test_failures_are_the_cpus(kind, n, on_failure, dtype, device):
    status, draw = FAILING[kind]
    problem = testing.cast(draw(n), dtype)
    (here, _), (there, grads) = pullbacks(problem, device, on_failure=on_failure)
    assert there.status.tolist() == [status] * 8
    assert_equal(here, there)
    for name, grad in grads.items():
        assert not bool(grad.any()), name
    if on_failure == "nan":
        for name, value in testing.outputs(there):
            assert bool(value.isnan().all()), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["Q", "q", "G", "h", "h_lower", "lb", "ub"])
def test_a_number_that_is_none_is_found_in_every_argument(name, value, dtype, device):
    problem = testing.with_value(
        testing.make("two_sided", 8, 3, seed=4, dtype=dtype), name, value, at=1
    )
    (here, expected), (there, grads) = pullbacks(problem, device)
    assert_equal(here, there)
    assert_equal(expected, grads, expected)
    assert there.status[[0, 2]].tolist() == [0, 0]


def test_the_iteration_limit(dtype, device):
    problem = testing.make("many_rows", 20, 20, seed=1, dtype=dtype)
    for limit in (0, 3, 9):
        settings = Settings(max_iter=limit, polish=False)
        here = torchqp.solve_qp(**problem, settings=settings)
        there = torchqp.solve_qp(**testing.cast(problem, device), settings=settings)
        assert_equal(here, there)
        if limit == 0:
            assert bool((there.status > 1).all())


@pytest.mark.parametrize("backward", MODES)
def test_a_failed_member_disturbs_nobody(backward, device):
    broken = testing.cast(mixed_outcomes(), device)
    healthy = testing.cast(mixed_outcomes(batch_of_failures=False), device)
    solution, grads = testing.pullback(torchqp.solve_qp, broken, backward=backward)
    expected, whole = testing.pullback(torchqp.solve_qp, healthy, backward=backward)
    assert solution.status.tolist() == [0, 2, 6, 0]
    assert not bool(grads["q"][[1, 2]].any())
    for name in SOLUTION:
        for i in (0, 3):
            one, other = (getattr(s, name)[i].detach() for s in (solution, expected))
            assert testing.same_bits(one, other), name
    for i in (0, 3):
        assert testing.same_bits(grads["q"][i], whole["q"][i])
    for grad in grads.values():
        assert bool(grad.isfinite().all())
    with pytest.raises(torchqp.SolveError, match="2 of 4 problems failed"):
        solution.raise_for_status()


@pytest.mark.parametrize("name", ["q", "G", "h", "A", "b", "lb", "ub"])
def test_T1_tensors_on_two_devices_are_refused(name, cuda):
    problem = mixed_outcomes(batch_of_failures=False)
    moved = testing.cast(problem, cuda)
    with pytest.raises(ValueError, match=f"^{name}: expected device cuda:0 like Q, got cpu"):
        torchqp.solve_qp(**(moved | {name: problem[name]}))
    with pytest.raises(ValueError, match=f"^{name}: expected device cpu like Q, got cuda:0"):
        torchqp.solve_qp(**(problem | {name: moved[name]}))


def test_the_operators_refuse_two_devices_too(cuda):
    Q, q = torch.eye(3, device=cuda), torch.ones(3, device=cuda)
    tail = (False, "kkt", [], 1e-4, 1e-4, 100, True, False, False)
    for first, second, named in ((Q, q.cpu(), "cpu"), (Q.cpu(), q, "cuda:0")):
        with pytest.raises(ValueError, match=f"solve_qp: expected q on device .* got {named}"):
            torch.ops.torchqp.solve(first, second, *[None] * 12, *tail)
    active = torch.zeros(0, dtype=torch.int8)
    status = torch.zeros((), dtype=torch.int32, device=cuda)
    with pytest.raises(ValueError, match="kkt_solve: expected active on device cuda:0"):
        torch.ops.torchqp.kkt_solve(Q, None, None, active, status, None, q, *[None] * 3, False)
    none = q[:0]
    with pytest.raises(ValueError, match="parameter_gradients: expected status on device cuda:0"):
        adjoint = (q, none, none, q, none, none, None, None)
        torch.ops.torchqp.parameter_gradients(
            *adjoint, active.cuda(), status.cpu(), [True] * 8, [False] * 3, False
        )


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
def test_sparse_tensors_are_refused(cuda):
    Q = torch.eye(3, device=cuda)
    for sparse in (Q.to_sparse(), Q.to_sparse_csr()):
        with pytest.raises(TypeError, match="dense"):
            torchqp.solve_qp(sparse, Q[0])
        tail = (False, "kkt", [], 1e-4, 1e-4, 100, True, False, False)
        with pytest.raises(ValueError, match=r"layout Strided, .*\.to_dense"):
            torch.ops.torchqp.solve(sparse, Q[0], *[None] * 12, *tail)
