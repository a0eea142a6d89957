"""Exact mode: finite differences, closed forms, the reference, degenerate active sets."""

import pytest
import torch
from torch import Tensor

import torchqp
from torchqp import Diag, Settings, reference, testing

D = torch.float64
SHARP = Settings(eps_abs=1e-12, eps_rel=1e-12)


def nine_parameter_problem(seed: int) -> dict:
    """One problem that uses all nine arguments, some of each kind of limit active."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=D)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=draw, dtype=D)  # noqa: E731
    n, m, p = 6, 5, 2
    root, z, G, A = normal(n, n), normal(n), normal(m, n), normal(p, n)
    value = G @ z
    return {
        "Q": root @ root.mT / n + 0.3 * torch.eye(n, dtype=D),
        "q": 3 * normal(n),
        "G": G,
        "h": value + 0.5 * uniform(m),
        "h_lower": value - 0.5 * uniform(m),
        "A": A,
        "b": A @ z,
        "lb": z - 0.6 * uniform(n),
        "ub": z + 0.6 * uniform(n),
    }


def regular_problems(count: int) -> list[tuple[dict, object]]:
    """Problems whose active set is not about to change within the finite differences' step."""
    found = []
    for seed in range(60):
        problem = nine_parameter_problem(seed)
        solution = reference.solve_qp(**problem)
        sides = {"h": solution.lam > 0, "h_lower": solution.lam < 0, "lb": solution.lam_lb > 0}
        sides["ub"] = solution.lam_ub > 0
        if float(testing.strictness(problem, solution)) > 5e-3 and all(
            bool(side.any()) for side in sides.values()
        ):
            found.append((problem, solution))
        if len(found) == count:
            return found
    raise AssertionError("too few regular problems drawn")


def test_all_nine_parameters_and_all_multipliers_match_finite_differences() -> None:
    for problem, solution in regular_problems(4):
        weights = testing.cotangents(solution, seed=1)
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights)
        assert set(grads) == set(testing.PARAMETERS)
        expected = testing.finite_differences(
            lambda **k: torchqp.solve_qp(**k, settings=SHARP), problem, weights
        )
        for name in testing.PARAMETERS:
            assert float(expected[name].abs().max()) > 1e-3, name
            assert testing.relative_error(grads[name], expected[name]) <= 1e-6, name


@pytest.mark.parametrize("output", ["z", *testing.MULTIPLIERS])
def test_each_output_alone_matches_finite_differences(output: str) -> None:
    problem, solution = regular_problems(1)[0]
    weights = testing.cotangents(solution, seed=2, names=(output,))
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights)
    expected = testing.finite_differences(
        lambda **k: torchqp.solve_qp(**k, settings=SHARP), problem, weights
    )
    for name in testing.PARAMETERS:
        assert testing.relative_error(grads[name], expected[name]) <= 1e-6, name


@pytest.mark.parametrize("family", [f for f in testing.FAMILIES if f != "degenerate"])
def test_every_family_matches_the_references_autograd(family: str) -> None:
    compared = 0
    for n in (3, 8, 20):
        problem = testing.make(family, n, 6, seed=200 + n)
        solution = reference.solve_qp(**problem)
        regular = testing.strictness(problem, solution) > 1e-5
        problem = testing.take(problem, regular)
        compared += int(regular.sum())
        weights = testing.cotangents(torchqp.solve_qp(**problem), seed=n)
        _, ours = testing.pullback(torchqp.solve_qp, problem, weights)
        _, theirs = testing.pullback(reference.solve_qp, problem, weights)
        for name in problem:
            assert testing.relative_error(ours[name], theirs[name]) <= 1e-6, (n, name)
    assert compared >= 12


def test_float32_gradients_follow_the_float64_ones() -> None:
    for family in ("strictly_convex", "two_sided", "simplex", "many_rows"):
        problem = testing.make(family, 10, 8, seed=7, dtype=torch.float32)
        exact = testing.cast(problem, D)
        regular = testing.strictness(exact, reference.solve_qp(**exact)) > 1e-2
        assert int(regular.sum()) >= 2, family
        problem, exact = testing.take(problem, regular), testing.take(exact, regular)
        weights = testing.cotangents(torchqp.solve_qp(**exact), seed=0)
        single = {k: w.float() for k, w in weights.items()}
        _, ours = testing.pullback(torchqp.solve_qp, problem, single)
        _, theirs = testing.pullback(torchqp.solve_qp, exact, weights)
        for name, grad in ours.items():
            assert grad.dtype == torch.float32
            assert testing.relative_error(grad, theirs[name]) <= 1e-3, (family, name)


def test_relu_and_box_derivatives_are_masks() -> None:
    w = torch.linspace(-3.05, 3, 40, dtype=D).requires_grad_()  # no entry at -1, 0 or 2
    g = torch.randn(40, dtype=D)
    z = torchqp.solve_qp(Diag(torch.ones(40, dtype=D)), -w, lb=torch.zeros(40, dtype=D)).z
    (grad,) = torch.autograd.grad(z, w, g)
    assert float((grad - g * (w > 0)).abs().max()) <= 1e-12
    ones = torch.ones(40, dtype=D)
    z = torchqp.solve_qp(torch.eye(40, dtype=D), -w, lb=-ones, ub=2 * ones).z
    (grad,) = torch.autograd.grad(z, w, g)
    assert float((grad - g * ((w > -1) & (w < 2))).abs().max()) <= 1e-12


def test_simplex_projection_derivative_in_closed_form() -> None:
    """On the support S the derivative is I - 11'/|S|, elsewhere 0."""
    w = torch.randn(12, 30, dtype=D, requires_grad=True)
    ones, g = torch.ones(1, 30, dtype=D), torch.randn(12, 30, dtype=D)
    sol = torchqp.solve_qp(Diag(ones[0]), -w, A=ones, b=ones[0, :1], lb=torch.zeros(30, dtype=D))
    (grad,) = torch.autograd.grad(sol.z, w, g)
    support = (sol.z.detach() > 1e-9).to(D)
    mean = (g * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
    assert float((grad - support * (g - mean)).abs().max()) <= 1e-10


def test_at_a_vertex_the_gradient_of_the_objective_is_zero() -> None:
    problem = testing.make("linear", 10, 6, seed=1)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 3, names=("z",))
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights)
    assert float(grads["q"].abs().max()) <= 1e-9
    assert float(grads["Q"].abs().max()) <= 1e-9
    assert float(grads["h"].abs().max()) > 1e-2


def test_envelope_identities() -> None:
    """The optimal value's derivatives are the Lagrangian's: z, zz'/2, -lam, lam z', -nu, nu z'."""
    for family in ("strictly_convex", "semidefinite", "linear", "many_rows"):
        problem, wanted = testing.leaves(testing.make(family, 9, 4, seed=5))
        sol = torchqp.solve_qp(**problem)
        value = (sol.z * (testing.times(problem["Q"], sol.z) / 2 + problem["q"])).sum()
        grads = dict(zip(wanted, torch.autograd.grad(value, list(wanted.values())), strict=True))
        z, nu, lam = sol.z.detach(), sol.nu.detach(), sol.lam.detach()
        expected = {"q": z, "h": -lam, "G": lam.unsqueeze(-1) * z.unsqueeze(-2), "b": -nu}
        expected |= {"Q": z.unsqueeze(-1) * z.unsqueeze(-2) / 2}
        expected |= {"A": nu.unsqueeze(-1) * z.unsqueeze(-2)}
        for name, grad in grads.items():
            assert testing.relative_error(grad, expected[name]) <= 1e-8, (family, name)


def test_the_pullback_is_linear_and_zero_gives_exactly_zero() -> None:
    problem = testing.make("two_sided", 12, 5, seed=3)
    solution = torchqp.solve_qp(**problem)
    first, second = (testing.cotangents(solution, seed) for seed in (0, 1))
    both = {k: 2 * first[k] - 3 * second[k] for k in first}
    none = {k: torch.zeros_like(v) for k, v in first.items()}
    grads = [testing.pullback(torchqp.solve_qp, problem, w)[1] for w in (first, second, both, none)]
    for name in problem:
        sum_ = 2 * grads[0][name] - 3 * grads[1][name]
        assert testing.relative_error(grads[2][name], sum_) <= 1e-10, name
        assert float(grads[3][name].abs().max()) == 0.0, name


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_shared_arguments_receive_the_sum_over_the_batch(mode: str) -> None:
    for family in ("two_sided", "strictly_convex", "simplex"):
        one = testing.make(family, 8, seed=5)
        q = one["q"] + 0.1 * torch.randn(3, 2, 8, dtype=D)
        shared = one | {"q": q}
        spread = {
            k: testing.map_tensor(lambda t: t.expand(3, 2, *t.shape), v) for k, v in one.items()
        }
        spread["q"] = q
        weights = testing.cotangents(torchqp.solve_qp(**shared), seed=2)
        _, summed = testing.pullback(torchqp.solve_qp, shared, weights, backward=mode)
        _, apart = testing.pullback(torchqp.solve_qp, spread, weights, backward=mode)
        for name in one:
            expected = apart[name] if name == "q" else apart[name].sum((0, 1))
            assert summed[name].shape == expected.shape
            assert testing.relative_error(summed[name], expected) <= 1e-12, (family, name)


def test_gradient_of_Q_is_symmetric_and_that_of_Diag_its_diagonal() -> None:
    problem = testing.make("strictly_convex", 8, 3, seed=3)
    d = torch.rand(3, 8, dtype=D) + 0.5
    _, dense = testing.pullback(torchqp.solve_qp, problem | {"Q": torch.diag_embed(d)}, 4)
    _, diagonal = testing.pullback(torchqp.solve_qp, problem | {"Q": Diag(d)}, 4)
    assert testing.relative_error(dense["Q"], dense["Q"].mT) <= 1e-15
    assert testing.relative_error(diagonal["Q"], dense["Q"].diagonal(dim1=-2, dim2=-1)) <= 1e-9
    assert testing.relative_error(diagonal["G"], dense["G"]) <= 1e-9


@pytest.mark.parametrize("family", ["strictly_convex", "two_sided", "box", "simplex"])
def test_second_derivatives_pass_gradgradcheck(family: str) -> None:
    problem = testing.make(family, 4, 2, seed=6)
    if family == "box":  # a step in one side of a fixed variable crosses the other
        problem["ub"] = torch.where(
            problem["ub"] == problem["lb"], problem["ub"] + 0.5, problem["ub"]
        )
    solution = reference.solve_qp(**problem)
    assert float(testing.strictness(problem, solution).min()) > 1e-3
    copy, wanted = testing.leaves(problem)

    def solve(*values: Tensor) -> tuple[Tensor, ...]:
        moved = dict(zip(copy, values, strict=True))
        if isinstance(problem["Q"], Diag):
            moved["Q"] = Diag(moved["Q"])
        solution = torchqp.solve_qp(**moved, settings=SHARP)
        return tuple(value for _, value in testing.outputs(solution) if value.numel())

    values = tuple(wanted.values())
    assert torch.autograd.gradcheck(solve, values, eps=1e-5, atol=1e-6)
    assert torch.autograd.gradgradcheck(solve, values, eps=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_is_the_transpose_of_reverse_mode() -> None:
    for problem, _ in regular_problems(3):
        names = list(problem)
        tangents = {k: torch.randn_like(v) for k, v in problem.items()}

        def solve(*values: Tensor, names: list[str] = names) -> tuple[Tensor, ...]:
            solution = torchqp.solve_qp(**dict(zip(names, values, strict=True)))
            return tuple(value for _, value in testing.outputs(solution))

        with torch.autograd.forward_ad.dual_level():
            duals = [torch.autograd.forward_ad.make_dual(problem[k], tangents[k]) for k in names]
            moved = [torch.autograd.forward_ad.unpack_dual(x).tangent for x in solve(*duals)]
        weights = testing.cotangents(torchqp.solve_qp(**problem), seed=3)
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights)
        forward = sum((w * t).sum() for w, t in zip(weights.values(), moved, strict=True))
        backward = sum((grads[k] * tangents[k]).sum() for k in names)
        assert float((forward - backward).abs() / (1 + backward.abs())) <= 1e-10


def test_twin_rows_have_the_gradient_of_the_single_row() -> None:
    problem = testing.make("degenerate", 10, 6, seed=4)
    half = problem["G"].shape[-2] // 2
    single = problem | {"G": problem["G"][..., :half, :], "h": problem["h"][..., :half]}
    weights = testing.cotangents(torchqp.solve_qp(**problem), 1, names=("z",))
    _, twins = testing.pullback(torchqp.solve_qp, problem, weights)
    _, alone = testing.pullback(torchqp.solve_qp, single, weights)
    assert testing.relative_error(twins["q"], alone["q"]) <= 1e-6
    assert testing.relative_error(twins["Q"], alone["Q"]) <= 1e-6
    folded = twins["h"][..., :half] + twins["h"][..., half:]
    assert testing.relative_error(folded, alone["h"]) <= 1e-6


def test_degenerate_active_sets_have_finite_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=D)  # noqa: E731
    n, batch = 5, 20
    Q = torch.eye(n, dtype=D).expand(batch, n, n)
    apex = {"Q": Q, "q": normal(batch, n), "G": normal(batch, 40, n), "h": torch.zeros(40, dtype=D)}
    weak = {"Q": Q, "q": torch.zeros(batch, n, dtype=D), "G": normal(batch, 3, n)}
    weak["h"] = torch.zeros(3, dtype=D)
    A = normal(batch, 2, n)
    twice = {
        "Q": Q,
        "q": normal(batch, n),
        "A": torch.cat([A, A], -2),
        "b": torch.zeros(4, dtype=D),
    }
    flat = {
        "Q": torch.zeros(n, n, dtype=D),
        "q": torch.zeros(batch, n, dtype=D),
        "lb": -normal(n).abs(),
    }
    flat["ub"] = flat["lb"] + 1
    for name, problem in {"apex": apex, "weak": weak, "twice": twice, "flat": flat}.items():
        solution, grads = testing.pullback(torchqp.solve_qp, problem, 0)
        assert bool((solution.status <= 1).all()), (name, solution.status)
        for key, grad in grads.items():
            assert bool(grad.isfinite().all()), (name, key)
        # The multipliers are not unique here, so that only cotangents of z have a meaning.
        weights = testing.cotangents(solution, 0, names=("z",))
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights)
        for key, grad in grads.items():
            # On the flat set z jumps with any change of q: its derivative has no natural size.
            assert name == "flat" or float(grad.abs().max()) <= 1e3, (name, key)


def test_weakly_active_bound_gives_a_one_sided_derivative() -> None:
    """Z = max(w, 0) at w = 0: the derivative must be one of, or between, 0 and 1."""
    w = torch.zeros(1, dtype=D, requires_grad=True)
    z = torchqp.solve_qp(torch.eye(1, dtype=D), -w, lb=torch.zeros(1, dtype=D)).z
    (grad,) = torch.autograd.grad(z.sum(), w)
    assert 0.0 <= float(grad) <= 1.0


def test_infinite_sides_have_exactly_zero_gradient() -> None:
    problem = testing.make("two_sided", 10, 5, seed=1)
    _, grads = testing.pullback(torchqp.solve_qp, problem)
    for name in ("h", "h_lower", "lb", "ub"):
        absent = problem[name].isinf()
        assert bool(absent.any())
        assert float(grads[name][absent].abs().max()) == 0.0
        assert float(grads[name].abs().max()) > 0.0


def test_gradient_of_a_fixed_variable_goes_to_the_side_that_holds() -> None:
    one = torch.ones(1, dtype=D)
    for q, name, other in ((-5.0, "ub", "lb"), (5.0, "lb", "ub")):
        problem = {"Q": torch.eye(1, dtype=D), "q": q * one, "lb": one, "ub": one}
        _, grads = testing.pullback(torchqp.solve_qp, problem, {"z": one})
        assert float(grads[name]) == pytest.approx(1.0, abs=1e-12)
        assert float(grads[other]) == 0.0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_slacks_differentiate_as_h_minus_Gz_in_both_directions() -> None:
    problem, wanted = testing.leaves(testing.make("strictly_convex", 6, 3, seed=2))
    solution = torchqp.solve_qp(**problem)
    weight = torch.randn(3, 6, dtype=D)
    explicit = problem["h"] - testing.times(problem["G"], solution.z)
    pairs = (
        torch.autograd.grad((weight * s).sum(), list(wanted.values()), retain_graph=True)
        for s in (solution.s, explicit)
    )
    for ours, theirs in zip(*pairs, strict=True):
        assert testing.relative_error(ours, theirs) <= 1e-13
    fixed = {k: v.detach() for k, v in problem.items()}
    tangent = torch.randn_like(fixed["q"])
    with torch.autograd.forward_ad.dual_level():
        q = torch.autograd.forward_ad.make_dual(fixed["q"], tangent)
        moved = torchqp.solve_qp(**(fixed | {"q": q}))
        ds, dz = (torch.autograd.forward_ad.unpack_dual(x).tangent for x in (moved.s, moved.z))
    assert float(ds.abs().max()) > 0.1
    assert testing.relative_error(ds, -testing.times(fixed["G"], dz)) <= 1e-13
