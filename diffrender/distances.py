"""How far one surface is from another: the figure that a fitted shape is judged by where the true one is known.

Figures of merit, not losses: nothing here is differentiable. Points are spread over the surfaces, not taken at their
vertices, so that the figures depend on the shapes and not on how they are cut into triangles.
"""

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .checks import check_tensor
from .mesh import Mesh

_CANDIDATES = 8  # triangles that a point tries: those of the samples nearest to it


@torch.no_grad()
def sample_surface(mesh: Mesh, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`count` points spread evenly over the area of `mesh`.

    Returns:
        Points [count, 3], and the face [count] that each lies on.

    Stratified along the faces in their order, then uniform in the triangle (Turk 1990, "Generating random points in
    triangles"). The same seed gives the same points.

    >>> from diffrender.primitives import grid
    >>> points, face_index = sample_surface(grid(2, 2), 100)
    >>> points.shape, bool((points.abs() <= 1).all()), face_index.unique().tolist()
    (torch.Size([100, 3]), True, [0, 1, 2, 3, 4, 5, 6, 7])
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    corners = mesh.vertices[mesh.faces].double().cpu()  # [F, 3, 3]
    reach = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1).cumsum(0)
    if len(reach) == 0 or not bool(reach[-1] > 0):
        raise ValueError(f"mesh must have some area to put points on; got {mesh.num_faces} faces without any")
    random = torch.Generator().manual_seed(seed)
    offset, a, b = torch.rand(3, count, generator=random, dtype=torch.float64)
    place = (torch.arange(count, dtype=torch.float64) + offset) / count * reach[-1]
    face = torch.searchsorted(reach, place, right=True).clamp(max=len(reach) - 1)
    root = a.sqrt()
    weights = torch.stack([1 - root, root * (1 - b), root * b], dim=-1)
    points = (weights[..., None] * corners[face]).sum(1)
    return points.to(mesh.vertices), face.to(mesh.faces)


@torch.no_grad()
def surface_distance(points: Tensor, mesh: Mesh, *, samples: int = 30_000) -> Tensor:
    """[N] distance of `points` [N, 3] from the nearest triangle of `mesh`.

    The nearest one is searched for among those under the eight nearest of `samples` points on the mesh: more of them
    where triangles are many, or where thin parts lie closer together than the samples do.

    >>> from diffrender.primitives import grid
    >>> surface_distance(torch.tensor([[0.3, 0.1, 0.5], [1.0, 4.0, 4.0]]), grid()).round(decimals=3)
    tensor([0.5000, 5.0000])
    """
    check_tensor("points", points, ndim=2, last=3)
    on_mesh, face = sample_surface(mesh, samples)
    _, nearest = cKDTree(on_mesh.cpu().numpy()).query(points.detach().cpu().numpy(), k=min(_CANDIDATES, samples))
    tried = face[
        torch.as_tensor(nearest, device=face.device).reshape(len(points), min(_CANDIDATES, samples))
    ]  # [N, candidates]
    corners = mesh.vertices.double()[mesh.faces[tried]]  # [N, candidates, 3, 3]
    distance = _triangle_distance(points.detach().to(corners)[:, None], corners)
    return distance.amin(-1).to(mesh.vertices)


def chamfer_distance(mesh: Mesh, other: Mesh, *, samples: int = 30_000) -> float:
    """Mean distance of the points of each surface from the other one, in the meshes' unit: the mean of both ways.

    Zero for equal shapes, however they are cut into triangles. Also known as the mean surface distance; papers that
    say Chamfer distance may mean sums or squares.

    >>> from diffrender.primitives import sphere
    >>> ball = sphere(5)
    >>> round(chamfer_distance(ball, ball.replace(vertices=1.1 * ball.vertices)), 3)
    0.1
    """
    ways = ((mesh, other), (other, mesh))
    return sum(float(surface_distance(sample_surface(a, samples)[0], b, samples=samples).mean()) / 2 for a, b in ways)


def _triangle_distance(points: Tensor, corners: Tensor) -> Tensor:
    """[...] distance of points [..., 3] from triangles [..., 3, 3], which may be degenerate."""
    sides = corners.roll(-1, -2) - corners  # [..., 3, 3]
    offset = points[..., None, :] - corners
    tiny = torch.finfo(corners.dtype).tiny  # a side of length zero is its own nearest point
    along = ((offset * sides).sum(-1) / sides.square().sum(-1).clamp(min=tiny)).clamp(0, 1)
    to_sides = (offset - along[..., None] * sides).norm(dim=-1).amin(-1)
    normal = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :])
    length = normal.norm(dim=-1)
    # above the triangle where the point is inside of all three sides
    inside = (torch.linalg.cross(normal[..., None, :].expand_as(sides), sides) * offset).sum(-1) >= 0
    height = (offset[..., 0, :] * normal).sum(-1).abs() / length.clamp(min=tiny)
    return torch.where(inside.all(-1) & (length > 0), height, to_sides)
