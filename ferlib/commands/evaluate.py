"""Measure a trained network, with 95 % confidence intervals, and write a record of it.

  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --against runs/b/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors runs/b/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --suite robustness
  ferlib evaluate --data ~/FERPlus --checkpoint runs/a/best.safetensors --suite batch
  ferlib evaluate --data ~/RAF-DB --checkpoint RAFDB92.54.pth --recipe btn-rafdb

A checkpoint of ours holds its recipe. An official one (.pth) is read without running anything in it, and
needs --recipe to say which network it is. Batches are drawn at random (--seed), because the answer of a
batch transformer depends on who is in the batch; with --in-order they are taken as the folders have them,
which in class folders puts faces of one expression together.

--suite robustness measures the same faces occluded, at 28 pixels (and more, and fewer), dark, noisy and,
where the renderer draws them, turned; --list NAME=FILE adds a published list of difficult photographs.
--suite batch measures what the size and the composition of the batch do.

Every measurement leaves a record: what, on which faces (with their fingerprint), every number with its
interval, settings, versions, device, time and commit, in the folder `evaluations` beside the checkpoint, or
where --record says.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from torch import Tensor

from ferlib.commands.faces import add_face_arguments, choose_faces
from ferlib.commands.networks import Network
from ferlib.data.base import DataError, FaceDataset
from ferlib.evaluation import (
    CORRUPTIONS,
    Interval,
    RecordError,
    ResultRecord,
    batch_dependence,
    batches,
    compare,
    corruptions,
    evaluate,
    predict,
    robustness,
)
from ferlib.training import RecipeError, bundled
from ferlib.training.device import choose_device
from ferlib.weights import checkpoints

COMPARED = ("accuracy", "mean class accuracy", "macro F1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib evaluate``. Shape: parser in, nothing out."""
    add = parser.add_argument
    add("--checkpoint", required=True, nargs="+", metavar="FILE",
        help="best or last of a run, or an official file; of several, the mean of their answers")  # fmt: skip
    add_face_arguments(parser)
    add("--recipe", metavar="NAME", help=f"which network an official file is of: {', '.join(bundled())}")
    add("--mapping", metavar="FILE", help="JSON with places for names of an official file that are not known")
    add("--split", choices=("train", "valid", "test"), help="default test, or valid where there is no test")
    add("--batch-size", type=int, default=64, metavar="N", help="faces per batch (default 64)")
    add("--output", choices=("vit", "bt", "cba"), help="answer of a batch transformer (default bt)")
    add("--in-order", action="store_true", help="batches in the order of the files, not at random")
    add("--seed", type=int, default=0, metavar="N", help="of the batches, the bootstrap and the suites")
    add("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default 1000)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--against", metavar="FILE", help="another network, compared on the same faces")
    what.add_argument("--suite", choices=("robustness", "batch"), help="more than the plain scores")
    add("--against-recipe", metavar="NAME", help="which network --against is of, as --recipe")
    add("--against-output", choices=("vit", "bt", "cba"), help="its answer, as --output")
    add("--kinds", nargs="+", choices=list(CORRUPTIONS), metavar="KIND",
        help=f"only these of the robustness suite: {', '.join(CORRUPTIONS)}")  # fmt: skip
    add("--severities", nargs="+", type=int, default=[1, 2, 3, 4, 5], metavar="N", help="only these, 1 to 5")
    add("--list", action="append", default=[], metavar="NAME=FILE", dest="lists",
        help="a published list of difficult photographs, for the robustness suite")  # fmt: skip
    add("--sizes", nargs="+", type=int, default=[1, 2, 8, 64, 256], metavar="N",
        help="faces per batch, for the batch suite (default 1 2 8 64 256)")  # fmt: skip
    add("--rounds", type=int, default=100, metavar="N", help="random batches per face, for the batch suite")
    add(
        "--record", metavar="FILE", help="where to write the record (default: evaluations/ by the checkpoint)"
    )
    add("--device", help="cpu, cuda, ... (default: the GPU where there is one)")
    add("--gpu", type=int, metavar="N", help="the GPU of this number")


def run(options: argparse.Namespace) -> int:
    """Evaluate, print, write the record. Shape: parsed options -> exit code. Raises ``DataError``."""
    for name, least in (("batch-size", 1), ("resamples", 1), ("rounds", 2)):
        if (value := getattr(options, name.replace("-", "_"))) < least:
            raise DataError(f"--{name} {value}: expected at least {least}")
    if min(options.sizes) < 1:
        raise DataError(f"--sizes {min(options.sizes)}: expected at least one face in a batch")
    try:
        network = Network.find(options.checkpoint, options.recipe, options.mapping)
        other = None
        if options.against:
            other = Network.find(options.against, options.against_recipe or options.recipe)
        faces, split = _faces(options, network)
        place = _place(options, split)
        record = _measure(options, network, other, faces, split)
        record.command = getattr(options, "typed", "")
        print(_text(record, split, options.suite))
        _write(record, place, asked=bool(options.record))
    except (checkpoints.CheckpointError, RecipeError, RecordError) as error:
        raise DataError(str(error)) from error
    return 0


def _measure(
    options: argparse.Namespace,
    network: Network,
    other: Network | None,
    faces: FaceDataset,
    split: str,
) -> ResultRecord:
    device = choose_device(options.device if options.gpu is None else f"cuda:{options.gpu}")
    model = network.build(len(faces.classes), options.output).to(device)
    shuffle = None if options.in_order else options.seed
    common = {
        "split": split, "batch_size": options.batch_size, "seed": options.seed, "settings": network.facts(),
        "resamples": options.resamples, **network.inputs(),
    }  # fmt: skip
    if options.suite == "robustness":
        lists = _lists(options.lists)
        return robustness(
            model, faces, kinds=options.kinds, severities=options.severities, lists=lists, shuffle=shuffle,
            report=_report, **common,
        )  # fmt: skip
    if options.suite == "batch":
        return batch_dependence(
            model, faces, sizes=options.sizes, rounds=options.rounds, report=_report, **common
        )
    if other is None:
        return evaluate(model, faces, shuffle=shuffle, **common)
    rival = other.build(len(faces.classes), options.against_output).to(device)
    (first, labels), (second, _) = (
        predict(net, faces, batch_size=options.batch_size, shuffle=shuffle, **source.inputs())
        for net, source in ((model, network), (rival, other))
    )
    record = evaluate(model, faces, shuffle=shuffle, predictions=(first, labels), **common)
    _add_comparison(record, labels, first, second, options, other)
    return record


def _add_comparison(
    record: ResultRecord, labels: Tensor, first: Tensor, second: Tensor, options: argparse.Namespace,
    other: Network,
) -> None:  # fmt: skip
    bootstrap = {"resamples": options.resamples, "seed": options.seed}
    record.name, record.what = "comparison", f"{record.what}, against {other.paths[0].name}"
    record.settings["against"] = {**other.facts(), "output": options.against_output}
    for metric in COMPARED:
        found = compare(labels, first, second, record.classes, metric=metric, **bootstrap)
        record.add_difference("checkpoint", "against", found.difference, metric, over="faces")
        record.extra.setdefault("other", {})[metric] = found.second
    record.extra["McNemar"] = {
        "only the first right": found.only_first, "only the other right": found.only_second,
        "p": found.p_value,
    }  # fmt: skip


def _text(record: ResultRecord, split: str, suite: str | None) -> str:
    head = f"{record.what}, {split} split, 95 % intervals in brackets\n"
    if suite == "robustness":
        tables = "\n".join(corruptions.table(record, metric) for metric in corruptions.METRICS)
        return head + "\n".join(
            [tables, *(f"{k}: left out, {w}" for k, w in record.extra["left out"].items())]
        )
    if suite == "batch":
        return head + batches.table(record)
    text = head + record.table()
    counts = zip(record.classes, record.data["per class"], strict=True)
    if few := [f"{name} ({count})" for name, count in counts if 0 < count < 30]:
        text += f"\nfew faces, so look at Wilson's intervals in the record: {', '.join(few)}"
    if "McNemar" in record.extra:
        found = record.extra["McNemar"]
        text += (
            f"\nright only here {found['only the first right']}, only there {found['only the other right']} "
            f"faces: McNemar p = {found['p']:.2g}"
        )
    return text


def _faces(options: argparse.Namespace, network: Network) -> tuple[FaceDataset, str]:
    faces = choose_faces(options.data, options.dataset, network.recipe.data, options.length)
    if options.split:
        return faces.open(options.split), options.split
    test, why = faces.open_test()
    if test is not None:
        return test, "test"
    print(f"no test split, measured on validation ({why})", file=sys.stderr)
    return faces.open("valid"), "valid"


def _lists(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise DataError(f"--list {word}: expected NAME=FILE, such as pose45=pose_45_ferplus_list.txt")
        found[name] = path
    return found


def _place(options: argparse.Namespace, split: str) -> Path:
    """Where the record goes: as asked, else a name beside the checkpoint that is not taken yet."""
    if options.record:
        place = Path(options.record)
        if place.is_dir():
            raise DataError(f"--record {place}: it is a folder, expected a file such as {place}/record.json")
        folder = next(parent for parent in place.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):  # before the measuring, not after it
            raise DataError(f"--record {place}: {folder} is no folder that can be written to")
        return place
    checkpoint = Path(options.checkpoint[0])
    what = options.suite or (f"against-{Path(options.against).stem}" if options.against else "scores")
    stem = "-and-".join(Path(one).stem for one in options.checkpoint)
    folder, name = checkpoint.parent / "evaluations", f"{stem}-{split}-{what}"
    place, number = folder / f"{name}.json", 1
    while place.exists():
        number += 1
        place = folder / f"{name}-{number}.json"
    return place


def _write(record: ResultRecord, place: Path, *, asked: bool) -> None:
    try:
        record.save(place)
    except RecordError as error:
        if asked:
            raise
        print(f"{error}; or say where with --record", file=sys.stderr)
        return
    print(f"record: {place}", file=sys.stderr)


def _report(key: str, accuracy: Interval) -> None:
    print(f"  {key}: accuracy {accuracy.percent()}", file=sys.stderr)
