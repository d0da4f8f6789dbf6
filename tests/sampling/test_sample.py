"""`sample` against closed forms, a brute-force loop over texels, and torch's grid_sample where the two agree."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from torch import Tensor

from diffrender.sampling import sample, sample_nearest, sample_texture, sample_volume, to_nchw, to_nhwc

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "clamp", "reflect", "mirror", "wrap")
TORCH_PADDINGS = {"zeros": "zeros", "clamp": "border", "reflect": "reflection"}
HEIGHT, WIDTH = 5, 7  # not square, both odd: a mix-up of axes or a half-pixel shift shows


def random_image(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def points_off_kinks(count: int, seed: int = 1) -> Tensor:
    """Points around and outside an image of HEIGHT x WIDTH, at least 0.05 from every pixel border and centre line."""
    generator = torch.Generator().manual_seed(seed)
    halves = torch.stack([torch.randint(-2 * n, 4 * n, (count,), generator=generator) for n in (WIDTH, HEIGHT)], -1)
    return 0.5 * (halves + 0.1 + 0.8 * torch.rand(count, 2, dtype=torch.float64, generator=generator))


def grid_sample(image: Tensor, xy: Tensor, mode: str, padding: str) -> Tensor:
    """torch's operator on [H, W, C] and [N, 2] in our pixels."""
    size = torch.tensor([image.shape[1], image.shape[0]], dtype=xy.dtype)
    grid = (2 * xy / size - 1)[None, None]
    out = F.grid_sample(
        to_nchw(image)[None], grid, mode=mode, padding_mode=TORCH_PADDINGS[padding], align_corners=False
    )
    return out[0, :, 0].t()


def texel(image: Tensor, row: int, column: int, padding: str) -> Tensor:
    """The infinite image that a padding stands for, texel by texel."""
    result = image
    for size, index in ((image.shape[0], row), (image.shape[1], column)):
        if padding == "zeros" and not 0 <= index < size:
            return torch.zeros_like(image[0, 0])
        if padding == "clamp":
            index = min(max(index, 0), size - 1)
        if padding == "wrap":
            index = index % size
        if padding == "mirror":
            while not 0 <= index < size:
                index = 0 if size == 1 else -index if index < 0 else 2 * size - 2 - index
        if padding == "reflect":
            while not 0 <= index < size:  # fold at one border after the other
                index = -1 - index if index < 0 else 2 * size - 1 - index
        result = result[index]
    return result


def cubic(t: float, a: float = -0.5) -> float:
    """Keys' kernel (1981), written piecewise over the distance."""
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def lanczos(t: float) -> float:
    def sinc(t: float) -> float:
        return 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)

    return sinc(t) * sinc(t / 3) if abs(t) < 3 else 0.0


def hat(t: float) -> float:
    return max(0.0, 1 - abs(t))


def brute_force(image: Tensor, x: float, y: float, mode: str, padding: str) -> Tensor:
    """Sum over all texels near the point of kernel(distance) times value."""
    if mode == "nearest":
        return texel(image, math.floor(y), math.floor(x), padding)
    kernel = {"bicubic": cubic, "bicubic-torch": lambda t: cubic(t, -0.75), "lanczos": lanczos}.get(mode, hat)
    norm = math.fsum(kernel(x - c - 0.5) for c in range(math.floor(x) - 4, math.floor(x) + 5))
    norm *= math.fsum(kernel(y - r - 0.5) for r in range(math.floor(y) - 4, math.floor(y) + 5))
    total = torch.zeros_like(image[0, 0])
    for row in range(math.floor(y) - 4, math.floor(y) + 5):
        for column in range(math.floor(x) - 4, math.floor(x) + 5):
            weight = kernel(x - column - 0.5) * kernel(y - row - 0.5)
            total = total + weight / norm * texel(image, row, column, padding)
    return total


# --- values ---


@pytest.mark.parametrize("mode", MODES)
def test_pixel_centre_has_the_value_of_the_pixel(mode: str) -> None:
    image = random_image(HEIGHT, WIDTH, 3)
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    assert torch.equal(sample(image, torch.stack([x, y], -1), mode=mode), image)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", [*MODES, "bicubic-torch", "lanczos"])
def test_values_match_a_loop_over_texels(mode: str, padding: str) -> None:
    image, xy = random_image(HEIGHT, WIDTH, 2), points_off_kinks(60)
    expected = torch.stack([brute_force(image, x, y, mode, padding) for x, y in xy.tolist()])
    # 16 products of numbers around 1: a few float64 roundings
    torch.testing.assert_close(sample(image, xy, mode=mode, padding=padding), expected, rtol=0, atol=1e-13)


def test_nearest_gives_a_pixel_its_left_and_upper_border() -> None:
    image = torch.arange(6.0).view(2, 3, 1)
    xy = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.999, 1.0], [2.999, 1.999], [3.0, 1.0], [-1e-6, 0.5]])
    assert sample(image, xy, mode="nearest").flatten().tolist() == [0, 1, 3, 5, 0, 0]
    assert sample(image, xy, mode="nearest", padding="wrap").flatten().tolist() == [0, 1, 3, 5, 3, 2]


def test_bicubic_reproduces_quadratics_inside() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return 1 + 2 * x - 3 * y + 0.5 * x * x - 0.25 * y * y + x * y

    y, x = torch.meshgrid(*[torch.arange(12, dtype=torch.float64) + 0.5] * 2, indexing="ij")
    xy = 2 + 8 * random_image(200, 2)
    # |f| < 100 in float64
    torch.testing.assert_close(
        sample(f(x, y)[..., None], xy, mode="bicubic")[:, 0], f(*xy.unbind(-1)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("padding", PADDINGS)
def test_one_pixel_image_is_constant_unless_zeros(padding: str) -> None:
    image, xy = random_image(1, 1, 3), 20 * random_image(50, 2) - 10
    for mode in ("nearest", "bilinear", "bicubic"):
        values = sample(image, xy, mode=mode, padding=padding)
        if padding == "zeros":
            assert (values.abs() <= image.abs().amax() + 1e-12).all()
            assert (values[(xy - 0.5).abs().amax(-1) > 2] == 0).all()
        else:  # the weights sum to 1 up to a few roundings
            torch.testing.assert_close(values, image[0].expand(50, 3), rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    points=st.lists(st.integers(0, 3), max_size=3),
    batch=st.lists(st.integers(1, 2), max_size=2),
    mode=st.sampled_from(MODES),
    padding=st.sampled_from(PADDINGS),
    channels=st.integers(1, 4),
)
def test_batches_and_shapes_are_those_of_single_samples(
    size: tuple[int, int], points: list[int], batch: list[int], mode: str, padding: str, channels: int
) -> None:
    image = random_image(*batch, *size, channels)
    xy = 10 * random_image(*batch, *points, 2, seed=2) - 2 if batch else 10 * random_image(*points, 2) - 2
    values = sample(image, xy, mode=mode, padding=padding)
    assert values.shape == (*batch, *points, channels)
    for where in itertools.product(*map(range, batch)):
        # the same operations in the same order, so the same bits
        assert torch.equal(values[where], sample(image[where], xy[where], mode=mode, padding=padding))


def test_batches_broadcast_both_ways() -> None:
    images, xy = random_image(3, 1, HEIGHT, WIDTH, 2), 5 * random_image(1, 4, 6, 2)
    values = sample(images, xy)
    assert values.shape == (3, 4, 6, 2)
    assert torch.equal(values[2, 1], sample(images[2, 0], xy[0, 1]))


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6), size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.sampled_from(PADDINGS),
)  # fmt: skip
def test_borders_stay_exact_far_away_in_float32(x: float, y: float, size: tuple[int, int], padding: str) -> None:
    image = random_image(*size, 1, dtype=torch.float32)
    xy = torch.tensor([x, y], dtype=torch.float32)
    height, width = size
    folded = [_fold(math.floor(value), n, padding) for value, n in zip(xy.tolist(), (width, height), strict=True)]
    expected = 0.0 if None in folded else image[folded[1], folded[0]].item()
    assert sample(image, xy, mode="nearest", padding=padding).item() == expected


def _fold(index: int, size: int, padding: str) -> int | None:
    if padding == "zeros":
        return index if 0 <= index < size else None
    if padding == "clamp":
        return min(max(index, 0), size - 1)
    if padding == "wrap":
        return index % size
    if padding == "mirror":
        return min(index % max(2 * size - 2, 1), -index % max(2 * size - 2, 1))
    return min(index % (2 * size), 2 * size - 1 - index % (2 * size))


def test_spline_passes_through_the_pixels_and_is_smooth() -> None:
    image = random_image(9, 8, 2)
    y, x = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    for padding in ("clamp", "reflect", "mirror", "wrap"):
        values = sample(image, torch.stack([x, y], -1), mode="bspline", padding=padding)
        torch.testing.assert_close(values, image, rtol=0, atol=1e-13)  # the inverse filter is cut off at eps
    # a cubic on a ring of texels, as an independent interpolating spline has it
    line = image[:1].expand(3, 8, 2)
    spline = CubicSpline(np.arange(9) + 0.5, torch.cat([line[0], line[0, :1]]).numpy(), bc_type="periodic")
    at = 8 * random_image(50, 1)[:, 0]
    expected = torch.from_numpy(spline(0.5 + (at.numpy() - 0.5) % 8))
    values = sample(line, torch.stack([at, torch.full_like(at, 1.3)], -1), mode="bspline", padding="wrap")
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-13)


def test_axes_have_borders_of_their_own_and_constants_a_value() -> None:
    image, xy = random_image(HEIGHT, WIDTH, 2), points_off_kinks(60)
    wide = torch.cat([image] * 9, 1)  # 4 repeats on either side
    expected = sample(wide, xy + torch.tensor([4.0 * WIDTH, 0.0]), padding="clamp", mode="bicubic")
    values = sample(image, xy, padding=("wrap", "clamp"), mode="bicubic")
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-13)
    framed = torch.full((HEIGHT + 40, WIDTH + 40, 2), 0.25, dtype=torch.float64)
    framed[20:-20, 20:-20] = image
    values = sample(image, xy, padding="constant", constant=0.25)
    torch.testing.assert_close(values, sample(framed, xy + 20), rtol=0, atol=1e-13)


@pytest.mark.parametrize("surrogate", ["bilinear", "straight-through"])
def test_surrogate_of_nearest_has_its_values_and_the_gradients_it_names(surrogate: str) -> None:
    image, xy = random_image(HEIGHT, WIDTH, 2).requires_grad_(), points_off_kinks(40).requires_grad_()
    values = sample_nearest(image, xy, surrogate=surrogate)
    # value + (b - b): exact
    assert torch.equal(values, sample(image, xy, mode="nearest"))
    found = torch.autograd.grad(values.sum(), (image, xy))
    smooth = torch.autograd.grad(sample(image, xy).sum(), (image, xy))
    true = torch.autograd.grad(sample(image, xy, mode="nearest").sum(), image)[0]
    assert torch.equal(found[1], smooth[1])
    assert torch.equal(found[0], smooth[0] if surrogate == "straight-through" else true)
    with pytest.raises(ValueError, match="surrogate must be"):
        sample_nearest(image, xy, surrogate="bicubic")


# --- torch ---


@pytest.mark.parametrize("padding", TORCH_PADDINGS)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_grid_sample(mode: str, padding: str, dtype: torch.dtype) -> None:
    image = random_image(HEIGHT, WIDTH, 3, dtype=dtype).requires_grad_()
    xy = points_off_kinks(400).to(dtype).requires_grad_()
    upstream = random_image(400, 3, dtype=dtype, seed=3)
    ours = sample(image, xy, mode=mode, padding=padding)
    theirs = grid_sample(image, xy, mode, padding)
    # torch goes through normalized coordinates: |xy| < 14 pixels costs it some 14 eps; a texel gathers up to 100 points
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=0, atol=50 * eps)
    for a, b in zip(
        torch.autograd.grad(ours, (image, xy), upstream),
        torch.autograd.grad(theirs, (image, xy), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=500 * eps)


def test_gradient_to_a_texture_is_that_of_grid_sample_on_a_flipped_v() -> None:
    texture = random_image(HEIGHT, WIDTH, 3).requires_grad_()
    uv = (0.1 + 0.8 * random_image(300, 2)).requires_grad_()
    xy = torch.stack([uv[:, 0] * WIDTH, (1 - uv[:, 1]) * HEIGHT], -1)
    ours, theirs = sample_texture(texture, uv, padding="clamp"), grid_sample(texture, xy, "bilinear", "clamp")
    upstream = random_image(300, 3, seed=4)
    for a, b in zip(
        torch.autograd.grad(ours, (texture, uv), upstream),
        torch.autograd.grad(theirs, (texture, uv), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # sums of some 30 numbers of order 10 in float64


# --- gradients ---


@pytest.mark.parametrize(
    ("mode", "padding"),
    [*itertools.product(["bilinear", "bicubic", "bicubic-torch", "bspline", "lanczos"], [*PADDINGS, "constant"])],
)
def test_first_and_second_derivatives_match_differences(mode: str, padding: str) -> None:
    image = random_image(HEIGHT, WIDTH, 2).requires_grad_()
    xy = points_off_kinks(4).requires_grad_()

    def f(image: Tensor, xy: Tensor) -> Tensor:
        return sample(image, xy, mode=mode, padding=padding, constant=0.3)

    assert torch.autograd.gradcheck(f, (image, xy))
    assert torch.autograd.gradgradcheck(f, (image, xy))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "bspline", "lanczos"])
@pytest.mark.parametrize("padding", [("zeros", "clamp", "reflect"), ("mirror", "wrap", "constant")])
def test_first_and_second_derivatives_of_volumes_match_differences(mode: str, padding: tuple[str, ...]) -> None:
    volume, xyz = random_image(2, 3, 4, 1).requires_grad_(), torch.tensor([[1.2, -0.3, 0.8]]).double().requires_grad_()

    def f(volume: Tensor, xyz: Tensor) -> Tensor:
        return sample_volume(volume, xyz, mode=mode, padding=padding, constant=0.3)

    assert torch.autograd.gradcheck(f, (volume, xyz))
    assert torch.autograd.gradgradcheck(f, (volume, xyz))


def test_gradients_reach_a_broadcast_batch() -> None:
    images = random_image(2, 1, 4, 3, 2).requires_grad_()
    xy = (0.6 + 2.2 * random_image(1, 3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(sample, (images, xy))


def test_nearest_has_a_zero_gradient_to_coordinates_and_counts_hits_in_the_image() -> None:
    image = random_image(HEIGHT, WIDTH, 1).requires_grad_()
    xy = points_off_kinks(200).requires_grad_()
    sample(image, xy, mode="nearest").sum().backward()
    counts = torch.zeros(HEIGHT, WIDTH)
    for x, y in xy.tolist():
        if 0 <= x < WIDTH and 0 <= y < HEIGHT:
            counts[math.floor(y), math.floor(x)] += 1
    assert image.grad is not None
    assert xy.grad is not None
    assert torch.equal(image.grad[..., 0], counts.double())
    assert torch.equal(xy.grad, torch.zeros_like(xy))


def test_backward_has_the_same_bits_for_any_number_of_threads() -> None:
    texture, uv = random_image(32, 32, 3, dtype=torch.float32), random_image(40_000, 2, dtype=torch.float32)
    upstream = random_image(40_000, 3, dtype=torch.float32, seed=5)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            inputs = (texture.clone().requires_grad_(), uv.clone().requires_grad_())
            results.append(torch.autograd.grad(sample_texture(*inputs), inputs, upstream))
    finally:
        torch.set_num_threads(before)
    for image_grad, uv_grad in results[1:]:
        assert torch.equal(image_grad, results[0][0])
        assert torch.equal(uv_grad, results[0][1])


def test_image_without_grad_still_gives_coordinates_theirs_and_the_other_way_round() -> None:
    image, xy = random_image(HEIGHT, WIDTH, 2), points_off_kinks(20)
    both = image.clone().requires_grad_(), xy.clone().requires_grad_()
    expected = torch.autograd.grad(sample(*both).sum(), both)
    only_xy = xy.clone().requires_grad_()
    only_image = image.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(sample(image, only_xy).sum(), only_xy)[0], expected[1])
    assert torch.equal(torch.autograd.grad(sample(only_image, xy).sum(), only_image)[0], expected[0])


# --- degenerate input ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", [*MODES, "bicubic-torch", "bspline", "lanczos"])
def test_unusable_coordinates_give_the_border_and_no_gradient(mode: str, padding: str, dtype: torch.dtype) -> None:
    image = random_image(HEIGHT, WIDTH, 2, dtype=dtype).requires_grad_()
    nan, inf = math.nan, math.inf
    xy = torch.tensor([[nan, nan], [nan, 2.5], [1e30, 1.5], [3.5, -1e30], [inf, -inf], [-inf, nan]], dtype=dtype)
    xy.requires_grad_()
    values = sample(image, xy, mode=mode, padding=padding)
    corners = [(0, 0), (2, 0), (1, -1), (0, 3), (0, -1), (0, 0)]
    expected = torch.stack([image[i, j] for i, j in corners]) * (padding != "zeros")
    # the spline's filter and the sine at whole numbers are rounded
    rounding = 0 if mode in MODES else 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(values, expected, rtol=0, atol=rounding)
    image_grad, xy_grad = torch.autograd.grad(values.sum(), (image, xy))
    assert torch.equal(xy_grad, torch.zeros_like(xy))
    assert image_grad.isfinite().all()
    assert abs(image_grad.sum() - (0 if padding == "zeros" else values.numel())) <= rounding


def test_infinite_pixels_do_not_reach_points_outside() -> None:
    depth = torch.full((HEIGHT, WIDTH, 1), math.inf)  # the depth of an image in which nothing is hit
    xy = torch.tensor([[-5.0, 2.0], [3.0, 50.0], [math.nan, 1.0]], requires_grad=True)
    values = sample(depth, xy)
    assert torch.equal(values, torch.zeros(3, 1))
    assert torch.equal(torch.autograd.grad(values.sum(), xy)[0], torch.zeros(3, 2))


@pytest.mark.parametrize("mode", MODES)
def test_no_points_give_no_values_and_zero_gradients(mode: str) -> None:
    image, xy = random_image(HEIGHT, WIDTH, 3).requires_grad_(), torch.zeros(4, 0, 2).double().requires_grad_()
    values = sample(image, xy, mode=mode)
    assert values.shape == (4, 0, 3)
    values.sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad, torch.zeros_like(image))


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 4, 5, 0), (0, 4, 5, 0)])
def test_no_images_and_no_channels_give_no_values_and_zero_gradients(shape: tuple[int, ...]) -> None:
    image, xy = torch.zeros(shape, requires_grad=True), torch.rand(shape[0], 7, 2, requires_grad=True)
    values = sample(image, xy)
    assert values.shape == (shape[0], 7, shape[-1])
    gradients = torch.autograd.grad(values.sum(), (image, xy))
    assert [g.shape for g in gradients] == [image.shape, xy.shape]
    assert not gradients[1].any()


def test_splines_are_as_precise_where_autocast_is_on() -> None:
    image, xy = random_image(HEIGHT, WIDTH, 3, dtype=torch.float32), points_off_kinks(20).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = sample(image, xy, mode="bspline", padding="clamp")
    assert torch.equal(values, sample(image, xy, mode="bspline", padding="clamp"))


def test_result_has_the_wider_dtype() -> None:
    image, xy = torch.rand(3, 3, 1), torch.rand(5, 2)
    assert sample(image, xy).dtype == torch.float32
    assert sample(image, xy.double()).dtype == torch.float64
    assert sample(image.double(), xy).dtype == torch.float64
    assert sample(image.half(), xy).dtype == torch.float32


@pytest.mark.parametrize("mode", [*MODES, "bicubic-torch", "bspline", "lanczos"])
def test_halves_are_computed_with_in_single_precision(mode: str) -> None:
    image = random_image(HEIGHT, WIDTH, 3).half().requires_grad_()
    xy = points_off_kinks(40).half().requires_grad_()
    wide = image.detach().float().requires_grad_(), xy.detach().float().requires_grad_()
    values, expected = sample(image, xy, mode=mode), sample(*wide, mode=mode)
    assert torch.equal(values, expected.half())
    gradients = torch.autograd.grad(values.sum(), (image, xy))
    for a, b in zip(gradients, torch.autograd.grad(expected.sum(), wide), strict=True):
        assert torch.equal(a, b.half())


def test_function_transforms_are_refused_and_batches_need_none() -> None:
    image, xy = random_image(3, HEIGHT, WIDTH, 2), points_off_kinks(20)
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.vmap(sample, (0, None))(image, xy)
    assert sample(image, xy[None]).shape == (3, 20, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's own, of its compiler
def test_compiled_functions_have_the_same_values_and_gradients() -> None:
    def f(image: Tensor, xy: Tensor) -> Tensor:
        return sample(2 * image, xy, padding="clamp").square().sum()

    compiled = torch.compile(f, backend="aot_eager")
    for seed in range(3):  # what it has kept from the first call must not come back in the next ones
        inputs = random_image(HEIGHT, WIDTH, 3, seed=seed).requires_grad_(), points_off_kinks(20, seed).requires_grad_()
        values = [g(*inputs) for g in (f, compiled)]
        torch.testing.assert_close(*values, rtol=1e-14, atol=0)  # another order of the sum
        gradients = [torch.autograd.grad(value, inputs) for value in values]
        torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("image", "xy", "error", "message"),
    [
        (torch.zeros(4, 4, 3), torch.zeros(8, 2, 64, 64), ValueError,
         r"xy must end in 2 \(x, y\); got \(8, 2, 64, 64\): move the coordinates last, xy.movedim\(1, -1\)"),
        (torch.zeros(4, 4, 3), torch.zeros(2, 9), ValueError, r"move the coordinates last, xy.movedim\(0, -1\)"),
        (torch.zeros(4, 4, 3), torch.zeros(5, 3), ValueError, r"xy must end in 2 \(x, y\); got \(5, 3\)$"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), torch.zeros(5, 2), TypeError, "image must be floating point.*uint8"),
        (torch.zeros(4, 4, 3), torch.zeros(5, 2, dtype=torch.int64), TypeError, "xy must be floating point.*int64"),
        (torch.zeros(0, 4, 3), torch.zeros(5, 2), ValueError, r"at least one pixel; got \(0, 4, 3\)"),
        (torch.zeros(4, 4), torch.zeros(5, 2), ValueError, r"image must be \[..., H, W, C\].*channel dimension"),
        (torch.zeros(3, 4, 4, 3), torch.zeros(5, 2), ValueError, r"xy must begin with the batch \(3,\).*leading ones"),
        (torch.zeros(3, 4, 4, 3), torch.zeros(2), ValueError, r"xy must begin with the batch \(3,\)"),
    ],
)  # fmt: skip
def test_wrong_input_is_explained(image: Tensor, xy: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sample(image, xy)


def test_unknown_names_are_explained() -> None:
    image, xy = torch.zeros(4, 4, 3), torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"mode must be one of nearest, bilinear.*; got 'linear'"):
        sample(image, xy, mode="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"padding must be one of zeros, clamp.*; got 'border'"):
        sample(image, xy, padding="border")  # type: ignore[arg-type]
    for padding in (None, 3, ("wrap",)):
        with pytest.raises(ValueError, match=r"padding must be one of zeros, .*, or one each for x and y; got"):
            sample(image, xy, padding=padding)  # type: ignore[arg-type]
    for constant in (torch.zeros(4), [1.0], torch.zeros(1, 3)):
        with pytest.raises(ValueError, match=r"constant must be a number, or one for each channel of \(4, 4, 3\)"):
            sample(image, xy, padding="constant", constant=constant)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"uv must end in 2 \(u, v\).*uv.movedim\(0, -1\)"):
        sample_texture(image, torch.zeros(2, 9))
    with pytest.raises(ValueError, match=r"texture must be \[Ht, Wt, C\]"):
        sample_texture(image[None], xy)


# --- textures and layouts ---


def test_uv_origin_is_the_lower_left_corner_and_textures_repeat() -> None:
    texture = torch.arange(6.0).view(2, 3, 1)  # 3 4 5 is the lower row
    uv = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75], [1 + 0.5 / 3, -0.75]])
    # uv of order 1 in float32, times 3 texels, times a slope of up to 3
    torch.testing.assert_close(sample_texture(texture, uv).flatten(), torch.tensor([3.0, 2.0, 3.0]), rtol=0, atol=5e-6)


def test_layout_converters_are_views_and_undo_one_another() -> None:
    image = random_image(2, HEIGHT, WIDTH, 3)
    assert to_nchw(image).shape == (2, 3, HEIGHT, WIDTH)
    assert to_nchw(image).data_ptr() == image.data_ptr()
    assert torch.equal(to_nhwc(to_nchw(image)), image)
    with pytest.raises(ValueError, match="channel dimension"):
        to_nhwc(torch.zeros(3, 3))
