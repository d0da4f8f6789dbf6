"""Panoramas: cameras that see all around, with a seam straight behind."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender import steady
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.parameters import Parameter

FULL_TURN = (-180.0, 180.0)
POLE_TO_POLE = (-90.0, 90.0)


class EquirectangularCamera(IntrinsicsCamera):
    """x is proportional to the longitude atan2(X, Z), y to the latitude, from -90 degrees above to 90 below.

    Depth is the distance from the centre. Everything is valid but the poles, which have no longitude; the seam lies
    straight behind. Pixels beyond the seam or the poles have no ray.

    Args:
        fx, fy: [*batch] pixels per radian; the whole sphere fills the image if left out.
        cx, cy: [*batch] the pixel of the direction ahead; the middle of the image if left out.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = EquirectangularCamera(size=(90, 180))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))[0]  # to the right; 45 degrees down
    tensor([[135.0000,  45.0000],
            [ 90.0000,  67.5000]])
    """

    def __init__(
        self,
        fx: float | Tensor | None = None,
        fy: float | Tensor | None = None,
        cx: float | Tensor | None = None,
        cy: float | Tensor | None = None,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        fx, fy, cx, cy = _defaults(fx, fy, cx, cy, size, size[0] / math.pi)
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy)

    @classmethod
    def from_extent(
        cls,
        longitude: tuple[float, float] = FULL_TURN,
        latitude: tuple[float, float] = POLE_TO_POLE,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> Self:
        """The camera whose image reaches from edge to edge over these angles, in degrees (to the right, and down).

        >>> EquirectangularCamera.from_extent((-90.0, 90.0), (-45.0, 45.0), size=(50, 100)).cx
        tensor(50.)
        """
        fx, cx = _from_extent("longitude", longitude, FULL_TURN, size[1])
        fy, cy = _from_extent("latitude", latitude, POLE_TO_POLE, size[0])
        return cls(fx, fy, cx, cy, size=size, R=R, t=t)

    def to_pixels(self, points: Tensor) -> Tensor:
        longitude, across = _longitude(points)
        y = points[..., 1]
        apex = (across == 0) & (y == 0)
        return self.plane_to_pixels(longitude, steady.atan2(y, torch.where(apex, 1.0, across)))

    def from_pixels(self, xy: Tensor) -> Tensor:
        longitude, latitude = self.pixels_to_plane(xy)
        across = torch.cos(latitude)
        ray = (across * torch.sin(longitude), torch.sin(latitude), across * torch.cos(longitude))
        seen = (longitude.detach().abs() <= math.pi) & (latitude.detach().abs() <= math.pi / 2)
        return torch.where(seen[..., None], torch.stack(ray, dim=-1), math.nan)

    def in_domain(self, points: Tensor) -> Tensor:
        return ~_on_pole(points)


class CylindricalCamera(IntrinsicsCamera):
    """x is proportional to the longitude atan2(X, Z), y to the height on a cylinder around the y axis, Y / |(X, Z)|.

    Vertical lines stay straight. Depth is the distance from the centre. Everything is valid but the poles; the seam
    lies straight behind, and pixels beyond it have no ray.

    Args:
        fx: [*batch] pixels per radian; a full turn fills the width of the image if left out.
        fy: [*batch] pixels per radius of the cylinder, up and down; fx, for square pixels, if left out.
        cx, cy: [*batch] the pixel of the direction ahead; the middle of the image if left out.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = CylindricalCamera(size=(60, 180))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))[0]  # to the right; 45 degrees down
    tensor([[135.0000,  30.0000],
            [ 90.0000,  58.6479]])
    """

    def __init__(
        self,
        fx: float | Tensor | None = None,
        fy: float | Tensor | None = None,
        cx: float | Tensor | None = None,
        cy: float | Tensor | None = None,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        fx, fy, cx, cy = _defaults(fx, fy, cx, cy, size, None)
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy)

    @classmethod
    def from_extent(
        cls,
        longitude: tuple[float, float] = FULL_TURN,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> Self:
        """The camera with square pixels whose image reaches from edge to edge over `longitude`, in degrees.

        >>> CylindricalCamera.from_extent((-90.0, 90.0), size=(50, 314)).fy
        tensor(99.9493)
        """
        fx, cx = _from_extent("longitude", longitude, FULL_TURN, size[1])
        return cls(fx, fx, cx, size=size, R=R, t=t)

    def to_pixels(self, points: Tensor) -> Tensor:
        longitude, across = _longitude(points)
        # Points on the poles, which are nowhere, go a million radii up or down.
        across = torch.maximum(across, (points[..., 1].detach().abs() * 1e-6).clamp(min=1e-12))
        return self.plane_to_pixels(longitude, points[..., 1] / across)

    def from_pixels(self, xy: Tensor) -> Tensor:
        longitude, up = self.pixels_to_plane(xy)
        directions = torch.stack((torch.sin(longitude), up, torch.cos(longitude)), dim=-1)
        return torch.where((longitude.detach().abs() <= math.pi)[..., None], directions, math.nan)

    def in_domain(self, points: Tensor) -> Tensor:
        return ~_on_pole(points)


def _longitude(points: Tensor) -> tuple[Tensor, Tensor]:
    """The angle about the y axis, and the distance from it; 0 on the poles, without a gradient."""
    on_pole = _on_pole(points)
    x, z = torch.where(on_pole, 0.0, points[..., 0]), torch.where(on_pole, 1.0, points[..., 2])
    return steady.atan2(x, z), torch.where(on_pole, 0.0, torch.sqrt(x * x + z * z))


def _on_pole(points: Tensor) -> Tensor:
    """So close to the y axis (or the apex) that the longitude means nothing, and its square would underflow."""
    aside = torch.maximum(points[..., 0].abs(), points[..., 2].abs()).detach()
    return aside <= (points[..., 1].detach().abs() * 1e-6).clamp(min=1e-12)


def _defaults(
    fx: float | Tensor | None,
    fy: float | Tensor | None,
    cx: float | Tensor | None,
    cy: float | Tensor | None,
    size: tuple[int, int],
    full_fy: float | None,
) -> tuple[float | Tensor, ...]:
    fx = size[1] / (2 * math.pi) if fx is None else fx
    fy = (fx if full_fy is None else full_fy) if fy is None else fy
    return fx, fy, size[1] / 2 if cx is None else cx, size[0] / 2 if cy is None else cy


def _from_extent(
    name: str, extent: tuple[float, float], whole: tuple[float, float], length: int
) -> tuple[float, float]:
    """Pixels per radian, and the pixel of angle 0."""
    low, high = extent
    if not whole[0] <= low < high <= whole[1]:
        raise ValueError(f"{name} must be two growing angles between {whole[0]} and {whole[1]} degrees; got {extent}")
    return length / math.radians(high - low), -length * low / (high - low)
