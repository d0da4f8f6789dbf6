"""Cameras from photographs of a known scene: where three of them stood, and the lens that they share, by rendering.

    python examples/fit_camera.py

No corners are detected and no points are matched: the pictures themselves are compared, pixel by pixel, and the
gradient of their difference goes through the renderer to the poses, the focal lengths, the middle and the distortion.

A focal length looks much like a step forward, and a shifted middle like a turn: in millimetres and radians such a fit
hardly gets anywhere. So the unknowns are combined into others, each of which moves the points of the scene by a pixel
in the mean, independently of all others. How far points move is known without any picture. In these units L-BFGS
follows the pictures to a thousandth of a pixel.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr

SIZE = (180, 240)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=7, help="for each of three levels: five iterations each")
parser.add_argument("--seed", type=int, default=0, help="which way the cameras are turned and moved at the start")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(args.seed)

# The scene, of which everything is known: a wall, a floor, a ring and a ball, painted with random waves. It has depth,
# without which focal length and distance could not be told apart.
generator = torch.Generator().manual_seed(1)
v, u = torch.meshgrid(*[(torch.arange(128) + 0.5) / 128] * 2, indexing="ij")
waves = 2 * math.pi * torch.randint(-4, 5, (30, 2), generator=generator)
phase = 2 * math.pi * torch.rand(30, generator=generator)
tint = torch.randn(30, 1, generator=generator) + 0.4 * torch.randn(30, 3, generator=generator)
paint = torch.sigmoid(torch.cos(u[..., None] * waves[:, 0] + v[..., None] * waves[:, 1] + phase) @ tint / 3)
painted = (dr.Material("paint", texture=paint),)
wall = dr.grid(12, 12).replace(materials=painted)
floor = wall.replace(vertices=wall.vertices @ torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
ring, ball = (mesh.replace(materials=painted) for mesh in (dr.torus(0.7, 0.25), dr.sphere(3)))
scene = dr.join(
    [
        wall.replace(vertices=4.0 * wall.vertices + torch.tensor([0.0, 3.0, -2.0])),
        floor.replace(vertices=4.0 * floor.vertices + torch.tensor([0.0, -1.0, 2.0])),
        ring.replace(vertices=ring.vertices + torch.tensor([-0.9, -0.3, 0.6])),
        ball.replace(vertices=0.7 * ball.vertices + torch.tensor([0.9, -0.3, -0.4])),
    ]
)
lights = [dr.AmbientLight((0.5, 0.5, 0.55)), dr.DirectionalLight((-0.5, -1.0, -0.8), (0.55, 0.55, 0.5))]


def pictures(camera: dr.OpenCVCamera, scale: float, samples: int) -> Tensor:
    """[3, H, W, 3] what the three cameras see, `scale` times as large."""
    small = camera.resize((round(scale * SIZE[0]), round(scale * SIZE[1])))
    image = dr.render(scene, small, lights=lights, background=(0.76, 0.84, 0.93), samples=samples, intersecting=False)
    return image[..., :3]


def made(lens: Tensor, R: Tensor, t: Tensor) -> dr.OpenCVCamera:
    fx, fy, cx, cy, k1, k2 = lens
    return dr.OpenCVCamera(fx, fy, cx, cy, (k1, k2, 0.0, 0.0), size=SIZE, R=R, t=t)


# The truth, and its photographs. The lens bends straight lines by some ten pixels.
names = ("fx", "fy", "cx", "cy", "k1", "k2")
true_lens = torch.tensor([212.0, 205.0, 126.0, 84.0, -0.25, 0.06])
R, t = dr.look_at(torch.tensor([[0.4, 0.9, 4.2], [-1.9, 0.5, 3.5], [1.9, 1.6, 3.2]]), (0.0, -0.1, 0.0))
truth = made(true_lens, R, t)
with torch.no_grad():
    photographs = pictures(truth, 1.0, 3)

# The start: a lens without distortion, of the wrong length, whose middle is the image's; cameras turned by 5 degrees
# and moved by 0.15.
turn, move = torch.nn.functional.normalize(torch.randn(2, 3, 3), dim=-1)
lens, R, t = (
    torch.tensor([240.0, 240.0, 120.0, 90.0, 0.0, 0.0]),
    dr.so3_exp(math.radians(5.0) * turn) @ R,
    t + 0.15 * move,
)
unit = torch.cat([torch.tensor([20.0, 20.0, 10.0, 10.0, 0.2, 0.2]), torch.full((9,), 0.05), torch.full((9,), 0.1)])


def changed(unknowns: Tensor) -> dr.OpenCVCamera:
    """The cameras so far, with 24 changes in their units: of the lens, then turns and moves of each camera."""
    of_lens, turns, moves = (unit * unknowns).split([6, 9, 9])
    return made(lens + of_lens, dr.so3_exp(turns.reshape(3, 3)) @ R, t + moves.reshape(3, 3))


def independent(least: float) -> Tensor:
    """[24, 24] combinations of the unknowns, as columns: each moves points by a pixel, root mean square.

    What moves them by less than `least` pixels per unit counts as that much: the second coefficient is not to leap.
    """
    points = scene.vertices
    xy, _ = changed(torch.zeros(24)).project(points)
    seen = ((xy > 0) & (xy < xy.new_tensor([SIZE[1], SIZE[0]]))).all(-1)  # [3, N]
    moved = []
    for step in 1e-2 * torch.eye(24):
        there, back = (changed(sign * step).project(points)[0] for sign in (1, -1))
        moved.append(((there - back) / 2e-2)[seen].reshape(-1))
    columns = torch.stack(moved, dim=-1).double()  # [2 * seen points, 24]
    normal = columns.T @ columns / (len(columns) / 2)
    return torch.linalg.inv(torch.linalg.cholesky(normal + least**2 * torch.eye(24))).T.float()


def errors() -> tuple[float, float]:
    """Largest angle of a camera from the truth in degrees, and distance of its centre from its true place."""
    angle = dr.so3_log(R @ truth.R.mT).norm(dim=-1).max()
    centers, places = (-(rotation.mT @ shift[..., None])[..., 0] for rotation, shift in ((R, t), (truth.R, truth.t)))
    return math.degrees(float(angle)), float((centers - places).norm(dim=-1).max())


def refined(scale: float, least: float) -> Tensor:
    """The changes [24] that make images `scale` times as large those that were taken."""
    size = (round(scale * SIZE[0]), round(scale * SIZE[1]))
    targets = dr.to_nhwc(torch.nn.functional.adaptive_avg_pool2d(dr.to_nchw(photographs), size))
    combinations, steps = independent(least), torch.zeros(24, requires_grad=True)
    optimizer = torch.optim.LBFGS([steps], max_iter=5, history_size=24, line_search_fn="strong_wolfe")

    def difference() -> Tensor:
        optimizer.zero_grad()
        loss = 100 * (pictures(changed(combinations @ steps), scale, 2) - targets).square().mean()
        loss.backward()
        return loss

    for _ in (bar := tqdm(range(args.steps), desc=f"{size[1]} x {size[0]} pixels")):
        bar.set_postfix(loss=f"{optimizer.step(difference).detach():.6f}")
    return combinations @ steps.detach()


# From small images, in which everything is near, to large ones.
start_lens, start_errors = lens, errors()
with torch.no_grad():
    before = pictures(made(lens, R, t), 1.0, 3)
for scale, least in ((0.125, 1.0), (0.25, 0.3), (0.5, 0.1)):
    changes = refined(scale, least)
    found = changed(changes)
    lens, R, t = lens + (unit * changes)[:6], found.R, found.t
    print(f"1 : {1 / scale:.0f}: cameras are off by {errors()[0]:.3f} degrees and {errors()[1]:.4f} in place")

with torch.no_grad():
    after = pictures(made(lens, R, t), 1.0, 3)
rows = [[photographs[i], before[i], after[i], 1 - 4 * (after[i] - photographs[i]).abs()] for i in range(2)]
dr.save_image(args.out / "fit_camera.png", torch.cat([torch.cat(row, dim=1) for row in rows]))
print(f"wrote {args.out / 'fit_camera.png'}: two photographs, start, fit, 4 x their difference (white: none)")
for name, first, value, true in zip(names, start_lens.tolist(), lens.tolist(), true_lens.tolist(), strict=True):
    print(f"{name}: {first:8.3f} at the start, {value:8.3f} found, {true:8.3f} true")
worst = float((lens[:4] - true_lens[:4]).abs().max())
bend = float((lens[4:] - true_lens[4:]).abs().max())
print(f"focal lengths and middle off by at most {worst:.3f} pixels, distortion by {bend:.4f}")
angle, distance = errors()
print(f"cameras off by {start_errors[0]:.2f} degrees and {start_errors[1]:.3f} in place at the start")
print(f"cameras off by {angle:.4f} degrees and {distance:.5f} in place at the end")
