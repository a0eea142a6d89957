"""The benchmark's hard problems and faults at their smallest."""

import json
from pathlib import Path

import pytest

from experiments.bench import fault_cases, faults, hard, tables, trust_tables
from experiments.bench.fault_cases import CASES, Verdict


def test_hard_problems_are_measured_and_counted(tmp_path: Path, capsys: object) -> None:
    out = tmp_path / "hard.json"
    names = ["--collections", "qp_misc", "--only", "DOCSLS", "GNAR0"]
    solvers = ["--solvers", "torchqp", "clarabel", "--padded"]
    hard.main([*names, *solvers, "--rounds", "1", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["padded"]["qp_misc"] == record["totals"]["qp_misc"]["torchqp"]
    assert record["padded"]["qp_misc"]["value 1e-7"] == 2
    assert [case["case"] for case in record["cases"]] == ["qp_misc/DOCSLS", "qp_misc/GNAR0"]
    for case in record["cases"]:
        for row in case["solvers"].values():
            assert row["solved"] and row["milliseconds"] > 0 and row["relative"] <= 1e-7
        assert case["solvers"]["torchqp"]["value_error"] <= 1e-12
    total = record["totals"]["qp_misc"]["torchqp"]
    assert total == {k: 2 for k in total}
    text = "\n".join(trust_tables.hard(record))
    assert "| qp_misc, 2: absolute 1e-9 | 2 |" in text and "| DOCSLS (3, 3, 0) | " in text


def test_a_solver_that_does_not_return_is_left_out() -> None:
    problem = hard.load("qp_misc", "GNAR0")
    row = hard.limited(problem, "torchqp", seconds=30.0, limit=0.0)
    assert row == {"solved": False, "status": "over 0 s"}
    assert not hard.passes(row, "absolute 1e-3")
    good = {"primal": 1e-9, "dual": 0.0, "gap": 1e-7, "relative": 1e-9, "value_error": 1e-6}
    assert hard.passes(good, "absolute 1e-6") and not hard.passes(good, "absolute 1e-9")
    assert hard.passes(good, "relative 1e-8") and not hard.passes(good, "value 1e-7")
    assert not hard.passes(good | {"gap": None}, "absolute 1e-3")


@pytest.mark.slow
def test_torchqp_is_right_in_all_twenty_faults(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    assert faults.main(["--layers", "torchqp", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    answers = record["cases"][0]["cases"]
    assert list(answers) == [case.name for case in CASES]
    assert len(answers) == 20 and all(answer["right"] is True for answer in answers.values())
    assert "| **right in** | 20 of 20 |" in "\n".join(trust_tables.faults(record))


def test_a_wrong_layer_is_found_out() -> None:
    """One that returns its right-hand side solves nothing; one that raises is said to."""

    def build(size: object) -> object:
        return lambda Q, q, *rest: -q

    def broken(size: object) -> object:
        raise RuntimeError("no such layer")

    for case in CASES[:3]:
        assert not fault_cases.run(case, build).right, case.name
    assert fault_cases.run(CASES[3], broken) == Verdict(False, "raises RuntimeError: no such layer")
    problem, exact = fault_cases.base()
    assert exact.regular.all() and problem.batch == fault_cases.BATCH
    assert "faults" in tables.SECTIONS and "hard" in tables.SECTIONS
