"""Fragments: where a ray meets its face, recomputed differentiably from the face index, the vertices and the ray.

Only covered points exist here, packed over all views. Everything that is looked up on the surface (uv, colours,
normals, positions) is `interpolate`d with the same barycentrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .checks import shape_of
from .kernels import barycentrics, interpolate_corners
from .scene import Scene


@dataclass(frozen=True, eq=False)
class Fragments:
    """N points on the surface, each seen along one ray.

    Attributes:
        view: [N] int64, which camera of the flattened batch.
        xy: [N, 2] pixels.
        face_index: [N] int64 index into `mesh.faces`.
        barycentrics: [N, 3] weights of the face's corners on the surface in space (perspective-correct); they sum to 1.
        depth: [N] in the camera's own measure.
        front: [N] bool, whether the outside of the face (counter-clockwise corners) is seen.
    """

    view: Tensor
    xy: Tensor
    face_index: Tensor
    barycentrics: Tensor
    depth: Tensor
    front: Tensor

    def __len__(self) -> int:
        return self.face_index.shape[0]

    def __getitem__(self, index: slice) -> "Fragments":
        return Fragments(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def join_fragments(parts: Sequence[Fragments]) -> Fragments:
    """All fragments of `parts` in one, in order."""
    return Fragments(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Fragments)})


def hold(fragments: Fragments, held: Tensor | None = None) -> Fragments:
    """The same fragments; where `held` [N] (everywhere if left out) they no longer move: no derivative of their own."""
    still = fragments.barycentrics.detach(), fragments.depth.detach()
    if held is not None:
        still = (
            torch.where(held.unsqueeze(-1), still[0], fragments.barycentrics),
            torch.where(held, still[1], fragments.depth),
        )
    return replace(fragments, barycentrics=still[0], depth=still[1])


def interpolate(attribute: Tensor, faces: Tensor, fragments: Fragments) -> Tensor:
    """Values [N, C] at the fragments of an `attribute` [V, C] given at the corners that `faces` [F, 3] point to.

    Use `mesh.faces` for attributes of vertices and `mesh.uv_faces` for uvs. Differentiable to the attribute and,
    through the barycentrics, to vertices and camera.
    """
    if attribute.ndim != 2:
        raise ValueError(f"attribute must have shape (V, C), a row per vertex; got {shape_of(attribute)}")
    return interpolate_corners(attribute, faces, fragments.face_index, fragments.barycentrics)


def fragments_along(
    scene: Scene, view: Tensor, xy: Tensor, face_index: Tensor, origins: Tensor, directions: Tensor
) -> Fragments:
    """Fragments where the rays [N, 3] (camera frame) through pixels `xy` [N, 2] meet the planes of faces [N].

    The rays are expected to meet their faces; along an edge they may miss by a rounding error, and the barycentrics are
    then a little outside of [0, 1].
    """
    weights, depth, front = barycentrics(
        scene.vertices, scene.faces, face_index, scene.offsets(view),
        None if scene.camera.is_central else origins, directions, scene.linear_rays is not None,
    )  # fmt: skip
    return Fragments(view, xy, face_index, weights, depth, front)
