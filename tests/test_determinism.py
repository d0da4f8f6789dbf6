"""The same bits: forward and backward, from run to run, and for any number of threads."""

from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from lenses import Panorama, Pushbroom, Stereographic, WavyTelecentric
from threads import Unsteady
from torch import Tensor

from diffrender import kernels, steady
from diffrender.cameras import (
    Camera,
    DoubleSphereCamera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    so3_exp,
    stack_cameras,
)
from diffrender.mesh import Material, Mesh, join
from diffrender.primitives import sphere
from diffrender.render import render
from diffrender.shading import AmbientLight, DirectionalLight, Lambert, PointLight, SphericalHarmonicsLight

SIZE = (47, 53)
KERNELS = [import_module(f"diffrender.kernels.{module.name}") for module in iter_modules(kernels.__path__)]
THRESHOLDS = [(module, name) for module in KERNELS for name in vars(module) if name.startswith("MIN_")]
MIDDLE = (26.8, 23.3)
CAMERAS: dict[str, Camera] = {
    "pinhole": PinholeCamera(50.0, 52.0, 26.8, 23.3, size=SIZE),
    "orthographic": OrthographicCamera(18.0, 17.0, 26.8, 23.3, size=SIZE),
    "fisheye": FisheyeCamera(55.0, 50.0, 26.8, 23.3, k=(0.05, -0.01, 0.002, 0.0), size=SIZE),
    "opencv": OpenCVCamera(50.0, 52.0, 26.8, 23.3, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=SIZE),
    "stereographic": Stereographic(90.0, size=SIZE).resize((16, 18)),  # small: their rays are found by iteration,
    "panorama": Panorama(1.2, size=SIZE).resize((16, 18)),  # which takes long
    "pushbroom": Pushbroom(50.0, 0.06, size=SIZE),
    "telecentric": WavyTelecentric(0.06, 2.0, size=SIZE),
    "double sphere": DoubleSphereCamera(45.0, 44.0, *MIDDLE, xi=-0.2, alpha=0.6, size=SIZE),
    "eucm": EUCMCamera(50.0, 52.0, *MIDDLE, alpha=0.5, beta=1.1, size=SIZE),
    "unified": UnifiedCamera(95.0, 99.0, *MIDDLE, xi=0.9, dist=(-0.2, 0.05, 1e-3, -2e-3), size=SIZE),
    "ocamcalib": ScaramuzzaCamera(*MIDDLE, (-50.0, 0.0, 4e-3, 1e-5), c=1.01, d=2e-3, e=-1e-3, size=SIZE),
    "fov": FOVCamera(50.0, 52.0, *MIDDLE, omega=0.9, size=SIZE),
    "thin prism": ThinPrismFisheyeCamera(
        55.0, 50.0, *MIDDLE, dist=(0.05, -0.01, 1e-3, -2e-3, 2e-3, 0.0, 1e-3, 2e-3), size=SIZE
    ),
    "rim": OpenCVCamera(80.0, 83.0, *MIDDLE, dist=(-5.0, 0.0, 0.0, 0.0), size=SIZE),  # folds back before the balls end
}


@pytest.fixture(autouse=True)
def _little_is_shared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is cut for two threads however small it is."""
    assert len(THRESHOLDS) > 10
    for module, name in THRESHOLDS:
        monkeypatch.setattr(module, name, 1)


def textured() -> Mesh:
    """Two textured balls, one before the other."""
    generator = torch.Generator().manual_seed(0)
    ball = sphere(1)
    material = Material(texture=torch.rand(16, 16, 3, generator=generator))
    far = Mesh(ball.vertices, ball.faces, uvs=ball.uvs, uv_faces=ball.uv_faces, materials=(material,))
    return join([far, far.replace(vertices=0.4 * ball.vertices + torch.tensor([0.4, 0.2, -1.6]))])


def image_and_gradients(camera: Camera, normals: str, device: str = "cpu") -> tuple[Tensor, ...]:
    """What `render` makes of a batch and of a list, and the gradients to everything there is."""
    mesh = textured()
    assert mesh.uvs is not None
    leaves = {
        "vertices": mesh.vertices,
        "uvs": mesh.uvs,
        "texture": mesh.materials[0].texture,
        "light": torch.tensor([0.2, 0.3, 0.4]),
        "direction": torch.tensor([0.3, -0.5, 1.0]),
        "position": torch.tensor([0.5, -1.0, -3.0]),
        "harmonics": torch.linspace(-0.1, 0.3, 27).reshape(9, 3),
        "turn": torch.tensor([0.1, -0.05, 0.02]),
        "t": torch.tensor([0.0, 0.1, 3.2]),
        **{name: getattr(camera, name) for name in camera._names},
    }
    leaves = {name: value.detach().to(device, copy=True).requires_grad_() for name, value in leaves.items()}  # type: ignore[union-attr]
    camera, mesh = camera.to(device), mesh.to(device)
    moved = mesh.replace(
        vertices=leaves["vertices"],
        uvs=leaves["uvs"],
        materials=(Material(texture=leaves["texture"]), *mesh.materials[1:]),
    )
    lights = (
        AmbientLight(leaves["light"]),
        DirectionalLight(leaves["direction"], leaves["light"]),
        PointLight(leaves["position"], leaves["light"]),
        SphericalHarmonicsLight(leaves["harmonics"]),
    )
    shader = Lambert(lights, normals=normals)  # type: ignore[arg-type]
    lens = camera.replace(R=so3_exp(leaves["turn"]), t=leaves["t"], **{name: leaves[name] for name in camera._names})
    views = stack_cameras([lens, lens.replace(t=leaves["t"] + 0.1)])
    batch = render(moved, views, background=0.3, shader=shader, samples=2)
    listed = render([moved, moved], views, background=0.3, shader=shader)
    weight = torch.linspace(-1, 1, batch.numel(), device=device).reshape(batch.shape)
    gradients = torch.autograd.grad(steady.total((batch + 2 * listed) * weight), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        assert (gradient != 0).any(), name
    return batch.detach(), listed.detach(), *gradients


@pytest.mark.parametrize(
    ("kind", "normals"), [*((kind, "smooth") for kind in CAMERAS), ("pinhole", "flat"), ("fisheye", "flat")]
)
def test_same_bits_from_run_to_run_and_for_one_thread_and_two(kind: str, normals: str) -> None:
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(image_and_gradients(CAMERAS[kind], normals))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


UNEVEN = (101, 109)  # four rays a pixel are more than torch leaves undivided, and no number of them that suits vectors
LARGE: dict[str, Camera] = {
    "pinhole": PinholeCamera(100.0, 104.0, 54.1, 49.3, size=UNEVEN),
    "opencv": OpenCVCamera(100.0, 104.0, 54.1, 49.3, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=UNEVEN),
    "panorama": EquirectangularCamera(50.0, 50.0, 54.1, 49.3, size=UNEVEN),
}


@pytest.mark.parametrize("kind", LARGE)
def test_no_operation_of_rendering_minds_the_number_of_threads(kind: str) -> None:
    with Unsteady() as unsteady:
        image_and_gradients(LARGE[kind], "smooth")
    assert unsteady.found == []
    assert unsteady.asked > 500  # of a thousand and more


@pytest.mark.cuda
@pytest.mark.parametrize("kind", CAMERAS)
def test_cuda_draws_what_the_cpu_draws_and_has_the_same_bits_again(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.use_deterministic_algorithms(True)
    try:
        here, there, again = (image_and_gradients(CAMERAS[kind], "smooth", x) for x in ("cpu", "cuda", "cuda"))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(again, there, rtol=0, atol=0)
    for name, mine, expected in zip(("batch", "listed"), there, here, strict=False):
        # A ray through an edge, within rounding, meets one face here and the other there: hardly any does.
        differs = ((mine.cpu() - expected).abs() > 1e-4).float().mean()
        assert differs < 1e-3, (name, float(differs))
    for mine, expected in zip(there[2:], here[2:], strict=True):
        assert (mine.cpu() - expected).norm() < 1e-2 * expected.norm()
