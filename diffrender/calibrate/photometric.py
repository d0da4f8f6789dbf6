"""Refinement on pixels: the rendered board is laid over the photographs, and lens, poses, blur and light are moved.

The model of a photograph: white squares rendered exactly (the coverage of each pixel), blurred by a Gaussian, between a
black and a white level that each vary linearly over the image. What is seen at a pixel moves with the projection p of
the board's point X there, so the derivative of the blurred coverage B by anything that moves the board is

    dB = -grad B . d project(X)      (Lucas & Kanade 1981, with a lens)

which makes the comparison a least-squares problem like that of the corners, with tens of thousands of observations
instead of hundreds, and without a detector's opinion of where a blurred corner is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Camera, so3_log
from ..checks import shape_of
from ..io.images import load_image
from ..least_squares import Cauchy, Named, least_squares
from ..mesh import Mesh
from ..render import render
from .board import Board
from .solve import POSE, Calibration, camera_with

RING = 0.4  # of a square: how far beyond the outermost corners the pattern is sure to go on
BESIDE_EDGES = 4.0  # pixels: what lies farther from every edge of a square tells nothing
# Spread evenly over those beside edges, of a view and of all: more cost time, and neighbours say the same.
MOST_PIXELS, MOST_IN_ALL = 4000, 60000
LONGEST_SIDE = 1000  # pixels: larger photographs are averaged over blocks, or rendering them takes minutes
CHUNK = 16  # views that are rendered at once: memory
RADIUS = 7  # pixels, of the blur's window
FIRST_BLUR = 0.7  # pixels, standard deviation
SCALE = 5.0  # of the Cauchy kernel, in standard deviations
MEDIAN_LENGTH = 0.6745  # of a unit normal
MAX_STEPS, TOLERANCE = 30, 1e-6  # a step of a millionth is far below what pixels can tell
# Of each view: log of the blur's standard deviation; 6 numbers of black, a quadratic over the board, and 6 of white
# minus black; and how far the tone curve bulges, which makes white squares look larger than black ones, or smaller.
LIGHT = ("blur", "levels", "tone")


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


def refine(
    calibration: Calibration, photographs: Sequence[Path], *, on_step: Callable[[float], object] | None = None
) -> Calibration:
    """The same camera and poses, fitted to the pixels of the photographs from where the corners put them.

    Args:
        calibration: from `calibrate`; gives the start.
        photographs: one file for each view, in the order of the views.
        on_step: called after every rendering of all views, with the root mean square difference of the pixels.

    Returns:
        A calibration whose `solution` is that of the pixels (its uncertainties take their errors for independent,
        which they are not quite), and whose residuals are still those of the corners.
    """
    names = calibration.corners.names
    if len(photographs) != len(names):
        raise ValueError(f"photographs must be one for each of {len(names)} views; got {len(photographs)}")
    images = torch.stack([grey(path) for path in photographs])
    blocks = math.ceil(max(calibration.corners.size) / LONGEST_SIDE)
    found = refine_on(scaled(calibration, 1 / blocks), average(images, blocks), on_step=on_step)
    whole = scaled(found, blocks)  # but for what was cut off
    return replace(whole, corners=calibration.corners, camera=whole.camera.crop(0, 0, *calibration.corners.size))


def refine_on(
    calibration: Calibration, images: Tensor, *, on_step: Callable[[float], object] | None = None
) -> Calibration:
    """`refine`, of linear grey images [V, H, W]."""
    if images.shape != (len(calibration.corners.names), *calibration.corners.size):
        raise ValueError(
            f"images must be of the {len(calibration.corners.names)} views and of size {calibration.corners.size}; "
            f"got {shape_of(images)}"
        )
    drawn = DrawnBoard(calibration, choose_pixels(calibration, images.to(calibration.camera.dtype)))
    start = drawn.start()

    def residuals(parameters: Named) -> Tensor:
        left = drawn.appearance(parameters) - drawn.pixels.values
        if on_step is not None:
            on_step(float(left.detach()[drawn.pixels.observed].square().mean().sqrt()))
        return left[..., None]

    with torch.no_grad():
        left = (drawn.appearance(start) - drawn.pixels.values)[drawn.pixels.observed]
    solution = least_squares(
        residuals,
        start,
        per_block=(*POSE, *LIGHT),
        observed=drawn.pixels.observed,
        kernel=Cauchy(SCALE * float(left.abs().median()) / MEDIAN_LENGTH),
        max_steps=MAX_STEPS,
        tolerance=TOLERANCE,
    )
    camera = camera_with(calibration.camera, _geometry(solution.parameters))
    xy, _ = camera.project(calibration.board.points)
    missed = torch.where(calibration.corners.observed[..., None], xy - calibration.corners.xy, 0.0)
    return replace(calibration, camera=camera, solution=solution, residuals=missed)


def average(images: Tensor, blocks: int) -> Tensor:
    """Images [V, H, W] with one pixel for `blocks` x `blocks`; what is left at the right and below is cut off."""
    return torch.nn.functional.avg_pool2d(images[:, None], blocks)[:, 0]


def scaled(calibration: Calibration, scale: float) -> Calibration:
    """The calibration in pixels of another size: all models here have theirs in fx, fy, cx, cy and nowhere else.

    A pixel's corner is at whole numbers here, so that nothing is to be added.
    """
    units = {"fx": scale, "fy": scale, "cx": scale, "cy": scale}

    def converted(values: Named) -> Named:
        return {name: value * units.get(name, 1.0) for name, value in values.items()}

    corners, solution = calibration.corners, calibration.solution
    size = (int(corners.size[0] * scale + 1e-9), int(corners.size[1] * scale + 1e-9))
    factor = torch.cat([torch.full_like(v.reshape(-1), units.get(n, 1.0)) for n, v in calibration.parameters.items()])
    camera = calibration.camera.crop(0, 0, *size)
    return replace(
        calibration,
        camera=camera.replace(**converted({name: getattr(camera, name) for name in units})),
        corners=replace(corners, size=size, xy=corners.xy * scale),
        residuals=calibration.residuals * scale,
        solution=replace(
            solution,
            parameters=converted(solution.parameters),
            deviations=converted(solution.deviations),
            covariance=solution.covariance * factor[:, None] * factor,
        ),
    )


def grey(path: Path) -> Tensor:
    """[H, W] the mean of the colours, linear, in float64: light is what a lens blurs."""
    return load_image(path)[..., :3].double().mean(-1)


def white_squares(board: Board) -> Mesh:
    """Every other square of the board and of a ring around it, in the board's frame."""
    down, along = torch.meshgrid(torch.arange(-1, board.rows), torch.arange(-1, board.columns), indexing="ij")
    first = torch.stack((along, down), dim=-1)[(along + down) % 2 == 0]  # [S, 2]
    ring = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    flat = (first[:, None] + ring).reshape(-1, 2).double() * board.square
    vertices = torch.nn.functional.pad(flat, (0, 1))
    faces = 4 * torch.arange(len(first))[:, None, None] + torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, faces.reshape(-1, 3))


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


def board_points(camera: Camera, xy: Tensor) -> Tensor:
    """[V, N, 3] where on the plane of the board the pixels [V, N, 2] look."""
    origins, directions = camera.rays(xy)
    return origins - directions * (origins[..., 2:] / directions[..., 2:])


class DrawnBoard:
    """The board as it should look at the pixels, for any lens, poses, blur and light.

    Keeps the last rendering: the solver asks for values, and then for derivatives in the same place.
    """

    def __init__(self, calibration: Calibration, pixels: Pixels) -> None:
        self.camera, self.pixels = calibration.camera, pixels
        self.squares = white_squares(calibration.board)
        self.lens = calibration.parameters
        self._last: tuple[Named, tuple[Tensor, ...]] | None = None

    @torch.no_grad()
    def start(self) -> Named:
        """Parameters as the corners have them, the usual blur, and the levels that then fit best."""
        blur = torch.full((len(self.pixels.index),), math.log(FIRST_BLUR), dtype=self.camera.dtype)
        value, _, _ = _filtered(coverage(self.camera, self.squares, self.pixels), blur.exp(), self.pixels.index)
        across = self.pixels.across
        columns = torch.cat((across, across * value[..., None]), dim=-1) * self.pixels.observed[..., None]
        wanted = (self.pixels.values * self.pixels.observed)[..., None]
        levels = torch.linalg.lstsq(columns, wanted).solution[..., 0]
        poses = {"rotation": so3_log(self.camera.R), "translation": self.camera.t}
        return {**self.lens, **poses, "blur": blur, "levels": levels, "tone": torch.zeros_like(blur)}

    def appearance(self, parameters: Named) -> Tensor:
        """[V, N] grey of the pixels, differentiable to the parameters by the motion of the board's points."""
        value, slope, curvature, points = self._rendered({name: part.detach() for name, part in parameters.items()})
        if torch.is_grad_enabled():
            xy, _ = camera_with(self.camera, _geometry(parameters)).project(points)
            value = value - (slope * (xy - xy.detach())).sum(-1)
            # A Gaussian obeys the heat equation: d/d sigma = sigma * (second derivatives).
            blur = parameters["blur"]
            value = value + curvature * (torch.exp(2 * blur.detach()) * (blur - blur.detach()))[:, None]
        value = value + parameters["tone"][:, None] * value * (1 - value)
        black, contrast = (self.pixels.across @ part[..., None] for part in parameters["levels"].split(6, dim=-1))
        return black[..., 0] + contrast[..., 0] * value

    @torch.no_grad()
    def _rendered(self, parameters: Named) -> tuple[Tensor, ...]:
        """Blurred coverage and its derivatives at the pixels (see `_filtered`), and the board's points seen there."""
        wanted = {**_geometry(parameters), "blur": parameters["blur"]}
        if self._last is None or any(not torch.equal(self._last[0][name], part) for name, part in wanted.items()):
            camera = camera_with(self.camera, _geometry(parameters))
            image = coverage(camera, self.squares, self.pixels)
            points = board_points(camera, self.pixels.xy)
            points = torch.where(torch.isfinite(points), points, 0.0)
            self._last = wanted, (*_filtered(image, parameters["blur"].exp(), self.pixels.index), points)
        return self._last[1]


def coverage(camera: Camera, squares: Mesh, pixels: Pixels) -> Tensor:
    """[V, h, w] the part of each pixel of the windows that is covered by white squares."""
    left, top = pixels.corner.unbind(-1)
    window = camera.crop(0, 0, *pixels.size)
    window = window.replace(cx=window.cx - left, cy=window.cy - top)  # type: ignore[attr-defined]
    # In single precision: good to 1e-6, in less than half the time.
    window, squares = window.to(dtype=torch.float32), squares.to(dtype=torch.float32)
    parts = torch.arange(len(left)).split(CHUNK)
    images = [render(squares, window[part], intersecting=False)[..., -1] for part in parts]
    return torch.cat(images).to(camera.dtype)


def _filtered(image: Tensor, blur: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images [V, h, w] blurred by Gaussians of width `blur` [V], at flat `index` [V, N].

    Value [V, N], derivatives by x and y [V, N, 2], and the sum of the second derivatives [V, N].
    """
    t = torch.arange(-RADIUS, RADIUS + 1, dtype=image.dtype)
    s2 = (blur * blur)[:, None]
    bell = torch.exp(-t * t / (2 * s2))
    bell = bell / bell.sum(-1, keepdim=True)
    first = -t / s2 * bell
    # Discrete sums: a slope must give slope 1, a parabola the right curvature, and a constant none.
    first = -first / (first * t).sum(-1, keepdim=True)
    second = (t * t / s2 - 1) * bell / s2
    second = second - bell * second.sum(-1, keepdim=True)
    second = 2 * second / (second * t * t).sum(-1, keepdim=True)

    def along(values: Tensor, kernel: Tensor, vertical: bool) -> Tensor:
        kernel = kernel.flip(-1)[:, None, :, None] if vertical else kernel.flip(-1)[:, None, None, :]
        padding = (RADIUS, 0) if vertical else (0, RADIUS)
        return torch.nn.functional.conv2d(values[None], kernel, padding=padding, groups=len(image))[0]

    rows, columns = along(image, bell, False), along(image, bell, True)
    fields = (
        along(rows, bell, True),
        along(columns, first, False),
        along(rows, first, True),
        along(columns, second, False) + along(rows, second, True),
    )
    value, dx, dy, curvature = (torch.take_along_dim(field.flatten(1), index, 1) for field in fields)
    return value, torch.stack((dx, dy), dim=-1), curvature


def _quadratic(place: Tensor) -> Tensor:
    """(1, x, y, x^2, x y, y^2) of places [..., 2]."""
    x, y = place.unbind(-1)
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), dim=-1)


def _geometry(parameters: Named) -> Named:
    return {name: value for name, value in parameters.items() if name not in LIGHT}


@torch.no_grad()
def comparison(calibration: Calibration, photographs: Sequence[Path], most: int) -> Tensor:
    """[H, W] rows of photograph, rendering and difference (grey is none) of the first refined views."""
    blocks = math.ceil(max(calibration.corners.size) / LONGEST_SIDE)
    small = scaled(calibration, 1 / blocks)
    images = average(torch.stack([grey(path) for path in photographs]), blocks)
    drawn = DrawnBoard(small, choose_pixels(small, images, every=True))
    value = drawn.appearance(small.solution.parameters)
    pixels = drawn.pixels
    parts = (pixels.values, value, 0.5 + pixels.values - value)
    blank = value.new_ones(len(value), pixels.size[0] * pixels.size[1] + 1)  # the last one takes what is not observed
    index = torch.where(pixels.observed, pixels.index, blank.shape[1] - 1)
    panels = [blank.scatter(1, index, part)[:most, :-1].unflatten(1, pixels.size) for part in parts]
    return torch.cat([torch.cat(list(row), dim=1) for row in zip(*panels, strict=True)])
