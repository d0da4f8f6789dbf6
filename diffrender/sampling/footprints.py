"""How large a pixel is on a texture: the Jacobian of uv by the pixel, for every camera."""

import torch
from torch import Tensor

from ..fragments import Fragments, fragments_along, interpolate
from ..scene import Scene


def uv_footprints(scene: Scene, fragments: Fragments) -> Tensor:
    """The Jacobian [N, 2, 2] of (u, v) by the pixel's (x, y), each in the plane of its face.

    Of the camera's own rays, so it is exact for any camera; and differentiable, to vertices, uvs and camera.
    """
    mesh = scene.mesh
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("mesh must have uvs to have footprints on its textures")
    with torch.enable_grad():
        xy = fragments.xy.detach().requires_grad_()
        origins, directions = scene.rays_at(fragments.view, xy)
        moved = fragments_along(scene, fragments.view, xy, fragments.face_index, origins, directions)
        uv = interpolate(mesh.uvs, mesh.uv_faces, moved)  # each point's depends on its own pixel alone
        rows = [torch.autograd.grad(uv[:, i].sum(), xy, create_graph=True)[0] for i in range(2)]
    footprint = torch.stack(rows, 1)
    return footprint if torch.is_grad_enabled() else footprint.detach()
