"""dlib's face-recognition network against stored numbers: descriptor and four maps, on the real weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ferlib.models import DlibFaceNet, from_official
from tests.contract_fill import assert_summary, fill_input, reference

WEIGHTS = "weights/face_recognition_dlib.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_descriptor_and_the_maps(shared, dtype):
    if not (shared / WEIGHTS).is_file():
        pytest.skip(f"no {WEIGHTS} among the reference material")
    net = DlibFaceNet().eval()
    net.load_state_dict(from_official(load_file(shared / WEIGHTS), "dlib-face"), strict=True)
    net.to(dtype)
    expected = reference(shared, "dlib_face")
    faces = fill_input("face150", (2, 3, 150, 150), "uniform01").to(dtype) * 255
    with torch.inference_mode():
        descriptor, maps = net(faces)
    if dtype == torch.float64:
        stored = torch.from_numpy(expected["descriptor_float64"])
        torch.testing.assert_close(descriptor, stored, rtol=0, atol=1e-6)  # the input was drawn in float32
        return
    torch.testing.assert_close(descriptor, torch.from_numpy(expected["descriptor"]), rtol=0, atol=1e-5)
    for name in ("conv32_3", "conv64_3", "conv128_2", "conv256_2"):
        assert_summary(maps[name], expected, name)
