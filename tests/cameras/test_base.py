"""The camera base: parameters, batches, copies, and the messages for what cannot be right."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, FisheyeCamera, LinearRays, OpenCVCamera, PinholeCamera, so3_exp, stack_cameras

SIZE = (48, 64)


def pinhole(**changes: object) -> PinholeCamera:
    arguments: dict = {"fx": 100.0, "fy": 110.0, "cx": 32.0, "cy": 24.0, "size": SIZE}
    return PinholeCamera(**{**arguments, **changes})


def test_parameters_broadcast_to_one_batch() -> None:
    camera = pinhole(fx=torch.tensor([[100.0], [200.0]]), t=torch.zeros(3, 3))
    assert camera.batch_shape == (2, 3)
    assert camera.fx.shape == camera.cy.shape == (2, 3)
    assert camera.R.shape == (2, 3, 3, 3)
    assert camera.t.shape == camera.center.shape == (2, 3, 3)
    assert camera.intrinsics.shape == (2, 3, 3, 3)
    assert camera.project(torch.ones(5, 3))[0].shape == (2, 3, 5, 2)
    assert camera.project(torch.ones(2, 1, 5, 3))[0].shape == (2, 3, 5, 2)


def test_unbatched_camera_takes_points_of_any_shape() -> None:
    for shape in ((), (5,), (4, 5), (0,), (2, 0, 3)):
        xy, depth = pinhole().project(torch.ones(*shape, 3))
        assert xy.shape == (*shape, 2)
        assert depth.shape == shape
        assert FisheyeCamera(9.0, 9.0, 0.0, 0.0, size=SIZE).rays(xy)[1].shape == (*shape, 3)
        assert OpenCVCamera(9.0, 9.0, 0.0, 0.0, size=SIZE).rays(xy)[1].shape == (*shape, 3)


def test_vectors_of_parameters_may_mix_numbers_and_batched_tensors() -> None:
    k1 = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    camera = FisheyeCamera(100.0, 100.0, 32.0, 24.0, k=(k1, 0.0, torch.tensor(0.01), 0.0), size=SIZE)
    assert camera.k.shape == (2, 4)
    assert camera.dtype == torch.float64
    camera.project(torch.ones(1, 3))[0].sum().backward()
    assert k1.grad is not None
    assert (k1.grad != 0).all()


def test_leaf_tensors_stay_themselves() -> None:
    fx = torch.tensor(100.0, requires_grad=True)
    assert pinhole(fx=fx).fx is fx


def test_pose_as_numbers() -> None:
    camera = pinhole(R=((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), t=(1, 2, 3))
    torch.testing.assert_close(camera.world_to_camera(torch.tensor([1.0, 0.0, 0.0])), torch.tensor([1.0, 3.0, 3.0]))
    torch.testing.assert_close(camera.camera_to_world(torch.tensor([1.0, 3.0, 3.0])), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(camera.world_to_camera(camera.center), torch.zeros(3))


def test_indexing_is_that_of_tensors() -> None:
    camera = pinhole(fx=torch.arange(1.0, 7.0).reshape(2, 3))
    for index in (0, (1, 2), slice(1, None), (slice(None), 1), torch.tensor([1, 0]), Ellipsis, None, (..., 0)):
        assert torch.equal(camera[index].fx, camera.fx[index])
        assert camera[index].R.shape == (*camera.fx[index].shape, 3, 3)
    assert [float(view.fx[0]) for view in camera] == [1.0, 4.0]
    assert camera.flatten_batch().fx.tolist() == [1, 2, 3, 4, 5, 6]
    assert pinhole().flatten_batch().batch_shape == (1,)
    with pytest.raises(TypeError, match="not batched"):
        pinhole()[0]


def test_stacking_wants_cameras_of_a_kind() -> None:
    with pytest.raises(ValueError, match="empty"):
        stack_cameras([])
    with pytest.raises(TypeError, match=r"cameras\[1\] must be a Camera; got str"):
        stack_cameras([pinhole(), "pinhole"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="one class"):
        stack_cameras([pinhole(), FisheyeCamera(1.0, 1.0, 0.0, 0.0, size=SIZE)])
    with pytest.raises(ValueError, match=r"one size; the first is \(48, 64\), number 1 is \(24, 32\)"):
        stack_cameras([pinhole(), pinhole().resize((24, 32))])
    with pytest.raises(ValueError, match=r"dist is \(4,\) float32 in the first, \(5,\) float32 in number 1"):
        stack_cameras([OpenCVCamera(1.0, 1.0, 0.0, 0.0, (0.0,) * n, size=SIZE) for n in (4, 5)])


def test_replace_checks_and_broadcasts() -> None:
    camera = pinhole()
    assert camera.replace(t=torch.zeros(4, 3)).batch_shape == (4,)
    assert camera.fx == 100  # the camera itself does not change
    with pytest.raises(TypeError, match=r"no parameters \['f'\]; it has \['fx', 'fy', 'cx', 'cy', 'R', 't'\]"):
        camera.replace(f=1.0)
    with pytest.raises(ValueError, match="fx holds 1 values that are NaN"):
        camera.replace(fx=math.nan)


def test_parameters_cannot_be_set_but_what_an_author_keeps_can() -> None:
    camera = pinhole()
    for name in ("fx", "cy", "R", "t"):
        with pytest.raises(AttributeError, match=rf"{name} of a camera cannot be set: camera.replace\({name}=...\)"):
            setattr(camera, name, 3.0)
    camera.note = "front left"  # type: ignore[attr-defined]
    assert camera.replace(fx=3.0).note == "front left"  # type: ignore[attr-defined]


def test_crop_and_resize_of_a_pinhole_change_its_intrinsics() -> None:
    camera = pinhole().crop(4, 2, 40, 50)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (100, 110, 30, 20)
    camera = pinhole().resize((24, 128))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (200, 55, 64, 12)
    with pytest.raises(TypeError, match="top must be a whole number"):
        pinhole().crop(0.5, 0, 4, 4)  # type: ignore[arg-type]
    assert pinhole(size=np.array(SIZE).tolist()).size == pinhole(size=tuple(np.array(SIZE))).size == SIZE
    with pytest.raises(ValueError, match="two whole numbers above 0"):
        pinhole().crop(0, 0, 0, 4)
    with pytest.raises(ValueError, match="two whole numbers above 0"):
        pinhole().resize((4, -4))


def test_field_of_view_is_that_of_the_outer_pixel_edges() -> None:
    camera = PinholeCamera.from_fov(40.0, size=SIZE, t=torch.zeros(3, dtype=torch.float64))
    _, d = camera.rays(torch.tensor([[32.0, 0.0], [32.0, 48.0]], dtype=torch.float64))
    angle = torch.rad2deg(torch.acos((d[0] @ d[1]) / (d[0].norm() * d[1].norm())))
    assert math.isclose(float(angle), 40.0, rel_tol=1e-12)
    fov = torch.tensor([30.0, 50.0], requires_grad=True)
    assert PinholeCamera.from_fov(fov, size=SIZE).fx.requires_grad
    for bad in (0.0, 180.0):
        with pytest.raises(ValueError, match="between 0 and 180"):
            PinholeCamera.from_fov(bad, size=SIZE)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"size": 48}, ValueError, r"size must be \(height, width\)"),
        ({"size": (48.0, 64.0)}, ValueError, "two whole numbers above 0"),
        ({"size": (0, 64)}, ValueError, "two whole numbers above 0"),
        ({"fx": float("inf")}, ValueError, "fx holds 1 values that are NaN or infinite"),
        ({"fx": "100"}, TypeError, "fx must be a number or a tensor; got str"),
        ({"fx": None}, TypeError, "fx must be a number or a tensor; got NoneType"),
        ({"fx": (1.0, 2.0)}, TypeError, "fx must be a number or a tensor; got tuple"),
        ({"fx": torch.ones(2, dtype=torch.complex64)}, TypeError, "fx must be real"),
        ({"fx": torch.tensor(100.0).half()}, TypeError, r"must be float32 or float64; got fx \(\) float16"),
        ({"R": torch.eye(4)}, ValueError, r"R must end in \(3, 3\).*got \(4, 4\) float32"),
        ({"R": torch.zeros(3)}, ValueError, "R must have 2 dimensions after the batch"),
        ({"R": 2 * torch.eye(3)}, ValueError, "R must be a rotation; R R\\^T differs from the identity by 3"),
        ({"R": torch.diag(torch.tensor([1.0, 1.0, -1.0]))}, ValueError, "so it mirrors"),
        ({"R": torch.full((3, 3), math.nan)}, ValueError, "R holds 9 values"),
        ({"t": torch.zeros(3, 1)}, ValueError, r"t must end in 3; got \(3, 1\) float32: a column vector"),
        ({"t": 1.0}, ValueError, "t must have 1 dimensions"),
        ({"fx": torch.ones(2), "t": torch.zeros(3, 3)}, ValueError, r"do not broadcast: fx \(2,\).*t \(3, 3\)"),
    ],
)
def test_bad_parameters_are_named(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pinhole(**changes)


def test_bad_points_are_named() -> None:
    with pytest.raises(ValueError, match=r"points must end in 3; got \(5, 2\) float32"):
        pinhole().project(torch.zeros(5, 2))
    with pytest.raises(TypeError, match="points must be floating point"):
        pinhole().project(torch.zeros(5, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="xy must be a tensor; got list"):
        pinhole().rays([[1.0, 2.0]])  # type: ignore[arg-type]
    batch = pinhole(fx=torch.ones(4))
    with pytest.raises(ValueError, match=r"points must have shape \(N, 3\) or \(4, 'N', 3\).*got \(3,\)"):
        batch.project(torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(48, 64, 2\) float32.*flatten it, xy.reshape\(-1, 2\)"):
        batch.rays(batch.pixel_centers())


def test_repr_shows_the_numbers() -> None:
    assert repr(pinhole()) == "PinholeCamera(fx=100, fy=110, cx=32, cy=24, size=(48, 64))"
    assert "fx=(100, 200)" in repr(pinhole(fx=torch.tensor([100.0, 200.0])))
    assert "R=(3, 3) float32" in repr(pinhole(R=so3_exp(torch.ones(3))))


class Affine(Camera):
    """A linear camera that is none of the package's: its author wrote the affine rays too."""

    def __init__(self, *, size: tuple[int, int]) -> None:
        super().__init__(size=size, t=torch.zeros(3, dtype=torch.float64), s=2.0)

    def to_pixels(self, points: Tensor) -> Tensor:
        return points[..., :2] / points[..., 2:] * self.s[..., None] + 1

    def depth_of(self, points: Tensor) -> Tensor:
        return points[..., 2]

    def affine_rays(self) -> LinearRays:
        zero, one = torch.zeros_like(self.s), torch.ones_like(self.s)
        none = torch.stack((zero, zero, zero), dim=-1)
        d, dx, dy = ((-1 / self.s, -1 / self.s, one), (1 / self.s, zero, zero), (zero, 1 / self.s, zero))
        return LinearRays(none, none, none, *(torch.stack(part, dim=-1) for part in (d, dx, dy)))


def test_crop_and_resize_reach_the_affine_rays_of_custom_cameras() -> None:
    camera = Affine(size=(10, 10)).crop(2, 3, 5, 6).resize((10, 30))
    assert camera.linear_rays() is not None
    xy = torch.tensor([[0.0, 0.0], [7.0, 3.0]], dtype=torch.float64)
    origins, directions = camera.rays(xy)
    torch.testing.assert_close(camera.project(origins + 3 * directions)[0], xy)


class Named(Camera):
    def __init__(self) -> None:
        super().__init__(size=(1, 1), project=1.0)

    def to_pixels(self, points: Tensor) -> Tensor:
        return points[..., :2]


def test_parameters_may_not_hide_methods() -> None:
    with pytest.raises(ValueError, match=r"may not be called \['project'\]"):
        Named()
