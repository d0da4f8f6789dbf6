"""Faces seen at a small angle, or beside a sharp bend: their share of each pixel, where its centre is a bad sample.

Where a face is seen at a small angle to its plane, colour and depth change with its motion like 1 / cos (of the angle
between the ray and the face's normal), and the centre of a pixel meets it with a probability like cos: derivatives
looked up at centres are right on average, but few, large and random; their variance is the diverging integral of
1 / cos. The same goes, less badly, where the surface bends around less than a pixel or two, as that of a wire: centres
meet it from few sides, or miss it. Such faces are narrow in the image, so that the sum over centres can be replaced by
the integral: for every pixel the area of the face inside it, and one look-up at that area's centroid.

What is looked up there has the derivative of the face's share of the image; values stay those at the centres. With
`color` a function of a fragment f (its barycentrics and depth) and the mesh,

    area * (color(f) - color(f.detach()))

adds no value, only that derivative; fragments elsewhere on faces that are `held` must then give up theirs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import where_true
from .kernels.bent_faces import cut_in_four, judge_sides, side_middles
from .kernels.clipping import clip_to_pixels, steep_faces
from .kernels.narrow_faces import choose_lookups
from .scene import SAME_RAY, Scene
from .turning import turning_faces
from .visibility import AskedRays, Steps, answered

MAX_COSINE = 0.4  # of the angle between ray and normal: centres are good enough for faces seen more from ahead
MAX_WIDTH = 2.0  # pixels: wider faces have two centres and more in every row or column
MAX_RADIUS = 2.0  # pixels: centres are good enough, too, for faces at whose sides the surface bends around a larger one
BORDER = 1.0  # squared distance of unit normals that counts as much as a border: strips are like wires
MIN_AREA = 1e-7  # of a pixel: keeps the rounding of a centroid, 1e-16 / area, well below the width of its part
SURFACE = 0.7  # of a pixel, seen from ahead: for so much surface one look-up is enough; smaller parts share one. Where
# it bends, for less: so many look-ups that a wire has as many along its length whatever its width
MAX_SAG = 0.05  # of a face's height in the image: how far a lens may bend its sides before it is cut in four
MAX_CUTS = 3  # times a face is cut in four at most, which makes that 8 times less ...
MAX_CUTS_AT_SEAM = 6  # ... or so often where a camera's image has a seam, until 3 % of its area are left across that
JUMP = 0.25  # of a side's length: with its middle so far from that of its ends, the side lies across a seam
MAX_STRAY = 0.25  # pixels: how far what is left of a bent face may be from the triangle of its projected corners


@dataclass(frozen=True, eq=False)
class Grazing:
    """M visible parts of pixels, each filled by a narrow face seen at a small angle to its plane.

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
    rays: tuple[Tensor, Tensor] | None = None

    def held(self, view: Tensor, face_index: Tensor) -> Tensor:
        """[N] bool, whether the areas here stand for faces [N] in views [N]: whether other samples must not."""
        copies, num_faces = self.flags.shape
        return self.flags.reshape(-1).index_select(0, face_index + view * num_faces if copies > 1 else face_index)


@dataclass(frozen=True, eq=False)
class _Faces:
    """C steep faces, or such beside a bend, narrow in the image; or parts of them."""

    view: Tensor  # [C]
    face: Tensor  # [C]
    whole: Tensor  # [C] what it is a part of: some number below C
    grain: Tensor  # [C] how much of the image shows as much surface as a pixel that sees it from ahead
    points: Tensor  # [C, 3, 3] corners, camera frame
    depth: Tensor  # [C, 3] of the corners
    triangle: Tensor  # [C, 3, 2] pixels, float64

    def values(self) -> tuple[Tensor, ...]:
        return self.view, self.face, self.whole, self.grain, self.points, self.depth, self.triangle

    def picked(self, index: Tensor) -> "_Faces":
        return _Faces(*_picked(index, *self.values()))


def grazing(scene: Scene, *, cull_backfaces: bool = False) -> Grazing:
    """The parts of all pixels that are filled by narrow faces seen at a small angle; `grazing_steps` on its own."""
    (found,) = answered(scene, grazing_steps(scene, cull_backfaces=cull_backfaces))
    assert isinstance(found, Grazing)
    return found


@torch.no_grad()
def grazing_steps(scene: Scene, *, cull_backfaces: bool = False) -> Steps[Grazing]:
    """The parts of all pixels that are filled by narrow faces seen at a small angle to their plane, or beside a bend.

    Faces of which some part is not where the straight triangle between the projected corners says (behind the camera,
    across the border of a lens' domain or the seam of a panorama, strongly bent, seen from both sides) are left to the
    centres of pixels. A stage for `visibility.answered`.

    Args:
        scene: from `scene.pack`.
        cull_backfaces: faces seen from behind are transparent, or none of them can be seen: half the work.
    """
    height, width = scene.camera.size
    faces = _steep_faces(scene, cull_backfaces)
    parts = clip_to_pixels(faces.triangle, scene.camera.size)
    found = choose_lookups(
        parts, faces.triangle, faces.view, faces.grain, faces.whole, faces.points, faces.depth,
        num_views=scene.num_views, min_area=MIN_AREA, surface=SURFACE, central=scene.camera.is_central,
    )  # fmt: skip
    owner, pixel = _picked(found.part, parts.triangle, parts.pixel)
    view, face = _picked(owner, faces.view, faces.face)
    points, xy, marked = found.points, found.xy, found.marked
    if scene.linear_rays is None:
        xy = scene.project_at(view, points)[0].to(points.dtype)
        stray = (xy - found.xy).norm(dim=-1)
        marked = marked.index_fill(0, faces.whole[owner[~(stray < MAX_STRAY)]], False)[faces.whole]
    rays, through, sure = _rays_to(scene, view, xy, points, cull_backfaces)
    first, _ = yield rays
    found_there = (first == face) & marked.index_select(0, owner)
    seen = where_true(found_there if sure is None else found_there & sure)
    view, pixel, face, xy, area = _picked(seen, view, view * (height * width) + pixel, face, xy, found.area)
    known = None
    if scene.linear_rays is None and through is not None:
        known = through[0].index_select(0, seen), through[1].index_select(0, seen)
    return Grazing(view, pixel, face, xy, area, _flags(scene, faces.view[marked], faces.face[marked]), known)


def nowhere_grazing(scene: Scene) -> Grazing:
    """As if no face were seen at a small angle."""
    none, points = scene.faces[:0, 0], scene.vertices.detach()[:0]
    return Grazing(none, none, none, points[:, :2], points[:, 0], _flags(scene, none, none), (points, points))


def _picked(index: Tensor, *values: Tensor) -> list[Tensor]:
    return [value.index_select(0, index) for value in values]


def _steep_faces(scene: Scene, cull: bool) -> _Faces:
    """The faces that are narrow in the image, and seen at a small angle to their plane or beside a sharp bend."""
    vertices, eyes = scene.vertices.detach(), None
    if scene.linear_rays is not None:
        (xy, usable), depth, max_length = scene.projected, vertices[:, 2], math.inf
    else:
        xy, depth = (x.to(vertices.dtype) for x in scene.projected_by_camera)
        usable = torch.isfinite(xy).all(-1) & (depth > 0)
        max_length = 0.5 * max(scene.camera.size)  # across a seam, a face is as long as the image
    if not scene.camera.is_central:
        view, face = _drawn(scene, torch.arange(scene.copies * scene.mesh.num_faces, device=vertices.device))
        middle = _at_corners(scene, xy, view, face).mean(1)
        eyes = scene.rays_at(view, middle)[0].to(vertices.dtype)
    item, grain = steep_faces(
        vertices, xy, usable, scene.faces, scene.camera.size, scene.mesh.topology,
        max_cosine=MAX_COSINE, max_width=MAX_WIDTH, max_radius=MAX_RADIUS, border=BORDER, max_length=max_length,
        cull=cull, copies=scene.copies, eyes=eyes,
    )  # fmt: skip
    view, face = _drawn(scene, item)
    if eyes is not None and scene.linear_rays is None:  # the image of a face that turns is no triangle
        kept = where_true(~turning_faces(scene).reshape(-1)[item])
        view, face, grain = _picked(kept, view, face, grain)
    points, corner_depth, triangle = (_at_corners(scene, x, view, face) for x in (vertices, depth.unsqueeze(-1), xy))
    whole = torch.arange(len(face), device=face.device)
    faces = _Faces(view, face, whole, grain, points, corner_depth.squeeze(-1), triangle.double())
    return faces if scene.linear_rays is not None else _straightened(scene, faces)


def _straightened(scene: Scene, faces: _Faces) -> _Faces:
    """The faces, or their parts: what a lens bends is cut in four at the middles of its sides, until it is straight.

    What lies across the seam of a panorama is cut more often, and the parts left out that do so even then.
    """
    straight: list[_Faces] = []
    for cuts in range(MAX_CUTS_AT_SEAM + 1):
        middles = side_middles(faces.points)
        xy, depth = scene.project_at(faces.view.repeat_interleave(3), middles.reshape(-1, 3))
        xy, depth = (x.to(middles.dtype) for x in (xy.reshape(-1, 3, 2), depth.reshape(-1, 3)))
        kept, bent = judge_sides(
            faces.triangle, xy, jump=JUMP,
            max_sag=MAX_SAG if cuts < MAX_CUTS else None,
            max_width=MAX_WIDTH if cuts == 0 else None,  # not those chosen for being so long if they truly are
        )  # fmt: skip
        straight.append(faces.picked(kept))
        if cuts == MAX_CUTS_AT_SEAM or len(bent) == 0:
            break
        quarters = cut_in_four(bent, faces.points, faces.depth, faces.triangle, middles, depth, xy)
        view, face, whole, grain = (
            x.repeat_interleave(4) for x in _picked(bent, faces.view, faces.face, faces.whole, faces.grain)
        )
        faces = _Faces(view, face, whole, grain, *quarters)
    view, face, whole, *others = (torch.cat(parts) for parts in zip(*(x.values() for x in straight), strict=True))
    return _Faces(view, face, torch.unique(whole, return_inverse=True)[1], *others)  # nothing is left of some


def _drawn(scene: Scene, item: Tensor) -> tuple[Tensor, Tensor]:
    """View and index of the faces `item` [N], counted through all faces of all views."""
    if scene.face_view is not None:
        return scene.face_view.index_select(0, item), item
    num_faces = max(scene.mesh.num_faces, 1)
    return item // num_faces, item % num_faces


def _at_corners(scene: Scene, values: Tensor, view: Tensor, face: Tensor) -> Tensor:
    """[N, 3, C] of values [P, C] of the vertices those at the corners of faces."""
    return values.index_select(0, scene.corners(view, face).reshape(-1)).reshape(-1, 3, values.shape[-1])


def _rays_to(
    scene: Scene, view: Tensor, xy: Tensor, points: Tensor, cull: bool
) -> tuple[AskedRays, tuple[Tensor, Tensor] | None, Tensor | None]:
    """The rays to points [K, 3], which project to `xy` [K, 2]; those through these pixels; [K] whether they agree.

    That is, whether points are truly seen there. Nobody has to ask one centre whose image is straight.
    """
    through, sure = None, None
    if scene.linear_rays is None or not scene.camera.is_central:
        through = scene.rays_at(view, xy)
        origins, directions = (x.to(points.dtype) for x in through)
    if scene.linear_rays is None:
        sure = torch.cosine_similarity(points - origins, directions, dim=-1) > SAME_RAY
    if scene.camera.is_central:  # through the point itself: does not miss a face as narrow as the rounding of a pixel
        length = points[:, 2:] if scene.linear_rays is not None else points.norm(dim=-1, keepdim=True)
        directions = points / length  # of like length: the boxes of a tree of rays are then small
        origins = torch.zeros_like(points[:1]).expand_as(points)
    return AskedRays(view, xy, origins, directions, cull_backfaces=cull), through, sure


def _flags(scene: Scene, view: Tensor, face: Tensor) -> Tensor:
    """[B, F] or [1, F] bool, with the flags of faces in views set."""
    flags = torch.zeros(scene.copies, scene.mesh.num_faces, dtype=torch.bool, device=face.device)
    return flags.view(-1).index_fill(0, scene.drawn(view, face), True).view_as(flags)
