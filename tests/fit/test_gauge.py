"""Motions of all cameras that no picture shows, against cameras that are truly moved with the world."""

import pytest
import torch
from torch import Tensor

from diffrender.cameras import PinholeCamera, look_at, so3_exp, so3_log
from diffrender.fit.gauge import common_motions, take_out
from diffrender.fit.model import Optics


def cameras_around(count: int) -> list[PinholeCamera]:
    eyes = 3 * torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).double())
    poses = [look_at(tuple(eye.tolist()), (0.1, 0.0, -0.1)) for eye in eyes * torch.linspace(0.8, 1.2, count)[:, None]]
    return [PinholeCamera(90.0, 90.0, 40.0, 30.0, size=(60, 80), R=R.double(), t=t.double()) for R, t in poses]


def as_optics(before: list[PinholeCamera], after: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Turns and shifts that bring cameras to other poses."""
    turn = torch.stack([R @ camera.R.T for camera, (R, _) in zip(before, after, strict=True)])
    away = torch.stack([t - step @ camera.t for step, camera, (_, t) in zip(turn, before, after, strict=True)])
    return so3_log(turn), away / torch.stack([camera.t.norm() for camera in before])[:, None]


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_a_motion_of_the_world_is_taken_out(size: float) -> None:
    cameras = cameras_around(7)
    motion = size * torch.randn(7, generator=torch.Generator().manual_seed(1)).double()
    turn, shift, growth = so3_exp(motion[:3]), motion[3:6], 1 + motion[6]
    moved = [(camera.R @ turn, camera.t / growth + camera.R @ shift) for camera in cameras]
    turns, shifts = as_optics(cameras, moved)
    optics = Optics.ideal(7)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(2)).double() * 0.3
    for i, camera in enumerate(cameras):  # these poses show what cameras that stay see of a world that moves
        posed = Optics(**{**optics.tensors(), "turns": turns, "shifts": shifts}).moved(
            camera.flatten_batch(), torch.tensor([i])
        )
        there = growth * (points @ turn.T + shift)
        torch.testing.assert_close(posed.project(points)[0][0], camera.project(there)[0], rtol=0, atol=1e-4)
    start = float(turns.norm() + shifts.norm())
    take_out(common_motions(cameras), turns, shifts)
    assert float(turns.norm() + shifts.norm()) < 3 * size * start  # of second order


def test_what_differs_from_view_to_view_stays() -> None:
    motions = common_motions(cameras_around(9))
    assert motions.shape == (54, 9)
    torch.testing.assert_close(motions.T @ motions, torch.eye(9, dtype=torch.float64))
    turns, shifts = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(3)).double().unbind()
    before = torch.cat([turns, shifts], -1).norm()
    take_out(motions, turns, shifts)
    both = torch.cat([turns, shifts], -1)
    assert both.norm() > 0.8 * before  # 9 of 54 dimensions are gone
    assert (motions.T @ both.reshape(-1)).abs().max() < 1e-12
    again = turns.clone(), shifts.clone()
    take_out(motions, turns, shifts)
    torch.testing.assert_close((turns, shifts), again)


def test_one_view_has_no_pose_of_its_own() -> None:
    turns, shifts = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(3)).unbind()
    take_out(common_motions(cameras_around(1)), turns, shifts)
    assert torch.cat([turns, shifts]).abs().max() < 1e-6
