"""POSTER V2: landmarks ask face features on three levels, and a small transformer decides.

The baseline of the Batch Transformer Network, and a part of it. 43.75 M parameters; the 14.6 M which the
released code builds and never uses are left out. Chapter 5 follows a face through it.
Source: arXiv 2301.12149; outputs equal to the released code's on equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ferlib.models import iresnet
from ferlib.models.iresnet import IResNet50, resize_to
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.mobilenet_faces import MobileNetFacesBranch, to_unit
from ferlib.models.official import Architecture, register
from ferlib.models.token_transformer import TokenTransformer
from ferlib.models.window_attention import LevelFusion

WIDTHS, HEADS, SIZES = (64, 128, 256), (2, 4, 8), (28, 14, 7)
DIM = 768
Maps = tuple[Tensor, Tensor, Tensor]


class PosterV2Encoder(nn.Module):
    """Images to 147 tokens: two backbones, three levels of cross-attention, three embeddings.

    Shape: (B, 3, H, W), RGB, ImageNet-normalised -> tokens (B, 147, 768): 49 of the fine, 49 of the middle,
    49 of the coarse level. Any H, W: both backbones resize. ``levels`` gives the fused maps, channels last:
    (B, 28, 28, 64), (B, 14, 14, 128), (B, 7, 7, 256). ``frozen`` gives the landmark maps, which may be given
    back to ``forward`` and ``levels``: two passes over the same images (SAM's) then compute them once.

    ``face_backbone``: "ir50" as in the paper; "mobilenet-faces", whose weights anybody can have
    (:class:`ferlib.models.MobileNetFaces`); or any module that maps the images to (B, 64, 56, 56),
    (B, 128, 28, 28) and (B, 256, 14, 14).

    Where the released code is odd, the default is as released, and the plainer choice has a name:

    * ``resize``: "nearest", or "bilinear" with antialiasing.
    * ``shortcut``: "normalised", or "input" (:class:`ferlib.models.window_attention.LevelFusion`).
    * ``project_query``: False, or True (:class:`ferlib.models.window_attention.WindowCrossAttention`).
    * ``windows``: sides of the three levels' windows, (28, 14, 7) as large as the maps, or smaller ones.
    * ``landmark_input``: "normalised", the image as the face branch gets it; or "unit", in [0, 1], which is
      what the published landmark weights were trained on.
    * ``landmark_statistics``: "frozen", or "drifting". Here alone the default is not as released: the
      landmark branch has no gradient in either, but in the released code its batch norms stay in training
      mode, use the batch's statistics and move their stored ones. Evaluation is the same in both.

    ``recompute`` saves memory in training with IR50, for a little time (:class:`ferlib.models.IResNet50`).

    Raises: ``ValueError`` for an unknown choice, and for a face backbone whose maps have other shapes.
    Source: arXiv 2301.12149, section 3. Chapter 5 measures each choice.
    """

    def __init__(
        self, resize: str = "nearest", *, face_backbone: str | nn.Module = "ir50",
        shortcut: str = "normalised", project_query: bool = False,
        windows: Sequence[int] = SIZES, landmark_input: str = "normalised",
        landmark_statistics: str = "frozen", recompute: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, given, known in (
            ("resize", resize, ("nearest", "bilinear")),
            ("landmark_input", landmark_input, ("normalised", "unit")),
            ("landmark_statistics", landmark_statistics, ("frozen", "drifting")),
        ):
            if given not in known:
                raise ValueError(f"{name} is one of {known}, got {given!r}")
        self.resize, self.landmark_input = resize, landmark_input
        self.landmark_statistics = landmark_statistics
        self.landmarks = MobileFaceNet(head=False).requires_grad_(False)
        self.landmark_conv = nn.Conv2d(512, WIDTHS[2], 3, padding=1)
        self.face = make_face_backbone(face_backbone, resize, recompute)
        self.fusion = nn.ModuleList(
            LevelFusion(
                dim, heads, size, window=window, shortcut=shortcut, project_query=project_query,
                drop_path=0.125 * level,
            )
            for level, (dim, heads, size, window) in enumerate(
                zip(WIDTHS, HEADS, SIZES, windows, strict=True)
            )
        )  # fmt: skip
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
        self.landmarks.train(mode and self.landmark_statistics == "drifting")
        return self

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Maps:
        """What does not learn, without graph: the landmark maps (B, 64, 28, 28), (B, 128, 14, 14) and
        (B, 512, 7, 7).
        """
        if self.landmark_input == "unit":
            images = to_unit(images)
        return self.landmarks.features(resize_to(images, 112, self.resize))

    def levels(self, images: Tensor, frozen: Maps | None = None) -> list[Tensor]:
        """The three fused maps, channels last, from fine to coarse."""
        fine, middle, coarse = self.frozen(images) if frozen is None else frozen
        asking = fine, middle, self.landmark_conv(coarse)
        faces = self.face(images)
        shapes = [tuple(face.shape[1:]) for face in faces]
        if shapes != [(width, 2 * size, 2 * size) for width, size in zip(WIDTHS, SIZES, strict=True)]:
            raise ValueError(
                f"a face backbone gives maps (B, 64, 56, 56), (B, 128, 28, 28) and (B, 256, 14, 14), "
                f"{type(self.face).__name__} gave {', '.join(map(str, shapes))} for each image"
            )
        return [fuse(face, marks) for fuse, face, marks in zip(self.fusion, faces, asking, strict=True)]

    def forward(self, images: Tensor, frozen: Maps | None = None) -> Tensor:
        maps = [level.permute(0, 3, 1, 2) for level in self.levels(images, frozen)]
        tokens = [embed(m).flatten(2).transpose(1, 2) for embed, m in zip(self.embed, maps, strict=True)]
        return torch.cat(tokens, dim=1)


def make_face_backbone(
    face_backbone: str | nn.Module, resize: str = "nearest", recompute: bool = False
) -> nn.Module:
    """The face branch by its name, "ir50" or "mobilenet-faces"; a module is returned as it is."""
    if isinstance(face_backbone, nn.Module):
        return face_backbone
    if face_backbone == "ir50":
        return IResNet50(resize, recompute)
    if face_backbone == "mobilenet-faces":
        return MobileNetFacesBranch()
    raise ValueError(f"face_backbone is 'ir50', 'mobilenet-faces' or a module, got {face_backbone!r}")


class PosterV2(nn.Module):
    """Expression logits from one face: encoder, then a transformer of two blocks.

    Shape: (B, 3, H, W), RGB, ImageNet-normalised -> (B, num_classes). ``frozen(images)`` gives the part that
    does not learn, and ``forward(images, frozen)`` takes it. The other settings are those of
    :class:`PosterV2Encoder`.
    Source: POSTER V2 (arXiv 2301.12149): 92.21 % on RAF-DB with pretrained backbones. Chapter 5.
    """

    def __init__(self, num_classes: int = 7, resize: str = "nearest", **encoder_options: Any) -> None:
        super().__init__()
        self.encoder = PosterV2Encoder(resize, **encoder_options)
        self.vit = TokenTransformer(num_classes, dim=DIM)

    def frozen(self, images: Tensor) -> Maps:
        """The landmark maps, as :meth:`PosterV2Encoder.frozen` gives them."""
        return self.encoder.frozen(images)

    def forward(self, images: Tensor, frozen: Maps | None = None) -> Tensor:
        return self.vit(self.encoder(images, frozen))


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


UNUSED = (
    "ir_back.output_layer.", "face_landback.output_layer.", "VIT.patch_embed.", "VIT.CON1.", "VIT.IRLinear1.",
    "VIT.IRLinear2.", "VIT.eca_block.", "VIT.blocks.0.conv.", "VIT.blocks.1.conv.",
    *(f"attn{number}.relative_position_index" for number in (1, 2, 3)),
)  # fmt: skip

register(Architecture("poster-v2-7", lambda: PosterV2(7), official_name, unused=UNUSED))
register(Architecture("poster-v2-8", lambda: PosterV2(8), official_name, unused=UNUSED))
register(Architecture("mobilefacenet", MobileFaceNet, lambda name: name))
