"""The whole system of the Neural Resizer paper: straighten, resize, classify; around any ``timm`` model.

The paper's networks have names in ``timm``'s own registry as soon as this package is imported::

    import ferlib.models, timm
    timm.create_model("vt_nr_swin_base", num_classes=7, pretrained=True)

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2 (table 1: which backbones) and its released code. Chapter 2 builds the front, chapter 6
trains the whole.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import timm
from timm.models import register_model
from torch import Tensor, nn

from ferlib.errors import FerlibError
from ferlib.models.common import stem
from ferlib.models.resizer import FixedResizer, NeuralResizer
from ferlib.models.small import ResidualUnit
from ferlib.models.spatial_transformer import SpatialTransformer

PAPER_BACKBONE = "swin_base_patch4_window7_224"


def classification_head(
    width: int, num_classes: int, *, hidden: int = 512, dropout: float = 0.5
) -> nn.Sequential:
    """The paper's classifier on top of a backbone: features (B, width) -> logits (B, num_classes).

    Linear, BatchNorm, ReLU, Dropout, Linear. In training the batch norm needs B > 1.
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

    Maps (B, 3, in_size, in_size), normalized as the backbone expects (ImageNet mean and deviation), to logits
    (B, num_classes). ``resize`` gives what the backbone sees, (B, 3, out_size, out_size). The paper's choice
    has 89,997,139 parameters.

    Args:
        backbone: The name of any ``timm`` classifier; the paper's best uses ``swin_base_patch4_window7_224``.
        num_classes: How many expressions.
        resizer: ``"neural"``, or a fixed method to compare with: ``"nearest"``, ``"bilinear"``,
            ``"bicubic"``, ``"antialiased"``.
        spatial_transformer: Whether faces are straightened first.
        in_size: Pixels per side of the images given.
        out_size: Pixels per side of the images that the backbone sees. A backbone with a fixed size is built
            for it.
        hidden: Width of the head.
        dropout: Share of the head's hidden units that training leaves out.
        pretrained: Take the backbone's weights from where ``timm`` publishes them (needs a network, once).
        resizer_options: Passed to ``NeuralResizer`` (``channels``, ``blocks``, ``sampling``, ...).
        backbone_options: Passed to ``timm.create_model`` (``drop_path_rate``, ...).

    Raises:
        FerlibError: An unknown backbone (with the names most like it) or resizer.

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
        resizer_options: dict[str, Any] | None = None,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.spatial_transformer = SpatialTransformer(in_size) if spatial_transformer else nn.Identity()
        if resizer == "neural":
            self.resizer = NeuralResizer(in_size, out_size, **(resizer_options or {}))
        else:
            self.resizer = FixedResizer(out_size, resizer)  # refuses a name that it does not know
        self.backbone = _backbone(backbone, out_size, pretrained, backbone_options or {})
        width = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.num_classes, self.num_features = num_classes, width
        self.head = classification_head(width, num_classes, hidden=hidden, dropout=dropout)

    def resize(self, image: Tensor) -> Tensor:
        """What the backbone sees: (B, 3, in_size, in_size) -> (B, 3, out_size, out_size)."""
        return self.resizer(self.spatial_transformer(image))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(self.resize(image)))


def _backbone(name: str, size: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """A timm classifier without its classifier, built for square images of ``size`` pixels."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
        raise FerlibError(f"timm has no model {name!r}; the nearest names are {', '.join(near)}")
    given = timm.get_pretrained_cfg(name)
    if given is not None and given.fixed_input_size and tuple(given.input_size[1:]) != (size, size):
        options = {"img_size": size, **options}
    # timm loads strictly only while the classifier is the published one, so it is taken off afterwards
    model = timm.create_model(name, pretrained=pretrained, **options)
    model.reset_classifier(0)
    return model


# The paper's networks by name

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
    if inner.get("cache_dir", "") is None:
        inner.pop("cache_dir")
    return ResizedTransformer(backbone, backbone_options=inner, **options)


@register_model
def vt_nr_swin_tiny(**options: Any) -> ResizedTransformer:
    """The network around timm's Swin-T; options are those of :class:`ResizedTransformer`, the rest goes to
    the backbone, here and below. It takes (B, 3, 384, 384), or ``img_size``.
    """
    return _build("swin_tiny_patch4_window7_224", options)


@register_model
def vt_nr_swin_base(**options: Any) -> ResizedTransformer:
    """The network around timm's Swin-B, the paper's best."""
    return _build(PAPER_BACKBONE, options)


class ResidualEmbedding(nn.Module):
    """Patches of 8 pixels by a residual pyramid instead of one large stride.

    Trained from scratch, a transformer on plain patches needs far more faces than FER+ has before it learns
    what an edge is; convolutions are built for neighboring pixels.

    Maps (B, 3, S, S) to (B, S/8 * S/8, embed_dim), in the place of the patch embedding in ``timm``'s vision
    transformer.

    Raises:
        FerlibError: Another ``patch_size`` than 8.

    Source: Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021. Chapter 6.
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
            raise FerlibError(f"three halvings make patches of 8 pixels, not {patch_size}")
        side = img_size // patch_size
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size, self.num_patches = (side, side), side * side
        fine, middle = 3 * embed_dim // 16, 3 * embed_dim // 8
        self.proj = nn.Sequential(
            *stem(in_chans, fine),
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
    of ``ResizedTransformer``; the rest goes to the transformer. Trained from scratch, its spatial transformer
    needs a much lower learning rate than the rest (``lr_scale`` of the recipes): thousands of inputs to one
    regression carry the face out of the picture within a few steps of Adam.

    Maps (B, 3, 96, 96), ImageNet-normalized, to logits (B, num_classes). 0.9 M parameters, 87 M
    multiply-adds. The sizes are ours. Chapters 2 and 6.
    """
    tokens = {"embed_layer": ResidualEmbedding, "patch_size": 8, "class_token": False, "global_pool": "avg"}
    blocks = {"embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0, "drop_path_rate": 0.05}
    front = {"in_size": 96, "out_size": 56, "resizer_options": {"channels": 8, "start_bilinear": True}}
    head = {"hidden": 128, "dropout": 0.2}
    return _build("vit_tiny_patch16_224", options, **tokens, **blocks, **front, **head)
