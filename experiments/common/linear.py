"""Methods for tasks with a linear objective, from PyEPO: SPO+, perturbed and identity.

The network's output predicts the objective's coefficients c, and the decision is the best one for
the prediction: a vertex. Where the true objective is not linear, what the methods call c is its
gradient at the best decision, which is as good as it there; the solutions that perturbed and
identity return are judged by the true objective.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from experiments.common.decisions import Method, Task

try:
    from pyepo import EPO
    from pyepo.func import SPOPlus, negativeIdentity, perturbedOpt
    from pyepo.model.opt import optModel
except ImportError as error:
    PYEPO_MISSING: str | None = f"{error}; pip install 'torchqp[experiments]' brings PyEPO"
else:
    PYEPO_MISSING = None

SAMPLES, SIGMA = 4, 0.05  # of perturbed, as in "You Shall Pass"
SPO_PLUS, PERTURBED, IDENTITY = "SPO+", "perturbed", "identity"
NAMES = (SPO_PLUS, PERTURBED, IDENTITY)

Solver = Callable[[Tensor, Tensor], Tensor]


def build(
    name: str, task: Task, costs: Tensor, solve: Solver, predict: Callable[[Tensor], Tensor]
) -> Method:
    """Makes one of :data:`NAMES`.

    Args:
        name: which.
        task: the task.
        costs: true coefficients c to be maximised, ``[samples, variables]``.
        solve: ``solve(c, indices)``, the best decisions for coefficients ``[batch, variables]`` on
            the feasible sets of the samples ``indices``.
        predict: the coefficients that a network's output stands for, in float64.
    """
    oracle = _oracle(costs.shape[-1], solve)

    def decide(output: Tensor, indices: Tensor) -> Tensor:
        return solve(predict(output.double()).detach(), indices)

    if name == SPO_PLUS:
        spo_plus = SPOPlus(oracle, reduction="sum")
        vertices = solve(costs, torch.arange(len(costs)))
        values = (costs * vertices).sum(-1, keepdim=True)

        def loss(output: Tensor, indices: Tensor) -> Tensor:
            oracle.members = iter(indices)
            truth = (costs[indices], vertices[indices], values[indices])
            return spo_plus(predict(output.double()), *truth)

        return Method(loss, decide)
    if name == PERTURBED:
        layer, repeats = perturbedOpt(oracle, n_samples=SAMPLES, sigma=SIGMA), SAMPLES
    elif name == IDENTITY:
        layer, repeats = negativeIdentity(oracle), 1
    else:
        raise ValueError(f"name: expected one of {NAMES}, got {name!r}")

    def task_loss(output: Tensor, indices: Tensor) -> Tensor:
        oracle.members = iter(indices.repeat_interleave(repeats))
        prediction = predict(output.double())
        if name == IDENTITY:  # "norm" in its paper: the scale of a linear objective means nothing
            prediction = normalize(prediction, dim=-1)
        return -task.objective(layer(prediction), indices).sum()

    return Method(task_loss, decide)


def _oracle(size: int, solve: Solver) -> "optModel":
    """PyEPO's view of ``solve``: it asks for one sample after the other, those of ``members``."""

    class Oracle(optModel):
        modelSense = EPO.MAXIMIZE  # PyEPO's name

        def __init__(self) -> None:
            super().__init__()
            self.members = iter(torch.empty(0, dtype=torch.long))

        def _getModel(self) -> tuple:
            return None, range(size)

        def setObj(self, c) -> None:
            self._cost = torch.as_tensor(c).double()

        def solve(self) -> tuple:
            decision = solve(self._cost[None], next(self.members)[None])[0]
            return decision.numpy(), float(self._cost @ decision)

    return Oracle()
