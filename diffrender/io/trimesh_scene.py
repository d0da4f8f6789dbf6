"""What trimesh reads: the triangle meshes of a scene with their places in the world, and its errors in one line."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh
from trimesh.resolvers import FilePathResolver


@dataclass(frozen=True)
class Part:
    """A triangle mesh of a scene: which one of the file, as trimesh has it, and its place in the world [4, 4]."""

    number: int
    mesh: trimesh.Trimesh
    transform: np.ndarray

    def vertices(self) -> np.ndarray:
        vertices = np.asarray(self.mesh.vertices, dtype=np.float64)
        if np.array_equal(self.transform, np.eye(4)):
            return vertices
        return vertices @ self.transform[:3, :3].T + self.transform[:3, 3]

    def faces(self) -> np.ndarray:
        """Counter-clockwise seen from outside also where the transform mirrors."""
        faces = np.asarray(self.mesh.faces, dtype=np.int64)
        return faces[:, ::-1] if np.linalg.det(self.transform[:3, :3]) < 0 else faces

    def normals(self) -> np.ndarray:
        """Unit normals in the world: they go with the inverse transpose."""
        normals = np.asarray(self.mesh.vertex_normals, dtype=np.float64)
        matrix = self.transform[:3, :3]
        if np.array_equal(matrix, np.eye(3)) or np.linalg.det(matrix) == 0:
            return normals
        normals = normals @ np.linalg.inv(matrix)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return normals / np.where(length > 0, length, 1.0)


def parts(scene: trimesh.Scene) -> Iterator[Part]:
    """The triangle meshes of a scene in the order of the file."""
    order = {name: i for i, name in enumerate(scene.geometry)}
    nodes = [scene.graph[node] for node in scene.graph.nodes_geometry]
    for transform, name in sorted(nodes, key=lambda node: order[node[1]]):
        part = scene.geometry[name]
        if isinstance(part, trimesh.Trimesh) and len(part.faces):
            yield Part(order[name], part, np.asarray(transform, dtype=np.float64))


def load_scene(path: Path) -> trimesh.Scene:
    return parsed(path, lambda: trimesh.load_scene(path, process=False, resolver=_UriResolver(str(path))))


class _UriResolver(FilePathResolver):
    """Finds files by URI, where a blank is %20."""

    def get(self, name: str) -> bytes:
        return super().get(unquote(name))


def parsed(path: Path, parse: Callable[[], Any]) -> Any:
    """`parse()`, whatever it stumbles over as a ValueError of one line that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed text warns first and fails after
            return parse()
    except Exception as error:  # parsers of damaged files raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ImportError):  # of the library that guesses at the encoding
            reason = "it is no text in UTF-8"
        raise ValueError(
            f"{path} cannot be read as {path.suffix[1:].upper()}, it may be truncated: {reason}"
        ) from error
