"""uv coordinates of one's own making: charts apart, nothing twice, nothing mirrored, little squeezed."""

import math

import pytest
import torch
from scipy import ndimage

from diffrender.mesh import Mesh
from diffrender.primitives import cube, grid, sphere, torus
from diffrender.sampling import covered_texels
from diffrender.unwrap import LEAST_COSINE, unwrap

SIZE = 256


def ramp(turns=3, around=48):
    """A spiral staircase without steps: seen from above, each turn covers the one below."""
    flat = grid(turns * around, 4)
    angle, radius = (flat.vertices[:, 1] + 1) * math.pi * turns, 2 + flat.vertices[:, 0]
    height = 0.3 * angle
    return Mesh(torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1), flat.faces)


MESHES = {"sphere": sphere(3), "cube": cube(), "torus": torus(), "ramp": ramp()}


@pytest.fixture(params=MESHES, scope="module")
def pair(request):
    mesh = MESHES[request.param]
    return mesh, unwrap(mesh, SIZE)


def corners(mesh):
    """[F, 3, 2] texels, x to the right and y down."""
    assert mesh.uvs is not None
    x, y = (mesh.uvs * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])).mul(SIZE).unbind(-1)
    return torch.stack([x, y], dim=-1)[mesh.uv_faces]


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def signed_areas(triangles):
    """Doubled, in texels; positive where counter-clockwise in uv, whose v points up."""
    return -cross(triangles[..., 1, :] - triangles[..., 0, :], triangles[..., 2, :] - triangles[..., 0, :])


def test_the_surface_stays_as_it_is(pair):
    mesh, flat = pair
    assert torch.equal(flat.vertices, mesh.vertices)
    assert torch.equal(flat.faces, mesh.faces)
    assert flat.uvs.min() >= 0
    assert flat.uvs.max() <= 1


def test_no_point_of_the_texture_belongs_to_two_faces(pair):
    _, flat = pair
    triangles = corners(flat).double()
    middle = triangles.mean(1)  # of each face, against all faces: brute force
    sides = [cross(triangles[:, k - 2] - triangles[:, k], middle[:, None] - triangles[:, k]) for k in range(3)]
    inside = torch.stack(sides).lt(0).all(0)  # y points down, so that the sign of counter-clockwise is turned
    assert torch.equal(inside.sum(1), torch.ones(flat.num_faces, dtype=torch.long))


def test_no_face_is_mirrored_and_none_squeezed_more_than_promised(pair):
    mesh, flat = pair
    space = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(space[:, 1] - space[:, 0], space[:, 2] - space[:, 0]).norm(dim=-1)
    ratio = signed_areas(corners(flat)) / area
    # cosines between 0.3 and 1 times one scale; 1 % for texels in float32 (2^-24 of 256) against faces of a few texels
    assert float(ratio.min()) > 0
    assert float(ratio.max() / ratio.min()) < 1.01 / LEAST_COSINE


def test_faces_of_one_chart_share_their_corners(pair):
    mesh, flat = pair
    topology = flat.topology
    seams = float(topology.seam.float().mean())
    assert seams < (1.0 if mesh.num_faces == 12 else 0.35)  # faces one by one would have nothing but seams
    assert len(flat.uvs) < 2 * mesh.num_vertices + 24


def test_charts_keep_their_distance():
    flat = unwrap(sphere(3), SIZE, padding=3)
    charts, count = ndimage.label(covered_texels(flat, (SIZE, SIZE)).numpy())
    assert count >= 6
    reach = 2 * 3 - 1  # texels between two charts: padding on both sides; centres are that far apart and one more
    window = 2 * reach + 1
    highest = ndimage.maximum_filter(charts, window)
    lowest = -ndimage.maximum_filter(-(charts + (charts == 0) * 10**6), window)
    assert bool((highest[charts > 0] == charts[charts > 0]).all())
    assert bool((lowest[charts > 0] == charts[charts > 0]).all())


def test_a_good_part_of_the_texture_is_used():
    # six sides of a sphere: each about a disk in its square, a share of pi / 4, and 2 x 3 squares leave a third
    assert float(covered_texels(unwrap(sphere(4), SIZE), (SIZE, SIZE)).float().mean()) > 0.35


def test_degenerate_faces_and_an_empty_mesh_have_uvs_too():
    line = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 1, 3]]))
    assert bool(torch.isfinite(unwrap(line, 16).uvs).all())
    empty = unwrap(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)), 16)
    assert empty.uvs.shape == (0, 2)


def test_a_texture_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="size must be larger: 6 charts with padding 2 do not fit on 8 x 8 texels"):
        unwrap(cube(), 8)
    with pytest.raises(ValueError, match="size must be positive and padding not negative; got 0 and 2"):
        unwrap(cube(), 0)
