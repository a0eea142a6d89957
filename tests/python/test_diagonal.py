"""A diagonal Q has the solution and the gradients of the same Q given as a matrix."""

import pytest
import torch

import torchqp
from torchqp import Diag, testing

# n, m, p, lb, ub: few rows (kept diagonal), many rows (made dense), each kind of constraint.
SHAPES = [
    (8, 0, 1, True, True),
    (8, 2, 2, True, False),
    (20, 3, 2, False, False),
    (30, 0, 0, True, True),
    (12, 4, 2, True, True),
    (12, 0, 0, False, False),
    (9, 1, 0, False, True),
    (6, 5, 2, True, True),
]
LIMIT = {torch.float64: 1e-9, torch.float32: 1e-3}


def _problem(n: int, m: int, p: int, lb: bool, ub: bool, seed: int) -> tuple:
    """The diagonal and the other arguments of a feasible batch of 11, in float64."""
    generator = torch.Generator().manual_seed(seed)
    batch, options = 11, {"generator": generator, "dtype": torch.float64}
    d, inner = torch.rand(batch, n, **options) + 0.1, torch.rand(batch, n, **options)
    problem = {"q": torch.randn(batch, n, **options)}
    if m:
        problem["G"] = torch.randn(batch, m, n, **options)
        problem["h"] = testing.times(problem["G"], inner) + 0.1
    if m > 2:
        problem["h_lower"] = problem["h"] - 0.3
    if p:
        problem["A"] = torch.randn(batch, p, n, **options)
        problem["b"] = testing.times(problem["A"], inner)
    if lb:
        problem["lb"] = torch.zeros(n, dtype=torch.float64)
    if ub:
        problem["ub"] = torch.ones(n, dtype=torch.float64)
    return d, problem


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_diagonal_and_matrix_agree(shape: tuple, dtype: torch.dtype) -> None:
    for seed in range(3):
        d, problem = _problem(*shape, seed)
        weights = torch.linspace(-1, 2, shape[0], dtype=dtype)
        results = []
        for make in (Diag, torch.diag_embed):
            leaves = {k: v.to(dtype).requires_grad_() for k, v in problem.items()}
            entries = d.to(dtype).requires_grad_()
            solution = torchqp.solve_qp(make(entries), **leaves)
            assert solution.status.tolist() == [0] * 11
            loss = (solution.z * weights).sum()
            loss = loss + sum(x.square().sum() for x in (solution.nu, solution.lam))
            grads = torch.autograd.grad(loss, [entries, *leaves.values()])
            results.append([solution.z.detach(), *grads])
        for ours, dense in zip(*results, strict=True):
            assert testing.relative_error(ours, dense) <= LIMIT[dtype]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_fake_kernel_knows_the_size_of_the_factor(shape: tuple) -> None:
    d, problem = _problem(*shape, seed=0)
    names = ("G", "h_lower", "h", "A", "b", "lb", "ub")
    tensors = (d, problem["q"], *(problem.get(name) for name in names), *[None] * 5)
    options = (True, "kkt", [], 1e-8, 1e-8, 100, True, False, True)
    real = torch.ops.torchqp.solve(*tensors, *options)
    fake = torch.ops.torchqp.solve(
        *(None if t is None else t.to("meta") for t in tensors), *options
    )
    assert [t.shape for t in fake] == [t.shape for t in real]
    n, m, p = shape[:3]
    assert (real[-1].shape[-1] == 1) == (2 * (m + p) <= n)


def test_an_entry_may_be_zero_where_bounds_hold_the_variable() -> None:
    d = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    q = torch.tensor([-3.0, 1.0, 0.5, -1.0], dtype=torch.float64)
    z = torchqp.solve_qp(Diag(d), q, lb=-1.0, ub=2.0).raise_for_status().z
    expected = torch.tensor([2.0, -1.0, -0.25, 2.0], dtype=torch.float64)
    assert float((z - expected).abs().max()) <= 1e-12


def test_a_negative_entry_is_not_convex_and_an_unheld_one_unbounded() -> None:
    d = torch.tensor([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    q = torch.tensor([0.5, -1.0], dtype=torch.float64)
    solution = torchqp.solve_qp(Diag(d), q, lb=0.0)
    assert solution.status.tolist() == [7, 3, 0]
    assert solution.z[2].tolist() == pytest.approx([0.0, 1.0], abs=1e-12)


def test_a_vertex_of_the_simplex_has_an_exactly_zero_gradient() -> None:
    w = torch.zeros(5, 40, dtype=torch.float64)
    w[range(5), range(5)] = 3.0
    w.requires_grad_()
    ones = torch.ones(1, 40, dtype=torch.float64)
    z = torchqp.Projection(A=ones, b=1.0, lb=0.0)(w)
    vertex = torch.eye(5, 40, dtype=torch.float64)
    assert torch.equal(z.detach() != 0, vertex != 0)
    assert float((z.detach() - vertex).abs().max()) <= 1e-15
    (grad,) = torch.autograd.grad((z * torch.randn_like(z)).sum(), w)
    assert torch.equal(grad, torch.zeros_like(grad))


def _on_simplex(w: torch.Tensor) -> torch.Tensor:
    """The nearest point with z >= 0 and sum 1: shift by what the largest entries exceed, clip."""
    falling = w.sort(dim=-1, descending=True).values
    shifts = (falling.cumsum(-1) - 1) / torch.arange(1, w.shape[-1] + 1, dtype=w.dtype)
    count = (falling > shifts).sum(-1, keepdim=True)
    return (w - shifts.gather(-1, count - 1)).clamp(min=0)


@pytest.mark.parametrize("n", [2, 3, 10, 100, 1000])
def test_projections_are_exact_and_take_no_iterations(n: int, dtype: torch.dtype) -> None:
    w = torch.randn(37, n, generator=torch.Generator().manual_seed(n), dtype=dtype)
    w[7:14] = w[7:14].round()  # ties
    w[14:21] += 50
    ones = torch.ones(n, dtype=dtype)
    box = torchqp.solve_qp(Diag(ones), -w, lb=-0.5, ub=ones)
    simplex = torchqp.solve_qp(Diag(ones), -w, A=ones[None], b=1.0, lb=0.0)
    for solution in (box, simplex):
        assert solution.status.tolist() == [0] * 37
        assert solution.iterations.tolist() == [0] * 37
    assert torch.equal(box.z, w.clamp(-0.5, 1))
    error = (simplex.z.double() - _on_simplex(w.double())).abs()
    assert float(error.max()) <= {torch.float64: 3e-14, torch.float32: 2e-5}[dtype]
    assert float((simplex.z.double().sum(-1) - 1).abs().max()) <= 50 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["box", "capped simplex", "knapsack", "two-sided row", "row"])
def test_one_row_has_the_derivative_of_finite_differences(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    n, batch, options = 7, 6, {"generator": generator, "dtype": torch.float64}
    d, inner = torch.rand(batch, n, **options) + 0.2, torch.rand(batch, n, **options)
    problem = {"q": torch.randn(batch, n, **options)}
    row = torch.ones(batch, 1, n, **{"dtype": torch.float64})
    if kind != "capped simplex":
        row = torch.randn(batch, 1, n, **options)
    value = testing.times(row, inner)
    if kind in ("capped simplex", "knapsack"):
        problem |= {"A": row, "b": value}
    elif kind != "box":
        problem |= {"G": row, "h": value + 0.1}
    if kind == "two-sided row":
        problem["h_lower"] = value - 0.1
    if kind != "row":
        problem |= {"lb": inner - 0.3, "ub": inner + 0.3}
    names = list(problem)

    def solve(d: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = torchqp.solve_qp(Diag(d), **dict(zip(names, tensors, strict=True)))
        assert given.iterations.tolist() == [0] * batch
        return given.z, given.nu, given.lam, *(x for x in (given.lam_lb,) if x is not None)

    leaves = [t.requires_grad_() for t in (d, *problem.values())]
    assert torch.autograd.gradcheck(solve, leaves, eps=1e-7, atol=1e-6)
    assert torch.autograd.gradgradcheck(solve, leaves, eps=1e-7, atol=1e-5)
