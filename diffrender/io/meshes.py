"""Mesh files through trimesh: OBJ with MTL and images, GLB and glTF, PLY, STL.

trimesh keeps one uv per vertex and so splits vertices along uv seams; here the pieces are put together again, and the
uvs get indices of their own. What trimesh keeps in 8 bits or drops (colour factors, uv indices when writing OBJ) is
read and written from the files themselves.

Colours by format, all of them linear in the `Mesh`:

- glTF defines them: factors and vertex colours linear, textures sRGB.
- OBJ defines nothing: `Kd`, images and vertex colours (after the position) are taken as sRGB, as most viewers do.
- PLY: vertex colours of 8 bits, sRGB.
- STL: none.
"""

import json
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.exchange.gltf import export_glb, export_gltf
from trimesh.exchange.obj import load_obj
from trimesh.geometry import triangulate_quads
from trimesh.resolvers import FilePathResolver
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from ..mesh import Material, Mesh
from .files import atomic_path
from .images import decode_srgb, encode_srgb, load_image, pixels_of, save_image, to_linear, to_pixels

_FORMATS = (".glb", ".gltf", ".obj", ".ply", ".stl")
_GLB_MAGIC = b"glTF"
_GLB_JSON_START = 20  # 12 bytes of file header, 8 bytes of chunk header


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
    _check_suffix(path, "read")
    if not path.is_file():
        raise FileNotFoundError(f"no such mesh file: {path}")
    pieces = _LOADERS[path.suffix.lower()](path)
    pieces = [piece for piece in pieces if len(piece.faces)]
    if not pieces:
        raise ValueError(f"{path} holds no triangles; point clouds and lines are no meshes")
    try:
        return _assemble(pieces, weld=path.suffix.lower() == ".stl")
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
    if mesh.num_faces == 0:
        raise ValueError(f"mesh must have faces to be saved; got none (and {mesh.num_vertices} vertices)")
    mesh = _detached(mesh)
    if mesh.vertex_colors is not None and mesh.vertex_colors.shape[-1] != 3:
        _warn_dropped(path, [f"vertex_colors with {mesh.vertex_colors.shape[-1]} channels (files hold 3)"])
        mesh = mesh.replace(vertex_colors=None)
    suffix = path.suffix.lower()
    if suffix in (".ply", ".stl"):
        _warn_dropped(path, _not_held(mesh, suffix))
    _SAVERS[suffix](path, mesh)


@dataclass(frozen=True)
class _Piece:
    """One part of a file, with one uv, colour and normal per vertex and one material: what trimesh hands out."""

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 3]
    uvs: np.ndarray | None  # [V, 2]
    colors: Tensor | None  # [V, 3] linear
    normals: np.ndarray | None  # [V, 3]
    material: Material | None


# ---------------------------------------------------------------------------------------------------------- assembling


def _assemble(pieces: list[_Piece], *, weld: bool) -> Mesh:
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


def _compact(piece: _Piece) -> _Piece:
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


def _shared_materials(pieces: list[_Piece]) -> tuple[tuple[Material, ...], Tensor | None]:
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
    result = torch.full((int(starts[-1]), given[0].shape[-1]), fill)
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


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Part:
    """A triangle mesh of a scene: which one of the file, as trimesh has it, and its place in the world [4, 4]."""

    number: int
    mesh: trimesh.Trimesh
    transform: np.ndarray

    def vertices(self) -> np.ndarray:
        vertices = np.asarray(self.mesh.vertices, dtype=np.float64)
        if np.array_equal(self.transform, np.eye(4)):
            return vertices
        return vertices @ self.transform[:3, :3].T + self.transform[:3, 3]

    def faces(self) -> np.ndarray:
        """Counter-clockwise seen from outside also where the transform mirrors."""
        faces = np.asarray(self.mesh.faces, dtype=np.int64)
        return faces[:, ::-1] if np.linalg.det(self.transform[:3, :3]) < 0 else faces

    def normals(self) -> np.ndarray:
        """Unit normals in the world: they go with the inverse transpose."""
        normals = np.asarray(self.mesh.vertex_normals, dtype=np.float64)
        matrix = self.transform[:3, :3]
        if np.array_equal(matrix, np.eye(3)) or np.linalg.det(matrix) == 0:
            return normals
        normals = normals @ np.linalg.inv(matrix)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return normals / np.where(length > 0, length, 1.0)


def _parts(scene: trimesh.Scene) -> Iterator[_Part]:
    """The triangle meshes of a scene in the order of the file."""
    order = {name: i for i, name in enumerate(scene.geometry)}
    nodes = [scene.graph[node] for node in scene.graph.nodes_geometry]
    for transform, name in sorted(nodes, key=lambda node: order[node[1]]):
        part = scene.geometry[name]
        if isinstance(part, trimesh.Trimesh) and len(part.faces):
            yield _Part(order[name], part, np.asarray(transform, dtype=np.float64))


def _load_plain(path: Path) -> list[_Piece]:
    """PLY and STL: geometry, and what a vertex of a PLY has."""
    has_normals = path.suffix.lower() == ".ply" and _ply_has_normals(path)
    pieces = []
    for part in _parts(_scene(path)):
        visual = part.mesh.visual
        colors = None
        if path.suffix.lower() == ".ply" and visual.kind == "vertex":
            colors = to_linear(np.asarray(visual.vertex_colors))[:, :3]
        pieces.append(
            _Piece(
                vertices=part.vertices(),
                faces=part.faces(),
                uvs=getattr(visual, "uv", None),
                colors=colors,
                normals=part.normals() if has_normals else None,
                material=None,
            )
        )
    return pieces


def _ply_has_normals(path: Path) -> bool:
    with path.open("rb") as file:
        for line in file:
            if line.split()[-1:] == [b"nx"]:
                return True
            if line.strip() == b"end_header":
                break
    return False


def _load_obj(path: Path) -> list[_Piece]:
    """OBJ: the geometry from trimesh, the materials from the MTL files themselves."""
    text = path.read_text(encoding="utf-8", errors="replace")
    described = _read_mtl_files(path, re.findall(r"^[ \t]*mtllib[ \t]+(.+?)[ \t]*$", text, flags=re.MULTILINE))
    with path.open("rb") as file:
        raw = _parsed(
            path, lambda: load_obj(file, resolver=FilePathResolver(str(path)), maintain_order="vt" not in text)
        )
    materials: dict[str | None, Material] = {}
    pieces = []
    for part in reversed(raw.get("geometry", {}).values()):  # trimesh takes the groups from the end
        visual = part.get("visual")
        uvs = getattr(visual, "uv", None)
        name = getattr(getattr(visual, "material", None), "name", None)
        if name in described and name not in materials:
            materials[name] = _obj_material(path, described[name], textured=uvs is not None)
        colors = part.get("vertex_colors")
        if colors is not None:
            colors = decode_srgb(torch.from_numpy(_unit_colors(np.asarray(colors)[:, :3])))
        pieces.append(
            _Piece(
                vertices=np.asarray(part["vertices"], dtype=np.float64),
                faces=_parsed(path, partial(triangulate_quads, part["faces"], dtype=np.int64)),
                uvs=None if uvs is None else np.asarray(uvs)[:, :2],
                colors=None if colors is None else colors.float(),
                normals=part.get("vertex_normals"),
                material=materials.get(name),
            )
        )
    return pieces


@dataclass(frozen=True)
class _MtlEntry:
    """What an MTL file says of one material, as it stands there."""

    file: Path
    name: str
    diffuse: tuple[float, ...] | None = None
    texture: str | None = None


def _read_mtl_files(path: Path, names: list[str]) -> dict[str, _MtlEntry]:
    entries: dict[str, _MtlEntry] = {}
    for name in dict.fromkeys(names):
        file = _beside(path, name)
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} asks for the material file {name}, which is not in {path.parent}: put it there, or remove the "
                "mtllib line"
            )
        entry = None
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, rest = line.split("#")[0].strip().partition(" ")
            key, rest = key.lower(), rest.strip()
            if key == "newmtl":
                entry = _MtlEntry(file, " ".join(rest.split()))
            elif entry is not None and key == "kd" and _is_rgb(rest):
                entry = replace(entry, diffuse=tuple(float(value) for value in rest.split()))
            elif entry is not None and key == "map_kd":
                entry = replace(entry, texture=rest)
            if entry is not None:
                entries[entry.name] = entry
    return entries


def _is_rgb(text: str) -> bool:
    return re.fullmatch(r"(\S+\s+){2}\S+", text) is not None and not text.startswith(("spectral", "xyz"))


def _obj_material(path: Path, entry: _MtlEntry, *, textured: bool) -> Material:
    base_color = texture = None
    if entry.diffuse is not None and any(value != 1.0 for value in entry.diffuse):
        base_color = decode_srgb(torch.tensor(entry.diffuse, dtype=torch.float64)).float()
    if entry.texture is not None and textured:
        file = _beside(entry.file, entry.texture)
        if not file.is_file():  # options stand before the name: "-s 1 1 1 -clamp on wood.png"
            file = _beside(entry.file, re.sub(r"^(-\w+(\s+(on|off|[rgbmlz]|[-+.\deE]+))+\s+)+", "", entry.texture))
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} asks for the texture {file.name} (material {entry.name!r} in {entry.file.name}), which is not "
                f"in {file.parent}: put it there, or remove the map_Kd line"
            )
        texture = load_image(file)[..., :3]
    return Material(entry.name, base_color, texture)


def _beside(path: Path, name: str) -> Path:
    """The file that `path` calls `name`; some exporters write backslashes."""
    file = path.parent / name
    return file if file.is_file() else path.parent / name.replace("\\", "/")


def _load_gltf(path: Path) -> list[_Piece]:
    """glTF and GLB: geometry and images from trimesh, colour factors (which it rounds to 8 bits) from the header."""
    header = _gltf_header(path)
    _check_gltf_files(path, header)
    scene = _scene(path)
    # one geometry for each primitive of a kind that trimesh reads: points, lines, triangles and strips
    primitives = [
        p for mesh in header.get("meshes", []) for p in mesh["primitives"] if p.get("mode", 4) in (0, 1, 4, 5)
    ]
    if len(primitives) != len(scene.geometry):
        raise ValueError(f"{path} holds {len(primitives)} primitives, of which only {len(scene.geometry)} can be read")
    materials: dict[tuple[int, bool], Material] = {}
    pieces = []
    for part in _parts(scene):
        primitive = primitives[part.number]
        attributes, index = primitive["attributes"], primitive.get("material")
        visual = part.mesh.visual
        uvs = getattr(visual, "uv", None)
        material = None
        if index is not None:
            key = (index, uvs is not None)
            described = header["materials"][index]
            if key not in materials:
                materials[key] = _gltf_material(path, described, visual.material, textured=uvs is not None)
            material = materials[key]
            if uvs is not None:
                uvs = _transformed_uvs(np.asarray(uvs, dtype=np.float64), described)
        colors = None
        if "COLOR_0" in attributes:
            stored = visual.vertex_colors if index is None else visual.vertex_attributes["color"]
            colors = torch.from_numpy(_unit_colors(np.asarray(stored)[:, :3])).float()
        pieces.append(
            _Piece(
                vertices=part.vertices(),
                faces=part.faces(),
                uvs=uvs,
                colors=colors,
                normals=part.normals() if "NORMAL" in attributes else None,
                material=material,
            )
        )
    return pieces


def _gltf_header(path: Path) -> dict[str, Any]:
    """The JSON of a .gltf or .glb file."""
    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        if data[:4] != _GLB_MAGIC:
            raise ValueError(f"{path} is no GLB file: it starts with {data[:4]!r} and not with {_GLB_MAGIC!r}")
        length, json_length = struct.unpack("<8xII", data[:16].ljust(16, b"\0"))
        if len(data) < max(length, _GLB_JSON_START):
            raise ValueError(f"{path} is truncated: its header promises {length} bytes, the file has {len(data)}")
        data = data[_GLB_JSON_START : _GLB_JSON_START + json_length]
    header = _parsed(path, lambda: json.loads(data))
    if not isinstance(header, dict):
        raise ValueError(f"{path} cannot be read as glTF: its JSON is no object")
    return header


def _check_gltf_files(path: Path, header: dict[str, Any]) -> None:
    """Raise when a buffer, or the image of a base colour, is a file that is not there."""
    wanted = [("buffer", buffer.get("uri")) for buffer in header.get("buffers", [])]
    for material in header.get("materials", []):
        reference = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if reference is not None:
            source = header["textures"][reference["index"]].get("source")
            uri = None if source is None else header["images"][source].get("uri")
            wanted.append((f"texture of material {material.get('name', '')!r}", uri))
    for what, uri in wanted:
        if uri is not None and not uri.startswith("data:") and not (path.parent / unquote(uri)).is_file():
            raise FileNotFoundError(
                f"{path} asks for the file {uri} ({what}), which is not in {path.parent}: put it there"
            )


def _gltf_material(path: Path, described: dict[str, Any], parsed: Any, *, textured: bool) -> Material:
    name = described.get("name") or Material().name
    rough = described.get("pbrMetallicRoughness", {})
    factor = rough.get("baseColorFactor", [1.0] * 4)[:3]
    if not rough and getattr(parsed, "baseColorFactor", None) is not None:  # from an extension, 8 bits
        factor = [value / 255 for value in parsed.baseColorFactor[:3].tolist()]
    base_color = torch.tensor(factor, dtype=torch.float32) if any(value != 1.0 for value in factor) else None
    image = getattr(parsed, "baseColorTexture", None)
    if image is None and "baseColorTexture" in rough:
        raise ValueError(
            f"{path}: the texture of material {name!r} is in a format that cannot be read; use PNG or JPEG"
        )
    texture = None
    if image is not None and textured:
        texture = to_linear(_parsed(path, lambda: pixels_of(image)))[..., :3]
    return Material(name, base_color, texture)


def _transformed_uvs(uvs: np.ndarray, described: dict[str, Any]) -> np.ndarray:
    """uvs [V, 2] after the extension KHR_texture_transform of the base colour texture, which works with v downward."""
    reference = described.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
    transform = reference.get("extensions", {}).get("KHR_texture_transform")
    if transform is None:
        return uvs
    # the extension turns uvs counter-clockwise as seen on the picture, where v points down
    sin, cos = np.sin(transform.get("rotation", 0.0)), np.cos(transform.get("rotation", 0.0))
    scaled = np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=-1) * transform.get("scale", (1.0, 1.0))
    turned = scaled @ np.array([[cos, -sin], [sin, cos]]) + transform.get("offset", (0.0, 0.0))
    return np.stack([turned[:, 0], 1 - turned[:, 1]], axis=-1)


# -------------------------------------------------------------------------------------------------------------- writing


def _save_obj(path: Path, mesh: Mesh) -> None:
    """v, vt, vn with indices of their own, which trimesh's writer cannot do; `usemtl` wherever the material changes."""
    lines = []
    if mesh.materials:
        names = _save_mtl(path.with_suffix(".mtl"), mesh.materials)
        lines.append(f"mtllib {path.with_suffix('.mtl').name}\n")
    positions = mesh.vertices
    if mesh.vertex_colors is not None:
        positions = torch.cat([positions, encode_srgb(mesh.vertex_colors)], dim=-1)
    lines.append(_text_rows("v", positions))
    indices, pattern = [mesh.faces], "%d"
    if mesh.uvs is not None and mesh.uv_faces is not None:
        lines.append(_text_rows("vt", mesh.uvs))
        indices, pattern = [*indices, mesh.uv_faces], "%d/%d"
    if mesh.vertex_normals is not None:
        lines.append(_text_rows("vn", mesh.vertex_normals))
        indices, pattern = [*indices, mesh.faces], pattern + ("/%d" if mesh.uvs is not None else "//%d")
    corners = torch.stack(indices, dim=-1) + 1  # [F, 3, 1 to 3], counted from 1
    face = "f " + " ".join([pattern] * 3) + "\n"
    if mesh.material_index is None:
        lines.append(face * mesh.num_faces % tuple(corners.reshape(-1).tolist()))
    else:
        values, counts = torch.unique_consecutive(mesh.material_index, return_counts=True)
        for material, run in zip(values.tolist(), corners.split(counts.tolist()), strict=True):
            lines.append(f"usemtl {names[material]}\n" + face * len(run) % tuple(run.reshape(-1).tolist()))
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _save_mtl(path: Path, materials: tuple[Material, ...]) -> list[str]:
    """Write the MTL file and its textures; returns the names of the materials in it, made unique, without blanks."""
    names: list[str] = []
    texts = []
    textures: dict[int, str] = {}
    num_textures = len({id(m.texture) for m in materials if m.texture is not None})
    for material in materials:
        name = "_".join(material.name.split()) or Material().name
        names.append(name if name not in names else f"{name}_{len(names)}")
        color = torch.ones(3) if material.base_color is None else encode_srgb(material.base_color)
        texts.append(f"newmtl {names[-1]}\n" + _text_rows("Kd", color[None]))
        if material.texture is not None:
            if id(material.texture) not in textures:
                suffix = ".png" if num_textures == 1 else f"_{len(textures)}.png"
                textures[id(material.texture)] = path.stem + suffix
                save_image(path.with_name(path.stem + suffix), material.texture)
            texts.append(f"map_Kd {textures[id(material.texture)]}\n")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(texts), encoding="utf-8")
    return names


def _text_rows(keyword: str, values: Tensor) -> str:
    """One line for each row of `values` [N, C], with as many digits as bring the same numbers back."""
    number = "%.9g" if values.dtype == torch.float32 else "%.17g"
    row = " ".join([keyword] + [number] * values.shape[-1]) + "\n"
    return row * len(values) % tuple(values.reshape(-1).tolist())


def _save_glb(path: Path, mesh: Mesh) -> None:
    data = export_glb(
        _gltf_scene(mesh),
        include_normals=mesh.vertex_normals is not None,
        tree_postprocessor=lambda tree: _finish_gltf(tree, mesh),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _save_gltf(path: Path, mesh: Mesh) -> None:
    files = export_gltf(
        _gltf_scene(mesh),
        include_normals=mesh.vertex_normals is not None,
        merge_buffers=True,
        embed_buffers=True,
        tree_postprocessor=lambda tree: _finish_gltf(tree, mesh),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(files["model.gltf"])


def _gltf_scene(mesh: Mesh) -> trimesh.Scene:
    """A trimesh scene with a part for each material; materials are called by their number until `_finish_gltf`."""
    images: dict[int, Image.Image] = {}
    scene = trimesh.Scene()
    for number, material in enumerate(mesh.materials or (Material(),)):
        piece = _split(mesh, number)
        if len(piece.faces) == 0:
            continue
        image = None
        if material.texture is not None:
            image = images.setdefault(id(material.texture), Image.fromarray(to_pixels(material.texture)))
        surface = PBRMaterial(
            name=str(number), baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
        )
        part = trimesh.Trimesh(
            vertices=piece.vertices,
            faces=piece.faces,
            vertex_normals=piece.normals,
            visual=TextureVisuals(uv=piece.uvs, material=surface),
            vertex_attributes=None if piece.colors is None else {"_COLOR_0": piece.colors.float().numpy()},
            process=False,
        )
        scene.add_geometry(part, geom_name=f"part_{number}", node_name=f"part_{number}")
    return scene


def _finish_gltf(tree: dict[str, Any], mesh: Mesh) -> None:
    """What trimesh would keep in 8 bits, in full: factors of base colours and vertex colours."""
    materials = mesh.materials or (Material(),)
    for described in tree.get("materials", []):
        material = materials[int(described["name"])]
        described["name"] = material.name
        if material.base_color is not None:
            described["pbrMetallicRoughness"]["baseColorFactor"] = [*material.base_color.tolist(), 1.0]
    for part in tree.get("meshes", []):
        attributes = part["primitives"][0]["attributes"]
        if "_COLOR_0" in attributes:
            attributes["COLOR_0"] = attributes.pop("_COLOR_0")


def _split(mesh: Mesh, material: int) -> _Piece:
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
    return _Piece(
        vertices=mesh.vertices[vertex].numpy(),
        faces=faces.numpy(),
        uvs=uvs,
        colors=None if mesh.vertex_colors is None else mesh.vertex_colors[vertex],
        normals=None if mesh.vertex_normals is None else mesh.vertex_normals[vertex].numpy(),
        material=None,
    )


def _save_plain(path: Path, mesh: Mesh) -> None:
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


# -------------------------------------------------------------------------------------------------------------- helpers


def _parsed(path: Path, parse: Callable[[], Any]) -> Any:
    """`parse()`, whatever it stumbles over as a ValueError of one line that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed text warns first and fails after
            return parse()
    except Exception as error:  # parsers of damaged files raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as {path.suffix[1:].upper()}, it may be truncated: {reason}"
        ) from error


def _scene(path: Path) -> trimesh.Scene:
    return _parsed(path, lambda: trimesh.load_scene(path, process=False, resolver=_UriResolver(str(path))))


class _UriResolver(FilePathResolver):
    """Finds files by URI, where a blank is %20."""

    def get(self, name: str) -> bytes:
        return super().get(unquote(name))


def _check_suffix(path: Path, what: str) -> None:
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: only {', '.join(_FORMATS)} can be {what}; got the suffix {path.suffix!r}")


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


def _unit_colors(stored: np.ndarray) -> np.ndarray:
    """Stored colours as numbers where 1 is full: integers by the largest of their type."""
    return stored.astype(np.float64) / (np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1.0)


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _index(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


_LOADERS: dict[str, Callable[[Path], list[_Piece]]] = {
    ".glb": _load_gltf,
    ".gltf": _load_gltf,
    ".obj": _load_obj,
    ".ply": _load_plain,
    ".stl": _load_plain,
}
_SAVERS: dict[str, Callable[[Path, Mesh], None]] = {
    ".glb": _save_glb,
    ".gltf": _save_gltf,
    ".obj": _save_obj,
    ".ply": _save_plain,
    ".stl": _save_plain,
}
