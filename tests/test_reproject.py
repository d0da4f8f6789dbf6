"""Images seen by other cameras: against OpenCV's maps, homographies, and functions of the direction."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    Camera,
    EquirectangularCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    from_opencv,
    from_opencv_fisheye,
    look_at,
    so3_exp,
    stack_cameras,
    to_opencv,
)
from diffrender.io.images import load_image
from diffrender.reproject import (
    rectified_cameras,
    rectify,
    reproject,
    reprojection_map,
    undistort,
    undistorted_camera,
)

SIZE = (48, 64)
K = np.array([[50.0, 0.0, 30.3], [0.0, 51.0, 24.7], [0.0, 0.0, 1.0]])
DIST = np.array([-0.2, 0.05, 1e-3, -2e-3, 0.01])
KB = np.array([0.05, -0.01, 0.003, -0.001])


def camera() -> Camera:
    return from_opencv(K, DIST, size=SIZE, dtype=torch.float64)


def smooth_image(cameras: Camera) -> Tensor:
    """[H, W, 3] a smooth function of the direction in the world."""
    _, directions = cameras.rays(cameras.pixel_centers().reshape(-1, 2))
    unit = directions / directions.norm(dim=-1, keepdim=True)
    return torch.sin(3 * unit + 1).nan_to_num(nan=0.0).reshape(*cameras.size, 3)


def numpy_map(xy: Tensor) -> np.ndarray:
    """In OpenCV's pixels."""
    return xy[..., 0, :].numpy() - 0.5


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_map_is_opencvs(alpha: float) -> None:
    """To float64 against `projectPoints`, and to float32, in which `initUndistortRectifyMap` works."""
    pinhole = undistorted_camera(camera(), alpha=alpha)
    ours = numpy_map(reprojection_map(camera(), pinhole)[0])
    new_K, _, _, _ = to_opencv(pinhole)
    _, rays = pinhole.local_rays(pinhole.pixel_centers().reshape(-1, 2))
    exact, _ = cv2.projectPoints(rays.numpy(), np.zeros(3), np.zeros(3), K, DIST)
    np.testing.assert_allclose(ours.reshape(-1, 2), exact[:, 0], rtol=0, atol=1e-11)
    maps = cv2.initUndistortRectifyMap(K, DIST, np.eye(3), new_K, SIZE[::-1], cv2.CV_32FC1)
    np.testing.assert_allclose(ours, np.stack(maps, axis=-1), rtol=0, atol=1e-4)


def test_fisheye_map_is_opencvs() -> None:
    fisheye = from_opencv_fisheye(K, KB, size=SIZE, dtype=torch.float64)
    pinhole = undistorted_camera(fisheye, alpha=0.5, size=(60, 70))
    new_K, _, _, _ = to_opencv(pinhole)
    maps = cv2.fisheye.initUndistortRectifyMap(K, KB, np.eye(3), new_K, (70, 60), cv2.CV_32FC1)
    ours, _ = reprojection_map(fisheye, pinhole)
    np.testing.assert_allclose(numpy_map(ours), np.stack(maps, axis=-1), rtol=0, atol=1e-4)


def test_image_is_that_of_remap_to_its_fixed_point() -> None:
    """`cv2.remap` rounds coordinates to 1/32 pixel: at most 1/64 off in x and in y."""
    image = smooth_image(camera())
    straight, pinhole, valid = undistort(image, camera())
    new_K, _, _, _ = to_opencv(pinhole)
    maps = cv2.initUndistortRectifyMap(K, DIST, np.eye(3), new_K, SIZE[::-1], cv2.CV_32FC1)
    remapped = cv2.remap(image.float().numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    steepest = float(image.diff(dim=0).abs().max() + image.diff(dim=1).abs().max())
    assert bool(valid.all())
    np.testing.assert_allclose(straight.numpy(), remapped, rtol=0, atol=steepest / 64 + 1e-6)


def test_lines_of_a_photographed_board_become_straight(shared_data: Path) -> None:
    """Corners of a chessboard, of the photograph and of the undistorted one, against the lines through them."""
    folder = shared_data / "opencv_chessboard"
    storage = cv2.FileStorage(str(folder / "left_intrinsics.yml"), cv2.FILE_STORAGE_READ)
    matrix, dist = (storage.getNode(name).mat() for name in ("camera_matrix", "distortion_coefficients"))
    photograph = load_image(folder / "left" / "left12.jpg")
    straight, _, _ = undistort(photograph, from_opencv(matrix, dist, size=(480, 640)))

    def bend(image: Tensor) -> float:
        grey = (image.mean(-1) ** (1 / 2.2) * 255).byte().numpy()
        found, corners = cv2.findChessboardCorners(grey, (9, 6))
        assert found
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
        grid = cv2.cornerSubPix(grey, corners, (5, 5), (-1, -1), stop).reshape(6, 9, 2)
        lines = [*grid, *grid.transpose(1, 0, 2)]
        return max(float(np.linalg.svd(line - line.mean(0))[1][1]) / len(line) ** 0.5 for line in lines)

    assert bend(photograph) > 0.8
    assert bend(straight) < 0.25  # pixels RMS: what detecting corners leaves


@pytest.mark.parametrize("pitch", [0.0, 0.05])
def test_rectification_is_that_of_stereo_rectify(pitch: float) -> None:
    """Rotations to rounding; then matches lie in the same row, whatever their depth."""
    rvec, tvec = np.array([pitch, -0.1, 0.03]), np.array([-0.4, 0.03, 0.05])
    R, t = look_at(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    left = camera().replace(R=R, t=t)
    turn = torch.from_numpy(cv2.Rodrigues(rvec)[0])
    right = from_opencv(K, DIST, size=SIZE, R=turn @ R, t=turn @ t + torch.from_numpy(tvec), dtype=torch.float64)
    first, second = rectified_cameras(left, right)
    R1, R2, *_ = cv2.stereoRectify(K, DIST, K, DIST, SIZE[::-1], turn.numpy(), tvec[:, None])
    np.testing.assert_allclose(first.R @ left.R.mT, R1, rtol=0, atol=1e-9)
    np.testing.assert_allclose(second.R @ right.R.mT, R2, rtol=0, atol=1e-9)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (xy, depth), (other, _) = first.project(points), second.project(points)
    torch.testing.assert_close(xy[:, 1], other[:, 1], rtol=0, atol=1e-9)
    baseline = float(np.linalg.norm(tvec))
    torch.testing.assert_close((xy - other)[:, 0], first.fx * baseline / depth, rtol=1e-9, atol=0)


def test_rectified_images_show_what_their_cameras_see() -> None:
    left = camera()
    right = left.replace(R=so3_exp(torch.tensor([0.02, -0.05, 0.01], dtype=torch.float64)), t=(-0.3, 0.0, 0.0))
    for image, pinhole, valid in rectify(smooth_image(left), smooth_image(right), left, right):
        assert bool(valid.all())
        # bilinear interpolation: h^2 / 8 of second derivatives below 9 / 50^2, in x and in y
        inner = slice(1, -1)  # at the border "clamp" holds the colour over half a pixel
        expected = smooth_image(pinhole)[inner, inner]
        torch.testing.assert_close(image[inner, inner], expected, rtol=0, atol=2 * 9 / 50**2 / 8 * 1.5)


def test_cameras_above_each_other_are_rectified_along_columns() -> None:
    upper = camera()
    first, second = rectified_cameras(upper, upper.replace(t=(0.0, -0.5, 0.0)))
    points = torch.tensor([[0.3, 0.2, 3.0], [0.1, -0.4, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(first.project(points)[0][:, 0], second.project(points)[0][:, 0], rtol=0, atol=1e-10)


def test_panorama_shows_every_direction_where_it_is() -> None:
    R, t = look_at(torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64))
    source = from_opencv_fisheye(K, KB, size=SIZE, R=R, t=t, dtype=torch.float64)
    panorama = EquirectangularCamera(size=(64, 128), R=so3_exp(torch.tensor([0.3, 0.2, 0.1]))).to(dtype=torch.float64)
    view, valid = reproject(smooth_image(source), source, panorama)
    assert 0.05 < float(valid.double().mean()) < 0.3
    # as above; within half a pixel of the border, "clamp" holds the colour: half a pixel of slope 3 / 50
    torch.testing.assert_close(view[valid], smooth_image(panorama)[valid], rtol=0, atol=0.5 * 3 / 45)
    assert not view[~valid].any()


def test_seam_of_a_panorama_does_not_show() -> None:
    panorama = EquirectangularCamera(size=(128, 256)).to(dtype=torch.float64)
    behind = so3_exp(torch.tensor([0.0, torch.pi, 0.0], dtype=torch.float64))
    target = PinholeCamera(40.0, 40.0, 32.0, 24.0, size=SIZE, R=behind)
    view, valid = reproject(smooth_image(panorama), panorama, target, padding=("wrap", "clamp"))
    assert bool(valid.all())
    torch.testing.assert_close(view, smooth_image(target), rtol=0, atol=2 * 9 / 40**2 / 8 * 1.5)


def test_plane_is_a_homography() -> None:
    """H = K' (R' - t' n^T) K^-1 of Hartley & Zisserman, equation 13.2, for the plane n x + 1 = 0 and K (I, 0)."""
    target = PinholeCamera(50.0, 52.0, 31.0, 23.0, size=SIZE).to(dtype=torch.float64)
    R = so3_exp(torch.tensor([0.05, 0.1, -0.02], dtype=torch.float64))
    source = PinholeCamera(60.0, 61.0, 33.0, 25.0, size=SIZE, R=R, t=(0.1, -0.2, 0.3))
    normal = torch.tensor([0.1, 0.05, -0.4], dtype=torch.float64)  # n x = -1: about 2.5 ahead
    xy, _ = reprojection_map(source, target, plane=torch.cat((normal, normal.new_tensor([-1.0]))))
    H = source.intrinsics @ (R - source.t[:, None] * normal) @ torch.linalg.inv(target.intrinsics)
    pixels = target.pixel_centers()
    mapped = torch.cat((pixels, torch.ones_like(pixels[..., :1])), dim=-1) @ H.mT
    torch.testing.assert_close(xy[..., 0, :], mapped[..., :2] / mapped[..., 2:], rtol=0, atol=1e-10)


def test_depth_of_a_plane_gives_what_the_plane_gives() -> None:
    source, target = camera().replace(t=(0.2, 0.0, 0.0)), camera()
    flat, valid = reprojection_map(source, target, plane=(0.0, 0.0, 1.0, 3.0))  # z = 3
    for depth in (3.0, torch.full(SIZE, 3.0, dtype=torch.float64)):
        xy, also = reprojection_map(source, target, depth=depth)
        torch.testing.assert_close(xy, flat, equal_nan=True)
        assert torch.equal(valid, also)


def test_depth_that_is_nowhere_is_invalid() -> None:
    depth = torch.full(SIZE, 3.0, dtype=torch.float64)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = torch.inf, torch.nan, 0.0, -1.0
    image, valid = reproject(torch.ones(*SIZE, 1, dtype=torch.float64), camera(), camera(), depth=depth)
    assert not valid[0, :4].any()
    assert bool(valid[1:].all())
    assert torch.equal(image[..., 0], valid.double())


def test_several_lookups_are_the_mean_of_the_pixels_that_shrink() -> None:
    source = PinholeCamera(50.0, 50.0, 32.0, 24.0, size=SIZE).to(dtype=torch.float64)
    image = torch.rand(*SIZE, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small, valid = reproject(image, source, source.resize((12, 16)), samples=4)
    torch.testing.assert_close(small, image.reshape(12, 4, 16, 4, 2).mean((1, 3)), rtol=0, atol=1e-12)
    assert bool(valid.all())


def test_batches_are_their_parts() -> None:
    turns = [so3_exp(torch.tensor([0.0, angle, 0.0], dtype=torch.float64)) for angle in (0.1, -0.2)]
    targets = [undistorted_camera(camera()).replace(R=turn) for turn in turns]
    image = smooth_image(camera())
    both, valid = reproject(image, camera(), stack_cameras(targets))
    assert both.shape == (2, *SIZE, 3)
    for i, target in enumerate(targets):
        one, seen = reproject(image, camera(), target)
        torch.testing.assert_close(both[i], one)
        assert torch.equal(valid[i], seen)
    stacked, _ = reproject(torch.stack((image, 2 * image)), camera(), targets[0])
    torch.testing.assert_close(stacked[1], 2 * stacked[0])


def test_gradients_to_image_and_all_parameters_are_those_of_differences() -> None:
    """Bicubic, which is smooth; pixels that appear or vanish at the border count in neither."""
    image = smooth_image(camera())[::8, ::8, :1].contiguous()
    lens = camera().resize((6, 8))
    inner = undistorted_camera(lens).crop(2, 2, 3, 4)
    assert isinstance(lens, OpenCVCamera)

    def view(
        image: Tensor, dist: Tensor, fx: Tensor, t: Tensor, target_fx: Tensor, twist: Tensor, depth: Tensor
    ) -> Tensor:
        source = lens.replace(dist=dist, fx=fx, t=t)
        target = inner.replace(fx=target_fx, R=so3_exp(twist))
        seen, valid = reproject(image, source, target, depth=depth, mode="bicubic")
        assert bool(valid.all())
        return seen

    generator = torch.Generator().manual_seed(0)
    inputs = (
        image,
        lens.dist,
        lens.fx,
        torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64),
        inner.fx,
        torch.tensor([0.01, -0.02, 0.01], dtype=torch.float64),
        2 + torch.rand(3, 4, generator=generator, dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(view, [value.detach().clone().requires_grad_() for value in inputs])


def test_gradients_stay_finite_where_nothing_is_seen() -> None:
    """A panorama through a pinhole: most of it lies behind."""
    fx = torch.tensor(30.0, dtype=torch.float64, requires_grad=True)
    source = PinholeCamera(fx, 30.0, 32.0, 24.0, size=SIZE)
    panorama = EquirectangularCamera(size=(20, 40)).to(dtype=torch.float64)
    view, valid = reproject(smooth_image(source).detach(), source, panorama)
    view.sum().backward()
    assert 0 < int(valid.sum()) < valid.numel() / 2
    assert fx.grad is not None
    assert bool(torch.isfinite(fx.grad))


@pytest.mark.parametrize("size", [None, (30, 50), (64, 48)])
def test_alpha_crops_to_what_is_seen_or_keeps_all(size: tuple[int, int] | None) -> None:
    tight, wide = (undistorted_camera(camera(), alpha=alpha, size=size) for alpha in (0.0, 1.0))
    assert tight.size == wide.size == (size or SIZE)
    assert float(tight.fx) == float(tight.fy) > float(wide.fx)
    _, valid = reprojection_map(camera(), tight)
    assert bool(valid.all())
    _, valid = reprojection_map(camera(), tight.replace(fx=0.97 * tight.fx, fy=0.97 * tight.fy))
    assert not bool(valid.all())  # a little less would be too little
    _, rays = camera().local_rays(camera().pixel_centers().reshape(-1, 2))
    xy, _ = wide.local_project(rays)
    assert bool(((xy >= 0) & (xy <= xy.new_tensor([wide.width, wide.height]))).all())


def test_focal_lengths_are_near_those_of_opencv() -> None:
    """The same rule for a centred lens, but there with 9 x 9 points between pixel centres, and an integer middle."""
    centred = K.copy()
    centred[0, 0], centred[:2, 2] = 51.0, (31.5, 23.5)
    lens = from_opencv(centred, DIST[:2].tolist() + [0.0, 0.0], size=SIZE, dtype=torch.float64)
    for alpha in (0.0, 1.0):
        theirs, _ = cv2.getOptimalNewCameraMatrix(
            centred, np.array([*DIST[:2], 0, 0]), SIZE[::-1], alpha, centerPrincipalPoint=True
        )
        assert float(undistorted_camera(lens, alpha=alpha).fx) == pytest.approx(theirs[0, 0], rel=0.03)


def test_wide_lens_is_shown_up_to_75_degrees() -> None:
    """An equidistant fisheye that sees 160 degrees from side to side, and nothing in its corners."""
    fisheye = from_opencv_fisheye(np.array([[22.9, 0, 31.5], [0, 22.9, 23.5], [0, 0, 1]]), np.zeros(4), size=SIZE)
    wide = undistorted_camera(fisheye, alpha=1.0)
    # The circle of 75 degrees leaves the image at its lower side, 24 pixels from the middle: y = 24 / radius tan(75).
    assert float(wide.fx) == pytest.approx(22.9 * np.radians(75) / np.tan(np.radians(75)), rel=0.01)
    tight = undistorted_camera(fisheye)
    assert bool(reprojection_map(fisheye, tight)[1].all())


def test_what_does_not_fit_is_said() -> None:
    image, flat = torch.ones(*SIZE, 1), OrthographicCamera(10.0, 10.0, 32.0, 24.0, size=SIZE)
    pinhole = PinholeCamera(50.0, 50.0, 32.0, 24.0, size=SIZE)
    with pytest.raises(ValueError, match=r"of the source's size \(48, 64\); got \(64, 48, 1\) float32"):
        reproject(image.transpose(0, 1), pinhole, pinhole)
    with pytest.raises(ValueError, match="samples must be at least 1; got 0"):
        reproject(image, pinhole, pinhole, samples=0)
    with pytest.raises(ValueError, match="depth and plane say the same thing"):
        reproject(image, pinhole, pinhole, depth=1.0, plane=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="must each have one centre to see at infinity: give a depth or a plane"):
        reproject(image, pinhole, flat)
    with pytest.raises(ValueError, match=r"depth must be a number or \[\*batch, H, W\] .* \(48, 64\); got \(4, 5\)"):
        reproject(image, pinhole, pinhole, depth=torch.ones(4, 5))
    with pytest.raises(ValueError, match="plane must be four numbers"):
        reproject(image, pinhole, pinhole, plane=(0, 0, 0, 1))
    with pytest.raises(ValueError, match=r"alpha must lie between 0 \(crop\) and 1 \(keep all\); got 1.5"):
        undistorted_camera(pinhole, alpha=1.5)
    with pytest.raises(ValueError, match=r"a single camera; got a batch of \(2,\)"):
        undistorted_camera(stack_cameras([pinhole, pinhole]))
    with pytest.raises(ValueError, match="must be a camera with one centre; got OrthographicCamera"):
        undistorted_camera(flat)
    with pytest.raises(ValueError, match="must stand in different places; got a baseline of length 0"):
        rectified_cameras(pinhole, pinhole)
    backward = pinhole.replace(R=so3_exp(torch.tensor([0.0, 3.1, 0.0])), t=(1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="camera must see the middle of its image within 75 degrees of the new axis"):
        rectified_cameras(pinhole, backward)


def test_code_of_the_page_on_formats_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "formats.md", "exec"), names)
    assert names["straight"].shape == (96, 128, 3)
    assert 0 < int(names["seen"].sum()) < names["seen"].numel() / 2
