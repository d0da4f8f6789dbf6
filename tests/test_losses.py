"""Losses and figures of merit against closed forms and kornia."""

import kornia.metrics
import pytest
import torch

from diffrender.io.images import decode_srgb, encode_srgb
from diffrender.losses import color_loss, iou, psnr, silhouette_loss


@pytest.fixture
def noise():
    return torch.Generator().manual_seed(0)


def test_silhouette_loss_is_the_mean_squared_difference():
    alpha = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    mask = torch.tensor([[[0.0, 0.0], [1.0, 0.5]]])
    assert float(silhouette_loss(alpha, mask)) == (1 + 0.25) / 4


def test_silhouette_loss_ignores_pixels_of_weight_zero():
    alpha, mask = torch.tensor([[0.25, 1.0]]), torch.tensor([[0.0, 0.0]])
    assert float(silhouette_loss(alpha, mask, weight=torch.tensor([[1.0, 0.0]]))) == 0.0625


@pytest.mark.parametrize(("kind", "expected"), [("l1", 0.3), ("l2", 0.13), ("huber", 0.2125)])
def test_color_loss_has_its_closed_form(kind, expected):
    color = torch.tensor([[[0.1], [0.5]]], dtype=torch.float64)
    # differences 0.1 and 0.5; huber with delta 0.2: d^2 / (2 delta) = 0.025 below it, d - delta / 2 = 0.4 above
    assert float(color_loss(color, torch.zeros_like(color), kind=kind, huber_delta=0.2)) == pytest.approx(expected)


def test_losses_depend_neither_on_image_size_nor_on_view_count(noise):
    color, target = torch.rand(2, 4, 4, 3, generator=noise), torch.rand(2, 4, 4, 3, generator=noise)
    mask = torch.rand(2, 4, 4, generator=noise)
    larger = [x.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat(3, *[1] * (x.ndim - 1)) for x in (color, target)]
    larger_mask = mask.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat(3, 1, 1)
    # means of other numbers of float32 terms: a few roundings
    torch.testing.assert_close(color_loss(*larger), color_loss(color, target), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        color_loss(*larger, mask=larger_mask), color_loss(color, target, mask=mask), rtol=1e-6, atol=0
    )


def test_empty_mask_gives_zero_loss_and_zero_gradient():
    color = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = color_loss(color, torch.zeros(3, 3, 3), mask=torch.zeros(3, 3))
    loss.backward()
    assert loss.item() == 0
    assert color.grad is not None
    assert not color.grad.any()


@pytest.mark.parametrize("kind", ["l2", "huber"])
def test_color_loss_gradients_agree_with_differences(kind, noise):
    color = torch.rand(2, 3, 3, generator=noise, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 3, generator=noise, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: color_loss(c, target, kind=kind), color)


def test_iou_counts_pixels():
    first = torch.zeros(2, 6, 8)
    second = torch.zeros(2, 6, 8)
    first[:, 1:4, 1:5] = 1  # 12 pixels
    second[0, 2:5, 2:6] = 1  # 12 pixels, 6 of them common
    assert iou(first, second).tolist() == pytest.approx([6 / 18, 0])


def test_iou_of_two_empty_masks_is_one():
    assert float(iou(torch.zeros(3, 3), torch.zeros(3, 3))) == 1


def test_iou_is_differentiable():
    alpha = torch.full((2, 2), 0.5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: iou(a, mask), alpha)


def test_psnr_of_a_constant_srgb_difference_of_a_tenth_is_twenty_db():
    srgb = torch.linspace(0, 0.9, 24, dtype=torch.float64).reshape(2, 4, 3)
    assert float(psnr(decode_srgb(srgb), decode_srgb(srgb + 0.1))) == pytest.approx(20, abs=1e-9)


def test_psnr_agrees_with_kornia_on_srgb_values(noise):
    color, target = torch.rand(5, 7, 3, generator=noise), torch.rand(5, 7, 3, generator=noise)
    expected = kornia.metrics.psnr(encode_srgb(color), encode_srgb(target), 1.0)
    torch.testing.assert_close(psnr(color, target), expected, rtol=1e-5, atol=0)  # float32 means


def test_psnr_sees_only_the_mask(noise):
    color, target = torch.rand(2, 4, 4, 3, generator=noise), torch.rand(2, 4, 4, 3, generator=noise)
    mask = torch.zeros(2, 4, 4)
    mask[:, :2] = 1
    torch.testing.assert_close(psnr(color, target, mask=mask), psnr(color[:, :2], target[:, :2]), rtol=1e-5, atol=0)


def test_psnr_of_equal_images_is_infinite():
    assert float(psnr(torch.ones(2, 2, 3), torch.ones(2, 2, 3))) == torch.inf


@pytest.mark.parametrize("function", [silhouette_loss, iou])
def test_shapes_that_differ_are_quoted(function):
    with pytest.raises(ValueError, match=r"alpha and mask must have the same shape; got \(4, 5\) float32 and \(5, 4\)"):
        function(torch.zeros(4, 5), torch.zeros(5, 4))


def test_a_weight_of_another_shape_is_called_by_its_name():
    with pytest.raises(ValueError, match="weight and the images"):
        silhouette_loss(torch.zeros(4, 5), torch.zeros(4, 5), weight=torch.zeros(5, 4))
    with pytest.raises(ValueError, match="mask and the images"):
        color_loss(torch.zeros(4, 5, 3), torch.zeros(4, 5, 3), mask=torch.zeros(5, 4))


def test_huber_needs_a_positive_delta():
    with pytest.raises(ValueError, match="huber_delta must be positive; got 0"):
        color_loss(torch.zeros(4, 5, 3), torch.ones(4, 5, 3), kind="huber", huber_delta=0.0)


def test_unknown_kind_of_color_loss_is_refused():
    with pytest.raises(ValueError, match="kind must be 'l1', 'l2' or 'huber'; got 'l3'"):
        color_loss(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), kind="l3")
