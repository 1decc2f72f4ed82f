"""Copies in FER+: how they were told from other pictures, the grouping that folds use, and what they show.

    python -m book.experiments.twins --data /path/to/FERPlus [--draw FOLDER] [--labels labels.csv]

Needs Microsoft's folders of the training and validation split, and takes about two minutes. ``--draw`` writes
the 200 pairs that were labeled, and contact sheets to label them by, into a folder outside this repository,
and stops. Without ``--labels`` the labels of the present record are used again. Writes
``book/results/twins_ferplus.json``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ferlib.data import EMOTIONS_FERPLUS, FaceDataset, Twins, confusion_prior, find_twins, majority_label
from ferlib.data.base import SourceDataset
from ferlib.data.prepare import DATASETS
from ferlib.data.twins import NEAR
from ferlib.evaluation import ResultRecord
from ferlib.evaluation.intervals import Interval, percentiles, wilson_interval
from ferlib.losses import FERPLUS_PRIOR

NAME = "twins_ferplus"
SPLITS = ("train", "valid")
BANDS = (0.6, 0.7, 0.775, 0.85, 1.01)  # of similarity; pairs below the first were not labeled
EACH, SEED = 50, 19  # pairs drawn from each band
FOLDS = 0.775  # threshold of the grouping for folds: to miss a copy costs more there than to join two others
RESAMPLES = 2000
K = len(EMOTIONS_FERPLUS)


def ferplus_groups(names: Sequence[str]) -> NDArray[np.int64]:
    """The frozen group of each FER+ face outside the test split: copies of one picture share a number.

    Args:
        names: File names such as ``fer0000123.png``, also with folders before them.

    Returns:
        int64 (N,): the number of the first image of the group, which is its own for a face without copies.

    Raises:
        ValueError: A name holds no image number.
    """
    first = _frozen()
    numbers = [int(Path(name).stem[3:]) for name in names]
    return np.array([first.get(number, number) for number in numbers], dtype=np.int64)


@cache
def _frozen() -> dict[int, int]:
    groups = [[int(n) for n in line.split()] for line in ResultRecord.load(NAME).extra["groups"]]
    return {number: group[0] for group in groups for number in group}


def checksum(names: Sequence[str], groups: NDArray[np.int64]) -> str:
    """A short code of a grouping, the same for the same groups in whatever order the faces come."""
    lines = sorted(f"{Path(name).name} {group}\n" for name, group in zip(names, groups, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def every_face(root: Path, split: str) -> SourceDataset:
    """All images of a split, also those whose votes name no expression."""
    return SourceDataset(DATASETS["ferplus"].open(root, split))


# ---- which similarity makes a copy ----


def draw(twins: Twins) -> list[tuple[int, int]]:
    """The pairs to label: (band, index into ``twins.pairs``), 50 from each band."""
    near = [i for i, pair in enumerate(twins.pairs) if pair.kind != "exact"]
    similarity = np.array([twins.pairs[i].similarity for i in near])
    generator, drawn = np.random.default_rng(SEED), []
    for band, (low, high) in enumerate(pairwise(BANDS)):
        rows = np.nonzero((similarity >= low) & (similarity < high))[0]
        drawn += [(band, near[row]) for row in sorted(generator.choice(rows, EACH, replace=False))]
    return drawn


def write_sheets(folder: Path, faces: Sequence[FaceDataset], twins: Twins, names: list[list[str]]) -> None:
    """A table to fill with labels, and the pairs as pictures, 25 a sheet, the second turned if mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, side = draw(twins), 120
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["first", "second", "label"])
        for _, i in drawn:
            first, second = twins.pairs[i][:2]
            table.writerow([names[first[0]][first[1]], names[second[0]][second[1]], ""])
    for start in range(0, len(drawn), 25):
        sheet = Image.new("L", (5 * (2 * side + 14), 5 * (side + 14)), 255)
        for n, (_, i) in enumerate(drawn[start : start + 25]):
            pair = twins.pairs[i]
            one, two = (faces[d][j]["image"][0].numpy() for d, j in (pair.first, pair.second))
            two = np.ascontiguousarray(two[:, ::-1]) if pair.kind == "mirrored" else two
            x, y = n % 5 * (2 * side + 14), n // 5 * (side + 14)
            for k, image in enumerate((one, two)):
                sheet.paste(Image.fromarray(image).resize((side, side)), (x + k * (side + 2), y))
        sheet.save(folder / f"pairs_{start:03d}.png")


def judge(similarity: NDArray, band: NDArray, copy: NDArray, sizes: NDArray) -> dict[str, Interval]:
    """Precision and recall of the threshold from labeled pairs; each stands for its share of its band.

    Bands are cut at the threshold, too. Intervals: each part's share of copies is drawn from its posterior
    under a uniform prior. Recall is that among pairs from ``BANDS[0]`` on.

    Args:
        similarity, band, copy: Of each labeled pair, (n,).
        sizes: How many pairs each band has below and from the threshold on, (bands, 2).
    """
    generator = np.random.default_rng(SEED)
    value, drawn = np.zeros(2), np.zeros((20_000, 2))
    for b, side in np.ndindex(sizes.shape):
        chosen = (band == b) & ((similarity >= NEAR) == side)
        right, total = int(copy[chosen].sum()), int(chosen.sum())
        if total:
            value[side] += sizes[b, side] * right / total
            drawn[:, side] += sizes[b, side] * generator.beta(right + 0.5, total - right + 0.5, len(drawn))
    accepted = sizes[:, 1].sum()
    return {
        "precision": Interval(value[1] / accepted, *percentiles(drawn[:, 1] / accepted)),
        "recall": Interval(value[1] / value.sum(), *percentiles(drawn[:, 1] / drawn.sum(1))),
    }


# ---- what copies show about annotators ----


def panels(labels: NDArray, groups: NDArray) -> tuple[NDArray, NDArray]:
    """How two panels labeled copies of one picture, by group.

    Each face counts once as the first panel, whatever its group's size: it is spread evenly over the copies.

    Args:
        labels: Majority label or -1, (N,).
        groups: Group of each face, (N,).

    Returns:
        (G, K, K) weights of (first label, second label) for the G groups with two labeled faces or more, and
        their group numbers, (G,).
    """
    kept = np.nonzero(labels >= 0)[0]
    order = kept[np.argsort(groups[kept], kind="stable")]
    numbers, starts = np.unique(groups[order], return_index=True)
    found, which = [], []
    for number, members in zip(numbers, np.split(order, starts[1:]), strict=True):
        if len(members) > 1:
            counts = np.bincount(labels[members], minlength=K)
            found.append((np.outer(counts, counts) - np.diag(counts)) / (len(members) - 1))
            which.append(number)
    return np.array(found), np.array(which)


def resampled(values: NDArray) -> NDArray:
    """Sums of values (G, ...) over groups drawn with replacement, (RESAMPLES, ...)."""
    generator = np.random.default_rng(SEED)
    flat = values.reshape(len(values), -1)
    counts = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    return (counts @ flat).reshape(RESAMPLES, *values.shape[1:])


def agreement(tables: NDArray, share: NDArray) -> dict[str, Interval]:
    """How often a second panel names the same expression: all, by class, and weighted by ``share`` (K,)."""

    def numbers(sums: NDArray) -> NDArray:
        same, total = np.diagonal(sums, axis1=-2, axis2=-1), sums.sum(-1)
        by_class = same / np.where(total > 0, total, np.nan)
        weighted = np.nansum(by_class * share, -1) / np.sum(share * ~np.isnan(by_class), -1)
        return np.stack([same.sum(-1) / total.sum(-1), weighted, *np.moveaxis(by_class, -1, 0)], -1)

    names = ["all", "weighted", *EMOTIONS_FERPLUS]
    found, drawn = numbers(tables.sum(0)), numbers(resampled(tables))
    return {n: Interval(float(found[i]), *percentiles(drawn[:, i])) for i, n in enumerate(names)}


def entropy(votes: NDArray) -> NDArray:
    """Entropy in bits of each face's votes, (N, columns) -> (N,)."""
    p = votes / votes.sum(1, keepdims=True)
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(1)


def easier(
    bits: NDArray, labels: NDArray, copied: NDArray, groups: NDArray, share: NDArray
) -> tuple[Interval, Interval, Interval]:
    """Mean entropy of copied and of other faces, classes weighted by ``share`` (K,), and the difference."""
    kept = labels >= 0
    _, member = np.unique(groups[kept], return_inverse=True)
    sums = np.zeros((member.max() + 1, K, 2, 2))  # by group, class, copied or not: sum of entropy, and count
    np.add.at(sums, (member, labels[kept], copied[kept].astype(int), 0), bits[kept])
    np.add.at(sums, (member, labels[kept], copied[kept].astype(int), 1), 1)

    def means(total: NDArray) -> NDArray:
        return np.einsum("...kc,k->...c", total[..., 0] / total[..., 1], share)

    alone, with_copies = means(sums.sum(0))
    generator, drawn = np.random.default_rng(SEED), []
    for _ in range(500):
        counts = np.bincount(generator.integers(0, len(sums), len(sums)), minlength=len(sums))
        drawn.append(means(np.tensordot(counts.astype(float), sums, 1)))
    ends = np.array(drawn)
    return (
        Interval(float(with_copies), *percentiles(ends[:, 1])),
        Interval(float(alone), *percentiles(ends[:, 0])),
        Interval(float(with_copies - alone), *percentiles(ends[:, 1] - ends[:, 0])),
    )


def reweighted(
    cell: NDArray, labels: NDArray, groups: NDArray, valid: NDArray
) -> tuple[Interval, list[dict[str, float]]]:
    """Agreement as it were if copied faces lay in the same cells as validation's.

    Args:
        cell: A small number of each face, such as its level of entropy, (N,).
        labels, groups, valid: Majority label or -1, group, and whether it is a validation face, (N,).

    Returns:
        The reweighted agreement, and of each cell its share of validation's and of the copied faces, and the
        agreement there. Cells without a copied face are left out.
    """
    kept, cells = labels >= 0, int(cell.max()) + 1
    share = np.bincount(cell[kept & valid], minlength=cells) / (kept & valid).sum()
    order = np.nonzero(kept)[0][np.argsort(groups[kept], kind="stable")]
    _, starts = np.unique(groups[order], return_index=True)
    sums = []
    for members in np.split(order, starts[1:]):
        if len(members) > 1:
            same = (labels[members][:, None] == labels[members]).sum(1) - 1
            one = np.zeros((cells, 2))
            np.add.at(one, (cell[members], 0), same / (len(members) - 1))
            np.add.at(one, (cell[members], 1), 1)
            sums.append(one)
    tables = np.array(sums)

    def number(total: NDArray) -> NDArray:
        there = total[..., 1] > 0
        rates = total[..., 0] / np.where(there, total[..., 1], 1)
        return (rates * share * there).sum(-1) / (share * there).sum(-1)

    total = tables.sum(0)
    rows = [
        {
            "validation": round(float(share[i]), 4),
            "copied": round(float(total[i, 1] / total[:, 1].sum()), 4),
            "same label": round(float(total[i, 0] / total[i, 1]), 4),
        }
        for i in np.nonzero(total[:, 1])[0]
    ]
    return Interval(float(number(total)), *percentiles(number(resampled(tables)))), rows


def resampled_votes(votes: NDArray, labels: NDArray, rows: NDArray) -> float:
    """How often ten votes drawn from a face's own name its label, of those that name one."""
    p = votes[rows] / votes[rows].sum(1, keepdims=True)
    new = np.random.default_rng(SEED).multinomial(10, p, (200, len(rows)))
    named = majority_label(torch.from_numpy(new.reshape(-1, new.shape[-1]))).numpy().reshape(200, -1)
    return float((named == labels[rows]).sum() / (named >= 0).sum())


def revotes(
    record: ResultRecord, votes: NDArray, labels: NDArray, exact: NDArray, near: NDArray, valid: NDArray
) -> None:
    """Add numbers and details of the agreement of two panels, from exact copies and from all copies."""
    share = np.bincount(labels[valid & (labels >= 0)], minlength=K) / (valid & (labels >= 0)).sum()
    tables, which = panels(labels, exact)
    all_tables, _ = panels(labels, near)
    for arm, some in {"exact copies": tables, "all copies": all_tables}.items():
        for faces, found in agreement(some, share).items():
            record.add("agreement", found, arm, condition=faces, over="faces")
    a = record.get("agreement", "exact copies", "weighted")
    root = Interval(a.value**0.5, a.low**0.5, a.high**0.5)
    record.add("best accuracy, at least", a, over="faces")
    record.add("best accuracy, at most", root, over="faces")
    bits, copied = entropy(votes), np.isin(exact, which)
    with_copies, alone, gap = easier(bits, labels, copied, exact, share)
    record.add("entropy of the votes", with_copies, "copied faces", over="faces")
    record.add("entropy of the votes", alone, "other faces", over="faces")
    record.add_difference("copied faces", "other faces", gap, "entropy of the votes", over="faces")
    sure = np.unique([0, *np.quantile(bits[valid & (labels >= 0) & (bits > 0)], [0.25, 0.5, 0.75])])
    found, levels = reweighted(np.searchsorted(sure, bits), labels, exact, valid)
    record.add("agreement", found, "exact copies", condition="reweighted by entropy", over="faces")
    medians = np.array([np.median(bits[valid & (labels == k)]) for k in range(K)])
    halves = 2 * labels + (bits > medians[labels])
    found, _ = reweighted(halves, labels, exact, valid)
    record.add("agreement", found, "exact copies", condition="reweighted by class and entropy", over="faces")
    confusion = tables.sum(0)
    prior = confusion_prior(torch.from_numpy(votes[~valid]), rule="majority").double().numpy()
    rows = confusion / confusion.sum(1, keepdims=True)
    kept = np.nonzero((labels >= 0) & copied)[0]
    order = kept[np.argsort(exact[kept], kind="stable")]
    neighbors = exact[order[1:]] == exact[order[:-1]]
    alike = (votes[order[1:]] == votes[order[:-1]]).all(1)[neighbors]
    record.extra |= {
        "panel one against panel two": rows.round(4).tolist(),
        "panel one against panel two, faces": confusion.sum(1).round(1).tolist(),
        "mean votes by majority label": prior.round(4).tolist(),
        "published prior": FERPLUS_PRIOR.double().numpy().round(4).tolist(),
        "panel two minus published prior": (rows - FERPLUS_PRIOR.double().numpy()).round(4).tolist(),
        "groups of exact copies": len(tables),
        "groups of all copies": len(all_tables),
        "exact copies with the same ten votes": round(float(alike.mean()), 4),
        "levels of entropy": levels,
        # Higher than two panels agree. Half of the votes would have to come from other faces to reach that,
        # which is not credible, so agreement is estimated from copies only.
        "resampled own votes, copied faces": round(resampled_votes(votes, labels, kept), 4),
    }


def facts(labels: NDArray, groups: NDArray, valid: NDArray) -> dict[str, int | float]:
    """Counts of exact copies among the faces that the majority rule keeps."""
    first: dict[int, list[int]] = {}
    for i in np.nonzero((labels >= 0) & ~valid)[0]:
        first.setdefault(int(groups[i]), []).append(int(labels[i]))
    inside = [g for g in first.values() if len(g) > 1]
    kept = np.nonzero((labels >= 0) & valid)[0]
    across = [(int(labels[i]), first[int(groups[i])][0]) for i in kept if int(groups[i]) in first]
    return {
        "validation faces": len(kept),
        "validation faces with a copy in training": len(across),
        "groups inside training": len(inside),
        "same label, first two copies in training": round(float(np.mean([g[0] == g[1] for g in inside])), 4),
        "same label, validation and first copy in training": round(
            float(np.mean([a == b for a, b in across])), 4
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="FER+ in Microsoft's folders")
    parser.add_argument("--draw", type=Path, help="write the pairs to label into this folder, and stop")
    parser.add_argument("--labels", type=Path, help="csv with first, second and label (copy or other)")
    options = parser.parse_args()

    start = time.monotonic()
    faces = [every_face(options.data, split) for split in SPLITS]
    names = [[Path(name).name for name in data.names] for data in faces]
    flat = [name for split in names for name in split]
    low = find_twins(*faces, threshold=0.5)
    if options.draw:
        write_sheets(options.draw, faces, low, names)
        return

    def of(pair: tuple[tuple[int, int], ...]) -> tuple[str, str]:
        return names[pair[0][0]][pair[0][1]], names[pair[1][0]][pair[1][1]]

    if options.labels:
        with options.labels.open(newline="", encoding="utf-8") as file:
            given = {(row["first"], row["second"]): row["label"] for row in csv.DictReader(file)}
    else:
        rows = [line.split() for line in ResultRecord.load(NAME).extra["labeled pairs"]]
        given = {(row[0], row[1]): row[-1] for row in rows}
    drawn = [(band, low.pairs[i]) for band, i in draw(low)]
    labeled = [given[of(pair)] for _, pair in drawn]
    copy = np.array([label == "copy" for label in labeled])
    band, similarity = np.array([b for b, _ in drawn]), np.array([pair.similarity for _, pair in drawn])
    every = np.array([pair.similarity for pair in low.pairs if pair.kind != "exact"])
    of_band = np.digitize(every, BANDS[1:-1])
    sizes = np.array([[((of_band == b) & ((every >= NEAR) == s)).sum() for s in (0, 1)] for b in range(4)])
    judged = judge(similarity, band, copy, sizes)

    twins, same = find_twins(*faces), find_twins(*faces, near=False)
    near, exact = torch.cat(twins.groups).numpy(), torch.cat(same.groups).numpy()
    folds = torch.cat(find_twins(*faces, threshold=FOLDS).groups).numpy()
    valid = np.repeat([False, True], [len(f) for f in faces])
    votes = torch.cat([f.votes for f in faces]).double().numpy()
    labels = majority_label(torch.from_numpy(votes)).numpy()

    members: dict[int, list[str]] = {}
    for name, group in zip(flat, folds.tolist(), strict=True):
        members.setdefault(group, []).append(Path(name).stem[3:])
    lines = [" ".join(group) for group in members.values() if len(group) > 1]
    number = {group: int(found[0]) for group, found in members.items()}
    frozen = np.array([number[group] for group in folds.tolist()])
    sides = {
        f"{split}, copies in {other}": int(twins.has_twin(i, j).sum())
        for i, split in enumerate(SPLITS)
        for j, other in enumerate(SPLITS)
    }
    record = ResultRecord(
        name=NAME,
        what="Copies of pictures within and across FER+'s splits, and how often two panels agree on them.",
        data={"name": "FER+", "splits": dict(zip(SPLITS, map(len, faces), strict=True))},
        classes=list(EMOTIONS_FERPLUS),
        settings={
            "threshold": NEAR,
            "bands": list(BANDS),
            "pairs of each band": EACH,
            "resamples": RESAMPLES,
            "labels of pairs": "One rater. They were known when the threshold was last set, so precision and "
            "recall are slightly optimistic.",
        },
        extra={
            "exact copies, faces with a majority": facts(labels, exact, valid),
            "all copies, all faces": sides,
            "pairs": {
                kind: sum(p.kind == kind for p in twins.pairs) for kind in ("exact", "near", "mirrored")
            },
            "largest groups": sorted(map(len, members.values()), reverse=True)[:10],
            "pairs of a band, below and from the threshold on": sizes.tolist(),
            "checksum of the grouping": checksum(flat, frozen),
            "labeled pairs": [
                f"{' '.join(of(pair))} {pair.similarity:.4f} {pair.kind} {label}"
                for (_, pair), label in zip(drawn, labeled, strict=True)
            ],
            "groups": lines,
        },
        seed=SEED,
        versions={"torch": torch.__version__, "numpy": np.__version__},
        command="python -m book.experiments.twins --data /path/to/FERPlus",
        seconds=round(time.monotonic() - start, 1),
    )
    for metric, found in judged.items():
        record.add(metric, found, over="pairs")
    for b in range(4):
        right, total = int(copy[band == b].sum()), int((band == b).sum())
        similar = f"similarity {BANDS[b]} to {min(BANDS[b + 1], 1)}"
        record.add("share of copies", wilson_interval(right, total), condition=similar, over="pairs")
    revotes(record, votes, labels, exact, near, valid)
    path = record.save()
    print(path, record.extra["checksum of the grouping"])
    print(record.table())


if __name__ == "__main__":
    main()
