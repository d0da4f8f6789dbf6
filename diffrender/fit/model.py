"""What is fitted: a mesh with a colour at each vertex, and how the cameras took pictures of it.

Some things stand between a mesh and its photographs, and are fitted along. Shared by all views, and always:

- The principal point of the cameras may be off by a pixel or so; on request, focal lengths and distortion as well.
- Masks may reach beyond the object: thresholds are low, edges blurred, dilations generous. Then the photograph is dark
  in a rim inside of the silhouette. The rim is a function of how far inside a pixel lies, told by the coverage around
  it: of a straight edge, the blurred coverage at distance x is a function of x alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..cameras import Camera, so3_exp
from ..cameras.lens_camera import LensCamera
from ..mesh import Mesh
from ..render import render
from .sheen import Sheen, first_lights

RIM_WIDTH = 0.005  # of the longest side of the image: standard deviation of the blur that sees the rim
RIM_START = 0.4  # blurred coverage where the rim begins: a straight edge has 0.5, the tip of something thin less
RIM_KNOTS = 8


@dataclass(frozen=True, eq=False)
class Optics:
    """How pictures were taken.

    Attributes:
        rim: [RIM_KNOTS - 1] factor of the colour at blurred coverages from RIM_START on, in even steps. At 1 it is 1:
            otherwise colours could be brighter and all of the rim darker.
        center: [2] shift of the principal point in x and y, relative to the longest side of the image.
        focal: [2] logarithms of the factors of the focal lengths in x and y.
        distortion: [2] what is added to the first two radial coefficients of lenses that have them.
        gains: [N, 3] logarithms of the factors of linear red, green and blue in each fitted view. Only differences from
            their mean count: otherwise all views could be brighter and the object darker.
        turns: [N, 3] rotation vectors in the frame of each camera, on top of its pose.
        shifts: [N, 3] how far the world is moved in that frame then, relative to the distance of its origin.
        lights: [HARMONICS, K, 3] what colours that depend on the direction of view may mirror: see `sheen`.
    """

    rim: Tensor
    center: Tensor
    focal: Tensor
    distortion: Tensor
    gains: Tensor
    turns: Tensor
    shifts: Tensor
    lights: Tensor

    @staticmethod
    def ideal(num_views: int = 0, num_lights: int = 0, device: torch.device | str = "cpu") -> "Optics":
        """No rim, and cameras as they say."""
        rim = torch.ones(RIM_KNOTS - 1, device=device)
        shared, each = rim.new_zeros(2), rim.new_zeros(num_views, 3)
        lights = first_lights(num_lights).to(device)
        return Optics(rim, shared, shared.clone(), shared.clone(), each, each.clone(), each.clone(), lights)

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> "Optics":
        return Optics(**{name: value.to(device) for name, value in self.tensors().items()})

    def shifted(self, camera: Camera) -> Camera:
        """`camera` with its intrinsics changed, those of them that it has."""
        changes: dict[str, Tensor] = {}
        if hasattr(camera, "cx") and hasattr(camera, "cy"):
            x, y = (self.center * max(camera.size)).unbind()
            changes |= {"cx": camera.cx + x, "cy": camera.cy + y}
        if hasattr(camera, "fx") and hasattr(camera, "fy"):
            x, y = self.focal.exp().unbind()
            changes |= {"fx": camera.fx * x, "fy": camera.fy * y}
        for name in ("dist", "k"):  # of all lenses that have either, it begins with k1 and k2
            if isinstance(camera, LensCamera) and hasattr(camera, name):
                held = getattr(camera, name)
                changes[name] = held + torch.nn.functional.pad(self.distortion, (0, held.shape[-1] - 2))
        return camera.replace(**changes) if changes else camera

    def moved(self, cameras: Camera, views: Tensor) -> Camera:
        """The batch of `cameras` [B] with other poses, those of the fitted `views` [B]."""
        turn = so3_exp(self.turns.index_select(0, views)).to(cameras.R)
        distance = cameras.t.norm(dim=-1, keepdim=True)
        t = (turn @ cameras.t[..., None])[..., 0] + distance * self.shifts.index_select(0, views).to(cameras.t)
        return cameras.replace(R=turn @ cameras.R, t=t)

    def expose(self, pictures: Tensor, views: Tensor) -> Tensor:
        """[B, H, W, 4] `pictures` as bright as the fitted `views` [B] took them."""
        gains = (self.gains - self.gains.mean(0)).index_select(0, views).exp()
        color, alpha = pictures.split([3, 1], dim=-1)
        return torch.cat([color * gains[:, None, None], alpha], dim=-1)

    def darken(self, picture: Tensor) -> Tensor:
        """[B, H, W, 4] pictures (colour before black, alpha last) with the rim in their colours."""
        color, alpha = picture.split([3, 1], dim=-1)
        around = _blur(alpha[..., 0], RIM_WIDTH * max(alpha.shape[1:3]))
        place = ((around - RIM_START) / (1 - RIM_START)).clamp(0, 1).reshape(-1) * (RIM_KNOTS - 1)
        knot = place.detach().floor().clamp(max=RIM_KNOTS - 2).long()
        rim = torch.cat([self.rim, torch.ones_like(self.rim[:1])])
        low, high = rim.index_select(0, knot), rim.index_select(0, knot + 1)
        factor = torch.lerp(low, high, place - knot).reshape(alpha.shape)
        return torch.cat([color * factor, alpha], dim=-1)


def take_pictures(
    mesh: Mesh, optics: Optics, cameras: Camera, views: Sequence[int] | None = None, *, samples: int = 1
) -> Tensor:
    """[B, H, W, 4] what the batch of `cameras` [B] sees of `mesh` before black: linear colour, alpha last.

    `views` [B] says which of the fitted views they are, with exposures and poses of their own; None: none of them.
    `samples` x `samples` places in each pixel have their colour looked up: where texels are finer than pixels, one
    shows what happens to be there instead of the mean.
    """
    cameras = optics.shifted(cameras)
    # The surface of one object: where it passes through itself, the regularizers pull it apart.
    index = None if views is None else torch.tensor(views, device=optics.gains.device)
    cameras = cameras if index is None else optics.moved(cameras, index)
    shader = Sheen.of(cameras, optics.lights)
    seen = optics.darken(render(mesh, cameras, intersecting=False, shader=shader, samples=samples))
    return seen if index is None else optics.expose(seen, index)


def _blur(coverage: Tensor, sigma: float) -> Tensor:
    """[B, H, W] convolved with a Gaussian of standard deviation `sigma` pixels; borders are continued."""
    radius = max(1, math.ceil(3 * sigma))
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    blurred = torch.nn.functional.pad(coverage[:, None], [radius] * 4, mode="replicate")[:, 0]
    for dim in (1, 2):  # shifted images, summed: torch's convolutions with one channel take twice as long
        count = coverage.shape[dim]
        shifted = [blurred.narrow(dim, k, count) for k in range(len(weights))]
        blurred = shifted[0] * (weights[0] / sum(weights))
        for image, weight in zip(shifted[1:], weights[1:], strict=True):
            blurred = blurred.add(image, alpha=weight / sum(weights))
    return blurred
