"""Cameras that end in focal lengths and a principal point, so that crop and resize fold into these."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender.cameras.base import Camera


class IntrinsicsCamera(Camera):
    """Abstract: cameras whose last step from plane coordinates (u, v) to pixels is (fx u + cx, fy v + cy).

    `crop` and `resize` of these cameras change `fx, fy, cx, cy` and nothing else. Authors write `to_pixels` with the
    help of `plane_to_pixels`, and `from_pixels` with that of `pixels_to_plane`.
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset()
    fx: Tensor
    fy: Tensor
    cx: Tensor
    cy: Tensor

    def check_parameters(self) -> None:
        check_each(self, "fx", lambda f: f != 0, "other than 0")
        check_each(self, "fy", lambda f: f != 0, "other than 0")

    @property
    def intrinsics(self) -> Tensor:
        """[*batch, 3, 3] the matrix K with the principal point in these pixels (centres at half integers)."""
        zero, one = torch.zeros_like(self.fx), torch.ones_like(self.fx)
        entries = (self.fx, zero, self.cx, zero, self.fy, self.cy, zero, zero, one)
        return torch.stack(entries, dim=-1).reshape(*self.fx.shape, 3, 3)

    def plane_to_pixels(self, u: Tensor, v: Tensor) -> Tensor:
        return torch.stack((self.fx * u + self.cx, self.fy * v + self.cy), dim=-1)

    def pixels_to_plane(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return (xy[..., 0] - self.cx) / self.fx, (xy[..., 1] - self.cy) / self.fy

    def _with_pixel_map(self, scale: tuple[float, float], offset: tuple[float, float], size: tuple[int, int]) -> Self:
        fx, cx = self.fx * scale[0], self.cx * scale[0] + offset[0]
        fy, cy = self.fy * scale[1], self.cy * scale[1] + offset[1]
        camera = self._with({"fx": fx, "fy": fy, "cx": cx, "cy": cy})
        camera.size = camera._own_size = size
        return camera


def check_each(camera: Camera, name: str, holds: Callable[[Tensor], Tensor], wanted: str) -> None:
    """Raise ValueError unless the parameter `name` is what it must be in all cameras of the batch."""
    value = getattr(camera, name).detach()
    wrong = ~holds(value)
    if bool(wrong.any()):
        raise ValueError(f"{name} must be {wanted}; got {float(value[wrong][0]):.6g}")


def positive_depth(points: Tensor, steepest: float = 1e6) -> Tensor:
    """z of camera-frame points [..., 3], lifted above zero where dividing by it would overflow.

    Points at or behind the plane of the camera, and points more than `steepest` times farther aside than ahead, get a
    z that keeps x / z, y / z and their gradients finite in float32; what they project to is off any image.
    """
    aside = points[..., :2].detach().abs().amax(-1)
    # 1e-12 is for the apex itself, where nothing lies aside either.
    return torch.maximum(points[..., 2], (aside / steepest).clamp(min=1e-12))
