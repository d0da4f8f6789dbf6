"""The kernels of the boundary against brute force: points on segments, walks through pixels, faces one by one."""

import math

import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, OrthographicCamera, PinholeCamera, look_at
from diffrender.kernels import (
    edge_sides,
    hidden_area,
    project_linear,
    seen_from_outside,
    split_at_crossings,
    split_at_pixels,
)
from diffrender.mesh import Mesh, join
from diffrender.primitives import sphere
from diffrender.scene import pack

SIZE = (9, 12)


def random_segments(count: int, generator: torch.Generator) -> Tensor:
    """[count, 2, 2] short and long, inside and outside of the image; some along the lines between pixels."""
    start = torch.rand(count, 1, 2, generator=generator, dtype=torch.float64) * 16 - 2
    along = torch.randn(count, 1, 2, generator=generator, dtype=torch.float64) * torch.tensor([0.3, 3.0, 30.0]).repeat(
        count // 3 + 1
    )[:count].reshape(-1, 1, 1)
    segments = torch.cat([start, start + along], dim=1)
    segments[::7] = segments[::7].round()
    segments[::11, 1, 0] = segments[::11, 0, 0]
    return segments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pieces_fill_the_part_of_a_segment_inside_the_image_pixel_by_pixel(dtype: torch.dtype) -> None:
    segments = random_segments(200, torch.Generator().manual_seed(0)).to(dtype)
    owner, low, high, found = split_at_pixels(segments, 3 * torch.arange(200), SIZE)
    assert (high > low).all()
    exact = segments.double()
    at = torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1] + 1e-5  # hardly ever on a line
    for i, (start, end) in enumerate(exact):
        mine = owner == i
        points = start + at[:, None] * (end - start)
        inside = ((points > 0) & (points < torch.tensor([SIZE[1], SIZE[0]]))).all(-1)
        within = (at[:, None] > low[mine]) & (at[:, None] < high[mine])
        assert (within.sum(-1) <= 1).all()  # no piece twice
        # On a line between pixels a segment belongs to either side; at the border perhaps to nobody.
        on_line = ((start == end) & (start == start.round())).any()
        assert torch.equal(within.any(-1), inside) or on_line
        if not mine.any():
            continue
        middle = start + 0.5 * (low[mine] + high[mine])[:, None] * (end - start)
        pixel = middle.floor()[within.to(torch.uint8).argmax(-1)[within.any(-1)]]
        assert torch.equal(points[within.any(-1)].floor(), pixel) or on_line
        column, row = middle.floor().minimum(torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1])).clamp(min=0).long().unbind(-1)
        assert torch.equal(found[mine], (3 * i + row) * SIZE[1] + column)


def test_pieces_are_cut_where_others_of_their_pixel_cross_them() -> None:
    generator = torch.Generator().manual_seed(1)
    segments = torch.rand(48, 2, 2, generator=generator, dtype=torch.float64)  # twelve in each of four pixels
    pixel = torch.arange(48) % 4
    low, high = torch.zeros(48, dtype=torch.float64), torch.ones(48, dtype=torch.float64)
    owner, begin, end, pixels = split_at_crossings(segments, torch.arange(48), low, high, pixel)
    assert torch.equal(pixels, pixel[owner])
    for i in range(48):
        cuts = [0.0, 1.0]
        for j in range(48):
            if j == i or pixel[j] != pixel[i]:
                continue
            p, q = segments[i], segments[j]
            system = torch.stack([p[1] - p[0], q[0] - q[1]], dim=1)
            t, u = torch.linalg.solve(system, q[0] - p[0]).tolist()
            if 0 < t < 1 and 0 < u < 1:
                cuts.append(t)
        mine = owner == i
        assert torch.equal(begin[mine][1:], end[mine][:-1])
        # Cuts within a ten-thousandth of each other, or of an end, are one.
        found = torch.cat([begin[mine], end[mine][-1:]])
        for cut in cuts:
            assert (found - cut).abs().min() < 2e-4
        for cut in found.tolist():
            assert min(abs(cut - other) for other in cuts) < 2e-4


def test_pieces_of_other_pixels_do_not_cut() -> None:
    cross = torch.tensor([[[0.0, 0.5], [1.0, 0.5]], [[0.5, 0.0], [0.5, 1.0]]], dtype=torch.float64)
    whole = torch.zeros(2).double(), torch.ones(2).double()
    assert len(split_at_crossings(cross, torch.arange(2), *whole, torch.tensor([0, 0]))[0]) == 4
    assert len(split_at_crossings(cross, torch.arange(2), *whole, torch.tensor([0, 1]))[0]) == 2


def test_hidden_area_is_that_of_the_points_behind_the_piece() -> None:
    """A point of the pixel is hidden if the straight walk from the centre to it crosses the piece."""
    generator = torch.Generator().manual_seed(2)
    count, grid = 40, 300
    ends = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64)
    low = 0.5 * torch.rand(count, generator=generator, dtype=torch.float64)
    high = low + 0.5 * torch.rand(count, generator=generator, dtype=torch.float64)
    center = torch.full((count, 2), 0.5, dtype=torch.float64)
    # In space: the edge at z = 1 of a camera whose pixel is the plane z = 1 itself.
    points = torch.cat([ends - center.unsqueeze(1), torch.ones(count, 2, 1, dtype=torch.float64)], dim=-1)
    ahead = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(count, 3)
    area = hidden_area(points, ahead, ends, low, high, center, torch.ones(count, dtype=torch.float64))
    ticks = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid - 0.5
    target = torch.cartesian_prod(ticks, ticks)
    for i in range(count):
        a, b = (ends[i, 0] + s * (ends[i, 1] - ends[i, 0]) - 0.5 for s in (low[i], high[i]))
        along = b - a
        turn = target[:, 0] * along[1] - target[:, 1] * along[0]
        walk = (a[0] * along[1] - a[1] * along[0]) / turn  # where on the walk it meets the line, and where on the line
        line = (a[0] * target[:, 1] - a[1] * target[:, 0]) / turn
        hidden = ((walk > 0) & (walk < 1) & (line > 0) & (line < 1)).double().mean()
        side = math.copysign(1.0, float(a[1] * along[0] - a[0] * along[1]))  # left of +x is +y
        assert float(area[i]) == pytest.approx(side * float(hidden), abs=3 / grid)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("faceted", [False, True])
def test_sides_of_edges_are_those_found_face_by_face(faceted: bool, cull: bool) -> None:
    """A closed body, a fan of five faces at one edge, and a soup."""
    generator = torch.Generator().manual_seed(3)
    turns = torch.tensor([0.1, 1.3, 2.9, 4.0, 5.2], dtype=torch.float64)
    fan = torch.stack([turns.cos(), turns.sin(), 0.3 * turns], dim=-1)
    fan = Mesh(
        torch.cat([torch.tensor([[0.0, 0, -1], [0, 0, 1]]).double(), fan]),
        torch.tensor([[0, 1, k] for k in range(2, 7)]),
    )
    soup = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    mesh = join(
        [Mesh(m.vertices, m.faces) for m in (sphere(1, dtype=torch.float64), fan)]
        + [Mesh(soup, torch.stack([torch.randperm(30, generator=generator)[:3] for _ in range(20)]))]
    )
    offset = torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)
    vertices, topology = mesh.vertices + offset, mesh.topology
    outside = seen_from_outside(vertices, mesh.faces, len(vertices), 1)
    chosen, left, right = edge_sides(
        vertices, mesh.faces, topology, len(vertices), 1, None, outside, faceted=faceted, cull=cull
    )
    found = {int(e): (int(a), int(b)) for e, a, b in zip(chosen, left, right, strict=True)}
    for edge, (low, high) in enumerate(topology.edges.tolist()):
        start, end = vertices[low], vertices[high]
        u = torch.linalg.cross(start + end, end - start)  # to the left
        sides: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for face in (topology.face_edges == edge).any(-1).nonzero().flatten().tolist():
            corners = vertices[mesh.faces[face]]
            normal = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
            towards = float(normal @ corners[0])
            third = corners.sum(0) - start - end
            if cull and towards >= 0:
                continue
            on_left = float(u @ (third - 0.5 * (start + end))) > 0
            step = 1e-6 if on_left else -1e-6
            beside = 0.5 * (start + end) + step * u  # how far along this ray is the face?
            sides[on_left].append((towards / float(normal @ beside), -face))
        both = bool(sides[True]) and bool(sides[False])
        expected = bool(sides[True]) != bool(sides[False]) or (both and (faceted or bool(topology.seam[edge])))
        assert (edge in found) == expected
        if expected:
            nearest = (-min(sides[s], default=(0.0, 1))[1] if sides[s] else -1 for s in (True, False))
            assert found[edge] == tuple(nearest)


def test_outsides_are_seen_where_the_normal_is_turned_to_the_origin() -> None:
    mesh = sphere(2, dtype=torch.float64)
    copies = torch.stack([mesh.vertices + torch.tensor([0.3, -0.2, 4.0]), mesh.vertices * 0.5])  # seen from its middle
    outside = seen_from_outside(copies.reshape(-1, 3), mesh.faces, mesh.num_vertices, 2).reshape(2, -1)
    a, b, c = copies[0][mesh.faces].unbind(1)
    assert torch.equal(outside[0], (torch.linalg.cross(b - a, c - a) * a).sum(-1) < 0)
    assert outside[0].any()
    assert not outside[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [PinholeCamera, OrthographicCamera])
def test_vertices_are_projected_as_the_camera_does(kind: type[Camera], dtype: torch.dtype) -> None:
    R, t = look_at((1.0, 2.0, 3.0))
    camera = kind(40.0, 35.0, 11.0, 8.0, size=(20, 24), R=R, t=t).crop(2, 3, 15, 16).resize((45, 40)).to(dtype=dtype)
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(4), dtype=dtype)
    scene = pack(Mesh(points, torch.tensor([[0, 1, 2]])), camera)
    assert scene.stacked_rays is not None
    xy, usable = project_linear(scene.vertices, None, scene.stacked_rays, central=camera.is_central)
    expected, depth = camera.project(points)
    assert torch.equal(usable, depth > 0)
    assert usable.sum() > 100
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9  # pixels; no point is close to the plane of the camera
    torch.testing.assert_close(
        xy[usable], expected[usable], rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=tolerance
    )
