"""What the boundary asks of edges, as functions on tensors: see `boundary`."""

from typing import Any

import torch
from torch import Tensor

from ..topology import Topology
from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .sorting import sort_keys, where_true
from .warp_edges import COUNT, NO_CANDIDATE, WRITE, make_edge_kernels

MIN_EDGES = 16384  # fewer are not worth a second thread


def seen_from_outside(vertices: Tensor, faces: Tensor, vertex_stride: int, copies: int) -> Tensor:
    """[copies * F] bool, whether the outside of faces [F, 3] is turned towards the origin.

    `vertices` [P, 3] hold copies of all vertices, `vertex_stride` apart.
    """
    kernel = load_kernel(make_edge_kernels, "seen_from_outside", vertices)
    outside = torch.empty(copies * len(faces), dtype=torch.uint8, device=vertices.device)
    inputs = [vectors(vertices), array(faces), vertex_stride]
    launch_ranges(kernel, len(outside), inputs, [array(outside)], vertices, MIN_EDGES)
    return outside.view(torch.bool)


def edge_sides(
    vertices: Tensor,
    faces: Tensor,
    topology: Topology,
    vertex_stride: int,
    copies: int,
    looks: tuple[Tensor, Tensor] | None,
    outside: Tensor | None,
    *,
    faceted: bool,
    cull: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The edges where the image may jump, and the face in front on each side of them, just beside the edge.

    Args:
        vertices: [P, 3] camera frame.
        faces: [F, 3] indices into one copy of the vertices.
        topology: edges of the mesh.
        vertex_stride, copies: how far the copies are apart in `vertices`, and how many there are.
        looks: parts of edges, [I] index `copy * E + edge` and [I, 3] direction in which each is seen; None: every edge
            as seen from the origin.
        outside: [copies * F] bool as `seen_from_outside` returns it; None: with `looks`.
        faceted: the shading jumps at every edge.
        cull: faces seen from behind do not exist.

    Returns:
        [C] index into the parts (`copy * E + edge` if there are none), and [C], [C] the faces on its left and right,
        -1 for none.
    """
    kernel = load_kernel(make_edge_kernels, "edge_sides", vertices)
    count = copies * topology.num_edges if looks is None else len(looks[0])
    item, rays = (topology.edge_start, vertices) if looks is None else looks
    left = torch.empty(count, dtype=torch.int32, device=vertices.device)
    right = torch.empty_like(left)
    assert (looks is None) != (outside is None)
    inputs = [
        vectors(vertices),
        array(faces),
        vertex_stride,
        array(item.contiguous()),
        vectors(rays.contiguous()),
        int(looks is None),
        array(topology.forward.view(torch.uint8) if outside is None else outside.view(torch.uint8)),
        array(topology.edges),
        array(topology.edge_start),
        array(topology.edge_halfedges),
        array(topology.forward.view(torch.uint8)),
        array(topology.seam.view(torch.uint8)),
        int(faceted),
        int(cull),
    ]
    launch_ranges(kernel, count, inputs, [array(left), array(right)], vertices, MIN_EDGES)
    chosen = where_true(left != int(NO_CANDIDATE))
    return chosen, left.index_select(0, chosen).long(), right.index_select(0, chosen).long()


def split_at_pixels(segments: Tensor, rows: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut segments [K, 2, 2] (pixels) at the image's border and at every line between pixels.

    Args:
        segments: the ends of each.
        rows: [K] how many rows of pixels there are in earlier images.
        size: (height, width) of an image.

    Returns:
        For each piece its segment [M], where on it the piece begins and ends, [M] and [M] in float64, from 0 to 1, and
        its pixel [M], index into those of all images.
    """
    kernel = load_kernel(make_edge_kernels, "split_at_pixels", segments)
    return _split(kernel, [vectors(segments), array(rows), *size], len(segments), segments)


def split_at_crossings(
    segments: Tensor, segment: Tensor, low: Tensor, high: Tensor, pixel: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut pieces, `low` to `high` [M] of a `segment` [M], where others in the same `pixel` [M] cross them.

    Returns:
        As `split_at_pixels`.
    """
    kernel = load_kernel(make_edge_kernels, "split_at_crossings", segments)
    pixels, order = sort_keys(pixel)
    pieces = [array(x) for x in (segment, low, high, order, pixels)]
    source, low, high, pixel = _split(kernel, [vectors(segments), *pieces], len(segment), segments)
    return segment.index_select(0, source), low, high, pixel


def _split(kernel: Any, inputs: list[Any], count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a kernel that cuts `count` things twice: it counts the parts, then writes them."""
    device = like.device
    counts = torch.zeros(count, dtype=torch.int64, device=device)

    def run(mode: int, offsets: Tensor, parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        outputs = [array(x) for x in (counts, *parts)]
        launch_ranges(kernel, count, [*inputs, mode, array(offsets)], outputs, like, MIN_EDGES)

    def room(length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        source, pixel = torch.empty(2, length, dtype=torch.int64, device=device)
        begin, end = torch.empty(2, length, dtype=torch.float64, device=device)
        return source, begin, end, pixel

    run(int(COUNT), counts, room(1))
    total = counts.cumsum(0)
    parts = room(int(total[-1]) if count else 0)
    run(int(WRITE), total - counts, parts)
    return parts


def piece_middles(
    segments: Tensor,
    span: Tensor,
    depth: Tensor,
    line: Tensor,
    ends: Tensor,
    points: Tensor,
    segment: Tensor,
    low: Tensor,
    high: Tensor,
    pixel: Tensor,
    size: tuple[int, int],
    *,
    central: bool,
    near_center: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where the middles of pieces are on their lines in space.

    Args:
        segments: [K, 2, 2] pixels.
        span: [K, 2] which part of its line each is, from 0 to 1.
        depth: [K, 2] of its ends.
        line: [K] index into the lines.
        ends: [C, 2] of lines, index into `points` [P, 3].
        segment, low, high, pixel: [M] as `split_at_pixels` returns them.
        size: (height, width) of an image.
        central: 1 / depth is affine along a line in the image.
        near_center: pixels.

    Returns:
        [M, 3] the middles, [M, 3] the whole lines from end to end, [M, 2] the middles in the image, where that keeps
        lines straight, [M, 2] the centres of the pixels, and [M] bool whether an end of the piece is nearer to that
        than `near_center`.
    """
    kernel = load_kernel(make_edge_kernels, "piece_middles", segments)
    count = len(segment)
    middle, along = segments.new_empty(2, count, 3)
    xy, center = segments.new_empty(2, count, 2)
    at_center = torch.empty(count, dtype=torch.uint8, device=segment.device)
    inputs = [
        vectors(segments),
        *(array(x.contiguous()) for x in (span, depth, line, ends)),
        vectors(points),
        *(array(x) for x in (segment, low, high, pixel)),
        *size,
        int(central),
        near_center,
    ]
    outputs = [vectors(middle), vectors(along), vectors(xy), vectors(center), array(at_center)]
    launch_ranges(kernel, count, inputs, outputs, segments, MIN_EDGES)
    return middle, along, xy, center, at_center.view(torch.bool)


def hidden_area(
    points: Tensor, directions: Tensor, ends: Tensor, low: Tensor, high: Tensor, center: Tensor, hand: Tensor
) -> Tensor:
    """Signed share [M] of its pixel that a piece of an edge hides from the pixel's centre.

    Args:
        points: [M, 2, 3] the edge's ends, relative to where the ray of the pixel's centre starts.
        directions: [M, 3] that ray.
        ends: [M, 2, 2] pixels of the segment.
        low, high: [M] float64 where on the segment the piece begins and ends.
        center: [M, 2] the pixel's centre.
        hand: [M] +1, or -1 where the image is mirrored.
    """
    kernel = load_kernel(make_edge_kernels, "hidden_area", ends)
    area = torch.empty_like(ends[:, 0, 0])
    inputs = [
        vectors(points),
        vectors(directions),
        vectors(ends),
        array(low),
        array(high),
        vectors(center),
        array(hand.to(ends.dtype)),
    ]
    launch_ranges(kernel, len(area), inputs, [array(area)], ends, MIN_EDGES)
    return area
