"""A classifier with and without an OptNet layer: network, training, table and figure.

    plain:   784 - 500 - 10 - linear 10 - log-softmax
    OptNet:  784 - 500 - 10 - QP in R^10 with 10 inequalities - log-softmax

ReLU and batch norm follow the first two linear layers, as in the authors' code.
"""

import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import torchqp
from experiments.common import Protocol, plots
from experiments.common.command import parse, parser, publish
from experiments.common.steps import minibatches, take_step
from experiments.common.sweep import sweep
from experiments.common.tables import mean_sd
from experiments.mnist.images import Images, MissingImagesError, load, subset

PLAIN, OPTNET = "plain", "OptNet"
HIDDEN, CLASSES = 500, 10


@dataclass(frozen=True)
class Settings:
    """What is run: both networks with every seed, on the first ``images`` or (None) all."""

    protocol: Protocol
    seeds: tuple[int, ...]
    images: int | None = None


DEFAULT = Settings(Protocol(epochs=10, batch_size=128, lr=1e-3), seeds=(0, 1, 2))
FULL = Settings(Protocol(epochs=30, batch_size=64, lr=1e-3), seeds=(0, 1, 2, 3, 4))


class Run(NamedTuple):
    """One training."""

    dataset: str
    root: str | None
    network: str
    seed: int
    protocol: Protocol
    images: int | None


class OptNetHead(nn.Module):
    """The QP layer with its input as the linear term; it computes in float64.

    L begins with I added to it, as in the timing script of OptNet's authors. Without it Q = LL' is
    nearly singular at first, and training starts late (the loss of the first steps is above 8).
    """

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.layer = torchqp.OptNet(CLASSES, n_ineq=CLASSES, dtype=torch.float64)
        with torch.no_grad():
            self.layer.L.diagonal().add_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.double()).to(x.dtype)


def network(name: str, pixels: int) -> nn.Sequential:
    """A classifier that returns log-probabilities."""
    body = []
    for fan_in, fan_out in ((pixels, HIDDEN), (HIDDEN, CLASSES)):
        body += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.BatchNorm1d(fan_out)]
    head = nn.Linear(CLASSES, CLASSES) if name == PLAIN else OptNetHead()
    return nn.Sequential(*body, head, nn.LogSoftmax(-1))


def execute(run: Run) -> dict:
    """Trains one network and returns its record."""
    images = subset(_images(run.dataset, run.root), run.images)
    key = {"network": run.network, "seed": run.seed}
    return key | train(images, run.network, run.seed, run.protocol)


def train(images: Images, name: str, seed: int, protocol: Protocol) -> dict:
    """Test accuracy after the last epoch, and curves."""
    torch.manual_seed(seed)
    model = network(name, images.train.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=protocol.lr, fused=True)
    # Falls in a line to nearly zero, so that the last epoch is not a matter of luck.
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, protocol.epochs - 1)
    generator = torch.Generator().manual_seed(seed)
    everything = torch.arange(len(images.train))
    curves: dict[str, list[float]] = {"loss": [], "test_loss": [], "test_accuracy": []}
    seconds = []
    for _ in range(protocol.epochs):
        model.train()
        losses = []
        start = time.perf_counter()
        for indices in minibatches(everything, protocol.batch_size, generator):

            def loss(indices: Tensor = indices) -> Tensor:
                found = model(images.train[indices])
                return nn.functional.nll_loss(found, images.train_labels[indices])

            losses.append(take_step(optimizer, loss).loss)
        seconds.append(time.perf_counter() - start)
        rate.step()
        curves["loss"].append(sum(losses) / len(losses))
        accuracy, test_loss = judge(model, images)
        curves["test_accuracy"].append(accuracy)
        curves["test_loss"].append(test_loss)
    return {
        "test_accuracy": curves["test_accuracy"][-1],
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "parameters": sum(p.numel() for p in model.parameters()),
        "curves": curves,
    }


def judge(model: nn.Module, images: Images) -> tuple[float, float]:
    """Accuracy and loss on the test images."""
    model.eval()
    with torch.no_grad():
        found = model(images.test)
    right = found.argmax(-1) == images.test_labels
    return float(right.double().mean()), float(nn.functional.nll_loss(found, images.test_labels))


@lru_cache(maxsize=1)
def _images(dataset: str, root: str | None) -> Images:
    return load(dataset, None if root is None else Path(root))


def table(runs: list[dict]) -> str:
    """One row a network: mean +- standard deviation over the seeds."""
    lines = [
        "| network | parameters | test accuracy | test loss | training loss | s an epoch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (PLAIN, OPTNET):
        mine = [r for r in runs if r["network"] == name]
        cells = [f"{mine[0]['parameters']:,}"]
        for value, form in (
            (lambda r: r["test_accuracy"], "{:.2%}"),
            (lambda r: r["curves"]["test_loss"][-1], "{:.3f}"),
            (lambda r: r["curves"]["loss"][-1], "{:.3f}"),
            (lambda r: r["seconds_per_epoch"], "{:.1f}"),
        ):
            cells.append(" +- ".join(form.format(x) for x in mean_sd(value(r) for r in mine)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(runs: list[dict], path: Path) -> None:
    """Training loss and test error by epoch, with bands of one standard deviation."""
    figure, ((loss, error),) = plots.panels(1, 2, 3.6, 2.8)
    panels: tuple[tuple, ...] = (
        (loss, "loss", lambda v: v, "training loss"),
        (error, "test_accuracy", lambda v: 100.0 * (1.0 - v), "test error, %"),
    )
    for ax, name, change, text in panels:
        for label, color in ((PLAIN, "C7"), (OPTNET, "C3")):
            curves = [r["curves"][name] for r in runs if r["network"] == label]
            by_epoch = [mean_sd(map(change, values)) for values in zip(*curves, strict=True)]
            epochs = list(range(1, len(by_epoch) + 1))
            mean, sd = map(list, zip(*by_epoch, strict=True))
            plots.band(ax, epochs, mean, sd, color=color, label=label)
        ax.set(xlabel="epoch", ylabel=text)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()
    plots.save(figure, path)


def main(question: str | None, here: Path, dataset: str) -> None:
    """The command of both experiments."""
    options: ArgumentParser = parser(question, here)
    options.add_argument(
        "--data", type=Path, metavar="DIR", help=f"offline copy: DIR/{dataset}/raw/*-ubyte"
    )
    arguments = parse(options)
    settings = FULL if arguments.full else DEFAULT
    root = None if arguments.data is None else str(arguments.data.resolve())
    try:
        load(dataset, arguments.data)
    except MissingImagesError as error:
        sys.exit(str(error))
    start = time.perf_counter()
    runs = sweep(execute, grid(settings, dataset, root), arguments.out, arguments.workers)
    record = {
        "experiment": here.name,
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "settings": asdict(settings) | {"workers": arguments.workers, "hidden": HIDDEN},
        "runs": runs,
    }
    draw(runs, arguments.out / "curves.png")
    publish(arguments.out, record)
    print(table(runs))
    print(f"{len(runs)} runs in {record['seconds']:.0f} s; results and figure in {arguments.out}")


def grid(settings: Settings, dataset: str, root: str | None) -> list[Run]:
    """Both networks with every seed."""
    protocol, images = settings.protocol, settings.images
    return [
        Run(dataset, root, name, seed, protocol, images)
        for seed in settings.seeds
        for name in (PLAIN, OPTNET)
    ]
