"""Visual hulls of shapes whose silhouettes are known in closed form, and of the dinosaur's photographs."""

import cv2
import numpy as np
import pytest
import torch
import trimesh

from diffrender.cameras import OrthographicCamera, PinholeCamera, look_at, orbit_poses, stack_cameras
from diffrender.hull import object_bounds, visual_hull
from diffrender.io.datasets import load_dataset
from diffrender.mesh import join
from diffrender.primitives import cube, sphere
from diffrender.render import render

BOUNDS = torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])


def views_around(count=20, distance=5.0, size=(96, 120), focal=150.0):
    """Pinhole cameras evenly around the origin (a Fibonacci sphere), looking at it."""
    k = torch.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, k * np.pi * (3 - 5**0.5)
    directions = torch.stack([(1 - z**2).sqrt() * turn.cos(), (1 - z**2).sqrt() * turn.sin(), z], dim=-1)
    cameras = []
    for direction in directions:
        R, t = look_at(distance * direction, torch.zeros(3), up=torch.tensor([0.0, 0.1, 1.0]))
        cameras.append(PinholeCamera(focal, focal, size[1] / 2, size[0] / 2, size=size, R=R, t=t))
    return cameras


def ball_mask(camera, radius=1.0, center=(0.0, 0.0, 0.0)):
    """1 where the ray of the pixel's centre meets the ball."""
    origins, directions = camera.rays(camera.pixel_centers())
    offset = torch.tensor(center) - origins
    along = (offset * directions).sum(-1, keepdim=True) / directions.square().sum(-1, keepdim=True)
    return ((offset - along * directions).norm(dim=-1) <= radius).float()


def volume(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).volume


def test_hull_of_a_ball_contains_it_and_little_more():
    cameras = views_around()
    hull = visual_hull([ball_mask(c) for c in cameras], cameras, BOUNDS, resolution=48)
    radius = hull.vertices.norm(dim=-1)
    # a pixel spans 5 / 150 = 0.033 at the centre and a cell 0.0625; outlines of pixels are half a pixel uncertain, and
    # a vertex averages within its cell
    assert radius.min() > 1 - 0.03
    # between neighbours of 20 tangent cones, about 0.45 rad from the nearest: 1 / cos - 1 = 11 %, rarely 25 %
    assert radius.max() < 1.3
    assert 0.98 < volume(hull) / (4 / 3 * np.pi) < 1.1
    assert (hull.topology.edge_count == 2).all()


def test_three_views_along_the_axes_carve_a_box_exactly():
    half = torch.tensor([0.9, 0.6, 0.3])
    cameras, masks = [], []
    for axis in range(3):
        eye = 4.0 * torch.eye(3)[axis]
        R, t = look_at(eye, torch.zeros(3), up=torch.eye(3)[(axis + 1) % 3])
        # 20 pixels per unit: edges of the box lie on edges of pixels
        cameras.append(OrthographicCamera(20.0, 20.0, 32.0, 24.0, size=(48, 64), R=R, t=t))
        origins, _ = cameras[-1].rays(cameras[-1].pixel_centers())
        across = [k for k in range(3) if k != axis]
        masks.append((origins[..., across].abs() < half[across]).all(-1).float())
    hull = visual_hull(masks, cameras, BOUNDS, resolution=60)
    # distances in the image are exact beside straight edges; near the box's edges a vertex is an average of its cell
    torch.testing.assert_close(hull.bounds(), torch.stack([-half, half]), atol=0.01, rtol=0)
    assert volume(hull) == pytest.approx(float(8 * half.prod()), rel=0.03)


def test_batch_of_cameras_and_list_give_the_same():
    cameras = views_around(6)
    masks = torch.stack([ball_mask(c) for c in cameras])
    first = visual_hull(masks, stack_cameras(cameras), BOUNDS, resolution=20)
    second = visual_hull(list(masks), cameras, BOUNDS, resolution=20)
    assert torch.equal(first.vertices, second.vertices)


def test_object_cut_off_by_the_image_is_not_cut_off_in_the_hull():
    cameras = views_around()
    cameras[3] = cameras[3].crop(0, 0, 96, 60)  # half of the ball is beyond the right side
    hull = visual_hull([ball_mask(c) for c in cameras], cameras, BOUNDS, resolution=40)
    assert hull.vertices.norm(dim=-1).min() > 1 - 0.04
    assert volume(hull) / (4 / 3 * np.pi) < 1.15


def test_side_of_the_image_that_the_mask_does_not_touch_ends_the_hull():
    camera = views_around(1)[0]
    small = camera.crop(24, 30, 48, 60)
    mask = ball_mask(small, radius=0.5)
    assert not any(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    hull = visual_hull([mask], [small], BOUNDS, resolution=30)
    xy, _ = small.project(hull.vertices)
    assert (xy >= 0).all()
    assert (xy <= torch.tensor([60, 48])).all()


def test_camera_says_nothing_about_what_is_behind_it():
    cameras = views_around(12)
    masks = [ball_mask(c) for c in cameras]
    R, t = look_at(torch.tensor([0.0, 0.0, 1.4]), torch.tensor([0.0, 0.0, 9.0]), up=torch.tensor([0.0, 1.0, 0.0]))
    away = PinholeCamera(150.0, 150.0, 60.0, 48.0, size=(96, 120), R=R, t=t)
    expected = visual_hull(masks, cameras, BOUNDS / 1.2, resolution=24)
    actual = visual_hull([*masks, torch.zeros(96, 120)], [*cameras, away], BOUNDS / 1.2, resolution=24)
    assert torch.equal(actual.vertices, expected.vertices)


def test_only_the_largest_part_is_kept():
    cameras = views_around()
    masks = [torch.maximum(ball_mask(c, 0.6), ball_mask(c, 0.2, (0.0, 0.0, 1.2))) for c in cameras]
    hull = visual_hull(masks, cameras, BOUNDS, resolution=40)
    assert hull.vertices.norm(dim=-1).max() < 0.8


def test_hull_ends_at_the_bounds():
    cameras = views_around(4)
    bounds = torch.tensor([[-0.5, -0.4, -0.3], [0.5, 0.4, 0.33]])
    hull = visual_hull([ball_mask(c) for c in cameras], cameras, bounds, resolution=20)
    torch.testing.assert_close(hull.bounds(), bounds, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_hull_does_not_depend_on_the_unit_of_length(factor):
    cameras = views_around(6)
    masks = [ball_mask(c) for c in cameras]
    scaled = [c.replace(t=factor * c.t) for c in cameras]
    hull = visual_hull(masks, scaled, factor * BOUNDS, resolution=20)
    expected = visual_hull(masks, cameras, BOUNDS, resolution=20)
    # float32 positions of order one, through a division by the focal length
    torch.testing.assert_close(hull.vertices / factor, expected.vertices, atol=1e-3, rtol=0)


def test_bounds_are_found_from_the_masks():
    cameras = views_around()
    center = torch.tensor([0.3, -0.2, 0.1])
    bounds = object_bounds([ball_mask(c, 0.7, tuple(center.tolist())) for c in cameras], cameras)
    assert (bounds[0] < center - 0.7 + 0.03).all()
    assert (bounds[1] > center + 0.7 - 0.03).all()
    # the hull's own excess, at most 30 % here, and a margin of about a twentieth
    assert ((bounds - center).abs() < 0.7 * 1.4).all()


def test_no_mask_at_all_is_said():
    cameras = views_around(3)
    masks = [ball_mask(c) for c in cameras]
    with pytest.raises(ValueError, match=r"masks\[1\] is empty"):
        object_bounds([masks[0], torch.zeros_like(masks[0]), masks[2]], cameras)
    with pytest.raises(ValueError, match="masks leave no point of the box"):
        visual_hull([masks[0], torch.zeros_like(masks[0]), masks[2]], cameras, BOUNDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": []}, "masks and cameras must be as many, at least one; got 0 and 3"),
        (
            {"masks": [torch.zeros(96, 120)] * 2 + [torch.zeros(120, 96)]},
            r"masks\[2\] must have the size of its camera",
        ),
        ({"bounds": torch.zeros(2, 3)}, "bounds must be .* with some volume"),
        ({"bounds": torch.zeros(3, 2)}, "bounds must end in 3"),
        ({"resolution": 1}, "resolution must be at least 2 cells; got 1"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    cameras = views_around(3)
    arguments = {"masks": [ball_mask(c) for c in cameras], "cameras": cameras, "bounds": BOUNDS, "resolution": 8}
    with pytest.raises(ValueError, match=message):
        visual_hull(**(arguments | changes))


def filled_silhouette(mesh, camera):
    """[H, W] pixels whose centre a face covers, drawn by OpenCV face by face, at four times the resolution."""
    xy, _ = camera.project(mesh.vertices)
    fine = 4
    image = np.zeros([n * fine for n in camera.size], np.uint8)
    corners = (xy[mesh.faces] * fine - 0.5).mul(256).round().to(torch.int32).numpy()  # 8 fractional bits
    for triangle in corners:
        cv2.fillConvexPoly(image, triangle, 1, shift=8)
    height, width = camera.size
    return image.reshape(height, fine, width, fine).mean((1, 3)) >= 0.5


def test_drawing_of_the_oracle_is_that_of_a_disk():
    camera = OrthographicCamera(20.0, 20.0, 32.0, 24.0, size=(48, 64), t=(0, 0, 4.0))
    area = filled_silhouette(sphere(4), camera).sum()
    assert area == pytest.approx(np.pi * 400, rel=0.02)


def test_hull_of_the_dinosaur_fits_all_its_silhouettes(shared_data):
    images = load_dataset(shared_data / "middlebury_dino")
    masks = [images.load(i)[1] for i in range(len(images))]
    assert images.bounds is not None
    hull = visual_hull(masks, images.cameras, images.bounds, resolution=100)
    assert (hull.topology.edge_count == 2).all()
    for i in (4, 11):
        drawn, mask = filled_silhouette(hull, images.cameras[i]), masks[i].numpy() > 0.5
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.96  # what the data's description says of a 100^3 hull


def test_bounds_hold_a_thin_part_that_the_coarse_grid_cannot_see() -> None:
    stick = cube()
    stick = stick.replace(vertices=stick.vertices * torch.tensor([0.7, 0.015, 0.015]) + torch.tensor([0.9, 0.31, 0.17]))
    body = sphere(3)
    object_ = join([body.replace(vertices=0.5 * body.vertices), stick])
    R, t = orbit_poses(8, distance=5.0, elevation=25.0)
    cameras = PinholeCamera(360.0, 360.0, 128.0, 128.0, size=(256, 256), R=R, t=t)
    masks = render(object_, cameras)[..., 3]
    low, high = object_bounds(masks, cameras)
    pixel = 5.0 / 360.0  # in space, at the object's distance; masks cut at half coverage lose less
    assert (low <= object_.bounds()[0] + pixel).all()
    assert (high >= object_.bounds()[1] - pixel).all()
