"""Every camera model against formulas written down independently, in numpy, from COLMAP's sources and the papers."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.polynomial import polynomial as poly
from torch import Tensor

from diffrender.cameras import (
    Camera,
    CylindricalCamera,
    DoubleSphereCamera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    WeakPerspectiveCamera,
    kernel_camera,
)

Array = np.ndarray
SIZE = (480, 640)
FOCAL = (300.0, 310.0, 320.3, 239.1)
# 300 px times the rounding of a few dozen operations, and of float32.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


def colmap_radial(x: Array, y: Array, k: Array) -> tuple[Array, Array]:
    r2 = x * x + y * y
    radial = sum(c * r2 ** (i + 1) for i, c in enumerate(k))
    return x + x * radial, y + y * radial


def colmap_opencv(x: Array, y: Array, k: Array) -> tuple[Array, Array]:
    k1, k2, p1, p2 = k
    r2 = x * x + y * y
    radial = k1 * r2 + k2 * r2 * r2
    return x + x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y + y * radial + 2 * p2 * x * y + p1 * (
        r2 + 2 * y * y
    )


def colmap_full_opencv(x: Array, y: Array, k: Array) -> tuple[Array, Array]:
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def bent(x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """The equidistant plane: an angle in the direction of (x, y)."""
    r = np.hypot(x, y)
    theta = np.arctan2(r, z)
    return theta * x / r, theta * y / r


def colmap_thin_prism(u: Array, v: Array, k: Array) -> tuple[Array, Array]:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = k
    t2 = u * u + v * v
    radial = k1 * t2 + k2 * t2**2 + k3 * t2**3 + k4 * t2**4
    du = u * radial + 2 * p1 * u * v + p2 * (t2 + 2 * u * u) + sx1 * t2
    dv = v * radial + 2 * p2 * u * v + p1 * (t2 + 2 * v * v) + sy1 * t2
    return u + du, v + dv


def colmap_fov(x: Array, y: Array, z: Array, omega: float) -> tuple[Array, Array]:
    r = np.hypot(x / z, y / z)
    factor = np.arctan(r * 2 * np.tan(omega / 2)) / (r * omega)
    return factor * x / z, factor * y / z


def mei(x: Array, y: Array, z: Array, xi: float) -> tuple[Array, Array]:
    n = np.sqrt(x * x + y * y + z * z)
    return (x / n) / (z / n + xi), (y / n) / (z / n + xi)


def double_sphere(x: Array, y: Array, z: Array, xi: float, alpha: float) -> tuple[Array, Array]:
    d1 = np.sqrt(x * x + y * y + z * z)
    d2 = np.sqrt(x * x + y * y + (xi * d1 + z) ** 2)
    below = alpha * d2 + (1 - alpha) * (xi * d1 + z)
    return x / below, y / below


def eucm(x: Array, y: Array, z: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    d = np.sqrt(beta * (x * x + y * y) + z * z)
    below = alpha * d + (1 - alpha) * z
    return x / below, y / below


Formula = Callable[[Array, Array, Array], tuple[Array, Array]]
FULL = (0.3, 0.1, 1e-3, -2e-3, 0.01, 0.5, 0.1, 0.02)
PRISM = (0.05, -0.01, 2e-3, -1e-3, 2e-3, -3e-4, 3e-3, -2e-3)
FISHEYE = (0.05, -0.01, 0.002, -0.0003)
MEI = (-0.05, 0.01, 2e-3, -1e-3)
# Name -> camera class, its parameters after fx, fy, cx, cy, the widest angle to the axis in degrees, the formula.
MODELS: dict[str, tuple[Callable[..., Camera], tuple, float, Formula]] = {
    "SIMPLE_RADIAL": (OpenCVCamera, ((-0.2, 0, 0, 0),), 45, lambda x, y, z: colmap_radial(x / z, y / z, [-0.2])),
    "RADIAL": (OpenCVCamera, ((-0.2, 0.05, 0, 0),), 45, lambda x, y, z: colmap_radial(x / z, y / z, [-0.2, 0.05])),
    "OPENCV": (OpenCVCamera, (FULL[:4],), 45, lambda x, y, z: colmap_opencv(x / z, y / z, FULL[:4])),
    "FULL_OPENCV": (OpenCVCamera, (FULL,), 45, lambda x, y, z: colmap_full_opencv(x / z, y / z, FULL)),
    "SIMPLE_RADIAL_FISHEYE": (FisheyeCamera, ((0.05,),), 150, lambda x, y, z: colmap_radial(*bent(x, y, z), [0.05])),
    "RADIAL_FISHEYE": (
        FisheyeCamera,
        (FISHEYE[:2],),
        110,
        lambda x, y, z: colmap_radial(*bent(x, y, z), FISHEYE[:2]),
    ),
    "OPENCV_FISHEYE": (FisheyeCamera, (FISHEYE,), 110, lambda x, y, z: colmap_radial(*bent(x, y, z), FISHEYE)),
    "equidistant": (FisheyeCamera, ((),), 170, bent),
    "FOV": (FOVCamera, (0.9,), 89, lambda x, y, z: colmap_fov(x, y, z, 0.9)),
    "FOV, nearly a pinhole": (FOVCamera, (1e-3,), 80, lambda x, y, z: colmap_fov(x, y, z, 1e-3)),
    "THIN_PRISM_FISHEYE": (
        ThinPrismFisheyeCamera,
        (PRISM,),
        100,
        lambda x, y, z: colmap_thin_prism(*bent(x, y, z), PRISM),
    ),
    "Mei": (UnifiedCamera, (0.8, MEI), 110, lambda x, y, z: colmap_opencv(*mei(x, y, z, 0.8), MEI)),
    "Mei, a mirror": (UnifiedCamera, (1.4,), 130, lambda x, y, z: mei(x, y, z, 1.4)),
    "double sphere": (DoubleSphereCamera, (-0.24, 0.57), 100, lambda x, y, z: double_sphere(x, y, z, -0.24, 0.57)),
    "double sphere, wide": (DoubleSphereCamera, (0.3, 0.4), 120, lambda x, y, z: double_sphere(x, y, z, 0.3, 0.4)),
    "EUCM": (EUCMCamera, (0.6, 1.1), 120, lambda x, y, z: eucm(x, y, z, 0.6, 1.1)),
    "EUCM, a pole": (EUCMCamera, (0.3, 0.9), 100, lambda x, y, z: eucm(x, y, z, 0.3, 0.9)),
}


@pytest.fixture(autouse=True, params=[1 << 40, 1], ids=["plain", "kernel"])
def _plain_or_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_camera, "MANY", request.param)


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str, dtype: torch.dtype = torch.float64) -> Camera:
    model, parameters, _, _ = MODELS[name]
    return model(*FOCAL, *parameters, size=SIZE, t=torch.zeros(3, dtype=dtype))


def cone(degrees: float, count: int = 10_000) -> Tensor:
    """Random points up to this angle from the axis, some near it, at distances 0.5 to 5."""
    generator = torch.Generator().manual_seed(0)
    theta, phi, distance = torch.rand(3, count, generator=generator, dtype=torch.float64)
    theta, phi, distance = math.radians(degrees) * theta, 2 * math.pi * phi, 0.5 + 4.5 * distance
    ray = (torch.sin(theta) * torch.cos(phi), torch.sin(theta) * torch.sin(phi), torch.cos(theta))
    return distance[:, None] * torch.stack(ray, dim=-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_model_is_the_published_formula_at_ten_thousand_points(name: str, dtype: torch.dtype) -> None:
    _, _, degrees, formula = MODELS[name]
    points = cone(degrees)
    u, v = formula(*points.to(dtype).double().numpy().T)
    fx, fy, cx, cy = FOCAL
    xy, _ = build(name, dtype).project(points.to(dtype))
    expected = torch.from_numpy(np.stack((fx * u + cx, fy * v + cy), axis=-1))
    # What is far outside of the image has no smaller relative error than what is inside.
    torch.testing.assert_close(xy.double(), expected, rtol=TOLERANCE[dtype] / 640, atol=TOLERANCE[dtype])


def test_points_of_the_cone_are_valid_and_come_back(name: str) -> None:
    camera, points = build(name), cone(MODELS[name][2])
    assert camera.valid(points).all()
    xy, depth = camera.project(points)
    torch.testing.assert_close(camera.unproject(xy, depth), points, rtol=0, atol=1e-10)
    again, _ = camera.project(camera.unproject(xy, depth))
    torch.testing.assert_close(again, xy, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (FisheyeCamera, (FISHEYE,)),
        (FisheyeCamera, ((-0.1, 0.02),)),
        (UnifiedCamera, (1.4,)),
        (DoubleSphereCamera, (-0.24, 0.57)),
        (DoubleSphereCamera, (0.5, 0.7)),
        (EUCMCamera, (0.6, 1.1)),
        (EUCMCamera, (0.9, 0.5)),
        (OpenCVCamera, ((-0.3, 0.05, 0, 0, 0.01),)),
    ],
)
def test_what_is_valid_ends_where_the_radius_stops_growing(model: Callable[..., Camera], parameters: tuple) -> None:
    camera = model(*FOCAL, *parameters, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    theta = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)[1:-1]
    direction = torch.stack((torch.sin(theta) * 0.6, torch.sin(theta) * 0.8, torch.cos(theta)), dim=-1)
    middle = torch.tensor(FOCAL[2:], dtype=torch.float64)
    radius = (camera.project(direction)[0] - middle).norm(dim=-1)
    growing = (torch.diff(radius, prepend=torch.zeros(1)) > 0).int().cummin(0).values
    seen = camera.valid(direction)
    assert seen[0]
    assert abs(int(seen.sum()) - int(growing.sum())) <= 2  # angles of 1.6e-4 rad, one at each side
    assert seen[: int(seen.sum())].all()


@pytest.mark.parametrize(
    ("model", "parameters", "end"),
    [
        (UnifiedCamera, (0.8,), math.acos(-0.8)),
        (EUCMCamera, (0.25, 1.0), math.acos(-1 / 3)),
        (DoubleSphereCamera, (0.5, 0.0), math.acos(-0.5)),
        (DoubleSphereCamera, (0.5, 1 / 3), math.acos(-0.375 - 0.5 * (1 - 0.25 * 0.75) ** 0.5)),
        (OpenCVCamera, ((0.1, 0.0, 0.0, 0.0),), math.pi / 2),
    ],
)
def test_lenses_without_a_fold_end_where_their_radius_is_infinite(
    model: Callable[..., Camera], parameters: tuple, end: float
) -> None:
    camera = model(*FOCAL, *parameters, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    # A thousand focal lengths aside, the plane ends: not before the last two thousandths.
    theta = torch.tensor([0.1, end - 2e-3, end + 1e-6], dtype=torch.float64)
    direction = torch.stack((torch.sin(theta), torch.zeros_like(theta), torch.cos(theta)), dim=-1)
    assert camera.valid(direction).tolist() == [True, True, False]
    assert camera.project(direction)[0].isfinite().all()


STRONG: dict[str, tuple[Callable[..., Camera], tuple]] = {
    "barrel": (OpenCVCamera, ((-0.45, 0.3, 5e-3, -4e-3, -0.1),)),
    "barrel that folds in the image": (OpenCVCamera, ((-0.4, 0.0, 1e-3, 1e-3),)),
    "pincushion": (OpenCVCamera, ((0.6, 0.4, 0.01, -0.01),)),
    "rational": (OpenCVCamera, ((12.0, 5.0, 1e-3, -1e-3, 0.3, 12.5, 9.0, 2.0),)),
    "rational, a pole": (OpenCVCamera, ((0.0, 0.0, 0.0, 0.0, 0.0, -0.3, 0.0, 0.0),)),
    "prism and tilt": (OpenCVCamera, ((*FULL, 0.02, -0.01, 0.03, 0.01, 0.15, -0.2),)),
    "fisheye": (FisheyeCamera, ((-0.15, 0.05, -0.02, 0.003),)),
    "thin prism": (ThinPrismFisheyeCamera, ((0.1, -0.05, 0.01, -0.01, 0.01, -1e-3, 0.02, -0.03),)),
    "mirror": (UnifiedCamera, (1.8, (-0.3, 0.1, 5e-3, 5e-3))),
    "parabola": (UnifiedCamera, (1.0, (0.2, -0.05, -5e-3, 5e-3))),
    "double sphere": (DoubleSphereCamera, (0.9, 0.8)),
    "double sphere, a pole": (DoubleSphereCamera, (-0.5, 0.2)),
    "EUCM": (EUCMCamera, (0.95, 2.0)),
    "FOV": (FOVCamera, (2.5,)),
}


@pytest.mark.parametrize("lens", list(STRONG))
def test_every_pixel_with_a_ray_comes_back_through_strong_lenses(lens: str) -> None:
    model, parameters = STRONG[lens]
    camera = model(*FOCAL, *parameters, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    y, x = (torch.linspace(0, n, 121, dtype=torch.float64) for n in SIZE)  # to the corners of the corner pixels
    xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    _, directions = camera.rays(xy)
    seen = directions.isfinite().all(-1)
    assert seen.double().mean() > 0.3
    torch.testing.assert_close(camera.project(directions[seen])[0], xy[seen], rtol=0, atol=1e-9)
    # What has no ray lies beyond the image of everything that is valid.
    ring = cone(179.0, 50_000)
    valid = ring[camera.valid(ring)]
    pixel = camera.project(valid)[0]
    inside = ((pixel >= 0) & (pixel <= torch.tensor([640.0, 480.0]))).all(-1)
    again, _ = camera.project(camera.rays(pixel[inside])[1])
    torch.testing.assert_close(again, pixel[inside], rtol=0, atol=1e-9)


def test_pixels_are_seen_exactly_where_valid_points_project_to(name: str) -> None:
    camera = build(name)
    directions = camera.rays(camera.pixel_centers().reshape(-1, 2))[1]
    seen = directions.isfinite().all(-1)
    assert camera.valid(directions[seen]).all()
    assert seen.any()


@pytest.mark.skipif(not hasattr(cv2, "omnidir"), reason="needs opencv-contrib-python-headless instead of opencv's own")
@pytest.mark.parametrize("xi", [0.4, 1.0, 1.6])
def test_unified_camera_is_opencvs_omnidir_half_a_pixel_aside(xi: float) -> None:
    fx, fy, cx, cy = FOCAL
    K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]])
    rvec, tvec = np.array([0.2, -0.3, 0.1]), np.array([0.1, 0.2, 0.5])
    camera = UnifiedCamera(
        *FOCAL, xi, MEI, size=SIZE, R=torch.from_numpy(cv2.Rodrigues(rvec)[0]), t=torch.from_numpy(tvec)
    )
    points = camera.camera_to_world(cone(100))
    expected, _ = cv2.omnidir.projectPoints(points.numpy()[:, None], rvec, tvec, K, xi, np.array(MEI))
    torch.testing.assert_close(camera.project(points)[0] - 0.5, torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-9)
    pixels = np.random.default_rng(0).uniform((0, 0), (639, 479), (10_000, 2))
    rays = cv2.omnidir.undistortPoints(pixels[:, None], K, np.array(MEI), np.array([xi]), np.eye(3))[:, 0]
    _, ours = camera.local_rays(torch.from_numpy(pixels + 0.5))
    seen = ours.isfinite().all(-1)  # a mirror's image is a circle
    assert seen.double().mean() > (0.5 if xi > 1 else 0.99)
    # OpenCV iterates 20 times, to about 1e-6 px.
    plane = (ours[:, :2] / ours[:, 2:])[seen]
    torch.testing.assert_close(plane, torch.from_numpy(rays)[seen], rtol=1e-6, atol=1e-8)


def test_the_four_models_of_one_real_lens_agree_within_a_pixel_at_30_degrees(shared_data: Path) -> None:
    def read(name: str) -> dict[str, float]:
        text = (shared_data / "omni" / f"{name}.yml").read_text()
        return {key: float(value) for key, value in re.findall(r"(\w+):\s+([-\d.e]+)", text)}

    def camera(name: str, make: Callable[..., Camera], *keys: str, vector: bool = False) -> Camera:
        p = read(name)
        more = tuple(p[key] for key in keys)
        focal = (p["fx"], p["fy"], p["cx"] + 0.5, p["cy"] + 0.5)
        return make(*focal, *((more,) if vector else more), size=(480, 752), t=torch.zeros(3, dtype=torch.float64))

    cameras = [
        camera("RadTan", OpenCVCamera, "k1", "k2", "p1", "p2", "k3", vector=True),
        camera("KB", FisheyeCamera, "k1", "k2", "k3", "k4", vector=True),
        camera("DS", DoubleSphereCamera, "xi", "alpha"),
        camera("EUCM", EUCMCamera, "alpha", "beta"),
    ]
    turn = torch.linspace(0, 2 * math.pi, 360, dtype=torch.float64)
    sine = math.sin(math.radians(30))
    ray = torch.stack((sine * turn.cos(), sine * turn.sin(), torch.full_like(turn, math.cos(math.radians(30)))), dim=-1)
    # From the image of the axis: the calibrations also differ by half a pixel in where they put that.
    axis = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    xy = torch.stack([camera.project(ray)[0] - camera.project(axis)[0] for camera in cameras])
    apart = (xy[:, None] - xy).norm(dim=-1).amax(-1)
    assert apart.max() < 1.0
    assert apart[0, 1:].min() > 0.01  # they are four models


def test_a_unified_camera_without_xi_is_the_opencv_camera_and_spheres_contain_each_other() -> None:
    points = cone(60, 100)

    def project(model: Callable[..., Camera], *parameters: object) -> Tensor:
        return model(*FOCAL, *parameters, size=SIZE).project(points)[0]

    same = [
        (project(UnifiedCamera, 0.0, FULL[:4]), project(OpenCVCamera, FULL[:4])),
        (project(DoubleSphereCamera, 0.0, 0.6), project(EUCMCamera, 0.6, 1.0)),
        (project(DoubleSphereCamera, 0.5, 0.0), project(UnifiedCamera, 0.5)),
        (project(FOVCamera, 0.0), project(PinholeCamera)),
        (project(ThinPrismFisheyeCamera, (0.05, -0.01, 0, 0, 0.002, -0.0003, 0, 0)), project(FisheyeCamera, FISHEYE)),
    ]
    for one, other in same:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-3)  # float32 parameters


def test_fov_camera_is_smooth_through_the_pinhole_and_past_90_degrees() -> None:
    omega = torch.tensor([0.0, 1e-4, 0.3], dtype=torch.float64, requires_grad=True)
    camera = FOVCamera(100.0, 100.0, 0.0, 0.0, omega, size=SIZE)
    xy, _ = camera.project(torch.tensor([[0.5, 0.0, 1.0]], dtype=torch.float64))
    assert math.isclose(float(xy[0, 0, 0].detach()), 50.0, rel_tol=1e-15)
    (slope,) = torch.autograd.grad(xy[..., 0].sum(), omega)
    # 50 (1 + omega^2 / 12 - omega^2 0.25 / 3): even in omega.
    torch.testing.assert_close(slope[:2], torch.tensor([0.0, 0.0]).double(), rtol=0, atol=1e-4)
    wide = FOVCamera(100.0, 100.0, 0.0, 0.0, 1.0, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    behind = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    # atan2(2 tan(1 / 2), -1)
    expected = 100 * math.atan2(2 * math.tan(0.5), -1.0)
    assert math.isclose(float(wide.project(behind)[0][0, 0]), expected, rel_tol=1e-14)
    torch.testing.assert_close(wide.unproject(*wide.project(behind)), behind, rtol=0, atol=1e-12)


SCARAMUZZA = (-250.0, 0.0, 9e-4, -3e-7, 1.2e-9)
AFFINE = (0.999, 2e-3, -1e-3)  # c, d, e


def ocam_to_ray(row: Array, column: Array, xc: float, yc: float) -> Array:
    """cam2world of OCamCalib: rays in its own axes, pixels counted from 0."""
    c, d, e = AFFINE
    x, y = np.linalg.inv([[c, d], [e, 1.0]]) @ np.stack((row - xc, column - yc))
    return np.stack((x, y, poly.polyval(np.hypot(x, y), SCARAMUZZA)), axis=-1)


def ocam_to_pixel(point: Array, inverse: Array, xc: float, yc: float) -> tuple[Array, Array]:
    """world2cam of OCamCalib, with its polynomial of the angle."""
    c, d, e = AFFINE
    norm = np.hypot(point[:, 0], point[:, 1])
    rho = poly.polyval(np.arctan(point[:, 2] / norm), inverse)
    x, y = point[:, 0] / norm * rho, point[:, 1] / norm * rho
    return c * x + d * y + xc, e * x + y + yc


def test_scaramuzza_camera_is_ocamcalib_with_its_axes_turned() -> None:
    xc, yc = 238.6, 319.8  # row and column
    camera = ScaramuzzaCamera(yc + 0.5, xc + 0.5, SCARAMUZZA, *AFFINE, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    rng = np.random.default_rng(0)
    row, column = rng.uniform(0, 479, 10_000), rng.uniform(0, 639, 10_000)
    rays = ocam_to_ray(row, column, xc, yc)
    ours = np.stack((rays[:, 1], rays[:, 0], -rays[:, 2]), axis=-1)
    points = torch.from_numpy(ours) * 0.01
    xy = torch.from_numpy(np.stack((column, row), axis=-1)) + 0.5
    torch.testing.assert_close(camera.project(points)[0], xy, rtol=0, atol=1e-9)
    expected = points / points.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(camera.rays(xy)[1], expected, rtol=0, atol=1e-14)
    in32 = camera.to(dtype=torch.float32)
    torch.testing.assert_close(in32.project(points.float())[0], xy.float(), rtol=0, atol=1e-3)
    # And the toolbox's other polynomial, fitted, brings its rays back.
    again = ocam_to_pixel(rays, camera.inverse_polynomial(14).numpy(), xc, yc)
    np.testing.assert_allclose(np.stack(again), np.stack((row, column)), rtol=0, atol=0.01)
    # It is of the lens, whatever was cut out of its image.
    cut = camera.crop(200, 300, 20, 30).resize((40, 60)).inverse_polynomial(14)
    again = ocam_to_pixel(rays, cut.numpy(), xc, yc)
    np.testing.assert_allclose(np.stack(again), np.stack((row, column)), rtol=0, atol=0.01)


def test_scaramuzza_camera_ends_where_its_angle_stops_growing() -> None:
    # -10 - 0.025 rho^2: w + rho w' ... the angle atan2(rho, 10 + 0.025 rho^2) grows up to rho = 20.
    camera = ScaramuzzaCamera(0.0, 0.0, (-10.0, 0.0, -0.025), size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    rho = torch.tensor([19.99, 20.01], dtype=torch.float64)
    xy = torch.stack((rho, torch.zeros_like(rho)), dim=-1)
    assert camera.rays(xy)[1].isnan().any(-1).tolist() == [False, True]
    angle = math.atan2(20, 20)
    theta = torch.tensor([angle - 1e-6, angle + 1e-6, 3.0], dtype=torch.float64)
    points = torch.stack((torch.sin(theta), torch.zeros_like(theta), torch.cos(theta)), dim=-1)
    assert camera.valid(points).tolist() == [True, False, False]
    assert camera.project(points)[0].isfinite().all()


def test_panoramas_have_the_seam_behind_and_the_poles_above_and_below() -> None:
    camera = EquirectangularCamera(size=(90, 180)).to(dtype=torch.float64)
    points = torch.tensor(
        [[-1e-9, 0, -1], [1e-9, 0, -1], [0, 0, 1], [-1, 0, 0], [0, 1, 1e-5], [0, -1, 1e-5], [0, 1, 1]],
        dtype=torch.float64,
    )
    xy, _ = camera.project(points)
    expected = [[0, 45], [180, 45], [90, 45], [45, 45], [90, 90], [90, 0], [90, 67.5]]
    torch.testing.assert_close(xy, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-3)
    assert camera.valid(points).all()
    assert not camera.valid(torch.tensor([[0.0, 1.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.0]])).any()
    outside = torch.tensor([[-1.0, 45.0], [181.0, 45.0], [90.0, -1.0], [90.0, 91.0]], dtype=torch.float64)
    assert camera.rays(outside)[1].isnan().all()

    tall = CylindricalCamera(size=(90, 180)).to(dtype=torch.float64)
    xy, _ = tall.project(points[[0, 1, 2, 3, 6]])
    expected = [[0, 45], [180, 45], [90, 45], [45, 45], [90, 45 + 180 / (2 * math.pi)]]
    torch.testing.assert_close(xy, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)
    assert not tall.valid(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).any()
    assert tall.rays(outside[:2])[1].isnan().all()
    assert tall.rays(outside[2:])[1].isfinite().all()  # a cylinder goes on


def test_a_partial_panorama_is_a_crop_of_the_whole() -> None:
    whole = EquirectangularCamera(size=(90, 180)).to(dtype=torch.float64)
    part = EquirectangularCamera.from_extent((-90, 0), (-30, 60), size=(90, 90)).to(dtype=torch.float64)
    crop = whole.crop(30, 45, 45, 45).resize((90, 90))
    xy = part.pixel_centers()
    torch.testing.assert_close(part.rays(xy)[1], crop.rays(xy)[1], rtol=0, atol=1e-6)  # float32 parameters
    band = CylindricalCamera.from_extent((-90, 90), size=(50, 100))
    assert math.isclose(float(band.fx), 100 / math.pi, rel_tol=1e-6)


def test_weak_perspective_is_the_pinhole_in_the_plane_of_its_distance() -> None:
    weak, pinhole = WeakPerspectiveCamera(*FOCAL, 4.0, size=SIZE), PinholeCamera(*FOCAL, size=SIZE)
    points = torch.tensor([[0.3, -0.2, 4.0], [-1.0, 0.5, 4.0]])
    torch.testing.assert_close(weak.project(points), pinhole.project(points))
    scaled = OrthographicCamera(FOCAL[0] / 4, FOCAL[1] / 4, *FOCAL[2:], size=SIZE)
    points = points * torch.tensor([1.0, 1.0, 0.3])
    torch.testing.assert_close(weak.project(points), scaled.project(points))
    torch.testing.assert_close(weak.linear_rays().at(torch.ones(1, 2)), scaled.linear_rays().at(torch.ones(1, 2)))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PinholeCamera(0.0, 1.0, 0.0, 0.0, size=SIZE), "fx must be other than 0; got 0"),
        (lambda: UnifiedCamera(1.0, 1.0, 0.0, 0.0, -1.0, size=SIZE), "xi must be above -1; got -1"),
        (lambda: UnifiedCamera(1.0, 1.0, 0.0, 0.0, 1.0, (0.0,) * 5, size=SIZE), r"dist must hold 4.*got 5"),
        (lambda: DoubleSphereCamera(1.0, 1.0, 0.0, 0.0, 1.5, 0.5, size=SIZE), "xi must be above -1 and at most 1"),
        (lambda: DoubleSphereCamera(1.0, 1.0, 0.0, 0.0, 0.5, 1.5, size=SIZE), "alpha must be from 0 to 1; got 1.5"),
        (lambda: EUCMCamera(1.0, 1.0, 0.0, 0.0, -0.1, 1.0, size=SIZE), "alpha must be from 0 to 1; got -0.1"),
        (lambda: EUCMCamera(1.0, 1.0, 0.0, 0.0, 0.5, 0.0, size=SIZE), "beta must be above 0; got 0"),
        (lambda: FOVCamera(1.0, 1.0, 0.0, 0.0, 3.2, size=SIZE), "omega must be an angle from 0 to pi"),
        (lambda: ThinPrismFisheyeCamera(1.0, 1.0, 0.0, 0.0, (0.0,) * 4, size=SIZE), "dist must hold the 8"),
        (lambda: WeakPerspectiveCamera(1.0, 1.0, 0.0, 0.0, 0.0, size=SIZE), "distance must be above 0"),
        (lambda: ScaramuzzaCamera(0.0, 0.0, (1.0, 0.0), size=SIZE), "must be negative.*z points backwards"),
        (lambda: ScaramuzzaCamera(0.0, 0.0, (-1.0,), size=SIZE), "at least"),
        (lambda: ScaramuzzaCamera(0.0, 0.0, (-1.0, 0.0), 0.5, 0.5, 1.0, size=SIZE), "c must be other than d e"),
        (lambda: EquirectangularCamera.from_extent((-200, 0), size=SIZE), "longitude must be two growing angles"),
        (lambda: EquirectangularCamera.from_extent((-20, 0), (30, -30), size=SIZE), "latitude must be two growing"),
        (lambda: CylindricalCamera.from_extent((20, 20), size=SIZE), "longitude must be two growing"),
    ],
)
def test_nonsense_parameters_are_named(make: Callable[[], Camera], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
