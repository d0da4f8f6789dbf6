"""The curve of quality over time: of the held-out views, at tenths of the fit, and whole after an interruption."""

import json

import pytest

from diffrender.fit import FitSettings, fit
from diffrender.fit.curve import INTERVALS, LONGEST
from diffrender.fit.trainer import Trainer
from diffrender.io.datasets import load_dataset

SETTINGS = FitSettings(
    steps=15, image_sizes=(32,), mesh_cells=16, views_per_step=2, checkpoint_every=100, turntable_frames=0
)


def test_the_curve_begins_at_the_start_ends_at_the_end_and_rises(small_set, tmp_path):
    result = fit(load_dataset(small_set), tmp_path, SETTINGS, progress=False)
    curve = json.loads((tmp_path / "metrics.json").read_text())["curve"]
    assert [point["step"] for point in curve] == [15 * k // INTERVALS for k in range(INTERVALS + 1)]
    seconds = [point["seconds"] for point in curve]
    assert seconds == sorted(seconds)
    assert curve[-1]["psnr"] > curve[0]["psnr"] + 3  # from grey to colours
    mean = result.metrics["mean"]["held_out"]
    assert max(load_dataset(small_set).sizes[0]) <= LONGEST  # then the last point is the final figure
    assert (curve[-1]["iou"], curve[-1]["psnr"]) == pytest.approx((mean["iou"], mean["psnr"]))


def test_a_resumed_fit_has_the_whole_curve(small_set, tmp_path, monkeypatch):
    images = load_dataset(small_set)
    whole = fit(images, tmp_path / "whole", SETTINGS, progress=False).metrics["curve"]
    step = Trainer.step

    def interrupted(self):
        if len(self.history) == 7:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(images, tmp_path / "out", SETTINGS, progress=False)
    resumed = fit(images, tmp_path / "out", SETTINGS, resume=True, progress=False).metrics["curve"]
    assert [{**point, "seconds": 0} for point in resumed] == [{**point, "seconds": 0} for point in whole]


def test_without_held_out_views_there_is_no_curve(small_set, tmp_path):
    settings = FitSettings(steps=1, image_sizes=(16,), mesh_cells=8, turntable_frames=0)
    assert fit(load_dataset(small_set).train, tmp_path, settings, progress=False).metrics["curve"] == []
