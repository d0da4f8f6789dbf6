"""What no view sees is spanned: a lump there goes, and what is seen stays."""

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at
from diffrender.fit.unseen import film_area, unseen_vertices
from diffrender.mesh import join
from diffrender.optim import AdamUniform
from diffrender.primitives import grid, sphere


def camera(eye, size=96):
    R, t = look_at(torch.tensor(eye), torch.zeros(3), up=(0.0, 0.0, 1.0))
    return PinholeCamera(1.6 * size, 1.6 * size, size / 2, size / 2, size=(size, size), R=R, t=t)


def test_what_lies_behind_the_horizon_of_all_cameras_is_unseen():
    ball = sphere(4)
    eyes = [(4.0, 0.0, 0.0), (0.0, 4.0, 0.0)]
    unseen = unseen_vertices(ball, [camera(eye) for eye in eyes])
    # the horizon of a unit ball is the plane x . eye = 1; faces beside it may be missed by all centres of pixels
    above = torch.stack([ball.vertices @ torch.tensor(eye) - 1 for eye in eyes]).amax(0)
    assert bool(unseen[above < -0.2].all())
    assert not bool(unseen[above > 0.6].any())


def test_what_another_surface_hides_is_unseen():
    ball = sphere(3)
    shell = join([ball, ball.replace(vertices=0.5 * ball.vertices)])
    eyes = [(4.0, 0, 0), (-4.0, 0, 0), (0, 4.0, 0), (0, -4.0, 0), (0.1, 0, 4.0), (0.1, 0, -4.0)]
    unseen = unseen_vertices(shell, [camera(eye) for eye in eyes])
    assert bool(unseen[len(ball.vertices) :].all())
    assert float(unseen[: len(ball.vertices)].float().mean()) < 0.02


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_film_hangs_on_what_is_seen_and_a_lump_in_it_goes(scale):
    sheet = grid(16, 16)
    inside = sheet.vertices[:, :2].abs().amax(-1) < 0.6
    lump = torch.where(inside, 0.5 * (1.5 * sheet.vertices[:, :2]).cos().prod(-1), 0.0)
    vertices = scale * torch.cat([sheet.vertices[:, :2], lump[:, None]], dim=-1)
    moved = vertices.clone().requires_grad_()
    optimizer = AdamUniform([moved], lr=0.02 * scale)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=300)
    for _ in range(300):
        area = film_area(sheet.replace(vertices=moved), inside, scale)
        optimizer.zero_grad()
        area.backward()
        optimizer.step()
        slower.step()
    moved = moved.detach()
    torch.testing.assert_close(moved[~inside], vertices[~inside], rtol=0, atol=0)
    assert float(moved[inside, 2].abs().max()) < 0.02 * scale  # flat, as what it hangs on
    # the film: all faces with a corner inside, flat by now; each cell of the sheet has two
    cells = int(inside[sheet.faces].any(-1).sum()) / 2
    assert float(area.detach()) == pytest.approx(cells * (2 / 16) ** 2, rel=0.02)
