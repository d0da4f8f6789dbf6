"""The Warp kernels of `barycentrics`: one ray and one face each, forward and in reverse mode.

A thread takes `lanes` rays: loads them into local arrays, computes there in a loop without calls and branches, which
the compiler turns into vector instructions, and stores.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .reference import EDGE_ON, EPSILON
from .warp_math import OPTIONS, make_math

HELD = wp.constant(0)  # what follows a point's motion: nothing,
DEPTH_MOVES = wp.constant(1)  # its depth, not its weights,
MOVES = wp.constant(2)  # or both


class BarycentricKernels(NamedTuple):
    """The kernels for one floating-point type."""

    barycentrics: Any
    barycentrics_gradient: Any


@cache
def make_barycentric_kernels(real: Any, lanes: int) -> BarycentricKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, plane_normal, _, extent = make_math(real)
    ray_block = wp.types.matrix((12, lanes), real)  # corners and direction, or the gradients to these
    point_block = wp.types.matrix((4, lanes), real)  # weights and depth
    upstream_block = wp.types.matrix((9, lanes), real)  # these, their gradients, and what moves
    bits = wp.types.vector(lanes, wp.int32)
    options = {**OPTIONS, "max_unroll": 3}  # loops over axes are unrolled, those over lanes are not
    edge_on = wp.constant(real(EDGE_ON * EPSILON[wp.dtype_to_torch(real)]))

    @wp.func
    def measured(p: vec3, d: vec3, z_depth: int):
        """Depth of a point `p` along a ray from the origin with direction `d`."""
        value = p[2]
        if z_depth == 0:
            value = dot3(d, p) / dot3(d, d)
        return value

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
    def load_rays(
        begin: int,
        count: int,
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_index: wp.array(dtype=wp.int64),
        offsets: wp.array(dtype=wp.int64),
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
    ):
        """Vertices relative to where the rays start, and directions; the last ray again for lanes that have none."""
        rays = ray_block()
        for lane in range(lanes):
            i = wp.min(begin + lane, count - 1)
            i0, i1, i2 = corners_of(i, faces, face_index, offsets)
            o = vec3(real(0.0), real(0.0), real(0.0))
            if origins.shape[0] > 0:
                o = origins[i]
            a = vertices[i0] - o
            b = vertices[i1] - o
            c = vertices[i2] - o
            d = directions[i]
            for axis in range(3):
                rays[axis, lane] = a[axis]
                rays[3 + axis, lane] = b[axis]
                rays[6 + axis, lane] = c[axis]
                rays[9 + axis, lane] = d[axis]
        return rays

    @wp.kernel(module="unique", module_options=options)
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
        held: wp.array(dtype=wp.uint8),
        hold_backs: int,
        first: int,
        weights: wp.array(dtype=vec3),
        depths: wp.array(dtype=real),
        front: wp.array(dtype=wp.uint8),
        moves: wp.array(dtype=wp.uint8),
    ):
        """Barycentrics and depth of a ray on a face, whether that is seen from outside, and what of them moves."""
        begin = (first + wp.tid()) * lanes
        count = face_index.shape[0]
        rays = load_rays(begin, count, vertices, faces, face_index, offsets, origins, directions)
        points = point_block()
        is_front = bits()
        is_moving = bits()
        zero = real(0.0)
        one = real(1.0)
        for lane in range(lanes):
            a = vec3(rays[0, lane], rays[1, lane], rays[2, lane])
            b = vec3(rays[3, lane], rays[4, lane], rays[5, lane])
            c = vec3(rays[6, lane], rays[7, lane], rays[8, lane])
            d = vec3(rays[9, lane], rays[10, lane], rays[11, lane])
            w0 = dot3(d, plane_normal(b, c))
            w1 = dot3(d, plane_normal(c, a))
            w2 = dot3(d, plane_normal(a, b))
            total = w0 + w1 + w2
            sure = wp.abs(total) > least_total(d, a, b, c, smallest)  # else seen edge-on
            third = one / real(3.0)
            w0 = wp.where(sure, w0 / total, third)
            w1 = wp.where(sure, w1 / total, third)
            w2 = wp.where(sure, w2 / total, third)
            outside = wp.min(wp.min(w0, w1), w2) < -margin or wp.max(wp.max(w0, w1), w2) > one + margin
            c0 = wp.clamp(w0, zero, one)
            c1 = wp.clamp(w1, zero, one)
            c2 = wp.clamp(w2, zero, one)
            clamped = c0 + c1 + c2
            w0 = wp.where(outside, c0 / clamped, w0)
            w1 = wp.where(outside, c1 / clamped, w1)
            w2 = wp.where(outside, c2 / clamped, w2)
            points[0, lane] = w0
            points[1, lane] = w1
            points[2, lane] = w2
            points[3, lane] = w0 * measured(a, d, z_depth) + w1 * measured(b, d, z_depth) + w2 * measured(c, d, z_depth)
            is_front[lane] = wp.where(total < zero, 1, 0)
            is_moving[lane] = wp.where(sure and not outside, MOVES, DEPTH_MOVES)
        for lane in range(wp.min(lanes, count - begin)):
            weights[begin + lane] = vec3(points[0, lane], points[1, lane], points[2, lane])
            depths[begin + lane] = points[3, lane]
            front[begin + lane] = wp.uint8(is_front[lane])
            moving = is_moving[lane]
            if hold_backs != 0 and is_front[lane] == 0:
                moving = HELD
            if held.shape[0] > 0 and held[begin + lane] != wp.uint8(0):
                moving = HELD
            moves[begin + lane] = wp.uint8(moving)

    @wp.kernel(module="unique", module_options=options)
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
        ray. Where nobody asks for those of directions, there is no room for them.
        """
        begin = (first + wp.tid()) * lanes
        count = face_index.shape[0]
        found = int(0)
        for lane in range(wp.min(lanes, count - begin)):
            found += int(moves[begin + lane])
        if found == 0:  # all are held
            for lane in range(wp.min(lanes, count - begin)):
                if sums < 0:
                    for corner in range(3):
                        corner_gradient[3 * (begin + lane) + corner] = vec3(real(0.0))
                if direction_gradient.shape[0] > 0:
                    direction_gradient[begin + lane] = vec3(real(0.0))
            return
        rays = load_rays(begin, count, vertices, faces, face_index, offsets, origins, directions)
        points = upstream_block()
        for lane in range(lanes):
            i = wp.min(begin + lane, count - 1)
            w = weights[i]
            g = weight_gradient[i]
            for axis in range(3):
                points[axis, lane] = w[axis]
                points[4 + axis, lane] = g[axis]
            points[3, lane] = depths[i]
            points[7, lane] = depth_gradient[i]
            points[8, lane] = real(moves[i])
        gradients = ray_block()
        zero = real(0.0)
        two = real(2.0)
        ahead = wp.where(z_depth == 0, zero, real(1.0))
        for lane in range(lanes):
            a = vec3(rays[0, lane], rays[1, lane], rays[2, lane])
            b = vec3(rays[3, lane], rays[4, lane], rays[5, lane])
            c = vec3(rays[6, lane], rays[7, lane], rays[8, lane])
            d = vec3(rays[9, lane], rays[10, lane], rays[11, lane])
            w = vec3(points[0, lane], points[1, lane], points[2, lane])
            gz = wp.where(points[8, lane] == real(HELD), zero, points[7, lane])
            moving = points[8, lane] == real(MOVES)
            n0 = plane_normal(b, c)
            n1 = plane_normal(c, a)
            n2 = plane_normal(a, b)
            along = wp.where(z_depth == 0, real(1.0) / dot3(d, d), zero)  # the depth of a point p is p . measure
            m0 = along * d[0]
            m1 = along * d[1]
            m2 = along * d[2] + ahead
            g0 = points[4, lane] + gz * measured(a, d, z_depth)
            g1 = points[5, lane] + gz * measured(b, d, z_depth)
            g2 = points[6, lane] + gz * measured(c, d, z_depth)
            mean = g0 * w[0] + g1 * w[1] + g2 * w[2]
            total = dot3(d, n0) + dot3(d, n1) + dot3(d, n2)
            h0 = (g0 - mean) / total
            h1 = (g1 - mean) / total
            h2 = (g2 - mean) / total
            ga = wp.cross(h2 * b - h1 * c, d)
            gb = wp.cross(h0 * c - h2 * a, d)
            gc = wp.cross(h1 * a - h0 * b, d)
            through = h0 * n0 + h1 * n1 + h2 * n2
            point = w[0] * a + w[1] * b + w[2] * c
            stretch = gz * along
            twice = two * points[3, lane]
            gradients[0, lane] = gz * w[0] * m0 + wp.where(moving, two * ga[0], zero)
            gradients[1, lane] = gz * w[0] * m1 + wp.where(moving, two * ga[1], zero)
            gradients[2, lane] = gz * w[0] * m2 + wp.where(moving, two * ga[2], zero)
            gradients[3, lane] = gz * w[1] * m0 + wp.where(moving, two * gb[0], zero)
            gradients[4, lane] = gz * w[1] * m1 + wp.where(moving, two * gb[1], zero)
            gradients[5, lane] = gz * w[1] * m2 + wp.where(moving, two * gb[2], zero)
            gradients[6, lane] = gz * w[2] * m0 + wp.where(moving, two * gc[0], zero)
            gradients[7, lane] = gz * w[2] * m1 + wp.where(moving, two * gc[1], zero)
            gradients[8, lane] = gz * w[2] * m2 + wp.where(moving, two * gc[2], zero)
            gradients[9, lane] = stretch * (point[0] - twice * d[0]) + wp.where(moving, through[0], zero)
            gradients[10, lane] = stretch * (point[1] - twice * d[1]) + wp.where(moving, through[1], zero)
            gradients[11, lane] = stretch * (point[2] - twice * d[2]) + wp.where(moving, through[2], zero)
        for lane in range(wp.min(lanes, count - begin)):
            i = begin + lane
            ga = vec3(gradients[0, lane], gradients[1, lane], gradients[2, lane])
            gb = vec3(gradients[3, lane], gradients[4, lane], gradients[5, lane])
            gc = vec3(gradients[6, lane], gradients[7, lane], gradients[8, lane])
            if sums >= 0 and points[8, lane] != real(HELD):
                i0, i1, i2 = corners_of(i, faces, face_index, offsets)
                corner_gradient[sums + i0] += ga
                corner_gradient[sums + i1] += gb
                corner_gradient[sums + i2] += gc
            elif sums < 0:
                corner_gradient[3 * i] = ga
                corner_gradient[3 * i + 1] = gb
                corner_gradient[3 * i + 2] = gc
            if direction_gradient.shape[0] > 0:
                direction_gradient[i] = vec3(gradients[9, lane], gradients[10, lane], gradients[11, lane])

    return BarycentricKernels(barycentrics, barycentrics_gradient)
