"""A texture for a fit: what it shows, what it gains over colours at vertices, and that it can be put aside."""

import math

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at, stack_cameras
from diffrender.fit import FitSettings
from diffrender.fit.paint import TEXEL_SMOOTHNESS, TexturePaint
from diffrender.fit.report import view_figures, write_mesh
from diffrender.fit.trainer import Trainer
from diffrender.io.image_set import ImageSet
from diffrender.io.images import save_image
from diffrender.io.meshes import load_mesh
from diffrender.mesh import Material
from diffrender.primitives import sphere
from diffrender.render import render
from diffrender.unwrap import unwrap

SIZE = (64, 56)
SETTINGS = FitSettings(
    steps=60, image_sizes=(32,), mesh_cells=8, views_per_step=3, appearance="texture", texture_size=128
)


def around(count):
    cameras = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        R, t = look_at(torch.tensor([5 * math.cos(angle), math.sin(3 * angle), 5 * math.sin(angle)]), torch.zeros(3))
        cameras.append(PinholeCamera(105.0, 105.0, SIZE[1] / 2, SIZE[0] / 2, size=SIZE, R=R, t=t))
    return tuple(cameras)


def textured(mesh, size=64):
    """`mesh` unwrapped, and the paint for it."""
    base = unwrap(mesh, size).replace(vertex_colors=None, materials=(Material(),))
    return base, TexturePaint(size, base)


@pytest.fixture(scope="module")
def striped(tmp_path_factory):
    """Twelve pictures of a ball with stripes, finer than the cells of the mesh that is fitted to it; one held out."""
    folder = tmp_path_factory.mktemp("striped")
    ball = sphere(5)
    stripes = 0.5 + 0.4 * torch.sin(20 * ball.vertices)  # three to a cell of a quarter of the radius: 2 pi / 20 = 0.31
    cameras = around(12)
    for k, picture in enumerate(render(ball.replace(vertex_colors=stripes), stack_cameras(cameras), samples=2)):
        alpha = picture[..., 3:]
        save_image(folder / f"{k}.png", torch.cat([picture[..., :3] / alpha.clamp(min=1e-6), alpha], -1).clamp(0, 1))
    names = tuple(f"{k}.png" for k in range(12))
    return ImageSet(names, tuple(folder / name for name in names), cameras, tuple(k == 5 for k in range(12)))


def finished(trainer):
    while not trainer.done:
        trainer.step()
    return trainer


def test_texels_made_from_vertex_colours_look_like_them():
    ball = sphere(4)
    painted = ball.replace(vertex_colors=0.5 + 0.3 * ball.vertices)
    base, paint = textured(painted, 256)
    camera = stack_cameras(around(1))
    texture = paint.on(base, paint.colors_of(painted))
    # colours change by 0.3 in a radius of some 40 texels, and beyond a seam a filter reads what is a texel away at most
    torch.testing.assert_close(render(texture, camera), render(painted, camera), rtol=0, atol=0.3 / 40)


def test_texels_beyond_the_charts_are_as_those_inside():
    base, paint = textured(sphere(3))
    values = torch.full((int(paint.covered.sum()), 3), 0.5)
    texture = paint.on(base, values).materials[0].texture
    # sRGB 0.5 is 0.2140 in linear light (IEC 61966-2-1); means of equal numbers, up to rounding
    torch.testing.assert_close(texture, torch.full((64, 64, 3), 0.21404), rtol=0, atol=1e-5)


def test_the_prior_is_the_mean_square_of_differences_between_texels_side_by_side():
    _, paint = textured(sphere(3))
    there = paint.covered
    values = torch.rand(int(there.sum()), 6, requires_grad=True)
    image = values.new_zeros(64, 64, 6).masked_scatter(there[..., None], values)
    across = (image[:, 1:] - image[:, :-1])[there[:, 1:] & there[:, :-1]]
    down = (image[1:] - image[:-1])[there[1:] & there[:-1]]
    expected = TEXEL_SMOOTHNESS * torch.cat([across, down]).square().sum(-1).mean() / 3
    found = paint.prior(paint.base, values)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, values)[0] for x in (found, expected)))


def test_a_texture_shows_what_vertices_are_too_far_apart_for(striped):
    figures = {}
    for appearance in ("vertex", "texture"):
        settings = FitSettings(**{**vars(SETTINGS), "appearance": appearance, "image_sizes": (32,)})
        trainer = finished(Trainer(striped.train, settings))
        figures[appearance] = view_figures(trainer.mesh(), trainer.optics(), trainer.start, striped)["held_out"][0]
    assert figures["texture"]["psnr"] > figures["vertex"]["psnr"] + 3
    assert figures["texture"]["iou"] > 0.97


def test_a_fit_put_aside_in_the_middle_of_its_texture_goes_on_with_the_same_bits(striped):
    settings = FitSettings(**{**vars(SETTINGS), "steps": 9})
    assert settings.stage_steps == [4, 5]
    trainer = Trainer(striped.train, settings)
    for _ in range(7):
        trainer.step()
    resumed = finished(Trainer(striped.train, settings, trainer.state()))
    finished(trainer)
    ours, theirs = resumed.mesh(), trainer.mesh()
    assert torch.equal(ours.vertices, theirs.vertices)
    assert torch.equal(ours.uvs, theirs.uvs)
    assert torch.equal(ours.materials[0].texture, theirs.materials[0].texture)
    assert [r.loss for r in resumed.history] == [r.loss for r in trainer.history]


def test_the_file_holds_the_texture(striped, tmp_path):
    trainer = finished(Trainer(striped.train, FitSettings(**{**vars(SETTINGS), "steps": 3})))
    mesh = trainer.mesh()
    write_mesh(tmp_path / "mesh.glb", mesh)
    loaded = load_mesh(tmp_path / "mesh.glb")
    assert loaded.vertex_colors is None
    assert loaded.num_faces == mesh.num_faces
    # 8 bits of sRGB: half a step, where the curve is steepest in linear light (2.3 at white)
    torch.testing.assert_close(
        loaded.materials[0].texture, mesh.materials[0].texture.clamp(0, 1), rtol=0, atol=2.3 * 0.5 / 255 + 1e-6
    )
