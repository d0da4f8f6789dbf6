"""FileStorage and calibration files: what OpenCV writes we read, what we write OpenCV reads."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from diffrender.cameras import (
    Camera,
    DoubleSphereCamera,
    EUCMCamera,
    FisheyeCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    UnifiedCamera,
    look_at,
    orbit_poses,
    stack_cameras,
)
from diffrender.io.calibration import load_calibration, save_calibration
from diffrender.io.opencv_storage import load_opencv_storage, save_opencv_storage

SUFFIXES = [".yml", ".xml"]
SIZE = (48, 64)
GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "doubles": GENERATOR.standard_normal((3, 4)) * 10.0 ** GENERATOR.integers(-9, 9, (3, 4)),
    "floats": GENERATOR.standard_normal((2, 1)).astype(np.float32),
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "wholes": np.array([[-5, 2**31 - 1]], dtype=np.int32),
    "points": GENERATOR.standard_normal((5, 1, 3)),
    "special": np.array([[np.nan, np.inf, -np.inf, 0.0]]),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_opencv_writes_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, array in ARRAYS.items():
        storage.write(name, array)
    storage.write("count", 7)
    storage.write("error", 0.125)
    storage.write("name", 'a "b" # c: d, [e]')
    storage.startWriteStruct("list", cv2.FileNode_SEQ)
    storage.write("", 1)
    storage.write("", 2.5)
    storage.endWriteStruct()
    storage.startWriteStruct("nested", cv2.FileNode_MAP)
    storage.write("inside", ARRAYS["floats"])
    storage.write("text", "word")
    storage.endWriteStruct()
    storage.startWriteStruct("views", cv2.FileNode_SEQ)
    for name in ("doubles", "points"):
        storage.write("", ARRAYS[name])
    storage.endWriteStruct()
    storage.release()
    content = load_opencv_storage(path)
    for name, array in ARRAYS.items():
        assert content[name].dtype == array.dtype
        np.testing.assert_array_equal(content[name], array)
    assert content["count"] == 7
    assert content["error"] == 0.125
    assert content["name"] == 'a "b" # c: d, [e]'
    assert content["list"] == [1, 2.5]
    assert content["nested"]["text"] == "word"
    np.testing.assert_array_equal(content["nested"]["inside"], ARRAYS["floats"])
    for view, name in zip(content["views"], ("doubles", "points"), strict=True):
        np.testing.assert_array_equal(view, ARRAYS[name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_we_write_opencv_reads_and_so_do_we(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    entries: dict[str, Any] = {
        **ARRAYS,
        "tensor": torch.tensor([1.5, 2.5]),
        "count": 7,
        "error": 1e-7,
        "name": 'a "b" <c> & # d: e',
        "list": [1, 2.5, "c d"],
        "nested": {"inside": ARRAYS["floats"], "deeper": {"one": 1}},
        "views": [ARRAYS["doubles"], ARRAYS["points"]],
    }
    save_opencv_storage(path, entries)
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    for name, array in ARRAYS.items():
        read = storage.getNode(name).mat()
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read.reshape(array.shape), array)
    assert storage.getNode("tensor").mat().tolist() == [[1.5], [2.5]]
    assert storage.getNode("count").real() == 7
    assert storage.getNode("error").real() == 1e-7
    assert storage.getNode("name").string() == entries["name"]
    nodes = storage.getNode("list")
    assert [nodes.at(0).real(), nodes.at(1).real(), nodes.at(2).string()] == entries["list"]
    np.testing.assert_array_equal(storage.getNode("nested").getNode("inside").mat(), ARRAYS["floats"])
    assert storage.getNode("nested").getNode("deeper").getNode("one").real() == 1
    np.testing.assert_array_equal(storage.getNode("views").at(0).mat(), ARRAYS["doubles"])
    back = load_opencv_storage(path)
    assert list(back) == list(entries)
    for name in ("count", "error", "name", "list"):
        assert back[name] == entries[name]
    np.testing.assert_array_equal(back["views"][1], ARRAYS["points"])
    assert back["nested"]["deeper"] == {"one": 1}


def test_yaml_written_by_hand_is_read(tmp_path: Path) -> None:
    """ROS's camera_info: no header, no tags, comments; quotes, nested lists and mappings in one line."""
    (tmp_path / "a.yaml").write_text(
        "# a comment\nimage_width: 640   # pixels\ncamera_name: 'left: #1'\n"
        "camera_matrix:\n  rows: 2\n  cols: 2\n  data: [1, 0,\n         0, 2.5]\n"
        "poses:\n  - {name: a, at: [1, [2, 3]]}\n  - name: b\n    at: []\nempty:\nlast: .5\n"
    )
    content = load_opencv_storage(tmp_path / "a.yaml")
    assert content["camera_matrix"].tolist() == [[1.0, 0.0], [0.0, 2.5]]
    del content["camera_matrix"]
    assert content == {
        "image_width": 640,
        "camera_name": "left: #1",
        "poses": [{"name": "a", "at": [1, [2, 3]]}, {"name": "b", "at": []}],
        "empty": None,
        "last": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "line 1: brackets are not closed, the file may be truncated"),
        ("a: [1, 2}", "line 1: brackets do not match"),
        ("a: 1\nword\n", "line 2: expected 'name: value'; got 'word'"),
        ("a: 1\n   b: 2\n", "line 2: the indentation fits to nothing before: 'b: 2'"),
        ("- 1\n- 2\n", "must hold named entries; got a list"),
        (
            "K: !!opencv-matrix\n  rows: 2\n  cols: 2\n  dt: d\n  data: [1, 2, 3.]\n",
            r"K: .* must have 4 numbers; got 3",
        ),
        ("K:\n  rows: 1\n  cols: 1\n  dt: q\n  data: [1]\n", "K: unknown element type dt: 'q'"),
        ("<opencv_storage><a>1</a>", "is no valid XML, it may be truncated: no element found: line 1"),
        ("<other/>", "must hold an <opencv_storage>; got <other>"),
    ],
)
def test_damaged_files_are_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_opencv_storage(tmp_path / "a.yml")


def test_what_storages_cannot_hold_is_refused(tmp_path: Path) -> None:
    for value, message in (
        (np.zeros((2, 2), dtype=complex), "OpenCV has no arrays of complex128"),
        (np.zeros(()), r"OpenCV has no arrays of float64 of shape \(\)"),
        (torch.tensor([2**40]), "arrays must fit into 32"),
        (None, "hold numbers, strings, lists, dicts and arrays; got NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            save_opencv_storage(tmp_path / "a.yml", {"a": value})
    with pytest.raises(ValueError, match=r"must end in .yml, .yaml or .xml"):
        save_opencv_storage(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


# --- calibration files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "camera",
    [
        PinholeCamera(50.0, 51.0, 30.25, 25.0, size=SIZE),
        OpenCVCamera(50.0, 51.0, 30.25, 25.0, dist=(0.1, -0.02, 1e-3, 2e-3, 3e-3), size=SIZE),
        FisheyeCamera(50.0, 51.0, 30.25, 25.0, k=(0.1, -0.02, 1e-3, 2e-3), size=SIZE),
        UnifiedCamera(50.0, 51.0, 30.25, 25.0, xi=0.875, dist=(0.1, -0.02, 1e-3, 2e-3), size=SIZE),
    ],
    ids=lambda camera: type(camera).__name__,
)
def test_calibrations_come_back(tmp_path: Path, camera: Camera, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    single = camera.to(dtype=torch.float64)
    R, t = orbit_poses(3, distance=2.0, target=torch.zeros(3, dtype=torch.float64))
    views = stack_cameras([single.replace(R=R[i], t=t[i]) for i in range(3)])
    for expected in (single, views):
        save_calibration(path, expected)
        actual = load_calibration(path)
        assert type(actual) is type(expected)
        assert actual.size == SIZE
        for name, value in expected._tensors().items():
            torch.testing.assert_close(getattr(actual, name), value, rtol=0, atol=1e-14)  # of rotation vectors


def test_opencvs_own_calibration_projects_the_board_into_its_photographs(shared_data: Path) -> None:
    """The stored errors of each view, which OpenCV computed from corners of its own: those found now are near them."""
    folder = shared_data / "opencv_chessboard"
    views = load_calibration(folder / "left_intrinsics.yml")
    assert isinstance(views, OpenCVCamera)
    assert views.batch_shape == (13,)
    grid = torch.cartesian_prod(torch.arange(6), torch.arange(9)).flip(-1).double() * 0.025
    xy, _ = views.project(torch.cat((grid, torch.zeros(54, 1)), dim=-1))
    stored = load_opencv_storage(folder / "left_intrinsics.yml")["per_view_reprojection_errors"]
    assert stored.shape == (13, 1)
    photograph = cv2.imread(str(folder / "left" / "left01.jpg"), cv2.IMREAD_GRAYSCALE)
    found, corners = cv2.findChessboardCorners(photograph, (9, 6))
    assert found
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
    corners = cv2.cornerSubPix(photograph, corners, (11, 11), (-1, -1), stop).reshape(-1, 2) + 0.5
    rms = float((xy[0] - torch.from_numpy(corners)).square().sum(-1).mean().sqrt())
    assert rms == pytest.approx(float(stored[0, 0]), abs=0.05)


def test_four_models_of_one_camera_agree(shared_data: Path) -> None:
    """One lens, calibrated four times: within a pixel up to 30 degrees, as their author's page shows."""
    cameras = [load_calibration(shared_data / "omni" / f"{name}.yml") for name in ("DS", "EUCM", "KB", "RadTan")]
    expected = (DoubleSphereCamera, EUCMCamera, FisheyeCamera, OpenCVCamera)
    assert tuple(type(camera) for camera in cameras) == expected
    assert {camera.size for camera in cameras} == {(480, 752)}
    angle = torch.linspace(0, 2 * torch.pi, 12, dtype=torch.float64)
    tilt = torch.deg2rad(torch.tensor([[5.0], [20.0], [30.0]], dtype=torch.float64))
    rays = torch.stack((tilt.sin() * angle.cos(), tilt.sin() * angle.sin(), tilt.cos().expand(3, 12)), dim=-1)
    xy = torch.stack([camera.project(rays.reshape(-1, 3))[0] for camera in cameras])
    assert float((xy - xy[3]).norm(dim=-1).max()) < 1.5
    stored = load_opencv_storage(shared_data / "omni" / "DS.yml")["parameter"]
    assert float(cameras[0].cx) == stored["cx"] + 0.5  # type: ignore[attr-defined]


def test_homography_and_corners_of_real_files_are_read_as_opencv_reads_them(shared_data: Path) -> None:
    for name, entry in (("graffiti/H1to3p.xml", "H13"), ("omni/omni_calib_data.xml", "imagePoints")):
        path = shared_data / name
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)  # must outlive its nodes
        node = storage.getNode(entry)
        ours = load_opencv_storage(path)[entry]
        if isinstance(ours, list):
            assert len(ours) == node.size() == 15
            ours, node = ours[14], node.at(14)
        np.testing.assert_array_equal(ours, node.mat())


def test_ros_camera_info_is_read(tmp_path: Path) -> None:
    text = (
        "image_width: 64\nimage_height: 48\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
        "  data: [50, 0, 31.5, 0, 51, 23.5, 0, 0, 1]\n"
        "distortion_model: {}\ndistortion_coefficients:\n  rows: 1\n  cols: 4\n  data: [0.1, 0.01, 0.002, 0.003]\n"
    )
    for model, expected in (("plumb_bob", OpenCVCamera), ("equidistant", FisheyeCamera)):
        (tmp_path / "a.yaml").write_text(text.format(model))
        camera = load_calibration(tmp_path / "a.yaml")
        assert type(camera) is expected
        assert (camera.cx.item(), camera.cy.item()) == (32.0, 24.0)
    (tmp_path / "a.yaml").write_text(text.format("spiral"))
    with pytest.raises(ValueError, match=r"a.yaml: unknown distortion_model 'spiral'"):
        load_calibration(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n", r"a.yml: no camera matrix: looked for camera_matrix, .* among a"),
        ("K: 3\nD: [0, 0, 0, 0]\nwidth: 4\nheight: 4\n", r"the camera matrix must have shape \(3, 3\); got \(\)"),
        ("K: [[1,0,0],[0,1,0],[0,0,1]]\nD: [0, 0, 0, 0]\n", r"does not say the images' size .*: give size="),
        ("parameter:\n  fx: 1\nimage:\n  width: 3\n  height: 4\n", "'parameter' has no fy, cx, cy"),
        ("parameter:\n  fx: 1\n", "must hold 'image' with width and height"),
        (
            "image: {width: 3, height: 4}\nparameter: {fx: 1, fy: 1, cx: 1, cy: 1, gamma: 2}\n",
            "no camera has the parameters gamma; there are: alpha, xi; alpha, beta",
        ),
    ],
)
def test_calibrations_that_do_not_fit_are_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_calibration(tmp_path / "a.yml")


@pytest.mark.parametrize(("said", "kind"), [("1", FisheyeCamera), ("0", OpenCVCamera), ("false", OpenCVCamera)])
def test_a_file_says_whether_its_lens_is_a_fisheye(tmp_path: Path, said: str, kind: type[Camera]) -> None:
    (tmp_path / "a.yml").write_text(
        f"K: [[1,0,0],[0,1,0],[0,0,1]]\nD: [0, 0.1, 0, 0]\nfisheye_model: {said}\nimage_width: 4\nimage_height: 3\n"
    )
    assert type(load_calibration(tmp_path / "a.yml")) is kind


def test_size_is_taken_from_the_caller_where_the_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("K: [[1,0,0],[0,1,0],[0,0,1]]\nD: [0, 0, 0, 0]\n")
    assert load_calibration(tmp_path / "a.yml", size=SIZE).size == SIZE


def test_cameras_that_are_not_one_lens_are_refused(tmp_path: Path) -> None:
    R, t = look_at((1.0, 2.0, 3.0))
    mixed = PinholeCamera(torch.tensor([1.0, 2.0]), 1.0, 1.0, 1.0, size=SIZE, R=R, t=t)
    with pytest.raises(ValueError, match="camera must be views of one camera; fx differs among them"):
        save_calibration(tmp_path / "a.yml", mixed)
    with pytest.raises(TypeError, match="OpenCV has no OrthographicCamera"):
        save_calibration(tmp_path / "a.yml", OrthographicCamera(1.0, 1.0, 1.0, 1.0, size=SIZE))
    with pytest.raises(FileNotFoundError, match=r"no such file: .*b.yml"):
        load_calibration(tmp_path / "b.yml")
