"""Cameras: where points of the world appear in an image, and which ray belongs to a pixel."""

from diffrender.cameras.base import Camera, stack_cameras
from diffrender.cameras.convert import from_opencv, from_opencv_fisheye, to_opencv
from diffrender.cameras.fisheye import FisheyeCamera, FOVCamera, ThinPrismFisheyeCamera
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.omnidirectional import DoubleSphereCamera, EUCMCamera, UnifiedCamera
from diffrender.cameras.opencv import OpenCVCamera
from diffrender.cameras.orthographic import OrthographicCamera, WeakPerspectiveCamera
from diffrender.cameras.panorama import CylindricalCamera, EquirectangularCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.cameras.poses import from_opengl_pose, look_at, orbit_poses, se3_exp, so3_exp, to_opengl_pose
from diffrender.cameras.rays import RayCamera
from diffrender.cameras.scaramuzza import ScaramuzzaCamera

__all__ = [
    "Camera",
    "CylindricalCamera",
    "DoubleSphereCamera",
    "EUCMCamera",
    "EquirectangularCamera",
    "FOVCamera",
    "FisheyeCamera",
    "IntrinsicsCamera",
    "LinearRays",
    "OpenCVCamera",
    "OrthographicCamera",
    "PinholeCamera",
    "RayCamera",
    "ScaramuzzaCamera",
    "ThinPrismFisheyeCamera",
    "UnifiedCamera",
    "WeakPerspectiveCamera",
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
