"""Which gradients learn to fill a knapsack, synthetic ("You Shall Pass", 9.5) and with real prices?

    python experiments/knapsack/run.py           # minutes: batch 32
    python experiments/knapsack/run.py --full    # batch 1 and perturbed everywhere, hours

Reproduces Fig. 4d of arXiv 2307.16304. Writes results.json and regret.png (report.md discusses
them).
"""

import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import Protocol, linear, linear_task  # noqa: E402
from experiments.common.command import parse, parser  # noqa: E402
from experiments.common.linear_task import Run  # noqa: E402
from experiments.knapsack import task as knapsack  # noqa: E402


@dataclass(frozen=True)
class Settings:
    """What is run: every method and seed, with the protocol of each problem."""

    protocols: dict[str, Protocol]
    seeds: tuple[int, ...]
    slow_everywhere: bool  # perturbed solves four programs a sample and step


DEFAULT = Settings(
    {knapsack.SYNTHETIC: Protocol(epochs=25, batch_size=32, lr=1e-3)}
    | dict.fromkeys(knapsack.CAPACITIES, Protocol(epochs=10, batch_size=32, lr=0.1)),
    seeds=(0, 1, 2, 3),
    slow_everywhere=False,
)
FULL = Settings(
    {knapsack.SYNTHETIC: Protocol(epochs=80, batch_size=1, lr=5e-5)}
    | dict.fromkeys(knapsack.CAPACITIES, Protocol(epochs=35, batch_size=128, lr=0.1)),
    seeds=tuple(range(10)),
    slow_everywhere=True,
)


def grid(settings: Settings) -> list[Run]:
    """Every run; neighbours share their task."""
    return [
        Run(problem, seed, method, protocol)
        for problem, protocol in settings.protocols.items()
        for seed in settings.seeds
        for method in linear_task.names()
        if method != linear.PERTURBED or problem == knapsack.SYNTHETIC or settings.slow_everywhere
    ]


def execute(run: Run) -> dict:
    """The record of one run: its place in the grid and what came out."""
    task = _task(run.problem, run.seed)
    torch.manual_seed(run.seed)
    method = linear_task.build(run.method, task, knapsack.outputs(task))
    return linear_task.train(run, method, task, knapsack.network(run.problem))


@lru_cache(maxsize=1)
def _task(problem: str, seed: int) -> knapsack.Knapsack:
    return knapsack.load(problem, seed)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    linear_task.main("knapsack", arguments, asdict(settings), grid(settings), execute)


if __name__ == "__main__":
    main()
