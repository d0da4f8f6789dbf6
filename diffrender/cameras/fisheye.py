"""The fisheye camera of Kannala and Brandt, as in OpenCV's fisheye module."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras.base import Parameter
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.inverse import recorded_step
from diffrender.cameras.radial import first_positive_root, invert_monotone, polynomial


class FisheyeCamera(IntrinsicsCamera):
    """The image radius is a polynomial of the angle theta to the axis: theta (1 + k1 theta^2 + ... + k4 theta^8).

    With k = 0 this is the equidistant fisheye. Depth is the distance from the centre, since the field of view may pass
    90 degrees; valid up to the angle where the polynomial stops growing, at most pi (excluded). Kannala & Brandt 2006,
    "A generic camera model and calibration method"; OpenCV's own formula is wrong beyond 90 degrees, this one is not.

    Args:
        fx, fy: [*batch] pixels per radian on the axis.
        cx, cy: [*batch] principal point in pixels; OpenCV's plus one half.
        k: (k1, k2, k3, k4), numbers or tensors [*batch], or one tensor [*batch, 4].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = FisheyeCamera(100.0, 100.0, 200.0, 200.0, k=(0.0, 0.0, 0.0, 0.0), size=(400, 400))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]]))  # 90 degrees to the right: 100 pi / 2 pixels
    (tensor([[357.0797, 200.0000]]), tensor([1.]))
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"k"})
    k: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        k: Parameter = (0.0, 0.0, 0.0, 0.0),
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, k=k)

    def check_parameters(self) -> None:
        if self.k.shape[-1] != 4:
            raise ValueError(f"k must hold 4 coefficients (k1, k2, k3, k4); got {self.k.shape[-1]}: pad with zeros")

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        on_axis = _on_axis(points)
        r = torch.sqrt(torch.where(on_axis, 1.0, x * x + y * y))
        radius, _ = self._radius(torch.atan2(r, z))
        # On the axis radius / r is 1 / z, to within the rounding that `_on_axis` asks for.
        scale = torch.where(on_axis, 1 / z.abs().clamp(min=1e-12), radius / r)
        return self.plane_to_pixels(scale * x, scale * y)

    def from_pixels(self, xy: Tensor) -> Tensor:
        u, v = self.pixels_to_plane(xy)
        target = torch.sqrt((u * u + v * v).detach())
        with torch.no_grad():
            largest = self._largest_angle()
            seen = target <= self._radius(largest)[0]  # False for NaN
            start = invert_monotone(self._radius, torch.where(seen, target, 0.0), largest)
        # Off the axis, and not where the inverse is NaN anyway: there the square root has a gradient.
        general = seen & (target > torch.finfo(xy.dtype).eps ** 0.5)
        rho = torch.sqrt(torch.where(general, u * u + v * v, 1.0))
        with torch.no_grad():
            _, slope = self._radius(start)

        def missing(step: Tensor | None) -> Tensor:
            radius, _ = self._radius(start if step is None else start + step)
            return torch.where(general, rho - radius, 0.0)

        theta = start + recorded_step(missing, lambda missing: missing / slope)
        scale = torch.where(general, torch.sin(theta) / rho, 1.0)
        axis = torch.where(general, torch.cos(theta), 1.0)
        directions = torch.stack((scale * u, scale * v, axis), dim=-1)
        return torch.where(seen[..., None], directions, math.nan)

    def in_domain(self, points: Tensor) -> Tensor:
        theta = torch.atan2(torch.linalg.vector_norm(points[..., :2], dim=-1), points[..., 2])
        return (theta < self._largest_angle()) & ~(_on_axis(points) & (points[..., 2] <= 0))

    def _radius(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The polynomial and its derivative."""
        s = theta * theta
        k = [self.k[..., i] for i in range(4)]
        value = polynomial(s, (1.0, *k))
        slope = polynomial(s, (1.0, *((2 * i + 3) * k[i] for i in range(4))))
        return theta * value, slope

    def _largest_angle(self) -> Tensor:
        """Up to where the polynomial grows, [*batch, 1], at most pi."""
        k = self.k.detach()
        return first_positive_root(k * k.new_tensor([3.0, 5.0, 7.0, 9.0])).sqrt().clamp(max=math.pi)


def _on_axis(points: Tensor) -> Tensor:
    """So close to the axis (or the apex) that tan(theta) = theta to rounding."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return x * x + y * y <= torch.finfo(points.dtype).eps * z * z
