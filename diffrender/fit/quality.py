"""How good the triangles of a fitted mesh are, in figures."""

from typing import Any

import torch

from ..intersections import intersections
from ..mesh import Mesh


@torch.no_grad()
def mesh_quality(mesh: Mesh) -> dict[str, Any]:
    """Figures of a mesh: counts, and what should not be there.

    - `closed`: whether every edge has as many faces on one side as on the other.
    - `euler`: vertices - edges + faces, of welded vertices: 2 for each closed surface, less 2 for each handle.
    - `self_intersections`: pairs of faces that pass through each other.
    - `flipped`: faces that look away from the mean of their neighbours, which they have folded over.
    - `edge_length`: the 1st, 50th and 99th percentile, in world units.
    - `smallest_angle`: the 1st and 50th percentile of the smallest angle of each face, in degrees.

    >>> import diffrender as dr
    >>> found = mesh_quality(dr.sphere(2))
    >>> found["closed"], found["euler"], found["self_intersections"], found["flipped"]
    (True, 2, 0, 0)
    """
    topology = mesh.topology
    start, end = mesh.vertices[topology.edges].unbind(1)
    length = (end - start).norm(dim=-1)
    roots = int((topology.weld == torch.arange(mesh.num_vertices, device=topology.weld.device)).sum())
    return {
        "vertices": mesh.num_vertices,
        "faces": mesh.num_faces,
        "closed": topology.closed,
        "euler": roots - topology.num_edges + mesh.num_faces,
        "self_intersections": len(intersections(mesh).faces),
        "flipped": int(_flipped(mesh).sum()),
        "edge_length": _percentiles(length, (0.01, 0.5, 0.99)),
        "smallest_angle": _percentiles(_smallest_angle(mesh), (0.01, 0.5)),
    }


def _flipped(mesh: Mesh) -> torch.Tensor:
    """[F] whether the normal of a face points away from the sum of its neighbours' (across edges with two faces)."""
    topology, normals = mesh.topology, mesh.face_normals()
    first = topology.edge_start[:-1][topology.edge_count == 2]
    left, right = (topology.edge_halfedges[first + k] // 3 for k in (0, 1))
    around = torch.zeros_like(normals).index_add_(0, left, normals[right]).index_add_(0, right, normals[left])
    return (around * normals).sum(-1) < 0


def _smallest_angle(mesh: Mesh) -> torch.Tensor:
    """[F] degrees."""
    corners = mesh.vertices[mesh.faces]
    there, back = corners.roll(-1, dims=1) - corners, corners.roll(1, dims=1) - corners
    cosine = torch.nn.functional.cosine_similarity(there, back, dim=-1).clamp(-1, 1)
    return torch.rad2deg(torch.arccos(cosine)).amin(-1)


def _percentiles(values: torch.Tensor, shares: tuple[float, ...]) -> list[float]:
    """Values below which a share of them is; no interpolation, so that any number of them will do."""
    if len(values) == 0:
        return [0.0 for _ in shares]
    ordered = values.sort().values
    return [round(float(ordered[round(share * (len(values) - 1))]), 6) for share in shares]
