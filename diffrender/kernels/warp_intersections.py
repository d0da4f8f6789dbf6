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
nodes make a node of the next level, and one node is the root. The group of a face is the fourth coordinate of its box.
"""

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS

LEAF = wp.constant(8)
BRANCHING = wp.constant(4)
GRID_BITS = 29  # positions lie between -2^29 and 2^29, give or take a step
EMPTY = wp.constant(2**30)  # lower bound of a box that holds nothing; the upper one is its negative
LOW_BITS = wp.constant(wp.int64(31))
LOW_MASK = wp.constant(wp.int64(2**31 - 1))
HASH_FACTOR_1 = wp.constant(wp.uint32(0x7FEB352D))
HASH_FACTOR_2 = wp.constant(wp.uint32(0x846CA68B))
COMMON_RANGE = wp.constant(wp.int64(2**26))
OWN_RANGE = wp.constant(wp.int64(2**12))
CODE_OFFSET = wp.constant(3 * 2**27)


class IntersectionKernels(NamedTuple):
    """The kernels; they know integers only."""

    order_codes: Any
    fill_leaves: Any
    merge_boxes: Any
    visit_leaves: Any


@cache
def make_intersection_kernels(_: Any) -> IntersectionKernels:
    """The kernels, for every floating-point type the same; nothing compiles before a launch."""
    vec = wp.types.vector(3, wp.int32)
    box = wp.types.vector(4, wp.int32)
    wide = wp.types.vector(3, wp.int64)
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
    def sign_of(sum: halves):
        """Sign of a number in halves, or of a few of them added up."""
        high = sum[0] + (sum[1] >> LOW_BITS)
        sign = int(1)
        if high < wp.int64(0):
            sign = -1
        elif high == wp.int64(0) and (sum[1] & LOW_MASK) == wp.int64(0):
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
    def sides_of_plane(face: int, other: int, corners: wp.array2d(dtype=vec)):
        """On which sides of the plane of a face the corners of another one lie: -1, 1, or 0 in it; 2: both in one."""
        a = corners[face, 0]
        normal = minors(from_to(a, corners[face, 1]), from_to(a, corners[face, 2]))
        result = wp.vec3i(
            sign_of(volume(normal, from_to(a, corners[other, 0]))),
            sign_of(volume(normal, from_to(a, corners[other, 1]))),
            sign_of(volume(normal, from_to(a, corners[other, 2]))),
        )
        flat = normal == wide()  # no area, no plane
        if result == wp.vec3i() and not flat:
            result = wp.vec3i(2, 2, 2)
        return result

    @wp.func
    def nudged_sides(
        sides: wp.vec3i,
        face: int,
        other: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
    ):
        """The same once all corners are nudged; what is still 0 is a corner of both."""
        result = sides
        a = corners[face, 0]
        for i in range(3):
            if sides[i] == 0:
                result[i] = nudged_sign(
                    from_to(a, corners[other, i]),
                    from_to(a, corners[face, 1]),
                    from_to(a, corners[face, 2]),
                    vertex[face][0],
                    vertex[other][i],
                    vertex[face][1],
                    vertex[face][2],
                    component,
                )
        return result

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
        """Put the sides of a face that pass through another one behind what was found; `ends` from `nudged_sides`."""
        result = found
        for side in range(3):
            if ends[side] * ends[(side + 1) % 3] < 0:
                sign = turn(face, side, other, 0, corners, vertex, component)
                same = sign == turn(face, side, other, 1, corners, vertex, component)
                if same and sign == turn(face, side, other, 2, corners, vertex, component):
                    result = wp.vec2i(result[1], first_name + side)
        return result

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
        p = vertex[a]
        q = vertex[b]
        shared = int(0)
        common = int(-1)
        for i in range(3):
            if p[i] == q[0] or p[i] == q[1] or p[i] == q[2]:
                shared += 1
                common = i
        if shared > 1:
            return none
        b_sides = sides_of_plane(a, b, corners)
        if wp.min(b_sides) > 0 or wp.max(b_sides) < 0:
            return none
        b_sides = nudged_sides(b_sides, a, b, corners, vertex, component)
        if not on_both_sides(b_sides):
            return none
        a_sides = nudged_sides(sides_of_plane(b, a, corners), b, a, corners, vertex, component)
        if not on_both_sides(a_sides):
            return none
        found = none
        if shared == 1:
            found = wp.vec2i(-1, 6 + common)
        found = passing_sides(found, a, a_sides, b, 0, corners, vertex, component)
        found = passing_sides(found, b, b_sides, a, 3, corners, vertex, component)
        if found[0] < 0:
            found = none
        return found

    @wp.func
    def overlap(low: box, high: box, other_low: box, other_high: box):
        return (
            low[0] <= other_high[0] and other_low[0] <= high[0]
            and low[1] <= other_high[1] and other_low[1] <= high[1]
            and low[2] <= other_high[2] and other_low[2] <= high[2]
            and low[3] <= other_high[3] and other_low[3] <= high[3]
        )  # fmt: skip

    @wp.kernel(module="unique", module_options=OPTIONS)
    def order_codes(
        faces: wp.array2d(dtype=wp.int64),
        points: wp.array(dtype=vec),
        first: int,
        step: int,
        codes: wp.array(dtype=wp.int32),
    ):
        """Where the middle of a face lies on a Z-order curve of 2^30 cells."""
        face = first + step * wp.tid()
        a = points[int(faces[face, 0])]
        b = points[int(faces[face, 1])]
        c = points[int(faces[face, 2])]
        code = int(0)
        for i in range(3):
            cell = ((a[i] >> 2) + (b[i] >> 2) + (c[i] >> 2) + CODE_OFFSET) >> 20  # 0 to 768
            cell = wp.clamp(cell, 0, 1023)
            cell = (cell | (cell << 16)) & 0x030000FF
            cell = (cell | (cell << 8)) & 0x0300F00F
            cell = (cell | (cell << 4)) & 0x030C30C3
            cell = (cell | (cell << 2)) & 0x09249249
            code = code | (cell << i)
        codes[face] = code

    @wp.kernel(module="unique", module_options=OPTIONS)
    def fill_leaves(
        order: wp.array(dtype=wp.int64),
        faces: wp.array2d(dtype=wp.int64),
        points: wp.array(dtype=vec),
        weld: wp.array(dtype=wp.int64),
        group: wp.array(dtype=wp.int32),
        first: int,
        step: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        slot_low: wp.array(dtype=box),
        slot_high: wp.array(dtype=box),
        low: wp.array(dtype=box),
        high: wp.array(dtype=box),
    ):
        """Corners, welded vertices and boxes of the faces of one leaf, and its own box."""
        leaf = first + step * wp.tid()
        leaf_low = box(EMPTY, EMPTY, EMPTY, EMPTY)
        leaf_high = -leaf_low
        for slot in range(leaf * LEAF, wp.min(leaf * LEAF + LEAF, order.shape[0])):
            face = int(order[slot])
            face_low = box(EMPTY, EMPTY, EMPTY, EMPTY)
            face_high = -face_low
            welded = vec()
            for i in range(3):
                index = int(faces[face, i])
                p = points[index]
                corners[slot, i] = p
                welded[i] = int(weld[index])
                point = box(p[0], p[1], p[2], group[face % group.shape[0]])
                face_low = wp.min(face_low, point)
                face_high = wp.max(face_high, point)
            vertex[slot] = welded
            slot_low[slot] = face_low
            slot_high[slot] = face_high
            leaf_low = wp.min(leaf_low, face_low)
            leaf_high = wp.max(leaf_high, face_high)
        low[leaf] = leaf_low
        high[leaf] = leaf_high

    @wp.kernel(module="unique", module_options=OPTIONS)
    def merge_boxes(begin: int, end: int, first: int, step: int, low: wp.array(dtype=box), high: wp.array(dtype=box)):
        """Box of a node out of those of the nodes from `begin` to `end`, one level below; its level starts at `end`."""
        node = first + step * wp.tid()
        node_low = box(EMPTY, EMPTY, EMPTY, EMPTY)
        node_high = -node_low
        child = begin + node * BRANCHING
        for i in range(child, wp.min(child + BRANCHING, end)):
            node_low = wp.min(node_low, low[i])
            node_high = wp.max(node_high, high[i])
        low[end + node] = node_low
        high[end + node] = node_high

    @wp.func
    def visit_pair(
        slot: int,
        other_slot: int,
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array2d(dtype=wp.int64),
        at: int,
        pairs: wp.array2d(dtype=wp.int64),
        ends: wp.array2d(dtype=wp.int64),
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
            pairs[at, 0] = order[a]
            pairs[at, 1] = order[b]
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
                ends[2 * at + end, 0] = faces[int(order[of]), start]
                ends[2 * at + end, 1] = faces[int(order[of]), stop]
                ends[2 * at + end, 2] = order[through]
        return 1

    @wp.func
    def visit_leaf(
        leaf: int,
        level_start: wp.array(dtype=wp.int32),
        low: wp.array(dtype=box),
        high: wp.array(dtype=box),
        slot_low: wp.array(dtype=box),
        slot_high: wp.array(dtype=box),
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array2d(dtype=wp.int64),
        start: int,
        pairs: wp.array2d(dtype=wp.int64),
        ends: wp.array2d(dtype=wp.int64),
    ):
        """How many pairs meet of a slot of this leaf and a later slot; they are written from row `start` if >= 0."""
        num_slots = order.shape[0]
        begin = leaf * LEAF
        end = wp.min(begin + LEAF, num_slots)
        count = int(0)
        for a in range(begin, end):
            for b in range(a + 1, end):
                if overlap(slot_low[a], slot_high[a], slot_low[b], slot_high[b]):
                    at = wp.where(start < 0, -1, start + count)
                    count += visit_pair(a, b, corners, vertex, component, order, faces, at, pairs, ends)

        leaf_low = low[leaf]
        leaf_high = high[leaf]
        top = level_start.shape[0] - 2
        level = int(0)
        node = leaf
        while level < top or node == 0:  # what is left of the tree to the right of this leaf
            node_box = level_start[level] + node
            reached = bool(False)
            if node_box != leaf:
                reached = overlap(leaf_low, leaf_high, low[node_box], high[node_box])
            if reached and level > 0:
                level -= 1
                node *= BRANCHING
            else:
                if reached:
                    for a in range(begin, end):
                        if overlap(slot_low[a], slot_high[a], low[node_box], high[node_box]):
                            for b in range(node * LEAF, wp.min(node * LEAF + LEAF, num_slots)):
                                if overlap(slot_low[a], slot_high[a], slot_low[b], slot_high[b]):
                                    at = wp.where(start < 0, -1, start + count)
                                    count += visit_pair(a, b, corners, vertex, component, order, faces, at, pairs, ends)
                node += 1
                while level < top and (node % BRANCHING == 0 or node >= level_start[level + 1] - level_start[level]):
                    node = (node + BRANCHING - 1) // BRANCHING
                    level += 1
        return count

    @wp.kernel(module="unique", module_options=OPTIONS)
    def visit_leaves(
        level_start: wp.array(dtype=wp.int32),
        low: wp.array(dtype=box),
        high: wp.array(dtype=box),
        slot_low: wp.array(dtype=box),
        slot_high: wp.array(dtype=box),
        corners: wp.array2d(dtype=vec),
        vertex: wp.array(dtype=vec),
        component: wp.array(dtype=wp.int32),
        order: wp.array(dtype=wp.int64),
        faces: wp.array2d(dtype=wp.int64),
        leaves: wp.array(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        first: int,
        step: int,
        counts: wp.array(dtype=wp.int32),
        pairs: wp.array2d(dtype=wp.int64),
        ends: wp.array2d(dtype=wp.int64),
    ):
        """Count the pairs of some leaves, and write them where `starts` says from which row."""
        i = first + step * wp.tid()
        counts[i] = visit_leaf(
            int(leaves[i]), level_start, low, high, slot_low, slot_high, corners, vertex, component, order, faces,
            int(starts[i]), pairs, ends,
        )  # fmt: skip

    return IntersectionKernels(order_codes, fill_leaves, merge_boxes, visit_leaves)
