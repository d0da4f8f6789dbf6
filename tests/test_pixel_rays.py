"""Rays through the centres of pixels: kept with a camera as long as they are right, and not longer."""

import copy
import pickle
from typing import Any

import pytest
import torch
from lenses import Panorama, Stereographic
from torch import Tensor

from diffrender import pixel_rays as stage
from diffrender.cameras import Camera, FisheyeCamera, PinholeCamera, stack_cameras
from diffrender.mesh import Mesh
from diffrender.pixel_rays import PixelRays, pixel_rays
from diffrender.primitives import sphere
from diffrender.render import render
from diffrender.scene import pack

SIZE = (12, 17)
AWAY = (0.1, 0.2, 3.0)


class Counting(Stereographic):
    """It knows how often anybody searched for its inverse, and has an attribute that is no parameter."""

    searches = 0
    stretch = 1.0

    def to_pixels(self, points: Tensor) -> Tensor:
        return self.stretch * super().to_pixels(points)

    def from_pixels(self, xy: Tensor) -> Tensor:
        Counting.searches += 1
        return Camera.from_pixels(self, xy)


@pytest.fixture(autouse=True)
def no_searches_yet() -> None:
    Counting.searches = 0


def searched(camera: Camera, mesh: Mesh | None = None) -> tuple[bool, PixelRays]:
    """Whether the rays of a camera had to be searched for, and these."""
    before = Counting.searches
    rays = pixel_rays(pack(sphere(1) if mesh is None else mesh, camera))
    return Counting.searches > before, rays


def assert_through_pixels(camera: Camera, rays: PixelRays) -> None:
    assert rays.directions is not None
    xy, _ = camera.local_project(rays.directions)
    seen = torch.isfinite(rays.directions).all(-1)
    assert seen.any()
    assert (xy - camera.pixel_centers().reshape(-1, 2))[seen].abs().max() < 1e-3


def test_rays_are_searched_for_once_whatever_the_pose() -> None:
    camera = Counting(9.0, size=SIZE, t=AWAY)
    first, rays = searched(camera)
    assert first
    for same in (camera, camera.replace(t=(0.0, 0.0, 5.0)), stack_cameras([camera])[0], copy.copy(camera)):
        again, found = searched(same)
        assert not again
        assert found is rays


@pytest.mark.parametrize("kind", ["stereographic", "panorama", "fisheye"])
def test_a_second_render_has_the_bits_of_the_first(kind: str) -> None:
    def camera() -> Camera:
        if kind == "fisheye":
            return FisheyeCamera(9.0, 9.0, 8.2, 6.1, k=(0.05, 0.01, 0.0, 0.0), size=SIZE, t=AWAY)
        return Stereographic(18.0, size=SIZE, t=AWAY) if kind == "stereographic" else Panorama(0.4, size=SIZE, t=AWAY)

    body, kept = sphere(2), camera()
    body = body.replace(vertex_colors=body.vertices.abs())
    images, gradients = [], []
    for used in (kept, kept, camera()):
        vertices = body.vertices.clone().requires_grad_()
        image = render(body.replace(vertices=vertices), used)
        images.append(image)
        gradients.append(torch.autograd.grad(image.square().sum(), vertices)[0])
    assert (images[0][..., -1] > 0).any()
    for image, gradient in zip(images[1:], gradients[1:], strict=True):
        assert torch.equal(image, images[0])
        assert torch.equal(gradient, gradients[0])


def test_other_parameters_sizes_and_types_have_rays_of_their_own() -> None:
    camera = Counting(9.0, size=SIZE)
    searched(camera)
    for other in (
        camera.replace(f=9.5),
        camera.resize((24, 34)),
        camera.crop(1, 2, 8, 9),
        camera.to(dtype=torch.float64),
    ):
        again, rays = searched(other)
        assert again
        assert_through_pixels(other, rays)


def test_a_parameter_changed_in_place_is_noticed() -> None:
    f = torch.tensor(9.0)
    camera = Counting(f, size=SIZE)
    searched(camera)
    f.data.mul_(1.5)  # not even autograd knows of it
    again, rays = searched(camera)
    assert again
    assert_through_pixels(camera, rays)


def test_a_change_of_what_is_no_parameter_is_noticed() -> None:
    camera = Counting(9.0, size=SIZE)
    searched(camera)
    camera.stretch = 1.1
    again, rays = searched(camera)
    assert again
    assert_through_pixels(camera, rays)


@pytest.mark.parametrize("tracked", [True, False])
def test_what_learns_is_not_kept(tracked: bool) -> None:
    """A parameter that requires grad, or anything else that `to_pixels` depends on; without a graph as well."""
    learned: Any = torch.tensor(1.0, requires_grad=True)
    for camera in (Counting(torch.tensor(9.0, requires_grad=True), size=SIZE), Counting(9.0, size=SIZE)):
        if not camera.f.requires_grad:
            camera.stretch = learned
        for _ in range(2):
            with torch.set_grad_enabled(tracked):
                again, rays = searched(camera)
            assert again
            assert rays.moves == tracked
        assert not camera.notes


def test_gradients_of_a_lens_are_those_without_notes() -> None:
    """Rays that were kept do not serve a camera that has begun to learn."""
    body = sphere(2)
    body = body.replace(vertex_colors=body.vertices.abs())
    camera = Counting(18.0, size=SIZE, t=AWAY)
    render(body, camera)
    gradients = []
    for lens in (camera, Counting(18.0, size=SIZE, t=AWAY)):
        f = torch.tensor(18.0, requires_grad=True)
        gradients.append(torch.autograd.grad(render(body, lens.replace(f=f)).square().sum(), f)[0])
    assert gradients[0] != 0
    assert torch.equal(*gradients)


def test_rays_found_in_inference_mode_serve_autograd_as_well() -> None:
    body, camera = sphere(2), Counting(18.0, size=SIZE, t=AWAY)
    body = body.replace(vertex_colors=body.vertices.abs())
    with torch.inference_mode():
        picture = render(body, camera)
        assert not searched(camera)[0]
    assert not searched(camera)[0]
    vertices = body.vertices.clone().requires_grad_()
    image = render(body.replace(vertices=vertices), camera)
    assert torch.autograd.grad(image.square().sum(), vertices)[0].any()
    torch.testing.assert_close(image, picture, rtol=0, atol=0)


def test_the_rays_of_all_cameras_together_have_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = SIZE[0] * SIZE[1]
    monkeypatch.setattr(stage, "MOST_PIXELS", 3 * pixels)
    monkeypatch.setattr(stage, "_RECENT", stage._Recent())
    cameras = [Counting(9.0 + 0.1 * i, size=SIZE) for i in range(4)]
    for camera in cameras[:3]:
        assert searched(camera)[0]
    assert not searched(cameras[0])[0]  # the first was used last
    assert searched(cameras[3])[0]
    assert [bool(camera.notes) for camera in cameras] == [True, False, True, True]
    assert not searched(cameras[0])[0]
    assert searched(cameras[1])[0]
    assert not cameras[2].notes
    del cameras[0], camera  # its rays go with it, and make room
    assert searched(cameras[1])[0]
    assert all(camera.notes for camera in cameras)


def test_rays_of_too_many_pixels_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_PIXELS", 30)
    camera = Counting(9.0, size=SIZE)
    assert searched(camera)[0]
    assert searched(camera)[0]
    assert not camera.notes


def test_rays_of_a_batch_are_not_kept_with_the_first_of_its_cameras() -> None:
    """In a fit, every camera is sometime the first of a batch: each would keep the rays of several."""
    cameras = [Counting(9.0 + i, size=SIZE, t=AWAY) for i in range(2)]
    batch = stack_cameras(cameras)
    assert searched(batch)[0]
    assert not searched(batch)[0]
    assert not any(camera.notes for camera in cameras)


def test_notes_stay_behind_when_a_camera_is_pickled_or_copied_in_depth() -> None:
    camera = Counting(9.0, size=SIZE)
    searched(camera)
    assert camera.notes
    for other in (pickle.loads(pickle.dumps(camera)), copy.deepcopy(camera)):
        assert not other.notes
        assert searched(other)[0]
    assert not searched(camera)[0]


def test_linear_cameras_keep_nothing() -> None:
    camera = PinholeCamera(9.0, 9.0, 8.2, 6.1, size=SIZE)
    assert pixel_rays(pack(sphere(1), camera)).directions is None
    assert not camera.notes


def test_what_kernels_prepare_for_a_lens_is_kept_while_its_parameters_are_the_same() -> None:
    camera = FisheyeCamera(9.0, 9.0, 8.2, 6.1, k=(0.1, 0.0, 0.0, 0.0), size=SIZE, t=AWAY)
    body = sphere(2)
    first = render(body, camera)
    (key,) = (key for key in camera.notes if key[0] == "lens")
    kept = camera.notes[key][-1]
    assert torch.equal(render(body, camera.replace(R=camera.R.clone())), first)
    assert not torch.equal(render(body, camera.replace(t=camera.t + 0.1)), first)  # whatever the pose
    assert camera.notes[key][-1] is kept
    others = [camera.replace(fx=torch.tensor(8.0)), camera.crop(1, 2, 9, 7), camera.replace(k=camera.k + 0.1)]
    with torch.no_grad():
        camera.k.mul_(-1)
    for other in (*others, camera):
        fresh = copy.deepcopy(other)  # without notes
        assert not fresh.notes
        assert torch.equal(render(body, other), render(body, fresh))
        assert camera.notes[key][-1] is not kept
    learning = camera.replace(k=camera.k.clone().requires_grad_())
    kept = camera.notes[key][-1]
    (gradient,) = torch.autograd.grad(render(body, learning).square().sum(), learning.k)
    assert gradient.any()
    assert camera.notes[key][-1] is kept  # nothing is kept of what learns
