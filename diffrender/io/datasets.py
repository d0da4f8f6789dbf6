"""Image sets: photographs with a camera each, read from the formats they come in, loaded when they are asked for.

Two formats. Middlebury multi-view (`*_par.txt`; Seitz et al. 2006): masks by the recipe of its README. NeRF
(`transforms.json`, or `transforms_train.json` with `transforms_test.json`): masks are the images' alpha. All conversion
to the conventions of this package (camera frame, half pixels, linear colour) happens here.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor

from ..cameras.base import Camera, stack_cameras
from ..cameras.opencv import OpenCVCamera
from ..cameras.pinhole import PinholeCamera
from ..cameras.poses import from_opengl_pose
from ..checks import check_tensor
from .images import encode_srgb, load_image

# The recipe in the README of the Middlebury data.
MASK_THRESHOLD = 0.19
MASK_DILATION = 10
MASK_EROSION = 7

_REC601 = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Matlab's rgb2gray
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3")  # OpenCV's order


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Views of one object. Nothing is decoded before `load`, and nothing is kept.

    Attributes:
        names: of the views, unique: the image files' paths below the folder of the set.
        paths: of the image files.
        cameras: one for each view, not batched; images are brought to their sizes on loading.
        held_out: whether a view is kept for testing.
        segment: image as loaded [H, W, 3 or 4] -> mask [H, W] in [0, 1].
        bounds: [2, 3] lowest and highest corner of the object, where the set says so.
        holes_are_shadows: whether holes in the masks may be dark places of the object, rather than see-through.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    cameras: tuple[Camera, ...]
    held_out: tuple[bool, ...]
    segment: Callable[[Tensor], Tensor]
    bounds: Tensor | None = None
    holes_are_shadows: bool = False

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
        )

    def resized(self, scale: float) -> "ImageSet":
        """The same views with images `scale` times as large: for coarse to fine, and quick looks."""
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite; got {scale}")
        sizes = [(max(1, round(h * scale)), max(1, round(w * scale))) for h, w in self.sizes]
        return replace(self, cameras=tuple(c.resize(s) for c, s in zip(self.cameras, sizes, strict=True)))

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [H, W, 3] and mask [H, W] of one view: float32, linear colour, the camera's size.

        Where the file has alpha, colour is multiplied by it (the object before black). Masks are made at the size of
        the file, then averaged with the image, so that those of smaller images are coverages.
        """
        image = load_image(self.paths[index])
        mask = self.segment(image)
        color = image[..., :3] * image[..., 3:] if image.shape[-1] == 4 else image
        both = area_average(torch.cat([color, mask[..., None].to(color)], dim=-1), self.cameras[index].size)
        return both[..., :3], both[..., 3]

    def load_all(self) -> tuple[Tensor, Tensor, Camera]:
        """Images [N, H, W, 3], masks [N, H, W] and the cameras as one batch; the views must have one size."""
        images, masks = zip(*(self.load(i) for i in range(len(self))), strict=True)
        return torch.stack(images), torch.stack(masks), stack_cameras(self.cameras)


def load_dataset(path: str | os.PathLike[str], *, held_out: Sequence[str] = ()) -> ImageSet:
    """The image set in a folder, or of one `*_par.txt` or `transforms*.json` file.

    Args:
        path: a folder that holds one of the two formats, or the file itself.
        held_out: names of views to keep for testing (with or without suffix), besides those of `transforms_test.json`.

    Raises:
        FileNotFoundError: the folder, or images it speaks of, do not exist.
        ValueError: no known format, or something in it does not fit; the message names file and view.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such image set: {path}")
    folder = path.parent if path.is_file() else path
    parameters = [path] if path.is_file() else sorted(path.glob("*_par.txt"))
    transforms = [path] if path.is_file() else [path / f"transforms{part}.json" for part in ("", "_train", "_test")]
    if path.suffix == ".json" or any(file.is_file() for file in transforms if file.suffix == ".json"):
        images = _load_transforms(folder, [file for file in transforms if file.is_file()])
    elif parameters and parameters[0].suffix == ".txt":
        if len(parameters) > 1:
            raise ValueError(f"{path} holds several image sets, {[p.name for p in parameters]}: name one of the files")
        images = _load_middlebury(folder, parameters[0])
    else:
        raise ValueError(
            f"{path} is no image set of a known format: looked for *_par.txt (Middlebury) and transforms.json, "
            "transforms_train.json, transforms_test.json (NeRF)"
        )
    return _hold_out(images, held_out)


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


def area_average(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` [H, W, C] at another `size` (height, width): each new pixel is the mean over the area that it covers.

    >>> area_average(torch.tensor([[[0.0], [3.0], [6.0]]]), (1, 2))
    tensor([[[1.],
             [5.]]])
    """
    if tuple(image.shape[:2]) == tuple(size):
        return image
    rows, columns = (_overlaps(image.shape[k], size[k]).to(image) for k in (0, 1))
    return torch.einsum("yh,hwc,xw->yxc", rows, image, columns)


def _overlaps(old: int, new: int) -> Tensor:
    """[new, old] the share that each old pixel has in each new one; rows sum to one."""
    old_edges = torch.arange(old + 1, dtype=torch.float64)
    new_edges = torch.arange(new + 1, dtype=torch.float64) * (old / new)
    start = torch.maximum(old_edges[:-1], new_edges[:-1, None])
    end = torch.minimum(old_edges[1:], new_edges[1:, None])
    return (end - start).clamp(min=0) * (new / old)


def _distance_to(where: np.ndarray) -> np.ndarray:
    """[H, W] distance of each pixel to the nearest one that is set; infinite where none is."""
    return ndimage.distance_transform_edt(~where) if where.any() else np.full(where.shape, np.inf)


def _load_middlebury(folder: Path, parameters: Path) -> ImageSet:
    """`*_par.txt`: a count, then one line for each image: name, K and R row by row, t; P = K [R t], x right, y down.

    The pixel's centre is on integers, so half a pixel is added. Measured on dinoSparseRing: the visual hull agrees
    better with all silhouettes so (mean IoU 0.9865) than with nothing added (0.9838), or less half a pixel (0.9805), as
    if counted from one like Matlab's.
    """
    lines = [line.split() for line in _read_text(parameters).splitlines() if line.strip()]
    if not lines or len(lines[0]) != 1 or not lines[0][0].isdigit():
        raise ValueError(
            f"{parameters} must start with the number of images; got {' '.join(lines[0][:3]) if lines else 'nothing'}"
        )
    count = int(lines[0][0])
    if len(lines) - 1 != count or any(len(line) != 22 for line in lines[1:]):
        full = sum(len(line) == 22 for line in lines[1:])
        raise ValueError(
            f"{parameters} promises {count} images and has {full} complete lines (a name and 21 numbers) of "
            f"{len(lines) - 1}: it is truncated, or of another format"
        )
    names = [line[0] for line in lines[1:]]
    _check_names(parameters, names)
    headers = _headers(parameters, [folder / name for name in names])
    sizes = {size for size, _ in headers}
    if len(sizes) > 1:
        raise ValueError(f"{parameters}: images must all have one size, that of their cameras; got {sorted(sizes)}")
    cameras = []
    for line, (size, _) in zip(lines[1:], headers, strict=True):
        try:
            values = torch.tensor([float(word) for word in line[1:]], dtype=torch.float64)
        except ValueError as error:
            raise ValueError(f"{parameters}, {line[0]}: {error}") from None
        cameras.append(_middlebury_camera(f"{parameters}, {line[0]}", values, size))
    return ImageSet(
        names=tuple(names),
        paths=tuple(folder / name for name in names),
        cameras=tuple(cameras),
        held_out=(False,) * len(names),
        segment=threshold_mask,
        bounds=_middlebury_bounds(folder / "README.txt"),
        holes_are_shadows=True,
    )


def _middlebury_camera(where: str, values: Tensor, size: tuple[int, int]) -> Camera:
    K, R, t = values[:9].reshape(3, 3), values[9:18].reshape(3, 3), values[18:]
    if bool((K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] != torch.tensor([0, 0, 0, 0, 1])).any()):
        raise ValueError(f"{where}: K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; got {K.tolist()}")
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5
    if not (0 <= cx <= size[1] and 0 <= cy <= size[0]):
        raise ValueError(
            f"{where}: the principal point ({cx:.1f}, {cy:.1f}) is outside of the image, {size[1]} x {size[0]}: "
            "the images' size does not agree with the cameras"
        )
    return _camera(where, lambda: PinholeCamera(fx, fy, cx, cy, size=size, R=R, t=t).to(dtype=torch.float32))


def _middlebury_bounds(readme: Path) -> Tensor | None:
    """[2, 3] the "bounding box" of a README: two lines of three numbers in parentheses; None where there is none."""
    if not readme.is_file():
        return None
    number = r"\s*([-+.\deE]+)"
    corner = rf"\({number}{number}{number}\s*\)"
    found = re.search(rf"bounding box.*?{corner}\s*{corner}", _read_text(readme), flags=re.DOTALL)
    return None if found is None else torch.tensor([float(x) for x in found.groups()]).reshape(2, 3)


def _load_transforms(folder: Path, files: list[Path]) -> ImageSet:
    """NeRF's JSON: intrinsics, and for each frame a file and its camera-to-world matrix in OpenGL's axes."""
    frames: list[tuple[str, dict[str, Any], bool]] = []  # where it stands, its merged entries, held out
    for file in files:
        try:
            content = json.loads(_read_text(file))
            own = content["frames"]
            frames += [
                (f"{file}, frame {i}", {**content, **frame}, "_test" in file.stem) for i, frame in enumerate(own)
            ]
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is no valid JSON, it may be truncated: {error}") from None
        except (KeyError, TypeError):
            raise ValueError(f"{file} must hold an object with a list of 'frames'") from None
    for where, frame, _ in frames:
        for key in ("file_path", "transform_matrix"):
            if key not in frame:
                raise ValueError(f"{where} has no {key!r}")
    paths = [_image_path(folder, str(frame["file_path"])) for _, frame, _ in frames]
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    _check_names(files[0], names)
    headers = _headers(files[0], paths)
    for path, (_, bands) in zip(paths, headers, strict=True):
        if "A" not in bands:
            raise ValueError(f"{path} has no alpha channel to take the mask from; it has {', '.join(bands)}")
    cameras = [_frame_camera(where, frame, size) for (where, frame, _), (size, _) in zip(frames, headers, strict=True)]
    return ImageSet(
        names=tuple(names),
        paths=tuple(paths),
        cameras=tuple(cameras),
        held_out=tuple(held for _, _, held in frames),
        segment=alpha_mask,
    )


def _frame_camera(where: str, frame: dict[str, Any], size: tuple[int, int]) -> Camera:
    """The camera of one frame, for an image of `size` (height, width)."""
    height, width = size

    def number(key: str, default: float) -> float:
        try:
            return float(frame.get(key, default))
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {key} must be a number; got {frame[key]!r}") from None

    said = (number("h", height), number("w", width))
    if said != size:
        raise ValueError(
            f"{where}: the camera is for {said[1]:g} x {said[0]:g} pixels, the image has {width} x {height}"
        )
    if "fl_x" not in frame and "camera_angle_x" not in frame:
        raise ValueError(f"{where} has neither 'fl_x' nor 'camera_angle_x'")
    fx = number("fl_x", 0.0) if "fl_x" in frame else width / 2 / math.tan(number("camera_angle_x", 0.0) / 2)
    fy = number("fl_y", fx)
    # the middle of the image is (w / 2, h / 2) there as here: nothing to add
    cx, cy = number("cx", width / 2), number("cy", height / 2)
    if frame.get("camera_model", "OPENCV") not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"):
        raise ValueError(f"{where}: camera_model must be 'OPENCV' or 'PINHOLE'; got {frame['camera_model']!r}")
    if number("k4", 0.0):
        raise ValueError(f"{where}: k4 is no coefficient of OpenCV's first five; is this a fisheye camera?")
    R, t = (x.float() for x in from_opengl_pose(_pose(where, frame["transform_matrix"])))
    dist = tuple(number(name, 0.0) for name in _DISTORTION)
    if not any(dist):
        return _camera(where, lambda: PinholeCamera(fx, fy, cx, cy, size=size, R=R, t=t))
    return _camera(where, lambda: OpenCVCamera(fx, fy, cx, cy, dist=dist, size=size, R=R, t=t))


def _pose(where: str, matrix: Any) -> Tensor:
    """[4, 4] in float64."""
    try:
        pose = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError):
        pose = torch.zeros(0)
    if pose.shape not in ((4, 4), (3, 4)):
        raise ValueError(f"{where}: transform_matrix must be 4 x 4 numbers; got {json.dumps(matrix)[:60]}")
    return pose


def _camera(where: str, make: Callable[[], Camera]) -> Camera:
    """The camera that `make` makes; its errors say `where`."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _image_path(folder: Path, file_path: str) -> Path:
    """The file of a frame, whose path NeRF's files give without the suffix."""
    path = Path(os.path.normpath(folder / file_path))
    candidates = [path] + [path.with_name(path.name + suffix) for suffix in _IMAGE_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _headers(source: Path, paths: Sequence[Path]) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    """Size (height, width) and bands of each image, from the first bytes of its file."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that {source} speaks of do not exist, the first is {missing[0]}"
        )
    headers = []
    for path in paths:
        try:
            with Image.open(path) as image:
                headers.append(((image.height, image.width), image.getbands()))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from None
    return headers


def _check_names(source: Path, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"{source} speaks of no images")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"{source} speaks more than once of {', '.join(twice)}")


def _hold_out(images: ImageSet, held_out: Sequence[str]) -> ImageSet:
    """`images` with the views called `held_out` held out as well; the suffix may be left out."""
    wanted = set(held_out)
    known = {name: {name, str(Path(name).with_suffix("").as_posix())} for name in images.names}
    unknown = sorted(wanted - set().union(*known.values()))
    if unknown:
        raise ValueError(
            f"held_out names no views of the set: {', '.join(unknown)}; there are {', '.join(images.names)}"
        )
    held = tuple(was or bool(known[n] & wanted) for n, was in zip(images.names, images.held_out, strict=True))
    if all(held):
        raise ValueError(f"held_out leaves no view to fit: all {len(images)} are held out")
    return replace(images, held_out=held)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file") from None
