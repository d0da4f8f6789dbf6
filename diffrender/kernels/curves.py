"""Curves in which faces pass through each other, as functions on tensors: see `intersections` and `boundary`."""

from typing import Any

import torch
from torch import Tensor

from ..derivatives import is_batched
from .arrays import array, vectors
from .launch import launch_ranges, load_kernel
from .warp_curves import BOX_SLACK, PLANE_ROUNDING, make_curve_kernels

MIN_POINTS = 16384  # fewer are not worth a second thread


def meeting_points(vertices: Tensor, sides: Tensor, corners: Tensor) -> Tensor:
    """Where sides of faces meet the planes of others; differentiable to the vertices.

    Where rounding decides about that, because the side lies in the plane, it is the middle of what the box around the
    face holds of the side, and it only moves as the side does.

    Args:
        vertices: [V, 3].
        sides: [N, 2] their ends, index into the vertices.
        corners: [N, 3] those of the faces.

    Returns:
        [N, 3] points.
    """
    points: Tensor = _MeetingPoints.apply(vertices.contiguous(), sides.contiguous(), corners.contiguous())
    return points


class _MeetingPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, sides: Tensor, corners: Tensor) -> Tensor:
        ctx.save_for_backward(vertices, sides, corners)
        kernel = load_kernel(make_curve_kernels, "meeting_points", vertices)
        points = vertices.new_empty(len(sides), 3)
        inputs = [vectors(vertices.detach()), array(sides), array(corners)]
        launch_ranges(kernel, len(points), inputs, [vectors(points)], vertices, MIN_POINTS)
        return points

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vertices, sides, corners = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        if torch.is_grad_enabled() or is_batched(gradient):  # to be differentiated again, or several at once
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                points = meeting_points_reference(vertices, sides, corners)
            return torch.autograd.grad(points, vertices, gradient, create_graph=again)[0], None, None
        kernel = load_kernel(make_curve_kernels, "meeting_points_gradient", vertices)
        index = torch.cat([sides.reshape(-1), corners.reshape(-1)])
        rows = vertices.new_empty(len(index), 3)
        of_sides, of_corners = rows[: sides.numel()], rows[sides.numel() :]
        inputs = [vectors(vertices), array(sides), array(corners), vectors(gradient)]
        outputs = [vectors(of_sides.view(-1, 2, 3)), vectors(of_corners.view(-1, 3, 3))]
        launch_ranges(kernel, len(sides), inputs, outputs, vertices, MIN_POINTS)
        return torch.zeros_like(vertices).index_add_(0, index, rows), None, None


def meeting_points_reference(vertices: Tensor, sides: Tensor, corners: Tensor) -> Tensor:
    """The same in plain torch, with derivatives of every order."""
    exact = torch.float64
    # index_select and not vertices[sides]: its backward gives the same bits from run to run on the CPU
    start, end = vertices.index_select(0, sides.reshape(-1)).reshape(-1, 2, 3).to(exact).unbind(1)
    origin, b, c = vertices.index_select(0, corners.reshape(-1)).reshape(-1, 3, 3).to(exact).unbind(1)
    p, q, u, v = (x - origin for x in (start, end, b, c))
    with torch.no_grad():  # products of three lengths have to stay within the range of the type
        size = torch.stack([p, q, u, v]).abs().amax((0, 2)).clamp(min=torch.finfo(exact).tiny).unsqueeze(-1)
    p, q, u, v = p / size, q / size, u / size, v / size
    normal = torch.linalg.cross(u, v)
    before, after = (normal * p).sum(-1), (normal * q).sum(-1)
    across = before - after
    with torch.no_grad():
        rounding = PLANE_ROUNDING * torch.finfo(vertices.dtype).eps * u.norm(dim=-1) * v.norm(dim=-1)
        clear = across.abs() > rounding * (p.norm(dim=-1) + q.norm(dim=-1))
        enter, leave = _inside_box(p, q - p, torch.minimum(u, v).clamp(max=0), torch.maximum(u, v).clamp(min=0))
    share = torch.where(clear, before, 0.5 * (enter + leave)) / torch.where(clear, across, 1.0)
    share = torch.minimum(torch.maximum(share, enter), leave)
    return (start + share.unsqueeze(-1) * (end - start)).to(vertices.dtype)


def _inside_box(start: Tensor, along: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """[N] and [N] shares, 0 to 1, of lines at which they enter and leave boxes; all [N, 3], of a size near 1."""
    moving = along != 0
    bounds = [
        torch.where(moving, (bound - start) / torch.where(moving, along, 1.0), torch.inf * sign)
        for bound, sign in ((low - BOX_SLACK, -1), (high + BOX_SLACK, 1))
    ]
    enter, leave = torch.minimum(*bounds).amax(-1), torch.maximum(*bounds).amin(-1)
    return enter.clamp(0, 1), leave.clamp(0, 1)


def curve_sides(
    ends: Tensor,
    view: Tensor,
    crossing: Tensor,
    rays: Tensor | None,
    vertices: Tensor,
    faces: Tensor,
    vertex_stride: int,
    face_edges: Tensor,
    edges: Tensor,
    candidates: Tensor,
    edge_stride: int,
    *,
    cull: bool,
    alongside: float,
    touching: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The faces in front beside curves, as `edge_sides` has them beside edges.

    Args:
        ends: [C, 2, 3] camera frame: K curves as one view after the other sees them.
        view: [C].
        crossing: [K, 2] the faces that pass through each other.
        rays: [C, 3] direction in which each is seen; None: its middle, as seen from the origin.
        vertices, faces, vertex_stride: as for `edge_sides`.
        face_edges, edges: [F, 3] and [E, 2] of the mesh.
        candidates: bool, the edges that are lines of the boundary themselves, those of one view `edge_stride` after
            those of the one before.
        cull: curves on faces seen from behind are not seen.
        alongside: of an edge's length, and
        touching: of depth: a curve that stays nearer to one of the `candidates` is that edge once more, and as visible.
            So it is where a box stands on the floor and rounding puts its lower edges a little below.

    Returns:
        [C] the faces on the left, [C] on the right, and [C] bool, whether the curve is seen and is no edge.
    """
    kernel = load_kernel(make_curve_kernels, "curve_sides", vertices)
    left, right = torch.empty(2, len(view), dtype=torch.int64, device=view.device)
    seen = torch.empty(len(view), dtype=torch.uint8, device=view.device)
    inputs = [
        vectors(ends),
        array(view),
        array(crossing.contiguous()),
        vectors(vertices if rays is None else rays),
        int(rays is None),
        vectors(vertices),
        array(faces),
        vertex_stride,
        array(face_edges),
        array(edges),
        array(candidates.view(torch.uint8)),
        edge_stride,
        int(cull),
        alongside,
        touching,
    ]
    launch_ranges(kernel, len(view), inputs, [array(left), array(right), array(seen)], vertices, MIN_POINTS)
    return left, right, seen.view(torch.bool)
