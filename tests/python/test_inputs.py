"""What a user may pass, and every message for what a user may not."""

import math
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torchqp
from torchqp import KKT, LPGD, Diag, Settings, Smoothed


def valid(dtype=torch.float64):
    """Arguments of a small problem with every constraint."""
    return {
        "Q": torch.eye(3, dtype=dtype),
        "q": torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]], dtype=dtype),
        "G": torch.ones(2, 3, dtype=dtype),
        "h": torch.ones(2, dtype=dtype),
        "h_lower": -torch.ones(2, dtype=dtype),
        "A": torch.tensor([[1.0, -1.0, 0.0]], dtype=dtype),
        "b": torch.zeros(1, dtype=dtype),
        "lb": -torch.ones(3, dtype=dtype),
        "ub": torch.ones(3, dtype=dtype),
    }


VECTORS = ("q", "h", "h_lower", "b", "lb", "ub")
MISTAKES = [
    (
        {"Q": torch.eye(2).double()},
        ValueError,
        "Q: expected shape [*, n, n] = [*, 3, 3], got [2, 2]",
    ),
    (
        {"Q": torch.ones(3, 2).double()},
        ValueError,
        "Q: expected shape [*, n, n] = [*, 3, 3], got [3, 2]",
    ),
    ({"Q": torch.ones(3).double()}, ValueError, "Q: expected shape [*, n, n] = [*, 3, 3], got [3]"),
    (
        {"Q": Diag(torch.ones(2).double())},
        ValueError,
        "Q.d: expected shape [*, n] = [*, 3], got [2]",
    ),
    ({"q": torch.tensor(1.0).double()}, ValueError, "q: expected shape [*, n] with n >= 1, got []"),
    ({"q": torch.ones(0).double()}, ValueError, "q: expected shape [*, n] with n >= 1, got [0]"),
    (
        {"G": torch.ones(2, 4).double()},
        ValueError,
        "G: expected shape [*, m, n] = [*, 2, 3], got [2, 4]",
    ),
    ({"G": torch.ones(3).double()}, ValueError, "G: expected shape [*, m, n], got [3]"),
    (
        {"A": torch.ones(1, 2).double()},
        ValueError,
        "A: expected shape [*, p, n] = [*, 1, 3], got [1, 2]",
    ),
    ({"A": torch.ones(3).double()}, ValueError, "A: expected shape [*, p, n], got [3]"),
    ({"h": torch.ones(3).double()}, ValueError, "h: expected shape [*, m] = [*, 2], got [3]"),
    ({"h": torch.ones(1).double()}, ValueError, "h: expected shape [*, m] = [*, 2], got [1]"),
    (
        {"h_lower": torch.ones(5).double()},
        ValueError,
        "h_lower: expected shape [*, m] = [*, 2], got [5]",
    ),
    ({"b": torch.ones(2).double()}, ValueError, "b: expected shape [*, p] = [*, 1], got [2]"),
    ({"lb": torch.ones(2).double()}, ValueError, "lb: expected shape [*, n] = [*, 3], got [2]"),
    (
        {"ub": torch.ones(3, 1).double()},
        ValueError,
        "ub: expected shape [*, n] = [*, 3], got [3, 1]",
    ),
    (
        {"lb": torch.ones(5, 3).double()},
        ValueError,
        "lb: expected leading dimensions that broadcast with [2], got [5]",
    ),
    (
        {"G": torch.ones(4, 2, 2, 3).double(), "A": torch.ones(3, 1, 1, 3).double()},
        ValueError,
        "A: expected leading dimensions that broadcast with [4, 2], got [3, 1]",
    ),
    ({"h": None, "h_lower": None}, ValueError, "G: expected h or h_lower along with it, got None"),
    ({"G": None, "h_lower": None}, ValueError, "h: expected G along with it, got None"),
    ({"G": None, "h": None}, ValueError, "h_lower: expected G along with it, got None"),
    ({"G": None, "h_lower": None, "h": 1.0}, ValueError, "h: expected G along with it, got None"),
    (
        {"G": torch.ones(3).double(), "h": 1.0, "h_lower": None},
        ValueError,
        "G: expected shape [*, m, n], got [3]",
    ),
    ({"b": None}, ValueError, "A: expected b along with it, got None"),
    ({"A": None}, ValueError, "b: expected A along with it, got None"),
    ({"A": None, "b": 1}, ValueError, "b: expected A along with it, got None"),
    ({"Q": None}, TypeError, "Q: expected a torch.Tensor or torchqp.Diag, got NoneType"),
    ({"Q": Diag([1.0])}, TypeError, "Q: expected a torch.Tensor or torchqp.Diag, got list"),
    ({"q": [1.0, 2.0, 3.0]}, TypeError, "q: expected a torch.Tensor, got list"),
    ({"G": [[1.0]]}, TypeError, "G: expected a torch.Tensor, got list"),
    ({"h": "1"}, TypeError, "h: expected a torch.Tensor or a number, got str"),
    ({"lb": True}, TypeError, "lb: expected a torch.Tensor or a number, got bool"),
    ({"q": torch.ones(3)}, TypeError, "q: expected dtype torch.float64 like Q, got torch.float32"),
    (
        {"A": torch.ones(1, 3)},
        TypeError,
        "A: expected dtype torch.float64 like Q, got torch.float32",
    ),
    (
        {"ub": torch.tensor(1.0)},
        TypeError,
        "ub: expected dtype torch.float64 like Q, got torch.float32",
    ),
    (
        {"Q": torch.eye(3).half()},
        TypeError,
        "Q: expected dtype torch.float32 or torch.float64, got torch.float16",
    ),
    (
        {"q": torch.ones(3).bfloat16()},
        TypeError,
        "q: expected dtype torch.float32 or torch.float64, got torch.bfloat16",
    ),
    (
        {"G": torch.ones(2, 3).long()},
        TypeError,
        "G: expected dtype torch.float32 or torch.float64, got torch.int64",
    ),
    (
        {"Q": torch.eye(3).cdouble()},
        TypeError,
        "Q: expected dtype torch.float32 or torch.float64, got torch.complex128",
    ),
    (
        {"Q": torch.eye(3).double().to_sparse()},
        TypeError,
        "Q: expected a dense (strided) tensor, got layout torch.sparse_coo",
    ),
    (
        {"G": torch.ones(2, 3).double().to_sparse()},
        TypeError,
        "G: expected a dense (strided) tensor, got layout torch.sparse_coo",
    ),
    (
        {"q": torch.ones(3, device="meta").double()},
        ValueError,
        "q: expected device cpu like Q, got meta",
    ),
    (
        {"backward": "exact"},
        ValueError,
        "backward: expected one of ('kkt', 'smoothed', 'lpgd') or KKT, Smoothed, LPGD, got 'exact'",
    ),
    ({"backward": 1}, TypeError, "backward: expected a name or KKT, Smoothed, LPGD, got 1"),
    (
        {"settings": {"eps_abs": 1}},
        TypeError,
        "settings: expected torchqp.Settings or None, got {'eps_abs': 1}",
    ),
    (
        {"on_failure": "raise"},
        ValueError,
        "on_failure: expected one of ('nan', 'best'), got 'raise'",
    ),
    (
        {"warm_start": torch.ones(3)},
        TypeError,
        "warm_start: expected a torchqp.Solution or None, got Tensor",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), MISTAKES, ids=[m for _, _, m in MISTAKES])
def test_mistakes_name_the_argument_what_was_expected_and_what_was_given(change, kind, message):
    with pytest.raises(kind) as caught:
        torchqp.solve_qp(**{**valid(), **change})
    assert type(caught.value) is kind and str(caught.value) == message


SHAPE_MISTAKES = [
    case
    for case in MISTAKES
    if "warm_start" not in case[0]
    and all(
        torch.is_tensor(v) and v.layout == torch.strided and not v.is_meta for v in case[0].values()
    )
]


@pytest.mark.parametrize(
    ("change", "kind", "message"), SHAPE_MISTAKES, ids=[m for _, _, m in SHAPE_MISTAKES]
)
def test_meta_tensors_get_the_same_messages(change, kind, message):
    args = {name: value.to("meta") for name, value in {**valid(), **change}.items()}
    with pytest.raises(kind, match=re.escape(message)):
        torchqp.solve_qp(**args)


def test_the_operator_refuses_on_its_own():
    none = [None] * 12
    tail = (False, "kkt", [], 1e-8, 1e-8, 100, True, False, False)
    for device in ("cpu", "meta"):
        Q, q = torch.eye(3, device=device), torch.ones(2, device=device)
        with pytest.raises(ValueError, match=r"\[\*, "):
            torch.ops.torchqp.solve(Q, q, *none, *tail)
        with pytest.raises(TypeError, match="float32"):
            torch.ops.torchqp.solve(
                Q, torch.ones(3, device=device, dtype=torch.float64), *none, *tail
            )


def test_compiled_code_repeats_the_message():
    def function(Q, q):
        return torchqp.solve_qp(Q, q, lb=0.0).z

    wrong = torch.eye(3), torch.ones(2)
    message = re.escape("Q: expected shape [*, n, n] = [*, 2, 2], got [3, 3]")
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=message):
        torch.compile(function, fullgraph=True, backend="eager")(*wrong)
    torch._dynamo.reset()
    with pytest.raises(ValueError, match=message):
        torch.compile(function, backend="eager")(*wrong)


def test_vmapped_mistakes_get_the_same_messages():
    with pytest.raises(ValueError, match=re.escape("q: expected shape [*, n] with n >= 1, got []")):
        torch.func.vmap(lambda q: torchqp.solve_qp(torch.eye(3), q).z)(torch.ones(3))


class Returned(TorchDispatchMode):
    """Remembers the names of the operators that came to their end."""

    names: tuple[str, ...] = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        out = func(*args, **(kwargs or {}))
        self.names += (func.name(),)
        return out


def test_nothing_is_solved_before_a_mistake_is_found():
    with Returned() as returned:
        torchqp.solve_qp(**valid())
    assert returned.names.count("torchqp::solve") == 1
    for change, kind, message in MISTAKES:
        with Returned() as returned, pytest.raises(kind):
            torchqp.solve_qp(**{**valid(), **change})
        assert "torchqp::solve" not in returned.names, message


def test_the_message_stands_alone():
    with pytest.raises(ValueError, match="q: expected") as caught:
        torchqp.solve_qp(torch.eye(3), torch.ones(3, 0))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(torchqp.build_info()["cuda_kernels"], reason="this build has CUDA kernels")
def test_cuda_tensors_are_refused_by_a_build_without_cuda_kernels():
    with pytest.raises(NotImplementedError, match=re.escape("CPU kernels only. Move") + ".*nvcc"):
        torchqp.solve_qp(torch.eye(3).cuda(), torch.ones(3).cuda())


@pytest.mark.parametrize("number", [0.25, 0, torch.tensor(0.25, dtype=torch.float64)])
def test_numbers_stand_for_constant_vectors(number):
    args = valid()
    for name, size in (("h", 2), ("ub", 3)):
        full = {**args, name: torch.full((size,), float(number), dtype=torch.float64)}
        one, other = torchqp.solve_qp(**{**args, name: number}), torchqp.solve_qp(**full)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_numbers_for_the_other_sides():
    args = valid()
    both = {**args, "lb": -0.2, "h_lower": -0.1, "b": 0.0}
    full = {**args, "lb": args["lb"] * 0.2, "h_lower": args["h_lower"] * 0.1, "b": args["b"] * 0.0}
    assert torch.equal(torchqp.solve_qp(**both).z, torchqp.solve_qp(**full).z)
    assert torchqp.solve_qp(**{**args, "ub": math.inf}).status.tolist() == [0, 0]


def test_the_gradient_of_a_scalar_tensor_is_the_sum():
    args = valid()
    scalar = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    vector = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    grads = [
        torch.autograd.grad(torchqp.solve_qp(**{**args, "ub": ub}).z.square().sum(), ub)[0]
        for ub in (scalar, vector)
    ]
    assert grads[0].shape == () and grads[0] != 0
    torch.testing.assert_close(grads[0], grads[1].sum())


def test_diag_is_the_diagonal_matrix():
    args = valid()
    args["Q"] = torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]], dtype=torch.float64)
    dense, thin = torch.diag_embed(args["Q"]).requires_grad_(), args["Q"].clone().requires_grad_()
    one = torchqp.solve_qp(**{**args, "Q": dense})
    other = torchqp.solve_qp(**{**args, "Q": Diag(thin)})
    for name in ("z", "nu", "lam", "lam_lb", "lam_ub", "s"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-7)
    (a,) = torch.autograd.grad(one.z.sin().sum(), dense)
    (b,) = torch.autograd.grad(other.z.sin().sum(), thin)
    torch.testing.assert_close(a.diagonal(dim1=-2, dim2=-1), b, rtol=1e-6, atol=1e-6)


def test_strides_do_not_matter():
    args = valid()
    plain = torchqp.solve_qp(**args)
    args["G"] = torch.ones(3, 4, dtype=torch.float64).mT[::2]
    args["q"] = torch.stack([args["q"], args["q"]], -1)[..., 0]
    args["Q"] = args["Q"].expand(2, 3, 3)
    args["lb"] = torch.tensor(-1.0, dtype=torch.float64).expand(3)
    strided = torchqp.solve_qp(**args)
    for a, b in zip(plain, strided, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


MODE_MISTAKES = [
    (
        lambda: Smoothed(alpha=-1.0),
        ValueError,
        "Smoothed.alpha: expected a non-negative finite number, got -1.0",
    ),
    (
        lambda: Smoothed(radius=0.0),
        ValueError,
        "Smoothed.radius: expected a positive number, got 0.0",
    ),
    (
        lambda: Smoothed(radius=math.nan),
        ValueError,
        "Smoothed.radius: expected a positive number, got nan",
    ),
    (
        lambda: Smoothed(metric="l1"),
        ValueError,
        "Smoothed.metric: expected one of ('euclidean', 'Q'), got 'l1'",
    ),
    (
        lambda: Smoothed(smooth_equalities=1),
        TypeError,
        "Smoothed.smooth_equalities: expected a bool, got 1",
    ),
    (lambda: LPGD(tau=0), ValueError, "LPGD.tau: expected a positive finite number, got 0"),
    (
        lambda: LPGD(tau=math.inf),
        ValueError,
        "LPGD.tau: expected a positive finite number, got inf",
    ),
    (lambda: LPGD(tau="big"), TypeError, "LPGD.tau: expected a positive finite number, got 'big'"),
    (
        lambda: LPGD(side="left"),
        ValueError,
        "LPGD.side: expected one of ('lower', 'upper', 'average'), got 'left'",
    ),
    (
        lambda: LPGD(tau_mode="auto"),
        ValueError,
        "LPGD.tau_mode: expected one of ('relative', 'absolute'), got 'auto'",
    ),
    (
        lambda: LPGD(rho=-0.1),
        ValueError,
        "LPGD.rho: expected a non-negative finite number, got -0.1",
    ),
    (
        lambda: Settings(eps_abs=-1.0),
        ValueError,
        "Settings.eps_abs: expected a finite number >= 0, got -1.0",
    ),
    (
        lambda: Settings(eps_rel=math.nan),
        ValueError,
        "Settings.eps_rel: expected a finite number >= 0, got nan",
    ),
    (
        lambda: Settings(eps_abs="1e-8"),
        TypeError,
        "Settings.eps_abs: expected a number or None, got '1e-8'",
    ),
    (
        lambda: Settings(max_iter=-1),
        ValueError,
        "Settings.max_iter: expected an integer >= 0, got -1",
    ),
    (
        lambda: Settings(max_iter=1.5),
        TypeError,
        "Settings.max_iter: expected an integer or None, got 1.5",
    ),
    (lambda: Settings(polish=None), TypeError, "Settings.polish: expected a bool, got None"),
]


@pytest.mark.parametrize(
    ("make", "kind", "message"), MODE_MISTAKES, ids=[m for _, _, m in MODE_MISTAKES]
)
def test_options_are_checked_when_they_are_made(make, kind, message):
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message


def test_modes_and_settings_are_values():
    assert KKT() == KKT() and Smoothed(alpha=1.0) == Smoothed(alpha=1.0) != Smoothed()
    assert len({LPGD(), LPGD(), LPGD(tau=1.0)}) == 2
    with pytest.raises(AttributeError):
        Settings().eps_abs = 1.0


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_default_tolerances_depend_on_the_dtype(dtype, eps):
    assert Settings().resolve(dtype) == (eps, eps, 100, True)
    assert Settings(eps_rel=0.5, max_iter=3, polish=False).resolve(dtype) == (eps, 0.5, 3, False)


def test_settings_reach_the_solver():
    args = valid()
    assert torchqp.solve_qp(**args, settings=Settings(max_iter=1, polish=False)).status.ne(0).all()
    assert torchqp.solve_qp(**args, settings=Settings(max_iter=100)).status.eq(0).all()


def test_a_warm_start_is_used_and_not_differentiated():
    args = valid()
    args["q"] = args["q"].requires_grad_()
    first = torchqp.solve_qp(**args)
    second = torchqp.solve_qp(**args, warm_start=first)
    torch.testing.assert_close(first.z, second.z, rtol=1e-7, atol=1e-7)
    assert (second.iterations <= first.iterations).all()
    one, other = (torch.autograd.grad(sol.z.sin().sum(), args["q"])[0] for sol in (first, second))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
