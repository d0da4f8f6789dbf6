"""Barycentrics and depth along rays: a fused kernel with its own reverse mode; plain torch for second derivatives."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .arrays import array, vectors, zeros
from .launch import LANES, launch, launch_ranges, load_kernel, side_by_side
from .reference import MAX_OUTSIDE, barycentrics_reference, corner_index, smallest_total
from .warp_barycentrics import HELD, make_barycentric_kernels

MIN_SHARE = 32768  # fewer rays are not worth a second thread
MAX_PARTS = 4  # of the rays, whose gradients to the vertices are summed one by one on the CPU


def barycentrics(
    vertices: Tensor,
    faces: Tensor,
    face_index: Tensor,
    offsets: Tensor | None,
    origins: Tensor | None,
    directions: Tensor,
    z_depth: bool,
    held: Tensor | None = None,
    hold_backs: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentrics [N, 3], depth [N] and front [N] of rays on faces: see the reference."""
    # Conversions here and not inside, where the result would have lost its history for a second derivative.
    vertices, directions = vertices.contiguous(), directions.to(vertices.dtype).contiguous()
    origins = None if origins is None else origins.to(vertices.dtype).contiguous()
    faces = faces.contiguous()
    rays = (vertices, faces, face_index, offsets, origins, directions)
    weights, depth, front = _Barycentrics.apply(*rays, z_depth, held, hold_backs)
    return weights, depth, front


class _Barycentrics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        faces: Tensor,
        face_index: Tensor,
        offsets: Tensor | None,
        origins: Tensor | None,
        directions: Tensor,
        z_depth: bool,
        held: Tensor | None,
        hold_backs: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, depth = torch.empty_like(directions), torch.empty_like(directions[:, 0])
        front, moves = torch.empty_like(depth, dtype=torch.uint8), torch.empty_like(depth, dtype=torch.uint8)
        rays = _rays_on_faces(vertices, faces, face_index, offsets, origins, directions)
        rests = array(faces.new_zeros(0, dtype=torch.uint8) if held is None else held.view(torch.uint8))
        inputs = [*rays, int(z_depth), smallest_total(depth.dtype), MAX_OUTSIDE, rests, int(hold_backs)]
        outputs = [vectors(weights), array(depth), array(front), array(moves)]
        _launch("barycentrics", len(depth), inputs, outputs, vertices)
        ctx.save_for_backward(vertices, faces, face_index, offsets, origins, directions, weights, depth, moves)
        ctx.z_depth = z_depth
        front = front.bool()
        ctx.mark_non_differentiable(front)
        return weights, depth, front

    @staticmethod
    def backward(ctx: Any, weight_gradient: Tensor, depth_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        *rays, weights, depth, moves = ctx.saved_tensors
        vertices, faces, face_index, offsets, origins, directions = rays
        of_vertices, _, _, _, of_origins, of_directions, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            again = barycentrics_reference(
                vertices, faces, face_index, offsets, origins, directions, ctx.z_depth, moves == int(HELD)
            )[:2]
            asked = {0: of_vertices, 4: of_origins, 5: of_directions}
            wanted = [rays[place] for place, needed in asked.items() if needed]
            found = iter(torch.autograd.grad(again, wanted, (weight_gradient, depth_gradient), create_graph=True))
            return tuple(next(found) if asked.get(place) else None for place in range(9))
        direction_gradient = directions.new_empty(len(directions) if of_directions else 0, 3)
        inputs = [
            *_rays_on_faces(vertices, faces, face_index, offsets, origins, directions),
            vectors(weights),
            array(depth.detach()),
            array(moves),
            int(ctx.z_depth),
            vectors(weight_gradient),
            array(depth_gradient.detach().contiguous()),
        ]
        if of_origins or vertices.is_cuda:  # where torch knows whether sums shall be the same every time
            corner_gradient = vertices.new_empty(len(depth), 3, 3)
            outputs = [vectors(corner_gradient.reshape(-1, 3)), vectors(direction_gradient)]
            _launch("barycentrics_gradient", len(depth), [*inputs, -1], outputs, vertices)
            index = corner_index(faces, face_index, offsets).reshape(-1)
            vertex_gradient = torch.zeros_like(vertices).index_add_(0, index, corner_gradient.reshape(-1, 3))
            origin_gradient = -corner_gradient.sum(1) if of_origins else None
            of_rays = origin_gradient, direction_gradient if of_directions else None
            return vertex_gradient, None, None, None, *of_rays, None, None, None

        kernel, blocks, _ = _blocks("barycentrics_gradient", len(depth), vertices)

        def work(first: int, stop: int, sums: int) -> None:
            outputs = [vectors(parts.reshape(-1, 3)), vectors(direction_gradient)]
            launch(kernel, stop - first, [*inputs, sums, first, *outputs], vertices.device)

        count, num_vertices = len(depth), len(vertices)
        # As many for all numbers of threads, that the sum is the same for all.
        num_parts = max(min(MAX_PARTS, count // max(MIN_SHARE, num_vertices)), 1)
        parts = zeros((num_parts, num_vertices, 3), vertices)
        cuts = [blocks * i // num_parts for i in range(num_parts + 1)]
        if count:
            side_by_side(work, [(a, b, i * num_vertices) for i, (a, b) in enumerate(pairwise(cuts))])
        vertex_gradient = parts[0] if num_parts == 1 else parts.sum(0)
        return vertex_gradient, None, None, None, None, direction_gradient if of_directions else None, None, None, None


def _launch(name: str, count: int, inputs: list[Any], outputs: list[Any], like: Tensor) -> None:
    """Launch the kernel `name` over `count` rays that write to places of their own."""
    kernel, blocks, lanes = _blocks(name, count, like)
    launch_ranges(kernel, blocks, inputs, outputs, like, max(MIN_SHARE // lanes, 1))


def _blocks(name: str, count: int, like: Tensor) -> tuple[Any, int, int]:
    """The kernel `name`, the blocks of `count` rays that its threads take, and the rays of a block."""
    lanes = LANES[like.device.type]
    return load_kernel(make_barycentric_kernels, name, like, lanes), -(-count // lanes), lanes


def _rays_on_faces(
    vertices: Tensor,
    faces: Tensor,
    face_index: Tensor,
    offsets: Tensor | None,
    origins: Tensor | None,
    directions: Tensor,
) -> list[Any]:
    """As the kernels take them; empty for what is not given."""
    return [
        vectors(vertices),
        array(faces),
        array(face_index),
        array(faces.new_zeros(0) if offsets is None else offsets),
        vectors(directions.new_zeros(0, 3) if origins is None else origins),
        vectors(directions),
    ]
