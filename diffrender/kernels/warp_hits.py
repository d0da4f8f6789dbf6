"""A ray and a triangle: where they meet, what a ray passes through, and which hit is the first.

Seen from the start of a ray, the side (a, b) of a triangle spans a plane with the normal n = (a + b) x (b - a) =
2 a x b, and the sign of w = d . n tells on which side of it the ray's direction d passes. The form with sum and
difference is antisymmetric in a and b to the last bit, so that two faces that share a side never both win nor both
lose a ray; it also loses far fewer digits than a x b when the triangle is small and far away. A ray exactly in that
plane (w = 0) is pushed by an infinitesimal step to the right, then down, then forward: the signs of the components
of n decide. The three w of a triangle, normalized, are its barycentrics (Olano & Greer 1997 for affine pixels), and
the depth is their convex combination of the depths of its corners: no division by a vanishing determinant.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .reference import AT_EDGE, EPSILON
from .warp_math import make_math

WRITE_FIRST_HIT = wp.constant(0)  # one thread owns the pixel: depth and face in one go
WRITE_DEPTH = wp.constant(1)  # many threads may meet in a pixel: least depth first ...
WRITE_FACE = wp.constant(2)  # ... then the lowest face at that depth


class Hits(NamedTuple):
    """What the kernels of visibility share, for one floating-point type."""

    hit_depth: Any
    at_any_edge: Any
    certainly: Any
    turns_away: Any
    least_depth: Any
    passes_through: Any
    depth_along: Any
    keep_first: Any


@cache
def make_hits(real: Any) -> Hits:
    """The functions for `real` (`wp.float32` or `wp.float64`)."""
    vec2, vec3, dot3, plane_normal, side_sign, extent = make_math(real)
    epsilon = wp.constant(real(EPSILON[wp.dtype_to_torch(real)]))
    at_edge_epsilon = wp.constant(real(AT_EDGE * EPSILON[wp.dtype_to_torch(real)]))

    @wp.func
    def hit_depth(d: vec3, g: vec3, n0: vec3, n1: vec3, n2: vec3, a: vec3, b: vec3, c: vec3, cull: int):
        """Depth along the ray where it meets the triangle, or -1; `g` measures the depth of a point."""
        w0 = dot3(d, n0)
        w1 = dot3(d, n1)
        w2 = dot3(d, n2)
        depth = real(-1.0)
        if wp.min(wp.min(w0, w1), w2) >= real(0.0) or wp.max(wp.max(w0, w1), w2) <= real(0.0):
            sign = side_sign(w0, n0)
            if sign != 0 and sign == side_sign(w1, n1) and sign == side_sign(w2, n2) and (cull == 0 or sign < 0):
                total = (w0 + w1) + w2
                if total != real(0.0):
                    depth = ((w0 * dot3(g, a) + w1 * dot3(g, b)) + w2 * dot3(g, c)) / total
        return depth

    @wp.func
    def at_edge(d: vec3, p: vec3, q: vec3, start: real):
        """How large `d . plane_normal(p, q)` may be if the ray passes through the edge, but for rounding of p and q.

        Which are from the start of the ray, and that has been subtracted: `start` is twice its extent."""
        return at_edge_epsilon * (extent(p + q) + start) * extent(wp.cross(d, q - p))

    @wp.func
    def at_any_edge(a: vec3, b: vec3, c: vec3, start: real):
        """More than `at_edge` of all three sides, as a multiple of the direction's extent."""
        largest = wp.max((extent(b + c) + start) * extent(c - b), (extent(c + a) + start) * extent(a - c))
        return real(1.01) * at_edge_epsilon * wp.max(largest, (extent(a + b) + start) * extent(b - a))

    @wp.func
    def nudged_sign(w: real, bound: real, nudge: real):
        """Sign of `w`, or if rounding could have made it, of `nudge`."""
        return wp.sign(wp.where(wp.abs(w) <= bound, nudge, w))

    @wp.func
    def hits_beside(
        d: vec3, g: vec3, u: vec3, n0: vec3, n1: vec3, n2: vec3, a: vec3, b: vec3, c: vec3, start: real,
        edge_bound: real, cull: int,
    ):  # fmt: skip
        """Depths where the ray meets the triangle, or -1; where it passes through edges, nudged along `u`, or back."""
        w0 = dot3(d, n0)
        w1 = dot3(d, n1)
        w2 = dot3(d, n2)
        hits = vec2(real(-1.0), real(-1.0))
        total = (w0 + w1) + w2
        sign = wp.sign(total)
        # Most rays are clearly outside of one edge; the bounds are asked for one by one, as they cost most here.
        if cull != 0 and sign >= real(0.0):
            return hits
        if wp.min(sign * w0, wp.min(sign * w1, sign * w2)) < -edge_bound * extent(d):
            return hits
        b0 = at_edge(d, b, c, start)
        if wp.abs(w0) > b0 and wp.sign(w0) != sign:
            return hits
        b1 = at_edge(d, c, a, start)
        if wp.abs(w1) > b1 and wp.sign(w1) != sign:
            return hits
        b2 = at_edge(d, a, b, start)
        if wp.abs(w2) > b2 and wp.sign(w2) != sign:
            return hits
        # Otherwise seen edge-on: there is nothing to meet beside it.
        if wp.abs(total) > (b0 + b1) + b2:
            s0 = wp.where(wp.abs(w0) <= b0, dot3(u, n0), real(0.0))
            s1 = wp.where(wp.abs(w1) <= b1, dot3(u, n1), real(0.0))
            s2 = wp.where(wp.abs(w2) <= b2, dot3(u, n2), real(0.0))
            depth = ((w0 * dot3(g, a) + w1 * dot3(g, b)) + w2 * dot3(g, c)) / total
            if nudged_sign(w0, b0, s0) == sign and nudged_sign(w1, b1, s1) == sign and nudged_sign(w2, b2, s2) == sign:
                hits[0] = depth
            if (
                nudged_sign(w0, b0, -s0) == sign
                and nudged_sign(w1, b1, -s1) == sign
                and nudged_sign(w2, b2, -s2) == sign
            ):
                hits[1] = depth
        return hits

    @wp.func
    def certainly(determinant: real, a: vec3, n0: vec3):
        """Whether rounding cannot have made the sign of `a . n0`, which is that of all w of rays from the origin."""
        return wp.abs(determinant) > real(32.0) * epsilon * (
            wp.abs(a[0] * n0[0]) + wp.abs(a[1] * n0[1]) + wp.abs(a[2] * n0[2])
        )

    @wp.func
    def turns_away(a: vec3, n0: vec3):
        """Whether a face is certainly seen from behind by all rays from the origin."""
        determinant = dot3(a, n0)
        return determinant > real(0.0) and certainly(determinant, a, n0)

    @wp.func
    def least_depth(a: vec3, b: vec3, c: vec3):
        """No depth of the triangle along z is less, also rounded."""
        nearest = wp.min(wp.min(a[2], b[2]), c[2])
        return nearest - real(16.0) * epsilon * wp.max(wp.max(wp.abs(a[2]), wp.abs(b[2])), wp.abs(c[2]))

    @wp.func
    def passes_through(
        ray: int,
        face: int,
        face_edges: wp.array2d(dtype=wp.int64),
        skip_edge: wp.array(dtype=wp.int64),
        skip_faces: wp.array2d(dtype=wp.int64),
    ):
        """Whether a ray ignores a face: one at the edge that the ray goes through, or one of two given faces."""
        through = bool(False)
        if skip_edge.shape[0] > ray:
            edge = skip_edge[ray]
            through = edge >= wp.int64(0) and (
                face_edges[face, 0] == edge or face_edges[face, 1] == edge or face_edges[face, 2] == edge
            )
        if skip_faces.shape[0] > ray:
            through = through or skip_faces[ray, 0] == wp.int64(face) or skip_faces[ray, 1] == wp.int64(face)
        return through

    @wp.func
    def touches(face: int, edge: wp.int64, face_edges: wp.array2d(dtype=wp.int64), edges: wp.array2d(dtype=wp.int64)):
        """Whether a face has a vertex in common with an edge."""
        common = bool(False)
        for side in range(3):
            other = face_edges[face, side]
            if other >= wp.int64(0):
                for end in range(2):
                    vertex = edges[other, end]
                    common = common or vertex == edges[edge, 0] or vertex == edges[edge, 1]
        return common

    @wp.func
    def depth_beside(
        hits: vec2,
        limit: real,
        face: int,
        edge: wp.int64,
        face_edges: wp.array2d(dtype=wp.int64),
        edges: wp.array2d(dtype=wp.int64),
    ):
        """Which of the depths of `hits_beside` counts, or -1.

        What ends exactly at an edge of another surface, and is nearer, hides it: one outline is enough. Not so what
        shares a vertex with it, where a narrow face may seem to end within rounding.
        """
        depth = hits[0]
        if depth <= real(0.0) and hits[1] > real(0.0) and hits[1] < limit and edge >= wp.int64(0):  # noqa: SIM102
            if not touches(face, edge, face_edges, edges):
                depth = hits[1]
        return depth

    @wp.func
    def depth_along(
        ray: int,
        face: int,
        a: vec3,
        b: vec3,
        c: vec3,
        n0: vec3,
        n1: vec3,
        n2: vec3,
        edge_bound: real,
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        face_edges: wp.array2d(dtype=wp.int64),
        skip_edge: wp.array(dtype=wp.int64),
        edges: wp.array2d(dtype=wp.int64),
        beside: wp.array(dtype=vec3),
        limits: wp.array(dtype=real),
        central: int,
        z_depth: int,
        cull: int,
    ):
        """Depth where a single ray meets the triangle, or -1; `n0`, `n1` and `n2` are its planes from the origin.

        And `edge_bound` is `at_any_edge` of it."""
        d = directions[ray]
        g = vec3(real(0.0), real(0.0), real(1.0))
        if z_depth == 0:
            g = d / dot3(d, d)
        start = real(0.0)
        if central == 0:
            o = origins[ray]
            start = real(2.0) * extent(o)
            a = a - o
            b = b - o
            c = c - o
            n0 = plane_normal(b, c)
            n1 = plane_normal(c, a)
            n2 = plane_normal(a, b)
            edge_bound = at_any_edge(a, b, c, start)
        depth = real(-1.0)
        if beside.shape[0] > ray:
            hits = hits_beside(d, g, beside[ray], n0, n1, n2, a, b, c, start, edge_bound, cull)
            depth = depth_beside(hits, limits[ray], face, skip_edge[ray], face_edges, edges)
        else:
            depth = hit_depth(d, g, n0, n1, n2, a, b, c, cull)
        return depth

    @wp.func
    def keep_first(
        depth: real, face: int, slot: int, mode: int, depths: wp.array(dtype=real), hits: wp.array(dtype=wp.int32)
    ):
        """Least depth wins, then the lowest face; written so that the order of the faces does not matter."""
        if mode == WRITE_FIRST_HIT:
            old = depths[slot]
            if depth < old or (depth == old and face < hits[slot]):
                depths[slot] = depth
                hits[slot] = face
        elif mode == WRITE_DEPTH:
            wp.atomic_min(depths, slot, depth)
        elif depth == depths[slot]:
            wp.atomic_min(hits, slot, face)

    return Hits(hit_depth, at_any_edge, certainly, turns_away, least_depth, passes_through, depth_along, keep_first)
