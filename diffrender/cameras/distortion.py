"""Distortion of plane coordinates: a radial rational function, tangential and thin-prism terms, a tilted sensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffrender.cameras.lenses import STEEPEST
from diffrender.cameras.radial import first_positive_root, invert_monotone, polynomial

# The radii at which `one_to_one` looks: up to 76 degrees off the axis of a pinhole, and all around a fisheye.
WIDEST, STEPS = 4.0, 257


@dataclass(frozen=True, eq=False)
class Distortion:
    """The terms of `cv2.projectPoints`, all optional; coefficients broadcast against plane coordinates.

    With s = u^2 + v^2, f = (1 + n1 s + n2 s^2 + ...) / (1 + d1 s + d2 s^2 + ...):

        u' = u f + 2 p1 u v + p2 (s + 2 u^2) + s1 s + s2 s^2
        v' = v f + p1 (s + 2 v^2) + 2 p2 u v + s3 s + s4 s^2

    and then the homography of a sensor tilted by tx and ty (Louhichi et al. 2007, as in OpenCV's documentation).

    Args:
        numerator, denominator: (n1, n2, ...), (d1, d2, ...).
        tangential: () or (p1, p2).
        prism: () or (s1, s2, s3, s4).
        tilt: () or (tx, ty), in radians.
    """

    numerator: tuple[Tensor, ...] = ()
    denominator: tuple[Tensor, ...] = ()
    tangential: tuple[Tensor, ...] = ()
    prism: tuple[Tensor, ...] = ()
    tilt: tuple[Tensor, ...] = ()

    def __bool__(self) -> bool:
        return any((self.numerator, self.denominator, self.tangential, self.prism, self.tilt))

    def distort(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All but the tilt."""
        s = u * u + v * v
        factor, _ = self._radial(s, slope=False)
        x, y = u * factor, v * factor
        if self.tangential:
            p1, p2 = self.tangential
            cross = 2 * (p1 * v + p2 * u)
            x, y = x + u * cross + p2 * s, y + v * cross + p1 * s
        if self.prism:
            s1, s2, s3, s4 = self.prism
            x, y = x + s * (s1 + s2 * s), y + s * (s3 + s4 * s)
        return x, y

    def jacobian(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives [..., 2, 2] of `distort`, and whether it keeps its orientation there."""
        s = u * u + v * v
        factor, slope = self._radial(s)
        xu, xv = factor + 2 * u * u * slope, 2 * u * v * slope
        yu, yv = xv, factor + 2 * v * v * slope
        if self.tangential:
            p1, p2 = self.tangential
            cross = 2 * (p1 * u + p2 * v)
            xu, xv = xu + 2 * p1 * v + 6 * p2 * u, xv + cross
            yu, yv = yu + cross, yv + 6 * p1 * v + 2 * p2 * u
        if self.prism:
            s1, s2, s3, s4 = self.prism
            x, y = 2 * (s1 + 2 * s2 * s), 2 * (s3 + 2 * s4 * s)
            xu, xv, yu, yv = xu + x * u, xv + x * v, yu + y * u, yv + y * v
        jacobian = torch.stack((xu, xv, yu, yv), dim=-1).reshape(*xu.shape, 2, 2)
        return jacobian, xu * yv - xv * yu > 0

    def fold(self) -> Tensor | float:
        """The s up to which the radial part grows and has no pole, infinite if everywhere."""
        if not self.numerator and not self.denominator:
            return float("inf")
        like = (*self.numerator, *self.denominator)[0].detach()
        n, d = (
            torch.stack([torch.ones_like(like), *(c.detach().expand_as(like) for c in part)], dim=-1)
            for part in (self.numerator, self.denominator)
        )
        # d/dr (r n / d) = (n d + 2 s (n' d - n d')) / d^2; coefficient i of n times j of d enters with 1 + 2 (i - j).
        growth = [torch.zeros_like(like) for _ in range(n.shape[-1] + d.shape[-1] - 1)]
        for i in range(n.shape[-1]):
            for j in range(d.shape[-1]):
                growth[i + j] = growth[i + j] + (1 + 2 * (i - j)) * n[..., i] * d[..., j]
        fold = first_positive_root(torch.stack(growth[1:], dim=-1))
        return torch.minimum(fold, first_positive_root(d[..., 1:])) if self.denominator else fold

    def one_to_one(self) -> Tensor | float:
        """An s up to which no two points fall together, where `distort` is more than a radial function.

        The radial part is the gradient of a potential whose second derivatives are f and (r f)': it takes points apart
        by at least m, the least of these inside of a circle. The rest takes them together by at most M, its steepest
        slope inside. As long as M < m no two meet: there are no more than one, and `fold` tells the rest.
        """
        if not self.tangential and not self.prism:
            return float("inf")
        like = (*self.tangential, *self.prism)[0].detach()
        r = torch.linspace(0.0, WIDEST, STEPS, dtype=like.dtype, device=like.device).expand(*like.shape, -1)
        detached = Distortion(*(tuple(c.detach()[..., None] for c in part) for part in self._untilted()))
        factor, slope = detached._radial(r * r)
        apart = torch.minimum(factor, factor + 2 * r * r * slope).cummin(-1).values
        p1, p2 = detached.tangential or (0.0, 0.0)
        s1, s2, s3, s4 = detached.prism or (0.0,) * 4
        together = 6 * r * _size(p1, p2) + 2 * r * _size(s1, s3) + 4 * r**3 * _size(s2, s4)
        certain = (together < apart).cummin(-1).values
        return (r * certain).amax(-1) ** 2

    def _untilted(self) -> tuple[tuple[Tensor, ...], ...]:
        return self.numerator, self.denominator, self.tangential, self.prism

    def undistort_radially(self, x: Tensor, y: Tensor, limit: Tensor | float) -> tuple[Tensor, Tensor]:
        """Plane coordinates without the radial part, for s <= `limit`: where Newton's method starts."""

        def radius(r: Tensor) -> tuple[Tensor, Tensor]:
            factor, slope = self._radial(r * r)
            return r * factor, factor + 2 * r * r * slope

        rho = torch.sqrt(x * x + y * y).nan_to_num(nan=0.0)
        r = invert_monotone(radius, rho, bracket_end(torch.as_tensor(limit, dtype=x.dtype, device=x.device)))
        ratio = torch.where(rho > 0, r / rho, 1.0)
        return ratio * x, ratio * y

    def tilted_ahead(self, u: Tensor, v: Tensor) -> Tensor:
        """Mask: in front of the tilted sensor."""
        return self._tilt_denominator(u, v) > 0 if self.tilt else torch.ones_like(u, dtype=torch.bool)

    def to_sensor(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The homography of the tilt."""
        if not self.tilt:
            return u, v
        m = self.packed_tilt()
        c = self._tilt_denominator(u, v)
        ahead = c > 1e-6  # behind the sensor nothing is valid
        inverse = torch.where(ahead, 1.0, 0.0) / torch.where(ahead, c, 1.0)
        return (m[0] * u + m[1] * v + m[2]) * inverse, (m[3] * u + m[4] * v + m[5]) * inverse

    def from_sensor(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `to_sensor`."""
        if not self.tilt:
            return u, v
        sx, cx, sy, cy = self._tilt_rotation()
        a, b = (u - sy * cx) / (cy * cx), (v + sx) / (cy * cx)
        # The transposed rotation takes (a, b, 1) back.
        x, y, w = cy * a + sy, sy * sx * a + cx * b - cy * sx, -sy * cx * a + sx * b + cy * cx
        return x / w, y / w

    def packed(self) -> tuple[Tensor | float, ...]:
        """All coefficients in the order of the kernels: numerator, denominator, tangential, prism, tilt."""
        parts = ((self.numerator, 4), (self.denominator, 3), (self.tangential, 2), (self.prism, 4))
        padded = [value for part, size in parts for value in (*part, *(0.0,) * (size - len(part)))]
        return (*padded, *(self.packed_tilt() if self.tilt else (0.0,) * 9))

    def packed_tilt(self) -> tuple[Tensor, ...]:
        """The homography of the tilted sensor, row by row."""
        sx, cx, sy, cy = self._tilt_rotation()
        a, b, c = (cy, sy * sx, -sy * cx), (torch.zeros_like(cx), cx, sx), (sy, -cy * sx, cy * cx)
        x = [cy * cx * one + sy * cx * other for one, other in zip(a, c, strict=True)]
        return *x, *(cy * cx * one - sx * other for one, other in zip(b, c, strict=True)), *c

    def _radial(self, s: Tensor, slope: bool = True) -> tuple[Tensor, Tensor]:
        """The radial factor and its derivative by s."""
        top: tuple[Tensor | float, ...] = (1.0, *self.numerator)
        bottom: tuple[Tensor | float, ...] = (1.0, *self.denominator)
        n = polynomial(s, top)
        n_slope = polynomial(s, _derivative(top)) if slope else n
        if not self.denominator:
            return n, n_slope
        d = polynomial(s, bottom)
        factor = n / d
        return factor, (n_slope - factor * polynomial(s, _derivative(bottom))) / d if slope else factor

    def _tilt_rotation(self) -> tuple[Tensor, ...]:
        """Sines and cosines of the sensor's tilt about x and y."""
        tx, ty = self.tilt
        return torch.sin(tx), torch.cos(tx), torch.sin(ty), torch.cos(ty)

    def _tilt_denominator(self, u: Tensor, v: Tensor) -> Tensor:
        """The tilted sensor's homogeneous coordinate."""
        sx, cx, sy, cy = self._tilt_rotation()
        return sy * u - cy * sx * v + cy * cx


def _derivative(coefficients: Sequence[Tensor | float]) -> tuple[Tensor | float, ...]:
    return tuple(i * c for i, c in enumerate(coefficients) if i) or (0.0,)


def _size(x: Tensor | float, y: Tensor | float) -> Tensor:
    return torch.hypot(torch.as_tensor(x), torch.as_tensor(y))


def bracket_end(limit: Tensor) -> Tensor:
    """The radius up to which to search, just inside the fold (at s = `limit`), where the slope is still positive."""
    return 0.999 * limit.sqrt().clamp(max=STEEPEST)
