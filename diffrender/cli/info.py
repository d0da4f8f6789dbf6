"""`diffrender info`: what is in a mesh file or an image set."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..io.datasets import load_dataset
from ..io.image_set import ImageSet
from ..io.meshes import load_mesh
from ..mesh import Material, Mesh

Rows = list[tuple[str, str]]


def run(options: argparse.Namespace) -> None:
    """Print a table."""
    path: Path = options.path
    if path.is_dir() or path.suffix.lower() in (".json", ".txt"):
        rows = dataset_rows(load_dataset(path))
    else:
        rows = mesh_rows(load_mesh(path))
    width = max(len(name) for name, _ in rows)
    print(path)
    for name, value in rows:
        print(f"  {name:{width}}  {value}")


def mesh_rows(mesh: Mesh) -> Rows:
    """The facts about a mesh, a name and a value each."""
    topology = mesh.topology
    count = topology.edge_count
    opened, branching = int((count == 1).sum()), int((count > 2).sum())
    area = float(areas(mesh).sum())
    rows = [
        ("vertices", f"{mesh.num_vertices} at {len(topology.weld.unique())} positions"),
        ("faces", f"{mesh.num_faces}, {int((areas(mesh) == 0).sum())} without area"),
        ("edges", f"{topology.num_edges}, {opened} open, {branching} with more than 2 faces"),
        ("components", str(len(topology.component[mesh.faces].unique()))),
        ("watertight", "yes" if opened == 0 and branching == 0 else "no"),
        ("orientation", "consistent" if is_oriented(mesh) else "neighbouring faces disagree about their outside"),
        *bounds_rows(mesh.bounds()),
        ("surface area", f"{area:.6g}"),
        ("uvs", "none" if mesh.uvs is None else str(len(mesh.uvs))),
        ("vertex colors", "none" if mesh.vertex_colors is None else f"{mesh.vertex_colors.shape[-1]} channels"),
        ("normals", "computed" if mesh.vertex_normals is None else "in the file"),
        ("materials", str(len(mesh.materials) or "none")),
    ]
    for i, material in enumerate(mesh.materials):
        assert mesh.material_index is not None
        rows.append((f"  {material.name}", material_text(material, int((mesh.material_index == i).sum()))))
    return rows


def areas(mesh: Mesh) -> Tensor:
    """[F] the areas of the faces."""
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    return 0.5 * torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=-1)


def is_oriented(mesh: Mesh) -> bool:
    """Whether the two faces at every edge that has two run along it in opposite directions."""
    topology = mesh.topology
    return not bool(topology.surplus[topology.edge_count == 2].any())


def bounds_rows(bounds: Tensor) -> Rows:
    low, high = bounds.tolist()
    size = [b - a for a, b in zip(low, high, strict=True)]
    return [("bounds", f"{vector(low)} to {vector(high)}"), ("size", vector(size))]


def vector(values: Sequence[float]) -> str:
    """Numbers in parentheses, as many digits as one wants to read.

    >>> vector([-0.0, 1 / 3])
    '(0, 0.33333)'
    """
    return "(" + ", ".join(f"{value + 0.0:.5g}" for value in values) + ")"


def material_text(material: Material, num_faces: int) -> str:
    parts = [f"{num_faces} faces"]
    if material.texture is not None:
        parts.append(f"texture {material.texture.shape[1]}x{material.texture.shape[0]}")
    if material.base_color is not None:
        parts.append(f"base color {vector(material.base_color.tolist())} linear")
    return ", ".join(parts)


def dataset_rows(images: ImageSet) -> Rows:
    """The facts about an image set, a name and a value each."""
    held_out = [name for name, held in zip(images.names, images.held_out, strict=True) if held]
    centers = torch.stack([camera.center for camera in images.cameras])
    rows = [
        ("views", f"{len(images)}: {images.names[0]} ... {images.names[-1]}"),
        ("held out", ", ".join(held_out) or "none"),
        ("image size", counted([f"{width}x{height}" for height, width in images.sizes])),
        ("cameras", counted([type(camera).__name__ for camera in images.cameras])),
    ]
    for name, text in (("fx", "focal length x"), ("fy", "focal length y"), ("cx", "center x"), ("cy", "center y")):
        values = [float(getattr(camera, name)) for camera in images.cameras if hasattr(camera, name)]
        if values:
            rows.append((text, f"{span(values)} pixels"))
    rows += [(f"camera {name}", value) for name, value in bounds_rows(torch.stack([centers.amin(0), centers.amax(0)]))]
    if images.bounds is None:
        rows.append(("object bounds", "not in the set"))
    else:
        rows += [(f"object {name}", value) for name, value in bounds_rows(images.bounds)]
    return rows


def counted(values: Sequence[str]) -> str:
    """The different values, with how often they come where there are several.

    >>> counted(["640x480", "640x480"]), counted(["a", "b", "a"])
    ('640x480', 'a (2), b (1)')
    """
    counts = Counter(values)
    return values[0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts.most_common())


def span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
