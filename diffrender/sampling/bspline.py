"""The coefficients of the cubic spline that passes through the values of an image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import fold
from ..precision import full_precision

POLE = math.sqrt(3.0) - 2.0  # of the inverse of (1, 4, 1) / 6


@full_precision
def bspline_coefficients(image: Tensor, borders: Sequence[str]) -> Tensor:
    """Coefficients [*batch, (Z,) H, W, C] whose spline has the values `image` at the centres of pixels.

    The inverse of the filter (1, 4, 1) / 6 decays as `POLE ** |k|` (Unser, "Splines: a perfect fit for signal and image
    processing", 1999, box 2); it is applied along each axis, as far as it is above the rounding error, to the image
    continued as its `borders` (x first) say. "clamp", "zeros" and "constant" are continued by reflection here; the
    spline still passes through the border's pixels with "clamp", and falls off towards the constant with the others.
    """
    reach = math.ceil(math.log(torch.finfo(image.dtype).eps) / math.log(-POLE))
    steps = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    inverse = -6 * POLE / (1 - POLE * POLE) * image.new_tensor(POLE).abs() ** steps.abs()
    inverse = inverse * (1 - 2 * (steps % 2))  # the pole is negative
    for axis, border in enumerate(borders):
        size = image.shape[-2 - axis]
        rule = border if border in ("reflect", "mirror", "wrap") else "reflect"
        index = fold(torch.arange(-reach, size + reach, device=image.device), size, rule)
        longer = image.index_select(image.ndim - 2 - axis, index).movedim(-2 - axis, -1)
        image = (longer.unfold(-1, 2 * reach + 1, 1) @ inverse).movedim(-1, -2 - axis)
    return image
