"""What cameras are built from: sizes, parameters and poses, checked and brought to one dtype and device."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffrender.checks import shape_of

Parameter: TypeAlias = float | Tensor | Sequence[float | Tensor]

# How far R may be from a rotation, largest entry of R R^T - 1: calibration files often carry four digits.
ORTHONORMAL_TOLERANCE = 1e-3


def as_tensor(name: str, value: Any, trailing: int) -> Tensor:
    """A parameter as a tensor with `trailing` dimensions after the batch; numbers wait in float64."""
    if isinstance(value, Tensor):
        tensor = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        tensor = torch.tensor(float(value), dtype=torch.float64)
    elif isinstance(value, (tuple, list)) and trailing > 0:
        parts = [as_tensor(name, part, trailing - 1) for part in value]
        if not parts:
            raise ValueError(f"{name} must not be empty")
        device, dtype = parts[0].device, parts[0].dtype
        for part in parts:
            if part.ndim or part.device.type != "cpu":
                device = part.device
            dtype = torch.promote_types(dtype, part.dtype)
        parts = [part.to(device=device, dtype=dtype) for part in parts]
        try:
            tensor = torch.stack(torch.broadcast_tensors(*parts), dim=-trailing)
        except RuntimeError:
            raise ValueError(f"{name} holds parts of shapes {[tuple(p.shape) for p in parts]}: not one shape") from None
    else:
        wanted = ("a number or a tensor", "a tensor or a sequence of numbers and tensors")[trailing > 0]
        raise TypeError(f"{name} must be {wanted}; got {shape_of(value)}: convert arrays with torch.as_tensor")
    if tensor.ndim < trailing:
        raise ValueError(f"{name} must have {trailing} dimensions after the batch; got {shape_of(tensor)}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers; got {shape_of(tensor)}")
    return tensor


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, (tuple, list)) else []


def common_type(values: dict[str, Any]) -> tuple[torch.dtype, torch.device]:
    """What the tensors among the parameters agree on: float32 on the CPU if there are none."""
    leaves = [(name, leaf) for name, value in values.items() for leaf in _leaves(value)]
    devices = {leaf.device for _, leaf in leaves}
    if len(devices) > 1:
        listed = ", ".join(f"{name} on {leaf.device}" for name, leaf in leaves)
        raise ValueError(f"the parameters must be on one device; got {listed}: move them with .to(device)")
    dtype = None
    for _, leaf in leaves:
        if leaf.is_floating_point():
            dtype = leaf.dtype if dtype is None else torch.promote_types(dtype, leaf.dtype)
    if dtype not in (None, torch.float32, torch.float64):
        listed = ", ".join(f"{name} {shape_of(leaf)}" for name, leaf in leaves)
        raise TypeError(f"the parameters must be float32 or float64; got {listed}: convert them with .float()")
    return dtype or torch.float32, next(iter(devices), torch.device("cpu"))


def check_pose_shapes(R: Tensor, t: Tensor) -> None:
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"R must end in (3, 3), the rotation from world to camera; got {shape_of(R)}")
    if t.shape[-1] != 3:
        raise ValueError(f"t must end in 3; got {shape_of(t)}: a column vector (3, 1) is written t[..., 0]")


def check_rotation(R: Tensor) -> None:
    error = float((R @ R.mT - torch.eye(3, dtype=R.dtype, device=R.device)).abs().max()) if R.numel() else 0.0
    if error > ORTHONORMAL_TOLERANCE:
        raise ValueError(
            f"R must be a rotation; R R^T differs from the identity by {error:.2g}: "
            "a scale or an inverse pose mixed in? Optimize rotations as axis-angles, through so3_exp"
        )
    if R.numel() and float(torch.linalg.det(R).min()) < 0:
        raise ValueError("R must be a rotation; its determinant is -1, so it mirrors: is an axis flipped only once?")


def short(value: Tensor) -> str:
    """A parameter in a repr: its numbers if they are few, else its shape."""
    if value.ndim == 0:
        return f"{value.item():.6g}"
    if value.ndim == 1 and len(value) <= 6:
        return f"({', '.join(f'{x:.6g}' for x in value.tolist())})"
    return shape_of(value) if math.prod(value.shape) else "empty"
