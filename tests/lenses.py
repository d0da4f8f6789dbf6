"""Cameras as users may write them, for tests of everything that must hold for a camera nobody has foreseen."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras import Camera, LinearRays, OrthographicCamera, PinholeCamera, RayCamera


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


class HiddenPinhole(PinholeCamera):
    """A pinhole that does not tell that its rays are affine, so that all stages take the general way."""

    def linear_rays(self) -> LinearRays | None:
        return None


class HiddenOrthographic(OrthographicCamera):
    """An orthographic camera that does not tell."""

    def linear_rays(self) -> LinearRays | None:
        return None


class WavyTelecentric(RayCamera):
    """Parallel rays behind wavy glass: no centre, and hardly an edge that stays straight.

    x = X / step + W / 2 + waves sin(Y / step / 3), y = Y / step + H / 2: its author knows both ways.
    """

    def __init__(
        self, step: float | Tensor, waves: float | Tensor, *, size: tuple[int, int], R: Any = None, t: Any = None
    ) -> None:
        super().__init__(size=size, R=R, t=t, step=step, waves=waves)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        v = xy[..., 1] - self.height / 2
        u = xy[..., 0] - self.width / 2 - self.waves * torch.sin(v / 3)
        origins = torch.stack((self.step * u, self.step * v, torch.zeros_like(u)), dim=-1)
        return origins, xy.new_tensor([0.0, 0.0, 1.0])

    def to_pixels(self, points: Tensor) -> Tensor:
        u, v = points[..., 0] / self.step, points[..., 1] / self.step
        return torch.stack((u + self.width / 2 + self.waves * torch.sin(v / 3), v + self.height / 2), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 0


class RollingShutter(RayCamera):
    """A distorted lens that moves while its rows are read: every row has a centre of its own.

    Args:
        f: focal length in pixels.
        velocity: [*batch, 3] how far the centre moves from the first row to the last.
        k: radial distortion of the rays, (x, y) (1 + k r^2).
    """

    def __init__(
        self,
        f: float | Tensor,
        velocity: Any = (0.3, 0.0, 0.1),
        k: float | Tensor = 0.1,
        *,
        size: tuple[int, int],
        R: Any = None,
        t: Any = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, f=f, velocity=velocity, k=k)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        time = (xy[..., 1] / self.height - 0.5)[..., None]
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        scale = 1 + self.k * (u * u + v * v)
        return time * self.velocity, torch.stack((scale * u, scale * v, torch.ones_like(u)), dim=-1)


class WaterPort(RayCamera):
    """A pinhole in air that looks into water through a flat window: rays bend there, and start there.

    Args:
        f: focal length in pixels.
        distance: of the window from the pinhole.
        index: of refraction of water.
    """

    def __init__(
        self,
        f: float | Tensor,
        distance: float | Tensor = 0.5,
        index: float | Tensor = 1.33,
        *,
        size: tuple[int, int],
        R: Any = None,
        t: Any = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, f=f, distance=distance, index=index)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        onto = torch.stack((u, v, torch.ones_like(u)), dim=-1)
        aside = onto[..., :2] / torch.linalg.vector_norm(onto, dim=-1, keepdim=True) / self.index[..., None]  # Snell
        ahead = torch.sqrt(1 - (aside * aside).sum(-1, keepdim=True))
        return self.distance[..., None] * onto, torch.cat((aside, ahead), dim=-1)


class MirrorBall(RayCamera):
    """A pinhole that looks at a mirroring ball, and sees in it what is behind itself: no ray beside the ball.

    Args:
        f: focal length in pixels.
        radius: of the ball.
        distance: of its middle from the pinhole.
    """

    def __init__(
        self,
        f: float | Tensor,
        radius: float | Tensor = 0.5,
        distance: float | Tensor = 2.0,
        *,
        size: tuple[int, int],
        R: Any = None,
        t: Any = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, f=f, radius=radius, distance=distance)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        d = torch.stack((u, v, torch.ones_like(u)), dim=-1)
        d = d / torch.linalg.vector_norm(d, dim=-1, keepdim=True)
        along = self.distance * d[..., 2]
        reach = along - torch.sqrt(along * along - self.distance**2 + self.radius**2)  # NaN beside the ball
        hit = reach[..., None] * d
        middle = torch.stack((0 * self.distance, 0 * self.distance, self.distance), dim=-1)
        normal = (hit - middle) / self.radius[..., None]
        return hit, d - 2 * (d * normal).sum(-1, keepdim=True) * normal
