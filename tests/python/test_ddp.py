"""Training over two processes at its smallest: one process's gradients and parameters."""

import numpy as np
import pytest

from experiments.ddp import run


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    record = run.execute(run.Run(side=4, batch=30, steps=3, processes=(1, 2)))
    one, two = record["rows"]
    assert [one["gradient_error"], one["speed_up"]] == [0.0, 1.0]
    assert 0.0 < two["gradient_error"] < 1e-12  # the sums have another order
    assert two["parameter_error"] < 1e-9
    assert "| 4x4 | 30 | 2 |" in run.table([record])
    run.draw([record], tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5_000


def test_difference_is_relative_to_the_largest_entry():
    alone = {"gradient_A": np.array([1.0, -4.0]), "parameter_A": np.array([1.0])}
    other = {"gradient_A": np.array([1.5, -4.0]), "parameter_A": np.array([1.0])}
    assert run.difference(other, alone, "gradient_") == 0.125
    assert run.difference(other, alone, "parameter_") == 0.0
