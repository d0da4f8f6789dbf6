"""`composite_rows` by kernels against plain torch, forward and backward."""

import pytest
import torch
from torch import Tensor

from diffrender.kernels import composite_rows
from diffrender.kernels.arrays import repeated
from diffrender.kernels.composite import MOST_CHANNELS, composite_reference

PIXELS = 200


def rows_of(channels: int, counts: tuple[int, int, int], one_color: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Colours, areas, shares, background and pixels: of so many centres, sides and rows that only move."""
    generator = torch.Generator().manual_seed(sum(counts))
    centers, sides, others = counts

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    pixel = torch.cat(
        [
            torch.randperm(PIXELS, generator=generator)[:centers],
            torch.randint(20, (sides,), generator=generator),  # many to a pixel
            torch.randint(PIXELS, (others,), generator=generator),
        ]
    )
    background = uniform(1 if one_color else PIXELS, channels + 1)
    return uniform(sum(counts), channels), uniform(sides) - 0.5, uniform(others), background, pixel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("one_color", [True, False])
@pytest.mark.parametrize("counts", [(150, 90, 40), (150, 0, 0), (0, 90, 0), (0, 0, 40), (0, 0, 0)])
@pytest.mark.parametrize("channels", [1, 3, MOST_CHANNELS + 1])
def test_kernels_are_the_reference(
    channels: int, counts: tuple[int, int, int], one_color: bool, dtype: torch.dtype
) -> None:
    colors, area, share, background, pixel = rows_of(channels, counts, one_color, dtype)
    upstream = torch.randn(PIXELS, channels + 1, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for function in (composite_rows, composite_reference):
        inputs = [x.clone().requires_grad_() for x in (colors, area)]
        image = function(*inputs, share, background, pixel, PIXELS)
        results.append((image, *torch.autograd.grad(image, inputs, upstream)))
    image, color_gradient, area_gradient = results[0]
    assert torch.equal(image, results[1][0])
    torch.testing.assert_close(color_gradient, results[1][1])
    torch.testing.assert_close(area_gradient, results[1][2])


def test_image_is_centres_and_jumps_times_areas() -> None:
    colors = torch.tensor([[0.5], [1.0], [0.0], [7.0]])
    area, share = torch.tensor([0.25, -0.5]), torch.tensor([3.0])
    pixel = torch.tensor([2, 2, 1, 0])  # a centre, two sides, one that only moves
    image = composite_rows(colors, area, share, torch.tensor([[0.2, 0.0]]), pixel, 3)
    expected = torch.tensor([[0.2, 0.0], [0.2 - 0.5 * (0.0 - 0.2), -0.5], [0.5 + 0.25 * 0.8, 1.25]])
    torch.testing.assert_close(image, expected)


def test_background_has_a_gradient() -> None:
    colors, area, share, background, pixel = rows_of(2, (9, 7, 5), False, torch.float64)
    leaf = background.requires_grad_()
    assert torch.autograd.gradcheck(lambda b: composite_rows(colors, area, share, b, pixel, PIXELS), leaf)


def test_first_and_second_derivatives() -> None:
    colors, area, share, background, pixel = rows_of(2, (6, 5, 0), True, torch.float64)
    inputs = [x.requires_grad_() for x in (colors, area)]

    def image(colors: Tensor, area: Tensor) -> Tensor:
        return composite_rows(colors, area, share, background, pixel, PIXELS)

    assert torch.autograd.gradcheck(image, inputs)
    assert torch.autograd.gradgradcheck(image, inputs)


def test_rows_that_only_move_have_a_derivative_and_no_value() -> None:
    colors, area, share, background, pixel = rows_of(3, (0, 0, 8), True, torch.float64)
    leaf = colors.requires_grad_()
    image = composite_rows(leaf, area, share, background, pixel, PIXELS)
    assert torch.equal(image, background.expand(PIXELS, -1))
    upstream = torch.randn(image.shape, generator=torch.Generator().manual_seed(2), dtype=image.dtype)
    (gradient,) = torch.autograd.grad(image, leaf, upstream)
    torch.testing.assert_close(gradient, share[:, None] * upstream[pixel, :3])


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 3000])
def test_a_row_is_repeated(count: int) -> None:
    row = torch.tensor([[0.5, 1.0, -2.0]], dtype=torch.float64)
    assert torch.equal(repeated(row, count), row.expand(count, 3))
