"""Views of a fit: sizes, and how far silhouettes with holes are trusted."""

import pytest
import torch

from diffrender.fit.views import Masks, Views, without_holes
from diffrender.io.datasets import load_dataset


def test_holes_are_filled_and_not_trusted_but_what_lies_outside_is():
    mask = torch.zeros(12, 12)
    mask[1:11, 1:11] = 1.0
    mask[5:7, 5:7] = 0.0
    filled, trust = without_holes(mask)
    assert filled[1:11, 1:11].min() == 1.0
    assert filled.sum() == 100
    assert trust[5:7, 5:7].max() == 0.0  # the hole
    assert trust[:2].min() == 1.0
    assert trust[:, -2:].min() == 1.0


def test_a_mask_without_holes_stays_as_it_is():
    mask = torch.zeros(8, 8)
    mask[2:5, 3:] = 1.0
    mask[5, 3:] = 0.3  # an edge through pixels
    filled, trust = without_holes(mask)
    assert torch.equal(filled, mask)
    assert trust.min() == 1.0


def test_views_are_kept_up_to_the_memory_and_are_the_same_when_decoded_again(small_set):
    images = load_dataset(small_set)
    height, width = images.sizes[0]
    one = 5 * 4 * height * width  # bytes: image, silhouette and trust in float32
    views = Views(images, memory=3 * one + 1)
    first = [views[k] for k in range(len(views))]
    again = [views[k] for k in range(len(views))]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True] * 3 + [False] * 6
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.silhouette, b.silhouette)
    with pytest.raises(IndexError, match="there are 9 views; got index 9"):
        views[9]


def test_views_are_as_large_as_asked_for(small_set):
    view = Views(load_dataset(small_set), 16)[0]
    assert view.image.shape == (16, 14, 3)
    assert view.camera.size == (16, 14)


def test_masks_are_the_silhouettes_a_bit_for_each_pixel(small_set):
    views = Views(load_dataset(small_set), 19)  # sizes that are no multiple of eight
    masks = Masks((view.silhouette, view.camera) for view in views)
    assert len(masks) == len(views)
    for mask, view in zip(masks, views, strict=True):
        assert torch.equal(mask, view.silhouette >= 0.5)
