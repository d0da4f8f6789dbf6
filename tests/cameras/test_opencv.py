"""The distorted cameras against OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from diffrender.cameras import (
    FisheyeCamera,
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

SIZE = (480, 640)
K = np.array([[500.0, 0.0, 310.3], [0.0, 510.0, 250.7], [0.0, 0.0, 1.0]])
RVEC = np.array([0.2, -0.3, 0.1])
TVEC = np.array([0.1, 0.2, 0.5])
COEFFICIENTS = {
    4: [-0.3, 0.1, 1e-3, -2e-3],
    5: [-0.3, 0.1, 1e-3, -2e-3, -0.01],
    8: [0.4, 0.1, 1e-3, -2e-3, 0.01, 0.7, 0.2, 0.02],
    12: [0.4, 0.1, 1e-3, -2e-3, 0.01, 0.7, 0.2, 0.02, 5e-3, -1e-3, 3e-3, 2e-3],
    14: [0.4, 0.1, 1e-3, -2e-3, 0.01, 0.7, 0.2, 0.02, 5e-3, -1e-3, 3e-3, 2e-3, 0.04, -0.06],
}
MANY = 20_000  # points
# 500 px times the rounding of a few dozen operations; and of float32.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


def world_points(camera: PinholeCamera | OpenCVCamera | FisheyeCamera) -> Tensor:
    """Random points in the image: pixels of a pinhole of the same pose, well inside every lens here."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(MANY, 2, generator=generator, dtype=torch.float64) * torch.tensor([640.0, 480.0])
    depth = 0.5 + 5 * torch.rand(MANY, generator=generator, dtype=torch.float64)
    straight = PinholeCamera(500.0, 510.0, 310.8, 251.2, size=SIZE, R=camera.R.double(), t=camera.t.double())
    return straight.unproject(xy, depth)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", sorted(COEFFICIENTS))
def test_opencv_camera_projects_as_opencv_half_a_pixel_aside(count: int, dtype: torch.dtype) -> None:
    dist = np.array(COEFFICIENTS[count])
    camera = from_opencv(K, dist, rvec=RVEC, t=TVEC, size=SIZE, dtype=dtype)
    assert isinstance(camera, OpenCVCamera)
    points = world_points(camera)
    expected, _ = cv2.projectPoints(points.numpy(), RVEC, TVEC, K, dist)
    xy, depth = camera.project(points.to(dtype))
    torch.testing.assert_close(xy.double() - 0.5, torch.from_numpy(expected[:, 0]), rtol=0, atol=TOLERANCE[dtype])
    z = points @ torch.from_numpy(cv2.Rodrigues(RVEC)[0]).T + torch.from_numpy(TVEC)
    torch.testing.assert_close(depth.double(), z[:, 2], rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)


@pytest.mark.parametrize("count", sorted(COEFFICIENTS))
def test_jacobian_by_pose_and_parameters_is_opencvs(count: int) -> None:
    dist = torch.tensor(COEFFICIENTS[count], dtype=torch.float64)
    camera = from_opencv(K, dist, rvec=RVEC, t=TVEC, size=SIZE, dtype=torch.float64)
    assert isinstance(camera, OpenCVCamera)
    points = world_points(camera)[:10_000]
    _, jacobian = cv2.projectPoints(points.numpy(), RVEC, TVEC, K, dist.numpy())
    # A camera for each point, whose parameters belong to it alone: two sums have all the derivatives.
    given = (torch.from_numpy(RVEC), camera.t, camera.fx, camera.fy, camera.cx, camera.cy, camera.dist)
    leaves = [value.expand(len(points), *value.shape).clone().requires_grad_() for value in given]
    rvec, t, *intrinsics = leaves
    xy, _ = OpenCVCamera(*intrinsics, R=so3_exp(rvec), t=t, size=SIZE).project(points[:, None])
    rows = [torch.autograd.grad(part.sum(), leaves, retain_graph=True) for part in xy.unbind(-1)]
    ours = torch.stack([torch.cat([part.reshape(len(points), -1) for part in row], dim=-1) for row in rows], dim=1)
    # Relative to the largest in each column: rotation (3), translation (3), fx, fy, cx, cy, distortion.
    theirs = torch.from_numpy(jacobian).reshape(len(points), 2, -1)
    largest = theirs.abs().amax((0, 1))
    torch.testing.assert_close(ours / largest, theirs / largest, rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", sorted(COEFFICIENTS))
def test_rays_undistort_like_opencv(count: int) -> None:
    camera = from_opencv(K, COEFFICIENTS[count], size=SIZE, dtype=torch.float64)
    xy = torch.rand(MANY, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    xy = xy * torch.tensor([640.0, 480.0])
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-14)
    expected = cv2.undistortPoints(xy.numpy() - 0.5, K, np.array(COEFFICIENTS[count]), criteria=criteria)[:, 0]
    _, directions = camera.rays(xy)
    assert (directions[:, 2] == 1).all()
    # 1e-6 px, as far as OpenCV's fixed-point iteration gets.
    torch.testing.assert_close(directions[:, :2], torch.from_numpy(expected), rtol=0, atol=1e-6 / 500)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_fisheye_projects_as_opencv_within_90_degrees(dtype: torch.dtype) -> None:
    k = np.array([0.05, -0.02, 0.005, -0.001])
    camera = from_opencv_fisheye(K, k, rvec=RVEC, t=TVEC, size=SIZE, dtype=dtype)
    points = world_points(camera)
    expected, _ = cv2.fisheye.projectPoints(points.numpy()[:, None], RVEC, TVEC, K, k)
    xy, depth = camera.project(points.to(dtype))
    torch.testing.assert_close(xy.double() - 0.5, torch.from_numpy(expected[:, 0]), rtol=0, atol=TOLERANCE[dtype])
    distance = (points - camera.center.double()).norm(dim=-1)
    torch.testing.assert_close(depth.double(), distance, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0)


@pytest.mark.parametrize("count", sorted(COEFFICIENTS))
def test_conversion_from_and_to_opencv_is_a_round_trip(count: int) -> None:
    R = cv2.Rodrigues(RVEC)[0]
    camera = from_opencv(K, COEFFICIENTS[count], R=R, t=TVEC[:, None], size=SIZE, dtype=torch.float64)
    for ours, theirs in zip(to_opencv(camera), (K, COEFFICIENTS[count], R, TVEC), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_zero_distortion_is_the_pinhole() -> None:
    assert isinstance(from_opencv(K, np.zeros((1, 5)), size=SIZE), PinholeCamera)
    straight = PinholeCamera(50.0, 51.0, 30.0, 20.0, size=(40, 60))
    lens = OpenCVCamera(50.0, 51.0, 30.0, 20.0, (0.0,) * 5, size=(40, 60))
    torch.testing.assert_close(lens.rays(lens.pixel_centers()), straight.rays(straight.pixel_centers()))


def test_fisheye_without_coefficients_is_equidistant_up_to_the_far_pole() -> None:
    camera = FisheyeCamera(100.0, 100.0, 0.0, 0.0, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    theta = torch.tensor([0.0, 1e-9, 1e-4, 0.5, torch.pi / 2, 2.0, 3.14], dtype=torch.float64)
    points = 3 * torch.stack((torch.sin(theta), torch.zeros_like(theta), torch.cos(theta)), dim=-1)
    xy, depth = camera.project(points)
    torch.testing.assert_close(xy[:, 0], 100 * theta, rtol=1e-12, atol=1e-15)
    assert camera.valid(points).all()
    assert not camera.valid(torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])).any()
    torch.testing.assert_close(camera.unproject(xy, depth), points, rtol=0, atol=1e-12)
    beyond = torch.tensor([[100 * (torch.pi + 0.01), 0.0]], dtype=torch.float64)
    assert camera.rays(beyond)[1].isnan().all()


def test_fisheye_ends_where_its_polynomial_folds_back() -> None:
    # theta - 0.1 theta^3 grows up to theta = sqrt(1 / 0.3), where it is 2/3 of that.
    camera = FisheyeCamera(90.0, 90.0, 0.0, 0.0, (-0.1, 0.0, 0.0, 0.0), size=SIZE, t=torch.zeros(3).double())
    end = (1 / 0.3) ** 0.5
    theta = torch.tensor([end - 1e-6, end + 1e-6, 3.0], dtype=torch.float64)
    points = torch.stack((torch.zeros_like(theta), torch.sin(theta), torch.cos(theta)), dim=-1)
    assert camera.valid(points).tolist() == [True, False, False]
    radius = 90 * end * 2 / 3
    xy = torch.tensor([[0.0, radius - 1e-6], [0.0, radius + 1e-6]], dtype=torch.float64)
    assert camera.rays(xy)[1].isnan().any(-1).tolist() == [False, True]


def test_barrel_distortion_ends_where_it_folds_back() -> None:
    # r - 0.3 r^3 grows up to r = sqrt(1 / 0.9).
    camera = OpenCVCamera(100.0, 100.0, 0.0, 0.0, (-0.3, 0.0, 0.0, 0.0), size=SIZE, t=torch.zeros(3).double())
    end = (1 / 0.9) ** 0.5
    points = torch.tensor([[end - 1e-6, 0.0, 1.0], [end + 1e-6, 0.0, 1.0], [100.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    assert camera.valid(points.double()).tolist() == [True, False, False, False]
    xy = torch.tensor([[100 * end * 2 / 3 - 1e-6, 0.0], [100 * end * 2 / 3 + 1e-6, 0.0]], dtype=torch.float64)
    assert camera.rays(xy)[1].isnan().any(-1).tolist() == [False, True]


def test_rational_distortion_ends_at_its_pole() -> None:
    # r / (1 - r^2) grows without bound up to r = 1.
    camera = OpenCVCamera(10.0, 10.0, 0.0, 0.0, (0.0,) * 5 + (-1.0, 0.0, 0.0), size=SIZE, t=torch.zeros(3).double())
    points = torch.tensor([[0.99, 0.0, 1.0], [1.01, 0.0, 1.0], [5.0, 0.0, 1.0]], dtype=torch.float64)
    assert camera.valid(points).tolist() == [True, False, False]
    xy, depth = camera.project(points[:1])
    torch.testing.assert_close(camera.unproject(xy, depth), points[:1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", sorted(COEFFICIENTS))
def test_valid_points_of_a_distorted_camera_come_back(count: int) -> None:
    camera = OpenCVCamera(500.0, 510.0, 320.0, 240.0, COEFFICIENTS[count], size=SIZE, t=torch.zeros(3).double())
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20_000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.5])
    points = points[camera.valid(points)]
    # Not up to the fold itself, where the inverse has an infinite slope.
    points = points[points[:, :2].norm(dim=-1) < 1.0 * points[:, 2]]
    assert len(points) > 1000
    xy, depth = camera.project(points)
    torch.testing.assert_close(camera.unproject(xy, depth), points, rtol=0, atol=1e-9)


FAR_OUT = {
    **{f"{count} coefficients": COEFFICIENTS[count] for count in COEFFICIENTS},
    "strong tilt and prism": [0.3, 0.1, 1e-3, -2e-3, 0.01, 0.5, 0.1, 0.02, 0.02, -0.01, 0.03, 0.01, 0.15, -0.2],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FAR_OUT)
def test_what_is_valid_far_out_comes_back(name: str, dtype: torch.dtype) -> None:
    """Prism terms turn the plane over and back again, 80 degrees off the axis: what lies beyond is not valid."""
    camera = OpenCVCamera(500.0, 510.0, 320.0, 240.0, FAR_OUT[name], size=SIZE, t=torch.zeros(3, dtype=dtype))
    angle = torch.deg2rad(torch.linspace(0.0, 89.9, 300, dtype=torch.float64))[:, None]
    around = torch.linspace(0.0, 2 * torch.pi, 73, dtype=torch.float64)
    aside = torch.sin(angle)
    points = torch.stack(torch.broadcast_tensors(aside * around.cos(), aside * around.sin(), torch.cos(angle)), dim=-1)
    points = points.to(dtype).reshape(-1, 3)
    valid = camera.valid(points)
    assert valid[points[:, 2] > 0.85].all()  # 30 degrees
    xy, depth = camera.project(points)
    assert torch.isfinite(xy).all()
    back = camera.unproject(xy[valid], depth[valid])
    assert torch.isfinite(back).all()
    off = (back - points[valid]).norm(dim=-1)
    assert float(off.max()) < (1e-2 if dtype == torch.float32 else 1e-5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"dist must hold \(4, 5, 8, 12, 14\) coefficients.*got 6"):
        OpenCVCamera(1.0, 1.0, 0.0, 0.0, (0.0,) * 6, size=SIZE)
    with pytest.raises(ValueError, match=r"k must hold at most 4 coefficients.*got 5"):
        FisheyeCamera(1.0, 1.0, 0.0, 0.0, (0.0,) * 5, size=SIZE)
    skewed = K.copy()
    skewed[0, 1] = 1.0
    with pytest.raises(ValueError, match="without skew"):
        from_opencv(skewed, size=SIZE)
    with pytest.raises(ValueError, match=r"K must have shape \(3, 3\)"):
        from_opencv(K[:2], size=SIZE)
    with pytest.raises(ValueError, match="transposed"):
        from_opencv(np.diag([1.0, 1.0, 2.0]), size=SIZE)
    with pytest.raises(ValueError, match="R and rvec"):
        from_opencv(K, R=np.eye(3), rvec=RVEC, size=SIZE)
    with pytest.raises(TypeError, match="OpenCV has no OrthographicCamera"):
        to_opencv(OrthographicCamera(1.0, 1.0, 0.0, 0.0, size=SIZE))
    camera = from_opencv(K, size=SIZE)
    with pytest.raises(ValueError, match="must be a single one"):
        to_opencv(stack_cameras([camera, camera]))


def test_poses_of_opencv_and_ours_are_the_same_rotations() -> None:
    torch.testing.assert_close(so3_exp(torch.from_numpy(RVEC)), torch.from_numpy(cv2.Rodrigues(RVEC)[0]))
    R, t = look_at(torch.tensor([1.0, 2.0, 3.0]).double())
    rvec = cv2.Rodrigues(R.numpy())[0]
    camera = from_opencv(K, rvec=rvec, t=t, size=SIZE, dtype=torch.float64)
    torch.testing.assert_close(camera.center, torch.tensor([1.0, 2.0, 3.0]).double())
