"""Records of many runs as rows of a Markdown table."""

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


def cell(runs: list[dict], name: str, form: str = "{:.3f}") -> str:
    """Mean +- standard deviation of an entry, nothing where a run lacks it."""
    if any(name not in r for r in runs):
        return ""
    return " +- ".join(form.format(value) for value in mean_sd(r[name] for r in runs))
