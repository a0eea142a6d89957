"""The figure: the two of OptNet's timing, with ours."""

from pathlib import Path

from experiments.common import plots
from experiments.timing.tables import names

COLORS = {"linear": "C7", "torchqp": "C3", "qpth": "C0"}


def draw(runs: list[dict], path: Path) -> None:
    """Seconds a batch against the size (left, with gradients) and against the batch (forward)."""
    figure, ((size, batch),) = plots.panels(1, 2, 4.0, 3.2)
    _lines(size, [r for r in runs if r["figure"] == 1], "n")
    size.set(xlabel="n = number of inequalities", ylabel="seconds a batch of 128", title="Fig. 1")
    _bars(batch, [r for r in runs if r["figure"] == 2])
    plots.save(figure, path)


def _lines(ax, runs: list[dict], axis: str) -> None:
    for name in names(runs):
        shown = [r for r in runs if name in r["times"]]
        x = [r[axis] for r in shown]
        for column, style in (("forward", "--"), ("total", "-")):
            y = [r["times"][name][column]["median"] for r in shown]
            label = f"{name}, {'forward' if column == 'forward' else 'with gradients'}"
            ax.plot(x, y, style, marker=".", color=COLORS[name], label=label)
    ax.set(xscale="log", yscale="log")
    ax.set_ylim(bottom=1e-7)  # room for the legend
    ax.legend(fontsize=7, loc="lower right", handlelength=3)


def _bars(ax, runs: list[dict]) -> None:
    shown = names(runs)
    width = 0.8 / len(shown)
    for i, name in enumerate(shown):
        x = [k + (i - (len(shown) - 1) / 2) * width for k in range(len(runs))]
        y = [r["times"].get(name, {}).get("forward", {}).get("median", 0.0) for r in runs]
        ax.bar(x, y, width, label=name, color=COLORS.get(name, f"C{4 + i}"))
    ax.set(yscale="log", xlabel="batch", ylabel="seconds a batch, forward", title="Fig. 2, n = 100")
    ax.set_xticks(range(len(runs)), [str(r["batch"]) for r in runs])
    ax.legend(fontsize=7)
