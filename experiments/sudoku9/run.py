"""Does the Sudoku layer train at full size, 729 variables and 249 learned equalities?

    python experiments/sudoku9/run.py            # 240 steps of 8 puzzles: minutes
    python experiments/sudoku9/run.py --full     # one pass over 9,000 puzzles, three seeds

Prints a table and writes results.json and training.png (report.md discusses them).
"""

import math
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.steps import Step, minibatches, take_step  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.sudoku.boards import (  # noqa: E402
    Boards,
    digits,
    independent_rows,
    load,
    rules,
    valid,
)
from experiments.sudoku.layer import SudokuLayer  # noqa: E402

SIDE, LR = 9, 0.1
WINDOW = 10  # steps whose mean loss is one point of the curve


class Run(NamedTuple):
    """One training; ``judged`` test puzzles are solved before and after it.

    ``start`` is "random", or "rules": the layer then knows them, which is as good as it can get.
    """

    seed: int
    steps: int
    batch: int = 8
    judged: int = 200
    start: str = "random"


DEFAULT = [Run(seed=0, steps=240), Run(seed=0, steps=0, start="rules")]
FULL = [
    *(Run(seed=seed, steps=1125, judged=1000) for seed in (0, 1, 2)),
    Run(seed=0, steps=0, judged=1000, start="rules"),
]


def execute(run: Run) -> dict:
    """Trains one layer and returns its record."""
    boards = load(SIDE)
    torch.manual_seed(run.seed)
    layer = SudokuLayer(SIDE, "QP")
    if run.start == "rules":
        layer.A = torch.nn.Parameter(independent_rows(rules(SIDE)))
        torch.nn.init.constant_(layer.w, -math.log(SIDE))  # exp(w) = 1/9 makes b = 1
    optimizer = torch.optim.Adam(layer.parameters(), lr=LR, fused=True)
    generator = torch.Generator().manual_seed(run.seed)
    judged = boards.test[: run.judged]
    before = judge(layer, boards, judged)
    if run.steps == 0:
        return run._asdict() | {"before": before, "after": before}
    steps: list[Step] = []
    for indices in list(minibatches(boards.train, run.batch, generator))[: run.steps]:

        def loss(indices: Tensor = indices) -> Tensor:
            output = layer(boards.puzzle[indices])
            return (output - boards.solution[indices]).square().mean()

        steps.append(take_step(optimizer, loss))
    after = judge(layer, boards, judged)
    size = min(WINDOW, len(steps))
    return run._asdict() | {
        "before": before,
        "after": after,
        "forward_seconds": median(s.forward for s in steps),
        "backward_seconds": median(s.backward for s in steps),
        "loss": [
            sum(s.loss for s in steps[i : i + size]) / size
            for i in range(0, len(steps) - size + 1, size)
        ],
        "seconds": [s.forward + s.backward for s in steps],
    }


def judge(layer: SudokuLayer, boards: Boards, indices: Tensor) -> dict[str, float]:
    """Test error; cells are judged where the puzzle is empty."""
    with torch.no_grad():
        output = layer(boards.puzzle[indices])
    empty = boards.puzzle[indices].unflatten(-1, (SIDE, SIDE, SIDE)).sum(-1) == 0
    right = digits(output, SIDE) == digits(boards.solution[indices], SIDE)
    return {
        "mse": float((output - boards.solution[indices]).square().mean()),
        "cell_error": 1.0 - float(right[empty].double().mean()),
        "board_error": 1.0 - float(valid(output, SIDE).double().mean()),
    }


def draw(runs: list[dict], path: Path) -> None:
    """Loss by step, and how long a step takes as the active sets change."""
    figure, ((loss, seconds),) = plots.panels(1, 2, 3.6, 2.8)
    for r in (r for r in runs if r["steps"]):
        width = r["steps"] / len(r["loss"])
        steps = [width * (i + 1) for i in range(len(r["loss"]))]
        loss.plot(steps, r["loss"], label=f"seed {r['seed']}")
        seconds.plot(r["seconds"], linewidth=0.8)
    loss.set(xlabel="step", ylabel=f"training loss, mean of {WINDOW} steps", yscale="log")
    loss.legend()
    seconds.set(xlabel="step", ylabel=f"seconds a step of {runs[0]['batch']}", ylim=(0, None))
    plots.save(figure, path)


def table(runs: list[dict]) -> str:
    """One row a run, as Markdown."""
    lines = [
        "| start | seed | steps | batch | forward s | backward s | test MSE before, after "
        "| wrong empty cells before, after | wrong boards before, after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in runs:
        cells = [str(r[name]) for name in ("start", "seed", "steps", "batch")]
        for name in ("forward_seconds", "backward_seconds"):
            cells.append(f"{r[name]:.2f}" if name in r else "-")
        for name, form in (("mse", "{:.4f}"), ("cell_error", "{:.1%}"), ("board_error", "{:.1%}")):
            cells.append(", ".join(form.format(r[when][name]) for when in ("before", "after")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    start = time.perf_counter()
    runs = sweep(execute, FULL if arguments.full else DEFAULT, arguments.out, arguments.workers)
    record = {
        "experiment": "sudoku9",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "settings": {"lr": LR, "workers": arguments.workers},
        "runs": runs,
    }
    draw(runs, arguments.out / "training.png")
    publish(arguments.out, record)
    print(table(runs))
    print(f"{record['seconds']:.0f} s; results and figure in {arguments.out}")


if __name__ == "__main__":
    main()
