"""`FilteredTexture`: a shader for textures that are finer than the pixels."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .cameras import Camera
from .fragments import Fragments, interpolate
from .kernels import where_true
from .mesh import Material, Mesh
from .sampling import MAX_PROBES, mip_pyramid, sample_anisotropic, uv_footprints
from .scene import pack
from .shading import surface_color


@dataclass(frozen=True, eq=False)
class FilteredTexture:
    """A shader: the textures of a mesh, each averaged over the footprint of the pixel; `render(..., shader=...)`.

    Attributes:
        camera: the one that renders, with `samples=1`.
        max_probes: as in `sample_anisotropic`.

    A material's base colour and the colours of vertices count as in `surface_color`.
    """

    camera: Camera
    max_probes: int = MAX_PROBES

    def __call__(self, fragments: Fragments, mesh: Mesh) -> Tensor:
        """Linear colours [N, C]."""
        if mesh.uvs is None or mesh.uv_faces is None or not any(m.texture is not None for m in mesh.materials):
            raise ValueError("mesh must have uvs and a texture; without one there is nothing to filter")
        limit = fragments.xy.new_tensor([self.camera.width, self.camera.height])
        if bool((fragments.xy > limit + 1).any()):
            raise ValueError(f"camera must be the one that renders, with samples=1; got pixels beyond {self.camera!r}")
        if self.camera.batch_shape.numel() == 1:  # of one mesh, or of each in a list
            fragments = replace(fragments, view=torch.zeros_like(fragments.view))
        footprint = uv_footprints(pack(mesh, self.camera), fragments)
        uv = interpolate(mesh.uvs, mesh.uv_faces, fragments)
        result = None
        for index, material in enumerate(mesh.materials):
            if material.texture is None:
                continue
            rows = torch.arange(len(fragments), device=uv.device)
            if mesh.material_index is not None:
                rows = where_true(mesh.material_index.index_select(0, fragments.face_index) == index)
            values = sample_anisotropic(
                mip_pyramid(material.texture),
                uv.index_select(0, rows),
                footprint.index_select(0, rows),
                max_probes=self.max_probes,
            )
            if result is None:
                result = values.new_ones(len(fragments), values.shape[-1])
            result = result.index_copy(0, rows, values)
        assert result is not None
        return result * surface_color(fragments, _without_textures(mesh))


def _without_textures(mesh: Mesh) -> Mesh:
    """The mesh with the base colours of its materials alone, ones where they have none."""
    materials = [
        m if m.texture is None else replace(m, texture=None, base_color=_base_color(m, m.texture))
        for m in mesh.materials
    ]
    return mesh.replace(materials=tuple(materials))


def _base_color(material: Material, texture: Tensor) -> Tensor:
    return texture.new_ones(texture.shape[-1]) if material.base_color is None else material.base_color
