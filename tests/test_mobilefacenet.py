"""The landmark network: shapes and parameters; its numbers stand among the contracts of POSTER V2."""

import pytest
import torch

from ferlib.models.mobilefacenet import MobileFaceNet


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
    for shape in ((1, 3, 224, 224), (1, 1, 112, 112), (3, 112, 112)):
        with pytest.raises(ValueError, match=r"\(B, 3, 112, 112\)"):
            net(torch.zeros(shape))
