"""What surrounds a call leaves its precision alone: autocast, and torch's default dtype."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import diffrender as dr

R, T = dr.look_at((0.4, 1.0, 4.0))
CAMERAS = {
    "pinhole": dr.PinholeCamera(80.0, 80.0, 32.0, 24.0, size=(48, 64), R=R, t=T),
    "fisheye": dr.FisheyeCamera(60.0, 60.0, 32.0, 24.0, k=(0.1, 0.0, 0.0, 0.0), size=(48, 64), R=R, t=T),
}
LIGHTS = [dr.DirectionalLight((0.0, -1.0, -1.0), (1.0, 1.0, 1.0))]


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_images_and_gradients_under_autocast_are_those_without(camera: dr.Camera) -> None:
    results = []
    for enabled in (False, True):
        vertices = dr.sphere(2).vertices.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            image = dr.render(dr.sphere(2).replace(vertices=vertices), camera, lights=LIGHTS)
        (image * torch.linspace(0, 1, 64)[:, None]).sum().backward()  # outside, as torch's documentation asks for
        results.append((image.detach(), vertices.grad))
    for plain, cast in zip(*results, strict=True):
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_points_and_rays_under_autocast_are_those_without(camera: dr.Camera) -> None:
    points = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))
    xy, depth = camera.project(points)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(camera.project(points)[0], xy)
        assert torch.equal(camera.rays(xy)[1], camera.rays(xy)[1].float())
        torch.testing.assert_close(camera.unproject(xy, depth), points, rtol=0, atol=1e-5)
        assert torch.equal(
            dr.visibility(dr.sphere(1), camera) >= 0,
            dr.render(dr.sphere(1), camera, buffers=("face_index",))[1]["face_index"] >= 0,
        )


@pytest.mark.usefixtures("float64_by_default")
def test_files_are_float32_whatever_the_default_dtype(tmp_path: Path) -> None:
    ball = dr.sphere(1).to(dtype=torch.float32)
    mesh = ball.replace(vertex_colors=ball.vertices.abs(), vertex_normals=ball.normals())
    for suffix in (".obj", ".glb", ".ply"):
        dr.save_mesh(tmp_path / f"a{suffix}", mesh.replace(uvs=None))
        loaded = dr.load_mesh(tmp_path / f"a{suffix}")
        assert loaded.vertices.dtype == torch.float32
        torch.testing.assert_close(loaded.bounds(), mesh.bounds(), rtol=1e-5, atol=1e-6)
    dr.save_image(tmp_path / "a.png", torch.rand(3, 4, 3))
    assert dr.load_image(tmp_path / "a.png").dtype == torch.float32


@pytest.mark.usefixtures("float64_by_default")
def test_images_have_the_dtype_of_the_mesh_whatever_the_default_dtype() -> None:
    ball = dr.sphere(2).to(dtype=torch.float32)
    for camera in CAMERAS.values():
        image = dr.render(ball, camera, lights=LIGHTS, background=(1.0, 1.0, 1.0))
        assert image.dtype == torch.float32
        double = dr.render(ball.to(dtype=torch.float64), camera.to(dtype=torch.float64), lights=LIGHTS, background=1.0)
        assert double.dtype == torch.float64
        torch.testing.assert_close(image.double(), double, rtol=0, atol=1e-3)
