"""A layer that learns the rules of Sudoku as equality constraints, as a QP and as a box LP.

    QP:  min 1/2 .1 ||z||^2 - x'z    s.t.  Az = b,  z >= 0          b = A exp(w)
    LP:  min -x'z                    s.t.  Az = b,  0 <= z <= 1     b = A sigmoid(w)

x is the puzzle in one-hot form; A and w are learned. exp(w) or sigmoid(w) is feasible whatever
they are. For the LP the sigmoid keeps that point off the box's corners: with b = A 1 and A > 0
the corner 1 would be the only feasible point.
"""

import torch
from torch import Tensor, nn

import torchqp
from torchqp.backward import Backward

WEIGHT = 0.1  # of the QP form's 1/2 ||z||^2, as in OptNet
TRUE_RANK = {4: 40, 9: 249}  # of the rules' own constraint matrix


class SudokuLayer(nn.Module):
    """Completes one-hot boards.

    Args:
        side: 4 or 9.
        form: "QP" or "LP".
        backward: as for :class:`torchqp.QPLayer`.
        weight: Q is ``weight`` times the identity.
    """

    def __init__(
        self, side: int, form: str, backward: str | Backward = "kkt", weight: float = WEIGHT
    ) -> None:
        """See the class."""
        super().__init__()
        cells = side**3
        self.form = form
        self.solve = torchqp.QPLayer(backward)
        self.A = nn.Parameter(torch.rand(TRUE_RANK[side], cells, dtype=torch.float64))
        self.w = nn.Parameter(torch.zeros(cells, dtype=torch.float64))
        self.register_buffer("hessian", torch.full((cells,), weight, dtype=torch.float64))

    def forward(self, puzzle: Tensor) -> Tensor:
        inside = self.w.exp() if self.form == "QP" else self.w.sigmoid()
        ub = None if self.form == "QP" else 1.0
        Q = torchqp.Diag(self.hessian)
        return self.solve(Q, -puzzle, A=self.A, b=self.A @ inside, lb=0.0, ub=ub)
