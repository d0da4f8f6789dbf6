"""Textures seen from afar: pyramids of averages, and lookups whose filter is as wide as the pixel's footprint."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_tensor, shape_of
from .layouts import check_image_ndim, to_nchw, to_nhwc
from .sample import Padding, check_lookup, look_up

MAX_PROBES = 8  # along the footprint's longer axis; more stretched ones are blurred


def mip_pyramid(image: Tensor, levels: int | None = None) -> tuple[Tensor, ...]:
    """The image [*batch, H, W, C] and its means over 2 x 2, 4 x 4, ... pixels, down to one pixel or `levels` images.

    An odd side of n pixels becomes one of n // 2, whose means overlap a little. Differentiable; make it once and hand
    it to `sample_trilinear` and `sample_anisotropic` as often as the image stays the same.

    >>> [tuple(level.shape) for level in mip_pyramid(torch.zeros(4, 6, 3))]
    [(4, 6, 3), (2, 3, 3), (1, 1, 3)]
    """
    check_tensor("image", image)
    check_image_ndim(image, "[..., H, W, C]")
    if 0 in image.shape[-3:-1]:
        raise ValueError(f"image must have at least one pixel; got {shape_of(image)}")
    if levels is not None and levels < 1:
        raise ValueError(f"levels must be at least 1; got {levels}")
    pyramid = [image]
    while max(image.shape[-3:-1]) > 1 and (levels is None or len(pyramid) < levels):
        height, width, channels = image.shape[-3:]
        flat = to_nchw(image.reshape(-1, height, width, channels))
        smaller = to_nhwc(F.adaptive_avg_pool2d(flat, (max(height // 2, 1), max(width // 2, 1))))
        image = smaller.reshape(*image.shape[:-3], *smaller.shape[1:]).contiguous()
        pyramid.append(image)
    return tuple(pyramid)


def sample_trilinear(
    pyramid: Sequence[Tensor], uv: Tensor, level: Tensor, *, padding: Padding | Sequence[Padding] = "wrap"
) -> Tensor:
    """Bilinear in the two levels around `level`, and linear between them; differentiable to all three.

    Args:
        pyramid: `mip_pyramid` of a texture [Ht, Wt, C].
        uv: [..., 2]; (0, 0) is the lower left corner, (1, 1) the upper right one.
        level: [...] 0 for the texture itself, 1 for means over 2 x 2, ...; clamped to what there is, NaN is 0.
        padding: as in `sample_texture`.

    Returns:
        [..., C].

    >>> pyramid = mip_pyramid(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))
    >>> sample_trilinear(pyramid, torch.tensor([[0.25, 0.5]]), torch.tensor([0.5])).item()
    0.25
    """
    _check_pyramid(pyramid, uv, padding)
    if level.shape != uv.shape[:-1]:
        raise ValueError(f"level must have the shape {tuple(uv.shape[:-1])} of the points; got {shape_of(level)}")
    points, last = uv.reshape(-1, 2), len(pyramid) - 1
    height = level.reshape(-1).nan_to_num(0.0).clamp(0, last)
    lower = height.detach().long().clamp_max(max(last - 1, 0))
    # Points of a level side by side, so that each level is one lookup.
    order = torch.sort(lower.to(torch.uint8), stable=True).indices
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    points, height = _Permute.apply(points, order, inverse), _Permute.apply(height, order, inverse)
    counts = torch.bincount(lower, minlength=1).tolist()
    values = []
    for index, (at, h) in enumerate(zip(points.split(counts), height.split(counts), strict=True)):
        if len(at) == 0 and len(points) > 0:
            continue
        found = _in_level(pyramid[index], at, padding)
        if last > 0:
            found = torch.lerp(
                found, _in_level(pyramid[index + 1], at, padding), (h - index).unsqueeze(-1).to(found.dtype)
            )
        values.append(found)
    result = _Permute.apply(torch.cat(values), inverse, order)
    return result.reshape(*uv.shape[:-1], result.shape[-1])


class _Permute(torch.autograd.Function):
    """Rows in another order. Knowing the inverse, its gradient needs no additions, which are slow."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permute.apply(gradients[0], inverse, order), None, None


def sample_anisotropic(
    pyramid: Sequence[Tensor],
    uv: Tensor,
    footprint: Tensor,
    *,
    padding: Padding | Sequence[Padding] = "wrap",
    max_probes: int = MAX_PROBES,
) -> Tensor:
    """The mean of a texture over the footprints of pixels; differentiable to texture, uv and footprint.

    The square pixel, mapped by the footprint, is replaced by the rectangle that has the same second moments: its sides
    are the singular values of the Jacobian in texels. The shorter one chooses the level, and along the longer one there
    are as many trilinear probes as squares fit (McCormack et al., "Feline: fast elliptical lines for anisotropic
    texture mapping", 1999, with weights of a box, as the pixel's).

    Args:
        pyramid: `mip_pyramid` of a texture [Ht, Wt, C].
        uv: [..., 2] the middles of the footprints.
        footprint: [..., 2, 2] the Jacobian of (u, v) by the pixel's (x, y): `uv_footprints`.
        padding: as in `sample_texture`.
        max_probes: more stretched footprints are blurred across instead.

    Returns:
        [..., C].

    >>> stripes = torch.tensor([0.0, 1.0]).repeat(4).view(1, 8, 1)
    >>> footprint = torch.tensor([[[0.5, 0.0], [0.0, 1.0]]])  # four texels wide, one high
    >>> sample_anisotropic(mip_pyramid(stripes), torch.tensor([[0.5, 0.5]]), footprint).item()
    0.5
    """
    _check_pyramid(pyramid, uv, padding)
    if footprint.shape != (*uv.shape, 2):
        raise ValueError(f"footprint must be {(*uv.shape, 2)} for uv {shape_of(uv)}; got {shape_of(footprint)}")
    if max_probes < 1:
        raise ValueError(f"max_probes must be at least 1; got {max_probes}")
    points = uv.reshape(-1, 2)
    size = uv.new_tensor([pyramid[0].shape[1], pyramid[0].shape[0]])
    longer, length, width = _rectangle(footprint.reshape(-1, 2, 2) * size[:, None])
    probes = torch.ceil(length.detach() / width.detach() - 1e-3).clamp(1, max_probes).long()  # 1e-3: of rounding errors
    level = torch.log2(torch.maximum(width, length / max_probes))

    if len(points) == 0:
        return sample_trilinear(pyramid, uv, level.reshape(uv.shape[:-1]), padding=padding)
    owner = torch.arange(len(points), device=uv.device).repeat_interleave(probes)
    place = torch.arange(len(owner), device=uv.device) - (probes.cumsum(0) - probes).index_select(0, owner)
    count = probes.index_select(0, owner).to(uv.dtype)
    along = ((place + 0.5) / count - 0.5).unsqueeze(-1) * (longer / size).index_select(0, owner)
    values = sample_trilinear(
        pyramid, points.index_select(0, owner) + along, level.index_select(0, owner), padding=padding
    )
    mean = torch.segment_reduce(values / count.unsqueeze(-1), "sum", lengths=probes, axis=0)
    return mean.reshape(*uv.shape[:-1], mean.shape[-1])


def _rectangle(jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The longer singular vector [N, 2], scaled to its singular value; and both singular values [N], at least 1.

    At least one texel, as below that there is nothing to average. What is not finite counts as a point.
    """
    usable = (jacobian.detach().abs() < 2.0**22).all(-1).all(-1)  # false for NaN
    jacobian = torch.where(usable[:, None, None], jacobian, 0.0)
    a, b, c, d = jacobian.flatten(1).unbind(-1)
    xx, xy, yy = a * a + b * b, a * c + b * d, c * c + d * d
    half, mean = (xx - yy) / 2, (xx + yy) / 2
    # tiny: a circle has no longer axis, and the gradient of its direction would not be finite
    tiny = torch.finfo(jacobian.dtype).eps * (1 + mean.detach())
    spread = torch.sqrt(half * half + xy * xy + tiny * tiny)
    length = torch.sqrt((mean + spread).clamp_min(1.0))
    width = torch.minimum(((a * d - b * c).abs() / length).clamp_min(1.0), length)
    # the eigenvector, from the row of the matrix that does not cancel
    x = torch.where(half >= 0, half + spread, xy)
    y = torch.where(half >= 0, xy, spread - half)
    axis = torch.stack([x, y], -1)
    axis = axis / axis.square().sum(-1, keepdim=True).clamp_min(torch.finfo(axis.dtype).tiny).sqrt()
    return axis * length[:, None], length, width


def _in_level(texture: Tensor, uv: Tensor, padding: Padding | Sequence[Padding]) -> Tensor:
    height, width, _ = texture.shape
    return look_up(texture, uv, "bilinear", padding, 0.0, scale=(width, -height), offset=(0, height))


def _check_pyramid(pyramid: Sequence[Tensor], uv: Tensor, padding: Padding | Sequence[Padding]) -> None:
    if isinstance(pyramid, Tensor) or not pyramid:
        raise TypeError("pyramid must be a sequence of images: mip_pyramid(texture)")
    check_lookup(pyramid[0], uv, ("texture", "uv"), "bilinear", padding)
    if pyramid[0].ndim != 3:
        raise ValueError(f"texture must be [Ht, Wt, C]; got {shape_of(pyramid[0])}")
