"""Several networks that answer as one: the mean of what each says of a face and of its mirror image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ferlib.models


class Ensemble(nn.Module):
    r"""Networks trained apart, asked together; their errors differ, and what differs is averaged away.

    .. math:: z = \log \frac{1}{MV} \sum_{m=1}^{M} \sum_{v} \operatorname{softmax}(f_m(v(x)))

    over the M members and the V views of a face: as it is and, with ``mirror``, its mirror image, which shows
    the same expression. The logits are logarithms of that mean, so that softmax gives it back.

    Parameters
    ----------
    num_classes: how many expressions, K.
    members: what each of the M networks is, as a recipe says it: ``model``, its name in ``ferlib.models``,
        and ``model_options``, which may be left out.
    mirror: whether each is also asked with the mirror image.

    Shape: images as all members take them, (B, 3, S, S) -> logits (B, K). Raises ``ValueError`` for an
    unknown member or no member. Source: Hansen and Salamon 1990, Neural Network Ensembles. Chapter 9.
    """

    def __init__(
        self, num_classes: int = 8, *, members: Sequence[Mapping[str, Any]], mirror: bool = True
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble has at least one member, not 0")
        self.num_classes, self.mirror = num_classes, mirror
        self.members = nn.ModuleList(_member(num_classes, **member) for member in members)

    def take(self, weights: Sequence[Mapping[str, Tensor]]) -> Ensemble:
        """Give each member its weights. Shape: M state dictionaries. Raises ``ValueError`` for another M."""
        if len(weights) != len(self.members):
            raise ValueError(f"{len(weights)} sets of weights for {len(self.members)} members")
        for member, own in zip(self.members, weights, strict=True):
            member.load_state_dict(own)
        return self

    def forward(self, image: Tensor) -> Tensor:
        views = (image, image.flip(-1)) if self.mirror else (image,)
        return mean_answer([member(view) for member in self.members for view in views])


def mean_answer(said: Sequence[Tensor]) -> Tensor:
    """Logarithms of the mean of several answers' probabilities. Shape: N times logits (B, K) -> (B, K)."""
    mean = torch.stack([logits.softmax(1) for logits in said]).mean(0)
    return mean.clamp_min(torch.finfo(torch.float32).tiny).log()


def _member(num_classes: int, model: str, model_options: Mapping[str, Any] | None = None) -> nn.Module:
    maker = getattr(ferlib.models, model, None)
    if maker is None:
        raise ValueError(f"ferlib.models has no {model!r} for an ensemble to be made of")
    return maker(num_classes=num_classes, **(model_options or {}))
