"""What is fitted: a mesh with a colour at each vertex, and how the cameras took pictures of it.

Two things stand between a mesh and its photographs, both shared by all views and both fitted along:

- The principal point of the cameras may be off by a pixel or so.
- Masks may reach beyond the object: thresholds are low, edges blurred, dilations generous. Then the photograph is dark
  in a rim inside of the silhouette. The rim is a function of how far inside a pixel lies, told by the coverage around
  it: of a straight edge, the blurred coverage at distance x is a function of x alone.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..cameras import Camera
from ..mesh import Mesh
from ..render import render

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
    """

    rim: Tensor
    center: Tensor

    @staticmethod
    def ideal() -> "Optics":
        """No rim, and cameras as they say."""
        return Optics(torch.ones(RIM_KNOTS - 1), torch.zeros(2))

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def shifted(self, camera: Camera) -> Camera:
        """`camera` with its principal point moved; cameras without one stay as they are."""
        if not hasattr(camera, "cx") or not hasattr(camera, "cy"):
            return camera
        x, y = (self.center * max(camera.size)).unbind()
        return camera.replace(cx=camera.cx + x, cy=camera.cy + y)

    def darken(self, picture: Tensor) -> Tensor:
        """[B, H, W, 4] pictures (colour before black, alpha last) with the rim in their colours."""
        alpha = picture[..., 3]
        around = _blur(alpha, RIM_WIDTH * max(alpha.shape[-2:]))
        place = ((around - RIM_START) / (1 - RIM_START)).clamp(0, 1).reshape(-1) * (RIM_KNOTS - 1)
        knot = place.detach().floor().clamp(max=RIM_KNOTS - 2).long()
        rim = torch.cat([self.rim, torch.ones_like(self.rim[:1])])
        low, high = rim.index_select(0, knot), rim.index_select(0, knot + 1)
        factor = torch.lerp(low, high, place - knot).reshape(alpha.shape)
        return torch.cat([picture[..., :3] * factor.unsqueeze(-1), picture[..., 3:]], dim=-1)


def take_pictures(mesh: Mesh, optics: Optics, cameras: Camera) -> Tensor:
    """[B, H, W, 4] what the batch of `cameras` [B] sees of `mesh` before black: linear colour, alpha last."""
    # The surface of one object: where it passes through itself, the regularizers pull it apart.
    return optics.darken(render(mesh, optics.shifted(cameras), intersecting=False))


def _blur(coverage: Tensor, sigma: float) -> Tensor:
    """[B, H, W] convolved with a Gaussian of standard deviation `sigma` pixels; borders are continued."""
    radius = max(1, math.ceil(3 * sigma))
    x = torch.arange(-radius, radius + 1).to(coverage) / sigma
    weights = torch.exp(-0.5 * x.square())
    weights = weights / weights.sum()
    padded = torch.nn.functional.pad(coverage[:, None], [radius] * 4, mode="replicate")
    rows = torch.nn.functional.conv2d(padded, weights[None, None, None, :])
    return torch.nn.functional.conv2d(rows, weights[None, None, :, None])[:, 0]
