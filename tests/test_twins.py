"""Copies of a picture are found, and different pictures are not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.data import DataError, FaceDataset, SyntheticFaces, find_twins, render_faces
from ferlib.data.twins import NEAR


class Pictures(FaceDataset):
    """Pictures in memory: uint8 (N, C, H, W)."""

    classes = ("face",)

    def __init__(self, images: torch.Tensor):
        self.images, self.labels = images, torch.zeros(len(images), dtype=torch.long)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "label": 0}


def faces(count: int, size: int = 48, channels: int = 1, seed: int = 3) -> torch.Tensor:
    drawn = SyntheticFaces(count, size=size, seed=seed, channels=channels, framing="ferplus")
    return drawn.batch(range(count))["image"]


def compressed(image: torch.Tensor, quality: int = 50) -> torch.Tensor:
    array = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, "JPEG", quality=quality)
    again = torch.from_numpy(np.array(Image.open(buffer)))
    return again[None] if again.ndim == 2 else again.permute(2, 0, 1)


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The picture in a frame that lies some pixels beside its own; edges are continued."""
    padded = torch.nn.functional.pad(image[None].float(), (3, 3, 3, 3), mode="replicate")[0]
    height, width = image.shape[1:]
    return padded[:, 3 + down : 3 + down + height, 3 + right : 3 + right + width].to(torch.uint8)


def brighter(image: torch.Tensor) -> torch.Tensor:
    return (image.float() * 1.15 + 10).clamp(0, 255).to(torch.uint8)


CHANGES = {
    "exact": lambda image: image.clone(),
    "mirrored": lambda image: image.flip(2),
    "JPEG": compressed,
    "one pixel": lambda image: moved(image, 1, 0),
    "two pixels": lambda image: moved(image, 0, -2),
    "diagonal": lambda image: moved(image, -1, 2),
    "brighter": brighter,
    "several": lambda image: brighter(compressed(moved(image, 1, 1).flip(2), 60)),
}


@pytest.mark.parametrize(("size", "channels"), [(48, 1), (100, 3)])
def test_planted_copies_are_found_and_nothing_else(size: int, channels: int) -> None:
    originals = faces(60, size, channels)
    copies = torch.stack([change(originals[5 * i]) for i, change in enumerate(CHANGES.values())])
    twins = find_twins(Pictures(originals), Pictures(copies))
    for i, name in enumerate(CHANGES):
        assert twins.groups[1][i] == twins.groups[0][5 * i], name
    assert len(twins.groups[0].unique()) == 60  # no two different faces share a group
    assert not twins.has_twin(0).any() and not twins.has_twin(1).any()
    assert torch.nonzero(twins.has_twin(0, 1))[:, 0].tolist() == [5 * i for i in range(len(CHANGES))]
    assert twins.has_twin(1, 0).all()
    assert [pair.kind for pair in twins.pairs][:2] == ["exact", "mirrored"]
    assert all(pair.first == (0, 5 * i) and pair.second == (1, i) for i, pair in enumerate(twins.pairs))
    assert all(NEAR <= pair.similarity <= 1.0001 for pair in twins.pairs)


def test_other_pictures_of_one_person_or_one_expression_are_no_copies() -> None:
    drawn = SyntheticFaces(40, size=48, seed=5, channels=1, framing="ferplus")
    first = drawn.parameters([0])
    person = drawn.parameters(range(40)).replace(shape=first.shape, look=first.look)
    one_person = render_faces(person, size=48, channels=1).image
    alike = SyntheticFaces(40, size=48, seed=6, channels=1, framing="ferplus", expression="happiness")
    twins = find_twins(Pictures(one_person), alike)
    assert len(torch.cat(twins.groups).unique()) == 80


def test_only_exact_copies_where_near_ones_are_not_wanted() -> None:
    images = faces(6)
    twins = find_twins(Pictures(torch.cat([images, images[:2], images[2:4].flip(3)])), near=False)
    assert [(pair.first, pair.second, pair.kind) for pair in twins.pairs] == [
        ((0, 0), (0, 6), "exact"),
        ((0, 1), (0, 7), "exact"),
    ]
    assert twins.groups[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 6, 7]


def test_a_chain_of_similar_faces_does_not_become_one_group() -> None:
    wide = faces(1, size=80, seed=8)[0]
    chain = torch.stack([wide[:, 16:64, 2 * step : 2 * step + 48] for step in range(16)])
    twins = find_twins(Pictures(chain))
    pairs = {(pair.first[1], pair.second[1]) for pair in twins.pairs}
    assert {(i, i + 1) for i in range(15)} <= pairs  # neighbors are copies
    assert not any(j - i > 2 for i, j in pairs)
    assert torch.bincount(twins.groups[0]).max() < 8  # of 16


def test_flat_pictures_resemble_only_their_equals() -> None:
    gray = torch.stack([torch.full((1, 48, 48), value, dtype=torch.uint8) for value in (0, 0, 128, 255)])
    assert find_twins(Pictures(torch.cat([gray, faces(3)]))).groups[0].tolist() == [0, 0, 1, 2, 3, 4, 5]


def test_the_order_of_faces_does_not_change_who_belongs_together() -> None:
    originals = faces(30)
    images = torch.cat([originals, originals[:9].flip(3), originals[3:12]])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    one = find_twins(Pictures(images)).groups[0]
    shuffled = find_twins(Pictures(images[order])).groups[0]
    assert torch.equal(one[order][:, None] == one[order], shuffled[:, None] == shuffled)


def test_nothing_to_look_at_and_a_threshold_out_of_range_are_refused() -> None:
    for threshold in (0.3, 1.1):
        with pytest.raises(DataError, match=str(threshold)):
            find_twins(Pictures(faces(2)), threshold=threshold)
    with pytest.raises(DataError):
        find_twins()
    empty = find_twins(Pictures(torch.empty(0, 1, 48, 48, dtype=torch.uint8)))
    assert empty.groups[0].tolist() == [] and empty.pairs == ()
