"""The experiment's tables, as Markdown, from the records of ``run.py``."""

from statistics import mean

from experiments.common.tables import cell, distinct, select


def results(record: dict) -> str:
    """One row per feature set, lam and method: mean +- standard deviation over the seeds.

    Seconds are the least of the seeds: what else runs on the machine only adds.
    """
    lines = [
        "| features | lam | method | range regret | regret / abs(f*) | training regret / abs(f*) "
        "| zero gradients, last epoch | seconds, least |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for feature_set in distinct(record["runs"], "feature_set"):
        for lam in distinct(select(record, feature_set=feature_set), "lam"):
            here = select(record, feature_set=feature_set, lam=lam)
            for method in distinct(here, "method"):
                runs = [r for r in here if r["method"] == method]
                cells = [cell(runs, "range_regret"), cell(runs, "relative_regret")]
                cells.append(cell(runs, "train_regret"))
                cells.append(cell(runs, "zero_share", "{:.1%}"))
                seconds = [r["seconds"] for r in runs if "seconds" in r]
                cells.append(f"{min(seconds):.1f}" if seconds else "")
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
        for lam in distinct(select(record, feature_set=feature_set), "lam"):
            values = paired_margins(record, feature_set, lam)
            cells = " | ".join(f"{value:+.3f}" for value in [*values, mean(values)])
            lines.append(f"| {feature_set} | {lam:g} | {cells} |")
    return "\n".join(lines) + "\n"
