"""Tensors as Warp arrays, by their bare description; and memory for what kernels write."""

from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

NUMPY_TYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int32: np.int32, torch.int64: np.int64}
Description = type(wp.from_torch(torch.zeros(1), return_ctype=True))
LAYOUT = Struct("=2Q 8i 2H 4x")  # where data and gradient are, four sizes, four strides in bytes, dimensions, flags
UNUSED = [(0,) * (4 - dimensions) for dimensions in range(5)]


def array(values: Tensor) -> Any:
    """A tensor as what kernels take for an array of numbers.

    Keeps the tensor alive. Nobody checks its type: the arguments have to be what the kernel declares.
    """
    if values.ndim == 1:
        return _line(values, values.shape[0], values.stride(0))
    return _described(values, values.shape, values.stride())


def flat(values: Tensor) -> Any:
    """Numbers of any shape as a one-dimensional array."""
    return array(values.detach().reshape(-1))


def vectors(values: Tensor) -> Any:
    """[..., C] as an array of vectors; [N, K, C] two-dimensional, all others one-dimensional."""
    values = values.contiguous()
    if values.ndim == 2:
        return _line(values, *values.shape)
    if values.ndim != 3:
        values = values.reshape(-1, values.shape[-1])
    return _described(values, values.shape[:-1], values.stride()[:-1])


def _line(values: Tensor, count: int, stride: int) -> Any:
    # What `wp.from_torch` makes with `return_ctype`, without its questions, which a render has a few hundred times.
    described = Description.from_buffer_copy(
        LAYOUT.pack(values.data_ptr(), 0, count, 0, 0, 0, stride * values.element_size(), 0, 0, 0, 1, 0)
    )
    described._ref = values
    return described


def _described(values: Tensor, shape: Sequence[int], strides: Sequence[int]) -> Any:
    size, dimensions = values.element_size(), len(shape)
    unused = UNUSED[dimensions]
    described = Description.from_buffer_copy(
        LAYOUT.pack(values.data_ptr(), 0, *shape, *unused, *(size * x for x in strides), *unused, dimensions, 0)
    )
    described._ref = values
    return described


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory on the device of `like`, of its type or another `dtype`, with anything in it."""
    # On the CPU by numpy, which asks for large pages: a fourth of the time until all of it is there.
    dtype = dtype or like.dtype
    if like.is_cuda:
        return torch.empty(shape, dtype=dtype, device=like.device)
    return torch.from_numpy(np.empty(shape, NUMPY_TYPES[dtype]))


def zeros(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros on the device of `like`, of its type or another `dtype`."""
    # By numpy, which does not wake torch's threads either: while those wait for more to do, they take our cores.
    dtype = dtype or like.dtype
    if like.is_cuda:
        return torch.zeros(shape, dtype=dtype, device=like.device)
    return torch.from_numpy(np.zeros(shape, NUMPY_TYPES[dtype]))


def repeated(row: Tensor, count: int) -> Tensor:
    """[count, C] the same `row` [1, C] again and again, in memory of its own."""
    if row.is_cuda or count == 0:
        return row.repeat(count, 1)
    # A row of a few numbers at a time, numpy and torch take seven times as long.
    rows, block = empty((count, row.shape[1]), row), min(count, 1024)
    values = rows.numpy()
    values[:block] = row.detach().numpy()
    whole = count - count % block
    values[:whole].reshape(-1, block * row.shape[1])[1:] = values[:block].reshape(-1)
    values[whole:] = values[: count - whole]
    return rows
