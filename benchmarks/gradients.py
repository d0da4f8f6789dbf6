"""How right: gradients of `render` against differences of its converged image. `python benchmarks/gradients.py`

Five scenes, and the same meshes subdivided until many triangles share a pixel, through three cameras, 128 x 128 pixels,
default settings (`samples=1`). Error is norm(gradient - reference) / norm(reference) of a weighted sum of the image:

- colour: of colour and alpha; alpha: of alpha alone; depth: of depth over a background of 0;
- to translation, rotation, scale, focal length and distortion, each in units that move the vertices by one pixel (root
  mean square), so that no parameter hides another;
- vertices: of colour and alpha, to 32 smooth random displacements of the vertices, in the same units.

The reference is a central difference of `render(samples=k)` in float64. It is repeated with another k and another step;
half of what the two differ by is given as its uncertainty.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import diffrender as dr
from diffrender.isosurface import surface_nets
from diffrender.shading import depth_shader, unlit
from diffrender.subdivide import subdivide
from diffrender.testing import smooth_weights

SIZE = 128
FINE_FACES = 150_000  # of subdivided meshes: ten and more to a covered pixel
DIRECTIONS = 32
BACKGROUND = (1.0, 1.0, 1.0, 0.0)  # white, and depth 0
REFERENCES = ((6, 0.02), (4, 0.03))  # samples per axis, step in pixels; the second only to judge the first
LOSSES = {"colour": (0, 1, 2, 4), "alpha": (4,), "depth": (3,)}  # channels
GROUPS = {"translation": 3, "rotation": 3, "scale": 1, "focal": 1, "distortion": None}


@dataclass(frozen=True)
class View:
    """A camera by its focal length factor and distortion, and where the scene is put: along `axis`, at `distance`."""

    lens: Callable[[Tensor, Tensor], dr.Camera]
    distortion: tuple[float, ...]
    axis: tuple[float, float, float]
    distance: float


SQUARE = (SIZE, SIZE)
VIEWS = {
    "pinhole": View(lambda f, _: dr.PinholeCamera(130 * f, 130 * f, 64.3, 63.8, size=SQUARE), (), (0.02, 0.01, 1), 3.2),
    "distorted": View(
        lambda f, k: dr.OpenCVCamera(115 * f, 115 * f, 60.3, 67.8, k, size=SQUARE),
        (-0.35, 0.12, 0.01, -0.015), (0.12, -0.1, 1), 3.0,
    ),
    "fisheye": View(
        lambda f, k: dr.FisheyeCamera(75 * f, 75 * f, 30.3, 41.8, k, size=SQUARE),
        (0.0, 0.0, 0.0, 0.0), (1.0, 0.6, 1.0), 2.4,
    ),
}  # fmt: skip


# --- scenes: around the origin, in the unit sphere, float64, with waves of colour ---------------------------------


def scenes() -> dict[str, dr.Mesh]:
    ball = turned(dr.sphere(3, dtype=torch.float64).replace(uvs=None), (0.3, 0.5, 0.2))  # no symmetry to the camera
    small = ball.replace(vertices=0.6 * ball.vertices + ball.vertices.new_tensor([0.5, 0.2, -1.5]))
    inside = ball.replace(vertices=0.7 * ball.vertices + ball.vertices.new_tensor([0.7, 0.2, -0.4]))
    shapes = {
        "sphere": painted(ball),
        "animal": painted(animal()),
        "two spheres, one in front": dr.join([painted(ball), painted(small, -0.45)]),
        "two spheres, intersecting": dr.join([painted(ball), painted(inside, -0.45)]),
        "open sheet": painted(sheet()),
    }
    return {name: centred(mesh) for name, mesh in shapes.items()}


def centred(mesh: dr.Mesh) -> dr.Mesh:
    """In the unit sphere around the origin."""
    x = mesh.vertices - torch.stack(mesh.bounds().unbind()).mean(0)
    return mesh.replace(vertices=x / x.norm(dim=-1).max())


def painted(mesh: dr.Mesh, contrast: float = 0.45) -> dr.Mesh:
    """With waves of colour; of opposite contrast, so that the colour jumps where two meshes meet."""
    phase = mesh.vertices.new_tensor([0.0, 1.0, 2.0])
    return mesh.replace(vertex_colors=0.5 + contrast * torch.sin(3 * mesh.vertices + phase))


def turned(mesh: dr.Mesh, angles: tuple[float, float, float]) -> dr.Mesh:
    return mesh.replace(vertices=mesh.vertices @ dr.so3_exp(mesh.vertices.new_tensor(angles)).T)


def sheet() -> dr.Mesh:
    flat = dr.grid(24, 24, dtype=torch.float64).replace(uvs=None)
    x, y = flat.vertices[:, 0], flat.vertices[:, 1]
    bent = torch.stack([x, y, 0.4 * torch.sin(3 * x) * torch.cos(2 * y) + 0.8 * x * x], dim=-1)
    return turned(flat.replace(vertices=bent), (0.5, 0.7, 0.2))


def animal() -> dr.Mesh:
    """Body, neck and head on four legs that are two to three pixels wide, as the surface of blended capsules."""
    bones = [  # from, to, radius
        ((-0.5, 0, 0), (0.4, 0, 0), 0.22), ((0.4, 0, 0), (0.75, -0.6, 0), 0.11),
        ((0.75, -0.6, 0), (1.0, -0.55, 0), 0.12), ((-0.6, 0, 0), (-0.9, 0.3, 0), 0.04),
        *(((x, 0.1, z), (1.15 * x, 0.95, 1.2 * z), 0.045) for x in (-0.5, 0.4) for z in (-0.15, 0.15)),
    ]  # fmt: skip
    step = 0.04
    axes = [torch.arange(low, high, step, dtype=torch.float64) for low, high in ((-1.1, 1.3), (-0.9, 1.2), (-0.5, 0.5))]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    distances = []
    for begin, end, radius in bones:
        a, b = points.new_tensor(begin), points.new_tensor(end)
        along = (((points - a) @ (b - a)) / (b - a).square().sum()).clamp(0, 1)
        distances.append((points - a - along.unsqueeze(-1) * (b - a)).norm(dim=-1) - radius)
    blended = -0.02 * torch.logsumexp(-torch.stack(distances) / 0.02, dim=0)
    return turned(surface_nets(-blended, origin=points[0, 0, 0], step=step), (0.15, 0.6, 0.1))


def subdivided(mesh: dr.Mesh) -> dr.Mesh:
    while mesh.num_faces < FINE_FACES:
        mesh = subdivide(mesh)
    return mesh


# --- one scene through one camera -----------------------------------------------------------------------------------


class Problem:
    """Losses as a function of parameters in pixels: those of `GROUPS`, then the displacements of the vertices."""

    def __init__(self, mesh: dr.Mesh, view: View, dtype: torch.dtype = torch.float64) -> None:
        assert mesh.vertex_colors is not None
        self.mesh, self.view, self.dtype = mesh, view, dtype
        self.colors = mesh.vertex_colors.to(dtype)
        self.weights = smooth_weights(SIZE, SIZE, 5)
        self.count = 8 + len(view.distortion)
        random = torch.Generator().manual_seed(0)
        waves = torch.randn(DIRECTIONS, 3, 3, generator=random, dtype=torch.float64) * 2  # about a radius long
        phase = torch.rand(DIRECTIONS, 1, 3, generator=random, dtype=torch.float64) * 2 * math.pi
        self.directions = torch.sin(mesh.vertices @ waves.transpose(1, 2) + phase)  # [32, V, 3]
        self.units = torch.ones(self.count + DIRECTIONS, dtype=torch.float64)
        with torch.no_grad():
            self.units = 1 / torch.stack([self.motion(step) for step in 1e-5 * torch.eye(len(self.units)).double()])

    def posed(self, theta: Tensor) -> tuple[Tensor, dr.Camera]:
        p, shift = (self.units * theta).split([self.count, DIRECTIONS])
        x = torch.exp(p[6]) * self.mesh.vertices @ dr.so3_exp(p[3:6]).T
        if theta.requires_grad or shift.any():
            x = x + (shift @ self.directions.flatten(1)).reshape(x.shape)
        axis = torch.nn.functional.normalize(x.new_tensor(self.view.axis), dim=0)
        z = x.new_tensor([0.0, 0.0, 1.0])
        turn = dr.so3_exp(torch.linalg.cross(z, axis) / torch.linalg.cross(z, axis).norm() * torch.acos(axis[2]))
        vertices = x @ turn.T + self.view.distance * axis + p[:3]
        return vertices, self.view.lens(torch.exp(p[7]), p[8:] + p.new_tensor(self.view.distortion))

    def motion(self, step: Tensor) -> Tensor:
        """Root mean square of how far the vertices move in the image, per unit of `step`."""
        (after, _), (before, _) = (camera.project(x) for x, camera in (self.posed(step), self.posed(-step)))
        return ((after - before) / (2 * step.norm())).square().sum(-1).mean().sqrt()

    def image(self, theta: Tensor, samples: int = 1) -> Tensor:
        """[H, W, 5] colour, depth, alpha."""
        vertices, camera = self.posed(theta)
        mesh = self.mesh.replace(vertices=vertices.to(self.dtype), vertex_colors=self.colors)
        return dr.render(
            mesh, camera.to(dtype=self.dtype), background=BACKGROUND, shader=colour_and_depth, samples=samples
        )

    def losses(self, theta: Tensor, samples: int = 1) -> Tensor:
        weighted = self.image(theta, samples).double() * self.weights
        return torch.stack([weighted[..., list(channels)].sum() for channels in LOSSES.values()])

    def gradient(self) -> Tensor:
        """[losses, parameters]"""
        theta = torch.zeros_like(self.units).requires_grad_()
        losses = self.losses(theta)
        return torch.stack([torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses])

    @torch.no_grad()
    def difference(self, samples: int, step: float, count: int | None = None) -> Tensor:
        """[losses, `count` or all parameters] central differences."""
        steps = step * torch.eye(len(self.units), dtype=torch.float64)[:count]
        return torch.stack([(self.losses(h, samples) - self.losses(-h, samples)) / (2 * step) for h in steps], dim=-1)


def colour_and_depth(fragments: dr.Fragments, mesh: dr.Mesh) -> Tensor:
    return torch.cat([unlit(fragments, mesh), depth_shader(fragments, mesh)], dim=-1)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def milliseconds(problem: Problem, rounds: int = 10) -> float:
    """Of a forward and backward of colour and alpha to vertices, warm, the best of some."""
    vertices, camera = problem.posed(torch.zeros_like(problem.units))
    vertices = vertices.to(problem.dtype).requires_grad_()
    mesh = problem.mesh.replace(vertex_colors=problem.colors, vertices=vertices)
    camera, weights = camera.to(dtype=problem.dtype), problem.weights[..., :4].to(problem.dtype)
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        moved = mesh.replace(vertices=vertices)
        (dr.render(moved, camera, background=BACKGROUND[:3]) * weights).sum().backward()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="", help="only those whose name contains this")
    parser.add_argument("--view", default="", help="only cameras whose name contains this")
    parser.add_argument("--fine", action="store_true", help="the subdivided meshes as well")
    parser.add_argument("--vertices", action="store_true", help="gradients of vertices as well; takes longer")
    parser.add_argument("--groups", action="store_true", help="errors of colour and alpha by kind of parameter as well")
    parser.add_argument("--float32", action="store_true", help="gradients in float32; the reference stays float64")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    for name, mesh in chosen(args):
        for camera, view in VIEWS.items():
            if args.view in camera:
                report(name, camera, mesh, view, args)


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, dr.Mesh]]:
    for name, mesh in scenes().items():
        if args.scene in name:
            yield name, mesh
            if args.fine:
                yield f"{name}, subdivided", subdivided(mesh)


def report(name: str, camera: str, mesh: dr.Mesh, view: View, args: argparse.Namespace) -> None:
    exact = Problem(mesh, view)
    problem = Problem(mesh, view, torch.float32) if args.float32 else exact
    found, n = problem.gradient(), problem.count
    (samples, step), (fewer, longer) = REFERENCES
    reference = exact.difference(samples, step, None if args.vertices else n)
    other = exact.difference(fewer, longer, n + 4 if args.vertices else n)
    cells = [
        f"{loss} {error(found[i, :n], reference[i, :n]):.2%} +-{error(other[i, :n], reference[i, :n]) / 2:.2%}"
        for i, loss in enumerate(LOSSES)
    ]
    if args.vertices:
        doubt = error(other[0, n:], reference[0, n : n + 4]) / 2
        cells.append(f"vertices {error(found[0, n:], reference[0, n:]):.2%} +-{doubt:.2%}")
    covered = float((problem.image(torch.zeros_like(problem.units))[..., -1] > 0.5).float().mean())
    scene = f"{name} | {camera} | {mesh.num_faces} faces, {covered:.0%}"
    print(f"{scene} | {' | '.join(cells)} | {milliseconds(problem):.0f} ms", flush=True)
    if args.groups:
        for i, loss in enumerate(LOSSES):
            print(f"    {loss}: {', '.join(groups(found[i, :n], reference[i, :n]))}", flush=True)


def groups(found: Tensor, reference: Tensor) -> Iterator[str]:
    """Error of each kind of parameter, and its share of the whole gradient."""
    sizes = [size for size in GROUPS.values() if size is not None]
    parts = zip(GROUPS, *(x.split([*sizes, len(x) - sum(sizes)]) for x in (found, reference)), strict=True)
    for group, one, other in parts:
        if len(one):
            yield f"{group} {error(one, other):.2%} (of {float(other.norm() / reference.norm()):.2f})"


if __name__ == "__main__":
    main()
