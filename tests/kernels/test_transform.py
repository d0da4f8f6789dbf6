"""The kernels of `transform` against plain torch, bit for bit."""

import pytest
import torch

from diffrender.cameras import Camera, OrthographicCamera, PinholeCamera, stack_cameras
from diffrender.kernels import affine_rays, covered_pixels
from diffrender.mesh import Mesh
from diffrender.scene import pack

SIZE = (7, 11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_covered_pixels_have_their_images_centres_and_faces(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(-2, 3, (3, *SIZE), generator=generator, dtype=torch.int32).clamp(min=-1)
    rays = torch.randn(3, 6, 3, generator=generator).to(dtype)
    pixel, view, xy, face, directions = covered_pixels(faces, torch.zeros(0, dtype=dtype), rays)
    images, rows, columns = torch.meshgrid(*map(torch.arange, (3, *SIZE)), indexing="ij")
    shown = faces >= 0
    assert torch.equal(pixel, torch.arange(3 * 77)[shown.reshape(-1)])
    assert torch.equal(view, images[shown])
    assert torch.equal(xy, torch.stack([columns, rows], dim=-1)[shown].to(dtype) + 0.5)
    assert torch.equal(face, faces[shown].long())
    assert torch.equal(directions, affine_rays(xy, view, rays, 3))
    assert len(covered_pixels(faces, xy)[-1]) == 0
    assert [len(x) for x in covered_pixels(torch.full_like(faces, -1), xy, rays)] == [0] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_views", [1, 3])
@pytest.mark.parametrize("central", [True, False])
def test_rays_of_a_scene_have_the_bits_of_the_camera(central: bool, num_views: int, dtype: torch.dtype) -> None:
    """With and without a gradient: visibility asks for the same rays in an order of its own."""
    make = PinholeCamera if central else OrthographicCamera
    cameras: list[Camera] = [
        make(*torch.tensor([9.3 + i, 8.7, 5.2, 3.9 - i], dtype=dtype), size=SIZE) for i in range(num_views)
    ]
    triangle = Mesh(torch.tensor([[0.0, 0, 2], [1, 0, 2], [0, 1, 2]], dtype=dtype), torch.tensor([[0, 1, 2]]))
    scene = pack(triangle, stack_cameras(cameras))
    generator = torch.Generator().manual_seed(1)
    view = torch.randint(num_views, (50,), generator=generator)
    xy = 11 * torch.rand(50, 2, generator=generator, dtype=dtype)
    found = scene.rays_at(view, xy)
    assert scene.linear_rays is not None
    for i, camera in enumerate(cameras):
        mine = view == i
        rays = camera.linear_rays()
        assert rays is not None
        for values, expected in zip(found, rays.at(xy[mine]), strict=True):
            assert torch.equal(values[mine], expected.expand_as(values[mine]))
    leaf = xy.clone().requires_grad_()
    moving = scene.rays_at(view, leaf)
    assert moving[1].requires_grad
    for values, expected in zip(found, moving, strict=True):
        assert torch.equal(values, expected)
    assert scene.stacked_rays is not None
    assert torch.equal(affine_rays(xy, view, scene.stacked_rays, 3), found[1])
