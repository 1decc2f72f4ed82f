"""The Neural Resizer's transformers under one name each, here and in ``timm``'s own registry.

::

    import ferlib, timm
    timm.create_model("vt_nr_swin_base", num_classes=7, pretrained=True)

``import ferlib`` alone stays light: the names are put into ``timm``'s registry as soon as ``timm`` itself is
imported, before or after. Source: Hwang et al. 2022, table 1 (which backbones). Chapters 2 and 6.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from ferlib.models.resized_transformer import PAPER_BACKBONE, ResizedTransformer
from ferlib.models.small import ResidualUnit

#: Name -> the ``timm`` classifier inside. Each sees 224 pixels, resized from 384 by the network in front.
BACKBONES = {
    "vt_nr_swin_tiny": "swin_tiny_patch4_window7_224",
    "vt_nr_swin_small": "swin_small_patch4_window7_224",
    "vt_nr_swin_base": PAPER_BACKBONE,
    "vt_nr_deit_small": "deit_small_patch16_224",
    "vt_nr_deit_base": "deit_base_patch16_224",
    "vt_nr_vit_small": "vit_small_patch16_224",
    "vt_nr_vit_base": "vit_base_patch16_224",
}
OWN_OPTIONS = frozenset(inspect.signature(ResizedTransformer).parameters) - {"backbone"}
TIMM_NAMES = {"img_size": "in_size", "drop_rate": "dropout"}  # what timm calls options that we have, too


def _build(backbone: str, options: dict[str, Any], **defaults: Any) -> ResizedTransformer:
    """The network around a backbone, from options in our words or timm's; the rest is the backbone's."""
    options = defaults | {TIMM_NAMES.get(key, key): value for key, value in options.items()}
    inner = dict(options.pop("backbone_options", None) or {})
    for key in [key for key in options if key not in OWN_OPTIONS]:
        value = options.pop(key)
        if key not in ("pretrained_cfg", "pretrained_cfg_overlay"):  # they describe another network's file
            inner[key] = value
    if inner.get("in_chans", 3) != 3:
        raise ValueError(f"in_chans={inner['in_chans']}: the resizer takes RGB faces, make grey ones three")
    if inner.get("cache_dir", "") is None:
        inner.pop("cache_dir")
    return ResizedTransformer(backbone, backbone_options=inner, **options)


def _member(name: str, backbone: str) -> Callable[..., ResizedTransformer]:
    def build(**options: Any) -> ResizedTransformer:
        return _build(backbone, options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"The paper's network around timm's ``{backbone}``; options are those of ``ResizedTransformer``, the "
        "rest goes to the backbone.\n\nShape: ``(B, 3, 384, 384)`` in, logits ``(B, num_classes)`` out "
        "(``img_size`` for another size). Raises as ``ResizedTransformer``. Chapters 2 and 6."
    )
    return register_model(build)


globals().update({name: _member(name, backbone) for name, backbone in BACKBONES.items()})


class ResidualEmbedding(nn.Module):
    """Patches of 8 pixels by a residual pyramid instead of one large stride.

    From nothing, a transformer on plain patches needs far more faces than FER+ has before it learns what an
    edge is; convolutions know from the start that neighbours belong together.

    Shape: ``(B, 3, S, S)`` in, ``(B, S/8 * S/8, embed_dim)`` out: it takes the place of the patch embedding
    in ``timm``'s vision transformer. Raises: ``ValueError`` for another ``patch_size`` than 8. Source: Xiao
    et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021. Chapter 6.
    """

    def __init__(
        self,
        img_size: int = 56,
        patch_size: int = 8,
        in_chans: int = 3,
        embed_dim: int = 128,
        **_: Any,  # what else timm tells its own: formats and checks that do not apply here
    ) -> None:
        super().__init__()
        if patch_size != 8:
            raise ValueError(f"three halvings make patches of 8 pixels, not {patch_size}")
        side = img_size // patch_size
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size, self.num_patches = (side, side), side * side
        fine, middle = 3 * embed_dim // 16, 3 * embed_dim // 8
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, fine, 3, 2, 1, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(inplace=True),
            ResidualUnit(fine, fine),
            ResidualUnit(fine, middle, stride=2),
            ResidualUnit(middle, embed_dim, stride=2),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


@register_model
def vt_nr_small(**options: Any) -> ResizedTransformer:
    """The family's smallest member, for a laptop's CPU: 96 pixels, resized to 56, four transformer blocks.

    Same parts in the same order as the paper's: spatial transformer, resizer (8 maps, beginning as plain
    bilinear interpolation), ``timm``'s vision transformer (7 x 7 tokens of width 128, mean token) on a
    residual embedding, the paper's head. FER+ faces of 48 pixels are enlarged to 96 first. Options are those
    of ``ResizedTransformer``; the rest goes to the transformer. Trained from nothing, its spatial transformer
    wants a much lower learning rate than the rest (``lr_scale`` of the recipes): thousands of inputs to one
    regression carry the face out of the picture within a few steps of Adam.

    Shape: ``(B, 3, 96, 96)``, ImageNet-normalised, in; logits ``(B, num_classes)`` out. 0.9 M parameters,
    87 M multiply-adds. The sizes are ours. Chapters 2 and 6.
    """
    return _build(
        "vit_tiny_patch16_224", options, in_size=96, out_size=56, hidden=128, dropout=0.2,
        resizer_options={"channels": 8, "start_bilinear": True}, embed_layer=ResidualEmbedding,
        patch_size=8, embed_dim=128, depth=4, num_heads=4, mlp_ratio=2.0, class_token=False,
        global_pool="avg", drop_path_rate=0.05,
    )  # fmt: skip
