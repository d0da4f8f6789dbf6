"""The Warp kernels: which face does a ray meet first? One source for the CPU and CUDA, float32 and float64.

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
from .warp_math import OPTIONS, make_math

WRITE_FIRST_HIT = wp.constant(0)  # one thread owns the pixel: depth and face in one go
WRITE_DEPTH = wp.constant(1)  # many threads may meet in a pixel: least depth first ...
WRITE_FACE = wp.constant(2)  # ... then the lowest face at that depth
FEW_CELLS = wp.constant(4)  # of a face's box of pixels: these are asked one after the other
MOST_CELLS = wp.constant(256)  # so many are asked side by side; of larger boxes parts of rows, one after the other
MARGIN = 1e-4  # around unit directions to a face: far above rounding, and costs hardly a box more


class VisibilityKernels(NamedTuple):
    """The kernels for one floating-point type."""

    project_linear: Any
    rasterize_linear: Any
    first_hit_linear: Any
    first_hit: Any


@cache
def make_visibility_kernels(real: Any, lanes: int) -> VisibilityKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch.

    `lanes`: pixels that a thread computes side by side, in vector instructions.
    """
    vec2, vec3, dot3, plane_normal, side_sign, extent = make_math(real)
    reals, integers = wp.types.vector(lanes, real), wp.types.vector(lanes, wp.int32)
    wide3 = wp.types.vector(3, wp.float64)
    box6 = wp.types.vector(6, real)
    margin = wp.constant(real(MARGIN))
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
    def at_edge(d: vec3, p: vec3, q: vec3):
        """How large `d . plane_normal(p, q)` may be if the ray passes through the edge, but for rounding of p and q."""
        return at_edge_epsilon * extent(p + q) * extent(wp.cross(d, q - p))

    @wp.func
    def at_any_edge(a: vec3, b: vec3, c: vec3):
        """More than `at_edge` of all three sides, as a multiple of the direction's extent."""
        largest = wp.max(extent(b + c) * extent(c - b), extent(c + a) * extent(a - c))
        return real(1.01) * at_edge_epsilon * wp.max(largest, extent(a + b) * extent(b - a))

    @wp.func
    def nudged_sign(w: real, bound: real, nudge: real):
        """Sign of `w`, or if rounding could have made it, of `nudge`."""
        return wp.sign(wp.where(wp.abs(w) <= bound, nudge, w))

    @wp.func
    def hits_beside(
        d: vec3, g: vec3, u: vec3, n0: vec3, n1: vec3, n2: vec3, a: vec3, b: vec3, c: vec3, edge_bound: real, cull: int
    ):
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
        b0 = at_edge(d, b, c)
        if wp.abs(w0) > b0 and wp.sign(w0) != sign:
            return hits
        b1 = at_edge(d, c, a)
        if wp.abs(w1) > b1 and wp.sign(w1) != sign:
            return hits
        b2 = at_edge(d, a, b)
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
        if skip_edge.shape[0] > 0:
            edge = skip_edge[ray]
            through = edge >= wp.int64(0) and (
                face_edges[face, 0] == edge or face_edges[face, 1] == edge or face_edges[face, 2] == edge
            )
        if skip_faces.shape[0] > 0:
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
        if central == 0:
            o = origins[ray]
            a = a - o
            b = b - o
            c = c - o
            n0 = plane_normal(b, c)
            n1 = plane_normal(c, a)
            n2 = plane_normal(a, b)
            edge_bound = at_any_edge(a, b, c)
        depth = real(-1.0)
        if beside.shape[0] > 0:
            hits = hits_beside(d, g, beside[ray], n0, n1, n2, a, b, c, edge_bound, cull)
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

    @wp.kernel(module="unique", module_options=OPTIONS)
    def project_linear(
        vertices: wp.array(dtype=vec3),
        vertex_view: wp.array(dtype=wp.int64),
        vertex_stride: int,
        to_pixels: wp.array2d(dtype=wide3),
        central: int,
        near: wp.float64,
        first: int,
        xy: wp.array(dtype=vec2),
        in_front: wp.array(dtype=wp.uint8),
    ):
        """Pixels of vertices by what the rays of pixels are, and whether they mean anything."""
        i = first + wp.tid()
        view = int(0)
        if vertex_stride == 0:
            view = int(vertex_view[i])
        elif to_pixels.shape[0] > 1:
            view = i // vertex_stride
        v = vertices[i]
        p = wide3(wp.float64(v[0]), wp.float64(v[1]), wp.float64(v[2]))
        w = wp.dot(to_pixels[view, 2], p)
        if central == 0:
            p = p - to_pixels[view, 3]
            w = wp.dot(to_pixels[view, 2], to_pixels[view, 4])
        x = real(wp.dot(to_pixels[view, 0], p) / w)
        y = real(wp.dot(to_pixels[view, 1], p) / w)
        # Behind the camera, or so close to its plane that the pixel means nothing: the box of a face is unknown.
        size = wp.max(wp.max(wp.abs(p[0]), wp.abs(p[1])), wp.float64(1e-6))
        usable = p[2] > near * size and wp.isfinite(x) and wp.isfinite(y)
        xy[i] = vec2(x, y)
        in_front[i] = wp.uint8(wp.where(usable, 1, 0))

    @wp.func
    def box_slack(low: vec2, high: vec2):
        """Projecting rounds by a few epsilon of the coordinate; a sixteenth of a pixel covers offsets like cx."""
        size = (wp.abs(low[0]) + wp.abs(low[1])) + (wp.abs(high[0]) + wp.abs(high[1]))
        return real(0.0625) + real(16.0) * epsilon * size

    @wp.func
    def narrow(low: real, high: real, slope: real, offset: real):
        """The part of [low, high] where slope * x + offset >= 0, widened by one pixel."""
        bound = -offset / slope
        result = vec2(low, high)
        if slope > real(0.0):
            result = vec2(wp.max(low, bound - real(1.0)), high)
        elif slope < real(0.0):
            result = vec2(low, wp.min(high, bound + real(1.0)))
        elif offset < real(0.0):
            result = vec2(real(1.0), real(0.0))
        return result

    @wp.func
    def row_interval(low: real, high: real, start: vec3, step: vec3, n: vec3, sign: real):
        """Narrow [low, high] to the x where the direction start + x * step may lie on the `sign` side of plane n.

        The slack bounds the rounding of the sums by 8 epsilon times the sum of their absolute terms.
        """
        size = wp.abs(high) + wp.abs(low)
        slack = (
            real(8.0)
            * epsilon
            * (
                (wp.abs(start[0]) + size * wp.abs(step[0])) * wp.abs(n[0])
                + (wp.abs(start[1]) + size * wp.abs(step[1])) * wp.abs(n[1])
                + (wp.abs(start[2]) + size * wp.abs(step[2])) * wp.abs(n[2])
            )
        )
        return narrow(low, high, sign * dot3(step, n), sign * dot3(start, n) + slack)

    @wp.kernel(module="unique", module_options={**OPTIONS, "max_unroll": 3})  # not over lanes
    def rasterize_linear(
        vertices: wp.array(dtype=vec3),
        xy: wp.array(dtype=vec2),
        in_front: wp.array(dtype=wp.uint8),
        faces: wp.array2d(dtype=wp.int64),
        face_view: wp.array(dtype=wp.int32),
        vertex_stride: int,
        rays: wp.array2d(dtype=vec3),
        central: int,
        cull: int,
        height: int,
        width: int,
        parts: int,
        first: int,
        row_begin: int,
        row_end: int,
        band: int,
        mode: int,
        depths: wp.array(dtype=real),
        hits: wp.array(dtype=wp.int32),
    ):
        """Face by face over the pixels of one band of rows; rays are affine in the pixel and have direction z = 1."""
        item = wp.tid()
        part = int(0)
        if parts > 1:
            part = item % parts
            item = item // parts
        num_faces = faces.shape[0]
        copy = int(0)
        face = first + item
        if face >= num_faces:  # a division is worth avoiding: most calls have one view, and most faces no pixel
            copy = face // num_faces
            face -= copy * num_faces
        view = copy
        if vertex_stride == 0:
            view = face_view[face]
        i0 = copy * vertex_stride + int(faces[face, 0])
        i1 = copy * vertex_stride + int(faces[face, 1])
        i2 = copy * vertex_stride + int(faces[face, 2])
        front = int(in_front[i0]) + int(in_front[i1]) + int(in_front[i2])
        if front == 0 and central != 0:
            return

        row0 = row_begin + part * band
        row1 = wp.min(row0 + band, row_end) - 1
        col0 = int(0)
        col1 = width - 1
        if front == 3 or central == 0:
            low = wp.min(wp.min(xy[i0], xy[i1]), xy[i2])
            high = wp.max(wp.max(xy[i0], xy[i1]), xy[i2])
            slack = box_slack(low, high)
            half = real(0.5)
            if high[0] + slack < half or high[1] + slack < real(row0) + half:
                return
            if low[0] - slack > real(width) - half or low[1] - slack > real(row1) + half:
                return
            col0 = wp.max(col0, int(wp.ceil(wp.max(low[0] - slack - half, real(0.0)))))
            row0 = wp.max(row0, int(wp.ceil(wp.max(low[1] - slack - half, real(0.0)))))
            col1 = int(wp.floor(wp.min(high[0] + slack - half, real(col1))))
            row1 = int(wp.floor(wp.min(high[1] + slack - half, real(row1))))
            if col0 > col1 or row0 > row1:
                return

        a = vertices[i0]
        b = vertices[i1]
        c = vertices[i2]
        n0 = plane_normal(b, c)
        if cull != 0 and central != 0 and turns_away(a, n0):
            return
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        g = vec3(real(0.0), real(0.0), real(1.0))
        narrowed = bool(False)
        sign = real(1.0)
        if central != 0 and col1 - col0 > 7:
            determinant = dot3(a, n0)
            narrowed = certainly(determinant, a, n0)
            sign = wp.where(determinant > real(0.0), real(1.0), real(-1.0))
        d0 = rays[view, 3]
        dx = rays[view, 4]
        dy = rays[view, 5]
        nearest = least_depth(a, b, c)

        columns = col1 - col0 + 1
        cells = columns * (row1 - row0 + 1)
        if central != 0 and cells <= FEW_CELLS:  # one loop, for its end is what takes time here
            row = row0
            col = col0
            pixel = (view * height + row0) * width + col0
            for _ in range(cells):
                d = (d0 + (real(col) + real(0.5)) * dx) + (real(row) + real(0.5)) * dy
                depth = hit_depth(d, g, n0, n1, n2, a, b, c, cull)
                if depth > real(0.0):
                    keep_first(depth, face, pixel, mode, depths, hits)
                last = wp.where(col == col1, 1, 0)
                col = col + 1 - last * columns
                row = row + last
                pixel = pixel + 1 + last * (width - columns)
            return
        if central != 0 and cells <= MOST_CELLS:
            # A box of few pixels: `hit_depth` of `lanes` of them at a time, in vector instructions. Where a w is 0, and
            # where faces are culled, it is asked itself.
            share = real(1.0) / real(columns)
            za = dot3(g, a)
            zb = dot3(g, b)
            zc = dot3(g, c)
            corner = (view * height + row0) * width + col0
            for begin in range(0, cells, lanes):
                found = reals()
                pixels = integers()
                hit = int(0)  # a bit for each
                for lane in range(lanes):
                    cell = begin + lane
                    down = int((real(cell) + real(0.5)) * share)
                    across = cell - down * columns
                    pixels[lane] = corner + down * width + across
                    d = (d0 + (real(col0 + across) + real(0.5)) * dx) + (real(row0 + down) + real(0.5)) * dy
                    w0 = dot3(d, n0)
                    w1 = dot3(d, n1)
                    w2 = dot3(d, n2)
                    least = wp.min(wp.min(w0, w1), w2)
                    most = wp.max(wp.max(w0, w1), w2)
                    depth = ((w0 * za + w1 * zb) + w2 * zc) / ((w0 + w1) + w2)
                    found[lane] = wp.where(least > real(0.0) or most < real(0.0), depth, real(-1.0))
                    hit = hit | wp.where(least >= real(0.0) or most <= real(0.0), 1 << lane, 0)
                if cells - begin < lanes:
                    hit = hit & ((1 << (cells - begin)) - 1)
                while hit != 0:
                    lowest = hit & (-hit)
                    hit = hit ^ lowest
                    lane = wp.bit_count(lowest - 1)
                    pixel = pixels[lane]
                    depth = found[lane]
                    if depth == real(-1.0) or cull != 0:
                        row = pixel // width
                        x = real(pixel - row * width) + real(0.5)
                        y = real(row - view * height) + real(0.5)
                        depth = hit_depth((d0 + x * dx) + y * dy, g, n0, n1, n2, a, b, c, cull)
                    if depth > real(0.0):
                        keep_first(depth, face, pixel, mode, depths, hits)
            return

        for row in range(row0, row1 + 1):
            y = real(row) + real(0.5)
            left = col0
            right = col1
            if narrowed:
                start = d0 + y * dy
                span = vec2(real(col0) + real(0.5), real(col1) + real(0.5))
                span = row_interval(span[0], span[1], start, dx, n0, sign)
                span = row_interval(span[0], span[1], start, dx, n1, sign)
                span = row_interval(span[0], span[1], start, dx, n2, sign)
                if span[0] > span[1]:
                    continue
                left = wp.max(col0, int(wp.floor(span[0] - real(0.5))))
                right = wp.min(col1, int(wp.ceil(span[1] - real(0.5))))
            for col in range(left, right + 1):
                pixel = (view * height + row) * width + col
                if depths[pixel] < nearest:
                    continue
                x = real(col) + real(0.5)
                d = (d0 + x * dx) + y * dy
                depth = real(-1.0)
                if central != 0:
                    depth = hit_depth(d, g, n0, n1, n2, a, b, c, cull)
                else:
                    o = (rays[view, 0] + x * rays[view, 1]) + y * rays[view, 2]
                    oa = a - o
                    ob = b - o
                    oc = c - o
                    depth = hit_depth(
                        d, g, plane_normal(ob, oc), plane_normal(oc, oa), plane_normal(oa, ob), oa, ob, oc, cull
                    )
                if depth > real(0.0):
                    keep_first(depth, face, pixel, mode, depths, hits)

    @wp.func
    def reaches(center: vec3, half: vec3, n: vec3, sign: real, extra: real):
        """Whether a direction in the box can lie on the `sign` side of the plane n; slack bounds the rounding."""
        reach = dot3(half, wp.abs(n)) + extra
        slack = real(16.0) * epsilon * (dot3(wp.abs(center), wp.abs(n)) + reach)
        return sign * dot3(center, n) + reach + slack >= real(0.0)

    @wp.func
    def unit_bounds(a: vec3, b: vec3, c: vec3, central: int):
        """The least and the largest coordinates of unit directions, from the origin, to all points of a triangle.

        Unit corners span a triangle no point of which is nearer to the origin than the corners are along their middle:
        so far, at most, unit directions bulge out of the box around the corners.
        """
        p = wp.normalize(a)
        q = wp.normalize(b)
        r = wp.normalize(c)
        middle = wp.normalize(p + q + r)
        nearest = wp.min(wp.min(dot3(p, middle), dot3(q, middle)), dot3(r, middle))
        bounds = box6(real(-2.0), real(-2.0), real(-2.0), real(2.0), real(2.0), real(2.0))
        if central != 0 and nearest > real(0.1):  # otherwise it is all around, or has a corner in the origin
            for axis in range(3):
                low = wp.min(wp.min(p[axis], q[axis]), r[axis])
                high = wp.max(wp.max(p[axis], q[axis]), r[axis])
                bounds[axis] = wp.min(low, low / nearest) - margin
                bounds[axis + 3] = wp.max(high, high / nearest) + margin
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
    def run_of(x: real, length: int, runs: int):
        """The run of pixels that holds a coordinate; outside of the image the nearest."""
        return int(wp.clamp(x / real(length), real(0.0), real(runs - 1)))

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
        num_faces = faces.shape[0]
        copy = int(0)
        face = first + item
        if face >= num_faces:  # a division is worth avoiding: most calls have one view, and most faces no pixel
            copy = face // num_faces
            face -= copy * num_faces
        view = copy
        if vertex_stride == 0:
            view = face_view[face]
        a = vertices[copy * vertex_stride + int(faces[face, 0])]
        b = vertices[copy * vertex_stride + int(faces[face, 1])]
        c = vertices[copy * vertex_stride + int(faces[face, 2])]
        n0 = plane_normal(b, c)
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        determinant = dot3(a, n0)
        certain = certainly(determinant, a, n0)
        if cull != 0 and central != 0 and certain and determinant > real(0.0):
            return
        positive = central == 0 or not certain or determinant > real(0.0)
        negative = central == 0 or not certain or determinant < real(0.0)

        bounds = unit_bounds(a, b, c, central)
        edge_bound = at_any_edge(a, b, c)
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

    @wp.kernel(module="unique", module_options=OPTIONS)
    def first_hit_linear(
        vertices: wp.array(dtype=vec3),
        xy: wp.array(dtype=vec2),
        in_front: wp.array(dtype=wp.uint8),
        faces: wp.array2d(dtype=wp.int64),
        face_edges: wp.array2d(dtype=wp.int64),
        face_view: wp.array(dtype=wp.int32),
        vertex_stride: int,
        run_start: wp.array(dtype=wp.int32),
        runs: int,
        run_length: int,
        order: wp.array(dtype=wp.int64),
        ray_x: wp.array(dtype=real),
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        skip_edge: wp.array(dtype=wp.int64),
        skip_faces: wp.array2d(dtype=wp.int64),
        edges: wp.array2d(dtype=wp.int64),
        beside: wp.array(dtype=vec3),
        limits: wp.array(dtype=real),
        central: int,
        cull: int,
        height: int,
        parts: int,
        first: int,
        row_begin: int,
        row_end: int,
        band: int,
        mode: int,
        depths: wp.array(dtype=real),
        hits: wp.array(dtype=wp.int32),
    ):
        """Like `rasterize_linear`, for single rays in the `order` of runs of pixels."""
        item = wp.tid()
        part = int(0)
        if parts > 1:
            part = item % parts
            item = item // parts
        num_faces = faces.shape[0]
        copy = int(0)
        face = first + item
        if face >= num_faces:  # a division is worth avoiding: most calls have one view, and most faces no pixel
            copy = face // num_faces
            face -= copy * num_faces
        view = copy
        if vertex_stride == 0:
            view = face_view[face]
        i0 = copy * vertex_stride + int(faces[face, 0])
        i1 = copy * vertex_stride + int(faces[face, 1])
        i2 = copy * vertex_stride + int(faces[face, 2])
        front = int(in_front[i0]) + int(in_front[i1]) + int(in_front[i2])
        if front == 0 and central != 0:
            return
        row0 = row_begin + part * band
        row1 = wp.min(row0 + band, row_end) - 1
        left = -real(wp.inf)
        right = real(wp.inf)
        if front == 3 or central == 0:
            low = wp.min(wp.min(xy[i0], xy[i1]), xy[i2])
            high = wp.max(wp.max(xy[i0], xy[i1]), xy[i2])
            slack = box_slack(low, high)
            if high[1] + slack < real(row0) or low[1] - slack > real(row1 + 1):
                return
            row0 = wp.max(row0, int(wp.floor(wp.max(low[1] - slack, real(0.0)))))
            row1 = int(wp.floor(wp.min(high[1] + slack, real(row1))))
            left = low[0] - slack
            right = high[0] + slack
        first_run = run_of(left, run_length, runs)
        last_run = run_of(right, run_length, runs)

        a = vertices[i0]
        b = vertices[i1]
        c = vertices[i2]
        n0 = plane_normal(b, c)
        if cull != 0 and central != 0 and turns_away(a, n0):
            return
        n1 = plane_normal(c, a)
        n2 = plane_normal(a, b)
        edge_bound = at_any_edge(a, b, c)
        nearest = least_depth(a, b, c)
        if beside.shape[0] > 0:  # met where nudged: as far outside of the triangle as it is large, at most
            nearest = real(2.0) * nearest - wp.max(wp.max(a[2], b[2]), c[2])
        for row in range(row0, row1 + 1):
            runs_before = (view * height + row) * runs
            for place in range(run_start[runs_before + first_run], run_start[runs_before + last_run + 1]):
                if ray_x[place] >= left and ray_x[place] <= right:
                    ray = int(order[place])
                    if depths[ray] >= nearest and not passes_through(ray, face, face_edges, skip_edge, skip_faces):
                        depth = depth_along(
                            ray, face, a, b, c, n0, n1, n2, edge_bound, origins, directions, face_edges, skip_edge,
                            edges, beside, limits, central, 1, cull,
                        )  # fmt: skip
                        if depth > real(0.0):
                            keep_first(depth, face, ray, mode, depths, hits)

    return VisibilityKernels(project_linear, rasterize_linear, first_hit_linear, first_hit)
