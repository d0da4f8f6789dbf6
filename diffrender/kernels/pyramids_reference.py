"""Filtered lookups in plain torch: the oracle of the kernels, and what is differentiated twice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .sampling_reference import sample_images_reference
from .warp_pyramids import NEGLIGIBLE


def filter_pyramid_reference(
    pyramid: Sequence[Tensor], uv: Tensor, spread: Tensor, borders: tuple[str, str], max_probes: int
) -> Tensor:
    """As `filter_pyramid`."""
    if spread.ndim == 1:
        return _between_levels(pyramid, uv, spread, borders)
    height, width, channels = pyramid[0].shape
    size = uv.new_tensor([width, height])
    axis, cell, level = box_of(spread * size[:, None], max_probes)
    pairs = ((1 / cell.detach() - 1) / 2 - NEGLIGIBLE).ceil().clamp_min(0.0).long()
    count = 2 * pairs + 1
    owner = torch.arange(len(uv), device=uv.device).repeat_interleave(count)
    pairs, cell = pairs.index_select(0, owner), cell.index_select(0, owner)
    k = torch.arange(len(owner), device=uv.device) - (count.cumsum(0) - count).index_select(0, owner) - pairs
    # The box is cut into squares from its middle on. What is left of one at each end is probed at its own middle.
    start = (pairs - 0.5) * cell
    at = torch.where(k.abs() < pairs, k * cell, k.sign() * (0.25 + start / 2))
    share = torch.where(k.abs() < pairs, cell, torch.where(pairs == 0, 1.0, 0.5 - start))
    points = uv.index_select(0, owner) + at.unsqueeze(-1) * (axis / size).index_select(0, owner)
    values = _between_levels(pyramid, points, level.index_select(0, owner), borders)
    return values.new_zeros(len(uv), channels).index_add(0, owner, share.unsqueeze(-1) * values)


def box_of(jacobian: Tensor, max_probes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The box that stands for the parallelogram of a Jacobian [N, 2, 2] in texels.

    Returns:
        [N, 2] its longer side, which is the longer singular vector times its singular value; [N] its shorter side as a
        share of the longer one; [N] the level whose texels are as large as the shorter one. No side is less than a
        texel, below which there is nothing to average. What is not finite counts as a point.
    """
    usable = (jacobian.detach().abs() < 2.0**22).all(-1).all(-1)  # false for NaN
    jacobian = torch.where(usable[:, None, None], jacobian, 0.0)
    a, b, c, d = jacobian.flatten(1).unbind(-1)
    xx, xy, yy = a * a + b * b, a * c + b * d, c * c + d * d
    half, mean = (xx - yy) / 2, (xx + yy) / 2
    # tiny: a circle has no longer axis, and the gradient of its direction would not be finite
    tiny = torch.finfo(jacobian.dtype).eps * (1 + mean.detach())
    deviation = torch.sqrt(half * half + xy * xy + tiny * tiny)
    length = torch.sqrt((mean + deviation).clamp_min(1.0))
    width = torch.minimum(((a * d - b * c).abs() / length).clamp_min(1.0), length)
    width = torch.maximum(width, length / max_probes)  # more stretched ones are blurred across
    # the eigenvector, from the row of the matrix that does not cancel
    x = torch.where(half >= 0, half + deviation, xy)
    y = torch.where(half >= 0, xy, deviation - half)
    axis = torch.stack([x, y], -1)
    axis = axis / axis.square().sum(-1, keepdim=True).clamp_min(torch.finfo(axis.dtype).tiny).sqrt()
    # Linear between powers of two, which is nearer to the means over pixels than a logarithm, and cheaper.
    lower = torch.frexp(width.detach()).exponent - 1
    share = torch.ldexp(torch.ones_like(width), -lower)  # ldexp(width, -lower) has no gradient in torch 2.13
    return axis * length[:, None], width / length, lower + width * share - 1


def _between_levels(pyramid: Sequence[Tensor], uv: Tensor, level: Tensor, borders: tuple[str, str]) -> Tensor:
    """Bilinear in two levels and linear between them, for `uv` [N, 2] and `level` [N]."""
    last = len(pyramid) - 1
    level = level.nan_to_num(0.0).clamp(0, last)
    lower = level.detach().long().clamp_max(max(last - 1, 0))
    found, places = [], []
    for index in range(max(last, 1)):
        rows = (lower == index).nonzero().squeeze(-1)
        points, above = uv.index_select(0, rows), (level.index_select(0, rows) - index).unsqueeze(-1)
        values = _in_level(pyramid[index], points, borders)
        if last > 0:
            values = (1 - above) * values + above * _in_level(pyramid[index + 1], points, borders)
        found.append(values)
        places.append(rows)
    return torch.cat(found).index_select(0, torch.cat(places).argsort())


def _in_level(image: Tensor, uv: Tensor, borders: tuple[str, str]) -> Tensor:
    height, width, _ = image.shape
    image_of = torch.zeros(1, dtype=torch.int32, device=uv.device)
    scale, offset = (float(width), -float(height)), (0.0, float(height))
    return sample_images_reference(image[None], image_of, uv[None], "bilinear", borders, scale, offset)[0]
