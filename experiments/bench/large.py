"""Few large problems: n = m = 200, 500, 1000 with n / 10 equalities, beside the raw solvers.

    python experiments/bench/large.py --out experiments/bench/results/large.json

A peer that takes longer than --limit for one problem, or would by the cube of n from its time at
the size before, is named with that time and left out.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

from functools import partial
from typing import Any

from experiments.bench import suite
from experiments.bench.adapters import packages
from experiments.bench.measure import available, measure, show
from experiments.bench.suite import Case

CASES = ((200, 200, 20, 4), (500, 500, 50, 2), (1000, 1000, 100, 1))
LAYERS = ("torchqp", "moreau", "loop-daqp", "loop-piqp", "loop-proxqp", "loop-clarabel")


def too_slow(size: Case, earlier: list[dict[str, Any]], limit: float) -> dict[str, str]:
    """Layers that this size would take past the limit, by their times at smaller sizes."""
    slow: dict[str, str] = {}
    for record in sorted(earlier, key=lambda record: record["n"]):
        if record["n"] >= size[0]:
            break
        slow |= {name: why for name, why in record["left_out"].items() if "for one QP" in why}
        for name, row in record["layers"].items():
            time = row.get("forward_backward_us") or row["forward_us"]
            expected = 1e-6 * time["median"] * (size[0] / record["n"]) ** 3
            if expected > limit and name != "torchqp":
                slow[name] = f"about {expected:.0f} s for one QP, by its time at n = {record['n']}"
            else:
                slow.pop(name, None)
    return slow


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=1.5)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B", default=CASES)
    parser.add_argument("--layers", nargs="+", metavar="NAME", default=list(LAYERS))
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for one problem")
    options = parser.parse_args(arguments)
    record = suite.Record("large", options, packages(options.layers))
    names, absent = available(options.layers)
    record.note(absent=absent)
    for name, why in absent.items():
        print(f"absent: {name} ({why})")
    done: list[dict[str, Any]] = []
    for size in sorted(options.cases):
        skip = too_slow(size, done, options.limit)
        run = partial(measure, size, names, options, skip=skip, limit=options.limit)
        done.append(record.case(suite.name(size), run))
        show(done[-1])
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
