"""Fragments: where a ray meets its face, recomputed differentiably from the face index, the vertices and the ray.

Only covered points exist here, packed over all views. Everything that is looked up on the surface (uv, colours,
normals, positions) is `interpolate`d with the same barycentrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Sightings:
    """N rays, and the face that is seen along each; what fragments are computed from.

    Attributes:
        view: [N] int64, which camera of the flattened batch.
        xy: [N, 2] pixels.
        face_index: [N] int64 index into `mesh.faces`.
        origins: [N, 3] of the rays, camera frame; None: the centre of the camera.
        directions: [N, 3].
    """

    view: Tensor
    xy: Tensor
    face_index: Tensor
    origins: Tensor | None
    directions: Tensor

    def __len__(self) -> int:
        return self.face_index.shape[0]

    def __getitem__(self, index: slice) -> "Sightings":
        origins = None if self.origins is None else self.origins[index]
        return Sightings(self.view[index], self.xy[index], self.face_index[index], origins, self.directions[index])


def join_sightings(parts: Sequence[Sightings]) -> Sightings:
    """All sightings of `parts` in one, in order."""
    origins = [part.origins for part in parts if part.origins is not None]
    return Sightings(
        torch.cat([part.view for part in parts]),
        torch.cat([part.xy for part in parts]),
        torch.cat([part.face_index for part in parts]),
        torch.cat(origins) if origins else None,
        torch.cat([part.directions for part in parts]),
    )


def sightings(
    scene: Scene, view: Tensor, xy: Tensor, face_index: Tensor, origins: Tensor, directions: Tensor
) -> Sightings:
    """Of faces [N] in the pixels `xy` [N, 2] of `view` [N], along rays [N, 3]: those that `scene.rays_at` gives."""
    return Sightings(view, xy, face_index, None if scene.camera.is_central else origins, directions)


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
    return fragments_of(scene, sightings(scene, view, xy, face_index, origins, directions))


def fragments_of(scene: Scene, seen: Sightings, held: Tensor | None = None, *, hold_backs: bool = False) -> Fragments:
    """Fragments of sightings: see `fragments_along`.

    Those `held` [N] bool do not move: they have no derivative of their own; nor, if `hold_backs`, do those on faces
    seen from behind.
    """
    weights, depth, front = barycentrics(
        scene.vertices, scene.faces, seen.face_index, scene.offsets(seen.view), seen.origins, seen.directions,
        scene.linear_rays is not None, held, hold_backs,
    )  # fmt: skip
    return Fragments(seen.view, seen.xy, seen.face_index, weights, depth, front)
