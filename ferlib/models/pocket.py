"""A network that fits into a web page: a learned resizer in front of a small residual network.

It answers as a sum of local evidence, so that where it looks is not a guess about it but a part of it: the
logit of an expression *is* the mean of a 6 x 6 map. The page "Try it" and ``ferlib predict`` use it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ferlib.models.resizer import FixedResizer, NeuralResizer
from ferlib.models.small import ResidualUnit


class PocketNet(nn.Module):
    r"""Neural resizer, residual stages, and evidence for every class at every place.

    .. math:: z_c = \frac{1}{P} \sum_{p=1}^{P} e_{c,p}, \qquad e = W F(\mathrm{resize}(x)) + b

    over the P = (out_size / 8)^2 places of the last map: a class activation map (Zhou et al. 2016) that
    needs no gradient and leaves nothing out.

    Parameters
    ----------
    num_classes: how many expressions, K.
    in_size, out_size: side in pixels of the images given, and of what the stages see; the learned resizer
        stands between them. ``out_size`` is a multiple of 8.
    widths, blocks: channels and residual units of the four stages, the last of which keeps its grid.
    resizer: ``"neural"``, or a fixed rule of ``FixedResizer`` to compare with.
    resizer_channels: maps inside the learned resizer (the paper's network has 16).
    dropout: share of the last map's channels that training leaves out.

    Shape: normalised images (B, 3, in_size, in_size) -> logits (B, K); :meth:`evidence` -> (B, K, G, G) with
    G = out_size / 8, in the unit of the logits. With the defaults it has 1.37 M parameters.

    Raises: ``ValueError`` for images of another size (learned resizer), an unknown ``resizer`` and an
    ``out_size`` that 8 does not divide.
    Source: ours; the resizer is Hwang et al. 2022, section 2.1. Chapter 8.
    """

    def __init__(
        self,
        num_classes: int = 8,
        *,
        in_size: int = 64,
        out_size: int = 48,
        widths: Sequence[int] = (32, 64, 128, 224),
        blocks: Sequence[int] = (2, 1, 2, 1),
        resizer: str = "neural",
        resizer_channels: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if out_size % 8:
            raise ValueError(
                f"out_size is {out_size}, expected a multiple of 8: the stages halve it three times"
            )
        self.num_classes, self.in_size = num_classes, in_size
        self.resizer: nn.Module = (
            NeuralResizer(in_size, out_size, resizer_channels, start_bilinear=True)
            if resizer == "neural"
            else FixedResizer(out_size, resizer)
        )
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        stages, channels = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stride = 2 if stage in (1, 2) else 1
            stages.append(ResidualUnit(channels, width, stride))
            stages.extend(ResidualUnit(width, width) for _ in range(count - 1))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def evidence(self, image: Tensor) -> Tensor:
        """What speaks for each class at each place: (B, 3, in_size, in_size) -> (B, K, G, G)."""
        return self.classify(self.dropout(self.stages(self.stem(self.resizer(image)))))

    def forward(self, image: Tensor) -> Tensor:
        return torch.mean(self.evidence(image), dim=(2, 3))
