"""The orthographic camera: all rays are parallel."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.parameters import Parameter


class OrthographicCamera(IntrinsicsCamera):
    """x = fx X + cx, y = fy Y + cy. Depth is z, and the camera sees what lies ahead of its frame's origin: z > 0.

    Args:
        fx, fy: [*batch] pixels per unit of length.
        cx, cy: [*batch] where the frame's z axis meets the image, in pixels.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = OrthographicCamera(10.0, 10.0, 32.0, 24.0, size=(48, 64))
    >>> camera.project(torch.tensor([[1.0, 2.0, 5.0]]))
    (tensor([[42., 44.]]), tensor([5.]))
    """

    is_central: ClassVar[bool] = False

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

    def to_pixels(self, points: Tensor) -> Tensor:
        return self.plane_to_pixels(points[..., 0], points[..., 1])

    def from_pixels(self, xy: Tensor) -> Tensor:
        return torch.stack((xy[..., 0] * 0, xy[..., 1] * 0, torch.ones_like(xy[..., 0])), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 0

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def affine_rays(self) -> LinearRays:
        zero, one = torch.zeros_like(self.fx), torch.ones_like(self.fx)
        none = torch.stack((zero, zero, zero), dim=-1)
        return LinearRays(
            origin=torch.stack((-self.cx / self.fx, -self.cy / self.fy, zero), dim=-1),
            origin_dx=torch.stack((1 / self.fx, zero, zero), dim=-1),
            origin_dy=torch.stack((zero, 1 / self.fy, zero), dim=-1),
            direction=torch.stack((zero, zero, one), dim=-1),
            direction_dx=none,
            direction_dy=none,
        )
