"""The optics between mesh and photograph: what they do to ideal pictures, and to cameras."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from diffrender.cameras import (
    Camera,
    FisheyeCamera,
    OpenCVCamera,
    PinholeCamera,
    ThinPrismFisheyeCamera,
    UnifiedCamera,
    so3_exp,
    stack_cameras,
)
from diffrender.fit.model import RIM_KNOTS, RIM_START, RIM_WIDTH, Optics, take_pictures
from diffrender.mesh import Material, Mesh


def half_plane(size=200):
    """A picture of a white half-plane that covers the right half of the columns."""
    picture = torch.zeros(1, size, size, 4)
    picture[:, :, size // 2 :] = 1.0
    return picture


def test_ideal_optics_change_nothing():
    picture = torch.rand(2, 20, 30, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Optics.ideal().darken(picture), picture)
    camera = PinholeCamera(30.0, 30.0, 15.0, 10.0, size=(20, 30))
    shifted = Optics.ideal().shifted(camera)
    assert (float(shifted.cx), float(shifted.cy)) == (15.0, 10.0)


def test_rim_is_the_profile_at_the_blurred_coverage_of_an_edge():
    optics = replace(Optics.ideal(), rim=torch.linspace(0, 1, RIM_KNOTS)[:-1])
    row = optics.darken(half_plane())[0, 100, 100:, 0]
    sigma = RIM_WIDTH * 200
    # pixel k of the white side lies k + 1/2 from the edge; the blurred step there is the normal distribution, up to the
    # kernel's sampling on whole pixels at a sigma of one pixel (3 % at worst) and its end at three sigma (0.3 %)
    distance = torch.arange(100) + 0.5
    coverage = 0.5 * (1 + torch.erf(distance / sigma / math.sqrt(2)))
    expected = (coverage - RIM_START) / (1 - RIM_START)
    torch.testing.assert_close(row, expected.to(row), rtol=0, atol=0.03)
    assert float(row[0]) < 0.6
    assert float(row[-1]) > 1 - 1e-5  # the weights of the blur sum to one, up to rounding


def test_alpha_is_not_darkened():
    optics = replace(Optics.ideal(), rim=torch.zeros(RIM_KNOTS - 1))
    picture = half_plane()
    assert torch.equal(optics.darken(picture)[..., 3], picture[..., 3])


def test_rim_is_differentiable_to_picture_and_profile():
    rim = torch.linspace(0.1, 1, RIM_KNOTS - 1, dtype=torch.float64).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 5, 4, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda rim, p: replace(Optics.ideal(), rim=rim).darken(p), (rim, picture))


def test_center_moves_the_principal_point_by_a_share_of_the_longest_side():
    optics = replace(Optics.ideal(), center=torch.tensor([0.1, -0.01]))
    camera = optics.shifted(PinholeCamera(30.0, 30.0, 15.0, 10.0, size=(20, 30)))
    torch.testing.assert_close(torch.stack([camera.cx, camera.cy]), torch.tensor([18.0, 9.7]))


@pytest.mark.parametrize("lens", [OpenCVCamera, FisheyeCamera, ThinPrismFisheyeCamera, partial(UnifiedCamera, xi=0.7)])
def test_focal_lengths_and_radial_distortion_are_those_of_the_lens_and_what_is_added(lens):
    ideal = lens(30.0, 40.0, 15.0, 10.0, size=(20, 30))
    optics = replace(Optics.ideal(), focal=torch.tensor([1.1, 0.9]).log(), distortion=torch.tensor([-0.1, 0.02]))
    found, true = optics.shifted(ideal), lens(33.0, 36.0, 15.0, 10.0, size=(20, 30))
    name = "k" if lens is FisheyeCamera else "dist"
    coefficients = torch.zeros_like(getattr(true, name))
    coefficients[0], coefficients[1] = -0.1, 0.02
    point = torch.tensor([[0.4, -0.3, 2.0]])
    expected = true.replace(**{name: coefficients}).project(point)[0]
    torch.testing.assert_close(found.project(point)[0], expected)
    assert float((expected - ideal.project(point)[0]).norm()) > 0.1


def test_lenses_without_distortion_have_none_to_change():
    camera = PinholeCamera(30.0, 40.0, 15.0, 10.0, size=(20, 30))
    assert type(replace(Optics.ideal(), distortion=torch.ones(2)).shifted(camera)) is PinholeCamera


def test_cameras_without_a_principal_point_stay_as_they_are():
    class Plain(Camera):
        def to_pixels(self, points):
            return points[..., :2]

    camera = Plain(size=(4, 4))
    assert Optics.ideal().shifted(camera) is camera


def test_only_the_differences_of_gains_count():
    optics = replace(Optics.ideal(2), gains=torch.tensor([[0.3, 0.1, 0.0], [0.1, 0.1, 0.4]]))
    picture = torch.full((1, 2, 3, 4), 0.5)
    exposed = optics.expose(picture, torch.tensor([1]))
    expected = 0.5 * torch.tensor([-0.1, 0.0, 0.2]).exp()  # the logarithms less their means
    torch.testing.assert_close(exposed[0, 0, 0, :3], expected)
    assert torch.equal(exposed[..., 3], picture[..., 3])


def test_poses_are_turned_in_the_frame_of_the_camera_and_then_shifted():
    turns, shifts = torch.tensor([[0.0, 0, 0], [0.1, -0.2, 0.05]]), torch.tensor([[0.0, 0, 0], [0.01, 0.0, -0.02]])
    optics = replace(Optics.ideal(2), turns=turns, shifts=shifts)
    camera = PinholeCamera(30.0, 30.0, 15.0, 10.0, size=(20, 30), R=so3_exp(torch.tensor([0.3, 0.2, 1.0])), t=(0, 3, 4))
    moved = optics.moved(stack_cameras([camera, camera]), torch.tensor([0, 1]))
    assert torch.equal(moved.R[0], camera.R)
    assert torch.equal(moved.t[0], camera.t)
    torch.testing.assert_close(moved.R[1], so3_exp(turns[1]) @ camera.R)
    torch.testing.assert_close(moved.t[1], so3_exp(turns[1]) @ camera.t + 5 * shifts[1])  # the origin is 5 away


def test_more_samples_show_the_mean_of_texels_that_are_finer_than_pixels():
    texture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    points = torch.nn.functional.pad(corners - 0.5, (0, 1), value=1.0)
    mesh = Mesh(points, faces, uvs=corners, uv_faces=faces, materials=(Material("fine", texture=texture),))
    camera = stack_cameras([PinholeCamera(16.0, 16.0, 8.0, 8.0, size=(16, 16))])  # 4 x 4 texels in each pixel
    means = texture.flip(0).unflatten(1, (16, 4)).unflatten(0, (16, 4)).mean((1, 3))
    off = [
        float((take_pictures(mesh, Optics.ideal(), camera, samples=n)[0, ..., :3] - means).square().mean().sqrt())
        for n in (1, 2, 4)
    ]
    assert off[0] > 0.1
    assert off[1] < 0.5 * off[0]
    assert off[2] < 1e-5
