"""The true problem as a cvxpylayers layer, which is what the paper's numbers come from."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.logsumexp.task import differentiable

try:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer
except ImportError as error:
    CVXPYLAYERS_MISSING: str | None = f"{error}; pip install 'torchqp[experiments]' brings it"
else:
    CVXPYLAYERS_MISSING = None


def layer(stocks: int) -> Callable[[Tensor], Tensor]:
    """Maps p ``[samples, stocks]`` to the maximiser of -log sum_i exp(-p_i x_i)."""
    p, x = cp.Parameter(stocks), cp.Variable(stocks)
    objective = cp.Minimize(cp.log_sum_exp(-cp.multiply(p, x)))
    made = CvxpyLayer(cp.Problem(objective, [cp.sum(x) == 1, x >= 0]), [p], [x])
    return lambda returns: made(returns)[0]


def predictions(samples: int, stocks: int = 50) -> Tensor:
    """Predicted p as an untrained network gives them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(samples, stocks, generator=generator, dtype=torch.float64)
    return (0.1 + 0.01 * noise).requires_grad_()


def milliseconds(samples: int = 64) -> dict[str, float]:
    """Forward and backward of the true problem, per sample, by layer (the better of two)."""
    p = predictions(samples)
    layers = {"torchqp": differentiable}
    if CVXPYLAYERS_MISSING is None:
        layers["cvxpylayers"] = layer(p.shape[1])
    times = {}
    for name, solve in layers.items():
        times[name] = float("inf")
        for _ in range(2):
            start = time.perf_counter()
            solve(p)[:, 0].sum().backward()
            times[name] = min(times[name], 1e3 * (time.perf_counter() - start) / samples)
    return times
