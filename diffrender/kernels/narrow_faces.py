"""In which parts of pixels narrow faces are looked up, and where on their surface."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .arrays import array, vectors
from .clipping import PixelParts
from .launch import launch_ranges, load_kernel
from .sorting import sort_keys, where_true
from .warp_narrow_faces import make_narrow_face_kernels

MIN_SHARE = 32768  # fewer parts are not worth a second thread
GROUPS = 8  # of a view: front and back, and quadrants that normals point to
UNIT = 1 << 20  # ticks of a look-up: shares are counted in whole numbers, which have one sum in whatever order


@dataclass(frozen=True, eq=False)
class LookUps:
    """K look-ups, in the order of views and, within them, along a Z-order curve over the image.

    Attributes:
        part: [K] index into the parts of pixels.
        points: [K, 3] on the surface, camera frame.
        xy: [K, 2] the centroid of the part.
        area: [K] in pixels: that of the part, or more, where it speaks for others as well.
        marked: [C] bool, which faces have a part that counts.
    """

    part: Tensor
    points: Tensor
    xy: Tensor
    area: Tensor
    marked: Tensor


def choose_lookups(
    parts: PixelParts,
    triangles: Tensor,
    view: Tensor,
    grain: Tensor,
    whole: Tensor,
    points: Tensor,
    depth: Tensor,
    *,
    num_views: int,
    min_area: float,
    surface: float,
    central: bool,
) -> LookUps:
    """Choose the parts of pixels that are looked up, and find out where.

    Each part has a share of a look-up, 1 or its surface (`area / grain`) over `surface` if that is less. One is chosen
    wherever the sum of the shares so far, and a half, passes a whole number, and speaks for as much as its share is
    less than 1: systematic sampling, right on average, and bounded by the surface however many faces it is made of.

    Args:
        parts: of the `triangles` [C, 3, 2] (pixels, float64) of faces; those of no more than `min_area` do not count.
        view, grain, whole: [C] of each face; how much of the image shows as much surface as a pixel that sees it from
            ahead; what it is part of, which is what is marked.
        points: [C, 3, 3] the corners, camera frame.
        depth: [C, 3] of the corners.
        num_views: all views are below.
        central: the rays start in one point.
    """
    device, count, unit = view.device, len(parts.area), float(UNIT)
    codes, ticks = torch.empty(2, count, dtype=torch.int64, device=device)
    marked = torch.zeros(len(view), dtype=torch.uint8, device=device)
    owners, areas, centroids = array(parts.triangle), array(parts.area), vectors(parts.centroid)
    corners = vectors(triangles)
    inputs = [
        owners, areas, centroids, corners, array(view), array(grain), array(whole), vectors(points),
        min_area, surface, unit
    ]  # fmt: skip
    kernel = load_kernel(make_narrow_face_kernels, "part_codes", points)
    launch_ranges(kernel, count, inputs, [array(codes), array(ticks), array(marked)], points, MIN_SHARE)

    codes, order = sort_keys(codes)
    totals = ticks.index_select(0, order).cumsum(0)
    starts = torch.searchsorted(codes, torch.arange(GROUPS * num_views, device=device) << 32)
    flags = torch.empty(count, dtype=torch.uint8, device=device)
    inputs = [array(x) for x in (codes, order, ticks, totals, starts)]
    kernel = load_kernel(make_narrow_face_kernels, "choose", points)
    launch_ranges(kernel, count, [*inputs, UNIT], [array(flags)], points, MIN_SHARE)

    part = order.index_select(0, where_true(flags))
    at, xy, area = points.new_empty(len(part), 3), points.new_empty(len(part), 2), points.new_empty(len(part))
    inputs = [array(part), owners, areas, centroids, array(ticks), corners, vectors(points), array(depth)]
    kernel = load_kernel(make_narrow_face_kernels, "look_ups", points)
    outputs = [vectors(at), vectors(xy), array(area)]
    launch_ranges(kernel, len(part), [*inputs, unit, int(central)], outputs, points, MIN_SHARE)
    return LookUps(part, at, xy, area, marked.view(torch.bool))
