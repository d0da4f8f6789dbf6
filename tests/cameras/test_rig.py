"""Rigs: cameras of any kind move as one, and gradients reach the rig, the places on it and the lenses."""

import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OrthographicCamera,
    PinholeCamera,
    Rig,
    invert_pose,
    look_at,
    se3_exp,
    so3_exp,
    stack_cameras,
)
from diffrender.primitives import sphere
from diffrender.render import render


def mixed(dtype: torch.dtype = torch.float64) -> list[Camera]:
    """Three cameras of three models and sizes, around a common frame."""
    twists = 0.3 * torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (R0, t0), (R1, t1), (R2, t2) = (se3_exp(twist.to(dtype)) for twist in twists)
    return [
        PinholeCamera(40.0, 40.0, 24.0, 18.0, size=(36, 48), R=R0, t=t0),
        FisheyeCamera(16.0, 16.0, 20.0, 20.0, size=(40, 40), R=R1, t=t1),
        OrthographicCamera(10.0, 10.0, 16.0, 8.0, size=(16, 32), R=R2, t=t2),
    ]


def test_moving_the_rig_is_moving_the_world_the_other_way() -> None:
    R, t = se3_exp(torch.tensor([0.3, -0.1, 2.0, 0.2, 0.5, -0.4], dtype=torch.float64))
    rig = Rig(mixed(), R=R, t=t)
    world = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len(rig) == 3
    for on_rig, camera in zip(rig.mounted, rig, strict=True):
        assert type(on_rig) is type(camera)
        assert on_rig.size == camera.size
        torch.testing.assert_close(camera.project(world), on_rig.project(world @ R.mT + t))
    assert repr(rig).startswith("Rig(PinholeCamera(")
    assert type(rig[1]) is FisheyeCamera


def test_without_a_pose_the_cameras_stand_where_they_are() -> None:
    for given, camera in zip(mixed(), Rig(mixed()).cameras, strict=True):
        torch.testing.assert_close((camera.R, camera.t), (given.R, given.t), rtol=0, atol=0)


def test_gradients_reach_the_rig_the_mounts_and_the_lenses() -> None:
    twist = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    mount = torch.tensor([0.1, 0.0, -0.2], dtype=torch.float64, requires_grad=True)
    focal = torch.tensor(40.0, dtype=torch.float64, requires_grad=True)
    points = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[:, 2] += 4

    def pixels(twist: Tensor, mount: Tensor, focal: Tensor) -> Tensor:
        pinhole, fisheye, _ = mixed()
        R, t = se3_exp(twist)
        rig = Rig([pinhole.replace(t=mount, fx=focal), fisheye.replace(R=so3_exp(mount))], R=R, t=t)
        return torch.cat([camera.project(points)[0] for camera in rig])

    assert torch.autograd.gradcheck(pixels, (twist, mount, focal))
    assert torch.autograd.gradgradcheck(pixels, (twist, mount, focal))


def test_a_batch_of_rig_poses_gives_batches_of_cameras() -> None:
    twists = 0.1 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    R, t = se3_exp(twists)
    film = Rig(mixed(), R=R, t=t)
    for i, camera in enumerate(film):
        assert camera.batch_shape == (5,)
        still = Rig(mixed(), R=R[3], t=t[3])[i]
        torch.testing.assert_close((camera.R[3], camera.t[3]), (still.R, still.t))
    assert "5 poses" in repr(film)


def test_a_stereo_rig_renders_as_a_stack_with_the_parallax_of_its_baseline() -> None:
    left = PinholeCamera(60.0, 60.0, 32.0, 24.0, size=(48, 64), t=torch.zeros(3, dtype=torch.float64))
    R, t = look_at(torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64))
    rig = Rig([left, left.replace(t=(-0.4, 0.0, 0.0))], R=R, t=t)
    images = render(sphere(2, dtype=torch.float64), stack_cameras(rig.cameras))[..., -1]
    columns = (images * (torch.arange(64) + 0.5)).sum((1, 2)) / images.sum((1, 2))
    # A centre at depth 4 is 60 * 0.4 / 4 pixels farther left for the right camera; a ball's outline, which is in front
    # of its centre, a little more: by 1 / (1 - (1 / 4)^2) at the axis.
    torch.testing.assert_close(columns[0] - columns[1], torch.tensor(6.4).double(), rtol=0, atol=0.05)
    eyes = torch.stack([invert_pose(camera.R, camera.t)[1] for camera in rig])
    torch.testing.assert_close((eyes[0] - eyes[1]).norm(), torch.tensor(0.4).double())


def test_replace_and_to_change_copies() -> None:
    rig = Rig(mixed(), t=(0.0, 0.0, 1.0))
    assert rig.replace(t=(0.0, 0.0, 2.0)).t[2] == 2
    assert rig.t[2] == 1
    assert len(rig.replace(cameras=mixed()[:2])) == 2
    small = rig.to(dtype=torch.float32)
    assert all(camera.dtype == torch.float32 for camera in small)
    with pytest.raises(TypeError, match=r"a rig has cameras, R and t; got \['fx'\]"):
        rig.replace(fx=2.0)


def test_what_is_no_rig_is_named() -> None:
    pinhole, fisheye, _ = mixed()
    with pytest.raises(ValueError, match="empty list"):
        Rig([])
    with pytest.raises(TypeError, match="cameras must be a list of cameras; got PinholeCamera"):
        Rig(pinhole)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cameras must be a list of cameras"):
        Rig([pinhole, 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="R must be a rotation"):
        Rig([pinhole], R=2 * torch.eye(3))
    with pytest.raises(ValueError, match=r"t must end in 3; got \(4,\)"):
        Rig([pinhole], t=torch.zeros(4))
    with pytest.raises(ValueError, match="t holds 3 values that are NaN"):
        Rig([pinhole], t=torch.full((3,), torch.nan))
    batch = fisheye.replace(t=torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"do not broadcast: R \(\), t \(2,\), cameras\[0\] \(\), cameras\[1\] \(3,\)"):
        Rig([pinhole, batch], t=torch.zeros(2, 3))
