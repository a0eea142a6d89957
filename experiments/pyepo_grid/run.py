"""How do torchqp's backwards do beside PyEPO's methods on PyEPO's own shortest paths?

    python experiments/pyepo_grid/run.py           # minutes: PyEPO's protocol, 3 initialisations
    python experiments/pyepo_grid/run.py --full    # 10 initialisations

Grid 5 x 5, degree 4, noise .5, linear model. Writes results.json and regret.png (report.md
discusses them).
"""

import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

import pyepo.metric  # noqa: E402
from pyepo.data import shortestpath  # noqa: E402
from pyepo.data.dataset import optDataset  # noqa: E402

from experiments.common import plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.common.tables import cell, distinct, mean_sd, select  # noqa: E402
from experiments.pyepo_grid import methods  # noqa: E402
from experiments.pyepo_grid.paths import GridModel  # noqa: E402

GRID, FEATURES, DEGREE, NOISE, DATA_SEED = (5, 5), 5, 4, 0.5, 42
TRAIN, TEST = 1000, 1000
LR, BATCH = 1e-2, 32


@dataclass(frozen=True)
class Settings:
    """What is run: every method from every initialisation."""

    epochs: int
    seeds: tuple[int, ...]


DEFAULT = Settings(epochs=20, seeds=(42, 43, 44))
FULL = Settings(epochs=20, seeds=tuple(range(42, 52)))


class Run(NamedTuple):
    """One training; the data are always the same."""

    method: str
    seed: int
    epochs: int


@lru_cache(maxsize=1)
def data() -> tuple[GridModel, optDataset, optDataset]:
    """PyEPO's samples, split as scikit-learn's train_test_split does with seed 42."""
    x, c = shortestpath.genData(TRAIN + TEST, FEATURES, GRID, DEGREE, NOISE, seed=DATA_SEED)
    order = np.random.RandomState(DATA_SEED).permutation(TRAIN + TEST)
    test, train = order[:TEST], order[TEST:]
    model = GridModel(GRID)
    return model, optDataset(model, x[train], c[train]), optDataset(model, x[test], c[test])


def execute(run: Run) -> dict:
    """Trains a linear model; the record has the test regret in percent after each epoch."""
    model, train, test = data()
    torch.manual_seed(run.seed)
    predictor = nn.Linear(FEATURES, model.num_cost)
    loss = methods.build(run.method, model)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=LR)
    batches = DataLoader(train, batch_size=BATCH, shuffle=True)
    judged = DataLoader(test, batch_size=TEST)
    curve, seconds = [100.0 * pyepo.metric.regret(predictor, model, judged)], 0.0
    for _ in range(run.epochs):
        start = time.perf_counter()
        for x, c, w, z in batches:
            optimizer.zero_grad()
            loss(predictor(x), c, w, z).backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        curve.append(100.0 * pyepo.metric.regret(predictor, model, judged))
    key = {"method": run.method, "seed": run.seed}
    return key | {"final": curve[-1], "best": min(curve), "seconds": seconds, "curve": curve}


def table(record: dict) -> str:
    """One row per method, and what PyEPO's notebook has."""
    lines = [
        "| method | final test regret, % | best, % | seconds, least "
        "| notebook: final | best | seconds, 2 processes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in distinct(record["runs"], "method"):
        runs = select(record, method=method)
        cells = [cell(runs, name, "{:.2f}") for name in ("final", "best")]
        cells.append(f"{min(r['seconds'] for r in runs):.1f}")
        cells += [str(value) for value in methods.NOTEBOOK.get(method, ("", "", ""))]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(record: dict, path: Path) -> None:
    """Test regret by epoch: ours and PyEPO's in two panels, SPO+ in both."""
    figure, (axes,) = plots.panels(1, 2, 4.6, 3.4)
    groups = {
        "torchqp's backwards": (methods.TWO_STAGE, "SPO+", *methods.SHOWN),
        "PyEPO's methods": (methods.TWO_STAGE, *methods.PYEPO),
    }
    for ax, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            curves = [r["curve"] for r in select(record, method=name)]
            if curves:
                values = [mean_sd(column) for column in zip(*curves, strict=True)]
                mean, sd = map(list, zip(*values, strict=True))
                dashes = "--" if name in (methods.TWO_STAGE, "SPO+") else "-"
                plots.band(ax, list(range(len(mean))), mean, sd, label=name, linestyle=dashes)
        ax.set(title=title, xlabel="epoch", ylabel="test regret, %", yscale="log", ylim=(6, 60))
        ax.set_yticks([6, 8, 10, 15, 20, 30, 50], ["6", "8", "10", "15", "20", "30", "50"])
        ax.minorticks_off()
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(ncols=2, fontsize=8)
    plots.save(figure, path)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    runs = [Run(name, seed, settings.epochs) for name in methods.NAMES for seed in settings.seeds]
    records = sweep(execute, runs, arguments.out, arguments.workers)
    record = publish(
        arguments.out,
        {
            "experiment": "pyepo_grid",
            "full": arguments.full,
            "settings": asdict(settings),
            "runs": records,
        },
    )
    draw(record, arguments.out / "regret.png")
    print(table(record))


if __name__ == "__main__":
    main()
