"""A batch of 4,096 of which a tenth is bad, in every way at once: nobody else notices."""

import pytest
import torch
from contract import MODES, D, all_nine
from test_members import BAD

import torchqp
from torchqp import testing

BATCH = 4096


@pytest.fixture(scope="module")
def poisoned() -> tuple[dict, torch.Tensor]:
    """The batch, and the statuses expected."""
    problem = {k: v.clone() for k, v in all_nine(BATCH, seed=11).items()}
    expected = torch.zeros(BATCH, dtype=torch.int32)
    kinds = list(BAD)
    generator = torch.Generator().manual_seed(2)
    chosen = torch.randperm(BATCH, generator=generator)[: BATCH // 10]
    for place, member in enumerate(chosen.tolist()):
        change, expected[member] = BAD[kinds[place % len(kinds)]]
        change(problem, member)
    return problem, expected


def outcome(problem: dict, weights: dict, mode: str = "kkt") -> dict[str, torch.Tensor]:
    solution, grads = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    outputs = dict(zip(solution._fields, (t.detach() for t in solution), strict=True))
    return outputs | {f"grad of {k}": v for k, v in grads.items()}


@pytest.mark.parametrize("mode", MODES)
def test_poison_statuses_are_right_and_the_rest_is_as_alone(
    poisoned: tuple[dict, torch.Tensor], mode: str
) -> None:
    problem, expected = poisoned
    good = expected == 0
    assert int((~good).sum()) == 409
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    found = outcome(problem, weights, mode)
    assert torch.equal(found["status"], expected)
    clean = outcome(testing.take(problem, good), {k: w[good] for k, w in weights.items()}, mode)
    for name, value in found.items():
        assert testing.same_bits(value[good], clean[name]), name
        if name.startswith("grad"):
            assert not bool(value[~good].any()), name
    for member in torch.nonzero(good).flatten()[::97].tolist():
        alone = outcome(
            testing.take(problem, member), {k: w[member] for k, w in weights.items()}, mode
        )
        for name, value in found.items():
            assert testing.same_bits(value[member], alone[name]), (member, name)


@pytest.mark.parametrize("mode", MODES)
def test_poison_shared_gradients_equal_the_clean_sum(mode: str) -> None:
    one = testing.take(all_nine(seed=11), 0)
    generator = torch.Generator().manual_seed(0)
    q = one["q"] + 0.1 * torch.randn(BATCH, 6, generator=generator, dtype=D)
    bad = torch.arange(BATCH) % 10 == 3
    q[bad, 1] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=D).repeat(200)[
        : int(bad.sum())
    ]
    weights = testing.cotangents(torchqp.solve_qp(**(one | {"q": q})), 0, names=("z",))
    kept = {k: w[~bad] for k, w in weights.items()}
    _, shared = testing.pullback(torchqp.solve_qp, one | {"q": q}, weights, backward=mode)
    _, clean = testing.pullback(torchqp.solve_qp, one | {"q": q[~bad]}, kept, backward=mode)
    for name, grad in shared.items():
        if name != "q":
            assert testing.relative_error(grad, clean[name]) <= 1e-13, name


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.parametrize("mode", MODES)
def test_poison_is_silent_under_anomaly_detection(
    poisoned: tuple[dict, torch.Tensor], mode: str
) -> None:
    problem, expected = poisoned
    leaves, wanted = testing.leaves(problem)
    with torch.autograd.detect_anomaly(check_nan=True):
        solution = torchqp.solve_qp(**leaves, backward=mode)
        torch.where(solution.solved.unsqueeze(-1), solution.z, 0.0).square().sum().backward()
    for name, leaf in wanted.items():
        assert bool(leaf.grad.isfinite().all()), name
        assert not bool(leaf.grad[expected > 1].any()), name
    assert bool(wanted["q"].grad.any())


def test_poison_gives_the_same_bits_over_runs_threads_and_permutations(
    poisoned: tuple[dict, torch.Tensor],
) -> None:
    problem, _ = poisoned
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    base = outcome(problem, weights)
    for run in range(20):
        torch.set_num_threads(1 + run % 4)
        again = outcome(problem, weights)
        for name, value in again.items():
            assert testing.same_bits(value, base[name]), (run, name)
    torch.set_num_threads(2)
    for seed in range(3):
        order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(seed))
        moved = outcome(testing.take(problem, order), {k: w[order] for k, w in weights.items()})
        for name, value in moved.items():
            assert testing.same_bits(value, base[name][order]), (seed, name)
