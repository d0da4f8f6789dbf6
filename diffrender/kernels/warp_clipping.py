"""The Warp kernels of `clipping`: which faces are seen steeply, and which part of which pixel a triangle fills.

The part of a triangle inside the unit square is measured by Green's theorem, side by side: with x cut off at 0 and 1
and y running from 0 to 1 only, the integral of x dy around the triangle is the area of the part, and those of x^2 / 2
and x y are its first moments. No polygon is built, so there is none that could overflow.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math, make_within_copy

SAME = 1e-30  # pixels: coordinates nearer to each other are the same, so that nothing is divided by next to nothing


class ClippingKernels(NamedTuple):
    """The kernels for one floating-point type."""

    steep_faces: Any
    count_pixels: Any
    fill_pixels: Any


@cache
def make_clipping_kernels(real: Any) -> ClippingKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, dot3, *_ = make_math(real)
    within_copy = make_within_copy()

    @wp.kernel(module="unique", module_options=OPTIONS)
    def steep_faces(
        vertices: wp.array(dtype=vec3),
        xy: wp.array(dtype=vec2),
        usable: wp.array(dtype=wp.uint8),
        faces: wp.array2d(dtype=wp.int64),
        vertex_stride: int,
        eyes: wp.array(dtype=vec3),
        central: int,
        size: vec2,
        max_cosine: real,
        max_width: real,
        max_length: real,
        cull: int,
        first: int,
        cosines: wp.array(dtype=real),
    ):
        """|cos| of the angle between a face's normal and the ray to its middle; -1 for faces that are not wanted."""
        item = first + wp.tid()
        face, copy = within_copy(item, faces.shape[0])
        offset = copy * vertex_stride
        i0 = offset + int(faces[face, 0])
        i1 = offset + int(faces[face, 1])
        i2 = offset + int(faces[face, 2])
        cosines[item] = real(-1.0)
        if usable[i0] == wp.uint8(0) or usable[i1] == wp.uint8(0) or usable[i2] == wp.uint8(0):
            return
        p = xy[i0]
        q = xy[i1]
        r = xy[i2]
        low = wp.min(wp.min(p, q), r)
        high = wp.max(wp.max(p, q), r)
        if high[0] <= real(0.0) or high[1] <= real(0.0) or low[0] >= size[0] or low[1] >= size[1]:
            return
        longest = wp.max(wp.max(wp.length(q - p), wp.length(r - q)), wp.length(p - r))
        twice_area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        a = vertices[i0]
        b = vertices[i1]
        c = vertices[i2]
        normal = wp.cross(b - a, c - a)
        ray = (a + b + c) / real(3.0)
        if central == 0:
            ray -= eyes[item]
        if cull != 0 and dot3(normal, ray) >= real(0.0):
            return
        cosine = wp.abs(dot3(normal, ray)) / wp.length(normal) / wp.length(ray)  # NaN for faces without area
        if (wp.abs(twice_area) < max_width * longest or longest > max_length) and cosine < max_cosine:
            cosines[item] = cosine

    @wp.func
    def cells(low: real, high: real, count: int):
        """First and last + 1 of the `count` unit cells between `low` and `high`."""
        begin = int(wp.floor(wp.clamp(low, real(0.0), real(count))))
        end = int(wp.ceil(wp.clamp(high, real(0.0), real(count))))
        return begin, end

    @wp.func
    def widened(span: vec2, p: vec2, q: vec2, y: real):
        """`span` of x, widened by the part of the side p q between y and y + 1."""
        result = span
        low = wp.max(wp.min(p[1], q[1]), y)
        high = wp.min(wp.max(p[1], q[1]), y + real(1.0))
        if low <= high:
            s = p[0]
            t = q[0]
            if p[1] != q[1]:
                slope = (q[0] - p[0]) / (q[1] - p[1])
                s = p[0] + slope * (low - p[1])
                t = p[0] + slope * (high - p[1])
            result = vec2(wp.min(span[0], wp.min(s, t)), wp.max(span[1], wp.max(s, t)))
        return result

    @wp.func
    def columns(a: vec2, b: vec2, c: vec2, row: int, width: int):
        """First and last + 1 of the pixels that a triangle may touch in a row."""
        y = real(row)
        span = vec2(real(width), real(0.0))
        span = widened(span, a, b, y)
        span = widened(span, b, c, y)
        span = widened(span, c, a, y)
        begin, end = cells(span[0], span[1], width)
        return begin, end

    @wp.kernel(module="unique", module_options=OPTIONS)
    def count_pixels(
        triangles: wp.array2d(dtype=vec2), height: int, width: int, first: int, counts: wp.array(dtype=wp.int32)
    ):
        """How many pixels of the image a triangle may touch."""
        i = first + wp.tid()
        a = triangles[i, 0]
        b = triangles[i, 1]
        c = triangles[i, 2]
        row_begin, row_end = cells(wp.min(wp.min(a[1], b[1]), c[1]), wp.max(wp.max(a[1], b[1]), c[1]), height)
        total = int(0)
        for row in range(row_begin, row_end):
            begin, end = columns(a, b, c, row, width)
            total += wp.max(end - begin, 0)
        counts[i] = total

    @wp.func
    def piece(p: vec2, delta: vec2, begin: real, end: real):
        """Integrals of x, x^2 / 2 and x y over dy along a part of the side from p on; x cut off at 0 and 1."""
        total = vec3(real(0.0))
        if begin < end:
            one = real(1.0)
            x0 = wp.clamp(p[0] + begin * delta[0], real(0.0), one)
            x1 = wp.clamp(p[0] + end * delta[0], real(0.0), one)
            y0 = p[1] + begin * delta[1]
            y1 = p[1] + end * delta[1]
            two = real(2.0)
            total = vec3(
                (x0 + x1) / two,
                (x0 * x0 + x0 * x1 + x1 * x1) / real(6.0),
                (two * (x0 * y0 + x1 * y1) + x0 * y1 + x1 * y0) / real(6.0),
            ) * (y1 - y0)
        return total

    @wp.func
    def pace(delta: real):
        """How much of a side passes by per unit of one coordinate; 0 where that stays the same."""
        result = real(0.0)
        if wp.abs(delta) > real(SAME):
            result = real(1.0) / delta
        return result

    @wp.func
    def crossings(p: real, pace: real, low: real, high: real):
        """Where a coordinate that starts at p is 0 and 1, in order, kept between `low` and `high`."""
        result = vec2(low, high)
        if pace != real(0.0):
            zero = -p * pace
            one = (real(1.0) - p) * pace
            result = vec2(wp.clamp(wp.min(zero, one), low, high), wp.clamp(wp.max(zero, one), low, high))
        return result

    @wp.func
    def side_integrals(p: vec2, delta: vec2, pace: real, inside: vec2):
        """Area and first moments between the side from p on and the y axis, within the unit square.

        `inside` is where on the side y is between 0 and 1."""
        total = vec3(real(0.0))
        if inside[0] < inside[1]:
            bends = crossings(p[0], pace, inside[0], inside[1])
            total = piece(p, delta, inside[0], bends[0]) + piece(p, delta, bends[0], bends[1])
            total += piece(p, delta, bends[1], inside[1])
        return total

    @wp.kernel(module="unique", module_options=OPTIONS)
    def fill_pixels(
        triangles: wp.array2d(dtype=vec2),
        starts: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        first: int,
        owners: wp.array(dtype=wp.int64),
        pixels: wp.array(dtype=wp.int64),
        areas: wp.array(dtype=real),
        centroids: wp.array(dtype=vec2),
    ):
        """For each pixel that a triangle may touch the area and centroid of the part inside."""
        i = first + wp.tid()
        a = triangles[i, 0]
        b = triangles[i, 1]
        c = triangles[i, 2]
        ab = b - a
        bc = c - b
        ca = a - c
        pace_x = vec3(pace(ab[0]), pace(bc[0]), pace(ca[0]))
        pace_y = vec3(pace(ab[1]), pace(bc[1]), pace(ca[1]))
        slot = int(starts[i])
        row_begin, row_end = cells(wp.min(wp.min(a[1], b[1]), c[1]), wp.max(wp.max(a[1], b[1]), c[1]), height)
        for row in range(row_begin, row_end):
            begin, end = columns(a, b, c, row, width)
            y = real(row)
            inside_ab = crossings(a[1] - y, pace_y[0], real(0.0), real(1.0))
            inside_bc = crossings(b[1] - y, pace_y[1], real(0.0), real(1.0))
            inside_ca = crossings(c[1] - y, pace_y[2], real(0.0), real(1.0))
            for column in range(begin, end):
                corner = vec2(real(column), y)
                total = side_integrals(a - corner, ab, pace_x[0], inside_ab)
                total += side_integrals(b - corner, bc, pace_x[1], inside_bc)
                total += side_integrals(c - corner, ca, pace_x[2], inside_ca)
                center = vec2(real(0.5), real(0.5))
                if total[0] != real(0.0):
                    center = vec2(total[1] / total[0], total[2] / total[0])
                owners[slot] = wp.int64(i)
                pixels[slot] = wp.int64(row * width + column)
                areas[slot] = wp.abs(total[0])
                centroids[slot] = corner + center
                slot += 1

    return ClippingKernels(steep_faces, count_pixels, fill_pixels)
