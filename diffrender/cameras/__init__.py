"""Cameras: where points of the world appear in an image, and which ray belongs to a pixel."""

from diffrender.cameras.base import Camera, stack_cameras
from diffrender.cameras.convert import (
    from_kornia,
    from_opencv,
    from_opencv_fisheye,
    from_opencv_omnidir,
    from_opengl,
    from_pytorch3d,
    from_pytorch3d_fov,
    from_trimesh,
    to_kornia,
    to_opencv,
    to_opengl,
    to_pytorch3d,
    to_trimesh,
)
from diffrender.cameras.fisheye import FisheyeCamera, FOVCamera, ThinPrismFisheyeCamera
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.linear_rays import LinearRays
from diffrender.cameras.omnidirectional import DoubleSphereCamera, EUCMCamera, UnifiedCamera
from diffrender.cameras.opencv import OpenCVCamera
from diffrender.cameras.orthographic import OrthographicCamera, WeakPerspectiveCamera
from diffrender.cameras.panorama import CylindricalCamera, EquirectangularCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.cameras.poses import (
    compose_poses,
    from_opengl_pose,
    invert_pose,
    look_at,
    orbit_poses,
    to_opengl_pose,
)
from diffrender.cameras.rays import RayCamera
from diffrender.cameras.rig import Rig
from diffrender.cameras.rotations import (
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    se3_exp,
    se3_log,
    so3_exp,
    so3_log,
)
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
    "Rig",
    "ScaramuzzaCamera",
    "ThinPrismFisheyeCamera",
    "UnifiedCamera",
    "WeakPerspectiveCamera",
    "compose_poses",
    "from_kornia",
    "from_opencv",
    "from_opencv_fisheye",
    "from_opencv_omnidir",
    "from_opengl",
    "from_opengl_pose",
    "from_pytorch3d",
    "from_pytorch3d_fov",
    "from_trimesh",
    "invert_pose",
    "look_at",
    "matrix_to_quaternion",
    "matrix_to_rotation_6d",
    "orbit_poses",
    "quaternion_to_matrix",
    "rotation_6d_to_matrix",
    "se3_exp",
    "se3_log",
    "so3_exp",
    "so3_log",
    "stack_cameras",
    "to_kornia",
    "to_opencv",
    "to_opengl",
    "to_opengl_pose",
    "to_pytorch3d",
    "to_trimesh",
]
