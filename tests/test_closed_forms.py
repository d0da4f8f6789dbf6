"""Areas and their derivatives against closed forms and line integrals: what finite differences cannot tell.

An image that is biased can agree with its own differences. The area of what is seen cannot: by Green's theorem it is an
integral along outlines that are known, projected by the camera point by point.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffrender.cameras import Camera, FisheyeCamera, OpenCVCamera, OrthographicCamera, PinholeCamera, so3_exp
from diffrender.mesh import Mesh, join
from diffrender.primitives import cube, sphere
from diffrender.render import render

SIZE = (40, 50)
F64 = torch.float64


def camera_of(kind: str, size: tuple[int, int] = SIZE) -> Camera:
    s, cx, cy = float(min(size)), torch.tensor(size[1] / 2 + 0.3, dtype=F64), size[0] / 2 - 0.2
    if kind == "pinhole":
        return PinholeCamera(1.1 * s, 1.2 * s, cx, cy, size=size)
    if kind == "orthographic":
        return OrthographicCamera(0.4 * s, 0.35 * s, cx, cy, size=size)
    if kind == "fisheye":
        return FisheyeCamera(0.9 * s, 0.9 * s, cx, cy, k=(0.05, -0.01, 0.002, 0.0), size=size)
    return OpenCVCamera(1.1 * s, 1.2 * s, cx, cy, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=size)


def shoelace(xy: Tensor) -> Tensor:
    """Area of the closed polygon through `xy` [N, 2]."""
    following = xy.roll(-1, 0)
    return 0.5 * (xy[:, 0] * following[:, 1] - xy[:, 1] * following[:, 0]).sum().abs()


def clipped(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of a convex polygon [N, 2] inside the image, differentiable: Sutherland & Hodgman 1974."""
    for axis, bound, keep in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        out = []
        for p, q in zip(xy, xy.roll(-1, 0), strict=True):
            inside_p, inside_q = keep * (p[axis] - bound) >= 0, keep * (q[axis] - bound) >= 0
            if inside_p:
                out.append(p)
            if inside_p != inside_q:
                out.append(p + (bound - p[axis]) / (q[axis] - p[axis]) * (q - p))
        if not out:
            return xy[:0]
        xy = torch.stack(out)
    return xy


def outline(camera: Camera, corners: Tensor, per_edge: int) -> Tensor:
    """Pixels [N, 2] along the edges of a polygon [K, 3] in space, `per_edge` points on each."""
    at = (torch.arange(per_edge, dtype=corners.dtype) / per_edge)[:, None, None]
    points = corners + at * (corners.roll(-1, 0) - corners)  # [per_edge, K, 3]
    return camera.project(points.transpose(0, 1).reshape(-1, 3))[0]


def polygon(seed: int, corners: int, spread: float) -> Tensor:
    """Corners [K, 3] of a convex polygon in a tilted plane, about 3 ahead of the camera."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.sort(torch.rand(corners, generator=generator, dtype=F64) * 2 * math.pi).values
    tilt = 0.4 * (torch.rand(2, generator=generator, dtype=F64) - 0.5)
    middle = spread * (torch.rand(2, generator=generator, dtype=F64) - 0.5)
    xy = middle + torch.stack([angle.cos(), 0.8 * angle.sin()], dim=-1)
    return torch.cat([xy, 3 + (xy * tilt).sum(-1, keepdim=True)], dim=-1)


def fan(corners: Tensor) -> Mesh:
    return Mesh(corners, torch.tensor([[0, i, i + 1] for i in range(1, len(corners) - 1)]))


def gradients(value: Tensor, leaves: list[Tensor]) -> Tensor:
    """All in one vector."""
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, leaves, retain_graph=True)])


# Polygons


@pytest.mark.parametrize("spread", [0.5, 4.0], ids=["inside", "across the image's border"])
@pytest.mark.parametrize("kind", ["pinhole", "orthographic"])
def test_area_of_a_polygon_and_its_derivatives_are_exact(kind: str, spread: float) -> None:
    """Also cut off by the border of the image. Rounding of some hundred pieces in float64."""
    for seed in range(6):
        corners = polygon(seed, 3 + seed % 3, spread).requires_grad_()
        camera = camera_of(kind)
        focal = camera.fx.detach().clone().requires_grad_()  # type: ignore[attr-defined]
        camera = camera.replace(fx=focal)
        expected = shoelace(clipped(camera.project(corners)[0], SIZE))
        area = render(fan(corners), camera)[..., -1].sum()
        torch.testing.assert_close(area, expected, rtol=1e-10, atol=1e-10)
        wanted = gradients(expected, [corners, focal])
        torch.testing.assert_close(gradients(area, [corners, focal]), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["fisheye", "opencv"])
def test_area_of_a_polygon_through_a_lens_is_the_integral_along_its_bent_edges(kind: str) -> None:
    """The outline through 2000 points per edge is exact to 1e-5. Edges are cut into chords that stray by at most a
    hundredth of a pixel: at most that, times 150 pixels of outline, of the area; half of it is typical."""
    for seed in range(6):
        corners = polygon(seed, 3 + seed % 3, 0.5).requires_grad_()
        camera = camera_of(kind)
        focal = camera.fx.detach().clone().requires_grad_()  # type: ignore[attr-defined]
        camera = camera.replace(fx=focal)
        path = outline(camera, corners, 2000)
        assert (path > 0).all()
        assert (path < path.new_tensor(SIZE[::-1])).all()
        area, expected = render(fan(corners), camera)[..., -1].sum(), shoelace(path)
        torch.testing.assert_close(area, expected, rtol=0, atol=1.5)
        wanted = gradients(expected, [corners, focal])
        error = (gradients(area, [corners, focal]) - wanted).norm() / wanted.norm()
        assert error < 2e-3


# Spheres


def rim_of_ball(middle: Tensor, radius: Tensor, count: int = 4000) -> Tensor:
    """Points [count, 3] of the circle where a ball is seen to end from the origin."""
    distance = middle.norm()
    axis = middle / distance
    aside = torch.linalg.cross(axis, torch.tensor([0.0, 1.0, 0.0], dtype=F64))
    aside = aside / aside.norm()
    below = torch.linalg.cross(axis, aside)
    sine = radius / distance
    turn = torch.arange(count, dtype=F64)[:, None] * (2 * math.pi / count)
    circle = aside * turn.cos() + below * turn.sin()
    return middle - sine * radius * axis + radius * (1 - sine**2).sqrt() * circle


@pytest.mark.parametrize("kind", ["pinhole", "fisheye", "opencv"])
def test_finer_and_finer_spheres_tend_to_the_image_of_the_ball(kind: str) -> None:
    """Area, and its derivatives to place, size and focal length, at the rate of chords: a quarter per subdivision.

    Off the axis of the lens. The cone about the ball touches it in a circle; its image, point by point, encloses the
    limit (a pinhole's is an ellipse). Up to how silhouettes happen to run over the icosahedron's faces.
    """
    size = (96, 110)
    errors, slopes = [], []
    for subdivisions in (1, 2, 3, 4):
        middle = torch.tensor([0.5, -0.3, 3.5], dtype=F64, requires_grad=True)
        radius = torch.tensor(1.0, dtype=F64, requires_grad=True)
        camera = camera_of(kind, size)
        focal = camera.fx.detach().clone().requires_grad_()  # type: ignore[attr-defined]
        camera = camera.replace(fx=focal)
        leaves = [middle, radius, focal]
        expected = shoelace(camera.project(rim_of_ball(middle, radius))[0])
        ball = sphere(subdivisions, dtype=F64)
        area = render(Mesh(radius * ball.vertices + middle, ball.faces), camera)[..., -1].sum()
        wanted = gradients(expected, leaves)
        errors.append(float(1 - (area / expected).detach()))
        slopes.append(float((gradients(area, leaves) - wanted).norm() / wanted.norm()))
    assert 0 < errors[-1] < 2e-3
    assert slopes[-1] < 6e-3
    for values in (errors, slopes):
        for coarse, fine in itertools.pairwise(values[1:]):
            assert 2.8 < coarse / fine < 5.5


# Occlusion: axis-aligned rectangles, whose areas everybody can multiply


def rectangle(low: tuple[float, float], high: tuple[float, float], z: float | Tensor = 2.0) -> tuple[Tensor, Tensor]:
    """Corners [4, 3] and faces [2, 3]."""
    (x0, y0), (x1, y1) = low, high
    xy = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=F64)
    return torch.cat([xy, torch.zeros(4, 1, dtype=F64) + z], dim=-1), torch.tensor([[0, 1, 2], [0, 2, 3]])


def painted(parts: list[tuple[Tensor, Tensor, tuple[float, float, float]]]) -> Mesh:
    """Parts (corners, faces, colour) in one mesh; no vertex belongs to two of them."""
    starts = itertools.accumulate([len(corners) for corners, _, _ in parts], initial=0)
    return Mesh(
        torch.cat([corners for corners, _, _ in parts]),
        torch.cat([faces + start for (_, faces, _), start in zip(parts, starts, strict=False)]),
        vertex_colors=torch.cat(
            [torch.tensor(color, dtype=F64).expand(len(corners), 3) for corners, _, color in parts]
        ),
    )


RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
FLAT = {
    "pinhole": lambda: PinholeCamera(torch.tensor(10.0, dtype=F64), 10.0, 0.0, 0.0, size=(30, 30)),
    "orthographic": lambda: OrthographicCamera(torch.tensor(5.0, dtype=F64), 5.0, 0.0, 0.0, size=(30, 30)),
}


@pytest.mark.parametrize("kind", FLAT)
def test_visible_part_of_a_rectangle_behind_another_and_its_derivatives(kind: str) -> None:
    """The near one moves by `shift` and hides w h of the far one; for the pinhole it also grows as it comes nearer."""
    shift = torch.zeros(3, dtype=F64, requires_grad=True)
    (far, faces), (near, _) = rectangle((0.52, 0.61), (4.13, 3.87)), rectangle((1.83, 1.94), (6.0, 2.71), 1.5)
    camera = FLAT[kind]()
    image = render(painted([(far, faces, RED), (near + shift, faces, GREEN)]), camera)
    far_xy, near_xy = camera.project(far)[0], camera.project(near + shift)[0]
    width = torch.minimum(far_xy[1, 0], near_xy[1, 0]) - near_xy[0, 0]
    height = near_xy[2, 1] - near_xy[0, 1]
    hidden, areas = width * height, [shoelace(clipped(xy, camera.size)) for xy in (far_xy, near_xy)]
    expected = [areas[0] - hidden, areas[1], areas[0] + areas[1] - hidden]
    for found, wanted in zip((image[..., 0].sum(), image[..., 1].sum(), image[..., 3].sum()), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-9)
        torch.testing.assert_close(gradients(found, [shift]), gradients(wanted, [shift]), rtol=1e-9, atol=1e-9)


def test_sheet_that_hides_part_of_itself_and_the_derivatives_of_both_parts() -> None:
    """A fold: red from x = 0.4 to 2.3 at z = 2, then back to x = 0.9 at z = 1, where its free end hides the red."""
    end = torch.tensor(0.9, dtype=F64, requires_grad=True)
    bend = torch.tensor(2.3, dtype=F64, requires_grad=True)
    y0, y1, f, inset = 0.52, 1.87, 5.0, 0.1  # the free end is a little shorter than the fold: edges cross nowhere

    def at(x: float | Tensor, y: float, z: float) -> Tensor:
        return torch.stack([torch.as_tensor(v, dtype=F64) for v in (x, y, z)])

    fold = [at(bend, y0, 2.0), at(bend, y1, 2.0)]
    flat, back = [at(0.4, y0, 2.0), at(0.4, y1, 2.0)], [at(end, y0 + inset, 1.0), at(end, y1 - inset, 1.0)]
    # The two halves have vertices of their own at the fold, for their colours.
    mesh = Mesh(
        torch.stack([*flat, *fold, *fold, *back]),
        torch.tensor([[0, 2, 3], [0, 3, 1], [4, 6, 7], [4, 7, 5]]),
        vertex_colors=torch.tensor([RED] * 4 + [GREEN] * 4, dtype=F64),
    )
    image = render(mesh, FLAT["orthographic"]())
    green = f * (bend - end) * f * (y1 - y0 - inset)  # a trapezoid
    both_parts = f * (bend - 0.4) * f * (y1 - y0)
    expected = (both_parts - green, green, both_parts)
    for channel, wanted in zip((0, 1, 3), expected, strict=True):
        found = image[..., channel].sum()
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-9)
        both = [torch.autograd.grad(v, [end, bend], retain_graph=True, allow_unused=True) for v in (found, wanted)]
        for got, want in zip(*both, strict=True):
            torch.testing.assert_close(got, torch.zeros_like(end) if want is None else want, rtol=1e-9, atol=1e-9)


# The centres of pixels, where rounding decides what is seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["pinhole", "orthographic", "fisheye", "opencv"])
def test_corner_at_the_centre_of_a_pixel(kind: str, dtype: torch.dtype) -> None:
    """But for rounding. Which sides of the corner the centre is on is then noise, and the pixel's area is not."""
    camera = camera_of(kind).to(dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    bent = kind in ("fisheye", "opencv")  # its chords stray by some thousandths of a pixel near their ends
    tolerance = 2e-3 if bent or dtype == torch.float32 else 1e-6  # the root of an epsilon of a pixel
    for _ in range(20):
        shift = 14 * torch.rand(3, 2, generator=generator, dtype=F64) - 7
        shift[0] = 0
        depth = 2 + torch.rand(3, generator=generator, dtype=F64)
        corners = camera.unproject((shift + torch.tensor([22.5, 17.5])).to(dtype), depth.to(dtype))
        alpha = render(fan(corners), camera)[17, 22, -1]
        seen = outline(camera.to(dtype=F64), corners.double(), 20) - torch.tensor([22.0, 17.0])
        area = shoelace(clipped(seen, (1, 1)))
        torch.testing.assert_close(alpha.double(), area, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lines_that_meet_at_the_centre_of_a_pixel(dtype: torch.dtype) -> None:
    """A corner of one triangle on a side of another, and sides that cross there: what is not hidden is seen."""
    generator = torch.Generator().manual_seed(0)
    camera = camera_of("pinhole").to(dtype=dtype)
    tolerance = 2e-3 if dtype == torch.float32 else 1e-6
    for trial in range(30):
        far, near = 14 * torch.rand(2, 3, 2, generator=generator, dtype=F64) - 7
        far[1] = -0.7 * far[0]  # a side through the centre
        near[0 if trial % 2 else 1] = 0 if trial % 2 else -1.3 * near[0]
        pixels = torch.stack([far, near]) + torch.tensor([22.5, 17.5])
        depths = torch.tensor([3.0, 2.0]).unsqueeze(-1) + 0.5 * torch.rand(2, 3, generator=generator)
        corners = camera.unproject(pixels.to(dtype), depths.to(dtype))
        mesh = join([fan(c).replace(vertex_colors=torch.tensor([color] * 3, dtype=dtype)) for c, color in
                     zip(corners, (RED, GREEN), strict=True)])  # fmt: skip
        image = render(mesh, camera, intersecting=False)[17, 22].double()
        triangles = camera.to(dtype=F64).project(corners.double())[0] - torch.tensor([22.0, 17.0])
        square = clipped(triangles[0], (1, 1))
        areas = [shoelace(square), shoelace(clipped(triangles[1], (1, 1)))]
        both = shoelace(common(square, triangles[1])) if len(square) else square.new_zeros(())
        expected = torch.stack([areas[0] - both, areas[1], areas[0] + areas[1] - both])
        torch.testing.assert_close(image[[0, 1, 3]], expected, rtol=0, atol=tolerance)


def common(polygon: Tensor, triangle: Tensor) -> Tensor:
    """The part of a convex polygon [N, 2] inside a triangle [3, 2], as `clipped`."""
    a, b, c = triangle
    turn = torch.sign(cross(b - a, c - a))
    for start, end in ((a, b), (b, c), (c, a)):
        height = turn * cross(end - start, polygon - start)
        out = []
        for p, q, before, after in zip(polygon, polygon.roll(-1, 0), height, height.roll(-1, 0), strict=True):
            if before >= 0:
                out.append(p)
            if (before >= 0) != (after >= 0):
                out.append(p + before / (before - after) * (q - p))
        if not out:
            return polygon[:0]
        polygon = torch.stack(out)
    return polygon


def cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


# The border of the image and the plane of the camera


def test_floor_from_behind_the_camera_ends_at_its_far_edge() -> None:
    """All below the image of the far edge, y = f h / z + cy, is covered; what lies behind the eye does not matter."""
    height, far = (torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.83, 4.7))
    one = torch.ones((), dtype=F64)
    corners = [(-50 * one, height, -one), (50 * one, height, -one), (50 * one, height, far), (-50 * one, height, far)]
    mesh = Mesh(torch.stack([torch.stack(c) for c in corners]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    camera = PinholeCamera(torch.tensor(20.0, dtype=F64), 21.0, 13.0, 7.3, size=(17, 26))
    area = render(mesh, camera)[..., -1].sum()
    expected = 26 * (17 - (21 * height / far + 7.3))
    torch.testing.assert_close(area, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(area, [height, far]), gradients(expected, [height, far]), rtol=1e-9, atol=0)


# The rim of the field of view


class Sine(Camera):
    """Sees half of all directions, through as far as r = f; `flip` -1 is a mirror. Its image folds back there."""

    def __init__(self, f: Tensor, flip: float, *, size: tuple[int, int]) -> None:
        self.flip = flip
        super().__init__(size=size, f=f)

    def to_pixels(self, points: Tensor) -> Tensor:
        sine = points[..., :2] / points.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        return self.f[..., None] * sine * sine.new_tensor([self.flip, 1.0]) + sine.new_tensor([20.3, 19.6])


def discs(f: Tensor, k: Tensor) -> dict[str, tuple[Camera, Tensor]]:
    """Cameras whose field of view is a disc inside of the image, and its area."""
    none = torch.zeros((), dtype=F64)
    fold = (-3 * k) ** -0.5  # of r (1 + k r^2)
    zeros = none.expand(3)
    return {
        "fisheye, all directions": (FisheyeCamera(f / math.pi, f / math.pi, 20.3, 19.6, zeros[:2], size=SIZE), f * f),
        "distorted": (
            OpenCVCamera(f, f, 20.3, 19.6, torch.cat([k[None], zeros]), size=SIZE), (f * fold * 2 / 3) ** 2
        ),
        "author's own": (Sine(f, 1.0, size=SIZE), f * f),
        "mirrored": (Sine(f, -1.0, size=SIZE), f * f),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["fisheye, all directions", "distorted", "author's own", "mirrored"])
def test_what_surrounds_the_camera_is_seen_as_far_as_the_field_of_view(name: str, dtype: torch.dtype) -> None:
    """And its area grows with the disc. Chords of a circle 17 pixels wide, one or two in a pixel: to 0.05 %."""
    f = torch.tensor(17.3, dtype=F64, requires_grad=True)
    k = torch.tensor(-0.31, dtype=F64, requires_grad=True)
    camera, expected = discs(f, k)[name]
    expected = math.pi * expected
    turn = so3_exp(torch.tensor([0.3, 0.2, 0.1], dtype=F64))
    room = Mesh(cube(dtype=F64).vertices @ turn.mT + torch.tensor([0.2, -0.1, 0.3], dtype=F64), cube().faces)
    area = render(room.to(dtype=dtype), camera.to(dtype=dtype))[..., -1].sum()
    torch.testing.assert_close(area.double(), expected, rtol=1e-3, atol=0)
    leaves = [f, k] if name == "distorted" else [f]
    # Before a fold, by d pixels, directions are off by the root of d: 1 % in float32, and r^3, the slope to k, by 3.
    torch.testing.assert_close(
        gradients(area, leaves), gradients(expected, leaves), rtol=5e-3 if dtype == F64 else 4e-2, atol=0
    )


def test_edges_end_at_the_rim_of_the_field_of_view() -> None:
    """A large box beside the camera, open towards it: all to one side of the line where its far wall begins."""
    f, x = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (17.3, 0.4))
    camera = Sine(f, 1.0, size=SIZE)
    one, far = torch.ones((), dtype=F64), torch.tensor(1e3, dtype=F64)
    corners = torch.stack([torch.stack(p) for p in itertools.product((x, far), (-far, far), (-far, one))])
    walls = [(1, 3, 7, 5), (4, 6, 7, 5), (0, 4, 5, 1), (2, 6, 7, 3)]
    box = Mesh(corners, torch.tensor([face for a, b, c, d in walls for face in ((a, b, c), (a, c, d))]))
    area = render(box, camera)[..., -1].sum()
    # The line (x, y, 1) is seen as half of an ellipse about the middle, x / sqrt(1 + x^2) wide.
    expected = math.pi / 2 * f * f * (1 - x / (1 + x * x).sqrt())
    torch.testing.assert_close(area, expected, rtol=2e-3, atol=0)
    torch.testing.assert_close(gradients(area, [f, x]), gradients(expected, [f, x]), rtol=1e-2, atol=0)


# Topology: edges that are none in the image


def test_split_vertices_make_no_silhouette() -> None:
    """A rectangle of two faces that share no vertex, of a seam's two uvs: image and gradient are those of one piece."""
    corners, faces = rectangle((0.52, 0.61), (4.13, 3.87))
    camera = FLAT["pinhole"]()
    weight = torch.linspace(-1, 1, 30 * 30, dtype=F64).reshape(30, 30)
    results = []
    for index, used in ((torch.arange(4), faces), (faces.reshape(-1), torch.arange(6).reshape(2, 3))):
        shift = torch.zeros(3, dtype=F64, requires_grad=True)
        alpha = render(Mesh((corners + shift)[index], used), camera)[..., -1]
        results.append((alpha.detach(), gradients((alpha * weight).sum(), [shift])))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    assert (results[0][0][5:15, 5:15] == 1).all()


@pytest.mark.parametrize("fin", [1.0, -1.0], ids=["behind", "in front"])
def test_third_face_at_an_edge_does_not_open_the_surface(fin: float) -> None:
    """Two halves of a rectangle and a fin that leans over one of them: together they cover what the rectangle does."""
    (corners, faces) = rectangle((0.52, 0.61), (4.13, 3.87))
    tip = torch.tensor([[1.9, 2.6, 2.0 + 0.4 * fin]], dtype=F64)
    mesh = painted([(torch.cat([corners, tip]), torch.cat([faces, torch.tensor([[0, 2, 4]])]), RED)])
    shift = torch.zeros(3, dtype=F64, requires_grad=True)
    camera = FLAT["orthographic"]()
    alone = render(Mesh(corners + shift, faces), camera)[..., -1]
    alpha = render(mesh.replace(vertices=mesh.vertices + shift), camera)[..., -1]
    torch.testing.assert_close(alpha, alone, rtol=0, atol=1e-12)
    weight = torch.linspace(-1, 1, 30 * 30, dtype=F64).reshape(30, 30)
    found, expected = (gradients((x * weight).sum(), [shift]) for x in (alpha, alone))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("turn", [0.0, 0.3, math.pi / 4, 1.234])
def test_walls_seen_edge_on_have_one_outline(turn: float, dtype: torch.dtype) -> None:
    """A box from above: its upper and lower edges are at the same place in the image, but for rounding."""
    R = so3_exp(torch.tensor([0.0, 0.0, turn], dtype=torch.float64)).to(dtype)
    scale = torch.tensor(9.3, dtype=dtype, requires_grad=True)
    box = cube(dtype=dtype)
    box = box.replace(vertex_colors=(box.vertices[:, 2:] < 0).to(dtype).expand(-1, 3))  # the far side is black
    camera = OrthographicCamera(
        scale, scale, 24.2, 21.4, size=SIZE, R=R, t=torch.tensor([0.03, -0.01, 5.0], dtype=dtype)
    )
    image = render(box, camera)
    side = 2 * 9.3
    near = 2e-4 if dtype == torch.float32 else 1e-9
    for channel in (0, 3):
        area = image[..., channel].sum()
        assert area.item() == pytest.approx(side * side, rel=near)
        (slope,) = torch.autograd.grad(area, scale, retain_graph=True)
        assert slope.item() == pytest.approx(8 * 9.3, rel=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("turn", [0.0, 0.3, math.pi / 4])
def test_surfaces_exactly_behind_each_other_have_one_outline(turn: float, dtype: torch.dtype) -> None:
    """Equal squares, and one half as wide, at different depths: their outlines coincide in the image."""
    R = so3_exp(torch.tensor([0.0, 0.0, turn], dtype=F64)).to(dtype)
    scale = torch.tensor(9.3, dtype=dtype, requires_grad=True)
    camera = OrthographicCamera(
        scale, scale, 24.2, 21.4, size=SIZE, R=R, t=torch.tensor([0.03, -0.01, 5.0], dtype=dtype)
    )
    x, y = torch.tensor([[-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]], dtype=dtype)
    flats = [(x, 0.0, 0.7), (x, 0.4, 0.2), (x.clamp(max=0), 0.9, 0.5), (x.clamp(max=0), -0.3, 0.9)]
    meshes = [
        fan(torch.stack([across, y, torch.full_like(y, z)], -1)).replace(vertex_colors=across.new_full((4, 1), color))
        for across, z, color in flats
    ]
    image = render(join(meshes), camera, intersecting=False)
    near = 2e-4 if dtype == torch.float32 else 1e-9
    for channel, expected in ((0, 0.9 * 0.5 + 0.7 * 0.5), (1, 1.0)):
        area = image[..., channel].sum()
        assert area.item() == pytest.approx(expected * 4 * 9.3**2, rel=near)
        (slope,) = torch.autograd.grad(area, scale, retain_graph=True)
        assert slope.item() == pytest.approx(expected * 8 * 9.3, rel=near)


def test_rectangle_beside_another_behind_it_in_the_image_has_one_edge_there() -> None:
    """Where the image of one ends, that of another, further away, begins."""
    camera = camera_of("pinhole").to(dtype=F64)
    square = torch.tensor([[-1.0, -0.5, 2.0], [0.1, -0.5, 2.0], [0.1, 0.5, 2.0], [-1.0, 0.5, 2.0]], dtype=F64)
    behind = 1.7 * torch.tensor([[0.1, -0.5, 2.0], [0.9, -0.5, 2.0], [0.9, 0.5, 2.0], [0.1, 0.5, 2.0]], dtype=F64)
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=F64)
    meshes = [fan(x).replace(vertex_colors=c.expand(4, 3)) for x, c in zip((square, behind), colors, strict=True)]
    image = render(join(meshes), camera)
    areas = [shoelace(camera.project(x)[0]) for x in (square, behind)]
    torch.testing.assert_close(image[..., :2].sum((0, 1)), torch.stack(areas), rtol=1e-9, atol=0)
    torch.testing.assert_close(image[..., 3].sum(), sum(areas), rtol=1e-9, atol=0)
