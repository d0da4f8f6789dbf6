"""`render` against exact areas, brute force, and the laws of images."""

import itertools
import math
from importlib import import_module
from typing import Any

import pytest
import torch
from lenses import RollingShutter
from torch import Tensor

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    so3_exp,
    stack_cameras,
)
from diffrender.fragments import interpolate
from diffrender.grazing import Grazing, grazing_steps
from diffrender.mesh import Material, Mesh, join
from diffrender.pixel_rays import pixel_rays
from diffrender.primitives import cube, grid, sphere
from diffrender.render import covered, render
from diffrender.scene import pack
from diffrender.shading import AmbientLight, DirectionalLight, Lambert
from diffrender.visibility import Steps, face_image

KINDS = ("pinhole", "orthographic", "fisheye", "opencv")
SHIFT = torch.tensor([0.0, 0.0, 3.2], dtype=torch.float64)
WHITE = AmbientLight((1.0, 1.0, 1.0))


def camera_of(kind: str, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Camera:
    """A camera that sees the unit ball at `SHIFT` whole."""
    s, cx, cy = float(min(size)), torch.tensor(size[1] / 2 + 0.3, dtype=dtype), size[0] / 2 - 0.2
    if kind == "pinhole":
        return PinholeCamera(1.1 * s, 1.2 * s, cx, cy, size=size)
    if kind == "orthographic":
        return OrthographicCamera(0.4 * s, 0.35 * s, cx, cy, size=size)
    if kind == "fisheye":
        return FisheyeCamera(1.2 * s, 1.1 * s, cx, cy, k=(0.05, -0.01, 0.002, 0.0), size=size)
    return OpenCVCamera(1.1 * s, 1.2 * s, cx, cy, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=size)


def ball(subdivisions: int = 3, dtype: torch.dtype = torch.float64) -> Mesh:
    mesh = sphere(subdivisions, dtype=dtype)
    vertices = mesh.vertices @ so3_exp(torch.tensor([0.2, -0.5, 0.3], dtype=dtype)).mT + SHIFT.to(dtype)
    return Mesh(vertices, mesh.faces, vertex_colors=0.5 + 0.5 * torch.sin(3 * mesh.vertices))


def two_balls() -> Mesh:
    """One ball before the other."""
    far = ball(2)
    near = far.replace(
        vertices=(far.vertices - SHIFT) * 0.4 + SHIFT + torch.tensor([0.4, 0.2, -1.6]),
        vertex_colors=1 - far.vertex_colors,
    )
    return join([far, near])


def sheet() -> Mesh:
    """An open, curved surface that hides part of itself."""
    flat = grid(12, 12, dtype=torch.float64)
    x, y = (2 * (flat.vertices[:, i] / flat.vertices[:, i].abs().max()) for i in (0, 1))
    bent = torch.stack([x, y, 0.4 * torch.sin(3 * x) * torch.cos(2 * y) + 0.4 * x * x], dim=-1) * 0.45
    turned = bent @ so3_exp(torch.tensor([0.5, 0.7, 0.2], dtype=torch.float64)).mT
    return Mesh(turned + SHIFT, flat.faces, vertex_colors=0.5 + 0.5 * torch.sin(3 * bent))


# Exact areas


def clipped_area(polygon: list[tuple[float, float]], x: int, y: int) -> float:
    """Area of a polygon inside the pixel (x, y): Sutherland & Hodgman 1974, then the shoelace formula."""
    for axis, bound, keep in ((0, x, 1), (0, x + 1, -1), (1, y, 1), (1, y + 1, -1)):
        clipped = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside_p, inside_q = keep * (p[axis] - bound) >= 0, keep * (q[axis] - bound) >= 0
            if inside_p:
                clipped.append(p)
            if inside_p != inside_q:
                t = (bound - p[axis]) / (q[axis] - p[axis])
                clipped.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = clipped
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True) if polygon else ()
    return abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs)) / 2


def polygon_area(polygon: list[tuple[float, float]], size: tuple[int, int]) -> Tensor:
    rows = [[clipped_area(polygon, x, y) for x in range(size[1])] for y in range(size[0])]
    return torch.tensor(rows, dtype=torch.float64)


def convex_polygon(generator: torch.Generator, corners: int, radius: float, size: tuple[int, int]) -> Tensor:
    """Corners [K, 2] on a random ellipse whose middle is anywhere in or near the image."""
    angle = torch.sort(torch.rand(corners, generator=generator, dtype=torch.float64) * 2 * math.pi).values
    middle = torch.rand(2, generator=generator, dtype=torch.float64) * torch.tensor([size[1], size[0]])
    axes = radius * (0.1 + torch.rand(2, generator=generator, dtype=torch.float64))
    return middle + axes * torch.stack([angle.cos(), angle.sin()], dim=-1)


def flat_mesh(polygon: Tensor, depth: Tensor, focal: float) -> Mesh:
    """A fan over the polygon [K, 2] in pixels, its corners at these depths [K]."""
    vertices = torch.cat([polygon * depth[:, None] / focal, depth[:, None]], dim=-1)
    fan = [[0, i, i + 1] for i in range(1, len(polygon) - 1)]
    return Mesh(vertices, torch.tensor(fan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tilted", [False, True])
def test_alpha_of_polygons_is_their_exact_area(dtype: torch.dtype, tilted: bool) -> None:
    """Triangles and quads from a twentieth of a pixel to larger than the image, through any corners of pixels.

    Edges pass a pixel in straight lines, so the only error is rounding: coordinates up to 60 pixels with a relative
    error of some epsilon shift edges by 1e-5 (float32), and at most some 4 pixels of edge lie in a pixel.
    """
    size, focal = (9, 12), 20.0
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    for seed in range(48):
        generator = torch.Generator().manual_seed(seed)
        radius = (0.05, 0.5, 3.0, 20.0)[seed % 4]
        polygon = convex_polygon(generator, 3 + seed // 4 % 2, radius, size)
        if len(polygon) == 3 and seed % 3 == 0:
            polygon = (2 * polygon).round() / 2  # corners on corners and centres of pixels
        depth = torch.full((len(polygon),), 2.0, dtype=torch.float64)
        if tilted and len(polygon) == 3:
            depth = depth + torch.rand(3, generator=generator, dtype=torch.float64)
        camera = PinholeCamera(torch.tensor(focal, dtype=dtype), focal, 0.0, 0.0, size=size)
        alpha = render(flat_mesh(polygon, depth, focal).to(dtype=dtype), camera)[..., -1]
        expected = polygon_area([tuple(p) for p in polygon.tolist()], size)
        torch.testing.assert_close(alpha.double(), expected, rtol=0, atol=tolerance, msg=lambda m: f"seed {seed}: {m}")  # noqa: B023


def test_constant_colour_is_premultiplied_by_the_exact_area() -> None:
    size, color, background = (9, 12), torch.tensor([0.2, 0.7, 1.0]).double(), torch.tensor([1.0, 0.5, 0.25]).double()
    polygon = convex_polygon(torch.Generator().manual_seed(2), 4, 4.0, size)
    mesh = flat_mesh(polygon, torch.full((4,), 2.0, dtype=torch.float64), 20.0)
    mesh = mesh.replace(vertex_colors=color.expand(4, 3))
    image = render(mesh, PinholeCamera(torch.tensor(20.0).double(), 20, 0, 0, size=size), background=background)
    area = polygon_area([tuple(p) for p in polygon.tolist()], size)[..., None]
    torch.testing.assert_close(
        image, torch.cat([area * color + (1 - area) * background, area], dim=-1), rtol=0, atol=1e-12
    )


def test_finer_and_finer_spheres_tend_to_the_ellipse_at_the_rate_of_chords() -> None:
    """A pinhole sees a ball off its axis as an ellipse; an inscribed polyhedron lacks an area of order (edge length)^2.

    The cone about the ball has the half-angle alpha, sin alpha = r / distance, about an axis at the angle theta from
    the optical one; on z = 1 the ellipse has the semi-axes sin alpha cos alpha / (cos^2 theta - sin^2 alpha) and
    sin alpha / sqrt(cos^2 theta - sin^2 alpha).
    """
    middle, f = torch.tensor([0.5, -0.3, 3.5], dtype=torch.float64), 90.0
    distance = float(middle.norm())
    sine, cosine = 1 / distance, float(middle[2]) / distance
    rest = cosine**2 - sine**2
    expected = f * f * math.pi * sine * math.sqrt(1 - sine**2) / rest * sine / math.sqrt(rest)
    camera = PinholeCamera(torch.tensor(f).double(), f, 45.0, 50.0, size=(96, 110))
    missing = []
    for subdivisions in (2, 3, 4):
        mesh = sphere(subdivisions, dtype=torch.float64)
        alpha = render(Mesh(mesh.vertices + middle, mesh.faces), camera)[..., -1]
        missing.append(1 - float(alpha.sum()) / expected)
    assert 0 < missing[2] < 2e-3
    for coarse, fine in itertools.pairwise(missing):
        assert 3.3 < coarse / fine < 4.7  # 4, up to how the silhouette happens to run over the icosahedron


# Brute force


def supersampled(mesh: Mesh, camera: Camera, per_side: int, background: float = 1.0) -> Tensor:
    """The box-filtered image from visibility at per_side^2 points of each pixel, without any boundary term."""
    height, width = camera.size
    fine = camera.resize((height * per_side, width * per_side))
    scene = pack(mesh, fine)
    rays = pixel_rays(scene)
    faces = face_image(scene, rays)
    pixel, fragments = covered(scene, rays, faces)
    assert mesh.vertex_colors is not None
    colors = interpolate(mesh.vertex_colors, mesh.faces, fragments)
    image = torch.full((faces.numel(), 4), background, dtype=colors.dtype)
    image[:, 3] = 0
    image[pixel] = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1)
    return image.reshape(height, per_side, width, per_side, 4).mean((1, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [ball, two_balls, sheet], ids=["ball", "two balls", "sheet"])
def test_image_is_the_mean_over_pixels(kind: str, build: object) -> None:
    """Against 12 x 12 points per pixel, whose own error along an edge is uniform in +-1/24 at worst: 0.024 rms there.

    Edges run through a tenth of the pixels or fewer: 0.01 over the image. `render` looks up colours once per
    pixel, and treats edges that cross within a pixel as if they did not: single pixels may be off by more.
    """
    mesh, camera = build(), camera_of(kind, (40, 44))  # type: ignore[operator]
    reference = supersampled(mesh, camera, 12)
    errors = []
    for samples in (1, 4):
        image = render(mesh, camera, background=1.0, samples=samples)
        error = image - reference
        errors.append(float(error.square().mean().sqrt()))
        assert abs(float(error[..., -1].sum())) < 0.002 * float(reference[..., -1].sum())
    assert errors[0] < 0.01
    assert errors[1] < 0.005


def test_one_sample_and_many_tend_to_the_same_image() -> None:
    mesh, camera = two_balls(), camera_of("fisheye", (32, 32))
    converged = render(mesh, camera, samples=12)
    errors = [float((render(mesh, camera, samples=n) - converged).abs().mean()) for n in (1, 2, 4)]
    assert errors[0] > 1.5 * errors[1] > 2.2 * errors[2]
    assert errors[2] < 1e-3


# Laws


def test_background_as_number_colour_and_image() -> None:
    mesh, camera = ball(2, torch.float32), camera_of("pinhole", (12, 15), torch.float32)
    black = render(mesh, camera)
    alpha = black[..., -1:]
    picture = torch.rand(12, 15, 3, generator=torch.Generator().manual_seed(0))
    for background in (0.25, (0.1, 0.2, 0.3), torch.tensor([0.1, 0.2, 0.3]), picture):
        image = render(mesh, camera, background=background)
        expected = black[..., :3] + (1 - alpha) * torch.as_tensor(background)
        torch.testing.assert_close(image[..., :3], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(image[..., 3:], alpha, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_equal_loops(kind: str) -> None:
    mesh, one = ball(1, torch.float32), camera_of(kind, (14, 17), torch.float32)
    cameras = [one.replace(t=(0.3 * i, -0.2 * i, 0.4 * i)) for i in range(4)]
    batch = render(mesh, stack_cameras([stack_cameras(cameras[:2]), stack_cameras(cameras[2:])]), background=0.5)
    assert batch.shape == (2, 2, 14, 17, 4)
    singles = torch.stack([render(mesh, camera, background=0.5) for camera in cameras])
    # Not bit for bit: batched matrix products sum in another order.
    torch.testing.assert_close(batch.flatten(0, 1), singles, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_meshes_equal_single_images_and_gradients(kind: str) -> None:
    one = camera_of(kind, (14, 17))
    empty = Mesh(torch.zeros(0, 3).double(), torch.zeros(0, 3).long(), vertex_colors=torch.zeros(0, 3).double())
    meshes = [ball(1), empty, two_balls(), sheet()]
    cameras = [one.replace(t=(0.1 * i, 0.0, 0.2 * i)) for i in range(4)]
    leaves = [m.vertices.clone().requires_grad_() for m in meshes]
    moved = [m.replace(vertices=v) for m, v in zip(meshes, leaves, strict=True)]
    weight = torch.rand(4, 14, 17, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = render(moved, stack_cameras(cameras), background=0.5)
    singles = torch.stack([render(m, c, background=0.5) for m, c in zip(moved, cameras, strict=True)])
    torch.testing.assert_close(together, singles, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad((x * weight).sum(), leaves) for x in (together, singles)]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_culling_a_closed_body_changes_nothing_and_an_open_one_does() -> None:
    mesh, camera = ball(2), camera_of("pinhole", (20, 20))
    torch.testing.assert_close(render(mesh, camera, cull_backfaces=True), render(mesh, camera), rtol=0, atol=1e-12)
    inside_out = mesh.replace(faces=mesh.faces[:, [0, 2, 1]])
    culled = render(inside_out, camera, cull_backfaces=True)
    torch.testing.assert_close(culled[..., -1], render(mesh, camera)[..., -1], rtol=0, atol=1e-12)
    assert (culled - render(inside_out, camera))[..., :3].abs().max() > 0.1  # the far side shows instead


def test_body_standing_on_a_plane_keeps_its_silhouette() -> None:
    """Edges that lie in another surface are as visible as that surface."""
    size = (40, 44)
    box = cube(dtype=torch.float64)
    floor = grid(1, 1, dtype=torch.float64)
    extent = floor.vertices[:, 0].abs().max()
    lowest = box.vertices[:, 1].max()
    flat = floor.vertices / extent * 1.6
    ground = torch.stack([flat[:, 0], torch.zeros_like(flat[:, 0]) + lowest, flat[:, 1]], dim=-1)
    vertices = torch.cat([box.vertices, ground])
    faces = torch.cat([box.faces, floor.faces + len(box.vertices)])
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    colors = colors.repeat_interleave(torch.tensor([len(box.vertices), len(ground)]), dim=0)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        turn = torch.randn(3, generator=generator, dtype=torch.float64) * torch.tensor([0.1, 1.0, 0.1]).double()
        pose = so3_exp(torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)) @ so3_exp(turn)
        mesh = Mesh(vertices @ pose.mT * 0.5 + SHIFT, faces, vertex_colors=colors)
        for dtype in (torch.float32, torch.float64):
            image = render(mesh.to(dtype=dtype), camera_of("pinhole", size, dtype))
            difference = (image - supersampled(mesh, camera_of("pinhole", size), 12, 0.0)).abs()
            # Flat colours: off by less than half of the reference's own twelfth, except where edges meet in a pixel.
            worst = difference.amax(-1).flatten().sort().values
            assert float(worst[-4]) < 0.04, (seed, dtype)
            assert float(worst[-1]) < 0.15, (seed, dtype)


def test_buffers_are_looked_up_at_centres() -> None:
    mesh, camera = ball(3), camera_of("pinhole", (20, 24))
    _, buffers = render(mesh, camera, buffers=("depth", "normals", "face_index"))
    inside = buffers["face_index"] >= 0
    assert torch.isinf(buffers["depth"][~inside]).all()
    points = camera.unproject(camera.pixel_centers(), buffers["depth"].where(inside, 1.0))[inside]
    radius = (points - SHIFT).norm(dim=-1)
    assert ((radius > 0.98) & (radius <= 1)).all()  # 1280 faces: chords sink below the sphere by 0.7 %
    torch.testing.assert_close(buffers["normals"][inside], (points - SHIFT) / radius[:, None], rtol=0, atol=0.02)
    assert (buffers["normals"][~inside] == 0).all()
    _, again = render(mesh, camera, samples=3, buffers=("depth",))
    torch.testing.assert_close(again["depth"], buffers["depth"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="buffers asks for uvs, but the mesh has none"):
        render(mesh, camera, buffers=["uvs"])
    with pytest.raises(ValueError, match="buffers must be a sequence of names among"):
        render(mesh, camera, buffers=["colour"])
    with pytest.raises(ValueError, match="buffers must be a sequence of names among"):
        render(mesh, camera, buffers="depth")


@pytest.mark.parametrize("kind", KINDS)
def test_mesh_and_camera_of_different_precision_meet_in_the_higher(kind: str) -> None:
    size = (14, 17)
    wanted = render(ball(2), camera_of(kind, size))
    for mesh, camera in (
        (ball(2).to(dtype=torch.float32), camera_of(kind, size)),
        (ball(2), camera_of(kind, size, torch.float32)),
    ):
        colors = mesh.vertex_colors
        assert colors is not None
        leaf = mesh.vertices.clone().requires_grad_()
        image = render(mesh.replace(vertices=leaf), camera)
        assert image.dtype == torch.float64
        # The inputs were rounded to float32: a pixel's length times its relative error of 1e-7, along all edges.
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)
        assert torch.isfinite(torch.autograd.grad(image.sum(), leaf)[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_image_is_the_same_where_nobody_asks_for_derivatives(kind: str) -> None:
    """What only derivatives need, the areas of faces seen at a small angle, is left out then."""
    mesh, camera = sheet(), camera_of(kind, (40, 56))
    vertices = mesh.vertices.clone().requires_grad_()
    image = render(mesh.replace(vertices=vertices), camera, background=0.2)
    assert image.requires_grad
    torch.testing.assert_close(render(mesh, camera, background=0.2), image.detach(), rtol=1e-14, atol=1e-14)
    with torch.no_grad():
        without = render(mesh.replace(vertices=vertices), camera, background=0.2)
    torch.testing.assert_close(without, image.detach(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_run_to_run_and_for_any_number_of_threads(kind: str) -> None:
    lights = (DirectionalLight((0.3, -0.5, -1.0)), AmbientLight((0.2, 0.2, 0.2)))
    camera = camera_of(kind, (61, 57), torch.float32)
    cameras = stack_cameras([camera, camera.replace(t=(0.1, 0.0, 0.3))])
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            mesh = two_balls().to(dtype=torch.float32)
            leaf = mesh.vertices.clone().requires_grad_()
            turn = torch.zeros(3, requires_grad=True)
            posed = mesh.replace(vertices=leaf @ so3_exp(turn).mT)
            images = [render(posed, camera, lights=lights), render(posed, cameras), render([posed, posed], camera)]
            weight = torch.linspace(-1, 1, images[0].numel()).reshape(images[0].shape)
            results.append((*images, *torch.autograd.grad(sum((x * weight).sum() for x in images), [leaf, turn])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


# Bad input


def test_bad_arguments_are_named() -> None:
    mesh, camera = ball(1, torch.float32), camera_of("pinhole", (6, 7), torch.float32)
    with pytest.raises(TypeError, match="cull_backfaces must be True or False; got 'yes'"):
        render(mesh, camera, cull_backfaces="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="intersecting must be True or False; got None"):
        render(mesh, camera, intersecting=None)  # type: ignore[arg-type]
    for samples in (0, -1, 1.5):
        with pytest.raises(ValueError, match="samples must be a whole number of at least 1; got"):
            render(mesh, camera, samples=samples)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"shader must be a function \(fragments, mesh\) -> colours.*; got 'unlit'"):
        render(mesh, camera, shader="unlit")  # type: ignore[arg-type]
    for background in ((0.1, 0.2), torch.zeros(7, 6, 3), torch.zeros(2, 6, 7, 3), "white", None):
        with pytest.raises(
            ValueError, match=r"background must be a number, a colour \(3,\) or images that broadcast to"
        ):
            render(mesh, camera, background=background)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either lights or a shader"):
        render(mesh, camera, lights=(WHITE,), shader=Lambert((WHITE,)))
    with pytest.raises(TypeError, match=r"lights must be a list of lights; .* write \[light\]"):
        render(mesh, camera, lights=WHITE)  # type: ignore[arg-type]
    for shader in (lambda f, m: 3, lambda f, m: torch.ones(5, 3), lambda f, m: torch.ones(len(f))):
        with pytest.raises(ValueError, match=r"shader must return a row .* for each fragment, \(\d+, C\); got"):
            render(mesh, camera, shader=shader)
    with pytest.raises(TypeError, match="camera must be a Camera; got Mesh: the mesh comes first"):
        render(camera, mesh)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got list: .* stack_cameras makes one batch of a list"):
        render(mesh, [camera], samples=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mesh must be a Mesh or a list of at least one Mesh"):
        render([], camera)
    with pytest.raises(TypeError, match="mesh must be a Mesh or a list of at least one Mesh"):
        render("bunny", camera)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"camera must have no batch or one of 2, a camera per mesh; got \(3,\)"):
        render([mesh, mesh], stack_cameras([camera] * 3))
    with pytest.raises(ValueError, match=r"vertices must lie within 2e\+12 of the camera, .*; got 1e\+13 in"):
        render(mesh.replace(vertices=torch.full_like(mesh.vertices, 1e13)), camera)
    broken = mesh.vertices.clone()
    broken[7, 2] = math.nan
    with pytest.raises(
        ValueError, match=r"vertices holds 1 values that are NaN or infinite, the first at index \(7, 2\)"
    ):
        render(mesh.replace(vertices=broken), camera)
    with pytest.raises(ValueError, match="faces must index the vertices, 0 to 41"):
        render(mesh.replace(faces=mesh.faces + 1), camera)


# Nothing but numbers


def assert_finite(mesh: Mesh, camera: Camera, **options: object) -> Tensor:
    """Render, and pull every gradient through: all of it finite, alpha and colours in their range up to rounding."""
    vertices = mesh.vertices.clone().requires_grad_()
    colors = torch.full((mesh.num_vertices, 3), 0.5, dtype=vertices.dtype, requires_grad=True)
    t = camera.t.clone().requires_grad_()
    moved = mesh.replace(vertices=vertices, vertex_colors=colors)
    image = render(moved, camera.replace(t=t), background=1.0, **options)  # type: ignore[arg-type]
    assert torch.isfinite(image).all()
    weight = torch.linspace(-1, 1, image.numel(), dtype=image.dtype).reshape(image.shape)
    for gradient in torch.autograd.grad((image * weight).sum(), [vertices, colors, t]):
        assert torch.isfinite(gradient).all()
    return image


AWKWARD = {
    "no faces": (torch.rand(4, 3), []),
    "no area": ([[0, 0, 2], [1, 1, 2], [2, 2, 2]], [[0, 1, 2]]),
    "one point": ([[0.1, 0.1, 2]] * 3, [[0, 1, 2]]),
    "two points": ([[0, 0, 2], [0.5, 0.5, 2]], [[0, 1, 1], [0, 0, 1]]),
    "edge-on": ([[0, 0, 1], [0, 0, 2], [0, 0.5, 3]], [[0, 1, 2]]),
    "edge seen end-on": ([[0, 0, 1], [0, 0, 2], [0.5, 0, 1]], [[0, 1, 2]]),
    "corner in the eye": ([[0, 0, 0], [0.5, 0, 2], [0, 0.5, 2]], [[0, 1, 2]]),
    "edge through the eye": ([[-1, 0, -1], [1, 0, 1], [0, 0.5, 2]], [[0, 1, 2]]),
    "eye inside a face": ([[-1, -1, 0.5], [1, -1, -0.5], [0, 2, 0]], [[0, 1, 2]]),
    "in the plane of the camera": ([[-1, -1, 0], [1, -1, 0], [0, 2, 0]], [[0, 1, 2]]),
    "corner in the plane of the camera": ([[-1, -1, 0], [1, -1, 1], [0, 2, 1]], [[0, 1, 2]]),
    "across the plane of the camera": ([[-1, -1, -1], [1, -1, 1], [0, 2, 1]], [[0, 1, 2]]),
    "behind": ([[-1, -1, -1], [1, -1, -2], [0, 2, -1]], [[0, 1, 2]]),
    "twice the same face": ([[0, 0, 1], [1, 0, 1], [0, 1, 1]], [[0, 1, 2], [0, 1, 2], [0, 2, 1]]),
    "huge": ([[-1e6, -1e6, 1], [1e6, -1e6, 2e6], [0, 1e6, 1]], [[0, 1, 2]]),
    "minute": ([[1e-9, 0, 1e-6], [0, 1e-9, 1e-6], [0, 0, 1e-6]], [[0, 1, 2]]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (8, 9)])
def test_awkward_faces_give_finite_images_and_gradients(kind: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    for name, (vertices, faces) in AWKWARD.items():
        index = torch.tensor(faces, dtype=torch.int64).reshape(-1, 3)
        mesh = Mesh(torch.as_tensor(vertices, dtype=dtype), index)
        image = assert_finite(mesh, camera_of(kind, size, dtype))
        if name in ("no faces", "no area", "one point", "two points", "behind"):
            nothing = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=dtype).expand_as(image)
            # Sides of a face without area bend alike, but are cut into other chords: `MAX_SAG`, a hundredth of a pixel.
            torch.testing.assert_close(
                image,
                nothing,
                rtol=0,
                atol=1e-2 if kind in ("fisheye", "opencv") else 1e-6,
                msg=lambda m, name=name: f"{name}: {m}",
            )


@pytest.mark.parametrize("kind", KINDS)
def test_empty_mesh_gives_the_background_and_zero_gradients(kind: str) -> None:
    vertices = torch.rand(3, 3, requires_grad=True)
    image = render(
        Mesh(vertices, torch.zeros(0, 3, dtype=torch.int64)), camera_of(kind, (4, 5), torch.float32), background=0.25
    )
    assert image.shape == (4, 5, 4)
    assert (image[..., :3] == 0.25).all()
    assert (image[..., 3] == 0).all()
    assert (torch.autograd.grad(image.sum(), vertices)[0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_camera_inside_a_mesh_sees_it_everywhere(kind: str) -> None:
    mesh = ball(2, torch.float32)
    mesh = mesh.replace(vertices=4 * (mesh.vertices - SHIFT.float()) + torch.tensor([0.2, -0.1, 0.3]))
    image = assert_finite(mesh, camera_of(kind, (12, 13), torch.float32))
    torch.testing.assert_close(image[..., -1], torch.ones(12, 13), rtol=0, atol=1e-5)


def test_materials_of_several_kinds_render_together() -> None:
    """Textured, painted and plain parts in one mesh: each pixel far from borders has its own part's colour."""
    texture = Material(texture=torch.full((2, 2, 3), 0.25))
    red = Material(base_color=torch.tensor([1.0, 0.0, 0.0]))
    corners = torch.tensor([[0.0, 0, 1], [4, 0, 1], [0, 8, 1], [4, 8, 1], [8, 0, 1], [8, 8, 1]])
    faces = torch.tensor([[0, 2, 1], [1, 2, 3], [1, 3, 4], [4, 3, 5]])
    mesh = Mesh(
        corners, faces, uvs=corners[:, :2] / 8, materials=(texture, red), material_index=torch.tensor([0, 0, 1, 1])
    )
    image = render(mesh, PinholeCamera(1.0, 1.0, 0.0, 0.0, size=(8, 8)))
    assert (image[..., 3] == 1).all()
    torch.testing.assert_close(image[:, :4, :3], torch.full((8, 4, 3), 0.25))
    torch.testing.assert_close(image[:, 4:, :3], torch.tensor([1.0, 0.0, 0.0]).expand(8, 4, 3))
    shifted = render(mesh, PinholeCamera(1.0, 1.0, 0.25, 0.0, size=(8, 8)))  # the seam a quarter into a pixel
    torch.testing.assert_close(shifted[:, 4, :3], torch.tensor([0.8125, 0.0625, 0.0625]).expand(8, 3))


def test_narrow_faces_are_looked_up_where_only_the_starts_of_rays_move(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = import_module("diffrender.render")
    asked: list[bool] = []

    def noted(*given: Any, **options: Any) -> Steps[Grazing]:
        asked.append(True)
        return grazing_steps(*given, **options)

    monkeypatch.setattr(stage, "grazing_steps", noted)
    ball = sphere(2)
    velocity = torch.tensor([0.3, 0.0, 0.1], requires_grad=True)
    camera = RollingShutter(60.0, size=(32, 32), t=(0.0, 0.1, 4.0)).replace(velocity=velocity)
    image = render(Mesh(ball.vertices, ball.faces, vertex_colors=ball.vertices.abs()), camera)
    assert torch.autograd.grad(image.square().sum(), velocity)[0].any()
    assert asked


def test_silhouettes_do_without_lookups_on_narrow_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where colours are the same all over the surface, nothing inside of it moves, and nobody looks for it."""
    stage = import_module("diffrender.render")
    ball = sphere(2)
    camera = PinholeCamera(60.0, 60.0, 16.3, 15.8, size=(32, 32), t=(0.0, 0.1, 4.0))
    painted = ball.vertices.abs()
    asked: list[bool] = []

    def noted(*given: Any, **options: Any) -> Steps[Grazing]:
        asked.append(True)
        return grazing_steps(*given, **options)

    monkeypatch.setattr(stage, "grazing_steps", noted)

    def gradient(colors: Tensor | None) -> Tensor:
        asked.clear()
        vertices = ball.vertices.clone().requires_grad_()
        image = render(Mesh(vertices, ball.faces, vertex_colors=colors), camera)
        (image.square() * torch.linspace(0, 1, 32)[:, None]).sum().backward()
        assert vertices.grad is not None
        return vertices.grad

    plain = gradient(None)
    assert not asked
    gradient(painted)
    assert asked
    monkeypatch.setattr(stage, "_moves", lambda *_: True)
    assert torch.equal(gradient(None), plain)
    assert asked


class Forgetful(Camera):
    """A pinhole that, where derivatives are asked for, has rays at the centres of pixels only."""

    def to_pixels(self, points: Tensor) -> Tensor:
        return 12 * points[..., :2] / points[..., 2:] + 6

    def from_pixels(self, xy: Tensor) -> Tensor:
        rays = torch.cat([(xy - 6) / 12, torch.ones_like(xy[..., :1])], dim=-1)
        lost = (xy % 1 != 0.5).any(-1, keepdim=True) & torch.is_grad_enabled()
        return torch.where(lost, torch.nan, rays)


def test_a_ray_that_is_not_found_again_leaves_gradients_finite() -> None:
    camera, mesh = Forgetful(size=(12, 12), t=(0.0, 0.0, 4.0)), sphere(2, dtype=torch.float64)
    vertices = mesh.vertices.requires_grad_()
    image = render(
        mesh.replace(vertices=vertices), camera.to(dtype=torch.float64), lights=[DirectionalLight((0.0, 0.0, 1.0))]
    )
    gradient = torch.autograd.grad((image * torch.arange(4.0)).sum(), vertices)[0]
    assert torch.isfinite(image).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [PinholeCamera, FisheyeCamera])
def test_what_is_kept_from_a_picture_in_inference_mode_can_be_differentiated(kind: type[Camera]) -> None:
    mesh, camera = sphere(2), kind(12.0, 12.0, 6.0, 6.0, size=(12, 12), t=(0.0, 0.0, 4.0))
    lights = [DirectionalLight((0.0, 0.0, 1.0))]
    with torch.inference_mode():
        seen = render(mesh, camera, lights=lights)
    vertices = mesh.vertices.clone().requires_grad_()
    image = render(mesh.replace(vertices=vertices), camera, lights=lights)
    assert torch.equal(seen.clone(), image.detach())
    assert float(torch.autograd.grad(image.square().sum(), vertices)[0].norm()) > 0
