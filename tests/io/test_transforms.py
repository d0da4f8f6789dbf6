"""transforms.json: what comes back is what was written, and lenses are those that the entries mean."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, look_at
from diffrender.io.transforms import load_transforms, save_transforms

SIZE = (24, 32)


def pose(x: float) -> dict[str, torch.Tensor]:
    R, t = look_at(torch.tensor([x, 2.0, 3.0], dtype=torch.float64))
    return {"R": R, "t": t}


def lenses() -> list[Camera]:
    return [
        PinholeCamera(40.1, 41.2, 15.7, 12.3, size=SIZE, **pose(0.0)),
        OpenCVCamera(50.0, 51.0, 16.1, 11.9, dist=(0.1, -0.02, 3e-3, -1e-3, 0.01), size=SIZE, **pose(1.0)),
        FisheyeCamera(20.0, 21.0, 16.0, 12.0, k=(0.1, 0.02, -3e-3, 1e-4), size=(48, 64), **pose(2.0)),
    ]


def assert_same(actual: Camera, expected: Camera) -> None:
    """Intrinsics to the last bit; the pose to the rounding of t = -R c and back."""
    assert type(actual) is type(expected)
    assert actual.size == expected.size
    for name in set(expected._tensors()) - {"t"}:
        assert torch.equal(getattr(actual, name), getattr(expected, name).double()), name
    torch.testing.assert_close(actual.t, expected.t.double(), rtol=0, atol=1e-14)


def test_cameras_of_all_kinds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    save_transforms(path, ["a.png", "b.png", "c.png"], lenses())
    names, cameras = load_transforms(path)
    assert names == ["a.png", "b.png", "c.png"]
    for actual, expected in zip(cameras, lenses(), strict=True):
        assert_same(actual, expected)


def test_intrinsics_that_all_share_stand_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    views = [lenses()[2].replace(**pose(x)) for x in (0.0, 1.0)]
    save_transforms(path, ["a.png", "b.png"], views)
    content = json.loads(path.read_text())
    assert content["is_fisheye"] is True
    assert content["k4"] == float(torch.tensor(1e-4, dtype=torch.float64))
    assert [sorted(frame) for frame in content["frames"]] == [["file_path", "transform_matrix"]] * 2
    for actual, expected in zip(load_transforms(path)[1], views, strict=True):
        assert_same(actual, expected)


def test_a_point_above_the_axis_is_up_in_the_image(tmp_path: Path) -> None:
    """OpenGL's camera at the origin looks along -z: (0, 1, -2) is ahead and up, in pixels at y = cy - fy / 2."""
    matrix = np.eye(4).tolist()
    content = {"fl_x": 10.0, "fl_y": 20.0, "w": 32, "h": 24, "frames": [{"file_path": "a", "transform_matrix": matrix}]}
    (tmp_path / "t.json").write_text(json.dumps(content))
    xy, depth = load_transforms(tmp_path / "t.json")[1][0].project(torch.tensor([0.5, 1.0, -2.0]).double())
    assert xy.tolist() == [16.0 + 10 / 4, 12.0 - 20 / 2]
    assert float(depth) == 2.0


def test_view_angles_stand_for_focal_lengths(tmp_path: Path) -> None:
    frame = {"file_path": "a", "transform_matrix": np.eye(4).tolist()}
    angles = {"camera_angle_x": 2 * math.atan(0.4), "camera_angle_y": 2 * math.atan(0.3)}
    (tmp_path / "t.json").write_text(json.dumps({"w": 32, "h": 24, **angles, "frames": [frame]}))
    camera = load_transforms(tmp_path / "t.json")[1][0]
    assert [float(camera.fx), float(camera.fy)] == pytest.approx([16 / 0.4, 12 / 0.3], rel=1e-15)


def test_entries_that_are_about_volumes_change_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    save_transforms(path, ["a.png"], lenses()[:1])
    content = json.loads(path.read_text())
    content |= {"aabb_scale": 16, "scale": 0.33, "offset": [0.5, 0.5, 0.5], "applied_scale": 2.0, "near": 0.1}
    path.write_text(json.dumps(content))
    assert_same(load_transforms(path)[1][0], lenses()[0])


def test_size_is_that_of_the_image_where_the_file_has_none(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    save_transforms(path, ["a", "b"], lenses()[:2])
    content = json.loads(path.read_text())
    del content["frames"][1]["w"]
    path.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"1 of the 1 images that .*transforms.json speaks of do not exist"):
        load_transforms(path)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "b.png")
    assert [camera.size for camera in load_transforms(path)[1]] == [SIZE, (20, 30)]


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    with pytest.raises(TypeError, match=r"transforms.json has no other lenses; got OrthographicCamera"):
        save_transforms(path, ["a"], [OrthographicCamera(1.0, 1.0, 1.0, 1.0, size=SIZE)])
    with pytest.raises(TypeError, match="OpenCV cameras with 4 or 5 coefficients"):
        save_transforms(path, ["a"], [OpenCVCamera(1.0, 1.0, 1.0, 1.0, dist=(0.1,) * 8, size=SIZE)])
    with pytest.raises(ValueError, match=r"must be single ones; got a batch of \(2,\)"):
        save_transforms(path, ["a"], [PinholeCamera(torch.ones(2), 1.0, 1.0, 1.0, size=SIZE)])
    with pytest.raises(ValueError, match="as many, and not none; got 2 and 1"):
        save_transforms(path, ["a", "b"], lenses()[:1])
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w": 31.5}, "frame 0: w and h must be whole numbers of pixels; got 31.5 and 24"),
        ({"k1": None}, "frame 0: k1 must be a number; got None"),
        ({"fl_x": "nan"}, "frame 0: fx holds 1 values that are NaN"),
    ],
)
def test_entries_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "transforms.json"
    save_transforms(path, ["a"], lenses()[2:] if "k1" in changes else lenses()[:1])
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load_transforms(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nowhere.json"):
        load_transforms(tmp_path / "nowhere.json")
