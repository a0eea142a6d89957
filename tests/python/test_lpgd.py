"""LPGD: the exact gradient while the active set stands, informative beyond; special cases."""

import pytest
import torch
from torch import Tensor

import torchqp
from torchqp import LPGD, Settings, reference, testing

D = torch.float64
SHARP = Settings(eps_abs=1e-12, eps_rel=1e-12)


def absolute(tau: float, side: str = "average", rho: float = 0.0) -> LPGD:
    return LPGD(tau=tau, tau_mode="absolute", side=side, rho=rho)


def active_set(solution: object) -> Tensor:
    parts = [solution.lam.sign(), solution.lam_lb.sign(), solution.lam_ub.sign()]
    return torch.cat([part.detach() for part in parts], -1)


def moved(problem: dict, weights: dict[str, Tensor], t: float) -> dict:
    """The problem perturbed by t: minimisation in z, maximisation in the multipliers."""
    changed = dict(problem)
    changed["q"] = problem["q"] + t * weights["z"]
    for limit, name in (
        ("b", "nu"),
        ("h", "lam"),
        ("h_lower", "lam"),
        ("ub", "lam_ub"),
        ("lb", "lam_lb"),
    ):
        if problem.get(limit) is not None and name in weights:
            changed[limit] = problem[limit] - (-t if limit == "lb" else t) * weights[name]
    return changed


def steady(family: str, n: int, tau: float, count: int = 12) -> tuple[dict, dict[str, Tensor]]:
    """Members whose active set is the same at -tau, 0 and +tau; cotangents of all outputs."""
    problem = testing.make(family, n, count, seed=17)
    problem = {
        k: testing.map_tensor(lambda t, k=k: t.expand(count, *t.shape[-core(k, t) :]).clone(), v)
        for k, v in problem.items()
    }
    weights = testing.cotangents(reference.solve_qp(**problem), seed=5)
    sets = [active_set(reference.solve_qp(**moved(problem, weights, t))) for t in (-tau, 0.0, tau)]
    same = ((sets[0] == sets[1]) & (sets[1] == sets[2])).all(-1)
    assert int(same.sum()) >= 3, "too few steady members drawn"
    return testing.take(problem, same), {k: w[same] for k, w in weights.items()}


def core(name: str, value: Tensor) -> int:
    return 2 if name in ("Q", "G", "A") and value.dim() > 1 else 1


@pytest.mark.parametrize(
    "family", ["strictly_convex", "optnet", "many_rows", "semidefinite", "box"]
)
def test_average_is_the_exact_gradient_while_the_active_set_stands(family: str) -> None:
    problem, weights = steady(family, 6, tau=1e-3)
    _, exact = testing.pullback(torchqp.solve_qp, problem, weights)
    options = {"backward": absolute(1e-3), "settings": SHARP}
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, **options)
    for name in problem:
        assert testing.relative_error(ours[name], exact[name]) <= 1e-6, name


@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "two_sided", "linear"])
def test_one_side_is_exact_for_q_and_the_limits(family: str, side: str) -> None:
    problem, weights = steady(family, 6, tau=1e-3)
    _, exact = testing.pullback(torchqp.solve_qp, problem, weights)
    options = {"backward": absolute(1e-3, side), "settings": SHARP}
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, **options)
    for name in ("q", "b", "h", "h_lower", "lb", "ub"):
        if name in problem:
            assert testing.relative_error(ours[name], exact[name]) <= 1e-6, name


@pytest.mark.parametrize("side", ["lower", "upper", "average"])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_large_steps_are_those_of_the_papers_formula(side: str, rho: float) -> None:
    """A step far beyond the active set: the reference's fresh solves, differenced."""
    for family in ("strictly_convex", "many_rows"):
        problem = testing.make(family, 7, 5, seed=23)
        weights = testing.cotangents(reference.solve_qp(**problem), seed=1, names=("z",))
        expected = reference.lpgd_gradients(problem, weights, tau=2.0, side=side, rho=rho)
        _, ours = testing.pullback(
            torchqp.solve_qp, problem, weights, backward=absolute(2.0, side, rho)
        )
        _, exact = testing.pullback(torchqp.solve_qp, problem, weights)
        assert testing.relative_error(ours["q"], exact["q"]) > 1e-3
        for name in problem:
            assert testing.relative_error(ours[name], expected[name]) <= 1e-6, (family, name)


def test_with_rho_and_a_small_step_it_is_the_exact_gradient_of_Q_plus_rho() -> None:
    rho = 0.4
    problem, weights = steady("strictly_convex", 6, tau=1e-3)
    weights = {"z": weights["z"]}
    solution = torchqp.solve_qp(**problem, settings=SHARP)
    shifted = problem | {"Q": problem["Q"] + rho * torch.eye(6, dtype=D)}
    shifted["q"] = problem["q"] - rho * solution.z
    _, expected = testing.pullback(torchqp.solve_qp, shifted, weights)
    options = {"backward": absolute(1e-4, rho=rho), "settings": SHARP}
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, **options)
    _, plain = testing.pullback(torchqp.solve_qp, problem, weights)
    for name in problem:
        assert testing.relative_error(ours[name], expected[name]) <= 1e-6, name
    assert testing.relative_error(ours["q"], plain["q"]) > 1e-3


def unit_box(batch: int, n: int, seed: int = 0) -> tuple[dict, Tensor, Tensor]:
    """Linear programs over [0, 1]^n with a row sum(z) <= n / 2, and two cost vectors."""
    draw = torch.Generator().manual_seed(seed)
    c, true = (torch.randn(batch, n, generator=draw, dtype=D) for _ in range(2))
    data = {"Q": torch.zeros(n, n, dtype=D), "G": torch.ones(1, n, dtype=D)}
    data |= {"h": torch.full((1,), n / 2 + 0.25, dtype=D), "lb": torch.zeros(n, dtype=D)}
    return data | {"ub": torch.ones(n, dtype=D)}, c, true


def test_blackbox_differentiation_of_a_linear_program() -> None:
    """LPGD lower on an LP is Vlastelica's (z(q + tau g) - z(q)) / tau, between vertices."""
    data, c, g = unit_box(8, 9)
    tau = 2.0
    c.requires_grad_()
    z = torchqp.solve_qp(q=c, **data, backward=absolute(tau, "lower")).z
    (grad,) = torch.autograd.grad(z, c, g)
    with torch.no_grad():
        expected = (
            reference.solve_qp(q=c + tau * g, **data).z - reference.solve_qp(q=c, **data).z
        ) / tau
    assert float(grad.abs().max()) > 0.1
    assert testing.relative_error(grad, expected) <= 1e-6


def test_spo_plus_gradient_from_two_linear_programs() -> None:
    """2 (z(c) - z(2 c_hat - c)) is LPGD upper at c, tau = 1/2, cotangent 2 (c - c_hat) / tau."""
    data, c_hat, c = unit_box(8, 9, seed=1)
    with torch.no_grad():
        first = reference.solve_qp(q=c, **data).z
        second = reference.solve_qp(q=2 * c_hat - c, **data).z
    expected = 2 * (first - second)
    # The SPO+ subgradient starts at z(c): q = c, and q - tau g = 2 c_hat - c with tau = 1/2.
    q = c.clone().requires_grad_()
    z = torchqp.solve_qp(q=q, **data, backward=absolute(0.5, "upper")).z
    (grad,) = torch.autograd.grad(z, q, 2 * (c - (2 * c_hat - c)))
    assert float(expected.abs().max()) > 0.1
    assert testing.relative_error(grad, expected) <= 1e-6


def test_at_a_vertex_a_large_step_is_informative() -> None:
    data, c, g = unit_box(8, 9, seed=2)
    gradients = {}
    for name, mode in {"kkt": "kkt", "large": absolute(3.0), "tiny": absolute(1e-4)}.items():
        q = c.clone().requires_grad_()
        z = torchqp.solve_qp(q=q, **data, backward=mode, settings=SHARP).z
        (gradients[name],) = torch.autograd.grad(z, q, g)
    assert float(gradients["kkt"].abs().max()) <= 1e-9
    assert float(gradients["tiny"].abs().max()) <= 1e-6
    assert float(gradients["large"].abs().max()) > 0.1
    step = torchqp.solve_qp(q=c - 100 * gradients["large"], **data).z
    before = torchqp.solve_qp(q=c, **data).z
    assert float((g * step).sum()) < float((g * before).sum())


def test_relative_tau_is_scaled_by_the_cost_and_the_cotangents() -> None:
    problem = testing.make("many_rows", 6, 5, seed=3)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=4, names=("z", "lam"))
    size = torch.cat([weights["z"], weights["lam"]], -1).abs().amax(-1)
    taus = 0.05 * (1 + problem["q"].abs().amax(-1)) / size
    _, relative = testing.pullback(torchqp.solve_qp, problem, weights, backward=LPGD(tau=0.05))
    for i, tau in enumerate(taus.tolist()):
        one = testing.take(problem, slice(i, i + 1))
        weight = {k: w[i : i + 1] for k, w in weights.items()}
        _, expected = testing.pullback(torchqp.solve_qp, one, weight, backward=absolute(tau))
        for name in problem:
            assert testing.relative_error(relative[name][i : i + 1], expected[name]) <= 1e-6, name


def test_relative_tau_ignores_the_scale_of_the_loss() -> None:
    problem = testing.make("many_rows", 6, 4, seed=3)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=4, names=("z",))
    _, base = testing.pullback(torchqp.solve_qp, problem, weights, backward="lpgd")
    small = {k: 1e-9 * w for k, w in weights.items()}
    _, scaled = testing.pullback(torchqp.solve_qp, problem, small, backward="lpgd")
    for name in problem:
        assert testing.relative_error(1e9 * scaled[name], base[name]) <= 1e-6, name


def test_zero_cotangent_gives_exactly_zero() -> None:
    problem = testing.make("two_sided", 6, 3, seed=3)
    weights = testing.cotangents(torchqp.solve_qp(**problem), seed=4)
    weights = {k: torch.cat([torch.zeros_like(w[:1]), w[1:]]) for k, w in weights.items()}
    for mode in (LPGD(), absolute(0.1, "lower", rho=0.1)):
        _, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        for name, grad in grads.items():
            assert float(grad[0].abs().max()) == 0.0, name
        assert float(grads["q"][1:].abs().max()) > 0.0


def upper_where_lower_fails(problem: dict, weights: dict) -> dict:
    """The upper side's gradients; the lower side's are zero, and the average falls back to them."""
    results = {}
    for side in ("lower", "upper", "average"):
        mode = absolute(2.0, side)
        _, results[side] = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    for name in problem:
        assert float(results["lower"][name].abs().max()) == 0.0, name
        assert torch.equal(results["average"][name], results["upper"][name]), name
    return results["upper"]


def test_a_failed_side_falls_back_to_the_other_and_two_failed_ones_to_zero() -> None:
    """Min -z over z <= 1 is unbounded as soon as the perturbed cost points the other way."""
    one = torch.ones(1, dtype=D)
    problem = {"Q": torch.zeros(1, 1, dtype=D), "q": -one, "G": torch.eye(1, dtype=D), "h": one}
    upper = upper_where_lower_fails(problem, {"z": one})
    # q - 2 = -3, lam moves from 1 to 3: grad_h = -(1 - 3) / 2.
    assert float(upper["h"]) == pytest.approx(1.0, abs=1e-7)


def test_an_infeasible_end_is_a_failed_one() -> None:
    """-1/2 <= z <= 1, whose sides cross as soon as both move inwards by 2."""
    ones = torch.ones(2, dtype=D)
    problem = {
        "Q": torch.eye(1, dtype=D),
        "q": torch.full((1,), -2.0, dtype=D),
        "G": torch.tensor([[1.0], [-1.0]], dtype=D),
        "h": torch.tensor([1.0, 0.5], dtype=D),
    }
    upper = upper_where_lower_fails(problem, {"lam": ones})
    # z moves from 1 to 2, where q asks for it: grad_q = (1 - 2) / 2.
    assert float(upper["q"]) == pytest.approx(-0.5, abs=1e-7)


def test_shared_arguments_receive_the_sum() -> None:
    one = testing.make("many_rows", 6, seed=5)
    q = one["q"] + torch.randn(4, 6, dtype=D)
    weights = testing.cotangents(torchqp.solve_qp(**(one | {"q": q})), seed=1)
    _, shared = testing.pullback(torchqp.solve_qp, one | {"q": q}, weights, backward=absolute(0.2))
    spread = {k: v.expand(4, *v.shape) for k, v in one.items()} | {"q": q}
    _, apart = testing.pullback(torchqp.solve_qp, spread, weights, backward=absolute(0.2))
    for name in one:
        expected = apart[name] if name == "q" else apart[name].sum(0)
        assert testing.relative_error(shared[name], expected) <= 1e-9, name


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_higher_derivatives_are_refused() -> None:
    problem, wanted = testing.leaves(testing.make("optnet", 4, seed=1))
    z = torchqp.solve_qp(**problem, backward="lpgd").z
    (grad,) = torch.autograd.grad(z.sum(), wanted["q"], create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), wanted["q"])
    with torch.autograd.forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError)):
        q = torch.autograd.forward_ad.make_dual(problem["q"].detach(), torch.ones(4, dtype=D))
        torchqp.solve_qp(**(testing.make("optnet", 4, seed=1) | {"q": q}), backward="lpgd")
