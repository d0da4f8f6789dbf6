"""Colours that depend on the direction of view: their functions, what a fit gains, and what files hold."""

import math

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at, stack_cameras
from diffrender.fit import FitSettings
from diffrender.fit.report import view_figures, write_mesh
from diffrender.fit.sheen import HARMONICS, harmonics, mirrored
from diffrender.fit.trainer import Trainer
from diffrender.fragments import interpolate
from diffrender.io.image_set import ImageSet
from diffrender.io.images import save_image
from diffrender.io.meshes import load_mesh
from diffrender.primitives import sphere
from diffrender.render import render

SIZE = (48, 48)
COUNT = 12


@pytest.fixture(scope="module")
def satin(tmp_path_factory):
    """Pictures of a ball that is five times as bright from one side as from the other; two held out."""
    folder = tmp_path_factory.mktemp("satin")
    cameras, eyes = [], []
    for k in range(COUNT):
        angle = 2 * math.pi * k / COUNT
        eyes.append(torch.tensor([5 * math.cos(angle), math.sin(3 * angle), 5 * math.sin(angle)]))
        R, t = look_at(eyes[-1], torch.zeros(3))
        cameras.append(PinholeCamera(90.0, 90.0, 24.0, 24.0, size=SIZE, R=R, t=t))

    def shader(fragments, mesh):
        points = interpolate(mesh.vertices, mesh.faces, fragments)
        toward = torch.nn.functional.normalize(torch.stack(eyes)[fragments.view] - points, dim=-1)
        return 0.3 * (0.8 * toward[:, :1]).exp() * torch.tensor([[1.0, 0.8, 0.6]])

    for k, picture in enumerate(render(sphere(4), stack_cameras(cameras), shader=shader)):
        alpha = picture[..., 3:]
        save_image(folder / f"{k}.png", torch.cat([picture[..., :3] / alpha.clamp(min=1e-6), alpha], -1).clamp(0, 1))
    names = tuple(f"{k}.png" for k in range(COUNT))
    paths = tuple(folder / name for name in names)
    return ImageSet(names, paths, tuple(cameras), tuple(k in (2, 7) for k in range(COUNT)))


def settings(**changes):
    given = {"steps": 80, "image_sizes": (48,), "mesh_cells": 8, "views_per_step": 3, **changes}
    return FitSettings(**given)


def finished(trainer):
    while not trainer.done:
        trainer.step()
    return trainer


def test_the_functions_are_orthogonal_on_the_sphere_and_as_large_as_coordinates():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(10**6, 3, generator=generator), dim=-1)
    found = harmonics(directions.double())
    assert found.shape == (10**6, HARMONICS)
    products = torch.nn.functional.pad(found, (1, 0), value=3**-0.5)
    products = products.T @ products / len(directions)
    # the mean of the square of a coordinate; of squares that are 3 at most here, 0.001 is what chance leaves
    torch.testing.assert_close(products, torch.eye(HARMONICS + 1).double() / 3, rtol=0, atol=0.005)
    torch.testing.assert_close(harmonics(3 * directions.double()), found)


def test_what_is_mirrored_lies_across_the_normal():
    directions = torch.nn.functional.normalize(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    normals = directions.roll(1, 0)
    found = mirrored(directions, normals)
    torch.testing.assert_close((found * normals).sum(-1), (directions * normals).sum(-1))
    torch.testing.assert_close(torch.linalg.cross(found + directions, normals), torch.zeros(100, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(mirrored(normals, normals), normals)


@pytest.mark.parametrize("appearance", ["vertex", "texture"])
def test_new_views_of_satin_are_better_with_sheen(appearance, satin):
    psnr = []
    for sheen in (0, 3):
        trainer = finished(Trainer(satin.train, settings(sheen=sheen, appearance=appearance, texture_size=64)))
        for mesh in (trainer.mesh(), trainer.matte()):
            rows = view_figures(mesh, trainer.optics(), trainer.start, satin)["held_out"]
            psnr.append(sum(row["psnr"] for row in rows) / len(rows))
    without, same, with_sheen, file = psnr
    assert same == without
    assert with_sheen > without + 3
    assert file > without - 1  # means of logarithms are not quite what fits best


@pytest.mark.parametrize("appearance", ["vertex", "texture"])
def test_a_fit_with_sheen_goes_on_with_the_same_bits_and_its_file_has_three_channels(appearance, satin, tmp_path):
    how = settings(steps=9, sheen=4, appearance=appearance, texture_size=64)
    trainer = Trainer(satin.train, how)
    for _ in range(7):
        trainer.step()
    resumed = finished(Trainer(satin.train, how, trainer.state()))
    finished(trainer)
    assert [r.loss for r in resumed.history] == [r.loss for r in trainer.history]
    ours, theirs = (
        x.vertex_colors if appearance == "vertex" else x.materials[0].texture for x in (resumed.mesh(), trainer.mesh())
    )
    assert ours.shape[-1] == 3 + 4
    assert torch.equal(ours, theirs)
    assert torch.equal(resumed.optics().lights, trainer.optics().lights)
    write_mesh(tmp_path / "mesh.glb", trainer.matte())
    loaded = load_mesh(tmp_path / "mesh.glb")
    assert (loaded.vertex_colors if appearance == "vertex" else loaded.materials[0].texture).shape[-1] == 3
