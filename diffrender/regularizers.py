"""Regularizers: what keeps a mesh smooth and its triangles even while images pull at it.

All of them see the welded surface: vertices split at uv seams count as one, so a seam neither opens nor creases. Each
returns one number that does not depend on the number of vertices; where it says so, neither on the size of the mesh.
"""

import math

import torch
from torch import Tensor

from . import steady
from .derivatives import differentiable_once
from .mesh import Mesh
from .topology import Topology

NOT_TWICE = (
    "cotangent_laplacian has no second derivatives to the vertices, for torch has none through sparse matrices: "
    "detach the matrix, which makes it a constant, or differentiate the surface's area instead"
)


def uniform_laplacian(topology: Topology, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """[V, V] sparse (coalesced COO) combinatorial Laplacian: degree on the diagonal, -1 for each edge.

    Symmetric and positive semidefinite, rows sum to zero. Vertices that are welded to another have an empty row.

    >>> triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> uniform_laplacian(triangle.topology).to_dense().tolist()
    [[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]]
    """
    weights = torch.ones(topology.num_edges, dtype=dtype, device=topology.weld.device)
    return _laplacian(topology, weights)


def cotangent_laplacian(mesh: Mesh) -> Tensor:
    """[V, V] sparse (coalesced COO) cotangent Laplacian: -(cot a + cot b) / 2 for an edge opposite to angles a and b.

    Pinkall & Polthier 1993, "Computing discrete minimal surfaces". Symmetric, rows sum to zero; applied to the vertices
    it is the gradient of the surface's area. Differentiable to the vertices, once: torch drops terms of second
    derivatives through sparse matrices. Zero-area faces contribute nothing.
    """
    topology = mesh.topology
    a, b, c = _corners(mesh, topology)
    cotangents = torch.stack([_cotangent(b - a, c - a), _cotangent(c - b, a - b), _cotangent(a - c, b - c)], dim=-1)
    edge = topology.face_edges.reshape(-1)
    alive = (edge >= 0).nonzero().squeeze(-1)
    halves = cotangents.reshape(-1).index_select(0, alive) / 2
    weights = halves.new_zeros(topology.num_edges).index_add(0, edge[alive], halves)
    return _laplacian(topology, differentiable_once(weights, NOT_TWICE))


def laplacian_smoothness(mesh: Mesh) -> Tensor:
    """Mean squared distance of the vertices from the mean of their neighbours, in units of the mean squared edge.

    Zero for flat, even meshes; the same for a mesh of another size. Vertices without edges do not count.
    """
    topology = mesh.topology
    start, end = _edge_ends(mesh, topology)
    if topology.num_edges == 0:
        return mesh.vertices.sum() * 0
    degree = _degree(topology, mesh.vertices.dtype)
    apart = end - start
    pull = torch.zeros_like(mesh.vertices).index_add(0, topology.edges[:, 0], apart)
    pull = pull.index_add(0, topology.edges[:, 1], -apart) / degree.clamp(min=1)[:, None]
    size = steady.mean(apart.detach().square().sum(-1))
    # a mesh collapsed to a point has size zero, and nothing to smooth
    return steady.total(pull.square()) / (degree > 0).sum() / size.clamp(min=torch.finfo(size.dtype).tiny)


def normal_consistency(mesh: Mesh) -> Tensor:
    """Mean of 1 - cos(angle) between the normals of the two faces at an edge; zero where the surface is flat.

    Only edges with exactly two faces count. Zero-area faces have the normal zero, count as 1 and have no gradient.
    """
    topology = mesh.topology
    first = topology.edge_start[:-1][topology.edge_count == 2]
    if len(first) == 0:
        return mesh.vertices.sum() * 0
    halfedges = torch.stack([topology.edge_halfedges[first], topology.edge_halfedges[first + 1]])
    normals = mesh.face_normals()
    left, right = normals.index_select(0, halfedges[0] // 3), normals.index_select(0, halfedges[1] // 3)
    # half-edges of two faces that agree in their orientation run against each other; where they do not, turn one around
    sign = _direction(mesh, topology, halfedges[0]) * -_direction(mesh, topology, halfedges[1])
    return steady.mean(1 - sign * (left * right).sum(-1))


def edge_length(mesh: Mesh, *, target: float | None = None) -> Tensor:
    """Mean squared relative deviation of the edge lengths from `target`; default: from their own mean.

    Keeps triangles from degenerating. Zero when all edges have the same length.
    """
    if target is not None and not 0 < target < math.inf:
        raise ValueError(f"target must be a positive length; got {target}")
    topology = mesh.topology
    if topology.num_edges == 0:
        return mesh.vertices.sum() * 0
    start, end = _edge_ends(mesh, topology)
    squared = (end - start).square().sum(-1)
    # sqrt has no derivative at zero: an edge without a direction gets none
    alive = squared > 0
    length = torch.where(alive, torch.where(alive, squared, 1.0).sqrt(), 0.0)
    goal = steady.spread(steady.mean(length) if target is None else length.new_tensor(target), len(length))
    return steady.mean(((length - goal) / goal.clamp(min=torch.finfo(length.dtype).tiny)).square())


def _laplacian(topology: Topology, weights: Tensor) -> Tensor:
    """[V, V] sparse matrix with -`weights` [E] off the diagonal and rows that sum to zero."""
    count = len(topology.weld)
    low, high = topology.edges.unbind(-1)
    diagonal = weights.new_zeros(count).index_add(0, low, weights).index_add(0, high, weights)
    every = torch.arange(count, device=low.device)
    rows, columns = torch.cat([low, high, every]), torch.cat([high, low, every])
    values = torch.cat([-weights, -weights, diagonal])
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), values, (count, count), check_invariants=True
    ).coalesce()


def _degree(topology: Topology, dtype: torch.dtype) -> Tensor:
    """[V] number of edges at each vertex."""
    return torch.bincount(topology.edges.reshape(-1), minlength=len(topology.weld)).to(dtype)


def _edge_ends(mesh: Mesh, topology: Topology) -> tuple[Tensor, Tensor]:
    """Positions [E, 3] of the two ends of every edge."""
    return mesh.vertices.index_select(0, topology.edges[:, 0]), mesh.vertices.index_select(0, topology.edges[:, 1])


def _corners(mesh: Mesh, topology: Topology) -> tuple[Tensor, Tensor, Tensor]:
    """Positions [F, 3] of the three welded corners of every face."""
    corners = mesh.vertices.index_select(0, topology.weld[mesh.faces].reshape(-1)).reshape(-1, 3, 3)
    return corners[:, 0], corners[:, 1], corners[:, 2]


def _direction(mesh: Mesh, topology: Topology, halfedges: Tensor) -> Tensor:
    """+1 where the half-edge runs from the lower to the higher vertex, -1 where it runs back."""
    face, corner = halfedges // 3, halfedges % 3
    welded = topology.weld[mesh.faces]
    forward = welded[face, (corner + 1) % 3] < welded[face, (corner + 2) % 3]
    return torch.where(forward, 1.0, -1.0).to(mesh.vertices)


def _cotangent(u: Tensor, v: Tensor) -> Tensor:
    """[F] cotangent of the angle between two sides; zero where they are parallel."""
    # by a power of two that makes them about 1 long: fourth powers of what is small or large leave float32's range
    exponent = torch.frexp(torch.maximum(u.detach().abs(), v.detach().abs()).amax(-1, keepdim=True)).exponent
    unit = torch.ldexp(torch.ones_like(u[:, :1]), -exponent)
    u, v = u * unit, v * unit
    doubled_area = torch.linalg.cross(u, v)
    squared = doubled_area.square().sum(-1)
    alive = squared > 0
    return torch.where(alive, (u * v).sum(-1) / torch.where(alive, squared, 1.0).sqrt(), 0.0)
