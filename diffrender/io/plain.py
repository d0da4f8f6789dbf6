"""PLY and STL: geometry, and what a vertex of a PLY has. Vertex colours of a PLY have 8 bits, sRGB."""

from pathlib import Path

import numpy as np
import trimesh

from ..mesh import Mesh
from .files import atomic_path
from .images import to_linear, to_pixels
from .pieces import Piece
from .trimesh_scene import load_scene, parts


def load_plain(path: Path) -> list[Piece]:
    """PLY and STL: geometry, and what a vertex of a PLY has."""
    has_normals = path.suffix.lower() == ".ply" and _ply_has_normals(path)
    pieces = []
    for part in parts(load_scene(path)):
        visual = part.mesh.visual
        colors = None
        if path.suffix.lower() == ".ply" and visual.kind == "vertex":
            colors = to_linear(np.asarray(visual.vertex_colors))[:, :3]
        pieces.append(
            Piece(
                vertices=part.vertices(),
                faces=part.faces(),
                uvs=getattr(visual, "uv", None),
                colors=colors,
                normals=part.normals() if has_normals else None,
                material=None,
            )
        )
    return pieces


def save_plain(path: Path, mesh: Mesh) -> None:
    colors = None
    if mesh.vertex_colors is not None:
        colors = to_pixels(mesh.vertex_colors[None])[0]
    normals = None if mesh.vertex_normals is None else mesh.vertex_normals.numpy()
    plain = trimesh.Trimesh(
        vertices=mesh.vertices.numpy(),
        faces=mesh.faces.numpy(),
        vertex_normals=normals,
        vertex_colors=colors,
        process=False,
    )
    options = {"vertex_normal": normals is not None} if path.suffix.lower() == ".ply" else {}
    data = plain.export(file_type=path.suffix.lower()[1:], **options)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _ply_has_normals(path: Path) -> bool:
    with path.open("rb") as file:
        for line in file:
            if line.split()[-1:] == [b"nx"]:
                return True
            if line.strip() == b"end_header":
                break
    return False
