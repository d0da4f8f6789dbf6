"""Gradients of camera parameters do not depend on the number of threads."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera
from diffrender.cameras.spread import spread

COUNT = 100_000  # torch shares a sum among threads from 32768 elements on


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("make", [FisheyeCamera, OpenCVCamera])
def test_gradient_has_the_same_bits_for_any_number_of_threads(make: Callable[..., Camera]) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(COUNT, 3, generator=generator) + torch.tensor([0.0, 0.0, 5.0])
    pixels = torch.rand(COUNT, 2, generator=generator) * 100
    weights = torch.randn(COUNT, 3, generator=generator)

    def gradients(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        f = torch.tensor(80.0, requires_grad=True)
        k = torch.tensor([0.05, -0.01, 0.002, 0.0], requires_grad=True)
        camera = make(f, f, 50.0, 50.0, k, size=(100, 100))
        loss = (camera.project(points)[0] * weights[:, :2]).sum() + (camera.rays(pixels)[1] * weights).sum()
        return list(torch.autograd.grad(loss, [f, k]))

    one = gradients(1)
    for threads in (2, 3):
        assert all(torch.equal(a, b) for a, b in zip(one, gradients(threads), strict=True))


def test_spread_sums_over_points_for_each_camera_of_a_batch() -> None:
    scalars = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(3, 1, 4, dtype=torch.float64, requires_grad=True)
    scalar = spread(scalars, torch.Size((3, 2000)), 0)
    vector = spread(vectors, torch.Size((3, 2000)), 1)
    assert scalar.shape == (3, 2000)
    assert vector.shape == (3, 2000, 4)
    weights = torch.randn(3, 2000, 4, dtype=torch.float64)
    ((scalar.unsqueeze(-1) + vector) * weights).sum().backward()
    assert scalars.grad is not None
    assert vectors.grad is not None
    # 2000 terms of size 1 in float64
    torch.testing.assert_close(scalars.grad, weights.sum((1, 2)).unsqueeze(-1), atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(vectors.grad, weights.sum(1, keepdim=True), atol=1e-10, rtol=1e-12)
