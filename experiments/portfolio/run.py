"""Reproduces the portfolio experiment of "You Shall Pass" (arXiv 2307.16304, Fig. 3).

    python experiments/portfolio/run.py            # minutes: batch 32, 30 epochs, lam 0, .1, 1
    python experiments/portfolio/run.py --full     # the paper's protocol, about 6 hours

Prints tables and writes results.json, regret.png and gradients.png (report.md discusses them).
"""

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import Protocol, environment, fit, mlp, write_json  # noqa: E402
from experiments.portfolio import figures, methods, tables  # noqa: E402
from experiments.portfolio.data import FEATURE_SETS, FORECAST_CORRELATION, load  # noqa: E402
from experiments.portfolio.task import Task  # noqa: E402

HIDDEN = (256, 256)


@dataclass(frozen=True)
class Settings:
    """What is run: every combination of these, with every method that applies."""

    protocol: Protocol
    lams: tuple[float, ...]
    feature_sets: tuple[str, ...] = FEATURE_SETS
    seeds: tuple[int, ...] = (0, 1, 2, 3)


DEFAULT = Settings(Protocol(epochs=30, batch_size=32, lr=1e-3), lams=(0.0, 0.1, 1.0))
FULL = Settings(Protocol(epochs=80, batch_size=1, lr=5e-5), lams=(0.0, 0.1, 0.25, 0.5, 1.0, 2.0))


def train(name: str, task: Task, seed: int, protocol: Protocol) -> dict:
    """Trains one network and returns its record: test regret at the best epoch, and curves."""
    data = task.data
    method = methods.build(name, task)
    torch.manual_seed(seed)
    network = mlp(data.features.shape[1], HIDDEN, data.returns.shape[1])

    def regret(indices: torch.Tensor) -> float:
        return task.relative_regret(method.decide(network(data.features[indices])), indices)

    history = fit(
        network,
        data.features,
        method.loss,
        lambda _: {"validation": regret(data.validation), "train": regret(data.train)},
        data.train,
        protocol,
        torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        decisions = method.decide(network(data.features[data.test]))
    return judge(task, decisions) | {
        "train_regret": history.scores["train"][-1],
        "zero_share": history.zero_share[-1],
        "best_epoch": history.best_epoch,
        "zero_gap": history.zero_gap,
        "seconds": history.seconds,
        "curves": {
            "train_regret": history.scores["train"],
            "validation_regret": history.scores["validation"],
            "zero_share": history.zero_share,
            "gradient_norm": history.gradient_norm,
        },
    }


def judge(task: Task, decisions: torch.Tensor) -> dict:
    """Test regret in both normalisations."""
    return {
        "range_regret": task.range_regret(decisions, task.data.test),
        "relative_regret": task.relative_regret(decisions, task.data.test),
    }


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
        for feature_set in settings.feature_sets
        for seed in settings.seeds
        for lam in settings.lams
        for method in (methods.UNIFORM, *methods.names(lam))
    ]


def execute(run: Run) -> dict:
    """The record of one run: its place in the grid and what came out."""
    task = _task(run.seed, run.feature_set, run.lam)
    key = {name: getattr(run, name) for name in ("feature_set", "lam", "seed", "method")}
    if run.method == methods.UNIFORM:
        stocks = task.data.returns.shape[1]
        everywhere = torch.full((len(task.data.test), stocks), 1.0 / stocks, dtype=torch.float64)
        return rounded(key | judge(task, everywhere))
    return rounded(key | train(run.method, task, run.seed, run.protocol))


def execute_all(runs: list[Run], workers: int) -> list[dict]:
    """Executes the runs in processes of one thread each: the matrices are too small for more."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        return list(tqdm(pool.map(execute, runs), total=len(runs), unit="run", smoothing=0))


@lru_cache(maxsize=2)
def _task(seed: int, feature_set: str, lam: float) -> Task:
    return Task.build(load(seed, feature_set), lam)


def rounded(value: object) -> object:
    """Keeps six significant digits of every float, so that the results file stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the paper's protocol and every lam")
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: beside this file)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)"
    )
    arguments = parser.parse_args()
    settings = FULL if arguments.full else DEFAULT
    out = arguments.out or (HERE / "full" if arguments.full else HERE)

    start = time.perf_counter()
    runs = execute_all(grid(settings), arguments.workers)
    record = {
        "experiment": "portfolio",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        **environment(),
        "settings": asdict(settings)
        | {
            "workers": arguments.workers,
            "hidden": HIDDEN,
            "tau_relative": methods.TAU,
            "alpha": {str(lam): methods.alpha(lam) for lam in settings.lams},
            "forecast_correlation": FORECAST_CORRELATION,
        },
        "absent": {methods.SPO_PLUS: methods.PYEPO_MISSING} if methods.PYEPO_MISSING else {},
        "runs": runs,
    }
    write_json(out / "results.json", record)
    figures.draw_regret(record, out / "regret.png")
    figures.draw_gradients(record, out / "gradients.png")
    print(tables.results(record))
    print(tables.margins(record))
    for name, reason in record["absent"].items():
        print(f"{name} was not run: {reason}")
    print(f"{len(runs)} runs in {record['seconds']:.0f} s; results and figures in {out}")


if __name__ == "__main__":
    main()
