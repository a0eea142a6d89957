"""The figures' common look: plain axes, bands, files that do not depend on the day."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
    }
)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[list]]:
    """A figure of ``rows x columns`` axes; ``width`` and ``height`` of one of them in inches."""
    return plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
    )


def band(axes, x: list[float], mean: list[float], sd: list[float], **line) -> None:
    """A line with a band of one standard deviation."""
    (drawn,) = axes.plot(x, mean, **line)
    low = [m - s for m, s in zip(mean, sd, strict=True)]
    high = [m + s for m, s in zip(mean, sd, strict=True)]
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG without a time stamp, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
