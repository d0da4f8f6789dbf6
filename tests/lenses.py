"""Cameras as users may write them, for tests of everything that must hold for a camera nobody has foreseen."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras import Camera, LinearRays, OrthographicCamera, PinholeCamera


class Panorama(Camera):
    """Equirectangular: the whole sphere, with a seam behind, where x jumps by the width, and poles at both ends of y.

    Args:
        gain: rows per row of the full sphere; above 1 the poles lie outside of the image.
    """

    def __init__(self, gain: float | Tensor, *, size: tuple[int, int], R: Any = None, t: Any = None) -> None:
        super().__init__(size=size, R=R, t=t, gain=gain)

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        # A pole has no longitude: it gets one, so that gradients there are finite. (Without the underflow of squares.)
        on_axis = torch.maximum(x.abs(), z.abs()) <= 1e-12 * y.abs().clamp(min=1e-3)
        x, z = torch.where(on_axis, 0.0, x), torch.where(on_axis, 1e-12 * y.abs().clamp(min=1e-3), z)
        longitude, latitude = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
        column = self.width * (0.5 + longitude / (2 * math.pi))
        return torch.stack((column, self.height * (0.5 + self.gain * latitude / math.pi)), dim=-1)


class Stereographic(Camera):
    """A lens that sees all around but for one direction, where its image is infinitely far out."""

    def __init__(self, f: float | Tensor, *, size: tuple[int, int], R: Any = None, t: Any = None) -> None:
        super().__init__(size=size, R=R, t=t, f=f)

    def to_pixels(self, points: Tensor) -> Tensor:
        middle = points.new_tensor([self.width / 2, self.height / 2])
        return self.f[..., None] * points[..., :2] / (points.norm(dim=-1, keepdim=True) + points[..., 2:]) + middle


class Pushbroom(Camera):
    """A row of sensors that flies along x: every column of the image has a centre of its own, on a line.

    Its rays are affine in the pixel, and yet it bends straight edges: x = X / step + W / 2, y = f Y / Z + H / 2.
    """

    is_central: ClassVar[bool] = False

    def __init__(
        self, f: float | Tensor, step: float | Tensor, *, size: tuple[int, int], R: Any = None, t: Any = None
    ) -> None:
        super().__init__(size=size, R=R, t=t, f=f, step=step)

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        # So far from the plane of the centres that nothing overflows.
        z = torch.maximum(z, 1e-6 * y.detach().abs()).clamp(min=1e-12)
        return torch.stack((x / self.step + self.width / 2, self.f * y / z + self.height / 2), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 1e-6 * points[..., 1].abs()

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def affine_rays(self) -> LinearRays:
        zero, one = torch.zeros_like(self.f), torch.ones_like(self.f)
        none = torch.stack((zero, zero, zero), dim=-1)
        return LinearRays(
            origin=torch.stack((-self.step * self.width / 2, zero, zero), dim=-1),
            origin_dx=torch.stack((self.step, zero, zero), dim=-1),
            origin_dy=none,
            direction=torch.stack((zero, -self.height / 2 / self.f, one), dim=-1),
            direction_dx=none,
            direction_dy=torch.stack((zero, 1 / self.f, zero), dim=-1),
        )


class HidesItsRays(Camera):
    """Abstract: a camera that does not tell that its rays are affine, so that all stages take the general way."""

    def linear_rays(self) -> LinearRays | None:
        return None

    def _local_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xy = self._in_batch("xy", xy, 2)
        seen = torch.isfinite(xy.detach()).all(-1)
        rays = self._affine_rays()
        assert rays is not None
        origins, directions = rays.at(torch.where(seen[..., None], xy, 0.5))
        return origins, directions, seen


class HiddenPinhole(HidesItsRays, PinholeCamera):
    """A pinhole that does not tell."""


class HiddenOrthographic(HidesItsRays, OrthographicCamera):
    """An orthographic camera that does not tell."""


class WavyTelecentric(Camera):
    """Parallel rays behind wavy glass: no centre, and hardly an edge that stays straight.

    x = X / step + W / 2 + waves sin(Y / step / 3), y = Y / step + H / 2.
    """

    is_central: ClassVar[bool] = False

    def __init__(
        self, step: float | Tensor, waves: float | Tensor, *, size: tuple[int, int], R: Any = None, t: Any = None
    ) -> None:
        super().__init__(size=size, R=R, t=t, step=step, waves=waves)

    def to_pixels(self, points: Tensor) -> Tensor:
        u, v = points[..., 0] / self.step, points[..., 1] / self.step
        return torch.stack((u + self.width / 2 + self.waves * torch.sin(v / 3), v + self.height / 2), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 0

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def _local_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xy = self._in_batch("xy", xy, 2)
        seen = torch.isfinite(xy.detach()).all(-1)
        lens, xy = self._handed_over(xy.shape[:-1]), torch.where(seen[..., None], xy, 0.5)
        v = xy[..., 1] - self.height / 2
        u = xy[..., 0] - self.width / 2 - lens.waves * torch.sin(v / 3)
        origins = torch.stack((lens.step * u, lens.step * v, torch.zeros_like(u)), dim=-1)
        return origins, torch.tensor([0.0, 0.0, 1.0]).to(origins).expand_as(origins), seen
