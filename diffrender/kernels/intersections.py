"""Which faces of a mesh pass through each other: a tree of boxes, and exact decisions on a grid of integers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .arrays import array, vectors
from .launch import launch, load_kernel, side_by_side
from .sorting import sort_keys, where_true
from .warp_intersections import BOX_BITS, BRANCHING, GRID_BITS, LEAF, make_intersection_kernels

MIN_SHARE = 256  # fewer leaves or nodes are not worth a second thread
ROUNDING = 4  # steps of the grid: more than two roundings to it move a point, in space
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
    grid = Grid.around(vertices)
    tree, num_leaves = _tree(grid.positions(vertices), faces.contiguous(), weld, component, face_group)
    count, leaves, start = _count(tree, num_leaves)
    _, pairs, ends = _visit(tree, leaves, start, count)
    return _sorted(pairs, ends)


@dataclass(frozen=True, eq=False)
class NearFaces:
    """The only faces that may meet as long as no vertex moves further than `slack` from where it was.

    Attributes:
        slack: a distance.
        faces: [M] index of every face that is part of a pair, sorted.
        pairs: [K, 2] pairs of them, indices into `faces`.
    """

    slack: float
    faces: Tensor
    pairs: Tensor


def near_faces(
    vertices: Tensor, faces: Tensor, weld: Tensor, component: Tensor, slack: float, max_pairs: int
) -> NearFaces | None:
    """All pairs of faces that `crossings` could find after vertices have moved by up to `slack`.

    Args: as for `crossings`. None if there are more than `max_pairs` of them, or if `slack` is too large or small.
    """
    grid = Grid.around(vertices)
    steps = slack * grid.scale
    if not ROUNDING < steps < 2**GRID_BITS:
        return None
    tree, num_leaves = _tree(grid.positions(vertices), faces.contiguous(), weld, component, None, slack=round(steps))
    count, leaves, start = _count(tree, num_leaves)
    if count > max_pairs:
        return None
    _, pairs, _ = _visit(tree, leaves, start, count)
    used, pairs = torch.unique(pairs, return_inverse=True)
    return NearFaces((round(steps) - ROUNDING) / grid.scale, used, pairs.sort(-1).values.contiguous())


def crossings_among(near: NearFaces, vertices: Tensor, faces: Tensor, weld: Tensor, component: Tensor) -> Crossings:
    """What `crossings` finds, without a search: as long as `near` is right."""
    if len(near.pairs) == 0:
        return Crossings(near.pairs, near.pairs.new_zeros(0, 2, 2), near.pairs)
    corners = faces.index_select(0, near.faces).reshape(-1)
    points = Grid.around(vertices).positions(vertices.index_select(0, corners))
    num_faces, num_pairs = len(near.faces), len(near.pairs)
    local = torch.arange(3 * num_faces, device=faces.device).reshape(-1, 3)
    order = torch.arange(num_faces, device=faces.device)
    slots = _Slots.empty(points, num_faces)
    _launch(
        "fill_leaves", slots.num_leaves, [order, local, points, weld[corners], points.new_zeros(1), 0, 0], slots.all()
    )
    meets = points.new_empty(num_pairs)
    pairs, ends = local.new_empty(num_pairs, 2), local.new_empty(2 * num_pairs, 3)
    inputs = [near.pairs, slots.corners, slots.vertex, slots.planes, component.to(torch.int32), order, local]
    _launch("visit_pairs", num_pairs, inputs, [meets, pairs, ends])
    row = where_true(meets)
    ends = ends.reshape(-1, 2, 3).index_select(0, row)
    ends = torch.cat([corners[ends[..., :2]], near.faces[ends[..., 2:]]], -1)
    return _sorted(near.faces[pairs.index_select(0, row)], ends.reshape(-1, 3))


@dataclass(frozen=True)
class Grid:
    """The finest grid whose step is a power of two and on which the coordinates of a mesh stay below 2^29."""

    scale: float
    middle: Tensor  # [3] in steps

    @classmethod
    def around(cls, vertices: Tensor) -> "Grid":
        """That of `vertices` [V, 3]."""
        if len(vertices) == 0:
            return cls(1.0, vertices.new_zeros(3, dtype=torch.float64))
        low, high = (bound.double() for bound in torch.aminmax(vertices.detach(), dim=0))
        middle = 0.5 * low + 0.5 * high
        radius = float((high - middle).amax())
        exponent = GRID_BITS - math.frexp(radius)[1] if radius > 0 else -MAX_EXPONENT
        scale = 2.0 ** min(exponent, MAX_EXPONENT)
        return cls(scale, (middle * scale).round())

    def positions(self, points: Tensor) -> Tensor:
        """[N, 3] int32 the nearest positions to points [N, 3].

        What has few binary digits, such as 0.375, is not moved; what is near the middle of the mesh hardly ever.
        """
        return (points.detach().double() * self.scale - self.middle).round().to(torch.int32).contiguous()


@dataclass(frozen=True, eq=False)
class _Slots:
    """Faces in the order of a tree, and boxes: of the faces, and those of all levels of the tree, the leaves first."""

    corners: Tensor  # [F, 3, 3] on the grid
    vertex: Tensor  # [F, 3] welded
    planes: Tensor  # [F, 4]
    face_boxes: Tensor  # [F, 2]
    boxes: Tensor  # [T, 2]

    @classmethod
    def empty(cls, points: Tensor, num_faces: int, num_boxes: int | None = None) -> "_Slots":
        """To be filled by `fill_leaves`."""
        boxes = -(-num_faces // LEAF) if num_boxes is None else num_boxes
        return cls(
            points.new_empty(num_faces, 3, 3),
            points.new_empty(num_faces, 3),
            points.new_empty(num_faces, 4, dtype=torch.float64),
            points.new_empty(num_faces, 2, dtype=torch.int64),
            points.new_empty(boxes, 2, dtype=torch.int64),
        )

    @property
    def num_leaves(self) -> int:
        return -(-len(self.corners) // LEAF)

    def all(self) -> tuple[Tensor, ...]:
        """What `fill_leaves` writes."""
        return self.corners, self.vertex, self.planes, self.face_boxes, self.boxes


def _tree(
    points: Tensor, faces: Tensor, weld: Tensor, component: Tensor, face_group: Tensor | None, slack: int = 0
) -> tuple[list[Tensor | int], int]:
    """What `visit_leaves` wants to know of the tree, and how many leaves it has."""
    num_faces, num_groups = len(faces), 1
    group = points.new_zeros(1)
    codes = points.new_empty(num_faces)
    _launch("order_codes", num_faces, [faces, points], [codes])
    order = sort_keys(codes)[1]
    if face_group is not None and num_faces:
        names, group = torch.unique(face_group, return_inverse=True)
        group, num_groups = group.to(torch.int32), len(names)
        assert num_groups <= 1 << int(BOX_BITS), "every group has a range of its own in the boxes' first coordinate"
        order = order[torch.sort(group[order], stable=True).indices]

    sizes = [-(-num_faces // LEAF)]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // BRANCHING))
    level_start = [0, *accumulate(sizes)]
    slots = _Slots.empty(points, num_faces, level_start[-1])
    mesh = (order, faces, points, weld.contiguous(), group)
    _launch("fill_leaves", sizes[0], [*mesh, (num_groups - 1).bit_length(), slack], slots.all())
    for begin, end, size in zip(level_start, level_start[1:], sizes[1:], strict=False):
        _launch("merge_boxes", size, [begin, end], [slots.boxes])
    levels = torch.tensor(level_start, dtype=torch.int32, device=points.device)
    geometry = (slots.face_boxes, slots.corners, slots.vertex, slots.planes, component.to(torch.int32))
    return [levels, slots.boxes, *geometry, order, faces, slack], sizes[0]


def _count(tree: list[Tensor | int], num_leaves: int) -> tuple[int, Tensor, Tensor]:
    """How many pairs there are, which leaves have some, and where theirs start."""
    assert isinstance(tree[0], Tensor)
    leaves = torch.arange(num_leaves, device=tree[0].device)
    count, _, _ = _visit(tree, leaves, torch.full_like(leaves, -1), 0)
    leaves = where_true(count)
    return int(count.sum()), leaves, (count.cumsum(0) - count)[leaves]


def _visit(tree: list[Tensor | int], leaves: Tensor, starts: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
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
        launch(kernel, -(-(count - first) // parts), [*args, first, parts, *results], device)

    side_by_side(work, [(part,) for part in range(parts)])


def _array(value: Tensor | int) -> Any:
    """A Warp array, of vectors along the last dimension if there are more than one."""
    if isinstance(value, int):
        return value
    return array(value) if value.ndim == 1 else vectors(value)
