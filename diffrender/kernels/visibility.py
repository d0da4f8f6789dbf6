"""The first face along rays: of all pixel centres at once, or of single rays; see `visibility`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .arrays import array, empty, vectors
from .launch import LANES, balanced_cuts, launch, launch_ranges, load_kernel, side_by_side, worthwhile
from .ray_tree import RUN, RayTree, SortedRays
from .warp_hits import WRITE_DEPTH, WRITE_FACE, WRITE_FIRST_HIT
from .warp_rasterizer import make_rasterizer_kernels
from .warp_ray_tree import make_ray_tree_kernels

NO_FACE = 2**31 - 1
NEAR = 2e-6  # of a point's distance from the axis: nearer to the camera's plane, pixels are cut off by cameras
MIN_VERTICES = 16384  # fewer are not worth a second thread, which takes a tenth of a millisecond to wake up
RAY_WORK = 8  # a single ray takes as long as so many faces
PIXELS_WORK = 4  # so many pixels of an image take as long as a face
BALANCE_SAMPLES = 4096  # vertices that are asked where the image is busy
CUDA_BAND = 32  # rows that one CUDA thread covers of its face
CUDA_SHARES = 8  # of a tree of rays, for as many CUDA threads and a face


def project_linear(
    vertices: Tensor, vertex_view: Tensor | None, rays: Tensor, *, central: bool
) -> tuple[Tensor, Tensor]:
    """Pixels of vertices for cameras whose rays are affine in the pixel, from nothing but these rays.

    Args:
        vertices: [P, 3] camera frame; P = B * V copies, or V when `vertex_view` is given.
        vertex_view: [P] the view of each vertex, or None: copy by copy.
        rays: [B, 6, 3] as for `rasterize_linear`; parallel to each other unless `central`.

    Returns:
        [P, 2] pixels, and [P] bool whether they mean anything: not behind the camera, nor close to its plane.
    """
    kernel = _rasterizer_kernel("project_linear", vertices)
    # p = x dx + y dy + w direction, or for parallel rays p = origin + x origin_dx + y origin_dy + w direction: Cramer.
    origin, *slopes, direction, dx, dy = rays.double().unbind(1)
    if not central:
        dx, dy = slopes
    volumes = torch.linalg.cross(torch.stack([dy, direction, dx], 1), torch.stack([direction, dx, dy], 1))
    to_pixels = torch.cat([volumes, torch.stack([origin, direction], 1)], 1)  # [B, 5, 3]
    xy = vertices.new_empty(len(vertices), 2)
    in_front = torch.empty(len(vertices), dtype=torch.uint8, device=vertices.device)
    inputs = [
        vectors(vertices),
        array(to_pixels.new_zeros(1, dtype=torch.int64) if vertex_view is None else vertex_view),
        0 if vertex_view is not None else len(vertices) // len(rays),
        vectors(to_pixels),
        int(central),
        NEAR,
    ]
    launch_ranges(kernel, len(vertices), inputs, [vectors(xy), array(in_front)], vertices, MIN_VERTICES)
    return xy, in_front.view(torch.bool)


def rasterize_linear(
    vertices: Tensor,
    xy: Tensor,
    in_front: Tensor,
    faces: Tensor,
    face_view: Tensor | None,
    rays: Tensor,
    size: tuple[int, int],
    *,
    central: bool,
    cull: bool = False,
) -> Tensor:
    """The face in front at every pixel centre, for cameras whose rays are affine in the pixel.

    Args:
        vertices: [P, 3] camera frame; P = B * V copies, or V when `face_view` is given.
        xy: [P, 2] their projections; only read for vertices that are `in_front`.
        in_front: [P] bool, whether the projection means anything.
        faces: [F, 3] indices of one copy.
        face_view: [F] the view of each face, or None: every face in every view.
        rays: [B, 6, 3] origin, d origin / dx, d origin / dy, direction, d direction / dx, d direction / dy.
        size: (height, width) of the images.
        central: all rays start in the origin; the first three of `rays` are not read.
        cull: leave out faces seen from behind.

    Returns:
        [B, H, W] int32 index into `faces`, -1 where there is nothing.
    """
    (height, width), num_views = size, rays.shape[0]
    kernel = _rasterizer_kernel("rasterize_linear", vertices)
    depths, hits = _outputs((num_views, height, width), vertices, blank=False)  # each thread sees to its own part
    args = [
        vectors(vertices),
        vectors(xy),
        array(in_front.view(torch.uint8)),
        array(faces),
        array(_optional_index(face_view, vertices)),
        _vertex_stride(vertices, face_view, num_views),
        vectors(rays),
        int(central),
        int(cull),
        height,
        width,
    ]
    _launch_rows(
        kernel,
        args,
        (depths, hits),
        vertices,
        xy,
        in_front,
        faces,
        face_view,
        num_views,
        height,
        depths.numel() // PIXELS_WORK,
    )
    return _faces(hits)


def first_hit_linear(
    vertices: Tensor,
    xy: Tensor,
    in_front: Tensor,
    faces: Tensor,
    face_view: Tensor | None,
    rays: SortedRays,
    *,
    cull: bool = False,
    face_edges: Tensor | None = None,
    skip_edge: Tensor | None = None,
    skip_faces: Tensor | None = None,
    edges: Tensor | None = None,
    beside: Tensor | None = None,
    limit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The first face along single rays of cameras whose rays are affine in the pixel.

    Args and results: as in `rasterize_linear` and `first_hit`, for the N rays that `rays` was made of.
    """
    kernel = _rasterizer_kernel("first_hit_linear", vertices)
    depths, hits = _outputs((len(rays.order),), vertices)
    args = [
        vectors(vertices),
        vectors(xy),
        array(in_front.view(torch.uint8)),
        array(faces),
        array(faces if face_edges is None else face_edges),
        array(_optional_index(face_view, vertices)),
        _vertex_stride(vertices, face_view, rays.num_views),
        array(rays.run_start),
        rays.runs,
        RUN,
        array(rays.order),
        array(rays.x),
        array(rays.dx),
        array(rays.dy),
        *_single_rays(rays.origins, rays.directions, faces, skip_edge, skip_faces, edges, beside, limit),
        int(rays.origins is None),
        int(cull),
        rays.height,
    ]
    _launch_rows(
        kernel,
        args,
        (depths, hits),
        vertices,
        xy,
        in_front,
        faces,
        face_view,
        rays.num_views,
        rays.height,
        RAY_WORK * len(depths),
    )
    return _faces(hits).long(), depths


def first_hit(
    vertices: Tensor,
    faces: Tensor,
    face_view: Tensor | None,
    tree: RayTree,
    *,
    z_depth: bool,
    cull: bool = False,
    face_edges: Tensor | None = None,
    skip_edge: Tensor | None = None,
    skip_faces: Tensor | None = None,
    edges: Tensor | None = None,
    beside: Tensor | None = None,
    limit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The first face along each ray of a tree.

    Args:
        vertices, faces, face_view, cull: as in `rasterize_linear`.
        tree: the rays of B views, in slots.
        z_depth: depth is z (every direction has z = 1, every origin z = 0); otherwise it is the ray's parameter.
        face_edges: [F, 3] the edges of each face; with `skip_edge` [N], a ray passes through the faces at its edge.
        skip_faces: [N, 2] faces that each ray passes through, -1 for none.
        edges: [E, 2] the welded vertices of each edge.
        beside: [N, 3] where a ray passes through an edge, as far as rounding can tell, it meets what is on this side of
            the edge, without the faces that are seen edge-on there; and, on either side, what ends there, is nearer
            than `limit` [N], and has no vertex in common with `skip_edge`.
        (`skip_edge`, `skip_faces`, `beside` and `limit` may be shorter: those after their end are like any other rays.)

    Returns:
        [N] int64 face or -1, and [N] depth or infinity, for the N rays that the tree was made of.
    """
    num_views, num_slots = tree.slots.shape
    kernel = load_kernel(make_ray_tree_kernels, "first_hit", vertices)
    depths, hits = _outputs((len(tree.directions),), vertices)
    num_items = faces.shape[0] * (num_views if face_view is None else 1) if len(depths) else 0
    counts = [b - a for a, b in pairwise(tree.level_start)]
    shares = CUDA_SHARES if vertices.is_cuda else worthwhile(num_items + RAY_WORK * len(depths))
    top = max((level for level, nodes in enumerate(counts) if nodes >= shares), default=0)
    args = [
        vectors(vertices),
        array(faces),
        array(faces if face_edges is None else face_edges),
        array(_optional_index(face_view, vertices)),
        _vertex_stride(vertices, face_view, num_views),
        array(tree.slots.reshape(-1)),
        num_slots,
        *_single_rays(tree.origins, tree.directions, faces, skip_edge, skip_faces, edges, beside, limit),
        *map(vectors, tree.boxes),
        *map(vectors, tree.boxes if tree.moment_boxes is None else tree.moment_boxes),
        array(tree.reach),
        _small_ints(tree.level_start, vertices),
        _small_ints(counts, vertices),
        top,
        int(tree.origins is None),
        int(z_depth),
        int(cull),
    ]
    outputs = [array(depths), array(hits)]

    def work(first: int, items: int, node: int, nodes: int, parts: int, mode: int) -> None:
        launch(kernel, items * parts, [*args, parts, first, node, nodes, mode, *outputs], vertices.device)

    if vertices.is_cuda and num_items:
        for mode in (WRITE_DEPTH, WRITE_FACE):
            work(0, num_items, 0, 1, counts[top], int(mode))
    elif num_items:
        cuts = [counts[top] * i // shares for i in range(shares + 1)]
        jobs = [(0, num_items, a, b - a, 1, int(WRITE_FIRST_HIT)) for a, b in pairwise(cuts) if b > a]
        side_by_side(work, jobs)

    return _faces(hits).long(), depths


def _single_rays(
    origins: Tensor | None,
    directions: Tensor,
    faces: Tensor,
    skip_edge: Tensor | None,
    skip_faces: Tensor | None,
    edges: Tensor | None,
    beside: Tensor | None,
    limit: Tensor | None,
) -> list[Any]:
    """Single rays, and what the first of them pass through or meet, as both kernels take them; empty: nothing said."""
    assert beside is None or (skip_edge is not None and edges is not None and limit is not None)
    return [
        vectors(directions if origins is None else origins),
        vectors(directions),
        array(faces.new_zeros(0) if skip_edge is None else skip_edge),
        array(faces.new_zeros(0, 2) if skip_faces is None else skip_faces),
        array(faces if edges is None else edges),
        vectors(directions.new_zeros(0, 3) if beside is None else beside),
        array(directions.new_zeros(0) if limit is None else limit),
    ]


def _rasterizer_kernel(name: str, like: Tensor) -> Any:
    return load_kernel(make_rasterizer_kernels, name, like, LANES[like.device.type])


def _launch_rows(
    kernel: Any,
    args: list[Any],
    outputs: tuple[Tensor, Tensor],
    vertices: Tensor,
    xy: Tensor,
    in_front: Tensor,
    faces: Tensor,
    face_view: Tensor | None,
    num_views: int,
    height: int,
    amount: int,
) -> None:
    """Launch a kernel that goes over faces x bands of rows; on the CPU over disjoint views or bands side by side.

    `amount` is the work that the pixels or rays add to the faces, in faces.
    """
    arrays = [array(output.view(-1)) for output in outputs]
    num_items = faces.shape[0] * (num_views if face_view is None else 1)
    images = [output for output in outputs if output.ndim == 3 and not output.is_cuda]
    if num_items == 0 or outputs[0].numel() == 0:
        _blank(images)
        return

    def work(first: int, items: int, rows: tuple[int, int], band: int, views: tuple[int, int], mode: int) -> None:
        if mode == WRITE_FIRST_HIT:
            _blank([image[slice(*views), slice(*rows)] for image in images])
        bands = -(-(rows[1] - rows[0]) // band)
        launch(kernel, items * bands, [*args, bands, first, *rows, band, mode, *arrays], vertices.device)

    if vertices.is_cuda:
        for writing in (WRITE_DEPTH, WRITE_FACE):
            work(0, num_items, (0, height), CUDA_BAND, (0, num_views), int(writing))
        return
    threads, mode = worthwhile(num_items + amount), int(WRITE_FIRST_HIT)
    if face_view is None and num_views >= threads > 1:
        whole = [num_views * i // threads for i in range(threads + 1)]
        count = faces.shape[0]
        jobs = [(count * a, count * (b - a), (0, height), height, (a, b), mode) for a, b in pairwise(whole)]
    else:  # bands with about as many vertices each
        stride = max(len(xy) // BALANCE_SAMPLES, 1)
        cuts = balanced_cuts(xy.numpy()[::stride, 1][in_front.numpy()[::stride]], height, threads)
        jobs = [(0, num_items, (a, b), b - a, (0, num_views), mode) for a, b in pairwise(cuts) if b > a]
    side_by_side(work, jobs)


def _outputs(shape: tuple[int, ...], like: Tensor, *, blank: bool = True) -> tuple[Tensor, Tensor]:
    depths, hits = empty(shape, like), empty(shape, like, torch.int32)
    if like.is_cuda:  # an atomic minimum has to start from above
        return depths.fill_(torch.inf), hits.fill_(NO_FACE)
    if blank:
        _blank([depths, hits])
    return depths, hits


def _blank(outputs: Sequence[Tensor]) -> None:
    """Nothing is hit: depths of infinity, faces of -1, where one thread owns the pixel; the first depth replaces it."""
    # By numpy, which does not wake torch's threads: while those wait for more to do, they take the cores of ours.
    for output in outputs:
        output.numpy().fill(torch.inf if output.is_floating_point() else -1)


def _faces(hits: Tensor) -> Tensor:
    """Indices of faces, -1 for none."""
    return torch.where(hits == NO_FACE, -1, hits) if hits.is_cuda else hits


def _vertex_stride(vertices: Tensor, face_view: Tensor | None, num_views: int) -> int:
    """Distance between the copies of a vertex; 0 when there is one copy."""
    return 0 if face_view is not None else vertices.shape[0] // num_views


def _small_ints(values: Sequence[int], like: Tensor) -> Any:
    return array(torch.tensor(values, dtype=torch.int32, device=like.device))


def _optional_index(index: Tensor | None, like: Tensor) -> Tensor:
    if index is None:
        return torch.zeros(1, dtype=torch.int32, device=like.device)
    return index.to(torch.int32).contiguous()
