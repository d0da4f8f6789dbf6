"""Cameras: where points of the world appear in an image, and which ray belongs to a pixel."""

from diffrender.cameras.base import Camera, stack_cameras
from diffrender.cameras.convert import from_opencv, from_opencv_fisheye, to_opencv
from diffrender.cameras.fisheye import FisheyeCamera
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.opencv import OpenCVCamera
from diffrender.cameras.orthographic import OrthographicCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.cameras.poses import from_opengl_pose, look_at, orbit_poses, se3_exp, so3_exp, to_opengl_pose

__all__ = [
    "Camera",
    "FisheyeCamera",
    "IntrinsicsCamera",
    "LinearRays",
    "OpenCVCamera",
    "OrthographicCamera",
    "PinholeCamera",
    "from_opencv",
    "from_opencv_fisheye",
    "from_opengl_pose",
    "look_at",
    "orbit_poses",
    "se3_exp",
    "so3_exp",
    "stack_cameras",
    "to_opencv",
    "to_opengl_pose",
]
