"""Smoothed sets: the aggregated problem's gradient, its null space and limits; monotone steps."""

import math

import pytest
import torch
from torch import Tensor

import torchqp
from torchqp import Smoothed, reference, testing

D = torch.float64


def pair(family: str, n: int, seed: int) -> tuple[dict, object, Tensor]:
    problem = testing.make(family, n, seed=seed)
    return problem, reference.solve_qp(**problem), torch.randn(n, dtype=D)


@pytest.mark.parametrize("family", ["strictly_convex", "optnet", "many_rows", "equality_only"])
def test_all_parameters_follow_the_formula(family: str) -> None:
    for seed in range(4):
        problem, sol, g = pair(family, 7, seed)
        expected = reference.smoothed_gradients(problem, sol.z, sol.nu, sol.lam, g)
        _, ours = testing.pullback(torchqp.solve_qp, problem, {"z": g}, backward="smoothed")
        for name in problem:
            assert testing.relative_error(ours[name], expected[name]) <= 1e-6, (seed, name)


def test_all_parameters_match_finite_differences_of_the_aggregated_problem() -> None:
    """The one constraint a'z = beta, a = G'lam + A'nu, beta = lam'h + nu'b, lam and nu frozen."""
    problem, sol, g = pair("strictly_convex", 6, 3)
    lam, nu = sol.lam.detach(), sol.nu.detach()
    assert float(lam.max()) > 0.1
    _, ours = testing.pullback(torchqp.solve_qp, problem, {"z": g}, backward="smoothed")

    def aggregated(Q: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> object:
        a = testing.times(G.mT, lam) + testing.times(A.mT, nu)
        beta = (h * lam).sum(-1, keepdim=True) + (b * nu).sum(-1, keepdim=True)
        return reference.solve_qp(Q, q, A=a.unsqueeze(-2), b=beta)

    assert testing.relative_error(aggregated(**problem).z, sol.z) <= 1e-10
    expected = testing.finite_differences(aggregated, problem, {"z": g})
    for name in problem:
        assert testing.relative_error(ours[name], expected[name]) <= 1e-6, name


def test_bounds_are_aggregated_like_rows() -> None:
    box = testing.make("box", 8, 5, seed=1)
    box["ub"] = torch.where(box["ub"] == box["lb"], box["ub"] + 0.5, box["ub"])
    rows = {"Q": box["Q"], "q": box["q"], "G": torch.eye(8, dtype=D), "h": box["ub"]}
    rows["h_lower"] = box["lb"]
    weights = testing.cotangents(torchqp.solve_qp(**box), 2, names=("z",))
    _, by_bounds = testing.pullback(torchqp.solve_qp, box, weights, backward="smoothed")
    _, by_rows = testing.pullback(torchqp.solve_qp, rows, weights, backward="smoothed")
    for name, other in (("Q", "Q"), ("q", "q"), ("ub", "h"), ("lb", "h_lower")):
        assert testing.relative_error(by_bounds[name], by_rows[other]) <= 1e-8, name
    assert float(by_bounds["ub"].abs().max()) > 1e-3


def test_the_gradient_is_orthogonal_to_the_projection_error() -> None:
    """Algorithm 1: with Q = I, q = -w the gradient in w loses its part along w - z, no more."""
    problem = testing.make("strictly_convex", 9, 8, seed=5)
    problem["Q"] = torch.eye(9, dtype=D)
    w = -3 * problem.pop("q")
    w.requires_grad_()
    g = torch.randn(8, 9, dtype=D)
    z = torchqp.solve_qp(q=-w, **problem, backward="smoothed").z
    (grad,) = torch.autograd.grad(z, w, g)
    r = (w - z).detach()
    assert float(r.norm(dim=-1).min()) > 1e-3
    assert float((grad * r).sum(-1).abs().max()) <= 1e-9
    expected = g - r * ((g * r).sum(-1) / (r * r).sum(-1)).unsqueeze(-1)
    assert testing.relative_error(grad, expected) <= 1e-8


def test_without_active_constraints_it_is_the_exact_gradient() -> None:
    problem = testing.make("strictly_convex", 7, 4, seed=2)
    for name in ("A", "b"):
        del problem[name]
    problem["h"] = problem["h"] + 1e3
    weights = testing.cotangents(torchqp.solve_qp(**problem), 2, names=("z",))
    solution, exact = testing.pullback(torchqp.solve_qp, problem, weights)
    assert not bool(solution.lam.any())
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    for name in problem:
        assert testing.relative_error(ours[name], exact[name]) <= 1e-9, name


def test_a_single_active_row_gives_the_exact_gradient() -> None:
    compared = 0
    for seed in range(40):
        problem = testing.make("strictly_convex", 3, seed=seed)  # three rows, no equality
        solution = reference.solve_qp(**problem)
        if (
            int((solution.lam > 0).sum()) != 1
            or float(testing.strictness(problem, solution)) < 1e-3
        ):
            continue
        compared += 1
        weights = testing.cotangents(solution, seed, names=("z",))
        _, exact = testing.pullback(torchqp.solve_qp, problem, weights)
        _, ours = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
        for name in ("Q", "q", "h", "G"):
            assert testing.relative_error(ours[name], exact[name]) <= 1e-8, name
    assert compared >= 5


def test_a_finite_radius_damps_by_r_over_r_plus_d() -> None:
    problem = testing.make("simplex", 8, 6, seed=1)
    problem["Q"] = torch.eye(8, dtype=D)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 3, names=("z",))
    solution, flat = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    distance = (solution.z.detach() + problem["q"]).norm(dim=-1, keepdim=True)
    for radius in (0.1, 1.0, 10.0):
        factor = radius / (radius + distance)
        for metric in ("euclidean", "Q"):
            mode = Smoothed(radius=radius, metric=metric)
            _, ours = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
            assert testing.relative_error(ours["q"], factor * flat["q"]) <= 1e-8, (radius, metric)


@pytest.mark.parametrize("radius", [0.2, 5.0])
def test_radius_in_both_metrics_for_a_general_Q(radius: float) -> None:
    problem, sol, g = pair("strictly_convex", 6, 4)
    expected = reference.smoothed_gradients(problem, sol.z, sol.nu, sol.lam, g, radius=radius)
    mode = Smoothed(radius=radius)
    _, ours = testing.pullback(torchqp.solve_qp, problem, {"z": g}, backward=mode)
    assert testing.relative_error(ours["q"], expected["q"]) <= 1e-7
    flat = reference.smoothed_gradients(problem, sol.z, sol.nu, sol.lam, g)
    size = math.sqrt(float(flat["a"] @ torch.linalg.solve(problem["Q"], flat["a"])))
    mode = Smoothed(radius=radius, metric="Q")
    _, ours = testing.pullback(torchqp.solve_qp, problem, {"z": g}, backward=mode)
    for name in problem:
        assert testing.relative_error(ours[name], flat[name] / (1 + size / radius)) <= 1e-7, name


def test_alpha_adds_the_gradient_of_the_distance_to_the_unconstrained_optimum() -> None:
    """Alpha (z - w)'Q(z - w), w = -Q^-1 q, differentiated through the exact solution map."""
    alpha = 0.3
    problem = testing.make("strictly_convex", 6, 4, seed=6)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 3, names=("z",))
    _, plain = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    mode = Smoothed(alpha=alpha)
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    Q, q = problem["Q"].clone().requires_grad_(), problem["q"].clone().requires_grad_()
    sym = (Q + Q.mT) / 2
    z = reference.solve_qp(**(problem | {"Q": Q, "q": q})).z
    r = z + torch.linalg.solve(sym, q.unsqueeze(-1)).squeeze(-1)
    distance = alpha * (r * testing.times(sym, r)).sum()
    grad_Q, grad_q = torch.autograd.grad(distance, (Q, q))
    assert float(grad_q.abs().max()) > 1e-2
    assert testing.relative_error(ours["q"] - plain["q"], grad_q) <= 1e-6
    assert testing.relative_error(ours["Q"] - plain["Q"], grad_Q) <= 1e-6


def test_exact_equalities_stay_tangent() -> None:
    """smooth_equalities=False keeps A d_z = 0; the default lets go of it."""
    problem = testing.make("strictly_convex", 8, 5, seed=7)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 1, names=("z",))
    mode = Smoothed(smooth_equalities=False)
    sol, kept = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    _, free = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    assert float(testing.times(problem["A"], kept["q"]).abs().max()) <= 1e-9
    a = testing.times(problem["G"].mT, sol.lam.detach())
    assert float((a * kept["q"]).sum(-1).abs().max()) <= 1e-8
    assert float(testing.times(problem["A"], free["q"]).abs().max()) > 1e-3


def test_cotangents_of_the_multipliers_project_onto_the_aggregate() -> None:
    """d_lam = mu_d lam: the gradient is that of the one multiplier, which scales lam."""
    problem = testing.make("strictly_convex", 6, seed=3)
    sol = reference.solve_qp(**problem)
    lam, nu = sol.lam.detach(), sol.nu.detach()
    weights = testing.cotangents(sol, 4, names=("nu", "lam"))
    _, ours = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")

    def aggregated(**p: Tensor) -> object:
        a = testing.times(p["G"].mT, lam) + testing.times(p["A"].mT, nu)
        beta = (p["h"] * lam).sum(-1, keepdim=True) + (p["b"] * nu).sum(-1, keepdim=True)
        return reference.solve_qp(p["Q"], p["q"], A=a.unsqueeze(-2), b=beta)

    slope = (weights["lam"] @ lam + weights["nu"] @ nu).reshape(1)
    expected = testing.finite_differences(aggregated, problem, {"nu": slope})
    for name in problem:
        assert testing.relative_error(ours[name], expected[name]) <= 1e-6, name


def monotone_violations(metric: bool, count: int = 500) -> tuple[int, int]:
    """Small steps on w along the smoothed gradient: how many raise the loss, how many lower it."""
    n, draw = 5, torch.Generator().manual_seed(4)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=D)  # noqa: E731
    root, G = normal(count, n, n), normal(count, 8, n)
    Q = root @ root.mT / n + 0.1 * torch.eye(n, dtype=D) if metric else torch.eye(n, dtype=D)
    h, w, g = torch.rand(count, 8, generator=draw, dtype=D), 3 * normal(count, n), normal(count, n)
    w.requires_grad_()
    q = -testing.times(Q, w)
    z = torchqp.solve_qp(Q, q, G, h, backward="smoothed").z
    (grad_q,) = torch.autograd.grad(z, q, g)
    # The parameter is w and steps are measured by Q: Delta w = -Q^-1 (d loss / d w) = grad_q.
    step = 1e-6 * grad_q
    after = torchqp.solve_qp(Q, -testing.times(Q, w.detach() + step), G, h).z
    change = (g * (after - z.detach())).sum(-1)
    return int((change > 1e-12).sum()), int((change < -1e-9).sum())


@pytest.mark.parametrize("metric", [False, True], ids=["identity", "general"])
def test_a_small_step_never_raises_the_loss(metric: bool) -> None:
    """Theorem 3.12, for Q = I as printed and for any Q with the Q-preconditioned step."""
    raised, lowered = monotone_violations(metric)
    assert raised == 0
    assert lowered >= 100


def test_at_a_vertex_it_is_not_zero() -> None:
    box = {"Q": torch.eye(4, dtype=D), "lb": -torch.ones(4, dtype=D), "ub": torch.ones(4, dtype=D)}
    w = torch.tensor([2.0, 3.0, -4.0, 5.0], dtype=D, requires_grad=True)
    g = torch.tensor([1.0, -1.0, 1.0, 0.5], dtype=D)
    exact, smoothed = (
        torch.autograd.grad(torchqp.solve_qp(q=-w, **box, backward=mode).z, w, g)[0]
        for mode in ("kkt", "smoothed")
    )
    assert float(exact.abs().max()) <= 1e-12
    assert float(smoothed.norm()) > 0.5


def test_zero_cotangent_gives_exactly_zero_without_alpha() -> None:
    problem = testing.make("two_sided", 6, 3, seed=3)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    weights = {k: torch.zeros_like(w) for k, w in weights.items()}
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    for name, grad in grads.items():
        assert float(grad.abs().max()) == 0.0, name


def test_shared_arguments_receive_the_sum() -> None:
    one = testing.make("strictly_convex", 6, seed=5)
    q = one["q"] + torch.randn(4, 6, dtype=D)
    weights = testing.cotangents(torchqp.solve_qp(**(one | {"q": q})), seed=1)
    _, shared = testing.pullback(torchqp.solve_qp, one | {"q": q}, weights, backward="smoothed")
    spread = {k: v.expand(4, *v.shape) for k, v in one.items()} | {"q": q}
    _, apart = testing.pullback(torchqp.solve_qp, spread, weights, backward="smoothed")
    for name in one:
        expected = apart[name] if name == "q" else apart[name].sum(0)
        assert testing.relative_error(shared[name], expected) <= 1e-10, name


def test_linear_programs_have_finite_gradients() -> None:
    problem = testing.make("linear", 8, 5, seed=2)
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0, names=("z",))
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward="smoothed")
    for name, grad in grads.items():
        assert bool(grad.isfinite().all()), name
    assert float(grads["q"].abs().max()) > 0.0


def test_higher_derivatives_are_refused() -> None:
    problem, wanted = testing.leaves(testing.make("optnet", 4, seed=1))
    z = torchqp.solve_qp(**problem, backward="smoothed").z
    (grad,) = torch.autograd.grad(z.sum(), wanted["q"], create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), wanted["q"])
