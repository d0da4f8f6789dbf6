"""What central cameras with a radial lens, a distortion of the plane, focal lengths and a principal point share."""

import abc
import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffrender.cameras.base import Camera, nan_unless
from diffrender.cameras.distortion import Distortion, bracket_end
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.inverse import PointCameras, fill, length, newton, newton_step, recorded_step, solve2
from diffrender.cameras.lenses import Lens
from diffrender.cameras.spread import spread
from diffrender.derivatives import is_plain_autograd
from diffrender.kernels import LensModel, LensShape, project_lens, unproject_lens

# From so many points on the kernels are worth their start.
MANY = 1 << 14


class LensCamera(IntrinsicsCamera):
    """Abstract: pixels are fx, fy, cx, cy of a distorted plane, and the plane is the image of a lens.

    A model says which lens and which distortion; projection, inverse and domain are written here once. Where there is
    a distortion its inverse starts at that of the radial part and goes on by Newton's method with the analytic
    Jacobian; first and second derivatives by the implicit function theorem.

    Many points take a kernel (`diffrender.kernels.lens`), whose reference is what is written here.
    """

    depth_is_z: ClassVar[bool] = False  # else it is the distance from the centre
    spreads_parameters: ClassVar[bool] = False  # folds are found once per camera, not once per point

    @abc.abstractmethod
    def lens(self) -> Lens:
        """The lens, made of this camera's parameters."""

    def distortion(self) -> Distortion:
        """The distortion, made of this camera's parameters; none if left out."""
        return Distortion()

    def to_pixels(self, points: Tensor) -> Tensor:
        camera = self._spread_over(points.shape[:-1])
        x, y, z = points.unbind(-1)
        h = camera.lens().scale(x, y, z)
        u, v = h * x, h * y
        distortion = camera.distortion()
        if distortion:
            u, v = distortion.to_sensor(*distortion.distort(u, v))
        return camera.plane_to_pixels(u, v)

    def from_pixels(self, xy: Tensor) -> Tensor:
        camera = self._spread_over(xy.shape[:-1])
        lens, limit, distortion = camera.lens(), self.lens().limit(), camera.distortion()
        u, v = camera.pixels_to_plane(xy)
        if distortion:
            u, v = self._undistorted(*distortion.from_sensor(u, v)).unbind(-1)
        # The outermost pixels have directions, but the roots there have no gradient.
        seen = (u * u + v * v).detach() < limit  # False for NaN
        direction = torch.stack(lens.direction(torch.where(seen, u, 0.0), torch.where(seen, v, 0.0)), dim=-1)
        return torch.where(seen[..., None], direction, math.nan)

    def in_domain(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        lens, distortion = self.lens(), self.distortion()
        seen = lens.sees(x, y, z)
        if not distortion:
            return seen
        h = lens.scale(x, y, z)
        u, v = h * x, h * y
        _, growing = distortion.jacobian(u, v)
        return seen & growing & (u * u + v * v < distortion.fold()) & distortion.tilted_ahead(*distortion.distort(u, v))

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2] if self.depth_is_z else super().depth_of(points)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        batched = self._in_batch("points", points, 3)
        if not self._takes_kernel(batched):
            return super().project(points)
        return project_lens(self._model(posed=True), batched, self._values(batched.dtype, posed=True))

    def unproject(self, xy: Tensor, depth: Tensor) -> Tensor:
        batched = self._in_batch("xy", xy, 2)
        alike = isinstance(depth, Tensor) and depth.shape == batched.shape[:-1] and depth.dtype == batched.dtype
        if not (alike and self._takes_kernel(batched)):
            return super().unproject(xy, depth)
        values = self._values(batched.dtype, posed=True)
        return nan_unless(*reversed(unproject_lens(self._model(posed=True), batched, depth, values)))

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
        alike = not self.batch_shape or points.shape[:-2] == self.batch_shape
        many = points[..., 0].numel() >= MANY and points.dtype in (torch.float32, torch.float64)
        return many and alike and is_plain_autograd()

    def _values(self, dtype: torch.dtype, posed: bool = False) -> list[Tensor]:
        return [getattr(self, name).to(dtype) for name in (*self._names, *(("R", "t") if posed else ()))]

    def _model(self, posed: bool = False) -> LensModel:
        """This class of cameras as the kernels see it; its functions take the values of the parameters."""
        names, lens, distortion = (*self._names, *(("R", "t") if posed else ())), self.lens(), self.distortion()
        terms = (len(distortion.numerator), len(distortion.denominator))
        kinds = (bool(distortion.tangential), bool(distortion.prism), bool(distortion.tilt))

        def camera(values: tuple[Tensor, ...]) -> "LensCamera":
            return self._with(dict(zip(names, values, strict=True)))

        def project(points: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
            lens = camera(values)
            return Camera._own_project(lens, lens.world_to_camera(points) if posed else points)

        def unproject(xy: Tensor, depth: Tensor | None, *values: Tensor) -> Tensor:
            lens = camera(values)
            _, directions, _ = Camera._own_rays(lens, xy)
            return directions if depth is None else lens.camera_to_world(depth[..., None] * directions)

        def pack(*values: Tensor) -> Tensor:
            return camera(values)._packed(posed)

        shape = LensShape(lens.kind, *terms, *kinds, self.depth_is_z)
        return LensModel(shape, posed, pack, lambda *values: camera(values)._limits(), project, unproject)

    def _packed(self, posed: bool) -> Tensor:
        """All numbers of each camera in the order of the kernels: [B, NUM_PARAMETERS]."""
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.lens().packed(), *self.distortion().packed())
        columns = [torch.as_tensor(n, dtype=self.fx.dtype, device=self.fx.device) for n in numbers]
        packed = torch.stack([column.expand_as(self.fx) for column in columns], dim=-1)
        R, t = self.R, self.t
        if not posed:
            R, t = torch.eye(3, dtype=packed.dtype, device=packed.device), packed.new_zeros(3)
        pose = [part.expand(*self.fx.shape, part.shape[-1]) for part in (R.flatten(-2), t)]
        packed = torch.cat((packed, *pose), dim=-1)
        return packed.reshape(-1, packed.shape[-1])

    def _limits(self) -> Tensor:
        """What the inverse needs besides: [B, NUM_LIMITS]."""
        distortion = self.distortion()
        with torch.no_grad():
            fold, limit = (
                torch.as_tensor(n, dtype=self.fx.dtype, device=self.fx.device).expand_as(self.fx)
                for n in (distortion.fold(), self.lens().limit())
            )
            bracket = bracket_end(torch.minimum(fold, limit))
            untilt = torch.stack(distortion.packed_tilt(), dim=-1) if distortion.tilt else torch.eye(3).to(fold)
            inverse = torch.linalg.inv(untilt.reshape(*untilt.shape[:-1], 3, 3) if distortion.tilt else untilt)
            inverse = inverse.reshape(*inverse.shape[:-2], 9).expand(*self.fx.shape, 9)
            aside, down = (
                torch.maximum(middle.abs(), (middle - length).abs()) / focal.abs()
                for middle, focal, length in ((self.cx, self.fx, self.width), (self.cy, self.fy, self.height))
            )
            extent = aside * aside + down * down
            return torch.cat((torch.stack((fold, bracket, limit, extent), dim=-1), inverse), dim=-1).reshape(-1, 13)

    def _spread_over(self, points: torch.Size) -> Self:
        """A handed-over camera with its parameters repeated for many `points`, where that matters to gradients."""
        values = {name: getattr(self, name) for name in self._names}
        return self._with({name: spread(value, points, self._trailing(name)) for name, value in values.items()})

    def _undistorted(self, x: Tensor, y: Tensor) -> Tensor:
        """Plane coordinates [..., 2] without distortion; NaN where there are none."""
        flat = torch.stack((x, y), dim=-1).reshape(-1, 2)
        target = flat.detach()
        cameras = PointCameras(self, x.shape)
        with torch.no_grad():
            # Rounding of plane coordinates, which are about 1; 64 times that is what a solution may leave.
            tolerance = 8 * torch.finfo(x.dtype).eps * target.abs().amax(-1).clamp(min=1.0)

            def attempt(state: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
                distortion, (u, v) = cameras.at(index).distortion(), state.unbind(-1)
                missing = target.index_select(0, index) - torch.stack(distortion.distort(u, v), dim=-1)
                jacobian, growing = distortion.jacobian(u, v)
                return torch.where(growing, length(missing), math.inf), newton_step(jacobian, missing)

            fold = torch.as_tensor(self.distortion().fold(), dtype=x.dtype, device=x.device)
            limit = torch.minimum(fold, torch.as_tensor(self.lens().limit(), dtype=x.dtype, device=x.device))
            start = self.distortion().undistort_radially(x.detach(), y.detach(), limit)
            state, residual = newton(attempt, torch.add, torch.stack(start, dim=-1).reshape(-1, 2), tolerance)
            inside = (state * state).sum(-1) <= fold.expand(x.shape).reshape(-1)
            found = ((residual <= 64 * tolerance) & inside).nonzero()[:, 0]
            state = state.index_select(0, found)
            jacobian, _ = cameras.at(found).distortion().jacobian(state[:, 0], state[:, 1])
        distortion, wanted = cameras.at(found, detach=False).distortion(), flat.index_select(0, found)

        def missing(step: Tensor | None) -> Tensor:
            at = state if step is None else state + step
            return wanted - torch.stack(distortion.distort(at[:, 0], at[:, 1]), dim=-1)

        uv = state + recorded_step(missing, lambda missing: solve2(jacobian, missing))
        return fill(uv, found, x.shape)
