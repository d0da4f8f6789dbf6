"""Corners of chessboards in photographs: found with OpenCV, or read from a file.

Positions are in this package's pixels, (0.5, 0.5) the centre of the first one. OpenCV counts from the centres, so 0.5
is added here and nowhere else.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_finite, check_tensor, shape_of
from ..io.files import atomic_path, naming
from ..io.opencv_storage import load_opencv_storage
from .board import Board

# The window in which a corner is refined reaches this part of the way to its neighbour (it must not see another
# corner), at least 2 pixels, and at most 5 in an image of 640 (a wide one sees the lens bend the lines).
WINDOW_SHARE, LEAST_WINDOW, WINDOW = 0.4, 2, 5 / 640
STORAGE_SUFFIXES = (".xml", ".yml", ".yaml")
REFINEMENTS, REFINED = 40, 1e-3  # steps, and the step in pixels that ends them


@dataclass(frozen=True, eq=False)
class Corners:
    """The corners of one board in several views of one camera.

    Attributes:
        names: of the V views.
        size: (height, width) of all images.
        xy: [V, N, 2] pixels, in the order of `Board.points`; float64.
        observed: [V, N] which of them were seen; the others may hold anything finite.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    xy: Tensor
    observed: Tensor

    def __post_init__(self) -> None:
        check_tensor("xy", self.xy, ndim=3, last=2)
        check_finite("xy", self.xy)
        if self.xy.shape[0] != len(self.names):
            raise ValueError(f"xy must hold one row for each of {len(self.names)} names; got {shape_of(self.xy)}")
        if self.observed.dtype != torch.bool or self.observed.shape != self.xy.shape[:2]:
            raise ValueError(f"observed must be a mask {tuple(self.xy.shape[:2])}; got {shape_of(self.observed)}")

    def select(self, index: Sequence[int]) -> "Corners":
        """Some of the views."""
        names = tuple(self.names[i] for i in index)
        return Corners(names, self.size, self.xy[list(index)], self.observed[list(index)])


def find_corners(pixels: np.ndarray, board: Board) -> Tensor | None:
    """The inner corners [N, 2] of `board` in a grey image [H, W] of 8 bits; None if it is not there in full.

    OpenCV's quadrangle search, then its sector-based one (Duda & Frese 2018), which finds blurred and bent boards that
    the first misses; refined to where all gradients around point past.
    """
    cv2 = _opencv()
    size = (board.columns, board.rows)
    found, corners = cv2.findChessboardCorners(pixels, size)
    if not found:
        flags = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_NORMALIZE_IMAGE
        found, corners = cv2.findChessboardCornersSB(pixels, size, flags=flags)
    if not found:
        return None
    grid = corners.reshape(board.rows, board.columns, 2)
    nearest = min(float(np.linalg.norm(np.diff(grid, axis=axis), axis=-1).min()) for axis in (0, 1))
    half = max(int(min(WINDOW_SHARE * nearest, WINDOW * max(pixels.shape))), LEAST_WINDOW)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, REFINEMENTS, REFINED)
    refined = cv2.cornerSubPix(pixels, corners.astype(np.float32), (half, half), (-1, -1), stop)
    return _ordered(torch.from_numpy(refined.reshape(-1, 2).astype(np.float64)) + 0.5, board)


def _ordered(xy: Tensor, board: Board) -> Tensor:
    """The same corners with x to y turning clockwise, as on a board that is seen from its front."""
    grid = xy.reshape(board.rows, board.columns, 2)
    along, down = grid[:, -1] - grid[:, 0], grid[-1] - grid[0]
    turn = along.mean(0)[0] * down.mean(0)[1] - along.mean(0)[1] * down.mean(0)[0]
    return (grid if turn > 0 else grid.flip(0)).reshape(-1, 2)


def detect(paths: Iterable[Path], board: Board) -> tuple[Corners, list[str]]:
    """Corners in photographs (all of one size), and the names of those in which the board was not found.

    Raises:
        ImportError: OpenCV is not installed.
        ValueError: the board is in none of them, their sizes disagree, or a file is no image.
    """
    cv2 = _opencv()
    names, found, missed = [], [], []
    sizes: dict[tuple[int, int], str] = {}  # and the first image that has it
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no such image file: {path}")
        # As the pixels are stored: what a camera is calibrated for has no EXIF rotation.
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise ValueError(f"{path} is no image that can be read, or it is truncated")
        sizes.setdefault(pixels.shape[:2], path.name)
        if len(sizes) > 1:
            (first, a), (second, b) = list(sizes.items())[:2]
            raise ValueError(
                f"images must be of one size; {a} is {first[1]}x{first[0]}, {b} is {second[1]}x{second[0]}: "
                "one calibration is of one camera at one setting"
            )
        xy = find_corners(pixels, board)
        if xy is None:
            missed.append(path.name)
        else:
            names.append(path.name)
            found.append(xy)
    if not found:
        raise ValueError(
            f"a board of {board.columns}x{board.rows} inner corners (where four squares meet: one less than squares "
            f"along a side) was found in none of {len(missed)} images"
        )
    xy = torch.stack(found)
    (size,) = sizes
    return Corners(tuple(names), (size[0], size[1]), xy, torch.ones(xy.shape[:2], dtype=torch.bool)), missed


def save_corners(path: str | os.PathLike[str], corners: Corners, board: Board) -> None:
    """Write a corner file (JSON), which `load_corners` reads."""
    views = {}
    for name, xy, seen in zip(corners.names, corners.xy.tolist(), corners.observed.tolist(), strict=True):
        views[name] = [point if there else None for point, there in zip(xy, seen, strict=True)]
    height, width = corners.size
    head = {"board": [board.columns, board.rows], "square": board.square, "width": width, "height": height}
    note = "pixels (x, y); the corner of the upper left pixel is (0, 0), its centre (0.5, 0.5)"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**head, "note": note, "views": views}) + "\n", encoding="utf-8")


def load_corners(path: str | os.PathLike[str]) -> tuple[Corners, Board]:
    """Read a corner file: our JSON, or OpenCV's FileStorage (.xml, .yml, .yaml).

    The latter, as OpenCV's samples write it, holds `objectPoints`, `imagePoints` (lists with a matrix for each view)
    and `imageSize` (width, height); its pixels get 0.5 added.

    Raises:
        ValueError: it cannot be parsed, lacks an entry, or a view has not the board's number of corners.
    """
    path = Path(path)
    if path.suffix.lower() in STORAGE_SUFFIXES:
        with naming(str(path)):
            return _from_storage(load_opencv_storage(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON, it may be truncated: {error}") from None
    try:
        columns, rows = content["board"]
        board = Board(columns, rows, float(content.get("square", 1.0)))
        size = (int(content["height"]), int(content["width"]))
        views: dict[str, Any] = content["views"]
        parts = [_view(name, points, board) for name, points in views.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must hold board [columns, rows], width, height and views, each a list of [x, y]; "
            f"{type(error).__name__}: {error}"
        ) from None
    if not parts:
        raise ValueError(f"{path} holds no views")
    xy, observed = (torch.stack(part) for part in zip(*parts, strict=True))
    return Corners(tuple(views), size, xy, observed), board


def _from_storage(entries: dict[str, Any]) -> tuple[Corners, Board]:
    missing = [name for name in ("objectPoints", "imagePoints", "imageSize") if name not in entries]
    if missing:
        raise ValueError(f"no {', '.join(missing)}: corners are lists objectPoints and imagePoints, and imageSize")
    points, pixels = (
        [np.asarray(part, dtype=np.float64) for part in entries[n]] for n in ("objectPoints", "imagePoints")
    )
    first = points[0].reshape(-1, 3) if points else np.zeros((0, 3))
    if len(points) != len(pixels) or any(
        part.size != first.size or (part.ravel() != first.ravel()).any() for part in points
    ):
        raise ValueError("objectPoints and imagePoints must be as many views, all of one board with all its corners")
    if any(part.size != 2 * len(first) for part in pixels):
        raise ValueError(f"imagePoints must hold the board's {len(first)} corners in every view")
    columns = int((first[:, 1] == first[:1, 1]).sum())
    square = float(first[1, 0] - first[0, 0]) if columns > 1 else 0.0
    board = Board(columns, len(first) // max(columns, 1), square)
    if len(first) != board.num_corners or np.abs(first - first[0] - board.points.numpy()).max() > 1e-6 * square:
        raise ValueError("objectPoints must be the corners of a board row by row: x to the right, y down, z = 0")
    xy = torch.from_numpy(np.stack(pixels).reshape(len(pixels), -1, 2)) + 0.5
    names = tuple(f"view{i:02d}" for i in range(len(xy)))
    width, height = (int(n) for n in entries["imageSize"])
    return Corners(names, (height, width), xy, torch.ones(xy.shape[:2], dtype=torch.bool)), board


def _view(name: str, points: list[list[float] | None], board: Board) -> tuple[Tensor, Tensor]:
    if len(points) != board.num_corners:
        raise ValueError(
            f"view {name} must have {board.num_corners} corners, or null for hidden ones; got {len(points)}"
        )
    observed = torch.tensor([point is not None for point in points])
    xy = torch.tensor([point or (0.0, 0.0) for point in points], dtype=torch.float64)
    if not math.isfinite(float(xy.sum())):
        raise ValueError(f"view {name} holds corners that are not finite")
    return xy, observed


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise ImportError(
            "finding corners in photographs needs OpenCV: pip install 'diffrender[calibrate]', or give a corner file"
        ) from None
    return cv2
