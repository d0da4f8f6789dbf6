"""World points to the frames of cameras, pixels to their places and rays: small sums over many rows, fused.

A matrix product would bring points to cameras, too; but torch's starts its own threads, and while these wait for more
to do, they take the cores of ours.
"""

from typing import Any

import torch
from torch import Tensor

from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .sorting import where_true
from .warp_transform import make_transform_kernels

MIN_SHARE = 32768  # fewer points are not worth a second thread


def to_cameras(points: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """`R x + t` of points [V, 3] for rotations [B, 3, 3] and translations [B, 3]: [B * V, 3], camera by camera."""
    result: Tensor = _ToCameras.apply(points.contiguous(), R.contiguous(), t.contiguous())
    return result


class _ToCameras(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, R: Tensor, t: Tensor) -> Tensor:
        kernel = load_kernel(make_transform_kernels, "to_cameras", points)
        ctx.save_for_backward(points, R)
        moved = points.new_empty(len(R) * len(points), 3)
        inputs = [vectors(points), vectors(R), vectors(t)]
        launch_ranges(kernel, len(moved), inputs, [vectors(moved)], points, MIN_SHARE)
        return moved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        points, R = ctx.saved_tensors
        gradient = gradients[0].reshape(len(R), -1, 3)
        of_points, of_R, of_t = ctx.needs_input_grad
        return (
            (gradient @ R).sum(0) if of_points else None,
            gradient.mT @ points if of_R else None,
            gradient.sum(1) if of_t else None,
        )


def covered_pixels(
    face_image: Tensor, like: Tensor, rays: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The N pixels of a `face_image` [B, H, W], int32, that show a face; numbers that are none in the type of `like`.

    Returns:
        [N] index into the B * H * W pixels, ascending, [N] their images, [N, 2] their centres, [N] the faces, and
        [N, 3] the directions of affine `rays` [B, 6, 3], [0, 3] without these.
    """
    faces, (height, width) = face_image.reshape(-1), face_image.shape[-2:]
    assert faces.dtype == torch.int32
    # By numpy as `where_true` itself: the comparison of so many numbers wakes torch's threads, too.
    pixel = where_true(faces >= 0 if faces.is_cuda else torch.from_numpy(faces.numpy() >= 0))
    kernel = load_kernel(make_transform_kernels, "covered_pixels", like)
    (view, face), xy = torch.empty(2, len(pixel), dtype=torch.int64, device=pixel.device), like.new_empty(len(pixel), 2)
    directions = like.new_empty(0 if rays is None else len(pixel), 3)
    inputs = [array(pixel), array(faces), height, width, vectors(like.new_empty(0, 6, 3) if rays is None else rays)]
    outputs = [array(view), vectors(xy), array(face), vectors(directions)]
    launch_ranges(kernel, len(pixel), inputs, outputs, like, MIN_SHARE)
    return pixel, view, xy, face, directions


def affine_rays(xy: Tensor, view: Tensor, rays: Tensor, part: int) -> Tensor:
    """Origins (`part` 0) or directions (3) [N, 3] of `rays` [B, 6, 3] at pixels [N, 2], as `LinearRays.at` has them."""
    kernel = load_kernel(make_transform_kernels, "affine_rays", rays)
    values = rays.new_empty(len(xy), 3)
    inputs = [vectors(xy), array(view.contiguous()), vectors(rays), part]
    launch_ranges(kernel, len(xy), inputs, [vectors(values)], rays, MIN_SHARE)
    return values
