"""The tables of hard.py and faults.py."""

from __future__ import annotations

from typing import Any

from experiments.bench.markdown import table
from experiments.bench.measure import number, power

Record = dict[str, Any]


def _solvers(record: Record) -> list[str]:
    return list(record["settings"])


def _totals(record: Record) -> str:
    """How many problems each solver says to have solved, and has, by what is asked."""
    rows = []
    solvers, padded = _solvers(record), record.get("padded")
    for collection, by_solver in record["totals"].items():
        kinds = [kind for kind in next(iter(by_solver.values())) if kind != "of"]
        for kind in kinds:
            total = next(iter(by_solver.values()))["of"]
            cells = [str(by_solver[name][kind]) for name in solvers]
            if padded:
                cells.append(str(padded[collection][kind]))
            rows.append([f"{collection}, {total}: {kind}", *cells])
    batch = ["torchqp, all in one padded batch"] if padded else []
    return table(["problems", *solvers, *batch], rows)


def _cell(row: Record) -> str:
    if row.get("milliseconds") is None:
        return str(row["status"])
    parts = [row[name] for name in ("primal", "dual", "gap")]
    worst = None if None in parts else max(parts)
    failed = "" if row["solved"] else f" ({row['status']})"
    return f"{row['iterations']}; {number(row['milliseconds'])}; {power(worst)}{failed}"


def hard(record: Record) -> list[str]:
    rows = []
    for case in record["cases"]:
        name = case["case"].partition("/")[2]
        sizes = f"{name} ({case['n']}, {case['m']}, {case['p']})"
        rows.append([sizes, *(_cell(case["solvers"][solver]) for solver in _solvers(record))])
    settings = "; ".join(f"{name}: {words}" for name, words in record["settings"].items())
    return [
        f"{settings}.",
        "",
        "Said to be solved, and so with the residuals recomputed (absolute as qpbenchmark, primal, "
        "dual and gap; relative to 1 + the largest term) and the value within 1e-7 of the "
        "published one:",
        "",
        _totals(record),
        "",
        "Iterations; milliseconds; largest absolute residual. In brackets what a solver says that "
        "does not say solved:",
        "",
        table(["problem (n, m, p)", *_solvers(record)], rows),
    ]


def faults(record: Record) -> list[str]:
    """Cases are rows; a bold cell is wrong."""
    names = [case["case"] for case in record["cases"]]
    answers = {case["case"]: case["cases"] for case in record["cases"]}
    rows = []
    for fault in next(iter(answers.values())):
        cells = []
        for name in names:
            answer = answers[name][fault]
            words = answer["words"].replace("|", "\\|")
            cells.append(f"**wrong**: {words}" if answer["right"] is False else words)
        rows.append([fault, *cells])
    counts = [
        f"{sum(a['right'] is True for a in answers[name].values())} of "
        f"{sum(a['right'] is not None for a in answers[name].values())}"
        for name in names
    ]
    absent = [f"{name} ({why})" for name, why in record["absent"].items()]
    left = ["", f"Absent: {'; '.join(absent)}."] if absent else []
    return [table(["fault", *names], [["**right in**", *counts], *rows]), *left]
