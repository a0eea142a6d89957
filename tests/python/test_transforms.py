"""What torch can do to a solve: derivatives of every order, vmap, compile, export, autocast."""

import pytest
import torch
import torch._dynamo.testing
from small_problems import NAMES, SHARP, everything, mixed_outcomes, solve, tensors
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import torchqp

# torch 2.11 warns about its own use of torch.jit in forward mode and in inductor.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SINGLE = dict(batch=(), shared=())
FLOATS = ("z", "nu", "lam", "lam_lb", "lam_ub", "s")
ONCE = ("smoothed", "lpgd")


def floats(solution):
    return tuple(getattr(solution, name) for name in FLOATS)


def test_the_small_problem_has_both_sides_of_everything_active():
    args = everything()
    sol = torchqp.solve_qp(**args, settings=SHARP)
    assert sol.status.tolist() == [0, 0]
    assert (
        (sol.lam[:, 0] > 0.1).all() and (sol.lam[:, 1] < -0.1).all() and (sol.lam[:, 2] == 0).all()
    )
    assert (
        (sol.lam_lb[:, 0] > 0.1).all()
        and (sol.lam_ub[:, 1] > 0.1).all()
        and (sol.nu.abs() > 1e-3).all()
    )


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("shared", [(), ("G", "lb"), ("Q", "A", "b")])
def test_gradcheck_of_all_outputs_in_all_inputs(diagonal, shared):
    args = tensors(everything(shared=shared, diagonal=diagonal))
    assert gradcheck(
        lambda *args: floats(solve(*args, diagonal=diagonal)),
        args,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        fast_mode=False,
        atol=1e-5,
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_gradgradcheck(diagonal):
    args = tensors(everything(diagonal=diagonal, shared=("G", "Q", "lb")))
    assert gradgradcheck(
        lambda *args: floats(solve(*args, diagonal=diagonal))[:4], args, fast_mode=True, atol=1e-5
    )


def kkt_arguments(diagonal=False):
    """Differentiable arguments of kkt_solve on a solved problem, and a function of them."""
    args = tensors(everything(diagonal=diagonal, shared=("G", "lb")))
    sol = solve(*(a.detach() for a in args), diagonal=diagonal)
    named = dict(zip(NAMES, args, strict=True))
    sides = torch.cat([sol.lam.sign(), (sol.lam_ub - sol.lam_lb).sign()], -1).to(torch.int8)
    torch.manual_seed(1)
    right = [torch.randn_like(t).requires_grad_() for t in (sol.z, sol.nu, sol.lam, sol.lam_ub)]

    def function(Q, G, A, *g):
        from torchqp._ops import kkt_solve

        symmetric = Q if diagonal else (Q + Q.mT) / 2
        return kkt_solve(symmetric, G, A, sides, sol.status, None, *g, diagonal)[:4]

    return function, (named["Q"], named["G"], named["A"], *right)


@pytest.mark.parametrize("diagonal", [False, True])
def test_kkt_solve_is_differentiable_to_second_order(diagonal):
    function, args = kkt_arguments(diagonal)
    assert gradcheck(
        function, args, check_forward_ad=True, check_batched_grad=True, fast_mode=False
    )
    assert gradgradcheck(function, args, fast_mode=True)


def test_vmap_equals_the_batch():
    args = [a.detach() for a in tensors(everything(shared=("G", "Q", "lb")))]
    in_dims = tuple(
        0 if a.shape[0] == 2 and n not in ("G", "Q", "lb") else None
        for a, n in zip(args, NAMES, strict=True)
    )
    mapped = torch.func.vmap(solve, in_dims=in_dims)(*args)
    for one, other in zip(mapped, solve(*args), strict=True):
        assert torch.equal(one, other)


def test_vmap_over_a_last_dimension_and_beside_a_batch():
    problem = everything(shared=())
    q = problem["q"] + 0.01 * torch.arange(3, dtype=torch.float64)[:, None, None]
    problem.pop("q")
    mapped = torch.func.vmap(lambda q: torchqp.solve_qp(q=q, **problem).z, in_dims=2)(
        q.permute(1, 2, 0)
    )
    assert torch.equal(mapped, torchqp.solve_qp(q=q, **problem).z)


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_gradient_under_vmap_is_the_gradient_of_each_member(mode):
    args = tensors(everything(shared=()))
    weights = torch.linspace(-1, 1, 7, dtype=torch.float64)

    def loss(*args):
        sol = solve(*args, backward=mode)
        return (sol.z * weights).sum() + sol.lam.square().sum() + sol.nu.sum() + sol.lam_ub.sum()

    mapped = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(9))))(
        *(a.detach() for a in args)
    )
    for one, other in zip(mapped, torch.autograd.grad(loss(*args), args), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
@pytest.mark.parametrize("shared", [(), ("Q", "G", "lb", "b")])
def test_many_cotangents_at_once_are_those_one_by_one(mode, shared):
    args = tensors(everything(shared=shared))
    out = [t for t in solve(*args, backward=mode)[:6]]
    cotangents = [torch.stack([t.sin(), t.cos()]) for t in (t.detach() for t in out)]
    together = torch.autograd.grad(out, args, cotangents, is_grads_batched=True, retain_graph=True)
    for i in range(2):
        one = torch.autograd.grad(out, args, [c[i] for c in cotangents], retain_graph=True)
        for name, whole, part in zip(NAMES, together, one, strict=True):
            torch.testing.assert_close(whole[i], part, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("shared", [(), ("Q", "G", "lb", "b")])
def test_the_eager_gradient_is_the_one_of_torch_func(shared, create_graph):
    """One is written in C++, the other in Python."""
    args = tensors(everything(shared=shared))

    def loss(*args):
        return sum(t.sin().sum() for t in solve(*args)[:6])

    out = loss(*args)
    assert "ExactSolve" in solve(*args).z.grad_fn.name()
    eager = torch.autograd.grad(out, args, create_graph=create_graph)
    other = torch.func.grad(loss, argnums=tuple(range(9)))(*(a.detach() for a in args))
    for name, one, two in zip(NAMES, eager, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11, msg=name)


def test_vmapped_shared_parameter_gets_the_sum():
    problem = everything(shared=("G", "Q", "lb", "ub", "h", "h_lower", "A", "b"))
    rest = {k: v for k, v in problem.items() if k not in ("q", "G", "A", "b")}
    rest["ub"] = rest["ub"] + 1

    def loss(G, q):
        return torchqp.solve_qp(G=G, q=q, **rest).z.square().sum()

    mapped = torch.func.grad(
        lambda G: torch.func.vmap(loss, in_dims=(None, 0))(G, problem["q"]).sum()
    )(problem["G"])
    direct = torch.func.grad(lambda G: loss(G, problem["q"]))(problem["G"])
    torch.testing.assert_close(mapped, direct)
    assert direct.abs().max() > 1e-3


def test_jacobians_forward_and_reverse_agree_with_differences():
    args = tuple(a.detach() for a in tensors(everything(**SINGLE)))

    def minimiser(q):
        return solve(args[0], q, *args[2:]).z

    reverse, forward = torch.func.jacrev(minimiser)(args[1]), torch.func.jacfwd(minimiser)(args[1])
    step = 1e-5 * torch.eye(7, dtype=torch.float64)
    q = args[1]
    differences = torch.stack([(minimiser(q + e) - minimiser(q - e)) / 2e-5 for e in step], -1)
    torch.testing.assert_close(reverse, forward, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(reverse, differences, rtol=1e-6, atol=1e-6)
    assert reverse.abs().max() > 1e-2


def test_second_derivatives_of_every_nesting_agree():
    args = tuple(a.detach() for a in tensors(everything(**SINGLE)))

    def loss(G):
        return solve(*args[:2], G, *args[3:]).z.sin().sum()

    hessian = torch.func.hessian(loss)(args[2])
    for other in (
        torch.func.jacrev(torch.func.jacrev(loss)),
        torch.func.jacfwd(torch.func.jacfwd(loss)),
        torch.func.jacrev(torch.func.jacfwd(loss)),
    ):
        torch.testing.assert_close(other(args[2]), hessian, rtol=1e-8, atol=1e-8)
    classic = torch.autograd.functional.hessian(loss, args[2])
    torch.testing.assert_close(classic, hessian, rtol=1e-8, atol=1e-8)
    assert hessian.abs().max() > 1e-2


def test_forward_and_reverse_mix_outside_torch_func():
    args = tuple(a.detach() for a in tensors(everything(**SINGLE)))

    def loss(h):
        return solve(*args[:3], h, *args[4:]).z.sin().sum()

    hessian = torch.func.hessian(loss)(args[3])
    direction = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    with forward_ad.dual_level():
        h = args[3].clone().requires_grad_()
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(h, direction))).tangent
        (reverse_over_forward,) = torch.autograd.grad(tangent, h)
        h = args[3].clone().requires_grad_()
        dual = forward_ad.make_dual(h, direction)
        (grad,) = torch.autograd.grad(loss(dual), dual, create_graph=True)
        forward_over_reverse = forward_ad.unpack_dual(grad).tangent
    torch.testing.assert_close(reverse_over_forward, hessian @ direction, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(forward_over_reverse, hessian @ direction, rtol=1e-8, atol=1e-8)


def test_vmap_of_jacobians():
    args = [a.detach() for a in tensors(everything(shared=()))]
    both = [
        torch.func.vmap(kind(lambda *a: solve(*a).z, argnums=3))(*args)
        for kind in (torch.func.jacrev, torch.func.jacfwd)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-9, atol=1e-9)
    assert both[0].shape == (2, 7, 3) and both[0].abs().max() > 1e-2


def compiled(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_gives_the_same_solution_and_gradients(mode, dynamic):
    args = tensors(everything())
    layer = torchqp.QPLayer(backward=mode, settings=SHARP, return_solution=True)

    def loss(*args):
        sol = layer(**dict(zip(NAMES, args, strict=True)))
        return sum(t.square().sum() for t in floats(sol))

    graph = compiled(loss, dynamic=dynamic)
    torch.testing.assert_close(graph(*args), loss(*args), rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(graph(*args), args), torch.autograd.grad(loss(*args), args), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("transform", ["jvp", "jacfwd", "grad", "jacrev"])
def test_derivatives_taken_inside_compile_are_errors_not_numbers(transform):
    def minimiser(q):
        return torchqp.solve_qp(torch.eye(2, dtype=q.dtype), q, lb=0.0).z

    def function(q):
        if transform == "jvp":
            return torch.func.jvp(minimiser, (q,), (torch.ones_like(q),))[1]
        if transform == "grad":
            return torch.func.grad(lambda q: minimiser(q).sum())(q)
        return getattr(torch.func, transform)(minimiser)(q)

    q = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert function(q).abs().sum() == pytest.approx(1.0)
    message = "drop the tangents" if transform in ("jvp", "jacfwd") else "setup_context"
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match=message):
        compiled(function)(q)


def test_compile_of_everything_that_layers_do():
    problem = mixed_outcomes(batch_of_failures=False)
    projection = torchqp.Projection(
        A=problem["A"], b=0.5, lb=-1.0, backward=torchqp.Smoothed(alpha=0.1, radius=2.0)
    )
    net = torchqp.OptNet(4, 3, 1, dtype=torch.float64, backward=torchqp.LPGD(side="lower", rho=0.1))

    def function(q):
        return torchqp.solve_qp(
            torchqp.Diag(q.detach().abs() + 1), projection(q) + net(q), lb=0, ub=1.0
        ).z

    q = problem["q"].requires_grad_()
    graph = compiled(function)
    torch.testing.assert_close(graph(q), function(q), rtol=1e-12, atol=1e-12)
    one, other = (
        torch.autograd.grad(f(q).sin().sum(), [q, *net.parameters()]) for f in (graph, function)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_compiled_once_for_all_batch_sizes():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(
        lambda q: torchqp.solve_qp(torch.eye(3).double(), q, lb=0.0).z,
        fullgraph=True,
        backend=counter,
        dynamic=True,
    )
    counts = []
    for batch in (2, 3, 5):
        q = torch.linspace(-1, 1, 3 * batch, dtype=torch.float64).reshape(batch, 3)
        torch.testing.assert_close(function(q), (-q).clamp(min=0.0), rtol=1e-8, atol=1e-8)
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1


def test_compile_of_vmap():
    args = [a.detach() for a in tensors(everything(shared=()))]
    graph = compiled(lambda *args: torch.func.vmap(lambda *a: solve(*a).z)(*args))
    assert torch.equal(graph(*args), solve(*args).z)


@pytest.mark.slow
def test_inductor_backend_compiles_forward_and_backward():
    torch._dynamo.reset()
    q = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    function = torch.compile(
        lambda q: torchqp.solve_qp(torch.eye(2).double(), q, lb=0.0).z, fullgraph=True
    )
    z = function(q)
    torch.testing.assert_close(z, (-q).clamp(min=0.0), rtol=1e-8, atol=1e-8)
    (grad,) = torch.autograd.grad(z.sum(), q)
    torch.testing.assert_close(grad, -(q < 0).double(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_holds_one_operator(dynamic):
    class Module(torch.nn.Module):
        def forward(self, Q, q):
            return torchqp.solve_qp(Q, q, lb=0.0).z

    Q, q = torch.eye(3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    shapes = {"Q": None, "q": {0: torch.export.Dim("batch")}} if dynamic else None
    program = torch.export.export(Module(), (Q, q), dynamic_shapes=shapes)
    found = [n for n in program.graph.nodes if n.target is torch.ops.torchqp.solve.default]
    assert len(found) == 1
    if dynamic:
        q = torch.randn(9, 3, dtype=torch.float64)
    torch.testing.assert_close(program.module()(Q, q), (-q).clamp(min=0.0), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mode", ONCE)
def test_modes_without_second_derivative_refuse_it(mode):
    args = tensors(everything(**SINGLE))

    def loss(q):
        return solve(args[0], q, *args[2:], backward=mode).z.square().sum()

    (grad,) = torch.autograd.grad(loss(args[1]), args[1], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(grad.sum() + args[1].sum(), args[1])
    q = args[1].detach()
    for function in (
        torch.func.jacrev(torch.func.grad(loss)),
        torch.func.jacrev(torch.func.jacrev(loss)),
        torch.func.grad(lambda q: torch.func.grad(loss)(q).sum() + q.sum()),
    ):
        with pytest.raises(RuntimeError, match="second derivative"):
            function(q)
    for function in (
        torch.func.jacfwd(loss),
        torch.func.hessian(loss),
        torch.func.jacfwd(torch.func.grad(loss)),
    ):
        with pytest.raises(RuntimeError, match="forward mode"):
            function(q)
    assert torch.isfinite(torch.func.grad(loss)(q)).all()


@pytest.mark.parametrize("mode", ONCE)
def test_second_derivatives_through_the_cotangent_are_refused_too(mode):
    args = tensors(everything(**SINGLE))
    cotangent = torch.ones(7, dtype=torch.float64, requires_grad=True)
    z = solve(*args, backward=mode).z
    (grad,) = torch.autograd.grad(z, args[1], cotangent, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(grad.sum(), cotangent)


@pytest.mark.parametrize("mode", ["kkt", *ONCE])
def test_compiled_double_backward_is_an_error_not_a_number(mode):
    args = tensors(everything(**SINGLE))
    graph = compiled(
        lambda q: (
            solve(args[0].detach(), q, *(a.detach() for a in args[2:]), backward=mode).z.sin().sum()
        )
    )
    (grad,) = torch.autograd.grad(graph(args[1]), args[1], create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"double backward|second derivative|does not require grad"
    ):
        torch.autograd.grad(grad.sum(), args[1])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["kkt", "smoothed", "lpgd"])
def test_autocast_solves_and_differentiates_in_float32(half, mode):
    problem = everything(shared=())
    args = [t.detach().float().requires_grad_() for t in tensors(problem)]

    def run():
        return torchqp.solve_qp(**dict(zip(NAMES, args, strict=True)), backward=mode)

    expected = run()
    grads = torch.autograd.grad(expected.z.sum() + expected.s.sum(), args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sol = run()
        inside = torch.autograd.grad(run().z.sum(), args)
        halves = torchqp.solve_qp(
            torch.eye(2, dtype=half), torch.tensor([1.0, -0.5], dtype=half), lb=0.0
        )
        doubles = torchqp.solve_qp(**everything(), backward=mode)
    assert halves.z.dtype == torch.float32 and doubles.z.dtype == torch.float64
    assert halves.z.tolist() == pytest.approx([0.0, 0.5], abs=1e-3)
    for one, other in zip(sol, expected, strict=True):
        assert torch.equal(one, other)
    outside = torch.autograd.grad(sol.z.sum() + sol.s.sum(), args)
    for one, other in zip(
        (*outside, *inside), (*grads, *torch.autograd.grad(run().z.sum(), args)), strict=True
    ):
        assert torch.equal(one, other)


def test_autocast_reaches_the_operator_called_directly():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        none = [None] * 12
        out = torch.ops.torchqp.solve(
            torch.eye(2).half(),
            torch.ones(2).half(),
            *none,
            False,
            "kkt",
            [],
            1e-4,
            1e-4,
            100,
            True,
            False,
            False,
        )
    assert out[0].dtype == torch.float32


def test_optnet_under_autocast_keeps_its_matrices_in_float32():
    torch.manual_seed(0)
    net, q = torchqp.OptNet(4, 3, 1), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = net(q)
    assert inside.dtype == torch.float32 and torch.equal(inside, net(q))
