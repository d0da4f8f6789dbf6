"""Views of a fit: sizes, and how far silhouettes are trusted."""

from dataclasses import replace

import pytest
import torch

from diffrender.fit.views import Masks, Views
from diffrender.io.datasets import load_dataset


def test_masks_are_trusted_unless_the_set_knows_better(small_set):
    images = load_dataset(small_set)
    view = Views(images)[0]
    assert torch.equal(view.silhouette, images.load(0)[1])
    assert view.trust.min() == 1.0
    below = replace(images, evidence=lambda image: (torch.ones(image.shape[:2]), (image[..., 3] > 0.5).float()))
    view = Views(below, 16)[0]
    assert view.silhouette.shape == view.trust.shape == (16, 14)
    assert view.silhouette.min() == 1.0
    assert 0.0 == view.trust.min() < view.trust.max() == 1.0
    assert ((view.trust > 0) & (view.trust < 1)).any()  # averaged over the larger pixels


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
