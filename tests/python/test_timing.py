"""The timing experiment at its smallest: who is timed, that answers are right, tables, figure."""

import pytest

from experiments.timing import figures, run, tables


@pytest.fixture(scope="module")
def records() -> list[dict]:
    return [
        run.execute(run.Run(1, 10, 8, ("torchqp",), seconds=0.02)),
        run.execute(run.Run(2, 20, 4, ("torchqp", "loop-clarabel"), seconds=0.02)),
    ]


def test_layers_are_timed_beside_a_linear_one(records):
    times = records[0]["times"]
    assert records[0]["failed"] == {}
    assert list(times) == ["linear", "torchqp"]
    assert 0 < times["torchqp"]["forward"]["min"] < times["torchqp"]["total"]["p95"] < 1


def test_answers_beside_a_raw_solver_are_solutions(records):
    times = records[1]["times"]
    assert records[1]["failed"] == {}
    assert "total" not in times["loop-clarabel"]
    assert times["torchqp"]["residual"] < 1e-10
    assert times["loop-clarabel"]["residual"] < 1e-6


def test_grid_is_that_of_the_papers_figures():
    runs = run.grid(("torchqp", "qpth"), ("loop-daqp",), full=False)
    assert [r.n for r in runs if r.figure == 1] == [10, 50, 100, 500]
    assert runs[3].layers == ("torchqp",)
    assert [r.batch for r in runs if r.figure == 2] == [1, 64, 128]
    assert runs[-1].layers == ("torchqp", "qpth", "loop-daqp")


def test_results_become_tables_and_figure(records, tmp_path):
    assert "| ms a batch of 128 | n = 10 |" in tables.sizes(records)
    assert "| loop-clarabel |" in tables.batches(records)
    figures.draw(records, tmp_path / "timing.png")
    assert (tmp_path / "timing.png").stat().st_size > 10_000
