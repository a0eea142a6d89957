"""The experiment's tables, as Markdown."""

from experiments.common.tables import mean_sd

Key = tuple[str, str, float, float]


def by_method(runs: list[dict], form: str) -> dict[Key, list[dict]]:
    """The runs of one form of the layer, grouped by method."""
    groups: dict[Key, list[dict]] = {}
    for r in runs:
        if r["form"] == form:
            groups.setdefault((r["form"], r["mode"], r["tau"], r["rho"]), []).append(r)
    return groups


def label(key: Key) -> str:
    """A method's name in tables and legends."""
    _, mode, tau, rho = key
    if mode == "KKT":
        return f"KKT, Q = {rho:g} I" if rho else "KKT"
    return f"LPGD {mode}, tau {tau:g}, rho {rho:g}"


def qp(runs: list[dict]) -> str:
    """Board errors of the QP form, epoch by epoch."""
    mine = [r for r in runs if r["form"] == "QP"]
    lines = [
        "| epoch | test MSE | wrong boards | of puzzles not in training |",
        "| --- | --- | --- | --- |",
    ]
    for epoch in range(len(mine[0]["epochs"]["test_mse"])):
        cells = []
        for name, form in (
            ("test_mse", "{:.5f}"),
            ("board_error", "{:.2%}"),
            ("board_error_unseen", "{:.2%}"),
        ):
            values = mean_sd(r["epochs"][name][epoch] for r in mine)
            cells.append(" +- ".join(form.format(value) for value in values))
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lp(runs: list[dict]) -> str:
    """The LP form after the last epoch, one row a method."""
    lines = [
        "| method | training loss | test MSE | wrong boards | forward s | backward s | failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, mine in by_method(runs, "LP").items():
        cells = []
        for name, form in (
            ("final_loss", "{:.4f}"),
            ("test_mse", "{:.4f}"),
            ("board_error", "{:.1%}"),
            ("forward_seconds", "{:.0f}"),
            ("backward_seconds", "{:.0f}"),
        ):
            mean, sd = mean_sd(r[name] for r in mine)
            cells.append(form.format(mean) + (f" +- {form.format(sd)}" if len(mine) > 1 else ""))
        failed = sum(r["failed"] for r in mine)
        lines.append(f"| {label(key)} | {' | '.join(cells)} | {failed} |")
    return "\n".join(lines) + "\n"
