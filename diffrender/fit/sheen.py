"""Colours that depend on where they are seen from: satin, gold thread, varnish.

A colour has 3 K channels then: linear red, green and blue, and the logarithms of how much brighter or darker they are
for each of K - 1 functions of the direction to the eye, real spherical harmonics without the constant one and without
their norms. A gain is always positive, and the same step changes dark and bright colours by the same share.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Camera
from ..fragments import Fragments, interpolate
from ..mesh import Mesh
from ..shading import surface_color

CHANNELS = (3, 12, 27)  # of harmonics up to degree 0, 1 and 2


@dataclass(frozen=True, eq=False)
class Sheen:
    """The shader for such colours.

    Attributes:
        eyes: [B, 3] where each camera of the batch is, world frame.
    """

    eyes: Tensor

    @staticmethod
    def of(cameras: Camera) -> "Sheen":
        return Sheen(cameras.center.detach())

    def __call__(self, fragments: Fragments, mesh: Mesh) -> Tensor:
        """Linear colours [N, 3]."""
        colors = surface_color(fragments, mesh)
        if colors.shape[-1] == 3:
            return colors
        with torch.no_grad():  # they change slowly with the direction: how they do as the surface moves is nothing
            points = interpolate(mesh.vertices, mesh.faces, fragments)
            functions = harmonics(self.eyes.index_select(0, fragments.view) - points, colors.shape[-1] // 3)
        return colors[:, :3] * gains(colors, functions)


def gains(colors: Tensor, functions: Tensor) -> Tensor:
    """[N, 3] how much brighter `colors` [N, 3 K] are where the functions have the values [N, K - 1]."""
    return (colors[:, 3:].unflatten(-1, (-1, 3)) * functions.unsqueeze(-1)).sum(1).exp()


def harmonics(directions: Tensor, count: int) -> Tensor:
    """[N, count - 1] functions of `directions` [N, 3] of any length; `count` is 1, 4 or 9."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    found = [x, y, z, x * y, y * z, x * z, x * x - y * y, z * z - 1 / 3]
    return torch.stack(found[: count - 1], dim=-1)


def mean_harmonics(mesh: Mesh, eyes: Tensor, count: int) -> Tensor:
    """[V, count - 1] means of the functions over the `eyes` [B, 3] that each vertex faces; 0 where there are none."""
    normals, total = mesh.normals(), mesh.vertices.new_zeros(mesh.num_vertices, count - 1)
    number = torch.zeros_like(normals[:, :1])
    for eye in eyes:  # one by one: all at once would be the largest tensor of a fit
        facing = ((eye - mesh.vertices) * normals).sum(-1, keepdim=True) > 0
        total += facing * harmonics(eye - mesh.vertices, count)
        number += facing
    return total / number.clamp(min=1)
