"""Means of a texture over the footprints of pixels: the kernels on tensors, with their own reverse mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import empty, flat, zeros
from .launch import launch, launch_ranges, load_kernel, row_bands, side_by_side
from .pyramids_reference import box_of
from .warp_pyramids import make_pyramid_kernels
from .warp_sampling import BORDERS, MAX_CHANNELS

CHUNK = 2048  # points per call of a kernel on the CPU
MIN_SHARE = 2  # chunks that are worth a second thread
MIN_POINTS = 16384  # points that are, in the reverse mode, where every thread looks at all of them


@dataclass(frozen=True)
class PyramidLookup:
    """How footprints read a pyramid.

    Attributes:
        borders: two of `BORDERS`, along u and along v.
        max_probes: odd; squares that the box of a footprint is cut into, at most.
    """

    borders: tuple[str, str]
    max_probes: int


def filter_pyramid(pyramid: Sequence[Tensor], uv: Tensor, spread: Tensor, how: PyramidLookup) -> Tensor:
    """Values [N, C] of a texture at `uv` [N, 2], averaged as widely as `spread` says.

    Args:
        pyramid: images [h, w, C], each about half as large as the one before; contiguous, float32 or float64, as are
            `uv` and `spread`.
        spread: [N] levels, or [N, 2, 2] Jacobians of (u, v) by the pixel's (x, y).
    """
    values = empty((len(uv), pyramid[0].shape[-1]), uv)
    if values.numel():
        _launch_points("values", pyramid, uv, spread, how, None, [values])
    return values


def filter_pyramid_points_gradient(
    pyramid: Sequence[Tensor], uv: Tensor, spread: Tensor, how: PyramidLookup, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to `uv` and `spread` of the sum of `gradient` [N, C] times the values."""
    found = zeros(uv.shape, uv), zeros(spread.shape, spread)
    if gradient.numel():
        _launch_points("to_points", pyramid, uv, spread, how, gradient, list(found))
    return found


def filter_pyramid_texels_gradient(
    pyramid: Sequence[Tensor], uv: Tensor, spread: Tensor, how: PyramidLookup, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Gradients to the images of a pyramid, of which only the shapes are read, of the same sum."""
    found = tuple(zeros(image.shape, image) for image in pyramid)
    if gradient.numel() == 0:
        return found
    kernel = _kernel("to_texels", pyramid, spread)
    table = _table(found)
    count = len(uv)
    chunk = 1 if uv.is_cuda else count
    inputs = [*_inputs(table, uv, spread, how, gradient.shape[-1]), count, chunk, flat(gradient)]

    def work(first_row: int, stop_row: int) -> None:
        launch(kernel, -(-count // chunk), [*inputs, first_row, stop_row], uv.device)

    def row_of(stride: int) -> np.ndarray:
        return _row_of(pyramid, uv[::stride, 1], spread[::stride], how)

    side_by_side(work, row_bands(sum(len(image) for image in pyramid), count, row_of, uv, MIN_POINTS))
    return found


def _launch_points(
    name: str,
    pyramid: Sequence[Tensor],
    uv: Tensor,
    spread: Tensor,
    how: PyramidLookup,
    gradient: Tensor | None,
    outputs: list[Tensor],
) -> None:
    """Launch a kernel whose results belong to points."""
    kernel, table = _kernel(name, pyramid, spread), _table(pyramid)
    count, chunk = len(uv), 1 if uv.is_cuda else CHUNK
    inputs = [*_inputs(table, uv, spread, how, pyramid[0].shape[-1]), count, chunk]
    inputs += [] if gradient is None else [flat(gradient)]
    launch_ranges(kernel, -(-count // chunk), inputs, [flat(x) for x in outputs], uv, MIN_SHARE)


def _kernel(name: str, pyramid: Sequence[Tensor], spread: Tensor) -> Any:
    channels = pyramid[0].shape[-1] if pyramid[0].shape[-1] <= MAX_CHANNELS else 0
    return load_kernel(make_pyramid_kernels, name, spread, spread.ndim == 1, channels)


def _table(pyramid: Sequence[Tensor]) -> Tensor:
    """For each image where it lies in memory, its width, its height, and the rows of those before it: [L, 4] int64."""
    heights = [len(image) for image in pyramid]
    first_rows = accumulate(heights[:-1], initial=0)
    rows = [(x.data_ptr(), x.shape[1], len(x), row) for x, row in zip(pyramid, first_rows, strict=True)]
    return torch.tensor(rows, dtype=torch.int64, device=pyramid[0].device)


def _inputs(table: Tensor, uv: Tensor, spread: Tensor, how: PyramidLookup, channels: int) -> list[Any]:
    borders = [BORDERS.index(name) for name in how.borders]
    sizes = table[:, 1:3].to(uv.dtype)
    return [flat(table), flat(sizes), len(table), flat(uv), flat(spread), channels, *borders, how.max_probes]


def _row_of(pyramid: Sequence[Tensor], v: Tensor, spread: Tensor, how: PyramidLookup) -> np.ndarray:
    """The two rows, among those of all images one after another, of the middles of some footprints."""
    heights = torch.tensor([len(image) for image in pyramid])
    first_rows = heights.cumsum(0) - heights
    if spread.ndim == 3:
        spread = box_of(spread * v.new_tensor([pyramid[0].shape[1], len(pyramid[0])])[:, None], how.max_probes)[2]
    finer = spread.nan_to_num(0.0).clamp(0, len(pyramid) - 1).long()
    both = torch.cat([finer, (finer + 1).clamp_max(len(pyramid) - 1)])
    within = (1 - v.nan_to_num(0.0) % 1).repeat(2) * heights[both]
    return (first_rows[both] + within.long()).numpy()
