"""The knapsacks at their smallest: optimality, generator, and what each gradient learns."""

import pytest
import torch

from experiments.common import Protocol, linear, linear_task
from experiments.knapsack import run, task

pytestmark = pytest.mark.usefixtures("one_thread")


def test_real_knapsack_is_filled_by_value_per_weight():
    """With one constraint the best decision is greedy."""
    knapsack = task.load("energy, capacity 60", seed=0)
    everything = torch.arange(len(knapsack.costs))
    ratio = knapsack.costs / knapsack.weights
    order = ratio.argsort(dim=-1, descending=True)
    used = knapsack.weights[0][order]
    left = (60.0 - used.cumsum(-1) + used).clamp(min=0.0)
    x = torch.zeros_like(ratio).scatter(-1, order, torch.minimum(left / used, torch.ones(1)))
    torch.testing.assert_close(knapsack.objective(x, everything), knapsack.best)
    assert [len(part) for part in (knapsack.data.train, knapsack.data.test)] == [550, 139]
    assert float(knapsack.costs[knapsack.data.train].mean()) == pytest.approx(1.0)


def test_synthetic_knapsack_is_solved_and_predictable():
    knapsack = task.load(task.SYNTHETIC, seed=0)
    everything = torch.arange(512)
    x = knapsack.solve(knapsack.costs, everything)
    assert x.min() > -1e-7 and x.max() < 1 + 1e-7
    assert (x @ knapsack.weights.T - knapsack.capacity).max() < 1e-6
    design = torch.cat([knapsack.data.features.double(), torch.ones(512, 1)], dim=-1)
    fit = design @ torch.linalg.lstsq(design, knapsack.costs).solution
    explained = 1.0 - (fit - knapsack.costs).var(0) / knapsack.costs.var(0)
    assert 0.3 < float(explained.mean()) < 0.7  # the rest is noise, a factor of .5 to 1.5


@pytest.mark.parametrize("problem", [task.SYNTHETIC, "energy, capacity 120"])
def test_every_backward_learns(problem):
    """Least regret after two epochs for the layers, as a bound that no constant decision has."""
    epochs, lr, bound = (3, 1e-3, 0.20) if problem == task.SYNTHETIC else (2, 0.1, 0.12)
    for name in linear_task.LAYERS:
        record = run.execute(run.Run(problem, 0, name, Protocol(epochs, 32, lr)))
        regrets = record["curves"]["train_regret"]
        assert regrets[-1] < min(bound, regrets[0]), name
        assert record["zero_share"] < 0.2


@pytest.mark.skipif(linear.PYEPO_MISSING is not None, reason=str(linear.PYEPO_MISSING))
def test_linear_methods_learn_too(tmp_path):
    protocol = Protocol(2, 32, 1e-3)
    names = (*linear.NAMES, "smoothed")
    runs = [run.execute(run.Run(task.SYNTHETIC, 0, name, protocol)) for name in names]
    for record in runs:
        assert record["curves"]["train_regret"][-1] < record["curves"]["train_regret"][0]
    assert "| synthetic | identity | " in linear_task.table({"runs": runs})
    linear_task.draw({"runs": runs}, tmp_path / "regret.png")
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")
