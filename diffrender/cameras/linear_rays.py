"""Rays that are affine in the pixel: the fast path from faces to pixels, and the rays of cameras without a lens."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearRays:
    """Camera-frame rays that are affine in the pixel: `origin + x * origin_dx + y * origin_dy`, likewise `direction`.

    All tensors are [*batch, 3]; a unit of direction is a unit of depth, so `direction` has z = 1 and the others z = 0.
    """

    origin: Tensor
    origin_dx: Tensor
    origin_dy: Tensor
    direction: Tensor
    direction_dx: Tensor
    direction_dy: Tensor

    def at(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and directions [..., 3] of pixels [..., 2], for a batch [*batch, N, 2].

        The order of the operations, `(d + x * dx) + y * dy`, is part of the contract: kernels repeat it bit for bit.
        """
        return _affine(xy, self.origin, self.origin_dx, self.origin_dy), self.directions_at(xy)

    def directions_at(self, xy: Tensor) -> Tensor:
        """The directions alone: all there is to know of cameras with one centre."""
        return _affine(xy, self.direction, self.direction_dx, self.direction_dy)

    def mapped(self, scale: tuple[float, float], offset: tuple[float, float]) -> "LinearRays":
        """The same rays for pixels `scale * xy + offset`."""
        (sx, sy), (ox, oy) = scale, offset
        return LinearRays(
            self.origin - (ox / sx) * self.origin_dx - (oy / sy) * self.origin_dy,
            self.origin_dx / sx,
            self.origin_dy / sy,
            self.direction - (ox / sx) * self.direction_dx - (oy / sy) * self.direction_dy,
            self.direction_dx / sx,
            self.direction_dy / sy,
        )


def _affine(xy: Tensor, start: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    start, dx, dy = (part if part.ndim == 1 else part[..., None, :] for part in (start, dx, dy))
    return (start + xy[..., 0:1] * dx) + xy[..., 1:2] * dy
