"""The Warp kernels of `clipping`: which faces are seen steeply, and which part of which pixel a triangle fills.

The part of a triangle inside the unit square is measured by Green's theorem, side by side: with x cut off at 0 and 1
and y running from 0 to 1 only, the integral of x dy around the triangle is the area of the part, and those of x^2 / 2
and x y are its first moments. No polygon is built, so there is none that could overflow, and no branch is taken: parts
are measured side by side, in vector instructions.
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
    list_pixels: Any
    fill_pixels: Any


@cache
def make_clipping_kernels(real: Any, lanes: int) -> ClippingKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, dot3, *_ = make_math(real)
    side_block = wp.types.matrix((12, lanes), real)  # begin and direction of the three sides of a triangle
    part_block = wp.types.matrix((3, lanes), real)  # area and centroid
    within_copy = make_within_copy()

    @wp.func
    def squared_bend(
        face: int,
        offset: int,
        normal: vec3,
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_edges: wp.array2d(dtype=wp.int64),
        edge_start: wp.array(dtype=wp.int64),
        halfedges: wp.array(dtype=wp.int64),
        border: real,
    ):
        """How sharply the surface bends at the sides of a face, at most: one over a radius, squared.

        By how far the unit normals here and beyond a side are apart, over the height of the face.
        """
        size = wp.length(normal)
        most = real(0.0)
        for side in range(3):
            edge = int(face_edges[face, side])
            if edge >= 0:
                end = vertices[offset + int(faces[face, (side + 2) % 3])]
                back = vertices[offset + int(faces[face, (side + 1) % 3])] - end
                apart = border
                start = int(edge_start[edge])
                if int(edge_start[edge + 1]) == start + 2:
                    other = int(halfedges[start])
                    if other // 3 == face:
                        other = int(halfedges[start + 1])
                    corner = vertices[offset + int(faces[other // 3, other % 3])]
                    beside = wp.cross(back, corner - end)  # whichever way that face is turned
                    cosine = dot3(normal, beside) / (size * wp.length(beside))  # NaN if it has no area
                    apart = real(2.0) - real(2.0) * cosine
                bend = apart * wp.length_sq(back) / (size * size)
                if bend > most:
                    most = bend
        return most

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
        max_radius: real,
        border: real,
        face_edges: wp.array2d(dtype=wp.int64),
        edge_start: wp.array(dtype=wp.int64),
        halfedges: wp.array(dtype=wp.int64),
        cull: int,
        first: int,
        grains: wp.array(dtype=real),
    ):
        """|cos| of the angle between a face's normal and the ray to its middle, times the radius around which the
        surface bends, up to `max_radius` pixels, as a part of that; -1 for faces that are not wanted."""
        item = first + wp.tid()
        face, copy = within_copy(item, faces.shape[0])
        offset = copy * vertex_stride
        i0 = offset + int(faces[face, 0])
        i1 = offset + int(faces[face, 1])
        i2 = offset + int(faces[face, 2])
        grains[item] = real(-1.0)
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
        if wp.abs(twice_area) < max_width * longest or longest > max_length:
            scale = wp.sqrt(wp.abs(twice_area) / (cosine * wp.length(normal)))  # pixels per unit of length
            bend = squared_bend(face, offset, normal, vertices, faces, face_edges, edge_start, halfedges, border)
            radius = scale / wp.sqrt(bend)
            if not radius < max_radius:  # also of a face that is seen exactly edge-on: not a number
                radius = max_radius
            if cosine < max_cosine or radius < max_radius:
                grains[item] = cosine * (radius / max_radius)

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

    @wp.kernel(module="unique", module_options=OPTIONS)
    def list_pixels(
        triangles: wp.array2d(dtype=vec2),
        starts: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        first: int,
        owners: wp.array(dtype=wp.int64),
        pixels: wp.array(dtype=wp.int64),
    ):
        """Each pixel that a triangle may touch."""
        i = first + wp.tid()
        a = triangles[i, 0]
        b = triangles[i, 1]
        c = triangles[i, 2]
        slot = int(starts[i])
        row_begin, row_end = cells(wp.min(wp.min(a[1], b[1]), c[1]), wp.max(wp.max(a[1], b[1]), c[1]), height)
        for row in range(row_begin, row_end):
            begin, end = columns(a, b, c, row, width)
            for column in range(begin, end):
                owners[slot] = wp.int64(i)
                pixels[slot] = wp.int64(row * width + column)
                slot += 1

    @wp.func
    def piece(p: vec2, delta: vec2, begin: real, end: real):
        """Integrals of 2 x, 3 x^2 and 6 x y over dy along a part of the side from p on; x cut off at 0 and 1."""
        one = real(1.0)
        two = real(2.0)
        x0 = wp.clamp(p[0] + begin * delta[0], real(0.0), one)
        x1 = wp.clamp(p[0] + end * delta[0], real(0.0), one)
        y0 = p[1] + begin * delta[1]
        y1 = p[1] + end * delta[1]
        rise = wp.where(begin < end, y1 - y0, real(0.0))
        return vec3(
            rise * (x0 + x1),
            rise * (x0 * x0 + x0 * x1 + x1 * x1),
            rise * (two * (x0 * y0 + x1 * y1) + x0 * y1 + x1 * y0),
        )

    @wp.func
    def crossings(p: real, delta: real, low: real, high: real):
        """Where a coordinate that starts at p, and changes by delta, is 0 and 1, in order, between `low` and `high`."""
        moves = wp.abs(delta) > real(SAME)
        pace = real(1.0) / wp.where(moves, delta, real(1.0))
        zero = -p * pace
        one = (real(1.0) - p) * pace
        return vec2(
            wp.where(moves, wp.clamp(wp.min(zero, one), low, high), low),
            wp.where(moves, wp.clamp(wp.max(zero, one), low, high), high),
        )

    @wp.func
    def side_integrals(p: vec2, delta: vec2):
        """Twice the area, 6 times the first moments, between the side from p on and the y axis, in the unit square."""
        inside = crossings(p[1], delta[1], real(0.0), real(1.0))
        bends = crossings(p[0], delta[0], inside[0], inside[1])
        before = piece(p, delta, inside[0], bends[0])
        between = piece(p, delta, bends[0], bends[1])
        return (before + between) + piece(p, delta, bends[1], inside[1])

    @wp.kernel(module="unique", module_options={**OPTIONS, "max_unroll": 3})  # loops over lanes are not unrolled
    def fill_pixels(
        triangles: wp.array2d(dtype=vec2),
        owners: wp.array(dtype=wp.int64),
        pixels: wp.array(dtype=wp.int64),
        width: int,
        first: int,
        areas: wp.array(dtype=real),
        centroids: wp.array(dtype=vec2),
    ):
        """Area and centroid of the parts of triangles inside of pixels, `lanes` of them at a time."""
        begin = (first + wp.tid()) * lanes
        count = owners.shape[0]
        sides = side_block()
        parts = part_block()
        for lane in range(lanes):
            i = wp.min(begin + lane, count - 1)
            owner = int(owners[i])
            pixel = int(pixels[i])
            row = pixel // width
            corner = vec2(real(pixel - row * width), real(row))
            for k in range(3):
                p = triangles[owner, k]
                q = triangles[owner, (k + 1) % 3]
                for axis in range(2):
                    sides[4 * k + axis, lane] = p[axis] - corner[axis]
                    sides[4 * k + 2 + axis, lane] = q[axis] - p[axis]
        for lane in range(lanes):
            total = side_integrals(vec2(sides[0, lane], sides[1, lane]), vec2(sides[2, lane], sides[3, lane]))
            total += side_integrals(vec2(sides[4, lane], sides[5, lane]), vec2(sides[6, lane], sides[7, lane]))
            total += side_integrals(vec2(sides[8, lane], sides[9, lane]), vec2(sides[10, lane], sides[11, lane]))
            filled = total[0] != real(0.0)
            scale = real(1.0) / (real(3.0) * wp.where(filled, total[0], real(1.0)))
            parts[0, lane] = real(0.5) * total[0]
            parts[1, lane] = wp.where(filled, total[1] * scale, real(0.5))
            parts[2, lane] = wp.where(filled, total[2] * scale, real(0.5))
        for lane in range(lanes):
            i = begin + lane
            if i < count:
                pixel = int(pixels[i])
                row = pixel // width
                areas[i] = wp.abs(parts[0, lane])
                centroids[i] = vec2(real(pixel - row * width) + parts[1, lane], real(row) + parts[2, lane])

    return ClippingKernels(steep_faces, count_pixels, list_pixels, fill_pixels)
