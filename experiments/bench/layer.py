"""What an adapter is: how to build a layer for a size, call it, and get at its multipliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Solve = Callable[..., torch.Tensor]
Detail = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Size:
    """What a layer is built for; ``eps`` None is the layer's default tolerance.

    ``device`` is where the data lies, as torch names it.
    """

    n: int
    m: int
    p: int
    batch: int
    threads: int
    eps: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Layer:
    """A built layer.

    Attributes:
        solve: (Q, q, G, h, A, b) -> z; this is timed, with the conversions that the layer needs. A
            and b are None without equalities.
        detail: the same arguments -> (z, nu, lam) in our signs as numpy arrays; not timed.
        settings: in words.
        extra: figures of the building itself, such as compile time.
    """

    solve: Solve
    detail: Detail
    settings: str
    extra: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Adapter:
    """A row of the table.

    Attributes:
        build: packages are imported here, so an absent one costs only its own row.
        packages: whose versions are recorded.
        kind: "torchqp", "layer" (differentiable) or "loop" (a Python loop over a raw solver).
        linear: its cost is linear in the batch, which may then be cut.
        knob: its tolerance can be chosen by ``Size.eps``.
        refuses: why it cannot be run at a size, or None.
        dtype: of the data it gets.
    """

    build: Callable[[Size], Layer]
    packages: tuple[str, ...]
    kind: str = "layer"
    linear: bool = True
    knob: bool = False
    refuses: Callable[[Size], str | None] = lambda size: None
    dtype: torch.dtype = torch.float64

    @property
    def backward(self) -> bool:
        """Whether it has gradients."""
        return self.kind != "loop"


def array(value: torch.Tensor | None, *shape: int) -> np.ndarray:
    """The values in a shape; zeros for None."""
    if value is None:
        return np.zeros(shape)
    return value.detach().double().cpu().numpy().reshape(shape)


def tolerance(size: Size, default: float) -> float:
    """The tolerance to use."""
    return default if size.eps is None else size.eps
