"""Members never meet: a member's bits do not depend on company, order, batch shape or threads."""

import pytest
import torch

import torchqp
from torchqp import testing

D = torch.float64
FAMILIES = (
    "strictly_convex",
    "semidefinite",
    "linear",
    "box",
    "simplex",
    "two_sided",
    "degenerate",
    "many_rows",
    "mixed_scales",
)
BATCH = 37  # no multiple of any pack width


def batched(family: str, n: int, dtype: torch.dtype, batch: int = BATCH) -> dict:
    """A batch in which every argument is batched, so that gradients belong to members."""
    problem = testing.make(family, n, batch, seed=n, dtype=dtype)
    z = problem["q"]

    def spread(name: str, t: torch.Tensor) -> torch.Tensor:
        diagonal = name == "Q" and hasattr(problem["Q"], "d")
        dims = 2 if name in ("Q", "G", "A") and not diagonal else 1
        return t.expand(z.shape[:-1] + t.shape[t.dim() - dims :]).clone()

    return {k: testing.map_tensor(lambda t, k=k: spread(k, t), v) for k, v in problem.items()}


def everything(problem: dict, weights: dict, backward: object = "kkt") -> dict[str, torch.Tensor]:
    """All outputs and all gradients under one roof."""
    solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=backward)
    result = dict(zip(solution._fields, solution, strict=True))
    return result | {f"grad_{k}": v for k, v in grads.items()}


def assert_same_bits(actual: dict, expected: dict, index: object, where: str) -> None:
    for name, value in actual.items():
        assert testing.same_bits(value, expected[name][index]), f"{where}: {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_has_the_same_bits_alone_and_in_any_batch(family: str, dtype: torch.dtype) -> None:
    for n in (3, 17):
        problem = batched(family, n, dtype)
        weights = testing.cotangents(torchqp.solve_qp(**problem), seed=1)
        full = everything(problem, weights)
        assert bool((full["status"] == 0).all())
        parts = {"alone": [slice(i, i + 1) for i in (0, 7, 8, 20, 36)], "five": [slice(16, 21)]}
        parts["sixteen"] = [slice(1, 17), slice(20, 36)]
        parts["reversed"] = [torch.arange(BATCH - 1, -1, -1)]
        parts["repeated"] = [torch.tensor([3, 3, 30, 3])]
        for where, indices in parts.items():
            for index in indices:
                weight = {k: w[index] for k, w in weights.items()}
                part = everything(testing.take(problem, index), weight)
                assert_same_bits(part, full, index, f"{where}, n = {n}")


@pytest.mark.parametrize("family", ["strictly_convex", "two_sided", "linear"])
def test_a_problem_without_batch_dimension_has_the_bits_of_its_batch(
    family: str, dtype: torch.dtype
) -> None:
    problem = batched(family, 9, dtype, batch=4)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=1)
    full = everything(problem, weights)
    single = everything(testing.take(problem, 2), {k: w[2] for k, w in weights.items()})
    assert_same_bits(single, full, 2, "no batch dimension")


@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "simplex"])
def test_threads_do_not_change_a_bit(family: str, dtype: torch.dtype) -> None:
    problem = batched(family, 20, dtype, batch=70)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=1)
    torch.set_num_threads(1)
    one = everything(problem, weights)
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        assert_same_bits(everything(problem, weights), one, slice(None), f"{threads} threads")


def test_repeated_runs_have_the_same_bits_with_shared_arguments_too() -> None:
    problem = testing.make("simplex", 20, 33, seed=1)
    problem["lb"] = torch.zeros(20, dtype=D)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=1)
    first = everything(problem, weights)
    for _ in range(20):
        assert_same_bits(everything(problem, weights), first, slice(None), "again")


@pytest.mark.parametrize("mode", ["smoothed", "lpgd"])
@pytest.mark.parametrize("family", ["strictly_convex", "many_rows"])
def test_the_other_modes_are_batch_invariant_too(
    mode: str, family: str, dtype: torch.dtype
) -> None:
    problem = batched(family, 9, dtype)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=1)
    full = everything(problem, weights, mode)
    for index in (slice(4, 5), slice(10, 27), torch.arange(BATCH - 1, -1, -1)):
        weight = {k: w[index] for k, w in weights.items()}
        part = everything(testing.take(problem, index), weight, mode)
        assert_same_bits(part, full, index, str(index))


def test_shared_arguments_solve_with_the_bits_of_their_copies(dtype: torch.dtype) -> None:
    one = testing.make("two_sided", 11, seed=3, dtype=dtype)
    q = one["q"] + 0.1 * torch.randn(2, 5, 11, dtype=D).to(dtype)
    shared = torchqp.solve_qp(**(one | {"q": q}))
    copied = {k: v.expand(2, 5, *v.shape).contiguous() for k, v in one.items()}
    expanded = {k: v.expand(2, 5, *v.shape) for k, v in one.items()}
    for other in (copied, expanded):
        solution = torchqp.solve_qp(**(other | {"q": q}))
        for name, value in zip(solution._fields, solution, strict=True):
            assert testing.same_bits(value, getattr(shared, name)), name


def test_leading_dimensions_broadcast() -> None:
    one = testing.make("strictly_convex", 6, seed=3)
    q = one["q"] + torch.randn(3, 1, 6, dtype=D)
    h = one["h"] + torch.rand(4, 6, dtype=D)
    solution = torchqp.solve_qp(**(one | {"q": q, "h": h}))
    assert solution.z.shape == (3, 4, 6)
    assert solution.status.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            alone = torchqp.solve_qp(**(one | {"q": q[i, 0], "h": h[j]}))
            assert testing.same_bits(alone.z, solution.z[i, j])


def test_layout_does_not_matter_and_inputs_are_not_written(dtype: torch.dtype) -> None:
    problem = batched("two_sided", 8, dtype, batch=5)
    base = torchqp.solve_qp(**problem)
    turned = {
        k: v.mT.contiguous().mT if v.dim() == 3 else v.T.contiguous().T for k, v in problem.items()
    }
    sparse = {}
    for name, value in problem.items():
        wide = torch.full((*value.shape[:-1], 2 * value.shape[-1]), float("nan"), dtype=dtype)
        wide[..., ::2] = value
        sparse[name] = wide[..., ::2]
    for other in (turned, sparse):
        versions = {k: v._version for k, v in other.items()}
        solution = torchqp.solve_qp(**other)
        for name, value in zip(solution._fields, solution, strict=True):
            assert testing.same_bits(value, getattr(base, name)), name
        assert versions == {k: v._version for k, v in other.items()}


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_an_empty_batch_works_forward_and_backward(mode: str) -> None:
    one = testing.make("two_sided", 6, seed=3)
    problem, wanted = testing.leaves(one | {"q": one["q"].expand(0, 6)})
    solution = torchqp.solve_qp(**problem, backward=mode)
    assert solution.z.shape == (0, 6)
    assert solution.status.shape == (0,)
    assert solution.residuals.shape == (0, 4)
    total = solution.z.sum() + solution.lam.sum()
    for name, grad in zip(wanted, torch.autograd.grad(total, list(wanted.values())), strict=True):
        assert grad.shape == wanted[name].shape
        assert not grad.numel() or float(grad.abs().max()) == 0.0, name


def test_absent_and_empty_constraints_are_the_same(dtype: torch.dtype) -> None:
    problem = testing.make("unconstrained", 7, 5, seed=2, dtype=dtype)
    rows, none = torch.zeros(0, 7, dtype=dtype), torch.zeros(0, dtype=dtype)
    base = torchqp.solve_qp(**problem)
    assert base.nu.shape == (5, 0)
    assert base.lam.shape == (5, 0)
    for extra in (
        {"G": rows, "h": none},
        {"A": rows, "b": none},
        {"G": rows, "h": none, "A": rows, "b": none},
    ):
        solution = torchqp.solve_qp(**problem, **extra)
        assert testing.same_bits(solution.z, base.z)
        assert testing.same_bits(solution.status, base.status)
    one = testing.make("strictly_convex", 7, 5, seed=2, dtype=dtype)
    only_rows = {k: one[k] for k in ("Q", "q", "G", "h")}
    empty = torchqp.solve_qp(**only_rows, A=rows, b=none)
    assert testing.same_bits(empty.z, torchqp.solve_qp(**only_rows).z)


def test_identical_problems_have_identical_bits(dtype: torch.dtype) -> None:
    one = testing.make("many_rows", 10, seed=2, dtype=dtype)
    solution = torchqp.solve_qp(**(one | {"q": one["q"].expand(50, 10)}))
    for name, value in zip(solution._fields, solution, strict=True):
        assert testing.same_bits(value, value[:1].expand_as(value)), name
