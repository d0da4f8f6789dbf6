"""Fragments against closed forms: where a ray meets a plane, and what an affine function is worth there."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, so3_exp
from diffrender.fragments import (
    Fragments,
    Sightings,
    fragments_along,
    fragments_of,
    interpolate,
    join_sightings,
)
from diffrender.kernels import barycentrics, interpolate_corners
from diffrender.kernels.interpolation import interpolate_corners_reference
from diffrender.kernels.reference import barycentrics_reference
from diffrender.mesh import Mesh
from diffrender.pixel_rays import pixel_rays
from diffrender.primitives import sphere
from diffrender.render import covered
from diffrender.scene import Scene, pack
from diffrender.visibility import face_image

SIZE = (11, 14)


def camera_of(kind: str, dtype: torch.dtype = torch.float64, **changes: Tensor) -> Camera:
    f, k, dist = torch.tensor([14.0, 13.0], dtype=dtype), (0.05, -0.01, 0.0, 0.0), (-0.2, 0.05, 0.002, -0.003)
    camera: Camera
    if kind == "pinhole":
        camera = PinholeCamera(f[0], f[1], 7.3, 5.1, size=SIZE)
    elif kind == "orthographic":
        camera = OrthographicCamera(0.3 * f[0], 0.3 * f[1], 7.3, 5.1, size=SIZE)
    elif kind == "fisheye":
        camera = FisheyeCamera(f[0], f[1], 7.3, 5.1, k=k, size=SIZE)
    else:
        camera = OpenCVCamera(f[0], f[1], 7.3, 5.1, dist=dist, size=SIZE)
    return camera.replace(R=so3_exp(torch.tensor([0.1, -0.2, 0.3], dtype=dtype)), t=(0.1, 0.2, 3.0), **changes)


KINDS = ("pinhole", "orthographic", "fisheye", "opencv")


def ball(dtype: torch.dtype = torch.float64) -> Mesh:
    mesh = sphere(1, dtype=dtype)
    return Mesh(mesh.vertices, mesh.faces)


def look(mesh: Mesh, camera: Camera) -> tuple[Scene, Fragments]:
    scene = pack(mesh, camera)
    rays = pixel_rays(scene)
    return scene, covered(scene, rays, face_image(scene, rays))[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_point_of_a_fragment_lies_on_its_ray_at_its_depth(kind: str, dtype: torch.dtype) -> None:
    """Barycentrics and depth agree about the point; both stem from sums of a dozen numbers of size 10."""
    mesh, camera = ball(dtype), camera_of(kind, dtype)
    _, fragments = look(mesh, camera)
    assert len(fragments) > 20
    on_face = interpolate(mesh.vertices, mesh.faces, fragments)
    tolerance = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(camera.unproject(fragments.xy, fragments.depth), on_face, rtol=0, atol=tolerance)
    xy, depth = camera.project(on_face)
    torch.testing.assert_close(xy, fragments.xy, rtol=0, atol=14 * tolerance)
    torch.testing.assert_close(depth, fragments.depth, rtol=0, atol=tolerance)
    assert (fragments.barycentrics > -tolerance).all()
    torch.testing.assert_close(fragments.barycentrics.sum(-1), torch.ones_like(depth), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_where_the_ray_meets_the_plane(kind: str) -> None:
    """t = (a - o) . N / d . N, with the world rays of the camera itself."""
    mesh, camera = ball(), camera_of(kind)
    _, fragments = look(mesh, camera)
    origins, directions = camera.rays(fragments.xy)
    a, b, c = mesh.vertices[mesh.faces[fragments.face_index]].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    t = ((a - origins) * normal).sum(-1) / (directions * normal).sum(-1)
    torch.testing.assert_close(fragments.depth, t, rtol=1e-12, atol=0)
    torch.testing.assert_close(fragments.front, (directions * normal).sum(-1) < 0)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_functions_are_interpolated_exactly(kind: str) -> None:
    """An affine function of space, given at the corners, at the point where the ray of the camera meets the face."""
    mesh, camera = ball(), camera_of(kind)
    _, fragments = look(mesh, camera)
    matrix = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.2, -0.7, 0.1], [0.0, 0.4, 0.9, -2.0]], dtype=torch.float64)
    found = interpolate(mesh.vertices @ matrix + 0.7, mesh.faces, fragments)
    expected = camera.unproject(fragments.xy, fragments.depth) @ matrix + 0.7
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_vertices_attributes_and_camera(kind: str) -> None:
    mesh = ball()
    _, fixed = look(mesh, camera_of(kind))
    chosen = torch.arange(0, len(fixed), 7)
    view, xy, face = fixed.view[chosen], fixed.xy[chosen], fixed.face_index[chosen]
    camera = camera_of(kind)

    def evaluate(vertices: Tensor, attribute: Tensor, turn: Tensor, t: Tensor, fx: Tensor) -> tuple[Tensor, Tensor]:
        moved = camera.replace(R=so3_exp(turn), t=t, fx=fx)
        scene = pack(mesh.replace(vertices=vertices), moved)
        fragments = fragments_along(scene, view, xy, face, *scene.rays_at(view, xy))
        return interpolate(attribute, mesh.faces, fragments), fragments.depth

    generator = torch.Generator().manual_seed(0)
    inputs = (
        mesh.vertices,
        torch.rand(mesh.num_vertices, 2, generator=generator, dtype=torch.float64),
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        camera.t,
        getattr(camera, "fx"),  # noqa: B009
    )
    # Rotations of points far from the eye: checked in the fast mode, which tries random directions.
    assert torch.autograd.gradcheck(evaluate, [x.clone().requires_grad_() for x in inputs], fast_mode=True)


def random_hits(dtype: torch.dtype, count: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 3, 3, generator=generator, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 2.0])
    weights = torch.rand(count, 3, 1, generator=generator, dtype=torch.float64)
    directions = (corners * weights / weights.sum(1, keepdim=True)).sum(1)
    return corners.to(dtype), (directions / directions[:, 2:]).to(dtype)


Function = Callable[..., tuple[Tensor, ...]]


def on_corners(
    function: Function, corners: Tensor, directions: Tensor, z_depth: bool, origins: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Barycentrics of rays [N, 3] on faces [N, 3, 3] that share no vertex; every other one is the copy of another."""
    count = len(corners)
    faces, face = torch.arange(3 * count).reshape(-1, 3), torch.arange(count)
    offsets = 3 * (face % 2)
    return function(corners.reshape(-1, 3), faces, face - face % 2, offsets, origins, directions, z_depth)


@pytest.mark.parametrize("from_origins", [False, True])
@pytest.mark.parametrize("z_depth", [True, False])
@pytest.mark.parametrize(("held", "hold_backs"), [(False, False), (True, False), (False, True), (True, True)])
def test_fused_kernel_is_the_reference(z_depth: bool, from_origins: bool, held: bool, hold_backs: bool) -> None:
    """In float64 to rounding, forward and backward, times the worst condition of these faces (about 1e4)."""
    corners, directions = random_hits(torch.float64)
    corners[::10, 2] = corners[::10, 1]  # no area
    directions[5::10] += 3.0  # far outside of the face
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.rand(200, 3, generator=generator).double(), torch.rand(200, generator=generator).double()]
    origins = [0.1 * torch.rand(200, 3, generator=generator).double()] if from_origins else []
    corners = corners + sum(x.unsqueeze(1) for x in origins)
    still = torch.arange(200) % 3 == 0 if held else None
    backs = ~on_corners(barycentrics, corners, directions, z_depth, *origins)[2]
    assert 50 < backs.sum() < 150
    results = []
    for function in (partial(f, held=still, hold_backs=hold_backs) for f in (barycentrics, barycentrics_reference)):
        inputs = [x.clone().requires_grad_() for x in (corners, directions, *origins)]
        outputs = on_corners(function, inputs[0], inputs[1], z_depth, *inputs[2:])[:2]
        results.append((*outputs, *torch.autograd.grad(outputs, inputs, upstream)))
    for found, expected in zip(*results, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    rests = (backs if hold_backs else torch.zeros_like(backs)) | (torch.zeros_like(backs) if still is None else still)
    for gradients in (results[0][3], *results[0][4:]):  # by ray; corners are given to every other face
        assert (gradients[rests] == 0).all()


@pytest.mark.parametrize("function", [barycentrics, barycentrics_reference])
def test_faces_edge_on_within_rounding_have_no_derivative(function: Function) -> None:
    """One met in a fit had a derivative 10^4 times all others': what it was divided by was a rounding error."""
    generator = torch.Generator().manual_seed(0)
    where, sideways = torch.rand(2, 1000, 3, 1, generator=generator, dtype=torch.float64)
    across, upstream = torch.randn(1000, 1, 3, generator=generator), torch.randn(1000, 3, generator=generator)
    plane = (torch.tensor([0.2, 0.15, 3.3]) + 0.01 * sideways * across) * (1 + 0.01 * where)  # has the eye in it
    ray = plane.mean(1)
    assert (derivative(function, plane.float(), ray.float(), upstream) == 0).all()
    tilted = plane + 0.01 * torch.tensor([[0.2, 0.3, -0.5]]).T * torch.linalg.cross(ray.unsqueeze(1), across.double())
    found, expected = (
        derivative(function, tilted.to(t), ray.to(t), upstream.to(t)) for t in (torch.float32, torch.float64)
    )
    error, size = ((x.flatten(1).norm(dim=1)) for x in (found - expected, expected))
    assert (error < 0.02 * size).all()  # rounding over the height of these faces is at most 1 %


def derivative(function: Function, corners: Tensor, ray: Tensor, upstream: Tensor) -> Tensor:
    corners = corners.clone().requires_grad_()
    return torch.autograd.grad(on_corners(function, corners, ray / ray[:, 2:], True)[0], corners, upstream)[0]


@pytest.mark.parametrize("z_depth", [True, False])
def test_gradcheck_and_second_derivatives_of_barycentrics(z_depth: bool) -> None:
    inputs = [x[:8].clone().requires_grad_() for x in random_hits(torch.float64)]
    assert torch.autograd.gradcheck(lambda c, d: on_corners(barycentrics, c, d, z_depth)[:2], inputs)
    assert torch.autograd.gradgradcheck(lambda c, d: on_corners(barycentrics, c, d, z_depth)[:2], inputs, atol=1e-4)


def test_second_derivatives_of_what_is_held_are_zero() -> None:
    corners, directions = (x[:8].clone().requires_grad_() for x in random_hits(torch.float64))
    held = torch.arange(8) < 4
    weights, depth, _ = on_corners(partial(barycentrics, held=held), corners, directions, False)
    first = torch.autograd.grad(weights.square().sum() + depth.square().sum(), directions, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), directions)[0]
    assert (first[held] == 0).all()
    assert (second[held] == 0).all()
    assert (first[~held] != 0).any(-1).all()
    assert (second[~held] != 0).any(-1).all()


def sums_inputs(count: int, num_vertices: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    vertices = torch.rand(num_vertices, 3, generator=generator, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 2.0])
    faces = torch.randint(num_vertices, (50, 3), generator=generator)
    face = torch.randint(50, (count,), generator=generator)
    weights = torch.rand(count, 3, 1, generator=generator, dtype=torch.float64) + 0.1
    directions = (vertices[faces[face]] * weights / weights.sum(1, keepdim=True)).sum(1)
    return vertices, faces, face, directions


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_many_rays_are_summed_by_vertex(threads: int) -> None:
    """In parts with a sum of their own: as many as it takes, and the same for all numbers of threads."""
    vertices, faces, face, directions = sums_inputs(20_000, 40)
    before = torch.get_num_threads()
    found = []
    try:
        for function, number in ((barycentrics, 1), (barycentrics, threads), (barycentrics_reference, 1)):
            torch.set_num_threads(number)
            leaf = vertices.clone().requires_grad_()
            weights, depth, _ = function(leaf, faces, face, None, None, directions, True)
            loss = (weights * weights.detach().sin()).sum() + depth.square().sum()
            found.append(torch.autograd.grad(loss, leaf)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=1e-8, atol=1e-8 * float(found[2].abs().max()))


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_fused_interpolation_is_a_weighted_sum_of_rows(channels: int) -> None:
    _, faces, face, directions = sums_inputs(5_000, 40)
    generator = torch.Generator().manual_seed(3)
    attribute = torch.rand(40, channels, generator=generator, dtype=torch.float64)
    upstream = torch.rand(5_000, channels, generator=generator, dtype=torch.float64)
    results = []
    for function in (interpolate_corners, interpolate_corners_reference):
        inputs = [attribute.clone().requires_grad_(), directions.clone().requires_grad_()]
        values = function(inputs[0], faces, face, inputs[1])
        results.append((values, *torch.autograd.grad(values, inputs, upstream)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    few = [attribute[:, :2].clone().requires_grad_(), directions[:6].clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, w: interpolate_corners(a, faces, face[:6], w), few)
    assert torch.autograd.gradgradcheck(lambda a, w: interpolate_corners(a, faces, face[:6], w), few)
    assert torch.autograd.gradcheck(
        lambda a, w: interpolate_corners(a, faces, face[:6], w), few, check_batched_grad=True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_coverage_has_channels_and_zero_gradients(kind: str) -> None:
    mesh = ball()
    vertices = (mesh.vertices + torch.tensor([0.0, 0.0, -9.0])).requires_grad_()
    colors = torch.rand(mesh.num_vertices, 5, dtype=torch.float64, requires_grad=True)
    _, fragments = look(mesh.replace(vertices=vertices), camera_of(kind).replace(R=torch.eye(3).double(), t=(0, 0, 0)))
    assert len(fragments) == 0
    values = interpolate(colors, mesh.faces, fragments)
    assert values.shape == (0, 5)
    for gradient in torch.autograd.grad(values.sum() + fragments.depth.sum(), [vertices, colors]):
        assert (gradient == 0).all()


def test_join_keeps_the_order() -> None:
    scene, fragments = look(ball(), camera_of("pinhole"))
    _, directions = scene.rays_at(fragments.view, fragments.xy)
    seen = Sightings(fragments.view, fragments.xy, fragments.face_index, None, directions)
    twice = join_sightings([seen, seen])
    assert len(twice) == 2 * len(seen)
    for half in (twice[: len(seen)], twice[len(seen) :]):
        found = fragments_of(scene, half)
        torch.testing.assert_close(found.barycentrics, fragments.barycentrics, rtol=0, atol=0)


def test_attribute_of_wrong_shape_is_named() -> None:
    mesh = ball()
    _, fragments = look(mesh, camera_of("pinhole"))
    with pytest.raises(ValueError, match=r"attribute must have shape \(V, C\), a row per vertex; got \(42,\) float64"):
        interpolate(mesh.vertices[:, 0], mesh.faces, fragments)
