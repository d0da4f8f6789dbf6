"""Which faces of a mesh pass through each other: a tree of boxes, and exact decisions on a grid of integers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import warp as wp
from torch import Tensor

from .launch import device_of, load_kernel, side_by_side
from .warp_intersections import BOX_BITS, BRANCHING, GRID_BITS, LEAF, make_intersection_kernels

MIN_SHARE = 256  # fewer leaves or nodes are not worth a second thread
MAX_EXPONENT = 1000  # of the scale of the grid, so that it is finite: whatever is smaller is a point


@dataclass(frozen=True, eq=False)
class Crossings:
    """K pairs of faces that pass through each other, sorted, and the two ends of the segment in which they meet.

    An end is where a side of one face passes through the other face, or a vertex of both.

    Attributes:
        faces: [K, 2] the pair, lower index first.
        sides: [K, 2, 2] vertices at the ends of that side, in the same order for all faces that share it; twice the
            same vertex where the faces have one in common.
        crossed: [K, 2] the face that the side passes through.
    """

    faces: Tensor
    sides: Tensor
    crossed: Tensor


def crossings(
    vertices: Tensor, faces: Tensor, weld: Tensor, component: Tensor, face_group: Tensor | None = None
) -> Crossings:
    """All pairs of faces that pass through each other; those with a common side are left out.

    Args:
        vertices: [V, 3].
        faces: [F, 3] int64 indices into them.
        weld: [V] the vertex that each one counts as.
        component: [V] connected component of each vertex.
        face_group: [F] faces of different groups do not meet; None: all may.
    """
    tree, num_leaves = _tree(on_grid(vertices), faces.contiguous(), weld, component, face_group)
    leaves = torch.arange(num_leaves, device=faces.device)
    count, _, _ = _visit(tree, leaves, torch.full_like(leaves, -1), 0)
    leaves = count.nonzero().squeeze(-1)
    start = count.cumsum(0) - count
    _, pairs, ends = _visit(tree, leaves, start[leaves], int(count.sum()))
    return _sorted(pairs, ends)


def on_grid(vertices: Tensor) -> Tensor:
    """[V, 3] int32 positions on the finest grid whose step is a power of two and whose coordinates stay below 2^29.

    What has few binary digits, such as 0.375, is not moved; what is near the middle of the mesh hardly ever.
    """
    positions = vertices.detach().double()
    if len(positions) == 0:
        return positions.to(torch.int32)
    low, high = positions.amin(0), positions.amax(0)
    middle = 0.5 * low + 0.5 * high
    radius = float((high - middle).amax())
    exponent = GRID_BITS - math.frexp(radius)[1] if radius > 0 else -MAX_EXPONENT
    scale = 2.0 ** min(exponent, MAX_EXPONENT)
    return (positions * scale - (middle * scale).round()).round().to(torch.int32).contiguous()


def _tree(
    points: Tensor, faces: Tensor, weld: Tensor, component: Tensor, face_group: Tensor | None
) -> tuple[list[Tensor], int]:
    """What `visit_leaves` wants to know of the tree, and how many leaves it has."""
    num_faces, num_groups = len(faces), 1
    group = points.new_zeros(1)
    codes = points.new_empty(num_faces)
    _launch("order_codes", num_faces, [faces, points], [codes])
    order = torch.sort(codes, stable=True).indices
    if face_group is not None and num_faces:
        names, group = torch.unique(face_group, return_inverse=True)
        group, num_groups = group.to(torch.int32), len(names)
        assert num_groups <= 1 << int(BOX_BITS), "every group has a range of its own in the boxes' first coordinate"
        order = order[torch.sort(group[order], stable=True).indices]

    sizes = [-(-num_faces // LEAF)]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // BRANCHING))
    level_start = [0, *accumulate(sizes)]
    corners, vertex = points.new_empty(num_faces, 3, 3), points.new_empty(num_faces, 3)
    planes = points.new_empty(num_faces, 4, dtype=torch.float64)
    slot_boxes, boxes = faces.new_empty(num_faces, 2), faces.new_empty(level_start[-1], 2)
    mesh = (order, faces, points, weld.contiguous(), group)
    outputs = (corners, vertex, planes, slot_boxes, boxes)
    _launch("fill_leaves", sizes[0], [*mesh, (num_groups - 1).bit_length()], outputs)
    for begin, end, size in zip(level_start, level_start[1:], sizes[1:], strict=False):
        _launch("merge_boxes", size, [begin, end], [boxes])
    levels = torch.tensor(level_start, dtype=torch.int32, device=points.device)
    component = component.to(torch.int32)
    return [levels, boxes, slot_boxes, corners, vertex, planes, component, order, faces], sizes[0]


def _visit(tree: list[Tensor], leaves: Tensor, starts: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """How many pairs the leaves have, and `total` rows of pairs and of ends, filled where a start is not negative."""
    counts = leaves.new_empty(len(leaves), dtype=torch.int32)
    pairs, ends = leaves.new_empty(total, 2), leaves.new_empty(2 * total, 3)
    _launch("visit_leaves", len(leaves), [*tree, leaves, starts], [counts, pairs, ends])
    return counts, pairs, ends


def _sorted(pairs: Tensor, ends: Tensor) -> Crossings:
    """By the pair of faces, so that nothing depends on the tree."""
    order = torch.sort(pairs[:, 1], stable=True).indices
    order = order[torch.sort(pairs[order, 0], stable=True).indices]
    ends = ends.reshape(-1, 2, 3)[order]
    return Crossings(pairs[order], ends[..., :2], ends[..., 2])


def _launch(name: str, count: int, inputs: Sequence[Tensor | int], outputs: Sequence[Tensor]) -> None:
    """One launch per thread; each takes every n-th of the `count` items, so that all have about as much to do."""
    if count == 0:
        return
    device = outputs[0].device
    like = torch.empty(0, device=device)  # positions are integers: one set of kernels for all floating-point types
    kernel = load_kernel(make_intersection_kernels, name, like)
    args, results = [_array(value) for value in inputs], [_array(value) for value in outputs]
    parts = 1 if device.type == "cuda" else max(min(torch.get_num_threads(), count // MIN_SHARE), 1)

    def work(first: int) -> None:
        dim = -(-(count - first) // parts)
        wp.launch(kernel, dim=dim, inputs=[*args, first, parts], outputs=results, device=device_of(like))

    side_by_side(work, [(part,) for part in range(parts)])


def _array(value: Tensor | int) -> Any:
    """A Warp array, of vectors along the last dimension if there are more than one."""
    if isinstance(value, int):
        return value
    if value.ndim == 1:
        return wp.from_torch(value)
    return wp.from_torch(value, dtype=wp.types.vector(value.shape[-1], wp.dtype_from_torch(value.dtype)))
