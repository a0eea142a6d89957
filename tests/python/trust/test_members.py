"""B1 to B6: a member of a batch is on its own."""

import pytest
import torch
from contract import INF, MODES, NAN, D, all_nine, assert_same, tensor

import torchqp
from torchqp import Settings, Status, testing

BAD = {
    "nan": (lambda p, i: p["q"][i].fill_(NAN), 6),
    "infinite": (lambda p, i: p["Q"][i, 0, 0].fill_(INF), 6),
    "crossed": (lambda p, i: (p["lb"][i, 1].fill_(2.0), p["ub"][i, 1].fill_(1.0)), 6),
    "infeasible": (
        lambda p, i: (p["A"][i, 1].copy_(p["A"][i, 0]), p["b"][i].copy_(tensor(0.0, 1.0))),
        2,
    ),
    "infinite limit": (lambda p, i: p["h"][i, 0].fill_(-INF), 2),
    "unbounded": (
        lambda p, i: (
            p["Q"][i].zero_(),
            p["A"][i].zero_(),
            p["G"][i].zero_(),
            p["b"][i].zero_(),
            p["h"][i].fill_(1.0),
            p["h_lower"][i].fill_(-1.0),
            p["lb"][i].fill_(-INF),
            p["ub"][i].fill_(INF),
            p["q"][i].fill_(1.0),
        ),
        3,
    ),
    "not convex": (lambda p, i: p["Q"][i].neg_(), 7),
}


def spoilt(batch: int, members: dict[int, str], seed: int = 3) -> tuple[dict, list[int]]:
    """Solvable problems with a fault in some members; the statuses expected."""
    problem = {k: v.clone() for k, v in all_nine(batch, seed=seed).items()}
    expected = [0] * batch
    for member, kind in members.items():
        change, expected[member] = BAD[kind]
        change(problem, member)
    return problem, expected


def test_B1_identical_problems_have_identical_bits() -> None:
    one = testing.take(all_nine(), 1)
    problem = {k: v.expand(67, *v.shape).clone() for k, v in one.items()}
    weights = testing.cotangents(torchqp.solve_qp(**one), 0)
    weights = {k: w.expand(67, *w.shape) for k, w in weights.items()}
    for mode in MODES:
        solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        for name, value in (*zip(solution._fields, solution, strict=True), *grads.items()):
            assert testing.same_bits(value, value[:1].expand_as(value)), (mode, name)


def test_B2_order_size_and_company_do_not_change_a_bit() -> None:
    problem = all_nine(41)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    generator = torch.Generator().manual_seed(0)
    for mode in MODES:
        full = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        chosen = [torch.randperm(41, generator=generator) for _ in range(3)]
        chosen += [slice(i, i + 1) for i in (0, 8, 40)]
        chosen += [slice(3, 3 + size) for size in (2, 7, 8, 9, 33)]
        for index in chosen:
            part = {k: w[index] for k, w in weights.items()}
            taken = testing.take(problem, index)
            solution, grads = testing.pullback(torchqp.solve_qp, taken, part, backward=mode)
            assert_same(solution, full[0], index, mode)
            assert_same(grads, full[1], index, mode)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_B3_any_share_of_bad_members_leaves_the_others_as_alone(share: float) -> None:
    batch = 140
    step = round(1 / share)
    kinds = list(BAD)
    members = {i: kinds[(i // step) % len(kinds)] for i in range(0, batch, step)}
    problem, expected = spoilt(batch, members)
    good = torch.tensor([status == 0 for status in expected])
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    for mode in MODES:
        solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        assert solution.status.tolist() == expected
        for name, grad in grads.items():
            assert bool(grad.isfinite().all()), name
            assert not bool(grad[~good].any()), name
        clean = testing.take(problem, good)
        part = {k: w[good] for k, w in weights.items()}
        alone, alone_grads = testing.pullback(torchqp.solve_qp, clean, part, backward=mode)
        for name in solution._fields:
            kept = getattr(solution, name)[good]
            assert testing.same_bits(kept, getattr(alone, name)), name
        for name, grad in grads.items():
            assert testing.same_bits(grad[good], alone_grads[name]), name


def test_B4_a_hard_member_costs_the_easy_ones_no_iteration() -> None:
    """Qpth stops on best.max() < eps and mu.min(): one member holds all the others."""
    easy = testing.make("two_sided", 10, 30, seed=3)
    alone = torchqp.solve_qp(**easy)
    hard = {k: v.clone() for k, v in easy.items()}
    hard["Q"][7] = torch.diag(torch.logspace(-12, 6, 10, dtype=D))
    hard["h"][7] = testing.times(hard["G"][7], alone.z[7]) + 1e-12
    settings = Settings(max_iter=int(alone.iterations.max()) + 1)
    mixed = torchqp.solve_qp(**hard, settings=settings)
    others = torch.arange(30) != 7
    assert int(mixed.iterations[7]) > int(alone.iterations[7])
    assert torch.equal(mixed.iterations[others], alone.iterations[others])
    for name in ("z", "lam", "status"):
        assert testing.same_bits(getattr(mixed, name)[others], getattr(alone, name)[others])


def test_B5_a_batch_without_a_good_member_raises_nothing() -> None:
    problem, expected = spoilt(7, dict(enumerate(BAD)))
    for mode in MODES:
        solution, grads = testing.pullback(torchqp.solve_qp, problem, 0, backward=mode)
        assert solution.status.tolist() == expected
        assert all(not bool(grad.any()) for grad in grads.values())
    with pytest.raises(torchqp.SolveError, match="7 of 7 problems failed"):
        solution.raise_for_status()
    assert set(expected) == {2, 3, 6, Status.NOT_CONVEX}


def test_B6_what_lies_beside_the_arguments_is_neither_read_nor_written() -> None:
    problem = all_nine(9)
    base, base_grads = testing.pullback(torchqp.solve_qp, problem)
    guarded, frames = {}, {}
    for name, value in problem.items():
        frame = torch.full((11, *(size + 2 for size in value.shape[1:])), NAN, dtype=D)
        inner = frame[(slice(1, -1),) * frame.dim()]
        inner.copy_(value)
        guarded[name], frames[name] = inner.requires_grad_(), frame
    solution = torchqp.solve_qp(**guarded)
    weights = testing.cotangents(solution, 0)
    grads = torch.autograd.grad(
        [getattr(solution, k) for k in weights], list(guarded.values()), list(weights.values())
    )
    assert_same(solution, base)
    assert_same(dict(zip(guarded, grads, strict=True)), base_grads)
    for name, frame in frames.items():
        inside = problem[name].numel()
        assert int(frame.isnan().sum()) == frame.numel() - inside, name
