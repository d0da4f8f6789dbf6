"""From photographs, or a file of their corners, to a folder of results: the whole of `diffrender calibrate`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import report
from .board import Board
from .corners import STORAGE_SUFFIXES, Corners, detect, load_corners, save_corners
from .judge import doubts
from .photometric import refine
from .solve import Calibration, calibrate

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


# The pixels may move the corners, but hardly away from where they were found: this many times their RMS is a failure.
DISAGREE = 1.5


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """What `calibrate_to_folder` made: the calibrations, the files it wrote, and notes on what it left out.

    `by_pixels` is None where there are no photographs, or nobody asked for it; then the cameras are those by corners.
    """

    by_corners: Calibration
    by_pixels: Calibration | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def calibrate_to_folder(
    paths: Sequence[str | os.PathLike[str]],
    board: Board | None,
    out: str | os.PathLike[str],
    *,
    model: str = "opencv",
    corners_only: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> CalibrationResult:
    """Calibrate one camera and write the results into `out`.

    Args:
        paths: photographs, folders of photographs, or one corner file (see `load_corners`).
        board: what they show; None to take it from the corner file.
        out: folder, made where it does not exist.
        model: one of `LENSES`.
        corners_only: leave out the refinement on the pixels of the photographs.
        overwrite: replace files of the same names in a folder that holds files.
        progress: whether a progress bar shows on standard error.

    Writes `camera.json` (for `diffrender render --camera`), `camera.yml` (OpenCV's) and `transforms.json` (NeRF's)
    where they know the model, `metrics.json`, `corners.json` (to calibrate again without the photographs),
    `residuals.png` (of the corners), `pixels.png` (photographs, renderings, differences) and `undistorted.png`.

    Raises:
        ValueError, OSError: no photographs, no board in them, too few views, sizes that disagree, files in `out`.
        ImportError: photographs, and no OpenCV.
    """
    folder = _prepared(Path(out), overwrite)
    corners, board, photographs, notes = _corners([Path(path) for path in paths], board, progress)
    by_corners = calibrate(corners, board, model=model)
    by_pixels = None if corners_only or not photographs else _refined(by_corners, photographs, notes, progress)
    calibration = by_pixels or by_corners
    files: list[Path] = []

    def write(name: str, writer: Callable[..., Any], *arguments: Any) -> bool:
        folder.mkdir(parents=True, exist_ok=True)
        written = writer(folder / name, *arguments) is not False
        files.extend([folder / name] if written else [])
        return written

    write("camera.json", report.write_json, report.camera_entries(calibration))
    if not write("camera.yml", report.write_storage, calibration):
        notes.append(f"no camera.yml: OpenCV has no lens like {model}")
    if not write("transforms.json", report.write_transforms, calibration):
        notes.append(f"no transforms.json: it knows no lens like {model}")
    write("metrics.json", report.write_json, _metrics(by_corners, by_pixels))
    write("corners.json", save_corners, corners, board)
    if not write("residuals.png", report.write_plots, by_corners):
        notes.append("no residuals.png: it needs matplotlib, pip install 'diffrender[plots]'")
    if by_pixels is not None:
        write("pixels.png", report.write_comparison, by_pixels, photographs)
    if photographs:
        write("undistorted.png", report.write_preview, calibration, photographs[0])
    return CalibrationResult(by_corners, by_pixels, tuple(files), (*notes, *doubts(by_corners)))


def _refined(calibration: Calibration, photographs: list[Path], notes: list[str], progress: bool) -> Calibration | None:
    """By the pixels; None, and a note, where these lead away from the corners."""
    with tqdm(desc="pixels", unit="step", disable=not progress) as bar:

        def on_step(difference: float) -> None:
            bar.set_postfix(difference=f"{difference:.4f}", refresh=False)
            bar.update()

        found = refine(calibration, photographs, on_step=on_step)
    if found.rms > DISAGREE * calibration.rms:
        notes.append(
            f"the pixels disagree with the corners, which they would put {found.rms:.3f} px from where they were "
            "found: the camera is that of the corners"
        )
        return None
    return found


def _metrics(by_corners: Calibration, by_pixels: Calibration | None) -> dict[str, Any]:
    """The figures of both; at the top those of the camera that was written."""
    if by_pixels is None:
        return {"refined": False, **report.metrics(by_corners)}
    return {"refined": True, **report.metrics(by_pixels), "by_corners": report.metrics(by_corners)}


def _prepared(folder: Path, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out must be a folder; {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} holds files already: choose another folder, or replace them with overwrite")
    return folder


def _corners(paths: list[Path], board: Board | None, progress: bool) -> tuple[Corners, Board, list[Path], list[str]]:
    """The corners, the board, the photographs that show it in the same order, and notes on those that do not."""
    if len(paths) == 1 and paths[0].suffix.lower() in (".json", *STORAGE_SUFFIXES):
        corners, found = load_corners(paths[0])
        if board is not None and (board.columns, board.rows) != (found.columns, found.rows):
            raise ValueError(
                f"{paths[0]} holds corners of a board of {found.columns}x{found.rows}, not {board.columns}x{board.rows}"
            )
        return corners, board or found, [], ["no undistorted.png: there are corners, but no photographs"]
    if board is None:
        raise ValueError("board must say how many inner corners the board in the photographs has, as in 9x6")
    photographs = _photographs(paths)
    with tqdm(photographs, desc="corners", unit="image", disable=not progress) as bar:
        corners, missed = detect(bar, board)
    if len(corners.names) < 2:
        raise ValueError(
            f"the board was found in {corners.names[0]} only, and not in {', '.join(missed)}: one view is too few"
        )
    notes = [f"the board was not found in {', '.join(missed)}"] if missed else []
    by_name = {path.name: path for path in photographs}
    return corners, board, [by_name[name] for name in corners.names], notes


def _further_down(folder: Path) -> str:
    """Which of its folders, and of theirs, hold images: the rest of a sentence about the folder itself."""
    images = (file for pattern in ("*/*", "*/*/*") for file in folder.glob(pattern) if file.suffix.lower() in SUFFIXES)
    found = sorted({file.parent for file in images})
    return "" if not found else f"; there are in {', '.join(map(str, found[:3]))}{', ...' if len(found) > 3 else ''}"


def _photographs(paths: list[Path]) -> list[Path]:
    """The files, and those in the folders, in the order of their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"no images ({', '.join(SUFFIXES)}) in the folder {path}{_further_down(path)}")
            files += inside
        elif not path.exists():
            raise FileNotFoundError(f"no such image file or folder: {path}")
        else:
            files.append(path)
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"images must have different names; several are called {', '.join(twice)}")
    return files
