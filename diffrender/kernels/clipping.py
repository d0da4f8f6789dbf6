"""Faces that are seen steeply, and triangles in the image cut at the borders of pixels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..topology import Topology
from .arrays import array, vectors
from .launch import LANES, launch_ranges, load_kernel
from .sorting import where_true
from .warp_clipping import make_clipping_kernels

MIN_SHARE = 16384  # fewer faces or parts are not worth a second thread


@dataclass(frozen=True, eq=False)
class PixelParts:
    """K pairs of a triangle and a pixel, ordered by triangle, row and column.

    Attributes:
        triangle: [K] index.
        pixel: [K] index into the H * W pixels.
        area: [K] of the triangle's part inside the pixel; pairs that only almost touch have 0, give or take a rounding.
        centroid: [K, 2] of that part, in pixels.
    """

    triangle: Tensor
    pixel: Tensor
    area: Tensor
    centroid: Tensor


def steep_faces(
    vertices: Tensor,
    xy: Tensor,
    usable: Tensor,
    faces: Tensor,
    size: tuple[int, int],
    topology: Topology,
    *,
    max_cosine: float,
    max_width: float,
    max_radius: float,
    border: float,
    max_length: float = math.inf,
    cull: bool = False,
    copies: int = 1,
    eyes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The faces that are narrow in the image, and seen at a small angle to their plane or beside a sharp bend.

    Args:
        vertices: [P, 3] camera frame; `copies` of all vertices one after another.
        xy: [P, 2] their pixels; only read for vertices that are `usable` [P], bool.
        faces: [F, 3] indices of one copy.
        size: (height, width) of the image; faces beside it are left out.
        topology: of the mesh: which faces are beyond the sides of a face.
        max_cosine: of the angle between a face's normal and the ray to its middle; faces without area have none.
        max_width: pixels between the longest side of a face in the image and the opposite corner.
        max_radius: pixels, around which the surface bends at one of a face's sides; it does so by the distance of unit
            normals over the height of the face.
        border: that distance, squared, where no face is beyond the side, or more than one.
        max_length: pixels; longer faces are taken for narrow, too: they may be, across the seam of a panorama.
        cull: leave out faces seen from behind.
        eyes: [copies * F, 3] where the rays to the middles of the faces start; None: in the origin.

    Returns:
        Index [C], ascending, into the copies * F faces; and [C] how fine they are: how much of the image shows as much
        surface as a pixel that sees it from ahead, |cos|, less where it bends around less than `max_radius`.
    """
    kernel = load_kernel(
        make_clipping_kernels, "steep_faces", vertices, LANES[vertices.device.type]
    )  # before there are arrays: it starts Warp
    count = copies * faces.shape[0]
    grains = vertices.new_zeros(count)
    inputs = [
        vectors(vertices),
        vectors(xy),
        array(usable.view(torch.uint8)),
        array(faces.contiguous()),
        vertices.shape[0] // copies,
        vectors(vertices if eyes is None else eyes),
        int(eyes is None),
        (float(size[1]), float(size[0])),
        max_cosine,
        max_width,
        max_length,
        max_radius,
        border,
        array(topology.face_edges),
        array(topology.edge_start),
        array(topology.edge_halfedges),
        int(cull),
    ]
    launch_ranges(kernel, count, inputs, [array(grains)], vertices, MIN_SHARE)
    found = where_true(grains >= 0)
    return found, grains.index_select(0, found)


def clip_to_pixels(triangles: Tensor, size: tuple[int, int]) -> PixelParts:
    """Cut triangles [T, 3, 2] (finite pixels, float64, either orientation) at the pixels of a (height, width) image."""
    assert triangles.dtype == torch.float64, "areas of slivers want all digits"
    lanes = LANES[triangles.device.type]
    counting, listing, filling = (
        load_kernel(make_clipping_kernels, name, triangles, lanes)
        for name in ("count_pixels", "list_pixels", "fill_pixels")
    )
    count, device = triangles.shape[0], triangles.device
    counts = torch.zeros(count, dtype=torch.int32, device=device)
    corners = vectors(triangles)
    launch_ranges(counting, count, [corners, *size], [array(counts)], triangles, MIN_SHARE)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if count else 0
    triangle, pixel = torch.empty(2, total, dtype=torch.int64, device=device)
    area, centroid = triangles.new_empty(total), triangles.new_empty(total, 2)
    pairs = [array(triangle), array(pixel)]
    if total:
        launch_ranges(listing, count, [corners, array(ends - counts), *size], pairs, triangles, MIN_SHARE)
        outputs = [array(area), vectors(centroid)]
        inputs = [corners, *pairs, size[1]]
        launch_ranges(filling, -(-total // lanes), inputs, outputs, triangles, max(MIN_SHARE // lanes, 1))
    return PixelParts(triangle, pixel, area, centroid)


def clip_to_pixels_reference(triangles: Tensor, size: tuple[int, int]) -> PixelParts:
    """The kernel's arithmetic in plain torch, every triangle with every pixel; only pairs with an area come back."""
    height, width = size
    index = torch.arange(height * width, device=triangles.device)
    corner = torch.stack([index % width, index // width], dim=-1).to(triangles.dtype)
    p = triangles.unsqueeze(1) - corner.unsqueeze(1)  # [T, H * W, 3, 2]
    total = _side_integrals(p, p.roll(-1, dims=2)).sum(2)
    triangle, pixel = (total[..., 0] != 0).nonzero(as_tuple=True)
    part = total[triangle, pixel]
    return PixelParts(triangle, pixel, part[:, 0].abs(), corner[pixel] + part[:, 1:] / part[:, :1])


def _side_integrals(p: Tensor, q: Tensor) -> Tensor:
    """[..., 3] area and first moments between sides p q [..., 2] and the y axis, within the unit square."""

    def crossings(axis: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        start, step = p[..., axis], (q - p)[..., axis]
        flat = step == 0
        step = torch.where(flat, 1.0, step)
        first, last = (-start / step).clamp(low, high), ((1 - start) / step).clamp(low, high)
        return torch.where(flat, low, torch.minimum(first, last)), torch.where(flat, high, torch.maximum(first, last))

    def piece(begin: Tensor, end: Tensor) -> Tensor:
        x0, x1 = ((p + t.unsqueeze(-1) * (q - p))[..., 0].clamp(0, 1) for t in (begin, end))
        y0, y1 = ((p + t.unsqueeze(-1) * (q - p))[..., 1] for t in (begin, end))
        means = [(x0 + x1) / 2, (x0 * x0 + x0 * x1 + x1 * x1) / 6, (2 * (x0 * y0 + x1 * y1) + x0 * y1 + x1 * y0) / 6]
        return torch.stack(means, dim=-1) * (y1 - y0).unsqueeze(-1)

    zero = torch.zeros_like(p[..., 0])
    begin, end = crossings(1, zero, zero + 1)
    first, last = crossings(0, begin, end)
    return piece(begin, first) + piece(first, last) + piece(last, end)
