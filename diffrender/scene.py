"""The packed scene: the triangles of every view in camera coordinates, without padding.

One mesh seen by several cameras keeps one list of faces and as many copies of its vertices as there are views; several
meshes are joined into one list of faces, each of which is drawn in the view of its mesh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cameras import Camera
from .mesh import Mesh, join


@dataclass(frozen=True, eq=False)
class Scene:
    """What the stages from visibility to the boundary term share; built by `pack`.

    Attributes:
        mesh: the mesh, or all meshes joined.
        camera: with one flat batch dimension, `[B]`.
        vertices: [P, 3] in the camera frame of their view, differentiable.
        faces: [F, 3] `mesh.faces`.
        face_view: [F] the view each face is drawn in; None when every face is drawn in every view.
        vertex_view: [P] the view of each vertex; None together with `face_view`.
        face_start: [M] where each of the joined meshes starts in `faces`.
        batch_shape: shape of the images' leading dimensions, `()` or `[*batch]`.
    """

    mesh: Mesh
    camera: Camera
    vertices: Tensor
    faces: Tensor
    face_view: Tensor | None
    vertex_view: Tensor | None
    face_start: tuple[int, ...]
    batch_shape: tuple[int, ...]

    @property
    def num_views(self) -> int:
        """B, the number of images."""
        return int(self.camera.batch_shape[0])

    @property
    def vertex_stride(self) -> int:
        """How far the copies of a vertex are apart in `vertices`; 0 when there is one copy."""
        return self.mesh.num_vertices if self.face_view is None else 0

    def corners(self, view: Tensor, face_index: Tensor) -> Tensor:
        """Indices [N, 3] into `vertices` of the corners of faces [N] in views [N]."""
        index = self.faces.index_select(0, face_index)
        return index + (view * self.vertex_stride).unsqueeze(-1) if self.vertex_stride else index


def pack(mesh: Mesh | Sequence[Mesh], camera: Camera) -> Scene:
    """Bring one mesh, or a list with one mesh per image, into the frames of the cameras.

    Args:
        mesh: one mesh for every camera, or a list of M meshes.
        camera: batched `[*batch]` or not; with a list of meshes its batch must be `[M]` or empty.
    """
    if isinstance(mesh, Mesh):
        flat = camera.flatten_batch()
        vertices = flat.world_to_camera(mesh.vertices).reshape(-1, 3)
        return Scene(mesh, flat, vertices, mesh.faces, None, None, (0,), tuple(camera.batch_shape))

    meshes = list(mesh)
    if not meshes or not all(isinstance(m, Mesh) for m in meshes):
        raise TypeError("mesh must be a Mesh or a list of at least one Mesh")
    if tuple(camera.batch_shape) not in ((), (len(meshes),)):
        raise ValueError(
            f"camera must have no batch or one of {len(meshes)}, a camera per mesh; got {tuple(camera.batch_shape)}"
        )
    device = meshes[0].vertices.device
    flat = camera.flatten_batch()
    if not camera.batch_shape:
        flat = flat[torch.zeros(len(meshes), dtype=torch.int64, device=device)]
    joined = join(meshes)

    def view_of(counts: list[int]) -> Tensor:
        return torch.repeat_interleave(
            torch.arange(len(counts), device=device), torch.tensor(counts, dtype=torch.int64, device=device)
        )

    vertex_view = view_of([m.num_vertices for m in meshes])
    rotation, translation = flat.R.index_select(0, vertex_view), flat.t.index_select(0, vertex_view)
    vertices = (rotation * joined.vertices.unsqueeze(-2)).sum(-1) + translation
    starts = [0]
    for m in meshes[:-1]:
        starts.append(starts[-1] + m.num_faces)
    face_view = view_of([m.num_faces for m in meshes])
    return Scene(joined, flat, vertices, joined.faces, face_view, vertex_view, tuple(starts), (len(meshes),))
