"""OBJ with its MTL file and images: the geometry through trimesh, materials from the MTL itself.

The format defines no colours: `Kd`, images and vertex colours (after the position) are taken as sRGB, as most viewers
do. trimesh drops uv indices when writing, so the writer is our own.
"""

import itertools
import re
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from trimesh.exchange import obj as trimesh_obj
from trimesh.geometry import triangulate_quads
from trimesh.resolvers import FilePathResolver

from ..mesh import Material, Mesh
from .files import atomic_path, naming
from .images import decode_srgb, encode_srgb, load_image, save_image, unit_values
from .pieces import Piece
from .trimesh_scene import parsed


def load_obj(path: Path) -> list[Piece]:
    """OBJ: the geometry from trimesh, the materials from the MTL files themselves."""
    text = path.read_text(encoding="utf-8", errors="replace")
    described = _read_mtl_files(path, re.findall(r"^[ \t]*mtllib[ \t]+(.+?)[ \t]*$", text, flags=re.MULTILINE))
    with path.open("rb") as file:
        raw = parsed(
            path,
            lambda: trimesh_obj.load_obj(file, resolver=_Names(list(described)), maintain_order="vt" not in text),
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
            colors = decode_srgb(torch.from_numpy(unit_values(np.asarray(colors)[:, :3])))
        pieces.append(
            Piece(
                vertices=np.asarray(part["vertices"], dtype=np.float64),
                faces=parsed(path, partial(triangulate_quads, part["faces"], dtype=np.int64)),
                uvs=None if uvs is None else np.asarray(uvs)[:, :2],
                colors=None if colors is None else colors.float(),
                normals=part.get("vertex_normals"),
                material=materials.get(name),
            )
        )
    return pieces


class _Names(FilePathResolver):
    """Gives trimesh the names of materials in the place of MTL files.

    It would read one file only, and lose all materials where it stumbles over one number.
    """

    def __init__(self, names: list[str]) -> None:
        self.text = "".join(f"newmtl {name}\n" for name in names)

    def get(self, name: str) -> bytes:
        return self.text.encode()


def save_obj(path: Path, mesh: Mesh) -> None:
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


_COMMENT = re.compile(r"(?:^|\s)#")  # names of materials and files may hold the character


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
            key, rest = (*_COMMENT.split(line)[0].split(maxsplit=1), "", "")[:2]
            key, rest = key.lower(), rest.strip()
            if key == "newmtl":
                entry = _MtlEntry(file, " ".join(rest.split()))
            elif entry is not None and key == "kd" and not rest.startswith(("spectral", "xyz")):
                with naming(f"{file}, material {entry.name!r}, Kd"):
                    entry = replace(entry, diffuse=_rgb(rest))
            elif entry is not None and key == "map_kd":
                entry = replace(entry, texture=rest)
            if entry is not None:
                entries[entry.name] = entry
    return entries


def _rgb(text: str) -> tuple[float, ...]:
    """Three numbers; one alone is grey, and what some exporters write after them is no colour."""
    values = tuple(float(word) for word in text.split()[:3])
    if len(values) not in (1, 3):
        raise ValueError(f"a colour has three numbers, or one for grey; got {text!r}")
    return values if len(values) == 3 else 3 * values


def _obj_material(path: Path, entry: _MtlEntry, *, textured: bool) -> Material:
    base_color = texture = None
    if entry.diffuse is not None and any(value != 1.0 for value in entry.diffuse):
        base_color = decode_srgb(torch.tensor(entry.diffuse, dtype=torch.float64)).float()
    if entry.texture is not None and not textured:
        warnings.warn(
            f"{path.name}: not all faces of the material {entry.name!r} have uvs, so that its texture {entry.texture} "
            "is left out",
            UserWarning,
            stacklevel=4,
        )
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


def _save_mtl(path: Path, materials: tuple[Material, ...]) -> list[str]:
    """Write the MTL file and its textures; returns the names of the materials in it, made unique, without blanks."""
    names: list[str] = []
    texts = []
    textures: dict[int, str] = {}
    num_textures = len({id(m.texture) for m in materials if m.texture is not None})
    for material in materials:
        name = "_".join(material.name.split()) or Material().name
        numbered = (f"{name}_{i}" for i in itertools.count(len(names)))
        names.append(next(unused for unused in itertools.chain([name], numbered) if unused not in names))
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
