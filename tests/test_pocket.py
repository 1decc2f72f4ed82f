"""The network of the page: its answer is its evidence, whatever the resizer in front."""

import pytest
import torch

from ferlib.models import NeuralResizer, PocketNet

TINY = {"widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1), "resizer_channels": 4}


@pytest.mark.parametrize("resizer", ["neural", "antialiased"])
def test_the_logits_are_the_mean_of_the_evidence(resizer):
    model = PocketNet(5, in_size=40, out_size=32, resizer=resizer, **TINY).eval()
    images = torch.randn(3, 3, 40, 40)
    evidence = model.evidence(images)
    assert evidence.shape == (3, 5, 4, 4)
    torch.testing.assert_close(model(images), evidence.flatten(2).mean(2))
    assert evidence.flatten(2).std(2).min() > 0  # places differ, or a map would tell nothing


def test_it_starts_as_the_network_behind_bilinear_interpolation():
    learned = PocketNet(in_size=40, out_size=32, **TINY).eval()
    fixed = PocketNet(in_size=40, out_size=32, resizer="bilinear", **TINY).eval()
    shared = {k: v for k, v in learned.state_dict().items() if not k.startswith("resizer")}
    fixed.load_state_dict(shared)
    images = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(learned(images), fixed(images))
    assert isinstance(learned.resizer, NeuralResizer)


def test_every_weight_learns():
    model = PocketNet(in_size=40, out_size=32, **TINY)
    torch.nn.init.normal_(model.resizer.to_image.weight)  # at zero it holds the others' gradients back
    model(torch.randn(4, 3, 40, 40)).square().sum().backward()
    for name, weight in model.named_parameters():
        if not name.startswith("resizer.features"):  # biases before a batch norm have none
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="multiple of 8"):
        PocketNet(out_size=44)
    with pytest.raises(ValueError, match="cubic"):
        PocketNet(resizer="cubic")
    with pytest.raises(ValueError, match="48"):
        PocketNet()(torch.zeros(1, 3, 48, 48))
