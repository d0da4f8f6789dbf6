"""The Warp kernel of `to_cameras`."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math


class TransformKernels(NamedTuple):
    """The kernels for one floating-point type."""

    to_cameras: Any


@cache
def make_transform_kernels(real: Any) -> TransformKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, *_ = make_math(real)

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

    return TransformKernels(to_cameras)
