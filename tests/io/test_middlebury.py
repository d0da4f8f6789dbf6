"""Middlebury's *_par.txt: what comes back is what was written. (Reading image sets: test_datasets.py.)"""

from pathlib import Path

import pytest
import torch

from diffrender.cameras import FisheyeCamera, PinholeCamera, look_at
from diffrender.io.middlebury import load_middlebury, save_middlebury

SIZE = (24, 32)


def cameras() -> list[PinholeCamera]:
    eyes = torch.tensor([[3.0, 0.0, 1.0], [0.1, -3.0, 1.0]], dtype=torch.float64)
    R, t = look_at(eyes, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    return [PinholeCamera(40.1, 41.7, 15.5, 11.25, size=SIZE, R=R[i], t=t[i]) for i in range(2)]


def test_cameras_come_back_to_the_last_bit(tmp_path: Path) -> None:
    save_middlebury(tmp_path / "a_par.txt", ["a0.png", "a1.png"], cameras())
    names, back = load_middlebury(tmp_path / "a_par.txt", size=SIZE)
    assert names == ["a0.png", "a1.png"]
    for actual, expected in zip(back, cameras(), strict=True):
        assert actual.size == SIZE
        for name, value in expected._tensors().items():
            assert torch.equal(getattr(actual, name), value), name


def test_dinosaur_is_written_as_it_was_read(shared_data: Path, tmp_path: Path) -> None:
    """To the rounding of adding and taking half a pixel, at a principal point below 512: 2^-44."""
    source = shared_data / "middlebury_dino" / "dinoSR_par.txt"
    save_middlebury(tmp_path / "par.txt", *load_middlebury(source, size=(480, 640)))
    rows = [[line.split() for line in path.read_text().splitlines()] for path in (source, tmp_path / "par.txt")]
    assert len(rows[0]) == len(rows[1]) == 17
    for stored, written in zip(rows[0][1:], rows[1][1:], strict=True):
        assert stored[0] == written[0]
        expected, actual = (torch.tensor([float(x) for x in row[1:]], dtype=torch.float64) for row in (stored, written))
        torch.testing.assert_close(actual, expected, rtol=0, atol=2**-44)


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_par.txt"
    with pytest.raises(TypeError, match="cameras must be pinholes, the format has no lenses; got a FisheyeCamera"):
        save_middlebury(path, ["a"], [FisheyeCamera(1.0, 1.0, 1.0, 1.0, size=SIZE)])
    with pytest.raises(ValueError, match="names must have no blanks in this format; got 'a b'"):
        save_middlebury(path, ["a b", "c"], cameras())
    with pytest.raises(ValueError, match="as many, and not none; got 0 and 0"):
        save_middlebury(path, [], [])
    assert not path.exists()
