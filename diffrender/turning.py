"""Edges as a camera without a centre looks at them: along rays of their own, cut where a face beside them turns.

Through a camera with one centre, or with parallel rays, a flat face is seen from one side. Through another, rays to
two of its points may come from different sides of its plane. Where the side changes, a ray lies in the plane: all
points of the face on that ray share one pixel, so that the image of the face is pinched there like a bow tie, and has
no outline but its edges. It is enough, then, to know at every place of an edge which sides its faces show.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .fragments import Sightings
from .kernels import where_true
from .scene import Scene

PARTS = 8  # of an edge with an end that no ray meets: rays are asked for inside
ROOT_STEPS = 12  # of regula falsi at most: more than enough for single precision


@dataclass(frozen=True, eq=False)
class Looks:
    """I parts of edges, beside each of which every face shows one side.

    Attributes:
        item: [I] `copy * E + edge`, in order.
        span: [I, 2] where on the edge the part begins and ends, from 0 to 1.
        rays: [I, 3] direction in which its middle is seen; zero where no ray does.
    """

    item: Tensor
    span: Tensor
    rays: Tensor


@torch.no_grad()
def looks(scene: Scene) -> Looks:
    """All edges of all views, as the rays of a camera without a centre see them."""
    item = torch.arange(scene.copies * scene.mesh.topology.num_edges, device=scene.faces.device)
    ends, _ = _ends(scene, item)
    along = scene.vertex_rays[ends]  # [I, 2, 3]
    if scene.linear_rays is not None:
        return Looks(item, along.new_tensor([0.0, 1.0]).expand(len(item), 2), along[:, 0])
    unsure = ~along.any(-1).all(-1)
    turned, place = _turns(scene)
    probed = item[unsure].repeat_interleave(PARTS - 1)
    steps = torch.arange(1, PARTS, device=item.device).to(place) / PARTS
    asked = unsure.index_fill(0, turned, True)
    items = torch.cat([item, turned, probed])
    begin = torch.cat([torch.zeros_like(along[:, 0, 0]), place, steps.repeat(int(unsure.sum()))])
    by_place = torch.sort(begin, stable=True).indices
    order = by_place[torch.sort(items[by_place], stable=True).indices]
    items, begin = items[order], begin[order]
    end = torch.ones_like(begin)
    end[:-1] = torch.where(items[1:] == items[:-1], begin[1:], 1.0)
    rays = along.sum(1)[items]  # where nothing turns, this has the signs of both ends
    cut = where_true(asked[items])
    rays[cut] = _rays_on(scene, items[cut], 0.5 * (begin + end)[cut])
    return Looks(items, torch.stack([begin, end], dim=-1), rays)


def turning_faces(scene: Scene) -> Tensor:
    """[copies, F] the faces of which the camera sees both sides."""
    cosine = _at_corners(scene)
    return (cosine > 0).any(-1) & (cosine < 0).any(-1)


@torch.no_grad()
def at_turn(scene: Scene, turning: Tensor, seen: Sightings, cosine: float) -> Tensor:
    """[N] bool, the sightings of faces that are `turning` [copies, F], where rays are nearly in the face's plane.

    That is, where the cosine between the ray and the face's normal is below `cosine`.

    Where a face turns, what is seen on it moves like 1 / cos (of the angle between ray and normal), without bound; and
    edges there have points on the very ray that lies in the face's plane, where their colours are asked for.
    """
    on = turning.reshape(-1).index_select(0, scene.drawn(seen.view, seen.face_index))
    index = where_true(on)
    view, face, ray = (x.index_select(0, index) for x in (seen.view, seen.face_index, seen.directions))
    a, b, c = scene.vertices.detach()[scene.corners(view, face)].unbind(1)
    ray = ray.to(a.dtype)
    found = torch.cosine_similarity(torch.linalg.cross(b - a, c - a), ray, dim=-1).abs()
    return on.index_copy(0, index, found < cosine)


def _turns(scene: Scene) -> tuple[Tensor, Tensor]:
    """Where a face turns beside an edge: its `copy * E + edge` [K], and where on the edge, from 0 to 1, [K]."""
    topology = scene.mesh.topology
    cosine = _at_corners(scene)
    start, end = cosine.roll(-1, dims=-1), cosine.roll(-2, dims=-1)  # the side opposite to each corner
    copy, face, side = ((start * end < 0) & (topology.face_edges >= 0)).nonzero().unbind(-1)
    corners = scene.faces[face]
    rows = torch.arange(len(face), device=face.device)
    first, last = corners[rows, (side + 1) % 3], corners[rows, (side + 2) % 3]
    forward = topology.weld[first] < topology.weld[last]
    start, end = start[copy, face, side], end[copy, face, side]
    item = copy * topology.num_edges + topology.face_edges[face, side]
    a, b, c = scene.vertices.detach()[corners + (copy * scene.vertex_stride).unsqueeze(-1)].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)

    def side_at(place: Tensor) -> Tensor:
        return (normal * _rays_on(scene, item, place)).sum(-1)

    first, last = torch.where(forward, start, end), torch.where(forward, end, start)
    return item, _root(side_at, first, last) if len(item) else first


def _root(function: Callable[[Tensor], Tensor], first: Tensor, last: Tensor) -> Tensor:
    """Where between 0 and 1 functions [K] of values `first` and `last`, of opposite signs, are zero.

    Regula falsi in the variant of Illinois: an end that stays twice counts half (Dowell & Jarratt 1971).
    """
    other, at = torch.zeros_like(first), torch.ones_like(first)
    for _ in range(ROOT_STEPS):
        found = last == 0  # a step from there might round to another place, and the next divide by zero
        new = torch.where(found, at, (other * last - at * first) / (last - first))
        value = torch.where(found, last, function(new))
        crossed = value.sign() * last.sign() < 0  # their product may be too small for a number
        other, first = torch.where(crossed, at, other), torch.where(crossed, last, 0.5 * first)
        at, last = new, value
    return at


def _at_corners(scene: Scene) -> Tensor:
    """[copies, F, 3] the normals of faces times the rays to their corners: signs say which side is seen there."""
    copy = torch.arange(scene.copies, device=scene.faces.device)[:, None, None]
    corners = scene.faces + copy * scene.vertex_stride  # [copies, F, 3]
    a, b, c = scene.vertices.detach()[corners].unbind(2)
    normal = torch.linalg.cross(b - a, c - a)
    return (normal.unsqueeze(2) * scene.vertex_rays[corners]).sum(-1)


def _rays_on(scene: Scene, item: Tensor, place: Tensor) -> Tensor:
    """Directions [N, 3] in which points of edges [N] are seen, from 0 to 1 at `place` [N] of them."""
    ends, view = _ends(scene, item)
    start, end = scene.vertices.detach()[ends].unbind(1)
    return scene.rays_to(view, torch.lerp(start, end, place.unsqueeze(-1)))


def _ends(scene: Scene, item: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [N, 2] into `scene.vertices` of the ends of edges `copy * E + edge` [N], and their views [N]."""
    topology = scene.mesh.topology
    copy = item // max(topology.num_edges, 1)
    ends = topology.edges[item - copy * topology.num_edges] + (copy * scene.vertex_stride).unsqueeze(-1)
    return ends, scene.view_of_vertices[ends[:, 0]]
