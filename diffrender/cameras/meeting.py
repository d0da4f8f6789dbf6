"""The pixel whose ray meets a point: Newton's method on the pixel, safeguarded and differentiable."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffrender.cameras.inverse import PointCameras, length, newton, newton_step, recorded_step, solve2, tangents_of
from diffrender.kernels import slots_in_groups

if TYPE_CHECKING:
    from diffrender.cameras.rays import RayCamera

# Where to start: pixels per axis, and how far beyond the image they go, in images. Points that the first grid misses
# are few, or have no pixel: they get the finer and wider one.
GRIDS = ((12, 0.0), (48, 1.0))
NEAREST = 1e3  # epsilons of its coordinates that a point must be ahead of the start of a ray: there it has no direction
CHUNK = 2**21  # points times starts looked at together: 16 MB in float64


def meet(camera: "RayCamera", points: Tensor) -> Tensor:
    """Solve for the pixels [*batch, N, 2] whose rays pass through camera-frame points [*batch, N, 3].

    A pixel misses its point by the difference e of two unit vectors: from the ray's start towards the point, and along
    the ray. It is zero only if the point lies on the ray, ahead of its start, and |e| grows with the angle up to
    opposite directions. Newton's method works on the two components of e across the ray, and cuts steps back that do
    not lower |e|. A point that no ray meets gets NaN and no gradient; of several pixels that see a point the one counts
    that is nearest to the best start. Derivatives as in `inverse.invert`, to the points and all parameters.
    """
    flat = points.reshape(-1, 3)
    lenses, scale = PointCameras(camera, points.shape[:-1]), float(max(camera.size))
    with torch.no_grad():
        sizes = _sizes(camera, points.detach())
        state = _search(camera, lenses, points.detach(), sizes, scale)
        found = torch.isfinite(state).all(-1).nonzero()[:, 0]
        starts, _ = lenses.at(found).checked_rays(state.index_select(0, found) * scale)
        ahead = torch.linalg.vector_norm(flat.detach().index_select(0, found) - starts, dim=-1)
        found = found[ahead > NEAREST * torch.finfo(flat.dtype).eps * sizes.index_select(0, found)]
        state = state.index_select(0, found)
        jacobian, tangents = _linearized(lenses.at(found), state, flat.detach().index_select(0, found), scale)
    lens, target = lenses.at(found, detach=False), flat.index_select(0, found)

    def missing(step: Tensor | None) -> Tensor:
        at = state if step is None else state + step
        return -_across(tangents, _miss(lens, at * scale, target)[0])

    step = recorded_step(missing, lambda missing: solve2(jacobian, missing))
    solved = (state + step) * scale
    if len(found) == len(flat):
        return solved.reshape(*points.shape[:-1], 2)
    out = torch.full((len(flat), 2), math.nan, dtype=solved.dtype, device=solved.device)
    return out.index_copy(0, found, solved).reshape(*points.shape[:-1], 2)


def _search(
    camera: "RayCamera", lenses: "PointCameras[RayCamera]", points: Tensor, sizes: Tensor, scale: float
) -> Tensor:
    """Pixels [P, 2] in units of `scale`, NaN for points that no ray meets; `sizes` as from `_sizes`."""
    flat = points.reshape(-1, 3)
    eps = torch.finfo(flat.dtype).eps
    step = math.sqrt(eps)  # the usual balance of rounding and curvature
    offsets = flat.new_tensor([[[0.0, 0.0]], [[step, 0.0]], [[0.0, step]]])
    state = torch.full_like(flat[:, :2], math.nan)
    left = torch.arange(len(flat), device=flat.device)
    for count, margin in GRIDS:
        if not len(left):
            break
        start, distance = _starts(camera, points, left, count, margin)
        # 8 epsilons of the numbers that a direction is the difference of.
        tolerance = 8 * eps * (1 + sizes.index_select(0, left) / distance)

        def attempt(
            pixel: Tensor, index: Tensor, left: Tensor = left, tolerance: Tensor = tolerance
        ) -> tuple[Tensor, Tensor]:
            index = left.index_select(0, index)
            miss, along = _miss(lenses.at(index), (pixel + offsets) * scale, flat.index_select(0, index))
            across = _across(tangents_of(along[0]), miss)
            jacobian = ((across[1:] - across[0]) / step).movedim(0, -1)
            return length(miss[0]), newton_step(jacobian, -across[0])

        solved, residual = newton(attempt, torch.add, start / scale, tolerance)
        state.index_copy_(0, left, solved)
        # As in `invert`: some cameras round more than others.
        good = residual <= 64 * tolerance
        state.index_copy_(0, left, torch.where(good[:, None], solved, math.nan))
        left = left[~good]
    return state


def _sizes(camera: "RayCamera", points: Tensor) -> Tensor:
    """[P] how large the numbers are that the way from a ray's start to a point [*batch, N, 3] is the difference of."""
    origins, _ = camera.checked_rays(_grid(camera, points, *GRIDS[0]).expand(*camera.batch_shape, -1, 2))
    reach = torch.linalg.vector_norm(origins, dim=-1).nan_to_num(nan=0.0, posinf=0.0).amax(-1)  # [*batch]
    lengths = torch.linalg.vector_norm(points, dim=-1)
    return (lengths + (reach[..., None] if camera.batch_shape else reach)).reshape(-1)


def _grid(camera: "RayCamera", like: Tensor, count: int, margin: float) -> Tensor:
    """[count * count, 2] pixels all over the image, and `margin` times its size around it."""
    fraction = torch.linspace(-margin, 1 + margin, count, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(fraction * camera.width, fraction * camera.height)


def _starts(camera: "RayCamera", points: Tensor, left: Tensor, count: int, margin: float) -> tuple[Tensor, Tensor]:
    """Where to start for the points `left` [K] of [*batch, N, 3]: the pixel [K, 2] of a grid whose ray aims best.

    Also how far [K] its ray starts from the point.
    """
    grid = _grid(camera, points, count, margin)
    rays = camera.checked_rays(grid.expand(*camera.batch_shape, -1, 2))
    origins, directions = (part.reshape(-1, len(grid), 3) for part in rays)
    usable = torch.isfinite(origins + directions).all(-1)
    origins, directions = (torch.where(usable[..., None], rays, 0.0) for rays in (origins, directions))
    directions = torch.where(usable[..., None], _unit(directions), 0.0)  # the others aim at nothing
    # From the middle of the origins, which may be far from that of the frame: products of coordinates are not small
    # differences of large numbers then.
    middle = origins.sum(1, keepdim=True) / usable.sum(1).clamp(min=1)[:, None, None]
    origins = origins - middle
    slot, targets = _side_by_side(points.reshape(-1, 3), left, len(origins))
    targets = targets - middle
    squares, heads = (origins * origins).sum(-1), (origins * directions).sum(-1)
    tiny = torch.finfo(points.dtype).tiny
    chosen = []
    for part in targets.split(max(CHUNK // usable.numel(), 1), dim=1):
        distance = (part @ origins.mT).mul_(-2).add_((part * part).sum(-1, keepdim=True)).add_(squares[:, None])
        distance = distance.clamp_(min=tiny).sqrt_()
        cosine = (part @ directions.mT).sub_(heads[:, None]).div_(distance).masked_fill_(~usable[:, None], -2.0)
        chosen.append(cosine.argmax(-1))
    best = torch.cat(chosen, dim=1)
    starts = origins.gather(1, best[..., None].expand(-1, -1, 3))
    distance = torch.linalg.vector_norm(targets - starts, dim=-1).clamp(min=tiny)
    return grid.index_select(0, best.reshape(-1).index_select(0, slot)), distance.reshape(-1).index_select(0, slot)


def _side_by_side(flat: Tensor, left: Tensor, cameras: int) -> tuple[Tensor, Tensor]:
    """The points `left` [K], ascending, of [P, 3], those of a camera in a row: [cameras, most, 3].

    Also the slot [K] of each in there; what no point is in is zero.
    """
    slot, most = slots_in_groups(left // (len(flat) // cameras), cameras)
    targets = flat.new_zeros(cameras * most, 3).index_copy_(0, slot, flat.index_select(0, left))
    return slot, targets.reshape(cameras, most, 3)


def _miss(lens: "RayCamera", xy: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors from the starts of rays [..., 2] towards `points` less those along the rays, and these [..., 3]."""
    origins, directions = lens.checked_rays(xy)
    along = _unit(directions)
    return _unit(points - origins) - along, along


def _linearized(lens: "RayCamera", state: Tensor, points: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The derivatives [P, 2, 2] of the miss across the rays by the pixel [P, 2], in units of `scale`; the tangents."""
    tangents = tangents_of(_miss(lens, state * scale, points)[1])
    # Reverse mode, as in `inverse`: it takes whatever autograd takes.
    value, pull = torch.func.vjp(  # type: ignore[misc]
        lambda at: _across(tangents, _miss(lens, at * scale, points)[0]), state
    )
    rows = [pull(torch.eye(2, dtype=value.dtype, device=value.device)[i].expand_as(value))[0] for i in (0, 1)]
    return torch.stack(rows, dim=-2), tangents


def _across(tangents: Tensor, vectors: Tensor) -> Tensor:
    """The components [..., 2] of vectors [..., 3] along tangents [..., 2, 3]."""
    return (tangents * vectors[..., None, :]).sum(-1)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
