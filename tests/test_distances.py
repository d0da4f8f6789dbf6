"""Distances between surfaces against closed forms and brute force."""

import math

import pytest
import torch

import diffrender as dr
from diffrender.distances import chamfer_distance, sample_surface, surface_distance


def test_points_are_spread_by_area() -> None:
    mesh = dr.Mesh(
        torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [9, 0, 0], [10, 0, 0], [9, 1, 0]]),
        torch.tensor([[0, 1, 2], [3, 4, 5]]),
    )
    points, face = sample_surface(mesh, 4000)
    assert (face == 0).sum() == 3000  # three quarters of the area; the strata make it exact
    first = points[face == 0]
    # the mean of a triangle is its centroid; 3000 points leave a standard error of 3 / sqrt(18 * 3000) = 0.013 in x
    assert (first.mean(0) - torch.tensor([1.0, 1 / 3, 0.0])).abs().max() < 0.05
    assert torch.equal(points, sample_surface(mesh, 4000)[0])


def test_distance_from_a_triangle_is_that_of_its_nearest_point() -> None:
    """Against the smallest distance to a fine raster of the triangle's points."""
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0.5, 1, 0.3]], dtype=torch.float64)
    mesh = dr.Mesh(corners, torch.tensor([[0, 1, 2]]))
    points = 3 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    a, b = torch.meshgrid(torch.linspace(0, 1, 401), torch.linspace(0, 1, 401), indexing="ij")
    inside = a + b <= 1 + 1e-9
    weights = torch.stack([1 - a - b, a, b], dim=-1)[inside].double()
    brute = torch.cdist(points, weights @ corners).amin(-1)
    found = surface_distance(points, mesh, samples=10)
    assert (found <= brute + 1e-12).all()
    assert (brute - found).max() < 0.005  # the raster's step is 2 / 400


def test_chamfer_distance_of_spheres_is_the_difference_of_their_radii() -> None:
    ball = dr.sphere(4)
    larger = dr.sphere(3).replace(vertices=1.2 * dr.sphere(3).vertices)
    # chords of 1280 faces lie up to 1.2 * 0.004 inside of the sphere
    assert chamfer_distance(ball, larger) == pytest.approx(0.2, abs=0.005)
    assert chamfer_distance(ball, ball) < 1e-6
    moved = ball.replace(vertices=ball.vertices + torch.tensor([0.01, 0.0, 0.0]))
    assert chamfer_distance(ball, moved) == pytest.approx(0.005, rel=0.05)  # mean of |cos| over a sphere is 1 / 2


def test_degenerate_triangles_count_as_their_sides() -> None:
    mesh = dr.Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0]]), torch.tensor([[0, 1, 2], [0, 1, 3]]))
    distance = surface_distance(torch.tensor([[0.2, 0.2, 0.7]]), mesh)
    assert math.isclose(float(distance), 0.7, rel_tol=1e-6)


def test_no_points_have_no_distances() -> None:
    assert surface_distance(torch.zeros(0, 3), dr.cube()).shape == (0,)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="mesh must have some area"):
        sample_surface(dr.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 10)
    with pytest.raises(ValueError, match="count must be at least 1"):
        sample_surface(dr.cube(), 0)
    with pytest.raises(ValueError, match="points"):
        surface_distance(torch.zeros(3), dr.cube())
