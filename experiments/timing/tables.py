"""The experiment's tables, as Markdown: milliseconds a batch."""

from collections.abc import Iterable


def names(runs: Iterable[dict]) -> list[str]:
    """Everything that was timed, in order of first appearance."""
    return list(dict.fromkeys(name for r in runs for name in r["times"]))


def milliseconds(times: dict, column: str) -> str:
    """A median, or a dash where it was not timed."""
    return f"{1e3 * times[column]['median']:,.3g}" if column in times else "-"


def sizes(runs: list[dict]) -> str:
    """Fig. 1: forward / with gradients by size, at batch 128."""
    shown = [r for r in runs if r["figure"] == 1]
    lines = [
        "| ms a batch of 128 | " + " | ".join(f"n = {r['n']}" for r in shown) + " |",
        "| --- |" + " --- |" * len(shown),
    ]
    for name in names(shown):
        cells = [
            " / ".join(
                milliseconds(r["times"].get(name, {}), column) for column in ("forward", "total")
            )
            for r in shown
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def batches(runs: list[dict]) -> str:
    """Fig. 2: forward / with gradients by batch, at n = 100, and the worst residual."""
    shown = [r for r in runs if r["figure"] == 2]
    lines = [
        "| ms a batch, n = 100 | "
        + " | ".join(f"batch {r['batch']}" for r in shown)
        + " | worst residual |",
        "| --- |" + " --- |" * (len(shown) + 1),
    ]
    for name in names(shown):
        cells, residuals = [], []
        for r in shown:
            times = r["times"].get(name, {})
            cut = "\\*" if times.get("timed_batch", r["batch"]) < r["batch"] else ""
            both = " / ".join(milliseconds(times, column) for column in ("forward", "total"))
            cells.append(both + cut)
            residuals += [times["residual"]] if times else []
        lines.append(f"| {name} | {' | '.join(cells)} | {max(residuals):.0e} |")
    return "\n".join(lines) + "\n"
