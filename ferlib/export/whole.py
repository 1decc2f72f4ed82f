"""A classifier with everything around it: from a grey face's pixels to probabilities, in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ferlib.training.loop import logits_of

LARGE = 256  # tensors of fewer numbers stay in full precision: they weigh nothing


class WholeClassifier(nn.Module):
    r"""Enlarging, normalising, the network, the temperature and the softmax.

    .. math:: p = \mathrm{softmax}(z / T), \qquad z_c / T = \frac{1}{P} \sum_{p=1}^{P} e_{c,p}

    Enlarging is linear and separable, so it is two products with one matrix: exactly the resizing that
    training used, on every runtime.

    Shape: grey faces (N, 1, S, S) in [0, 1] -> probabilities (N, K), logits (N, K) and, where the network
    has an ``evidence`` method, its maps (N, K, G, G); logits and maps are divided by the temperature T.
    Chapters 7 and 8.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        face_size: int = 48,
        image_size: int | None = None,
        interpolation: str = "bicubic",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.wider = image_size not in (None, face_size)
        side = image_size if self.wider else face_size
        self.register_buffer("enlarge", resizing_matrix(face_size, side, interpolation))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        if self.wider:
            face = (self.enlarge @ face @ self.enlarge.T).clamp(0, 1)
        image = (face.expand(-1, 3, -1, -1) - self.mean) / self.std
        if not hasattr(self.network, "evidence"):
            logits = logits_of(self.network(image)) / self.temperature
            return logits.softmax(1), logits
        evidence = self.network.evidence(image) / self.temperature
        logits = evidence.mean((2, 3))
        return logits.softmax(1), logits, evidence


def resizing_matrix(size: int, side: int, mode: str = "bicubic") -> Tensor:
    """What :func:`ferlib.data.transforms.resize` does to a column of pixels, as a matrix.

    Shape: two sizes -> (side, size); ``R @ picture @ R.T`` resizes a picture, up to the final clamp.
    """
    how = {"mode": "nearest-exact"} if mode == "nearest" else {"mode": mode, "antialias": True}
    return F.interpolate(torch.eye(size)[None, None], (size, side), **how)[0, 0].T.contiguous()


def round_to_half(network: nn.Module) -> None:
    """Replace the weights of large tensors by the nearest half-precision numbers, in place.

    Shape: a module in, nothing out. Raises ``ValueError`` for a weight beyond half precision's 65,504.
    """
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() >= LARGE:
                rounded = tensor.half().float()
                if not rounded.isfinite().all():
                    raise ValueError(
                        f"'{name}' has values that half precision cannot hold: export with full precision"
                    )
                tensor.copy_(rounded)
