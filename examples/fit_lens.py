"""Why the lens matters: one shape from the same silhouettes, through the lens that took them and through a pinhole.

    python examples/fit_lens.py

The pictures come from an anamorphic door viewer, a lens that no library has. The author of a camera writes where a
point lands, and everything else follows: exact visibility, bent silhouettes, gradients through them to the shape.
Fitted with a pinhole in its place, the same pictures make a wrong animal, although the pinhole may choose its focal
lengths and its middle as it likes, and although the poses of the cameras are right.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.distances import chamfer_distance, surface_distance
from diffrender.losses import iou, silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import laplacian_smoothness, normal_consistency
from diffrender.subdivide import subdivide

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SIZE = (120, 120)


class DoorViewer(dr.Camera):
    """An equal-area fisheye whose image is squeezed: one direction of the sensor has other focal lengths."""

    def __init__(self, focal: float, squeeze: float, *, size: tuple[int, int], R=None, t=None) -> None:
        super().__init__(size=size, R=R, t=t, focal=focal, squeeze=squeeze)

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        distance = points.norm(dim=-1)
        # 2 sin(angle / 2) along (x, y): sin(angle) / cos(angle / 2), both by the cosine z / distance
        scale = self.focal / (distance * (distance + z) / 2).clamp(min=1e-9).sqrt()  # zero only straight behind
        return torch.stack((self.squeeze * scale * x + self.width / 2, scale * y + self.height / 2), dim=-1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=180, help="optimizer steps for each of two levels of each fit")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# The pictures: sixteen silhouettes from nearby, where the lens bends most; the cameras look past the giraffe's middle.
truth = dr.load_mesh(ASSETS / "giraffe.glb")
rings = [dr.orbit_poses(8, distance=1.9, elevation=angle) for angle in (35.0, -15.0)]
eyes = torch.cat([-(R.mT @ t[..., None])[..., 0] for R, t in rings])
R, t = dr.look_at(eyes, 0.7 * torch.rand(16, 3) - 0.35)
lens = DoorViewer(54.0, 1.15, size=SIZE, R=R, t=t)
with torch.no_grad():
    silhouettes = dr.render(truth, lens, samples=2)[..., -1]


def fit(name: str, camera: Callable[[], dr.Camera], optics: list[Tensor]) -> dr.Mesh:
    """A sphere to an animal by large steps, in two levels; `optics` is what the camera may change."""
    ball = dr.sphere(3)
    mesh = dr.Mesh(0.45 * ball.vertices, ball.faces)
    for scale, smoothness, length in ((0.5, 3.0, 0.3), (1.0, 4.0, 0.2)):
        size = (round(scale * SIZE[0]), round(scale * SIZE[1]))
        targets = torch.nn.functional.interpolate(silhouettes[None], size=size, mode="area")[0]
        large_steps = LargeSteps(mesh.topology, smoothness=smoothness)
        u = large_steps.to_differential(mesh.vertices).requires_grad_()
        optimizers: list[torch.optim.Optimizer] = [AdamUniform([u], lr=length)]
        if optics:
            optimizers.append(torch.optim.Adam(optics, lr=0.02))
        slower = [torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=args.steps) for o in optimizers]
        for _ in (bar := tqdm(range(args.steps), desc=f"{name}, {size[0]} x {size[1]} pixels")):
            some = torch.randperm(len(targets))[:4]
            mesh = mesh.replace(vertices=large_steps.to_vertices(u))
            alpha = dr.render(mesh, camera().resize(size)[some], intersecting=False)[..., -1]
            loss = silhouette_loss(alpha, targets[some])
            loss = loss + 0.005 * normal_consistency(mesh) + 0.002 * laplacian_smoothness(mesh)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in (*optimizers, *slower):
                optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.5f}")
        mesh = mesh.replace(vertices=large_steps.to_vertices(u).detach())
        if scale < 1:
            mesh = subdivide(mesh)
    return mesh


# Two focal lengths and two coordinates of the middle, in parts of what the lens has on its axis.
pinhole_optics = torch.tensor([1.0, 1.0, 1.0, 1.0], requires_grad=True)


def pinhole() -> dr.Camera:
    fx, fy, cx, cy = pinhole_optics * torch.tensor([54.0 * 1.15, 54.0, 60.0, 60.0])
    return dr.PinholeCamera(fx, fy, cx, cy, size=SIZE, R=R, t=t)


through_lens = fit("through the lens", lambda: lens, [])
through_pinhole = fit("through a pinhole", pinhole, [pinhole_optics])

# The picture: the shapes, coloured by their distance from the truth (white is 0, dark red 0.1); and one of the
# silhouettes, with what each of the two makes of it.
view_R, view_t = dr.look_at((1.7, 0.7, 2.8))
view = dr.PinholeCamera(296.0, 296.0, 100.0, 120.0, size=(240, 200), R=view_R, t=view_t)
lights = [dr.AmbientLight((0.16, 0.20, 0.28)), dr.DirectionalLight((-0.3, -1.0, -0.8), (0.65, 0.58, 0.46))]
ball = dr.sphere(3)
panels = []
for mesh in (truth, dr.Mesh(0.45 * ball.vertices, ball.faces), through_lens, through_pinhole):
    away = surface_distance(mesh.vertices, truth)[:, None] / 0.1
    heat = torch.cat([1 - 0.3 * away, 1 - away, 1 - away], dim=-1).clamp(0, 1)
    shown = dr.Mesh(mesh.vertices, mesh.faces, vertex_colors=heat)
    panels.append(dr.render(shown, view, lights=lights, background=(0.85, 0.88, 0.93), samples=3)[..., :3])
with torch.no_grad():
    alphas = [dr.render(m, c)[..., -1] for m, c in ((through_lens, lens), (through_pinhole, pinhole()))]
outlines = [torch.stack([a[3], silhouettes[3], a[3]], dim=-1) for a in (silhouettes, *alphas)]
outlines = [dr.to_nhwc(torch.nn.functional.interpolate(dr.to_nchw(o[None]), size=(240, 240)))[0] for o in outlines]
dr.save_image(args.out / "fit_lens.png", torch.cat([*panels, *outlines], dim=1))
print(f"wrote {args.out / 'fit_lens.png'}: truth, start, fits through the lens and through a pinhole (red: wrong);")
print("a silhouette, and it over that of each fit (green: missing, magenta: too much)")
for name, mesh, alpha in (("lens", through_lens, alphas[0]), ("pinhole", through_pinhole, alphas[1])):
    print(
        f"through the {name}: {chamfer_distance(mesh, truth):.4f} from the true surface, "
        f"IoU {iou(alpha, silhouettes).mean():.4f} of the fitted silhouettes"
    )
