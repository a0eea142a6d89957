"""Writes the tables of the JSON files into README.md, between its two marker lines.

    python experiments/bench/tables.py

reads results/*.json beside this file; a script that was not run is named.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
from pathlib import Path
from typing import Any

from experiments.bench import roofline, trust_tables
from experiments.bench.figures import read
from experiments.bench.markdown import table
from experiments.bench.measure import COLUMNS, NO_SOLUTION, number, power
from experiments.bench.suite import HERE, RESULTS

BEGIN = "<!-- tables: written by tables.py, do not edit -->"
END = "<!-- tables: end -->"
Record = dict[str, Any]


def origin(record: Record) -> str:
    """Where a file's numbers are from."""
    threads = record["options"]["threads"]
    device = f"{name}, " if (name := record.get("gpu", {}).get("name")) else ""
    return (
        f"{record['date'][:10]}, {device}{record['machine']['cpu']}, {threads} "
        f"thread{'s' if threads > 1 else ''}, commit {(record['commit'] or 'unknown')[:9]}, "
        f"{record['seconds']:,.0f} s"
    )


def _sizes(record: Record) -> list[str]:
    return [f"{case['n']}, {case['m']}, {case['p']}" for case in record["cases"]]


def _names(record: Record) -> list[str]:
    """Every layer of every case, in the order of the first ones."""
    return list({name: None for case in record["cases"] for name in case["layers"]})


def _missing(record: Record) -> list[str]:
    """Sentences on what was left out, by layer."""
    said = [f"{name}: absent ({why})" for name, why in record.get("absent", {}).items()]
    for case in record["cases"]:
        said += [f"{name} at {case['case']}: {why}" for name, why in case["left_out"].items()]
    return ["", "Left out: " + "; ".join(said) + "."] if said else []


def times(record: Record, unit: float = 1.0) -> str:
    """Median times, forward / with gradients; `*` marks a cut batch."""
    rows = []
    for name in _names(record):
        cells = []
        for case in record["cases"]:
            row = case["layers"].get(name)
            medians = [row[f"{c}_us"]["median"] / unit for c in COLUMNS if row and f"{c}_us" in row]
            cut = " \\*" if row and row["batch_cut"] else ""
            middle = row["residual_median"] if row else 0.0
            cut += " (no solution)" if middle is None or middle > NO_SOLUTION else ""
            cells.append(" / ".join(map(number, medians)) + cut if medians else "-")
        rows.append([name, *cells])
    return table(["layer", *_sizes(record)], rows)


def precision(record: Record) -> str:
    """Worst residual; median and worst gradient error."""
    rows = []
    for name in _names(record):
        cells = []
        for case in record["cases"]:
            row = case["layers"].get(name)
            error = row.get("gradient_error", {}).get("all") if row else None
            text = power(row["residual_worst"]) if row else "-"
            if error:
                text += f"; {power(error['median'])} / {power(error['worst'])}"
            cells.append(text)
        rows.append([name, *cells])
    return table(["layer", *_sizes(record)], rows)


def lead(record: Record) -> str:
    """How many times torchqp's time the fastest others take."""
    rows = []
    titles = {"layer": "fastest other layer", "loop": "fastest raw solver", "qpth": "qpth"}
    for column in COLUMNS:
        for group, title in titles.items():
            cells = []
            for case in record["cases"]:
                found = case["ratios"].get(column, {}).get(group)
                who = f" ({found['name']})" if found and group != "qpth" else ""
                cells.append(f"{found['ratio']:.2f}{who}" if found else "-")
            words = "forward" if column == "forward" else "with gradients"
            if column != "forward" and group == "loop":
                title += ", its forward alone"
            rows.append([f"{words}: {title}", *cells])
    return table(["times torchqp's", *_sizes(record)], rows)


def layers(record: Record) -> list[str]:
    return [
        "Microseconds per QP, forward / with gradients of all parameters:",
        "",
        times(record),
        "",
        "How many times as long as torchqp the fastest others take:",
        "",
        lead(record),
        "",
        "Worst relative KKT residual; gradient error, median / worst over the regular members:",
        "",
        precision(record),
        *_missing(record),
    ]


def layers_two(record: Record) -> list[str]:
    return [times(record), "", lead(record), *_missing(record)]


def ratios(record: Record) -> list[str]:
    names = list(record["cases"][0]["ratios"])
    rows = [[n, *(f"{case['ratios'][n]:.2f}" for case in record["cases"])] for n in names]
    for name in record["cases"][0]["solved"]:
        cells = [case["solved"][name] for case in record["cases"]]
        told = [f"{c['iterations_mean']:.1f}; {c['residual_worst']:.0e}" for c in cells]
        rows.append([f"{name}: mean iterations; worst residual", *told])
    return [table(["ratio", *_sizes(record)], rows)]


def ablation(record: Record) -> list[str]:
    cases = record["cases"]
    rows = [[n, *(f"{case['buys'][n]:.2f}" for case in cases)] for n in cases[0]["buys"]]
    for name in cases[0]["residual_worst"]:
        told = [f"{case['residual_worst'][name]:.0e}" for case in cases]
        rows.append([f"{name}: worst residual", *told])
    return [table(["time without a part / with it", *_sizes(record)], rows)]


def projection(record: Record) -> list[str]:
    rows = []
    for case in record["cases"]:
        us, error, ratio = case["us"], case["errors"]["torchqp"], case["ratios"]
        both = [
            " / ".join(number(t["median"]) for t in us[who].values())
            for who in ("torchqp", "copy", "torch", "dense")
        ]
        past = [ratio[f"torchqp / {who}, forward"] for who in ("copy", "copy of all outputs")]
        rows.append(
            [
                case["case"],
                *both,
                f"{past[0]:.3g} / {past[1]:.3g}",
                f"{error['z_error']:.0e} / {error['gradient_error']:.0e}",
            ]
        )
    head = ["case", "torchqp", "copy", "torch operations", "dense Q = I"]
    head += ["torchqp / copy of z, of all outputs", "error, of gradient"]
    return [
        f"Microseconds a projection, forward / with gradient, batch {record['options']['batch']}:",
        "",
        table(head, rows),
    ]


def scaling(record: Record) -> list[str]:
    parts = {case["case"]: case for case in record["cases"]}
    lines: list[str] = []
    if "latency" in parts:
        rows = [
            [name, f"{time['median']:.1f}", f"{time['p95']:.1f}"]
            for name, time in parts["latency"]["us"].items()
        ]
        lines += [table(["one problem, n = m = 10", "median us", "p95 us"], rows), ""]
    if "batch" in parts:
        us, spread = parts["batch"]["us"], parts["batch"]["max_over_min"]
        rows = [
            [
                c.replace("_", " + "),
                *(number(t[c]["median"]) for t in us.values()),
                f"{spread[c]:.2f}",
            ]
            for c in COLUMNS
        ]
        lines += [table(["us a problem, by batch", *us, "largest / smallest"], rows), ""]
    threads = parts.get("threads", {})
    if "cases" in threads:
        rows = [
            [c.replace("_", " + "), *(f"{v[c]['speedup']:.2f}" for v in threads["cases"].values())]
            for c in COLUMNS
        ]
        lines += [table(["1 thread / 2 threads", *threads["cases"]], rows)]
    elif "left_out" in threads:
        lines += [f"Threads: {threads['left_out']}."]
    return lines


def large(record: Record) -> list[str]:
    return [
        "Milliseconds a problem, forward / with gradients; below, the worst residuals and gradient "
        "errors:",
        "",
        times(record, unit=1000.0),
        "",
        precision(record),
        *_missing(record),
    ]


def memory(record: Record) -> list[str]:
    rows = [
        [
            case["case"],
            f"{case['growth'] / 2**20:,.0f}",
            f"{case['budget_total'] / 2**20:,.0f}",
            f"{case['ratio']:.2f}",
        ]
        for case in record["cases"]
    ]
    return [table(["n,m,p,B", "peak growth, MiB", "budget, MiB", "ratio"], rows)]


def accuracy(record: Record) -> list[str]:
    rows = []
    for point in record["cases"][0]["points"]:
        eps = "-" if point["eps"] is None else f"{point['eps']:.0e}"
        pair = [number(point[f"{c}_us"]) for c in COLUMNS if f"{c}_us" in point]
        errors = [point[k] for k in ("gradient_error_median", "gradient_error_worst") if k in point]
        told = " / ".join(map(power, errors)) or "-"
        rows.append([point["layer"], eps, " / ".join(pair), power(point["residual_worst"]), told])
    head = ["layer", "tolerance", "us, forward / with gradients", "worst residual"]
    return [table([*head, "gradient error, median / worst"], rows)]


def gpu(record: Record) -> list[str]:
    """Cases are rows here: there are as many as layers, and their names are longer."""
    cases, names = record["cases"], _names(record)

    def rows(cell: Any) -> list[list[str]]:
        return [[c["case"], *(cell(c, c["layers"].get(n), n) or "-" for n in names)] for c in cases]

    def time(case: Record, row: Record | None, name: str) -> str | None:
        if row is None:
            return None
        middle = row["residual_median"]
        wrong = " (no solution)" if middle is None or middle > NO_SOLUTION else ""
        return " / ".join(number(row[f"{c}_ms"]["median"]) for c in COLUMNS) + wrong

    def ratio(case: Record, row: Record | None, name: str) -> str | None:
        found = case["ratios"].get(name)
        return " / ".join(f"{found[c]:.2f}" for c in COLUMNS) if found else None

    def exact(case: Record, row: Record | None, name: str) -> str | None:
        if row is None:
            return None
        failed = f"; {row['failures']} failed" if row["failures"] else ""
        error = row["gradient_error"]
        told = f"{power(error['median'])} / {power(error['worst'])}" if error["of"] else "-"
        return f"{power(row['residual_worst'])}; {told}{failed}"

    def cost(case: Record, row: Record | None, name: str) -> str | None:
        if row is None:
            return None
        host = " / ".join(number(row[f"{c}_host_ms"]["median"]) for c in COLUMNS)
        used = row["memory_mib"]["forward_backward"]
        return host if used is None else f"{host}; {used:,.0f}"

    wanted = []
    for case in cases:
        for t in case["targets"]:
            value = "not measured" if t["value"] is None else f"{t['value']:.3g}"
            met = {True: "met", False: "**missed**", None: "open"}[t["met"]]
            wanted.append([case["case"], t["what"], f"{t['target']:g}", value, met])
    left = [f"{name} at {c['case']}: {why}" for c in cases for name, why in c["left_out"].items()]
    parts = (
        ("Milliseconds a batch, forward / with gradients of all parameters:", time),
        ("How many times as long as torchqp in the same precision they take:", ratio),
        ("Worst relative KKT residual; gradient error, median / worst of a sample:", exact),
        ("Milliseconds until the host has the answer; MiB that a call with gradients takes:", cost),
    )
    lines = ["Targets, for one H200:", ""]
    lines += [table(["n,m,p,B", "what", "target", "measured", ""], wanted)]
    for title, cell in parts:
        lines += ["", title, "", table(["n,m,p,B", *names], rows(cell))]
    return [*lines, "", f"Left out: {'; '.join(left)}."] if left else lines


SECTIONS = {
    "layers": ("Layers, one thread", layers, "size.png"),
    "layers-2threads": ("Layers, two threads", layers_two, None),
    "ratios": ("torchqp's options", ratios, None),
    "ablation": ("What each part buys", ablation, None),
    "roofline": ("Roofline", roofline.section, None),
    "projection": ("Projections", projection, None),
    "scaling": ("Latency, batch, threads", scaling, "batch.png"),
    "large": ("Large problems", large, None),
    "memory": ("Memory", memory, None),
    "accuracy": ("Time against accuracy", accuracy, "accuracy.png"),
    "hard": ("Hard problems", trust_tables.hard, None),
    "faults": ("Faults", trust_tables.faults, None),
    "gpu": ("On a GPU", gpu, "gpu.png"),
}


def render(folder: Path) -> str:
    """All sections."""
    lines: list[str] = []
    for name, (title, section, figure) in SECTIONS.items():
        record = read(folder, name)
        lines += [f"### {title}", ""]
        if record is None or not record["cases"]:
            lines += ["Not measured.", ""]
            continue
        lines += [f"{origin(record)}.", "", *section(record), ""]
        if figure and (folder / figure).exists():
            lines += [f"![{title}]({folder.name}/{figure})", ""]
    return "\n".join(lines)


def insert(page: str, tables: str) -> str:
    """The page with the tables between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n\n{tables}\n{END}{tail}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    options = parser.parse_args(arguments)
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(insert(page, render(options.results)), encoding="utf-8")
    print(f"wrote the tables into {options.page}")


if __name__ == "__main__":
    main()
