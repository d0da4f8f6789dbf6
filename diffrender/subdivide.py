"""Subdivision: four faces for each, for fits that go from coarse to fine."""

import torch
from torch import Tensor

from .mesh import Mesh
from .topology import halfedge_ends


def subdivide(mesh: Mesh) -> Mesh:
    """Each face cut into four at the midpoints of its sides; the surface stays exactly where it is.

    Vertices, colours, uvs and given normals are interpolated (normals to unit length), materials kept, uv seams stay
    seams. Midpoints of welded sides are at the same position, bit for bit, so that the result welds like the input. The
    children of face f are faces 4f to 4f + 3: the corners in order, then the middle one.

    >>> triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> subdivide(triangle).faces.tolist()
    [[0, 3, 4], [3, 1, 5], [4, 5, 2], [5, 4, 3]]
    """
    ends, faces = _midpoints(mesh.faces, mesh.num_vertices)
    changes: dict[str, Tensor | None] = {
        "vertices": torch.cat([mesh.vertices, _mean(mesh.vertices, ends)]),
        "faces": faces,
        "vertex_colors": None,
        "vertex_normals": None,
        "uvs": None,
        "uv_faces": None,
    }
    if mesh.vertex_colors is not None:
        changes["vertex_colors"] = torch.cat([mesh.vertex_colors, _mean(mesh.vertex_colors, ends)])
    if mesh.vertex_normals is not None:
        between = torch.nn.functional.normalize(_mean(mesh.vertex_normals, ends), dim=-1)
        changes["vertex_normals"] = torch.cat([mesh.vertex_normals, between])
    if mesh.uvs is not None:
        assert mesh.uv_faces is not None
        uv_ends, uv_faces = _midpoints(mesh.uv_faces, len(mesh.uvs))
        changes["uvs"] = torch.cat([mesh.uvs, _mean(mesh.uvs, uv_ends)])
        changes["uv_faces"] = uv_faces
    if mesh.material_index is not None:
        changes["material_index"] = mesh.material_index.repeat_interleave(4)
    return mesh.replace(**changes)


def smooth(mesh: Mesh, *, iterations: int = 10, pass_band: float = 0.1) -> Mesh:
    """Taubin smoothing: rounds off steps and evens out triangles, without shrinking the mesh as plain averaging does.

    Args:
        mesh: open borders are smoothed as curves of their own would be, by their neighbours.
        iterations: each one step inward and one step outward.
        pass_band: spatial frequencies below it (of the Laplacian's eigenvalues, in [0, 2]) are kept.

    Taubin 1995, "A signal processing approach to fair surface design", lambda = 0.5, 1 / lambda + 1 / mu = pass_band.
    """
    inward = 0.5
    outward = 1 / (pass_band - 1 / inward)
    topology = mesh.topology
    low, high = topology.edges.unbind(-1)
    degree = torch.bincount(topology.edges.reshape(-1), minlength=mesh.num_vertices).clamp(min=1).to(mesh.vertices)
    vertices = mesh.vertices
    for _ in range(iterations):
        for factor in (inward, outward):
            apart = vertices.index_select(0, high) - vertices.index_select(0, low)
            pull = torch.zeros_like(vertices).index_add(0, low, apart).index_add(0, high, -apart)
            vertices = vertices + factor * pull / degree[:, None]
            vertices = vertices.index_select(0, topology.weld)
    return mesh.replace(vertices=vertices)


def _midpoints(faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ends [E, 2] of the sides in index order, and the [4F, 3] faces with midpoint e at index `count` + e."""
    start, end = halfedge_ends(faces)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    key, side = torch.unique(low * count + high, return_inverse=True)
    ends = torch.stack([key // max(count, 1), key % max(count, 1)], dim=-1)
    a, b, c = faces.unbind(-1)
    across_a, across_b, across_c = (side + count).reshape(-1, 3).unbind(-1)
    children = [
        (a, across_c, across_b),
        (across_c, b, across_a),
        (across_b, across_a, c),
        (across_a, across_b, across_c),
    ]
    return ends, torch.stack([torch.stack(child, dim=-1) for child in children], dim=1).reshape(-1, 3)


def _mean(values: Tensor, ends: Tensor) -> Tensor:
    """[E, C] midpoints of `values` [N, C]; a + b and b + a are the same bits, whichever end comes first."""
    return (values.index_select(0, ends[:, 0]) + values.index_select(0, ends[:, 1])) / 2
