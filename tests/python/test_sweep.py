"""Runs that a restart keeps: order, journal, interrupted lines, worker processes."""

import json
from typing import NamedTuple

import pytest
import torch

from experiments.common import Protocol
from experiments.common.sweep import JOURNAL, finish, sweep


class Square(NamedTuple):
    number: int
    protocol: Protocol = Protocol(epochs=1, batch_size=2, lr=0.1)


def square(run: Square) -> dict:
    return {"square": run.number**2, "third": run.number / 3, "threads": torch.get_num_threads()}


def refuse(run: Square) -> dict:
    raise AssertionError(f"{run} was executed again")


def test_interrupted_sweep_executes_only_what_is_missing(tmp_path):
    def fails_at_two(run: Square) -> dict:
        if run.number == 2:
            raise KeyboardInterrupt
        return square(run)

    runs = [Square(3), Square(1), Square(2)]
    with pytest.raises(KeyboardInterrupt):
        sweep(fails_at_two, runs, tmp_path, workers=1)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('[{"number": 2')  # as a crash within a write would leave it
    executed = []
    records = sweep(lambda run: executed.append(run) or square(run), runs, tmp_path, workers=1)
    assert executed == [Square(2)]
    assert [r["square"] for r in records] == [9, 1, 4]
    assert records[1]["third"] == 0.333333
    assert sweep(refuse, runs, tmp_path, workers=1) == records

    finish(tmp_path)
    with pytest.raises(AssertionError, match="executed again"):
        sweep(refuse, runs, tmp_path, workers=1)


def test_other_settings_are_other_runs(tmp_path):
    sweep(square, [Square(2)], tmp_path, workers=1)
    other = Square(2, Protocol(epochs=9, batch_size=2, lr=0.1))
    sweep(square, [other], tmp_path, workers=1)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    assert [json.loads(line)[0]["protocol"]["epochs"] for line in lines] == [1, 9]
    with pytest.raises(ValueError, match="two of them are equal"):
        sweep(square, [other, other], tmp_path, workers=1)


def test_worker_processes_give_the_records_of_one_process(tmp_path):
    runs = [Square(number) for number in range(4)]
    alone = sweep(square, runs, tmp_path / "alone", workers=1)
    assert sweep(square, runs, tmp_path / "two", workers=2) == alone
    assert {r["threads"] for r in alone} == {1}
