"""Isosurfaces: positions against closed forms, and manifolds however wild the values."""

import itertools
import math

import networkx
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffrender.isosurface import surface_nets, well_composed


def grid_points(count: int, half: float) -> tuple[Tensor, Tensor, float]:
    """[N, N, N, 3] points of a cube around the origin in float64, its lowest corner, and the step."""
    axis = torch.linspace(-half, half, count, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return points, points[0, 0, 0], 2 * half / (count - 1)


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def test_sphere_has_the_area_and_volume_of_a_sphere():
    points, origin, step = grid_points(41, 1.2)
    ball = as_trimesh(surface_nets(1 - points.norm(dim=-1), origin=origin, step=step))
    # a chord of length `step` lies step^2 / 8 below the unit sphere: 0.05 %; three times that in volume, and averaging
    # the crossings of a cell moves vertices inside by as much again
    assert ball.volume == pytest.approx(4 / 3 * math.pi, rel=0.004)
    assert ball.area == pytest.approx(4 * math.pi, rel=0.004)


def test_plane_is_met_exactly_between_grid_points():
    points, origin, step = grid_points(9, 1.0)
    height = 0.1234
    mesh = surface_nets(height - points[..., 2], origin=origin, step=step)
    away_from_border = mesh.vertices[:, :2].abs().amax(-1) < 1 - step
    top = mesh.vertices[away_from_border & (mesh.vertices[:, 2] > 0)]
    assert len(top) > 0
    # linear values are interpolated exactly, up to rounding in float64
    torch.testing.assert_close(top[:, 2], torch.full_like(top[:, 2], height), atol=1e-14, rtol=0)


def test_torus_keeps_its_hole_and_converges_to_its_volume():
    error = []
    for count in (31, 61):
        points, origin, step = grid_points(count, 1.5)
        ring = points[..., :2].norm(dim=-1) - 1
        mesh = as_trimesh(surface_nets(0.3 - (ring**2 + points[..., 2] ** 2).sqrt(), origin=origin, step=step))
        assert mesh.euler_number == 0
        error.append(abs(mesh.volume / (2 * math.pi**2 * 0.3**2) - 1))
    assert error[1] < error[0] / 3  # second order in the step: four times less at half of it
    assert error[1] < 0.02


def test_surface_is_closed_where_everything_is_inside():
    box = as_trimesh(surface_nets(torch.ones(3, 4, 5)))
    assert box.is_watertight
    assert box.volume > 2 * 3 * 4  # around the grid points, not through them


def test_nothing_inside_gives_an_empty_mesh():
    mesh = surface_nets(-torch.ones(3, 3, 3))
    assert (mesh.num_vertices, mesh.num_faces) == (0, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.tuples(*[st.integers(1, 6)] * 3))
def test_surface_of_noise_is_a_manifold_that_faces_outward(seed, size):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mesh = surface_nets(values)
    if mesh.num_faces == 0:
        return
    assert (mesh.topology.edge_count == 2).all()
    # the faces around each vertex are one fan: consecutive ones share an edge, and there is one round of them
    around = [networkx.Graph() for _ in range(mesh.num_vertices)]
    for a, b, c in mesh.faces.tolist():
        for i, j, k in ((a, b, c), (b, c, a), (c, a, b)):
            around[i].add_edge(j, k)
    assert all(networkx.is_connected(fan) for fan in around)
    surface = as_trimesh(mesh)
    assert surface.is_winding_consistent
    # every grid point strictly inside or outside by its own sign lies on that side: the winding number says so
    assert surface.volume > 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.tuples(*[st.integers(1, 5)] * 3))
def test_well_composed_has_no_critical_configuration(seed, size):
    inside = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.3
    result = well_composed(inside)
    assert (result >= inside).all()  # only ever adds
    assert torch.equal(well_composed(result), result)
    filled = torch.nn.functional.pad(result, [1] * 6)
    nx, ny, nz = filled.shape
    for x, y, z in itertools.product(range(nx - 1), range(ny - 1), range(nz - 1)):
        cell = filled[x : x + 2, y : y + 2, z : z + 2]
        for face in (cell[0], cell[1], cell[:, 0], cell[:, 1], cell[:, :, 0], cell[:, :, 1]):
            assert not (face[0, 0] == face[1, 1] and face[0, 1] == face[1, 0] and face[0, 0] != face[0, 1])
        for i, j in itertools.product(range(2), range(2)):
            ends = [bool(cell[0, i, j]), bool(cell[1, 1 - i, 1 - j])]
            assert not (all(ends) and cell.sum() == 2)
            assert not (not any(ends) and cell.sum() == 6)


def test_well_composed_leaves_a_solid_block_alone():
    block = torch.zeros(5, 5, 5, dtype=torch.bool)
    block[1:4, 1:4, 1:3] = True
    assert torch.equal(well_composed(block), block)


def test_triangles_of_a_sphere_are_well_shaped():
    points, origin, step = grid_points(31, 1.2)
    mesh = as_trimesh(surface_nets(1 - points.norm(dim=-1), origin=origin, step=step))
    smallest = mesh.face_angles.min(axis=1)
    # marching cubes leaves a tenth of its triangles below 15 degrees on such a grid; here nearly none are
    assert (smallest < math.radians(15)).mean() < 0.01


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.zeros(2, 2, 2, dtype=torch.int64)])
def test_values_that_are_no_grid_are_refused(values):
    with pytest.raises((TypeError, ValueError), match="values must"):
        surface_nets(values)


def test_infinite_values_are_refused():
    with pytest.raises(ValueError, match="values holds 8 values that are NaN or infinite"):
        surface_nets(torch.full((2, 2, 2), torch.inf))
