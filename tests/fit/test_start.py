"""Where a fit starts, and what it says about masks and cameras that do not go together."""

import shutil
from dataclasses import replace

import pytest
import torch

from diffrender.cameras import PinholeCamera, look_at
from diffrender.fit.quality import mesh_quality
from diffrender.fit.run import fit
from diffrender.fit.settings import FitSettings
from diffrender.fit.start import agreement, start_mesh
from diffrender.fit.trainer import Trainer
from diffrender.fit.views import Views
from diffrender.io.datasets import load_dataset
from diffrender.io.image_set import ImageSet
from diffrender.io.images import load_image, save_image
from diffrender.io.masks import alpha_mask
from diffrender.primitives import sphere, torus
from diffrender.render import render

SETTINGS = FitSettings(image_sizes=(32,), mesh_cells=24)
AROUND_X = torch.tensor([1.0, -1.0, -1.0])
AROUND_Z = torch.tensor([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def images(small_set):
    return load_dataset(small_set).train


def with_cameras(images, change):
    return replace(images, cameras=tuple(camera.replace(**change(camera.R, camera.t)) for camera in images.cameras))


def test_the_hull_of_right_cameras_agrees_with_the_masks(images):
    views = Views(images)
    mesh, doubts = start_mesh(images, SETTINGS)
    assert doubts == []
    assert agreement(mesh, [v.silhouette for v in views], [v.camera for v in views]) > 0.9


MIX_UPS = {
    "axes y and z of the cameras were turned around": lambda R, t: {"R": AROUND_X[:, None] * R, "t": AROUND_X * t},
    "images were upside down": lambda R, t: {"R": AROUND_Z[:, None] * R, "t": AROUND_Z * t},
    "poses were inverted (": lambda R, t: {"R": R.T.contiguous(), "t": -R.T @ t},
    "poses were inverted, and the axes": lambda R, t: {"R": R.T * AROUND_X, "t": -R.T @ t},
}


@pytest.mark.parametrize("mistake", MIX_UPS)
def test_a_usual_mix_up_of_poses_is_named(mistake, images):
    with pytest.raises(ValueError, match=r"masks and cameras do not go together.* IoU of 0\.\d\d") as caught:
        start_mesh(with_cameras(images, MIX_UPS[mistake]), SETTINGS)
    assert f"if the {mistake}" in str(caught.value)


def test_poses_that_no_usual_mix_up_explains_are_said_to_be_so(images):
    away = torch.tensor([[k % 3 - 1.0, k % 2 - 0.5, 0.0] for k in range(len(images))])  # each looks elsewhere
    cameras = tuple(c.replace(t=c.t + 3 * x) for c, x in zip(images.cameras, away, strict=True))
    with pytest.raises(ValueError, match="cameras and images do not belong together"):
        start_mesh(replace(images, cameras=cameras), SETTINGS)


@pytest.mark.parametrize("factor", [1000.0, 0.001])
@pytest.mark.parametrize("start", ["hull", "sphere"])
def test_bounds_in_another_unit_are_named(factor, start, images):
    low, high = torch.tensor([[-0.8, -1.0, -0.6], [1.4, 0.6, 0.8]])
    middle = (low + high) / 2
    scaled = replace(images, bounds=torch.stack([middle + factor * (low - middle), middle + factor * (high - middle)]))
    with pytest.raises(ValueError, match=r"times as large.*different units \(m and mm differ by 1000\)"):
        start_mesh(scaled, replace(SETTINGS, start=start))


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_a_scene_in_another_unit_is_the_same_scene(factor, images):
    scaled = with_cameras(images, lambda R, t: {"R": R, "t": factor * t})
    here, there = (start_mesh(which, SETTINGS) for which in (images, scaled))
    assert (here[1], there[1]) == ([], [])
    # the surface is found by signs and interpolation in cells: the same to rounding, which is far below a cell
    torch.testing.assert_close(there[0].bounds() / factor, here[0].bounds(), rtol=0, atol=1e-3)
    losses = [Trainer(which, replace(SETTINGS, steps=2)).step().loss for which in (images, scaled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_focal_lengths_that_are_not_in_pixels_are_named(factor, images):
    cameras = tuple(c.replace(fx=factor * c.fx, fy=factor * c.fy) for c in images.cameras[1:])
    odd = replace(images, cameras=(images.cameras[0], *cameras))
    with pytest.raises(
        ValueError, match=r"the cameras of 7 of the 8 views have impossible focal lengths, that of 1\.png"
    ):
        start_mesh(odd, SETTINGS)


@pytest.mark.parametrize("view", [0, 3, 7])
@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_a_camera_in_another_unit_is_named(factor, view, images):
    cameras = list(images.cameras)
    cameras[view] = cameras[view].replace(t=factor * cameras[view].t)
    with pytest.raises(ValueError, match=rf"go together with the others: {view}\.png .* another unit"):
        start_mesh(replace(images, cameras=tuple(cameras)), SETTINGS)


def test_a_camera_in_another_unit_is_named_among_many(images):
    many = [i for i in range(8) for _ in range(4)]  # one of 32 hardly moves their mean
    cameras = [images.cameras[i] for i in many]
    cameras[13] = cameras[13].replace(t=1000 * cameras[13].t)
    names = tuple(f"{k}.png" for k in range(32))
    with pytest.raises(ValueError, match=r"1 of the 32 views do not go together with the others: 13\.png"):
        start_mesh(replace(images.select(many), names=names, cameras=tuple(cameras)), SETTINGS)


def test_half_of_the_cameras_in_another_unit_are_said_to_be_so(images):
    cameras = tuple(c.replace(t=c.t * (1000 if k % 2 else 1)) for k, c in enumerate(images.cameras))
    with pytest.raises(ValueError, match=r"The camera of \d\.png is .* away .* another unit"):
        start_mesh(replace(images, cameras=cameras), SETTINGS)


def test_held_out_cameras_in_another_unit_are_doubted(small_set, tmp_path):
    right, settings = load_dataset(small_set), replace(SETTINGS, steps=1, turntable_frames=0)
    units = [1000 if held else 1 for held in right.held_out]
    cameras = tuple(c.replace(t=unit * c.t) for c, unit in zip(right.cameras, units, strict=True))
    notes = [
        " ".join(fit(images, tmp_path / name, settings, progress=False).notes)
        for name, images in (("right", right), ("wrong", replace(right, cameras=cameras)))
    ]
    assert "held out" not in notes[0]
    assert "1 of the 1 views held out see something else" in notes[1]


def test_bounds_of_another_place_are_named(images):
    with pytest.raises(ValueError, match="another place"):
        start_mesh(replace(images, bounds=torch.tensor([[8.0, 8.0, 8.0], [10.0, 10.0, 10.0]])), SETTINGS)


def test_bounds_that_fit_are_used(images):
    bounds = torch.tensor([[-0.8, -1.0, -0.6], [1.4, 0.6, 0.8]])
    mesh, _ = start_mesh(replace(images, bounds=bounds), replace(SETTINGS, start="sphere"))
    # an icosphere reaches its box only where it has vertices; 2 % of margin on each side
    torch.testing.assert_close(mesh.bounds(), bounds, rtol=0, atol=0.1)


def test_empty_masks_are_named_and_full_ones_refused(images):
    def without_two(image):
        mask = alpha_mask(image)
        return mask * 0 if float(mask.sum()) in darkest else mask

    darkest = {float(images.load(k)[1].sum()) for k in (1, 4)}
    with pytest.raises(ValueError, match=r"empty in 2 of the 8 views \(1\.png, 4\.png\)"):
        start_mesh(replace(images, segment=without_two), SETTINGS)
    with pytest.raises(ValueError, match="masks of all 8 views cover the whole image"):
        start_mesh(replace(images, segment=lambda image: torch.ones(image.shape[:2])), SETTINGS)


@pytest.fixture
def repainted(small_set, tmp_path):
    """Writes the image set with other masks: those of the views in `which` inverted."""

    def write(which):
        shutil.copytree(small_set, tmp_path, dirs_exist_ok=True)
        for k in which:
            picture = load_image(tmp_path / f"{k}.png")
            save_image(tmp_path / f"{k}.png", torch.cat([picture[..., :3], 1 - picture[..., 3:]], dim=-1))
        return load_dataset(tmp_path).train

    return write


def test_inverted_masks_are_said_to_be_that(repainted):
    with pytest.raises(ValueError, match="the masks are inverted"):
        start_mesh(repainted(range(8)), SETTINGS)


def test_a_single_inverted_mask_is_named(repainted):
    with pytest.raises(
        ValueError, match=r"1 of the 8 views do not go together with the others: 3\.png \(IoU 0\.\d\d\)"
    ):
        start_mesh(repainted([3]), SETTINGS)


def test_what_no_usual_mistake_explains_is_doubted(images):
    cameras = list(images.cameras)
    cameras[2], cameras[5] = cameras[5], cameras[2]
    _, doubts = start_mesh(replace(images, cameras=tuple(cameras)), SETTINGS)
    assert ["cameras, or masks, are probably wrong" in doubt for doubt in doubts] == [True]


def test_images_without_cameras_are_said_to_be_that(small_set, tmp_path):
    for k in range(3):
        shutil.copy(small_set / f"{k}.png", tmp_path)
    with pytest.raises(ValueError, match=r"no image set of a known format.*holds 3 images without cameras: COLMAP"):
        load_dataset(tmp_path)


@pytest.fixture(scope="module")
def ring_images(tmp_path_factory):
    """A ring from 14 sides."""
    folder, ring = tmp_path_factory.mktemp("ring"), torus(minor_radius=0.3)
    paths, cameras = [], []
    for k, eye in enumerate(torch.nn.functional.normalize(sphere(1).vertices[::3], dim=-1)):
        R, t = look_at(4 * eye, torch.zeros(3), up=torch.tensor([0.1, 1.0, 0.2]))
        cameras.append(PinholeCamera(60.0, 60.0, 24.0, 24.0, size=(48, 48), R=R, t=t))
        paths.append(folder / f"{k}.png")
        save_image(paths[-1], render(ring, cameras[-1], samples=2).clamp(0, 1))
    names, held_out = tuple(path.name for path in paths), (False,) * len(paths)
    return ImageSet(names, tuple(paths), tuple(cameras), held_out)


def fitted(images, settings):
    trainer = Trainer(images, settings)
    while not trainer.done:
        trainer.step()
    return trainer.mesh()


def test_an_object_with_a_hole_keeps_it(ring_images):
    """The hull has the handle that silhouettes show, and neither the fit nor the remeshing loses it."""
    settings = FitSettings(steps=20, image_sizes=(24, 48), mesh_cells=32)
    assert mesh_quality(start_mesh(ring_images, settings)[0])["euler"] == 0
    mesh = fitted(ring_images, settings)
    found = mesh_quality(mesh)
    assert (found["euler"], found["closed"]) == (0, True)
    masks = [ring_images.load(k)[1] for k in range(len(ring_images))]
    # the ring is 8 pixels thick where it is seen from the front: a tenth of a pixel on both sides is 0.025
    assert agreement(mesh, masks, ring_images.cameras) > 0.93


@pytest.mark.parametrize(("topology", "euler"), [("fixed", 2), ("free", 0)])
def test_a_sphere_gets_the_hole_that_silhouettes_show_if_its_topology_is_free(topology, euler, ring_images):
    settings = FitSettings(steps=30, image_sizes=(24, 48), mesh_cells=32, start="sphere", topology=topology)
    mesh = fitted(ring_images, settings)
    assert mesh_quality(mesh)["euler"] == euler
    assert mesh.vertex_colors is not None
    assert mesh.topology.closed


def test_driven_edges_are_shorter_in_some_places_and_the_surface_stays_closed(ring_images):
    """Of one length, within the band that remeshing leaves, if they are even; of many if they are driven."""
    settings = FitSettings(steps=12, image_sizes=(24, 48), mesh_cells=32)
    found = [mesh_quality(fitted(ring_images, replace(settings, edges=edges))) for edges in ("even", "driven")]
    (short, _, long), (shorter, _, longer) = (figures["edge_length"] for figures in found)
    assert longer / shorter > 1.2 * long / short
    assert (found[1]["euler"], found[1]["closed"]) == (0, True)
