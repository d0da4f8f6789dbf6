"""`splat`, `warp` and the kernels below them, against the definition of an adjoint, the reference and differences."""

import itertools

import pytest
import torch
from torch import Tensor

from diffrender.kernels import Lookup, sample_images, sample_images_gradient, sample_images_reference
from diffrender.sampling import sample, sample_volume, splat, warp


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_splat_is_the_adjoint_of_sample(mode: str) -> None:
    values, xy, image = random(2, 30, 3), 9 * random(2, 30, 2, seed=1) - 1, random(2, 5, 7, 3, seed=2)
    for padding in ("zeros", "clamp", ("wrap", "reflect")):
        added = splat(values, xy, (5, 7), mode=mode, padding=padding)
        left, right = (added * image).sum(), (values * sample(image, xy, mode=mode, padding=padding)).sum()
        torch.testing.assert_close(left, right, rtol=1e-13, atol=0)  # two orders of the same sum


def test_splat_has_first_and_second_derivatives() -> None:
    values, xy = random(1, 4, 2).requires_grad_(), (1 + 3 * random(1, 4, 2, seed=1)).requires_grad_()

    def f(values: Tensor, xy: Tensor) -> Tensor:
        return splat(values, xy, (5, 6), mode="bicubic")

    assert torch.autograd.gradcheck(f, (values, xy))
    assert torch.autograd.gradgradcheck(f, (values, xy))


def test_warp_by_whole_pixels_shifts() -> None:
    image = random(2, 5, 7, 3)
    flow = torch.tensor([2.0, -1.0], dtype=torch.float64).expand(2, 5, 7, 2)
    torch.testing.assert_close(warp(image, flow)[:, 1:, :-2], image[:, :-1, 2:], rtol=0, atol=0)


@pytest.mark.parametrize(("dimensions", "channels"), [(2, 1), (2, 3), (2, 4), (2, 9), (3, 2), (3, 3)])
def test_kernels_agree_with_the_reference(dimensions: int, channels: int) -> None:
    sizes, seed = [4, 5, 7][-dimensions:], itertools.count()
    images = random(2, *sizes, channels, seed=next(seed))
    points = 12 * random(3, 40, dimensions, seed=next(seed)) - 3
    points[0, 0, 0], points[1, 1, 1] = torch.nan, 1e30
    image_of, upstream = torch.tensor([1, 0, 1], dtype=torch.int32), random(3, 40, channels, seed=9)
    for mode, border in [("nearest", "clamp"), ("bilinear", "zeros"), ("bicubic", "mirror")]:
        how = Lookup(mode, ("wrap", border, "reflect")[:dimensions], (0.8, 1.0, 1.1)[:dimensions], (0.1,) * dimensions)
        inputs = images.clone().requires_grad_(), points.clone().requires_grad_()
        expected = sample_images_reference(inputs[0], image_of, inputs[1], *how.settings)
        # sums of 64 products of order 1
        torch.testing.assert_close(sample_images(images, image_of, points, how), expected, rtol=0, atol=1e-13)
        found = sample_images_gradient(images, image_of, points, how, upstream, to_images=True, to_points=True)
        for a, b in zip(found, torch.autograd.grad(expected, inputs, upstream), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_volume_reproduces_products_of_coordinates() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) + 0.5 for n in (4, 5, 6)], indexing="ij")
    xyz = 1 + random(50, 3) * torch.tensor([4.0, 3.0, 2.0])
    values = sample_volume((x * y * z)[..., None], xyz)[:, 0]
    torch.testing.assert_close(values, xyz.prod(-1), rtol=1e-13, atol=0)  # trilinear interpolation has x y z exactly
    with pytest.raises(ValueError, match=r"xyz must end in 3 \(x, y, z\).*xyz.movedim\(0, -1\)"):
        sample_volume((x * y * z)[..., None], torch.zeros(3, 8).double())


def test_nothing_splatted_is_an_empty_image() -> None:
    for values in (torch.zeros(0, 3), torch.zeros(5, 0), torch.zeros(0, 5, 2), torch.zeros(2, 0, 1)):
        result = splat(values, torch.zeros(*values.shape[:-1], 2), (4, 6))
        assert torch.equal(result, torch.zeros(*values.shape[:-2], 4, 6, values.shape[-1]))


def test_wrong_input_is_explained() -> None:
    with pytest.raises(ValueError, match=r"values \(..., P, C\) and xy \(..., P, 2\) must fit"):
        splat(torch.zeros(4, 1), torch.zeros(5, 2), (2, 2))
    for size in ((0, 2), (-1, 2), (2.0, 2), 2):
        with pytest.raises(ValueError, match=r"size must be \(height, width\) of the image, two whole numbers above 0"):
            splat(torch.zeros(4, 1), torch.zeros(4, 2), size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neither mode 'bspline'"):
        splat(torch.zeros(4, 1), torch.zeros(4, 2), (2, 2), mode="bspline")
    with pytest.raises(ValueError, match=r"flow must be"):
        warp(torch.zeros(4, 4, 1), torch.zeros(3, 4, 4, 2))
