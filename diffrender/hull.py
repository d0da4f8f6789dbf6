"""Visual hull: the largest shape that fits all silhouettes, to start a fit from.

A point belongs to the hull when every view sees it inside the mask (Laurentini 1994). Instead of yes or no, each view
gives the distance to its silhouette in the image, and the hull is where the smallest of them is positive; so the
surface lies between the grid points, not on them.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from scipy import ndimage
from torch import Tensor

from .cameras.base import Camera
from .checks import check_finite, check_tensor, shape_of
from .isosurface import surface_nets
from .mesh import Mesh
from .sampling import sample

_CHUNK = 1 << 18  # grid points at a time: a few MB for each view's coordinates


@torch.no_grad()
def visual_hull(
    masks: Sequence[Tensor] | Tensor,
    cameras: Sequence[Camera] | Camera,
    bounds: Tensor,
    *,
    resolution: int = 100,
    growth: float = 0.0,
) -> Mesh:
    """The visual hull of `masks` as a closed manifold: its largest component, without the cavities nobody can see.

    Args:
        masks: one [H, W] mask for each view, at least 0.5 on the object; [N, H, W] or a sequence, of which one mask at
            a time is asked for.
        cameras: the camera of each view, of the mask's size; a batch [N] or a sequence.
        bounds: [2, 3] lowest and highest corner of a box around the object; the hull ends there.
        resolution: cubic cells along the longest side of the box.
        growth: cells by which the hull is made thicker, within the box: half a cell holds parts together that are
            thinner than the grid can see.

    Beyond the image a view says nothing where the mask touches that side of the image (the object goes on there), and
    carves otherwise. Behind the camera it says nothing.
    """
    check_tensor("bounds", bounds, ndim=2, last=3, hint="the lowest and the highest corner of the box")
    check_finite("bounds", bounds)
    if bounds.shape[0] != 2 or bool((bounds[0] >= bounds[1]).any()):
        raise ValueError(f"bounds must be [2, 3], lowest corner first, with some volume; got {bounds.tolist()}")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2 cells; got {resolution}")
    step = float((bounds[1] - bounds[0]).max()) / resolution
    inside_by = _hull_values(silhouettes(masks, cameras, bounds), bounds, step, growth * step)
    kept = largest_component(inside_by > 0)
    if not bool(kept.any()):
        raise ValueError(
            "masks leave no point of the box: one of the masks is empty, cameras and masks do not belong together, or "
            f"bounds {bounds.tolist()} miss the object"
        )
    return surface_nets(torch.where(kept, inside_by.abs(), -inside_by.abs()), origin=bounds[0], step=step)


@torch.no_grad()
def object_bounds(masks: Sequence[Tensor] | Tensor, cameras: Sequence[Camera] | Camera) -> Tensor:
    """[2, 3] box around the visual hull of `masks`, for image sets that do not bring their own.

    It starts from the point nearest to the rays through the middles of the masks, with a cube that covers the masks at
    that distance, and tightens it around a coarse hull.
    """
    cameras = _as_sequence(cameras)
    boxes = [_mask_box(i, mask) for i, mask in enumerate(masks)]
    middles = [(low + high) / 2 for low, high in boxes]
    rays = [camera.rays(middle.to(camera.R)) for camera, middle in zip(cameras, middles, strict=True)]
    origins = torch.stack([origin for origin, _ in rays])
    directions = torch.nn.functional.normalize(torch.stack([direction for _, direction in rays]), dim=-1)
    across = torch.eye(3).to(directions) - directions[:, :, None] * directions[:, None, :]  # [N, 3, 3]
    # least squares: the sum of (I - d d^T) (x - o) vanishes; the ridge decides where all rays are parallel
    ridge = 1e-6 * torch.eye(3).to(across)
    right = ((across + ridge / len(across)) @ origins[..., None]).sum(0)
    center = torch.linalg.solve(across.sum(0) + ridge, right)[:, 0]

    radius = origins.new_zeros(())
    for camera, (low, high) in zip(cameras, boxes, strict=True):
        corners = torch.stack([low, high, torch.stack([low[0], high[1]]), torch.stack([high[0], low[1]])])
        origin, direction = camera.rays(corners.to(camera.R))
        offset = center - origin
        along = (offset * direction).sum(-1, keepdim=True) / direction.square().sum(-1, keepdim=True)
        radius = torch.maximum(radius, (offset - along * direction).norm(dim=-1).max())
    bounds = torch.stack([center - radius, center + radius])
    for _ in range(2):
        coarse = visual_hull(masks, cameras, bounds, resolution=40, growth=1.0).bounds()  # thin parts count as well
        margin = (bounds[1] - bounds[0]).max() / 40  # one cell of the grid that found it
        bounds = torch.stack([coarse[0] - margin, coarse[1] + margin])
    return bounds


class Silhouette:
    """One view's signed distance to its silhouette, ready to be looked up."""

    def __init__(self, mask: Tensor, camera: Camera, bounds: Tensor) -> None:
        self.camera = camera.to(bounds.device, bounds.dtype)
        self.distance = _signed_distance(mask).to(bounds)  # pixels
        self.open_sides = _open_sides(mask)
        self.scale = _pixels_per_unit(self.camera, bounds)

    def __call__(self, points: Tensor) -> Tensor:
        """[N] how deep, in world units, `points` [N, 3] lie in this view's cone; negative outside."""
        return _look_up(points, self.camera, self.distance, self.open_sides, self.scale)


def silhouettes(
    masks: Sequence[Tensor] | Tensor, cameras: Sequence[Camera] | Camera, bounds: Tensor
) -> Iterator[Silhouette]:
    """Each view's, one after the other: `masks` may be a sequence that decodes them when they are asked for."""
    cameras = _as_sequence(cameras)
    if len(masks) != len(cameras) or len(masks) == 0:
        raise ValueError(f"masks and cameras must be as many, at least one; got {len(masks)} and {len(cameras)}")
    for i, (mask, camera) in enumerate(zip(masks, cameras, strict=True)):
        if tuple(mask.shape) != tuple(camera.size):
            raise ValueError(f"masks[{i}] must have the size of its camera {camera.size}; got {shape_of(mask)}")
        yield Silhouette(mask, camera, bounds)


def _as_sequence(cameras: Sequence[Camera] | Camera) -> Sequence[Camera]:
    if not isinstance(cameras, Camera):
        return cameras
    if len(cameras.batch_shape) != 1:
        raise ValueError(f"cameras must be a batch with one dimension, or a sequence; got {tuple(cameras.batch_shape)}")
    return [cameras[i] for i in range(cameras.batch_shape[0])]


def _look_up(points: Tensor, camera: Camera, distance: Tensor, open_sides: list[bool], scale: float) -> Tensor:
    """[N] distance to one view's silhouette, positive inside, infinite where the view says nothing."""
    height, width = camera.size
    local = camera.world_to_camera(points)
    xy, _ = camera.local_project(local)
    size = xy.new_tensor([width, height])
    inside_by = sample(distance.unsqueeze(-1), xy, padding="clamp")[:, 0]
    beyond = torch.maximum(-xy, xy - size).clamp(min=0).amax(-1)  # pixels outside of the image
    x, y = xy.unbind(-1)
    left, top, right, bottom = open_sides
    silent = ~camera.valid(local)
    for is_open, past in ((left, x < 0), (top, y < 0), (right, x > width), (bottom, y > height)):
        if is_open:
            silent |= past
    return torch.where(silent, torch.inf, (inside_by - beyond) / scale)


def _signed_distance(mask: Tensor) -> Tensor:
    """[H, W] pixels from each pixel to the outline of `mask`, positive inside."""
    inside = (mask >= 0.5).cpu().numpy()
    if inside.all() or not inside.any():  # no outline in the image: as far as the image is large
        far = float(sum(mask.shape))
        return torch.full(mask.shape, far if inside.all() else -far)
    # the transform measures to the nearest pixel of the other kind; the outline runs half a pixel before it
    into = ndimage.distance_transform_edt(inside) - 0.5 * inside
    out = ndimage.distance_transform_edt(~inside) - 0.5 * ~inside
    return torch.from_numpy(into - out)


def _open_sides(mask: Tensor) -> list[bool]:
    """Whether the mask touches the left, top, right and bottom side of the image."""
    inside = mask >= 0.5
    return [bool(side.any()) for side in (inside[:, 0], inside[0], inside[:, -1], inside[-1])]


def _pixels_per_unit(camera: Camera, bounds: Tensor) -> float:
    """Pixels that a unit of length across the view spans in the middle of the box: makes views comparable."""
    middle = bounds.mean(0)
    small = 1e-3 * float((bounds[1] - bounds[0]).max())  # a thousandth of the box: straight, and far above rounding
    points = camera.world_to_camera(middle + small * torch.cat([torch.zeros(1, 3), torch.eye(3)]).to(middle))
    xy, _ = camera.local_project(points)
    jacobian = (xy[1:] - xy[:1]) / small  # [3, 2]; of its two singular values each is the scale, so sqrt(sum / 2)
    scale = float((jacobian.square().sum() / 2).sqrt())
    visible = bool(camera.valid(points).all()) and 0 < scale < float("inf")
    return scale if visible else max(camera.size) / float((bounds[1] - bounds[0]).max())


def _hull_values(views: Iterable[Silhouette], bounds: Tensor, step: float, growth: float = 0.0) -> Tensor:
    """[X, Y, Z] depth in grown hull and box, in world units, on the grid points from the lowest corner on."""
    # to the first point at or beyond the far sides; the small number keeps rounding from adding one more
    counts = [int(n) + 1 for n in ((bounds[1] - bounds[0]) / step - 1e-3).ceil().tolist()]
    values = bounds.new_full(counts, torch.inf)
    flat = values.view(-1)
    for view in views:  # outside, so that one view at a time is in memory
        for start, points in _grid_chunks(bounds[0], step, counts):
            part = flat[start : start + len(points)]
            torch.minimum(part, view(points), out=part)
    for start, points in _grid_chunks(bounds[0], step, counts):
        in_box = torch.minimum(points - bounds[0], bounds[1] - points).amin(-1)
        part = flat[start : start + len(points)]
        torch.minimum(part + growth, in_box, out=part)
    return values


def _grid_chunks(lowest: Tensor, step: float, counts: list[int]) -> Iterator[tuple[int, Tensor]]:
    """(index of the first, points [N, 3]) for the points of a grid in the order of its memory."""
    total = counts[0] * counts[1] * counts[2]
    for start in range(0, total, _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, total), device=lowest.device)
        x, yz = index // (counts[1] * counts[2]), index % (counts[1] * counts[2])
        yield start, lowest + step * torch.stack([x, yz // counts[2], yz % counts[2]], dim=-1).to(lowest)


def largest_component(inside: Tensor) -> Tensor:
    """The largest face-connected part of `inside`, holes within it filled."""
    labels, count = ndimage.label(inside.cpu().numpy())
    if count == 0:
        return inside
    sizes = torch.from_numpy(labels.reshape(-1)).bincount()
    sizes[0] = 0
    filled = ndimage.binary_fill_holes(labels == int(sizes.argmax()))
    return torch.from_numpy(filled).to(inside.device)


def _mask_box(index: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (x, y), in pixels, of what is inside the mask."""
    rows, columns = (mask >= 0.5).nonzero().unbind(-1)
    if len(rows) == 0:
        raise ValueError(f"masks[{index}] is empty: nothing in it reaches 0.5; the threshold or the alpha may be wrong")
    low = torch.stack([columns.min(), rows.min()])
    high = torch.stack([columns.max(), rows.max()]) + 1
    return low.to(torch.float64), high.to(torch.float64)
