"""POSTER V2: landmarks ask face features on three levels, and a small transformer decides.

The baseline of the Batch Transformer Network, and a part of it. 43.75 M parameters; the 14.6 M which the
released code builds and never uses are left out. Chapter 5 follows a face through it.
Source: arXiv 2301.12149; outputs equal to the released code's on equal weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferlib.models import iresnet
from ferlib.models.iresnet import IResNet50, resize_to
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.official import Architecture, register
from ferlib.models.token_transformer import TokenTransformer
from ferlib.models.window_attention import LevelFusion

WIDTHS, HEADS, WINDOWS = (64, 128, 256), (2, 4, 8), (28, 14, 7)
DIM = 768


class PosterV2Encoder(nn.Module):
    """Images to 147 tokens: two backbones, three levels of cross-attention, three embeddings.

    Shape: (B, 3, H, W), RGB, ImageNet-normalised -> tokens (B, 147, 768): 49 of the fine, 49 of the middle,
    49 of the coarse level. Any H, W: both backbones resize to 112. ``levels`` gives the fused maps, channels
    last: (B, 28, 28, 64), (B, 14, 14, 128), (B, 7, 7, 256).

    The landmark branch is frozen: no gradient, and its batch norms always use their stored statistics (in the
    released code these drift during training). Load its weights, they are not learned.
    ``resize`` is "nearest" as released, or "bilinear". Source: arXiv 2301.12149, section 3. Chapter 5.
    """

    def __init__(self, resize: str = "nearest") -> None:
        super().__init__()
        self.resize = resize
        self.landmarks = MobileFaceNet(head=False).requires_grad_(False)
        self.landmark_conv = nn.Conv2d(512, WIDTHS[2], 3, padding=1)
        self.face = IResNet50(resize)
        self.fusion = nn.ModuleList(
            LevelFusion(dim, heads, window, drop_path=0.125 * level)
            for level, (dim, heads, window) in enumerate(zip(WIDTHS, HEADS, WINDOWS, strict=True))
        )
        self.embed = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(WIDTHS[0], DIM, 3, 2, 1), nn.Conv2d(DIM, DIM, 3, 2, 1)),
                nn.Conv2d(WIDTHS[1], DIM, 3, 2, 1),
                nn.Conv2d(WIDTHS[2], DIM, 1),
            ]
        )
        self.train()

    def train(self, mode: bool = True) -> PosterV2Encoder:
        super().train(mode)
        self.landmarks.eval()
        return self

    def levels(self, images: Tensor) -> list[Tensor]:
        """The three fused maps, channels last, from fine to coarse."""
        with torch.no_grad():
            fine, middle, coarse = self.landmarks.features(resize_to(images, 112, self.resize))
        asking = fine, middle, self.landmark_conv(coarse)
        return [
            fuse(face, marks)
            for fuse, face, marks in zip(self.fusion, self.face(images), asking, strict=True)
        ]

    def forward(self, images: Tensor) -> Tensor:
        maps = [level.permute(0, 3, 1, 2) for level in self.levels(images)]
        tokens = [embed(m).flatten(2).transpose(1, 2) for embed, m in zip(self.embed, maps, strict=True)]
        return torch.cat(tokens, dim=1)


class PosterV2(nn.Module):
    """Expression logits from one face: encoder, then a transformer of two blocks.

    Shape: (B, 3, H, W), RGB, ImageNet-normalised -> (B, num_classes).
    Source: POSTER V2 (arXiv 2301.12149): 92.21 % on RAF-DB with pretrained backbones. Chapter 5.
    """

    def __init__(self, num_classes: int = 7, resize: str = "nearest") -> None:
        super().__init__()
        self.encoder = PosterV2Encoder(resize)
        self.vit = TokenTransformer(num_classes, dim=DIM)

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(self.encoder(images))


def official_name(name: str) -> str:
    """Our name of a tensor of POSTER V2 -> its name in the released checkpoints. Shape: string to string."""
    part, _, rest = name.partition(".")
    if part == "vit":
        return "VIT." + rest.replace("head.", "head.linear.")
    branch, _, rest = rest.partition(".")
    if branch == "landmarks":
        return f"face_landback.{rest}"
    if branch == "face":
        return f"ir_back.{iresnet.official_name(rest)}"
    if branch == "landmark_conv":
        return f"last_face_conv.{rest}"
    level, _, rest = rest.partition(".")
    if branch == "embed":
        return ("embed_q.", "embed_k.0.", "embed_v.proj.")[int(level)] + rest
    number = int(level) + 1
    for ours, theirs in {
        "conv": f"conv{number}", "norm2": f"ffn{number}.norm", "norm": f"window{number}.norm",
        "attn.bias_table": f"attn{number}.relative_position_bias_table",
        "attn.key_value": f"attn{number}.qkv", "attn.proj": f"attn{number}.proj",
        "gain1": f"ffn{number}.gamma1", "gain2": f"ffn{number}.gamma2",
        "mlp": f"ffn{number}.mlp",
    }.items():  # fmt: skip
        if rest == ours or rest.startswith(ours + "."):
            return theirs + rest[len(ours) :]
    raise KeyError(f"no original name is known for {name!r}")


_UNUSED = (
    "ir_back.output_layer.", "face_landback.output_layer.", "VIT.patch_embed.", "VIT.CON1.", "VIT.IRLinear1.",
    "VIT.IRLinear2.", "VIT.eca_block.", "VIT.blocks.0.conv.", "VIT.blocks.1.conv.",
    *(f"attn{number}.relative_position_index" for number in (1, 2, 3)),
)  # fmt: skip

register(Architecture("poster-v2-7", lambda: PosterV2(7), official_name, unused=_UNUSED))
register(Architecture("poster-v2-8", lambda: PosterV2(8), official_name, unused=_UNUSED))
register(Architecture("mobilefacenet", MobileFaceNet, lambda name: name))
