"""Rendering through every camera model: visibility against rays and triangles, gradients against a converged image."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    Camera,
    CylindricalCamera,
    DoubleSphereCamera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    WeakPerspectiveCamera,
    so3_exp,
)
from diffrender.mesh import Mesh
from diffrender.primitives import sphere
from diffrender.render import render
from diffrender.testing import check_gradients
from diffrender.visibility import visibility

FULL = (0.3, 0.05, 3e-3, -2e-3, 0.01, 0.5, 0.1, 0.02)
# Camera, parameters for an image of 48 x 64 (scaled with its size), and the rest.
LENSES: dict[str, tuple[Callable[..., Camera], tuple, tuple]] = {
    "weak perspective": (WeakPerspectiveCamera, (40, 42, 31, 25), (3.0,)),
    "opencv14": (OpenCVCamera, (40, 42, 31, 25), ((*FULL, 0.01, -3e-3, 4e-3, 2e-3, 0.05, -0.08),)),
    "fisheye": (FisheyeCamera, (18, 18, 31, 25), ((0.05, -0.01),)),
    "thin prism fisheye": (
        ThinPrismFisheyeCamera,
        (20, 20, 31, 25),
        ((0.05, -0.01, 2e-3, -1e-3, 2e-3, -3e-4, 3e-3, -2e-3),),
    ),
    "fov": (FOVCamera, (20, 20, 31, 25), (0.9,)),
    "unified": (UnifiedCamera, (30, 30, 31, 25), (0.8, (-0.05, 0.01, 2e-3, -1e-3))),
    "mirror": (UnifiedCamera, (45, 45, 31, 25), (1.4,)),
    "double sphere": (DoubleSphereCamera, (14, 14, 31, 25), (-0.24, 0.57)),
    "eucm": (EUCMCamera, (20, 20, 31, 25), (0.6, 1.1)),
    "equirectangular": (EquirectangularCamera, (64 / 6.28318, 48 / 3.14159, 32, 24), ()),
    "cylindrical": (CylindricalCamera, (64 / 6.28318, 10, 32, 25), ()),
}


def make(name: str, height: int, dtype: torch.dtype = torch.float64) -> Camera:
    size, scale = (height, height * 4 // 3), height / 48
    if name == "scaramuzza":
        a = (-18.0 * scale, 0.0, 0.012 / scale, -1e-4 / scale**2)
        camera: Camera = ScaramuzzaCamera(31 * scale, 25 * scale, a, 1.01, 0.02, -0.01, size=size)
    else:
        model, pixels, rest = LENSES[name]
        camera = model(*(scale * float(value) for value in pixels), *rest, size=size)
    return camera.to(dtype=dtype)


NAMES = [*LENSES, "scaramuzza"]


def soup(seed: int, count: int = 60) -> Mesh:
    """Triangles on all sides of the camera, large and small, across seams and poles."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(count, 1, 3, generator=generator, dtype=torch.float64)
    middle = middle / middle.norm(dim=-1, keepdim=True) * (1 + 3 * torch.rand(count, 1, 1, generator=generator))
    size = 0.05 + torch.rand(count, 1, 1, generator=generator).square() * 1.5
    corners = middle + size * torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))


def cast(origins: Tensor, directions: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """The first triangle along each ray by Moeller and Trumbore's equations, and whether that is beyond doubt."""
    a, b, c = corners.unbind(1)
    o, d = origins[:, None], directions[:, None]
    across = torch.linalg.cross(d, (c - a).expand(len(d), -1, -1))
    determinant = (across * (b - a)).sum(-1)
    u = ((o - a) * across).sum(-1) / determinant
    turned = torch.linalg.cross((o - a).expand(len(d), -1, -1), (b - a).expand(len(d), -1, -1))
    v = (d * turned).sum(-1) / determinant
    t = ((c - a) * turned).sum(-1) / determinant
    inside = torch.stack((u, v, 1 - u - v, t), dim=-1).amin(-1)
    first, face = torch.where(inside > 0, t, math.inf).min(-1)
    # A doubt: a ray that nearly meets, or nearly misses, a triangle not farther away.
    doubt = ((inside.abs() < 1e-9) & (t <= first[:, None] + 1e-9)).any(-1)
    return torch.where(first < math.inf, face, -1), ~doubt


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_shows_what_its_ray_meets_first(name: str) -> None:
    camera, mesh = make(name, 48), soup(NAMES.index(name))
    origins, directions = (ray.reshape(-1, 3) for ray in camera.rays(camera.pixel_centers()))
    seen = directions.isfinite().all(-1)
    directions = torch.where(seen[:, None], directions, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    expected, sure = cast(origins, directions, mesh.vertices[mesh.faces])
    expected = torch.where(seen, expected, -1)
    found = visibility(mesh, camera).reshape(-1)
    assert (found[sure] == expected[sure]).all()
    assert sure.double().mean() > 0.99
    assert (found >= 0).double().mean() > 0.2


def ball(subdivisions: int, middle: Tensor) -> Mesh:
    """A unit sphere, turned so that no face is seen exactly edge-on."""
    mesh = sphere(subdivisions, dtype=middle.dtype)
    turn = so3_exp(torch.tensor([0.3, 0.2, -0.1], dtype=middle.dtype))
    return mesh.replace(vertices=mesh.vertices @ turn.mT + middle)


def placed(name: str) -> tuple[float, float, float]:
    """Where a ball is seen: to the side; behind, across the seam; below, around a pole."""
    return {"equirectangular": (0.3, 0.2, -3.0), "cylindrical": (-0.2, 0.3, -3.0)}.get(name, (0.4, -0.3, 3.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_ball_covers_its_cone_of_directions(name: str) -> None:
    """Its outline is exact: coverage is that of the cone of the polyhedron's circumscribed and inscribed spheres."""
    camera = make(name, 48)
    middle = torch.tensor(placed(name), dtype=torch.float64)
    coverage = render(ball(4, middle), camera)[..., -1]
    fine = camera.resize((48 * 16, 64 * 16))
    origins, directions = fine.rays(fine.pixel_centers())
    directions = directions / directions.norm(dim=-1, keepdim=True)
    offset = origins - middle
    along = (offset * directions).sum(-1)
    distance = (offset * offset).sum(-1) - along**2
    hit = (distance < 1) & (along < 0)
    expected = hit.double().reshape(48, 16, 64, 16).mean((1, 3))
    # 256 points in a pixel see an edge to a row of them, 1 / 16; the polyhedron is 0.1 % smaller than its sphere.
    assert (coverage - expected).abs().max() < 0.1
    assert abs(float(coverage.sum() / expected.sum()) - 1) < 0.01


POLE = "equirectangular, a pole"
# A parameter of each lens, with a step that moves the ball by a pixel or so. Not one that moves the end of the field of
# view while the ball is seen there: what appears at the end of the image's domain has no gradient.
VARIED = {"opencv14": ("fx", 2.0), "scaramuzza": ("cx", 1.0), "fov": ("omega", 0.1), "unified": ("xi", 0.1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, POLE])
def test_gradients_of_a_ball_to_its_place_and_to_the_lens(name: str) -> None:
    lens = name.removesuffix(", a pole")
    place = (0.3, 2.5, -0.4) if name == POLE else placed(lens)
    base = make(lens, 48)
    varied, step = VARIED.get(name, ("fy", 2.0))

    def scene(parameters: dict[str, Tensor]) -> tuple[Mesh, Camera]:
        camera = base.to(dtype=parameters["shift"].dtype)
        if "lens" in parameters:
            camera = camera.replace(**{varied: parameters["lens"]})
        return ball(2, parameters["shift"]), camera

    parameters = {"shift": torch.tensor(place, dtype=torch.float64)}
    if name != POLE:
        parameters["lens"] = getattr(base, varied).clone()
    steps = {"shift": 0.12, "lens": step}
    report = check_gradients(scene, parameters, step=steps, reference_samples=128, samples=2)
    report.check(limit=0.1)  # three times what a reference of this size can tell; a missing seam would be 20 to 60 %
