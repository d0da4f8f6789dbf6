"""Losses and figures of merit: how far a rendered image is from the one it should be.

All take images with the channels last and any leading dimensions, [..., H, W, C], masks without channels, [..., H, W],
and average over everything, so that the weight of a loss depends neither on the size of the images nor on their number.
Losses work on linear colour, as `render` returns it. Figures of merit are those of the literature, on sRGB values.
"""

import torch
from torch import Tensor

from . import steady
from .checks import check_tensor, shape_of
from .io.images import encode_srgb

_EMPTY = 1e-8  # of a pixel: keeps 0 / 0 out of means over an empty mask, far below any pixel's weight


def silhouette_loss(alpha: Tensor, mask: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of coverage and mask.

    Args:
        alpha: [..., H, W] rendered coverage, the last channel of `render`.
        mask: [..., H, W] what it should be, in [0, 1].
        weight: [..., H, W] of each pixel, to leave out what is unknown; default: ones.

    The derivative of a pixel is proportional to its error: pixels beside an edge that is nearly right hardly pull.

    >>> silhouette_loss(torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.1250)
    """
    _check_alike("alpha", alpha, "mask", mask)
    return _mean((alpha - mask).square(), "weight", weight)


def color_loss(
    color: Tensor, target: Tensor, *, mask: Tensor | None = None, kind: str = "l1", huber_delta: float = 0.1
) -> Tensor:
    """Mean difference of two linear colour images, per channel.

    Args:
        color: [..., H, W, C] rendered, linear.
        target: [..., H, W, C] what it should be, linear.
        mask: [..., H, W] weight of each pixel; default: ones. Pixels of weight 0 may hold anything finite.
        kind: "l1"; "l2" (squares); "huber": squares below `huber_delta`, the slope of l1 above.

    >>> target = torch.tensor([[[0.1, 0.2, 0.3], [9.0, 9.0, 9.0]]])
    >>> color_loss(torch.zeros(1, 2, 3), target, mask=torch.tensor([[1.0, 0.0]]))
    tensor(0.2000)
    """
    _check_alike("color", color, "target", target)
    difference = color - target
    if kind == "l1":
        error = difference.abs()
    elif kind == "l2":
        error = difference.square()
    elif kind == "huber":
        if not huber_delta > 0:
            raise ValueError(f"huber_delta must be positive; got {huber_delta}")
        error = torch.nn.functional.huber_loss(color, target, reduction="none", delta=huber_delta) / huber_delta
    else:
        raise ValueError(f"kind must be 'l1', 'l2' or 'huber'; got {kind!r}")
    return _mean(error.mean(-1), "mask", mask)


def iou(alpha: Tensor, mask: Tensor) -> Tensor:
    """[...] intersection over union of two coverages [..., H, W]; 1 where both are empty.

    Coverages between 0 and 1 count by their minimum and maximum (Jaccard's index of fuzzy sets). For the figure of the
    literature pass `(alpha >= 0.5).float()`.

    >>> iou(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(0.5000)
    """
    _check_alike("alpha", alpha, "mask", mask)
    both, either = _sum_of_pixels(torch.minimum(alpha, mask)), _sum_of_pixels(torch.maximum(alpha, mask))
    return torch.where(either > 0, both / either.clamp(min=_EMPTY), 1.0)


def psnr(color: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """[...] peak signal to noise ratio in dB of linear colour images, measured on their sRGB values in [0, 1].

    Args:
        color: [..., H, W, C] linear; clipped to [0, 1].
        target: [..., H, W, C] linear; clipped to [0, 1].
        mask: [..., H, W] weight of each pixel; default: ones.

    Equal images give infinity; so does an empty mask.

    >>> round(float(psnr(torch.zeros(4, 4, 3), torch.ones(4, 4, 3))), 3)
    0.0
    """
    _check_alike("color", color, "target", target)
    squared = (encode_srgb(color.clamp(0, 1)) - encode_srgb(target.clamp(0, 1))).square().mean(-1)
    if mask is None:
        mean = _sum_of_pixels(squared) / (squared.shape[-2] * squared.shape[-1])
    else:
        _check_alike("mask", mask, "color without its channels", squared)
        mean = _sum_of_pixels(squared * mask) / _sum_of_pixels(mask).clamp(min=_EMPTY)
    return 10 * (1 / mean).log10()


def _sum_of_pixels(values: Tensor) -> Tensor:
    """[...] sums of [..., H, W]: row by row, which threads do not divide, also where there is one image only."""
    return values.sum(-1).sum(-1)


def _mean(error: Tensor, name: str, weight: Tensor | None) -> Tensor:
    """Mean of `error`, weighted by the argument `name`; 0 where all weights are 0."""
    if weight is None:
        return steady.mean(error)
    _check_alike(name, weight, "the images without their channels", error)
    return steady.total(error * weight) / steady.total(weight).clamp(min=_EMPTY)


def _check_alike(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    check_tensor(name, value)
    check_tensor(other_name, other)
    if value.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name} must have the same shape; got {shape_of(value)} and {shape_of(other)}: "
            "resize one of them, or broadcast it with .expand"
        )
