"""Mip pyramids, trilinear and anisotropic lookups, and footprints, against means over pixels and differences."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

import diffrender as dr
from diffrender.filtered import FilteredTexture
from diffrender.fragments import Fragments, fragments_along, interpolate
from diffrender.kernels import filter_pyramid_reference
from diffrender.sampling import (
    MAX_PROBES,
    mip_pyramid,
    pixel_centers,
    sample_anisotropic,
    sample_texture,
    sample_trilinear,
    uv_footprints,
)
from diffrender.sampling.sample import Padding
from diffrender.scene import pack


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_levels_are_means_and_keep_the_mean() -> None:
    image = random(8, 16, 2)
    pyramid = mip_pyramid(image)
    assert [tuple(x.shape[:2]) for x in pyramid] == [(8, 16), (4, 8), (2, 4), (1, 2), (1, 1)]
    torch.testing.assert_close(pyramid[2][1, 3], image[4:8, 12:16].mean((0, 1)), rtol=1e-14, atol=0)
    torch.testing.assert_close(pyramid[-1][0, 0], image.mean((0, 1)), rtol=1e-14, atol=0)
    assert [tuple(x.shape) for x in mip_pyramid(random(3, 2, 5, 7, 1), levels=2)] == [(3, 2, 5, 7, 1), (3, 2, 2, 3, 1)]


def test_whole_levels_are_bilinear_lookups_and_others_lie_between() -> None:
    pyramid, uv = mip_pyramid(random(8, 8, 3)), 3 * random(20, 2, seed=1) - 1
    low, high = (sample_texture(pyramid[i], uv) for i in (1, 2))
    for level, expected in ((1.0, low), (1.25, 0.75 * low + 0.25 * high), (-3.0, sample_texture(pyramid[0], uv))):
        found = sample_trilinear(pyramid, uv, torch.full((20,), level, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    beyond = sample_trilinear(pyramid, uv, torch.full((20,), 99.0, dtype=torch.float64))
    torch.testing.assert_close(beyond, pyramid[-1][0].expand(20, 3), rtol=0, atol=1e-14)


def footprints(count: int, seed: int = 0) -> Tensor:
    """Jacobians for a texture of 16 x 16: from a tenth of a texel to most of the texture, up to 20 times as long."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(count, 4, dtype=torch.float64, generator=generator)
    angles, length, width = 6.3 * values[:, :2], 10 ** (values[:, 2] * 2 - 1), 20 ** -values[:, 3]
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).unflatten(-1, (2, 2))
    scales = torch.diag_embed(torch.stack([length, length * width], -1))
    return turns[:, 0] @ scales @ turns[:, 1] / 16


@pytest.mark.parametrize(
    ("borders", "channels"),
    [(("wrap", "mirror"), 3), (("zeros", "clamp"), 4), (("reflect", "zeros"), 6), (("clamp", "wrap"), 1)],
)
@pytest.mark.parametrize("kind", ["levels", "footprints"])
def test_kernels_equal_the_plain_torch_reference(kind: str, borders: tuple[Padding, Padding], channels: int) -> None:
    uv = 3 * random(200, 2, seed=1) - 1
    spread = 6 * random(200, seed=2) - 1 if kind == "levels" else footprints(200)
    uv[0, 0], uv[1, 1], uv[2] = torch.nan, 1e30, -torch.inf
    spread[3:5] = torch.nan
    inputs = [x.requires_grad_() for x in (uv, spread, *mip_pyramid(random(16, 12, channels)))]
    upstream = random(200, channels, seed=3)

    def values(uv: Tensor, spread: Tensor, *pyramid: Tensor) -> Tensor:
        if kind == "levels":
            return sample_trilinear(pyramid, uv, spread, padding=borders)
        return sample_anisotropic(pyramid, uv, spread, padding=borders)

    found = values(*inputs)
    expected = filter_pyramid_reference(inputs[2:], uv, spread, borders, MAX_PROBES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)  # some tens of addends of order 1
    of_kernels, of_reference = (torch.autograd.grad(x, inputs, upstream) for x in (found, expected))
    for ours, theirs in zip(of_kernels, of_reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)  # slopes are those of 16 texels


def test_single_precision_is_double_precision_rounded() -> None:
    uv, spread, pyramid = random(500, 2), footprints(500), mip_pyramid(random(16, 16, 3))
    single = sample_anisotropic([x.float() for x in pyramid], uv.float(), spread.float())
    # Coordinates up to 16 texels are off by 1e-6, the ends of boxes by about as much; slopes are at most 1 a texel.
    torch.testing.assert_close(single.double(), sample_anisotropic(pyramid, uv, spread), rtol=0, atol=2e-5)


def test_same_bits_for_any_number_of_threads() -> None:
    """Enough points for three threads, on an image that all of them add to."""
    pyramid = [x.float() for x in mip_pyramid(random(32, 32, 3))]
    uv, spread = random(20_000, 2).float(), footprints(20_000).float()
    upstream, before, results = random(20_000, 3, seed=4).float(), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            inputs = [x.clone().requires_grad_() for x in (uv, spread, *pyramid)]
            found = sample_anisotropic(inputs[2:], *inputs[:2])
            results.append((found, *torch.autograd.grad(found, inputs, upstream)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


def test_first_and_second_derivatives_match_differences() -> None:
    """Off the kinks: no probe at the middle of a texel, no box with a whole number of probes."""
    pyramid, uv = mip_pyramid(random(8, 8, 2)), 0.01 + random(6, 2, seed=5)
    level = 0.2 + 0.3 * random(6, seed=2)
    spread = torch.tensor([[0.61, 0.1], [0.2, 0.17]]).double() + 0.02 * random(6, 2, 2, seed=3)  # 3 to 9 probes
    for sample, how in ((sample_trilinear, level), (sample_anisotropic, spread), (sample_anisotropic, 2 * spread)):
        inputs = [x.clone().requires_grad_() for x in (uv, how, *pyramid[:3])]
        function = partial(lambda sample, u, s, *p: sample(p, u, s), sample)
        assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-6)
        assert torch.autograd.gradgradcheck(function, inputs, eps=1e-7, atol=1e-4, fast_mode=True)


def test_values_do_not_jump_where_probes_are_added_or_levels_change() -> None:
    pyramid = mip_pyramid(random(16, 16, 1))
    steps = torch.linspace(1.0, 12.0, 4001).double()  # past the nine probes, where boxes begin to be blurred
    along = torch.tensor([[0.8, 0.3], [0.6, -0.4]]).double()
    for width in (1.0, 2.0):
        scales = torch.diag_embed(torch.stack([width * steps, torch.full_like(steps, width)], -1))
        values = sample_anisotropic(pyramid, torch.full((4001, 2), 0.37).double(), along @ scales / 16)
        # A texel's worth of value for a texel's length, the most that an end of the box can pass in a step.
        assert values.diff(dim=0).abs().max() < width * steps.diff().max()


def test_box_is_the_mean_of_the_texture_in_it() -> None:
    """Exact where it begins and ends at middles of texels or between two of them: there is a kink at each middle."""
    texture = random(16, 16, 3)
    uv = torch.tensor([[6 / 16, 1 - 3.5 / 16]], dtype=torch.float64)  # between texels 5 and 6 of row 3
    footprint = torch.tensor([[[4 / 16, 0.0], [0.0, 1 / 16]]], dtype=torch.float64)
    found = sample_anisotropic(mip_pyramid(texture), uv, footprint)
    weights = torch.tensor([1, 7, 8, 8, 7, 1]).double() / 32  # integrals of bilinear's hats from 4 to 8
    torch.testing.assert_close(found[0], weights @ texture[3, 3:9], rtol=0, atol=1e-12)  # sqrt(s^2 + eps^2)


def pixel_means(texture: Tensor, uv: Tensor, footprint: Tensor, side: int = 48) -> Tensor:
    """Brute force: the mean of bilinear lookups at side x side points of each pixel."""
    offsets = (pixel_centers((side, side), uv) / side - 0.5).reshape(-1, 2)
    return sample_texture(texture, uv[:, None] + offsets @ footprint.mT).mean(1)


def test_anisotropic_is_near_the_mean_over_the_pixel_and_trilinear_is_not() -> None:
    texture, uv = random(128, 128, 1), random(300, 2, seed=1)
    angle = 6.3 * random(300, seed=2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    footprint = turn @ torch.diag(torch.tensor([12.0, 2.0]).double() / 128)  # rectangles of 12 x 2 texels
    truth = pixel_means(texture, uv, footprint)
    pyramid = mip_pyramid(texture)

    def error(values: Tensor) -> float:
        return (values - truth).square().mean().sqrt().item()

    ours = error(sample_anisotropic(pyramid, uv, footprint))
    wide, narrow = (error(sample_trilinear(pyramid, uv, torch.full((300,), math.log2(w)).double())) for w in (12, 2))
    point = error(sample_texture(texture, uv))
    # White noise, of standard deviation 0.29, is the hardest case: a box and a mip map differ in what they let through.
    assert ours < 0.03
    assert 2 * ours < min(narrow, point)
    assert ours < wide


@pytest.mark.parametrize("name", ["pinhole", "fisheye", "orthographic"])
def test_footprints_are_differences_of_uv_between_pixels(name: str) -> None:
    R, t = dr.look_at((0.3, 1.0, 2.5))
    options = {"size": (32, 32), "R": R, "t": t}
    camera = {
        "pinhole": lambda: dr.PinholeCamera(40, 42, 16, 16, **options),
        "fisheye": lambda: dr.FisheyeCamera(40, 42, 16, 16, (0.1, 0.02, 0.0, 0.0), **options),
        "orthographic": lambda: dr.OrthographicCamera(12, 12, 16, 16, **options),
    }[name]().to(dtype=torch.float64)
    mesh = dr.torus().to(dtype=torch.float64)
    scene, face = pack(mesh, camera), dr.visibility(mesh, camera).reshape(-1)
    covered = (face >= 0).nonzero().squeeze(-1)
    view, xy = torch.zeros_like(covered), pixel_centers((32, 32), mesh.vertices).reshape(-1, 2)[covered]

    def along(xy: Tensor) -> Fragments:
        return fragments_along(scene, view, xy, face[covered].long(), *scene.rays_at(view, xy))

    found, step = uv_footprints(scene, along(xy)), 1e-5
    inside = (along(xy).barycentrics > 1e-3).all(-1)  # of the others a neighbour may be clamped
    for axis in range(2):
        offset = step * torch.eye(2).double()[axis]
        above, below = (interpolate(mesh.uvs, mesh.uv_faces, along(xy + s * offset)) for s in (1, -1))
        # second order in the step, and 1e-16 / 1e-5 of rounding; faces seen edge-on change fastest
        torch.testing.assert_close(found[inside, :, axis], ((above - below) / (2 * step))[inside], rtol=1e-4, atol=1e-6)


def test_filtered_texture_renders_what_many_samples_do() -> None:
    R, t = dr.look_at((0.0, 0.6, 2.0))
    camera = dr.PinholeCamera(30, 30, 16, 16, size=(32, 32), R=R, t=t)
    texture = random(256, 256, 3).float().requires_grad_()
    mesh = dr.torus().replace(materials=(dr.Material(texture=texture),))
    truth = dr.render(mesh, camera, samples=8)[..., :3]
    plain, filtered = (dr.render(mesh, camera, shader=s)[..., :3] for s in (None, FilteredTexture(camera)))
    errors = [(image - truth).abs().mean().item() for image in (plain, filtered)]
    assert errors[1] < 0.4 * errors[0]
    assert torch.autograd.grad(filtered.sum(), texture)[0].isfinite().all()


def test_filtered_texture_takes_a_list_of_meshes_and_refuses_finer_pixels() -> None:
    camera = dr.PinholeCamera(60, 60, 16, 16, size=(32, 32), t=(0.0, 0.0, 3.0))
    meshes = [
        mesh.replace(materials=(dr.Material(texture=random(64, 64, 3).float()),)) for mesh in (dr.torus(), dr.sphere())
    ]
    alone = torch.stack([dr.render(mesh, camera, shader=FilteredTexture(camera)) for mesh in meshes])
    both = dr.stack_cameras([camera, camera])
    torch.testing.assert_close(dr.render(meshes, camera, shader=FilteredTexture(camera)), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(dr.render(meshes, both, shader=FilteredTexture(both)), alone, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="camera must be the one that renders, with samples=1"):
        dr.render(meshes[0], camera, shader=FilteredTexture(camera), samples=2)


def test_degenerate_footprints_have_finite_values_and_gradients() -> None:
    footprint = torch.zeros(4, 2, 2)
    footprint[1, 0, 0], footprint[2], footprint[3, 0, 1] = torch.nan, 0.3 * torch.eye(2), 1e30
    footprint.requires_grad_()
    uv = torch.full((4, 2), 0.4, requires_grad=True)
    values = sample_anisotropic(mip_pyramid(torch.rand(8, 8, 1)), uv, footprint)
    values.sum().backward()
    assert values.isfinite().all()
    assert footprint.grad is not None
    assert footprint.grad.isfinite().all()
    assert sample_anisotropic(mip_pyramid(torch.rand(8, 8, 1)), uv[:0], footprint[:0]).shape == (0, 1)


def test_halves_are_computed_with_in_single_precision() -> None:
    texture, uv = torch.rand(8, 8, 3).half().requires_grad_(), torch.rand(20, 2).half()
    footprint = 0.3 * torch.randn(20, 2, 2).half()
    values = sample_anisotropic(mip_pyramid(texture), uv, footprint)
    wide = [level.detach().float() for level in mip_pyramid(texture)]
    assert torch.equal(values, sample_anisotropic(wide, uv.float(), footprint.float()).half())
    values.sum().backward()
    assert texture.grad is not None
    assert texture.grad.dtype == torch.float16


def test_one_texel_is_its_own_mean() -> None:
    pyramid, uv = mip_pyramid(torch.full((1, 1, 3), 0.25)), 4 * torch.rand(20, 2) - 2
    for values in (
        sample_trilinear(pyramid, uv, torch.linspace(-1, 3, 20)),
        sample_anisotropic(pyramid, uv, torch.randn(20, 2, 2)),
    ):
        torch.testing.assert_close(values, torch.full((20, 3), 0.25), rtol=0, atol=1e-6)  # weights of nine probes


def test_wrong_input_is_explained() -> None:
    texture, uv = torch.zeros(4, 4, 3), torch.zeros(5, 2)
    with pytest.raises(TypeError, match="mip_pyramid"):
        sample_trilinear(texture, uv, torch.zeros(5))
    with pytest.raises(ValueError, match=r"level must be \(5,\) for uv"):
        sample_trilinear(mip_pyramid(texture), uv, torch.zeros(5, 1))
    with pytest.raises(ValueError, match=r"footprint must be \(5, 2, 2\)"):
        sample_anisotropic(mip_pyramid(texture), uv, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="at least one pixel"):
        mip_pyramid(texture[:0])
    with pytest.raises(TypeError, match="level must be floating point"):
        sample_trilinear(mip_pyramid(texture), uv, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="level must be on the device of uv"):
        sample_trilinear(mip_pyramid(texture), uv, torch.zeros(5, device="meta"))
    with pytest.raises(ValueError, match=r"max_probes must be odd, .* got 8"):
        sample_anisotropic(mip_pyramid(texture), uv, torch.zeros(5, 2, 2), max_probes=8)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (torch.zeros(2, 2), "must have 3 dimensions"),
        (torch.zeros(2, 2, 4), "must end in 3"),
        (torch.zeros(0, 2, 3), "must have pixels, and"),
        (torch.zeros(2, 2, 3).double(), "must have pixels, and type and device"),
        (torch.zeros(2, 2, 3, device="meta"), "must have pixels, and type and device"),
    ],
)
def test_images_of_a_pyramid_must_fit_together(second: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=rf"pyramid\[1\] {message}"):
        sample_trilinear([torch.zeros(4, 4, 3), second], torch.zeros(5, 2), torch.zeros(5))
