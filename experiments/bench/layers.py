"""Microseconds per QP, achieved residual and gradient error of torchqp and its peers, on one CPU.

    python experiments/bench/layers.py                                 # six cases, one thread
    python experiments/bench/layers.py --threads 2 --cases 100,100,0,128 --layers torchqp moreau
    python experiments/bench/layers.py --out experiments/bench/results/layers.json

What is measured, and how to install the peers, is in README.md beside this file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

from functools import partial

from experiments.bench import suite
from experiments.bench.adapters import DEFAULT_LAYERS, packages
from experiments.bench.measure import available, measure, show
from experiments.bench.problems import DEFAULT_CASES


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=1.2)
    parser.add_argument("--cases", nargs="+", type=suite.case, metavar="n,m,p,B")
    parser.add_argument("--layers", nargs="+", metavar="NAME", default=list(DEFAULT_LAYERS))
    options = parser.parse_args(arguments)
    record = suite.Record("layers", options, packages(options.layers))
    names, absent = available(options.layers)
    record.note(
        recipe="Q = UU' + 1e-3 I, U ~ U(0,1); float64; gradients of w'z for Q, q, G, h, A, b",
        absent=absent,
    )
    print("medians; *: batch cut; failed: members with a residual above 1e-6, or with NaN")
    for name, why in absent.items():
        print(f"absent: {name} ({why})")
    for size in options.cases or DEFAULT_CASES:
        show(record.case(suite.name(size), partial(measure, size, names, options)))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
