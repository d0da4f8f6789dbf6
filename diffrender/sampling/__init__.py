"""Values of images, textures, volumes and environments at points, differentiable to both: one subject per file."""

from .grid_sample import grid_sample
from .layouts import to_nchw, to_nhwc
from .sample import sample, sample_nearest, sample_texture, sample_volume
from .splat import pixel_centers, splat, warp

__all__ = [
    "grid_sample",
    "pixel_centers",
    "sample",
    "sample_nearest",
    "sample_texture",
    "sample_volume",
    "splat",
    "to_nchw",
    "to_nhwc",
    "warp",
]
