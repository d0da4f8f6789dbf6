"""Many points through a lens camera, and back: one pass over memory where plain torch makes dozens.

The plain-torch formulas are the camera's own methods, handed over as `reference`: the oracle in tests, and what is
differentiated when a gradient is to be differentiated again, or several at once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import warp as wp
from torch import Tensor

from ..derivatives import is_batched
from .launch import launch_ranges, load_kernel, vectors
from .warp_lens import NUM_PARAMETERS, TABLE, LensShape, make_lens_kernels

# Points whose gradients to the parameters are added up by one thread: a fixed number, so that the sums are always the
# same; on CUDA fewer, for there are more threads.
PART = {"cpu": 1024, "cuda": 32}
MIN_PARTS = 8  # fewer are not worth a second thread


class LensModel(NamedTuple):
    """A class of cameras, as the kernels see it; `values` are the camera's parameters, [*batch] and [*batch, K].

    Args:
        shape: what the kernels are made for.
        pack: values -> [B, NUM_PARAMETERS] in the kernels' order, differentiable.
        limits: values -> [B, NUM_LIMITS], for the inverse.
        project: points, values -> xy and depth, in plain torch.
        rays: xy, values -> directions of depth 1, in plain torch; anything finite where there are none.
    """

    shape: LensShape
    pack: Callable[..., Tensor]
    limits: Callable[..., Tensor]
    project: Callable[..., tuple[Tensor, Tensor]]
    rays: Callable[..., Tensor]


def project_lens(model: LensModel, points: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Camera-frame points [*batch, N, 3] (without a batch [..., 3]) -> pixels and depth, with gradients to all."""
    xy, depth = _Project.apply(model, points, *values)
    return xy, depth


def unproject_lens(model: LensModel, xy: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Finite pixels [*batch, N, 2] -> directions of depth 1, and [*batch, N] bool which of them exist."""
    directions, seen = _Unproject.apply(model, xy, *values)
    return directions, seen


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: LensModel, points: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        ctx.model = model
        ctx.save_for_backward(points, *values)
        rows = model.pack(*values)
        flat = points.reshape(len(rows), -1, 3)
        xy, depth = flat.new_empty(*flat.shape[:2], 2), flat.new_empty(flat.shape[:2])
        _launch(model, "project", flat, [flat, rows], [xy, depth])
        return xy.reshape(*points.shape[:-1], 2), depth.reshape(points.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        points, *values = ctx.saved_tensors
        if torch.is_grad_enabled() or any(map(is_batched, gradients)):
            return _by_reference(ctx, lambda points, *values: ctx.model.project(points, *values), gradients)
        rows = ctx.model.pack(*values)
        flat = points.reshape(len(rows), -1, 3)
        of_points = torch.empty_like(flat) if ctx.needs_input_grad[1] else flat.new_empty(1, 1, 3)
        sums = _partial_sums(flat)
        inputs = [
            flat,
            rows,
            gradients[0].reshape(*flat.shape[:2], 2),
            gradients[1].reshape(flat.shape[:2]),
            int(ctx.needs_input_grad[1]),
            int(any(ctx.needs_input_grad[2:])),
        ]
        _launch(ctx.model, "project_backward", flat, inputs, [of_points, sums.flatten(0, 1)])
        of_points = of_points.reshape(points.shape) if ctx.needs_input_grad[1] else None
        return None, of_points, *_of_values(ctx, values, sums)


class _Unproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: LensModel, xy: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        rows = model.pack(*values)
        flat = xy.reshape(len(rows), -1, 2)
        directions = flat.new_empty(*flat.shape[:2], 3)
        seen = torch.empty(flat.shape[:2], dtype=torch.uint8, device=flat.device)
        limits = model.limits(*values)
        inputs = [flat, rows, limits, _starts(model, rows, limits)]
        _launch(model, "unproject", flat, inputs, [directions, seen])
        directions = directions.reshape(*xy.shape[:-1], 3)
        ctx.model = model
        ctx.save_for_backward(xy, *values)
        ctx.solution = directions.detach(), seen
        mask = seen.view(torch.bool).reshape(xy.shape[:-1])
        ctx.mark_non_differentiable(mask)
        return directions, mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        xy, *values = ctx.saved_tensors
        if torch.is_grad_enabled() or is_batched(gradients[0]):
            return _by_reference(ctx, lambda xy, *values: (ctx.model.rays(xy, *values),), gradients[:1])
        rows = ctx.model.pack(*values)
        solution, seen = ctx.solution
        flat = solution.reshape(len(rows), -1, 3)
        of_xy, sums = flat.new_empty(*flat.shape[:2], 2), _partial_sums(flat)
        inputs = [
            flat,
            seen,
            rows,
            gradients[0].reshape(flat.shape),
            int(any(ctx.needs_input_grad[2:])),
        ]
        _launch(ctx.model, "unproject_backward", flat, inputs, [of_xy, sums.flatten(0, 1)])
        return None, of_xy.reshape(xy.shape), *_of_values(ctx, values, sums)


def _by_reference(ctx: Any, function: Callable[..., tuple[Tensor, ...]], gradients: Sequence[Tensor]) -> tuple:
    """Gradients through the plain-torch formulas, which have further derivatives."""
    inputs = ctx.saved_tensors
    wanted = [value for value, needed in zip(inputs, ctx.needs_input_grad[1:], strict=True) if needed]
    with torch.enable_grad():
        outputs = function(*inputs)
    pairs = [(out, gradient) for out, gradient in zip(outputs, gradients, strict=True) if out.requires_grad]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in pairs],
            wanted,
            [gradient for _, gradient in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
            is_grads_batched=False,
        )
    )
    return None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:])


def _of_values(ctx: Any, values: Sequence[Tensor], sums: Tensor) -> list[Tensor | None]:
    """Gradients to the camera's parameters from those to its row of numbers, in parts [B, parts, NUM_PARAMETERS]."""
    needed = ctx.needs_input_grad[2:]
    if not any(needed):
        return [None] * len(needed)
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_(need) for value, need in zip(values, needed, strict=True)]
        rows = ctx.model.pack(*leaves)
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
    found = iter(torch.autograd.grad(rows, wanted, sums.sum(1).to(rows.dtype), allow_unused=True))
    return [next(found) if need else None for need in needed]


def _starts(model: LensModel, rows: Tensor, limits: Tensor) -> Tensor:
    """The table from which the inverse starts: [B, TABLE + 1]."""
    ratios = rows.new_empty(len(rows), TABLE + 1)
    kernel = load_kernel(partial(_make, shape=model.shape), "starts", rows)
    launch_ranges(kernel, ratios.numel(), [_array(rows), _array(limits)], [_array(ratios)], rows, ratios.numel())
    return ratios


def _partial_sums(points: Tensor) -> Tensor:
    parts = -(-points.shape[1] // PART[points.device.type])
    return torch.zeros(len(points), parts, NUM_PARAMETERS, dtype=torch.float64, device=points.device)


def _launch(
    model: LensModel, name: str, points: Tensor, inputs: Sequence[Tensor | int], outputs: Sequence[Tensor]
) -> None:
    """Launch a kernel over the parts of all cameras, for `points` [B, N, ...]."""
    part = PART[points.device.type]
    parts = -(-points.shape[1] // part)
    kernel = load_kernel(partial(_make, shape=model.shape), name, points)
    arrays = [_array(value) for value in (*inputs, parts, part)]
    launch_ranges(kernel, len(points) * parts, arrays, [_array(value) for value in outputs], points, MIN_PARTS)


def _make(real: Any, shape: LensShape) -> Any:
    return make_lens_kernels(real, shape)


def _array(value: Tensor | int) -> Any:
    """[B, N, 2 or 3] as a two-dimensional array of vectors, other tensors as they are."""
    if not isinstance(value, Tensor):
        return value
    return vectors(value) if value.ndim == 3 else wp.from_torch(value.detach().contiguous())
