"""Vertex colours from views: the shape and the light are known, the colours are not.

    python examples/fit_vertex_colors.py

A colour at every vertex, interpolated over the triangles: no uv, no atlas, no seams, and as much detail as there are
vertices. Some of them no picture shows. A little smoothness along the edges gives those the colours of their
neighbours, and hardly changes those that are seen.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.losses import color_loss, psnr

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=120, help="optimizer steps")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# Six pictures of a knot from two heights, and one to look at the result from.
truth = dr.load_mesh(ASSETS / "knot.ply")
assert truth.vertex_colors is not None
lights = [dr.AmbientLight((0.45, 0.45, 0.50)), dr.DirectionalLight((-0.5, -1.0, -0.6), (0.7, 0.65, 0.55))]


def cameras(elevations: tuple[float, ...], each: int) -> dr.PinholeCamera:
    rings = [dr.orbit_poses(each, distance=4.0, elevation=angle) for angle in elevations]
    R, t = (torch.cat(part) for part in zip(*rings, strict=True))
    return dr.PinholeCamera(270.0, 270.0, 100.0, 100.0, size=(200, 200), R=R, t=t)


def look(mesh: dr.Mesh, views: dr.Camera, samples: int = 1) -> Tensor:
    return dr.render(mesh, views, lights=lights, samples=samples, intersecting=False)


views, new_views = cameras((30.0, -30.0), 3), cameras((20.0, -25.0), 4)
with torch.no_grad():
    photographs, new_photographs = look(truth, views, 2), look(truth, new_views, 2)

# What is seen: vertices whose colour has any part in any picture, by the gradient of their sum.
leaf = torch.ones_like(truth.vertex_colors).requires_grad_()
(share,) = torch.autograd.grad(look(truth.replace(vertex_colors=leaf), views).sum(), leaf)
seen = (share > 0).any(-1)
print(f"{truth.num_vertices} vertices, of which {int((~seen).sum())} are in no picture")

low, high = truth.topology.edges.unbind(-1)
colors = torch.full_like(truth.vertex_colors, 0.4).requires_grad_()
optimizer = torch.optim.Adam([colors], lr=0.05)
slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=args.steps)
for _ in (bar := tqdm(range(args.steps), desc="vertex colours")):
    some = torch.randperm(len(photographs))[:4]
    image = look(truth.replace(vertex_colors=colors), views[some])
    smoothness = (colors[low] - colors[high]).abs().mean()
    loss = color_loss(image[..., :3], photographs[some, ..., :3]) + 0.002 * smoothness
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    slower.step()
    with torch.no_grad():
        colors.clamp_(0, 1)
    bar.set_postfix(loss=f"{loss.item():.5f}")
fitted, start = (truth.replace(vertex_colors=c) for c in (colors.detach(), torch.full_like(colors.detach(), 0.4)))

# The picture: a view that was not fitted.
R, t = dr.look_at((1.2, 1.5, 3.6))
camera = dr.PinholeCamera(360.0, 360.0, 125.0, 125.0, size=(250, 250), R=R, t=t)
with torch.no_grad():
    panels = [
        dr.render(mesh, camera, lights=lights, background=0.9, samples=3)[..., :3] for mesh in (truth, start, fitted)
    ]
panels.append(1 - 4 * (panels[2] - panels[0]).abs())
dr.save_image(args.out / "fit_vertex_colors.png", torch.cat(panels, dim=1))
print(f"wrote {args.out / 'fit_vertex_colors.png'}: truth, start, fit, 4 x their difference (white: none)")


def new_psnr(mesh: dr.Mesh) -> float:
    """Of the new views, inside of the object, in dB."""
    with torch.no_grad():
        image = look(mesh, new_views, 2)
    return float(psnr(image[..., :3], new_photographs[..., :3], mask=new_photographs[..., 3]).mean())


error = (fitted.vertex_colors - truth.vertex_colors).abs().mean(-1)
print(f"PSNR of new views: {new_psnr(start):.2f} dB at the start, {new_psnr(fitted):.2f} dB at the end")
print(
    f"mean error of colours: {error[seen].mean():.4f} where seen, {error[~seen].mean():.4f} of vertices in no picture"
)
