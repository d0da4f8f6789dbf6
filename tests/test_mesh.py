import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffrender.mesh import Material, Mesh, join
from diffrender.primitives import cube, sphere

FACE = torch.tensor([[0, 1, 2]])


def triangle(**changes: object) -> Mesh:
    return Mesh(**({"vertices": torch.eye(3), "faces": FACE} | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"faces": torch.tensor([[0, 1, 3]])}, ValueError, "faces must index the vertices, 0 to 2"),
        ({"faces": torch.tensor([[-1, 1, 2]])}, ValueError, "faces must index the vertices"),
        ({"faces": torch.tensor([[0, 1, 2, 0]])}, ValueError, r"faces must have shape \(N, 3\); got \(1, 4\)"),
        (
            {"faces": torch.tensor([[0.0, 1.0, 2.0]])},
            TypeError,
            r"faces must be an integer tensor; .*: .long\(\) makes one",
        ),
        ({"faces": [[0, 1, 2]]}, TypeError, r"got list; torch.as_tensor\(..., dtype=torch.int64\) makes one"),
        ({"vertices": torch.zeros(3, 2)}, ValueError, r"vertices must end in 3; got \(3, 2\)"),
        ({"vertices": [[0.0, 0.0, 0.0]]}, TypeError, "vertices must be a tensor; got list"),
        ({"vertices": np.eye(3)}, TypeError, r"got ndarray.*torch.as_tensor\(..., dtype=torch.float32\) makes one"),
        ({"vertices": torch.eye(3).half()}, TypeError, "vertices must be float32 or float64"),
        ({"uvs": torch.zeros(5, 2)}, ValueError, "uv_faces is needed where uvs and vertices differ"),
        ({"uv_faces": FACE}, ValueError, "uv_faces needs uvs"),
        ({"uvs": torch.zeros(2, 2), "uv_faces": FACE}, ValueError, "uv_faces must index the uvs, 0 to 1"),
        (
            {"uvs": torch.zeros(3, 2), "uv_faces": FACE.repeat(2, 1)},
            ValueError,
            "uv_faces must have the shape of faces",
        ),
        ({"vertex_colors": torch.zeros(2, 3)}, ValueError, "vertex_colors must have one row for each of the 3"),
        (
            {"vertex_colors": torch.zeros(3, 0)},
            ValueError,
            r"vertex_colors must have at least one channel; got \(3, 0\)",
        ),
        ({"vertex_normals": torch.zeros(3, 2)}, ValueError, "vertex_normals must end in 3"),
        ({"vertex_colors": torch.zeros(3, 3).double()}, TypeError, "vertex_colors must have the dtype of vertices"),
        (
            {"vertex_colors": torch.zeros(3, 3, device="meta")},
            ValueError,
            "vertex_colors must be on the device of vertices",
        ),
        (
            {"materials": (Material(texture=torch.zeros(2, 2, 3).double()),), "uvs": torch.zeros(3, 2)},
            TypeError,
            r"materials\[0\].texture must have the dtype of vertices",
        ),
        ({"material_index": torch.tensor([0])}, ValueError, "material_index needs materials"),
        ({"materials": (Material(),), "material_index": torch.tensor([1])}, ValueError, "material_index must index"),
        (
            {"materials": (Material(),), "material_index": torch.tensor([0, 0])},
            ValueError,
            "one entry for each of the 1",
        ),
        ({"materials": Material()}, TypeError, r"materials must be a list of Materials; .* write \[material\]"),
        ({"materials": ("red",)}, TypeError, r"materials\[0\] must be a Material; got str"),
        ({"materials": (Material(texture=torch.zeros(2, 2, 3)),)}, ValueError, "the mesh has no uvs"),
        (
            {"vertex_colors": torch.ones(3, 5), "materials": (Material(base_color=torch.ones(3)),)},
            ValueError,
            "must agree in channels",
        ),
    ],
)
def test_bad_arguments_are_named(changes: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        triangle(**changes)


@pytest.mark.parametrize("name", ["vertices", "vertex_colors", "vertex_normals", "uvs"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_counted_and_located(name: str, bad: float) -> None:
    values = torch.zeros(3, 2 if name == "uvs" else 3)
    values[1, 1] = values[2, 0] = bad
    with pytest.raises(
        ValueError, match=rf"{name} holds 2 values that are NaN or infinite, the first at index \(1, 1\)"
    ):
        triangle(**{name: values})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texture": torch.zeros(4, 4)}, "texture must have 3 dimensions"),
        ({"texture": torch.zeros(0, 4, 3)}, "at least one texel"),
        ({"base_color": torch.zeros(1, 3)}, "base_color must have 1 dimensions"),
        ({"base_color": torch.zeros(3), "texture": torch.zeros(2, 2, 4)}, "same number of channels"),
    ],
)
def test_bad_materials_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Material(**changes)


def test_defaults_are_filled_in() -> None:
    mesh = triangle(faces=FACE.to(torch.uint8), uvs=torch.zeros(3, 2), materials=[Material()])
    assert mesh.faces.dtype == torch.int64
    assert mesh.uv_faces is mesh.faces
    assert mesh.materials[0].name == "material"
    assert mesh.material_index is not None
    assert mesh.material_index.tolist() == [0]


def test_fields_are_frozen() -> None:
    with pytest.raises(AttributeError):
        triangle().vertices = torch.zeros(3, 3)  # type: ignore[misc]


@pytest.mark.parametrize("num_vertices", [0, 4])
def test_a_mesh_may_be_empty(num_vertices: int) -> None:
    mesh = Mesh(torch.zeros(num_vertices, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert mesh.face_normals().shape == (0, 3)
    assert torch.equal(mesh.normals(), torch.zeros(num_vertices, 3))
    assert mesh.topology.num_edges == 0
    assert join([mesh, triangle()]).num_faces == 1


def test_bounds_of_nothing_bound_nothing() -> None:
    low, high = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)).bounds()
    assert bool((low > high).all())
    assert torch.equal(triangle().bounds(), torch.tensor([[0.0] * 3, [1.0] * 3]))


@given(scale=st.integers(-15, 15), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_face_normals_do_not_depend_on_the_size(scale: int, seed: int) -> None:
    # powers of two scale without rounding, so the results must be the same bits; 2**-15 squared four times is 1e-36,
    # where a plain sum of squares has already lost digits in float32
    generator = torch.Generator().manual_seed(seed)
    mesh = triangle(vertices=torch.randn(3, 3, generator=generator))
    scaled = triangle(vertices=mesh.vertices * 2.0 ** (2 * scale))
    assert torch.allclose(mesh.face_normals(), scaled.face_normals(), atol=2e-7)  # 2 ulp of 1


def test_face_normals_are_unit_and_perpendicular() -> None:
    mesh = sphere(2, dtype=torch.float64)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normals = mesh.face_normals()
    assert torch.allclose(normals.norm(dim=-1), torch.ones(mesh.num_faces, dtype=torch.float64), atol=1e-15)
    for side in (b - a, c - b):  # float64 rounding of products of numbers below 1
        assert torch.allclose((normals * side).sum(-1), torch.zeros(mesh.num_faces, dtype=torch.float64), atol=1e-15)


def test_normals_have_the_right_gradient() -> None:
    mesh = sphere(0, dtype=torch.float64)
    vertices = mesh.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: mesh.replace(vertices=v).face_normals(), (vertices,))
    assert torch.autograd.gradcheck(lambda v: mesh.replace(vertices=v).normals(), (vertices,))


@pytest.mark.parametrize(
    "vertices",
    [torch.zeros(3, 3), torch.tensor([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]), torch.eye(3) * 1e-22],
    ids=["point", "line", "smaller than floats can square"],
)
def test_zero_area_faces_have_zero_normals_and_finite_gradients(vertices: torch.Tensor) -> None:
    vertices = vertices.clone().requires_grad_()
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 0, 1]]))
    (mesh.face_normals().sum() + mesh.normals().sum()).backward()
    assert torch.equal(mesh.face_normals(), torch.zeros(2, 3))
    assert vertices.grad is not None
    assert bool(torch.isfinite(vertices.grad).all())


def test_cancelling_faces_give_a_zero_vertex_normal() -> None:
    vertices = torch.eye(3).requires_grad_()
    normals = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 1]])).normals()
    normals.sum().backward()
    assert torch.equal(normals, torch.zeros(3, 3))
    assert vertices.grad is not None
    assert torch.equal(vertices.grad, torch.zeros(3, 3))


def test_vertex_normals_are_weighted_by_area() -> None:
    # two right triangles at a common corner: area 1/2 facing +z and area 2 facing +x
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 2]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]]))
    expected = torch.tensor([4.0, 0.0, 1.0]) / math.sqrt(17)
    assert torch.allclose(mesh.normals()[0], expected, atol=1e-7)  # one rounding of the quotient


def test_normals_of_a_sphere_point_outward_and_get_better_with_subdivision() -> None:
    errors = [float((m.normals() - m.vertices).norm(dim=-1).max()) for m in map(sphere, (2, 3, 4))]
    assert errors[0] < 0.05
    assert errors[2] < errors[1] < errors[0]


def test_vertices_split_at_a_seam_have_equal_normals() -> None:
    whole = cube()
    split = Mesh(whole.vertices[whole.faces.reshape(-1)], torch.arange(36).reshape(-1, 3))
    assert torch.allclose(split.normals(), whole.normals()[whole.faces.reshape(-1)], atol=1e-7)


def test_given_normals_come_back_and_go_with_new_vertices() -> None:
    given_normals = torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    mesh = triangle(vertex_normals=given_normals)
    assert mesh.normals() is given_normals
    assert mesh.replace(vertex_colors=torch.ones(3, 3)).vertex_normals is given_normals
    assert mesh.replace(vertices=2 * mesh.vertices).vertex_normals is None
    assert mesh.replace(vertices=2 * mesh.vertices, vertex_normals=given_normals).vertex_normals is given_normals


def test_topology_is_kept_where_only_vertices_move() -> None:
    mesh = sphere(1)
    topology = mesh.topology
    assert mesh.topology is topology
    moved = mesh.replace(vertices=2 * mesh.vertices)
    assert moved.topology is topology
    assert mesh.replace(faces=mesh.faces.clone(), uv_faces=mesh.uv_faces).topology is not topology
    assert mesh.replace(uvs=None).topology is not topology  # the seams are gone
    assert "topology" in mesh.to(dtype=torch.float64).__dict__


def test_replacing_faces_takes_the_default_uv_faces_along() -> None:
    mesh = triangle(uvs=torch.zeros(3, 2))
    turned = mesh.replace(faces=FACE[:, [1, 2, 0]])
    assert turned.uv_faces is turned.faces


def test_to_converts_every_float_tensor() -> None:
    material = Material(base_color=torch.ones(3), texture=torch.ones(2, 2, 3))
    mesh = triangle(uvs=torch.zeros(3, 2), vertex_colors=torch.ones(3, 3), materials=(material,)).to(
        dtype=torch.float64
    )
    assert {mesh.vertices.dtype, mesh.uvs.dtype, mesh.vertex_colors.dtype} == {torch.float64}  # type: ignore[union-attr]
    assert {mesh.materials[0].base_color.dtype, mesh.materials[0].texture.dtype} == {torch.float64}  # type: ignore[union-attr]
    assert mesh.faces.dtype == torch.int64
    assert mesh.uv_faces is mesh.faces


def test_join_keeps_every_corner_and_fills_in_what_is_neutral() -> None:
    red = Material("red", base_color=torch.tensor([1.0, 0, 0]))
    wood = Material("wood", texture=torch.rand(2, 2, 3))
    parts = [
        triangle(vertex_colors=torch.full((3, 3), 0.5)),
        cube().replace(materials=(red, wood), material_index=torch.arange(12) % 2),
        triangle(vertex_normals=torch.eye(3)),
    ]
    mesh = join(parts)
    assert torch.equal(mesh.vertices[mesh.faces], torch.cat([p.vertices[p.faces] for p in parts]))
    assert mesh.uvs is not None
    assert mesh.uv_faces is not None
    assert torch.equal(mesh.uvs[mesh.uv_faces[1:13]], parts[1].uvs[parts[1].uv_faces])  # type: ignore[index]
    assert mesh.vertex_colors is not None
    assert mesh.vertex_colors[:, 0].tolist() == [0.5] * 3 + [1.0] * 11
    assert mesh.material_index is not None
    names = [mesh.materials[i].name for i in mesh.material_index.tolist()]
    assert names == ["material"] + ["red", "wood"] * 6 + ["material"]
    assert torch.equal(mesh.normals(), torch.cat([p.normals() for p in parts]))


def test_join_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one mesh"):
        join([])
    with pytest.raises(TypeError, match="meshes must be a list of Meshes; got one Mesh"):
        join(sphere(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"meshes\[1\] must be a Mesh; got str"):
        join([triangle(), "triangle"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"channels of vertex_colors to be joined; got \[1, 3\]"):
        join([triangle(vertex_colors=torch.ones(3, 1)), triangle(vertex_colors=torch.ones(3, 3))])
