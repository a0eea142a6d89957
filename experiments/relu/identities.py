"""Functions that a QP layer can be (OptNet, section 3.3), each beside its closed form.

Every identity is a pair of functions of the same tensors. "max of three" appears twice: the paper's
text minimises z^2 over z >= a_i'x, which gives max(0, a_1'x, a_2'x, a_3'x) and is wrong where all
three are negative; minimising z instead, a linear program, is right.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import torchqp


class Identity(NamedTuple):
    """What a QP should be, and is.

    Attributes:
        inputs: draws the arguments from a generator, all differentiable.
        closed: the function by torch operations.
        by_qp: the function as the solution of a QP.
    """

    inputs: Callable[[torch.Generator, int], list[Tensor]]
    closed: Callable[..., Tensor]
    by_qp: Callable[..., Tensor]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _layer_inputs(generator: torch.Generator, batch: int, size: int = 20) -> list[Tensor]:
    """x, W, b."""
    return [_normal(generator, *shape) for shape in ((batch, size), (size, size), (size,))]


def relu(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return (x @ W.T + b).relu()


def relu_by_bound(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Min ||z - (Wx + b)||^2 over z >= 0, a bound."""
    y = x @ W.T + b
    return torchqp.QPLayer()(torchqp.Diag(2.0 * torch.ones_like(b)), -2.0 * y, lb=0.0)


def relu_by_rows(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The same with z >= 0 as rows, G = -I and h = 0, as the paper writes it."""
    y, eye = x @ W.T + b, torch.eye(len(b), dtype=b.dtype)
    return torchqp.QPLayer()(2.0 * eye, -2.0 * y, -eye, 0.0)


def _scalar_inputs(generator: torch.Generator, batch: int, pieces: int = 5) -> list[Tensor]:
    """x, and w, a, b of the pieces."""
    return [_normal(generator, *shape) for shape in ((batch, 1), (pieces,), (pieces,), (pieces,))]


def piecewise(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Sum of w_i max(a_i x + b_i, 0)."""
    return (x * a + b).relu() @ w


def piecewise_by_qp(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Min ||t||^2 + (z - w't)^2 over t >= ax + b."""
    one = torch.ones(1, dtype=w.dtype)
    residual = torch.cat([-w, one])  # of the variables (t, z)
    Q = torch.diag(torch.cat([torch.ones_like(w), 0.0 * one])) + residual[:, None] * residual
    G = torch.cat([-torch.eye(len(w), dtype=w.dtype), torch.zeros_like(w)[:, None]], dim=1)
    return torchqp.QPLayer()(2.0 * Q, torch.zeros_like(residual), G, -(x * a + b))[..., -1]


def _three_inputs(generator: torch.Generator, batch: int, size: int = 3) -> list[Tensor]:
    """x, and the rows a_1, a_2, a_3."""
    return [_normal(generator, batch, size), _normal(generator, 3, size)]


def largest(x: Tensor, a: Tensor) -> Tensor:
    return (x @ a.T).amax(-1)


def largest_by_square(x: Tensor, a: Tensor) -> Tensor:
    """Min z^2 over z >= a_i'x, the paper's text."""
    return _largest(x, a, weight=2.0, slope=0.0)


def largest_by_lp(x: Tensor, a: Tensor) -> Tensor:
    """Min z over z >= a_i'x."""
    return _largest(x, a, weight=0.0, slope=1.0)


def _largest(x: Tensor, a: Tensor, weight: float, slope: float) -> Tensor:
    one = torch.ones(1, dtype=a.dtype)
    Q, G = torchqp.Diag(weight * one), -torch.ones(len(a), 1, dtype=a.dtype)
    return torchqp.QPLayer()(Q, slope * one, G, -(x @ a.T))[..., 0]


def _points(generator: torch.Generator, batch: int, size: int = 20) -> list[Tensor]:
    return [_normal(generator, batch, size)]


def simplex(y: Tensor) -> Tensor:
    """The projection onto the simplex by sorting."""
    sorted_y = y.sort(-1, descending=True).values
    count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype)
    excess = (sorted_y.cumsum(-1) - 1.0) / count
    support = (sorted_y > excess).sum(-1, keepdim=True)
    return (y - excess.gather(-1, support - 1)).relu()


def simplex_by_qp(y: Tensor) -> Tensor:
    A = torch.ones(1, y.shape[-1], dtype=y.dtype)
    return torchqp.Projection(A=A, b=1.0, lb=0.0)(y)


IDENTITIES = {
    "ReLU, bound": Identity(_layer_inputs, relu, relu_by_bound),
    "ReLU, rows": Identity(_layer_inputs, relu, relu_by_rows),
    "piecewise linear": Identity(_scalar_inputs, piecewise, piecewise_by_qp),
    "max of three, the text's z^2": Identity(_three_inputs, largest, largest_by_square),
    "max of three, an LP": Identity(_three_inputs, largest, largest_by_lp),
    "simplex projection": Identity(_points, simplex, simplex_by_qp),
}
