"""The Warp kernels that build a tree of rays: which ray is in which slot, and the boxes around them."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math, make_z_code


class RayBoxKernels(NamedTuple):
    """The kernels for one floating-point type."""

    image_slots: Any
    z_codes: Any
    leaf_boxes: Any
    node_boxes: Any


@cache
def make_ray_box_kernels(real: Any) -> RayBoxKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, *_ = make_math(real)
    z_code = make_z_code()
    box6 = wp.types.vector(6, real)
    smallest = wp.constant(real(1.2e-38 if real == wp.float32 else 2.3e-308))

    @wp.func
    def every_other_bit(code: int):
        """The number that the even bits make, of 16."""
        bits = code & 0x5555
        bits = (bits | (bits >> 1)) & 0x3333
        bits = (bits | (bits >> 2)) & 0x0F0F
        return (bits | (bits >> 4)) & 0x00FF

    @wp.kernel(module="unique", module_options=OPTIONS)
    def image_slots(
        num_slots: int, bits: int, columns: int, height: int, width: int, first: int, slots: wp.array(dtype=wp.int64)
    ):
        """The pixel in a slot: along a Z-order curve through tiles of 2^bits x 2^bits, `columns` of them side by side.

        -1 for what is outside of the image."""
        i = first + wp.tid()
        view = i / num_slots
        slot = i - view * num_slots
        tile = slot >> (2 * bits)
        code = slot - (tile << (2 * bits))
        row = tile / columns
        x = ((tile - row * columns) << bits) + every_other_bit(code)
        y = (row << bits) + every_other_bit(code >> 1)
        slots[i] = wp.int64(-1)
        if x < width and y < height:
            slots[i] = (wp.int64(view) * wp.int64(height) + wp.int64(y)) * wp.int64(width) + wp.int64(x)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def z_codes(
        groups: wp.array(dtype=wp.int64), xy: wp.array(dtype=vec2), first: int, codes: wp.array(dtype=wp.int64)
    ):
        """What points are sorted by: their group, then their place along a Z-order curve over pixels."""
        i = first + wp.tid()
        codes[i] = (groups[i] << wp.int64(32)) | z_code(wp.float64(xy[i][0]), wp.float64(xy[i][1]))

    @wp.func
    def emptiness():
        """The bounds of nothing: least coordinates, and the largest with a minus."""
        return box6(real(wp.inf), real(wp.inf), real(wp.inf), real(wp.inf), real(wp.inf), real(wp.inf))

    @wp.func
    def around(p: vec3):
        return box6(p[0], p[1], p[2], -p[0], -p[1], -p[2])

    @wp.func
    def stored_bounds(place: int, centers: wp.array(dtype=vec3), halves: wp.array(dtype=vec3)):
        low = centers[place]
        high = halves[place]
        return box6(low[0], low[1], low[2], high[0], high[1], high[2])

    @wp.func
    def store_box(bounds: box6, place: int, centers: wp.array(dtype=vec3), halves: wp.array(dtype=vec3)):
        """For those who look for rays: a negative half if there are none."""
        low = vec3(bounds[0], bounds[1], bounds[2])
        high = -vec3(bounds[3], bounds[4], bounds[5])
        center = vec3(real(0.0))
        half = vec3(real(-1.0))
        if low[0] <= high[0]:
            center = real(0.5) * low + real(0.5) * high
            half = wp.max(high - center, center - low)
        centers[place] = center
        halves[place] = half

    @wp.func
    def store(bounds: box6, place: int, in_level: int, centers: wp.array(dtype=vec3), halves: wp.array(dtype=vec3)):
        """The bounds, for the node above; of the only node of a level, which has none above, the box."""
        if in_level == 1:
            store_box(bounds, place, centers, halves)
        else:
            centers[place] = vec3(bounds[0], bounds[1], bounds[2])
            halves[place] = vec3(bounds[3], bounds[4], bounds[5])

    @wp.func
    def merged(first_child: int, children: int, centers: wp.array(dtype=vec3), halves: wp.array(dtype=vec3)):
        """The bounds of so many nodes, which then become boxes."""
        bounds = emptiness()
        for child in range(first_child, first_child + children):
            of_child = stored_bounds(child, centers, halves)
            bounds = wp.min(bounds, of_child)
            store_box(of_child, child, centers, halves)
        return bounds

    @wp.kernel(module="unique", module_options=OPTIONS)
    def leaf_boxes(
        slots: wp.array(dtype=wp.int64),
        num_slots: int,
        leaves: int,
        nodes: int,
        branching: int,
        origins: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        central: int,
        first: int,
        kept: wp.array(dtype=wp.int64),
        centers: wp.array(dtype=vec3),
        halves: wp.array(dtype=vec3),
        moment_centers: wp.array(dtype=vec3),
        moment_halves: wp.array(dtype=vec3),
    ):
        """Bounds of the unit directions, and of the moments, of the rays in the slots of a leaf; NaN rays have none."""
        i = first + wp.tid()
        view = i / leaves
        leaf = i - view * leaves
        place = view * nodes + leaf
        bounds = emptiness()
        moments = emptiness()
        for slot in range(leaf * branching, wp.min((leaf + 1) * branching, num_slots)):
            ray = slots[view * num_slots + slot]
            if ray >= wp.int64(0):
                d = directions[int(ray)]
                o = vec3(real(0.0))
                if central == 0:
                    o = origins[int(ray)]
                if wp.isfinite(d) and wp.isfinite(o):
                    unit = d / wp.max(wp.length(d), smallest)
                    bounds = wp.min(bounds, around(unit))
                    if central == 0:
                        moments = wp.min(moments, around(wp.cross(o, unit)))
                else:
                    ray = wp.int64(-1)
            kept[view * num_slots + slot] = ray
        store(bounds, place, leaves, centers, halves)
        if central == 0:
            store(moments, place, leaves, moment_centers, moment_halves)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def node_boxes(
        start: int,
        count: int,
        start_below: int,
        count_below: int,
        nodes: int,
        branching: int,
        first: int,
        centers: wp.array(dtype=vec3),
        halves: wp.array(dtype=vec3),
    ):
        """Bounds of the nodes of a level, out of those of the level below, which become boxes."""
        i = first + wp.tid()
        view = i / count
        node = i - view * count
        below = node * branching
        children = wp.min(branching, count_below - below)
        bounds = merged(view * nodes + start_below + below, children, centers, halves)
        store(bounds, view * nodes + start + node, count, centers, halves)

    return RayBoxKernels(image_slots, z_codes, leaf_boxes, node_boxes)
