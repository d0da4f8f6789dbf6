"""The Warp kernels of `barycentrics`: one ray and one face each, forward and in reverse mode."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .reference import EDGE_ON, EPSILON
from .warp_math import OPTIONS, make_math


class BarycentricKernels(NamedTuple):
    """The kernels for one floating-point type."""

    barycentrics: Any
    barycentrics_gradient: Any


@cache
def make_barycentric_kernels(real: Any) -> BarycentricKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, plane_normal, _, extent = make_math(real)
    edge_on = wp.constant(real(EDGE_ON * EPSILON[wp.dtype_to_torch(real)]))

    @wp.func
    def measured(p: vec3, d: vec3, z_depth: int):
        """Depth of a point `p` along a ray from the origin with direction `d`."""
        value = p[2]
        if z_depth == 0:
            value = dot3(d, p) / dot3(d, d)
        return value

    @wp.func
    def outside_of(b: vec3, margin: real):
        return wp.min(b) < -margin or wp.max(b) > real(1.0) + margin

    @wp.func
    def least_total(d: vec3, a: vec3, b: vec3, c: vec3, smallest: real):
        """How much raw weights have to sum to, or rounding decides them."""
        rounding = extent(b + c) * extent(c - b) + extent(c + a) * extent(a - c) + extent(a + b) * extent(b - a)
        return wp.max(edge_on * rounding * extent(d), smallest)

    @wp.func
    def corners_of(
        i: int,
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        offsets: wp.array(dtype=wp.int64),
    ):
        """The vertices of the face of ray i."""
        face = int(face_index[i])
        offset = int(0)
        if offsets.shape[0] > 0:
            offset = int(offsets[i])
        return offset + int(faces[face, 0]), offset + int(faces[face, 1]), offset + int(faces[face, 2])

    @wp.func
    def seen_from(i: int, i0: int, i1: int, i2: int, vertices: wp.array(dtype=vec3), origins: wp.array(dtype=vec3)):
        """Vertices relative to where ray i starts."""
        o = vec3(real(0.0), real(0.0), real(0.0))
        if origins.shape[0] > 0:
            o = origins[i]
        return vertices[i0] - o, vertices[i1] - o, vertices[i2] - o

    @wp.kernel(module="unique", module_options=OPTIONS)
    def barycentrics(
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        offsets: wp.array(dtype=wp.int64),
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        z_depth: int,
        smallest: real,
        margin: real,
        first: int,
        weights: wp.array(dtype=vec3),
        depths: wp.array(dtype=real),
        front: wp.array(dtype=wp.uint8),
        moves: wp.array(dtype=wp.uint8),
    ):
        """Barycentrics and depth of a ray on a face, whether that is seen from outside, and whether weights move."""
        i = first + wp.tid()
        i0, i1, i2 = corners_of(i, faces, face_index, offsets)
        a, b, c = seen_from(i, i0, i1, i2, vertices, origins)
        d = directions[i]
        n0 = plane_normal(b, c)
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        w = vec3(dot3(d, n0), dot3(d, n1), dot3(d, n2))
        total = w[0] + w[1] + w[2]
        front[i] = wp.uint8(wp.where(total < real(0.0), 1, 0))
        least = least_total(d, a, b, c, smallest)
        if wp.abs(total) > least:
            w = w / total
        else:  # seen edge-on
            w = vec3(real(1.0) / real(3.0), real(1.0) / real(3.0), real(1.0) / real(3.0))
        outside = outside_of(w, margin)
        moves[i] = wp.uint8(wp.where(wp.abs(total) > least and not outside, 1, 0))
        if outside:
            w = vec3(
                wp.clamp(w[0], real(0.0), real(1.0)),
                wp.clamp(w[1], real(0.0), real(1.0)),
                wp.clamp(w[2], real(0.0), real(1.0)),
            )
            w = w / (w[0] + w[1] + w[2])
        weights[i] = w
        depths[i] = w[0] * measured(a, d, z_depth) + w[1] * measured(b, d, z_depth) + w[2] * measured(c, d, z_depth)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def barycentrics_gradient(
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        offsets: wp.array(dtype=wp.int64),
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        weights: wp.array(dtype=vec3),
        depths: wp.array(dtype=real),
        moves: wp.array(dtype=wp.uint8),
        z_depth: int,
        weight_gradient: wp.array(dtype=vec3),
        depth_gradient: wp.array(dtype=real),
        sums: int,
        first: int,
        corner_gradient: wp.array(dtype=vec3),
        direction_gradient: wp.array(dtype=vec3),
    ):
        """Reverse mode: w_i = 2 d . (v_j x v_k) has dw_i/dv_j = 2 v_k x d and dw_i/dv_k = 2 d x v_j.

        The gradients of corners are added up by vertex from the place `sums` on, or if that is negative, written ray by
        ray.
        """
        i = first + wp.tid()
        i0, i1, i2 = corners_of(i, faces, face_index, offsets)
        a, b, c = seen_from(i, i0, i1, i2, vertices, origins)
        d = directions[i]
        w = weights[i]
        gz = depth_gradient[i]
        n0 = plane_normal(b, c)
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        measure = vec3(real(0.0), real(0.0), real(1.0))
        gd = vec3(real(0.0), real(0.0), real(0.0))
        if z_depth == 0:
            squared = dot3(d, d)
            measure = d / squared
            point = w[0] * a + w[1] * b + w[2] * c
            gd = gz * (point - real(2.0) * depths[i] * d) / squared
        ga = gz * w[0] * measure
        gb = gz * w[1] * measure
        gc = gz * w[2] * measure
        if moves[i] != wp.uint8(0):
            g = weight_gradient[i] + gz * vec3(
                measured(a, d, z_depth), measured(b, d, z_depth), measured(c, d, z_depth)
            )
            mean = wp.dot(g, w)
            total = dot3(d, n0) + dot3(d, n1) + dot3(d, n2)
            h = vec3((g[0] - mean) / total, (g[1] - mean) / total, (g[2] - mean) / total)
            gd += h[0] * n0 + h[1] * n1 + h[2] * n2
            two = real(2.0)
            ga += two * wp.cross(h[2] * b - h[1] * c, d)
            gb += two * wp.cross(h[0] * c - h[2] * a, d)
            gc += two * wp.cross(h[1] * a - h[0] * b, d)
        if sums >= 0:
            corner_gradient[sums + i0] += ga
            corner_gradient[sums + i1] += gb
            corner_gradient[sums + i2] += gc
        else:
            corner_gradient[3 * i] = ga
            corner_gradient[3 * i + 1] = gb
            corner_gradient[3 * i + 2] = gc
        direction_gradient[i] = gd

    return BarycentricKernels(barycentrics, barycentrics_gradient)
