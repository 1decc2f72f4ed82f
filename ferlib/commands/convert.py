"""Turn a file of the original programs into safetensors with the names of this library.

  ferlib convert --architecture poster-v2-7 raf-db-model_best.pth poster_v2.safetensors
  ferlib convert --architecture btn-7 --part poster-v2 --mapping names.json RAFDB92.54.pth btn.safetensors
  ferlib convert --architecture mobilenet-faces faceres-deep.json mobilenet_faces.safetensors

Nothing in the file is executed: a checkpoint that holds objects of a training program is read, and the
objects are not. A mapping is a JSON file {name or prefix in the file: name or prefix here}, with null
for what is to be dropped; it gives a place to names that this library does not know, such as those of the
Batch Transformer Network's own parts.

The names of the classes are kept in the file, in the order of ferlib.data: FER+ (EMOTIONS_FERPLUS) for
vt-nr-swin-base, AffectNet (EMOTIONS_AFFECTNET) for poster-v2-8 and btn-8. Seven expressions are RAF-DB's
(EMOTIONS_RAFDB) or AffectNet's (the first seven of EMOTIONS_AFFECTNET): the name under which the file was
published says which (raf-db-model_best.pth, RAFDB92.54.pth, affectnet-7-model_best.pth, ...), else --dataset,
without which the file gets no names and a line says so.

Exit code 0, or 1 where the file does not fit; the report says which names, and their shapes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from contextlib import suppress
from pathlib import Path

from ferlib.data.labels import CLASSES
from ferlib.errors import class_names, printable
from ferlib.weights import ARCHITECTURES, CheckpointError, checkpoints, place_official, read_weights
from ferlib.weights.names import read_mapping

#: Whose expressions an original network tells; of two, the name of the file decides.
EXPRESSIONS = {
    "vt-nr-swin-base": ("ferplus",),
    "poster-v2-7": ("rafdb", "affectnet7"),
    "poster-v2-8": ("affectnet8",),
    "btn-7": ("rafdb", "affectnet7"),
    "btn-8": ("affectnet8",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib convert``."""
    known = ", ".join(ARCHITECTURES)
    parser.add_argument("--architecture", required=True, metavar="NAME", help=f"one of: {known}")
    parser.add_argument("--part", metavar="PART", help="only this part, such as poster-v2 of btn-7")
    parser.add_argument("--mapping", metavar="FILE", help="JSON with places for unknown names")
    parser.add_argument("--dataset", choices=CLASSES, help="whose expressions it tells, and in whose order")
    parser.add_argument("--json", action="store_true", help="print JSON: file, architecture, counts, classes")
    parser.add_argument("source", metavar="IN", help="the original file")
    parser.add_argument("target", metavar="OUT", help="the file to write, *.safetensors")


def run(options: argparse.Namespace) -> int:
    """Read, place, report, write."""
    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target.name}: the file to write is called *.safetensors")
    for given in filter(None, (options.source, options.mapping)):
        if target.exists() and Path(given).exists() and target.samefile(given):
            raise CheckpointError(f"{target} is read, and would be overwritten: choose another file to write")
    mapping = read_mapping(options.mapping) if options.mapping else None
    found = read_weights(options.source)
    tensors, report = place_official(found, options.architecture, part=options.part, mapping=mapping)
    lines = map(printable, str(report).splitlines())
    print(*lines, sep="\n", file=sys.stderr if options.json else sys.stdout)
    if not report.complete:
        advice = "; --part or --mapping may help" if options.architecture.startswith("btn") else ""
        raise CheckpointError(f"{options.source} does not fit, nothing was written{advice}")
    classes = _classes(options, found.state.get("classes"))
    checkpoints.save(target, tensors, {"classes": classes} if classes else None)
    size = target.stat().st_size
    if options.json:
        names = {"matched": report.matched, "unmatched": report.unexpected}
        names |= {"set_aside": report.set_aside, "at_start": report.at_start}
        counts = {name: len(which) for name, which in names.items()}
        facts = {"architecture": report.architecture, "part": report.part, "classes": classes}
        print(json.dumps({"file": str(target), "bytes": size, **facts, **counts}))
        return 0
    print(f"{target}: {len(tensors)} tensors, {size / 1e6:.1f} MB")
    if classes:
        print(printable(f"classes: {', '.join(classes)}"))
    return 0


def _classes(options: argparse.Namespace, stored: object) -> list[str] | None:
    """The names of the classes in the order of the network's outputs; None where there are none, or unknown.

    ``stored`` is what the file says of them, if it is one of ours.
    """
    known = EXPRESSIONS.get(options.architecture, ())
    count = len(CLASSES[known[0]]) if known else 0
    if options.dataset:
        fitting = [name for name, classes in CLASSES.items() if len(classes) == count]
        if options.dataset not in fitting:
            expected = f"expected one of {', '.join(fitting)}" if fitting else "it tells none, leave it out"
            raise CheckpointError(
                f"--dataset {options.dataset} has other expressions than {options.architecture}: {expected}"
            )
        return list(CLASSES[options.dataset])
    with suppress(ValueError):
        if len(names := class_names(stored)) == count:
            return list(names)
    letters = re.sub("[^a-z]", "", Path(options.source).name.lower())
    found = [name for name in known if letters.startswith(name.rstrip("78"))] or known
    if len(found) > 1:
        print(
            f"the file gets no class names: {options.architecture} is of {' or '.join(found)}, and "
            f"{Path(options.source).name} does not say which; add --dataset",
            file=sys.stderr,
        )
        return None
    return list(CLASSES[found[0]]) if found else None
