import importlib.util
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from diffrender.io.images import decode_srgb, encode_srgb, load_image, save_animation, save_image


def iec_decode(value: float) -> float:
    """IEC 61966-2-1, as printed there."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def random_codes(height: int, width: int, channels: int, *, bits: int) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (height, width, channels)).astype(dtype)


def test_decode_is_the_standard_for_every_code() -> None:
    codes = torch.arange(256, dtype=torch.float64) / 255
    expected = torch.tensor([iec_decode(float(code)) for code in codes], dtype=torch.float64)
    assert torch.allclose(decode_srgb(codes), expected, rtol=1e-14, atol=0)  # the same formula, other rounding


def test_encode_inverts_decode() -> None:
    codes = torch.linspace(-0.5, 2.0, 4001, dtype=torch.float64)
    # the two lines of the standard miss each other by 3e-8 at the knee; elsewhere it is rounding
    assert torch.allclose(encode_srgb(decode_srgb(codes)), codes, atol=1e-6)


@pytest.mark.parametrize("function", [encode_srgb, decode_srgb])
def test_transfer_functions_have_the_right_and_finite_gradients(function: object) -> None:
    values = torch.tensor([-1.0, 0.0, 1e-9, 0.002, 0.02, 0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (values,))
    at_zero = torch.zeros(1, requires_grad=True)
    function(at_zero).sum().backward()  # type: ignore[operator]
    assert at_zero.grad is not None
    assert float(at_zero.grad) == pytest.approx(12.92 if function is encode_srgb else 1 / 12.92)


@pytest.mark.parametrize("width", [5, 300])  # rows of less than 8 pixels are not coded
def test_hdr_written_by_opencv_is_read_exactly(tmp_path: Path, width: int) -> None:
    values = np.random.default_rng(0).lognormal(0, 5, (7, width, 3)).astype(np.float32)
    values[2:4] = values[2, 0]  # runs
    values[4, 0] = 0.0
    assert cv2.imwrite(str(tmp_path / "a.hdr"), values)
    image = load_image(tmp_path / "a.hdr")
    assert image.dtype == torch.float32
    assert np.array_equal(image.numpy(), cv2.imread(str(tmp_path / "a.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1])
    # the largest channel has 8 bits, the others the same steps
    largest = values.max(-1, keepdims=True)
    assert (np.abs(image.numpy()[..., ::-1] - values) <= largest / 128).all()


def test_real_environment_maps_are_those_of_opencv(shared_data: Path) -> None:
    for name in ("city", "apartment"):
        image = load_image(shared_data / "hdri" / f"{name}.hdr")
        expected = cv2.imread(str(shared_data / "hdri" / f"{name}.hdr"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(image.numpy(), expected[..., ::-1])


def test_damaged_hdr_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    assert cv2.imwrite(str(path), np.random.default_rng(0).random((6, 40, 3)).astype(np.float32))
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) // 2, 60):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"a.hdr (cannot be read as a Radiance picture|must say)"):
            load_image(path)
    path.write_bytes(data.replace(b"-Y 6", b"+Y 6"))
    with pytest.raises(ValueError, match=r"a.hdr must say '-Y height \+X width', rows from the top; got b'\+Y 6"):
        load_image(path)
    for wrong in (b"P6\n", data.replace(b"rle_rgbe", b"rle_xyze")):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"a.hdr is no Radiance picture"):
            load_image(path)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_written_by_opencv_is_read_exactly(tmp_path: Path, channels: int, bits: int) -> None:
    codes = random_codes(5, 7, channels, bits=bits)
    bgr = codes[..., [2, 1, 0, 3][:channels]]
    assert cv2.imwrite(str(tmp_path / "a.png"), bgr)
    image = load_image(tmp_path / "a.png")
    values = torch.from_numpy(codes.astype(np.float64) / (2**bits - 1))
    assert image.dtype == torch.float32
    assert torch.equal(image[..., :3], decode_srgb(values[..., :3]).float())
    assert torch.equal(image[..., 3:], values[..., 3:].float())  # alpha is not decoded


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_is_read_exactly_by_opencv(tmp_path: Path, channels: int, bits: int) -> None:
    codes = random_codes(5, 7, channels, bits=bits)
    values = torch.from_numpy(codes.astype(np.float64) / (2**bits - 1))
    colors = 1 if channels == 1 else 3
    image = torch.cat([decode_srgb(values[..., :colors]), values[..., colors:]], dim=-1)
    save_image(tmp_path / "a.png", image, bits=bits)
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read is not None
    read = read[..., None] if channels == 1 else read[..., [2, 1, 0, 3][:channels]]
    assert read.dtype == codes.dtype
    assert np.array_equal(read, codes)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_comes_back(tmp_path: Path, channels: int, bits: int) -> None:
    image = torch.rand(4, 6, channels, generator=torch.Generator().manual_seed(0))
    save_image(tmp_path / "a.png", image, bits=bits)
    back = load_image(tmp_path / "a.png")
    assert back.shape == (4, 6, 3 if channels in (1, 3) else 4)
    expected = image if channels > 2 else torch.cat([image[..., :1]] * 3 + [image[..., 1:]], dim=-1)
    # half a code in sRGB, where the slope of decoding is at most 2.275 (at 1)
    assert float((back - expected).abs().max()) <= 2.275 * 0.5 / (2**bits - 1) + 1e-6


def test_grey_palette_and_bilevel_files_come_as_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8))
    for mode in ("L", "P", "1"):
        grey.convert(mode).save(tmp_path / f"{mode}.png")
        image = load_image(tmp_path / f"{mode}.png")
        assert image.shape == (1, 3, 3)
        assert image[0, 0].tolist() == [0.0] * 3
        assert image[0, 2].tolist() == [1.0] * 3
    cv2.imwrite(str(tmp_path / "grey16.png"), np.array([[0, 40000, 65535]], dtype=np.uint16))
    assert load_image(tmp_path / "grey16.png")[0, 1, 0].item() == pytest.approx(iec_decode(40000 / 65535), rel=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_colour_that_is_declared_transparent_has_alpha_zero(tmp_path: Path, mode: str) -> None:
    """The chunk tRNS of PNG."""
    stored = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert(mode)
    stored.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert load_image(tmp_path / "a.png")[..., 3].tolist() == [[0.0, 1.0]]


def test_numbers_of_more_than_16_bits_are_no_image(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], dtype=np.int32)).save(tmp_path / "whole.tif")
    assert load_image(tmp_path / "whole.tif")[0, :, 0].tolist() == [0.0, 1.0]
    Image.fromarray(np.array([[0, 65537]], dtype=np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(ValueError, match=r"large.tif .* its grey values, 0 to 65537, are no 16 bits"):
        load_image(tmp_path / "large.tif")


def test_jpeg_is_close_and_without_alpha(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 1, 64)
    image = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij") + (torch.full((64, 64), 0.5),), dim=-1)
    save_image(tmp_path / "a.jpg", image)
    # quality 95 quantizes the low frequencies, all there are here, in steps of 1 to 2 codes; clipping adds a few
    assert float((encode_srgb(load_image(tmp_path / "a.jpg")) - encode_srgb(image)).abs().max()) < 8 / 255
    with pytest.raises(ValueError, match=r"JPEG holds no alpha: save image\[..., :3\]"):
        save_image(tmp_path / "a.jpg", torch.zeros(2, 2, 4))


def test_npy_keeps_linear_values_of_any_size(tmp_path: Path) -> None:
    image = torch.tensor([[[-1.0, 0.5, 300.0]]])
    save_image(tmp_path / "a.npy", image)
    assert torch.equal(load_image(tmp_path / "a.npy"), image)


def test_values_outside_are_clipped(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", torch.tensor([[[-1.0, 0.0, 7.0]]], requires_grad=True))
    assert load_image(tmp_path / "a.png").tolist() == [[[0.0, 0.0, 1.0]]]


@pytest.mark.parametrize(
    ("name", "image", "error", "message"),
    [
        (
            "a.exr",
            torch.zeros(2, 2, 3),
            ValueError,
            r"only .jpeg, .jpg, .npy, .png can be written; got the suffix '.exr'",
        ),
        ("a.png", torch.zeros(3, 2, 2, 3), ValueError, r"image must have shape .*; got \(3, 2, 2, 3\)"),
        ("a.png", torch.zeros(3, 8, 8), ValueError, r"got \(3, 8, 8\) float32: channels come last"),
        ("a.png", torch.zeros(2, 0, 3), ValueError, "none of them 0"),
        ("a.png", torch.zeros(2, 2, 3, dtype=torch.uint8), TypeError, "image must be floating point"),
        ("a.png", torch.full((2, 2, 3), torch.nan), ValueError, "image holds 12 values that are NaN"),
    ],
)
def test_bad_images_are_named_and_not_written(
    tmp_path: Path, name: str, image: torch.Tensor, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        save_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*gone.png"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"gone.exr: only .bmp, .* can be read; got the suffix '.exr'"):
        load_image(tmp_path / "gone.exr")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text.png cannot be read as an image, .*: its contents are no image"):
        load_image(tmp_path / "text.png")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"text.npy cannot be read as an array"):
        load_image(tmp_path / "text.npy")
    np.savez(tmp_path / "two.npz", np.zeros((2, 2)), np.zeros((2, 2)))
    (tmp_path / "two.npz").rename(tmp_path / "two.npy")
    with pytest.raises(ValueError, match=r"two.npy holds several arrays"):
        load_image(tmp_path / "two.npy")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_images_are_errors(tmp_path: Path, share: float, bits: int) -> None:
    save_image(tmp_path / "a.png", torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0)), bits=bits)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"a.png cannot be read as an image, it may be truncated"):
        load_image(tmp_path / "a.png")


def frames(height: int, width: int) -> torch.Tensor:
    """Red, green, blue."""
    return torch.eye(3)[:, None, None, :].expand(3, height, width, 3)


def test_gif_holds_every_frame_at_its_pace(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.gif", frames(5, 7), fps=10)
    with Image.open(tmp_path / "a.gif") as file:
        assert (file.n_frames, file.size, file.info["duration"], file.info["loop"]) == (3, (7, 5), 100, 0)
        for index in range(3):
            file.seek(index)
            assert file.convert("RGB").getpixel((3, 2)) == tuple(255 * (np.arange(3) == index))
    assert len(list(tmp_path.iterdir())) == 1


def test_mp4_holds_every_frame_also_of_odd_size(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra diffrender[video]")
    save_animation(tmp_path / "a.mp4", list(frames(33, 47)), fps=10)
    movie = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert movie.get(cv2.CAP_PROP_FPS) == 10
    read = [movie.read()[1] for _ in range(3)]
    assert not movie.read()[0]
    movie.release()
    assert [frame.shape for frame in read] == [(34, 48, 3)] * 3
    assert [int(frame[16, 16].argmax()) for frame in read] == [2, 1, 0]  # OpenCV has blue first


def test_mp4_without_ffmpeg_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'diffrender\[video\]', or write a .gif"):
        save_animation(tmp_path / "a.mp4", frames(4, 4))


@pytest.mark.parametrize(
    ("name", "movie", "message"),
    [
        ("a.avi", frames(2, 2), "only .gif, .mp4 can be written"),
        ("a.gif", [], "frames must hold at least one image"),
        (
            "a.gif",
            [torch.zeros(2, 2, 3), torch.zeros(2, 3, 3)],
            r"one size \(height, width\); got \[\(2, 2\), \(2, 3\)\]",
        ),
        ("a.gif", [torch.zeros(3, 4, 5)], r"frames\[0\] must have 3 or 4 channels, last; got \(3, 4, 5\)"),
    ],
)
def test_bad_animations_are_named(tmp_path: Path, name: str, movie: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_animation(tmp_path / name, movie)  # type: ignore[arg-type]


def test_real_photographs_and_textures_open(shared_data: Path) -> None:
    photo = shared_data / "middlebury_dino" / "dinoSR0005.png"
    texture = shared_data / "spot" / "cow_texture.png"
    for path in (photo, texture):
        if not path.is_file():
            pytest.skip(f"needs {path}")
    assert load_image(photo).shape == (480, 640, 3)
    bgr = cv2.imread(str(texture))
    assert bgr is not None
    values = torch.from_numpy(bgr[..., ::-1].astype(np.float64) / 255)
    assert torch.equal(load_image(texture)[..., :3], decode_srgb(values).float())


def limited(size: int, path: Path) -> None:
    """Write an animation while files may hold `size` bytes only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        save_animation(path, torch.rand(5, 64, 64, 3, generator=torch.Generator().manual_seed(0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_an_animation_that_finds_no_room_is_an_error_and_no_file(name, tmp_path):
    with pytest.raises(OSError, match=rf"(File too large|ffmpeg has written \d of 5 frames).*{name}"):
        limited(2000, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
