"""Lenses: central projections of camera-frame points to a plane, before distortion, and back to directions.

Every lens is radial: (u, v) = h (x, y) with a scale h that depends on x^2 + y^2 and z. Each says up to which squared
radius of the plane directions exist, and which points it sees. All results and gradients are finite everywhere.
"""

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffrender import steady
from diffrender.kernels import LensKind

# Beyond a thousand focal lengths aside points are treated as there: the powers of a distortion stay finite.
STEEPEST = 1e3


class Lens(abc.ABC):
    """A radial projection without its focal length."""

    @property
    @abc.abstractmethod
    def kind(self) -> LensKind:
        """What the kernels call it."""

    @abc.abstractmethod
    def packed(self) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """Its parameters in the order of the kernels."""

    @abc.abstractmethod
    def scale(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The h of (u, v) = h (x, y)."""

    @abc.abstractmethod
    def direction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Plane coordinates inside `limit` -> a direction (x, y, z) of any length."""

    @abc.abstractmethod
    def limit(self) -> Tensor | float:
        """The u^2 + v^2 below which there are directions."""

    @abc.abstractmethod
    def sees(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Where `direction` inverts the projection."""


@dataclass(frozen=True, eq=False)
class Sphere(Lens):
    """A point goes to the unit sphere, from there to an ellipsoid, from there to the plane; the centres differ.

    With d1 = |p|, q = xi d1 + z and d2 = sqrt(beta r^2 + q^2): h = 1 / (alpha d2 + (1 - alpha) q). That is

    - the pinhole (xi = alpha = 0, the default),
    - Mei's unified model (alpha = 0): Mei & Rives 2007, "Single view point omnidirectional camera calibration",
    - the double sphere (beta = 1): Usenko, Demmel & Cremers 2018, "The double sphere camera model",
    - EUCM (xi = 0): Khomutenko, Garcia & Martinet 2016, "An enhanced unified camera model".

    The plane's radius r h grows with the angle to the axis where q > -w d2, w = min(alpha, 1 - alpha) / max(...),
    and d1 + xi z > 0: the derivatives of alpha d2 / r + (1 - alpha) q / r by q / r, and of that by the angle.
    """

    xi: Tensor | float = 0.0
    alpha: Tensor | float = 0.0
    beta: Tensor | float = 1.0

    @property
    def kind(self) -> LensKind:
        return LensKind.SPHERE if self._bends() else LensKind.PINHOLE

    def packed(self) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        return self.xi, self.alpha, self.beta

    def scale(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        h, _ = self._scale_and_lifted(x, y, z)
        return h

    def _scale_and_lifted(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The scale, and where its denominator had to be lifted above zero: nothing is seen there."""
        denominator = z
        if self._bends():
            _, q, d2 = self._parts(x * x + y * y, z)
            denominator = self.alpha * d2 + (1 - self.alpha) * q if isinstance(self.alpha, Tensor) else q
        aside = torch.maximum(x.detach().abs(), y.detach().abs())
        least = (aside / STEEPEST).clamp(min=1e-12)  # 1e-12 is for the apex, where nothing lies aside either
        return 1 / torch.maximum(denominator, least), denominator < least

    def _bends(self) -> bool:
        return isinstance(self.xi, Tensor) or isinstance(self.alpha, Tensor)

    def _parts(self, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d1 = _root(s + z * z)
        q = z + self.xi * d1
        return d1, q, _root(self.beta * s + q * q)

    def direction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._bends():
            return u, v, torch.ones_like(u)
        s = u * u + v * v
        alpha, beta, xi = self.alpha, self.beta, self.xi
        # (u, v, m) points from the centre of the second surface to where the ray meets it (EUCM's inverse) ...
        m = 1 - beta * alpha * alpha * s
        m = m / (alpha * torch.sqrt((1 - (2 * alpha - 1) * beta * s).clamp(min=0)) + 1 - alpha)
        # ... and k (u, v, m) - (0, 0, xi) lies on the first (the inverse of the double sphere).
        k = (m * xi + torch.sqrt((m * m + (1 - xi * xi) * s).clamp(min=0))) / (m * m + s)
        return k * u, k * v, k * m - xi

    def limit(self) -> Tensor | float:
        """Where the roots of the inverse end: the larger of their slopes decides (one of xi, 2 alpha - 1 is small)."""
        if not self._bends():
            return math.inf
        slope = torch.maximum(
            torch.as_tensor((2 * self.alpha - 1) * self.beta), torch.as_tensor(self.xi * self.xi - 1)
        ).detach()
        return torch.where(slope > 0, 1 / slope, math.inf)

    def sees(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        _, lifted = self._scale_and_lifted(x, y, z)
        if not self._bends():
            return ~lifted
        d1, q, d2 = self._parts(x * x + y * y, z)
        alpha = torch.as_tensor(self.alpha)
        w = torch.minimum(alpha, 1 - alpha) / torch.maximum(alpha, 1 - alpha)
        return ~lifted & (q > -w * d2) & (d1 + self.xi * z > 0)


@dataclass(frozen=True, eq=False)
class Angular(Lens):
    """The plane's radius is an angle: r h = atan2(2 tan(omega / 2) r, z) / omega, or the angle to the axis itself.

    With `omega` the lens of Devernay & Faugeras 2001, "Straight lines have to be straight", going on beyond 90 degrees
    to the sides; omega = 0 is the pinhole, in the limit. Without (None) it is the equidistant fisheye.
    """

    omega: Tensor | None = None

    @property
    def kind(self) -> LensKind:
        return LensKind.ANGULAR

    def packed(self) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        return *self._gain(), 0.0

    def scale(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        gain, omega = self._gain()
        s = x * x + y * y
        # tan^2 of the angle, times z^2; where it is small, atan(t) / t = 1 - t^2 / 3 + t^4 / 5 - ..., smooth in s.
        square = (omega * gain) * (omega * gain) * s
        near = (square <= _small(z) * z * z) & (z > 0)
        ahead = torch.where(near, z, 1.0)
        series = (1 - square / ahead / ahead / 3) / ahead
        general = ~near & ~_on_axis(s, z)
        r = torch.sqrt(torch.where(general, s, 1.0))
        # On the axis but not ahead nothing is seen: any finite number will do.
        wide = torch.where(general, steady.atan2(omega * gain * r, torch.where(general, z, 1.0)), 1.0)
        if isinstance(omega, Tensor):
            series, wide = series * gain, wide / torch.where(omega > 0, omega, 1.0)
        return torch.where(near, series, wide / r)

    def direction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gain, omega = self._gain()
        square = omega * omega * (u * u + v * v)
        small = square <= _small(u)
        angle = torch.sqrt(torch.where(small, 1.0, square))
        # Both are smooth in the square of the angle; what the series leave out is of the order of small^3.
        sinc = torch.where(small, 1 - square / 6 * (1 - square / 20), torch.sin(angle) / angle)
        cos = torch.where(small, 1 - square / 2 * (1 - square / 12), torch.cos(angle))
        return sinc / gain * u, sinc / gain * v, cos

    def limit(self) -> Tensor | float:
        """An angle of pi: straight behind."""
        _, omega = self._gain()
        return (math.pi / omega.detach()) ** 2 if isinstance(omega, Tensor) else math.pi**2

    def sees(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        seen = (z > 0) | ~_on_axis(x * x + y * y, z)
        return seen if self.omega is None else seen & ((z > 0) | (self.omega > 0))

    def _gain(self) -> tuple[Tensor | float, Tensor | float]:
        """2 tan(omega / 2) / omega, and omega."""
        if self.omega is None:
            return 1.0, 1.0
        half = self.omega / 2
        small = half <= 0.01  # where the series, cut at half^8, is exact to rounding
        wide = torch.where(small, 1.0, half)
        t = half * half
        series = 1 + t / 3 * (1 + t * 2 / 5 * (1 + t * 17 / 42))
        return torch.where(small, series, torch.tan(wide) / wide), self.omega


def _root(square: Tensor) -> Tensor:
    """The square root, with a zero gradient at zero."""
    return torch.where(square > 0, torch.sqrt(torch.where(square > 0, square, 1.0)), 0.0)


def _small(like: Tensor) -> float:
    """A square so small that its own square is rounding."""
    return float(torch.finfo(like.dtype).eps ** 0.5)


def _on_axis(s: Tensor, z: Tensor) -> Tensor:
    """So close to the axis (or the apex) that sideways and ahead differ by more than numbers can tell."""
    return s <= torch.finfo(z.dtype).eps * z * z
