"""Masks of photographs: from alpha, from files, or by the recipe of the Middlebury data."""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..checks import check_tensor
from .images import encode_srgb, load_image

# The recipe in the README of the Middlebury data.
MASK_THRESHOLD = 0.19
MASK_DILATION = 10
MASK_EROSION = 7

_REC601 = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Matlab's rgb2gray


def threshold_mask(image: Tensor) -> Tensor:
    """[H, W] mask, 0 or 1, of a bright object before black, by the recipe of the Middlebury data.

    Args:
        image: [H, W, 3 or 4] linear colour.

    Threshold the luma of the stored (sRGB) values at 0.19, dilate by 10 pixels, erode by 7, keep the largest component.
    "By n pixels" is read as a disk of that radius. The object may leave the image: what lies beyond is neither set when
    dilating nor empty when eroding. Shadows deep inside the object can stay as holes.
    """
    check_tensor("image", image, ndim=3)
    luma = (encode_srgb(image[..., :3].double().clamp(0, 1)) * image.new_tensor(_REC601).double()).sum(-1).cpu().numpy()
    bright = luma > MASK_THRESHOLD
    # Distances instead of structuring elements: a disk of radius r reaches what is at most r away.
    dilated = _distance_to(bright) <= MASK_DILATION
    eroded = _distance_to(~dilated) > MASK_EROSION
    labels, count = ndimage.label(eroded)
    if count == 0:
        return torch.zeros(image.shape[:2])
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return torch.from_numpy((labels == sizes.argmax()).astype(np.float32))


def alpha_mask(image: Tensor) -> Tensor:
    """[H, W] the alpha of an image [H, W, 4]."""
    check_tensor("image", image, last=4, ndim=3, hint="the image has no alpha to take the mask from")
    return image[..., 3]


def load_mask(path: Path) -> Tensor:
    """[H, W] a mask file: the stored values, 0 (black) to 1 (white), of its first channel."""
    stored = encode_srgb(load_image(path)[..., 0].double())  # undoes the decoding: masks are no colours
    return stored.float()


def _distance_to(where: np.ndarray) -> np.ndarray:
    """[H, W] distance of each pixel to the nearest one that is set; infinite where none is."""
    return ndimage.distance_transform_edt(~where) if where.any() else np.full(where.shape, np.inf)
