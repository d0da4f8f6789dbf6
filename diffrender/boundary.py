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

from .derivatives import differentiable_once
from .intersections import intersections
from .kernels import (
    curve_sides,
    edge_sides,
    hidden_area,
    piece_middles,
    split_at_crossings,
    split_at_pixels,
    where_true,
)
from .pixel_rays import PixelRays
from .rim import rim
from .scene import SAME_RAY, Scene
from .turning import looks
from .visibility import AskedRays, Steps, answered, first_faces

MAX_SAG = 0.01  # pixels: how far a bent edge may stray from the straight segments it is cut into
MAX_SEGMENTS = 64  # equal ones per edge ...
HALVINGS = 10  # ... and so often once more, where a long edge comes near the camera, or ends at a seam
NEAR = 1e-5  # edges end where their depth is this fraction of their size: they are far outside any image there
TOUCHING = 256  # epsilons of depth: rounding of a surface seen at a grazing angle
ALONGSIDE = 1e-3  # of an edge's length: a curve that stays nearer runs along the edge
GRID = 1e-8  # of depth: `intersections` decides on a grid, which is coarser than float64
OUTSIDE = -2  # in place of a face: beyond the rim of the field of view, where nothing is seen
AT_CENTER = 8  # epsilons of the image's size: rounding of a projected point and of a pixel's ray
ASIDE = (0.5, 0.17)  # of the root of such an epsilon: where the walk begins instead; slanted, as few edges are
NOT_TWICE = (
    "the boundary term of render has one derivative only (the second is an integral over the ends of edges): "
    "differentiate fragments, sample and shaders instead, or take differences of the gradient"
)


@dataclass(frozen=True, eq=False)
class Boundary:
    """M visible pieces of edges, each inside one pixel.

    Attributes:
        view: [M] the camera.
        pixel: [M] index into the B * H * W pixels.
        xy: [M, 2] the middle of the piece.
        left, right: [M] the faces seen on its two sides, -1 for the background.
        area: [M] signed share of the pixel: `area * (left - right)` corrects the value at the pixel's centre.
            Differentiable to vertices and camera, once.
        rim: [M] bool, pieces of the rim of the field of view, near which colours may move faster than anything.
        unsure: [K] pixels at whose centre lines end, so that rounding decides what is seen there: their values are
            those of a point beside the centre.
        unsure_face: [K] the face seen at that point, -1 for the background.
        rays: [M, 3] and [M, 3] origins and directions of the rays through `xy`, without gradient; None for linear
            cameras, of which they cost next to nothing.
    """

    view: Tensor
    pixel: Tensor
    xy: Tensor
    left: Tensor
    right: Tensor
    area: Tensor
    rim: Tensor
    unsure: Tensor
    unsure_face: Tensor
    rays: tuple[Tensor, Tensor] | None = None

    def settled(self, face_image: Tensor) -> Tensor:
        """The faces [B, H, W] seen at the centres, or beside those that are `unsure`."""
        flat = face_image.reshape(-1).index_copy(0, self.unsure, self.unsure_face.to(face_image.dtype))
        return flat.reshape(face_image.shape)


@dataclass(frozen=True, eq=False)
class _Lines:
    """C straight lines in space across which the image may jump."""

    points: Tensor  # [Q, 3] camera frame, differentiable
    ends: Tensor  # [C, 2] indices into `points`
    view: Tensor  # [C]
    edge: Tensor  # [C] index into `mesh.topology.edges`, -1 for others
    faces: Tensor | None  # [C, 2] of a line that is no edge: the faces it lies in, one or two; None: all are edges
    left: Tensor  # [C] the face in front on each side, just beside the line; -1 for none, or OUTSIDE
    right: Tensor  # [C]


@dataclass(frozen=True, eq=False)
class _Segments:
    """Parts of lines that are straight in the image: from `span` 0 to 1 of the line, pixels and depth."""

    line: Tensor  # [K]
    span: Tensor  # [K, 2]
    xy: Tensor  # [K, 2, 2]; differentiable for linear cameras
    depth: Tensor  # [K, 2]


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Parts of segments inside one pixel, as they are seen."""

    segment: Tensor  # [M]
    low: Tensor  # [M] where on the segment, from 0 to 1; float64
    high: Tensor  # [M]
    line: Tensor  # [M]
    xy: Tensor  # [M, 2] the middle, on the line itself
    pixel: Tensor  # [M] index into the B * H * W pixels
    center: Tensor  # [M, 2] its centre
    at_center: Tensor  # [M] whether an end of the piece is there, within rounding
    left: Tensor  # [M]
    right: Tensor  # [M]
    rays: tuple[Tensor, Tensor] | None  # [M, 3] and [M, 3] through `xy`; None for linear cameras


def boundary(scene: Scene, rays: PixelRays, **options: Any) -> Boundary:
    """All visible pieces of the edges across which the image may jump; `boundary_steps` on its own."""
    (found,) = answered(scene, boundary_steps(scene, rays, **options))
    assert isinstance(found, Boundary)
    return found


def boundary_steps(
    scene: Scene,
    rays: PixelRays,
    *,
    faceted: bool = False,
    cull_backfaces: bool = False,
    intersecting: bool = True,
    face_image: Tensor | None = None,
    only_fronts: bool = False,
) -> Steps[Boundary]:
    """All visible pieces of the edges across which the image may jump; a stage for `visibility.answered`.

    Args:
        scene: from `scene.pack`.
        rays: from `pixel_rays.pixel_rays`, the rays that decided the pixels' centres.
        faceted: the shading jumps at every edge (flat normals), not only at silhouettes and seams.
        cull_backfaces: as given to `visibility`.
        intersecting: surfaces may pass through each other, and the image jumps where they do.
        face_image: [B, H, W] what is seen at the pixels' centres; spares the search for the rim of the field of view
            where nothing is.
        only_fronts: nobody sees a face from behind, as from outside a closed surface: half the work.
    """
    lines = _candidates(scene, faceted, cull_backfaces)
    if intersecting:
        lines = _with_curves(scene, lines, cull_backfaces)
    lines = _with_cuts(scene, lines, cull_backfaces)
    lines = _with_rim(scene, rays, lines, face_image)
    segments = _segments(scene, lines)
    pieces = yield from _visible_pieces(scene, lines, segments, cull_backfaces or only_fronts)
    with torch.no_grad():
        view = lines.view.index_select(0, pieces.line)
        start, unsure, unsure_face = _starts(scene, rays, pieces, view, cull_backfaces)

    ends = _ends_of_pieces(scene, lines, segments, pieces)  # [M, 2, 2], differentiable
    with torch.no_grad():
        hand = rays.hand.to(ends.dtype).index_select(0, view)
        center, origins, directions = start
        points = _end_points(lines, pieces.line)
        on_rim = torch.zeros_like(view, dtype=torch.bool)
        if lines.faces is not None:
            on_rim = lines.faces.index_select(0, pieces.line)[:, 0] == OUTSIDE
            points, directions = _beside_rim(lines, pieces.line, on_rim, points, directions)
        if not scene.camera.is_central:
            points = points - origins.unsqueeze(1)
        area = hidden_area(points, directions.to(points.dtype), ends, pieces.low, pieces.high, center, hand)
        flow = hand * (pieces.high - pieces.low).to(ends.dtype)
        middle = (0.5 * (pieces.low + pieces.high)).to(ends.dtype)
    area = _Area.apply(differentiable_once(ends, NOT_TWICE), area, flow, middle)
    sides = pieces.left, pieces.right
    return Boundary(view, pieces.pixel, pieces.xy, *sides, area, on_rim, unsure, unsure_face, pieces.rays)


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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ends, flow, middle = ctx.saved_tensors
        along = ends[:, 1] - ends[:, 0]
        normal = torch.stack([along[:, 1], -along[:, 0]], dim=-1)  # towards the right side, as long as the segment
        push = (gradient * flow).unsqueeze(-1) * normal
        weights = torch.stack([1 - middle, middle], dim=-1).unsqueeze(-1)
        return push.unsqueeze(1) * weights, None, None, None


def _touching(dtype: torch.dtype) -> float:
    """How much nearer a surface may be than an edge that lies in it, as a part of its depth."""
    return max(TOUCHING * torch.finfo(dtype).eps, GRID)


def _candidates(scene: Scene, faceted: bool, cull_backfaces: bool) -> _Lines:
    """Edges with faces on one side only, as seen from the camera, and edges whose two sides may differ in colour."""
    topology, parts = scene.mesh.topology, None if scene.camera.is_central else looks(scene)
    with torch.no_grad():
        chosen, left, right = edge_sides(
            scene.vertices, scene.faces, topology, scene.vertex_stride, scene.copies,
            None if parts is None else (parts.item, parts.rays), scene.outside if parts is None else None,
            faceted=faceted, cull=cull_backfaces,
        )  # fmt: skip
        item = chosen if parts is None else parts.item.index_select(0, chosen)
        if scene.face_view is None:
            view = item // max(topology.num_edges, 1)
            edge = item - view * topology.num_edges
            ends = topology.edges.index_select(0, edge) + (view * scene.vertex_stride).unsqueeze(-1)
        else:
            edge = item
            ends = topology.edges.index_select(0, edge)
            view = scene.face_view.index_select(0, torch.maximum(left, right))
    points = scene.vertices
    if parts is not None:
        span = parts.span.index_select(0, chosen)
        cut = where_true(span[:, 1] - span[:, 0] < 1)
        start, end = points.index_select(0, ends[cut].reshape(-1)).reshape(-1, 2, 1, 3).unbind(1)
        new = torch.lerp(start, end, span[cut].unsqueeze(-1))  # [K, 2, 3]
        ends[cut] = len(points) + torch.arange(2 * len(cut), device=ends.device).reshape(-1, 2)
        points = torch.cat([points, new.reshape(-1, 3)]) if len(cut) else points
    return _Lines(points, ends, view, edge, None, left, right)


def _with_curves(scene: Scene, lines: _Lines, cull_backfaces: bool) -> _Lines:
    """Also the curves in which faces pass through each other."""
    found = intersections(scene.mesh, scene.face_view)
    count = len(found.faces)
    if count == 0:
        return lines
    points, view = scene.place(found.ends, found.faces)
    topology = scene.mesh.topology
    with torch.no_grad():
        ends, rays = points.detach().reshape(-1, 2, 3), None
        if not scene.camera.is_central:
            rays = scene.rays_at(view, scene.project_at(view, ends.mean(1))[0])[1].to(ends.dtype)
        stride = topology.num_edges if scene.face_view is None else 0
        candidates = torch.zeros(scene.copies * topology.num_edges, dtype=torch.bool, device=view.device)
        candidates[lines.view * stride + lines.edge] = True
        left, right, seen = curve_sides(
            ends, view, found.faces, rays, scene.vertices.detach(), scene.faces, scene.vertex_stride,
            topology.face_edges, topology.edges, candidates, stride,
            cull=cull_backfaces, alongside=ALONGSIDE, touching=2 * _touching(ends.dtype),
        )  # fmt: skip
    faces = found.faces.repeat(len(view) // count, 1)
    return _added(lines, points, view, faces, left, right, seen)


def _with_cuts(scene: Scene, lines: _Lines, cull_backfaces: bool) -> _Lines:
    """Also the lines where the plane in which parallel rays start cuts through faces: what lies behind is not seen."""
    if scene.camera.is_central or scene.linear_rays is None:
        return lines  # before a centre, that plane has no image
    ahead = scene.vertices.detach()[:, 2] > 0
    offsets = scene.vertex_stride * torch.arange(scene.copies, device=ahead.device)
    corners = (scene.faces + offsets[:, None, None]).flatten(0, 1)  # [copies * F, 3]
    sides = ahead[corners].sum(-1)
    cut = where_true((sides == 1) | (sides == 2))
    if len(cut) == 0:
        return lines
    corners, sides = corners.index_select(0, cut), sides.index_select(0, cut)
    alone = (ahead[corners] == (sides == 1).unsqueeze(-1)).to(torch.uint8).argmax(-1, keepdim=True)
    order = (alone + torch.arange(3, device=cut.device)) % 3  # the corner that is alone on its side comes first
    a, b, c = scene.vertices.index_select(0, corners.gather(1, order).reshape(-1)).reshape(-1, 3, 3).unbind(1)
    points = torch.stack([a + (a[:, 2] / (a[:, 2] - end[:, 2])).unsqueeze(-1) * (end - a) for end in (b, c)], 1)
    face = cut % scene.mesh.num_faces
    view = cut // scene.mesh.num_faces if scene.face_view is None else scene.face_view.index_select(0, face)
    with torch.no_grad():
        start, end = points.unbind(1)
        ray = scene.rays_at(view, scene.project_at(view, start)[0])[1].to(start.dtype)
        towards = torch.where((sides == 1).unsqueeze(-1), a - start, start - a)
        is_left = (torch.linalg.cross(ray, end - start) * towards).sum(-1) > 0
        nothing = torch.full_like(face, -1)
        left, right = torch.where(is_left, face, nothing), torch.where(is_left, nothing, face)
        seen = torch.ones_like(is_left)
        if cull_backfaces:
            turned = torch.linalg.cross(b - a, c - a)
            seen = (turned * ray).sum(-1) < 0
    return _added(lines, points.reshape(-1, 3), view, torch.stack([face, nothing], -1), left, right, seen)


def _with_rim(scene: Scene, rays: PixelRays, lines: _Lines, face_image: Tensor | None) -> _Lines:
    """Also the rim of the field of view."""
    found = rim(scene, rays, face_image)
    if found is None or len(found.view) == 0:
        return lines
    with torch.no_grad():
        usual = rays.hand.index_select(0, found.view) > 0
        nothing = torch.full_like(found.view, -1)
        outside = torch.full_like(nothing, OUTSIDE)
        left, right = torch.where(usual, nothing, outside), torch.where(usual, outside, nothing)
        faces = outside.unsqueeze(-1).expand(-1, 2)
    return _added(lines, found.directions.reshape(-1, 3), found.view, faces, left, right, torch.ones_like(usual))


def _beside_rim(
    lines: _Lines, line: Tensor, on_rim: Tensor, points: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Points [M, 2, 3] and directions [M, 3], made up for pieces `on_rim` to tell on which side of it the centre is.

    The rim is no edge of a plane; but what lies beyond has no ray.
    """
    left = torch.isfinite(directions).all(-1) == (lines.right.index_select(0, line) == OUTSIDE)
    x, y, z = torch.eye(3, dtype=points.dtype, device=points.device)
    made_up = torch.stack([x.expand_as(directions), torch.where(left.unsqueeze(-1), y, -y)], dim=1)
    return torch.where(on_rim[:, None, None], made_up, points), torch.where(on_rim.unsqueeze(-1), z, directions)


def _added(
    lines: _Lines, points: Tensor, view: Tensor, faces: Tensor, left: Tensor, right: Tensor, seen: Tensor
) -> _Lines:
    """Lines, and C more between `points` [2 C, 3] that are no edges, those that are `seen` [C]."""
    with torch.no_grad():
        ends = len(lines.points) + torch.arange(2 * len(view), device=view.device).reshape(-1, 2)
        chosen = where_true(seen)
        more = (ends, view, torch.full_like(view, -1), faces, left, right)
        known = torch.full_like(lines.ends, -1) if lines.faces is None else lines.faces
        before = (lines.ends, lines.view, lines.edge, known, lines.left, lines.right)
        joined = [torch.cat([old, new.index_select(0, chosen)]) for old, new in zip(before, more, strict=True)]
    return _Lines(torch.cat([lines.points, points]), *joined)


def _segments(scene: Scene, lines: _Lines) -> _Segments:
    """Cut lines to the camera's domain, into parts that are straight in the image to `MAX_SAG` pixels."""
    if scene.linear_rays is None:
        with torch.no_grad():
            return _bent_segments(scene, lines)
    with torch.no_grad():
        index = torch.arange(len(lines.view), device=lines.view.device)
        span = lines.points.new_tensor([0.0, 1.0]).expand(len(index), 2)
        if scene.camera.is_central:
            ends = _end_points(lines, index)
            index, span = _in_front(ends[..., 2], ends, index, span)
    xy, depth = _project_points(scene, lines, index, span)
    usable = torch.isfinite(xy.detach()).flatten(1).all(-1)
    if not bool(usable.all()):  # once more, without what would turn gradients into NaN
        index, span = index[usable], span[usable]
        xy, depth = _project_points(scene, lines, index, span)
    return _Segments(index, span, xy, depth.detach())


def _bent_segments(scene: Scene, lines: _Lines) -> _Segments:
    """The same for cameras that bend lines."""
    index, span, xy, depth, stray = _straightened(scene, lines, *_bend(scene, lines))
    # A chord that its own middle is far away from jumps across a seam or out of the domain.
    usable = torch.isfinite(xy).flatten(1).all(-1)
    usable &= stray < 10 * MAX_SAG + 0.05 * (xy[:, 1] - xy[:, 0]).norm(dim=-1)
    keep = where_true(usable)
    return _Segments(*(x.index_select(0, keep) for x in (index, span, xy, depth)))


def _ends_of_pieces(scene: Scene, lines: _Lines, segments: _Segments, pieces: _Pieces) -> Tensor:
    """Pixels [M, 2, 2], differentiable, of the ends of the segments that pieces are parts of."""
    if scene.linear_rays is not None:
        return segments.xy.index_select(0, pieces.segment)
    used, segment = torch.unique_consecutive(pieces.segment, return_inverse=True)
    parts = segments.line.index_select(0, used), segments.span.index_select(0, used)
    return _project_points(scene, lines, *parts)[0].index_select(0, segment)


def _end_points(lines: _Lines, line: Tensor) -> Tensor:
    """The ends [K, 2, 3] of lines [K], camera frame."""
    ends = lines.ends.index_select(0, line)
    return lines.points.index_select(0, ends.reshape(-1)).reshape(-1, 2, 3)


def _in_front(z: Tensor, ends: Tensor, index: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """Shorten edges [C] to the part in front of the camera's plane, `z` [C, 2] >= NEAR x their size."""
    near = NEAR * ends.abs().amax((1, 2))
    if bool((z > near.unsqueeze(-1)).all()):
        return index, span
    slope = z[:, 1] - z[:, 0]
    crossing = ((near - z[:, 0]) / torch.where(slope == 0, 1.0, slope)).clamp(0, 1)
    begin = torch.where(z[:, 0] < near, crossing, span[:, 0])
    end = torch.where(z[:, 1] < near, crossing, span[:, 1])
    keep = where_true((z > near.unsqueeze(-1)).any(-1) & (end > begin))
    return index[keep], torch.stack([begin, end], dim=-1)[keep]


def _bend(scene: Scene, lines: _Lines) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut every line into equal parts, as many as its bend in the image asks for.

    Returns the line [K] and `span` [K, 2] of each part, pixels [K, 3, 2] and depth [K, 3] of its ends and, between
    them, its middle.
    """
    index = torch.arange(len(lines.view), device=lines.view.device)
    probe = torch.linspace(0, 1, 5, dtype=scene.vertices.dtype, device=index.device).expand(len(index), 5)
    xy, depth = _project_points(scene, lines, index, probe)
    # A parabola strays from its chord by an eighth of its second difference, per part; the factor 4 ** 2 is for the
    # quarter of the edge that the second difference of the probes sees.
    bend = 2 * (xy[:, 2:] - 2 * xy[:, 1:-1] + xy[:, :-2]).norm(dim=-1).amax(-1)
    parts = (bend / MAX_SAG).sqrt().ceil().nan_to_num(MAX_SEGMENTS, MAX_SEGMENTS).clamp(1, MAX_SEGMENTS).long()
    whole, bent = where_true(parts == 1), where_true(parts > 1)
    parts = parts.index_select(0, bent)
    owner = torch.repeat_interleave(bent, parts)
    first = torch.repeat_interleave(parts.cumsum(0) - parts, parts)
    part, total = torch.arange(len(owner), device=index.device) - first, torch.repeat_interleave(parts, parts)
    span = torch.stack([part, part + 1], dim=-1) / total.to(probe.dtype).unsqueeze(-1)
    three = torch.stack([span[:, 0], span.mean(1), span[:, 1]], dim=-1)
    cut_xy, cut_depth = _project_points(scene, lines, owner, three)
    return (
        torch.cat([whole, owner]),
        torch.cat([probe[: len(whole), ::4], span]),
        torch.cat([xy[:, ::2].index_select(0, whole), cut_xy]),
        torch.cat([depth[:, ::2].index_select(0, whole), cut_depth]),
    )


def _straightened(
    scene: Scene, lines: _Lines, index: Tensor, span: Tensor, xy: Tensor, depth: Tensor
) -> tuple[Tensor, ...]:
    """Halve parts [K] of `_bend` that are still bent.

    Returns their lines and `span`, pixels [K, 2, 2] and depth [K, 2] of their ends, and how far their middles stray
    from straight lines [K].
    """
    border = xy.new_tensor([scene.camera.width, scene.camera.height])
    for halving in range(HALVINGS + 1):
        begin, middle, end = xy.unbind(1)
        stray = (middle - 0.5 * (begin + end)).norm(dim=-1)
        room = stray.unsqueeze(-1)
        near = ((torch.maximum(begin, end) > -room) & (torch.minimum(begin, end) < border + room)).all(-1)
        bent = (stray > 2 * MAX_SAG) & torch.isfinite(stray) & near & (depth[:, ::2] > 0).any(-1)
        cut = where_true(bent)
        if len(cut) == 0 or halving == HALVINGS:
            break
        kept, line = where_true(~bent), index.index_select(0, cut)
        begin, end = span.index_select(0, cut).unbind(1)
        three = torch.stack([begin, 0.5 * (begin + end), end], dim=-1)
        between = 0.5 * (three[:, 1:] + three[:, :-1])  # the middles of the halves
        new_xy, new_depth = _project_points(scene, lines, line, between)

        def halves(old: Tensor, new: Tensor, kept: Tensor = kept, cut: Tensor = cut) -> Tensor:
            ends = old.index_select(0, cut)
            parts = [torch.stack([ends[:, i], new[:, i], ends[:, i + 1]], dim=1) for i in (0, 1)]
            return torch.cat([old.index_select(0, kept), *parts])

        xy, depth = halves(xy, new_xy), halves(depth, new_depth)
        index = torch.cat([index.index_select(0, kept), line, line])
        span = torch.cat([span.index_select(0, kept), three[:, :2], three[:, 1:]])
    return index, span, xy[:, ::2], depth[:, ::2], stray


def _project_points(scene: Scene, lines: _Lines, index: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [K, S, 2] and depth [K, S] of the points `at` [K, S] (0 to 1) of lines `index` [K]."""
    ends = _end_points(lines, index).unsqueeze(2)
    points = ends[:, 0] * (1 - at).unsqueeze(-1) + ends[:, 1] * at.unsqueeze(-1)
    view = lines.view.index_select(0, index).repeat_interleave(at.shape[1])
    xy, depth = scene.project_at(view, points.reshape(-1, 3))
    return xy.reshape(*at.shape, 2), depth.reshape(at.shape)


@torch.no_grad()
def _visible_pieces(scene: Scene, lines: _Lines, segments: _Segments, cull: bool) -> Steps[_Pieces]:
    """Cut segments at the pixels' sides, and keep the pieces that nothing hides.

    The ray goes through the point of the line in space, not through the chord of a bent edge: a hundredth of a pixel to
    the inside of a silhouette it would meet the next face instead of the background.
    """
    rows = scene.camera.height * lines.view.index_select(0, segments.line)
    pieces = split_at_pixels(segments.xy, rows, scene.camera.size)
    segment, low, high, pixel = split_at_crossings(segments.xy, *pieces)
    line = segments.line.index_select(0, segment)
    view = lines.view.index_select(0, line)
    point, along, xy, center, at_center = piece_middles(
        segments.xy, segments.span, segments.depth, segments.line, lines.ends, lines.points.detach(),
        segment, low, high, pixel, scene.camera.size,
        central=scene.camera.is_central, near_center=AT_CENTER * _rounding(scene, segments.xy),
    )  # fmt: skip
    through = None
    if scene.linear_rays is None:
        xy, depth = scene.project_at(view, point)
        through = scene.rays_at(view, xy)
    else:
        depth = point[:, 2]
    sure = depth > 0
    skip_faces = None
    if lines.faces is not None:
        skip_faces = lines.faces.index_select(0, line)
        sure |= (skip_faces[:, 0] >= 0) & (skip_faces[:, 1] < 0)  # a cut, at the depth 0
    if through is not None:
        sure &= torch.cosine_similarity(point - through[0], through[1], dim=-1) > SAME_RAY
    if scene.camera.is_central:
        directions = point / depth.unsqueeze(-1)
        origins = torch.zeros_like(directions[:1]).expand_as(directions)
    else:
        origins, directions = through or scene.rays_at(view, xy)
    left, right = (face.index_select(0, line) for face in (lines.left, lines.right))
    to_left = torch.linalg.cross(directions, along)
    # An edge that lies in another surface, like that of a box on the floor, is as visible as the surface.
    limit = (depth * (1 - _touching(depth.dtype))).clamp(min=0.0)  # a cut is at the depth 0, but for rounding
    if skip_faces is not None:  # before the rim there is nothing
        limit = torch.where(skip_faces[:, 0] == OUTSIDE, 0.0, limit)
    # Other edges may be at the same place in the image, as those before and behind a wall that is seen edge-on: what
    # is seen beside this one is what lies on that side of them.
    beside = torch.where((right == -1).unsqueeze(-1), -to_left, to_left)
    # What jumps between two faces, both in front, has to be seen on both sides: these are asked for in the same pass.
    count, crease = len(line), where_true((left >= 0) & (right >= 0))
    rays = [view, xy, origins, directions, lines.edge.index_select(0, line), limit]
    if skip_faces is not None:
        rays.append(skip_faces)
    view, ray_xy, origins, directions, edge, limits, *skipped = (
        torch.cat([x, x.index_select(0, crease)]) for x in rays
    )
    behind, behind_depth = yield AskedRays(
        view, ray_xy, origins, directions,
        skip_edge=edge, skip_faces=skipped[0] if skipped else None,
        beside=torch.cat([beside, -beside.index_select(0, crease)]), limit=limits, cull_backfaces=cull,
    )  # fmt: skip
    keep = sure & (behind_depth[:count] > limit)
    keep[crease] &= behind_depth[count:] > limit.index_select(0, crease)
    keep = where_true(keep)
    segment, low, high, line, xy, pixel, center, at_center, behind, left, right = (
        x.index_select(0, keep) for x in (segment, low, high, line, xy, pixel, center, at_center, behind, left, right)
    )
    left, right = (torch.where(face == -1, behind, face).clamp(min=-1) for face in (left, right))
    known = None
    if through is not None:
        known = through[0].index_select(0, keep), through[1].index_select(0, keep)
    return _Pieces(segment, low, high, line, xy, pixel, center, at_center, left, right, known)


def _rounding(scene: Scene, xy: Tensor) -> float:
    """Of pixels."""
    return torch.finfo(xy.dtype).eps * max(scene.camera.size)


def _starts(
    scene: Scene, rays: PixelRays, pieces: _Pieces, view: Tensor, cull: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Where in their pixels the walks to pieces start, [M, 2], and the rays [M, 3] there; `unsure`, `unsure_face`.

    These are the centres. Where a line ends at a centre within rounding (a vertex there, a crossing), it is noise on
    which side of it lines are, and the walk begins beside it: so far that the error by the pixel being shifted is about
    that by the rounding of directions to what is so near.
    """
    center, pixel = pieces.center, pieces.pixel
    origins, directions = _center_rays(scene, rays, view, pixel, center)
    unsure = torch.unique(pixel[pieces.at_center])
    if len(unsure) == 0:
        return (center, origins, directions), unsure, unsure
    height, width = scene.camera.size
    column, row, of_view = unsure % width, unsure // width % height, unsure // (height * width)
    xy = (
        torch.stack([column, row], dim=-1).to(center.dtype)
        + 0.5
        + _rounding(scene, center) ** 0.5 * center.new_tensor(ASIDE)
    )
    beside = scene.rays_at(of_view, xy)
    face, _ = first_faces(scene, of_view, xy, *beside, cull_backfaces=cull)
    moved = where_true(torch.isin(pixel, unsure))
    slot = torch.searchsorted(unsure, pixel.index_select(0, moved))
    center, origins, directions = (
        old.contiguous().index_copy(0, moved, new.to(old.dtype).index_select(0, slot))
        for old, new in zip((center, origins, directions), (xy, *beside), strict=True)
    )
    return (center, origins, directions), unsure, face


def _center_rays(scene: Scene, rays: PixelRays, view: Tensor, pixel: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """The rays [M, 3] through the centres of pixels, bit for bit those that visibility asked."""
    if rays.directions is None:
        return scene.rays_at(view, center)
    directions = rays.directions.index_select(0, pixel)
    return directions if rays.origins is None else rays.origins.index_select(0, pixel), directions
