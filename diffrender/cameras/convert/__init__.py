"""Cameras from and to other libraries in memory: one module for each, its half pixel and axes in its docstring."""

from diffrender.cameras.convert.kornia import from_kornia, to_kornia
from diffrender.cameras.convert.opencv import from_opencv, from_opencv_fisheye, from_opencv_omnidir, to_opencv
from diffrender.cameras.convert.opengl import from_opengl, to_opengl
from diffrender.cameras.convert.pytorch3d import from_pytorch3d, from_pytorch3d_fov, to_pytorch3d
from diffrender.cameras.convert.trimesh import from_trimesh, to_trimesh

__all__ = [
    "from_kornia",
    "from_opencv",
    "from_opencv_fisheye",
    "from_opencv_omnidir",
    "from_opengl",
    "from_pytorch3d",
    "from_pytorch3d_fov",
    "from_trimesh",
    "to_kornia",
    "to_opencv",
    "to_opengl",
    "to_pytorch3d",
    "to_trimesh",
]
