"""Are the gradients right? An instrument to measure them, for your own scenes, cameras and shaders too.

The reference is an image that knows nothing of `render`'s antialiasing or boundary term: every pixel is the mean of a
set of points, each of which asks visibility which face is there and the shader what colour it has. Its derivative is
taken by central differences. Both the points and the step leave an error; the instrument repeats the measurement with
other points and another step, reports how far the answers are apart, and refuses to judge by a reference that is not
clearly better than what is being judged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..cameras import Camera
from ..checks import check_tensor, shape_of
from ..fragments import fragments_along
from ..mesh import Mesh
from ..render import Shader, checked_colors, empty_images, render
from ..scene import Scene, check_camera_and_mesh, pack
from ..shading import unlit
from ..visibility import first_faces

SceneFunction = Callable[[dict[str, Tensor]], tuple[Mesh, Camera]]
Background = float | Sequence[float] | Tensor
BATCH = 1 << 20  # points looked at together: bounds the memory
CALM = 0.02  # of the image's range: what a smooth pixel may deviate from a plane
CALM_SAMPLES = 8  # per axis in smooth pixels, where the error falls with the square of their number
TRUST = 3.0  # a reference may judge errors this many times its own


class NotConvergedError(RuntimeError):
    """The reference is not good enough for the question asked of it."""


@dataclass(frozen=True)
class GradientReport:
    """Analytic gradient against central differences of a converged image.

    Attributes:
        names: one for each scalar, such as `translation[2]`.
        gradient, reference: [P] the two gradients.
        reference_error: [P] how far the reference moved with another grid of samples and another step.
        image_error: largest difference between the rendered image and the converged one.
    """

    names: tuple[str, ...]
    gradient: Tensor
    reference: Tensor
    reference_error: Tensor
    image_error: float

    @property
    def error(self) -> float:
        """norm(gradient - reference) / norm(reference)."""
        return float((self.gradient - self.reference).norm() / self.reference.norm())

    @property
    def uncertainty(self) -> float:
        """norm(reference_error) / norm(reference): what `error` may owe to the reference."""
        return float(self.reference_error.norm() / self.reference.norm())

    def check(self, limit: float) -> None:
        """Raise AssertionError if the error is above `limit`, NotConvergedError if the reference cannot tell."""
        if not self.reference.any() and not self.reference_error.any():
            raise NotConvergedError(f"the reference is zero: is anything of the scene in the image?\n{self}")
        if self.uncertainty > limit / TRUST:
            raise NotConvergedError(
                f"the reference moves by {self.uncertainty:.2%} with its grid and step, too much to judge errors of "
                f"{limit:.2%}: take more samples, or another step\n{self}"
            )
        if not self.error <= limit:
            raise AssertionError(f"the gradient is off by {self.error:.2%}, more than {limit:.2%}\n{self}")

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [f"{'parameter':<{width}}  {'gradient':>12}  {'reference':>12}  {'+-':>9}  {'difference':>11}"]
        rows = zip(self.names, self.gradient, self.reference, self.reference_error, strict=True)
        for name, found, wanted, doubt in rows:
            lines.append(f"{name:<{width}}  {found:12.5g}  {wanted:12.5g}  {doubt:9.2g}  {found - wanted:11.3g}")
        lines.append(f"error {self.error:.2%}, of which up to {self.uncertainty:.2%} may be the reference's")
        return "\n".join(lines)


def check_gradients(
    scene: SceneFunction,
    parameters: Mapping[str, Tensor],
    *,
    weights: Tensor | None = None,
    background: Background = 0.0,
    shader: Shader = unlit,
    samples: int = 1,
    reference_samples: int = 24,
    step: float | Mapping[str, float] = 1e-3,
    progress: bool = False,
) -> GradientReport:
    """Compare the gradient of `render` with finite differences of the converged image.

    Args:
        scene: what the parameters look like: parameters -> mesh and one camera. It is called with the parameters as
            given for the gradient, and with float64 ones for the reference; make everything else in it follow.
        parameters: by name, each a floating-point tensor.
        weights: [H, W, C + 1] what the image is multiplied with and summed up to the scalar that is differentiated;
            smooth waves, different in every channel, if left out.
        background, shader, samples: as for `render`.
        reference_samples: per pixel and axis in the reference.
        step: of the central differences, in the units of the parameters, or one for each by name; the reference uses
            half of it, and repeats with all of it.
        progress: show a bar.

    >>> from diffrender import PinholeCamera, sphere
    >>> def scene(p):
    ...     mesh = sphere(1, dtype=p["shift"].dtype)
    ...     camera = PinholeCamera(16.0, 16.0, 8.0, 8.0, size=(16, 16)).to(dtype=p["shift"].dtype)
    ...     return mesh.replace(vertices=mesh.vertices + p["shift"]), camera
    >>> report = check_gradients(scene, {"shift": torch.tensor([0.1, 0.2, 3.0])}, step=4e-2, reference_samples=40)
    >>> report.check(limit=0.25)  # what so small a reference can tell
    """
    if samples < 1 or reference_samples < 2:
        raise ValueError(f"samples must be at least 1, reference_samples 2; got {samples} and {reference_samples}")
    steps = _steps(step, parameters)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    mesh, camera = _one_view(scene, leaves)
    image = render(mesh, camera, background=background, shader=shader, samples=samples)
    if weights is None:
        weights = smooth_weights(*image.shape)
    if weights.shape != image.shape:
        raise ValueError(f"weights must be {tuple(image.shape)}, as the image is; got {shape_of(weights)}")
    loss = (image * weights.to(image)).sum()
    if not loss.requires_grad:
        raise ValueError(f"scene must depend on its parameters; nothing in the image does on any of {list(parameters)}")
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    gradient = torch.cat([g.reshape(-1).double().cpu() for g in found])

    exact = {name: value.detach().double() for name, value in parameters.items()}
    look = partial(
        converged_image, scene, background=background, shader=shader, calm=calm_pixels(scene, exact, shader=shader)
    )
    converged = look(exact, reference_samples)
    names = tuple(
        f"{name}{list(place)}" if place else name for name, value in exact.items() for place in np.ndindex(*value.shape)
    )
    return GradientReport(
        names,
        gradient,
        *_differences(look, exact, weights.to(converged), steps, reference_samples, progress),
        float((image.detach().double() - converged).abs().max()),
    )


def _steps(step: float | Mapping[str, float], parameters: Mapping[str, Tensor]) -> list[float]:
    """The step of each scalar."""
    if not parameters:
        raise ValueError("parameters must hold at least one tensor; got none")
    for name, value in parameters.items():
        check_tensor(f"parameters[{name!r}]", value)
    by_name = step if isinstance(step, Mapping) else dict.fromkeys(parameters, step)
    missing = [name for name in parameters if name not in by_name]
    if missing or not all(0 < by_name[name] < math.inf for name in parameters):
        raise ValueError(f"step must be a length above 0, or one for each of {list(parameters)}; got {step}")
    return [float(by_name[name]) for name, value in parameters.items() for _ in range(value.numel())]


def _one_view(scene: SceneFunction, parameters: Mapping[str, Tensor]) -> tuple[Mesh, Camera]:
    mesh, camera = scene(dict(parameters))
    check_camera_and_mesh(camera, mesh)
    if not isinstance(mesh, Mesh) or camera.batch_shape:
        got = f"a {type(mesh).__name__} and a batch of {tuple(camera.batch_shape)} cameras"
        raise ValueError(f"scene must return one mesh and one camera; got {got}")
    return mesh, camera


def _differences(
    look: Callable[[Mapping[str, Tensor], int], Tensor],
    exact: Mapping[str, Tensor],
    weights: Tensor,
    steps: list[float],
    grid: int,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """[P] central differences of the weighted images that `look` sees, and how far they may be off."""
    coarser = max(round(0.7 * grid), 2)  # no divisor: its errors are others

    def moved(index: int, by: float) -> dict[str, Tensor]:
        flat = torch.cat([value.reshape(-1) for value in exact.values()])
        flat[index] += by
        parts = flat.split([value.numel() for value in exact.values()])
        return {name: part.reshape(value.shape) for (name, value), part in zip(exact.items(), parts, strict=True)}

    def difference(index: int, by: float, grid: int) -> tuple[Tensor, Tensor]:
        """Central difference, and how much of it the chance of single points to change sides can make."""
        after, before = (look(moved(index, direction), grid) for direction in (by, -by))
        jump = after.amax((0, 1)) - after.amin((0, 1))
        point = (weights.abs() * jump).sum(-1).max() / grid**2  # what one point counts
        changed = (after[..., -1] - before[..., -1]).abs().sum() * grid**2
        return ((after - before) * weights).sum() / (2 * by), point * (1 + changed).sqrt() / (2 * by)

    reference, doubt = [], []
    for index in tqdm(range(len(steps)), desc="differences", disable=not progress):
        fine, chance = difference(index, steps[index] / 2, grid)
        by_step = (difference(index, steps[index], grid)[0] - fine).abs()
        by_grid = (difference(index, steps[index] / 2, coarser)[0] - fine).abs()
        reference.append(fine)
        doubt.append(torch.maximum(by_step + by_grid, chance))
    return torch.stack(reference).cpu(), torch.stack(doubt).cpu()


@torch.no_grad()
def converged_image(
    scene: SceneFunction,
    parameters: Mapping[str, Tensor],
    samples: int,
    *,
    background: Background = 0.0,
    shader: Shader = unlit,
    calm: Tensor | None = None,
) -> Tensor:
    """[H, W, C + 1] the mean of `samples` x `samples` points per pixel, by visibility and the shader alone.

    Computed in parts, so that memory does not grow with the number of samples. Pixels [H, W] that are `calm`, see
    `calm_pixels`, get `CALM_SAMPLES` per axis if that is less.
    """
    mesh, camera = _one_view(scene, parameters)
    if samples < 1:
        raise ValueError(f"samples must be at least 1; got {samples}")
    packed = pack(mesh, camera)
    height, width = camera.size
    pixel = torch.arange(height * width, device=mesh.vertices.device)
    if calm is None or samples <= CALM_SAMPLES:
        return _means(packed, pixel, samples, background, shader).reshape(height, width, -1)
    where = calm.reshape(-1).to(pixel.device)
    few, many = pixel[where], pixel[~where]
    image = torch.cat([_means(packed, few, CALM_SAMPLES, background, shader),
                       _means(packed, many, samples, background, shader)])  # fmt: skip
    return torch.empty_like(image).index_copy_(0, torch.cat([few, many]), image).reshape(height, width, -1)


@torch.no_grad()
def calm_pixels(scene: SceneFunction, parameters: Mapping[str, Tensor], *, shader: Shader = unlit) -> Tensor:
    """[H, W] where a pixel and its neighbours look smooth, so that few samples are enough.

    There, values deviate from a plane over the pixel by less than `CALM` of all that the image varies. It is a matter
    of effort only: a jump that is missed is still sampled, if less finely.
    """
    mesh, camera = _one_view(scene, parameters)
    packed = pack(mesh, camera)
    height, width = camera.size
    points = lattice(CALM_SAMPLES**2).to(packed.vertices) - 0.5
    planes = torch.cat([torch.ones_like(points[:, :1]), points], dim=-1)
    residual = torch.eye(len(points)).to(points) - planes @ torch.linalg.pinv(planes)
    pixel = torch.arange(height * width, device=points.device)
    stray, lowest, highest = [], [], []
    for part in pixel.split(max(BATCH // len(points), 1)):
        values = _samples(packed, part, points + 0.5, 0.0, shader)  # [N, samples, C + 1]
        stray.append((residual @ values).abs().amax(1))
        lowest.append(values.amin((0, 1)))
        highest.append(values.amax((0, 1)))
    span = torch.stack(highest).amax(0) - torch.stack(lowest).amin(0)
    lively = (torch.cat(stray) > CALM * span).any(-1).reshape(1, 1, height, width)
    grown = torch.nn.functional.max_pool2d(lively.to(points.dtype), 3, stride=1, padding=1)
    return grown.reshape(height, width) == 0


def lattice(count: int) -> Tensor:
    """[count, 2] points in the unit square that cover it evenly whichever way an edge runs, float64.

    A Kronecker sequence of the golden ratio. In a grid whole rows of points would cross an axis-parallel edge at once.
    """
    index = torch.arange(count, dtype=torch.float64) + 0.5
    return torch.stack([index / count, (index * (5**0.5 - 1) / 2) % 1], dim=-1)


def _means(scene: Scene, pixel: Tensor, samples: int, background: Background, shader: Shader) -> Tensor:
    """[N, C + 1] box-filtered values of pixels [N]."""
    points = lattice(samples**2).to(scene.vertices)
    means = []
    for part in pixel.split(max(BATCH // len(points), 1)):
        means.append(_samples(scene, part, points, background, shader).mean(1))
    return torch.cat(means)


def _samples(scene: Scene, pixel: Tensor, points: Tensor, background: Background, shader: Shader) -> Tensor:
    """[N, S, C + 1] what is seen at `points` [S, 2] of pixels [N]."""
    width = scene.camera.width
    corner = torch.stack([pixel % width, pixel // width], dim=-1).to(points)
    xy = (corner.unsqueeze(1) + points).reshape(-1, 2)
    view = torch.zeros_like(xy[:, 0], dtype=torch.int64)
    origins, directions = scene.rays_at(view, xy)
    face, _ = first_faces(scene, view, xy, origins, directions)
    hit = (face >= 0).nonzero().squeeze(-1)
    fragments = fragments_along(scene, view[hit], xy[hit], face[hit], origins[hit], directions[hit])
    colors = checked_colors(shader, fragments, scene.mesh)
    values = empty_images(scene, background, colors, samples=1)[pixel].repeat_interleave(len(points), 0)
    values[hit] = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1)
    return values.reshape(len(pixel), len(points), values.shape[-1])


def smooth_weights(height: int, width: int, channels: int) -> Tensor:
    """[H, W, C] waves of a few periods across the image, different in every channel, float64."""
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)[:, None]
    k = torch.arange(channels, dtype=torch.float64)
    return torch.sin(3 * x + 2 * y + k) + 0.5 * torch.cos(7 * (k + 1) * x - 5 * y)
