"""What no view sees is spanned like a soap film between what is seen.

There the hull ends where the cones of the masks happen to end, in wedges and horns, and no image says otherwise. Of all
surfaces with the same border, the one of least area is as good a guess as any, and nothing hangs out of it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from .. import steady
from ..cameras import Camera
from ..mesh import Mesh
from ..visibility import visibility
from .refine import spread


@torch.no_grad()
def unseen_vertices(mesh: Mesh, cameras: Iterable[Camera]) -> Tensor:
    """[V] bool, whether none of the `cameras` sees the surface around each vertex, at the centre of any pixel.

    Most of what is around decides: a face that one view happens to see, edge-on, would be the tip of a thorn.

    >>> from diffrender.cameras import PinholeCamera
    >>> from diffrender.primitives import sphere
    >>> ball, camera = sphere(3), PinholeCamera(40, 40, 32, 32, size=(64, 64), t=(0, 0, 4))
    >>> behind = ball.vertices[unseen_vertices(ball, [camera])]
    >>> len(behind) > 300, bool((behind[:, 2] > -0.5).all())  # it looks along +z, at the other side
    (True, True)
    """
    unseen = mesh.vertices.new_ones(mesh.num_vertices, 1)
    for camera in cameras:
        face = visibility(mesh, camera).unique()
        unseen[mesh.faces[face[face >= 0]]] = 0
    return spread(unseen, mesh)[:, 0] > 0.5


def film_area(mesh: Mesh, unseen: Tensor, size: float) -> Tensor:
    """The area of the faces with a vertex that is `unseen` [V], in squares of side `size`; the others do not move.

    The film hangs on what is seen, and must not pull at it.
    """
    vertices = torch.where(unseen[:, None], mesh.vertices, mesh.vertices.detach())
    film = unseen[mesh.faces].any(-1).nonzero().squeeze(-1)
    corners = vertices.index_select(0, mesh.faces.index_select(0, film).reshape(-1)).reshape(-1, 3, 3)
    a, b, c = corners.unbind(1)
    return steady.total(torch.linalg.cross(b - a, c - a).norm(dim=-1)) / (2 * size**2)
