"""`check_camera` passes every camera of the package, and catches each of a gallery of wrong ones by the right line."""

import copy
import math
from typing import Any

import pytest
import torch
from lenses import HiddenPinhole, MirrorBall, Panorama, Pushbroom, RollingShutter, WaterPort, WavyTelecentric
from torch import Tensor

from diffrender.cameras import Camera, PinholeCamera, RayCamera, so3_exp, stack_cameras
from diffrender.testing import CameraReport, check_camera

SIZE = (36, 48)


class Lens(Camera):
    """A right camera, of which each of the wrong ones below changes one thing: a stereographic lens with a term k."""

    vector_parameters = frozenset({"k"})

    def __init__(self, f: Any = 30.0, k: Any = (0.1, 0.02), *, size: Any = SIZE, R: Any = None, t: Any = None) -> None:
        super().__init__(size=size, R=R, t=t, f=f, k=k)

    def plane(self, points: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = points.unbind(-1)
        half = (torch.linalg.vector_norm(points, dim=-1) + z).clamp(min=1e-3 * self.length(points)) / 2
        return x / half, y / half

    def length(self, points: Tensor) -> Tensor:
        return points.detach().abs().amax(-1).clamp(min=1e-9)

    def factor(self, u: Tensor, v: Tensor) -> Tensor:
        r2 = u * u + v * v
        return 1 + self.k[..., 0] * r2 + self.k[..., 1] * r2 * r2

    def to_pixels(self, points: Tensor) -> Tensor:
        u, v = self.plane(points)
        scale = self.f * self.factor(u, v)
        return torch.stack((scale * u + self.width / 2, scale * v + self.height / 2), dim=-1)


def test_the_lens_that_the_wrong_ones_are_made_from_is_right() -> None:
    check_camera(Lens()).check()


@pytest.mark.parametrize(
    "camera",
    [
        Panorama(1.0, size=SIZE),  # seam and poles are at the borders of the image
        Panorama(1.5, size=SIZE),
        Pushbroom(30.0, 0.1, size=SIZE),
        WavyTelecentric(0.06, 1.0, size=SIZE),
        RollingShutter(30.0, size=SIZE),
        WaterPort(30.0, size=SIZE),
        MirrorBall(90.0, size=SIZE),
        HiddenPinhole(40.0, 41.0, 24.0, 18.0, size=SIZE, t=(1.0, 2.0, 3.0)),
    ],
    ids=lambda camera: type(camera).__name__,
)
def test_right_cameras_of_users_pass(camera: Camera) -> None:
    check_camera(camera).check()


# The gallery. Each is caught by the line that its decorator names, and told what to do by words that it names.

Wrong = tuple[type[Camera], str, str]
GALLERY: list[Wrong] = []


def caught(line: str, advice: str) -> Any:
    def hang(wrong: type[Camera]) -> type[Camera]:
        GALLERY.append((wrong, line, advice))
        return wrong

    return hang


@caught("pixels with a ray", "is the focal length in pixels")
class NoImage(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points) * 0 + 5


@caught("pixels with a ray", "camera's own code")
class Raises(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points)[..., [0, 2]]


@caught("project shapes", "return pixels [..., 2]")
class IndexesFromTheFront(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        xy = super().to_pixels(points)
        return xy if points.ndim < 3 or len(points) == 3 else torch.cat((xy[0], xy[1]))


@caught("project twice", "no in-place operations")
class WritesIntoItsInput(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        if not points.requires_grad and points.ndim == 3 and len(points) == 2:
            points *= 1.5
        return super().to_pixels(points)

    def world_to_camera(self, points: Tensor) -> Tensor:
        return points


@caught("project twice", "no random numbers")
class Noisy(Lens):
    noise = 1e-5

    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points) + self.noise * torch.rand_like(points[..., :2])

    def from_pixels(self, xy: Tensor) -> Tensor:
        quiet = copy.copy(self)
        quiet.noise = 0.0
        return Camera.from_pixels(quiet, xy)


@caught("pixel -> ray -> pixel", "from_pixels is not the inverse of to_pixels")
class WrongInverse(Lens):
    def from_pixels(self, xy: Tensor) -> Tensor:
        return super().from_pixels(xy + 0.5)


@caught("point -> pixel -> point", "from_pixels is not the inverse")
class InverseOfAnotherLens(Lens):
    def from_pixels(self, xy: Tensor) -> Tensor:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        return torch.stack((u, v, torch.ones_like(u)), dim=-1)

    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 2] > 0


@caught("depth along rays", "depth_of must be positive")
class SquaredDepth(Lens):
    def depth_of(self, points: Tensor) -> Tensor:
        return (points * points).sum(-1)


@caught("depth along rays", "must be positive")
class DepthOnlyAhead(Lens):
    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]  # negative beyond 90 degrees, where this lens still sees

    def __init__(self, f: Any = 10.0, k: Any = (0.0, 0.0), **rest: Any) -> None:
        super().__init__(f, k, **rest)


@caught("distance does not matter", "depends on how far points are")
class CloseUp(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points) * (1 + 1e-3 / points.norm(dim=-1, keepdim=True))


@caught("points one by one: project", "reduce over the last dimension only")
class KnowsItsNeighbours(Lens):
    def length(self, points: Tensor) -> Tensor:
        return points.detach().norm()

    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points) + 1e-3 * points[..., :2].mean()


@caught("slope of project by f", "no .detach()")
class ForgetsItsParameter(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        u, v = self.plane(points)
        scale = self.f.detach() * self.factor(u, v)
        return torch.stack((scale * u + self.width / 2, scale * v + self.height / 2), dim=-1)


@caught("slope of project by points", "disagree")
class ForgetsHalf(Lens):
    def factor(self, u: Tensor, v: Tensor) -> Tensor:
        return super().factor(u.detach(), v.detach())


@caught("batch:", "[*batch, 1, K]")
class IndexesFromTheWrongEnd(Lens):
    def factor(self, u: Tensor, v: Tensor) -> Tensor:
        return 1 + self.k[0] * (u * u + v * v) + self.k[1] * (u * u + v * v) ** 2


@caught("batch:", "self.f[..., None] * points[..., :2]")
class ScalarTimesVector(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        middle = points.new_tensor([self.width / 2, self.height / 2])
        return self.f * torch.stack(self.plane(points), dim=-1) + middle


@caught("mask around", "in_domain is True where the inverse leads elsewhere")
class ClaimsToSeeBehind(Lens):
    """An orthographic fisheye: what lies behind repeats what is ahead."""

    def to_pixels(self, points: Tensor) -> Tensor:
        sine = points[..., :2] / torch.linalg.vector_norm(points, dim=-1, keepdim=True).clamp(min=1e-9)
        return self.f[..., None] * sine + points.new_tensor([self.width / 2, self.height / 2])

    def in_domain(self, points: Tensor) -> Tensor:
        return torch.ones_like(points[..., 0], dtype=torch.bool)


@caught("mask of the image", "it must hold wherever a ray leads")
class DeniesItsImage(Lens):
    def in_domain(self, points: Tensor) -> Tensor:
        return points[..., 0] > 0


@caught("gradients where nothing is seen", "clamp what you divide by")
class DividesByZero(Lens):
    def plane(self, points: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = points.unbind(-1)
        return x / z, y / z


@caught("precision inside", "no .float()")
class SinglePrecisionInside(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        u, v = ((part / z.clamp(min=1e-6)).float().to(z.dtype) for part in (x, y))
        return torch.stack((self.f * u + self.width / 2, self.f * v + self.height / 2), dim=-1)

    def from_pixels(self, xy: Tensor) -> Tensor:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        return torch.stack((u, v, torch.ones_like(u)), dim=-1)


@caught("precision", "points.new_tensor")
class AlwaysDouble(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        return super().to_pixels(points) + torch.zeros(2, dtype=torch.float64)


@caught("largest jump of project", "jumps inside the image")
class Jumps(Lens):
    def to_pixels(self, points: Tensor) -> Tensor:
        xy = super().to_pixels(points)
        return xy + 2.0 * torch.where(xy[..., :1] > 20.0, 1.0, 0.0)


@caught("largest jump of rays", "branches that disagree")
class RaysJump(RayCamera):
    def __init__(self, f: Any = 30.0, *, size: Any = SIZE, R: Any = None, t: Any = None) -> None:
        super().__init__(size=size, R=R, t=t, f=f)

    def to_rays(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        u, v = (xy[..., 0] - self.width / 2) / self.f, (xy[..., 1] - self.height / 2) / self.f
        side = torch.where(xy[..., 0] > 20.3, 0.3, 0.0)  # two sensors, glued
        return torch.stack((side, 0 * u, 0 * u), dim=-1), torch.stack((u, v, torch.ones_like(u)), dim=-1)


@caught("pixel -> ray -> pixel", "to_pixels is not the inverse of to_rays")
class WrongFormulaForRays(RollingShutter):
    def __init__(self, f: Any = 30.0, velocity: Any = (0.3, 0.0, 0.1), k: Any = 0.1, *, size: Any = SIZE, **rest: Any):
        super().__init__(f, velocity, k, size=size, **rest)

    def to_pixels(self, points: Tensor) -> Tensor:  # of a lens that does not move
        z = points[..., 2:].clamp(min=1e-6)
        return self.f[..., None] * points[..., :2] / z + points.new_tensor([self.width / 2, self.height / 2])


@caught("image resize", "override neither")
class ResizesByItself(Lens):
    def resize(self, size: tuple[int, int]) -> Any:
        return type(self)(self.f * size[0] / self.height, self.k, size=size, R=self.R, t=self.t)


@pytest.mark.parametrize(("wrong", "line", "advice"), GALLERY, ids=[wrong.__name__ for wrong, *_ in GALLERY])
def test_a_wrong_camera_is_caught_by_the_right_line(wrong: type[Camera], line: str, advice: str) -> None:
    report = check_camera(wrong(size=SIZE))
    assert not report.ok
    lines = {finding.name: finding.advice for finding in report.failures}
    found = [words for name, words in lines.items() if name.startswith(line)]
    assert found, report
    assert any(advice in words for words in found), report


def test_report_is_a_table_that_says_what_to_do_and_may_raise() -> None:
    report = check_camera(WrongInverse())
    assert isinstance(report, CameraReport)
    text = str(report)
    assert text.startswith("WrongInverse(f=30")
    assert "FAIL  pixel -> ray -> pixel" in text
    assert "-> from_pixels is not the inverse of to_pixels: leave it out" in text
    assert max(map(len, text.splitlines())) < 240
    with pytest.raises(AssertionError, match="FAIL  pixel -> ray -> pixel"):
        report.check()
    assert str(check_camera(Lens())).count("ok  ") == len(check_camera(Lens()).findings)


def test_of_a_batch_the_first_camera_is_examined() -> None:
    views = [Lens(f, R=so3_exp(torch.tensor([0.1, 0.2, f / 100]))) for f in (30.0, 31.0)]
    report = check_camera(stack_cameras(views))
    report.check()
    assert report.camera.startswith("Lens(f=30, ")


def test_what_is_no_camera_is_named() -> None:
    with pytest.raises(TypeError, match=r"camera must be a diffrender.Camera; got float"):
        check_camera(math.pi)  # type: ignore[arg-type]
    empty = PinholeCamera(torch.ones(0), 1.0, 1.0, 1.0, size=SIZE)
    with pytest.raises(ValueError, match="at least one camera"):
        check_camera(empty)
