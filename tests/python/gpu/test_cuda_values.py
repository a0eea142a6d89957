"""Solutions on the GPU are the CPU's, bit by bit; layouts, company and order change nothing."""

import itertools

import pytest
import torch
from parity import SOLUTION, assert_equal, batched, has_library_setup, operator_outputs
from small_problems import SHARP, everything

import torchqp
from torchqp import Diag, testing
from torchqp._rules import SolveOutputs

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_every_output_of_every_family_is_the_cpus(family, dtype, device):
    for n in testing.SIZES:
        problem = testing.make(family, n, 8, seed=n, dtype=dtype)
        here = operator_outputs(problem)
        there = operator_outputs(testing.cast(problem, device))
        for value in there:
            assert value.device.type == device.type
            assert value.is_contiguous()
        assert there.status.tolist() == [0] * 8, n
        assert_equal(here, there, SolveOutputs._fields)


@pytest.mark.parametrize(
    ("family", "n"),
    [
        ("strictly_convex", 120),
        ("optnet", 160),
        *itertools.product(["box", "many_rows"], [160, 250]),
    ],
)
def test_problems_of_a_whole_block_are_the_cpus(family, n, dtype, device):
    problem = testing.make(family, n, 2, seed=n, dtype=dtype)
    assert not has_library_setup(problem)
    assert_equal(
        operator_outputs(problem),
        operator_outputs(testing.cast(problem, device)),
        SolveOutputs._fields,
    )


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("shared", [(), ("G", "lb"), ("Q", "A", "b"), ("Q", "G", "A")])
def test_both_sides_of_everything_and_shared_parameters(diagonal, shared, dtype, device):
    problem = testing.cast(everything(batch=(6,), shared=shared, diagonal=diagonal), dtype)
    settings = SHARP if dtype == torch.float64 else None
    here = torchqp.solve_qp(**problem, settings=settings)
    there = torchqp.solve_qp(**testing.cast(problem, device), settings=settings)
    assert bool((there.lam < 0).any())
    assert bool((there.lam_ub > 0).any())
    assert_equal(here, there)


@pytest.mark.parametrize("n", [2, 5, 33, 100, 1000])
@pytest.mark.parametrize("dense", [False, True])
def test_single_row_problems(n, dense, dtype, device):
    if dense and n > 100:
        pytest.skip("a dense Q of this size is another test's")
    problem = testing.make("simplex", n, 16, seed=n, dtype=dtype)
    if dense:
        problem["Q"] = torch.diag_embed(problem["Q"].d)
    assert_equal(torchqp.solve_qp(**problem), torchqp.solve_qp(**testing.cast(problem, device)))


@pytest.mark.parametrize("family", ["strictly_convex", "linear", "two_sided", "simplex", "optnet"])
def test_warm_starts(family, dtype, device):
    problem = testing.make(family, 12, 5, seed=3, dtype=dtype)
    near = problem | {"q": problem["q"] + 1e-3}
    cold = torchqp.solve_qp(**problem)
    there = testing.cast(near, device)
    moved = torchqp.Solution(*(t.to(device) for t in cold))
    assert_equal(
        torchqp.solve_qp(**near, warm_start=cold), torchqp.solve_qp(**there, warm_start=moved)
    )
    with pytest.raises(ValueError, match="z0: expected device"):
        elsewhere = "meta" if device.type == "cpu" else "cpu"
        start = torchqp.Solution(*(t.to(elsewhere) for t in cold))
        torchqp.solve_qp(**there, warm_start=start)


def test_numbers_stand_for_vectors_on_the_device(device):
    Q, q = torch.eye(3, device=device), torch.tensor([[-2.0, 0.5, 3.0]], device=device)
    solution = torchqp.solve_qp(Q, q, lb=-1.0, ub=1.0)
    assert solution.z.device == q.device
    assert solution.z.tolist() == [[1.0, -0.5, -1.0]]
    assert solution.raise_for_status() is solution


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
@pytest.mark.parametrize("backward", ["kkt", "smoothed", "lpgd"])
def test_an_empty_batch(shape, backward, device):
    q = torch.ones(*shape, 4, device=device, requires_grad=True)
    Q = torch.eye(4, device=device, requires_grad=True)
    solution = torchqp.solve_qp(Q, q, lb=0.0, backward=backward)
    assert solution.z.shape == (*shape, 4)
    assert solution.status.shape == shape
    solution.z.sum().backward()
    assert q.grad.shape == q.shape
    assert not bool(Q.grad.any())


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "batch last"])
def test_layouts_change_no_bit(layout, dtype, device):
    problem = testing.cast(testing.make("strictly_convex", 9, 6, seed=2, dtype=dtype), device)

    def arranged(t):
        if layout == "transposed":
            return t.mT.contiguous().mT if t.dim() > 2 else t.t().contiguous().t()
        if layout == "sliced":
            return torch.stack([t, -t], -1)[..., 0]
        if layout == "batch last":
            return t.movedim(0, -1).contiguous().movedim(-1, 0)
        return t[:1].expand(t.shape)

    changed = {k: testing.map_tensor(arranged, v) for k, v in problem.items()}
    assert any(not t.is_contiguous() for t in changed.values())
    plain = {k: v.contiguous() for k, v in changed.items()}
    assert_equal(torchqp.solve_qp(**plain), torchqp.solve_qp(**changed))


@pytest.mark.parametrize("family", ["strictly_convex", "two_sided", "simplex", "many_rows"])
@pytest.mark.parametrize("n", [3, 20, 75])
def test_a_member_alone_is_the_member_in_its_batch(family, n, dtype, device):
    problem = testing.cast(testing.make(family, n, 40, seed=n, dtype=dtype), device)
    problem = batched(problem, 40)
    together = operator_outputs(problem)
    for i in (0, 17, 39):
        alone = operator_outputs(testing.take(problem, slice(i, i + 1)))
        for name, value in alone._asdict().items():
            assert testing.same_bits(value, getattr(together, name)[i : i + 1]), (name, i)
    order = torch.randperm(40).to(device)
    moved = operator_outputs(testing.take(problem, order))
    for name, value in moved._asdict().items():
        assert testing.same_bits(value, getattr(together, name)[order]), name


def test_a_million_problems_of_two_variables(device, dtype):
    count = 1_000_000 if device.type == "cuda" else 10_000
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(count, 2, 2, generator=generator, dtype=dtype)
    problem = {
        "Q": root @ root.mT + 0.1 * torch.eye(2, dtype=dtype),
        "q": torch.randn(count, 2, generator=generator, dtype=dtype),
        "G": torch.randn(count, 3, 2, generator=generator, dtype=dtype),
        "h": torch.rand(count, 3, generator=generator, dtype=dtype),
    }
    there = torchqp.solve_qp(**testing.cast(problem, device))
    assert int((there.status > 1).sum()) == 0
    some = torch.randperm(count, generator=generator)[:2000]
    here = torchqp.solve_qp(**testing.take(problem, some))
    there = torchqp.Solution(*(t[some.to(device)] for t in there))
    assert_equal(here, there)


def test_twenty_runs_give_the_same_bits(dtype, device):
    problem = testing.cast(testing.make("two_sided", 20, 64, seed=5, dtype=dtype), device)
    first = torchqp.solve_qp(**problem)
    for _ in range(20):
        again = torchqp.solve_qp(**problem)
        for name in SOLUTION:
            assert testing.same_bits(getattr(first, name), getattr(again, name)), name


def test_a_diagonal_Q_equals_the_dense_one(dtype, device):
    limit = 1e-8 if dtype == torch.float64 else 1e-3
    problem = testing.make("box", 12, 6, seed=9, dtype=dtype)
    d = torch.rand(6, 12, dtype=dtype) + 0.5
    diagonal = torchqp.solve_qp(**testing.cast(problem | {"Q": Diag(d)}, device))
    dense = torchqp.solve_qp(**testing.cast(problem | {"Q": torch.diag_embed(d)}, device))
    for name, value in testing.outputs(diagonal):
        assert testing.relative_error(value, getattr(dense, name)) <= limit, name
