"""The figures: board errors of the QP form, and the LP form's training by epochs and seconds."""

from pathlib import Path

from experiments.common import plots
from experiments.common.tables import mean_sd
from experiments.sudoku.tables import by_method, label

FLOOR = 1e-4  # a tenth of one board in a thousand, where zero is drawn


def draw_errors(record: dict, path: Path) -> None:
    """Test error of the QP form by epoch."""
    runs = [r for r in record["runs"] if r["form"] == "QP"]
    figure, ((error, mse),) = plots.panels(1, 2, 3.6, 2.8)
    for ax, name, text in (
        (error, "board_error", "share of wrong test boards"),
        (mse, "test_mse", "test MSE"),
    ):
        for r in runs:
            values = [max(value, FLOOR) for value in r["epochs"][name]]
            ax.plot(values, marker=".", label=f"seed {r['seed']}")
        ax.set(xlabel="epoch", ylabel=text, yscale="log")
        ax.xaxis.get_major_locator().set_params(integer=True)
    error.axhline(0.01, color="0.5", linestyle="--", linewidth=1, label="1 %")
    error.set_title("zero is drawn at 1e-4")
    error.legend()
    plots.save(figure, path)


def draw_lpgd(record: dict, path: Path) -> None:
    """Training loss of the LP form against epochs and against seconds."""
    figure, (axes,) = plots.panels(1, 2, 4.2, 3.4)
    for key, runs in by_method(record["runs"], "LP").items():
        curves = [r["curve"] for r in runs]
        epochs_per_step = (len(runs[0]["epochs"]["test_mse"]) - 1) / runs[0]["steps"]
        loss = [mean_sd(values)[0] for values in zip(*(c["loss"] for c in curves), strict=True)]
        sd = [mean_sd(values)[1] for values in zip(*(c["loss"] for c in curves), strict=True)]
        seconds = [
            mean_sd(values)[0] for values in zip(*(c["seconds"] for c in curves), strict=True)
        ]
        epochs = [step * epochs_per_step for step in curves[0]["step"]]
        style = {"label": label(key), "linestyle": "--" if key[1] == "KKT" else "-"}
        for ax, x in zip(axes, (epochs, seconds), strict=True):
            plots.band(ax, x, loss, sd, **style)
    axes[0].set(xlabel="epoch", ylabel="training loss (MSE)", yscale="log")
    axes[1].set(xlabel="seconds of training", yscale="log")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    plots.save(figure, path)
