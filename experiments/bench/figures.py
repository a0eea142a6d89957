"""Draws the figures from the JSON files: time against size, against batch, against accuracy.

python experiments/bench/figures.py            # results/*.json -> results/*.png
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from experiments.bench.suite import RESULTS
from experiments.common.plots import panels, save

COLUMNS = {"forward": "forward", "forward_backward": "forward and gradients of all parameters"}
# Colour, line, marker: torchqp red, layers solid, loops over raw solvers dashed and grey.
STYLES: dict[str, tuple[str, str, str]] = {
    "torchqp": ("#c8102e", "-", "o"),
    "torchqp-float32": ("#f08a9b", "-", "o"),
    "moreau": ("#1f77b4", "-", "s"),
    "moreau-ipm": ("#7fb2d9", "-", "s"),
    "cvxpylayers-moreau": ("#17becf", "-", "v"),
    "proxqp": ("#2ca02c", "-", "^"),
    "qpth": ("#9467bd", "-", "D"),
    "qpax": ("#8c564b", "-", "P"),
    "osqp": ("#e377c2", "-", "X"),
    "cvxpylayers": ("#ff7f0e", "-", "v"),
    "cvxpylayers-dense": ("#ffb366", "-", "v"),
    "cvxpylayers-lpgd": ("#bcbd22", "-", "v"),
    "torch-ipm": ("#d6604d", "--", "o"),
    "torch-ipm-float32": ("#f4a582", "--", "o"),
    "qpth-tuned": ("#c5b0d5", "-", "D"),
    "cupiqp": ("#1b9e77", "-", "h"),
    "cupiqp-float32": ("#8dd3c7", "-", "h"),
    "moreau-cuda": ("#aec7e8", "-", "s"),
    "loop-daqp": ("#222222", "--", "s"),
    "loop-piqp": ("#666666", "--", "^"),
    "loop-proxqp": ("#999999", "--", "D"),
    "loop-clarabel": ("#bbbbbb", "--", "v"),
}


def _line(axes: Axes, name: str, x: list[float], y: list[float]) -> None:
    """A layer's line, in its style; torchqp's lies on top."""
    color, line, marker = STYLES.get(name, ("#444444", ":", "."))
    ours = name.startswith("torchqp")
    axes.plot(
        x,
        y,
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4,
        linewidth=2.2 if ours else 1.1,
        zorder=3 if ours else 2,
        label=name,
    )


def _same_height(all_axes: list[Axes]) -> None:
    """One range of times for all panels, with its label on the first."""
    limits = [axes.get_ylim() for axes in all_axes]
    for axes in all_axes:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    all_axes[0].set_ylabel("microseconds a problem")


def _legend(figure: Any, all_axes: list[Axes], times: dict[str, float]) -> None:
    """One legend right of the panels, the slowest on top."""
    handles: dict[str, Any] = {}
    for axes in all_axes:
        handles |= {name: h for h, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = sorted(handles, key=lambda name: -times.get(name, 0.0))
    figure.legend([handles[n] for n in names], names, loc="outside right center", fontsize=8)


def _times(layers: dict[str, Any]) -> dict[str, float]:
    """Forward medians by layer."""
    return {name: row["forward_us"]["median"] for name, row in layers.items()}


def against_size(layers: dict[str, Any], large: dict[str, Any] | None, path: Path) -> None:
    """Us per QP against the size of the problem, all layers; the large cases go on to the right."""
    cases = list(layers["cases"])
    reached = max(case["n"] for case in cases)
    cases += [case for case in (large or {"cases": []})["cases"] if case["n"] > reached]
    cases.sort(key=lambda case: case["n"] + case["m"] + case["p"])
    figure, grid = panels(1, 2, 4.8, 4.6)
    for axes, (column, title) in zip(grid[0], COLUMNS.items(), strict=True):
        names = {name: None for case in cases for name in case["layers"]}
        for name in names:
            points = [
                (case["n"] + case["m"] + case["p"], row[f"{column}_us"]["median"])
                for case in cases
                if f"{column}_us" in (row := case["layers"].get(name, {}))
            ]
            if points:
                x, y = zip(*points, strict=True)
                _line(axes, name, list(x), list(y))
        axes.set(xscale="log", yscale="log", title=title)
        axes.set_xlabel("n, m, p (placed at n + m + p)")
        ticks = [case["n"] + case["m"] + case["p"] for case in cases]
        labels = [f"{case['n']}, {case['m']}, {case['p']}" for case in cases]
        axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    _same_height(list(grid[0]))
    _legend(figure, list(grid[0]), _times(layers["cases"][-1]["layers"]))
    save(figure, path)


def against_batch(scaling: dict[str, Any], path: Path) -> None:
    """Us per problem against the batch size."""
    record = next(case for case in scaling["cases"] if case["case"] == "batch")
    n, m, p, _ = scaling["options"]["size"]
    figure, grid = panels(1, 1, 5.2, 3.4)
    axes = grid[0][0]
    batches = [int(batch) for batch in record["us"]]
    for column, color in zip(COLUMNS, ("#c8102e", "#1f77b4"), strict=True):
        times = [columns[column] for columns in record["us"].values()]
        axes.plot(
            batches, [t["median"] for t in times], "o-", color=color, label=COLUMNS[column], ms=4
        )
        low, high = [t["min"] for t in times], [t["p95"] for t in times]
        axes.fill_between(batches, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xscale="log", ylim=(0, None), title=f"torchqp, (n, m, p) = ({n}, {m}, {p})")
    axes.set_xlabel("batch")
    axes.set_ylabel("microseconds a problem (band: least to p95)")
    axes.legend(loc="lower right")
    save(figure, path)


def against_accuracy(accuracy: dict[str, Any], path: Path) -> None:
    """Us per problem against the residual, and with gradients against their error."""
    record = accuracy["cases"][0]
    figure, grid = panels(1, 2, 4.8, 4.4)
    plans = (
        ("forward", "residual_worst", "largest relative KKT residual"),
        ("forward_backward", "gradient_error_median", "relative gradient error, median"),
    )
    times = _times(record["layers"])
    for axes, (column, error, label) in zip(grid[0], plans, strict=True):
        names = {point["layer"]: None for point in record["points"]}
        for name in names:
            points = [
                (point[error], point[f"{column}_us"])
                for point in record["points"]
                if point["layer"] == name
                and f"{column}_us" in point
                and point.get(error) is not None
            ]
            if points:
                x, y = zip(*points, strict=True)
                _line(axes, name, [max(value, 1e-17) for value in x], list(y))
        axes.set(xscale="log", yscale="log", title=COLUMNS[column])
        axes.invert_xaxis()
        axes.set_xlabel(f"{label} (more accurate to the right)")
    _same_height(list(grid[0]))
    _legend(figure, list(grid[0]), {k.partition(" ")[0]: v for k, v in times.items()})
    save(figure, path)


def against_case(record: dict[str, Any], path: Path) -> None:
    """Ms a batch on a GPU, by case, all rows; a short line is what torchqp's forward shall take."""
    cases = record["cases"]
    figure, grid = panels(1, 2, 4.8, 4.6)
    for axes, (column, title) in zip(grid[0], COLUMNS.items(), strict=True):
        for name in {name: None for case in cases for name in case["layers"]}:
            points = [
                (i, case["layers"][name][f"{column}_ms"]["median"])
                for i, case in enumerate(cases)
                if name in case["layers"]
            ]
            x, y = zip(*points, strict=True)
            _line(axes, name, list(x), list(y))
        goals = {
            i: goal["target"]
            for i, case in enumerate(cases)
            for goal in case["targets"]
            if goal["what"].startswith(f"{column}, ms")
        }
        axes.plot(list(goals), list(goals.values()), "_", color="black", ms=14, label="target")
        axes.set(yscale="log", title=title)
        axes.set_xticks(
            range(len(cases)), [case["case"] for case in cases], rotation=90, fontsize=8
        )
    _same_height(list(grid[0]))
    grid[0][0].set_ylabel("milliseconds a batch")
    _legend(figure, list(grid[0]), {})
    save(figure, path)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """A results file, None if it is not there."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    folder = parser.parse_args(arguments).results
    names = ("layers", "scaling", "accuracy", "gpu")
    layers, scaling, accuracy, gpu = (read(folder, name) for name in names)
    if layers and layers["cases"]:
        against_size(layers, read(folder, "large"), folder / "size.png")
    if scaling and any(case["case"] == "batch" for case in scaling["cases"]):
        against_batch(scaling, folder / "batch.png")
    if accuracy and accuracy["cases"]:
        against_accuracy(accuracy, folder / "accuracy.png")
    if gpu and gpu["cases"]:
        against_case(gpu, folder / "gpu.png")
    print("drawn:", ", ".join(sorted(path.name for path in folder.glob("*.png"))) or "nothing")


if __name__ == "__main__":
    main()
