"""Curves where faces meet: the kernels against plain torch."""

import pytest
import torch
from torch import Tensor

from diffrender.kernels import curve_sides, meeting_points
from diffrender.kernels.curves import meeting_points_reference


def meetings(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Sides and faces that cross anywhere, lie in one plane, have a vertex in common, or have no length or area."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    vertices[20:30, 2] = 0.25  # all in one plane
    vertices[30:40] = 1e-3 * vertices[30:40] + torch.tensor([5.0, 0, 0])
    vertices[40:45] = vertices[40].clone()
    sides = torch.randint(20, (400, 2), generator=generator)
    corners = 30 + torch.randint(30, (400, 3), generator=generator)
    sides[:40], corners[:40] = 20 + sides[:40] % 10, 20 + corners[:40] % 10
    sides[40:60, 1] = sides[40:60, 0]  # as where the faces have a vertex in common
    corners[60:70, 1] = corners[60:70, 0]
    return vertices.to(dtype), sides, corners


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_meeting_points_and_their_gradient_are_the_references(dtype: torch.dtype) -> None:
    vertices, sides, corners = meetings(dtype)
    weights = torch.randn(len(sides), 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found, gradients = [], []
    for meet in (meeting_points, meeting_points_reference):
        moving = vertices.clone().requires_grad_()
        found.append(meet(moving, sides, corners))
        gradients.append(torch.autograd.grad((found[-1] * weights).sum(), moving)[0])
    assert torch.isfinite(gradients[0]).all()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(*found, rtol=0, atol=tolerance)
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance * float(gradients[1].abs().max()))


def test_sides_meet_faces_where_they_were_made_to() -> None:
    generator = torch.Generator().manual_seed(3)
    triangles, along = torch.randn(2, 100, 3, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(100, 3, generator=generator, dtype=torch.float64)
    expected = (triangles * (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)).sum(1)
    share = torch.rand(100, 1, generator=generator, dtype=torch.float64)
    ends = torch.stack([expected - share * along[:, 0], expected + (1 - share) * along[:, 0]], 1)
    vertices = torch.cat([ends.reshape(-1, 3), triangles.reshape(-1, 3)])
    found = meeting_points(vertices, torch.arange(200).reshape(-1, 2), 200 + torch.arange(300).reshape(-1, 3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("central", [True, False])
@pytest.mark.parametrize("cull", [True, False])
def test_sides_of_curves_are_those_of_their_definition(cull: bool, central: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    count, views, num_vertices = 150, 2, 40
    vertices = torch.randn(views * num_vertices, 3, generator=generator, dtype=torch.float64)
    vertices[:, 2] += 4
    faces = torch.stack([torch.randperm(num_vertices, generator=generator)[:3] for _ in range(30)])
    crossing = torch.stack([torch.randperm(30, generator=generator)[:2] for _ in range(count)])
    edges = torch.stack([torch.randperm(num_vertices, generator=generator)[:2] for _ in range(50)])
    face_edges = torch.randint(-1, 50, (30, 3), generator=generator)
    candidates = torch.rand(views * 50, generator=generator) < 0.5
    view = torch.arange(views).repeat_interleave(count)
    ends = torch.randn(views * count, 2, 3, generator=generator, dtype=torch.float64) + torch.tensor([0, 0, 4.0])
    beside = (torch.arange(views * count) % 2 == 0).nonzero()[:, 0]  # along an edge of one of the faces, or nearly
    which = torch.randint(2, (len(beside),), generator=generator)
    edge = face_edges[crossing[beside % count, which], 1].clamp(min=0)
    along = vertices[edges[edge] + (view[beside] * num_vertices)[:, None]]
    shares = torch.rand(len(beside), 2, 1, generator=generator, dtype=torch.float64)
    ends[beside] = along[:, :1] + shares * (along[:, 1:] - along[:, :1])
    ends[beside[::3]] += 1e-2
    rays = None if central else torch.randn(views * count, 3, generator=generator, dtype=torch.float64)

    left, right, seen = curve_sides(
        ends, view, crossing, rays, vertices, faces, num_vertices, face_edges, edges, candidates, 50,
        cull=cull, alongside=1e-3, touching=0.05,
    )  # fmt: skip
    expected = []
    for i in range(len(view)):
        corners = vertices[faces[crossing[i % count]] + view[i] * num_vertices]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        ray = ends[i].mean(0) if rays is None else rays[i]
        outward = torch.linalg.cross(ray, ends[i, 1] - ends[i, 0])
        rate = (normal @ outward) / (normal @ ray)
        order = [1, 0] if rate[1] > rate[0] else [0, 1]
        visible = not cull or bool((normal @ ray < 0).all())
        for k in range(2):
            for e in face_edges[crossing[i % count, k]].tolist():
                if e < 0 or not candidates[view[i] * 50 + e]:
                    continue
                begin, stop = vertices[edges[e] + view[i] * num_vertices]
                share = ((ends[i] - begin) @ (stop - begin) / (stop - begin).square().sum()).clamp(0, 1)
                apart = begin + share[:, None] * (stop - begin) - ends[i]
                gap = (apart @ normal[1 - k]).abs() / (ray @ normal[1 - k]).abs()
                near = (apart.norm(dim=-1) < 1e-3 * (stop - begin).norm()) & (gap < 0.05)
                visible = visible and not bool(near.all())
        expected.append((*crossing[i % count][order].tolist(), visible))
    assert list(zip(left.tolist(), right.tolist(), seen.tolist(), strict=True)) == expected
    assert 0 < int((~seen[beside]).sum()) < len(beside)
