"""Cameras of glTF files: the specification's projection, nodes below nodes, and what comes back."""

import json
import math
from pathlib import Path

import pytest
import torch

from diffrender.cameras import Camera, OrthographicCamera, PinholeCamera, look_at
from diffrender.io.gltf_cameras import load_gltf_cameras, save_gltf_cameras
from diffrender.io.meshes import save_mesh
from diffrender.primitives import cube

SIZE = (48, 80)
R, T = look_at(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
CAMERAS: list[Camera] = [
    PinholeCamera(50.0, 55.0, 40.0, 24.0, size=SIZE, R=R, t=T),
    OrthographicCamera(9.0, 8.0, 40.0, 24.0, size=SIZE, R=R, t=T),
]


def test_cameras_come_back(tmp_path: Path) -> None:
    save_gltf_cameras(tmp_path / "a.gltf", CAMERAS, names=["one", "two"], near=0.1, far=10.0)
    back = load_gltf_cameras(tmp_path / "a.gltf", height=48, width=80)
    assert list(back) == ["one", "two"]
    for camera, expected in zip(back.values(), CAMERAS, strict=True):
        assert type(camera) is type(expected)
        assert camera.size == SIZE
        for name, value in expected._tensors().items():
            torch.testing.assert_close(getattr(camera, name), value, rtol=1e-14, atol=1e-14)
    assert load_gltf_cameras(tmp_path / "a.gltf", height=96)["two"].size == (96, round(96 * 80 / 9 / (48 / 8)))


def write(path: Path, nodes: list[dict[str, object]], camera: dict[str, object]) -> Path:
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "nodes": nodes, "cameras": [camera]}))
    return path


def perspective(**changes: object) -> dict[str, object]:
    return {"type": "perspective", "perspective": {"yfov": 0.8, "aspectRatio": 1.5, "znear": 0.1, **changes}}


def test_projection_is_the_specifications(tmp_path: Path) -> None:
    """Section 3.10.3: x / (a tan(yfov / 2) -z), y / (tan(yfov / 2) -z), for a camera that looks along -z."""
    path = write(tmp_path / "a.gltf", [{"camera": 0}], perspective())
    camera = load_gltf_cameras(path, height=40)["camera 0"]
    assert camera.size == (40, 60)
    x, y, z = 0.2, 0.3, -2.0
    ndc = (x / (1.5 * math.tan(0.4) * -z), y / (math.tan(0.4) * -z))
    xy, depth = camera.project(torch.tensor([x, y, z], dtype=torch.float64))
    assert xy.tolist() == pytest.approx([(ndc[0] + 1) * 30, (1 - ndc[1]) * 20], rel=1e-14)
    assert float(depth) == 2.0
    path = write(tmp_path / "b.gltf", [{"camera": 0}], {"type": "orthographic", "orthographic": {"xmag": 3, "ymag": 2}})
    xy, _ = load_gltf_cameras(path, height=40)["camera 0"].project(torch.tensor([x, y, z], dtype=torch.float64))
    assert xy.tolist() == pytest.approx([(x / 3 + 1) * 30, (1 - y / 2) * 20], rel=1e-14)


def test_nodes_are_chained_and_their_scales_ignored(tmp_path: Path) -> None:
    """A quarter turn about y and a shift above a shifted camera: its centre is where the parent takes its place."""
    half = math.sqrt(0.5)
    nodes: list[dict[str, object]] = [
        {"name": "eye", "camera": 0, "translation": [1, 0, 0]},
        {"rotation": [0, half, 0, half], "scale": [2, 2, 2], "translation": [0, 5, 0], "children": [0]},
    ]
    camera = load_gltf_cameras(write(tmp_path / "a.gltf", nodes, perspective()), height=40)["eye"]
    torch.testing.assert_close(camera.center, torch.tensor([0.0, 5.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(camera.R[2], torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64))  # looks along -x


@pytest.mark.parametrize("nodes", [[{"children": [1]}, {"children": [2]}, {"children": [1]}], [{"children": [5]}]])
def test_nodes_that_are_no_tree_are_said(tmp_path: Path, nodes: list[dict[str, object]]) -> None:
    path = write(tmp_path / "a.gltf", nodes, perspective())
    with pytest.raises(ValueError, match=r"a.gltf: nodes must be trees: number [15] has two parents, or is not there"):
        load_gltf_cameras(path, height=40)


def test_cameras_of_one_name_stay_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gltf", [{"camera": 0, "name": n} for n in ("x", "x 2", "x", "x")], perspective())
    assert len(load_gltf_cameras(path, height=40)) == 4


def test_file_says_what_the_specification_asks_for(tmp_path: Path) -> None:
    """Matrices column by column, the centre in the last one; the view angle from top to bottom in radians."""
    save_gltf_cameras(tmp_path / "a.gltf", CAMERAS[:1], names=["eye"], near=0.1, far=10.0)
    content = json.loads((tmp_path / "a.gltf").read_text())
    matrix = content["nodes"][0]["matrix"]
    assert matrix[12:] == pytest.approx([*CAMERAS[0].center.tolist(), 1.0])
    assert matrix[8:12] == pytest.approx([*(-CAMERAS[0].R[2]).tolist(), 0.0])  # z points back
    described = content["cameras"][0]["perspective"]
    assert described["yfov"] == pytest.approx(2 * math.atan(24 / 55))
    assert described["aspectRatio"] * math.tan(described["yfov"] / 2) == pytest.approx(40 / 50)


def test_meshes_without_cameras_have_none(tmp_path: Path) -> None:
    save_mesh(tmp_path / "a.glb", cube())
    assert load_gltf_cameras(tmp_path / "a.glb", height=10) == {}


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (perspective(aspectRatio=None), "camera 0: the camera has no aspectRatio: give the width"),
        (perspective(yfov=0), "camera 0: perspective must have yfov, not zero"),
        ({"type": "fisheye"}, "camera 0: a camera's type must be 'perspective' or 'orthographic'"),
        ({"type": "orthographic", "orthographic": {"xmag": 1}}, "orthographic must have ymag, not zero"),
    ],
)
def test_cameras_that_do_not_fit_are_said(tmp_path: Path, camera: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_gltf_cameras(write(tmp_path / "a.gltf", [{"camera": 0}], camera), height=40)
    with pytest.raises(ValueError, match="camera 0: there is no camera number 3, only 1"):
        load_gltf_cameras(write(tmp_path / "a.gltf", [{"camera": 3}], camera), height=40)


def test_cameras_that_gltf_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    with pytest.raises(ValueError, match=r"principal point in the middle, \(40.0, 24.0\), as glTF's have; got \(30"):
        save_gltf_cameras(path, [CAMERAS[0].replace(cx=30.0)], names=["a"], near=0.1, far=1.0)
    with pytest.raises(ValueError, match="names and cameras must be as many; got 0 and 1"):
        save_gltf_cameras(path, CAMERAS[:1], names=[], near=0.1, far=1.0)
    with pytest.raises(ValueError, match=r"must end in .gltf"):
        save_gltf_cameras(tmp_path / "a.glb", CAMERAS[:1], names=["a"], near=0.1, far=1.0)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_gltf_cameras(path, height=10)
