"""Failures are data: NaN outputs, zero gradients, untouched neighbours, one check that raises."""

import pytest
import torch
from small_problems import mixed_outcomes

import torchqp
from torchqp import Diag, Solution, SolveError, Status

FLOATS = ("z", "nu", "lam", "lam_lb", "lam_ub", "s")


def leaves(problem):
    return {name: value.clone().requires_grad_() for name, value in problem.items()}


def take(problem, i):
    return {
        name: value[i : i + 1] if name in ("q", "b") else value for name, value in problem.items()
    }


def test_statuses_of_a_mixed_batch():
    sol = torchqp.solve_qp(**mixed_outcomes())
    assert sol.status.tolist() == [
        Status.SOLVED,
        Status.PRIMAL_INFEASIBLE,
        Status.INVALID_INPUT,
        Status.SOLVED,
    ]
    assert sol.status.dtype == sol.iterations.dtype == torch.int32
    assert sol.solved.tolist() == [True, False, False, True]
    for name in FLOATS:
        value = getattr(sol, name)
        assert torch.isnan(value[1:3]).all() and torch.isfinite(value[::3]).all(), name


@pytest.mark.parametrize(
    "mode", ["kkt", torchqp.Smoothed(alpha=0.3), torchqp.Smoothed(radius=1.0, metric="Q"), "lpgd"]
)
@pytest.mark.parametrize("on_failure", ["nan", "best"])
def test_failed_members_contribute_exactly_zero_and_touch_nobody(mode, on_failure):
    args = leaves(mixed_outcomes())
    sol = torchqp.solve_qp(**args, backward=mode, on_failure=on_failure)
    # Sums of squares: the failed members' cotangents are NaN themselves.
    loss = sum(getattr(sol, name).square().sum() for name in FLOATS)
    grads = dict(zip(args, torch.autograd.grad(loss, list(args.values())), strict=True))
    assert (grads["q"][1:3] == 0).all() and (grads["b"][1:3] == 0).all()

    expected = {name: torch.zeros_like(value) for name, value in args.items()}
    for i in (0, 3):
        alone = leaves(take(mixed_outcomes(), i))
        part = torchqp.solve_qp(**alone, backward=mode)
        inner = torch.autograd.grad(
            sum(getattr(part, name).square().sum() for name in FLOATS), list(alone.values())
        )
        for (name, value), grad in zip(alone.items(), inner, strict=True):
            target = expected[name][i : i + 1] if name in ("q", "b") else expected[name]
            target += grad
            assert value.shape == grad.shape
    for name, grad in grads.items():
        assert torch.isfinite(grad).all(), name
        torch.testing.assert_close(grad, expected[name], rtol=1e-10, atol=1e-10)
    assert grads["G"].abs().max() > 0 and grads["Q"].abs().max() > 0


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_failed_members_add_nothing_under_torch_func(mode):
    args = leaves(mixed_outcomes())

    def loss(args):
        sol = torchqp.solve_qp(**args, backward=mode)
        return sum(getattr(sol, name).square().sum() for name in FLOATS)

    eager = torch.autograd.grad(loss(args), list(args.values()))
    grads = torch.func.grad(loss)({name: value.detach() for name, value in args.items()})
    for (name, grad), expected in zip(grads.items(), eager, strict=True):
        assert torch.isfinite(grad).all(), name
        torch.testing.assert_close(grad, expected, rtol=1e-11, atol=1e-11, msg=name)
    assert grads["G"].abs().max() > 0 and grads["Q"].abs().max() > 0


# torch 2.11 warns about its own use of torch.jit in forward mode.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_failed_members_have_zero_second_derivatives_and_tangents():
    args = leaves(mixed_outcomes())
    q = args["q"]
    (grad,) = torch.autograd.grad(torchqp.solve_qp(**args).z.square().sum(), q, create_graph=True)
    second = torch.autograd.grad(grad.square().sum(), [args["Q"], args["G"], q])
    assert (
        all(torch.isfinite(s).all() for s in second)
        and (second[2][1:3] == 0).all()
        and second[0].abs().max() > 0
    )
    rest = {name: value.detach() for name, value in args.items() if name != "G"}
    _, tangent = torch.func.jvp(
        lambda G: torchqp.solve_qp(G=G, **rest)[:5],
        (args["G"].detach(),),
        (torch.ones(2, 4, dtype=torch.float64),),
    )
    assert all((t[1:3] == 0).all() and torch.isfinite(t).all() for t in tangent)


def test_slack_of_failed_members_keeps_nan_out_of_gradients():
    args = leaves(mixed_outcomes())
    sol = torchqp.solve_qp(**args)
    grads = torch.autograd.grad(sol.s.sum(), [args["G"], args["h"]])
    assert all(torch.isfinite(g).all() for g in grads)


def test_slack_is_the_distance_to_the_upper_side():
    Q, q = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
    G = torch.eye(2, dtype=torch.float64)
    h = torch.tensor([3.0, torch.inf], dtype=torch.float64)
    sol = torchqp.solve_qp(Q, q, G, h)
    assert sol.s.tolist() == pytest.approx([4.0, torch.inf], abs=1e-7)
    assert torchqp.solve_qp(Q, q, G, h_lower=-h).s.tolist() == [torch.inf, torch.inf]
    assert torchqp.solve_qp(Q, q).s.shape == (0,)


def test_best_iterates_are_finite():
    sol = torchqp.solve_qp(**mixed_outcomes(), on_failure="best")
    assert sol.status.tolist() == [0, 2, 6, 0]
    assert torch.isfinite(sol.z[1]).all() and torch.isfinite(sol.s[1]).all()


def test_one_failed_problem_without_a_batch():
    q = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    sol = torchqp.solve_qp(torch.zeros(2, 2).double(), q, lb=0.0, h=None)
    assert sol.status.item() == Status.SOLVED
    sol = torchqp.solve_qp(torch.zeros(2, 2).double(), q)
    assert sol.status.item() == Status.DUAL_INFEASIBLE
    (grad,) = torch.autograd.grad(sol.z.sum(), q)
    assert grad.tolist() == [0.0, 0.0]
    with pytest.raises(
        SolveError, match=r"(?s)1 of 1 problems failed.*dual_infeasible \(3\): the objective"
    ):
        sol.raise_for_status()


def test_raise_for_status_names_the_first_bad_members():
    sol = torchqp.solve_qp(**mixed_outcomes())
    with pytest.raises(SolveError) as caught:
        sol.raise_for_status()
    first, infeasible, invalid = str(caught.value).splitlines()
    assert first == "2 of 4 problems failed"
    assert infeasible.startswith(
        "  primal_infeasible (2) at batch index 1: no point satisfies the constraints"
    )
    assert (
        invalid.startswith("  invalid_input (6) at batch index 2: ")
        and "Advice: check the network" in invalid
    )
    good = torchqp.solve_qp(**mixed_outcomes(batch_of_failures=False))
    assert good.raise_for_status() is good


def solution(status):
    none = torch.zeros(0)
    return Solution(
        none, none, none, none, none, none, torch.tensor(status, dtype=torch.int32), none, none
    )


def test_raise_for_status_shortens_long_lists_and_shows_positions():
    with pytest.raises(
        SolveError,
        match=r"batch index \(0, 0\), \(0, 1\), \(0, 2\), \(1, 0\), \(1, 1\) and 1 more:",
    ):
        solution([[5, 5, 5], [5, 5, 5]]).raise_for_status()


def test_inaccurate_members_are_accepted_unless_asked():
    solution([0, 1]).raise_for_status()
    with pytest.raises(SolveError, match=r"solved_inaccurate \(1\) at batch index 1"):
        solution([0, 1]).raise_for_status(allow_inaccurate=False)


def test_every_status_has_its_own_meaning_and_advice():
    texts = [status.meaning for status in Status] + [status.advice for status in Status]
    assert len(set(texts)) == 16 and all(len(text) > 5 for text in texts)
    assert [s.value for s in Status] == list(range(8))
    assert ["NaN" in s.meaning and "gradient is zero" in s.meaning for s in Status] == [
        False
    ] * 2 + [True] * 6


def test_infinite_sides_on_the_wrong_end_are_infeasible():
    Q, q = Diag(torch.ones(2).double()), torch.ones(2).double()
    for name, value in (("lb", torch.inf), ("ub", -torch.inf)):
        assert torchqp.solve_qp(Q, q, **{name: value}).status.item() == Status.PRIMAL_INFEASIBLE
