"""The rim of a camera's field of view, where it lies inside of the image: there, what is seen ends.

Beyond the rim pixels have no rays. It is a curve of directions, not of points in space: the camera turns it with
itself, and moves it in the image with the parameters of the lens. Where a lens folds its image back, other directions
come to be at the rim as parameters change; but in the image a fold maps all small turns of a direction to motions along
the rim, so that across itself the rim moves as the image of fixed directions does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import where_true
from .pixel_rays import PixelRays
from .scene import Scene

PARTS = 8  # of the side of a pixel, then of that one of them in which rays end: many are asked for at once
ROUNDS = {torch.float32: 4, torch.float64: 7}
WITHIN = {torch.float32: 2e-3, torch.float64: 1e-6}  # pixels from there are the rays that stand for the rim, all of
# them: at the rim itself directions are badly determined by pixels
ROUND_TRIP = 1e-2  # pixels: rays of points that project elsewhere are not believed


@dataclass(frozen=True, eq=False)
class Rim:
    """K parts of the rim, each from one side of a pixel to another.

    Attributes:
        view: [K] the camera.
        directions: [K, 2, 3] camera frame, of rays just inside; walking from the first to the second, the field of view
            is on the right of the image as it is looked at.
    """

    view: Tensor
    directions: Tensor


@torch.no_grad()
def rim(scene: Scene, rays: PixelRays, face_image: Tensor | None = None) -> Rim | None:
    """The rim inside of the images of all views; None if there is none, or the camera has no centre.

    Where rays end is found by dividing the sides of pixels near the rim. What is smaller than a pixel may be missed.
    With `face_image` [B, H, W] only where something is seen beside the rim: the search takes long.
    """
    if rays.directions is None or not scene.camera.is_central:
        return None
    if rays.complete:
        return None
    seen = torch.isfinite(rays.directions).all(-1)
    height, width = scene.camera.size
    either = torch.stack([seen, ~seen]).reshape(2, -1, height, width).to(scene.vertices.dtype)
    near = torch.nn.functional.max_pool2d(either, 3, stride=1, padding=1).prod(0) > 0
    for border in (near[:, 0], near[:, -1], near[:, :, 0], near[:, :, -1]):
        border.fill_(True)  # what is beyond is not known
    if face_image is not None:
        covered = (face_image >= 0).to(either.dtype)
        near &= torch.nn.functional.max_pool2d(covered, 5, stride=1, padding=2) > 0
    view, row, column = near.nonzero().unbind(-1)
    corner = torch.stack([column, row], dim=-1).to(scene.vertices.dtype)
    around = corner.unsqueeze(1) + corner.new_tensor([[0, 0], [1, 0], [1, 1], [0, 1]])  # [N, 4, 2] clockwise
    inside, _ = _rays(scene, view, around)
    following = inside.roll(-1, 1)
    cut = where_true((inside != following).sum(1) == 2)  # four: two parts of the rim
    view, around, inside, following = (x.index_select(0, cut) for x in (view, around, inside, following))
    # Clockwise around the pixel the field of view begins on one side and ends on another; back there along the rim.
    side = torch.stack([inside & ~following, ~inside & following], dim=1).to(torch.uint8).argmax(-1)  # [K, 2]
    first, second = (x.take_along_dim(side.unsqueeze(-1), 1) for x in (around, around.roll(-1, 1)))
    leaves = torch.tensor([True, False], device=side.device)[:, None]
    within, beyond = torch.where(leaves, first, second), torch.where(leaves, second, first)
    steps = torch.arange(1, PARTS, dtype=corner.dtype, device=corner.device).unsqueeze(-1) / PARTS
    for _ in range(ROUNDS[corner.dtype]):
        along = (beyond - within).unsqueeze(2)
        points = within.unsqueeze(2) + steps * along  # [K, 2, PARTS - 1, 2]
        ahead, _ = _rays(scene, view, points.flatten(1, 2))
        count = ahead.reshape(points.shape[:-1]).long().cumprod(-1).sum(-1, keepdim=True)
        part = along.squeeze(2) / PARTS
        within = within + count * part
        beyond = within + part
    across = torch.stack([within[:, 0, 1] - within[:, 1, 1], within[:, 1, 0] - within[:, 0, 0]], dim=-1)
    within = within + WITHIN[within.dtype] * torch.nn.functional.normalize(across, dim=-1).unsqueeze(1)
    seen, directions = _rays(scene, view, within)
    found = where_true(seen.all(-1))
    return Rim(view.index_select(0, found), directions.index_select(0, found))


def _rays(scene: Scene, view: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """[N, S] whether there are rays through pixels [N, S, 2] of views [N], and their directions [N, S, 3]."""
    of_each, flat = view.repeat_interleave(xy.shape[1]), xy.reshape(-1, 2)
    _, directions = scene.rays_at(of_each, flat)
    back, _ = scene.project_at(of_each, directions)
    seen = (back - flat).abs().amax(-1) < ROUND_TRIP  # NaN is not
    return seen.reshape(xy.shape[:2]), directions.reshape(*xy.shape[:2], 3).to(xy.dtype)
