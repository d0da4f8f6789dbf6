"""Faces that a lens bends, as functions on tensors: see `grazing`."""

import torch
from torch import Tensor

from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .sorting import where_true
from .warp_bent_faces import CUT, KEEP, make_bent_face_kernels

MIN_FACES = 16384  # fewer are not worth a second thread


def side_middles(points: Tensor) -> Tensor:
    """[C, 3, 3] the middles of the sides 0 1, 1 2 and 2 0 of triangles [C, 3, 3]."""
    kernel = load_kernel(make_bent_face_kernels, "side_middles", points)
    middles = torch.empty_like(points)
    launch_ranges(kernel, len(points), [vectors(points)], [vectors(middles)], points, MIN_FACES)
    return middles


def judge_sides(
    triangles: Tensor, middles: Tensor, *, max_sag: float | None, jump: float, max_width: float | None
) -> tuple[Tensor, Tensor]:
    """Which triangles of projected corners are good enough for faces, and which are to be cut in four.

    Args:
        triangles: [C, 3, 2] pixels, float64.
        middles: [C, 3, 2] pixels, where the middles of their sides are seen.
        max_sag: a side with its middle further from it is bent, as a part of the triangle's height on the longest side:
            the nearer to edge-on a face is seen, the more of its area is between its sides and straight ones. None:
            only what `jumps` is cut.
        jump: a side with its middle further from that of its ends, as a part of its length, lies across a seam.
        max_width: pixels between the longest side and the opposite corner; what is wider, and does not jump, is
            neither kept nor cut. None: whatever the width.

    Returns:
        Indices of those to keep, and of those to cut.
    """
    kernel = load_kernel(make_bent_face_kernels, "judge", middles)
    verdicts = torch.empty(len(triangles), dtype=torch.uint8, device=triangles.device)
    limits = [-1.0 if max_sag is None else max_sag, jump, -1.0 if max_width is None else max_width]
    inputs = [vectors(triangles), vectors(middles), *limits]
    launch_ranges(kernel, len(verdicts), inputs, [array(verdicts)], middles, MIN_FACES)
    return where_true(verdicts == int(KEEP)), where_true(verdicts == int(CUT))


def cut_in_four(
    parents: Tensor,
    points: Tensor,
    depth: Tensor,
    triangles: Tensor,
    middles: Tensor,
    middle_depth: Tensor,
    middle_xy: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The quarters of faces `parents` [N], one face after the other: three at its corners, then that in its middle.

    Args:
        points, depth, triangles: [C, 3, 3] the corners in space, [C, 3] their depth and [C, 3, 2] pixels, float64.
        middles, middle_depth, middle_xy: the same of the sides 0 1, 1 2 and 2 0, all of one type.

    Returns:
        Points, depth and pixels of the quarters, [4 N, ...] each.
    """
    kernel = load_kernel(make_bent_face_kernels, "cut_in_four", points)
    count = 4 * len(parents)
    corners, depths, pixels = (old.new_empty(count, *old.shape[1:]) for old in (points, depth, triangles))
    inputs = [
        array(parents), vectors(points), array(depth), vectors(triangles),
        vectors(middles), array(middle_depth), vectors(middle_xy),
    ]  # fmt: skip
    outputs = [vectors(corners), array(depths), vectors(pixels)]
    launch_ranges(kernel, count, inputs, outputs, points, MIN_FACES)
    return corners, depths, pixels
