"""Tasks with a linear objective over a polyhedron, every method that applies, and their results.

Where "You Shall Pass" compares with linear methods (Fig. 4c,d) the task is to maximise c'x over
x in a polyhedron; the network sees features and not c.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import torchqp
from experiments.common import decisions, linear, plots
from experiments.common.command import publish
from experiments.common.decisions import (
    Method,
    Task,
    best_so_far,
    decision_layer,
    layer_modes,
    two_stage,
)
from experiments.common.looks import LOOK
from experiments.common.sweep import sweep
from experiments.common.tables import cell, distinct, mean_sd, select
from experiments.common.training import Protocol

TWO_STAGE = "MSE"
LAYERS = tuple(layer_modes())
NAMES = (TWO_STAGE, *linear.NAMES, *LAYERS)


@dataclass(frozen=True)
class LinearTask(Task):
    """A task that is to maximise c'x; a task defines :meth:`feasible_set`.

    Attributes:
        costs: c, float64 ``[samples, variables]``.
    """

    costs: Tensor

    def feasible_set(self, indices: Tensor) -> dict:
        """The polyhedra of the samples ``indices``, as arguments of torchqp."""
        raise NotImplementedError

    def objective(self, decisions: Tensor, indices: Tensor) -> Tensor:
        """Returns c'x for each of the samples ``indices``."""
        return (self.costs[indices] * decisions).sum(-1)

    @torch.no_grad()
    def solve(self, costs: Tensor, indices: Tensor) -> Tensor:
        """The best decisions for the coefficients ``costs``."""
        none = torchqp.Diag(torch.zeros_like(self.costs[0]))
        solution = torchqp.solve_qp(none, -costs, **self.feasible_set(indices))
        return solution.raise_for_status().z


@dataclass(frozen=True)
class Outputs:
    """What a network's output means.

    Attributes:
        scale, shift: the point that a decision layer projects is ``scale * output + shift``.
        costs: the coefficients c that an output predicts, for MSE and the linear methods.
        targets: what MSE fits the output to, ``[samples, size]``.
    """

    scale: float
    shift: float
    costs: Callable[[Tensor], Tensor]
    targets: Tensor


def build(name: str, task: LinearTask, outputs: Outputs) -> Method:
    """Makes the method called ``name``, one of :data:`NAMES`."""
    if name in LAYERS:
        layer = torchqp.QPLayer(backward=layer_modes()[name])
        identity = torchqp.Diag(torch.ones_like(task.costs[0]))

        def project(output: Tensor, indices: Tensor) -> Tensor:
            point = outputs.scale * output.double() + outputs.shift
            return layer(identity, -point, **task.feasible_set(indices))

        return decision_layer(task, project)
    if name == TWO_STAGE:
        return two_stage(
            outputs.targets,
            lambda output: output.double(),
            lambda prediction, indices: task.solve(outputs.costs(prediction), indices),
        )
    return linear.build(name, task, task.costs, task.solve, outputs.costs)


def names() -> tuple[str, ...]:
    """The methods whose libraries are there."""
    return NAMES if linear.PYEPO_MISSING is None else (TWO_STAGE, *LAYERS)


class Run(NamedTuple):
    """One training."""

    problem: str
    seed: int
    method: str
    protocol: Protocol


def train(run: Run, method: Method, task: LinearTask, network: nn.Module) -> dict:
    """The record of one run: its place in the grid and what came out."""
    key = {name: getattr(run, name) for name in ("problem", "seed", "method")}
    return key | decisions.train(method, task, network, run.seed, run.protocol)


def main(
    experiment: str,
    arguments: Namespace,
    settings: dict,
    runs: list[Run],
    execute: Callable[[Run], dict],
) -> None:
    """Executes ``runs``, writes results.json and regret.png, and prints the table."""
    records = sweep(execute, runs, arguments.out, arguments.workers)
    record = publish(
        arguments.out,
        {
            "experiment": experiment,
            "full": arguments.full,
            "settings": settings | {"tau_relative": decisions.TAU},
            "runs": records,
        },
    )
    draw(record, arguments.out / "regret.png")
    print(table(record))


def polynomial_costs(rng: np.random.Generator, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Features and coefficients by the generator of "You Shall Pass", appendix C.3.

    c = .4 ((B o / 4 + 3)^2 + 1) eps with o ~ N(0, I_16), B ~ Bernoulli(.5), eps ~ U(.5, 1.5). The
    paper prints "+ eps"; its constants are those of PyEPO's generator, which multiplies.

    Returns:
        o ``[samples, 16]`` and c ``[samples, size]``.
    """
    observed = rng.standard_normal((samples, 16))
    hidden = rng.binomial(1, 0.5, (size, 16))
    noise = rng.uniform(0.5, 1.5, (samples, size))
    costs = 0.4 * ((observed @ hidden.T / 4.0 + 3.0) ** 2 + 1.0) * noise
    return torch.from_numpy(observed).float(), torch.from_numpy(costs)


def table(record: dict) -> str:
    """One row per problem and method: mean +- standard deviation over the seeds."""
    lines = [
        "| problem | method | test regret, range | regret / abs(f*) | training regret / abs(f*) "
        "| zero gradients, last epoch | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for problem in distinct(record["runs"], "problem"):
        here = select(record, problem=problem)
        for method in distinct(here, "method"):
            runs = select(record, problem=problem, method=method)
            cells = [cell(runs, n) for n in ("range_regret", "relative_regret", "train_regret")]
            cells += [cell(runs, "zero_share", "{:.1%}"), cell(runs, "seconds", "{:.1f}")]
            lines.append(f"| {problem} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(record: dict, path: Path) -> None:
    """Test range regret of the best model so far by epoch, one panel per problem."""
    problems = distinct(record["runs"], "problem")
    figure, axes = plots.panels(1, len(problems), 3.2, 3.2)
    for ax, problem in zip(axes[0], problems, strict=True):
        here = select(record, problem=problem)
        for method in distinct(here, "method"):
            curves = [best_so_far(r["curves"]) for r in here if r["method"] == method]
            values = [mean_sd(column)[0] for column in zip(*curves, strict=True)]
            look = {key: LOOK[method][key] for key in ("color", "linestyle")}
            ax.plot(range(1, len(values) + 1), values, label=method, **look)
        ax.set(title=problem, xlabel="epoch")
        ax.set_ylim(bottom=0.0)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("test range regret\nof the best model so far")
    handles = {}
    for ax in axes[0]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    plots.save(figure, path)
