"""The Warp kernels of `interpolation`: values at the corners of faces, blended by barycentrics; and in reverse."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math


class InterpolationKernels(NamedTuple):
    """The kernels for one floating-point type."""

    interpolate: Any
    weight_gradient: Any


@cache
def make_interpolation_kernels(real: Any) -> InterpolationKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, *_ = make_math(real)

    @wp.func
    def corners_of(i: int, faces: wp.array2d(dtype=wp.int64), face_index: wp.array(dtype=wp.int64)):
        """The vertices of the face of point i."""
        face = int(face_index[i])
        return int(faces[face, 0]), int(faces[face, 1]), int(faces[face, 2])

    @wp.kernel(module="unique", module_options=OPTIONS)
    def interpolate(
        attribute: wp.array2d(dtype=real),
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        weights: wp.array(dtype=vec3),
        first: int,
        values: wp.array2d(dtype=real),
    ):
        """The blend of each channel."""
        i = first + wp.tid()
        a, b, c = corners_of(i, faces, face_index)
        w = weights[i]
        for channel in range(attribute.shape[1]):
            corners = vec3(attribute[a, channel], attribute[b, channel], attribute[c, channel])
            values[i, channel] = dot3(w, corners)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def weight_gradient(
        attribute: wp.array2d(dtype=real),
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        gradient: wp.array2d(dtype=real),
        first: int,
        gradients: wp.array(dtype=vec3),
    ):
        """Of each weight: the values at its corner times the upstream gradient."""
        i = first + wp.tid()
        a, b, c = corners_of(i, faces, face_index)
        total = vec3(real(0.0), real(0.0), real(0.0))
        for channel in range(attribute.shape[1]):
            total += gradient[i, channel] * vec3(attribute[a, channel], attribute[b, channel], attribute[c, channel])
        gradients[i] = total

    return InterpolationKernels(interpolate, weight_gradient)
