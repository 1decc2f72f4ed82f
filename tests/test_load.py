"""Load and faults: a folder of damaged files, and more faces than would fit if they were kept."""

import csv
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
from ferlib.data.folders import RAFDB
from tests.data_files import picture
from tests.test_images import saved

SIDE, PER_KIND, GOOD = 100, 3, 12
SUPERUSER = os.name != "posix" or os.geteuid() == 0


def colour(seed: int) -> Image.Image:
    """A smooth picture with a little noise: JPEG keeps it nearly as it is."""
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    planes = np.stack([ramp + seed, 198 - ramp, ramp // 2 + 40], -1) % 200
    return Image.fromarray((planes + picture(seed, SIDE, 3) // 12).astype(np.uint8))


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
    whole = saved(colour(seed), "PNG")
    return whole[:33] + chunk(b"zTXt", b"note\0\0" + TEXT) + whole[33:]


def broken_stream(seed: int) -> bytes:
    whole = bytearray(saved(colour(seed), "PNG"))
    whole[len(whole) // 4 + 61 * seed] ^= 0xFF
    return bytes(whole)


def cut(seed: int) -> bytes:
    """The first part of a file: from its header alone to all but its last bytes."""
    whole = saved(colour(seed), "JPEG")
    return whole[: int(len(whole) * (0.01, 0.2, 0.6, 0.999)[seed])]


def padded(seed: int) -> bytes:
    """The right length, but from some place on only zeros, as a broken download leaves it."""
    whole = saved(colour(seed), ("PNG", "JPEG", "WEBP")[seed % 3], quality=90)
    keep = int(len(whole) * (0.1, 0.3, 0.5, 0.7)[seed])
    return whole[:keep] + bytes(len(whole) - keep)


DAMAGED = r"damaged image \(.*(truncated|Truncated|missing|cannot load|decoder|failed|broken).*"
# Kind of fault -> (ending of the file's name, what is in it, what is said about it).
FAULTS: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "empty": ("jpg", lambda seed: b"", "the file is empty"),
    "cut": ("jpg", cut, DAMAGED + "|not an image .*"),
    "text": ("jpg", lambda seed: b"a caption, not a face\n" * seed + b"x", r"not an image \(PNG, .*"),
    "huge": ("png", huge, "too large: at most 40,000,000 pixels are read"),
    "swollen": ("png", swollen, r"damaged image \(.*too large.*"),
    "stream": ("png", broken_stream, r"damaged image \(.*data stream.*"),
    "padded": ("png", padded, DAMAGED),
    "size": ("jpg", lambda seed: saved(Image.new("RGB", (90 + seed, 100)), "JPEG"), r"9\d x 100 pixels; .*"),
}
REASONS = {kind: reason for kind, (_, _, reason) in FAULTS.items()} | {
    "folder": "a folder stands where an image is expected",
    "link": "the file is not there",
    "locked": "the file may not be read.*",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAF-DB's class folders: faulty files of ten kinds around a few good faces."""
    root = tmp_path_factory.mktemp("load") / "RAF-DB"
    for label in range(1, 8):
        (root / "train" / str(label)).mkdir(parents=True)
    place = lambda n, name: root / "train" / str(1 + n % 7) / name  # noqa: E731
    for kind, (ending, make, _) in FAULTS.items():
        for n in range(PER_KIND):
            place(n, f"{kind}_{n}.{ending}").write_bytes(make(n))
    place(0, "folder_0.png").mkdir()
    place(1, "link_1.jpg").symlink_to(root / "nowhere.jpg")
    if not SUPERUSER:
        colour(2).save(place(2, "locked_2.png"))
        place(2, "locked_2.png").chmod(0)
    for n in range(GOOD):
        colour(n).save(place(n, f"good_{n:02d}.png"))
    return root


def faulty(root: Path) -> dict[str, str]:
    """Name within the split -> kind of fault."""
    kinds = {
        path.relative_to(root / "train").as_posix(): path.stem.split("_")[0]
        for path in root.glob("train/*/*")
    }
    return {name: kind for name, kind in kinds.items() if kind != "good"}


def test_prepare_keeps_the_good_faces_and_names_every_other_with_its_reason(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["prepare", "rafdb", "--source", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    kinds = faulty(folder)
    printed = capsys.readouterr()
    assert f"{GOOD} faces" in printed.out and f"{len(kinds)} left out" in printed.out
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        said = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert set(said) == set(kinds) and set(kinds.values()) >= set(FAULTS)
    assert not {n: said[n] for n, kind in kinds.items() if not re.fullmatch(REASONS[kind], said[n])}
    kept = RAFDB(tmp_path / "out", "train")
    assert len(kept) == GOOD
    for item in map(kept.__getitem__, range(GOOD)):
        seed = int(item["name"].split("_")[1][:2])
        assert np.array_equal(item["image"].numpy(), np.asarray(colour(seed)).transpose(2, 0, 1))
        assert item["label"] == seed % 7


def test_the_doctor_names_each_when_it_opens_every_image(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--data", str(folder), "--every"]) == 1
    text = capsys.readouterr().out
    assert not [name for name in faulty(folder) if name not in text]
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
        image = torch.full((1, 12, 12), index % 251, dtype=torch.uint8)
        return {"image": image, "label": int(self.labels[index]), "name": str(index)}

COUNT = 30_000
faces, few = Drawn(COUNT), Drawn(1000)
recipe = Recipe(epochs=1, batch_size=500, loss="cross-entropy", augment="none", optimizer="sgd", lr=1e-3)
model = nn.Sequential(nn.Flatten(), nn.Linear(432, 4))
fit(model, nn.CrossEntropyLoss(), faces, few, recipe, progress=None)
assert COUNT <= faces.served <= COUNT + 64, faces.served  # 64 for the fingerprint
streamed = faces.peaks[10] - faces.peaks[1]
kept = []
for images, target in Batches(Drawn(25_000), recipe, torch.device("cpu"), shuffle=True).epoch(1):
    kept.append(images)
print({"streamed": streamed, "kept": peak() - faces.peaks[10]})
"""


def test_thirty_thousand_faces_are_streamed_with_flat_memory() -> None:
    """From a tenth of an epoch to its end the peak grows by less than 20 MB; kept batches would show."""
    found = subprocess.run(
        [sys.executable, "-c", STREAM],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    grown = json.loads(found.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert grown["streamed"] < 20, grown
    assert grown["kept"] > 20, f"this measure would not see kept batches: {grown}"
