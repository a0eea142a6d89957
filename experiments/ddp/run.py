"""Does training over several processes give one process's gradients, and how much faster is it?

    python experiments/ddp/run.py            # one and two processes: a minute
    python experiments/ddp/run.py --full     # one to as many processes as there are cores

Starts train.py by torchrun, processes of one thread each. Prints a table and writes results.json
and speed.png (report.md discusses them).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.common import plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402


class Run(NamedTuple):
    """One size of Sudoku, trained by each number of processes in ``processes``."""

    side: int
    batch: int
    steps: int
    processes: tuple[int, ...]


def grid(full: bool) -> list[Run]:
    """Both sizes; batches so large that a step is long beside the exchange of gradients."""
    processes = tuple(range(1, (os.cpu_count() or 1) + 1)) if full else (1, 2)
    return [Run(4, 1200, 8, processes), Run(9, 16, 8, processes)]


def execute(run: Run) -> dict:
    """Largest differences from one process's gradients and parameters, and seconds a step."""
    trained = {count: train(run, count) for count in run.processes}
    alone = trained[run.processes[0]]
    rows = []
    for count, result in trained.items():
        rows.append(
            {
                "processes": count,
                "gradient_error": difference(result, alone, "gradient_"),
                "parameter_error": difference(result, alone, "parameter_"),
                "seconds": median(result["seconds"][1:].tolist()),
                "all_seconds": result["seconds"].tolist(),
            }
        )
        rows[-1]["speed_up"] = rows[0]["seconds"] / rows[-1]["seconds"]
    return {"side": run.side, "batch": run.batch, "steps": run.steps, "rows": rows}


def train(run: Run, processes: int) -> dict[str, np.ndarray]:
    """What the first of ``processes`` processes wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "first.npz"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), str(HERE / "train.py"), "--out", str(out)]
        for name in ("side", "batch", "steps"):
            command += [f"--{name}", str(getattr(run, name))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"torchrun failed:\n{done.stderr[-2000:]}")
        with np.load(out, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def difference(result: dict, alone: dict, prefix: str) -> float:
    """Largest difference over all arrays of a kind, relative to the array's largest entry."""
    names = [name for name in alone if name.startswith(prefix)]
    return max(
        float(np.abs(result[name] - alone[name]).max() / np.abs(alone[name]).max())
        for name in names
    )


def draw(runs: list[dict], path: Path) -> None:
    """Speed-up against the number of processes."""
    figure, ((ax,),) = plots.panels(1, 1, 4.0, 3.0)
    most = max(row["processes"] for r in runs for row in r["rows"])
    ax.plot([1, most], [1, most], color="0.6", linestyle="--", label="ideal")
    for i, r in enumerate(runs):
        x = [row["processes"] for row in r["rows"]]
        y = [row["speed_up"] for row in r["rows"]]
        label = f"{r['side']}x{r['side']}, batch {r['batch']}"
        ax.plot(x, y, marker="o", linewidth=5 - 3 * i, markersize=11 - 5 * i, label=label)
    ax.set(xlabel="processes of one thread", ylabel="speed-up of a step", ylim=(0, most + 0.2))
    ax.set_xticks(range(1, most + 1))
    ax.legend()
    plots.save(figure, path)


def table(runs: list[dict]) -> str:
    """One row a size and number of processes, as Markdown."""
    lines = [
        "| board | batch | processes | s a step | speed-up | gradients, first step "
        "| parameters at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in runs:
        for row in r["rows"]:
            lines.append(
                f"| {r['side']}x{r['side']} | {r['batch']} | {row['processes']} "
                f"| {row['seconds']:.3f} | {row['speed_up']:.2f} "
                f"| {row['gradient_error']:.0e} | {row['parameter_error']:.0e} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse(parser(__doc__, HERE))
    start = time.perf_counter()
    runs = sweep(execute, grid(arguments.full), arguments.out, workers=1)
    record = {
        "experiment": "ddp",
        "full": arguments.full,
        "seconds": round(time.perf_counter() - start, 1),
        "runs": runs,
    }
    draw(runs, arguments.out / "speed.png")
    publish(arguments.out, record)
    print(table(runs))
    print(f"{record['seconds']:.0f} s; results and figure in {arguments.out}")


if __name__ == "__main__":
    main()
