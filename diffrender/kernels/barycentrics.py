"""Barycentrics and depth along rays: a fused kernel with its own reverse mode; plain torch for second derivatives."""

from typing import Any

import torch
from torch import Tensor

from .launch import array, launch_ranges, load_kernel, vectors
from .reference import MAX_OUTSIDE, barycentrics_reference, smallest_total
from .warp_barycentrics import make_barycentric_kernels

MIN_SHARE = 4096  # fewer rays are not worth a second thread


def barycentrics(corners: Tensor, directions: Tensor, z_depth: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentrics [N, 3], depth [N] and front [N] of rays from the origin on faces [N, 3, 3]: see the reference."""
    # Conversions here and not inside, where the result would have lost its history for a second derivative.
    corners, directions = corners.contiguous(), directions.to(corners.dtype).contiguous()
    weights, depth, front = _Barycentrics.apply(corners, directions, z_depth)
    return weights, depth, front


class _Barycentrics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, corners: Tensor, directions: Tensor, z_depth: bool) -> tuple[Tensor, Tensor, Tensor]:
        kernel = load_kernel(make_barycentric_kernels, "barycentrics", corners)
        weights, depth = torch.empty_like(directions), torch.empty_like(directions[:, 0])
        front = torch.empty_like(depth, dtype=torch.uint8)
        inputs = [vectors(corners), vectors(directions), *_settings(corners, z_depth)]
        outputs = [vectors(weights), array(depth), array(front)]
        launch_ranges(kernel, len(corners), inputs, outputs, corners, MIN_SHARE)
        ctx.save_for_backward(corners, directions, weights, depth)
        ctx.z_depth = z_depth
        front = front.bool()
        ctx.mark_non_differentiable(front)
        return weights, depth, front

    @staticmethod
    def backward(ctx: Any, weight_gradient: Tensor, depth_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        corners, directions, weights, depth = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            again = barycentrics_reference(corners, directions, ctx.z_depth)[:2]
            wanted = [x for x in (corners, directions) if x.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, (weight_gradient, depth_gradient), create_graph=True))
            return *(next(found) if x.requires_grad else None for x in (corners, directions)), None
        corner_gradient, direction_gradient = torch.empty_like(corners), torch.empty_like(directions)
        inputs = [
            vectors(corners),
            vectors(directions),
            vectors(weights),
            array(depth.detach()),
            *_settings(corners, ctx.z_depth),
            vectors(weight_gradient),
            array(depth_gradient.detach().contiguous()),
        ]
        outputs = [vectors(corner_gradient), vectors(direction_gradient)]
        kernel = load_kernel(make_barycentric_kernels, "barycentrics_gradient", corners)
        launch_ranges(kernel, len(corners), inputs, outputs, corners, MIN_SHARE)
        return corner_gradient, direction_gradient, None


def _settings(corners: Tensor, z_depth: bool) -> list[Any]:
    return [int(z_depth), smallest_total(corners.dtype), MAX_OUTSIDE]
