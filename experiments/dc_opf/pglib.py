"""Real grids: direct-current optimal power flow of PGLib-OPF with prices to be predicted.

Generators produce p, and the flows follow from the injections p - d by the power transfer
distribution factors; cost c'p is minimised under limits of production and flow. Grid, limits and
the ratio of demands are PGLib's. What a network must predict is made: each generator's cost is its
own c1 times a factor from the generator of the knapsack experiment, and all demands of a sample are
scaled by one known number.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.common import load_npz, mlp, split_indices
from experiments.common.decisions import Samples
from experiments.common.linear_task import LinearTask, Outputs, polynomial_costs

FILE = Path(__file__).resolve().parents[1] / "data" / "power_grids" / "pglib_opf.npz"
SHA256 = "a8dd3d62810f09aee5aabedb1cd44cd2e1d93d82583fa7438b64bddebffd202f"

CASES = ("case39_epri", "case57_ieee", "case118_ieee")
SAMPLES, DEMAND = 512, (0.8, 1.0)  # the range of the factor of all demands
HIDDEN = (256, 256)


@dataclass(frozen=True)
class Case:
    """A grid in units of its base power; what is on, and of the generators those with real power.

    Attributes:
        demand: ``[buses]``.
        at: which bus each generator is at, ``[generators, buses]``.
        factors: flows per injection, ``[lines, buses]``.
        limit: of the flows' magnitude, ``[lines]``.
        low, high: of production.
        price: c1 in $ per unit; c0 is their sum at no production.
    """

    demand: np.ndarray
    at: np.ndarray
    factors: np.ndarray
    limit: np.ndarray
    low: np.ndarray
    high: np.ndarray
    price: np.ndarray
    c0: float


def read(name: str) -> Case:
    """Reads one case of the file.

    The susceptance of a line is x / (r^2 + x^2), taps and shifts are ignored, and limits on angle
    differences are limits on flows: so the published direct-current optima come out.
    """
    tables = load_npz(FILE, SHA256)
    bus, gen, branch, cost = (tables[f"{name}/{t}"] for t in ("bus", "gen", "branch", "gencost"))
    base = float(tables[f"{name}/baseMVA"])
    running = (gen[:, 7] > 0) & ((gen[:, 8] != 0) | (gen[:, 9] != 0))
    gen, cost = gen[running], cost[running]
    branch = branch[branch[:, 10] > 0]
    place = {int(number): row for row, number in enumerate(bus[:, 0])}

    susceptance = branch[:, 3] / (branch[:, 2] ** 2 + branch[:, 3] ** 2)
    incidence = np.zeros((len(branch), len(bus)))
    for sign, column in ((1.0, 0), (-1.0, 1)):
        incidence[np.arange(len(branch)), [place[int(n)] for n in branch[:, column]]] = sign
    flows = susceptance[:, None] * incidence
    others = bus[:, 1] != 3  # the angle of the reference bus is zero
    factors = np.zeros_like(flows)
    factors[:, others] = flows[:, others] @ np.linalg.inv((incidence.T @ flows)[others][:, others])

    rate = np.where(branch[:, 5] > 0, branch[:, 5] / base, np.inf)
    angle = np.deg2rad(np.minimum(-branch[:, 11], branch[:, 12]))
    at = np.zeros((len(gen), len(bus)))
    at[np.arange(len(gen)), [place[int(n)] for n in gen[:, 0]]] = 1.0
    return Case(
        demand=(bus[:, 2] + bus[:, 4]) / base,
        at=at,
        factors=factors,
        limit=np.minimum(rate, np.abs(susceptance) * angle),
        low=gen[:, 9] / base,
        high=gen[:, 8] / base,
        price=base * cost[:, 5],
        c0=float(cost[:, 6].sum()),
    )


@dataclass(frozen=True)
class Dispatch(LinearTask):
    """One seed's samples on one grid; the objective is minus the cost, divided by its mean.

    Attributes:
        factors: flows per production, ``[lines, generators]``.
        limits: of the flows' magnitude.
        low, high: of production.
        load: total demand of each sample.
        drawn: flows that the demands alone cause, ``[samples, lines]``.
        predicted: the factor of each generator's price, ``[samples, generators]``.
        price: what it is a factor of.
    """

    factors: Tensor
    limits: Tensor
    low: Tensor
    high: Tensor
    load: Tensor
    drawn: Tensor
    predicted: Tensor
    price: Tensor

    def feasible_set(self, indices: Tensor) -> dict:
        """Balance, limits of the flows and limits of production."""
        drawn = self.drawn[indices]
        return {
            "A": torch.ones(1, len(self.low), dtype=torch.float64),
            "b": self.load[indices].unsqueeze(-1),
            "G": self.factors,
            "h": self.limits + drawn,
            "h_lower": drawn - self.limits,
            "lb": self.low,
            "ub": self.high,
        }

    def coefficients(self, predicted: Tensor) -> Tensor:
        """The coefficients c that predicted factors of the prices stand for."""
        return -predicted * self.price


def load(name: str, seed: int) -> Dispatch:
    """Draws factors of prices and demands from ``seed`` for the grid called ``name``."""
    case = read(name)
    rng = np.random.default_rng(seed)
    features, factor = polynomial_costs(rng, SAMPLES, len(case.price))
    scale = rng.uniform(*DEMAND, SAMPLES)
    features = torch.cat([features, torch.from_numpy(scale).float()[:, None]], dim=-1)
    parts = split_indices(SAMPLES, (0.7, 0.2), torch.Generator().manual_seed(seed))
    data = Samples(features, *parts)
    # Where the network branches to loads alone no generator changes a flow: no row of the program.
    rated = torch.from_numpy(np.abs(case.factors @ case.at.T).max(-1) > 1e-9)
    factors, low, high, limits, demand = map(
        torch.from_numpy,
        (case.factors @ case.at.T, case.low, case.high, case.limit, case.demand),
    )
    demands = torch.from_numpy(scale)[:, None] * demand
    drawn = demands @ torch.from_numpy(case.factors).T
    price = torch.from_numpy(case.price / case.price.mean())
    factor = factor / factor.mean()
    zero = torch.zeros(SAMPLES, dtype=torch.float64)
    grid = (factors[rated], limits[rated], low, high, demands.sum(-1), drawn[:, rated])
    rest = (-factor * price, *grid, factor, price)
    task = Dispatch(data, zero, zero, *rest)
    everything = torch.arange(SAMPLES)
    best, worst = (
        task.objective(task.solve(sign * task.costs, everything), everything)
        for sign in (1.0, -1.0)
    )
    return Dispatch(data, best, worst, *rest)


def network(task: Dispatch) -> nn.Module:
    """As for the other tasks, a number for each generator."""
    return mlp(task.data.features.shape[1], HIDDEN, len(task.low))


def outputs(task: Dispatch) -> Outputs:
    """An output is the point that is projected, or 1 more the factor of the price."""
    return Outputs(1.0, 0.0, lambda o: task.coefficients(1.0 + o), task.predicted - 1.0)
