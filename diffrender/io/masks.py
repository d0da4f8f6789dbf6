"""Masks of photographs: from alpha, from files, from a known background, or by the recipe of the Middlebury data.

scipy.ndimage is imported when a mask is made: few who import this package make any, and all would wait for it.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checks import check_tensor, shape_of
from .images import encode_srgb, stored_pixels, unit_values

# The recipe in the README of the Middlebury data.
MASK_THRESHOLD = 0.19
MASK_DILATION = 10
MASK_EROSION = 7

BLUR = 2  # pixels inside of the outline of a threshold where lenses mix object and background, and nobody knows

TOLERANCE = 0.06  # of sRGB values, 15 of 255: noise and compression stay below
SPECK = 1e-4  # of the area of the image, 8 x 8 pixels of 800 x 800: smaller pieces are dust

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
    return _mask_of(_generous(_bright(image)), image)


def threshold_evidence(image: Tensor) -> tuple[Tensor, Tensor]:
    """[H, W] the silhouette of a bright object before black, and [H, W] whether to trust it, each 0 or 1.

    `threshold_mask` is generous, to be safe for carving: it reaches MASK_DILATION - MASK_EROSION pixels beyond the
    object. Here it is eroded by as much again, and its holes are filled. What is dark in there, a shadow or a notch
    that dilating has closed, may be object or not, and so may the outermost BLUR pixels: a low threshold is reached
    where the lens has blurred some of the object's light to. Images tell more about such places than masks do.

    Args:
        image: [H, W, 3 or 4] linear colour.

    >>> picture = torch.zeros(80, 80, 3)
    >>> picture[28:52, 28:52] = 0.5
    >>> silhouette, trust = threshold_evidence(picture)
    >>> int(silhouette.sum()), int((silhouette * trust).sum()), int(threshold_mask(picture).sum())
    (576, 400, 880)
    """
    from scipy import ndimage

    check_tensor("image", image, ndim=3)
    bright = _bright(image)
    unfilled = _distance_to(_distance_to(bright) > MASK_DILATION) > MASK_DILATION
    silhouette = ndimage.binary_fill_holes(unfilled & _generous(bright))
    known = ~silhouette | (bright & (_distance_to(~silhouette) > BLUR))
    return _mask_of(silhouette, image), _mask_of(known, image)


def background_mask(image: Tensor, background: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """[H, W] mask, 0 or 1, of an object before a known background.

    Args:
        image: [H, W, 3 or 4] linear colour.
        background: [3] or [H, W, 3] linear: its colour, or a photograph of it without the object.
        tolerance: sRGB values that differ by at most so much in all channels count as background.

    Pieces of less than 1e-4 of the image's area are dust, in the object as well as beside it. Pixels that the object
    covers in part are in the mask, as far as they can be told.

    >>> picture = torch.zeros(4, 4, 3)
    >>> picture[1:3, 1:3] = 0.5
    >>> background_mask(picture, torch.zeros(3)).sum()
    tensor(4.)
    """
    check_tensor("image", image, ndim=3)
    if background.shape not in ((3,), (*image.shape[:2], 3)):
        raise ValueError(
            f"background must be a colour (3,) or a picture of the size of the image, {(*image.shape[:2], 3)}; got "
            f"{shape_of(background)}"
        )
    stored, empty = (encode_srgb(x.double().clamp(0, 1)) for x in (image[..., :3], background))
    differs = ((stored - empty).abs().amax(-1) > tolerance).cpu().numpy()
    whole = ~_without_dust(~_without_dust(differs))
    return _mask_of(whole, image)


def alpha_mask(image: Tensor) -> Tensor:
    """[H, W] the alpha of an image [H, W, 4]."""
    check_tensor("image", image, last=4, ndim=3, hint="the image has no alpha to take the mask from")
    return image[..., 3]


def load_mask(path: Path) -> Tensor:
    """[H, W] a mask file: the stored values, 0 (black) to 1 (white), of its first channel."""
    return torch.from_numpy(unit_values(stored_pixels(path)[..., 0]).astype(np.float32))


def _bright(image: Tensor) -> np.ndarray:
    """[H, W] whether the luma of the stored values is above the recipe's threshold."""
    stored = encode_srgb(image[..., :3].double().clamp(0, 1))
    return np.asarray((stored * image.new_tensor(_REC601).double()).sum(-1).cpu().numpy() > MASK_THRESHOLD)


def _generous(bright: np.ndarray) -> np.ndarray:
    """[H, W] bool, the rest of the recipe: dilated, eroded by less, the largest component."""
    # Distances instead of structuring elements: a disk of radius r reaches what is at most r away.
    dilated = _distance_to(bright) <= MASK_DILATION
    labels = _components(_distance_to(~dilated) > MASK_EROSION)
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return np.asarray((labels == sizes.argmax()) & (labels > 0))


def _mask_of(where: np.ndarray, image: Tensor) -> Tensor:
    """[H, W] 1 where `where` is set, else 0; on the device of `image`."""
    return torch.from_numpy(where.astype(np.float32)).to(image.device)


def _without_dust(where: np.ndarray) -> np.ndarray:
    """[H, W] `where` without its small pieces."""
    labels = _components(where)
    return (np.bincount(labels.reshape(-1)) >= SPECK * where.size)[labels] & where


def _components(where: np.ndarray) -> np.ndarray:
    """[H, W] the number, from 1, of the piece of `where` that each pixel is in; 0 outside."""
    from scipy import ndimage

    return ndimage.label(where)[0]


def _distance_to(where: np.ndarray) -> np.ndarray:
    """[H, W] distance of each pixel to the nearest one that is set; infinite where none is."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~where) if where.any() else np.full(where.shape, np.inf)
