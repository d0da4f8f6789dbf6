"""What a fit compares its pictures with: images and silhouettes at one size, and how much to trust them where.

Views are decoded when they are asked for, and no more of them are kept than fit into a given memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cameras import Camera, stack_cameras
from ..io.image_set import ImageSet
from ..io.images import encode_srgb

KEPT = 256 << 20  # bytes of decoded views that stay in memory: 170 of 320 x 240 pixels


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


class Views(Sequence[View]):
    """The views of an image set at one size, decoded when they are asked for.

    The first ones to be asked for are kept, up to `memory` bytes of them; the others are decoded each time. Not the
    last ones: a fit goes through all views again and again, and by the time a view comes up, it would have been
    dropped for another.

    Args:
        images: the image set.
        longest: no side is longer than so many pixels; None: as large as the files.
        memory: bytes.
        device: where their tensors and cameras are.
    """

    def __init__(
        self,
        images: ImageSet,
        longest: int | None = None,
        *,
        memory: int = KEPT,
        device: torch.device | str = "cpu",
    ) -> None:
        self._images = images
        self._longest = longest
        self._room = memory
        self._device = device
        self._kept: dict[int, View] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> View:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} views; got index {index}")
        if index in self._kept:
            return self._kept[index]
        view = self._decoded(index)
        size = sum(x.nbytes for x in (view.image, view.silhouette, view.trust))
        if size <= self._room:
            self._room -= size
            self._kept[index] = view
        return view

    def cameras(self) -> Iterator[Camera]:
        """Those of all views; nothing is decoded."""
        for index in range(len(self)):
            yield self._resized(index).cameras[0].to(self._device)

    def _resized(self, index: int) -> ImageSet:
        """One view alone, at the size of these."""
        longest = max(self._images.sizes[index])
        scale = 1.0 if self._longest is None else min(1.0, self._longest / longest)
        return self._images.select([index]).resized(scale)

    def _decoded(self, index: int) -> View:
        one = self._resized(index)
        image, silhouette, trust = one.load_evidence(0)
        seen = (x.to(self._device).contiguous() for x in (encode_srgb(image), silhouette, trust))  # no wider storage
        return View(one.cameras[0].to(self._device), *seen)


class Masks(Sequence[Tensor]):
    """[H, W] where masks are at least 0.5, and their cameras: a bit for each pixel, so that hundreds can be kept."""

    def __init__(self, masks: Iterable[tuple[Tensor, Camera]]) -> None:
        self.cameras: list[Camera] = []
        self._bits: list[np.ndarray] = []
        for mask, camera in masks:
            self.cameras.append(camera)
            self._bits.append(np.packbits((mask >= 0.5).numpy()))

    def __len__(self) -> int:
        return len(self._bits)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        height, width = self.cameras[index].size
        bits = np.unpackbits(self._bits[index], count=height * width)
        return torch.from_numpy(bits.reshape(height, width)).bool()


def usable(images: ImageSet, *, skip: bool) -> tuple[ImageSet, list[str]]:
    """The views whose files can be decoded and show something, and a note about each of the others.

    Raises ValueError for those without `skip`, and where nothing is left.
    """
    good, wrong = [], []
    for i, name in enumerate(images.names):
        try:
            _, mask = images.load(i)
            if not bool((mask >= 0.5).any()):
                raise ValueError(
                    f"{images.paths[i]} shows nothing, its mask is empty: alpha may be 0 everywhere, or the object too "
                    "dark for the threshold"
                )
            good.append(i)
        except (ValueError, OSError) as error:
            wrong.append((name, error))
    if wrong and not (skip and good):
        more = f", and {len(wrong) - 1} more of {len(images)} images are like that" if len(wrong) > 1 else ""
        raise ValueError(
            f"{wrong[0][1]}{more}; repair it, or leave out what cannot be used with on_bad_image='skip' "
            "(--on-bad-image skip)"
        )
    return images.select(good), [f"{name} is left out: {error}" for name, error in wrong]


def alike(views: Sequence[View]) -> Iterator[tuple[list[int], Camera]]:
    """Index and batched camera of those views that can be rendered together: the same size and kind of camera."""
    groups: dict[object, list[int]] = {}
    for i, view in enumerate(views):
        groups.setdefault((type(view.camera), view.camera.size), []).append(i)
    for members in groups.values():
        yield members, stack_cameras([views[i].camera for i in members])
