"""What the arguments of a solve must look like: one gate for users and for the fake kernels.

It reads shapes, dtypes, devices and layouts, never values, so that real, fake, meta and vmapped
tensors are treated alike. A message names the argument, what was expected and what was given. Plain
eager calls come here only for the message of what the operator has refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VECTORS = {"q": "n", "h_lower": "m", "h": "m", "b": "p", "lb": "n", "ub": "n"}
_STARTS = {"z0": "n", "nu0": "p", "lam0": "m", "lam_lb0": "n", "lam_ub0": "n"}


class Sizes(NamedTuple):
    """Variables, rows of G, rows of A, and the broadcast leading dimensions."""

    n: int
    m: int
    p: int
    batch: Sequence[int]


def _got(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _check_kind(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    """Checks type, layout, dtype and device of one argument."""
    if (
        tensor is not like
        and isinstance(tensor, Tensor)
        and tensor.dtype is like.dtype
        and tensor.layout is torch.strided
        and tensor.device == like.device
    ):
        return
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense (strided) tensor, got layout {tensor.layout}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name}: expected dtype torch.float32 or torch.float64, got {tensor.dtype}"
        )
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype} like {like_name}, got {tensor.dtype}")
    if tensor.device != like.device:
        raise ValueError(
            f"{name}: expected device {like.device} like {like_name}, got {tensor.device}"
        )


def _check_core(name: str, tensor: Tensor, core: tuple[int, ...], letters: str) -> None:
    """Checks the trailing dimensions of one argument."""
    if tensor.shape[-len(core) :] == core:
        return
    split = tensor.dim() - len(core)
    if split < 0 or any(a != b for a, b in zip(tensor.shape[split:], core, strict=True)):
        raise ValueError(
            f"{name}: expected shape [*, {letters}] = [*, {_got(core)[1:]}, "
            f"got {_got(tensor.shape)}"
        )


def _broadcast(batch: Sequence[int], name: str, leading: Sequence[int]) -> Sequence[int]:
    """The common batch shape, or a message that says which argument does not fit."""
    if leading == batch or not leading:
        return batch
    result = list(leading[: max(0, len(leading) - len(batch))])
    padded = [1] * (len(batch) - len(leading)) + list(leading[len(result) :])
    for have, new in zip(batch[len(batch) - len(padded) :], padded, strict=True):
        if have != new and have != 1 and new != 1:
            raise ValueError(
                f"{name}: expected leading dimensions that broadcast with {_got(batch)}, "
                f"got {_got(leading)}"
            )
        result.append(new if have == 1 else have)
    return tuple(result)


def _rows(name: str, letter: str, matrix: Tensor) -> int:
    """How many rows a matrix has."""
    if matrix.dim() < 2:
        raise ValueError(f"{name}: expected shape [*, {letter}, n], got {_got(matrix.shape)}")
    return matrix.shape[-2]


def _refuse_lonely(
    G: Tensor | None,
    h_lower: Tensor | None,
    h: Tensor | None,
    A: Tensor | None,
    b: Tensor | None,
) -> None:
    """Raises for the first argument that came without the one it belongs to."""
    for name, needed, tensor, others in (
        ("G", "h or h_lower", G, (h, h_lower)),
        ("h", "G", h, (G,)),
        ("h_lower", "G", h_lower, (G,)),
        ("A", "b", A, (b,)),
        ("b", "A", b, (A,)),
    ):
        if tensor is not None and all(other is None for other in others):
            raise ValueError(f"{name}: expected {needed} along with it, got None")


def check_problem(
    Q: Tensor,
    q: Tensor,
    G: Tensor | None,
    h_lower: Tensor | None,
    h: Tensor | None,
    A: Tensor | None,
    b: Tensor | None,
    lb: Tensor | None,
    ub: Tensor | None,
    *start: Tensor | None,
    diagonal: bool,
) -> Sizes:
    """Checks a batch of problems.

    Args:
        Q: [*, n, n], or [*, n] if diagonal.
        q: [*, n].
        G: [*, m, n] or None; comes with h_lower, h or both.
        h_lower: [*, m] or None.
        h: [*, m] or None.
        A: [*, p, n] or None; comes with b.
        b: [*, p] or None.
        lb: [*, n] or None.
        ub: [*, n] or None.
        *start: z0, nu0, lam0, lam_lb0, lam_ub0 or nothing.
        diagonal: Q is given as its diagonal.

    Returns:
        The sizes of the problems.

    Raises:
        TypeError: not a tensor, a sparse one, or of the wrong dtype.
        ValueError: a wrong shape or device, or an argument without the one it belongs to.
    """
    if (G is None) != (h is None and h_lower is None) or (A is None) != (b is None):
        _refuse_lonely(G, h_lower, h, A, b)
    if not isinstance(Q, Tensor):
        raise TypeError(f"Q: expected a torch.Tensor or torchqp.Diag, got {type(Q).__name__}")
    for name, tensor in (("Q", Q), ("q", q), ("G", G), ("A", A)):
        if tensor is not None:
            _check_kind(name, tensor, "Q", Q)
    q_shape = q.shape
    if not q_shape or q_shape[-1] < 1:
        raise ValueError(f"q: expected shape [*, n] with n >= 1, got {_got(q_shape)}")
    n, m, p = q_shape[-1], 0, 0
    if diagonal:
        _check_core("Q.d", Q, (n,), "n")
    else:
        _check_core("Q", Q, (n, n), "n, n")
    batch = _broadcast(Q.shape[: -1 if diagonal else -2], "q", q_shape[:-1])
    if G is not None:
        m = _rows("G", "m", G)
        _check_core("G", G, (m, n), "m, n")
        batch = _broadcast(batch, "G", G.shape[:-2])
    if A is not None:
        p = _rows("A", "p", A)
        _check_core("A", A, (p, n), "p, n")
        batch = _broadcast(batch, "A", A.shape[:-2])
    vectors = [
        ("h_lower", h_lower, "m", m),
        ("h", h, "m", m),
        ("b", b, "p", p),
        ("lb", lb, "n", n),
        ("ub", ub, "n", n),
    ]
    if any(t is not None for t in start):
        sizes = (n, p, m, 0 if lb is None else n, 0 if ub is None else n)
        vectors += list(zip(_STARTS, start, _STARTS.values(), sizes, strict=True))
    for name, vector, letter, size in vectors:
        if vector is not None:
            _check_kind(name, vector, "Q", Q)
            _check_core(name, vector, (size,), letter)
            batch = _broadcast(batch, name, vector.shape[:-1])
    return Sizes(n, m, p, batch)
