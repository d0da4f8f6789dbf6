"""The camera of `diffrender render`: by name or from a file, placed so that it sees the model, and turned around it."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import (
    Camera,
    DoubleSphereCamera,
    EUCMCamera,
    FisheyeCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    look_at,
    so3_exp,
)
from ..io.calibration import load_calibration
from ..mesh import Mesh
from ..primitives import sphere
from .parser import CAMERAS

DEFAULT_SIZE = (480, 640)
DEFAULT_FOV = {"pinhole": 35.0, "opencv": 35.0, "fisheye": 120.0}
LARGEST_FOV = {"pinhole": 179.0, "opencv": 179.0, "fisheye": 360.0}
MARGIN = 0.06  # of the shorter side of the image, left free around the model
# The camera stays before the foremost point of the model, by a quarter of that point's distance from the middle, and no
# view angle that is allowed needs it to be farther away than that many radii.
BEFORE, FARTHEST = 1.25, 1e4
FEW_POINTS, PER_SEGMENT = 40, 8
BISECTIONS = 16  # of the logarithm of the distance, over a range of 10: to 0.02 %
CENTERINGS = 3  # each leaves a fraction of the offset, which perspective makes: a percent of the image after these

_MODELS: dict[str, tuple[Callable[..., Camera], str]] = {  # and the name of the distortion, where there is one
    "pinhole": (PinholeCamera, ""),
    "orthographic": (OrthographicCamera, ""),
    "fisheye": (FisheyeCamera, "k"),
    "opencv": (OpenCVCamera, "dist"),
}
# In files, with all parameters beside fx, fy, cx, cy: also what `diffrender calibrate` writes.
_FILE_MODELS: dict[str, tuple[Callable[..., Camera], tuple[str, ...]]] = {
    **{name: (make, (lens,) if lens else ()) for name, (make, lens) in _MODELS.items()},
    "thin_prism_fisheye": (ThinPrismFisheyeCamera, ("dist",)),
    "unified": (UnifiedCamera, ("xi", "dist")),
    "double_sphere": (DoubleSphereCamera, ("xi", "alpha")),
    "eucm": (EUCMCamera, ("alpha", "beta")),
}
_OPTIONAL = ("dist", "k")


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
    center = options.target is None
    if options.eye is not None:
        R, t = look_at(points.new_tensor(options.eye), target, up)
        lens, posed = lens.replace(R=R, t=t), True
    if not posed:
        direction = view_direction(options.azimuth, options.elevation, up)
        lens = step_back(lens, turned, target, up, direction, center=center)
    if options.camera == "orthographic":
        lens = fit_scale(lens, turned, center=center)
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
    if options.dist is not None and not lens_name:
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
    """A camera from a file, and whether the file says its pose.

    JSON (see `diffrender render --help`), or a calibration, whose poses are those of a board and so left out.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--camera must be one of {', '.join(CAMERAS)} or a camera file; no such file: {path}")
    if file.suffix.lower() in (".yml", ".yaml", ".xml"):
        camera = load_calibration(file).flatten_batch()[0].to(dtype=torch.float32)
        return camera.replace(R=torch.eye(3), t=torch.zeros(3)), False
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
    if model not in _FILE_MODELS:
        raise ValueError(f"'model' must be one of {', '.join(_FILE_MODELS)}; got {model!r}")
    make, lens_names = _FILE_MODELS[model]
    allowed = {"model", "width", "height", "fx", "fy", "cx", "cy", "R", "t", *lens_names}
    unknown = sorted(set(entries) - allowed)
    if unknown:
        raise ValueError(f"unknown entries {', '.join(unknown)}; a camera {model!r} has {', '.join(sorted(allowed))}")
    needed = ("width", "height", "fx", *(name for name in lens_names if name not in _OPTIONAL))
    missing = [name for name in needed if name not in entries]
    if missing:
        raise ValueError(f"no {', '.join(repr(name) for name in missing)}")
    for name in ("width", "height"):
        if not isinstance(entries[name], int) or isinstance(entries[name], bool) or entries[name] < 1:
            raise ValueError(f"{name!r} must be a whole number of pixels above 0; got {entries[name]!r}")
    if ("R" in entries) != ("t" in entries):
        raise ValueError("'R' and 't' belong together: give both, or none")
    rest = {name: entries[name] for name in (*lens_names, "R", "t") if name in entries}
    width, height, fx = entries["width"], entries["height"], entries["fx"]
    others = [entries.get(name, value) for name, value in (("fy", fx), ("cx", width / 2), ("cy", height / 2))]
    return make(fx, *others, size=(height, width), **rest), "R" in entries


def extreme_points(mesh: Mesh) -> Tensor:
    """[P, 3] few points that bound what is seen of the mesh: the vertices farthest in each of 642 directions.

    Where these are so few that their edges, bent by a lens, may reach beyond them, points between them as well.
    """
    used = mesh.vertices.index_select(0, mesh.faces.reshape(-1).unique())
    directions = sphere(3).vertices.to(used)
    points = used[(used @ directions.mT).argmax(0).unique()]
    if len(points) > FEW_POINTS:
        return points
    share = torch.linspace(0, 1, PER_SEGMENT + 1)[:, None, None, None].to(points)
    return torch.lerp(points[:, None], points[None], share).reshape(-1, 3)


def middle(points: Tensor) -> Tensor:
    """[3] the middle of the bounding box."""
    return (points.amin(0) + points.amax(0)) / 2


def step_back(lens: Camera, points: Tensor, target: Tensor, up: Tensor, direction: Tensor, *, center: bool) -> Camera:
    """The camera in `direction` from `target`, as near as it can be to see all `points` [P, 3].

    It looks at the target or, with `center`, so that the box around the points is in the middle of the image.
    """
    around = points - target
    radius = float(torch.linalg.vector_norm(around, dim=-1).max()) or 1.0  # a mesh that is one point
    nearest = BEFORE * max(float((around @ direction).max()), 0.1 * radius)  # flat ones have no depth to step before
    aim = target

    def placed(distance: float) -> Camera:
        R, t = look_at(target + distance * direction, aim, up)
        return lens.replace(R=R, t=t)

    if isinstance(lens, OrthographicCamera):
        return placed(2 * radius)
    camera = _nearest(placed, nearest, FARTHEST * radius, points)
    for _ in range(CENTERINGS if center else 0):
        xy, _ = camera.project(points)
        _, depth = camera.project(aim)
        aim = camera.unproject((xy.amin(0) + xy.amax(0)) / 2, depth)
        camera = _nearest(placed, nearest, FARTHEST * radius, points)
    return camera


def _nearest(placed: Callable[[float], Camera], near: float, far: float, points: Tensor) -> Camera:
    """The camera `placed(distance)` that sees all points, at the smallest distance between `near` and `far`."""
    if not sees(placed(far), points):
        raise ValueError(
            "--camera sees the whole model from no distance, so it cannot be framed: give the camera's pose, R and t "
            "in the camera file or --eye and --target"
        )
    for _ in range(BISECTIONS):
        half = math.sqrt(near * far)
        near, far = (near, half) if sees(placed(half), points) else (half, far)
    return placed(far)


def view_direction(azimuth: float, elevation: float, up: Tensor) -> Tensor:
    """[3] unit vector from the model to the camera: `azimuth` degrees to the right of its front, `elevation` above it.

    The front is +z where y is up (glTF's convention), and -y where z is up (Blender's).
    """
    if not -90 < elevation < 90:
        raise ValueError(f"--elevation must lie between -90 and 90 degrees; got {elevation:g}")
    around, above = math.radians(azimuth), math.radians(elevation)
    front = up.new_tensor([0.0, -1.0, 0.0] if abs(float(up[2])) > abs(float(up[1])) else [0.0, 0.0, 1.0])
    right = torch.linalg.cross(up, front)
    right = right / torch.linalg.vector_norm(right)
    front = torch.linalg.cross(right, up)
    level = math.cos(around) * front + math.sin(around) * right
    return math.cos(above) * level + math.sin(above) * up


def sees(camera: Camera, points: Tensor) -> bool:
    """Whether all points [P, 3] are in the image, at least the margin away from its border."""
    xy, _ = camera.project(points)
    border = MARGIN * min(camera.size)
    inside = (xy >= border) & (xy <= xy.new_tensor([camera.width - border, camera.height - border]))
    return bool((inside.all(-1) & camera.valid(camera.world_to_camera(points))).all())


def fit_scale(camera: Camera, points: Tensor, *, center: bool) -> Camera:
    """An orthographic camera of scale 1 with the scale at which all points [P, 3] just fit, and perhaps centred."""
    half = points.new_tensor([camera.width / 2, camera.height / 2])
    xy, _ = camera.project(points)  # units of length, from the middle of the image
    xy = xy - half
    shift = (xy.amin(0) + xy.amax(0)) / 2 if center else torch.zeros_like(half)
    scale = float(((half - MARGIN * min(camera.size)) / (xy - shift).abs().amax(0)).min())
    scale = scale if math.isfinite(scale) else 1.0  # a mesh that is one point
    cx, cy = half - scale * shift
    return camera.replace(fx=scale, fy=scale, cx=cx, cy=cy)
