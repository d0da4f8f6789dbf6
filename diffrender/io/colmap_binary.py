"""COLMAP's binary files: little-endian records of varying length, read with the byte named where one ends too early."""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from .colmap_records import MODELS, ColmapCamera, ColmapImages, ColmapPoints, num_parameters, starts_of
from .files import atomic_path

_CAMERA = np.dtype([("camera_id", "<u4"), ("model", "<i4"), ("width", "<u8"), ("height", "<u8")])
_IMAGE = np.dtype([("image_id", "<u4"), ("quaternion", "<f8", 4), ("t", "<f8", 3), ("camera_id", "<u4")])
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point_id", "<i8")])
_POINT = np.dtype(
    [("point_id", "<i8"), ("position", "<f8", 3), ("color", "u1", 3), ("error", "<f8"), ("num_entries", "<i8")]
)
_ENTRY = np.dtype([("image_id", "<u4"), ("index", "<u4")])


class _Bytes:
    """The bytes of a file, taken from the front."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.position = path, path.read_bytes(), 0

    def take(self, what: str, dtype: DTypeLike, count: int = 1) -> np.ndarray:
        start, size = self.position, np.dtype(dtype).itemsize * count
        if count < 0 or start + size > len(self.data):
            raise ValueError(
                f"{self.path} is truncated or no COLMAP file: {what} needs {size} bytes from byte {start} on, the file "
                f"has {len(self.data)}"
            )
        self.position += size
        return np.frombuffer(self.data, dtype, count, start)

    def count(self, what: str) -> int:
        count = int(self.take(f"the number of {what}", "<i8")[0])
        if not 0 <= count <= len(self.data):
            raise ValueError(
                f"{self.path} is no COLMAP file: it promises {count} {what} at byte {self.position - 8}, in "
                f"{len(self.data)} bytes"
            )
        return count

    def text(self, what: str) -> str:
        """Up to a byte 0."""
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise ValueError(f"{self.path} is truncated: {what}, from byte {self.position} on, has no end")
        raw = self.data[self.position : end]
        self.position = end + 1
        return raw.decode("utf-8", errors="surrogateescape")

    def end(self) -> None:
        if self.position != len(self.data):
            raise ValueError(
                f"{self.path} goes on after its last record, which ends at byte {self.position} of {len(self.data)}"
            )


def read_cameras(path: Path) -> tuple[ColmapCamera, ...]:
    file = _Bytes(path)
    names = {model.number: name for name, model in MODELS.items()}
    cameras = []
    for i in range(file.count("cameras")):
        start = file.position
        row = file.take(f"camera {i}", _CAMERA)[0]
        name = names.get(int(row["model"]))
        if name is None:
            raise ValueError(
                f"{path}: the camera at byte {start} has the unknown model number {int(row['model'])}; known are "
                f"{', '.join(f'{number} ({name})' for number, name in names.items())}"
            )
        parameters = torch.from_numpy(file.take(f"the parameters of camera {i}", "<f8", num_parameters(name)).copy())
        cameras.append(ColmapCamera(int(row["camera_id"]), name, (int(row["height"]), int(row["width"])), parameters))
    file.end()
    return tuple(cameras)


def write_cameras(path: Path, cameras: tuple[ColmapCamera, ...]) -> None:
    parts = [struct.pack("<Q", len(cameras))]
    for camera in cameras:
        height, width = camera.size
        row = (camera.camera_id, MODELS[camera.model].number, width, height)
        parts += [np.array(row, _CAMERA).tobytes(), camera.parameters.numpy().astype("<f8").tobytes()]
    _write(path, parts)


def read_images(path: Path) -> ColmapImages:
    file = _Bytes(path)
    rows, names, observations = [], [], []
    for i in range(file.count("images")):
        rows.append(file.take(f"image {i}", _IMAGE))
        names.append(file.text(f"the name of image {i}"))
        observations.append(file.take(f"image {names[-1]!r}", _OBSERVATION, file.count(f"points of {names[-1]!r}")))
    file.end()
    row = np.concatenate(rows or [np.zeros(0, _IMAGE)])
    seen = np.concatenate(observations or [np.zeros(0, _OBSERVATION)])
    return ColmapImages(
        image_id=torch.from_numpy(row["image_id"].astype(np.int64)),
        quaternions=torch.from_numpy(row["quaternion"].copy()),
        t=torch.from_numpy(row["t"].copy()),
        camera_id=torch.from_numpy(row["camera_id"].astype(np.int64)),
        names=tuple(names),
        xy=torch.from_numpy(seen["xy"].copy()),
        point_id=torch.from_numpy(seen["point_id"].copy()),
        starts=starts_of(torch.tensor([len(part) for part in observations], dtype=torch.int64)),
    )


def write_images(path: Path, images: ColmapImages) -> None:
    row = np.zeros(len(images.names), _IMAGE)
    row["image_id"], row["camera_id"] = images.image_id, images.camera_id
    row["quaternion"], row["t"] = images.quaternions, images.t
    seen = np.zeros(len(images.xy), _OBSERVATION)
    seen["xy"], seen["point_id"] = images.xy, images.point_id
    starts = images.starts.tolist()
    parts = [struct.pack("<Q", len(row))]
    for i, name in enumerate(images.names):
        own = seen[starts[i] : starts[i + 1]]
        encoded = name.encode("utf-8", errors="surrogateescape") + b"\0"
        parts += [row[i].tobytes(), encoded, struct.pack("<Q", len(own)), own.tobytes()]
    _write(path, parts)


def read_points(path: Path) -> ColmapPoints:
    """Only the lengths of the tracks, which say where the next record is, are walked through one by one."""
    file = _Bytes(path)
    offsets = np.empty(file.count("points"), dtype=np.int64)
    for i in range(len(offsets)):
        offsets[i] = file.position
        length = file.take(f"point {i}", _POINT)["num_entries"]
        file.take(f"the track of point {i}", _ENTRY, int(length[0]))
    file.end()
    data = np.frombuffer(file.data, np.uint8)
    where = offsets[:, None] + np.arange(_POINT.itemsize)
    row = data[where].reshape(-1).view(_POINT)
    others = np.ones(len(data), dtype=bool)
    others[:8], others[where] = False, False
    track = data[others].view(_ENTRY)
    return ColmapPoints(
        point_id=torch.from_numpy(row["point_id"].copy()),
        positions=torch.from_numpy(row["position"].copy()),
        colors=torch.from_numpy(row["color"].copy()),
        errors=torch.from_numpy(row["error"].copy()),
        track_image_id=torch.from_numpy(track["image_id"].astype(np.int64)),
        track_index=torch.from_numpy(track["index"].astype(np.int64)),
        starts=starts_of(torch.from_numpy(row["num_entries"].copy())),
    )


def write_points(path: Path, points: ColmapPoints) -> None:
    row = np.zeros(len(points.point_id), _POINT)
    row["point_id"], row["position"], row["color"] = points.point_id, points.positions, points.colors
    row["error"], row["num_entries"] = points.errors, points.starts.diff()
    track = np.zeros(len(points.track_index), _ENTRY)
    track["image_id"], track["index"] = points.track_image_id, points.track_index
    data = np.empty(row.nbytes + track.nbytes, dtype=np.uint8)
    before = points.starts[:-1].numpy() * _ENTRY.itemsize
    where = (np.arange(len(row)) * _POINT.itemsize + before)[:, None] + np.arange(_POINT.itemsize)
    others = np.ones(len(data), dtype=bool)
    others[where] = False
    data[where] = row.view(np.uint8).reshape(-1, _POINT.itemsize)
    data[others] = track.view(np.uint8)
    _write(path, [struct.pack("<Q", len(row)), data.tobytes()])


def _write(path: Path, parts: list[bytes]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(parts))
