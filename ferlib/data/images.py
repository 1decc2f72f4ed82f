"""One image file to one uint8 array, or one clear reason why not; and the faces of a data set's split.

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
several frames                         refused: which face is meant is not known
floats, 32-bit integers                refused: their range is not known
other formats, text, broken header     refused
empty, truncated or damaged            refused; never filled up with gray or black
end overwritten with zeros             refused, although a decoder makes a picture of it (not seen in a BMP)
more than 40 million pixels            refused before it is decoded
another size than expected             refused, unless a size to resize to was asked for
folder, missing, unreadable            refused
=====================================  ==============================================================

"Refused" is a :class:`DataError` whose message starts with the file's path. Chapter 1 shows it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ferlib.data.base import DataError, FaceDataset, Skip

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 40_000_000
TOO_LARGE = f"too large: at most {MAX_PIXELS:,} pixels are read"
_CONVERTED = {"L", "RGB", "1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_ORIENTATION = 0x0112
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}


def read_image(
    path: str | os.PathLike[str], *, mode: str = "L", expect: int | None = None, size: int | None = None
) -> np.ndarray:
    """Decode one image file by the rules of this module's table. Chapter 1.

    Args:
        path: The file.
        mode: ``"L"`` (gray) or ``"RGB"``.
        expect: The side in pixels that a square picture must have; ``None``: any size is right.
        size: Side in pixels to resize to (center square first, then antialiased bicubic); overrides
            ``expect``.

    Returns:
        uint8 (C, H, W), C = 1 for ``"L"``, 3 for ``"RGB"``.

    Raises:
        DataError: The file cannot be used; the message says what is wrong with it.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what is refused or mended here
            return _decode(path, mode, expect, size)
    except DataError as error:
        reason = error.reason
    except FileNotFoundError:
        reason = "the file is not there"
    except IsADirectoryError:
        reason = "a folder stands where an image is expected"
    except PermissionError:
        reason = "the file may not be read; change its permissions"
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        reason = "the file is empty" if empty else f"not an image ({', '.join(FORMATS)} are read)"
    except Image.DecompressionBombError:
        reason = TOO_LARGE
    except MemoryError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged bytes: all mean the same to a reader
        reason = f"damaged image ({error})"
    raise DataError(reason, path)


def _decode(path: Path, mode: str, expect: int | None, size: int | None) -> np.ndarray:
    if mode not in ("L", "RGB"):
        raise DataError(f"color mode {mode!r}; choose 'L' or 'RGB'")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(TOO_LARGE)
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{image.n_frames} frames; expected one picture: save the frame that is meant")
        image.load()
        if not _finished(path.read_bytes(), image.format):
            raise DataError("damaged image (its end is missing)")
        flat = _flatten(image, mode)
        if image.getexif().get(_ORIENTATION, 1) != 1:
            flat = _flatten(ImageOps.exif_transpose(image), mode)
    if size is not None:
        flat = _square(flat, size)
    elif expect is not None and flat.size != (expect, expect):
        raise DataError(f"{flat.width} x {flat.height} pixels; expected {expect} x {expect}")
    return to_planes(np.array(flat))


def _finished(data: bytes, kind: str | None) -> bool:
    """Whether a picture's end is there. Decoders overlook where it was filled with zeros, as broken downloads
    and disks leave it.
    """
    if kind == "JPEG":  # an end of image behind the last start of a scan; no such bytes can lie within a scan
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if (
        kind == "WEBP"
    ):  # no mark at the end, but its length is in front, and pixels do not end with many zeros
        return any(data[: 8 + int.from_bytes(data[4:8], "little")][-32:])
    return kind != "PNG" or b"IEND" in data


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


def _square(image: Image.Image, size: int) -> Image.Image:
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
            with Image.open(path, formats=FORMATS) as image:
                return image.width if image.width == image.height else None
    except Exception:  # any damage at all only means that this file cannot tell the size
        return None


@dataclass
class Source:
    """One split of a downloaded data set, as its layout gives it.

    Attributes:
        dataset, layout, split: What it is ("ferplus", "microsoft", "train").
        classes: Class names in label order, K of them.
        names: N names, unique, safe relative paths or made-up names of csv rows.
        labels: int64 (N,); -1 where the label follows from ``votes`` by a rule.
        votes: float32 (N, columns) or ``None``.
        load: Index -> uint8 (C, H, W) as stored; raises DataError for a face that cannot be used.
        files: What is read, one file for each face or fewer.
        side: Pixels of a square face.
        channels: 1 or 3.
        skipped: Rows and files that were already left out, each with its reason.
        notes: Odd things worth telling that lose no face.
        resize: Resize faces of another size; otherwise they cannot be used.
    """

    dataset: str
    layout: str
    split: str
    classes: tuple[str, ...]
    names: list[str]
    labels: torch.Tensor
    votes: torch.Tensor | None
    load: Callable[[int], np.ndarray]
    files: Sequence[Path]
    side: int
    channels: int
    skipped: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resize: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """One face, uint8 (C, side, side). Raises DataError where it cannot be used."""
        planes = self.load(index)
        _, height, width = planes.shape
        if height == width == self.side:
            return planes
        if not self.resize:
            where = self.files[index] if len(self.files) == len(self) else self.names[index]
            raise DataError(f"{width} x {height} pixels; expected {self.side} x {self.side}", where)
        return to_planes(np.array(_square(to_pillow(planes), self.side)))

    def resized(self, size: int | None) -> Source:
        """The same faces at ``size`` x ``size`` pixels."""
        if size is not None and not 8 <= size <= 4096:
            raise DataError(f"size={size}; expected a side from 8 to 4096 pixels")
        return self if size is None else replace(self, side=size, resize=True)


class SourceDataset(FaceDataset):
    """Faces of one :class:`Source`: files are decoded one by one, a prepared folder is read in one piece.

    Args:
        source: Where the faces are.
        rows: Which of them, int64 (n,) (default: all).
        labels: Their labels, int64 (n,) (default: the source's).

    Attributes:
        names: The faces' names, in their order.
        skipped: Files and rows that cannot be used.
    """

    def __init__(
        self, source: Source, rows: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> None:
        self.source, self.classes, self.skipped = source, source.classes, source.skipped
        self.rows = torch.arange(len(source)) if rows is None else rows
        self.labels = source.labels[self.rows] if labels is None else labels
        self.votes = None if source.votes is None else source.votes[self.rows]

    @property
    def names(self) -> list[str]:
        return [self.source.names[row] for row in self.rows.tolist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.batch([index])
        return {key: values[0] for key, values in batch.items()} | {"label": int(batch["label"])}

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        index = torch.as_tensor(indices)
        rows = self.rows[index]
        if hasattr(self.source.load, "many") and not self.source.resize:
            images = self.source.load.many(rows)
        else:
            images = torch.from_numpy(np.stack([self.source.read(row) for row in rows.tolist()]))
        votes = {} if self.votes is None else {"votes": self.votes[index]}
        names = [self.source.names[row] for row in rows.tolist()]
        return {"image": images, "label": self.labels[index], **votes, "name": names}
