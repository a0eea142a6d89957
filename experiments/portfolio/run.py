"""Does the choice of the backward decide what a decision layer learns ("You Shall Pass", 9.1, 9.3)?

    python experiments/portfolio/run.py            # minutes: batch 32, 30 epochs
    python experiments/portfolio/run.py --full     # the paper's protocol, about 8 hours

Reproduces Fig. 3 and 4a,b of arXiv 2307.16304. Prints tables and writes results.json, regret.png,
gradients.png and linear.png (report.md discusses them).
"""

import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import Protocol, decisions, linear, mlp  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.stocks import FORECAST_CORRELATION, HIDDEN, load  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.portfolio import figures, methods, tables  # noqa: E402
from experiments.portfolio.task import Task  # noqa: E402

LAMS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Settings:
    """What is run: every combination of these, with every method that applies.

    ``lams`` are by feature set, and ``perturbed`` are the sets on which PyEPO's perturbed method is
    run, which takes as long as all others together.
    """

    protocol: Protocol
    lams: dict[str, tuple[float, ...]]
    perturbed: tuple[str, ...] = ("forecast",)
    seeds: tuple[int, ...] = (0, 1, 2, 3)


DEFAULT = Settings(
    Protocol(epochs=30, batch_size=32, lr=1e-3), lams={"forecast": LAMS, "real": (0.0, 0.1, 1.0)}
)
FULL = Settings(
    Protocol(epochs=80, batch_size=1, lr=5e-5),
    lams={"forecast": LAMS, "real": LAMS},
    perturbed=("forecast", "real"),
)


def train(name: str, task: Task, seed: int, protocol: Protocol) -> dict:
    """Trains one network and returns its record: test regret at the best epoch, and curves."""
    torch.manual_seed(seed)
    network = mlp(task.data.features.shape[1], HIDDEN, task.data.returns.shape[1])
    return decisions.train(methods.build(name, task), task, network, seed, protocol)


class Run(NamedTuple):
    """One cell of the grid."""

    feature_set: str
    seed: int
    lam: float
    method: str
    protocol: Protocol


def grid(settings: Settings) -> list[Run]:
    """Every run of the experiment; neighbours share their data and task."""
    return [
        Run(feature_set, seed, lam, method, settings.protocol)
        for feature_set, lams in settings.lams.items()
        for seed in settings.seeds
        for lam in lams
        for method in (methods.UNIFORM, *methods.names(lam))
        if method != linear.PERTURBED or feature_set in settings.perturbed
    ]


def execute(run: Run) -> dict:
    """The record of one run: its place in the grid and what came out."""
    task = _task(run.seed, run.feature_set, run.lam)
    key = {name: getattr(run, name) for name in ("feature_set", "lam", "seed", "method")}
    if run.method == methods.UNIFORM:
        stocks = task.data.returns.shape[1]
        everywhere = torch.full((len(task.data.test), stocks), 1.0 / stocks, dtype=torch.float64)
        return key | decisions.judge(task, everywhere)
    return key | train(run.method, task, run.seed, run.protocol)


@lru_cache(maxsize=2)
def _task(seed: int, feature_set: str, lam: float) -> Task:
    return Task.build(load(seed, feature_set), lam)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    out = arguments.out

    runs = sweep(execute, grid(settings), out, arguments.workers)
    record = publish(
        out,
        {
            "experiment": "portfolio",
            "full": arguments.full,
            "settings": asdict(settings)
            | {
                "workers": arguments.workers,
                "hidden": HIDDEN,
                "tau_relative": decisions.TAU,
                "alpha": {str(lam): methods.alpha(lam) for lam in LAMS},
                "forecast_correlation": FORECAST_CORRELATION,
            },
            "absent": dict.fromkeys(linear.NAMES, linear.PYEPO_MISSING)
            if linear.PYEPO_MISSING
            else {},
            "runs": runs,
        },
    )
    figures.draw_regret(record, out / "regret.png")
    figures.draw_gradients(record, out / "gradients.png")
    figures.draw_linear(record, out / "linear.png")
    print(tables.results(record))
    print(tables.margins(record))
    for name, reason in record["absent"].items():
        print(f"{name} was not run: {reason}")
    print(f"{len(runs)} runs; results and figures in {out}")


if __name__ == "__main__":
    main()
