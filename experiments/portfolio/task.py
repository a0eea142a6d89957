"""The portfolio task: maximise p'x - lam x'Qx over the simplex."""

from dataclasses import dataclass

import torch
from torch import Tensor

import torchqp
from experiments.common import decisions
from experiments.common.stocks import StockData, simplex


def decide(returns: Tensor, risk: Tensor, lam: float) -> Tensor:
    """The best decision if p is ``returns`` and Q is ``risk``: argmax p'x - lam x'Qx.

    Args:
        returns: float64 ``[samples, stocks]``.
        risk: float64 ``[samples, stocks, stocks]`` or shared ``[stocks, stocks]``.
        lam: weight of the risk; at 0 the problem is a linear program.
    """
    with torch.no_grad():
        solution = torchqp.solve_qp(2.0 * lam * risk, -returns, **simplex(returns.shape[-1]))
    solution.raise_for_status()
    return solution.z


@dataclass(frozen=True)
class Task(decisions.Task):
    """The task on one seed's data at one risk weight.

    Attributes:
        lam: weight of the risk.
        mean_risk: Q averaged over the training samples: what two-stage methods take for Q.
        costs: gradient of the objective at the best decision; p where lam is 0.
    """

    data: StockData
    lam: float
    mean_risk: Tensor
    costs: Tensor

    @classmethod
    def build(cls, data: StockData, lam: float) -> "Task":
        """Solves every sample with the true p and Q."""
        everything = torch.arange(len(data.returns))
        best = decide(data.returns, data.risk, lam)
        vertices = data.returns - lam * data.risk.diagonal(dim1=-2, dim2=-1)
        return cls(
            data=data,
            best=_objective(data, lam, best, everything),
            worst=vertices.amin(-1),  # at a vertex because the objective is concave
            lam=lam,
            mean_risk=data.risk[data.train].mean(0),
            costs=data.returns - 2.0 * lam * torch.einsum("bij,bj->bi", data.risk, best),
        )

    def objective(self, decisions: Tensor, indices: Tensor) -> Tensor:
        """The task objective p'x - lam x'Qx of each of the samples ``indices``."""
        return _objective(self.data, self.lam, decisions, indices)


def _objective(data: StockData, lam: float, decisions: Tensor, indices: Tensor) -> Tensor:
    gain = (data.returns[indices] * decisions).sum(-1)
    if lam == 0.0:
        return gain
    risk = torch.einsum("bi,bij,bj->b", decisions, data.risk[indices], decisions)
    return gain - lam * risk
