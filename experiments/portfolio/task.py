"""The portfolio task: maximise p'x - lam x'Qx over the simplex, and how decisions are judged."""

from dataclasses import dataclass

import torch
from torch import Tensor

import torchqp
from experiments.common import range_regret, relative_regret
from experiments.portfolio.data import PortfolioData


def simplex(stocks: int) -> dict[str, Tensor | float]:
    """The constraints sum x = 1, x >= 0 as arguments of torchqp."""
    return {"A": torch.ones(1, stocks, dtype=torch.float64), "b": 1.0, "lb": 0.0}


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
class Task:
    """The task on one seed's data at one risk weight.

    Attributes:
        data: samples and split.
        lam: weight of the risk.
        best: objective of the best decision in hindsight, ``[samples]``.
        worst: objective of the worst one, at a vertex because the objective is concave.
        mean_risk: Q averaged over the training samples: what two-stage methods take for Q.
    """

    data: PortfolioData
    lam: float
    best: Tensor
    worst: Tensor
    mean_risk: Tensor

    @classmethod
    def build(cls, data: PortfolioData, lam: float) -> "Task":
        """Solves every sample with the true p and Q."""
        everything = torch.arange(len(data.returns))
        decisions = decide(data.returns, data.risk, lam)
        vertices = data.returns - lam * data.risk.diagonal(dim1=-2, dim2=-1)
        return cls(
            data=data,
            lam=lam,
            best=_objective(data, lam, decisions, everything),
            worst=vertices.amin(-1),
            mean_risk=data.risk[data.train].mean(0),
        )

    def objective(self, decisions: Tensor, indices: Tensor) -> Tensor:
        """The task objective p'x - lam x'Qx of each of the samples ``indices``."""
        return _objective(self.data, self.lam, decisions, indices)

    def relative_regret(self, decisions: Tensor, indices: Tensor) -> float:
        """``sum(f* - f) / sum |f*|`` over ``indices``."""
        return relative_regret(self.objective(decisions, indices), self.best[indices])

    def range_regret(self, decisions: Tensor, indices: Tensor) -> float:
        """Mean of ``(f* - f) / (f* - f_worst)`` over ``indices``."""
        value = self.objective(decisions, indices)
        return range_regret(value, self.best[indices], self.worst[indices])


def _objective(data: PortfolioData, lam: float, decisions: Tensor, indices: Tensor) -> Tensor:
    gain = (data.returns[indices] * decisions).sum(-1)
    if lam == 0.0:
        return gain
    risk = torch.einsum("bi,bij,bj->b", decisions, data.risk[indices], decisions)
    return gain - lam * risk
