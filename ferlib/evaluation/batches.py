"""The batch suite: how much a network's prediction for one face depends on the other images of the batch.

In the Batch Transformer Network only the last step looks at the other images. So a face is encoded once, and
a thousand batches cost a thousand small attentions. Any other network predicts each batch as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input
from ferlib.evaluation.corruptions import cell, in_memory
from ferlib.evaluation.evaluate import PREDICT, about_model, device_name, device_of
from ferlib.evaluation.intervals import Interval, mean_interval
from ferlib.evaluation.metrics import confusion_matrix
from ferlib.evaluation.records import ResultRecord, about
from ferlib.models import BatchTransformerNetwork
from ferlib.models.common import evaluating
from ferlib.training import versions
from ferlib.training.loop import logits_of

COMPOSITIONS = ("shuffled", "sorted by class", "one class only")
PROBE = 256  # faces by which a network that predicts whole batches is tried for dependence
VISIBLE = 1e-3  # of a probability: rounding in batches of another shape stays below


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
    if how not in COMPOSITIONS:
        raise ValueError(f"composition is {how!r}, expected one of {', '.join(COMPOSITIONS)}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if how == "shuffled":
        return list(order.split(size))
    order = order[labels[order].argsort(stable=True)]
    if how == "sorted by class":
        return list(order.split(size))
    return [part for label in labels.unique() for part in order[labels[order] == label].split(size)]


class BatchedFaces:
    """The N faces of a data set, of which any n can be predicted as one batch.

    A Batch Transformer Network encodes each face once, into class maps ``query`` and ``key`` (N, C, 49) and
    scores ``value`` (N, C); any other network runs anew for each batch. Both ways agree up to rounding.

    Args:
        model: The network.
        data: N faces.
        batch_size: Faces that are encoded at a time.
        image_size, interpolation: As in :func:`ferlib.evaluation.predict`.
        whole: Run the network anew for each batch in any case.

    Raises:
        ValueError: The data set is empty.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        data: FaceDataset,
        *,
        batch_size: int = 64,
        image_size: int | None = None,
        interpolation: str = "bicubic",
        whole: bool = False,
    ) -> None:
        if len(data) == 0:
            raise ValueError("the data set is empty: there is nothing to encode")
        self.model, self.data, self.labels = model, data, torch.as_tensor(data.labels)
        self.resizing = (image_size, interpolation)
        self.encoded = isinstance(model, BatchTransformerNetwork) and not whole
        parts = []
        with evaluating(model):
            for rows in torch.arange(len(data)).split(batch_size) if self.encoded else ():
                tokens, query, key = model.encode(self._images(rows))
                parts.append((query, key, model.vit(tokens)))
        if parts:
            self.query, self.key, self.value = (torch.cat(part) for part in zip(*parts, strict=True))

    def _images(self, rows: Tensor) -> Tensor:
        return model_input(self.data.batch(rows)["image"].to(device_of(self.model)), *self.resizing)

    @torch.no_grad()
    def logits(self, rows: Tensor) -> Tensor:
        """The logits (n, K), on the CPU, of the faces ``rows`` (n,) as one batch."""
        with evaluating(self.model):
            if not self.encoded:
                return logits_of(self.model(self._images(rows))).cpu()
            rows = rows.to(self.value.device)
            query, key, value = self.query[rows], self.key[rows], self.value[rows]
            if self.model.inference == "vit":
                return value.cpu()
            cba, bt = self.model.batch_transformer(query, key, value)
            return (bt if self.model.inference == "bt" else cba).float().cpu()

    def predict(self, batches: list[Tensor]) -> Tensor:
        """Logits (N, K) of all faces, in their order, given the rows of the batches that they stand in."""
        logits = torch.cat([self.logits(rows) for rows in batches])
        return logits[torch.cat(batches).argsort()]


def batch_dependence(
    model: nn.Module,
    data: FaceDataset,
    *,
    sizes: Sequence[int] = (1, 2, 8, 64, 256),
    rounds: int = 100,
    name: str = "batch dependence",
    split: str = "",
    resamples: int = 1000,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    report: Callable[[str, Interval], None] | None = None,
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
    Chapters 4 and 7.

    Args:
        model: The network.
        data: N faces of K classes.
        sizes: Faces in a batch.
        rounds: Random batches for every face.
        name, split, settings: For the record.
        resamples, seed: Of the bootstrap; the seed also draws the batches.
        report: Called with the name of each composition and its accuracy when it is done.
        **options: Those of :func:`ferlib.evaluation.predict` but ``shuffle``.
    """
    start, options = time.perf_counter(), PREDICT | options
    shuffle = options.pop("shuffle")
    if shuffle is not None:
        raise ValueError(f"shuffle is {shuffle!r}: this suite composes the batches itself, by its seed")
    facts, data = about(data, split), in_memory(data)
    faces, size = BatchedFaces(model, data, **options), options["batch_size"]
    labels, n = faces.labels, len(data)
    probed = torch.arange(n if faces.encoded else min(n, PROBE))
    alone = torch.cat([faces.logits(row) for row in probed.split(1)])
    among = faces.predict(compose(labels, size, "shuffled", seed))
    moved = float((alone.softmax(1) - among[probed].softmax(1)).abs().max())
    bootstrap = {"resamples": resamples, "seed": seed}
    record = ResultRecord(
        name=name,
        what=f"batch dependence of {type(model).__name__} on {n} faces of {facts['name']}",
        data=facts,
        classes=list(data.classes),
        confusion=confusion_matrix(labels, among.argmax(1), len(data.classes)).tolist(),
        settings={**about_model(model), "sizes": list(sizes), "rounds": rounds, **options, **bootstrap,
                  **(settings or {})},
        extra={"depends on the batch": moved > VISIBLE, "largest change of a probability": moved},
        seed=seed,
        versions={**versions(), "device": device_name(model)},
    )  # fmt: skip

    def count(arm: str, condition: str | None, logits: Tensor, base: NDArray | None = None) -> NDArray:
        right = (logits.argmax(1) == labels).numpy().astype(float)
        place = {"arm": arm, "condition": condition, "over": "faces"}
        found = record.add("accuracy", mean_interval(right, **bootstrap), **place)
        if base is not None:
            record.add("accuracy change", mean_interval(right - base, **bootstrap), **place)
        if report is not None:
            report(", ".join(filter(None, (arm, condition))), found)
        return right

    if moved > VISIBLE:
        if len(probed) < n:
            alone = faces.predict(list(torch.arange(n).split(1)))
        base = count("alone", None, alone)
        for composed in (composed for composed in sizes if composed > 1):
            for how in COMPOSITIONS:
                logits = faces.predict(compose(labels, composed, how, seed))
                count(how, f"batches of {composed}", logits, base)
        size = min(size, max(2, n // 2))
        given, true = torch.empty(rounds, n, dtype=torch.int64), torch.empty(rounds, n)
        for i in range(rounds):
            logits = faces.predict(compose(labels, size, "shuffled", seed + 1 + i))
            given[i] = logits.argmax(1)
            true[i] = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        low, high = np.quantile(true.numpy(), [0.025, 0.975], axis=0)
        changes = mean_interval((given != given[0]).any(0), **bootstrap)
        record.add("label changes", changes, over="faces")
        ranges = mean_interval(high - low, **bootstrap)
        record.add("range of the true class's probability", ranges, over="faces")
        record.extra["batch size of the spread"] = size
        rights = (given == labels).double().mean(1)
        record.extra["accuracy by round"] = [round(float(right), 5) for right in rights]
    else:
        count("any batch", None, among)
    record.seconds = round(time.perf_counter() - start, 2)
    return record


def table(record: ResultRecord) -> str:
    """A batch record as text: compositions down, sizes across, then the spread of single predictions."""
    moved = record.extra["largest change of a probability"]
    if not record.extra["depends on the batch"]:
        found = record.get("accuracy", "any batch")
        return (
            "no dependence on the batch: between a face alone and in a batch no probability moves by more "
            f"than {moved:.1g}\naccuracy  {found.percent()}"
        )
    sizes = [size for size in record.settings["sizes"] if size > 1]
    lines = [
        f"the prediction depends on the batch: a probability moves by up to {moved:.2f}",
        "accuracy, %, with 95 % intervals",
        f"{'alone':<17}{cell(record.get('accuracy', 'alone'))}",
        f"{'faces in a batch':<17}" + "".join(f"{size:<18}" for size in sizes),
    ]
    for how in COMPOSITIONS:
        cells = (cell(record.get("accuracy", how, f"batches of {size}")) for size in sizes)
        lines.append((f"{how:<17}" + "".join(f"{text:<18}" for text in cells)).rstrip())
    rounds, size = record.settings["rounds"], record.extra["batch size of the spread"]
    width = record.get("range of the true class's probability")
    lines.append(f"each face in {rounds} random batches of {size}:")
    ends = f"{width.value:.3f} ({width.low:.3f}-{width.high:.3f})"
    changed = record.get("label changes").percent()
    lines.append(f"  faces that are not always given the same class    {changed}")
    lines.append(f"  95 % range of the true class's probability, mean  {ends}")
    return "\n".join(lines)
