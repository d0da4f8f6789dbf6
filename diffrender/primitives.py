"""Closed and open surfaces to start from: sphere, cube, grid and torus, with uvs and outward normals.

All of them are centred at the origin, y is up, and a texture reads the right way round when seen from outside with
y up. Where the uv wraps around, only the uv indices are split: the vertices stay those of the closed surface.
"""

import math

import torch
from torch import Tensor

from .checks import shape_of
from .mesh import Mesh


def sphere(subdivisions: int = 3, *, dtype: torch.dtype = torch.float32) -> Mesh:
    """Unit sphere: an icosahedron whose `20 * 4**subdivisions` faces have corners on the sphere.

    Arguments:
        subdivisions: how often each triangle was cut in four; 3 gives 1280 faces.
        dtype: of vertices and uvs.

    The uv is longitude and latitude: u = 0.5 looks along +z and grows towards +x, v grows from the pole at -y to the
    pole at +y. Faces across u = 1 have corners slightly outside [0, 1]: sample with padding "wrap".

    >>> sphere(0).num_vertices, sphere().num_faces
    (12, 1280)
    """
    _check_count("subdivisions", subdivisions, least=0)
    vertices, faces = _icosahedron()
    for _ in range(subdivisions):
        vertices, faces = _subdivide(vertices, faces)
    uvs, uv_faces = _spherical_uvs(vertices, faces)
    return Mesh(vertices.to(dtype), faces, uvs.to(dtype), uv_faces)


def cube(*, dtype: torch.dtype = torch.float32) -> Mesh:
    """The cube [-1, 1]^3: 8 vertices, 12 faces; each of its six sides shows the whole texture, upright.

    Top and bottom are upright for someone who looks at the +z side and tilts the cube.

    >>> cube().bounds().tolist()
    [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    """
    # for every side its normal and the direction of growing u; growing v is their cross product
    normals = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    rightward = torch.tensor([[1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    upward = torch.linalg.cross(normals, rightward)
    corner = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])  # counter-clockwise in (u, v)
    points = normals[:, None] + corner[:, :1] * rightward[:, None] + corner[:, 1:] * upward[:, None]  # [6, 4, 3]

    vertices, index = torch.unique(points.reshape(-1, 3), dim=0, return_inverse=True)
    halves = torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces = index.reshape(6, 4)[:, halves].reshape(-1, 3)
    return Mesh(vertices.to(dtype), faces, (corner.to(dtype) + 1) / 2, halves.repeat(6, 1))


def grid(rows: int = 16, columns: int = 16, *, dtype: torch.dtype = torch.float32) -> Mesh:
    """The square [-1, 1]^2 at z = 0, seen from +z: `rows * columns` cells of two triangles, row 0 on top.

    The uv covers the unit square once.

    >>> grid(2, 3).num_vertices, grid(2, 3).num_faces
    (12, 12)
    """
    _check_count("rows", rows, least=1)
    _check_count("columns", columns, least=1)
    v = torch.linspace(1, 0, rows + 1, dtype=torch.float64)
    u = torch.linspace(0, 1, columns + 1, dtype=torch.float64)
    uvs = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).reshape(-1, 2)
    vertices = torch.cat([2 * uvs - 1, torch.zeros_like(uvs[:, :1])], dim=-1)
    row, column = _cells(rows, columns)
    faces = _two_triangles(
        (row + 1) * (columns + 1) + column,
        (row + 1) * (columns + 1) + column + 1,
        row * (columns + 1) + column + 1,
        row * (columns + 1) + column,
    )
    return Mesh(vertices.to(dtype), faces, uvs.to(dtype))


def torus(
    major_radius: float = 1.0,
    minor_radius: float = 0.4,
    *,
    major_segments: int = 48,
    minor_segments: int = 24,
    dtype: torch.dtype = torch.float32,
) -> Mesh:
    """Ring around the y axis.

    Arguments:
        major_radius: from the origin to the middle of the tube.
        minor_radius: of the tube; smaller than `major_radius`, or the tube would pass through itself.
        major_segments: around the axis; at least 3.
        minor_segments: around the tube; at least 3.
        dtype: of vertices and uvs.

    The uv goes once around the axis in u (0.5 at +z, growing towards +x) and once around the tube in v (0.5 on the
    outside, growing upward); both are split at 0 = 1.

    >>> torus(major_segments=8, minor_segments=4).num_faces
    64
    """
    if not 0 < minor_radius < major_radius:
        raise ValueError(
            f"minor_radius must lie between 0 and major_radius; got {minor_radius} and major_radius {major_radius}"
        )
    _check_count("major_segments", major_segments, least=3)
    _check_count("minor_segments", minor_segments, least=3)
    turn = torch.arange(major_segments, dtype=torch.float64) / major_segments  # u, around the axis
    tube = torch.arange(minor_segments, dtype=torch.float64) / minor_segments  # v, around the tube
    theta, phi = torch.meshgrid(2 * math.pi * (turn - 0.5), 2 * math.pi * (tube - 0.5), indexing="ij")
    distance = major_radius + minor_radius * phi.cos()  # from the axis
    vertices = torch.stack([distance * theta.sin(), minor_radius * phi.sin(), distance * theta.cos()], dim=-1)

    i, j = _cells(major_segments, minor_segments)

    def corners(stride: int, wrap_major: int, wrap_minor: int) -> Tensor:
        low_i, high_i, low_j, high_j = i, (i + 1) % wrap_major, j, (j + 1) % wrap_minor
        return _two_triangles(
            low_i * stride + low_j, high_i * stride + low_j, high_i * stride + high_j, low_i * stride + high_j
        )

    u = torch.linspace(0, 1, major_segments + 1, dtype=torch.float64)
    v = torch.linspace(0, 1, minor_segments + 1, dtype=torch.float64)
    uvs = torch.stack(torch.meshgrid(u, v, indexing="ij"), dim=-1).reshape(-1, 2)
    return Mesh(
        vertices.reshape(-1, 3).to(dtype),
        corners(minor_segments, major_segments, minor_segments),
        uvs.to(dtype),
        corners(minor_segments + 1, major_segments + 1, minor_segments + 1),
    )


def _icosahedron() -> tuple[Tensor, Tensor]:
    """Vertices [12, 3] on the unit sphere and faces [20, 3]: the triples of vertices at the length of an edge."""
    golden = (1 + math.sqrt(5)) / 2
    signs = torch.cartesian_prod(torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0])).to(torch.float64)
    rectangle = torch.stack([torch.zeros(4, dtype=torch.float64), signs[:, 0], golden * signs[:, 1]], dim=-1)
    vertices = torch.cat([rectangle, rectangle.roll(1, dims=-1), rectangle.roll(2, dims=-1)])

    near = torch.cdist(vertices, vertices) < 2.1  # edges are 2 long, the next distance is 2 * golden = 3.2
    near = near & ~torch.eye(12, dtype=torch.bool)
    triples = torch.combinations(torch.arange(12), 3)
    a, b, c = triples.unbind(-1)
    faces = triples[near[a, b] & near[b, c] & near[c, a]]
    inward = torch.linalg.det(vertices[faces]) < 0
    faces = torch.where(inward[:, None], faces[:, [0, 2, 1]], faces)
    return vertices / vertices.norm(dim=-1, keepdim=True), faces


def _subdivide(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Each face cut in four at the middles of its sides, and these moved out to the unit sphere."""
    ends = faces[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2).sort(dim=-1).values  # side i is opposite to corner i
    edges, edge = torch.unique(ends, dim=0, return_inverse=True)
    middles = vertices[edges].sum(1)
    middle = edge.reshape(-1, 3) + len(vertices)
    a, b, c = faces.unbind(-1)
    ma, mb, mc = middle.unbind(-1)
    quarters = torch.stack([a, mc, mb, mc, b, ma, mb, ma, c, ma, mb, mc], dim=-1).reshape(-1, 3)
    return torch.cat([vertices, middles / middles.norm(dim=-1, keepdim=True)]), quarters


def _spherical_uvs(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Longitude and latitude of every corner, without jumps inside a face: uvs [T, 2] and uv_faces [F, 3]."""
    corners = vertices[faces]  # [F, 3, 3]
    middle = _longitude(corners.mean(1, keepdim=True))  # [F, 1]
    u = _longitude(corners)
    u = u + (middle - u).round()  # the turn that is nearest to the middle of the face
    # a pole has every longitude: take that of the face's other corners; 1e-9 is rounding against sides above 1e-4
    pole = corners[..., [0, 2]].norm(dim=-1) < 1e-9
    others = torch.where(pole, 0.0, u).sum(-1, keepdim=True) / 2
    u = torch.where(pole, others, u)
    v = 0.5 + torch.asin(corners[..., 1].clamp(-1, 1)) / math.pi
    # equal but for rounding is equal: 2**-40 is far above it, and far below a step between corners
    keys = torch.stack([faces.to(torch.float64).reshape(-1), (u * 2**40).round().reshape(-1)], dim=-1)
    _, uv_faces = torch.unique(keys, dim=0, return_inverse=True)
    uvs = torch.zeros(int(uv_faces.max()) + 1, 2, dtype=vertices.dtype)
    uvs[uv_faces] = torch.stack([u, v], dim=-1).reshape(-1, 2)
    return uvs, uv_faces.reshape(-1, 3)


def _longitude(points: Tensor) -> Tensor:
    """[...] in [0, 1]: 0.5 at +z, growing towards +x."""
    return 0.5 + torch.atan2(points[..., 0], points[..., 2]) / (2 * math.pi)


def _cells(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of each cell, two [rows * columns] tensors."""
    row, column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(-1)
    return row, column


def _two_triangles(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[2N, 3] faces of N counter-clockwise quadrilaterals."""
    return torch.stack([a, b, c, a, c, d], dim=-1).reshape(-1, 3)


def _check_count(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer; got {shape_of(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
