"""The curves in which surfaces meet: where they are, that they are closed, and how they move."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffrender as dr
from diffrender.intersections import Intersections, intersections
from diffrender.kernels.intersections import Grid, crossings, crossings_among, near_faces
from diffrender.kernels.intersections_reference import crossings_reference

CROSS = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, -1], [1, 1, 1], [9, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [3, 4, 5]])
OCTAHEDRON = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
OCTANTS = torch.tensor(
    [[x, y, z] if (x + y + z) % 2 == 0 else [y, x, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)]
)


def moved(mesh: dr.Mesh, x: float = 0.0, y: float = 0.0, z: float = 0.0, scale: float = 1.0) -> dr.Mesh:
    return dr.Mesh(scale * mesh.vertices + mesh.vertices.new_tensor([x, y, z]), mesh.faces)


def octahedron(dtype: torch.dtype = torch.float32) -> dr.Mesh:
    return dr.Mesh(OCTAHEDRON.to(dtype), OCTANTS)


def torus(major: int, minor: int, dtype: torch.dtype = torch.float32) -> dr.Mesh:
    return dr.torus(major_segments=major, minor_segments=minor, dtype=dtype)


def soup(num_faces: int, seed: int, dtype: torch.dtype = torch.float64) -> dr.Mesh:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_faces, 1, 3, generator=generator, dtype=dtype)
    corners = corners + (torch.rand(num_faces, 3, 3, generator=generator, dtype=dtype) - 0.5)
    return dr.Mesh(corners.reshape(-1, 3), torch.arange(3 * num_faces).reshape(-1, 3))


def length(found: Intersections) -> Tensor:
    return (found.ends[:, 1] - found.ends[:, 0]).norm(dim=-1).sum()


def ends_of_curves(mesh: dr.Mesh) -> Counter[tuple[int, ...]]:
    """How many segments end in each place: a side through a face, or a vertex."""
    weld = mesh.topology.weld
    found = crossings(mesh.vertices, mesh.faces, weld, mesh.topology.component)
    sides = weld[found.sides].reshape(-1, 2).tolist()
    through = zip(sides, found.crossed.reshape(-1).tolist(), strict=True)
    return Counter((*side, face) if side[0] != side[1] else (side[0],) for side, face in through)


def on_grid(points: Tensor) -> Tensor:
    return Grid.around(points).positions(points)


def same_as_reference(mesh: dr.Mesh, face_group: Tensor | None = None) -> int:
    """How many pairs of faces meet, after a comparison with the reference."""
    args = (mesh.vertices, mesh.faces, mesh.topology.weld, mesh.topology.component, face_group)
    found, expected = crossings(*args), crossings_reference(*args)
    for name in ("faces", "sides", "crossed"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    return len(found.faces)


def by_solving(mesh: dr.Mesh) -> dict[tuple[int, int], Tensor]:
    """Segments of all pairs of faces, each end from the linear equations of a line and a plane: [2, 3] by pair."""
    corners = mesh.vertices[mesh.faces]
    found = {}
    for i, j in itertools.combinations(range(mesh.num_faces), 2):
        points = []
        for one, other in ((corners[i], corners[j]), (corners[j], corners[i])):
            for start, end in zip(one, one.roll(-1, 0), strict=True):
                equations = torch.stack([end - start, other[0] - other[1], other[0] - other[2]], dim=1)
                t, u, v = torch.linalg.solve(equations, other[0] - start)
                if 0 < t < 1 and u > 0 and v > 0 and u + v < 1:
                    points.append(start + t * (end - start))
        if len(points) == 2:
            found[i, j] = torch.stack(points)
    return found


def test_two_triangles_meet_in_a_segment_known_in_advance() -> None:
    """A triangle in z = 0, and one in y = 1 whose tip at x = 9 is far outside."""
    found = intersections(dr.Mesh(CROSS, TWO))
    assert found.faces.tolist() == [[0, 1]]
    assert sorted(found.ends[0].tolist()) == [[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_without_a_common_point_do_not_meet(dtype: torch.dtype) -> None:
    apart = CROSS.to(dtype).clone()
    apart[3:, 1] += 3.5  # past the hypotenuse, though the boxes still overlap
    found = intersections(dr.Mesh(apart, TWO))
    assert found.ends.shape == (0, 2, 3)
    assert found.faces.shape == (0, 2)
    assert found.ends.dtype == dtype
    assert found.faces.dtype == torch.int64


@pytest.mark.parametrize("num_faces", [0, 1, 2, 7, 8, 9, 33])
def test_meshes_of_few_faces(num_faces: int) -> None:
    mesh = soup(num_faces, seed=3)
    assert len(intersections(mesh).faces) == same_as_reference(mesh)
    if num_faces == 0:
        nothing = dr.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
        assert intersections(nothing).ends.shape == (0, 2, 3)


def test_curve_of_two_spheres_tends_to_a_circle_and_so_does_its_derivative() -> None:
    """Spheres of radius 1 at distance d meet in a circle of length 2 pi sqrt(1 - d^2 / 4)."""
    distance = 1.1
    circle = 2 * math.pi * math.sqrt(1 - distance**2 / 4)
    slope = -math.pi * distance / (2 * math.sqrt(1 - distance**2 / 4))
    errors = []
    for subdivisions in (2, 3, 4, 5):
        d = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        sphere = dr.sphere(subdivisions, dtype=torch.float64)
        along = torch.nn.functional.normalize(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64), dim=0)
        other = dr.Mesh(sphere.vertices + d * along, sphere.faces)
        found = intersections(dr.join([dr.Mesh(sphere.vertices, sphere.faces), other]))
        total = length(found)
        (gradient,) = torch.autograd.grad(total, d)
        off_plane = (found.ends.detach() @ along - distance / 2).abs().amax()
        radius = (found.ends.detach() - distance / 2 * along).norm(dim=-1)
        errors.append(
            [
                abs(float(total.detach()) / circle - 1),
                abs(float(gradient) / slope - 1),
                float(off_plane),
                float((radius * 2 * math.pi / circle - 1).abs().amax()),
            ]
        )
    # An inscribed polyhedron with edges h is h^2 / 8 inside of the sphere: a quarter for every subdivision. The curve's
    # places follow that; the sum of many segments does too; 2.5 leaves room for how the two meshes happen to lie.
    for coarse, fine in itertools.pairwise(errors):
        assert fine[0] < coarse[0] / 2.5
        assert fine[2] < coarse[2] / 2.5
        assert fine[3] < coarse[3] / 2.5
    assert errors[-1][0] < 1e-3
    assert errors[-1][1] < 1e-2


def test_random_triangles_against_linear_equations() -> None:
    mesh = soup(70, seed=1)
    expected = by_solving(mesh)
    found = intersections(mesh)
    assert [tuple(pair) for pair in found.faces.tolist()] == sorted(expected)
    assert len(expected) > 100
    for pair, ends in zip(found.faces.tolist(), found.ends, strict=True):
        other = expected[tuple(pair)]
        if (ends[0] - other[0]).norm() > (ends[0] - other[1]).norm():
            other = other.flip(0)
        # solving loses digits where faces are nearly parallel: 2^-53 times a condition of up to 10^4 here
        torch.testing.assert_close(ends, other, rtol=0, atol=1e-11)


@given(
    st.integers(2, 40),
    st.integers(0, 10**6),
    st.sampled_from(["random", "shared", "integer", "almost", "flat", "degenerate"]),
)
@example(40, 1740, "flat")  # an end a little outside of a face without area
@settings(max_examples=80, deadline=None)
def test_any_soup_agrees_with_the_reference(num_faces: int, seed: int, kind: str) -> None:
    """Also with shared vertices, in degenerate positions, with faces in one plane or without area: all finite."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2 + num_faces, 3, generator=generator)
    if kind == "random":
        mesh = soup(num_faces, seed, torch.float32)
    else:
        if kind != "shared":
            vertices = (5 * vertices).floor()
        if kind == "almost":
            vertices = vertices + 2.0**-27 * torch.randint(-1, 2, vertices.shape, generator=generator).double()
        if kind == "flat":
            vertices[:, 2] = (vertices[:, 2] / 4).floor()
        faces = torch.randint(0, len(vertices), (num_faces, 3), generator=generator)
        if kind != "degenerate":
            faces = faces[(faces != faces.roll(1, 1)).all(1)]
        mesh = dr.Mesh(vertices, faces)
    mesh = mesh.replace(vertices=mesh.vertices.requires_grad_())
    same_as_reference(mesh)
    found = intersections(mesh)
    found.ends.sum().backward()
    assert mesh.vertices.grad is not None
    assert torch.isfinite(mesh.vertices.grad).all()
    for corners in mesh.vertices.detach()[mesh.faces[found.faces]].unbind(1):
        low, high = corners.amin(1, keepdim=True), corners.amax(1, keepdim=True)
        # An end lies in both faces, but for the room around the boxes of flat ones, a millionth of their size of up to
        # 5, and for rounding: 2^-24 of 5 in the ends, 2^-30 of 5 in the decision to have one.
        assert ((found.ends >= low - 6e-6) & (found.ends <= high + 6e-6)).all()


def test_every_end_lies_on_both_faces() -> None:
    mesh = dr.join([moved(dr.sphere(3, dtype=torch.float64)), moved(torus(24, 16, torch.float64), 0.3, 0.2, 0.1)])
    found = intersections(mesh)
    assert len(found.faces) > 100
    for corners in mesh.vertices[mesh.faces[found.faces]].unbind(1):
        a, u, v = corners[:, :1], corners[:, 1:2] - corners[:, :1], corners[:, 2:] - corners[:, :1]
        normal = torch.nn.functional.normalize(torch.linalg.cross(u, v), dim=-1)
        assert float(((found.ends - a) * normal).sum(-1).abs().amax()) < 1e-14  # a few 2^-53 of coordinates near 1
        sides = torch.linalg.cross(corners.roll(-1, 1) - corners, normal.expand(-1, 3, -1))
        outside = (sides.unsqueeze(1) * (found.ends.unsqueeze(2) - corners.unsqueeze(1))).sum(-1)
        assert float(outside.amax()) < 1e-9  # the grid: 2^-30 of a mesh of size 3


CLOSED = {
    "spheres": lambda: [dr.sphere(2), moved(dr.sphere(2), 0.7, 0.2, 0.1)],
    "mirrored spheres with common vertices": lambda: [dr.sphere(2), moved(dr.sphere(2), 1.0, 0.0, 0.0)],
    "knot of two tori": lambda: [torus(14, 8), moved(torus(14, 8), 0.9, 0.0, 0.05)],
    "vertex on a face": lambda: [octahedron(), moved(octahedron(), 0.5, 0.25, 1.25)],
    "vertex in a face from inside": lambda: [moved(octahedron(), scale=4.0), moved(octahedron(), 1.0, 1.0, 1.0)],
    "vertex on an edge": lambda: [octahedron(), moved(octahedron(), 0.5, 0.0, 1.5)],
    "edge through an edge": lambda: [octahedron(), moved(octahedron(), 0.5, 0.5, 0.0)],
    "edge along an edge": lambda: [dr.cube(), moved(dr.cube(), 0.25, 2.0, 2.0)],
    "cube on cube": lambda: [dr.cube(), moved(dr.cube(), 0.25, 0.125, 2.0)],
    "cubes with flush sides": lambda: [dr.cube(), moved(dr.cube(), 1.25, 0.0, 0.0)],
    "cube in cube, flush": lambda: [dr.cube(), moved(dr.cube(), 0.5, 0.25, 0.125, scale=0.5)],
    "cube in the corner of a cube": lambda: [dr.cube(), moved(dr.cube(), 0.5, 0.5, 0.5)],
    "cube and octahedron": lambda: [dr.cube(), octahedron()],
    "three at once": lambda: [octahedron(), moved(octahedron(), 0.5, 0.25, 0.0), moved(octahedron(), 0.25, 0.5, 0.25)],
}


@pytest.mark.parametrize("name", CLOSED)
def test_curves_of_closed_surfaces_are_closed(name: str) -> None:
    """Two segments end wherever a side passes through a face."""
    mesh = dr.join(CLOSED[name]())
    same_as_reference(mesh)
    for place, segments in ends_of_curves(mesh).items():
        assert len(place) == 1 or segments == 2, place  # a common vertex may have common edges, too


def test_curves_are_closed_in_space_too() -> None:
    """The ends of neighbours agree to the last bit, in float32 and far away from the origin."""
    mesh = moved(dr.join([dr.sphere(3), moved(dr.sphere(3), 0.7, 0.2, 0.1)]), 1000.0, -3000.0, 500.0)
    found = intersections(mesh)
    assert len(found.faces) > 50
    assert set(Counter(map(tuple, found.ends.reshape(-1, 3).tolist())).values()) <= {2, 4}


@given(st.lists(st.integers(-3, 3), min_size=36, max_size=36))
@settings(max_examples=200, deadline=None)
def test_curves_of_surfaces_with_corners_on_a_small_grid_are_closed(coordinates: list[int]) -> None:
    """Two crumpled octahedra: each passes through itself, in every degenerate way there is."""
    points = torch.tensor(coordinates).reshape(12, 3).float()
    mesh = dr.Mesh(points, torch.cat([OCTANTS, OCTANTS + 6]))
    if len({tuple(p) for p in points.tolist()}) < 12 or _faces_in_one_plane(mesh):
        return  # two faces in one plane do not meet, by decree
    same_as_reference(mesh)
    for place, segments in ends_of_curves(mesh).items():
        assert len(place) == 1 or segments == 2, place  # in a vertex of both faces a fold may end


def _faces_in_one_plane(mesh: dr.Mesh) -> bool:
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across = (normal[:, None, None] * (corners[None] - corners[:, None, :1])).sum(-1)  # [F, F, 3]
    flat = (across == 0).all(-1) & (normal != 0).any(-1)[:, None]
    return bool(flat.fill_diagonal_(False).any())


@pytest.mark.parametrize("offset", [(0.25, 0.5, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.3, 0.1, 0.0)])
def test_faces_in_one_plane_do_not_meet(offset: tuple[float, float, float]) -> None:
    mesh = dr.join([dr.grid(5, 4), moved(dr.grid(3, 7), *offset)])
    assert len(intersections(mesh).faces) == 0


def test_faces_with_a_common_vertex_meet_from_there_on() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, -1], [1, 1, 1]])
    found = intersections(dr.Mesh(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]])))
    assert sorted(found.ends[0].tolist()) == [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    side = dr.Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 4]]))
    assert len(intersections(side).faces) == 0


@pytest.mark.parametrize("num_groups", [2, 3, 16, 300])
def test_groups_do_not_meet(num_groups: int) -> None:
    mesh = soup(300, seed=4)
    group = 7 * (torch.arange(300) % num_groups) - 50
    found = intersections(mesh, group)
    everything = intersections(mesh)
    same = group[everything.faces[:, 0]] == group[everything.faces[:, 1]]
    assert int(same.sum()) < len(same)
    assert bool(same.any()) == (num_groups < 300)
    torch.testing.assert_close(found.faces, everything.faces[same], rtol=0, atol=0)
    torch.testing.assert_close(found.ends, everything.ends[same], rtol=0, atol=0)
    assert same_as_reference(mesh, group) == len(found.faces)


@pytest.mark.parametrize("group", [torch.zeros(3), torch.zeros(4, dtype=torch.int64), None])
def test_wrong_groups_are_refused(group: Tensor | None) -> None:
    mesh = soup(3, seed=0)
    if group is None:
        assert intersections(mesh, None).faces.shape[1] == 2
        return
    with pytest.raises(ValueError, match="face_group must hold one integer for each of the 3 faces"):
        intersections(mesh, group)


def test_moving_everything_together_changes_nothing() -> None:
    """By a power of two in float64, where nothing is rounded; and the grid moves along."""
    mesh = dr.join([dr.sphere(3), moved(dr.sphere(2), 0.6, 0.1, 0.2)]).to(dtype=torch.float64)
    found = intersections(mesh)
    far = intersections(mesh.replace(vertices=2.0**-5 * mesh.vertices + 2.0**20))
    assert torch.equal(far.faces, found.faces)
    # 2^-53 of the coordinates around 2^20, in units of the mesh
    torch.testing.assert_close((far.ends - 2.0**20) * 2.0**5, found.ends, rtol=0, atol=1e-7)


def test_order_of_the_faces_does_not_matter() -> None:
    mesh = soup(200, seed=5)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    pairs = {tuple(sorted(order[pair].tolist())) for pair in intersections(mesh.replace(faces=mesh.faces[order])).faces}
    assert pairs == {tuple(pair) for pair in intersections(mesh).faces.tolist()}


def test_the_same_bits_for_any_number_of_threads() -> None:
    mesh = dr.join([torus(120, 64), moved(torus(120, 64), 0.9, 0.05, 0.02)])
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            vertices = mesh.vertices.clone().requires_grad_()
            found = intersections(mesh.replace(vertices=vertices))
            weights = torch.linspace(-1, 1, found.ends.numel()).reshape(found.ends.shape)
            (found.ends * weights).sum().backward()
            results.append((found.faces, found.ends.detach(), vertices.grad))
    finally:
        torch.set_num_threads(threads)
    assert len(results[0][0]) > 500
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))  # type: ignore[arg-type]


@given(
    st.sampled_from(["soup", "shared", "spheres", "sheet", "teapot"]),
    st.integers(0, 10**6),
    st.floats(1e-4, 0.3),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_near_faces_are_all_that_can_meet_within_their_slack(
    kind: str, seed: int, slack: float, dtype: torch.dtype
) -> None:
    """However vertices move by up to the slack, also all by exactly that, what a search finds is among them."""
    generator = torch.Generator().manual_seed(seed)
    ball = dr.sphere(2)
    sheet = dr.grid(8, 8)
    mesh = {
        "soup": lambda: soup(60, seed),
        "shared": lambda: dr.Mesh(
            torch.rand(20, 3, generator=generator), torch.randint(0, 20, (40, 3), generator=generator)
        ),
        "spheres": lambda: dr.join([ball, moved(ball, 1.9), moved(ball, 0.0, 2.001)]),
        "sheet": lambda: dr.join([sheet, moved(sheet, z=slack), moved(sheet, x=0.3, z=-1.5 * slack)]),
        "teapot": lambda: dr.join([torus(16, 12), moved(torus(16, 12), 0.1, 1.0, 0.1)]),
    }[kind]()
    mesh = mesh.to(dtype=dtype)
    surface = (mesh.faces, mesh.topology.weld, mesh.topology.component)
    near = near_faces(mesh.vertices, *surface, slack, 10**9)
    assert near is not None
    step = torch.randn(mesh.vertices.shape, generator=generator, dtype=torch.float64)
    step = near.slack * step / step.norm(dim=-1, keepdim=True)
    step = step * torch.rand(len(step), 1, generator=generator, dtype=torch.float64).clamp(min=seed % 2)
    vertices = (mesh.vertices + (1 - 1e-6) * step).to(dtype)[mesh.topology.weld]
    expected, found = crossings(vertices, *surface), crossings_among(near, vertices, *surface)
    assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(expected).values(), strict=True))


def test_what_was_found_before_changes_nothing() -> None:
    """Meshes that move a little, not at all, far, or in place, call by call, against meshes that nobody has seen."""
    mesh = dr.join([dr.sphere(3), moved(dr.sphere(3), 0.9, 0.1, 0.2), moved(dr.sphere(3), 3.0)])
    vertices = mesh.vertices.clone()
    generator = torch.Generator().manual_seed(3)
    searches = []
    for size in (0.0, 1e-4, 1e-4, 1e-3, 0.0, 5e-4, 5e-4, 0.5, 1e-5, 0.0, 0.0):
        vertices *= 1 + size // 0.5  # once twice as large
        vertices += (size % 0.5) * torch.rand(vertices.shape, generator=generator)
        found = intersections(mesh.replace(vertices=vertices))
        searches.append(mesh.topology.notes["intersections"])
        fresh = intersections(dr.Mesh(vertices.clone(), mesh.faces))
        assert torch.equal(found.faces, fresh.faces)
        assert torch.equal(found.ends, fresh.ends)
        assert len(found.faces) > 50
    assert len(set(map(id, searches))) == 4  # for what meets, for what is near; and again after the long way


def test_ends_have_right_derivatives() -> None:
    """First and second, in general position and with a common vertex."""
    mesh = dr.Mesh(
        torch.cat([CROSS, torch.tensor([[1.0, 1, -2], [2, 1, 2], [-1, 2, 1]])]).double(),
        torch.tensor([[0, 1, 2], [3, 4, 5], [0, 6, 7], [6, 7, 8]]),
    )
    mesh = mesh.replace(vertices=mesh.vertices + 0.01 * torch.arange(27.0).reshape(9, 3).double().sin())
    assert len(intersections(mesh).faces) >= 3

    def ends(vertices: Tensor) -> Tensor:
        return intersections(mesh.replace(vertices=vertices)).ends

    vertices = mesh.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(ends, vertices)
    assert torch.autograd.gradgradcheck(ends, vertices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tilt", [0.0, 1e-40, 1e-18, 1e-9, 1e-7, 1e-4])
def test_nearly_parallel_faces_have_bounded_derivatives(dtype: torch.dtype, tilt: float) -> None:
    corners = torch.tensor([[-1, -1, tilt], [1, -1, -tilt], [0, 1, tilt], [-1, 1, -tilt], [1, 1, tilt], [0, -1, -tilt]])
    vertices = corners.to(dtype).requires_grad_()
    found = intersections(dr.Mesh(vertices, TWO))
    found.ends.square().sum().backward()
    assert torch.isfinite(found.ends).all()
    assert vertices.grad is not None
    # the ends move 1 / angle times as fast as the planes; below rounding, eight epsilons, they do not follow any more
    assert float(vertices.grad.abs().amax()) < 10 / max(tilt, torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_size_does_not_matter(scale: float) -> None:
    found = intersections(dr.Mesh(scale * CROSS.double(), TWO))
    expected = scale * torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert found.faces.tolist() == [[0, 1]]
    torch.testing.assert_close(found.ends[0, :, 0].sort().values, expected, rtol=1e-12, atol=0)


def test_grid_leaves_coordinates_with_few_digits_where_they_are() -> None:
    points = torch.tensor([[0.375, -1.0, 1000.0], [0.5, 3.0, 1001.0], [0.25, 0.125, 1000.5]])
    grid = on_grid(points).double()
    steps = (grid - grid[0]) / (grid[1, 1] - grid[0, 1]) * 4.0
    torch.testing.assert_close(steps, (points - points[0]).double(), rtol=0, atol=0)
    assert 2**28 <= int(grid.abs().max()) <= 2**29
    assert on_grid(points[:0]).shape == (0, 3)
    assert on_grid(points[:1].expand(4, 3)).eq(0).all()


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    mesh = dr.join(
        [torus(120, 64), moved(torus(120, 64), 0.9, 0.05, 0.02), octahedron(), moved(octahedron(), 0.5, 0.5)]
    )
    group = torch.arange(mesh.num_faces) % 2
    for face_group in (None, group):
        found = intersections(mesh, face_group)
        there = intersections(mesh.to("cuda"), None if face_group is None else face_group.cuda())
        torch.testing.assert_close(there.faces.cpu(), found.faces, rtol=0, atol=0)
        torch.testing.assert_close(there.ends.cpu(), found.ends, rtol=0, atol=1e-6)  # sums in another order


def test_memory_layout_of_the_vertices_does_not_matter() -> None:
    """Solvers hand out columns first."""
    ball = dr.sphere(1)
    pair = dr.join([ball, ball.replace(vertices=ball.vertices + torch.tensor([1.0, 0.1, 0.2]))])
    columns_first = pair.replace(vertices=pair.vertices.t().contiguous().t())
    torch.testing.assert_close(intersections(columns_first).ends, intersections(pair).ends, rtol=0, atol=0)
