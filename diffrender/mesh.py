"""Meshes: triangles with colours, uv coordinates and materials, as plain frozen data.

A `Mesh` is checked once, when it is made; everything behind it relies on that. Colour of the surface is glTF's product
`base_color * texture(uv) * vertex_colors`, each factor only where it is present; white if there is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .checks import check_finite, check_index, check_tensor, extremes, shape_of
from .topology import Topology


@dataclass(frozen=True, eq=False)
class Material:
    """What a set of faces is painted with; all colours are linear, not sRGB.

    Attributes:
        name: what files call it.
        base_color: [C] factor of the whole surface; None means ones.
        texture: [Ht, Wt, C] image over the unit square of uv: row 0 on top, uv (0, 0) in the lower left corner, texel
            centres at half integers.

    >>> Material(base_color=torch.tensor([1.0, 0.5, 0.0])).channels
    3
    """

    name: str = "material"
    base_color: Tensor | None = None
    texture: Tensor | None = None

    def __post_init__(self) -> None:
        if self.base_color is not None:
            check_tensor("base_color", self.base_color, ndim=1)
            check_finite("base_color", self.base_color)
        if self.texture is not None:
            check_tensor("texture", self.texture, ndim=3, hint="[height, width, channels]")
            if self.texture.numel() == 0:
                raise ValueError(f"texture must hold at least one texel; got {shape_of(self.texture)}")
        if self.base_color is not None and self.channels != self.base_color.shape[0]:
            raise ValueError(
                "base_color and texture must have the same number of channels; got "
                f"{shape_of(self.base_color)} and {shape_of(self.texture)}"
            )

    @property
    def channels(self) -> int | None:
        """Channels of its colour; None where it has no colour at all and so goes with every number."""
        colour = self.texture if self.texture is not None else self.base_color
        return None if colour is None else colour.shape[-1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Material":
        """The same material with its tensors on `device` and of `dtype`; None keeps what is."""
        return replace(self, base_color=_to(self.base_color, device, dtype), texture=_to(self.texture, device, dtype))


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in space, and what is painted on them.

    Attributes:
        vertices: [V, 3] float32 or float64, finite. To be rendered within 1e12 (float64: 1e102) of the camera.
        faces: [F, 3] indices into the vertices, counter-clockwise seen from outside; any integer dtype becomes int64.
        uvs: [T, 2] texture coordinates, (0, 0) in the lower left corner.
        uv_faces: [F, 3] indices into the uvs; default: the faces, when there are as many uvs as vertices.
        vertex_colors: [V, C] linear colour.
        vertex_normals: [V, 3] given normals; None: area-weighted ones are computed when asked for.
        materials: what `material_index` points to.
        material_index: [F] index into the materials; default: zeros, when there are materials.

    All floating-point tensors share the dtype of the vertices, and all tensors their device. A mesh may be empty
    (V = 0, F = 0). Zero-area faces are fine.

    >>> mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> mesh.num_faces, mesh.face_normals()
    (1, tensor([[0.5774, 0.5774, 0.5774]]))
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor | None = None
    uv_faces: Tensor | None = None
    vertex_colors: Tensor | None = None
    vertex_normals: Tensor | None = None
    materials: tuple[Material, ...] = ()
    material_index: Tensor | None = None

    def __post_init__(self) -> None:
        _check_vertices(self.vertices)
        if isinstance(self.materials, Material):
            raise TypeError("materials must be a list of Materials; got one Material: write [material]")
        self._check_same_device()
        self._set("materials", tuple(self.materials))
        self._set("faces", _checked_faces("faces", self.faces, self.num_vertices, "the vertices"))
        for name, last in (("vertex_colors", None), ("vertex_normals", 3)):
            if getattr(self, name) is not None:
                self._check_vertex_attribute(name, last)
        self._check_uvs()
        self._check_materials()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen for users; defaults are filled in once, at construction

    def _check_vertex_attribute(self, name: str, last: int | None) -> None:
        value = getattr(self, name)
        check_tensor(name, value, ndim=2, last=last)
        if value.shape[0] != self.num_vertices:
            raise ValueError(
                f"{name} must have one row for each of the {self.num_vertices} vertices; got {shape_of(value)}"
            )
        if value.shape[1] == 0:
            raise ValueError(f"{name} must have at least one channel; got {shape_of(value)}")
        check_finite(name, value)

    def _check_uvs(self) -> None:
        if self.uvs is None:
            if self.uv_faces is not None:
                raise ValueError(f"uv_faces needs uvs to point to; got uv_faces {shape_of(self.uv_faces)} and uvs None")
            return
        check_tensor("uvs", self.uvs, ndim=2, last=2)
        check_finite("uvs", self.uvs)
        if self.uv_faces is None:
            if self.uvs.shape[0] != self.num_vertices:
                raise ValueError(
                    f"uv_faces is needed where uvs and vertices differ in number; got uvs {shape_of(self.uvs)} and "
                    f"vertices {shape_of(self.vertices)}"
                )
            self._set("uv_faces", self.faces)
        elif self.uv_faces is not self.faces or self.uvs.shape[0] < self.num_vertices:
            self._set("uv_faces", _checked_faces("uv_faces", self.uv_faces, self.uvs.shape[0], "the uvs"))
        assert self.uv_faces is not None
        if self.uv_faces.shape != self.faces.shape:
            raise ValueError(
                f"uv_faces must have the shape of faces {shape_of(self.faces)}; got {shape_of(self.uv_faces)}"
            )

    def _check_materials(self) -> None:
        channels = {} if self.vertex_colors is None else {"vertex_colors": self.vertex_colors.shape[-1]}
        for i, material in enumerate(self.materials):
            if not isinstance(material, Material):
                raise TypeError(f"materials[{i}] must be a Material; got {shape_of(material)}")
            if material.texture is not None and self.uvs is None:
                raise ValueError(
                    f"materials[{i}] ({material.name!r}) has a texture, but the mesh has no uvs to place it by"
                )
            if material.channels is not None:
                channels[f"materials[{i}]"] = material.channels
        if len(set(channels.values())) > 1:
            raise ValueError(f"vertex_colors and materials are multiplied and must agree in channels; got {channels}")
        if not self.materials:
            if self.material_index is not None:
                raise ValueError(
                    f"material_index needs materials to point to; got {shape_of(self.material_index)} and none"
                )
            return
        if self.material_index is None:
            self._set("material_index", self.faces.new_zeros(self.num_faces))
            return
        if not isinstance(self.material_index, Tensor) or self.material_index.shape != (self.num_faces,):
            raise ValueError(
                f"material_index must have one entry for each of the {self.num_faces} faces; got "
                f"{shape_of(self.material_index)}"
            )
        column = _checked_faces("material_index", self.material_index[:, None], len(self.materials), "the materials", 1)
        if column.dtype != self.material_index.dtype:  # else keep the object: the topology is kept along with it
            self._set("material_index", column.squeeze(-1))

    def _check_same_device(self) -> None:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        for i, material in enumerate(self.materials):
            for name in ("base_color", "texture"):
                if getattr(material, name, None) is not None:
                    tensors[f"materials[{i}].{name}"] = getattr(material, name)
        for name, value in tensors.items():
            if value.device != self.vertices.device:
                raise ValueError(
                    f"{name} must be on the device of vertices, {self.vertices.device}; got {value.device}: "
                    "move the whole mesh with mesh.to(device)"
                )
            if value.is_floating_point() and value.dtype != self.vertices.dtype:
                raise TypeError(
                    f"{name} must have the dtype of vertices, {self.vertices.dtype}; got {shape_of(value)}: "
                    "convert one of them with .to(dtype)"
                )

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.vertices.shape[0]

    @property
    def num_faces(self) -> int:
        """F."""
        return self.faces.shape[0]

    @cached_property
    def topology(self) -> Topology:
        """Which faces meet where (see `topology.Topology`): built when first asked for, then kept."""
        source = self.__dict__.get("_source")
        if source is not None:
            return source.topology
        return Topology.build(self.faces, self.vertices, self.uv_faces, self.material_index)

    def replace(self, **changes: Any) -> "Mesh":
        """A mesh with other fields; where vertices move and faces stay the same, both share one topology.

        Given `vertex_normals` belong to the vertices they came with: new vertices drop them, unless new normals come
        along. Vertices that share a position in the first mesh stay welded, also when they are moved apart.

        >>> mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
        >>> mesh.replace(vertices=2 * mesh.vertices).bounds()
        tensor([[0., 0., 0.],
                [2., 2., 2.]])
        """
        if "vertices" in changes:
            changes.setdefault("vertex_normals", None)
        if "faces" in changes and self.uv_faces is self.faces:
            changes.setdefault("uv_faces", None)
        if "uvs" in changes and changes["uvs"] is None:
            changes.setdefault("uv_faces", None)
        if "materials" in changes and not changes["materials"]:
            changes.setdefault("material_index", None)
        mesh = replace(self, **changes)
        kept = all(getattr(mesh, name) is getattr(self, name) for name in ("faces", "uv_faces", "material_index"))
        if kept and mesh.vertices.shape == self.vertices.shape:
            mesh.__dict__["_source"] = self.__dict__.get("_source", self)  # whoever is asked first builds it for all
        return mesh

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Mesh":
        """The same mesh on `device` and with floating-point tensors of `dtype`; None keeps what is."""
        changes: dict[str, Any] = {}
        for name in ("vertices", "uvs", "vertex_colors", "vertex_normals"):
            changes[name] = _to(getattr(self, name), device, dtype)
        for name in ("faces", "material_index"):
            changes[name] = _to(getattr(self, name), device, None)
        shared = self.uv_faces is self.faces
        changes["uv_faces"] = changes["faces"] if shared else _to(self.uv_faces, device, None)
        mesh = replace(self, **changes, materials=tuple(m.to(device, dtype) for m in self.materials))
        if "topology" in self.__dict__.get("_source", self).__dict__:
            mesh.__dict__["topology"] = self.topology.to(mesh.vertices.device)
        return mesh

    def bounds(self) -> Tensor:
        """[2, 3] smallest and largest coordinates of the vertices; without any (inf, -inf), which bound nothing."""
        if self.num_vertices == 0:
            return self.vertices.new_tensor([[torch.inf] * 3, [-torch.inf] * 3])
        return torch.stack([self.vertices.amin(0), self.vertices.amax(0)])

    def face_normals(self) -> Tensor:
        """[F, 3] unit normals, outward for counter-clockwise faces; zero, with zero gradient, for zero-area faces."""
        return _unit(self._doubled_areas())

    def normals(self) -> Tensor:
        """[V, 3] vertex normals: the given ones as they are, or else unit, area-weighted means of the faces around.

        Vertices at the same position (split at a uv seam) get the same normal. It is zero, with zero gradient, where a
        vertex has no face, or where the normals of its faces cancel.
        """
        if self.vertex_normals is not None:
            return self.vertex_normals
        weld = self.topology.weld
        corners = weld.index_select(0, self.faces.reshape(-1))
        per_corner = self._doubled_areas().repeat_interleave(3, dim=0)  # [3F, 3]
        summed = torch.zeros_like(self.vertices).index_add(0, corners, per_corner)
        return _unit(summed).index_select(0, weld)

    def _doubled_areas(self) -> Tensor:
        """[F, 3] face normals, as long as twice the area of the face."""
        # index_select and not vertices[faces]: its backward gives the same bits from run to run on the CPU
        a, b, c = self.vertices.index_select(0, self.faces.reshape(-1)).reshape(-1, 3, 3).unbind(1)
        return torch.linalg.cross(b - a, c - a)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several: vertices, faces and materials one after the other, in the order given.

    What only some of them have is filled in so that nothing looks different: white vertex colours, a uv that nothing
    reads, a material without colour, computed normals. Welding is by position, so meshes that touch become one surface.

    >>> triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> join([triangle, triangle]).faces
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if isinstance(meshes, Mesh):
        raise TypeError("meshes must be a list of Meshes; got one Mesh")
    meshes = list(meshes)
    if not meshes:
        raise ValueError("meshes must hold at least one mesh; got none")
    for i, mesh in enumerate(meshes):
        if not isinstance(mesh, Mesh):
            raise TypeError(f"meshes[{i}] must be a Mesh; got {shape_of(mesh)}")
    if len(meshes) == 1:
        return meshes[0]
    joined: dict[str, Any] = {
        "vertices": torch.cat([m.vertices for m in meshes]),
        "faces": _cat_indices([m.faces for m in meshes], [m.num_vertices for m in meshes]),
    }
    if any(m.uvs is not None for m in meshes):
        uvs = [m.vertices.new_zeros(1, 2) if m.uvs is None else m.uvs for m in meshes]
        uv_faces = [torch.zeros_like(m.faces) if m.uv_faces is None else m.uv_faces for m in meshes]
        joined |= {"uvs": torch.cat(uvs), "uv_faces": _cat_indices(uv_faces, [len(uv) for uv in uvs])}
    if any(m.vertex_colors is not None for m in meshes):
        joined["vertex_colors"] = torch.cat(_filled_colors(meshes))
    if any(m.vertex_normals is not None for m in meshes):
        joined["vertex_normals"] = torch.cat([m.normals() for m in meshes])
    if any(m.materials for m in meshes):
        materials = [m.materials or (Material(),) for m in meshes]
        index = [m.faces.new_zeros(m.num_faces) if m.material_index is None else m.material_index for m in meshes]
        joined |= {
            "materials": tuple(material for group in materials for material in group),
            "material_index": _cat_indices(index, [len(group) for group in materials]),
        }
    return Mesh(**joined)


def _filled_colors(meshes: list[Mesh]) -> list[Tensor]:
    """Vertex colours of the meshes, white for those without."""
    channels = {m.vertex_colors.shape[-1] for m in meshes if m.vertex_colors is not None}
    if len(channels) > 1:
        raise ValueError(f"meshes must agree in the channels of vertex_colors to be joined; got {sorted(channels)}")
    size = channels.pop()
    return [m.vertices.new_ones(m.num_vertices, size) if m.vertex_colors is None else m.vertex_colors for m in meshes]


def _cat_indices(indices: list[Tensor], counts: list[int]) -> Tensor:
    """Indices one after the other, each shifted by what the ones before it count."""
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return torch.cat([index + start for index, start in zip(indices, starts, strict=True)])


def _check_vertices(vertices: object) -> None:
    check_tensor("vertices", vertices, ndim=2, last=3, hint="one row (x, y, z) for each vertex")
    assert isinstance(vertices, Tensor)
    if vertices.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"vertices must be float32 or float64; got {shape_of(vertices)}")
    if vertices.numel() == 0:
        return
    if not all(map(math.isfinite, extremes(vertices))):
        check_finite("vertices", vertices)  # says which


def _checked_faces(name: str, value: object, count: int, of: str, last: int = 3) -> Tensor:
    """`value` as int64 (the same object where it is one), after checking that it indexes `count` entries."""
    if isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool:
        value = value.to(torch.int64)
    check_index(name, value, last=last, count=count, of=of)
    assert isinstance(value, Tensor)
    return value


def _unit(vectors: Tensor) -> Tensor:
    """[N, 3] vectors of length 1; zero, with zero gradient, where the length is nothing that can be divided by."""
    # The direction does not depend on the length, so the scale is a constant to autograd; it keeps squares of tiny and
    # huge areas inside the range of the dtype. Below the smallest normal number 1 / scale would overflow.
    scale = vectors.detach().abs().amax(-1, keepdim=True) if len(vectors) else vectors.new_zeros(0, 1)
    alive = scale >= torch.finfo(vectors.dtype).tiny
    scaled = torch.where(alive, vectors, 0.0) / torch.where(alive, scale, 1.0)
    squared = (scaled * scaled).sum(-1, keepdim=True)
    return scaled / torch.where(alive, squared, 1.0).sqrt()


def _to(value: Tensor | None, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor | None:
    return None if value is None else value.to(device=device, dtype=dtype)
