"""Laws that hold for all cameras, also for one whose author wrote nothing but `to_pixels`."""

from collections.abc import Callable

import pytest
import torch
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
    look_at,
    so3_exp,
    stack_cameras,
)
from diffrender.testing import check_camera

HEIGHT, WIDTH = 36, 48


class WavyCamera(Camera):
    """A stereographic lens behind wavy glass: no library has it. Nearly all around, and nowhere symmetric."""

    def __init__(self, f, waves, *, size, R=None, t=None):
        super().__init__(size=size, R=R, t=t, f=f, waves=waves)

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        distance = torch.sqrt(x * x + y * y + z * z) + z
        u, v = x / distance, y / distance
        u, v = u + self.waves[..., 0] * torch.sin(5 * v), v + self.waves[..., 1] * torch.sin(4 * u)
        return torch.stack((self.f * u + self.width / 2, self.f * v + self.height / 2), dim=-1)


class NaivePinhole(Camera):
    """A pinhole as a newcomer writes it: behind the camera it shows the world upside down."""

    def __init__(self, f, *, size, R=None, t=None):
        super().__init__(size=size, R=R, t=t, f=f)

    def to_pixels(self, points: Tensor) -> Tensor:
        middle = points.new_tensor([self.width / 2, self.height / 2])
        return self.f[..., None] * points[..., :2] / points[..., 2:] + middle


Make = Callable[..., Camera]
SIZE = (HEIGHT, WIDTH)
CAMERAS: dict[str, tuple[Make, tuple[object, ...]]] = {
    "pinhole": (PinholeCamera, (40.0, 42.0, 25.0, 17.0)),
    "orthographic": (OrthographicCamera, (12.0, 11.0, 25.0, 17.0)),
    "weak perspective": (WeakPerspectiveCamera, (40.0, 42.0, 25.0, 17.0, 3.0)),
    "equirectangular": (EquirectangularCamera, (WIDTH / 6.2, HEIGHT / 3.1, 24.1, 17.9)),
    "cylindrical": (CylindricalCamera, (WIDTH / 6.2, 8.0, 24.1, 17.0)),
    "one-term fisheye": (FisheyeCamera, (16.0, 17.0, 25.0, 17.0, (0.03,))),
    "fov": (FOVCamera, (16.0, 17.0, 25.0, 17.0, 0.9)),
    "thin prism fisheye": (
        ThinPrismFisheyeCamera,
        (16.0, 17.0, 25.0, 17.0, (0.05, -0.01, 2e-3, -1e-3, 2e-3, -3e-4, 3e-3, -2e-3)),
    ),
    "unified": (UnifiedCamera, (24.0, 25.0, 25.0, 17.0, 0.8, (-0.02, 0.003, 2e-3, -1e-3))),
    "mirror": (UnifiedCamera, (40.0, 42.0, 25.0, 17.0, 1.4)),
    "double sphere": (DoubleSphereCamera, (14.0, 15.0, 25.0, 17.0, -0.24, 0.56)),
    "eucm": (EUCMCamera, (20.0, 21.0, 25.0, 17.0, 0.6, 1.1)),
    "scaramuzza": (ScaramuzzaCamera, (25.0, 17.0, (-16.0, 0.0, 0.012, -1e-4), 1.01, 0.02, -0.01)),
    "fisheye": (FisheyeCamera, (16.0, 17.0, 25.0, 17.0, (0.05, -0.01, 0.002, -0.0003))),
    "opencv4": (OpenCVCamera, (40.0, 42.0, 25.0, 17.0, (-0.2, 0.05, 0.003, -0.002))),
    "opencv8": (OpenCVCamera, (40.0, 42.0, 25.0, 17.0, (0.3, 0.05, 0.003, -0.002, 0.01, 0.5, 0.1, 0.02))),
    "opencv14": (
        OpenCVCamera,
        (40.0, 42.0, 25.0, 17.0, (0.3, 0.05, 3e-3, -2e-3, 0.01, 0.5, 0.1, 0.02, 0.01, -3e-3, 4e-3, 2e-3, 0.05, -0.08)),
    ),
    "wavy": (WavyCamera, (20.0, (0.03, 0.04))),
    "naive": (NaivePinhole, (40.0,)),
}


# The same laws for what more than a few points take: kernels.
IN_KERNELS = ("fisheye", "scaramuzza", "fov", "unified", "double sphere", "opencv14")


@pytest.fixture(
    params=[*((name, False) for name in CAMERAS), *((name, True) for name in IN_KERNELS)],
    ids=[*CAMERAS, *(f"{name} in a kernel" for name in IN_KERNELS)],
)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, in_kernel = request.param
    monkeypatch.setattr(kernel_camera, "MANY", 1 if in_kernel else 1 << 40)
    return str(name)


def make(name: str, *, dtype: torch.dtype = torch.float64, shift: float = 0.0) -> Camera:
    """The camera with a pose; `shift` makes another of the same class."""
    build, arguments = CAMERAS[name]
    first, *rest = arguments
    assert isinstance(first, float)
    R = so3_exp(torch.tensor([0.3, -0.5 + shift, 0.2], dtype=dtype))
    t = torch.tensor([0.1, -0.2 + shift, 0.3], dtype=dtype)
    return build(first * (1 + shift), *rest, size=SIZE, R=R, t=t)


def pixels(count: int = 40, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])).to(dtype)


# Rounding of one pixel coordinate is 48 * eps; the projections amplify it by their conditioning, below 100 here.
TOLERANCE = {torch.float32: 6e-4, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_inverts_unproject_over_the_image(name: str, dtype: torch.dtype) -> None:
    camera = make(name, dtype=dtype)
    xy = camera.pixel_centers()
    depth = 1.0 + pixels(HEIGHT * WIDTH, dtype)[:, 0].reshape(SIZE)
    points = camera.unproject(xy, depth)
    assert points.dtype == dtype
    again, measured = camera.project(points)
    torch.testing.assert_close(again, xy, atol=100 * TOLERANCE[dtype], rtol=0)
    # The rays are exact to rounding, and so is depth, relative to the numbers it is computed from (t is about 1).
    torch.testing.assert_close(measured, depth, rtol=20 * torch.finfo(dtype).eps, atol=20 * torch.finfo(dtype).eps)


def test_points_of_the_image_are_valid(name: str) -> None:
    camera = make(name)
    origins, directions = camera.local_rays(camera.pixel_centers())
    assert camera.valid(origins + 2.0 * directions).all()


def test_points_behind_the_rays_are_not_valid(name: str) -> None:
    camera = make(name)
    origins, directions = camera.local_rays(camera.pixel_centers())
    if name in ("equirectangular", "cylindrical"):
        pytest.skip("they see all around")
    if make(name).valid(torch.tensor([[1.0, 0.0, -0.01]], dtype=torch.float64)):
        # These see behind: only what lies opposite to the axis is hidden.
        directions = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(directions)
    assert not camera.valid(origins - 2.0 * directions).any()


def test_depth_grows_along_the_ray_and_is_its_parameter(name: str) -> None:
    camera = make(name)
    origins, directions = camera.rays(pixels())
    for depth in (0.1, 1.0, 10.0, 1e4):
        xy, measured = camera.project(origins + depth * directions)
        torch.testing.assert_close(measured, torch.full_like(measured, depth), rtol=1e-12, atol=1e-12)
        # Near the centre the point is a difference of numbers of size 1: its direction is off by eps / depth.
        torch.testing.assert_close(xy, pixels(), rtol=0, atol=1e-10)


def test_moving_world_and_camera_together_changes_nothing(name: str) -> None:
    camera = make(name)
    points = camera.unproject(pixels(), torch.full((40,), 2.0, dtype=torch.float64))
    Q = so3_exp(torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64))
    s = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    R = camera.R @ Q.mT
    moved = camera.replace(R=R, t=camera.t - R @ s)
    torch.testing.assert_close(moved.project(points @ Q.mT + s), camera.project(points), rtol=0, atol=1e-11)
    origins, directions = camera.rays(pixels())
    torch.testing.assert_close(moved.rays(pixels()), (origins @ Q.mT + s, directions @ Q.mT), rtol=0, atol=1e-11)


def functions_of_parameters(name: str) -> tuple[Camera, list[str], list[Tensor]]:
    camera = make(name)
    names = [n for n in camera._tensors() if n != "R"]
    values = [getattr(camera, n).detach().clone().requires_grad_() for n in names]
    turn = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64, requires_grad=True)
    return camera, names, [turn, *values]


def rebuilt(camera: Camera, names: list[str], turn: Tensor, values: tuple[Tensor, ...]) -> Camera:
    return camera.replace(R=so3_exp(turn) @ camera.R, **dict(zip(names, values, strict=True)))


def test_gradients_of_project_to_points_and_all_parameters(name: str) -> None:
    camera, names, values = functions_of_parameters(name)
    points = camera.unproject(pixels(5), torch.linspace(1, 3, 5, dtype=torch.float64)).detach().requires_grad_()

    def function(points: Tensor, turn: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return rebuilt(camera, names, turn, values).project(points)

    assert torch.autograd.gradcheck(function, (points, *values))


def test_gradients_of_rays_to_pixels_and_all_parameters(name: str) -> None:
    camera, names, values = functions_of_parameters(name)
    xy = pixels(5).requires_grad_()

    def function(xy: Tensor, turn: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return rebuilt(camera, names, turn, values).rays(xy)

    assert torch.autograd.gradcheck(function, (xy, *values))


@pytest.mark.parametrize("method", ["project", "rays"])
def test_second_derivatives_to_points_pixels_and_all_parameters(name: str, method: str) -> None:
    """Also through inverses that are found by iteration."""
    camera, names, values = functions_of_parameters(name)
    xy = pixels(2)
    points = camera.unproject(xy, torch.tensor([1.5, 2.5], dtype=torch.float64)).detach()
    first = (points if method == "project" else xy).clone().requires_grad_()

    def function(first: Tensor, turn: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = getattr(rebuilt(camera, names, turn, values), method)(first)
        return result

    assert torch.autograd.gradgradcheck(function, (first, *values))


def test_second_derivatives_of_a_batch_are_those_of_its_cameras(name: str) -> None:
    """In a batch the parameters take another way to the points, and for a thousand of those or more yet another."""
    lens = make(name)
    parameters = {n: getattr(lens, n) for n in lens._names}
    xy, direction = pixels(1100), torch.randn(1100, 3, generator=torch.Generator().manual_seed(0)).double()

    def curvature(copies: int) -> Tensor:
        leaves = [p.expand(copies, *p.shape).clone().requires_grad_() if copies else p.clone().requires_grad_()
                  for p in parameters.values()]  # fmt: skip
        rays = lens.replace(**dict(zip(parameters, leaves, strict=True))).local_rays(xy)
        first = torch.autograd.grad((sum(rays) * direction).square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        return torch.cat([g.reshape(max(copies, 1), -1) for g in second], dim=-1)

    # Sums over a thousand rays of terms up to 1e3, in another order.
    torch.testing.assert_close(curvature(2), curvature(0).expand(2, -1), rtol=1e-9, atol=1e-9)


def test_gradients_are_finite_everywhere(name: str) -> None:
    if name in ("wavy", "naive"):
        pytest.skip("their authors did not guard the division")
    camera = make(name)
    axes = torch.cat(
        (torch.eye(3), -torch.eye(3), torch.zeros(1, 3), torch.tensor([[1e-30, 0, -1e-30], [1e8, 1.0, 0]]))
    )
    for dtype in (torch.float32, torch.float64):
        lens = camera.to(dtype=dtype).replace(R=torch.eye(3, dtype=dtype), t=torch.zeros(3, dtype=dtype))
        parameters = {n: getattr(lens, n).detach().clone().requires_grad_() for n in lens._names}
        points = axes.to(dtype, copy=True).requires_grad_()
        xy, depth = lens.replace(**parameters).project(points)
        assert xy.isfinite().all()
        (xy.sum() + depth.sum()).backward()
        assert points.grad is not None
        assert points.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters.values())


def test_pixels_without_a_ray_are_nan_with_zero_gradient(name: str) -> None:
    camera = make(name)
    nan, inf = float("nan"), float("inf")
    # The last pixel has a ray only through lenses without an end.
    xy = torch.tensor([[nan, 3.0], [20.0, 15.0], [5.0, inf], [1e7, 3.0]], dtype=torch.float64).requires_grad_()
    parameters = {n: value.detach().clone().requires_grad_() for n, value in camera._tensors().items()}
    depth = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    points = camera.replace(**parameters).unproject(xy, depth.expand(4))
    missing = points.isnan().any(-1)
    assert missing[:3].tolist() == [True, False, True]
    torch.where(missing[:, None], 0.0, points).sum().backward()
    assert xy.grad is not None
    assert (xy.grad[missing] == 0).all()
    assert xy.grad[1].abs().sum() > 0
    for value in (depth, *parameters.values()):
        assert value.grad is not None
        assert value.grad.isfinite().all()


def test_a_batch_is_a_loop(name: str) -> None:
    views = [make(name, shift=s) for s in (0.0, 0.05, 0.1, 0.12, 0.14, 0.16)]
    batch = stack_cameras([stack_cameras(views[:3]), stack_cameras(views[3:])])
    assert batch.batch_shape == (2, 3)
    points = views[0].unproject(pixels(), torch.full((40,), 2.0, dtype=torch.float64))
    xy, depth = batch.project(points)
    origins, directions = batch.rays(pixels())
    assert xy.shape == (2, 3, 40, 2)
    assert depth.shape == (2, 3, 40)
    assert directions.shape == (2, 3, 40, 3)
    seen = batch.valid(batch.world_to_camera(points))
    for i, view in enumerate(views):
        at = divmod(i, 3)
        # Not bit for bit: matrix products of other shapes round in other orders.
        torch.testing.assert_close((xy[at], depth[at]), view.project(points), rtol=0, atol=1e-11)
        torch.testing.assert_close((origins[at], directions[at]), view.rays(pixels()), rtol=0, atol=1e-11)
        torch.testing.assert_close(batch[at].project(points), view.project(points), rtol=0, atol=1e-11)
        assert torch.equal(seen[at], view.valid(view.world_to_camera(points)))
    own = xy.detach()
    torch.testing.assert_close(batch.unproject(own, depth), points.expand(2, 3, 40, 3), rtol=0, atol=1e-9)


def test_a_large_batch_of_pixels_starts_in_cells_and_agrees_with_few(name: str) -> None:
    camera = make(name).resize((64, 80))
    few = camera.pixel_centers().reshape(-1, 2)[::97]
    _, all_directions = camera.rays(camera.pixel_centers())
    torch.testing.assert_close(all_directions.reshape(-1, 3)[::97], camera.rays(few)[1], rtol=0, atol=1e-10)


def test_crop_moves_pixels_by_its_corner(name: str) -> None:
    camera = make(name)
    crop = camera.crop(5, -7, 20, 30)
    assert crop.size == (20, 30)
    assert type(crop) is type(camera)
    points = camera.unproject(pixels(), torch.full((40,), 2.0, dtype=torch.float64))
    corner = torch.tensor([-7.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(crop.project(points)[0], camera.project(points)[0] - corner, rtol=0, atol=1e-11)
    torch.testing.assert_close(crop.rays(pixels() - corner), camera.rays(pixels()), rtol=0, atol=1e-11)


def test_resize_scales_pixels_about_the_outer_corner_of_the_image(name: str) -> None:
    camera = make(name)
    small = camera.resize((18, 96))
    assert small.size == (18, 96)
    scale = torch.tensor([2.0, 0.5], dtype=torch.float64)
    points = camera.unproject(pixels(), torch.full((40,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(small.project(points)[0], camera.project(points)[0] * scale, rtol=0, atol=1e-11)
    torch.testing.assert_close(small.rays(pixels() * scale), camera.rays(pixels()), rtol=0, atol=1e-11)
    # Crop, resize and back again is the identity.
    back = small.crop(2, 4, 10, 80).resize((20, 40)).crop(-4, -2, *SIZE)
    torch.testing.assert_close(back.project(points), camera.project(points), rtol=0, atol=1e-11)


def test_linear_rays_are_the_rays_and_only_of_straight_cameras(name: str) -> None:
    camera = make(name)
    linear = camera.linear_rays()
    assert (linear is not None) == (name in ("pinhole", "orthographic", "weak perspective"))
    if linear is None:
        return
    x, y = pixels()[:, :1], pixels()[:, 1:]
    direction = (linear.direction + x * linear.direction_dx) + y * linear.direction_dy
    origin = (linear.origin + x * linear.origin_dx) + y * linear.origin_dy
    origins, directions = camera.local_rays(pixels())
    assert torch.equal(origin, origins)
    assert torch.equal(direction, directions)
    assert (directions[:, 2] == 1).all()
    torch.testing.assert_close(camera.local_project(origins + 3 * directions)[0], pixels(), rtol=0, atol=1e-11)


def test_numbers_make_float32_and_tensors_decide(name: str) -> None:
    build, arguments = CAMERAS[name]
    assert build(*arguments, size=SIZE).dtype == torch.float32
    camera = build(torch.tensor(arguments[0], dtype=torch.float64), *arguments[1:], size=SIZE)
    assert all(value.dtype == torch.float64 for value in camera._tensors().values())
    assert camera.to(dtype=torch.float32).project(torch.ones(1, 3))[0].dtype == torch.float32
    # Points more precise than the camera keep their precision.
    assert build(*arguments, size=SIZE).project(torch.ones(1, 3, dtype=torch.float64))[0].dtype == torch.float64


def test_camera_looking_at_a_point_shows_it_in_the_middle_with_up_above(name: str) -> None:
    eye, target = torch.tensor([2.0, 1.0, 3.0]).double(), torch.tensor([0.1, 0.2, 0.3]).double()
    R, t = look_at(eye, target, (0.0, 0.0, 1.0))
    camera = make(name).replace(R=R, t=t)
    above = torch.tensor([0.0, 0.0, 0.05], dtype=torch.float64)
    xy, _ = camera.project(torch.stack((target, target + above)))
    ahead, _ = camera.local_project(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(xy[:1], ahead, rtol=0, atol=1e-11)
    assert xy[1, 1] < xy[0, 1]


def test_what_an_author_would_be_told_is_that_all_is_well(name: str) -> None:
    if name in ("wavy", "naive"):
        pytest.skip("their authors did not guard the division, which they would be told")
    check_camera(make(name)).check()
