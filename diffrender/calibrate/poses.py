"""Poses of a flat board from rays: in closed form, for directions all around."""

import torch
from torch import Tensor

REWEIGHTINGS = 4  # of the linear system, by what it leaves: outliers fade by then


def board_poses(directions: Tensor, points: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """The poses that put `points` of a flat board onto rays.

    The board's plane is z = 0, so R X + t = H (x, y, 1) with H = [r1 r2 t]; that it is parallel to the ray d is linear
    in H: (I - d d^T) H m = 0. Unlike a homography between images it holds for rays beyond 90 degrees, where the sign
    of d . H m says which of the two solutions lies in front. Zhang 2000, "A flexible new technique for camera
    calibration", takes R from H in the same way.

    Args:
        directions: [*B, V, N, 3] of any length; rays that do not exist are NaN.
        points: [N, 3] with z = 0.
        observed: [V, N] mask.

    Returns:
        R [*B, V, 3, 3] and t [*B, V, 3], board to camera.
    """
    seen = observed & torch.isfinite(directions).all(-1)
    d = torch.where(seen[..., None], directions, directions.new_tensor([0.0, 0.0, 1.0]))
    d = d / torch.linalg.vector_norm(d, dim=-1, keepdim=True)
    middle = points[:, :2].mean(0)
    spread = (points[:, :2] - middle).norm(dim=-1).mean()
    m = torch.cat(((points[:, :2] - middle) / spread, torch.ones_like(points[:, :1])), dim=-1)  # [N, 3]
    across = torch.eye(3, dtype=d.dtype, device=d.device) - d[..., :, None] * d[..., None, :]  # [..., N, 3, 3]
    weights = seen.to(d.dtype)
    for _ in range(REWEIGHTINGS):
        H = _homography(m, across, weights)
        aim = (H[..., None, :, :] @ m[:, :, None])[..., 0]  # [..., N, 3]
        aim = aim / torch.linalg.vector_norm(aim, dim=-1, keepdim=True).clamp(min=1e-300)
        cosine = (aim * d).sum(-1)
        flip = ((weights * cosine).sum(-1) < 0)[..., None]
        angle = torch.linalg.vector_norm(torch.where(flip[..., None], -aim, aim) - d, dim=-1)  # chords, up to 2
        typical = torch.where(seen, angle, torch.nan).nanmedian(-1, keepdim=True).values.clamp(min=1e-12)
        weights = seen.to(d.dtype) / (1 + (angle / (3 * typical)) ** 2)  # Cauchy
    H = torch.where(flip[..., None], -H, H)
    length = torch.linalg.vector_norm(H[..., :2], dim=-2).mean(-1)[..., None, None].clamp(min=1e-300)
    H = H / length
    first, second, t = H[..., 0], H[..., 1], spread * H[..., 2]
    rough = torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)
    R = _nearest_rotation(rough)
    shift = torch.cat((middle, middle.new_zeros(1)))
    return R, t - (R @ shift[:, None])[..., 0]


def _homography(m: Tensor, across: Tensor, weights: Tensor) -> Tensor:
    """[..., 3, 3] the H of unit norm that minimizes sum_n weights |across H m|^2."""
    outer = m[:, :, None] * m[:, None, :]
    system = torch.einsum("...n,njk,...nil->...jikl", weights, outer, across).flatten(-4, -3).flatten(-2, -1)
    _, vectors = torch.linalg.eigh(system)
    return vectors[..., :, 0].unflatten(-1, (3, 3)).mT  # the vector holds H column by column


def _nearest_rotation(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh)
    return torch.cat((u[..., :2], u[..., 2:] * sign[..., None, None]), dim=-1) @ vh
