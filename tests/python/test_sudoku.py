"""The Sudoku experiments at their smallest: data, the check of the rules, the layer's learning."""

import pytest
import torch

from experiments.sudoku import boards, figures, run, tables
from experiments.sudoku.layer import TRUE_RANK, SudokuLayer
from experiments.sudoku9 import run as run9

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def records() -> list[dict]:
    """Ten steps of three methods."""
    methods = (run.QP, run.EXACT[0], *run.lp_methods(("average",), (1e4,), (0.1,)))
    return [run.execute(run.Run(method, seed=0, epochs=1, puzzles=1500)) for method in methods]


@pytest.mark.parametrize("side", [4, 9])
def test_solutions_follow_the_rules_and_the_givens(side):
    data = boards.load(side)
    assert boards.valid(data.solution, side).all()
    assert ((data.solution - data.puzzle) >= 0).all()
    assert torch.equal(
        data.solution @ boards.rules(side).T, torch.ones(10_000, 4 * side**2).double()
    )


def test_puzzles_of_the_test_set_that_training_knows_are_set_apart():
    assert len(boards.load(4).unseen) == 1000 - 72
    assert len(boards.load(9).unseen) == 1000


def test_check_is_of_permutations_not_of_sums():
    grid = torch.tensor([[0, 0, 3, 3], [3, 3, 0, 0], [0, 3, 0, 3], [3, 0, 3, 0]])  # sums as 0+1+2+3
    board = torch.nn.functional.one_hot(grid, 4).flatten().double()
    assert not boards.valid(board, 4)
    data = boards.load(4)
    swapped = data.solution[0].view(4, 4, 4)[[1, 0, 2, 3]]  # rows of one band: still valid
    assert boards.valid(swapped.flatten(), 4)
    cyclic = (torch.arange(4)[:, None] + torch.arange(4)) % 4  # rows and columns hold, blocks not
    assert not boards.valid(torch.nn.functional.one_hot(cyclic, 4).flatten(), 4)


@pytest.mark.parametrize(("form", "weight"), [("QP", 0.1), ("LP", 0.0)])
def test_layer_with_the_true_rules_completes_every_puzzle(form, weight):
    data = boards.load(4)
    layer = SudokuLayer(4, form, weight=weight)
    layer.A = torch.nn.Parameter(boards.rules(4))
    with torch.no_grad():  # exp(w) = sigmoid(w) = 1/4 puts 1 into b
        layer.w.fill_(-torch.tensor(4.0 if form == "QP" else 3.0).log())
        output = layer(data.puzzle[data.test])
    assert boards.valid(output, 4).all()


def test_ten_steps_learn_and_lpgd_learns_more(records):
    qp, kkt, lpgd = records
    assert [r["failed"] for r in records] == [0, 0, 0]
    assert qp["epochs"]["test_mse"][0] > 1.4
    assert qp["test_mse"] < 0.25
    assert kkt["test_mse"] < 0.17
    assert lpgd["test_mse"] < 0.65 * kkt["test_mse"]
    assert lpgd["board_error"] < 0.9


def test_results_become_tables_and_figures(records, tmp_path):
    assert "| 1 | 0.2" in tables.qp(records)
    assert "| LPGD average, tau 10000, rho 0.1 |" in tables.lp(records)
    for draw in (figures.draw_errors, figures.draw_lpgd):
        draw({"runs": records}, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_default_grid_compares_the_sides_of_lpgd_with_exact_gradients():
    lp = [r.method for r in run.grid(run.DEFAULT) if r.method.form == "LP"]
    assert {"KKT", "lower", "upper", "average"} == {method.mode for method in lp}
    assert len(run.grid(run.FULL)) == 5 * (1 + 2 + 3 * 4 * 3)


def test_independent_rows_of_the_rules_span_them_all():
    for side, rank in TRUE_RANK.items():
        matrix = boards.rules(side)
        rows = boards.independent_rows(matrix)
        assert len(rows) == rank == torch.linalg.matrix_rank(matrix)
        assert torch.linalg.matrix_rank(rows) == rank


def test_layer_of_729_variables_trains_and_solves_by_the_rules(tmp_path):
    known = run9.execute(run9.Run(seed=0, steps=0, judged=4, start="rules"))
    assert known["after"]["board_error"] == 0.5  # the relaxation leaves half of them undecided
    assert known["after"]["cell_error"] < 0.3
    assert "loss" not in known
    record = run9.execute(run9.Run(seed=0, steps=6, batch=4, judged=4))
    assert record["before"]["mse"] > 2.0
    assert record["after"]["mse"] < 0.5 * record["before"]["mse"]
    assert len(record["seconds"]) == 6
    assert "| random | 0 | 6 | 4 |" in run9.table([record, known])
    run9.draw([record, known], tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 10_000
