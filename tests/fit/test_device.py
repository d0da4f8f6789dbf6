"""A fit on another device: refused where there is none, with nothing left on the CPU where there is one."""

from dataclasses import replace

import pytest
import torch
from test_devices import Homeless

from diffrender.cli import main
from diffrender.fit import FitSettings, fit
from diffrender.fit.checkpoint import load_checkpoint
from diffrender.fit.folder import CHECKPOINT
from diffrender.fit.report import shown_views, turntable, view_figures
from diffrender.fit.trainer import Trainer
from diffrender.io.datasets import load_dataset

SETTINGS = FitSettings(
    steps=8,
    image_sizes=(16, 32),
    mesh_cells=16,
    edges="driven",
    appearance="texture",
    texture_size=64,
    sheen=2,
    fit_exposure=True,
    fit_cameras=True,
    turntable_frames=2,
)


def test_steps_and_figures_make_nothing_on_a_device_of_its_own(small_set):
    images = load_dataset(small_set)
    trainer = Trainer(images.train, SETTINGS)  # the start is made on the CPU, and moved
    meant = ("/io/", "torch.randperm")  # images are decoded on the CPU, and the same random order is drawn there
    with Homeless() as homeless:
        while not trainer.done:
            trainer.step()
        mesh, optics = trainer.mesh(), trainer.optics()
        trainer.matte()
        view_figures(mesh, optics, trainer.start, images)
        list(shown_views(mesh, optics, images, 2))
        list(turntable(mesh, images, 2))
    assert [line for line in sorted(homeless.found) if not any(x in line for x in meant)] == []
    assert homeless.asked > 100


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:77"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(device, small_set, tmp_path, capsys):
    assert main(["fit", str(small_set), "-o", str(tmp_path / "out"), "--device", device]) == 2
    said = capsys.readouterr().err
    assert "device" in said
    assert "cpu" in said
    assert device in said
    assert not (tmp_path / "out").exists()


@pytest.mark.cuda
def test_a_fit_on_cuda_comes_as_close_as_one_on_the_cpu_and_goes_on_there(small_set, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, settings = load_dataset(small_set), replace(SETTINGS, steps=60)
    results = {device: fit(images, tmp_path / device, settings, device=device) for device in ("cpu", "cuda")}
    here, there = (results[device].metrics["mean"]["held_out"] for device in ("cpu", "cuda"))
    assert abs(here["iou"] - there["iou"]) < 0.01
    assert abs(here["psnr"] - there["psnr"]) < 1.0
    state = load_checkpoint(tmp_path / "cuda" / CHECKPOINT, images.train, settings)
    assert len(Trainer(images.train, settings, state).history) == 60
