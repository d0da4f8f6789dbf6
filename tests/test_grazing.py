"""Faces seen almost edge-on: areas against closed forms and brute force, derivatives against finer sampling."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from lenses import HiddenOrthographic, HiddenPinhole, Panorama, Pushbroom, Stereographic, WavyTelecentric
from torch import Tensor

from diffrender import grazing as stage
from diffrender.boundary import Boundary, boundary, boundary_steps
from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, so3_exp
from diffrender.fragments import fragments_along
from diffrender.grazing import MAX_COSINE, Grazing, grazing, grazing_steps
from diffrender.kernels import launch
from diffrender.kernels.clipping import PixelParts, clip_to_pixels, clip_to_pixels_reference, steep_faces
from diffrender.kernels.narrow_faces import choose_lookups
from diffrender.mesh import Mesh, join
from diffrender.pixel_rays import pixel_rays
from diffrender.primitives import grid, sphere
from diffrender.render import render
from diffrender.scene import Scene, pack
from diffrender.shading import depth_shader, unlit
from diffrender.subdivide import subdivide
from diffrender.testing import smooth_weights
from diffrender.topology import Topology
from diffrender.visibility import answered, face_image, first_faces

KINDS = ("pinhole", "orthographic", "fisheye", "opencv")


def camera_of(kind: str, size: int, dtype: torch.dtype = torch.float64) -> Camera:
    cx, cy = (torch.tensor(size / 2 + offset, dtype=dtype) for offset in (0.3, -0.2))
    if kind == "pinhole":
        return PinholeCamera(1.1 * size, 1.1 * size, cx, cy, size=(size, size))
    if kind == "orthographic":
        return OrthographicCamera(0.35 * size, 0.35 * size, cx, cy, size=(size, size))
    if kind == "fisheye":
        return FisheyeCamera(0.7 * size, 0.7 * size, cx, cy, k=(0.05, -0.01, 0.002, 0.0), size=(size, size))
    return OpenCVCamera(1.1 * size, 1.1 * size, cx, cy, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=(size, size))


def ball(subdivisions: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mesh:
    """A painted sphere 3.2 in front of the cameras, turned at random."""
    body = sphere(subdivisions, dtype=torch.float64)
    turn = so3_exp(torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    vertices = body.vertices @ turn.T + torch.tensor([0.1, 0.05, 3.2], dtype=torch.float64)
    return Mesh(vertices.to(dtype), body.faces, vertex_colors=(0.5 + 0.5 * torch.sin(3 * vertices)).to(dtype))


def tensors(found: Grazing | Boundary) -> dict[str, Tensor]:
    """All that was found, by name."""
    values = vars(found).copy()
    rays = values.pop("rays") or ()
    return {**values, **{f"rays {i}": part for i, part in enumerate(rays)}}


def random_triangles(kind: str, count: int = 60) -> Tensor:
    """[count, 3, 2] in and around an image of 12 x 9 pixels."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    corners = (random(count, 3, 2) * 1.6 - 0.3) * torch.tensor([12.0, 9.0])
    if kind == "small":
        corners = corners[:, :1] + 1.5 * (random(count, 3, 2) - 0.5)
    if kind == "slivers":
        along = corners[:, 1] - corners[:, 0]
        across = torch.stack([-along[:, 1], along[:, 0]], dim=-1) / along.norm(dim=-1, keepdim=True)
        width = 10 ** (-5 * random(count, 1))
        corners[:, 2] = corners[:, 0] + random(count, 1) * along + width * across
    if kind == "on whole numbers":
        corners = corners.round()
    if kind == "huge":
        corners = (corners - 6) * 1e3
    return corners


def clipped_polygon(triangle: Tensor, column: int, row: int) -> list[tuple[float, float]]:
    """Sutherland and Hodgman's: the corners of a triangle's part inside a pixel."""
    polygon = [(float(x), float(y)) for x, y in triangle]
    for axis, limit, sign in ((0, column, 1), (0, column + 1, -1), (1, row, 1), (1, row + 1, -1)):
        result = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            dp, dq = sign * (p[axis] - limit), sign * (q[axis] - limit)
            if dp >= 0:
                result.append(p)
            if (dp >= 0) != (dq >= 0):
                t = dp / (dp - dq)
                result.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = result
    return polygon


def area_and_moments(polygon: list[tuple[float, float]]) -> tuple[float, float, float]:
    """A fan of triangles from the first corner: area, and the integrals of x and y."""
    area = x = y = 0.0
    for (ax, ay), (bx, by) in pairwise(polygon[1:]):
        ox, oy = polygon[0]
        part = 0.5 * ((ax - ox) * (by - oy) - (ay - oy) * (bx - ox))
        area, x, y = area + part, x + part * (ox + ax + bx) / 3, y + part * (oy + ay + by) / 3
    return area, x, y


def dense(parts: PixelParts, count: int, pixels: int) -> Tensor:
    """[count, pixels, 3] area and moments."""
    values = torch.cat([parts.area.unsqueeze(-1), parts.area.unsqueeze(-1) * parts.centroid], dim=-1)
    return (
        values.new_zeros(count * pixels, 3)
        .index_add(0, parts.triangle * pixels + parts.pixel, values)
        .reshape(count, pixels, 3)
    )


# Clipping


def test_right_triangle_is_cut_as_by_hand() -> None:
    parts = clip_to_pixels(torch.tensor([[[0.0, 0], [3, 0], [0, 3]]], dtype=torch.float64), (4, 5))
    area = torch.zeros(4 * 5, dtype=torch.float64).index_add(0, parts.pixel, parts.area).reshape(4, 5)
    assert area.tolist() == [[1, 1, 0.5, 0, 0], [1, 0.5, 0, 0, 0], [0.5, 0, 0, 0, 0], [0] * 5]
    cut = parts.area == 0.5
    corner = torch.stack([parts.pixel % 5, parts.pixel // 5], dim=-1)
    third = torch.full((3, 2), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close((parts.centroid - corner)[cut], third, rtol=0, atol=1e-15)
    half = torch.full((3, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close((parts.centroid - corner)[parts.area == 1], half, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", ["large", "small", "slivers", "on whole numbers", "huge"])
def test_area_and_centroid_agree_with_clipped_polygons(kind: str) -> None:
    """To the rounding of the corners: 1e-16 of coordinates up to 20, or 1e4 for huge ones."""
    triangles, (height, width) = random_triangles(kind), (9, 12)
    found = dense(clip_to_pixels(triangles, (height, width)), len(triangles), height * width)
    expected = torch.zeros_like(found)
    for i, triangle in enumerate(triangles):
        for pixel in range(height * width):
            polygon = clipped_polygon(triangle, pixel % width, pixel // width)
            if len(polygon) > 2:
                moments = torch.tensor(area_and_moments(polygon), dtype=torch.float64)
                expected[i, pixel] = moments * moments[0].sign()
    assert (expected[..., 0] > 0).sum() > 60
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 if kind == "huge" else 1e-12)


@pytest.mark.parametrize("kind", ["large", "small", "slivers", "on whole numbers", "huge"])
def test_clipping_kernel_agrees_with_its_reference(kind: str) -> None:
    triangles, size = random_triangles(kind), (9, 12)
    found, expected = (
        dense(clip(triangles, size), len(triangles), 9 * 12) for clip in (clip_to_pixels, clip_to_pixels_reference)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 if kind == "huge" else 1e-12)


def test_area_is_the_share_of_points_inside() -> None:
    """400 x 400 points per pixel; the border of a triangle crosses at most 3 x 2 x 400 of their cells."""
    triangle, n = torch.tensor([[0.3, 0.2], [2.9, 0.7], [1.1, 1.8]], dtype=torch.float64), 400
    axis = (torch.arange(3 * n, dtype=torch.float64) + 0.5) / n
    x, y = torch.meshgrid(axis, axis[: 2 * n], indexing="xy")
    inside = torch.ones_like(x, dtype=torch.bool)
    for i in range(3):
        (ax, ay), (bx, by) = triangle[i], triangle[(i + 1) % 3]
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    counted = inside.reshape(2, n, 3, n).double().mean((1, 3)).reshape(-1)
    parts = clip_to_pixels(triangle.unsqueeze(0), (2, 3))
    torch.testing.assert_close(dense(parts, 1, 6)[0, :, 0], counted, rtol=0, atol=6 / n)
    assert counted.min() > 0


@pytest.mark.parametrize("kind", ["large", "small", "slivers", "on whole numbers"])
def test_parts_of_a_triangle_inside_the_image_are_the_triangle(kind: str) -> None:
    triangles = random_triangles(kind) + 10
    total = dense(clip_to_pixels(triangles, (40, 40)), len(triangles), 1600).sum(1)
    a, b, c = triangles.unbind(1)
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
    expected = torch.cat([area.unsqueeze(-1), area.unsqueeze(-1) * triangles.mean(1)], dim=-1)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-11)


def test_orientation_does_not_matter() -> None:
    triangles = random_triangles("large")
    there, back = (clip_to_pixels(t, (9, 12)) for t in (triangles, triangles.flip(1)))
    torch.testing.assert_close(dense(there, 60, 108), dense(back, 60, 108), rtol=0, atol=1e-13)


def test_triangles_without_area_or_image_have_no_parts() -> None:
    point, line = [[2.5, 2.5]] * 3, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    outside = [[-3.0, 1.0], [-1.0, 1.0], [-2.0, 5.0]]
    parts = clip_to_pixels(torch.tensor([point, line, outside], dtype=torch.float64), (5, 5))
    assert float(parts.area.sum()) < 1e-15
    assert torch.isfinite(parts.centroid).all()
    assert len(clip_to_pixels(torch.zeros(0, 3, 2, dtype=torch.float64), (5, 5)).area) == 0


# Which faces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine_is_that_between_normal_and_ray(dtype: torch.dtype) -> None:
    """A face turned by an angle about its middle; a face without area has none."""
    angles = torch.tensor([0.0, 0.3, 1.2, 1.5], dtype=dtype)
    corners = torch.tensor([[1.0, 0, 0], [-0.5, 0.6, 0], [-0.5, -0.6, 0]], dtype=dtype)
    turned = torch.stack([corners @ so3_exp(torch.stack([0 * a, a, 0 * a])).T for a in angles])
    ahead = torch.tensor([0.0, 0.0, 7.0], dtype=dtype)
    vertices = torch.cat([turned + ahead, ahead.expand(1, 3, 3)]).reshape(-1, 3)
    faces = torch.arange(15).reshape(-1, 3)
    xy, usable = vertices[:, :2] + 2, torch.ones(15, dtype=torch.bool)
    topology = Topology.build(faces, vertices)
    tolerance = 8 * torch.finfo(dtype).eps * 7  # of coordinates around 7

    def steep(limit: float = 2.0, width: float = 9.0, eyes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat = {"max_radius": 1.0, "border": 0.0}
        return steep_faces(
            vertices, xy, usable, faces, (4, 4), topology, max_cosine=limit, max_width=width, eyes=eyes, **flat
        )

    found, cosines = steep()
    assert found.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(cosines, torch.cos(angles), rtol=0, atol=tolerance)
    assert steep(limit=0.5)[0].tolist() == [2, 3]
    from_front, from_behind = (
        steep_faces(
            vertices,
            xy,
            usable,
            f,
            (4, 4),
            topology,
            max_cosine=2.0,
            max_width=9.0,
            max_radius=1.0,
            border=0.0,
            cull=True,
        )[0].tolist()
        for f in (faces.flip(1), faces)
    )
    assert (from_front, from_behind) == ([0, 1, 2, 3], [])
    _, from_side = steep(eyes=torch.tensor([7.0, 0.0, 7.0], dtype=dtype).expand(5, 3))
    torch.testing.assert_close(from_side, torch.sin(angles), rtol=0, atol=tolerance)
    # The image of a face is the face turned: 1.5 cos(angle) by 1.2, of which the narrow way is across the longer side.
    assert steep(width=1.0)[0].tolist() == [2, 3]
    usable[10] = False
    xy[9:12] += 100  # beside the image
    assert steep()[0].tolist() == [0, 1, 2]
    usable[7] = False
    assert steep()[0].tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.3, 1.9, 2.1])
def test_the_surface_of_a_prism_bends_around_its_radius(radius: float, dtype: torch.dtype) -> None:
    """The unit normals of neighbours are as far apart as the corners of a regular polygon, over its radius.

    Its faces may be turned either way, and the vertices of each be its own.
    """
    sides, size = 7, (8, 64)
    angles = torch.arange(2 * sides, dtype=dtype) * math.pi / sides
    ring = torch.stack([4 + radius * torch.sin(angles), 9 + radius * torch.cos(angles)], dim=-1)  # y, z
    low, high = (torch.cat([torch.full_like(ring[:, :1], x), ring], dim=-1) for x in (10.0, 50.0))
    following = torch.arange(2 * sides).roll(-1)
    corners = torch.stack([low, high, low[following], low[following], high, high[following]], dim=1).reshape(-1, 3)
    faces = torch.arange(len(corners)).reshape(-1, 3)
    turned = torch.rand(len(faces), 1, generator=torch.Generator().manual_seed(0)) < 0.5
    faces = torch.where(turned, faces.flip(1), faces)
    xy, usable = corners[:, :2].contiguous(), torch.ones(len(corners), dtype=torch.bool)
    found, grain = steep_faces(
        corners, xy, usable, faces, size, Topology.build(faces, corners), max_cosine=0.4, max_width=2.0,
        max_radius=2.0, border=0.25, eyes=corners[faces].mean(1) - torch.tensor([0.0, 0.0, 1.0], dtype=dtype),
    )  # fmt: skip
    cosine = torch.cos(angles + math.pi / (2 * sides)).abs().repeat_interleave(2)
    assert found.tolist() == (torch.arange(len(faces)) if radius < 2 else (cosine < 0.4).nonzero().flatten()).tolist()
    tolerance = 1e3 * torch.finfo(dtype).eps  # of coordinates up to 50, differences of which are as small as 0.1
    torch.testing.assert_close(grain, (cosine * min(radius / 2, 1.0))[found], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_steep_faces_of_a_sphere_are_marked(kind: str, dtype: torch.dtype) -> None:
    """By the plain formula; the ray of the orthographic camera is the axis, of the others the line from the origin."""
    scene = pack(ball(4, dtype=dtype), camera_of(kind, 56, dtype))  # all of its faces are narrow
    flags = grazing(scene).flags
    corners = scene.vertices[scene.faces].double()
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    ray = corners.mean(1) if scene.camera.is_central else torch.tensor([0.0, 0.0, 1.0]).double().expand_as(normal)
    cosine = torch.cosine_similarity(normal, ray, dim=-1).abs()
    clear = (cosine - MAX_COSINE).abs() > 1e-5  # float32 may round the others either way
    assert flags.shape == (1, scene.mesh.num_faces)
    assert torch.equal(flags[0, clear], (cosine < MAX_COSINE)[clear])
    share = float(flags.double().mean())  # parallel rays: as much of a sphere's surface as MAX_COSINE; else a bit less
    assert 0.6 * MAX_COSINE < share < 1.05 * MAX_COSINE


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_seen_and_lie_on_their_faces(kind: str) -> None:
    """The ray through the centroid meets the face first, and it is one that faces the camera."""
    scene = pack(ball(), camera_of(kind, 96))
    parts = grazing(scene)
    assert len(parts.face) > 100
    origins, directions = scene.rays_at(parts.view, parts.xy)
    first, _ = first_faces(scene, parts.view, parts.xy, origins, directions)
    # Through a bent lens the centroid is that of a straight triangle; a thin face may be missed in other arithmetic.
    assert (first == parts.face).double().mean() > 0.98
    assert parts.held(parts.view, parts.face).all()
    fragments = fragments_along(scene, parts.view, parts.xy, parts.face, origins, directions)
    assert fragments.front.all()
    pixel = parts.xy[:, 1].long() * 96 + parts.xy[:, 0].long()
    assert (pixel == parts.pixel).double().mean() > 0.98


def test_what_stands_in_front_hides_parts_but_not_marks() -> None:
    """A wall before the left half of the sphere."""
    body, camera = ball(), camera_of("pinhole", 96)
    wall = grid(1, 1, dtype=torch.float64)
    wall = Mesh(wall.vertices + torch.tensor([-1.0, 0.0, 1.5]), wall.faces, vertex_colors=torch.zeros(4, 3).double())
    free, hidden = grazing(pack(body, camera)), grazing(pack(join([body, wall]), camera))
    assert int(hidden.flags.sum()) == int(free.flags.sum())
    left = free.xy[:, 0] < camera.cx - 1
    assert left.any()
    assert (hidden.xy[:, 0] >= camera.cx - 1).all()
    assert int((~left).sum()) >= len(hidden.face) > 0.8 * int((~left).sum())


def test_culled_faces_have_no_parts() -> None:
    """A sphere turned inside out: its near half is seen from behind; when that is culled, its far half through it."""
    body = ball()
    inner = Mesh(body.vertices, body.faces.flip(1), vertex_colors=body.vertex_colors)
    scene = pack(inner, camera_of("pinhole", 96))
    both, outer = grazing(scene), grazing(scene, cull_backfaces=True)

    def fronts(parts: Grazing) -> Tensor:
        origins, directions = scene.rays_at(parts.view, parts.xy)
        return fragments_along(scene, parts.view, parts.xy, parts.face, origins, directions).front

    assert not fronts(both).any()
    assert fronts(outer).all()
    assert len(outer.face) > 100


def test_wide_faces_are_left_to_the_centres() -> None:
    """A floor at eye level: |cos| < 0.05 and a dozen pixels high. One a hundred times smaller is marked."""
    floor = torch.tensor([[-2.0, 0.1, 4.0], [2.0, 0.1, 4.0], [2.0, 0.1, 1.0], [-2.0, 0.1, 1.0]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    camera = PinholeCamera(200, 200, 50, 50, size=(100, 100)).to(dtype=torch.float64)
    assert not grazing(pack(Mesh(floor, faces), camera)).flags.any()
    small = torch.tensor([0.0, 0.1, 4.0], dtype=torch.float64) + 0.01 * (floor - floor[0])
    assert grazing(pack(Mesh(small, faces), camera)).flags.all()


def side_view(turn: float, distance: float) -> Mesh:
    """A small triangle at a distance, turned `turn` radians away from being seen edge-on."""
    corners = torch.tensor([[0.0, -0.03, 0.0], [0.0, 0.03, 0.0], [0.0, 0.0, 0.06]], dtype=torch.float64)
    rotation = so3_exp(torch.tensor([0.0, turn, 0.0], dtype=torch.float64))
    return Mesh(corners @ rotation.T + torch.tensor([0.0, 0.0, distance]), torch.tensor([[0, 1, 2]]))


def test_faces_behind_or_across_the_camera_are_left_alone() -> None:
    camera = PinholeCamera(100, 100, 16, 16, size=(32, 32)).to(dtype=torch.float64)
    assert grazing(pack(side_view(0.05, 1.0), camera)).flags.all()
    for distance in (-1.0, -0.03):
        parts = grazing(pack(side_view(0.05, distance), camera))
        assert not parts.flags.any()
        assert len(parts.face) == 0


def test_faces_outside_of_the_lens_are_left_alone() -> None:
    """Barrel distortion folds back: points beyond 1.2 of the plane's radius land inside the image again."""
    camera = OpenCVCamera(40, 40, 32, 32, dist=(-0.25, 0.0, 0.0, 0.0), size=(64, 64)).to(dtype=torch.float64)
    body = sphere(2, dtype=torch.float64)

    def at(x: float) -> Grazing:
        return grazing(pack(Mesh(0.2 * body.vertices + torch.tensor([x, 0.0, 1.0]), body.faces), camera))

    assert at(0.2).flags.any()
    assert len(at(0.2).face) > 0
    folded, _ = camera.project(torch.tensor([[1.7, 0.0, 1.0]], dtype=torch.float64))
    assert 0 < float(folded[0, 0]) < 64
    assert len(at(1.7).face) == 0


@pytest.mark.parametrize("direction", [(0.0, 0, 1), (0, 0, -1), (0, 1, 0), (0.05, -1, 0.02)])
def test_seam_and_poles_of_a_panorama(direction: tuple[float, float, float]) -> None:
    """A sphere across the seam or around a pole, 3 radii away: parts stay on the ring where it is seen steeply."""
    camera = Panorama(1.0, size=(128, 256)).to(dtype=torch.float64)
    body = sphere(3, dtype=torch.float64)
    axis = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
    mesh = Mesh(body.vertices + 3 * axis, body.faces)
    parts = grazing(pack(mesh, camera))
    _, rays = camera.local_rays(parts.xy)
    angle = torch.acos((rays * axis).sum(-1) / rays.norm(dim=-1))
    # Where the incidence is a, a ray is asin(sin a / 3) off the axis; the middles of parts are within their faces.
    steepest = math.asin(math.sqrt(1 - (MAX_COSINE + 0.1) ** 2) / 3)
    assert len(angle) > 100
    assert float(angle.max()) < math.asin(1 / 3) + 0.01
    assert float(angle.min()) > steepest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_faces_are_left_alone(dtype: torch.dtype) -> None:
    corners = torch.tensor(
        [
            [[0.0, 0, 2], [0, 0, 2], [0, 0, 2]],  # a point
            [[0.0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]],  # a line
            [[0.1, 0, 1], [0.2, 0, 2], [0.3, 0, 3]],  # a line of sight
            [[0.0, 0, 0], [0.1, 0, 2], [0, 0.1, 2]],  # a corner on the camera
            [[0.0, 0, 1], [0.1, 0, 2], [0, 0, 2]],  # in a plane with the camera
            [[1.0, 0, 0], [0, 1, 0], [1, 1, 0]],  # in the plane of the camera
        ],
        dtype=dtype,
    )
    mesh = Mesh(corners.reshape(-1, 3), torch.arange(18).reshape(-1, 3))
    for kind in KINDS:
        parts = grazing(pack(mesh, camera_of(kind, 32, dtype)))
        assert all(torch.isfinite(value.double()).all() for value in tensors(parts).values())
        assert not parts.flags[:, [0, 1, 2, 3, 5]].any() or kind == "orthographic"
        assert float(parts.area.sum()) < 1e-3


def test_nothing_to_see() -> None:
    away = ball().replace(vertices=ball().vertices + torch.tensor([0.0, 50.0, 0.0]))
    for kind in KINDS:
        parts = grazing(pack(away, camera_of(kind, 16)))
        assert [len(value) for value in (parts.view, parts.pixel, parts.face, parts.xy, parts.area)] == [0] * 5
        assert not parts.flags.any()
        assert parts.held(torch.zeros(2).long(), torch.tensor([0, 5])).tolist() == [False, False]


# Sharing look-ups


def test_shared_lookups_stand_for_all_surface() -> None:
    """Each chosen part of less than SURFACE stands for SURFACE of surface: the sum is right to one of them."""
    generator = torch.Generator().manual_seed(0)
    area, cosine = (torch.rand(5000, generator=generator, dtype=torch.float64) for _ in range(2))
    area, cosine = 0.03 * area, 0.01 + 0.09 * cosine
    view = torch.arange(5000) // 2500
    chosen, spoken = shared(area, cosine, torch.zeros(5000, dtype=torch.int64))
    surface = area / cosine
    assert len(chosen) < 0.5 * len(area)
    assert float((spoken / cosine[chosen]).sum()) == pytest.approx(float(surface.sum()), abs=stage.SURFACE)
    large = surface >= stage.SURFACE
    assert large.any()
    assert large[chosen].sum() == large.sum()
    assert torch.equal(spoken[large[chosen]], area[chosen][large[chosen]])
    # Every group starts anew: what is chosen in one view does not depend on the others.
    (first, _), (second, _) = (shared(area[p], cosine[p], view[p]) for p in (view == 0, view == 1))
    assert torch.equal(shared(area, cosine, view)[0], torch.cat([first, 2500 + second]))


def shared(area: Tensor, cosine: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """Which of parts of pixels along a row, each of a triangle of its own, are chosen, and for what areas."""
    count = len(area)
    corner = torch.stack([0.5 + torch.arange(count).double() % 2500, torch.full((count,), 0.5).double()], dim=-1)
    triangles = corner.unsqueeze(1) + torch.tensor([[-0.1, -0.1], [0.1, -0.1], [0.0, 0.2]]).double()
    index = torch.arange(count)
    found = choose_lookups(
        PixelParts(index, index, area, corner), triangles, view, cosine, index,
        torch.nn.functional.pad(triangles, (0, 1), value=2.0), torch.full((count, 3), 2.0).double(),
        num_views=2, min_area=stage.MIN_AREA, surface=stage.SURFACE, central=True,
    )  # fmt: skip
    torch.testing.assert_close(found.points[:, :2], found.xy, rtol=1e-12, atol=0)
    assert torch.equal(found.xy, corner[found.part])
    assert found.marked.all()
    return found.part, found.area


def test_areas_are_those_of_the_visible_faces() -> None:
    """A sphere is convex: all of a face is seen, or nothing. Shared look-ups leave an error of a few percent."""
    for seed in range(3):
        scene = pack(ball(seed=seed), camera_of("pinhole", 192))
        parts = grazing(scene)
        corners = scene.vertices[scene.faces]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        seen = parts.flags[0] & ((normal * corners[:, 0]).sum(-1) < 0)
        a, b, c = scene.projected[0][scene.faces[seen]].unbind(1)
        area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
        assert float(parts.area.sum()) == pytest.approx(float(area.sum()), rel=0.03)


# Derivatives


def derivative(scene: Scene, parts: Grazing, pose: Tensor) -> Tensor:
    """Of a sum over the image of smooth weights times the colour of the parts."""
    fragments = fragments_along(scene, parts.view, parts.xy, parts.face, *scene.rays_at(parts.view, parts.xy))
    weights = parts.area * torch.cos(parts.xy / 9).sum(-1)
    return torch.autograd.grad((unlit(fragments, scene.mesh).sum(-1) * weights).sum(), pose, retain_graph=True)[0]


def sampled(view: Tensor, face: Tensor, xy: Tensor, area: Tensor, flags: Tensor) -> Grazing:
    return Grazing(view, torch.zeros_like(view), face, xy, area, flags)


def centres(scene: Scene, parts: Grazing) -> Grazing:
    """The pixels with a centre on the faces of `parts`, as parts of area 1."""
    face = face_image(scene, pixel_rays(scene)).long().reshape(-1)
    pixel = (face >= 0).nonzero().squeeze(-1)
    pixel = pixel[parts.held(torch.zeros_like(pixel), face[pixel])]
    width = scene.camera.width
    xy = torch.stack([pixel % width, pixel // width], dim=-1).double() + 0.5
    return sampled(torch.zeros_like(pixel), face[pixel], xy, torch.ones_like(xy[:, 0]), parts.flags)


def integral(scene: Scene, parts: Grazing, n: int = 12) -> Grazing:
    """The visible faces of `parts`, each cut in n * n in space; on a convex body all of a face is seen or nothing."""
    faces = scene.vertices.detach()[scene.faces]
    zero = torch.zeros(len(faces), dtype=torch.int64)
    xy, _ = scene.project_at(zero, faces.mean(1))
    front = fragments_along(scene, zero, xy, torch.arange(len(faces)), *scene.rays_at(zero, xy)).front
    face = (parts.flags[0] & front).nonzero().squeeze(-1)
    up = torch.tensor([(i, j) for i in range(n) for j in range(n - i)])
    down = up[up.sum(-1) < n - 1] + 1
    corners = torch.cat(
        [
            up.unsqueeze(1) + torch.tensor([[0, 0], [1, 0], [0, 1]]),
            down.unsqueeze(1) - torch.tensor([[0, 0], [1, 0], [0, 1]]),
        ]
    )
    corners = torch.cat([corners, corners.double().mean(1, keepdim=True)], dim=1) / n  # [n * n, 3 and the middle, 2]
    a, b, c = faces[face][:, None, None].unbind(-2)
    points = a + corners[..., :1] * (b - a) + corners[..., 1:] * (c - a)  # [faces, n * n, 4, 3]
    owner = face.repeat_interleave(n * n)
    flat = points.reshape(-1, 3)
    xy = scene.project_at(torch.zeros(len(flat), dtype=torch.int64), flat)[0].detach().reshape(-1, 4, 2)
    b, c = (xy[:, 1:3] - xy[:, :1]).unbind(1)
    area = 0.5 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]).abs()
    return sampled(torch.zeros_like(owner), owner, xy[:, 3], area, parts.flags)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_the_derivative_of_the_integral(kind: str) -> None:
    """Colours inside steep faces, moved, turned and zoomed: 1 look-up per part, against 144 per face.

    Shared look-ups leave an error of some percent (of a tenth of the surface); the centres of pixels are several
    times worse. Both in the mean over eight poses.
    """
    squares = torch.zeros(2, dtype=torch.float64)
    for seed in range(8):
        body, pose = ball(seed=seed), torch.zeros(7, dtype=torch.float64, requires_grad=True)
        middle = body.vertices.mean(0)
        turned = (body.vertices - middle) @ so3_exp(pose[3:6]).T
        mesh = body.replace(vertices=turned * (1 + pose[6]) + middle + pose[:3])
        scene = pack(mesh, camera_of(kind, 64))
        parts = grazing(scene)
        reference = derivative(scene, integral(scene, parts), pose)
        found = torch.stack([derivative(scene, p, pose) for p in (parts, centres(scene, parts))])
        squares += ((found - reference).norm(dim=-1) / reference.norm()).square() / 8
    by_parts, by_centres = squares.sqrt().tolist()
    assert by_parts < 0.15
    assert by_centres > 4 * by_parts


def test_value_does_not_change_and_other_gradients_neither() -> None:
    """area * (color(f) - color(f.detach())) is zero, and so is its gradient to the colours of vertices."""
    body = ball()
    colors = body.vertex_colors.clone().requires_grad_()
    vertices = body.vertices.clone().requires_grad_()
    mesh = body.replace(vertices=vertices, vertex_colors=colors)
    scene = pack(mesh, camera_of("pinhole", 48))
    parts = grazing(scene)
    fragments = fragments_along(scene, parts.view, parts.xy, parts.face, *scene.rays_at(parts.view, parts.xy))
    still = replace(fragments, barycentrics=fragments.barycentrics.detach(), depth=fragments.depth.detach())
    value = parts.area.unsqueeze(-1) * (unlit(fragments, mesh) - unlit(still, mesh))
    assert not value.any()
    by_vertex, by_color = torch.autograd.grad(value.sum(), [vertices, colors])
    assert by_vertex.any()
    assert float(by_color.abs().max()) < 1e-15
    assert not parts.area.requires_grad


# Cameras that nobody has foreseen


@pytest.mark.parametrize("kind", ["pinhole", "orthographic"])
def test_general_path_agrees_with_that_of_linear_cameras(kind: str) -> None:
    """Faces are cut and looked up alike; who is first may round differently, rarely."""
    camera = camera_of(kind, 64)
    hidden = {"pinhole": HiddenPinhole, "orthographic": HiddenOrthographic}[kind]
    same = hidden(camera.fx, camera.fy, camera.cx, camera.cy, size=camera.size)  # type: ignore[attr-defined]
    assert same.linear_rays() is None
    expected, found = grazing(pack(ball(), camera)), grazing(pack(ball(), same))
    assert (expected.flags != found.flags).sum() <= 2
    both = set(zip(expected.face.tolist(), expected.pixel.tolist(), strict=True)) & set(
        zip(found.face.tolist(), found.pixel.tolist(), strict=True)
    )
    assert len(both) > 0.98 * max(len(expected.face), len(found.face))
    assert float(found.area.sum()) == pytest.approx(float(expected.area.sum()), rel=1e-2)


@pytest.mark.parametrize("lens", [Panorama, Stereographic, Pushbroom, WavyTelecentric])
def test_parts_through_unforeseen_lenses_are_seen(lens: type[Camera], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MAX_COSINE", 0.5)  # more faces, and so a better estimate
    parameters: dict[type[Camera], tuple[float, ...]] = {
        Panorama: (1.0,), Stereographic: (120.0,), Pushbroom: (80.0, 0.04), WavyTelecentric: (0.04, 1.0)
    }  # fmt: skip
    camera = lens(*parameters[lens], size=(64, 64)).to(dtype=torch.float64)  # type: ignore[call-arg]
    scene = pack(ball(), camera)
    parts = grazing(scene)
    origins, directions = scene.rays_at(parts.view, parts.xy)
    first, _ = first_faces(scene, parts.view, parts.xy, origins, directions)
    assert len(first) > 50
    assert (first == parts.face).double().mean() > 0.97  # as through the lenses of the package
    pixels = face_image(scene, pixel_rays(scene)).reshape(-1).long()
    seen = (pixels >= 0).nonzero().squeeze(-1)
    held = parts.held(torch.zeros_like(seen), pixels[seen])
    # The areas are what the centres of pixels estimate: some hundred of them, on a border of about as many pixels.
    assert float(parts.area.sum()) == pytest.approx(float(held.sum()), rel=0.15)


def weighted_depth(mesh: Mesh, camera: Camera, weights: Tensor, pose: Tensor, samples: int = 1) -> Tensor:
    """A weighted sum of depth over the image of the mesh after a shift, a turn about the origin and a zoom."""
    moved = (mesh.vertices @ so3_exp(pose[3:6]).T + pose[:3]) * (1 + pose[6])
    image = render(mesh.replace(vertices=moved), camera, shader=depth_shader, samples=samples)
    return (image[..., 0] * weights).sum()


def depth_gradient(mesh: Mesh, camera: Camera, weights: Tensor, pose: Tensor) -> Tensor:
    return torch.autograd.grad(weighted_depth(mesh, camera, weights, pose), pose)[0]


@pytest.mark.parametrize("column", [0, 1, 2, 95])
def test_derivatives_across_the_seam_are_those_elsewhere(column: int) -> None:
    """Turned about its axis by whole columns, a panorama shows the same, moved along; shared look-ups differ.

    A face that is seen almost edge-on there and left to the centre of one pixel is off by up to 17 % of all.
    """
    camera = Panorama(1.0, size=(48, 96)).to(dtype=torch.float64)
    body = sphere(3, dtype=torch.float64)
    body = Mesh(body.vertices @ so3_exp(torch.tensor([0.3, 0.5, 0.2]).double()).T, body.faces)
    weights, pose = smooth_weights(48, 96, 1)[..., 0], torch.zeros(7, dtype=torch.float64, requires_grad=True)
    ahead = body.replace(vertices=body.vertices + torch.tensor([0.1, 0.05, 1.2]))
    expected = depth_gradient(ahead, camera, weights, pose)
    turn = so3_exp(torch.tensor([0.0, 2 * math.pi * (48 + column) / 96, 0.0], dtype=torch.float64))
    behind = ahead.replace(vertices=ahead.vertices @ turn.T)
    found = depth_gradient(behind, camera, weights.roll(48 + column, 1), pose)
    found = torch.cat([found[:3] @ turn, found[3:6] @ turn, found[6:]])
    assert float((found - expected).norm() / expected.norm()) < 0.03


def test_depth_of_a_ball_that_fills_the_view() -> None:
    """On faces two to three pixels wide, too, the centres of pixels meet those seen almost edge-on by chance."""
    camera = PinholeCamera(15, 15, 24.3, 23.8, size=(48, 48)).to(dtype=torch.float64)
    generator, weights = torch.Generator().manual_seed(1), smooth_weights(48, 48, 1)[..., 0]
    squares = []
    for _ in range(4):
        shift = 0.05 * torch.randn(3, generator=generator, dtype=torch.float64)
        body = ball(3, seed=len(squares))
        body = body.replace(vertices=body.vertices + shift + torch.tensor([0.0, 0.05, -1.95]))
        pose = torch.zeros(7, dtype=torch.float64, requires_grad=True)
        found = depth_gradient(body, camera, weights, pose)
        expected = torch.zeros_like(found)
        for i, step in enumerate(0.001 * torch.eye(7, dtype=torch.float64)):
            ahead, behind = (float(weighted_depth(body, camera, weights, s, samples=6)) for s in (step, -step))
            expected[i] = (ahead - behind) / 0.002
        squares.append(((found - expected).norm() / expected.norm()).square())
    assert float(torch.stack(squares).mean().sqrt()) < 0.013


@pytest.mark.parametrize("offset", [0.004, 0.02, -0.004, -0.02])
def test_area_is_that_between_sides_bent_by_the_lens(offset: float) -> None:
    """A face seen almost edge-on, far off the axis: straight sides are off by up to three times its area."""
    out = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, 0.8], dtype=torch.float64), dim=0)
    sideways = torch.linalg.cross(out, torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64))
    up = torch.linalg.cross(out, sideways)
    corners = [2.4 * out - 0.1 * sideways, 2.4 * out + 0.12 * sideways, 2.2 * out]
    face = Mesh(torch.stack(corners) + offset * up, torch.tensor([[0, 1, 2]]))
    camera = FisheyeCamera(75.0, 75.0, 30.3, 41.8, size=(128, 128)).to(dtype=torch.float64)
    parts = grazing(pack(face, camera))
    assert len(parts.face) > 3
    fine = face
    for _ in range(6):
        fine = subdivide(fine)
    xy = camera.project(fine.vertices)[0][fine.faces]
    a, b = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    area = 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs().sum()
    # Sides may bend by 5 % of the height, on each side of a part of the face.
    assert float(parts.area.sum()) == pytest.approx(float(area), rel=0.1)


# Many views


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stages_that_ask_together_get_the_answers_that_each_gets_alone(kind: str, dtype: torch.dtype) -> None:
    scene = pack(
        join([ball(2, dtype), ball(2, dtype, seed=1).replace(vertices=0.5 * ball(2, dtype).vertices)]),
        camera_of(kind, 48, dtype),
    )
    rays = pixel_rays(scene)
    together = answered(scene, boundary_steps(scene, rays), grazing_steps(scene))
    for found, expected in zip(together, (boundary(scene, rays), grazing(scene)), strict=True):
        assert len(expected.xy) > 50
        values = tensors(found)
        assert values.keys() == tensors(expected).keys()
        for name, value in tensors(expected).items():
            assert torch.equal(values[name], value), name


@pytest.mark.parametrize("kind", ["pinhole", "fisheye"])
def test_batch_is_its_views(kind: str) -> None:
    body, camera = ball(), camera_of(kind, 48)
    turns = so3_exp(torch.tensor([[0.0, 0.0, 0.0], [0.2, -0.1, 0.3]], dtype=torch.float64))
    batch = camera.replace(R=turns)
    together = grazing(pack(body, batch))
    same_list = grazing(pack([body, body], batch))
    assert together.flags.shape == (2, body.num_faces)
    assert same_list.flags.shape == (1, 2 * body.num_faces)
    assert torch.equal(together.flags.reshape(-1), same_list.flags.reshape(-1))
    for view in range(2):
        alone = grazing(pack(body, batch[view]))
        assert torch.equal(together.flags[view], alone.flags[0])
        for parts, start in ((together, 0), (same_list, view * body.num_faces)):
            mine = parts.view == view
            total, expected = (float(a.sum()) for a in (parts.area[mine], alone.area))
            assert total == pytest.approx(expected, rel=0.05)  # look-ups are shared differently
            assert alone.held(torch.zeros_like(parts.face[mine]), parts.face[mine] - start).all()
            assert parts.held(parts.view[mine], parts.face[mine]).all()
            assert (parts.pixel[mine] // 48**2 == view).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_one_or_two_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clipping.MIN_SHARE", "narrow_faces.MIN_SHARE", "launch.MIN_WORK"):
        monkeypatch.setattr(f"diffrender.kernels.{name}", 16)
    scene = pack(ball(4, torch.float32), camera_of(kind, 96, torch.float32))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(tensors(grazing(scene)))
    finally:
        torch.set_num_threads(threads)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_works_before_anything_started_warp() -> None:
    """The kernels start Warp themselves; the first thing that a process does may be this stage."""
    launch._initialize.cache_clear()
    assert len(grazing(pack(ball(), camera_of("fisheye", 32))).face) > 0
