"""Images without alpha before a known background: the fit of the same images with alpha."""

import json
import shutil

import pytest
import torch

from diffrender.cli import main
from diffrender.io.datasets import load_dataset
from diffrender.io.images import decode_srgb, load_image, save_image

COLOR = torch.tensor([0.0, 0.2, 0.9])  # sRGB


@pytest.fixture(scope="module")
def before_blue(small_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blue")
    for file in small_set.glob("*.json"):
        shutil.copy(file, folder)
    for file in small_set.glob("*.png"):
        picture = load_image(file)
        alpha = picture[..., 3:]
        save_image(folder / file.name, picture[..., :3] * alpha + decode_srgb(COLOR) * (1 - alpha))
    return folder


def test_masks_are_those_of_the_alpha_and_colours_are_before_black(small_set, before_blue):
    with_alpha, images = load_dataset(small_set), load_dataset(before_blue, background=decode_srgb(COLOR))
    for k in range(len(images)):
        (color, mask), (expected, alpha) = images.load(k), with_alpha.load(k)
        assert bool((mask[alpha == 0] == 0).all())
        assert bool((mask[alpha == 1] == 1).all())
        assert torch.equal(color[mask == 0], torch.zeros_like(color[mask == 0]))
        # 8 bits of sRGB, twice: a step each, where the curve is steepest in linear light (2.3 at white)
        torch.testing.assert_close(color[alpha == 1], expected[alpha == 1], rtol=0, atol=2.3 / 255)


def test_without_a_background_such_images_are_refused_with_a_word_on_it(before_blue):
    with pytest.raises(ValueError, match=r"has no alpha channel .* say which \(background, --background\)"):
        load_dataset(before_blue)


@pytest.mark.parametrize("file", [False, True], ids=["colour", "picture"])
def test_the_command_takes_a_colour_or_a_picture(before_blue, tmp_path, file):
    background = "0,0.2,0.9"
    if file:
        size = load_dataset(before_blue, background=decode_srgb(COLOR)).sizes[0]
        background = str(tmp_path / "empty.png")
        save_image(tmp_path / "empty.png", decode_srgb(COLOR).expand(*size, 3))
    out = tmp_path / "out"
    how = ["--steps", "1", "--detail", "24", "--background", background]
    assert main(["fit", str(before_blue), "-o", str(out), *how]) == 0
    assert json.loads((out / "metrics.json").read_text())["mean"]["held_out"]["iou"] > 0.9
