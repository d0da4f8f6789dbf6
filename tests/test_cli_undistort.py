"""`diffrender undistort`."""

from pathlib import Path

import pytest
import torch

from diffrender.cameras import OpenCVCamera, PinholeCamera, orbit_poses
from diffrender.cli import main
from diffrender.io.calibration import save_calibration
from diffrender.io.images import load_image, save_image
from diffrender.reproject import undistort

CAMERA = OpenCVCamera(50.0, 51.0, 31.0, 25.0, dist=(-0.2, 0.05, 0.0, 0.0), size=(48, 64))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A calibration with views of a board, and a photograph."""
    R, t = orbit_poses(2, distance=1.0)
    save_calibration(tmp_path / "lens.yml", CAMERA.replace(R=R, t=t))
    image = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(0))
    save_image(tmp_path / "photo.png", image)
    return tmp_path


def test_picture_is_that_of_the_library(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["undistort", str(files / "photo.png"), "--camera", str(files / "lens.yml"), "--keep", "1"]
    assert main([*arguments, "-o", str(files / "a.npy"), "--size", "80x60", "--samples", "2"]) == 0
    expected, _, valid = undistort(load_image(files / "photo.png"), CAMERA, alpha=1.0, size=(60, 80), samples=2)
    torch.testing.assert_close(load_image(files / "a.npy"), expected, rtol=0, atol=1e-4)  # K in float32
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("PinholeCamera(fx=")
    assert said[1] == f"valid: {100 * float(valid.float().mean()):.1f} % of the pixels, the others are black"
    assert said[2] == f"wrote {files / 'a.npy'}"


def test_no_picture_is_lost(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(files / "photo.png")
    before = (files / "photo.png").read_bytes()
    arguments = ["undistort", photo, "--camera", str(files / "lens.yml"), "-o", photo]
    assert main(arguments) == 2
    assert f"-o: {photo} is there already; choose another name, or replace it with" in capsys.readouterr().err
    assert (files / "photo.png").read_bytes() == before
    assert main([*arguments, "--overwrite"]) == 0
    assert (files / "photo.png").read_bytes() != before


def test_what_does_not_fit_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_calibration(files / "other.yml", PinholeCamera(1.0, 1.0, 1.0, 1.0, size=(10, 20)))
    photo, out = str(files / "photo.png"), str(files / "a.png")
    for arguments, message in (
        (["--camera", str(files / "other.yml"), "-o", out], "photo.png is 64x48, the camera of"),
        (["--camera", str(files / "none.yml"), "-o", out], "or a camera file; no such file"),
        (["--camera", str(files / "lens.yml"), "-o", out, "--keep", "2"], "must be a number from 0 to 1; got '2'"),
        (["--camera", str(files / "lens.yml"), "-o", str(files / "a.txt")], "-o must end in .png"),
    ):
        assert main(["undistort", photo, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not (files / "a.png").exists()
