"""Which pixels of the photographs are compared with the rendered board."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Camera
from ..io.images import load_image
from .board import Board
from .solve import Calibration

RING = 0.4  # of a square: how far beyond the outermost corners the pattern is sure to go on
BESIDE_EDGES = 4.0  # pixels: what lies farther from every edge of a square tells nothing
# Spread evenly over those beside edges, of a view and of all: more cost time, and neighbours say the same.
MOST_PIXELS, MOST_IN_ALL = 4000, 60000
RADIUS = 7  # pixels, of the blur's window


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels that are compared: N of each view, fewer where `observed` says so.

    Attributes:
        index: [V, N] into the flattened window of each view.
        corner: [V, 2] x and y of the upper left corner of the windows, whole numbers.
        size: (height, width) of all windows.
        xy: [V, N, 2] their centres in the image.
        values: [V, N] linear grey of the photographs.
        across: [V, N, 6] a basis for what varies slowly over the board.
        observed: [V, N].
    """

    index: Tensor
    corner: Tensor
    size: tuple[int, int]
    xy: Tensor
    values: Tensor
    across: Tensor
    observed: Tensor


def choose_pixels(calibration: Calibration, values: Tensor, *, every: bool = False) -> Pixels:
    """Pixels beside the edges of squares, where the board appears now, of images [V, H, W]; or `every` one of it."""
    board, camera = calibration.board, calibration.camera
    height, width = calibration.corners.size
    xy, _ = camera.project(board.points)
    reach = RADIUS + RING * _spacing(xy, board).amax()  # the ring, and the blur's window
    low = (xy.amin(1) - reach).floor()
    extent = (xy.amax(1) + reach - low).amax(0).ceil().long()
    size = (int(extent[1]), int(extent[0]))
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    grid = torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5
    centres = grid + low[:, None]  # [V, P, 2]
    place = board_points(camera, centres)[..., :2] / board.square
    count = place.new_tensor([board.columns - 1.0, board.rows - 1.0])
    inside = ((place > -RING) & (place < count + RING)).all(-1)
    inside &= ((centres > 0) & (centres < centres.new_tensor([width, height]))).all(-1)
    to_edge = (place - place.round()).abs() * _spacing(xy, board)[:, None, None]
    usable = inside if every else inside & (to_edge.amin(-1) < BESIDE_EDGES)
    most = usable.shape[1] if every else min(MOST_PIXELS, MOST_IN_ALL // len(values))
    index, observed = _evenly(usable, most)
    chosen = torch.take_along_dim(centres, index[..., None], 1)
    column, row = chosen[..., 0].long().clamp(0, width - 1), chosen[..., 1].long().clamp(0, height - 1)
    found = torch.take_along_dim(values.flatten(1), row * width + column, 1)
    there = torch.where(observed[..., None], torch.take_along_dim(place, index[..., None], 1), 0.0)  # or NaN
    across = _quadratic(2 * there / count - 1)
    return Pixels(index, low, size, chosen, found, across, observed)


def _spacing(xy: Tensor, board: Board) -> Tensor:
    """[V] the usual distance of neighbouring corners [V, N, 2] in pixels."""
    grid = xy.unflatten(1, (board.rows, board.columns))
    return torch.linalg.vector_norm(grid.diff(dim=2), dim=-1).flatten(1).median(-1).values


def _evenly(usable: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most so many of the places [V, P] of a mask, as indices [V, N], and which of these there are [V, N]."""
    order = usable.cumsum(-1)
    number = order[:, -1:]
    taken = number.clamp(max=most)
    rank = torch.arange(int(taken.max())).expand(len(usable), -1)
    wanted = rank * number // taken.clamp(min=1) + 1
    return torch.searchsorted(order, wanted).clamp(max=usable.shape[1] - 1), rank < taken


def _quadratic(place: Tensor) -> Tensor:
    """(1, x, y, x^2, x y, y^2) of places [..., 2]."""
    x, y = place.unbind(-1)
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), dim=-1)


def board_points(camera: Camera, xy: Tensor) -> Tensor:
    """[V, N, 3] where on the plane of the board the pixels [V, N, 2] look."""
    origins, directions = camera.rays(xy)
    return origins - directions * (origins[..., 2:] / directions[..., 2:])


def grey(path: Path) -> Tensor:
    """[H, W] the mean of the colours, linear, in float64: light is what a lens blurs."""
    return load_image(path)[..., :3].double().mean(-1)


def average(images: Tensor, blocks: int) -> Tensor:
    """Images [V, H, W] with one pixel for `blocks` x `blocks`; what is left at the right and below is cut off."""
    return torch.nn.functional.avg_pool2d(images[:, None], blocks)[:, 0]
