"""A trained network's answers: from the image alone, in other company, and about faces that are hard to read.

A view's name says which faces, which answer, and in which company: ``upright | bt | shuffled 64``. ``own`` is
the answer from the image alone ("vit"); a face that is alone in its batch gets the same class from all three.
``reference``: the face asks itself and 256 faces it learned from, and no neighbour.
"""

from __future__ import annotations

from typing import Any

import measures
import torch
from parts import Alone
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.evaluation.batches import compose, spread
from ferlib.evaluation.encoded import EncodedFaces, encode
from ferlib.models import BatchTransformerNetwork
from ferlib.training import Recipe

UPRIGHT, OWN = "upright", "own"
MAIN = "shuffled 64"  # the company in which arms are compared
COMPANY = (MAIN, "shuffled 8", "shuffled 256", "one class only 8", "one class only 64", "one class only 256")
REFERENCE, ROUNDS = 256, 50
Found = dict[str, dict[str, Any]]


def view(faces: str, answer: str, company: str = MAIN) -> str:
    """A view's name; the own answer has no company."""
    return f"{faces} | {answer}" if answer == OWN else f"{faces} | {answer} | {company}"


@torch.no_grad()
def judge(
    model: nn.Module, sets: dict[str, FaceDataset], recipe: Recipe, reference: FaceDataset, full: bool
) -> tuple[Found, dict[str, float]]:
    """Every view of every set, and for a network with a batch transformer the spread of single answers.

    ``full``: the first set in all companies, the others too; else the first set in the main company.
    Returns views (:func:`measures.final`) and numbers by name. The model is left in evaluation mode.
    """
    found: Found = {}
    numbers: dict[str, float] = {}
    for name, faces in sets.items() if full else list(sets.items())[:1]:
        labels = torch.as_tensor(faces.labels)
        if isinstance(model, Alone):
            found[view(name, OWN)] = measures.final(measures.answers(model, faces, recipe), labels)
            continue
        encoded = encode(model.eval(), faces, batch_size=256)
        answers = {view(name, OWN): encoded.value}
        for company in COMPANY if name == UPRIGHT and full else (MAIN,):
            how, size = company.rsplit(" ", 1)
            said = in_batches(model, encoded, compose(labels, int(size), how))
            answers |= {view(name, answer, company): logits for answer, logits in said.items()}
        if full:
            for answer, logits in by_reference(model, encoded, reference).items():
                answers[view(name, answer, f"reference {REFERENCE}")] = logits
        found |= {key: measures.final(logits.float(), labels) for key, logits in answers.items()}
        if full and name == UPRIGHT:
            numbers |= spread_of(encoded, faces.classes)
    return found, numbers


def in_batches(
    model: BatchTransformerNetwork, faces: EncodedFaces, batches: list[Tensor]
) -> dict[str, Tensor]:
    """Both answers that depend on the batch, (N, K) each in the order of the faces."""
    said = [model.batch_transformer(faces.query[r], faces.key[r], faces.value[r]) for r in batches]
    order = torch.cat(batches).argsort()
    cba, bt = (torch.cat(part)[order] for part in zip(*said, strict=True))
    return {"bt": bt, "cba": cba}


def by_reference(
    model: BatchTransformerNetwork, faces: EncodedFaces, reference: FaceDataset
) -> dict[str, Tensor]:
    """Both answers of faces that ask themselves and the reference faces, (N, K) each."""
    known = encode(model, reference, batch_size=256)
    model.batch_transformer.set_reference(known.key, known.value)
    cba, bt = model.batch_transformer(faces.query, faces.key, faces.value)
    model.batch_transformer.set_reference(None, None)
    return {"bt": bt, "cba": cba}


def spread_of(faces: EncodedFaces, classes: tuple[str, ...]) -> dict[str, float]:
    """How the answer "bt" to one face varies over 50 random batches of 64, as means over faces."""
    size = min(64, len(faces.labels) // 2)
    found = spread(faces, classes, faces.value, ROUNDS, size, 1, 0)
    accuracies = found["accuracy by round"]
    return {
        "label changes | share of faces": round(float(found["label changes | share of faces"].mean()), 6),
        "range of the true class's probability | mean": round(
            float(found["range of the true class's probability | mean"].mean()), 6
        ),
        "lowest accuracy of a round": min(accuracies),
        "highest accuracy of a round": max(accuracies),
    }
