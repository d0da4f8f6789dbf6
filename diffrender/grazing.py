"""Faces seen almost edge-on: their share of a pixel, where the pixel's centre is a bad sample.

Where a face is seen almost edge-on, colour and depth change with its motion like 1 / cos, and the centre of a pixel
meets it with a probability like cos: derivatives looked up at centres are right on average, but few, huge and random
(their variance is the diverging integral of 1 / cos). Such faces are narrow in the image, so that the sum over samples
can be replaced by the integral: for every pixel the area of the face inside it, and one look-up at the area's centroid.

What is looked up there has the derivative of the face's share of the image; values stay those at the centres. With
`color` a function of a fragment f (its barycentrics and depth) and the mesh,

    area * (color(f) - color(f.detach()))

adds no value, only that derivative; fragments elsewhere on faces that are `held` must then give up theirs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels.clipping import clip_to_pixels, face_cosines
from .scene import Scene
from .visibility import first_faces

MAX_COSINE = 0.1  # between ray and normal: centres are good enough for less steep faces
MAX_WIDTH = 2.0  # pixels: wider faces have centres in every row or column
MIN_AREA = 1e-7  # of a pixel: keeps the rounding of a centroid, 1e-16 / area, well below the width of its part
SURFACE = 1.0  # pixels of surface, seen from ahead, for which one look-up is enough: parts with less share one
SHARE_TICKS = 1 << 20  # of a look-up: shares are counted in whole numbers
MAX_STRAY = 0.25  # pixels: how far a bent face may be from the triangle of its projected corners
SAME_RAY = 0.99  # cosine between the ray of a projected point and the point: less means outside of the lens' domain


@dataclass(frozen=True, eq=False)
class Grazing:
    """M visible parts of pixels, each filled by a face seen almost edge-on.

    Attributes:
        view: [M] the camera.
        pixel: [M] index into the B * H * W pixels.
        face: [M] index into `mesh.faces`.
        xy: [M, 2] the centroid of the part.
        area: [M] its share of the pixel, without gradient; more where it speaks for other parts, too small for one of
            their own.
        flags: [B, F], or [1, F] where every face is drawn in one view only: which faces these are, also those of
            whose parts none is visible.
    """

    view: Tensor
    pixel: Tensor
    face: Tensor
    xy: Tensor
    area: Tensor
    flags: Tensor

    def held(self, view: Tensor, face_index: Tensor) -> Tensor:
        """[N] bool, whether the areas here stand for faces [N] in views [N]: whether other samples must not."""
        copies, num_faces = self.flags.shape
        return self.flags.reshape(-1).index_select(0, face_index + view * num_faces if copies > 1 else face_index)


@dataclass(frozen=True, eq=False)
class _Faces:
    """C steep faces, narrow in the image."""

    view: Tensor  # [C]
    face: Tensor  # [C]
    cosine: Tensor  # [C]
    points: Tensor  # [C, 3, 3] corners, camera frame
    depth: Tensor  # [C, 3] of the corners
    triangle: Tensor  # [C, 3, 2] pixels, float64


@torch.no_grad()
def grazing(scene: Scene, *, cull_backfaces: bool = False) -> Grazing:
    """The parts of all pixels that are filled by narrow faces seen almost edge-on.

    Faces of which some part is not where the straight triangle between the projected corners says (behind the camera,
    across the border of a lens' domain or the seam of a panorama, strongly bent) are left to the centres of pixels.

    Args:
        scene: from `scene.pack`.
        cull_backfaces: as given to `visibility`.
    """
    height, width = scene.camera.size
    faces = _steep_faces(scene)
    parts = clip_to_pixels(faces.triangle, scene.camera.size)
    owner, pixel, area, centroid = _picked((parts.area > MIN_AREA).nonzero().squeeze(-1), *vars(parts).values())
    points = _points(scene, faces, owner, centroid)
    xy, straight = _seen_at(scene, faces.view[owner], points, centroid.to(points.dtype))
    marked = torch.zeros_like(faces.face, dtype=torch.bool).index_fill(0, owner, True)
    marked = marked.index_fill(0, owner[~straight], False)

    area, speaks = _shared(area, faces.cosine[owner], faces.view[owner])
    chosen = (speaks & marked[owner]).nonzero().squeeze(-1)
    owner, pixel, area, xy, points = _picked(chosen, owner, pixel, area.to(xy.dtype), xy, points)
    view, face = _picked(owner, faces.view, faces.face)
    visible = _visible(scene, view, face, xy, points, cull_backfaces)
    view, pixel, face, xy, area = _picked(visible, view, view * (height * width) + pixel, face, xy, area)
    return Grazing(view, pixel, face, xy, area, _flags(scene, faces.view[marked], faces.face[marked]))


def _picked(index: Tensor, *values: Tensor) -> list[Tensor]:
    return [value.index_select(0, index) for value in values]


def _steep_faces(scene: Scene) -> _Faces:
    """The faces with a normal almost perpendicular to the ray to their middle that are narrow in the image."""
    num_faces = scene.mesh.num_faces
    copies = scene.num_views if scene.face_view is None else 1
    vertices, eyes = scene.vertices, None
    if not scene.camera.is_central:
        view, face = _drawn(scene, torch.arange(copies * num_faces, device=vertices.device))
        middle = _corner_points(scene, view, face).mean(1)
        eyes = scene.rays_at(view, scene.project_at(view, middle)[0])[0].to(vertices.dtype)
    cosine = face_cosines(vertices, scene.faces, copies=copies, eyes=eyes)
    item = (cosine < MAX_COSINE).nonzero().squeeze(-1)
    view, face = _drawn(scene, item)
    points = _corner_points(scene, view, face)
    if scene.linear_rays is not None:
        xy, in_front = _picked(scene.corners(view, face).reshape(-1), *scene.projected)
        depth = points[..., 2]
    else:
        xy, distance = scene.project_at(view.repeat_interleave(3), points.reshape(-1, 3))
        in_front, depth = torch.isfinite(xy).all(-1), distance.reshape(-1, 3).to(points.dtype)
    triangle = xy.reshape(-1, 3, 2).double()
    usable = in_front.reshape(-1, 3).all(-1) & (depth > 0).all(-1) & _narrow(triangle, scene.camera.size)
    kept = usable.nonzero().squeeze(-1)
    return _Faces(*_picked(kept, view, face, cosine.index_select(0, item), points, depth, triangle))


def _drawn(scene: Scene, item: Tensor) -> tuple[Tensor, Tensor]:
    """View and index of the faces `item` [N], counted through all faces of all views."""
    if scene.face_view is not None:
        return scene.face_view.index_select(0, item), item
    num_faces = max(scene.mesh.num_faces, 1)
    return item // num_faces, item % num_faces


def _corner_points(scene: Scene, view: Tensor, face: Tensor) -> Tensor:
    """[N, 3, 3] the corners of faces, camera frame."""
    return scene.vertices.index_select(0, scene.corners(view, face).reshape(-1)).reshape(-1, 3, 3)


def _narrow(triangle: Tensor, size: tuple[int, int]) -> Tensor:
    """[C] whether triangles [C, 3, 2] are less than `MAX_WIDTH` wide, and not all on one side of the image."""
    side = triangle.roll(-1, dims=1) - triangle
    twice_area = (side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0]).abs()
    inside = (triangle.amax(1) > 0) & (triangle.amin(1) < triangle.new_tensor([size[1], size[0]]))
    return (twice_area < MAX_WIDTH * side.norm(dim=-1).amax(-1)) & inside.all(-1)


def _points(scene: Scene, faces: _Faces, owner: Tensor, centroid: Tensor) -> Tensor:
    """Where on the surface [K, 3] the faces `owner` [K] are seen at pixels [K, 2] inside their triangles."""
    to_corner = faces.triangle.index_select(0, owner) - centroid.unsqueeze(1)
    a, b = to_corner.roll(-1, dims=1), to_corner.roll(-2, dims=1)
    weights = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).abs().to(faces.depth.dtype)
    if scene.camera.is_central:  # perspective: what is nearer fills more of the image
        weights = weights / faces.depth.index_select(0, owner)
    weights = weights / weights.sum(-1, keepdim=True)
    return (weights.unsqueeze(-1) * faces.points.index_select(0, owner)).sum(1)


def _seen_at(scene: Scene, view: Tensor, points: Tensor, centroid: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [K, 2] of points [K, 3], and whether those are the expected ones."""
    if scene.linear_rays is not None:
        return centroid, torch.ones_like(view, dtype=torch.bool)
    xy = scene.project_at(view, points)[0].to(points.dtype)
    return xy, (xy - centroid).norm(dim=-1) < MAX_STRAY


def _shared(area: Tensor, cosine: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """Areas [K] and which of the parts, of ascending `view` [K], shall be looked up in place of smaller neighbours.

    Each part has a share of a look-up, 1 or its surface (`area / cosine`) over `SURFACE` if that is less. One is chosen
    wherever the sum of the shares so far passes a whole number, and speaks for as much as its share is less than 1:
    systematic sampling, right on average, and bounded by the surface however many faces it is made of.
    """
    share = (area / (SURFACE * cosine)).clamp(max=1)
    ticks = (share * SHARE_TICKS).round().long().clamp(min=1)  # whole numbers have one sum, in whatever order
    total = ticks.cumsum(0)
    _, in_view = torch.unique_consecutive(view, return_counts=True)
    last = (in_view.cumsum(0) - 1).clamp(min=0)
    total = total - torch.nn.functional.pad(total[last], (1, 0))[:-1].repeat_interleave(in_view)  # each view anew
    speaks = total // SHARE_TICKS > (total - ticks) // SHARE_TICKS
    return area * (SHARE_TICKS / ticks), speaks


def _visible(scene: Scene, view: Tensor, face: Tensor, xy: Tensor, points: Tensor, cull_backfaces: bool) -> Tensor:
    """Index of those faces [K] that are seen first at their points [K, 3], which project to `xy` [K, 2]."""
    origins, directions = (x.to(points.dtype) for x in scene.rays_at(view, xy))
    sure = torch.ones_like(face, dtype=torch.bool)
    if scene.linear_rays is None:
        sure = torch.cosine_similarity(points - origins, directions, dim=-1) > SAME_RAY
    if scene.camera.is_central:  # through the point itself: does not miss a face as narrow as the rounding of a pixel
        length = points[:, 2:] if scene.linear_rays is not None else points.norm(dim=-1, keepdim=True)
        directions = points / length  # of like length: the boxes of a tree of rays are then small
    first, _ = first_faces(scene, view, xy, origins, directions, cull_backfaces=cull_backfaces)
    return (sure & (first == face)).nonzero().squeeze(-1)


def _flags(scene: Scene, view: Tensor, face: Tensor) -> Tensor:
    """[B, F] or [1, F] bool, with the flags of faces in views set."""
    flags = torch.zeros(
        scene.num_views if scene.face_view is None else 1, scene.mesh.num_faces, dtype=torch.bool, device=face.device
    )
    item = face if scene.face_view is not None else face + view * scene.mesh.num_faces
    return flags.view(-1).index_fill(0, item, True).view_as(flags)
