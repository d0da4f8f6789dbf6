"""Cameras: where points of the world appear in an image, and which ray belongs to a pixel."""

from diffrender.cameras.base import Camera, LinearRays, stack_cameras
from diffrender.cameras.intrinsics import IntrinsicsCamera
from diffrender.cameras.orthographic import OrthographicCamera
from diffrender.cameras.pinhole import PinholeCamera

__all__ = ["Camera", "IntrinsicsCamera", "LinearRays", "OrthographicCamera", "PinholeCamera", "stack_cameras"]
