"""Voxels of a mesh: which points of a regular grid are inside, by winding numbers, and how deep.

A column of the grid is a line that enters and leaves the surface. The winding number of a point on it is the number of
faces above that are left upwards, less those that are entered. It counts how often a point is inside: 2 where a surface
overlaps itself, -1 where it is inside out.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .checks import check_tensor
from .distances import surface_distance
from .mesh import Mesh

_FINE = 1 << 14  # parts of a step that positions are rounded to: products of two are then exact in float64
_LARGEST = 1 << 10  # points along a side of the grid, for the same reason
_SAMPLES = 4  # for each face, to find the one that is nearest to a point


@torch.no_grad()
def winding_numbers(mesh: Mesh, origin: Tensor, step: float, counts: tuple[int, int, int]) -> Tensor:
    """[X, Y, Z] int64: how often the surface of a closed mesh surrounds each of `counts` grid points.

    Args:
        mesh: closed, faces counter-clockwise from outside; others have numbers that depend on the axes.
        origin: [3] position of the first point.
        step: distance of the points.
        counts: of points along x, y and z, at most 1024.

    >>> import diffrender as dr
    >>> winding_numbers(dr.sphere(2), torch.tensor([-2.0, 0.0, 0.0]), 1.0, (5, 1, 1)).flatten().tolist()
    [0, 0, 1, 0, 0]
    """
    check_tensor("origin", origin, ndim=1, last=3)
    if not step > 0:
        raise ValueError(f"step must be positive; got {step}")
    if len(counts) != 3 or not all(1 <= count <= _LARGEST for count in counts):
        raise ValueError(f"counts must be three numbers of points from 1 to {_LARGEST}; got {tuple(counts)}")
    place = ((mesh.vertices.double() - origin.double()) / step * _FINE).round() / _FINE  # in steps
    column, height, sign = _crossings(place, mesh.topology.weld[mesh.faces], counts)
    last = (height.ceil().long() - 1).clamp(min=-1, max=counts[2] - 1)  # the last point below the face, -1 if none is
    crossed = torch.zeros(counts[0] * counts[1] * (counts[2] + 1), dtype=torch.int64, device=place.device)
    crossed.index_add_(0, column * (counts[2] + 1) + last + 1, sign)
    above = crossed.reshape(counts[0], counts[1], counts[2] + 1).flip(-1).cumsum(-1).flip(-1)
    return above[..., 1:]


@torch.no_grad()
def signed_depth(mesh: Mesh, origin: Tensor, step: float, counts: tuple[int, int, int]) -> Tensor:
    """[X, Y, Z] how deep grid points are inside of a closed mesh, negative outside; arguments as `winding_numbers`.

    Exact beside the surface, and to a step away from it. A point is inside where the winding number is positive: parts
    that overlap are one, the surface between them does not count.

    >>> import diffrender as dr
    >>> depth = signed_depth(dr.sphere(4), torch.tensor([-1.2, 0.0, 0.0]), 0.3, (9, 1, 1))
    >>> [round(x, 2) for x in depth.flatten().tolist()]
    [-0.2, 0.1, 0.45, 0.75, 1.05, 0.75, 0.45, 0.1, -0.2]
    """
    inside = winding_numbers(mesh, origin, step, counts) > 0
    solid = inside.cpu().numpy()
    # to the nearest point of the other kind; the surface is about half way
    steps = np.where(solid, 1, -1) * (
        ndimage.distance_transform_edt(solid) + ndimage.distance_transform_edt(~solid) - 0.5
    )
    depth = torch.from_numpy(steps).to(mesh.vertices) * step
    beside = (depth.abs() < step).nonzero()
    distance = surface_distance(origin.to(mesh.vertices) + step * beside, mesh, samples=_SAMPLES * mesh.num_faces)
    depth[tuple(beside.unbind(-1))] = torch.where(inside[tuple(beside.unbind(-1))], distance, -distance)
    return depth


def _crossings(place: Tensor, faces: Tensor, counts: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Column, height and sign of all crossings of columns and faces, [N] each: +1 where the face looks up.

    Args:
        place: [V, 3] in steps, as multiples of 1 / _FINE.
    """
    face, x, y = _columns(place[faces][..., :2], counts)
    area, left = [], []  # twice the area between column and side, and on which side of it the column is
    for k in range(3):
        a, b = place[faces[face, (k + 1) % 3]], place[faces[face, (k + 2) % 3]]
        along = b[:, :2] - a[:, :2]
        area.append(along[:, 0] * (y - a[:, 1]) - along[:, 1] * (x - a[:, 0]))
        # on the side itself: as if all columns were moved by (e, e^2), e > 0 being as small as one likes
        moved = torch.where(along[:, 1] != 0, -along[:, 1], along[:, 0])
        left.append(torch.where(area[-1] != 0, area[-1], moved) > 0)
    up, down = left[0] & left[1] & left[2], ~(left[0] | left[1] | left[2])
    whole = area[0] + area[1] + area[2]
    met = (up | down) & (whole != 0)
    weights = torch.stack(area, dim=-1)[met] / whole[met, None]
    height = (weights * place[faces[face[met]], 2]).sum(-1)
    return (x * counts[1] + y)[met].long(), height, up[met].long() - down[met].long()


def _columns(corners: Tensor, counts: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Face, x and y, [N] each, of all columns of grid points in the boxes of triangles `corners` [F, 3, 2]."""
    last = corners.new_tensor(counts[:2]) - 1
    low = torch.minimum(corners.amin(1).ceil().clamp(min=0), last + 1)
    size = (torch.minimum(corners.amax(1).floor(), last) - low + 1).clamp(min=0).long()
    number = size.prod(-1)
    face = torch.repeat_interleave(number)
    index = torch.arange(len(face), device=face.device) - (number.cumsum(0) - number)[face]
    return face, low[face, 0] + index // size[face, 1], low[face, 1] + index % size[face, 1]
