"""How an operator becomes differentiable everywhere: one derivative rule, registered twice.

`torch.library.register_autograd` serves torch.compile, torch.export and direct calls of the
operator, but torch.func.grad, jacrev, jvp and hessian refuse it. `torch.autograd.Function` with
`setup_context`, `vmap` and `jvp` serves eager mode and all of torch.func, but Dynamo refuses a
Function that defines `jvp`, and cannot trace vmap over one that defines `vmap`. So calls pick by
`torch.compiler.is_compiling()`. Where there is a derivative in C++ (`torchqp::solve_exact`,
`solve_lpgd`), plain eager calls do without either: a backward pass in Python takes as long as a
hundred small problems.
Not covered by any, and refused: torch.func.grad, jvp and the like inside torch.compile (outside of
it, on functions that are not compiled, they work).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

_NO_FORWARD_MODE = (
    "torchqp: expected no forward-mode AD inside torch.compile, which would drop the tangents; "
    "call torch.func.jvp, jacfwd or hessian outside the compiled function"
)


class Rule(Protocol):
    """Derivatives of one operator."""

    op: Any

    @staticmethod
    def core_dims(args: Sequence[Any]) -> Sequence[int]:
        """How many trailing dimensions of each tensor argument are not batch dimensions."""

    @staticmethod
    def save(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        """Keeps what the derivatives need."""

    @staticmethod
    def vjp(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Cotangents of the outputs to cotangents of the inputs."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Tangents of the inputs to those of the outputs; saved tensors carry none."""


class _Primals:
    """A context whose saved tensors have lost their tangents of the current level."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self.saved_tensors = tuple(
            None if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _nestable(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """`jvp` with forward mode switched on again, for the levels outside.

    Torch runs a Function's jvp with forward mode off at every level, so that the jvp of a jvp
    (jacfwd of jacfwd) is silently wrong: whatever the inner one computes counts as constant. Seen
    with torch 2.11.
    """

    def nestable(ctx: Any, *tangents: Tensor | None) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(_Primals(ctx), *tangents)

    return nestable


def transforms() -> bool:
    """Whether a transform of torch.func or forward mode is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain() -> bool:
    """Whether this is an eager call without transforms."""
    return not torch.compiler.is_compiling() and not transforms()


def is_differentiated(*args: Any) -> bool:
    """Whether torch may ask for a derivative in these arguments, of whatever kind."""
    if transforms():
        return True
    return torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)


def _mapped_first(
    args: Sequence[Any], in_dims: Sequence[int | None], core_dims: Sequence[int]
) -> list[Any]:
    """The mapped dimension becomes the first batch dimension; what is not mapped stays shared."""
    batch_dims = 0
    for arg, dim, core in zip(args, in_dims, core_dims, strict=False):
        if isinstance(arg, Tensor):
            batch_dims = max(batch_dims, arg.dim() - core - (dim is not None))
    result = list(args)
    for i, (arg, dim, core) in enumerate(zip(args, in_dims, core_dims, strict=False)):
        if dim is not None:
            front = arg.movedim(dim, 0)
            missing = batch_dims - (front.dim() - 1 - core)
            result[i] = front.reshape(front.shape[0], *[1] * missing, *front.shape[1:])
    return result


def differentiable(rule: type[Rule]) -> Callable[..., Any]:
    """`rule.op` with `rule`'s derivatives wherever torch asks for them."""
    op = rule.op

    def vmapped(batched: Callable[..., Any]) -> Callable[..., Any]:
        def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> Any:
            out = batched(*_mapped_first(args, in_dims, rule.core_dims(args)))
            return out, (0,) * len(out)

        return vmap

    torch.library.register_autograd(op, rule.vjp, setup_context=rule.save)
    torch.library.register_vmap(op, vmapped(op))

    def below_autograd(*args: Any) -> Any:
        """The operator without the derivative that it has for direct calls, which costs time."""
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    def setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        rule.save(ctx, inputs, output)
        if transforms():
            ctx.save_for_forward(*(ctx.to_save or ()))

    def forward(*args: Any) -> Any:
        return op(*args) if transforms() else below_autograd(*args)

    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    members: dict[str, Any] = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "vmap": staticmethod(vmapped(lambda *args: call_function(*args))),
        "backward": staticmethod(rule.vjp),
        "jvp": staticmethod(_nestable(rule.jvp)),
    }
    # Made by its metaclass because grad_fn shows the name that it is made with.
    metaclass: Any = type(torch.autograd.Function)
    function = metaclass(rule.__name__, (torch.autograd.Function,), members)
    call_function = function.apply
    # What Function.apply comes to without transforms, less its look at the signature.
    call_plain_function = super(torch.autograd.Function, function).apply

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            if forward_ad._current_level >= 0:
                raise NotImplementedError(_NO_FORWARD_MODE)
            return op(*args)
        if transforms():
            return call_function(*args)
        if not is_differentiated(*args):
            return below_autograd(*args)
        return call_plain_function(*args)

    return call


class _OnceDifferentiable(torch.autograd.Function):
    """The identity, whose own derivatives raise."""

    @staticmethod
    def forward(message: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        ctx.message = inputs[0]

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], message: str, *tensors: Tensor) -> Any:
        gate: Any = _OnceDifferentiable
        return gate.apply(message, *tensors), tuple(in_dims[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(ctx.message)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        raise RuntimeError(ctx.message)


def once_differentiable(
    message: str, tensors: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The same tensors; differentiating them, in whatever way, raises `message`."""
    if not torch.is_grad_enabled() and not transforms():
        return tuple(tensors)
    gate: Any = _OnceDifferentiable
    present = iter(gate.apply(message, *(t for t in tensors if t is not None)))
    return tuple(None if t is None else next(present) for t in tensors)
