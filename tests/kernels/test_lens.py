"""The kernels of lens cameras against the cameras' own plain-torch formulas."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    Camera,
    DoubleSphereCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    kernel_camera,
    so3_exp,
    stack_cameras,
)

SIZE = (480, 640)
FULL = (0.3, 0.1, 1e-3, -2e-3, 0.01, 0.5, 0.1, 0.02)
LENSES: dict[str, tuple[Callable[..., Camera], tuple]] = {
    "barrel that folds in the image": (OpenCVCamera, ((-0.4, 0.0, 1e-3, 1e-3),)),
    "rational": (OpenCVCamera, (FULL,)),
    "prism and tilt": (OpenCVCamera, ((*FULL, 0.02, -0.01, 0.03, 0.01, 0.15, -0.2),)),
    "fisheye": (FisheyeCamera, ((-0.15, 0.05, -0.02, 0.003),)),
    "FOV": (FOVCamera, (0.9,)),
    "mirror": (UnifiedCamera, (1.8, (-0.3, 0.1, 5e-3, 5e-3))),
    "EUCM": (EUCMCamera, (0.95, 2.0)),
    "OCamCalib": (ScaramuzzaCamera, ((-250.0, 0.0, 9e-4, -3e-7, 1.2e-9), 0.999, 2e-3, -1e-3)),
    "OCamCalib, an end": (ScaramuzzaCamera, ((-250.0, 0.0, -1e-3), 0.999, 2e-3, -1e-3)),
}
MORE: dict[str, tuple[Callable[..., Camera], tuple]] = {
    "equidistant": (FisheyeCamera, ((),)),
    "five coefficients": (OpenCVCamera, ((-0.3, 0.1, 1e-3, -2e-3, -0.01),)),
    "prism": (OpenCVCamera, ((*FULL, 0.02, -0.01, 0.03, 0.01),)),
    "thin prism": (ThinPrismFisheyeCamera, ((0.1, -0.05, 0.01, -0.01, 0.01, -1e-3, 0.02, -0.03),)),
    "double sphere": (DoubleSphereCamera, (-0.24, 0.57)),
}
ALL = [*LENSES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
COUNT = 2500  # two full parts and one that is not


@pytest.fixture
def in_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the kernels or plain torch are used from there on."""
    return lambda kernel: monkeypatch.setattr(kernel_camera, "MANY", 1 if kernel else 10**9)


def make(name: str, dtype: torch.dtype, focal: float = 300.0) -> Camera:
    model, parameters = (LENSES | MORE)[name]
    if model is ScaramuzzaCamera:
        return model(focal + 20.3, 239.1, *parameters, size=SIZE, t=torch.zeros(3, dtype=dtype))
    return model(focal, 310.0, 320.3, 239.1, *parameters, size=SIZE, t=torch.zeros(3, dtype=dtype))


def some(columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(COUNT, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points_of(dtype: torch.dtype) -> Tensor:
    """Around the axis, some behind, some on it, some far out."""
    points = some(3, torch.float64) * 0.6 + torch.tensor([0.0, 0.0, 1.0])
    points[:5] = torch.tensor([[0.0, 0, 1], [1e-9, 0, 1], [0, 1e-3, 2], [300.0, 0, 1], [0, 0, 0]])
    return points.to(dtype)


def outcome(camera: Camera, dtype: torch.dtype, posed: bool) -> dict[str, Tensor]:
    """Pixels, depths, points or rays, and gradients of weighted sums of them to everything."""
    turn = torch.tensor([0.1, -0.2, 0.3], dtype=dtype)
    camera = camera.replace(R=so3_exp(turn), t=(0.1, -0.2, 0.3)) if posed else camera
    names = [*camera._names, *(("R", "t") if posed else ())]
    leaves = {name: getattr(camera, name).clone().requires_grad_() for name in names}
    camera = camera.replace(**leaves)
    local = points_of(dtype)
    points = (camera.camera_to_world(local).detach() if posed else local).requires_grad_()
    size = torch.tensor([640.0, 480.0], dtype=dtype)
    pixels = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype) * size
    pixels[:4] = torch.tensor([[math.nan, 1], [1, math.inf], [1e30, 3], [320.3, 239.1]])
    pixels.requires_grad_()
    away = (1 + some(1, dtype, seed=2)[:, 0].square()).requires_grad_()

    xy, depth = camera.project(points) if posed else camera.local_project(points)
    inside = camera.valid(local)[:, None] & ((xy.detach() - size / 2).abs() < 1e4)
    forward = (torch.where(inside, xy * some(2, dtype), 0.0)).sum() + (depth * some(1, dtype)[:, 0]).sum()
    back = camera.unproject(pixels, away) if posed else camera.local_rays(pixels)[1]
    seen = back.isfinite().all(-1)
    backward = (torch.where(seen[:, None], back, 0.0) * some(3, dtype)).sum()
    projected = torch.autograd.grad(forward, [points, *leaves.values()], materialize_grads=True)
    unprojected = torch.autograd.grad(backward, [pixels, away, *leaves.values()], materialize_grads=True)
    return {
        "xy": torch.where(inside, xy.detach(), 0.0),
        "depth": depth.detach(),
        "back": torch.where(seen[:, None], back.detach(), 0.0),
        "seen": seen.to(dtype),
        **{f"d xy / d {name}": g for name, g in zip(("points", *names), projected, strict=True)},
        **{f"d back / d {name}": g for name, g in zip(("pixels", "depth", *names), unprojected, strict=True)},
    }


@pytest.mark.parametrize("posed", [False, True], ids=["camera frame", "world"])
@pytest.mark.parametrize("name", ALL)
def test_kernel_is_the_plain_torch_formula_with_all_its_gradients(
    name: str, posed: bool, in_kernel: Callable[[bool], None]
) -> None:
    results = []
    for kernel in (True, False):
        in_kernel(kernel)
        results.append(outcome(make(name, torch.float64), torch.float64, posed))
    for key, expected in results[1].items():
        # Rounding, times the slope of the inverse near a fold, which is in the image of some; relative to the largest.
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(results[0][key], expected, rtol=0, atol=1e-9 * largest, msg=lambda m: f"{key}: {m}")  # noqa: B023


@pytest.mark.parametrize("name", ["prism and tilt", "fisheye"])
def test_kernel_in_single_precision(name: str, in_kernel: Callable[[bool], None]) -> None:
    in_kernel(True)
    result = outcome(make(name, torch.float32), torch.float32, True)
    in_kernel(False)
    expected = outcome(make(name, torch.float64), torch.float64, True)
    assert result["xy"].dtype == result["back"].dtype == torch.float32
    for key in ("xy", "back", "depth", "d back / d pixels"):
        largest = float(expected[key].abs().max())
        # Single precision on both ways; the tilted lens amplifies it near the corners.
        assert float((result[key].double() - expected[key]).abs().max()) < 1e-4 * largest, key


def test_each_camera_of_a_batch_gets_its_own_numbers_and_gradients(in_kernel: Callable[[bool], None]) -> None:
    in_kernel(True)
    views = [make("rational", torch.float64, focal) for focal in (250.0, 300.0, 350.0)]
    points, weights = points_of(torch.float64)[5:], some(2, torch.float64)[5:]

    def gradient(camera: Camera) -> tuple[Tensor, ...]:
        leaves = [getattr(camera, name).clone().requires_grad_() for name in camera._names]
        camera = camera.replace(**dict(zip(camera._names, leaves, strict=True)))
        xy, _ = camera.local_project(points)
        _, rays = camera.local_rays(xy.detach())
        return torch.autograd.grad((xy * weights).sum() + torch.where(rays.isnan(), 0.0, rays).sum(), leaves)

    together = gradient(stack_cameras(views))
    for i, view in enumerate(views):
        for ours, alone in zip(together, gradient(view), strict=True):
            torch.testing.assert_close(ours[i], alone, rtol=1e-9, atol=1e-9 * float(alone.abs().max()))


def test_points_more_precise_than_the_camera_keep_their_precision_and_reach_its_parameters(
    in_kernel: Callable[[bool], None],
) -> None:
    in_kernel(True)
    f = torch.tensor(300.0, requires_grad=True)
    camera = FOVCamera(f, f, 0.0, 0.0, 0.9, size=SIZE)
    xy, _ = camera.project(torch.ones(1, 3, dtype=torch.float64))
    assert xy.dtype == torch.float64
    (gradient,) = torch.autograd.grad(xy.sum(), f)
    assert gradient.dtype == torch.float32
    assert math.isclose(float(gradient), float(xy.detach().sum()) / 300, rel_tol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, where it loads forward mode
def test_what_kernels_cannot_do_is_done_by_plain_torch(in_kernel: Callable[[bool], None]) -> None:
    """torch.func, forward mode, several gradients at once: the answers of ordinary autograd."""
    in_kernel(True)
    points, pixels = points_of(torch.float64)[5:40], torch.rand(30, 2, dtype=torch.float64) * 400

    def project(k: Tensor) -> Tensor:
        return FisheyeCamera(300.0, 310.0, 320.0, 240.0, k, size=SIZE).local_project(points)[0]

    def unproject(k: Tensor) -> Tensor:
        return FisheyeCamera(300.0, 310.0, 320.0, 240.0, k, size=SIZE).local_rays(pixels)[1]

    k = torch.tensor([0.05, -0.01, 0.002, -0.0003], dtype=torch.float64)
    for function in (project, unproject):
        expected = torch.autograd.functional.jacobian(function, k)
        at_once = torch.autograd.functional.jacobian(function, k, vectorize=True)
        torch.testing.assert_close(at_once, expected, rtol=1e-10, atol=1e-10)
    expected = torch.autograd.functional.jacobian(project, k)
    torch.testing.assert_close(torch.func.jacrev(project)(k), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.func.jacfwd(project)(k), expected, rtol=1e-10, atol=1e-10)
    tangent = torch.ones(4, dtype=torch.float64)
    _, pushed = torch.func.jvp(project, (k,), (tangent,))
    torch.testing.assert_close(pushed, expected.sum(-1), rtol=1e-10, atol=1e-10)
