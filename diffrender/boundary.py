"""The boundary term: what visibility threw away, the moving borders between faces in the image.

Inside a pixel the image is smooth except across visible edges: silhouettes, borders of open meshes, and seams where
the colour jumps. A pixel's box-filtered value is therefore the value at its centre plus, for each piece of such an
edge inside the pixel, the jump across it times the area that the piece hides from the centre (the part of the pixel
that a straight walk from the centre reaches only by crossing the piece). The derivative of that area is the boundary
integral, length of the piece times how fast it moves across the pixel, and it is written down as such instead of
being derived from the formula of the area (Li et al. 2018, "Differentiable Monte Carlo Ray Tracing through Edge
Sampling"; Bangaru et al. 2020). Both sides of the jump are evaluated at the middle of the piece, on the edge itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import dot3, plane_normal, side_sign
from .scene import Scene
from .visibility import PixelRays, first_faces

MAX_SAG = 0.01  # pixels: how far a bent edge may stray from the straight segments it is cut into
MAX_SEGMENTS = 64  # per edge
NEAR = 1e-5  # edges end where their depth is this fraction of their size: they are far outside any image there
TOUCHING = 256  # epsilons of depth: rounding of a surface seen at a grazing angle
SAME_RAY = 0.99  # cosine between the ray of a projected point and the point: less means outside of the lens' domain


@dataclass(frozen=True, eq=False)
class Boundary:
    """M visible pieces of edges, each inside one pixel.

    Attributes:
        view: [M] the camera.
        pixel: [M] index into the B * H * W pixels.
        xy: [M, 2] the middle of the piece.
        left, right: [M] the faces seen on its two sides, -1 for the background.
        left_share, right_share: [M] 0 to 1, how much of that area the face on that side can fill: a face seen almost
            edge-on covers a sliver only, and its colour changes too fast with its position to speak for more.
        area: [M] signed share of the pixel: `area * (left - right)` corrects the value at the pixel's centre.
            Differentiable to vertices and camera, once.
    """

    view: Tensor
    pixel: Tensor
    xy: Tensor
    left: Tensor
    right: Tensor
    left_share: Tensor
    right_share: Tensor
    area: Tensor


@dataclass(frozen=True, eq=False)
class _Edges:
    """Candidate edges: view, edge index, corners in `scene.vertices`, and the nearest face on each side (-1: none)."""

    view: Tensor  # [C]
    edge: Tensor  # [C]
    ends: Tensor  # [C, 2]
    left: Tensor  # [C]
    right: Tensor  # [C]


@dataclass(frozen=True, eq=False)
class _Segments:
    """Straight parts of candidate edges in the image: from `start` to `end` of the edge (0 to 1), pixels and depth."""

    edge: Tensor  # [K] index into the candidates
    span: Tensor  # [K, 2] where on the edge
    xy: Tensor  # [K, 2, 2]
    depth: Tensor  # [K, 2]


def boundary(scene: Scene, rays: PixelRays, *, faceted: bool = False, cull_backfaces: bool = False) -> Boundary:
    """All visible pieces of the edges across which the image may jump.

    Args:
        scene: from `scene.pack`.
        rays: from `visibility.pixel_rays`, the rays that decided the pixels' centres.
        faceted: the shading jumps at every edge (flat normals), not only at silhouettes and seams.
        cull_backfaces: as given to `visibility`.
    """
    with torch.no_grad():
        edges = _candidates(scene, faceted, cull_backfaces)
        segments = _segments(scene, edges)
        segment, low, high = _split_at_pixels(segments.xy, scene.camera.size)
        edge = segments.edge[segment]
        view = edges.view[edge]
        middle = 0.5 * (low + high)
        start, end = segments.xy[segment].unbind(1)
        xy = torch.lerp(start, end, middle.unsqueeze(-1).to(start.dtype))
        on_edge, left, right, visible = _sides(scene, edges, segments, segment, middle, xy, cull_backfaces)
        keep = visible.nonzero().squeeze(-1)
        segment, edge, view, xy, low, high = (x[keep] for x in (segment, edge, view, xy, low, high))
        height, width = scene.camera.size
        column = xy[:, 0].long().clamp(0, width - 1)
        row = xy[:, 1].long().clamp(0, height - 1)
        pixel = (view * height + row) * width + column

    used, piece_segment = torch.unique_consecutive(segment, return_inverse=True)
    ends = _project_spans(scene, edges, segments.edge[used], segments.span[used])  # [U, 2, 2], differentiable
    ends = ends.index_select(0, piece_segment)
    with torch.no_grad():
        center = torch.stack([column, row], dim=-1) + 0.5
        left_of_center = _center_side(scene, edges, edge, rays, view, pixel)
        hand = handedness(scene).index_select(0, view)
        area = _hidden_area(ends, low, high, center.to(ends.dtype), left_of_center, hand)
        flow = (hand * (high - low)).to(ends.dtype)
        left, right = left[keep], right[keep]
        length = (ends[:, 1] - ends[:, 0]).norm(dim=-1) * (high - low)
        reach = area.abs() / length
        left_share, right_share = (_share(scene, edges, edge, view, ends, face, reach) for face in (left, right))
    area = _Area.apply(ends, area.to(ends.dtype), flow, (0.5 * (low + high)).to(ends.dtype))
    return Boundary(view, pixel, on_edge[keep], left, right, left_share, right_share, area)


class _Area(torch.autograd.Function):
    """The hidden area, with the boundary integral as its derivative: length x normal velocity at the middle.

    Along a straight segment the normal velocity is linear, so that its integral over a piece is its value at the
    middle times the length; exact for linear cameras.
    """

    @staticmethod
    def forward(ctx: Any, ends: Tensor, area: Tensor, flow: Tensor, middle: Tensor) -> Tensor:
        ctx.save_for_backward(ends, flow, middle)
        return area.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ends, flow, middle = ctx.saved_tensors
        along = ends[:, 1] - ends[:, 0]
        normal = torch.stack([along[:, 1], -along[:, 0]], dim=-1)  # towards the right side, as long as the segment
        push = (gradient * flow).unsqueeze(-1) * normal
        weights = torch.stack([1 - middle, middle], dim=-1).unsqueeze(-1)
        return push.unsqueeze(1) * weights, None, None, None


def _candidates(scene: Scene, faceted: bool, cull_backfaces: bool) -> _Edges:
    """Edges with faces on one side only, as seen from the camera, and edges whose two sides may differ in colour."""
    topology = scene.mesh.topology
    view, face = _drawn_faces(scene)
    copies = scene.num_views if scene.face_view is None else 1
    sign = _turning(scene, view, face).reshape(copies, scene.mesh.num_faces)  # [B or 1, F] sign of a . (b x c)
    direction = torch.where(topology.forward, 1, -1).to(torch.int8)
    side = sign[:, topology.edge_halfedges // 3] * direction  # [B or 1, H] +1: on the left of the edge
    exists = torch.ones_like(side, dtype=torch.bool)
    if cull_backfaces:
        exists = sign[:, topology.edge_halfedges // 3] < 0
    has_left = _any_per_edge((side > 0) & exists, topology.edge_start)
    has_right = _any_per_edge((side < 0) & exists, topology.edge_start)
    jumps = (has_left & has_right) if faceted else (has_left & has_right & topology.seam)
    copy, edge = ((has_left != has_right) | jumps).nonzero(as_tuple=True)

    # The faces at each candidate edge, and how near they are just beside it.
    count = topology.edge_count[edge]
    owner = torch.repeat_interleave(torch.arange(len(edge), device=edge.device), count)
    offset = torch.arange(len(owner), device=edge.device) - (count.cumsum(0) - count)[owner]
    place = topology.edge_start[edge][owner] + offset
    halfedge = topology.edge_halfedges[place]
    if scene.face_view is None:
        view = copy
    else:
        first = topology.edge_halfedges[topology.edge_start[edge]]
        view = scene.face_view[first // 3]
    ends = topology.edges[edge] + (copy * scene.vertex_stride).unsqueeze(-1)
    corners = scene.faces[halfedge // 3] + (copy[owner] * scene.vertex_stride).unsqueeze(-1)
    side = side[copy[owner], place]
    exists = exists[copy[owner], place]
    nearness = _nearness(scene, view[owner], ends[owner], corners, side)
    faces = halfedge // 3
    left, right = (_nearest_face(owner, faces, nearness, exists & (side == wanted), len(edge)) for wanted in (1, -1))
    return _Edges(view, edge, ends, left, right)


def _drawn_faces(scene: Scene) -> tuple[Tensor, Tensor]:
    """View and face index of every face in every view that it is drawn in."""
    face = torch.arange(scene.mesh.num_faces, device=scene.faces.device)
    if scene.face_view is not None:
        return scene.face_view, face
    view = torch.arange(scene.num_views, device=face.device)
    return view.repeat_interleave(len(face)), face.repeat(scene.num_views)


def _turning(scene: Scene, view: Tensor, face: Tensor) -> Tensor:
    """int8 sign of a . (b x c) of faces as seen from the camera: one sign per face keeps silhouettes closed loops."""
    vertices = scene.vertices
    if scene.face_view is None:
        a, b, c = (vertices.reshape(scene.num_views, -1, 3)[:, scene.faces[:, i]].reshape(-1, 3) for i in range(3))
    else:
        a, b, c = (vertices[scene.faces[:, i]] for i in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    towards = a - _eye(scene, view, (a + b + c) / 3)
    return torch.where((normal * towards).sum(-1) >= 0, 1, -1).to(torch.int8)


def _eye(scene: Scene, view: Tensor, points: Tensor) -> Tensor:
    """Where the rays start that see `points` [N, 3] (camera frame)."""
    if scene.camera.is_central:
        return torch.zeros_like(points)
    return scene.rays_at(view, scene.project_at(view, points)[0])[0]


def _any_per_edge(flags: Tensor, start: Tensor) -> Tensor:
    """[B, E] whether any half-edge of an edge has its flag [B, H] set; `start` [E + 1] delimits the edges."""
    total = torch.nn.functional.pad(flags.to(torch.int32).cumsum(1), (1, 0))
    return total[:, start[1:]] > total[:, start[:-1]]


def _nearness(scene: Scene, view: Tensor, ends: Tensor, corners: Tensor, side: Tensor) -> Tensor:
    """Of faces on the same side of an edge the one with the largest value is seen in front, just beside the edge.

    With p on the edge and u pointing to the faces' side, the ray p + h u meets the plane with normal N at the depth
    (p . N) / ((p + h u) . N), which falls with h at the rate (u . N) / (p . N).
    """
    start, end = scene.vertices[ends[:, 0]], scene.vertices[ends[:, 1]]
    eye = _eye(scene, view, 0.5 * (start + end))
    outward = torch.linalg.cross(start + end - 2 * eye, end - start) * side.unsqueeze(-1).to(start.dtype)
    a, b, c = scene.vertices[corners.reshape(-1)].reshape(-1, 3, 3).unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    rate = (outward * normal).sum(-1) / ((0.5 * (start + end) - eye) * normal).sum(-1)
    return rate.nan_to_num(nan=-torch.inf)


def _nearest_face(owner: Tensor, faces: Tensor, nearness: Tensor, wanted: Tensor, count: int) -> Tensor:
    """[count] for each owner the face with the largest nearness among the wanted, the lowest such; -1 for none."""
    none = torch.iinfo(torch.int64).max
    best = nearness.new_full((count,), -torch.inf)
    best = best.scatter_reduce(0, owner[wanted], nearness[wanted], "amax")
    chosen = wanted & (nearness == best[owner])
    face = faces.new_full((count,), none).scatter_reduce(0, owner[chosen], faces[chosen], "amin")
    return torch.where(face == none, -1, face)


def _segments(scene: Scene, edges: _Edges) -> _Segments:
    """Cut candidate edges to the camera's domain, into parts that are straight in the image to `MAX_SAG` pixels."""
    device = edges.edge.device
    index = torch.arange(len(edges.edge), device=device)
    span = torch.tensor([0.0, 1.0], dtype=scene.vertices.dtype, device=device).expand(len(index), 2)
    if scene.linear_rays is not None:
        if scene.camera.is_central:
            index, span = _in_front(scene.vertices[edges.ends][..., 2], scene.vertices[edges.ends], index, span)
    else:
        index, span = _bend(scene, edges)
    xy, depth = _project_points(scene, edges, index, span)
    usable = torch.isfinite(xy).all(-1).all(-1)
    if scene.linear_rays is None:
        middle, _ = _project_points(scene, edges, index, span.mean(1, keepdim=True))
        stray = (middle.squeeze(1) - xy.mean(1)).norm(dim=-1)
        # A chord that its own middle is far away from jumps across a seam or out of the domain.
        usable &= stray < 10 * MAX_SAG + 0.05 * (xy[:, 1] - xy[:, 0]).norm(dim=-1)
    keep = usable.nonzero().squeeze(-1)
    return _Segments(index[keep], span[keep], xy[keep], depth[keep])


def _in_front(z: Tensor, ends: Tensor, index: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """Shorten edges [C] to the part in front of the camera's plane, `z` [C, 2] >= NEAR x their size."""
    near = NEAR * ends.abs().amax((1, 2))
    slope = z[:, 1] - z[:, 0]
    crossing = ((near - z[:, 0]) / torch.where(slope == 0, 1.0, slope)).clamp(0, 1)
    begin = torch.where(z[:, 0] < near, crossing, span[:, 0])
    end = torch.where(z[:, 1] < near, crossing, span[:, 1])
    keep = ((z > near.unsqueeze(-1)).any(-1) & (end > begin)).nonzero().squeeze(-1)
    return index[keep], torch.stack([begin, end], dim=-1)[keep]


def _bend(scene: Scene, edges: _Edges) -> tuple[Tensor, Tensor]:
    """Cut every edge into equal parts, as many as its bend in the image asks for."""
    index = torch.arange(len(edges.edge), device=edges.edge.device)
    probe = torch.linspace(0, 1, 5, dtype=scene.vertices.dtype, device=index.device).expand(len(index), 5)
    xy, _ = _project_points(scene, edges, index, probe)
    # A parabola strays from its chord by an eighth of its second difference, per part; the factor 4 ** 2 is for the
    # quarter of the edge that the second difference of the probes sees.
    bend = 2 * (xy[:, 2:] - 2 * xy[:, 1:-1] + xy[:, :-2]).norm(dim=-1).amax(-1)
    parts = (bend / MAX_SAG).sqrt().ceil().nan_to_num(MAX_SEGMENTS, MAX_SEGMENTS).clamp(1, MAX_SEGMENTS).long()
    owner = torch.repeat_interleave(index, parts)
    part = torch.arange(len(owner), device=index.device) - (parts.cumsum(0) - parts)[owner]
    total = parts[owner].to(probe.dtype)
    return owner, torch.stack([part / total, (part + 1) / total], dim=-1)


def _project_points(scene: Scene, edges: _Edges, index: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [K, S, 2] and depth [K, S] of the points `at` [K, S] (0 to 1) of candidate edges `index` [K]."""
    ends = scene.vertices.index_select(0, edges.ends[index].reshape(-1)).reshape(-1, 2, 1, 3)
    points = ends[:, 0] * (1 - at).unsqueeze(-1) + ends[:, 1] * at.unsqueeze(-1)
    view = edges.view[index].repeat_interleave(at.shape[1])
    xy, depth = scene.project_at(view, points.reshape(-1, 3))
    return xy.reshape(*at.shape, 2), depth.reshape(at.shape)


def _project_spans(scene: Scene, edges: _Edges, index: Tensor, span: Tensor) -> Tensor:
    return _project_points(scene, edges, index, span)[0]


def _split_at_pixels(xy: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Cut segments `xy` [K, 2, 2] at the image's border and at every line between pixels.

    Returns:
        For each piece its segment [M] and where on it the piece begins and ends, [M] and [M] in float64, from 0 to 1.
    """
    start = xy[:, 0].double()
    delta = xy[:, 1].double() - start
    limit = start.new_tensor([size[1], size[0]])
    # Liang & Barsky 1984: the part inside the image.
    safe = torch.where(delta == 0, 1.0, delta)
    enter, leave = (-start / safe), ((limit - start) / safe)
    enter, leave = torch.minimum(enter, leave), torch.maximum(enter, leave)
    parallel_inside = (delta == 0) & (start >= 0) & (start <= limit)
    enter = torch.where(delta == 0, torch.where(parallel_inside, -torch.inf, torch.inf), enter)
    leave = torch.where(delta == 0, torch.inf, leave)
    begin, end = enter.amax(-1).clamp(min=0), leave.amin(-1).clamp(max=1)
    inside = (end > begin).nonzero().squeeze(-1)
    start, delta, begin, end = start[inside], delta[inside], begin[inside], end[inside]

    first, last = start + delta * begin.unsqueeze(-1), start + delta * end.unsqueeze(-1)
    lowest = torch.minimum(first, last).floor().long() + 1  # the lines strictly between
    highest = torch.maximum(first, last).ceil().long() - 1
    count = (highest - lowest + 1).clamp(min=0)  # [K, 2]
    cuts, owners = [begin], [torch.arange(len(begin), device=xy.device)]
    for axis in range(2):
        owner = torch.repeat_interleave(owners[0], count[:, axis])
        step = torch.arange(len(owner), device=xy.device) - (count[:, axis].cumsum(0) - count[:, axis])[owner]
        line = lowest[owner, axis] + step
        cuts.append(((line - start[owner, axis]) / delta[owner, axis]).clamp(begin[owner], end[owner]))
        owners.append(owner)
    cut, owner = torch.cat(cuts), torch.cat(owners)
    order = torch.argsort(cut)
    order = order[torch.sort(owner[order], stable=True).indices]
    cut, owner = cut[order], owner[order]
    following = torch.cat([cut[1:], cut.new_zeros(1)])
    last_of_segment = torch.ones_like(owner, dtype=torch.bool)
    last_of_segment[:-1] = owner[1:] != owner[:-1]
    following = torch.where(last_of_segment, end[owner], following)
    keep = (following > cut).nonzero().squeeze(-1)
    return inside[owner[keep]], cut[keep], following[keep]


def _sides(
    scene: Scene, edges: _Edges, segments: _Segments, segment: Tensor, middle: Tensor, xy: Tensor, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixel [M, 2] on the edge itself, what is seen left and right of it (-1: background), and whether it is seen.

    The ray goes through the point of the edge in space, not through the chord `xy` [M, 2] of a bent edge: a hundredth
    of a pixel to the inside of a silhouette it would meet the next face instead of the background.
    """
    edge = segments.edge[segment]
    view = edges.view[edge]
    t = middle.to(xy.dtype)
    if scene.camera.is_central:  # along a straight line 1 / depth is affine in the image
        near, far = segments.depth[segment].unbind(-1)
        t = t * near / torch.lerp(far, near, t)
    span = segments.span[segment]
    at = torch.lerp(span[:, 0], span[:, 1], t).unsqueeze(-1)
    ends = scene.vertices[edges.ends[edge]]
    point = torch.lerp(ends[:, 0], ends[:, 1], at)
    on_edge, edge_depth = scene.project_at(view, point)
    origins, directions = scene.rays_at(view, on_edge)
    sure = edge_depth > 0
    if scene.linear_rays is None:
        sure &= torch.cosine_similarity(point - origins, directions, dim=-1) > SAME_RAY
    if scene.camera.is_central:
        directions = point / edge_depth.unsqueeze(-1)
    behind, behind_depth = first_faces(
        scene, view, on_edge, origins, directions, skip_edge=edges.edge[edge], cull_backfaces=cull
    )
    left, right = (torch.where(face >= 0, face, behind) for face in (edges.left[edge], edges.right[edge]))
    # An edge that lies in another surface, like that of a box on the floor, is as visible as the surface.
    touching = 1 - TOUCHING * torch.finfo(edge_depth.dtype).eps
    return on_edge, left, right, sure & (behind_depth > edge_depth * touching)


def _center_side(scene: Scene, edges: _Edges, edge: Tensor, rays: PixelRays, view: Tensor, pixel: Tensor) -> Tensor:
    """+1 where the pixel's centre lies left of the edge, -1 right: decided bit for bit like visibility does."""
    height, width = scene.camera.size
    start, end = scene.vertices[edges.ends[edge]].unbind(1)
    if rays.linear is not None:
        center = torch.stack([pixel % width, pixel // width % height], dim=-1).to(start.dtype) + 0.5
        origins, directions = scene.rays_at(view, center)
    else:
        assert rays.directions is not None
        directions = rays.directions[pixel]
        origins = directions if rays.origins is None else rays.origins[pixel]
    if not scene.camera.is_central:
        start, end = start - origins, end - origins
    normal = plane_normal(start, end)
    return side_sign(dot3(directions.to(start.dtype), normal), normal)


def handedness(scene: Scene) -> Tensor:
    """[B] +1 for cameras whose images are seen as usual, -1 for mirrored ones."""
    with torch.no_grad():
        if scene.linear_rays is not None:
            r = scene.linear_rays
            right, below, forward = r.origin_dx + r.direction_dx, r.origin_dy + r.direction_dy, r.direction
        else:
            like = scene.vertices
            fractions = like.new_tensor([0.25, 0.5, 0.75])
            corner = torch.cartesian_prod(fractions * scene.camera.width, fractions * scene.camera.height)
            step = like.new_tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
            origins, directions = scene.camera.local_rays((corner.unsqueeze(1) + step).reshape(-1, 2))
            points = (origins + directions).reshape(scene.num_views, -1, 3, 3)
            here, right, below = points.unbind(-2)
            right, below = right - here, below - here
            forward = directions.reshape(points.shape)[..., 0, :]
        turn = (torch.linalg.cross(right, below) * forward).sum(-1).reshape(scene.num_views, -1)
    return torch.where(torch.sign(turn).nansum(-1) >= 0, 1.0, -1.0)


def _hidden_area(ends: Tensor, low: Tensor, high: Tensor, center: Tensor, side: Tensor, hand: Tensor) -> Tensor:
    """Signed area [M] of the pixel that each piece hides from the centre: positive if the centre is on its right.

    From the centre of a unit square every side is half a unit away, so a sector's area is a quarter of its share of
    the perimeter; the triangle between the centre and the piece is taken off. Where a bent edge runs past the centre
    on one side and its straight piece on the other, `side`, which visibility agrees with, decides.
    """
    start, end = ends.double().unbind(1)
    center = center.double()
    a = start + (end - start) * low.unsqueeze(-1) - center
    b = start + (end - start) * high.unsqueeze(-1) - center
    side = side * hand
    turn = _perimeter(b) - _perimeter(a)
    turn = torch.where(turn > 2, turn - 4, torch.where(turn < -2, turn + 4, turn))
    wide = turn.abs() > 1
    turn = torch.where(wide & (side > 0) & (turn < 0), turn + 4, turn)
    turn = torch.where(wide & (side < 0) & (turn > 0), turn - 4, turn)
    triangle = 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    return -(0.25 * turn - triangle) * hand


def _share(
    scene: Scene, edges: _Edges, edge: Tensor, view: Tensor, ends: Tensor, face: Tensor, reach: Tensor
) -> Tensor:
    """[M] how much of the strip of width `reach` (pixels) along an edge its `face` can fill; 1 for other faces."""
    own = scene.mesh.topology.face_edges[face] == edges.edge[edge].unsqueeze(-1)  # [M, 3] the corner opposite
    corner = scene.corners(view, face.clamp(min=0)).gather(1, own.to(torch.uint8).argmax(-1, keepdim=True)).squeeze(-1)
    xy, _ = scene.project_at(view, scene.vertices[corner])
    along, across = ends[:, 1] - ends[:, 0], xy - ends[:, 0]
    width = (along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]).abs() / along.norm(dim=-1)
    share = (width / reach).nan_to_num(1.0).clamp(max=1).to(ends.dtype)
    return torch.where(own.any(-1) & (face >= 0), share, torch.ones_like(share))


def _perimeter(p: Tensor) -> Tensor:
    """Where the ray from a square's centre through `p` [M, 2] meets its border, in sides from the corner (1, -1)."""
    size = p.abs().amax(-1).clamp(min=torch.finfo(p.dtype).tiny)
    x, y = (p / size.unsqueeze(-1)).unbind(-1)  # on the square [-1, 1]
    right = (x >= y.abs()) & (x > 0)
    left = (-x >= y.abs()) & (x < 0)
    horizontal = torch.where(y > 0, 1.5 - 0.5 * x, 3.5 + 0.5 * x)
    vertical = torch.where(right, 0.5 + 0.5 * y, 2.5 - 0.5 * y)
    return torch.where(right | left, vertical, horizontal)
