"""Cameras whose points take a kernel, one pass over memory, instead of dozens of operations of torch."""

import abc
import copy
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender.cameras.base import Camera, nan_unless
from diffrender.cameras.spread import spread
from diffrender.derivatives import is_plain_autograd
from diffrender.kernels import LensModel, LensShape, project_lens, unproject_lens

MANY = 16  # from so many points on kernels are worth their start


class KernelCamera(Camera):
    """Abstract: a central camera that `diffrender.kernels.lens` knows.

    Its `to_pixels` and `from_pixels` are plain torch, the kernels' reference: what few points take, what `torch.func`,
    forward mode and `torch.compile` see, and what is differentiated where a gradient is differentiated again.
    """

    depth_is_z: ClassVar[bool] = False  # else it is the distance from the centre
    spreads_parameters: ClassVar[bool] = False  # folds are found once per camera, not once per point
    _kept: dict[Any, Any] | None = None  # see `frozen`

    @abc.abstractmethod
    def kernel_shape(self) -> LensShape:
        """What kernels are made for."""

    @abc.abstractmethod
    def kernel_numbers(self) -> tuple[Tensor | float, ...]:
        """The parameters in the order of the kernels, up to the tilt; of the shape [*batch] each."""

    @abc.abstractmethod
    def kernel_limits(self) -> tuple[Tensor | float, ...]:
        """What the inverse needs besides: fold, bracket, limit and extent, see `kernels/warp_lens_formulas.py`."""

    def frozen(self) -> Self:
        camera = copy.copy(self)
        camera._kept = self._remembered()
        return camera

    def _remembered(self) -> dict[Any, Any]:
        """What a camera with these parameters has kept before: for one of them, of all that share the notes."""
        parameters = self.constants()
        if parameters is None or torch.is_inference_mode_enabled():
            return {}
        key, map_ = ("lens", self.batch_shape, self.dtype, self.device), (self.size, self.image_map)
        known = self.notes.get(key)
        if known is None or known[0] != map_ or not all(map(torch.equal, parameters, known[1])):
            known = self.notes[key] = (map_, [parameter.clone() for parameter in parameters], {})
        kept: dict[Any, Any] = known[2]
        return kept

    def __copy__(self) -> Self:
        camera = object.__new__(type(self))
        camera.__dict__.update(self.__dict__, _kept=None)
        return camera

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2] if self.depth_is_z else super().depth_of(points)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        batched = self._in_batch("points", points, 3)
        if not self._takes_kernel(batched):
            return super().project(points)
        xy, depth = project_lens(self._model(posed=True), batched, self._values(batched.dtype, posed=True))
        return self._map(xy), depth

    def unproject(self, xy: Tensor, depth: Tensor) -> Tensor:
        batched = self._in_batch("xy", xy, 2)
        alike = isinstance(depth, Tensor) and depth.shape == batched.shape[:-1] and depth.dtype == batched.dtype
        if not (alike and self._takes_kernel(batched)):
            return super().unproject(xy, depth)
        values = self._values(batched.dtype, posed=True)
        points, seen = unproject_lens(self._model(posed=True), self._unmap(batched), depth, values)
        return nan_unless(seen, points)

    def _own_project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if not self._takes_kernel(points):
            return super()._own_project(points)
        return project_lens(self._model(), points, self._values(points.dtype))

    def _own_rays(self, xy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._takes_kernel(xy):
            return super()._own_rays(xy)
        directions, seen = unproject_lens(self._model(), xy, None, self._values(xy.dtype))
        return directions.new_zeros(3).expand_as(directions), directions, seen

    def _takes_kernel(self, points: Tensor) -> bool:
        if points.device.type not in ("cpu", "cuda") or points.dtype not in (torch.float32, torch.float64):
            return False
        alike = not self.batch_shape or points.shape[:-2] == self.batch_shape
        return alike and points[..., 0].numel() >= MANY and is_plain_autograd()

    def _values(self, dtype: torch.dtype, posed: bool = False) -> list[Tensor]:
        return [getattr(self, name).to(dtype) for name in self._value_names(posed)]

    def _value_names(self, posed: bool) -> tuple[str, ...]:
        return (*self._names, "R", "t") if posed else self._names

    def _model(self, posed: bool = False) -> LensModel:
        """This class of cameras as the kernels see it; its functions take the values of the parameters."""

        def camera(values: tuple[Tensor, ...]) -> "KernelCamera":
            return self._with(dict(zip(self._value_names(posed), values, strict=True)))

        def project(points: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
            lens = camera(values)
            return Camera._own_project(lens, lens.world_to_camera(points) if posed else points)

        def unproject(xy: Tensor, depth: Tensor | None, *values: Tensor) -> Tensor:
            lens = camera(values)
            _, directions, _ = Camera._own_rays(lens, xy)
            return directions if depth is None else lens.camera_to_world(depth[..., None] * directions)

        def pack(*values: Tensor) -> Tensor:
            return camera(values)._packed(posed)

        def limits(*values: Tensor) -> Tensor:
            return camera(values)._packed_limits()

        kept = None if posed else self._kept  # whatever the pose
        return LensModel(self._kept_shape(), posed, pack, limits, project, unproject, kept)

    def _kept_shape(self) -> LensShape:
        if self._kept is None:
            return self.kernel_shape()
        if "shape" not in self._kept:
            self._kept["shape"] = self.kernel_shape()
        shape: LensShape = self._kept["shape"]
        return shape

    def _packed(self, posed: bool) -> Tensor:
        """All numbers of each camera in the order of the kernels: [B, NUM_PARAMETERS]."""
        numbers = self._columns(self.kernel_numbers())
        R = self.R if posed else torch.eye(3, dtype=numbers.dtype, device=numbers.device)
        t = self.t if posed else numbers.new_zeros(3)
        pose = [part.expand(*self.batch_shape, part.shape[-1]) for part in (R.flatten(-2), t)]
        packed = torch.cat((numbers, *pose), dim=-1)
        return packed.reshape(-1, packed.shape[-1])

    def _packed_limits(self) -> Tensor:
        """The limits, and the inverse of the homography of the tilted sensor: [B, NUM_LIMITS]."""
        with torch.no_grad():
            limits, homography = self._columns(self.kernel_limits()), self._columns(self.kernel_numbers()[-9:])
            if self.kernel_shape().tilt:
                homography = torch.linalg.inv(homography.unflatten(-1, (3, 3))).flatten(-2)
            packed = torch.cat((limits, homography), dim=-1)
            return packed.reshape(-1, packed.shape[-1])

    def _columns(self, numbers: tuple[Tensor | float, ...]) -> Tensor:
        """Numbers of each camera side by side: [*batch, N]."""
        like = getattr(self, self._names[0])
        columns = [torch.as_tensor(n, dtype=like.dtype, device=like.device) for n in numbers]
        return torch.stack([column.expand(self.batch_shape) for column in columns], dim=-1)

    def _spread_over(self, points: torch.Size) -> Self:
        """A handed-over camera with its parameters repeated for many `points`, where that matters to gradients."""
        values = {name: getattr(self, name) for name in self._names}
        return self._with({name: spread(value, points, self._trailing(name)) for name, value in values.items()})
