"""A network small enough for a web page, and several networks that predict as one.

:class:`PocketNet` is a learned resizer in front of a small residual network. Its logits are sums of local
evidence: the logit of an expression *is* the mean of a 6 x 6 map. The page "Try it" and ``ferlib predict``
use it. :class:`Ensemble` averages what several networks predict for a face and for its mirror image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

import ferlib.models
from ferlib.errors import FerlibError, choose
from ferlib.models.common import stem
from ferlib.models.resizer import FixedResizer, NeuralResizer
from ferlib.models.small import stages


class PocketNet(nn.Module):
    r"""Neural resizer, residual stages, and evidence for every class at every place.

    .. math:: z_c = \frac{1}{P} \sum_{p=1}^{P} e_{c,p}, \qquad e = W F(\mathrm{resize}(x)) + b

    over the P = (out_size / 8)^2 places of the last map: a class activation map (Zhou et al. 2016) that
    needs no gradient and leaves nothing out.

    Maps normalized images (B, 3, in_size, in_size) to logits (B, K); :meth:`evidence` gives (B, K, G, G) with
    G = out_size / 8, in the unit of the logits. With the defaults it has 1.37 M parameters.

    Args:
        num_classes: How many expressions, K.
        in_size: Side in pixels of the images given.
        out_size: Side in pixels of what the stages see, a multiple of 8.
        widths: Channels of the four stages, the last of which keeps its grid.
        blocks: Residual units of the four stages.
        resizer: ``"neural"``, or a fixed method of :class:`ferlib.models.FixedResizer` to compare with.
        resizer_channels: Maps inside the learned resizer (the paper's network has 16).
        dropout: Share of the last map's channels that training leaves out.

    Raises:
        FerlibError: Images of another size (learned resizer), an unknown ``resizer``, or an ``out_size`` that
            8 does not divide.

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
            raise FerlibError(
                f"out_size is {out_size}, expected a multiple of 8: the stages halve it three times"
            )
        self.num_classes, self.in_size = num_classes, in_size
        self.resizer: nn.Module
        if resizer == "neural":
            self.resizer = NeuralResizer(in_size, out_size, resizer_channels, start_bilinear=True)
        else:
            self.resizer = FixedResizer(out_size, resizer)
        self.stem = stem(3, widths[0])
        self.stages = nn.Sequential(*chain.from_iterable(stages(widths, blocks, (1, 2, 2, 1))))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(widths[-1], num_classes, 1)

    def evidence(self, image: Tensor) -> Tensor:
        """Evidence for each class at each place: (B, 3, in_size, in_size) -> (B, K, G, G)."""
        return self.classify(self.dropout(self.stages(self.stem(self.resizer(image)))))

    def forward(self, image: Tensor) -> Tensor:
        return torch.mean(self.evidence(image), dim=(2, 3))


class Ensemble(nn.Module):
    r"""Networks trained apart whose predictions are averaged; their errors differ, and the mean errs less.

    .. math:: z = \log \frac{1}{MV} \sum_{m=1}^{M} \sum_{v} \operatorname{softmax}(f_m(v(x)))

    over the M members and the V views of a face: as it is and, with ``mirror``, its mirror image, which shows
    the same expression. The logits are logarithms of that mean, so that softmax gives it back.

    Maps images as all members take them, (B, 3, S, S), to logits (B, K).

    Args:
        num_classes: How many expressions, K.
        members: What each of the M networks is, as a recipe has it: ``model``, a name in
            ``ferlib.models.NETWORKS``, and ``model_options``, which may be left out.
        mirror: Whether each also sees the mirror image.

    Raises:
        FerlibError: An unknown member, or no member.

    Source: Hansen and Salamon 1990, Neural Network Ensembles. Chapter 9.
    """

    def __init__(
        self, num_classes: int = 8, *, members: Sequence[Mapping[str, Any]], mirror: bool = True
    ) -> None:
        super().__init__()
        if not members:
            raise FerlibError("an ensemble has at least one member, not 0")
        self.num_classes, self.mirror = num_classes, mirror
        self.members = nn.ModuleList(_member(num_classes, **member) for member in members)

    def forward(self, image: Tensor) -> Tensor:
        views = (image, image.flip(-1)) if self.mirror else (image,)
        return averaged([member(view) for member in self.members for view in views])


def averaged(predictions: Sequence[Tensor]) -> Tensor:
    """Logarithms of the averaged probabilities of several logits (B, K) -> (B, K)."""
    mean = torch.stack([logits.softmax(1) for logits in predictions]).mean(0)
    return mean.clamp_min(torch.finfo(torch.float32).tiny).log()


def _member(num_classes: int, model: str, model_options: Mapping[str, Any] | None = None) -> nn.Module:
    networks = ferlib.models.NETWORKS
    return networks[choose("model", model, networks)](num_classes=num_classes, **(model_options or {}))
