"""Motions of all cameras together that pictures do not show: object and cameras may drift off with them.

A fit of the poses of cameras, and of the object they see, knows them only up to a motion and a size of the world. Views
that are held out have no poses of their own: to them, an object that has drifted off is in the wrong place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cameras import Camera

LEAST = 1e-4  # of the largest singular value: motions that hardly differ from others


@torch.no_grad()
def common_motions(cameras: Sequence[Camera]) -> Tensor:
    """[6 N, K] orthonormal columns: turns [N, 3] and shifts [N, 3] of `model.Optics`, side by side, of no consequence.

    To first order: the world turns, moves or grows; or every camera turns by the same angle about its own x or y axis,
    which moves the principal point, and that is fitted for all of them.
    """
    R, t = (torch.stack([getattr(camera, name).double().cpu() for camera in cameras]) for name in ("R", "t"))
    distance = t.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(t.dtype).tiny)
    still = torch.zeros_like(t)
    motions = []
    for axis in range(3):
        turn = R[..., axis]  # of the world about an axis, in the frames of the cameras; x_cam = R x + t turns about t
        motions += [(turn, torch.linalg.cross(t, turn) / distance), (still, turn * distance.mean() / distance)]
    motions.append((still, t / distance))  # a smaller world looks like one that is further away
    motions += [(torch.eye(3, dtype=t.dtype)[axis].expand_as(t), still) for axis in range(2)]
    columns = torch.stack([torch.cat(motion, -1).reshape(-1) for motion in motions], -1)
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, values > LEAST * values.max()]


@torch.no_grad()
def take_out(motions: Tensor, turns: Tensor, shifts: Tensor) -> None:
    """Take `motions` from `common_motions` out of `turns` [N, 3] and `shifts` [N, 3], in place."""
    both = torch.cat([turns, shifts], -1).double().cpu().reshape(-1)
    left = (both - motions @ (motions.T @ both)).reshape(-1, 6).to(turns)
    turns.copy_(left[:, :3])
    shifts.copy_(left[:, 3:])
