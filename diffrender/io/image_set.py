"""Image sets: photographs with a camera each, loaded when they are asked for."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..cameras.base import Camera, stack_cameras
from .images import load_image
from .masks import alpha_mask, load_mask


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Views of one object. Nothing is decoded before `load`, and nothing is kept.

    Attributes:
        names: of the views, unique: the image files' paths below the folder of the set.
        paths: of the image files.
        cameras: one for each view, not batched; images are brought to their sizes on loading.
        held_out: whether a view is kept for testing.
        segment: image as loaded [H, W, 3 or 4] -> mask [H, W] in [0, 1]; by default its alpha.
        mask_paths: of mask files, one for each view, instead of `segment`; empty where the set has none.
        bounds: [2, 3] lowest and highest corner of the object, where the set says so.
        evidence: image as loaded, which is before black already -> silhouette of the object and trust in it, [H, W] in
            [0, 1], where more is known about them than the masks say; None: masks are silhouettes.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    cameras: tuple[Camera, ...]
    held_out: tuple[bool, ...]
    segment: Callable[[Tensor], Tensor] = alpha_mask
    mask_paths: tuple[Path, ...] = ()
    bounds: Tensor | None = None
    evidence: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each view."""
        return [camera.size for camera in self.cameras]

    @property
    def train(self) -> "ImageSet":
        """The views that are not held out."""
        return self.select([i for i, held in enumerate(self.held_out) if not held])

    @property
    def test(self) -> "ImageSet":
        """The views that are held out."""
        return self.select([i for i, held in enumerate(self.held_out) if held])

    def select(self, index: Sequence[int]) -> "ImageSet":
        """The views at `index`, in that order."""
        return replace(
            self,
            names=tuple(self.names[i] for i in index),
            paths=tuple(self.paths[i] for i in index),
            cameras=tuple(self.cameras[i] for i in index),
            held_out=tuple(self.held_out[i] for i in index),
            mask_paths=tuple(self.mask_paths[i] for i in index) if self.mask_paths else (),
        )

    def called(self, names: Sequence[str], argument: str) -> list[int]:
        """Index of the views called `names`, whose suffix may be left out; others are an error about `argument`."""
        known = [{name, Path(name).with_suffix("").as_posix()} for name in self.names]
        unknown = sorted(set(names) - set().union(*known))
        if unknown:
            raise ValueError(
                f"{argument} names no views of the set: {', '.join(unknown)}; there are {', '.join(self.names)}"
            )
        return [i for i, aliases in enumerate(known) if aliases & set(names)]

    def resized(self, scale: float) -> "ImageSet":
        """The same views with images `scale` times as large: for coarse to fine, and quick looks."""
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite; got {scale}")
        sizes = [(max(1, round(h * scale)), max(1, round(w * scale))) for h, w in self.sizes]
        return replace(self, cameras=tuple(c.resize(s) for c, s in zip(self.cameras, sizes, strict=True)))

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [H, W, 3] and mask [H, W] of one view: float32, linear colour, the camera's size.

        The object is before black: colour is multiplied by the file's alpha, and by masks that come from elsewhere.
        (Images with `evidence` keep what is seen around their masks.) Masks are made at
        the size of the file, then averaged with the image, so that those of smaller images are coverages.

        Raises ValueError, naming the file, where it cannot be decoded or holds NaN; FileNotFoundError where it is gone.
        """
        image = self._image(index)
        mask = self._mask(index, image)
        color = _before_black(image)
        if self.mask_paths or not (self.segment is alpha_mask or self.evidence):
            color = color * mask[..., None].to(color)
        both = self._as_large_as_camera(index, color, mask)
        return both[..., :3], both[..., 3]

    def mask_alike(self, picture: Tensor) -> Tensor:
        """[H, W] the mask that the set would have of a `picture` [H, W, 4] of a fit, before black, as large as files.

        Masks that are known to be other than silhouettes are made of both alike; otherwise it is the coverage.
        """
        return picture[..., 3] if self.evidence is None else self.segment(picture[..., :3].clamp(0, 1))

    def load_evidence(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image [H, W, 3] of one view as `load` has it, silhouette [H, W] of the object, and trust [H, W] in it.

        Where the set has no `evidence`, the silhouette is the mask, and trusted everywhere.
        """
        if self.evidence is None:
            color, mask = self.load(index)
            return color, mask, torch.ones_like(mask)
        image = self._image(index)
        all_three = self._as_large_as_camera(index, _before_black(image), *self.evidence(image))
        return all_three[..., :3], all_three[..., 3], all_three[..., 4]

    def _image(self, index: int) -> Tensor:
        image = load_image(self.paths[index])
        if not bool(image.isfinite().all()):  # files of floating-point numbers may hold anything
            wrong = int((~image.isfinite()).any(-1).sum())
            raise ValueError(f"{self.paths[index]} is NaN or infinite in {wrong} pixels")
        return image

    def _as_large_as_camera(self, index: int, color: Tensor, *others: Tensor) -> Tensor:
        """[H, W, 3 + N] a colour and N more values for each pixel, at the size of the camera."""
        return area_average(torch.cat([color, *(x[..., None].to(color) for x in others)], -1), self.cameras[index].size)

    def _mask(self, index: int, image: Tensor) -> Tensor:
        if not self.mask_paths:
            return self.segment(image)
        mask = load_mask(self.mask_paths[index])
        if mask.shape != image.shape[:2]:
            (height, width), (rows, columns) = mask.shape, image.shape[:2]
            raise ValueError(
                f"{self.mask_paths[index]} must have the size of its image, {columns} x {rows}; got {width} x {height}"
            )
        return mask

    def load_all(self) -> tuple[Tensor, Tensor, Camera]:
        """Images [N, H, W, 3], masks [N, H, W] and the cameras as one batch; the views must have one size."""
        images, masks = zip(*(self.load(i) for i in range(len(self))), strict=True)
        return torch.stack(images), torch.stack(masks), stack_cameras(self.cameras)


def _before_black(image: Tensor) -> Tensor:
    """[H, W, 3] the colour of an image [H, W, 3 or 4], times its alpha."""
    return image[..., :3] * image[..., 3:] if image.shape[-1] == 4 else image


def area_average(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` [H, W, C] at another `size` (height, width): each new pixel is the mean over the area that it covers.

    >>> area_average(torch.tensor([[[0.0], [3.0], [6.0]]]), (1, 2))
    tensor([[[1.],
             [5.]]])
    """
    if tuple(image.shape[:2]) == tuple(size):
        return image
    return _averaged(_averaged(image, size[0]).transpose(0, 1), size[1]).transpose(0, 1).contiguous()


def image_headers(
    source: Path, paths: Sequence[Path], *, keep_unreadable: bool = False
) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    """Size (height, width) and bands of each image that `source` names, from the first bytes of its file.

    Files that are missing or no images raise an error; with `keep_unreadable` they count as being like the first one
    that can be read, until somebody loads them.
    """
    if not keep_unreadable:
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(paths)} images that {source} speaks of do not exist, the first is "
                f"{missing[0]}: bring them there, or leave them out with keep_unreadable=True (--on-bad-image skip)"
            )
        return [_header(path) for path in paths]
    found: list[tuple[tuple[int, int], tuple[str, ...]] | None] = []
    for path in paths:
        try:
            found.append(_header(path))
        except ValueError:
            found.append(None)
    like = next((header for header in found if header is not None), None)
    if like is None:
        raise ValueError(f"none of the {len(paths)} images that {source} speaks of can be read")
    return [header or like for header in found]


def _header(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    try:
        with Image.open(path) as image:
            alpha = ("A",) if image.has_transparency_data and "A" not in image.getbands() else ()  # of a palette, say
            return (image.height, image.width), (*image.getbands(), *alpha)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def check_names(source: Path, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"{source} speaks of no images: is it the right file, and whole?")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{source} speaks more than once of {', '.join(twice)}")


def _averaged(image: Tensor, new: int) -> Tensor:
    """[new, W, C] of an `image` [H, W, C], averaged down its columns.

    One old row of each new one at a time: products of matrices have other bits for other numbers of threads.
    """
    old = image.shape[0]
    start = torch.arange(new, dtype=torch.float64) * (old / new)
    end = torch.arange(1, new + 1, dtype=torch.float64) * (old / new)
    first = start.floor()
    averaged = image.new_zeros(new, *image.shape[1:])
    for row in first + torch.arange(math.ceil(old / new) + 1)[:, None]:  # [new] old rows that new ones may cover
        covered = (torch.minimum(end, row + 1) - torch.maximum(start, row)).clamp(min=0) * (new / old)
        averaged += covered.to(image)[:, None, None] * image.index_select(0, row.long().clamp(max=old - 1))
    return averaged
