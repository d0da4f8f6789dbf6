"""What the Warp kernels share: types, and arithmetic that is written once so that all of them round alike."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

# Rounding has to be the same in every kernel and in the reference: no fused multiply-adds, no reordering.
OPTIONS = {"fuse_fp": False, "fast_math": False, "enable_backward": False}


class Math(NamedTuple):
    """Types and functions for one floating-point type."""

    vec2: Any
    vec3: Any
    dot3: Any
    plane_normal: Any
    side_sign: Any
    extent: Any


@cache
def make_math(real: Any) -> Math:
    """Types and functions for `real` (`wp.float32` or `wp.float64`)."""
    vec2 = wp.types.vector(2, real)
    vec3 = wp.types.vector(3, real)

    @wp.func
    def dot3(a: vec3, b: vec3):
        return (a[0] * b[0] + a[1] * b[1]) + a[2] * b[2]

    @wp.func
    def plane_normal(a: vec3, b: vec3):
        """2 a x b, antisymmetric to the last bit."""
        s = a + b
        e = b - a
        return vec3(s[1] * e[2] - s[2] * e[1], s[2] * e[0] - s[0] * e[2], s[0] * e[1] - s[1] * e[0])

    @wp.func
    def side_sign(w: real, n: vec3):
        """Sign of `w`; of the first component of `n` that is not zero where `w` is zero; 0 if there is none."""
        value = w
        if value == real(0.0):
            value = n[0]
        if value == real(0.0):
            value = n[1]
        if value == real(0.0):
            value = n[2]
        sign = int(0)
        if value > real(0.0):
            sign = 1
        if value < real(0.0):
            sign = -1
        return sign

    @wp.func
    def extent(v: vec3):
        return (wp.abs(v[0]) + wp.abs(v[1])) + wp.abs(v[2])

    return Math(vec2, vec3, dot3, plane_normal, side_sign, extent)


@cache
def make_z_code() -> Any:
    """The function that tells where on a Z-order curve over pixels a point is: the bits of x and y by turns."""

    @wp.func
    def spread_bits(coordinate: wp.float64):
        """The integer part of a pixel coordinate, 16 bits, with a zero bit between any two; 0 for NaN."""
        code = wp.int64(0)
        if coordinate >= wp.float64(1.0):
            code = wp.int64(wp.min(coordinate, wp.float64(65535.0)))
        code = (code | (code << wp.int64(8))) & wp.int64(0x00FF00FF)
        code = (code | (code << wp.int64(4))) & wp.int64(0x0F0F0F0F)
        code = (code | (code << wp.int64(2))) & wp.int64(0x33333333)
        code = (code | (code << wp.int64(1))) & wp.int64(0x55555555)
        return code

    @wp.func
    def z_code(x: wp.float64, y: wp.float64):
        return spread_bits(x) | (spread_bits(y) << wp.int64(1))

    return z_code


@cache
def make_within_copy() -> Any:
    """The function for what is counted through all copies of a mesh, one for each view."""

    @wp.func
    def within_copy(item: int, count: int):
        """Which of `count` faces or edges an item is, and of which copy."""
        index = item
        copy = int(0)
        if item >= count:  # a division is worth avoiding: most calls have one view, and most faces no pixel
            copy = item // count
            index = item - copy * count
        return index, copy

    return within_copy
