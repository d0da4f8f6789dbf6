"""A drop-in for `torch.nn.functional.grid_sample`: its layouts, names and rounding, our kernels."""

from typing import Literal

import torch
from torch import Tensor

from ..checks import check_tensor, shape_of
from ..kernels import Lookup
from .lookup import lookup

_BORDERS = {"zeros": "zeros", "border": "clamp", "reflection": "reflect"}


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """`torch.nn.functional.grid_sample`, equal in value and gradient, and differentiable twice where it is smooth.

    Args:
        input: [N, C, H, W] or [N, C, D, H, W], floating point.
        grid: [N, Ho, Wo, 2] or [N, Do, Ho, Wo, 3], (x, y) or (x, y, z) in [-1, 1], the coordinates last.
        mode: as torch's: "nearest" rounds halves to even, "bicubic" has a = -0.75 and is for images only.
        padding_mode, align_corners: as torch's; None is False.

    Returns:
        [N, C, Ho, Wo] or [N, C, Do, Ho, Wo]: a view of channels-last memory.

    One difference: a NaN in the grid gives the border's value and a zero gradient, where torch promises nothing.

    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> grid_sample(image, torch.zeros(1, 1, 1, 2)).item()
    1.5
    """
    dimensions = _check(input, grid, mode, padding_mode)
    sizes = [input.shape[-1 - axis] for axis in range(dimensions)]
    spans = [size - 1 if align_corners else size for size in sizes]
    scale, first = tuple(span / 2 for span in spans), 0.5 if align_corners else 0.0  # where -1 is, in pixels
    border = _BORDERS[padding_mode]
    if border == "reflect" and align_corners:
        border = "mirror"
    name = "bicubic-torch" if mode == "bicubic" else mode
    wider = torch.promote_types(input.dtype, grid.dtype)
    points = grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
    how = Lookup(name, (border,) * dimensions, scale, (first,) * dimensions, origin=-1.0)
    if mode == "nearest" or (mode == "bilinear" and border != "zeros"):
        points = (grid + 1) * grid.new_tensor(scale) + (first - 0.5)
        points = _into_image(points, sizes, border)
        points = torch.round(points) if mode == "nearest" else points
        border = "zeros" if border == "zeros" else "clamp"
        how = Lookup(name, (border,) * dimensions, (1.0,) * dimensions, (0.5,) * dimensions)
    return lookup(input.movedim(1, -1), points, how).movedim(-1, 1).to(wider)


def _into_image(points: Tensor, sizes: list[int], border: str) -> Tensor:
    """torch moves the point, not the texel, and lets nothing through from the centres of the outer pixels outwards.

    Here points are counted from the centre of the first pixel, as torch does: where texels meet, rounding decides.
    """
    if border == "zeros":
        return points
    last = points.new_tensor(sizes) - 1
    usable = points.detach().abs() < 2.0**22  # the kernel knows what to do with the others
    if border != "clamp":
        low, period = (-0.5, 2 * last + 2) if border == "reflect" else (0.0, (2 * last).clamp_min(1.0))
        away = (points - low).abs()
        away = away - torch.floor(away.detach() / period) * period
        folded = low + torch.where(away > period / 2, period - away, away)
        points = torch.where(usable, folded, points)
    x = points.detach()
    inside = (x > 0) & (x < last)
    return torch.where(inside | ~usable, points, torch.minimum(x.clamp_min(0), last))


def _check(input: Tensor, grid: Tensor, mode: str, padding_mode: str) -> int:
    check_tensor("input", input, hint="call input.float()")
    check_tensor("grid", grid)
    if input.ndim not in (4, 5):
        raise ValueError(f"input must be (N, C, H, W) or (N, C, D, H, W); got {shape_of(input)}")
    dimensions = input.ndim - 2
    letters = "(N, Ho, Wo, 2)" if dimensions == 2 else "(N, Do, Ho, Wo, 3)"
    if grid.ndim != input.ndim or grid.shape[-1] != dimensions:
        first = grid.ndim == input.ndim and grid.shape[1] == dimensions
        hint = ": move the coordinates last, grid.movedim(1, -1)" if first else ""
        raise ValueError(f"grid must be {letters} for input {shape_of(input)}; got {shape_of(grid)}{hint}")
    if grid.shape[0] != input.shape[0]:
        raise ValueError(f"grid must have the batch of input {shape_of(input)}; got {shape_of(grid)}")
    if 0 in input.shape[2:]:
        raise ValueError(f"input must have at least one pixel; got {shape_of(input)}")
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(f"mode must be one of bilinear, nearest, bicubic; got {mode!r}")
    if mode == "bicubic" and dimensions == 3:
        raise ValueError("mode must be bilinear or nearest for volumes, as torch's; sample_volume has more")
    if padding_mode not in _BORDERS:
        raise ValueError(f"padding_mode must be one of {', '.join(_BORDERS)}; got {padding_mode!r}")
    return dimensions
