"""Image files to linear float tensors and back; the sRGB transfer functions stand here, at the border.

Images are `[H, W, C]`, channels last, row 0 on top, linear colour. Files of 8 or 16 bits hold sRGB and straight alpha:
colour is decoded on loading and encoded on saving, alpha is never touched. Colour profiles and EXIF rotation in files
are not applied: calibrated cameras know the pixels as they are stored.
"""

import errno
import importlib
import importlib.util
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..checks import check_finite, check_tensor, shape_of
from ..steady import power
from .files import atomic_path
from .radiance import load_radiance

# IEC 61966-2-1: below these values the curve is a line of slope 12.92
_LINEAR_KNEE = 0.0031308
_SRGB_KNEE = 0.04045

_READABLE = (".bmp", ".hdr", ".jpeg", ".jpg", ".npy", ".png", ".ppm", ".tif", ".tiff", ".webp")
_LINEAR = (".hdr", ".npy")
_WRITABLE = (".jpeg", ".jpg", ".npy", ".png")
_ANIMATED = (".gif", ".mp4")
_JPEG_QUALITY = 95  # differences of a few codes at most, no chroma subsampling
_PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # PNG specification, table 11.1: by number of channels


def encode_srgb(linear: Tensor) -> Tensor:
    """Linear colour to sRGB, both in [0, 1] (IEC 61966-2-1); differentiable, finite gradients everywhere.

    Values outside go on along the same curves: the line below 0, the power above 1.

    >>> encode_srgb(torch.tensor([0.0, 0.002, 0.5, 1.0]))
    tensor([0.0000, 0.0258, 0.7354, 1.0000])
    """
    check_tensor("linear", linear)
    curve = 1.055 * power(linear.clamp(min=_LINEAR_KNEE), 1 / 2.4) - 0.055  # clamped: no infinite slope at 0
    return torch.where(linear <= _LINEAR_KNEE, 12.92 * linear, curve)


def decode_srgb(srgb: Tensor) -> Tensor:
    """sRGB to linear colour: the inverse of `encode_srgb`.

    >>> decode_srgb(torch.tensor([0.0, 0.04, 0.5, 1.0]))
    tensor([0.0000, 0.0031, 0.2140, 1.0000])
    """
    check_tensor("srgb", srgb)
    curve = power((srgb.clamp(min=_SRGB_KNEE) + 0.055) / 1.055, 2.4)
    return torch.where(srgb <= _SRGB_KNEE, srgb / 12.92, curve)


def load_image(path: str | os.PathLike[str]) -> Tensor:
    """An image file as [H, W, 3], or [H, W, 4] where it has alpha: float32, linear colour, straight alpha.

    Grey becomes three equal channels. `.hdr` (Radiance) and `.npy` files hold linear values already, [H, W, 3] and
    [H, W] or [H, W, C], and come as they are.

    Raises FileNotFoundError where there is no such file, ValueError where it is truncated or no image.
    """
    path = Path(path)
    pixels = stored_pixels(path)
    return torch.from_numpy(pixels) if path.suffix.lower() in _LINEAR else to_linear(pixels)


def save_image(path: str | os.PathLike[str], image: Tensor, *, bits: int = 8) -> None:
    """Write an image: `.png` or `.jpg` (sRGB, clipped to [0, 1]) or `.npy` (the linear values as they are).

    Arguments:
        path: its suffix chooses the format; replaced in one step.
        image: [H, W] or [H, W, C], linear; C = 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha.
        bits: 8, or 16 for PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/red.png", torch.tensor([[[1.0, 0.0, 0.0]]]))
    ...     load_image(f"{folder}/red.png")
    tensor([[[1., 0., 0.]]])
    """
    path = Path(path)
    _check_suffix(path, _WRITABLE, "written")
    suffix = path.suffix.lower()
    check_tensor("image", image)
    if image.ndim not in (2, 3) or image.numel() == 0:
        raise ValueError(f"image must have shape (H, W) or (H, W, C), none of them 0; got {shape_of(image)}")
    if bits not in (8, 16) or (bits == 16 and suffix in (".jpg", ".jpeg")):
        raise ValueError(f"bits must be 8, or 16 for .png; got {bits} for {path.name}")
    if suffix == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, image.detach().cpu().numpy())
        return
    channels = 1 if image.ndim == 2 else image.shape[-1]
    allowed = (1, 3) if suffix in (".jpg", ".jpeg") else (1, 2, 3, 4)
    if channels == 2 and bits == 16:  # grey with alpha: Pillow would read no more than 8 bits of it
        image, channels = image[..., [0, 0, 0, 1]], 4
    if channels not in allowed:
        hint = "JPEG holds no alpha: save image[..., :3], or a .png" if channels in (2, 4) else "channels come last"
        raise ValueError(f"image must have {allowed} channels for {suffix}; got {shape_of(image)}: {hint}")
    pixels = to_pixels(image.reshape(*image.shape[:2], channels), bits=bits)
    with atomic_path(path) as temporary:
        if bits == 16:
            temporary.write_bytes(_png_16_bit(pixels))
        elif suffix == ".png":
            Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(temporary)
        else:
            grey_or_rgb = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)
            grey_or_rgb.save(temporary, quality=_JPEG_QUALITY, subsampling=0)


def save_animation(path: str | os.PathLike[str], frames: Tensor | Iterable[Tensor], fps: float = 20.0) -> None:
    """Write frames as an endless GIF (`.gif`) or as H.264 (`.mp4`, which needs the extra `diffrender[video]`).

    Arguments:
        path: its suffix chooses the format; replaced in one step.
        frames: [N, H, W, C] or as many [H, W, C], linear colour, all of one size; C = 3, or 4 whose alpha is left out.
            H.264 wants even sizes: an odd last row or column is repeated.
        fps: frames per second; GIF counts in hundredths of a second.
    """
    import imageio.v3 as iio  # slow to import, and of no use to anything else

    path = Path(path)
    _check_suffix(path, _ANIMATED, "written")
    if not fps > 0:
        raise ValueError(f"fps must be positive; got {fps}")
    movie = [_frame_pixels(i, frame) for i, frame in enumerate(frames)]
    if not movie:
        raise ValueError("frames must hold at least one image; got none")
    sizes = sorted({frame.shape[:2] for frame in movie})
    if len(sizes) > 1:
        raise ValueError(f"frames must all have one size (height, width); got {sizes}")
    if path.suffix.lower() == ".gif":
        # in memory first: imageio tries a file that finds no room once more when it is deleted, and fails aloud
        content = iio.imwrite("<bytes>", np.stack(movie), extension=".gif", duration=1000 / fps, loop=0)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        return
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ImportError(f"writing {path.name} needs ffmpeg: pip install 'diffrender[video]', or write a .gif")
    height, width = sizes[0]
    even = np.pad(np.stack(movie), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, even, plugin="FFMPEG", fps=fps, codec="libx264", quality=8, macro_block_size=2)
        _check_frames(temporary, len(even))


def stored_pixels(path: Path) -> np.ndarray:
    """[H, W, C] what an image file holds: sRGB as uint8 or uint16 (grey only), or linear values as float32."""
    _check_suffix(path, _READABLE, "read")
    if not path.is_file():
        raise FileNotFoundError(f"no such image file: {path}")
    match path.suffix.lower():
        case ".npy":
            return _load_npy(path)
        case ".hdr":
            return load_radiance(path)
        case _:
            return _read_pixels(path)


def unit_values(stored: np.ndarray) -> np.ndarray:
    """Stored values as numbers where 1 is full: integers by the largest of their type."""
    return stored.astype(np.float64) / (np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1.0)


def to_linear(pixels: np.ndarray) -> Tensor:
    """[H, W, C] stored values (8 or 16 bits sRGB, or linear float) to a linear float32 tensor with 3 or 4 channels."""
    if pixels.shape[-1] in (1, 2):  # grey, perhaps with alpha
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=-1)
    if pixels.dtype.kind == "f":
        return torch.from_numpy(pixels.astype(np.float32))
    full = np.iinfo(pixels.dtype).max
    codes = torch.arange(full + 1, dtype=torch.float64) / full
    decode = decode_srgb(codes).float().numpy()  # 256 or 65536 codes: looked up, faster than a power for each pixel
    colors, alpha = decode[pixels[..., :3]], codes.float().numpy()[pixels[..., 3:]]
    return torch.from_numpy(np.concatenate([colors, alpha], axis=-1))


def to_pixels(image: Tensor, *, bits: int = 8) -> np.ndarray:
    """[H, W, C] linear to stored sRGB values of 8 or 16 bits, clipped and rounded; a last channel 2 or 4 is alpha."""
    check_finite("image", image)
    image = image.detach().cpu().double()
    colors = image.shape[-1] - (image.shape[-1] + 1) % 2
    values = torch.cat([encode_srgb(image[..., :colors].clamp(0, 1)), image[..., colors:].clamp(0, 1)], dim=-1)
    return (values * (2**bits - 1)).round().numpy().astype(np.uint8 if bits == 8 else np.uint16)


def pixels_of(file: Image.Image) -> np.ndarray:
    """[H, W, C] of an image that Pillow has opened: uint8, uint16 (grey only) or float32."""
    if file.mode.startswith("I"):  # 16-bit grey; older versions of Pillow widen it to 32 bits
        grey = np.asarray(file)
        if grey.size and not (grey.min() >= 0 and grey.max() < 2**16):
            raise ValueError(f"its grey values, {grey.min()} to {grey.max()}, are no 16 bits: what would be white?")
        return grey.astype(np.uint16)[..., None]
    if file.mode in ("LA", "RGBA", "F") or (file.mode in ("L", "RGB") and not file.has_transparency_data):
        return _plane(file)
    return _plane(file.convert("RGBA" if file.has_transparency_data else "RGB"))


def _check_suffix(path: Path, supported: tuple[str, ...], what: str) -> None:
    if path.suffix.lower() not in supported:
        raise ValueError(f"{path}: only {', '.join(supported)} can be {what}; got the suffix {path.suffix!r}")


def _load_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an array, it may be truncated: {error}") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path} holds several arrays, it is a .npz: save the image alone")
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold numbers [H, W] or [H, W, C]; got {values.shape} {values.dtype}")
    values = values.astype(np.float32)
    return values[..., None] if values.ndim == 2 else values


def _read_pixels(path: Path) -> np.ndarray:
    """[H, W, C] of a file as stored: uint8, uint16 or float32."""
    try:
        with Image.open(path) as file:
            raw = file.tile[0][3] if file.tile else None
            if raw in ("RGB;16B", "RGBA;16B"):
                high = _plane(file)
                with Image.open(path) as again:
                    # Pillow keeps one byte of each 16: as big-endian numbers the high one, as little-endian the low one
                    again.tile = [(*tile[:3], raw.replace(";16B", ";16L")) for tile in again.tile]
                    return high.astype(np.uint16) * 256 + _plane(again)
            return pixels_of(file)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = "its contents are no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{path} cannot be read as an image, it may be truncated: {reason}") from error


def _plane(file: Image.Image) -> np.ndarray:
    values = np.asarray(file)
    return values[..., None] if values.ndim == 2 else values


def _check_frames(path: Path, expected: int) -> None:
    """Raise OSError unless a movie has so many frames: imageio does not say when ffmpeg fails, as on a full disk."""
    try:
        found, _ = importlib.import_module("imageio_ffmpeg").count_frames_and_secs(str(path))
    except (RuntimeError, OSError):  # ffmpeg finds no movie
        found = 0
    if found != expected:
        raise OSError(errno.EIO, f"ffmpeg has written {found} of {expected} frames; is the disk full?", str(path))


def _frame_pixels(index: int, frame: object) -> np.ndarray:
    check_tensor(f"frames[{index}]", frame, ndim=3)
    assert isinstance(frame, Tensor)
    if frame.shape[-1] not in (3, 4):
        raise ValueError(f"frames[{index}] must have 3 or 4 channels, last; got {shape_of(frame)}")
    return to_pixels(frame[..., :3])


def _png_16_bit(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG of 16 bits with 1, 3 or 4 channels; Pillow writes grey only."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOR_TYPES[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), level=6))
        + chunk(b"IEND", b"")
    )
