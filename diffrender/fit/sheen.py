"""Colours that depend on where they are seen from: satin, gold thread, varnish.

Each of K lights is a function of the mirrored direction to the eye, the same for the whole object: the logarithms of
how much brighter or darker red, green and blue are there. A colour has 3 + K channels: linear red, green and blue, and
how much of each light it takes on. So functions may be fine, and places that look alike tell each other what no view
shows of them; a gain is always positive, and the same step changes dark and bright colours by the same share.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import steady
from ..cameras import Camera
from ..fragments import Fragments, interpolate
from ..mesh import Mesh
from ..shading import shading_normals, surface_color

HARMONICS = 24  # of degrees 1 to 4: the constant one belongs to the colour itself
STRENGTH = 9.0  # logarithm of the gain where a light of 1 is taken on in full
START = 0.1  # of each light, which begins as one of the harmonics, before any colour takes it on


def first_lights(count: int) -> Tensor:
    """[HARMONICS, count, 3] the lights that a fit begins with: different from each other, or they would stay alike."""
    return START * torch.eye(HARMONICS, count).unsqueeze(-1).repeat(1, 1, 3)


@dataclass(frozen=True, eq=False)
class Sheen:
    """The shader for such colours.

    Attributes:
        eyes: [B, 3] where each camera of the batch is, world frame.
        lights: [HARMONICS, K, 3] the weights of `harmonics` in each of the K lights.
    """

    eyes: Tensor
    lights: Tensor

    @staticmethod
    def of(cameras: Camera, lights: Tensor) -> "Sheen":
        return Sheen(cameras.center.detach(), lights)

    def __call__(self, fragments: Fragments, mesh: Mesh) -> Tensor:
        """Linear colours [N, 3]."""
        colors = surface_color(fragments, mesh)
        if colors.shape[-1] == 3:
            return colors
        with torch.no_grad():  # they change slowly with the direction: how they do as the surface moves is nothing
            points = interpolate(mesh.vertices, mesh.faces, fragments)
            normals = shading_normals(fragments, mesh)
            functions = harmonics(mirrored(self.eyes.index_select(0, fragments.view) - points, normals))
        matte, shares = colors.split([3, colors.shape[-1] - 3], dim=-1)
        return matte * gains(shares, steady.product(functions, self.lights.flatten(1)))


def gains(shares: Tensor, lights: Tensor) -> Tensor:
    """[N, 3] how much brighter colours with these `shares` [N, K] of each of the `lights` [N, K * 3] are under them."""
    return (STRENGTH * torch.bmm(shares[:, None], lights.unflatten(-1, (-1, 3)))[:, 0]).exp()


def mirrored(directions: Tensor, normals: Tensor) -> Tensor:
    """[N, 3] where light comes from that a mirror with unit `normals` [N, 3] sends into `directions` [N, 3]."""
    return 2 * (directions * normals).sum(-1, keepdim=True) * normals - directions


def harmonics(directions: Tensor) -> Tensor:
    """[N, HARMONICS] real spherical harmonics of `directions` [N, 3] of any length, scaled as x, y and z are."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    found = [x, y, z]
    found += [f * 5**0.5 for f in (x * y, y * z, x * z, (xx - yy) / 2, (3 * zz - 1) / 12**0.5)]
    found += [f * (7 / 3) ** 0.5 for f in (z * (5 * zz - 3) / 2, z * (xx - yy) * 15**0.5 / 2, x * y * z * 15**0.5)]
    found += [f * (7 / 8) ** 0.5 for f in (x * (5 * zz - 1), y * (5 * zz - 1))]
    found += [f * (35 / 24) ** 0.5 for f in (x * (xx - 3 * yy), y * (3 * xx - yy))]
    found += [f * 3**0.5 / 8 for f in (35 * zz * zz - 30 * zz + 3,)]
    found += [f * (15 / 8) ** 0.5 for f in (x * z * (7 * zz - 3), y * z * (7 * zz - 3))]
    found += [f * 15**0.5 / 4 for f in ((xx - yy) * (7 * zz - 1), 2 * x * y * (7 * zz - 1))]
    found += [f * (105 / 8) ** 0.5 for f in (x * z * (xx - 3 * yy), y * z * (3 * xx - yy))]
    found += [f * 105**0.5 / 8 for f in (xx * xx - 6 * xx * yy + yy * yy, 4 * x * y * (xx - yy))]
    return torch.stack(found, dim=-1)


def mean_lights(mesh: Mesh, eyes: Tensor, lights: Tensor) -> Tensor:
    """[V, K * 3] means of the `lights` over the `eyes` [B, 3] that each vertex faces; 0 where there are none."""
    normals, total = mesh.normals(), mesh.vertices.new_zeros(mesh.num_vertices, HARMONICS)
    number = torch.zeros_like(normals[:, :1])
    for eye in eyes:  # one by one: all at once would be the largest tensor of a fit
        facing = ((eye - mesh.vertices) * normals).sum(-1, keepdim=True) > 0
        total += facing * harmonics(mirrored(eye - mesh.vertices, normals))
        number += facing
    return steady.product(total / number.clamp(min=1), lights.flatten(1))
