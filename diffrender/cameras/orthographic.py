"""Cameras whose rays are all parallel."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras.intrinsics import IntrinsicsCamera, check_each
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.parameters import Parameter


class ParallelCamera(IntrinsicsCamera):
    """Abstract: X and Y, times a scale each. Depth is z, and what lies ahead of the frame's origin is seen: z > 0."""

    is_central: ClassVar[bool] = False

    @abc.abstractmethod
    def scales(self) -> tuple[Tensor, Tensor]:
        """Pixels per unit of length along x and y."""

    def to_pixels(self, points: Tensor) -> Tensor:
        sx, sy = self.scales()
        return torch.stack((sx * points[..., 0] + self.cx, sy * points[..., 1] + self.cy), dim=-1)

    def from_pixels(self, xy: Tensor) -> Tensor:
        return torch.stack((xy[..., 0] * 0, xy[..., 1] * 0, torch.ones_like(xy[..., 0])), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 0

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def affine_rays(self) -> LinearRays:
        sx, sy = self.scales()
        zero, one = torch.zeros_like(sx), torch.ones_like(sx)
        none = torch.stack((zero, zero, zero), dim=-1)
        return LinearRays(
            origin=torch.stack((-self.cx / sx, -self.cy / sy, zero), dim=-1),
            origin_dx=torch.stack((1 / sx, zero, zero), dim=-1),
            origin_dy=torch.stack((zero, 1 / sy, zero), dim=-1),
            direction=torch.stack((zero, zero, one), dim=-1),
            direction_dx=none,
            direction_dy=none,
        )


class OrthographicCamera(ParallelCamera):
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

    def scales(self) -> tuple[Tensor, Tensor]:
        return self.fx, self.fy


class WeakPerspectiveCamera(ParallelCamera):
    """x = fx X / distance + cx, y = fy Y / distance + cy: the pinhole, exact in the plane z = distance only.

    Depth is z, and the camera sees what lies ahead of its frame's origin: z > 0.

    Args:
        fx, fy: [*batch] focal lengths in pixels.
        cx, cy: [*batch] principal point in pixels.
        distance: [*batch] the z of the object's middle, above 0.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = WeakPerspectiveCamera(100.0, 100.0, 32.0, 24.0, distance=10.0, size=(48, 64))
    >>> camera.project(torch.tensor([[1.0, 2.0, 5.0]]))
    (tensor([[42., 44.]]), tensor([5.]))
    """

    distance: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        distance: float | Tensor,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, distance=distance)

    def check_parameters(self) -> None:
        super().check_parameters()
        check_each(self, "distance", lambda z: z > 0, "above 0")

    def scales(self) -> tuple[Tensor, Tensor]:
        return self.fx / self.distance, self.fy / self.distance
