"""Instruments for your own work: are the gradients of a scene right, is a camera of your own one?"""

from .cameras import CameraReport, Finding, check_camera
from .gradients import (
    GradientReport,
    NotConvergedError,
    calm_pixels,
    check_gradients,
    converged_image,
    lattice,
    smooth_weights,
)

__all__ = [
    "CameraReport",
    "Finding",
    "GradientReport",
    "NotConvergedError",
    "calm_pixels",
    "check_camera",
    "check_gradients",
    "converged_image",
    "lattice",
    "smooth_weights",
]
