"""How right: gradients of `render` against differences of its converged image. `python benchmarks/gradients.py`

norm(gradient - reference) / norm(reference) at 96 x 96 with one sample per pixel, of a weighted sum of the image to
translation, rotation, scale and focal length. The reference is central differences of `render(samples=6)` in float64,
whose image the tests compare with supersampled visibility; `diffrender.testing` has a reference that is independent of
`render` altogether, and slower.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import diffrender as dr
from diffrender.testing import smooth_weights

SIZE = 96
STEP = 5e-4
CAMERAS: dict[str, Callable[[Tensor], dr.Camera]] = {
    "pinhole": lambda f: dr.PinholeCamera(105 * f, 105 * f, 48.3, 47.8, size=(SIZE, SIZE)),
    "orthographic": lambda f: dr.OrthographicCamera(33 * f, 33 * f, 48.3, 47.8, size=(SIZE, SIZE)),
    "fisheye": lambda f: dr.FisheyeCamera(67 * f, 67 * f, 48.3, 47.8, (0.05, -0.01, 0.002, 0.0), size=(SIZE, SIZE)),
    "OpenCV": lambda f: dr.OpenCVCamera(
        105 * f, 105 * f, 48.3, 47.8, (-0.3, 0.1, 2e-3, -3e-3, 0.02), size=(SIZE, SIZE)
    ),
}


def main() -> None:
    print(f"| scene | {' | '.join(CAMERAS)} |\n|---|{'---|' * len(CAMERAS)}")
    for name, mesh in scenes().items():
        cells = [f"{error(mesh, camera, 1):.2%} / {error(mesh, camera, 4):.2%}" for camera in CAMERAS.values()]
        print(f"| {name}, alpha / colour and alpha | {' | '.join(cells)} |", flush=True)


def scenes() -> dict[str, dr.Mesh]:
    """Meshes around the origin, float64, with smooth vertex colours."""
    ball = dr.sphere(3, dtype=torch.float64).replace(uvs=None)
    small = ball.replace(vertices=0.6 * ball.vertices + ball.vertices.new_tensor([0.5, 0.2, -1.5]))
    inside = ball.replace(vertices=0.7 * ball.vertices + ball.vertices.new_tensor([0.7, 0.2, -0.4]))
    flat = dr.grid(24, 24, dtype=torch.float64).replace(uvs=None)
    x, y = flat.vertices[:, 0], flat.vertices[:, 1]
    bent = torch.stack([x, y, 0.4 * torch.sin(3 * x) * torch.cos(2 * y) + 0.8 * x * x], dim=-1)
    sheet = flat.replace(vertices=bent @ dr.so3_exp(bent.new_tensor([0.5, 0.7, 0.2])).T)
    return {
        "sphere": painted(ball),
        "one sphere before another": dr.join([painted(ball), painted(small, -0.5)]),
        "open curved sheet": painted(sheet),
        "two spheres intersecting": dr.join([painted(ball), painted(inside, -0.5)]),
    }


def painted(mesh: dr.Mesh, contrast: float = 0.5) -> dr.Mesh:
    """Waves of colour; of opposite contrast, so that the colour jumps where two meshes meet."""
    return mesh.replace(vertex_colors=0.5 + contrast * torch.sin(3 * mesh.vertices))


def error(mesh: dr.Mesh, lens: Callable[[Tensor], dr.Camera], channels: int) -> float:
    """Of the gradient of the image's last `channels`."""
    start = torch.tensor([0.1, 0.05, 3.2, 0.02, -0.03, 0.01, 1.0, 1.0], dtype=torch.float64)
    weights = smooth_weights(SIZE, SIZE, 4)[..., -channels:]

    def loss(p: Tensor, samples: int) -> Tensor:
        vertices = p[6] * mesh.vertices @ dr.so3_exp(p[3:6]).T + p[:3]
        image = dr.render(mesh.replace(vertices=vertices), lens(p[7]), background=1.0, samples=samples)
        return (image[..., -channels:] * weights).sum()

    parameters = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(parameters, 1), parameters)
    with torch.no_grad():
        steps = STEP * torch.eye(len(start), dtype=torch.float64)
        reference = torch.stack([(loss(start + h, 6) - loss(start - h, 6)) / (2 * STEP) for h in steps])
    return float((gradient - reference).norm() / reference.norm())


if __name__ == "__main__":
    main()
