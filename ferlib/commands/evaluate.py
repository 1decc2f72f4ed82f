"""Measure a trained network, with 95 % confidence intervals, and write a record of it.

  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --calibrate
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --against runs/b/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --suite robustness
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --suite batch
  ferlib evaluate --data ~/RAF-DB --checkpoint RAFDB92.54.pth --recipe btn-rafdb
  ferlib evaluate --data ~/FERPlus --checkpoint pocket.onnx --json

A checkpoint of ours holds its recipe. An official one (.pth) is read without running anything in it, and
needs --recipe to say which network it is. A file of `ferlib export` (.onnx) is measured as `ferlib predict`
runs it. Expressions are matched by name, so that a network may be measured on another data set; a file that
holds no names of its classes needs --classes. Batches are
drawn at random (--seed), because the output of a batch transformer depends on the other images of the batch;
with --in-order they are taken as the folders have them, which in class folders puts faces of one expression
together.

--calibrate fits the temperature that calibrates the probabilities on the validation faces and keeps it in the
checkpoint, where this command and `ferlib export` find it. --suite robustness measures the same faces
occluded, at 28 pixels (and more, and fewer), dark, noisy and, where the renderer draws them, turned. --suite
batch measures what the size and the composition of the batch do.

Every measurement leaves a record: what, on which faces (with their fingerprint), every number with its
interval, settings, versions, device, time and commit, in the folder `evaluations` beside the checkpoint, or
where --record says.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from ferlib.commands.faces import HELD_OUT, Faces, add_face_arguments, choose_faces
from ferlib.commands.networks import Network
from ferlib.data.base import DataError, FaceDataset
from ferlib.data.labels import match_classes
from ferlib.data.prepare import DATASETS
from ferlib.evaluation import (
    RecordError,
    ResultRecord,
    batch_dependence,
    compare,
    evaluate,
    fit_temperature,
    predict,
    robustness,
)
from ferlib.evaluation.records import entry
from ferlib.training import bundled
from ferlib.training.device import choose_device

COMPARED = ("accuracy", "mean class accuracy", "macro F1")
#: How many faces a whole copy of each split has, of FER+ those with a majority label.
PUBLISHED = {
    "rafdb": DATASETS["rafdb"].published,
    "ferplus": {"train": 25045, "valid": 3191, "test": 3137},
    "affectnet7": {"test": 3500},
    "affectnet8": {"test": 4000},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib evaluate``."""
    add = parser.add_argument
    files = "best or last of a run, an official file or an exported one"
    add("--checkpoint", required=True, metavar="FILE", help=files)
    add_face_arguments(parser)
    add("--recipe", metavar="NAME", help=f"which network an official file is of: {', '.join(bundled())}")
    add("--mapping", metavar="FILE", help="JSON with places for names of an official file that are not known")
    names = "names of the outputs of files that hold none, in their order: neutral,happiness,..."
    add("--classes", metavar="A,B,...", help=names)
    add("--split", choices=("train", "valid", "test"), help="default test, or valid where there is no test")
    add("--batch-size", type=int, default=64, metavar="N", help="faces per batch (default 64)")
    add("--output", choices=("vit", "bt", "cba"), help="output of a batch transformer (default bt)")
    add("--in-order", action="store_true", help="batches in the order of the files, not at random")
    add("--seed", type=int, default=0, metavar="N", help="of the batches, the bootstrap and the suites")
    add("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default 1000)")
    add("--calibrate", action="store_true", help="fit the temperature on validation and keep it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--against", metavar="FILE", help="another network, compared on the same faces")
    what.add_argument("--suite", choices=("robustness", "batch"), help="more than the plain scores")
    add("--record", metavar="FILE", help="where the record goes (default: evaluations/ by the checkpoint)")
    add("--json", action="store_true", help="print JSON: scores, recall by class, faces, what was left out")
    add("--device", help="cpu, cuda, ... (default: the GPU where there is one)")


def run(options: argparse.Namespace) -> int:
    """Evaluate, write the record, print; return the exit status."""
    for name in ("batch_size", "resamples"):
        if (value := getattr(options, name)) < 1:
            raise DataError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    network = Network.find(options.checkpoint, options.recipe, options.mapping, options.classes)
    source = choose_faces(options.data, options.dataset, network.recipe.data, options.length)
    faces, split = _faces(source, options.split)
    place = _place(options, split)
    record = _measure(options, network, source, faces, split)
    record.command = getattr(options, "typed", "")
    if split == "valid" and source.holds_out:
        record.data["held out"] = f"every {HELD_OUT}th training face"
        print(f"valid: {record.data['held out']}, which training left out", file=sys.stderr)
    published = PUBLISHED.get(source.kind, {}).get(split)
    if published and not options.length:
        record.data["published"] = published
    _write(record, place, asked=bool(options.record))
    print(json.dumps(summary(record), indent=1) if options.json else _text(record))
    return 0


def _faces(source: Faces, split: str | None) -> tuple[FaceDataset, str]:
    if split:
        return source.open(split), split
    test, why = source.open_test()
    if test is not None:
        return test, "test"
    print(f"no test split, measured on validation ({why})", file=sys.stderr)
    return source.open("valid"), "valid"


def _measure(
    options: argparse.Namespace, network: Network, source: Faces, faces: FaceDataset, split: str
) -> ResultRecord:
    device = choose_device(options.device)

    def ready(network: Network, faces: FaceDataset) -> tuple[nn.Module, FaceDataset]:
        named = with_classes(faces, network.classes("name them with --classes A,B,..."))
        return network.build(len(named.classes), options.output).to(device), named

    other = None
    if options.against:
        other = Network.find(options.against, options.recipe, classes=options.classes)
    model, faces = ready(network, faces)
    shuffle = None if options.in_order else options.seed
    how = {"batch_size": options.batch_size, **network.inputs()}
    common = {"split": split, "seed": options.seed, "resamples": options.resamples, **how, "progress": True}
    if options.calibrate:
        valid = with_classes(source.open("valid"), faces.classes)
        temperature = fit_temperature(*predict(model, valid, shuffle=shuffle, progress=True, **how))
        network.keep_temperature(model, temperature)
        print(f"temperature {temperature:.3f}, fitted on {len(valid)} validation faces", file=sys.stderr)
    common["settings"] = {**network.facts(), "temperature": network.temperature(model)}
    if options.suite == "robustness":
        return robustness(model, faces, shuffle=shuffle, **common)
    if options.suite == "batch":
        return batch_dependence(model, faces, **common)
    first, labels = predict(model, faces, shuffle=shuffle, progress=True, **how)
    scale = 1.0 if network.exported else network.temperature(model)
    given = {"predictions": (first, labels), "temperature": scale}
    record = evaluate(model, faces, shuffle=shuffle, **given, **common)
    if other is None:
        return record
    rival, named = ready(other, faces)
    if named.classes != faces.classes:
        raise DataError(
            f"{options.against} has the classes {named.classes}, the other network {faces.classes}"
        )
    second, _ = predict(rival, faces, shuffle=shuffle, progress=True, **how | other.inputs())
    record.name, record.what = "comparison", f"{record.what}, against {other.path.name}"
    record.settings["against"] = other.facts()
    bootstrap = {"resamples": options.resamples, "seed": options.seed}
    for metric in COMPARED:
        found = compare(labels, first, second, record.classes, metric=metric, **bootstrap)
        record.add_difference("checkpoint", "against", found.difference, metric, over="faces")
        record.extra.setdefault("other", {})[metric] = found.second
    only = {"only the first right": found.only_first, "only the other right": found.only_second}
    record.extra["McNemar"] = {**only, "p": found.p_value}
    return record


def with_classes(faces: FaceDataset, classes: tuple[str, ...]) -> FaceDataset:
    """The same faces, labeled by the place of their expression among a network's classes.

    Raises:
        DataError: A class that the network does not have.
    """
    places = match_classes(classes, faces.classes, "the network")
    if faces.classes == classes:
        return faces
    named = copy.copy(faces)
    named.classes, named.labels = tuple(classes), places[faces.labels]
    return named


def summary(record: ResultRecord) -> dict[str, Any]:
    """What --json prints: the scores by name, recall by class name, faces, what was left out and why."""
    plain = {n.metric: n.value for n in record.numbers if not n.place}
    return {
        "accuracy": plain.get("accuracy"),
        "recall": {c: plain[f"recall {c}"] for c in record.classes if f"recall {c}" in plain},
        "faces": record.data["faces"],
        "left out": record.data.get("left out", {}),
        "classes": record.classes,
        "temperature": record.settings["temperature"],
        "data": record.data,
        "numbers": [entry(one) for one in (*record.numbers, *record.differences)],
    }


def _text(record: ResultRecord) -> str:
    lines = [f"{record.what}, {record.data['split']} split, 95 % intervals in brackets"]
    if (published := record.data.get("published")) not in (None, record.data["faces"]):
        lines += [f"{record.data['faces']:,} faces; a whole copy of this split has {published:,}"]
    lines += [f"left out, {n} times: {why}" for why, n in record.data.get("left out", {}).items()]
    lines += [record.table()]
    for name in ("depends on the batch", "largest change of a probability", "left out", "McNemar"):
        if found := record.extra.get(name):
            words = found.items() if isinstance(found, dict) else [("", found)]
            texts = (f"{value:.3g}" if isinstance(value, float) else str(value) for _, value in words)
            pairs = (f"{key} {text}".strip() for (key, _), text in zip(words, texts, strict=True))
            lines += [f"{name}: {', '.join(pairs)}"]
    lines += [f"temperature {record.settings['temperature']:.3f}"]
    counts = zip(record.classes, record.data["per class"], strict=True)
    if few := [f"{name} ({count})" for name, count in counts if 0 < count < 30]:
        lines += [f"few faces, so look at Wilson's intervals in the record: {', '.join(few)}"]
    return "\n".join(lines)


def _place(options: argparse.Namespace, split: str) -> Path:
    """Where the record goes: as asked, else a name in a folder beside the checkpoint."""
    if options.record:
        place = Path(options.record)
        if place.is_dir():
            raise DataError(f"--record {place}: it is a folder, expected a file such as {place}/record.json")
        folder = next(parent for parent in place.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):  # before the measuring, not after it
            raise DataError(f"--record {place}: {folder} is no folder that can be written to")
        return place
    what = options.suite or (f"against-{Path(options.against).stem}" if options.against else "scores")
    checkpoint = Path(options.checkpoint)
    return checkpoint.parent / "evaluations" / f"{checkpoint.stem}-{split}-{what}.json"


def _write(record: ResultRecord, place: Path, *, asked: bool) -> None:
    """Write the record; without --record under a name that no other measurement has, also one at once."""
    try:
        first, number = place, 1
        while not asked:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                place.touch(exist_ok=False)
                break
            except FileExistsError:
                number += 1
                place = first.with_stem(f"{first.stem}-{number}")
        record.save(place)
    except (RecordError, OSError) as error:
        if asked:
            raise
        print(f"{error}; or say where with --record", file=sys.stderr)
        return
    print(f"record: {place}", file=sys.stderr)
