"""Converters: the same point in the same pixel, by the formulas that the others' documentation gives."""

import math
from typing import Any

import kornia
import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OrthographicCamera,
    PinholeCamera,
    UnifiedCamera,
    from_kornia,
    from_opencv_omnidir,
    from_opengl,
    from_pytorch3d,
    from_pytorch3d_fov,
    from_trimesh,
    look_at,
    stack_cameras,
    to_kornia,
    to_opencv,
    to_opengl,
    to_pytorch3d,
    to_trimesh,
)

SIZE = (48, 80)
R, T = look_at(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
POINTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PINHOLE = PinholeCamera(50.0, 55.0, 37.3, 20.9, size=SIZE, R=R, t=T)
PARALLEL = OrthographicCamera(9.0, 8.0, 37.3, 20.9, size=SIZE, R=R, t=T)
EXACT = {"rtol": 0, "atol": 1e-11}  # float64 at pixels below 1000


def assert_same(actual: Camera, expected: Camera) -> None:
    assert type(actual) is type(expected)
    assert actual.size == expected.size
    for name, value in expected._tensors().items():
        torch.testing.assert_close(getattr(actual, name).reshape(value.shape), value, **EXACT)


# --- OpenGL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [PINHOLE, PARALLEL], ids=["pinhole", "parallel"])
def test_clip_coordinates_become_our_pixels_in_the_window(camera: Camera) -> None:
    """The viewport transform of the specification: x_w = (x_ndc + 1) w / 2; y_w from below; depth between -1 and 1."""
    near, far = 0.5, 20.0
    projection, view = to_opengl(camera, near=near, far=far)
    clip = torch.cat((POINTS, torch.ones_like(POINTS[:, :1])), dim=-1) @ (projection @ view).mT
    ndc = clip[:, :3] / clip[:, 3:]
    window = torch.stack(((ndc[:, 0] + 1) * SIZE[1] / 2, SIZE[0] - (ndc[:, 1] + 1) * SIZE[0] / 2), dim=-1)
    xy, depth = camera.project(POINTS)
    torch.testing.assert_close(window, xy, **EXACT)
    inverse = far * near / (far - near) * (1 / near - 1 / depth) if camera is PINHOLE else (depth - near) / (far - near)
    torch.testing.assert_close(ndc[:, 2], 2 * inverse - 1, **EXACT)


def test_projection_is_that_of_gl_frustum() -> None:
    """glFrustum's matrix of the OpenGL 2.1 specification, equation 2.11, with the frustum of the image's edges."""
    n, f = 0.5, 20.0
    fx, fy, cx, cy = (float(getattr(PINHOLE, name)) for name in ("fx", "fy", "cx", "cy"))
    left, right, top, bottom = -cx * n / fx, (SIZE[1] - cx) * n / fx, cy * n / fy, -(SIZE[0] - cy) * n / fy
    expected = torch.tensor(
        [
            [2 * n / (right - left), 0, (right + left) / (right - left), 0],
            [0, 2 * n / (top - bottom), (top + bottom) / (top - bottom), 0],
            [0, 0, -(f + n) / (f - n), -2 * f * n / (f - n)],
            [0, 0, -1, 0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(to_opengl(PINHOLE, near=n, far=f)[0], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("camera", [PINHOLE, PARALLEL], ids=["pinhole", "parallel"])
def test_opengl_there_and_back(camera: Camera) -> None:
    assert_same(from_opengl(*to_opengl(camera, near=0.1, far=9.0), size=SIZE), camera)
    batch = stack_cameras([camera, camera.replace(cx=10.0)])
    assert_same(from_opengl(*to_opengl(batch, near=0.1, far=9.0), size=SIZE), batch)


def test_opengl_matrices_that_do_not_fit_are_refused() -> None:
    projection, view = to_opengl(PINHOLE, near=0.1, far=9.0)
    with pytest.raises(ValueError, match=r"projection must end in the row .* is it transposed?"):
        from_opengl(projection.mT, view, size=SIZE)
    skewed = projection.clone()
    skewed[0, 1] = 0.1
    with pytest.raises(ValueError, match="projection must be without skew"):
        from_opengl(skewed, view, size=SIZE)
    with pytest.raises(ValueError, match=r"view must end in \(4, 4\); got \(3, 4\)"):
        from_opengl(projection, view[:3], size=SIZE)
    with pytest.raises(ValueError, match="R must be a rotation"):
        from_opengl(projection, 2 * view, size=SIZE)
    with pytest.raises(ValueError, match="near and far must be growing depths, above 0 for a pinhole; got 0 and 1"):
        to_opengl(PINHOLE, near=0, far=1)
    with pytest.raises(TypeError, match="OpenGL's matrices hold no FisheyeCamera"):
        to_opengl(FisheyeCamera(1.0, 1.0, 1.0, 1.0, size=SIZE), near=0.1, far=1.0)


# --- PyTorch3D ----------------------------------------------------------------------------------------------------


def pytorch3d_screen(R: Tensor, T: Tensor, f: Tensor, p: Tensor, in_ndc: bool, orthographic: bool = False) -> Tensor:
    """Pixels of POINTS, written down from PyTorch3D's page on cameras: view rows, NDC to the left and up, screen."""
    view = POINTS @ R + T
    depth = 1.0 if orthographic else view[:, 2:]
    s, (height, width) = min(SIZE), SIZE
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    if not in_ndc:  # the documented conversion of screen parameters: f_ndc = f 2 / s, p_ndc = -(p - W / 2) 2 / s
        f, p = f * 2 / s, -(p - half) * 2 / s
    ndc = f * view[:, :2] / depth + p
    return half - ndc * s / 2


@pytest.mark.parametrize("camera", [PINHOLE, PARALLEL], ids=["pinhole", "parallel"])
def test_pytorch3d_sees_the_same(camera: Camera) -> None:
    given = to_pytorch3d(camera)
    R, T, f, p = (given[name][0] for name in ("R", "T", "focal_length", "principal_point"))
    parallel = camera is PARALLEL
    torch.testing.assert_close(pytorch3d_screen(R, T, f, p, False, parallel), camera.project(POINTS)[0], **EXACT)
    assert given["image_size"].tolist() == [[48.0, 80.0]]
    back = from_pytorch3d(R, T, f, p, size=SIZE, in_ndc=False, orthographic=parallel)
    assert_same(back, camera)


def test_pytorch3d_ndc_is_measured_by_the_shorter_side() -> None:
    given = to_pytorch3d(PINHOLE)
    f, p = torch.tensor([1.7, 1.9]).double(), torch.tensor([0.2, -0.1]).double()
    for focal in (f, f[:1]):
        camera = from_pytorch3d(given["R"][0], given["T"][0], focal, p, size=SIZE, in_ndc=True)
        expected = pytorch3d_screen(given["R"][0], given["T"][0], focal, p, True)
        torch.testing.assert_close(camera.project(POINTS)[0], expected, **EXACT)


def test_pytorch3d_field_of_view_is_that_of_the_shorter_side() -> None:
    """K of FoVPerspectiveCameras: 1 / tan(fov / 2) in y, that over the pixel's aspect in x."""
    given = to_pytorch3d(PINHOLE)
    R, T = given["R"], given["T"]
    fov = torch.tensor([40.0, 70.0], dtype=torch.float64)
    cameras = from_pytorch3d_fov(R.expand(2, 3, 3), T.expand(2, 3), fov, aspect_ratio=1.25, size=SIZE)
    for i, angle in enumerate(fov.tolist()):
        s = 1 / math.tan(math.radians(angle) / 2)
        f = torch.tensor([s / 1.25, s], dtype=torch.float64)
        expected = pytorch3d_screen(R[0], T[0], f, torch.zeros(2, dtype=torch.float64), True)
        torch.testing.assert_close(cameras[i].project(POINTS)[0], expected, **EXACT)
    radians = from_pytorch3d_fov(R[0], T[0], math.radians(40), aspect_ratio=1.25, size=SIZE, degrees=False)
    torch.testing.assert_close(radians.fx, cameras.fx[0], **EXACT)


def test_pytorch3d_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"focal_length must end in 1 or 2; got \(3,\)"):
        from_pytorch3d(R, T, torch.ones(3), torch.ones(2), size=SIZE, in_ndc=True)
    with pytest.raises(TypeError, match="PyTorch3D's own cameras are no FisheyeCamera"):
        to_pytorch3d(FisheyeCamera(1.0, 1.0, 1.0, 1.0, size=SIZE))


@pytest.mark.filterwarnings("ignore")  # its own
@pytest.mark.parametrize("size", [(48, 80), (80, 48)], ids=["wide", "tall"])
def test_pytorch3d_itself_sees_the_same(size: tuple[int, int]) -> None:
    """In float32, which is all that its transforms take."""
    theirs = pytest.importorskip("pytorch3d.renderer.cameras")
    points, single = POINTS.float(), {"rtol": 1e-5, "atol": 1e-4}

    def screen(camera: Any) -> Tensor:
        return camera.transform_points_screen(points, image_size=[size])[..., :2].reshape(-1, 2)

    for kind, ours in ((theirs.PerspectiveCameras, PINHOLE), (theirs.OrthographicCameras, PARALLEL)):
        ours = ours.crop(0, 0, *size).to(dtype=torch.float32)
        given = to_pytorch3d(ours)
        torch.testing.assert_close(screen(kind(**given)), ours.project(points)[0], **single)
        R, T, f, p = given["R"], given["T"], torch.tensor([[1.7, 1.9]]), torch.tensor([[0.2, -0.1]])
        camera = from_pytorch3d(R, T, f, p, size=size, in_ndc=True, orthographic=not ours.is_central)
        ndc = kind(R=R, T=T, focal_length=f, principal_point=p, in_ndc=True)
        torch.testing.assert_close(screen(ndc), camera[0].project(points)[0], **single)
    by_angle = theirs.FoVPerspectiveCameras(R=R, T=T, fov=40.0, aspect_ratio=1.25)
    camera = from_pytorch3d_fov(R[0], T[0], 40.0, aspect_ratio=1.25, size=size)
    torch.testing.assert_close(screen(by_angle), camera.project(points)[0], **single)


# --- kornia and trimesh -------------------------------------------------------------------------------------------


def test_kornia_projects_as_we_do_half_a_pixel_aside() -> None:
    batch = stack_cameras([PINHOLE, PINHOLE.replace(fx=70.0, t=(0.1, 0.2, 6.0))])
    theirs = to_kornia(batch)
    expected = theirs.project(POINTS.expand(2, 30, 3))
    torch.testing.assert_close(batch.project(POINTS)[0] - 0.5, expected, **EXACT)
    assert_same(from_kornia(theirs), batch)
    depth = torch.full((1, 1, *SIZE), 2.0, dtype=torch.float64)
    points = kornia.geometry.depth.depth_to_3d(depth, to_kornia(PINHOLE).intrinsics[:, :3, :3])[0].movedim(0, -1)
    _, rays = PINHOLE.local_rays(PINHOLE.pixel_centers())
    torch.testing.assert_close(points, 2 * rays, **EXACT)


def test_kornia_cameras_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TypeError, match="camera must be a pinhole; kornia's camera is no OrthographicCamera"):
        to_kornia(PARALLEL)
    batch = to_kornia(stack_cameras([PINHOLE, PINHOLE]))
    batch.height = torch.tensor([48.0, 50.0])
    with pytest.raises(ValueError, match=r"one size, of whole pixels; got \(height, width\) \[\[48.0, 80.0\], \[50.0"):
        from_kornia(batch)


def test_trimesh_shoots_our_rays() -> None:
    centred = PINHOLE.replace(cx=40.0, cy=24.0)
    camera, transform = to_trimesh(centred)
    scene = trimesh.Scene(camera=camera, camera_transform=transform)
    origins, directions, pixels = scene.camera_rays()
    xy = torch.from_numpy(np.stack((pixels[:, 0], SIZE[0] - 1 - pixels[:, 1]), axis=-1)) + 0.5  # counted from below
    assert len(xy.unique(dim=0)) == SIZE[0] * SIZE[1]
    ours, rays = centred.rays(xy.double())
    unit = rays / rays.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit, torch.from_numpy(np.array(directions)), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours, torch.from_numpy(np.array(origins)), rtol=0, atol=1e-9)
    assert_same(from_trimesh(camera, transform, dtype=torch.float64), centred)


def test_trimesh_has_its_principal_point_in_the_middle() -> None:
    with pytest.raises(ValueError, match=r"in the middle, \(40.0, 24.0\), which trimesh assumes; got \(37.3, 20.9\)"):
        to_trimesh(PINHOLE)
    with pytest.raises(TypeError, match="camera must be a single pinhole"):
        to_trimesh(PARALLEL)


# --- OpenCV's omnidirectional module ------------------------------------------------------------------------------


def test_omnidirectional_cameras_go_there_and_back() -> None:
    camera = UnifiedCamera(50.0, 51.0, 40.0, 24.0, xi=0.9, dist=(-0.1, 0.01, 1e-3, 2e-3), size=SIZE, R=R, t=T)
    K, dist, rotation, t = to_opencv(camera)
    assert K[:2, 2].tolist() == [39.5, 23.5]
    back = from_opencv_omnidir(K, camera.xi, dist, size=SIZE, R=rotation, t=t, dtype=torch.float64)
    assert_same(back, camera)


def test_fisheye_of_few_coefficients_has_four_in_opencv() -> None:
    _, dist, _, _ = to_opencv(FisheyeCamera(50.0, 51.0, 40.0, 24.0, k=(0.5,), size=SIZE))
    assert dist.tolist() == [0.5, 0.0, 0.0, 0.0]
