"""The whole system of the Neural Resizer paper: straighten, resize, look, decide; around any ``timm`` model.

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2 and its released code. Chapter 2 builds the front, chapter 6 trains the whole.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ferlib.models.official import Architecture, CheckpointError, mismatch, register, rename
from ferlib.models.official_files import read_official
from ferlib.models.resizer import OFFICIAL_NAMES as RESIZER_NAMES
from ferlib.models.resizer import FixedResizer, NeuralResizer
from ferlib.models.spatial_transformer import OFFICIAL_NAMES as TRANSFORMER_NAMES
from ferlib.models.spatial_transformer import SpatialTransformer

PAPER_BACKBONE = "swin_base_patch4_window7_224"


def classification_head(
    width: int, num_classes: int, *, hidden: int = 512, dropout: float = 0.5
) -> nn.Sequential:
    """The paper's classifier on top of a backbone: Linear, BatchNorm, ReLU, Dropout, Linear.

    Shape: features ``(B, width)`` in, logits ``(B, num_classes)`` out. In training the batch norm needs B >
    1.
    Source: released code of the Neural Resizer (1024 - 512 - 8 on Swin-B). Chapter 2.
    """
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )


class ResizedTransformer(nn.Module):
    r"""A spatial transformer, a resizer, a pretrained backbone and the paper's head in one network.

    .. math:: \mathrm{logits} = \mathrm{head}(\mathrm{backbone}(\mathrm{resizer}(\mathrm{stn}(x))))

    Parameters
    ----------
    backbone: the name of any ``timm`` classifier; the paper's best uses ``swin_base_patch4_window7_224``.
    num_classes: how many expressions.
    resizer: ``"neural"``, or a fixed rule to compare with: ``"nearest"``, ``"bilinear"``, ``"bicubic"``,
        ``"antialiased"``.
    spatial_transformer: whether faces are straightened first.
    in_size, out_size: pixels per side of the images given and of the images the backbone sees. A backbone
        with a fixed size is built for ``out_size``.
    pretrained: take the backbone's weights from where ``timm`` publishes them (needs a network, once).
    pretrained_file: or from a local file, ``.safetensors`` or a torch file; loaded strictly.
    resizer_options: passed to ``NeuralResizer`` (``channels``, ``blocks``, ``sampling``, ...).
    backbone_options: passed to ``timm.create_model`` (``drop_path_rate``, ...).

    Shape: ``(B, 3, in_size, in_size)``, normalised as the backbone expects (ImageNet mean and deviation), in;
    logits ``(B, num_classes)`` out. ``resize`` gives what the backbone sees, ``(B, 3, out_size, out_size)``.
    The paper's choice has 89,997,139 parameters.

    Raises: ``ValueError`` for an unknown backbone (with the names most like it) or resizer;
    ``CheckpointError`` for a file whose weights do not all fit, listing them.

    Source: Hwang et al. 2022, figure 1; released code, models/SwinT.py. Chapters 2 and 6.
    """

    def __init__(
        self,
        backbone: str = PAPER_BACKBONE,
        num_classes: int = 8,
        *,
        resizer: str = "neural",
        spatial_transformer: bool = True,
        in_size: int = 384,
        out_size: int = 224,
        hidden: int = 512,
        dropout: float = 0.5,
        pretrained: bool = False,
        pretrained_file: str | Path | None = None,
        resizer_options: dict[str, Any] | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if pretrained and pretrained_file is not None:
            raise ValueError("give either pretrained=True or pretrained_file=, not both")
        if resizer != "neural" and resizer not in FixedResizer.METHODS:
            known = ", ".join(("neural", *FixedResizer.METHODS))
            raise ValueError(f"resizer={resizer!r} is unknown; choose one of {known}")
        self.spatial_transformer = SpatialTransformer(in_size) if spatial_transformer else nn.Identity()
        if resizer == "neural":
            self.resizer = NeuralResizer(in_size, out_size, **(resizer_options or {}))
        else:
            self.resizer = FixedResizer(out_size, resizer)
        self.backbone = _backbone(backbone, out_size, pretrained, backbone_options or {})
        if pretrained_file is not None:
            load_backbone(self.backbone, pretrained_file)
        width = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.num_classes, self.num_features = num_classes, width
        published = self.backbone.pretrained_cfg  # how images are normalised; timm's data tools read it here
        self.pretrained_cfg = {
            "architecture": backbone,
            "input_size": (3, in_size, in_size),
            "num_classes": num_classes,
            "crop_pct": 1.0,
            **{key: published[key] for key in ("mean", "std", "interpolation") if key in published},
        }
        self.head = classification_head(width, num_classes, hidden=hidden, dropout=dropout)

    def resize(self, image: torch.Tensor) -> torch.Tensor:
        """What the backbone sees: ``(B, 3, in_size, in_size)`` in, ``(B, 3, out_size, out_size)`` out."""
        return self.resizer(self.spatial_transformer(image))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(self.resize(image)))


def _backbone(name: str, size: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """A timm classifier without its classifier, built for square images of ``size`` pixels."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
        raise ValueError(f"timm has no model {name!r}; the nearest names are {', '.join(near)}")
    given = timm.get_pretrained_cfg(name)
    if given is not None and given.fixed_input_size and tuple(given.input_size[1:]) != (size, size):
        options = {"img_size": size, **options}
    # timm loads strictly only while the classifier is the published one, so it is taken off afterwards.
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).strip() or type(error).__name__
        raise CheckpointError(
            f"timm could not load its published weights of {name!r}: {reason}\n"
            "Bring the file over from a computer that has a network and give it as pretrained_file=, or "
            "start from random weights with pretrained=False"
        ) from error
    model.reset_classifier(0)
    return model


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load a file of ImageNet weights into a headless ``timm`` backbone: every tensor of it, or an error.

    The file may be ``.safetensors`` or a torch file (read without unpickling objects), in timm's names of
    today or those timm itself still translates. The published classifier in it is left out; nothing else
    is.

    Shape: a ``timm`` module and a path in, nothing out; the module's tensors are replaced.

    Raises: ``FileNotFoundError``; ``CheckpointError`` for a file that cannot be read, and listing every
    missing, unexpected or mis-shaped name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give the backbone's weights as timm publishes them")
    given = read_official(path)
    translate = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        given = translate(given, backbone)
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    ours = backbone.state_dict()
    heads = tuple(f"{name}." for name in classifiers)
    given = {key: value for key, value in given.items() if key in ours or not key.startswith(heads)}
    misshaped = [
        f"{key} is {tuple(given[key].shape)}, expected {tuple(ours[key].shape)}"
        for key in ours
        if key in given and given[key].shape != ours[key].shape
    ]
    missing, unexpected = sorted(ours.keys() - given.keys()), sorted(given.keys() - ours.keys())
    if missing or unexpected or misshaped:
        what = f"{path} does not fit the backbone {backbone.pretrained_cfg.get('architecture', '')}"
        raise CheckpointError(mismatch(what, missing, unexpected, misshaped))
    backbone.load_state_dict(given, strict=True)


def _official_name(ours: str) -> str:
    part, rest = ours.split(".", 1)
    if part == "resizer":
        return "res." + rename(rest, RESIZER_NAMES)
    if part == "spatial_transformer":
        return "stn." + rename(rest, TRANSFORMER_NAMES)
    return f"model.{rest}" if part == "backbone" else f"model.head.{rest}"


def _translate_old_timm(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Swin as older timm named it: downsampling at the end of stage n instead of the start of n + 1."""
    buffers = ("relative_position_index", "attn_mask")  # computed from the sizes, once saved with the weights
    given = {key: value for key, value in given.items() if not key.endswith(buffers)}
    if "model.layers.0.downsample.reduction.weight" not in given:
        return given
    pattern = re.compile(r"^model\.layers\.(\d+)\.downsample")
    return {
        pattern.sub(lambda found: f"model.layers.{int(found[1]) + 1}.downsample", key): value
        for key, value in given.items()
    }


register(Architecture("vt-nr-swin-base", ResizedTransformer, _official_name, translate=_translate_old_timm))
