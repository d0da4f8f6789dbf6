"""The Warp kernels of the boundary: which edges are silhouettes, where they cross pixels, and the area they hide."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math, make_within_copy

COUNT = wp.constant(0)
WRITE = wp.constant(1)
NO_CANDIDATE = wp.constant(-2)
CROWD = wp.constant(256)  # how many pieces of a pixel, before and after a piece, are asked whether they cross it
SAME_PLACE = wp.constant(wp.float64(1e-4))  # of a piece's length: nearer cuts are one


class EdgeKernels(NamedTuple):
    """The kernels for one floating-point type."""

    seen_from_outside: Any
    edge_sides: Any
    split_at_pixels: Any
    split_at_crossings: Any
    piece_middles: Any
    hidden_area: Any


@cache
def make_edge_kernels(real: Any) -> EdgeKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, dot3, plane_normal, side_sign, _ = make_math(real)
    within_copy = make_within_copy()
    wide2 = wp.types.vector(2, wp.float64)
    wide4 = wp.types.vector(4, wp.float64)

    @wp.func
    def face_normal(
        face: wp.int64, offset: wp.int64, vertices: wp.array(dtype=vec3), faces: wp.array2d(dtype=wp.int64)
    ):
        a = vertices[offset + faces[face, 0]]
        return wp.cross(vertices[offset + faces[face, 1]] - a, vertices[offset + faces[face, 2]] - a)

    @wp.func
    def side_seen(
        face: wp.int64,
        offset: wp.int64,
        drawn: wp.int64,
        ray: vec3,
        central: int,
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        outside: wp.array(dtype=wp.uint8),
    ):
        """-1 for the outside of a face: from the origin the same for all its edges, so that silhouettes are closed."""
        sign = int(-1)
        if central != 0:
            if outside[drawn + face] == wp.uint8(0):
                sign = 1
        elif dot3(face_normal(face, offset, vertices, faces), ray) >= real(0.0):
            sign = 1
        return sign

    @wp.kernel(module="unique", module_options=OPTIONS)
    def seen_from_outside(
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        vertex_stride: wp.int64,
        first: int,
        outside: wp.array(dtype=wp.uint8),
    ):
        """Whether the outside of each face is turned towards the origin."""
        item = first + wp.tid()
        index, copy = within_copy(item, faces.shape[0])
        face = wp.int64(index)
        offset = wp.int64(copy) * vertex_stride
        corner = vertices[offset + faces[face, 0]]
        inside = dot3(face_normal(face, offset, vertices, faces), corner) >= real(0.0)
        outside[item] = wp.uint8(wp.where(inside, 0, 1))

    @wp.kernel(module="unique", module_options=OPTIONS)
    def edge_sides(
        vertices: wp.array(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        vertex_stride: wp.int64,
        items: wp.array(dtype=wp.int64),
        rays: wp.array(dtype=vec3),
        central: int,
        outside: wp.array(dtype=wp.uint8),
        edges: wp.array2d(dtype=wp.int64),
        edge_start: wp.array(dtype=wp.int64),
        halfedges: wp.array(dtype=wp.int64),
        forward: wp.array(dtype=wp.uint8),
        seam: wp.array(dtype=wp.uint8),
        faceted: int,
        cull: int,
        first: int,
        left: wp.array(dtype=wp.int32),
        right: wp.array(dtype=wp.int32),
    ):
        """The face in front on each side of an edge, -1 for none; NO_CANDIDATE where the image cannot jump."""
        item = first + wp.tid()
        whole = item
        ray = vec3(real(0.0))
        if central == 0:
            whole = int(items[item])
            ray = rays[item]
        edge, copy = within_copy(whole, edges.shape[0])
        offset = wp.int64(copy) * vertex_stride
        drawn = wp.int64(copy) * wp.int64(faces.shape[0])
        on_left = int(0)
        on_right = int(0)
        for place in range(int(edge_start[edge]), int(edge_start[edge + 1])):
            face = halfedges[place] // wp.int64(3)
            sign = side_seen(face, offset, drawn, ray, central, vertices, faces, outside)
            if cull == 0 or sign < 0:
                if (sign > 0) == (forward[place] != wp.uint8(0)):
                    on_left += 1
                else:
                    on_right += 1
        left[item] = NO_CANDIDATE
        right[item] = NO_CANDIDATE
        jump = (on_left > 0) != (on_right > 0)
        if on_left > 0 and on_right > 0:
            jump = faceted != 0 or seam[edge] != wp.uint8(0)
        if not jump:
            return

        # Of the faces on one side the one is in front whose depth grows slowest away from the edge. With p on the edge
        # and u pointing to the faces' side, the ray p + h u meets the plane with normal N at the depth
        # (p . N) / ((p + h u) . N), which falls with h at the rate (u . N) / (p . N).
        start = vertices[offset + edges[edge, 0]]
        end = vertices[offset + edges[edge, 1]]
        if central != 0:
            ray = start + end
        left_face = int(-1)
        right_face = int(-1)
        left_rate = real(0.0)
        right_rate = real(0.0)
        for place in range(int(edge_start[edge]), int(edge_start[edge + 1])):
            face = halfedges[place] // wp.int64(3)
            normal = face_normal(face, offset, vertices, faces)
            sign = side_seen(face, offset, drawn, ray, central, vertices, faces, outside)
            if cull == 0 or sign < 0:
                rate = dot3(wp.cross(ray, end - start), normal) / dot3(ray, normal)
                is_left = (sign > 0) == (forward[place] != wp.uint8(0))
                rate = wp.where(is_left, rate, -rate)
                number = int(face)
                if rate != rate:  # seen exactly edge-on: behind everything else at this edge
                    rate = -real(wp.inf)
                if is_left:
                    if left_face < 0 or rate > left_rate or (rate == left_rate and number < left_face):
                        left_face = number
                        left_rate = rate
                else:
                    if right_face < 0 or rate > right_rate or (rate == right_rate and number < right_face):
                        right_face = number
                        right_rate = rate
        left[item] = left_face
        right[item] = right_face

    @wp.func
    def next_line(position: wp.float64, step: wp.float64):
        """The next line between pixels strictly ahead of `position` when walking into the direction of `step`."""
        line = wp.floor(position) + wp.float64(1.0)
        if step < wp.float64(0.0):
            line = wp.ceil(position) - wp.float64(1.0)
        return line

    @wp.func
    def slab(start: wp.float64, delta: wp.float64, limit: wp.float64):
        """Where a segment enters and leaves 0 <= x <= limit (Liang & Barsky 1984)."""
        span = wide2(-wp.float64(wp.inf), wp.float64(wp.inf))
        if delta != wp.float64(0.0):
            one = -start / delta
            two = (limit - start) / delta
            span = wide2(wp.min(one, two), wp.max(one, two))
        elif start < wp.float64(0.0) or start > limit:
            span = wide2(wp.float64(wp.inf), -wp.float64(wp.inf))
        return span

    @wp.kernel(module="unique", module_options=OPTIONS)
    def split_at_pixels(
        segments: wp.array2d(dtype=vec2),
        rows: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        mode: int,
        offsets: wp.array(dtype=wp.int64),
        first: int,
        counts: wp.array(dtype=wp.int64),
        piece_segment: wp.array(dtype=wp.int64),
        lows: wp.array(dtype=wp.float64),
        highs: wp.array(dtype=wp.float64),
        pixels: wp.array(dtype=wp.int64),
    ):
        """Walk a segment through the image from line to line; the first pass counts the pieces, the second writes."""
        i = first + wp.tid()
        start = wide2(wp.float64(segments[i, 0][0]), wp.float64(segments[i, 0][1]))
        delta = wide2(wp.float64(segments[i, 1][0]), wp.float64(segments[i, 1][1])) - start
        across = slab(start[0], delta[0], wp.float64(width))
        down = slab(start[1], delta[1], wp.float64(height))
        low = wp.max(wp.max(across[0], down[0]), wp.float64(0.0))
        end = wp.min(wp.min(across[1], down[1]), wp.float64(1.0))
        count = wp.int64(0)
        line_x = next_line(start[0] + low * delta[0], delta[0])
        line_y = next_line(start[1] + low * delta[1], delta[1])
        while low < end:
            at_x = wp.float64(wp.inf)
            at_y = wp.float64(wp.inf)
            if delta[0] != wp.float64(0.0):
                at_x = (line_x - start[0]) / delta[0]
            if delta[1] != wp.float64(0.0):
                at_y = (line_y - start[1]) / delta[1]
            high = wp.min(wp.min(at_x, at_y), end)
            if high > low:
                if mode == WRITE:
                    place = offsets[i] + count
                    piece_segment[place] = wp.int64(i)
                    lows[place] = low
                    highs[place] = high
                    middle = start + wp.float64(0.5) * (low + high) * delta
                    row = rows[i] + wp.int64(wp.clamp(middle[1], wp.float64(0.0), wp.float64(height - 1)))
                    column = wp.int64(wp.clamp(middle[0], wp.float64(0.0), wp.float64(width - 1)))
                    pixels[place] = row * wp.int64(width) + column
                count += wp.int64(1)
                low = high
            if at_x <= high:
                line_x += wp.sign(delta[0])
            if at_y <= high:
                line_y += wp.sign(delta[1])
        if mode == COUNT:
            counts[i] = count

    @wp.func
    def piece_of(
        i: wp.int64,
        segments: wp.array2d(dtype=vec2),
        piece_segment: wp.array(dtype=wp.int64),
        lows: wp.array(dtype=wp.float64),
        highs: wp.array(dtype=wp.float64),
    ):
        """Begin (x, y) and direction (z, w) of a piece, from its one end to the other."""
        segment = piece_segment[i]
        start = wide2(wp.float64(segments[segment, 0][0]), wp.float64(segments[segment, 0][1]))
        delta = wide2(wp.float64(segments[segment, 1][0]), wp.float64(segments[segment, 1][1])) - start
        begin = start + lows[i] * delta
        along = (highs[i] - lows[i]) * delta
        return wide4(begin[0], begin[1], along[0], along[1])

    @wp.func
    def crossing(p: wide4, q: wide4):
        """Where on `p`, 0 to 1, the piece `q` crosses it or ends at it; -1 if it does not."""
        at = wp.float64(-1.0)
        turn = p[2] * q[3] - p[3] * q[2]
        if turn != wp.float64(0.0):
            dx = q[0] - p[0]
            dy = q[1] - p[1]
            other = (dx * p[3] - dy * p[2]) / turn
            if other >= -SAME_PLACE and other <= wp.float64(1.0) + SAME_PLACE:
                at = (dx * q[3] - dy * q[2]) / turn
        return at

    @wp.kernel(module="unique", module_options=OPTIONS)
    def split_at_crossings(
        segments: wp.array2d(dtype=vec2),
        piece_segment: wp.array(dtype=wp.int64),
        lows: wp.array(dtype=wp.float64),
        highs: wp.array(dtype=wp.float64),
        order: wp.array(dtype=wp.int64),
        pixels: wp.array(dtype=wp.int64),
        mode: int,
        offsets: wp.array(dtype=wp.int64),
        first: int,
        counts: wp.array(dtype=wp.int64),
        source: wp.array(dtype=wp.int64),
        new_lows: wp.array(dtype=wp.float64),
        new_highs: wp.array(dtype=wp.float64),
        new_pixels: wp.array(dtype=wp.int64),
    ):
        """Cut a piece where others in its pixel cross it; the first pass counts the parts, the second writes."""
        here = first + wp.tid()
        i = order[here]
        if mode == WRITE and counts[i] == wp.int64(1):
            source[offsets[i]] = i
            new_lows[offsets[i]] = lows[i]
            new_highs[offsets[i]] = highs[i]
            new_pixels[offsets[i]] = pixels[here]
            return
        begin = here
        while begin > 0 and begin > here - CROWD and pixels[begin - 1] == pixels[here]:
            begin -= 1
        end = here + 1
        while end < pixels.shape[0] and end < here + CROWD and pixels[end] == pixels[here]:
            end += 1
        piece = piece_of(i, segments, piece_segment, lows, highs)
        length = highs[i] - lows[i]
        count = wp.int64(0)
        at = wp.float64(0.0)
        one = wp.float64(1.0)
        while at < one:
            cut = one
            for there in range(begin, end):
                if there != here:
                    t = crossing(piece, piece_of(order[there], segments, piece_segment, lows, highs))
                    if t > at + SAME_PLACE and t < cut and t < one - SAME_PLACE:
                        cut = t
            if mode == WRITE:
                place = offsets[i] + count
                source[place] = i
                new_lows[place] = lows[i] + at * length
                new_highs[place] = wp.where(cut < one, lows[i] + cut * length, highs[i])
                new_pixels[place] = pixels[here]
            count += wp.int64(1)
            at = cut
        if mode == COUNT:
            counts[i] = count

    @wp.kernel(module="unique", module_options=OPTIONS)
    def piece_middles(
        segments: wp.array2d(dtype=vec2),
        spans: wp.array2d(dtype=real),
        depths: wp.array2d(dtype=real),
        lines: wp.array(dtype=wp.int64),
        ends: wp.array2d(dtype=wp.int64),
        points: wp.array(dtype=vec3),
        piece_segment: wp.array(dtype=wp.int64),
        lows: wp.array(dtype=wp.float64),
        highs: wp.array(dtype=wp.float64),
        pixels: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        central: int,
        near_center: wp.float64,
        first: int,
        middles: wp.array(dtype=vec3),
        alongs: wp.array(dtype=vec3),
        xy: wp.array(dtype=vec2),
        centers: wp.array(dtype=vec2),
        at_center: wp.array(dtype=wp.uint8),
    ):
        """Where the middle of a piece is on its line in space, the direction of that, and the centre of its pixel."""
        i = first + wp.tid()
        segment = piece_segment[i]
        half = wp.float64(0.5)
        t = real(half * (lows[i] + highs[i]))
        if central != 0:  # along a straight line 1 / depth is affine in the image
            near = depths[segment, 0]
            far = depths[segment, 1]
            t = t * near / (far + t * (near - far))
        at = spans[segment, 0] + t * (spans[segment, 1] - spans[segment, 0])
        line = lines[segment]
        begin = points[ends[line, 0]]
        along = points[ends[line, 1]] - begin
        middles[i] = begin + at * along
        alongs[i] = along
        row = pixels[i] / wp.int64(width)
        column = pixels[i] - row * wp.int64(width)
        row = row % wp.int64(height)
        center = wide2(wp.float64(column) + half, wp.float64(row) + half)
        centers[i] = vec2(real(center[0]), real(center[1]))
        piece = piece_of(wp.int64(i), segments, piece_segment, lows, highs)
        xy[i] = vec2(real(piece[0] + half * piece[2]), real(piece[1] + half * piece[3]))
        low = wide2(piece[0], piece[1]) - center
        high = wp.abs(low + wide2(piece[2], piece[3]))
        low = wp.abs(low)
        nearest = wp.min(wp.max(low[0], low[1]), wp.max(high[0], high[1]))
        at_center[i] = wp.uint8(wp.where(nearest < near_center, 1, 0))

    @wp.func
    def perimeter(p: wide2):
        """Where the ray from a square's centre through `p` meets its border, in sides from the corner (1, -1).

        A point exactly in the centre lies to its left, as it does for `side_sign`.
        """
        half = wp.float64(0.5)
        x = p[0]
        y = p[1]
        if x == wp.float64(0.0) and y == wp.float64(0.0):
            x = -wp.float64(1.0)
        size = wp.max(wp.abs(x), wp.abs(y))
        if size > wp.float64(0.0):
            x = x / size
            y = y / size
        at = wp.float64(3.5) + half * x
        if x >= wp.abs(y) and x > wp.float64(0.0):
            at = half + half * y
        elif -x >= wp.abs(y) and x < wp.float64(0.0):
            at = wp.float64(2.5) - half * y
        elif y > wp.float64(0.0):
            at = wp.float64(1.5) - half * x
        return at

    @wp.kernel(module="unique", module_options=OPTIONS)
    def hidden_area(
        points: wp.array2d(dtype=vec3),
        directions: wp.array(dtype=vec3),
        ends: wp.array2d(dtype=vec2),
        lows: wp.array(dtype=wp.float64),
        highs: wp.array(dtype=wp.float64),
        centers: wp.array(dtype=vec2),
        hands: wp.array(dtype=real),
        first: int,
        areas: wp.array(dtype=real),
    ):
        """Signed area of the pixel that a piece hides from the centre: positive if the centre is on its right.

        From the centre of a unit square every side is half a unit away, so a sector's area is a quarter of its share
        of the perimeter; the triangle between the centre and the piece is taken off. Where a bent edge runs past the
        centre on one side and its straight piece on the other, the side that visibility sees the centre on decides.
        """
        i = first + wp.tid()
        normal = plane_normal(points[i, 0], points[i, 1])
        side = wp.float64(side_sign(dot3(directions[i], normal), normal)) * wp.float64(hands[i])
        center = wide2(wp.float64(centers[i][0]), wp.float64(centers[i][1]))
        start = wide2(wp.float64(ends[i, 0][0]), wp.float64(ends[i, 0][1]))
        delta = wide2(wp.float64(ends[i, 1][0]), wp.float64(ends[i, 1][1])) - start
        a = start + lows[i] * delta - center
        b = start + highs[i] * delta - center
        turn = perimeter(b) - perimeter(a)
        four = wp.float64(4.0)
        if turn > wp.float64(2.0):
            turn -= four
        elif turn < wp.float64(-2.0):
            turn += four
        if wp.abs(turn) > wp.float64(1.0):
            if side > wp.float64(0.0) and turn < wp.float64(0.0):
                turn += four
            elif side < wp.float64(0.0) and turn > wp.float64(0.0):
                turn -= four
        triangle = wp.float64(0.5) * (a[0] * b[1] - a[1] * b[0])
        areas[i] = real(-(wp.float64(0.25) * turn - triangle)) * hands[i]

    return EdgeKernels(seen_from_outside, edge_sides, split_at_pixels, split_at_crossings, piece_middles, hidden_area)
