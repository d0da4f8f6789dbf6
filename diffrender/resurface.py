"""A new surface where the old one cannot become right: it lacks a hole, or passes through itself.

Derivatives of images move the surface that is there. They do not see that the background should show through the middle
of a torus that still is a ball: within its outline there is no edge to move. So the mesh is made voxels, and those are
carved that lie inside of it and outside of the silhouettes, as for a visual hull (Laurentini 1994). Where parts of the
surface have met, as two ends of a handle that grew towards each other, voxels make one of them. Of what is left a new
surface is taken.

Silhouettes are never quite right, and each of them can carve. So two views must agree, and a place must lie deep in the
mesh and far outside of the silhouettes somewhere to be carved at all.
"""

from collections.abc import Iterable, Sequence

import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from .cameras.base import Camera
from .hull import Silhouette, largest_component, silhouettes
from .isosurface import surface_nets
from .mesh import Mesh
from .voxels import signed_depth, winding_numbers

_CHUNK = 1 << 18  # points at a time: a few MB for each view's coordinates
_MARGIN = 1.0  # steps: deeper in the mesh, and farther outside of silhouettes, than voxels and pixels are uncertain


@torch.no_grad()
def resurface(mesh: Mesh, masks: Sequence[Tensor] | Tensor, cameras: Sequence[Camera] | Camera, step: float) -> Mesh:
    """`mesh` itself if the masks do not contradict it; otherwise a closed manifold, of the genus that they show.

    Args:
        mesh: closed, without uvs and materials. A new surface has the colours of the nearest vertices of this one.
        masks: one [H, W] mask for each view, at least 0.5 on the object; [N, H, W] or a sequence.
        cameras: the camera of each view, of the mask's size; a batch [N] or a sequence.
        step: distance of the grid points that the new surface is taken from: about the length of its edges. Parts and
            gaps of the surface that are thinner may be lost.

    Where at least two views see the background through the mesh, by more than a step, it is carved down to their
    silhouettes; parts that overlap become one. Of several parts that are left, the largest is kept, without cavities
    that nobody can see.

    Here a ball is seen from above and below, with a hole in the middle:

    >>> import diffrender as dr
    >>> eyes = torch.tensor([[0.0, 0.5, 3.0], [0.0, -0.5, 3.0]])
    >>> R, t = dr.look_at(eyes)
    >>> cameras = dr.PinholeCamera(60, 60, 32, 32, size=(64, 64), R=R, t=t)
    >>> masks = dr.render(dr.sphere(3), cameras)[..., -1]
    >>> masks[:, 26:38, 26:38] = 0
    >>> bead = resurface(dr.Mesh(dr.sphere(3).vertices, dr.sphere(3).faces), masks, cameras, 0.1)
    >>> bead.num_vertices - bead.topology.num_edges + bead.num_faces  # Euler's characteristic: of a sphere it is 2
    0
    """
    _check_mesh(mesh)
    if not step > 0:
        raise ValueError(f"step must be positive; got {step}")
    bounds = mesh.bounds()
    origin = bounds[0] - step  # a layer of points outside on all sides
    x, y, z = (int(n) + 2 for n in ((bounds[1] - origin) / step).ceil().tolist())
    depth = signed_depth(mesh, origin, step, (x, y, z))
    index = (depth > 0).nonzero()
    outside_by = torch.full_like(depth, -torch.inf)
    found = _outside_by(origin + step * index, silhouettes(masks, cameras, bounds))
    outside_by[tuple(index.unbind(-1))] = found
    certain = (torch.minimum(outside_by, depth) > _MARGIN * step).cpu().numpy()
    carved = torch.from_numpy(ndimage.binary_propagation(certain, mask=(outside_by > 0).cpu().numpy())).to(depth.device)
    overlaps = winding_numbers(mesh, origin, step, (x, y, z)) > 1
    if not bool((carved | overlaps).any()):
        return mesh
    depth = torch.where(carved, torch.minimum(depth, -outside_by), depth)
    kept = largest_component(depth > 0)
    if not bool(kept.any()):
        raise ValueError("masks leave nothing of the mesh: cameras and masks do not belong together, or to this mesh")
    return _colored(surface_nets(torch.where(kept, depth.abs(), -depth.abs()), origin=origin, step=step), mesh)


def _check_mesh(mesh: Mesh) -> None:
    if mesh.uvs is not None or mesh.materials:
        raise ValueError("mesh must have no uvs and no materials: a new surface has other ones")
    if mesh.num_faces == 0 or not mesh.topology.closed:
        raise ValueError(
            f"mesh must be closed, to have an inside; got {mesh.num_faces} faces, and "
            f"{int((mesh.topology.surplus != 0).sum())} edges with more faces on one side than on the other"
        )


def _outside_by(points: Tensor, views: Iterable[Silhouette]) -> Tensor:
    """[N] how far, in world units, `points` [N, 3] are outside of the silhouettes of at least two views."""
    farthest = points.new_full((len(points),), -torch.inf)
    second = farthest.clone()
    for view in views:
        outside = torch.cat([-view(some) for some in points.split(_CHUNK)])
        second = torch.maximum(second, torch.minimum(farthest, outside))
        farthest = torch.maximum(farthest, outside)
    return second


def _colored(surface: Mesh, like: Mesh) -> Mesh:
    """`surface` with the colours of the nearest vertices of `like`, if it has any."""
    if like.vertex_colors is None:
        return surface
    _, nearest = cKDTree(like.vertices.cpu().numpy()).query(surface.vertices.cpu().numpy())
    return surface.replace(vertex_colors=like.vertex_colors[torch.as_tensor(nearest, device=like.faces.device)])
