"""The instrument that judges gradients passes right ones, catches wrong ones, and knows when it cannot tell."""

import math

import pytest
import torch
from torch import Tensor

from diffrender.cameras import PinholeCamera
from diffrender.mesh import Mesh
from diffrender.primitives import sphere
from diffrender.testing import NotConvergedError, calm_pixels, check_gradients, converged_image, lattice

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
