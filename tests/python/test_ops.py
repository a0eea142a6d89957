"""The operators as torch sees them: schema, fake kernels, autograd registration, shapes."""

import pytest
import torch
from op_arguments import MODES, ORDER, VARIANTS, arguments, kkt_arguments
from small_problems import everything, tensors
from torch.utils._python_dispatch import TorchDispatchMode

import torchqp
from torchqp import testing
from torchqp._rules import SolveOutputs

OPS = torch.ops.torchqp


def with_gradients(problem):
    return {
        name: torchqp.Diag(value.d.clone().requires_grad_())
        if isinstance(value, torchqp.Diag)
        else value.clone().requires_grad_()
        for name, value in problem.items()
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_opcheck(name):
    problem = VARIANTS[name]
    # The best iterate instead of NaN, which opcheck takes for a difference.
    args = arguments(problem, best_iterate=name == "failed member")
    torch.library.opcheck(OPS.solve.default, args)
    out = OPS.solve(*args)
    torch.library.opcheck(OPS.kkt_solve.default, kkt_arguments(problem, out))
    torch.library.opcheck(
        OPS.kkt_solve.default, kkt_arguments(problem, out, factor=False, duals=False)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    ["everything", "everything diagonal", "equality_only", "box", "failed member", "empty batch"],
)
def test_opcheck_with_gradients(name, mode):
    best = name == "failed member"
    args = arguments(
        with_gradients(VARIANTS[name]), mode, save_factor=mode == "kkt", best_iterate=best
    )
    torch.library.opcheck(OPS.solve.default, args)


def test_opcheck_of_the_kkt_solve_with_gradients():
    problem = VARIANTS["everything"]
    args = kkt_arguments(problem, OPS.solve(*arguments(problem)))
    args = [
        a.clone().requires_grad_() if torch.is_tensor(a) and a.is_floating_point() and i != 5 else a
        for i, a in enumerate(args)
    ]
    torch.library.opcheck(OPS.kkt_solve.default, tuple(args))


@pytest.mark.parametrize("name", VARIANTS)
def test_fake_outputs_are_those_of_the_kernel(name):
    problem = VARIANTS[name]
    real = OPS.solve(*arguments(problem))
    start = (
        real[0],
        real[1] if problem.get("A") is not None else None,
        real[2] if problem.get("G") is not None else None,
        *(real[i] if problem.get(k) is not None else None for i, k in ((3, "lb"), (4, "ub"))),
    )
    args = arguments(problem, start=start)
    meta = OPS.solve(*(a.to("meta") if torch.is_tensor(a) else a for a in args))
    for one, other in zip(meta, OPS.solve(*args), strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())
        assert other.is_contiguous()


def test_outputs_do_not_alias_the_inputs():
    args = tensors(everything())
    out = OPS.solve(*arguments(everything()))
    storages = {t.untyped_storage().data_ptr() for t in out if t.numel()}
    assert len(storages) == sum(1 for t in out if t.numel())
    assert storages.isdisjoint(t.untyped_storage().data_ptr() for t in args)


@pytest.mark.parametrize(
    "name", ["everything", "everything diagonal", "equality_only", "strictly_convex"]
)
def test_the_saved_factor_changes_nothing(name):
    problem = VARIANTS[name]
    out = OPS.solve(*arguments(problem))
    assert out[-1].shape[-1] > 1
    with_factor = OPS.kkt_solve(*kkt_arguments(problem, out))
    for one, other in zip(
        with_factor, OPS.kkt_solve(*kkt_arguments(problem, out, factor=False)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_kkt_solve_satisfies_its_equations():
    problem = everything(shared=())
    out = OPS.solve(*arguments(problem))
    args = kkt_arguments(problem, out)
    d_z, d_nu, d_lam, d_bound, _ = OPS.kkt_solve(*args)
    g_z, g_nu, g_lam, g_bound = args[6:10]
    active = SolveOutputs(*out).active
    rows, bounds = active[:, :3] != 0, active[:, 3:] != 0
    assert rows.sum(-1).tolist() == [2, 2] and bounds.sum(-1).tolist() == [2, 2]
    times = testing.times
    top = (
        times(problem["Q"], d_z)
        + times(problem["A"].mT, d_nu)
        + times(problem["G"].mT, d_lam)
        + d_bound
    )
    torch.testing.assert_close(top, -g_z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(times(problem["A"], d_z), -g_nu, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(times(problem["G"], d_z)[rows], -g_lam[rows], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(d_z[bounds], -g_bound[bounds], rtol=1e-9, atol=1e-9)
    assert (d_lam[~rows] == 0).all() and (d_bound[~bounds] == 0).all()


def test_kkt_solve_ignores_failed_members_and_what_they_hold():
    problem = VARIANTS["failed member"]
    out = OPS.solve(*arguments(problem))
    assert SolveOutputs(*out).status.tolist() == [0, 2] and torch.isnan(out[0][1]).all()
    args = list(kkt_arguments(problem, out))
    args[6][1] = torch.nan
    d_z = OPS.kkt_solve(*args)[0]
    assert torch.isfinite(d_z).all() and (d_z[1] == 0).all()


class Called(TorchDispatchMode):
    """Remembers the names of the operators that ran, one entry a call."""

    names: tuple[str, ...] = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        self.names += (func.name(),)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_pass_over_the_members_gives_the_gradients_of_the_products(mode, diagonal):
    from small_problems import NAMES, solve

    args = tensors(everything(shared=("A", "lb"), diagonal=diagonal))

    def gradients(create_graph):
        sol = solve(*args, diagonal=diagonal, backward=mode)
        loss = sum(t.sin().sum() for t in sol[:6])
        with Called() as called:
            grads = torch.autograd.grad(loss, args, create_graph=create_graph)
        passes = ("torchqp::parameter_gradients", "torchqp::kkt_gradients")
        return grads, sum(called.names.count(name) for name in passes)

    (written, calls), (formed, none) = gradients(False), gradients(True)
    assert calls == 1 and none == 0
    for name, one, other in zip(NAMES, written, formed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=name)
        assert one.abs().max() > 1e-4 or mode == "smoothed", name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    "shared", [(), ("G", "lb"), ("Q", "q", "G", "h", "h_lower", "A", "b", "lb", "ub")]
)
def test_an_eager_backward_pass_is_that_of_torch_func(mode, diagonal, shared):
    # The one is in C++ for two of the modes, the other in Python.
    from small_problems import NAMES, solve

    batch = (2, 3) if len(shared) < len(ORDER) else ()
    args = tensors(everything(batch=batch, shared=shared, diagonal=diagonal))

    def outputs(*args):
        return solve(*args, diagonal=diagonal, backward=mode)[:6]

    out = outputs(*args)
    torch.manual_seed(4)
    weights = tuple(torch.randn_like(t) for t in out)
    for kept in (range(6), (0,), (5,), (1, 4)):
        cotangents = tuple(w if i in kept else torch.zeros_like(w) for i, w in enumerate(weights))
        some = [(out[i], weights[i]) for i in kept]
        eager = torch.autograd.grad(
            [t for t, _ in some],
            args,
            [w for _, w in some],
            retain_graph=True,
            materialize_grads=True,
        )
        _, pullback = torch.func.vjp(outputs, *(t.detach() for t in args))
        for name, one, other in zip(NAMES, eager, pullback(cotangents), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11, msg=f"{name}, {kept}")


@pytest.mark.parametrize(
    ("mode", "name"), [("kkt", "ExactSolve"), ("smoothed", "SolveRule"), ("lpgd", "LpgdSolve")]
)
def test_the_grad_fn_has_a_name(mode, name):
    q = torch.ones(2, requires_grad=True)
    assert name in torchqp.solve_qp(torch.eye(2), q, backward=mode).z.grad_fn.name()


@pytest.mark.parametrize("shared", [(), ("G", "A", "Q", "lb")])
def test_a_gradient_that_nobody_asked_for_is_not_formed(shared):
    from small_problems import solve

    args = tensors(everything(shared=shared))
    sol = solve(*(a.detach() if i != 1 else a for i, a in enumerate(args)))
    with Called() as called, LargestTensor() as largest:
        sol.z.sum().backward()
    assert not {"torchqp::parameter_gradients", "torchqp::kkt_gradients"} & set(called.names)
    assert largest.entries <= sol.z.numel() and args[1].grad is not None


class FactorSaved(TorchDispatchMode):
    """Remembers of every solve whether it was asked for its factor, and whether that is there."""

    seen: tuple[tuple[bool, bool], ...] = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.torchqp.solve.default:
            self.seen += ((args[-1], out[-1].numel() > 0),)
        return out


def test_the_factor_is_saved_only_for_an_exact_backward():
    q = torch.ones(2)
    with FactorSaved() as saved:
        for tensor, mode in (
            (q, "kkt"),
            (q.clone().requires_grad_(), "kkt"),
            (q.clone().requires_grad_(), "lpgd"),
        ):
            torchqp.solve_qp(torch.eye(2), tensor, lb=0.0, backward=mode)
        with torch.no_grad():
            torchqp.solve_qp(torch.eye(2), q.clone().requires_grad_(), lb=0.0)
    assert saved.seen == ((False, False), (True, True), (False, False), (False, False))


class LargestTensor(TorchDispatchMode):
    """Remembers the most entries that any operator returned."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if torch.is_tensor(tensor):
                self.entries = max(self.entries, tensor.numel())
        return out


@pytest.mark.parametrize("mode", MODES)
def test_shared_matrices_are_never_copied_for_the_members(mode, monkeypatch):
    from torchqp import _batch

    monkeypatch.setattr(_batch, "_CHUNK", 1)
    n, m, batch = 12, 10, 64
    problem = testing.make("strictly_convex", n=n, seed=1)
    problem = {name: value.requires_grad_() for name, value in problem.items()}
    m, p = problem["G"].shape[0], problem["A"].shape[0]
    problem["q"] = torch.randn(batch, n, dtype=torch.float64, requires_grad=True)
    with LargestTensor() as largest:
        sol = torchqp.solve_qp(**problem, backward=torchqp.LPGD() if mode == "lpgd" else mode)
        (sol.z.sum() + sol.s.sum() + sol.nu.sum()).backward()
    rows = m + p
    triangles = n * (n + 1) // 2 + rows * (rows + 1) // 2
    factor = batch * (1 + triangles) if mode == "kkt" else 0
    assert largest.entries in (factor, *range(4 * batch * max(n, m)))
    assert problem["G"].grad.shape == (m, n) and problem["G"].grad.abs().max() > 0
