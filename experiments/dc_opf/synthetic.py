"""The direct-current grids of "You Shall Pass", 9.4, in the units in which v0 = 7.

Nodes have voltages v; the current from i to j is Y (v_i - v_j), and node i consumes the power
p_i = -v0 (L v)_i, L the Laplacian with weights Y. Loads consume between 0 and a demand, generators
between minus a capacity and 0, and welfare w'p is maximised: w is a load's benefit or a generator's
cost. The decision is x = v - v0.

The paper gives Y = 6 S, v in [325, 375] V, v0 = 350 V, demands ~ N(8000, 2500) W, capacities
~ N(14000, 2500) W, current limits ~ N(25, 5) A, w ~ N(1.2, 1) for loads and N(.8, .1) for
generators, and an observation of all of them with noise N(0, .5). It does not give the grid's size
and topology or the number of samples: see the constants here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common import mlp, split_indices
from experiments.common.decisions import Samples
from experiments.common.linear_task import LinearTask, Outputs

VOLT = 350.0 / 7.0  # one unit; a unit of power is its square
ADMITTANCE, V0, SLACK = 6.0, 7.0, 25.0 / VOLT
NODES, GENERATORS, LINES, SAMPLES = 20, 7, 30, 512
HIDDEN = (256, 256)
SCALE = 0.1  # of a network's output, as in the paper; voltages differ by about that much


@dataclass(frozen=True)
class Grid(LinearTask):
    """One seed's grid; what varies from sample to sample are w and the limits.

    Attributes:
        prices: w ``[samples, nodes]``.
        rows: ``[nodes + lines, nodes]``; times x they are consumptions and currents.
        lower, upper: their limits, ``[samples, nodes + lines]``.
    """

    prices: Tensor
    rows: Tensor
    lower: Tensor
    upper: Tensor

    def feasible_set(self, indices: Tensor) -> dict:
        """Limits of consumption, current and voltage; node 0 holds v0, as nothing else would."""
        bound = torch.full_like(self.rows[0], SLACK)
        bound[0] = 0.0
        limits = {"h": self.upper[indices], "h_lower": self.lower[indices]}
        return {"G": self.rows, "lb": -bound, "ub": bound} | limits

    def coefficients(self, prices: Tensor) -> Tensor:
        """The c with c'x = w'p."""
        return prices @ self.rows[:NODES]


def load(seed: int) -> Grid:
    """Draws grid, samples and observations from ``seed``."""
    rng = np.random.default_rng(seed)
    lines = _lines(rng)
    incidence = np.zeros((LINES, NODES))
    incidence[np.arange(LINES), lines[:, 0]] = 1.0
    incidence[np.arange(LINES), lines[:, 1]] = -1.0
    currents = ADMITTANCE * incidence
    rows = np.concatenate([-V0 * incidence.T @ currents, currents])

    generators = rng.choice(NODES, GENERATORS, replace=False)
    is_load = np.ones(NODES, dtype=bool)
    is_load[generators] = False
    prices = np.where(
        is_load,
        rng.normal(1.2, 1.0, (SAMPLES, NODES)),
        rng.normal(0.8, 0.1, (SAMPLES, NODES)),
    )
    mean = np.where(is_load, 8000.0, 14000.0)
    power = rng.normal(mean, 2500.0, (SAMPLES, NODES)).clip(min=0.0) / VOLT**2
    current = rng.normal(25.0, 5.0, (SAMPLES, LINES)).clip(min=1.0) / VOLT
    upper = np.concatenate([np.where(is_load, power, 0.0), current], axis=1)
    lower = np.concatenate([np.where(is_load, 0.0, -power), -current], axis=1)

    seen = np.concatenate([prices, power, current], axis=1)
    seen = seen + rng.normal(0.0, 0.5, seen.shape)
    parts = split_indices(SAMPLES, (0.7, 0.2), torch.Generator().manual_seed(seed))
    data = Samples(torch.from_numpy(seen).float(), *parts)
    return _solved(data, *map(torch.from_numpy, (prices, rows, lower, upper)))


def _solved(data: Samples, prices: Tensor, rows: Tensor, lower: Tensor, upper: Tensor) -> Grid:
    costs, zero = prices @ rows[:NODES], torch.zeros(SAMPLES, dtype=torch.float64)
    grid = Grid(data, zero, zero, costs, prices, rows, lower, upper)
    everything = torch.arange(SAMPLES)
    best, worst = (
        grid.objective(grid.solve(sign * costs, everything), everything) for sign in (1.0, -1.0)
    )
    return Grid(data, best, worst, costs, prices, rows, lower, upper)


def _lines(rng: np.random.Generator) -> np.ndarray:
    """A random tree, each node tied to an earlier one, and further lines without repetition."""
    found = {(int(rng.integers(node)), node) for node in range(1, NODES)}
    while len(found) < LINES:
        pair = rng.choice(NODES, 2, replace=False)
        found.add((int(pair.min()), int(pair.max())))
    return np.array(sorted(found))


def network(grid: Grid) -> nn.Module:
    """The paper's, from the observation to a number for each node."""
    return mlp(grid.data.features.shape[1], HIDDEN, NODES)


def outputs(grid: Grid) -> Outputs:
    """An output, scaled, is the point that is projected, or as it is the prediction of w."""
    return Outputs(SCALE, 0.0, grid.coefficients, grid.prices)
