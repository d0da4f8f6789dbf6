"""Images and volumes at points in plain torch: the oracle of the kernels, and what is differentiated twice."""

import math
from itertools import product

import torch
from torch import Tensor

from ..gather import gather
from .warp_sampling import FILTERS


def sample_images_reference(
    images: Tensor,
    image_of: Tensor,
    points: Tensor,
    mode: str,
    borders: tuple[str, ...],
    scale: tuple[float, ...],
    offset: tuple[float, ...],
    origin: float = 0.0,
) -> Tensor:
    """As `sample_images`. A sum of texels; where they lie is constant, how much they count is left to autograd."""
    groups, count, dimensions = points.shape
    channels, sizes = images.shape[-1], images.shape[1:-1][::-1]  # width first
    moved = (points - origin) * points.new_tensor(scale) + points.new_tensor(offset)
    moved, usable = _bring_into_range(moved.reshape(-1, dimensions), sizes)
    taps = [
        _taps(x, size, mode, border)
        for x, size, border in zip(moved.unbind(-1), sizes, borders, strict=True)
    ]  # fmt: skip
    first = image_of.long().repeat_interleave(count) * math.prod(sizes)
    strides = [math.prod(sizes[:axis]) for axis in range(dimensions)]
    index, weights = [], []
    for choice in product(*[range(FILTERS[mode].taps)] * dimensions):  # the first axis last, as in memory
        at, weight, inside = first, torch.ones_like(moved[:, 0]), usable | ("zeros" not in borders)
        for axis, tap in zip(range(dimensions), reversed(choice), strict=True):
            texel, tap_weights, tap_inside = taps[axis]
            at = at + texel[tap] * strides[axis]
            weight, inside = weight * tap_weights[tap], inside & tap_inside[tap]
        index.append(at)
        weights.append(torch.where(inside, weight, 0.0))
    # Where no texel counts, an infinite one (the depth of an empty pixel) times 0 would be NaN.
    chosen, counted = torch.stack(index, 1), torch.stack(weights, 1)
    values = gather(images.reshape(-1, channels), chosen, counted)
    values = torch.where((counted != 0).any(1, keepdim=True), values, 0.0)
    return values.view(groups, count, channels)


def _bring_into_range(points: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Replace points whose coordinates have no fraction left (NaN and infinity among them) by constants."""
    limit = 2.0**22 if points.dtype == torch.float32 else 2.0**30
    usable = (points.abs() < limit).all(-1)  # false for NaN
    last = points.new_tensor(sizes) - 0.5
    known = torch.minimum(points.detach().nan_to_num(nan=0.0).clamp_min(0.5), last)
    return torch.where(usable.unsqueeze(-1), points, known), usable


def _taps(x: Tensor, size: int, mode: str, border: str) -> tuple[Tensor, Tensor, Tensor]:
    """Texel index in [0, size), weight, and whether the texel counts, of each tap on one axis: [T, N]."""
    kernel = FILTERS[mode]
    position = x - kernel.shift
    base = position.detach().floor()
    weights = filter_weights(mode, position - base)
    offsets = torch.arange(kernel.first, kernel.first + kernel.taps, device=x.device)
    unbounded = base.long() + offsets[:, None]
    texel = fold(unbounded, size, border)
    return texel, weights, (texel == unbounded) | (border != "zeros")


def fold(texel: Tensor, size: int, border: str) -> Tensor:
    """Which texel in [0, size) is meant by a whole number outside; with "zeros", any."""
    if border in ("zeros", "clamp"):
        return texel.clamp(0, size - 1)
    if border == "wrap":
        return texel % size
    if border == "reflect":
        texel = texel % (2 * size)
        return torch.minimum(texel, 2 * size - 1 - texel)
    texel = texel % max(2 * size - 2, 1)
    return torch.minimum(texel, 2 * size - 2 - texel)


def filter_weights(mode: str, t: Tensor) -> Tensor:
    """Weights [taps, N] at fractions `t` [N]: the formulas of `warp_sampling.FILTERS`, as functions of the distance."""
    kernel = FILTERS[mode]
    if mode == "nearest":
        return 1.0 + torch.floor(t / 2)[None]  # one, with a gradient that is zero rather than absent
    x = t - torch.arange(kernel.first, kernel.first + kernel.taps, device=t.device, dtype=t.dtype)[:, None]
    r = x.abs()
    if mode == "bilinear":
        return torch.stack([1.0 - t, t])
    if mode == "bspline":
        near, far = 2 / 3 - r * r * (1 - r / 2), (2 - r) ** 3 / 6
        return torch.where(r < 1, near, far)
    if mode == "lanczos":
        weights = torch.sinc(x) * torch.sinc(x / 3)
        return weights / weights.sum(0)
    a = -0.5 if mode == "bicubic" else -0.75
    near, far = ((a + 2) * r - (a + 3)) * r * r + 1, ((a * r - 5 * a) * r + 8 * a) * r - 4 * a
    return torch.where(r < 1, near, far)
