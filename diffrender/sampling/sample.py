"""`sample`: values of an image at points, with filters, borders, and gradients to the image and to the coordinates.

A sample is a weighted sum of texels. Kernels compute it, and its gradient to image and coordinates, in one pass each
(`kernels.sampling`); second derivatives go through the plain-torch reference.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..checks import broadcast_shapes, check_tensor, shape_of
from ..kernels import Lookup
from .bspline import bspline_coefficients
from .layouts import check_image_ndim
from .lookup import lookup

Mode = Literal["nearest", "bilinear", "bicubic", "bicubic-torch", "bspline", "lanczos"]
Padding = Literal["zeros", "clamp", "reflect", "mirror", "wrap", "constant"]

MODES = ("nearest", "bilinear", "bicubic", "bicubic-torch", "bspline", "lanczos")
PADDINGS = ("zeros", "clamp", "reflect", "mirror", "wrap", "constant")


def sample(
    image: Tensor,
    xy: Tensor,
    *,
    mode: Mode = "bilinear",
    padding: Padding | Sequence[Padding] = "zeros",
    constant: float | Tensor = 0.0,
) -> Tensor:
    """Values of an image at points given in pixels, differentiable to both.

    Args:
        image: [*batch, H, W, C], row 0 on top, floating point. A channels-first image goes through `to_nhwc`.
        xy: [*batch, ..., 2] points in pixels, x to the right, y down; pixel (0, 0) covers [0, 1) x [0, 1) and its
            value sits at (0.5, 0.5). One image [H, W, C] takes points of any shape [..., 2]; the dimensions in front
            of a batch of images broadcast against the first ones of `xy`.
        mode: "nearest": the pixel that holds the point; its gradient to `xy` is zero, nothing can be fitted through
            it (`sample_nearest` has a surrogate). "bilinear": continuous. "bicubic": Catmull-Rom (Keys 1981, a = -0.5),
            with continuous first derivatives; it meets the pixel values and reproduces quadratics, and it overshoots
            at steps. "bicubic-torch": the same with torch's a = -0.75, which reproduces linear functions only.
            "bspline": the cubic spline through the pixel values, with continuous second derivatives. "lanczos": the
            sinc windowed to three pixels on each side, its weights brought to the sum 1.
        padding: what lies outside the image, texel by texel: "zeros", "constant" (`constant` everywhere), "clamp" (the
            border's value goes on), "reflect" (mirrored at the image's border, ... 1 0 | 0 1 ...: torch's "reflection"
            with align_corners=False), "mirror" (at the centres of the last pixels, ... 2 1 0 1 2 ...: torch's with
            align_corners=True) or "wrap" (the image repeats). A pair is one for x and one for y.
        constant: a number or [C], what "constant" means.

    Returns:
        [*batch, ..., C], in the wider dtype of the two. Halves are computed with in float32; coordinates want more.

    A point with a coordinate that is NaN, infinite or so large that floats no longer resolve half a pixel (2^22 in
    float32; 2^30 in float64) has a zero gradient to `xy`, and the border's value: 0 with "zeros", the constant with
    "constant", otherwise that of the nearest pixel centre in the image, counting NaN as 0.

    Raises:
        TypeError: a tensor that is not floating point.
        ValueError: shapes, devices, names that do not fit; an image without pixels.

    >>> image = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]])  # [2, 2, 1]
    >>> sample(image, torch.tensor([[0.5, 0.5], [1.0, 1.0], [1.5, 1.0]])).flatten().tolist()
    [0.0, 1.5, 2.0]
    """
    check_lookup(image, xy, ("image", "xy"), mode, padding)
    return look_up(image, xy, mode, padding, constant)


def sample_nearest(
    image: Tensor,
    xy: Tensor,
    *,
    padding: Padding | Sequence[Padding] = "zeros",
    surrogate: Literal["bilinear", "straight-through"],
) -> Tensor:
    """Values of the pixels that hold the points, with a gradient to the coordinates that is not theirs.

    Nearest-neighbour sampling is piecewise constant: its gradient to `xy` is zero. This one has the gradient of
    bilinear sampling instead, for who wants to fit through it and knows that it is another function's.

    Args:
        image, xy, padding: as in `sample`.
        surrogate: "bilinear": the gradient to `xy` is that of bilinear sampling, the one to the image is the true one.
            "straight-through": both are those of bilinear sampling.

    >>> xy = torch.tensor([[0.75, 0.5]], requires_grad=True)
    >>> value = sample_nearest(torch.tensor([[[0.0], [1.0]]]), xy, padding="clamp", surrogate="bilinear")
    >>> value.item(), torch.autograd.grad(value.sum(), xy)[0].tolist()
    (0.0, [[1.0, 0.0]])
    """
    check_lookup(image, xy, ("image", "xy"), "nearest", padding)
    if surrogate not in ("bilinear", "straight-through"):
        raise ValueError(f"surrogate must be 'bilinear' or 'straight-through'; got {surrogate!r}")
    through = surrogate == "straight-through"
    value = look_up(image.detach() if through else image, xy, "nearest", padding, 0.0)
    stand_in = look_up(image if through else image.detach(), xy, "bilinear", padding, 0.0)
    return value + (stand_in - stand_in.detach()).nan_to_num(0.0, 0.0, 0.0)  # infinite pixels: inf - inf


def sample_texture(
    texture: Tensor, uv: Tensor, *, mode: Mode = "bilinear", padding: Padding | Sequence[Padding] = "wrap"
) -> Tensor:
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
    check_lookup(texture, uv, ("texture", "uv"), mode, padding)
    if texture.ndim != 3:
        raise ValueError(f"texture must be [Ht, Wt, C]; got {shape_of(texture)}: for a batch of images use sample")
    height, width, _ = texture.shape
    return look_up(texture, uv, mode, padding, 0.0, scale=(width, -height), offset=(0, height))


def sample_volume(
    volume: Tensor,
    xyz: Tensor,
    *,
    mode: Mode = "bilinear",
    padding: Padding | Sequence[Padding] = "zeros",
    constant: float | Tensor = 0.0,
) -> Tensor:
    """Values of a volume at points given in voxels: `sample` with one more axis.

    Args:
        volume: [*batch, D, H, W, C]; voxel (0, 0, 0) covers [0, 1)^3, and its value sits at (0.5, 0.5, 0.5).
        xyz: [*batch, ..., 3]; x along W, y along H, z along D.
        mode, padding, constant: as in `sample`; paddings in the order x, y, z. "bilinear" is trilinear here.

    >>> sample_volume(torch.arange(8.0).view(2, 2, 2, 1), torch.tensor([[1.0, 1.0, 1.0]])).tolist()
    [[3.5]]
    """
    check_lookup(volume, xyz, ("volume", "xyz"), mode, padding)
    return look_up(volume, xyz, mode, padding, constant)


def look_up(
    image: Tensor,
    points: Tensor,
    mode: str,
    padding: str | Sequence[str],
    constant: float | Tensor,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> Tensor:
    """`lookup` by the names of filter and borders, at points * scale + offset."""
    dimensions = points.shape[-1]
    borders = paddings_of(padding, dimensions)
    wider = torch.promote_types(image.dtype, points.dtype)
    if mode == "bspline":
        image = bspline_coefficients(image.to(torch.promote_types(image.dtype, torch.float32)), borders)
    how = Lookup(
        mode,
        tuple("zeros" if border == "constant" else border for border in borders),
        tuple(map(float, scale or [1.0] * dimensions)),
        tuple(map(float, offset or [0.0] * dimensions)),
    )
    if "constant" not in borders:
        return lookup(image, points, how).to(wider)
    # The weights of every filter sum to 1.
    shift = torch.as_tensor(constant, dtype=image.dtype, device=image.device)
    if shift.shape not in ((), image.shape[-1:]):
        raise ValueError(f"constant must be a number, or one for each channel of {shape_of(image)}; got {constant!r}")
    return (lookup(image - shift, points, how) + shift).to(wider)


def paddings_of(padding: str | Sequence[str], dimensions: int) -> tuple[str, ...]:
    """One name for each axis."""
    return (padding,) * dimensions if isinstance(padding, str) else tuple(padding)


def check_lookup(
    image: Tensor, points: Tensor, names: tuple[str, str], mode: str, padding: str | Sequence[str]
) -> None:
    """Raise unless these arguments of `sample` and its like fit together."""
    image_name, name = names
    dimensions = 3 if name == "xyz" else 2
    check_tensor(image_name, image, hint="8-bit files hold sRGB; load_image decodes them to linear floats")
    check_image_ndim(image, "[..., D, H, W, C]" if dimensions == 3 else "[..., H, W, C]", image_name)
    check_tensor(name, points)
    _check_coordinates_last(points, name, dimensions)
    if 0 in image.shape[-dimensions - 1 : -1]:
        raise ValueError(f"{image_name} must have at least one pixel; got {shape_of(image)}")
    if image.device != points.device:
        raise ValueError(f"{image_name} and {name} must be on one device; got {image.device} and {points.device}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    check_padding(padding, dimensions)
    _check_batch(image, points, names)


def check_padding(padding: Any, dimensions: int) -> None:
    """Raise unless `padding` is a name, or one for each axis."""
    found = paddings_of(padding, dimensions) if isinstance(padding, Sequence) else ()
    if len(found) != dimensions or any(border not in PADDINGS for border in found):
        axes = "x and y" if dimensions == 2 else "x, y and z"
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, or one each for {axes}; got {padding!r}")


def _check_coordinates_last(points: Tensor, name: str, dimensions: int) -> None:
    if points.ndim and points.shape[-1] == dimensions:
        return
    got, letters = tuple(points.shape), {"uv": "(u, v)", "xyz": "(x, y, z)"}.get(name, "(x, y)")
    candidates = [d for d in (points.ndim - dimensions - 1, 0, 1) if 0 <= d < points.ndim and got[d] == dimensions]
    hint = f": move the coordinates last, {name}.movedim({candidates[0]}, -1)" if candidates else ""
    raise ValueError(f"{name} must end in {dimensions} {letters}; got {got}{hint}")


def _check_batch(image: Tensor, points: Tensor, names: tuple[str, str]) -> None:
    batch = tuple(image.shape[: -points.shape[-1] - 1])
    try:
        if points.ndim <= len(batch):
            raise ValueError("too few dimensions")
        broadcast_shapes(batch, points.shape[: len(batch)])
    except ValueError:
        raise ValueError(
            f"{names[1]} must begin with the batch {batch} of {names[0]} {shape_of(image)}; got {shape_of(points)}:"
            f" one point set for all images needs leading ones, {names[1]}[None]"
        ) from None
