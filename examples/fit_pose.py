"""The pose of an object from one picture, from a start that is 60 degrees off.

    python examples/fit_pose.py

Gradients of an image reach as far as its pixels are large, and as far as parts overlap: a spout cannot be pulled to
where it should be from the other side of the pot. So there are several starts, and several scales. First 24 x 24
pixels, where fifteen guesses around the start are followed together; the five that fit best go on to 60 x 60, and the
best of those to 120 x 120. `camera.resize` keeps the half pixels right on the way.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=60, help="optimizer steps for each of the three levels")
parser.add_argument("--degrees", type=float, default=60.0, help="how far the start is turned away from the truth")
parser.add_argument("--seed", type=int, default=0, help="about which axis, and where it is moved to")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(args.seed)

# The object, the camera, and the picture of the object in a pose that the fit does not know.
teapot = dr.load_mesh(ASSETS / "teapot.obj")
R, t = dr.look_at((0.0, 1.2, 3.6))
camera = dr.PinholeCamera(255.0, 255.0, 120.0, 120.0, size=(240, 240), R=R, t=t)
lights = [dr.AmbientLight((0.40, 0.43, 0.50)), dr.DirectionalLight((-0.5, -1.0, -0.6), (0.75, 0.68, 0.55))]
background = (0.85, 0.88, 0.93)
true_rotation, true_shift = dr.so3_exp(torch.tensor([0.25, -0.6, 0.2])), torch.tensor([0.10, -0.05, 0.15])


def pictures(rotations: Tensor, shifts: Tensor, size: int, samples: int) -> Tensor:
    """[N, size, size, 3] the teapot turned and moved in N ways."""
    moved = [teapot.replace(vertices=teapot.vertices @ R.mT + t) for R, t in zip(rotations, shifts, strict=True)]
    return dr.render(
        moved, camera.resize((size, size)), lights=lights, background=background, samples=samples, intersecting=False
    )[..., :3]


with torch.no_grad():
    photograph = pictures(true_rotation[None], true_shift[None], 240, 3)[0]

# The start: turned about a random axis, and moved by 0.3. The guesses: the start itself, and turned by 50 degrees about
# fourteen axes, to the corners and sides of a cube. The unknowns are a rotation vector before each guess, and a shift.
axis, direction = torch.nn.functional.normalize(torch.randn(2, 3), dim=-1)
start = dr.so3_exp(math.radians(args.degrees) * axis) @ true_rotation
corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) / math.sqrt(3)
axes = torch.cat([torch.zeros(1, 3), corners, torch.eye(3), -torch.eye(3)])
guesses = dr.so3_exp(math.radians(50.0) * axes) @ start  # [15, 3, 3]
shifts = (true_shift + 0.3 * direction).repeat(len(guesses), 1)


def degrees_off(rotation: Tensor) -> float:
    """Degrees between a rotation and the true one."""
    between = rotation.double() @ true_rotation.double().mT
    sine = (between - between.mT)[[2, 0, 1], [1, 2, 0]].norm() / 2
    return math.degrees(math.atan2(sine, (between.trace() - 1) / 2))  # of the sine too: a cosine hides small angles


panels = [photograph, pictures(start[None], shifts[:1], 240, 3)[0]]
for size, kept, length in ((24, 5, 0.06), (60, 1, 0.02), (120, 1, 0.005)):
    target = dr.to_nhwc(torch.nn.functional.adaptive_avg_pool2d(dr.to_nchw(photograph), size))
    turns = torch.zeros(len(guesses), 3, requires_grad=True)
    shifts.requires_grad_()
    optimizer = torch.optim.Adam([turns, shifts], lr=length)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
    for _ in (bar := tqdm(range(args.steps), desc=f"{len(guesses)} of {size} x {size} pixels")):
        images = pictures(dr.so3_exp(turns) @ guesses, shifts, size, 2)
        losses = (images - target).square().mean((1, 2, 3))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        slower.step()
        bar.set_postfix(loss=f"{losses.min().item():.6f}")
    best = losses.detach().topk(kept, largest=False).indices
    guesses, shifts = (dr.so3_exp(turns) @ guesses)[best].detach(), shifts[best].detach()
    print(f"after {size} x {size} pixels the best are off by", *(f"{degrees_off(R):.2f}" for R in guesses), "degrees")
    with torch.no_grad():
        panels.append(pictures(guesses[:1], shifts[:1], 240, 3)[0])
panels.append(1 - 4 * (panels[-1] - photograph).abs())

dr.save_image(args.out / "fit_pose.png", torch.cat(panels, dim=1))
print(f"wrote {args.out / 'fit_pose.png'}: photograph, start, best after each level, 4 x the difference (white: none)")
print(f"shift off by {float((shifts[0] - true_shift).norm()):.5f}")
print(
    f"rotation off by {degrees_off(start):.2f} degrees at the start, {degrees_off(guesses[0]):.3f} degrees at the end"
)
