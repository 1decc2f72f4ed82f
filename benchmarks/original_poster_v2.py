"""POSTER V2 and its SAM step in the formulation of the released code, on the weights of ferlib's PosterV2.

Written anew from what the released program computes, step by step, for the benchmark beside it: attention
written down in full, a copy for each window partition, pooling over one pixel that keeps an index for each,
the landmark head run and thrown away, all tokens through the last block, parameters that nothing reads, and
the landmark branch, whose batch norms move in training, once in each of SAM's two passes.
Sources: ``PosterV2_7cls.py``, ``ir50.py``, ``vit_model.py``, ``main.py`` of POSTER V2.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models import MobileFaceNet, PosterV2
from ferlib.models.iresnet import ImprovedResidualUnit
from ferlib.models.poster_v2 import SIZES

DEAD = 14_562_653 - 96_016  # parameters of the released network that nothing reads, but for the landmark head


def partition(maps: Tensor, window: int) -> Tensor:
    batch, height, width, dim = maps.shape
    maps = maps.view(batch, height // window, window, width // window, window, dim)
    return maps.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, dim)


def join(tokens: Tensor, window: int, height: int, width: int) -> Tensor:
    rows, columns = height // window, width // window
    maps = tokens.view(-1, rows, columns, window, window, tokens.shape[-1])
    return maps.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, tokens.shape[-1])


def add(unit: ImprovedResidualUnit, maps: Tensor) -> Tensor:
    return unit.residual(maps) + unit.shortcut(maps)


class OriginalPosterV2(nn.Module):
    """The released formulation; ``net``, a PosterV2 of ferlib, holds the weights. Shape: as PosterV2."""

    def __init__(self, weights: PosterV2) -> None:
        super().__init__()
        self.net = PosterV2(weights.vit.head.out_features)
        self.net.load_state_dict(weights.state_dict())
        for module in list(self.net.modules()):
            if isinstance(module, ImprovedResidualUnit):
                module.forward = partial(add, module)
            for name, child in module.named_children():
                if isinstance(child, nn.AvgPool2d) and child.kernel_size == 1:
                    setattr(module, name, nn.MaxPool2d(1, child.stride))
        self.landmarks = MobileFaceNet().requires_grad_(False)
        branch = self.net.encoder.landmarks.state_dict()
        self.landmarks.load_state_dict({**self.landmarks.state_dict(), **branch})
        self.net.encoder.landmarks = nn.Identity()
        self.dead = nn.Parameter(torch.zeros(DEAD))

    def fuse(self, level: int, face: Tensor, marks: Tensor) -> Tensor:
        fusion, window = self.net.encoder.fusion[level], SIZES[level]
        attn = fusion.attn
        maps = fusion.norm(fusion.conv(face).permute(0, 2, 3, 1))
        shortcut = maps
        windows = partition(maps, window)
        batch, count, dim = windows.shape
        width = dim // attn.heads
        query = marks.reshape(batch, 1, count, attn.heads, width).permute(0, 1, 3, 2, 4)
        pair = attn.key_value(windows).reshape(batch, count, 2, attn.heads, width).permute(2, 0, 3, 1, 4)
        key, value = pair[0], pair[1]
        query = query.repeat(1, 1, 1, 1, 1).reshape(batch, attn.heads, count, width) * width**-0.5
        scores = query @ key.transpose(-2, -1)
        bias = attn.bias_table[attn.positions.view(-1)].view(count, count, -1).permute(2, 0, 1).contiguous()
        scores = torch.softmax(scores + bias.unsqueeze(0), dim=-1)
        mixed = attn.proj((scores @ value).transpose(1, 2).reshape(batch, count, dim))
        maps = join(mixed, window, *shortcut.shape[1:3])
        maps = shortcut + fusion.drop_path(fusion.gain1 * maps)
        return maps + fusion.drop_path(fusion.gain2 * fusion.mlp(fusion.norm2(maps)))

    def transform(self, tokens: Tensor) -> Tensor:
        vit = self.net.vit
        tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + vit.pos_embed
        for block in vit.blocks:
            batch, count, dim = tokens.shape
            heads = block.attn.heads
            three = block.attn.qkv(block.norm1(tokens)).reshape(batch, count, 3, heads, dim // heads)
            query, key, value = three.permute(2, 0, 3, 1, 4)
            scores = ((query @ key.transpose(-2, -1)) * (dim // heads) ** -0.5).softmax(dim=-1)
            mixed = (scores @ value).transpose(1, 2).reshape(batch, count, dim)
            tokens = tokens + block.attn.proj(mixed)
            tokens = tokens + block.mlp(block.norm2(tokens))
        return vit.head(vit.se_block(vit.norm(tokens)[:, 0]))

    def forward(self, images: Tensor) -> Tensor:
        encoder = self.net.encoder
        fine, middle, coarse = self.landmarks.features(F.interpolate(images, size=112))
        self.landmarks.landmarks(coarse)  # computed, and not used
        asking = fine, middle, encoder.landmark_conv(coarse)
        asking = [maps.permute(0, 2, 3, 1) for maps in asking]
        maps = [self.fuse(n, face, asking[n]) for n, face in enumerate(encoder.face(images))]
        maps = [level.permute(0, 3, 1, 2) for level in maps]
        tokens = [embed(m).flatten(2).transpose(1, 2) for embed, m in zip(encoder.embed, maps, strict=True)]
        return self.transform(torch.cat(tokens, dim=1))


class OriginalSAM:
    """The released SAM around Adam: gradient norm, copies of all weights, two passes. Shape: a closure."""

    def __init__(self, parameters, lr: float, rho: float = 0.05) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.base, self.rho = torch.optim.Adam(self.parameters, lr=lr), rho
        self.old: dict[Tensor, Tensor] = {}

    def step(self, closure) -> None:
        closure()
        with torch.no_grad():
            moved = [p for p in self.parameters if p.grad is not None]
            norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in moved]), p=2)
            scale = self.rho / (norm + 1e-12)
            for p in moved:
                self.old[p] = p.data.clone()
                p.add_(1.0 * p.grad * scale)
        self.base.zero_grad()
        closure()
        with torch.no_grad():
            for p in moved:
                p.data = self.old[p]
        self.base.step()
        self.base.zero_grad()
