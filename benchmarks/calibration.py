"""How right `diffrender calibrate` is: against OpenCV, on views held out, and on made-up photographs with a known lens.

    python benchmarks/calibration.py ../shared/data

The folder holds `opencv_chessboard/left/*.jpg` (OpenCV's sample photographs) and `omni/omni_calib_data.xml` (of its
contrib module ccalib).
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from diffrender.calibrate import Board, Calibration, Corners, calibrate, detect, find_corners, load_corners
from diffrender.calibrate.drawn_board import DrawnBoard
from diffrender.calibrate.photometric import refine_on
from diffrender.calibrate.pixels import choose_pixels, grey
from diffrender.calibrate.solve import POSE, camera_with
from diffrender.cameras import so3_log
from diffrender.io.images import decode_srgb, encode_srgb
from diffrender.least_squares import Cauchy, Named, least_squares

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from calibrate_scenes import BOARD, SIZE, lens, photographed, views

MODELS = ("fisheye", "thin_prism_fisheye", "unified", "double_sphere", "eucm")


def against_opencv(photographs: Path) -> tuple[Corners, Board, Tensor]:
    """The same corners to both; returns them, and the photographs."""
    board = Board(9, 6, 25.0)
    paths = sorted(photographs.glob("*.jpg"))
    corners, missed = detect(paths, board)
    assert not missed
    ours, seconds = timed(lambda: calibrate(corners, board))
    points = [board.points.float().numpy()] * len(paths)
    images = [(xy - 0.5).float().numpy() for xy in corners.xy]
    theirs, their_seconds = timed(
        lambda: cv2.calibrateCameraExtended(points, images, corners.size[::-1], np.eye(3), np.zeros(5))
    )
    values = [theirs[1][0, 0], theirs[1][1, 1], theirs[1][0, 2] + 0.5, theirs[1][1, 2] + 0.5]
    print(f"chessboard: RMS {ours.rms:.4f} px in {seconds:.2f} s; OpenCV {theirs[0]:.4f} px in {their_seconds:.2f} s")
    for name, value, spread in zip(("fx", "fy", "cx", "cy"), values, theirs[5].ravel()[:4], strict=True):
        own = float(ours.parameters[name])
        print(
            f"  {name} {own:.3f} ± {float(ours.deviations[name]):.3f}, OpenCV {value:.3f} ± {spread:.3f}: "
            f"{100 * (own / value - 1):+.3f} %"
        )
    return corners, board, torch.stack([grey(path) for path in paths])


def omnidirectional(file: Path) -> None:
    corners, board = load_corners(file)
    for model in MODELS:
        found, seconds = timed(lambda model=model: calibrate(corners, board, model=model))  # type: ignore[misc]
        print(
            f"omni, {model}: RMS of 15 views {found.rms:.3f} px ({found.believed_rms:.3f} without "
            f"{int(found.outliers.sum())} outliers), worst view {float(found.view_rms.max()):.3f}, {seconds:.2f} s"
        )


def held_out(corners: Corners, board: Board, images: Tensor) -> None:
    """Lenses from one half of the views, judged on the other half, where only the poses (and light) are fitted."""
    count = len(corners.names)
    total: dict[tuple[str, str], list[float]] = {}
    for fold in range(2):
        train, test = ([i for i in range(count) if (i % 2 == fold) == side] for side in (True, False))
        by_corners = calibrate(corners.select(train), board)
        by_pixels = refine_on(by_corners, images[train])
        judge = calibrate(corners.select(test), board)
        drawn = DrawnBoard(judge, choose_pixels(judge, images[test]))
        for name, lens_from in (("corners", by_corners), ("pixels", by_pixels), ("their own corners", judge)):
            values = {key: value for key, value in lens_from.solution.parameters.items() if key in judge.parameters}
            total.setdefault((name, "corners"), []).append(corner_error(values, judge))
            total.setdefault((name, "pixels"), []).append(pixel_error(values, judge, drawn))
    for name in ("corners", "pixels", "their own corners"):
        print(
            f"held out, lens from {name}: corners RMS "
            + " / ".join(f"{value:.4f}" for value in total[name, "corners"])
            + " px, pixels "
            + " / ".join(f"{value:.5f}" for value in total[name, "pixels"])
            + " of white"
        )


def corner_error(values: Named, judge: Calibration) -> float:
    """RMS of the corners with this lens, poses fitted to them."""
    start = {"rotation": so3_log(judge.camera.R), "translation": judge.camera.t}

    def residuals(poses: Named) -> Tensor:
        return camera_with(judge.camera, {**values, **poses}).project(judge.board.points)[0] - judge.corners.xy

    found = least_squares(residuals, start, per_block=POSE)
    return float(found.residuals.square().sum(-1).mean().sqrt())


def pixel_error(values: Named, judge: Calibration, drawn: DrawnBoard) -> float:
    """Median absolute difference of the pixels with this lens, poses and light fitted to them."""
    start = {name: value for name, value in drawn.start().items() if name not in values}

    def residuals(rest: Named) -> Tensor:
        return (drawn.appearance({**values, **rest}) - drawn.pixels.values)[..., None]

    found = least_squares(residuals, start, per_block=tuple(start), kernel=Cauchy(0.1), max_steps=20, tolerance=1e-6)
    return float((2 * found.cost / drawn.pixels.observed.sum()).sqrt())


def made_up(blur: float, seed: int) -> None:
    """Photographs in 8 bits with noise of a hundredth of white, of a lens that is known."""
    true = views(lens("opencv"), 10, seed=seed)
    encoded = (255 * encode_srgb(photographed(true, blur=blur, noise=0.01, seed=seed).clamp(0, 1))).round()
    exact, _ = true.project(BOARD.points)
    found = [find_corners(image.to(torch.uint8).numpy(), BOARD) for image in encoded]
    kept = [i for i, xy in enumerate(found) if xy is not None]
    # The board looks the same upside down, but for its colours: the truth says which way is up.
    upright = [
        xy if (xy - exact[i]).norm(dim=-1).median() < 3 else xy.flip(0) for i, xy in enumerate(found) if xy is not None
    ]
    xy = torch.stack(upright)
    corners = Corners(tuple(map(str, kept)), SIZE, xy, torch.ones(xy.shape[:2], dtype=torch.bool))
    by_corners = calibrate(corners, BOARD)
    by_pixels, seconds = timed(lambda: refine_on(by_corners, decode_srgb(encoded[kept] / 255)))
    detector = float((xy - exact[kept]).square().sum(-1).mean().sqrt())
    print(f"made up, blur {blur}, seed {seed}: {len(kept)} views, detector off by {detector:.3f} px; {seconds:.1f} s")
    for name, one in (("corners", by_corners), ("pixels", by_pixels)):
        off = {key: getattr(lens("opencv"), key) for key in by_corners.parameters}
        errors = [f"{key} {float(one.solution.parameters[key] - off[key]):+.3f}" for key in ("fx", "fy", "cx", "cy")]
        z = torch.cat([((one.solution.parameters[k] - off[k]) / one.solution.deviations[k]).reshape(-1) for k in off])
        away = float((one.camera.project(BOARD.points)[0] - exact[kept]).square().sum(-1).mean().sqrt())
        print(
            f"  by {name}: {', '.join(errors)}; in standard deviations, RMS {float(z.square().mean().sqrt()):.2f}; ",
            end="",
        )
        print(
            f"corners off by {away:.4f} px, boards by {float((one.camera.t - true.t[kept]).norm(dim=-1).mean()):.3f} mm"
        )


def timed(work: Callable[[], "Calibration | object"]) -> tuple:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with opencv_chessboard and omni")
    data: Path = parser.parse_args().data
    corners, board, images = against_opencv(data / "opencv_chessboard" / "left")
    omnidirectional(data / "omni" / "omni_calib_data.xml")
    by_corners = calibrate(corners, board)
    by_pixels, seconds = timed(lambda: refine_on(by_corners, images))
    print(f"chessboard by pixels, {seconds:.1f} s: corners then are off by {by_pixels.rms:.4f} px")
    for key in ("fx", "fy", "cx", "cy"):
        value, before = float(by_pixels.parameters[key]), float(by_corners.parameters[key])
        print(f"  {key} {value:.3f} ± {float(by_pixels.deviations[key]):.3f}, moved {value - before:+.3f}")
    held_out(corners, board, images)
    for blur in (0.7, 1.5):
        made_up(blur, seed=0)
