"""The seam to the kernels: functions on tensors. No caller sees Warp, nothing is compiled or probed at import."""

from .barycentrics import barycentrics
from .composite import composite_rows
from .curves import curve_sides, meeting_points
from .edges import (
    edge_sides,
    hidden_area,
    piece_middles,
    seen_from_outside,
    split_at_crossings,
    split_at_pixels,
)
from .interpolation import interpolate_corners
from .lens import LensModel, project_lens, unproject_lens
from .pyramids import (
    PyramidLookup,
    filter_pyramid,
    filter_pyramid_points_gradient,
    filter_pyramid_texels_gradient,
)
from .pyramids_reference import filter_pyramid_reference
from .ray_tree import RayTree, SortedRays, build_ray_tree, image_slots, scattered_slots, sort_rays, z_order
from .reference import barycentrics_reference, corner_index, first_hit_reference
from .sampling import Lookup, sample_images, sample_images_gradient
from .sampling_reference import filter_weights, fold, sample_images_reference
from .sorting import slots_in_groups, sort_keys, where_true
from .transform import affine_rays, covered_pixels, to_cameras
from .visibility import first_hit, first_hit_linear, project_linear, rasterize_linear
from .warp_lens_formulas import MOST_COEFFICIENTS, LensKind, LensShape

__all__ = [
    "MOST_COEFFICIENTS",
    "LensKind",
    "LensModel",
    "LensShape",
    "Lookup",
    "PyramidLookup",
    "RayTree",
    "SortedRays",
    "affine_rays",
    "barycentrics",
    "barycentrics_reference",
    "build_ray_tree",
    "composite_rows",
    "corner_index",
    "covered_pixels",
    "curve_sides",
    "edge_sides",
    "filter_pyramid",
    "filter_pyramid_points_gradient",
    "filter_pyramid_reference",
    "filter_pyramid_texels_gradient",
    "filter_weights",
    "first_hit",
    "first_hit_linear",
    "first_hit_reference",
    "fold",
    "hidden_area",
    "image_slots",
    "interpolate_corners",
    "meeting_points",
    "piece_middles",
    "project_lens",
    "project_linear",
    "rasterize_linear",
    "sample_images",
    "sample_images_gradient",
    "sample_images_reference",
    "scattered_slots",
    "seen_from_outside",
    "slots_in_groups",
    "sort_keys",
    "sort_rays",
    "split_at_crossings",
    "split_at_pixels",
    "to_cameras",
    "unproject_lens",
    "where_true",
    "z_order",
]
