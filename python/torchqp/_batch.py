"""Products of a batch of vectors with a parameter that the batch may share, without copies of it.

A parameter's leading dimensions broadcast against the batch. Where it is shared, the members lie
side by side as the rows of one matrix, so that applying it and summing its gradient are one matrix
product each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_CHUNK = 2**20  # entries of a temporary in apply_to_each


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on; other devices (meta) have none."""
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A region without autocast: a QP in half precision is a bug, not a speed-up."""
    if autocasts(device):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def product(left: Tensor, right: Tensor) -> Tensor:
    """Left @ right; that of float32 in float64.

    `torch.set_float32_matmul_precision` and TF32 would else reach it, where the device has them.
    """
    if left.dtype != torch.float32:
        return left @ right
    return (left.double() @ right.double()).float()


def symmetric(matrix: Tensor) -> Tensor:
    """(M + M') / 2."""
    return (matrix + matrix.mT) / 2


def _shared_dims(batch: Sequence[int], own: Sequence[int]) -> list[int]:
    """The batch dimensions along which a parameter with leading dimensions `own` is shared."""
    skipped = len(batch) - len(own)
    return [
        i for i, size in enumerate(batch) if i < skipped or (own[i - skipped] == 1 and size != 1)
    ]


def sum_to(tensor: Tensor, own: Sequence[int], core: int) -> Tensor:
    """Sums over the batch dimensions in which a parameter is shared; `core` dimensions trail."""
    batch = tensor.shape[: tensor.dim() - core]
    shared = _shared_dims(batch, own)
    if not shared:
        return tensor
    return tensor.sum(shared).reshape(*own, *tensor.shape[tensor.dim() - core :])


def _side_by_side(vectors: Tensor, shared: list[int]) -> Tensor:
    """[*, k] to [kept, shared members, k]."""
    kept = [i for i in range(vectors.dim() - 1) if i not in shared]
    moved = vectors.permute(*kept, *shared, vectors.dim() - 1)
    members = 1
    for i in shared:
        members = members * vectors.shape[i]
    return moved.reshape(*moved.shape[: len(kept)], members, vectors.shape[-1])


def apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """M v for M [own, r, c] and v [*, c]: [*, r]."""
    batch, own = vectors.shape[:-1], matrix.shape[:-2]
    shared = _shared_dims(batch, own) if len(own) <= len(batch) else []
    if not shared:
        return product(matrix, vectors.unsqueeze(-1)).squeeze(-1)
    kept = [i for i in range(len(batch)) if i not in shared]
    core = matrix.reshape(*(batch[i] for i in kept), *matrix.shape[-2:])
    result = product(_side_by_side(vectors, shared), core.mT)
    order = kept + shared
    result = result.reshape(*(batch[i] for i in order), matrix.shape[-2])
    return result.permute(*(order.index(i) for i in range(len(batch))), len(batch))


def apply_to_each(matrix: Tensor, vectors: Tensor) -> Tensor:
    """M v as `apply`, with bits that do not depend on the batch.

    A library's matrix product picks its order of summation by shape; this sum has one order. It is
    for values: its backward would form one matrix per member.
    """
    batch = torch.broadcast_shapes(matrix.shape[:-2], vectors.shape[:-1])
    vectors = vectors.unsqueeze(-2)
    rows, cols = matrix.shape[-2:]
    members: int | torch.SymInt = 1
    for size in batch:
        members = members * size
    if torch.compiler.is_compiling() or any(
        isinstance(size, torch.SymInt) for size in (members, rows, cols)
    ):
        return (matrix * vectors).sum(-1)
    step = max(1, _CHUNK // max(1, members * cols))
    parts = [(part * vectors).contiguous().sum(-1) for part in matrix.split(step, -2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def apply_Q(Q: Tensor, vectors: Tensor, diagonal: bool) -> Tensor:
    """(Q + Q')/2 v, or Q * v for a diagonal."""
    return Q * vectors if diagonal else apply(symmetric(Q), vectors)


def outer_sum(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], own: Sequence[int]
) -> Tensor:
    """The sum of u v' + x y' over the members that share a parameter, [own, r, c]."""
    (u, v), (x, y) = first, second
    batch = u.shape[:-1]
    shared = _shared_dims(batch, own)
    if not shared:
        return torch.addcmul(u.unsqueeze(-1) * v.unsqueeze(-2), x.unsqueeze(-1), y.unsqueeze(-2))
    left = torch.cat([_side_by_side(u, shared), _side_by_side(x, shared)], -2)
    right = torch.cat([_side_by_side(v, shared), _side_by_side(y, shared)], -2)
    return product(left.mT, right).reshape(*own, u.shape[-1], v.shape[-1])


def symmetric_outer_sum(u: Tensor, v: Tensor, own: Sequence[int], diagonal: bool) -> Tensor:
    """The sum of (u v' + v u') / 2, the gradient of a symmetric matrix; of u * v for a diagonal."""
    if diagonal:
        return sum_to(u * v, own, 1)
    half = u / 2
    return outer_sum((half, v), (v, half), own)
