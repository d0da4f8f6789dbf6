"""Topology: which faces meet at which edge, computed once per mesh and passed along.

Vertices at the same position count as one (OBJ and glTF split them where uv or normals jump), so that a uv seam is
no border of the surface. Half-edge `3 * f + i` is the side of face `f` opposite to its corner `i`: it runs from
corner `i + 1` to corner `i + 2`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Topology:
    """Edges of a mesh and the faces that meet there; nothing in it depends on where the vertices move later.

    Attributes:
        weld: [V] the lowest-numbered vertex at the same position.
        edges: [E, 2] welded vertices, lower index first; each edge once.
        edge_count: [E] faces at the edge: 1 on an open border, 2 inside a manifold, more where it is none.
        face_edges: [F, 3] the edge opposite to each corner; -1 where its two ends are welded into one.
        edge_start: [E + 1] where the half-edges of an edge start in `edge_halfedges`.
        edge_halfedges: [H] half-edges sorted by edge.
        forward: [H] whether the half-edge in `edge_halfedges` runs from the lower vertex of its edge to the higher one.
        seam: [E] whether the faces at the edge disagree about a vertex, a uv or a material there.
    """

    weld: Tensor
    edges: Tensor
    edge_count: Tensor
    face_edges: Tensor
    edge_start: Tensor
    edge_halfedges: Tensor
    forward: Tensor
    seam: Tensor

    @property
    def num_edges(self) -> int:
        """How many different edges there are."""
        return self.edges.shape[0]

    @cached_property
    @torch.inference_mode(False)  # as below: this is kept, and may be used by somebody who differentiates
    def surplus(self) -> Tensor:
        """[E] how many more faces run along an edge forward than backward: 0 where they agree about their outside."""
        sign = 2 * self.forward.long() - 1
        edge = torch.repeat_interleave(self.edge_count)
        return sign.new_zeros(self.num_edges).index_add_(0, edge, sign)

    @cached_property
    def closed(self) -> bool:
        """Whether as many faces run along each edge in one direction as in the other: no face is seen from behind."""
        return not bool(self.surplus.any())

    @cached_property
    @torch.inference_mode(False)
    def component(self) -> Tensor:
        """[V] int32 which of the connected surfaces each vertex is part of, by edges between welded vertices."""
        low, high = self.edges.unbind(1)
        return connected(low, high, len(self.weld))[self.weld].to(torch.int32)

    @cached_property
    def notes(self) -> dict[str, object]:
        """What later stages keep from one call to the next, to be faster; no result depends on it."""
        return {}

    @classmethod
    @torch.inference_mode(False)
    def build(
        cls,
        faces: Tensor,
        vertices: Tensor,
        uv_faces: Tensor | None = None,
        material_index: Tensor | None = None,
    ) -> "Topology":
        """Topology of `faces` [F, 3]; `vertices` [V, 3] only say which of them coincide.

        Two triangles that share a side have five edges:

        >>> square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> Topology.build(torch.tensor([[0, 1, 2], [0, 2, 3]]), square).edge_count.tolist()
        [1, 2, 1, 1, 1]
        """
        num_vertices = vertices.shape[0]
        weld = weld_by_position(vertices.detach())
        start, end = halfedge_ends(weld[faces])
        low, high = torch.minimum(start, end), torch.maximum(start, end)

        alive = (low != high).nonzero().squeeze(-1)  # a side whose ends are welded is no edge
        key, order = torch.sort((low * num_vertices + high)[alive], stable=True)
        halfedges = alive[order]
        unique, edge, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)

        face_edges = faces.new_full((faces.numel(),), -1)
        face_edges[halfedges] = edge
        edges = torch.stack([unique // max(num_vertices, 1), unique % max(num_vertices, 1)], dim=-1)
        edge_start = torch.cat([count.new_zeros(1), count.cumsum(0)])

        forward = (start < end)[halfedges]
        seam = torch.zeros(len(unique), dtype=torch.bool, device=faces.device)
        for indices in (faces, uv_faces):
            if indices is not None:
                seam |= _ends_disagree(indices, halfedges, forward, edge, len(unique))
        if material_index is not None:
            seam |= _disagree(material_index[halfedges // 3], edge, len(unique))
        return cls(
            weld=weld,
            edges=edges,
            edge_count=count,
            face_edges=face_edges.reshape(-1, 3),
            edge_start=edge_start,
            edge_halfedges=halfedges,
            forward=forward,
            seam=seam,
        )

    @classmethod
    @torch.inference_mode(False)
    def join(cls, parts: Sequence["Topology"]) -> "Topology":
        """Topology of meshes one after the other that have nothing to do with each other: nothing is welded anew."""
        vertex, edge, halfedge = (
            [sum(sizes[:i]) for i in range(len(sizes))]
            for sizes in (
                [len(p.weld) for p in parts],
                [p.num_edges for p in parts],
                [3 * len(p.face_edges) for p in parts],
            )
        )
        ends = [p.edge_start[:-1] for p in parts]
        sides = [sum(len(p.edge_halfedges) for p in parts[:i]) for i in range(len(parts) + 1)]
        return cls(
            weld=torch.cat([p.weld + v for p, v in zip(parts, vertex, strict=True)]),
            edges=torch.cat([p.edges + v for p, v in zip(parts, vertex, strict=True)]),
            edge_count=torch.cat([p.edge_count for p in parts]),
            face_edges=torch.cat(
                [torch.where(p.face_edges < 0, -1, p.face_edges + e) for p, e in zip(parts, edge, strict=True)]
            ),
            edge_start=torch.cat(
                [*(e + s for e, s in zip(ends, sides, strict=False)), ends[0].new_tensor([sides[-1]])]
            ),
            edge_halfedges=torch.cat([p.edge_halfedges + h for p, h in zip(parts, halfedge, strict=True)]),
            forward=torch.cat([p.forward for p in parts]),
            seam=torch.cat([p.seam for p in parts]),
        )

    def to(self, device: torch.device | str) -> "Topology":
        """The same topology with its tensors on `device`."""
        return Topology(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def weld_by_position(vertices: Tensor) -> Tensor:
    """For each of the `vertices` [V, 3] the lowest index of one at exactly the same position: [V]."""
    if vertices.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=vertices.device)
    positions = vertices + 0.0  # -0.0 becomes 0.0
    order = torch.arange(len(positions), device=positions.device)
    for axis in (2, 1, 0):  # lexicographic; stable, so that equal positions stay in the order of their index
        order = order[torch.sort(positions[order, axis], stable=True).indices]
    ordered = positions[order]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(-1)
    group = first.cumsum(0) - 1
    weld = torch.empty_like(order)
    weld[order] = order[first][group]
    return weld


def halfedge_ends(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of every half-edge of `faces` [F, 3]: two [3F] tensors; `3 * f + i` is opposite to corner i."""
    return faces[:, [1, 2, 0]].reshape(-1), faces[:, [2, 0, 1]].reshape(-1)


def connected(first: Tensor, second: Tensor, count: int) -> Tensor:
    """[count] which of the connected parts each of `count` nodes is in, where `first` [E] hang together with `second`.

    >>> connected(torch.tensor([0]), torch.tensor([2]), 3)
    tensor([0, 1, 0])
    """
    from scipy import sparse  # when it is needed: it takes longer to import than this package

    ends = (first.cpu().numpy(), second.cpu().numpy())
    graph = sparse.coo_array((np.ones(len(first), dtype=bool), ends), (count, count))
    return torch.from_numpy(sparse.csgraph.connected_components(graph, directed=False)[1]).to(first)


def _ends_disagree(indices: Tensor, halfedges: Tensor, forward: Tensor, edge: Tensor, num_edges: int) -> Tensor:
    """[E] whether the half-edges of an edge name different entries of `indices` [F, 3] at the same end."""
    start, end = (ends[halfedges] for ends in halfedge_ends(indices))
    low, high = torch.where(forward, start, end), torch.where(forward, end, start)
    return _disagree(low, edge, num_edges) | _disagree(high, edge, num_edges)


def _disagree(values: Tensor, edge: Tensor, num_edges: int) -> Tensor:
    """[E] whether `values` differ among the half-edges of an edge; `edge` is sorted."""
    differs = (values[1:] != values[:-1]) & (edge[1:] == edge[:-1])
    result = torch.zeros(num_edges, dtype=torch.bool, device=values.device)
    result[edge[1:][differs]] = True
    return result
