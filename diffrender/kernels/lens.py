"""Many points through a lens camera, and back: one pass over memory where plain torch makes dozens.

The plain-torch formulas are the camera's own methods, handed over as `reference`: the oracle in tests, and what is
differentiated when a gradient is to be differentiated again, or several at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..derivatives import is_batched
from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .warp_lens import make_lens_kernels
from .warp_lens_formulas import TABLE, LensShape, summed_parameters

# Points whose gradients to the parameters are added up by one thread: a fixed number, so that the sums are always the
# same; on CUDA fewer, for there are more threads.
PART = {"cpu": 1024, "cuda": 32}
# Points that a thread computes side by side, in vector instructions; on CUDA threads themselves are side by side.
LANES = {"cpu": 64, "cuda": 1}
MIN_PARTS = 8  # fewer are not worth a second thread


class LensModel(NamedTuple):
    """A class of cameras, as the kernels see it; `values` are the camera's parameters, [*batch] and [*batch, K].

    With R and t among the values points are the world's, else the camera's own.

    Args:
        shape: what the kernels are made for.
        posed: R and t are the last two of the values.
        pack: values -> [B, NUM_PARAMETERS] in the kernels' order, differentiable.
        limits: values -> [B, NUM_LIMITS], for the inverse.
        project: points, values -> xy and depth, in plain torch.
        unproject: xy, depth or None, values -> points, or directions of depth 1, in plain torch; anything finite where
            there are none.
        kept: what does not depend on the points, from call to call, where the values stay what they are, and
            there are no poses among them; else None.
    """

    shape: LensShape
    posed: bool
    pack: Callable[..., Tensor]
    limits: Callable[..., Tensor]
    project: Callable[..., tuple[Tensor, Tensor]]
    unproject: Callable[..., Tensor]
    kept: dict[Any, Any] | None = None

    def rows(self, values: Sequence[Tensor]) -> Tensor:
        """The numbers of each camera: [B, NUM_PARAMETERS]."""
        return self._once("rows", values, lambda: self.pack(*values))

    def inverse(self, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the inverse needs besides: limits [B, NUM_LIMITS], and a table from which it starts [B, TABLE + 1]."""

        def make() -> tuple[Tensor, Tensor]:
            limits = self.limits(*values)
            return limits, _starts(self, self.rows(values), limits)

        return self._once("inverse", values, make)

    def _once(self, name: str, values: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        if self.kept is None:
            return make()
        key = name, values[0].dtype
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


def project_lens(model: LensModel, points: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Points [*batch, N, 3] (without a batch [..., 3]) -> pixels and depth, with gradients to all."""
    xy, depth = _Project.apply(model, points, *values)
    return xy, depth


def unproject_lens(
    model: LensModel, xy: Tensor, depth: Tensor | None, values: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Pixels [*batch, N, 2] and depth [*batch, N] -> points, and bool [*batch, N] which of them exist.

    For a model without a pose, and no depth: camera-frame directions of depth 1.
    """
    assert model.posed == (depth is not None)
    points, seen = _Unproject.apply(model, xy, depth, *values)
    return points, seen


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: LensModel, points: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        ctx.model = model
        ctx.save_for_backward(points, *values)
        rows = model.rows(values)
        flat = points.reshape(len(rows), -1, 3)
        xy, depth = flat.new_empty(*flat.shape[:2], 2), flat.new_empty(flat.shape[:2])
        _launch(model, "project", flat, [flat, rows], [xy, depth])
        return xy.reshape(*points.shape[:-1], 2), depth.reshape(points.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        points, *values = ctx.saved_tensors
        if torch.is_grad_enabled() or any(map(is_batched, gradients)):
            return None, *_by_reference(ctx, ctx.model.project, gradients)
        rows = ctx.model.rows(values)
        flat = points.reshape(len(rows), -1, 3)
        of_points = torch.empty_like(flat) if ctx.needs_input_grad[1] else flat.new_empty(1, 1, 3)
        sums = _partial_sums(ctx.model, flat)
        of_xy, of_depth = gradients[0].reshape(*flat.shape[:2], 2), gradients[1].reshape(flat.shape[:2])
        inputs = [flat, rows, of_xy, of_depth, int(ctx.needs_input_grad[1])]
        _launch(ctx.model, "project_backward", flat, inputs, [of_points, sums.flatten(0, 1)])
        of_values = _of_values(ctx.model, values, ctx.needs_input_grad[2:], sums)
        return None, of_points.reshape(points.shape) if ctx.needs_input_grad[1] else None, *of_values


class _Unproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: LensModel, xy: Tensor, depth: Tensor | None, *values: Tensor) -> tuple[Tensor, Tensor]:
        rows, (limits, starts) = model.rows(values), model.inverse(values)
        flat = xy.reshape(len(rows), -1, 2)
        directions = flat.new_empty(*flat.shape[:2], 3)
        points = torch.empty_like(directions) if model.posed else directions
        seen = torch.empty(flat.shape[:2], dtype=torch.uint8, device=flat.device)
        away = flat.new_empty(1, 1) if depth is None else depth.reshape(flat.shape[:2])
        inputs: list[Tensor | int] = [flat, rows, limits, starts, away, int(model.posed)]
        _launch(model, "unproject", flat, inputs, [directions, seen, points])
        ctx.model, ctx.solution = model, (directions.detach(), seen)
        ctx.save_for_backward(xy, depth, *values)
        mask = seen.view(torch.bool).reshape(xy.shape[:-1])
        ctx.mark_non_differentiable(mask)
        return points.reshape(*xy.shape[:-1], 3), mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        xy, depth, *values = ctx.saved_tensors
        if torch.is_grad_enabled() or is_batched(gradients[0]):
            return None, *_by_reference(ctx, lambda *inputs: (ctx.model.unproject(*inputs),), gradients[:1])
        rows = ctx.model.rows(values)
        directions, seen = ctx.solution
        of_xy, sums = directions.new_empty(*directions.shape[:2], 2), _partial_sums(ctx.model, directions)
        away = rows.new_empty(1, 1) if depth is None else depth.reshape(directions.shape[:2])
        of_depth = torch.empty_like(away)
        posed = ctx.model.posed
        inputs = [directions, seen, rows, away, gradients[0].reshape(directions.shape), int(posed)]
        _launch(ctx.model, "unproject_backward", directions, inputs, [of_xy, of_depth, sums.flatten(0, 1)])
        of_values = _of_values(ctx.model, values, ctx.needs_input_grad[3:], sums)
        return None, of_xy.reshape(xy.shape), of_depth.reshape(depth.shape) if posed else None, *of_values


def _by_reference(ctx: Any, function: Callable[..., tuple[Tensor, ...]], gradients: Sequence[Tensor]) -> list:
    """Gradients through the plain-torch formulas, which have further derivatives."""
    inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    with torch.enable_grad():
        outputs = function(*inputs)
    pairs = [(out, gradient) for out, gradient in zip(outputs, gradients, strict=True) if out.requires_grad]
    heads, upstream = [out for out, _ in pairs], [gradient for _, gradient in pairs]
    again = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(heads, wanted, upstream, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needed]


def _of_values(model: LensModel, values: Sequence[Tensor], needed: Sequence[bool], sums: Tensor) -> list[Tensor | None]:
    """Gradients to the camera's parameters from the sums of `_partial_sums`."""
    if not any(needed):
        return [None] * len(needed)
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_(need) for value, need in zip(values, needed, strict=True)]
        rows = model.pack(*leaves)
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
    columns = torch.tensor(summed_parameters(model.shape), device=rows.device)
    of_rows = torch.zeros_like(rows).index_copy(1, columns, sums.sum(1).to(rows.dtype))
    found = iter(torch.autograd.grad(rows, wanted, of_rows, allow_unused=True))
    return [next(found) if need else None for need in needed]


def _starts(model: LensModel, rows: Tensor, limits: Tensor) -> Tensor:
    """The table from which the inverse starts: [B, TABLE + 1]."""
    ratios = rows.new_empty(len(rows), TABLE + 1)
    kernel = _load(model, "starts", rows)
    launch_ranges(kernel, ratios.numel(), [_array(rows), _array(limits)], [_array(ratios)], rows, ratios.numel())
    return ratios


def _partial_sums(model: LensModel, points: Tensor) -> Tensor:
    """Room for the gradients to the numbers of each camera that it has: [B, parts, numbers]."""
    shape = len(points), -(-points.shape[1] // PART[points.device.type]), len(summed_parameters(model.shape))
    return torch.empty(shape, dtype=torch.float64, device=points.device)


def _launch(
    model: LensModel, name: str, points: Tensor, inputs: Sequence[Tensor | int], outputs: Sequence[Tensor]
) -> None:
    """Launch a kernel over the parts of all cameras, for `points` [B, N, ...]."""
    part = PART[points.device.type]
    parts = -(-points.shape[1] // part)
    kernel = _load(model, name, points)
    arrays = [_array(value) for value in (*inputs, parts, part)]
    launch_ranges(kernel, len(points) * parts, arrays, [_array(value) for value in outputs], points, MIN_PARTS)


def _load(model: LensModel, name: str, like: Tensor) -> Any:
    return load_kernel(make_lens_kernels, name, like, model.shape, LANES[like.device.type])


def _array(value: Tensor | int) -> Any:
    """[B, N, 2 or 3] as a two-dimensional array of vectors, other tensors as they are."""
    if not isinstance(value, Tensor):
        return value
    return vectors(value) if value.ndim == 3 else array(value if value.is_contiguous() else value.contiguous())
