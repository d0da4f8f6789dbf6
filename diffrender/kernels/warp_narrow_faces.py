"""The Warp kernels of `narrow_faces`: in which parts of pixels these are looked up, and where on their surface."""

# mypy: ignore-errors
# (Warp's language, not Python's)

from functools import cache
from typing import Any, NamedTuple

import warp as wp

from .warp_math import OPTIONS, make_math, make_z_code


class NarrowFaceKernels(NamedTuple):
    """The kernels for one floating-point type."""

    part_codes: Any
    choose: Any
    look_ups: Any


@cache
def make_narrow_face_kernels(real: Any) -> NarrowFaceKernels:
    """The kernels for `real` (`wp.float32` or `wp.float64`); nothing compiles before a launch."""
    vec2, vec3, *_ = make_math(real)
    z_code = make_z_code()
    wide2 = wp.types.vector(2, wp.float64)
    wide3 = wp.types.vector(3, wp.float64)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def part_codes(
        owners: wp.array(dtype=wp.int64),
        areas: wp.array(dtype=wp.float64),
        centroids: wp.array(dtype=wide2),
        triangles: wp.array2d(dtype=wide2),
        views: wp.array(dtype=wp.int64),
        grains: wp.array(dtype=real),
        wholes: wp.array(dtype=wp.int64),
        points: wp.array2d(dtype=vec3),
        min_area: wp.float64,
        surface: wp.float64,
        unit: wp.float64,
        first: int,
        codes: wp.array(dtype=wp.int64),
        ticks: wp.array(dtype=wp.int64),
        marked: wp.array(dtype=wp.uint8),
    ):
        """What a part is sorted by; its share of a look-up in ticks, `unit` of which are one; what has parts."""
        i = first + wp.tid()
        owner = owners[i]
        p = triangles[owner, 0]
        q = triangles[owner, 1] - p
        r = triangles[owner, 2] - p
        # Neighbours in the image share look-ups; not so what faces the camera and what is behind it, nor what is
        # turned to other sides.
        group = wp.int64(2) * views[owner]
        if q[0] * r[1] > q[1] * r[0]:
            group += wp.int64(1)
        corner = points[owner, 0]
        normal = wp.cross(points[owner, 1] - corner, points[owner, 2] - corner)
        for axis in range(2):
            group = wp.int64(2) * group
            if normal[axis] > real(0.0):
                group += wp.int64(1)
        centroid = centroids[i]
        codes[i] = (group << wp.int64(32)) | z_code(centroid[0], centroid[1])
        ticks[i] = wp.int64(0)
        if areas[i] > min_area:
            share = wp.min(areas[i] / (surface * wp.float64(grains[owner])), wp.float64(1.0))
            ticks[i] = wp.max(wp.int64(wp.round(share * unit)), wp.int64(1))
            marked[int(wholes[owner])] = wp.uint8(1)

    @wp.kernel(module="unique", module_options=OPTIONS)
    def choose(
        codes: wp.array(dtype=wp.int64),
        order: wp.array(dtype=wp.int64),
        ticks: wp.array(dtype=wp.int64),
        totals: wp.array(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        unit: wp.int64,
        first: int,
        chosen: wp.array(dtype=wp.uint8),
    ):
        """Whether the sum of shares so far in a group, and a half, passes a whole number at this part."""
        i = first + wp.tid()
        total = totals[i] + unit / wp.int64(2)
        start = starts[int(codes[i] >> wp.int64(32))]
        if start > wp.int64(0):
            total -= totals[start - wp.int64(1)]
        before = total - ticks[order[i]]
        chosen[i] = wp.uint8(wp.where(total / unit > before / unit, 1, 0))

    @wp.kernel(module="unique", module_options=OPTIONS)
    def look_ups(
        chosen: wp.array(dtype=wp.int64),
        owners: wp.array(dtype=wp.int64),
        areas: wp.array(dtype=wp.float64),
        centroids: wp.array(dtype=wide2),
        ticks: wp.array(dtype=wp.int64),
        triangles: wp.array2d(dtype=wide2),
        points: wp.array2d(dtype=vec3),
        depths: wp.array2d(dtype=real),
        unit: wp.float64,
        central: int,
        first: int,
        surface_points: wp.array(dtype=vec3),
        xy: wp.array(dtype=vec2),
        counted: wp.array(dtype=real),
    ):
        """Where on the surface the centroid of a chosen part is seen, and the area that this speaks for."""
        i = first + wp.tid()
        part = chosen[i]
        owner = owners[part]
        centroid = centroids[part]
        a = triangles[owner, 0] - centroid
        b = triangles[owner, 1] - centroid
        c = triangles[owner, 2] - centroid
        # Areas opposite to the corners.
        opposite = wide3(
            wp.abs(b[0] * c[1] - b[1] * c[0]), wp.abs(c[0] * a[1] - c[1] * a[0]), wp.abs(a[0] * b[1] - a[1] * b[0])
        )
        weights = vec3(real(opposite[0]), real(opposite[1]), real(opposite[2]))
        if central != 0:  # perspective: what is nearer fills more of the image
            weights = vec3(weights[0] / depths[owner, 0], weights[1] / depths[owner, 1], weights[2] / depths[owner, 2])
        weights = weights / (weights[0] + weights[1] + weights[2])
        surface_points[i] = (weights[0] * points[owner, 0] + weights[1] * points[owner, 1]) + weights[2] * points[
            owner, 2
        ]
        xy[i] = vec2(real(centroid[0]), real(centroid[1]))
        counted[i] = real(areas[part] * (unit / wp.float64(ticks[part])))

    return NarrowFaceKernels(part_codes, choose, look_ups)
