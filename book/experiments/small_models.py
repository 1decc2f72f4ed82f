"""The two small networks on real FER+ that the evaluation records compare, and what the records share.

``batch``: trained with the batch's losses (``small_model_ferplus``), its BT output, batches of 64 at
random. ``own``: the same network's ViT output. ``alone``: its twin, trained without the batch's losses
(``small_model_ferplus --alone``). All are measured on the validation split, which also chose the first one's
epoch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from book.experiments import script
from ferlib.data import FERPlus
from ferlib.data.base import FaceDataset
from ferlib.data.faces import SomeFaces
from ferlib.evaluation import ResultRecord, about
from ferlib.models import btn_small
from ferlib.training import versions
from ferlib.weights import checkpoints

ANSWERS = {"batch": "bt", "own": "vit", "alone": "vit"}
BATCH_SIZE, RESAMPLES = 64, 1000


def arguments(description: str | None) -> argparse.Namespace:
    """Where the faces and the two trained networks are."""
    parser = script.parser(description, data=True)
    add = parser.add_argument
    add("--batch", type=Path, default=Path("runs/small_model_ferplus/best.safetensors"))
    add("--alone", type=Path, default=Path("runs/small_model_alone/best.safetensors"))
    add("--faces", type=int, help="only so many of the real faces, where time is short")
    return parser.parse_args()


def models(options: argparse.Namespace) -> dict[str, nn.Module]:
    """The networks by name, each giving its output."""
    found = {}
    for name, answer in ANSWERS.items():
        found[name] = btn_small(8, inference=answer).eval().to(memory_format=torch.channels_last)
        checkpoints.load(options.alone if name == "alone" else options.batch, found[name])
    return found


def faces(options: argparse.Namespace) -> FaceDataset:
    """The validation faces, or so many of them, drawn at random but always the same."""
    return script.some(FERPlus(options.data, "valid"), options.faces)


def record(name: str, what: str, data: FaceDataset, **parts) -> ResultRecord:
    """A record of these networks: data, settings, versions and command are said once."""
    settings = {"model": "btn_small", "answers": ANSWERS, "batch_size": BATCH_SIZE, "shuffle": 0}
    return ResultRecord(
        name=name,
        what=what,
        data=about(data, "valid"),
        classes=list(data.classes),
        settings=settings | {"resamples": RESAMPLES} | parts.pop("settings", {}),
        versions={**versions(), "device": "cpu"},
        command=f"python -m book.experiments.{Path(sys.argv[0]).stem} --data FERPlus"
        + (f" --faces {len(data)}" if isinstance(data, SomeFaces) else ""),
        **parts,
    )
