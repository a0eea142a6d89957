"""torchqp: differentiable optimisation layers for PyTorch."""

from torchqp._C import build_info
from torchqp._watch import BackwardWatch, watch_backward
from torchqp.backward import KKT, LPGD, Smoothed
from torchqp.functional import Diag, solve_qp
from torchqp.layer import OptNet, Projection, QPLayer
from torchqp.settings import Settings
from torchqp.solution import Solution, SolveError, Status

from torchqp._certificate import Certificate, certificate  # isort: skip
from torchqp import compat, reference  # isort: skip  they use the names above

__all__ = [
    "KKT",
    "LPGD",
    "BackwardWatch",
    "Certificate",
    "Diag",
    "OptNet",
    "Projection",
    "QPLayer",
    "Settings",
    "Smoothed",
    "Solution",
    "SolveError",
    "Status",
    "build_info",
    "certificate",
    "compat",
    "reference",
    "solve_qp",
    "watch_backward",
]
