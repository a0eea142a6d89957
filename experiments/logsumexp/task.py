"""The task of "You Shall Pass", 9.2: maximise f = -log sum_i exp(-p_i x_i) over the simplex.

f is concave; p are the next day's returns as fractions, so that f is nearly linear and the best
decision is a vertex or close to one. The task's objective is 100 n (f + log n) for n stocks, to
first order the return p'x in percent: regret as a share of a range is the same, and gradients have
the size that they have in the portfolio experiment.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import torchqp
from experiments.common import decisions
from experiments.common.stocks import StockData, simplex

BISECTIONS = 60  # to the last bit of float64, more or less


def value(returns: Tensor, x: Tensor) -> Tensor:
    """The objective for each row."""
    stocks = returns.shape[-1]
    return 100.0 * stocks * (math.log(stocks) - torch.logsumexp(-returns * x, dim=-1))


@torch.no_grad()
def decide(returns: Tensor) -> Tensor:
    """The best decisions, ``[samples, stocks]``, by bisection on the multiplier t of sum x = 1.

    f and -sum_i exp(-p_i x_i) have the same maximiser, and there p_i exp(-p_i x_i) = t wherever
    x_i > 0: x_i = max(0, log(p_i / t) / p_i), which falls as t grows.
    """
    low, high = (e.unsqueeze(-1) for e in (returns * torch.exp(-returns)).aminmax(dim=-1))
    high = torch.maximum(high, returns.amax(-1, keepdim=True))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        above = _shares(returns, middle).sum(-1, keepdim=True) > 1.0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    x = _shares(returns, high)
    return x / x.sum(-1, keepdim=True)


def _shares(returns: Tensor, t: Tensor) -> Tensor:
    """x_i at the multiplier t; infinite where p_i exp(-p_i x_i) > t for every x_i."""
    x = (returns / t).log() / returns
    x = torch.where(returns <= t, torch.zeros_like(x), x)
    return torch.where((returns > t) & (t <= 0.0) & (returns >= 0.0), torch.inf, x)


def differentiable(returns: Tensor) -> Tensor:
    """:func:`decide` with the exact derivative of the true problem: the layer "true problem".

    At its solution x the problem has the derivative of the QP with the same gradient and Hessian
    there, min 1/2 z'Hz + (g(p) - Hx)'z, and that one's solution is x too; H and x are constants,
    g depends on p. Both are scaled by the mean of |p|, which changes nothing but the conditioning.
    """
    x = decide(returns)
    with torch.no_grad():
        weights = torch.softmax(-returns * x, dim=-1)
        scaled = weights * returns
        hessian = torch.diag_embed(scaled * returns) - scaled.unsqueeze(-1) * scaled.unsqueeze(-2)
        scale = 1.0 / (scaled.abs().amax(-1, keepdim=True) + 1e-300)
    gradient = -returns * torch.softmax(-returns * x, dim=-1)
    q = scale * (gradient - torch.einsum("bij,bj->bi", hessian, x))
    return torchqp.QPLayer()(scale.unsqueeze(-1) * hessian, q, **simplex(returns.shape[-1]))


@dataclass(frozen=True)
class Task(decisions.Task):
    """The task on one seed's data."""

    data: StockData
    returns: Tensor

    @classmethod
    def build(cls, data: StockData) -> "Task":
        """Finds the best and the worst decision of every sample."""
        returns = data.returns / 100.0  # the data's are in percent
        worst = torch.nn.functional.one_hot(returns.argmin(-1), returns.shape[-1])
        return cls(
            data=data,
            best=value(returns, decide(returns)),
            worst=value(returns, worst),  # at a vertex: f is concave
            returns=returns,
        )

    def objective(self, decisions: Tensor, indices: Tensor) -> Tensor:
        """100 n (f + log n) for each of the samples ``indices``."""
        return value(self.returns[indices], decisions)
