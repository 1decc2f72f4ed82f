"""MobileNetFaces against stored numbers: its three maps, on the real weights."""

import pytest
import torch
from safetensors.torch import load_file

from ferlib.models import MobileNetFaces
from ferlib.models.mobilenet_faces import MEAN_BGR
from ferlib.weights import from_official
from tests.contract_fill import assert_summary, fill_input, reference

WEIGHTS = "weights/mobilenet_faces.safetensors"


def test_the_three_maps(shared):
    if not (shared / WEIGHTS).is_file():
        pytest.skip(f"no {WEIGHTS} among the reference material")
    net = MobileNetFaces().eval()
    net.load_state_dict(from_official(load_file(shared / WEIGHTS), "mobilenet-faces"), strict=True)
    faces = fill_input("face224", (2, 3, 224, 224), "uniform01") * 255
    faces -= torch.tensor(MEAN_BGR).view(3, 1, 1)
    expected = reference("mobilenet_faces")
    with torch.inference_mode():
        maps = net(faces)
    for name, level in zip(("stride8", "stride16", "stride32"), maps, strict=True):
        assert_summary(level, expected, name, rtol=0, atol=1e-4)
