"""The methods that are compared: what the network's output means and which loss trains it.

Decision layers: the output is projected on the simplex and the task objective of the projection
is maximised; they differ only in the backward of ``torchqp.Projection``. Two-stage: the output
predicts p, and the decision solves the task with it and with the training mean of Q. Linear
methods: see ``experiments.common.linear``.
"""

from torch import Tensor

import torchqp
from experiments.common import linear
from experiments.common.decisions import Method, decision_layer, layer_modes, two_stage
from experiments.common.stocks import best_stock, simplex
from experiments.portfolio.task import Task, decide

SCALE, SHIFT = 1.0, 0.1  # of the network's output, as in the paper's Fig. 3
PERTURBED_SCALE = 0.1  # as in its Fig. 4: the noise is measured in units of the scaled output
TWO_STAGE, UNIFORM = "MSE", "uniform"
LAYERS = tuple(layer_modes())
LINEAR_LAMS = (0.0, 0.1)  # where the paper's Fig. 4 has the linear methods


def alpha(lam: float) -> float:
    """The paper's weight of the projection-distance term at each risk weight."""
    return 0.0 if lam < 0.25 else 0.01 if lam < 1.0 else 0.1


def names(lam: float) -> list[str]:
    """The trained methods that apply at a risk weight."""
    absent = lam not in LINEAR_LAMS or linear.PYEPO_MISSING is not None
    return [TWO_STAGE, *(() if absent else linear.NAMES), *LAYERS]


def build(name: str, task: Task) -> Method:
    """Makes the method called ``name`` for a task."""
    if name in LAYERS:
        backward = layer_modes(alpha(task.lam))[name]
        project = torchqp.Projection(**simplex(task.data.returns.shape[-1]), backward=backward)
        return decision_layer(task, lambda output, indices: project(_predict(output)))
    if name == TWO_STAGE:
        return two_stage(
            task.data.returns,
            _predict,
            lambda p_hat, indices: decide(p_hat, task.mean_risk, task.lam),
        )
    if name in linear.NAMES:
        scale = PERTURBED_SCALE if name == linear.PERTURBED else SCALE
        return linear.build(
            name, task, task.costs, best_stock, lambda output: scale * output + SHIFT
        )
    raise ValueError(f"name: expected one of {names(task.lam)}, got {name!r}")


def _predict(output: Tensor) -> Tensor:
    return SCALE * output.double() + SHIFT
