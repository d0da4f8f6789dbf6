"""Subdivision and smoothing: what must not change, and what must."""

import pytest
import torch
import trimesh

from diffrender.mesh import Material, Mesh
from diffrender.primitives import cube, grid, sphere, torus
from diffrender.subdivide import smooth, subdivide


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


@pytest.mark.parametrize("make", [cube, grid, torus, lambda dtype: sphere(1, dtype=dtype)])
def test_surface_stays_where_it_is(make):
    mesh = make(dtype=torch.float64)
    fine = subdivide(mesh)
    assert (fine.num_vertices, fine.num_faces) == (mesh.num_vertices + mesh.topology.num_edges, 4 * mesh.num_faces)
    # every face is cut in four congruent ones, in the same plane, wound alike: so enclosed volumes are the same as well
    torch.testing.assert_close(fine.face_normals(), mesh.face_normals().repeat_interleave(4, 0), atol=1e-12, rtol=0)
    assert as_trimesh(fine).area == pytest.approx(as_trimesh(mesh).area, rel=1e-12)


def test_linear_attributes_stay_linear():
    generator = torch.Generator().manual_seed(0)
    vertices = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5]])
    matrix = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    mesh = Mesh(vertices, faces, uvs=vertices @ matrix[:, :2], vertex_colors=vertices @ matrix[:, 2:])
    fine = subdivide(subdivide(mesh))
    assert fine.uvs is not None
    assert fine.vertex_colors is not None
    torch.testing.assert_close(fine.uvs, fine.vertices @ matrix[:, :2])
    torch.testing.assert_close(fine.vertex_colors, fine.vertices @ matrix[:, 2:])


def test_uv_seams_stay_seams_and_nothing_else_becomes_one():
    mesh = cube()
    fine = subdivide(mesh)
    assert int(fine.topology.seam.sum()) == 2 * int(mesh.topology.seam.sum())  # each seam edge in two halves
    assert (fine.topology.edge_count == 2).all()


def test_vertices_split_at_a_seam_weld_again():
    # two triangles that share a side by position only; thirds, so that midpoints are rounded
    a, b, c, d = torch.tensor([[0.0, 0, 0], [1 / 3, 0, 0.1], [0.7, 1 / 7, 0], [0.2, 0.9, 1 / 3]])
    mesh = Mesh(torch.stack([a, b, c, c, b, d]), torch.tensor([[0, 1, 2], [3, 4, 5]]))
    welded = Mesh(torch.stack([a, b, c, d]), torch.tensor([[0, 1, 2], [2, 1, 3]]))
    counts, expected = (subdivide(subdivide(m)).topology.edge_count.bincount() for m in (mesh, welded))
    assert torch.equal(counts, expected)


def test_normals_and_materials_are_carried_along():
    mesh = sphere(1, dtype=torch.float64)
    mesh = mesh.replace(
        vertex_normals=mesh.vertices,
        materials=(Material("even"), Material("odd")),
        material_index=torch.arange(mesh.num_faces) % 2,
    )
    fine = subdivide(mesh)
    assert fine.material_index is not None
    assert fine.material_index.tolist() == [i % 2 for i in range(mesh.num_faces) for _ in range(4)]
    # the normal halfway between those of a sphere is that of the point halfway
    expected = torch.nn.functional.normalize(fine.vertices, dim=-1)
    torch.testing.assert_close(fine.normals(), expected, atol=1e-12, rtol=0)


def test_gradients_reach_the_coarse_vertices():
    vertices = torch.eye(3, dtype=torch.float64, requires_grad=True)
    fine = subdivide(Mesh(vertices, torch.tensor([[0, 1, 2]])))
    (gradient,) = torch.autograd.grad(fine.vertices.sum(), vertices)
    assert gradient.tolist() == [[2.0] * 3] * 3  # itself, and half of two midpoints


def test_empty_mesh_stays_empty():
    fine = subdivide(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
    assert (fine.num_vertices, fine.num_faces) == (0, 0)


def test_smoothing_removes_noise_and_keeps_the_volume():
    ball = sphere(4, dtype=torch.float64)
    noise = 0.02 * torch.randn(ball.num_vertices, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = ball.replace(vertices=ball.vertices * (1 + noise))
    smoothed = smooth(noisy, iterations=10)

    def roughness(mesh):
        return float((mesh.vertices.norm(dim=-1) - 1).std())

    # white noise has most of its power above the pass band
    assert roughness(smoothed) < 0.5 * roughness(noisy)
    assert as_trimesh(smoothed).volume == pytest.approx(as_trimesh(noisy).volume, rel=0.01)


def test_smoothing_a_welded_seam_keeps_it_closed():
    a, b, c, d = torch.tensor([[0.0, 0, 0], [1, 0, 0.5], [1, 1, 0], [0, 1, 0]])
    mesh = Mesh(torch.stack([a, b, c, a, c, d]), torch.tensor([[0, 1, 2], [3, 4, 5]]))
    smoothed = smooth(mesh)
    assert torch.equal(smoothed.vertices[0], smoothed.vertices[3])
    assert torch.equal(smoothed.vertices[2], smoothed.vertices[4])
    assert not torch.equal(smoothed.vertices, mesh.vertices)
