"""The Warp kernels of faces that a lens bends: which of them, and cutting these in four."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math

DROP = wp.constant(0)
KEEP = wp.constant(1)
CUT = wp.constant(2)


class BentFaceKernels(NamedTuple):
    """The kernels for one floating-point type."""

    side_middles: Any
    judge: Any
    cut_in_four: Any


@cache
def make_bent_face_kernels(real: Any) -> BentFaceKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, *_ = make_math(real)
    wide2 = wp.types.vector(2, wp.float64)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def side_middles(points: wp.array2d(dtype=vec3), first: int, middles: wp.array2d(dtype=vec3)):
        """Of the sides 0 1, 1 2 and 2 0."""
        i = first + wp.tid()
        for side in range(3):
            middles[i, side] = real(0.5) * (points[i, side] + points[i, (side + 1) % 3])

    @wp.kernel(module="unique", module_options=OPTIONS)
    def judge(
        triangles: wp.array2d(dtype=wide2),
        middles: wp.array2d(dtype=vec2),
        max_sag: wp.float64,
        jump: wp.float64,
        max_width: wp.float64,
        first: int,
        verdicts: wp.array(dtype=wp.uint8),
    ):
        """What to do with a face; a sag or a width that is negative does not count."""
        i = first + wp.tid()
        half = wp.float64(0.5)
        jumps = bool(False)
        sag = wp.float64(0.0)  # times a side's length, which stays NaN where one is
        longest = wp.float64(0.0)
        for side in range(3):
            start = triangles[i, side]
            along = triangles[i, (side + 1) % 3] - start
            to_middle = wide2(wp.float64(middles[i, side][0]), wp.float64(middles[i, side][1])) - start
            length = wp.length(along)
            between = wp.abs(along[0] * to_middle[1] - along[1] * to_middle[0])
            sag = wp.where(between > sag or between != between, between, sag)
            jumps = jumps or wp.length(to_middle - half * along) > jump * length
            longest = wp.max(longest, length)
        one = triangles[i, 1] - triangles[i, 0]
        two = triangles[i, 2] - triangles[i, 1]
        area = wp.abs(one[0] * two[1] - one[1] * two[0])
        bent = jumps
        if max_sag >= wp.float64(0.0):
            bent = sag > max_sag * area
        verdict = wp.where(bent, CUT, KEEP)
        if max_width >= wp.float64(0.0) and not jumps and not (area < max_width * longest):
            verdict = DROP
        verdicts[i] = wp.uint8(verdict)

    @wp.func
    def end_of(child: int, corner: int):
        """The end of a child, out of the parent's corners 0, 1, 2 and the middles 3, 4, 5 of its sides."""
        end = corner + 3  # of the child in the middle
        if child == 0:
            end = wp.where(corner == 0, 0, wp.where(corner == 1, 3, 5))
        elif child == 1:
            end = wp.where(corner == 0, 3, wp.where(corner == 1, 1, 4))
        elif child == 2:
            end = wp.where(corner == 0, 5, wp.where(corner == 1, 4, 2))
        return end

    @wp.kernel(module="unique", module_options=OPTIONS)
    def cut_in_four(
        parents: wp.array(dtype=wp.int64),
        points: wp.array2d(dtype=vec3),
        depths: wp.array2d(dtype=real),
        triangles: wp.array2d(dtype=wide2),
        middle_points: wp.array2d(dtype=vec3),
        middle_depths: wp.array2d(dtype=real),
        middle_xy: wp.array2d(dtype=vec2),
        first: int,
        child_points: wp.array2d(dtype=vec3),
        child_depths: wp.array2d(dtype=real),
        child_triangles: wp.array2d(dtype=wide2),
    ):
        """A quarter of a face, between corners and middles of its sides."""
        i = first + wp.tid()
        parent = int(parents[i // 4])
        for corner in range(3):
            end = end_of(i % 4, corner)
            if end < 3:
                child_points[i, corner] = points[parent, end]
                child_depths[i, corner] = depths[parent, end]
                child_triangles[i, corner] = triangles[parent, end]
            else:
                xy = middle_xy[parent, end - 3]
                child_points[i, corner] = middle_points[parent, end - 3]
                child_depths[i, corner] = middle_depths[parent, end - 3]
                child_triangles[i, corner] = wide2(wp.float64(xy[0]), wp.float64(xy[1]))

    return BentFaceKernels(side_middles, judge, cut_in_four)
