"""Exposure, white balance and poses of views: recovered where they are known."""

import math
from dataclasses import replace

import pytest
import torch

from diffrender.cameras import OpenCVCamera, PinholeCamera, look_at, so3_exp, stack_cameras
from diffrender.fit import FitSettings
from diffrender.fit.model import Optics
from diffrender.fit.report import view_figures
from diffrender.fit.trainer import Trainer
from diffrender.io.image_set import ImageSet
from diffrender.io.images import save_image
from diffrender.mesh import join
from diffrender.primitives import sphere
from diffrender.render import render

SIZE = (64, 60)
FOCAL = 105.0
COUNT = 10
SETTINGS = FitSettings(steps=150, image_sizes=(64,), mesh_cells=24, views_per_step=4)


def body():
    """Two balls, so that no turn looks like another, with spots."""
    ball = sphere(4)
    spots = 0.4 + 0.25 * torch.sin(7 * ball.vertices)
    head = ball.replace(vertices=0.4 * ball.vertices + torch.tensor([0.8, 0.6, 0.3]), vertex_colors=spots.flip(-1))
    return join([ball.replace(vertices=0.9 * ball.vertices, vertex_colors=spots), head])


def around(lens=PinholeCamera, focal=FOCAL, distance=5.0, **more):
    cameras = []
    for k in range(COUNT):
        angle = 2 * math.pi * k / COUNT
        eye = distance * torch.tensor([math.cos(angle), 0.3 * math.sin(3 * angle), math.sin(angle)])
        R, t = look_at(eye, torch.zeros(3))
        cameras.append(lens(focal, focal, SIZE[1] / 2, SIZE[0] / 2, size=SIZE, R=R, t=t, **more))
    return cameras


def pictures(folder, gains, cameras=None):
    """The image set of `body`, in which each view is `gains` [COUNT, 3] times as bright."""
    cameras = cameras or around()
    for k, picture in enumerate(render(body(), stack_cameras(cameras), samples=2)):
        color, alpha = picture[..., :3] * gains[k], picture[..., 3:]
        save_image(folder / f"{k}.png", torch.cat([color / alpha.clamp(min=1e-6), alpha], dim=-1).clamp(0, 1))
    names = tuple(f"{k}.png" for k in range(COUNT))
    return ImageSet(names, tuple(folder / name for name in names), tuple(cameras), (False,) * COUNT)


def finished(images, settings):
    trainer = Trainer(images, settings)
    while not trainer.done:
        trainer.step()
    return trainer


def mean_psnr(trainer, images):
    rows = view_figures(trainer.mesh(), trainer.optics(), trainer.start, images)["train"]
    return sum(row["psnr"] for row in rows) / len(rows)


def test_exposure_and_white_balance_of_each_view_are_found(tmp_path):
    logarithms = 0.3 * torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    images = pictures(tmp_path, logarithms.exp())
    plain, exposed = (finished(images, replace(SETTINGS, fit_exposure=how)) for how in (False, True))
    assert torch.equal(plain.optics().gains, torch.zeros(COUNT, 3))
    gains = exposed.optics().gains
    off = (gains - gains.mean(0)) - (logarithms - logarithms.mean(0))
    # a tenth of what they are: views share less than half of what they see, and shape and colours are not done
    assert float(off.abs().mean()) < 0.1 * float((logarithms - logarithms.mean(0)).abs().mean())
    assert mean_psnr(exposed, images) > mean_psnr(plain, images) + 3


def test_a_pose_that_is_off_is_found(tmp_path):
    images = pictures(tmp_path, torch.ones(COUNT, 3))
    turn = so3_exp(torch.tensor([0.01, -0.015, 0.02]))  # 1.5 degrees
    right, cameras = images.cameras[3], list(images.cameras)
    cameras[3] = right.replace(R=turn @ right.R, t=turn @ right.t)
    wrong = replace(images, cameras=tuple(cameras))
    trainer = finished(wrong, replace(SETTINGS, steps=250, fit_cameras=True))
    optics = trainer.optics()
    found = optics.moved(optics.shifted(stack_cameras([cameras[3]])), torch.tensor([3]))
    points = body().vertices

    def away(camera):  # in pixels: what pictures tell; a small turn and a shift of the camera are nearly one
        return float((camera.project(points)[0] - right.project(points)[0]).norm(dim=-1).mean())

    # all cameras may have turned with the object a little, which is not counted out; and a cell of the mesh is 2 pixels
    assert away(cameras[3]) > 1.5
    assert away(found) < away(cameras[3]) / 3


@pytest.mark.slow
def test_focal_lengths_and_distortion_that_are_off_are_found(tmp_path):
    true = around(OpenCVCamera, 50.0, 2.6, dist=(-0.2, 0.05, 0.0, 0.0))
    images = pictures(tmp_path, torch.ones(COUNT, 3), true)
    assumed = [c.replace(fx=c.fx * 1.04, fy=c.fy * 0.97, dist=torch.zeros(4)) for c in true]
    wrong = replace(images, cameras=tuple(assumed))
    plain, corrected = (
        finished(wrong, replace(SETTINGS, steps=300, mesh_cells=32, fit_lens=how)) for how in (False, True)
    )
    points = body().vertices

    def away(optics):  # in pixels: focal length and distortion make up for each other
        found = optics.shifted(stack_cameras(assumed)).project(points)[0]
        return float((found - stack_cameras(true).project(points)[0]).norm(dim=-1).mean())

    assert away(Optics.ideal()) > 0.6
    assert away(corrected.optics()) < away(Optics.ideal()) / 4
    assert mean_psnr(corrected, wrong) > mean_psnr(plain, wrong) + 1


@pytest.mark.parametrize("change", [{"fit_exposure": True}, {"fit_cameras": True}, {"fit_lens": True}])
def test_a_fit_with_corrections_goes_on_with_the_same_bits(change, tmp_path):
    images = pictures(tmp_path, torch.ones(COUNT, 3))
    settings = replace(SETTINGS, steps=4, image_sizes=(32, 64), mesh_cells=16, **change)
    trainer = Trainer(images, settings)
    for _ in range(3):
        trainer.step()
    resumed = Trainer(images, settings, trainer.state())
    trainer.step()
    resumed.step()
    ours, theirs = resumed.optics().tensors(), trainer.optics().tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(resumed.mesh().vertices, trainer.mesh().vertices)
