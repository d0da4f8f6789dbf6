"""Values of images, textures, volumes and environments at points, differentiable to both: one subject per file."""

from .environment import cubemap_directions, panorama_directions, sample_cubemap, sample_panorama
from .footprints import uv_footprints
from .grid_sample import grid_sample
from .layouts import to_nchw, to_nhwc
from .mips import MAX_PROBES, mip_pyramid, sample_anisotropic, sample_trilinear
from .sample import sample, sample_nearest, sample_texture, sample_volume
from .seams import covered_texels, fill_texture, uv_seams
from .splat import pixel_centers, splat, warp

__all__ = [
    "MAX_PROBES",
    "covered_texels",
    "cubemap_directions",
    "fill_texture",
    "grid_sample",
    "mip_pyramid",
    "panorama_directions",
    "pixel_centers",
    "sample",
    "sample_anisotropic",
    "sample_cubemap",
    "sample_nearest",
    "sample_panorama",
    "sample_texture",
    "sample_trilinear",
    "sample_volume",
    "splat",
    "to_nchw",
    "to_nhwc",
    "uv_footprints",
    "uv_seams",
    "warp",
]
