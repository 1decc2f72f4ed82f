"""Load and faults: a folder full of damaged files, and more faces than would fit if they were kept."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferlib.cli import main
from ferlib.data.base import DataError
from ferlib.data.folders import RAFDB
from ferlib.images import read_image
from tests.data_files import picture

SIDE, PER_KIND, GOOD = 100, 8, 40
SUPERUSER = os.name != "posix" or os.geteuid() == 0


def colour(seed: int) -> Image.Image:
    """A smooth picture with a little noise: JPEG keeps it nearly as it is."""
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    planes = np.stack([ramp + seed, 198 - ramp, ramp // 2 + 40], -1) % 200
    return Image.fromarray((planes + picture(seed, SIDE, 3) // 12).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def huge(seed: int) -> bytes:
    """A header that promises 49 million to 3.6 billion pixels, and next to nothing behind it."""
    side = (7_000, 60_000)[seed % 2]
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999)))


TEXT = zlib.compress(bytes(100_000_000), 1)


def swollen(seed: int) -> bytes:
    """A picture of the right size beside a text of 100 MB, packed into half a megabyte."""
    text = b"note\0\0" + TEXT
    whole = saved(colour(seed), "PNG")
    return whole[:33] + chunk(b"zTXt", text) + whole[33:]


def broken_stream(seed: int) -> bytes:
    whole = bytearray(saved(colour(seed), "PNG"))
    whole[len(whole) // 4 + 61 * seed] ^= 0xFF
    return bytes(whole)


def frames(seed: int) -> bytes:
    """Two faces in one file: GIF, WebP and PNG in turn."""
    kind = ("GIF", "WEBP", "PNG")[seed % 3]
    return saved(colour(seed), kind, save_all=True, append_images=[colour(seed + 1)])


def cut(whole: bytes, seed: int) -> bytes:
    """The first part of a file: from its header alone to all but its last bytes."""
    shares = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999)
    return whole[: int(len(whole) * shares[seed % 8])]


def padded(seed: int) -> bytes:
    """The right length, but from some place on only zeros, as a broken download leaves it."""
    whole = saved(colour(seed), ("PNG", "JPEG", "WEBP")[seed % 3], quality=90)
    keep = int(len(whole) * (0.1, 0.3, 0.5, 0.7)[seed % 4])
    return whole[:keep] + bytes(len(whole) - keep)


def wrong_magic(seed: int) -> bytes:
    whole = saved(colour(seed), ("PNG", "JPEG")[seed % 2])
    return b"\0\1\2\3" + whole[4:]


DAMAGED = r"damaged image \(.*(truncated|Truncated|missing|cannot load|decoder|failed|broken).*"
# Kind of fault -> (ending of the file's name, what is in it, what is said about it).
FAULTS: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "empty": ("jpg", lambda seed: b"", "the file is empty"),
    "cut_jpeg": ("jpg", lambda seed: cut(saved(colour(seed), "JPEG"), seed), DAMAGED + "|not an image .*"),
    "cut_png": ("png", lambda seed: cut(saved(colour(seed), "PNG"), seed), DAMAGED),
    "text": ("jpg", lambda seed: b"a caption, not a face\n" * seed + b"x", r"not an image \(PNG, .*"),
    "page": ("jpg", lambda seed: b"<!doctype html><h1>404 Not Found</h1>" * (seed + 1), "not an image .*"),
    "magic": ("png", wrong_magic, "not an image .*"),
    "huge": ("png", huge, "too large: at most 40,000,000 pixels are read"),
    "swollen": ("png", swollen, r"damaged image \(.*too large.*"),
    "stream": ("png", broken_stream, r"damaged image \(.*data stream.*"),
    "padded": ("png", padded, DAMAGED),
    "frames": ("png", frames, r"2 frames; expected one picture.*|not an image .*"),
    "size": ("jpg", lambda seed: saved(Image.new("RGB", (90 + seed, 100)), "JPEG"), r"9\d x 100 pixels; .*"),
}
REASONS = {kind: reason for kind, (_, _, reason) in FAULTS.items()} | {
    "folder": "a folder stands where an image is expected",
    "link": "the file is not there",
    "locked": "the file may not be read.*",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAF-DB's class folders: 100 faulty files and more of 14 kinds, around 40 good faces."""
    root = tmp_path_factory.mktemp("load") / "RAF-DB"
    for label in range(1, 8):
        (root / "train" / str(label)).mkdir(parents=True)
    place = lambda n, name: root / "train" / str(1 + n % 7) / name  # noqa: E731
    for kind, (ending, make, _) in FAULTS.items():
        for n in range(PER_KIND):
            place(n, f"{kind}_{n}.{ending}").write_bytes(make(n))
    for n in range(3):
        place(n, f"folder_{n}.png").mkdir()
        place(n, f"link_{n}.jpg").symlink_to(root / "nowhere" / f"{n}.jpg")
        if not SUPERUSER:
            colour(n).save(place(n, f"locked_{n}.png"))
            place(n, f"locked_{n}.png").chmod(0)
    for n in range(GOOD):
        colour(n).save(place(n, f"good_{n:02d}.png"))
    return root


def faulty(root: Path) -> dict[str, str]:
    """Name within the split -> kind of fault."""
    kinds = {}
    for path in root.glob("train/*/*_*"):
        kind = path.name.rpartition("_")[0]
        if kind != "good":
            kinds[path.relative_to(root / "train").as_posix()] = kind
    assert len(kinds) >= 100 and len(set(kinds.values())) >= 12
    return kinds


def test_prepare_keeps_the_good_faces_and_names_every_other_with_its_reason(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["prepare", "rafdb", "--source", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert f"{GOOD} faces" in printed.out and f"{len(faulty(folder))} left out" in printed.out
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        said = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    kinds = faulty(folder)
    assert set(said) == set(kinds)
    wrong = {n: said[n] for n, kind in kinds.items() if not re.fullmatch(REASONS[kind], said[n])}
    assert not wrong
    kept = RAFDB(tmp_path / "out", "train")
    assert len(kept) == GOOD
    for i in range(GOOD):
        item = kept[i]
        seed = int(item["name"].split("_")[1][:2])
        assert np.array_equal(item["image"].numpy(), np.asarray(colour(seed)).transpose(2, 0, 1))
        assert item["label"] == seed % 7


def test_a_data_set_over_the_folder_reads_the_good_and_refuses_the_others_by_name(folder: Path) -> None:
    faces = RAFDB(folder, "train")
    good, refused = 0, {}
    for i, name in enumerate(faces.source.names):
        try:
            faces[i]
            good += 1
        except DataError as error:
            assert str(error).startswith(str(folder / "train" / name))
            refused[name] = str(error)
    listed = {name for name, kind in faulty(folder).items() if kind not in ("folder", "link")}
    assert good == GOOD and set(refused) == listed  # what is no file is left out when the folder is listed
    assert {skip.name for skip in faces.source.skipped} == set(faulty(folder)) - listed
    whole = [i for i, name in enumerate(faces.source.names) if name not in refused]
    assert len(faces.batch(whole)["image"]) == GOOD
    with pytest.raises(DataError, match=r"empty_0\.jpg: the file is empty"):
        faces.batch([*whole, faces.source.names.index("1/empty_0.jpg")])


def test_the_doctor_names_each_when_it_opens_every_image(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--data", str(folder), "--every"]) == 1
    text = capsys.readouterr().out
    assert [name for name in faulty(folder) if name not in text] == []
    assert "good_" not in text and "Traceback" not in text
    assert main(["doctor", "--data", str(folder)]) == 1
    assert "--every opens all" in capsys.readouterr().out


def test_faults_cost_no_memory(folder: Path) -> None:
    """What a file claims to hold is never allocated: neither billions of pixels nor a text of 100 MB."""
    script = (
        "import resource, sys, pathlib; from ferlib.images import read_image\n"
        "unit = 2**20 if sys.platform == 'darwin' else 2**10\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit\n"
        "files = sorted(pathlib.Path(sys.argv[1]).glob('train/*/*'))\n"
        "[read_image(f) for f in files if f.name.startswith('good')]; before = peak()\n"
        "for f in files:\n"
        "    try: read_image(f)\n"
        "    except ValueError: pass\n"
        "print(peak() - before)"
    )
    found = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 60, f"{found.stdout.strip()} MB"


def test_odd_but_whole_pictures_are_read_as_they_are_meant(tmp_path: Path) -> None:
    """Colour models, depths, alpha, rotation notes, wrong endings, words behind the end."""
    rgb = colour(5)
    planes = np.asarray(rgb)
    grey = rgb.convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    clear = np.dstack([planes, np.full((SIDE, SIDE), 255, np.uint8)])
    clear[:50, :, 3] = 0
    exact = {
        "16bit.png": (saved(wide, "PNG"), np.asarray(grey)),
        "turned.png": (saved(rgb, "PNG", exif=exif), np.rot90(planes, -1)),
        "clear.png": (saved(Image.fromarray(clear), "PNG"), np.where(clear[..., 3:] > 0, planes, 255)),
        "really_png.jpg": (saved(rgb, "PNG"), planes),
        "behind.png": (saved(rgb, "PNG") + b"words behind the end" * 9, planes),
        "zeros_behind.png": (saved(rgb, "PNG") + bytes(999), planes),
        "bit.png": (saved(grey.convert("1"), "PNG"), np.asarray(grey.convert("1")) * np.uint8(255)),
        "palette.png": (saved(rgb.quantize(64), "PNG"), np.asarray(rgb.quantize(64).convert("RGB"))),
        "black.png": (saved(Image.new("L", (SIDE, SIDE)), "PNG"), np.zeros((SIDE, SIDE), np.uint8)),
        "black.webp": (saved(Image.new("RGB", (SIDE, SIDE)), "WEBP"), np.zeros((SIDE, SIDE, 3), np.uint8)),
    }
    close = {
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG", quality=95),
        "progressive.jpg": saved(rgb, "JPEG", quality=95, progressive=True),
        "behind.jpg": saved(rgb, "JPEG", quality=95) + b"\xff and words" * 9,
        "twice.jpg": saved(rgb, "JPEG", quality=95) * 2,
        "a.webp": saved(rgb, "WEBP", quality=95),
    }
    for name, (content, want) in exact.items():
        (tmp_path / name).write_bytes(content)
        want = want if want.ndim == 3 else np.repeat(want[..., None], 3, 2)
        assert np.array_equal(read_image(tmp_path / name, mode="RGB"), want.transpose(2, 0, 1)), name
    for name, content in close.items():
        (tmp_path / name).write_bytes(content)
        found = read_image(tmp_path / name, mode="RGB").astype(int)
        assert np.abs(found - planes.transpose(2, 0, 1)).mean() < 12, name


def test_damaged_files_in_front_do_not_decide_the_size_of_the_others(tmp_path: Path) -> None:
    for n in range(60):
        path = tmp_path / "train" / "1" / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(huge(0) if n < 25 else saved(colour(n), "PNG"))
    for label in range(2, 8):
        (tmp_path / "train" / str(label)).mkdir()
    assert RAFDB(tmp_path, "train").source.side == SIDE


STREAM = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from ferlib.data.base import FaceDataset
from ferlib.training import Recipe, fit
from ferlib.training.batches import Batches

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss begins with the parent's peak
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

class Drawn(FaceDataset):
    '''Tiny faces made when they are asked for: there is no picture until then.'''
    classes = ("a", "b", "c", "d")
    def __init__(self, length):
        self.labels, self.served, self.peaks = torch.arange(length) % 4, 0, {}
    def __getitem__(self, index):
        self.served += 1
        if self.served % (len(self) // 10) == 0:
            self.peaks[10 * self.served // len(self)] = peak()
        image = torch.full((1, 8, 8), index % 251, dtype=torch.uint8)
        return {"image": image, "label": int(self.labels[index]), "name": str(index)}

COUNT = 200_000
faces, few = Drawn(COUNT), Drawn(1000)
recipe = Recipe(epochs=1, batch_size=1000, loss="cross-entropy", augment="none", optimizer="sgd", lr=1e-3)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
fit(model, nn.CrossEntropyLoss(), faces, few, recipe, progress=None)
assert faces.served == COUNT, faces.served
streamed = faces.peaks[10] - faces.peaks[1]
kept = []
for images, target in Batches(Drawn(70_000), recipe, torch.device("cpu"), shuffle=True).epoch(1):
    kept.append(images)
print({"streamed": streamed, "kept": peak() - faces.peaks[10]})
"""


def test_two_hundred_thousand_faces_are_streamed_with_flat_memory() -> None:
    """From a tenth of an epoch to its end the peak grows by less than 30 MB; kept batches would show."""
    found = subprocess.run(
        [sys.executable, "-c", STREAM],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    grown = json.loads(found.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert grown["streamed"] < 30, grown
    assert grown["kept"] > 30, f"this measure would not see kept batches: {grown}"
