"""The two operators as torch sees them: schema, fake kernels, autograd registration, shapes."""

import pytest
import torch
from small_problems import everything, tensors
from torch.utils._python_dispatch import TorchDispatchMode

import torchqp
from torchqp import testing
from torchqp._rules import SolveOutputs

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
    out = SolveOutputs(*out)
    z, nu, lam, status, active = out.z, out.nu, out.lam, out.status, out.active
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
        out.factor if factor else None,
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


GRADIENTS = ("Q", "G", "h_lower", "h", "A", "b", "lb", "ub")


def gradient_arguments(problem, wanted=(True,) * 8, slack=True):
    """Positional arguments of `parameter_gradients` for a solved problem."""
    out = SolveOutputs(*OPS.solve(*arguments(problem)))
    d_z, d_nu, d_lam, d_bound, _ = OPS.kkt_solve(*kkt_arguments(problem, out))
    present = [problem.get(name) is not None for name in GRADIENTS]
    bounds = out.active.shape[-1] != out.lam.shape[-1]
    return (
        *out[:3],
        *(d_z, d_nu, d_lam, d_bound if bounds else None),
        torch.randn_like(out.slack) if slack and problem.get("h") is not None else None,
        out.active,
        out.status,
        [a and b for a, b in zip(present, wanted, strict=True)],
        [False] * 3,
        isinstance(problem["Q"], torchqp.Diag),
    )


def products(
    z, nu, lam, d_z, d_nu, d_lam, d_bound, g_slack, active, status, wanted, _summed, diagonal
):
    """What `parameter_gradients` is to write of every member, in plain torch."""
    live = (status <= 1).unsqueeze(-1)
    z, nu, lam = (torch.where(live, t, 0.0) for t in (z, nu, lam))

    def outer(u, v):
        return u.unsqueeze(-1) * v.unsqueeze(-2)

    m = lam.shape[-1]
    rows, bounds = active[..., :m], active[..., m:]
    g = torch.zeros_like(lam) if g_slack is None else torch.where(live, g_slack, 0.0)
    values = {
        "Q": d_z * z if diagonal else (outer(d_z, z) + outer(z, d_z)) / 2,
        "G": outer(d_lam - g, z) + outer(lam, d_z),
        "h_lower": torch.where(rows == -1, -d_lam, 0.0),
        "h": torch.where(rows == 1, -d_lam, 0.0) + g,
        "A": outer(d_nu, z) + outer(nu, d_z),
        "b": -d_nu,
    }
    if d_bound is not None:
        values["lb"] = torch.where(bounds == -1, -d_bound, 0.0)
        values["ub"] = torch.where(bounds == 1, -d_bound, 0.0)
    nothing = z.new_zeros(0)
    return [values[n] if want else nothing for n, want in zip(GRADIENTS, wanted, strict=True)]


def assert_gradients(args):
    """The operator equals the products; returns how many entries of them are not zero."""
    actual, expected = OPS.parameter_gradients(*args), products(*args)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape and one.is_contiguous()
        rounding = 8 * torch.finfo(one.dtype).eps
        scale = 1 + float(other.abs().max()) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding * scale)
    return sum(int(t.count_nonzero()) for t in actual)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_gradients_are_the_products(name):
    args = gradient_arguments(VARIANTS[name])
    assert assert_gradients(args) > 0 or name == "empty batch"
    torch.library.opcheck(
        OPS.parameter_gradients.default,
        args,
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


@pytest.mark.parametrize("i", range(8))
def test_parameter_gradients_writes_what_is_wanted_and_nothing_else(i):
    for wanted in ([j == i for j in range(8)], [j != i for j in range(8)]):
        args = gradient_arguments(everything(shared=()), wanted)
        assert [t.numel() > 0 for t in OPS.parameter_gradients(*args)] == wanted
        assert assert_gradients(args) > 0


def test_parameter_gradients_of_any_size_layout_and_leading_dimensions(dtype):
    torch.manual_seed(5)
    for n, m, p, batch in ((1, 1, 0, (3,)), (9, 17, 4, (2, 3)), (33, 5, 7, ()), (64, 40, 1, (40,))):
        sizes = (n, p, m, n, p, m, n, m)
        vectors = [torch.randn(*batch, size, dtype=dtype) for size in sizes]
        active = torch.randint(-1, 2, (*batch, m + n), dtype=torch.int8)
        status = torch.randint(0, 4, batch, dtype=torch.int32)
        args = (*vectors, active, status, [True] * 8, [False] * 3, False)
        args[3][status > 1], args[4][status > 1], args[5][status > 1] = 0, 0, 0
        args[6][status > 1] = 0
        for t in args[:3]:
            t[status > 1] = torch.nan
        assert assert_gradients(args) > 0 or bool((status > 1).all())
        wide = [
            torch.stack([t, t.nan_to_num() + 1], -1)[..., 0] if torch.is_tensor(t) else t
            for t in args
        ]
        for one, other in zip(
            OPS.parameter_gradients(*wide), OPS.parameter_gradients(*args), strict=True
        ):
            assert torch.equal(one, other)
        grad_Q = OPS.parameter_gradients(*args)[0]
        assert torch.equal(grad_Q, grad_Q.mT)
    # A cotangent that the batch shares, as that of a sum is.
    expanded = list(args)
    expanded[7] = args[7][0].expand(40, m)
    copied = [*args[:7], expanded[7].contiguous(), *args[8:]]
    for one, other in zip(
        OPS.parameter_gradients(*expanded), OPS.parameter_gradients(*copied), strict=True
    ):
        assert torch.equal(one, other)


def test_parameter_gradients_of_failed_members_are_exactly_zero():
    args = list(gradient_arguments(VARIANTS["failed member"]))
    for i in range(7):
        if args[i] is not None:
            args[i][1] = torch.nan
    args[10] = [True] * 8
    grads = OPS.parameter_gradients(*args)
    for grad in grads:
        assert torch.equal(grad[1], torch.zeros_like(grad[1]))
        assert torch.isfinite(grad).all()
    assert all(grads[i][0].abs().max() > 0.1 for i in (0, 4, 5))


def test_parameter_gradients_names_what_is_wrong():
    args = list(gradient_arguments(everything(shared=())))
    for i, value, kind, message in (
        (1, args[1][..., :0], ValueError, "d_nu of shape"),
        (3, args[3][..., 1:], ValueError, "d_z of shape"),
        (5, args[5].float(), TypeError, "d_lam of dtype float64 like z, got float32"),
        (9, args[9].long(), TypeError, "status of dtype int32"),
        (0, args[0].repeat(2, 1)[:3], ValueError, "leading dimensions that broadcast"),
    ):
        wrong = [*args[:i], value, *args[i + 1 :]]
        with pytest.raises(kind, match=f"parameter_gradients: expected .*{message}"):
            OPS.parameter_gradients(*wrong)


def summed_arguments(batch, n, m, p, dtype, diagonal=False):
    """Random arguments of `parameter_gradients` for sums over the batch; every fifth failed."""
    vectors = [torch.randn(*batch, size, dtype=dtype) for size in (n, p, m, n, p, m, n, m)]
    status = torch.zeros(batch, dtype=torch.int32)
    status.view(-1)[4::5] = 2
    for t in vectors[:3]:
        t[status == 2] = torch.nan
    for t in vectors[3:7]:
        t[status == 2] = 0
    active = torch.randint(-1, 2, (*batch, m + n), dtype=torch.int8)
    return (*vectors, active, status, [True] * 8, [True] * 3, diagonal)


MATRICES = (0, 1, 4)  # their places among the gradients


def summed_products(args):
    """The sums over the batch of what `parameter_gradients` writes of every member, in float64."""
    members = products(
        *(t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in args)
    )
    core = (1 if args[12] else 2, 2, 2)
    return [
        members[i].reshape(args[9].numel(), *members[i].shape[-k:]).sum(0)
        for i, k in zip(MATRICES, core, strict=True)
    ]


# The last has more entries than are summed beside the members, the one before more columns than are
# at hand at once.
@pytest.mark.parametrize(
    ("batch", "n", "m", "p"),
    [
        ((), 3, 2, 1),
        ((1,), 1, 1, 1),
        ((7,), 10, 10, 0),
        ((40, 60), 9, 17, 4),
        ((0,), 4, 3, 2),
        ((70,), 130, 33, 5),
        ((9,), 270, 30, 7),
    ],
)
@pytest.mark.parametrize("diagonal", [False, True])
def test_gradients_of_shared_matrices_are_the_sums(batch, n, m, p, diagonal, dtype):
    torch.manual_seed(2)
    args = summed_arguments(batch, n, m, p, dtype, diagonal)
    grads = OPS.parameter_gradients(*args)
    for i, expected in zip(MATRICES, summed_products(args), strict=True):
        assert grads[i].shape == expected.shape and grads[i].dtype == dtype
        scale = 1 + float(expected.abs().max()) if expected.numel() else 1.0
        rounding = (8 if dtype == torch.float32 else 64) * torch.finfo(dtype).eps
        torch.testing.assert_close(
            grads[i].double(), expected, rtol=rounding, atol=rounding * scale
        )
    if not diagonal:
        assert torch.equal(grads[0], grads[0].mT)
    # What is not summed stays as it is.
    apart = OPS.parameter_gradients(*args[:11], [False] * 3, diagonal)
    for i in set(range(8)) - set(MATRICES):
        assert torch.equal(grads[i], apart[i])
    test_utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(OPS.parameter_gradients.default, args, test_utils=test_utils)


@pytest.mark.parametrize("i", range(3))
def test_one_matrix_is_summed_and_the_others_are_not(i):
    args = summed_arguments((50,), 6, 4, 2, torch.float64)
    summed = [j == i for j in range(3)]
    grads, expected = OPS.parameter_gradients(*args[:11], summed, False), summed_products(args)
    for j, place in enumerate(MATRICES):
        total = grads[place] if j == i else grads[place].sum(0)
        assert (grads[place].dim() == 2) == (j == i)
        torch.testing.assert_close(total, expected[j], rtol=1e-12, atol=1e-12)


def test_the_sums_have_the_same_bits_for_any_number_of_threads():
    args = summed_arguments((3000,), 12, 9, 3, torch.float64)
    torch.set_num_threads(1)
    one = OPS.parameter_gradients(*args)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for a, b in zip(one, OPS.parameter_gradients(*args), strict=True):
            assert torch.equal(a, b)


def both_arguments(problem):
    """Positional arguments of `kkt_solve`, of `parameter_gradients` and of the two in one."""
    gradients = gradient_arguments(problem)
    out = SolveOutputs(*OPS.solve(*arguments(problem)))
    system = kkt_arguments(problem, out)
    return (
        system,
        gradients,
        (*system[:6], *gradients[:3], *system[6:10], *gradients[7:8], *gradients[10:]),
    )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("summed", [False, True])
def test_kkt_gradients_are_those_of_the_two_operators(name, summed):
    system, gradients, both = both_arguments(VARIANTS[name])
    options = ([summed] * 3, both[-1])
    d = OPS.kkt_solve(*system)
    bound = d[3] if gradients[6] is not None else None
    adjoint = (*gradients[:3], *d[:3], bound, *gradients[7:11], *options)
    expected = (*d, *OPS.parameter_gradients(*adjoint))
    both = (*both[:-2], *options)
    for one, other in zip(OPS.kkt_gradients(*both), expected, strict=True):
        assert torch.equal(one, other) and one.is_contiguous()
    torch.library.opcheck(
        OPS.kkt_gradients.default,
        both,
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def test_kkt_gradients_names_what_is_wrong():
    *_, args = both_arguments(everything(shared=()))
    for i, value, kind, message in (
        (4, args[4].long(), TypeError, "status of dtype int32"),
        (6, args[6][..., 1:], ValueError, "z of shape"),
        (8, args[8].float(), TypeError, "lam of dtype float64 like Q, got float32"),
        (9, args[9][..., 1:], ValueError, "g_z of shape"),
        (13, args[13][..., 1:], ValueError, "g_slack of shape"),
    ):
        wrong = [*args[:i], value, *args[i + 1 :]]
        with pytest.raises(kind, match=f"kkt_gradients: expected .*{message}"):
            OPS.kkt_gradients(*wrong)


def test_threads_do_not_change_parameter_gradients():
    torch.manual_seed(1)
    batch, n = 300, 40
    vectors = [torch.randn(batch, size) for size in (n, 3, 20, n, 3, 20, n, 20)]
    active = torch.randint(-1, 2, (batch, 20 + n), dtype=torch.int8)
    args = (*vectors, active, torch.zeros(batch, dtype=torch.int32), [True] * 8, [False] * 3, False)
    torch.set_num_threads(1)
    one = OPS.parameter_gradients(*args)
    torch.set_num_threads(4)
    for a, b in zip(one, OPS.parameter_gradients(*args), strict=True):
        assert torch.equal(a, b)


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
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=f"{name}, {kept}")


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
