"""``SyntheticFaces``: the drawn faces as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.synthetic.expressions import EXPRESSIONS_8, expression_index
from ferlib.data.synthetic.identity import OCCLUSIONS, FaceParameters, camera_of, draw_parameters, uniforms
from ferlib.data.synthetic.render import render_faces
from ferlib.data.synthetic.votes import draw_votes, vote_probabilities

#: Share of each expression among the 25,045 FER+ training faces (majority after outlier removal).
FERPLUS_FREQUENCIES = tuple(n / 25045 for n in (8733, 7284, 3136, 3022, 2098, 116, 536, 120))


class SyntheticFaces(FaceDataset):
    """Drawn faces with known expression, landmarks, action units, regions and ten simulated votes.

    Face number ``i`` of a seed is always the same person with the same expression, whatever the length, the
    batch or the size of the picture.

    Parameters
    ----------
    length: number of faces.
    size: width and height in pixels, 48 to 384 look best.
    seed: another seed, other faces.
    channels: 1 grey, 3 RGB.
    classes: 8 (FER+ order) or 7 (without contempt).
    framing: ``"portrait"`` (head, hair, shoulders) or ``"ferplus"`` (the face fills the picture, as in FER+).
    expression: ``None`` all in turn; a name; or a sequence of names.
    intensity: lowest and highest strength of the expression; 1 is full.
    variation: 0 an average person under soft light facing the camera, 1 natural variety.
    occlusion: probability that something hides part of the face, or one of ``glasses, hand, mask, scarf``.
    resolution: ``None``, or lowest and highest number of effective pixels across.
    vote_noise: 0 all annotators agree, 1 they differ as in FER+, more is noisier.
    confusion: own ``(K, K)`` table of vote shares in place of FER+'s.
    frequencies: ``None`` all expressions equally often; ``"ferplus"``; or K weights.
    masks: also give ``masks``, region name -> float ``(H, W)``.

    Shape: item ``dict(image uint8 (C, H, W), label int, votes float (K,) summing to 10, landmarks float
    (68, 2) in
    pixels from the top left corner of the picture in 300-W order, action_units float (21,), path str,
    [masks])``.
    Raises ``DataError`` for arguments out of range. Chapter 1.
    """

    def __init__(
        self,
        length: int = 1024,
        size: int = 64,
        seed: int = 0,
        channels: int = 1,
        classes: int = 8,
        framing: str = "portrait",
        *,
        expression: str | Sequence[str] | None = None,
        intensity: tuple[float, float] = (0.7, 1.0),
        variation: float = 1.0,
        occlusion: float | str = 0.0,
        resolution: tuple[float, float] | None = None,
        vote_noise: float = 1.0,
        confusion: torch.Tensor | None = None,
        frequencies: str | Sequence[float] | None = None,
        masks: bool = False,
    ):
        if not isinstance(length, int) or length < 1:
            raise DataError(f"length={length!r}: expected a whole number of at least 1")
        if not isinstance(size, int) or not 16 <= size <= 1024:
            raise DataError(f"size={size!r}: expected a whole number of pixels from 16 to 1024")
        if not isinstance(seed, int) or seed < 0:
            raise DataError(f"seed={seed!r}: expected a whole number of at least 0")
        if channels not in (1, 3):
            raise DataError(f"channels={channels!r}: expected 1 (grey) or 3 (RGB)")
        if classes not in (7, 8):
            raise DataError(f"classes={classes!r}: expected 8 (FER+) or 7 (without contempt)")
        camera_of(framing)
        if isinstance(intensity, int | float):
            intensity = (float(intensity), float(intensity))
        if len(intensity) != 2 or not 0 <= intensity[0] <= intensity[1] <= 1.5:
            raise DataError(
                f"intensity={intensity!r}: expected (lowest, highest) with 0 <= lowest <= highest <= 1.5"
            )
        if not 0 <= variation <= 2:
            raise DataError(f"variation={variation!r}: expected a number from 0 to 2")
        if isinstance(occlusion, str):
            if occlusion not in OCCLUSIONS:
                raise DataError(
                    f"occlusion={occlusion!r}: expected a probability or one of {', '.join(OCCLUSIONS)}"
                )
        elif not 0 <= occlusion <= 1:
            raise DataError(f"occlusion={occlusion!r}: expected a probability from 0 to 1 or a name")
        if resolution is not None and (len(resolution) != 2 or not 4 <= resolution[0] <= resolution[1]):
            raise DataError(
                f"resolution={resolution!r}: expected (lowest, highest) pixels with 4 <= lowest <= highest"
            )
        self.classes = EXPRESSIONS_8[:classes]
        self.size, self.seed, self.channels, self.framing, self.masks = size, seed, channels, framing, masks
        self._options = dict(
            intensity=tuple(intensity),
            framing=framing,
            variation=float(variation),
            occlusion=occlusion,
            resolution=resolution,
        )
        self._table = vote_probabilities(vote_noise, confusion, classes)
        self.labels = self._choose(length, expression, frequencies)
        u = torch.stack([torch.rand(10, generator=self._generator(i, 1)) for i in range(length)])
        self.votes = draw_votes(self.labels, self._table, u)

    def _generator(self, number: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(
            (self.seed * 1_000_003 + number * 7_919 + stream * 15_485_863 + 12_345) % 2**63
        )

    def _choose(self, length: int, expression: Any, frequencies: Any) -> torch.Tensor:
        k = len(self.classes)
        if expression is not None:
            names = [expression] if isinstance(expression, str) else list(expression)
            if not names:
                raise DataError("expression is an empty sequence: expected at least one name")
            which = torch.tensor([expression_index(name, self.classes) for name in names])
            return which[torch.arange(length) % len(which)]
        if frequencies is None:  # every block of K faces shows each expression once, in random order
            blocks = [torch.randperm(k, generator=self._generator(b, 2)) for b in range(-(-length // k))]
            return torch.cat(blocks)[:length]
        weights = FERPLUS_FREQUENCIES if frequencies == "ferplus" else frequencies
        if isinstance(weights, str):
            raise DataError(f"frequencies={weights!r}: expected None, 'ferplus' or {k} weights")
        weights = torch.tensor(
            list(weights)[:k] if frequencies == "ferplus" else list(weights), dtype=torch.float64
        )
        if len(weights) != k or (weights < 0).any() or weights.sum() <= 0:
            raise DataError(
                f"frequencies={frequencies!r}: expected None, 'ferplus' or {k} weights of at least 0"
            )
        edges = (weights / weights.sum()).cumsum(0)[:-1]
        u = torch.stack([torch.rand(1, generator=self._generator(i, 3)) for i in range(length)])
        return (u > edges).sum(1)

    def parameters(self, indices: Sequence[int] | torch.Tensor) -> FaceParameters:
        """All that the renderer knows about some faces: ``FaceParameters`` with one row per index."""
        indices = self._check(indices)
        return draw_parameters(uniforms(self.seed, indices), self.labels[indices], **self._options)

    def _check(self, indices: Sequence[int] | torch.Tensor) -> list[int]:
        found = [int(i) for i in indices]
        for i in found:
            if not -len(self) <= i < len(self):
                raise IndexError(f"face {i} of {len(self)}")
        return [i % len(self) for i in found]

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        """Draw many faces at once: the item's keys stacked, ``image (n, C, H, W)`` and so on."""
        indices = self._check(indices)
        p = self.parameters(indices)
        drawn = render_faces(p, self.size, self.channels, self.masks)
        out = dict(
            image=drawn.image,
            label=self.labels[indices],
            votes=self.votes[indices],
            landmarks=drawn.landmarks,
            action_units=p.action_units,
            path=[f"synthetic:{self.seed}:{i}" for i in indices],
        )
        if self.masks:
            out["masks"] = drawn.masks
        return out

    def __getitem__(self, index: int) -> dict[str, Any]:
        many = self.batch([index])
        item = {k: v[0] for k, v in many.items() if k != "masks"}
        item["label"] = int(item["label"])
        if self.masks:
            item["masks"] = {name: m[0] for name, m in many["masks"].items()}
        return item
