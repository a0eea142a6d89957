"""The figures, in the manner of the paper's Fig. 3 and 4, from ``run.py``'s records."""

from pathlib import Path

from experiments.common import linear, plots
from experiments.common.decisions import best_so_far
from experiments.common.looks import LOOK
from experiments.common.tables import distinct, mean_sd, select
from experiments.portfolio.methods import LAYERS, LINEAR_LAMS


def draw_regret(record: dict, path: Path) -> None:
    """Test range regret against lam, one panel per feature set; bars are standard deviations."""
    feature_sets = distinct(record["runs"], "feature_set")
    figure, axes = plots.panels(1, len(feature_sets), 4.2, 3.4)
    for ax, feature_set in zip(axes[0], feature_sets, strict=True):
        shown = select(record, feature_set=feature_set)
        lams = distinct(shown, "lam")
        for shift, method in enumerate(distinct(shown, "method")):
            if method in linear.NAMES:
                continue  # draw_linear has them
            points = []
            for place, lam in enumerate(lams):
                runs = [r for r in shown if r["method"] == method and r["lam"] == lam]
                if runs:
                    points.append((place, *mean_sd(r["range_regret"] for r in runs)))
            place, value, sd = zip(*points, strict=True)
            place = [p + 0.03 * (shift - 3) for p in place]  # keeps the bars apart
            ax.errorbar(place, value, yerr=sd, label=method, capsize=2, ms=4.5, **LOOK[method])
        ax.set_xticks(range(len(lams)), [f"{lam:g}" for lam in lams])
        ax.set(xlabel="risk weight lam (not to scale)", title=f"feature set: {feature_set}")
    axes[0][0].set_ylabel("test range regret (lower is better)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    plots.save(figure, path)


def draw_linear(record: dict, path: Path, feature_set: str = "forecast") -> None:
    """Test range regret of the best model so far by epoch, with the linear methods (Fig. 4a,b)."""
    here = select(record, feature_set=feature_set)
    lams = [lam for lam in LINEAR_LAMS if lam in distinct(here, "lam")]
    figure, (axes,) = plots.panels(1, len(lams), 4.0, 3.2)
    for ax, lam in zip(axes, lams, strict=True):
        for method in (*linear.NAMES, *LAYERS):
            runs = [r for r in here if r["lam"] == lam and r["method"] == method]
            curves = [best_so_far(r["curves"]) for r in runs]
            if curves:
                values = [mean_sd(column)[0] for column in zip(*curves, strict=True)]
                look = {key: LOOK[method][key] for key in ("color", "linestyle")}
                ax.plot(range(1, len(values) + 1), values, label=method, **look)
        ax.set(title=f"lam = {lam:g}", xlabel="epoch")
    axes[0].set_ylabel("test range regret\nof the best model so far")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    plots.save(figure, path)


def draw_gradients(
    record: dict, path: Path, feature_set: str = "forecast", lams: tuple[float, ...] = (0, 0.1, 1)
) -> None:
    """Share of zero gradients, gradient norm and training regret by epoch, per lam (Fig. 3b)."""
    shown = [r for r in select(record, feature_set=feature_set) if r["lam"] in lams]
    rows = {
        "zero_share": "share of\nzero gradients",
        "gradient_norm": "mean gradient norm",
        "train_regret": "training regret / |f*|",
    }
    lams = distinct(shown, "lam")
    figure, axes = plots.panels(len(rows), len(lams), 3.1, 2.1)
    for column, lam in enumerate(lams):
        for row, (name, label) in enumerate(rows.items()):
            ax = axes[row][column]
            for method in LAYERS:
                curves = [
                    r["curves"][name] for r in shown if r["method"] == method and r["lam"] == lam
                ]
                by_epoch = [mean_sd(values) for values in zip(*curves, strict=True)]
                if by_epoch:
                    epochs = list(range(1, len(by_epoch) + 1))
                    look = {"color": LOOK[method]["color"], "label": method}
                    plots.band(ax, epochs, *map(list, zip(*by_epoch, strict=True)), **look)
            ax.xaxis.get_major_locator().set_params(integer=True)
            if column == 0:
                ax.set_ylabel(label)
            if name == "zero_share":
                ax.set(title=f"lam = {lam:g}", ylim=(-0.03, 1.03))
            else:
                ax.set_ylim(bottom=0.0)
        axes[-1][column].set_xlabel("epoch")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    plots.save(figure, path)
