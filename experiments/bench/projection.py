"""Projections onto the simplex and the box, beside copying the data and beside sorting.

    python experiments/bench/projection.py --out experiments/bench/results/projection.json

torchqp sees min 1/2 z'z - w'z over 0 <= z, 1'z = 1 (simplex) or 0 <= z <= 1 (box), with Q as a
torchqp.Diag of ones; w ~ N(0, 1), all data but q = -w shared by the batch. Beside it stand

- two copies: q into z, the least that any projection moves, and q into as many bytes as all outputs
  of the operator have together; with gradients the first copy twice (cotangent into gradient);
- torch operations: sort, cumulative sum, threshold for the simplex, clamp for the box; autograd;
- the same problem through torchqp's general form, Q a dense identity, on as many members as take
  about a quarter of a second.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import pin

    pin()

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torchqp
from experiments.bench import suite
from experiments.bench.timing import Timed, interleave, seconds, statistics

DENSE_SECONDS = 0.25  # of a call of the general form; sets its batch
KINK = {torch.float64: 1e-7, torch.float32: 1e-3}  # regular: no entry of w this near to a kink
SETS: dict[str, dict[str, Any]] = {"simplex": {"lb": 0.0, "b": 1.0}, "box": {"lb": 0.0, "ub": 1.0}}


def exact(kind: str, w: np.ndarray) -> np.ndarray:
    """The projection of the rows of w, in float64."""
    w = w.astype(np.float64)
    if kind == "box":
        return np.clip(w, 0.0, 1.0)
    falling = -np.sort(-w, axis=1)
    excess = np.cumsum(falling, axis=1) - 1.0
    kept = falling * np.arange(1, w.shape[1] + 1) > excess
    count = kept.sum(axis=1, keepdims=True)
    return np.maximum(w - np.take_along_axis(excess, count - 1, axis=1) / count, 0.0)


def exact_gradient(kind: str, w: np.ndarray, z: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """The gradient of cotangent'z with respect to w: on the face's tangent space, else zero."""
    w, cotangent = w.astype(np.float64), cotangent.astype(np.float64)
    if kind == "box":
        return np.where((w > 0) & (w < 1), cotangent, 0.0)
    free = z > 0
    mean = (cotangent * free).sum(axis=1, keepdims=True) / free.sum(axis=1, keepdims=True)
    return np.where(free, cotangent - mean, 0.0)


def by_torch(kind: str, w: Tensor) -> Tensor:
    """The projection in torch operations."""
    if kind == "box":
        return w.clamp(0.0, 1.0)
    falling = w.sort(dim=1, descending=True).values
    excess = falling.cumsum(1) - 1.0
    ranks = torch.arange(1, w.shape[1] + 1, dtype=w.dtype)
    count = (falling * ranks > excess).sum(1, keepdim=True)
    return (w - excess.gather(1, count - 1) / count).clamp(min=0.0)


def by_torchqp(kind: str, Q: Any, q: Tensor) -> Tensor:
    """The projection as a QP with q = -w."""
    A = q.new_ones(1, q.shape[1]) if kind == "simplex" else None
    return torchqp.solve_qp(Q, q, A=A, **SETS[kind]).z


def operator_bytes(kind: str, q: Tensor) -> dict[str, int]:
    """Bytes of what torchqp's operator reads and writes for this projection."""
    A = q.new_ones(1, q.shape[1]) if kind == "simplex" else None
    s = torchqp.solve_qp(torchqp.Diag(q.new_ones(q.shape[1])), q, A=A, **SETS[kind])
    read = [q, q.new_ones(q.shape[1])] + ([A] if A is not None else [])
    written = [t for t in s if t is not s.s]  # s is formed afterwards, empty without G
    active = q.numel()  # one byte a bound
    return {
        "read": sum(t.nbytes for t in read),
        "written": sum(t.nbytes for t in written) + active,
    }


def copy_into(source: Tensor, target: Tensor) -> None:
    """Fills a flat target with as many whole and partial copies of the source as it takes."""
    flat = source.view(-1)
    for chunk in target.split(flat.numel()):
        chunk.copy_(flat[: chunk.numel()])


def _gradient(function: Callable[[Tensor], Tensor], leaf: Tensor, cotangent: Tensor) -> Tensor:
    return torch.autograd.grad(function(leaf), leaf, cotangent)[0]


def distance_to_kink(kind: str, w: np.ndarray) -> np.ndarray:
    """By member, how far its nearest entry is from where the projection has no derivative."""
    w = w.astype(np.float64)
    if kind == "box":
        return np.minimum(np.abs(w), np.abs(w - 1.0)).min(axis=1)
    z = exact(kind, w)
    threshold = np.where(z > 0, w - z, -np.inf).max(axis=1, keepdims=True)
    return np.abs(w - threshold).min(axis=1)


def _errors(
    kind: str, w: np.ndarray, cotangent: np.ndarray, z: Tensor, gradient: Tensor
) -> dict[str, float]:
    """Largest absolute errors of a projection, and of its gradient in the regular members."""
    right = exact(kind, w)
    slope = exact_gradient(kind, w, right, cotangent)
    off = np.abs(gradient.double().numpy() - slope).max(axis=1)
    regular = distance_to_kink(kind, w) >= KINK[z.dtype]
    return {
        "z_error": float(np.abs(z.detach().double().numpy() - right).max()),
        "gradient_error": float(off[regular].max(initial=0.0)),
        "regular": int(regular.sum()),
        "gradients_off": int((off > 1e-3).sum()),
    }


def measure(
    kind: str, n: int, dtype: torch.dtype, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Times, bytes, errors of one set, size and dtype."""
    rng = np.random.default_rng([options.seed, n])
    w = torch.from_numpy(rng.standard_normal((batch, n))).to(dtype)
    cotangent = torch.from_numpy(rng.standard_normal((batch, n))).to(dtype)
    q, leaf_q, leaf_w = -w, (-w).requires_grad_(), w.clone().requires_grad_()
    diag, identity = torchqp.Diag(w.new_ones(n)), torch.eye(n, dtype=dtype)
    moved = operator_bytes(kind, q)
    z, grad = torch.empty_like(w), torch.empty_like(w)
    everything = torch.empty(moved["written"] // w.element_size(), dtype=dtype)

    as_qp, as_torch = partial(by_torchqp, kind, diag), partial(by_torch, kind)
    as_dense = partial(by_torchqp, kind, identity)
    probe = min(batch, 2)
    cost = min(seconds(lambda: as_dense(q[:probe])) for _ in range(2)) / probe
    few = max(1, min(batch, int(DENSE_SECONDS / cost)))

    def copy_twice() -> None:
        z.copy_(q)
        grad.copy_(cotangent)

    def no_grad(function: Callable[[Tensor], Tensor], data: Tensor) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: function(data))

    few_leaf = q[:few].clone().requires_grad_()
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "torchqp forward": (no_grad(as_qp, q), batch),
        "torchqp forward_backward": (lambda: _gradient(as_qp, leaf_q, cotangent), batch),
        "copy forward": (lambda: z.copy_(q), batch),
        "copy forward_backward": (copy_twice, batch),
        "copy of all outputs forward": (lambda: copy_into(q, everything), batch),
        "torch forward": (no_grad(as_torch, w), batch),
        "torch forward_backward": (lambda: _gradient(as_torch, leaf_w, cotangent), batch),
        "dense forward": (no_grad(as_dense, q[:few]), few),
        "dense forward_backward": (lambda: _gradient(as_dense, few_leaf, cotangent[:few]), few),
    }
    items = {name: Timed(name, call) for name, (call, _) in calls.items()}
    interleave(list(items.values()), options.seconds, options.rounds)
    us: dict[str, dict[str, Any]] = {}
    for name, item in items.items():
        if item.error:
            raise RuntimeError(f"{name}: {item.error}")
        who, _, column = name.rpartition(" ")
        us.setdefault(who, {})[column] = statistics(item.seconds, 1e-6 * calls[name][1])
    ours = us["torchqp"]
    ratios = {
        f"torchqp / {who}, {column}": ours[column]["median"] / time["median"]
        for who, columns in us.items()
        if who != "torchqp"
        for column, time in columns.items()
    }
    data = (w.numpy(), cotangent.numpy())
    solution = torchqp.solve_qp(
        diag, q, A=w.new_ones(1, n) if kind == "simplex" else None, **SETS[kind]
    )
    slope = -_gradient(as_qp, leaf_q, cotangent)
    z_few = as_dense(q[:few])
    dense_slope = -_gradient(as_dense, few_leaf, cotangent[:few])
    return {
        "set": kind,
        "n": n,
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "dense_batch": few,
        "us": us,
        "ratios": ratios,
        "bytes": {
            "operator": moved,
            "copy": {"read": q.nbytes, "written": z.nbytes},
            "copy of all outputs": {"read": q.nbytes, "written": everything.nbytes},
            "copy with gradients": {"read": 2 * q.nbytes, "written": 2 * z.nbytes},
        },
        "errors": {
            "torchqp": _errors(kind, *data, solution.z, slope),
            "torch": _errors(kind, *data, as_torch(w), _gradient(as_torch, leaf_w, cotangent)),
            "dense": _errors(kind, data[0][:few], data[1][:few], z_few, dense_slope),
        },
        "support_mean": float((exact(kind, data[0]) > 0).sum(axis=1).mean()),
        "iterations_mean": float(solution.iterations.double().mean()),
        "failed": int((solution.status > 0).sum()),
    }


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    print(f"\n{record['case']} x {record['batch']}, us per projection")
    for who, columns in record["us"].items():
        times = {column: f"{time['median']:.4g}" for column, time in columns.items()}
        error = record["errors"].get(who)
        told = f"errors {error['z_error']:.0e} {error['gradient_error']:.0e}" if error else ""
        ratios = [
            f"{record['ratios'][f'torchqp / {who}, {column}']:.3g}"
            for column in columns
            if who != "torchqp"
        ]
        print(
            f"  {who:<20}{times.get('forward', '-'):>10}{times.get('forward_backward', '-'):>10}"
            f"   torchqp is {' / '.join(ratios) or '-'} of it  {told}"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=0.6)
    parser.add_argument("--n", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--batch", type=int, default=4096)
    options = parser.parse_args(arguments)
    record = suite.Record("projection", options)
    for kind in SETS:
        for n in options.n:
            for dtype in (torch.float64, torch.float32):
                key = f"{kind}, n={n}, {str(dtype).removeprefix('torch.')}"
                case = partial(measure, kind, n, dtype, options.batch, options)
                show(record.case(key, case))
    print(f"\n{record.data['seconds']:.0f} s")


if __name__ == "__main__":
    main()
