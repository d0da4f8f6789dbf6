"""Calibration files as cameras: OpenCV's own, ROS's `camera_info`, and those of fisheye-calib-adapter.

- Axes: OpenCV's, as here.
- Half pixel: all of them put pixel centres on integers, so cx, cy here are 0.5 larger. (fisheye-calib-adapter converts
  between the formats of Kalibr, Basalt and OpenCV without shifting anything; these detect corners with such centres.)

Formats: OpenCV's samples `calibration.cpp`, `camera_calibration.cpp` and `stereo_calib.cpp` by the names of their
entries; http://wiki.ros.org/camera_calibration_parsers; https://github.com/eowjd0512/fisheye-calib-adapter.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cameras import (
    Camera,
    DoubleSphereCamera,
    EUCMCamera,
    FisheyeCamera,
    OpenCVCamera,
    PinholeCamera,
    UnifiedCamera,
    from_opencv,
    from_opencv_fisheye,
    from_opencv_omnidir,
    so3_log,
    to_opencv,
)
from .files import naming
from .opencv_storage import load_opencv_storage, save_opencv_storage

_MATRIX = ("camera_matrix", "Camera_Matrix", "cameraMatrix", "K", "M1")
_DISTORTION = ("distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs", "D", "D1")
_POSES = ("extrinsic_parameters", "Extrinsic_Parameters")
_WIDTH, _HEIGHT = ("image_width", "image_Width", "width"), ("image_height", "image_Height", "height")
_PINHOLE = ("fx", "fy", "cx", "cy")
_ADAPTER: dict[frozenset[str], tuple[type[Camera], tuple[str, ...]]] = {  # and the order of the coefficients
    frozenset({"xi", "alpha"}): (DoubleSphereCamera, ()),
    frozenset({"alpha", "beta"}): (EUCMCamera, ()),
    frozenset({"k1", "k2", "k3", "k4"}): (FisheyeCamera, ("k1", "k2", "k3", "k4")),
    frozenset({"k1", "k2", "p1", "p2", "k3"}): (OpenCVCamera, ("k1", "k2", "p1", "p2", "k3")),
    frozenset({"k1", "k2", "p1", "p2"}): (OpenCVCamera, ("k1", "k2", "p1", "p2")),
    frozenset({"xi", "k1", "k2", "p1", "p2"}): (UnifiedCamera, ("k1", "k2", "p1", "p2")),
    frozenset(): (PinholeCamera, ()),
}


def load_calibration(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Camera:
    """The camera of a calibration file (.yml, .yaml, .xml), in float64.

    Where the file has a pose for each view (`extrinsic_parameters`: rotation vector and translation), the result is the
    batch [N] of these views, else one camera without a pose.

    Args:
        path: of the file.
        size: (height, width) of the images, where the file does not say it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is malformed, missing or of an unknown model; the message names file and entry.
    """
    path = Path(path)
    entries = load_opencv_storage(path)
    with naming(str(path)):
        return _adapter_camera(entries) if "parameter" in entries else _opencv_camera(entries, size)


def save_calibration(path: str | os.PathLike[str], camera: Camera) -> None:
    """Write a calibration file (.yml, .yaml, .xml) as OpenCV's samples do; `load_calibration` brings it back.

    Args:
        path: of the file.
        camera: a pinhole, `OpenCVCamera`, `FisheyeCamera` (marked by `fisheye_model: 1`) or `UnifiedCamera` (with its
            `xi`); a single one, whose pose is left out, or a batch [N] of views of one camera, whose poses are written.
    """
    if len(camera.batch_shape) > 1:
        raise ValueError(f"camera must be one or a batch [N] of views; got a batch of {tuple(camera.batch_shape)}")
    views = camera.flatten_batch()
    K, dist, _, _ = to_opencv(views[0])
    for name in views._names:
        if bool((getattr(views, name) != getattr(views, name)[:1]).any()):
            raise ValueError(f"camera must be views of one camera; {name} differs among them: write a file for each")
    entries: dict[str, Any] = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_matrix": K,
        "distortion_coefficients": dist[:, None],
    }
    if isinstance(camera, FisheyeCamera):
        entries["fisheye_model"] = 1
    if isinstance(views, UnifiedCamera):
        entries["xi"] = float(views.xi[0])
    if camera.batch_shape:
        poses = torch.cat((so3_log(camera.R.detach().double()), camera.t.detach().double()), dim=-1)
        entries["extrinsic_parameters"] = poses
    save_opencv_storage(path, entries)


def _opencv_camera(entries: dict[str, Any], size: tuple[int, int] | None) -> Camera:
    K = _matrix(_first(entries, _MATRIX, "no camera matrix"), "the camera matrix", (3, 3))
    dist = np.asarray(_first(entries, _DISTORTION, "no distortion coefficients"), dtype=np.float64).reshape(-1)
    size = _size(entries, size)
    fisheye = str(entries.get("fisheye_model", 0)).lower() not in ("0", "false")
    model = str(entries.get("distortion_model", "equidistant" if fisheye else "plumb_bob"))
    if model not in ("plumb_bob", "rational_polynomial", "equidistant", "fisheye"):
        raise ValueError(f"unknown distortion_model {model!r}")
    poses = next((entries[name] for name in _POSES if name in entries), None)
    camera: Camera
    if "xi" in entries:
        xi = np.asarray(entries["xi"], dtype=np.float64).reshape(())
        camera = from_opencv_omnidir(K, xi, dist, size=size, dtype=torch.float64)
    elif model in ("equidistant", "fisheye"):
        camera = from_opencv_fisheye(K, dist, size=size, dtype=torch.float64)
    else:
        camera = from_opencv(K, dist, size=size, dtype=torch.float64)
    if poses is None:
        return camera
    poses = _matrix(poses, "the poses of views", (len(poses), 6))
    views = [from_opencv(K, size=size, rvec=row[:3], t=row[3:], dtype=torch.float64) for row in poses]
    return camera.replace(R=torch.stack([view.R for view in views]), t=torch.stack([view.t for view in views]))


def _adapter_camera(entries: dict[str, Any]) -> Camera:
    parameters, image = entries["parameter"], entries.get("image")
    if not isinstance(parameters, dict) or not isinstance(image, dict) or not {"width", "height"} <= image.keys():
        raise ValueError("must hold 'image' with width and height, and 'parameter' with the intrinsics")
    values = {name: float(value) for name, value in parameters.items()}
    missing = [name for name in _PINHOLE if name not in values]
    if missing:
        raise ValueError(f"'parameter' has no {', '.join(missing)}")
    lens = frozenset(values) - set(_PINHOLE)
    if lens not in _ADAPTER:
        known = "; ".join(", ".join(sorted(names)) or "none" for names in _ADAPTER)
        raise ValueError(f"no camera has the parameters {', '.join(sorted(lens))}; there are: {known}")
    model, order = _ADAPTER[lens]
    arguments: dict[str, Any] = {name: values[name] for name in lens - set(order)}
    if order:
        arguments["k" if model is FisheyeCamera else "dist"] = tuple(values[name] for name in order)
    pinhole = [torch.tensor(values[n] + (0.5 if n in ("cx", "cy") else 0.0), dtype=torch.float64) for n in _PINHOLE]
    return model(*pinhole, size=(int(image["height"]), int(image["width"])), **arguments)


def _first(entries: dict[str, Any], names: tuple[str, ...], missing: str) -> Any:
    found = next((entries[name] for name in names if name in entries), None)
    if found is None:
        raise ValueError(f"{missing}: looked for {', '.join(names)} among {', '.join(entries) or 'no entries'}")
    return found


def _matrix(value: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{what} must have shape {shape}; got {array.shape}")
    return array


def _size(entries: dict[str, Any], size: tuple[int, int] | None) -> tuple[int, int]:
    width, height = (next((entries[n] for n in names if n in entries), None) for names in (_WIDTH, _HEIGHT))
    if width is None or height is None:
        if size is None:
            raise ValueError("the file does not say the images' size (image_width, image_height): give size=")
        return size
    return int(height), int(width)
