"""Rays in order: what lets a face find the rays that can meet it.

Rays of linear cameras are sorted by rows. For any other camera a tree of boxes is built over them; the boxes are made
from the rays themselves, so they hold whatever the lens does between pixels: bent edges, seams and poles of panoramas,
folds. Rays sit in slots, sorted so that neighbours in the image are neighbours in the tree; four slots make a leaf,
four nodes make a node of the next level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BRANCHING = 4
BLOCK = 4  # pixels
TOP_NODES = 16  # levels end when this many nodes or fewer are left: enough to share among threads


@dataclass(frozen=True, eq=False)
class RayTree:
    """Rays in slots and boxes over their directions and moments, for each of B views.

    Attributes:
        slots: [B, S] the ray in each slot; -1 in an empty slot.
        origins: [B, S, 3] or None when all rays start in the origin of the camera frame.
        directions: [B, S, 3]; zero in empty slots.
        centers, halves: [B, T, 3] boxes of the unit directions of all levels, leaves first; a negative half: empty.
        moment_centers, moment_halves: [B, T, 3] the same for origin x unit direction; None with `origins`.
        level_start: where each level starts among the T boxes, and T.
        num_rays: N, also counting rays that got no slot because they are NaN.
    """

    slots: Tensor
    origins: Tensor | None
    directions: Tensor
    centers: Tensor
    halves: Tensor
    moment_centers: Tensor | None
    moment_halves: Tensor | None
    level_start: tuple[int, ...]
    num_rays: int


@dataclass(frozen=True, eq=False)
class SortedRays:
    """N rays of B views sorted by row of pixels, and by x within a row.

    Attributes:
        order: [N] the rays in sorted order.
        row_start: [B * H + 1] int32, where the rays of each row start.
        crowd: [B, H', W'] int32, how many rays lie above and left of the corners of blocks of `BLOCK` x `BLOCK` pixels.
        x: [N] sorted; in pixels.
        origins: [N, 3] sorted, or None when all rays start in the origin of the camera frame.
        directions: [N, 3] sorted.
        num_views, height: B and H.
    """

    order: Tensor
    row_start: Tensor
    crowd: Tensor
    x: Tensor
    origins: Tensor | None
    directions: Tensor
    num_views: int
    height: int


def sort_rays(
    view: Tensor, xy: Tensor, origins: Tensor | None, directions: Tensor, num_views: int, size: tuple[int, int]
) -> SortedRays:
    """Sort rays [N, 3] through pixels `xy` [N, 2] of `view` [N]; all pixels inside the image of `size`."""
    height, width = size
    y = xy[:, 1].long().clamp(0, height - 1)
    row = view * height + y
    x = xy[:, 0]
    # One key for both: x within the image scaled into [0, 1); what rounding swaps is closer than boxes are exact.
    fraction = x.double().clamp(min=0) / (1 + x.amax().clamp(min=0)) if len(x) else x.double()
    keys, order = torch.sort(row + fraction, stable=True)
    first = torch.searchsorted(keys, torch.arange(num_views * height + 1, dtype=keys.dtype, device=view.device))
    return SortedRays(
        order,
        first.to(torch.int32),
        _crowd(view, x.long().clamp(0, width - 1), y, num_views, size),
        x.index_select(0, order),
        None if origins is None else origins.detach().index_select(0, order),
        directions.detach().index_select(0, order),
        num_views,
        height,
    )


def _crowd(view: Tensor, column: Tensor, row: Tensor, num_views: int, size: tuple[int, int]) -> Tensor:
    """[B, H', W'] int32 sums of how many points fall into the blocks before: see `SortedRays`."""
    rows, columns = (-(-length // BLOCK) for length in size)
    block = (view * rows + row // BLOCK) * columns + column // BLOCK
    count = torch.bincount(block, minlength=num_views * rows * columns).reshape(num_views, rows, columns)
    return torch.nn.functional.pad(count.cumsum(1).cumsum(2), (1, 0, 1, 0)).to(torch.int32)


def build_ray_tree(origins: Tensor | None, directions: Tensor, slots: Tensor) -> RayTree:
    """The tree of `directions` [N, 3] (and `origins` [N, 3]) in the order of `slots` [B, S]; NaN rays meet nothing."""
    num_rays = directions.shape[0]
    if num_rays == 0:
        directions, origins = directions.new_zeros(1, 3), None if origins is None else origins.new_zeros(1, 3)
    used = slots >= 0
    index = slots.clamp(min=0)
    directions = directions.detach()[index]
    used = used & torch.isfinite(directions).all(-1)
    if origins is not None:
        origins = origins.detach()[index]
        used = used & torch.isfinite(origins).all(-1)
        origins = torch.where(used.unsqueeze(-1), origins, torch.zeros_like(origins)).contiguous()
    directions = torch.where(used.unsqueeze(-1), directions, torch.zeros_like(directions)).contiguous()
    slots = torch.where(used, slots, torch.full_like(slots, -1))

    length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    units = directions / length.clamp(min=torch.finfo(length.dtype).tiny)
    centers, halves, level_start = _boxes(units, used)
    moment_centers = moment_halves = None
    if origins is not None:
        moment_centers, moment_halves, _ = _boxes(torch.linalg.cross(origins, units), used)
    return RayTree(slots, origins, directions, centers, halves, moment_centers, moment_halves, level_start, num_rays)


def _boxes(values: Tensor, used: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Boxes of all levels over `values` [B, S, 3] as centers, halves [B, T, 3] and the start of each level."""
    low = torch.where(used.unsqueeze(-1), values, values.new_tensor(torch.inf))
    high = torch.where(used.unsqueeze(-1), values, values.new_tensor(-torch.inf))
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    level_start = [0]
    while not lows or low.shape[1] > TOP_NODES:
        low, high = _merge(low, torch.inf).amin(2), _merge(high, -torch.inf).amax(2)
        lows.append(low)
        highs.append(high)
        level_start.append(level_start[-1] + low.shape[1])
    low, high = torch.cat(lows, dim=1), torch.cat(highs, dim=1)
    empty = low > high
    center = torch.where(empty, torch.zeros_like(low), 0.5 * low + 0.5 * high)
    half = torch.where(empty, -torch.ones_like(low), torch.maximum(high - center, center - low))
    return center.contiguous(), half.contiguous(), tuple(level_start)


def _merge(bounds: Tensor, fill: float) -> Tensor:
    """[B, S, 3] -> [B, ceil(S / 4), 4, 3], the last group filled up with `fill`."""
    missing = -bounds.shape[1] % BRANCHING
    bounds = torch.nn.functional.pad(bounds, (0, 0, 0, missing), value=fill)
    return bounds.reshape(bounds.shape[0], -1, BRANCHING, 3)


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


def scattered_slots(view: Tensor, xy: Tensor, num_views: int) -> Tensor:
    """Slots [B, S] for rays [N] through `xy` [N, 2] in `view` [N], along a Z-order curve over pixels in each view."""
    code = _spread_bits(xy[:, 0]) | (_spread_bits(xy[:, 1]) << 1)
    order = torch.argsort((view << 32) | code, stable=True)
    count = torch.bincount(view, minlength=num_views)
    start = count.cumsum(0) - count
    slots = view.new_full((num_views, max(int(count.max()), 1)), -1)
    sorted_view = view[order]
    slots[sorted_view, torch.arange(len(order), device=view.device) - start[sorted_view]] = order
    return slots


def _spread_bits(coordinate: Tensor) -> Tensor:
    """Integer part of a pixel coordinate, 16 bits, with a zero bit between any two (a half of a Morton code)."""
    code = coordinate.detach().nan_to_num(0.0).clamp(0, 65535).to(torch.int64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        code = (code | (code << shift)) & mask
    return code
