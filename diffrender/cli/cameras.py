"""The camera of `diffrender render`: by name or from a file, placed so that it sees the model, and turned around it."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, look_at, so3_exp
from ..mesh import Mesh
from ..primitives import sphere
from .parser import CAMERAS

DEFAULT_SIZE = (480, 640)
DEFAULT_FOV = {"pinhole": 35.0, "opencv": 35.0, "fisheye": 120.0}
LARGEST_FOV = {"pinhole": 179.0, "opencv": 179.0, "fisheye": 360.0}
# Three-quarter view: to the right of the front, and above it.
AZIMUTH, ELEVATION = math.radians(35.0), math.radians(20.0)
MARGIN = 0.06  # of the shorter side of the image, left free around the model
# The camera stays outside of the model's sphere, and no field of view that is allowed needs to go farther away.
NEAREST, FARTHEST = 1.05, 1e4  # radii of the sphere

_MODELS: dict[str, tuple[Callable[..., Camera], str | None]] = {
    "pinhole": (PinholeCamera, None),
    "orthographic": (OrthographicCamera, None),
    "fisheye": (FisheyeCamera, "k"),
    "opencv": (OpenCVCamera, "dist"),
}


def turntable_cameras(options: argparse.Namespace, mesh: Mesh, num_views: int) -> Camera:
    """The batch [num_views] of cameras that the options ask for; the first is that of the still picture.

    The others see the model turned about `up`. One distance (or scale, for an orthographic camera) fits all of them.
    """
    points = extreme_points(mesh)
    target = points.new_tensor(options.target) if options.target else middle(points)
    up = points.new_tensor(options.up)
    length = float(torch.linalg.vector_norm(up))
    if length == 0:
        raise ValueError("--up must not be 0,0,0: it says which way is up, as in 0,1,0 or 0,0,1")
    up = up / length
    turns = so3_exp(torch.arange(num_views)[:, None] * (2 * math.pi / num_views) * up)  # [N, 3, 3]
    turned = ((points - target) @ turns.mT + target).reshape(-1, 3)

    lens, posed = choose_lens(options)
    if options.eye is not None:
        R, t = look_at(points.new_tensor(options.eye), target, up)
        lens = lens.replace(R=R, t=t)
    elif not posed:
        lens = step_back(lens, turned, target, up)
    if options.camera == "orthographic":
        lens = fit_scale(lens, turned)
    return lens.replace(R=lens.R @ turns, t=lens.t + (target - target @ turns.mT) @ lens.R.mT)


def choose_lens(options: argparse.Namespace) -> tuple[Camera, bool]:
    """The camera by name or from a file, and whether it has its pose already."""
    if options.camera not in CAMERAS:
        if options.fov is not None or options.dist is not None:
            raise ValueError("--fov and --dist belong to cameras by name; a camera file says both itself")
        camera, posed = load_camera(options.camera)
        return camera if options.size is None else camera.resize(options.size), posed
    height, width = options.size or DEFAULT_SIZE
    make, lens_name = _MODELS[options.camera]
    if options.dist is not None and lens_name is None:
        raise ValueError(f"--dist belongs to the cameras opencv and fisheye; {options.camera} has no distortion")
    if options.dist is not None and lens_name == "k" and len(options.dist) != 4:
        raise ValueError(f"--dist must hold the fisheye's 4 coefficients k1,k2,k3,k4; got {len(options.dist)}")
    focal = 1.0 if options.camera == "orthographic" else _focal_length(options.camera, options.fov, height)
    if options.camera == "orthographic" and options.fov is not None:
        raise ValueError("--fov has no meaning for an orthographic camera, whose rays are parallel: leave it out")
    distortion = {} if options.dist is None else {lens_name: options.dist}
    return make(focal, focal, width / 2, height / 2, size=(height, width), **distortion), False


def _focal_length(model: str, fov: float | None, height: int) -> float:
    """Pixels (per radian for the fisheye) of a view of `fov` degrees from top to bottom, without distortion."""
    fov = DEFAULT_FOV[model] if fov is None else fov
    if not 0 < fov <= LARGEST_FOV[model]:
        raise ValueError(f"--fov must be above 0 and at most {LARGEST_FOV[model]:g} degrees for {model}; got {fov:g}")
    half = math.radians(fov) / 2
    return height / 2 / (half if model == "fisheye" else math.tan(half))


def load_camera(path: str) -> tuple[Camera, bool]:
    """A camera from a JSON file (see `diffrender render --help`), and whether the file says its pose."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--camera must be one of {', '.join(CAMERAS)} or a JSON file; no such file: {path}")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also of the decoder
        raise ValueError(f"{path} is no valid JSON, it may be truncated: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must hold one JSON object, the camera; got {type(entries).__name__}")
    try:
        return _camera_from(entries)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _camera_from(entries: dict[str, Any]) -> tuple[Camera, bool]:
    model = entries.get("model")
    if model not in CAMERAS:
        raise ValueError(f"'model' must be one of {', '.join(CAMERAS)}; got {model!r}")
    make, lens_name = _MODELS[model]
    allowed = {"model", "width", "height", "fx", "fy", "cx", "cy", "R", "t"} | ({lens_name} if lens_name else set())
    unknown = sorted(set(entries) - allowed)
    if unknown:
        raise ValueError(f"unknown entries {', '.join(unknown)}; a camera {model!r} has {', '.join(sorted(allowed))}")
    missing = [name for name in ("width", "height", "fx") if name not in entries]
    if missing:
        raise ValueError(f"no {', '.join(repr(name) for name in missing)}")
    if ("R" in entries) != ("t" in entries):
        raise ValueError("'R' and 't' belong together: give both, or none")
    rest = {name: entries[name] for name in (lens_name, "R", "t") if name in entries}
    width, height, fx = entries["width"], entries["height"], entries["fx"]
    others = [entries.get(name, value) for name, value in (("fy", fx), ("cx", width / 2), ("cy", height / 2))]
    return make(fx, *others, size=(height, width), **rest), "R" in entries


def extreme_points(mesh: Mesh) -> Tensor:
    """[P, 3] the used vertices farthest in each of 642 directions: few points that bound what is seen of the mesh."""
    used = mesh.vertices.index_select(0, mesh.faces.reshape(-1).unique())
    if len(used) == 0:
        return torch.zeros(1, 3)
    directions = sphere(3).vertices.to(used)
    return used.index_select(0, (used @ directions.mT).argmax(0).unique())


def middle(points: Tensor) -> Tensor:
    """[3] the middle of the bounding box."""
    return (points.amin(0) + points.amax(0)) / 2


def step_back(lens: Camera, points: Tensor, target: Tensor, up: Tensor) -> Camera:
    """The camera in three-quarter view of `target`, as near as it can be to see all `points` [P, 3]."""
    radius = float(torch.linalg.vector_norm(points - target, dim=-1).max()) or 1.0  # a mesh that is one point
    direction = three_quarter(up)

    def placed(distance: float) -> Camera:
        R, t = look_at(target + distance * radius * direction, target, up)
        return lens.replace(R=R, t=t)

    near, far = math.log(NEAREST), math.log(FARTHEST)
    if not sees(placed(FARTHEST), points):
        raise ValueError(
            "--camera does not see what is straight ahead, so the model cannot be framed: give its pose (R, t) in the "
            "camera file, or --eye"
        )
    for _ in range(24):  # the bracket's logarithm spans 9: its end is 1e-6 wide
        half = (near + far) / 2
        near, far = (near, half) if sees(placed(math.exp(half)), points) else (half, far)
    return placed(math.exp(far))


def three_quarter(up: Tensor) -> Tensor:
    """[3] unit vector from the model to the camera.

    The front is +z where y is up (glTF's convention), and -y where z is up (Blender's).
    """
    front = up.new_tensor([0.0, -1.0, 0.0] if abs(float(up[2])) > abs(float(up[1])) else [0.0, 0.0, 1.0])
    right = torch.linalg.cross(up, front)
    right = right / torch.linalg.vector_norm(right)
    front = torch.linalg.cross(right, up)
    level = math.cos(AZIMUTH) * front + math.sin(AZIMUTH) * right
    return math.cos(ELEVATION) * level + math.sin(ELEVATION) * up


def sees(camera: Camera, points: Tensor) -> bool:
    """Whether all points [P, 3] are in the image, at least the margin away from its border."""
    xy, _ = camera.project(points)
    border = MARGIN * min(camera.size)
    inside = (xy >= border) & (xy <= xy.new_tensor([camera.width - border, camera.height - border]))
    return bool((inside.all(-1) & camera.valid(camera.world_to_camera(points))).all())


def fit_scale(camera: Camera, points: Tensor) -> Camera:
    """An orthographic camera of scale 1 with the scale at which all points [P, 3] just fit."""
    half = points.new_tensor([camera.width / 2, camera.height / 2])
    xy, _ = camera.project(points)
    reach = (xy - half).abs().amax(0)  # units of length
    free = half - MARGIN * min(camera.size)
    scale = float((free / reach).min())
    scale = scale if math.isfinite(scale) else 1.0  # a mesh that is one point
    return camera.replace(fx=scale, fy=scale)
