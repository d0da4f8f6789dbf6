"""The inverse of any central camera: Newton's method on the sphere of directions, safeguarded and differentiable."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from diffrender.cameras.spread import spread
from diffrender.checks import broadcast_shapes

if TYPE_CHECKING:
    from diffrender.cameras.base import Camera

CameraType = TypeVar("CameraType", bound="Camera")
Attempt: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Move: TypeAlias = Callable[[Tensor, Tensor], Tensor]

MAX_ITERATIONS = 100  # a start is a few degrees off, Newton needs about 5; the rest is for points far out and folds
SHRINK = 0.25  # of a step that did not bring the pixel closer
LARGEST_STEP = 0.5  # of a step, in radians (or on the plane): farther than that no linearization of a lens holds
CELLS = 32  # per axis: pixels of one cell share their start
MERIDIANS = 32  # directions to start from stand on meridians about the optical axis, a few degrees apart


def invert(camera: "Camera", xy: Tensor) -> Tensor:
    """Solve `camera.to_pixels(direction) = xy` for pixels [*batch, N, 2]: unit directions [*batch, N, 3].

    Each pixel starts at the best of a fixed set of directions and takes Newton steps in the tangent plane of the
    sphere, cut back until the pixel comes closer. Where several directions project to one pixel, the one counts that
    is reached from the optical axis before the projection folds back (beyond, its Jacobian changes sign).
    A pixel that no direction projects to gets NaN and no gradient. First and second derivatives follow from the
    implicit function theorem, see `recorded_step`.
    """
    directions = candidate_directions(xy.dtype, xy.device).reshape(-1, 3)
    flat = xy.reshape(-1, 2)
    points = PointCameras(camera, xy.shape[:-1])
    with torch.no_grad():
        orientation, start = (part.reshape(-1) for part in _starts(camera, xy.detach(), directions))
        tolerance = 8 * torch.finfo(xy.dtype).eps * _pixel_scale(camera, flat.detach())

        def attempt(state: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            tangents = tangents_of(state)
            value, jacobian = _value_and_differences(points.at(index), state, tangents)
            missing = flat.detach().index_select(0, index) - value
            admissible = orientation.index_select(0, index) * _det(jacobian) > 0
            step = newton_step(jacobian, missing)
            return torch.where(admissible, length(missing), math.inf), _combine(step, tangents)

        state, residual = newton(attempt, _move, directions.index_select(0, start), tolerance)
        # 64 times the rounding of a pixel coordinate that stops the iteration: some projections round more than others.
        found = (residual <= 64 * tolerance).nonzero()[:, 0]
        _, jacobian = _value_and_jacobian(points.at(found), state[found])
        # At a pole of a panorama, say, the direction has no derivative, so that the pixel counts as seen by none.
        size = jacobian.square().sum((-1, -2))
        regular = (_det(jacobian).abs() > torch.finfo(xy.dtype).eps * size).nonzero()[:, 0]
        found, jacobian = found[regular], jacobian[regular]
        state = state[found]
    lens, target, tangents = points.at(found, detach=False), flat.index_select(0, found), tangents_of(state)

    def direction(step: Tensor) -> Tensor:
        return _move(state, _combine(step, tangents))

    step = recorded_step(
        lambda step: target - lens.to_pixels(state if step is None else direction(step)),
        lambda missing: solve2(jacobian, missing),
    )
    return fill(direction(step), found, xy.shape[:-1])


def recorded_step(missing: Callable[[Tensor | None], Tensor], solve: Callable[[Tensor], Tensor]) -> Tensor:
    """The step from a solution to itself, with the first and second derivatives of the solution.

    Args:
        missing: from the step taken (None: no step, which saves a term) to what is then missing to the target.
        solve: from what is missing to the step that would close it, with a constant Jacobian J.

    Newton's step s1 = J^-1 m(0) is zero, and with m = 0 its derivative is that of the solution: the implicit function
    theorem. Its error is of second order in the parameters, and every further step with the same J raises that by one,
    since J is off by first order. So a second one, which leaves the value alone, makes second derivatives right; the
    third would need another.
    """
    step = solve(missing(None))
    if not (torch.is_grad_enabled() and step.requires_grad):
        return step
    left = missing(step)
    return step + solve(left - left.detach())


def fill(solved: Tensor, found: Tensor, shape: torch.Size) -> Tensor:
    """Put solutions [K, D] of the pixels `found` among all pixels of `shape`: [*shape, D], NaN elsewhere."""
    size = solved.shape[-1]
    if len(found) == shape.numel():
        return solved.reshape(*shape, size)
    out = torch.full((shape.numel(), size), math.nan, dtype=solved.dtype, device=solved.device)
    return out.index_copy(0, found, solved).reshape(*shape, size)


def newton(attempt: Attempt, move: Move, state: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """Solve P problems at once: returns their states [P, D] and what remains of their residuals [P].

    `attempt(states, index)` gives residuals [K], infinite where a state is not admissible, and Newton steps [K, D] for
    the problems `index`; `move(states, steps)` takes them. A step that does not lower the residual is cut back.
    Problems leave the loop as they reach their tolerance [P] or stall.
    """
    state = state.clone()
    active = torch.arange(len(state), device=state.device)
    residual, step = attempt(state, active)
    least = torch.finfo(state.dtype).eps
    active = active[(residual > tolerance) & torch.isfinite(residual)]
    for _ in range(MAX_ITERATIONS):
        if not len(active):
            break
        trial = move(state.index_select(0, active), step.index_select(0, active))
        left, further = attempt(trial, active)
        before = residual.index_select(0, active)
        closer = left < before
        state.index_copy_(0, active, torch.where(closer[:, None], trial, state.index_select(0, active)))
        further = torch.where(closer[:, None], further, SHRINK * step.index_select(0, active))
        step.index_copy_(0, active, further)
        left = torch.where(closer, left, before)
        residual.index_copy_(0, active, left)
        active = active[(left > tolerance.index_select(0, active)) & (length(further) > least)]
    return state, residual


def _det(matrix: Tensor) -> Tensor:
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def solve2(matrix: Tensor, rhs: Tensor) -> Tensor:
    """The solution [..., 2] of 2 x 2 systems [..., 2, 2] by Cramer's rule."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    x, y = rhs[..., 0], rhs[..., 1]
    return torch.stack((d * x - b * y, a * y - c * x), dim=-1) / _det(matrix)[..., None]


def length(vectors: Tensor) -> Tensor:
    """Euclidean length [...] of vectors [..., 2], infinite where a component is NaN."""
    return torch.linalg.vector_norm(vectors, dim=-1).nan_to_num(nan=math.inf)


def newton_step(jacobian: Tensor, missing: Tensor) -> Tensor:
    """The step [..., 2] that closes a gap [..., 2] if `jacobian` [..., 2, 2] were constant; at most LARGEST_STEP."""
    step = solve2(jacobian, missing)
    return step * (LARGEST_STEP / length(step).clamp(min=LARGEST_STEP))[..., None]


def candidate_directions(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Unit directions [rings, MERIDIANS, 3], from the optical axis outwards to its opposite.

    Rings are 0.1 rad apart; nearer to the axis ever closer, for the whole image of a long lens may lie there.
    """
    near = torch.logspace(-4, -1, 12, dtype=torch.float64, device=device)[:-1]
    angle = torch.cat((near, torch.arange(0.1, math.pi, 0.1, dtype=torch.float64, device=device)))[:, None]
    # Turned by no simple fraction, off the axes of the image, where an author's formula may be singular.
    turn = (torch.arange(MERIDIANS, dtype=torch.float64, device=device) + 0.382) * (2 * math.pi / MERIDIANS)
    aside, ahead = torch.sin(angle), torch.cos(angle).expand(-1, MERIDIANS)
    out = torch.stack((aside * torch.cos(turn), aside * torch.sin(turn), ahead), dim=-1)
    return out.to(dtype)


class PointCameras(Generic[CameraType]):
    """One lens per point: a handed-over camera whose parameters are repeated for each point, and can be indexed."""

    def __init__(self, camera: CameraType, shape: torch.Size) -> None:
        self.camera = camera
        self.repeated = {}
        for name in camera._names:
            value = getattr(camera, name)
            trailing = camera._trailing(name)
            if value.ndim > trailing:  # [*batch, 1, ...] -> [P, ...]
                tail = value.shape[value.ndim - trailing :]
                self.repeated[name] = value.expand(*shape, *tail).reshape(-1, *tail)

    def at(self, index: Tensor, detach: bool = True) -> CameraType:
        camera = self.camera
        if detach:
            camera = camera._with({name: getattr(camera, name).detach() for name in camera._names})
        chosen = {name: value.index_select(0, index) for name, value in self.repeated.items()}
        if detach:
            return camera._with({name: value.detach() for name, value in chosen.items()})
        for name in camera._names:
            if name not in chosen:
                chosen[name] = spread(getattr(camera, name), index.shape, camera._trailing(name))
        return camera._with(chosen)


def tangents_of(directions: Tensor) -> Tensor:
    """Two tangents [..., 2, 3] with first x second = direction (Duff et al. 2017, JCGT 6(1))."""
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    sign = torch.where(z < 0, -1.0, 1.0).to(z.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    first = torch.stack((1 + sign * x * x * a, sign * b, -sign * x), dim=-1)
    return torch.stack((first, torch.stack((b, sign + y * y * a, -y), dim=-1)), dim=-2)


def _combine(steps: Tensor, tangents: Tensor) -> Tensor:
    """Steps [..., 2] along tangents [..., 2, 3] -> vectors [..., 3]."""
    return steps[..., 0:1] * tangents[..., 0, :] + steps[..., 1:2] * tangents[..., 1, :]


def _move(directions: Tensor, steps: Tensor) -> Tensor:
    moved = directions + steps
    return moved / torch.linalg.vector_norm(moved, dim=-1, keepdim=True)


def _value_and_jacobian(camera: "Camera", directions: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [..., 2] of unit directions, and their derivatives [..., 2, 2] along the tangents (last)."""
    # Reverse mode: it takes whatever autograd takes, in-place writes too, and does not load torch's jvp decompositions.
    value, pull = torch.func.vjp(camera.to_pixels, directions)  # type: ignore[misc]
    rows = [pull(torch.eye(2, dtype=value.dtype, device=value.device)[i].expand_as(value))[0] for i in (0, 1)]
    return value, torch.stack(rows, dim=-2) @ tangents_of(directions).mT


def _value_and_differences(camera: "Camera", directions: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """The same by forward differences: a third of the time, and good enough to find the way (not for gradients)."""
    step = math.sqrt(torch.finfo(directions.dtype).eps)  # the usual balance of rounding and curvature
    first, second = directions + step * tangents[..., 0, :], directions + step * tangents[..., 1, :]
    value = camera.to_pixels(torch.stack((directions, first, second)))
    return value[0], ((value[1:] - value[0]) / step).movedim(0, -1)


def _pixel_scale(camera: "Camera", xy: Tensor) -> Tensor:
    """The size of the numbers that a pixel is computed from, per pixel: what rounding is relative to."""
    return xy.abs().amax(-1).clamp(min=float(max(camera.size)))


def _starts(camera: "Camera", xy: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Per pixel: the sign of the projection's Jacobian, and the index of the direction to start from."""
    batch = broadcast_shapes((), *(_batch_of(camera, name) for name in camera._names))
    value, jacobian = _value_and_differences(camera, directions.expand(*batch, -1, 3), tangents_of(directions))
    sign = _det(jacobian).nan_to_num(nan=0.0).sign()
    usable = torch.isfinite(value).all(-1)
    # Which sign is right? What lies ahead decides: a pinhole written as x / z also shows, mirrored, what lies behind.
    ahead = (1 + directions[:, 2]) ** 2
    orientation = torch.where((sign * usable * ahead).sum(-1, keepdim=True) < 0, -1.0, 1.0).to(xy.dtype)
    usable = _first_run((usable & (sign == orientation)).unflatten(-1, (-1, MERIDIANS))).flatten(-2)
    value = torch.where(usable[..., None], value, math.inf)
    if not batch:
        xy = xy.reshape(-1, 2)
    return orientation.expand(xy.shape[:-1]), _nearest(camera, value, xy)


def _first_run(usable: Tensor) -> Tensor:
    """Of a mask [..., rings, MERIDIANS]: on each meridian the first unbroken run, going outwards from the axis.

    What follows a fold shows the image again: once reversed, and after a second fold (or a radius that turned
    negative) with the orientation that it had, so that the sign of the Jacobian alone does not tell it.
    """
    begun = usable.int().cummax(-2).values.bool()
    ended = (begun & ~usable).int().cummax(-2).values.bool()
    return usable & ~ended


def _batch_of(camera: "Camera", name: str) -> torch.Size:
    value = getattr(camera, name)
    return value.shape[: max(value.ndim - camera._trailing(name) - 1, 0)]


def _nearest(camera: "Camera", value: Tensor, xy: Tensor) -> Tensor:
    """Index [..., N] of the nearest of `value` [*batch, M, 2] to pixels [..., N, 2], or to the cell they lie in."""
    if xy.shape[-2] <= CELLS * CELLS:
        return _argmin(value, xy)
    extent = xy.new_tensor([float(camera.width), float(camera.height)])
    # The cells cover the image and half its size around it; pixels farther out use the outermost ones.
    cell = (0.5 * xy / extent + 0.25).nan_to_num(nan=0.0).mul(CELLS).floor().clamp(0, CELLS - 1).long()
    middle = (torch.arange(CELLS, dtype=xy.dtype, device=xy.device) + 0.5) / CELLS
    grid = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1).reshape(-1, 2)
    table = _argmin(value, (2 * (grid - 0.25) * extent).expand(*value.shape[:-2], -1, 2))
    return table.expand(*xy.shape[:-2], -1).gather(-1, cell[..., 1] * CELLS + cell[..., 0])


def _argmin(value: Tensor, xy: Tensor) -> Tensor:
    # The square of a distance, less that of the pixel: a matrix product takes a fifth of the time of differences.
    squares = (value * value).sum(-1, keepdim=True).mT.nan_to_num(nan=math.inf, posinf=math.inf)  # [*batch, 1, M]
    twice = (-2 * torch.where(torch.isfinite(squares.mT), value, 0.0)).mT
    chunk = max(1, 2**21 // max(1, squares.numel()))  # 16 MB of distances in float64
    return torch.cat([(part @ twice).add_(squares).argmin(-1) for part in xy.split(chunk, dim=-2)], dim=-1)
