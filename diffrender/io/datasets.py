"""Image sets by the format that they come in: which one a folder holds."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from .colmap import colmap_images, is_colmap
from .image_set import ImageSet
from .masks import background_mask
from .middlebury import middlebury_images
from .transforms import transforms_images


def load_dataset(
    path: str | os.PathLike[str],
    *,
    held_out: Sequence[str] = (),
    keep_unreadable: bool = False,
    background: Tensor | None = None,
) -> ImageSet:
    """The image set in a folder, or of one `*_par.txt` or `transforms*.json` file.

    Args:
        path: a folder that holds one of the formats (Middlebury, NeRF, or a COLMAP project: a sparse model and a folder
            `images`), or the file itself.
        held_out: names of views to keep for testing (with or without suffix), besides those of `transforms_test.json`.
        background: [3] or [H, W, 3] what all images show around the object, linear colour: masks are made from it
            (`masks.background_mask`), whatever others the set has.
        keep_unreadable: whether images that are missing or damaged stay in the set, and are errors only when loaded.

    Raises:
        FileNotFoundError: the folder, or images it speaks of, do not exist.
        ValueError: no known format, or something in it does not fit; the message names file and view.
    """
    path, masked = Path(path), background is None
    if not path.exists():
        raise FileNotFoundError(f"no such image set: {path}")
    folder = path.parent if path.is_file() else path
    parameters = [path] if path.is_file() else sorted(path.glob("*_par.txt"))
    transforms = [path] if path.is_file() else [path / f"transforms{part}.json" for part in ("", "_train", "_test")]
    if path.suffix == ".json" or any(file.is_file() for file in transforms if file.suffix == ".json"):
        images = transforms_images(
            folder, [file for file in transforms if file.is_file()], keep_unreadable=keep_unreadable, masked=masked
        )
    elif parameters and parameters[0].suffix == ".txt":
        if len(parameters) > 1:
            raise ValueError(f"{path} holds several image sets, {[p.name for p in parameters]}: name one of the files")
        images = middlebury_images(folder, parameters[0], keep_unreadable=keep_unreadable)
    elif path.is_dir() and is_colmap(path):
        images = colmap_images(path, keep_unreadable=keep_unreadable, masked=masked)
    else:
        pictures = sum(file.suffix.lower() in (".png", ".jpg", ".jpeg") for file in folder.iterdir())
        hint = f". It holds {pictures} images without cameras: COLMAP, for one, estimates those" if pictures else ""
        raise ValueError(
            f"{path} is no image set of a known format: looked for *_par.txt (Middlebury) and transforms.json, "
            f"transforms_train.json, transforms_test.json (NeRF), and a COLMAP model beside a folder images{hint}"
        )
    if background is not None:
        segment = partial(background_mask, background=background)
        images = replace(images, segment=segment, mask_paths=(), evidence=None)
    return _hold_out(images, held_out)


def _hold_out(images: ImageSet, held_out: Sequence[str]) -> ImageSet:
    """`images` with the views called `held_out` held out as well; the suffix may be left out."""
    wanted = images.called(held_out, "held_out")
    held = tuple(was or i in wanted for i, was in enumerate(images.held_out))
    if all(held):
        raise ValueError(
            f"held_out leaves no view to fit: all {len(images)} are held out, as those of transforms_test.json are"
        )
    return replace(images, held_out=held)
