"""Differentiable rendering for PyTorch: any camera, any machine, checked gradients.

>>> import diffrender as dr
>>> R, t = dr.look_at(eye=(0.0, 1.0, 3.0))
>>> camera = dr.PinholeCamera(60.0, 60.0, 32.0, 24.0, size=(48, 64), R=R, t=t)
>>> image = dr.render(dr.sphere(), camera, background=(1.0, 1.0, 1.0))
>>> image.shape
torch.Size([48, 64, 4])
"""

from .cameras import (
    Camera,
    CylindricalCamera,
    DoubleSphereCamera,
    EquirectangularCamera,
    EUCMCamera,
    FisheyeCamera,
    FOVCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    RayCamera,
    Rig,
    ScaramuzzaCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    WeakPerspectiveCamera,
    compose_poses,
    from_opencv,
    from_opencv_fisheye,
    from_opengl_pose,
    invert_pose,
    look_at,
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    orbit_poses,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    se3_exp,
    se3_log,
    so3_exp,
    so3_log,
    stack_cameras,
    to_opencv,
    to_opengl_pose,
)
from .fragments import Fragments, interpolate
from .io.datasets import load_dataset
from .io.image_set import ImageSet
from .io.images import decode_srgb, encode_srgb, load_image, save_animation, save_image
from .io.meshes import load_mesh, save_mesh
from .mesh import Material, Mesh, join
from .primitives import cube, grid, sphere, torus
from .render import render
from .sampling import (
    grid_sample,
    sample,
    sample_nearest,
    sample_texture,
    sample_volume,
    splat,
    to_nchw,
    to_nhwc,
    warp,
)
from .shading import (
    AmbientLight,
    DirectionalLight,
    Lambert,
    Light,
    PointLight,
    SphericalHarmonicsLight,
    unlit,
)
from .visibility import visibility

__version__ = "0.1.0"

__all__ = [
    "AmbientLight",
    "Camera",
    "CylindricalCamera",
    "DirectionalLight",
    "DoubleSphereCamera",
    "EUCMCamera",
    "EquirectangularCamera",
    "FOVCamera",
    "FisheyeCamera",
    "Fragments",
    "ImageSet",
    "Lambert",
    "Light",
    "Material",
    "Mesh",
    "OpenCVCamera",
    "OrthographicCamera",
    "PinholeCamera",
    "PointLight",
    "RayCamera",
    "Rig",
    "ScaramuzzaCamera",
    "SphericalHarmonicsLight",
    "ThinPrismFisheyeCamera",
    "UnifiedCamera",
    "WeakPerspectiveCamera",
    "compose_poses",
    "cube",
    "decode_srgb",
    "encode_srgb",
    "from_opencv",
    "from_opencv_fisheye",
    "from_opengl_pose",
    "grid",
    "grid_sample",
    "interpolate",
    "invert_pose",
    "join",
    "load_dataset",
    "load_image",
    "load_mesh",
    "look_at",
    "matrix_to_quaternion",
    "matrix_to_rotation_6d",
    "orbit_poses",
    "quaternion_to_matrix",
    "render",
    "rotation_6d_to_matrix",
    "sample",
    "sample_nearest",
    "sample_texture",
    "sample_volume",
    "save_animation",
    "save_image",
    "save_mesh",
    "se3_exp",
    "se3_log",
    "so3_exp",
    "so3_log",
    "sphere",
    "splat",
    "stack_cameras",
    "to_nchw",
    "to_nhwc",
    "to_opencv",
    "to_opengl_pose",
    "torus",
    "unlit",
    "visibility",
    "warp",
]
