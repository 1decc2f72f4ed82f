"""Turn a file of the original programs into safetensors with the names of this library.

  ferlib convert --architecture poster-v2-7 raf-db-model_best.pth poster_v2.safetensors
  ferlib convert --architecture btn-7 --part poster-v2 --mapping names.json RAFDB92.54.pth btn.safetensors
  ferlib convert --architecture mobilenet-faces faceres-deep.json mobilenet_faces.safetensors

Nothing in the file is executed: a checkpoint that holds objects of a training program is read, and the
objects are not. A mapping is a JSON or YAML file {name or prefix in the file: name or prefix here}, with null
for what is to be dropped; it gives a place to names that this library does not know, such as those of the
Batch Transformer Network's own parts.

Exit code 0, or 1 where the file does not fit; the report says which names, and their shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ferlib.weights import ARCHITECTURES, CheckpointError, checkpoints, place_official, read_weights
from ferlib.weights.names import read_mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib convert``."""
    known = ", ".join(ARCHITECTURES)
    parser.add_argument("--architecture", required=True, metavar="NAME", help=f"one of: {known}")
    parser.add_argument("--part", metavar="PART", help="only this part, such as poster-v2 of btn-7")
    parser.add_argument("--mapping", metavar="FILE", help="JSON or YAML with places for unknown names")
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
    print(report)
    if not report.complete:
        advice = "; --part or --mapping may help" if options.architecture.startswith("btn") else ""
        raise CheckpointError(f"{options.source} does not fit, nothing was written{advice}")
    checkpoints.save(target, tensors)
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size / 1e6:.1f} MB")
    return 0
