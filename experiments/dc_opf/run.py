"""Which gradients learn a grid's optimal power flow, made ("You Shall Pass", 9.4) and PGLib's?

    python experiments/dc_opf/run.py           # minutes: batch 32
    python experiments/dc_opf/run.py --full    # batch 1, 118 buses, perturbed everywhere: hours

Reproduces Fig. 4c of arXiv 2307.16304. Writes results.json and regret.png (report.md discusses
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
from experiments.dc_opf import pglib, synthetic  # noqa: E402

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Settings:
    """What is run: every method, problem and seed."""

    protocol: Protocol
    seeds: tuple[int, ...]
    slow_everywhere: bool  # perturbed solves four programs a sample and step
    problems: tuple[str, ...]


DEFAULT = Settings(
    Protocol(epochs=15, batch_size=32, lr=1e-3),
    seeds=(0, 1, 2, 3),
    slow_everywhere=False,
    problems=(SYNTHETIC, *pglib.CASES[:2]),
)
FULL = Settings(
    Protocol(epochs=80, batch_size=1, lr=5e-5),
    seeds=(0, 1, 2, 3),
    slow_everywhere=True,
    problems=(SYNTHETIC, *pglib.CASES),
)


def grid(settings: Settings) -> list[Run]:
    """Every run; neighbours share their task."""
    return [
        Run(problem, seed, method, settings.protocol)
        for problem in settings.problems
        for seed in settings.seeds
        for method in linear_task.names()
        if method != linear.PERTURBED or problem == SYNTHETIC or settings.slow_everywhere
    ]


def execute(run: Run) -> dict:
    """The record of one run: its place in the grid and what came out."""
    kind = synthetic if run.problem == SYNTHETIC else pglib
    task = _task(run.problem, run.seed)
    torch.manual_seed(run.seed)
    method = linear_task.build(run.method, task, kind.outputs(task))
    return linear_task.train(run, method, task, kind.network(task))


@lru_cache(maxsize=1)
def _task(problem: str, seed: int) -> linear_task.LinearTask:
    return synthetic.load(seed) if problem == SYNTHETIC else pglib.load(problem, seed)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    linear_task.main("dc_opf", arguments, asdict(settings), grid(settings), execute)


if __name__ == "__main__":
    main()
