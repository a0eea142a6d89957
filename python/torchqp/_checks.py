"""What the arguments of a solve must look like: one gate for users and for the fake kernels.

It reads shapes, dtypes, devices and layouts, never values, so that real, fake, meta and vmapped
tensors are treated alike. A message names the argument, what was expected and what was given.
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


def _check_core(name: str, tensor: Tensor, core: Sequence[int], letters: str) -> None:
    """Checks the trailing dimensions of one argument."""
    split = tensor.dim() - len(core)
    if split < 0 or any(a != b for a, b in zip(tensor.shape[split:], core, strict=True)):
        raise ValueError(
            f"{name}: expected shape [*, {letters}] = [*, {_got(core)[1:]}, "
            f"got {_got(tensor.shape)}"
        )


def _broadcast(batch: Sequence[int], name: str, leading: Sequence[int]) -> Sequence[int]:
    """The common batch shape, or a message that says which argument does not fit."""
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
    for name, needed, tensor, others in (
        ("G", "h or h_lower", G, (h, h_lower)),
        ("h", "G", h, (G,)),
        ("h_lower", "G", h_lower, (G,)),
        ("A", "b", A, (b,)),
        ("b", "A", b, (A,)),
    ):
        if tensor is not None and all(other is None for other in others):
            raise ValueError(f"{name}: expected {needed} along with it, got None")
    if not isinstance(Q, Tensor):
        raise TypeError(f"Q: expected a torch.Tensor or torchqp.Diag, got {type(Q).__name__}")
    for name, tensor in (("Q", Q), ("q", q), ("G", G), ("A", A)):
        if tensor is not None:
            _check_kind(name, tensor, "Q", Q)
    if q.dim() < 1 or q.shape[-1] < 1:
        raise ValueError(f"q: expected shape [*, n] with n >= 1, got {_got(q.shape)}")
    n = q.shape[-1]
    sizes = {"n": n, "m": 0, "p": 0}
    _check_core(
        "Q.d" if diagonal else "Q", Q, (n,) if diagonal else (n, n), "n" if diagonal else "n, n"
    )
    batch = _broadcast(tuple(Q.shape[: Q.dim() - (1 if diagonal else 2)]), "q", q.shape[:-1])
    for name, letter, matrix in (("G", "m", G), ("A", "p", A)):
        if matrix is not None:
            if matrix.dim() < 2:
                raise ValueError(
                    f"{name}: expected shape [*, {letter}, n], got {_got(matrix.shape)}"
                )
            sizes[letter] = matrix.shape[-2]
            _check_core(name, matrix, (sizes[letter], n), f"{letter}, n")
            batch = _broadcast(batch, name, matrix.shape[:-2])
    vectors = [("h_lower", h_lower), ("h", h), ("b", b), ("lb", lb), ("ub", ub)]
    for name, vector in vectors + list(zip(_STARTS, start, strict=False)):
        if vector is not None:
            _check_kind(name, vector, "Q", Q)
            letter = VECTORS.get(name) or _STARTS[name]
            empty = (name == "lam_lb0" and lb is None) or (name == "lam_ub0" and ub is None)
            _check_core(name, vector, (0 if empty else sizes[letter],), letter)
            batch = _broadcast(batch, name, vector.shape[:-1])
    return Sizes(n, sizes["m"], sizes["p"], batch)
