"""The methods of Table 1: how a network's output becomes a decision, and what trains it."""

from torch import Tensor

import torchqp
from experiments.common.decisions import Method, decision_layer, layer_modes, two_stage
from experiments.common.stocks import simplex
from experiments.logsumexp.task import Task, decide, differentiable

SCALE, SHIFT = 0.1, 0.1  # of the network's output, as in the paper
TRUE_PROBLEM, TWO_STAGE, UNIFORM = "true problem", "MSE", "uniform"
LAYERS = layer_modes()
NAMES = (TRUE_PROBLEM, *LAYERS, TWO_STAGE)
PERCENT = 100.0


def build(name: str, task: Task) -> Method:
    """Makes the method called ``name``.

    "true problem": the output predicts p, the decision solves the task with it, and that is
    differentiated exactly; the layers: the output is projected on the simplex ("exact" is the
    paper's QP); MSE: the output predicts p in percent by least squares.
    """
    if name == TRUE_PROBLEM:
        return decision_layer(task, lambda output, indices: differentiable(_scaled(output)))
    if name in LAYERS:
        stocks = task.returns.shape[-1]
        project = torchqp.Projection(**simplex(stocks), backward=LAYERS[name])
        return decision_layer(task, lambda output, indices: project(_scaled(output)))
    if name == TWO_STAGE:
        return two_stage(
            PERCENT * task.returns,
            lambda output: output.double(),
            lambda prediction, indices: decide(prediction / PERCENT),
        )
    raise ValueError(f"name: expected one of {NAMES}, got {name!r}")


def _scaled(output: Tensor) -> Tensor:
    return SCALE * output.double() + SHIFT
