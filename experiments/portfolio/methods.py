"""The methods that are compared: what the network's output means and which loss trains it.

Decision layers: the output is projected on the simplex and the task objective of the projection
is maximised; they differ only in the backward of ``torchqp.Projection``. Two-stage methods: the
output predicts p, and the decision solves the task with it and with the training mean of Q.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import torchqp
from experiments.portfolio.task import Task, decide, simplex

try:
    from pyepo import EPO
    from pyepo.func import SPOPlus
    from pyepo.model.opt import optModel
except ImportError as error:
    PYEPO_MISSING: str | None = f"{error}; pip install 'torchqp[experiments]' brings PyEPO"
else:
    PYEPO_MISSING = None

SCALE, SHIFT = 1.0, 0.1  # of the network's output, as in the paper
TAU = 0.3  # of LPGD, relative: tau ||g||_inf = 0.3 (||q||_inf + 1)


def alpha(lam: float) -> float:
    """The paper's weight of the projection-distance term at each risk weight."""
    return 0.0 if lam < 0.25 else 0.01 if lam < 1.0 else 0.1


LAYERS: dict[str, Callable[[float], object]] = {
    "exact": lambda lam: torchqp.KKT(),
    "smoothed": lambda lam: torchqp.Smoothed(alpha=alpha(lam)),
    "LPGD lower": lambda lam: torchqp.LPGD(tau=TAU, side="lower"),
    "LPGD average": lambda lam: torchqp.LPGD(tau=TAU, side="average"),
}
TWO_STAGE, SPO_PLUS, UNIFORM = "MSE", "SPO+", "uniform"


@dataclass(frozen=True)
class Method:
    """A way to train the network.

    Attributes:
        loss: ``loss(output, indices)``, summed over the samples; output ``[samples, stocks]``.
        decide: the decisions ``[samples, stocks]`` that an output stands for.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]


def names(lam: float) -> list[str]:
    """The trained methods that apply at a risk weight; SPO+ needs a linear objective."""
    spo_plus = [SPO_PLUS] if lam == 0.0 and PYEPO_MISSING is None else []
    return [TWO_STAGE, *spo_plus, *LAYERS]


def build(name: str, task: Task) -> Method:
    """Makes the method called ``name`` for a task."""
    if name in LAYERS:
        return _decision_layer(LAYERS[name](task.lam), task)
    if name == TWO_STAGE:
        return _two_stage(lambda p_hat, p, indices: (p_hat - p).square().sum(), task)
    if name == SPO_PLUS:
        return _two_stage(_spo_plus(task), task)
    raise ValueError(f"name: expected one of {names(task.lam)}, got {name!r}")


def _decision_layer(backward: object, task: Task) -> Method:
    stocks = task.data.returns.shape[-1]
    project = torchqp.Projection(**simplex(stocks), backward=backward)

    def decisions(output: Tensor) -> Tensor:
        return project(SCALE * output.double() + SHIFT)

    def loss(output: Tensor, indices: Tensor) -> Tensor:
        return -task.objective(decisions(output), indices).sum()

    return Method(loss, decisions)


def _two_stage(prediction_loss: Callable[[Tensor, Tensor, Tensor], Tensor], task: Task) -> Method:
    def predict(output: Tensor) -> Tensor:
        return SCALE * output.double() + SHIFT

    def loss(output: Tensor, indices: Tensor) -> Tensor:
        return prediction_loss(predict(output), task.data.returns[indices], indices)

    def decisions(output: Tensor) -> Tensor:
        return decide(predict(output), task.mean_risk, task.lam)

    return Method(loss, decisions)


def _spo_plus(task: Task) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """PyEPO's SPO+ loss of a linear objective over the simplex, whose optima are vertices."""

    class Simplex(optModel):
        modelSense = EPO.MAXIMIZE  # PyEPO's name

        def _getModel(self) -> tuple:
            return None, range(task.data.returns.shape[-1])

        def setObj(self, c) -> None:
            self._cost = c

        def solve(self) -> tuple:
            vertex = self._cost.argmax()
            decision = [0.0] * len(self._cost)
            decision[vertex] = 1.0
            return decision, float(self._cost[vertex])

    spo_plus = SPOPlus(Simplex(), reduction="sum")
    truth = torch.nn.functional.one_hot(task.data.returns.argmax(-1), task.data.returns.shape[-1])

    def loss(p_hat: Tensor, p: Tensor, indices: Tensor) -> Tensor:
        return spo_plus(p_hat, p, truth[indices].double(), task.best[indices])

    return loss
