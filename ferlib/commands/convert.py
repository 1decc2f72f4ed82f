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
import json
from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import Tensor

from ferlib.models.official import CheckpointError, architectures, place_official
from ferlib.models.official_files import read_official
from ferlib.training.files import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib convert``. Shape: parser in, nothing out."""
    known = ", ".join(architectures())
    parser.add_argument("--architecture", required=True, metavar="NAME", help=f"one of: {known}")
    parser.add_argument("--part", metavar="PART", help="ask only for this part, such as poster-v2 of btn-7")
    parser.add_argument("--mapping", metavar="FILE", help="JSON or YAML with places for unknown names")
    parser.add_argument("source", metavar="IN", help="the original file")
    parser.add_argument("target", metavar="OUT", help="the file to write, *.safetensors")


def run(options: argparse.Namespace) -> int:
    """Read, place, report, write. Shape: parsed options -> exit code."""
    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target.name}: the file to write is called *.safetensors")
    mapping = read_mapping(options.mapping) if options.mapping else None
    found = read_official(options.source)
    tensors, report = place_official(found, options.architecture, part=options.part, mapping=mapping)
    print(report)
    if not report.complete:
        advice = "; --part or --mapping may help" if options.architecture.startswith("btn") else ""
        raise CheckpointError(f"{options.source} does not fit, nothing was written{advice}")
    write(target, tensors, report.architecture)
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size / 1e6:.1f} MB")
    return 0


def write(path: Path, tensors: dict[str, Tensor], architecture: str) -> None:
    """A safetensors file, whole or not at all. Shape: names to tensors of any shape."""
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata={"architecture": architecture})
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def read_mapping(path: str | Path) -> dict[str, str | None]:
    """{name or prefix in the file: name or prefix here, or None}, from JSON or YAML. Shape: path -> dict.

    Raises: ``CheckpointError`` for a file that is not there or holds anything else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"cannot read the mapping {path}: {error}") from error
    good = isinstance(found, dict) and all(
        isinstance(name, str) and (place is None or isinstance(place, str)) for name, place in found.items()
    )
    if not good:
        raise CheckpointError(f"the mapping {path.name} is not of the form {{name: name, or null}}")
    return found
