"""The Warp kernels of `crossings`: a tree of boxes over the faces of a mesh, and exact signs of volumes.

Positions are integers on a grid of 2^30 steps, so that the volume of any four of them has an exact sign in 64-bit
arithmetic: with corners relative to one of them every difference has 31 bits, a minor n = v x w 62, and n . u is
summed in two halves, n = high 2^31 + low. Where a volume is zero the vertices are nudged by an infinitesimal step in
directions of their own (a linear perturbation: Emiris & Canny 1995, "A general approach to removing degeneracies";
Seidel 1998, "The nature and meaning of perturbations in geometric computing"), and the first coefficient of the
volume's polynomial in that step that is not zero decides. The signs are those of one configuration without
degeneracies, whoever asks in whatever order: two faces meet in no or in two crossings of a side with a face, and the
curve in which closed surfaces meet is closed.

Faces sit in slots, sorted so that neighbours in space are neighbours in the tree; `LEAF` slots make a leaf, `BRANCHING`
nodes make a node of the next level, and one node is the root. A corner of a box is one word of 64 bits: 20 for each
coordinate, each below a bit that tells after a subtraction whether the coordinate has become negative. Nearly all
pairs whose boxes overlap are neighbours that do not meet: float64 with an error bound is enough to see that.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS

LEAF = wp.constant(8)
BRANCHING = wp.constant(8)
GRID_BITS = 29  # positions lie between -2^29 and 2^29, give or take a step
BOX_BITS = wp.constant(20)  # of a coordinate in a box
BOX_SHIFT = wp.constant(10)  # from the 30 bits of a position to those
BOX_MASK = wp.constant(wp.int64(2**20 - 1))
BOX_SIGNS = wp.constant(wp.int64((1 << 20) | (1 << 41) | (1 << 62)))
LOWEST = wp.constant(-(2**29))
SURE = wp.constant(wp.float64(2.0**-18))  # steps of the grid: heights over a plane, in float64, are good to 2^-20
SURE_VOLUME = wp.constant(wp.float64(2.0**-49))  # of the product of three lengths: a volume in float64 is good to 2^-50
LOW_BITS = wp.constant(wp.int64(31))
LOW_MASK = wp.constant(wp.int64(2**31 - 1))
HASH_FACTOR_1 = wp.constant(wp.uint32(0x7FEB352D))
HASH_FACTOR_2 = wp.constant(wp.uint32(0x846CA68B))
COMMON_RANGE = wp.constant(wp.int64(2**26))
OWN_RANGE = wp.constant(wp.int64(2**12))
CODE_OFFSET = wp.constant(3 * 2**27)


class IntersectionKernels(NamedTuple):
    """The kernels; what goes in and comes out are integers."""

    order_codes: Any
    fill_leaves: Any
    merge_boxes: Any
    visit_leaves: Any
    visit_pairs: Any


@cache
def make_intersection_kernels(_: Any) -> IntersectionKernels:
    """The kernels, for every floating-point type the same; nothing compiles before a launch."""
    vec = wp.types.vector(3, wp.int32)
    box = wp.types.vector(2, wp.int64)  # lower and upper corner, the upper one with the sign bits set
    plane = wp.types.vector(4, wp.float64)  # a normal with a sum of magnitudes of 1, and where the plane is along it
    wide = wp.types.vector(3, wp.int64)
    real3 = wp.types.vector(3, wp.float64)
    two = wp.types.vector(2, wp.int64)
    halves = wp.types.vector(2, wp.int64)  # the number halves[0] 2^31 + halves[1], the second one of 31 bits

    @wp.func
    def from_to(a: vec, b: vec):
        return wide(wp.int64(b[0] - a[0]), wp.int64(b[1] - a[1]), wp.int64(b[2] - a[2]))

    @wp.func
    def minors(a: wide, b: wide):
        """a x b."""
        return wide(a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])

    @wp.func
    def volume(n: wide, d: wide):
        """n . d, exactly."""
        high = (n[0] >> LOW_BITS) * d[0] + (n[1] >> LOW_BITS) * d[1] + (n[2] >> LOW_BITS) * d[2]
        low = (n[0] & LOW_MASK) * d[0] + (n[1] & LOW_MASK) * d[1] + (n[2] & LOW_MASK) * d[2]
        return halves(high + (low >> LOW_BITS), low & LOW_MASK)

    @wp.func
    def sign_of(total: halves):
        """Sign of a number in halves, or of a few of them added up."""
        high = total[0] + (total[1] >> LOW_BITS)
        sign = int(1)
        if high < wp.int64(0):
            sign = -1
        elif high == wp.int64(0) and (total[1] & LOW_MASK) == wp.int64(0):
            sign = 0
        return sign

    @wp.func
    def scrambled(key: wp.uint32):
        """A hash of 32 bits."""
        once = (key ^ (key >> wp.uint32(16))) * HASH_FACTOR_1
        twice = (once ^ (once >> wp.uint32(15))) * HASH_FACTOR_2
        return twice ^ (twice >> wp.uint32(16))

    @wp.func
    def nudge(vertex: int, component: wp.array(dtype=wp.int32)):
        """Direction in which a vertex is nudged: that of its component, 27 bits, and 13 bits of its own."""
        result = wide()
        for i in range(3):
            common = scrambled(wp.uint32(3 * component[vertex] + i))
            own = scrambled(~wp.uint32(3 * vertex + i))
            result[i] = (wp.int64(common >> wp.uint32(5)) - COMMON_RANGE) + (wp.int64(own >> wp.uint32(19)) - OWN_RANGE)
        return result

    @wp.func
    def nudged_sign(u: wide, v: wide, w: wide, a: int, b: int, c: int, d: int, component: wp.array(dtype=wp.int32)):
        """Sign of u . (v x w), which is zero, once the corners a and b, c, d at u, v, w from it are nudged."""
        origin = nudge(a, component)
        du = nudge(b, component) - origin
        dv = nudge(c, component) - origin
        dw = nudge(d, component) - origin
        sign = sign_of(volume(minors(v, w), du) + volume(minors(dv, w), u) + volume(minors(v, dw), u))
        if sign == 0:
            sign = sign_of(volume(minors(dv, dw), u) + volume(minors(dv, w), du) + volume(minors(v, dw), du))
        if sign == 0:
            sign = sign_of(volume(minors(dv, dw), du))
        return sign

    @wp.func
    def on_both_sides(sides: wp.vec3i):
        return wp.min(sides) < 0 and wp.max(sides) > 0

    @wp.func
    def turn(
        face: int,
        side: int,
        other: int,
        other_side: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
    ):
        """On which side of a side of a face another face's side passes: -1 or 1."""
        end = (side + 1) % 3
        other_end = (other_side + 1) % 3
        a = corners[face, side]
        u = from_to(a, corners[face, end])
        v = from_to(a, corners[other, other_side])
        w = from_to(a, corners[other, other_end])
        sign = sign_of(volume(minors(v, w), u))
        if sign == 0:
            sign = nudged_sign(
                u,
                v,
                w,
                vertex[face][side],
                vertex[face][end],
                vertex[other][other_side],
                vertex[other][other_end],
                component,
            )
        return sign

    @wp.func
    def passing_sides(
        found: wp.vec2i,
        face: int,
        ends: wp.vec3i,
        other: int,
        first_name: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
    ):
        """Put the sides of a face that pass through another one behind what was found; `ends` from `sides_of_plane`."""
        result = found
        for side in range(3):
            if ends[side] * ends[(side + 1) % 3] < 0:
                sign = turn(face, side, other, 0, corners, vertex, component)
                same = sign == turn(face, side, other, 1, corners, vertex, component)
                if same and sign == turn(face, side, other, 2, corners, vertex, component):
                    result = wp.vec2i(result[1], first_name + side)
        return result

    @wp.func
    def plane_through(a: vec, b: vec, c: vec):
        """The plane of a face; zeros, so that every point is in it, for one without area."""
        n = minors(from_to(a, b), from_to(a, c))
        x = wp.float64(n[0])
        y = wp.float64(n[1])
        z = wp.float64(n[2])
        size = wp.abs(x) + wp.abs(y) + wp.abs(z)
        if size > wp.float64(0.0):
            x = x / size
            y = y / size
            z = z / size
        return plane(x, y, z, x * wp.float64(a[0]) + y * wp.float64(a[1]) + z * wp.float64(a[2]))

    @wp.func
    def sure_side(p: plane, x: vec):
        """On which side of a plane a point lies: -1, 1, or 0 if rounding could change that."""
        height = p[0] * wp.float64(x[0]) + p[1] * wp.float64(x[1]) + p[2] * wp.float64(x[2]) - p[3]
        return wp.where(height > SURE, 1, 0) - wp.where(height < -SURE, 1, 0)

    @wp.func
    def sure_sides(p: plane, face: int, corners: wp.array2d(dtype=vec)):
        return wp.vec3i(sure_side(p, corners[face, 0]), sure_side(p, corners[face, 1]), sure_side(p, corners[face, 2]))

    @wp.func
    def sides_of_plane(
        face: int,
        other: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
    ):
        """On which sides of the plane of a face the corners of another one lie, -1 or 1; 0 for a corner of both.

        Three zeros if both lie in one plane.
        """
        a = corners[face, 0]
        u = from_to(a, corners[face, 1])
        v = from_to(a, corners[face, 2])
        normal = minors(u, v)
        result = wp.vec3i()
        for i in range(3):
            result[i] = sign_of(volume(normal, from_to(a, corners[other, i])))
        pointless = normal == wide()  # no area, no plane
        if result == wp.vec3i() and not pointless:
            return result
        p = vertex[face]
        q = vertex[other]
        for i in range(3):
            if result[i] == 0 and q[i] != p[0] and q[i] != p[1] and q[i] != p[2]:
                result[i] = nudged_sign(from_to(a, corners[other, i]), u, v, p[0], q[i], p[1], p[2], component)
        return result

    @wp.func
    def common_corners(p: vec, q: vec):
        """Which corner of faces with vertices p and q is in both, of p and of q, and how many there are."""
        result = wp.vec3i()
        for i in range(3):
            for j in range(3):
                same = wp.where(p[i] == q[j], 1, 0)  # without branches: there is no telling which way they go
                result += wp.vec3i(same * i, same * j, same)
        return result

    @wp.func
    def sure_turn(a: vec, b: vec, c: vec, d: vec):
        """On which side of a line from a to b another one from c to d passes: -1, 1, or 0 if rounding could matter."""
        ux = wp.float64(b[0] - a[0])
        uy = wp.float64(b[1] - a[1])
        uz = wp.float64(b[2] - a[2])
        vx = wp.float64(c[0] - a[0])
        vy = wp.float64(c[1] - a[1])
        vz = wp.float64(c[2] - a[2])
        wx = wp.float64(d[0] - a[0])
        wy = wp.float64(d[1] - a[1])
        wz = wp.float64(d[2] - a[2])
        value = ux * (vy * wz - vz * wy) + uy * (vz * wx - vx * wz) + uz * (vx * wy - vy * wx)
        bound = (
            SURE_VOLUME
            * (wp.abs(ux) + wp.abs(uy) + wp.abs(uz))
            * (wp.abs(vx) + wp.abs(vy) + wp.abs(vz))
            * (wp.abs(wx) + wp.abs(wy) + wp.abs(wz))
        )
        return wp.where(value > bound, 1, 0) - wp.where(value < -bound, 1, 0)

    @wp.func
    def may_meet(
        a: int, b: int, corners: wp.array2d(dtype=vec), vertex: wp.array(dtype=vec), planes: wp.array(dtype=plane)
    ):
        """False for most pairs of faces that do not meet; in floating point, with room for rounding."""
        common = common_corners(vertex[a], vertex[b])
        if common[2] > 1:
            return False
        b_sides = sure_sides(planes[a], b, corners)
        if wp.abs(b_sides[0] + b_sides[1] + b_sides[2]) + common[2] == 3:
            return False
        a_sides = sure_sides(planes[b], a, corners)
        if wp.abs(a_sides[0] + a_sides[1] + a_sides[2]) + common[2] == 3:
            return False
        if common[2] == 0:
            return True
        i = (common[0] + 1) % 3
        j = (common[1] + 1) % 3
        sign = sure_turn(corners[a, i], corners[a, (i + 1) % 3], corners[b, j], corners[b, (j + 1) % 3])
        return sign == 0 or sign * a_sides[i] >= 0 or sign * b_sides[j] >= 0

    @wp.func
    def far_from_plane(p: plane, b: int, corners: wp.array2d(dtype=vec), distance: wp.float64):
        """Whether all corners of a face are further than that from a plane, on one side of it."""
        low = wp.float64(0.0)
        high = wp.float64(0.0)
        for i in range(3):
            x = corners[b, i]
            height = p[0] * wp.float64(x[0]) + p[1] * wp.float64(x[1]) + p[2] * wp.float64(x[2]) - p[3]
            low = wp.where(i == 0, height, wp.min(low, height))
            high = wp.where(i == 0, height, wp.max(high, height))
        return low > distance or high < -distance

    @wp.func
    def real_from_to(a: vec, b: vec):
        return real3(wp.float64(b[0] - a[0]), wp.float64(b[1] - a[1]), wp.float64(b[2] - a[2]))

    @wp.func
    def beside(a: int, b: int, corners: wp.array2d(dtype=vec), distance: wp.float64):
        """Whether all corners of face b are further than that beyond one side of face a, along its plane."""
        up = wp.cross(real_from_to(corners[a, 0], corners[a, 1]), real_from_to(corners[a, 0], corners[a, 2]))
        result = bool(False)
        for i in range(3):
            start = corners[a, i]
            n = wp.normalize(wp.cross(real_from_to(start, corners[a, (i + 1) % 3]), up))
            nearest = wp.dot(n, real_from_to(start, corners[b, 0]))
            nearest = wp.min(nearest, wp.dot(n, real_from_to(start, corners[b, 1])))
            result = result or wp.min(nearest, wp.dot(n, real_from_to(start, corners[b, 2]))) > distance
        return result

    @wp.func
    def between(n: real3, a0: real3, a1: real3, b0: real3, b1: real3, gap: wp.float64):
        """Whether a plane with normal n, through the origin, is so far away from two pairs of points beside it."""
        return wp.min(wp.dot(n, b0), wp.dot(n, b1)) > gap and wp.max(wp.dot(n, a0), wp.dot(n, a1)) < -gap

    @wp.func
    def stay_apart(
        a: int,
        b: int,
        slack: wp.float64,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        planes: wp.array(dtype=plane),
    ):
        """Whether two faces do not meet wherever their corners move to by less than `slack` each.

        All of a face stays as near to where it was as its corners do, so that faces on two sides of a plane, more than
        twice that apart, stay apart. With a corner in common, the others move by less than twice that relative to it:
        a plane through it that they are so far away from still has one face on each side.
        """
        common = common_corners(vertex[a], vertex[b])
        if common[2] > 1:
            return True
        gap = wp.float64(2.0) * slack
        if common[2] == 0:  # a plane's normal is not longer than 1: heights are not overestimated
            if far_from_plane(planes[a], b, corners, gap) or far_from_plane(planes[b], a, corners, gap):
                return True
            return beside(a, b, corners, gap) or beside(b, a, corners, gap)
        i = common[0]
        j = common[1]
        a0 = real_from_to(corners[a, i], corners[a, (i + 1) % 3])
        a1 = real_from_to(corners[a, i], corners[a, (i + 2) % 3])
        b0 = real_from_to(corners[b, j], corners[b, (j + 1) % 3])
        b1 = real_from_to(corners[b, j], corners[b, (j + 2) % 3])
        away = wp.normalize(b0 + b1) - wp.normalize(a0 + a1)
        if between(wp.normalize(away), a0, a1, b0, b1, gap):
            return True
        # Through the middle of the narrower gap between a side of one and a side of the other, across the surface.
        p = wp.normalize(a0)
        q = wp.normalize(b0)
        if wp.dot(wp.normalize(a1), wp.normalize(b0) + wp.normalize(b1)) > wp.dot(p, q + wp.normalize(b1)):
            p = wp.normalize(a1)
        if wp.dot(p, wp.normalize(b1)) > wp.dot(p, q):
            q = wp.normalize(b1)
        up = wp.cross(a0, a1)
        other_up = wp.cross(b0, b1)
        up = wp.normalize(up) + wp.normalize(other_up) * wp.sign(wp.dot(up, other_up))
        across = wp.normalize(wp.cross(up, p + q))
        return between(across * wp.sign(wp.dot(across, away)), a0, a1, b0, b1, gap)

    @wp.func
    def crossings_of_pair(
        a: int,
        b: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
    ):
        """The two ends of the segment in which the faces in slots a and b meet; -1, -1 if they do not.

        0, 1, 2: that side of a passes through b; 3, 4, 5: side 0, 1, 2 of b through a; 6, 7, 8: corner 0, 1, 2 of a
        is one of b, too. A side runs from its corner to the next. Faces in one plane and faces that have a side in
        common do not meet.
        """
        none = wp.vec2i(-1, -1)
        b_sides = sides_of_plane(a, b, corners, vertex, component)
        if not on_both_sides(b_sides):
            return none
        a_sides = sides_of_plane(b, a, corners, vertex, component)
        if not on_both_sides(a_sides):
            return none
        found = none
        common = common_corners(vertex[a], vertex[b])
        if common[2] == 0:
            found = passing_sides(found, a, a_sides, b, 0, corners, vertex, component)
            found = passing_sides(found, b, b_sides, a, 3, corners, vertex, component)
            if found[0] < 0:
                found = none
        elif common[2] == 1:  # one volume tells which of the sides opposite to the common corner passes through
            i = (common[0] + 1) % 3
            j = (common[1] + 1) % 3
            sign = turn(a, i, b, j, corners, vertex, component)
            if sign == b_sides[j]:
                found = wp.vec2i(6 + common[0], i)
            elif sign == a_sides[i]:
                found = wp.vec2i(6 + common[0], 3 + j)
        return found

    @wp.func
    def overlap(a: box, b: box):
        return ((a[1] - b[0]) & (b[1] - a[0]) & BOX_SIGNS) == BOX_SIGNS

    @wp.func
    def packed(low: vec, high: vec):
        """A box out of the coordinates of its corners, below 2^20."""
        lower = wp.int64(low[0]) | (wp.int64(low[1]) << wp.int64(21)) | (wp.int64(low[2]) << wp.int64(42))
        upper = wp.int64(high[0]) | (wp.int64(high[1]) << wp.int64(21)) | (wp.int64(high[2]) << wp.int64(42))
        return box(lower, upper | BOX_SIGNS)

    @wp.func
    def unpacked(corner: wp.int64):
        return vec(
            int(corner & BOX_MASK), int((corner >> wp.int64(21)) & BOX_MASK), int((corner >> wp.int64(42)) & BOX_MASK)
        )

    @wp.func
    def united(a: box, b: box):
        return packed(wp.min(unpacked(a[0]), unpacked(b[0])), wp.max(unpacked(a[1]), unpacked(b[1])))

    @wp.func
    def cell(p: vec, group: int, group_bits: int):
        """Where in the boxes' coordinates a position is; groups lie side by side along x."""
        top = (1 << BOX_BITS) - 1
        x = wp.clamp((p[0] - LOWEST) >> BOX_SHIFT, 0, top) >> group_bits
        y = wp.clamp((p[1] - LOWEST) >> BOX_SHIFT, 0, top)
        z = wp.clamp((p[2] - LOWEST) >> BOX_SHIFT, 0, top)
        return vec(x + (group << (BOX_BITS - group_bits)), y, z)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def order_codes(
        faces: wp.array(dtype=wide),
        points: wp.array(dtype=vec),
        first: int,
        step: int,
        codes: wp.array(dtype=wp.int32),
    ):
        """Where the middle of a face lies on a Z-order curve of 2^30 cells."""
        index = first + step * wp.tid()
        face = faces[index]
        a = points[int(face[0])]
        b = points[int(face[1])]
        c = points[int(face[2])]
        code = int(0)
        for i in range(3):
            bits = ((a[i] >> 2) + (b[i] >> 2) + (c[i] >> 2) + CODE_OFFSET) >> 20  # 0 to 768
            bits = wp.clamp(bits, 0, 1023)
            bits = (bits | (bits << 16)) & 0x030000FF
            bits = (bits | (bits << 8)) & 0x0300F00F
            bits = (bits | (bits << 4)) & 0x030C30C3
            bits = (bits | (bits << 2)) & 0x09249249
            code = code | (bits << i)
        codes[index] = code

    @wp.kernel(module="unique", module_options=OPTIONS)
    def fill_leaves(
        order: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wide),
        points: wp.array(dtype=vec),
        weld: wp.array(dtype=wp.int64),
        group: wp.array(dtype=wp.int32),
        group_bits: int,
        slack: int,
        first: int,
        step: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        planes: wp.array(dtype=plane),
        slot_boxes: wp.array(dtype=box),
        boxes: wp.array(dtype=box),
    ):
        """All about the faces of one leaf, and its own box; boxes with room for moving by `slack`."""
        leaf = first + step * wp.tid()
        leaf_low = vec((1 << BOX_BITS) - 1)
        leaf_high = vec(0)
        for slot in range(leaf * LEAF, wp.min(leaf * LEAF + LEAF, order.shape[0])):
            index = int(order[slot])
            face = faces[index]
            i0 = int(face[0])
            i1 = int(face[1])
            i2 = int(face[2])
            a = points[i0]
            b = points[i1]
            c = points[i2]
            corners[slot, 0] = a
            corners[slot, 1] = b
            corners[slot, 2] = c
            vertex[slot] = vec(int(weld[i0]), int(weld[i1]), int(weld[i2]))
            planes[slot] = plane_through(a, b, c)
            g = group[index % group.shape[0]]
            low = cell(wp.min(wp.min(a, b), c) - vec(slack), g, group_bits)
            high = cell(wp.max(wp.max(a, b), c) + vec(slack), g, group_bits)
            slot_boxes[slot] = packed(low, high)
            leaf_low = wp.min(leaf_low, low)
            leaf_high = wp.max(leaf_high, high)
        boxes[leaf] = packed(leaf_low, leaf_high)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def merge_boxes(begin: int, end: int, first: int, step: int, boxes: wp.array(dtype=box)):
        """Box of a node out of those of the nodes from `begin` to `end`, one level below; its level starts at `end`."""
        node = first + step * wp.tid()
        child = begin + node * BRANCHING
        result = boxes[child]
        for i in range(child + 1, wp.min(child + BRANCHING, end)):
            result = united(result, boxes[i])
        boxes[end + node] = result

    @wp.func
    def visit_pair(
        slot: int,
        other_slot: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wide),
        at: int,
        pairs: wp.array(dtype=two),
        ends: wp.array(dtype=wide),
    ):
        """1 if the faces in two slots meet, and if `at` >= 0 all about it in row `at`."""
        a = slot
        b = other_slot
        if at >= 0 and order[a] > order[b]:  # the face with the lower index first
            a = other_slot
            b = slot
        found = crossings_of_pair(a, b, corners, vertex, component)
        if found[0] < 0:
            return 0
        if at >= 0:
            pairs[at] = two(order[a], order[b])
            for end in range(2):
                of = a
                through = b
                if found[end] // 3 == 1:
                    of = b
                    through = a
                start = found[end] % 3
                stop = (start + 1) % 3
                if found[end] >= 6:
                    stop = start
                elif vertex[of][start] > vertex[of][stop]:  # the same way round for all faces at the edge
                    stop = start
                    start = (start + 1) % 3
                face = faces[int(order[of])]
                ends[2 * at + end] = wide(face[start], face[stop], order[through])
        return 1

    @wp.func
    def visit_leaf(
        leaf: int,
        level_start: wp.array(dtype=wp.int32),
        boxes: wp.array(dtype=box),
        slot_boxes: wp.array(dtype=box),
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        planes: wp.array(dtype=plane),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wide),
        slack: int,
        start: int,
        pairs: wp.array(dtype=two),
        ends: wp.array(dtype=wide),
    ):
        """How many pairs meet of a slot of this leaf and a later slot; they are written from row `start` if >= 0.

        With `slack`, all pairs that might meet once their corners have moved by less than that.
        """
        num_slots = order.shape[0]
        leaf_box = boxes[leaf]
        top = level_start.shape[0] - 2
        level = int(0)
        node = leaf
        count = int(0)
        while level < top or node == 0:  # this leaf, and what is left of the tree to the right of it
            node_box = boxes[level_start[level] + node]
            reached = overlap(leaf_box, node_box)
            if reached and level > 0:
                level -= 1
                node *= BRANCHING
            else:
                if reached:
                    begin = node * LEAF
                    end = wp.min(begin + LEAF, num_slots)
                    for a in range(leaf * LEAF, wp.min(leaf * LEAF + LEAF, num_slots)):
                        slot_box = slot_boxes[a]
                        if overlap(slot_box, node_box):
                            for b in range(wp.max(begin, a + 1), end):
                                if overlap(slot_box, slot_boxes[b]):
                                    at = wp.where(start < 0, -1, start + count)
                                    if slack > 0:
                                        if not stay_apart(a, b, wp.float64(slack), corners, vertex, planes):
                                            if at >= 0:
                                                pairs[at] = two(order[a], order[b])
                                            count += 1
                                    elif may_meet(a, b, corners, vertex, planes):
                                        count += visit_pair(
                                            a, b, corners, vertex, component, order, faces, at, pairs, ends
                                        )
                node += 1
                while level < top and (node % BRANCHING == 0 or node >= level_start[level + 1] - level_start[level]):
                    node = (node + BRANCHING - 1) // BRANCHING
                    level += 1
        return count

    @wp.kernel(module="unique", module_options=OPTIONS)
    def visit_leaves(
        level_start: wp.array(dtype=wp.int32),
        boxes: wp.array(dtype=box),
        slot_boxes: wp.array(dtype=box),
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        planes: wp.array(dtype=plane),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wide),
        slack: int,
        leaves: wp.array(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        first: int,
        step: int,
        counts: wp.array(dtype=wp.int32),
        pairs: wp.array(dtype=two),
        ends: wp.array(dtype=wide),
    ):
        """Count the pairs of some leaves, and write them where `starts` says from which row."""
        i = first + step * wp.tid()
        counts[i] = visit_leaf(
            int(leaves[i]), level_start, boxes, slot_boxes, corners, vertex, planes, component, order, faces,
            slack, int(starts[i]), pairs, ends,
        )  # fmt: skip

    @wp.kernel(module="unique", module_options=OPTIONS)
    def visit_pairs(
        candidates: wp.array(dtype=two),
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        planes: wp.array(dtype=plane),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array(dtype=wide),
        first: int,
        step: int,
        meets: wp.array(dtype=wp.int32),
        pairs: wp.array(dtype=two),
        ends: wp.array(dtype=wide),
    ):
        """Which pairs of slots meet; all about those that do goes to the row of the pair."""
        i = first + step * wp.tid()
        a = int(candidates[i][0])
        b = int(candidates[i][1])
        meets[i] = 0
        if may_meet(a, b, corners, vertex, planes):
            meets[i] = visit_pair(a, b, corners, vertex, component, order, faces, i, pairs, ends)

    return IntersectionKernels(order_codes, fill_leaves, merge_boxes, visit_leaves, visit_pairs)
