"""Visibility against exact arithmetic, an independent ray caster, and the law that closed surfaces have no holes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lenses import (
    HiddenOrthographic,
    HiddenPinhole,
    Panorama,
    Pushbroom,
    Stereographic,
    WavyTelecentric,
)
from torch import Tensor

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OpenCVCamera,
    OrthographicCamera,
    PinholeCamera,
    so3_exp,
    stack_cameras,
)
from diffrender.mesh import Mesh
from diffrender.primitives import sphere, torus
from diffrender.visibility import visibility

DTYPES = (torch.float32, torch.float64)


def camera_of(kind: str, size: tuple[int, int], dtype: torch.dtype) -> Camera:
    """A camera of each kind whose image of the unit ball at (0, 0, 3) fits into `size`."""
    s, cx, cy = float(min(size)), torch.tensor(size[1] / 2 + 0.3, dtype=dtype), size[0] / 2 - 0.2
    if kind == "pinhole":
        return PinholeCamera(1.1 * s, 1.2 * s, cx, cy, size=size)
    if kind == "orthographic":
        return OrthographicCamera(0.4 * s, 0.35 * s, cx, cy, size=size)
    if kind == "fisheye":
        return FisheyeCamera(1.1 * s, s, cx, cy, k=(0.05, -0.01, 0.002, 0.0), size=size)
    if kind == "opencv":
        return OpenCVCamera(1.1 * s, 1.2 * s, cx, cy, dist=(-0.3, 0.1, 0.002, -0.003, 0.02), size=size)
    if kind == "panorama":
        return Panorama(1.0 + 0 * cx, size=size)
    if kind == "pushbroom":
        return Pushbroom(s + 0 * cx, 2.6 / s, size=size)
    if kind == "telecentric":
        return WavyTelecentric(2.6 / s + 0 * cx, 0.08 * s, size=size)
    return Stereographic(2.0 * s + 0 * cx, size=size)


KINDS = ("pinhole", "orthographic", "fisheye", "opencv", "custom")
USERS_OWN = ("panorama", "pushbroom", "telecentric")  # without a centre, or with seam and poles


# Exact arithmetic

FOCAL = 8  # a power of two, like everything that decides here: no operation rounds


def exact_visibility(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W] face in front for a pinhole of focal length `FOCAL` and middle (0, 0); `corners` [F, 3, 3] whole eighths.

    The rule in whole numbers: a ray through d, pushed by infinitesimals to the right, then down, then forward, passes
    the inner side of all three planes through the eye and a side; least depth; lowest index.
    """
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    d = torch.stack([2 * x + 1, 2 * y + 1, torch.full_like(x, 2 * FOCAL)], dim=-1).reshape(-1, 1, 1, 3)  # [P, 1, 1, 3]
    c = (8 * corners).round().long()
    assert (c == 8 * corners).all()
    n = torch.stack([torch.linalg.cross(c[:, i], c[:, j]) for i, j in ((1, 2), (2, 0), (0, 1))], dim=1)  # [F, 3, 3]
    w = (d * n).sum(-1)  # [P, F, 3]
    key = torch.cat([w[..., None], n.expand(*w.shape, 3)], dim=-1)
    leading = (key != 0).to(torch.int8).argmax(-1, keepdim=True)
    sign = key.gather(-1, leading).squeeze(-1).sign()
    inside = (sign[..., 0] != 0) & (sign == sign[..., :1]).all(-1) & (w.sum(-1) != 0)
    depth = (w * c[..., 2]).sum(-1).double() / w.sum(-1)
    depth = torch.where(inside & (depth > 0), depth, torch.inf)
    best, face = depth.min(dim=1)
    face = (depth == best[:, None]).to(torch.int8).argmax(1)
    return torch.where(best < torch.inf, face, -1).reshape(size)


def exact_pinhole(size: tuple[int, int], dtype: torch.dtype) -> PinholeCamera:
    return PinholeCamera(torch.tensor(FOCAL, dtype=dtype), FOCAL, 0.0, 0.0, size=size)


def on_centers(generator: torch.Generator, count: int, size: tuple[int, int], depths: Tensor) -> Tensor:
    """Random corners [count, 3, 3] that project onto pixel centres or onto lines and corners of pixels."""
    pixel = torch.stack([torch.randint(-2, 2 * n + 3, (count, 3), generator=generator) for n in size[::-1]], dim=-1) / 2
    z = depths.expand(count, 3)
    return torch.cat([pixel * z[..., None] / FOCAL, z[..., None]], dim=-1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_at_dyadic_coordinates_are_decided_exactly(dtype: torch.dtype) -> None:
    """Faces parallel to the image at few depths: corners and edges through centres, coincident and degenerate faces."""
    size = (12, 15)
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        depths = 2.0 ** torch.randint(1, 4, (40, 1), generator=generator)
        corners = on_centers(generator, 40, size, depths)
        corners[20:30] = corners[0:10][:, [0, 2, 1]]  # coincident, turned over
        vertices = corners.reshape(-1, 3)
        mesh = Mesh(vertices.to(dtype), torch.arange(120).reshape(-1, 3))
        expected = exact_visibility(corners, size)
        assert (expected >= 0).any()
        torch.testing.assert_close(visibility(mesh, exact_pinhole(size, dtype)), expected, rtol=0, atol=0)


def test_ties_of_tilted_faces_are_decided_exactly_in_float64() -> None:
    """Products of these numbers fit float64; depths of different faces differ by more than its rounding."""
    size = (12, 15)
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        depths = 2.0 ** torch.randint(1, 4, (40, 3), generator=generator)
        corners = on_centers(generator, 40, size, depths)
        corners[20:30] = corners[0:10][:, [1, 2, 0]]
        mesh = Mesh(corners.reshape(-1, 3).double(), torch.arange(120).reshape(-1, 3))
        found = visibility(mesh, exact_pinhole(size, torch.float64))
        torch.testing.assert_close(found, exact_visibility(corners, size), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixel_centre_on_shared_edges_and_corners_belongs_to_one_face(dtype: torch.dtype) -> None:
    """Triangulations of a square whose vertices are pixel centres; each face drawn alone, the faces' pixels add up."""
    size, side = (9, 9), 7
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.arange(side + 1), torch.arange(side + 1), indexing="ij")
        z = 2.0 ** torch.randint(1, 4, (side + 1, side + 1), generator=generator)
        pixel = torch.stack([x, y], dim=-1) + 0.5
        vertices = torch.cat([pixel * z[..., None] / FOCAL, z[..., None]], dim=-1).reshape(-1, 3)
        i = (y * (side + 1) + x)[:-1, :-1].reshape(-1)
        a, b, c, d = i, i + 1, i + side + 2, i + side + 1
        diagonal = torch.rand(len(i), 1, generator=generator) < 0.5
        first = torch.where(diagonal, torch.stack([a, b, c], 1), torch.stack([a, b, d], 1))
        second = torch.where(diagonal, torch.stack([a, c, d], 1), torch.stack([b, c, d], 1))
        faces = torch.cat([first, second])
        turned = torch.rand(len(faces), 1, generator=generator) < 0.5  # winding does not matter
        faces = torch.where(turned, faces[:, [0, 2, 1]], faces)
        camera = exact_pinhole(size, dtype)
        alone = [Mesh(vertices.to(dtype), face[None]) for face in faces]
        count = (visibility(alone, camera) >= 0).sum(0)
        expected = torch.zeros(size, dtype=torch.int64)
        expected[:side, :side] = 1  # rays go right and down at ties: the square owns its left and upper border
        torch.testing.assert_close(count, expected, rtol=0, atol=0)


# An independent ray caster, where rounding cannot decide


def cast(origins: Tensor, directions: Tensor, corners: Tensor, precision: float) -> tuple[Tensor, Tensor]:
    """First face along rays [N, 3] by Moeller & Trumbore 1997 in float64, and where `precision` cannot change it.

    `precision` is the machine epsilon of the arithmetic under test. It evaluates w = d . ((a + b) x (b - a)) from
    rounded inputs in about ten operations, so its error is below 16 epsilon |d| |a + b| |b - a| times a small constant
    for the components' absolute sums, at most 2 (Higham 2002, gamma_n). The eye may be rounded too: epsilon |o| counts
    among the corners. A depth (sum of w z) / (sum of w) moves by the error of its w, relative to their sum.
    """
    a, b, c = (corners[None, :, i] for i in range(3))  # [1, F, 3]
    o, d = origins[:, None], directions[:, None]
    e1, e2 = b - a, c - a
    p = torch.linalg.cross(d.expand(-1, len(corners), -1), e2.expand(len(d), -1, -1))
    det = (p * e1).sum(-1)
    s = o - a
    q = torch.linalg.cross(s.expand_as(p), e1.expand_as(p))
    u, v, t = ((p * s).sum(-1) / det, (q * d).sum(-1) / det, (q * e2).sum(-1) / det)
    weights = torch.stack([1 - u - v, u, v], dim=-1)
    hit = (weights > 0).all(-1) & (t > 0)

    size = [x.norm(dim=-1) + o.norm(dim=-1) for x in (a, b, c)]
    sides = [(c - b).norm(dim=-1), (c - a).norm(dim=-1), (b - a).norm(dim=-1)]
    reach = torch.stack(
        [(size[1] + size[2]) * sides[0], (size[2] + size[0]) * sides[1], (size[0] + size[1]) * sides[2]], dim=-1
    )
    error = 32 * precision * d.norm(dim=-1)[..., None] * reach / (2 * det.abs()[..., None])  # of the barycentrics
    sure_in = (weights > error).all(-1)
    sure_out = (weights < -error).any(-1)
    farthest = torch.stack(size, dim=-1).amax(-1) / d.norm(dim=-1)
    blur = 2 * error.sum(-1) * farthest + 32 * precision * farthest  # of the depth
    sure_out |= t < -blur

    depth = torch.where(hit, t, torch.inf)
    best, face = depth.min(dim=1)
    face = torch.where(best < torch.inf, face, -1)
    nearest = torch.where(sure_out, torch.inf, t - blur)  # the least it might be
    winner = torch.arange(len(corners)) == face[:, None]
    limit = torch.where(winner, t + blur, -torch.inf).amax(1)
    rivals = torch.where(winner, torch.inf, nearest).amin(1)
    certain = torch.where(face >= 0, (rivals > limit) & (winner & sure_in & (t > blur)).any(1), rivals == torch.inf)
    return face, certain


def scene(kind: str, seed: int) -> Mesh:
    """Float64 meshes in front of, around and behind a camera at the origin."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5

    if kind == "sphere":
        ball = sphere(2, dtype=torch.float64)
        return Mesh(ball.vertices @ so3_exp(random(3)).mT + torch.tensor([0.0, 0.0, 3.0]), ball.faces)
    if kind == "around":
        ball = sphere(2, dtype=torch.float64)
        return Mesh(ball.vertices @ so3_exp(random(3)).mT + 0.3 * random(3), ball.faces)
    corners = 2 * random(50, 3, 3) + torch.tensor([0.0, 0.0, 3.0])
    if kind == "slivers":
        corners[:, 2] = 0.5 * (corners[:, 0] + corners[:, 1]) + 0.01 * random(50, 3)
    if kind == "tiny":
        corners = corners[:, :1] + 0.05 * random(50, 3, 3)
    if kind == "through the camera":
        corners = 4 * random(50, 3, 3)
    return Mesh(corners.reshape(-1, 3), torch.arange(150).reshape(-1, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS + USERS_OWN)
def test_visibility_is_what_an_independent_ray_caster_sees(kind: str, dtype: torch.dtype) -> None:
    for seed, name in enumerate(("sphere", "around", "soup", "slivers", "tiny", "through the camera")):
        mesh = scene(name, seed).to(dtype=dtype)
        camera = camera_of(kind, (22, 31), dtype)
        origins, directions = camera.rays(camera.pixel_centers().reshape(-1, 2))
        exists = torch.isfinite(directions).all(-1)
        found = visibility(mesh, camera).reshape(-1)
        assert (found[~exists] == -1).all()
        expected, certain = cast(
            origins[exists].double(), directions[exists].double(), mesh.vertices[mesh.faces].double(),
            torch.finfo(dtype).eps,
        )  # fmt: skip
        # Slivers come within rounding of being no faces at all, and rays in a camera inside a mesh meet many of them.
        assert certain.double().mean() > (0.9 if dtype == torch.float32 else 0.99), (name, certain.double().mean())
        wrong = (found[exists] != expected) & certain
        assert not wrong.any(), (name, int(wrong.sum()))


def test_lens_that_sees_behind_itself() -> None:
    """A sphere around a camera with a field of view of 280 degrees along the diagonal; everything is covered."""
    mesh = scene("around", 0)
    camera = Stereographic(torch.tensor(8.0, dtype=torch.float64), size=(24, 32))
    _, directions = camera.rays(camera.pixel_centers())
    assert directions[..., 2].min() < -0.5
    found = visibility(mesh, camera)
    expected, certain = cast(
        torch.zeros(24 * 32, 3, dtype=torch.float64), directions.reshape(-1, 3), mesh.vertices[mesh.faces], 2.3e-16
    )
    assert certain.all()
    torch.testing.assert_close(found.reshape(-1), expected, rtol=0, atol=0)


SPHERICAL = {
    "face over the pole": [[0.0, -1.0, 0.6], [0.5, -1.0, -0.4], [-0.5, -1.0, -0.3]],
    "pole in a corner": [[0.0, -1.0, 0.0], [0.5, -1.0, -0.4], [0.4, -0.5, 0.9]],
    "pole on an edge": [[-0.5, -1.0, 0.25], [0.5, -1.0, -0.25], [0.4, -0.5, 0.9]],
    "across the seam": [[-0.7, 0.3, -1.0], [0.6, 0.4, -1.2], [0.1, -0.8, -0.9]],
    "seam on an edge": [[0.0, 0.3, -1.0], [0.0, -0.8, -1.3], [0.9, -0.1, -0.9]],
    "across seam and pole": [[-0.7, 0.8, -1.0], [0.6, 0.7, -1.2], [0.1, 0.9, 0.9]],
    "half around": [[-1.0, 0.1, 0.5], [1.0, 0.2, 0.6], [0.1, 0.3, -0.05]],
    "both poles nearly": [[0.05, -1.0, 0.01], [-0.1, 1.0, 0.02], [0.8, 0.1, 0.3]],
    "tiny beside the pole": [[0.01, -1.0, 0.02], [0.03, -1.0, 0.01], [0.02, -1.0, 0.04]],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPHERICAL)
def test_panorama_shows_faces_at_its_poles_and_across_its_seam(name: str, dtype: torch.dtype) -> None:
    """Their corners say little about the pixels they cover: whole rows at a pole, both ends of rows at the seam."""
    corners = torch.tensor(SPHERICAL[name], dtype=dtype)
    camera = Panorama(torch.tensor(1.0, dtype=dtype), size=(60, 90))
    origins, directions = camera.rays(camera.pixel_centers().reshape(-1, 2))
    assert torch.isfinite(directions).all()
    found = visibility(Mesh(corners, torch.tensor([[0, 1, 2]])), camera).reshape(-1)
    expected, certain = cast(origins.double(), directions.double(), corners[None].double(), torch.finfo(dtype).eps)
    assert certain.double().mean() > 0.99
    assert (expected >= 0).any()
    torch.testing.assert_close(found[certain], expected[certain], rtol=0, atol=0)
    if name == "face over the pole":
        assert (found.reshape(60, 90)[0] == 0).all()
    if name == "across the seam":
        assert (found.reshape(60, 90)[:, [0, -1]] == 0).any(0).all()


# The fast path and the general one


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["pinhole", "orthographic"])
def test_general_path_sees_what_the_fast_path_sees(kind: str, dtype: torch.dtype) -> None:
    """Pixel for pixel, also with batches, lists and culling: both decide with the same arithmetic."""
    hidden_type = HiddenPinhole if kind == "pinhole" else HiddenOrthographic
    meshes = [scene(name, 5).to(dtype=dtype) for name in ("sphere", "soup", "slivers", "tiny", "through the camera")]
    for size in ((29, 38), (1, 1), (1, 23)):
        one = camera_of(kind, size, dtype)
        parameters = {name: getattr(one, name) for name in one._names}
        fast = stack_cameras([one.replace(t=(0.1 * i, -0.05 * i, 0.1 * i)) for i in range(5)])
        hidden = stack_cameras([hidden_type(**parameters, size=size, t=camera_t) for camera_t in fast.t])
        assert fast.linear_rays() is not None
        assert hidden.linear_rays() is None
        for mesh in (meshes, meshes[1], meshes[4]):
            for cull in (False, True):
                expected = visibility(mesh, fast, cull_backfaces=cull)
                assert 1 in size or (expected >= 0).any()
                torch.testing.assert_close(visibility(mesh, hidden, cull_backfaces=cull), expected, rtol=0, atol=0)


# Watertight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS + USERS_OWN)
@settings(max_examples=8, deadline=None)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), shift=st.tuples(*[st.floats(-0.4, 0.4)] * 3))
def test_closed_surface_around_the_camera_has_no_hole(
    kind: str, dtype: torch.dtype, turn: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    ball = sphere(2, dtype=dtype)
    rotation = so3_exp(torch.tensor(turn, dtype=torch.float64)).to(dtype)
    mesh = Mesh(ball.vertices @ rotation.mT * 4 + torch.tensor(shift, dtype=dtype), ball.faces)
    camera = camera_of(kind, (48, 37), dtype)
    exists = torch.isfinite(camera.rays(camera.pixel_centers().reshape(-1, 2))[1]).all(-1)
    torch.testing.assert_close(visibility(mesh, camera).reshape(-1) >= 0, exists, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["pinhole", "orthographic", "fisheye"])
def test_convex_body_has_no_hole_at_high_resolution(kind: str) -> None:
    """Rows and columns of a convex silhouette are covered without a gap; edges are hundreds of pixels long."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        ball = sphere(2)
        turn = so3_exp(torch.randn(3, generator=generator, dtype=torch.float64)).float()
        mesh = Mesh(ball.vertices @ turn.mT + torch.tensor([0.0, 0.0, 3.0]), ball.faces)
        covered = visibility(mesh, camera_of(kind, (900, 1000), torch.float32)) >= 0
        assert covered.float().mean() > 0.2
        for mask in (covered, covered.mT):
            padded = torch.nn.functional.pad(mask.to(torch.int8), (1, 1))
            starts = (padded[:, 1:] > padded[:, :-1]).sum(1)
            assert int(starts.max()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_front_and_back_of_a_closed_body_cover_the_same_pixels(kind: str) -> None:
    for body in (sphere(2), torus()):
        turn = so3_exp(torch.tensor([0.4, 0.9, -0.2]))
        vertices = 0.6 * body.vertices @ turn.mT + torch.tensor([0.1, 0.0, 3.0])
        camera = camera_of(kind, (80, 90), torch.float32)
        both = visibility(Mesh(vertices, body.faces), camera) >= 0
        assert 500 < int(both.sum()) < 5000
        front = visibility(Mesh(vertices, body.faces), camera, cull_backfaces=True)
        back = visibility(Mesh(vertices, body.faces[:, [0, 2, 1]]), camera, cull_backfaces=True)
        torch.testing.assert_close(front >= 0, both, rtol=0, atol=0)
        torch.testing.assert_close(back >= 0, both, rtol=0, atol=0)
        assert (front[both] != back[both]).all()


def test_culling_hides_faces_seen_from_behind() -> None:
    """Counter-clockwise seen from outside: with y down, (0, 0), (0, 1), (1, 0) turns counter-clockwise for the eye."""
    vertices = torch.tensor([[0.0, 0.0, 1.0], [0.0, 9.0, 1.0], [9.0, 0.0, 1.0]])
    camera = PinholeCamera(1.0, 1.0, 0.0, 0.0, size=(2, 2))
    assert (visibility(Mesh(vertices, torch.tensor([[0, 1, 2]])), camera, cull_backfaces=True) == 0).all()
    assert (visibility(Mesh(vertices, torch.tensor([[0, 2, 1]])), camera, cull_backfaces=True) == -1).all()
    assert (visibility(Mesh(vertices, torch.tensor([[0, 2, 1]])), camera) == 0).all()


# Batches, lists, threads


@pytest.mark.parametrize("kind", KINDS + USERS_OWN)
def test_batches_equal_single_images(kind: str) -> None:
    mesh = scene("soup", 1).to(dtype=torch.float32)
    one = camera_of(kind, (20, 27), torch.float32)
    cameras = [one.replace(t=(0.2 * i, -0.1 * i, 0.3 * i)) for i in range(6)]
    batch = visibility(mesh, stack_cameras(cameras))
    assert batch.shape == (6, 20, 27)
    singles = torch.stack([visibility(mesh, camera) for camera in cameras])
    assert len(singles.unique()) > 10
    torch.testing.assert_close(batch, singles, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS + USERS_OWN)
def test_lists_of_meshes_equal_single_images(kind: str) -> None:
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    meshes = [scene(name, 2).to(dtype=torch.float32) for name in ("soup", "sphere", "tiny")]
    meshes.insert(1, empty)
    one = camera_of(kind, (20, 27), torch.float32)
    cameras = [one.replace(t=(0.1 * i, 0.0, 0.2 * i)) for i in range(4)]
    singles = torch.stack([visibility(m, camera) for m, camera in zip(meshes, cameras, strict=True)])
    torch.testing.assert_close(visibility(meshes, stack_cameras(cameras)), singles, rtol=0, atol=0)
    same = torch.stack([visibility(m, one) for m in meshes])
    torch.testing.assert_close(visibility(meshes, one), same, rtol=0, atol=0)
    assert (same[1] == -1).all()


@pytest.mark.parametrize("kind", KINDS + USERS_OWN)
def test_number_of_threads_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = scene("soup", 3).to(dtype=torch.float32)
    one = camera_of(kind, (37, 29), torch.float32)
    cameras = stack_cameras([one, one.replace(t=(0.1, 0.0, 0.5)), one.replace(t=(0.0, 0.3, 0.5))])
    monkeypatch.setattr("diffrender.kernels.launch.MIN_WORK", 1)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            results.append((visibility(mesh, one), visibility(mesh, cameras), visibility([mesh, mesh], one)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


def test_empty_mesh_is_seen_nowhere() -> None:
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    points = Mesh(torch.ones(5, 3), torch.zeros(0, 3, dtype=torch.int64))
    for kind in KINDS:
        one = camera_of(kind, (4, 5), torch.float32)
        for mesh in (empty, points):
            assert (visibility(mesh, one) == -1).all()
            assert visibility(mesh, stack_cameras([one, one])).shape == (2, 4, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mesh_type", "camera_type"), [DTYPES, DTYPES[::-1]])
def test_mesh_and_camera_of_different_precision_meet_in_the_higher(
    kind: str, mesh_type: torch.dtype, camera_type: torch.dtype
) -> None:
    mesh = scene("sphere", 0).to(dtype=mesh_type)
    camera = camera_of(kind, (20, 27), camera_type)
    wanted = visibility(mesh.to(dtype=torch.float64), camera.to(dtype=torch.float64))
    mixed = visibility(mesh, camera)
    assert (mixed != wanted).double().mean() < 0.01  # rays of float32 parameters may differ in their last bits
    torch.testing.assert_close(visibility([mesh], camera)[0], mixed, rtol=0, atol=0)


def test_mismatched_batch_and_list_are_named() -> None:
    cameras = stack_cameras([camera_of("pinhole", (4, 5), torch.float32)] * 3)
    with pytest.raises(ValueError, match=r"camera must have no batch or one of 2, a camera per mesh; got \(3,\)"):
        visibility([sphere(0), sphere(0)], cameras)
    with pytest.raises(ValueError, match="camera must hold at least one camera; its batch has the shape"):
        visibility(sphere(0), cameras[:0])
    for mesh in (sphere(0), [sphere(0)] * 3):
        with pytest.raises(ValueError, match=r"mesh and camera must be on one device; got cpu and meta: move one"):
            visibility(mesh, cameras.to("meta"))
    with pytest.raises(TypeError, match="mesh must be a Mesh or a list of at least one Mesh"):
        visibility([], cameras)
    with pytest.raises(TypeError, match="mesh must be a Mesh or a list of at least one Mesh"):
        visibility([sphere(0), "cube"], cameras)  # type: ignore[list-item]
