"""Time against achieved accuracy: torchqp and the peers that have a tolerance, at one size.

    python experiments/bench/accuracy.py --out experiments/bench/results/accuracy.json

Every tolerance is a layer of its own in layers.py's measurement: same rounds, residual and gradient
error recomputed in the same way. Layers without a tolerance stand once, with their defaults.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

from typing import Any

from experiments.bench import suite
from experiments.bench.adapters import packages
from experiments.bench.measure import COLUMNS, available, measure, show

TOLERANCES = {
    "torchqp": [1e-2, 1e-4, 1e-6, 1e-8, 1e-10],
    "torchqp-float32": [1e-2, 1e-3, 1e-4, 1e-5],
    "moreau-ipm": [1e-4, 1e-8, 1e-12],
    "proxqp": [1e-3, 1e-6, 1e-9],
    "qpth": [1e-2, 1e-5, 1e-8, 1e-12],
    "qpax": [1e-3, 1e-8],
    "osqp": [1e-3, 1e-5, 1e-8],
    "cvxpylayers-dense": [1e-4, 1e-8, 1e-10],
    "loop-piqp": [1e-2, 1e-5, 1e-8],
    "loop-proxqp": [1e-2, 1e-5, 1e-9],
    "loop-clarabel": [1e-4, 1e-8, 1e-10],
}
WITHOUT = ("moreau", "loop-daqp")


def points(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The figure's points: one a layer and tolerance."""
    result = []
    for label, row in record["layers"].items():
        name, _, eps = label.partition(" ")
        error = row.get("gradient_error", {}).get("all", {})
        point = {"layer": name, "eps": float(eps) if eps else None}
        point |= {f"{c}_us": row[f"{c}_us"]["median"] for c in COLUMNS if f"{c}_us" in row}
        point |= {"residual_worst": row["residual_worst"]}
        point |= {f"gradient_error_{name}": value for name, value in error.items()}
        result.append(point)
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.6)
    parser.add_argument("--cases", nargs="+", type=suite.case, default=[(50, 50, 10, 128)])
    parser.add_argument("--layers", nargs="+", metavar="NAME", default=[*TOLERANCES, *WITHOUT])
    options = parser.parse_args(arguments)
    record = suite.Record("accuracy", options, packages(options.layers))
    names, absent = available(options.layers)
    record.note(absent=absent, tolerances=TOLERANCES)
    for size in options.cases:

        def run(size: suite.Case = size) -> dict[str, Any]:
            measured = measure(size, names, options, tolerances=TOLERANCES)
            return {**measured, "points": points(measured)}

        show(record.case(suite.name(size), run))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
