"""The mesh that a fit starts from, and a clear word where masks and cameras do not go together.

Masks alone say nothing about cameras, but the hull of all of them does: with wrong cameras their cones hardly meet.
What usually goes wrong with cameras (axes, direction of the pose, unit of length) is then tried in turn on small
masks, and named where it would have helped; so are single views that do not go together with the others.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..cameras import Camera
from ..hull import object_bounds, visual_hull
from ..io.image_set import ImageSet
from ..losses import iou
from ..mesh import Mesh
from ..primitives import sphere
from ..render import render
from .settings import FitSettings
from .views import Masks, Views

HULL_IMAGE_SIZE = 800  # longest side of the masks that carve: finer ones only cost time
MARGIN = 0.02  # bounds that a set brings fit tightly, masks may not: relative to the longest side
DOUBTFUL = 0.85  # mean IoU of start and masks: hulls of right cameras reach 0.9, but coarse ones of thin things less
CLEARLY_BETTER = 0.1  # IoU
LIKELY = 0.8  # IoU of the coarse hull that tries a mistake
HARDLY = 0.2  # IoU of a mask with the start, below which the view sees something else
ODD = 0.5  # IoU of a mask with the hull of other views: right ones are far above, and touch at least
FEWEST = 4  # views whose hull says something about another one
TRIED_VIEWS = 8
TRIED_SIZE = 120  # longest side of their masks
TRIED_CELLS = 40
WIDEST, NARROWEST = 15.0, 2e-3  # radians that an image would see if it saw everywhere as many as in its middle: a
# panorama has 6.3, a lens of a metre on a small sensor 0.005
FAR_APART = 30.0  # distances of cameras from the world's origin, one of another: photographs of one object differ less
OTHER_UNIT = 5.0  # bounds that are so many times larger or smaller than what the masks see are in another unit

# What may have happened to a pose P: it is diag P or diag P^-1. (A turn of the world on the other side of P turns the
# object as well, and shows in no picture.)
_MISTAKES = {
    "the axes y and z of the cameras were turned around (OpenGL's taken for OpenCV's, or the other way around)": (
        (1.0, -1.0, -1.0),
        False,
    ),
    "the images were upside down (turned by 180 degrees against their cameras)": ((-1.0, -1.0, 1.0), False),
    "the poses were inverted (world to camera taken for camera to world, or the other way around)": (
        (1.0, 1.0, 1.0),
        True,
    ),
    "the poses were inverted, and the axes y and z of the cameras turned around": ((1.0, -1.0, -1.0), True),
}


def start_mesh(images: ImageSet, settings: FitSettings) -> tuple[Mesh, list[str]]:
    """The mesh that the first stage starts from, and what is doubtful about it, a sentence each.

    Raises ValueError, with what to try, where the masks are empty or do not go together with the cameras.
    """
    _check_focal_lengths(images)
    masks = carving_masks(images)
    _check_masks(images.names, masks)
    try:
        mesh = _start(images, masks, settings)
    except ValueError as error:
        raise ValueError(
            _likely_mistake(images, masks)
            or _odd_views(images.names, masks)
            or f"{error}. The cones of the {len(images)} silhouettes do not meet: cameras and images do not belong "
            "together, or the poses follow another convention than the format has; none of the usual mix-ups helps"
            f"{_units_apart(images)}"
        ) from error
    if settings.start != "hull":
        return mesh, []
    found = _agreements(mesh, masks)
    if sum(found) / len(found) < DOUBTFUL or min(found) < HARDLY:
        if mistake := _likely_mistake(images, masks) or _odd_views(images.names, masks):
            raise ValueError(mistake)
        if (common := _hull_agreement(*_small(masks))) < LIKELY:
            return mesh, [
                f"what all {len(images)} masks see in common agrees with them to an IoU of {common:.2f} only: cameras, "
                "or masks, are probably wrong, but none of the usual mix-ups explains it"
            ]
    return mesh, []


@torch.no_grad()
def doubts_about_others(mesh: Mesh, others: ImageSet) -> list[str]:
    """A sentence about the views that are not fitted, if they hardly see the mesh that the fitted ones start from."""
    if not len(others):
        return []
    found = _agreements(mesh, carving_masks(others))
    blind = [f"{name} (IoU {score:.2f})" for name, score in zip(others.names, found, strict=True) if score < HARDLY]
    if not blind:
        return []
    return [
        f"{len(blind)} of the {len(others)} views held out see something else than the fitted ones: {_listed(blind)}. "
        "Their cameras are probably in another unit or convention, and their figures mean nothing"
    ]


def carving_masks(images: ImageSet) -> Masks:
    """The silhouettes of all views, as large as carving has use for."""
    return Masks((view.silhouette, view.camera) for view in Views(images, HULL_IMAGE_SIZE, memory=0))


@torch.no_grad()
def agreement(mesh: Mesh, masks: Sequence[Tensor], cameras: Sequence[Camera]) -> float:
    """Mean IoU of the silhouettes of `mesh` with `masks`."""
    total = 0.0
    for mask, camera in zip(masks, cameras, strict=True):
        seen = render(mesh, camera, intersecting=False)[..., -1] >= 0.5
        total += float(iou(seen.float(), (mask >= 0.5).float()))
    return total / len(masks)


def _agreements(mesh: Mesh, masks: Masks) -> list[float]:
    """The IoU of each of the `masks` with what is seen of `mesh`."""
    return [agreement(mesh, [mask], [camera]) for mask, camera in zip(*_small(masks, len(masks)), strict=True)]


def _start(images: ImageSet, masks: Masks, settings: FitSettings) -> Mesh:
    bounds = object_bounds(masks, masks.cameras) if images.bounds is None else _widened(images.bounds)
    cells = settings.mesh_cells // 2 ** (len(settings.image_sizes) - 1 if settings.fit_shape else 0)
    if settings.start == "hull":
        return visual_hull(masks, masks.cameras, bounds, resolution=cells)
    if images.bounds is not None and (wrong := _other_unit(bounds, *_small(masks))):
        raise ValueError(wrong)
    # an icosphere has 10 * 4^n faces around half of it, of 2 in each cell: pi / 2 cells^2 on a face of the box
    ball = sphere(max(1, round(math.log(math.pi / 2 * cells**2 / 5, 4))))
    return Mesh(bounds.mean(0) + ball.vertices * (bounds[1] - bounds[0]) / 2, ball.faces)


def _widened(bounds: Tensor) -> Tensor:
    margin = MARGIN * float((bounds[1] - bounds[0]).max())
    return torch.stack([bounds[0] - margin, bounds[1] + margin])


@torch.no_grad()
def _check_focal_lengths(images: ImageSet) -> None:
    """Raise where the angle that a pixel in the middle sees makes no image of a lens that there is."""
    odd = []
    for name, camera in zip(images.names, images.cameras, strict=True):
        if not camera.is_central:
            continue
        middle = torch.tensor([camera.width / 2, camera.height / 2], dtype=camera.dtype)
        left, right = camera.local_rays(middle + middle.new_tensor([[-0.5, 0.0], [0.5, 0.0]]))[1]
        angle = float(torch.atan2(torch.linalg.cross(left, right).norm(), left @ right))
        if angle * max(camera.size) > WIDEST or angle * max(camera.size) < NARROWEST:
            odd.append((name, 1 / angle if angle else math.inf, camera.width))
    if odd:
        name, focal, width = odd[0]
        raise ValueError(
            f"the cameras of {len(odd)} of the {len(images)} views have impossible focal lengths, that of {name} about "
            f"{focal:.3g} pixels for an image {width} pixels wide. They are counted in pixels: multiply those in "
            "millimetres by the image's width over the sensor's, those relative to the width by the width"
        )


def _check_masks(names: Sequence[str], masks: Masks) -> None:
    """Raise where there is no object in a mask, or nothing but the object in all of them."""
    shares = torch.tensor([float(mask.float().mean()) for mask in masks])
    empty = [name for name, share in zip(names, shares.tolist(), strict=True) if share == 0]
    if empty:
        raise ValueError(
            f"the mask is empty in {len(empty)} of the {len(names)} views ({_listed(empty)}): nothing to fit there. "
            "Alpha may be 0 everywhere, or the object too dark for the threshold; repair those images, or leave the "
            "views out (--views names those to keep)"
        )
    if bool((shares == 1).all()):
        raise ValueError(
            f"the masks of all {len(names)} views cover the whole image: no outline to fit. Alpha is probably 1 "
            "everywhere; images must be cut out, with alpha 0 around the object, or have a known background "
            "(--background says which)"
        )
    if all(bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].all()) for mask in masks):  # the four corners of the image
        small, cameras = _small(masks)
        if _hull_agreement([1 - mask for mask in small], cameras) >= LIKELY:
            raise ValueError("the masks are inverted: they are set around the object, and must be set on it")


def _other_unit(bounds: Tensor, masks: list[Tensor], cameras: list[Camera]) -> str | None:
    """A sentence, where the `bounds` are far from the place, or the size, of what the masks see together."""
    try:
        seen = object_bounds(masks, cameras).to(bounds)
    except ValueError:
        return None  # nothing to compare with: the cameras are wrong themselves
    ratio = float((bounds[1] - bounds[0]).max() / (seen[1] - seen[0]).max())
    apart = bool((bounds[0] > seen[1]).any() or (bounds[1] < seen[0]).any())
    if not apart and 1 / OTHER_UNIT < ratio < OTHER_UNIT:
        return None
    return (
        f"the bounds of the image set, {_box(bounds)}, do not fit to what masks and cameras see at {_box(seen)}: "
        f"{'another place' if apart else f'{ratio:.3g} times as large'}. The cameras' translations and the bounds are "
        "probably in different units (m and mm differ by 1000); bring them to one, or remove the bounds"
    )


def _units_apart(images: ImageSet) -> str:
    """The end of a sentence, where some cameras are many times farther away than others."""
    distance = torch.stack([camera.center.norm() for camera in images.cameras])
    near, far = int(distance.argmin()), int(distance.argmax())
    if not float(distance[far]) > FAR_APART * float(distance[near]) > 0:
        return ""
    return (
        f". The camera of {images.names[far]} is {float(distance[far]):.3g} away from the world's origin, that of "
        f"{images.names[near]} {float(distance[near]):.3g}: some translations are probably in another unit (m and mm "
        "differ by 1000)"
    )


def _likely_mistake(images: ImageSet, masks: Masks) -> str | None:
    """A sentence about the usual mistake that would explain the masks much better than the cameras as they are."""
    small, cameras = _small(masks)
    if images.bounds is not None and (wrong := _other_unit(_widened(images.bounds), small, cameras)):
        return wrong
    found = _hull_agreement(small, cameras)
    scores = {name: _hull_agreement(small, [_mistaken(c, *how) for c in cameras]) for name, how in _MISTAKES.items()}
    best = max(scores, key=scores.__getitem__)
    if scores[best] < found + CLEARLY_BETTER or scores[best] < LIKELY:
        return None
    return (
        f"masks and cameras do not go together: what all {len(images)} masks see in common agrees with them to an IoU "
        f"of {found:.2f}. It would be {scores[best]:.2f} if {best}: check how the poses were written"
    )


def _odd_views(names: Sequence[str], masks: Masks) -> str | None:
    """A sentence about the few views, if any, that do not go together with the others."""
    small, cameras = _small(masks)
    every = list(range(len(small)))
    groups = [every, *([i for i in every if i != left_out] for left_out in every)]
    groups = [group for group in groups if len(group) >= FEWEST]
    if not groups:
        return None
    scores = [_hull_agreement([small[i] for i in group], [cameras[i] for i in group]) for group in groups]
    best = max(range(len(groups)), key=scores.__getitem__)
    if scores[best] < LIKELY:
        return None
    hull = _coarse_hull([small[i] for i in groups[best]], [cameras[i] for i in groups[best]])
    found = _agreements(hull, masks)
    odd = [f"{name} (IoU {score:.2f})" for name, score in zip(names, found, strict=True) if score < ODD]
    if not odd:
        return None
    return (
        f"{len(odd)} of the {len(names)} views do not go together with the others: {_listed(odd)}. Their masks may be "
        "inverted, or their cameras those of other images, or in another unit (m and mm differ by 1000); repair them, "
        "or leave them out (--views names those to keep)"
    )


def _hull_agreement(masks: list[Tensor], cameras: list[Camera]) -> float:
    """How well a coarse hull agrees with `masks`; 0 where there is none."""
    try:
        return agreement(_coarse_hull(masks, cameras), masks, cameras)
    except ValueError:
        return 0.0


def _coarse_hull(masks: list[Tensor], cameras: list[Camera]) -> Mesh:
    return visual_hull(masks, cameras, object_bounds(masks, cameras), resolution=TRIED_CELLS, growth=0.5)


def _mistaken(camera: Camera, turn: Sequence[float], inverted: bool) -> Camera:
    """`camera` with the pose diag(turn) P, or diag(turn) P^-1."""
    R, t = (camera.R.T, -camera.R.T @ camera.t) if inverted else (camera.R, camera.t)
    around = R.new_tensor(turn)
    return camera.replace(R=around[:, None] * R, t=around * t)


def _small(masks: Masks, count: int = TRIED_VIEWS) -> tuple[list[Tensor], list[Camera]]:
    """At most `count` of the masks, evenly spread, on small images, and their cameras."""
    chosen = torch.linspace(0, len(masks) - 1, min(count, len(masks))).round().long().tolist()
    small, cameras = [], []
    for i in chosen:
        height, width = masks.cameras[i].size
        scale = min(1.0, TRIED_SIZE / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        resized = torch.nn.functional.interpolate(masks[i][None, None].float(), size, mode="area")[0, 0]
        # at least 0.5 is in the mask; thin things that are averaged away would leave none
        small.append((resized >= min(0.5, float(resized.max()))).float())
        cameras.append(masks.cameras[i].resize(size))
    return small, cameras


def _box(bounds: Tensor) -> str:
    low, high = (", ".join(f"{x:.3g}" for x in corner) for corner in bounds.tolist())
    return f"({low}) to ({high})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
