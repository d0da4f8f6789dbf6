"""The Warp kernels of curves: where faces pass through each other, and what is seen on the two sides of that."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import torch
import warp as wp

from .reference import EPSILON
from .warp_math import OPTIONS, make_math

PLANE_ROUNDING = 8  # epsilons: rounding of the distance between two points across a plane, relative to all that enters
BOX_SLACK = 1e-6  # of the size of what meets: a face may be flat, and its box needs room for rounding then


class CurveKernels(NamedTuple):
    """The kernels for one floating-point type."""

    meeting_points: Any
    meeting_points_gradient: Any
    curve_sides: Any


@cache
def make_curve_kernels(real: Any) -> CurveKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, *_ = make_math(real)
    # There are few of these points, and float32 far away from the origin has few digits to spare.
    exact = wp.float64
    wide3 = wp.types.vector(3, exact)
    tiny = wp.constant(exact(torch.finfo(torch.float64).tiny))
    smallest = wp.constant(real(torch.finfo(wp.dtype_to_torch(real)).tiny))
    rounding = wp.constant(exact(PLANE_ROUNDING * EPSILON[wp.dtype_to_torch(real)]))

    @wp.func
    def widened(v: vec3):
        return wide3(exact(v[0]), exact(v[1]), exact(v[2]))

    @wp.func
    def narrowed(v: wide3):
        return vec3(real(v[0]), real(v[1]), real(v[2]))

    @wp.func
    def relative(
        i: int,
        vertices: wp.array(dtype=vec3),
        sides: wp.array2d(dtype=wp.int64),
        corners: wp.array2d(dtype=wp.int64),
    ):
        """The ends of a side and two corners of a face, from its other corner, in units of the largest of them."""
        origin = widened(vertices[corners[i, 0]])
        p = widened(vertices[sides[i, 0]]) - origin
        q = widened(vertices[sides[i, 1]]) - origin
        u = widened(vertices[corners[i, 1]]) - origin
        v = widened(vertices[corners[i, 2]]) - origin
        size = exact(tiny)  # products of three lengths have to stay within the range of the type
        for axis in range(3):
            size = wp.max(
                size, wp.max(wp.max(wp.abs(p[axis]), wp.abs(q[axis])), wp.max(wp.abs(u[axis]), wp.abs(v[axis])))
            )
        return p / size, q / size, u / size, v / size

    @wp.func
    def shared(p: wide3, q: wide3, u: wide3, v: wide3):
        """Where a side passes through the plane of a face, from 0 to 1; and whether it says so itself, 1 or 0.

        Where rounding decides about that, because the side lies in the plane, it is the middle of what the box around
        the face holds of it.
        """
        along = q - p
        normal = wp.cross(u, v)
        before = wp.dot(normal, p)
        across = before - wp.dot(normal, q)
        enter = -exact(wp.inf)
        leave = exact(wp.inf)
        for axis in range(3):
            if along[axis] != exact(0.0):
                low = wp.min(wp.min(u[axis], v[axis]), exact(0.0)) - exact(BOX_SLACK)
                high = wp.max(wp.max(u[axis], v[axis]), exact(0.0)) + exact(BOX_SLACK)
                one = (low - p[axis]) / along[axis]
                two = (high - p[axis]) / along[axis]
                enter = wp.max(enter, wp.min(one, two))
                leave = wp.min(leave, wp.max(one, two))
        enter = wp.clamp(enter, exact(0.0), exact(1.0))
        leave = wp.clamp(leave, exact(0.0), exact(1.0))
        share = exact(0.5) * (enter + leave)
        moves = exact(0.0)
        if wp.abs(across) > rounding * wp.length(u) * wp.length(v) * (wp.length(p) + wp.length(q)):
            share = before / across
            moves = wp.where(share > enter and share < leave, exact(1.0), exact(0.0))
        return wp.min(wp.max(share, enter), leave), moves

    @wp.kernel(module="unique", module_options=OPTIONS)
    def meeting_points(
        vertices: wp.array(dtype=vec3),
        sides: wp.array2d(dtype=wp.int64),
        corners: wp.array2d(dtype=wp.int64),
        first: int,
        points: wp.array(dtype=vec3),
    ):
        """Where sides meet the planes of faces."""
        i = first + wp.tid()
        p, q, u, v = relative(i, vertices, sides, corners)
        share, _moves = shared(p, q, u, v)
        start = widened(vertices[sides[i, 0]])
        points[i] = narrowed(start + share * (widened(vertices[sides[i, 1]]) - start))

    @wp.kernel(module="unique", module_options=OPTIONS)
    def meeting_points_gradient(
        vertices: wp.array(dtype=vec3),
        sides: wp.array2d(dtype=wp.int64),
        corners: wp.array2d(dtype=wp.int64),
        gradients: wp.array(dtype=vec3),
        first: int,
        of_sides: wp.array2d(dtype=vec3),
        of_corners: wp.array2d(dtype=vec3),
    ):
        """The point moves as its side does, and along it to where that meets the plane, as that moves at the point."""
        i = first + wp.tid()
        p, q, u, v = relative(i, vertices, sides, corners)
        share, moves = shared(p, q, u, v)
        along = q - p
        normal = wp.cross(u, v)
        upstream = widened(gradients[i])
        push = wide3(exact(0.0))  # on the plane
        if moves != exact(0.0):
            push = normal * (wp.dot(upstream, along) / wp.dot(normal, along))
        x = p + share * along
        square = wp.max(wp.dot(normal, normal), tiny)
        second = wp.dot(normal, wp.cross(x, v)) / square
        third = wp.dot(normal, wp.cross(u, x)) / square
        of_sides[i, 0] = narrowed((exact(1.0) - share) * (upstream - push))
        of_sides[i, 1] = narrowed(share * (upstream - push))
        of_corners[i, 0] = narrowed((exact(1.0) - second - third) * push)
        of_corners[i, 1] = narrowed(second * push)
        of_corners[i, 2] = narrowed(third * push)

    @wp.func
    def is_near(start: vec3, along: vec3, point: vec3, ray: vec3, normal: vec3, alongside: real, touching: real):
        """Whether an edge is at a point, but for `alongside` of its length, and, along the ray, on the plane beside it.

        How far it is behind or before the plane is counted in units of the ray's length.
        """
        square = wp.max(dot3(along, along), smallest)
        share = wp.clamp(dot3(point - start, along) / square, real(0.0), real(1.0))
        apart = start + share * along - point
        gap = wp.abs(dot3(apart, normal)) / wp.abs(dot3(ray, normal))
        return dot3(apart, apart) < alongside * alongside * square and gap < touching

    @wp.kernel(module="unique", module_options=OPTIONS)
    def curve_sides(
        ends: wp.array2d(dtype=vec3),
        views: wp.array(dtype=wp.int64),
        crossing: wp.array2d(dtype=wp.int64),
        rays: wp.array(dtype=vec3),
        central: int,
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        vertex_stride: wp.int64,
        face_edges: wp.array2d(dtype=wp.int64),
        edges: wp.array2d(dtype=wp.int64),
        candidates: wp.array(dtype=wp.uint8),
        edge_stride: wp.int64,
        cull: int,
        alongside: real,
        touching: real,
        first: int,
        left: wp.array(dtype=wp.int64),
        right: wp.array(dtype=wp.int64),
        seen: wp.array(dtype=wp.uint8),
    ):
        """The face in front on each side of a curve, and whether it can be seen, and is not that of an edge anyway."""
        i = first + wp.tid()
        view = views[i]
        offset = view * vertex_stride
        row = i % crossing.shape[0]
        start = ends[i, 0]
        end = ends[i, 1]
        ray = real(0.5) * (start + end)
        if central == 0:
            ray = rays[i]
        face0 = crossing[row, 0]
        face1 = crossing[row, 1]
        a = vertices[offset + faces[face0, 0]]
        normal0 = wp.cross(vertices[offset + faces[face0, 1]] - a, vertices[offset + faces[face0, 2]] - a)
        a = vertices[offset + faces[face1, 0]]
        normal1 = wp.cross(vertices[offset + faces[face1, 1]] - a, vertices[offset + faces[face1, 2]] - a)

        # Left of the line the face is in front whose depth grows slowest to the left: see the kernel of `edge_sides`.
        outward = wp.cross(ray, end - start)
        rate0 = dot3(outward, normal0) / dot3(ray, normal0)
        rate1 = dot3(outward, normal1) / dot3(ray, normal1)
        # What is seen exactly edge-on (NaN) is behind.
        swapped = rate1 > rate0 or (rate0 != rate0 and rate1 == rate1)
        left[i] = wp.where(swapped, face1, face0)
        right[i] = wp.where(swapped, face0, face1)

        is_seen = cull == 0 or (dot3(normal0, ray) < real(0.0) and dot3(normal1, ray) < real(0.0))
        for k in range(2):
            face = crossing[row, k]
            other = wp.where(k == 0, normal1, normal0)
            for side in range(3):
                edge = face_edges[face, side]
                candidate = bool(False)
                if is_seen and edge >= wp.int64(0):
                    candidate = candidates[view * edge_stride + edge] != wp.uint8(0)
                if candidate:
                    begin = vertices[offset + edges[edge, 0]]
                    along = vertices[offset + edges[edge, 1]] - begin
                    if is_near(begin, along, start, ray, other, alongside, touching):
                        is_seen = not is_near(begin, along, end, ray, other, alongside, touching)
        seen[i] = wp.uint8(wp.where(is_seen, 1, 0))

    return CurveKernels(meeting_points, meeting_points_gradient, curve_sides)
