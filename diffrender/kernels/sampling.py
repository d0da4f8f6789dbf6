"""Images and volumes at points: the kernels on tensors, with their own reverse mode."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from .arrays import array, empty, flat, zeros
from .launch import launch, launch_ranges, load_kernel, row_bands, side_by_side
from .warp_sampling import BORDERS, FILTERS, MAX_CHANNELS, make_sampling_kernels

CHUNK = 2048  # points per call of a kernel on the CPU
MIN_VALUES = 98304  # fewer are not worth a second thread; that of a point with less than three channels counts as three


@dataclass(frozen=True)
class Lookup:
    """How coordinates read an image.

    Attributes:
        mode: one of `FILTERS`.
        borders: one of `BORDERS` for each axis, x first.
        scale, offset: for each axis: a coordinate u means the position (u - origin) * scale + offset in texels.
        origin: the same for all axes.
    """

    mode: str
    borders: tuple[str, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    origin: float = 0.0

    @property
    def settings(self) -> tuple[str, tuple[str, ...], tuple[float, ...], tuple[float, ...], float]:
        """Its five attributes, in order."""
        return self.mode, self.borders, self.scale, self.offset, self.origin


def sample_images(images: Tensor, image_of: Tensor, points: Tensor, lookup: Lookup) -> Tensor:
    """Values [G, P, C] at points [G, P, D] of images [I, H, W, C], D = 2, or volumes [I, Z, H, W, C], D = 3.

    Args:
        images: contiguous; float32 or float64.
        image_of: [G] int32, the image that each group of points reads.
        points: contiguous, of the type of `images`.
    """
    values = empty((*points.shape[:-1], images.shape[-1]), images)
    if values.numel() == 0:
        return values
    count, chunk = points.shape[0] * points.shape[1], 1 if images.is_cuda else CHUNK
    kernel = _kernel("sample", images, points, lookup)
    inputs = [*_inputs(images, image_of, points, lookup), count, chunk]
    launch_ranges(kernel, -(-count // chunk), inputs, [flat(values)], images, max(_min_points(images) // chunk, 1))
    return values


def sample_images_gradient(
    images: Tensor,
    image_of: Tensor,
    points: Tensor,
    lookup: Lookup,
    gradient: Tensor,
    *,
    to_images: bool,
    to_points: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to `images` and `points` of the sum of `gradient` [G, P, C] times the values."""
    image_gradient = zeros(images.shape, images) if to_images else None
    point_gradient = empty(points.shape, points) if to_points else None
    if points.numel() == 0 or images.shape[-1] == 0:
        return image_gradient, None if point_gradient is None else point_gradient.zero_()
    kernel = _kernel("sample_gradient", images, points, lookup)
    count = points.shape[0] * points.shape[1]
    chunk = 1 if images.is_cuda else count
    inputs = [*_inputs(images, image_of, points, lookup), count, chunk, flat(gradient), int(to_images), int(to_points)]
    nothing = points.new_zeros(1)
    outputs = [flat(nothing if x is None else x) for x in (image_gradient, point_gradient)]

    def work(first_row: int, stop_row: int) -> None:
        dim = -(-count // chunk)
        launch(kernel, dim, [*inputs, first_row, stop_row, *outputs], images.device)

    def row_of(stride: int) -> np.ndarray:
        return _row_of(images, image_of, points, lookup, stride)

    side_by_side(work, row_bands(images[..., 0, 0].numel(), count, row_of, images, _min_points(images)))
    return image_gradient, point_gradient


def _min_points(images: Tensor) -> int:
    """How many points are worth a second thread."""
    return max(MIN_VALUES // max(images.shape[-1], 3), 1)


def _kernel(name: str, images: Tensor, points: Tensor, lookup: Lookup) -> Any:
    channels = images.shape[-1] if images.shape[-1] <= MAX_CHANNELS else 0
    return load_kernel(make_sampling_kernels, name, images, lookup.mode, points.shape[-1], channels)


def _inputs(images: Tensor, image_of: Tensor, points: Tensor, lookup: Lookup) -> list[Any]:
    *sizes, channels = images.shape[1:]
    height, width = sizes[-2:]
    depth = sizes[0] if len(sizes) == 3 else 1
    borders = [BORDERS.index(name) for name in lookup.borders]
    vec3 = wp.types.vector(3, wp.float32 if images.dtype == torch.float32 else wp.float64)
    unused = 3 - points.shape[-1]
    shift = FILTERS[lookup.mode].shift
    return [
        flat(images if images.is_contiguous() else images.new_zeros(1)),  # not read where only its shape is meant
        flat(points),
        array(image_of),
        points.shape[1],
        width,
        height,
        depth,
        channels,
        *borders,
        *[0] * unused,
        lookup.origin,
        vec3(*lookup.scale, *[1.0] * unused),
        vec3(*[offset - shift for offset in lookup.offset], *[0.0] * unused),
    ]


def _row_of(images: Tensor, image_of: Tensor, points: Tensor, lookup: Lookup, stride: int) -> np.ndarray:
    """The row, among those of all images, of every so many points."""
    places = points.detach().numpy().reshape(-1, points.shape[-1])[::stride]
    row = image_of.numpy()[np.arange(len(places)) * stride // points.shape[1]].astype(np.float64)
    for axis in reversed(range(1, points.shape[-1])):
        size = images.shape[-2 - axis]
        with np.errstate(over="ignore", invalid="ignore"):
            position = (places[:, axis] - lookup.origin) * lookup.scale[axis] + lookup.offset[axis]
        row = row * size + np.floor(np.nan_to_num(position).clip(0, size - 1))
    return row
