"""Where a calibration starts: one focal length, searched for, and the poses that go with it.

For a focal length of a model without further parameters the corners are rays, the rays give the poses in closed form,
and the poses predict the corners: the focal length that predicts best wins. That needs no flat image plane (as Zhang's
closed form of the intrinsics does), so it is the same for a telephoto lens and for one that sees behind itself.
"""

import torch
from torch import Tensor

from ..cameras import Camera
from .board import Board
from .corners import Corners
from .lenses import Start
from .poses import board_poses

# Focal lengths to try, in image diagonals: a fifth is 180 degrees across the diagonal for an equidistant lens (1 / pi),
# and more than any pinhole's; six are 10 degrees.
SHORTEST, LONGEST, TRIED = 0.1, 6.0, 42
MISSED = 1e6  # squared pixels, for a corner whose pixel has no ray, or a view that projects to nothing


def search(start: Start, corners: Corners, board: Board) -> Camera:
    """The batch [V] of cameras of the model that predicts the corners best with a single parameter, f."""
    diagonal = (corners.size[0] ** 2 + corners.size[1] ** 2) ** 0.5
    f = diagonal * torch.logspace(0, 1, TRIED, base=LONGEST / SHORTEST, dtype=torch.float64) * SHORTEST
    lenses, scores = posed(start, f, corners, board)
    best = int(scores.argmin())
    # Between the neighbours of the best, once more as fine.
    low, high = f[max(best - 1, 0)], f[min(best + 1, TRIED - 1)]
    lenses, scores = posed(start, torch.linspace(float(low), float(high), TRIED, dtype=f.dtype), corners, board)
    return lenses[int(scores.argmin())]


def posed(start: Start, f: Tensor, corners: Corners, board: Board) -> tuple[Camera, Tensor]:
    """For focal lengths `f` [F]: the cameras [F, V], and by how many pixels [F] they are off in a typical corner."""
    lens = start(f, corners.size)
    _, directions = lens.local_rays(corners.xy.reshape(1, -1, 2))
    points = board.points.to(f)
    R, t = board_poses(directions.reshape(len(f), *corners.xy.shape[:2], 3), points, corners.observed)
    cameras = start(f[:, None], corners.size).replace(R=R, t=t)
    xy, _ = cameras.project(points)
    error = (xy - corners.xy).square().sum(-1).nan_to_num(nan=MISSED).clamp(max=MISSED)
    typical = torch.where(corners.observed, error, torch.nan).nanmedian(-1).values.sqrt()  # [F, V]
    # The mean over the views: one that shows the slant of the board well must outweigh those that any f explains.
    return cameras, typical.mean(-1)
