"""Maps of two frozen networks, made once for all runs: the ground on which experiments 1 and 3 stand.

    python -m book.experiments maps --data FERPlus --labels fer2013_labels.csv --weights FOLDER

MobileNetFaces (face recognition) sees a face at 224 pixels, MobileFaceNet (landmarks) at 112. A face and its
mirror image are kept as four levels in half precision (``LEVELS``), their channels reduced by a principal
component analysis of the pilot faces, with a variance of one for each level. onnxruntime computes them: it is
twice as fast as torch on one core. A stopped command goes on where it was.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from book.experiments.faces import Faces
from ferlib.files import write_text
from ferlib.models import MobileFaceNet, MobileNetFaces
from ferlib.runtime import load_runtime

#: Each level: channels and side as it is kept. The networks give 256, 512, 1024 and 512 channels.
LEVELS = {"fine": (64, 14), "middle": (128, 7), "coarse": (128, 7), "landmarks": (64, 7)}
WIDTH = sum(channels * side**2 for channels, side in LEVELS.values())
FACE_FILE, LANDMARK_FILE = "mobilenet_faces.safetensors", "mobilefacenet_landmarks68.safetensors"
MEAN_BGR = (103.939, 116.779, 123.68)
CHUNK = 32


class Backbones(nn.Module):
    """Both networks: gray faces in [0, 1], (B, 1, 48, 48) -> the four levels before the reduction."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.face, self.marks = MobileNetFaces(), MobileFaceNet(head=False)
        self.face.load_state_dict({name: t.float() for name, t in load_file(weights / FACE_FILE).items()})
        found = {name: t.float() for name, t in load_file(weights / LANDMARK_FILE).items()}
        self.marks.load_state_dict({n: t for n, t in found.items() if not n.startswith("output_layer")})
        self.eval().requires_grad_(False)

    def forward(self, faces: Tensor, small: Tensor) -> tuple[Tensor, ...]:
        fine, middle, coarse = self.face(faces)
        pooled = F.avg_pool2d(fine, 2), F.avg_pool2d(middle, 2), coarse
        return *pooled, self.marks.features(small)[2]


class Extractor:
    """Gray faces to raw levels, one thread."""

    def __init__(self, weights: Path) -> None:
        onnxruntime = load_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        shapes = torch.zeros(2, 3, 224, 224), torch.zeros(2, 3, 112, 112)
        batch = torch.export.Dim("batch")
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/backbones.onnx"
            torch.onnx.export(
                Backbones(weights),
                shapes,
                path,
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: batch}, {0: batch}),
            )
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [entry.name for entry in self.session.get_inputs()]

    def __call__(self, images: Tensor) -> dict[str, np.ndarray]:
        """Gray faces uint8 (B, 48, 48) -> each level (B, C, S, S)."""
        gray = images[:, None].float() / 255
        large = F.interpolate(gray, (224, 224), mode="bicubic", align_corners=False).clamp(0, 1)
        faces = 255 * large.expand(-1, 3, -1, -1) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
        small = F.interpolate(gray, (112, 112), mode="bicubic", align_corners=False).clamp(0, 1)
        given = faces, small.expand(-1, 3, -1, -1)
        inputs = {name: t.contiguous().numpy() for name, t in zip(self.names, given, strict=True)}
        return dict(zip(LEVELS, self.session.run(None, inputs), strict=True))


@dataclass(frozen=True)
class Reduction:
    """A level's mean (C,), and the matrix (C, d) that reduces its channels to d with a total variance of one
    at each position and component on average.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, level: np.ndarray) -> np.ndarray:
        """(B, C, S, S) -> (B, d, S, S)."""
        centered = level.transpose(0, 2, 3, 1) - self.mean
        return np.ascontiguousarray((centered @ self.matrix).transpose(0, 3, 1, 2))


def fit_reductions(extract: Extractor, images: Tensor) -> dict[str, Reduction]:
    """Principal components of each level's channels, over all positions of the given faces."""
    moments: dict[str, list[np.ndarray]] = {}
    count = 0
    for chunk in tqdm(images.split(CHUNK), desc="principal components", unit="chunk"):
        for name, level in extract(chunk).items():
            flat = level.transpose(0, 2, 3, 1).reshape(-1, level.shape[1]).astype(np.float64)
            first, second = moments.setdefault(name, [0.0, 0.0])
            moments[name] = [
                first + flat.sum(0) / level[0, 0].size,
                second + flat.T @ flat / level[0, 0].size,
            ]
        count += len(chunk)
    found = {}
    for name, (first, second) in moments.items():
        mean = first / count
        values, vectors = np.linalg.eigh(second / count - np.outer(mean, mean))
        kept = LEVELS[name][0]
        scale = math.sqrt(kept / values[-kept:].sum())
        found[name] = Reduction(
            mean.astype(np.float32), (scale * vectors[:, ::-1][:, :kept]).astype(np.float32)
        )
    return found


def flatten(levels: dict[str, np.ndarray], reductions: dict[str, Reduction]) -> np.ndarray:
    """Reduced levels of B faces in one float16 array (B, WIDTH)."""
    reduced = [reductions[name](level).reshape(len(level), -1) for name, level in levels.items()]
    return np.concatenate(reduced, axis=1).astype(np.float16)


def split(rows: Tensor) -> dict[str, Tensor]:
    """One array (B, WIDTH) -> the levels, each (B, C, S, S)."""
    parts = rows.split([channels * side**2 for channels, side in LEVELS.values()], dim=1)
    return {
        name: part.unflatten(1, (c, s, s)) for (name, (c, s)), part in zip(LEVELS.items(), parts, strict=True)
    }


def keep(
    extract: Extractor, reductions: dict[str, Reduction], images: Tensor, path: Path, mirror: bool
) -> None:
    """Write the maps of faces, and of their mirror images, to one array (N, 1 or 2, WIDTH) on disk.

    A file ``.done`` beside it counts the faces that are finished.
    """
    copies = 2 if mirror else 1
    counter = path.with_suffix(".done")
    done = int(counter.read_text()) if counter.is_file() and path.is_file() else 0
    shape = (len(images), copies, WIDTH)
    array = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, shape)
    bar = tqdm(total=len(images), initial=done, desc=path.stem, unit="face")
    for start in range(done, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        array[start : start + len(chunk), 0] = flatten(extract(chunk), reductions)
        if mirror:
            array[start : start + len(chunk), 1] = flatten(extract(chunk.flip(2)), reductions)
        array.flush()
        write_text(counter, str(start + len(chunk)))
        bar.update(len(chunk))
    bar.close()


def make(faces: Faces, weights: Path, store: Path, fit_on: np.ndarray) -> None:
    """Fit the reductions on the faces ``fit_on`` (indices), then keep the maps of all faces."""
    extract = Extractor(weights)
    images = torch.from_numpy(faces.images)
    where = store / "reductions.npz"
    if not where.is_file():
        found = fit_reductions(extract, images[torch.from_numpy(fit_on)])
        arrays = {
            f"{name}_{part}": getattr(r, part) for name, r in found.items() for part in ("mean", "matrix")
        }
        with tempfile.NamedTemporaryFile(dir=store, suffix=".npz", delete=False) as file:
            np.savez(file, **arrays)
        Path(file.name).rename(where)
    keep(extract, reductions(store), images, store / "maps.npy", mirror=True)


def reductions(store: Path) -> dict[str, Reduction]:
    """What ``make`` fitted."""
    with np.load(store / "reductions.npz") as arrays:
        return {name: Reduction(arrays[f"{name}_mean"], arrays[f"{name}_matrix"]) for name in LEVELS}


def project(store: Path, fit_on: np.ndarray, width: int) -> None:
    """Principal components of whole maps, fitted on the faces ``fit_on`` and their mirror images.

    Writes ``projected.npy``, float16 (N, 2, width), with a mean variance of one.
    """
    kept = np.load(store / "maps.npy", mmap_mode="r")
    sample = torch.from_numpy(kept[fit_on].reshape(-1, WIDTH)).float()
    mean = sample.mean(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, values, vectors = torch.pca_lowrank(sample - mean, width, center=False, niter=2)
    matrix = vectors * math.sqrt(width * (len(sample) - 1) / float((values**2).sum()))
    path = store / "projected.part.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float16, (len(kept), 2, width))
    for start in tqdm(range(0, len(kept), 256), desc="projected", unit="chunk"):
        chunk = torch.from_numpy(kept[start : start + 256]).float()
        array[start : start + 256] = ((chunk - mean) @ matrix).half().numpy()
    array.flush()
    path.rename(store / "projected.npy")
