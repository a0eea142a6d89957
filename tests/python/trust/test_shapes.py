"""S1 to S10: sizes, layouts, broadcasting and aliasing of the arguments."""

import itertools

import numpy as np
import pytest
import torch
from contract import MODES, D, all_nine, assert_same, tensor, within

import torchqp
from torchqp import Diag, Settings, testing


@pytest.mark.parametrize("mode", MODES)
def test_S1_an_empty_batch_works_forward_and_backward(mode: str) -> None:
    one = testing.take(all_nine(), 0)
    for empty in ({"q": one["q"].expand(0, 6)}, {k: v.expand(0, *v.shape) for k, v in one.items()}):
        problem = one | empty
        solution, grads = testing.pullback(torchqp.solve_qp, problem, backward=mode)
        assert solution.z.shape == (0, 6) and solution.nu.shape == (0, 2)
        assert solution.status.shape == (0,) and solution.residuals.shape == (0, 4)
        assert solution.raise_for_status() is solution
        for name, grad in grads.items():
            assert grad.shape == problem[name].shape
            assert not bool(grad.any()), name


@pytest.mark.parametrize("batch", [1, 2, 31, 32, 33])
def test_S2_batch_sizes_around_the_packs_give_the_same_answers(batch: int) -> None:
    problem = all_nine(33)
    full = torchqp.solve_qp(**problem)
    part = torchqp.solve_qp(**testing.take(problem, slice(0, batch)))
    assert_same(part, full, slice(0, batch))


def test_S2_a_million_tiny_problems_are_as_right_as_one() -> None:
    for batch in (65535, 65536, 65537, 1_000_000):
        q = torch.linspace(-3, 3, batch, dtype=D).unsqueeze(-1).expand(batch, 2)
        solution = torchqp.solve_qp(Diag(torch.ones(2, dtype=D)), q, lb=-1.0, ub=2.0)
        assert solution.status.shape == (batch,)
        assert not bool(solution.status.any())
        assert float((solution.z - (-q).clamp(-1, 2)).abs().max()) <= 1e-12, batch


def test_S3_no_variable_is_an_error_and_one_or_many_are_fine() -> None:
    with pytest.raises(ValueError, match=r"q: expected shape \[\*, n\] with n >= 1, got \[0\]"):
        torchqp.solve_qp(torch.zeros(0, 0), torch.zeros(0))
    one = torchqp.solve_qp(torch.ones(1, 1, dtype=D), tensor(-3.0), ub=tensor(2.0))
    assert (int(one.status), float(one.z), float(one.lam_ub)) == (0, 2.0, 1.0)
    n = 400  # above every tile and every kernel that is made for one size
    z = torch.randn(n, dtype=D)
    G = torch.randn(30, n, dtype=D)
    problem = {"Q": torch.eye(n, dtype=D), "q": -z, "G": G, "h": testing.times(G, z) - 0.1}
    solution = torchqp.solve_qp(**problem)
    assert int(solution.status) == 0
    assert float(testing.kkt_residuals(problem, solution).max()) <= 1e-8


@pytest.mark.parametrize("family", ["strictly_convex", "box"])
def test_S4_no_rows_are_the_same_as_None_bit_for_bit(family: str) -> None:
    """JaxOpt #570: a matrix of 0 rows crashed."""
    problem = testing.make(family, 7, 5, seed=2)
    empty = {"A": torch.zeros(0, 7, dtype=D), "b": torch.zeros(0, dtype=D)}
    rows = {"G": empty["A"], "h": empty["b"], "h_lower": empty["b"]}
    bare = {k: v for k, v in problem.items() if k not in ("A", "b")}
    nothing = {k: v for k, v in bare.items() if k not in ("G", "h")}
    weights = testing.cotangents(torchqp.solve_qp(**bare), 0, names=("z",))
    for kept, extra in ((bare, empty), (nothing, rows), (nothing, rows | empty)):
        for mode in MODES:
            base = testing.pullback(torchqp.solve_qp, kept, weights, backward=mode)
            other = testing.pullback(torchqp.solve_qp, kept | extra, weights, backward=mode)
            assert_same(other[0], base[0])
            for name, grad in base[1].items():
                assert testing.same_bits(other[1][name], grad), name
            assert other[1]["A" if "A" in extra else "G"].shape == (0, 7)


WRONG = {
    "rank": (lambda t: t.new_ones(()), ValueError),
    "inner size": (lambda t: torch.cat([t, t], -1), ValueError),
    "batch": (lambda t: t[:3], ValueError),
    "integers": (lambda t: t.long(), TypeError),
    "half": (lambda t: t.half(), TypeError),
    "complex": (lambda t: t.to(torch.complex128), TypeError),
    "bool": (lambda t: t > 0, TypeError),
    "mixed dtype": (lambda t: t.float(), TypeError),
    "sparse": (lambda t: t.to_sparse(), TypeError),
    "device": (lambda t: t.to("meta"), ValueError),
    "list": (lambda t: [1.0, 2.0], TypeError),
}


@pytest.mark.parametrize("kind", WRONG)
def test_S5_a_wrong_argument_is_named_with_what_was_expected_and_given(kind: str) -> None:
    change, error = WRONG[kind]
    problem, checked = all_nine(), 0
    for name, value in problem.items():
        if kind == "rank" and name in ("h", "h_lower", "b", "lb", "ub"):
            continue  # a 0-d tensor is a number there
        wrong = problem | {name: change(value)}
        # q says what n is: where it is the odd one, the message is of Q.
        named = rf"^({name}|Q): expected.*got" if name == "q" else rf"^{name}: expected.*got"
        if kind == "batch":
            named = r"^\w+: expected leading dimensions that broadcast with .*got"
        if kind in ("mixed dtype", "device") and name == "Q":
            named = "^q: expected.*like Q, got"
        with pytest.raises(error, match=named):
            torchqp.solve_qp(**wrong)
        checked += 1
        if kind in ("rank", "inner size", "batch", "integers", "half", "complex", "bool"):
            meta = {k: v.to("meta") for k, v in wrong.items()}
            with pytest.raises(error, match=named):
                torchqp.solve_qp(**meta)
    assert checked >= 4


def test_S6_every_subset_of_shared_arguments_equals_its_copies() -> None:
    """512 subsets: values to the bit, the gradient of a shared argument the sum of its copies'."""
    one = testing.take(all_nine(), 0)
    batch = (2, 3)
    copied = {k: v.expand(*batch, *v.shape).contiguous() for k, v in one.items()}
    copied["q"] = copied["q"] + 0.1 * torch.randn(*batch, 6, dtype=D)
    base = torchqp.solve_qp(**copied)
    assert not bool(base.status.any())
    weights = testing.cotangents(base, 1)
    base, apart = testing.pullback(torchqp.solve_qp, copied, weights)
    names = [k for k in one if k != "q"]
    for kept in itertools.product((False, True), repeat=len(names)):
        problem = dict(copied)
        for position, (name, shared) in enumerate(zip(names, kept, strict=True)):
            if shared:
                problem[name] = one[name] if position % 2 else one[name].expand_as(copied[name])
        solution, grads = testing.pullback(torchqp.solve_qp, problem, weights)
        assert_same(solution, base)
        for name, grad in grads.items():
            assert grad.shape == problem[name].shape
            expected = apart[name]
            expected = expected.sum((0, 1)) if grad.dim() < expected.dim() else expected
            assert testing.relative_error(grad, expected) <= 1e-12, (kept, name)


def test_S6_an_expanded_leaf_gets_the_sum_once() -> None:
    one = testing.take(all_nine(), 0)
    G = one["G"].clone().requires_grad_()
    shared = torchqp.solve_qp(**(one | {"G": G, "q": one["q"].expand(7, 6)})).z.sum()
    expanded = torchqp.solve_qp(**(one | {"G": G.expand(7, *G.shape)})).z.sum()
    (a,), (b,) = torch.autograd.grad(shared, G), torch.autograd.grad(expanded, G)
    assert float(a.abs().max()) > 1e-3
    assert testing.relative_error(a, b) <= 1e-12


def test_S7_strides_offsets_and_alignment_change_no_bit_and_nothing_is_written() -> None:
    problem = all_nine(5)
    base, grads = testing.pullback(torchqp.solve_qp, problem)

    def transposed(t: torch.Tensor) -> torch.Tensor:
        return t.mT.contiguous().mT if t.dim() == 3 else t.T.contiguous().T

    def every_second(t: torch.Tensor) -> torch.Tensor:
        wide = torch.full((*t.shape[:-1], 2 * t.shape[-1]), torch.nan, dtype=D)
        wide[..., ::2] = t
        return wide[..., ::2]

    def offset(t: torch.Tensor) -> torch.Tensor:
        padded = torch.cat([torch.full((3,), torch.nan, dtype=D), t.flatten()])
        return padded.as_strided(t.shape, t.stride(), 3)

    def turned(t: torch.Tensor) -> torch.Tensor:
        return t.flip(0).contiguous().flip(0)

    def misaligned(t: torch.Tensor) -> torch.Tensor:
        raw = bytearray(1 + 8 * t.numel())
        raw[1:] = t.contiguous().numpy().tobytes()
        moved = torch.frombuffer(raw, dtype=D, offset=1).reshape(t.shape)
        assert moved.data_ptr() % 8 != 0
        return moved

    for change in (transposed, every_second, offset, turned, misaligned):
        changed = {k: change(v) for k, v in problem.items()}
        kept = {k: (v.clone(), v._version) for k, v in changed.items()}
        solution = torchqp.solve_qp(**changed)
        assert_same(solution, base, where=change.__name__)
        leaves = {k: v.requires_grad_() for k, v in changed.items()}
        weights = testing.cotangents(solution, 0)
        again = torchqp.solve_qp(**leaves)
        found = torch.autograd.grad(
            [getattr(again, k) for k in weights], list(leaves.values()), list(weights.values())
        )
        assert_same(dict(zip(leaves, found, strict=True)), grads, where=change.__name__)
        for name, (value, version) in kept.items():
            assert changed[name]._version == version
            assert testing.same_bits(changed[name].detach(), value), name


def test_S7_cotangents_of_any_layout_give_the_same_bits() -> None:
    problem, wanted = testing.leaves(all_nine(5))
    z = torchqp.solve_qp(**problem).z
    weight = torch.randn(6, 5, dtype=D)
    for cotangent in (weight.T, weight.T.contiguous(), torch.ones((), dtype=D).expand(5, 6)):
        grads = torch.autograd.grad(z, list(wanted.values()), cotangent, retain_graph=True)
        other = torch.autograd.grad(
            z, list(wanted.values()), cotangent.contiguous(), retain_graph=True
        )
        for a, b in zip(grads, other, strict=True):
            assert testing.same_bits(a, b)


def test_S8_one_tensor_as_two_arguments_gets_both_gradients() -> None:
    root = torch.randn(5, 5, dtype=D)
    both = (root @ root.mT + torch.eye(5, dtype=D)).requires_grad_()
    limit = torch.full((5,), 0.3, dtype=D, requires_grad=True)
    q = torch.randn(3, 5, dtype=D)
    aliased = torchqp.solve_qp(both, q, both, limit, lb=-limit, ub=limit).z.square().sum()
    apart = {
        k: v.detach().clone().requires_grad_()
        for k, v in {"Q": both, "G": both, "h": limit, "lb": -limit, "ub": limit}.items()
    }
    loss = torchqp.solve_qp(q=q, **apart).z.square().sum()
    matrix, vector = torch.autograd.grad(aliased, [both, limit])
    g = dict(zip(apart, torch.autograd.grad(loss, list(apart.values())), strict=True))
    assert testing.relative_error(matrix, g["Q"] + g["G"]) <= 1e-12
    assert testing.relative_error(vector, g["h"] - g["lb"] + g["ub"]) <= 1e-12


def test_S8_the_answer_is_no_view_and_the_cotangent_may_alias_an_argument() -> None:
    problem, wanted = testing.leaves(all_nine())
    solution = torchqp.solve_qp(**problem)
    stores = {t.untyped_storage().data_ptr() for t in wanted.values()}
    assert not stores & {t.untyped_storage().data_ptr() for t in solution if t.numel()}
    q = wanted["q"].detach()  # the very memory of the argument
    aliasing = torch.autograd.grad(solution.z, list(wanted.values()), q, retain_graph=True)
    apart = torch.autograd.grad(solution.z, list(wanted.values()), q.clone())
    for a, b in zip(aliasing, apart, strict=True):
        assert testing.same_bits(a, b)


@pytest.mark.parametrize("batch", [2**26, 2**31 + 5, 2**40])
def test_S9_sizes_beyond_32_bits_keep_their_shapes(batch: int) -> None:
    meta = {"dtype": D, "device": "meta"}
    q = torch.empty(batch, 9, **meta)
    Q, G = torch.empty(batch, 9, 9, **meta), torch.empty(4, 9, **meta)
    solution = torchqp.solve_qp(Q, q, G, torch.empty(batch, 4, **meta), lb=0.0)
    assert solution.z.shape == solution.lam_lb.shape == (batch, 9)
    assert solution.lam.shape == solution.residuals.shape == (batch, 4)
    assert solution.status.shape == (batch,)


def test_S10_too_little_memory_is_an_error_and_the_next_call_is_fine() -> None:
    Q, one = Diag(torch.ones(3, dtype=D)), torch.ones(1, dtype=D)
    with within(1.0), pytest.raises(RuntimeError, match=r"(?i)memory|storage|size"):
        torchqp.solve_qp(Q, one.expand(2**46, 3), lb=0.0)
    with within(1.0), pytest.raises(RuntimeError, match=r"(?i)memory|storage|size"):
        torchqp.solve_qp(Q, one.expand(2**61, 3), lb=0.0)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        again = torchqp.solve_qp(Q, -one.expand(8, 3), lb=0.0, settings=Settings())
        assert bool((again.z == 1.0).all())


def test_S10_arrays_of_numpy_share_their_memory_and_are_not_written() -> None:
    array = -np.ones((4, 3))
    array.flags.writeable = True
    q = torch.from_numpy(array)
    z = torchqp.solve_qp(Diag(torch.ones(3, dtype=D)), q, ub=0.5).z
    assert bool((z == 0.5).all())
    assert (array == -1.0).all()
