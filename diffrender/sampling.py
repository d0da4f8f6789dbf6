"""Values of an image at points: filters, borders, and gradients to the image and to the coordinates.

A sample is a weighted sum of texels, `out[n] = sum_k weights[k, n] * texels[index[k, n]]`. Where the texels lie
(`index`) is piecewise constant in the coordinates; how much they count (`weights`) is smooth and left to autograd. The
sum itself is `gather.gather`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .checks import broadcast_shapes, check_tensor, shape_of
from .gather import gather

Mode = Literal["nearest", "bilinear", "bicubic"]
Padding = Literal["zeros", "clamp", "reflect", "wrap"]

_DTYPES = (torch.float32, torch.float64)


def sample(image: Tensor, xy: Tensor, *, mode: Mode = "bilinear", padding: Padding = "zeros") -> Tensor:
    """Values of an image at points given in pixels, differentiable to both.

    Args:
        image: [*batch, H, W, C], row 0 on top, float32 or float64. A channels-first image goes through `to_nhwc`.
        xy: [*batch, ..., 2] points in pixels, x to the right, y down; pixel (0, 0) covers [0, 1) x [0, 1) and its
            value sits at (0.5, 0.5). One image [H, W, C] takes points of any shape [..., 2]; the dimensions in front
            of a batch of images broadcast against the first ones of `xy`.
        mode: "nearest": the pixel that holds the point; its gradient to `xy` is zero, nothing can be fitted through
            it. "bilinear": continuous. "bicubic": Catmull-Rom (Keys 1981, a = -0.5), with continuous first
            derivatives; it meets the pixel values and reproduces quadratics, and it overshoots at steps.
            (torch's bicubic is a = -0.75, which reproduces linear functions only.)
        padding: what lies outside the image, texel by texel: "zeros", "clamp" (the border's value goes on), "reflect"
            (mirrored at the image's border, ... 1 0 | 0 1 ...: torch's "reflection" with align_corners=False) or
            "wrap" (the image repeats).

    Returns:
        [*batch, ..., C], in the wider dtype of the two.

    A point with a coordinate that is NaN, infinite or so large that floats no longer resolve half a pixel (2^22 in
    float32) has a zero gradient to `xy`, and the border's value: 0 with "zeros", otherwise that of the nearest pixel
    centre in the image, counting NaN as 0.

    Raises:
        TypeError: a tensor that is not float32 or float64.
        ValueError: shapes, devices, names that do not fit; an image without pixels.

    >>> image = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]])  # [2, 2, 1]
    >>> sample(image, torch.tensor([[0.5, 0.5], [1.0, 1.0], [1.5, 1.0]])).flatten().tolist()
    [0.0, 1.5, 2.0]
    """
    _check(image, xy, "image", "xy", mode, padding)
    return _sample(image, xy, _FILTERS[mode], padding)


def sample_texture(texture: Tensor, uv: Tensor, *, mode: Mode = "bilinear", padding: Padding = "wrap") -> Tensor:
    """Values of a texture at uv coordinates: `sample` at x = u W, y = (1 - v) H.

    Args:
        texture: [Ht, Wt, C], row 0 on top.
        uv: [..., 2]; (0, 0) is the lower left corner of the texture, (1, 1) the upper right one, as in OBJ files.
        mode, padding: as in `sample`; textures repeat unless told otherwise, as glTF's do.

    Returns:
        [..., C], in the wider dtype of the two.

    >>> texture = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])  # 1 is the texel at the upper left
    >>> sample_texture(texture, torch.tensor([[0.25, 0.25], [0.25, 0.75]])).flatten().tolist()
    [3.0, 1.0]
    """
    _check(texture, uv, "texture", "uv", mode, padding)
    if texture.ndim != 3:
        raise ValueError(f"texture must be [Ht, Wt, C]; got {shape_of(texture)}: for a batch of images use sample")
    height, width, _ = texture.shape
    u, v = uv.unbind(-1)
    return _sample(texture, torch.stack([u * width, (1.0 - v) * height], -1), _FILTERS[mode], padding)


def to_nchw(image: Tensor) -> Tensor:
    """View an image [..., H, W, C] as [..., C, H, W], the layout of torch's convolutions and of kornia.

    >>> to_nchw(torch.zeros(5, 480, 640, 3)).shape
    torch.Size([5, 3, 480, 640])
    """
    _check_image_ndim(image, "[..., H, W, C]")
    return image.movedim(-1, -3)


def to_nhwc(image: Tensor) -> Tensor:
    """View an image [..., C, H, W] as [..., H, W, C], the layout of diffrender.

    >>> to_nhwc(torch.zeros(5, 3, 480, 640)).shape
    torch.Size([5, 480, 640, 3])
    """
    _check_image_ndim(image, "[..., C, H, W]")
    return image.movedim(-3, -1)


# --- filters: which texels count along one axis, and how much -----------------------------------------------------


def _nearest(fraction: Tensor) -> Tensor:
    # One, with a gradient that is zero rather than absent: floor's gradient is zero, and fraction / 2 is below 1.
    return 1.0 + torch.floor(fraction / 2)[None]


def _bilinear(fraction: Tensor) -> Tensor:
    return torch.stack([1.0 - fraction, fraction])


def _catmull_rom(fraction: Tensor) -> Tensor:
    # Keys, "Cubic convolution interpolation for digital image processing" (1981), equation 15.
    t = fraction
    return torch.stack(
        [
            t * (t * (1.0 - 0.5 * t) - 0.5),
            t * t * (1.5 * t - 2.5) + 1.0,
            t * (t * (2.0 - 1.5 * t) + 0.5),
            t * t * (0.5 * t - 0.5),
        ]
    )


@dataclass(frozen=True)
class _Filter:
    """A separable filter: texels `floor(x - shift) + first + (0, 1, ...)` with `weights(fraction)` [taps, N]."""

    shift: float
    first: int
    weights: Callable[[Tensor], Tensor]


_FILTERS = {
    "nearest": _Filter(0.0, 0, _nearest),
    "bilinear": _Filter(0.5, 0, _bilinear),
    "bicubic": _Filter(0.5, -1, _catmull_rom),
}


# --- borders: which texel a whole number outside [0, size) means ---------------------------------------------------
# In floats, which are vectorized where integer division is not, and exact here: below 2^22 (in float32, see
# `_bring_into_range`) the quotient of two whole numbers is never rounded across an integer.


def _clamp(texel: Tensor, size: int) -> Tensor:
    return texel.clamp(0, size - 1)


def _reflect(texel: Tensor, size: int) -> Tensor:
    texel = _wrap(texel, 2 * size)
    return torch.minimum(texel, 2 * size - 1 - texel)


def _wrap(texel: Tensor, size: int) -> Tensor:
    return texel - torch.floor(texel / size) * size


_PADDINGS = {"zeros": _clamp, "clamp": _clamp, "reflect": _reflect, "wrap": _wrap}  # zeros: the weights vanish instead


# --- the stages: coordinates -> taps per axis -> weighted sum ------------------------------------------------------


def _sample(image: Tensor, xy: Tensor, kernel: _Filter, padding: Padding) -> Tensor:
    *batch, height, width, channels = image.shape
    dtype = torch.promote_types(image.dtype, xy.dtype)
    shape = broadcast_shapes(tuple(batch), xy.shape[: len(batch)]) + xy.shape[len(batch) : -1]

    x, y = xy.to(dtype).expand(*shape, 2).reshape(-1, 2).unbind(-1)  # [N] each
    x, y = _bring_into_range(x, y, width, height, padding)
    column, weight_x, inside_x = _taps(x, width, kernel, padding)  # [Tx, N] each
    row, weight_y, inside_y = _taps(y, height, kernel, padding)
    index = (row[:, None] * width + column).flatten(0, 1)  # [K, N], K = Ty Tx
    weights = (weight_y[:, None] * weight_x).flatten(0, 1)
    if padding == "zeros":  # here and not per axis: an infinite texel outside leaves the gradient of both axes alone
        weights = torch.where((inside_y[:, None] & inside_x).flatten(0, 1), weights, 0.0)
    if batch:
        first = torch.arange(math.prod(batch), device=xy.device).view(batch) * (height * width)
        first = first.view(*batch, *[1] * (len(shape) - len(batch)))
        index = index + first.expand(shape).reshape(-1)

    values = gather(image.to(dtype).reshape(-1, channels), index.t(), weights.t())  # [N, C]
    if padding == "zeros":  # 0 times an infinite texel (the depth of an empty pixel) would be NaN
        values = torch.where((inside_x.any(0) & inside_y.any(0))[:, None], values, 0.0)
    return values.view(*shape, channels)


def _bring_into_range(x: Tensor, y: Tensor, width: int, height: int, padding: Padding) -> tuple[Tensor, Tensor]:
    """Replace points whose coordinates have no fraction left (NaN and infinity among them) by constants."""
    limit = 0.5 / torch.finfo(x.dtype).eps  # where neighbouring floats are half a pixel apart
    usable = (x.abs() < limit) & (y.abs() < limit)  # false for NaN

    def border(value: Tensor, size: int) -> Tensor:
        low, high = (-limit, -limit) if padding == "zeros" else (0.5, size - 0.5)
        return value.detach().nan_to_num(nan=0.0).clamp(low, high)

    return torch.where(usable, x, border(x, width)), torch.where(usable, y, border(y, height))


def _taps(x: Tensor, size: int, kernel: _Filter, padding: Padding) -> tuple[Tensor, Tensor, Tensor]:
    """Texel index in [0, size), weight, and whether the texel lies in the image, of each tap on one axis: [T, N]."""
    position = x - kernel.shift
    base = position.detach().floor()
    weights = kernel.weights(position - base)
    offsets = torch.arange(kernel.first, kernel.first + len(weights), device=x.device, dtype=x.dtype)
    unbounded = base + offsets[:, None]
    texel = _PADDINGS[padding](unbounded, size)
    return texel.long(), weights, texel == unbounded


# --- checks --------------------------------------------------------------------------------------------------------


def _check(image: Tensor, xy: Tensor, image_name: str, xy_name: str, mode: str, padding: str) -> None:
    check_tensor(image_name, image, hint="8-bit files hold sRGB; load_image decodes them to linear floats")
    _check_image_ndim(image, "[..., H, W, C]", image_name)
    check_tensor(xy_name, xy)
    _check_coordinates_last(xy, xy_name)
    for name, value in ((image_name, image), (xy_name, xy)):
        if value.dtype not in _DTYPES:
            raise TypeError(f"{name} must be float32 or float64; got {shape_of(value)}: call {name}.float()")
    if 0 in image.shape[-3:-1]:
        raise ValueError(f"{image_name} must have at least one pixel; got {shape_of(image)}")
    if image.device != xy.device:
        raise ValueError(f"{image_name} and {xy_name} must be on one device; got {image.device} and {xy.device}")
    if mode not in _FILTERS:
        raise ValueError(f"mode must be one of {', '.join(_FILTERS)}; got {mode!r}")
    if padding not in _PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(_PADDINGS)}; got {padding!r}")
    _check_batch(image, xy)


def _check_image_ndim(image: Tensor, layout: str, name: str = "image") -> None:
    if image.ndim < 3:
        raise ValueError(f"{name} must be {layout}; got {shape_of(image)}: a grey image needs a channel dimension")


def _check_coordinates_last(xy: Tensor, name: str) -> None:
    if xy.ndim and xy.shape[-1] == 2:
        return
    got, letters = tuple(xy.shape), "(u, v)" if name == "uv" else "(x, y)"
    candidates = [d for d in (xy.ndim - 3, 0, 1) if 0 <= d < xy.ndim and got[d] == 2]
    hint = f": move the coordinates last, {name}.movedim({candidates[0]}, -1)" if candidates else ""
    raise ValueError(f"{name} must end in 2 {letters}; got {got}{hint}")


def _check_batch(image: Tensor, xy: Tensor) -> None:
    batch = tuple(image.shape[:-3])
    try:
        if xy.ndim <= len(batch):
            raise ValueError("too few dimensions")
        broadcast_shapes(batch, xy.shape[: len(batch)])
    except ValueError:
        raise ValueError(
            f"xy must begin with the batch {batch} of image {shape_of(image)}; got {shape_of(xy)}:"
            " one point set for all images needs leading ones, xy[None]"
        ) from None
