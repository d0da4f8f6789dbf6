"""Mesh files: OBJ with MTL and images, GLB and glTF, PLY, STL; each format is a module of its own.

Colours are linear in the `Mesh`, whatever the format says (see there). The modules of the formats are imported when a
file is read or written: trimesh, which they need, takes longer to import than all of this package.
"""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checks import shape_of
from ..mesh import Mesh
from .pieces import Piece, assemble

_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """A mesh file (.obj, .glb, .gltf, .ply, .stl) as one `Mesh` on the CPU in float32.

    - Scenes come as one mesh: node transforms are applied, parts joined in file order, polygons triangulated.
    - Vertices that a format splits, along uv seams or between materials, are one again, unless their given normals or
      colours differ; uvs have indices of their own. Without uvs and with one part, PLY, OBJ and glTF files come vertex
      for vertex.
    - Normals are kept only where the file has them.
    - Of a material: name, base colour and its texture. Alpha, metal, roughness, emission and normal maps are left out.
    - uv (0, 0) is the lower left corner of the texture, whatever the format says.

    Raises FileNotFoundError naming the file where it, or a file that it asks for (MTL, texture, buffer) is missing,
    ValueError where it is truncated or malformed, of an unknown format, or without any triangle.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path must be a mesh file; {path} is a folder")
    if not path.is_file():
        raise FileNotFoundError(f"no such mesh file: {path}")
    _check_suffix(path, "read")
    pieces = _load_pieces(path)
    pieces = [piece for piece in pieces if len(piece.faces)]
    if not pieces:
        raise ValueError(f"{path} holds no triangles; point clouds and lines are no meshes")
    try:
        return assemble(pieces, weld=path.suffix.lower() == ".stl")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def save_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write a mesh as .obj (with .mtl and .png files named after it), .glb, .gltf (one file), .ply or .stl.

    What a file holds, and what is dropped with a UserWarning that names it:

    | | uvs, textures, materials | vertex colours | given normals | numbers |
    |---|---|---|---|---|
    | .obj | yes, uv indices kept | yes, sRGB | yes | text, exact |
    | .glb .gltf | yes; vertices are split along seams | yes, linear float | yes | float32 |
    | .ply | dropped | sRGB, 8 bits | yes | float32 |
    | .stl | dropped | dropped | dropped | float32 |

    Textures are 8-bit sRGB PNG: values outside [0, 1] are clipped. Every file is replaced in one step, the mesh after
    those it refers to. Raises ValueError for an unknown suffix or a mesh without faces.
    """
    path = Path(path)
    _check_suffix(path, "written")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a Mesh; got {shape_of(mesh)}: join makes one of a list")
    if mesh.num_faces == 0:
        raise ValueError(f"mesh must have faces to be saved; got none (and {mesh.num_vertices} vertices)")
    mesh = _detached(mesh)
    if mesh.vertex_colors is not None and mesh.vertex_colors.shape[-1] != 3:
        _warn_dropped(path, [f"vertex_colors with {mesh.vertex_colors.shape[-1]} channels (files hold 3)"])
        mesh = mesh.replace(vertex_colors=None)
    suffix = path.suffix.lower()
    if suffix in (".ply", ".stl"):
        _warn_dropped(path, _not_held(mesh, suffix))
    _save(path, mesh)


def _load_pieces(path: Path) -> list[Piece]:
    match path.suffix.lower():
        case ".glb" | ".gltf":
            from .gltf import load_gltf

            return load_gltf(path)
        case ".obj":
            from .obj import load_obj

            return load_obj(path)
        case _:
            from .plain import load_plain

            return load_plain(path)


def _save(path: Path, mesh: Mesh) -> None:
    match path.suffix.lower():
        case ".glb":
            from .gltf import save_glb

            save_glb(path, mesh)
        case ".gltf":
            from .gltf import save_gltf

            save_gltf(path, mesh)
        case ".obj":
            from .obj import save_obj

            save_obj(path, mesh)
        case _:
            from .plain import save_plain

            save_plain(path, mesh)


def _check_suffix(path: Path, what: str) -> None:
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: only {', '.join(_SUFFIXES)} can be {what}; got the suffix {path.suffix!r}")


def _detached(mesh: Mesh) -> Mesh:
    """The mesh on the CPU and without gradients."""
    mesh = mesh.to("cpu")
    names = ("vertices", "uvs", "vertex_colors", "vertex_normals")
    changes: dict[str, Any] = {n: None if getattr(mesh, n) is None else getattr(mesh, n).detach() for n in names}
    shared: dict[int, Tensor] = {}  # a texture of several materials stays one object, and one file
    for material in mesh.materials:
        if material.texture is not None:
            shared.setdefault(id(material.texture), material.texture.detach())
    changes["materials"] = tuple(
        replace(
            m,
            base_color=None if m.base_color is None else m.base_color.detach(),
            texture=None if m.texture is None else shared[id(m.texture)],
        )
        for m in mesh.materials
    )
    return mesh.replace(**changes)


def _not_held(mesh: Mesh, suffix: str) -> list[str]:
    """What the mesh has and a file of this kind does not hold."""
    dropped = [name for name in ("uvs", "materials") if getattr(mesh, name) not in (None, ())]
    if suffix == ".stl":
        dropped += [name for name in ("vertex_colors", "vertex_normals") if getattr(mesh, name) is not None]
    return dropped


def _warn_dropped(path: Path, dropped: list[str]) -> None:
    if dropped:
        message = f"{path.name} does not hold {', '.join(dropped)} of the mesh; save as .glb or .obj to keep all"
        warnings.warn(message, UserWarning, stacklevel=3)
