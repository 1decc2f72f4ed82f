"""Every kind of image file is read, converted or refused as the table in ferlib.images says."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferlib.data.base import DataError
from ferlib.data.ferplus import read_pixels
from ferlib.images import read_image
from tests.data_files import picture


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_and_colour_png_come_back_pixel_by_pixel(tmp_path: Path) -> None:
    grey, colour = picture(1), picture(2, channels=3)
    a = save(tmp_path / "a b ü.png", Image.fromarray(grey))
    b = save(tmp_path / "b.png", Image.fromarray(colour))
    assert np.array_equal(read_image(a), grey[None])
    assert np.array_equal(read_image(b, mode="RGB"), colour.transpose(2, 0, 1))
    assert np.array_equal(read_image(a, mode="RGB"), np.stack([grey] * 3))
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(b)[0] - luminance).max() <= 1
    assert read_image(b).flags["C_CONTIGUOUS"] and read_image(b, mode="RGB").flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp"])
def test_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    smooth = np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8) * 2
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(smooth), quality=95)
    assert np.abs(read_image(path)[0].astype(int) - smooth).mean() < 2


def palette(values: np.ndarray, colors: list[int]) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putpalette(colors + [0] * (768 - len(colors)))
    return image


ALPHA = np.full((48, 48, 4), (10, 20, 30, 255), np.uint8)
ALPHA[24:, :, 3] = 0
CONVERTED = {  # what is saved, and the colors that are read
    "palette": (palette(picture(3) // 128, [10, 20, 30, 200, 100, 50]), {}, {(10, 20, 30), (200, 100, 50)}),
    "alpha": (Image.fromarray(ALPHA), {}, {(10, 20, 30), (255, 255, 255)}),
    "transparent": (palette(np.zeros((48, 48), np.uint8), []), {"transparency": 0}, {(255, 255, 255)}),
    "one bit": (Image.fromarray(picture(6) > 127), {}, {(0, 0, 0), (255, 255, 255)}),
}


@pytest.mark.parametrize("kind", list(CONVERTED))
def test_unusual_pictures_are_converted(tmp_path: Path, kind: str) -> None:
    image, options, colors = CONVERTED[kind]
    found = read_image(save(tmp_path / "a.png", image, **options), mode="RGB")
    assert set(map(tuple, found.reshape(3, -1).T.tolist())) == colors


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "c.jpg", Image.new("CMYK", (48, 48), (0, 255, 255, 0)))
    assert np.abs(read_image(path, mode="RGB")[:, 5, 5].astype(int) - [255, 0, 0]).max() < 6


def test_gray_with_alpha_and_sixteen_bits_keep_their_values(tmp_path: Path) -> None:
    gray = Image.fromarray(np.stack([picture(4), np.full((48, 48), 255, np.uint8)], -1), "LA")
    assert np.array_equal(read_image(save(tmp_path / "la.png", gray))[0], picture(4))
    path = save(tmp_path / "w.png", Image.fromarray((picture(5).astype(np.uint16) * 257).astype(np.uint16)))
    assert np.array_equal(read_image(path)[0], picture(5))
    assert np.array_equal(read_image(path, mode="RGB")[1], picture(5))


def test_camera_rotation_is_obeyed(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48 * 48).reshape(48, 48).astype(np.uint8) // 8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = save(tmp_path / "r.png", image, exif=exif)
    assert np.array_equal(read_image(path)[0], np.asarray(image)[::-1, ::-1])


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(Image.fromarray(picture(0)), "PNG")[:1400], "truncated"),
        (b"", "empty"),
        (b"this is not a picture", "not an image"),
        (saved(Image.fromarray(picture(0)), "TIFF"), "not an image .* a TIFF: save it as PNG"),
        (
            saved(
                Image.new("L", (48, 48)), "PNG", save_all=True, append_images=[Image.new("L", (48, 48), 9)]
            ),
            "2 frames",
        ),
        (Path.mkdir, "a folder stands"),
        (os.mkfifo, "a pipe stands"),
        (None, "not there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_with_file_and_reason(tmp_path: Path, content, message: str) -> None:
    path = tmp_path / "face.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content(path)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert str(error.value).startswith(str(path)) and str(path) not in error.value.reason


def smooth(kind: str, **options: object) -> bytes:
    """A picture of slow changes, as a file in memory."""
    values = np.add.outer(np.arange(96) ** 2 // 90, np.arange(96) * 3 // 2)
    return saved(Image.fromarray((values + picture(3, 96) // 16).astype(np.uint8)), kind, **options)


def zeroed(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(120) + data[len(data) // 2 + 120 :]


def half_the_rows(png: bytes) -> bytes:
    """A PNG without an error in it, whose rows end in the middle."""
    length = int.from_bytes(png[33:37], "big")
    rows = zlib.decompress(png[41 : 41 + length])
    body = zlib.compress(rows[: len(rows) // 2])
    code = zlib.crc32(b"IDAT" + body).to_bytes(4, "big")
    return png[:33] + len(body).to_bytes(4, "big") + b"IDAT" + body + code + png[45 + length :]


def cut_with_an_end(jpeg: bytes) -> bytes:
    return jpeg[: 2 * len(jpeg) // 3] + b"\xff\xd9"


@pytest.mark.parametrize(
    ("kind", "options", "damage"),
    [
        ("JPEG", {}, cut_with_an_end),
        ("JPEG", {"progressive": True}, cut_with_an_end),
        ("JPEG", {}, zeroed),
        ("JPEG", {"progressive": True, "optimize": True}, zeroed),
        ("WEBP", {}, zeroed),
        ("WEBP", {}, lambda webp: webp[: len(webp) // 3] + bytes(80) + webp[len(webp) // 3 + 80 :]),
        ("PNG", {}, half_the_rows),
    ],
)
def test_pixels_that_a_decoder_would_fill_in_are_missed(tmp_path, kind, options, damage) -> None:
    """The same picture undamaged, and with other bytes behind its end, is read."""
    path, whole = tmp_path / "face", smooth(kind, **options)
    with Image.open(io.BytesIO(damage(whole))) as image:
        image.load()  # Pillow sees nothing
    path.write_bytes(damage(whole))
    with pytest.raises(DataError, match="face: damaged image"):
        read_image(path)
    for behind in (b"", bytes(64), b"\xff\xda more", whole):
        path.write_bytes(whole + behind)
        assert read_image(path).shape == (1, 96, 96)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("shade", [0, 255])
def test_flat_pictures_are_no_damage(tmp_path: Path, kind: str, shade: int) -> None:
    path = save(tmp_path / "flat", Image.new("RGB", (600, 600), (shade,) * 3), format=kind, optimize=True)
    assert (read_image(path) == shade).all()


def test_the_first_picture_of_a_phones_jpeg_is_read(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (48, 48), color) for color in ("black", "white")]
    path = save(tmp_path / "a.jpg", pictures[0], format="MPO", save_all=True, append_images=pictures[1:])
    assert read_image(path).max() == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(picture(0)))
    path.chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        read_image(path)


def test_resizing_takes_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((48, 96), np.uint8)
    wide[:, 24:72] = 200
    path = save(tmp_path / "w.png", Image.fromarray(wide))
    assert read_image(path, size=24).shape == (1, 24, 24)
    assert read_image(path, size=24).min() == 200


def test_rows_of_pixels() -> None:
    text = " ".join(map(str, picture(0).ravel()))
    assert np.array_equal(read_pixels(text)[0], picture(0))
    for bad, message in (
        (text.rsplit(" ", 1)[0], "2,303 pixels; expected 2,304"),
        (text + " 1", "2,305 pixels"),
        ("256 " + text.split(" ", 1)[1], "0 to 255"),
        ("-1 " + text.split(" ", 1)[1], "0 to 255"),
        ("1.5 " + text.split(" ", 1)[1], "no whole number"),
        ("x " + text.split(" ", 1)[1], "no whole number"),
        ("", "0 pixels"),
    ):
        with pytest.raises(DataError, match=message):
            read_pixels(bad)
