"""A template deformed to photographs: a plain animal on four legs becomes the giraffe of eight pictures.

    python examples/fit_template.py

Eight pictures are too few to make a shape from a ball, and a ball has no legs to know again. A template brings both:
what the pictures do not say stays as it was, and its parts stay its parts, hoof to hoof and nose to nose. What is
optimized is its displacement, smooth at first and freer later (large steps: the displacement is (I + lambda L)^-1 u),
with a price on where the displacement bends. Colours at the vertices are fitted along. Beside it, the same from a ball.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.distances import chamfer_distance
from diffrender.losses import color_loss, iou, silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import normal_consistency, uniform_laplacian
from diffrender.subdivide import subdivide

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=80, help="optimizer steps for each of the three levels of both fits")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# Eight of the giraffe's pictures, and the four that are held out as always.
views = dr.load_dataset(ASSETS / "giraffe")
few = views.train.select([1, 3, 6, 8, 11, 13, 16, 18])
test_images, test_masks, test_cameras = views.test.load_all()
truth = dr.load_mesh(ASSETS / "giraffe.glb")

# Places on the template, and where they are on the giraffe: the soles of four feet, the tips of nose and tail.
places = torch.tensor([[0.30, -0.62, 0.14], [0.30, -0.62, -0.14], [-0.34, -0.62, 0.14], [-0.34, -0.62, -0.14]])
places = torch.cat([places, torch.tensor([[0.85, 0.30, 0.0], [-0.74, -0.14, 0.02]])])
true_places = torch.tensor([[0.22, -1.01, 0.14], [0.22, -1.01, -0.14], [-0.35, -1.01, 0.14], [-0.35, -1.01, -0.14]])
true_places = torch.cat([true_places, torch.tensor([[0.84, 0.57, 0.0], [-0.73, -0.53, 0.11]])])


def fit(name: str, start: dr.Mesh) -> tuple[dr.Mesh, Tensor]:
    """The deformed mesh with its colours, and where each vertex of `start` went."""
    mesh, colors, count = start, torch.full_like(start.vertices, 0.5), start.num_vertices
    for scale, smoothness, length, stiffness in (
        (0.25, 30.0, 0.1, 0.3),
        (0.5, 10.0, 0.08, 0.1),
        (1.0, 4.0, 0.04, 0.01),
    ):
        images, masks, cameras = few.resized(scale).load_all()
        rest, laplacian = mesh.vertices, uniform_laplacian(mesh.topology)
        large_steps = LargeSteps(mesh.topology, smoothness=smoothness)
        u = torch.zeros_like(large_steps.to_differential(rest)).requires_grad_()
        colors = colors.detach().requires_grad_()
        optimizers = [AdamUniform([u], lr=length), torch.optim.Adam([colors], lr=0.03)]
        slower = [torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=args.steps) for o in optimizers]
        for _ in (bar := tqdm(range(args.steps), desc=f"{name}, {mesh.num_faces} faces")):
            some = torch.randperm(len(masks))[:4]
            moved = large_steps.to_vertices(u)
            mesh = mesh.replace(vertices=rest + moved)
            image = dr.render(mesh.replace(vertex_colors=colors), cameras[some], intersecting=False)
            bending = (laplacian @ moved).square().sum(-1).mean()
            loss = silhouette_loss(image[..., 3], masks[some]) + 0.3 * color_loss(image[..., :3], images[some])
            loss = loss + stiffness * bending + 0.005 * normal_consistency(mesh)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in (*optimizers, *slower):
                optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.5f}")
        mesh = dr.Mesh(mesh.vertices.detach(), mesh.faces, vertex_colors=colors.detach())
        if scale < 1:
            mesh = subdivide(mesh)
            assert mesh.vertex_colors is not None
            colors = mesh.vertex_colors
            mesh = dr.Mesh(mesh.vertices, mesh.faces)
    return mesh, mesh.vertices[:count]  # subdivision appends vertices


def figures(mesh: dr.Mesh) -> str:
    with torch.no_grad():
        overlap = iou(dr.render(mesh, test_cameras)[..., -1], test_masks).mean()
    return f"{chamfer_distance(mesh, truth):.4f} from the true surface, IoU {overlap:.4f} of held-out silhouettes"


template = dr.load_mesh(ASSETS / "quadruped.ply")
ball = dr.Mesh(0.45 * dr.sphere(3).vertices, dr.sphere(3).faces)
deformed, arrived = fit("template", template)
from_ball, _ = fit("ball", ball)

# The picture: a held-out photograph, and there the template, what became of it, their difference, and what became of
# the ball; then the shapes alone, from the other side.
view, photograph = test_cameras[1], test_images[1]
R, t = dr.look_at((-1.9, 0.5, 2.7))
side = dr.PinholeCamera(296.0, 296.0, 100.0, 100.0, size=(200, 200), R=R, t=t)
lights = [dr.AmbientLight((0.16, 0.20, 0.28)), dr.DirectionalLight((-0.3, -1.0, -0.8), (0.65, 0.58, 0.46))]
with torch.no_grad():
    found, other = (dr.render(mesh, view, samples=2)[..., :3] for mesh in (deformed, from_ball))
    begin = dr.render(template, view, lights=lights, samples=2)[..., :3]
    shapes = [
        dr.render(dr.Mesh(m.vertices, m.faces), side, lights=lights, background=(0.85, 0.88, 0.93), samples=3)[..., :3]
        for m in (truth, deformed, from_ball)
    ]
row = [photograph, begin, found, (found - photograph).abs(), other, *shapes]
dr.save_image(args.out / "fit_template.png", torch.cat(row, dim=1))
print(f"wrote {args.out / 'fit_template.png'}: held-out photograph, template, fit, difference, the fit of a ball; from")
print("behind: truth, fit, fit of a ball")
index = torch.cdist(places, template.vertices).argmin(-1)
before, after = ((v[index] - true_places).norm(dim=-1).mean() for v in (template.vertices, arrived))
print(f"start: {figures(template)}")
print(f"from a ball: {figures(from_ball)}")
print(f"from the template: {figures(deformed)}")
print(f"feet, nose and tail: {before:.3f} from their true places at the start, {after:.3f} at the end")
