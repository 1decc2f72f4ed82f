"""A copy of a network that computes the same faster: what only training needs is folded away.

Three things, each exact up to rounding. A batch norm behind a convolution is, in evaluation, one more scale
and shift per channel: it goes into the convolution. Two convolutions without anything between them are one
larger convolution. And of the last transformer block only the class token is read.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferlib.models.poster_v2 import SIZES, PosterV2Encoder, TokenTransformer

PAIRS = ("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2")  # names that follow each other in a module


def for_inference(model: nn.Module) -> nn.Module:
    """A faster copy of a network for evaluation; the network itself is left as it is.

    Batch norms are folded into the convolutions before them, POSTER V2's first embedding becomes one
    convolution, the last transformer block computes the class token alone, and maps lie channels last. The
    copy cannot be trained, and its state dict is its own.

    Outputs are equal up to rounding (float32: about 1e-6 of the largest value per layer).
    """
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fast.modules()):
        if isinstance(module, nn.Sequential):
            names = list(module._modules)
            fold_pairs(module, list(pairwise(names)))
        else:
            fold_pairs(module, PAIRS)
    for module in list(fast.modules()):
        if isinstance(module, TokenTransformer):
            module.lean = True
        if isinstance(module, PosterV2Encoder):
            first = module.embed[0]
            if isinstance(first, nn.Sequential):
                module.embed[0] = JoinedConvolution(first[0], first[1], SIZES[0])
    return fast.to(memory_format=torch.channels_last)


def fold_pairs(module: nn.Module, pairs: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> None:
    """Fold batch norms into the convolutions they follow, by the names of both."""
    for first, second in pairs:
        conv, norm = getattr(module, first, None), getattr(module, second, None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, first, fuse_conv_bn_eval(conv, norm))
            setattr(module, second, nn.Identity())


class JoinedConvolution(nn.Module):
    r"""Two 3x3 convolutions of stride 2 and padding 1 as one 7x7 of stride 4 and padding 3.

    W[t] is the sum over 2 v + u = t of W2[v] W1[u], t = 0..6 in each direction. Outside the map, the first
    convolution gives zero without its bias, and so does the joined one; the first one's bias reaches the
    output through fewer places at the upper and left edge, so the joined bias is a map. Maps (B, in, s, s) to
    (B, out, s / 4, s / 4), for the one size s that it is made for.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, size: int) -> None:
        super().__init__()
        weight = second.weight.new_zeros(second.out_channels, first.in_channels, 7, 7)
        for row in range(3):
            for column in range(3):
                part = torch.einsum("omuv,mc->ocuv", second.weight, first.weight[:, :, row, column])
                weight[:, :, row : row + 5 : 2, column : column + 5 : 2] += part
        middle = first.bias.view(1, -1, 1, 1).expand(1, -1, size // 2, size // 2)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", F.conv2d(middle, second.weight, second.bias, stride=2, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.weight, stride=4, padding=3) + self.bias
