"""Cameras authored by their rays: without a single centre, or without a formula from points to pixels."""

import abc
from typing import ClassVar

import torch
from torch import Tensor

from diffrender.cameras.base import Camera
from diffrender.cameras.meeting import meet
from diffrender.checks import shape_of


class RayCamera(Camera):
    """A camera whose author knows its rays: a pushbroom, a rolling shutter, a lens behind flat glass, a mirror.

    **The author writes one method**, `to_rays`, and hands the parameters to the constructor by name, as for `Camera`
    (see there). `project` follows: the pixel whose ray meets the point is found by Newton's method
    (`diffrender.cameras.meeting`), with gradients to points, pose and all parameters, up to second derivatives, by the
    implicit function theorem. Depth is the parameter along the ray: a unit of direction, as the author wrote it, is a
    unit of depth. A point that no ray meets ahead of its start projects to NaN, with no gradient.

    Optional: `to_pixels`, if there is a formula after all (NaN where no ray meets the point); `in_domain`, to exclude
    points that a ray does meet; and `is_central = True` for a lens with one centre, whose origins are all zero.

    >>> class Scanner(RayCamera):  # a line of sensors moves along x: every column has a centre of its own
    ...     def __init__(self, f, step, *, size, R=None, t=None):
    ...         super().__init__(size=size, R=R, t=t, f=f, step=step)
    ...     def to_rays(self, xy):
    ...         x, y = xy[..., 0] - self.width / 2, xy[..., 1] - self.height / 2
    ...         zero, one = torch.zeros_like(x), torch.ones_like(x)
    ...         return torch.stack((self.step * x, zero, zero), -1), torch.stack((zero, y / self.f, one), -1)
    >>> camera = Scanner(50.0, 0.1, size=(40, 60))
    >>> xy, depth = camera.project(torch.tensor([[1.0, 0.5, 2.0], [0.0, 0.0, -1.0]]))
    >>> xy.round(decimals=3), depth
    (tensor([[40.0000, 32.5000],
            [    nan,     nan]]), tensor([2., nan]))
    """

    is_central: ClassVar[bool] = False

    @abc.abstractmethod
    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [..., 2] -> origins and directions [..., 3] in the camera frame: what the author writes.

        Differentiable, pixel by pixel, and defined beyond the image too, for an edge that leaves the image is projected
        as a whole; NaN where the camera has no ray. Points are seen at origin + depth * direction, depth > 0.
        """

    def to_pixels(self, points: Tensor) -> Tensor:
        return meet(self, points)

    def in_domain(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> mask [...], of those that a ray meets. The default: all of these."""
        return torch.ones_like(points[..., 0], dtype=torch.bool)

    def checked_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """`to_rays` in full shape [..., 3]; ValueError if its author returns another."""
        origins, directions = self.to_rays(xy)
        shape = (*xy.shape[:-1], 3)
        for name, value in (("origins", origins), ("directions", directions)):
            if value.shape[-1:] != (3,) or len(value.shape) > len(shape) or value.dtype != xy.dtype:
                raise ValueError(
                    f"to_rays must return origins and directions {shape} of the pixels' dtype; got {name} "
                    f"{shape_of(value)} for xy {shape_of(xy)}"
                )
        return origins.expand(shape), directions.expand(shape)

    def _own_project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        searched = type(self).to_pixels is RayCamera.to_pixels  # tries other pixels than one for each point
        xy = self._handed_over(torch.Size() if searched else points.shape[:-1]).to_pixels(points)
        origins, directions, seen = self._own_rays(xy)
        along = ((points - origins) * directions).sum(-1) / (directions * directions).sum(-1)
        return xy, torch.where(seen, along, torch.nan)

    def _local_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._own_rays(self._unmap(self._in_batch("xy", xy, 2)))

    def _own_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Like `_local_rays`, for pixels [*batch, N, 2] as they were before crop and resize.

        A pixel without a ray borrows that of another one: a NaN of the author's would spoil the gradients of all.
        """
        lens = self._handed_over(xy.shape[:-1])
        seen = torch.isfinite(xy.detach()).all(-1)
        origins, directions = lens.checked_rays(torch.where(seen[..., None], xy, 0.5))
        seen = seen & torch.isfinite((origins + directions).detach()).all(-1)
        if not bool(seen.all()):
            if origins.requires_grad or directions.requires_grad:
                origins, directions = lens.checked_rays(_borrowed(xy, seen, self._own_size))
            ahead = directions.new_tensor([0.0, 0.0, 1.0])
            origins = torch.where(seen[..., None], origins, 0.0)
            directions = torch.where(seen[..., None], directions, ahead)
        return origins, directions, seen


def _borrowed(xy: Tensor, seen: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels [..., 2] with those not `seen` [...] replaced by one that is, of the same camera; else by the middle."""
    other = xy.new_tensor([size[1] / 2, size[0] / 2])
    if xy.ndim > 1 and xy.shape[-2]:
        first = seen.to(torch.uint8).argmax(-1, keepdim=True)[..., None]
        found = xy.detach().gather(-2, first.expand(*first.shape[:-1], 2))
        other = torch.where(seen.any(-1)[..., None, None], found, other)
    return torch.where(seen[..., None], xy, other)
