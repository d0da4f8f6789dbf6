"""Resurfacing: holes where the masks say so, one surface where two overlap, and nothing where nothing is wrong."""

import math

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at, stack_cameras
from diffrender.distances import chamfer_distance
from diffrender.mesh import Mesh, join
from diffrender.primitives import grid, sphere, torus
from diffrender.render import render
from diffrender.resurface import resurface

STEP = 0.08


def views_around(count=12, size=64):
    """A batch of pinhole cameras evenly around the origin (a Fibonacci sphere), looking at it."""
    k = torch.arange(count) + 0.5
    y, turn = 1 - 2 * k / count, k * math.pi * (3 - 5**0.5)
    eyes = 5 * torch.stack([(1 - y**2).sqrt() * turn.cos(), y, (1 - y**2).sqrt() * turn.sin()], dim=-1)
    poses = [look_at(eye) for eye in eyes]
    focal, middle = 1.5 * size, size / 2
    return stack_cameras([PinholeCamera(focal, focal, middle, middle, size=(size, size), R=R, t=t) for R, t in poses])


CAMERAS = views_around()
RING = Mesh(torus().vertices, torus().faces)


def ball(radius=1.0, middle=(0.0, 0.0, 0.0), subdivisions=3):
    unit = sphere(subdivisions)
    return Mesh(radius * unit.vertices + torch.tensor(middle), unit.faces)


def masks_of(mesh):
    with torch.no_grad():
        return render(mesh, CAMERAS)[..., -1]


def euler(mesh):
    used = mesh.topology.weld.unique()
    return len(used) - mesh.topology.num_edges + mesh.num_faces


def test_a_mesh_that_agrees_with_the_masks_is_returned_as_it_is():
    mesh = ball()
    assert resurface(mesh, masks_of(mesh), CAMERAS, STEP) is mesh
    assert resurface(RING, masks_of(RING), CAMERAS, STEP) is RING
    smaller = ball(0.8)  # masks say nothing against it: it has yet to grow
    assert resurface(smaller, masks_of(mesh), CAMERAS, STEP) is smaller


def test_outlines_that_are_off_by_less_than_the_grid_can_tell_carve_nothing():
    larger = ball(1 + 0.8 * STEP)
    assert resurface(larger, masks_of(ball()), CAMERAS, STEP) is larger


def test_a_hole_that_the_masks_show_is_opened():
    disc = Mesh(sphere(4).vertices * torch.tensor([1.4, 0.4, 1.4]), sphere(4).faces)
    found = resurface(disc, masks_of(RING), CAMERAS, STEP)
    assert euler(disc) == 2
    assert euler(found) == 0
    assert bool((found.topology.edge_count == 2).all())
    assert chamfer_distance(found, RING) < chamfer_distance(disc, RING)
    # the hole has a radius of 0.6; two of the 12 views agree on most of it
    assert float(found.vertices[:, [0, 2]].norm(dim=-1).min()) > 0.4


def test_nothing_is_carved_that_is_within_all_silhouettes():
    found = resurface(ball(1.5), masks_of(RING), CAMERAS, STEP)
    assert euler(found) == 0
    inside, volume = (float(mesh.vertices[mesh.faces].det().sum()) / 6 for mesh in (found, RING))
    assert inside > 0.97 * volume  # surface nets cut corners: a chord of a step in a radius of 0.4 takes 1 %


def test_one_view_alone_does_not_carve():
    masks = masks_of(ball())
    masks[3, 28:36, 28:36] = 0.0
    mesh = ball()
    assert resurface(mesh, masks, CAMERAS, STEP) is mesh


def test_ends_that_have_met_become_one_handle():
    """A chain of balls that overlap, bent to a ring: each of them is a sphere, together they are a torus."""
    turn = torch.arange(12) * math.pi / 6
    chain = join([ball(0.4, (float(t.cos()), 0.0, float(t.sin())), 2) for t in turn])
    found = resurface(chain, torch.ones(12, 64, 64), CAMERAS, STEP)
    assert euler(chain) == 24
    assert euler(found) == 0
    assert bool((found.topology.edge_count == 2).all())
    radius = found.vertices[:, [0, 2]].norm(dim=-1)
    assert 1 - 0.45 < float(radius.min()) < float(radius.max()) < 1 + 0.45


def test_of_several_parts_that_are_left_the_largest_stays():
    pair = join([ball(0.5, (0.6, 0.0, 0.0)), ball(0.3, (-0.6, 0.0, 0.0))])
    found = resurface(ball(1.2), masks_of(pair), CAMERAS, STEP)
    assert found.num_faces > 0
    assert len(found.topology.component.unique()) == 1
    assert float(found.vertices.mean(0)[0]) == pytest.approx(0.6, abs=0.1)


def test_colours_come_from_the_nearest_vertices():
    mesh = ball(1.5)
    painted = mesh.replace(vertex_colors=(mesh.vertices > 0).to(torch.float32))
    found = resurface(painted, masks_of(RING), CAMERAS, STEP)
    side = found.vertices.abs() > 0.3
    assert side.any()
    # a carved vertex is up to the ring's hole away from the ball; the nearest vertex of a ball lies in its direction
    expected = (found.vertices > 0).to(torch.float32)
    assert torch.equal(found.vertex_colors[side], expected[side])


@pytest.mark.parametrize(
    ("mesh", "step", "message"),
    [
        (torus(), STEP, "mesh must have no uvs"),
        (Mesh(grid().vertices, grid().faces), STEP, "mesh must be closed, to have an inside; got 512 faces, and 64"),
        (ball(), 0.0, "step must be positive"),
    ],
)
def test_what_has_no_inside_is_refused(mesh, step, message):
    with pytest.raises(ValueError, match=message):
        resurface(mesh, masks_of(ball()), CAMERAS, step)


def test_masks_that_leave_nothing_are_named():
    away = masks_of(ball(0.2, (1.2, 0.0, 0.0)))
    with pytest.raises(ValueError, match="masks leave nothing of the mesh"):
        resurface(ball(0.5), away, CAMERAS, STEP)
