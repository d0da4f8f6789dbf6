"""Images seen by another camera: reproject, undistort, rectify. Everything goes through the sampler.

A pixel of the target is looked up where the source sees what the target's ray meets: at infinity, at a given depth, or
on a plane. The images are differentiable to the source image and to all parameters of both cameras.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .cameras import Camera, PinholeCamera, so3_exp, so3_log
from .checks import broadcast_shapes, check_tensor, shape_of
from .sampling.sample import Mode, Padding, sample

# A flat image reaches at most so far from its axis: farther out a pixel of it would be fifteen times as wide.
WIDEST = math.radians(75)
PER_SIDE = 64  # points on each side of an image that say where its border goes
BISECTIONS = 40  # of the way from the middle of an image to its border: to rounding of pixels in float64


def reproject(
    image: Tensor,
    source: Camera,
    target: Camera,
    *,
    depth: Tensor | float | None = None,
    plane: Tensor | Sequence[float] | None = None,
    samples: int = 1,
    mode: Mode = "bilinear",
    padding: Padding | Sequence[Padding] = "clamp",
) -> tuple[Tensor, Tensor]:
    """What `target` would see, from an image of `source`.

    Args:
        image: [*batch, H, W, C] taken by `source`, of its size.
        source, target: any cameras; batches broadcast.
        depth: of what the target sees, in its own measure (see the camera): a number, or [*batch, H, W] of its size.
            Nobody asks whether something stands before it in the source: for that, compare with the source's depth.
        plane: (a, b, c, d), all that is seen lies on a x + b y + c z = d of the world. Without depth and plane it is
            infinitely far, so that only directions count: right for cameras that share their centre.
        samples: N x N look-ups in each pixel of the target, averaged. One is enough where pixels do not shrink; where
            the target's pixel covers k pixels of the source, take about k, or fine details turn into noise.
        mode, padding: of the sampler. Panoramas want padding=("wrap", "clamp"), so that no seam appears.

    Returns:
        The image [*batch, H, W, C] of the target's size, zero where it is not valid, and the mask [*batch, H, W]: all
        rays of the pixel exist and end in the image of the source.

    >>> source = PinholeCamera(10.0, 10.0, 8.0, 8.0, size=(16, 16))
    >>> view, valid = reproject(torch.ones(16, 16, 1), source, source.crop(4, 0, 16, 16))
    >>> int(valid.sum())  # the last 4 rows are outside
    192
    """
    if image.shape[-3:-1] != source.size:
        raise ValueError(f"image must be [*batch, H, W, C] of the source's size {source.size}; got {shape_of(image)}")
    xy, valid = reprojection_map(source, target, depth=depth, plane=plane, samples=samples)
    height, width = target.size
    batch = broadcast_shapes(image.shape[:-3], valid.shape[:-3])
    flat = xy.reshape(*xy.shape[:-4], -1, 2).expand(*batch, -1, 2)
    values = sample(image, flat, mode=mode, padding=padding).reshape(*batch, height, width, samples * samples, -1)
    whole = valid.all(-1).expand(*batch, height, width)
    return torch.where(whole[..., None], values.mean(-2), 0.0), whole


def reprojection_map(
    source: Camera,
    target: Camera,
    *,
    depth: Tensor | float | None = None,
    plane: Tensor | Sequence[float] | None = None,
    samples: int = 1,
) -> tuple[Tensor, Tensor]:
    """Where in the source's image the look-ups of each target pixel lie; arguments as in `reproject`.

    Returns:
        Pixels [*batch, H, W, N * N, 2] of the source, NaN where a ray does not exist or the source cannot see its end,
        and whether they lie in its image [*batch, H, W, N * N].

    >>> camera = PinholeCamera(10.0, 10.0, 1.0, 0.5, size=(1, 2))
    >>> reprojection_map(camera, camera)[0].flatten().tolist()
    [0.5, 0.5, 1.5, 0.5]
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1; got {samples}")
    if depth is not None and plane is not None:
        raise ValueError("depth and plane say the same thing: give one of them, or none for infinity")
    if depth is None and plane is None and not (source.is_central and target.is_central):
        raise ValueError("source and target must each have one centre to see at infinity: give a depth or a plane")
    origins, directions = target.rays(_lookups(target, samples))
    seen = torch.isfinite(directions).all(-1)
    directions = torch.where(seen[..., None], directions, 1.0)  # so that no NaN spoils gradients
    if depth is None and plane is None:
        source, points = source.replace(t=(0.0, 0.0, 0.0)), directions
    else:
        reach = _depth_of(depth, target, samples) if plane is None else _meet(plane, origins, directions)
        ahead = torch.isfinite(reach) & (reach > 0)
        points = origins + torch.where(ahead, reach, 1.0)[..., None] * directions
        seen = seen & ahead
    xy, _ = source.project(points)
    seen = seen & source.valid(source.world_to_camera(points))
    inside = (xy >= 0) & (xy <= xy.new_tensor([source.width, source.height]))
    shape = (*target.size, samples * samples)
    xy = torch.where(seen[..., None], xy, math.nan)
    return xy.reshape(*xy.shape[:-2], *shape, 2), (seen & inside.all(-1)).reshape(*xy.shape[:-2], *shape)


def undistort(
    image: Tensor,
    camera: Camera,
    *,
    alpha: float = 0.0,
    size: tuple[int, int] | None = None,
    samples: int = 1,
    mode: Mode = "bilinear",
) -> tuple[Tensor, PinholeCamera, Tensor]:
    """The image as a pinhole in the same place sees it: straight lines become straight.

    Args:
        image: [*batch, H, W, C] of the camera's size.
        camera: a single one.
        alpha, size: see `undistorted_camera`.
        samples, mode: see `reproject`.

    Returns:
        The image [*batch, H', W', C], its camera, and the mask [*batch, H', W'] of pixels that the given image shows.

    >>> from diffrender import OpenCVCamera
    >>> camera = OpenCVCamera(30.0, 30.0, 32.0, 24.0, dist=(-0.2, 0.0, 0.0, 0.0), size=(48, 64))
    >>> straight, pinhole, valid = undistort(torch.ones(48, 64, 3), camera)
    >>> bool(valid.all())
    True
    """
    pinhole = undistorted_camera(camera, alpha=alpha, size=size)
    straight, valid = reproject(image, camera, pinhole, samples=samples, mode=mode)
    return straight, pinhole, valid


def undistorted_camera(camera: Camera, *, alpha: float = 0.0, size: tuple[int, int] | None = None) -> PinholeCamera:
    """A pinhole of the same pose for images without distortion, like that of `cv2.getOptimalNewCameraMatrix`.

    Its pixels are square, and the middle of the image keeps its direction. Of wide lenses it shows what is at most 75
    degrees from the axis.

    Args:
        camera: with one centre, not batched.
        alpha: 0 shows only what the given image shows (crop), 1 all of it (with an invalid border); focal lengths
            between are those of images between.
        size: (height, width) of the new image; that of the camera if left out.
    """
    R = torch.eye(3, dtype=camera.dtype, device=camera.device)
    return _pinholes([camera], [R], alpha, size)[0]


def rectified_cameras(
    left: Camera, right: Camera, *, alpha: float = 0.0, size: tuple[int, int] | None = None
) -> tuple[PinholeCamera, PinholeCamera]:
    """Two pinholes in the places of the cameras, with one orientation and intrinsics: matches lie in the same row.

    Both are turned half of the way to each other, then together until the baseline is the x axis (or the y axis, where
    one camera stands above the other: matches then lie in the same column), as `cv2.stereoRectify` does (Bouguet).

    Args:
        left, right: with one centre each, in different places, not batched.
        alpha, size: as in `undistorted_camera`, for what both show.
    """
    for name, camera in (("left", left), ("right", right)):
        _check_single(name, camera)
    R = right.R @ left.R.mT
    t = right.t - R @ left.t
    if not bool(torch.linalg.vector_norm(t) > 0):
        raise ValueError("left and right must stand in different places; got a baseline of length 0")
    back = so3_exp(-0.5 * so3_log(R))
    baseline = back @ t
    axis = 0 if bool(baseline[0].abs() > baseline[1].abs()) else 1
    along = torch.zeros_like(baseline)
    along[axis] = torch.sign(baseline[axis].detach())
    normal = torch.linalg.cross(baseline, along)
    sine = torch.linalg.vector_norm(normal)
    angle = torch.atan2(sine, baseline @ along)
    turn = so3_exp(torch.where(sine > 0, normal / torch.where(sine > 0, sine, 1.0) * angle, 0.0))
    first, second = _pinholes([left, right], [turn @ back.mT, turn @ back], alpha, size)
    return first, second


def rectify(
    left_image: Tensor,
    right_image: Tensor,
    left: Camera,
    right: Camera,
    *,
    alpha: float = 0.0,
    size: tuple[int, int] | None = None,
) -> tuple[tuple[Tensor, PinholeCamera, Tensor], tuple[Tensor, PinholeCamera, Tensor]]:
    """Two images as `rectified_cameras` see them: for each the image, its camera and the mask, as from `undistort`."""
    cameras = rectified_cameras(left, right, alpha=alpha, size=size)
    views = [
        (*reproject(image, camera, pinhole), pinhole)
        for image, camera, pinhole in zip((left_image, right_image), (left, right), cameras, strict=True)
    ]
    (first, first_valid, first_camera), (second, second_valid, second_camera) = views
    return (first, first_camera, first_valid), (second, second_camera, second_valid)


def _lookups(camera: Camera, samples: int) -> Tensor:
    """[H * W * N * N, 2] the middles of N x N cells in each pixel."""
    within = (torch.arange(samples, dtype=camera.dtype, device=camera.device) + 0.5) / samples - 0.5
    cells = torch.stack(torch.meshgrid(within, within, indexing="xy"), dim=-1).reshape(-1, 2)
    return (camera.pixel_centers()[:, :, None] + cells).reshape(-1, 2)


def _depth_of(depth: Tensor | float | None, target: Camera, samples: int) -> Tensor:
    """The depth of each look-up, [*batch, H * W * N * N] or one number."""
    if not isinstance(depth, Tensor):
        return torch.tensor(depth, dtype=target.dtype, device=target.device)
    check_tensor("depth", depth)
    if depth.ndim == 0:
        return depth
    if depth.shape[-2:] != target.size:
        raise ValueError(
            f"depth must be a number or [*batch, H, W] of the target's size {target.size}; got {shape_of(depth)}"
        )
    return depth.flatten(-2).repeat_interleave(samples * samples, dim=-1)


def _meet(plane: Tensor | Sequence[float], origins: Tensor, directions: Tensor) -> Tensor:
    """The depth [...] at which rays meet the plane; infinite or NaN where they run along it."""
    plane = torch.as_tensor(plane, dtype=directions.dtype, device=directions.device)
    if plane.shape != (4,) or not bool(plane[:3].any()):
        raise ValueError(f"plane must be four numbers (a, b, c, d), not all of a, b, c zero; got {plane.tolist()}")
    across = directions @ plane[:3]
    missed = plane[3] - origins @ plane[:3]
    return torch.where(across != 0, missed / torch.where(across != 0, across, 1.0), math.inf)


def _check_single(name: str, camera: Camera) -> None:
    if camera.batch_shape:
        raise ValueError(f"{name} must be a single camera; got a batch of {tuple(camera.batch_shape)}: index it")
    if not camera.is_central:
        raise ValueError(f"{name} must be a camera with one centre; got {camera!r}")


def _pinholes(
    cameras: list[Camera], turns: list[Tensor], alpha: float, size: tuple[int, int] | None
) -> list[PinholeCamera]:
    """Pinholes of one focal length in the places of the cameras, turned by `turns` [3, 3] in their frames."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 (crop) and 1 (keep all); got {alpha}")
    for camera in cameras:
        _check_single("camera", camera)
    height, width = cameras[0].size if size is None else size
    outlines = [_outline(camera, turn) for camera, turn in zip(cameras, turns, strict=True)]
    middle = torch.stack([middle for middle, _ in outlines]).mean(0)
    aside = torch.cat([border - middle for _, border in outlines]).abs()
    # The rectangle max(|x| / W, |y| / H) <= s around the middle shows all of it, or only what is seen.
    reach = torch.maximum(aside[:, 0] / width, aside[:, 1] / height)
    edge = (_border(middle) - 0.5) * middle.new_tensor([width, height]) * 2
    views = list(zip(cameras, turns, strict=True))
    inner = torch.stack([_inner(camera, turn, middle, edge, reach.min()) for camera, turn in views])
    focal = 1 / (2 * torch.lerp(inner.min(), reach.max(), alpha))
    cx, cy = width / 2 - focal * middle[0], height / 2 - focal * middle[1]
    return [
        PinholeCamera(focal, focal, cx, cy, size=(height, width), R=turn @ camera.R, t=turn @ camera.t)
        for camera, turn in zip(cameras, turns, strict=True)
    ]


@torch.no_grad()
def _outline(camera: Camera, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Middle [2] and border [M, 2] of what the camera sees, on the plane z = 1 of the frame turned by `turn`.

    From the middle of the image outwards, up to its border, the end of the lens's domain, or `WIDEST`.
    """
    corner = turn.new_tensor([camera.width, camera.height])
    border, middle = _border(corner) * corner, corner[None] / 2

    def look(xy: Tensor) -> tuple[Tensor, Tensor]:
        _, directions = camera.local_rays(xy)
        x, y, z = (directions @ turn.mT).unbind(-1)
        good = z > math.cos(WIDEST) * torch.linalg.vector_norm(directions, dim=-1)  # False for NaN
        return torch.stack((x / z, y / z), dim=-1), good

    center, good = look(middle)
    if not bool(good):
        raise ValueError(
            "camera must see the middle of its image within 75 degrees of the new axis, to be shown on a plane; "
            f"got {camera!r}"
        )
    near, far = torch.zeros_like(border[:, :1]), torch.ones_like(border[:, :1])
    near = torch.where(look(border)[1][:, None], far, near)
    for _ in range(BISECTIONS):
        half = (near + far) / 2
        inside = look(torch.lerp(middle, border, half))[1][:, None]
        near, far = torch.where(inside, half, near), torch.where(inside, far, half)
    return center[0], look(torch.lerp(middle, border, near))[0]


@torch.no_grad()
def _inner(camera: Camera, turn: Tensor, middle: Tensor, edge: Tensor, largest: Tensor) -> Tensor:
    """The largest s, up to `largest`, for which the camera sees all points `middle + s * edge` [M, 2] of the plane.

    The outline has gaps between its points; where it is bent, what fits into it may reach out of them.
    """

    def shown(s: Tensor) -> Tensor:
        plane = middle + s * edge
        points = torch.cat((plane, torch.ones_like(plane[:, :1])), dim=-1) @ turn
        xy, _ = camera.local_project(points)
        inside = (xy >= 0) & (xy <= xy.new_tensor([camera.width, camera.height]))
        return (inside.all(-1) & camera.valid(points)).all()

    near, far = torch.zeros_like(largest), largest
    for _ in range(BISECTIONS):
        half = (near + far) / 2
        good = shown(half)
        near, far = torch.where(good, half, near), torch.where(good, far, half)
    return near


def _border(like: Tensor) -> Tensor:
    """[4 * PER_SIDE, 2] points around the border of the unit square, its corners among them."""
    step = torch.linspace(0, 1, PER_SIDE + 1, dtype=like.dtype, device=like.device)[:-1]
    zero, one = torch.zeros_like(step), torch.ones_like(step)
    sides = [(step, zero), (one, step), (1 - step, one), (zero, 1 - step)]
    return torch.cat([torch.stack(side, dim=-1) for side in sides])
