"""The kernels against their torch reference: the same arithmetic, so the same faces and the same bits of depth."""

import errno
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from diffrender.kernels import (
    build_ray_tree,
    first_hit,
    first_hit_linear,
    first_hit_reference,
    image_slots,
    launch,
    rasterize_linear,
    scattered_slots,
    sort_rays,
    visibility,
)
from diffrender.kernels.warp_ray_tree import make_ray_tree_kernels

FOCAL = 20.0
SOUPS = ("large", "thin", "tiny", "huge", "degenerate", "across the camera plane", "behind", "around the camera")
SIZES = ((17, 33), (40, 24), (1, 1), (1, 19), (23, 1))


def soup(kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] float64 in front of a camera of focal length `FOCAL`, and faces [F, 3], some sharing vertices."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    corners = (random(60, 3, 3) - 0.5) * torch.tensor([4.0, 4.0, 3.0]) + torch.tensor([0.0, 0.0, 3.0])
    faces = torch.arange(180).reshape(-1, 3)
    if kind == "thin":
        corners[:, 2] = corners[:, 0] + random(60, 1) * (corners[:, 1] - corners[:, 0]) + 1e-4 * (random(60, 3) - 0.5)
    if kind == "tiny":
        corners = corners[:, :1] + 0.05 * (random(60, 3, 3) - 0.5)
    if kind == "huge":
        corners = corners * 1e3
        corners[..., 2] = 2e3 + 1e3 * random(60, 3)
    if kind == "degenerate":
        corners[:20, 1] = corners[:20, 0]
        corners[20:40, 2] = 0.5 * (corners[20:40, 0] + corners[20:40, 1])
        corners[40:44] = corners[40:44, :1]
        corners[44:46] = 0.0
        corners[46:50, 0] = 0.0
        corners[50:52, :, 2] = 0.0
    if kind == "across the camera plane":
        corners[..., 2] -= 3.0
    if kind == "behind":
        corners[..., 2] -= 6.0
    if kind == "around the camera":
        corners = torch.nn.functional.normalize(corners - torch.tensor([0.0, 0.0, 3.0]), dim=-1)
    faces[1::3, 0] = faces[0::3, 1]  # neighbours: shared sides and corners
    faces[1::3, 1] = faces[0::3, 0]
    return corners.reshape(-1, 3), faces


def linear_rays(size: tuple[int, int], dtype: torch.dtype, central: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Affine rays [1, 6, 3] as `rasterize_linear` wants them, and origins and directions [H * W, 3] at the centres."""
    zero, x, y = torch.zeros(3, dtype=dtype), torch.eye(3, dtype=dtype)[0], torch.eye(3, dtype=dtype)[1]
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=dtype)
    corner = torch.tensor([-size[1] / 2 - 0.3, -size[0] / 2 + 0.2, 0.0], dtype=dtype) / FOCAL
    if central:
        parts = (zero, zero, zero, forward + corner, x / FOCAL, y / FOCAL)
    else:
        parts = (3 * corner, 3 * x / FOCAL, 3 * y / FOCAL, forward, zero, zero)
    xy = pixel_centers(size).to(dtype)
    at = [(a + xy[:, :1] * b) + xy[:, 1:] * c for a, b, c in (parts[:3], parts[3:])]
    return torch.stack(parts)[None], at[0], at[1]


def pixel_centers(size: tuple[int, int]) -> Tensor:
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def projected(vertices: Tensor, size: tuple[int, int], central: bool) -> tuple[Tensor, Tensor]:
    """Pixels of vertices and whether they mean anything, for `linear_rays`."""
    middle = vertices.new_tensor([size[1] / 2 + 0.3, size[0] / 2 - 0.2])
    in_front = vertices[:, 2] > 1e-6
    if not central:
        return vertices[:, :2] * (FOCAL / 3) + middle, in_front
    return FOCAL * vertices[:, :2] / torch.where(in_front, vertices[:, 2], 1.0)[:, None] + middle, in_front


def bent_rays(size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Unit directions [H * W, 3] of a lens that sees all around and folds at its rim; some pixels have no ray."""
    u = (pixel_centers(size) / torch.tensor([size[1], size[0]]) - 0.5).to(dtype)
    angle = 7.0 * u.norm(dim=-1, keepdim=True)
    direction = torch.cat([torch.sin(angle) * torch.nn.functional.normalize(u, dim=-1), torch.cos(angle)], dim=-1)
    direction[::37] = math.nan
    return direction


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SOUPS)
@pytest.mark.parametrize("central", [True, False], ids=["pinhole", "orthographic"])
def test_fast_path_is_the_reference(kind: str, dtype: torch.dtype, central: bool) -> None:
    for seed, size in enumerate(SIZES):
        vertices, faces = soup(kind, seed)
        vertices = vertices.to(dtype)
        rays, origins, directions = linear_rays(size, dtype, central)
        for cull in (False, True):
            face = rasterize_linear(
                vertices, *projected(vertices, size, central), faces, None, rays, size, central=central, cull=cull
            )
            expected, _ = first_hit_reference(
                vertices[faces], None if central else origins, directions, z_depth=True, cull=cull
            )
            torch.testing.assert_close(face.reshape(-1).long(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SOUPS)
def test_tree_is_the_reference(kind: str, dtype: torch.dtype) -> None:
    for seed, size in enumerate(SIZES[::2]):
        vertices, faces = soup(kind, seed)
        vertices = vertices.to(dtype)
        directions = bent_rays(size, dtype)
        offsets = torch.randn(directions.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for origins in (None, (0.2 * offsets).to(dtype)):
            tree = build_ray_tree(origins, directions, image_slots(*size, 1, directions))
            for cull in (False, True):
                face, depth = first_hit(vertices, faces, None, tree, z_depth=False, cull=cull)
                exists = torch.isfinite(directions).all(-1)
                expected = first_hit_reference(
                    vertices[faces],
                    None if origins is None else origins[exists],
                    directions[exists],
                    z_depth=False,
                    cull=cull,
                )
                assert (face[~exists] == -1).all()
                assert torch.isinf(depth[~exists]).all()
                torch.testing.assert_close((face[exists], depth[exists]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SOUPS)
@pytest.mark.parametrize("central", [True, False], ids=["pinhole", "orthographic"])
def test_fast_path_is_the_tree(kind: str, dtype: torch.dtype, central: bool) -> None:
    size = (37, 45)
    vertices, faces = soup(kind)
    vertices = vertices.to(dtype)
    rays, origins, directions = linear_rays(size, dtype, central)
    fast = rasterize_linear(vertices, *projected(vertices, size, central), faces, None, rays, size, central=central)
    slots = image_slots(*size, 1, directions)
    tree = build_ray_tree(None if central else origins, directions, slots)
    face, _ = first_hit(vertices, faces, None, tree, z_depth=True)
    torch.testing.assert_close(fast.reshape(-1).long(), face, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SOUPS)
@pytest.mark.parametrize("central", [True, False], ids=["pinhole", "orthographic"])
@pytest.mark.parametrize("nudged", [False, True], ids=["", "nudged"])
def test_single_rays_are_the_reference_and_pass_through_skipped_edges_and_faces(
    kind: str, dtype: torch.dtype, central: bool, nudged: bool
) -> None:
    size, num_rays = (37, 45), 500
    generator = torch.Generator().manual_seed(3)
    vertices, faces = soup(kind)
    vertices = vertices.to(dtype)
    rays, _, _ = linear_rays(size, dtype, central)
    xy = (torch.rand(num_rays, 2, generator=generator) * torch.tensor([45.0, 37.0])).to(dtype)
    xy[:40] = xy[:40].round()  # on the lines between pixels
    o, o_dx, o_dy, d, d_dx, d_dy = rays[0]
    origins, directions = (a + xy[:, :1] * b + xy[:, 1:] * c for a, b, c in ((o, o_dx, o_dy), (d, d_dx, d_dy)))
    starts = None if central else origins
    face_edges = torch.randint(-1, 40, faces.shape, generator=generator)
    skip = torch.randint(-1, 40, (num_rays,), generator=generator)
    skip_faces = first_hit_reference(vertices[faces], starts, directions, z_depth=True)[0].unsqueeze(-1).repeat(1, 2)
    skip_faces[::2, 0], skip_faces[1::2, 1] = -1, torch.randint(len(faces), (num_rays // 2,), generator=generator)
    skip_faces[::5] = -1
    passed = {"face_edges": face_edges, "skip_edge": skip, "skip_faces": skip_faces}
    if nudged:  # half of the rays through edges
        weights = torch.rand(num_rays, 1, generator=generator).to(dtype)
        sides = vertices[faces[torch.randint(len(faces), (num_rays,), generator=generator)]]
        on_edge = weights * sides[:, 0] + (1 - weights) * sides[:, 1]
        chosen = (torch.arange(num_rays) % 2 == 0) & (on_edge[:, 2] > 0.1)
        pixels, _ = projected(on_edge, size, central)
        xy = torch.where(chosen[:, None] & (pixels > 0).all(-1, keepdim=True), pixels, xy).clamp(0, 37)
        origins, directions = (a + xy[:, :1] * b + xy[:, 1:] * c for a, b, c in ((o, o_dx, o_dy), (d, d_dx, d_dy)))
        starts = None if central else origins
        passed["beside"] = torch.randn(num_rays, 3, generator=generator).to(dtype)
        passed["limit"] = 4 * torch.rand(num_rays, generator=generator).to(dtype)
        passed["edges"] = torch.randint(len(vertices), (40, 2), generator=generator)
    view = torch.zeros(num_rays, dtype=torch.int64)

    first = 400  # to which all that is passed belongs; the others are like any other rays
    passed = {name: value if name in ("face_edges", "edges") else value[:first] for name, value in passed.items()}
    parts = [
        first_hit_reference(
            vertices[faces], None if starts is None else starts[part], directions[part], z_depth=True, **more
        )
        for part, more in ((slice(first), passed), (slice(first, None), {}))
    ]
    expected = tuple(torch.cat(pair) for pair in zip(*parts, strict=True))
    by_rows = first_hit_linear(
        vertices, *projected(vertices, size, central), faces, None,
        sort_rays(view, xy, starts, directions, 1, size), **passed,
    )  # fmt: skip
    torch.testing.assert_close(by_rows, expected, rtol=0, atol=0)
    tree = build_ray_tree(starts, directions, scattered_slots(view, xy, 1))
    by_tree = first_hit(vertices, faces, None, tree, z_depth=True, **passed)
    torch.testing.assert_close(by_tree, expected, rtol=0, atol=0)


@pytest.mark.parametrize("central", [True, False], ids=["pinhole", "orthographic"])
def test_atomic_modes_agree_with_the_mode_of_one_thread_per_pixel(
    monkeypatch: pytest.MonkeyPatch, central: bool
) -> None:
    """CUDA launches the kernels twice, least depth first; one thread may do the same on the CPU."""
    size = (37, 45)
    vertices, faces = soup("large")
    vertices = torch.cat([vertices, vertices]).float()
    faces = torch.cat([faces, faces + len(vertices) // 2])  # every face twice: the lower index wins
    rays, origins, directions = linear_rays(size, torch.float32, central)
    pixels = projected(vertices, size, central)
    view = torch.zeros(len(directions), dtype=torch.int64)
    starts = None if central else origins
    tree = build_ray_tree(starts, directions, image_slots(*size, 1, directions))
    rows = sort_rays(view, pixel_centers(size).float(), starts, directions, 1, size)

    def everything() -> tuple[Tensor, ...]:
        return (
            rasterize_linear(vertices, *pixels, faces, None, rays, size, central=central),
            *first_hit(vertices, faces, None, tree, z_depth=True),
            *first_hit_linear(vertices, *pixels, faces, None, rows),
        )

    def both_modes(work: Callable[..., None], jobs: Sequence[tuple[Any, ...]]) -> None:
        for mode in (visibility.WRITE_DEPTH, visibility.WRITE_FACE):
            for *where, usual in jobs:
                assert usual == int(visibility.WRITE_FIRST_HIT)
                work(*where, int(mode))

    expected = everything()
    assert int(expected[0].max()) < len(faces) // 2

    def outputs_for_minima(shape: tuple[int, ...], like: Tensor, **_: bool) -> tuple[Tensor, Tensor]:
        return torch.full(shape, torch.inf, dtype=like.dtype), torch.full(shape, visibility.NO_FACE, dtype=torch.int32)

    monkeypatch.setattr(visibility, "side_by_side", both_modes)
    monkeypatch.setattr(visibility, "_outputs", outputs_for_minima)
    monkeypatch.setattr(visibility, "_faces", lambda hits: torch.where(hits == visibility.NO_FACE, -1, hits))
    torch.testing.assert_close(everything(), expected, rtol=0, atol=0)


def test_no_rays_and_no_faces_are_fine() -> None:
    vertices, faces = soup("large")
    none = torch.zeros(0, dtype=torch.int64)
    tree = build_ray_tree(None, torch.zeros(0, 3, dtype=torch.float64), scattered_slots(none, torch.zeros(0, 2), 1))
    face, depth = first_hit(vertices, faces, None, tree, z_depth=False)
    assert face.shape == depth.shape == (0,)
    face, depth = first_hit(vertices, faces, None, tree, z_depth=False, face_edges=faces, skip_edge=none)
    assert face.shape == depth.shape == (0,)
    rows = sort_rays(none, torch.zeros(0, 2).double(), None, torch.zeros(0, 3).double(), 1, (5, 5))
    pixels = projected(vertices, (5, 5), True)
    face, depth = first_hit_linear(vertices, *pixels, faces, None, rows, face_edges=faces, skip_edge=none)
    assert face.shape == depth.shape == (0,)
    tree = build_ray_tree(None, vertices, scattered_slots(torch.zeros(len(vertices)).long(), vertices[:, :2], 1))
    face, depth = first_hit(vertices, faces[:0], None, tree, z_depth=False)
    assert (face == -1).all()
    assert torch.isinf(depth).all()
    face, depth = first_hit_reference(vertices[faces[:0]], None, vertices, z_depth=False)
    assert (face == -1).all()
    assert torch.isinf(depth).all()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    size = (37, 45)
    for kind in SOUPS:
        vertices, faces = soup(kind)
        vertices = vertices.to(dtype)
        rays, _, directions = linear_rays(size, dtype, True)
        pixels = projected(vertices, size, True)
        slots = image_slots(*size, 1, directions)

        def on(device: str) -> tuple[Tensor, ...]:
            inputs = [x.to(device) for x in (vertices, *pixels, faces)]  # noqa: B023
            linear = rasterize_linear(*inputs, None, rays.to(device), size, central=True)  # noqa: B023
            tree = build_ray_tree(None, directions.to(device), slots.to(device))  # noqa: B023
            hits = first_hit(inputs[0], inputs[-1], None, tree, z_depth=True)
            return tuple(x.cpu() for x in (linear, *hits))

        torch.testing.assert_close(on("cuda"), on("cpu"), rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/home/nobody/.cache/warp")

    monkeypatch.setattr(launch, "_initialize", forbidden)
    launch._loaded.cache_clear()
    with pytest.raises(PermissionError, match="variable WARP_CACHE_PATH names another one") as raised:
        launch.load_kernel(make_ray_tree_kernels, "first_hit", torch.zeros(1))
    assert raised.value.filename == "/home/nobody/.cache/warp"
