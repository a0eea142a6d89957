"""The figure: test error by epoch, one signal, and the learned differences."""

from pathlib import Path

import numpy as np

from experiments.common import plots

NAMES = {"FC": "C0", "TV": "C7", "pure OptNet": "C1", "tuned OptNet": "C3"}


def draw(record: dict, path: Path) -> None:
    """Draws the three panels from the record that ``run.py`` writes."""
    figure, ((errors, signal, matrix),) = plots.panels(1, 3, 4.4, 3.4)
    _errors(errors, record["runs"])
    _signal(signal, record["runs"])
    _matrix(matrix, record["runs"])
    plots.save(figure, path)


def _errors(ax, runs: list[dict]) -> None:
    shown = set()
    for r in runs:
        if "curves" in r:
            name = r["method"]
            label = None if name in shown else name
            ax.plot(r["curves"]["test"], color=NAMES[name], linewidth=1.2, label=label)
            shown.add(name)
    best = min((r for r in runs if r["method"] == "TV"), key=lambda r: r["train"])
    label = f"TV, lam {best['option']:g}"
    ax.axhline(best["test"], color=NAMES["TV"], linestyle="--", label=label)
    ax.set(yscale="log", ylim=(10, None), xlabel="epoch", ylabel="test MSE")
    ax.legend()


def _signal(ax, runs: list[dict]) -> None:
    example = next(r["example"] for r in runs if "example" in r)
    ax.plot(example["noisy"], ".", color="0.7", markersize=4, label="noisy")
    ax.step(range(len(example["clean"])), example["clean"], color="k", where="mid", label="clean")
    for name in ("TV", "tuned OptNet"):
        ax.plot(example[name], color=NAMES[name], linewidth=1.2, label=name)
    ax.set(xlabel="position", ylabel="signal", title="a test signal")
    ax.legend(fontsize=7)


def _matrix(ax, runs: list[dict]) -> None:
    """The learned D of the pure layer, rows ordered by the centre of mass of |D|^6."""
    D = np.array(next(r["D"] for r in runs if "D" in r))
    weight = np.abs(D) ** 6
    centre = (weight * np.arange(D.shape[1])).sum(1) / weight.sum(1)
    D = D[np.argsort(centre)]
    limit = np.abs(D).max()
    image = ax.imshow(D, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    ax.figure.colorbar(image, ax=ax)
    ax.grid(False)
    ax.set(xlabel="position", ylabel="row of D", title="D, learned from noise (pure OptNet)")
