"""How fast: the figures of the README, as one table. `python benchmarks/speed.py [--device cuda]`

Every row is the best of several rounds, after a warm-up that also compiles the kernels. Memory and start-up are taken
in processes of their own. The machine's copy bandwidth, in the same run, is there to compare machines by.
"""

import argparse
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch

import diffrender as dr
from diffrender.boundary import Boundary
from diffrender.kernels.intersections import crossings
from diffrender.pixel_rays import PixelRays, pixel_rays
from diffrender.render import covered, empty_images
from diffrender.scene import Scene, pack
from diffrender.visibility import AskedRays, Steps, face_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--child", choices=("memory", "start"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "memory":
        return report_memory()
    if args.child == "start":
        return first_render()

    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | size | faces | covered | time | bar |\n|---|---|---|---|---|---|")
    for size, rows, columns, bar in ((256, 64, 48, 2.0), (1024, 600, 308, 20.0)):
        mesh, camera = torus_scene(rows, columns, size, 0.14, device)
        seconds = best(lambda mesh=mesh, camera=camera: dr.visibility(mesh, camera), args.rounds, device)
        row("visibility", size, mesh, camera, f"{1e3 * seconds:.1f} ms", f"{bar:.0f} ms")
        surface = (mesh.faces, mesh.topology.weld, mesh.topology.component)
        seconds = best(lambda mesh=mesh, surface=surface: crossings(mesh.vertices, *surface), args.rounds, device)
        row("search for faces that meet, anew", size, mesh, camera, f"{1e3 * seconds:.1f} ms", "")
    for size, bar in ((256, 20.0), (1024, 150.0)):
        mesh, camera = torus_scene(64, 48, size, 0.25, device)
        untracked, forward, both = render_times(mesh, camera, args.rounds, device)
        row("render, no_grad", size, mesh, camera, f"{1e3 * untracked:.1f} ms", "")
        row("render, forward", size, mesh, camera, f"{1e3 * forward:.1f} ms", "")
        row("render, forward + backward", size, mesh, camera, f"{1e3 * both:.1f} ms", f"{bar:.0f} ms")
        *_, centers = render_times(mesh, camera, args.rounds, device, centers_alone)
        row("centres of pixels alone, forward + backward", size, mesh, camera, f"{1e3 * centers:.1f} ms", "")
        *_, rest = render_times(mesh, camera, args.rounds, device, without_boundary)
        row("all but the boundary term, forward + backward", size, mesh, camera, f"{1e3 * rest:.1f} ms", "")
        row("boundary term: what it adds to that, of that", size, mesh, camera, f"{both / rest - 1:.2f}", "1.00")
        row("... and all beside centres, of these", size, mesh, camera, f"{both / centers - 1:.2f}", "")
        *_, both = render_times(mesh, camera, args.rounds, device, partial(dr.render, intersecting=False))
        row("render without a search for intersections", size, mesh, camera, f"{1e3 * both:.1f} ms", "")
        lens = as_fisheye(camera)
        *_, both = render_times(mesh, lens, args.rounds, device)
        row("render through a fisheye, forward + backward", size, mesh, lens, f"{1e3 * both:.1f} ms", "")
        *_, rest = render_times(mesh, lens, args.rounds, device, centers_alone)
        row("centres of pixels alone, through the fisheye", size, mesh, lens, f"{1e3 * rest:.1f} ms", "")
    mesh, camera = torus_scene(64, 48, 256, 0.25, device)
    own = OwnCamera(2 * camera.fx, size=camera.size, R=camera.R, t=camera.t)
    *_, both = render_times(mesh, own, args.rounds, device)
    row("render through a user's formula, forward + backward", 256, mesh, own, f"{1e3 * both:.1f} ms", "")
    *_, both = render_times(mesh, own, args.rounds, device, forgetting)
    row("the same, rays of pixels searched for in every step", 256, mesh, own, f"{1e3 * both:.1f} ms", "")
    source = torch.zeros(64 << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = best(lambda: target.copy_(source), args.rounds, device)
    print(f"| copy bandwidth (read + write) | | | | {2 * len(source) / seconds / 1e9:.1f} GB/s | |")
    if device.type == "cpu":
        print(f"| peak memory of that render beyond the imports | 1024 | | | {child('memory')} | 500 MB |")
        child("start")
        begin = time.perf_counter()
        child("start")
        print(f"| second process: imports and a first render | 256 | | | {time.perf_counter() - begin:.1f} s | 5 s |")


def torus_scene(
    rows: int, columns: int, size: int, coverage: float, device: torch.device
) -> tuple[dr.Mesh, dr.PinholeCamera]:
    """A textured torus with 2 * rows * columns faces, seen so that it covers about `coverage` of the image."""
    mesh = dr.torus(major_segments=rows, minor_segments=columns).to(device)
    texture = torch.rand(1024, 1024, 3, generator=torch.Generator().manual_seed(0)).to(device)
    mesh = mesh.replace(materials=(dr.Material(texture=texture),))
    focal = size
    for _ in range(4):  # the covered share grows with the square of the focal length
        R, t = dr.look_at((0.5, 2.5, 4.0))
        camera = dr.PinholeCamera(focal, focal, size / 2, size / 2, size=(size, size), R=R, t=t).to(device)
        focal *= math.sqrt(coverage / covered_share(mesh, camera))
    return mesh, camera


def as_fisheye(camera: dr.PinholeCamera) -> dr.FisheyeCamera:
    """A lens of the same focal length in the same place."""
    middle = camera.width / 2, camera.height / 2
    return dr.FisheyeCamera(
        camera.fx, camera.fy, *middle, k=(0.05, 0.01, 0.0, 0.0), size=camera.size, R=camera.R, t=camera.t
    )


class OwnCamera(dr.Camera):
    """A stereographic lens as a user writes it: a formula, and no inverse."""

    def __init__(self, f: torch.Tensor, *, size: tuple[int, int], R: torch.Tensor, t: torch.Tensor) -> None:
        super().__init__(size=size, R=R, t=t, f=f)

    def to_pixels(self, points: torch.Tensor) -> torch.Tensor:
        middle = points.new_tensor([self.width / 2, self.height / 2])
        return self.f[..., None] * points[..., :2] / (points.norm(dim=-1, keepdim=True) + points[..., 2:]) + middle


def forgetting(mesh: dr.Mesh, camera: dr.Camera) -> torch.Tensor:
    camera.notes.clear()
    image: torch.Tensor = dr.render(mesh, camera)
    return image


def covered_share(mesh: dr.Mesh, camera: dr.Camera) -> float:
    return float((dr.visibility(mesh, camera) >= 0).float().mean())


def centers_alone(mesh: dr.Mesh, camera: dr.Camera, background: float | Sequence[float] = 0.0) -> torch.Tensor:
    """The image [H, W, C + 1] without a boundary term: what is seen at the centres of pixels, by `render`'s stages."""
    scene = pack(mesh, camera)
    rays = pixel_rays(scene)
    pixel, inside = covered(scene, rays, face_image(scene, rays))
    colors = dr.unlit(inside, mesh)
    image = empty_images(scene, background, colors, 1)
    values = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1)
    return image.index_copy(0, pixel, values).reshape(*camera.size, -1)


def without_boundary(mesh: dr.Mesh, camera: dr.Camera, background: float | Sequence[float] = 0.0) -> torch.Tensor:
    """`render` without its boundary term: centres of pixels, and integrals over faces seen at a small angle."""
    with patch.object(import_module("diffrender.render"), "boundary_steps", no_pieces):
        image: torch.Tensor = dr.render(mesh, camera, background=background)
    return image


def no_pieces(scene: Scene, rays: PixelRays, only_fronts: bool, **_: object) -> Steps[Boundary]:
    """A boundary without pieces."""
    none, points = scene.faces[:0, 0], scene.vertices.detach()[:0]
    xy = points[:, :2]
    yield AskedRays(none, xy, points, points, cull_backfaces=only_fronts)
    return Boundary(none, none, xy, none, none, xy[:, 0], none.bool(), none, none)


def render_times(
    mesh: dr.Mesh,
    camera: dr.Camera,
    rounds: int,
    device: torch.device,
    render: Callable[[dr.Mesh, dr.Camera], torch.Tensor] = dr.render,
) -> tuple[float, float, float]:
    """Seconds of a forward without and with a gradient, and of a forward and backward to vertices and texture."""
    weights = torch.rand(*camera.size, 4, device=device)
    vertices = mesh.vertices.clone().requires_grad_()
    texture = mesh.materials[0].texture.clone().requires_grad_()

    step = 1e-4 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0)).to(device)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            vertices.add_(step)  # as an optimizer would move them: nothing is the same as before
        moved = mesh.replace(vertices=vertices, materials=(dr.Material(texture=texture),))
        return (render(moved, camera) * weights).sum()

    def both() -> None:
        vertices.grad = texture.grad = None
        forward().backward()

    return best(torch.no_grad()(forward), rounds, device), best(forward, rounds, device), best(both, rounds, device)


def best(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Least seconds of `rounds` calls, after three for warming up."""
    times = []
    for i in range(rounds + 3):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 3:
            times.append(time.perf_counter() - begin)
    return min(times)


def row(what: str, size: int, mesh: dr.Mesh, camera: dr.Camera, value: str, bar: str) -> None:
    print(f"| {what} | {size} | {mesh.num_faces} | {covered_share(mesh, camera):.0%} | {value} | {bar} |", flush=True)


def child(task: str) -> str:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, "--child", task]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def report_memory() -> None:
    before = peak_memory()
    mesh, camera = torus_scene(64, 48, 1024, 0.25, torch.device("cpu"))
    render_times(mesh, camera, 2, torch.device("cpu"))
    print(f"{peak_memory() - before:.0f} MB")


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says counts the parent as well, under Linux
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def first_render() -> None:
    R, t = dr.look_at((0.0, 1.0, 3.0))
    dr.render(dr.torus(), dr.PinholeCamera(256, 256, 128, 128, size=(256, 256), R=R, t=t))


if __name__ == "__main__":
    main()
