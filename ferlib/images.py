"""One image file to one uint8 array, or one clear reason why not. It needs no torch.

What is read, what is converted and what is refused:

=====================================  ==============================================================
file                                   what happens
=====================================  ==============================================================
8-bit gray or RGB PNG, JPEG, BMP, WebP read as it is
palette, 1-bit                         converted (through the palette's colors)
alpha channel or transparent color     laid over white, as a picture viewer shows it
16-bit gray                            converted: value / 257, rounded (the full 16-bit range is meant)
CMYK JPEG                              converted to RGB (Pillow's plain conversion, no color profile)
color file where gray is asked for     converted: luminance 0.299 R + 0.587 G + 0.114 B
camera rotation note (EXIF)            obeyed
a phone's JPEG with a second picture   its first picture is read; so is one with other bytes behind its end
several frames                         refused: which face is meant is not known
floats, 32-bit integers                refused: their range is not known
other formats, text, broken header     refused
empty, truncated or damaged            refused; never filled up with gray or black
cut, and closed with an end marker     refused, although a decoder makes a picture of it
partly overwritten with zeros          refused where that shows: not in a BMP, not where the picture is flat
more than 40 million pixels            refused before it is decoded
folder, pipe, missing, unreadable      refused
=====================================  ==============================================================

"Refused" is a :class:`DataError` whose message starts with the file's path. Chapter 1 shows it.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ferlib.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
#: Formats that are not read, by the bytes at the start of a file.
OTHERS = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"ftypavif": "an AVIF",
    b"ftypheic": "a HEIC",
    b"ftypheix": "a HEIC",
    b"ftypmif1": "a HEIC",
    b"JXL \r\n\x87\n": "a JPEG XL",
    b"jP  \r\n\x87\n": "a JPEG 2000",
}
MAX_PIXELS = 40_000_000
TOO_LARGE = f"too large: at most {MAX_PIXELS:,} pixels are read"
_CONVERTED = {"L", "RGB", "1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_ORIENTATION = 0x0112
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}


def read_image(path: str | os.PathLike[str], *, mode: str = "L", size: int | None = None) -> np.ndarray:
    """Decode one image file by the rules of this module's table. Chapter 1.

    Args:
        path: The file.
        mode: ``"L"`` (gray) or ``"RGB"``.
        size: Side in pixels to resize to (center square first, then antialiased bicubic); ``None``: as it is.

    Returns:
        uint8 (C, H, W), C = 1 for ``"L"``, 3 for ``"RGB"``.

    Raises:
        DataError: The file cannot be used; the message says what is wrong with it.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what is refused or mended here
            if path.is_fifo():  # opening one waits for a writer
                raise DataError("a pipe stands where an image is expected")
            return _decode(path, mode, size)
    except DataError as error:
        reason = error.reason
    except FileNotFoundError:
        reason = "the file is not there"
    except IsADirectoryError:
        reason = "a folder stands where an image is expected"
    except PermissionError:
        reason = "the file may not be read; change its permissions"
    except UnidentifiedImageError:
        reason = _what(path)
    except Image.DecompressionBombError:
        reason = TOO_LARGE
    except MemoryError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged bytes: all mean the same to a reader
        reason = f"damaged image ({error})"
    raise DataError(reason, path)


def _what(path: Path) -> str:
    """What a file is that none of the formats is in."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return "the file is empty"
    kind = OTHERS.get(start[:4]) or OTHERS.get(start[4:12])
    other = f"not an image of the formats {', '.join(FORMATS)}"
    return (
        f"{other} but {kind}: save it as PNG or JPEG"
        if kind
        else f"not an image ({', '.join(FORMATS)} are read)"
    )


def _decode(path: Path, mode: str, size: int | None) -> np.ndarray:
    if mode not in ("L", "RGB"):
        raise DataError(f"color mode {mode!r}; choose 'L' or 'RGB'")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(TOO_LARGE)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{image.n_frames} frames; expected one picture: save the frame that is meant")
        image.load()
        if _incomplete(path.read_bytes(), image):
            raise DataError("damaged image (a part of it is missing)")
        flat = _flatten(image, mode)
        if image.getexif().get(_ORIENTATION, 1) != 1:
            flat = _flatten(ImageOps.exif_transpose(image), mode)
    if size is not None:
        flat = center_square(flat, size)
    return to_planes(np.array(flat))


def _incomplete(data: bytes, image: Image.Image) -> bool:
    """Whether pixels are missing that the decoder filled in: files cut short, or partly zeros, as broken
    downloads and disks leave them.
    """
    if image.format == "PNG":
        return not _inflates(data)
    if image.format == "BMP":
        return False
    end = 8 + int.from_bytes(data[4:8], "little")  # of a WebP
    if image.format != "WEBP":
        if not (end := _jpeg_end(data)):
            return True
        # bits behind the last block are not read: others change the picture only where blocks are missing
        with Image.open(BytesIO(data[:end] + b"\x55" * 64 + b"\xff\xd9"), formats=("JPEG",)) as padded:
            if padded.tobytes() != image.tobytes():
                return True
    # a byte of zeros holds less than one block of 8 x 8 pixels, unless the blocks are flat
    zeros = max(map(len, re.findall(rb"\0{16,}", data[:end])), default=0)
    if image.format == "WEBP":  # a decoder makes flat blocks of zeros, as large ones of a black picture hold
        return zeros > 16 + image.width * image.height // 8192
    gray = np.asarray(image.convert("L"))
    rows, columns = (side // 8 for side in gray.shape)
    blocks = gray[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8)
    return zeros > (np.ptp(blocks, (1, 3)) < 2).sum()


def _inflates(data: bytes) -> bool:
    """Whether the pixels of a PNG are all there."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    depth, color, interlaced = data[24], data[25], data[28]
    needed = width * height * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] // 8 + height * (not interlaced)
    stream, at = zlib.decompressobj(), 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            needed -= len(stream.decompress(data[at + 8 : at + 8 + length]))
        at += 12 + length
    return stream.eof and needed <= 0


def _jpeg_end(data: bytes) -> int:
    """Where the end marker of a JPEG's first picture is, behind its segments and scans; 0 where none is."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xD9:
            return at
        if marker == 0xFF:
            at += 1
        elif marker <= 1 or 0xD0 <= marker <= 0xD7:  # bytes of a scan, restarts
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any mode Pillow gives for the allowed formats -> "L" or "RGB"."""
    if image.mode in _SIXTEEN or image.mode == "I":
        wide = np.asarray(image).astype(np.int64)  # mode I: older Pillow's 16-bit PNG
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode not in _CONVERTED:
        raise DataError(f"pixels of mode {image.mode!r}; expected 8-bit or 16-bit: save it as 8-bit PNG")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == mode:
        return image
    return image.convert(mode) if image.mode in ("L", "1") else image.convert("RGB").convert(mode)


def center_square(image: Image.Image, size: int) -> Image.Image:
    """The center square of a Pillow image, resized."""
    if image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # cut first: resize(box=...) would let pixels outside the square bleed in
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


def to_pillow(planes: np.ndarray) -> Image.Image:
    """uint8 (1, H, W) or (3, H, W) as a Pillow image."""
    return Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))


def to_planes(array: np.ndarray) -> np.ndarray:
    """Rows of pixels to color planes: (H, W) or (H, W, 3) -> contiguous (C, H, W)."""
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def image_side(path: str | os.PathLike[str]) -> int | None:
    """The side of a square picture from its header alone; None if it is unreadable or not square."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if Path(path).is_fifo():
                return None
            with Image.open(path, formats=FORMATS) as image:
                return image.width if image.width == image.height else None
    except Exception:  # any damage at all only means that this file cannot tell the size
        return None
