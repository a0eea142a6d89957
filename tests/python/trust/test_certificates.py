"""Proofs: every member of status 2 or 3 has one, and the data say so."""

import pytest
import torch
from contract import INF, NAN, D, tensor
from test_infeasible import near

import torchqp
from experiments.bench import hard_problems
from torchqp import Certificate, Settings, testing

TIGHT = Settings(eps_abs=1e-12, eps_rel=1e-12)
FAR = 1e20


def assert_infeasible(
    problem: dict, proof: Certificate, limit: float = 1e-6, unit: float = 2.3e-16
) -> None:
    """Farkas, in words of this test: the weighted constraints add up to 0 <= -1."""
    assert bool((proof.status == 2).all()), proof.status
    total, value = torch.zeros_like(problem["q"]), torch.zeros_like(problem["q"][..., 0])
    if "A" in problem:
        total = total + testing.times(problem["A"].mT, proof.nu)
        value = value + (problem["b"] * proof.nu).sum(-1)
    sides = []
    if "G" in problem:
        total = total + testing.times(problem["G"].mT, proof.lam)
        sides = [("h", 1.0, proof.lam.clamp(min=0)), ("h_lower", -1.0, (-proof.lam).clamp(min=0))]
    for name, sign, weight in (("ub", 1.0, proof.lam_ub), ("lb", -1.0, proof.lam_lb)):
        if name in problem:
            assert bool((weight >= 0).all())
            total = total + sign * weight
            sides.append((name, sign, weight))
    for name, sign, weight in sides:
        if name in problem:
            finite = problem[name].abs() < FAR
            assert not bool(weight[~finite.expand_as(weight)].any()), name
            value = value + sign * (torch.where(finite, problem[name], 0.0) * weight).sum(-1)
        else:
            assert not bool(weight.any()), name
    size = 1 + torch.stack([w.abs().amax(-1) for w in proof[2:6] if w.shape[-1]]).amax(0)
    rounding = 1e-9 + 100 * unit * size  # the sum cancels from the weights' size down to -1
    assert bool(((value + 1).abs() <= rounding).all()), (value + 1).abs().max()
    assert float((total.abs().amax(-1) / size).max()) <= limit
    assert bool(((proof.error - total.abs().amax(-1)).abs() <= rounding).all())
    assert not bool(proof.z.any())


def assert_unbounded(problem: dict, proof: Certificate, limit: float = 1e-6) -> None:
    """Along z the objective falls by 1 and no constraint is ever reached."""
    assert bool((proof.status == 3).all()), proof.status
    z = proof.z
    Q = problem["Q"]
    Q = torch.diag_embed(Q.d) if hasattr(Q, "d") else (Q + Q.mT) / 2
    assert testing.relative_error((problem["q"] * z).sum(-1), -torch.ones_like(z[..., 0])) <= 1e-9
    misses = [testing.times(Q, z).abs()]
    if "A" in problem:
        misses.append(testing.times(problem["A"], z).abs())
    for name, sign in (("h", 1.0), ("h_lower", -1.0), ("ub", 1.0), ("lb", -1.0)):
        if name in problem:
            move = testing.times(problem["G"], z) if name[0] == "h" else z
            kept = problem[name].abs() < FAR
            misses.append(torch.where(kept, (sign * move).clamp(min=0), 0.0))
    worst = torch.stack([miss.amax(-1) for miss in misses]).amax(0)
    assert float((worst / (1 + z.abs().amax(-1))).max()) <= limit
    assert testing.relative_error(proof.error, worst) <= 1e-9
    assert not any(bool(weights.any()) for weights in proof[2:6])


@pytest.mark.parametrize("kind", ["rows", "equalities", "bounds"])
def test_I1_contradictions_are_proved(kind: str) -> None:
    for n in (2, 5, 10, 40):
        problem = testing.infeasible(n, 10, kind, seed=n)
        assert_infeasible(problem, torchqp.certificate(**problem))


@pytest.mark.parametrize("kind", ["rows", "box", "simplex", "program", "equalities"])
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-7, 1e-8, 1e-9])
def test_I1_near_misses_are_proved(kind: str, gap: float) -> None:
    """At the default tolerance a miss of 1e-8 is a solution; at a tight one it is a proof."""
    problem = near(kind, 8, gap)
    assert_infeasible(problem, torchqp.certificate(**problem, settings=TIGHT))


@pytest.mark.parametrize("kind", ["rows", "box", "simplex", "program", "equalities"])
def test_I1_nearly_all_misses_of_1e_9_are_proved_and_none_is_a_solution(kind: str) -> None:
    """Rounding of multipliers of 1e9 leaves some a proof that is not exact to 1e-6."""
    status = torchqp.solve_qp(**near(kind, 200, 1e-9, seed=7), settings=TIGHT).status
    assert not bool((status == 0).any())
    assert int((status == 2).sum()) >= 190


@pytest.mark.parametrize("case", hard_problems.grid_names())
def test_I1_infeasible_power_grids_are_proved(case: str) -> None:
    problem = hard_problems.grid(case)
    if problem.feasible:
        return
    arguments = {k: v.unsqueeze(0) for k, v in problem.arguments.items()}
    assert_infeasible(arguments, torchqp.certificate(**arguments))


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_I2_unbounded_problems_are_proved(kind: str) -> None:
    for n in (2, 5, 10, 20, 40):
        problem = testing.unbounded(n, 10, kind, seed=n)
        assert_unbounded(problem, torchqp.certificate(**problem))


def test_I2_rays_without_constraints_and_along_a_diagonal() -> None:
    problem = {"Q": torch.zeros(3, 3, dtype=D), "q": tensor(1.0, -2.0, 0.0)}
    assert_unbounded(problem, torchqp.certificate(**problem))
    problem["Q"] = torchqp.Diag(tensor(1.0, 0.0, 2.0))
    assert_unbounded(problem, torchqp.certificate(**problem))


def test_a_side_at_the_wrong_infinity_is_its_own_proof() -> None:
    eye = torch.eye(2, dtype=D)
    box = {"Q": eye, "q": torch.ones(2, dtype=D), "G": eye, "h": tensor(1.0, -INF), "lb": 0.0}
    proof = torchqp.certificate(**box, ub=tensor(-INF, 1.0))
    assert (int(proof.status), float(proof.error)) == (2, 0.0)
    assert proof.lam.tolist() == [0.0, 1.0]
    assert not bool(proof.lam_ub.any() | proof.lam_lb.any())
    proof = torchqp.certificate(eye, box["q"], lb=tensor(INF, INF))
    assert proof.lam_lb.tolist() == [1.0, 0.0] and float(proof.error) == 0.0


def test_members_that_need_no_proof_have_zeros() -> None:
    problem = testing.make("two_sided", 5, 6, seed=1)
    problem["q"][2, 0] = NAN
    proof = torchqp.certificate(**problem)
    assert proof.status.tolist() == [0, 0, 6, 0, 0, 0]
    for name, value in zip(proof._fields[1:], proof[1:], strict=True):
        assert not bool(value.any()), name
    assert proof.z.shape == (6, 5) and proof.error.shape == (6,)


def test_proofs_in_single_precision() -> None:
    problem = testing.cast(testing.infeasible(4, 3, "bounds", seed=1), torch.float32)
    proof = torchqp.certificate(**problem)
    assert proof.lam.dtype == torch.float32
    wide = Certificate(proof.status, *(value.double() for value in proof[1:]))
    assert_infeasible(testing.cast(problem, D), wide, 1e-3, unit=1.2e-7)
