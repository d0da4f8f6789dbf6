"""Refinement on pixels: the rendered board is laid over the photographs, and lens, poses, blur and light are moved.

A least-squares problem like that of the corners, with tens of thousands of observations instead of hundreds, and
without a detector's opinion of where a blurred corner is. The model of a photograph is in `drawn_board`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checks import shape_of
from ..least_squares import Cauchy, Named, least_squares
from .drawn_board import LIGHT, DrawnBoard, geometry
from .pixels import average, choose_pixels, grey
from .solve import POSE, Calibration, camera_with

LONGEST_SIDE = 1000  # pixels: larger photographs are averaged over blocks, or rendering them takes minutes
SCALE = 5.0  # of the Cauchy kernel, in standard deviations
MEDIAN_LENGTH = 0.6745  # of a unit normal
MAX_STEPS, TOLERANCE = 30, 1e-6  # a step of a millionth is far below what pixels can tell


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
    camera = camera_with(calibration.camera, geometry(solution.parameters))
    xy, _ = camera.project(calibration.board.points)
    missed = torch.where(calibration.corners.observed[..., None], xy - calibration.corners.xy, 0.0)
    return replace(calibration, camera=camera, solution=solution, residuals=missed)


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
