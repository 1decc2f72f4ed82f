"""The robustness suite: one network on the same faces, as they are and made harder step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces, SomeFaces
from ferlib.evaluation.alterations import Altered, describe, kinds_for
from ferlib.evaluation.compare import discordant, mcnemar
from ferlib.evaluation.evaluate import about_model, device_name, device_of, predict
from ferlib.evaluation.intervals import Interval, percentiles
from ferlib.evaluation.lists import listed_rows
from ferlib.evaluation.metrics import confusion_matrix
from ferlib.evaluation.records import Number, ResultRecord, about
from ferlib.evaluation.scoring import draw_scores, point_scores
from ferlib.training import versions

METRICS = ("accuracy", "mean class accuracy")


def robustness(
    model: nn.Module,
    data: FaceDataset,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    lists: Mapping[str, str | Path] | None = None,
    name: str = "robustness",
    split: str = "",
    batch_size: int = 64,
    shuffle: int | None = 0,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
    tell: Callable[[str, Interval], None] | None = None,
) -> ResultRecord:
    """Accuracy and mean class accuracy on faces as they are, and made harder: kind by severity.

    Numbers have the condition "clean" or "occlusion 3"; their metrics are "accuracy" and "mean class
    accuracy" and, altered minus clean of the same faces on the same bootstrap resamples (so the interval is
    that of a paired comparison), "accuracy change" and "mean class accuracy change". Every variant is
    answered in the same batches (``shuffle``). ``lists`` names published lists of photographs
    (:func:`ferlib.evaluation.listed_rows`): those faces as they are, by themselves, with the list's name for
    the condition. ``extra`` holds, by kind, what the severities mean (``"severities"``), why a kind is left
    out (``"left out"``), McNemar's p of every variant (``"McNemar p"``) and all confusion matrices
    (``"confusions"``). ``tell`` is called with the name of each variant and its accuracy when it is done.

    The record's confusion matrix is the clean one. arXiv 2407.04218, results; the steps are ours. Chapter 7.

    Raises:
        DataError: A kind cannot be made from these faces.
    """
    start = time.perf_counter()
    facts = about(data, split)
    data = in_memory(data)
    possible, left_out = kinds_for(data)
    kinds = possible if kinds is None else tuple(kinds)
    variants = {f"{kind} {s}": Altered(data, kind, s, seed) for kind in kinds for s in severities}
    parts = {key: SomeFaces(data, listed_rows(data, path)) for key, path in (lists or {}).items()}
    options = {
        "batch_size": batch_size, "shuffle": shuffle, "image_size": image_size, "interpolation": interpolation
    }  # fmt: skip
    bootstrap, classes = {"resamples": resamples, "seed": seed}, list(data.classes)
    numbers: list[Number] = []
    confusions, p_values, clean = {}, {}, None
    for key, faces in {"clean": data, **variants, **parts}.items():
        logits, labels = predict(model, faces, device=device, **options)
        points = point_scores(labels, logits, classes)
        drawn = draw_scores(labels, logits, classes, **bootstrap)
        clean = clean or (logits, points, drawn)
        for metric in METRICS:
            ends = percentiles(drawn[metric])
            numbers.append(Number(points[metric], *ends, metric=metric, condition=key, over="faces"))
            if tell is not None and metric == "accuracy":
                tell(key, numbers[-1])
            if key in variants:  # the same faces and resamples as the clean ones: paired
                change = points[metric] - clean[1][metric]
                ends = percentiles(drawn[metric] - clean[2][metric])
                what = {"metric": f"{metric} change", "condition": key, "over": "faces"}
                numbers.append(Number(change, *ends, **what))
        if key in variants:
            p_values[key] = mcnemar(*discordant(labels, logits, clean[0]))
        confusions[key] = confusion_matrix(labels, logits.argmax(1), len(classes)).tolist()
    return ResultRecord(
        name=name,
        what=f"robustness of {type(model).__name__} on {len(data)} faces of {facts['name']}",
        numbers=numbers,
        data=facts,
        classes=classes,
        confusion=confusions["clean"],
        settings={**about_model(model), **options, **bootstrap, "kinds": list(kinds),
                  "severities": list(severities), **(settings or {}),
                  "lists": {key: Path(path).name for key, path in (lists or {}).items()}},
        extra={"severities": {k: {str(s): describe(k, s) for s in severities} for k in kinds},
               "left out": {k: why for k, why in left_out.items() if k not in kinds},
               "McNemar p": p_values, "confusions": confusions,
               "faces of the lists": {key: len(faces) for key, faces in parts.items()}},
        seed=seed,
        versions={**versions(), "device": device_name(device or device_of(model))},
        seconds=round(time.perf_counter() - start, 2),
    )  # fmt: skip


def in_memory(data: FaceDataset, limit: int = 2**31) -> FaceDataset:
    """A data set that reads each face once and keeps it, where all of them need at most ``limit`` bytes.

    Shape: N faces in, the same N out. Chapter 7.
    """
    if isinstance(data, KeptFaces) or not len(data):
        return data
    return KeptFaces(data) if data.batch([0])["image"].numel() * len(data) <= limit else data


def table(record: ResultRecord, metric: str = "accuracy") -> str:
    """A robustness record as text: kinds down, severities across, with the clean value above; then the
    changes against the clean faces.

    Shape: a record in, a string out. Chapter 7.
    """
    steps, kinds = record.settings["severities"], record.settings["kinds"]
    clean = record.get(metric, condition="clean")
    lines = [f"{metric}, %, with 95 % intervals", f"{'clean':<11}{_cell(clean)}"]
    for what in (metric, f"{metric} change"):
        if what != metric and kinds and steps:
            lines.append(f"change of {metric}, points, of the same faces (paired)")
        if kinds and steps:
            lines.append((f"{'severity':<11}" + "".join(f"{step:<22}" for step in steps)).rstrip())
        for kind in kinds:
            cells = "".join(f"{_cell(record.get(what, condition=f'{kind} {s}')):<22}" for s in steps)
            lines.append(f"{kind:<11}{cells}".rstrip())
    for key, faces in record.extra["faces of the lists"].items():
        lines.append(f"{key:<11}{_cell(record.get(metric, condition=key))} ({faces} listed faces)")
    return "\n".join(lines)


def _cell(found: Interval) -> str:
    to = " to " if found.low < 0 else "-"
    return f"{100 * found.value:.1f} ({100 * found.low:.1f}{to}{100 * found.high:.1f})"
