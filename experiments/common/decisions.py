"""Decision-focused learning: a task, ways to train a network for it, and how they are judged.

A network sees a sample's features; a method turns its output into a decision; the task has an
objective, to be maximised, of decisions and samples. Regret is what a decision falls short of the
best one in hindsight.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import torchqp
from experiments.common.metrics import range_regret, relative_regret
from experiments.common.training import Protocol, fit


@dataclass(frozen=True)
class Samples:
    """Inputs and split.

    Attributes:
        features: float32 ``[samples, features]``.
        train, validation, test: indices of the three parts.
    """

    features: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class Task:
    """What decisions are for; a task defines :meth:`objective`.

    Attributes:
        data: samples and split.
        best: objective of the best decision in hindsight, ``[samples]``.
        worst: objective of the worst feasible one.
    """

    data: Samples
    best: Tensor
    worst: Tensor

    def objective(self, decisions: Tensor, indices: Tensor) -> Tensor:
        """The objective of a decision for each of the samples ``indices``; larger is better."""
        raise NotImplementedError

    def relative_regret(self, decisions: Tensor, indices: Tensor) -> float:
        """``sum(f* - f) / sum |f*|`` over ``indices``."""
        return relative_regret(self.objective(decisions, indices), self.best[indices])

    def range_regret(self, decisions: Tensor, indices: Tensor) -> float:
        """Mean of ``(f* - f) / (f* - f_worst)`` over ``indices``."""
        value = self.objective(decisions, indices)
        return range_regret(value, self.best[indices], self.worst[indices])


@dataclass(frozen=True)
class Method:
    """A way to train the network.

    Attributes:
        loss: ``loss(output, indices)``, summed over the samples; output ``[samples, size]``.
        decide: the decisions ``[samples, variables]`` that an output stands for, sample by sample
            of ``indices``.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor, Tensor], Tensor]


TAU = 0.3  # of LPGD, relative: tau ||g||_inf = 0.3 (||q||_inf + 1)


def layer_modes(alpha: float = 0.0) -> dict[str, torchqp.KKT | torchqp.Smoothed | torchqp.LPGD]:
    """The backwards of a decision layer that the experiments compare, by name."""
    return {
        "exact": torchqp.KKT(),
        "smoothed": torchqp.Smoothed(alpha=alpha),
        "LPGD lower": torchqp.LPGD(tau=TAU, side="lower"),
        "LPGD average": torchqp.LPGD(tau=TAU, side="average"),
    }


def decision_layer(task: Task, decide: Callable[[Tensor, Tensor], Tensor]) -> Method:
    """The method that maximises the task's objective of the decision itself."""

    def loss(output: Tensor, indices: Tensor) -> Tensor:
        return -task.objective(decide(output, indices), indices).sum()

    return Method(loss, decide)


def two_stage(
    targets: Tensor,
    predict: Callable[[Tensor], Tensor],
    solve: Callable[[Tensor, Tensor], Tensor],
) -> Method:
    """The method that fits a prediction of the objective's coefficients by least squares.

    Args:
        targets: true coefficients, ``[samples, size]``.
        predict: the prediction that a network's output stands for.
        solve: ``solve(prediction, indices)``, the best decision if the prediction were true.
    """

    def loss(output: Tensor, indices: Tensor) -> Tensor:
        return (predict(output) - targets[indices]).square().sum()

    def decide(output: Tensor, indices: Tensor) -> Tensor:
        return solve(predict(output), indices)

    return Method(loss, decide)


def train(method: Method, task: Task, network: nn.Module, seed: int, protocol: Protocol) -> dict:
    """Trains ``network`` and returns its record: test regret at the best epoch, and curves."""
    data = task.data

    def decisions(indices: Tensor) -> Tensor:
        return method.decide(network(data.features[indices]), indices)

    def evaluate(_: nn.Module) -> dict[str, float]:
        parts = {"validation": data.validation, "train": data.train}
        scores = {name: task.relative_regret(decisions(i), i) for name, i in parts.items()}
        return scores | {"test": task.range_regret(decisions(data.test), data.test)}

    generator = torch.Generator().manual_seed(seed)
    history = fit(network, data.features, method.loss, evaluate, data.train, protocol, generator)
    with torch.no_grad():
        record = judge(task, decisions(data.test))
    return record | {
        "train_regret": history.scores["train"][-1],
        "zero_share": history.zero_share[-1],
        "best_epoch": history.best_epoch,
        "zero_gap": history.zero_gap,
        "seconds": history.seconds,
        "curves": {
            "train_regret": history.scores["train"],
            "validation_regret": history.scores["validation"],
            "test_range_regret": history.scores["test"],
            "zero_share": history.zero_share,
            "gradient_norm": history.gradient_norm,
        },
    }


def judge(task: Task, decisions: Tensor) -> dict:
    """Test regret in both normalisations."""
    return {
        "range_regret": task.range_regret(decisions, task.data.test),
        "relative_regret": task.relative_regret(decisions, task.data.test),
    }


def best_so_far(curves: dict[str, list[float]]) -> list[float]:
    """Test range regret, after each epoch, of the weights with the least validation regret yet."""
    best, kept, curve = float("inf"), float("nan"), []
    for validation, test in zip(
        curves["validation_regret"], curves["test_range_regret"], strict=True
    ):
        if validation < best:
            best, kept = validation, test
        curve.append(kept)
    return curve
