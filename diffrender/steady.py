"""Arithmetic with the same bits for any number of threads, where torch's own depends on how many share the work.

torch divides tensors of more than 32768 elements among its threads. Most operations do not mind. But a sum of them all
adds the sums of the threads' parts, and in powers and arctangents the last few elements of each part go through another
implementation than the rest, with another rounding. Here the parts are the same for all numbers of threads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

UNDIVIDED = 2**15  # elements: torch (at::internal::GRAIN_SIZE) does not divide so few among threads
ROW = 2**10  # elements summed by one thread


def total(values: Tensor) -> Tensor:
    """The sum of all `values`.

    >>> total(torch.ones(300, 300))
    tensor(90000.)
    """
    left = values.reshape(-1)
    while left.numel() > UNDIVIDED:
        whole = left.numel() // ROW * ROW
        left = torch.cat([left[:whole].reshape(-1, ROW).sum(-1), left[whole:]])
    return left.sum()


def mean(values: Tensor) -> Tensor:
    """The mean of all `values`; NaN where there are none."""
    return total(values) / values.numel()


def spread(value: Tensor, count: int) -> Tensor:
    """[count] a single `value` for each of many, so that the sum of their gradients is steady, too."""
    rows = -(-count // ROW)
    return value.reshape(1).expand(rows)[:, None].expand(rows, ROW).reshape(-1)[:count]


def power(base: Tensor, exponent: float) -> Tensor:
    """`base ** exponent`, and its derivatives.

    >>> power(torch.tensor([1.0, 4.0]), 1.5)
    tensor([1., 8.])
    """
    return _in_parts(lambda part: part**exponent, base)


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """`torch.atan2` of tensors that broadcast, and its derivatives."""
    return _in_parts(torch.atan2, *torch.broadcast_tensors(y, x))


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """`rows @ matrix` of many rows [N, A] and a small matrix [A, B]; differentiable once.

    >>> product(torch.ones(3, 2), torch.tensor([[1.0], [2.0]])).flatten()
    tensor([3., 3., 3.])
    """
    result: Tensor = _Product.apply(rows, matrix)
    return result


class _Product(torch.autograd.Function):
    """In batches of `ROW` rows, each of which one thread multiplies, and what is left of them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        return _batched_product(rows, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,), (rows, matrix) = gradients, ctx.saved_tensors
        to_rows = _batched_product(gradient, matrix.mT) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_rows, None
        of_batches = torch.cat([torch.bmm(x.mT, y) for x, y in zip(_batches(rows), _batches(gradient), strict=True)])
        while len(of_batches) > 1:  # [P, A, B]
            flat = torch.cat([batch.sum(1) for batch in _batches(of_batches.flatten(1))])
            of_batches = flat.unflatten(-1, matrix.shape)
        return to_rows, of_batches.sum(0)


def _batches(rows: Tensor) -> list[Tensor]:
    """`rows` [N, A] without a copy: [P, ROW, A] those that fill batches, and [1, R, A] the others, if there are any."""
    whole = len(rows) // ROW * ROW
    full, rest = rows[:whole].unflatten(0, (-1, ROW)), rows[None, whole:]
    return [full, rest] if whole < len(rows) else [full]


def _batched_product(rows: Tensor, matrix: Tensor) -> Tensor:
    result = rows.new_empty(len(rows), matrix.shape[1])
    for batches, into in zip(_batches(rows), _batches(result), strict=True):
        torch.bmm(batches, matrix.expand(len(batches), *matrix.shape), out=into)
    return result


def _in_parts(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` of each element of `tensors` of one shape, in parts that are not divided among threads."""
    first = tensors[0]
    if first.numel() <= UNDIVIDED or first.device.type != "cpu":
        return function(*tensors)
    parts = zip(*(x.reshape(-1).split(UNDIVIDED) for x in tensors), strict=True)
    return torch.cat([function(*part) for part in parts]).reshape(first.shape)
