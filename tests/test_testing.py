"""The instrument that judges gradients passes right ones, catches wrong ones, and knows when it cannot tell."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffrender.cameras import PinholeCamera
from diffrender.fragments import Fragments
from diffrender.mesh import Mesh
from diffrender.primitives import sphere
from diffrender.shading import depth_shader
from diffrender.testing import (
    GradientReport,
    NotConvergedError,
    calm_pixels,
    check_gradients,
    converged_image,
    lattice,
    smooth_weights,
)

SHIFT = {"shift": torch.tensor([0.1, 0.2, 3.0])}


def ball(parameters: dict[str, Tensor]) -> tuple[Mesh, PinholeCamera]:
    shift = parameters["shift"]
    mesh = sphere(2, dtype=shift.dtype)
    camera = PinholeCamera(20.0, 20.0, 8.0, 8.0, size=(16, 16)).to(dtype=shift.dtype)
    return mesh.replace(vertices=mesh.vertices + shift), camera


def test_right_gradient_passes() -> None:
    report = check_gradients(ball, SHIFT, step=4e-2, reference_samples=64)
    report.check(limit=0.2)
    assert report.names == ("shift[0]", "shift[1]", "shift[2]")
    assert report.image_error < 0.02  # a grid of 64 x 64 points per pixel misses at most a row of an edge


def test_wrong_gradient_is_caught() -> None:
    def stuck_in_depth(parameters: dict[str, Tensor]) -> tuple[Mesh, PinholeCamera]:
        shift = parameters["shift"]
        return ball({"shift": torch.cat([shift[:2], shift[2:].detach()])})

    report = check_gradients(stuck_in_depth, SHIFT, step=4e-2, reference_samples=64)
    with pytest.raises(AssertionError, match=r"off by \d+"):
        report.check(limit=0.2)


def test_coarse_reference_is_not_believed() -> None:
    report = check_gradients(ball, SHIFT, step=1e-4, reference_samples=4)
    with pytest.raises(NotConvergedError, match="more samples"):
        report.check(limit=0.01)


def test_steps_can_differ_by_name() -> None:
    def scene(parameters: dict[str, Tensor]) -> tuple[Mesh, PinholeCamera]:
        mesh, camera = ball(parameters)
        return mesh, camera.replace(fx=parameters["f"], fy=parameters["f"])

    steps = {"shift": 4e-2, "f": 0.4}
    report = check_gradients(scene, SHIFT | {"f": torch.tensor(20.0)}, step=steps, reference_samples=64)
    assert report.names[-1] == "f"
    report.check(limit=0.2)


def test_the_unit_of_what_is_seen_makes_no_difference() -> None:
    def report(unit: float) -> GradientReport:
        def shader(fragments: Fragments, mesh: Mesh) -> Tensor:
            return unit * depth_shader(fragments, mesh)

        weights = smooth_weights(16, 16, 2) * torch.tensor([1.0, 0.0])  # not of alpha
        return check_gradients(ball, SHIFT, weights=weights, shader=shader, step=1e-3, reference_samples=8)

    assert report(1e3).uncertainty == pytest.approx(report(1.0).uncertainty, rel=1e-3)


def test_the_background_may_be_an_image() -> None:
    image = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    report = check_gradients(ball, SHIFT, background=image, step=4e-2, reference_samples=64)
    assert report.error < 0.05
    assert report.image_error < 0.02


def test_nothing_in_the_image_is_nothing_to_judge() -> None:
    report = check_gradients(ball, {"shift": torch.tensor([100.0, 0.0, 3.0])}, reference_samples=4)
    with pytest.raises(NotConvergedError, match="anything of the scene in the image"):
        report.check(limit=0.2)


def test_a_scene_that_does_not_use_its_parameters_is_an_error() -> None:
    still = ball({"shift": torch.tensor([0.1, 0.2, 3.0])})
    with pytest.raises(ValueError, match=r"scene must depend on its parameters; .* any of \['shift'\]"):
        check_gradients(lambda _: still, SHIFT)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"parameters": {}}, ValueError, "at least one tensor"),
        ({"parameters": {"shift": torch.tensor([0, 0, 3])}}, TypeError, r"parameters\['shift'\] must be floating"),
        ({"step": {"turn": 0.1}}, ValueError, r"one for each of \['shift'\]; got"),
        ({"step": 0}, ValueError, "step must be a length above 0"),
        ({"samples": 0}, ValueError, "at least 1, reference_samples 2; got 0 and"),
        ({"reference_samples": 1}, ValueError, "at least 1, reference_samples 2; got 1 and 1"),
        ({"weights": torch.ones(16, 16)}, ValueError, r"weights must be \(16, 16, 4\).*got \(16, 16\)"),
        ({"scene": lambda p: ([ball(p)[0]], ball(p)[1])}, ValueError, "one mesh and one camera; got a list"),
        ({"scene": lambda p: ball(p)[::-1]}, TypeError, "camera must be a Camera"),
        ({"background": torch.ones(2)}, ValueError, "background must be a number"),
    ],
)
def test_bad_questions_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"scene": ball, "parameters": SHIFT, "reference_samples": 2, **change}
    with pytest.raises(error, match=message):
        check_gradients(**arguments)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        converged_image(ball, SHIFT, 0)


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"shift": SHIFT["shift"].double()}
    whole = converged_image(ball, parameters, 8)
    monkeypatch.setattr("diffrender.testing.gradients.BATCH", 50 * 8 * 8)  # of the 256 pixels
    torch.testing.assert_close(converged_image(ball, parameters, 8), whole, atol=1e-12, rtol=0)  # rounding of sums


def test_calm_pixels_leave_out_every_outline_and_change_nothing() -> None:
    parameters = {"shift": SHIFT["shift"].double()}
    calm = calm_pixels(ball, parameters)
    every = converged_image(ball, parameters, 40)
    partial = (every[..., -1] > 0) & (every[..., -1] < 1)
    assert partial.any()
    assert not (calm & partial).any()
    assert calm.any()
    fewer = converged_image(ball, parameters, 40, calm=calm)
    torch.testing.assert_close(fewer, every, atol=1e-3, rtol=0)  # a smooth pixel's mean of 64 points: range 1 / 64 / 10
    assert torch.equal(fewer[~calm], every[~calm])


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, math.pi / 2])
def test_lattice_measures_half_planes(angle: float) -> None:
    """The area beyond a line of any direction, to far better than 1 / sqrt(count), the error of random points."""
    count = 4096
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    along = (lattice(count) - 0.5) @ direction
    for offset in torch.linspace(-0.3, 0.3, 7).tolist():
        found = (along > offset).double().mean() + (along > -offset).double().mean()
        assert abs(float(found) - 1) < 2 / count**0.75  # the square is symmetric: two opposite areas make one
