"""Voxels against solid angles, an independent formula for winding numbers, and against distances in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffrender.mesh import Mesh, join
from diffrender.primitives import cube, sphere, torus
from diffrender.voxels import signed_depth, winding_numbers

LOWEST = torch.full((3,), -1.5)


def grid_points(origin, step, counts):
    axes = [torch.arange(count, dtype=torch.float64) for count in counts]
    return origin.double() + step * torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def solid_angles(mesh, points):
    """[...] the sum of the solid angles of the faces over 4 pi, and whether a point is on no face.

    Van Oosterom & Strackee 1983, "The solid angle of a plane triangle".
    """
    a, b, c = (mesh.vertices.double()[mesh.faces] - points[..., None, None, :]).unbind(-2)  # [..., F, 3]
    la, lb, lc = (x.norm(dim=-1) for x in (a, b, c))
    triple = (a * torch.linalg.cross(b, c)).sum(-1)
    rest = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    clear = ((triple.abs() > 1e-3) | (rest > 1e-3)).all(-1)  # on a face the angle jumps, at (0, negative)
    return (2 * torch.atan2(triple, rest)).sum(-1) / (4 * math.pi), clear


def rough(seed, spread):
    """A ball and a ring with vertices pushed about: they pass through themselves and each other."""
    noise = torch.Generator().manual_seed(seed)
    ball, ring = sphere(1), torus(major_segments=12, minor_segments=8)
    shapes = [Mesh(ball.vertices, ball.faces), Mesh(ring.vertices[ring.topology.weld], ring.faces)]
    moved = []
    for shape in shapes:
        push = spread * torch.randn(shape.vertices.shape, generator=noise)[shape.topology.weld]
        moved.append(shape.replace(vertices=shape.vertices + push))
    return join(moved)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.0, 0.1, 0.5]))
def test_numbers_are_the_solid_angles_of_the_surface(seed, spread):
    mesh = rough(seed, spread)
    found = winding_numbers(mesh, LOWEST, 0.31, (10, 9, 11))
    expected, clear = solid_angles(mesh, grid_points(LOWEST, 0.31, (10, 9, 11)))
    assert torch.equal(found[clear], expected.round().long()[clear])
    assert clear.float().mean() > 0.9


@pytest.mark.parametrize("seed", range(8))
def test_columns_through_vertices_and_along_sides_are_counted_once(seed):
    """All vertices are on columns of the grid, and many sides and faces run along one."""
    mesh = rough(seed, 0.4)
    mesh = mesh.replace(vertices=(2 * mesh.vertices).round() / 2)
    origin, counts = torch.tensor([-3.0, -3.0, -2.9]), (13, 13, 12)
    found = winding_numbers(mesh, origin, 0.5, counts)
    expected, clear = solid_angles(mesh, grid_points(origin, 0.5, counts))
    assert torch.equal(found[clear], expected.round().long()[clear])
    assert (found[:, :, 0] == 0).all()  # below everything


def test_overlaps_count_twice_and_what_is_inside_out_negative():
    ball = sphere(3)
    inside_out = Mesh(0.3 * ball.vertices, ball.faces.flip(1))
    middle = torch.zeros(3)
    assert winding_numbers(join([ball, ball]), middle, 1.0, (1, 1, 1)).item() == 2
    assert winding_numbers(inside_out, middle, 1.0, (1, 1, 1)).item() == -1
    assert winding_numbers(join([ball, inside_out]), middle, 1.0, (1, 1, 1)).item() == 0


def test_seams_of_uvs_are_no_gaps():
    ring = torus()
    numbers = winding_numbers(ring, torch.tensor([-1.53, -1.47, -1.51]), 0.1, (31, 31, 31))  # no point on the ring
    assert set(numbers.unique().tolist()) == {0, 1}
    a, b, c = ring.vertices[ring.faces].unbind(1)
    volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    # 2700 of its points are within a step of the surface; if each were in or out by chance, 1 % would be usual
    assert float(numbers.sum()) * 0.1**3 == pytest.approx(volume, rel=0.03)


def test_a_mesh_beyond_the_grid_is_cut_off():
    numbers = winding_numbers(cube(), torch.zeros(3), 0.4, (4, 2, 5))
    assert numbers[:3, :, :3].eq(1).all()
    assert numbers.sum() == 3 * 2 * 3
    assert winding_numbers(cube(), torch.full((3,), -9.0), 1.0, (3, 3, 3)).eq(0).all()


def test_depth_of_a_ball_is_exact_beside_its_surface():
    ball = sphere(5)
    depth = signed_depth(ball, LOWEST, 0.1, (31, 31, 31))
    expected = 1 - grid_points(LOWEST, 0.1, (31, 31, 31)).norm(dim=-1)
    beside = expected.abs() < 0.05
    # sides of the ball are at most 0.04 long, which sags by 0.04^2 / 6; the nearest face may be missed for the next one
    torch.testing.assert_close(depth[beside].double(), expected[beside], atol=1e-3, rtol=0)
    assert (depth - expected).abs().max() < 0.1  # a step


def test_depth_in_an_overlap_is_that_of_the_union():
    ball = sphere(4)
    pair = join([ball, ball.replace(vertices=ball.vertices + torch.tensor([0.8, 0.0, 0.0]))])
    depth = signed_depth(pair, LOWEST, 0.1, (41, 31, 31))
    points = grid_points(LOWEST, 0.1, (41, 31, 31))
    union = 1 - torch.minimum(points.norm(dim=-1), (points - torch.tensor([0.8, 0.0, 0.0])).norm(dim=-1))
    clear = union.abs() > 0.01  # the facets sag by less
    assert torch.equal(depth[clear] > 0, union[clear] > 0)


@pytest.mark.parametrize("inside", [True, False])
def test_depth_where_the_grid_has_one_kind_only(inside):
    ball = sphere(2)
    origin = torch.full((3,), -0.1 if inside else 5.0)
    depth = signed_depth(ball, origin, 0.1, (3, 3, 3))
    assert (depth > 0).eq(inside).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": torch.zeros(2)}, "origin must end in 3"),
        ({"step": 0.0}, "step must be positive; got 0.0"),
        ({"counts": (5, 5)}, "counts must be three numbers"),
        ({"counts": (5, 5, 2000)}, "from 1 to 1024; got"),
    ],
)
def test_what_is_no_grid_is_refused(change, message):
    arguments = {"origin": LOWEST, "step": 0.1, "counts": (5, 5, 5)} | change
    with pytest.raises(ValueError, match=message):
        winding_numbers(sphere(1), **arguments)
