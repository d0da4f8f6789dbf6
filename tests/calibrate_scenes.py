"""Made-up calibrations with a known answer, for the tests in `calibrate`."""

import math

import torch
from torch import Tensor

import diffrender as dr
from diffrender.calibrate import Board, Corners
from diffrender.cameras import Camera, DoubleSphereCamera, EUCMCamera, ThinPrismFisheyeCamera, UnifiedCamera

BOARD = Board(8, 6, 30.0)
SIZE = (480, 640)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lens(model: str) -> Camera:
    """A true camera of a model, with every parameter off its start."""
    narrow, wide = vector(531.2, 533.9, 322.7, 236.1).unbind(), vector(172.3, 173.1, 322.7, 236.1).unbind()
    if model == "pinhole":
        return dr.PinholeCamera(*narrow, size=SIZE)
    if model == "opencv":
        return dr.OpenCVCamera(*narrow, dist=vector(-0.28, 0.09, 0.0012, -0.0007, 0.03), size=SIZE)
    if model == "rational":
        return dr.OpenCVCamera(*narrow, dist=vector(0.3, -0.2, 0.001, -0.0005, 0.05, 0.6, 0.1, -0.05), size=SIZE)
    if model == "fisheye":
        return dr.FisheyeCamera(*wide, k=vector(-0.03, 0.012, -0.006, 0.001), size=SIZE)
    if model == "thin_prism_fisheye":
        dist = vector(-0.03, 0.012, 0.001, -0.0008, -0.006, 0.001, 0.0007, -0.0005)
        return ThinPrismFisheyeCamera(*wide, dist=dist, size=SIZE)
    if model == "unified":
        return UnifiedCamera(361.8, 363.5, 322.7, 236.1, 1.13, vector(-0.05, 0.02, 0.001, -0.002), size=SIZE)
    if model == "double_sphere":
        return DoubleSphereCamera(*wide, xi=-0.12, alpha=0.57, size=SIZE)
    assert model == "eucm"
    return EUCMCamera(*wide, alpha=0.58, beta=1.2, size=SIZE)


def views(camera: Camera, num_views: int = 10, *, seed: int = 0) -> Camera:
    """The camera [num_views] before slanted boards, that lie all around the axis of a wide lens."""
    generator = torch.Generator().manual_seed(seed)
    wide = not isinstance(camera, dr.PinholeCamera | dr.OpenCVCamera)

    def noise(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

    number = torch.arange(num_views, dtype=torch.float64)
    turn = 2.4 * number  # the golden angle: no two views alike
    aside = (1.05 if wide else 0.2) * ((number + 0.5) / num_views).sqrt()
    to_place = dr.so3_exp(aside[:, None] * torch.stack((-turn.sin(), turn.cos(), torch.zeros_like(turn)), dim=-1))
    slant = dr.so3_exp(0.55 * noise(num_views, 3))
    distance = (230.0 if wide else 420.0) * (1 + 0.2 * noise(num_views, 1))
    ahead = torch.cat((torch.zeros(num_views, 2, dtype=torch.float64), distance), dim=-1)
    t = ahead - slant @ BOARD.points.mean(0)
    return camera.replace(R=to_place @ slant, t=(to_place @ t[..., None])[..., 0])


def seen(cameras: Camera, noise: float = 0.0, *, outliers: float = 0.0, seed: int = 0) -> tuple[Corners, Tensor]:
    """The corners that `cameras` see of the board, and which of them [V, N] are off by 5 to 30 pixels."""
    generator = torch.Generator().manual_seed(seed)
    xy, _ = cameras.project(BOARD.points)
    assert bool(cameras.valid(cameras.world_to_camera(BOARD.points)).all())
    xy = xy + noise * torch.randn(xy.shape, generator=generator, dtype=xy.dtype)
    wrong = torch.rand(xy.shape[:2], generator=generator) < outliers
    angle, far = torch.rand((2, *xy.shape[:2]), generator=generator, dtype=xy.dtype)
    angle = 2 * math.pi * angle
    off = (5 + 25 * far)[..., None] * torch.stack((torch.cos(angle), torch.sin(angle)), dim=-1)
    names = tuple(f"view{i}" for i in range(len(xy)))
    observed = torch.ones(xy.shape[:2], dtype=torch.bool)
    return Corners(names, SIZE, torch.where(wrong[..., None], xy + off, xy), observed), wrong


def photographed(cameras: Camera, *, blur: float, noise: float = 0.0, seed: int = 0, fine: int = 4) -> Tensor:
    """Linear grey photographs [V, H, W] of the board on a white wall, by `fine` x `fine` rays a pixel, no renderer.

    The light falls off across the board, and the lens blurs with a Gaussian of `blur` pixels.
    """
    height, width = cameras.size
    rays = cameras.resize((height * fine, width * fine))
    reach = int(4 * blur * fine)
    t = torch.arange(-reach, reach + 1, dtype=torch.float64)
    bell = torch.exp(-((t / (blur * fine)) ** 2) / 2)
    bell = (bell / bell.sum())[None, None]
    pictures = []
    for i in range(len(cameras.R)):  # one at a time: millions of rays each
        origins, directions = rays[i].rays(rays.pixel_centers())
        place = (origins - directions * (origins[..., 2:] / directions[..., 2:]))[..., :2] / BOARD.square
        there = (place > -1).all(-1) & (place < place.new_tensor([BOARD.columns, BOARD.rows])).all(-1)
        white = (place.floor().sum(-1) % 2 == 0) & there
        light = 0.75 + 0.02 * place[..., 0] - 0.02 * place[..., 1]
        picture = torch.where(white, light, torch.where(there, 0.08, 0.7))[None, None]
        for kernel in (bell[..., None], bell[..., None, :]):
            half = (kernel.shape[-2] // 2, kernel.shape[-1] // 2)
            picture = torch.nn.functional.conv2d(picture, kernel, padding=half)
        pictures.append(torch.nn.functional.avg_pool2d(picture, fine)[0, 0])
    images = torch.stack(pictures)
    generator = torch.Generator().manual_seed(seed)
    return images + noise * torch.randn(images.shape, generator=generator, dtype=images.dtype)
