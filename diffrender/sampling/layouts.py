"""Channels last, as here, and channels first, as in torch's convolutions."""

from torch import Tensor

from ..checks import shape_of


def to_nchw(image: Tensor) -> Tensor:
    """View an image [..., H, W, C] as [..., C, H, W], the layout of torch's convolutions and of kornia.

    >>> import torch
    >>> to_nchw(torch.zeros(5, 480, 640, 3)).shape
    torch.Size([5, 3, 480, 640])
    """
    check_image_ndim(image, "[..., H, W, C]")
    return image.movedim(-1, -3)


def to_nhwc(image: Tensor) -> Tensor:
    """View an image [..., C, H, W] as [..., H, W, C], the layout of diffrender.

    >>> import torch
    >>> to_nhwc(torch.zeros(5, 3, 480, 640)).shape
    torch.Size([5, 480, 640, 3])
    """
    check_image_ndim(image, "[..., C, H, W]")
    return image.movedim(-3, -1)


def check_image_ndim(image: Tensor, layout: str, name: str = "image") -> None:
    """Raise unless an image has as many dimensions as its `layout` has letters, at least."""
    needed = layout.count(",")
    if image.ndim < needed:
        raise ValueError(f"{name} must be {layout}; got {shape_of(image)}: a grey image needs a channel dimension")
