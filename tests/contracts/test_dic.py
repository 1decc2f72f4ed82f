"""DIC against the numbers of the original program: every step's picture and landmark maps."""

import pytest
import torch

from ferlib.models import DIC
from ferlib.models.dic import MEAN
from ferlib.weights import from_official
from tests.contract_fill import assert_summary, fill_input, fill_state_dict, read_rows, reference


@pytest.fixture(scope="module")
def network() -> DIC:
    rows = read_rows("dic_helen")
    assert len(rows) == 296
    module = DIC()
    module.load_state_dict(from_official(fill_state_dict(rows), "dic"), strict=True)
    assert sum(p.numel() for p in module.parameters()) == 21_803_849
    return module.eval()


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    return fill_input("lr16", (1, 3, 16, 16), "uniform01")


@torch.no_grad()
def test_every_step(network, face):
    expected = reference("dic_helen")
    for step, (large, maps) in enumerate(network.steps(face), 1):
        assert_summary(large, expected, f"lr16_sr_step{step}", rtol=0, atol=1e-5)
        assert_summary(maps, expected, f"lr16_heatmap_step{step}", rtol=1e-5)
    assert step == 4


@torch.no_grad()
def test_in_double_precision(network, face):
    expected = reference("dic_helen")
    last = network.double()(face.double())
    network.float()
    assert_summary(last, expected, "lr16_sr_step4", rtol=1e-9)


@torch.no_grad()
def test_mean_shift_and_rounding(network, face):
    expected = reference("dic_helen")
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    large = network(face - mean) + mean
    assert_summary(large, expected, "lr16_meanshift_sr_step4", rtol=0, atol=1e-5)
    stored = torch.from_numpy(expected["lr16_meanshift_sr_step4_uint8_hwc"]).permute(2, 0, 1)
    ours = (255 * large).clamp(0, 255).round().to(torch.uint8)[0]
    difference = (ours.int() - stored.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-4  # values at half a level


@torch.no_grad()
def test_the_size_of_ferplus(network):
    expected = reference("dic_helen")
    large, maps = next(network.steps(fill_input("lr48", (1, 3, 48, 48), "uniform01")))
    assert_summary(large, expected, "lr48_sr_step1", rtol=0, atol=1e-5)
    assert_summary(maps, expected, "lr48_heatmap_step1", rtol=1e-5)
