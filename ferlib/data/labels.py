"""Class names, their orders and other words for them; labels from ten annotators' votes, the prior."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ferlib.errors import DataError

#: The eight expressions in the order of FER+'s label files (and of the published prior matrix).
EMOTIONS_FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
#: The seven expressions of RAF-DB; its label files count them from 1 in this order.
EMOTIONS_RAFDB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
#: The eight expressions of AffectNet in the order of its annotation numbers 0-7.
EMOTIONS_AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
#: The class names of each kind of data set that a command knows, in label order.
CLASSES = {
    "ferplus": EMOTIONS_FERPLUS,
    "rafdb": EMOTIONS_RAFDB,
    "affectnet7": EMOTIONS_AFFECTNET[:7],
    "affectnet8": EMOTIONS_AFFECTNET,
    "affectnet": EMOTIONS_AFFECTNET,
}
#: Other words for the expressions, as people call their folders.
SYNONYMS = {
    **dict.fromkeys(("happy", "joy"), "happiness"),
    **dict.fromkeys(("surprised", "suprise"), "surprise"),
    **dict.fromkeys(("sad",), "sadness"),
    **dict.fromkeys(("angry",), "anger"),
    **dict.fromkeys(("disgusted",), "disgust"),
    **dict.fromkeys(("afraid", "scared", "fearful"), "fear"),
    **dict.fromkeys(("contemptuous",), "contempt"),
}
#: The ten vote columns of FER+: the expressions, "unknown", and NF ("not a face").
VOTE_COLUMNS = (*EMOTIONS_FERPLUS, "unknown", "NF")
#: The rules by which votes become a label; see :func:`majority_label`.
LABEL_RULES = ("majority", "half", "votes")


def _as_votes(votes: Any) -> tuple[torch.Tensor, int]:
    """Votes as a tensor, and how many leading columns are expressions."""
    votes = torch.as_tensor(votes).double()
    columns = votes.shape[-1] if votes.ndim in (1, 2) else 0
    if columns < 2:
        raise DataError(f"votes have shape {tuple(votes.shape)}; expected (N, columns) or (columns,)")
    if not torch.isfinite(votes).all() or (votes < 0).any():
        raise DataError(
            "votes must be counts or shares, not negative and not NaN: look at the label file's rows"
        )
    return votes, len(EMOTIONS_FERPLUS) if columns == len(VOTE_COLUMNS) else columns


def majority_label(votes: Any, rule: str = "majority") -> torch.Tensor:
    """The label that a named rule reads out of annotators' votes, or -1 where the rule gives none.

    With v the votes of one face and V = sum of v over all columns, the last two ("unknown", "not a face")
    included:

    ``"majority"``
        Outliers first: votes of 0 or 1 become 0, V is summed again; then the top vote, if it is one of the
        expressions and holds *more than* half of V. Gives the 25,045 training and 3,191 validation labels of
        the Neural Resizer from FER+'s ``label.csv``.
    ``"half"``
        The top vote, if it is one of the expressions and holds *at least* half of V. The rule behind the
        published prior matrix (25,373 training faces of ``fer2013new.csv``).
    ``"votes"``
        The expression with most votes, however few; the first one on a tie. For training on the votes
        themselves.

    Args:
        votes: (N, 10) in the order of ``VOTE_COLUMNS``, (N, K) for expressions only, or one row.
        rule: One of ``LABEL_RULES``.

    Returns:
        int64 (N,), or a scalar for one row.

    Raises:
        DataError: Unknown rule; negative or NaN votes; a wrong shape.

    Chapter 1.
    """
    if rule not in LABEL_RULES:
        raise DataError(f"label rule {rule!r} is not known; choose one of {', '.join(LABEL_RULES)}")
    votes, classes = _as_votes(votes)
    if rule == "majority":
        votes = torch.where(votes <= 1, 0.0, votes)
    total = votes.sum(-1)
    if rule == "votes":
        label = votes[..., :classes].argmax(-1)
        return torch.where(votes[..., :classes].sum(-1) > 0, label, -1)
    top, label = votes.max(-1)
    enough = 2 * top > total if rule == "majority" else 2 * top >= total
    # "half" leaves 5:5 ties; argmax takes the first column, and a tie between an expression and "unknown"
    # is kept
    return torch.where(enough & (label < classes) & (total > 0), label, -1)


def confusion_prior(votes: Any, *, rule: str = "half") -> torch.Tensor:
    r"""How annotators share their votes on the faces of each class: the prior D of the F-PDLS loss.

    .. math:: D_{yc} = \frac{1}{|\{i : y_i = y\}|} \sum_{i : y_i = y} \frac{v_{ic}}{\sum_k v_{ik}}

    k runs over the expressions, and rows are scaled to sum to 1. On the training rows of Microsoft's
    ``fer2013new.csv`` with the default rule it equals the published constants within 1e-4.

    Args:
        votes: (N, 10) or (N, K).
        rule: The rule that gives the labels y, see :func:`majority_label`.

    Returns:
        float32 (K, K); rows: label, columns: vote share.

    Raises:
        DataError: A class that no face has, since its row would be made up.

    Source: Neural Resizer, the distribution of the PDLS loss. Chapters 1 and 3.
    """
    votes, classes = _as_votes(votes)
    label = majority_label(votes, rule)
    votes, kept = votes[:, :classes], label >= 0
    share = votes / votes.sum(1, keepdim=True).clamp_min(1e-12)
    prior = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, label[kept], share[kept])
    names = EMOTIONS_FERPLUS if classes == 8 else [f"class {c}" for c in range(classes)]
    if missing := [name for name, row in zip(names, prior, strict=True) if not row.any()]:
        raise DataError(
            f"no face among {len(votes)} has the label {', '.join(missing)} by rule {rule!r}: take more faces"
        )
    return (prior / prior.sum(1, keepdim=True)).float()


def read_class(text: str, classes: Sequence[str], first: int = 0) -> int | None:
    """The label that a folder or a cell of a table means, or None.

    It holds a number from ``first`` on ("3", "3.0"), or an expression in any case ("Happy").
    """
    word = text.strip().lower().removesuffix(".0")
    if word in map(str, range(first, first + len(classes))):
        return int(word) - first
    word = SYNONYMS.get(word, word)
    return classes.index(word) if word in classes else None


def class_folders(
    names: Iterable[str],
    classes: Sequence[str],
    first: int = 0,
    absent: Sequence[str] = (),
    title: str = "the data set",
) -> dict[str, int]:
    """The label of each folder that is a class's, after a check that the folders are those of a data set.

    Beside a class's own name another word for it is no class; those of ``absent`` may be missing.

    Raises:
        DataError: Numbers of another data set, two folders of one class, or a class without a folder.
    """
    folders: dict[int | None, list[str]] = {}
    for name in sorted(names, key=lambda name: (name.lower() in SYNONYMS, name)):
        label = read_class(name, classes, first)
        if label not in folders or name.lower() not in SYNONYMS:
            folders.setdefault(label, []).append(name)
    strange = [name for name in folders.pop(None, []) if name.isdecimal()]
    lacking = [name for k, name in enumerate(classes) if k not in folders and name not in absent]
    twice = next((f"folders {' and '.join(two)} for one class" for two in folders.values() if two[1:]), "")
    if strange or lacking or twice:
        found = f"a folder {strange[0]!r}, which is no class" if strange else twice
        raise DataError(
            f"{found or f'no folder for {lacking[0]!r}, a class'} of {title} ({len(classes)} expressions). "
            f"Expected {first} to {first + len(classes) - 1} for {', '.join(classes)}, or folders with these "
            "names; is it another data set, or numbered otherwise?"
        )
    return {name: label for label, (name,) in folders.items() if label is not None}


def match_classes(found: Sequence[str], wanted: Sequence[str], what: str) -> torch.Tensor:
    """Where each class of a data set (``wanted``) stands among a network's outputs, matched by name.

    Returns:
        int64 (C,), C = len(wanted): column of each class; ``logits[:, columns]`` has the data set's order.

    Raises:
        DataError: The network lacks a class, or the names repeat.
    """
    columns = class_mapping(wanted, found)
    lacking = [name for name, column in zip(wanted, columns.tolist(), strict=True) if column < 0]
    if lacking:
        raise DataError(
            f"{what} has no output for {', '.join(lacking)} (its classes: {', '.join(found)}): choose the "
            "--dataset that it was trained for, or a network of this data set's classes"
        )
    return columns


def class_mapping(source: Sequence[str], target: Sequence[str]) -> torch.Tensor:
    """Where each class of one data set stands in another: ``target[m[i]] == source[i]``, or -1.

    The inverse direction reorders a matrix of FER+ order for another data set:
    ``index = class_mapping(EMOTIONS_RAFDB, EMOTIONS_FERPLUS); prior[index][:, index]``. Chapter 1.

    Returns:
        int64 (K,) for the K names of ``source``.
    """
    for names in (source, target):
        if len(set(names)) != len(names):
            raise DataError(f"class names must differ from each other: {tuple(names)}")
    return torch.tensor([target.index(name) if name in target else -1 for name in source])
