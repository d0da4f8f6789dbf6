"""Figures of a mesh: counts against constructions of which one knows what is wrong with them."""

import pytest
import torch

from diffrender.fit.quality import mesh_quality
from diffrender.mesh import Mesh, join
from diffrender.primitives import grid, sphere, torus


def ball(radius=1.0, middle=(0.0, 0.0, 0.0)):
    unit = sphere(3)
    return Mesh(radius * unit.vertices + torch.tensor(middle), unit.faces)


def test_nothing_is_wrong_with_a_ball():
    found = mesh_quality(ball())
    assert (found["closed"], found["self_intersections"], found["flipped"]) == (True, 0, 0)
    assert (found["vertices"], found["faces"], found["euler"]) == (642, 1280, 2)
    assert 50 < found["smallest_angle"][0] <= found["smallest_angle"][1] < 60.001


def test_euler_counts_surfaces_and_handles():
    assert mesh_quality(torus())["euler"] == 0  # welded: its uv seams are no edges of the surface
    assert mesh_quality(join([ball(), ball(1.0, (3.0, 0.0, 0.0))]))["euler"] == 4
    assert mesh_quality(grid())["closed"] is False


@pytest.mark.parametrize("cells", [1, 4, 9])
def test_a_wall_through_a_sheet_meets_two_faces_of_each_cell_on_its_way(cells):
    sheet = grid(cells, cells)
    sheet = Mesh(sheet.vertices, sheet.faces)
    corners = torch.tensor([[0.07, -9.0, -9.0], [0.07, 9.0, -9.0], [0.07, 0.0, 9.0]])  # along no edge of a cell
    wall = Mesh(corners, torch.tensor([[0, 1, 2]]))
    assert mesh_quality(join([sheet, wall]))["self_intersections"] == 2 * cells


def test_two_balls_that_overlap_intersect_and_two_within_each_other_do_not():
    apart, inside = ball(1.0, (2.5, 0.0, 0.0)), ball(0.5)
    assert mesh_quality(join([ball(), apart, inside]))["self_intersections"] == 0
    overlap = mesh_quality(join([ball(), ball(1.0, (0.5, 0.0, 0.0))]))
    # the curve is a circle of radius 0.97 over faces 0.15 wide, and passes a face of each ball about every 0.1
    assert 40 < overlap["self_intersections"] < 160


@pytest.mark.parametrize("count", [1, 5])
def test_a_face_that_is_turned_around_counts_once(count):
    mesh = ball()
    chosen = 97 * torch.arange(1, count + 1)  # apart from each other
    faces = mesh.faces.clone()
    faces[chosen] = faces[chosen].flip(1)
    assert mesh_quality(Mesh(mesh.vertices, faces))["flipped"] == count


@pytest.mark.parametrize("vertex", [30, 40, 50])
@pytest.mark.parametrize("share", [0.5, 1.5, 1.9])
def test_a_vertex_pushed_over_an_edge_flips_the_faces_that_lie_on_their_back(vertex, share):
    sheet = grid(8, 8)
    sheet = Mesh(sheet.vertices, sheet.faces)
    moved = sheet.vertices.clone()
    moved[vertex] += share * (moved[vertex + 1] - moved[vertex])  # on to its neighbour, and past it
    folded = sheet.replace(vertices=moved)
    a, b, c = moved[folded.faces].unbind(1)
    on_their_back = torch.linalg.cross(b - a, c - a)[:, 2] < 0
    assert mesh_quality(folded)["flipped"] == int(on_their_back.sum())
    assert bool(on_their_back.any()) == (share > 1)


def test_a_mesh_without_faces_has_figures():
    found = mesh_quality(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
    assert (found["faces"], found["flipped"], found["self_intersections"]) == (0, 0, 0)
    assert found["edge_length"] == [0.0, 0.0, 0.0]
