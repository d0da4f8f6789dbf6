"""Another topology: a sphere becomes a ring, and a mug with a handle, from outlines alone.

    python examples/fit_topology.py

Gradients move the surface that is there. Where the background should show through its middle there is no edge to move,
so a sphere becomes a cake and never a ring. `resurface` looks for such places between the levels: what several masks
see outside of the object is carved away, and of the rest a new surface is taken. Beside it, the same fit without.

(The mug is full to the brim: no outline tells how deep an empty one is.)
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.cameras import stack_cameras
from diffrender.distances import chamfer_distance
from diffrender.isosurface import surface_nets
from diffrender.losses import iou, silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import edge_length, laplacian_smoothness, normal_consistency
from diffrender.remesh import remesh
from diffrender.resurface import resurface

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=80, help="optimizer steps for each of the three levels of each fit")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)


def ring() -> dr.Mesh:
    R, _ = dr.look_at((-0.3, 1.0, -0.6))
    return dr.Mesh(0.75 * dr.torus().vertices @ R, dr.torus().faces)


def mug() -> dr.Mesh:
    """A cylinder and half a ring, blended: the surface where the signed distance to them is zero."""
    axis = torch.linspace(-1.1, 1.1, 112)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    corner = torch.stack([torch.hypot(x + 0.25, z) - 0.5, y.abs() - 0.65], dim=-1)  # beside, and above or below
    cylinder = corner.clamp(min=0).norm(dim=-1) + corner.amax(-1).clamp(max=0) - 0.1  # edges rounded by 0.1
    handle = torch.hypot(torch.hypot(x - 0.38, y) - 0.42, z) - 0.11
    blend = (0.5 + 0.5 * (handle - cylinder) / 0.08).clamp(0, 1)
    distance = torch.lerp(handle, cylinder, blend) - 0.08 * blend * (1 - blend)
    return surface_nets(-distance, origin=axis[[0, 0, 0]], step=float(axis[1] - axis[0]))


def views_around(count: int, size: int) -> dr.Camera:
    """Pinhole cameras all around the origin, on a Fibonacci spiral."""
    k = torch.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, k * math.pi * (3 - 5**0.5)
    across = (1 - height**2).sqrt()
    eyes = 4 * torch.stack([across * turn.cos(), height, across * turn.sin()], dim=-1)
    poses = [dr.look_at(eye) for eye in eyes]
    lens = {"fx": 1.6 * size, "fy": 1.6 * size, "cx": size / 2, "cy": size / 2, "size": (size, size)}
    return stack_cameras([dr.PinholeCamera(**lens, R=R, t=t) for R, t in poses])


def silhouettes(mesh: dr.Mesh, cameras: dr.Camera) -> Tensor:
    with torch.no_grad():
        return dr.render(mesh, cameras)[..., -1]


def euler(mesh: dr.Mesh) -> int:
    """Vertices - edges + faces: 2 for a sphere, and 2 less for each handle."""
    return len(mesh.topology.weld.unique()) - mesh.topology.num_edges + mesh.num_faces


# Each level: size of the images, smoothing of the steps, their length, flatness, and the length of edges.
LEVELS = ((32, 3.0, 0.3, 0.01, 0.09), (64, 4.0, 0.2, 0.02, 0.055), (128, 3.0, 0.04, 0.01, 0.035))


def fit(name: str, truth: dr.Mesh, *, free: bool) -> list[dr.Mesh]:
    """The start, and what it was after each level."""
    torch.manual_seed(0)
    mesh = dr.Mesh(0.4 * dr.sphere(3).vertices, dr.sphere(3).faces)
    stages = [mesh]
    for size, smoothness, step, flatness, length in LEVELS:
        cameras = views_around(20, size)
        masks = silhouettes(truth, cameras)
        if size > LEVELS[0][0]:
            if free:
                mesh = resurface(mesh, masks, cameras, length)
            mesh = remesh(mesh, length)
        large_steps = LargeSteps(mesh.topology, smoothness=smoothness)
        u = large_steps.to_differential(mesh.vertices).requires_grad_()
        optimizer = AdamUniform([u], lr=step)
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
        for _ in (bar := tqdm(range(args.steps), desc=f"{name}, {mesh.num_faces} faces")):
            some = torch.randperm(len(masks))[:4]
            mesh = mesh.replace(vertices=large_steps.to_vertices(u))
            alpha = dr.render(mesh, cameras[some], intersecting=False)[..., -1]
            loss = silhouette_loss(alpha, masks[some]) + flatness * normal_consistency(mesh)
            loss = loss + 0.002 * laplacian_smoothness(mesh) + 0.001 * edge_length(mesh)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            slower.step()
            bar.set_postfix(loss=f"{loss.item():.5f}")
        mesh = mesh.replace(vertices=large_steps.to_vertices(u).detach())
        stages.append(mesh)
    return stages


def figures(mesh: dr.Mesh, truth: dr.Mesh) -> str:
    cameras = views_around(7, 128)  # not those of the fit
    overlap = iou(silhouettes(mesh, cameras), silhouettes(truth, cameras)).mean()
    apart = chamfer_distance(mesh, truth)
    return f"Euler characteristic {euler(mesh)}, IoU of new views {overlap:.4f}, {apart:.4f} from the true surface"


# The picture, a row for each object: the start, three levels, the truth; and what the fit without new surfaces gave.
R, t = dr.look_at((1.0, 1.6, 3.3))
camera = dr.PinholeCamera(330.0, 330.0, 100.0, 100.0, size=(200, 200), R=R, t=t)
lights = [dr.AmbientLight((0.16, 0.20, 0.28)), dr.DirectionalLight((-0.3, -1.0, -0.8), (0.65, 0.58, 0.46))]
rows, lines = [], []
for name, truth in (("ring", ring()), ("mug", mug())):
    free = fit(name, truth, free=True)
    fixed = fit(f"{name}, fixed topology", truth, free=False)
    shapes = [*free, truth, fixed[-1]]
    bare = [dr.Mesh(shape.vertices, shape.faces) for shape in shapes]
    row = [dr.render(m, camera, lights=lights, background=(0.85, 0.88, 0.93), samples=3)[..., :3] for m in bare]
    rows.append(torch.cat(row, dim=1))
    lines.append(f"{name}, truth: Euler characteristic {euler(truth)}")
    for kind, mesh in (("start", free[0]), ("fixed", fixed[-1]), ("free", free[-1])):
        lines.append(f"{name}, {kind}: {figures(mesh, truth)}")
dr.save_image(args.out / "fit_topology.png", torch.cat(rows))
print(f"wrote {args.out / 'fit_topology.png'}: start, three levels, truth; and the fit that keeps a sphere's topology")
print(*lines, sep="\n")
