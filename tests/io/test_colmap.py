"""COLMAP models: stored reprojection errors, bytes that come back, and a clear word on damaged files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffrender.cameras import (
    Camera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    ThinPrismFisheyeCamera,
    look_at,
)
from diffrender.io.colmap import ColmapModel, load_colmap, save_colmap
from diffrender.io.colmap_records import MODELS, ColmapCamera, ColmapImages, ColmapPoints, num_parameters
from diffrender.io.datasets import load_dataset

NAMES = ("cameras", "images", "points3D")
REAL = ["SIMPLE_RADIAL_bin", "OPENCV", "OPENCV_FISHEYE", "THIN_PRISM_FISHEYE", "FOV"]


def floats(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def small_model() -> ColmapModel:
    """Two images of two cameras, one of them without observations, and two points; numbers of all digits."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cameras = (
        ColmapCamera(3, "PINHOLE", (24, 32), floats(40.1, 41.3, 15.7, 12.2)),
        ColmapCamera(7, "RADIAL", (48, 64), floats(40.1, 31.7, 24.2, 0.1, -0.01)),
    )
    images = ColmapImages(
        image_id=torch.tensor([5, 2]),
        quaternions=random(2, 4),
        t=random(2, 3),
        camera_id=torch.tensor([7, 3]),
        names=("left/a b.png", "ü.png"),
        xy=random(3, 2),
        point_id=torch.tensor([-1, 9, 4]),
        starts=torch.tensor([0, 3, 3]),
    )
    points = ColmapPoints(
        point_id=torch.tensor([9, 4]),
        positions=random(2, 3),
        colors=torch.tensor([[0, 255, 7], [1, 2, 3]], dtype=torch.uint8),
        errors=random(2).abs(),
        track_image_id=torch.tensor([5, 5]),
        track_index=torch.tensor([1, 2]),
        starts=torch.tensor([0, 1, 2]),
    )
    return ColmapModel(cameras, images, points)


def assert_same(actual: ColmapModel, expected: ColmapModel) -> None:
    for mine, theirs in ((actual.images, expected.images), (actual.points, expected.points)):
        for name, value in vars(theirs).items():
            if isinstance(value, Tensor):
                assert getattr(mine, name).dtype == value.dtype, name
                assert torch.equal(getattr(mine, name), value), name
    assert actual.images.names == expected.images.names
    for camera, other in zip(actual.cameras, expected.cameras, strict=True):
        assert (camera.camera_id, camera.model, camera.size) == (other.camera_id, other.model, other.size)
        assert torch.equal(camera.parameters, other.parameters)


@pytest.mark.parametrize("binary", [True, False])
def test_models_come_back_number_for_number(tmp_path: Path, binary: bool) -> None:
    save_colmap(tmp_path, small_model(), binary=binary)
    assert_same(load_colmap(tmp_path), small_model())


def test_model_is_found_below_its_project(tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    save_colmap(tmp_path / "sparse" / "0", small_model())
    assert_same(load_colmap(tmp_path), small_model())


def test_binary_layout_is_the_documented_one(tmp_path: Path) -> None:
    """Field by field from the documentation of the format, packed by hand."""
    save_colmap(tmp_path, small_model())
    model = small_model()
    expected = struct.pack("<Q", 2)
    for i in range(2):
        number, color = int(model.points.point_id[i]), bytes(model.points.colors[i].tolist())
        expected += struct.pack("<Qddd", number, *model.points.positions[i].tolist()) + color
        expected += struct.pack("<dQII", float(model.points.errors[i]), 1, 5, 1 + i)
    assert (tmp_path / "points3D.bin").read_bytes() == expected
    images = (tmp_path / "images.bin").read_bytes()
    assert images[:12] == struct.pack("<QI", 2, 5)
    assert images[8 + 64 :].startswith(b"left/a b.png\0" + struct.pack("<Q", 3))
    no_point = 8 + 64 + len(b"left/a b.png\0") + 8 + 16
    assert images[no_point : no_point + 8] == b"\xff" * 8  # kInvalidPoint3DId


@pytest.mark.parametrize("name", REAL)
def test_stored_reprojection_errors_come_out(shared_data: Path, name: str) -> None:
    """COLMAP's own mean error of each track, of 37 123 observations.

    Pixels of some thousand are rounded to 5e-13, some ten times on the way; FOV's own formula in COLMAP loses more
    digits near the axis.
    """
    model = load_colmap(shared_data / "colmap_sceaux" / name)
    image_index, point_index, xy = model.observations()
    assert len(xy) == 37123
    distance = torch.zeros(len(xy), dtype=torch.float64)
    for i, camera in enumerate(model.image_cameras()):
        own = (image_index == i).nonzero()[:, 0]
        projected, _ = camera.project(model.points.positions[point_index[own]])
        distance[own] = (projected - xy[own]).norm(dim=-1)
    total = torch.zeros(len(model.points.errors), dtype=torch.float64).index_add(0, point_index, distance)
    mean = total / model.points.starts.diff()
    torch.testing.assert_close(mean, model.points.errors, rtol=0, atol=5e-9 if name == "FOV" else 5e-12)
    assert torch.equal(model.images.point_id[model.images.point_id >= 0].unique(), model.points.point_id.sort()[0])


@pytest.mark.parametrize("name", REAL)
def test_files_are_written_byte_for_byte(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "colmap_sceaux" / name
    save_colmap(tmp_path, load_colmap(folder))
    for file in NAMES:
        assert (tmp_path / f"{file}.bin").read_bytes() == (folder / f"{file}.bin").read_bytes()


def test_text_and_binary_say_the_same(shared_data: Path) -> None:
    """The text has six digits."""
    text, binary = (load_colmap(shared_data / "colmap_sceaux" / f"SIMPLE_RADIAL_{kind}") for kind in ("txt", "bin"))
    order = [part.points.point_id.argsort() for part in (text, binary)]
    for name in ("point_id", "positions", "colors", "errors"):
        mine, theirs = (getattr(part.points, name)[at] for part, at in zip((text, binary), order, strict=True))
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert set(text.images.names) == set(binary.images.names)
    assert len(text.images.xy) == len(binary.images.xy)


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.make is not None])
def test_every_model_makes_a_camera_in_the_pixels_of_colmap(model: str) -> None:
    values = {"f": 50.0, "fx": 50.0, "fy": 50.0, "cx": 30.0, "cy": 25.0, "omega": 0.5, "alpha": 0.5, "beta": 1.1}
    values |= {"w": 64.0, "h": 48.0}
    names = MODELS[model].parameters.split(", ")
    parameters = floats(*(values.get(name, 0.01) for name in names))
    camera = ColmapCamera(1, model, (48, 64), parameters).camera()
    assert camera.dtype == torch.float64
    xy, _ = camera.project(floats(0.0, 0.0, 2.0))
    assert xy.tolist() == ([32.0, 24.0] if model == "EQUIRECTANGULAR" else [30.0, 25.0])
    xy, _ = camera.project(floats(0.5, 0.0, 2.0))
    assert 2 < float(xy[0]) - (32.0 if model == "EQUIRECTANGULAR" else 30.0) < 16  # to the right


@pytest.mark.parametrize(
    ("camera", "model"),
    [
        (PinholeCamera(50.0, 51.0, 30.0, 25.0, size=(48, 64)), "PINHOLE"),
        (OpenCVCamera(50.0, 51.0, 30.0, 25.0, dist=(0.1, 0.02, 0.003, 0.004), size=(48, 64)), "OPENCV"),
        (OpenCVCamera(50.0, 51.0, 30.0, 25.0, dist=(0.1, 0.02, 0.003, 0.004, 0.01), size=(48, 64)), "FULL_OPENCV"),
        (FisheyeCamera(50.0, 51.0, 30.0, 25.0, k=(0.1, 0.02), size=(48, 64)), "OPENCV_FISHEYE"),
        (FOVCamera(50.0, 51.0, 30.0, 25.0, omega=0.7, size=(48, 64)), "FOV"),
        (EUCMCamera(50.0, 51.0, 30.0, 25.0, alpha=0.5, beta=1.1, size=(48, 64)), "EUCM"),
        (
            ThinPrismFisheyeCamera(50.0, 51.0, 30.0, 25.0, (0.1, 0.02, 1e-3, 2e-3, 3e-3, 0, 0, 1e-3), size=(48, 64)),
            "THIN_PRISM_FISHEYE",
        ),
    ],
)
def test_cameras_go_there_and_back(camera: Camera, model: str, tmp_path: Path) -> None:
    R, t = look_at((1.0, 2.0, 3.0))
    camera = camera.replace(R=R, t=t).to(dtype=torch.float64)
    save_colmap(tmp_path, ColmapModel.from_cameras(["a.png"], [camera]))
    back = load_colmap(tmp_path)
    assert back.cameras[0].model == model
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # float64 rounding; R comes from float32, orthonormal to 1e-7, which a quaternion cannot carry
    torch.testing.assert_close(back.image_cameras()[0].project(points), camera.project(points), atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("k", [0.0, 0.1, -0.1])
def test_division_model_divides_by_one_and_k_times_the_square_of_the_radius(k: float) -> None:
    points = floats((0.3, -0.2, 1.0), (0.0, 0.0, 2.0), (-1.0, 0.8, 1.5))
    plane = points[:, :2] / points[:, 2:]
    for model, focal, fy in (("SIMPLE_DIVISION", (60.0,), 60.0), ("DIVISION", (60.0, 70.0), 70.0)):
        camera = ColmapCamera(1, model, (40, 60), floats(*focal, 30.0, 20.0, k)).camera()
        uv = (camera.project(points)[0] - floats(30.0, 20.0)) / floats(60.0, fy)
        torch.testing.assert_close(uv / (1 + k * (uv * uv).sum(-1, keepdim=True)), plane, rtol=0, atol=1e-13)


PARAMETERS = {
    "SIMPLE_PINHOLE": (500, 320, 240),
    "PINHOLE": (500, 510, 320, 240),
    "SIMPLE_RADIAL": (500, 320, 240, -0.1),
    "RADIAL": (500, 320, 240, -0.1, 0.02),
    "OPENCV": (500, 510, 320, 240, -0.1, 0.02, 1e-3, -2e-3),
    "OPENCV_FISHEYE": (400, 410, 320, 240, 0.05, -0.01, 2e-3, -3e-4),
    "FULL_OPENCV": (500, 510, 320, 240, 0.4, 0.1, 1e-3, -2e-3, 0.01, 0.7, 0.2, 0.02),
    "FOV": (400, 410, 320, 240, 0.9),
    "SIMPLE_RADIAL_FISHEYE": (400, 320, 240, 0.05),
    "RADIAL_FISHEYE": (400, 320, 240, 0.05, -0.01),
    "THIN_PRISM_FISHEYE": (400, 410, 320, 240, 0.05, -0.01, 2e-3, -1e-3, 2e-3, -3e-4, 3e-3, -2e-3),
    "SIMPLE_DIVISION": (500, 320, 240, 0.1),
    "DIVISION": (500, 510, 320, 240, -0.1),
    "SIMPLE_FISHEYE": (400, 320, 240),
    "FISHEYE": (400, 410, 320, 240),
    "EUCM": (400, 410, 320, 240, 0.6, 1.2),
    "EQUIRECTANGULAR": (640, 480),
}


@pytest.mark.parametrize("model", PARAMETERS)
def test_colmap_itself_sees_the_same(model: str) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    if model not in pycolmap.CameraModelId.__members__:
        pytest.skip(f"this COLMAP has no {model}")
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=[float(x) for x in PARAMETERS[model]])
    camera = ColmapCamera(1, model, (480, 640), floats(*PARAMETERS[model])).camera()
    xy = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = camera.unproject(xy * floats(640.0, 480.0), torch.ones(10_000, dtype=torch.float64))
    points = points[torch.isfinite(points).all(-1) & (points[:, 2] > 0.1)]
    assert len(points) > 4000
    expected = torch.from_numpy(np.array(theirs.img_from_cam(points.numpy())))
    torch.testing.assert_close(camera.project(points)[0], expected, rtol=0, atol=1e-9)


def test_cameras_that_colmap_has_not_are_refused() -> None:
    with pytest.raises(TypeError, match="COLMAP has no model for this camera: OrthographicCamera"):
        ColmapCamera.from_camera(OrthographicCamera(1.0, 1.0, 1.0, 1.0, size=(4, 4)))
    with pytest.raises(TypeError, match="COLMAP has no model for this camera: OpenCVCamera"):
        ColmapCamera.from_camera(OpenCVCamera(1.0, 1.0, 1.0, 1.0, dist=(0.0,) * 12, size=(4, 4)))
    with pytest.raises(TypeError, match="COLMAP has no model for this camera: EquirectangularCamera"):
        ColmapCamera.from_camera(EquirectangularCamera(size=(4, 8)))
    with pytest.raises(ValueError, match=r"a single one; got a batch of \(2,\)"):
        ColmapCamera.from_camera(PinholeCamera(torch.ones(2), 1.0, 1.0, 1.0, size=(4, 4)))
    with pytest.raises(ValueError, match="camera 1 is RAD_TAN_THIN_PRISM_FISHEYE, which no camera here is like; there"):
        ColmapCamera(1, "RAD_TAN_THIN_PRISM_FISHEYE", (4, 4), floats(1, 1, *[0] * 14)).camera()
    with pytest.raises(ValueError, match="names and cameras must be as many, and not none; got 1 and 0"):
        ColmapModel.from_cameras(["a"], [])


# --- what does not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_binary_file_cut_anywhere_is_said(tmp_path: Path, name: str) -> None:
    save_colmap(tmp_path, small_model())
    file = tmp_path / f"{name}.bin"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{name}.bin is (truncated|no COLMAP file)"):
            load_colmap(tmp_path)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=rf"{name}.bin goes on after its last record, which ends at byte {len(whole)}"):
        load_colmap(tmp_path)


def test_unknown_models_are_named(tmp_path: Path) -> None:
    save_colmap(tmp_path, small_model())
    data = bytearray((tmp_path / "cameras.bin").read_bytes())
    data[12:16] = struct.pack("<i", 99)
    (tmp_path / "cameras.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"camera at byte 8 has the unknown model number 99; known are 0 \(SIMPLE_PIN"):
        load_colmap(tmp_path)
    for name in NAMES:
        (tmp_path / f"{name}.bin").unlink()
    save_colmap(tmp_path, small_model(), binary=False)
    text = (tmp_path / "cameras.txt").read_text()
    (tmp_path / "cameras.txt").write_text(text.replace("RADIAL", "SPIRAL"))
    with pytest.raises(ValueError, match=r"cameras.txt, line 4: unknown camera model 'SPIRAL'; known are SIMPLE"):
        load_colmap(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cameras", "3 PINHOLE 32 24", "3 PINHOLE 32", r"line 3: PINHOLE has the parameters fx, fy, cx, cy; got 3"),
        ("cameras", "3 PINHOLE 32 24", "3 PINHOLE 32 2x", r"line 3: invalid literal .* '2x'"),
        ("cameras", "3 PINHOLE", "4 PINHOLE", r"images.txt: image 'ü.png' has camera 3, \[4, 7\] are known"),
        ("images", " 7 left/a b.png", "", r"images.txt, line 4: an image has an id, .* a name; got"),
        ("images", " -1 ", " ", r"images.txt, line 5: points come as x, y, id; got 8 numbers, is it truncated?"),
        ("images", " -1 ", " x ", r"images.txt, line 5: string or file could not be read"),
        ("images", "5 ", "5.5 ", r"images.txt: image ids must be whole numbers below 2\^53"),
        ("points3D", " 5 1\n", " 5\n", r"points3D.txt, line 3: a point has 8 numbers and two for each .* got 9, is it"),
        ("points3D", " 5 1\n", " 5 z\n", r"points3D.txt, line 3: string or file could not be read"),
        ("points3D", " 5 1\n", " 6 1\n", r"the track of point 9 names observation 1 of image 6, which images does not"),
        ("points3D", " 5 2\n", " 5 3\n", r"the track of point 4 names observation 3 of image 5, which images does not"),
    ],
)
def test_text_that_does_not_fit_is_said(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    save_colmap(tmp_path, small_model(), binary=False)
    path = tmp_path / f"{name}.txt"
    text = path.read_text(encoding="utf-8")
    assert old in text
    head, body = text[: text.rindex("#")], text[text.rindex("#") :]
    path.write_text(head + body.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_colmap(tmp_path)


def test_tracks_of_a_model_without_images_are_said(tmp_path: Path) -> None:
    save_colmap(tmp_path, small_model(), binary=False)
    (tmp_path / "images.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"points3D.txt: the track of point 9 names observation \d of image \d, which"):
        load_colmap(tmp_path)


def test_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        load_colmap(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        save_colmap(tmp_path / "nowhere", small_model())
    save_colmap(tmp_path, small_model())
    (tmp_path / "points3D.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"holds no whole COLMAP model: looked for cameras.bin, images.bin, poin"
    ):
        load_colmap(tmp_path)


def test_parameters_are_counted_as_named() -> None:
    assert num_parameters("SIMPLE_PINHOLE") == 3
    assert num_parameters("RAD_TAN_THIN_PRISM_FISHEYE") == 16


# --- image sets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two views of different sizes, a pinhole's and a fisheye's."""
    R, t = look_at((1.0, 2.0, 3.0))
    cameras = [
        PinholeCamera(40.0, 41.0, 16.0, 12.0, size=(24, 32), R=R, t=t),
        FisheyeCamera(40.0, 41.0, 20.0, 15.0, k=(0.1, 0.0, 0.0, 0.0), size=(30, 40), R=R, t=t),
    ]
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    save_colmap(tmp_path / "sparse" / "0", ColmapModel.from_cameras(["a.jpg", "b.jpg"], cameras))
    for name, camera in zip("ab", cameras, strict=True):
        Image.fromarray(np.full((*camera.size, 3), 90, np.uint8)).save(tmp_path / "images" / f"{name}.jpg")
        mask = np.zeros(camera.size, np.uint8)
        mask[5:, 7:] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.jpg.png")
    return tmp_path


def test_project_with_masks_is_an_image_set(project: Path) -> None:
    images = load_dataset(project, held_out=["b"])
    assert images.names == ("a.jpg", "b.jpg")
    assert images.held_out == (False, True)
    assert images.sizes == [(24, 32), (30, 40)]
    assert [type(camera) for camera in images.cameras] == [PinholeCamera, FisheyeCamera]
    assert images.cameras[0].dtype == torch.float32
    image, mask = images.load(1)
    assert image.shape == (30, 40, 3)
    assert torch.equal(mask.nonzero().amin(0), torch.tensor([5, 7]))
    assert float(mask.sum()) == 25 * 33


def test_views_without_masks_or_of_other_sizes_are_said(project: Path) -> None:
    (project / "masks" / "b.jpg.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 views have no mask: put them in .*masks, called a.jpg.png and so on"):
        load_dataset(project)
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(project / "images" / "b.jpg")
    with pytest.raises(ValueError, match=r"b.jpg is 20 x 10; its camera is for 40 x 30"):
        load_dataset(project)
    (project / "images" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images that .*images.bin speaks of do not exist"):
        load_dataset(project)
