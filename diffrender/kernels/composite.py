"""Colours of fragments to images: a fused kernel with its own reverse mode; plain torch for all that is rare."""

from typing import Any

import torch
from torch import Tensor

from .arrays import array, repeated, vectors
from .launch import launch, launch_ranges, load_kernel
from .warp_composite import make_composite_kernels

MOST_CHANNELS = 8  # kernels are compiled for each number of them; with more, torch is as fast
BLOCK = 64  # rows that a thread takes
MIN_BLOCKS = 512  # fewer are not worth a second thread


def composite_rows(
    colors: Tensor, area: Tensor, share: Tensor, background: Tensor, pixel: Tensor, count: int
) -> Tensor:
    """Images [P, C + 1] out of N rows of colours: of the centres of pixels, of M sides of edges, and K that only move.

    Args:
        colors: [N, C], first those at the centres, then those of the sides, then the others.
        area: [M] signed share of its pixel that each side covers.
        share: [K] what the derivatives of the others count; their values do not. Without gradient.
        background: [P, C + 1] or [1, C + 1], colour and alpha where nothing is.
        pixel: [N] index into the P pixels; those at the centres are all different.
        count: P.

    Returns:
        The background; where there is one, a centre's colour with an alpha of 1; and from there on the sum of
        `area * (side - background)`. Differentiable to colours, areas and background.
    """
    colors, area, share = colors.contiguous(), area.to(colors.dtype).contiguous(), share.to(colors.dtype)
    if colors.is_cuda or background.requires_grad or colors.shape[1] > MOST_CHANNELS:
        return composite_reference(colors, area, share, background, pixel, count)
    image: Tensor = _Composite.apply(colors, area, share.contiguous(), background.contiguous(), pixel, count)
    return image


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, colors: Tensor, area: Tensor, share: Tensor, background: Tensor, pixel: Tensor, count: int
    ) -> Tensor:
        cover, add = (
            load_kernel(make_composite_kernels, name, colors, colors.shape[1]) for name in ("fill_centers", "add_sides")
        )
        image = repeated(background, count) if len(background) == 1 else background.clone()
        centers = len(colors) - len(area) - len(share)
        rows, pixels, output = vectors(colors.detach()), array(pixel), [vectors(image)]
        launch_ranges(cover, -(-centers // BLOCK), [rows, pixels, centers, BLOCK], output, colors, MIN_BLOCKS)
        inputs = [rows, pixels, array(area.detach()), vectors(background), centers]
        launch(add, 1, [*inputs, *output], colors.device)
        ctx.save_for_backward(colors, area, share, background, pixel)
        return image

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        colors, area, share, background, pixel = ctx.saved_tensors
        upstream = gradients[0]
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            again = composite_reference(colors, area, share, background, pixel, len(upstream))
            wanted = [x for x, needed in zip((colors, area), ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(again, wanted, upstream, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        kernel = load_kernel(make_composite_kernels, "composite_gradient", colors, colors.shape[1])
        color_gradient, area_gradient = torch.empty_like(colors), torch.empty_like(area)
        centers = len(colors) - len(area) - len(share)
        inputs = [vectors(colors.detach()), array(pixel), array(area.detach()), array(share), vectors(background)]
        inputs += [centers, vectors(upstream), BLOCK]
        outputs = [vectors(color_gradient), array(area_gradient)]
        launch_ranges(kernel, -(-len(colors) // BLOCK), inputs, outputs, colors, MIN_BLOCKS)
        return color_gradient, area_gradient, None, None, None, None


def composite_reference(
    colors: Tensor, area: Tensor, share: Tensor, background: Tensor, pixel: Tensor, count: int
) -> Tensor:
    """The same in plain torch."""
    counts = [len(colors) - len(area) - len(share), len(area), len(share)]
    values = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1)
    inside, beside, others = values.split(counts)
    at_center, target, elsewhere = pixel.split(counts)
    image = background.expand(count, -1).contiguous()
    jump = beside - image.index_select(0, target)
    motion = share.unsqueeze(-1) * (others - others.detach())
    image = image.index_copy(0, at_center, inside)
    return image.index_add(0, target, area.unsqueeze(-1) * jump).index_add(0, elsewhere, motion)
