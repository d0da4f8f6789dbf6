"""The base of all cameras: pose, batching, rays and image operations around the one method that an author writes."""

import abc
import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender.cameras.inverse import invert
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.parameters import (
    Parameter,
    as_tensor,
    check_pose_shapes,
    check_rotation,
    common_type,
    short,
)
from diffrender.cameras.spread import spread
from diffrender.checks import broadcast_shapes, check_finite, check_size, check_tensor, shape_of
from diffrender.derivatives import is_plain_autograd
from diffrender.precision import full_precision

# The ray of a point's pixel must point back at the point within this angle, in radians, or the point is not valid.
ROUND_TRIP_ANGLE = {torch.float32: 1e-2, torch.float64: 1e-5}


class Notes(dict[Any, Any]):
    """What others found out about a camera and keep with it and its copies; not so with those that are pickled.

    They write down what it is true for: copies may have other parameters.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return Notes, ()


class Camera(abc.ABC):
    """A camera with one centre, or a subclass of it: where points of the world appear in an image.

    The camera frame is OpenCV's: x right, y down, z forward; `x_cam = R x_world + t`. Pixels are (x, y), x to the
    right; pixel (0, 0) covers [0, 1) x [0, 1). **The author of a camera writes one method**, `to_pixels`, and hands the
    parameters to this constructor by name; pose, batching, the inverse, rays, crop and resize come from here.

    Args:
        size: (height, width) of the image in pixels.
        R: [*batch, 3, 3] rotation from world to camera; the identity if left out.
        t: [*batch, 3] translation from world to camera; zero if left out.
        parameters: the model's own, as numbers, tensors [*batch], or sequences of those, which become a vector
            parameter [*batch, K] (to take those as tensors, name them in `vector_parameters`). All may require
            grad. They are broadcast to a common batch and become attributes. Tensors decide dtype and device, else
            float32 on the CPU.

    Optional methods, for authors who know more than the base: `from_pixels` (a closed inverse), `in_domain` (where the
    model holds), `depth_of`, `affine_rays`, `check_parameters`. Inside all but the last two a scalar parameter of a
    batched camera has shape [*batch, 1] and a vector [*batch, 1, K] (an unbatched camera: () and [K]), so
    `self.f * points[..., 0]` is right for points [*batch, N, 3]; index vectors as `self.k[..., 0]`.

    >>> class Stereographic(Camera):
    ...     def __init__(self, f, *, size, R=None, t=None):
    ...         super().__init__(size=size, R=R, t=t, f=f)
    ...     def to_pixels(self, points):
    ...         distance = points.norm(dim=-1, keepdim=True)
    ...         middle = points.new_tensor([self.width / 2, self.height / 2])
    ...         return self.f[..., None] * points[..., :2] / (distance + points[..., 2:]) + middle
    >>> camera = Stereographic(60.0, size=(48, 64))
    >>> xy, depth = camera.project(torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]))
    >>> xy.tolist(), depth.tolist()
    ([[32.0, 24.0], [92.0, 24.0]], [2.0, 1.0])
    >>> origins, directions = camera.rays(xy)
    >>> directions.round(decimals=4).abs().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    is_central: ClassVar[bool] = True  # all rays of one camera start at one point
    # Names of the parameters with a trailing dimension; None: those that the constructor gets as tuples or lists.
    vector_parameters: ClassVar[frozenset[str] | None] = None
    # Parameters are repeated for every point where that makes the sums of their gradients reproducible; a subclass that
    # needs some once per camera sets this to False and calls `spread` itself.
    spreads_parameters: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: tuple[int, int],
        R: Tensor | Sequence[Any] | None = None,
        t: Parameter | None = None,
        **parameters: Parameter,
    ) -> None:
        self.size = check_size("size", size)
        # Crop and resize of cameras that cannot fold them into their parameters: pixel = scale * to_pixels + offset.
        # The author's methods see the size as it was before.
        self._own_size = self.size
        self._pixel_scale = (1.0, 1.0)
        self._pixel_offset = (0.0, 0.0)
        taken = [name for name in parameters if hasattr(type(self), name)]
        if taken:
            raise ValueError(
                f"parameters may not be called {taken}: these are names of {type(self).__name__}'s methods"
            )
        self._names = tuple(parameters)
        self.notes = Notes()
        sequences = frozenset(name for name, value in parameters.items() if isinstance(value, (tuple, list)))
        self._vectors = sequences if self.vector_parameters is None else self.vector_parameters
        self.R: Tensor
        self.t: Tensor
        everything: dict[str, Any] = dict(parameters)
        everything["R"] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) if R is None else R
        everything["t"] = (0.0, 0.0, 0.0) if t is None else t
        self._set(everything)

    def __setattr__(self, name: str, value: Any) -> None:
        """Parameters stay as they were checked; what else the author of a camera keeps is his own."""
        if name in vars(self) and name in (*self._names, "R", "t"):
            raise AttributeError(f"{name} of a camera cannot be set: camera.replace({name}=...) makes another camera")
        super().__setattr__(name, value)

    # What authors write

    @abc.abstractmethod
    def to_pixels(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> pixels [..., 2]: what the author of a camera writes.

        Must not depend on the length of `points` (central cameras), be differentiable, and treat points one by one.
        """

    def from_pixels(self, xy: Tensor) -> Tensor:
        """Pixels [..., 2] -> camera-frame directions [..., 3] of any positive length; NaN where no point projects to.

        The pixels are finite: callers see to that.

        The default solves `to_pixels(direction) = xy` by Newton's method (`diffrender.cameras.inverse`), with
        gradients to `xy` and all parameters, up to second derivatives, by the implicit function theorem.
        """
        return invert(self, xy)

    def in_domain(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> mask [...]: the model holds there. The default tries the inverse."""
        with torch.no_grad():
            xy = self.to_pixels(points)
            back = self.from_pixels(xy)
        # Directions are compared through a cross product: accurate for small angles, where a cosine is not.
        back, ahead = _unit(back.detach()), _unit(points.detach())
        turned = torch.linalg.cross(back, ahead).norm(dim=-1)
        return (turned < ROUND_TRIP_ANGLE.get(points.dtype, 1e-2)) & ((back * ahead).sum(-1) > 0)

    def depth_of(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> depth [...]: distance from the centre. Grows along every ray.

        An author's own must be proportional to the length of `points` and must not use parameters.
        """
        return torch.linalg.vector_norm(points, dim=-1)

    def affine_rays(self) -> LinearRays | None:
        """Rays that are affine in the pixel, in the pixels of `to_pixels`; None for all others.

        The author of a camera without a centre (`is_central = False`) writes them, or a `RayCamera` instead.
        """
        return None

    def check_parameters(self) -> None:
        """Raise ValueError if the parameters, now attributes, make no camera. The default accepts all."""
        return

    # What callers use

    @full_precision
    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [..., 3] -> pixels [..., 2] and depth [...].

        For a batched camera the points are [N, 3] or [*batch, N, 3], the results [*batch, N, 2] and [*batch, N].
        Where `valid` is False the pixel means nothing, but is finite in the cameras of this package.
        """
        return self.local_project(self.world_to_camera(points))

    @full_precision
    def unproject(self, xy: Tensor, depth: Tensor) -> Tensor:
        """Pixels [..., 2] and depth [...] -> world points [..., 3]; NaN where the pixel has no ray."""
        check_tensor("depth", depth)
        origins, directions, seen = self._world_rays(xy)
        return nan_unless(seen, origins + depth[..., None] * directions)

    @full_precision
    def rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [..., 2] -> origins and directions [..., 3] in the world: point = origin + depth * direction.

        Directions are NaN, with no gradient, for pixels that no point projects to.
        """
        origins, directions, seen = self._world_rays(xy)
        return origins, nan_unless(seen, directions)

    def local_project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Like `project`, of points in the camera frame."""
        xy, depth = self._own_project(self._in_batch("points", points, 3))
        return self._map(xy), depth

    def local_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Like `rays`, in the camera frame."""
        origins, directions, seen = self._local_rays(xy)
        return origins, nan_unless(seen, directions)

    def linear_rays(self) -> LinearRays | None:
        """Camera-frame rays as an affine function of the pixel, if straight edges stay straight as well; else None.

        They do where affine rays have one centre (pinhole) or one direction (orthographic). Others, a pushbroom
        camera's, bend edges.
        """
        rays = self._affine_rays()
        if rays is None or self.is_central:
            return rays
        turning = torch.stack((rays.direction_dx, rays.direction_dy)).detach()
        return None if bool(turning.any()) else rays

    def valid(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> mask [...]: `project` and `rays` are inverse to each other there."""
        points = self._in_batch("points", points, 3)
        with torch.no_grad():
            shown = torch.isfinite(self._own_project(points)[0]).all(-1)
            return shown & self._handed_over(points.shape[:-1]).in_domain(points)

    @full_precision
    def world_to_camera(self, points: Tensor) -> Tensor:
        """World points [..., 3] -> the camera frame: `R x + t`."""
        points = self._in_batch("points", points, 3)
        return points @ self.R.to(points.dtype).mT + self._per_point(self.t.to(points.dtype))

    @full_precision
    def camera_to_world(self, points: Tensor) -> Tensor:
        """Camera-frame points [..., 3] -> the world: `R^T (x - t)`."""
        points = self._in_batch("points", points, 3)
        return (points - self._per_point(self.t.to(points.dtype))) @ self.R.to(points.dtype)

    @property
    def center(self) -> Tensor:
        """[*batch, 3] the origin of the camera frame in the world."""
        return -(self.t[..., None, :] @ self.R)[..., 0, :]

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]

    @property
    def batch_shape(self) -> torch.Size:
        return self.R.shape[:-2]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The model's own parameters, in the order of the constructor; `R` and `t` are not among them."""
        return self._names

    @property
    def dtype(self) -> torch.dtype:
        return self.R.dtype

    @property
    def device(self) -> torch.device:
        return self.R.device

    def pixel_centers(self) -> Tensor:
        """[H, W, 2] the centres of all pixels. A batched camera's methods want them as `.reshape(-1, 2)`.

        >>> from diffrender.cameras.pinhole import PinholeCamera
        >>> PinholeCamera(1, 1, 1, 1, size=(1, 2)).pixel_centers().tolist()
        [[[0.5, 0.5], [1.5, 0.5]]]
        """
        y, x = (torch.arange(n, dtype=self.dtype, device=self.device) + 0.5 for n in self.size)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)

    # Changed copies

    def crop(self, top: int, left: int, height: int, width: int) -> Self:
        """The camera of the window `image[top : top + height, left : left + width]`, which may reach outside."""
        for name, value in (("top", top), ("left", left)):
            if not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number of pixels; got {value!r}")
        size = check_size("(height, width)", (height, width))
        return self._with_pixel_map((1.0, 1.0), (-float(left), -float(top)), size)

    def resize(self, size: tuple[int, int]) -> Self:
        """The camera of the whole image scaled to `size`, (height, width): half pixels right, any aspect ratio."""
        size = check_size("size", size)
        return self._with_pixel_map((size[1] / self.width, size[0] / self.height), (0.0, 0.0), size)

    def replace(self, **changes: Any) -> Self:
        """A copy with other `R`, `t` or parameters of the model; broadcast and checked like the constructor's.

        >>> from diffrender.cameras.pinhole import PinholeCamera
        >>> camera = PinholeCamera(100, 100, 32, 24, size=(48, 64))
        >>> camera.replace(fx=200.0, t=(0, 0, 5))
        PinholeCamera(fx=200, fy=100, cx=32, cy=24, size=(48, 64), t=(0, 0, 5))
        """
        unknown = [name for name in changes if name not in self._tensors()]
        if unknown:
            raise TypeError(f"{type(self).__name__} has no parameters {unknown}; it has {list(self._tensors())}")
        camera = copy.copy(self)
        camera._set({**self._tensors(), **changes})
        return camera

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy with all parameters on `device` and of `dtype`."""
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type; got {dtype}")
        return self._with({name: value.to(device=device, dtype=dtype) for name, value in self._tensors().items()})

    def constants(self) -> list[Tensor] | None:
        """The model's own parameters, for who keeps what follows from them; None where somebody may learn them."""
        own = [getattr(self, name) for name in self._names]
        return None if any(value.requires_grad for value in own) or not is_plain_autograd() else own

    def frozen(self) -> Self:
        """The same camera, for many calls until a parameter changes: it may keep what it prepares for the first."""
        return self

    def __getitem__(self, index: Any) -> Self:
        """Index the batch: `camera[3]`, `camera[2:5]`, `camera[:, 0]`, `camera[torch.tensor([4, 1])]`."""
        if not self.batch_shape:
            raise TypeError(f"this {type(self).__name__} is not batched, so it cannot be indexed with {index!r}")
        chosen = torch.arange(self.batch_shape.numel(), device=self.device).reshape(self.batch_shape)[index]

        def pick(value: Tensor) -> Tensor:
            trailing = value.shape[len(self.batch_shape) :]
            # index_select, whose backward is deterministic on the CPU, where that of value[chosen] is not.
            picked = value.reshape(-1, *trailing).index_select(0, chosen.reshape(-1))
            return picked.reshape((*chosen.shape, *trailing))

        return self._with({name: pick(value) for name, value in self._tensors().items()})

    def flatten_batch(self) -> Self:
        """A copy whose batch has one dimension: [*batch] -> [B], a single camera -> [1]."""
        kept = len(self.batch_shape)
        tensors = self._tensors()
        return self._with({name: value.reshape(-1, *value.shape[kept:]) for name, value in tensors.items()})

    def __repr__(self) -> str:
        parts = [f"{name}={short(value)}" for name, value in self._tensors().items() if name not in ("R", "t")]
        parts.append(f"size={self.size}")
        if not torch.equal(self.R, torch.eye(3, dtype=self.dtype, device=self.device).expand_as(self.R)):
            parts.append(f"R={short(self.R)}")
        if bool((self.t != 0).any()):
            parts.append(f"t={short(self.t)}")
        if not self._is_unmapped():
            parts.append(f"pixel_scale={self._pixel_scale}, pixel_offset={self._pixel_offset}")
        return f"{type(self).__name__}({', '.join(parts)})"

    # How it works inside

    def _tensors(self) -> dict[str, Tensor]:
        """All parameters by name, `R` and `t` last."""
        return {name: getattr(self, name) for name in (*self._names, "R", "t")}

    def _trailing(self, name: str) -> int:
        """How many dimensions of a parameter follow the batch."""
        return 2 if name == "R" else 1 if name == "t" or name in self._vectors else 0

    def _set(self, values: dict[str, Any]) -> None:
        """Check parameters, bring them to one dtype, device and batch, and make them attributes."""
        tensors = {name: as_tensor(name, value, self._trailing(name)) for name, value in values.items()}
        check_pose_shapes(tensors["R"], tensors["t"])
        dtype, device = common_type(values)
        tensors = {name: value.to(device=device, dtype=dtype) for name, value in tensors.items()}
        shapes = {name: value.shape[: value.ndim - self._trailing(name)] for name, value in tensors.items()}
        try:
            batch = broadcast_shapes(*shapes.values())
        except ValueError:
            listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
            raise ValueError(f"the parameters' batch dimensions do not broadcast: {listed}") from None
        for name, value in tensors.items():
            check_finite(name, value.detach())
            shape = batch + value.shape[value.ndim - self._trailing(name) :]
            vars(self)[name] = value if value.shape == shape else value.expand(shape)
        check_rotation(tensors["R"].detach())
        self.check_parameters()

    def _with(self, tensors: dict[str, Tensor]) -> Self:
        """A copy with other tensors, unchecked."""
        camera = copy.copy(self)
        vars(camera).update(tensors)
        return camera

    def _handed_over(self, points: torch.Size) -> Self:
        """The camera that the author's methods see, to be used with points or pixels of the leading shape `points`.

        Its parameters broadcast against points [*batch, N, 3], and it was neither cropped nor resized.
        """
        camera = self._unmapped()
        dims = len(self.batch_shape)
        handed = {}
        for name in self._names:
            value = getattr(self, name)
            trailing = value.ndim - dims
            value = value.unsqueeze(dims) if dims else value
            handed[name] = spread(value, points, trailing) if self.spreads_parameters else value
        return camera._with(handed)

    def _unmapped(self) -> Self:
        """A copy as it was before crop and resize."""
        camera = copy.copy(self)
        camera.size, camera._pixel_scale, camera._pixel_offset = self._own_size, (1.0, 1.0), (0.0, 0.0)
        return camera

    def _per_point(self, vector: Tensor) -> Tensor:
        """[*batch, 3] -> the shape that broadcasts against points."""
        return vector[..., None, :] if self.batch_shape else vector

    def _in_batch(self, name: str, value: Tensor, last: int) -> Tensor:
        """Check points or pixels, and bring them to the camera's batch and at least to its dtype."""
        check_tensor(name, value, last=last)
        value = value.to(torch.promote_types(value.dtype, self.dtype))
        if not self.batch_shape:
            return value
        rule = f"(N, {last}) or {(*self.batch_shape, 'N', last)} for a camera batch of {tuple(self.batch_shape)}"
        if value.ndim < 2:
            raise ValueError(f"{name} must have shape {rule}; got {shape_of(value)}: add a dimension, {name}[None]")
        try:
            shape = broadcast_shapes(value.shape[:-2], self.batch_shape)
        except ValueError:
            raise ValueError(
                f"{name} must have shape {rule}; got {shape_of(value)}: "
                f"the second last dimension counts points, flatten it, {name}.reshape(-1, {last})"
            ) from None
        return value.expand(*shape, *value.shape[-2:])

    def _own_project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Camera-frame points -> pixels, as they were before crop and resize, and depth."""
        return self._handed_over(points.shape[:-1]).to_pixels(points), self.depth_of(points)

    def _local_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rays in the camera frame, and which of them exist: the others point ahead, so that no NaN spoils gradients.

        (A NaN that is only masked in the end turns a zero gradient into 0 * NaN on its way back.)
        """
        xy = self._in_batch("xy", xy, 2)
        affine = self._affine_rays()
        if affine is None:
            return self._own_rays(self._unmap(xy))
        xy, seen = _finite(xy)
        return *affine.at(xy), seen

    def _own_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Like `_local_rays`, for pixels [*batch, N, 2] as they were before crop and resize."""
        xy, seen = _finite(xy)
        closed = type(self).from_pixels is not Camera.from_pixels  # the search tries other points than those of `xy`
        directions = self._handed_over(xy.shape[:-1] if closed else torch.Size()).from_pixels(xy)
        seen = seen & torch.isfinite(directions.detach()).all(-1)
        directions = torch.where(seen[..., None], directions, directions.new_tensor([0.0, 0.0, 1.0]))
        return directions.new_zeros(3).expand_as(directions), directions / self.depth_of(directions)[..., None], seen

    def _affine_rays(self) -> LinearRays | None:
        """`affine_rays` in the pixels of the image, after crop and resize."""
        if self._is_unmapped():
            return self.affine_rays()
        rays = self._unmapped().affine_rays()
        return None if rays is None else rays.mapped(self._pixel_scale, self._pixel_offset)

    def _world_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same in the world."""
        origins, directions, seen = self._local_rays(xy)
        if self.is_central:
            origins = self._per_point(self.center.to(directions.dtype)).expand(directions.shape)
        else:
            origins = self.camera_to_world(origins)
        return origins, directions @ self.R.to(directions.dtype), seen

    @property
    def image_map(self) -> tuple[tuple[float, float], ...]:
        """The size before crop and resize, and what these did to pixels: `scale * xy + offset`."""
        return self._own_size, self._pixel_scale, self._pixel_offset

    def _is_unmapped(self) -> bool:
        return self._pixel_scale == (1.0, 1.0) and self._pixel_offset == (0.0, 0.0)

    def _with_pixel_map(self, scale: tuple[float, float], offset: tuple[float, float], size: tuple[int, int]) -> Self:
        """A copy of another size whose pixels are `scale * xy + offset`, folded into the parameters if possible."""
        (sx, sy), (ox, oy) = self._pixel_scale, self._pixel_offset
        camera = copy.copy(self)
        camera.size = size
        camera._pixel_scale = (scale[0] * sx, scale[1] * sy)
        camera._pixel_offset = (scale[0] * ox + offset[0], scale[1] * oy + offset[1])
        return camera

    def _map(self, xy: Tensor) -> Tensor:
        if self._is_unmapped():
            return xy
        return xy * xy.new_tensor(self._pixel_scale) + xy.new_tensor(self._pixel_offset)

    def _unmap(self, xy: Tensor) -> Tensor:
        if self._is_unmapped():
            return xy
        return (xy - xy.new_tensor(self._pixel_offset)) / xy.new_tensor(self._pixel_scale)


CameraType = TypeVar("CameraType", bound=Camera)


def stack_cameras(cameras: Sequence[CameraType]) -> CameraType:
    """Cameras of one class and size -> one camera with a new leading batch dimension.

    >>> from diffrender.cameras.pinhole import PinholeCamera
    >>> views = [PinholeCamera(f, f, 32, 24, size=(48, 64)) for f in (100.0, 120.0)]
    >>> stack_cameras(views).fx.tolist()
    [100.0, 120.0]
    """
    cameras = list(cameras)
    if not cameras:
        raise ValueError("cameras must hold at least one camera; got an empty list")
    first = cameras[0]
    for i, camera in enumerate(cameras):
        if not isinstance(camera, Camera):
            raise TypeError(f"cameras[{i}] must be a Camera; got {shape_of(camera)}")
        if type(camera) is not type(first):
            raise TypeError(f"cameras must be of one class; the first is {first!r}, number {i} is {camera!r}")
        if camera.size != first.size:
            raise ValueError(
                f"cameras must have one size; the first is {first.size}, number {i} is {camera.size} "
                "(height, width): resize or crop them, or keep them in a list"
            )
        if camera.image_map != first.image_map:
            raise ValueError(
                f"cameras must be cropped and resized alike; the first is {first!r}, number {i} {camera!r}"
            )
        for name, value in first._tensors().items():
            other = getattr(camera, name)
            if other.shape != value.shape:
                raise ValueError(
                    f"cameras must have parameters of one shape; {name} is {shape_of(value)} in the first, "
                    f"{shape_of(other)} in number {i}"
                )
    stacked = first._with({n: torch.stack([getattr(camera, n) for camera in cameras]) for n in first._tensors()})
    if len(cameras) > 1:  # what is found out about many goes when they go, not when the first of them does
        stacked.notes = Notes()
    return stacked


def nan_unless(seen: Tensor, vectors: Tensor) -> Tensor:
    """Vectors [..., 3], NaN where they are not `seen` [...]."""
    return vectors if _surely_all(seen) else torch.where(seen[..., None], vectors, math.nan)


def _finite(xy: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels, those that are not finite replaced, and which of them are."""
    finite = torch.isfinite(xy.detach()).all(-1)
    return xy if _surely_all(finite) else torch.where(finite[..., None], xy, 0.5), finite


def _surely_all(mask: Tensor) -> bool:
    """Whether all are True: asked only where the answer costs less than the copies that it saves, else False."""
    return mask.device.type == "cpu" and is_plain_autograd() and bool(mask.all())


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
