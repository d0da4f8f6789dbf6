"""`diffrender undistort`: a photograph through a known lens to the picture that a pinhole takes."""

import argparse

import torch

from ..io.images import load_image, save_image
from ..reproject import undistort
from .cameras import load_camera
from .outputs import check_output, report


def run(options: argparse.Namespace) -> None:
    """Load, undistort, write; say the new camera, and how much of the picture is there."""
    check_output("-o", options.output, (".png", ".jpg", ".jpeg", ".npy"), overwrite=options.overwrite)
    image = load_image(options.image)
    camera, _ = load_camera(str(options.camera))
    camera = camera.replace(R=torch.eye(3), t=torch.zeros(3))
    if image.shape[:2] != camera.size:
        raise ValueError(
            f"{options.image} is {image.shape[1]}x{image.shape[0]}, the camera of {options.camera} is for "
            f"{camera.width}x{camera.height}: it must be the camera that took it"
        )
    straight, pinhole, valid = undistort(image, camera, alpha=options.keep, size=options.size, samples=options.samples)
    save_image(options.output, straight)
    print(pinhole)
    print(f"valid: {100 * float(valid.float().mean()):.1f} % of the pixels, the others are black")
    report([options.output])
