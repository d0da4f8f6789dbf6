"""`diffrender calibrate`: what it writes, and how it refuses."""

import json
from pathlib import Path

import pytest
import torch
from calibrate_scenes import BOARD, lens, seen, views

import diffrender as dr
from diffrender.calibrate import LENSES, calibrate, save_corners
from diffrender.calibrate.report import camera_entries, write_json
from diffrender.cli import main, parser
from diffrender.cli.cameras import load_camera
from diffrender.io.calibration import load_calibration
from diffrender.io.transforms import load_transforms

pytest.importorskip("cv2")
pytest.importorskip("matplotlib")


@pytest.fixture
def corner_file(tmp_path: Path) -> Path:
    save_corners(tmp_path / "corners.json", seen(views(lens("opencv")), noise=0.1)[0], BOARD)
    return tmp_path / "corners.json"


def test_models_on_the_command_line_are_those_there_are() -> None:
    assert tuple(LENSES) == parser.MODELS


def test_corner_file_becomes_cameras_figures_and_plots(
    corner_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["calibrate", str(corner_file), "-o", str(out)]) == 0
    said = capsys.readouterr()
    written = {"camera.json", "camera.yml", "transforms.json", "metrics.json", "corners.json", "residuals.png"}
    assert {path.name for path in out.iterdir()} == written
    assert [line for line in said.out.splitlines() if line.startswith("wrote")] == [
        f"wrote {out / name}"
        for name in ("camera.json", "camera.yml", "transforms.json", "metrics.json", "corners.json", "residuals.png")
    ]
    assert "opencv, 640x480: 10 views, 480 corners, RMS 0.1" in said.out
    assert "  fx       53" in said.out
    camera, posed = load_camera(str(out / "camera.json"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert not posed
    assert float(camera.fx) == pytest.approx(metrics["parameters"]["fx"], rel=1e-6)
    assert metrics["rms"] == pytest.approx(0.14, rel=0.1)
    assert len(metrics["covariance"]) == 9
    assert metrics["standard_deviations"]["fx"] ** 2 == pytest.approx(metrics["covariance"][0][0])
    views_of = load_calibration(out / "camera.yml")
    assert torch.allclose(views_of.t, torch.tensor([v["t"] for v in metrics["views"]], dtype=torch.float64), atol=1e-9)
    assert float(views_of.fx[0]) == pytest.approx(metrics["parameters"]["fx"], rel=1e-9)
    names, cameras = load_transforms(out / "transforms.json")
    assert names == [f"view{i}" for i in range(10)]
    assert torch.allclose(cameras[3].t, torch.tensor(metrics["views"][3]["t"], dtype=torch.float64), atol=1e-9)
    assert dr.load_image(out / "residuals.png").std() > 0.05
    assert main(["calibrate", str(corner_file), "-o", str(out)]) == 2
    assert "holds files already" in capsys.readouterr().err
    assert main(["calibrate", str(corner_file), "-o", str(out), "--overwrite", "--model", "pinhole"]) == 0
    assert json.loads((out / "metrics.json").read_text())["rms"] > 1  # a pinhole does not bend


@pytest.mark.parametrize("model", LENSES)
def test_every_calibrated_camera_can_be_rendered_through(model: str, tmp_path: Path) -> None:
    found = calibrate(seen(views(lens(model), 4))[0], BOARD, model=model)
    write_json(tmp_path / "camera.json", camera_entries(found))
    camera, posed = load_camera(str(tmp_path / "camera.json"))
    assert not posed
    points = torch.tensor([[0.3, -0.2, 1.0], [-0.1, 0.25, 1.0]])
    expected, _ = found.lens.local_project(points.double())
    assert (camera.local_project(points)[0] - expected).abs().max() < 1e-3  # single precision


def test_photographs_get_a_straight_picture(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = shared_data / "opencv_chessboard" / "left"
    chosen = [str(photographs / f"left{i:02d}.jpg") for i in (1, 3, 6, 8)]
    out = tmp_path / "out"
    assert main(["calibrate", *chosen, "--board", "9x6", "--square", "25", "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "only 4 views" in said.err
    assert "refined on the pixels: corners moved by 0.0" in said.out or "moved by 0.1" in said.out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["refined"]
    assert metrics["parameters"]["fx"] != metrics["by_corners"]["parameters"]["fx"]
    # With only four views each is uncertain by a few pixels; OpenCV's calibration of all 13 says 532.8.
    assert metrics["parameters"]["fx"] == pytest.approx(532.8, abs=6)
    photograph, rendered, difference = dr.load_image(out / "pixels.png")[..., 0].tensor_split(3, dim=1)
    board = photograph < 0.98  # around it is white
    assert float((photograph - rendered)[board].abs().median()) < 0.03 < float(photograph[board].std())
    assert float(difference[board].std()) < 0.1
    picture = dr.load_image(out / "undistorted.png")
    assert picture.shape == (480, 1280, 3)
    assert float((picture[:, :640] - picture[:, 640:]).abs().mean()) > 0.02
    assert float(picture[200:280, 900:1000].std()) > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none.jpg", "--board", "9x6"], "no such image file or folder: {tmp}/none.jpg"),
        (["{tmp}/empty", "--board", "9x6"], "no images (.bmp, .jpeg"),
        (["{tmp}", "--board", "9x6"], "in the folder {tmp}; there are in {tmp}/blank, {tmp}/deep/er"),
        (["{tmp}/blank", "--board", "9x6"], "9x6 inner corners (where four squares meet"),
        (["{tmp}/blank"], "board must say how many inner corners"),
        (["{tmp}/corners.json", "--board", "9x6"], "holds corners of a board of 8x6, not 9x6"),
        (["{tmp}/corners.json", "--square", "3"], "--square belongs to --board"),
        (["{tmp}/corners.json", "--board", "8x6", "--square", "0"], "square must be a length above 0"),
        (["{tmp}/corners.json", "--board", "8"], "must be NxM"),
        (["{tmp}/corners.json", "--model", "zoom"], "invalid choice"),
        (["{tmp}/blank/a.png", "{tmp}/blank/../blank/a.png", "--board", "9x6"], "different names"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    corner_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    dr.save_image(tmp_path / "blank" / "a.png", torch.full((40, 60, 3), 0.5))
    dr.save_image(tmp_path / "deep" / "er" / "b.png", torch.full((40, 60, 3), 0.5))
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert main(["calibrate", *arguments, "-o", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("diffrender: error: ")
    assert message.replace("{tmp}", str(tmp_path)) in last
    assert not (tmp_path / "out").exists()
