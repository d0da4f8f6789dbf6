"""Two photographs of one plane, laid on top of each other by their pixels alone, from a start 20 pixels off.

    python examples/align_photographs.py
    python examples/align_photographs.py --images first.png second.png --homography truth.txt

`sample` looks the second picture up where a homography sends the pixels of the first. The derivative of the difference
is the derivative of the sample by its coordinates, times that of the coordinates by the homography's eight numbers;
with it, Gauss-Newton steps. A derivative reaches as far as the picture is smooth, a pixel or two, so the alignment
begins with small versions of both: 20 pixels are little more than one there.

With `--images`, `--homography` is a file with nine numbers that send pixels of the first to the second picture, pixel
centres at integers as OpenCV has them. The start is this homography with every corner of the picture 20 pixels off;
without photographs, two are made of a drawing.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.sampling import pixel_centers

ASSETS = Path(__file__).resolve().parents[1] / "assets"
LEVELS = 5  # at the coarsest one a pixel is 16 of the photograph's

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=20, help="Gauss-Newton steps for each of the five levels")
parser.add_argument("--images", type=Path, nargs=2, help="two photographs of one size")
parser.add_argument("--homography", type=Path, help="nine numbers, row by row: where the truth, or nearly, is")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
if (args.images is None) != (args.homography is None):
    parser.error("--images and --homography go together")


def apply(homography: Tensor, xy: Tensor) -> Tensor:
    """Points [..., 2] sent on by a homography [3, 3]."""
    moved = xy @ homography[:, :2].mT + homography[:, 2]
    return moved[..., :2] / moved[..., 2:]


def from_corners(source: Tensor, target: Tensor) -> Tensor:
    """The homography that sends four points [4, 2] to four others: eight linear equations."""
    (x, y), (u, v) = source.unbind(-1), target.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.cat(
        [
            torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1),
            torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1),
        ]
    )
    return torch.cat([torch.linalg.solve(rows, torch.cat([u, v])), one[:1]]).view(3, 3)


# The two pictures and the true homography between them.
shift = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)  # to our half pixels
if args.images:
    first, second = (dr.load_image(path)[..., :3] for path in args.images)
    numbers = torch.tensor([float(word) for word in args.homography.read_text().split()], dtype=torch.float64)
    truth = shift @ numbers.view(3, 3) @ shift.inverse()
else:
    at = pixel_centers((240, 300), torch.zeros(()))
    noise = torch.rand(24, 30, 1, generator=torch.Generator().manual_seed(0))
    plaster = 0.35 + 0.6 * dr.sample(noise, at / 10, mode="bspline", padding="mirror").clamp(0, 1)
    first = plaster * torch.tensor([0.95, 0.80, 0.62])
    for name, corner in (("05.png", [-30.0, 20.0]), ("00.png", [120.0, 25.0])):  # painted on it
        drawing = dr.sample(
            dr.load_image(ASSETS / "giraffe" / "images" / name), at - torch.tensor(corner), padding="zeros"
        )
        first = torch.lerp(first, drawing[..., :3], drawing[..., 3:])
    corners = torch.tensor([[0.0, 0.0], [300.0, 0.0], [300.0, 240.0], [0.0, 240.0]], dtype=torch.float64)
    moves = torch.tensor([[18.0, 9.0], [-12.0, 16.0], [6.0, -20.0], [14.0, -6.0]], dtype=torch.float64)
    truth = from_corners(corners, corners + moves)
    there = dr.sample(first, apply(truth.inverse(), at.double()), mode="bicubic", padding="mirror").float()
    second = 0.05 + 0.8 * there

height, width = first.shape[:2]
corners = torch.tensor([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]], dtype=torch.float64)
away = 20 * torch.tensor([[0.6, -0.8], [-0.8, -0.6], [0.8, 0.6], [-1.0, 0.0]], dtype=torch.float64)
start = from_corners(corners, apply(truth, corners) + away)


def corner_error(homography: Tensor) -> float:
    """Mean distance in pixels between where the corners go and where they should."""
    return float((apply(homography, corners) - apply(truth, corners)).norm(dim=-1).mean())


def standardized(image: Tensor) -> Tensor:
    """Grey, with mean 0 and deviation 1 in each neighbourhood: the light of two photographs is never the same."""
    grey = dr.to_nchw(image.double().mean(-1, keepdim=True))[None]
    means = [torch.nn.functional.avg_pool2d(x, 15, 1, 7, count_include_pad=False) for x in (grey, grey * grey)]
    return dr.to_nhwc((grey - means[0]) / (means[1] - means[0] ** 2).clamp_min(1e-4).sqrt())[0]


def step(homography: Tensor, one: Tensor, other: Tensor, xy: Tensor, unit: Tensor) -> tuple[Tensor, float]:
    """One Gauss-Newton step from the values `one` at the points `xy` of the first picture to the second's."""
    inverse = unit.inverse()

    def moved(update: Tensor) -> Tensor:
        change = torch.cat([update, update.new_zeros(1)]).view(3, 3)
        return apply(homography @ inverse @ (torch.eye(3).double() + change) @ unit, xy)

    nothing = xy.new_zeros(8)
    points = moved(nothing).requires_grad_()
    values = dr.sample(other, points, mode="bicubic", padding="clamp")[:, 0]
    (slopes,) = torch.autograd.grad(values.sum(), points)
    jacobian = (slopes.unsqueeze(1) @ torch.func.jacfwd(moved)(nothing)).squeeze(1)  # [N, 8]
    size = xy.new_tensor([other.shape[1], other.shape[0]])
    inside = ((points > 0) & (points < size)).all(-1)
    rest = (one - values).detach()
    weight = inside / (1 + rest.square())  # Cauchy's: what is not on the plane counts little
    matrix = jacobian.mT @ (weight.unsqueeze(-1) * jacobian)
    damped = matrix + 1e-3 * matrix.diagonal().mean() * torch.eye(8).double()
    update = torch.linalg.solve(damped, jacobian.mT @ (weight * rest))
    change = torch.cat([update, update.new_zeros(1)]).view(3, 3)
    homography = homography @ inverse @ (torch.eye(3).double() + change) @ unit
    return homography / homography[2, 2], float((torch.log1p(rest.square()) * inside).sum() / inside.sum())


pyramids = [dr.mip_pyramid(image, LEVELS) for image in (first, second)]
homography = start
for level in reversed(range(LEVELS)):
    one, other = (standardized(pyramid[level]) for pyramid in pyramids)
    xy = pixel_centers(one.shape[:2], one).reshape(-1, 2)
    fine, coarse = (xy.new_tensor([image.shape[1], image.shape[0], 1.0]) for image in (first, one))
    scale = torch.diag(coarse / fine)
    # The eight numbers act on coordinates of order 1, or the equations are badly scaled.
    unit = torch.diag(xy.new_tensor([2.0, 2.0, 1.0]) / coarse)
    unit[:2, 2] = -1
    for _ in (bar := tqdm(range(args.steps), desc=f"{one.shape[1]:4d} x {one.shape[0]:3d} pixels")):
        local, loss = step(scale @ homography @ scale.inverse(), one.reshape(-1), other, xy, unit)
        homography = scale.inverse() @ local @ scale
        bar.set_postfix(loss=f"{loss:.5f}", corners=f"{corner_error(homography):.3f}")

# Checkerboards of both pictures: a step at the border of a square is what is left.
at = pixel_centers((height, width), first)
board = ((at / 40).floor().sum(-1, keepdim=True) % 2).bool()
panels = [torch.where(board, first, dr.sample(second, apply(h.float(), at))) for h in (start, homography)]
dr.save_image(args.out / "align_photographs.png", torch.cat(panels, 1))
print(f"wrote {args.out / 'align_photographs.png'}: squares of both pictures, at the start and aligned")
print(f"corners off by {corner_error(start):.2f} pixels at the start, {corner_error(homography):.3f} at the end")
