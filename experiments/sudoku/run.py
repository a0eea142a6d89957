"""Can a layer learn the rules of 4x4 Sudoku from solved puzzles (OptNet, Fig. 5; LPGD)?

    python experiments/sudoku/run.py            # minutes
    python experiments/sudoku/run.py --full     # 20 epochs, 5 seeds, every tau, rho and side: hours

Prints tables and writes results.json, errors.png and lpgd.png (report.md discusses them).
"""

import sys
import time
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.steps import Step, minibatches, take_step  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.sudoku import figures, tables  # noqa: E402
from experiments.sudoku.boards import Boards, load, valid  # noqa: E402
from experiments.sudoku.layer import WEIGHT, SudokuLayer  # noqa: E402
from torchqp import KKT, LPGD  # noqa: E402
from torchqp.backward import Backward  # noqa: E402

SIDE, BATCH, LR = 4, 150, 0.1
COOLED = 2  # epochs at the end of the QP form's training, at a tenth of LR
WINDOW = 10  # steps whose mean loss is one point of a curve


class Method(NamedTuple):
    """A form of the layer and its backward.

    ``tau`` is LPGD's, absolute. ``rho`` is LPGD's; with KKT, the LP gets Q = rho I.
    """

    form: str
    mode: str
    tau: float = 0.0
    rho: float = 0.0

    def backward(self) -> Backward:
        if self.mode == "KKT":
            return KKT()
        return LPGD(tau=self.tau, tau_mode="absolute", side=self.mode, rho=self.rho)

    def weight(self) -> float:
        """Of 1/2 ||z||^2 in the layer's objective."""
        if self.form == "QP":
            return WEIGHT
        return self.rho if self.mode == "KKT" else 0.0


QP = Method("QP", "KKT")


@dataclass(frozen=True)
class Settings:
    """What is run: the QP form and the LP form have epochs and seeds of their own."""

    methods: tuple[Method, ...]
    qp_epochs: int
    lp_epochs: int
    qp_seeds: tuple[int, ...]
    lp_seeds: tuple[int, ...]


def lp_methods(
    sides: tuple[str, ...], taus: tuple[float, ...], rhos: tuple[float, ...]
) -> tuple[Method, ...]:
    """LPGD on the LP form, in every combination."""
    return tuple(Method("LP", s, tau, rho) for s in sides for tau in taus for rho in rhos)


EXACT = (Method("LP", "KKT"), Method("LP", "KKT", rho=1e-3))
DEFAULT = Settings(
    methods=(
        QP,
        *EXACT,
        *lp_methods(("lower", "upper", "average"), (1e4,), (0.1,)),
        *lp_methods(("average",), (1e3, 1e5), (0.1,)),
        *lp_methods(("average",), (1e4,), (0.0,)),
    ),
    qp_epochs=6,
    lp_epochs=3,
    qp_seeds=(0, 1, 2),
    lp_seeds=(0,),
)
FULL = Settings(
    methods=(
        QP,
        *EXACT,
        *lp_methods(("lower", "upper", "average"), (1e2, 1e3, 1e4, 1e5), (0.0, 1e-3, 0.1)),
    ),
    qp_epochs=20,
    lp_epochs=30,
    qp_seeds=(0, 1, 2, 3, 4),
    lp_seeds=(0, 1, 2, 3, 4),
)


class Run(NamedTuple):
    """One training; ``puzzles`` is how many of the training puzzles it sees."""

    method: Method
    seed: int
    epochs: int
    puzzles: int = 9000


def grid(settings: Settings) -> list[Run]:
    """Every run of the experiment."""
    return [
        Run(
            method,
            seed,
            settings.qp_epochs if method.form == "QP" else settings.lp_epochs,
        )
        for method in settings.methods
        for seed in (settings.qp_seeds if method.form == "QP" else settings.lp_seeds)
    ]


def execute(run: Run) -> dict:
    """Trains one layer and returns its record."""
    boards = load(SIDE)
    torch.manual_seed(run.seed)
    layer = SudokuLayer(SIDE, run.method.form, run.method.backward(), run.method.weight())
    optimizer = torch.optim.Adam(layer.parameters(), lr=LR, fused=True)
    cooled = [run.epochs - COOLED] if run.method.form == "QP" else []
    rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, cooled)
    generator = torch.Generator().manual_seed(run.seed)
    steps: list[Step] = []
    epochs = [judge(layer, boards)]
    failed = 0
    for _ in range(run.epochs):
        for indices in minibatches(boards.train[: run.puzzles], BATCH, generator):
            error = torch.empty(0)

            def loss(indices: Tensor = indices) -> Tensor:
                nonlocal error
                error = (layer(boards.puzzle[indices]) - boards.solution[indices]).square()
                return error.nanmean()  # a failed solve is NaN and has no gradient

            steps.append(take_step(optimizer, loss))
            failed += int(error.isnan().any(-1).sum())
        rate.step()
        epochs.append(judge(layer, boards))
    seconds = list(accumulate(s.forward + s.backward for s in steps))
    key = run.method._asdict() | {"seed": run.seed}
    return key | {
        **epochs[-1],
        "final_loss": _mean(steps[-3 * WINDOW :]),
        "failed": failed,
        "forward_seconds": sum(s.forward for s in steps),
        "backward_seconds": sum(s.backward for s in steps),
        "steps": len(steps),
        "epochs": {name: [e[name] for e in epochs] for name in epochs[0]},
        "curve": {
            "step": list(range(WINDOW, len(steps) + 1, WINDOW)),
            "seconds": seconds[WINDOW - 1 :: WINDOW],
            "loss": [
                _mean(steps[i : i + WINDOW]) for i in range(0, len(steps) - WINDOW + 1, WINDOW)
            ],
        },
    }


def judge(layer: SudokuLayer, boards: Boards) -> dict[str, float]:
    """Test error: mean squared error, and the share of boards that break a rule."""
    with torch.no_grad():
        output = layer(boards.puzzle[boards.test])
    wrong = ~valid(output, SIDE)
    unseen = wrong[boards.unseen - boards.test[0]]
    return {
        "test_mse": float((output - boards.solution[boards.test]).square().nanmean()),
        "board_error": float(wrong.double().mean()),
        "board_error_unseen": float(unseen.double().mean()),
    }


def _mean(steps: list[Step]) -> float:
    return sum(s.loss for s in steps) / len(steps)


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    settings = FULL if arguments.full else DEFAULT
    start = time.perf_counter()
    runs = sweep(execute, grid(settings), arguments.out, arguments.workers)
    record = {
        "experiment": "sudoku",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "settings": asdict(settings)
        | {
            "workers": arguments.workers,
            "batch": BATCH,
            "lr": LR,
            "cooled_epochs": COOLED,
            "methods": None,
        },
        "runs": runs,
    }
    record["settings"]["methods"] = [method._asdict() for method in settings.methods]
    figures.draw_errors(record, arguments.out / "errors.png")
    figures.draw_lpgd(record, arguments.out / "lpgd.png")
    publish(arguments.out, record)
    print(tables.qp(runs))
    print(tables.lp(runs))
    print(f"{len(runs)} runs in {record['seconds']:.0f} s; results and figures in {arguments.out}")


if __name__ == "__main__":
    main()
