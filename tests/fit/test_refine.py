"""Edge lengths that the images' pull drives: shorter where it is hard, and as many triangles as with even ones."""

import pytest
import torch

from diffrender.fit.refine import LIMIT, edge_lengths
from diffrender.mesh import Mesh
from diffrender.primitives import sphere
from diffrender.remesh import remesh

BALL = Mesh(sphere(4).vertices, sphere(4).faces)
LENGTH = 0.07


def around(mesh):
    """[V] a third of the area of the faces at each vertex."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 2
    return torch.zeros(mesh.num_vertices).index_add_(0, mesh.faces.reshape(-1), area.repeat_interleave(3) / 3)


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_even_pull_makes_even_edges(unit):
    found = edge_lengths(BALL, unit * around(BALL), LENGTH)
    torch.testing.assert_close(found, torch.full_like(found, LENGTH))


@pytest.mark.parametrize("pull", [torch.zeros(BALL.num_vertices), 1.0 * (BALL.vertices[:, 0] > 0.9)])
def test_without_pull_on_most_of_the_mesh_edges_are_even(pull):
    found = edge_lengths(BALL, pull, LENGTH)
    torch.testing.assert_close(found, torch.full_like(found, LENGTH))


def test_four_times_the_pull_halves_the_edges():
    x = BALL.vertices[:, 0]
    found = edge_lengths(BALL, around(BALL) * torch.where(x > 0, 4.0, 1.0), LENGTH)
    # away from the step, which is averaged over three rings of edges of 0.07
    torch.testing.assert_close(found[x < -0.3].mean() / found[x > 0.3].mean(), torch.tensor(2.0))
    # two densities a^2 and (2a)^2 on halves of the ball: (a^2 + 4 a^2) / 2 triangles for each one of the even mesh
    assert float(found[x < -0.3].mean()) == pytest.approx(LENGTH * 2.5**0.5, rel=0.02)


def test_edges_stay_within_the_limits_of_each_other():
    pull = around(BALL) * torch.exp(20 * BALL.vertices[:, 0])
    found = edge_lengths(BALL, pull, LENGTH)
    assert float(found.max() / found.min()) == pytest.approx(LIMIT**2)


def test_a_remeshed_ball_has_about_as_many_triangles_and_more_of_them_where_it_is_pulled():
    even = remesh(BALL, LENGTH)
    driven = remesh(BALL, edge_lengths(BALL, around(BALL) * (5 + 4 * BALL.vertices[:, 0]), LENGTH))
    # lengths of edges on a slope of the field are not quite those of their middles
    assert driven.num_faces == pytest.approx(even.num_faces, rel=0.15)
    right = [float((m.vertices[m.faces].mean(1)[:, 0] > 0).float().mean()) for m in (even, driven)]
    assert right[0] == pytest.approx(0.5, abs=0.02)
    assert right[1] > 0.65
