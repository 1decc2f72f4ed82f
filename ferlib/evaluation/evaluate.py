"""Measure a network on a data set: predictions, then a record of what they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input
from ferlib.evaluation import metrics
from ferlib.evaluation.records import ResultRecord, fingerprint
from ferlib.training.runs import versions
from ferlib.training.tally import logits_of


@torch.no_grad()
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
    in
    which batch: ``shuffle`` (a seed) draws the batches at random, None takes the faces in order. The model is
    put into evaluation mode for the while and given back as it was.

    Shape: N faces -> logits (N, K), labels (N,), on the CPU. Raises ``ValueError`` for an empty data set.
    Chapter 7.
    """
    if len(data) == 0:
        raise ValueError("the data set is empty: there is nothing to predict")
    device = torch.device(device) if device else next(model.parameters()).device
    order = torch.arange(len(data))
    if shuffle is not None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(shuffle))
    training = model.training
    model.eval()
    try:
        parts = [
            logits_of(
                model(model_input(data.batch(rows)["image"].to(device), image_size, interpolation))
            ).cpu()
            for rows in order.split(batch_size)
        ]
    finally:
        model.train(training)
    logits = torch.cat(parts)
    return logits[order.argsort()], torch.as_tensor(data.labels)


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
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
) -> ResultRecord:
    """Accuracy, mean class accuracy, macro F1 and each class's recall with 95 % intervals; confusion matrix.

    Accuracy and recalls have Wilson's interval, the two means the percentile bootstrap over faces
    (``resamples``, ``seed``).

    Shape: N faces of K classes -> ``ResultRecord`` with a (K, K) confusion matrix. Chapter 7.
    """
    options = {
        "batch_size": batch_size, "shuffle": shuffle, "image_size": image_size, "interpolation": interpolation
    }  # fmt: skip
    logits, labels = predict(model, data, device=device, **options)
    truth, guess = labels.numpy(), logits.argmax(1).numpy()
    classes = len(data.classes)
    matrix = metrics.confusion_matrix(truth, guess, classes)
    bootstrap = {"resamples": resamples, "seed": seed}
    numbers = {
        "accuracy": metrics.accuracy_interval(truth, guess),
        "mean class accuracy": metrics.bootstrap_interval(
            lambda y, p: metrics.mean_class_accuracy(y, p, classes), truth, guess, **bootstrap
        ),
        "macro F1": metrics.bootstrap_interval(
            lambda y, p: metrics.macro_f1(y, p, classes), truth, guess, **bootstrap
        ),
    }
    for index, label in enumerate(data.classes):
        if matrix[index].sum():
            right, total = int(matrix[index, index]), int(matrix[index].sum())
            numbers[f"recall {label}"] = metrics.wilson_interval(right, total)
    inference = {"inference": model.inference} if isinstance(getattr(model, "inference", None), str) else {}
    return ResultRecord(
        name=name,
        what=what or f"{type(model).__name__} on {len(data)} faces of {type(data).__name__}",
        numbers=numbers,
        data={"name": type(data).__name__, "split": split or getattr(data, "split", ""), "faces": len(data),
              "per class": np.bincount(truth, minlength=classes).tolist(), "fingerprint": fingerprint(data)},
        classes=list(data.classes),
        confusion=matrix.tolist(),
        settings={"model": type(model).__name__, **inference, **options, **bootstrap, **(settings or {})},
        extra={"parameters": sum(parameter.numel() for parameter in model.parameters())},
        seed=seed,
        versions=versions(),
    )  # fmt: skip
