"""What a fit compares its pictures with: images and silhouettes at one size, and how much to trust them where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor

from ..cameras import Camera, stack_cameras
from ..io.image_set import ImageSet
from ..io.images import encode_srgb


@dataclass(frozen=True, eq=False)
class View:
    """One photograph.

    Attributes:
        camera: not batched.
        image: [H, W, 3] sRGB values: what eyes, and figures of merit, compare.
        silhouette: [H, W] coverage in [0, 1].
        trust: [H, W] weight of the silhouette, 0 where nobody knows.
    """

    camera: Camera
    image: Tensor
    silhouette: Tensor
    trust: Tensor


def load_views(images: ImageSet, longest: int | None = None) -> list[View]:
    """All views of `images`, no side of theirs longer than `longest` pixels."""
    views = []
    for i, (height, width) in enumerate(images.sizes):
        scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
        one = images.select([i]).resized(scale)
        image, mask = one.load(0)
        silhouette, trust = (mask, torch.ones_like(mask)) if not images.holes_are_shadows else without_holes(mask)
        views.append(View(one.cameras[0], encode_srgb(image), silhouette, trust))
    return views


def without_holes(mask: Tensor) -> tuple[Tensor, Tensor]:
    """`mask` [H, W] with its holes filled, and the trust [H, W]: none in the holes, which may be object or not."""
    inside = (mask >= 0.5).numpy()
    holes = ndimage.binary_fill_holes(inside) & ~inside
    holes = torch.from_numpy(ndimage.binary_dilation(holes, iterations=2))  # the partly covered pixels around them
    return torch.where(holes, 1.0, mask), (~holes).to(mask)


def alike(views: Sequence[View]) -> Iterator[tuple[list[int], Camera]]:
    """Index and batched camera of those views that can be rendered together: the same size and kind of camera."""
    groups: dict[object, list[int]] = {}
    for i, view in enumerate(views):
        groups.setdefault((type(view.camera), view.camera.size), []).append(i)
    for members in groups.values():
        yield members, stack_cameras([views[i].camera for i in members])
