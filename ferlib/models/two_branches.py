"""Both pretrained branches of POSTER V2's structure, read by one hidden layer: the simplest head there is.

What a fusion by attention, multi-level attention and a batch transformer are worth shows beside a network
that has none of them. A CPU trains this one in an hour, with the face branch. Chapter 9 measures it on FER+.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models.dlib_face import BLOCKS, DlibFaceNet, to_unit
from ferlib.models.iresnet import resize_to
from ferlib.models.mobilefacenet import MobileFaceNet

FACE_LEVELS = {"conv64_3": 3, "conv128_2": 3, "conv256_2": 2}  # block of dlib's network: side it is pooled to
LANDMARK_LEVELS = {1: (128, 3), 2: (512, 2)}  # level of MobileFaceNet: channels, side it is pooled to
LANDMARK_SIZE = 112
SMALLEST = 70  # pixels; below, nothing is left of dlib's last level


class BranchFeatures(nn.Module):
    """A face as one vector: maps of dlib's network and of the landmark network, pooled and normalised.

    Shape: images (B, 3, H, W), RGB, ImageNet-normalised, any size -> (B, ``width``). The face branch sees
    ``face_size`` pixels: a face that fills 112 is as large to it as one in its training pictures, 150 with a
    margin. The landmark branch sees 112 in [0, 1], as its weights were trained. Each level is normalised over
    all its numbers, so that none is louder than the others.

    The landmark branch does not learn and its batch norms do not move.
    Raises: ``ValueError`` for a ``face_size`` under 70. The arrangement is ours. Chapter 9.
    """

    def __init__(self, face_size: int = 112) -> None:
        super().__init__()
        if face_size < SMALLEST:
            raise ValueError(f"face_size is {face_size}, expected at least {SMALLEST} pixels")
        self.face_size = face_size
        self.face = DlibFaceNet()
        del self.face.fc, self.face.blocks["conv256_down_out"]  # the descriptor is not asked for
        self.landmarks = MobileFaceNet(head=False).requires_grad_(False)
        self.width = sum(BLOCKS[name] * side**2 for name, side in FACE_LEVELS.items())
        self.width += sum(channels * side**2 for channels, side in LANDMARK_LEVELS.values())
        self.train()

    def train(self, mode: bool = True) -> BranchFeatures:
        super().train(mode)
        self.landmarks.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        pictures = to_unit(images)
        with torch.no_grad():
            marks = self.landmarks.features(resize_to(pictures, LANDMARK_SIZE, "bilinear"))
        faces = self.face.maps(255 * resize_to(pictures, self.face_size, "bilinear"), [*FACE_LEVELS][-1])
        levels = [_pooled(faces[name], side) for name, side in FACE_LEVELS.items()]
        levels += [_pooled(marks[level], side) for level, (_, side) in LANDMARK_LEVELS.items()]
        return torch.cat(levels, dim=1)


class TwoBranchNet(nn.Module):
    """Expressions from both pretrained branches by one hidden layer, without attention.

    Load the branches' weights, they are the point of it: ``{"face": "dlib-face", "landmarks":
    "mobilefacenet"}`` for ``ferlib.models.load_pretrained``, or ``weights`` in a recipe.

    Parameters
    ----------
    num_classes: how many expressions, K.
    hidden: width of the hidden layer.
    face_size: side in pixels of what the face branch sees, at least 70.
    dropout: shares of the features and of the hidden layer that training leaves out.

    Shape: images (B, 3, H, W), RGB, ImageNet-normalised, any size -> logits (B, K). Source: ours. Chapter 9.
    """

    def __init__(
        self, num_classes: int = 8, *, hidden: int = 96, face_size: int = 112,
        dropout: tuple[float, float] = (0.2, 0.3),
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_classes = num_classes
        self.encoder = BranchFeatures(face_size)
        self.hidden = nn.Linear(self.encoder.width, hidden)
        self.dropout = nn.ModuleList(nn.Dropout(share) for share in dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features, hidden = self.dropout
        return self.head(hidden(F.relu(self.hidden(features(self.encoder(images))))))


def _pooled(level: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C side^2): mean of zero and variance of one over a face's numbers."""
    vector = F.adaptive_avg_pool2d(level, side).flatten(1)
    return F.layer_norm(vector.float(), vector.shape[1:])
