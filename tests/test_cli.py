"""The command line: what it draws, what it says, and how it ends."""

import errno
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import diffrender as dr
import diffrender.cli.fit
import diffrender.cli.info
import diffrender.cli.outputs
import diffrender.cli.render
from diffrender.cli import main, parser
from diffrender.fit import FitResult, FitSettings

RED = torch.tensor([1.0, 0.0, 0.0])
SMALL = ["--size", "96x64"]
HELP_TEXTS = (
    parser._EPILOG,
    parser._RENDER_EPILOG,
    parser._FIT_EPILOG,
    parser._CALIBRATE_EPILOG,
    parser._INFO_EPILOG,
)


@pytest.fixture
def ball(tmp_path: Path) -> str:
    """A red sphere of radius 1 about (3, 0, 0)."""
    sphere = dr.sphere(4)
    vertices = sphere.vertices + torch.tensor([3.0, 0.0, 0.0])
    dr.save_mesh(tmp_path / "ball.glb", dr.Mesh(vertices, sphere.faces, materials=(dr.Material(base_color=RED),)))
    return str(tmp_path / "ball.glb")


@pytest.fixture
def two_sided(tmp_path: Path) -> Callable[[int, int], str]:
    """Makes a unit sphere, red where the coordinate `axis` has the given sign, else blue."""

    def make(axis: int, sign: int) -> str:
        sphere = dr.sphere(4)
        red = sign * sphere.vertices[:, axis : axis + 1] > 0
        colors = torch.where(red, RED, torch.tensor([0.0, 0.0, 1.0]))
        path = tmp_path / f"two_sided_{axis}{sign}.glb"
        dr.save_mesh(path, dr.Mesh(sphere.vertices, sphere.faces, vertex_colors=colors))
        return str(path)

    return make


@pytest.fixture
def views(tmp_path: Path) -> Path:
    """An image set in NeRF's format: four views of a white disk, 8 x 6 pixels."""
    folder = tmp_path / "views"
    folder.mkdir()
    frames = []
    for i in range(4):
        image = torch.zeros(6, 8, 4)
        image[2:4, 3:5] = 1.0
        dr.save_image(folder / f"view{i}.png", image)
        R, t = dr.look_at((0.0, float(i), 3.0))
        frames.append({"file_path": f"view{i}", "transform_matrix": dr.to_opengl_pose(R, t).tolist()})
    content = {"fl_x": 10.0, "w": 8, "h": 6, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(iio.imread(path))


def drawn(path: Path) -> np.ndarray:
    """[2, 2] the lowest and highest row and column, edges of pixels, that is not white."""
    covered = np.argwhere((pixels(path) != 255).any(-1))
    return np.stack([covered.min(0), covered.max(0) + 1])


def alpha_area(path: Path) -> float:
    return float(np.load(path)[..., 3].sum())


def error_line(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int = 2) -> str:
    """Run, expect the status and exactly one line on stderr, nothing on stdout; return the line."""
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("diffrender: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# ------------------------------------------------------------------------------------------------------------- render


@pytest.mark.parametrize(
    "camera",
    [
        [],
        ["--camera", "fisheye", "--fov", "60"],
        ["--camera", "orthographic"],
        ["--camera", "opencv", "--dist", "-0.3,0.1,0,0", "--fov", "60"],
        ["--eye", "2,3,9", "--camera", "orthographic"],
        ["--up", "0,0,1"],
    ],
)
def test_default_view_frames_the_whole_model_in_the_middle(camera: list[str], tmp_path: Path) -> None:
    long = dr.cube().vertices * torch.tensor([2.0, 1.0, 0.3]) + torch.tensor([5.0, -7.0, 1.0])
    dr.save_mesh(tmp_path / "long.ply", dr.Mesh(long, dr.cube().faces))
    assert main(["render", str(tmp_path / "long.ply"), "-o", str(tmp_path / "a.png"), *SMALL, *camera]) == 0
    low, high = drawn(tmp_path / "a.png")
    free = np.concatenate([low, np.array([64, 96]) - high])
    # the margin is 6 % of 64 pixels, 3.84: pixels that the model just touches leave 3 free
    assert free.min() == 3
    # centred to a pixel on each side, and as much for the last correction of the aim
    assert abs(free[0] - free[2]) <= 3
    assert abs(free[1] - free[3]) <= 3


def test_unlit_colour_and_background_are_exact(ball: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert main(["render", ball, "-o", str(out), *SMALL, "--unlit", "--background", "0.2,0.4,0.6"]) == 0
    image = pixels(out)
    assert image.shape == (64, 96, 3)  # WxH
    assert image[32, 48].tolist() == [255, 0, 0]
    assert image[0, 0].tolist() == [51, 102, 153]
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_transparent_background_keeps_the_colour_of_edges(ball: str, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    assert main(["render", ball, "-o", str(out), *SMALL, "--unlit", "--background", "transparent"]) == 0
    image = pixels(out)
    alpha = image[..., 3]
    assert alpha[32, 48] == 255
    assert alpha[0, 0] == 0
    edge = (alpha > 64) & (alpha < 192)
    assert edge.sum() > 20
    assert (image[edge][:, :3] == [255, 0, 0]).all()  # straight alpha: not darkened


def test_key_light_comes_from_above_left(ball: str, tmp_path: Path) -> None:
    assert main(["render", ball, "-o", str(tmp_path / "a.png"), *SMALL]) == 0
    red = pixels(tmp_path / "a.png")[..., 0].astype(int)
    middle = red[32, 48]
    assert red[22, 38] > middle > red[42, 58]
    assert red[22, 38] > red[22, 58] > red[42, 58]


def test_flat_shows_facets(tmp_path: Path) -> None:
    dr.save_mesh(tmp_path / "ball.ply", dr.sphere(1).replace(uvs=None))
    even = {}  # share of pixels that look like their right neighbour: most within facets, few on a smooth ball (8 bits)
    for name, options in {"smooth": [], "flat": ["--flat"]}.items():
        out = tmp_path / f"{name}.png"
        assert main(["render", str(tmp_path / "ball.ply"), "-o", str(out), *SMALL, *options]) == 0
        ball = pixels(out)[16:48, 32:64].astype(int)
        even[name] = float((ball[:, 1:] == ball[:, :-1]).all(-1).mean())
    assert even["flat"] > 0.5
    assert even["flat"] > 2 * even["smooth"]


@pytest.mark.parametrize("eye", ["3,0,-5", "-2,0,0", "3,-4,3"])
def test_ball_covers_its_closed_form_area_from_an_eye(eye: str, ball: str, tmp_path: Path) -> None:
    command = ["render", ball, "-o", str(tmp_path / "a.npy"), "--size", "200x100", "--background", "transparent"]
    assert main([*command, "--eye", eye, "--target", "3,0,0", "--fov", "40"]) == 0
    # the sphere's outline is a circle of radius f / sqrt(d^2 - 1), d = 5 for all eyes
    radius = 50 / math.tan(math.radians(20)) / math.sqrt(24)
    # 1280 faces inside of the sphere: their outline has about 60 sides, its area is 1 - (2 pi / 60)^2 / 6 = 0.2 % less
    assert alpha_area(tmp_path / "a.npy") == pytest.approx(math.pi * radius**2, rel=0.01)


def test_camera_file_says_all(ball: str, tmp_path: Path) -> None:
    camera = {"model": "pinhole", "width": 120, "height": 80, "fx": 100, "fy": 50, "cx": 40, "cy": 30}
    camera |= {"R": [[1, 0, 0], [0, -1, 0], [0, 0, -1]], "t": [-3, 0, 6]}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    command = ["render", ball, "--background", "transparent", "--camera", str(tmp_path / "camera.json")]
    assert main([*command, "-o", str(tmp_path / "a.npy")]) == 0
    alpha = np.load(tmp_path / "a.npy")[..., 3]
    assert alpha.shape == (80, 120)
    rows, columns = np.nonzero(alpha > 0.5)
    # an ellipse about the principal point, whose axes are the focal lengths over sqrt(6^2 - 1)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((40, 30), abs=0.1)
    assert alpha.sum() == pytest.approx(math.pi * 100 * 50 / 35, rel=0.01)
    assert main([*command, "-o", str(tmp_path / "b.npy"), "--size", "240x160"]) == 0
    assert alpha_area(tmp_path / "b.npy") == pytest.approx(4 * alpha.sum(), rel=0.005)


def test_orthographic_camera_file_keeps_its_scale(ball: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"model": "orthographic", "width": 64, "height": 64, "fx": 20}))
    command = ["render", ball, "-o", str(tmp_path / "a.npy"), "--background", "transparent"]
    assert main([*command, "--camera", str(tmp_path / "c.json")]) == 0
    assert alpha_area(tmp_path / "a.npy") == pytest.approx(math.pi * 20**2, rel=0.01)


@pytest.mark.parametrize(
    ("axis", "sign", "options", "seen"),
    [
        (2, 1, ["--azimuth", "0"], "red"),  # the front is +z
        (2, 1, ["--azimuth", "180"], "blue"),
        (0, 1, ["--azimuth", "90"], "red"),
        (1, 1, ["--elevation", "80"], "red"),
        (1, 1, ["--elevation", "-80"], "blue"),
        (1, -1, ["--azimuth", "0", "--up", "0,0,1"], "red"),  # the front is -y
        (1, 1, ["--azimuth", "0", "--up", "0,0,1"], "blue"),
    ],
)
def test_view_angles_show_the_side_they_name(
    axis: int, sign: int, options: list[str], seen: str, two_sided: Callable[[int, int], str], tmp_path: Path
) -> None:
    model = two_sided(axis, sign)
    assert main(["render", model, "-o", str(tmp_path / "a.png"), "--size", "32x24", "--unlit", *options]) == 0
    assert pixels(tmp_path / "a.png")[12, 16].tolist() == {"red": [255, 0, 0], "blue": [0, 0, 255]}[seen]


def test_turntable_goes_around(two_sided: Callable[[int, int], str], tmp_path: Path) -> None:
    movie, still = tmp_path / "a.gif", tmp_path / "a.png"
    command = ["render", two_sided(2, 1), "--turntable", str(movie), "--frames", "6", "--size", "32x24", "--unlit"]
    assert main([*command, "-o", str(still), "--azimuth", "0", "--elevation", "0"]) == 0
    frames = np.asarray(iio.imread(movie))
    assert frames.shape == (6, 24, 32, 3)
    assert (frames[0] == pixels(still)).mean() > 0.9  # a GIF's palette rounds the edges
    assert frames[0, 12, 16].tolist() == [255, 0, 0]
    assert frames[3, 12, 16].tolist() == [0, 0, 255]
    # after a quarter of a turn the front shows at one side: one direction only
    assert (frames[1, 12, 7:25, 2] > 128).sum() > 0


def test_turntable_frames_the_model_in_every_frame(tmp_path: Path) -> None:
    bar = dr.cube().vertices * torch.tensor([0.1, 0.1, 2.0]) + torch.tensor([0.0, 9.0, 0.0])
    dr.save_mesh(tmp_path / "bar.ply", dr.Mesh(bar, dr.cube().faces))
    movie = tmp_path / "a.gif"
    assert (
        main(["render", str(tmp_path / "bar.ply"), "--turntable", str(movie), "--frames", "5", "--size", "48x48"]) == 0
    )
    frames = np.asarray(iio.imread(movie))
    border = np.ones((48, 48), dtype=bool)
    border[2:-2, 2:-2] = False
    assert (frames[:, border] == 255).all()
    assert ((frames != 255).any(-1).sum((1, 2)) > 20).all()


def test_bands_of_a_large_picture_fit_together(ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["render", ball, "-o", str(tmp_path / "whole.png"), *SMALL]) == 0
    monkeypatch.setattr(diffrender.cli.render, "POINTS_AT_ONCE", 10 * 96 * 4)  # 10 rows
    assert main(["render", ball, "-o", str(tmp_path / "bands.png"), *SMALL]) == 0
    difference = np.abs(pixels(tmp_path / "whole.png").astype(int) - pixels(tmp_path / "bands.png"))
    assert difference.max() <= 1  # rounding


def test_model_out_of_sight_is_a_warning(ball: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["render", ball, "-o", str(tmp_path / "a.png"), *SMALL]
    assert main([*command, "--eye", "9,0,0", "--target", "19,0,0"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("diffrender: warning: nothing of the model is in the picture")
    assert err.count("\n") == 1
    assert (pixels(tmp_path / "a.png") == 255).all()


# ---------------------------------------------------------------------------------------------------------- bad input


def _truncated_glb(folder: Path) -> str:
    dr.save_mesh(folder / "cut.glb", dr.sphere(1))
    (folder / "cut.glb").write_bytes((folder / "cut.glb").read_bytes()[:-100])
    return "cut.glb"


def _obj_without_texture(folder: Path) -> str:
    (folder / "m.mtl").write_text("newmtl wood\nmap_Kd wood.png\n")
    (folder / "m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl wood\nf 1/1 2/2 3/3\n"
    )
    return "m.obj"


def _text(name: str, content: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_text(content)
        return name

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: "absent.glb", "no such mesh file: absent.glb"),
        (_truncated_glb, "cut.glb is truncated"),
        (_text("a.xyz", "1 2 3"), "got the suffix '.xyz'"),
        (_text("a.glb", "hello"), "a.glb is no GLB file"),
        (_obj_without_texture, "m.obj asks for the texture wood.png"),
        (_text("empty.obj", ""), "empty.obj"),
        (_text("points.obj", "v 0 0 0\nv 1 0 0\n"), "points.obj"),
        (_text("nan.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "NaN"),
        (_text("far.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"), "far.obj"),
        (_text("noise.ply", "ply\nformat"), "noise.ply"),
    ],
)
@pytest.mark.parametrize("command", ["render", "info"])
def test_bad_model_is_one_line(
    command: str,
    make: Callable[[Path], str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_line(capsys, [command, make(tmp_path)] + (["-o", "a.png"] if command == "render" else []))
    assert line.startswith("diffrender: error: ")
    assert message in line
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "-o IMAGE"),
        ("-o a.bmp", "-o must end in .png"),
        ("-o absent/a.png", "the folder absent does not exist"),
        ("-o folder.png", "folder.png is a folder"),
        ("--turntable a.avi", "--turntable must end in .gif"),
        ("-o a.png --size 640", None),
        ("-o a.png --size 0x10", "sides from 1 to"),
        ("-o a.png --size 640x", "WIDTHxHEIGHT"),
        ("-o a.png --size -5x3", "WIDTHxHEIGHT"),
        ("-o a.png --size 999999x2", "sides from 1 to"),
        ("-o a.png --size big", "WIDTHxHEIGHT"),
        ("-o a.png --samples 0", "at least 1"),
        ("-o a.png --samples 1.5", "at least 1"),
        ("--turntable a.gif --frames 0", "at least 1"),
        ("-o a.png --fov 0", "--fov must be above 0"),
        ("-o a.png --fov 180", "at most 179 degrees for pinhole"),
        ("-o a.png --fov nan", "must be a number"),
        ("-o a.png --camera orthographic --fov 30", "orthographic"),
        ("-o a.png --dist 0,0,0,0", "belongs to the cameras opencv and fisheye"),
        ("-o a.png --camera fisheye --dist 0,0", "4 coefficients"),
        ("-o a.png --camera opencv --dist 0,0", "dist must hold"),
        ("-o a.png --eye 1,2", "3 numbers"),
        ("-o a.png --eye 1,2,inf", "3 numbers"),
        ("-o a.png --eye 3,0,0", "must differ"),
        ("-o a.png --eye 3,5,0 --target 3,0,0", "up must not be"),
        ("-o a.png --up 0,0,0", "--up must not be"),
        ("-o a.png --elevation 90", "--elevation must lie"),
        ("-o a.png --background 255,0,0", "from 0 to 1"),
        ("-o a.png --background beige", "white, black"),
        ("-o a.jpg --background transparent", "holds no alpha"),
        ("-o a.png --turntable a.gif --background transparent", "holds no alpha"),
        ("-o a.png --camera spherical", "pinhole, fisheye, orthographic, opencv"),
        ("-o a.png --wireframe", "--wireframe"),
        ("-o a.png --debu", "--debu"),
    ],
)
def test_bad_option_is_one_line(
    options: str,
    message: str | None,
    ball: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    if message is None:  # a square
        assert main(["render", ball, "--size", "16", "-o", "a.png"]) == 0
        assert pixels(tmp_path / "a.png").shape == (16, 16, 3)
        return
    line = error_line(capsys, ["render", ball, *options.split()])
    assert line.startswith("diffrender: error: ")
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no valid JSON"),
        ("[1]", "one JSON object"),
        ('{"model": "lens"}', "'model' must be one of"),
        ('{"model": "pinhole", "width": 9, "height": 9}', "no 'fx'"),
        ('{"model": "pinhole", "width": 9, "height": 9, "fx": 9, "k": [0, 0, 0, 0]}', "unknown entries k"),
        ('{"model": "pinhole", "width": 9, "height": 9, "fx": "nine"}', "fx"),
        ('{"model": "pinhole", "width": "9", "height": 9, "fx": 9}', "width"),
        ('{"model": "pinhole", "width": 9.5, "height": 9, "fx": 9}', "'width' must be a whole number"),
        ('{"model": "pinhole", "width": 9, "height": 9, "fx": 9, "t": [0, 0, 0]}', "belong together"),
        ('{"model": "pinhole", "width": 9, "height": 9, "fx": 9, "R": [[1, 0], [0, 1]], "t": [0, 0, 0]}', "R"),
        ('{"model": "pinhole", "width": 9, "height": 9, "fx": 9, "cx": 900}', "from no distance"),
    ],
)
def test_bad_camera_file_is_one_line(
    content: str,
    message: str,
    ball: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(content)
    line = error_line(capsys, ["render", ball, "-o", "a.png", "--camera", "c.json"])
    assert line.startswith("diffrender: error: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a command"),
        (["rendr"], "invalid choice: 'rendr'"),
        (["render"], "MODEL (see diffrender render --help)"),
        (["fit", "set"], "-o/--output"),
        (["fit", "set", "-o", "out", "--resume", "--overwrite"], "not allowed with"),
        (["fit", "set", "-o", "out", "--steps", "few"], "whole number"),
        (["fit", "set", "-o", "out", "--background", "empty.png"], "names a picture that is not there: empty.png"),
        (["fit", "set", "-o", "out", "--start", "cube"], "invalid choice: 'cube'"),
        (["fit", "absent", "-o", "out"], "no such image set: absent"),
        (["info", "absent"], "absent"),
    ],
)
def test_bad_command_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_line(capsys, arguments)


def test_folder_that_cannot_be_written_is_found_before_the_work(
    ball: str, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    monkeypatch.setattr(diffrender.cli.render, "load_mesh", None)
    assert "is not writable" in error_line(capsys, ["render", ball, "-o", str(tmp_path / "a.png")])
    monkeypatch.setattr(diffrender.cli.fit, "load_dataset", None)
    assert "is not writable" in error_line(capsys, ["fit", str(views), "-o", str(tmp_path / "new" / "out")])


@pytest.mark.parametrize("option", ["-o", "--turntable"])
def test_files_that_are_there_are_not_replaced_unasked(
    option: str, ball: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ("a.png" if option == "-o" else "a.gif")
    file.write_text("mine")
    command = ["render", ball, option, str(file), *SMALL, "--frames", "2"]
    assert f"{option}: {file} is there already" in error_line(capsys, command)
    assert file.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert file.read_bytes()[1:4] in (b"PNG", b"IF8")


def test_full_disk_is_one_line_and_leaves_no_half_file(
    ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(os, "replace", full)
    line = error_line(capsys, ["render", ball, "-o", str(tmp_path / "a.png"), *SMALL])
    assert line == f"diffrender: error: {tmp_path / 'a.png'}: No space left on device\n"
    assert [p.name for p in tmp_path.iterdir()] == ["ball.glb"]


def test_internal_error_has_status_1_and_a_traceback_only_with_debug(
    ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(diffrender.cli.render, "render", broken)
    command = ["render", ball, "-o", str(tmp_path / "a.png")]
    line = error_line(capsys, command, status=1)
    assert line.startswith("diffrender: error: ZeroDivisionError: two lines")
    assert "--debug" in line
    assert main([*command, "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupted_render_has_status_130(
    ball: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(diffrender.cli.render, "render", interrupt)
    line = error_line(capsys, ["render", ball, "-o", str(tmp_path / "a.png")], status=130)
    assert line == "diffrender: interrupted\n"


# --------------------------------------------------------------------------------------------------------------- info


def rows_of(mesh: dr.Mesh) -> dict[str, str]:
    return dict(diffrender.cli.info.mesh_rows(mesh))


def test_info_of_a_sphere_says_what_euler_says(ball: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", ball]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in out.splitlines()[1:])
    vertices, faces, edges = (int(re.split(r"\D", rows[name])[0]) for name in ("vertices", "faces", "edges"))
    assert vertices - edges + faces == 2
    assert rows["edges"] == f"{edges}, 0 open, 0 with more than 2 faces"
    assert (rows["components"], rows["watertight"], rows["orientation"]) == ("1", "yes", "consistent")
    assert rows["size"] == "(2, 2, 2)"
    assert "base color (1, 0, 0) linear" in out


def test_info_counts_open_edges_and_components() -> None:
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    mesh = dr.Mesh(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    rows = rows_of(dr.join([mesh, dr.Mesh(mesh.vertices + 5, mesh.faces)]))
    assert rows["edges"] == "10, 8 open, 0 with more than 2 faces"
    assert rows["components"] == "2"
    assert rows["watertight"] == "no"
    assert rows["surface area"] == "2"


def test_info_sees_branching_edges_faces_without_area_and_flipped_faces() -> None:
    fan = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert rows_of(dr.Mesh(fan, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])))["edges"].endswith(
        "1 with more than 2 faces"
    )
    assert rows_of(dr.Mesh(fan, torch.tensor([[0, 1, 2], [3, 3, 4]])))["faces"] == "2, 1 without area"
    sphere = dr.sphere(1)
    flipped = torch.cat([sphere.faces[:1].flip(1), sphere.faces[1:]])
    assert "disagree" in rows_of(dr.Mesh(sphere.vertices, flipped))["orientation"]


def test_vertices_split_at_a_seam_count_once() -> None:
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    rows = rows_of(dr.Mesh(square, torch.tensor([[0, 1, 2], [3, 4, 5]])))
    assert rows["vertices"] == "6 at 4 positions"
    assert rows["edges"] == "5, 4 open, 0 with more than 2 faces"
    assert rows["components"] == "1"


def test_info_of_textures_says_width_times_height() -> None:
    material = dr.Material("wood", texture=torch.ones(4, 7, 3))
    mesh = dr.Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uvs=torch.zeros(3, 2), materials=(material,))
    assert rows_of(mesh)["  wood"] == "1 faces, texture 7x4"


def test_info_of_an_image_set(views: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(views)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"views +4: view0.png ... view3.png\n", out)
    assert re.search(r"image size +8x6\n", out)
    assert re.search(r"cameras +PinholeCamera\n", out)
    assert re.search(r"focal length x +10 pixels\n", out)
    assert re.search(r"camera bounds +\(0, 0, 3\) to \(0, 3, 3\)\n", out)


def _edit(views: Path, **changes: Any) -> None:
    content = json.loads((views / "transforms.json").read_text())
    (views / "transforms.json").write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda views: _edit(views, w=16, h=12), "the camera is for 16 x 12 pixels, the image has 8 x 6"),
        (lambda views: (views / "view2.png").unlink(), "view2"),
        (lambda views: (views / "view2.png").write_bytes(b"no image"), "view2.png cannot be read"),
        (lambda views: (views / "transforms.json").write_text('{"frames": ['), "no valid JSON"),
        (lambda views: (views / "transforms.json").unlink(), "no image set of a known format"),
    ],
)
@pytest.mark.parametrize("command", ["info", "fit"])
def test_bad_image_set_is_one_line(
    command: str,
    spoil: Callable[[Path], Any],
    message: str,
    views: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(views)
    extra = ["-o", str(tmp_path / "out")] if command == "fit" else []
    line = error_line(capsys, [command, str(views), *extra])
    assert line.startswith("diffrender: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------- fit


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of `fit`, which writes a file and is done."""
    calls: list[dict[str, Any]] = []

    def fit(images: Any, out: Path, settings: Any, **options: Any) -> FitResult:
        calls.append({"images": images, "settings": settings, **options})
        out.mkdir(exist_ok=True)
        (out / "mesh.glb").write_bytes(b"")
        return FitResult(dr.sphere(1), {}, (out / "mesh.glb",), notes=("no plot: matplotlib is missing",))

    monkeypatch.setattr(diffrender.cli.fit, "fit", fit)
    return calls


def test_fit_passes_the_options_on_and_names_the_files(
    fits: list[dict[str, Any]], views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = "--hold-out view1 --views view0 view3.png --steps 7 --detail 33 --start sphere --topology free --seed 5"
    assert main(["fit", str(views), "-o", str(out), *options.split(), "--edges", "driven", "--overwrite"]) == 0
    (call,) = fits
    assert call["images"].names == ("view0.png", "view1.png", "view3.png")
    assert call["images"].held_out == (False, True, False)
    wanted = FitSettings(steps=7, mesh_cells=33, start="sphere", topology="free", edges="driven", seed=5)
    assert (call["settings"], call["resume"], call["overwrite"]) == (wanted, False, True)
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"wrote {out / 'mesh.glb'}"
    assert "2 views to fit, 1 held out" in captured.err
    assert "note: no plot: matplotlib is missing" in captured.err


def test_fit_without_options_has_the_default_settings(fits: list[dict[str, Any]], views: Path, tmp_path: Path) -> None:
    assert main(["fit", str(views), "-o", str(tmp_path / "out")]) == 0
    assert fits[0]["settings"] == FitSettings()
    assert len(fits[0]["images"]) == 4
    assert (fits[0]["resume"], fits[0]["overwrite"]) == (False, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--hold-out view9", "view9"),
        ("--views view9", "view9"),
        ("--hold-out view0 --views view0", "no view to fit"),
        ("--hold-out view0 view1 view2 view3", "no view to fit"),
    ],
)
def test_fit_with_unknown_views_is_one_line(
    options: str, message: str, fits: list[Any], views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(capsys, ["fit", str(views), "-o", str(tmp_path / "out"), *options.split()])
    assert message in line
    assert not fits


def test_fit_into_a_file_is_one_line(
    fits: list[Any], views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    assert "is a file" in error_line(capsys, ["fit", str(views), "-o", str(tmp_path / "out")])
    assert "is a file" in error_line(capsys, ["fit", str(views), "-o", str(tmp_path / "out" / "below")])
    assert not fits


@pytest.mark.parametrize("kept", [True, False])
def test_interrupted_fit_says_what_there_is_and_how_to_go_on(
    kept: bool, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder"

    def fit(*args: Any, **kwargs: Any) -> None:
        if kept:
            out.mkdir()
            (out / "checkpoint.pt").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(diffrender.cli.fit, "fit", fit)
    command = ["fit", str(views), "-o", str(out), "--overwrite", "--hold-out", "view1", "view2"]
    assert main(command) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("diffrender: interrupted")
    assert ("checkpoint.pt" in last) == kept
    if kept:
        again = shlex.split(last.partition("to go on: ")[2])
        assert again == ["diffrender", *[word for word in command if word != "--overwrite"], "--resume"]
        assert parser.make_parser().parse_args(again[1:]).resume


# ------------------------------------------------------------------------------------------------- help, and processes


@pytest.mark.parametrize("arguments", [["--help"], ["render", "--help"], ["fit", "--help"], ["info", "--help"]])
def test_help_teaches_by_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("line", [x for text in HELP_TEXTS for x in text.splitlines() if x.startswith("  diffrender ")])
def test_examples_in_the_help_are_valid(line: str) -> None:
    command = line.split("   ")[0]
    assert parser.make_parser().parse_args(shlex.split(command)[1:]).command in ("render", "fit", "calibrate", "info")


def test_camera_file_in_the_help_is_valid(ball: str, tmp_path: Path) -> None:
    (found,) = re.findall(r"\{.*?\}", parser._RENDER_EPILOG, flags=re.DOTALL)
    (tmp_path / "c.json").write_text(found)
    out = tmp_path / "a.png"
    assert main(["render", ball, "-o", str(out), "--camera", str(tmp_path / "c.json"), "--eye", "3,0,9", *SMALL]) == 0
    assert pixels(out).shape == (64, 96, 3)


def test_help_and_mistakes_do_not_wait_for_torch() -> None:
    script = """
import sys
from diffrender.cli import main
assert main(["render", "--help"]) == 0
assert main(["render", "a.glb", "--size", "big"]) == 2
heavy = {"torch", "numpy", "warp", "trimesh"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX pipe")
def test_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    script = "import sys; from diffrender.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_m_diffrender_is_the_same_command(ball: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffrender"]
    done = subprocess.run(
        [*command, "render", ball, "-o", "a.png", *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote a.png\n", "")
    assert drawn(tmp_path / "a.png")[0].min() >= 3
    done = subprocess.run([*command, "info", "absent.glb"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "diffrender: error: no such mesh file: absent.glb\n"
