"""Measure a network on a data set: predictions, then a record of what they are worth."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input
from ferlib.evaluation.calibration import reliability
from ferlib.evaluation.intervals import wilson_interval
from ferlib.evaluation.metrics import confusion_matrix
from ferlib.evaluation.records import ResultRecord, about
from ferlib.evaluation.scoring import confusion_shares, scores
from ferlib.models import evaluating
from ferlib.training import versions
from ferlib.training.loop import logits_of


class AnswerError(ValueError):
    """Answers that cannot be judged, such as a diverged network's NaN; the message says which.

    Shape: takes one message string. Chapter 7.
    """


def predict(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    shuffle: int | None = None,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    device: str | torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits and labels of every face, in the order of the data set.

    Where a network looks at the batch (batch attention), its answer depends on ``batch_size`` and on who is
    in which batch: ``shuffle`` (a seed) draws the batches at random, None takes the faces in order. The model
    is put into evaluation mode for the while and given back as it was.

    Shape: N faces -> logits (N, K), labels (N,), on the CPU. Raises ``ValueError`` for an empty data set,
    ``AnswerError`` where the network answers NaN. Chapter 7.
    """
    if len(data) == 0:
        raise ValueError("the data set is empty: there is nothing to predict")
    device = torch.device(device) if device else device_of(model)
    order = torch.arange(len(data))
    if shuffle is not None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(shuffle))
    with torch.no_grad(), evaluating(model):
        parts = [
            logits_of(
                model(model_input(data.batch(rows)["image"].to(device), image_size, interpolation))
            ).cpu()
            for rows in order.split(batch_size)
        ]
    logits = torch.cat(parts)[order.argsort()]
    if broken := int(logits.isnan().any(1).sum()):
        raise AnswerError(
            f"{type(model).__name__} answers {broken} of {len(logits)} faces with NaN: its weights are not "
            "those of a finished run, or its arithmetic overflows"
        )
    return logits, torch.as_tensor(data.labels)


def evaluate(
    model: nn.Module,
    data: FaceDataset,
    *,
    name: str = "evaluation",
    what: str = "",
    split: str = "",
    batch_size: int = 64,
    shuffle: int | None = None,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
    answers: tuple[Tensor, Tensor] | None = None,
) -> ResultRecord:
    """Accuracy, mean class accuracy, macro F1, calibration error, recalls; confusion and reliability.

    Every number has a 95 % bootstrap interval over faces (``resamples``, ``seed``), from the same resamples.
    ``extra`` holds what has no place among the numbers: ``"confusion shares"`` (the ends of the intervals of
    each row's shares), ``"reliability"`` (``bins`` bins for the diagram), and ``"wilson"``, the intervals
    to look at where a class has few faces or none wrong. ``answers``: logits and labels that :func:`predict`
    gave with the same options, so that the network need not answer again.

    Shape: N faces of K classes -> ``ResultRecord`` with a (K, K) confusion matrix. Chapter 7.
    """
    start = time.perf_counter()
    options = {
        "batch_size": batch_size, "shuffle": shuffle, "image_size": image_size, "interpolation": interpolation
    }  # fmt: skip
    logits, labels = answers or predict(model, data, device=device, **options)
    record = measured(logits, labels, data, split=split, bins=bins, resamples=resamples, seed=seed)
    record.name = name
    record.what = what or f"{type(model).__name__} on {len(data)} faces of {record.data['name']}"
    record.settings = {**about_model(model), **options, **record.settings, **(settings or {})}
    record.extra["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    record.versions["device"] = device_name(device or device_of(model))
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def measured(
    logits: Tensor,
    labels: Tensor,
    data: FaceDataset,
    *,
    split: str = "",
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> ResultRecord:
    """A record of answers that are there already: numbers, confusion, reliability, data, versions, commit.

    Shape: logits (N, K), labels (N,), N faces of K classes -> ``ResultRecord``. Chapter 7.
    """
    truth, guess, classes = labels.numpy(), logits.argmax(1).numpy(), list(data.classes)
    matrix = confusion_matrix(truth, guess, len(classes))
    bootstrap = {"resamples": resamples, "seed": seed}
    _, low, high = confusion_shares(truth, guess, len(classes), **bootstrap)
    rows = [("accuracy", int(matrix.trace()), len(truth))]
    rows += [(f"recall {c}", int(matrix[i, i]), int(matrix[i].sum())) for i, c in enumerate(classes)]
    ends = {name: wilson_interval(right, total) for name, right, total in rows if total}
    record = ResultRecord(
        name="evaluation",
        what=f"answers for {len(data)} faces",
        data=about(data, split),
        classes=classes,
        confusion=matrix.tolist(),
        settings={"bins": bins, **bootstrap},
        extra={
            "wilson": {name: [i.low, i.high] for name, i in ends.items()},
            "confusion shares": {"low": _plain(low), "high": _plain(high)},
            "reliability": [asdict(b) for b in reliability(truth, logits, bins, **bootstrap)],
        },
        seed=seed,
        versions=versions(),
    )
    for metric, number in scores(truth, logits, classes, bins=bins, **bootstrap).items():
        record.add(metric, number, over="faces")
    return record


def about_model(model: nn.Module) -> dict[str, Any]:
    """What a record says of its network: its class, and which output it answers with where it has several.

    Shape: a module in, words out. Chapter 7.
    """
    inference = getattr(model, "inference", None)
    return {"model": type(model).__name__, **({"inference": inference} if isinstance(inference, str) else {})}


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without. Shape: a module in, a device out."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def device_name(device: str | torch.device) -> str:
    """A device as a reader knows it: the GPU's name, or ``cpu``. Shape: a device in, a string out."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _plain(values: np.ndarray) -> list[list[float | None]]:
    """Numbers as JSON has them: 5 digits, None for NaN."""
    return [[None if np.isnan(v) else round(float(v), 5) for v in row] for row in values]
