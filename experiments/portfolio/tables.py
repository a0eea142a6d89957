"""The experiment's tables, as Markdown, from the records of ``run.py``."""

from collections.abc import Iterable
from statistics import mean, stdev


def mean_sd(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    values = list(values)
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def select(record: dict, **key: object) -> list[dict]:
    """The runs whose entries equal ``key``."""
    return [r for r in record["runs"] if all(r[name] == value for name, value in key.items())]


def distinct(runs: Iterable[dict], name: str) -> list:
    """The values of one entry in order of first appearance."""
    return list(dict.fromkeys(r[name] for r in runs))


def results(record: dict) -> str:
    """One row per feature set, lam and method: mean +- standard deviation over the seeds."""
    lines = [
        "| features | lam | method | range regret | regret / abs(f*) | training regret / abs(f*) "
        "| zero gradients, last epoch | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for feature_set in distinct(record["runs"], "feature_set"):
        for lam in distinct(record["runs"], "lam"):
            here = select(record, feature_set=feature_set, lam=lam)
            for method in distinct(here, "method"):
                runs = [r for r in here if r["method"] == method]
                cells = [_cell(runs, "range_regret"), _cell(runs, "relative_regret")]
                cells.append(_cell(runs, "train_regret"))
                cells.append(_cell(runs, "zero_share", "{:.1%}"))
                cells.append(_cell(runs, "seconds", "{:.1f}"))
                lines.append(f"| {feature_set} | {lam:g} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired_margins(record: dict, feature_set: str, lam: float) -> list[float]:
    """Range regret of exact minus smoothed, seed by seed: positive where smoothed is better."""
    runs = select(record, feature_set=feature_set, lam=lam)
    regret = {(r["method"], r["seed"]): r["range_regret"] for r in runs}
    return [regret["exact", s] - regret["smoothed", s] for s in distinct(runs, "seed")]


def margins(record: dict) -> str:
    """The paired margins of every feature set and lam."""
    seeds = distinct(record["runs"], "seed")
    lines = [
        "| exact - smoothed (range regret) | lam | "
        + " | ".join(f"seed {seed}" for seed in seeds)
        + " | mean |",
        "| --- | --- |" + " --- |" * (len(seeds) + 1),
    ]
    for feature_set in distinct(record["runs"], "feature_set"):
        for lam in distinct(record["runs"], "lam"):
            values = paired_margins(record, feature_set, lam)
            cells = " | ".join(f"{value:+.3f}" for value in [*values, mean(values)])
            lines.append(f"| {feature_set} | {lam:g} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(runs: list[dict], name: str, form: str = "{:.3f}") -> str:
    if any(name not in r for r in runs):
        return ""
    return " +- ".join(form.format(value) for value in mean_sd(r[name] for r in runs))
