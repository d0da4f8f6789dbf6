"""Cameras from and to `kornia.geometry.camera.PinholeCamera`.

- Axes: OpenCV's, as here; `extrinsics` take world to camera.
- Half pixel: its pixel centres are on integers (its docstring and `create_meshgrid`), so cx, cy here are 0.5 larger.
"""

from typing import Any

import torch

from diffrender.cameras.base import Camera
from diffrender.cameras.pinhole import PinholeCamera


def to_kornia(camera: Camera) -> Any:
    """kornia's `PinholeCamera` of a pinhole, differentiable; a single camera becomes a batch of one.

    >>> to_kornia(PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64))).cx
    tensor([31.5000])
    """
    from kornia.geometry.camera import PinholeCamera as KorniaCamera  # takes a second to import

    if type(camera) is not PinholeCamera:
        raise TypeError(f"camera must be a pinhole; kornia's camera is no {camera!r}")
    flat = camera.flatten_batch()
    eye = torch.eye(4, dtype=flat.dtype, device=flat.device).expand(len(flat.R), 4, 4)
    intrinsics, extrinsics = eye.clone(), eye.clone()
    half = torch.zeros(3, 3, dtype=flat.dtype, device=flat.device)
    half[:2, 2] = 0.5
    intrinsics[:, :3, :3] = flat.intrinsics - half
    extrinsics[:, :3, :3], extrinsics[:, :3, 3] = flat.R, flat.t
    height, width = (torch.full((len(flat.R),), float(n), dtype=flat.dtype, device=flat.device) for n in flat.size)
    return KorniaCamera(intrinsics, extrinsics, height, width)


def from_kornia(camera: Any) -> PinholeCamera:
    """The batched pinhole of kornia's `PinholeCamera`, differentiable.

    >>> from_kornia(to_kornia(PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64)))).cx
    tensor([32.])
    """
    sizes = torch.stack((camera.height, camera.width), dim=-1).reshape(-1, 2)
    if not bool((sizes == sizes[0]).all()) or bool((sizes != sizes.round()).any()):
        raise ValueError(f"camera must have one size, of whole pixels; got (height, width) {sizes.tolist()}")
    K, pose = camera.intrinsics, camera.extrinsics
    if bool(K[..., 0, 1].any()):
        raise ValueError(f"camera must be without skew; got {K[..., 0, 1].tolist()}")
    height, width = (int(n) for n in sizes[0])
    fx, fy, cx, cy = K[..., 0, 0], K[..., 1, 1], K[..., 0, 2] + 0.5, K[..., 1, 2] + 0.5
    return PinholeCamera(fx, fy, cx, cy, size=(height, width), R=pose[..., :3, :3], t=pose[..., :3, 3])
