"""How much regret does the surrogate QP cost, and does smoothing it help ("You Shall Pass", 9.2)?

    python experiments/logsumexp/run.py            # minutes: batch 32, 30 epochs
    python experiments/logsumexp/run.py --full     # the paper's protocol, hours

Reproduces Table 1 of arXiv 2307.16304. Prints it and writes results.json and regret.png (report.md
discusses them).
"""

import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import Protocol, decisions, mlp, plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.looks import LOOK  # noqa: E402
from experiments.common.stocks import FEATURE_SETS, HIDDEN, load  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.common.tables import cell, distinct, mean_sd, select  # noqa: E402
from experiments.logsumexp import methods  # noqa: E402
from experiments.logsumexp.peer import milliseconds  # noqa: E402
from experiments.logsumexp.task import Task  # noqa: E402

PAPER = {"true problem": (0.834, 7965), "exact": (0.506, 762), "smoothed": (0.438, 801)}


@dataclass(frozen=True)
class Settings:
    """What is run: every combination of these with every method."""

    protocol: Protocol
    feature_sets: tuple[str, ...] = FEATURE_SETS
    seeds: tuple[int, ...] = (0, 1, 2, 3)


DEFAULT = Settings(Protocol(epochs=30, batch_size=32, lr=1e-3))
FULL = Settings(Protocol(epochs=80, batch_size=1, lr=5e-5))


class Run(NamedTuple):
    """One cell of the grid."""

    feature_set: str
    seed: int
    method: str
    protocol: Protocol


def grid(settings: Settings) -> list[Run]:
    """Every run; neighbours share their task."""
    return [
        Run(feature_set, seed, method, settings.protocol)
        for feature_set in settings.feature_sets
        for seed in settings.seeds
        for method in (methods.UNIFORM, *methods.NAMES)
    ]


def execute(run: Run) -> dict:
    """The record of one run: its place in the grid and what came out."""
    task = _task(run.seed, run.feature_set)
    key = {name: getattr(run, name) for name in ("feature_set", "seed", "method")}
    stocks = task.returns.shape[1]
    if run.method == methods.UNIFORM:
        everywhere = torch.full((len(task.data.test), stocks), 1.0 / stocks, dtype=torch.float64)
        return key | decisions.judge(task, everywhere)
    torch.manual_seed(run.seed)
    network = mlp(task.data.features.shape[1], HIDDEN, stocks)
    method = methods.build(run.method, task)
    return key | decisions.train(method, task, network, run.seed, run.protocol)


@lru_cache(maxsize=1)
def _task(seed: int, feature_set: str) -> Task:
    return Task.build(load(seed, feature_set))


def table(record: dict) -> str:
    """Table 1: one row per feature set and method, the paper's numbers in the last columns."""
    lines = [
        "| features | method | test regret (range) | training regret / abs(f* + log n) "
        "| zero gradients, last epoch | seconds, least | paper: regret | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for feature_set in distinct(record["runs"], "feature_set"):
        for method in distinct(record["runs"], "method"):
            runs = select(record, feature_set=feature_set, method=method)
            regret, seconds = PAPER.get(method, ("", "")) if feature_set == "forecast" else ("", "")
            cells = [
                cell(runs, "range_regret"),
                cell(runs, "train_regret"),
                cell(runs, "zero_share", "{:.1%}"),
                f"{_seconds(runs):.1f}" if method != methods.UNIFORM else "",
            ]
            lines.append(
                f"| {feature_set} | {method} | {' | '.join(cells)} | {regret} | {seconds} |"
            )
    return "\n".join(lines) + "\n"


def _seconds(runs: list[dict]) -> float:
    """The least of the seeds: what else runs on the machine only adds."""
    return min(r["seconds"] for r in runs)


def ratios(record: dict, feature_set: str) -> list[float]:
    """Regret of smoothed over regret of the exact QP, seed by seed (paper: .438 / .506 = .87)."""
    runs = select(record, feature_set=feature_set)
    regret = {(r["method"], r["seed"]): r["range_regret"] for r in runs}
    return [regret["smoothed", s] / regret["exact", s] for s in distinct(runs, "seed")]


def draw(record: dict, path: Path) -> None:
    """Test regret and training seconds of each method."""
    feature_sets = distinct(record["runs"], "feature_set")
    names = distinct(record["runs"], "method")
    figure, (axes,) = plots.panels(1, len(feature_sets) + 1, 3.6, 3.0)
    for ax, feature_set in zip(axes, feature_sets, strict=False):
        for place, name in enumerate(names):
            runs = select(record, feature_set=feature_set, method=name)
            value, sd = mean_sd(r["range_regret"] for r in runs)
            ax.bar(place, value, yerr=sd, color=LOOK[name]["color"], ecolor="0.5", capsize=3)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
        ax.set(title=f"feature set: {feature_set}", ylabel="test range regret")
    for place, name in enumerate(names[1:]):
        runs = select(record, feature_set=feature_sets[-1], method=name)
        axes[-1].bar(place, _seconds(runs), color=LOOK[name]["color"])
    axes[-1].set_xticks(range(len(names) - 1), names[1:], rotation=40, ha="right")
    axes[-1].set(title="training time", ylabel="seconds")
    plots.save(figure, path)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    runs = sweep(execute, grid(settings), arguments.out, arguments.workers)
    record = publish(
        arguments.out,
        {
            "experiment": "logsumexp",
            "full": arguments.full,
            "settings": asdict(settings)
            | {"workers": arguments.workers, "hidden": HIDDEN, "tau_relative": decisions.TAU},
            "true_problem_ms": milliseconds(),
            "runs": runs,
        },
    )
    draw(record, arguments.out / "regret.png")
    print(table(record))
    for feature_set in settings.feature_sets:
        values = ratios(record, feature_set)
        print(
            f"{feature_set}: smoothed / exact {[round(v, 3) for v in values]}, {mean(values):.3f}"
        )
    print("true problem, ms a sample:", record["true_problem_ms"])


if __name__ == "__main__":
    main()
