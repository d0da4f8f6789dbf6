"""Environment maps and filled textures, against closed forms and continuity across every seam."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffrender as dr
from diffrender.sampling import (
    covered_texels,
    cubemap_directions,
    fill_texture,
    panorama_directions,
    sample_cubemap,
    sample_panorama,
    sample_texture,
    uv_seams,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def directions(count: int, seed: int = 1) -> Tensor:
    return torch.nn.functional.normalize(random(count, 3, seed=seed) - 0.5, dim=-1)


def test_texels_have_their_own_directions() -> None:
    faces, image = random(6, 4, 4, 3), random(5, 8, 3)
    torch.testing.assert_close(sample_cubemap(faces, cubemap_directions(4).double()), faces, rtol=0, atol=1e-14)
    # directions are made in float32: 1e-7 radians, of slopes up to 3 per radian
    torch.testing.assert_close(sample_panorama(image, panorama_directions((5, 8)).double()), image, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_cube_map_is_continuous_across_edges_and_corners(side: int) -> None:
    faces = random(6, side, side, 2)
    one, other = 2 * random(400, seed=2) - 1, torch.ones(400, dtype=torch.float64)
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        edge = torch.stack([other, 2 * (one > 0) - other, one], -1)[:, list(order)]
        edge[::7] = edge[::7].sign()  # corners
        near = [sample_cubemap(faces, edge + 1e-9 * directions(400, seed=s)) for s in (3, 4)]
        torch.testing.assert_close(*near, rtol=0, atol=1e-7)  # slopes of up to some 10 per unit


def test_smooth_functions_are_reproduced_to_second_order() -> None:
    def f(d: Tensor) -> Tensor:
        d = torch.nn.functional.normalize(d, dim=-1)
        return torch.stack([d[..., 0] * d[..., 1], d[..., 2] ** 2 + d[..., 1]], -1)

    at, errors = directions(2000), []
    for side in (16, 32):
        cube = sample_cubemap(f(cubemap_directions(side).double()), at)
        panorama = sample_panorama(f(panorama_directions((side * 2, side * 4)).double()), at)
        errors.append([(x - f(at)).abs().max() for x in (cube, panorama)])
    # bilinear errors fall by 4 when the pixels halve; by 2 at the corners of a cube, where a texel is missing
    assert errors[1][0] < 0.7 * errors[0][0] < 0.02
    assert errors[1][1] < 0.3 * errors[0][1] < 0.02


def test_gradients() -> None:
    faces, image = random(6, 3, 3, 1).requires_grad_(), random(3, 4, 1).requires_grad_()
    at = directions(12).requires_grad_()
    assert torch.autograd.gradcheck(sample_cubemap, (faces, at))
    assert torch.autograd.gradcheck(sample_panorama, (image, at))


def test_directions_without_a_direction_have_no_gradient() -> None:
    none = [[0.0, 0, 0], [torch.nan, 1, 0], [0, torch.inf, 0], [torch.inf, torch.inf, -1], [1e-45, 1e-45, 0]]
    at = torch.tensor([*none, [0, 1, 0]], requires_grad=True)
    for values in (sample_cubemap(torch.rand(6, 2, 2, 1), at), sample_panorama(torch.rand(2, 4, 1), at)):
        (gradient,) = torch.autograd.grad(values.sum(), at)
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert torch.equal(gradient[: len(none)], torch.zeros(len(none), 3))


@pytest.mark.parametrize("length", [1e-30, 1e-20, 1e30, 3e38])
def test_directions_may_have_any_length(length: float) -> None:
    """Squares of these lengths are 0 or infinite in single precision."""
    faces, image = random(6, 5, 5, 2).float(), random(6, 8, 2).float()
    for lookup, images in ((sample_cubemap, faces), (sample_panorama, image)):
        unit = directions(50).float().requires_grad_()
        scaled = (length * unit.detach()).requires_grad_()
        values = [lookup(images, d) for d in (unit, scaled)]
        torch.testing.assert_close(*values, rtol=0, atol=2e-6)  # directions are rounded again
        of_unit, of_scaled = (torch.autograd.grad(v.sum(), d)[0] for v, d in zip(values, (unit, scaled), strict=True))
        # the gradient is as large as the length is small; of the largest, what is left is below the normal numbers
        torch.testing.assert_close(of_scaled * length, of_unit, rtol=1e-3, atol=1e-4 if length < 1e38 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_with_in_single_precision(dtype: torch.dtype) -> None:
    at = directions(50).to(dtype)
    for lookup, images in ((sample_cubemap, random(6, 5, 5, 2)), (sample_panorama, random(6, 8, 2))):
        values = lookup(images.to(dtype), at)
        assert torch.equal(values, lookup(images.to(dtype).float(), at.float()).to(dtype))


def test_panorama_over_the_pole_meets_the_other_side() -> None:
    image = random(4, 8, 2)
    step = torch.tensor([[1e-9, 1.0, 0.0], [-1e-9, 1.0, 0.0]], dtype=torch.float64)
    values = sample_panorama(image, step)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-7)


def test_filled_texture_keeps_the_charts_and_continues_constants() -> None:
    mask = random(9, 14) > 0.7
    texture = torch.where(mask[..., None], 0.25, random(9, 14, 3, seed=1))
    filled = fill_texture(texture, mask)
    torch.testing.assert_close(filled, torch.full_like(filled, 0.25), rtol=1e-14, atol=0)
    values = random(9, 14, 3).requires_grad_()
    filled = fill_texture(values, mask)
    assert torch.equal(filled[mask], values[mask])
    (gradient,) = torch.autograd.grad(filled.sum(), values)
    assert (gradient[~mask] == 0).all()
    torch.testing.assert_close(gradient.sum(), torch.tensor(9.0 * 14 * 3).double())  # weights sum to 1 everywhere


def test_filled_textures_that_were_fitted_are_right_at_seams_at_every_level() -> None:
    """Lookups inside of charts fit a texture; then mip levels, which read far outside, are looked up on the seams."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.arange(8) * torch.pi / 4
    ring = 0.2 * torch.stack([angle.cos(), angle.sin()], -1)
    uvs = torch.cat([ring + 0.25, ring + 0.75])  # two octagons, each a chart
    fan = torch.stack([torch.zeros(6), torch.arange(1, 7), torch.arange(2, 8)], -1).long()
    mesh = dr.Mesh(torch.nn.functional.pad(uvs, (0, 1)), torch.cat([fan, fan + 8]), uvs=uvs)
    mask = covered_texels(mesh, (32, 32))
    truth = fill_texture(torch.rand(32, 32, 3, generator=generator), mask)
    corners = uvs[mesh.faces]
    weights = torch.rand(400, 1, 3, 1, generator=generator)
    inside = (corners * weights).sum(2) / weights.sum(2)  # [400, F, 2]
    wanted = dr.sample_texture(truth, inside)

    def fitted(make: Callable[[Tensor], Tensor]) -> Tensor:
        texels = torch.full((32, 32, 3), 0.5, requires_grad=True)
        optimizer = torch.optim.Adam([texels], lr=0.05)
        for _ in range(60):
            loss = (dr.sample_texture(make(texels), inside) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return make(texels).detach()

    def error(texture: Tensor) -> float:
        levels = torch.arange(4.0)[:, None].expand(4, len(uvs))
        values = [dr.sample_trilinear(dr.mip_pyramid(x), uvs.expand(4, -1, 2), levels) for x in (texture, truth)]
        return float((values[0] - values[1]).abs().mean())

    filled, plain = fitted(lambda texels: fill_texture(texels, mask)), fitted(lambda texels: texels)
    assert error(filled) < 0.01
    assert error(plain) > 5 * error(filled)


def test_covered_texels_are_those_of_the_uv_map() -> None:
    uvs = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])
    square = dr.Mesh(torch.rand(4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs=uvs)
    mask = covered_texels(square, (6, 8))
    assert mask[:, :4].all()
    assert not mask[:, 4:].any()


@pytest.mark.parametrize("mesh", [dr.cube(), dr.torus(), dr.unwrap(dr.sphere(1), 32)], ids=["cube", "torus", "ball"])
def test_seams_are_the_edges_whose_faces_have_other_uvs(mesh: dr.Mesh) -> None:
    assert mesh.uvs is not None
    assert mesh.uv_faces is not None
    places, uvs = (list(map(tuple, x.tolist())) for x in (mesh.vertices, mesh.uvs))
    sides: dict[tuple, list[tuple]] = {}
    for face, uv_face in zip(mesh.faces.tolist(), mesh.uv_faces.tolist(), strict=True):
        for i, j in ((0, 1), (1, 2), (2, 0)):
            ends = sorted((places[face[k]], uvs[uv_face[k]]) for k in (i, j))
            sides.setdefault(tuple(place for place, _ in ends), []).append(tuple(uv for _, uv in ends))
    expected = {frozenset(zip(*two, strict=True)) for two in sides.values() if two[0] != two[1]}
    expected |= {frozenset(zip(*reversed(two), strict=True)) for two in sides.values() if two[0] != two[1]}
    seams = uv_seams(mesh).tolist()
    found = {frozenset((tuple(a), tuple(b)) for a, b in zip(*two, strict=True)) for two in seams}
    found |= {frozenset((tuple(b), tuple(a)) for a, b in zip(*two, strict=True)) for two in seams}
    assert len(seams) > 0
    assert found == expected


def test_what_is_filled_in_continues_the_charts() -> None:
    """A painted giraffe, without what its painter left between the charts, has hardly larger jumps at the seams."""
    mesh = dr.load_mesh(Path(__file__).parents[2] / "assets" / "giraffe.glb")
    texture = mesh.materials[0].texture
    assert texture is not None
    texture = dr.mip_pyramid(texture, 2)[1]
    middles = uv_seams(mesh).mean(2)
    filled = fill_texture(texture, covered_texels(mesh, (512, 512)))
    jumps = [torch.subtract(*sample_texture(x, middles).unbind(1)).abs().mean() for x in (filled, texture)]
    assert jumps[0] < 1.25 * jumps[1] < 0.06


def test_textures_that_repeat_show_no_seam_where_they_do() -> None:
    seams, share = uv_seams(dr.torus()), torch.rand(72, 1, 1, generator=torch.Generator().manual_seed(0))
    texture = random(16, 16, 3).float()
    left, right = sample_texture(texture, torch.lerp(seams[:, :, 0], seams[:, :, 1], share)).unbind(1)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)  # uv of 1 in float32, 16 texels with slopes up to 1


def test_wrong_input_is_explained() -> None:
    with pytest.raises(ValueError, match=r"faces must be \(6, N, N, C\)"):
        sample_cubemap(torch.zeros(6, 2, 3, 1), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="even W"):
        sample_panorama(torch.zeros(2, 3, 1), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="directions must end in 3"):
        sample_panorama(torch.zeros(2, 4, 1), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="mask must be"):
        fill_texture(torch.zeros(2, 2, 1), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="at least one texel"):
        fill_texture(torch.zeros(2, 2, 1), torch.zeros(2, 2, dtype=torch.bool))
    bare = dr.torus().replace(uvs=None, uv_faces=None)
    for ask in (uv_seams, lambda mesh: covered_texels(mesh, (4, 4))):
        with pytest.raises(ValueError, match=r"mesh must have uvs.*dr.unwrap"):
            ask(bare)
