"""The Warp kernels of `transform`: world points to cameras, pixels to their places and rays."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math


class TransformKernels(NamedTuple):
    """The kernels for one floating-point type."""

    to_cameras: Any
    covered_pixels: Any
    affine_rays: Any


@cache
def make_transform_kernels(real: Any) -> TransformKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, dot3, *_ = make_math(real)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def to_cameras(
        points: wp.array(dtype=vec3),
        rotations: wp.array2d(dtype=vec3),
        translations: wp.array(dtype=vec3),
        first: int,
        moved: wp.array(dtype=vec3),
    ):
        i = first + wp.tid()
        view = int(0)
        if rotations.shape[0] > 1:
            view = i // points.shape[0]
        p = points[i - view * points.shape[0]]
        rotated = vec3(dot3(rotations[view, 0], p), dot3(rotations[view, 1], p), dot3(rotations[view, 2], p))
        moved[i] = rotated + translations[view]

    @wp.kernel(module="unique", module_options=OPTIONS)
    def covered_pixels(
        pixels: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wp.int32),
        height: int,
        width: int,
        rays: wp.array2d(dtype=vec3),
        first: int,
        views: wp.array(dtype=wp.int64),
        xy: wp.array(dtype=vec2),
        seen: wp.array(dtype=wp.int64),
        directions: wp.array(dtype=vec3),
    ):
        """The image of a pixel, counted through all of them, its centre there, the face that it shows, and its ray."""
        i = first + wp.tid()
        pixel = pixels[i]
        seen[i] = wp.int64(faces[pixel])
        row = pixel / wp.int64(width)  # of all images
        view = row / wp.int64(height)
        views[i] = view
        half = real(0.5)
        x = real(pixel - row * wp.int64(width)) + half
        y = real(row - view * wp.int64(height)) + half
        xy[i] = vec2(x, y)
        if directions.shape[0] > 0:
            of = int(view)
            directions[i] = (rays[of, 3] + x * rays[of, 4]) + y * rays[of, 5]

    @wp.kernel(module="unique", module_options=OPTIONS)
    def affine_rays(
        xy: wp.array(dtype=vec2),
        views: wp.array(dtype=wp.int64),
        rays: wp.array2d(dtype=vec3),
        part: int,
        first: int,
        values: wp.array(dtype=vec3),
    ):
        """Origins (part 0) or directions (part 3) of rays, as `LinearRays` has them."""
        i = first + wp.tid()
        view = int(0)
        if rays.shape[0] > 1:
            view = int(views[i])
        p = xy[i]
        values[i] = (rays[view, part] + p[0] * rays[view, part + 1]) + p[1] * rays[view, part + 2]

    return TransformKernels(to_cameras, covered_pixels, affine_rays)
