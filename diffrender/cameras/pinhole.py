"""The pinhole camera: straight lines stay straight."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffrender.cameras.intrinsics import IntrinsicsCamera, positive_depth
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.parameters import Parameter


class PinholeCamera(IntrinsicsCamera):
    """x = fx X / Z + cx, y = fy Y / Z + cy. Depth is z; valid where z > 0.

    Args:
        fx, fy: [*batch] focal lengths in pixels.
        cx, cy: [*batch] principal point in pixels; (W / 2, H / 2) is the middle (OpenCV's plus one half).
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = PinholeCamera(100.0, 100.0, 32.0, 24.0, size=(48, 64), t=(0, 0, 2))
    >>> camera.project(torch.tensor([[0.1, 0.2, 0.0]]))
    (tensor([[37., 34.]]), tensor([2.]))
    >>> camera.resize((96, 128))
    PinholeCamera(fx=200, fy=200, cx=64, cy=48, size=(96, 128), t=(0, 0, 2))
    """

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy)

    @classmethod
    def from_fov(
        cls,
        fov_y: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> "PinholeCamera":
        """The camera with square pixels, the principal point in the middle, and `fov_y` degrees from top to bottom.

        >>> PinholeCamera.from_fov(90.0, size=(48, 64))
        PinholeCamera(fx=24, fy=24, cx=32, cy=24, size=(48, 64))
        """
        half = 0.5 * torch.deg2rad(fov_y if isinstance(fov_y, Tensor) else torch.tensor(fov_y, dtype=torch.float64))
        if bool(((half <= 0) | (half >= math.pi / 2)).any()):
            raise ValueError(f"fov_y must lie between 0 and 180 degrees; got {fov_y}")
        focal = size[0] / 2 / torch.tan(half)
        f = focal if isinstance(fov_y, Tensor) else float(focal)
        return cls(f, f, size[1] / 2, size[0] / 2, size=size, R=R, t=t)

    def to_pixels(self, points: Tensor) -> Tensor:
        z = positive_depth(points)
        return self.plane_to_pixels(points[..., 0] / z, points[..., 1] / z)

    def from_pixels(self, xy: Tensor) -> Tensor:
        u, v = self.pixels_to_plane(xy)
        return torch.stack((u, v, torch.ones_like(u)), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] >= positive_depth(points)

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def affine_rays(self) -> LinearRays:
        zero, one = torch.zeros_like(self.fx), torch.ones_like(self.fx)
        none = torch.stack((zero, zero, zero), dim=-1)
        return LinearRays(
            origin=none,
            origin_dx=none,
            origin_dy=none,
            direction=torch.stack((-self.cx / self.fx, -self.cy / self.fy, one), dim=-1),
            direction_dx=torch.stack((1 / self.fx, zero, zero), dim=-1),
            direction_dy=torch.stack((zero, 1 / self.fy, zero), dim=-1),
        )
