"""Two suites: accuracy on corrupted faces, and how predictions depend on the other images of the batch.

The Batch Transformer paper reports faces that are occluded, reduced to 28 pixels, turned (RAF-DB) and dark
(Oulu-CASIA). Its sets of occluded and turned faces are photographs; the corruptions here can be applied to
any faces. What happens to face i depends on its number and the seed alone, not on the batch it is in, and a
later step goes further in the same way: the same place is covered, the same noise is scaled up.

In the Batch Transformer Network only the last step looks at the other images. So a face is encoded once, and
a thousand batches cost a thousand small attentions. Any other network predicts each batch as a whole.
Chapters 4 and 7.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.faces import KeptFaces, SomeFaces
from ferlib.data.synthetic import SyntheticFaces
from ferlib.data.transforms import model_input, resize
from ferlib.errors import choose
from ferlib.evaluation.evaluate import PREDICT, device_of, predict, start_record
from ferlib.evaluation.intervals import mean_interval
from ferlib.evaluation.metrics import confusion_matrix, resampled_scores
from ferlib.evaluation.records import ResultRecord, origin
from ferlib.models import BatchTransformerNetwork
from ferlib.models.common import evaluating
from ferlib.synthetic import FaceParameters
from ferlib.training.loop import logits_of

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
COMPOSITIONS = ("shuffled", "sorted by class", "one class only")
METRICS = ("accuracy", "mean class accuracy")
_WORDS = {
    "occlusion": "a gray square covers {:.0%} of the width and height",
    "resolution": "{:.0f} pixels across",
    "darkness": "{:.3g} of the light",
    "noise": "noise of {:.0f} gray levels",
    "pose": "turned {:.0f} degrees to the side",
}
_NO_POSE = "only synthetic faces can be turned"
_GAMMA = 2.2  # pixels are roughly the light to the power 1 / 2.2
_PROBE = 256  # faces by which a network that predicts whole batches is tried for dependence
_VISIBLE = 1e-3  # of a probability: rounding in batches of another shape stays below


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
    if images.dtype != torch.uint8:
        raise DataError(f"images are {images.dtype}, expected uint8 (B, C, H, W)")
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
    choose("corruption", kind, CORRUPTIONS, DataError)
    return CORRUPTIONS[kind][choose("severity", severity, range(1, 6), DataError) - 1]


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
        self.faces, self.kind, self.severity, self.seed = faces, kind, severity, seed
        self.classes, self.labels, self.votes = faces.classes, faces.labels, faces.votes
        self._turned = None
        if kind == "pose":
            drawn, rows = origin(faces)
            if not isinstance(drawn, SyntheticFaces):
                raise DataError(f"{type(drawn).__name__}: {_NO_POSE}")
            # kept in fixed blocks, since a pixel's rounding may depend on the faces rendered beside it
            self._turned = KeptFaces(SomeFaces(_TurnedFaces(drawn, value), rows))

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Many faces at once: the wrapped batch with other images (B, C, H, W)."""
        rows = torch.as_tensor(indices).long() % len(self)
        batch = dict(self.faces.batch(rows))
        if self._turned is None:
            return batch | {"image": corrupt(batch["image"], self.kind, self.severity, rows, self.seed)}
        moved = {"landmarks", "masks"} & batch.keys()
        new = self._turned.faces.batch(rows) if moved else {}
        return batch | {key: new[key] for key in moved} | {"image": self._turned.batch(rows)["image"]}

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = (self.faces if self._turned is None else self._turned)[index]
        return {**item, "image": self.batch([index])["image"][0]}


class _TurnedFaces(SyntheticFaces):
    """Synthetic faces with the head turned to the side they already look to."""

    def __init__(self, drawn: SyntheticFaces, degrees: float) -> None:
        self.__dict__.update(vars(drawn))
        self.degrees = degrees

    def parameters(self, indices: Sequence[int] | Tensor) -> FaceParameters:
        p = super().parameters(indices)
        yaw = torch.where(p.pose[:, 0] < 0, -self.degrees, self.degrees)
        return p.replace(pose=torch.cat([yaw[:, None], p.pose[:, 1:]], 1))


def _in_memory(data: FaceDataset) -> FaceDataset:
    """Faces that are read once and kept, where that needs at most 2 GB."""
    small = data.batch([0])["image"].numel() * len(data) <= 2**31
    return KeptFaces(data) if small and not isinstance(data, KeptFaces) else data


def robustness(
    model: nn.Module,
    data: FaceDataset,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    split: str = "",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    progress: bool = False,
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
        split, settings: For the record.
        resamples, seed: Of the bootstrap; the seed also draws the corruptions.
        progress: Show a bar on standard error.
        **options: Those of :func:`ferlib.evaluation.predict`; every variant is predicted in the same batches,
            by default drawn with ``shuffle=0``.

    Raises:
        DataError: A kind cannot be made from these faces.
    """
    start, options = time.perf_counter(), PREDICT | {"shuffle": 0} | options
    turnable = isinstance(origin(data)[0], SyntheticFaces)
    kinds = [kind for kind in CORRUPTIONS if turnable or kind != "pose"] if kinds is None else list(kinds)
    bootstrap = {"resamples": resamples, "seed": seed}
    chosen = {
        **options,
        **bootstrap,
        "kinds": kinds,
        "severities": list(severities),
        **(settings or {}),
    }
    record, data = start_record(model, data, "robustness", split, chosen), _in_memory(data)
    variants = {f"{kind} {s}": CorruptedFaces(data, kind, s, seed) for kind in kinds for s in severities}
    record.extra = {
        "severities": {k: {str(s): describe_corruption(k, s) for s in severities} for k in kinds},
        "left out": {} if turnable or "pose" in kinds else {"pose": _NO_POSE},
    }
    clean = None
    for key, faces in tqdm({"clean": data, **variants}.items(), disable=not progress):
        logits, labels = predict(model, faces, **options)
        found = resampled_scores(labels, logits, record.classes, **bootstrap)
        if clean is None:
            clean = found
            record.confusion = confusion_matrix(labels, logits.argmax(1), len(record.classes)).tolist()
        place = {"condition": key, "over": "faces"}
        for metric in METRICS:
            record.add(metric, found.interval(metric), **place)
            if key in variants:
                record.add(f"{metric} change", found.minus(clean, metric), **place)
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def compose(labels: Tensor, size: int, how: str, seed: int = 0) -> list[Tensor]:
    """The rows of N faces in batches: shuffled, sorted by class, or each batch from one class only.

    Args:
        labels: (N,).
        size: Faces in a batch; a class's last batch may be smaller.
        how: One of ``COMPOSITIONS``.
        seed: Of the order.

    Raises:
        ValueError: There is no such composition.
    """
    choose("composition", how, COMPOSITIONS)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if how == "shuffled":
        return list(order.split(size))
    order = order[labels[order].argsort(stable=True)]
    if how == "sorted by class":
        return list(order.split(size))
    return [part for label in labels.unique() for part in order[labels[order] == label].split(size)]


def batch_predictor(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    image_size: int | None = None,
    interpolation: str = "bicubic",
) -> Callable[[Sequence[Tensor]], Tensor]:
    """A function that predicts all N faces of a data set in given batches.

    A Batch Transformer Network encodes each face once, into class maps (N, C, 49) and scores (N, C); any
    other network runs anew for each batch. Both ways agree up to rounding.

    Args:
        model: The network.
        data: N faces.
        batch_size: Faces that are encoded at a time.
        image_size, interpolation: As in :func:`ferlib.evaluation.predict`.

    Returns:
        A function from the rows of the batches, several (n,), to logits on the CPU, one for each row in the
        order of the data set.
    """
    device, encoded = device_of(model), isinstance(model, BatchTransformerNetwork)

    def images(rows: Tensor) -> Tensor:
        return model_input(data.batch(rows)["image"].to(device), image_size, interpolation)

    def encode(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, query, key = model.encode(images(rows))
        return query, key, model.vit(tokens)

    def logits(rows: Tensor) -> Tensor:
        if not encoded:
            return logits_of(model(images(rows))).cpu()
        query, key, value = (part[rows.to(device)] for part in parts)
        if model.inference == "vit":
            return value.cpu()
        cba, bt = model.batch_transformer(query, key, value)
        return (bt if model.inference == "bt" else cba).float().cpu()

    def predict_in(batches: Sequence[Tensor]) -> Tensor:
        with evaluating(model), torch.no_grad():
            found = torch.cat([logits(rows) for rows in batches])
        return found[torch.cat(list(batches)).argsort()]

    if encoded:
        with evaluating(model), torch.no_grad():
            coded = [encode(rows) for rows in torch.arange(len(data)).split(batch_size)]
        parts = [torch.cat(part) for part in zip(*coded, strict=True)]
    return predict_in


def batch_dependence(
    model: nn.Module,
    data: FaceDataset,
    *,
    sizes: Sequence[int] = (1, 2, 8, 64, 256),
    rounds: int = 100,
    split: str = "",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    progress: bool = False,
    **options: Any,
) -> ResultRecord:
    """Accuracy by the size and the composition of the batch, and the spread of single predictions.

    First it is measured whether there is any dependence: faces alone against the same faces in batches. If
    no probability moves by more than 0.001, the record says so (``extra["depends on the batch"]``) and holds
    one accuracy. Otherwise it holds the accuracy of the arm "alone" and, with the condition "batches of 64",
    of each composition, its "accuracy change" against alone (paired), and, of ``rounds`` random batches of
    ``batch_size`` for every face: "label changes" (the share of faces that are not given one and the same
    class in all) and "range of the true class's probability" (the mean of its 2.5 to 97.5 % range over the
    batches). ``extra`` holds the accuracy of each round ("accuracy by round").
    The confusion matrix is that of the first shuffled batches of ``batch_size``.

    Args:
        model: The network.
        data: N faces of K classes.
        sizes: Faces in a batch.
        rounds: Random batches for every face.
        split, settings: For the record.
        resamples, seed: Of the bootstrap; the seed also draws the batches.
        progress: Show bars on standard error.
        **options: Those of :func:`ferlib.evaluation.predict` but ``shuffle``.
    """
    start, options = time.perf_counter(), {k: v for k, v in PREDICT.items() if k != "shuffle"} | options
    bootstrap = {"resamples": resamples, "seed": seed}
    chosen = {"sizes": list(sizes), "rounds": rounds, **options, **bootstrap, **(settings or {})}
    record, data = start_record(model, data, "batch dependence", split, chosen), _in_memory(data)
    predict_in, size = batch_predictor(model, data, **options), options["batch_size"]
    labels, n = torch.as_tensor(data.labels), len(data)
    probed = torch.arange(n if isinstance(model, BatchTransformerNetwork) else min(n, _PROBE))
    alone = predict_in(probed.split(1))
    among = predict_in(compose(labels, size, "shuffled", seed))
    moved = float((alone.softmax(1) - among[probed].softmax(1)).abs().max())
    record.confusion = confusion_matrix(labels, among.argmax(1), len(data.classes)).tolist()
    record.extra = {"depends on the batch": moved > _VISIBLE, "largest change of a probability": moved}

    def count(arm: str, condition: str | None, logits: Tensor, base: NDArray | None = None) -> NDArray:
        right = (logits.argmax(1) == labels).numpy().astype(float)
        place = {"arm": arm, "condition": condition, "over": "faces"}
        record.add("accuracy", mean_interval(right, **bootstrap), **place)
        if base is not None:
            record.add("accuracy change", mean_interval(right - base, **bootstrap), **place)
        return right

    if moved > _VISIBLE:
        if len(probed) < n:
            alone = predict_in(torch.arange(n).split(1))
        base = count("alone", None, alone)
        for composed in tqdm([one for one in sizes if one > 1], "sizes", disable=not progress):
            for how in COMPOSITIONS:
                logits = predict_in(compose(labels, composed, how, seed))
                count(how, f"batches of {composed}", logits, base)
        size = min(size, max(2, n // 2))
        given, true = torch.empty(rounds, n, dtype=torch.int64), torch.empty(rounds, n)
        for i in tqdm(range(rounds), "rounds", disable=not progress):
            logits = predict_in(compose(labels, size, "shuffled", seed + 1 + i))
            given[i] = logits.argmax(1)
            true[i] = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        low, high = np.quantile(true.numpy(), [0.025, 0.975], axis=0)
        record.add("label changes", mean_interval((given != given[0]).any(0), **bootstrap), over="faces")
        ranges = mean_interval(high - low, **bootstrap)
        record.add("range of the true class's probability", ranges, over="faces")
        record.extra["batch size of the spread"] = size
        rights = (given == labels).double().mean(1)
        record.extra["accuracy by round"] = [round(float(right), 5) for right in rights]
    else:
        count("any batch", None, among)
    record.seconds = round(time.perf_counter() - start, 2)
    return record
