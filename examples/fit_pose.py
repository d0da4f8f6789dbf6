"""The pose of an object from one picture, from a start that is 50 degrees off.

    python examples/fit_pose.py

Gradients of an image reach as far as its pixels are large. So the first image has 24 x 24 of them, where the spout of
the start overlaps the one of the picture, and every further level sharpens the answer. `camera.resize` keeps the
half pixels right on the way.
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
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

# The object, the camera, and the picture of the object in a pose that the fit does not know.
teapot = dr.load_mesh(ASSETS / "teapot.obj")
R, t = dr.look_at((0.0, 1.2, 3.6))
camera = dr.PinholeCamera(255.0, 255.0, 120.0, 120.0, size=(240, 240), R=R, t=t)
lights = [dr.AmbientLight((0.40, 0.43, 0.50)), dr.DirectionalLight((-0.5, -1.0, -0.6), (0.75, 0.68, 0.55))]
background = (0.85, 0.88, 0.93)
true_rotation, true_shift = dr.so3_exp(torch.tensor([0.25, -0.6, 0.2])), torch.tensor([0.10, -0.05, 0.15])


def picture(rotation: Tensor, shift: Tensor, size: int, samples: int) -> Tensor:
    """[size, size, 4] the teapot turned and moved, with its coverage."""
    moved = teapot.replace(vertices=teapot.vertices @ rotation.mT + shift)
    return dr.render(moved, camera.resize((size, size)), lights=lights, background=background, samples=samples)


with torch.no_grad():
    photograph = picture(true_rotation, true_shift, 240, 3)

# The start: turned by 50 degrees about a skew axis, and moved. The unknowns are a rotation vector before that start and
# a shift, six numbers.
axis = torch.nn.functional.normalize(torch.tensor([0.3, 0.9, -0.3]), dim=0)
first_rotation = dr.so3_exp(math.radians(50.0) * axis) @ true_rotation
first_shift = true_shift + torch.tensor([-0.25, 0.15, 0.20])
turn = torch.zeros(3, requires_grad=True)
shift = first_shift.clone().requires_grad_()


def angle_error() -> float:
    """Degrees between the rotation found and the true one."""
    rotation = dr.so3_exp(turn.detach().double()) @ (first_rotation @ true_rotation.mT).double()
    sine = (rotation - rotation.mT)[[2, 0, 1], [1, 2, 0]].norm() / 2
    return math.degrees(math.atan2(sine, (rotation.trace() - 1) / 2))  # of the sine too: a cosine hides small angles


start_error = angle_error()
panels = [photograph, picture(first_rotation, first_shift, 240, 3)]
for size, length in ((24, 0.06), (60, 0.02), (120, 0.005)):
    target = dr.to_nhwc(torch.nn.functional.adaptive_avg_pool2d(dr.to_nchw(photograph), size))
    optimizer = torch.optim.Adam([turn, shift], lr=length)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
    for _ in (bar := tqdm(range(args.steps), desc=f"{size:3d} x {size:3d} pixels")):
        image = picture(dr.so3_exp(turn) @ first_rotation, shift, size, 240 // size if size < 60 else 2)
        loss = (image - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        bar.set_postfix(loss=f"{loss.item():.6f}", degrees=f"{angle_error():.3f}")
    with torch.no_grad():
        panels.append(picture(dr.so3_exp(turn) @ first_rotation, shift, 240, 3))

dr.save_image(args.out / "fit_pose.png", torch.cat([panel[..., :3].detach() for panel in panels], dim=1))
print(f"wrote {args.out / 'fit_pose.png'}: photograph, start, after each of the three levels")
print(f"shift off by {float((shift.detach() - true_shift).norm()):.5f}")
print(f"rotation off by {start_error:.2f} degrees at the start, {angle_error():.3f} degrees at the end")
