"""The board as it should look in the photographs, with its derivatives by lens, pose, blur and light.

White squares are rendered exactly (the coverage of each pixel), blurred by a Gaussian, and put between a black and a
white level that each vary as a quadratic over the board. What is seen at a pixel moves with the projection of the
board's point X there, so the derivative of the blurred coverage B by anything that moves the board is

    dB = -grad B . d project(X)      (Lucas & Kanade 1981, with a lens)
"""

import math

import torch
from torch import Tensor

from ..cameras import Camera, so3_log
from ..least_squares import Named
from ..mesh import Mesh
from ..render import render
from .board import Board
from .pixels import RADIUS, Pixels, board_points
from .solve import Calibration, camera_with

CHUNK = 16  # views that are rendered at once: memory
FIRST_BLUR = 0.7  # pixels, standard deviation
# Of each view: log of the blur's standard deviation; 6 numbers of black, a quadratic over the board, and 6 of white
# minus black; and how far the tone curve bulges, which makes white squares look larger than black ones, or smaller.
LIGHT = ("blur", "levels", "tone")


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
            xy, _ = camera_with(self.camera, geometry(parameters)).project(points)
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
        wanted = {**geometry(parameters), "blur": parameters["blur"]}
        if self._last is None or any(not torch.equal(self._last[0][name], part) for name, part in wanted.items()):
            camera = camera_with(self.camera, geometry(parameters))
            image = coverage(camera, self.squares, self.pixels)
            points = board_points(camera, self.pixels.xy)
            points = torch.where(torch.isfinite(points), points, 0.0)
            self._last = wanted, (*_filtered(image, parameters["blur"].exp(), self.pixels.index), points)
        return self._last[1]


def white_squares(board: Board) -> Mesh:
    """Every other square of the board and of a ring around it, in the board's frame."""
    down, along = torch.meshgrid(torch.arange(-1, board.rows), torch.arange(-1, board.columns), indexing="ij")
    first = torch.stack((along, down), dim=-1)[(along + down) % 2 == 0]  # [S, 2]
    ring = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    flat = (first[:, None] + ring).reshape(-1, 2).double() * board.square
    vertices = torch.nn.functional.pad(flat, (0, 1))
    faces = 4 * torch.arange(len(first))[:, None, None] + torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, faces.reshape(-1, 3))


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


def geometry(parameters: Named) -> Named:
    """Those of the parameters that are no light: the lens's and the poses."""
    return {name: value for name, value in parameters.items() if name not in LIGHT}
