"""What `watch_backward` says of gradients that nothing determines, and what those gradients are."""

import pytest
import torch

import torchqp

D = torch.float64


def face(q: torch.Tensor, backward: str = "kkt") -> torch.Tensor:
    """Minimisers of q'z over the simplex of three entries; for q = 0 the whole simplex."""
    Q, ones = torch.zeros(3, 3, dtype=D), torch.ones(1, 3, dtype=D)
    return torchqp.solve_qp(Q, q, A=ones, b=1.0, lb=0.0, backward=backward).z


def test_only_members_on_a_face_are_marked():
    q = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=D, requires_grad=True)
    z = face(q)
    with torchqp.watch_backward() as watch:
        z[:, 0].sum().backward()
    assert [info.tolist() for info in watch.info] == [[1, 0]]
    assert watch.regularised() == 1
    assert q.grad[1].eq(0).all()


def test_the_undetermined_part_is_left_out():
    Q = torch.diag(torch.tensor([2.0, 0.0], dtype=D)).requires_grad_()
    q = torch.tensor([-2.0, 0.0], dtype=D, requires_grad=True)
    z = torchqp.solve_qp(Q, q).z
    with torchqp.watch_backward() as watch:
        grad = torch.autograd.grad(3 * z[0] + 5 * z[1], q)[0]
    assert watch.regularised() == 1
    torch.testing.assert_close(grad, torch.tensor([-1.5, 0.0], dtype=D), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backward", ["kkt", "smoothed"])
@pytest.mark.parametrize("dense", [False, True])
def test_a_derivative_that_overflows_is_zero_and_marked(backward, dense):
    """The solution 0 does not depend on the smallest curvature there is, dz / dq = -1 / Q does."""
    d = torch.tensor([[1.0, 1.0], [1.0, 5e-324]], dtype=D)
    q = torch.zeros(2, 2, dtype=D, requires_grad=True)
    Q = torch.diag_embed(d) if dense else torchqp.Diag(d)
    z = torchqp.solve_qp(Q, q, backward=backward).z
    with torchqp.watch_backward() as watch:
        (4 * z).sum().backward()
    assert torch.isfinite(q.grad).all()
    assert q.grad[0].tolist() == pytest.approx([-4.0, -4.0])
    if not dense and backward == "kkt":  # in a matrix, that small beside 1 is no curvature
        assert [info.tolist() for info in watch.info] == [[0, 1]]
        assert q.grad[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("backward", ["kkt", "smoothed", "lpgd"])
def test_regular_gradients_are_not_marked(backward):
    q = torch.tensor([-1.0, 2.0, 0.5], dtype=D, requires_grad=True)
    z = torchqp.solve_qp(torch.eye(3, dtype=D), q, lb=-0.5, ub=0.7, backward=backward).z
    with torchqp.watch_backward() as watch:
        z.sum().backward()
    assert [info.tolist() for info in watch.info] == [0]
    assert watch.regularised() == 0


def test_a_moved_problem_without_a_solution_is_marked():
    """The cotangent of nu moves the right-hand side of the row beyond what the box allows."""
    q = torch.tensor([[-1.0]], dtype=D, requires_grad=True)
    one = torch.ones(1, 1, dtype=D)
    mode = torchqp.LPGD(tau=10.0, tau_mode="absolute")
    sol = torchqp.solve_qp(one, q, A=one, b=torch.zeros(1, dtype=D), lb=-1.0, ub=1.0, backward=mode)
    with torchqp.watch_backward() as watch:
        (grad,) = torch.autograd.grad(sol.nu.sum(), q)
    assert watch.info[0].tolist() == [1]
    assert torch.isfinite(grad).all()


def test_nothing_is_kept_outside_the_block():
    q = torch.zeros(3, dtype=D, requires_grad=True)
    z = face(q)
    with torchqp.watch_backward() as outer:
        with torchqp.watch_backward() as inner:
            z[0].backward(retain_graph=True)
        z[0].backward(retain_graph=True)
    z[0].backward()
    assert (len(outer.info), len(inner.info)) == (2, 1)
