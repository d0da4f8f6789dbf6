"""How long the edges of the next stage shall be: short where the images still pull at the mesh.

At the end of a stage the derivatives of all views sum to about nothing at each vertex, but not those of a single view:
where the mesh is too coarse for what is there, each view pulls it another way. Edges become shorter where views pull
hard for the area, longer elsewhere, and there are about as many triangles as with even ones.
"""

import torch
from torch import Tensor

from ..mesh import Mesh

SPREAD = 3  # times that pull and area are averaged over neighbours: what one vertex says is noise
POWER = 0.5  # edges of half the length where views pull four times as hard
LIMIT = 2.0  # edges are at most so many times longer or shorter than even ones


@torch.no_grad()
def edge_lengths(mesh: Mesh, pull: Tensor, length: float) -> Tensor:
    """[V] length of the edges at each vertex, for as many triangles as edges of one `length` would make.

    Args:
        mesh: V vertices.
        pull: [V] how hard the images pull at each vertex, in any unit.
        length: of even edges.

    >>> import diffrender as dr
    >>> ball = dr.sphere(3)
    >>> found = edge_lengths(ball, (ball.vertices[:, 0] > 0).float() + 1, 0.1)
    >>> bool(found[ball.vertices[:, 0] > 0.5].max() < 0.1 < found[ball.vertices[:, 0] < -0.5].min())
    True
    """
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 2
    around = torch.zeros_like(pull).index_add_(0, mesh.faces.reshape(-1), area.repeat_interleave(3))
    pull, around = spread(torch.stack([pull, around], dim=-1), mesh).unbind(-1)
    density = pull / around.clamp(min=torch.finfo(around.dtype).tiny)
    typical = density.median()
    if not bool(typical > 0):  # nothing pulls at most of the mesh: nothing to be driven by
        return torch.full_like(density, length)
    relative = (density / typical).pow(-POWER).clamp(1 / LIMIT, LIMIT)
    # as many triangles: a triangle takes an area of the squared length of its edges, times a constant
    finer = (area / relative[mesh.faces].mean(-1).square()).sum() / area.sum()
    return length * finer.sqrt() * relative


def spread(values: Tensor, mesh: Mesh) -> Tensor:
    """[V, C] means over each vertex and its neighbours, a few times over."""
    low, high = mesh.topology.edges.unbind(-1)
    count = 1 + torch.bincount(mesh.topology.edges.reshape(-1), minlength=mesh.num_vertices)[:, None]
    for _ in range(SPREAD):
        total = values.clone().index_add_(0, low, values[high]).index_add_(0, high, values[low])
        values = total / count
    return values
