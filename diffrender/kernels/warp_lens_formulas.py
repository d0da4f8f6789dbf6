"""The formulas of lens cameras as Warp functions: projection, its inverse, and the derivatives of both.

Each follows the plain-torch formulas of `cameras/lenses.py`, `cameras/distortion.py` and `cameras/lens_camera.py`, with
derivatives written out. They work on the row of a camera's parameters, whose layout stands here.
"""

# mypy: ignore-errors
# (Warp's language, not Python's)

from enum import IntEnum
from math import factorial, pi
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import warp as wp


class LensKind(IntEnum):
    """The classes of `cameras/lenses.py`, of which the pinhole is the `Sphere` without parameters, and OCamCalib's."""

    PINHOLE = 0
    SPHERE = 1
    ANGULAR = 2
    POLYNOMIAL = 3


class LensShape(NamedTuple):
    """What a kernel is made for: the lens, how many terms of which kind its distortion has, and its depth."""

    lens: LensKind
    lens_parameters: int
    numerator: int
    denominator: int
    tangential: bool
    prism: bool
    tilt: bool
    depth_is_z: bool

    @property
    def distorts(self) -> bool:
        """Whether there is a distortion of the plane."""
        return bool(self.numerator or self.denominator or self.tangential or self.prism)


# Where a camera's numbers stand in its row of parameters: fx, fy, cx, cy; three of the lens; the distortion's
# numerator, denominator, tangential and prism terms; the homography of the tilted sensor, row by row; R and t.
FOCAL, LENS, NUMERATOR, DENOMINATOR, TANGENTIAL, PRISM, TILT = 0, 4, 7, 11, 14, 16, 20
ROTATION, TRANSLATION, NUM_PARAMETERS = 29, 38, 41
# The polynomial lens has no distortion of its plane: its coefficients take that place too, and the largest radius.
LARGEST_RADIUS = TILT - 1
MOST_COEFFICIENTS = LARGEST_RADIUS - LENS
# And in the row of what only the inverse needs: s up to the fold, the radius up to which the search for a start goes,
# s up to the end of the lens, s up to the corners of the image, and the inverse of the homography.
FOLD, BRACKET, LIMIT, EXTENT, UNTILT, NUM_LIMITS = 0, 1, 2, 3, 4, 13
TABLE = 512  # intervals of the squared radius up to EXTENT, for which starts of the inverse are stored

MAX_BISECTIONS = 60  # exhaust float64
MAX_ITERATIONS = 100  # of Newton's method in the plane, which needs about 3; the rest is for points far out
START = 1e-4  # relative change of the radius after which Newton's method in the plane takes over, much closer
LARGEST_STEP = 0.5
SHRINK = 0.25
# For the radius of a polynomial lens. 5 are usual; at its end each gains a bit, of which half can be told there.
RADIUS_STEPS = {wp.float32: 12, wp.float64: 40}
STEEPEST = 1e3  # as in `cameras/lenses.py`


def summed_parameters(shape: LensShape) -> tuple[int, ...]:
    """Which of the parameters there are in cameras of a shape: what the columns of the summed gradients belong to."""
    counts = (
        (FOCAL, 4),
        (LENS, shape.lens_parameters),
        (NUMERATOR, shape.numerator),
        (DENOMINATOR, shape.denominator),
        (TANGENTIAL, 2 * shape.tangential),
        (PRISM, 4 * shape.prism),
        (TILT, 9 * shape.tilt),
        (ROTATION, 12),
    )
    return tuple(first + i for first, count in counts for i in range(count))


def arctangent_coefficients(terms: int) -> list[float]:
    """A polynomial in x^2, from 0 to 1, highest power first, that is atan(x) / x within about 5.8^-terms.

    It interpolates at Chebyshev's points; 5.8 = 3 + sqrt(8) follows from the pole at x^2 = -1.
    """

    def ratio(square: np.ndarray) -> np.ndarray:
        x = np.sqrt(square)
        return np.arctan(x) / x

    series = np.polynomial.Chebyshev.interpolate(ratio, terms - 1, domain=[0, 1])
    return series.convert(kind=np.polynomial.Polynomial).coef[::-1].tolist()


def make_lens_formulas(real: Any, shape: LensShape) -> SimpleNamespace:
    """The functions for `real` (`wp.float32` or `wp.float64`), by their names, and the types that they work on."""
    vec2, vec3, vec4 = (wp.types.vector(n, real) for n in (2, 3, 4))
    vec6 = wp.types.vector(6, real)
    row = wp.types.vector(NUM_PARAMETERS, real)
    extra = wp.types.vector(NUM_LIMITS, real)
    summed = summed_parameters(shape)
    sum_row = wp.types.vector(len(summed), real)
    at_lens, at_numerator, at_denominator, at_tangential, at_prism, at_tilt, at_pose = (
        sum(i < first for i in summed) for first in (LENS, NUMERATOR, DENOMINATOR, TANGENTIAL, PRISM, TILT, ROTATION)
    )
    numerator, denominator = shape.numerator, shape.denominator
    tangential, prism, tilt = int(shape.tangential), int(shape.prism), int(shape.tilt)
    distorts, depth_is_z = int(shape.distorts), int(shape.depth_is_z)
    lens_parameters, is_polynomial = shape.lens_parameters, int(shape.lens == LensKind.POLYNOMIAL)
    pinhole_rays = int(shape.lens == LensKind.PINHOLE and shape.depth_is_z)
    eps = 2.0**-23 if real is wp.float32 else 2.0**-52
    small = eps**0.5
    rounding = 8.0 * eps  # of a plane coordinate of size 1
    one_third, quarter_turn, half_turn = 1.0 / 3.0, pi / 2, pi
    radius_steps, last_interval = RADIUS_STEPS[real], TABLE - 1
    largest_square, least_square = LARGEST_STEP**2, eps**2
    # Series, highest power first: of the arc tangent, and of sine and cosine, whose argument is up to (pi / 2)^2.
    terms, half_terms = (11, 7) if real is wp.float32 else (22, 12)
    arctangent_series = wp.types.vector(terms, real)(*arctangent_coefficients(terms))
    signed = [(i, (-1) ** i) for i in reversed(range(half_terms))]
    sine_series, cosine_series = (
        wp.types.vector(half_terms, real)(*(sign / factorial(2 * i + odd) for i, sign in signed)) for odd in (1, 0)
    )

    @wp.func
    def least_depth(x: real, y: real):
        return wp.max(wp.max(wp.abs(x), wp.abs(y)) / real(STEEPEST), real(1e-12))

    @wp.func
    def arctangent(y: real, z: real):
        """The angle of (z, y >= 0) to the z axis: atan2 without a call, so that loops become vector instructions."""
        ahead = wp.abs(z)
        ratio = wp.min(y, ahead) / wp.max(wp.max(y, ahead), real(1e-30))
        square = ratio * ratio
        series = real(0.0)
        for i in range(terms):
            series = series * square + arctangent_series[i]
        angle = ratio * series
        if y > ahead:
            angle = real(quarter_turn) - angle
        if z < real(0.0):
            angle = real(half_turn) - angle
        return angle

    # Lenses: h and its derivatives by s = x^2 + y^2, z, and the three parameters.

    @wp.func
    def pinhole(k: row, x: real, y: real, z: real):
        least = least_depth(x, y)
        h = real(1.0) / wp.max(z, least)
        h_z = -h * h
        if z < least:
            h_z = real(0.0)
        return vec6(h, real(0.0), h_z, real(0.0), real(0.0), real(0.0))

    @wp.func
    def inverse_or_zero(x: real):
        if x > real(0.0):
            return real(1.0) / x
        return real(0.0)

    @wp.func
    def sphere(k: row, x: real, y: real, z: real):
        xi = k[LENS]
        alpha = k[LENS + 1]
        beta = k[LENS + 2]
        rest = real(1.0) - alpha
        s = x * x + y * y
        d1 = wp.sqrt(s + z * z)
        q = z + xi * d1
        d2 = wp.sqrt(beta * s + q * q)
        below = alpha * d2 + rest * q
        least = least_depth(x, y)
        if below < least:
            return vec6(real(1.0) / least, real(0.0), real(0.0), real(0.0), real(0.0), real(0.0))
        h = real(1.0) / below
        i1 = inverse_or_zero(d1)
        i2 = alpha * inverse_or_zero(d2)  # alpha times the slope of d2 by q is q i2
        by_q = q * i2 + rest
        g = -h * h
        half = real(0.5)
        return vec6(
            h,
            g * half * (beta * i2 + by_q * xi * i1),
            g * by_q * (real(1.0) + xi * z * i1),
            g * by_q * d1,
            g * (d2 - q),
            g * half * s * i2,
        )

    @wp.func
    def angular(k: row, x: real, y: real, z: real):
        gain = k[LENS]
        omega = k[LENS + 1]
        t = omega * gain
        s = x * x + y * y
        square = t * t * s
        if square <= real(small) * z * z and z > real(0.0):
            i = real(1.0) / z
            i2 = square * i * i
            third = real(one_third)
            return vec6(
                gain * i * (real(1.0) - i2 * third),
                -gain * i * third * (t * i) * (t * i),
                gain * i * i * (i2 - real(1.0)),
                i * (real(1.0) - i2),
                -gain * i * real(2.0) * third * omega * gain * gain * (s * i * i),
                real(0.0),
            )
        scale = real(1.0)
        if omega > real(0.0):
            scale = real(1.0) / omega
        if s <= real(eps) * z * z:
            return vec6(scale, real(0.0), real(0.0), real(0.0), real(0.0), real(0.0))
        r = wp.sqrt(s)
        i = real(1.0) / r
        angle = arctangent(t * r, z)
        across = real(1.0) / (z * z + square)
        by_t = r * z * across
        return vec6(
            scale * i * angle,
            real(0.5) * scale * i * i * (t * z * across - angle * i),
            -scale * t * across,
            scale * i * by_t * omega,
            scale * i * (by_t * gain - angle * scale),
            real(0.0),
        )

    @wp.func
    def heights(k: row, rho: real):
        """The polynomial of the radius, and its derivative."""
        f = real(0.0)
        slope = real(0.0)
        for i in range(lens_parameters):
            slope = slope * rho + f
            f = f * rho + k[LENS + lens_parameters - 1 - i]
        return vec2(f, slope)

    @wp.func
    def radius_of(k: row, r: real, z: real, largest: real):
        """The rho with rho z + f(rho) r = 0, which has the sign of the angle seen at rho less that of (r, z)."""
        low = real(0.0)
        high = largest
        rho = wp.min(-real(2.0) * k[LENS] * r / (wp.sqrt(r * r + z * z) + z), largest)
        if not (rho < largest):
            rho = real(0.5) * largest
        for _i in range(radius_steps):
            f = heights(k, rho)
            value = rho * z + f[0] * r
            if value > real(0.0):
                high = rho
            else:
                low = rho
            rho = rho - value / (z + f[1] * r)
            if not (rho >= low and rho <= high):
                rho = real(0.5) * (low + high)
        return rho

    @wp.func
    def polynomial(k: row, x: real, y: real, z: real):
        """As the others, but for the parameters: the factor on powers of rho, and rho."""
        none = real(0.0)
        s = x * x + y * y
        r = wp.sqrt(s)
        ahead = wp.max(wp.max(wp.abs(z), r), real(1e-12))
        if r <= real(eps) * ahead:
            h = -k[LENS] / ahead
            if z < ahead:
                return vec6(h, none, none, none, none, none)
            curved = none
            if lens_parameters > 2:
                curved = k[LENS + 2]
            return vec6(h, -h * h * curved / z, -h / z, -real(1.0) / z, h * r, none)
        largest = k[LARGEST_RADIUS]
        end = heights(k, largest)
        if not (largest * z + end[0] * r > real(0.0)):
            return vec6(largest / r, none, none, none, none, none)
        rho = radius_of(k, r, z, largest)
        f = heights(k, rho)
        h = rho / r
        slope = z + r * f[1]
        if not (slope > real(0.0)):
            return vec6(h, none, none, none, none, none)
        i = real(1.0) / slope
        return vec6(h, -real(0.5) * h * f[1] * i / r, -h * i, -i, rho, none)

    scale_of = (pinhole, sphere, angular, polynomial)[shape.lens]

    # Their inverses: a direction of any length.

    @wp.func
    def pinhole_direction(k: row, u: real, v: real):
        return vec3(u, v, real(1.0))

    @wp.func
    def sphere_direction(k: row, u: real, v: real):
        xi = k[LENS]
        alpha = k[LENS + 1]
        beta = k[LENS + 2]
        one = real(1.0)
        s = u * u + v * v
        root = wp.sqrt(wp.max(one - (real(2.0) * alpha - one) * beta * s, real(0.0)))
        m = (one - beta * alpha * alpha * s) / (alpha * root + one - alpha)
        c = (m * xi + wp.sqrt(wp.max(m * m + (one - xi * xi) * s, real(0.0)))) / (m * m + s)
        return vec3(c * u, c * v, c * m - xi)

    @wp.func
    def angular_direction(k: row, u: real, v: real):
        """Through the sine and cosine of half the angle, whose series end soon."""
        gain = k[LENS]
        omega = k[LENS + 1]
        square = real(0.25) * omega * omega * (u * u + v * v)
        sinc = real(0.0)
        cos = real(0.0)
        for i in range(half_terms):
            sinc = sinc * square + sine_series[i]
            cos = cos * square + cosine_series[i]
        scale = sinc * cos / gain
        return vec3(scale * u, scale * v, real(1.0) - real(2.0) * square * sinc * sinc)

    @wp.func
    def polynomial_direction(k: row, u: real, v: real):
        f = heights(k, wp.sqrt(u * u + v * v))
        return vec3(u, v, -f[0])

    direction_of = (pinhole_direction, sphere_direction, angular_direction, polynomial_direction)[shape.lens]

    # The distortion of the plane.

    @wp.func
    def radial(k: row, s: real):
        """The radial factor, its derivative by s, and the inverse of its denominator."""
        n = real(0.0)
        n_slope = real(0.0)
        for i in range(numerator):
            n_slope = n_slope * s + real(numerator - i) * k[NUMERATOR + numerator - 1 - i]
            n = (n + k[NUMERATOR + numerator - 1 - i]) * s
        n = n + real(1.0)
        if denominator == 0:
            return vec3(n, n_slope, real(1.0))
        d = real(0.0)
        d_slope = real(0.0)
        for i in range(denominator):
            d_slope = d_slope * s + real(denominator - i) * k[DENOMINATOR + denominator - 1 - i]
            d = (d + k[DENOMINATOR + denominator - 1 - i]) * s
        inverse = real(1.0) / (d + real(1.0))
        f = n * inverse
        return vec3(f, (n_slope - f * d_slope) * inverse, inverse)

    @wp.func
    def distort(k: row, f: vec3, u: real, v: real):
        s = u * u + v * v
        a = u * f[0]
        b = v * f[0]
        if tangential == 1:
            p1 = k[TANGENTIAL]
            p2 = k[TANGENTIAL + 1]
            cross = real(2.0) * (p1 * v + p2 * u)
            a = a + u * cross + p2 * s
            b = b + v * cross + p1 * s
        if prism == 1:
            a = a + s * (k[PRISM] + k[PRISM + 1] * s)
            b = b + s * (k[PRISM + 2] + k[PRISM + 3] * s)
        return vec2(a, b)

    @wp.func
    def distort_jacobian(k: row, f: vec3, u: real, v: real):
        """Derivatives of `distort`: (x by u, x by v, y by u, y by v)."""
        two = real(2.0)
        xu = f[0] + two * u * u * f[1]
        xv = two * u * v * f[1]
        yu = xv
        yv = f[0] + two * v * v * f[1]
        if tangential == 1:
            p1 = k[TANGENTIAL]
            p2 = k[TANGENTIAL + 1]
            cross = two * (p1 * u + p2 * v)
            xu = xu + two * p1 * v + real(6.0) * p2 * u
            xv = xv + cross
            yu = yu + cross
            yv = yv + real(6.0) * p1 * v + two * p2 * u
        if prism == 1:
            s = u * u + v * v
            px = two * (k[PRISM] + two * k[PRISM + 1] * s)
            py = two * (k[PRISM + 2] + two * k[PRISM + 3] * s)
            xu = xu + px * u
            xv = xv + px * v
            yu = yu + py * u
            yv = yv + py * v
        return vec4(xu, xv, yu, yv)

    @wp.func
    def homography(k: row, a: real, b: real):
        """The tilted sensor: (a', b', inverse of the homogeneous coordinate, or 0 where nothing is valid)."""
        c = k[TILT + 6] * a + k[TILT + 7] * b + k[TILT + 8]
        i = real(0.0)
        if c > real(1e-6):
            i = real(1.0) / c
        x = (k[TILT] * a + k[TILT + 1] * b + k[TILT + 2]) * i
        y = (k[TILT + 3] * a + k[TILT + 4] * b + k[TILT + 5]) * i
        return vec3(x, y, i)

    @wp.func
    def pixel_of(k: row, x: real, y: real, z: real):
        e = scale_of(k, x, y, z)
        p = vec2(e[0] * x, e[0] * y)
        if distorts == 1:
            p = distort(k, radial(k, p[0] * p[0] + p[1] * p[1]), p[0], p[1])
        if tilt == 1:
            w = homography(k, p[0], p[1])
            p = vec2(w[0], w[1])
        return vec2(k[FOCAL] * p[0] + k[FOCAL + 2], k[FOCAL + 1] * p[1] + k[FOCAL + 3])

    # Reverse derivatives: cotangents of the pixel -> cotangents of the plane, of the point, of the parameters.

    @wp.func
    def pull_to_distorted(k: row, p: vec2, gx: real, gy: real):
        """From the pixel back to the distorted plane before the tilt, at distorted coordinates p."""
        a = gx * k[FOCAL]
        b = gy * k[FOCAL + 1]
        if tilt == 1:
            w = homography(k, p[0], p[1])
            c = -(a * w[0] + b * w[1])
            return vec2(
                w[2] * (a * k[TILT] + b * k[TILT + 3] + c * k[TILT + 6]),
                w[2] * (a * k[TILT + 1] + b * k[TILT + 4] + c * k[TILT + 7]),
            )
        return vec2(a, b)

    @wp.func
    def pull_to_plane(k: row, f: vec3, u: real, v: real, g: vec2):
        """From the distorted plane back to the plane."""
        if distorts == 1:
            j = distort_jacobian(k, f, u, v)
            return vec2(j[0] * g[0] + j[2] * g[1], j[1] * g[0] + j[3] * g[1])
        return g

    @wp.func
    def pull_to_point(e: vec6, x: real, y: real, g: vec2):
        q = g[0] * x + g[1] * y
        twice = real(2.0) * e[1] * q
        return vec3(g[0] * e[0] + twice * x, g[1] * e[0] + twice * y, e[2] * q)

    # And their inverses: cotangents of the direction -> of the plane -> of the distorted plane -> of the pixel.

    @wp.func
    def push_to_plane(e: vec6, p: vec3, c: vec3):
        """From the direction p of depth 1 to its plane coordinates.

        With the gradients a, b of these by p, which are perpendicular to p, and n that of the depth, the cotangent c
        is g0 a + g1 b + (c . p) n.
        """
        if pinhole_rays == 1:
            return vec2(c[0], c[1])
        n = p
        if depth_is_z == 1:
            n = vec3(real(0.0), real(0.0), real(1.0))
        rest = c - n * wp.dot(c, p)
        a = pull_to_point(e, p[0], p[1], vec2(real(1.0), real(0.0)))
        b = pull_to_point(e, p[0], p[1], vec2(real(0.0), real(1.0)))
        scale = real(1.0) / wp.dot(wp.cross(a, b), p)
        return vec2(wp.dot(wp.cross(rest, b), p) * scale, wp.dot(wp.cross(a, rest), p) * scale)

    @wp.func
    def push_to_distorted(k: row, f: vec3, u: real, v: real, g: vec2):
        if distorts == 1:
            j = distort_jacobian(k, f, u, v)
            scale = real(1.0) / (j[0] * j[3] - j[1] * j[2])
            return vec2((j[3] * g[0] - j[2] * g[1]) * scale, (j[0] * g[1] - j[1] * g[0]) * scale)
        return g

    @wp.func
    def push_to_pixel(k: row, p: vec2, g: vec2):
        if tilt == 1:
            a = pull_to_distorted(k, p, real(1.0), real(0.0))
            b = pull_to_distorted(k, p, real(0.0), real(1.0))
            scale = real(1.0) / (a[0] * b[1] - a[1] * b[0])
            return vec2((b[1] * g[0] - b[0] * g[1]) * scale, (a[0] * g[1] - a[1] * g[0]) * scale)
        return vec2(g[0] / k[FOCAL], g[1] / k[FOCAL + 1])

    @wp.func
    def pull_to_parameters(
        k: row, e: vec6, f: vec3, p: vec2, x: real, y: real, gx: real, gy: real, at_p: vec2, at_plane: vec2
    ):
        """Gradients by the parameters, from the cotangents of the pixel, the distorted plane (p) and the plane."""
        out = sum_row()
        u = e[0] * x
        v = e[0] * y
        seen = p
        if tilt == 1:
            w = homography(k, p[0], p[1])
            seen = vec2(w[0], w[1])
            a = gx * k[FOCAL] * w[2]
            b = gy * k[FOCAL + 1] * w[2]
            c = -(a * w[0] + b * w[1])
            out[at_tilt] = a * p[0]
            out[at_tilt + 1] = a * p[1]
            out[at_tilt + 2] = a
            out[at_tilt + 3] = b * p[0]
            out[at_tilt + 4] = b * p[1]
            out[at_tilt + 5] = b
            out[at_tilt + 6] = c * p[0]
            out[at_tilt + 7] = c * p[1]
            out[at_tilt + 8] = c
        out[FOCAL] = gx * seen[0]
        out[FOCAL + 1] = gy * seen[1]
        out[FOCAL + 2] = gx
        out[FOCAL + 3] = gy
        s = u * u + v * v
        by_f = at_p[0] * u + at_p[1] * v
        power = by_f * f[2]
        for i in range(numerator):
            power = power * s
            out[at_numerator + i] = power
        power = -by_f * f[0] * f[2]
        for i in range(denominator):
            power = power * s
            out[at_denominator + i] = power
        if tangential == 1:
            out[at_tangential] = real(2.0) * v * by_f + at_p[1] * s
            out[at_tangential + 1] = real(2.0) * u * by_f + at_p[0] * s
        if prism == 1:
            out[at_prism] = at_p[0] * s
            out[at_prism + 1] = at_p[0] * s * s
            out[at_prism + 2] = at_p[1] * s
            out[at_prism + 3] = at_p[1] * s * s
        q = at_plane[0] * x + at_plane[1] * y
        factor = q * e[3]
        for i in range(lens_parameters):
            if is_polynomial == 1:
                out[at_lens + i] = factor
                factor = factor * e[4]
            else:
                out[at_lens + i] = e[3 + i] * q
        return out

    @wp.func
    def to_camera(k: row, p: vec3):
        """R p."""
        return vec3(
            k[ROTATION] * p[0] + k[ROTATION + 1] * p[1] + k[ROTATION + 2] * p[2],
            k[ROTATION + 3] * p[0] + k[ROTATION + 4] * p[1] + k[ROTATION + 5] * p[2],
            k[ROTATION + 6] * p[0] + k[ROTATION + 7] * p[1] + k[ROTATION + 8] * p[2],
        )

    @wp.func
    def to_world(k: row, p: vec3):
        """The transposed rotation."""
        return vec3(
            k[ROTATION] * p[0] + k[ROTATION + 3] * p[1] + k[ROTATION + 6] * p[2],
            k[ROTATION + 1] * p[0] + k[ROTATION + 4] * p[1] + k[ROTATION + 7] * p[2],
            k[ROTATION + 2] * p[0] + k[ROTATION + 5] * p[1] + k[ROTATION + 8] * p[2],
        )

    @wp.func
    def translation(k: row):
        return vec3(k[TRANSLATION], k[TRANSLATION + 1], k[TRANSLATION + 2])

    @wp.func
    def add_pose(by: sum_row, of_R: vec3, by_R: vec3, of_t: vec3):
        """Gradients by the parameters with those of R, an outer product, and of t filled in."""
        for i in range(3):
            for j in range(3):
                by[at_pose + 3 * i + j] = of_R[i] * by_R[j]
            by[at_pose + 9 + i] = of_t[i]
        return by

    @wp.func
    def depth_of(p: vec3):
        if depth_is_z == 1:
            return p[2]
        return wp.length(p)

    @wp.func
    def load_row(parameters: wp.array2d(dtype=real), camera: int):
        k = row()
        for i in range(NUM_PARAMETERS):
            k[i] = parameters[camera, i]
        return k

    # The inverse of the distortion.

    @wp.func
    def undistorted_radius(k: row, rho: real, largest: real):
        """About the r in [0, largest] with r f(r^2) = rho: Newton's method inside a shrinking bracket."""
        low = real(0.0)
        high = largest
        r = wp.min(rho, largest)
        for _i in range(MAX_BISECTIONS):
            f = radial(k, r * r)
            value = r * f[0]
            if value > rho:
                high = r
            else:
                low = r
            moved = r - (value - rho) / (f[0] + real(2.0) * r * r * f[1])
            if not (moved >= low and moved <= high):
                moved = real(0.5) * (low + high)
            change = wp.abs(moved - r)
            r = moved
            if change <= real(START) * r:
                break
        return r

    @wp.func
    def tabled_start(m: extra, ratios: wp.array2d(dtype=real), camera: int, x: real, y: real):
        """The factor that takes the radial part away, about: right in the image, where the table reaches."""
        place = wp.min((x * x + y * y) / m[EXTENT] * real(TABLE), real(TABLE))
        if not (place >= real(0.0)):
            place = real(0.0)  # NaN
        i = int(wp.min(place, real(last_interval)))
        low = ratios[camera, i]
        return low + (place - real(i)) * (ratios[camera, i + 1] - low)

    @wp.func
    def start(k: row, m: extra, target: vec2):
        """Without the radial part, by iteration."""
        rho = wp.length(target)
        if rho > real(0.0):
            return target * (undistorted_radius(k, rho, m[BRACKET]) / rho)
        return target

    @wp.func
    def newton_step(j: vec4, gap: vec2):
        inverse = real(1.0) / (j[0] * j[3] - j[1] * j[2])
        step = vec2((j[3] * gap[0] - j[1] * gap[1]) * inverse, (j[0] * gap[1] - j[2] * gap[0]) * inverse)
        square = wp.dot(step, step)
        if square > real(largest_square):
            step = step * wp.sqrt(real(largest_square) / square)
        return step

    @wp.func
    def undistort(k: row, m: extra, at: vec2, target: vec2):
        """The plane coordinates, and whether they exist (1 or 0): Newton's method, cut back until the gap closes."""
        f = radial(k, wp.dot(at, at))
        j = distort_jacobian(k, f, at[0], at[1])
        gap = target - distort(k, f, at[0], at[1])
        left = wp.dot(gap, gap)
        tolerance = real(rounding) * wp.max(real(1.0), wp.max(wp.abs(target[0]), wp.abs(target[1])))
        tolerance = tolerance * tolerance
        if not (j[0] * j[3] - j[1] * j[2] > real(0.0)):
            return vec3(at[0], at[1], real(0.0))
        step = vec2(real(0.0), real(0.0))
        closer = int(1)
        for _i in range(MAX_ITERATIONS):
            if not (left > tolerance):
                break
            if closer == 1:
                step = newton_step(j, gap)
            if closer == 0:
                step = step * real(SHRINK)
            if not (wp.dot(step, step) > real(least_square)):
                break
            trial = at + step
            f = radial(k, wp.dot(trial, trial))
            slopes = distort_jacobian(k, f, trial[0], trial[1])
            missing = target - distort(k, f, trial[0], trial[1])
            square = wp.dot(missing, missing)
            closer = int(0)
            if slopes[0] * slopes[3] - slopes[1] * slopes[2] > real(0.0) and square < left:
                at = trial
                left = square
                j = slopes
                gap = missing
                closer = int(1)
        found = real(0.0)
        # 64 times the rounding that stops the iteration: some coefficients amplify it.
        if wp.isfinite(left) and left <= real(4096.0) * tolerance and wp.dot(at, at) <= m[FOLD]:
            found = real(1.0)
        return vec3(at[0], at[1], found)

    @wp.func
    def plain_step(k: row, u: real, v: real, x: real, y: real):
        """One step of Newton's method from (u, v) towards what is distorted to (x, y)."""
        f = radial(k, u * u + v * v)
        j = distort_jacobian(k, f, u, v)
        bent = distort(k, f, u, v)
        gx = x - bent[0]
        gy = y - bent[1]
        inverse = real(1.0) / (j[0] * j[3] - j[1] * j[2])
        return vec2(u + (j[3] * gx - j[1] * gy) * inverse, v + (j[0] * gy - j[2] * gx) * inverse)

    @wp.func
    def is_solution(k: row, m: extra, u: real, v: real, x: real, y: real):
        """1 where Newton's method has arrived and the distortion keeps its orientation before the fold, else 0."""
        square = u * u + v * v
        f = radial(k, square)
        j = distort_jacobian(k, f, u, v)
        bent = distort(k, f, u, v)
        gap = wp.max(wp.abs(x - bent[0]), wp.abs(y - bent[1]))
        size = wp.max(real(1.0), wp.max(wp.abs(x), wp.abs(y)))
        turned = j[0] * j[3] - j[1] * j[2]
        answer = real(0.0)
        if wp.min(wp.min(real(rounding) * size - gap, turned), m[FOLD] - square) >= real(0.0):
            answer = real(1.0)
        return answer

    return SimpleNamespace(
        vec2=vec2,
        vec3=vec3,
        row=row,
        extra=extra,
        scale_of=scale_of,
        direction_of=direction_of,
        radial=radial,
        distort=distort,
        pixel_of=pixel_of,
        pull_to_distorted=pull_to_distorted,
        pull_to_plane=pull_to_plane,
        pull_to_point=pull_to_point,
        pull_to_parameters=pull_to_parameters,
        push_to_plane=push_to_plane,
        push_to_distorted=push_to_distorted,
        push_to_pixel=push_to_pixel,
        inverse_or_zero=inverse_or_zero,
        to_camera=to_camera,
        to_world=to_world,
        translation=translation,
        add_pose=add_pose,
        depth_of=depth_of,
        load_row=load_row,
        undistorted_radius=undistorted_radius,
        tabled_start=tabled_start,
        start=start,
        undistort=undistort,
        plain_step=plain_step,
        is_solution=is_solution,
    )
