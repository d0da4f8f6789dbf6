"""Views of a fit: sizes, and how far silhouettes with holes are trusted."""

import torch

from diffrender.fit.views import without_holes


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
