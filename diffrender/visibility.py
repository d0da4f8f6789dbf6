"""Visibility: the one discrete question, which face is in front at a pixel's centre? An integer image, no gradient.

Cameras with affine rays take a fast path from face to pixels; any other camera's rays are sorted into a tree and every
face finds the rays that it meets. Both paths decide with the same arithmetic.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from .cameras import Camera
from .checks import check_flags
from .kernels import (
    build_ray_tree,
    first_hit,
    first_hit_linear,
    rasterize_linear,
    scattered_slots,
    sort_rays,
)
from .mesh import Mesh
from .pixel_rays import PixelRays, pixel_rays
from .precision import full_precision
from .scene import Scene, pack

T = TypeVar("T")


@full_precision
def visibility(mesh: Mesh | Sequence[Mesh], camera: Camera, *, cull_backfaces: bool = False) -> Tensor:
    """The face in front at every pixel centre: [*batch, H, W] int64 index into `mesh.faces`, -1 where there is none.

    Args:
        mesh: one mesh for all cameras of the batch, or a list with one mesh per image.
        camera: `[*batch]` cameras of size (H, W).
        cull_backfaces: faces seen from behind are transparent; by default both sides are seen.

    A pixel centre on an edge between two faces belongs to exactly one of them; between faces at the same depth the one
    with the lower index wins.

    >>> from diffrender.cameras import PinholeCamera
    >>> triangle = Mesh(torch.tensor([[0.0, 0, 1], [2, 0, 1], [0, 2, 1]]), torch.tensor([[0, 2, 1]]))
    >>> visibility(triangle, PinholeCamera(1, 1, 0, 0, size=(2, 3))).tolist()
    [[0, -1, -1], [-1, -1, -1]]
    """
    check_flags(cull_backfaces=cull_backfaces)
    scene = pack(mesh, camera)
    face_index = face_image(scene, pixel_rays(scene), cull_backfaces)
    local = local_faces(scene, face_index)
    if not local.is_cuda:  # numpy does not wake torch's threads, see `kernels.transform`
        local = torch.from_numpy(local.numpy().astype(np.int64))
    return local.long().reshape(*scene.batch_shape, *face_index.shape[-2:])


def face_image(scene: Scene, rays: PixelRays, cull_backfaces: bool = False) -> Tensor:
    """[B, H, W] int32 index into `scene.faces` of what is seen at the pixel centres, -1 for nothing."""
    camera, vertices = scene.camera, scene.vertices.detach()
    height, width = camera.size
    if rays.linear is not None:
        xy, in_front = scene.projected
        assert scene.stacked_rays is not None
        return rasterize_linear(
            vertices, xy, in_front, scene.faces, scene.face_view, scene.stacked_rays, camera.size,
            central=camera.is_central, cull=cull_backfaces,
        )  # fmt: skip
    tree = rays.tree(camera.size, vertices)
    face, _ = first_hit(vertices, scene.faces, scene.face_view, tree, z_depth=False, cull=cull_backfaces)
    return face.int().reshape(-1, height, width)


def first_faces(
    scene: Scene,
    view: Tensor,
    xy: Tensor,
    origins: Tensor,
    directions: Tensor,
    *,
    skip_edge: Tensor | None = None,
    skip_faces: Tensor | None = None,
    beside: Tensor | None = None,
    limit: Tensor | None = None,
    cull_backfaces: bool = False,
) -> tuple[Tensor, Tensor]:
    """First face [N] (-1: none) and its depth [N] along single rays [N, 3] (camera frame) through pixels `xy` [N, 2].

    With `skip_edge` [N], an index into `mesh.topology.edges` or -1, a ray passes through the faces at its edge; with
    `skip_faces` [N, 2], through these faces (-1: none). Of a ray that passes through an edge, `beside` [N, 3] says what
    it meets: what is on this side of the edge; and what ends there, on either side, nearer than `limit` [N]. These may
    be shorter, and speak of the first rays.
    """
    vertices, faces, face_view = scene.vertices.detach(), scene.faces, scene.face_view
    starts = None if scene.camera.is_central else origins
    topology = scene.mesh.topology
    options: dict[str, Any] = {
        "cull": cull_backfaces,
        "face_edges": None if skip_edge is None else topology.face_edges,
        "skip_edge": skip_edge,
        "skip_faces": skip_faces,
        "edges": None if beside is None else topology.edges,
        "beside": beside,
        "limit": limit,
    }
    if scene.linear_rays is not None:
        rays = sort_rays(view, xy, starts, directions, scene.num_views, scene.camera.size)
        return first_hit_linear(vertices, *scene.projected, faces, face_view, rays, **options)
    tree = build_ray_tree(starts, directions, scattered_slots(view, xy, scene.num_views))
    return first_hit(vertices, faces, face_view, tree, z_depth=False, **options)


@dataclass(frozen=True, eq=False)
class AskedRays:
    """N single rays, and what is asked of them: see `first_faces`."""

    view: Tensor
    xy: Tensor
    origins: Tensor
    directions: Tensor
    skip_edge: Tensor | None = None
    skip_faces: Tensor | None = None
    beside: Tensor | None = None
    limit: Tensor | None = None
    cull_backfaces: bool = False

    def __len__(self) -> int:
        return len(self.view)


Steps: TypeAlias = Generator[AskedRays, tuple[Tensor, Tensor], T]


def answered(scene: Scene, *stages: Steps[Any]) -> list[Any]:
    """What `stages` return that ask once each which faces rays meet first; in one pass over the faces for all of them.

    A stage is a generator: it yields its rays, and is sent what `first_faces` says of them. Only the rays of the first
    stage may pass through edges or faces.
    """
    asked = [next(stage) for stage in stages]
    face, depth = first_faces(scene, **vars(_joined(asked)))
    counts = [len(rays) for rays in asked]
    results = []
    for stage, *answer in zip(stages, face.split(counts), depth.split(counts), strict=True):
        try:
            stage.send((answer[0], answer[1]))
        except StopIteration as end:
            results.append(end.value)
    return results


def _joined(parts: Sequence[AskedRays]) -> AskedRays:
    """All rays of `parts` in one, in order; only the first may pass through edges or faces."""
    first, *others = parts
    assert all(part.skip_edge is None and part.skip_faces is None and part.beside is None for part in others)
    assert all(part.cull_backfaces == first.cull_backfaces for part in others)
    rays = zip(*((part.view, part.xy, part.origins, part.directions) for part in parts), strict=True)
    view, xy, origins, directions = map(torch.cat, rays)
    return replace(first, view=view, xy=xy, origins=origins, directions=directions)


def local_faces(scene: Scene, face_index: Tensor) -> Tensor:
    """`face_index` [B, H, W] counted within each mesh of a list instead of over all of them."""
    if len(scene.face_start) == 1:
        return face_index
    start = torch.tensor(scene.face_start, device=face_index.device)[:, None, None]
    return torch.where(face_index >= 0, face_index - start, -1)
