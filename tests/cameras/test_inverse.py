"""The inverse that cameras get from the base: folds, seams, long lenses, pixels without a direction."""

import math

import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, OpenCVCamera

ZERO = torch.zeros(3, dtype=torch.float64)


class Panorama(Camera):
    """Equirectangular, all around: longitude across the image, latitude down."""

    def __init__(self, *, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> None:
        super().__init__(size=size, t=torch.zeros(3, dtype=dtype))

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        longitude, latitude = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
        u, v = 0.5 + longitude / (2 * math.pi), 0.5 + latitude / math.pi
        return torch.stack((u * self.width, v * self.height), dim=-1)


class Polynomial(Camera):
    """A pinhole with radial distortion 1 + k r^2, written without a guard: it folds back, and shows what is behind."""

    def __init__(self, f: object, k: object, *, size: tuple[int, int]) -> None:
        super().__init__(size=size, t=ZERO, f=f, k=k)  # type: ignore[arg-type]

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
        scale = self.f * (1 + self.k * (x * x + y * y))
        return torch.stack((scale * x + self.width / 2, scale * y + self.height / 2), dim=-1)


class Circle(Camera):
    """Orthographic fisheye: the half sphere ahead fills a circle, what lies behind repeats it."""

    def __init__(self, f: object, *, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> None:
        super().__init__(size=size, t=torch.zeros(3, dtype=dtype), f=f)  # type: ignore[arg-type]

    def to_pixels(self, points: Tensor) -> Tensor:
        unit = points / points.norm(dim=-1, keepdim=True)
        return self.f[..., None] * unit[..., :2] + points.new_tensor([self.width / 2, self.height / 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_panorama_has_a_ray_at_every_pixel_seam_and_poles_included(dtype: torch.dtype) -> None:
    camera = Panorama(size=(64, 128), dtype=dtype)
    xy = camera.pixel_centers()
    _, directions = camera.rays(xy)
    longitude = (xy[..., 0] / 128 - 0.5) * 2 * math.pi
    latitude = (xy[..., 1] / 64 - 0.5) * math.pi
    expected = torch.stack((latitude.cos() * longitude.sin(), latitude.sin(), latitude.cos() * longitude.cos()), dim=-1)
    # Angles of pixels, 0.05 rad, known to the rounding of numbers up to pi.
    torch.testing.assert_close(directions, expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.2])
def test_generic_inverse_finds_the_branch_ahead_like_the_opencv_camera(k: float) -> None:
    size = (50, 70)
    camera = Polynomial(60.0, k, size=size)
    oracle = OpenCVCamera(60.0, 60.0, 35.0, 25.0, (k, 0.0, 0.0, 0.0), size=size, t=ZERO)
    _, directions = camera.rays(camera.pixel_centers())
    _, expected = oracle.rays(camera.pixel_centers())
    expected = expected / expected.norm(dim=-1, keepdim=True)
    # Pixels beyond the fold have no ray in either.
    torch.testing.assert_close(directions, expected, rtol=0, atol=1e-9, equal_nan=True)
    assert bool(directions.isnan().any()) == (k < 0)


def test_points_behind_or_beyond_the_fold_are_not_valid() -> None:
    camera = Polynomial(60.0, -0.3, size=(50, 70))
    end = (1 / 0.9) ** 0.5
    points = torch.tensor(
        [[0.1, 0.2, 1.0], [end - 0.01, 0.0, 1.0], [end + 0.01, 0.0, 1.0], [0.1, 0.2, -1.0], [0.0, 0.0, 0.0]]
    )
    assert camera.valid(points.double()).tolist() == [True, True, False, False, False]


def test_pixels_outside_the_image_circle_have_no_ray_and_no_gradient() -> None:
    f = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    camera = Circle(f, size=(64, 64))
    xy = camera.pixel_centers().requires_grad_()
    _, directions = camera.rays(xy)
    inside = (xy - 32).detach().norm(dim=-1) < 20
    assert torch.equal(~directions.isnan().any(-1), inside)
    uv = (xy.detach() - 32) / 20
    expected = torch.cat((uv, (1 - uv.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()), dim=-1)
    torch.testing.assert_close(directions[inside], expected[inside], rtol=0, atol=1e-9)
    directions[inside].sum().backward()
    assert xy.grad is not None
    assert (xy.grad[~inside] == 0).all()
    assert f.grad is not None
    assert f.grad.isfinite()


def test_lens_of_a_tenth_of_a_degree_converges() -> None:
    camera = Polynomial(40_000.0, 0.1, size=(64, 64))
    xy = camera.pixel_centers()
    origins, directions = camera.rays(xy)
    torch.testing.assert_close(camera.project(origins + directions)[0], xy, rtol=0, atol=1e-9)


def test_a_camera_that_mirrors_has_rays_too() -> None:
    camera = Circle(torch.tensor(-40.0), size=(32, 32))  # turned by 180 degrees
    flipped = Polynomial(torch.tensor(40.0), 0.0, size=(32, 32))
    flipped.to_pixels = lambda points: Polynomial.to_pixels(flipped, points * points.new_tensor([-1.0, 1.0, 1.0]))  # type: ignore[method-assign]
    for lens in (camera, flipped):
        xy = lens.pixel_centers()
        torch.testing.assert_close(lens.project(lens.rays(xy)[1])[0], xy, rtol=0, atol=1e-9)


def test_a_camera_that_shows_nothing_has_no_rays() -> None:
    camera = Circle(torch.tensor(0.0), size=(8, 8))
    assert camera.rays(camera.pixel_centers())[1].isnan().all()


def test_gradient_is_the_implicit_one_in_float32_too() -> None:
    # r (1 + k r^2) = u: dr/dk = -r^3 / (1 + 3 k r^2), on the x axis with f = 1.
    k = torch.tensor(0.2, requires_grad=True)
    camera = Polynomial(torch.tensor(100.0), k, size=(100, 100)).to(dtype=torch.float32)
    _, d = camera.rays(torch.tensor([[110.0, 50.0]]))
    r = d[0, 0] / d[0, 2]
    r.backward()
    value = float(r.detach())
    assert k.grad is not None
    assert math.isclose(float(k.grad), -(value**3) / (1 + 0.6 * value**2), rel_tol=1e-5)


@pytest.mark.parametrize("lens", ["custom", "opencv"])
def test_cameras_of_a_batch_get_the_gradients_they_get_alone(lens: str) -> None:
    xy = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 60
    weights = torch.rand(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradient(f: torch.Tensor, k: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dist = torch.stack([k, 0 * k, 0 * k, 0 * k], dim=-1)
        opencv = OpenCVCamera(f, f, 30.0, 30.0, dist, size=(60, 60))
        camera = Polynomial(f, k, size=(60, 60)) if lens == "custom" else opencv
        directions = camera.rays(xy)[1]
        return torch.autograd.grad((directions * weights).sum(), [f, k])

    f = torch.tensor([80.0, 90.0], dtype=torch.float64, requires_grad=True)
    k = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    together = gradient(f, k, weights)
    for i in range(2):
        alone = gradient(f[i].detach().requires_grad_(), k[i].detach().requires_grad_(), weights[i])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-9, atol=1e-12)  # 150 terms in float64


def test_the_inverse_is_the_same_bits_every_time() -> None:
    camera = Polynomial(60.0, 0.2, size=(50, 70))
    first = camera.rays(camera.pixel_centers())[1]
    assert torch.equal(first, camera.rays(camera.pixel_centers())[1])
