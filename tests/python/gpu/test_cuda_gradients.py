"""Gradients on the GPU are the CPU's: bit by bit where the kernels write them, else to rounding."""

import pytest
import torch
from parity import MODES, ROUNDING, assert_equal, batched, pullbacks
from small_problems import NAMES, SHARP, everything, solve, tensors

import torchqp
from torchqp import LPGD, Smoothed, testing

pytestmark = [
    pytest.mark.gpu,
    # torch 2.11 warns about its own use of torch.jit in forward mode.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

# Where the smoothed mode's products are well conditioned.
GENTLE = ("strictly_convex", "box", "simplex", "equality_only", "unconstrained", "two_sided")


@pytest.mark.parametrize("backward", ["kkt", "lpgd"])
@pytest.mark.parametrize("family", testing.FAMILIES)
def test_gradients_of_every_parameter_of_every_family_are_the_cpus(family, backward, dtype, device):
    for n in (3, 13, 50):
        problem = batched(testing.make(family, n, 6, seed=n, dtype=dtype), 6)
        (_, here), (solution, there) = pullbacks(problem, device, backward=backward)
        assert solution.status.tolist() == [0] * 6
        # LPGD moves the twins of a row apart, which leaves no feasible point: zeros are right.
        twins = family == "degenerate" and backward == "lpgd"
        assert twins or any(bool(grad.any()) for grad in there.values())
        assert_equal(here, there, here)


@pytest.mark.parametrize("family", GENTLE)
def test_smoothed_gradients_are_the_cpus_to_rounding(family, dtype, device):
    for n in (3, 13, 50):
        problem = batched(testing.make(family, n, 6, seed=n, dtype=dtype), 6)
        (_, here), (_, there) = pullbacks(problem, device, backward="smoothed")
        assert_equal(here, there, here, ROUNDING[dtype])


@pytest.mark.parametrize(
    "backward",
    [
        Smoothed(alpha=0.3),
        Smoothed(radius=2.0),
        Smoothed(radius=2.0, metric="Q", smooth_equalities=False),
        LPGD(tau=0.05, tau_mode="absolute", side="lower"),
        LPGD(tau=0.2, side="upper", rho=0.1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("diagonal", [False, True])
def test_options_of_the_modes(backward, diagonal, device):
    problem = everything(batch=(4,), shared=(), diagonal=diagonal)
    (_, here), (_, there) = pullbacks(problem, device, backward=backward, settings=SHARP)
    assert_equal(here, there, here, ROUNDING[torch.float64])


@pytest.mark.parametrize("backward", MODES)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("shared", [("G", "lb"), ("Q", "A", "b"), ("Q", "G", "A")])
def test_gradients_of_shared_parameters_are_sums(backward, diagonal, shared, dtype, device):
    problem = testing.cast(everything(batch=(6,), shared=shared, diagonal=diagonal), dtype)
    (_, here), (_, there) = pullbacks(problem, device, backward=backward)
    # Sums over the batch, in each device's order.
    assert_equal(here, there, here, ROUNDING[dtype])
    if backward == "kkt":
        alone = [name for name in here if name not in shared]
        assert_equal(here, there, alone)


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_slack_carries_gradients(diagonal, device):
    problem = everything(batch=(4,), shared=(), diagonal=diagonal)
    weights = {"s": torch.randn(4, 3, dtype=torch.float64), "z": torch.ones(4, 7).double()}
    _, here = testing.pullback(torchqp.solve_qp, problem, weights)
    moved = {k: w.to(device) for k, w in weights.items()}
    _, there = testing.pullback(torchqp.solve_qp, testing.cast(problem, device), moved)
    assert_equal(here, there, here, ROUNDING[torch.float64])


def second_derivatives(args, diagonal):
    solution = solve(*args, diagonal=diagonal)
    loss = sum(getattr(solution, name).square().sum() for name in ("z", "nu", "lam", "lam_ub", "s"))
    first = torch.autograd.grad(loss, args, create_graph=True)
    curvature = sum(grad.square().sum() for grad in first)
    return dict(zip(NAMES, torch.autograd.grad(curvature, args), strict=True))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("shared", [(), ("G", "Q", "lb")])
def test_double_backward(diagonal, shared, device):
    args = tensors(everything(shared=shared, diagonal=diagonal))
    moved = tuple(a.detach().to(device).requires_grad_() for a in args)
    here, there = second_derivatives(args, diagonal), second_derivatives(moved, diagonal)
    assert_equal(here, there, NAMES, ROUNDING[torch.float64])


@pytest.mark.parametrize("diagonal", [False, True])
def test_forward_mode_and_the_transforms_of_torch_func(diagonal, device):
    args = tuple(a.detach() for a in tensors(everything(diagonal=diagonal, shared=("G", "lb"))))
    torch.manual_seed(7)
    tangents = tuple(torch.randn_like(a) for a in args)

    def function(*args):
        solution = solve(*args, diagonal=diagonal)
        return solution.z, solution.nu, solution.lam, solution.lam_lb, solution.s

    def derivatives(*where):
        data, directions = (tuple(t.to(*where) for t in ts) for ts in (args, tangents))
        value, tangent = torch.func.jvp(function, data, directions)
        jacobian = torch.func.jacrev(lambda q: function(data[0], q, *data[2:])[0])(data[1])
        forward = torch.func.jacfwd(lambda q: function(data[0], q, *data[2:])[0])(data[1])
        names = ("z", "nu", "lam", "lam_lb", "s")
        result = dict(zip(names, value, strict=True))
        result |= {f"d {name}": t for name, t in zip(names, tangent, strict=True)}
        return result | {"jacrev": jacobian, "jacfwd": forward}

    here, there = derivatives("cpu"), derivatives(device)
    assert_equal(here, there, here, ROUNDING[torch.float64])


@pytest.mark.parametrize("backward", MODES)
def test_gradients_under_vmap_are_those_of_each_member(backward, device):
    problem = testing.cast(everything(batch=(3,), shared=()), device)
    args = tensors(problem)

    def loss(*args):
        solution = solve(*args, backward=backward)
        return solution.z.square().sum() + solution.lam.sum()

    mapped = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(9))))(
        *(a.detach() for a in args)
    )
    plain = torch.autograd.grad(loss(*args), args)
    for name, one, other in zip(NAMES, mapped, plain, strict=True):
        assert testing.relative_error(one, other) <= 1e-10, name


@pytest.mark.parametrize("backward", MODES)
def test_layers_move_with_their_parameters(backward, device):
    torch.manual_seed(0)
    layer = torchqp.OptNet(n=6, n_ineq=4, n_eq=1, backward=backward, dtype=torch.float64)
    simplex = torchqp.Projection(A=torch.ones(1, 6).double(), b=1.0, lb=0.0, backward=backward)
    q = torch.randn(5, 6, dtype=torch.float64)

    def run():
        where = layer.L.device
        layer.zero_grad()
        z = simplex(layer(q.to(where)))
        (z * torch.arange(6, device=where)).sum().backward()
        return {"z": z} | {name: p.grad.clone() for name, p in layer.named_parameters()}

    here = run()
    layer.to(device)
    simplex.to(device)
    there = run()
    assert there["z"].device.type == device.type
    assert_equal(here, there, here, 1e-6)


@pytest.mark.parametrize("backward", MODES)
def test_twenty_backward_passes_give_the_same_bits(backward, dtype, device):
    problem = testing.cast(testing.make("two_sided", 20, 32, seed=5, dtype=dtype), device)
    _, first = testing.pullback(torchqp.solve_qp, problem, backward=backward)
    for _ in range(20):
        _, again = testing.pullback(torchqp.solve_qp, problem, backward=backward)
        for name, grad in first.items():
            assert testing.same_bits(grad, again[name]), name


def test_qpths_call(device):
    from torchqp.compat.qpth import QPFunction

    problem = testing.make("optnet", 8, 4, seed=1)
    empty = torch.Tensor()

    def run(where):
        data = {k: t.to(where).requires_grad_() for k, t in problem.items()}
        z = QPFunction()(data["Q"], data["q"], data["G"], data["h"], empty, empty)
        grads = torch.autograd.grad(z.square().sum(), list(data.values()))
        return {"z": z} | dict(zip(data, grads, strict=True))

    here, there = run("cpu"), run(device)
    assert_equal(here, there, here)
    with pytest.raises(RuntimeError, match="negative eigenvalue"):
        Q = -torch.eye(3, device=device)
        one = torch.ones(3, device=device)
        QPFunction()(Q, one, torch.eye(3, device=device), one, empty, empty)
