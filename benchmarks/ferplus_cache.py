"""Loading FER+ for training: the prepared cache against the PNG files one by one.

Two ways to the same batches (grey 48 px face -> RGB, augmented as the Neural Resizer recipe does: flip,
rotation +-45, a second +-15 at zoom 1.2, colour jitter 0.4; ImageNet-normalised float32 ``(B, 3, 48, 48)``):

- ``files``: a data set that opens each PNG with PIL and applies torchvision's transforms to it, as the
  released code does;
- ``cache``: ``FERPlus`` on a folder made by ``ferlib prepare``, and ``ferlib``'s batched ``Augment``.

Both through ``torch.utils.data.DataLoader`` with the same number of workers and one thread each, in turn.
Prints images per second and the ratio. Asserts that both read the same pixels, and no time::

    python benchmarks/ferplus_cache.py [--data /path/to/FERPlus] [--workers 0 2] [--batch 64]

Without ``--data`` it writes a stand-in of synthetic faces in Microsoft's layout to a temporary folder first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision import transforms

from ferlib.data import FERPlus, SyntheticFaces
from ferlib.data.ferplus import microsoft_folder
from ferlib.data.prepare import prepare
from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augment, normalize, to_float, to_rgb


class Files(Dataset):
    """Each PNG opened, converted and transformed by itself."""

    def __init__(self, faces: FERPlus, folder: Path):
        self.paths = [folder / name for name in faces.names]
        self.labels = faces.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(45),
                transforms.RandomAffine(degrees=15, scale=(1.2, 1.2)),
                transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


class Batches(Dataset):
    """Whole batches of a prepared data set as the network takes them, read in one go."""

    def __init__(self, faces: FERPlus) -> None:
        self.faces, self.augment = faces, Augment.neural_resizer()

    def __getitem__(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.faces.batch(rows)
        return normalize(to_rgb(self.augment(to_float(batch["image"])))), batch["label"]


def stand_in(root: Path, count: int) -> Path:
    """Synthetic faces in Microsoft's layout, all votes for the drawn expression."""
    folder = root / "data" / "FER2013Train"
    folder.mkdir(parents=True)
    faces = SyntheticFaces(count, size=48, framing="ferplus")
    rows = []
    for start in range(0, count, 256):
        batch = faces.batch(range(start, min(start + 256, count)))
        for i, (image, label) in enumerate(zip(batch["image"], batch["label"].tolist(), strict=True), start):
            Image.fromarray(image[0].numpy()).save(folder / f"fer{i:07d}.png")
            votes = ",".join("10" if k == label else "0" for k in range(10))
            rows.append(f'fer{i:07d}.png,"(0, 0, 48, 48)",{votes}\n')
    (folder / "label.csv").write_text("".join(rows))
    return root


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def speed(loader: Iterable[tuple[torch.Tensor, torch.Tensor]], seconds: float) -> float:
    """Images per second, from the first finished batch on."""
    count, start = 0, None
    while True:
        for images, _ in loader:
            assert images.shape[1:] == (3, 48, 48) and images.dtype == torch.float32
            if start is None:
                start = time.perf_counter()
                continue
            count += len(images)
            if time.perf_counter() - start > seconds:
                return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="FER+ in Microsoft's layout (png files)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    parser.add_argument(
        "--rounds", type=int, default=2, help="both ways in turn, the faster round of each counts"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        root = options.data or stand_in(work / "png", 3072)
        report = prepare("ferplus", root, work / "cache", splits=["train"], progress=False)
        plain, cached = FERPlus(root), FERPlus(work / "cache")
        files = Files(plain, microsoft_folder(root, "train"))
        for index in range(0, len(cached), len(cached) // 10):  # the same faces in the same order
            pixels = torch.from_numpy(_pixels(files.paths[index]))
            assert (
                torch.equal(cached[index]["image"][0], pixels)
                and cached[index]["label"] == files.labels[index]
            )
        print(f"{len(cached):,} faces of {report.counts['train']:,}, batch {options.batch}")
        print(f"{'workers':>8}{'files, images/s':>18}{'cache, images/s':>18}{'ratio':>8}")
        for workers in options.workers:
            common = {"num_workers": workers}
            if workers:
                common |= {"worker_init_fn": one_thread, "persistent_workers": True}
            best = [0.0, 0.0]
            for _ in range(options.rounds):
                order = BatchSampler(RandomSampler(cached), options.batch, drop_last=False)
                for way, loader in enumerate(
                    (
                        DataLoader(files, options.batch, shuffle=True, **common),
                        DataLoader(Batches(cached), batch_size=None, sampler=order, **common),
                    )
                ):
                    best[way] = max(best[way], speed(loader, options.seconds))
            print(f"{workers:>8}{best[0]:>18,.0f}{best[1]:>18,.0f}{best[1] / best[0]:>8.1f}")


def _pixels(path: Path) -> Any:
    import numpy as np

    with Image.open(path) as image:
        return np.array(image)


if __name__ == "__main__":
    main()
