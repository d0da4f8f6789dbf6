import itertools
import math

import pytest
import torch
from torch import Tensor

from diffrender.mesh import Mesh
from diffrender.primitives import cube, grid, sphere, torus

F64 = torch.float64
CLOSED = {
    "icosahedron": lambda: sphere(0, dtype=F64),
    "sphere": lambda: sphere(3, dtype=F64),
    "cube": lambda: cube(dtype=F64),
    "torus": lambda: torus(major_segments=7, minor_segments=5, dtype=F64),
}
EULER = {"icosahedron": 2, "sphere": 2, "cube": 2, "torus": 0}


def volume(mesh: Mesh) -> float:
    """Divergence theorem: a sixth of the sum of determinants; negative where faces wind inward."""
    return float(torch.linalg.det(mesh.vertices[mesh.faces]).sum() / 6)


def uv_areas(mesh: Mesh) -> Tensor:
    assert mesh.uvs is not None
    a, b, c = mesh.uvs[mesh.uv_faces].unbind(1)
    return torch.linalg.det(torch.stack([b - a, c - a], dim=1)) / 2


def torus_volume(major: float, minor: float, m: int, n: int) -> float:
    """m frustums with regular n-gons as sections: by Pappus, per sector, the chord replaces the arc."""
    section = n / 2 * minor**2 * math.sin(2 * math.pi / n)
    return m * math.sin(2 * math.pi / m) * major * section


def icosahedron_volume() -> float:
    edge = 1 / math.sin(2 * math.pi / 5)  # of circumradius 1
    return 5 / 12 * (3 + math.sqrt(5)) * edge**3


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (cube(dtype=F64), 8.0),
        (sphere(0, dtype=F64), icosahedron_volume()),
        (torus(2.0, 0.5, major_segments=9, minor_segments=7, dtype=F64), torus_volume(2.0, 0.5, 9, 7)),
        (torus(dtype=F64), torus_volume(1.0, 0.4, 48, 24)),
    ],
    ids=["cube", "icosahedron", "torus 9x7", "torus"],
)
def test_volume_is_the_closed_form(mesh: Mesh, expected: float) -> None:
    assert volume(mesh) == pytest.approx(expected, rel=1e-13)  # float64 rounding of a few thousand terms


def test_volume_of_finer_spheres_approaches_the_ball_four_times_closer_each_time() -> None:
    errors = [4 / 3 * math.pi - volume(sphere(s, dtype=F64)) for s in range(2, 6)]
    ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
    assert ratios == pytest.approx(
        [4.0] * 3, rel=0.02
    )  # second order in the edge; the next term is of relative size h^2


@pytest.mark.parametrize("name", CLOSED)
def test_closed_surfaces_are_closed_and_have_their_euler_number(name: str) -> None:
    mesh = CLOSED[name]()
    assert bool((mesh.topology.edge_count == 2).all())
    assert mesh.num_vertices - mesh.topology.num_edges + mesh.num_faces == EULER[name]
    assert len(mesh.topology.weld.unique()) == mesh.num_vertices  # no vertex is split


@pytest.mark.parametrize("name", CLOSED)
def test_every_face_winds_outward(name: str) -> None:
    mesh = CLOSED[name]()
    middle = mesh.vertices[mesh.faces].mean(1)
    inside = torch.zeros_like(middle)
    if name == "torus":  # the nearest point of the ring in the tube
        ring = middle * torch.tensor([1.0, 0.0, 1.0], dtype=F64)
        inside = ring / ring.norm(dim=-1, keepdim=True)
    assert bool(((middle - inside) * mesh.face_normals()).sum(-1).gt(0).all())


@pytest.mark.parametrize("name", [*CLOSED, "grid"])
def test_textures_read_the_right_way_round_and_do_not_jump(name: str) -> None:
    mesh = grid(3, 5, dtype=F64) if name == "grid" else CLOSED[name]()
    assert mesh.uvs is not None
    assert bool((uv_areas(mesh) > 0).all())  # counter-clockwise in uv as in space: not mirrored
    corners = mesh.uvs[mesh.uv_faces]
    if name != "cube":
        # 1 / 2 is the width of a face of the bare icosahedron; the others have much smaller ones
        assert float((corners.amax(1) - corners.amin(1)).max()) <= 0.5 + 1e-12


def test_uv_of_the_sphere_is_longitude_and_latitude() -> None:
    mesh = sphere(3, dtype=F64)
    assert mesh.uvs is not None
    u, v = mesh.uvs[mesh.uv_faces].unbind(-1)
    x, y, z = mesh.vertices[mesh.faces].unbind(-1)
    assert torch.allclose(torch.sin(math.pi * (v - 0.5)), y, atol=1e-14)  # float64 rounding through asin
    away = x.hypot(z) > 1e-6  # at the poles every longitude is right
    angle = 2 * math.pi * (u - 0.5)
    assert torch.allclose((x.hypot(z) * angle.sin())[away], x[away], atol=1e-14)
    assert torch.allclose((x.hypot(z) * angle.cos())[away], z[away], atol=1e-14)
    assert len(mesh.uvs) < mesh.num_vertices + 60  # split along one meridian and at the poles only


def test_sphere_has_its_corners_on_the_unit_sphere() -> None:
    mesh = sphere(4)
    assert mesh.num_faces == 5120
    assert float((mesh.vertices.norm(dim=-1) - 1).abs().max()) < 2e-7  # rounding to float32


def test_sides_of_the_cube_show_the_texture_upright() -> None:
    mesh = cube()
    assert mesh.uvs is not None
    assert torch.equal(uv_areas(mesh), torch.full((12,), 0.5))
    v = mesh.uvs[mesh.uv_faces][..., 1]
    upright = mesh.face_normals()[:, 1] == 0
    assert torch.equal(v[upright], (mesh.vertices[mesh.faces][upright][..., 1] + 1) / 2)


def test_grid_is_flat_faces_z_and_has_row_0_on_top() -> None:
    mesh = grid(2, 4)
    assert mesh.num_faces == 16
    assert torch.equal(mesh.face_normals(), torch.tensor([[0.0, 0, 1]]).expand(16, 3))
    assert mesh.vertices[0].tolist() == [-1.0, 1.0, 0.0]
    assert mesh.bounds().tolist() == [[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]
    assert mesh.uvs is not None
    assert torch.equal(mesh.uvs, (mesh.vertices[:, :2] + 1) / 2)
    assert float(uv_areas(mesh).sum()) == pytest.approx(1.0, abs=1e-6)  # float32 rounding of 16 terms


def test_uv_of_the_torus_covers_the_unit_square_once() -> None:
    mesh = torus(major_segments=5, minor_segments=3, dtype=F64)
    assert mesh.uvs is not None
    assert float(uv_areas(mesh).sum()) == pytest.approx(1.0, abs=1e-14)
    assert mesh.uvs.amin(0).tolist() == [0.0, 0.0]
    assert mesh.uvs.amax(0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sphere(-1), ValueError, "subdivisions must be at least 0; got -1"),
        (lambda: sphere(2.0), TypeError, "subdivisions must be an integer; got float"),
        (lambda: grid(0, 4), ValueError, "rows must be at least 1; got 0"),
        (lambda: torus(1.0, 1.5), ValueError, "minor_radius must lie between 0 and major_radius; got 1.5"),
        (lambda: torus(major_segments=2), ValueError, "major_segments must be at least 3; got 2"),
    ],
)
def test_bad_arguments_are_named(make: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
