"""Regularizers against closed forms on regular solids, scipy's graph Laplacian, and autograd."""

import numpy as np
import pytest
import torch
from scipy import sparse

from diffrender.mesh import Mesh
from diffrender.primitives import cube, grid, sphere, torus
from diffrender.regularizers import (
    cotangent_laplacian,
    edge_length,
    laplacian_smoothness,
    normal_consistency,
    uniform_laplacian,
)

REGULARIZERS = [laplacian_smoothness, normal_consistency, edge_length]


def octahedron() -> Mesh:
    vertices = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    return Mesh(vertices.double(), torch.tensor(faces))


def split(mesh: Mesh) -> Mesh:
    """The same surface with three vertices of its own for every face."""
    return Mesh(mesh.vertices[mesh.faces.reshape(-1)], torch.arange(3 * mesh.num_faces).reshape(-1, 3))


def wobbly(mesh: Mesh) -> Mesh:
    noise = torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=mesh.vertices.dtype)
    return mesh.replace(vertices=mesh.vertices + 0.05 * noise)


def test_uniform_laplacian_is_that_of_the_graph():
    mesh = torus()
    sides = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).numpy()
    graph = sparse.coo_matrix((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), shape=[mesh.num_vertices] * 2).tocsr()
    expected = sparse.csgraph.laplacian(((graph + graph.T) > 0).astype(float))
    np.testing.assert_array_equal(uniform_laplacian(mesh.topology).to_dense().numpy(), expected.toarray())


def test_cotangent_laplacian_of_the_vertices_is_the_gradient_of_the_area():
    mesh = wobbly(sphere(1, dtype=torch.float64))
    vertices = mesh.vertices.clone().requires_grad_()
    a, b, c = vertices[mesh.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2
    (gradient,) = torch.autograd.grad(area, vertices)
    torch.testing.assert_close(cotangent_laplacian(mesh) @ mesh.vertices, gradient)


def test_cotangent_laplacian_vanishes_on_linear_functions_of_a_plane():
    mesh = grid(5, 4, dtype=torch.float64)
    values = cotangent_laplacian(mesh) @ (mesh.vertices @ torch.tensor([[0.3], [-0.7], [0.0]], dtype=torch.float64))
    inner = mesh.vertices[:, :2].abs().amax(-1) < 0.99
    assert values[inner].abs().max() < 1e-12  # float64 rounding of sums of order one


def test_cotangent_laplacian_has_gradients_where_a_face_has_no_area():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0]], requires_grad=True)
    laplacian = cotangent_laplacian(Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]])))
    laplacian.to_dense().square().sum().backward()
    assert vertices.grad is not None
    assert torch.isfinite(vertices.grad).all()


def test_cotangent_laplacian_is_differentiable_once_and_says_so():
    """Where torch loses the terms of second derivatives: a silent zero would be wrong."""
    mesh = wobbly(octahedron())
    vertices = mesh.vertices.clone().requires_grad_()
    weights = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def energy(vertices: torch.Tensor) -> torch.Tensor:
        return (cotangent_laplacian(mesh.replace(vertices=vertices)).to_dense() * weights).sum()

    assert torch.autograd.gradcheck(energy, vertices)
    (plain,) = torch.autograd.grad(energy(vertices), vertices)
    (recorded,) = torch.autograd.grad(energy(vertices), vertices, create_graph=True)
    assert torch.equal(recorded, plain)
    with pytest.raises(RuntimeError, match=r"no second derivatives to the vertices.*detach the matrix"):
        recorded.square().sum().backward()


def test_smoothness_of_an_octahedron_is_one_half():
    # the mean of the neighbours is the centre: distance 1, squared edge 2
    assert float(laplacian_smoothness(octahedron())) == pytest.approx(0.5)


def test_normal_consistency_of_a_cube_is_two_thirds():
    # 12 right angles (1 - 0), 6 flat diagonals (1 - 1)
    assert float(normal_consistency(cube(dtype=torch.float64))) == pytest.approx(2 / 3)


def test_normal_consistency_does_not_mind_faces_turned_around():
    mesh = cube(dtype=torch.float64)
    faces = mesh.faces.clone()
    faces[::3] = faces[::3].flip(-1)
    assert float(normal_consistency(Mesh(mesh.vertices, faces))) == pytest.approx(2 / 3)


def test_normal_consistency_leaves_out_open_borders():
    assert float(normal_consistency(grid(3, 3, dtype=torch.float64))) == pytest.approx(0, abs=1e-15)
    assert float(normal_consistency(Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))) == 0


def test_edge_length_is_zero_for_equal_edges_and_known_for_others():
    assert float(edge_length(octahedron())) == pytest.approx(0, abs=1e-30)
    # a right triangle 3, 4, 5: mean 4, deviations -1/4, 0, 1/4
    mesh = Mesh(torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]]), torch.tensor([[0, 1, 2]]))
    assert float(edge_length(mesh)) == pytest.approx(2 / 16 / 3)
    assert float(edge_length(mesh, target=5.0)) == pytest.approx((4 + 1) / 25 / 3)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_regularizer_sees_the_welded_surface(regularizer):
    mesh = wobbly(sphere(1, dtype=torch.float64))
    torch.testing.assert_close(regularizer(split(mesh)), regularizer(mesh))


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_regularizer_does_not_depend_on_the_size_of_the_mesh(regularizer):
    mesh = wobbly(sphere(1, dtype=torch.float64))
    torch.testing.assert_close(regularizer(mesh.replace(vertices=1e-3 * mesh.vertices)), regularizer(mesh))


@pytest.mark.parametrize("regularizer", [laplacian_smoothness, normal_consistency])
def test_regularizer_shrinks_as_a_sphere_gets_finer(regularizer):
    coarse, fine = (float(regularizer(sphere(n, dtype=torch.float64))) for n in (1, 3))
    # both go with the square of the edge length: 16 times less where triangles are regular
    assert fine < coarse / 8


@pytest.mark.parametrize("regularizer", [normal_consistency, edge_length])
def test_regularizer_gradients_agree_with_differences(regularizer):
    mesh = wobbly(octahedron())
    vertices = mesh.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: regularizer(mesh.replace(vertices=v)), vertices)


def test_smoothness_gradient_is_that_of_the_pull_at_fixed_scale():
    mesh = wobbly(octahedron())
    vertices = mesh.vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(laplacian_smoothness(mesh.replace(vertices=vertices)), vertices)
    matrix = uniform_laplacian(mesh.topology, dtype=torch.float64).to_dense() / 4  # all degrees are 4
    low, high = mesh.topology.edges.unbind(-1)
    size = (mesh.vertices[high] - mesh.vertices[low]).square().sum(-1).mean()
    torch.testing.assert_close(gradient, 2 * matrix.T @ matrix @ mesh.vertices / 6 / size)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_regularizer_is_finite_where_everything_is_one_point(regularizer):
    mesh = octahedron()
    topology = mesh.topology
    vertices = torch.zeros_like(mesh.vertices).requires_grad_()
    collapsed = mesh.replace(vertices=vertices)
    assert collapsed.topology.num_edges == topology.num_edges  # built before the collapse: nothing was welded
    value = regularizer(collapsed)
    value.backward()
    assert torch.isfinite(value)
    assert vertices.grad is not None
    assert torch.isfinite(vertices.grad).all()


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_regularizer_of_an_empty_mesh_is_zero(regularizer):
    assert float(regularizer(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))) == 0


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_cotangents_do_not_depend_on_the_unit_of_length(unit):
    ball = sphere(2)
    expected = cotangent_laplacian(ball).to_dense()
    assert torch.equal(cotangent_laplacian(ball.replace(vertices=unit * ball.vertices)).to_dense(), expected)


def test_edge_length_needs_a_positive_target():
    with pytest.raises(ValueError, match="target must be a positive length; got -1"):
        edge_length(octahedron(), target=-1.0)
    with pytest.raises(ValueError, match="target must be a positive length; got nan"):
        edge_length(octahedron(), target=float("nan"))
