"""Corners: found where a drawing has them, stored and read back, and errors that name the file."""

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibrate_scenes import BOARD, lens, seen, views
from PIL import Image

from diffrender.calibrate import Board, Corners, detect, find_corners, load_corners, save_corners

cv2 = pytest.importorskip("cv2")


def drawing(board: Board, side: int = 40, margin: int = 60) -> np.ndarray:
    """A chessboard in 8-bit grey, seen straight, whose first inner corner lies at (margin + side, margin + side)."""
    y, x = np.mgrid[0 : (board.rows + 1) * side, 0 : (board.columns + 1) * side] // side
    return np.pad(np.where((x + y) % 2 == 0, 20, 230).astype(np.uint8), margin, constant_values=230)


def test_corners_of_a_drawing_are_where_they_were_drawn() -> None:
    """Corners between pixels have whole coordinates, for centres are at half ones."""
    board = Board(7, 5)
    found = find_corners(drawing(board), board)
    assert found is not None
    expected = 100.0 + 40 * board.points[:, :2]
    turned = expected.flip(0)  # a board seen upside down is the same board
    # cornerSubPix moves in steps that end at 1e-3 pixels.
    assert min((found - expected).abs().max(), (found - turned).abs().max()) < 5e-3


def test_an_image_without_a_board_has_no_corners() -> None:
    assert find_corners(np.full((120, 160), 128, dtype=np.uint8), Board(7, 5)) is None


def test_views_without_a_board_are_named(tmp_path: Path) -> None:
    board = Board(7, 5)
    picture = drawing(board)
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.full_like(picture, 200)).save(tmp_path / "b.png")
    corners, missed = detect([tmp_path / "a.png", tmp_path / "b.png"], board)
    assert (corners.names, missed, corners.size) == (("a.png",), ["b.png"], picture.shape)
    with pytest.raises(ValueError, match=r"7x5 inner corners .* was found in none of 1 images"):
        detect([tmp_path / "b.png"], board)
    Image.fromarray(picture[:-1]).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"one size; a.png is 440x360, c.png is 440x359"):
        detect([tmp_path / "a.png", tmp_path / "c.png"], board)
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"d\.png is no image"):
        detect([tmp_path / "d.png"], board)


def test_without_opencv_the_command_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ImportError, match=r"pip install 'diffrender\[calibrate\]'"):
        find_corners(np.zeros((9, 9), dtype=np.uint8), BOARD)


def test_corner_file_comes_back_as_it_was(tmp_path: Path) -> None:
    corners, _ = seen(views(lens("opencv"), 3), noise=0.1)
    observed = corners.observed.clone()
    observed[1, 5:9] = False
    corners = Corners(corners.names, corners.size, corners.xy, observed)
    save_corners(tmp_path / "corners.json", corners, BOARD)
    back, board = load_corners(tmp_path / "corners.json")
    assert (back.names, back.size, board) == (corners.names, corners.size, BOARD)
    assert torch.equal(back.observed, observed)
    assert torch.equal(back.xy[observed], corners.xy[observed])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"board": None}, "must hold board"),
        ({"board": [2, 6]}, "at least 3 inner corners"),
        ({"views": {"a": [[1, 2]]}}, "view a must have 48 corners"),
        ({"views": {"a": [[1, float("nan")]] * 48}}, "view a holds corners that are not finite"),
        ({"views": {"a": 7}}, "must hold board"),
        ({"views": {}}, "holds no views"),
        ({"width": None}, "must hold board"),
    ],
)
def test_bad_corner_file_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_corners(tmp_path / "c.json", seen(views(lens("pinhole"), 2))[0], BOARD)
    content = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=message):
        load_corners(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        load_corners(tmp_path / "c.json")


def test_corners_check_their_shapes() -> None:
    xy, observed = torch.zeros(2, 48, 2), torch.ones(2, 48, dtype=torch.bool)
    with pytest.raises(ValueError, match="one row for each of 1 names"):
        Corners(("a",), (4, 4), xy, observed)
    with pytest.raises(ValueError, match="observed must be a mask"):
        Corners(("a", "b"), (4, 4), xy, observed[:1])
    with pytest.raises(ValueError, match="xy must end in 2"):
        Corners(("a", "b"), (4, 4), xy[..., :1], observed)


def storage(tmp_path: Path, **changes: Any) -> Path:
    corners, _ = seen(views(lens("opencv"), 3))
    entries = {
        "imageSize": [640, 480],
        "objectPoints": [BOARD.points.numpy()[:, None]] * 3,
        "imagePoints": [xy.numpy()[:, None] - 0.5 for xy in corners.xy],
        **changes,
    }
    file = cv2.FileStorage(str(tmp_path / "corners.xml"), cv2.FILE_STORAGE_WRITE)
    for name, value in entries.items():
        file.startWriteStruct(name, cv2.FileNode_SEQ)
        for part in value:
            file.write("", part)
        file.endWriteStruct()
    file.release()
    return tmp_path / "corners.xml"


def test_opencv_s_corner_files_are_read_with_half_a_pixel_more(tmp_path: Path) -> None:
    corners, board = load_corners(storage(tmp_path))
    assert (board, corners.size, corners.names) == (BOARD, (480, 640), ("view00", "view01", "view02"))
    assert (corners.xy - seen(views(lens("opencv"), 3))[0].xy).abs().max() < 1e-9
    assert bool(corners.observed.all())


def test_opencv_s_corner_files_that_are_no_board_are_refused(tmp_path: Path) -> None:
    points = BOARD.points.numpy()[:, None]
    with pytest.raises(ValueError, match=r"corners.xml.*as many views"):
        load_corners(storage(tmp_path, objectPoints=[points, points]))
    with pytest.raises(ValueError, match="row by row"):
        load_corners(storage(tmp_path, objectPoints=[points * [1, 2, 1]] * 3))
    with pytest.raises(ValueError, match="board's 48 corners in every view"):
        load_corners(storage(tmp_path, imagePoints=[np.zeros((47, 1, 2))] * 3))
    (tmp_path / "corners.yml").write_text("%YAML:1.0\n---\nimageSize: [ 1, 2 ]\n")
    with pytest.raises(ValueError, match="no objectPoints, imagePoints"):
        load_corners(tmp_path / "corners.yml")
