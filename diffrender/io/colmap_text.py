"""COLMAP's text files: one line for a camera or a point, two for an image; `#` begins a line of comment."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .colmap_records import MODELS, ColmapCamera, ColmapImages, ColmapPoints, num_parameters, starts_of
from .files import atomic_path, naming, read_text

_EXACT = 2**53  # below it every whole number is a float64
_POINT = 8  # id, x, y, z, r, g, b, error; then the track
_HEADERS = {
    "cameras": "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n",
    "images": "# Image list with two lines of data per image:\n"
    "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
    "#   POINTS2D[] as (X, Y, POINT3D_ID)\n",
    "points3D": "# 3D point list with one line of data per point:\n"
    "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n",
}


def read_cameras(path: Path) -> tuple[ColmapCamera, ...]:
    cameras = []
    for number, line in _data_lines(path):
        with naming(f"{path}, line {number}"):
            words = line.split()
            if len(words) < 4:
                raise ValueError(f"a camera has an id, a model, width, height and parameters; got {line!r}")
            model = words[1]
            if model not in MODELS:
                raise ValueError(f"unknown camera model {model!r}; known are {', '.join(MODELS)}")
            if len(words) - 4 != num_parameters(model):
                raise ValueError(f"{model} has the parameters {MODELS[model].parameters}; got {len(words) - 4} numbers")
            parameters = torch.tensor([float(word) for word in words[4:]], dtype=torch.float64)
            cameras.append(ColmapCamera(int(words[0]), model, (int(words[3]), int(words[2])), parameters))
    return tuple(cameras)


def write_cameras(path: Path, cameras: tuple[ColmapCamera, ...]) -> None:
    lines = [
        f"{camera.camera_id} {camera.model} {camera.size[1]} {camera.size[0]}"
        + "".join(f" {value:.17g}" for value in camera.parameters.tolist())
        + "\n"
        for camera in cameras
    ]
    _write(path, "cameras", "".join(lines))


def read_images(path: Path) -> ColmapImages:
    """The second line of an image may be empty, so empty lines count there and only there."""
    names, heads, observations = [], [], []
    lines = enumerate(read_text(path).split("\n"), start=1)
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        with naming(f"{path}, line {number}"):
            words = line.split(maxsplit=9)
            if len(words) < 10:
                raise ValueError(f"an image has an id, a quaternion, a translation, a camera and a name; got {line!r}")
            names.append(words[9].rstrip())
            heads.append([float(word) for word in words[:9]])
        number, line = next(lines, (number + 1, ""))
        with naming(f"{path}, line {number}"):
            observations.append(_numbers(line))
            if len(observations[-1]) % 3:
                raise ValueError(f"points come as x, y, id; got {len(observations[-1])} numbers, is it truncated?")
    head = torch.tensor(heads, dtype=torch.float64).reshape(-1, 9)
    seen = torch.from_numpy(np.concatenate(observations or [np.zeros(0)])).reshape(-1, 3)
    with naming(str(path)):
        return ColmapImages(
            image_id=_whole("image ids", head[:, 0]),
            quaternions=head[:, 1:5].clone(),
            t=head[:, 5:8].clone(),
            camera_id=_whole("camera ids", head[:, 8]),
            names=tuple(names),
            xy=seen[:, :2].clone(),
            point_id=_whole("point ids", seen[:, 2]),
            starts=starts_of(torch.tensor([len(part) // 3 for part in observations], dtype=torch.int64)),
        )


def write_images(path: Path, images: ColmapImages) -> None:
    starts = images.starts.tolist()
    seen = torch.cat((images.xy, images.point_id[:, None].double()), dim=-1)
    lines = []
    for i, name in enumerate(images.names):
        pose = (*images.quaternions[i].tolist(), *images.t[i].tolist())
        numbers = " ".join(f"{value:.17g}" for value in pose)
        lines.append(f"{int(images.image_id[i])} {numbers} {int(images.camera_id[i])} {name}\n")
        own = seen[starts[i] : starts[i + 1]]
        lines.append(" ".join(["%.17g %.17g %d"] * len(own)) % tuple(own.reshape(-1).tolist()) + "\n")
    _write(path, "images", "".join(lines))


def read_points(path: Path) -> ColmapPoints:
    """All numbers at once: lines differ in length, so how many each has is counted first."""
    numbered = list(_data_lines(path))
    counts = np.array([len(line.split()) for _, line in numbered], dtype=np.int64)
    bad = ((counts < _POINT) | (counts % 2 == 1)).nonzero()[0]
    if len(bad):
        raise ValueError(
            f"{path}, line {numbered[bad[0]][0]}: a point has {_POINT} numbers and two for each entry of its track; "
            f"got {counts[bad[0]]}, is it truncated?"
        )
    try:
        values = _numbers(" ".join(line for _, line in numbered))
    except ValueError:
        for number, line in numbered:
            with naming(f"{path}, line {number}"):
                _numbers(line)
        raise
    first = np.concatenate(([0], counts.cumsum()))[:-1]
    where = first[:, None] + np.arange(_POINT)
    row = torch.from_numpy(values[where])
    others = np.ones(len(values), dtype=bool)
    others[where] = False
    track = torch.from_numpy(values[others]).reshape(-1, 2)
    with naming(str(path)):
        return ColmapPoints(
            point_id=_whole("point ids", row[:, 0]),
            positions=row[:, 1:4].clone(),
            colors=row[:, 4:7].to(torch.uint8),
            errors=row[:, 7].clone(),
            track_image_id=_whole("image ids of tracks", track[:, 0]),
            track_index=_whole("observations of tracks", track[:, 1]),
            starts=starts_of(torch.from_numpy((counts - _POINT) // 2)),
        )


def write_points(path: Path, points: ColmapPoints) -> None:
    """One format for all lines, filled at once."""
    columns = (points.point_id[:, None], points.positions, points.colors, points.errors[:, None])
    row = torch.cat([column.double() for column in columns], dim=-1)
    track = torch.stack((points.track_image_id, points.track_index), dim=-1).double()
    lengths = points.starts.diff()
    values = np.empty(row.numel() + track.numel())
    where = (torch.arange(len(row)) * _POINT + 2 * points.starts[:-1])[:, None] + torch.arange(_POINT)
    others = np.ones(len(values), dtype=bool)
    others[where.numpy()] = False
    values[where.numpy()], values[others] = row.numpy(), track.reshape(-1).numpy()
    head = "%d %.17g %.17g %.17g %d %d %d %.17g"
    pattern = "".join(head + " %d %d" * length + "\n" for length in lengths.tolist())
    _write(path, "points3D", pattern % tuple(values.tolist()))


def _data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comment, counted from 1."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _numbers(text: str) -> np.ndarray:
    """All numbers of a text with blanks between them."""
    if not text.strip():
        return np.zeros(0)
    return np.fromstring(text, sep=" ")  # exact, and a ValueError at what is no number


def _whole(what: str, values: Tensor) -> Tensor:
    """Numbers that came through float64 as the whole numbers that they must be."""
    if bool((values != values.round()).any()) or bool((values.abs() >= _EXACT).any()):
        raise ValueError(f"{what} must be whole numbers below 2^53")
    return values.long()


def _write(path: Path, name: str, lines: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(_HEADERS[name] + lines, encoding="utf-8")
