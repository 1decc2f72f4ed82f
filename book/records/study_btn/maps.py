"""Maps of two frozen branches, computed once for all runs and kept in a folder outside git.

dlib's face-recognition network stands in the place of IR50, whose weights were not to be had; MobileFaceNet
has its published landmark weights. Both see faces of 48 pixels enlarged to 224 (bicubic), as POSTER V2's
loader would, and resize them to their own sizes. Kept are three levels of each in 16 bits, pooled to what
7 x 7 tokens can hold; training faces also as mirror images. A set costs ``size(...)`` bytes.

A network is told which faces it gets by pictures of 2 x 2 pixels in which their numbers are written: so
everything that trains and judges networks on pictures trains and judges these, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import beside
import faces as study_faces
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.data import SyntheticFaces
from ferlib.data.base import FaceDataset
from ferlib.data.transforms import resize, to_float, to_rgb
from ferlib.models.dlib_face import INPUT_SIZE, DlibFaceNet, to_unit
from ferlib.models.iresnet import resize_to
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.pretrained import load_pretrained

#: Channels and side of each level as it is kept.
LEVELS = {"face": ((64, 14), (128, 8), (256, 4)), "landmarks": ((64, 7), (128, 7), (512, 7))}
#: Sets by their number: faces to learn from, to judge by, and these made harder to read (kind, severity).
SETS = ("train", "valid", "occlusion 3", "resolution 2", "darkness 3")
VARIANTS = ("pretrained", "nearest", "random", "drifting", "drifting from drawn faces")
FOLDER = Path(os.environ.get("FERLIB_MAPS", beside.REPOSITORY / "runs" / "study_btn_maps"))
CHUNK, SETTLE = 64, 1024  # faces computed at once (the drifting norms' batch); faces that settle norms
PRETRAINED_SIDE, LANDMARK_SIDE = 224, 112


def numbered(name: str, faces: study_faces.Held) -> study_faces.Held:
    """The same faces, labels and votes, with their numbers in the place of pictures: uint8 (N, 1, 2, 2)."""
    rows = torch.arange(len(faces))
    digits = [torch.full_like(rows, SETS.index(name)), rows >> 16, (rows >> 8) & 255, rows & 255]
    images = torch.stack(digits, 1).to(torch.uint8).view(-1, 1, 2, 2)
    return study_faces.Held(images, faces.labels, faces.votes, faces.classes)


def numbers(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`numbered` wrote, read from normalised pictures (B, 3, 2, 2): sets (B,) and rows (B,)."""
    digits = (255 * to_unit(images.float())[:, 0]).round().long().flatten(1).numpy()
    return digits[:, 0], (digits[:, 1] << 16) + (digits[:, 2] << 8) + digits[:, 3]


def place(name: str, part: str, variant: str) -> Path:
    """The file of one set's maps."""
    return FOLDER / f"{name}-{part}-{variant}.f16".replace(" ", "-")


def width(part: str) -> int:
    """Numbers of one face."""
    return sum(channels * side**2 for channels, side in LEVELS[part])


def copies(name: str) -> int:
    """A face to learn from is kept with its mirror image."""
    return 2 if name == "train" else 1


def size(name: str, part: str, count: int) -> int:
    """Bytes of one file with ``count`` faces."""
    return 2 * copies(name) * count * width(part)


def fetch(images: Tensor, landmarks: str, mirror: bool) -> list[list[Tensor]]:
    """Maps of the faces with these numbers, [face levels, landmark levels], each (B, C, S, S).

    ``mirror``: each is its mirror image with a chance of one half.
    """
    sets, rows = numbers(images)
    turned = torch.rand(len(rows)).numpy() < 0.5 if mirror else np.zeros(len(rows), dtype=bool)
    found = []
    for part, variant in (("face", "pretrained"), ("landmarks", landmarks)):
        values = np.empty((len(rows), width(part)), dtype=np.float16)
        for number in np.unique(sets):
            name = SETS[number]
            with place(name, part, variant).open("rb", buffering=0) as file:
                for i in np.flatnonzero(sets == number):
                    file.seek((copies(name) * int(rows[i]) + int(turned[i])) * values[i].nbytes)
                    file.readinto(memoryview(values[i]).cast("B"))
        parts = torch.from_numpy(values).float().split([c * s**2 for c, s in LEVELS[part]], dim=1)
        found.append([p.view(-1, c, s, s) for p, (c, s) in zip(parts, LEVELS[part], strict=True)])
    return found


def pictures(faces: FaceDataset, rows: Tensor) -> Tensor:
    """Faces as both branches get them: (B, 3, 224, 224) in [0, 1]."""
    return to_rgb(resize(to_float(faces.batch(rows)["image"]), PRETRAINED_SIDE))


class FaceBranch(nn.Module):
    """dlib's network up to conv256_2, its first level pooled to 14 x 14 places."""

    def __init__(self) -> None:
        super().__init__()
        self.net = DlibFaceNet()
        load_pretrained(self, {"net": "dlib-face"})

    def forward(self, images: Tensor) -> list[Tensor]:
        found = self.net.maps(255 * resize_to(images, INPUT_SIZE, "bilinear"), last="conv256_2")
        return [F.adaptive_avg_pool2d(found["conv64_3"], 14), found["conv128_2"], found["conv256_2"]]


class LandmarkBranch(nn.Module):
    """MobileFaceNet, its levels pooled to 7 x 7 places; ``variant`` is one of ``VARIANTS``.

    The published file has its batch norms folded into the convolutions. Where norms shall drift, the
    statistics of ``faces`` (B, 3, 224, 224) are written into them first, scale and shift with them, so that
    the evaluated network stays what it was. Random weights get the statistics of these faces, too.
    """

    def __init__(self, variant: str, faces: Tensor | None = None) -> None:
        super().__init__()
        self.resize = "nearest" if variant == "nearest" else "bilinear"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = MobileFaceNet(head=False)
        if variant != "random":
            load_pretrained(self, {"net": "mobilefacenet"})
        self.eval()
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        if variant == "random":
            for norm in norms:
                norm.momentum = None  # the mean over all batches
            self.train()
            for batch in faces.split(CHUNK):
                self(batch)
            self.eval()
        elif variant.startswith("drifting"):
            self.settle(norms, faces)
            self.train()

    def settle(self, norms: list[nn.BatchNorm2d], faces: Tensor) -> None:
        """Other statistics in every norm, with the scale and shift that leave its answer as it was."""
        seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

        def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
            maps = given[0].float()
            seen[norm].append(torch.stack([maps.mean((0, 2, 3)), (maps**2).mean((0, 2, 3))]))

        hooks = [norm.register_forward_pre_hook(note) for norm in norms]
        for batch in faces.split(CHUNK):
            self(batch)
        for norm, hook in zip(norms, hooks, strict=True):
            hook.remove()
            mean, square = torch.stack(seen[norm]).mean(0)
            variance = (square - mean**2).clamp_min(0)
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias += (mean - norm.running_mean) * gain
            norm.weight.copy_(gain * (variance + norm.eps).sqrt())
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)

    def forward(self, images: Tensor) -> list[Tensor]:
        found = self.net.features(resize_to(images, LANDMARK_SIDE, self.resize))
        return [F.adaptive_avg_pool2d(level, 7) for level in found]


def branch(part: str, variant: str, train: study_faces.Held) -> nn.Module:
    """A frozen branch, its norms settled by training faces or by drawn ones."""
    if part == "face":
        return FaceBranch().eval().requires_grad_(False)
    faces: FaceDataset = train
    if variant == "drifting from drawn faces":
        faces = SyntheticFaces(SETTLE, size=48, seed=3, channels=1, framing="ferplus")
    some = pictures(faces, torch.arange(min(SETTLE, len(faces))))
    with torch.no_grad():
        found = LandmarkBranch(variant, some).requires_grad_(False)
    return found.to(memory_format=torch.channels_last)


@torch.no_grad()
def make(part: str, variant: str, sets: dict[str, FaceDataset]) -> dict[str, int]:
    """Compute and keep the maps of all sets; returns the bytes of each file.

    A file that was begun goes on where it ends. Norms that drift see all training faces once, in an order
    drawn at random, and end with the statistics that the other sets are then answered with; this cannot be
    taken up in the middle and begins anew.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    net, drifts = branch(part, variant, sets["train"]), variant.startswith("drifting")
    for name, faces in sets.items():
        path, one = place(name, part, variant), 2 * width(part)
        if path.is_file() and not drifts:
            continue
        begun = path.with_suffix(".part")
        done = begun.stat().st_size // (one * copies(name)) if begun.is_file() and not drifts else 0
        order = torch.arange(len(faces))[done:]
        if drifts and name == "train":
            order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        elif drifts:
            net.eval()
        with begun.open("r+b" if done else "w+b") as file:
            for rows in order.split(CHUNK):
                images = pictures(faces, rows).contiguous(memory_format=torch.channels_last)
                for copy in range(copies(name)):
                    with torch.autocast("cpu", torch.bfloat16):
                        levels = net(images.flip(3) if copy else images)
                    flat = torch.cat([level.float().flatten(1) for level in levels], 1)
                    for row, values in zip(rows.tolist(), flat.half().numpy(), strict=True):
                        file.seek((copies(name) * row + copy) * one)
                        file.write(values.tobytes())
        begun.rename(path)
    return {name: place(name, part, variant).stat().st_size for name in sets}
