"""The one differentiable operator below every function of this folder, and its adjoint.

`values = lookup(images, points)` is linear in the images; its adjoint, `spread`, in the values. The gradient of
each to its linear argument is the other one, and the gradients to the points are one and the same kernel.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..checks import broadcast_shapes
from ..kernels import Lookup, sample_images, sample_images_gradient, sample_images_reference


def lookup(images: Tensor, points: Tensor, how: Lookup) -> Tensor:
    """Values [*batch, ..., C] at `points` [*batch, ..., D] of `images` [*batch, (Z,) H, W, C], D = 2 or 3."""
    dimensions = points.shape[-1]
    batch = images.shape[: -dimensions - 1]
    wider = torch.promote_types(images.dtype, points.dtype)
    dtype = torch.promote_types(wider, torch.float32)  # halves are computed with in single precision
    shape, image_of = _groups(batch, points)
    inner = points.shape[len(batch) : -1]
    flat = points.to(dtype).expand(*shape, *inner, dimensions).reshape(len(image_of), math.prod(inner), dimensions)
    stack = images.to(dtype).reshape(math.prod(batch), *images.shape[-dimensions - 1 :])
    values: Tensor = _Lookup.apply(stack.contiguous(), flat.contiguous(), image_of, how)
    return values.view(*shape, *inner, images.shape[-1]).to(wider)


def spread(values: Tensor, points: Tensor, sizes: tuple[int, ...], how: Lookup) -> Tensor:
    """The adjoint of `lookup`: `values` [*batch, P, C] at `points` [*batch, P, D] added up: [*batch, *sizes, C]."""
    batch, (count, channels), dimensions = values.shape[:-2], values.shape[-2:], points.shape[-1]
    wider = torch.promote_types(values.dtype, points.dtype)
    dtype = torch.promote_types(wider, torch.float32)
    groups = math.prod(batch)
    flat_values = values.to(dtype).reshape(groups, count, channels).contiguous()
    flat_points = points.to(dtype).reshape(groups, count, dimensions).contiguous()
    image: Tensor = _Spread.apply(flat_values, flat_points, sizes, how)
    return image.view(*batch, *sizes, channels).to(wider)


def _groups(batch: torch.Size, points: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """The common shape of two batches, and the image [G] that each of its elements reads."""
    shape = broadcast_shapes(tuple(batch), points.shape[: len(batch)])
    of = torch.arange(math.prod(batch), dtype=torch.int32, device=points.device).view(batch)
    return shape, of.expand(shape).reshape(-1)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, points: Tensor, image_of: Tensor, how: Lookup) -> Tensor:
        ctx.save_for_backward(images, points, image_of)
        ctx.how = how
        return sample_images(images, image_of, points, how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, points, image_of = ctx.saved_tensors
        of_images, of_points = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            again = sample_images_reference(images, image_of, points, *ctx.how.settings)
            return *differentiate(again, (images, points), gradients[0]), None, None
        found = sample_images_gradient(
            images, image_of, points, ctx.how, gradients[0].contiguous(), to_images=of_images, to_points=of_points
        )
        return *found, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, points: Tensor, sizes: tuple[int, ...], how: Lookup) -> Tensor:
        ctx.save_for_backward(values, points)
        ctx.how = how
        images = values.new_empty(1).expand(len(points), *sizes, values.shape[-1])  # only its shape is read
        image_of = torch.arange(len(points), dtype=torch.int32, device=points.device)
        spread_out, _ = sample_images_gradient(images, image_of, points, how, values, to_images=True, to_points=False)
        assert spread_out is not None
        return spread_out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, points = ctx.saved_tensors
        images = gradients[0].contiguous()
        image_of = torch.arange(len(points), dtype=torch.int32, device=points.device)
        if torch.is_grad_enabled():
            looked_up = sample_images_reference(images, image_of, points, *ctx.how.settings)
            of_points = differentiate((looked_up * values).sum(), (points,), None)[0]
            return looked_up if values.requires_grad else None, of_points, None, None
        of_values, of_points = ctx.needs_input_grad[:2]
        value_gradient = sample_images(images, image_of, points, ctx.how) if of_values else None
        _, point_gradient = sample_images_gradient(
            images, image_of, points, ctx.how, values, to_images=False, to_points=of_points
        )
        return value_gradient, point_gradient, None, None


def differentiate(result: Tensor, inputs: tuple[Tensor, ...], gradient: Tensor | None) -> list[Tensor | None]:
    """The gradients to those inputs that require one, to be differentiated once more."""
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=True) if wanted else ())
    return [next(found) if x.requires_grad else None for x in inputs]
