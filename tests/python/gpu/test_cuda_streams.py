"""How the GPU is used: nothing waits, CUDA graphs, streams, devices, memory, compilation."""

import gc
from contextlib import contextmanager

import pytest
import torch
from parity import MODES, SOLUTION, assert_equal, batched, capture
from small_problems import everything

import torchqp
from torchqp import testing

pytestmark = [
    pytest.mark.gpu,
    # What torch says whenever the mode is switched on.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),
    # torch 2.11 warns about its own use of torch.jit and of a check in inductor.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch._prims_common.check`:FutureWarning"),
]
PROBLEMS = {
    "own": lambda: everything(batch=(5,), shared=()),
    "shared": lambda: everything(batch=(5,), shared=("Q", "G", "A")),
    "diagonal": lambda: everything(batch=(5,), shared=("G",), diagonal=True),
    "simplex": lambda: testing.make("simplex", 9, 5),
    "semidefinite": lambda: testing.make("semidefinite", 8, 5),
}


@contextmanager
def nothing_waits():
    """Raises where torch would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_guard_against_waiting_notices_it(cuda):
    with pytest.raises(RuntimeError, match="synchroniz"), nothing_waits():
        torch.ones(1, device=cuda).item()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("backward", MODES)
def test_T3_nothing_waits_for_the_device(problem, backward, cuda):
    problem = testing.cast(PROBLEMS[problem](), cuda)
    _, expected = testing.pullback(torchqp.solve_qp, problem, 3, backward=backward)
    solution = torchqp.solve_qp(**problem)
    weights = testing.cotangents(solution, 3)
    leaves, wanted = testing.leaves(problem)
    with nothing_waits():
        solution = torchqp.solve_qp(**leaves, backward=backward)
        warm = torchqp.solve_qp(**leaves, backward=backward, warm_start=solution)
        outputs = [getattr(solution, name) for name in weights]
        grads = torch.autograd.grad(
            outputs, list(wanted.values()), list(weights.values()), materialize_grads=True
        )
        assert solution.solved.shape == warm.status.shape
    for (name, grad), other in zip(expected.items(), grads, strict=True):
        assert testing.same_bits(grad, other), name


def test_second_and_forward_derivatives_wait_for_nothing(cuda):
    problem = testing.cast(everything(shared=("G", "lb")), cuda)
    leaves, wanted = testing.leaves(problem)
    ones = torch.ones_like(problem["q"])

    def run():
        z = torchqp.solve_qp(**leaves).z
        (first,) = torch.autograd.grad(z.square().sum(), wanted["q"], create_graph=True)
        second = torch.autograd.grad(first.square().sum(), list(wanted.values()))
        rest = {k: v for k, v in problem.items() if k != "q"}
        _, tangent = torch.func.jvp(
            lambda q: torchqp.solve_qp(q=q, **rest).z, (problem["q"],), (ones,)
        )
        return (*second, tangent)

    expected = run()
    with nothing_waits():
        again = run()
    for one, other in zip(expected, again, strict=True):
        assert testing.same_bits(one, other)


def test_elastic_answers_and_proofs_wait_for_nothing(cuda):
    problem = testing.cast(testing.infeasible(5, 6, "rows", seed=1), cuda)
    torchqp.solve_qp(**problem, elastic=2.0)
    with nothing_waits():
        solution = torchqp.solve_qp(**problem, elastic=2.0)
        proof = torchqp.certificate(**problem)
    assert solution.status.tolist() == [1] * 6
    assert proof.status.tolist() == [2] * 6


def test_layers_wait_for_nothing(cuda):
    from torchqp.compat.qpth import QPFunction

    optnet = torchqp.OptNet(n=6, n_ineq=4, n_eq=1, device=cuda)
    simplex = torchqp.Projection(A=torch.ones(1, 6), b=1.0, lb=0.0).to(cuda)
    q, empty = torch.randn(5, 6, device=cuda, requires_grad=True), torch.Tensor()
    Q, G = torch.eye(6, device=cuda), torch.ones(1, 6, device=cuda)

    def run():
        z = QPFunction(check_Q_spd=False)(Q, simplex(optnet(q)), G, G[0, :1], empty, empty)
        return torch.autograd.grad(z.square().sum(), q)[0]

    expected = run()
    with nothing_waits():
        again = run()
    assert testing.same_bits(expected, again)


def test_T3_a_captured_solve_replays_on_new_data(dtype, cuda):
    first, second = (
        testing.cast(testing.make("two_sided", 12, 20, seed=s, dtype=dtype), cuda) for s in (1, 2)
    )
    graph, static, captured = capture(first)
    for problem in (first, second, first):
        for name, value in problem.items():
            static[name].copy_(value)
        graph.replay()
        assert_equal(torchqp.solve_qp(**problem), captured)


@pytest.mark.parametrize("backward", MODES)
# The leaves are older than the stream that captures, which is meant here.
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream does not match")
@pytest.mark.parametrize("problem", ["own", "shared", "diagonal"])
def test_forward_and_backward_are_captured_together(problem, backward, cuda):
    problem = testing.cast(PROBLEMS[problem](), cuda)
    leaves, wanted = testing.leaves(problem)

    def step():
        z = torchqp.solve_qp(**leaves, backward=backward).z
        return z, torch.autograd.grad(z.square().sum(), list(wanted.values()))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z, grads = step()
    with torch.no_grad():
        wanted["q"] += 0.01
    graph.replay()
    expected_z, expected = step()
    assert testing.same_bits(z, expected_z)
    for name, one, other in zip(wanted, grads, expected, strict=True):
        assert testing.same_bits(one, other), name


def test_a_graphed_layer_trains(cuda):
    torch.manual_seed(0)
    plain = torchqp.OptNet(n=6, n_ineq=4, n_eq=1, device=cuda, dtype=torch.float64)
    q = torch.randn(5, 6, device=cuda, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(plain(q).square().sum(), [q, *plain.parameters()])
    graphed = torch.cuda.make_graphed_callables(plain, (q.detach().clone().requires_grad_(),))
    for _ in range(3):
        grads = torch.autograd.grad(graphed(q).square().sum(), [q, *plain.parameters()])
        for one, other in zip(expected, grads, strict=True):
            assert testing.same_bits(one, other)


def test_T2_two_streams_work_side_by_side(cuda):
    problems = [
        testing.cast(testing.make("strictly_convex", 40, 200, seed=s), cuda) for s in (1, 2)
    ]
    expected = [testing.pullback(torchqp.solve_qp, problem) for problem in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    results = [None, None]
    for _ in range(10):
        for i, (stream, problem) in enumerate(zip(streams, problems, strict=True)):
            with torch.cuda.stream(stream):
                results[i] = testing.pullback(torchqp.solve_qp, problem)
    torch.cuda.synchronize()
    for (solution, grads), (other, others) in zip(expected, results, strict=True):
        assert_equal(solution, other)
        assert_equal(grads, others, grads)


def test_T2_work_is_in_the_order_of_its_stream(cuda):
    """The data change on the side stream just before the solve, which must see the change."""
    problem = testing.cast(testing.make("strictly_convex", 20, 50, seed=1), cuda)
    changed = problem | {"q": -problem["q"]}
    expected = torchqp.solve_qp(**changed)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        problem["q"].neg_()
        solution = torchqp.solve_qp(**problem)
        problem["q"].zero_()
    stream.synchronize()
    assert_equal(expected, solution)


def test_T1_a_device_that_is_not_the_current_one(cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    other = torch.device("cuda", 1 if torch.cuda.current_device() == 0 else 0)
    problem = testing.make("two_sided", 10, 6, seed=1)
    for backward in MODES:
        there = testing.pullback(torchqp.solve_qp, testing.cast(problem, other), backward=backward)
        assert there[0].z.device == other
        here = testing.pullback(torchqp.solve_qp, testing.cast(problem, cuda), backward=backward)
        assert_equal(here[0], there[0])
        assert_equal(here[1], there[1], here[1])
    assert torch.cuda.current_device() == cuda.index


def test_S10_without_memory_the_call_raises_and_the_next_one_works(cuda):
    problem = testing.cast(testing.make("strictly_convex", 64, 4096, seed=1), cuda)
    expected = torchqp.solve_qp(**problem)
    leaves, _ = testing.leaves(problem)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    before = torch.cuda.memory_allocated()
    try:
        # The saved factor alone is larger than what the allocator still has.
        with pytest.raises(torch.OutOfMemoryError):
            torchqp.solve_qp(**leaves)
        assert torch.cuda.memory_allocated() == before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_equal(expected, torchqp.solve_qp(**problem))


@pytest.mark.parametrize("backward", MODES)
def test_memory_stays_flat(backward, cuda):
    problem = testing.cast(batched(testing.make("two_sided", 20, 64, seed=1), 64), cuda)
    seen = []
    for i in range(200):
        testing.pullback(torchqp.solve_qp, problem, backward=backward)
        if i in (19, 199):
            seen.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert seen[0] == seen[1]


def test_the_workspace_goes_back_to_the_allocator(cuda):
    problem = testing.cast(testing.make("strictly_convex", 50, 500, seed=1), cuda)
    before = torch.cuda.memory_allocated()
    solution = torchqp.solve_qp(**problem)
    held = sum(-(-t.nbytes // 512) * 512 for t in solution)
    # `active` and the empty factor are gone with the call.
    assert torch.cuda.memory_allocated() - before == held


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backward", MODES)
def test_compiled_without_a_break(backend, backward, device):
    problem = testing.cast(everything(batch=(4,), shared=("G", "lb")), device)
    leaves, wanted = testing.leaves(problem)

    def function(q):
        solution = torchqp.solve_qp(**(leaves | {"q": 2 * q}), backward=backward)
        return solution.z.square().sum(-1) + solution.lam.sum(-1), solution.status

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    (value, status), (expected, _) = compiled(wanted["q"]), function(wanted["q"])
    assert status.device.type == device.type
    assert testing.relative_error(value, expected) <= 1e-12
    grads = torch.autograd.grad(value.sum(), list(wanted.values()))
    others = torch.autograd.grad(expected.sum(), list(wanted.values()))
    for name, one, other in zip(wanted, grads, others, strict=True):
        assert testing.relative_error(one, other) <= 1e-10, name
    torch._dynamo.reset()


def test_autocast_keeps_single_precision(device):
    problem = testing.cast(
        testing.make("strictly_convex", 6, 4, seed=1, dtype=torch.float32), device
    )
    expected = torchqp.solve_qp(**problem)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        same = torchqp.solve_qp(**problem)
        half = torchqp.solve_qp(**(problem | {"q": problem["q"].bfloat16()}))
        _, grads = testing.pullback(torchqp.solve_qp, problem, backward="smoothed")
    for name in SOLUTION:
        assert testing.same_bits(getattr(same, name), getattr(expected, name)), name
    assert half.z.dtype == torch.float32
    assert half.z.device.type == device.type
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
