"""A camera from photographs of a known scene: its place, focal lengths, middle and distortion, by rendering.

    python examples/fit_camera.py

No corners are detected and no points are matched: the pictures themselves are compared, pixel by pixel, and the
gradient of the difference goes through the renderer to 6 intrinsics and to the poses of 3 cameras. A focal length looks
much like a step forward, a shifted middle like a turn: the unknowns are badly conditioned. So Adam brings them near,
from small images to large ones, and L-BFGS, which learns the curvature, finishes.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=60, help="optimizer steps for each of the three levels")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

# The scene: a wall, a floor, a ring and a ball, painted with random waves. It has depth, without which focal length and
# distance could not be told apart.
generator = torch.Generator().manual_seed(1)
v, u = torch.meshgrid(*[(torch.arange(128) + 0.5) / 128] * 2, indexing="ij")
waves = 2 * math.pi * torch.randint(-4, 5, (30, 2), generator=generator)
phase, tint = 2 * math.pi * torch.rand(30, generator=generator), torch.randn(30, 3, generator=generator)
paint = torch.sigmoid(torch.cos(u[..., None] * waves[:, 0] + v[..., None] * waves[:, 1] + phase) @ tint / 3)
painted = (dr.Material("paint", texture=paint),)
wall = dr.grid(12, 12).replace(materials=painted)
floor = wall.replace(vertices=wall.vertices @ torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
ring, ball = dr.torus(0.7, 0.25).replace(materials=painted), dr.sphere(3).replace(materials=painted)
scene = dr.join(
    [
        wall.replace(vertices=4.0 * wall.vertices + torch.tensor([0.0, 3.0, -2.0])),
        floor.replace(vertices=4.0 * floor.vertices + torch.tensor([0.0, -1.0, 2.0])),
        ring.replace(vertices=ring.vertices + torch.tensor([-0.9, -0.5, 0.6])),
        ball.replace(vertices=0.7 * ball.vertices + torch.tensor([0.9, -0.15, -0.4])),
    ]
)

# The truth: three pictures through one lens. Parameters in pixels of 180 x 240.
names = ("fx", "fy", "cx", "cy", "k1", "k2")
true_lens = torch.tensor([212.0, 205.0, 126.0, 84.0, -0.25, 0.06])
R, t = dr.look_at(torch.tensor([[0.4, 0.9, 4.2], [-1.9, 0.5, 3.5], [1.9, 1.6, 3.2]]), (0.0, -0.1, 0.0))


def camera(lens: Tensor, R: Tensor, t: Tensor) -> dr.OpenCVCamera:
    fx, fy, cx, cy, k1, k2 = lens
    return dr.OpenCVCamera(fx, fy, cx, cy, (k1, k2, 0.0, 0.0), size=(180, 240), R=R, t=t)


def pictures(camera: dr.OpenCVCamera, scale: float, samples: int) -> Tensor:
    """[3, H, W, 3] what the three cameras see, `scale` times as large."""
    size = (round(180 * scale), round(240 * scale))
    return dr.render(scene, camera.resize(size), samples=samples, background=0.9, intersecting=False)[..., :3]


with torch.no_grad():
    photographs = pictures(camera(true_lens, R, t), 1.0, 3)

# The start: a lens without distortion, of the wrong length, whose middle is the image's; cameras turned by 5 degrees
# and moved by 0.15. Every unknown counts in a unit of its own, about what moves the image by ten pixels.
turn, move = (torch.nn.functional.normalize(torch.randn(3, 3, generator=generator), dim=-1) for _ in range(2))
first_lens = torch.tensor([240.0, 240.0, 120.0, 90.0, 0.0, 0.0])
first_R, first_t = dr.so3_exp(math.radians(5.0) * turn) @ R, t + 0.15 * move
unit = torch.tensor([20.0, 20.0, 10.0, 10.0, 0.2, 0.2])
lens_steps, turns, moves = (torch.zeros(shape, requires_grad=True) for shape in ((6,), (3, 3), (3, 3)))
unknowns = [lens_steps, turns, moves]


def estimate() -> dr.OpenCVCamera:
    return camera(first_lens + unit * lens_steps, dr.so3_exp(0.1 * turns) @ first_R, first_t + 0.2 * moves)


def errors(found: dr.OpenCVCamera) -> tuple[float, float]:
    """Largest angle of a camera from the truth in degrees, largest distance of its centre from its true place."""
    sine = (found.R.detach() - R).flatten(1).norm(dim=-1) / math.sqrt(8)  # |A - B| = sqrt(8) sin(angle / 2)
    centers = [
        -(rotation.mT @ shift[..., None])[..., 0] for rotation, shift in ((found.R.detach(), found.t.detach()), (R, t))
    ]
    return math.degrees(2 * float(sine.max().asin())), float((centers[0] - centers[1]).norm(dim=-1).max())


with torch.no_grad():
    start_errors, before = errors(estimate()), pictures(estimate(), 1.0, 3)


def level(scale: float, optimizer: torch.optim.Optimizer, steps: int) -> None:
    size = (round(180 * scale), round(240 * scale))
    target = dr.to_nhwc(torch.nn.functional.adaptive_avg_pool2d(dr.to_nchw(photographs), size))
    bar = tqdm(range(steps), desc=f"{type(optimizer).__name__}, {size[0]} x {size[1]} pixels")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 100 * (pictures(estimate(), scale, 2) - target).square().mean()
        value.backward()
        return value

    for _ in bar:
        bar.set_postfix(loss=f"{float(optimizer.step(loss).detach()):.5f}")
    print("errors after this level: {:.3f} degrees, {:.4f} in place".format(*errors(estimate())))


level(0.125, torch.optim.Adam(unknowns, lr=0.05), args.steps)
level(0.25, torch.optim.Adam(unknowns, lr=0.04), args.steps)
bfgs = torch.optim.LBFGS(unknowns, max_iter=20, history_size=30, line_search_fn="strong_wolfe")  # 20 in each step
level(0.5, bfgs, args.steps // 12)

found = estimate()
with torch.no_grad():
    after = pictures(found, 1.0, 3)
rows = [[photographs[i], before[i], after[i], 1 - 4 * (after[i] - photographs[i]).abs()] for i in range(3)]
dr.save_image(args.out / "fit_camera.png", torch.cat([torch.cat(row, dim=1) for row in rows]))
print(f"wrote {args.out / 'fit_camera.png'}: photographs, start, fit, 4 x their difference (white: none)")
values = (first_lens + unit * lens_steps).tolist()
for name, first, value, true in zip(names, first_lens, values, true_lens.tolist(), strict=True):
    print(
        f"{name}: {first:8.3f} at the start, {value:8.3f} found, {true:8.3f} true: off by {abs(value / true - 1):.3%}"
    )
angle, distance = errors(found)
print(f"cameras off by {start_errors[0]:.2f} degrees and {start_errors[1]:.3f} at the start")
print(f"cameras off by {angle:.4f} degrees and {distance:.5f} at the end")
