"""glTF and GLB: geometry and images through trimesh, what it keeps in 8 bits from the JSON itself.

The format defines its colours: factors and vertex colours are linear, textures sRGB.
"""

import json
import struct
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
import trimesh
from PIL import Image
from trimesh.exchange.gltf import export_glb, export_gltf
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from ..mesh import Material, Mesh
from .files import atomic_path
from .images import pixels_of, to_linear, to_pixels, unit_values
from .pieces import Piece, split_piece
from .trimesh_scene import load_scene, parsed, parts

_GLB_MAGIC = b"glTF"
_GLB_JSON_START = 20  # 12 bytes of file header, 8 bytes of chunk header
_FLOAT = 5126  # componentType of an accessor
_COMPRESSIONS = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"}


def load_gltf(path: Path) -> list[Piece]:
    """glTF and GLB: geometry and images from trimesh, colour factors (which it rounds to 8 bits) from the header."""
    header = gltf_header(path)
    try:
        _check_gltf_files(path, header)
        _check_numbers(path, header)
        # one geometry for each primitive of a kind that trimesh reads: points, lines, triangles and strips
        primitives = [p for p in _primitives(header) if p.get("mode", 4) in (0, 1, 4, 5)]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as glTF: its JSON speaks of what it does not hold, {error}") from error
    scene = load_scene(path)
    if len(primitives) != len(scene.geometry):
        raise ValueError(f"{path} holds {len(primitives)} primitives, of which only {len(scene.geometry)} can be read")
    materials: dict[tuple[int, bool], Material] = {}
    pieces = []
    for part in parts(scene):
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
            colors = torch.from_numpy(unit_values(np.asarray(stored)[:, :3])).float()
        pieces.append(
            Piece(
                vertices=part.vertices(),
                faces=part.faces(),
                uvs=uvs,
                colors=colors,
                normals=part.normals() if "NORMAL" in attributes else None,
                material=material,
            )
        )
    return pieces


def save_glb(path: Path, mesh: Mesh) -> None:
    data = export_glb(
        _to_scene(mesh),
        include_normals=mesh.vertex_normals is not None,
        tree_postprocessor=lambda tree: _finish_gltf(tree, mesh),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def save_gltf(path: Path, mesh: Mesh) -> None:
    files = export_gltf(
        _to_scene(mesh),
        include_normals=mesh.vertex_normals is not None,
        merge_buffers=True,
        embed_buffers=True,
        tree_postprocessor=lambda tree: _finish_gltf(tree, mesh),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(files["model.gltf"])


def gltf_header(path: Path) -> dict[str, Any]:
    """The JSON of a .gltf or .glb file."""
    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        if data[:4] != _GLB_MAGIC:
            raise ValueError(f"{path} is no GLB file: it starts with {data[:4]!r} and not with {_GLB_MAGIC!r}")
        length, json_length = struct.unpack("<8xII", data[:16].ljust(16, b"\0"))
        if len(data) < max(length, _GLB_JSON_START):
            raise ValueError(f"{path} is truncated: its header promises {length} bytes, the file has {len(data)}")
        data = data[_GLB_JSON_START : _GLB_JSON_START + json_length]
    header = parsed(path, lambda: json.loads(data))
    if not isinstance(header, dict):
        raise ValueError(f"{path} cannot be read as glTF: its JSON is no object")
    return header


def _primitives(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [primitive for mesh in header.get("meshes", []) for primitive in mesh["primitives"]]


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


def _check_numbers(path: Path, header: dict[str, Any]) -> None:
    """Raise where numbers are stored in a way that trimesh takes for other numbers, or for zeros."""
    compressed = sorted(_COMPRESSIONS & set(header.get("extensionsRequired", [])))
    if compressed:
        raise ValueError(f"{path} is compressed ({', '.join(compressed)}), which cannot be read: save it uncompressed")
    accessors = header.get("accessors", [])
    for primitive in _primitives(header):
        used = {**primitive["attributes"], "indices": primitive.get("indices")}
        for name in ("POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0", "indices"):
            accessor = {} if used.get(name) is None else accessors[used[name]]
            whole = name == "TEXCOORD_0" and accessor.get("componentType", _FLOAT) != _FLOAT
            if "sparse" in accessor or whole or (accessor.get("normalized") and name != "COLOR_0"):
                raise ValueError(
                    f"{path} stores {name} {'sparsely' if 'sparse' in accessor else 'in whole numbers (quantized)'}, "
                    "which cannot be read: save it as plain 32-bit floating-point numbers"
                )


def _gltf_material(path: Path, described: dict[str, Any], material: Any, *, textured: bool) -> Material:
    name = described.get("name") or Material().name
    rough = described.get("pbrMetallicRoughness", {})
    factor = rough.get("baseColorFactor", [1.0] * 4)[:3]
    if not rough and getattr(material, "baseColorFactor", None) is not None:  # from an extension, 8 bits
        factor = [value / 255 for value in material.baseColorFactor[:3].tolist()]
    base_color = torch.tensor(factor, dtype=torch.float32) if any(value != 1.0 for value in factor) else None
    if rough.get("baseColorTexture", {}).get("texCoord", 0) != 0:
        warnings.warn(
            f"{path.name}: material {name!r} places its texture by a second set of uvs, and only the first one is read",
            UserWarning,
            stacklevel=4,
        )
    image = getattr(material, "baseColorTexture", None)
    if image is None and "baseColorTexture" in rough:
        raise ValueError(
            f"{path}: the texture of material {name!r} is in a format that cannot be read; use PNG or JPEG"
        )
    texture = None
    if image is not None and textured:
        texture = to_linear(parsed(path, lambda: pixels_of(image)))[..., :3]
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


def _to_scene(mesh: Mesh) -> trimesh.Scene:
    """A trimesh scene with a part for each material; materials are called by their number until `_finish_gltf`."""
    images: dict[int, Image.Image] = {}
    scene = trimesh.Scene()
    for number, material in enumerate(mesh.materials or (Material(),)):
        piece = split_piece(mesh, number)
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
