"""The robustness suite: faces occluded, at low resolution, dark, noisy and turned, in five steps each.

The Batch Transformer paper reports faces that are occluded, reduced to 28 pixels, turned (RAF-DB) and dark
(Oulu-CASIA). Its sets of occluded and turned faces are published lists of photographs, which
:func:`listed_rows` reads; the corruptions here can be applied to any faces. What happens to face i depends on
its number and the seed alone, not on the batch it is in, and a later step goes further in the same way: the
same place is covered, the same noise is scaled up. Chapter 7.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from ferlib.data.base import DataError, FaceDataset, SourceDataset
from ferlib.data.faces import KeptFaces, ResizedFaces, SomeFaces
from ferlib.data.synthetic import SyntheticFaces
from ferlib.data.transforms import resize
from ferlib.evaluation.evaluate import PREDICT, about_model, device_name, predict
from ferlib.evaluation.intervals import Interval
from ferlib.evaluation.metrics import Scores, confusion_matrix, resampled_scores
from ferlib.evaluation.records import ResultRecord, about, innermost
from ferlib.synthetic import render_faces
from ferlib.training import versions

#: What the five steps of each kind are. Occlusion: side of the square as a share of the picture's.
#: Resolution: pixels across; 28 is the paper's. Darkness: share of the light. Noise: standard deviation in
#: gray levels of 255. Pose: degrees to the side.
CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),
    "resolution": (40, 28, 20, 14, 10),
    "darkness": (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32),
    "noise": (8, 16, 24, 36, 48),
    "pose": (15, 25, 35, 45, 55),
}
METRICS = ("accuracy", "mean class accuracy")
_WORDS = {
    "occlusion": "a gray square covers {:.0%} of the width and height",
    "resolution": "{:.0f} pixels across",
    "darkness": "{:.3g} of the light",
    "noise": "noise of {:.0f} gray levels",
    "pose": "turned {:.0f} degrees to the side",
}
_NO_POSE = "only synthetic faces can be turned; for photographs give a published list of turned faces"
_GAMMA = 2.2  # pixels are roughly the light to the power 1 / 2.2


def describe_corruption(kind: str, severity: int) -> str:
    """What a step does, in words: ``describe_corruption("resolution", 2)`` is "28 pixels across"."""
    return _WORDS[kind].format(_value(kind, severity))


def corrupt(images: Tensor, kind: str, severity: int, rows: Tensor | Sequence[int], seed: int = 0) -> Tensor:
    r"""Corrupt pictures of faces.

    Occlusion: a square of one gray, at a place of the face's own, that grows with the step. Resolution:
    reduced and enlarged again, bicubic, antialiased; a face that is not larger stays as it is. Darkness:
    :math:`x' = x\,\ell^{1/2.2}` with the share :math:`\ell` of the light, in whole gray levels. Noise:
    normal, independent for each pixel and channel.

    Args:
        images: uint8 (B, C, H, W).
        kind, severity: What to do, and how far, 1 to 5 (``CORRUPTIONS``).
        rows: The B numbers of the faces, from which the random part is drawn.
        seed: Other places covered, other noise.

    Returns:
        uint8 (B, C, H, W).

    Raises:
        DataError: There is no such kind or step, or the kind is "pose", which needs the face and not its
            picture: :class:`CorruptedFaces`.
    """
    value = _value(kind, severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(rows):
        raise DataError(
            f"images are {images.dtype} of shape {tuple(images.shape)} with {len(rows)} numbers: expected "
            "uint8 (B, C, H, W) and one number per face"
        )
    if kind == "pose":
        raise DataError("a picture cannot be turned to the side: CorruptedFaces does it with synthetic faces")
    if kind == "resolution":
        small = int(value) < min(images.shape[-2:])
        return resize(resize(images, int(value)), images.shape[-1]) if small else images.clone()
    if kind == "darkness":
        return (images.float() * value ** (1 / _GAMMA)).round_().to(torch.uint8)
    draws = [_generator(kind, int(row), seed) for row in rows]
    if kind == "noise":
        noise = torch.stack([torch.randn(images.shape[1:], generator=draw) for draw in draws])
        return (images + value * noise.to(images.device)).round_().clamp_(0, 255).to(torch.uint8)
    return _cover(images, value, torch.stack([torch.rand(3, generator=draw) for draw in draws]))


def _cover(images: Tensor, share: float, draws: Tensor) -> Tensor:
    """A square at (draws 0 and 1), of the gray of draw 2; a larger share covers what a smaller one does."""
    inside = []
    for u, length in zip(draws.T, images.shape[-2:], strict=False):
        start = (u * (1 - share) * length).floor()
        end = ((u * (1 - share) + share) * length).ceil()
        place = torch.arange(length)
        inside.append((place >= start[:, None]) & (place < end[:, None]))
    square = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)
    gray = (draws[:, 2] * 255).round().to(torch.uint8).to(images.device)
    return torch.where(square, gray[:, None, None, None], images)


def _value(kind: str, severity: int) -> float:
    if kind not in CORRUPTIONS:
        raise DataError(f"no corruption {kind!r}: expected one of {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6):
        raise DataError(f"severity is {severity!r}: expected 1 (slight) to 5 (severe)")
    return CORRUPTIONS[kind][severity - 1]


def _generator(kind: str, row: int, seed: int) -> torch.Generator:
    """A random stream that belongs to one face: the same in every batch, and for every severity."""
    code = hashlib.blake2b(f"{seed} {kind} {row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(code, "big") >> 1)


class CorruptedFaces(FaceDataset):
    """Another data set's faces, corrupted; labels, votes and names are the same.

    Args:
        faces: Any data set; for "pose" synthetic faces, which are rendered anew with the head turned to the
            side they already look to.
        kind, severity, seed: As in :func:`corrupt`.

    Raises:
        DataError: There is no such kind or step, or faces that are not synthetic should be turned.
    """

    def __init__(self, faces: FaceDataset, kind: str, severity: int, seed: int = 0) -> None:
        value = _value(kind, severity)
        if kind == "pose" and not _is_synthetic(faces):
            raise DataError(f"{type(innermost(faces)).__name__}: {_NO_POSE}")
        self.faces, self.kind, self.severity, self.seed = faces, kind, severity, seed
        self.classes, self.labels, self.votes = faces.classes, faces.labels, faces.votes
        self._turned = _TurnedFaces(faces, value) if kind == "pose" else None
        # rendered in fixed blocks, since a pixel's rounding may depend on the faces rendered beside it
        self._kept = KeptFaces(self._turned) if self._turned else None

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Many faces at once: the wrapped batch with other images (B, C, H, W)."""
        rows = torch.as_tensor(indices).long() % len(self)
        batch = dict(self.faces.batch(rows))
        if self._turned is None:
            return batch | {"image": corrupt(batch["image"], self.kind, self.severity, rows, self.seed)}
        moved = {"landmarks", "masks"} & batch.keys()
        new = self._turned.batch(rows) if moved else {}
        return batch | {key: new[key] for key in moved} | {"image": self._kept.batch(rows)["image"]}

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"face {index} of {len(self)}")
        first = {key: _first(value) for key, value in self.batch([index]).items()}
        return first | {"label": int(first["label"])}


class _TurnedFaces(FaceDataset):
    """Synthetic faces with the head turned to the side they already look to."""

    def __init__(self, faces: FaceDataset, degrees: float) -> None:
        self.faces, self.degrees = faces, degrees
        self.classes, self.labels, self.votes = faces.classes, faces.labels, faces.votes

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        faces, rows, size = self.faces, torch.as_tensor(indices), None
        while not isinstance(faces, SyntheticFaces):
            if isinstance(faces, SomeFaces):
                rows = faces.rows[rows]
            elif isinstance(faces, ResizedFaces):
                size = size or faces.size
            faces = faces.faces
        p = faces.parameters(rows)
        yaw = torch.where(p.pose[:, 0] < 0, -self.degrees, self.degrees)
        pose = torch.cat([yaw[:, None], p.pose[:, 1:]], 1)
        new = render_faces(p.replace(pose=pose), faces.size, faces.channels, faces.masks)
        image = new.image if size is None else resize(new.image, size)
        return {"image": image, "landmarks": new.landmarks, "masks": new.masks}


def _is_synthetic(faces: FaceDataset) -> bool:
    """Whether a data set is synthetic, inside of wrappers that :class:`_TurnedFaces` can follow."""
    while isinstance(faces, KeptFaces | SomeFaces | ResizedFaces):
        faces = faces.faces
    return isinstance(faces, SyntheticFaces)


def _first(value: Any) -> Any:
    return {key: part[0] for key, part in value.items()} if isinstance(value, dict) else value[0]


def robustness(
    model: nn.Module,
    data: FaceDataset,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    lists: Mapping[str, str | Path] | None = None,
    name: str = "robustness",
    split: str = "",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    report: Callable[[str, Interval], None] | None = None,
    **options: Any,
) -> ResultRecord:
    """Accuracy and mean class accuracy on faces as they are, and corrupted: kind by severity.

    Numbers have the condition "clean" or "occlusion 3"; their metrics are "accuracy" and "mean class
    accuracy" and, corrupted minus clean of the same faces on the same bootstrap resamples (so the interval is
    that of a paired comparison), "accuracy change" and "mean class accuracy change". ``extra`` holds, by
    kind, what the severities mean ("severities") and why a kind is left out ("left out"). Source: arXiv
    2407.04218, results; the steps are ours.

    Args:
        model: The network.
        data: N faces of K classes.
        kinds, severities: Of ``CORRUPTIONS``; by default all that can be made from these faces.
        lists: Published lists of photographs (:func:`listed_rows`): those faces as they are, by themselves,
            with the list's name for the condition.
        name, split, settings: For the record.
        resamples, seed: Of the bootstrap; the seed also draws the corruptions.
        report: Called with the name of each variant and its accuracy when it is done.
        **options: Those of :func:`ferlib.evaluation.predict`; every variant is predicted in the same batches,
            by default drawn with ``shuffle=0``.

    Raises:
        DataError: A kind cannot be made from these faces.
    """
    start, options = time.perf_counter(), PREDICT | {"shuffle": 0} | options
    facts, data = about(data, split), in_memory(data)
    left_out = {} if _is_synthetic(data) else {"pose": _NO_POSE}
    kinds = [kind for kind in CORRUPTIONS if kind not in left_out] if kinds is None else list(kinds)
    variants = {f"{kind} {s}": CorruptedFaces(data, kind, s, seed) for kind in kinds for s in severities}
    parts = {key: SomeFaces(data, listed_rows(data, path)) for key, path in (lists or {}).items()}
    bootstrap, classes = {"resamples": resamples, "seed": seed}, list(data.classes)
    record = ResultRecord(
        name=name,
        what=f"robustness of {type(model).__name__} on {len(data)} faces of {facts['name']}",
        data=facts,
        classes=classes,
        settings={**about_model(model), **options, **bootstrap, "kinds": kinds,
                  "severities": list(severities), **(settings or {}),
                  "lists": {key: Path(path).name for key, path in (lists or {}).items()}},
        extra={"severities": {k: {str(s): describe_corruption(k, s) for s in severities} for k in kinds},
               "left out": {k: why for k, why in left_out.items() if k not in kinds},
               "faces of the lists": {key: len(faces) for key, faces in parts.items()}},
        seed=seed,
        versions={**versions(), "device": device_name(model)},
    )  # fmt: skip
    clean: Scores | None = None
    for key, faces in {"clean": data, **variants, **parts}.items():
        logits, labels = predict(model, faces, **options)
        if key == "clean":
            record.confusion = confusion_matrix(labels, logits.argmax(1), len(classes)).tolist()
        found = resampled_scores(labels, logits, classes, **bootstrap)
        clean = clean or found
        place = {"condition": key, "over": "faces"}
        for metric in METRICS:
            record.add(metric, found.interval(metric), **place)
            if key in variants:
                record.add(f"{metric} change", found.minus(clean, metric), **place)
        if report is not None:
            report(key, record.get("accuracy", condition=key))
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def in_memory(data: FaceDataset, limit: int = 2**31) -> FaceDataset:
    """A data set that reads each face once and keeps it, where all of them need at most ``limit`` bytes."""
    if isinstance(data, KeptFaces) or not len(data):
        return data
    return KeptFaces(data) if data.batch([0])["image"].numel() * len(data) <= limit else data


def table(record: ResultRecord, metric: str = "accuracy") -> str:
    """A robustness record as text: kinds down, severities across, with the clean value above; then the
    changes against the clean faces."""
    steps, kinds = record.settings["severities"], record.settings["kinds"]
    lines = [f"{metric}, %, with 95 % intervals"]
    lines.append(f"{'clean':<11}{cell(record.get(metric, condition='clean'))}")
    for what in (metric, f"{metric} change") if kinds and steps else ():
        if what != metric:
            lines.append(f"change of {metric}, points, of the same faces (paired)")
        lines.append((f"{'severity':<11}" + "".join(f"{step:<22}" for step in steps)).rstrip())
        for kind in kinds:
            cells = (cell(record.get(what, condition=f"{kind} {step}")) for step in steps)
            lines.append(f"{kind:<11}{''.join(f'{text:<22}' for text in cells)}".rstrip())
    for key, faces in record.extra["faces of the lists"].items():
        lines.append(f"{key:<11}{cell(record.get(metric, condition=key))} ({faces} listed faces)")
    return "\n".join(lines)


def cell(found: Interval) -> str:
    """A percentage with its interval for a table: ``82.1 (80.7-83.4)``."""
    return found.percent().replace(" %", "")


def face_names(faces: FaceDataset) -> list[str]:
    """The names of a data set's N files, in its order, without reading them.

    Raises:
        DataError: They have none, because they are synthetic.
    """
    if isinstance(faces, SourceDataset):
        return faces.names
    inner = getattr(faces, "faces", None)
    if not isinstance(inner, FaceDataset):
        raise DataError(f"{type(faces).__name__}: its faces are not files, so no list can name them")
    names = face_names(inner)
    rows = getattr(faces, "rows", None)
    return names if rows is None else [names[row] for row in torch.as_tensor(rows).tolist()]


def listed_rows(faces: FaceDataset, path: str | Path) -> Tensor:
    """Which of a data set's faces a published list of difficult photographs names: int64 (n,), ascending.

    Wang et al. (Region Attention Networks, 2020) listed the occluded faces of RAF-DB, FER+ and AffectNet, and
    those turned by more than 30 and 45 degrees; later papers report on these lists. A line names one
    photograph, with or without its class's folder, ending or further columns: ``0/test_0004_aligned.jpg``,
    ``test_0003_aligned 3 4``, ``2/fer0032227.jpg``.

    Raises:
        DataError: The file cannot be read, or it names none of the faces.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list of faces ({error})") from None
    wanted: set[str] = set()
    for line in lines:
        if fields := line.split():
            parts = PurePosixPath(fields[0].replace("\\", "/")).parts
            wanted.update(PurePosixPath(part).stem for part in parts)
    names = [PurePosixPath(name).stem for name in face_names(faces)]
    rows = [i for i, name in enumerate(names) if name in wanted]
    if not rows:
        first = next((line for line in lines if line.strip()), "nothing")
        raise DataError(
            f"{path.name} names none of the {len(names)} faces: it begins with {first!r}, the faces with "
            f"{names[0]!r}; is it of another data set or split?"
        )
    return torch.tensor(rows)
