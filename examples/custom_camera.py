"""A lens that no library has, in twenty lines: render through it, check its gradients, calibrate it from one picture.

    python examples/custom_camera.py

The author of a camera writes where a point lands. Rays, exact visibility inside of bent triangles, silhouettes along
bent edges and the gradients to every parameter come from the base class and the renderer.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.testing import check_camera

ASSETS = Path(__file__).resolve().parents[1] / "assets"


class WhirlpoolCamera(dr.Camera):
    """A stereographic fisheye whose image is stirred: it turns by `twist` radians where its plane has radius 1."""

    def __init__(self, focal: float | Tensor, twist: float | Tensor, *, size, R=None, t=None) -> None:
        super().__init__(size=size, R=R, t=t, focal=focal, twist=twist)

    def to_pixels(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        half = (points.norm(dim=-1) + z).clamp(min=1e-6) / 2  # zero only straight behind, where the lens is blind
        u, v = x / half, y / half
        turn = self.twist * (u * u + v * v)
        u, v = turn.cos() * u - turn.sin() * v, turn.sin() * u + turn.cos() * v
        return torch.stack((self.focal * u + self.width / 2, self.focal * v + self.height / 2), dim=-1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=60, help="optimizer steps for each of the two image sizes")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

# The scene, and one picture of it through the lens.
mesh = dr.load_mesh(ASSETS / "giraffe.glb")
row, column = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
squares = torch.where(((row + column) % 2 == 0)[..., None], torch.tensor([0.42, 0.55, 0.66]), torch.tensor([0.85] * 3))
wall = dr.grid(24, 24)
wall = wall.replace(
    vertices=2.2 * wall.vertices - torch.tensor([0.0, 0.0, 1.0]),
    materials=(dr.Material("wall", texture=squares.repeat_interleave(8, 0).repeat_interleave(8, 1)),),
)
scene = dr.join([mesh, wall])
lights = [dr.AmbientLight((0.45, 0.47, 0.52)), dr.DirectionalLight((-0.4, -0.8, -0.8), (0.6, 0.56, 0.5))]
R, t = dr.look_at((0.3, 0.2, 1.8), (0.05, 0.0, 0.0))
truth = WhirlpoolCamera(140.0, 0.55, size=(240, 240), R=R, t=t)
with torch.no_grad():
    photograph = dr.render(scene, truth, lights=lights, samples=3, background=0.9)[..., :3]

# Is it a camera? Round trips, slopes by every parameter, batches, masks, precision, jumps: a line for each.
report = check_camera(truth)
print(report)
report.check()

# Gradients against central differences, in float64: of a smooth weighted sum over an image of a ring in smooth colours,
# part of which hides another part, to the parameters of the lens and the position of the camera.
names = ("focal", "twist", "tx", "ty", "tz")
values = torch.tensor([35.0, 0.55, *t.tolist()], dtype=torch.float64)
ring = dr.torus(0.7, 0.25, dtype=torch.float64)
ring = dr.Mesh(ring.vertices, ring.faces, vertex_colors=0.5 + 0.4 * ring.vertices)
y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
weight = (torch.sin(3 * x + 1) * torch.cos(2 * y) / 64).double()[..., None]


def weighted_sum(parameters: Tensor) -> Tensor:
    camera = WhirlpoolCamera(parameters[0], parameters[1], size=(64, 64), R=R.double(), t=parameters[2:])
    return (weight * dr.render(ring, camera, samples=2)).sum()


leaf = values.clone().requires_grad_()
(gradient,) = torch.autograd.grad(weighted_sum(leaf), leaf)
print("gradient of a weighted image sum   automatic   finite difference")
differences = torch.zeros_like(values)
for i, name in enumerate(names):
    step = torch.zeros_like(values)
    step[i] = 4e-3 * max(1.0, float(values[i]))
    with torch.no_grad():
        differences[i] = (weighted_sum(values + step) - weighted_sum(values - step)) / (2 * step[i])
    print(f"{name:>32s} {gradient[i]:11.4f} {differences[i]:19.4f}")
gradient_error = float((gradient - differences).norm() / differences.norm())

# The calibration: from a lens without twist, of the wrong focal length, in the wrong place. Each unknown counts in a
# unit of its own, so that one step length suits all.
unit = torch.tensor([20.0, 0.2, 0.1, 0.1, 0.1])
start = torch.tensor([112.0, 0.0, 0.15, -0.1, 0.25]) + torch.tensor([0.0, 0.0, *t.tolist()])
steps = torch.zeros(5, requires_grad=True)


def lens(size: int) -> WhirlpoolCamera:
    focal, twist, *position = start + unit * steps
    camera = WhirlpoolCamera(focal, twist, size=truth.size, R=R, t=torch.stack(position))
    return camera.resize((size, size))


with torch.no_grad():
    before = dr.render(scene, lens(240), lights=lights, samples=3, background=0.9)[..., :3]
for size, length in ((60, 0.08), (120, 0.03)):
    target = dr.to_nhwc(torch.nn.functional.adaptive_avg_pool2d(dr.to_nchw(photograph), size))
    optimizer = torch.optim.Adam([steps], lr=length)
    for _ in (bar := tqdm(range(args.steps), desc=f"{size} x {size} pixels")):
        image = dr.render(scene, lens(size), lights=lights, samples=2, background=0.9)[..., :3]
        loss = (image - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.6f}")
found = lens(240)
with torch.no_grad():
    after = dr.render(scene, found, lights=lights, samples=3, background=0.9)[..., :3]
difference_image = 1 - (after - photograph).abs() * 4

dr.save_image(args.out / "custom_camera.png", torch.cat([photograph, before, after, difference_image], dim=1))
print(f"wrote {args.out / 'custom_camera.png'}: photograph, start, fit, 4 x their difference (white: none)")
print(f"focal {found.focal:.2f} (true {truth.focal:.2f}), twist {found.twist:.4f} (true {truth.twist:.4f})")
print(f"gradients differ from finite differences by {100 * gradient_error:.2f} %")
print(
    f"distance of the camera from its true place: {(start[2:] - t).norm():.3f} at the start, "
    f"{(found.t - truth.t).norm():.4f} at the end"
)
