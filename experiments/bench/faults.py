"""Twenty faults over every layer, one table: who is right, and how the others behave.

    python experiments/bench/faults.py --out experiments/bench/results/faults.json
    python experiments/bench/faults.py --layers torchqp proxqp

`fault_cases.py` has the cases and says what right is. Each layer runs in a process of its own,
which is started again after a case that it does not survive or that takes longer than --limit.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import contextlib
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

from experiments.bench import suite
from experiments.bench.adapters import ADAPTERS, packages
from experiments.bench.fault_cases import CASES, run
from experiments.bench.measure import available

LAYERS = (
    "torchqp",
    "qpth",
    "moreau",
    "moreau-ipm",
    "proxqp",
    "cvxpylayers",
    "cvxpylayers-lpgd",
    "cvxpylayers-moreau",
    "osqp",
    "qpax",
)
_JAX = dict.fromkeys((16, 17, 18, 19), "not asked: it is a layer of JAX")
_UNSHARED = dict.fromkeys((14, 15), "not asked: its adapter has no form for shared matrices")
_ROWS = {8: "not asked: a parameter without rows cannot be declared"}
_ROOT = {3: "not asked: its adapter hands over the Cholesky factor of Q"}
# Cases that say nothing about a layer, by number.
NOT_ASKED: dict[str, dict[int, str]] = {
    "moreau": _UNSHARED,
    "moreau-ipm": _UNSHARED,
    "osqp": _UNSHARED,
    "qpax": _UNSHARED | _JAX,
    "cvxpylayers": _ROWS | _ROOT,
    "cvxpylayers-lpgd": _ROWS | _ROOT,
    "cvxpylayers-moreau": _ROWS,
}


def _child(layer: str, first: int, end: Connection) -> None:
    """Runs the cases from ``first`` on, in a process that may die of one."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    for number in range(first, len(CASES)):
        if why := NOT_ASKED.get(layer, {}).get(number):
            end.send((number, None, why))
            continue
        verdict = run(CASES[number], lambda size: ADAPTERS[layer].build(size).solve)
        end.send((number, verdict.right, verdict.words))


def judge(layer: str, limit: float) -> dict[str, dict[str, Any]]:
    """By case: whether the layer is right (None where it was not asked), and its answer."""
    context = multiprocessing.get_context("spawn")  # jax's threads do not outlive a fork
    found: dict[str, dict[str, Any]] = {}
    while len(found) < len(CASES):
        near, far = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(layer, len(found), far))
        child.start()
        far.close()
        words = f"no answer in {limit:g} s"
        with contextlib.suppress(EOFError):
            while len(found) < len(CASES) and near.poll(limit):
                words = "the process dies"
                number, right, said = near.recv()
                found[CASES[number].name] = {"right": right, "words": said}
                words = f"no answer in {limit:g} s"
        if child.exitcode is not None or not child.is_alive():
            words = "the process dies"
        child.kill()
        child.join()
        if len(found) < len(CASES):
            found[CASES[len(found)].name] = {"right": False, "words": words}
    return found


def main(arguments: list[str] | None = None) -> int:
    """How many cases torchqp got wrong."""
    parser = suite.parser(__doc__, budget=0.0)
    parser.add_argument("--layers", nargs="+", choices=list(ADAPTERS), default=list(LAYERS))
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case")
    options = parser.parse_args(arguments)
    record = suite.Record("faults", options, packages(options.layers))
    names, absent = available(options.layers)
    record.note(absent=absent)
    for name, why in absent.items():
        print(f"absent: {name} ({why})")
    rows = {}
    for name in names:
        rows[name] = record.case(name, lambda name=name: {"cases": judge(name, options.limit)})
        answers = rows[name]["cases"]
        asked = [answer for answer in answers.values() if answer["right"] is not None]
        print(f"\n{name}: right in {sum(a['right'] for a in asked)} of {len(asked)}")
        for case, answer in answers.items():
            mark = {True: "right", False: "WRONG", None: "-"}[answer["right"]]
            print(f"  {mark:6} {case:42} {answer['words']}")
    ours = rows.get("torchqp", {"cases": {}})["cases"].values()
    return sum(not answer["right"] for answer in ours)


if __name__ == "__main__":
    raise SystemExit(main())
