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

from ferlib.models.resized_transformer import PAPER_BACKBONE, ResizedTransformer

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


def _build(backbone: str, options: dict[str, Any]) -> ResizedTransformer:
    """The network around a backbone, from options in our words or timm's; the rest is the backbone's."""
    options = {TIMM_NAMES.get(key, key): value for key, value in options.items()}
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


@register_model
def vt_nr_small(**options: Any) -> ResizedTransformer:
    """The laptop's member. Shape: ``(B, 3, 96, 96)`` in, logits ``(B, num_classes)`` out. Chapter 6."""
    small: dict[str, Any] = {
        "in_size": 96, "out_size": 56, "hidden": 128, "dropout": 0.2, "resizer_options": {"channels": 8},
        "embed_dims": (32, 64, 128, 128), "depths": (1, 2, 2, 1), "num_heads": (1, 2, 4, 4),
        "window_sizes": (7, 7, 7, 7),
    }  # fmt: skip
    return _build("tiny_vit_5m_224", small | options)
