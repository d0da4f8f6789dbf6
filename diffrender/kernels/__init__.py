"""The seam to the kernels: functions on tensors. No caller sees Warp, nothing is compiled or probed at import."""

from .launch import first_hit, rasterize_linear
from .ray_tree import RayTree, build_ray_tree, image_slots, scattered_slots
from .reference import dot3, first_hit_reference, plane_normal, side_sign

__all__ = [
    "RayTree",
    "build_ray_tree",
    "dot3",
    "first_hit",
    "first_hit_reference",
    "image_slots",
    "plane_normal",
    "rasterize_linear",
    "scattered_slots",
    "side_sign",
]
