"""Calibrations: known truths come back, OpenCV agrees, outliers do not matter, what is free is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from calibrate_scenes import BOARD, SIZE, lens, seen, views
from torch import Tensor

import diffrender as dr
from diffrender.calibrate import LENSES, Board, Calibration, Corners, calibrate, detect, doubts, load_corners

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize("model", LENSES)
def test_truth_comes_back_from_exact_corners(model: str) -> None:
    true = views(lens(model))
    found = calibrate(seen(true)[0], BOARD, model=model)
    assert found.rms < 1e-10
    for name, value in found.parameters.items():
        expected = getattr(lens(model), name)
        assert (value - expected).abs().max() < 1e-6 * expected.abs().max(), name
    assert (found.camera.R - true.R).abs().max() < 1e-9
    assert (found.camera.t - true.t).abs().max() < 1e-6 * true.t.abs().max()
    assert int(found.outliers.sum()) == 0


def opencv_calibration(corners: Corners, board: Board) -> tuple[float, np.ndarray, np.ndarray]:
    """RMS, (fx, fy, cx, cy, k1, k2, p1, p2, k3) in our pixels, and their standard deviations, by OpenCV."""
    points = [board.points.float().numpy()] * len(corners.names)
    images = [(xy - 0.5).float().numpy() for xy in corners.xy]
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-12)
    size = (corners.size[1], corners.size[0])
    rms, K, dist, _, _, spread, *_ = cv2.calibrateCameraExtended(points, images, size, None, None, criteria=stop)
    return rms, np.array([K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, *dist.ravel()[:5]]), spread.ravel()[:9]


def numbers(named: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([value.reshape(-1) for value in named.values()]).numpy()


def test_opencv_finds_the_same_with_the_same_uncertainty() -> None:
    corners, _ = seen(views(lens("opencv")), noise=0.1)
    found = calibrate(corners, BOARD)
    rms, values, spread = opencv_calibration(corners, BOARD)
    assert found.rms == pytest.approx(rms, rel=2e-3)
    # Both see the same noise. The kernel gives up 1 % of efficiency: it ends sqrt(0.01) = 0.1 deviations off, usually.
    assert (np.abs(numbers(found.parameters) - values) < 0.4 * spread).all()
    assert np.abs(numbers(found.deviations) / spread - 1).max() < 0.05


def test_one_corner_in_ten_may_be_wrong() -> None:
    corners, wrong = seen(views(lens("opencv")), noise=0.1, outliers=0.1)
    assert 0.07 < float(wrong.double().mean()) < 0.13
    found = calibrate(corners, BOARD)
    assert torch.equal(found.outliers, wrong)
    assert found.believed_rms == pytest.approx(0.1 * 2**0.5, rel=0.1)
    off = numbers(found.parameters) - numbers({name: getattr(lens("opencv"), name) for name in found.parameters})
    assert (np.abs(off) < 4 * numbers(found.deviations)).all()
    assert float(found.deviations["fx"]) < 1.0
    (sentence,) = [text for text in doubts(found) if "too far off" in text]
    assert f"{int(wrong.sum())} corners" in sentence
    assert f"view3 ({int(wrong[3].sum())})" in sentence


def test_hidden_corners_do_not_count() -> None:
    corners, _ = seen(views(lens("fisheye")), noise=0.05)
    observed = corners.observed.clone()
    observed[2, :20] = observed[5, ::3] = False
    elsewhere = Corners(corners.names, SIZE, torch.where(observed[..., None], corners.xy, 3.0), observed)
    found = calibrate(elsewhere, BOARD, model="fisheye")
    assert found.rms == pytest.approx(0.05 * 2**0.5, rel=0.1)
    assert not bool(found.residuals[~observed].any())


@pytest.fixture(scope="module")
def chessboard(shared_data: Path) -> tuple[Corners, Board]:
    board = Board(9, 6, 25.0)
    corners, missed = detect(sorted((shared_data / "opencv_chessboard" / "left").glob("*.jpg")), board)
    assert (len(corners.names), missed) == (13, [])
    return corners, board


def test_photographs_give_opencv_s_calibration(chessboard: tuple[Corners, Board]) -> None:
    corners, board = chessboard
    found = calibrate(corners, board)
    rms, values, spread = opencv_calibration(corners, board)
    assert found.rms == pytest.approx(rms, rel=0.01)
    ours = numbers(found.parameters)
    assert np.abs(ours[:4] / values[:4] - 1).max() < 2e-3
    assert np.abs(numbers(found.deviations) / spread - 1).max() < 0.05
    assert doubts(found) == []


def test_photographs_name_the_view_that_was_spoiled(chessboard: tuple[Corners, Board]) -> None:
    corners, board = chessboard
    xy = corners.xy.clone()
    xy[4] += torch.randn(xy[4].shape, generator=torch.Generator().manual_seed(0), dtype=xy.dtype) * 2
    said = " ".join(doubts(calibrate(Corners(corners.names, corners.size, xy, corners.observed), board)))
    assert "fit much worse" in said
    assert corners.names[4] in said
    assert corners.names[3] not in said


@pytest.fixture(scope="module")
def omnidirectional(shared_data: Path) -> tuple[Corners, Board]:
    corners, board = load_corners(shared_data / "omni" / "omni_calib_data.xml")
    assert (board, corners.size, len(corners.names)) == (Board(6, 9, 0.2), (960, 1280), 15)
    return corners, board


def largest_angle(found: Calibration) -> float:
    """Degrees between the axis and the farthest corner."""
    points = found.camera.world_to_camera(found.board.points)
    return float(torch.rad2deg(torch.atan2(points[..., :2].norm(dim=-1), points[..., 2])).max())


def test_lens_that_sees_behind_itself_is_fitted_in_all_views(omnidirectional: tuple[Corners, Board]) -> None:
    """OpenCV's own omnidirectional calibration of the same model without skew ends at an RMS of 0.8143 pixels."""
    found = calibrate(*omnidirectional, model="unified")
    assert len(found.view_rms) == 15
    assert found.rms < 1.02 * 0.8143  # robust: not quite the least squares
    assert found.believed_rms < 0.7
    assert float(found.view_rms.max()) < 1.3
    assert largest_angle(found) == pytest.approx(102.6, abs=1.0)  # of another fit
    assert bool(found.camera.valid(found.camera.world_to_camera(found.board.points)).all())


def test_parallel_boards_are_called_parallel() -> None:
    true = lens("pinhole")
    t = torch.tensor([[-100.0, -80, 400], [-150, -60, 450], [-60, -90, 500]], dtype=torch.float64)
    corners, _ = seen(true.replace(R=torch.eye(3, dtype=torch.float64).expand(3, 3, 3), t=t), noise=0.05)
    said = doubts(calibrate(corners, BOARD, model="pinhole"))
    assert any("all boards are parallel" in text for text in said)
    assert any("only 3 views" in text for text in said)


def test_one_flat_view_too_many_leaves_nothing_determined() -> None:
    true = views(lens("pinhole"), 2)
    same = true.replace(R=true.R[:1].expand(2, 3, 3), t=true.t[:1].expand(2, 3))
    said = doubts(calibrate(seen(same)[0], BOARD, model="rational"))
    assert any("do not determine" in text or "uncertain" in text for text in said)
    assert any("view0" in text or "fx" in text for text in said)


def test_bad_arguments_are_named() -> None:
    corners, _ = seen(views(lens("pinhole"), 3))
    with pytest.raises(ValueError, match=r"model must be one of pinhole, opencv.*got 'zoom'"):
        calibrate(corners, BOARD, model="zoom")
    with pytest.raises(ValueError, match="board's 54 in every view; got 48"):
        calibrate(corners, Board(9, 6))
    with pytest.raises(ValueError, match="at least 2 views"):
        calibrate(corners.select([1]), BOARD)
    hidden = Corners(corners.names, SIZE, corners.xy, torch.arange(48).expand(3, 48) < torch.tensor([[48], [5], [48]]))
    with pytest.raises(ValueError, match="at least 6 corners; fewer are in view1"):
        calibrate(hidden, BOARD)
    with pytest.raises(ValueError, match="at least 3 inner corners"):
        Board(2, 6)
    with pytest.raises(ValueError, match="square must be a length"):
        Board(9, 6, 0.0)


def test_poses_are_exact_for_rays_all_around() -> None:
    """One board in front, one aside beyond 90 degrees, one straight behind; a fifth of the rays are wrong."""
    from diffrender.calibrate.poses import board_poses

    R = dr.so3_exp(torch.tensor([[0.3, -0.2, 0.1], [0.1, 1.9, 0.2], [3.0, 0.2, 0.1]], dtype=torch.float64))
    t = torch.tensor([[-90.0, -60, 300], [400, 30, -80], [50, 50, -350]], dtype=torch.float64)
    points = BOARD.points @ R.mT + t[:, None]
    assert float(points[1, :, 2].max()) < 0 or float(points[2, :, 2].max()) < 0
    wrong = points.clone()
    wrong[:, ::5] += 40 * torch.randn(3, 10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rays, tolerance in ((points, 1e-10), (wrong, 1e-2)):
        found, shift = board_poses(rays, BOARD.points, torch.ones(3, 48, dtype=torch.bool))
        assert (found - R).abs().max() < tolerance
        assert (shift - t).abs().max() < 300 * tolerance
