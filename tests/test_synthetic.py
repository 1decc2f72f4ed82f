"""The drawn faces as a data set: determinism, labels, votes, masks, occlusion, bad arguments."""

import pytest
import torch

from ferlib.data import DataError, SyntheticFaces
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.data.synthetic import draw_votes, vote_probabilities
from ferlib.losses import FERPLUS_PRIOR
from ferlib.synthetic.identity import OCCLUSIONS


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to the last bit of rounding in a handful of pixels."""
    d = (a.int() - b.int()).abs()
    return d.max() <= 1 and (d > 0).float().mean() < 1e-3


def test_item_has_what_the_contract_says() -> None:
    faces = SyntheticFaces(8, 48, seed=3, channels=3, masks=True)
    item = faces[5]
    assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 48, 48)
    assert isinstance(item["label"], int) and item["label"] == int(faces.labels[5])
    assert item["votes"].shape == (8,) and item["votes"].sum() == 10
    assert item["landmarks"].shape == (68, 2) and item["landmarks"].dtype == torch.float32
    assert item["action_units"].shape == (21,) and item["action_units"].max() <= 1.5
    assert item["name"] == "synthetic:3:5"
    assert faces.classes == EMOTIONS_FERPLUS
    assert torch.equal(faces[-1]["image"], faces[7]["image"])
    with pytest.raises(IndexError):
        faces[8]
    for mask in item["masks"].values():
        assert mask.shape == (48, 48) and mask.min() >= 0 and mask.max() <= 1
    assert "masks" not in SyntheticFaces(2, 48)[0]


def test_same_seed_same_face_and_other_seed_other_face() -> None:
    a, b = SyntheticFaces(4, 48, seed=1)[2], SyntheticFaces(40, 48, seed=1)[2]
    assert torch.equal(a["image"], b["image"]) and torch.equal(a["landmarks"], b["landmarks"])
    assert a["label"] == b["label"] and torch.equal(a["votes"], b["votes"])
    c = SyntheticFaces(4, 48, seed=2)[2]
    assert (a["image"].float() - c["image"].float()).abs().mean() > 5


def test_a_batch_is_its_items() -> None:
    faces = SyntheticFaces(20, 56, seed=8, channels=3, framing="ferplus", occlusion=0.4, masks=True)
    order = [13, 2, 7, 19, 0, 4]
    batch = faces.batch(order)
    for row, index in enumerate(order):
        item = faces[index]
        assert same(batch["image"][row], item["image"])
        torch.testing.assert_close(batch["landmarks"][row], item["landmarks"], atol=1e-3, rtol=0)
        assert batch["label"][row] == item["label"] and batch["name"][row] == item["name"]
        assert torch.equal(batch["votes"][row], item["votes"])
        torch.testing.assert_close(batch["masks"]["mouth"][row], item["masks"]["mouth"], atol=1e-4, rtol=0)


def test_the_face_does_not_depend_on_its_size() -> None:
    small, large = SyntheticFaces(6, 48, seed=4), SyntheticFaces(6, 192, seed=4)
    a, b = small.batch(range(6)), large.batch(range(6))
    torch.testing.assert_close(a["landmarks"] * 4, b["landmarks"], atol=0.02, rtol=0)
    reduced = torch.nn.functional.avg_pool2d(b["image"].float(), 4)
    difference = (reduced - a["image"].float()).abs().mean((1, 2, 3))
    across = (reduced - a["image"].float().roll(1, 0)).abs().mean((1, 2, 3))
    assert (difference < 9).all() and (difference * 2 < across).all()


def test_every_block_shows_every_expression() -> None:
    labels = SyntheticFaces(80, 48, seed=9).labels.view(10, 8)
    assert torch.equal(labels.sort(1).values, torch.arange(8).expand(10, 8))


def test_expression_and_frequencies_choose_the_labels() -> None:
    assert (SyntheticFaces(5, 48, expression="fear").labels == 6).all()
    assert SyntheticFaces(4, 48, expression=["anger", "neutral"]).labels.tolist() == [4, 0, 4, 0]
    often = SyntheticFaces(3000, 48, frequencies="ferplus").class_counts() / 3000
    assert abs(often[0] - 0.349) < 0.04 and often[5] < 0.02


def test_votes_follow_the_prior_and_the_noise_level() -> None:
    faces = SyntheticFaces(1600, 48, seed=5)
    assert (faces.votes.sum(1) == 10).all() and (faces.votes >= 0).all()
    share = torch.stack([faces.votes[faces.labels == k].mean(0) / 10 for k in range(8)])
    assert (share - FERPLUS_PRIOR).abs().max() < 0.05
    clean = SyntheticFaces(40, 48, seed=5, vote_noise=0.0)
    assert torch.equal(clean.votes, 10.0 * torch.nn.functional.one_hot(clean.labels, 8))
    drawn = [SyntheticFaces(400, 48, vote_noise=n) for n in (0.5, 1.0, 2.0)]
    kept = [float(some.votes.gather(1, some.labels[:, None]).mean()) for some in drawn]
    assert kept[0] > kept[1] > kept[2]


def test_votes_are_drawn_from_the_probabilities() -> None:
    q = vote_probabilities(0.5)
    torch.testing.assert_close(q.sum(1), torch.ones(8))
    prior = FERPLUS_PRIOR / FERPLUS_PRIOR.sum(1, keepdim=True)
    torch.testing.assert_close(q[6, 2], prior[6, 2] / 2)
    u = torch.full((1, 10), 0.999)
    assert draw_votes(torch.tensor([2]), q, u)[0, 7] == 10  # the last share is above a thousandth


def test_occlusion_comes_with_its_probability() -> None:
    share = (SyntheticFaces(400, 48, occlusion=0.3).parameters(range(400)).occlusion > 0).float().mean()
    assert 0.2 < share < 0.4 and (SyntheticFaces(50, 48).parameters(range(50)).occlusion == 0).all()


@pytest.mark.parametrize("name", OCCLUSIONS[1:])
def test_occlusion_hides_part_of_the_face(name: str) -> None:
    plain = SyntheticFaces(6, 64, seed=2, masks=True).batch(range(6))
    hidden = SyntheticFaces(6, 64, seed=2, occlusion=name, masks=True).batch(range(6))
    cover = hidden["masks"]["occluded"]
    assert plain["masks"]["occluded"].max() == 0 and torch.equal(plain["landmarks"], hidden["landmarks"])
    region = plain["masks"]["eyes" if name == "glasses" else "mouth"]
    assert (cover * region).sum() > 0.5 * region.sum()
    change = (plain["image"].float() - hidden["image"].float()).abs()[:, 0]
    assert change[cover > 0.9].mean() > 15 and change[cover == 0].mean() < 4
    assert (hidden["masks"]["expression"] * (cover > 0.99)).max() < 0.02


def test_resolution_takes_detail_away() -> None:
    def detail(image: torch.Tensor) -> torch.Tensor:
        return (image.float().diff(dim=-1) ** 2).mean()

    sharp = SyntheticFaces(8, 96, seed=1).batch(range(8))["image"]
    blurred = SyntheticFaces(8, 96, seed=1, resolution=(16, 24)).batch(range(8))["image"]
    assert detail(blurred) < 0.6 * detail(sharp)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 0}, "length=0"),
        ({"size": 48.0}, "size=48.0"),
        ({"seed": -1}, "seed=-1"),
        ({"channels": 2}, "channels=2"),
        ({"framing": "square"}, "framing='square'"),
        ({"expression": "boredom"}, "boredom"),
        ({"expression": []}, "expression"),
        ({"intensity": (0.9, 0.2)}, "intensity"),
        ({"variation": -1}, "variation"),
        ({"occlusion": "moustache"}, "moustache"),
        ({"occlusion": 1.5}, "occlusion=1.5"),
        ({"resolution": (2, 9)}, "resolution"),
        ({"vote_noise": -0.1}, "vote_noise"),
        ({"frequencies": "rafdb"}, "frequencies"),
    ],
)
def test_bad_arguments_give_one_clear_error(options: dict, says: str) -> None:
    with pytest.raises(DataError, match=says.replace("(", r"\(")):
        SyntheticFaces(**({"length": 4} | options))
