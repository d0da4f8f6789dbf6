"""Shape from silhouettes: a sphere becomes a giraffe, from nothing but where it covers 20 images.

    python examples/fit_silhouette.py

Only the boundary of the shape speaks here: the interior of a silhouette is constant, so all gradients come from moving
edges. Two things make a sphere grow legs and a neck from them. Large steps (Nicolet et al. 2021) smooth every step over
the surface, so the mesh stays even while it travels. And coarse to fine: small images and few triangles first.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import diffrender as dr
from diffrender.distances import chamfer_distance
from diffrender.losses import iou, silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import edge_length, laplacian_smoothness, normal_consistency
from diffrender.subdivide import subdivide

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=200, help="optimizer steps for each of the three levels")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# The image set: its alpha channels are the silhouettes, its colours are not used. Four views are held out.
views = dr.load_dataset(ASSETS / "giraffe")
_, test_masks, test_cameras = views.test.load_all()
print(f"{len(views.train)} silhouettes to fit, {len(views.test)} held out")


def test_iou(mesh: dr.Mesh) -> float:
    """Mean intersection over union of the held-out silhouettes."""
    with torch.no_grad():
        return float(iou(dr.render(mesh, test_cameras)[..., -1], test_masks).mean())


# The start: a sphere inside of the body.
ball = dr.sphere(3)
mesh = dr.Mesh(0.45 * ball.vertices, ball.faces)
stages = [mesh]
start = test_iou(mesh)

# Each level: images of a scale, steps smoothed so far and this long, surfaces kept so flat, then four triangles for
# each. The variable is not the vertices but u = (I + lambda L) vertices: a step in u, turned back into vertices, is a
# step that was smoothed. The other two regularizers hardly change the shape; they keep triangles from folding.
for scale, smoothness, step, flatness in ((0.25, 3.0, 0.3, 0.01), (0.5, 4.0, 0.2, 0.005), (1.0, 3.0, 0.04, 0.001)):
    _, masks, cameras = views.train.resized(scale).load_all()
    large_steps = LargeSteps(mesh.topology, smoothness=smoothness)
    u = large_steps.to_differential(mesh.vertices).requires_grad_()
    optimizer = AdamUniform([u], lr=step)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
    bar = tqdm(range(args.steps), desc=f"{mesh.num_faces:5d} faces, {cameras.width:3d} x {cameras.height} pixels")
    for _ in bar:
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
    if scale < 1.0:
        mesh = subdivide(mesh)

# The picture: the start, the three levels, and the giraffe that the silhouettes are of; then a held-out silhouette, the
# one that was fitted, and where they differ.
truth = dr.load_mesh(ASSETS / "giraffe.glb")
R, t = dr.look_at((1.7, 0.7, 2.8))
camera = dr.PinholeCamera(296.0, 296.0, 100.0, 120.0, size=(240, 200), R=R, t=t)
lights = [dr.AmbientLight((0.16, 0.20, 0.28)), dr.DirectionalLight((-0.3, -1.0, -0.8), (0.65, 0.58, 0.46))]
panels = []
for shape in [*stages, truth]:
    bare = dr.Mesh(shape.vertices, shape.faces)
    panels.append(dr.render(bare, camera, lights=lights, background=(0.85, 0.88, 0.93), samples=3)[..., :3])
found = dr.render(mesh, test_cameras[1])[..., -1]
for outline in (test_masks[1], found, (found - test_masks[1]).abs()):
    panels.append(torch.nn.functional.pad(outline, (0, 0, 20, 20))[..., None].expand(-1, -1, 3))
dr.save_image(args.out / "fit_silhouette.png", torch.cat(panels, dim=1))
print(
    f"wrote {args.out / 'fit_silhouette.png'}: start, three levels, truth; a held-out silhouette, its fit, difference"
)
before, after = chamfer_distance(stages[0], truth), chamfer_distance(mesh, truth)
print(f"mean distance from the true surface: {before:.4f} at the start, {after:.4f} at the end; the giraffe is 2 tall")
print(f"IoU of the held-out silhouettes: {start:.3f} at the start, {test_iou(mesh):.3f} at the end")
