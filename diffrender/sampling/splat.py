"""`splat`: values added to an image at points, the adjoint of `sample`; `warp`: an image moved by a flow field."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_size, check_tensor, shape_of
from ..kernels import Lookup
from .lookup import spread
from .sample import Mode, Padding, check_lookup, check_padding, look_up, paddings_of


def splat(
    values: Tensor,
    xy: Tensor,
    size: tuple[int, int],
    *,
    mode: Mode = "bilinear",
    padding: Padding | Sequence[Padding] = "zeros",
) -> Tensor:
    """Values added to an empty image at points: `(splat(v, xy) * image).sum() == (v * sample(image, xy)).sum()`.

    Args:
        values: [*batch, P, C], floating point.
        xy: [*batch, P, 2] points in pixels.
        size: (height, width) of the image.
        mode, padding: as in `sample`; "constant" and "bspline", which are no sums of texels alone, are not possible.

    Returns:
        [*batch, H, W, C], differentiable to values and points. Divide by the splat of ones for a mean.

    >>> splat(torch.ones(1, 1), torch.tensor([[1.0, 0.5]]), (1, 2))
    tensor([[[0.5000],
             [0.5000]]])
    """
    check_tensor("values", values)
    if values.ndim < 2 or xy.shape != (*values.shape[:-1], 2):
        raise ValueError(f"values (..., P, C) and xy (..., P, 2) must fit; got {shape_of(values)} and {shape_of(xy)}")
    check_padding(padding, 2)
    if mode == "bspline" or "constant" in paddings_of(padding, 2):
        raise ValueError("splat has neither mode 'bspline' nor padding 'constant': they are no sums of texels alone")
    height, width = check_size("size", size)
    check_lookup(values.new_empty(height, width, 1), xy, ("size", "xy"), mode, padding)
    how = Lookup(mode, paddings_of(padding, 2), (1.0, 1.0), (0.0, 0.0))
    return spread(values, xy, (height, width), how)


def warp(
    image: Tensor, flow: Tensor, *, mode: Mode = "bilinear", padding: Padding | Sequence[Padding] = "clamp"
) -> Tensor:
    """The image as seen through a flow field: at each pixel centre p the value at p + flow(p).

    Args:
        image: [*batch, H, W, C].
        flow: [*batch, Ho, Wo, 2] in pixels, (x, y).
        mode, padding: as in `sample`.

    Returns:
        [*batch, Ho, Wo, C].

    >>> warp(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])).flatten()
    tensor([2., 2.])
    """
    check_lookup(image, flow, ("image", "flow"), mode, padding)
    if flow.ndim != image.ndim:
        raise ValueError(f"flow must be (..., Ho, Wo, 2) for image {shape_of(image)}; got {shape_of(flow)}")
    return look_up(image, pixel_centers((flow.shape[-3], flow.shape[-2]), flow) + flow, mode, padding, 0.0)


def pixel_centers(size: tuple[int, int], like: Tensor) -> Tensor:
    """[H, W, 2] the centres (x + 0.5, y + 0.5) of the pixels of an image.

    >>> pixel_centers((1, 2), torch.zeros(())).tolist()
    [[[0.5, 0.5], [1.5, 0.5]]]
    """
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5 for n in size)
    return torch.stack(torch.broadcast_tensors(x, y[:, None]), -1)
