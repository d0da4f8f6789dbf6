"""A small image set on disk, whose object and cameras are known."""

import json
import math
from pathlib import Path

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at, stack_cameras
from diffrender.io.images import save_image
from diffrender.mesh import join
from diffrender.primitives import sphere
from diffrender.render import render

SMALL_SIZE = (32, 28)
SMALL_FOCAL = 50.0


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine views of a body with a head above one end, in NeRF's format, one held out (`transforms_test.json`)."""
    folder = tmp_path_factory.mktemp("snail")
    ball, middle = sphere(3), torch.tensor([0.3, -0.2, 0.1])
    painted = ball.replace(vertex_colors=0.5 + 0.4 * ball.vertices)
    body = painted.replace(vertices=ball.vertices * torch.tensor([0.9, 0.35, 0.4]) + middle)
    head = painted.replace(vertices=0.35 * ball.vertices + middle + torch.tensor([0.7, 0.6, 0.1]))
    snail = join([body, head])
    frames, cameras = [], []
    height, width = SMALL_SIZE
    for k in range(9):
        angle = 2 * math.pi * k / 9
        eye = middle + torch.tensor([4 * math.cos(angle), 1.0 + math.sin(2 * angle), 4 * math.sin(angle)])
        R, t = look_at(eye, middle)
        cameras.append(PinholeCamera(SMALL_FOCAL, SMALL_FOCAL, width / 2, height / 2, size=SMALL_SIZE, R=R, t=t))
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = R.T.double() * torch.tensor([1.0, -1.0, -1.0])  # OpenGL: y up, z backward
        pose[:3, 3] = -(R.T @ t).double()
        frames.append({"file_path": f"{k}.png", "transform_matrix": pose.tolist()})
    for k, picture in enumerate(render(snail, stack_cameras(cameras), samples=2)):
        alpha = picture[..., 3:]
        straight = picture[..., :3] / torch.where(alpha > 0, alpha, 1.0)
        save_image(folder / f"{k}.png", torch.cat([straight, alpha], dim=-1).clamp(0, 1))
    lens = {"fl_x": SMALL_FOCAL, "w": width, "h": height}
    (folder / "transforms_train.json").write_text(json.dumps({**lens, "frames": frames[:-1]}))
    (folder / "transforms_test.json").write_text(json.dumps({**lens, "frames": frames[-1:]}))
    return folder
