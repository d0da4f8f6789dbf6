"""The boundary term against closed forms, brute force and finite differences of the converged image."""

import math

import pytest
import torch
from torch import Tensor

from diffrender.boundary import Boundary, boundary
from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, so3_exp
from diffrender.mesh import Material, Mesh, join
from diffrender.pixel_rays import pixel_rays
from diffrender.primitives import grid, sphere
from diffrender.render import render
from diffrender.scene import pack
from diffrender.shading import AmbientLight, DirectionalLight, Lambert, unlit
from diffrender.testing import converged_image

DISTORTION = (-0.3, 0.1, 0.002, -0.003, 0.02)


def cameras(size: int, dtype: torch.dtype = torch.float64) -> dict[str, Camera]:
    """One camera of each kind, `size` pixels square, the principal point a little off the middle."""
    cx, cy = (torch.tensor(size / 2 + offset, dtype=dtype) for offset in (0.3, -0.2))
    return {
        "pinhole": PinholeCamera(1.1 * size, 1.1 * size, cx, cy, size=(size, size)),
        "orthographic": OrthographicCamera(0.35 * size, 0.35 * size, cx, cy, size=(size, size)),
        "fisheye": FisheyeCamera(0.7 * size, 0.7 * size, cx, cy, k=(0.05, -0.01, 0.002, 0.0), size=(size, size)),
        "opencv": OpenCVCamera(1.1 * size, 1.1 * size, cx, cy, dist=DISTORTION, size=(size, size)),
    }


def placed(mesh: Mesh, kind: str) -> Mesh:
    """`mesh` where the camera of that kind sees it: off the axis of the fisheye."""
    offset = (0.8, 0.5, 2.2) if kind == "fisheye" else (0.0, 0.0, 3.2)
    rotation = so3_exp(torch.tensor([0.2, -0.3, 0.1], dtype=mesh.vertices.dtype))
    return mesh.replace(vertices=mesh.vertices @ rotation.mT + mesh.vertices.new_tensor(offset))


def pieces(mesh: Mesh, camera: Camera) -> Boundary:
    scene = pack(mesh, camera)
    return boundary(scene, pixel_rays(scene))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["pinhole", "orthographic", "fisheye", "opencv"])
def test_silhouette_of_a_convex_body_has_the_background_on_one_side(kind: str, dtype: torch.dtype) -> None:
    """A bent edge's chord runs a little inside the body; what lies beyond the edge is the background all the same."""
    body = sphere(subdivisions=3, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        turn = so3_exp(torch.randn(3, generator=generator, dtype=torch.float64)).to(dtype)
        found = pieces(placed(Mesh(body.vertices @ turn.mT, body.faces), kind), cameras(96, dtype)[kind])
        assert len(found.area) > 200
        assert ((found.left < 0) ^ (found.right < 0)).all()


# Closed forms


@pytest.mark.parametrize("kind", ["pinhole", "orthographic", "fisheye", "opencv"])
def test_pieces_of_a_closed_silhouette_form_a_closed_loop(kind: str) -> None:
    """The gradient of the area by a shift of all pixels is the sum of all normals times lengths: zero."""
    camera = cameras(64)[kind]
    cx, cy = (getattr(camera, name).clone().requires_grad_() for name in ("cx", "cy"))
    body = sphere(2, dtype=torch.float64)
    mesh = placed(Mesh(0.7 * body.vertices, body.faces), kind)
    alpha = render(mesh, camera.replace(cx=cx, cy=cy))[..., -1]
    still = alpha.detach()
    assert float(still[[0, -1]].max()) == float(still[:, [0, -1]].max()) == 0  # wholly inside the image
    assert 300 < float(still.sum()) < 2500
    gradients = torch.autograd.grad(alpha.sum(), [cx, cy])
    torch.testing.assert_close(torch.stack(gradients), torch.zeros(2).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_area_grows_with_the_square_of_scale_and_focal_length(dtype: torch.dtype) -> None:
    """Orthographic, area ~ scale^2; pinhole, area ~ fx fy. The error is the rounding of some hundred pieces."""
    tolerance = {"rtol": 1e-3 if dtype == torch.float32 else 1e-10, "atol": 0.0}
    one = torch.ones((), dtype=dtype, requires_grad=True)
    for subdivisions in (0, 2):
        mesh = bare(sphere(subdivisions, dtype=dtype))
        camera = cameras(64, dtype)["orthographic"]
        still = placed(mesh, "orthographic")
        area = render(still.replace(vertices=still.vertices * one), camera)[..., -1].sum()
        torch.testing.assert_close(torch.autograd.grad(area, one)[0], 2 * area.detach(), **tolerance)
        camera = cameras(64, dtype)["pinhole"]
        fx = camera.fx.detach().clone().requires_grad_()
        area = render(placed(mesh, "pinhole"), camera.replace(fx=fx))[..., -1].sum()
        torch.testing.assert_close(torch.autograd.grad(area, fx)[0], area.detach() / fx.detach(), **tolerance)


def test_image_border_cuts_a_moving_edge_where_it_is() -> None:
    """A half-plane that ends inside the image: area = width x height, also where it leaves the image."""
    corners = torch.tensor([[-50.0, -50, 1], [3.3, -50, 1], [3.3, 50, 1], [-50, 50, 1]], dtype=torch.float64)
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    mesh = Mesh(corners + shift, torch.tensor([[0, 2, 1], [0, 3, 2]]))
    camera = PinholeCamera(torch.ones((), dtype=torch.float64), 1.0, 0.0, 0.0, size=(5, 7))
    area = render(mesh, camera)[..., -1].sum()
    torch.testing.assert_close(area.detach(), torch.tensor(3.3 * 5).double(), rtol=1e-12, atol=0)
    expected = torch.tensor([5.0, 0.0, -3.3 * 5]).double()  # moving away by dz shrinks x = 3.3 / z
    torch.testing.assert_close(torch.autograd.grad(area, shift)[0], expected, rtol=1e-12, atol=1e-12)


def area_ahead(corners: Tensor) -> float:
    """Area of the part of a triangle [3, 3] with z > 0, seen along z."""
    kept = []
    for p, q in zip(corners, corners.roll(-1, 0), strict=True):
        if p[2] > 0:
            kept.append(p)
        if (p[2] > 0) != (q[2] > 0):
            kept.append(p + p[2] / (p[2] - q[2]) * (q - p))
    if not kept:
        return 0.0
    x, y = torch.stack(kept)[:, :2].unbind(-1)
    return 0.5 * abs(float((x * y.roll(-1) - y * x.roll(-1)).sum()))


def test_the_plane_where_parallel_rays_start_cuts_faces() -> None:
    camera = OrthographicCamera(4.0, 4.0, 8.0, 8.0, size=(16, 16)).to(dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        corners = torch.randn(3, 3, generator=generator, dtype=torch.float64).clamp(-1.9, 1.9)
        alpha = render(Mesh(corners, torch.tensor([[0, 1, 2]])), camera)[..., -1]
        assert float(alpha.sum()) == pytest.approx(16 * area_ahead(corners), abs=1e-9)
        assert float(alpha.min()) > -1e-9
        assert float(alpha.max()) < 1 + 1e-9


def assert_alpha_inside_a_sphere(seed: int) -> None:
    """Parallel rays that start in a plane through a sphere meet its far part; nothing is before that."""
    random = torch.Generator().manual_seed(seed)
    t, turn = 0.2 * torch.rand(3, generator=random), torch.rand(3, generator=random)
    R = so3_exp(turn) if seed % 3 else torch.eye(3)
    camera = OrthographicCamera(20.0, 20.0, 16.0, 16.0, size=(32, 32), R=R, t=t)
    mesh = sphere(1 + seed % 2).replace(uvs=None)
    expected = converged_image(lambda _: (mesh, camera), {}, samples=64)
    torch.testing.assert_close(render(mesh, camera)[..., -1], expected[..., -1], rtol=0, atol=0.02)


@pytest.mark.parametrize("seed", [27, 54])
def test_cuts_that_are_a_little_behind_their_plane_are_seen(seed: int) -> None:
    """Rounding puts them there."""
    assert_alpha_inside_a_sphere(seed)


@pytest.mark.parametrize("seed", [3, 9, 36, 57])
def test_edges_exactly_behind_others_have_one_outline_also_where_rays_start_next_to_them(seed: int) -> None:
    """What rounds is the distance from the middle of the frame, of the edges and of the starts."""
    assert_alpha_inside_a_sphere(seed)


def test_intersection_is_an_edge_between_the_two_surfaces() -> None:
    """Two planes that cross along x = s: the left half shows one, the right half the other, and s moves with both."""
    side = torch.tensor([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def tilted(slope: float, shift: Tensor) -> Tensor:  # z = 5 + slope * (x - 0.13) + shift
        z = 5 + slope * (side[:, 0] - 0.13) + shift
        return torch.stack([side[:, 0], side[:, 1], z], dim=-1)

    colors = torch.tensor([[1.0, 0.0]]).double().repeat_interleave(4, 0), torch.tensor([[0.0, 1.0]]).double()
    first = Mesh(tilted(1.0, shift[0]), faces, vertex_colors=colors[0])
    second = Mesh(tilted(-2.0, shift[1]), faces, vertex_colors=colors[1].repeat_interleave(4, 0))
    camera = OrthographicCamera(2.0, 2.0, 4.0, 3.0, size=(6, 8)).to(dtype=torch.float64)
    image = render(join([first, second]), camera)
    red = image[..., 0].sum()  # in front where x < s, with s = 0.13 + (shift_1 - shift_0) / 3
    assert float(red.detach()) == pytest.approx((0.13 * 2 + 4) * 6, abs=1e-9)
    assert float(image[..., 1].sum().detach()) == pytest.approx((4 - 0.13 * 2) * 6, abs=1e-9)
    slope = 2 * 6 / 3
    torch.testing.assert_close(torch.autograd.grad(red, shift)[0], torch.tensor([-slope, slope]).double())
    apart = render(join([first, second]), camera, intersecting=False)[..., 0].sum()
    assert abs(float((apart - red).detach())) > 0.1


def test_second_derivative_of_the_boundary_is_refused() -> None:
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    ball = sphere(1, dtype=torch.float64)
    mesh = Mesh(scale * ball.vertices + ball.vertices.new_tensor([0, 0, 3.0]), ball.faces)
    camera = cameras(16)["pinhole"]
    (slope,) = torch.autograd.grad(render(mesh, camera)[..., -1].sum(), scale, create_graph=True)
    with pytest.raises(RuntimeError, match="the boundary term of render has one derivative only"):
        torch.autograd.grad(slope, scale)


# Finite differences of the converged image

START = torch.tensor([0.0, 0.0, 0.0, 0.02, -0.03, 0.01, 1.0, 1.0], dtype=torch.float64)


def bare(mesh: Mesh) -> Mesh:
    """Without uvs, coloured by position."""
    return Mesh(mesh.vertices, mesh.faces, vertex_colors=0.5 + 0.5 * torch.sin(3 * mesh.vertices))


def sheet(dtype: torch.dtype = torch.float64) -> Mesh:
    """An open surface, curved so that it hides part of itself."""
    flat = grid(24, 24, dtype=dtype)
    x, y = (flat.vertices[:, i] / flat.vertices[:, i].abs().max() for i in (0, 1))
    bent = torch.stack([x, y, 0.4 * torch.sin(3 * x) * torch.cos(2 * y) + 0.8 * x * x], dim=-1)
    return bare(Mesh(bent @ so3_exp(torch.tensor([0.5, 0.7, 0.2], dtype=dtype)).mT, flat.faces))


def build(name: str) -> Mesh:
    ball = sphere(3, dtype=torch.float64)
    if name == "sheet":
        return sheet()
    if name == "texture":
        u = torch.linspace(0, 2 * math.pi, 33, dtype=torch.float64)[:-1]
        waves = (
            torch.sin(3 * u[:, None]) * torch.cos(2 * u),
            torch.cos(u[:, None] + 2 * u),
            torch.sin(u).expand(32, 32),
        )
        texture = 0.5 + 0.4 * torch.stack(waves, dim=-1)
        return Mesh(ball.vertices, ball.faces, ball.uvs, ball.uv_faces, materials=(Material(texture=texture),))
    far = bare(ball)
    if name == "crossing balls":
        near = far.vertices * 0.7 + torch.tensor([0.6, 0.2, -0.5], dtype=torch.float64)
        return join([far, Mesh(near, far.faces, vertex_colors=1 - far.vertex_colors)])
    if name == "two balls":
        near = far.vertices * 0.6 + torch.tensor([0.5, 0.2, -1.5], dtype=torch.float64)
        return join([far, Mesh(near, far.faces, vertex_colors=1 - far.vertex_colors)])
    return far


def gradient_errors(
    name: str, kind: str, shading: str, size: int, samples: int, *, quick: bool = False
) -> tuple[float, float]:
    """Norm-relative errors of the gradients of a weighted sum of alpha and of one of the colours.

    By translation, rotation, scale and focal length; against central differences of `render` with 4 x 4 samples, whose
    pixels were compared with brute force in test_render. A step of 1e-3 moves edges by less than a tenth of a pixel;
    halving it changes the differences by 0.1 to 0.3 %, and so do 6 x 6 samples.
    """
    mesh = build(name)
    lights = (DirectionalLight((0.4, 0.6, 1.0)), AmbientLight((0.2, 0.2, 0.2)))
    shader = unlit if shading == "unlit" else Lambert(lights, normals=shading)  # type: ignore[arg-type]
    offset = torch.tensor((0.8, 0.5, 2.2) if kind == "fisheye" else (0.0, 0.0, 3.2), dtype=torch.float64)
    x = torch.linspace(0, 1, size, dtype=torch.float64)
    weight = torch.stack([torch.sin(3 * x + 2 * x[:, None] + k) for k in range(4)], dim=-1)
    weight = weight + 0.5 * torch.stack([torch.cos(7 * (k + 1) * x - 5 * x[:, None]) for k in range(4)], dim=-1)

    def losses(parameters: Tensor, samples: int) -> Tensor:
        vertices = parameters[6] * mesh.vertices @ so3_exp(parameters[3:6]).mT + parameters[:3] + offset
        camera = cameras(size)[kind]
        camera = camera.replace(fx=camera.fx * parameters[7], fy=camera.fy * parameters[7])  # type: ignore[attr-defined]
        image = render(mesh.replace(vertices=vertices), camera, background=1.0, samples=samples, shader=shader)
        sums = (image * weight).sum((0, 1))
        return torch.stack([sums[3], sums[:3].sum()])

    parameters = START.clone().requires_grad_()
    alpha, color = losses(parameters, samples)
    found = torch.stack([torch.autograd.grad(loss, parameters, retain_graph=True)[0] for loss in (alpha, color)])
    chosen = torch.tensor([0, 2, 4, 6, 7]) if quick else torch.arange(len(START))
    with torch.no_grad():
        steps = 1e-3 * torch.eye(len(START), dtype=torch.float64)[chosen]
        differences = [(losses(START + step, 4) - losses(START - step, 4)) / 2e-3 for step in steps]
    reference, found = torch.stack(differences, dim=-1), found[:, chosen]
    alpha_error, color_error = ((found - reference).norm(dim=-1) / reference.norm(dim=-1)).tolist()
    return alpha_error, color_error


CASES = [
    ("ball", "pinhole", "unlit"),
    ("two balls", "fisheye", "unlit"),
    ("crossing balls", "pinhole", "unlit"),
    ("crossing balls", "fisheye", "unlit"),
    ("sheet", "opencv", "unlit"),
    ("texture", "pinhole", "unlit"),
    ("ball", "pinhole", "smooth"),
    ("sheet", "pinhole", "flat"),
]


@pytest.mark.parametrize(("name", "kind", "shading"), CASES)
def test_gradient_is_that_of_the_converged_image(name: str, kind: str, shading: str) -> None:
    """Alpha to 0.3 %, colours to 0.1 to 2 % at 40 pixels: they are looked up at one point per pixel."""
    alpha_error, color_error = gradient_errors(name, kind, shading, 40, 1, quick=True)
    assert alpha_error < 0.005
    assert color_error < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("shading", ["unlit", "smooth", "flat"])
@pytest.mark.parametrize("kind", ["pinhole", "orthographic", "fisheye", "opencv"])
@pytest.mark.parametrize("name", ["ball", "two balls", "crossing balls", "sheet", "texture"])
def test_gradient_is_that_of_the_converged_image_in_every_combination(name: str, kind: str, shading: str) -> None:
    if shading != "unlit" and kind in ("orthographic", "opencv"):
        pytest.skip("the shading does not depend on the kind of camera")
    for samples, bound in ((1, 0.03), (4, 0.02)):
        alpha_error, color_error = gradient_errors(name, kind, shading, 64, samples)
        assert alpha_error < 0.01
        assert color_error < bound


def test_coverage_is_the_same_whether_silhouettes_or_all_edges_are_followed() -> None:
    """Facets change no outline; but with all their edges some dozens meet in a pixel, and each may cross each."""
    generator = torch.Generator().manual_seed(0)
    balls = []
    for _ in range(9):
        ball, place = sphere(2), 1.2 * (torch.rand(3, generator=generator) - 0.5)
        balls.append(ball.replace(vertices=0.35 * ball.vertices + place))
    camera = PinholeCamera(60.0, 60.0, 32.0, 32.0, size=(64, 64), t=(0.0, 0.0, 4.0))
    smooth, faceted = (
        render(join(balls), camera, shader=Lambert((AmbientLight(),), normals=kind))[..., -1]
        for kind in ("smooth", "flat")
    )
    torch.testing.assert_close(faceted, smooth, rtol=0, atol=1e-5)
