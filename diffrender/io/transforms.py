"""`transforms.json` of NeRF, instant-ngp and nerfstudio: intrinsics, and a file and a pose for each frame.

- Axes: `transform_matrix` is camera to world with OpenGL's axes (x right, y up, looking along -z); y and z are turned.
- Half pixel: none. The middle of the image is (w / 2, h / 2) there as here (both programs shoot rays at x + 0.5).
- Intrinsics: `fl_x, fl_y, cx, cy, w, h`, or `camera_angle_x`, `camera_angle_y` with the principal point in the middle;
  those of a frame win over those of the file.
- Lenses: `k1, k2, p1, p2, k3` are OpenCV's coefficients. With `"camera_model": "OPENCV_FISHEYE"` (nerfstudio) or
  `"is_fisheye": true` (instant-ngp), `k1` to `k4` are those of OpenCV's fisheye.
- Left out: `aabb_scale`, `scale`, `offset`, `near` and the like say which part of the world a volume covers, and
  `applied_transform`, `applied_scale` what was done to the poses before they were written: no camera depends on them.

Sources: the sources of Mildenhall et al. 2020 (`load_blender.py`); docs/nerf_dataset_tips.md of instant-ngp; the page
"Data conventions" of nerfstudio's documentation.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras.base import Camera
from ..cameras.fisheye import FisheyeCamera
from ..cameras.opencv import OpenCVCamera
from ..cameras.pinhole import PinholeCamera
from ..cameras.poses import from_opengl_pose, to_opengl_pose
from .files import atomic_path, naming, read_text
from .image_set import ImageSet, check_names, image_headers

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3")  # OpenCV's order
_FISHEYE = ("k1", "k2", "k3", "k4")
_PERSPECTIVE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")
_FISHEYE_MODEL = "OPENCV_FISHEYE"

Frame = tuple[str, dict[str, Any]]  # where it stands, and its entries merged with those of the file


def load_transforms(path: str | os.PathLike[str]) -> tuple[list[str], list[Camera]]:
    """Image names (`file_path`) and cameras (float64) of a `transforms.json` file.

    Sizes are those of `w` and `h`; where the file has none, those of the images beside it.

    Raises:
        FileNotFoundError: there is no such file, or no image to take the size from.
        ValueError: what does not fit; the message names file, frame and entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    frames = _read_frames(path)
    names = [str(entries["file_path"]) for _, entries in frames]
    sizes: list[tuple[int, int] | None] = [_size_said(*frame) for frame in frames]
    unknown = [i for i, size in enumerate(sizes) if size is None]
    for i, (size, _) in zip(
        unknown, image_headers(path, [_image_path(path.parent, names[i]) for i in unknown]), strict=True
    ):
        sizes[i] = size
    return names, [_camera(*frame, size) for frame, size in zip(frames, sizes, strict=True) if size is not None]


def save_transforms(path: str | os.PathLike[str], names: Sequence[str], cameras: Sequence[Camera]) -> None:
    """Write a `transforms.json` file; numbers come back as they are in float64.

    Intrinsics that all cameras share stand at the top, as readers that know only one camera want them.

    Args:
        path: of the file.
        names: of the images, relative to its folder.
        cameras: one for each name, not batched: pinholes, `OpenCVCamera` with 4 or 5 coefficients, `FisheyeCamera`.
    """
    if len(names) != len(cameras) or not names:
        raise ValueError(f"names and cameras must be as many, and not none; got {len(names)} and {len(cameras)}")
    intrinsics = [_entries(camera) for camera in cameras]
    shared = intrinsics[0] if all(one == intrinsics[0] for one in intrinsics) else {}
    frames = [
        {
            "file_path": name,
            **({} if shared else own),
            "transform_matrix": to_opengl_pose(camera.R.detach().double(), camera.t.detach().double()).tolist(),
        }
        for name, camera, own in zip(names, cameras, intrinsics, strict=True)
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**shared, "frames": frames}, indent=1) + "\n", encoding="utf-8")


def transforms_images(
    folder: Path, files: list[Path], *, keep_unreadable: bool = False, masked: bool = True
) -> ImageSet:
    """The image set of one or several files; those called `*_test` are held out.

    Masks are the files of `mask_path` where the frames have one, else the images' alpha; with `masked` False there may
    be neither.
    """
    frames = [(frame, "_test" in file.stem) for file in files for frame in _read_frames(file)]
    paths = [_image_path(folder, str(entries["file_path"])) for (_, entries), _ in frames]
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    check_names(files[0], names)
    headers = image_headers(files[0], paths, keep_unreadable=keep_unreadable)
    masks = _mask_paths(folder, [frame for frame, _ in frames])
    if masks:
        image_headers(files[0], masks, keep_unreadable=keep_unreadable)
    else:
        for path, (_, bands) in zip(paths, headers, strict=True):
            if masked and "A" not in bands:
                raise ValueError(
                    f"{path} has no alpha channel to take the mask from; it has {', '.join(bands)}. Where all images "
                    "have one known background, say which (background, --background)"
                )
    cameras = []
    for (frame, _), (size, _) in zip(frames, headers, strict=True):
        said = _size_said(*frame)
        if said not in (None, size):
            raise ValueError(
                f"{frame[0]}: the camera is for {said[1]} x {said[0]} pixels, the image has {size[1]} x {size[0]}"
            )
        cameras.append(_camera(*frame, size).to(dtype=torch.float32))
    return ImageSet(
        names=tuple(names),
        paths=tuple(paths),
        cameras=tuple(cameras),
        held_out=tuple(held for _, held in frames),
        mask_paths=tuple(masks),
    )


def _read_frames(path: Path) -> list[Frame]:
    try:
        content = json.loads(read_text(path))
        frames = [(f"{path}, frame {i}", {**content, **frame}) for i, frame in enumerate(content["frames"])]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no valid JSON, it may be truncated: {error}") from None
    except (KeyError, TypeError):
        raise ValueError(f"{path} must hold an object with a list of 'frames'") from None
    for where, entries in frames:
        for key in ("file_path", "transform_matrix"):
            if key not in entries:
                raise ValueError(f"{where} has no {key!r}")
        if not isinstance(entries["file_path"], str) or not entries["file_path"]:
            raise ValueError(f"{where}: file_path must name an image; got {entries['file_path']!r}")
    return frames


def _mask_paths(folder: Path, frames: list[Frame]) -> list[Path]:
    """The mask file of each frame; none where no frame has one."""
    without = [where for where, entries in frames if not entries.get("mask_path")]
    if len(without) == len(frames):
        return []
    if without:
        raise ValueError(
            f"{len(without)} of {len(frames)} frames have no mask_path, others have: the first is {without[0]}"
        )
    return [folder / str(entries["mask_path"]) for _, entries in frames]


def _size_said(where: str, entries: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the file says."""
    if "w" not in entries or "h" not in entries:
        return None
    height, width = _number(where, entries, "h"), _number(where, entries, "w")
    if not (height.is_integer() and width.is_integer() and min(height, width) > 0):
        raise ValueError(f"{where}: w and h must be whole numbers of pixels; got {width:g} and {height:g}")
    return int(height), int(width)


def _number(where: str, entries: dict[str, Any], key: str, default: float = 0.0) -> float:
    try:
        return float(entries.get(key, default))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key} must be a number; got {entries[key]!r}") from None


def _camera(where: str, entries: dict[str, Any], size: tuple[int, int]) -> Camera:
    """The camera of one frame, for an image of `size` (height, width)."""
    height, width = size

    def number(key: str, default: float = 0.0) -> float:
        return _number(where, entries, key, default)

    def focal(own: str, angle: str, side: int) -> float | None:
        if own in entries:
            return number(own)
        if angle not in entries:
            return None
        if not 0 < number(angle) < math.pi:
            raise ValueError(f"{where}: {angle} must be between 0 and pi; got {entries[angle]}: radians, of a pinhole")
        return side / 2 / math.tan(number(angle) / 2)

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    if fx is None:
        raise ValueError(f"{where} has neither 'fl_x' nor 'camera_angle_x'")
    pinhole = (fx, fx if fy is None else fy, number("cx", width / 2), number("cy", height / 2))
    model = entries.get("camera_model", _FISHEYE_MODEL if entries.get("is_fisheye") else "OPENCV")
    if model not in (*_PERSPECTIVE_MODELS, _FISHEYE_MODEL):
        known = ", ".join(repr(name) for name in (*_PERSPECTIVE_MODELS, _FISHEYE_MODEL))
        raise ValueError(f"{where}: camera_model must be one of {known}; got {model!r}")
    R, t = from_opengl_pose(_pose(where, entries["transform_matrix"]))
    with naming(where):
        if model == _FISHEYE_MODEL:
            return FisheyeCamera(*pinhole, k=tuple(number(name) for name in _FISHEYE), size=size, R=R, t=t)
        if number("k4"):
            raise ValueError("k4 is no coefficient of OpenCV's first five; is this a fisheye camera?")
        dist = tuple(number(name) for name in _DISTORTION)
        if any(dist):
            return OpenCVCamera(*pinhole, dist=dist, size=size, R=R, t=t)
        return PinholeCamera(*pinhole, size=size, R=R, t=t)


def _pose(where: str, matrix: Any) -> Tensor:
    """[4, 4] in float64."""
    try:
        pose = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError):
        pose = torch.zeros(0)
    if pose.shape not in ((4, 4), (3, 4)):
        raise ValueError(f"{where}: transform_matrix must be 4 x 4 numbers; got {json.dumps(matrix)[:60]}")
    return pose


def _entries(camera: Camera) -> dict[str, Any]:
    """The intrinsics of a camera, as they stand in the file."""
    if camera.batch_shape:
        raise ValueError(f"cameras must be single ones; got a batch of {tuple(camera.batch_shape)}: index it")
    lens: dict[str, Any]
    if isinstance(camera, FisheyeCamera):
        lens = {"camera_model": _FISHEYE_MODEL, "is_fisheye": True, **_named(_FISHEYE, camera.k)}
    elif isinstance(camera, OpenCVCamera) and camera.dist.shape[-1] <= len(_DISTORTION):
        lens = {"camera_model": "OPENCV", **_named(_DISTORTION, camera.dist)}
    elif isinstance(camera, PinholeCamera):
        lens = {"camera_model": "PINHOLE"}
    else:
        raise TypeError(
            "cameras must be pinholes, OpenCV cameras with 4 or 5 coefficients, or fisheyes, transforms.json has no "
            f"other lenses; got {camera!r}"
        )
    sides = {"w": camera.width, "h": camera.height}
    pinhole = {"fl_x": camera.fx.item(), "fl_y": camera.fy.item(), "cx": camera.cx.item(), "cy": camera.cy.item()}
    return {**sides, **pinhole, **lens}


def _named(names: Sequence[str], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=False))


def _image_path(folder: Path, file_path: str) -> Path:
    """The file of a frame, whose path NeRF's files give without the suffix."""
    path = Path(os.path.normpath(folder / file_path))
    candidates = [path] + [Path(f"{path}{suffix}") for suffix in _IMAGE_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), path)
