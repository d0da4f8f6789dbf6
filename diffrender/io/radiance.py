"""Radiance pictures (.hdr): linear colour with one exponent for each pixel, the format of most environment maps.

Ward 1991, "Real pixels", in Graphics Gems II: bytes r, g, b, e stand for (r, g, b) 2^(e - 136); rows are run-length
coded channel by channel, or plain.
"""

import re
from pathlib import Path

import numpy as np

_MAGIC = (b"#?RADIANCE", b"#?RGBE")
_EXPONENT_OF_ONE = 136  # 128, and 8 bits of the mantissa
_CODED_WIDTHS = range(8, 2**15)


def load_radiance(path: Path) -> np.ndarray:
    """[H, W, 3] float32 linear values, as they are stored: an exposure in the header is not undone."""
    data = path.read_bytes()
    header, _, rest = data.partition(b"\n\n")
    size, _, body = rest.partition(b"\n")
    if not data.startswith(_MAGIC) or re.search(rb"^FORMAT=(?!32-bit_rle_rgbe\s*$)", header, flags=re.MULTILINE):
        raise ValueError(f"{path} is no Radiance picture of r, g, b and exponent")
    found = re.fullmatch(rb"-Y ([1-9]\d{0,8}) \+X ([1-9]\d{0,8})\s*", size)
    if found is None:
        raise ValueError(f"{path} must say '-Y height +X width', rows from the top; got {size[:40]!r}")
    height, width = int(found[1]), int(found[2])
    try:
        bytes_of_pixels = _rows(body, height, width)
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a Radiance picture, it may be truncated: {error}") from None
    exponent = bytes_of_pixels[..., 3:].astype(np.int32) - _EXPONENT_OF_ONE
    return np.ldexp(bytes_of_pixels[..., :3].astype(np.float32), exponent)


def _rows(body: bytes, height: int, width: int) -> np.ndarray:
    """[H, W, 4] the bytes of all pixels."""
    rows, start = [], 0
    coded = bytes([2, 2, *divmod(width, 256)]) if width in _CODED_WIDTHS else None
    for _ in range(height):
        if coded is not None and body[start : start + 4] == coded:
            channels, start = _run_lengths(body, start + 4, width)
            rows.append(channels.T)
        else:
            plain = np.frombuffer(body, np.uint8, 4 * width, start).reshape(width, 4)
            if (plain[:, :3] == 1).all(-1).any():
                raise ValueError("runs in the code of before 1991 are not read")
            rows.append(plain)
            start += 4 * width
    return np.stack(rows)


def _run_lengths(body: bytes, start: int, width: int) -> tuple[np.ndarray, int]:
    """The four channels [4, W] of a row, and where the next one starts."""
    row = bytearray()
    for end in range(width, 4 * width + 1, width):
        while len(row) < end:
            count = body[start]
            if count > 128:  # so many times less 128 the same
                row += body[start + 1 : start + 2] * (count - 128)
                start += 2
            else:
                row += body[start + 1 : start + 1 + count]
                start += 1 + count
        if len(row) != end:
            raise ValueError(f"a row is longer than {width} pixels")
    return np.frombuffer(bytes(row), np.uint8).reshape(4, width), start
