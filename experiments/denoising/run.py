"""Can a QP layer learn to denoise signals better than total variation (OptNet, section 4.2)?

    python experiments/denoising/run.py            # minutes
    python experiments/denoising/run.py --full     # the paper's protocol: 50 epochs, every option

Prints a table and writes results.json and denoising.png (report.md discusses them).
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import Protocol, fit  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.denoising import figures, models  # noqa: E402
from experiments.denoising.data import LENGTH, load  # noqa: E402

FC, TV, PURE, TUNED = "FC", "TV", "pure OptNet", "tuned OptNet"
METHODS = (FC, TV, PURE, TUNED)
PAPER = {FC: (18.5, 29.8), TV: (16.3, 16.5), PURE: (52.9, 53.3), TUNED: (13.8, 14.4)}
PURE_LAM, TUNED_LAM = 13.0, 21.21  # where the paper's layers start
MEASURED = 500  # training signals of which the training error is taken
EXAMPLE = 3  # the test signal that the figure shows


@dataclass(frozen=True)
class Settings:
    """What is run; the options are hidden units, lam and the weight of ||D||_1."""

    hidden: tuple[int, ...]
    lams: tuple[float, ...]
    penalties: tuple[float, ...]
    seeds: tuple[int, ...]
    fc: Protocol
    pure: Protocol
    tuned: Protocol
    scanned: int  # training signals on which lam is chosen


DEFAULT = Settings(
    hidden=(300, 1000),
    lams=tuple(float(lam) for lam in range(10, 31)),
    penalties=(0.01,),
    seeds=(0,),
    fc=Protocol(epochs=50, batch_size=150, lr=1e-3),
    # A step's time goes with the signals in it, so that small batches learn more in a minute.
    pure=Protocol(epochs=4, batch_size=50, lr=1e-2),
    tuned=Protocol(epochs=8, batch_size=50, lr=1e-4),
    scanned=1000,
)
FULL = Settings(
    hidden=tuple(range(100, 1001, 100)),
    lams=tuple(float(lam) for lam in range(0, 101)),
    penalties=(0.01, 0.1),
    seeds=(0, 1, 2),
    fc=Protocol(epochs=50, batch_size=150, lr=1e-3),
    pure=Protocol(epochs=50, batch_size=150, lr=1e-2),
    tuned=Protocol(epochs=50, batch_size=150, lr=1e-4),
    scanned=8500,
)


class Run(NamedTuple):
    """One denoiser.

    Attributes:
        method, option: what is trained, see :class:`Settings`.
        seed: of the weights and of the order of the signals.
        protocol: None where nothing is trained.
        signals: how many of the training signals it sees; None is all.
        judged: how many of the validation and of the test signals it is judged by; None is all.
    """

    method: str
    option: float
    seed: int = 0
    protocol: Protocol | None = None
    signals: int | None = None
    judged: int | None = None


def grid(settings: Settings) -> list[Run]:
    """Every run of the experiment."""
    runs = [Run(TV, lam, signals=settings.scanned) for lam in settings.lams]
    for seed in settings.seeds:
        runs += [Run(FC, hidden, seed, settings.fc) for hidden in settings.hidden]
        runs += [Run(PURE, penalty, seed, settings.pure) for penalty in settings.penalties]
        runs.append(Run(TUNED, TUNED_LAM, seed, settings.tuned))
    return runs


def build(run: Run) -> nn.Module:
    """The denoiser with its initial weights."""
    torch.manual_seed(run.seed)
    if run.method == FC:
        return models.FullyConnected(LENGTH, int(run.option))
    if run.method == PURE:
        return models.PureOptNet(LENGTH, PURE_LAM)
    if run.method == TUNED:
        return models.TunedOptNet(LENGTH, run.option)
    return models.TotalVariation(LENGTH, run.option)


def execute(run: Run) -> dict:
    """The record of one run: mean squared errors per entry of a signal."""
    data = load()
    model = build(run)
    train = data.train[: run.signals]

    def loss(output: Tensor, indices: Tensor) -> Tensor:
        error = (output - data.clean[indices]).square().sum() / LENGTH
        if run.method == PURE:
            error = error + run.option * len(indices) * model.D.abs().sum()
        return error

    def score(indices: Tensor) -> float:
        model.eval()
        with torch.no_grad():
            error = (model(data.noisy[indices]) - data.clean[indices]).square().mean()
        model.train()
        return float(error)

    def scores(_: nn.Module | None = None) -> dict[str, float]:
        return {
            "train": score(train[: run.judged or run.signals or MEASURED]),
            "validation": score(data.validation[: run.judged]),
            "test": score(data.test[: run.judged]),
        }

    key = {"method": run.method, "option": run.option, "seed": run.seed}
    if run.protocol is None:
        return key | scores()
    first = scores()
    history = fit(
        model,
        data.noisy,
        loss,
        scores,
        train,
        run.protocol,
        torch.Generator().manual_seed(run.seed),
    )
    best = history.best_epoch
    curves = {name: [first[name], *values] for name, values in history.scores.items()}
    record = {name: values[best] for name, values in history.scores.items()}
    record |= {"best_epoch": best + 1, "seconds": history.seconds, "curves": curves}
    if run.method == PURE:
        record["D"] = [[round(x, 3) for x in row] for row in model.D.tolist()]
    if run.method == TUNED and run.seed == 0:
        record["example"] = example(model)
    return key | record


def example(model: nn.Module) -> dict[str, list[float]]:
    """One test signal, and what total variation and the layer make of it."""
    data = load()
    index = data.test[EXAMPLE]
    model.eval()
    with torch.no_grad():
        outputs = {
            TV: models.TotalVariation(LENGTH, TUNED_LAM)(data.noisy[index : index + 1])[0],
            TUNED: model(data.noisy[index : index + 1])[0],
        }
    signals = {"noisy": data.noisy[index], "clean": data.clean[index]} | outputs
    return {name: [round(x, 2) for x in signal.tolist()] for name, signal in signals.items()}


def chosen(runs: list[dict], method: str) -> list[dict]:
    """A method's runs, one a seed, with the option that is best on average.

    TV's lam is taken by the training error, as in the paper; the others by the validation error.
    """
    mine = [r for r in runs if r["method"] == method]
    part = "train" if method == TV else "validation"
    totals: dict[float, float] = {}
    for r in mine:
        totals[r["option"]] = totals.get(r["option"], 0.0) + r[part]
    best = min(totals, key=totals.__getitem__)
    return [r for r in mine if r["option"] == best]


def table(runs: list[dict]) -> str:
    """Ours beside the paper's, as Markdown."""
    lines = [
        "| method | option | train | test | paper, train | paper, test | epochs | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        best = chosen(runs, method)
        train, test = (sum(r[part] for r in best) / len(best) for part in ("train", "test"))
        paper = PAPER[method]
        trained = "curves" in best[0]
        epochs = str(len(best[0]["curves"]["test"]) - 1) if trained else ""
        seconds = f"{sum(r['seconds'] for r in best) / len(best):.0f}" if trained else ""
        lines.append(
            f"| {method} | {best[0]['option']:g} | {train:.2f} | {test:.2f} "
            f"| {paper[0]} | {paper[1]} | {epochs} | {seconds} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    start = time.perf_counter()
    runs = sweep(execute, grid(settings), arguments.out, arguments.workers)
    record = {
        "experiment": "denoising",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "settings": asdict(settings) | {"workers": arguments.workers},
        "runs": runs,
    }
    figures.draw(record, arguments.out / "denoising.png")
    publish(arguments.out, record)
    print(table(runs))
    print(f"{len(runs)} runs in {record['seconds']:.0f} s; results and figure in {arguments.out}")


if __name__ == "__main__":
    main()
