"""Giving one parameter to many points, with a gradient that is summed in a fixed order.

torch adds up the gradient of a broadcast scalar in as many parts as there are threads, so that its last bits depend on
their number. Here the parts have a fixed size.
"""

from typing import Any

import torch
from torch import Tensor

PART = 1024  # few enough for the sum over the parts to stay below torch's threshold for threads, 32768 elements


def spread(parameter: Tensor, points: torch.Size, trailing: int) -> Tensor:
    """A `parameter` of a camera, one value (or a vector, if `trailing` is 1) for each of N `points` [*batch, N].

    Args:
        parameter: [*batch, 1] or [*batch, 1, K] in a batch, () or [K] without; then `points` may have any shape.
    """
    batch = parameter.shape[: parameter.ndim - trailing]
    alike = not batch or (len(points) == len(batch) and points[:-1] == batch[:-1])
    if (
        not (alike and parameter.requires_grad and torch.is_grad_enabled())
        or points.numel() < PART
        or not parameter.numel()
    ):
        return parameter
    return _Spread.apply(parameter, (*points, *parameter.shape[parameter.ndim - trailing :]), trailing)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, shape: tuple[int, ...], trailing: int) -> Tensor:
        ctx.shape, ctx.trailing = parameter.shape, trailing
        return parameter.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        size = ctx.shape[-1] if ctx.trailing else 1
        rows = gradient.reshape(ctx.shape.numel() // size, -1, size)  # [*batch] flat, all points, K
        parts = torch.nn.functional.pad(rows, (0, 0, 0, -rows.shape[1] % PART)).reshape(len(rows), -1, PART, size)
        return parts.sum(2).sum(1).reshape(ctx.shape), None, None
