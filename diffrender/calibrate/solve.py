"""The calibration itself: intrinsics, distortion and all poses, from the corners of a board in several views."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Camera, so3_exp, so3_log
from ..least_squares import Cauchy, Kernel, Named, Solution, least_squares
from .board import Board
from .corners import Corners
from .lenses import LENSES
from .start import search

POSE = ("rotation", "translation")  # of each view: axis-angle and translation, board to camera
FEWEST_CORNERS = 6  # in a view: four say where a board is, more say whether they fit
# Scale of the Cauchy kernel in standard deviations of one coordinate. 2.4 keeps 94 % of the efficiency of plain least
# squares for normal errors (by its integral): for the first fit, which outliers and the errors of the start disturb.
# 5 keeps 99 %, and still forgets what is far off.
FIRST_SCALE, SCALE = 2.4, 5.0
OUTLIER = 6.0  # standard deviations: one normal corner in 10^8 is that far off
MEDIAN_LENGTH = 1.1774  # of a vector of two unit normals, sqrt(2 log 2)
LEAST_SIGMA = 1e-9  # pixels: data without noise must not make the scale zero


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated camera, and how well it explains the corners.

    Attributes:
        model: name of the camera model, of `LENSES`.
        camera: [V] cameras that share all parameters but the pose; float64.
        corners, board: what it was made from.
        solution: of the least squares: uncertainties, what was undetermined.
        residuals: [V, N, 2] predicted minus found corners, in pixels; zero where not observed.
        outliers: [V, N] corners that are too far off to be believed.
    """

    model: str
    camera: Camera
    corners: Corners
    board: Board
    solution: Solution
    residuals: Tensor
    outliers: Tensor

    @property
    def lens(self) -> Camera:
        """The camera without a pose."""
        one = self.camera[0]
        return one.replace(R=torch.eye(3, dtype=one.dtype), t=torch.zeros(3, dtype=one.dtype))

    @property
    def parameters(self) -> Named:
        """The lens's own, by name."""
        return {name: self.solution.parameters[name] for name in self.camera.parameter_names}

    @property
    def deviations(self) -> Named:
        """Their standard deviations."""
        return {name: self.solution.deviations[name] for name in self.camera.parameter_names}

    @property
    def rms(self) -> float:
        """Root mean square distance of the predicted from the found corners in pixels, outliers included."""
        return float((self.residuals.square().sum() / self.corners.observed.sum()).sqrt())

    @property
    def believed_rms(self) -> float:
        """The same without the outliers."""
        believed = self.corners.observed & ~self.outliers
        return float((self.residuals[believed].square().sum() / believed.sum()).sqrt())

    @property
    def view_rms(self) -> Tensor:
        """[V] the same of each view."""
        return (self.residuals.square().sum((-2, -1)) / self.corners.observed.sum(-1)).sqrt()


def calibrate(corners: Corners, board: Board, *, model: str = "opencv") -> Calibration:
    """The camera that took `corners` of `board`, its uncertainty, and the pose of the board in every view.

    Args:
        corners: at least two views with six corners each; three that differ in slant are a good start, ten are good.
        board: what was seen.
        model: one of `LENSES`.

    Raises:
        ValueError: an unknown model, corners that are not the board's, too few of them.
    """
    _check(corners, board, model)
    camera = search(LENSES[model], corners, board)
    solution = _solve(camera, corners, board, Cauchy(FIRST_SCALE * _sigma(_missed(camera, corners, board), corners)))
    camera = camera_with(camera, solution.parameters)
    for _ in range(2):  # the scale is that of a fit with the kernel, which needs the scale
        solution = _solve(camera, corners, board, Cauchy(SCALE * _sigma(solution.residuals, corners)))
        camera = camera_with(camera, solution.parameters)
    sigma = _sigma(solution.residuals, corners)
    outliers = corners.observed & (torch.linalg.vector_norm(solution.residuals, dim=-1) > OUTLIER * sigma)
    return Calibration(model, camera, corners, board, solution, solution.residuals, outliers)


def _check(corners: Corners, board: Board, model: str) -> None:
    if model not in LENSES:
        raise ValueError(f"model must be one of {', '.join(LENSES)}; got {model!r}")
    if corners.xy.shape[1] != board.num_corners:
        raise ValueError(
            f"corners must be the board's {board.num_corners} in every view; got {corners.xy.shape[1]}: is it "
            f"another board than {board.columns}x{board.rows}?"
        )
    poor = [
        n for n, seen in zip(corners.names, corners.observed.sum(-1).tolist(), strict=True) if seen < FEWEST_CORNERS
    ]
    if poor:
        raise ValueError(f"every view must show at least {FEWEST_CORNERS} corners; fewer are in {', '.join(poor)}")
    if len(corners.names) < 2:
        raise ValueError(
            f"a flat board must be seen in at least 2 views, slanted differently; got {len(corners.names)}"
        )


def _solve(camera: Camera, corners: Corners, board: Board, kernel: Kernel) -> Solution:
    """Least squares from the batch [V] of cameras, of whose lenses the first counts."""
    points = board.points

    def residuals(parameters: Named) -> Tensor:
        try:
            xy, _ = camera_with(camera, parameters).project(points)
        except ValueError:  # parameters that make no camera: a step too far, which infinity takes back
            return corners.xy + torch.inf
        return xy - corners.xy

    lens = {name: getattr(camera[0], name) for name in camera.parameter_names}
    start = {**lens, "rotation": so3_log(camera.R), "translation": camera.t}
    return least_squares(residuals, start, per_block=POSE, observed=corners.observed, kernel=kernel)


def camera_with(like: Camera, parameters: Named) -> Camera:
    """The batch of cameras with these parameters."""
    lens = {name: value for name, value in parameters.items() if name not in POSE}
    return like.replace(**lens, R=so3_exp(parameters["rotation"]), t=parameters["translation"])


def _missed(camera: Camera, corners: Corners, board: Board) -> Tensor:
    return camera.project(board.points)[0] - corners.xy


def _sigma(residuals: Tensor, corners: Corners) -> float:
    """Standard deviation of a coordinate from the median length: outliers do not matter."""
    lengths = torch.linalg.vector_norm(residuals, dim=-1)[corners.observed]
    return max(float(lengths.median()) / MEDIAN_LENGTH, LEAST_SIGMA)
