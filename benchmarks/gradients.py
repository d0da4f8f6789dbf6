"""How right: gradients of `render` against differences of the converged image. `python benchmarks/gradients.py`

Five scenes through three cameras, 128 x 128 pixels, default settings (float32, `samples=1`). Error is
norm(gradient - reference) / norm(reference) of a weighted sum of the image, root mean square over `--poses`:

- colour: of colour and alpha; alpha: of alpha alone; depth: of depth over a background of 0;
- to translation, rotation, scale, focal length and distortion, each in units that move the vertices by one pixel (root
  mean square), so that no parameter hides another;
- vertices (`--vertices`): of colour and alpha, to 32 smooth random displacements of the vertices, in the same units.

The reference is the mean of two central differences of `render` in float64, with more samples and other steps; half of
what they differ by is given as its uncertainty. `--independent` takes the differences of brute force instead, which
knows nothing of `render`'s antialiasing, and says how far from it the other reference is; it takes far longer.
`--peers` adds rows of the other renderers that are installed, see `peers.py`, through the pinhole, which is all that
they have in common: how far their images are from ours (mean absolute difference), their errors and times. Times
are processor time. The column `boundary` says what the boundary term adds to the rest of forward + backward, as a part
of that; `curves` how many of the milliseconds are for curves where surfaces intersect, also if there are none;
`beside centres` what all but the centres of pixels adds to these alone.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from peers import Peer, peers
from speed import centers_alone, without_boundary
from torch import Tensor

import diffrender as dr
from diffrender.isosurface import surface_nets
from diffrender.shading import depth_shader, unlit
from diffrender.subdivide import subdivide
from diffrender.testing import calm_pixels, converged_image, smooth_weights

SIZE = 128
FINE_FACES = 150_000  # of subdivided meshes: ten and more to a covered pixel
DIRECTIONS = 32
BACKGROUND = (1.0, 1.0, 1.0, 0.0)  # white, and depth 0
REFERENCES = ((4, 0.02), (5, 0.015))  # samples per axis, step in pixels
INDEPENDENT = ((128, 0.02), (112, 0.03))  # the same by brute force, in the pixels that are not smooth
LOSSES = {"colour": (0, 1, 2, 4), "alpha": (4,), "depth": (3,)}  # channels
TIMES = ("ms", "curves", "boundary", "beside centres")
Image = Callable[[Tensor, int], Tensor]  # of parameters and samples per axis


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


def turned(mesh: dr.Mesh, angles: Sequence[float]) -> dr.Mesh:
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
    """Losses as a function of parameters in pixels: translation, rotation, scale, focal length, distortion; then the
    displacements of the vertices."""

    def __init__(self, mesh: dr.Mesh, view: View) -> None:
        assert mesh.vertex_colors is not None
        self.mesh, self.view = mesh, view
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

    def scene(self, parameters: dict[str, Tensor]) -> tuple[dr.Mesh, dr.Camera]:
        vertices, camera = self.posed(parameters["theta"])
        return self.mesh.replace(vertices=vertices), camera

    def motion(self, step: Tensor) -> Tensor:
        """Root mean square of how far the vertices move in the image, per unit of `step`."""
        (after, _), (before, _) = (camera.project(x) for x, camera in (self.posed(step), self.posed(-step)))
        return ((after - before) / (2 * step.norm())).square().sum(-1).mean().sqrt()

    def image(self, theta: Tensor, samples: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
        """[H, W, 5] colour, depth, alpha."""
        mesh, camera = self.scene({"theta": theta})
        mesh, camera = mesh.to(dtype=dtype), camera.to(dtype=dtype)
        return dr.render(mesh, camera, background=BACKGROUND, shader=colour_and_depth, samples=samples)

    def losses(self, image: Tensor) -> Tensor:
        weighted = image.double() * self.weights
        return torch.stack([weighted[..., list(channels)].sum() for channels in LOSSES.values()])

    def gradient(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[losses, parameters]"""
        theta = torch.zeros_like(self.units).requires_grad_()
        losses = self.losses(self.image(theta, dtype=dtype))
        return torch.stack([torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses])

    @torch.no_grad()
    def differences(self, image: Image, samples: int, step: float, count: int) -> Tensor:
        """[losses, `count`] central differences."""
        steps = step * torch.eye(len(self.units), dtype=torch.float64)[:count]
        up, down = ([self.losses(image(by, samples)) for by in sign * steps] for sign in (1, -1))
        return (torch.stack(up, dim=-1) - torch.stack(down, dim=-1)) / (2 * step)

    def reference(self, count: int, independent: bool = False) -> tuple[Tensor, Tensor]:
        """[losses, `count`] twice: the derivatives, and how uncertain they are."""
        image, settings = (self.brute_force(), INDEPENDENT) if independent else (self.image, REFERENCES)
        one, other = (self.differences(image, *setting, count) for setting in settings)
        return (one + other) / 2, (one - other) / 2

    def brute_force(self) -> Image:
        calm = calm_pixels(self.scene, {"theta": torch.zeros_like(self.units)}, shader=colour_and_depth)
        look = partial(converged_image, self.scene, background=BACKGROUND, shader=colour_and_depth, calm=calm)
        return lambda theta, samples: look({"theta": theta}, samples)

    def peers(self) -> Iterator[Peer]:
        mesh, camera = self.scene({"theta": torch.zeros_like(self.units)})
        assert isinstance(camera, dr.PinholeCamera)
        return peers(mesh, camera)

    def asked(self, peer: Peer, rounds: int = 3) -> tuple[Tensor, float, float]:
        """A peer's gradients [losses, parameters], how far its image is from ours, and its milliseconds for colour."""
        theta = torch.zeros_like(self.units).requires_grad_()
        vertices, camera = self.posed(theta)
        assert isinstance(camera, dr.PinholeCamera)
        # a focal length scales x and y
        zoom = torch.stack([camera.fx, camera.fy, torch.ones_like(camera.fx)])
        vertices, fixed = vertices * zoom / zoom.detach(), vertices.detach()
        gradients: list[Tensor] = []
        times: list[float] = []
        for channels in LOSSES.values():
            weights = torch.zeros_like(self.weights)
            weights[..., channels] = self.weights[..., channels]
            if not gradients:
                times = [elapsed(lambda: peer.gradient(fixed, weights)) for _ in range(rounds)]  # noqa: B023
            gradients.append(torch.autograd.grad(vertices, theta, peer.gradient(fixed, weights), retain_graph=True)[0])
        with torch.no_grad():
            difference = peer.image(fixed) - self.image(torch.zeros_like(self.units), samples=4)
        return torch.stack(gradients), float(difference[..., (0, 1, 2, 4)].abs().mean()), 1e3 * min(times)


def colour_and_depth(fragments: dr.Fragments, mesh: dr.Mesh) -> Tensor:
    return torch.cat([unlit(fragments, mesh), depth_shader(fragments, mesh)], dim=-1)


def milliseconds(mesh: dr.Mesh, view: View, rounds: int = 20) -> list[float]:
    """Of a forward and backward of colour and alpha to vertices, warm, the best of some.

    All of it, without the curves where surfaces intersect, without the boundary term, and centres of pixels alone.
    """
    problem = Problem(mesh, view)
    mesh, camera = problem.scene({"theta": torch.zeros_like(problem.units)})
    mesh, camera, weights = (
        mesh.to(dtype=torch.float32),
        camera.to(dtype=torch.float32),
        problem.weights[..., :4].float(),
    )
    vertices = mesh.vertices.requires_grad_()

    def once(render: Callable[..., Tensor]) -> None:
        (render(mesh.replace(vertices=vertices), camera, background=BACKGROUND[:3]) * weights).sum().backward()

    variants = (dr.render, partial(dr.render, intersecting=False), without_boundary, centers_alone)
    return [1e3 * min(elapsed(partial(once, render)) for _ in range(rounds)) for render in variants]


def elapsed(work: Callable[[], object]) -> float:
    """Seconds of processor time, of all threads: hardly more where the machine has other work as well."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


# --- the table ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="", help="only those whose name contains this")
    parser.add_argument("--view", default="", help="only cameras whose name contains this")
    parser.add_argument("--poses", type=int, default=1, help="the first as it is, others turned and moved at random")
    parser.add_argument("--fine", action="store_true", help="subdivided meshes, instead")
    parser.add_argument("--vertices", action="store_true", help="gradients of vertices as well; four times as long")
    parser.add_argument("--peers", action="store_true", help="other renderers as well, where they are installed")
    parser.add_argument("--times", action="store_true", help="no gradients, only how long they take")
    parser.add_argument("--independent", action="store_true", help="a reference by brute force; takes much longer")
    args = parser.parse_args()
    begin = time.perf_counter()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    columns = ["scene", "camera", "faces", "covered", *LOSSES, *["vertices"] * args.vertices, *TIMES]
    if args.times:
        columns = ["scene", "camera", "faces", *TIMES]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, mesh in scenes().items():
        for camera, view in VIEWS.items():
            if args.scene in name and args.view in camera:
                row(name, camera, subdivided(mesh) if args.fine else mesh, view, args)
    print(f"\n{time.perf_counter() - begin:.0f} s")


def row(name: str, camera: str, mesh: dr.Mesh, view: View, args: argparse.Namespace) -> None:
    whole, apart, rest, centers = milliseconds(mesh, view)
    times = [f"{whole:.1f}", f"{whole - apart:.1f}", f"{whole / rest - 1:.2f}", f"{whole / centers - 1:.2f}"]
    if args.times:
        print(f"| {' | '.join([name, camera, str(mesh.num_faces), *times])} |", flush=True)
        return
    problems = [Problem(posed, view) for posed in poses(mesh, args.poses)]
    covered = [float((p.image(torch.zeros_like(p.units))[..., -1] > 0.5).float().mean()) for p in problems]
    errors, doubts, apart = [], [], []
    others: dict[str, list[Tensor]] = {}
    for problem in problems:
        n = problem.count
        reference, doubt = problem.reference(n + DIRECTIONS * args.vertices, args.independent)
        gradient = problem.gradient()[:, : reference.shape[1]]
        errors.append(shares(gradient - reference, reference, n))
        doubts.append(shares(doubt, reference, n))
        if args.independent:
            apart.append(shares(problem.reference(reference.shape[1])[0] - reference, reference, n))
        if args.peers and camera == "pinhole":
            for peer in problem.peers():
                gradient, image, ms = problem.asked(peer)
                found = shares(gradient[:, : reference.shape[1]] - reference, reference, n)
                others.setdefault(peer.name, []).append(torch.cat([found, found.new_tensor([image, ms])]))
    cells = [name, camera, str(mesh.num_faces), f"{sum(covered) / len(covered):.0%}"]
    table = torch.stack([torch.stack(x).square().mean(0).sqrt() for x in (errors, doubts, apart) if x], dim=-1)
    for error, doubt, *other in table.tolist():
        cells.append(f"{error:.2%} ±{doubt:.2%}" + "".join(f" (the other {x:.2%} off)" for x in other))
    print(f"| {' | '.join([*cells, *times])} |", flush=True)
    for peer_name, rows in others.items():
        *parts, image = torch.stack(rows)[:, :-1].square().mean(0).sqrt().tolist()
        cells = [peer_name, "", "", f"image {image:.4f}", *(f"{part:.2%}" for part in parts)]
        print(f"| {' | '.join([*cells, f'{min(row[-1] for row in rows):.0f}', '', '', ''])} |", flush=True)


def shares(difference: Tensor, reference: Tensor, count: int) -> Tensor:
    """Norms relative to the reference's: for each loss over `count` parameters, and of colour's over what follows."""
    parts = difference[:, :count].norm(dim=1) / reference[:, :count].norm(dim=1)
    more = difference[:1, count:].norm(dim=1) / reference[:1, count:].norm(dim=1)
    return torch.cat([parts, more]) if difference.shape[1] > count else parts


def poses(mesh: dr.Mesh, count: int) -> Iterator[dr.Mesh]:
    """The mesh as it is, then turned by some 20 degrees and moved by some pixels."""
    random = torch.Generator().manual_seed(1)
    yield mesh
    for _ in range(count - 1):
        angles, shift = torch.randn(2, 3, generator=random, dtype=torch.float64).unbind()
        moved = turned(mesh, (0.3 * angles).tolist())
        yield moved.replace(vertices=moved.vertices + 0.05 * shift)


if __name__ == "__main__":
    main()
