"""The layers: what they compute, what they store, and qpth's call."""

import copy
import io
import pickle

import pytest
import torch
from small_problems import NAMES, everything, mixed_outcomes, tensors

import torchqp
from torchqp import KKT, LPGD, Diag, OptNet, Projection, QPLayer, Settings, Smoothed, Solution
from torchqp.compat.qpth import QPFunction, QPSolvers

DOUBLE = {"dtype": torch.float64}


def layers():
    A = torch.ones(1, 4, **DOUBLE)
    return [
        QPLayer(),
        QPLayer(LPGD(tau=0.3), Settings(eps_abs=1e-9), "best", return_solution=True),
        Projection(A=A, b=1.0, lb=0.0, backward=Smoothed(alpha=0.1)),
        Projection(G=torch.nn.Parameter(A), h=A[0, :1]),
        OptNet(4, 3, 2, **DOUBLE),
        OptNet(4, 0),
        OptNet(4, 3, backward="smoothed"),
    ]


@pytest.mark.parametrize("index", range(7))
def test_layers_survive_copies_and_pickles(index):
    layer = layers()[index]
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        for one, other in zip(twin.state_dict().items(), layer.state_dict().items(), strict=True):
            assert one[0] == other[0] and torch.equal(one[1], other[1])
        twin.load_state_dict(torch.load(file, weights_only=True))
        file.seek(0)
        if not isinstance(layer, QPLayer):
            w = torch.linspace(-1, 1, 4, dtype=next(iter(layer.state_dict().values())).dtype)
            assert torch.equal(twin(w), layer(w))


def test_representations():
    assert repr(QPLayer()) == "QPLayer(backward=KKT())"
    assert repr(layers()[1]) == (
        "QPLayer(backward=LPGD(tau=0.3, tau_mode='relative', side='average', rho=0.0), "
        "settings=Settings(eps_abs=1e-09, eps_rel=None, max_iter=None, polish=True), "
        "on_failure='best', return_solution=True)"
    )
    assert repr(Projection(A=torch.ones(1, 4), b=1.0, lb=0)) == (
        "Projection(A=[1, 4], b=1.0, lb=0.0, backward=KKT())"
    )
    assert repr(OptNet(4, 3, 2)) == "OptNet(n=4, n_ineq=3, n_eq=2, backward=KKT())"


def test_qplayer_is_solve_qp():
    problem = everything()
    expected = torchqp.solve_qp(**problem, backward="lpgd")
    assert torch.equal(QPLayer("lpgd")(**problem), expected.z)
    solution = QPLayer("lpgd", return_solution=True)(**problem)
    assert isinstance(solution, Solution) and torch.equal(solution.lam, expected.lam)
    warm = QPLayer()(**problem, warm_start=expected)
    torch.testing.assert_close(warm, expected.z, rtol=1e-7, atol=1e-7)
    assert QPLayer("kkt").backward == KKT() and not list(QPLayer().parameters())


@pytest.mark.parametrize("mode", ["kkt", Smoothed(alpha=0.2), Smoothed(radius=2.0), LPGD(tau=0.5)])
def test_shared_parameters_get_the_sum_of_the_expanded_gradients(mode):
    problem = everything(shared=("Q", "G", "A", "b", "lb", "h"))
    args = tensors(problem)
    wide = [
        a.detach().expand(2, *a.shape).clone()
        if n in ("Q", "G", "A", "b", "lb", "h")
        else a.detach().clone()
        for n, a in zip(NAMES, args, strict=True)
    ]
    wide = [w.requires_grad_() for w in wide]

    def gradients(args):
        sol = torchqp.solve_qp(**dict(zip(NAMES, args, strict=True)), backward=mode)
        return torch.autograd.grad(
            sol.z.sin().sum() + sol.lam.square().sum() + sol.nu.sum() + sol.lam_lb.sum(), args
        )

    for name, narrow, full in zip(NAMES, gradients(args), gradients(wide), strict=True):
        expected = full.sum(0) if narrow.shape != full.shape else full
        torch.testing.assert_close(
            narrow, expected, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_partly_shared_parameters():
    torch.manual_seed(0)
    root = torch.randn(3, 1, 4, 4, **DOUBLE)
    G = torch.randn(1, 2, 2, 4, **DOUBLE)
    args = {
        "Q": root @ root.mT + torch.eye(4, **DOUBLE),
        "q": torch.randn(3, 2, 4, **DOUBLE),
        "G": G,
        "h": 0.1 * torch.rand(2, 1, 2, **DOUBLE)[..., 0, :],
    }
    args = {name: value.requires_grad_() for name, value in args.items()}
    wide = {
        "Q": args["Q"].expand(3, 2, 4, 4),
        "q": args["q"],
        "G": G.expand(3, 2, 2, 4),
        "h": args["h"].expand(3, 2, 2),
    }
    one, other = (
        torch.autograd.grad(sol.z.sin().sum() + sol.s.square().sum(), list(args.values()))
        for sol in (torchqp.solve_qp(**args), torchqp.solve_qp(**wide))
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert one[2].abs().max() > 1e-3


def test_projection_onto_the_simplex_and_its_buffers():
    layer = Projection(A=torch.ones(1, 3, **DOUBLE), b=torch.ones(1, **DOUBLE), lb=0.0)
    w = torch.tensor([[0.9, 0.5, -3.0], [0.2, 0.3, 0.5]], **DOUBLE)
    torch.testing.assert_close(
        layer(w), torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.3, 0.5]], **DOUBLE), rtol=1e-7, atol=1e-7
    )
    assert sorted(layer.state_dict()) == ["A", "b"] and not list(layer.parameters())
    assert layer.float()(w.float()).dtype == torch.float32
    learned = Projection(G=torch.nn.Parameter(torch.ones(1, 3)), h=1.0)
    learned(torch.ones(2, 3)).sum().backward()
    assert learned.G.grad.abs().sum() > 0
    with pytest.raises(TypeError, match=r"A: expected a torch\.Tensor, got float"):
        Projection(A=1.0)
    with pytest.raises(ValueError, match=r"w: expected shape \[\*, n\]"):
        layer(torch.tensor(1.0))


def test_smoothed_projection_is_algorithm_1_of_the_paper():
    torch.manual_seed(0)
    alpha = 0.3
    layer = Projection(A=torch.ones(1, 5, **DOUBLE), b=1.0, lb=0.0, backward=Smoothed(alpha=alpha))
    w = torch.randn(6, 5, **DOUBLE, requires_grad=True)
    v = torch.randn(6, 5, **DOUBLE)
    z = layer(w)
    (grad,) = torch.autograd.grad(z, w, v)
    r = (z - w).detach()
    kept = v - r * (r * v).sum(-1, keepdim=True) / r.square().sum(-1, keepdim=True)
    torch.testing.assert_close(grad, kept - 2 * alpha * r, rtol=1e-6, atol=1e-6)
    exact = Projection(A=torch.ones(1, 5, **DOUBLE), b=1.0, lb=0.0)
    assert not torch.allclose(torch.autograd.grad(exact(w), w, v)[0], grad, atol=1e-3)


@pytest.mark.parametrize("metric", ["euclidean", "Q"])
def test_a_finite_radius_damps_the_smoothed_projection(metric):
    ball = Projection(ub=0.0, backward=Smoothed(radius=2.0, metric=metric))
    plane = Projection(ub=0.0, backward=Smoothed())
    w = torch.tensor([1.0, 2.0, 2.0], **DOUBLE, requires_grad=True)  # 3 away from the set
    v = torch.tensor([1.0, -1.0, 0.5], **DOUBLE)
    (damped,), (full,) = (torch.autograd.grad(layer(w), w, v) for layer in (ball, plane))
    torch.testing.assert_close(damped, full * 2 / (2 + 3), rtol=1e-7, atol=1e-7)


def test_smoothing_of_an_interior_solution_is_exact():
    layer = Projection(ub=5.0, lb=-5.0, backward=Smoothed(alpha=0.7, radius=1.0))
    w = torch.tensor([[1.0, -2.0]], **DOUBLE, requires_grad=True)
    v = torch.tensor([[0.3, 0.4]], **DOUBLE)
    torch.testing.assert_close(torch.autograd.grad(layer(w), w, v)[0], v, rtol=1e-6, atol=1e-6)


def test_equalities_stay_exact_when_asked():
    layer = Projection(
        A=torch.ones(1, 4, **DOUBLE), b=1.0, lb=0.0, backward=Smoothed(smooth_equalities=False)
    )
    w = torch.tensor([[0.9, 0.6, -1.0, -2.0], [3.0, 0.0, 0.1, -0.2]], **DOUBLE, requires_grad=True)
    (grad,) = torch.autograd.grad(
        layer(w), w, torch.tensor([1.0, -2.0, 3.0, 0.5], **DOUBLE).expand(2, 4)
    )
    assert grad.sum(-1).abs().max() < 1e-7 and grad.abs().max() > 0.1
    full = Projection(A=torch.ones(1, 4, **DOUBLE), b=1.0, lb=0.0, backward=Smoothed())
    (grad,) = torch.autograd.grad(
        full(w), w, torch.tensor([1.0, -2.0, 3.0, 0.5], **DOUBLE).expand(2, 4)
    )
    assert grad.sum(-1).abs().max() > 1e-2


def test_a_singular_matrix_is_smoothed_with_a_small_shift():
    q = torch.tensor([-1.0, 0.5], **DOUBLE, requires_grad=True)
    sol = torchqp.solve_qp(torch.zeros(2, 2, **DOUBLE), q, lb=0.0, ub=1.0, backward="smoothed")
    v = torch.tensor([1.0, 1.0], **DOUBLE)
    (grad,) = torch.autograd.grad(sol.z, q, v)
    a = -q.detach()
    torch.testing.assert_close(grad, -(v - a * (a @ v) / (a @ a)) * 1e6, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("side", ["lower", "upper", "average"])
def test_lpgd_on_a_vertex_is_the_blackbox_difference(side):
    q = torch.tensor([-1.0, 0.5, 0.2], **DOUBLE, requires_grad=True)
    v = torch.tensor([2.0, -1.0, 0.5], **DOUBLE)
    tau = 1.0

    def vertex(q):
        return torchqp.solve_qp(Diag(torch.zeros(3, **DOUBLE)), q, lb=0.0, ub=1.0).z

    z = torchqp.solve_qp(
        Diag(torch.zeros(3, **DOUBLE)), q, lb=0.0, ub=1.0, backward=LPGD(tau, "absolute", side)
    ).z
    (grad,) = torch.autograd.grad(z, q, v)
    above, below, here = vertex(q.detach() + tau * v), vertex(q.detach() - tau * v), z.detach()
    expected = {"lower": above - here, "upper": here - below, "average": (above - below) / 2}[
        side
    ] / tau
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-6)
    assert grad.abs().max() > 0.1


@pytest.mark.parametrize("diagonal", [False, True])
def test_lpgd_is_exact_while_the_active_set_stays(diagonal):
    problem = everything(diagonal=diagonal)
    args = tensors(problem)

    def gradients(mode):
        named = dict(zip(NAMES, args, strict=True))
        named["Q"] = Diag(named["Q"]) if diagonal else named["Q"]
        sol = torchqp.solve_qp(
            **named, backward=mode, settings=Settings(eps_abs=1e-12, eps_rel=1e-12)
        )
        return torch.autograd.grad(
            sol.z.sin().sum()
            + sol.lam.sin().sum()
            + sol.nu.sum()
            + sol.lam_lb.square().sum()
            + sol.lam_ub.sum(),
            args,
        )

    exact = gradients("kkt")
    average, lower = gradients(LPGD(1e-3, "absolute")), gradients(LPGD(1e-3, "absolute", "lower"))
    for name, a, b, c in zip(NAMES, exact, average, lower, strict=True):
        torch.testing.assert_close(
            b, a, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
        if name not in ("Q", "A", "G"):
            torch.testing.assert_close(c, a, rtol=1e-6, atol=1e-6)
        assert a.abs().max() > 1e-3


def test_lpgd_with_rho_tends_to_the_regularised_derivative():
    args = tensors(everything())
    q = args[1]
    rho = 0.5
    regular = [args[0].detach() + rho * torch.eye(7, **DOUBLE), q, *(a.detach() for a in args[2:])]
    settings = Settings(eps_abs=1e-12, eps_rel=1e-12)
    sol = torchqp.solve_qp(
        **dict(zip(NAMES, args, strict=True)),
        backward=LPGD(1e-4, "absolute", rho=rho),
        settings=settings,
    )
    (grad,) = torch.autograd.grad(sol.z.sin().sum(), q)
    cotangent = sol.z.detach().cos()
    shifted = dict(zip(NAMES, regular, strict=True))
    shifted["q"] = (q.detach() - rho * sol.z.detach()).requires_grad_()
    (expected,) = torch.autograd.grad(
        torchqp.solve_qp(**shifted, settings=settings).z, shifted["q"], cotangent
    )
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5)
    (plain,) = torch.autograd.grad(
        torchqp.solve_qp(**dict(zip(NAMES, args, strict=True))).z.sin().sum(), q
    )
    assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.parametrize("side", ["lower", "upper", "average"])
def test_lpgd_steps_do_not_see_the_scale_of_the_loss(side):
    q = torch.tensor([[-1.0, 0.5, 0.2], [1.0, 1.0, 1.0]], **DOUBLE, requires_grad=True)
    z = torchqp.solve_qp(torch.eye(3, **DOUBLE), q, lb=0.0, ub=0.7, backward=LPGD(0.5, side=side)).z
    v = torch.tensor([2.0, -1.0, -0.1], **DOUBLE).expand(2, 3)
    (one,), (small,) = (
        torch.autograd.grad(z, q, v * scale, retain_graph=True) for scale in (1.0, 1e-9)
    )
    torch.testing.assert_close(one, small * 1e9, rtol=1e-6, atol=1e-6)
    (zero,) = torch.autograd.grad(z, q, v * torch.tensor([[1.0], [0.0]], **DOUBLE))
    # Pushed by the loss the solution leaves this vertex, pulled the other way it stays.
    assert (zero[0].abs().max() > 0) == (side != "upper")
    assert zero[1].tolist() == [0.0, 0.0, 0.0]


def test_lpgd_falls_back_to_the_side_that_works():
    # Moving b by +t nu's cotangent leaves the box on one side only.
    q = torch.tensor([0.3, 0.1], **DOUBLE, requires_grad=True)
    A, b = torch.ones(1, 2, **DOUBLE), torch.tensor([1.9], **DOUBLE, requires_grad=True)
    results = {}
    for side in ("average", "lower", "upper"):
        sol = torchqp.solve_qp(
            torch.eye(2, **DOUBLE),
            q,
            None,
            None,
            A,
            b,
            0.0,
            1.0,
            backward=LPGD(0.5, "absolute", side),
        )
        results[side] = torch.autograd.grad(sol.nu.sum(), b)[0]
    # t = +0.5 lowers b to 1.4; t = -0.5 asks for 2.4 in a box that holds 2.
    assert results["upper"].tolist() == [0.0]
    torch.testing.assert_close(results["average"], results["lower"], rtol=1e-8, atol=1e-8)
    assert results["lower"].abs().item() > 1e-3


def test_optnet_is_feasible_and_learns():
    torch.manual_seed(0)
    layer = OptNet(5, 4, 2, **DOUBLE)
    q = torch.randn(3, 5, **DOUBLE)
    z = layer(q)
    problem = layer.problem()
    assert (z @ problem["G"].mT <= problem["h"] + 1e-6).all()
    torch.testing.assert_close(z @ problem["A"].mT, problem["b"].expand(3, 2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(problem["h"], layer.G @ layer.z0 + layer.s0)
    torch.testing.assert_close(
        problem["Q"], layer.L.tril() @ layer.L.tril().mT + 1e-4 * torch.eye(5, **DOUBLE)
    )
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    target = 0.2 * torch.randn(3, 5, **DOUBLE)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append((layer(q) - target).square().mean())
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    assert sorted(OptNet(5, 4).state_dict()) == ["G", "L", "s0", "z0"]
    with pytest.raises(ValueError, match="n_ineq: expected at least 0, got -1"):
        OptNet(3, -1)


def test_qpth_call():
    problem = mixed_outcomes(batch_of_failures=False)
    e = torch.empty(0, **DOUBLE)
    call = QPFunction(
        eps=1e-12,
        verbose=0,
        notImprovedLim=3,
        maxIter=20,
        solver=QPSolvers.PDIPM_BATCHED,
        check_Q_spd=True,
    )
    Q, q, G, h = (problem[name] for name in ("Q", "q", "G", "h"))
    A, b = torch.ones(1, 4, **DOUBLE), torch.zeros(1, **DOUBLE)
    torch.testing.assert_close(
        call(Q, q, G, h, A, b), torchqp.solve_qp(Q, q, G, h, A, b).z, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        call(Q, q, G, h, e, e), torchqp.solve_qp(Q, q, G, h).z, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        call(Q, q, e, e, A, b), torchqp.solve_qp(Q, q, A=A, b=b).z, rtol=1e-6, atol=1e-6
    )
    assert QPFunction()(Q, q[0], G, h, torch.Tensor(), torch.Tensor()).shape == (1, 4)
    with pytest.raises(RuntimeError, match="positive semidefinite"):
        QPFunction()(-Q, q, G, h, e, e)
    assert QPFunction(check_Q_spd=False)(-Q, q, G, h, e, e).shape == (4, 4)
    with pytest.raises(ValueError, match="reduce: expected 'sum' or 'mean', got 'max'"):
        QPFunction(reduce="max")


def test_qpth_reductions():
    problem = mixed_outcomes(batch_of_failures=False)
    e = torch.empty(0, **DOUBLE)
    leaves = [problem[name].clone().requires_grad_() for name in ("Q", "q", "G", "h")]
    total, mean = (
        torch.autograd.grad(QPFunction(reduce=kind)(*leaves, e, e).sin().sum(), leaves)
        for kind in ("sum", "mean")
    )
    for i, name in enumerate(("Q", "q", "G", "h")):
        factor = 1 if name == "q" else 4
        torch.testing.assert_close(total[i], factor * mean[i])
        assert total[i].abs().max() > 0
