"""The omnidirectional camera of the OCamCalib toolbox: a polynomial of the image radius says where rays go."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffrender import steady
from diffrender.cameras.intrinsics import check_each
from diffrender.cameras.inverse import recorded_step
from diffrender.cameras.kernel_camera import KernelCamera
from diffrender.cameras.parameters import Parameter
from diffrender.cameras.radial import first_positive_root, invert_monotone, polynomial
from diffrender.kernels import MOST_COEFFICIENTS, LensKind, LensShape

# The image radius is looked for up to a thousand times its size at 45 degrees, about.
LARGEST_RADIUS = 1e3


class ScaramuzzaCamera(KernelCamera):
    """A pixel at radius rho from the centre sees along (u, v, -(a0 + a1 rho + a2 rho^2 + ...)).

    Scaramuzza, Martinelli & Siegwart 2006, "A flexible technique for accurate omnidirectional camera calibration and
    structure from motion". `project` solves the same polynomial exactly, by Newton's method, where the toolbox has a
    second, fitted one (`inverse_polynomial` fits it). Depth is the distance from the centre; valid up to the angle
    where the radius stops growing with it.

    The toolbox has x down the rows, y along the columns and z backwards, and counts pixel centres from 0 (in
    `calib_results.txt`; Matlab's variables from 1). Our x is its y, our y its x, our z its -z, and

        row    = c y' + d x' + cy        y' = rho y / r, x' = rho x / r
        column = e y' +   x' + cx

    so that cx is its `yc` plus one half (minus one half of Matlab's), and cy is its `xc` likewise.

    Args:
        cx, cy: [*batch] the centre in pixels.
        polynomial: (a0, a1, ..., an), n >= 1, as in the toolbox: a0 is negative, minus the pixels per radian on the
            axis, and a1 is 0. Numbers or tensors [*batch], or one tensor [*batch, n + 1].
        c, d, e: [*batch] the affine map from a square sensor to pixels.
        size: (height, width).
        R, t: [*batch, 3, 3] and [*batch, 3], world to camera.

    >>> camera = ScaramuzzaCamera(16.0, 16.0, (-10.0, 0.0, 0.025), size=(32, 32))  # a parabolic mirror
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]]))[0]  # -10 + 0.025 rho^2 = 0
    tensor([[36., 16.]])
    """

    vector_parameters: ClassVar[frozenset[str] | None] = frozenset({"polynomial"})
    cx: Tensor
    cy: Tensor
    polynomial: Tensor
    c: Tensor
    d: Tensor
    e: Tensor

    def __init__(
        self,
        cx: float | Tensor,
        cy: float | Tensor,
        polynomial: Parameter,
        c: float | Tensor = 1.0,
        d: float | Tensor = 0.0,
        e: float | Tensor = 0.0,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
    ) -> None:
        super().__init__(size=size, R=R, t=t, cx=cx, cy=cy, polynomial=polynomial, c=c, d=d, e=e)

    def check_parameters(self) -> None:
        if self.polynomial.shape[-1] < 2:
            raise ValueError(f"polynomial must hold at least (a0, a1); got {self.polynomial.shape[-1]} coefficients")
        if bool((self.polynomial[..., 0] >= 0).any()):
            raise ValueError(
                f"polynomial[0] must be negative; got {float(self.polynomial[..., 0].max()):.6g}: "
                "OCamCalib's z points backwards"
            )
        check_each(self, "c", lambda c: c != self.d.detach() * self.e.detach(), "other than d e")

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        lens = self._spread_over(points.shape[:-1])
        s = x * x + y * y
        aside = s > torch.finfo(s.dtype).tiny
        r = torch.where(aside, torch.sqrt(torch.where(aside, s, 1.0)), 0.0)
        with torch.no_grad():
            angle = steady.atan2(r, z)
            valid = angle < self._largest_angle()
            sought = torch.where(valid, angle, 0.0)
            rho = torch.where(valid, self._radius(sought), self._largest_radius())
            # On the axis to rounding, where both are 0, the ratio of rho and r has its limit.
            ahead = torch.maximum(z.abs(), r).clamp(min=1e-12)
            near = r <= torch.finfo(s.dtype).eps * ahead
            ratio = torch.where(near, -lens.polynomial[..., 0] / ahead, rho / torch.where(near, 1.0, r))
            slope = z + r * lens._slope(ratio * r)
            solved = valid & (slope > 0)
            slope = torch.where(solved, slope, 1.0)

        def missing(step: Tensor | None) -> Tensor:
            at = ratio if step is None else ratio + step
            return torch.where(solved, -lens._height(at * r) - at * z, 0.0)

        ratio = ratio + recorded_step(missing, lambda missing: missing / slope)
        u, v = ratio * x, ratio * y
        return torch.stack((u + lens.e * v + lens.cx, lens.d * u + lens.c * v + lens.cy), dim=-1)

    def from_pixels(self, xy: Tensor) -> Tensor:
        lens = self._spread_over(xy.shape[:-1])
        x, y = xy[..., 0] - lens.cx, xy[..., 1] - lens.cy
        determinant = lens.c - lens.d * lens.e
        u, v = (lens.c * x - lens.e * y) / determinant, (y - lens.d * x) / determinant
        s = u * u + v * v
        aside = s.detach() > torch.finfo(s.dtype).tiny
        rho = torch.where(aside, torch.sqrt(torch.where(aside, s, 1.0)), 0.0)
        directions = torch.stack((u, v, -lens._height(rho)), dim=-1)
        return torch.where((rho.detach() < self._largest_radius())[..., None], directions, math.nan)

    def in_domain(self, points: Tensor) -> Tensor:
        r, z = torch.linalg.vector_norm(points[..., :2], dim=-1), points[..., 2]
        return (steady.atan2(r, z) < self._largest_angle()) & ((r > 0) | (z > 0))

    def inverse_polynomial(self, degree: int = 12) -> Tensor:
        """The toolbox's other polynomial, from its angle to the radius: [*batch, degree + 1], lowest power first.

        A least-squares fit over the angles that the image shows; its argument is the angle to the axis less pi / 2.
        Write it to `calib_results.txt`; a 12th degree is good to a hundredth of a pixel or so.
        """
        with torch.no_grad():
            lens = self._handed_over(torch.Size())
            corners = lens.pixel_centers()[:: max(lens.height - 1, 1), :: max(lens.width - 1, 1)].reshape(-1, 2)
            radius = torch.linalg.vector_norm(corners - torch.stack((lens.cx, lens.cy), dim=-1), dim=-1)
            largest = torch.minimum(radius.amax(-1, keepdim=True), 0.99 * lens._largest_radius())
            nodes = 0.5 - 0.5 * torch.cos(torch.linspace(0, math.pi, 40 * degree, dtype=torch.float64))
            rho = (largest * nodes.to(largest)).double()
            angle = steady.atan2(rho, -lens._height(rho)) - math.pi / 2
            powers = angle[..., None] ** torch.arange(degree + 1, device=angle.device)
            return torch.linalg.lstsq(powers, rho[..., None]).solution[..., 0].to(self.dtype)

    def kernel_shape(self) -> LensShape:
        return LensShape(LensKind.POLYNOMIAL, self.polynomial.shape[-1], 0, 0, False, False, True, self.depth_is_z)

    def kernel_numbers(self) -> tuple[Tensor | float, ...]:
        coefficients = self.polynomial.unbind(-1)
        padding = (0.0,) * (MOST_COEFFICIENTS - len(coefficients))
        affine = (1.0, self.e, 0.0, self.d, self.c, 0.0, 0.0, 0.0, 1.0)
        return 1.0, 1.0, self.cx, self.cy, *coefficients, *padding, self._largest_radius(), *affine

    def kernel_limits(self) -> tuple[Tensor | float, ...]:
        largest = self._largest_radius()
        return largest, largest, largest * largest, 1.0  # without a distortion only the third is asked for

    def _takes_kernel(self, points: Tensor) -> bool:
        return self.polynomial.shape[-1] <= MOST_COEFFICIENTS and super()._takes_kernel(points)

    def _height(self, rho: Tensor) -> Tensor:
        return polynomial(rho, self.polynomial.unbind(-1))

    def _slope(self, rho: Tensor) -> Tensor:
        coefficients = self.polynomial.unbind(-1)
        return polynomial(rho, [i * a for i, a in enumerate(coefficients) if i])

    def _radius(self, angle: Tensor) -> Tensor:
        """The radius at an angle to the axis below the largest one."""
        a0 = -self.polynomial[..., 0].detach()

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            rho = a0 * x
            ahead, slope = -self._height(rho), self._slope(rho)
            return steady.atan2(rho, ahead), a0 * (ahead + rho * slope) / (rho * rho + ahead * ahead)

        return a0 * invert_monotone(evaluate, angle, self._largest_radius() / a0)

    def _largest_radius(self) -> Tensor:
        """Where the angle stops growing with the radius, [*batch, 1] of a batch."""
        a = self.polynomial.detach()
        # The derivative of the angle has the sign of -f + rho f' = -a0 + a2 rho^2 + 2 a3 rho^3 + ..., rho = -a0 x.
        power = torch.arange(a.shape[-1], dtype=a.dtype, device=a.device)
        scaled = (1 - power) * a / a[..., :1] * (-a[..., :1]) ** power
        return -a[..., 0] * first_positive_root(scaled[..., 1:]).clamp(max=LARGEST_RADIUS)

    def _largest_angle(self) -> Tensor:
        lens = self._with({"polynomial": self.polynomial.detach()})
        rho = self._largest_radius()
        return steady.atan2(rho, -lens._height(rho))
