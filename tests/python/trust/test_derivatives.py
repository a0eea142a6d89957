"""G1 to G10: gradients at regular and at degenerate points."""

import itertools

import pytest
import torch
from contract import MODES, D, all_nine, assert_same, tensor
from degenerate_families import NOT_UNIQUE, SIZES, families
from small_problems import everything, solve, tensors

import torchqp
from torchqp import LPGD, Settings, Smoothed, testing

SHARP = Settings(eps_abs=1e-12, eps_rel=1e-12)
UNIQUE = [k for k in families(1, 2, 0) if k not in NOT_UNIQUE]


@pytest.mark.parametrize("mode", MODES)
def test_G1_a_shared_parameter_gets_the_sum_over_the_members(mode: str) -> None:
    """Qpth returns `.mean(0)`, 1 / B of the gradient, to this day."""
    one = testing.take(all_nine(), 0)
    q = one["q"] + 0.1 * torch.randn(9, 6, dtype=D)
    weights = testing.cotangents(torchqp.solve_qp(**(one | {"q": q})), 1)
    _, shared = testing.pullback(torchqp.solve_qp, one | {"q": q}, weights, backward=mode)
    total = {name: torch.zeros_like(value) for name, value in one.items()}
    for i in range(9):
        part = {k: w[i] for k, w in weights.items()}
        _, grads = testing.pullback(torchqp.solve_qp, one | {"q": q[i]}, part, backward=mode)
        for name in total:
            total[name] += grads[name]
    for name in one:
        if name != "q":
            assert testing.relative_error(shared[name], total[name]) <= 1e-12, name
    assert sum(float(total[name].abs().max()) > 1e-2 for name in one) >= 7


def test_G1_gradcheck_with_the_expansion_inside() -> None:
    shared = ("Q", "G", "h", "A", "b", "lb", "ub", "h_lower")
    args = tensors(everything(batch=(3,), shared=shared))

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = dict(
            zip(("Q", "q", "G", "h", "A", "b", "lb", "ub", "h_lower"), values, strict=True)
        )
        spread = {k: v.expand(3, *v.shape) for k, v in names.items() if k in shared}
        return torchqp.solve_qp(**(names | spread), settings=SHARP)[:5]

    assert torch.autograd.gradcheck(outputs, args, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=True)


def test_G2_every_subset_of_required_gradients_gives_the_same_numbers() -> None:
    problem = all_nine(3)
    solution, full = testing.pullback(torchqp.solve_qp, problem)
    weights = testing.cotangents(solution, 0)
    for wanted in itertools.product((False, True), repeat=len(problem)):
        leaves = {
            k: v.clone().requires_grad_(want)
            for (k, v), want in zip(problem.items(), wanted, strict=True)
        }
        asked = [v for v in leaves.values() if v.requires_grad]
        found = torchqp.solve_qp(**leaves)
        assert found.z.requires_grad == bool(asked)
        if asked:
            grads = torch.autograd.grad(
                [getattr(found, k) for k in weights], asked, list(weights.values())
            )
            names = [k for k, v in leaves.items() if v.requires_grad]
            for name, grad in zip(names, grads, strict=True):
                assert testing.relative_error(grad, full[name]) <= 1e-13, name


@pytest.mark.parametrize("mode", MODES)
def test_G2_cotangents_that_are_missing_count_as_zero(mode: str) -> None:
    problem, wanted = testing.leaves(all_nine(3))
    solution = torchqp.solve_qp(**problem, backward=mode)
    leaves = list(wanted.values())
    for names in (["z"], ["lam"], ["nu", "lam_ub"], ["s"], ["lam_lb"]):
        outs = [getattr(solution, k) for k in names]
        outs = [torch.where(t.isfinite(), t, 0.0) for t in outs]
        weights = [torch.randn_like(t) for t in outs]
        few = torch.autograd.grad(outs, leaves, weights, retain_graph=True, materialize_grads=True)
        rest = [t for k, t in testing.outputs(solution) if k not in names]
        zeros = [torch.zeros_like(t) for t in rest]
        all_ = torch.autograd.grad(
            [*outs, *rest], leaves, [*weights, *zeros], retain_graph=True, materialize_grads=True
        )
        for a, b in zip(few, all_, strict=True):
            assert testing.relative_error(a, b) <= 1e-12, names
    nothing = [torch.zeros_like(t) for _, t in testing.outputs(solution)]
    outs = [t for _, t in testing.outputs(solution)]
    for grad in torch.autograd.grad(outs, leaves, nothing, materialize_grads=True):
        assert not bool(grad.any())


def linear(mode: object, problem: dict, limit: float) -> None:
    """vjp(2 v1 - 3 v2) = 2 vjp(v1) - 3 vjp(v2), and vjp(1024 v) to the bit."""
    solution = torchqp.solve_qp(**problem)
    v1, v2 = (testing.cotangents(solution, seed, names=("z",)) for seed in (0, 1))
    both = {k: 2 * v1[k] - 3 * v2[k] for k in v1}
    scaled = {k: 1024 * v for k, v in v1.items()}
    runs = [
        testing.pullback(torchqp.solve_qp, problem, w, backward=mode)[1]
        for w in (v1, v2, both, scaled)
    ]
    for name in problem:
        a, b, sum_, large = (run[name] for run in runs)
        expected = 2 * a - 3 * b
        error = (sum_ - expected).abs().max() / (1 + 2 * a.abs().max() + 3 * b.abs().max())
        assert float(error) <= limit, name
        assert testing.same_bits(large, 1024 * a), name


@pytest.mark.parametrize("mode", ["kkt", "smoothed"])
def test_G3_the_pullback_is_linear(mode: str) -> None:
    """Cvxpylayers #67, #69, #70: LSQR stopped early and vjp(v1) + vjp(v2) != vjp(v1 + v2)."""
    for family in testing.FAMILIES:
        if mode == "smoothed" and family == "semidefinite":
            continue  # solved with Q + 1e-6 I, whose condition number is above 1e6
        for n in (5, 20):
            problem = testing.make(family, n, 4, seed=3)
            if family == "simplex":
                problem |= {"Q": torch.diag_embed(problem["Q"].d)}
            linear(mode, problem, 1e-12)


@pytest.mark.parametrize("mode", ["kkt", "smoothed"])
@pytest.mark.parametrize("family", UNIQUE)
def test_G3_the_pullback_is_linear_at_degenerate_points(mode: str, family: str) -> None:
    linear(mode, families(6, 5, 1)[family], 1e-12)


def test_G4_the_adjoint_matches_perturbed_solves() -> None:
    """<vjp(w), dtheta> = <w, (x(theta + eps dtheta) - x(theta - eps dtheta)) / (2 eps)>."""
    step, checked = 1e-6, 0
    for family in ("strictly_convex", "two_sided", "many_rows", "box", "equality_only"):
        problem = testing.make(family, 8, 30, seed=4)
        solution = torchqp.solve_qp(**problem, settings=SHARP)
        kept = testing.strictness(problem, solution) > 1e-3
        problem = {
            k: v.expand(30, *v.shape) if v.dim() < (3 if k in "QGA" else 2) else v
            for k, v in problem.items()
        }
        problem = testing.take(problem, kept)
        moves = {k: torch.randn_like(v) for k, v in problem.items()}
        for low, high in (("lb", "ub"), ("h_lower", "h")):
            if low in problem and high in problem:  # the sides of an equality move together
                same = problem[low] == problem[high]
                moves[high] = torch.where(same, moves[low], moves[high])
        weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights, settings=SHARP)
        ends = [
            torchqp.solve_qp(
                **{k: problem[k] + sign * step * moves[k] for k in problem}, settings=SHARP
            )
            for sign in (1, -1)
        ]
        change = sum(
            (weights[k] * (getattr(ends[0], k) - getattr(ends[1], k)) / (2 * step)).sum(-1)
            for k in weights
        )
        product = sum((grads[k] * moves[k]).flatten(1).nan_to_num().sum(-1) for k in problem)
        assert testing.relative_error(product, change) <= 1e-6, family
        checked += int(kept.sum())
    assert checked >= 90


def envelope(problem: dict, limit: float) -> None:
    """The optimal value's derivatives are those of the Lagrangian at the solution."""
    copy, wanted = testing.leaves(problem)
    sol = torchqp.solve_qp(**copy, settings=SHARP)
    value = (sol.z * (testing.times(copy["Q"], sol.z) / 2 + copy["q"])).sum()
    grads = dict(zip(wanted, torch.autograd.grad(value, list(wanted.values())), strict=True))
    z, nu, lam, lam_lb, lam_ub = (t.detach() for t in sol[:5])
    outer = lambda a, b: a.unsqueeze(-1) * b.unsqueeze(-2)  # noqa: E731
    expected = {"q": z, "Q": outer(z, z) / 2, "h": -lam, "G": outer(lam, z)}
    expected |= {"A": outer(nu, z), "b": -nu, "lb": lam_lb, "ub": -lam_ub}
    for name, grad in grads.items():
        right = expected[name]
        right = right.sum(0) if grad.dim() < right.dim() else right
        assert testing.relative_error(grad, right) <= limit, name


@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "linear", "semidefinite"])
def test_G5_envelope_identities(family: str) -> None:
    for n in (4, 9, 30):
        envelope(testing.make(family, n, 6, seed=5), 1e-8)


@pytest.mark.parametrize("family", UNIQUE)
@pytest.mark.parametrize("settings", [None, SHARP], ids=["default", "sharp"])
def test_G5_envelope_identities_at_degenerate_points(family: str, settings) -> None:
    """With a unique z, d(value)/dq = z and d(value)/dQ = zz'/2 whatever the multipliers are."""
    for n in SIZES:
        problem = families(10, n, n)[family]
        copy, wanted = testing.leaves({k: problem[k] for k in ("Q", "q")})
        sol = torchqp.solve_qp(**(problem | copy), settings=settings)
        value = (sol.z * (testing.times(copy["Q"], sol.z) / 2 + copy["q"])).sum()
        dQ, dq = torch.autograd.grad(value, [wanted["Q"], wanted["q"]])
        z = sol.z.detach()
        assert testing.relative_error(dq, z) <= 1e-8, n
        assert testing.relative_error(dQ, z.unsqueeze(-1) * z.unsqueeze(-2) / 2) <= 1e-8, n


def test_G6_gradcheck_and_gradgradcheck_at_regular_points() -> None:
    args = tensors(everything(batch=(2,)))

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return solve(*values, settings=SHARP)[:5]

    assert torch.autograd.gradcheck(outputs, args, eps=1e-6, atol=1e-7, rtol=1e-5)
    assert torch.autograd.gradgradcheck(outputs, args, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("mode", [Smoothed(), LPGD()])
def test_G6_modes_without_a_second_derivative_say_so(mode: object) -> None:
    q = torch.randn(3, dtype=D, requires_grad=True)
    z = torchqp.solve_qp(torch.eye(3, dtype=D), q, lb=0.0, backward=mode).z
    (grad,) = torch.autograd.grad(z.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), q)


@pytest.mark.parametrize("family", UNIQUE)
def test_G7_the_smoothed_mode_keeps_its_definition_at_degenerate_points(family: str) -> None:
    """D = -Q^-1 (g - a (a'Q^-1 g) / (a'Q^-1 a)), a = -(Qz + q): no active set comes into it."""
    for n in (2, 5, 12):
        problem = families(8, n, n)[family]
        if not bool(problem["Q"].any()):
            continue  # a zero Q is smoothed with a shift that the formula leaves out
        solution = torchqp.solve_qp(**problem)
        g = testing.cotangents(solution, 0, names=("z",))["z"]
        _, grads = testing.pullback(torchqp.solve_qp, problem, {"z": g}, backward="smoothed")
        a = -(testing.times(problem["Q"], solution.z) + problem["q"])
        inverse = torch.linalg.inv(problem["Q"])
        interior = a.abs().amax(-1, keepdim=True) <= 1e-7 * (1 + problem["q"].abs().amax(-1, True))
        a = torch.where(interior, 0.0, a)
        Pa, Pg = testing.times(inverse, a), testing.times(inverse, g)
        length = (a * Pa).sum(-1, keepdim=True)
        along = torch.where(interior, 0.0, (a * Pg).sum(-1, keepdim=True) / length)
        assert testing.relative_error(grads["q"], along * Pa - Pg) <= 1e-8, n


@pytest.mark.parametrize("mode", MODES)
def test_G8_ten_thousand_degenerate_problems_have_finite_gradients(mode: str) -> None:
    tried = 0
    for n in SIZES:
        for family, problem in families(160, n, n).items():
            for names in (("z",), ("z", *testing.MULTIPLIERS)):
                solution = torchqp.solve_qp(**problem)
                weights = testing.cotangents(solution, 0, names=names)
                solution, grads = testing.pullback(
                    torchqp.solve_qp, problem, weights, backward=mode
                )
                assert not bool((solution.status > 1).any()), (family, n)
                for name, grad in grads.items():
                    assert bool(grad.isfinite().all()), (family, n, name)
                    if names == ("z",) and family not in NOT_UNIQUE and mode != "smoothed":
                        assert float(grad.abs().max()) <= 1e5, (family, n, name)
            tried += 160
    assert tried >= 10_000


def test_G9_the_exact_gradient_of_a_program_is_zero_and_the_others_lead_downhill() -> None:
    """Cvxpylayers #127: costs c(theta) of an LP are to be learned, exact gradients are ~ 0."""
    generator = torch.Generator().manual_seed(0)
    n = 5
    target = torch.rand(40, n, generator=generator, dtype=D)
    best = torch.zeros(40, n, dtype=D).scatter(-1, target.argmin(-1, keepdim=True), 1.0)
    start = torch.rand(40, n, generator=generator, dtype=D)

    def regret(cost: torch.Tensor, mode: object) -> torch.Tensor:
        z = torchqp.solve_qp(
            torch.zeros(n, n, dtype=D),
            cost,
            A=torch.ones(1, n, dtype=D),
            b=1.0,
            lb=0.0,
            backward=mode,
        ).z
        return (target * (z - best)).sum(-1)

    for mode, falls in (("kkt", False), (LPGD(tau=0.3), True), (Smoothed(), True)):
        cost = start.clone().requires_grad_()
        first = regret(cost, mode)
        (grad,) = torch.autograd.grad(first.sum(), cost)
        if not falls:
            assert float(grad.abs().max()) <= 1e-9
            continue
        assert float(grad.abs().max()) > 1e-3
        for _ in range(60):
            (grad,) = torch.autograd.grad(regret(cost, mode).sum(), cost)
            length = grad.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            cost = (cost - 0.05 * grad / length).detach().requires_grad_()
        last = regret(cost, mode).detach()
        assert float(last.mean()) <= 0.5 * float(first.detach().mean()), mode


def test_G10_lpgd_tends_to_the_exact_gradient_as_tau_falls() -> None:
    problem = everything(batch=(20,), shared=())
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    _, exact = testing.pullback(torchqp.solve_qp, problem, weights)
    fastest = max(float(grad.abs().max()) for grad in exact.values())
    for tau in (1e-5, 1e-6):
        mode = LPGD(tau=tau, tau_mode="absolute", side="lower")
        _, grads = testing.pullback(
            torchqp.solve_qp, problem, weights, backward=mode, settings=SHARP
        )
        for name in problem:
            # Products of two solutions' differences: of second order in how fast they move.
            limit = 0.3 * tau * (1 + fastest) ** 2
            assert float((grads[name] - exact[name]).abs().max()) <= limit, (tau, name)


def test_G10_lpgd_stays_bounded_for_large_tau_and_zero_where_it_has_no_side() -> None:
    box = {
        "Q": torch.eye(4, dtype=D),
        "q": torch.randn(9, 4, dtype=D),
        "lb": -torch.ones(4, dtype=D),
    }
    box["ub"] = torch.ones(4, dtype=D)
    weights = {"z": torch.randn(9, 4, dtype=D)}
    for tau in (1.0, 1e3, 1e6):
        mode = LPGD(tau=tau, tau_mode="absolute")
        solution, grads = testing.pullback(torchqp.solve_qp, box, weights, backward=mode)
        assert float(grads["q"].abs().max()) <= 2 / tau + 1e-9
        assert not bool(solution.status.any())
    # Both sides of the step are unbounded (an LP) or infeasible (a step in b): nothing to say.
    line = {"Q": torch.zeros(1, 1, dtype=D), "q": tensor(1e-3), "lb": tensor(0.0)}
    mode = LPGD(tau=1.0, tau_mode="absolute", side="lower")
    _, grads = testing.pullback(torchqp.solve_qp, line, {"z": tensor(-1.0)}, backward=mode)
    assert all(not bool(grad.any()) for grad in grads.values())


def test_G_the_modes_share_one_solution() -> None:
    problem = all_nine()
    base = torchqp.solve_qp(**problem)
    for mode in (*MODES, Smoothed(alpha=0.3), LPGD(tau=3.0)):
        assert_same(torchqp.solve_qp(**problem, backward=mode), base)
