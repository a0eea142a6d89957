"""Are ReLU and other piecewise linear functions QP layers, forward and backward (OptNet, Thm 2)?

    python experiments/relu/run.py            # seconds
    python experiments/relu/run.py --full     # a hundred times the samples

Prints a table and writes results.json and functions.png (report.md discusses them).
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.steps import take_step  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.relu import identities  # noqa: E402
from experiments.relu.identities import IDENTITIES  # noqa: E402

TRAINING = "network with QP in place of ReLU"
WIDTH, STEPS = 20, 200


class Run(NamedTuple):
    """An identity at ``samples`` random points, or the training of two equal networks."""

    name: str
    samples: int
    seed: int = 0


def grid(samples: int) -> list[Run]:
    """Every identity, then the training."""
    return [Run(name, samples) for name in (*IDENTITIES, TRAINING)]


def execute(run: Run) -> dict:
    """Largest absolute differences of values and of gradients."""
    record = train(run) if run.name == TRAINING else compare(run)
    return {"name": run.name, "samples": run.samples} | record


def compare(run: Run) -> dict:
    """An identity: values, and gradients of a random linear function of them."""
    identity = IDENTITIES[run.name]
    generator = torch.Generator().manual_seed(run.seed)
    inputs = [t.requires_grad_() for t in identity.inputs(generator, run.samples)]
    expected, found = identity.closed(*inputs), identity.by_qp(*inputs)
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    weight /= len(expected)
    wanted = torch.autograd.grad(expected, inputs, weight)
    gradients = torch.autograd.grad(found, inputs, weight)
    return {
        "value_error": float((found - expected).detach().abs().max()),
        "gradient_error": max(
            float((g - w).abs().max() / w.abs().max())
            for g, w in zip(gradients, wanted, strict=True)
        ),
    }


def train(run: Run) -> dict:
    """Trains a network with ReLU and one with the QP from the same weights on the same data."""
    generator = torch.Generator().manual_seed(run.seed)
    x = torch.randn(run.samples, WIDTH, generator=generator, dtype=torch.float64)
    y = (x[:, :1] * x[:, 1:2]).abs()
    losses, outputs = [], []
    for activation in (identities.relu, identities.relu_by_bound):
        torch.manual_seed(run.seed)
        first = torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        last = torch.nn.Linear(WIDTH, 1, dtype=torch.float64)

        def network(activation=activation, first=first, last=last):
            return last(activation(x, first.weight, first.bias))

        optimizer = torch.optim.Adam([*first.parameters(), *last.parameters()], lr=1e-2)
        losses.append(
            [
                take_step(optimizer, lambda network=network: (network() - y).square().mean()).loss
                for _ in range(STEPS)
            ]
        )
        outputs.append(network().detach())
    return {
        "value_error": float((outputs[0] - outputs[1]).abs().max()),
        "loss_error": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "first_loss": losses[1][0],
        "last_loss": losses[1][-1],
    }


def draw(path: Path) -> None:
    """A piecewise linear function and the maximum of three lines, by QP and in closed form."""
    figure, ((piecewise, largest),) = plots.panels(1, 2, 3.6, 2.8)
    x = torch.linspace(-2.0, 2.0, 201, dtype=torch.float64)[:, None]
    w, a, b = (
        torch.tensor(values, dtype=torch.float64)
        for values in ((1.0, -2.0, 1.5, 1.0), (1.0, 1.0, 1.0, -1.0), (1.5, 0.5, -0.5, -1.0))
    )
    piecewise.plot(x, identities.piecewise(x, w, a, b), color="0.6", linewidth=4, label="closed")
    piecewise.plot(x, identities.piecewise_by_qp(x, w, a, b), color="C3", label="QP")
    piecewise.set(xlabel="x", ylabel="f(x)", title="sum of w_i max(a_i x + b_i, 0)")
    piecewise.legend()
    points = torch.cat([x, torch.ones_like(x)], dim=1)
    lines = torch.tensor([[-1.0, -1.2], [0.2, -0.6], [1.5, -1.5]], dtype=torch.float64)
    largest.plot(x, identities.largest(points, lines), color="0.6", linewidth=4, label="closed")
    for name, function, color in (
        ("min z (LP)", identities.largest_by_lp, "C3"),
        ("min z^2 (text)", identities.largest_by_square, "C0"),
    ):
        largest.plot(x, function(points, lines), color=color, label=name)
    largest.set(xlabel="x", title="the largest of three lines")
    largest.legend()
    plots.save(figure, path)


def table(runs: list[dict]) -> str:
    """One row an identity, as Markdown."""
    lines = ["| function | samples | values | gradients |", "| --- | --- | --- | --- |"]
    for r in runs:
        last = (
            f"{r['gradient_error']:.1e}"
            if "gradient_error" in r
            else (f"losses of {STEPS} steps {r['loss_error']:.1e}")
        )
        lines.append(f"| {r['name']} | {r['samples']} | {r['value_error']:.1e} | {last} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    start = time.perf_counter()
    runs = sweep(execute, grid(100_000 if arguments.full else 1000), arguments.out, workers=1)
    record = {
        "experiment": "relu",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "runs": runs,
    }
    draw(arguments.out / "functions.png")
    publish(arguments.out, record)
    print(table(runs))
    print(f"results and figure in {arguments.out}")


if __name__ == "__main__":
    main()
