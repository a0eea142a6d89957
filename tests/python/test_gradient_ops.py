"""The operators that write gradients: formulas, sums over the batch, layouts, threads, messages."""

import pytest
import torch
from op_arguments import VARIANTS, arguments, kkt_arguments
from small_problems import everything

import torchqp
from torchqp._rules import SolveOutputs

OPS = torch.ops.torchqp
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
        ((70,), 80, 15, 5),
        ((9,), 130, 33, 7),
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
        # float32 is rounded where a row is formed and at the end; float64 2,400 times on the way.
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
