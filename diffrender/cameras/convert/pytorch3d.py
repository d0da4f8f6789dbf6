"""Cameras from and to PyTorch3D's arguments; the library itself is not needed.

- Axes: the view has x to the left, y up, z forward, and works on rows: X_view = X_world R + T.
- Half pixel: none. Screen coordinates count from the upper left corner of the image, as here.
- NDC has x to the left and y up; -1 to 1 is the *shorter* side, so a unit is min(H, W) / 2 pixels in both directions.
- `FoVPerspectiveCameras`: `fov` is the view angle of the shorter side, `aspect_ratio` a pixel's (nearly always 1).

Source: https://pytorch3d.org/docs/cameras, and the docstrings of pytorch3d/renderer/cameras.py.
"""

import math
from typing import Any

import torch
from torch import Tensor

from diffrender.cameras.base import Camera
from diffrender.cameras.orthographic import OrthographicCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.checks import check_tensor


def to_pytorch3d(camera: Camera) -> dict[str, Any]:
    """The arguments of `PerspectiveCameras` (or `OrthographicCameras`), in screen space, differentiable.

    `PerspectiveCameras(**to_pytorch3d(camera), device=...)`. A single camera becomes a batch of one.

    >>> arguments = to_pytorch3d(PinholeCamera(100.0, 110.0, 30.0, 20.0, size=(48, 64)))
    >>> arguments["focal_length"].tolist(), arguments["principal_point"].tolist(), arguments["in_ndc"]
    ([[100.0, 110.0]], [[30.0, 20.0]], False)
    """
    if type(camera) not in (PinholeCamera, OrthographicCamera):
        raise TypeError(f"camera must be a pinhole or orthographic one; PyTorch3D's own cameras are no {camera!r}")
    flat = camera.flatten_batch()
    assert isinstance(flat, (PinholeCamera, OrthographicCamera))
    flip = flat.R.new_tensor([-1.0, -1.0, 1.0])
    return {
        "R": (flat.R * flip[:, None]).mT,
        "T": flat.t * flip,
        "focal_length": torch.stack((flat.fx, flat.fy), dim=-1),
        "principal_point": torch.stack((flat.cx, flat.cy), dim=-1),
        "image_size": flat.R.new_tensor([flat.size]).expand(len(flat.R), 2),
        "in_ndc": False,
    }


def from_pytorch3d(
    R: Tensor,
    T: Tensor,
    focal_length: Tensor,
    principal_point: Tensor,
    *,
    size: tuple[int, int],
    in_ndc: bool,
    orthographic: bool = False,
) -> PinholeCamera | OrthographicCamera:
    """The camera of the attributes of `PerspectiveCameras` or `OrthographicCameras`.

    Args:
        R, T: [*batch, 3, 3] and [*batch, 3].
        focal_length: [*batch, 2] or [*batch, 1], in NDC units or pixels.
        principal_point: [*batch, 2].
        size: (height, width) of the image.
        in_ndc: whether the two before are in NDC (PyTorch3D's default) or in pixels.
        orthographic: of `OrthographicCameras`.

    >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    >>> camera = from_pytorch3d(torch.eye(3)[None], torch.zeros(1, 3), one, zero, size=(48, 64), in_ndc=True)
    >>> camera.local_project(torch.tensor([[0.5, 0.0, 1.0]]))[0]  # to the right
    tensor([[[44., 24.]]])
    """
    check_tensor("R", R, last=3)
    check_tensor("T", T, last=3)
    check_tensor("principal_point", principal_point, last=2)
    check_tensor("focal_length", focal_length)
    if focal_length.ndim == 0 or focal_length.shape[-1] not in (1, 2):
        raise ValueError(f"focal_length must end in 1 or 2; got {tuple(focal_length.shape)}")
    height, width = size
    fx, fy, px, py = focal_length[..., 0], focal_length[..., -1], principal_point[..., 0], principal_point[..., 1]
    if in_ndc:
        unit = min(size) / 2
        fx, fy, px, py = unit * fx, unit * fy, width / 2 - unit * px, height / 2 - unit * py
    flip = R.new_tensor([-1.0, -1.0, 1.0])
    model = OrthographicCamera if orthographic else PinholeCamera
    return model(fx, fy, px, py, size=size, R=R.mT * flip[:, None], t=T * flip)


def from_pytorch3d_fov(
    R: Tensor,
    T: Tensor,
    fov: Tensor | float = 60.0,
    *,
    size: tuple[int, int],
    aspect_ratio: Tensor | float = 1.0,
    degrees: bool = True,
) -> PinholeCamera | OrthographicCamera:
    """The camera of the attributes of `FoVPerspectiveCameras` for an image of `size`, (height, width).

    >>> from_pytorch3d_fov(torch.eye(3), torch.zeros(3), 90.0, size=(48, 64)).fx
    tensor(24.)
    """
    angle = torch.as_tensor(fov, dtype=R.dtype, device=R.device) * (math.pi / 180 if degrees else 1.0)
    fy = 1 / torch.tan(angle / 2)
    focal = torch.stack(torch.broadcast_tensors(fy / aspect_ratio, fy), dim=-1)
    return from_pytorch3d(R, T, focal, torch.zeros_like(focal), size=size, in_ndc=True)
