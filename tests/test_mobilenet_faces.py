"""MobileNetFaces and its branch: padding as TensorFlow has it, undoing the normalization, shapes."""

import pytest
import torch
from torch.nn import functional as F

from ferlib.models import PosterV2Encoder
from ferlib.models.mobilenet_faces import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN_BGR,
    SeparableConv,
    centered_bgr,
)


@pytest.mark.parametrize("size", [8, 9])
def test_stride_two_pads_as_tensorflow_does(size):
    torch.manual_seed(0)
    block = SeparableConv(2, 3, stride=2)
    maps = torch.randn(1, 2, size, size)
    padded = F.pad(maps, (0, 1, 0, 1) if size == 8 else (1, 1, 1, 1))
    weight, bias = block.depthwise.weight, block.depthwise.bias
    expected = F.relu6(block.pointwise(F.relu6(F.conv2d(padded, weight, bias, 2, groups=2))))
    torch.testing.assert_close(block(maps), expected)
    assert block(maps).shape[-1] == (size + 1) // 2


def test_the_branch_undoes_imagenet_normalization():
    pixels = torch.rand(2, 3, 224, 224) * 255
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    expected = pixels.flip(1) - torch.tensor(MEAN_BGR).view(3, 1, 1)
    torch.testing.assert_close(centered_bgr((pixels / 255 - mean) / std), expected, rtol=0, atol=1e-3)
    assert centered_bgr(torch.randn(1, 3, 48, 60)).shape == (1, 3, 224, 224)


def test_the_maps_of_the_branch_fit_the_fusion():
    torch.manual_seed(0)
    encoder = PosterV2Encoder(face_backbone="mobilenet-faces").eval()
    images = torch.randn(1, 3, 112, 112)
    with torch.inference_mode():
        maps = encoder.face(images)
        assert [tuple(level.shape[1:]) for level in maps] == [(64, 56, 56), (128, 28, 28), (256, 14, 14)]
        assert encoder(images).shape == (1, 147, 768)
        changed = encoder.face(images + 0.5)
    assert all((a - b).abs().max() > 0 for a, b in zip(maps, changed, strict=True))
