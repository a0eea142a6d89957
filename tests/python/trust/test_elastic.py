"""The elastic answer: infeasible members get the solution of a softened problem."""

import pytest
import torch
from contract import MODES, D, all_nine, assert_same, tensor
from test_infeasible import near

import torchqp
from torchqp import QPLayer, Settings, Status, testing

KINDS = ("rows", "equalities", "bounds")


def softened(problem: dict, weight: float) -> torch.Tensor:
    """The value that the elastic answer is to reach, by the same problem written out by hand."""
    n, m = problem["q"].shape[-1], problem["G"].shape[-2] if "G" in problem else 0
    p, batch = (problem["A"].shape[-2] if "A" in problem else 0), problem["q"].shape[:-1]
    k = m + 2 * p
    Q = torch.zeros(*batch, n + k, n + k, dtype=D)
    Q[..., :n, :n] = problem["Q"]
    q = torch.cat([problem["q"], torch.full((*batch, k), weight, dtype=D)], -1)
    low = torch.cat([problem.get("lb", torch.full((n,), -torch.inf, dtype=D)), torch.zeros(k)], -1)
    high = problem.get("ub", torch.full((n,), torch.inf, dtype=D))
    wide = {"lb": low, "ub": torch.cat([high, torch.full((k,), torch.inf, dtype=D)], -1)}
    if m:
        part = torch.cat([-torch.eye(m), torch.zeros(m, 2 * p)], -1).to(D)
        wide |= {"G": torch.cat([problem["G"].expand(*batch, m, n), part.expand(*batch, m, k)], -1)}
        wide["h"] = problem["h"]
    if p:
        part = torch.cat([torch.zeros(p, m), -torch.eye(p), torch.eye(p)], -1).to(D)
        wide |= {"A": torch.cat([problem["A"], part.expand(*batch, p, k)], -1), "b": problem["b"]}
    z = torchqp.solve_qp(Q, q, **wide).raise_for_status().z
    return (z * (testing.times(Q, z) / 2 + q)).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_elastic_answers_minimise_the_softened_problem(kind: str, weight: float) -> None:
    problem = testing.infeasible(6, 10, kind, seed=1)
    solution = torchqp.solve_qp(**problem, elastic=weight)
    assert solution.status.tolist() == [Status.SOLVED_INACCURATE] * 10
    z = solution.z
    value = (z * (testing.times(problem["Q"], z) / 2 + problem["q"])).sum(-1)
    missed = torch.zeros(10, dtype=D)
    if "G" in problem:
        excess = testing.times(problem["G"], z) - problem["h"]
        missed = missed + excess.clamp(min=0).sum(-1)
        assert testing.relative_error(solution.s, -excess) <= 1e-9
    if "A" in problem:
        missed = missed + (testing.times(problem["A"], z) - problem["b"]).abs().sum(-1)
    assert bool((missed > 0.1).all())
    assert testing.relative_error(value + weight * missed, softened(problem, weight)) <= 1e-8
    for multiplier in (solution.lam, solution.nu):
        assert float(multiplier.abs().max() if multiplier.numel() else 0) <= weight * (1 + 1e-9)
    if "lb" in problem:
        assert bool((z >= problem["lb"] - 1e-9).all() & (z <= problem["ub"] + 1e-9).all())


def test_elastic_leaves_every_other_member_its_bits() -> None:
    problem = {k: v.clone() for k, v in all_nine(6).items()}
    problem["b"][1] = tensor(50.0, -50.0)
    problem["q"][3, 0] = torch.nan
    problem["Q"][4] = -problem["Q"][4]
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    others = torch.tensor([0, 2, 3, 4, 5])
    for mode in MODES:
        plain = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
        found = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode, elastic=10.0)
        assert plain[0].status.tolist() == [0, 2, 0, 6, 7, 0]
        assert found[0].status.tolist() == [0, 1, 0, 6, 7, 0]
        for name in plain[0]._fields:
            a, b = getattr(found[0], name), getattr(plain[0], name)
            assert testing.same_bits(a[others], b[others]), name
        for name, grad in found[1].items():
            assert torch.equal(grad[others], plain[1][name][others]), (mode, name)
            assert bool(grad.isfinite().all()), (mode, name)
        assert bool(found[1]["q"][1].any()) or mode == "lpgd"


@pytest.mark.parametrize("kind", ["box", "simplex"])
def test_elastic_gradients_match_finite_differences(kind: str) -> None:
    """Problems that are infeasible by much, so that a step leaves them so."""
    problem = testing.take(near(kind, 3, 1.0, n=4), 1)
    sharp = {"settings": Settings(eps_abs=1e-11, eps_rel=1e-11), "elastic": 3.0}
    weights = testing.cotangents(torchqp.solve_qp(**problem, **sharp), 0, names=("z",))
    _, grads = testing.pullback(torchqp.solve_qp, problem, weights, **sharp)
    expected = testing.finite_differences(
        lambda **k: torchqp.solve_qp(**k, **sharp), problem, weights
    )
    for name in problem:
        assert testing.relative_error(grads[name], expected[name]) <= 1e-5, name


def test_elastic_answers_are_shared_and_solved_under_diagonals_too() -> None:
    problem = testing.infeasible(5, 4, "equalities", seed=3)
    problem["Q"] = torchqp.Diag(torch.rand(4, 5, dtype=D) + 0.5)
    dense = problem | {"Q": torch.diag_embed(problem["Q"].d)}
    a = torchqp.solve_qp(**problem, elastic=5.0)
    b = torchqp.solve_qp(**dense, elastic=5.0)
    assert a.status.tolist() == b.status.tolist() == [1] * 4
    assert testing.relative_error(a.z, b.z) <= 1e-8
    one = testing.take(problem, 0)
    shared = torchqp.solve_qp(**(one | {"q": one["q"].expand(3, 5)}), elastic=5.0)
    assert testing.relative_error(shared.z, a.z[:1].expand(3, 5)) <= 1e-8


def test_elastic_softens_no_bound_and_needs_a_weight() -> None:
    box = {"Q": torch.eye(2, dtype=D), "q": torch.zeros(2, dtype=D)}
    far = {"lb": tensor(torch.inf, 0.0)}
    assert int(torchqp.solve_qp(**box, **far, elastic=1.0).status) == Status.PRIMAL_INFEASIBLE
    feasible = near("rows", 4, -0.5)
    assert_same(torchqp.solve_qp(**feasible, elastic=1.0), torchqp.solve_qp(**feasible))
    with pytest.raises(ValueError, match=r"elastic: expected a positive finite number, got 0"):
        torchqp.solve_qp(**box, elastic=0)
    with pytest.raises(TypeError, match=r"elastic: expected a positive finite number, got True"):
        QPLayer(elastic=True)


def test_elastic_layers_say_so_and_return_the_answer() -> None:
    problem = testing.infeasible(4, 3, "rows", seed=1)
    layer = QPLayer(elastic=2.0)
    assert repr(layer).endswith("elastic=2.0)")
    assert testing.same_bits(layer(**problem), torchqp.solve_qp(**problem, elastic=2.0).z)


def test_elastic_works_compiled_and_vmapped() -> None:
    problem = testing.infeasible(4, 3, "rows", seed=1)
    plain = torchqp.solve_qp(**problem, elastic=2.0).z
    z = torch.func.vmap(lambda p: torchqp.solve_qp(**p, elastic=2.0).z)(problem)
    assert testing.relative_error(z, plain) <= 1e-12
    compiled = torch.compile(QPLayer(elastic=2.0), fullgraph=True, backend="aot_eager")
    assert testing.relative_error(compiled(**problem), plain) <= 1e-12
