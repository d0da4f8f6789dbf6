"""Parts of mesh files, and how they become one `Mesh` and part again.

Formats keep one uv, colour and normal per vertex and so split vertices along seams; here the pieces are put together
again, and the uvs get indices of their own.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..mesh import Material, Mesh


@dataclass(frozen=True)
class Piece:
    """One part of a file, with one uv, colour and normal per vertex and one material: what trimesh hands out."""

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 3]
    uvs: np.ndarray | None  # [V, 2]
    colors: Tensor | None  # [V, 3] linear
    normals: np.ndarray | None  # [V, 3]
    material: Material | None


def assemble(pieces: list[Piece], *, weld: bool) -> Mesh:
    """One mesh of the pieces, its vertices put together where the format had to split them."""
    if len(pieces) > 1:
        pieces = [_compact(piece) for piece in pieces]  # the parts of a glTF mesh often share one big vertex buffer
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    faces = _index(np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=False)]))
    vertices = _floats(np.concatenate([piece.vertices for piece in pieces]))
    colors = _concatenated([piece.colors for piece in pieces], starts, fill=1.0)
    normals = _concatenated([None if p.normals is None else _floats(p.normals) for p in pieces], starts, fill=0.0)
    uvs = _concatenated([None if p.uvs is None else _floats(p.uvs) for p in pieces], starts, fill=0.0)

    uv_faces = None
    if uvs is not None:
        uvs, uv_index = _unique_rows(uvs)
        uv_faces = uv_index[faces]
    if weld or uvs is not None or len(pieces) > 1:
        together = torch.cat([x for x in (vertices, normals, colors) if x is not None], dim=-1)
        kept, index = _first_of_equal(together)
        vertices, faces = vertices[kept], index[faces]
        colors = None if colors is None else colors[kept]
        normals = None if normals is None else normals[kept]

    materials, material_index = _shared_materials(pieces)
    return Mesh(vertices, faces, uvs, uv_faces, colors, normals, materials, material_index)


def split_piece(mesh: Mesh, material: int) -> Piece:
    """The faces of one material, with vertices split so that each has one uv; in the order of vertices, then uvs."""
    faces = mesh.faces if mesh.material_index is None else mesh.faces[mesh.material_index == material]
    if mesh.uvs is None and len(mesh.materials) < 2:
        vertex, faces, uvs = torch.arange(mesh.num_vertices), faces, None  # vertex for vertex
    elif mesh.uvs is None or mesh.uv_faces is None:
        vertex, faces = torch.unique(faces, return_inverse=True)
        uvs = None
    else:
        uv_faces = mesh.uv_faces if mesh.material_index is None else mesh.uv_faces[mesh.material_index == material]
        pair, faces = torch.unique(faces * len(mesh.uvs) + uv_faces, return_inverse=True)
        vertex = pair // len(mesh.uvs)
        uvs = mesh.uvs[pair % len(mesh.uvs)].numpy()
    return Piece(
        vertices=mesh.vertices[vertex].numpy(),
        faces=faces.numpy(),
        uvs=uvs,
        colors=None if mesh.vertex_colors is None else mesh.vertex_colors[vertex],
        normals=None if mesh.vertex_normals is None else mesh.vertex_normals[vertex].numpy(),
        material=None,
    )


def _compact(piece: Piece) -> Piece:
    """The piece without the vertices that none of its faces has."""
    used, faces = np.unique(piece.faces, return_inverse=True)
    return replace(
        piece,
        vertices=piece.vertices[used],
        faces=faces.reshape(-1, 3),
        uvs=None if piece.uvs is None else piece.uvs[used],
        colors=None if piece.colors is None else piece.colors[torch.from_numpy(used)],
        normals=None if piece.normals is None else piece.normals[used],
    )


def _shared_materials(pieces: list[Piece]) -> tuple[tuple[Material, ...], Tensor | None]:
    """The different materials of the pieces, and for each face which one; nothing where no piece has any."""
    plain = Material()
    named = (p.material for p in pieces if p.material is not None)
    if all(m.channels is None and m.name == plain.name for m in named):
        return (), None
    of_piece = [plain if piece.material is None else piece.material for piece in pieces]
    order = {id(material): material for material in of_piece}
    number = {key: i for i, key in enumerate(order)}
    index = [torch.full((len(p.faces),), number[id(m)]) for p, m in zip(pieces, of_piece, strict=True)]
    return tuple(order.values()), torch.cat(index)


def _concatenated(parts: list[Tensor | None], starts: np.ndarray, *, fill: float) -> Tensor | None:
    """The parts one after the other, `fill` for those that are None; None when all are."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    result = given[0].new_full((int(starts[-1]), given[0].shape[-1]), fill)
    for part, start in zip(parts, starts, strict=False):
        if part is not None:
            result[start : start + len(part)] = part
    return result


def _unique_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows [U, C] in the order of their first appearance, and the row [N] that each became."""
    kept, index = _first_of_equal(rows)
    return rows[kept], index


def _first_of_equal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the `rows` [N, C] are the first of their value [U], and for each row its place among these [N]."""
    values = (rows + 0.0).contiguous().numpy()  # -0.0 becomes 0.0, so that equal rows are equal bytes
    keys = values.view(np.dtype((np.void, values.dtype.itemsize * values.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return _index(first[order]), _index(place[inverse.reshape(-1)])


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _index(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
