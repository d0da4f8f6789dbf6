"""Poses: what look_at sees, turntables, motions after each other, OpenGL's axes."""

import pytest
import torch

from diffrender.cameras import (
    compose_poses,
    from_opengl_pose,
    invert_pose,
    look_at,
    orbit_poses,
    se3_exp,
    so3_exp,
    to_opengl_pose,
)


def test_look_at_is_batched_and_differentiable() -> None:
    eyes = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]], dtype=torch.float64).requires_grad_()
    R, t = look_at(eyes, (0.0, 0.5, 0.0))
    assert R.shape == (2, 3, 3)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(-(R.mT @ t[..., None])[..., 0], eyes)
    target = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(look_at, (eyes, target))


def test_look_at_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="eye and target must differ"):
        look_at((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="up must not be zero or parallel"):
        look_at((0.0, 5.0, 0.0))
    with pytest.raises(ValueError, match="up must not be zero or parallel"):
        look_at((1.0, 5.0, 0.0), up=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="eye must end in 3"):
        look_at(torch.zeros(4))
    with pytest.raises(ValueError, match="eye holds 1 values"):
        look_at(torch.tensor([0.0, 1.0, float("nan")]))


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)])
def test_orbit_stands_on_a_circle_and_goes_counter_clockwise(up: tuple[float, float, float]) -> None:
    target = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    R, t = orbit_poses(8, distance=2.0, elevation=30.0, target=target, up=up)
    eyes = -(R.mT @ t[..., None])[..., 0] - target
    axis = torch.tensor(up, dtype=torch.float64) / torch.tensor(up, dtype=torch.float64).norm()
    torch.testing.assert_close(eyes.norm(dim=-1), torch.full((8,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(eyes @ axis, torch.full((8,), 1.0, dtype=torch.float64))  # 2 sin 30 degrees
    turned = torch.linalg.cross(eyes, eyes.roll(-1, 0)) @ axis
    torch.testing.assert_close(turned, torch.full((8,), 3.0 * 0.5**0.5, dtype=torch.float64))  # (2 cos 30)^2 sin 45
    # All look at the target: it is straight ahead.
    ahead = (R @ target[:, None])[..., 0] + t
    torch.testing.assert_close(ahead, torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64).expand(8, 3))


def test_orbit_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="num_views"):
        orbit_poses(0, distance=1.0)
    with pytest.raises(ValueError, match="distance"):
        orbit_poses(3, distance=0.0)
    with pytest.raises(ValueError, match="elevation"):
        orbit_poses(3, distance=1.0, elevation=90.0)


def test_composed_poses_act_one_after_the_other_and_an_inverse_undoes() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (se3_exp(torch.randn(4, 6, generator=generator, dtype=torch.float64)) for _ in range(2))
    points = torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def moved(pose: tuple[torch.Tensor, torch.Tensor], points: torch.Tensor) -> torch.Tensor:
        return (pose[0] @ points[..., None])[..., 0] + pose[1]

    torch.testing.assert_close(moved(compose_poses(second, first), points), moved(second, moved(first, points)))
    torch.testing.assert_close(moved(invert_pose(*first), moved(first, points)), points)
    with pytest.raises(ValueError, match=r"R of second must end in \(3, 3\); got \(4, 3\)"):
        compose_poses((torch.ones(4, 3), torch.ones(3)), first)
    with pytest.raises(ValueError, match=r"t of \(R, t\) must end in 3"):
        invert_pose(torch.eye(3), torch.ones(4))


def test_opengl_pose_looks_along_minus_z_with_y_up() -> None:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = so3_exp(torch.tensor([0.3, 1.0, -0.5], dtype=torch.float64))
    pose[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    R, t = from_opengl_pose(pose)
    local = torch.tensor([[0.0, 0.0, -2.0], [0.0, 1.0, -2.0], [1.0, 0.0, -2.0]], dtype=torch.float64)
    world = local @ pose[:3, :3].mT + pose[:3, 3]
    expected = torch.tensor([[0.0, 0.0, 2.0], [0.0, -1.0, 2.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(world @ R.mT + t, expected)
    torch.testing.assert_close(to_opengl_pose(R, t), pose)
    torch.testing.assert_close(from_opengl_pose(pose[:3]), (R, t))
    with pytest.raises(ValueError, match=r"must end in \(4, 4\) or \(3, 4\)"):
        from_opengl_pose(torch.zeros(5, 2, 4))
