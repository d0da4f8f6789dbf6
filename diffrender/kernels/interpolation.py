"""Attributes of corners on faces: a fused kernel with its own reverse mode; plain torch for second derivatives."""

from typing import Any

import torch
from torch import Tensor

from ..derivatives import is_batched
from ..gather import gather, scatter
from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .warp_interpolation import make_interpolation_kernels

MIN_SHARE = 65536  # fewer points are not worth a second thread


def interpolate_corners(attribute: Tensor, faces: Tensor, face_index: Tensor, weights: Tensor) -> Tensor:
    """Values [N, C] of an `attribute` [V, C] on faces [N] out of `faces` [F, 3], blended by `weights` [N, 3]."""
    dtype = torch.promote_types(attribute.dtype, weights.dtype)
    inputs = [x.contiguous() for x in (attribute.to(dtype), faces, face_index, weights.to(dtype))]
    values: Tensor = _Interpolate.apply(*inputs)
    return values


def interpolate_corners_reference(attribute: Tensor, faces: Tensor, face_index: Tensor, weights: Tensor) -> Tensor:
    """The same in plain torch, with derivatives of every order."""
    return gather(attribute, faces.index_select(0, face_index), weights)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attribute: Tensor, faces: Tensor, face_index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(attribute, faces, face_index, weights)
        kernel = load_kernel(make_interpolation_kernels, "interpolate", weights)
        values = weights.new_empty(len(weights), attribute.shape[1])
        inputs = [array(attribute.detach()), array(faces), array(face_index), vectors(weights.detach())]
        launch_ranges(kernel, len(values), inputs, [array(values)], weights, MIN_SHARE)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        attribute, faces, face_index, weights = ctx.saved_tensors
        of_attribute, _, _, of_weights = ctx.needs_input_grad
        gradient = gradients[0].contiguous()
        if torch.is_grad_enabled() or is_batched(gradient):  # to be differentiated again, or several at once
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                values = interpolate_corners_reference(attribute, faces, face_index, weights)
            wanted = [x for x, asked in ((attribute, of_attribute), (weights, of_weights)) if asked]
            found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=again))
            return next(found) if of_attribute else None, None, None, next(found) if of_weights else None
        attribute_gradient = weight_gradient = None
        if of_attribute:
            attribute_gradient = scatter(gradient, faces.index_select(0, face_index), weights, len(attribute))
        if of_weights:
            weight_gradient = torch.empty_like(weights)
            kernel = load_kernel(make_interpolation_kernels, "weight_gradient", weights)
            inputs = [array(attribute), array(faces), array(face_index), array(gradient)]
            launch_ranges(kernel, len(weights), inputs, [vectors(weight_gradient)], weights, MIN_SHARE)
        return attribute_gradient, None, None, weight_gradient
