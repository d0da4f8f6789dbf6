"""Image sets: what the files say against cameras known beforehand, and a clear word on everything that does not fit."""

import json
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from diffrender.cameras import OpenCVCamera, PinholeCamera, look_at, to_opengl_pose
from diffrender.io.datasets import load_dataset
from diffrender.io.image_set import ImageSet, area_average
from diffrender.io.images import decode_srgb
from diffrender.io.masks import alpha_mask, threshold_mask

SIZE = (24, 32)
EYES = [(3.0, 0.0, 0.0), (0.0, 3.0, 1.0), (-2.0, -2.0, 0.5)]


def poses():
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return [look_at(torch.tensor(eye, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), up=up) for eye in EYES]


def write_images(folder, names, size=SIZE, mode="RGBA"):
    for i, name in enumerate(names):
        pixels = np.zeros((*size, len(mode)), np.uint8)
        pixels[4:-4, 5 : 20 + i] = 200  # a bright rectangle, opaque to 200 / 255 where there is alpha
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def middlebury(tmp_path):
    lines = [str(len(EYES))]
    names = [f"box{i:04d}.png" for i in range(len(EYES))]
    for name, (R, t) in zip(names, poses(), strict=True):
        K = [40.0, 0, 15.5, 0, 42.0, 11.5, 0, 0, 1]
        lines.append(" ".join([name, *(repr(float(x)) for x in [*K, *R.flatten(), *t])]))
    (tmp_path / "box_par.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "README.txt").write_text("The (tight) bounding box for the box is\n(-1 -0.5 -2e-1)\n(1 0.5 0.25)\n")
    write_images(tmp_path, names, mode="RGB")
    return tmp_path


@pytest.fixture
def nerf(tmp_path):
    names = [f"train/r_{i}" for i in range(len(EYES))]
    frames = [
        {"file_path": f"./{name}", "transform_matrix": to_opengl_pose(R, t).tolist()}
        for name, (R, t) in zip(names, poses(), strict=True)
    ]
    content = {"camera_angle_x": 2 * math.atan(SIZE[1] / 2 / 40.0), "frames": frames}
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    write_images(tmp_path, [f"{name}.png" for name in names])
    return tmp_path


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_camera(actual, expected):
    assert type(actual) is type(expected)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    # float32 at pixel coordinates below 100: some 1e-5
    torch.testing.assert_close(actual.project(points), expected.project(points), atol=1e-4, rtol=1e-5)


def test_middlebury_cameras_have_their_pixel_centres_on_integers(middlebury):
    images = load_dataset(middlebury)
    assert images.names == ("box0000.png", "box0001.png", "box0002.png")
    for camera, (R, t) in zip(images.cameras, poses(), strict=True):
        # the middle of 32 x 24 pixels is (15.5, 11.5) there, (16, 12) here
        assert_same_camera(camera, PinholeCamera(40.0, 42.0, 16.0, 12.0, size=SIZE, R=R.float(), t=t.float()))


def test_middlebury_bounding_box_is_that_of_the_readme(middlebury):
    torch.testing.assert_close(load_dataset(middlebury).bounds, torch.tensor([[-1, -0.5, -0.2], [1, 0.5, 0.25]]))
    (middlebury / "README.txt").unlink()
    assert load_dataset(middlebury).bounds is None


def test_set_can_be_named_by_its_file(middlebury):
    assert len(load_dataset(middlebury / "box_par.txt")) == 3


def test_nerf_cameras_look_along_minus_z(nerf):
    images = load_dataset(nerf)
    for camera, (R, t) in zip(images.cameras, poses(), strict=True):
        assert_same_camera(camera, PinholeCamera(40.0, 40.0, 16.0, 12.0, size=SIZE, R=R.float(), t=t.float()))


def test_nerf_intrinsics_may_be_written_out(nerf):
    edit_json(nerf / "transforms_train.json", fl_x=50.0, fl_y=55.0, cx=15.0, cy=13.0, w=32, h=24)
    R, t = (x.float() for x in poses()[0])
    assert_same_camera(load_dataset(nerf).cameras[0], PinholeCamera(50.0, 55.0, 15.0, 13.0, size=SIZE, R=R, t=t))


def test_nerf_distortion_gives_an_opencv_camera(nerf):
    edit_json(nerf / "transforms_train.json", fl_x=50.0, k1=0.1, k2=-0.02, p1=0.003, p2=-0.001, k3=0.01)
    R, t = (x.float() for x in poses()[0])
    expected = OpenCVCamera(50.0, 50.0, 16.0, 12.0, dist=(0.1, -0.02, 0.003, -0.001, 0.01), size=SIZE, R=R, t=t)
    assert_same_camera(load_dataset(nerf).cameras[0], expected)


def test_mask_files_replace_alpha(nerf):
    content = json.loads((nerf / "transforms_train.json").read_text())
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/{i}.png"
        (nerf / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full(SIZE, 51 * i, np.uint8)).save(nerf / f"masks/{i}.png")
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    write_images(nerf, [f"train/r_{i}.png" for i in range(3)], mode="RGB")
    images = load_dataset(nerf)
    for i in range(3):
        torch.testing.assert_close(images.load(i)[1], torch.full(SIZE, 51 * i / 255))  # the stored values
    torch.testing.assert_close(images.select([2]).load(0)[1], torch.full(SIZE, 102 / 255))
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(nerf / "masks/0.png")
    with pytest.raises(ValueError, match=r"masks/0.png must have the size of its image, 32 x 24; got 4 x 3"):
        images.load(0)
    (nerf / "masks/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"do not exist, the first is .*masks/1.png"):
        load_dataset(nerf)


def test_a_transparent_entry_of_a_palette_is_alpha(nerf):
    """As programs that make PNG files small write them."""
    expected, mask = load_dataset(nerf).load(0)
    opaque = np.where(mask > 0, 255, 0).astype(np.uint8)
    for path in (nerf / "train").iterdir():
        Image.fromarray(np.where(opaque > 0, 1, 0).astype(np.uint8)).convert("P").save(path, transparency=0)
    image, found = load_dataset(nerf).load(0)
    assert torch.equal(found, (mask > 0).float())
    assert image.shape == expected.shape


def test_masks_of_some_frames_only_are_refused(nerf):
    content = json.loads((nerf / "transforms_train.json").read_text())
    content["frames"][0]["mask_path"] = "mask.png"
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"2 of 3 frames have no mask_path, others have: the first is .*frame 1"):
        load_dataset(nerf)


@pytest.mark.parametrize("angle", [0, 3.2, -1.0])
def test_angles_of_no_pinhole_are_refused(angle, nerf):
    edit_json(nerf / "transforms_train.json", camera_angle_x=angle)
    with pytest.raises(ValueError, match=r"frame 0: camera_angle_x must be between 0 and pi; got"):
        load_dataset(nerf)


@pytest.mark.parametrize("path", [None, "", 3])
def test_file_paths_that_name_nothing_are_refused(path, nerf):
    content = json.loads((nerf / "transforms_train.json").read_text())
    content["frames"][1]["file_path"] = path
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"frame 1: file_path must name an image; got"):
        load_dataset(nerf)


def test_images_of_nan_are_named(tmp_path):
    pixels = np.zeros((4, 5), np.float32)
    pixels[1:3, 2] = np.nan
    Image.fromarray(pixels).save(tmp_path / "hot.tif")
    camera = PinholeCamera(5.0, 5.0, 2.5, 2.0, size=(4, 5))
    images = ImageSet(("hot.tif",), (tmp_path / "hot.tif",), (camera,), (False,))
    with pytest.raises(ValueError, match=r"hot\.tif is NaN or infinite in 2 pixels"):
        images.load(0)


def test_frames_of_the_test_file_are_held_out(nerf):
    content = json.loads((nerf / "transforms_train.json").read_text())
    last = content["frames"].pop()
    (nerf / "transforms_test.json").write_text(json.dumps(content | {"frames": [last]}))
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    images = load_dataset(nerf)
    assert images.train.names == ("train/r_0.png", "train/r_1.png")
    assert images.test.names == ("train/r_2.png",)


def test_views_are_held_out_by_name_with_or_without_suffix(middlebury):
    images = load_dataset(middlebury, held_out=["box0002", "box0000.png"])
    assert images.held_out == (True, False, True)
    assert images.train.names == ("box0001.png",)
    torch.testing.assert_close(images.test.load(1)[0], images.load(2)[0])


def test_colour_is_linear_and_multiplied_by_alpha(nerf):
    image, mask = load_dataset(nerf).load(1)
    assert image.shape == (*SIZE, 3)
    alpha = 200 / 255
    expected = alpha * decode_srgb(torch.tensor(alpha))
    torch.testing.assert_close(image[10, 10], expected.expand(3))
    assert float(mask[10, 10]) == pytest.approx(alpha)
    assert not mask[:4].any()
    assert not image[:4].any()


def test_resized_images_and_cameras_belong_together(nerf):
    full, half = load_dataset(nerf), load_dataset(nerf).resized(0.5)
    images, masks, cameras = half.load_all()
    assert images.shape == (3, 12, 16, 3)
    assert cameras.size == (12, 16)
    image, mask = full.load(2)
    blocks = image.reshape(12, 2, 16, 2, 3).mean((1, 3))
    torch.testing.assert_close(images[2], blocks)
    torch.testing.assert_close(masks[2], mask.reshape(12, 2, 16, 2).mean((1, 3)))
    xy, _ = full.cameras[2].project(torch.zeros(3))
    torch.testing.assert_close(half.cameras[2].project(torch.zeros(3))[0], xy / 2)


@pytest.mark.parametrize("size", [(5, 7), (3, 3), (13, 20), (24, 1)])
def test_area_average_keeps_the_mean_for_any_size(size):
    image = torch.rand(24, 31, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(area_average(image, size).mean((0, 1)), image.mean((0, 1)))
    constant = torch.ones(24, 31, 1, dtype=torch.float64)
    torch.testing.assert_close(area_average(constant, size), torch.ones(*size, 1, dtype=torch.float64))


def test_threshold_mask_is_the_recipe_with_disks():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(90, 100, generator=generator, dtype=torch.float64)
    smooth = torch.from_numpy(scipy.ndimage.gaussian_filter(noise.numpy(), 6))
    srgb = ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 0.25)[..., None].expand(-1, -1, 3)
    y, x = np.mgrid[-10:11, -10:11]
    bright = np.pad((srgb[..., 0] > 0.19).numpy(), 20)
    dilated = scipy.ndimage.binary_dilation(bright, x**2 + y**2 <= 100)[20:-20, 20:-20]
    padded = np.pad(dilated, 20, mode="constant", constant_values=True)  # beyond the image nothing erodes
    eroded = scipy.ndimage.binary_erosion(padded, x**2 + y**2 <= 49)[20:-20, 20:-20]
    labels, count = scipy.ndimage.label(eroded)
    largest = labels == 1 + np.argmax([(labels == i + 1).sum() for i in range(count)])
    assert 0.1 < largest.mean() < 0.9
    np.testing.assert_array_equal(threshold_mask(decode_srgb(srgb)).numpy(), largest.astype(np.float32))


def test_threshold_mask_grows_by_three_pixels_and_stays_at_the_border():
    image = torch.zeros(60, 80, 3)
    image[20:40, 60:] = 1.0  # reaches the right side
    mask = threshold_mask(image)
    expected = torch.zeros(60, 80)
    expected[17:43, 57:] = 1
    # the corner is rounded: as a disk of radius 10 leaves it, eroded by one of 7
    assert (mask - expected).abs().sum() <= 2 * 9
    assert mask[17:43, -1].all()
    assert mask[30, 57:].all()
    assert not mask[30, :57].any()


def test_black_image_has_an_empty_mask():
    assert not threshold_mask(torch.zeros(30, 30, 3)).any()


def test_mask_of_an_image_without_alpha_is_refused():
    with pytest.raises(ValueError, match=r"must end in 4; got .* the image has no alpha"):
        alpha_mask(torch.zeros(4, 4, 3))


# --- what does not fit --------------------------------------------------------------------------------------------


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such image set: .*nowhere"):
        load_dataset(tmp_path / "nowhere")


def test_unknown_format_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"looked for \*_par.txt .* and transforms.json"):
        load_dataset(tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(middlebury):
    (middlebury / "box0001.png").unlink()
    (middlebury / "box0002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 3 images .* do not exist, the first is .*box0001.png"):
        load_dataset(middlebury)


def test_file_that_is_no_image_is_named(middlebury):
    (middlebury / "box0001.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"box0001.png cannot be read as an image"):
        load_dataset(middlebury)


def test_truncated_parameters_are_said(middlebury):
    text = (middlebury / "box_par.txt").read_text()
    (middlebury / "box_par.txt").write_text(text[: len(text) - 40])
    with pytest.raises(ValueError, match=r"promises 3 images and has 2 complete lines .* truncated"):
        load_dataset(middlebury)
    (middlebury / "box_par.txt").write_text("")
    with pytest.raises(ValueError, match="must start with the number of images; got nothing"):
        load_dataset(middlebury)


def test_number_that_is_none_is_said(middlebury):
    text = (middlebury / "box_par.txt").read_text()
    (middlebury / "box_par.txt").write_text(text.replace("42.0", "4z.0", 1))
    with pytest.raises(ValueError, match=r"box_par.txt, box0000.png: .*4z.0"):
        load_dataset(middlebury)


def test_pose_that_is_no_rotation_is_said(middlebury):
    text = (middlebury / "box_par.txt").read_text().splitlines()
    words = text[2].split()
    words[10] = "7.0"
    (middlebury / "box_par.txt").write_text("\n".join([*text[:2], " ".join(words), *text[3:]]))
    with pytest.raises(ValueError, match=r"box0001.png: R must be a rotation"):
        load_dataset(middlebury)


def test_skewed_calibration_is_refused(middlebury):
    text = (middlebury / "box_par.txt").read_text()
    (middlebury / "box_par.txt").write_text(text.replace("40.0 0.0", "40.0 0.5").replace("40.0 0 ", "40.0 0.5 "))
    with pytest.raises(ValueError, match=r"K must be \[\[fx, 0, cx\]"):
        load_dataset(middlebury)


def test_images_of_another_size_than_the_cameras_are_said(middlebury):
    write_images(middlebury, ["box0001.png"], size=(48, 64), mode="RGB")
    with pytest.raises(ValueError, match=r"images must all have one size, that of their cameras; got \[\(24, 32\)"):
        load_dataset(middlebury)
    write_images(middlebury, [f"box000{i}.png" for i in range(3)], size=(11, 14), mode="RGB")
    with pytest.raises(ValueError, match=r"the principal point \(16.0, 12.0\) is outside of the image, 14 x 11"):
        load_dataset(middlebury)


def test_camera_of_another_size_than_its_image_is_said(nerf):
    edit_json(nerf / "transforms_train.json", w=64, h=48)
    with pytest.raises(ValueError, match="frame 0: the camera is for 64 x 48 pixels, the image has 32 x 24"):
        load_dataset(nerf)


def test_views_of_one_name_are_refused(nerf):
    frames = json.loads((nerf / "transforms_train.json").read_text())["frames"]
    edit_json(nerf / "transforms_train.json", frames=[*frames, frames[1]])
    with pytest.raises(ValueError, match=r"speaks more than once of train/r_1.png"):
        load_dataset(nerf / "transforms_train.json")


def test_set_without_images_is_refused(nerf):
    edit_json(nerf / "transforms_train.json", frames=[])
    with pytest.raises(ValueError, match="speaks of no images"):
        load_dataset(nerf)


def test_set_without_alpha_is_refused(nerf):
    write_images(nerf, ["train/r_1.png"], mode="RGB")
    with pytest.raises(ValueError, match=r"r_1.png has no alpha channel to take the mask from; it has R, G, B"):
        load_dataset(nerf)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no valid JSON, it may be truncated"),
        ("[]", "must hold an object with a list of 'frames'"),
        ('{"frames": 3}', "must hold an object with a list of 'frames'"),
        ('{"frames": [{"file_path": "a"}]}', "frame 0 has no 'transform_matrix'"),
    ],
)
def test_broken_transforms_are_said(nerf, text, message):
    (nerf / "transforms_train.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset(nerf)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform_matrix": [[1, 2], [3, 4]]}, "transform_matrix must be 4 x 4 numbers"),
        ({"transform_matrix": "identity"}, "transform_matrix must be 4 x 4 numbers"),
        ({"camera_model": "FISHEYE624"}, "camera_model must be one of .*; got 'FISHEYE624'"),
        ({"k4": 0.1}, "k4 is no coefficient"),
        ({"camera_angle_x": None, "fl_x": "wide"}, "frame 0: fl_x must be a number; got 'wide'"),
    ],
)
def test_broken_frames_are_said(nerf, changes, message):
    content = json.loads((nerf / "transforms_train.json").read_text())
    content["frames"][0] |= changes
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_dataset(nerf)


def test_intrinsics_that_are_missing_are_said(nerf):
    content = json.loads((nerf / "transforms_train.json").read_text())
    del content["camera_angle_x"]
    (nerf / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="frame 0 has neither 'fl_x' nor 'camera_angle_x'"):
        load_dataset(nerf)


def test_held_out_views_that_do_not_exist_are_said(middlebury):
    with pytest.raises(ValueError, match=r"held_out names no views of the set: box7; there are box0000.png"):
        load_dataset(middlebury, held_out=["box7"])
    with pytest.raises(ValueError, match="held_out leaves no view to fit: all 3 are held out"):
        load_dataset(middlebury, held_out=["box0000", "box0001", "box0002"])


def test_scale_must_be_positive(middlebury):
    with pytest.raises(ValueError, match="scale must be positive and finite; got 0"):
        load_dataset(middlebury).resized(0)


# --- real data ----------------------------------------------------------------------------------------------------


def test_dinosaur_is_read(shared_data):
    images = load_dataset(shared_data / "middlebury_dino", held_out=["dinoSR0005.png", "dinoSR0012.png"])
    assert (len(images), len(images.train), len(images.test)) == (16, 14, 2)
    assert images.bounds is not None
    # the middle of the box is seen near the middle of the mask
    for i in (0, 4, 8):
        _, mask = images.load(i)
        xy, depth = images.cameras[i].project(images.bounds.mean(0))
        assert float(depth) > 0
        assert mask[int(xy[1]), int(xy[0])] == 1


def test_chair_is_read(shared_data):
    images = load_dataset(shared_data / "nerf_chair").resized(0.25)
    assert (len(images.train), len(images.test)) == (25, 8)
    assert float(images.cameras[0].fx) == pytest.approx(1111.111 / 4, rel=1e-5)
    _, mask = images.test.load(3)
    xy, _ = images.test.cameras[3].project(torch.zeros(3))
    assert mask[int(xy[1]), int(xy[0])] > 0.5
