"""The camera of OpenCV's calibration: a pinhole behind a lens with radial, tangential, prism and tilt terms."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender.cameras.base import Parameter
from diffrender.cameras.intrinsics import IntrinsicsCamera, positive_depth
from diffrender.cameras.inverse import PointCameras, fill, length, newton, newton_step, recorded_step, solve2
from diffrender.cameras.radial import first_positive_root, invert_monotone, polynomial

NUM_COEFFICIENTS = (4, 5, 8, 12, 14)
# Beyond a thousand focal lengths aside, 89.94 degrees, points are treated as there: the powers of r stay finite.
STEEPEST = 1e3


class OpenCVCamera(IntrinsicsCamera):
    """A pinhole with OpenCV's distortion. Depth is z; valid where z > 0 and the distortion has not folded back.

    Args:
        fx, fy: [*batch] focal lengths in pixels.
        cx, cy: [*batch] principal point in pixels; OpenCV's plus one half.
        dist: coefficients in OpenCV's order, (k1, k2, p1, p2[, k3[, k4, k5, k6[, s1, s2, s3, s4[, tx, ty]]]]): 4, 5, 8,
            12 or 14 of them, numbers or tensors [*batch], or one tensor [*batch, K].
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    The formulas are those of the documentation of `cv2.projectPoints`. The inverse starts at that of the radial part,
    and goes on by Newton's method with the analytic Jacobian; first and second derivatives by the implicit function
    theorem.

    >>> camera = OpenCVCamera(100.0, 100.0, 50.0, 50.0, dist=(-0.1, 0.0, 0.0, 0.0), size=(100, 100))
    >>> camera.project(torch.tensor([[0.5, 0.0, 1.0]]))  # 0.5 (1 - 0.1 * 0.25) = 0.4875
    (tensor([[98.7500, 50.0000]]), tensor([1.]))
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"dist"})
    dist: Tensor

    def __init__(
        self,
        fx: float | Tensor,
        fy: float | Tensor,
        cx: float | Tensor,
        cy: float | Tensor,
        dist: Parameter = (0.0, 0.0, 0.0, 0.0),
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, fx=fx, fy=fy, cx=cx, cy=cy, dist=dist)

    def check_parameters(self) -> None:
        if self.dist.shape[-1] not in NUM_COEFFICIENTS:
            raise ValueError(
                f"dist must hold {NUM_COEFFICIENTS} coefficients in OpenCV's order, (k1, k2, p1, p2, k3, ...); "
                f"got {self.dist.shape[-1]}: pad with zeros"
            )

    def to_pixels(self, points: Tensor) -> Tensor:
        z = positive_depth(points, STEEPEST)
        u, v = self._distort(points[..., 0] / z, points[..., 1] / z)
        return self.plane_to_pixels(*self._tilt(u, v))

    def from_pixels(self, xy: Tensor) -> Tensor:
        distorted = torch.stack(self._untilt(*self.pixels_to_plane(xy)), dim=-1)
        flat = distorted.reshape(-1, 2)
        target = flat.detach()
        lenses = PointCameras(self, xy.shape[:-1])
        with torch.no_grad():
            # Rounding of plane coordinates, which are about 1; 64 times that is what a solution may leave.
            tolerance = 8 * torch.finfo(xy.dtype).eps * target.abs().amax(-1).clamp(min=1.0)

            def attempt(state: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
                lens = lenses.at(index)
                u, v = state[:, 0], state[:, 1]
                missing = target.index_select(0, index) - torch.stack(lens._distort(u, v), dim=-1)
                jacobian, growing = lens._jacobian(u, v)
                return torch.where(growing, length(missing), math.inf), newton_step(jacobian, missing)

            limit = self._fold()
            start = self._undistort_radially(distorted.detach(), limit).reshape(-1, 2)
            state, residual = newton(attempt, torch.add, start, tolerance)
            inside = (state * state).sum(-1) <= limit.expand(xy.shape[:-1]).reshape(-1)
            found = ((residual <= 64 * tolerance) & inside).nonzero()[:, 0]
            state = state.index_select(0, found)
            jacobian, _ = lenses.at(found)._jacobian(state[:, 0], state[:, 1])
        lens, wanted = lenses.at(found, detach=False), flat.index_select(0, found)

        def missing(step: Tensor | None) -> Tensor:
            at = state if step is None else state + step
            return wanted - torch.stack(lens._distort(at[:, 0], at[:, 1]), dim=-1)

        uv = state + recorded_step(missing, lambda missing: solve2(jacobian, missing))
        return fill(torch.cat((uv, torch.ones_like(uv[:, :1])), dim=-1), found, xy)

    def in_domain(self, points: Tensor) -> Tensor:
        z = positive_depth(points, STEEPEST)
        u, v = points[..., 0] / z, points[..., 1] / z
        _, growing = self._jacobian(u, v)
        ahead = points[..., 2] >= z
        return ahead & growing & (u * u + v * v < self._fold()) & (self._tilt_matrix_sign(*self._distort(u, v)) > 0)

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def _coefficient(self, i: int) -> Tensor | float:
        return self.dist[..., i] if i < self.dist.shape[-1] else 0.0

    def _radial_polynomials(self) -> tuple[tuple[Tensor | float, ...], tuple[Tensor | float, ...]]:
        """Numerator and denominator in s = r^2: the factor on (u, v) is their quotient."""
        k1, k2, k3, k4, k5, k6 = (self._coefficient(i) for i in (0, 1, 4, 5, 6, 7))
        return (1.0, k1, k2, k3), (1.0, k4, k5, k6)

    def _radial(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """The radial factor and its derivative by s = r^2."""
        top, bottom = self._radial_polynomials()
        n, n_slope = polynomial(s, top), polynomial(s, _derivative(top))
        if self.dist.shape[-1] < 8:
            return n, n_slope
        d, d_slope = polynomial(s, bottom), polynomial(s, _derivative(bottom))
        factor = n / d
        return factor, (n_slope - factor * d_slope) / d

    def _distort(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        p1, p2 = self._coefficient(2), self._coefficient(3)
        s = u * u + v * v
        factor, _ = self._radial(s)
        x = u * factor + 2 * p1 * u * v + p2 * (s + 2 * u * u)
        y = v * factor + p1 * (s + 2 * v * v) + 2 * p2 * u * v
        if self.dist.shape[-1] >= 12:
            s1, s2, s3, s4 = (self._coefficient(i) for i in (8, 9, 10, 11))
            x, y = x + s * (s1 + s2 * s), y + s * (s3 + s4 * s)
        return x, y

    def _jacobian(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives [..., 2, 2] of `_distort`, and whether it keeps its orientation there."""
        p1, p2, s1, s2, s3, s4 = (self._coefficient(i) for i in (2, 3, 8, 9, 10, 11))
        s = u * u + v * v
        factor, slope = self._radial(s)
        cross = 2 * u * v * slope + 2 * (p1 * u + p2 * v)
        prism_x, prism_y = 2 * (s1 + 2 * s2 * s), 2 * (s3 + 2 * s4 * s)
        xu = factor + 2 * u * u * slope + 2 * p1 * v + 6 * p2 * u + prism_x * u
        yv = factor + 2 * v * v * slope + 6 * p1 * v + 2 * p2 * u + prism_y * v
        xv, yu = cross + prism_x * v, cross + prism_y * u
        jacobian = torch.stack((xu, xv, yu, yv), dim=-1).reshape(*xu.shape, 2, 2)
        return jacobian, xu * yv - xv * yu > 0

    def _fold(self) -> Tensor:
        """The r^2 up to which the radial part grows and has no pole: [*batch, 1], infinite if everywhere."""
        ones = torch.ones_like(self.dist[..., 0].detach())
        n, d = (torch.stack([c * ones for c in part], dim=-1).detach() for part in self._radial_polynomials())
        # d/dr (r n / d) = (n d + 2 s (n' d - n d')) / d^2; coefficient i of n times j of d enters with 1 + 2 (i - j).
        growth = [torch.zeros_like(ones) for _ in range(7)]
        for i in range(4):
            for j in range(4):
                growth[i + j] = growth[i + j] + (1 + 2 * (i - j)) * n[..., i] * d[..., j]
        stacked = torch.stack(growth[1:], dim=-1)
        if self.dist.shape[-1] < 8:
            return first_positive_root(stacked[..., :3])
        return torch.minimum(first_positive_root(stacked), first_positive_root(d[..., 1:]))

    def _undistort_radially(self, distorted: Tensor, fold: Tensor) -> Tensor:
        """Plane points [..., 2] without the radial part: where Newton's method starts."""

        def radius(r: Tensor) -> tuple[Tensor, Tensor]:
            factor, slope = self._radial(r * r)
            return r * factor, factor + 2 * r * r * slope

        rho = torch.linalg.vector_norm(distorted, dim=-1).nan_to_num(nan=0.0)
        # Just inside the fold, where the slope is still positive.
        r = invert_monotone(radius, rho, 0.999 * fold.sqrt().clamp(max=STEEPEST))
        return distorted * torch.where(rho > 0, r / rho, 1.0)[..., None]

    def _tilt_rotation(self) -> tuple[Tensor, ...]:
        """Sines and cosines of the sensor's tilt about x and y."""
        tx, ty = self.dist[..., 12], self.dist[..., 13]
        return torch.sin(tx), torch.cos(tx), torch.sin(ty), torch.cos(ty)

    def _tilt_matrix_sign(self, u: Tensor, v: Tensor) -> Tensor:
        """The tilted sensor's homogeneous coordinate: positive in front of it."""
        if self.dist.shape[-1] < 14:
            return torch.ones_like(u)
        sx, cx, sy, cy = self._tilt_rotation()
        return sy * u - cy * sx * v + cy * cx

    def _tilt(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.dist.shape[-1] < 14:
            return u, v
        sx, cx, sy, cy = self._tilt_rotation()
        a, b = cy * u + sy * sx * v - sy * cx, cx * v + sx
        c = self._tilt_matrix_sign(u, v)
        c = torch.where(c > 1e-6, c, 1.0)  # behind the sensor, where nothing is valid
        return cy * cx * a / c + sy * cx, cy * cx * b / c - sx

    def _untilt(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.dist.shape[-1] < 14:
            return u, v
        sx, cx, sy, cy = self._tilt_rotation()
        a, b = (u - sy * cx) / (cy * cx), (v + sx) / (cy * cx)
        # The transposed rotation takes (a, b, 1) back.
        x, y, w = cy * a + sy, sy * sx * a + cx * b - cy * sx, -sy * cx * a + sx * b + cy * cx
        return x / w, y / w


def _derivative(coefficients: Sequence[Tensor | float]) -> tuple[Tensor | float, ...]:
    return tuple(i * c for i, c in enumerate(coefficients) if i)
