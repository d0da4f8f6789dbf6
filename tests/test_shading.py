"""Surface colours, normals and lights against closed forms; spherical harmonics against an integral over the sphere."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffrender.fragments import Fragments
from diffrender.mesh import Material, Mesh
from diffrender.sampling.environment import panorama_directions
from diffrender.shading import (
    AmbientLight,
    DirectionalLight,
    Lambert,
    Light,
    PointLight,
    SphericalHarmonicsLight,
    depth_shader,
    normal_shader,
    position_shader,
    shading_normals,
    surface_color,
    unlit,
    uv_shader,
)


def assert_same(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-14)  # a few float64 roundings of numbers around 1


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fragments_on(face_index: list[int], barycentrics: Tensor | None = None, front: bool = True) -> Fragments:
    """Fragments on the given faces, at random places unless told where."""
    index = torch.tensor(face_index, dtype=torch.int64)
    if barycentrics is None:
        weights = rand(len(index), 3) + 0.1
        barycentrics = weights / weights.sum(-1, keepdim=True)
    return Fragments(
        view=torch.zeros_like(index),
        xy=rand(len(index), 2),
        face_index=index,
        barycentrics=barycentrics,
        depth=1 + rand(len(index)),
        front=torch.full(index.shape, front),
    )


def square(**attributes: object) -> Mesh:
    """Two triangles of the unit square in the plane z = 0, normals along +z; uv = (x, y)."""
    xy = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    vertices = torch.cat([xy, torch.zeros(4, 1, dtype=torch.float64)], -1)
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), **{"uvs": xy, **attributes})  # type: ignore[arg-type]


def sphere_points(count: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64, generator=generator), dim=-1)


# --- surface colour ---


def test_mesh_without_colours_is_white() -> None:
    assert torch.equal(surface_color(fragments_on([0, 1, 1]), square()), torch.ones(3, 3).double())
    assert torch.equal(surface_color(fragments_on([0]), square(materials=(Material(),))), torch.ones(1, 3).double())


def test_vertex_colours_are_interpolated_with_any_number_of_channels() -> None:
    colors = rand(4, 5)
    corners = fragments_on([0, 0, 1], torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]], dtype=torch.float64))
    expected = torch.stack([colors[0], (colors[1] + colors[2]) / 2, colors[3]])
    assert_same(unlit(corners, square(vertex_colors=colors)), expected)


def test_texture_shows_upright_on_the_surface() -> None:
    rows, columns = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(4) + 0.5, indexing="ij")
    texture = torch.stack([columns / 4, 1 - rows / 8, torch.ones(8, 4)], -1).double()  # the texel's own (u, v, 1)
    mesh = square(materials=(Material(texture=texture),))
    inner = torch.tensor(
        [[0.6, 0.2, 0.2], [0.2, 0.3, 0.5]], dtype=torch.float64
    )  # at least half a texel from the border
    fragments = fragments_on([0, 1], inner)
    color = surface_color(fragments, mesh)
    # u and v are linear, so bilinear filtering reproduces them
    torch.testing.assert_close(color[:, :2], position_shader(fragments, mesh)[:, :2], rtol=0, atol=1e-7)


def test_colour_is_the_product_of_all_factors() -> None:
    base, texel, vertex = rand(3), rand(3, seed=1), rand(3, seed=2)
    material = Material(base_color=base, texture=texel.expand(2, 2, 3))
    mesh = square(materials=(material,), vertex_colors=vertex.expand(4, 3))
    assert_same(surface_color(fragments_on([0, 1]), mesh), (base * texel * vertex).expand(2, 3))


def test_each_face_has_the_colour_of_its_own_material() -> None:
    red, texel = vector(1, 0, 0), rand(3)
    materials = (Material("plain"), Material("red", red), Material("tex", texture=texel.expand(2, 2, 3)))
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 3]])
    mesh = square().replace(faces=faces, materials=materials, material_index=torch.tensor([2, 1, 0, 1]))
    expected = torch.stack([red, texel, torch.ones(3).double(), red, texel])
    assert_same(surface_color(fragments_on([1, 0, 2, 3, 0]), mesh), expected)


def test_gradients_reach_every_factor_of_several_materials() -> None:
    inner = torch.tensor([[0.6, 0.25, 0.15], [0.2, 0.27, 0.53], [0.35, 0.4, 0.25]], dtype=torch.float64)
    index = torch.tensor([1, 0])

    def f(base: Tensor, texture: Tensor, vertex: Tensor, uvs: Tensor, barycentrics: Tensor) -> Tensor:
        materials = (Material(base_color=base), Material(texture=texture))
        mesh = square(materials=materials, material_index=index, vertex_colors=vertex, uvs=uvs)
        return surface_color(fragments_on([0, 1, 0], barycentrics), mesh)

    inputs = (rand(3), rand(3, 4, 3), rand(4, 3), 0.2 + 0.6 * rand(4, 2), inner)
    assert torch.autograd.gradcheck(f, [x.clone().requires_grad_() for x in inputs])


def test_no_fragments_give_no_colours() -> None:
    mesh = square(materials=(Material(texture=rand(2, 2, 3)), Material(base_color=rand(3))))
    lit = Lambert([AmbientLight(), DirectionalLight((0, 0, 1)), PointLight((0, 0, 1))])
    assert surface_color(fragments_on([]), mesh).shape == (0, 3)
    assert lit(fragments_on([]), mesh).shape == (0, 3)


# --- normals ---


@pytest.mark.parametrize("kind", ["flat", "smooth"])
def test_normals_turn_to_the_side_that_is_seen(kind: str) -> None:
    up = vector(0, 0, 1).expand(2, 3)
    assert_same(shading_normals(fragments_on([0, 1]), square(), kind), up)  # type: ignore[arg-type]
    behind = fragments_on([0, 1], front=False)
    assert_same(shading_normals(behind, square(), kind), -up)  # type: ignore[arg-type]


def test_smooth_normals_are_interpolated_to_unit_length_and_flat_ones_are_not_interpolated() -> None:
    given = torch.tensor([[1.0, 0, 1], [-1, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.float64)
    middle = fragments_on([0], torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64))
    mesh = square(vertex_normals=given)
    expected = torch.tensor([[0.25, 0.25, 1.0]], dtype=torch.float64)
    assert_same(normal_shader(middle, mesh), expected / expected.norm())
    assert shading_normals(middle, mesh, "flat").tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("kind", ["flat", "smooth"])
def test_faces_without_area_shade_with_finite_gradients(kind: str) -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0]], dtype=torch.float64, requires_grad=True)
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 2, 3]]))
    lights = [DirectionalLight((0, 0, 1)), PointLight((1, 1, 1)), SphericalHarmonicsLight(rand(9, 3))]
    Lambert(lights, normals=kind)(fragments_on([0, 1]), mesh).sum().backward()  # type: ignore[arg-type]
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


def test_opposite_vertex_normals_cancel_to_a_finite_gradient() -> None:
    given = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, 1]], dtype=torch.float64).requires_grad_()
    middle = fragments_on([0], torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64))
    normals = normal_shader(middle, square(vertex_normals=given))
    assert torch.equal(normals, torch.zeros(1, 3).double())
    normals.sum().backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()


# --- lights ---


def test_directional_light_falls_with_the_cosine_and_not_on_the_far_side() -> None:
    normals = sphere_points()
    light = DirectionalLight((3.0, 0.0, -4.0), (1.0, 0.5, 0.0))  # travels to +x and -z, so it comes from (-0.6, 0, 0.8)
    cosine = (-0.6 * normals[:, 0] + 0.8 * normals[:, 2]).clamp_min(0)
    expected = cosine[:, None] * vector(1.0, 0.5, 0.0)
    assert_same(light.irradiance(torch.zeros_like(normals), normals), expected)


def test_point_light_inside_a_sphere_sends_the_same_total_to_every_sphere() -> None:
    """Gauss: over any closed surface around it, irradiance integrates to the intensity times 4 pi."""
    inward = -sphere_points(100_000)
    light = PointLight((0.1, 0.2, -0.3))
    for radius in (1.0, 3.0):
        flux = light.irradiance(-radius * inward, inward)[:, 0].mean() * radius**2
        # mean over 1e5 random points; the integrand's spread is below 1 (relative), so 4 sigma is 1.3 %
        assert abs(flux.item() - 1) < 0.013


def test_point_light_straight_above_falls_with_the_square_of_the_distance() -> None:
    up = torch.tensor([[0.0, 0, 1]], dtype=torch.float64)
    for distance in (0.5, 1.0, 2.0):
        value = PointLight((0, 0, distance), (2.0, 1.0, 0.0)).irradiance(torch.zeros_like(up), up)
        expected = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64) / distance**2
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [-30, -12, -6.5, -6, -3, 12])
def test_point_light_near_and_far_has_finite_gradients(dtype: torch.dtype, exponent: float) -> None:
    positions = torch.tensor([[0.0, 0, 10**exponent]], dtype=dtype, requires_grad=True)
    normals = torch.tensor([[0.0, 0, -1]], dtype=dtype)
    for at in (positions, positions - positions.detach()):
        value = PointLight((0, 0, 0)).irradiance(at, normals)
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), positions)[0].isfinite().all()


def real_harmonics(directions: Tensor) -> Tensor:
    """Y_lm [N, 9] by Ramamoorthi & Hanrahan's (2001) printed constants, equation 3."""
    x, y, z = directions.unbind(-1)
    rows = [0.282095 + 0 * x, 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
            0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y)]  # fmt: skip
    return torch.stack(rows, -1)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_harmonics_light_is_the_integral_of_its_radiance_over_the_hemisphere(rows: int) -> None:
    coefficients, normals = rand(rows, 3) - 0.3, sphere_points(12)
    # midpoint rule in height and azimuth (equal areas), 400 x 800 directions
    height = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    azimuth = (torch.arange(800, dtype=torch.float64) + 0.5) * (2 * math.pi / 800)
    z, a = (t.flatten() for t in torch.meshgrid(height, azimuth, indexing="ij"))
    directions = torch.stack([(1 - z * z).sqrt() * a.cos(), (1 - z * z).sqrt() * a.sin(), z], -1)
    radiance = real_harmonics(directions)[:, :rows] @ coefficients
    cosine = (normals @ directions.T).clamp_min(0)
    expected = cosine @ radiance * (4 * math.pi / len(directions)) / math.pi
    values = SphericalHarmonicsLight(coefficients).irradiance(torch.zeros_like(normals), normals)
    # the kink of the clamped cosine costs the midpoint rule some (1/200)^2; the printed constants have 6 digits
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)


def test_light_of_a_panorama_has_the_coefficients_of_its_radiance() -> None:
    coefficients = rand(9, 3) - 0.3
    image = (real_harmonics(panorama_directions((64, 128)).double().reshape(-1, 3)) @ coefficients).reshape(64, 128, 3)
    found = SphericalHarmonicsLight.from_panorama(image.requires_grad_())
    # each pixel counts by its middle, which is off by (pi / 64)^2 / 24 of second derivatives, at most 6 times the value
    torch.testing.assert_close(found.coefficients, coefficients, rtol=0, atol=3e-3)
    (gradient,) = torch.autograd.grad(found.coefficients[0].sum(), image)
    torch.testing.assert_close(gradient.sum(), image.new_tensor(3 * math.sqrt(4 * math.pi)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("row", "column", "normal"),
    [
        (8, 24, (1, 0, 0)),
        (8, 8, (-1, 0, 0)),
        (8, 16, (0, 0, -1)),
        (8, 0, (0, 0, 1)),
        (0, 5, (0, 1, 0)),
        (15, 5, (0, -1, 0)),
    ],
)
def test_a_lamp_in_a_panorama_lights_the_side_that_faces_it(
    row: int, column: int, normal: tuple[float, float, float]
) -> None:
    image = torch.zeros(16, 32, 3)
    image[row, column] = 1.0
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    light = SphericalHarmonicsLight.from_panorama(image).irradiance(axes, axes)[:, 0]
    assert axes[light.argmax()].tolist() == list(normal)


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 4)])
def test_a_panorama_without_three_channels_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must .*got .*: \[height, width, 3\], linear"):
        SphericalHarmonicsLight.from_panorama(torch.ones(shape))


def lights_of(values: Tensor) -> list[Light]:
    a, b, c = values[:3], values[3:6] - 1.5, values[6:9] + 1
    return [AmbientLight(a), DirectionalLight(b, a), PointLight(c, b), SphericalHarmonicsLight(values[9:].view(4, 3))]


@pytest.mark.parametrize("kind", ["flat", "smooth"])
def test_gradients_reach_lights_and_geometry(kind: str) -> None:
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])

    def f(vertices: Tensor, parameters: Tensor, barycentrics: Tensor) -> Tensor:
        shader = Lambert(lights_of(parameters), normals=kind)  # type: ignore[arg-type]
        return shader(fragments_on([0, 1, 0], barycentrics), Mesh(vertices, faces))

    bent = square().vertices + 0.2 * rand(4, 3)
    inputs = [
        bent,
        rand(21, seed=3),
        torch.tensor([[0.6, 0.25, 0.15], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]], dtype=torch.float64),
    ]
    for x in inputs:
        x.requires_grad_()
    fragments, mesh = fragments_on([0, 1, 0], inputs[2]), Mesh(bent, faces)
    for light in lights_of(inputs[1]):  # the check below would pass in the dark, too
        assert (Lambert([light], normals=kind)(fragments, mesh) != 0).all()  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(f, inputs)


def test_light_parameters_may_be_tuples_tensors_or_tuples_of_tensors() -> None:
    points, normals = torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]])
    height = torch.tensor(2.0, requires_grad=True)
    value = PointLight((0.0, 0.0, height)).irradiance(points, normals)  # type: ignore[arg-type]
    value[0, 0].backward()
    assert value[0, 0].item() == pytest.approx(0.25, rel=1e-6)  # float32
    assert height.grad is not None
    assert height.grad.item() == pytest.approx(-2 / 8, rel=1e-6)  # d (1/h^2) / dh
    assert AmbientLight(torch.ones(3).double()).irradiance(points, normals).dtype == torch.float32
    moved = DirectionalLight(torch.ones(3), (1, 1, 1)).to(dtype=torch.float64)
    assert isinstance(moved.direction, Tensor)
    assert moved.direction.dtype == torch.float64


# --- the shader ---


def test_lambert_is_albedo_times_the_sum_of_lights() -> None:
    albedo = rand(3)
    mesh = square(materials=(Material(base_color=albedo),))
    lights = [AmbientLight((0.1, 0.2, 0.3)), DirectionalLight((0, 0, -1), (0.5, 0.5, 0.5))]
    expected = albedo * vector(0.6, 0.7, 0.8)
    assert_same(Lambert(lights)(fragments_on([0, 1]), mesh), expected.expand(2, 3))
    behind = fragments_on([0, 1], front=False)
    expected = albedo * vector(0.1, 0.2, 0.3)
    assert_same(Lambert(lights)(behind, mesh), expected.expand(2, 3))
    assert torch.equal(Lambert([])(behind, mesh), torch.zeros(2, 3).double())


def test_buffer_shaders_show_what_a_fragment_is() -> None:
    fragments, mesh = fragments_on([0, 1, 1]), square()
    assert torch.equal(depth_shader(fragments, mesh), fragments.depth[:, None])
    assert torch.equal(uv_shader(fragments, mesh), position_shader(fragments, mesh)[:, :2])
    corners = mesh.vertices[mesh.faces[fragments.face_index]]  # [N, 3, 3]
    expected = torch.einsum("nk,nkc->nc", fragments.barycentrics, corners)
    assert_same(position_shader(fragments, mesh), expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AmbientLight((1.0, 1.0)), ValueError, "color must be three numbers or a tensor.*got 2 values"),
        (lambda: AmbientLight(torch.ones(1, 3)), ValueError, r"color must be three numbers.*got \(1, 3\) float32"),
        (lambda: AmbientLight(0.5), ValueError, "color must be three numbers.*got float"),  # type: ignore[arg-type]
        (lambda: PointLight((math.nan, 0, 0)), ValueError, "position must be finite"),
        (lambda: DirectionalLight((0, 0, 0)), ValueError, "direction must not be zero.*travels to"),
        (lambda: SphericalHarmonicsLight(torch.ones(16, 3)), ValueError, r"coefficients must.*got \(16, 3\) float32"),
        (lambda: SphericalHarmonicsLight(torch.full((9, 3), math.inf)), ValueError, "coefficients holds 27 values"),
        (lambda: Lambert(AmbientLight()), TypeError, r"got one AmbientLight: write \[light\]"),  # type: ignore[arg-type]
        (lambda: Lambert([(1.0, 1.0, 1.0)]), TypeError, r"lights\[0\] must be a Light; got tuple"),  # type: ignore[list-item]
        (lambda: Lambert([], normals="phong"), ValueError, "normals must be 'smooth' or 'flat'; got 'phong'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_lights_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_colours_that_are_not_rgb_cannot_be_lit() -> None:
    with pytest.raises(ValueError, match=r"lights need colours with 3 channels \(RGB\); got 5"):
        Lambert([AmbientLight()])(fragments_on([0]), square(vertex_colors=rand(4, 5)))


def test_uvs_cannot_be_shown_without_uvs() -> None:
    with pytest.raises(ValueError, match="mesh must have uvs"):
        uv_shader(fragments_on([0]), square(uvs=None))
