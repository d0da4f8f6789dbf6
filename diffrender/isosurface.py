"""Isosurfaces: the surface where values on a regular grid change sign, as a closed mesh of well-shaped triangles.

Surface nets (Gibson 1998, "Constrained elastic surface nets"): one vertex in each cell that the surface passes, at the
mean of the places where it crosses the cell's sides, and one quadrilateral around each grid edge it crosses. That is
the dual of marching cubes: few slivers, and no table of cases. The grid is first made well-composed (Latecki 1997),
which is when this mesh is a manifold.
"""

import torch
from torch import Tensor

from .checks import check_finite, check_tensor
from .mesh import Mesh

_CORNERS = [(i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(8)]
_CELL_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)]  # corners one step apart


def surface_nets(values: Tensor, *, origin: Tensor | None = None, step: float = 1.0) -> Mesh:
    """The closed surface around the grid points where `values` are positive, its faces counter-clockwise from outside.

    Args:
        values: [X, Y, Z] positive inside. Outside of the grid everything is outside.
        origin: [3] position of `values[0, 0, 0]`; default: zeros.
        step: distance of the grid points.

    Every edge of the mesh has exactly two faces. To get there, grid points are moved inside where inside points meet
    only at a corner or along an edge of their cells; thin gaps of one grid step may close.

    >>> axis = torch.linspace(-2, 2, 9)
    >>> x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    >>> ball = surface_nets(1 - (x**2 + y**2 + z**2).sqrt(), origin=torch.full((3,), -2.0), step=0.5)
    >>> ball.num_vertices, ball.num_faces, bool(((ball.vertices.norm(dim=-1) - 1).abs() < 0.1).all())
    (56, 108, True)
    """
    check_tensor("values", values, ndim=3, hint="[X, Y, Z] on a grid")
    check_finite("values", values)
    origin = values.new_zeros(3) if origin is None else origin.to(values)
    values = torch.nn.functional.pad(values.detach(), [1] * 6, value=-1.0)
    inside = well_composed(values > 0)
    values = torch.where(inside, values.abs(), -values.abs())

    corners = [_corner(inside, corner) for corner in _CORNERS]
    some, every = corners[0], corners[0]
    for corner in corners[1:]:
        some, every = some | corner, every & corner
    mixed = some & ~every
    number = torch.cumsum(mixed.reshape(-1), 0).reshape(mixed.shape) - 1  # of the vertex in each mixed cell
    cells = mixed.nonzero()
    vertices = origin + step * (cells.to(values) + _mean_crossing(values, inside, cells) - 1)  # -1: the padding

    quads = torch.cat([_quads(inside, number, axis) for axis in range(3)])
    return Mesh(vertices, _split(vertices, quads))


def well_composed(inside: Tensor) -> Tensor:
    """`inside` [X, Y, Z] with points added until none touch only at a corner or along an edge.

    Latecki 1997, "3D well-composed pictures": the boundary is a manifold exactly when nowhere two points on the
    diagonal of a face are in and the other two out, nor two on the diagonal of a cell alone in, or alone out.

    >>> well_composed(torch.tensor([[[True, False], [False, True]]])).tolist()
    [[[True, True], [True, True]]]
    """
    padded = torch.nn.functional.pad(inside, [1] * 6)  # outside; never filled, being outside next to each other
    filled_code = _filled_codes(inside.device)
    bit = torch.arange(8, device=inside.device)
    while True:
        code = torch.zeros_like(_corner(padded, _CORNERS[0]), dtype=torch.uint8)
        for i, corner in enumerate(_CORNERS):
            code |= _corner(padded, corner).to(torch.uint8) << i
        filled = filled_code[code.to(torch.int32)]
        cells = (filled != code).nonzero()
        if len(cells) == 0:
            return padded[1:-1, 1:-1, 1:-1]
        fill = (filled[tuple(cells.unbind(-1))][:, None] >> bit & 1).bool()  # [N, 8]
        points = (cells[:, None, :] + torch.tensor(_CORNERS, device=cells.device))[fill]
        padded[tuple(points.unbind(-1))] = True  # only ever adds, so this ends


def _filled_codes(device: torch.device) -> Tensor:
    """[256] for each cell, corner i its bit i, what it becomes when its critical faces and diagonals are filled."""
    code = torch.arange(256, device=device)
    filled = code.clone()
    for axis in (1, 2, 4):
        u, v = (bit for bit in (1, 2, 4) if bit != axis)
        for base in (0, axis):  # the two faces across the axis
            one, other = 1 << base | 1 << (base | u | v), 1 << (base | u) | 1 << (base | v)
            face = code & (one | other)
            filled |= torch.where((face == one) | (face == other), one | other, 0)
    for i in range(4):
        diagonal = 1 << i | 1 << (7 - i)
        filled[[diagonal, 255 - diagonal]] = 255
    return filled.to(torch.uint8)


def _corner(grid: Tensor, corner: tuple[int, int, int]) -> Tensor:
    """The value at that corner of each cell: [X - 1, Y - 1, Z - 1]."""
    nx, ny, nz = (n - 1 for n in grid.shape)
    return grid[corner[0] : corner[0] + nx, corner[1] : corner[1] + ny, corner[2] : corner[2] + nz]


def _mean_crossing(values: Tensor, inside: Tensor, cells: Tensor) -> Tensor:
    """[N, 3] where, within each of the `cells` [N, 3], the sides are crossed on average, in [0, 1]."""
    corner = torch.tensor(_CORNERS, device=cells.device)
    x, y, z = (cells[:, None, :] + corner).unbind(-1)  # [N, 8] each
    value, side = values[x, y, z], inside[x, y, z]
    start, end = (torch.tensor(ends, device=cells.device) for ends in zip(*_CELL_EDGES, strict=True))
    crossed = (side[:, start] != side[:, end]).to(values)  # [N, 12]
    a, b = value[:, start].abs(), value[:, end].abs()
    span = a + b
    along = torch.where(span > 0, a / torch.where(span > 0, span, 1.0), 0.5)  # both exactly zero: halfway
    place = corner[start] + along[..., None] * (corner[end] - corner[start])  # [N, 12, 3]
    return (crossed[..., None] * place).sum(1) / crossed.sum(1, keepdim=True)


def _quads(inside: Tensor, number: Tensor, axis: int) -> Tensor:
    """[Q, 4] quadrilaterals around the crossed grid edges along `axis`, counter-clockwise seen from outside."""
    here = inside.narrow(axis, 0, inside.shape[axis] - 1)
    there = inside.narrow(axis, 1, inside.shape[axis] - 1)
    edges = (here != there).nonzero()  # [Q, 3]; the padding keeps them off the border of the grid
    u, v = ((torch.arange(3, device=edges.device) == (axis + k) % 3).to(torch.int64) for k in (1, 2))
    around = [edges - u - v, edges - v, edges, edges - u]  # counter-clockwise seen from the far end of the axis
    quads = torch.stack([number[tuple(cell.unbind(-1))] for cell in around], dim=-1)
    leaving = here[tuple(edges.unbind(-1))]  # inside here, outside there
    return torch.where(leaving[:, None], quads, quads.flip(-1))


def _split(vertices: Tensor, quads: Tensor) -> Tensor:
    """[2Q, 3] two triangles for each of the `quads`, cut along the shorter diagonal."""
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    along_ac = (a - c).square().sum(-1) <= (b - d).square().sum(-1)
    first = torch.where(along_ac[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = torch.where(along_ac[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return torch.cat([first, second])
