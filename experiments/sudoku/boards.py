"""Sudoku boards of side 4 and 9: data, one-hot form, and the check of the rules."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.common import load_npz

DATA = Path(__file__).resolve().parents[1] / "data"
FILES = {
    4: (
        DATA / "sudoku4" / "sudoku4_optnet.npz",
        "0a1cb34a197fb7df103a6cb2c85dacbe7372e339463a072861602dcf8d8c3722",
    ),
    9: (
        DATA / "sudoku9" / "sudoku9_generated.npz",
        "a6f2055433d505369aa809afcce9eb93c1251397b748fdb233624ebb5664af43",
    ),
}
TRAIN = 9_000  # of 10,000; the rest is the test set


@dataclass(frozen=True)
class Boards:
    """Boards as one-hot vectors, float64 ``[boards, side ** 3]``; empty cells are zero.

    Attributes:
        puzzle, solution: the boards.
        side: 4 or 9.
        train, test: indices of the first 9,000 and the last 1,000.
        unseen: the test indices whose puzzle is not also a training puzzle.
    """

    puzzle: Tensor
    solution: Tensor
    side: int
    train: Tensor
    test: Tensor
    unseen: Tensor


def load(side: int) -> Boards:
    """Reads the puzzles of one size."""
    digits = load_npz(*FILES[side])
    rows = torch.arange(len(digits["puzzle"]))
    seen = {puzzle.tobytes() for puzzle in digits["puzzle"][:TRAIN]}
    unseen = [i for i in range(TRAIN, len(rows)) if digits["puzzle"][i].tobytes() not in seen]
    return Boards(
        puzzle=_one_hot(digits["puzzle"]),
        solution=_one_hot(digits["solution"]),
        side=side,
        train=rows[:TRAIN],
        test=rows[TRAIN:],
        unseen=torch.tensor(unseen),
    )


def digits(board: Tensor, side: int) -> Tensor:
    """The likeliest digit of each cell, counted from 0, ``[*, side, side]``."""
    return board.unflatten(-1, (side, side, side)).argmax(-1)


def valid(board: Tensor, side: int) -> Tensor:
    """Whether every row, column and block holds every digit exactly once, ``[*]``."""
    grid = digits(board, side)
    root = round(side**0.5)
    blocks = grid.unflatten(-1, (root, root)).unflatten(-3, (root, root)).transpose(-3, -2)
    groups = (grid, grid.mT, blocks.flatten(-2).flatten(-3, -2))
    every = torch.arange(side, device=board.device)
    return torch.stack([(g.sort(-1).values == every).all(-1).all(-1) for g in groups]).all(0)


def rules(side: int) -> Tensor:
    """The matrix A of Az = 1: one digit a cell; each digit once a row, column and block."""
    root = round(side**0.5)
    cells = torch.arange(side**3).view(side, side, side)
    blocks = [
        cells[root * i : root * (i + 1), root * j : root * (j + 1)]
        for i, j in product(range(root), repeat=2)
    ]
    groups = [cells[i, j] for i, j in product(range(side), repeat=2)]
    for digit in range(side):
        groups += [cells[i, :, digit] for i in range(side)]
        groups += [cells[:, j, digit] for j in range(side)]
        groups += [block[..., digit].flatten() for block in blocks]
    matrix = torch.zeros(len(groups), side**3, dtype=torch.float64)
    for row, group in zip(matrix, groups, strict=True):
        row[group] = 1.0
    return matrix


def independent_rows(matrix: Tensor) -> Tensor:
    """Those rows that are no combination of the rows before them."""
    diagonal = torch.linalg.qr(matrix.T).R.diagonal().abs()
    return matrix[: len(diagonal)][diagonal > 1e-9]


def _one_hot(grid: np.ndarray) -> Tensor:
    every = np.arange(1, grid.shape[-1] + 1)
    return torch.from_numpy((grid[..., None] == every).reshape(len(grid), -1).astype(np.float64))
