"""The seam to the kernels: functions on tensors. No caller sees Warp, nothing is compiled or probed at import."""

from .barycentrics import barycentrics
from .launch import first_hit, first_hit_linear, rasterize_linear
from .ray_tree import RayTree, SortedRays, build_ray_tree, image_slots, scattered_slots, sort_rays
from .reference import barycentrics_reference, dot3, first_hit_reference, plane_normal, side_sign

__all__ = [
    "RayTree",
    "SortedRays",
    "barycentrics",
    "barycentrics_reference",
    "build_ray_tree",
    "dot3",
    "first_hit",
    "first_hit_linear",
    "first_hit_reference",
    "image_slots",
    "plane_normal",
    "rasterize_linear",
    "scattered_slots",
    "side_sign",
    "sort_rays",
]
