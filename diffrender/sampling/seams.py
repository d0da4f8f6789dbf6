"""Seams of the uv map: where they are, and what a filter reads next to them, filled so that it shows nothing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import OrthographicCamera
from ..checks import check_size, check_tensor, shape_of
from ..mesh import Mesh
from ..pixel_rays import pixel_rays
from ..scene import pack
from ..topology import halfedge_ends
from ..visibility import face_image
from .layouts import to_nchw, to_nhwc


def covered_texels(mesh: Mesh, size: tuple[int, int]) -> Tensor:
    """[Ht, Wt] bool: texels with their centre in a face of the uv map, in the unit square.

    >>> from diffrender.primitives import sphere
    >>> covered_texels(sphere(), (8, 8)).shape
    torch.Size([8, 8])
    """
    uvs, uv_faces = _uv_map(mesh)
    height, width = check_size("size", size)
    u, v = uvs.detach().unbind(-1)
    flat = Mesh(torch.stack([u * width, (1 - v) * height, torch.ones_like(u)], -1), uv_faces)
    camera = OrthographicCamera(1.0, 1.0, 0.0, 0.0, size=size).to(dtype=u.dtype, device=u.device)
    with torch.no_grad():
        scene = pack(flat, camera)
        return face_image(scene, pixel_rays(scene), False)[0] >= 0


def uv_seams(mesh: Mesh) -> Tensor:
    """Where the uv map is cut: [S, 2, 2, 2] for each of S edges its two sides, of each the two ends, (u, v).

    A share of the way along one side is the same place on the surface as that share along the other one, so that

        left, right = sample_texture(texture, torch.lerp(seams[:, :, 0], seams[:, :, 1], share)).unbind(1)

    differ by as much as the seams show; in a loss, their difference takes it away. Only edges of two faces count.

    >>> from diffrender.primitives import cube
    >>> left, right = uv_seams(cube())[0].tolist()  # the lower side of one square goes on at the left side of another
    >>> left, right
    ([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]])
    """
    uvs, uv_faces = _uv_map(mesh)
    topology = mesh.topology
    edge = (topology.seam & (topology.edge_count == 2)).nonzero().squeeze(1)
    side = topology.edge_start[edge, None] + torch.arange(2, device=edge.device)
    ends = torch.stack(halfedge_ends(uv_faces), -1)[topology.edge_halfedges[side]]
    ends = torch.where(topology.forward[side].unsqueeze(-1), ends, ends.flip(-1))  # the lower vertex first
    found = uvs.index_select(0, ends.reshape(-1)).view(-1, 2, 2, 2)
    return found[(found[:, 0] != found[:, 1]).flatten(1).any(1)]


def fill_texture(texture: Tensor, mask: Tensor) -> Tensor:
    """The texture where `mask` says so, and elsewhere means of the masked texels nearby; differentiable.

    Lookups next to a seam, and mip levels above all, read texels outside of the charts. Fit `fill_texture(texture,
    mask)` instead of the texture: what those texels get wrong is then put right inside of the charts, and nothing
    foreign bleeds in. (Pull-push: Gortler et al., "The lumigraph", 1996, section 3.4, with means over 2 x 2 texels; at
    each level what lies beside a chart is the mean of its neighbours there, and of no other chart.)

    Args:
        texture: [Ht, Wt, C].
        mask: [Ht, Wt] bool, `covered_texels`; with at least one true.

    >>> fill_texture(torch.tensor([[[4.0], [0.0]]]), torch.tensor([[True, False]])).flatten().tolist()
    [4.0, 4.0]
    """
    check_tensor("texture", texture, ndim=3)
    if mask.dtype != torch.bool or mask.shape != texture.shape[:2]:
        raise ValueError(f"mask must be {tuple(texture.shape[:2])} bool; got {shape_of(mask)}")
    if not bool(mask.any()):
        raise ValueError("mask must hold at least one texel: there is nothing to fill from")
    weight = mask.to(texture.dtype)[None, None]
    color = torch.where(mask.unsqueeze(-1), texture, 0.0)
    return to_nhwc(_fill(to_nchw(color)[None], weight))[0]


def _uv_map(mesh: Mesh) -> tuple[Tensor, Tensor]:
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("mesh must have uvs: it has no texels and no seams without; dr.unwrap makes some")
    return mesh.uvs, mesh.uv_faces


def _fill(color: Tensor, weight: Tensor) -> Tensor:
    """Colours [1, C, H, W] where `weight` [1, 1, H, W] is 1; beside that from there; elsewhere from the level above."""
    height, width = color.shape[-2:]
    if height == width == 1:
        return color
    near = _around(weight)
    color = torch.where(weight > 0, color, _around(color) / near.clamp_min(1.0))
    weight = near.clamp_max(1.0)
    smaller = ((height + 1) // 2, (width + 1) // 2)
    total = F.adaptive_avg_pool2d(weight, smaller)
    means = F.adaptive_avg_pool2d(color, smaller) / torch.where(total > 0, total, 1.0)
    above = _fill(means, (total > 0).to(color.dtype))
    spread = F.interpolate(above, size=(height, width), mode="bilinear", align_corners=False)
    return torch.where(weight > 0, color, spread)


def _around(image: Tensor) -> Tensor:
    """[1, C, H, W] sums over 3 x 3 texels."""
    wide = F.pad(image, (1, 1, 1, 1))
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
