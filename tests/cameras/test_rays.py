"""Cameras authored by their rays: project finds the pixel whose ray meets a point, with two derivatives."""

import pytest
import torch
from lenses import MirrorBall, RollingShutter, WaterPort
from torch import Tensor

from diffrender.cameras import RayCamera, so3_exp, stack_cameras

SIZE = (36, 48)


class Division(RayCamera):
    """Fitzgibbon's division model: one centre, a closed formula from pixels to rays, none back that is as short."""

    is_central = True

    def __init__(self, f, k, *, size, R=None, t=None):
        super().__init__(size=size, R=R, t=t, f=f, k=k)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        return xy.new_zeros(3), torch.stack((u, v, 1 + self.k * (u * u + v * v)), dim=-1)


def make(name: str, dtype: torch.dtype = torch.float64, shift: float = 0.0) -> RayCamera:
    """A camera with a pose; `shift` makes another of the same class."""
    pose = {
        "R": so3_exp(torch.tensor([0.3, -0.5 + shift, 0.2], dtype=dtype)),
        "t": torch.tensor([0.1, -0.2 + shift, 0.3], dtype=dtype),
    }
    f = 30.0 * (1 + shift)
    if name == "rolling":
        return RollingShutter(f, (0.5, 0.1, -0.2), 0.1, size=SIZE, **pose)
    if name == "port":
        return WaterPort(f, 0.5, 1.33, size=SIZE, **pose)
    if name == "mirror":
        return MirrorBall(3 * f, 0.5, 2.0, size=SIZE, **pose)
    return Division(f, 0.2, size=SIZE, **pose)


def pixels(camera: RayCamera) -> Tensor:
    """All pixels with a ray that is not within a pixel of a pixel without."""
    xy = camera.pixel_centers().reshape(-1, 2)
    near = torch.stack([camera.rays(xy + offset)[1] for offset in xy.new_tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])])
    return xy[torch.isfinite(near).flatten(2).all(-1).all(0)]


@pytest.fixture(params=["rolling", "port", "mirror", "division"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Scanner(RayCamera):
    """A line of sensors that moves along x, from `start` on: every column has a centre of its own."""

    def __init__(self, f, step, start, *, size, R=None, t=None):
        super().__init__(size=size, R=R, t=t, f=f, step=step, start=start)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        x, y = xy[..., 0], xy[..., 1] - self.height / 2
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return torch.stack((self.start + self.step * x, zero, zero), -1), torch.stack((zero, y / self.f, one), -1)


@pytest.mark.parametrize("ahead", [0.2, 0.3, 1.0])
def test_rays_that_start_far_from_the_frame_are_found_or_given_up(ahead: float) -> None:
    """Nearer than NEAREST, a quarter here, points have no pixel; none has a wrong one."""
    camera, step = Scanner(50.0, 0.01, 1000.0, size=(40, 60)), 0.01
    xy = camera.pixel_centers().reshape(-1, 2)
    found, _ = camera.project(camera.unproject(xy, torch.full_like(xy[:, 0], ahead)))
    assert bool(torch.isnan(found).all()) == (ahead < 0.25)
    apart = (found - xy).nan_to_num(0).abs().amax(0)
    rounding = 1000 * torch.finfo(xy.dtype).eps  # of the points
    assert apart[0] < rounding / step
    assert apart[1] < 50 * rounding / ahead


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_finds_the_pixel_and_the_depth_of_a_ray(name: str, dtype: torch.dtype) -> None:
    camera = make(name, dtype)
    xy = pixels(camera)
    assert len(xy) > 300
    for depth in (0.3, 2.0, 100.0):
        found, measured = camera.project(camera.unproject(xy, torch.full_like(xy[:, 0], depth)))
        assert found.dtype == measured.dtype == dtype
        # 90 pixels per radian at most, and a point whose coordinates are rounded, relative to its distance from a ray.
        tolerance = 3e3 * torch.finfo(dtype).eps * max(1.0, 1 / depth)
        torch.testing.assert_close(found, xy, rtol=0, atol=tolerance)
        torch.testing.assert_close(measured, torch.full_like(measured, depth), rtol=0, atol=tolerance)


def test_a_point_behind_the_rays_has_no_pixel_and_no_gradient(name: str) -> None:
    camera = make(name)
    xy = pixels(camera)
    points = camera.unproject(xy, torch.full_like(xy[:, 0], 2.0))
    behind = camera.unproject(xy[:20], torch.full_like(xy[:20, 0], -5.0))
    if name == "mirror":  # its rays leave into all directions but straight on: in the shadow of the ball there are none
        behind = camera.camera_to_world(torch.tensor([[0.0, 0.1, 4.0], [0.01, 0.0, 50.0]]).double().repeat(10, 1))
    points = torch.cat([points, behind]).requires_grad_()
    leaves = {name: getattr(camera, name).detach().clone().requires_grad_() for name in camera._names}
    lens = camera.replace(**leaves)
    local = lens.world_to_camera(points)
    seen = lens.valid(local)
    assert seen[:-20].all()
    assert not seen[-20:].any()
    found, depth = lens.project(points)
    assert torch.equal(torch.isfinite(found).all(-1), seen)
    assert torch.equal(torch.isfinite(depth), seen)
    found.nansum().backward()
    assert points.grad is not None
    assert (points.grad[-20:] == 0).all()
    assert (points.grad[:-20] != 0).any(-1).all()
    for leaf in leaves.values():
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_pixels_beside_the_mirror_have_no_ray_and_leave_gradients_finite() -> None:
    radius = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    camera = MirrorBall(90.0, radius, 2.0, size=SIZE)
    xy = camera.pixel_centers().requires_grad_()
    origins, directions = camera.rays(xy)
    missing = directions.isnan().any(-1)
    u = (xy.detach() - torch.tensor([24.0, 18.0])) / 90
    assert torch.equal(missing, u.norm(dim=-1) > 0.5 / (4 - 0.25) ** 0.5)  # the tangents to the ball
    (torch.where(missing[..., None], 0.0, directions).sum() + origins.sum()).backward()
    assert radius.grad is not None
    assert radius.grad.isfinite()
    assert xy.grad is not None
    assert (xy.grad[missing] == 0).all()
    assert xy.grad[~missing].isfinite().all()


def test_first_and_second_derivatives_are_those_of_differences(name: str) -> None:
    camera = make(name)
    chosen = pixels(camera)
    depth = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    points = camera.unproject(chosen[[10, 150, 290]], depth).detach().requires_grad_()
    names = [*camera._names, "t"]
    leaves = [getattr(camera, name).detach().clone().requires_grad_() for name in names]
    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def function(points: Tensor, turn: Tensor, *leaves: Tensor) -> tuple[Tensor, Tensor]:
        changes = dict(zip(names, leaves, strict=True))
        return camera.replace(R=so3_exp(turn) @ camera.R, **changes).project(points)

    assert torch.autograd.gradcheck(function, (points, turn, *leaves))
    assert torch.autograd.gradgradcheck(function, (points, turn, *leaves))


def test_a_batch_is_a_loop(name: str) -> None:
    views = [make(name, shift=s) for s in (0.0, 0.02)]
    xy = pixels(views[0])[50:250:10]
    points = views[0].unproject(xy, torch.full_like(xy[:, 0], 2.0))
    batch = stack_cameras(views)
    together = batch.project(points)
    for i, view in enumerate(views):
        torch.testing.assert_close(tuple(x[i] for x in together), view.project(points), rtol=0, atol=1e-10)
        torch.testing.assert_close(tuple(x[i] for x in batch.rays(xy)), view.rays(xy), rtol=0, atol=1e-12)
    weights = torch.rand(2, len(xy), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = batch.f.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad((batch.replace(f=f).project(points)[0] * weights).nansum(), f)
    for i, view in enumerate(views):
        own = view.f.detach().clone().requires_grad_()
        (alone,) = torch.autograd.grad((view.replace(f=own).project(points)[0] * weights[i]).nansum(), own)
        torch.testing.assert_close(slope[i], alone, rtol=1e-9, atol=1e-9)


def test_crop_and_resize(name: str) -> None:
    camera = make(name)
    xy = pixels(camera)[::7]
    points = camera.unproject(xy, torch.full_like(xy[:, 0], 2.0))
    changed = camera.crop(3, -4, 20, 30).resize((40, 15))
    expected = (xy - torch.tensor([-4.0, 3.0])) * torch.tensor([0.5, 2.0])
    torch.testing.assert_close(changed.project(points)[0], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(changed.rays(expected), camera.rays(xy), rtol=0, atol=1e-12)


def test_many_points_and_none() -> None:
    camera = make("rolling")
    assert camera.project(torch.zeros(0, 3))[0].shape == (0, 2)
    assert camera.rays(torch.zeros(0, 2))[0].shape == (0, 3)
    xy = pixels(camera).repeat(30, 1)
    points = camera.unproject(xy, torch.linspace(0.5, 5, len(xy), dtype=torch.float64))
    torch.testing.assert_close(camera.project(points)[0], xy, rtol=0, atol=1e-10)
    assert camera.project(points[7])[0].shape == (2,)  # a single point


class Careless(RayCamera):
    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return xy, torch.cat((xy, torch.ones_like(xy[..., :1])), dim=-1)


def test_no_cameras_have_no_pixels() -> None:
    none = stack_cameras([make("rolling")] * 2)[:0]
    xy, depth = none.project(torch.zeros(0, 3, 3, dtype=torch.float64))
    assert (xy.shape, depth.shape) == ((0, 3, 2), (0, 3))


def test_rays_of_a_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"to_rays must return origins and directions \(5, 3\).*got origins \(5, 2\)"):
        Careless(size=SIZE).rays(torch.zeros(5, 2))
