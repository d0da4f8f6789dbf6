"""The order of derivatives: what can be differentiated once says so when somebody asks for more."""

from typing import Any

import torch
from torch import Tensor


def differentiable_once(value: Tensor, message: str) -> Tensor:
    """`value`, with its gradient; a second derivative through it raises RuntimeError(`message`).

    For what follows `value` in a computation and has no second derivative, or a wrong one. A gradient that is recorded
    (`create_graph=True`) but never differentiated is as welcome as one that is not.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> (slope,) = torch.autograd.grad(differentiable_once(x, "x^2 is not smooth") ** 2, x, create_graph=True)
    >>> slope.item()
    6.0
    >>> slope.backward()
    Traceback (most recent call last):
    RuntimeError: x^2 is not smooth
    """
    return _Once.apply(value, message)


def is_plain_autograd() -> bool:
    """Whether nothing but torch's ordinary reverse mode is at work: no `torch.func`, forward mode or tracing.

    Kernels take only that; whoever calls them falls back to plain torch for the others.
    """
    transformed = torch._C._are_functorch_transforms_active()
    return not (transformed or torch.autograd.forward_ad._current_level >= 0 or torch.compiler.is_compiling())


def is_batched(value: Tensor) -> bool:
    """Whether a gradient is in truth several at once, of `vectorize=True` or `torch.func`: no kernel can read it."""
    try:
        value.data_ptr()
    except RuntimeError:  # no memory of its own
        return True
    return False


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, message: str) -> Tensor:
        ctx.save_for_backward(value)
        ctx.message = message
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        if not torch.is_grad_enabled():
            return gradient, None
        # A zero that depends on `value`: whoever differentiates the gradient by what `value` came from meets it, and
        # whoever does so by something else, on which the gradient depends linearly, does not.
        return gradient + _Refusal.apply(*ctx.saved_tensors, ctx.message), None


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, message: str) -> Tensor:
        ctx.message = message
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError(ctx.message)
