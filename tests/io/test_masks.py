"""Masks from a known background: exact where the truth is known, dust aside, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffrender.io.images import decode_srgb
from diffrender.io.masks import BLUR, TOLERANCE, background_mask, load_mask, threshold_evidence, threshold_mask

GREEN = decode_srgb(torch.tensor([0.1, 0.7, 0.2]))
SIZE = (300, 400)


def disk(radius=100.0):
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return ((x - 200) ** 2 + (y - 150) ** 2) < radius**2


def before(background):
    """A grey disk before a background, with noise below the tolerance."""
    noise = (torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 1.9 * TOLERANCE
    stored = torch.where(disk()[..., None], torch.full((*SIZE, 3), 0.5), background.expand(*SIZE, 3)) + noise
    return decode_srgb(stored.clamp(0, 1))


def test_an_object_before_one_colour_is_cut_out_exactly():
    picture = before(torch.tensor([0.1, 0.7, 0.2]))
    assert torch.equal(background_mask(picture, GREEN), disk().float())


def test_an_object_before_a_picture_is_cut_out_exactly():
    ramp = torch.linspace(0, 0.3, SIZE[1])[None, :, None].expand(*SIZE, 3)
    assert torch.equal(background_mask(before(ramp), decode_srgb(ramp)), disk().float())


def test_dust_beside_the_object_and_in_it_does_not_count_but_holes_do():
    picture = before(torch.tensor([0.1, 0.7, 0.2]))
    picture[2:5, 2:5] = 0.9  # 9 pixels: a ten-thousandth of the image are 12
    picture[90:93, 200:203] = GREEN
    hole = disk(8)
    picture[hole] = GREEN
    assert torch.equal(background_mask(picture, GREEN), (disk() & ~hole).float())


def test_nothing_but_background_is_an_empty_mask():
    assert background_mask(GREEN.expand(*SIZE, 3), GREEN).sum() == 0


def test_the_silhouette_of_a_bright_object_is_not_grown_as_its_mask_is():
    picture = 0.5 * disk()[..., None].expand(*SIZE, 3).float()
    silhouette, trust = threshold_evidence(picture)
    assert torch.equal(silhouette, disk().float())
    assert threshold_mask(picture).sum() == pytest.approx(np.pi * 103**2, rel=0.005)
    assert trust[disk(100 - BLUR)].min() == 1
    assert trust[disk() & ~disk(100 - BLUR + 1)].max() == 0
    assert trust[~disk()].min() == 1


def test_what_is_dark_within_the_silhouette_is_not_trusted():
    picture = 0.5 * disk()[..., None].expand(*SIZE, 3).float()
    picture[disk(30)] = 0.01  # a shadow, too wide to be closed: a hole of the mask
    picture[40:120, 194:206] = 0.0  # a notch from above, closed by dilating
    picture[145:155, 280:] = 0.0  # and one from the right
    silhouette, trust = threshold_evidence(picture)
    assert threshold_mask(picture)[150, 200] == 0
    for place in ((150, 200), (100, 200), (150, 290)):
        assert silhouette[place] == 1
        assert trust[place] == 0
    assert trust[150, 302] == 1  # beyond
    assert trust[150, 250] == 1  # in the object


def test_silhouettes_that_leave_the_image_are_trusted_up_to_its_border():
    picture = torch.zeros(60, 80, 3)
    picture[20:40, 60:] = 1.0
    silhouette, trust = threshold_evidence(picture)
    assert torch.equal(silhouette, (picture[..., 0] > 0).float())
    assert trust[30, -1] == trust[30, 62] == 1
    assert trust[30, 61] == trust[21, -1] == 0


def test_a_black_image_is_all_background():
    silhouette, trust = threshold_evidence(torch.zeros(30, 30, 3))
    assert not silhouette.any()
    assert trust.all()


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".png"])
def test_a_mask_file_holds_shares_not_colours(tmp_path, suffix):
    shares = np.array([[0.0, 0.2, 0.6, 1.0]], dtype=np.float32)
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, shares)
    else:
        Image.fromarray(shares if suffix == ".tif" else (255 * shares).round().astype(np.uint8)).save(path)
    torch.testing.assert_close(load_mask(path), torch.from_numpy(shares), rtol=0, atol=1e-7)


def test_a_background_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"background must be a colour \(3,\) or a picture of the size of the image"):
        background_mask(torch.zeros(*SIZE, 3), torch.zeros(400, 300, 3))
