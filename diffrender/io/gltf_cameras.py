"""The cameras of glTF files, .gltf and .glb: perspective and orthographic, placed by their nodes; read and written.

- Axes: OpenGL's, the camera looks along its node's -z; y and z are turned. Scales of nodes are ignored, as the
  specification demands.
- Half pixel: none: -1 to 1 is the image from edge to edge. The principal point is always the middle.
- glTF knows no pixels: the height of the image is the reader's choice, the width follows from the aspect ratio.

Source: the glTF 2.0 specification, section 3.10.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import Camera, OrthographicCamera, PinholeCamera, from_opengl_pose, quaternion_to_matrix, to_opengl_pose
from .files import atomic_path, naming
from .gltf import gltf_header


def load_gltf_cameras(
    path: str | os.PathLike[str], *, height: int, width: int | None = None
) -> dict[str, PinholeCamera | OrthographicCamera]:
    """The cameras of a glTF file by the names of their nodes (or "camera N", N counting from 0), in float64.

    Args:
        path: .gltf or .glb.
        height: of the images, in pixels.
        width: if left out, what the camera's aspect ratio makes of the height; needed where it has none.

    Raises ValueError naming the file and the camera for what is missing or malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    header = gltf_header(path)
    with naming(str(path)):
        placed = list(_placed_nodes(header))
    cameras: dict[str, PinholeCamera | OrthographicCamera] = {}
    for node, pose in placed:
        if "camera" not in node:
            continue
        name = str(node.get("name", f"camera {len(cameras)}"))
        numbered = (f"{name} {i}" for i in itertools.count(len(cameras)))
        name = next(unused for unused in itertools.chain([name], numbered) if unused not in cameras)
        with naming(f"{path}, {name}"):
            described = header.get("cameras", [])
            if node["camera"] >= len(described):
                raise ValueError(f"there is no camera number {node['camera']}, only {len(described)}")
            cameras[name] = _camera(described[node["camera"]], pose, height, width)
    return cameras


def save_gltf_cameras(
    path: str | os.PathLike[str], cameras: Sequence[Camera], *, names: Sequence[str], near: float, far: float
) -> None:
    """Write a .gltf file with nothing but cameras, one node for each.

    Args:
        path: .gltf.
        cameras: single pinholes or orthographic cameras, with the principal point in the middle.
        names: of their nodes.
        near, far: the depths that viewers clip at.
    """
    if Path(path).suffix.lower() != ".gltf":
        raise ValueError(f"{path} must end in .gltf")
    if len(names) != len(cameras):
        raise ValueError(f"names and cameras must be as many; got {len(names)} and {len(cameras)}")
    nodes = []
    for i, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        pose = to_opengl_pose(camera.R.detach().cpu().double(), camera.t.detach().cpu().double())
        nodes.append({"name": name, "camera": i, "matrix": pose.mT.reshape(-1).tolist()})  # column by column
    content = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "cameras": [_described(camera, near, far) for camera in cameras],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _placed_nodes(header: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The nodes of all scenes, parents first, with their transforms [4, 4] to the world."""
    nodes = header.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    waiting = [(i, torch.eye(4, dtype=torch.float64)) for i in reversed(range(len(nodes))) if i not in children]
    seen: set[int] = set()
    while waiting:
        i, parent = waiting.pop()
        if i in seen or not 0 <= i < len(nodes):
            raise ValueError(f"nodes must be trees: number {i} has two parents, or is not there")
        seen.add(i)
        pose = parent @ _transform(nodes[i])
        waiting += [(child, pose) for child in reversed(nodes[i].get("children", []))]
        yield nodes[i], pose


def _transform(node: dict[str, Any]) -> Tensor:
    """[4, 4] a node's transform to its parent: a matrix, or translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return torch.tensor(node["matrix"], dtype=torch.float64).reshape(4, 4).mT
    rotation = torch.tensor(node.get("rotation", [0, 0, 0, 1]), dtype=torch.float64)[[3, 0, 1, 2]]
    transform = torch.eye(4, dtype=torch.float64)
    transform[:3, :3] = quaternion_to_matrix(rotation) * torch.tensor(node.get("scale", [1, 1, 1]), dtype=torch.float64)
    transform[:3, 3] = torch.tensor(node.get("translation", [0, 0, 0]), dtype=torch.float64)
    return transform


def _camera(
    described: dict[str, Any], pose: Tensor, height: int, width: int | None
) -> PinholeCamera | OrthographicCamera:
    kind = described.get("type")
    if kind not in ("perspective", "orthographic") or kind not in described:
        raise ValueError(f"a camera's type must be 'perspective' or 'orthographic', with its entry; got {described}")
    values = described[kind]
    needed = ("yfov",) if kind == "perspective" else ("xmag", "ymag")
    for name in needed:
        if not float(values.get(name, 0)) != 0:
            raise ValueError(f"{kind} must have {name}, not zero; got {values}")
    aspect = values.get("aspectRatio") if kind == "perspective" else abs(values["xmag"] / values["ymag"])
    if width is None:
        if aspect is None:
            raise ValueError("the camera has no aspectRatio: give the width of the image")
        width = max(1, round(height * aspect))
    axes = pose[:3, :3] / torch.linalg.vector_norm(pose[:3, :3], dim=0)
    R, t = from_opengl_pose(torch.cat((axes, pose[:3, 3:]), dim=-1))
    if kind == "orthographic":
        fx, fy = width / 2 / abs(values["xmag"]), height / 2 / abs(values["ymag"])
        return OrthographicCamera(fx, fy, width / 2, height / 2, size=(height, width), R=R, t=t)
    fy = height / 2 / math.tan(values["yfov"] / 2)
    fx = fy if aspect is None else fy * width / (height * aspect)
    return PinholeCamera(fx, fy, width / 2, height / 2, size=(height, width), R=R, t=t)


def _described(camera: Camera, near: float, far: float) -> dict[str, Any]:
    if type(camera) not in (PinholeCamera, OrthographicCamera) or camera.batch_shape:
        raise TypeError(f"cameras must be single pinholes or orthographic ones, glTF has no others; got {camera!r}")
    assert isinstance(camera, (PinholeCamera, OrthographicCamera))
    height, width = camera.size
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    if (cx, cy) != (width / 2, height / 2):
        raise ValueError(
            f"cameras must have their principal point in the middle, ({width / 2}, {height / 2}), as glTF's have; got "
            f"({cx}, {cy}): crop or reproject first"
        )
    if isinstance(camera, OrthographicCamera):
        magnitudes = {"xmag": width / 2 / fx, "ymag": height / 2 / fy, "znear": near, "zfar": far}
        return {"type": "orthographic", "orthographic": magnitudes}
    view = {"yfov": 2 * math.atan(height / 2 / fy), "aspectRatio": width / height * fy / fx, "znear": near, "zfar": far}
    return {"type": "perspective", "perspective": view}
