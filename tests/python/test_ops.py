"""The two operators as torch sees them: schema, fake kernels, autograd registration, shapes."""

import pytest
import torch
from small_problems import everything, tensors
from torch.utils._python_dispatch import TorchDispatchMode

import torchqp
from torchqp import testing

OPS = torch.ops.torchqp
ORDER = ("Q", "q", "G", "h_lower", "h", "A", "b", "lb", "ub")
MODES = {
    "kkt": torchqp.KKT(),
    "smoothed": torchqp.Smoothed(alpha=0.2, radius=3.0),
    "lpgd": torchqp.LPGD(rho=0.1),
}


def arguments(problem, mode="kkt", start=(None,) * 5, save_factor=True, best_iterate=False):
    """Positional arguments of the operator `solve`."""
    diagonal = isinstance(problem["Q"], torchqp.Diag)
    data = [problem.get(name) for name in ORDER]
    data[0] = problem["Q"].d if diagonal else problem["Q"]
    eps = 1e-8 if data[1].dtype == torch.float64 else 1e-4
    return (
        *data,
        *start,
        diagonal,
        mode,
        MODES[mode].options(),
        eps,
        eps,
        100,
        True,
        best_iterate,
        save_factor,
    )


def kkt_arguments(problem, out, factor=True, duals=True):
    """Positional arguments of `kkt_solve` for the outputs of `solve`."""
    z, nu, lam, _, _, status, _, _, active, saved = out
    diagonal = isinstance(problem["Q"], torchqp.Diag)
    torch.manual_seed(0)
    g = [torch.randn_like(t) for t in (z, nu, lam)]
    bounds = active.shape[-1] != lam.shape[-1]
    g_bound = torch.randn_like(z) if bounds and duals else None
    rest = g[1:] if duals else [None, None]
    return (
        problem["Q"].d if diagonal else problem["Q"],
        problem.get("G"),
        problem.get("A"),
        active,
        status,
        saved if factor else None,
        g[0],
        *rest,
        g_bound,
        diagonal,
    )


def variants():
    for name in testing.FAMILIES:
        yield name, testing.make(name, n=4, batch=(2,), seed=1)
    yield "everything", everything()
    yield "everything diagonal", everything(diagonal=True)
    yield "float32", testing.make("two_sided", n=4, batch=(2,), seed=1, dtype=torch.float32)
    yield "one problem", testing.make("two_sided", n=4, seed=2)
    yield "two batch dimensions", testing.make("strictly_convex", n=3, batch=(2, 2), seed=2)
    yield "empty batch", testing.make("two_sided", n=3, batch=(0,), seed=1)
    yield "lb only", {"Q": torch.eye(3), "q": torch.ones(2, 3), "lb": torch.zeros(3)}
    yield "ub only", {"Q": torch.eye(3), "q": torch.ones(2, 3), "ub": torch.zeros(1, 3)}
    yield (
        "lower rows only",
        {"Q": torch.eye(3), "q": torch.ones(2, 3), "G": torch.ones(1, 3), "h_lower": torch.ones(1)},
    )
    yield (
        "no rows",
        {"Q": torch.eye(3), "q": torch.ones(2, 3), "G": torch.ones(0, 3), "h": torch.ones(0)},
    )
    yield (
        "failed member",
        {
            "Q": torch.eye(2),
            "q": torch.ones(2, 2),
            "lb": torch.zeros(2),
            "A": torch.ones(1, 2),
            "b": torch.tensor([[1.0], [-1.0]]),
        },
    )


VARIANTS = dict(variants())


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
    assert out[9].shape[-1] > 1
    with_factor = OPS.kkt_solve(*kkt_arguments(problem, out))
    for one, other in zip(
        with_factor, OPS.kkt_solve(*kkt_arguments(problem, out, factor=False)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_kkt_solve_satisfies_its_equations():
    problem = everything(shared=())
    out = OPS.solve(*arguments(problem))
    args = kkt_arguments(problem, out)
    d_z, d_nu, d_lam, d_bound = OPS.kkt_solve(*args)
    g_z, g_nu, g_lam, g_bound = args[6:10]
    rows, bounds = out[8][:, :3] != 0, out[8][:, 3:] != 0
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
    assert out[5].tolist() == [0, 2] and torch.isnan(out[0][1]).all()
    args = list(kkt_arguments(problem, out))
    args[6][1] = torch.nan
    d_z = OPS.kkt_solve(*args)[0]
    assert torch.isfinite(d_z).all() and (d_z[1] == 0).all()


def test_the_grad_fn_has_a_name():
    q = torch.ones(2, requires_grad=True)
    assert "SolveRule" in torchqp.solve_qp(torch.eye(2), q).z.grad_fn.name()


def test_a_gradient_that_nobody_asked_for_is_not_formed(monkeypatch):
    from torchqp import _rules

    formed = []
    original = _rules.outer_sum
    monkeypatch.setattr(
        _rules, "outer_sum", lambda *args: formed.append(args[-1]) or original(*args)
    )
    args = tensors(everything())
    from small_problems import solve

    solve(*(a.detach() if i != 1 else a for i, a in enumerate(args))).z.sum().backward()
    assert not formed and args[1].grad is not None


def test_the_factor_is_saved_only_for_an_exact_backward(monkeypatch):
    from torchqp import functional

    saved = []
    original = functional.solve
    monkeypatch.setattr(
        functional, "solve", lambda *args: saved.append(args[-1]) or original(*args)
    )
    q = torch.ones(2)
    for tensor, mode in (
        (q, "kkt"),
        (q.clone().requires_grad_(), "kkt"),
        (q.clone().requires_grad_(), "lpgd"),
    ):
        torchqp.solve_qp(torch.eye(2), tensor, lb=0.0, backward=mode)
    with torch.no_grad():
        torchqp.solve_qp(torch.eye(2), q.clone().requires_grad_(), lb=0.0)
    assert saved == [False, True, False, False]


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
    factor = batch * (1 + n * n + (m + p) ** 2) if mode == "kkt" else 0
    assert largest.entries in (factor, *range(4 * batch * max(n, m)))
    assert problem["G"].grad.shape == (m, n) and problem["G"].grad.abs().max() > 0
