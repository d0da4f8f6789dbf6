"""The Warp kernels of visibility for cameras whose rays are affine in the pixel: faces to pixels, or single rays.

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

FEW_CELLS = wp.constant(4)  # of a face's box of pixels: these are asked one after the other
MOST_CELLS = wp.constant(256)  # so many are asked side by side; of larger boxes parts of rows, one after the other


class RasterizerKernels(NamedTuple):
    """The kernels for one floating-point type."""

    project_linear: Any
    rasterize_linear: Any
    first_hit_linear: Any


@cache
def make_rasterizer_kernels(real: Any, lanes: int) -> RasterizerKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch.

    `lanes`: pixels that a thread computes side by side, in vector instructions.
    """
    vec2, vec3, dot3, plane_normal, _, extent = make_math(real)
    within_copy = make_within_copy()
    hit_depth, at_any_edge, certainly, turns_away, least_depth, passes_through, depth_along, keep_first = make_hits(
        real
    )
    reals, integers = wp.types.vector(lanes, real), wp.types.vector(lanes, wp.int32)
    wide3 = wp.types.vector(3, wp.float64)
    epsilon = wp.constant(real(EPSILON[wp.dtype_to_torch(real)]))

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
        face, copy = within_copy(first + item, faces.shape[0])
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
        d0 = rays[view, 3]
        dx = rays[view, 4]
        dy = rays[view, 5]

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

        nearest = least_depth(a, b, c)
        narrowed = bool(False)
        sign = real(1.0)
        if central != 0 and col1 - col0 > 7:
            determinant = dot3(a, n0)
            narrowed = certainly(determinant, a, n0)
            sign = wp.where(determinant > real(0.0), real(1.0), real(-1.0))
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
    def run_of(x: real, length: int, runs: int):
        """The run of pixels that holds a coordinate; outside of the image the nearest."""
        return int(wp.clamp(x / real(length), real(0.0), real(runs - 1)))

    @wp.kernel(module="unique", module_options={**OPTIONS, "max_unroll": 3})  # not over lanes
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
        ray_dx: wp.array(dtype=real),
        ray_dy: wp.array(dtype=real),
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
        """Like `rasterize_linear`, for single rays in the `order` of runs of pixels, with room for `lanes` more."""
        item = wp.tid()
        part = int(0)
        if parts > 1:
            part = item % parts
            item = item // parts
        face, copy = within_copy(first + item, faces.shape[0])
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
        edge_bound = at_any_edge(a, b, c, real(0.0))
        nearest = least_depth(a, b, c)
        if beside.shape[0] > 0:  # met where nudged: as far outside of the triangle as it is large, at most
            nearest = real(2.0) * nearest - wp.max(wp.max(a[2], b[2]), c[2])
        rounding = real(0.0)
        if beside.shape[0] > 0:
            rounding = edge_bound
        for row in range(row0, row1 + 1):
            runs_before = (view * height + row) * runs
            stop = run_start[runs_before + last_run + 1]
            for begin in range(run_start[runs_before + first_run], stop, lanes):
                # Most rays of these runs are beside the face or on the wrong side of one of its edges.
                asked = int(0)  # a bit for each
                for lane in range(lanes):
                    d = vec3(ray_dx[begin + lane], ray_dy[begin + lane], real(1.0))
                    x = ray_x[begin + lane]
                    w0 = dot3(d, n0)
                    w1 = dot3(d, n1)
                    w2 = dot3(d, n2)
                    slack = rounding * extent(d)
                    least = wp.min(wp.min(w0, w1), w2) + slack
                    most = wp.max(wp.max(w0, w1), w2) - slack
                    inside = wp.where(least >= real(0.0), 1 - cull, 0) | wp.where(most <= real(0.0), 1, 0)
                    inside = wp.where(central != 0, inside, 1)
                    inside = wp.where(x >= left, inside, 0)
                    asked = asked | (wp.where(x <= right, inside, 0) << lane)
                if stop - begin < lanes:
                    asked = asked & ((1 << (stop - begin)) - 1)
                while asked != 0:
                    lowest = asked & (-asked)
                    asked = asked ^ lowest
                    ray = int(order[begin + wp.bit_count(lowest - 1)])
                    if depths[ray] >= nearest and not passes_through(ray, face, face_edges, skip_edge, skip_faces):
                        depth = depth_along(
                            ray, face, a, b, c, n0, n1, n2, edge_bound, origins, directions, face_edges, skip_edge,
                            edges, beside, limits, central, 1, cull,
                        )  # fmt: skip
                        if depth > real(0.0):
                            keep_first(depth, face, ray, mode, depths, hits)

    return RasterizerKernels(project_linear, rasterize_linear, first_hit_linear)
