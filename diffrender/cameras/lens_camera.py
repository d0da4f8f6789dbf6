"""What central cameras with a radial lens, a distortion of the plane, focal lengths and a principal point share."""

import abc
import math

import torch
from torch import Tensor

from diffrender.cameras.base import ROUND_TRIP_ANGLE
from diffrender.cameras.distortion import Distortion, bracket_end
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.inverse import PointCameras, fill, length, newton, newton_step, recorded_step, solve2
from diffrender.cameras.kernel_camera import KernelCamera
from diffrender.cameras.lenses import Lens
from diffrender.kernels import LensShape


class LensCamera(KernelCamera, IntrinsicsCamera):
    """Abstract: pixels are fx, fy, cx, cy of a distorted plane, and the plane is the image of a lens.

    A model says which lens and which distortion; projection, inverse and domain are written here once. Where there is
    a distortion its inverse starts at that of the radial part and goes on by Newton's method with the analytic
    Jacobian; first and second derivatives by the implicit function theorem.
    """

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
        x, y = distortion.distort(u, v)
        s = u * u + v * v
        valid = seen & growing & (s < distortion.fold()) & distortion.tilted_ahead(x, y)
        # What is not radial may turn the plane over and back again before the radial part folds: the inverse tells.
        doubtful = valid & (s >= distortion.one_to_one())
        if not bool(doubtful.any()):
            return valid
        back = self._undistorted(torch.where(doubtful, x, 0.0), torch.where(doubtful, y, 0.0))
        plane = torch.nn.functional.pad(torch.stack((torch.stack((u, v), dim=-1), back)), (0, 1), value=1.0)
        here, there = torch.nn.functional.normalize(plane, dim=-1)  # far out, as far apart as the directions
        missed = torch.linalg.vector_norm(there - here, dim=-1)
        return valid & (~doubtful | (missed < ROUND_TRIP_ANGLE.get(points.dtype, 1e-2)))  # False for NaN

    def kernel_shape(self) -> LensShape:
        lens, distortion = self.lens(), self.distortion()
        terms = (len(distortion.numerator), len(distortion.denominator))
        kinds = (bool(distortion.tangential), bool(distortion.prism), bool(distortion.tilt))
        # Up to the last one that is not a constant.
        lens_parameters = max((i + 1 for i, n in enumerate(lens.packed()) if isinstance(n, Tensor)), default=0)
        return LensShape(lens.kind, lens_parameters, *terms, *kinds, self.depth_is_z)

    def kernel_numbers(self) -> tuple[Tensor | float, ...]:
        return self.fx, self.fy, self.cx, self.cy, *self.lens().packed(), *self.distortion().packed()

    def kernel_limits(self) -> tuple[Tensor | float, ...]:
        distortion, limit = self.distortion(), self.lens().limit()
        fold = distortion.fold()
        bracket = bracket_end(torch.minimum(torch.as_tensor(fold), torch.as_tensor(limit)))
        aside, down = (
            torch.maximum(middle.abs(), (middle - length).abs()) / focal.abs()
            for middle, focal, length in ((self.cx, self.fx, self.width), (self.cy, self.fy, self.height))
        )
        return fold, bracket, limit, aside * aside + down * down

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
