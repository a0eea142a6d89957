"""Continuous knapsacks: maximise c'x over 0 <= x <= 1, W x <= b, with c to be predicted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common import load_npz, mlp, split_indices
from experiments.common.decisions import Samples
from experiments.common.linear_task import LinearTask, Outputs, polynomial_costs

FILE = Path(__file__).resolve().parents[1] / "data" / "knapsack_energy" / "energy_price.npz"
SHA256 = "383d4c2b16fdbc11a3925bef04214a42eb3fcf89562090ab57378647aa934049"

SYNTHETIC = "synthetic"  # of the paper; the others are the real one at a capacity
CAPACITIES = {
    "energy, capacity 60": 60.0,
    "energy, capacity 120": 120.0,
    "energy, capacity 180": 180.0,
}
ITEMS, CONSTRAINTS, SAMPLES, HIDDEN = 20, 15, 512, (256, 256)  # of the synthetic one
TRAIN, VALIDATION = 550, 100  # of the 789 real days
SHIFT = 0.1  # added to a network's output, as in the paper


@dataclass(frozen=True)
class Knapsack(LinearTask):
    """One seed's knapsack.

    Attributes:
        weights, capacity: W ``[constraints, items]`` and b.
    """

    weights: Tensor
    capacity: Tensor

    @classmethod
    def build(cls, data: Samples, costs: Tensor, weights: Tensor, capacity: Tensor) -> "Knapsack":
        """Solves every sample; nothing in the knapsack is the worst decision, as c > 0."""
        zero = torch.zeros(len(costs), dtype=torch.float64)
        unsolved = cls(data, zero, zero, costs, weights, capacity)
        everything = torch.arange(len(costs))
        best = unsolved.objective(unsolved.solve(costs, everything), everything)
        return cls(data, best, zero, costs, weights, capacity)

    def feasible_set(self, indices: Tensor) -> dict:
        """The same for every sample."""
        return {"G": self.weights, "h": self.capacity, "lb": 0.0, "ub": 1.0}


def load(name: str, seed: int) -> Knapsack:
    """The knapsack called :data:`SYNTHETIC` or one of :data:`CAPACITIES`."""
    return synthetic(seed) if name == SYNTHETIC else real(CAPACITIES[name], seed)


def synthetic(seed: int) -> Knapsack:
    """The paper's generator (appendix C.3), everything drawn from ``seed``."""
    rng = np.random.default_rng(seed)
    features, costs = polynomial_costs(rng, SAMPLES, ITEMS)
    weights = rng.uniform(3.0, 8.0, (CONSTRAINTS, ITEMS))
    capacity = rng.uniform(20.0, 80.0, CONSTRAINTS)
    parts = split_indices(SAMPLES, (0.7, 0.2), torch.Generator().manual_seed(seed))
    data = Samples(features, *parts)
    return Knapsack.build(data, costs, torch.from_numpy(weights), torch.from_numpy(capacity))


def real(capacity: float, seed: int) -> Knapsack:
    """Half-hourly energy prices of a day as item values, split 550/100/139 from ``seed``.

    Values are divided by their mean over the training days.
    """
    raw = load_npz(FILE, SHA256)
    features = raw["features"][..., 1:].astype(np.float64)  # column 0 is the day's number
    features = (features - features.mean((0, 1))) / features.std((0, 1))
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    train, validation, test = order.tensor_split((TRAIN, TRAIN + VALIDATION))
    data = Samples(torch.from_numpy(features).float(), train, validation, test)
    costs = torch.from_numpy(raw["value"].astype(np.float64))
    weights = torch.from_numpy(raw["weights"].astype(np.float64))[None]
    capacities = torch.tensor([capacity], dtype=torch.float64)
    return Knapsack.build(data, costs / costs[train].mean(), weights, capacities)


def network(name: str) -> nn.Module:
    """The paper's network, or the benchmark's linear model with one weight vector for all items."""
    if name == SYNTHETIC:
        return mlp(16, HIDDEN, ITEMS)
    return nn.Sequential(nn.Linear(8, 1), nn.Flatten())


def outputs(task: Knapsack) -> Outputs:
    """An output, shifted, is the point that is projected or the prediction of c."""
    return Outputs(1.0, SHIFT, lambda output: output + SHIFT, task.costs - SHIFT)
