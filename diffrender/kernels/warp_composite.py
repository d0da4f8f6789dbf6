"""The Warp kernels of `composite`: colours of fragments to pixels, and the gradients of pixels back to them.

A row of the colours [N, C] is first one of a pixel's centre, then one of a side of an edge, then one that only moves.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS


class CompositeKernels(NamedTuple):
    """The kernels for one floating-point type."""

    fill_centers: Any
    add_sides: Any
    composite_gradient: Any


@cache
def make_composite_kernels(real: Any, channels: int) -> CompositeKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`) and colours of so many channels, alpha apart.

    Nothing compiles before a launch.
    """
    color, value = wp.types.vector(channels, real), wp.types.vector(channels + 1, real)

    @wp.func
    def opaque(c: color):
        """A colour and alpha 1."""
        result = value(real(1.0))
        for channel in range(channels):
            result[channel] = c[channel]
        return result

    @wp.kernel(module="unique", module_options=OPTIONS)
    def fill_centers(
        colors: wp.array(dtype=color),
        pixels: wp.array(dtype=wp.int64),
        count: int,
        block: int,
        first: int,
        image: wp.array(dtype=value),
    ):
        """The colours of centres, alpha 1."""
        begin = (first + wp.tid()) * block
        for i in range(begin, wp.min(begin + block, count)):
            image[pixels[i]] = opaque(colors[i])

    @wp.kernel(module="unique", module_options=OPTIONS)
    def add_sides(
        colors: wp.array(dtype=color),
        pixels: wp.array(dtype=wp.int64),
        areas: wp.array(dtype=real),
        background: wp.array(dtype=value),
        begin: int,
        image: wp.array(dtype=value),
    ):
        """The jumps at edges times their areas, one after the other: several may be in a pixel. For one thread."""
        for i in range(areas.shape[0]):
            pixel = int(pixels[begin + i])
            behind = background[wp.min(pixel, background.shape[0] - 1)]
            image[pixel] = image[pixel] + areas[i] * (opaque(colors[begin + i]) - behind)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def composite_gradient(
        colors: wp.array(dtype=color),
        pixels: wp.array(dtype=wp.int64),
        areas: wp.array(dtype=real),
        shares: wp.array(dtype=real),
        background: wp.array(dtype=value),
        centers: int,
        upstream: wp.array(dtype=value),
        block: int,
        first: int,
        color_gradient: wp.array(dtype=color),
        area_gradient: wp.array(dtype=real),
    ):
        """Of colours, and of the areas of sides; `shares` are those of the rows that only move."""
        begin = (first + wp.tid()) * block
        for i in range(begin, wp.min(begin + block, colors.shape[0])):
            pixel = int(pixels[i])
            side = i - centers
            weight = real(1.0)
            if side >= areas.shape[0]:
                weight = shares[side - areas.shape[0]]
            elif side >= 0:
                weight = areas[side]
                behind = background[wp.min(pixel, background.shape[0] - 1)]
                area_gradient[side] = wp.dot(opaque(colors[i]) - behind, upstream[pixel])
            above = upstream[pixel]
            gradient = color()
            for channel in range(channels):
                gradient[channel] = weight * above[channel]
            color_gradient[i] = gradient

    return CompositeKernels(fill_centers, add_sides, composite_gradient)
