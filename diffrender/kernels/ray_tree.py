"""Rays in order: what lets a face find the rays that can meet it.

Rays of linear cameras are sorted into short runs of pixels. For any other camera a tree of boxes is built over them;
the boxes are made from the rays themselves, so they hold whatever the lens does between pixels: bent edges, seams and
poles of panoramas, folds. Rays sit in slots, sorted so that neighbours in the image are neighbours in the tree; four
slots make a leaf, four nodes make a node of the next level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .arrays import array, empty, vectors, zeros
from .launch import LANES, launch, launch_ranges, load_kernel
from .sorting import slots_in_groups, sort_keys
from .warp_ray_boxes import make_ray_box_kernels
from .warp_ray_runs import make_ray_run_kernels

BRANCHING = 4
RUN = 4  # pixels of a row
PADDING = max(LANES.values())  # kernels read so many sorted rays at once
MIN_LEAVES, MIN_SLOTS = 4096, 65536  # fewer are not worth a second thread


@dataclass(frozen=True, eq=False)
class RayTree:
    """N rays in slots, and boxes over their directions and moments, for each of B views.

    Attributes:
        slots: [B, S] the ray in each slot; -1 in an empty slot. Rays that are NaN have none.
        origins: [N, 3] or None when all rays start in the origin of the camera frame.
        directions: [N, 3].
        boxes: centers and halves, [B * T, 3] each, of the unit directions of all levels, leaves first; a negative half:
            empty.
        moment_boxes: the same for origin x unit direction; None with `origins`.
        reach: [4] the middle of all origins, and how far they are from it at most; zeros where there are none.
        level_start: where each level starts among the T boxes, and T.
    """

    slots: Tensor
    origins: Tensor | None
    directions: Tensor
    boxes: tuple[Tensor, Tensor]
    moment_boxes: tuple[Tensor, Tensor] | None
    reach: Tensor
    level_start: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SortedRays:
    """N rays of B views in the order of the runs of `RUN` pixels in a row that they go through.

    Attributes:
        order: [N] the rays in this order.
        run_start: [B * H * R + 1] int32, where the rays of each run start.
        x, dx, dy: [N + `PADDING`] in this order, where a ray is in the row, in pixels, and its direction (dx, dy, 1);
            of the rest anything may be read, too.
        origins: [N, 3], or None when all rays start in the origin of the camera frame.
        directions: [N, 3].
        num_views, height, runs: B, H and R.
    """

    order: Tensor
    run_start: Tensor
    x: Tensor
    dx: Tensor
    dy: Tensor
    origins: Tensor | None
    directions: Tensor
    num_views: int
    height: int
    runs: int


def sort_rays(
    view: Tensor, xy: Tensor, origins: Tensor | None, directions: Tensor, num_views: int, size: tuple[int, int]
) -> SortedRays:
    """Sort rays [N, 3] through pixels `xy` [N, 2] of `view` [N]; all pixels inside the image of `size`."""
    origins, directions = None if origins is None else origins.detach(), directions.detach()
    sort = _sorted_by_torch if xy.is_cuda else _sorted_by_counting
    runs = -(-size[1] // RUN)
    order, start, x, dx, dy = sort(view.contiguous(), xy.detach(), directions, num_views, size[0], runs)
    return SortedRays(order, start, x, dx, dy, origins, directions, num_views, size[0], runs)


def _sorted_by_counting(
    view: Tensor, xy: Tensor, directions: Tensor, num_views: int, height: int, runs: int
) -> tuple[Tensor, ...]:
    """`order`, `run_start`, `x`, `dx` and `dy` of `SortedRays`, on the CPU."""
    count = len(xy)
    run, order = empty((count,), xy, torch.int32), empty((count,), xy, torch.int64)
    start = zeros((num_views * height * runs + 2,), xy, torch.int32)
    x, dx, dy = (empty((count + PADDING,), xy) for _ in range(3))
    inputs = [array(view), vectors(xy), vectors(directions), height, runs, RUN, array(run)]
    outputs = [array(part) for part in (start, order, x, dx, dy)]
    launch(load_kernel(make_ray_run_kernels, "sort_by_runs", xy), 1, [*inputs, *outputs], xy.device)
    return order, start[:-1], x, dx, dy


def _sorted_by_torch(
    view: Tensor, xy: Tensor, directions: Tensor, num_views: int, height: int, runs: int
) -> tuple[Tensor, ...]:
    """The same by torch's own operations."""
    column, row = (xy[:, 0] / RUN).long().clamp(0, runs - 1), xy[:, 1].long().clamp(0, height - 1)
    run, order = sort_keys((view * height + row) * runs + column)
    start = torch.bincount(run, minlength=num_views * height * runs).cumsum(0, dtype=torch.int32)
    parts = torch.stack([xy[:, 0], directions[:, 0], directions[:, 1]]).index_select(1, order)
    return order, torch.nn.functional.pad(start, (1, 0)), *torch.nn.functional.pad(parts, (0, PADDING))


def build_ray_tree(origins: Tensor | None, directions: Tensor, slots: Tensor) -> RayTree:
    """The tree of `directions` [N, 3] (and `origins` [N, 3]) in the order of `slots` [B, S]; NaN rays meet nothing."""
    directions, origins = directions.detach(), None if origins is None else origins.detach()
    num_views, num_slots = slots.shape
    counts = [-(-num_slots // BRANCHING)]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // BRANCHING))
    level_start = tuple(accumulate(counts, initial=0))
    shape = num_views * level_start[-1], 3
    boxes = empty(shape, directions), empty(shape, directions)
    moments = boxes if origins is None else (empty(shape, directions), empty(shape, directions))
    kept = empty(slots.shape, directions, torch.int64)
    inputs = [
        array(slots.reshape(-1)), num_slots, counts[0], level_start[-1], BRANCHING,
        vectors(directions if origins is None else origins), vectors(directions), int(origins is None),
    ]  # fmt: skip
    outputs = [array(kept.reshape(-1)), *map(vectors, (*boxes, *moments))]
    kernel = load_kernel(make_ray_box_kernels, "leaf_boxes", directions)
    launch_ranges(kernel, num_views * counts[0], inputs, outputs, directions, MIN_LEAVES)
    for part in [boxes] if origins is None else [boxes, moments]:
        _raise_boxes(part, num_views, counts, level_start)
    reach = _reach(origins) if origins is not None and len(origins) else directions.new_zeros(4)
    return RayTree(kept, origins, directions, boxes, None if origins is None else moments, reach, level_start)


def _reach(origins: Tensor) -> Tensor:
    """[4] a point, and the distance within which all finite `origins` [N, 3] are; NaN if none is."""
    finite = torch.isfinite(origins).all(-1, keepdim=True)
    low, high = (torch.where(finite, origins, far).T for far in (torch.inf, -torch.inf))
    low, high = low.amin(-1), high.amax(-1)
    middle = 0.5 * low + 0.5 * high
    size = middle.abs() + (high - low)  # for rounding
    return torch.cat([middle, 0.5 * (high - low).norm()[None] + 1e-5 * size.norm()[None]])


def _raise_boxes(
    boxes: tuple[Tensor, Tensor], num_views: int, counts: Sequence[int], level_start: Sequence[int]
) -> None:
    """Boxes of all levels, so many in each, from those of the leaves."""
    kernel = load_kernel(make_ray_box_kernels, "node_boxes", boxes[0])
    outputs = [vectors(x) for x in boxes]
    for level, (below, count) in enumerate(pairwise(counts)):
        inputs = [level_start[level + 1], count, level_start[level], below, level_start[-1], BRANCHING]
        launch_ranges(kernel, num_views * count, inputs, outputs, boxes[0], MIN_LEAVES)


def image_slots(height: int, width: int, num_views: int, like: Tensor) -> Tensor:
    """Slots [B, S] that walk the pixels of each image along a Z-order curve; ray = (view * H + y) * W + x.

    On the device of `like`, the rays that they are for.
    """
    bits = max(height - 1, width - 1, 1).bit_length()
    bits = min(bits, 5)  # 32 x 32 pixels are coherent enough; beyond, padding to a power of two would cost memory
    rows, columns = (-(-length // (1 << bits)) for length in (height, width))
    num_slots = rows * columns << 2 * bits
    slots = empty((num_views, num_slots), like, torch.int64)
    inputs = [num_slots, bits, columns, height, width]
    kernel = load_kernel(make_ray_box_kernels, "image_slots", like)
    launch_ranges(kernel, slots.numel(), inputs, [array(slots.reshape(-1))], like, MIN_SLOTS)
    return slots


def z_order(group: Tensor, xy: Tensor) -> Tensor:
    """The order [N] of points `xy` [N, 2] by their `group` [N], and in each group along a Z-order curve over pixels."""
    codes = torch.empty_like(group)
    kernel = load_kernel(make_ray_box_kernels, "z_codes", xy)
    launch_ranges(kernel, len(codes), [array(group.contiguous()), vectors(xy.detach())], [array(codes)], xy, MIN_SLOTS)
    return sort_keys(codes)[1]


def scattered_slots(view: Tensor, xy: Tensor, num_views: int) -> Tensor:
    """Slots [B, S] for rays [N] through `xy` [N, 2] in `view` [N], along a Z-order curve over pixels in each view."""
    order = z_order(view, xy)
    if num_views == 1 and len(order):
        return order.unsqueeze(0)
    slot, most = slots_in_groups(view.index_select(0, order), num_views)
    slots = view.new_full((num_views, max(most, 1)), -1)
    slots.view(-1).index_copy_(0, slot, order)
    return slots
