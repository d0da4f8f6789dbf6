"""Textures seen from afar: pyramids of averages, and lookups whose filter is as wide as the pixel's footprint."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_tensor, shape_of
from ..kernels import (
    PyramidLookup,
    filter_pyramid,
    filter_pyramid_points_gradient,
    filter_pyramid_reference,
    filter_pyramid_texels_gradient,
)
from .layouts import check_image_ndim, to_nchw, to_nhwc
from .lookup import differentiate
from .sample import Padding, check_lookup, paddings_of

MAX_PROBES = 9  # along the footprint's longer axis; more stretched ones are blurred


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
    _check_spread("level", level, uv, uv.shape[:-1])
    return _average(pyramid, uv, level, padding, 1)


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
    are the singular values of the Jacobian in texels. The shorter one chooses the level; the longer one is cut into
    squares from its middle on, each a trilinear probe that counts as much as it is long, the last at each end being
    what is left (after McCormack et al., "Feline: fast elliptical lines for anisotropic texture mapping", 1999). So
    the mean is continuous: a probe that comes in counts nothing at first.

    Args:
        pyramid: `mip_pyramid` of a texture [Ht, Wt, C].
        uv: [..., 2] the middles of the footprints.
        footprint: [..., 2, 2] the Jacobian of (u, v) by the pixel's (x, y): `uv_footprints`.
        padding: as in `sample_texture`.
        max_probes: odd; more stretched footprints are blurred across instead.

    Returns:
        [..., C].

    >>> stripes = torch.tensor([0.0, 1.0]).repeat(4).view(1, 8, 1)
    >>> footprint = torch.tensor([[[0.5, 0.0], [0.0, 1.0]]])  # four texels wide, one high
    >>> sample_anisotropic(mip_pyramid(stripes), torch.tensor([[0.5, 0.5]]), footprint).item()
    0.5
    """
    _check_pyramid(pyramid, uv, padding)
    _check_spread("footprint", footprint, uv, (*uv.shape, 2))
    if max_probes < 1 or max_probes % 2 == 0:
        raise ValueError(f"max_probes must be odd, one in the middle and as many on each side; got {max_probes}")
    return _average(pyramid, uv, footprint, padding, max_probes)


def _average(
    pyramid: Sequence[Tensor], uv: Tensor, spread: Tensor, padding: Padding | Sequence[Padding], max_probes: int
) -> Tensor:
    """`filter_pyramid` for points of any shape and mixed types, with derivatives."""
    across, up = ("zeros" if border == "constant" else border for border in paddings_of(padding, 2))
    wider = reduce(torch.promote_types, [x.dtype for x in (uv, spread, *pyramid)])
    dtype = torch.promote_types(wider, torch.float32)
    points = uv.to(dtype).reshape(-1, 2).contiguous()
    spreads = spread.to(dtype).reshape(len(points), *spread.shape[uv.ndim - 1 :]).contiguous()
    images = [image.to(dtype).contiguous() for image in pyramid]
    values: Tensor = _Average.apply(PyramidLookup((across, up), max_probes), points, spreads, *images)
    return values.view(*uv.shape[:-1], values.shape[-1]).to(wider)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: PyramidLookup, uv: Tensor, spread: Tensor, *pyramid: Tensor) -> Tensor:
        ctx.save_for_backward(uv, spread, *pyramid)
        ctx.how = how
        return filter_pyramid(pyramid, uv, spread, how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        uv, spread, *pyramid = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            again = filter_pyramid_reference(pyramid, uv, spread, ctx.how.borders, ctx.how.max_probes)
            return None, *differentiate(again, (uv, spread, *pyramid), gradients[0])
        gradient = gradients[0].contiguous()
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        if any(ctx.needs_input_grad[1:3]):
            found[1:3] = filter_pyramid_points_gradient(pyramid, uv, spread, ctx.how, gradient)
        if any(ctx.needs_input_grad[3:]):
            found[3:] = filter_pyramid_texels_gradient(pyramid, uv, spread, ctx.how, gradient)
        return tuple(found)


def _check_pyramid(pyramid: Sequence[Tensor], uv: Tensor, padding: Padding | Sequence[Padding]) -> None:
    if isinstance(pyramid, Tensor) or not pyramid:
        raise TypeError("pyramid must be a sequence of images: mip_pyramid(texture)")
    texture = pyramid[0]
    check_lookup(texture, uv, ("texture", "uv"), "bilinear", padding)
    if texture.ndim != 3:
        raise ValueError(f"texture must be [Ht, Wt, C]; got {shape_of(texture)}")
    for index, image in enumerate(pyramid):
        check_tensor(f"pyramid[{index}]", image, ndim=3, last=texture.shape[-1])
        if 0 in image.shape[:2] or image.dtype != texture.dtype or image.device != texture.device:
            raise ValueError(
                f"pyramid[{index}] must have pixels, and type and device of the first, {shape_of(texture)} on"
                f" {texture.device}; got {shape_of(image)} on {image.device}"
            )


def _check_spread(name: str, spread: Tensor, uv: Tensor, shape: Sequence[int]) -> None:
    check_tensor(name, spread)
    if spread.shape != tuple(shape):
        raise ValueError(f"{name} must be {tuple(shape)} for uv {shape_of(uv)}; got {shape_of(spread)}")
    if spread.device != uv.device:
        raise ValueError(f"{name} must be on the device of uv, {uv.device}; got {spread.device}")
