"""Rendering through cameras authored by their rays: exact, with silhouettes, and gradients to all parameters."""

from functools import partial

import pytest
import torch
from lenses import MirrorBall, Pushbroom, RollingShutter, WaterPort
from torch import Tensor

from diffrender.cameras import Camera, so3_exp, stack_cameras
from diffrender.kernels.reference import first_hit_reference
from diffrender.mesh import Mesh
from diffrender.primitives import sphere, torus
from diffrender.render import render
from diffrender.scene import pack
from diffrender.shading import depth_shader
from diffrender.testing import check_gradients, smooth_weights
from diffrender.turning import turning_faces
from diffrender.visibility import visibility

SIZE = (24, 32)
BEHIND = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))  # the mirror shows what is behind


def lens(kind: str, **changes: object) -> Camera:
    """A camera that sees the unit ball around (0, 0, 3)."""
    wide = torch.tensor(24.0, dtype=torch.float64)
    arguments: dict = {"size": SIZE, **changes}
    if kind == "rolling":
        return RollingShutter(wide, (1.2, 0.1, 0.2), **arguments)
    if kind == "port":
        return WaterPort(wide, **arguments)
    if kind == "pushbroom":
        return Pushbroom(wide, 0.1, **arguments)
    return MirrorBall(2 * wide, R=BEHIND, t=torch.tensor([0.0, 0.0, 4.0]), **arguments)


def ring() -> Mesh:
    mesh = torus(0.7, 0.3, dtype=torch.float64)
    return Mesh(mesh.vertices + torch.tensor([0.1, 0.0, 3.0]).double(), mesh.faces)


@pytest.mark.parametrize(
    "camera", [RollingShutter(64.0, size=(64, 64)), Pushbroom(64.0, 0.045, size=(64, 64))], ids=["rolling", "pushbroom"]
)
def test_faces_that_turn_beside_an_edge_do_not_outweigh_all_others(camera: Camera) -> None:
    """Depth, along edges at whose points a face beside them is seen edge-on: it moves faster than anything there."""
    camera, ball = camera.to(dtype=torch.float64), sphere(2, dtype=torch.float64)
    shift = torch.tensor([0.1, 0.1, 2.6], dtype=torch.float64, requires_grad=True)
    vertices = ball.vertices @ so3_exp(torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)).T
    assert turning_faces(pack(Mesh(vertices + shift, ball.faces), camera)).any()
    weights = smooth_weights(64, 64, 5)[..., 3]

    def seen(shift: Tensor, samples: int) -> Tensor:
        mesh = Mesh(vertices + shift, ball.faces)
        return (weights * render(mesh, camera, shader=depth_shader, samples=samples)[..., 0]).sum()

    (found,) = torch.autograd.grad(seen(shift, 1), shift)
    with torch.no_grad():  # differences of images know no fragments that move
        steps = 1e-3 * torch.eye(3, dtype=torch.float64)
        expected = torch.stack([seen(shift + step, 4) - seen(shift - step, 4) for step in steps]) / 2e-3
    assert (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("kind", ["rolling", "port", "mirror"])
def test_visibility_is_what_its_rays_meet_first(kind: str) -> None:
    camera, mesh = lens(kind), ring()
    origins, directions = camera.rays(camera.pixel_centers().reshape(-1, 2))
    seen = torch.isfinite(directions).all(-1)
    expected = torch.full((len(seen),), -1)
    corners = mesh.vertices[mesh.faces]
    expected[seen], _ = first_hit_reference(corners, origins[seen], directions[seen], z_depth=False)
    assert (expected >= 0).sum() > 30
    assert torch.equal(visibility(mesh, camera).reshape(-1), expected)


@pytest.mark.parametrize("kind", ["rolling", "port", "mirror", "pushbroom"])
def test_coverage_of_triangles_is_their_area_in_the_image(kind: str) -> None:
    """Random triangles, some of which such cameras see from both sides: their images are pinched like bow ties."""
    camera, generator, samples = lens(kind), torch.Generator().manual_seed(1), 8
    finer = camera.resize((SIZE[0] * samples, SIZE[1] * samples))
    low, extent = torch.tensor([-1.2, -1.0, 2.0]).double(), torch.tensor([2.4, 2.0, 2.0]).double()
    low[2] = {"pushbroom": 0.8, "mirror": 3.6}.get(kind, 2.0)  # the mirror itself is at 2
    for _ in range(30):
        corners = torch.rand(3, 3, generator=generator, dtype=torch.float64) * extent + low
        triangle = Mesh(corners, torch.tensor([[0, 1, 2]]))
        alpha = render(triangle, camera)[..., -1]
        hits = (visibility(triangle, finer) >= 0).double()
        expected = hits.reshape(SIZE[0], samples, SIZE[1], samples).mean((1, 3))
        # A row of samples may fall to the wrong side of an edge.
        torch.testing.assert_close(alpha, expected, rtol=0, atol=1 / samples)
        assert alpha.min() > -1e-9
        assert abs(float(alpha.sum() - expected.sum())) < 0.5  # 60 pixels on the outline, off by 0.06 each


def test_a_face_seen_from_both_sides_shows_both() -> None:
    """The plane of this face contains the sensor's centre in the middle column: there it turns."""
    camera = lens("pushbroom")
    corners = [[-1.0, 0.5, 1.2], [1.0, -0.5, 1.2], [1.0, -0.5, 1.9], [-1.0, 0.5, 1.9]]
    strip = Mesh(torch.tensor(corners).double(), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    fronts = render(strip, camera, cull_backfaces=True)[..., -1]
    both = render(strip, camera)[..., -1]
    hidden = (both - fronts).sum(0)
    assert both.min() > -1e-9
    assert both.max() < 1 + 1e-9
    assert ((fronts.sum(0) > 0.1) ^ (hidden > 0.1)).sum() > 10  # columns show one side or the other
    assert (fronts.sum(0) > 0.1).any()
    assert (hidden > 0.1).any()


@pytest.mark.parametrize("kind", ["rolling", "port", "mirror"])
def test_cameras_of_a_batch_render_as_alone(kind: str) -> None:
    views = [lens(kind).replace(f=f) for f in (24.0, 30.0)]
    together = render(ring(), stack_cameras(views))
    for one, image in zip(views, together, strict=True):
        torch.testing.assert_close(image, render(ring(), one), rtol=0, atol=1e-9)


PARAMETERS: dict[str, dict[str, object]] = {
    "rolling": {"f": 24.0, "velocity": (1.2, 0.1, 0.2), "k": 0.1},
    "port": {"f": 24.0, "distance": 0.5, "index": 1.33},
}


def moving(kind: str, given: dict[str, Tensor]) -> tuple[Mesh, Camera]:
    """The ring in smooth colours, and the camera with the parameters `given`."""
    mesh, lens_parameters = ring(), {name: given[name] for name in PARAMETERS[kind]}
    shift = torch.cat([given["shift"], torch.zeros(1).double()])
    colored = Mesh(mesh.vertices + shift, mesh.faces, vertex_colors=0.5 + 0.3 * torch.sin(2 * mesh.vertices))
    return colored, lens(kind).replace(**lens_parameters)


def leaves(kind: str) -> dict[str, Tensor]:
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in PARAMETERS[kind].items()}
    return {**given, "shift": torch.tensor([0.1, 0.05], dtype=torch.float64)}


@pytest.mark.parametrize("kind", list(PARAMETERS))
def test_gradients_to_an_author_s_parameters_are_differences_of_the_image(kind: str) -> None:
    """Of an image whose coverage is exact, see above."""
    weights = smooth_weights(*SIZE, 4)
    given = {name: value.requires_grad_() for name, value in leaves(kind).items()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return (render(*moving(kind, values), samples=2) * weights).sum()

    gradient = torch.autograd.grad(loss(given), list(given.values()))
    found, expected = [], []
    for (name, value), slope in zip(given.items(), gradient, strict=True):
        direction = torch.linspace(0.5, 1.0, value.numel(), dtype=torch.float64).reshape(value.shape)
        step = 1e-2 * max(float(value.detach().abs().max()), 0.1) * direction
        with torch.no_grad():
            after, before = (loss({**given, name: value + sign * step}) for sign in (1, -1))
        # All in units in which the parameter counts alike.
        expected.append((after - before) / 2)
        found.append((slope * step).sum())
    error = (torch.stack(found) - torch.stack(expected)).norm() / torch.stack(expected).norm()
    assert error < 0.02  # samples of 2 x 2 per pixel on an image of 24 x 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PARAMETERS))
def test_gradients_to_an_author_s_parameters_are_those_of_the_converged_image(kind: str) -> None:
    units = {"f": 2.0, "velocity": 0.1, "k": 0.1, "distance": 0.1, "index": 0.05, "shift": 0.05}
    given = leaves(kind)
    steps = {name: 0.8 * units[name] for name in given}
    report = check_gradients(partial(moving, kind), given, samples=2, reference_samples=60, step=steps)
    # The reference doubts itself by 7 %, counting points that change sides as chance; it is better than that.
    assert report.error < 0.03
