"""The networks of the study, by name; the residual network is ``timm``'s with other widths.

``residual-small`` (0.31 M parameters, 10 M multiply-adds) is what can be trained seventy times. ``vit``,
``swin`` and ``conv`` stand behind a resizer: faces of 48 pixels enlarged to 96, resized to 56.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ferlib.models import FixedResizer, ResizedTransformer, vt_nr_small

LARGE, SMALL = 96, 56  # 0.584, as 384 to 224
RULES = ("bilinear", "bicubic", "antialiased")
BACKBONES = ("vit", "swin", "conv")
NARROW = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 8}


class AnyRule(nn.Module):
    """Each batch is resized by a fixed rule drawn anew: a backbone trained behind it is at home with none.

    Shape: (B, C, H, W) -> (B, C, out_size, out_size). In evaluation it is antialiased.
    """

    def __init__(self, out_size: int) -> None:
        super().__init__()
        self.rules = nn.ModuleList(FixedResizer(out_size, rule) for rule in RULES)

    def forward(self, image: Tensor) -> Tensor:
        drawn = int(torch.randint(len(RULES), ())) if self.training else len(RULES) - 1
        return self.rules[drawn](image)


def behind_a_resizer(backbone: str, resizer: str, **options: Any) -> ResizedTransformer:
    """A small ViT, Swin or residual network with the paper's head; ``resizer`` also takes ``any rule``."""
    own = {"resizer": "bilinear" if resizer == "any rule" else resizer, **options}
    if resizer == "neural":
        inside = {"channels": 8, "start_bilinear": True, **own.pop("resizer_options", {})}
        own["resizer_options"] = inside
    sizes = {"in_size": LARGE, "out_size": SMALL, "hidden": 128, "dropout": 0.2}
    if backbone == "vit":
        model = vt_nr_small(**own)
    elif backbone == "swin":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from attention_models import ResidualPatches  # the Swin of chapter 8

        inside = dict(embed_dim=64, depths=[2, 2], num_heads=[2, 4], window_size=7, drop_path_rate=0.05,
                      embed_layer=ResidualPatches)  # fmt: skip
        model = ResizedTransformer("swin_tiny_patch4_window7_224", backbone_options=inside, **sizes, **own)
    elif backbone == "conv":
        model = ResizedTransformer("resnet18", backbone_options=dict(NARROW), **sizes, **own)
        model.backbone.maxpool = nn.Identity()  # made for 224 pixels: at 56 it would leave 2 x 2 places
    else:
        raise ValueError(f"backbone is {backbone!r}, expected one of {', '.join(BACKBONES)}")
    if resizer == "any rule":
        model.resizer = AnyRule(SMALL)
    return model


def make(name: str, seed: int, **options: Any) -> nn.Module:
    """A network with weights drawn from ``seed``: (B, 3, S, S) -> (B, 8)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in BACKBONES:
            return behind_a_resizer(name, **options)
        if name != "residual-small":
            raise ValueError(f"no network {name!r}")
        model = timm.create_model("resnet18", num_classes=8, **NARROW, **options)
        model.maxpool = nn.Identity()
        return model


def take_over(model: ResizedTransformer, pretrained: nn.Module, seed: int) -> None:
    """Give ``model`` a pretrained backbone, and a new head that depends on ``seed`` alone."""
    model.backbone.load_state_dict(pretrained.backbone.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in model.head:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
