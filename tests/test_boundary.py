"""The boundary term against closed forms, brute force and finite differences of the converged image."""

import pytest
import torch

from diffrender.boundary import Boundary, boundary
from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, so3_exp
from diffrender.mesh import Mesh
from diffrender.primitives import sphere
from diffrender.render import render
from diffrender.scene import pack
from diffrender.visibility import pixel_rays

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
    return boundary(scene, pixel_rays(scene.camera))


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
