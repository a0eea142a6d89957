"""Regret of decisions in a maximisation task, in two normalisations."""

from torch import Tensor


def relative_regret(value: Tensor, best: Tensor) -> float:
    """Returns ``sum(best - value) / sum |best|``, the normalisation of PyEPO.

    Args:
        value: task objective of the decisions taken, shape ``[samples]``.
        best: objective of the best decision in hindsight, shape ``[samples]``.
    """
    return float((best - value).sum() / best.abs().sum())


def range_regret(value: Tensor, best: Tensor, worst: Tensor) -> float:
    """Returns ``mean((best - value) / (best - worst))``: 0 is the best decision, 1 the worst.

    Unlike :func:`relative_regret` it does not depend on where the zero of the objective lies.

    Args:
        value: task objective of the decisions taken, shape ``[samples]``.
        best: objective of the best decision in hindsight, shape ``[samples]``.
        worst: objective of the worst feasible decision, shape ``[samples]``.
    """
    return float(((best - value) / (best - worst)).mean())
