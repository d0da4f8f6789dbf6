"""Refinement on pixels: derivatives are those of the rendering, and it comes closer to the truth than corners."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from calibrate_scenes import BOARD, lens, photographed, seen, views
from torch import Tensor

from diffrender.calibrate import Calibration, calibrate, photometric, refine
from diffrender.calibrate.drawn_board import DrawnBoard
from diffrender.calibrate.photometric import comparison, refine_on, scaled
from diffrender.calibrate.pixels import average, choose_pixels
from diffrender.io.images import save_image


@pytest.fixture(scope="module")
def small() -> tuple[Calibration, Tensor]:
    """Six views of 320 x 240 pixels, calibrated from corners with noise of 0.1 pixels; and the photographs."""
    true = views(lens("opencv"), 6).resize((240, 320))
    corners, _ = seen(true, noise=0.1)
    return calibrate(replace(corners, size=(240, 320)), BOARD), photographed(true, blur=1.1, noise=0.005)


def test_pixels_come_closer_to_the_truth_than_corners(small: tuple[Calibration, Tensor]) -> None:
    by_corners, images = small
    true = views(lens("opencv"), 6).resize((240, 320))
    costs: list[float] = []
    by_pixels = refine_on(by_corners, images, on_step=costs.append)
    exact, _ = true.project(BOARD.points)

    def error(found: Calibration) -> float:
        return float((found.camera.project(BOARD.points)[0] - exact).square().sum(-1).mean().sqrt())

    assert error(by_pixels) < 0.4 * error(by_corners)
    assert error(by_pixels) < 0.02
    for name, deviation in by_pixels.deviations.items():
        assert (deviation < by_corners.deviations[name]).all()
        off = (by_pixels.parameters[name] - getattr(true, name)).abs() / deviation
        assert off.max() < 5, name  # standard deviations; of 9, neighbouring pixels not quite independent
    assert min(costs) < 0.5 * costs[0]
    # The blur is that of the photographs, whose pixels were averaged over squares as the rendering's are.
    assert (by_pixels.solution.parameters["blur"].exp() - 1.1).abs().max() < 0.05


def test_derivatives_are_those_of_the_rendering(small: tuple[Calibration, Tensor]) -> None:
    """A column of the Jacobian, J h, against the difference D of images rendered at both ends of a step h.

    Reverse mode gives J^T D, and D . (J h) = (J^T D) . h should be |D|^2.
    """
    calibration, images = small
    drawn = DrawnBoard(calibration, choose_pixels(calibration, images))
    start = drawn.start()
    # At 1.1 pixels. Narrower blurs let more of the pixels' own steps through: at 0.7 the derivative is 5 % short.
    start["blur"], start["tone"] = torch.full_like(start["blur"], math.log(1.1)), torch.full_like(start["tone"], 0.3)
    # Steps that move corners by some hundredths of a pixel: above single precision, below the blur.
    steps = {"fx": 0.1, "cy": 0.05, "dist": 1e-3, "rotation": 1e-4, "translation": 0.03}
    for name in ("fx", "cy", "dist", "rotation", "translation", "blur", "levels", "tone"):
        step = torch.zeros_like(start[name])
        step[(..., 0) if step.ndim else ()] = steps.get(name, 1e-3)
        with torch.no_grad():
            high, low = (drawn.appearance({**start, name: start[name] + side * step}) for side in (1, -1))
        difference = (high - low) / 2 * drawn.pixels.observed
        value = start[name].clone().requires_grad_()
        (pulled,) = torch.autograd.grad((difference * drawn.appearance({**start, name: value})).sum(), value)
        assert float((pulled * step).sum()) == pytest.approx(float(difference.square().sum()), rel=0.03), name


def test_scaled_calibration_sees_the_same_in_other_pixels(small: tuple[Calibration, Tensor]) -> None:
    calibration, images = small
    half = scaled(calibration, 0.5)
    xy, _ = calibration.camera.project(BOARD.points)
    assert torch.allclose(half.camera.project(BOARD.points)[0], xy / 2, rtol=0, atol=1e-10)
    assert half.corners.size == (120, 160)
    assert half.rms == pytest.approx(calibration.rms / 2)
    assert float(half.deviations["fx"]) == pytest.approx(float(calibration.deviations["fx"]) / 2)
    assert float(half.solution.covariance[0, 4]) == pytest.approx(float(calibration.solution.covariance[0, 4]) / 2)
    back = scaled(half, 2)
    assert torch.allclose(back.solution.covariance, calibration.solution.covariance)
    assert average(images, 2).shape == (6, 120, 160)
    assert torch.allclose(average(images, 2)[0, 0, 0], images[0, :2, :2].mean())


def test_large_photographs_are_averaged_and_their_camera_is_that_of_the_whole(
    small: tuple[Calibration, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an odd size, so that blocks of 2 x 2 leave a row and a column over."""
    calibration, images = small
    odd = replace(
        calibration,
        corners=replace(calibration.corners, size=(239, 319)),
        camera=calibration.camera.crop(0, 0, 239, 319),
    )
    paths = [tmp_path / f"{name}.png" for name in calibration.corners.names]
    for path, image in zip(paths, images, strict=True):
        save_image(path, image[:239, :319], bits=16)
    monkeypatch.setattr(photometric, "LONGEST_SIDE", 170)
    found = refine(odd, paths)
    assert found.camera.size == found.corners.size == (239, 319)
    # Half the resolution, with the blur of half a pixel that the squares of the mean make it: still below the corners.
    assert found.rms == pytest.approx(calibration.rms, rel=0.1)
    assert comparison(found, paths, 2).shape[0] < 2 * 120 + 40


def test_bad_photographs_are_named(small: tuple[Calibration, Tensor]) -> None:
    calibration, images = small
    with pytest.raises(ValueError, match="one for each of 6 views; got 1"):
        refine(calibration, [Path("a.png")])
    with pytest.raises(ValueError, match=r"6 views and of size \(240, 320\); got \(6, 240, 319\)"):
        refine_on(calibration, images[..., 1:])
