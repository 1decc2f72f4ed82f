"""The landmark network: shapes, parameters, real weights on real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.models.mobilefacenet import MobileFaceNet

WEIGHTS = "weights/mobilefacenet_landmarks68.safetensors"


@pytest.fixture
def trained(shared: Path) -> MobileFaceNet:
    from safetensors.torch import load_file

    path = shared / WEIGHTS
    if not path.exists():
        pytest.skip(f"no landmark weights at {path}")
    net = MobileFaceNet().eval()
    net.load_state_dict(load_file(str(path)), strict=True)
    return net


def test_shapes_and_parameters():
    torch.manual_seed(0)
    net = MobileFaceNet().eval()
    out = net(torch.rand(2, 3, 112, 112))
    assert out.level1.shape == (2, 64, 28, 28)
    assert out.level2.shape == (2, 128, 14, 14)
    assert out.level3.shape == (2, 512, 7, 7)
    assert out.landmarks.shape == (2, 68, 2)
    assert sum(p.numel() for p in net.parameters()) == 1_007_248
    head = sum(p.numel() for p in net.output_layer.parameters())
    assert head == 96_016, "the part that POSTER V2 computes and throws away"


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (1, 1, 112, 112), (3, 112, 112)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, 112, 112\)"):
        MobileFaceNet()(torch.zeros(shape))


def test_finds_landmarks_on_real_faces(trained: MobileFaceNet, ferplus_real: Path):
    files = sorted((ferplus_real / "data" / "FER2013Valid").glob("*.png"))[:64]
    faces = []
    for file in files:
        # FER+ crops are tight; the network was trained with some room around the face.
        face = Image.open(file).convert("RGB").resize((90, 90), Image.Resampling.BICUBIC)
        picture = np.pad(np.asarray(face), ((11, 11), (11, 11), (0, 0)), mode="edge")
        faces.append(torch.from_numpy(picture).permute(2, 0, 1) / 255)
    with torch.inference_mode():
        points = trained(torch.stack(faces)).landmarks
    jaw_left, jaw_right = points[:, 0, 0], points[:, 16, 0]
    left_eye, right_eye = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    nose, mouth, chin = points[:, 30], points[:, 48:68].mean(1), points[:, 8]
    in_order = (
        (jaw_left < left_eye[:, 0])
        & (left_eye[:, 0] < right_eye[:, 0])
        & (right_eye[:, 0] < jaw_right)
        & (left_eye[:, 1] < nose[:, 1])
        & (nose[:, 1] < mouth[:, 1])
        & (mouth[:, 1] < chin[:, 1])
        & (points.amin((1, 2)) > -0.2)
        & (points.amax((1, 2)) < 1.2)
    )
    assert in_order.float().mean() >= 0.9, f"{int(in_order.sum())} of {len(files)} faces are in order"
