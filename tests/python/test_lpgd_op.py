"""The operator `lpgd`: schema, fake kernel, values against plain torch, layouts, messages."""

import pytest
import torch
from small_problems import everything
from torch import Tensor

import torchqp
from torchqp import testing
from torchqp._lpgd import LpgdInputs

OPS = torch.ops.torchqp
ORDER = ("Q", "q", "G", "h_lower", "h", "A", "b", "lb", "ub")
OUTPUTS = ("z", "nu", "lam", "lam_lb", "lam_ub")


def arguments(problem: dict, side: int = 2, rho: float = 0.0, relative: bool = True) -> LpgdInputs:
    """What `lpgd` is called with for a solved problem and random cotangents of all its outputs."""
    diagonal = isinstance(problem["Q"], torchqp.Diag)
    solution = torchqp.solve_qp(**problem)
    draw = torch.Generator().manual_seed(4)
    outputs = [getattr(solution, name) for name in OUTPUTS]
    g = [torch.randn(t.shape, generator=draw, dtype=t.dtype) for t in outputs]
    data = [problem.get(name) for name in ORDER]
    data[0] = problem["Q"].d if diagonal else problem["Q"]
    eps = 1e-8 if data[1].dtype == torch.float64 else 1e-4
    return LpgdInputs(
        *data,
        *outputs,
        solution.status,
        *(t if t.shape[-1] else None for t in g),
        diagonal,
        0.1,
        relative,
        side,
        rho,
        eps,
        eps,
        100,
        True,
    )


def restated(a: LpgdInputs) -> list[Tensor]:
    """The operator in plain torch around `solve`."""
    cotangents = [g for g in (a.g_z, a.g_nu, a.g_lam, a.g_lb, a.g_ub) if g is not None]
    size = torch.stack([g.abs().amax(-1) for g in cotangents]).amax(0)
    step = a.tau * (1 + a.q.abs().amax(-1)) / size if a.relative else torch.full_like(size, a.tau)
    step = torch.where((size > 0) & (a.status <= 1), step, torch.nan)
    centre = [torch.where(a.status.unsqueeze(-1) <= 1, t, 0.0) for t in a[9:14]]

    def at(t: Tensor) -> tuple[list[Tensor], Tensor]:
        """The solution at t, or that at 0; and where it was found."""
        t = t.unsqueeze(-1)

        def side(value: Tensor | None, by: Tensor | None) -> Tensor | None:
            if value is None or by is None:
                return value
            return torch.where(value.abs() >= 1e20, value, value + t * by)

        q = a.q + t * a.g_z - a.rho * centre[0]
        eye = torch.ones(a.q.shape[-1], dtype=a.q.dtype)
        Q = a.Q + a.rho * (eye if a.diagonal else torch.diag(eye))
        rows = None if a.g_lam is None else -a.g_lam
        lower = a.g_lb if a.lb is not None else None
        upper = -a.g_ub if a.ub is not None else None
        if lower is not None and upper is not None:
            held = torch.where(a.lam_ub > a.lam_lb, upper, lower)
            fixed = a.lb == a.ub
            lower, upper = torch.where(fixed, held, lower), torch.where(fixed, held, upper)
        h_lower, h = side(a.h_lower, rows), side(a.h, rows)
        b = None if a.b is None else a.b - t * a.g_nu
        data = (Q, q, a.G, h_lower, h, a.A, b, side(a.lb, lower), side(a.ub, upper))
        settings = (a.eps_abs, a.eps_rel, a.max_iter, a.polish, False, False)
        out = OPS.solve(*data, *a[9:14], a.diagonal, "kkt", [], *settings, near_start=False)
        good = out[6] <= 1
        return [
            torch.where(good.unsqueeze(-1), end, own)
            for end, own in zip(out[:5], centre, strict=True)
        ], good

    nowhere = torch.zeros_like(a.status, dtype=torch.bool)
    first, up = at(step) if a.side != 1 else (centre, nowhere)
    last, down = at(-step) if a.side != 0 else (centre, nowhere)
    distance = step * (up.to(step.dtype) + down.to(step.dtype))
    inverse = torch.where(distance > 0, 1 / distance, 0.0).unsqueeze(-1)
    result = []
    for high, low in zip(first[:3], last[:3], strict=True):
        result += [(high - low) * inverse, (high + low) / 2]
    high, low = first[2], last[2]
    result.append(((-high).clamp(min=0) - (-low).clamp(min=0)) * inverse)
    result.append((low.clamp(min=0) - high.clamp(min=0)) * inverse)
    result += [(first[3] - last[3]) * inverse, (last[4] - first[4]) * inverse]
    solved = {0: up, 1: down, 2: up & down}[a.side]
    return [*result, (~solved & torch.isfinite(step)).int()]


def assert_restated(a: LpgdInputs) -> list[Tensor]:
    """The operator equals its restatement to the rounding of one product."""
    actual = OPS.lpgd(*a)
    for one, other in zip(actual, restated(a), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype and one.is_contiguous()
        torch.testing.assert_close(one, other, rtol=4 * torch.finfo(a.q.dtype).eps, atol=0.0)
    return actual


@pytest.mark.parametrize("side", [0, 1, 2])
@pytest.mark.parametrize("diagonal", [False, True])
def test_it_is_what_plain_torch_makes_of_the_moved_problems(side: int, diagonal: bool) -> None:
    problem = everything(shared=(), diagonal=diagonal)
    for rho in (0.0, 0.3):
        for relative in (False, True):
            actual = assert_restated(arguments(problem, side, rho, relative))
            assert all(float(t.abs().max()) > 0 for t in actual[:10])


@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "box", "two_sided", "simplex"])
def test_every_structure_dtype_and_shared_arguments(family: str, dtype: torch.dtype) -> None:
    for batch in ((), (3,), (2, 2), (0,)):
        problem = testing.make(family, n=5, batch=batch, seed=7, dtype=dtype)
        assert_restated(arguments(problem))


def test_members_without_a_solution_or_a_cotangent_are_zero() -> None:
    problem = testing.make("strictly_convex", n=4, batch=(4,), seed=2)
    problem["q"] = problem["q"].clone()
    problem["q"][1] = torch.nan
    a = arguments(problem)
    for g in (a.g_z, a.g_nu, a.g_lam):
        g[2] = 0.0
    out = assert_restated(a)
    for i in (1, 2):
        assert all(not t[i].any() for t in (out[0], out[2], out[4], out[7], out[10]))
    assert out[0][0].abs().max() > 0 and out[0][3].abs().max() > 0


def test_cotangents_of_any_layout() -> None:
    a = arguments(everything(shared=()))
    g_z = torch.full_like(a.g_z[..., :1], 0.5)
    expanded = OPS.lpgd(*a._replace(g_z=g_z.expand_as(a.z)))
    copied = OPS.lpgd(*a._replace(g_z=g_z.expand_as(a.z).contiguous()))
    transposed = OPS.lpgd(*a._replace(g_z=g_z.expand_as(a.z).mT.contiguous().mT))
    for one, two, three in zip(expanded, copied, transposed, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_threads_do_not_change_it() -> None:
    a = arguments(testing.make("two_sided", n=6, batch=(700,), seed=3))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(OPS.lpgd(*a))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["everything", "diagonal", "shared", "empty"])
def test_torch_accepts_it(name: str) -> None:
    problem = {
        "everything": everything(shared=()),
        "diagonal": everything(shared=(), diagonal=True),
        "shared": testing.make("strictly_convex", n=3, batch=(2, 2), seed=2),
        "empty": testing.make("two_sided", n=3, batch=(0,), seed=1),
    }[name]
    torch.library.opcheck(
        OPS.lpgd.default,
        tuple(arguments(problem)),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def test_it_names_what_is_wrong() -> None:
    a = arguments(everything(shared=()))
    for changed, kind, message in (
        ({"tau": 0.0}, ValueError, "tau positive and finite, got 0"),
        ({"side": 3}, ValueError, "side 0, 1 or 2, got 3"),
        ({"rho": -1.0}, ValueError, "rho >= 0 and finite, got -1"),
        ({"g_z": a.g_z[..., 1:]}, ValueError, "g_z of shape"),
        ({"g_lam": a.g_lam.float()}, TypeError, "g_lam of dtype float64 like Q, got float32"),
        ({"status": a.status.long()}, TypeError, "status of dtype int32"),
        ({"lam": a.lam[..., 1:]}, ValueError, "lam0 of shape"),
    ):
        with pytest.raises(kind, match=f"(lpgd): expected .*{message}"):
            OPS.lpgd(*a._replace(**changed))


def test_solve_lpgd_names_what_is_wrong_before_it_solves() -> None:
    problem = everything(shared=())
    data = [problem[name] for name in ("Q", "q", "G", "h_lower", "h", "A", "b", "lb", "ub")]
    for options, message in (
        ([0.1, 1.0], "backward_options of 4 numbers, got 2"),
        ([0.0, 1.0, 2.0, 0.0], "tau positive and finite, got 0"),
        ([0.1, 1.0, 3.0, 0.0], "side 0, 1 or 2, got 3"),
        ([0.1, 1.0, 2.0, -1.0], "rho >= 0 and finite, got -1"),
    ):
        with pytest.raises(ValueError, match=f"expected {message}"):
            OPS.solve_lpgd(*data, *[None] * 5, False, options, 1e-8, 1e-8, 100, True, False)


def test_its_own_derivative_is_refused() -> None:
    problem = testing.make("strictly_convex", n=4, batch=(2,), seed=2)
    q = problem["q"].clone().requires_grad_()
    z = torchqp.solve_qp(**problem | {"q": q}, backward="lpgd").z
    (grad,) = torch.autograd.grad(z.pow(2).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), q)
