"""Measure a network on a data set: its predictions, then a record of their scores. Chapter 7."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input
from ferlib.errors import FerlibError
from ferlib.evaluation.intervals import wilson_interval
from ferlib.evaluation.metrics import confusion_matrix, reliability, scores
from ferlib.evaluation.records import ResultRecord, about
from ferlib.models.common import evaluating
from ferlib.training import versions
from ferlib.training.loop import logits_of

#: The options of :func:`predict` and their defaults, as records keep them.
PREDICT = {"batch_size": 64, "shuffle": None, "image_size": None, "interpolation": "bicubic"}


class PredictionError(FerlibError):
    """Predictions that cannot be scored, such as the NaN of a diverged network; the message says which."""


@torch.no_grad()
def predict(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    shuffle: int | None = None,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits and labels of every face, in the order of the data set.

    Where a network looks at the batch (batch attention), its prediction depends on ``batch_size`` and on the
    composition of the batch. The model is put into evaluation mode for the while.

    Args:
        model: The network.
        data: N faces.
        batch_size: Faces in a batch.
        shuffle: A seed draws the batches at random; None takes the faces in order.
        image_size, interpolation: What the faces are resized to, and how; see
            :func:`ferlib.data.model_input`.
        progress: Show a bar on standard error once it takes longer than a second.

    Returns:
        Logits (N, K) and labels (N,), on the CPU.

    Raises:
        ValueError: The data set is empty.
        PredictionError: The network outputs NaN.
    """
    if len(data) == 0:
        raise ValueError("the data set is empty: there is nothing to predict")
    order = torch.arange(len(data))
    if shuffle is not None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(shuffle))
    device, parts = device_of(model), []
    with evaluating(model), tqdm(total=len(data), unit=" faces", delay=1, disable=not progress) as bar:
        for rows in order.split(batch_size):
            images = data.batch(rows)["image"].to(device)
            parts.append(logits_of(model(model_input(images, image_size, interpolation))).cpu())
            bar.update(len(rows))
    logits = torch.cat(parts)[order.argsort()]
    if broken := int(logits.isnan().any(1).sum()):
        raise PredictionError(
            f"{type(model).__name__} outputs NaN for {broken} of {len(logits)} faces: its weights are not "
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
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    predictions: tuple[Tensor, Tensor] | None = None,
    temperature: float = 1.0,
    progress: bool = False,
    **options: Any,
) -> ResultRecord:
    """Accuracy, mean class accuracy, macro F1, calibration error and recalls of a network, as a record.

    Every number has a 95 % bootstrap interval over faces. Besides the confusion matrix the record's ``extra``
    holds "reliability", the bins of the diagram, and "wilson", the intervals to look at where a class has few
    faces or none wrong.

    Args:
        model: The network.
        data: N faces of K classes.
        name, what, split, settings: For the record.
        resamples, seed: Of the bootstrap.
        predictions: What :func:`predict` returned with the same options, so that it need not run again.
        temperature: Divides the logits; only the calibration depends on it.
        progress: Whether to show progress.
        **options: Of :func:`predict`.
    """
    start, options = time.perf_counter(), PREDICT | options
    logits, labels = predictions or predict(model, data, progress=progress, **options)
    logits = logits / temperature
    truth, guess, classes = labels.numpy(), logits.argmax(1).numpy(), list(data.classes)
    bootstrap = {"resamples": resamples, "seed": seed}
    chosen = {**options, "temperature": temperature, **bootstrap, **(settings or {})}
    record = start_record(model, data, name, split, chosen)
    record.what = what or record.what
    matrix = confusion_matrix(truth, guess, len(classes))
    record.confusion = matrix.tolist()
    rows = [("accuracy", int(matrix.trace()), len(truth))]
    rows += [(f"recall {c}", int(matrix[i, i]), int(matrix[i].sum())) for i, c in enumerate(classes)]
    ends = {metric: wilson_interval(right, total) for metric, right, total in rows if total}
    record.extra["wilson"] = {metric: [i.low, i.high] for metric, i in ends.items()}
    record.extra["reliability"] = [asdict(b) for b in reliability(truth, logits, **bootstrap)]
    record.extra["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    for metric, number in scores(truth, logits, classes, **bootstrap).items():
        record.add(metric, number, over="faces")
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def start_record(
    model: nn.Module, data: FaceDataset, name: str, split: str, settings: Mapping[str, Any]
) -> ResultRecord:
    """A record without numbers yet: which network, which output where it has several, on which faces."""
    facts, inference = about(data, split), getattr(model, "inference", None)
    network = {"model": type(model).__name__} | ({"inference": inference} if inference else {})
    return ResultRecord(
        name=name,
        what=f"{name}: {type(model).__name__} on {len(data)} faces of {facts['name']}",
        data=facts,
        classes=list(data.classes),
        settings={**network, **settings},
        seed=settings["seed"],
        versions={**versions(), "device": device_name(model)},
    )


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def device_name(model: nn.Module) -> str:
    """The name of the GPU that a network is on, or ``cpu``."""
    device = device_of(model)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
