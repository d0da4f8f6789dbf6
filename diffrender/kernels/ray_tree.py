"""Rays in order: what lets a face find the rays that can meet it.

Rays of linear cameras are sorted into short runs of pixels. For any other camera a tree of boxes is built over them;
the boxes are made from the rays themselves, so they hold whatever the lens does between pixels: bent edges, seams and
poles of panoramas, folds. Rays sit in slots, sorted so that neighbours in the image are neighbours in the tree; four
slots make a leaf, four nodes make a node of the next level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .sorting import sort_keys

BRANCHING = 4
RUN = 8  # pixels of a row


@dataclass(frozen=True, eq=False)
class RayTree:
    """N rays in slots, and boxes over their directions and moments, for each of B views.

    Attributes:
        slots: [B, S] the ray in each slot; -1 in an empty slot. Rays that are NaN have none.
        origins: [N, 3] or None when all rays start in the origin of the camera frame.
        directions: [N, 3].
        centers, halves: [B, T, 3] boxes of the unit directions of all levels, leaves first; a negative half: empty.
        moment_centers, moment_halves: [B, T, 3] the same for origin x unit direction; None with `origins`.
        level_start: where each level starts among the T boxes, and T.
    """

    slots: Tensor
    origins: Tensor | None
    directions: Tensor
    centers: Tensor
    halves: Tensor
    moment_centers: Tensor | None
    moment_halves: Tensor | None
    level_start: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SortedRays:
    """N rays of B views in the order of the runs of `RUN` pixels in a row that they go through.

    Attributes:
        order: [N] the rays in this order.
        run_start: [B * H * R + 1] int32, where the rays of each run start.
        x: [N] in this order; in pixels.
        origins: [N, 3], or None when all rays start in the origin of the camera frame.
        directions: [N, 3].
        num_views, height, runs: B, H and R.
    """

    order: Tensor
    run_start: Tensor
    x: Tensor
    origins: Tensor | None
    directions: Tensor
    num_views: int
    height: int
    runs: int


def sort_rays(
    view: Tensor, xy: Tensor, origins: Tensor | None, directions: Tensor, num_views: int, size: tuple[int, int]
) -> SortedRays:
    """Sort rays [N, 3] through pixels `xy` [N, 2] of `view` [N]; all pixels inside the image of `size`."""
    height, width = size
    runs = -(-width // RUN)
    x = xy[:, 0]
    column, row = (x / RUN).long().clamp(0, runs - 1), xy[:, 1].long().clamp(0, height - 1)
    run, order = sort_keys((view * height + row) * runs + column)
    count = torch.bincount(run, minlength=num_views * height * runs)
    start = torch.nn.functional.pad(count.cumsum(0, dtype=torch.int32), (1, 0))
    origins = None if origins is None else origins.detach()
    return SortedRays(order, start, x.index_select(0, order), origins, directions.detach(), num_views, height, runs)


def build_ray_tree(origins: Tensor | None, directions: Tensor, slots: Tensor) -> RayTree:
    """The tree of `directions` [N, 3] (and `origins` [N, 3]) in the order of `slots` [B, S]; NaN rays meet nothing."""
    directions, origins = directions.detach(), None if origins is None else origins.detach()
    finite = torch.isfinite(directions if origins is None else directions + origins).all(-1)
    length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    units = directions / length.clamp(min=torch.finfo(length.dtype).tiny)
    if len(directions) == 0:  # slots that are empty still ask for a ray
        finite, units = finite.new_zeros(1), units.new_zeros(1, 3)
    index = slots.clamp(min=0).reshape(-1)
    slots = torch.where(finite.index_select(0, index).reshape(slots.shape), slots, -1)

    def boxes(values: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        return _boxes(values.index_select(0, index).reshape(*slots.shape, 3), slots >= 0)

    centers, halves, level_start = boxes(units)
    moment_centers = moment_halves = None
    if origins is not None:
        moment_centers, moment_halves, _ = boxes(torch.linalg.cross(origins, units) if len(origins) else units)
    return RayTree(slots, origins, directions, centers, halves, moment_centers, moment_halves, level_start)


def _boxes(values: Tensor, used: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Boxes of all levels over `values` [B, S, 3] as centers, halves [B, T, 3] and the start of each level."""
    bounds = torch.where(used.unsqueeze(-1), torch.cat([values, -values], -1), torch.inf)  # low, and minus high
    levels: list[Tensor] = []
    level_start = [0]
    while not levels or bounds.shape[1] > 1:
        missing = -bounds.shape[1] % BRANCHING
        bounds = torch.nn.functional.pad(bounds, (0, 0, 0, missing), value=torch.inf) if missing else bounds
        bounds = bounds.unflatten(1, (-1, BRANCHING)).amin(2)
        levels.append(bounds)
        level_start.append(level_start[-1] + bounds.shape[1])
    low, high = torch.cat(levels, dim=1).split(3, dim=-1)
    high = -high
    empty = low > high
    center = torch.where(empty, 0.0, 0.5 * low + 0.5 * high)
    half = torch.where(empty, -1.0, torch.maximum(high - center, center - low))
    return center, half, tuple(level_start)


def image_slots(height: int, width: int, num_views: int, device: torch.device) -> Tensor:
    """Slots [B, S] that walk the pixels of each image along a Z-order curve; ray = (view * H + y) * W + x."""
    bits = max(height - 1, width - 1, 1).bit_length()
    bits = min(bits, 5)  # 32 x 32 pixels are coherent enough; beyond, padding to a power of two would cost memory
    side = 1 << bits
    rows, cols = -(-height // side), -(-width // side)
    y = torch.arange(rows * side, device=device).unsqueeze(1)
    x = torch.arange(cols * side, device=device).unsqueeze(0)
    pixel = torch.where((y < height) & (x < width), y * width + x, -1)
    tiled = pixel.reshape(rows, *(2,) * bits, cols, *(2,) * bits)
    interleaved = [0, bits + 1] + [axis for bit in range(1, bits + 1) for axis in (bit, bits + 1 + bit)]
    order = tiled.permute(interleaved).reshape(1, -1)
    view = torch.arange(num_views, device=device).unsqueeze(1) * (height * width)
    return torch.where(order >= 0, order + view, -1)


def z_order(group: Tensor, xy: Tensor) -> Tensor:
    """The order [N] of points `xy` [N, 2] by their `group` [N], and in each group along a Z-order curve over pixels."""
    x, y = _spread_bits(xy).unbind(-1)
    return sort_keys((group << 32) | x | (y << 1))[1]


def scattered_slots(view: Tensor, xy: Tensor, num_views: int) -> Tensor:
    """Slots [B, S] for rays [N] through `xy` [N, 2] in `view` [N], along a Z-order curve over pixels in each view."""
    order = z_order(view, xy)
    if num_views == 1 and len(order):
        return order.unsqueeze(0)
    count = torch.bincount(view, minlength=num_views)
    start = count.cumsum(0) - count
    slots = view.new_full((num_views, max(int(count.max()), 1)), -1)
    sorted_view = view[order]
    slots[sorted_view, torch.arange(len(order), device=view.device) - start[sorted_view]] = order
    return slots


def _spread_bits(coordinate: Tensor) -> Tensor:
    """Integer parts of pixel coordinates, 16 bits, with a zero bit between any two (a half of a Morton code)."""
    code = coordinate.detach().nan_to_num(0.0).clamp(0, 65535).to(torch.int64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        code = (code | (code << shift)) & mask
    return code
