"""What the backward passes had to leave out, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from torchqp._register import transforms

# Watches are of all threads: torch runs a backward pass on CUDA tensors in a thread of its own.
_ops = torch.ops.torchqp


class BackwardWatch:
    """The backward passes since `watch_backward` was entered."""

    def __init__(self) -> None:
        """Starts watching."""
        self._number: int | None = _ops.start_watch()
        self._info: list[Tensor] = []

    @property
    def info(self) -> list[Tensor]:
        """One int32 tensor [*] for every differentiated solve, on its device.

        In the order of the backward passes: 0 where the gradient is what its mode says, 1 where
        that had to be regularised (see `watch_backward`).
        """
        return self._info if self._number is None else _ops.watch_seen(self._number)

    def _stop(self) -> None:
        """Ends watching; what was seen stays."""
        if self._number is not None:
            self._info = self.info
            _ops.stop_watch(self._number)
            self._number = None

    def regularised(self) -> int:
        """How many members had a gradient that was regularised. Waits for the device."""
        return sum(int((info != 0).sum()) for info in self.info)


@contextmanager
def watch_backward() -> Iterator[BackwardWatch]:
    """Records, without waiting for the device, which gradients had to be regularised.

    Gradients of solved members are always finite. Where a mode's definition does not determine one,
    it is made up as follows, and `info` says so:

    - "kkt": the active set leaves z or multipliers undetermined (z on a face that q does not
      distinguish, dependent active rows), and the cotangent asks for just those. The part of the
      cotangent that the linearised KKT system K d = -g cannot meet is left out; d is the least
      solution of the rest, to about 1e-6 of its size. A d that overflows is left out as a whole.
    - "smoothed": as "kkt", for the system of the smoothed problem.
    - "lpgd": a problem moved by the loss was not solved; the solution itself stands in for it.

    Weakly active constraints are not marked: there the gradient is that of the side on which they
    hold. What runs inside torch.compile, torch.func or a C++ program is not recorded.

    Yields:
        `BackwardWatch`; it stays readable after the block.

    Example:
        The optimum of q = 0 over the simplex is any point of it: with Q = 0 nothing says how z
        moves with q.

        >>> import torch, torchqp
        >>> q = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        >>> Q, ones = torch.zeros(3, 3, dtype=q.dtype), torch.ones(1, 3, dtype=q.dtype)
        >>> z = torchqp.solve_qp(Q, q, A=ones, b=1.0, lb=0.0).z
        >>> with torchqp.watch_backward() as watch:
        ...     z[0].backward()
        >>> watch.regularised()
        1
    """
    watch = BackwardWatch()
    try:
        yield watch
    finally:
        watch._stop()


def record(info: Tensor) -> None:
    """Hands `info` of one backward pass to the watches that are on."""
    if not torch.compiler.is_compiling() and not transforms():
        _ops.record_backward(info)
