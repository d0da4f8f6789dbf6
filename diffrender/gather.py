"""Weighted sums of rows: what interpolation on triangles and sampling of images come down to.

The sum is trilinear in (rows, weights, upstream gradient), so its derivatives are three operators that differentiate
into one another, which makes every order of derivative exact.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def gather(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """rows [T, C], index [N, K], weights [N, K] -> [N, C]: `sum_k weights[n, k] rows[index[n, k], c]`.

    >>> gather(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]))
    tensor([[2.]])
    """
    dtype = torch.promote_types(rows.dtype, weights.dtype)
    result: Tensor = _Gather.apply(rows.to(dtype), index, weights.to(dtype))
    return result


def scatter(values: Tensor, index: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    """values [N, C], index [N, K], weights [N, K] -> rows [`num_rows`, C]: the adjoint of `gather` to its rows."""
    rows: Tensor = _Scatter.apply(values, index, weights, num_rows)
    return rows


class _Gather(torch.autograd.Function):
    """`gather`."""

    @staticmethod
    def forward(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        if index.numel() == 0 or rows.numel() == 0:
            return rows.new_zeros(len(index), rows.shape[1])
        # One fused pass.
        return F.embedding_bag(index.contiguous(), rows, per_sample_weights=weights.contiguous(), mode="sum")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, index, weights = ctx.saved_tensors
        needs_rows, _, needs_weights = ctx.needs_input_grad
        grad_rows = _Scatter.apply(grads[0], index, weights, len(rows)) if needs_rows else None
        grad_weights = _Dot.apply(rows, index, grads[0]) if needs_weights else None
        return grad_rows, None, grad_weights


class _Scatter(torch.autograd.Function):
    """`scatter`.

    `index_add_` adds in the order of the index on the CPU, whatever the number of threads.
    """

    @staticmethod
    def forward(values: Tensor, index: Tensor, weights: Tensor, num_rows: int) -> Tensor:
        rows = values.new_zeros(num_rows, values.shape[1])
        for k in range(index.shape[1]):  # one tap at a time: K times less memory
            rows.index_add_(0, index[:, k], values * weights[:, k, None])
        return rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, index, weights = ctx.saved_tensors
        needs_values, _, needs_weights, _ = ctx.needs_input_grad
        grad_values = _Gather.apply(grads[0], index, weights) if needs_values else None
        grad_weights = _Dot.apply(grads[0], index, values) if needs_weights else None
        return grad_values, None, grad_weights, None


class _Dot(torch.autograd.Function):
    """rows [T, C], index [N, K], values [N, C] -> [N, K]: `sum_c rows[index[n, k], c] values[n, c]`."""

    @staticmethod
    def forward(rows: Tensor, index: Tensor, values: Tensor) -> Tensor:
        if values.numel() == 0:
            return values.new_zeros(index.shape)
        taps = rows.index_select(0, index.reshape(-1)).reshape(*index.shape, -1)  # [N, K, C]
        return torch.bmm(taps, values.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, index, values = ctx.saved_tensors
        needs_rows, _, needs_values = ctx.needs_input_grad
        grad_rows = _Scatter.apply(values, index, grads[0], len(rows)) if needs_rows else None
        grad_values = _Gather.apply(rows, index, grads[0]) if needs_values else None
        return grad_rows, None, grad_values
