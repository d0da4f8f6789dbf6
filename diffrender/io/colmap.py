"""COLMAP's sparse models: cameras, images with poses, points with tracks; text and binary, read and written.

The conventions are those of this package: x right, y down, z forward, world to camera, the corner of the upper left
pixel at (0, 0). Nothing is converted, and numbers come back as they were. Folders of newer versions hold rigs and
frames as well: these are neither read nor written, since `images` repeats the pose of every image, and COLMAP makes
them anew where they are missing.

Formats: https://colmap.github.io/format.html; models: https://colmap.github.io/cameras.html.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cameras import Camera, matrix_to_quaternion
from . import colmap_binary, colmap_text
from .colmap_records import ColmapCamera, ColmapImages, ColmapPoints
from .files import naming
from .image_set import ImageSet, check_names, image_headers

_FORMATS = {".bin": colmap_binary, ".txt": colmap_text}
_FILES = ("cameras", "images", "points3D")
_BELOW = ("", "sparse/0", "sparse")  # where COLMAP's projects keep a model


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A sparse reconstruction, number for number as in its files."""

    cameras: tuple[ColmapCamera, ...]
    images: ColmapImages
    points: ColmapPoints

    @classmethod
    def from_cameras(cls, names: Sequence[str], cameras: Sequence[Camera]) -> "ColmapModel":
        """A model of images whose cameras are known, without points: what COLMAP's point_triangulator starts from.

        Every image gets a camera of its own, both numbered from 1.
        """
        if len(names) != len(cameras) or not names:
            raise ValueError(f"names and cameras must be as many, and not none; got {len(names)} and {len(cameras)}")
        numbers = torch.arange(1, len(names) + 1)
        records = [ColmapCamera.from_camera(c, camera_id=i) for i, c in enumerate(cameras, start=1)]
        R, t = (torch.stack([getattr(c, name).detach().double().cpu() for c in cameras]) for name in ("R", "t"))
        none, vectors = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
        starts = torch.zeros(len(names) + 1, dtype=torch.int64)
        return cls(
            tuple(records),
            ColmapImages(numbers, matrix_to_quaternion(R), t, numbers, tuple(names), vectors[:, :2], none, starts),
            ColmapPoints(none, vectors, vectors.to(torch.uint8), vectors[:, 0], none, none, starts[:1]),
        )

    def image_cameras(self) -> list[Camera]:
        """The camera of each image with its pose, in float64."""
        lenses = {record.camera_id: record.camera() for record in self.cameras}
        rotations, translations = self.images.R, self.images.t
        return [
            lenses[number].replace(R=rotations[i], t=translations[i])
            for i, number in enumerate(self.images.camera_id.tolist())
        ]

    def observations(self) -> tuple[Tensor, Tensor, Tensor]:
        """All observations of points: the image's index [T], the point's index [T], and the pixel [T, 2]."""
        image_index = _places(self.images.image_id, self.points.track_image_id)
        point_index = torch.repeat_interleave(torch.arange(len(self.points.point_id)), self.points.starts.diff())
        return image_index, point_index, self.images.xy[self.images.starts[image_index] + self.points.track_index]


def load_colmap(path: str | os.PathLike[str]) -> ColmapModel:
    """A sparse model of COLMAP.

    Args:
        path: the folder with `cameras`, `images` and `points3D`, as .bin or else as .txt; or the project above it,
            which holds the model in `sparse/0` or `sparse`.

    Raises:
        FileNotFoundError: the folder, or one of the files, is not there.
        ValueError: what is truncated, malformed, of an unknown camera model or refers to what is not there; the message
            names file and byte or line.
    """
    folder, suffix = _find_model(Path(path))
    cameras_file, images_file, points_file = (folder / f"{name}{suffix}" for name in _FILES)
    reader = _FORMATS[suffix]
    model = ColmapModel(
        reader.read_cameras(cameras_file), reader.read_images(images_file), reader.read_points(points_file)
    )
    known = {camera.camera_id for camera in model.cameras}
    for i, number in enumerate(model.images.camera_id.tolist()):
        if number not in known:
            raise ValueError(
                f"{images_file}: image {model.images.names[i]!r} has camera {number}, {sorted(known)} are known"
            )
    with naming(str(points_file)):
        _check_tracks(model)
    return model


def save_colmap(path: str | os.PathLike[str], model: ColmapModel, *, binary: bool = True) -> None:
    """Write `cameras`, `images` and `points3D` into an existing folder: what was read comes out as it was.

    Binary files are the same bytes, text has the 17 digits that bring the same numbers back.
    """
    folder, suffix = Path(path), ".bin" if binary else ".txt"
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    writer = _FORMATS[suffix]
    writer.write_points(folder / f"points3D{suffix}", model.points)
    writer.write_images(folder / f"images{suffix}", model.images)
    writer.write_cameras(folder / f"cameras{suffix}", model.cameras)


def colmap_images(folder: Path, *, keep_unreadable: bool = False, masked: bool = True) -> ImageSet:
    """The image set of a project: a model and a folder `images`.

    Masks are the files `masks/NAME.png` (COLMAP's own rule) or `masks/NAME`, else the images' alpha; with `masked`
    False there may be neither.
    """
    model = load_colmap(folder)
    model_folder, suffix = _find_model(folder)
    source = model_folder / f"images{suffix}"
    names = model.images.names
    check_names(source, names)
    paths = [folder / "images" / name for name in names]
    headers = image_headers(source, paths, keep_unreadable=keep_unreadable)
    cameras = model.image_cameras()
    for path, camera, (size, _) in zip(paths, cameras, headers, strict=True):
        if camera.size != size:
            raise ValueError(f"{path} is {size[1]} x {size[0]}; its camera is for {camera.width} x {camera.height}")
    masks = [_mask_path(folder, name) for name in names]
    found = [mask for mask in masks if mask is not None]
    if masked and len(found) < len(masks) and not all("A" in bands for _, bands in headers):
        raise ValueError(
            f"{folder}: {len(masks) - len(found)} of {len(masks)} views have no mask: put them in {folder / 'masks'}, "
            f"called {names[0]}.png and so on, white where the object is, or give the images an alpha channel"
        )
    return ImageSet(
        names=tuple(names),
        paths=tuple(paths),
        cameras=tuple(camera.to(dtype=torch.float32) for camera in cameras),
        held_out=(False,) * len(names),
        mask_paths=tuple(found) if len(found) == len(masks) else (),
    )


def is_colmap(folder: Path) -> bool:
    """Whether there is a model in the folder or where projects keep one."""
    return any((folder / below / f"cameras{suffix}").is_file() for below in _BELOW for suffix in _FORMATS)


def _find_model(path: Path) -> tuple[Path, str]:
    """The folder of the model, and the suffix of its files."""
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    for folder in (path / below for below in _BELOW):
        for suffix in _FORMATS:
            there = [(folder / f"{name}{suffix}").is_file() for name in _FILES]
            if all(there):
                return folder, suffix
    missing = [f"{name}.bin" for name in _FILES]
    raise FileNotFoundError(f"{path} holds no whole COLMAP model: looked for {', '.join(missing)} (or .txt)")


def _mask_path(folder: Path, name: str) -> Path | None:
    candidates = [folder / "masks" / f"{name}.png", folder / "masks" / name]
    return next((path for path in candidates if path.is_file()), None)


def _places(values: Tensor, wanted: Tensor) -> Tensor:
    """Where in `values` [N], all different, each `wanted` [M] stands; -1 for none."""
    if not len(values):
        return torch.full_like(wanted, -1)
    order = values.argsort()
    found = order[torch.searchsorted(values[order], wanted).clamp(max=len(values) - 1)]
    return torch.where(values[found] == wanted, found, -1)


def _check_tracks(model: ColmapModel) -> None:
    """Raise unless every track names images and observations that exist."""
    images, points = model.images, model.points
    place = _places(images.image_id, points.track_image_id)
    count = torch.cat((images.starts.diff(), images.starts.new_zeros(1)))[place]  # the last one is for -1, no image
    bad = ((points.track_index < 0) | (points.track_index >= count)).nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        point = int(np.searchsorted(points.starts.numpy(), first, side="right")) - 1
        raise ValueError(
            f"the track of point {int(points.point_id[point])} names observation {int(points.track_index[first])} of "
            f"image {int(points.track_image_id[first])}, which images does not hold"
        )
