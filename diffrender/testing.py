"""Are the gradients right? An instrument to measure them, for your own scenes, cameras and shaders too.

The reference is an image that knows nothing of `render`'s antialiasing or boundary term: every pixel is the mean of a
grid of points, each of which asks visibility which face is there and the shader what colour it has. Its derivative is
taken by central differences. Both the grid and the step leave an error; the instrument repeats the measurement with
another grid and another step, reports how far the answers are apart, and refuses to judge by a reference that is not
clearly better than what is being judged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .cameras import Camera
from .mesh import Mesh
from .render import Shader, covered, render
from .scene import pack
from .shading import unlit
from .visibility import face_image, pixel_rays

SceneFunction = Callable[[dict[str, Tensor]], tuple[Mesh, Camera]]
BAND_SAMPLES = 1 << 21  # points looked at together: bounds the memory
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
    background: float | tuple[float, ...] = 0.0,
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
    leaves = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    mesh, camera = scene(leaves)
    image = render(mesh, camera, background=background, shader=shader, samples=samples)
    if weights is None:
        weights = smooth_weights(*image.shape)
    loss = (image * weights.to(image)).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    gradient = torch.cat([g.reshape(-1).double().cpu() for g in found])

    exact = {name: value.detach().double() for name, value in parameters.items()}
    coarser = max(round(0.7 * reference_samples), 2)  # no divisor: its errors are others

    def moved(index: int, by: float) -> dict[str, Tensor]:
        flat = torch.cat([value.reshape(-1) for value in exact.values()])
        flat[index] += by
        parts = flat.split([value.numel() for value in exact.values()])
        return {name: part.reshape(value.shape) for (name, value), part in zip(exact.items(), parts, strict=True)}

    def difference(index: int, by: float, grid: int) -> tuple[Tensor, Tensor]:
        """Central difference, and how much of it the chance of single points to change sides can make."""
        after, before = (
            converged_image(scene, moved(index, direction), grid, background=background, shader=shader)
            for direction in (by, -by)
        )
        weight = weights.to(after)
        point = weight.abs().sum(-1).max() / grid**2  # what one point counts
        changed = (after[..., -1] - before[..., -1]).abs().sum() * grid**2
        return ((after - before) * weight).sum() / (2 * by), point * (1 + changed).sqrt() / (2 * by)

    steps = [step if isinstance(step, float) else step[n] for n, v in exact.items() for _ in range(v.numel())]
    reference, doubt = [], []
    for index in tqdm(range(len(gradient)), desc="differences", disable=not progress):
        fine, chance = difference(index, steps[index] / 2, reference_samples)
        by_step = (difference(index, steps[index], reference_samples)[0] - fine).abs()
        by_grid = (difference(index, steps[index] / 2, coarser)[0] - fine).abs()
        reference.append(fine)
        doubt.append(torch.maximum(by_step + by_grid, chance))
    converged = converged_image(scene, exact, reference_samples, background=background, shader=shader)
    names = tuple(
        f"{name}{list(place)}" if place else name for name, value in exact.items() for place in np.ndindex(*value.shape)
    )
    return GradientReport(
        names,
        gradient,
        torch.stack(reference).cpu(),
        torch.stack(doubt).cpu(),
        float((image.detach().double() - converged).abs().max()),
    )


@torch.no_grad()
def converged_image(
    scene: SceneFunction,
    parameters: dict[str, Tensor],
    samples: int,
    *,
    background: float | tuple[float, ...] = 0.0,
    shader: Shader = unlit,
) -> Tensor:
    """[H, W, C + 1] the mean of `samples` x `samples` points per pixel, by visibility and the shader alone.

    Computed in bands of rows, so that memory does not grow with the number of samples.
    """
    mesh, camera = scene(parameters)
    if camera.batch_shape:
        raise ValueError(f"scene must return one camera; got a batch of {tuple(camera.batch_shape)}")
    height, width = camera.size
    rows = max(BAND_SAMPLES // (width * samples * samples), 1)
    bands = []
    for top in range(0, height, rows):
        count = min(rows, height - top)
        fine = camera.crop(top, 0, count, width).resize((count * samples, width * samples))
        packed = pack(mesh, fine)
        rays = pixel_rays(packed.camera)
        pixel, fragments = covered(packed, rays, face_image(packed, rays))
        colors = shader(fragments, packed.mesh)
        image = colors.new_zeros(count * samples * width * samples, colors.shape[1] + 1)
        image[:, :-1] = torch.as_tensor(background, dtype=image.dtype, device=image.device)
        image[pixel] = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1)
        bands.append(image.reshape(count, samples, width, samples, -1).mean((1, 3)))
    return torch.cat(bands)


def smooth_weights(height: int, width: int, channels: int) -> Tensor:
    """[H, W, C] waves of a few periods across the image, different in every channel, float64."""
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)[:, None]
    k = torch.arange(channels, dtype=torch.float64)
    return torch.sin(3 * x + 2 * y + k) + 0.5 * torch.cos(7 * (k + 1) * x - 5 * y)
