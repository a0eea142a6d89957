"""Large problems, whose set-up cuBLAS and cuSOLVER compute: the CPU's outcomes to rounding."""

import pytest
import torch
from parity import (
    MODES,
    OF_THE_WAY,
    ROUNDING,
    SOLUTION,
    assert_equal,
    batched,
    capture,
    has_library_setup,
    pullbacks,
)

import torchqp
from torchqp import testing

pytestmark = pytest.mark.gpu
OUTCOME = [name for name in SOLUTION if name not in OF_THE_WAY]
# How much more a gradient may move than a solution. On the CPU, where the matrices of the problem
# below move by four roundings, gradients move by 7e-5, 3e-2 and 8e-4 in float32.
GROWTH = {"kkt": 1, "smoothed": 100, "lpgd": 10}


def large(family, n, batch, dtype=torch.float64, seed=1):
    """Problems whose set-up is for libraries."""
    problem = testing.make(family, n, batch, seed=seed, dtype=dtype)
    assert has_library_setup(problem)
    return problem


@pytest.mark.parametrize(
    ("family", "n"),
    [
        ("strictly_convex", 140),
        ("strictly_convex", 250),
        ("optnet", 200),
        ("equality_only", 170),
        ("unconstrained", 300),
        ("semidefinite", 170),  # Q is singular: the dual form gives these up
        ("linear", 170),
        ("degenerate", 170),
    ],
)
def test_values_are_the_cpus_to_rounding(family, n, dtype, device):
    problem = large(family, n, 3, dtype)
    here = torchqp.solve_qp(**problem)
    there = torchqp.solve_qp(**testing.cast(problem, device))
    assert here.status.tolist() == [0] * 3
    names = OUTCOME
    if family in ("linear", "degenerate", "semidefinite"):
        names = ["z", "status"]  # several multipliers may belong to a vertex
    assert_equal(here, there, names, ROUNDING[dtype])


@pytest.mark.parametrize("backward", MODES)
def test_gradients_are_the_cpus_to_rounding(backward, dtype, device):
    problem = large("optnet", 170, 3, dtype)
    (here, expected), (there, found) = pullbacks(problem, device, backward=backward)
    assert_equal(here, there, OUTCOME, ROUNDING[dtype])
    assert_equal(expected, found, expected.keys(), GROWTH[backward] * ROUNDING[dtype])


@pytest.mark.parametrize("shared", [("Q", "G"), ("Q", "q", "G")])
def test_shared_matrices(shared, dtype, device):
    problem = large("optnet", 170, 6, dtype)
    problem |= {k: problem[k][0] for k in shared if k != "q"}
    here = torchqp.solve_qp(**problem)
    there = torchqp.solve_qp(**testing.cast(problem, device))
    assert_equal(here, there, OUTCOME, ROUNDING[dtype])


def test_more_members_than_fit_at_once(device):
    count = 300 if device.type == "cuda" else 5
    problem = testing.cast(large("optnet", 164, count), device)
    together = torchqp.solve_qp(**problem)
    assert int((together.status != 0).sum()) == 0
    some = [0, count // 2, count - 1]
    for i in some:
        alone = torchqp.solve_qp(**testing.take(problem, slice(i, i + 1)))
        part = torchqp.Solution(*(t[i : i + 1] for t in together))
        assert_equal(alone, part, OUTCOME, ROUNDING[torch.float64])


def test_a_failing_member_touches_no_other(device):
    problem = batched(large("optnet", 170, 6), 6)
    good = torchqp.solve_qp(**testing.cast(problem, device))
    bad = {k: v.clone() for k, v in problem.items()}
    bad["Q"][1] = -bad["Q"][1]  # not convex
    bad["Q"][3, 0, 0] = torch.nan  # not finite
    bad["G"][4, 1], bad["h"][4, 0], bad["h"][4, 1] = -bad["G"][4, 0], -1.0, 0.0  # no point
    there = torchqp.solve_qp(**testing.cast(bad, device))
    assert there.status.tolist() == torchqp.solve_qp(**bad).status.tolist()
    assert [int(there.status[i]) for i in (0, 2, 5)] == [0, 0, 0]
    assert all(int(there.status[i]) > 1 for i in (1, 3, 4))
    for name in OUTCOME:
        for i in (0, 2, 5):
            assert testing.same_bits(getattr(there, name)[i], getattr(good, name)[i]), (name, i)


def test_runs_give_the_same_bits(device):
    problem = testing.cast(large("strictly_convex", 170, 5), device)
    first = torchqp.solve_qp(**problem)
    for _ in range(5):
        again = torchqp.solve_qp(**problem)
        for name in SOLUTION:
            assert testing.same_bits(getattr(first, name), getattr(again, name)), name


def test_products_keep_their_precision_where_a_program_allows_less(device):
    problem = testing.cast(large("optnet", 200, 3, torch.float32), device)
    expected = torchqp.solve_qp(**problem)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        there = torchqp.solve_qp(**problem)
    finally:
        torch.set_float32_matmul_precision(before)
    for name in SOLUTION:
        assert testing.same_bits(getattr(expected, name), getattr(there, name)), name


def test_nothing_waits_and_a_captured_solve_replays(cuda):
    first, second = (testing.cast(large("optnet", 170, 4, seed=s), cuda) for s in (1, 2))
    expected = [torchqp.solve_qp(**problem) for problem in (first, second)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        torchqp.solve_qp(**first)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph, static, captured = capture(first)
    for problem, solution in ((first, expected[0]), (second, expected[1])):
        for name, value in problem.items():
            static[name].copy_(value)
        graph.replay()
        assert_equal(solution, captured, OUTCOME, ROUNDING[torch.float64])


def test_two_streams_and_two_threads(cuda):
    from concurrent.futures import ThreadPoolExecutor

    problems = [testing.cast(large("optnet", 170, 8, seed=s), cuda) for s in range(4)]
    expected = [torchqp.solve_qp(**problem) for problem in problems]
    torch.cuda.synchronize()

    def solve(problem):
        stream = torch.cuda.Stream(cuda)
        with torch.cuda.device(cuda), torch.cuda.stream(stream):
            solution = torchqp.solve_qp(**problem)
        stream.synchronize()
        return solution

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(solve, problems * 3))
    for i, solution in enumerate(found):
        assert_equal(expected[i % 4], solution, OUTCOME, ROUNDING[torch.float64])
