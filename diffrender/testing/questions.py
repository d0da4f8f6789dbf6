"""What `check_camera` asks: each question looks at a camera from one side and says what it measured."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..cameras import Camera, RayCamera, stack_cameras
from ..cameras.inverse import candidate_directions
from ..cameras.rotations import matrix_to_quaternion, quaternion_to_matrix, so3_exp

PIXELS = 1e-6  # px: a round trip in float64 that is worse is no rounding
RELATIVE = 1e-6  # of a distance, likewise
SLOPE = 1e-4  # of a slope: central differences with steps of 1e-5 are right to 1e-9, a mistake is seldom below 1e-2
STEP = 1e-5  # of a parameter's size
GRID = (18, 14)  # pixels across and down
BORDER = 1.0  # px: jumps between two borders of the image are the seam of a panorama
HALVINGS = 30  # a jump is what remains when its place is known to 1e-9 of a step


@dataclass(frozen=True)
class Answer:
    """What a question found: of what (a parameter's name), passed or not, the figure, and what to do if not."""

    ok: bool
    measured: str
    advice: str
    of: str = ""


@dataclass(frozen=True)
class Subject:
    """One camera in float64, and what it is asked about.

    Attributes:
        camera: without a batch.
        xy: [N, 2] pixels that have a ray, as have their neighbours.
        points: [N, 3] world points on these rays, 0.5 to 3 away.
        around: [M, 3] camera-frame points in all directions.
    """

    camera: Camera
    xy: Tensor
    points: Tensor
    around: Tensor

    @classmethod
    def of(cls, camera: Camera) -> "Subject":
        camera = camera.to(dtype=torch.float64)
        camera = camera.replace(R=quaternion_to_matrix(matrix_to_quaternion(camera.R)))  # rounded poses are no mistake
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64).to(camera.device)

        across, down = (torch.arange(n, device=camera.device) for n in GRID)
        cell = torch.cartesian_prod(across, down)
        extent = cell.new_tensor([camera.width, camera.height], dtype=torch.float64)
        xy = (cell + 0.1 + 0.8 * random(len(cell), 2)) / cell.new_tensor(GRID) * extent
        with torch.no_grad():
            steps = 0.5 * xy.new_tensor([[[0, 0]], [[1, 0]], [[-1, 0]], [[0, 1]], [[0, -1]]])
            origins, directions = camera.rays(xy + steps)
            xy = xy[torch.isfinite(origins + directions).all(-1).all(0)]
            points = camera.unproject(xy, 0.5 + 2.5 * random(len(xy))) if len(xy) else xy.new_zeros(0, 3)
            starts, _ = camera.local_rays(xy)
        directions = candidate_directions(torch.float64, camera.device).reshape(-1, 3)[::3]
        middle = starts.mean(0) if len(xy) else 0.0
        around = middle + directions * (0.3 + 3 * random(len(directions), 1))
        return cls(camera, xy, points, around)

    @property
    def inverse(self) -> str:
        """Which method of the author is responsible for going the other way, in words of advice."""
        kind = type(self.camera)
        if isinstance(self.camera, RayCamera):
            own = kind.to_pixels is not RayCamera.to_pixels
            return (
                "to_pixels is not the inverse of to_rays: leave it out, and it is found"
                if own
                else ("several pixels see one point, or to_rays has jumps")
            )
        if kind.affine_rays is not Camera.affine_rays:
            return "affine_rays do not belong to to_pixels: compare both at one pixel by hand"
        if kind.from_pixels is not Camera.from_pixels:
            return "from_pixels is not the inverse of to_pixels: leave it out, and it is found"
        return "to_pixels shows several directions at one pixel, or has jumps: restrict it by in_domain"

    def few(self, count: int) -> tuple[Tensor, Tensor]:
        """Some of the pixels and points, from all over the image."""
        chosen = torch.linspace(0, len(self.xy) - 1, min(count, len(self.xy)), device=self.xy.device).long()
        return self.xy[chosen], self.points[chosen]


def rays_exist(s: Subject) -> Iterator[Answer]:
    share = len(s.xy) / (GRID[0] * GRID[1])
    yield Answer(
        share > 0,
        f"{share:.0%} of the image",
        "no pixel has a ray: does to_pixels reach the image (is the middle added, is the focal length in pixels), and "
        "does it keep the points' precision (no .float(), no noise)?",
    )


def shapes_and_purity(s: Subject) -> Iterator[Answer]:
    points = s.points[: len(s.points) // 2 * 2].reshape(2, -1, 3)
    before = points.clone()
    first, again = s.camera.project(points), s.camera.project(points)
    shapes = tuple(first[0].shape), tuple(first[1].shape)
    right = shapes == ((*points.shape[:-1], 2), tuple(points.shape[:-1]))
    yield Answer(
        right, f"{shapes[0]}, {shapes[1]}", "return pixels [..., 2] for points [..., 3], and depth [...]", "shapes"
    )
    same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, again, strict=True))
    kept = torch.equal(points, before)
    what = "changes its input" if not kept else "the same" if same else "another answer each time"
    yield Answer(same and kept, what, "write no in-place operations on points, and use no random numbers", "twice")


def pixel_round_trip(s: Subject) -> Iterator[Answer]:
    worst = _worst(s.camera.project(s.points)[0] - s.xy)
    yield Answer(worst < PIXELS, f"off by {worst:.1e} px", s.inverse)


def point_round_trip(s: Subject) -> Iterator[Answer]:
    between = 0.5 * (s.points + s.points.flip(0))  # on no ray that was asked for before
    camera = s.camera
    inside = camera.valid(camera.world_to_camera(between))
    xy, depth = camera.project(between[inside])
    again = camera.unproject(xy, depth)
    size = (again - camera.rays(xy)[0]).norm(dim=-1, keepdim=True).clamp(min=1e-3)
    worst = _worst((again - between[inside]) / size)
    yield Answer(worst < RELATIVE, f"off by {worst:.1e} of the distance", s.inverse)


def depth_along_rays(s: Subject) -> Iterator[Answer]:
    origins, directions = s.camera.rays(s.xy)
    steps = torch.tensor([0.25, 0.5, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64, device=s.xy.device)
    depth = s.camera.project(origins + steps[:, None, None] * directions)[1]  # [S, N]
    growing = bool((depth.diff(dim=0) > 0).all())
    positive = bool((s.camera.local_project(s.around[s.camera.valid(s.around)])[1] > 0).all())
    worst = _worst((depth / steps[:, None] - 1).unsqueeze(-1))
    measured = f"off by {worst:.1e}" if growing else "does not grow along the rays"
    measured = measured if positive else "not positive for some points that are seen"
    advice = (
        "depth_of must be positive, grow along every ray and be proportional to the length of points, as the default is"
    )
    yield Answer(growing and positive and worst < RELATIVE, measured, advice)


def scale_of_points(s: Subject) -> Iterator[Answer]:
    if not s.camera.is_central:
        return
    local = s.camera.world_to_camera(s.points)
    scales = local.new_tensor([1e-3, 0.1, 10.0, 1e3])[:, None, None]
    worst = _worst(s.camera.local_project(scales * local)[0] - s.camera.local_project(local)[0])
    yield Answer(
        worst < PIXELS,
        f"pixels move by {worst:.1e} px",
        "to_pixels depends on how far points are: divide by z or by their norm; without a single centre, use RayCamera",
    )


def one_by_one(s: Subject) -> Iterator[Answer]:
    camera, advice = s.camera, "points must not know of each other: reduce over the last dimension only (dim=-1)"
    order = torch.arange(len(s.xy) - 1, -1, -1, device=s.xy.device)
    few = slice(None, None, 7)
    all_xy, all_rays = camera.project(s.points)[0], camera.rays(s.xy)[1]
    worst = max(
        _worst(camera.project(s.points[order])[0] - all_xy[order]),
        _worst(camera.project(s.points[few])[0] - all_xy[few]),
    )
    yield Answer(worst < PIXELS, f"pixels move by {worst:.1e} px", advice, "project")
    worst = max(
        _worst(camera.rays(s.xy[order])[1] - all_rays[order]), _worst(camera.rays(s.xy[few])[1] - all_rays[few])
    )
    yield Answer(worst < RELATIVE, f"rays move by {worst:.1e}", advice, "rays")


def slopes(s: Subject) -> Iterator[Answer]:
    """By points, pixels, the pose and every parameter, along one direction of each."""
    xy, points = s.few(40)
    weights = torch.rand(4, len(xy), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(xy)

    def project(camera: Camera, given: Tensor) -> Tensor:
        pixels, depth = camera.project(given)
        return torch.cat([pixels, depth[:, None]], dim=-1)

    def rays(camera: Camera, given: Tensor) -> Tensor:
        return torch.cat(camera.rays(given), dim=-1)

    def turned(function: Callable[[Camera, Tensor], Tensor], given: Tensor, turn: Tensor) -> Tensor:
        return function(s.camera.replace(R=so3_exp(turn) @ s.camera.R), given)

    def changed(function: Callable[[Camera, Tensor], Tensor], given: Tensor, name: str, value: Tensor) -> Tensor:
        return function(s.camera.replace(**{name: value}), given)

    for name, function, given, by in (("project", project, points, "points"), ("rays", rays, xy, "pixels")):
        yield _slope(partial(function, s.camera), given, given.abs().max(), weights, f"{name} by {by}")
        yield _slope(partial(turned, function, given), given.new_zeros(3), 1.0, weights, f"{name} by R")
        for parameter in (*s.camera._names, "t"):
            value = getattr(s.camera, parameter)
            scale = torch.where(value == 0, value.abs().max().clamp(min=0.1), value.abs())
            yield _slope(partial(changed, function, given, parameter), value, scale, weights, f"{name} by {parameter}")


def _slope(function: Callable[[Tensor], Tensor], at: Tensor, scale: Tensor | float, weights: Tensor, of: str) -> Answer:
    """Four weighted sums of a function [N, C], differentiated in one direction, by autograd and by differences."""
    generator = torch.Generator().manual_seed(2)
    direction = scale * (0.5 + torch.rand(at.shape, generator=generator, dtype=torch.float64)).to(at)
    leaf = at.detach().clone().requires_grad_()
    values = function(leaf)
    weights = weights[..., : values.shape[-1]]
    sums = (values * weights).sum((1, 2))
    found = []
    for total in sums:
        slope = None
        if total.requires_grad:
            (slope,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
        found.append(torch.zeros_like(total) if slope is None else (slope * direction).sum())
    with torch.no_grad():
        after, before = (function(at + sign * STEP * direction) for sign in (1, -1))
        expected = ((after - before) * weights).sum((1, 2)) / (2 * STEP)
        rounding = 1e3 * torch.finfo(at.dtype).eps * float(values.abs().max()) / STEP
    gradient = torch.stack(found).detach()
    gap, size = float((gradient - expected).abs().max()), float(torch.maximum(gradient.abs(), expected.abs()).max())
    ok = gap <= SLOPE * size + rounding  # False for NaN
    if ok:
        return Answer(True, f"off by {gap / max(size, rounding):.1e}", "", of)
    if float(gradient.abs().max()) == 0:
        return Answer(
            False, "no gradient, but the values change", "no .detach(), float(), .item() or new tensors on the way", of
        )
    advice = "autograd and finite differences disagree: a custom derivative, a .detach(), or a step in the formula?"
    return Answer(False, f"off by {gap / size:.1e}", advice, of)


def batches(s: Subject) -> Iterator[Answer]:
    """Three cameras in one answer as each of them does alone; the number of points is another."""
    changes = [{n: getattr(s.camera, n) * (1 + 1e-3 * k) for n in s.camera._names} for k in range(3)]
    members = [s.camera.replace(**change) for change in changes]
    batch, (xy, points) = stack_cameras(members), s.few(7)
    pixels, depth = batch.project(points)
    origins, directions = batch.rays(xy)
    pixel_error = ray_error = 0.0
    for k, member in enumerate(members):
        alone, alone_depth = member.project(points)
        pixel_error = max(pixel_error, _worst(pixels[k] - alone), _worst((depth[k] - alone_depth)[:, None]))
        ray_error = max(
            ray_error, *(_worst(a[k] - b) for a, b in zip((origins, directions), member.rays(xy), strict=True))
        )
    yield Answer(pixel_error < PIXELS, f"pixels differ by {pixel_error:.1e} px", BATCH_ADVICE, "project")
    yield Answer(ray_error < RELATIVE, f"rays differ by {ray_error:.1e}", BATCH_ADVICE, "rays")


def mask(s: Subject) -> Iterator[Answer]:
    """What is valid can be looked up again; what a ray of the image meets is valid."""
    camera = s.camera
    origins, directions = camera.local_rays(s.xy)
    missed = 1 - float(camera.valid(origins + 2 * directions).double().mean())
    advice = "in_domain is False for points that the image shows: it must hold wherever a ray leads"
    yield Answer(
        missed == 0, f"{missed:.1%} of the image's rays lead to points that are not valid", advice, "of the image"
    )
    xy, depth = camera.local_project(s.around)
    extent = xy.new_tensor([camera.width, camera.height])
    near = camera.valid(s.around) & ((xy > -extent) & (xy < 2 * extent)).all(-1)  # farther out no image ever asks
    origins, directions = camera.local_rays(xy[near])
    away = (origins + depth[near, None] * directions - s.around[near]).norm(dim=-1)
    wrong = float((~(away < 1e-4)).double().mean()) if len(away) else 0.0  # NaN is wrong, too
    advice = "in_domain is True where the inverse leads elsewhere (behind, beyond a fold): leave it out, or restrict it"
    yield Answer(
        wrong == 0, f"{wrong:.1%} of the valid points around are not on the ray of their pixel", advice, "around"
    )


def finite_gradients(s: Subject) -> Iterator[Answer]:
    """Points that are not seen must not spoil the gradient of those that are."""
    eye = torch.eye(3, dtype=torch.float64, device=s.xy.device)
    special = torch.cat([eye, -eye, 0 * eye[:1], eye.new_tensor([[1e-30, 0, -1e-30], [1e8, 1, 0], [0, 0, 1e8]])])
    points = torch.cat([special, s.around]).requires_grad_()
    leaves = {n: getattr(s.camera, n).detach().clone().requires_grad_() for n in s.camera._names}
    xy, depth = s.camera.replace(**leaves).local_project(points)
    total = torch.where(torch.isfinite(xy), xy, 0.0).sum() + torch.where(torch.isfinite(depth), depth, 0.0).sum()
    slopes = torch.autograd.grad(total, [points, *leaves.values()], allow_unused=True)
    bad = [
        n for n, g in zip(("points", *leaves), slopes, strict=True) if g is not None and not bool(g.isfinite().all())
    ]
    measured = "finite" if not bad else f"NaN or infinite to {', '.join(bad)}"
    if bad and slopes[0] is not None and "points" in bad:
        first = (~slopes[0].isfinite().all(-1)).nonzero()[0, 0]
        measured += f", first at the point {[float(f'{x:.3g}') for x in points[first].tolist()]}"
    advice = (
        "clamp what you divide by or take roots of, also where nothing is seen (a torch.where afterwards is too late)"
    )
    yield Answer(not bad, measured, advice)


def precision(s: Subject) -> Iterator[Answer]:
    for dtype in (torch.float32, torch.float64):
        camera = s.camera.to(dtype=dtype)
        given = (*camera.project(s.points.to(dtype)), *camera.rays(s.xy.to(dtype)))
        other = sorted({str(value.dtype).removeprefix("torch.") for value in given if value.dtype != dtype})
        name = str(dtype).removeprefix("torch.")
        yield Answer(not other, f"gives {other[0] if other else name}", PRECISION_ADVICE, f"of {name}")
    # A step of 1e-9 of an image is far below what float32 can tell apart, and far above the rounding of float64.
    xy, points = s.few(40)
    origins, _ = s.camera.rays(xy)
    aside = 1e-9 * (origins - points).norm(dim=-1, keepdim=True)
    moved = points + aside * torch.nn.functional.normalize(points.roll(1, 0) - points + 1e-3, dim=-1)
    leaf = points.clone().requires_grad_()
    pixels = s.camera.project(leaf)[0]
    expected = torch.stack([
        (torch.autograd.grad(pixels[:, i].sum(), leaf, retain_graph=True)[0] * (moved - points)).sum(-1) for i in (0, 1)
    ], dim=-1)  # fmt: skip
    found = s.camera.project(moved)[0] - pixels
    error = float((found - expected).detach().norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    yield Answer(error < 0.1, f"a step of 1e-9 is off by {error:.1e}", PRECISION_ADVICE, "inside")


def jumps(s: Subject) -> Iterator[Answer]:
    """Along straight lines through what is seen, and across the image."""
    camera, (xy, points) = s.camera, s.few(30)
    extent = xy.new_tensor([camera.width, camera.height])
    at, before, after = _moved(lambda points: camera.project(points)[0], points, points.roll(7, 0))
    within = [((side > BORDER) & (side < extent - BORDER)).all(-1) for side in (before, after)]
    real = (within[0] | within[1]) & camera.valid(camera.world_to_camera(at)).all(0)  # else a seam, or out of sight
    worst = float(torch.where(real, (after - before).norm(dim=-1), 0.0).nan_to_num(nan=0.0).max())
    advice = "to_pixels jumps inside the image: no rounding, no branches that disagree where they meet"
    yield Answer(worst < 1e-3, f"{worst:.1e} px", advice, "of project")
    _, before, after = _moved(lambda xy: torch.cat(camera.rays(xy), dim=-1), xy, xy.roll(7, 0))
    worst = float((after - before).norm(dim=-1).nan_to_num(nan=0.0).max())
    advice = "rays jump inside the image: from_pixels or to_rays has branches that disagree where they meet"
    yield Answer(worst < 1e-3, f"{worst:.1e}", advice, "of rays")


def _moved(function: Callable[[Tensor], Tensor], begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut lines [K, D] into steps, and halve each towards where a function [..., C] moves more: what is left is jumps.

    Returns two points [2, S, K, D] a little before and after where each step ends up, and the values [S, K, C] on both
    sides of that place.
    """
    steps = torch.linspace(0, 1, 33, dtype=begin.dtype, device=begin.device)[:, None, None]
    at = torch.lerp(begin, end, steps)
    low, high = at[:-1], at[1:]
    values = function(at)
    first, last = values[:-1], values[1:]
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        value = function(middle)
        moves = torch.stack([value - first, last - value]).norm(dim=-1, keepdim=True).nan_to_num(nan=-1.0)
        in_first = moves[0] > moves[1]
        low, high = torch.where(in_first, low, middle), torch.where(in_first, middle, high)
        first, last = torch.where(in_first, first, value), torch.where(in_first, value, last)
    aside = 0.01 * (at[1] - at[0])  # so near to a jump that nothing else is there, and not so near as to fall over it
    return torch.stack([low - aside, high + aside]), first, last


def crop_and_resize(s: Subject) -> Iterator[Answer]:
    camera, advice = s.camera, "crop and resize come from the base: override neither, and ask self.size only in methods"
    height, width = camera.size
    corner = s.xy.new_tensor([-2.0, 3.0])
    crop = camera.crop(3, -2, height + 5, width + 4)
    scaled = camera.resize((2 * height, 3 * width))
    scale = s.xy.new_tensor([3.0, 2.0])
    for name, other, xy in (("crop", crop, s.xy - corner), ("resize", scaled, s.xy * scale)):
        pixels = _worst(other.project(s.points)[0] - xy)
        rays = max(_worst(a - b) for a, b in zip(other.rays(xy), camera.rays(s.xy), strict=True))
        ok = pixels < PIXELS and rays < RELATIVE
        yield Answer(ok, f"pixels differ by {pixels:.1e} px, rays by {rays:.1e}", advice, name)


def _worst(differences: Tensor) -> float:
    """The length of the largest of vectors [..., C], infinite where one is NaN."""
    lengths = torch.linalg.vector_norm(differences.detach(), dim=-1).nan_to_num(nan=math.inf)
    return float(lengths.max()) if lengths.numel() else 0.0


BATCH_ADVICE = (
    "in a batch a scalar parameter has the shape [*batch, 1], a vector [*batch, 1, K]: write self.f * points[..., 0], "
    "self.f[..., None] * points[..., :2] and self.k[..., 0]"
)
PRECISION_ADVICE = (
    "both precisions must work: constants of the points' type (points.new_tensor, torch.zeros_like), no .float(); "
    "tensors that the camera needs are parameters of the constructor, or .to() cannot convert them"
)
SEE_ABOVE = "the message comes from the camera's own code, or from what it returned"

# In the order in which an author would ask: name, question, and advice if the camera raises.
QUESTIONS: tuple[tuple[str, Callable[[Subject], Iterator[Answer]], str], ...] = (
    ("pixels with a ray", rays_exist, SEE_ABOVE),
    ("project", shapes_and_purity, "points may have any leading dimensions: index them from the end, points[..., 0]"),
    ("pixel -> ray -> pixel", pixel_round_trip, SEE_ABOVE),
    ("point -> pixel -> point", point_round_trip, SEE_ABOVE),
    ("depth along rays", depth_along_rays, SEE_ABOVE),
    ("distance does not matter", scale_of_points, SEE_ABOVE),
    ("points one by one:", one_by_one, SEE_ABOVE),
    ("slope of", slopes, "it must be differentiable by autograd"),
    ("batch:", batches, BATCH_ADVICE),
    ("mask", mask, SEE_ABOVE),
    ("gradients where nothing is seen", finite_gradients, SEE_ABOVE),
    ("precision", precision, PRECISION_ADVICE),
    ("largest jump", jumps, SEE_ABOVE),
    ("image", crop_and_resize, SEE_ABOVE),
)
