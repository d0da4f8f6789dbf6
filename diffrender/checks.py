"""Argument checks shared by the public functions: one line each, errors that quote the shapes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def shape_of(value: object) -> str:
    """`(2, 3) float32` for a tensor, the type's name for anything else: what error messages quote.

    >>> shape_of(torch.zeros(2, 3))
    '(2, 3) float32'
    """
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """What tensors of these shapes broadcast to; ValueError if they do not. (torch's own takes 0.6 s to import sympy.)

    >>> broadcast_shapes((2, 1), (3,))
    (2, 3)
    """
    return tuple(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))


def check_tensor(name: str, value: object, *, last: int | None = None, ndim: int | None = None, hint: str = "") -> None:
    """Raise unless `value` is a floating-point tensor with `ndim` dimensions whose last one is `last`."""
    suffix = f": {hint}" if hint else ""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor; got {shape_of(value)}{suffix}{_as_tensor(value, 'torch.float32')}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point; got {shape_of(value)}{suffix}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions; got {shape_of(value)}{suffix}")
    if last is not None and (value.ndim == 0 or value.shape[-1] != last):
        raise ValueError(f"{name} must end in {last}; got {shape_of(value)}{suffix}")


def _as_tensor(value: object, dtype: str) -> str:
    """How what somebody has becomes a tensor, for errors."""
    convertible = isinstance(value, (np.ndarray, list, tuple))
    return f"; torch.as_tensor(..., dtype={dtype}) makes one" if convertible else ""


def check_size(name: str, size: Any) -> tuple[int, int]:
    """The size as two integers; ValueError unless it is one."""
    usual = "(height, width) of the image, two whole numbers above 0"
    if not isinstance(size, (tuple, list, torch.Size)) or len(size) != 2:
        raise ValueError(f"{name} must be {usual}; got {size!r}")
    whole = (int, np.integer)
    if not all(isinstance(n, whole) and not isinstance(n, bool) and n > 0 for n in size):
        raise ValueError(f"{name} must be {usual}; got {tuple(size)}")
    return (int(size[0]), int(size[1]))


def check_finite(name: str, value: Tensor) -> None:
    """Raise when `value` holds NaN or infinity, saying how many and where the first one is."""
    if value.numel() == 0 or all(map(math.isfinite, extremes(value))):
        return
    bad = (~torch.isfinite(value)).nonzero()
    raise ValueError(
        f"{name} holds {len(bad)} values that are NaN or infinite, the first at index {tuple(bad[0].tolist())}"
    )


def extremes(value: Tensor) -> tuple[float, float]:
    """The least and the greatest of some values, both NaN where any is: one pass, where `isfinite` takes several.

    >>> extremes(torch.tensor([2.0, -1.0]))
    (-1.0, 2.0)
    """
    value = value.detach()
    if value.is_cpu and value.dtype != torch.bfloat16 and not torch._C._are_functorch_transforms_active():
        # By numpy, which does not wake torch's threads: while those wait for more to do, they take the cores of ours.
        values = value.numpy()
        return values.min().item(), values.max().item()
    low, high = torch.aminmax(value)
    return low.item(), high.item()


def check_flags(**flags: object) -> None:
    """Raise unless each of the named values is True or False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}")


def check_index(name: str, value: object, *, last: int, count: int, of: str) -> None:
    """Raise unless `value` is an integer tensor [N, last] with entries in [0, count)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be an integer tensor; got {shape_of(value)}{_as_tensor(value, 'torch.int64')}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer tensor; got {shape_of(value)}: .long() makes one")
    if value.ndim != 2 or value.shape[-1] != last:
        raise ValueError(f"{name} must have shape (N, {last}); got {shape_of(value)}")
    low, high = extremes(value) if value.numel() else (0, -1)
    if low < 0 or high >= count:
        raise ValueError(
            f"{name} must index {of}, 0 to {count - 1}; got values from {low} to {high} (OBJ files count from 1)"
        )
