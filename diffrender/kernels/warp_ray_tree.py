"""The Warp kernel of visibility for any camera: faces down a tree of rays.

One source for the CPU and CUDA, float32 and float64. What a ray meets is in `warp_hits`.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .reference import EPSILON
from .warp_hits import make_hits
from .warp_math import OPTIONS, make_math, make_within_copy

MARGIN = 1e-4  # around unit directions to a face: far above rounding, and costs hardly a box more


class RayTreeKernels(NamedTuple):
    """The kernel for one floating-point type."""

    first_hit: Any


@cache
def make_ray_tree_kernels(real: Any) -> RayTreeKernels:
    """The kernel for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    _, vec3, dot3, plane_normal, _, _ = make_math(real)
    within_copy = make_within_copy()
    _, at_any_edge, certainly, _, _, passes_through, depth_along, keep_first = make_hits(real)
    box6 = wp.types.vector(6, real)
    margin = wp.constant(real(MARGIN))
    epsilon = wp.constant(real(EPSILON[wp.dtype_to_torch(real)]))

    @wp.func
    def reaches(center: vec3, half: vec3, n: vec3, sign: real, extra: real):
        """Whether a direction in the box can lie on the `sign` side of the plane n; slack bounds the rounding."""
        reach = dot3(half, wp.abs(n)) + extra
        slack = real(16.0) * epsilon * (dot3(wp.abs(center), wp.abs(n)) + reach)
        return sign * dot3(center, n) + reach + slack >= real(0.0)

    @wp.func
    def unit_bounds(a: vec3, b: vec3, c: vec3, spread: real):
        """The least and the largest coordinates of unit directions, from near the origin, to all points of a triangle.

        Unit corners span a triangle no point of which is nearer to the origin than the corners are along their middle:
        so far, at most, unit directions bulge out of the box around the corners. Those from a place not further than
        `spread` from the origin are turned by no more than twice that over the distance.
        """
        p = wp.normalize(a)
        q = wp.normalize(b)
        r = wp.normalize(c)
        middle = wp.normalize(p + q + r)
        nearest = wp.min(wp.min(dot3(p, middle), dot3(q, middle)), dot3(r, middle))
        bounds = box6(real(-2.0), real(-2.0), real(-2.0), real(2.0), real(2.0), real(2.0))
        if nearest > real(0.1):  # otherwise it is all around, or has a corner in the origin
            distance = nearest * wp.min(wp.min(wp.length(a), wp.length(b)), wp.length(c))
            room = margin + real(2.0) * spread / distance
            for axis in range(3):
                low = wp.min(wp.min(p[axis], q[axis]), r[axis])
                high = wp.max(wp.max(p[axis], q[axis]), r[axis])
                bounds[axis] = wp.min(low, low / nearest) - room
                bounds[axis + 3] = wp.max(high, high / nearest) + room
        return bounds

    @wp.func
    def apart(center: vec3, half: vec3, bounds: box6):
        """Whether a box of directions has nothing in common with `unit_bounds`."""
        return (
            center[0] + half[0] < bounds[0]
            or center[1] + half[1] < bounds[1]
            or center[2] + half[2] < bounds[2]
            or center[0] - half[0] > bounds[3]
            or center[1] - half[1] > bounds[4]
            or center[2] - half[2] > bounds[5]
        )

    @wp.func
    def moment_slack(moment: vec3, a: vec3, b: vec3):
        """Bound on the rounding of w written with moments, where the rays do not start in the origin."""
        return real(64.0) * epsilon * wp.length(b - a) * (wp.length(moment) + wp.length(a) + wp.length(b))

    @wp.kernel(module="unique", module_options=OPTIONS)
    def first_hit(
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_edges: wp.array2d(dtype=wp.int64),
        face_view: wp.array(dtype=wp.int32),
        vertex_stride: int,
        slots: wp.array(dtype=wp.int64),
        num_slots: int,
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        skip_edge: wp.array(dtype=wp.int64),
        skip_faces: wp.array2d(dtype=wp.int64),
        edges: wp.array2d(dtype=wp.int64),
        beside: wp.array(dtype=vec3),
        limits: wp.array(dtype=real),
        centers: wp.array(dtype=vec3),
        halves: wp.array(dtype=vec3),
        moment_centers: wp.array(dtype=vec3),
        moment_halves: wp.array(dtype=vec3),
        reach: wp.array(dtype=real),
        level_start: wp.array(dtype=wp.int32),
        level_count: wp.array(dtype=wp.int32),
        top: int,
        central: int,
        z_depth: int,
        cull: int,
        parts: int,
        first: int,
        first_node: int,
        nodes: int,
        mode: int,
        depths: wp.array(dtype=real),
        hits: wp.array(dtype=wp.int32),
    ):
        """Face by face down the tree of rays: boxes of directions (and moments) a face cannot reach are skipped."""
        item = wp.tid()
        part = int(0)
        if parts > 1:
            part = item % parts
            item = item // parts
        face, copy = within_copy(first + item, faces.shape[0])
        view = copy
        if vertex_stride == 0:
            view = face_view[face]
        a = vertices[copy * vertex_stride + int(faces[face, 0])]
        b = vertices[copy * vertex_stride + int(faces[face, 1])]
        c = vertices[copy * vertex_stride + int(faces[face, 2])]
        n0 = plane_normal(b, c)
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        # All rays start within `spread` of `start`: do they see one side of the face?
        start = vec3(reach[0], reach[1], reach[2])
        spread = reach[3]
        determinant = dot3(a - start, plane_normal(b - start, c - start))
        certain = certainly(determinant, a - start, plane_normal(b - start, c - start))
        if central == 0:
            certain = certain and wp.abs(determinant) > real(2.01) * spread * wp.length(wp.cross(b - a, c - a))
        if cull != 0 and certain and determinant > real(0.0):
            return
        positive = not certain or determinant > real(0.0)
        negative = not certain or determinant < real(0.0)

        bounds = unit_bounds(a - start, b - start, c - start, spread)
        edge_bound = at_any_edge(a, b, c, real(0.0))
        level = top
        node = first_node + part * nodes
        last = wp.min(node + nodes, level_count[top])
        boxes = view * level_start[level_count.shape[0]]
        while level < top or node < last:
            box = boxes + level_start[level] + node
            center = centers[box]
            half = halves[box]
            e0 = real(0.0)
            e1 = real(0.0)
            e2 = real(0.0)
            f0 = real(0.0)
            f1 = real(0.0)
            f2 = real(0.0)
            if central == 0:  # w = d . n + 2 (o x d) . (b - a): the moments o x d have a box of their own
                mc = moment_centers[box]
                mh = moment_halves[box]
                e0 = real(2.0) * dot3(mc, c - b)
                e1 = real(2.0) * dot3(mc, a - c)
                e2 = real(2.0) * dot3(mc, b - a)
                f0 = real(2.0) * dot3(mh, wp.abs(c - b)) + moment_slack(mc, b, c)
                f1 = real(2.0) * dot3(mh, wp.abs(a - c)) + moment_slack(mc, c, a)
                f2 = real(2.0) * dot3(mh, wp.abs(b - a)) + moment_slack(mc, a, b)
            overlap = half[0] >= real(0.0) and not apart(center, half, bounds)
            if overlap:
                inside = positive
                if inside:
                    inside = (
                        reaches(center, half, n0, real(1.0), f0 + e0)
                        and reaches(center, half, n1, real(1.0), f1 + e1)
                        and reaches(center, half, n2, real(1.0), f2 + e2)
                    )
                overlap = inside
                if not inside and negative:
                    overlap = (
                        reaches(center, half, n0, real(-1.0), f0 - e0)
                        and reaches(center, half, n1, real(-1.0), f1 - e1)
                        and reaches(center, half, n2, real(-1.0), f2 - e2)
                    )
            if overlap and level > 0:
                level -= 1
                node *= 4
            else:
                if overlap:
                    for place in range(node * 4, wp.min(node * 4 + 4, num_slots)):
                        ray = int(slots[view * num_slots + place])
                        if ray >= 0 and not passes_through(ray, face, face_edges, skip_edge, skip_faces):
                            depth = depth_along(
                                ray, face, a, b, c, n0, n1, n2, edge_bound, origins, directions, face_edges,
                                skip_edge, edges, beside, limits, central, z_depth, cull,
                            )  # fmt: skip
                            if depth > real(0.0):
                                keep_first(depth, face, ray, mode, depths, hits)
                node += 1
                while level < top and (node % 4 == 0 or node >= level_count[level]):
                    node = (node + 3) // 4
                    level += 1

    return RayTreeKernels(first_hit)
