"""How soon a shape fits its silhouettes: with this renderer, and with PyTorch3D's soft rasterizer, on the same CPU.

    OMP_NUM_THREADS=1 python benchmarks/race.py

The same target (silhouettes of the giraffe from 20 views), the same start (a sphere), two views a step, and one judge:
mean squared difference of masks with 4 x 4 points in a pixel, where a point is in or out, in all views. PyTorch3D runs
as in its tutorial on fitting textured meshes (sigma 1e-4, 50 faces a pixel; stochastic descent of offsets with momentum
and the regularizers of its own), and with our optimizer, the large steps; each with several step sizes, so many seconds
each. Then ours, with several step sizes, until it is as good as the best of them. Times are processor time, without the
judge. Without PyTorch3D (see `peers.py` for how to install it), only what this renderer does is shown.
"""

import argparse
import importlib.util
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import diffrender as dr
from diffrender.losses import silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import edge_length, laplacian_smoothness, normal_consistency

GIRAFFE = Path(__file__).resolve().parents[1] / "assets" / "giraffe.glb"
VIEWS, VIEWS_A_STEP = 20, 2
ELEVATIONS = (-30.0, 0.0, 25.0, 55.0)  # of the rings that the cameras stand on
POINTS = 4  # of the judge, in each direction of a pixel
SIGMA, FACES_PER_PIXEL = 1e-4, 50  # PyTorch3D's tutorial

Alpha = Callable[[Tensor, dr.PinholeCamera], Tensor]  # vertices and cameras to coverage [N, H, W]


class Scene:
    """Target, start and judge."""

    def __init__(self, size: int, level: int) -> None:
        R, t = zip(
            *[dr.orbit_poses(VIEWS // len(ELEVATIONS), distance=2.7, elevation=e) for e in ELEVATIONS], strict=True
        )
        focal = size / 2 / math.tan(math.radians(30))  # a field of view of 60 degrees, as in the tutorial
        self.cameras = dr.PinholeCamera(
            focal, focal, size / 2, size / 2, size=(size, size), R=torch.cat(R), t=torch.cat(t)
        )
        self._fine = self.cameras.resize((POINTS * size, POINTS * size))
        self.targets = self._masks(dr.load_mesh(GIRAFFE))
        ball = dr.sphere(level)
        self.start = dr.Mesh(0.45 * ball.vertices, ball.faces)

    def _masks(self, mesh: dr.Mesh) -> Tensor:
        inside = (dr.visibility(mesh, self._fine) >= 0).float()
        return torch.nn.functional.avg_pool2d(inside, POINTS)

    @torch.no_grad()
    def judge(self, vertices: Tensor) -> float:
        return float(silhouette_loss(self._masks(self.start.replace(vertices=vertices)), self.targets))


class Recipe(ABC):
    """How vertices move."""

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def vertices(self) -> Tensor: ...

    @abstractmethod
    def regularizers(self, vertices: Tensor) -> Tensor: ...


class Large(Recipe):
    """Large steps, as in `examples/fit_silhouette.py`."""

    def __init__(self, mesh: dr.Mesh, length: float) -> None:
        self._mesh, self._steps = mesh, LargeSteps(mesh.topology, smoothness=4.0)
        self._u = self._steps.to_differential(mesh.vertices).requires_grad_()
        self.optimizer = AdamUniform([self._u], lr=length)

    def vertices(self) -> Tensor:
        return self._steps.to_vertices(self._u)

    def regularizers(self, vertices: Tensor) -> Tensor:
        mesh = self._mesh.replace(vertices=vertices)
        return 0.005 * normal_consistency(mesh) + 0.002 * laplacian_smoothness(mesh) + 0.001 * edge_length(mesh)


class Tutorial(Recipe):
    """Offsets of the vertices, and PyTorch3D's regularizers with the weights of its tutorial."""

    def __init__(self, mesh: dr.Mesh, length: float) -> None:
        self._mesh = mesh
        self._offsets = torch.zeros_like(mesh.vertices, requires_grad=True)
        self.optimizer = torch.optim.SGD([self._offsets], lr=length, momentum=0.9)

    def vertices(self) -> Tensor:
        return self._mesh.vertices + self._offsets

    def regularizers(self, vertices: Tensor) -> Tensor:
        from pytorch3d.loss import mesh_edge_loss, mesh_laplacian_smoothing, mesh_normal_consistency
        from pytorch3d.structures import Meshes

        meshes = Meshes([vertices], [self._mesh.faces])
        smooth = mesh_laplacian_smoothing(meshes, method="uniform")
        return mesh_edge_loss(meshes) + 0.01 * mesh_normal_consistency(meshes) + smooth


def ours(faces: Tensor) -> Alpha:
    template: list[dr.Mesh] = []  # its topology is computed once

    def alpha(vertices: Tensor, cameras: dr.PinholeCamera) -> Tensor:
        template[:] = template or [dr.Mesh(vertices.detach(), faces)]
        return dr.render(template[0].replace(vertices=vertices), cameras, intersecting=False)[..., -1]

    return alpha


def soft(faces: Tensor) -> Alpha:
    """PyTorch3D's silhouette renderer, with the settings of its tutorial."""
    from pytorch3d.renderer import (
        BlendParams,
        MeshRasterizer,
        MeshRenderer,
        PerspectiveCameras,
        RasterizationSettings,
        SoftSilhouetteShader,
    )
    from pytorch3d.structures import Meshes

    def alpha(vertices: Tensor, cameras: dr.PinholeCamera) -> Tensor:
        height, width = cameras.size
        flip = vertices.new_tensor([-1.0, -1.0, 1.0])  # its x points left, its y up
        placed = (vertices @ cameras.R.mT + cameras.t[:, None]) * flip
        seen = PerspectiveCameras(
            focal_length=torch.stack([cameras.fx, cameras.fy], dim=-1).expand(len(placed), 2),
            principal_point=torch.stack([cameras.cx, cameras.cy], dim=-1).expand(len(placed), 2),
            in_ndc=False,
            image_size=((height, width),) * len(placed),
        )
        settings = RasterizationSettings(
            image_size=(height, width),
            blur_radius=math.log(1 / SIGMA - 1) * SIGMA,
            faces_per_pixel=FACES_PER_PIXEL,
            perspective_correct=False,
        )
        renderer = MeshRenderer(MeshRasterizer(seen, settings), SoftSilhouetteShader(BlendParams(sigma=SIGMA)))
        return renderer(Meshes(list(placed), [faces] * len(placed)))[..., 3]

    return alpha


def run(scene: Scene, alpha: Alpha, recipe: Recipe, seconds: float, good: float) -> Iterator[tuple[float, float]]:
    """Processor time and loss, after every twentieth of the time so far, until `seconds` are over or it is `good`."""
    generator = torch.Generator().manual_seed(0)
    spent, looked = 0.0, 0.0
    loss = scene.judge(recipe.vertices())
    yield spent, loss
    while spent < seconds and loss > good:
        began = time.process_time()
        some = torch.randperm(VIEWS, generator=generator)[:VIEWS_A_STEP]
        vertices = recipe.vertices()
        found = silhouette_loss(alpha(vertices, scene.cameras[some]), scene.targets[some])
        recipe.optimizer.zero_grad()
        (found + recipe.regularizers(vertices)).backward()
        recipe.optimizer.step()
        spent += time.process_time() - began
        if spent >= 1.05 * looked:
            looked, loss = spent, scene.judge(recipe.vertices())
            yield spent, loss


def best(
    scene: Scene, name: str, alpha: Alpha, recipes: dict[float, Recipe], seconds: float, good: float = 0.0
) -> tuple[float, float]:
    """Time and loss where the best of the recipes, one for each step size, first was as good as it became."""
    found = []
    for length, recipe in recipes.items():
        points = list(run(scene, alpha, recipe, seconds, good))
        found.append(min(points, key=lambda point: (max(point[1], good), point[0])))
        print(f"| {name} | {length:g} | {len(points)} | {found[-1][0]:.2f} | {found[-1][1]:.5f} |", flush=True)
    return min(found, key=lambda point: (max(point[1], good), point[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="of the images in pixels (the tutorial's)")
    parser.add_argument(
        "--level", type=int, default=4, help="of the sphere at the start: 20 * 4^level faces (the tutorial's)"
    )
    parser.add_argument("--seconds", type=float, default=120, help="for each of PyTorch3D's runs")
    args = parser.parse_args()
    scene = Scene(args.size, args.level)
    faces, start = scene.start.faces, scene.start
    print(
        f"{start.num_faces} faces, {VIEWS} silhouettes {args.size} x {args.size}; "
        f"loss at the start {scene.judge(start.vertices):.5f}\n"
    )
    print("| with | step | looks | seconds | loss |\n|---|---|---|---|---|")
    goal = (math.inf, math.inf)  # seconds and loss of PyTorch3D's best
    if importlib.util.find_spec("pytorch3d"):
        for name, kind, lengths in (
            ("PyTorch3D, its tutorial", Tutorial, (1.0, 3.0)),
            ("PyTorch3D, large steps", Large, (0.1, 0.3)),
        ):
            found = best(scene, name, soft(faces), {x: kind(start, x) for x in lengths}, args.seconds)
            goal = min(goal, found, key=lambda point: point[1])
    else:
        print("PyTorch3D is not installed: nothing to race against", flush=True)
    list(run(scene, ours(faces), Large(start, 0.1), 1.0, 0.0))  # kernels are compiled and loaded
    seconds, loss = best(
        scene,
        "diffrender, large steps",
        ours(faces),
        {x: Large(start, x) for x in (0.1, 0.2, 0.3)},
        args.seconds,
        0.0 if goal[0] == math.inf else goal[1],
    )
    if goal[0] < math.inf:
        print(
            f"\nPyTorch3D's best: {goal[1]:.5f} after {goal[0]:.1f} s; ours: {loss:.5f} after {seconds:.2f} s, ", end=""
        )
        print("which is not as good" if loss > goal[1] else f"{goal[0] / seconds:.0f} times sooner")


if __name__ == "__main__":
    main()
