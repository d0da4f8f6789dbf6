"""Where a camera was: the pose of a second photograph from its pixels and a known shape, from a start 20 pixels off.

    python examples/align_pose.py
    python examples/align_pose.py --images left01.jpg left03.jpg --views 0 2 --calibration left_intrinsics.yml

The pose of the first picture is known, so each of its pixels is a point of the shape with a grey value. `sample` looks
the second picture up where its camera, with the pose as it is so far, sees that point. The derivative of the difference
is that of the sample by its coordinates, times that of the coordinates by the point (the camera's own, through any
lens), times that of the point by the six numbers of a motion; with it, Gauss-Newton steps, on small versions of the
pictures first. Nothing is matched, and no corner is looked for.

With `--images`, the shape is the flat board that calibrated the camera, and `--calibration` OpenCV's file about it,
with a pose for each view: that of the first picture is used, and that of the second is the truth to compare with.
Without photographs, two are rendered of a painted ring, through a lens that bends straight lines.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.sampling import pixel_centers

LEVELS = 5  # at the coarsest one a pixel is 16 of the photograph's

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=20, help="Gauss-Newton steps for each of the five levels")
parser.add_argument("--images", type=Path, nargs=2, help="two photographs of a board")
parser.add_argument("--views", type=int, nargs=2, help="which of the calibration's views they are, from 0 on")
parser.add_argument("--calibration", type=Path, help="OpenCV's file, with poses (extrinsic_parameters)")
parser.add_argument("--board", default="9x6", help="inner corners of the board")
parser.add_argument("--square", type=float, default=0.025, help="side of its squares, in the unit of the poses")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
if len({args.images is None, args.views is None, args.calibration is None}) > 1:
    parser.error("--images, --views and --calibration go together")

# The shape, the two pictures, and the cameras that took them.
if args.images:
    first, second = (dr.load_image(path)[..., :3].double() for path in args.images)
    cameras = dr.load_calibration(args.calibration)
    camera, truth = (cameras[view] for view in args.views)
    columns, rows = (int(word) for word in args.board.split("x"))
    low, right, down = -args.square, columns * args.square, rows * args.square  # a square beyond the outer corners
    corners = torch.tensor([[low, low, 0], [right, low, 0], [right, down, 0], [low, down, 0]], dtype=torch.float64)
    shape = dr.Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
else:
    ring = dr.torus().to(dtype=torch.float64)
    noise = torch.rand(24, 48, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = pixel_centers((96, 192), noise) / 4
    paint = dr.sample(noise, at, mode="bspline", padding="wrap").clamp(0, 1)
    shape = ring.replace(materials=(dr.Material("paint", texture=paint),))
    lens = dr.OpenCVCamera(290.0, 290.0, 160.0, 120.0, (-0.25, 0.05, 0.0, 0.0), size=(240, 320)).to(dtype=torch.float64)
    poses = [dr.look_at(eye) for eye in ((0.4, 2.2, 2.6), (0.9, 2.0, 2.5))]
    camera, truth = (lens.replace(R=R.double(), t=t.double()) for R, t in poses)
    first, second = (dr.render(shape, one, background=0.4, samples=2)[..., :3] for one in (camera, truth))
    second = 0.05 + 0.8 * second

# The start: turned about an axis of its own, by what moves the shape by 20 pixels on average.
axis = torch.tensor([0.5, -0.8, 0.33], dtype=torch.float64)


def turned(angle: float) -> dr.Camera:
    R = dr.se3_exp(torch.cat([torch.zeros(3, dtype=torch.float64), angle * axis / axis.norm()]))[0]
    return truth.replace(R=R @ truth.R, t=R @ truth.t)


def distance(one: dr.Camera) -> float:
    """Mean distance in pixels between where a camera sees the vertices of the shape and where it should."""
    return float((one.project(shape.vertices)[0] - truth.project(shape.vertices)[0]).norm(dim=-1).mean())


def angle_between(one: dr.Camera) -> float:
    """Degrees between its orientation and the true one."""
    sine = (one.R - truth.R).norm() / 8**0.5  # of half the angle
    return float(torch.rad2deg(2 * torch.arcsin(sine)))


less, more = 0.0, 0.5
for _ in range(30):
    middle = (less + more) / 2
    less, more = (less, middle) if distance(turned(middle)) > 20 else (middle, more)
start = turned(less)


def standardized(image: Tensor) -> Tensor:
    """Grey, with mean 0 and deviation 1 in each neighbourhood: the light of two photographs is never the same."""
    grey = dr.to_nchw(image.mean(-1, keepdim=True))[None]
    means = [torch.nn.functional.avg_pool2d(x, 15, 1, 7, count_include_pad=False) for x in (grey, grey * grey)]
    return dr.to_nhwc((grey - means[0]) / (means[1] - means[0] ** 2).clamp_min(1e-4).sqrt())[0]


def seen_points(view: dr.Camera) -> tuple[Tensor, Tensor]:
    """The points [N, 3] of the shape at the pixels of a camera that see it, and which pixels [H, W] those are."""
    _, buffers = dr.render(shape, view, buffers=("depth",), intersecting=False)
    seen = buffers["depth"].isfinite()
    return view.unproject(view.pixel_centers()[seen], buffers["depth"][seen]), seen


def step(view: dr.Camera, values: Tensor, points: Tensor, other: Tensor) -> tuple[dr.Camera, float]:
    """One Gauss-Newton step for the pose of a camera, from `values` [N] at `points` [N, 3] to the picture `other`."""
    local = view.world_to_camera(points).requires_grad_()
    xy, _ = view.local_project(local)
    found = dr.sample(other, xy, mode="bicubic", padding="clamp")[:, 0]
    (slopes,) = torch.autograd.grad(found.sum(), local)  # through picture and lens
    local = local.detach()
    jacobian = torch.cat([slopes, torch.linalg.cross(local, slopes)], -1)  # a motion moves a point by v + w x point
    size = xy.new_tensor([other.shape[1], other.shape[0]])
    rest = (values - found).detach()
    inside = ((xy > 0) & (xy < size)).all(-1)
    weight = inside / (1 + rest.square())  # Cauchy's: what one of them does not show counts little
    matrix = jacobian.mT @ (weight.unsqueeze(-1) * jacobian)
    scale = matrix.diagonal().sqrt()  # turns and shifts have units of their own
    damped = matrix / scale / scale[:, None] + 1e-3 * torch.eye(6).double()
    R, t = dr.se3_exp(torch.linalg.solve(damped, jacobian.mT @ (weight * rest) / scale) / scale)
    loss = float((torch.log1p(rest.square()) * inside).sum() / inside.sum())
    return view.replace(R=R @ view.R, t=R @ view.t + t), loss


pyramids = [dr.mip_pyramid(image, LEVELS) for image in (first, second)]
pose = start
for level in reversed(range(LEVELS)):
    one, other = (standardized(pyramid[level]) for pyramid in pyramids)
    points, seen = seen_points(camera.resize(one.shape[:2]))
    small = pose.resize(other.shape[:2])
    for _ in (bar := tqdm(range(args.steps), desc=f"{one.shape[1]:4d} x {one.shape[0]:3d} pixels")):
        small, loss = step(small, one[seen][:, 0], points, other)
        pose = truth.replace(R=small.R, t=small.t)
        bar.set_postfix(loss=f"{loss:.5f}", off=f"{distance(pose):.3f}")

# Checkerboards of both pictures, where the shape is: a step at the border of a square is what is left.
points, seen = seen_points(camera)
board = ((pixel_centers(seen.shape, first) / 20).floor().sum(-1) % 2).bool() & seen
panels = [first]
for view in (start, pose):
    looked_up = first.clone()
    looked_up[seen] = dr.sample(second, view.project(points)[0])
    panels.append(torch.where(board.unsqueeze(-1), looked_up, first))
dr.save_image(args.out / "align_pose.png", torch.cat([panels[0], second, *panels[1:]], 1))
print(f"wrote {args.out / 'align_pose.png'}: both pictures; squares of both, at the start and aligned")
print(f"orientation off by {angle_between(start):.2f} degrees at the start, {angle_between(pose):.3f} at the end")
print(f"the shape off by {distance(start):.2f} pixels at the start, {distance(pose):.3f} at the end")
