"""The drop-in against torch's `grid_sample`: values and gradients, every mode, padding and alignment."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffrender.sampling import grid_sample

CASES = [
    *itertools.product(["nearest", "bilinear", "bicubic"], ["zeros", "border", "reflection"], [False, True], [2]),
    *itertools.product(["nearest", "bilinear"], ["zeros", "border", "reflection"], [False, True], [3]),
]


def case(dimensions: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, *[4, 5, 6][:dimensions], generator=generator, dtype=dtype)
    grid = 3 * torch.rand(2, *[5, 7, 4][:dimensions], dimensions, generator=generator, dtype=dtype) - 1.5
    return image.requires_grad_(), grid.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mode", "padding", "align", "dimensions"), CASES)
def test_values_and_gradients_are_torchs(
    mode: str, padding: str, align: bool, dimensions: int, dtype: torch.dtype
) -> None:
    image, grid = case(dimensions, dtype)
    ours, theirs = (f(image, grid, mode, padding, align_corners=align) for f in (grid_sample, F.grid_sample))
    # some ten roundings of numbers up to 10 pixels; slopes up to 4 per pixel, 3 pixels per unit of the grid, 3 channels
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=0, atol=100 * eps)
    upstream = torch.rand(ours.shape, generator=torch.Generator().manual_seed(4), dtype=dtype)
    for a, b in zip(
        torch.autograd.grad(ours, (image, grid), upstream),
        torch.autograd.grad(theirs, (image, grid), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=2000 * eps)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_identity_grids_touch_the_outer_centres_as_torch_does(padding: str) -> None:
    """With align_corners the first and last points lie on the kink of the border, where torch's gradient is zero."""
    image, _ = case(2, torch.float64)
    identity = torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3)
    grid = F.affine_grid(identity, [2, 3, 3, 5], align_corners=True).requires_grad_()  # -1, -0.5, ... are exact
    image = image[..., :3, :5].detach().requires_grad_()
    results = [f(image, grid, "bilinear", padding, align_corners=True) for f in (grid_sample, F.grid_sample)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-15)
    gradients = [torch.autograd.grad(r.square().sum(), grid)[0] for r in results]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_where_texels_meet_rounding_decides_as_torchs_does(
    mode: str, padding: str, align: bool, dtype: torch.dtype
) -> None:
    """Ties of nearest, and the centres of texels, where the slope of bilinear jumps: what identity warps consist of."""
    different = count = 0
    for size in (3, 5, 6, 7, 11, 37, 100, 641):
        position = torch.arange(-size, 2 * size, dtype=dtype) + (0.5 if mode == "nearest" else 0.0)
        x = 2 * position / (size - 1) - 1 if align else 2 * (position + 0.5) / size - 1
        grid = torch.stack([x, torch.zeros_like(x)], -1)[None, None].requires_grad_()
        image = torch.rand(1, 1, 1, size, dtype=dtype, generator=torch.Generator().manual_seed(size))
        ours, theirs = (f(image, grid, mode, padding, align_corners=align) for f in (grid_sample, F.grid_sample))
        if mode == "bilinear":
            ours, theirs = (torch.autograd.grad(values.sum(), grid)[0] for values in (ours, theirs))
        # rounding moves a point by eps of a third of the width, and a slope as little; other texels are far away
        different += int(((ours - theirs).abs() > 8 * torch.finfo(dtype).eps * size).sum())
        count += position.numel()
    # Of torch's kernels, those for images fuse a product and a sum and those for volumes do not: one in some thousands.
    assert different <= (0 if mode == "nearest" else 1e-3 * count)


@pytest.mark.parametrize(
    ("image", "grid"),
    [
        ((0, 3, 4, 5), (0, 6, 7, 2)),
        ((2, 0, 4, 5), (2, 6, 7, 2)),
        ((2, 3, 4, 5), (2, 0, 7, 2)),
        ((1, 0, 2, 4, 5), (1, 6, 7, 3, 3)),
    ],
)
def test_nothing_to_look_up_is_no_error_as_in_torch(image: tuple, grid: tuple) -> None:
    ours, theirs = (f(torch.zeros(image), torch.zeros(grid), align_corners=False) for f in (grid_sample, F.grid_sample))
    assert ours.shape == theirs.shape


def test_second_derivatives() -> None:
    image, grid = case(2, torch.float64)
    grid = (0.5 * grid.detach()[:, :2, :2]).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda i, g: grid_sample(i, g, padding_mode="border"), (image, grid))


@pytest.mark.parametrize(
    ("image", "grid", "options", "error", "message"),
    [
        ((1, 3, 4, 4), (1, 2, 8, 8), {}, ValueError, r"move the coordinates last, grid.movedim\(1, -1\)"),
        ((1, 3, 4, 4, 4), (1, 3, 8, 8, 8), {}, ValueError, r"move the coordinates last"),
        ((2, 3, 4, 4), (1, 8, 8, 2), {}, ValueError, "batch of input"),
        ((3, 4, 4), (8, 8, 2), {}, ValueError, r"input must be \(N, C, H, W\)"),
        ((1, 3, 0, 4), (1, 8, 8, 2), {}, ValueError, "at least one pixel"),
        ((1, 3, 4, 4, 4), (1, 8, 8, 8, 3), {"mode": "bicubic"}, ValueError, "for volumes"),
        ((1, 3, 4, 4), (1, 8, 8, 2), {"mode": "linear"}, ValueError, "mode must be one of"),
        ((1, 3, 4, 4), (1, 8, 8, 2), {"padding_mode": "wrap"}, ValueError, "padding_mode must be one of"),
    ],
)
def test_wrong_input_is_explained(image: tuple, grid: tuple, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        grid_sample(torch.zeros(image), torch.zeros(grid), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_halves_are_computed_with_in_single_precision(mode: str, dtype: torch.dtype) -> None:
    image, grid = (x.detach().to(dtype).requires_grad_() for x in case(2, torch.float32))
    values = grid_sample(image, grid, mode, "border")
    assert values.dtype == dtype
    wide = image.detach().float().requires_grad_(), grid.detach().float().requires_grad_()
    expected = grid_sample(*wide, mode, "border")
    assert torch.equal(values, expected.to(dtype))
    upstream = torch.ones_like(values)
    found = torch.autograd.grad(values, (image, grid), upstream)
    for a, b in zip(found, torch.autograd.grad(expected, wide, upstream.float()), strict=True):
        assert torch.equal(a, b.to(dtype))


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="input must be floating point"):
        grid_sample(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 1, 2))
