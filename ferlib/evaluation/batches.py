"""The batch suite: how much a network's answer about one face depends on the faces beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.evaluation.encoded import Encoded, WholePasses, answers, encode
from ferlib.evaluation.evaluate import about_model, device_name, device_of
from ferlib.evaluation.intervals import Interval, Resamples, percentiles
from ferlib.evaluation.metrics import confusion_matrix
from ferlib.evaluation.records import ResultRecord, about
from ferlib.evaluation.suites import in_memory
from ferlib.training import versions

COMPOSITIONS = ("shuffled", "sorted by class", "one class only")
PROBE = 256  # faces by which a network that answers whole batches is tried for dependence
VISIBLE = 1e-3  # of a probability: what rounding in other batch shapes does not reach


def compose(labels: Tensor, size: int, how: str, seed: int = 0) -> list[Tensor]:
    """All faces in batches of ``size``: drawn at random, taken in the order of their classes, or each batch
    from one class only (where a class's last batch may be smaller).

    Shape: labels (N,) -> rows in lists, N in all. Raises ``ValueError`` for another composition. Chapter 7.
    """
    if how not in COMPOSITIONS:
        raise ValueError(f"composition is {how!r}, expected one of {', '.join(COMPOSITIONS)}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if how == "shuffled":
        return list(order.split(size))
    order = order[labels[order].argsort(stable=True)]
    if how == "sorted by class":
        return list(order.split(size))
    return [part for label in labels.unique() for part in order[labels[order] == label].split(size)]


def batch_dependence(
    model: nn.Module,
    data: FaceDataset,
    *,
    sizes: Sequence[int] = (1, 2, 8, 64, 256),
    rounds: int = 100,
    faces: int = 64,
    name: str = "batch dependence",
    split: str = "",
    batch_size: int = 64,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
    tell: Callable[[str, Interval], None] | None = None,
) -> ResultRecord:
    """Accuracy by the size and the composition of the batch, and the spread of single answers.

    First it is measured whether there is any dependence: faces alone against the same faces in batches. If
    no probability moves by more than 0.001, the record says so (``extra["depends on the batch"]``) and holds
    one accuracy. Otherwise it holds the accuracy of the arm "alone" and, with the condition "batches of 64",
    of each composition, its "accuracy change" against alone (paired), and, of ``rounds`` random batches of
    ``batch_size`` for every face: "label changes" (the share of faces that are not given one and the same
    class in all) and "range of the true class's probability" (the mean of its 2.5 to 97.5 % range over the
    batches). ``extra`` holds this spread for ``faces`` evenly spaced faces one by one (``"spread"``), and the
    accuracy of each round (``"accuracy by round"``).

    The record's confusion matrix is that of the first shuffled batches of ``batch_size``. Chapters 4 and 7.
    """
    start = time.perf_counter()
    facts, data = about(data, split), in_memory(data)
    prepared = encode(
        model, data, batch_size=batch_size, image_size=image_size, interpolation=interpolation, device=device
    )
    labels, n = prepared.labels, len(data)
    probed = torch.arange(n)[:PROBE] if isinstance(prepared, WholePasses) else torch.arange(n)
    alone = torch.cat([prepared.answer(row) for row in probed.split(1)])
    among = answers(prepared, compose(labels, batch_size, "shuffled", seed))
    moved = float((alone.softmax(1) - among[probed].softmax(1)).abs().max())
    depends = moved > VISIBLE
    record = ResultRecord(
        name=name,
        what=f"batch dependence of {type(model).__name__} on {n} faces of {facts['name']}",
        data=facts,
        classes=list(data.classes),
        confusion=confusion_matrix(labels, among.argmax(1), len(data.classes)).tolist(),
        settings={**about_model(model), "sizes": list(sizes), "rounds": rounds, "batch_size": batch_size,
                  "image_size": image_size, "interpolation": interpolation, "resamples": resamples,
                  "seed": seed, **(settings or {})},
        extra={"depends on the batch": depends, "largest change of a probability": moved},
        seed=seed,
        versions={**versions(), "device": device_name(device or device_of(model))},
    )  # fmt: skip

    def count(arm: str, condition: str | None, logits: Tensor, base: NDArray | None = None) -> NDArray:
        right = (logits.argmax(1) == labels).numpy().astype(float)
        place = {"arm": arm, "condition": condition, "over": "faces"}
        found = record.add("accuracy", mean_interval(right, resamples, seed), **place)
        if base is not None:
            record.add("accuracy change", mean_interval(right - base, resamples, seed), **place)
        if tell is not None:
            tell(", ".join(filter(None, (arm, condition))), found)
        return right

    if depends:
        if len(probed) < n:
            alone = answers(prepared, list(torch.arange(n).split(1)))
        base = count("alone", None, alone)
        for size in (size for size in sizes if size > 1):
            for how in COMPOSITIONS:
                logits = answers(prepared, compose(labels, size, how, seed))
                count(how, f"batches of {size}", logits, base)
        record.extra |= spread(
            prepared, data.classes, alone, rounds, min(batch_size, max(2, n // 2)), faces, seed
        )
        for metric in ("label changes", "range of the true class's probability"):
            record.add(metric, mean_interval(record.extra.pop(metric), resamples, seed), over="faces")
    else:
        count("any batch", None, among)
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def spread(
    prepared: Encoded, classes: Sequence[str], alone: Tensor, rounds: int, size: int, faces: int, seed: int
) -> dict[str, Any]:
    """Every face in ``rounds`` random batches: by face, whether its class changes and how far its true
    class's probability ranges, and ``faces`` of them told one by one.

    Shape: N encoded faces, logits (N, K) of each alone -> words, lists, and two arrays (N,). Chapter 7.
    """
    labels, n = prepared.labels, len(prepared.labels)
    given, true = torch.empty(rounds, n, dtype=torch.int64), torch.empty(rounds, n)
    for i in range(rounds):
        logits = answers(prepared, compose(labels, size, "shuffled", seed + 1 + i))
        given[i] = logits.argmax(1)
        true[i] = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    low, middle, high = np.quantile(true.numpy(), [0.025, 0.5, 0.975], axis=0)
    told = []
    for row in sorted({i * n // min(faces, n) for i in range(min(faces, n))}):
        tally = torch.bincount(given[:, row], minlength=len(classes))
        told.append({
            "face": row, "label": classes[int(labels[row])],
            "alone": round(float(alone[row].softmax(0)[labels[row]]), 4),
            "low": round(float(low[row]), 4), "median": round(float(middle[row]), 4),
            "high": round(float(high[row]), 4),
            "answers": {classes[k]: int(c) for k, c in enumerate(tally) if c},
        })  # fmt: skip
    return {
        "batch size of the spread": size,
        "spread": told,
        "accuracy by round": [round(float(a), 5) for a in (given == labels).double().mean(1)],
        "label changes": (given != given[0]).any(0).numpy().astype(float),
        "range of the true class's probability": high - low,
    }


def mean_interval(values: NDArray, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mean of one number per face, with its bootstrap interval. Shape: (N,) -> ``Interval``."""
    drawn = Resamples(len(values), resamples, seed).sums(values[:, None])[:, 0] / len(values)
    return Interval(float(values.mean()), *percentiles(drawn))


def table(record: ResultRecord) -> str:
    """A batch record as text: compositions down, sizes across, then the spread of single answers.

    Shape: a record in, a string out. Chapter 7.
    """
    moved = record.extra["largest change of a probability"]
    if not record.extra["depends on the batch"]:
        found = record.get("accuracy", "any batch")
        return (
            "no dependence on the batch: between a face alone and among others no probability moves by more "
            f"than {moved:.1g}\naccuracy  {found.percent()}"
        )
    sizes = [size for size in record.settings["sizes"] if size > 1]
    lines = [
        f"the answer depends on the batch: a probability moves by up to {moved:.2f}",
        "accuracy, %, with 95 % intervals",
        f"{'alone':<17}{_cell(record, 'alone', None)}",
        f"{'faces in a batch':<17}" + "".join(f"{size:<18}" for size in sizes),
    ]
    for how in COMPOSITIONS:
        lines.append(
            (f"{how:<17}" + "".join(f"{_cell(record, how, f'batches of {s}'):<18}" for s in sizes)).rstrip()
        )
    rounds, size = record.settings["rounds"], record.extra["batch size of the spread"]
    changed = record.get("label changes")
    width = record.get("range of the true class's probability")
    lines.append(f"each face in {rounds} random batches of {size}:")
    ends = f"{width.value:.3f} ({width.low:.3f}-{width.high:.3f})"
    lines.append(f"  faces that are not always given the same class    {changed.percent()}")
    lines.append(f"  95 % range of the true class's probability, mean  {ends}")
    return "\n".join(lines)


def _cell(record: ResultRecord, arm: str, condition: str | None) -> str:
    found = record.get("accuracy", arm, condition)
    return f"{100 * found.value:.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"
