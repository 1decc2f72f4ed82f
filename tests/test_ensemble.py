"""Networks that answer as one: the mean of their probabilities, for a face and its mirror image."""

import pytest
import torch

from ferlib.models import Ensemble, PocketNet
from ferlib.training import Recipe, build_model
from ferlib.weights import checkpoints, load_network

TINY = {"in_size": 16, "out_size": 16, "widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1), "resizer": "bilinear"}


def of(count: int) -> list[dict]:
    return [{"model": "PocketNet", "model_options": TINY}] * count


def members(count: int) -> list[PocketNet]:
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(PocketNet(5, **TINY).eval())
    return found


def filled(model: Ensemble, members: list[PocketNet]) -> Ensemble:
    for member, own in zip(model.members, members, strict=True):
        member.load_state_dict(own.state_dict())
    return model.eval()


def test_it_averages_over_members_and_views():
    apart = members(2)
    together = filled(Ensemble(5, members=of(2)), apart)
    images = torch.randn(3, 3, 16, 16)
    mean = sum(m(view).softmax(1) for m in apart for view in (images, images.flip(-1))) / 4
    torch.testing.assert_close(together(images).softmax(1), mean)
    torch.testing.assert_close(together(images), together(images.flip(-1)))  # left and right are one
    wrapped = filled(Ensemble(5, members=of(1), mirror=False), apart[:1])
    torch.testing.assert_close(wrapped(images), apart[0](images).log_softmax(1))
    other = {"model": "btn_small", "model_options": {"in_size": 16, "dim": 8, "depth": 1, "inference": "vit"}}
    mixed = Ensemble(5, members=[*of(1), other]).eval()
    said = [member(view).softmax(1) for member in mixed.members for view in (images, images.flip(-1))]
    torch.testing.assert_close(mixed(images).softmax(1), sum(said) / 4)


def test_a_recipe_builds_it_and_its_checkpoint_says_so(tmp_path):
    recipe = Recipe(name="together", model="Ensemble", model_options={"members": of(2)})
    model = build_model(recipe, num_classes=5)
    filled(model, members(2))
    path = checkpoints.save(tmp_path / "e.safetensors", model, {"recipe": vars(recipe)})
    again = load_network(path)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.eval()(images), model.eval()(images))


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="'Nobody'"):
        Ensemble(members=[{"model": "Nobody"}])
    with pytest.raises(ValueError, match="at least one member, not 0"):
        Ensemble(members=[])
