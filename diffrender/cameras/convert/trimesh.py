"""Cameras from and to `trimesh.scene.Camera` with the scene's `camera_transform`.

- Axes: OpenGL's; the transform takes camera to world, y and z are turned.
- Half pixel: none: the principal point is always the middle of the image, (W / 2, H / 2), and rays go through
  the middles of pixels (`ray_pixel_coords`).
"""

from typing import Any

import numpy as np
import torch

from diffrender.cameras.base import Camera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.cameras.poses import from_opengl_pose, to_opengl_pose


def to_trimesh(camera: Camera) -> tuple[Any, np.ndarray]:
    """trimesh's camera and its transform [4, 4], to be set as `scene.camera` and `scene.camera_transform`.

    >>> camera, transform = to_trimesh(PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64)))
    >>> camera.resolution.tolist(), transform.diagonal().tolist()
    ([64, 48], [1.0, -1.0, -1.0, 1.0])
    """
    from trimesh.scene import Camera as TrimeshCamera

    if type(camera) is not PinholeCamera or camera.batch_shape:
        raise TypeError(f"camera must be a single pinhole; trimesh's camera is no {camera!r}")
    middle = torch.tensor([camera.width / 2, camera.height / 2], dtype=torch.float64)
    point = torch.stack((camera.cx, camera.cy)).detach().cpu().double()
    if not torch.equal(point, middle):
        raise ValueError(
            f"camera must have its principal point in the middle, {tuple(middle.tolist())}, which trimesh assumes; got "
            f"{tuple(point.tolist())}: crop or reproject first"
        )
    made = TrimeshCamera(resolution=(camera.width, camera.height), focal=(float(camera.fx), float(camera.fy)))
    pose = to_opengl_pose(camera.R.detach().cpu().double(), camera.t.detach().cpu().double())
    return made, pose.numpy()


def from_trimesh(camera: Any, transform: Any, *, dtype: torch.dtype = torch.float32) -> PinholeCamera:
    """The pinhole of a trimesh camera and its transform [4, 4] (`scene.camera`, `scene.camera_transform`).

    >>> import trimesh
    >>> from_trimesh(trimesh.scene.Camera(resolution=(64, 48), focal=(100.0, 100.0)), np.eye(4)).size
    (48, 64)
    """
    width, height = (int(n) for n in camera.resolution)
    fx, fy = (float(f) for f in camera.focal)
    pose = torch.from_numpy(np.array(transform, dtype=np.float64))
    R, t = (part.to(dtype) for part in from_opengl_pose(pose))
    return PinholeCamera(fx, fy, width / 2, height / 2, size=(height, width), R=R, t=t)
